//! The door: everything that a stranger can do to us, he does to this module.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use callvault_access::Caller;
use subtle::ConstantTimeEq as _;
use tiny_http::HTTPVersion;

use crate::{
    Api, ApiError, ErrorKind,
    head::{self, Head, Refusal},
    listen::{Listener, Stream},
    places::{Place, Places, Stage},
    respond::{self, Ready},
    route::{NOTHING_HERE, Open},
    sign_in::{Entrance, is_of},
    tickets::{TICKET, Ticket, Tickets},
};

/// After an answer to a request that was not read to its end, so much of the rest is read and thrown away, for so long: a connection
/// closed with bytes unread would take the answer with it.
const LINGER_BYTES: usize = 256 << 10;
const LINGER: Duration = Duration::from_secs(1);

/// How long to wait after accept failed (no descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of an answer passed on at once.
const COPY_BYTES: usize = 64 << 10;

/// What can be asked without a token, by the portal.
const SIGN_IN: [&str; 3] = ["/v1/sign-in", "/v1/sign-in/begin", "/v1/sign-in/finish"];

/// What the door knows.
pub(crate) struct Front {
    pub(crate) places: Arc<Places>,
    pub(crate) entrance: Entrance,
    /// Knows all others.
    pub(crate) asked: Arc<dyn Api>,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) request_max: Duration,
    pub(crate) stall_max: Duration,
    pub(crate) open: PathBuf,
    pub(crate) api: PathBuf,
}

/// Accepts until the listener is closed.
pub(crate) fn accept(front: &Arc<Front>, listener: &Listener, closing: &AtomicBool) {
    loop {
        let accepted = listener.accept();
        if closing.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok(stream) => admit(front, stream),
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection to the HTTP endpoint");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn admit(front: &Arc<Front>, stream: Stream) {
    // without a place there is nobody to answer either: the connection is closed
    let Some(place) = front.places.enter(&stream) else { return };
    let front = Arc::clone(front);
    let spawned = thread::Builder::new().name("http-front".into()).spawn(move || front.attend(stream, &place));
    if let Err(error) = spawned {
        tracing::warn!(%error, "failed to start a thread for a connection to the HTTP endpoint");
    }
}

impl Front {
    fn attend(&self, mut stream: Stream, place: &Place) {
        if let Entrance::Portal(users) = &self.entrance
            && !matches!(&stream, Stream::Unix(unix) if is_of(unix, users))
        {
            tracing::warn!("a process that is not the portal came to the portal's socket, and was sent away");
            return;
        }
        let deadline = Instant::now() + self.request_max;
        if stream.set_write_timeout(self.stall_max).is_err() {
            return;
        }
        let result = match self.read(&mut stream, deadline) {
            Ok((head, body)) => self.answer(&mut stream, place, &head, &body),
            Err(Unread::Refused(refusal)) => {
                own(&mut stream, respond::refusal(refusal), false).map(|()| linger(&mut stream))
            }
            Err(Unread::Stranger(error)) => {
                own(&mut stream, respond::error(&error), false).map(|()| linger(&mut stream))
            }
            // nobody is there to be answered
            Err(Unread::Gone) => Ok(()),
        };
        if let Err(error) = result {
            tracing::debug!(%error, "an answer was not taken");
        }
        stream.shutdown(Shutdown::Both);
    }

    fn answer(&self, stream: &mut Stream, place: &Place, head: &Head, body: &[u8]) -> io::Result<()> {
        let bodiless = head.method == "HEAD";
        let refuse =
            |stream: &mut Stream, kind, text: &str| own(stream, respond::error(&ApiError::new(kind, text)), bodiless);
        let (stage, path, ticket) = match Open::of(head.path()) {
            Some(_) => (Stage::Open, &self.open, None),
            None if !head.path().starts_with("/v1/") => return refuse(stream, ErrorKind::NotFound, NOTHING_HERE),
            None => match self.caller(head, &stream.peer()) {
                Ok(caller) => (stage(head.path()), &self.api, Some(self.tickets.give(caller))),
                Err(error) => return own(stream, respond::error(&error), bodiless),
            },
        };
        if !place.advance(stage) {
            return refuse(stream, ErrorKind::Unavailable, "too many requests are being answered; try again");
        }
        let mut inner = UnixStream::connect(path)?;
        inner.write_all(&anew(head, ticket.as_ref(), body))?;
        pass_on(&mut inner, stream)
    }

    /// Who has that token. To compare it with the operator's takes as long wherever it differs.
    fn caller(&self, head: &Head, peer: &str) -> Result<Caller, ApiError> {
        let token = head.token.as_deref();
        let operators = match &self.entrance {
            Entrance::Operator(token) => token,
            Entrance::Portal(_) => {
                let from = head.from.map_or_else(|| peer.to_owned(), |from| from.to_string());
                return match token {
                    _ if SIGN_IN.contains(&head.path()) => Ok(Caller::visitor("", from)),
                    Some(token) if !token.is_empty() => self.asked.authenticate(token, &from),
                    _ => Err(ApiError::new(ErrorKind::Unauthorized, "sign in first")),
                };
            }
        };
        let (expected, from) = (operators.expose().as_bytes(), peer);
        match token {
            // an empty token would let everyone in
            Some(token) if !expected.is_empty() && bool::from(token.as_bytes().ct_eq(expected)) => {
                Ok(Caller::operator(from))
            }
            Some(token) if !token.is_empty() => self.asked.authenticate(token, from),
            _ => Err(ApiError::new(
                ErrorKind::Unauthorized,
                "send a token as \"Authorization: Bearer TOKEN\": the control token, or one that `callvaultctl tokens create` made",
            )),
        }
    }

    fn read(&self, stream: &mut Stream, deadline: Instant) -> Result<(Head, Vec<u8>), Unread> {
        let mut bytes = Vec::with_capacity(1024);
        let end = loop {
            if let Some(end) = head::end(&bytes) {
                break end;
            }
            if bytes.len() >= head::HEAD_BYTES_MAX {
                return Err(Unread::Refused(head::HEAD_TOO_LARGE));
            }
            receive(stream, &mut bytes, head::HEAD_BYTES_MAX, deadline)?;
        };
        let mut body = bytes.split_off(end);
        let head = head::parse(&bytes).map_err(Unread::Refused)?;
        // Memory is not filled for strangers.
        if head.is_large() {
            self.caller(&head, &stream.peer()).map_err(Unread::Stranger)?;
        }
        while body.len() < head.body_bytes {
            receive(stream, &mut body, head.body_bytes, deadline)?;
        }
        // what follows would be another request: one a connection
        body.truncate(head.body_bytes);
        Ok((head, body))
    }
}

/// Where a request under `/v1/` is answered.
fn stage(path: &str) -> Stage {
    if path.ends_with("/audio") { Stage::Sound } else { Stage::Api }
}

/// Why there is no request.
enum Unread {
    Refused(Refusal),
    Stranger(ApiError),
    Gone,
}

/// Reads what is there, so that `bytes` has at most `max`.
fn receive(stream: &mut Stream, bytes: &mut Vec<u8>, max: usize, deadline: Instant) -> Result<(), Unread> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Unread::Refused(head::TOO_LATE));
    }
    stream.set_read_timeout(left).map_err(|_| Unread::Gone)?;
    let mut buffer = [0; 4096];
    let room = buffer.len().min(max.saturating_sub(bytes.len()));
    match stream.read(&mut buffer[..room]) {
        Ok(0) => Err(Unread::Gone),
        Ok(n) => {
            bytes.extend_from_slice(&buffer[..n]);
            Ok(())
        }
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(Unread::Refused(head::TOO_LATE)),
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(Unread::Gone),
        },
    }
}

/// The request as tiny_http gets it: only what was understood, and no second one after it.
fn anew(head: &Head, ticket: Option<&Ticket>, body: &[u8]) -> Vec<u8> {
    let version = if head.persistent { "1.1" } else { "1.0" };
    let (method, target, bytes) = (&head.method, &head.target, body.len());
    let ticket = ticket.map_or_else(String::new, |ticket| format!("{TICKET}: {}\r\n", ticket.number));
    let text = format!(
        "{method} {target} HTTP/{version}\r\nHost: callvault\r\nConnection: close\r\n{ticket}Content-Length: {bytes}\r\n\r\n"
    );
    [text.as_bytes(), body].concat()
}

/// Copies an answer, and says in it that the connection ends with it, which tiny_http does not.
fn pass_on(inner: &mut UnixStream, stream: &mut Stream) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut begun = false;
    let mut first = Vec::new();
    loop {
        let bytes = match inner.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => &buffer[..bytes],
            Err(again) if again.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if begun {
            stream.write_all(bytes)?;
            continue;
        }
        first.extend_from_slice(bytes);
        if let Some(said) = say_close(&first) {
            stream.write_all(&said)?;
            begun = true;
        }
    }
}

/// `answer` with `Connection: close` after its status line; `None` while that line is not complete.
fn say_close(answer: &[u8]) -> Option<Vec<u8>> {
    let end = answer.windows(2).position(|two| two == b"\r\n")? + 2;
    let (line, rest) = answer.split_at(end);
    Some([line, b"Connection: close\r\n", rest].concat())
}

/// Sends an answer that the door gives by itself.
fn own(stream: &mut Stream, response: Ready, bodiless: bool) -> io::Result<()> {
    let mut bytes = Vec::new();
    response.raw_print(&mut bytes, HTTPVersion(1, 1), &[], bodiless, None)?;
    stream.write_all(&say_close(&bytes).unwrap_or(bytes))
}

fn linger(stream: &mut Stream) {
    stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + LINGER;
    let (mut buffer, mut read) = ([0; 4096], 0);
    while read < LINGER_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(left).is_err() {
            return;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => read += bytes,
        }
    }
}

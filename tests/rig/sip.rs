//! A SIPREC client of our own, as small as it can be: it says one thing and looks at what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

/// RFC 3261's T1, after which a request over UDP is sent again.
const AGAIN: Duration = Duration::from_millis(500);

/// So long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an INVITE says beyond what every one says.
#[derive(Clone)]
pub struct Invite {
    /// `From` without its tag.
    pub from: String,
    /// Further header fields, each with its line end.
    pub headers: String,
    pub content_type: String,
    pub body: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find(|line| line.split_once(':').is_some_and(|(found, _)| found.trim().eq_ignore_ascii_case(name)))?;
        Some(line.split_once(':')?.1.trim())
    }

    /// The audio ports of the session description, in the order of its media lines.
    pub fn audio_ports(&self) -> Vec<u16> {
        let lines = self.body.lines().filter_map(|line| line.strip_prefix("m=audio "));
        lines.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
    }
}

enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
}

/// A connection under TLS, the handshake done.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A client with one dialog at most.
pub struct Client {
    wire: Wire,
    local: SocketAddr,
    peer: SocketAddr,
    /// What came and is not a whole message yet.
    unread: Vec<u8>,
    call_id: String,
    from: String,
    to_tag: String,
    cseq: u32,
    /// The last request that was sent, to send it again.
    last: Vec<u8>,
    /// How long the last request took from its first sending to its final answer.
    took: Duration,
    contact: Option<SocketAddr>,
}

impl Client {
    pub fn udp(peer: SocketAddr) -> Self {
        let socket = UdpSocket::bind((peer.ip(), 0)).unwrap();
        socket.connect(peer).unwrap();
        socket.set_read_timeout(Some(AGAIN)).unwrap();
        let local = socket.local_addr().unwrap();
        Self::new(Wire::Udp(socket), local, peer)
    }

    pub fn tcp(peer: SocketAddr) -> Self {
        let stream = TcpStream::connect(peer).unwrap();
        stream.set_read_timeout(Some(AGAIN)).unwrap();
        let local = stream.local_addr().unwrap();
        Self::new(Wire::Tcp(stream), local, peer)
    }

    pub fn tls(peer: SocketAddr, stream: TlsStream) -> Self {
        stream.sock.set_read_timeout(Some(AGAIN)).unwrap();
        let local = stream.sock.local_addr().unwrap();
        Self::new(Wire::Tls(Box::new(stream)), local, peer)
    }

    /// Where the recorder is to find this client when it has something to say.
    pub fn with_contact(mut self, contact: SocketAddr) -> Self {
        self.contact = Some(contact);
        self
    }

    /// Loses its connection, and has another from now on.
    pub fn reconnect(&mut self) {
        let fresh = Self::tcp(self.peer);
        (self.wire, self.local) = (fresh.wire, fresh.local);
        self.unread.clear();
    }

    /// Loses its connection.
    pub fn disconnect(self) {
        drop(self.wire);
    }

    /// Asks whether the recorder is there.
    pub fn options(&mut self) -> Option<Answer> {
        self.cseq += 1;
        self.from = "<sip:client.example>".into();
        let request = self.request("OPTIONS", "", b"");
        self.transact("OPTIONS", &request, Duration::from_secs(10))
    }

    fn new(wire: Wire, local: SocketAddr, peer: SocketAddr) -> Self {
        let (call_id, from, to_tag) = (format!("{}@test", unique()), String::new(), String::new());
        Self {
            wire,
            local,
            peer,
            unread: Vec::new(),
            call_id,
            from,
            to_tag,
            cseq: 0,
            last: Vec::new(),
            took: Duration::ZERO,
            contact: None,
        }
    }

    /// The text of a request of this dialog.
    fn request(&self, method: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let (transport, parameter) = match &self.wire {
            Wire::Udp(_) => ("UDP", ""),
            Wire::Tcp(_) => ("TCP", ";transport=tcp"),
            Wire::Tls(_) => ("TLS", ";transport=tls"),
        };
        let contact = self.contact.unwrap_or(self.local);
        let (local, peer, cseq) = (self.local, self.peer, self.cseq);
        let branch = if method == "ACK" { format!("ack{}", unique()) } else { format!("{}-{cseq}", self.call_id) };
        let to_tag = if self.to_tag.is_empty() { String::new() } else { format!(";tag={}", self.to_tag) };
        let head = format!(
            "{method} sip:{peer} SIP/2.0\r\nVia: SIP/2.0/{transport} {local};branch=z9hG4bK{branch}\r\n\
             From: {};tag=src\r\nTo: <sip:{peer}>{to_tag}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:{contact}{parameter}>;src\r\nMax-Forwards: 70\r\n{headers}Content-Length: {}\r\n\r\n",
            self.from,
            self.call_id,
            body.len(),
        );
        [head.as_bytes(), body].concat()
    }

    /// Sends bytes as they are. A stream may be closed by the peer before all of them are taken.
    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.wire {
            Wire::Udp(socket) => drop(socket.send(bytes)),
            Wire::Tcp(stream) => drop(stream.write_all(bytes)),
            Wire::Tls(stream) => drop(stream.write_all(bytes).and_then(|()| stream.flush())),
        }
    }

    /// The next answer to the method of this CSeq, or none when nothing comes for T1 or the connection is closed.
    fn receive(&mut self, method: &str) -> Option<Answer> {
        let begun = Instant::now();
        while begun.elapsed() < AGAIN {
            while let Some(message) = self.message() {
                let ours = format!("{} {method}", self.cseq);
                if message.status > 0 && message.header("CSeq") == Some(&ours) {
                    return Some(message);
                }
            }
            if !self.read() {
                return None;
            }
        }
        None
    }

    /// Reads what comes within T1; false when nothing can come any more.
    fn read(&mut self) -> bool {
        let mut buffer = vec![0; 65_536];
        let read = match &mut self.wire {
            Wire::Udp(socket) => socket.recv(&mut buffer),
            Wire::Tcp(stream) => stream.read(&mut buffer),
            Wire::Tls(stream) => stream.read(&mut buffer),
        };
        match read {
            Ok(0) => return false,
            Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return false,
        }
        true
    }

    /// Takes a whole message out of what came; requests have status 0.
    fn message(&mut self) -> Option<Answer> {
        let head_end = self.unread.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.unread[..head_end]).into_owned();
        let mut message = Answer { status: 0, head, body: String::new() };
        let body_length: usize = message.header("Content-Length").map_or(0, |length| length.parse().unwrap());
        let body = self.unread.get(head_end..head_end + body_length)?;
        message.body = String::from_utf8_lossy(body).into_owned();
        if let Some(status) = message.head.strip_prefix("SIP/2.0 ") {
            message.status = status[..3].parse().unwrap();
        }
        self.unread.drain(..head_end + body_length);
        Some(message)
    }

    /// Sends a request, again and again where the transport wants it, until it is answered for good; none when it is not for so long.
    fn transact(&mut self, method: &str, request: &[u8], within: Duration) -> Option<Answer> {
        self.last = request.to_vec();
        self.send(request);
        self.await_answer(method, request, within)
    }

    fn await_answer(&mut self, method: &str, request: &[u8], within: Duration) -> Option<Answer> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            match self.receive(method) {
                Some(answer) if answer.status >= 200 => {
                    self.took = begun.elapsed();
                    return Some(answer);
                }
                Some(_) => {}
                None if matches!(self.wire, Wire::Udp(_)) => self.send(request),
                None => {}
            }
        }
        None
    }

    /// The text of an INVITE, the first or a later one, to be sent in whatever way.
    pub fn begin_invite(&mut self, invite: &Invite) -> Vec<u8> {
        self.cseq += 1;
        self.from.clone_from(&invite.from);
        let headers = format!("{}Content-Type: {}\r\n", invite.headers, invite.content_type);
        self.request("INVITE", &headers, &invite.body)
    }

    /// Waits for the answer to an INVITE that was sent, and acknowledges it.
    pub fn finish_invite(&mut self, request: &[u8]) -> Answer {
        let answer = self.await_answer("INVITE", request, PATIENCE).expect("an INVITE is always answered");
        self.conclude(&answer);
        answer
    }

    /// Sends the CANCEL of an INVITE (RFC 3261 section 9.1): its first lines, and no body.
    pub fn cancel(&mut self, invite: &[u8]) {
        let head = String::from_utf8_lossy(invite);
        let wanted = ["Via", "From", "To", "Call-ID", "Max-Forwards"];
        let head = head.split("\r\n\r\n").next().unwrap().lines();
        let lines = head.filter(|line| wanted.iter().any(|name| line.starts_with(&format!("{name}:"))));
        let lines: String = lines.map(|line| format!("{line}\r\n")).collect();
        let (peer, cseq) = (self.peer, self.cseq);
        let request = format!("CANCEL sip:{peer} SIP/2.0\r\n{lines}CSeq: {cseq} CANCEL\r\nContent-Length: 0\r\n\r\n");
        self.send(request.as_bytes());
    }

    /// Sends an INVITE and acknowledges the answer; none when there is none for so long.
    pub fn try_invite(&mut self, invite: &Invite, within: Duration) -> Option<Answer> {
        let request = self.begin_invite(invite);
        let answer = self.transact("INVITE", &request, within)?;
        self.conclude(&answer);
        Some(answer)
    }

    fn conclude(&mut self, answer: &Answer) {
        if answer.status < 300 {
            let to = answer.header("To").unwrap();
            self.to_tag = to.split_once(";tag=").unwrap().1.split(';').next().unwrap().to_owned();
            return self.acknowledge();
        }
        // The acknowledgement of a refusal belongs to the INVITE's own transaction.
        let ack = format!(
            "ACK sip:{peer} SIP/2.0\r\nVia: {via}\r\nFrom: {from};tag=src\r\nTo: {to}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            peer = self.peer,
            via = answer.header("Via").unwrap(),
            from = self.from,
            to = answer.header("To").unwrap(),
            call_id = self.call_id,
            cseq = self.cseq,
        );
        self.send(ack.as_bytes());
    }

    /// Acknowledges the last INVITE, which was accepted.
    pub fn acknowledge(&mut self) {
        let ack = self.request("ACK", "", b"");
        self.send(&ack);
    }

    pub fn invite(&mut self, invite: &Invite) -> Answer {
        self.try_invite(invite, PATIENCE).expect("an INVITE is always answered")
    }

    /// An INVITE that must be accepted: where to send the audio of each media line.
    pub fn call(&mut self, invite: &Invite) -> Vec<SocketAddr> {
        let answer = self.invite(invite);
        assert_eq!(answer.status, 200, "{}", answer.head);
        answer.audio_ports().into_iter().map(|port| SocketAddr::new(self.peer.ip(), port)).collect()
    }

    /// A later offer without anything else, in an INVITE of the dialog.
    pub fn reinvite(&mut self, sdp: &str) -> Answer {
        let (from, body) = (self.from.clone(), sdp.as_bytes().to_vec());
        self.invite(&Invite { from, headers: String::new(), content_type: "application/sdp".into(), body })
    }

    /// A request of the dialog other than INVITE, and its answer.
    pub fn ask(&mut self, method: &str, headers: &str, body: &[u8]) -> Answer {
        self.cseq += 1;
        let request = self.request(method, headers, body);
        self.transact(method, &request, PATIENCE).expect("a request of a dialog is always answered")
    }

    /// How long the last request took from its first sending to its final answer.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The last request once more, as it was, and what it is answered.
    pub fn ask_again(&mut self, method: &str) -> Answer {
        let request = self.last.clone();
        self.transact(method, &request, PATIENCE).expect("what comes again is answered again")
    }

    /// Waits for a request of the peer's and answers it with 200.
    pub fn answer_request(&mut self, method: &str, within: Duration) -> Option<Answer> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            while let Some(message) = self.message() {
                if message.status != 0 || !message.head.starts_with(&format!("{method} ")) {
                    continue;
                }
                let copied: String = ["Via", "From", "To", "Call-ID", "CSeq"]
                    .iter()
                    .map(|name| format!("{name}: {}\r\n", message.header(name).unwrap_or_default()))
                    .collect();
                self.send(format!("SIP/2.0 200 OK\r\n{copied}Content-Length: 0\r\n\r\n").as_bytes());
                return Some(message);
            }
            if !self.read() {
                return None;
            }
        }
        None
    }

    /// Ends the dialog; whether the peer still knew it.
    pub fn try_bye(&mut self) -> bool {
        self.cseq += 1;
        let request = self.request("BYE", "", b"");
        self.transact("BYE", &request, Duration::from_secs(10)).is_some_and(|answer| answer.status == 200)
    }

    /// Ends the dialog with a peer that may be gone.
    pub fn try_bye_once(&mut self) {
        self.cseq += 1;
        let request = self.request("BYE", "", b"");
        self.transact("BYE", &request, AGAIN);
    }

    pub fn bye(mut self) {
        assert!(self.try_bye(), "the BYE was not answered with 200");
    }
}

/// Something that no other client of this test program has.
fn unique() -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    format!("{:x}-{:x}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed))
}

//! Those that recordings are delivered to: a server in the shape of Voice Analytics that is strict about it, a web server that checks
//! signatures, and a proxy; with faults on demand. It shares no code with the client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Digest as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

pub const CLIENT_ID: &str = "client/1";
pub const CLIENT_SECRET: &str = "s3cret:ü&=";
pub const SCOPE: &str = "voice-analytics/recordings.write";
pub const WEBHOOK_SECRET: &str = "sh4red";

/// Where a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    Token,
    Create,
    Put,
    Hook,
}

/// What goes wrong, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status, with this `Retry-After`; nothing is done.
    Status(u16, Option<&'static str>),
    /// The connection is closed before the body is read.
    Close,
    /// What was asked for is done, and the connection closed without an answer.
    DoneAndClosed,
    /// What was asked for is done, and nothing is said until the client leaves.
    DoneAndStall,
    /// What was asked for is done, and half an answer is sent.
    HalfAnswer,
    /// Everything is read and nothing is said until the client leaves.
    Stall,
    /// All tokens are of no use from now on.
    TokensExpire,
    /// This body with status 200.
    Says(&'static str),
    /// What was put is taken for damaged.
    BadDigest,
}

/// A recording on the other side.
#[derive(Debug, Clone)]
pub struct Entry {
    pub asked: Value,
    pub state: String,
    /// Whole bodies that were put, one after the other.
    pub puts: Vec<Vec<u8>>,
    /// Whether its URL is of no use any more.
    pub expired: bool,
}

#[derive(Default)]
struct State {
    base: String,
    faults: BTreeMap<At, VecDeque<Fault>>,
    tokens: BTreeSet<String>,
    entries: BTreeMap<String, Entry>,
    hooks: Vec<Hook>,
    counts: BTreeMap<At, usize>,
    violations: Vec<String>,
    issued: u32,
}

/// A post that was accepted.
#[derive(Debug, Clone)]
pub struct Hook {
    pub key: String,
    pub metadata: Value,
    pub audio: Vec<u8>,
}

/// The server.
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// The certificate of its authority, where it speaks TLS.
    pub ca_pem: Option<String>,
}

struct Request {
    method: String,
    path: String,
    head: BTreeMap<String, String>,
    body: Vec<u8>,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Receiver {
    pub fn start() -> Self {
        Self::serve(None, None)
    }

    /// With a certificate of an authority that nobody knows.
    pub fn start_tls() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority of the test");
        let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![own.der().clone()],
                rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self::serve(Some(Arc::new(config)), Some(authority.pem()))
    }

    fn serve(tls: Option<Arc<ServerConfig>>, ca_pem: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(Mutex::new(State { base: format!("{scheme}://{address}"), ..State::default() }));
        let weak = Arc::downgrade(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Some(state), Ok(stream)) = (weak.upgrade(), stream) else { return };
                let tls = tls.clone();
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
                    match tls {
                        None => serve_one(&mut &stream, &state),
                        Some(config) => {
                            let connection = ServerConnection::new(config).unwrap();
                            let mut stream = StreamOwned::new(connection, stream);
                            serve_one(&mut stream, &state);
                            stream.conn.send_close_notify();
                            let _ = stream.flush();
                        }
                    }
                });
            }
        });
        Self { address, state, ca_pem }
    }

    pub fn base(&self) -> String {
        self.state.lock().unwrap().base.clone()
    }

    /// These faults happen there, one for each request, before all is well.
    pub fn fail(&self, at: At, faults: &[Fault]) {
        self.state.lock().unwrap().faults.entry(at).or_default().extend(faults.iter().cloned());
    }

    /// All goes well from now on.
    pub fn mend(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// No URL that was given out so far is of use any more.
    pub fn expire_urls(&self) {
        self.state.lock().unwrap().entries.values_mut().for_each(|entry| entry.expired = true);
    }

    /// How often that was asked for.
    pub fn count(&self, at: At) -> usize {
        self.state.lock().unwrap().counts.get(&at).copied().unwrap_or(0)
    }

    pub fn entries(&self) -> BTreeMap<String, Entry> {
        self.state.lock().unwrap().entries.clone()
    }

    /// The recordings that are complete: with audio that is what was announced.
    pub fn complete(&self) -> Vec<Entry> {
        self.entries().into_values().filter(|entry| !entry.puts.is_empty()).collect()
    }

    pub fn hooks(&self) -> Vec<Hook> {
        self.state.lock().unwrap().hooks.clone()
    }

    /// That nothing was asked for in another shape than the documented one.
    pub fn assert_kept_to_the_shape(&self) {
        assert_eq!(self.state.lock().unwrap().violations, Vec::<String>::new());
    }
}

fn serve_one(stream: &mut dyn Stream, state: &Mutex<State>) {
    let Some((mut request, length)) = read_head(stream) else { return };
    let path = request.path.split('?').next().unwrap_or_default().to_owned();
    let at = match (request.method.as_str(), path.as_str()) {
        ("POST", "/oauth2/token") => At::Token,
        ("POST", "/voice-analytics/v1/recordings") => At::Create,
        ("PUT", path) if path.starts_with("/put/") => At::Put,
        ("POST", "/hook") => At::Hook,
        _ => {
            state.lock().unwrap().violations.push(format!("{} {path}", request.method));
            return answer(stream, 404, "", "{}");
        }
    };
    let fault = {
        let mut state = state.lock().unwrap();
        *state.counts.entry(at).or_default() += 1;
        state.faults.get_mut(&at).and_then(VecDeque::pop_front)
    };
    if fault == Some(Fault::Close) {
        return;
    }
    request.body = vec![0; length];
    if stream.read_exact(&mut request.body).is_err() {
        // The client broke off: nothing is complete.
        return;
    }
    match fault {
        Some(Fault::Status(status, retry_after)) => {
            let head = retry_after.map(|text| format!("Retry-After: {text}\r\n")).unwrap_or_default();
            return answer(stream, status, &head, r#"{"error":"told_so"}"#);
        }
        Some(Fault::Stall) => {
            let _ = stream.read(&mut [0]);
            return;
        }
        Some(Fault::Says(text)) => return answer(stream, 200, "", text),
        Some(Fault::BadDigest) => return answer(stream, 400, "", "<Error><Code>BadDigest</Code></Error>"),
        Some(Fault::TokensExpire) => state.lock().unwrap().tokens.clear(),
        _ => {}
    }
    let (status, body) = {
        let mut state = state.lock().unwrap();
        let done = match at {
            At::Token => token(&mut state, &request),
            At::Create => create(&mut state, &request),
            At::Put => put(&mut state, &request, path.trim_start_matches("/put/")),
            At::Hook => hook(&mut state, &request),
        };
        done.unwrap_or_else(|wrong| {
            state.violations.push(format!("{at:?}: {wrong}"));
            (400, r#"{"error":"wrong_shape"}"#.into())
        })
    };
    match fault {
        Some(Fault::DoneAndClosed) => {}
        Some(Fault::DoneAndStall) => _ = stream.read(&mut [0]),
        Some(Fault::HalfAnswer) => {
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{}",
                body.len() + 5,
                &body[..body.len() / 2]
            );
        }
        _ => answer(stream, status, "", &body),
    }
}

fn answer(stream: &mut dyn Stream, status: u16, head: &str, body: &str) {
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\n{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.flush();
}

fn read_head(stream: &mut dyn Stream) -> Option<(Request, usize)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let head: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    // S3 takes no chunked body, so this does not either.
    let length = match head.get("content-length") {
        Some(length) => length.parse().ok()?,
        None => 0,
    };
    Some((Request { method, path, head, body: Vec::new() }, length))
}

type Done = Result<(u16, String), String>;

fn wants(condition: bool, wrong: impl Into<String>) -> Result<(), String> {
    if condition { Ok(()) } else { Err(wrong.into()) }
}

fn token(state: &mut State, request: &Request) -> Done {
    // RFC 6749 section 2.3.1: both are form-encoded and then joined.
    let basic = STANDARD.encode("client%2F1:s3cret%3A%C3%BC%26%3D");
    if request.head.get("authorization") != Some(&format!("Basic {basic}")) {
        return Ok((401, r#"{"error":"invalid_client"}"#.into()));
    }
    let body = String::from_utf8_lossy(&request.body);
    wants(request.head["content-type"] == "application/x-www-form-urlencoded", "content type")?;
    let fields: BTreeSet<&str> = body.split('&').collect();
    let expected = BTreeSet::from(["grant_type=client_credentials", "scope=voice-analytics%2Frecordings.write"]);
    wants(fields == expected, format!("{fields:?}"))?;
    state.issued += 1;
    let token = format!("token-{}", state.issued);
    state.tokens.insert(token.clone());
    Ok((200, json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).to_string()))
}

fn create(state: &mut State, request: &Request) -> Done {
    let token = request.head.get("authorization").and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
    if !state.tokens.contains(token) {
        return Ok((401, r#"{"error":"invalid_token"}"#.into()));
    }
    wants(request.head["content-type"] == "application/json", "content type")?;
    let asked: Value = serde_json::from_slice(&request.body).map_err(|error| error.to_string())?;
    shape(&asked, &["user", "fileName", "contentMd5", "callData"], &[])?;
    shape(&asked["user"], &["email"], &[])?;
    wants(asked["user"]["email"].as_str().is_some_and(|email| email.contains('@')), "email")?;
    let md5 = asked["contentMd5"].as_str().and_then(|text| STANDARD.decode(text).ok());
    wants(md5.is_some_and(|md5| md5.len() == 16), "contentMd5")?;
    let call = &asked["callData"];
    let needed = ["direction", "localParty", "remoteParty", "duration", "callType", "recordingDate"];
    shape(call, &needed, &["speakers", "language"])?;
    for party in ["localParty", "remoteParty"] {
        shape(&call[party], &["firstName", "lastName", "number"], &[])?;
    }
    let is_one_of = |name: &str, words: &[&str]| call[name].as_str().is_some_and(|word| words.contains(&word));
    wants(is_one_of("direction", &["IN", "OUT", "UNKNOWN"]), "direction")?;
    wants(is_one_of("callType", &["INTERNAL", "EXTERNAL", "UNKNOWN"]), "callType")?;
    wants(call["duration"].as_u64().is_some_and(|seconds| seconds >= 1), "duration")?;
    let date = call["recordingDate"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    wants(date.is_some(), "recordingDate")?;
    if let Some(speakers) = call.get("speakers") {
        wants(speakers.as_u64().is_some_and(|count| (2..=10).contains(&count)), "speakers")?;
    }
    let id = format!("r{}", state.entries.len() + 1);
    let remote_state = format!("state-of-{id}");
    let answer =
        json!({"presignedUrl": format!("{}/put/{id}?sig=a%2Bb", state.base), "state": remote_state, "recordingId": id});
    state.entries.insert(id, Entry { asked, state: remote_state, puts: Vec::new(), expired: false });
    Ok((201, answer.to_string()))
}

fn put(state: &mut State, request: &Request, id: &str) -> Done {
    wants(!request.head.contains_key("authorization"), "a token for who shall not have it")?;
    wants(request.head.contains_key("content-length"), "no Content-Length")?;
    wants(request.path.ends_with("?sig=a%2Bb"), "the URL was changed")?;
    let entry = state.entries.get_mut(id).ok_or("unknown recording")?;
    if entry.expired {
        return Ok((403, "<Error><Code>AccessDenied</Code></Error>".into()));
    }
    wants(request.head.get("x-amz-meta-state") == Some(&entry.state), "x-amz-meta-state")?;
    let md5 = STANDARD.encode(md5::Md5::digest(&request.body));
    if entry.asked["contentMd5"] != md5.as_str() {
        return Ok((400, "<Error><Code>BadDigest</Code></Error>".into()));
    }
    entry.puts.push(request.body.clone());
    Ok((200, String::new()))
}

fn hook(state: &mut State, request: &Request) -> Done {
    let timestamp = request.head.get("x-callvault-timestamp").ok_or("no timestamp")?;
    let digest = hex(&sha2::Sha256::digest(&request.body));
    let expected = format!("v1={}", hex(&hmac(WEBHOOK_SECRET.as_bytes(), format!("{timestamp}.{digest}").as_bytes())));
    if request.head.get("x-callvault-signature") != Some(&expected) {
        return Ok((403, r#"{"error":"bad_signature"}"#.into()));
    }
    let key = request.head.get("idempotency-key").ok_or("no key")?.clone();
    if state.hooks.iter().any(|hook| hook.key == key) {
        return Ok((409, r#"{"error":"known"}"#.into()));
    }
    let boundary = request.head["content-type"].split_once("boundary=").ok_or("no boundary")?.1;
    let between = format!("\r\n--{boundary}");
    let body = [b"\r\n", &request.body[..]].concat();
    let parts = split(&body, between.as_bytes());
    wants(parts.len() == 4 && parts[3] == b"--\r\n", "two parts")?;
    let content = |part: &[u8], name: &str| {
        let at = part.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no head of a part")?;
        let head = String::from_utf8_lossy(&part[..at]).into_owned();
        wants(head.contains(&format!("name=\"{name}\"")), head)?;
        Ok::<Vec<u8>, String>(part[at + 4..].to_vec())
    };
    let metadata: Value = serde_json::from_slice(&content(parts[1], "metadata")?).map_err(|error| error.to_string())?;
    let audio = content(parts[2], "audio")?;
    wants(metadata["recording_id"] == key.as_str(), "recording_id")?;
    wants(metadata["audio"]["sha256"] == hex(&sha2::Sha256::digest(&audio)).as_str(), "sha256")?;
    state.hooks.push(Hook { key, metadata, audio });
    Ok((200, "{}".into()))
}

/// That an object has these members and no others.
fn shape(object: &Value, needed: &[&str], optional: &[&str]) -> Result<(), String> {
    let members: BTreeSet<&str> = object.as_object().ok_or("no object")?.keys().map(String::as_str).collect();
    let missing = needed.iter().find(|name| !members.contains(**name));
    let beyond = members.iter().find(|name| !needed.contains(name) && !optional.contains(name));
    wants(missing.is_none() && beyond.is_none(), format!("missing {missing:?}, beyond {beyond:?}"))
}

fn split<'a>(bytes: &'a [u8], between: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest.windows(between.len()).position(|w| w == between) {
        parts.push(&rest[..at]);
        rest = &rest[at + between.len()..];
    }
    parts.push(rest);
    parts
}

/// RFC 2104, for keys no longer than a block.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with).to_vec();
    let inner = sha2::Sha256::digest([pad(0x36), text.to_vec()].concat());
    sha2::Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A proxy that wants a user and a password.
pub struct Proxy {
    pub address: SocketAddr,
    served: Arc<Mutex<Vec<String>>>,
}

pub const PROXY_CREDENTIALS: &str = "user:pa:ss";

impl Proxy {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::downgrade(&served);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Some(list), Ok(stream)) = (list.upgrade(), stream) else { return };
                thread::spawn(move || relay(stream, &list));
            }
        });
        Self { address, served }
    }

    /// The request lines that came, without what follows the target.
    pub fn served(&self) -> Vec<String> {
        self.served.lock().unwrap().clone()
    }
}

fn relay(mut client: TcpStream, list: &Mutex<Vec<String>>) {
    let Some((request, length)) = read_head(&mut client) else { return };
    // All is read before a refusal too: whoever closes with bytes unread resets the connection, and its answer with it.
    let mut body = vec![0; length];
    if client.read_exact(&mut body).is_err() {
        return;
    }
    let expected = format!("Basic {}", STANDARD.encode(PROXY_CREDENTIALS));
    if request.head.get("proxy-authorization") != Some(&expected) {
        return answer(&mut client, 407, "Proxy-Authenticate: Basic\r\n", "");
    }
    list.lock().unwrap().push(format!("{} {}", request.method, request.path.split('?').next().unwrap_or_default()));
    let target = request.path.trim_start_matches("http://");
    let (host, path) = target.split_once('/').unwrap_or((target, ""));
    let Ok(mut server) = TcpStream::connect(host) else { return answer(&mut client, 502, "", "") };
    if request.method == "CONNECT" {
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    } else {
        let mut head = format!("{} /{path} HTTP/1.1\r\n", request.method);
        for (name, value) in request.head.iter().filter(|(name, _)| *name != "proxy-authorization") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let _ = server.write_all(&[head.as_bytes(), b"\r\n", &body].concat());
    }
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}

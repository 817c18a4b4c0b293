//! The endpoint as a client sees it, byte by byte.
#![allow(clippy::unwrap_used)]

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use callvault_http::{
    Annotate, Answer, Api, ApiError, Audio, AudioFormat, AudioRequest, AuditQuery, CallAction, Caller, ChangeSettings,
    Component, DiscardsQuery, Elsewhere, Entrance, ErrorKind, Health, HttpError, Import, Level, Limits, Listen,
    MigrateStore, NewToken, RecordingsQuery, Server, SignIn, Snapshot, Status, UserImport, WebexCall,
};
use callvault_seal::Secret;
use serde_json::{Value, json};
use uuid::Uuid;

const TOKEN: &str = "3fb0c2a7";
const ID: &str = "01900000-0000-7000-8000-000000000001";

/// Something that hangs until it is let go.
#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        self.waiting.fetch_add(1, SeqCst);
        drop(self.changed.wait_while(self.shut.lock().unwrap(), |shut| *shut).unwrap());
        self.waiting.fetch_sub(1, SeqCst);
    }

    fn wait_for(&self, waiting: usize) {
        while self.waiting.load(SeqCst) < waiting {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

struct Fake {
    snapshot: Mutex<Snapshot>,
    snapshots: Gate,
    calls: Gate,
    asked: Mutex<Option<RecordingsQuery>>,
    dropped: Arc<AtomicUsize>,
}

struct Body {
    left: Vec<io::Result<Vec<u8>>>,
    endless: bool,
    dropped: Arc<AtomicUsize>,
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.endless {
            buf.fill(7);
            return Ok(buf.len());
        }
        if self.left.is_empty() {
            return Ok(0);
        }
        let bytes = self.left.remove(0)?;
        buf[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

/// What the fake answers about how it is, and about who asked.
fn well(caller: &str, from: &str) -> Value {
    json!({"is": "well", "caller": caller, "from": from})
}

impl Api for Fake {
    fn snapshot(&self) -> Snapshot {
        self.snapshots.pass();
        self.snapshot.lock().unwrap().clone()
    }

    /// One token is Ann's; the endpoint must not take another for it.
    fn authenticate(&self, token: &str, from: &str) -> Result<Caller, ApiError> {
        match token {
            "ann" => Ok(Caller { user: ID.parse().ok(), ..Caller::of_token("ann", Level::Base, from) }),
            _ => Err(ApiError::new(ErrorKind::Unauthorized, "this token is not known")),
        }
    }

    fn status(&self, caller: &Caller) -> Answer {
        Ok(well(&caller.name, &caller.from))
    }

    fn calls(&self, _: &Caller) -> Answer {
        self.calls.pass();
        Ok(json!({"calls": []}))
    }

    fn recordings(&self, _: &Caller, query: &RecordingsQuery) -> Answer {
        *self.asked.lock().unwrap() = Some(query.clone());
        Ok(json!({"recordings": [], "next": null}))
    }

    fn deliver(&self, _: &Caller, id: Uuid, sink: &str) -> Answer {
        Ok(json!({"id": id, "sink": sink}))
    }

    fn deliveries(&self, _: &Caller, id: Uuid) -> Answer {
        Ok(json!({"deliveries": [], "id": id}))
    }

    fn import_recording(&self, _: &Caller, step: &Import) -> Answer {
        Ok(match step {
            Import::Begin(wanted) => json!({"id": ID, "rate": wanted.rate_hz, "preserved": wanted.is_preserved}),
            Import::Audio(id, piece) => json!({"id": id, "at": piece.at_samples, "bytes": piece.pcm.len()}),
            Import::Finish(id, whole) => json!({"id": id, "samples": whole.samples}),
            Import::GiveUp(id) => json!({"id": id}),
        })
    }

    fn waveform(&self, _: &Caller, _: Uuid) -> Answer {
        Ok(json!({"channels": null}))
    }

    fn recording(&self, _: &Caller, id: Uuid) -> Answer {
        Ok(json!({"id": id}))
    }

    /// `start_ms` says how it goes: 0 chunks, 1 a known length, 2 breaks off, 3 too short, 4 no decoder, 5 without end.
    fn audio(&self, _: &Caller, _id: Uuid, request: &AudioRequest) -> Result<Audio, ApiError> {
        let bytes = |text: &str| Ok(text.as_bytes().to_vec());
        let broken = || Err(io::Error::other("the render process is gone"));
        let (bytes, left) = match request.start_ms {
            0 => (None, vec![bytes("RIFF"), bytes("-and-the-rest")]),
            1 => (Some(4), vec![bytes("RIFF")]),
            2 => (None, vec![bytes("RIFF"), broken()]),
            3 => (Some(9), vec![bytes("RIFF")]),
            4 => return Err(ApiError::new(ErrorKind::Unprocessable, "G729 cannot be decoded here")),
            _ => (None, vec![]),
        };
        let body = Body { left, endless: request.start_ms == 5, dropped: self.dropped.clone() };
        Ok(Audio { bytes, body: Box::new(body) })
    }

    fn sign_in(&self, caller: &Caller, wanted: &SignIn) -> Answer {
        Ok(
            json!({"user": wanted.user, "from": caller.from, "through": caller.through.as_str(), "level": caller.level.as_str()}),
        )
    }

    fn sign_in_elsewhere(&self, caller: &Caller, step: &Elsewhere) -> Answer {
        Ok(json!({"step": format!("{step:?}"), "through": caller.through.as_str(), "level": caller.level.as_str()}))
    }

    fn sign_out(&self, _: &Caller) -> Answer {
        Ok(json!({}))
    }

    fn sessions(&self, _: &Caller) -> Answer {
        Ok(json!({"sessions": []}))
    }

    fn end_session(&self, _: &Caller, id: Uuid) -> Answer {
        Ok(json!({"ended": id}))
    }

    fn me(&self, _: &Caller) -> Answer {
        Ok(json!({}))
    }

    fn users(&self, _: &Caller) -> Answer {
        Ok(json!({"users": []}))
    }

    fn user(&self, _: &Caller, email: &str) -> Answer {
        Ok(json!({"webex_email": email}))
    }

    fn set_user(&self, _: &Caller, email: &str, fields: &[(String, String)]) -> Answer {
        Ok(json!({"webex_email": email, "fields": fields}))
    }

    fn remove_user(&self, _: &Caller, email: &str) -> Answer {
        Ok(json!({"removed": email}))
    }

    fn import_users(&self, _: &Caller, import: &UserImport) -> Answer {
        Ok(json!({"name": import.name, "bytes": import.content.len(), "dry_run": import.is_dry_run}))
    }

    fn webex(&self, _: &Caller, wanted: &WebexCall) -> Answer {
        Ok(json!({"webex": format!("{wanted:?}")}))
    }

    fn discards(&self, _: &Caller, query: &DiscardsQuery) -> Answer {
        Ok(json!({"discards": [], "limit": query.limit}))
    }

    fn tokens(&self, _: &Caller) -> Answer {
        Ok(json!({"tokens": []}))
    }

    fn create_token(&self, _: &Caller, token: &NewToken) -> Answer {
        Ok(json!({"name": token.name, "level": token.level.as_str(), "user": token.user, "days": token.expires_days}))
    }

    fn revoke_token(&self, _: &Caller, id: Uuid) -> Answer {
        Ok(json!({"id": id}))
    }

    fn audit(&self, _: &Caller, _: &AuditQuery) -> Answer {
        Ok(json!({"entries": [], "next": null}))
    }

    fn verify_audit(&self, _: &Caller, head: Option<&str>) -> Answer {
        Ok(json!({"head": head}))
    }

    fn stop_recording(&self, _: &Caller, reason: &str) -> Answer {
        Ok(json!({"reason": reason}))
    }

    fn annotate(&self, _: &Caller, _: Uuid, _: &Annotate) -> Answer {
        Ok(json!({}))
    }

    fn start_recording(&self, _: &Caller) -> Answer {
        Ok(json!({"stopped": false}))
    }

    fn retention(&self, _: &Caller) -> Answer {
        Ok(json!({"question": null}))
    }

    fn run_retention(&self, _: &Caller) -> Answer {
        Ok(json!({"question": null}))
    }

    fn user_picture(&self, _: &Caller, email: &str) -> Answer {
        Ok(json!({"of": email}))
    }

    fn set_user_picture(&self, _: &Caller, email: &str, base64: Option<&str>) -> Answer {
        Ok(json!({"of": email, "length": base64.map(str::len)}))
    }

    fn store(&self, _: &Caller) -> Answer {
        Ok(json!({"stores": []}))
    }

    fn migrate_store(&self, _: &Caller, wanted: &MigrateStore) -> Answer {
        Ok(json!({"to": wanted.to}))
    }

    fn confirm_retention(&self, _: &Caller, token: &str) -> Answer {
        Ok(json!({"confirmed": token}))
    }

    fn delete_recording(&self, _: &Caller, id: Uuid) -> Answer {
        Ok(json!({"deleted": id}))
    }

    fn verify(&self, _: &Caller, id: Option<Uuid>) -> Answer {
        Ok(json!({"checked": usize::from(id.is_some()), "findings": []}))
    }

    fn jobs(&self, _: &Caller) -> Answer {
        panic!("a bug")
    }

    fn retry_job(&self, _: &Caller, id: &str) -> Answer {
        if id.starts_with("archive:") {
            Ok(json!({"id": id}))
        } else {
            Err(ApiError::new(ErrorKind::NotFound, "no such job"))
        }
    }

    fn control_call(&self, _: &Caller, id: Uuid, action: CallAction) -> Answer {
        Ok(json!({"id": id, "did": action.as_str()}))
    }

    fn drain(&self, _: &Caller, wanted: bool) -> Answer {
        if !wanted {
            return Ok(json!({"draining": false}));
        }
        Err(ApiError::new(ErrorKind::Unavailable, "not now"))
    }

    fn settings(&self, _: &Caller) -> Answer {
        Ok(json!({"settings": [], "refused": null}))
    }

    fn change_settings(&self, _: &Caller, wanted: &ChangeSettings) -> Answer {
        Ok(json!({"applied": !wanted.is_dry_run}))
    }

    fn capacity(&self, _: &Caller) -> Answer {
        Ok(json!({"calls": {}}))
    }

    fn try_mail(&self, _: &Caller, address: &str, language: Option<&str>) -> Answer {
        Ok(json!({"address": address, "language": language}))
    }

    fn keys(&self, _: &Caller) -> Answer {
        Ok(json!({"keys": ["x".repeat(100_000)]}))
    }

    fn rotate_keys(&self, _: &Caller) -> Answer {
        Ok(json!({}))
    }
}

struct Sut {
    server: Server,
    fake: Arc<Fake>,
    _folder: tempfile::TempDir,
}

fn limits() -> Limits {
    Limits { snapshot_ms: 10, ..Limits::default() }
}

fn start_with(limits: &Limits, listen: impl FnOnce(&Path) -> String) -> Sut {
    let folder = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake {
        snapshot: Mutex::default(),
        snapshots: Gate::default(),
        calls: Gate::default(),
        asked: Mutex::default(),
        dropped: Arc::default(),
    });
    let listen: Listen = listen(folder.path()).parse().unwrap();
    let server = Server::start(&listen, Secret::new(TOKEN.into()), fake.clone(), limits, folder.path()).unwrap();
    let sut = Sut { server, fake, _folder: folder };
    while sut.get("/ready").status != 200 {
        std::thread::sleep(Duration::from_millis(2));
    }
    sut
}

fn start() -> Sut {
    start_with(&limits(), |_| "127.0.0.1:0".into())
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

impl Sut {
    fn connect(&self) -> TcpStream {
        let Listen::Tcp(address) = self.server.address() else { panic!("not TCP") };
        let stream = TcpStream::connect(address).unwrap();
        // a test that hangs is a failed test
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn send(&self, bytes: &[u8]) -> Response {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read(&mut stream)
    }

    fn get(&self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }

    fn authorised(&self, method: &str, target: &str) -> Response {
        self.send(request(method, target).as_bytes())
    }

    fn set(&self, snapshot: Snapshot) {
        *self.fake.snapshot.lock().unwrap() = snapshot;
        // two turns of the thread that takes them: the second began after the change
        self.fake.snapshots.set(true);
        self.fake.snapshots.wait_for(1);
        self.fake.snapshots.set(false);
        while self.fake.snapshots.waiting.load(SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.fake.snapshots.set(true);
        self.fake.snapshots.wait_for(1);
        self.fake.snapshots.set(false);
    }
}

fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
}

fn read(stream: &mut impl Read) -> Response {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a complete head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(head.contains("Connection: close\r\n"), "{head}");
    Response { status, head, body: bytes[end..].to_vec() }
}

#[test]
fn every_path_is_answered_in_json() {
    let sut = start();
    let check = |method: &str, target: &str, status: u16, expected: Value| {
        let response = sut.authorised(method, &target.replace("ID", ID));
        assert_eq!((response.status, response.json()), (status, expected), "{method} {target}");
        assert!(response.head.contains("Content-Type: application/json\r\n"), "{}", response.head);
        assert!(response.head.contains("Cache-Control: no-store\r\n"), "{}", response.head);
    };
    check("GET", "/v1/status", 200, well("operator", "127.0.0.1"));
    check("GET", "/v1/calls", 200, json!({"calls": []}));
    for action in ["pause", "resume", "stop", "start", "keep"] {
        check("POST", &format!("/v1/calls/ID/{action}"), 200, json!({"id": ID, "did": action}));
    }
    check("GET", "/v1/recordings", 200, json!({"recordings": [], "next": null}));
    check("GET", "/v1/recordings/ID", 200, json!({"id": ID}));
    check("DELETE", "/v1/recordings/ID", 200, json!({"deleted": ID}));
    check("GET", "/v1/recordings/ID/verify", 200, json!({"checked": 1, "findings": []}));
    check("GET", "/v1/verify", 200, json!({"checked": 0, "findings": []}));
    check("GET", "/v1/keys", 200, json!({"keys": ["x".repeat(100_000)]}));
    check("POST", "/v1/keys/rotate", 200, json!({}));
    check("GET", "/v1/recordings/ID/waveform", 200, json!({"channels": null}));
    check("GET", "/v1/recordings/ID/deliveries", 200, json!({"deliveries": [], "id": ID}));
    check("POST", "/v1/recordings/ID/deliveries/webhook", 200, json!({"id": ID, "sink": "webhook"}));
    check("POST", "/v1/jobs/archive:ID/retry", 200, json!({"id": format!("archive:{ID}")}));
    let error = |code: &str, message: &str| json!({"error": {"code": code, "message": message}});
    check("POST", "/v1/jobs/upload:ID/retry", 404, error("not-found", "no such job"));
    check("POST", "/v1/drain", 503, error("unavailable", "not now"));
    check("DELETE", "/v1/drain", 200, json!({"draining": false}));
    check("GET", "/v1/drain", 405, error("method-not-allowed", "only POST, DELETE is allowed here"));
    let limit = error("bad-request", "parameter \"limit\" must be a number from 1 to 1000");
    check("GET", "/v1/recordings?limit=x", 400, limit);
    assert!(sut.authorised("PUT", &format!("/v1/recordings/{ID}")).head.contains("Allow: GET, DELETE\r\n"));
    sut.authorised("GET", "/v1/recordings?number=%2B49&limit=3");
    let asked = sut.fake.asked.lock().unwrap().take().unwrap();
    assert_eq!((asked.number.as_deref(), asked.limit), (Some("+49"), Some(3)));
}

#[test]
fn unknown_paths_are_404_with_and_without_a_token() {
    let sut = start();
    for target in ["/", "/v2/status", "/healthy", "/health/x"] {
        assert_eq!((sut.get(target).status, sut.get(target).code().as_str()), (404, "not-found"), "{target}");
    }
    assert_eq!(sut.authorised("GET", "/v1/nothing").status, 404);
}

#[test]
fn nothing_under_v1_is_answered_without_the_token() {
    let sut = start();
    let check = |header: &str, status: u16| {
        let response = sut.send(format!("GET /v1/status HTTP/1.1\r\n{header}\r\n").as_bytes());
        assert_eq!(response.status, status, "{header:?}");
        assert!(status == 200 || response.code() == "unauthorized");
    };
    check("", 401);
    check("Authorization: Bearer \r\n", 401);
    check("Authorization: Bearer 3fb0c2a\r\n", 401);
    check("Authorization: Bearer 3fb0c2a77\r\n", 401);
    check("Authorization: Bearer 3fb0c2a8\r\n", 401);
    check("Authorization: Basic 3fb0c2a7\r\n", 401);
    check("X-Authorization: Bearer 3fb0c2a7\r\n", 401);
    check("authorization: bearer 3fb0c2a7\r\n", 200);
    assert_eq!(sut.get("/v1/nothing").status, 401, "what there is is not told to strangers");
}

#[test]
fn who_asks_is_told_to_the_daemon_and_nobody_can_say_to_be_another() {
    let sut = start();
    let check = |header: &str, expected: Value| {
        let response = sut.send(format!("GET /v1/status HTTP/1.1\r\n{header}\r\n").as_bytes());
        assert_eq!((response.status, response.json()), (200, expected), "{header:?}");
    };
    check("Authorization: Bearer 3fb0c2a7\r\n", well("operator", "127.0.0.1"));
    check("Authorization: Bearer ann\r\n", well("ann", "127.0.0.1"));
    // numbers that the endpoint itself gives out are worth nothing when a client sends them
    check("Authorization: Bearer ann\r\nX-Callvault-Ticket: 1\r\n", well("ann", "127.0.0.1"));
    check(
        "X-Callvault-Ticket: 1\r\nAuthorization: Bearer ann\r\nX-Forwarded-For: 9.9.9.9\r\n",
        well("ann", "127.0.0.1"),
    );
}

#[test]
fn an_empty_token_lets_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let sut = start();
    let listen = "127.0.0.1:0".parse().unwrap();
    let server =
        Server::start(&listen, Secret::new(String::new()), sut.fake.clone(), &limits(), folder.path()).unwrap();
    let Listen::Tcp(address) = server.address() else { panic!("not TCP") };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nAuthorization: Bearer \r\n\r\n").unwrap();
    assert_eq!(read(&mut stream).status, 401);
}

#[test]
fn health_is_as_bad_as_the_worst_part() {
    let sut = start();
    let check = |status, http: u16, word: &str| {
        let mut health = Health::default();
        health.components.insert("store".into(), Component::ok());
        health.components.insert("journal".into(), Component::new(status, "why"));
        sut.set(Snapshot { health, ..Snapshot::default() });
        let response = sut.get("/health");
        assert_eq!(response.status, http);
        let components = json!({"store": {"status": "ok", "reason": ""}, "journal": {"status": word, "reason": "why"}});
        assert_eq!(response.json(), json!({"status": word, "components": components}));
    };
    check(Status::Ok, 200, "ok");
    check(Status::Degraded, 200, "degraded");
    check(Status::Failing, 503, "failing");
}

#[test]
fn readiness_and_metrics_say_what_the_snapshot_says() {
    let sut = start();
    sut.set(Snapshot { not_ready: Some("the store is away".into()), ..Snapshot::default() });
    let response = sut.get("/ready");
    assert_eq!(response.status, 503);
    assert_eq!(response.json(), json!({"ready": false, "reason": "the store is away"}));
    let metrics = |text: &str, content_type: &str| {
        sut.set(Snapshot { metrics: text.into(), ..Snapshot::default() });
        let response = sut.get("/metrics");
        assert_eq!(response.body, text.as_bytes());
        assert!(response.head.contains(&format!("Content-Type: {content_type}")), "{}", response.head);
    };
    metrics("a 1\n", "text/plain; version=0.0.4");
    metrics("a 1\n# EOF\n", "application/openmetrics-text; version=1.0.0");
    let head = sut.send(b"HEAD /health HTTP/1.1\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(sut.send(b"POST /health HTTP/1.1\r\n\r\n").status, 405);
    assert_eq!(sut.send(b"GET /health?verbose=1 HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn health_says_so_when_nobody_tells_it_anything() {
    let sut = start_with(&Limits { snapshot_ms_max: 200, ..limits() }, |_| "127.0.0.1:0".into());
    sut.fake.snapshots.set(true);
    sut.fake.snapshots.wait_for(1);
    while sut.get("/health").status == 200 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let health = sut.get("/health").json();
    assert_eq!(health["components"]["daemon"]["status"], "failing");
    assert_eq!(sut.get("/ready").status, 503);
    assert_eq!(sut.get("/metrics").status, 503);
    sut.fake.snapshots.set(false);
}

#[test]
fn calls_that_hang_and_requests_that_never_end_do_not_keep_health_from_answering() {
    let limits = Limits { api_max: 3, reading_max: 4, ..limits() };
    let sut = start_with(&limits, |_| "127.0.0.1:0".into());
    sut.fake.calls.set(true);
    let mut hanging: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = sut.connect();
            stream.write_all(request("GET", "/v1/calls").as_bytes()).unwrap();
            stream
        })
        .collect();
    sut.fake.calls.wait_for(3);
    // the api is full and says so
    let busy = sut.authorised("GET", "/v1/status");
    assert_eq!((busy.status, busy.code().as_str()), (503, "unavailable"));
    assert!(busy.head.contains("Retry-After: 1\r\n"));
    // more half requests than may be read: the oldest go
    let mut half: Vec<_> = (0..12)
        .map(|_| {
            let mut stream = sut.connect();
            stream.write_all(b"POST /health HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc").unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(sut.get("/health").status, 200);
    }
    // cut off: the end, or a reset
    assert_eq!(half[0].read(&mut [0]).unwrap_or(0), 0);
    sut.fake.calls.set(false);
    for stream in &mut hanging {
        assert_eq!(read(stream).status, 200);
    }
    assert_eq!(sut.authorised("GET", "/v1/status").status, 200);
}

#[test]
fn a_request_that_takes_too_long_is_ended() {
    let sut = start_with(&Limits { request_ms_max: 100, ..limits() }, |_| "127.0.0.1:0".into());
    let check = |start: &[u8]| {
        let response = sut.send(start);
        assert_eq!((response.status, response.code().as_str()), (408, "timeout"));
    };
    check(b"");
    check(b"GET /health HTT");
    check(b"POST /health HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
}

#[test]
fn odd_requests_are_refused() {
    let sut = start();
    let check = |bytes: &str, status: u16| {
        let response = sut.send(bytes.as_bytes());
        assert_eq!(response.status, status, "{:?}", &bytes[..bytes.len().min(80)]);
        assert!(response.json()["error"]["message"].is_string());
    };
    check("GET /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501);
    check("GET /health HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 413);
    check("GET /health HTTP/1.1\r\nContent-Length: 1000000000000000000\r\n\r\n", 413);
    check(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)), 431);
    check(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)), 431);
    check("GET /health HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400);
    check("GET /health HTTP/3.0\r\n\r\n", 505);
    check("hello\r\n\r\n", 400);
    check("\x16\x03\x01\r\n\r\n", 400);
    // a whole large body is answered, not reset, although it is not read
    check(&format!("POST /v1/drain HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000)), 413);
}

#[test]
fn bodies_and_second_requests_change_nothing() {
    let sut = start();
    let body = "GET /v1/drain HTTP/1.1\r\n\r\n";
    let text =
        request("GET", "/v1/status").replace("\r\n\r\n", &format!("\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let response = sut.send(text.as_bytes());
    assert_eq!((response.status, response.json()), (200, well("operator", "127.0.0.1")));
    let two = request("GET", "/v1/status") + &request("GET", "/v1/keys");
    let response = sut.send(two.as_bytes());
    assert_eq!((response.status, response.json()), (200, well("operator", "127.0.0.1")), "one connection, one answer");
}

#[test]
fn the_body_is_what_the_daemon_is_asked() {
    let sut = start();
    let body = r#"{"name": "script", "level": "base", "user": "ann@example.com", "expires_days": 7}"#;
    let head = request("POST", "/v1/tokens");
    let text = head.replace("\r\n\r\n", &format!("\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let response = sut.send(text.as_bytes());
    let expected = json!({"name": "script", "level": "base", "user": "ann@example.com", "days": 7});
    assert_eq!((response.status, response.json()), (200, expected));
}

#[test]
fn a_file_of_users_may_be_large_for_who_may_be_somebody() {
    let sut = start();
    let import = |head: String| {
        let body = json!({"name": "users.csv", "content": "x".repeat(1_000_000)}).to_string();
        sut.send(head.replace("\r\n\r\n", &format!("\r\nContent-Length: {}\r\n\r\n{body}", body.len())).as_bytes())
    };
    assert_eq!(import(request("POST", "/v1/users/import")).json()["bytes"], 1_000_000);
    // A stranger is answered before any of it is read: here nothing of it ever comes.
    let head = request("POST", "/v1/users/import").replace(TOKEN, "another");
    let stranger = sut.send(head.replace("\r\n\r\n", "\r\nContent-Length: 1000000\r\n\r\n").as_bytes());
    assert_eq!(stranger.status, 401);
    assert_eq!(import(request("POST", "/v1/tokens")).status, 413);
}

#[test]
fn a_recording_is_brought_in_large_pieces() {
    let sut = start();
    let ask = |target: &str, body: String| {
        let head = request("POST", target).replace("\r\n\r\n", &format!("\r\nContent-Length: {}\r\n\r\n", body.len()));
        let response = sut.send((head + &body).as_bytes());
        (response.status, response.json())
    };
    let begin = |more: &str| {
        ask("/v1/imports", format!(r#"{{"started_at": "2026-03-01T09:00:00Z", "rate_hz": 8000, "channels": 2{more}}}"#))
    };
    assert_eq!(begin(r#", "preserved": true"#), (200, json!({"id": ID, "rate": 8_000, "preserved": true})));
    assert_eq!(begin(r#", "colour": "red""#).0, 400);
    let audio = format!("/v1/imports/{ID}/audio");
    let piece = |pcm: String| ask(&audio, json!({"at_samples": 7, "pcm": pcm}).to_string());
    assert_eq!(piece("AAAA".repeat(400_000)), (200, json!({"id": ID, "at": 7, "bytes": 1_200_000})));
    assert_eq!(piece("AAAA".repeat(600_000)).0, 413);
    assert!(piece("no base64".to_owned()).1["error"]["message"].as_str().unwrap().contains("\"pcm\""));
    assert_eq!(
        ask(&format!("/v1/imports/{ID}/finish"), r#"{"samples": 9}"#.into()),
        (200, json!({"id": ID, "samples": 9}))
    );
    assert_eq!(sut.authorised("DELETE", &format!("/v1/imports/{ID}")).json(), json!({"id": ID}));
}

#[test]
fn a_request_may_come_in_pieces() {
    let sut = start();
    let mut stream = sut.connect();
    for byte in request("GET", "/v1/status").as_bytes() {
        stream.write_all(&[*byte]).unwrap();
        stream.flush().unwrap();
    }
    assert_eq!(read(&mut stream).status, 200);
}

#[test]
fn audio_is_streamed_and_what_breaks_off_does_not_look_complete() {
    let sut = start();
    let audio = |start_ms: u32, format: &str| {
        sut.authorised("GET", &format!("/v1/recordings/{ID}/audio?format={format}&start_ms={start_ms}"))
    };
    let check = |response: &Response, status: u16, header: &str, body: &str| {
        assert_eq!(response.status, status);
        assert!(response.head.contains(header), "{}", response.head);
        assert_eq!(String::from_utf8_lossy(&response.body), body);
    };
    let chunks = "4\r\nRIFF\r\nd\r\n-and-the-rest\r\n0\r\n\r\n";
    check(&audio(0, "wav"), 200, "Content-Type: audio/wav\r\n", chunks);
    check(&audio(0, "opus"), 200, "Content-Type: audio/ogg; codecs=opus\r\n", chunks);
    check(&audio(0, "mp3"), 200, "Transfer-Encoding: chunked\r\n", chunks);
    check(&audio(1, "mp3"), 200, "Content-Length: 4\r\n", "RIFF");
    check(&audio(2, "wav"), 200, "Transfer-Encoding: chunked\r\n", "4\r\nRIFF\r\n");
    check(&audio(3, "wav"), 200, "Content-Length: 9\r\n", "RIFF");
    let refused = audio(4, "wav");
    assert_eq!((refused.status, refused.code().as_str()), (422, "unprocessable"));
    let old = request("GET", &format!("/v1/recordings/{ID}/audio?format=wav")).replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(sut.send(old.as_bytes()).status, 400);
    let dropped = sut.fake.dropped.load(SeqCst);
    assert_eq!(dropped, 6, "every reader is dropped");
    assert_eq!(AudioFormat::Wav.content_type(), "audio/wav");
}

#[test]
fn audio_ends_when_the_client_goes_or_takes_nothing() {
    let sut = start_with(&Limits { api_max: 1, stall_ms_max: 100, ..limits() }, |_| "127.0.0.1:0".into());
    let endless = request("GET", &format!("/v1/recordings/{ID}/audio?format=wav&start_ms=5"));
    let mut goes = sut.connect();
    goes.write_all(endless.as_bytes()).unwrap();
    goes.read_exact(&mut [0; 1000]).unwrap();
    drop(goes);
    let wait = |dropped| {
        while sut.fake.dropped.load(SeqCst) < dropped {
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    wait(1);
    // its place is free again soon after its reader is dropped
    let mut stalls = loop {
        let mut stream = sut.connect();
        stream.write_all(endless.as_bytes()).unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        if &start == b"HTTP/1.1 200" {
            break stream;
        }
    };
    wait(2);
    let mut rest = Vec::new();
    // reads what was buffered; then the connection is closed, in order or not
    let _ = stalls.read_to_end(&mut rest);
}

#[test]
fn a_bug_costs_one_answer() {
    let sut = start_with(&Limits { api_max: 2, ..limits() }, |_| "127.0.0.1:0".into());
    for _ in 0..5 {
        assert_eq!(sut.authorised("GET", "/v1/jobs").status, 500);
    }
    assert_eq!(sut.authorised("GET", "/v1/status").status, 200);
}

#[test]
fn it_listens_on_a_unix_socket_for_owner_and_group() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let sut = start();
    let listen: Listen = format!("unix:{}", path.display()).parse().unwrap();
    let run = || Server::start(&listen, Secret::new(TOKEN.into()), sut.fake.clone(), &limits(), folder.path());
    let server = run().unwrap();
    assert_eq!(server.address(), &listen);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(request("GET", "/v1/status").as_bytes()).unwrap();
    assert_eq!(read(&mut stream).json(), well("operator", "unix"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

    assert!(matches!(run(), Err(HttpError::InUse(_))));
    drop(server);
    assert!(!path.exists());
    // what a killed process left is taken over, another's file is not
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(run().unwrap());
    std::fs::write(&path, "").unwrap();
    assert!(matches!(run(), Err(HttpError::NotASocket(_))));
}

#[test]
fn it_stops_when_it_is_dropped() {
    let sut = start();
    let Listen::Tcp(address) = sut.server.address().clone() else { panic!("not TCP") };
    let mut half = sut.connect();
    half.write_all(b"GET /hea").unwrap();
    sut.fake.calls.set(true);
    let mut hanging = sut.connect();
    hanging.write_all(request("GET", "/v1/calls").as_bytes()).unwrap();
    sut.fake.calls.wait_for(1);
    // a stop must not wait for a call that hangs
    let (done, stopped) = mpsc::channel();
    let server = sut.server;
    std::thread::spawn(move || {
        drop(server);
        done.send(()).unwrap();
    });
    stopped.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(half.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(hanging.read(&mut [0]).unwrap_or(0), 0);
    assert!(TcpStream::connect(address).is_err());
    sut.fake.calls.set(false);
    // the private folder goes with the last thread
    while std::fs::read_dir(sut._folder.path()).unwrap().count() > 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn only_loopback_and_unix_sockets_are_listened_on() {
    let check = |text: &str, good: bool| {
        let parsed = text.parse::<Listen>();
        assert_eq!(parsed.is_ok(), good, "{text}");
        if let Err(error) = parsed {
            assert!(error.to_string().contains("expected a loopback address"), "{error}");
        }
    };
    check("127.0.0.1:8088", true);
    check("127.8.0.1:0", true);
    check("[::1]:8088", true);
    check("localhost:8088", true);
    check("unix:/run/callvault/http", true);
    check("0.0.0.0:8088", false);
    check("[::]:8088", false);
    check("192.168.1.2:8088", false);
    check("example.org:8088", false);
    check("127.0.0.1", false);
    check("unix:http", false);
    check("", false);
    let folder = tempfile::tempdir().unwrap();
    let sut = start();
    let outside = Listen::Tcp("0.0.0.0:0".parse().unwrap());
    let refused = Server::start(&outside, Secret::new(TOKEN.into()), sut.fake.clone(), &limits(), folder.path());
    assert!(matches!(refused, Err(HttpError::Address(_))));
    let again =
        Server::start(sut.server.address(), Secret::new(TOKEN.into()), sut.fake.clone(), &limits(), folder.path());
    assert!(matches!(again, Err(HttpError::InUse(_))));
}

#[test]
fn at_the_portals_socket_its_visitors_sign_in_and_nobody_is_the_operator() {
    let sut = start();
    let own = nix::unistd::geteuid().as_raw();
    let at = |users: Vec<u32>, name: &str| {
        let listen = Listen::Unix(sut._folder.path().join(name));
        Server::start_at(&listen, Entrance::Portal(users), sut.fake.clone(), &limits(), sut._folder.path()).unwrap()
    };
    let (portal, others) = (at(vec![own], "portal"), at(vec![own + 1], "others"));
    let send = |server: &Server, text: String| {
        let Listen::Unix(path) = server.address() else { panic!("not a Unix socket") };
        let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        // who is sent away may be so before everything is written
        let _ = stream.write_all(text.as_bytes());
        read_all(&mut stream)
    };
    let body = r#"{"user": " Ann@Example.com ", "password": "secret"}"#;
    let length = body.len();
    let with = |fields: &str| format!("POST /v1/sign-in HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
    let visitor = send(&portal, with("X-Callvault-From: 192.0.2.7\r\n"));
    assert!(
        visitor.contains(r#""from":"192.0.2.7","level":"record-only","through":"portal","user":"ann@example.com""#),
        "{visitor}"
    );
    assert!(send(&portal, with("X-Callvault-From: 192.0.2.7, 1\r\n")).starts_with("HTTP/1.1 400"));
    assert!(send(&others, with("")).is_empty(), "another user's process was answered");
    let status = |fields: &str| send(&portal, format!("GET /v1/status HTTP/1.1\r\n{fields}\r\n"));
    assert!(status("").starts_with("HTTP/1.1 401"));
    assert!(status(&format!("Authorization: Bearer {TOKEN}\r\n")).starts_with("HTTP/1.1 401"));
    let ann = status("Authorization: Bearer ann\r\nX-Callvault-From: 2001:db8::1\r\n");
    assert!(ann.contains(r#""caller":"ann","from":"2001:db8::1""#), "{ann}");
    // At the endpoint for programs nobody says where they speak from, and nobody signs in without a token.
    assert_eq!(sut.send(with("").as_bytes()).status, 401);
    let ann = sut.send(b"GET /v1/status HTTP/1.1\r\nAuthorization: Bearer ann\r\nX-Callvault-From: 192.0.2.7\r\n\r\n");
    assert_eq!(ann.json()["from"], "127.0.0.1");
}

fn read_all(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    // a connection that is cut has said what it has said
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

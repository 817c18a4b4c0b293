//! A portal over TLS with a daemon behind it that notes what it is asked, and whoever comes to it.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use callvault_portal::{app::App, daemon::Daemon, serve, tls::Certificate};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};

/// What a page of ours sends with everything that changes something.
pub(crate) const OURS: &str = "x-callvault: 1\r\norigin: https://localhost\r\nsec-fetch-site: same-origin\r\n";
pub(crate) const COOKIE: &str = "cookie: __Host-callvault=cvt-12\r\n";

pub(crate) struct Sut {
    pub(crate) address: SocketAddr,
    root: CertificateDer<'static>,
    asked: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
    pub(crate) folder: tempfile::TempDir,
}

/// What the daemon answers to that head of a request, in lower case: the status line's end, and the body.
pub(crate) type Script = fn(&str) -> (&'static str, String);

/// As most tests want it.
pub(crate) fn usual(head: &str) -> (&'static str, String) {
    let (status, body) = match head.split(' ').nth(1).unwrap() {
        "/v1/sign-in" => ("200 OK", r#"{"session": "cvt-new", "seconds": 60}"#),
        _ if head.contains("bearer cvt-old") => ("401 Unauthorized", r#"{"error": {}}"#),
        _ => ("200 OK", r#"{"ok": true}"#),
    };
    (status, body.to_owned())
}

/// Answers as the daemon does: one request a connection.
fn answered(mut stream: UnixStream, asked: &Mutex<Vec<String>>, script: Script) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let head = loop {
        let n = stream.read(&mut buffer).unwrap_or(0);
        bytes.extend_from_slice(&buffer[..n]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        }
        if n == 0 {
            return;
        }
    };
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    while bytes.len() < head.len() + 4 + length {
        let n = stream.read(&mut buffer).unwrap_or(0);
        if n == 0 {
            return;
        }
        bytes.extend_from_slice(&buffer[..n]);
    }
    asked.lock().unwrap().push(String::from_utf8_lossy(&bytes).into_owned());
    let (status, body) = script(&head);
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nX-Secret: 1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}

pub(crate) fn certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("certificate"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

pub(crate) fn start() -> Sut {
    start_with(usual)
}

pub(crate) fn start_with(script: Script) -> Sut {
    let folder = tempfile::tempdir().unwrap();
    let root = certificate(folder.path());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let daemon = UnixListener::bind(folder.path().join("daemon")).unwrap();
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in daemon.incoming().flatten() {
            let noted = Arc::clone(&noted);
            std::thread::spawn(move || answered(stream, &noted, script));
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let pair = Certificate::load(folder.path().join("certificate"), folder.path().join("key")).unwrap();
    let app = Arc::new(App::new(Daemon::new(folder.path().join("daemon"))));
    runtime.spawn(serve::serve(listener, pair, app));
    Sut { address, root, asked, _runtime: runtime, folder }
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Sut {
    /// A connection of a browser.
    pub(crate) fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(self.address).unwrap();
        // a test that hangs is a failed test
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        StreamOwned::new(connection, stream)
    }

    pub(crate) fn send(&self, request: &str) -> Response {
        let mut stream = self.connect();
        // who is refused early may have been cut off before all was sent
        let _ = stream.write_all(request.as_bytes());
        let mut bytes = Vec::new();
        // a connection that is cut has said what it has said
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Response { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn ask(&self, method: &str, target: &str, fields: &str, body: &str) -> Response {
        let length = body.len();
        self.send(&format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{fields}content-length: {length}\r\n\r\n{body}"
        ))
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

//! What people do to a server that is reachable: nothing of it costs others their pages, and nothing reaches the daemon that is not a
//! request of somebody with a session.

#![allow(clippy::unwrap_used)]

mod sut;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sut::{COOKIE, OURS, Response, Sut, start, start_with};

/// So many of 250 addresses below 127/8 each, connected and silent.
fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut streams = Vec::new();
        for n in 0..count {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("127.0.1.{}:0", 1 + n / 250).parse().unwrap()).unwrap();
            let stream = socket.connect(address).await.unwrap().into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            streams.push(stream);
        }
        streams
    })
}

#[test]
fn a_thousand_idle_connections_leave_room_for_others() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(4_096), hard).unwrap();
    let sut = start();
    let idle = idle(sut.address, 1_000);
    assert_eq!(sut.ask("GET", "/", "", "").status, 200);
    assert_eq!(sut.ask("GET", "/api/me", COOKIE, "").status, 200);
    drop(idle);
}

#[test]
fn one_address_has_so_many_connections_and_no_more() {
    let sut = start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let streams = runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..310 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.2.1:0".parse().unwrap()).unwrap();
            streams.push(socket.connect(sut.address).await.unwrap());
        }
        streams
    });
    assert_eq!(sut.ask("GET", "/", "", "").status, 200, "another address is served");
    let closed = streams.into_iter().filter(|stream| {
        let mut byte = [0];
        runtime.block_on(async { tokio::time::timeout(Duration::from_millis(5), stream.readable()).await.is_ok() })
            && stream.try_read(&mut byte).is_ok_and(|n| n == 0)
    });
    assert_eq!(closed.count(), 10);
}

/// What comes back until the connection is closed.
fn to_the_end(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn who_is_slow_is_sent_away() {
    let sut = start();
    thread::scope(|scope| {
        let handshake = scope.spawn(|| {
            let mut stream = TcpStream::connect(sut.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream.write_all(&[0x16, 3, 1]).unwrap();
            let mut byte = [0];
            stream.read(&mut byte).map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |n| n == 0)
        });
        let head = scope.spawn(|| {
            let mut stream = sut.connect();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ").unwrap();
            to_the_end(stream)
        });
        let body = scope.spawn(|| {
            let mut stream = sut.connect();
            let text = format!("POST /api/sign-in HTTP/1.1\r\nhost: localhost\r\n{OURS}content-length: 10\r\n\r\n{{");
            stream.write_all(text.as_bytes()).unwrap();
            let mut first = [0; 12];
            stream.read_exact(&mut first).unwrap();
            String::from_utf8_lossy(&first).into_owned()
        });
        assert!(handshake.join().unwrap(), "a handshake that does not go on is waited for");
        let head = head.join().unwrap();
        assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
        assert_eq!(body.join().unwrap(), "HTTP/1.1 408");
    });
    assert!(sut.asked().is_empty());
}

#[test]
fn bodies_without_end_are_not_taken() {
    let sut = start();
    let check = |head: &str, body: &str| {
        let text =
            format!("POST /api/recordings/1/notes HTTP/1.1\r\nhost: localhost\r\n{COOKIE}{OURS}{head}\r\n\r\n{body}");
        assert_eq!(sut.send(&text).status, 413, "{head}");
    };
    let much = "x".repeat(70 << 10);
    check("content-length: 9999999999999", &much);
    check("transfer-encoding: chunked", &format!("{:x}\r\n{much}\r\n", much.len()));
    check("transfer-encoding: chunked", &"1\r\nx\r\n".repeat(66_000));
    assert!(sut.asked().is_empty());
}

/// Asks with that head, line by line.
fn told(sut: &Sut, line: &str, fields: &str) -> Response {
    sut.send(&format!("{line}\r\nhost: localhost\r\nconnection: close\r\n{fields}\r\n"))
}

#[test]
fn tricks_with_paths_and_fields_reach_nothing() {
    let sut = start();
    // refused here, without the daemon
    let check = |line: &str, fields: &str| {
        let answer = told(&sut, line, fields);
        assert!((400..500).contains(&answer.status), "{line} {fields}: {}", answer.status);
        assert!(sut.asked().is_empty(), "{line} {fields}");
    };
    check("GET /api/me\u{0}x HTTP/1.1", COOKIE);
    check("GET /api/me HTTP/1.1 HTTP/1.1", COOKIE);
    check("GET /v1/me HTTP/1.1", COOKIE);
    check("GET //api/me HTTP/1.1", COOKIE);
    check("GET /API/me HTTP/1.1", COOKIE);
    check("GET /%61pi/me HTTP/1.1", COOKIE);
    check("GET /./api/me HTTP/1.1", COOKIE);
    check("CONNECT evil.example:443 HTTP/1.1", COOKIE);
    check("GET /api/me HTTP/1.1", "cookie: __Host-callvault=cvt-12 x\r\n");
    check("GET /api/me HTTP/1.1", "cookie: __host-callvault=cvt-12\r\n");
    check("GET /api/me HTTP/1.1", "authorization: Bearer cvt-12\r\n");
    check("POST /api/drain HTTP/1.1", &format!("{COOKIE}x-callvault: 1\r\norigin: null\r\n"));
    check("POST /api/drain HTTP/1.1", &format!("{COOKIE}content-length: 0\r\ncontent-length: 5\r\n"));
    check("GET /api/me HTTP/1.1", &format!("{COOKIE}a : b\r\n"));
    // handed on as one request for a path of the daemon's, with the session and nothing else of the visitor's
    let check = |target: &str, fields: &str| {
        told(&sut, &format!("GET {target} HTTP/1.1"), &format!("{COOKIE}{fields}"));
        let asked = sut.asked();
        assert_eq!(asked.len(), 1, "{target}");
        let text = asked[0].to_lowercase();
        assert!(text.starts_with("get /v1/") && text.matches("http/1.1").count() == 1, "{text}");
        assert!(text.contains("x-callvault-from: 127.0.0.1") && text.contains("bearer cvt-12"), "{text}");
        assert!(!["evil", "range", "x-forwarded", "ticket"].iter().any(|word| text.contains(word)), "{text}");
    };
    check("/api/../../etc/passwd", "");
    check("/api/%2e%2e/me", "");
    check("/api/me%0d%0aX:%20y", "");
    check("/api//recordings", "");
    check("/api/%73ign-in", "");
    check("/api/recordings/1/audio?format=mp3", &format!("range: bytes={}\r\n", "0-,".repeat(1_000)));
    check(
        "/api/me",
        "x-callvault-from: 192.0.2.1\r\nx-forwarded-for: 192.0.2.1\r\nx-callvault-ticket: 1\r\nx-evil: 1\r\n",
    );
}

#[test]
fn a_session_that_was_there_before_is_not_used_by_who_signs_in() {
    let sut = start();
    let answer = sut.ask("POST", "/api/sign-in", &format!("{OURS}{COOKIE}"), r#"{"user": "ann"}"#);
    assert!(answer.head.contains("set-cookie: __host-callvault=cvt-new;"), "{}", answer.head);
    assert!(!sut.asked()[0].contains("cvt-12"), "what somebody planted goes to the daemon");
}

/// A daemon that tells of people with names that are markup.
fn markup(_: &str) -> (&'static str, String) {
    (
        "200 OK",
        r#"{"remote_name": "<script>alert(1)</script>", "notes": [{"text": "<img src=x onerror=alert(1)>"}]}"#
            .to_owned(),
    )
}

#[test]
fn markup_in_what_people_wrote_is_never_a_page() {
    let sut = start_with(markup);
    let answer = sut.ask("GET", "/api/recordings/1", COOKIE, "");
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert!(answer.head.contains("x-content-type-options: nosniff") && answer.head.contains("default-src 'none'"));
    assert!(
        answer.head.contains("require-trusted-types-for 'script'") && answer.head.contains("x-frame-options: deny")
    );
    // what is asked for is not in an answer either
    let answer = sut.ask("GET", "/<script>alert(1)</script>", "", "");
    assert!(answer.status >= 400 && !answer.body.contains("<script>"), "{}", answer.body);
}

#[test]
fn the_portal_has_no_part_that_could_open_a_recording() {
    let lock = include_str!("../../../Cargo.lock");
    let parts = |of: &str| -> Vec<&str> {
        let name = format!("name = \"{of}\"\n");
        let package = lock.split("[[package]]").find(|package| package.contains(&name)).unwrap();
        package
            .lines()
            .map(|line| line.trim().trim_matches([',', '"']))
            .filter(|line| line.starts_with("callvault-"))
            .collect()
    };
    // patterns of numbers, which open nothing, and what they are built of is not ours
    assert_eq!(parts("callvault-portal"), ["callvault-confine", "callvault-directory"]);
    assert_eq!(parts("callvault-confine"), [""; 0]);
    assert_eq!(parts("callvault-directory"), [""; 0]);
}

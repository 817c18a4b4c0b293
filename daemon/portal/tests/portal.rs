//! The portal as strangers, browsers and other sites meet it: over TLS, with a daemon behind it that notes what it is asked.

#![allow(clippy::unwrap_used)]

mod sut;

use std::sync::Arc;

use callvault_portal::tls::Certificate;
use sut::{COOKIE, OURS, certificate, start};

#[test]
fn a_session_is_given_to_the_browser_alone_and_comes_back_to_the_daemon() {
    let sut = start();
    let answer = sut.ask("POST", "/api/sign-in", OURS, r#"{"user": "ann"}"#);
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("set-cookie: __host-callvault=cvt-new; path=/; secure; httponly; samesite=strict; max-age=60"),
        "{}",
        answer.head
    );
    assert!(!answer.body.contains("cvt-new"), "a script can read the session");
    let asked = sut.asked().remove(0);
    assert!(
        asked.contains("x-callvault-from: 127.0.0.1") && !asked.to_lowercase().contains("authorization"),
        "{asked}"
    );

    let fields = format!("{COOKIE}authorization: Bearer other\r\nx-callvault-from: 192.0.2.1\r\n");
    let answer = sut.ask("GET", "/api/recordings?number=%2B39&limit=5", &fields, "");
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"ok": true}"#));
    assert!(!answer.head.contains("x-secret") && answer.head.contains("cache-control: no-store"));
    let asked = sut.asked().remove(0);
    assert!(asked.starts_with("GET /v1/recordings?number=%2B39&limit=5 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("Bearer cvt-12") || asked.contains("authorization: Bearer cvt-12"), "{asked}");
    assert!(!asked.contains("other") && !asked.contains("192.0.2.1") && !asked.to_lowercase().contains("cookie"));

    let over = sut.ask("GET", "/api/me", "cookie: __Host-callvault=cvt-old\r\n", "");
    assert!(over.status == 401 && over.head.contains("max-age=0"));
}

#[test]
fn what_no_page_of_ours_began_does_not_reach_the_daemon() {
    let sut = start();
    let check = |method: &str, target: &str, fields: &str, expected: u16| {
        let answer = sut.ask(method, target, fields, "{}");
        assert_eq!(answer.status, expected, "{method} {target} {fields}");
        assert_eq!(!sut.asked().is_empty(), expected == 200, "{method} {target} {fields}");
    };
    let with = |fields: &str| format!("{COOKIE}{fields}");
    check("DELETE", "/api/recordings/1", &with(OURS), 200);
    check("DELETE", "/api/recordings/1", COOKIE, 403);
    check("DELETE", "/api/recordings/1", &with("x-callvault: 1\r\norigin: https://evil.example\r\n"), 403);
    check("DELETE", "/api/recordings/1", &with("x-callvault: 1\r\nsec-fetch-site: cross-site\r\n"), 403);
    check("POST", "/api/sign-in", "content-type: text/plain\r\n", 403);
    check("GET", "/api/sign-in", "", 200);
    check("PUT", "/api/sign-in", OURS, 405);
    check("GET", "/api/recordings/1/audio?format=mp3", &with("sec-fetch-site: cross-site\r\n"), 403);
    check("GET", "/api/me", "", 401);
    check("GET", "/api/me", "cookie: __Host-callvault=a; __Host-callvault=b\r\n", 401);
    check("GET", "/api/recordings/1/waveform?duration_ms=0", COOKIE, 400);
    check("GET", "/api/recordings/1/waveform?duration_ms=99999999999", COOKIE, 400);
    check("OPTIONS", "/api/me", &with("access-control-request-method: GET\r\norigin: https://evil.example\r\n"), 403);
}

#[test]
fn programs_come_with_a_token_and_a_version() {
    let sut = start();
    const TOKEN: &str = "authorization: Bearer cvt-77\r\n";
    let check = |method: &str, target: &str, fields: &str, expected: Result<&str, u16>| {
        let answer = sut.ask(method, target, fields, "");
        let asked = sut.asked();
        match expected {
            Ok(begin) => assert!(asked[0].starts_with(begin), "{method} {target} {fields}: {asked:?}"),
            Err(status) => assert_eq!((answer.status, asked.len()), (status, 0), "{method} {target} {fields}"),
        }
        assert!(!answer.head.contains("set-cookie"), "a program gets no cookie");
        asked.first().cloned().unwrap_or_default()
    };
    let asked = check("GET", "/api/v1/recordings?limit=5", TOKEN, Ok("GET /v1/recordings?limit=5 "));
    assert!(asked.contains("earer cvt-77"), "{asked}");
    check("DELETE", "/api/v1/recordings/1", TOKEN, Ok("DELETE /v1/recordings/1 "));
    let asked = check("GET", "/api/v1/me", &format!("{TOKEN}{COOKIE}"), Ok("GET /v1/me "));
    assert!(asked.contains("earer cvt-12"), "the cookie counts: {asked}");
    check("GET", "/api/me", TOKEN, Err(401));
    check("GET", "/api/v1/me", "", Err(401));
    check("GET", "/api/v1/me", &format!("{TOKEN}{TOKEN}"), Err(401));
    check("GET", "/api/v1/me", "authorization: Bearer a b\r\n", Err(401));
    check("GET", "/api/v1/me", "authorization: Basic YTpi\r\n", Err(401));
    check("DELETE", "/api/v1/recordings/1", &format!("{TOKEN}origin: https://evil.example\r\n"), Err(403));
    check("DELETE", "/api/v1/recordings/1", COOKIE, Err(403));
    check("POST", "/api/v1/sign-in/finish", TOKEN, Err(404));
    check("POST", "/api/sign-in/begin", &format!("{COOKIE}{OURS}"), Err(404));
}

#[test]
fn pages_come_with_strict_fields_and_nothing_else_is_there() {
    let sut = start();
    let check = |method: &str, target: &str, expected: u16| {
        let answer = sut.ask(method, target, "", "");
        assert_eq!(answer.status, expected, "{method} {target}");
        for field in [
            "content-security-policy: default-src 'none'; script-src 'self'",
            "frame-ancestors 'none'",
            "strict-transport-security: max-age=31536000",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.head.contains(field), "{target} without {field}");
        }
        assert!(!answer.head.contains("unsafe") && !answer.head.contains("access-control"));
    };
    check("GET", "/", 200);
    check("GET", "/app.js", 200);
    check("GET", "/api/me", 401);
    check("GET", "/../etc/passwd", 404);
    check("GET", "/%2e%2e/etc/passwd", 404);
    check("GET", "/assets/app.js", 404);
    check("POST", "/", 405);
    assert!(sut.asked().is_empty());
}

#[test]
fn odd_and_huge_requests_are_refused() {
    let sut = start();
    let large = "x".repeat(65 << 10);
    let fields = format!("{COOKIE}{OURS}");
    assert_eq!(sut.ask("POST", "/api/recordings/1/notes", &fields, &large).status, 413);
    let many: String = (0..100).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert!(sut.ask("GET", "/", &many, "").status >= 400);
    assert!(sut.ask("GET", "/", &format!("x: {}\r\n", "y".repeat(20_000)), "").status >= 400);
    assert_eq!(sut.send("no http\r\n\r\n").status, 400);
    assert!(sut.asked().is_empty());
}

#[test]
fn one_address_cannot_try_passwords_without_end() {
    let sut = start();
    let statuses: Vec<u16> = (0..30).map(|_| sut.ask("POST", "/api/sign-in", OURS, "{}").status).collect();
    assert!(statuses.starts_with(&[200; 15]) && statuses.contains(&429), "{statuses:?}");
}

#[test]
fn a_daemon_that_is_away_is_said() {
    let sut = start();
    std::fs::remove_file(sut.folder.path().join("daemon")).unwrap();
    let answer = sut.ask("GET", "/api/me", COOKIE, "");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("unavailable") && !answer.body.contains("daemon"), "{}", answer.body);
    assert_eq!(sut.ask("GET", "/", "", "").status, 200);
}

#[test]
fn another_certificate_is_taken_without_a_restart_and_a_wrong_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let (chain, key) = (folder.path().join("certificate"), folder.path().join("key"));
    let pair = Certificate::load(chain.clone(), key.clone()).unwrap();
    let before = pair.config();
    assert!(!pair.look_again());
    std::fs::write(&chain, "no certificate").unwrap();
    assert!(!pair.look_again() && Arc::ptr_eq(&before, &pair.config()));
    certificate(folder.path());
    assert!(pair.look_again() && !Arc::ptr_eq(&before, &pair.config()));
    std::fs::write(&key, "no key").unwrap();
    let refused = Certificate::load(chain, key).map(drop).unwrap_err().to_string();
    assert!(refused.contains("key") && !refused.contains("no key"), "{refused}");
}

#[test]
fn the_gadget_alone_may_be_framed_and_by_webex_alone() {
    let sut = start();
    let check = |target: &str, framed: bool| {
        let answer = sut.ask("GET", target, "", "");
        let policy = answer.head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap().to_owned();
        assert_eq!(policy.contains("frame-ancestors https://*.webex.com;"), framed, "{target}: {policy}");
        assert_eq!(policy.contains("frame-ancestors 'none'"), !framed, "{target}: {policy}");
        assert_eq!(answer.head.contains("x-frame-options: deny"), !framed, "{target}");
    };
    check("/gadgets/CallRecording", true);
    check("/", false);
    check("/gadget.js", false);
    check("/gadgets/callrecording", false);
    check("/gadgets/CallRecording/", false);
    check("/api/me", false);
}

#[test]
fn the_gadget_has_a_session_of_its_own_that_no_other_page_can_use() {
    let sut = start();
    let gadget = "x-callvault: gadget\r\norigin: https://localhost\r\nsec-fetch-site: same-origin\r\n";
    let answer = sut.ask("POST", "/api/sign-in", gadget, "{}");
    let set =
        "set-cookie: __host-callvault-gadget=cvt-new; path=/; secure; httponly; samesite=none; partitioned; max-age=60";
    assert!(answer.status == 200 && answer.head.contains(set), "{}", answer.head);
    let cookie = "cookie: __Host-callvault-gadget=cvt-12\r\n";
    let check = |fields: &str, expected: u16| {
        let fields = format!("{cookie}{fields}");
        assert_eq!(sut.ask("POST", "/api/calls/1/stop", &fields, "").status, expected, "{fields}");
    };
    check(gadget, 200);
    // what another site can have a browser send
    check("", 403);
    check("origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n", 403);
    check("x-callvault: gadget\r\norigin: https://evil.example\r\n", 403);
    // a page of the portal is somebody else
    check(OURS, 401);
    assert_eq!(sut.ask("GET", "/api/calls", &format!("{COOKIE}x-callvault: gadget\r\n"), "").status, 401);
    assert_eq!(sut.ask("GET", "/api/calls", cookie, "").status, 401);
}

#[test]
fn what_webex_would_not_open_is_said() {
    let check = |issuer: Option<&str>, until: i32, expected: Option<&str>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let made = match issuer {
            None => params.self_signed(&key).unwrap(),
            Some(name) => {
                let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
                authority.distinguished_name.push(rcgen::DnType::CommonName, name);
                let authority = rcgen::Issuer::new(authority, rcgen::KeyPair::generate().unwrap());
                params.signed_by(&key, &authority).unwrap()
            }
        };
        let remark = callvault_portal::tls::Remark::of(made.der(), std::time::SystemTime::now());
        assert_eq!(remark.map(callvault_portal::tls::Remark::code), expected, "{issuer:?} {until}");
    };
    check(None, 4_000, Some("self-signed"));
    check(Some("authority"), 4_000, None);
    check(Some("authority"), 2_021, Some("expired"));
    assert_eq!(callvault_portal::tls::Remark::of(b"no certificate", std::time::SystemTime::now()), None);
}

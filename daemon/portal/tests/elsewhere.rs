//! The way to the provider and back, as browsers take it.

#![allow(clippy::unwrap_used)]

mod sut;

use serde_json::json;
use sut::start_with;

const ATTEMPT: &str = "cookie: __Host-callvault-attempt=aa.bb.cc\r\n";

/// A daemon with a provider, which takes the code `good`.
fn daemon(head: &str) -> (&'static str, String) {
    let (status, answer) = match head.split(' ').nth(1).unwrap() {
        "/v1/sign-in" => ("200 OK", json!({"provider": "Webex"})),
        "/v1/sign-in/begin" => {
            ("200 OK", json!({"url": "https://idp.example/authorize?state=aa", "attempt": "aa.bb.cc", "seconds": 600}))
        }
        "/v1/sign-in/finish" => ("200 OK", json!({"session": "cvt-new", "seconds": 60})),
        _ => ("404 Not Found", json!({})),
    };
    (status, answer.to_string())
}

/// One whose provider knows somebody that is nobody here, with markup where people write.
fn refusing(_: &str) -> (&'static str, String) {
    let answer = json!({"error": {"code": "unauthorized", "message": "you are <b>no</b> user here"}});
    ("401 Unauthorized", answer.to_string())
}

#[test]
fn a_browser_is_sent_off_and_comes_back_with_a_session() {
    let sut = start_with(daemon);
    assert_eq!(sut.ask("GET", "/api/sign-in", "", "").body, r#"{"provider":"Webex"}"#);
    let off = sut.ask("GET", "/sign-in/provider", "", "");
    assert_eq!(off.status, 303);
    assert!(off.head.contains("location: https://idp.example/authorize?state=aa"), "{}", off.head);
    let attempt = "set-cookie: __host-callvault-attempt=aa.bb.cc; path=/; secure; httponly; samesite=lax; max-age=600";
    assert!(off.head.contains(attempt), "{}", off.head);
    sut.asked();
    let from_there = format!("{ATTEMPT}sec-fetch-site: cross-site\r\n");
    let back = sut.ask("GET", "/sign-in/back?code=a%2Fb&state=aa&session_state=x", &from_there, "");
    assert!(back.status == 303 && back.head.contains("location: /\r\n"), "{}", back.head);
    assert!(back.head.contains("set-cookie: __host-callvault=cvt-new; path=/; secure; httponly; samesite=strict"));
    assert!(back.head.contains("__host-callvault-attempt=; path=/; secure; httponly; samesite=lax; max-age=0"));
    let asked = sut.asked();
    assert!(asked[0].contains(r#"{"attempt":"aa.bb.cc","code":"a/b","state":"aa"}"#), "{asked:?}");
}

#[test]
fn a_way_back_that_was_not_begun_here_is_none() {
    let sut = start_with(daemon);
    let check = |target: &str, fields: &str, expected: u16| {
        let answer = sut.ask("GET", target, fields, "");
        assert_eq!(answer.status, expected, "{target} {fields}");
        assert!(answer.head.contains("content-type: text/html") && !answer.head.contains("cvt-new"));
        assert!(sut.asked().is_empty(), "{target} {fields}");
    };
    check("/sign-in/back?code=good&state=aa", "", 400);
    check("/sign-in/back?code=good&state=aa", "cookie: __Host-callvault-attempt=a b\r\n", 400);
    check("/sign-in/back?code=good&state=aa", &format!("{ATTEMPT}{ATTEMPT}"), 400);
    check("/sign-in/back?error=access_denied&state=aa", ATTEMPT, 403);
    check("/sign-in/back?code=%zz&state=aa", ATTEMPT, 400);
    assert_eq!(sut.ask("POST", "/sign-in/back?code=good&state=aa", ATTEMPT, "").status, 405);
    assert!(sut.asked().is_empty());
}

#[test]
fn what_is_refused_is_a_page_without_markup_of_others() {
    let sut = start_with(refusing);
    let answer = sut.ask("GET", "/sign-in/back?code=good&state=aa", ATTEMPT, "");
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains("you are &lt;b&gt;no&lt;/b&gt; user here"), "{}", answer.body);
    assert!(answer.head.contains("default-src 'none'") && answer.head.contains("x-frame-options: deny"));
    std::fs::remove_file(sut.folder.path().join("daemon")).unwrap();
    let answer = sut.ask("GET", "/sign-in/provider", "", "");
    assert!(answer.status == 503 && answer.body.contains("try again"), "{}", answer.body);
}

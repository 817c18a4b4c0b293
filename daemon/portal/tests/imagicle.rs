//! The recordings API of Imagicle, called as its documentation calls it, with what the daemon answers.

#![allow(clippy::unwrap_used)]

mod sut;

use serde_json::{Value, json};
use sut::{Sut, start_with};

const ID: &str = "75a90276-e47e-4e9e-b463-e3c743d5ff3a";
const LIVE: &str = "01900000-0000-7000-8000-000000000002";

/// `ann@example.com:secret`.
const ANN: &str = "authorization: Basic YW5uQGV4YW1wbGUuY29tOnNlY3JldA==\r\n";

fn recording(n: u32, direction: &str) -> Value {
    json!({
        "id": ID, "started_at": format!("2023-01-01T10:00:{n:02}.000Z"), "ended_at": "2023-01-01T10:01:30.000Z",
        "duration_ms": 90_000, "direction": direction, "local_number": "225", "remote_number": "+390584123456",
        "owner": "ann@example.com", "owner_name": "Ann Other", "call_id": "100", "preserved": null,
    })
}

/// A daemon with five recordings in two pages, and a live call.
fn daemon(head: &str) -> (&'static str, String) {
    let no = |status, code: &str| (status, json!({"error": {"code": code, "message": "no"}}).to_string());
    let target = head.split(' ').nth(1).unwrap();
    if target == "/v1/sign-in" {
        return ("200 OK", json!({"session": "cvt-ann", "seconds": 3_600}).to_string());
    }
    if !head.contains("bearer cvt-ann") && !head.contains("bearer cvt-12") {
        return no("401 Unauthorized", "unauthorized");
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let answer = match path {
        "/v1/recordings" if query.contains("cursor=next") => {
            json!({"recordings": [recording(1, "outgoing"), recording(0, "incoming")], "next": null})
        }
        "/v1/recordings" => json!({
            "recordings": [recording(4, "incoming"), recording(3, "outgoing"), recording(2, "unknown")], "next": "next",
        }),
        "/v1/me" => json!({"name": "ann@example.com", "may": {"administer": head.contains("bearer cvt-ann")}}),
        "/v1/imports" => json!({"id": ID}),
        _ if path.starts_with("/v1/imports/") => json!({"id": ID, "samples": 4}),
        "/v1/calls" => json!({"calls": [{
            "id": LIVE, "started_at": "2023-01-01T10:00:00.000Z", "duration_ms": 5_000, "paused_by": [], "owner": "ann@example.com",
            "owner_device": "SEP123456789ABC", "owner_numeric_id": 654_321, "local_number": "101", "remote_number": "7",
            "remote_name": "Bob Else",
        }]}),
        _ if path.ends_with("/audio") => json!("sound"),
        _ if path == format!("/v1/recordings/{ID}") => recording(0, "incoming"),
        _ if path == format!("/v1/calls/{LIVE}/start") || path == format!("/v1/calls/{LIVE}/stop") => {
            json!({"id": LIVE})
        }
        _ => return no("404 Not Found", "not-found"),
    };
    ("200 OK", answer.to_string())
}

fn call(sut: &Sut, method: &str, target: &str, body: &str) -> (u16, Value) {
    let answer = sut.ask(method, &format!("/fw/Apps/Recorder/WebAPI/{target}"), ANN, body);
    (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
}

#[test]
fn lists_are_filtered_counted_and_cut_into_pages() {
    let sut = start_with(daemon);
    let check = |query: &str, total: usize, shown: usize| {
        let (status, answer) = call(&sut, "GET", &format!("Recordings{query}"), "");
        let found = answer["recordings"].as_array().unwrap().len();
        assert_eq!((status, answer["totalCount"].as_u64(), found), (200, Some(total as u64), shown), "{query}");
    };
    check("", 5, 5);
    check("/", 5, 5);
    check("?page=0&pageSize=2", 5, 2);
    check("?page=2&pageSize=2", 5, 1);
    check("?page=3&pageSize=2", 5, 0);
    check("?direction=1", 2, 2);
    check("?startTime=after:2023-01-01T10:00:02Z", 2, 2);
    check("?startTime=between:2023-01-01T10:00:00Z,2023-01-01T10:00:01Z&direction=2", 1, 1);
    check("?remotePartyNumber=contains:+39", 5, 5);
    check("?localPartyNumber=226", 0, 0);
    check("?ownerUsername=ann", 5, 5);
    let (_, answer) = call(&sut, "GET", "Recordings?pageSize=1", "");
    assert_eq!(answer["recordings"][0]["startTime"], "2023-01-01T10:00:04.000Z", "the newest is the first");
    let (status, answer) = call(&sut, "GET", "Recordings?pageSize=x", "");
    assert_eq!((status, &answer["reason"]), (400, &json!(1)));
}

#[test]
fn one_is_shown_and_downloaded() {
    let sut = start_with(daemon);
    let (status, answer) = call(&sut, "GET", &format!("Recordings/{}", ID.to_uppercase()), "");
    assert_eq!((status, &answer["owner"]["username"], &answer["duration"]), (200, &json!("ann"), &json!("PT1M30S")));
    sut.asked();
    let answer = sut.ask("GET", &format!("/fw/Apps/Recorder/WebAPI/Recordings/{ID}/Download"), ANN, "");
    assert!(answer.status == 200 && answer.head.contains(&format!("filename=\"{ID}.mp3\"")), "{}", answer.head);
    assert!(sut.asked()[0].starts_with(&format!("GET /v1/recordings/{ID}/audio?format=mp3&for=download ")));
    assert_eq!(call(&sut, "GET", "Recordings/7", "").0, 400);
    assert_eq!(call(&sut, "GET", &format!("Recordings/{LIVE}"), "").0, 404);
}

#[test]
fn live_recordings_are_listed_started_and_stopped() {
    let sut = start_with(daemon);
    let check = |method: &str, target: &str, body: &str, expected: (u16, Value)| {
        assert_eq!(call(&sut, method, target, body), expected, "{method} {target} {body}");
    };
    let shown = json!([{
        "id": LIVE, "duration": "PT5S", "startedAt": "2023-01-01T10:00:00.000Z", "localParty": {"username": "ann"},
        "remoteParty": {"firstName": "Bob", "lastName": "Else", "phoneNumber": "7"}, "isPaused": false,
    }]);
    check("GET", "LiveRecordings", "", (200, shown.clone()));
    check("GET", "LiveRecordings?deviceName=SEP123456789ABC&numericUserId=654321", "", (200, shown));
    check("GET", "LiveRecordings?directoryNumber=123456", "", (200, json!([])));
    check("POST", "LiveRecordings", r#"{"directoryNumber": "101", "mode": 0}"#, (201, json!({"id": LIVE})));
    check("POST", "LiveRecordings/Mine", "", (201, json!({"id": LIVE})));
    let none = json!({"reason": null, "message": "there is no call there that is being recorded"});
    check("POST", "LiveRecordings", r#"{"directoryNumber": "102"}"#, (409, none.clone()));
    check("DELETE", &format!("LiveRecordings/{LIVE}"), "", (204, Value::Null));
    check("DELETE", "LiveRecordings/Mine", "", (204, Value::Null));
    check("DELETE", "LiveRecordings?directoryNumber=101", "", (204, Value::Null));
    check("DELETE", &format!("LiveRecordings/{ID}"), "", (409, none));
    let calls: Vec<String> = sut.asked().into_iter().filter(|asked| asked.starts_with("POST /v1/calls/")).collect();
    assert_eq!(calls.len(), 6, "{calls:?}");
}

#[test]
fn who_asks_is_told_by_basic_and_signs_in_once() {
    let sut = start_with(daemon);
    for _ in 0..3 {
        assert_eq!(call(&sut, "GET", "LiveRecordings", "").0, 200);
    }
    let asked = sut.asked();
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("POST /v1/sign-in")).count(), 1, "{asked:?}");
    let ask = |fields: &str| sut.ask("GET", "/fw/Apps/Recorder/WebAPI/LiveRecordings", fields, "");
    let none = ask("");
    assert!(none.status == 401 && none.head.contains("www-authenticate: basic realm"), "{}", none.head);
    assert_eq!(ask("cookie: __Host-callvault=cvt-12\r\n").status, 401, "a page's session is none of this API's");
    assert_eq!(ask(&format!("{ANN}{ANN}")).status, 401);
    assert_eq!(ask(&format!("{ANN}sec-fetch-site: cross-site\r\n")).status, 403);
    assert_eq!(ask(&format!("{ANN}origin: https://evil.example\r\n")).status, 403);
    assert!(sut.asked().is_empty());
    // any name, and a token
    assert_eq!(ask("authorization: Basic eDpjdnQtMTI=\r\n").status, 200);
    assert!(sut.asked().iter().all(|asked| asked.contains("earer cvt-12")), "a token needs no session");
    // eve:wrong is asked about before anything is said of the path
    let stranger = sut.ask("GET", "/fw/Apps/Recorder/WebAPI/Recordings/x", "authorization: Basic eDpjdnQtMTM=\r\n", "");
    assert_eq!(stranger.status, 401);
}

#[test]
fn what_is_not_done_here_is_said() {
    let sut = start_with(daemon);
    assert_eq!(call(&sut, "PUT", "Recordings", "").0, 405);
    assert_eq!(call(&sut, "GET", "Users", "").0, 404);
    std::fs::remove_file(sut.folder.path().join("daemon")).unwrap();
    assert_eq!(call(&sut, "GET", "LiveRecordings", "").0, 504);
}

/// A form with these parts: name, content type, content.
fn form(parts: &[(&str, &str, &str)]) -> String {
    let part = |(name, kind, content): &(&str, &str, &str)| {
        format!(
            "--x\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\nContent-Type: {kind}\r\n\r\n{content}\r\n"
        )
    };
    parts.iter().map(part).collect::<String>() + "--x--\r\n"
}

const KNOWN: &str = r#"{"startDateTime": "2026-01-01T10:00:00Z", "duration": "PT1S", "direction": 2, "localParty": {"phoneNumber": "225"}}"#;

/// A WAV of two samples for each of two channels.
const WAV: &str = "RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0\x40\x1f\0\0\0\x7d\0\0\x04\0\x10\0data\x08\0\0\0\x01\0\x02\0\x03\0\x04\0";

/// Sends a form; the answer, and what the daemon was asked: methods and targets.
fn uploaded(sut: &Sut, who: &str, kind: &str, body: &str) -> (u16, Value, Vec<String>) {
    let fields = format!("{who}content-type: {kind}\r\n");
    sut.asked();
    let answer = sut.ask("POST", "/fw/Apps/Recorder/WebAPI/Recordings", &fields, body);
    // What is told after the answer.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let asked = sut.asked().into_iter().map(|asked| asked.split(" HTTP").next().unwrap().to_owned());
    let asked = asked.filter(|asked| asked.contains("/v1/imports")).collect();
    (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null), asked)
}

#[test]
fn a_recording_is_passed_on_in_pieces_or_given_up() {
    let sut = start_with(daemon);
    let multipart = "multipart/form-data; boundary=x";
    let (begin, audio) = ("POST /v1/imports".to_owned(), format!("POST /v1/imports/{ID}/audio"));
    let (finish, give_up) = (format!("POST /v1/imports/{ID}/finish"), format!("DELETE /v1/imports/{ID}"));
    let (json, known, wav) =
        ("application/json", ("jsondata", "application/json", KNOWN), ("attachment", "audio/wave", WAV));
    let done = uploaded(&sut, ANN, multipart, &form(&[known, wav]));
    assert_eq!(done, (201, json!({"id": ID}), vec![begin.clone(), audio.clone(), finish.clone()]));
    let done = uploaded(&sut, ANN, multipart, &form(&[("other", "text/plain", "-"), wav, known]));
    assert_eq!((done.0, done.2), (201, vec![begin.clone(), audio, finish]), "either order");
    // The audio is there twice, the second time after the first was passed on.
    let twice = uploaded(&sut, ANN, multipart, &form(&[known, wav, wav]));
    assert_eq!((twice.0, twice.1["reason"].clone(), twice.2.last()), (400, json!(0), Some(&give_up)));
    let check = |who: &str, kind: &str, body: &str, status: u16, reason: Value| {
        let (found, answer, asked) = uploaded(&sut, who, kind, body);
        assert_eq!((found, &answer["reason"]), (status, &reason), "{answer}");
        assert!(asked.is_empty() || asked.last() == Some(&give_up), "{asked:?}");
    };
    check(ANN, "text/plain", "--x\r\n", 400, json!(0));
    check(ANN, "multipart/form-data", &form(&[known, wav]), 400, json!(0));
    check(ANN, multipart, "--x\r\n", 400, json!(0));
    check(ANN, multipart, &form(&[known]), 400, json!(0));
    check(ANN, multipart, &form(&[wav]), 400, json!(0));
    check(ANN, multipart, &form(&[known, known]), 400, json!(0));
    check(ANN, multipart, &form(&[("jsondata", json, "{"), wav]), 400, json!(1));
    check(ANN, multipart, &form(&[known, ("attachment", "text/html", WAV)]), 400, json!(2));
    check(ANN, multipart, &form(&[known, ("attachment", "audio/mpeg", "no sound")]), 400, json!(2));
    check(ANN, multipart, &form(&[("jsondata", json, &" ".repeat(70_000)), wav]), 413, Value::Null);
    check("authorization: Basic eDpjdnQtMTI=\r\n", multipart, &form(&[known, wav]), 403, Value::Null);
    check("", multipart, &form(&[known, wav]), 401, Value::Null);
}

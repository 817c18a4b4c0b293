//! A case for each verdict and each key, and a day of twenty thousand calls with defects planted in it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use callvault_webex::{CompletenessSettings, Held, HeldState, Record, Report, SETTLE_MS, join, read_page};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

const DAY: &str = "2026-03-02T06:00:00Z";

fn at(s: i64) -> Timestamp {
    DAY.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(s)
}

/// A record as the service writes it, so that reading it is tested too; `changes` are `key=value`, an empty value takes the key away.
fn record(call: usize, begins_s: i64, duration_s: i64, changes: &str) -> Record {
    let mut fields: BTreeMap<String, String> = [
        ("Report ID", format!("report-{call}")),
        ("Local call ID", format!("{call}:0")),
        ("Correlation ID", format!("correlation-{call}")),
        ("Direction", "ORIGINATING".to_owned()),
        ("Start time", at(begins_s - 4).to_string()),
        ("Answer time", at(begins_s).to_string()),
        ("Duration", duration_s.to_string()),
        ("Answered", "true".to_owned()),
        ("Calling number", format!("+4420794{:05}", call % 500)),
        ("Called number", format!("+4416329{call:05}")),
        ("User", format!("User {}", call % 500)),
        ("Location", format!("Location {}", call % 7)),
        ("Call Recording Platform Name", "Imagicle".to_owned()),
        ("Call Recording Result", "successful".to_owned()),
        ("Call Recording Trigger", "always".to_owned()),
        ("A field of tomorrow", "1".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    for change in changes.split(';').filter(|change| !change.is_empty()) {
        let (key, value) = change.split_once('=').unwrap();
        if value.is_empty() {
            fields.remove(key)
        } else {
            fields.insert(key.to_owned(), value.to_owned())
        };
    }
    let page = serde_json::json!({ "items": [fields] }).to_string();
    let (mut records, passed_over) = read_page(page.as_bytes()).unwrap();
    assert_eq!(passed_over, 0);
    records.remove(0)
}

fn held(id: u128, call: usize, begins_s: i64, duration_s: i64) -> Held {
    Held {
        id: Uuid::from_u128(id),
        started_at: at(begins_s) + SignedDuration::from_millis(700),
        duration_ms: duration_s * 1000 - 900,
        call_id: Some(format!("callhalf-{call}:0")),
        tracking_id: Some(format!("correlation-{call}")),
        local_number: Some(format!("+4420794{:05}", call % 500)),
        remote_number: Some(format!("sip:+4416329{call:05}@example.com;user=phone")),
        state: HeldState::Kept,
    }
}

fn said(records: &[Record], held: &[Held], now_s: i64) -> Vec<String> {
    let findings = join(records, held, &CompletenessSettings::default(), at(now_s));
    let by = |by: Option<callvault_webex::JoinedBy>| by.map(|by| format!(" by {}", by.as_str())).unwrap_or_default();
    findings
        .iter()
        .map(|one| format!("{}{} {}", one.verdict.as_str(), by(one.joined_by), one.recordings.len()))
        .collect()
}

#[test]
fn what_is_said_of_a_record_alone() {
    fn check(changes: &str, now_s: i64, expected: &[&str]) {
        assert_eq!(said(&[record(1, 0, 60, changes)], &[], now_s), expected, "{changes}");
    }
    let settled_s = 60 + SETTLE_MS / 1000;
    check("", settled_s, &["missing 0"]);
    check("", settled_s - 1, &["awaited 0"]);
    check("Call Recording Result=failed", settled_s, &["failed-at-webex 0"]);
    check("Call Recording Result=successful but not kept", settled_s, &["not-kept 0"]);
    check("Call Recording Result=a word of tomorrow", settled_s, &["missing 0"]);
    check("Answered=false", settled_s, &[]);
    check("Call Recording Platform Name=Webex", settled_s, &[]);
    check("Call Recording Platform Name=;Call Recording Result=;Call Recording Trigger=", settled_s, &[]);
    check("Call Recording Platform Name=Unknown;Call Recording Result=;Call Recording Trigger=", settled_s, &[]);
    check("Call Recording Platform Name=", settled_s, &["missing 0"]);
}

#[test]
fn which_key_holds() {
    fn check(changes: &str, change: impl Fn(&mut Held), expected: &[&str]) {
        let mut session = held(1, 1, 0, 60);
        change(&mut session);
        assert_eq!(said(&[record(1, 0, 60, changes)], &[session], 10_000), expected, "{changes}");
    }
    check("", |_| {}, &["recorded by call-id 1"]);
    check("Local call ID=", |_| {}, &["recorded by correlation-id 1"]);
    check("Local call ID=2:0", |_| {}, &["recorded by correlation-id 1"]);
    check("Local call ID=;Correlation ID=", |_| {}, &["recorded by numbers 1"]);
    check("", |held| (held.call_id, held.tracking_id) = (None, None), &["recorded by numbers 1"]);
    // Nothing is left to join by.
    let none = "Local call ID=;Correlation ID=;Called number=";
    check(none, |_| {}, &["missing 0", "extra 1"]);
    // Ids begin anew: another day is another call.
    check("", |held| held.started_at = at(86_400), &["missing 0", "awaited 1"]);
    // The other half of an internal call has the same correlation.
    check("Local call ID=", |held| held.local_number = Some("+390551234567".into()), &["missing 0", "extra 1"]);
    // Terminating legs are seen from the other side.
    let turned =
        "Local call ID=;Correlation ID=;Direction=TERMINATING;Calling number=+441632900001;Called number=+442079400001";
    check(turned, |_| {}, &["recorded by numbers 1"]);
    check("Call Recording Platform Name=Webex", |_| {}, &["extra by call-id 1"]);
    check(
        "Call Recording Platform Name=;Call Recording Result=;Call Recording Trigger=",
        |_| {},
        &["recorded by call-id 1"],
    );
}

#[test]
fn what_is_said_of_sessions() {
    fn check(sessions: &[(i64, i64)], changes: &str, expected: &[&str]) {
        let sessions: Vec<Held> =
            sessions.iter().zip(1..).map(|((begins_s, duration_s), id)| held(id, 1, *begins_s, *duration_s)).collect();
        assert_eq!(said(&[record(1, 0, 600, changes)], &sessions, 10_000), expected, "{sessions:?} {changes}");
    }
    check(&[(0, 600)], "", &["recorded by call-id 1"]);
    check(&[(0, 595)], "", &["short by call-id 1"]);
    check(&[(0, 597)], "", &["recorded by call-id 1"]);
    check(&[(0, 300), (301, 299)], "", &["recorded by call-id 2"]);
    check(&[(0, 300), (400, 200)], "", &["short by call-id 2"]);
    check(&[(0, 600), (0, 600)], "", &["recorded by call-id 1", "duplicate by call-id 1"]);
    check(&[(100, 50)], "Call Recording Trigger=on-demand", &["recorded by call-id 1"]);
    check(&[(100, 50)], "Call Recording Result=failed", &["short by call-id 1"]);
    check(&[], "", &["missing 0"]);
}

#[test]
fn what_is_not_kept_here() {
    fn check(state: HeldState, expected: &[&str]) {
        let session = Held { state, ..held(1, 1, 0, 60) };
        assert_eq!(said(&[record(1, 0, 60, "")], &[session], 10_000), expected);
    }
    check(HeldState::Filtered { rule: "internal".into() }, &["filtered by call-id 1"]);
    check(HeldState::NotKept, &["not-kept by call-id 1"]);
}

#[test]
fn pages_of_another_form_are_refused() {
    fn check(page: &str, expected: Option<(usize, usize)>) {
        assert_eq!(
            read_page(page.as_bytes()).ok().map(|(records, passed)| (records.len(), passed)),
            expected,
            "{page}"
        );
    }
    check(r#"{"items": []}"#, Some((0, 0)));
    check(
        r#"{"items": [{}, 1, null, {"Start time": "yesterday"}, {"Start time": ["2026-03-02T06:00:00Z"]}]}"#,
        Some((0, 5)),
    );
    check(r#"{"items": [{"Start time": "2026-03-02T06:00:00.000Z", "Duration": 9223372036854775807}]}"#, Some((1, 0)));
    check(r#"{"items": [{"Start time": "2026-03-02T06:00:00.000Z", "Duration": -4, "Answered": true}]}"#, Some((1, 0)));
    check("[]", None);
    check("", None);
    check("<html>", None);
}

/// What is planted in the day, by the call's number.
fn planted(call: usize) -> &'static str {
    match call % 1000 {
        17 => "never opened",
        118 => "ended early",
        219 => "twice",
        320 => "filtered",
        421 => "not kept",
        522 => "failed at Webex",
        623 => "without call id",
        724 => "without ids",
        825 => "late",
        926 => "unknown to Webex",
        _ => "",
    }
}

#[test]
fn a_day_of_twenty_thousand_calls() {
    const CALLS: usize = 20_000;
    let (mut early, mut late, mut sessions, mut expected) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
    for call in 0..CALLS {
        let (begins_s, duration_s) = ((call * 2) as i64, 30 + (call * 7919 % 600) as i64);
        let changes = match planted(call) {
            "not kept" => "Call Recording Trigger=on-demand;Call Recording Result=successful but not kept",
            "failed at Webex" => "Call Recording Result=failed",
            "without call id" => "Local call ID=",
            "without ids" => "Local call ID=;Correlation ID=",
            _ => "",
        };
        match planted(call) {
            "late" => late.push(record(call, begins_s, duration_s, changes)),
            "unknown to Webex" => {}
            _ => early.push(record(call, begins_s, duration_s, changes)),
        }
        let mut session = held(call as u128, call, begins_s, duration_s);
        let mut found = |verdict| assert_eq!(expected.insert(call, verdict), None);
        match planted(call) {
            "never opened" => found("missing"),
            "failed at Webex" => found("failed-at-webex"),
            "unknown to Webex" => found("extra"),
            "ended early" => {
                session.duration_ms /= 3;
                found("short");
            }
            "twice" => {
                sessions.push(Held { id: Uuid::from_u128((CALLS + call) as u128), ..session.clone() });
                found("duplicate");
            }
            "filtered" => {
                session.state = HeldState::Filtered { rule: "internal".into() };
                found("filtered");
            }
            "not kept" => session.state = HeldState::NotKept,
            _ => {}
        }
        if !matches!(planted(call), "never opened" | "failed at Webex") {
            sessions.push(session);
        }
    }
    let settings = CompletenessSettings::default();
    let end = at(CALLS as i64 * 2 + 1_000 + SETTLE_MS / 1000);
    let before = Report::of(join(&early, &sessions, &settings, end));
    assert_eq!(before.count("extra"), 40, "late records are not there yet");

    // The window before is read again with the next one, so most records come twice.
    let records: Vec<Record> = early.iter().chain(&late).chain(early.iter().take(5_000)).cloned().collect();
    let report = Report::of(join(&records, &sessions, &settings, end));
    // Records without any id cannot be told from their copies: the day has them once.
    let named: Vec<(i64, &str)> = report
        .findings
        .iter()
        .map(|one| ((one.begun_at.as_second() - at(0).as_second()) / 2, one.verdict.as_str()))
        .collect();
    let expected: Vec<(i64, &str)> = expected.into_iter().map(|(call, verdict)| (call as i64, verdict)).collect();
    assert_eq!(named, expected);
    assert_eq!(report.count("recorded"), 20_000 - 20 * 6);
    assert_eq!(report.joined_by["numbers"], 20);
    assert_eq!(report.joined_by["correlation-id"], 20);
    assert_eq!(report.csv().lines().count(), report.findings.len() + 1);
    assert!(!format!("{report:?}{:?}", report.findings).contains("User"), "nothing personal is in debug");
}

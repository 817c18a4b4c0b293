//! Whole lists from a service that answers as Webex's documentation says, with its limits and its faults, and what anybody may send.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use callvault_webex::{
    CompletenessSettings, Gathered, Grant, Held, HeldState, PageAnswer, Record, Report, Step, SyncSettings, Walk,
    WalkError, join, plan, read_page,
};
use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

const PEOPLE: usize = 5_000;
const FIRST: &str = "https://webexapis.com/v1/people?callingData=true&max=1000";

/// What a service answers: a status unless the connection was cut, headers, the body.
#[derive(Default)]
struct Answered {
    status: Option<u16>,
    link: Option<String>,
    retry_after: Option<String>,
    body: String,
}

/// A service with so many people, strict where the documentation is: 100 a page with calling data, whatever is asked for; cursors that
/// mean something to it alone; nothing before the moment that it named.
struct Service {
    random: u64,
    faults_percent: u64,
    now_ms: u64,
    not_before_ms: u64,
    requests: usize,
    too_early: usize,
}

impl Service {
    fn new(faults_percent: u64) -> Self {
        Self { random: 0x2545_F491_4F6C_DD1D, faults_percent, now_ms: 0, not_before_ms: 0, requests: 0, too_early: 0 }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn ask(&mut self, url: &str) -> Answered {
        self.requests += 1;
        if self.now_ms < self.not_before_ms {
            self.too_early += 1;
            return Answered { status: Some(429), retry_after: Some("60".into()), ..Answered::default() };
        }
        if self.draw(100) < self.faults_percent {
            let wait_s = 1 + self.draw(30);
            let status = [Some(429), Some(423), Some(500), Some(503), None][self.draw(5) as usize];
            let asks = matches!(status, Some(429 | 423));
            self.not_before_ms = if asks { self.now_ms + wait_s * 1000 } else { 0 };
            return Answered { status, retry_after: asks.then(|| wait_s.to_string()), ..Answered::default() };
        }
        let Some(begin) = begin(url) else { return Answered { status: Some(400), ..Answered::default() } };
        let end = (begin + 100).min(PEOPLE);
        let items: Vec<_> = (begin..end)
            .map(|number| serde_json::json!({"id": number.to_string(), "emails": [format!("u{number}@b.c")]}))
            .collect();
        let next = format!("<{FIRST}&after={:x},x>; rel=\"next\"", end ^ 0x5555);
        let link = (end < PEOPLE).then_some(next);
        Answered {
            status: Some(200),
            link,
            body: serde_json::json!({"items": items}).to_string(),
            ..Answered::default()
        }
    }
}

/// Where a page begins, by its address.
fn begin(url: &str) -> Option<usize> {
    if url == FIRST {
        return Some(0);
    }
    let cursor = url.strip_prefix(FIRST)?.strip_prefix("&after=")?.strip_suffix(",x")?;
    Some(usize::from_str_radix(cursor, 16).ok()? ^ 0x5555)
}

/// Everything that a walk gathers, or why it ended.
fn gathered(service: &mut Service) -> Result<Gathered, WalkError> {
    let (mut walk, mut url, mut gathered) = (Walk::new(FIRST), FIRST.to_owned(), Gathered::default());
    loop {
        let answer = service.ask(&url);
        let step = walk.answered(PageAnswer {
            status: answer.status,
            link: answer.link.as_deref(),
            retry_after: answer.retry_after.as_deref(),
        });
        match step {
            Step::Wait(ms) => service.now_ms += ms,
            Step::Failed(error) => return Err(error),
            Step::Done | Step::Get(_) => gathered.people_page(answer.body.as_bytes()).unwrap(),
        }
        match step {
            Step::Get(next) => url = next,
            Step::Done => return Ok(gathered),
            Step::Wait(_) | Step::Failed(_) => {}
        }
    }
}

#[test]
fn five_thousand_people_through_every_fault() {
    let check = |faults_percent, requests: std::ops::RangeInclusive<usize>| {
        let mut service = Service::new(faults_percent);
        let gathered = gathered(&mut service).unwrap();
        let mut last = 0;
        let new_id = || {
            last += 1;
            Uuid::from_u128(last)
        };
        let planned =
            plan(&[], &BTreeSet::new(), &gathered, &SyncSettings::default(), Timestamp::UNIX_EPOCH, new_id).unwrap();
        let emails: BTreeSet<String> = planned.plan.added.iter().map(|user| user.webex_email.clone()).collect();
        assert_eq!((emails.len(), planned.left_out), (PEOPLE, BTreeMap::new()));
        assert!(requests.contains(&service.requests), "{} requests at {faults_percent} %", service.requests);
        assert_eq!(service.too_early, 0, "it comes when it was told to");
    };
    check(0, 50..=50);
    check(10, 51..=65);
    check(40, 60..=110);
}

#[test]
fn a_service_that_is_down_gives_nothing_rather_than_a_part() {
    assert_eq!(gathered(&mut Service::new(100)).unwrap_err(), WalkError::Unavailable);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("2026-03-02T06:00:00.000Z".to_owned()),
        Just("-9999-01-01T00:00:00Z".to_owned()),
        Just("9999-12-30T22:00:00Z".to_owned()),
        Just("+442079460000".to_owned()),
        Just("1:0".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        ".{0,12}",
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let keys = [
        "Start time",
        "Answer time",
        "Release time",
        "Duration",
        "Local call ID",
        "Correlation ID",
        "Calling number",
        "Called number",
        "Answered",
        "Direction",
        "Call Recording Result",
        "Call Recording Trigger",
        "User",
        "Report ID",
    ];
    let fields = proptest::collection::vec(proptest::option::of(text()), keys.len());
    fields.prop_filter_map("no time", move |values| {
        let mut item: BTreeMap<&str, String> =
            keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect();
        item.entry("Start time").or_insert_with(|| "2026-03-02T06:00:00Z".to_owned());
        let page = serde_json::json!({"items": [item]}).to_string();
        read_page(page.as_bytes()).ok()?.0.pop()
    })
}

fn held() -> impl Strategy<Value = Held> {
    let time = prop_oneof![
        Just(Timestamp::MIN),
        Just(Timestamp::MAX),
        Just("2026-03-02T06:00:00Z".parse::<Timestamp>().unwrap())
    ];
    let option = || proptest::option::of(text());
    (any::<u128>(), time, any::<i64>(), option(), option(), option(), 0..3_u8).prop_map(
        |(id, started_at, duration_ms, call_id, local_number, remote_number, state)| Held {
            id: Uuid::from_u128(id),
            started_at,
            duration_ms,
            tracking_id: call_id.clone(),
            call_id,
            local_number,
            remote_number,
            state: match state {
                0 => HeldState::Kept,
                1 => HeldState::NotKept,
                _ => HeldState::Filtered { rule: "a,\"rule\"".into() },
            },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Whatever is told and held: no session is named twice, and none that is kept is passed over.
    #[test]
    fn every_session_that_is_kept_is_in_one_finding(
        records in proptest::collection::vec(record(), 0..12), held in proptest::collection::vec(held(), 0..12),
    ) {
        let findings = join(&records, &held, &CompletenessSettings::default(), Timestamp::MAX);
        let named: Vec<Uuid> = findings.iter().flat_map(|one| one.recordings.iter().copied()).collect();
        prop_assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len());
        for session in held.iter().filter(|session| session.state == HeldState::Kept) {
            prop_assert!(named.contains(&session.id));
        }
        let report = Report::of(findings);
        prop_assert_eq!(report.csv().matches("\r\n").count() > report.findings.len(), true);
    }

    /// What a peer sends is an error at worst.
    #[test]
    fn nothing_that_comes_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60), words in ".{0,40}", link in "[<>;,= a-z\"]{0,30}") {
        let _ = (read_page(&bytes), Grant::read(&bytes, None, Timestamp::MAX), Gathered::default().people_page(&bytes));
        let mut walk = Walk::new(&words);
        let _ = walk.answered(PageAnswer { status: Some(200), link: Some(&link), retry_after: Some(&words) });
        let _ = walk.answered(PageAnswer { status: Some(429), link: Some(&words), retry_after: Some(&words) });
    }
}

//! The whole life of an authorisation, against a model of the service, time compressed.

#![allow(clippy::unwrap_used)]

use callvault_webex::{Authorisation, Dead, Grant, Next, Renewal};
use jiff::{SignedDuration, Timestamp};

const DAY_S: i64 = 24 * 3600;

fn at(s: i64) -> Timestamp {
    "2026-03-02T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(s)
}

fn body(access: &str, refresh: &str) -> Vec<u8> {
    let told = serde_json::json!({
        "access_token": access, "expires_in": 14 * DAY_S, "refresh_token": refresh, "refresh_token_expires_in": 90 * DAY_S,
        "token_type": "Bearer",
    });
    told.to_string().into_bytes()
}

fn given(access: &str, refresh: &str, s: i64) -> Grant {
    Grant::read(&body(access, refresh), None, at(s)).unwrap()
}

/// One that was given at the beginning and is stored.
fn stored() -> Authorisation {
    Authorisation::new(Some(given("access-0", "refresh-0", 0)))
}

#[test]
fn when_it_is_renewed() {
    fn check(s: i64, expected: &Next) {
        assert_eq!(&stored().next(at(s)), expected, "{s}");
    }
    check(0, &Next::Use);
    check(7 * DAY_S - 1, &Next::Use);
    check(7 * DAY_S, &Next::Renew);
    // By our clock everything has ended: the service is asked all the same.
    check(400 * DAY_S, &Next::Renew);
    // The clock went back.
    check(-299, &Next::Use);
    check(-301, &Next::Renew);
    assert_eq!(Authorisation::new(None).next(at(0)), Next::Authorise(None));
}

#[test]
fn what_answers_mean() {
    fn check(status: u16, body: &[u8], expected: &Next) {
        let mut authorisation = stored();
        authorisation.renewed(&Renewal::Answer(status, body), at(8 * DAY_S));
        assert_eq!(&authorisation.next(at(8 * DAY_S)), expected, "{status}");
        assert_eq!(authorisation.token(at(8 * DAY_S)), Some("access-0"), "what there is lives on");
    }
    let wait = Next::Wait(at(8 * DAY_S + 60));
    check(500, b"", &wait);
    check(429, b"", &wait);
    check(403, b"", &wait);
    check(200, b"<html>a portal of a hotel</html>", &wait);
    check(200, br#"{"access_token": "a b", "expires_in": 1, "refresh_token": "r"}"#, &wait);
    check(200, br#"{"access_token": "a", "expires_in": 0, "refresh_token": "r"}"#, &wait);
    check(400, br#"{"error": "invalid_grant"}"#, &Next::Authorise(Some(Dead::Withdrawn)));
    check(400, b"", &Next::Authorise(Some(Dead::Withdrawn)));
    check(401, br#"{"error": "invalid_client"}"#, &Next::Authorise(Some(Dead::Client)));
    let received = given("access-1", "refresh-1", 8 * DAY_S);
    check(200, &body("access-1", "refresh-1"), &Next::Store(received));
    // One that names no new token for renewal keeps the old.
    let mut kept = Authorisation::new(Some(given("access-0", "refresh-0", 0)));
    kept.renewed(&Renewal::Answer(200, br#"{"access_token": "a", "expires_in": 60}"#), at(0));
    assert!(matches!(kept.next(at(0)), Next::Store(grant) if grant.refresh == "refresh-0"));
}

#[test]
fn pauses_double_up_to_an_hour_and_end_with_a_wrong_clock() {
    let (mut authorisation, mut now_s, mut pauses) = (stored(), 8 * DAY_S, Vec::new());
    for _ in 0..9 {
        authorisation.renewed(&Renewal::None, at(now_s));
        let Next::Wait(until) = authorisation.next(at(now_s)) else { panic!("no pause") };
        pauses.push((until.as_second() - at(now_s).as_second()) / 60);
        now_s = until.as_second() - at(0).as_second();
        assert_eq!(authorisation.next(until), Next::Renew);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    authorisation.renewed(&Renewal::None, at(now_s + 30 * DAY_S));
    assert_eq!(authorisation.next(at(now_s)), Next::Renew, "a pause of thirty days is none");
}

#[test]
fn a_new_token_is_used_only_after_it_is_stored() {
    let mut authorisation = stored();
    let now = at(8 * DAY_S);
    authorisation.renewed(&Renewal::Answer(200, &body("access-1", "refresh-1")), now);
    assert_eq!(authorisation.token(now), Some("access-0"));
    authorisation.stored();
    assert_eq!((authorisation.token(now), authorisation.next(now)), (Some("access-1"), Next::Use));
}

/// A service that takes the last token for renewal and the one before until the last was used, as Webex's does.
struct Service {
    renewals: u32,
    known: Vec<String>,
}

impl Service {
    fn renew(&mut self, refresh: &str) -> (u16, Vec<u8>) {
        let Some(place) = self.known.iter().position(|known| known == refresh) else {
            return (400, br#"{"error": "invalid_grant"}"#.to_vec());
        };
        self.known.drain(..place);
        self.renewals += 1;
        self.known.push(format!("refresh-{}", self.renewals));
        (200, body(&format!("access-{}", self.renewals), &self.known[self.known.len() - 1]))
    }
}

/// Ten years, a process that dies at every step in turn: what is stored is always known to the service.
#[test]
fn a_process_that_dies_between_receiving_and_storing() {
    let mut service = Service { renewals: 0, known: vec!["refresh-0".into()] };
    let mut disk = given("access-0", "refresh-0", 0);
    let mut running = Authorisation::new(Some(disk.clone()));
    let mut steps = 0_u32;
    for day in 0..3_650 {
        let now = at(day * DAY_S);
        loop {
            steps += 1;
            if steps.is_multiple_of(3) {
                running = Authorisation::new(Some(disk.clone()));
            }
            match running.next(now) {
                Next::Use => break,
                Next::Renew => {
                    let (status, body) = service.renew(&disk.refresh);
                    running.renewed(&Renewal::Answer(status, &body), now);
                }
                Next::Store(grant) => {
                    disk = grant;
                    running.stored();
                }
                next => panic!("{next:?} on day {day}"),
            }
        }
        assert!(running.token(now).is_some(), "day {day}");
    }
    assert!(service.renewals > 500, "{}", service.renewals);
}

#[test]
fn a_dead_authorisation_is_repaired_by_authorising_again() {
    let mut authorisation = stored();
    authorisation.renewed(&Renewal::Answer(400, b""), at(8 * DAY_S));
    assert_eq!(authorisation.next(at(20 * DAY_S)), Next::Authorise(Some(Dead::Withdrawn)));
    assert_eq!(authorisation.token(at(20 * DAY_S)), None, "it has ended");
    authorisation.authorised(given("access-9", "refresh-9", 20 * DAY_S));
    authorisation.stored();
    assert_eq!(authorisation.token(at(20 * DAY_S)), Some("access-9"));
    assert_eq!((authorisation.next(at(20 * DAY_S)), authorisation.dead()), (Next::Use, None));
}

#[test]
fn a_token_that_requests_refuse() {
    let mut authorisation = stored();
    authorisation.refused();
    assert_eq!((authorisation.token(at(1)), authorisation.next(at(1))), (None, Next::Renew));
    authorisation.renewed(&Renewal::Answer(200, &body("access-1", "refresh-1")), at(1));
    authorisation.stored();
    assert_eq!(authorisation.token(at(2)), Some("access-1"));
    let mut well = Authorisation::new(None);
    std::mem::swap(&mut well, &mut authorisation);
    well.refused();
    assert_eq!(well.next(at(2)), Next::Authorise(Some(Dead::Refused)), "a second time it is not the token's age");
    let mut other = stored();
    other.refused();
    other.renewed(&Renewal::Answer(200, &body("access-1", "refresh-1")), at(1));
    other.stored();
    other.accepted();
    other.refused();
    assert_eq!(other.next(at(2)), Next::Renew, "it was good in between");
}

#[test]
fn no_secret_is_in_debug_or_errors() {
    let mut authorisation = stored();
    authorisation.renewed(&Renewal::Answer(200, &body("access-1", "refresh-1")), at(8 * DAY_S));
    let text = format!("{authorisation:?} {:?}", authorisation.next(at(8 * DAY_S)));
    assert!(!text.contains("access-") && !text.contains("refresh-"), "{text}");
}

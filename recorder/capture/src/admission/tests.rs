//! Limits by example, and that they hold for any arrivals.

use std::net::IpAddr;

use callvault_sip::DialogId;
use proptest::prelude::*;

use super::{Admission, BURST_S, NowAndThen, PerSource, Rate, SECOND_NS, SOURCES_MAX, Source, TooMuch};
use crate::rig::{dialogs, settings};

const A: &str = "192.0.2.1";
const B: &str = "192.0.2.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_burst_is_taken_and_then_the_rate() {
    let rate = Rate::per_second(10, 3);
    let mut full_at = 0;
    let mut at = |ms: u64| rate.take(&mut full_at, ms * 1_000_000);
    assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
    assert_eq!([at(99), at(100), at(101), at(199), at(200)], [false, true, false, false, true]);
    // After a pause there is a burst again, and no more.
    assert_eq!([at(5_000), at(5_000), at(5_000), at(5_000)], [true, true, true, false]);
}

#[test]
fn no_limit_is_none() {
    let mut sources = PerSource::new(Rate::per_second(0, 0));
    assert!((0..100_000).all(|_| sources.take(Source::of(ip(A)), 0)));
}

#[test]
fn addresses_are_one_source_or_two() {
    fn check(a: &str, b: &str, same: bool) {
        assert_eq!(Source::of(ip(a)) == Source::of(ip(b)), same, "{a} and {b}");
    }
    check(A, B, false);
    check(A, "::ffff:192.0.2.1", true);
    check("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true);
    check("2001:db8:1:2::1", "2001:db8:1:3::1", false);
}

/// An admission with these limits: sessions a second, of one source, at the same time of one source.
fn admission(all: u32, per_peer: u32, share: u32) -> Admission {
    let mut settings = settings();
    settings.invites_per_second = all;
    settings.invites_per_peer_per_second = per_peer;
    settings.sessions_per_peer_max = share;
    Admission::new(&settings)
}

fn admitted(admission: &mut Admission, dialogs: &[DialogId], peer: &str) -> usize {
    dialogs.iter().filter(|dialog| admission.admit(0, **dialog, ip(peer)).is_ok()).count()
}

#[test]
fn one_source_cannot_take_what_is_for_all() {
    let dialogs = dialogs(60);
    let mut admission = admission(10, 4, 0);
    let burst = BURST_S as usize;
    assert_eq!(admitted(&mut admission, &dialogs[..20], A), 4 * burst);
    // What was refused to the first was not taken from the second.
    assert_eq!(admitted(&mut admission, &dialogs[20..30], B), 4 * burst);
    assert_eq!(admitted(&mut admission, &dialogs[30..40], "192.0.2.3"), 2 * burst);
    let late = "192.0.2.4";
    assert_eq!(admission.admit(0, dialogs[40], ip(late)), Err(TooMuch::Fast));
    // Nor does a refusal for the sake of all cost the source its own.
    assert_eq!(admitted(&mut admission, &dialogs[40..50], late), 0);
    let later = dialogs[50..].iter().filter(|dialog| admission.admit(SECOND_NS, **dialog, ip(late)).is_ok()).count();
    assert_eq!(later, 4 * burst);
}

#[test]
fn a_share_is_free_again_when_a_dialog_ends() {
    let dialogs = dialogs(5);
    let mut admission = admission(0, 0, 2);
    assert_eq!(admitted(&mut admission, &dialogs[..2], A), 2);
    assert_eq!(admission.admit(0, dialogs[2], ip(A)), Err(TooMuch::Share));
    assert_eq!(admission.admit(0, dialogs[3], ip(B)), Ok(()));
    // Whoever was not taken gives nothing back, and who was gives back once.
    for dialog in [dialogs[2], dialogs[0], dialogs[0]] {
        admission.ended(dialog);
    }
    assert_eq!(admission.admit(0, dialogs[2], ip(A)), Ok(()));
    assert_eq!(admission.admit(0, dialogs[4], ip(A)), Err(TooMuch::Share));
    for dialog in dialogs {
        admission.ended(dialog);
    }
    assert!(admission.sessions.is_empty() && admission.dialogs.is_empty());
}

#[test]
fn sources_without_room_share_one_bucket_until_there_is_room() {
    let mut sources = PerSource::new(Rate::per_second(1, 1));
    let all: Vec<u32> = (0..SOURCES_MAX as u32).collect();
    assert!(all.iter().all(|source| sources.take(*source, 0)));
    assert!(sources.take(1_000_000, 0) && !sources.take(1_000_001, 0));
    assert_eq!(sources.full_at.len(), SOURCES_MAX);
    // Later all buckets are full again, and nobody needs to be remembered.
    assert!(sources.take(1_000_001, 2 * SECOND_NS));
    assert_eq!(sources.full_at.len(), 1);
}

#[test]
fn a_line_is_said_now_and_then() {
    let mut line = NowAndThen::new();
    let said: Vec<Option<u64>> = (0..30).map(|s| line.due(s * SECOND_NS)).collect();
    assert_eq!(said[..3], [Some(0), Some(0), Some(0)]);
    assert_eq!(said[10], Some(7));
    assert_eq!(said.iter().flatten().count(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Whatever comes when: in no span of time is more taken than burst and rate allow, and nothing is refused to who keeps to
    /// the rate.
    #[test]
    fn never_more_than_the_rate(
        per_second in 1_u32..1_000,
        burst in 1_u32..50,
        pauses_us in prop::collection::vec(0_u64..50_000, 1..300),
    ) {
        let rate = Rate::per_second(per_second, burst);
        let (mut full_at, mut now, mut refused) = (0, 0, false);
        let mut taken = Vec::new();
        for pause in pauses_us {
            now += pause * 1_000;
            if rate.take(&mut full_at, now) {
                taken.push(now);
            } else {
                refused = true;
            }
        }
        for (i, first) in taken.iter().enumerate() {
            for (count, last) in (1..).zip(&taken[i..]) {
                let allowed = u64::from(burst) + (last - first) / rate.interval_ns + 1;
                prop_assert!(count <= allowed, "{count} in {} ns", last - first);
            }
        }
        prop_assert!(!refused || taken.len() >= burst as usize);
        // After a pause of one interval there is always one.
        prop_assert!(rate.take(&mut full_at, now + rate.interval_ns));
    }
}

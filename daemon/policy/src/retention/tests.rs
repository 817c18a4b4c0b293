use jiff::ToSpan as _;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn rule(period: &str, preserved: Option<&str>, zone: &str) -> RetentionRule {
    StoredRule {
        name: "custom".to_owned(),
        period: Some(period.to_owned()),
        preserved: preserved.map(str::to_owned),
        zone: zone.to_owned(),
    }
    .rule()
}

fn ended(at: Timestamp) -> Candidate {
    Candidate {
        ended_at: at,
        is_preserved: false,
        is_playing: false,
        is_being_archived: false,
        awaits_upload: false,
        bytes: 1,
    }
}

#[test]
fn a_period_is_counted_by_the_calendar_of_the_time_zone() {
    let check = |period: &str, zone: &str, ended: &str, due: &str| {
        let rule = rule(period, None, zone);
        assert_eq!(rule.due_at(at(ended), false), Some(at(due)), "{period} after {ended} in {zone}");
    };
    check("4 hours", "UTC", "2027-03-28T00:30:00Z", "2027-03-28T04:30:00Z");
    // hours are hours, whatever the clocks do
    check("4 hours", "Europe/Berlin", "2027-03-28T00:30:00Z", "2027-03-28T04:30:00Z");
    check("1 days", "UTC", "2027-03-27T01:30:00Z", "2027-03-28T01:30:00Z");
    // 02:30 does not exist on 28 March 2027 in Berlin: the time after the gap
    check("1 days", "Europe/Berlin", "2027-03-27T01:30:00Z", "2027-03-28T01:30:00Z");
    // 12:00 is an hour earlier in summer
    check("1 days", "Europe/Berlin", "2027-03-27T11:00:00Z", "2027-03-28T10:00:00Z");
    // 02:30 comes twice on 31 October 2027: the second
    check("1 days", "Europe/Berlin", "2027-10-30T00:30:00Z", "2027-10-31T01:30:00Z");
    check("12 months", "UTC", "2027-01-31T10:00:00Z", "2028-01-31T10:00:00Z");
    check("1 months", "UTC", "2027-01-31T10:00:00Z", "2027-02-28T10:00:00Z");
    check("1 months", "UTC", "2028-01-31T10:00:00Z", "2028-02-29T10:00:00Z");
    check("12 months", "UTC", "2028-02-29T10:00:00Z", "2029-02-28T10:00:00Z");
    check("48 months", "UTC", "2028-02-29T10:00:00Z", "2032-02-29T10:00:00Z");
    check("1 years", "UTC", "2028-02-29T10:00:00Z", "2029-02-28T10:00:00Z");
    // the day is another one there
    check("1 months", "Asia/Tokyo", "2027-01-30T20:00:00Z", "2027-02-27T20:00:00Z");
    check("100 years", "UTC", "2027-01-01T00:00:00Z", "2127-01-01T00:00:00Z");
}

#[test]
fn a_period_has_limits() {
    let check = |text: &str, is_one: bool| assert_eq!(text.parse::<Period>().is_ok(), is_one, "{text}");
    check("1 hours", true);
    check("876600 hours", true);
    check("876601 hours", false);
    check("36600 days", true);
    check("1200 months", true);
    check("1201 months", false);
    check("100 years", true);
    check("101 years", false);
    check("0 days", false);
    check("-1 days", false);
    check("4294967296 days", false);
    check("1 weeks", false);
    check("days", false);
    check("", false);
}

#[test]
fn what_is_preserved_stays_for_its_own_time() {
    let check = |period: Option<&str>, preserved: Option<&str>, is_preserved: bool, due: Option<&str>| {
        let mut rule = rule("1 years", preserved, "UTC");
        rule.period = period.map(|text| text.parse().unwrap());
        assert_eq!(rule.due_at(at("2027-01-01T00:00:00Z"), is_preserved), due.map(at));
    };
    check(None, None, false, None);
    check(None, Some("1 hours"), true, None);
    check(Some("4 hours"), None, false, Some("2027-01-01T04:00:00Z"));
    check(Some("4 hours"), None, true, None);
    check(Some("12 months"), Some("1 months"), true, Some("2028-02-01T00:00:00Z"));
    check(Some("12 months"), Some("1 months"), false, Some("2028-01-01T00:00:00Z"));
}

#[test]
fn what_is_in_use_or_owed_elsewhere_waits() {
    let rule = rule("4 hours", None, "UTC");
    let decision = Decision { wanted: rule.clone(), in_force: rule, confirmed_until: Some(Timestamp::MAX) };
    let due = ended(at("2027-01-01T00:00:00Z"));
    let check = |candidate: Candidate, now: &str, expected: Standing| {
        assert_eq!(decision.standing(&candidate, at(now)), expected, "{candidate:?} at {now}");
    };
    check(due, "2027-01-01T03:59:59.999Z", Standing::Stays);
    check(due, "2027-01-01T04:00:00Z", Standing::Confirmed);
    let later = "2027-02-01T00:00:00Z";
    check(Candidate { is_playing: true, ..due }, later, Standing::Held(Hold::Playing));
    check(Candidate { is_being_archived: true, ..due }, later, Standing::Held(Hold::BeingArchived));
    check(Candidate { awaits_upload: true, ..due }, later, Standing::Held(Hold::AwaitsUpload));
    check(Candidate { is_preserved: true, ..due }, later, Standing::Stays);
    check(Candidate { is_preserved: true, is_playing: true, ..due }, later, Standing::Stays);
}

#[test]
fn a_shorter_rule_waits_and_the_one_before_it_goes_on() {
    let decision = |wanted: &str, in_force: &str, confirmed: Option<&str>| Decision {
        wanted: rule(wanted, None, "UTC"),
        in_force: rule(in_force, None, "UTC"),
        confirmed_until: confirmed.map(at),
    };
    let check = |decision: &Decision, ended_at: &str, expected: Standing| {
        assert_eq!(decision.standing(&ended(at(ended_at)), at("2029-01-01T00:00:00Z")), expected, "{ended_at}");
    };
    let shorter = decision("12 months", "48 months", None);
    check(&shorter, "2024-12-31T00:00:00Z", Standing::Due);
    check(&shorter, "2027-12-31T00:00:00Z", Standing::DueByNewRule);
    check(&shorter, "2028-01-02T00:00:00Z", Standing::Stays);
    let longer = decision("48 months", "12 months", None);
    check(&longer, "2024-12-31T00:00:00Z", Standing::Due);
    check(&longer, "2027-12-31T00:00:00Z", Standing::Stays);
    let confirmed = decision("12 months", "48 months", Some("2028-12-30T00:00:00Z"));
    check(&confirmed, "2027-12-29T00:00:00Z", Standing::Confirmed);
    check(&confirmed, "2027-12-31T00:00:00Z", Standing::DueByNewRule);
    let first = Decision { in_force: RetentionRule::keep_all(), ..decision("12 months", "1 hours", None) };
    check(&first, "2020-01-01T00:00:00Z", Standing::DueByNewRule);
}

#[test]
fn an_unusual_deletion_is_asked_for() {
    let thresholds = AskThresholds { few: 10, share_percent: 20 };
    let check = |recordings, due, due_by_new_rule, question: Option<Question>, (goes, goes_new): (bool, bool)| {
        let tally = Tally { recordings, due, due_by_new_rule, ..Tally::default() };
        assert_eq!(tally.question(&thresholds), question, "{tally:?}");
        assert_eq!(tally.permits(&thresholds), Permits { due: goes, due_by_new_rule: goes_new }, "{tally:?}");
    };
    check(10, 10, 0, None, (true, true));
    check(11, 11, 0, Some(Question::LargeShare), (false, false));
    check(100, 20, 0, None, (true, true));
    check(100, 21, 0, Some(Question::LargeShare), (false, false));
    check(1_000, 0, 10, None, (true, true));
    check(1_000, 0, 11, Some(Question::ShorterRule), (true, false));
    check(1_000, 50, 11, Some(Question::ShorterRule), (true, false));
    check(1_000, 201, 11, Some(Question::ShorterRule), (false, false));
    check(50, 9, 9, Some(Question::LargeShare), (false, false));
    check(u64::MAX, u64::MAX, 0, Some(Question::LargeShare), (false, false));
}

#[test]
fn what_was_confirmed_goes_whatever_is_asked_about_the_rest() {
    for permits in [Permits::default(), Permits { due: true, due_by_new_rule: true }] {
        assert!(permits.goes(Standing::Confirmed));
        assert!(!permits.goes(Standing::Stays) && !permits.goes(Standing::Held(Hold::Playing)));
    }
    assert!(!Permits::default().goes(Standing::Due) && !Permits::default().goes(Standing::DueByNewRule));
}

#[test]
fn a_clock_that_jumped_is_not_believed() {
    let base = at("2027-01-01T00:00:00Z");
    let reading = |wall_ms: i64, boot_ms: i64, boot: u128| ClockReading {
        wall: base.checked_add(wall_ms.milliseconds()).unwrap(),
        boot_ms,
        boot,
    };
    let last = reading(0, 5_000, 1);
    let check = |now: ClockReading, expected: ClockFinding| {
        assert_eq!(clock(Some(&last), None, &now), expected, "{now:?}");
    };
    let day = 86_400_000;
    check(reading(300_000, 305_000, 1), ClockFinding::Steady);
    check(reading(300_000 + STEP_MS_MAX, 305_000, 1), ClockFinding::Steady);
    check(reading(300_001 + STEP_MS_MAX, 305_000, 1), ClockFinding::Jumped { by_ms: STEP_MS_MAX + 1 });
    check(reading(-STEP_MS_MAX - 1, 5_000, 1), ClockFinding::Jumped { by_ms: -STEP_MS_MAX - 1 });
    // asleep: both went on
    check(reading(400 * day, 400 * day + 5_000, 1), ClockFinding::Steady);
    // started anew
    check(reading(7 * day, 0, 2), ClockFinding::Steady);
    check(reading(7 * day + 1, 0, 2), ClockFinding::LongOff { for_ms: 7 * day + 1 });
    check(reading(20 * day, 19 * day, 2), ClockFinding::Steady);
    check(reading(-day, 0, 2), ClockFinding::Jumped { by_ms: -day });
    check(reading(0, day, 2), ClockFinding::Jumped { by_ms: -day });

    let first = |newest: Option<i64>, expected: ClockFinding| {
        let newest = newest.map(|ms| base.checked_add(ms.milliseconds()).unwrap());
        assert_eq!(clock(None, newest, &last), expected, "{newest:?}");
    };
    first(None, ClockFinding::Steady);
    first(Some(-day), ClockFinding::Steady);
    first(Some(STEP_MS_MAX), ClockFinding::Steady);
    first(Some(day), ClockFinding::BehindRecordings { by_ms: day });
}

#[test]
fn a_rule_that_is_not_understood_any_more_keeps_everything() {
    let check = |stored: StoredRule, keeps_all: bool| {
        assert_eq!(stored.rule().period.is_none(), keeps_all, "{stored:?}");
    };
    let stored = StoredRule::of(&rule("12 months", Some("1 years"), "Europe/Berlin"));
    assert_eq!(StoredRule::of(&stored.rule()), stored);
    check(stored.clone(), false);
    check(StoredRule { period: Some("12 moons".into()), ..stored.clone() }, true);
    check(StoredRule { preserved: Some("1 moon".into()), ..stored.clone() }, true);
    check(StoredRule { zone: "Mars/Olympus".into(), ..stored }, true);
    check(StoredRule::default(), true);
}

fn periods() -> impl Strategy<Value = Period> {
    let unit =
        prop_oneof![Just(PeriodUnit::Hours), Just(PeriodUnit::Days), Just(PeriodUnit::Months), Just(PeriodUnit::Years)];
    (1_u32..=100, unit).prop_map(|(count, unit)| Period::new(count, unit).unwrap())
}

fn rules() -> impl Strategy<Value = RetentionRule> {
    let zones = prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("America/St_Johns"), Just("Pacific/Apia")];
    (proptest::option::weighted(0.9, periods()), proptest::option::of(periods()), zones).prop_map(
        |(period, preserved, zone)| RetentionRule {
            name: "custom".to_owned(),
            period,
            preserving: preserved.map_or(Preserving::ForEver, Preserving::Longer),
            zone: TimeZone::get(zone).unwrap(),
        },
    )
}

/// From 2000 to 2100.
fn times() -> impl Strategy<Value = Timestamp> {
    (946_684_800_000_i64..4_102_444_800_000).prop_map(|ms| Timestamp::from_millisecond(ms).unwrap())
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (times(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(at, preserved, playing, upload)| {
        Candidate { is_preserved: preserved, is_playing: playing, awaits_upload: upload, ..ended(at) }
    });
    proptest::collection::vec(one, 0..60)
}

/// A run: what is left, and what went.
fn run(
    decision: &Decision,
    all: &[Candidate],
    now: Timestamp,
    thresholds: &AskThresholds,
) -> (Vec<Candidate>, Vec<Candidate>) {
    let mut tally = Tally { recordings: all.len() as u64, ..Tally::default() };
    all.iter().for_each(|one| tally.count(one, decision.standing(one, now)));
    let permits = tally.permits(thresholds);
    all.iter().partition(|one| !permits.goes(decision.standing(one, now)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_goes_before_its_period_has_passed(rule in rules(), at in times()) {
        if let Some(due) = rule.due_at(at, false) {
            let shortest = rule.period.unwrap();
            let days = match shortest.unit {
                PeriodUnit::Hours => 0,
                PeriodUnit::Days => i64::from(shortest.count) - 1,
                PeriodUnit::Months => i64::from(shortest.count) * 28 - 1,
                PeriodUnit::Years => i64::from(shortest.count) * 365 - 1,
            };
            let hours = if shortest.unit == PeriodUnit::Hours { i64::from(shortest.count) } else { days * 24 };
            prop_assert!(due.duration_since(at).as_hours() >= hours, "{rule:?} {at} {due}");
            prop_assert!(rule.due_at(at, true).is_none_or(|longer| longer > due));
        }
    }

    #[test]
    fn the_bound_of_the_search_leaves_nothing_out(rule in rules(), at in times(), is_preserved: bool) {
        if let Some(due) = rule.due_at(at, is_preserved) {
            let bound = rule.ended_before(due);
            prop_assert!(bound.is_some_and(|bound| at <= bound), "{rule:?} {at} {due} {bound:?}");
        }
    }

    #[test]
    fn a_run_applied_twice_is_the_same_as_once(
        wanted in rules(), in_force in rules(), all in candidates(), now in times(), few in 0_u64..30, share in 1_u32..=100
    ) {
        let (decision, thresholds) = (Decision { wanted, in_force, confirmed_until: None }, AskThresholds { few, share_percent: share });
        let (left, gone) = run(&decision, &all, now, &thresholds);
        let (still_left, gone_again) = run(&decision, &left, now, &thresholds);
        if gone.is_empty() {
            prop_assert_eq!(&still_left, &all);
        }
        prop_assert!(gone_again.is_empty(), "{gone_again:?}");
    }

    #[test]
    fn nothing_that_is_preserved_or_held_goes(
        wanted in rules(), in_force in rules(), all in candidates(), now in times(), confirmed in proptest::option::of(times())
    ) {
        let decision = Decision { wanted, in_force, confirmed_until: confirmed };
        let (_, gone) = run(&decision, &all, now, &AskThresholds { few: 1_000, share_percent: 100 });
        for one in gone {
            prop_assert!(!one.is_playing && !one.awaits_upload);
            prop_assert!(!one.is_preserved || decision.wanted.preserving != Preserving::ForEver);
            prop_assert!(decision.wanted.due_at(one.ended_at, one.is_preserved).unwrap() <= now);
        }
    }

    #[test]
    fn by_keeping_all_nothing_goes(in_force in rules(), all in candidates(), now in times(), confirmed in proptest::option::of(times())) {
        let decision = Decision { wanted: RetentionRule::keep_all(), in_force, confirmed_until: confirmed };
        let (_, gone) = run(&decision, &all, now, &AskThresholds { few: 1_000, share_percent: 100 });
        prop_assert!(gone.is_empty());
    }

    #[test]
    fn as_long_as_a_shorter_rule_waits_nothing_goes_that_the_one_before_keeps(
        wanted in rules(), in_force in rules(), all in candidates(), now in times()
    ) {
        let decision = Decision { wanted, in_force, confirmed_until: None };
        let (_, gone) = run(&decision, &all, now, &AskThresholds { few: 0, share_percent: 100 });
        for one in gone {
            prop_assert!(decision.in_force.due_at(one.ended_at, one.is_preserved).is_some_and(|due| due <= now));
        }
    }
}

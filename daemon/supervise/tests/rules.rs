//! Each rule of supervision, as a story of events.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use callvault_supervise::{Action, Event, Limits, State, Supervisor};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn running(limits: Limits) -> Supervisor {
    let mut machine = Supervisor::new(limits, at(0));
    assert_eq!(machine.handle(at(0), Event::Tick), [Action::Start]);
    assert!(machine.handle(at(1), Event::Started).is_empty());
    assert!(machine.handle(at(2), Event::Ready).is_empty());
    assert!(machine.is_up());
    machine
}

#[test]
fn the_first_death_is_mended_at_once() {
    let mut machine = running(Limits::default());
    assert_eq!(machine.handle(at(500), Event::Exited), [Action::Start]);
}

#[test]
fn pauses_double_up_to_the_longest_and_it_never_gives_up() {
    let mut machine = running(Limits::default());
    let mut pauses = Vec::new();
    let mut now = 1_000;
    for _ in 0..40 {
        let _ = machine.handle(at(now), Event::Exited);
        if let State::Waiting { until } = machine.state() {
            pauses.push(until.as_millis() as u64 - now);
            now = until.as_millis() as u64;
            assert_eq!(machine.handle(at(now), Event::Tick), [Action::Start]);
        } else {
            pauses.push(0);
        }
        let _ = machine.handle(at(now), Event::Started);
        now += 1;
    }
    assert_eq!(pauses[..9], [0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    assert!(pauses[9..].iter().all(|&pause| pause == 5_000));
}

/// Each life is so long, from ready to death; the last death's pause is this.
fn check_pause(lives_ms: &[u64], expected_ms: u64) {
    let mut machine = running(Limits::default());
    let (mut now, mut pause) = (2, 0);
    for life in lives_ms {
        now += life;
        let begun = machine.handle(at(now), Event::Exited).contains(&Action::Start);
        pause = match machine.state() {
            State::Waiting { until } => until.as_millis() as u64 - now,
            _ => 0,
        };
        now += pause;
        assert!(begun || machine.handle(at(now), Event::Tick) == [Action::Start]);
        let _ = machine.handle(at(now), Event::Started);
        let _ = machine.handle(at(now), Event::Ready);
    }
    assert_eq!(pause, expected_ms, "{lives_ms:?}");
}

#[test]
fn one_that_has_served_is_started_again_at_once_however_often_it_dies() {
    check_pause(&[1_000; 100], 0);
    check_pause(&[999, 999, 999], 200);
    check_pause(&[999, 999, 1_000], 0);
    check_pause(&[999, 999, 1_000, 999], 0);
    check_pause(&[999, 999, 1_000, 999, 999], 100);
}

#[test]
fn dying_often_is_an_alarm_once_and_steadiness_clears_it() {
    let mut machine = running(Limits::default());
    let mut alarms = 0;
    let mut now = 1_000;
    for _ in 0..6 {
        let mut actions = machine.handle(at(now), Event::Exited);
        now += 6_000;
        actions.extend(machine.handle(at(now), Event::Tick));
        alarms += actions.iter().filter(|a| matches!(a, Action::Alarm { .. })).count();
        let _ = machine.handle(at(now), Event::Started);
        let _ = machine.handle(at(now), Event::Ready);
    }
    assert_eq!(alarms, 1);
    let mut cleared = 0;
    for beat in 1..=70 {
        now += 1_000;
        let actions = machine.handle(at(now), Event::Beat([beat; 3]));
        cleared += actions.iter().filter(|a| **a == Action::AllClear).count();
    }
    assert_eq!(cleared, 1);
    assert_eq!(machine.handle(at(now), Event::Exited), [Action::Start], "its past is forgiven");
}

#[test]
fn what_stands_still_is_named_and_killed() {
    fn check(frozen: usize, name: &str) {
        let mut machine = running(Limits::default());
        for beat in 1..20_u64 {
            let mut progress = [beat; 3];
            progress[frozen] = 1;
            let actions = machine.handle(at(beat * 1_000), Event::Beat(progress));
            if let [Action::Kill { why }] = actions.as_slice() {
                assert!(why.contains(name), "{why}");
                assert_eq!(beat, 6, "moved last at 1 s, allowed 5 s");
                assert_eq!(machine.handle(at(6_100), Event::Exited), [Action::Start]);
                return;
            }
        }
        panic!("{name} stood still and nothing was done");
    }
    check(0, "signalling");
    check(1, "media sweep");
    check(2, "journal");
}

#[test]
fn what_stands_still_is_known_before_it_is_killed_and_why_it_was_until_another_is_ready() {
    let mut machine = running(Limits::default());
    let _ = machine.handle(at(1_000), Event::Beat([1, 1, 1]));
    let _ = machine.handle(at(4_000), Event::Beat([2, 2, 1]));
    assert_eq!(machine.stillest(at(4_000)), Some(("journal", at(3_000))));
    assert_eq!(machine.killed(), None);
    assert!(matches!(machine.handle(at(6_000), Event::Beat([3, 3, 1])).as_slice(), [Action::Kill { .. }]));
    assert!(machine.killed().unwrap().contains("journal"));
    assert_eq!(machine.stillest(at(6_000)), None);
    let _ = machine.handle(at(6_100), Event::Exited);
    let _ = machine.handle(at(6_200), Event::Started);
    assert!(machine.killed().is_some());
    let _ = machine.handle(at(6_300), Event::Ready);
    assert_eq!(machine.killed(), None);
}

/// The parts that move, beat by beat; whether the journal's disk answers; when it is killed, in seconds.
fn check_disk(moves: impl Fn(u64) -> [bool; 3], answers: impl Fn(u64) -> bool, killed_at: Option<u64>) {
    let mut machine = running(Limits::default());
    let mut progress = [0; 3];
    for second in 1..60 {
        for (count, moved) in progress.iter_mut().zip(moves(second)) {
            *count += u64::from(moved);
        }
        let mut actions = machine.handle(at(second * 1_000), Event::Beat(progress));
        if machine.stillest(at(second * 1_000)).is_some_and(|(name, still)| name == "journal" && still >= at(2_000)) {
            actions.extend(machine.handle(at(second * 1_000), Event::Disk { answers: answers(second) }));
        }
        assert!(machine.deadline().is_none_or(|due| due > at(second * 1_000)), "nobody is waken for nothing");
        if let Some(Action::Kill { why }) = actions.first() {
            assert_eq!(Some(second), killed_at, "{why}");
            return;
        }
    }
    assert_eq!(killed_at, None);
}

#[test]
fn a_journal_that_waits_for_its_disk_is_waited_for() {
    let stands = |from: u64| move |second: u64| [true, true, second < from];
    check_disk(stands(10), |_| false, None);
    check_disk(stands(10), |_| true, Some(14));
    // The disk answers again, and it stands still all the same.
    check_disk(stands(10), |second| second >= 30, Some(35));
    // What else stands still has nothing to do with the disk.
    check_disk(|second| [true, second < 10, second < 10], |_| false, Some(14));
    // It moves, and then it hangs.
    check_disk(|second| [true, true, second < 10 || second == 30], |second| second > 30, Some(35));
}

#[test]
fn silence_and_a_slow_start_are_killed_too() {
    let mut machine = running(Limits::default());
    let due = machine.deadline().unwrap();
    assert!(matches!(machine.handle(due, Event::Tick).as_slice(), [Action::Kill { .. }]));

    let mut machine = Supervisor::new(Limits::default(), at(0));
    let _ = machine.handle(at(0), Event::Tick);
    let _ = machine.handle(at(0), Event::Started);
    assert!(machine.handle(at(9_999), Event::Tick).is_empty());
    assert!(matches!(machine.handle(at(10_000), Event::Tick).as_slice(), [Action::Kill { .. }]));
}

#[test]
fn stopping_is_asked_for_and_then_enforced() {
    let mut machine = running(Limits::default());
    assert_eq!(machine.handle(at(100), Event::StopWanted), [Action::AskToStop]);
    assert!(matches!(machine.handle(at(10_100), Event::Tick).as_slice(), [Action::Kill { .. }]));
    assert_eq!(machine.handle(at(10_200), Event::Exited), [Action::Stopped]);
    assert_eq!(machine.deadline(), None);
}

#[test]
fn stopping_while_a_start_is_under_way_stops_what_was_started() {
    let mut machine = Supervisor::new(Limits::default(), at(0));
    assert_eq!(machine.handle(at(0), Event::Tick), [Action::Start]);
    assert!(machine.handle(at(1), Event::StopWanted).is_empty());
    assert_eq!(machine.handle(at(2), Event::Started), [Action::AskToStop]);
    assert_eq!(machine.handle(at(3), Event::Exited), [Action::Stopped]);
}

/// Failing seeds are kept beside this file.
fn kept() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    /// Whatever happens, the child is never started twice without an exit in between, and unless a stop is wanted the
    /// machine always has either a deadline or something under way.
    #[test]
    fn never_two_children_and_never_idle(events in proptest::collection::vec(0..6_u8, 1..200)) {
        let mut machine = Supervisor::new(Limits::default(), at(0));
        let mut alive = false;
        let mut starting = false;
        for (step, kind) in events.into_iter().enumerate() {
            let now = at(step as u64 * 700);
            let event = match kind {
                0 if starting => { starting = false; alive = true; Event::Started }
                1 if starting => { starting = false; Event::StartFailed }
                2 if alive => Event::Ready,
                3 if alive => Event::Beat([step as u64; 3]),
                4 if alive => { alive = false; Event::Exited }
                _ => Event::Tick,
            };
            for action in machine.handle(now, event) {
                if action == Action::Start {
                    prop_assert!(!alive && !starting);
                    starting = true;
                }
            }
            prop_assert!(machine.deadline().is_some() || starting || machine.state() == State::Dying);
        }
    }
}

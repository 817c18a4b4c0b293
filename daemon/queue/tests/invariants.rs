//! What the deciding half always does.
#![allow(clippy::unwrap_used)]

mod sut;

use callvault_queue::{
    Enqueued, Failure, Filter, JOBS_MAX, JobId, JobKind, NewJob, Next, ParkReason, QueueError, RetryPolicies,
    RetryPolicy, State, StateName, WAIT_MS_MAX, backoff_ms, machine::Machine,
};
use sut::{NOW, archive, job, limits};
use uuid::Uuid;

fn machine(policy: RetryPolicy) -> Machine {
    Machine::new(RetryPolicies { default: policy, kinds: [].into() })
}

fn with(jobs: &[NewJob]) -> Machine {
    let mut machine = machine(RetryPolicy::PATIENT);
    machine.enqueue(NOW, jobs).unwrap();
    machine
}

#[test]
fn a_wait_is_between_nothing_and_the_doubled_base_up_to_the_cap() {
    let policy = RetryPolicy { base_ms: 1000, cap_ms: 60_000, ..RetryPolicy::PATIENT };
    let check = |failures, ceiling| {
        assert_eq!(backoff_ms(&policy, failures, 0), 0, "smallest after {failures}");
        assert_eq!(backoff_ms(&policy, failures, u64::MAX), ceiling, "largest after {failures}");
        let middle = backoff_ms(&policy, failures, u64::MAX / 2);
        assert!(middle.abs_diff(ceiling / 2) <= 1, "middle after {failures}: {middle}");
    };
    check(0, 1000);
    check(1, 1000);
    check(2, 2000);
    check(6, 32_000);
    check(7, 60_000);
    check(64, 60_000);
    check(u32::MAX, 60_000);
}

#[test]
fn no_policy_waits_longer_than_a_day() {
    let policy = RetryPolicy { base_ms: u64::MAX, cap_ms: u64::MAX, ..RetryPolicy::PATIENT };
    assert_eq!(backoff_ms(&policy, 9, u64::MAX), WAIT_MS_MAX);
}

#[test]
fn enqueueing_twice_is_once() {
    let mut machine = with(&[archive(1)]);
    let check = |machine: &mut Machine, expected| {
        let (found, touched) = machine.enqueue(NOW + 1, &[archive(1)]).unwrap();
        assert_eq!((found, touched), (vec![Enqueued::Known(expected)], vec![]));
    };
    check(&mut machine, StateName::Ready);
    let id = machine.claim(NOW, &limits(1, 0)).unwrap().id;
    check(&mut machine, StateName::Running);
    machine.fail(&id, NOW, Failure::Permanent, "no", 0).unwrap();
    check(&mut machine, StateName::Parked);
    machine.retry(&id, NOW).unwrap();
    machine.claim(NOW, &limits(1, 0)).unwrap();
    machine.complete(&id, NOW).unwrap();
    check(&mut machine, StateName::Done);
    assert_eq!(machine.jobs().count(), 1);
}

#[test]
fn twice_in_one_call_is_once() {
    let (found, touched) = machine(RetryPolicy::PATIENT).enqueue(NOW, &[archive(1), archive(1)]).unwrap();
    assert_eq!(found, [Enqueued::New, Enqueued::Known(StateName::Ready)]);
    assert_eq!(touched.len(), 1);
}

#[test]
fn no_more_of_a_kind_run_than_allowed() {
    let jobs: Vec<_> = (0..9).map(archive).chain((0..9).map(|n| job(&JobKind::UPLOAD, n))).collect();
    let mut machine = with(&jobs);
    let mut claims = |limits| std::iter::from_fn(|| machine.claim(NOW, &limits)).count();
    assert_eq!(claims(limits(2, 0)), 2);
    assert_eq!(claims(limits(2, 3)), 3);
    assert_eq!(claims(limits(2, 3)), 0);
    assert_eq!(claims(limits(4, 3)), 2);
    let id = archive(0).id();
    machine.complete(&id, NOW).unwrap();
    assert!(machine.claim(NOW, &limits(4, 3)).is_some());
    assert!(machine.claim(NOW, &limits(4, 3)).is_none());
    assert!(machine.claim(NOW, &[(JobKind::NOTIFY, 9)].into()).is_none());
}

#[test]
fn the_smallest_priority_goes_first_then_the_longest_due() {
    let urgent = NewJob { priority: 1, ..job(&JobKind::UPLOAD, 7) };
    let early = NewJob { not_before_unix_ms: Some(NOW - 5), ..archive(8) };
    let later = NewJob { not_before_unix_ms: Some(NOW + 5), priority: 0, ..archive(9) };
    let mut machine = with(&[archive(1), early.clone(), urgent.clone(), later.clone()]);
    let mut next = |now| machine.claim(now, &limits(9, 9)).map(|job| job.id);
    assert_eq!(next(NOW), Some(urgent.id()));
    assert_eq!(next(NOW), Some(early.id()));
    assert_eq!(next(NOW + 5), Some(later.id()));
    assert_eq!(next(NOW + 5), Some(archive(1).id()));
    assert_eq!(next(NOW + 5), None);
}

#[test]
fn a_failure_waits_or_parks() {
    let policy = RetryPolicy { base_ms: 1000, cap_ms: 8000, attempts_max: Some(3), age_ms_max: None };
    let mut machine = machine(policy);
    machine.enqueue(NOW, &[archive(1)]).unwrap();
    let id = archive(1).id();
    let mut check = |now, failure, expected| {
        assert_eq!(machine.claim(now, &limits(1, 0)).unwrap().id, id);
        let (next, touched) = machine.fail(&id, now, failure, "it broke", u64::MAX).unwrap();
        assert_eq!((next, touched), (expected, vec![id.clone()]));
        if let Next::Retry { at_unix_ms } = next {
            assert!(machine.claim(at_unix_ms - 1, &limits(1, 0)).is_none());
            assert_eq!(machine.next_due(&limits(1, 0)), Some(at_unix_ms));
        } else {
            assert!(machine.claim(u64::MAX, &limits(1, 0)).is_none());
            machine.retry(&id, now).unwrap();
        }
    };
    check(NOW, Failure::Transient, Next::Retry { at_unix_ms: NOW + 1000 });
    check(NOW + 1000, Failure::Transient, Next::Retry { at_unix_ms: NOW + 3000 });
    check(NOW + 3000, Failure::NotYet { wait_ms: 7 }, Next::Retry { at_unix_ms: NOW + 3007 });
    check(NOW + 4000, Failure::Transient, Next::Parked(ParkReason::Attempts));
    check(NOW + 4000, Failure::Permanent, Next::Parked(ParkReason::Permanent));
    check(NOW + 4000, Failure::Transient, Next::Retry { at_unix_ms: NOW + 5000 });
}

#[test]
fn an_old_job_that_keeps_failing_is_parked() {
    let mut machine = machine(RetryPolicy { base_ms: 0, age_ms_max: Some(1000), ..RetryPolicy::PATIENT });
    machine.enqueue(NOW, &[archive(1)]).unwrap();
    let mut fail = |now| {
        let id = machine.claim(now, &limits(1, 0)).unwrap().id;
        machine.fail(&id, now, Failure::Transient, "", 0).unwrap().0
    };
    for failure in 1..=5 {
        let next = fail(NOW + 5000);
        assert_eq!(next == Next::Parked(ParkReason::Age), failure == 5, "failure {failure}");
    }
}

#[test]
fn what_ran_when_the_process_ended_is_ready_again_and_slower_each_time() {
    let mut jobs = vec![archive(1)];
    jobs[0].payload = serde_json::json!({"a": 1});
    let mut machine = with(&jobs);
    for wait in [0, 2000, 4000, 8000] {
        let job = machine.claim(u64::MAX / 2, &limits(1, 0)).unwrap();
        let policies = RetryPolicies { default: RetryPolicy::PATIENT, kinds: [].into() };
        let (loaded, resumed, touched) = Machine::load(policies, [job.clone()], NOW);
        assert_eq!((resumed, touched), (1, vec![job.id.clone()]));
        assert_eq!(loaded.get(&job.id).unwrap().state, State::Ready { at_unix_ms: NOW + wait });
        assert_eq!(loaded.get(&job.id).unwrap().payload, jobs[0].payload);
        machine = loaded;
    }
}

#[test]
fn a_clock_that_is_set_back_does_not_prolong_waits() {
    let mut machine = machine(RetryPolicy { base_ms: 10_000, ..RetryPolicy::PATIENT });
    machine.enqueue(NOW, &[archive(1)]).unwrap();
    let id = machine.claim(NOW, &limits(1, 0)).unwrap().id;
    machine.fail(&id, NOW, Failure::Transient, "", u64::MAX).unwrap();
    let year = 365 * 24 * 3600 * 1000;
    assert!(machine.claim(NOW - year, &limits(1, 0)).is_none());
    assert_eq!(machine.next_due(&limits(1, 0)), Some(NOW - year + 10_000));
    assert!(machine.claim(NOW - year + 10_000, &limits(1, 0)).is_some());
}

#[test]
fn only_a_running_job_ends_and_only_one_that_does_not_run_is_driven() {
    let mut machine = with(&[archive(1)]);
    let id = archive(1).id();
    let wrong = |result: Result<Vec<JobId>, QueueError>, is| {
        assert!(matches!(result, Err(QueueError::WrongState { state, .. }) if state == is));
    };
    wrong(machine.complete(&id, NOW), StateName::Ready);
    machine.claim(NOW, &limits(1, 0)).unwrap();
    wrong(machine.retry(&id, NOW), StateName::Running);
    wrong(machine.park(&id, NOW), StateName::Running);
    wrong(machine.forget(&id), StateName::Running);
    machine.complete(&id, NOW).unwrap();
    wrong(machine.complete(&id, NOW), StateName::Done);
    wrong(machine.park(&id, NOW), StateName::Done);
    machine.forget(&id).unwrap();
    assert!(machine.forget(&id).unwrap().is_empty());
    assert!(matches!(machine.retry(&id, NOW), Err(QueueError::Unknown(_))));
}

#[test]
fn limits_have_their_behaviour() {
    let mut machine = machine(RetryPolicy::PATIENT);
    let big = NewJob { payload: "x".repeat(5000).into(), ..archive(1) };
    let refused = machine.enqueue(NOW, &[archive(2), big]);
    assert!(matches!(refused, Err(QueueError::TooLarge { bytes: 5002, .. })));
    assert_eq!(machine.jobs().count(), 0, "all or none");
    let many: Vec<_> = (0..JOBS_MAX as u128).map(archive).collect();
    machine.enqueue(NOW, &many).unwrap();
    assert!(matches!(machine.enqueue(NOW, &[archive(u128::MAX)]), Err(QueueError::Full(JOBS_MAX))));
    machine.enqueue(NOW, &[archive(3)]).unwrap();
    let id = machine.claim(NOW, &limits(1, 0)).unwrap().id;
    machine.complete(&id, NOW).unwrap();
    machine.enqueue(NOW, &[archive(u128::MAX)]).unwrap();
}

#[test]
fn old_done_jobs_are_forgotten() {
    let mut machine = machine(RetryPolicy::PATIENT);
    for n in 0..1003 {
        machine.enqueue(NOW, &[archive(n)]).unwrap();
        machine.claim(NOW, &limits(1, 0)).unwrap();
        let touched = machine.complete(&archive(n).id(), NOW + n as u64).unwrap();
        assert_eq!(touched.len(), if n < 1000 { 1 } else { 2 }, "after {n}");
    }
    let done = machine.list(&Filter { state: Some(StateName::Done), ..Filter::default() });
    assert_eq!(done.len(), 1000);
    assert_eq!(done[0].id, archive(1002).id());
    assert!(machine.get(&archive(2).id()).is_none());
}

#[test]
fn errors_are_cut_between_characters() {
    let mut machine = with(&[archive(1)]);
    let id = machine.claim(NOW, &limits(1, 0)).unwrap().id;
    machine.fail(&id, NOW, Failure::Permanent, &"ä€".repeat(300), 0).unwrap();
    let kept = machine.get(&id).unwrap().last_error.clone().unwrap();
    assert!((496..=500).contains(&kept.len()), "{}", kept.len());
}

#[test]
fn ids_and_kinds_are_checked() {
    let check = |text: &str, good| {
        assert_eq!(text.parse::<JobId>().is_ok(), good, "{text:?}");
    };
    check("archive:018f0000-0000-7000-8000-000000000001", true);
    check("later-kind:018f0000-0000-7000-8000-000000000001", true);
    check("Archive:018f0000-0000-7000-8000-000000000001", false);
    check(":018f0000-0000-7000-8000-000000000001", false);
    check("archive", false);
    check("archive:1", false);
    check("", false);
    assert_eq!(JobKind::new("archive").unwrap(), JobKind::ARCHIVE);
    assert!(JobKind::new(&"x".repeat(33)).is_err());
    let loose: JobId = "archive:018F00000000700080000000000000AA".parse().unwrap();
    assert_eq!(loose.as_str(), "archive:018f0000-0000-7000-8000-0000000000aa");
    let uuid = Uuid::try_parse("018f0000-0000-7000-8000-0000000000aa").unwrap();
    assert_eq!(loose, JobId::new(&JobKind::ARCHIVE, uuid));
}

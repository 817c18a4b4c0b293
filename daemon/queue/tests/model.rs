//! The queue, restarts and failing syncs included, against a model that is a plain list.
#![allow(clippy::unwrap_used)]

mod sut;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use callvault_queue::{Failure, Filter, JobId, NewJob, Queue, RetryPolicies, RetryPolicy, Settings, StateName};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use sut::{NOW, TestDevice, archive, limits};

#[derive(Debug, Clone)]
enum Step {
    Enqueue(u8, u8),
    Claim,
    Complete(u8),
    Fail(u8, bool),
    Park(u8),
    Retry(u8),
    Forget(u8),
    Wait(u16),
    Restart,
    Reopen,
    Compact,
    FailNextSync,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::{Claim, Compact, Complete, Enqueue, Fail, FailNextSync, Forget, Park, Reopen, Restart, Retry, Wait};
    let id = 0..6_u8;
    prop_oneof![
        4 => (id.clone(), 0..3_u8).prop_map(|(id, priority)| Enqueue(id, priority)),
        5 => Just(Claim),
        3 => id.clone().prop_map(Complete),
        3 => (id.clone(), any::<bool>()).prop_map(|(id, permanent)| Fail(id, permanent)),
        1 => id.clone().prop_map(Park),
        1 => id.clone().prop_map(Retry),
        1 => id.prop_map(Forget),
        2 => any::<u16>().prop_map(Wait),
        1 => Just(Restart),
        1 => Just(Reopen),
        1 => Just(Compact),
        1 => Just(FailNextSync),
    ]
}

/// A job of the model: state, priority, due at, runs before.
type Model = BTreeMap<JobId, (StateName, u8, u64)>;

const POLICY: RetryPolicy = RetryPolicy { base_ms: 1000, cap_ms: 1000, attempts_max: None, age_ms_max: None };
const RUNNING_MAX: usize = 2;

fn settings(device: &Arc<TestDevice>) -> Settings {
    let retry = RetryPolicies { default: POLICY, kinds: [].into() };
    Settings { retry, device: device.clone() }
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (dir, device) = (tempfile::tempdir().unwrap(), Arc::new(TestDevice::default()));
    let mut queue = Queue::open(dir.path(), settings(&device), NOW).unwrap().0;
    let (mut model, mut now) = (Model::new(), NOW);
    let id = |n: u8| archive(n.into()).id();
    let is = |model: &Model, n: u8, states: &[StateName]| model.get(&id(n)).is_some_and(|job| states.contains(&job.0));
    for step in steps {
        match step.clone() {
            Step::Enqueue(n, priority) => {
                queue.enqueue(now, &[NewJob { priority, ..archive(n.into()) }]).unwrap();
                model.entry(id(n)).or_insert((StateName::Ready, priority, now));
            }
            Step::Claim => {
                let running = model.values().filter(|job| job.0 == StateName::Running).count();
                let due = model.iter().filter(|(_, job)| job.0 == StateName::Ready && job.2 <= now);
                let first = due.map(|(id, job)| (job.1, job.2, id.clone())).min();
                let expected = first.filter(|_| running < RUNNING_MAX).map(|(_, _, id)| id);
                let claimed = queue.claim(now, &limits(RUNNING_MAX, 0)).unwrap().map(|job| job.id);
                prop_assert_eq!(&claimed, &expected);
                if let Some(id) = claimed {
                    model.get_mut(&id).unwrap().0 = StateName::Running;
                }
            }
            Step::Complete(n) => {
                let allowed = is(&model, n, &[StateName::Running]);
                prop_assert_eq!(queue.complete(&id(n), now).is_ok(), allowed);
                if allowed {
                    model.get_mut(&id(n)).unwrap().0 = StateName::Done;
                }
            }
            Step::Fail(n, permanent) => {
                let allowed = is(&model, n, &[StateName::Running]);
                let failure = if permanent { Failure::Permanent } else { Failure::Transient };
                let result = queue.fail(&id(n), now, failure, "why", u64::MAX);
                prop_assert_eq!(result.is_ok(), allowed);
                if allowed {
                    let job = model.get_mut(&id(n)).unwrap();
                    (job.0, job.2) = if permanent { (StateName::Parked, 0) } else { (StateName::Ready, now + 1000) };
                }
            }
            Step::Park(n) => {
                let allowed = is(&model, n, &[StateName::Ready, StateName::Parked]);
                prop_assert_eq!(queue.park(&id(n), now).is_ok(), allowed);
                if allowed {
                    model.get_mut(&id(n)).unwrap().0 = StateName::Parked;
                }
            }
            Step::Retry(n) => {
                let allowed = is(&model, n, &[StateName::Ready, StateName::Parked, StateName::Done]);
                prop_assert_eq!(queue.retry(&id(n), now).is_ok(), allowed);
                if allowed {
                    let job = model.get_mut(&id(n)).unwrap();
                    (job.0, job.2) = (StateName::Ready, now);
                }
            }
            Step::Forget(n) => {
                let running = is(&model, n, &[StateName::Running]);
                prop_assert_eq!(queue.forget(&id(n)).is_err(), running);
                if !running {
                    model.remove(&id(n));
                }
            }
            Step::Wait(ms) => now += u64::from(ms),
            Step::Restart => {
                drop(queue);
                queue = Queue::open(dir.path(), settings(&device), now).unwrap().0;
                // an interrupted job is due again, how soon depends on how often that happened
                for (id, job) in model.iter_mut().filter(|(_, job)| job.0 == StateName::Running) {
                    job.0 = StateName::Ready;
                    let callvault_queue::State::Ready { at_unix_ms } = queue.get(id).unwrap().state else {
                        return Err(TestCaseError::fail("an interrupted job is not ready"));
                    };
                    prop_assert!((now..=now + POLICY.cap_ms).contains(&at_unix_ms));
                    job.2 = at_unix_ms;
                }
            }
            Step::Reopen => drop(queue.reopen(now).unwrap()),
            Step::Compact => drop(queue.compact().unwrap()),
            Step::FailNextSync => {
                // nothing is changed by a park of what does not exist; a forget of it waits for a sync, which fails
                device.failing.store(true, SeqCst);
                prop_assert!(queue.forget(&archive(99).id()).is_err());
                device.failing.store(false, SeqCst);
                prop_assert!(queue.claim(now, &limits(RUNNING_MAX, 0)).is_err());
                queue.reopen(now).unwrap();
            }
        }
        let real: BTreeMap<_, _> =
            queue.list(&Filter::default()).into_iter().map(|job| (job.id, job.state.name())).collect();
        let modelled: BTreeMap<_, _> = model.iter().map(|(id, job)| (id.clone(), job.0)).collect();
        prop_assert_eq!(real, modelled, "after {:?}", step);
    }
    Ok(())
}

/// Seeds that failed are kept beside this file.
fn kept(cases: u32) -> ProptestConfig {
    let file = FileFailurePersistence::Direct("tests/model.proptest-regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(file)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept(24))]
    #[test]
    fn the_queue_does_what_the_list_does(steps in prop::collection::vec(step(), 1..60)) {
        run(steps)?;
    }
}

//! What the disk has when a call returns.
#![allow(clippy::unwrap_used)]

mod sut;

use std::{
    fs,
    sync::{Arc, Barrier, atomic::Ordering::SeqCst},
    thread,
};

use callvault_queue::{Enqueued, Failure, Filter, JobKind, NewJob, Queue, QueueError, Settings, State, StateName};
use sut::{NOW, archive, job, limits, open, with_device};

#[test]
fn what_is_acknowledged_was_synced_with_its_bytes() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (queue, device) = with_device(dir.path());
    *device.picture.lock().unwrap() = Some((dir.path().to_owned(), copy.path().to_owned()));
    // each change returns only after a picture that has it
    let check = |change: &dyn Fn(), state: Option<StateName>| {
        change();
        let found = open(copy.path()).get(&archive(1).id()).map(|job| job.state.name());
        assert_eq!(found, state);
    };
    let id = archive(1).id();
    check(&|| drop(queue.enqueue(NOW, &[archive(1)]).unwrap()), Some(StateName::Ready));
    check(&|| queue.park(&id, NOW).unwrap(), Some(StateName::Parked));
    check(&|| queue.retry(&id, NOW).unwrap(), Some(StateName::Ready));
    queue.claim(NOW, &limits(1, 0)).unwrap().unwrap();
    check(&|| assert!(queue.fail(&id, NOW, Failure::Permanent, "no", 0).is_ok()), Some(StateName::Parked));
    queue.retry(&id, NOW).unwrap();
    queue.claim(NOW, &limits(1, 0)).unwrap().unwrap();
    check(&|| queue.complete(&id, NOW).unwrap(), Some(StateName::Done));
    check(&|| queue.forget(&id).unwrap(), None);
}

#[test]
fn a_large_job_reaches_the_device_too() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (queue, device) = with_device(dir.path());
    *device.picture.lock().unwrap() = Some((dir.path().to_owned(), copy.path().to_owned()));
    let jobs: Vec<_> = (0..300).map(|n| NewJob { payload: "x".repeat(4000).into(), ..archive(n) }).collect();
    queue.enqueue(NOW, &jobs).unwrap();
    assert_eq!(open(copy.path()).list(&Filter::default()).len(), 300);
    // every file that a picture needs was itself synced
    let synced = device.paths.lock().unwrap().clone();
    for blob in fs::read_dir(dir.path().join("jobs-1/blobs")).unwrap() {
        let path = blob.unwrap().path();
        assert!(synced.contains(&path), "{}", path.display());
    }
}

#[test]
fn opening_syncs_the_files_and_the_folders() {
    let dir = tempfile::tempdir().unwrap();
    let (_queue, device) = with_device(dir.path());
    let synced = device.paths.lock().unwrap().clone();
    for name in ["", "jobs-1", "jobs-1/db", "jobs-1/conf", "jobs-1/blobs", "current.new"] {
        let path = dir.path().join(name);
        assert!(synced.contains(&path), "{name:?} in {synced:?}");
    }
}

#[test]
fn callers_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, device) = with_device(dir.path());
    let (queue, start) = (Arc::new(queue), Arc::new(Barrier::new(17)));
    let before = device.db_syncs.load(SeqCst);
    // while the gate is shut the first caller hangs in its sync; all others gather in the next batch
    let gate = device.gate.lock().unwrap();
    let callers: Vec<_> = (0..16)
        .map(|n| {
            let (queue, start) = (queue.clone(), start.clone());
            thread::spawn(move || {
                start.wait();
                queue.enqueue(NOW, &[archive(n)]).unwrap()
            })
        })
        .collect();
    start.wait();
    while queue.list(&Filter::default()).len() < 16 {
        thread::yield_now();
    }
    drop(gate);
    for caller in callers {
        assert_eq!(caller.join().unwrap(), [Enqueued::New]);
    }
    // one for the first, one for the rest, one for a caller that was between the list and its batch
    let syncs = device.db_syncs.load(SeqCst) - before;
    assert!((1..=3).contains(&syncs), "{syncs} syncs for 16 callers");
}

#[test]
fn a_failed_sync_acknowledges_nothing_until_the_queue_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, device) = with_device(dir.path());
    queue.enqueue(NOW, &[archive(1), archive(2)]).unwrap();
    let running = queue.claim(NOW, &limits(1, 0)).unwrap().unwrap();
    device.failing.store(true, SeqCst);
    assert!(queue.enqueue(NOW, &[archive(3)]).is_err());
    device.failing.store(false, SeqCst);
    let broken = |result: Result<(), QueueError>| assert!(matches!(result, Err(QueueError::Broken(_))));
    broken(queue.enqueue(NOW, &[archive(4)]).map(drop));
    broken(queue.complete(&running.id, NOW));
    broken(queue.claim(NOW, &limits(9, 9)).map(drop));
    broken(queue.compact().map(drop));
    assert!(queue.broken().unwrap().contains("the test says so"));

    device.failing.store(true, SeqCst);
    assert!(queue.reopen(NOW).is_err());
    broken(queue.enqueue(NOW, &[archive(4)]).map(drop));
    device.failing.store(false, SeqCst);
    queue.reopen(NOW).unwrap();
    assert_eq!(queue.broken(), None);
    assert_eq!(queue.enqueue(NOW, &[archive(4)]).unwrap(), [Enqueued::New]);
    // what ran goes on running
    assert_eq!(queue.get(&running.id).unwrap(), running);
    queue.complete(&running.id, NOW).unwrap();
    drop(queue);
    assert_eq!(open(dir.path()).get(&running.id).unwrap().state.name(), StateName::Done);
}

#[test]
fn a_job_that_runs_while_the_queue_is_opened_again_is_interrupted_once() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    queue.enqueue(NOW, &[archive(1)]).unwrap();
    queue.claim(NOW, &limits(1, 0)).unwrap().unwrap();
    queue.reopen(NOW).unwrap();
    queue.reopen(NOW).unwrap();
    drop(queue);
    let (queue, report) = Queue::open(dir.path(), Settings::default(), NOW + 1).unwrap();
    let job = queue.get(&archive(1).id()).unwrap();
    assert_eq!((report.resumed, job.interruptions), (1, 1));
    assert_eq!(job.state, State::Ready { at_unix_ms: NOW + 1 });
}

#[test]
fn everyone_who_waits_for_a_failed_sync_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, device) = with_device(dir.path());
    let queue = Arc::new(queue);
    let gate = device.gate.lock().unwrap();
    let callers: Vec<_> = (0..8)
        .map(|n| {
            let queue = queue.clone();
            thread::spawn(move || queue.enqueue(NOW, &[archive(n)]).is_err())
        })
        .collect();
    while queue.list(&Filter::default()).len() < 8 {
        thread::yield_now();
    }
    device.failing.store(true, SeqCst);
    drop(gate);
    assert!(callers.into_iter().all(|caller| caller.join().unwrap()));
}

#[test]
fn jobs_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let full = NewJob {
        priority: 3,
        not_before_unix_ms: Some(NOW + 9),
        payload: serde_json::json!({"store": "local", "n": [1, null, "ä"]}),
        ..job(&JobKind::new("of-the-future").unwrap(), 2)
    };
    queue.enqueue(NOW, &[archive(1), full]).unwrap();
    queue.claim(NOW, &limits(1, 0)).unwrap().unwrap();
    queue.fail(&archive(1).id(), NOW, Failure::Permanent, "gone", 0).unwrap();
    let before = queue.list(&Filter::default());
    drop(queue);
    let (queue, report) = Queue::open(dir.path(), Settings::default(), NOW).unwrap();
    assert_eq!(queue.list(&Filter::default()), before);
    assert_eq!((report.jobs, report.resumed, report.missing), (2, 0, false));
    assert!(report.damaged.is_empty() && report.set_aside.is_empty());
}

#[test]
fn one_process_only() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let second = Queue::open(dir.path(), Settings::default(), NOW).unwrap_err();
    assert!(matches!(second, QueueError::Locked(_)));
    assert!(second.to_string().contains("another callvaultd uses"));
    drop(queue);
    open(dir.path());
}

#[test]
fn compaction_keeps_every_job_and_drops_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    for n in 0..200 {
        let payload = "x".repeat(3000).into();
        queue.enqueue(NOW, &[NewJob { payload, ..archive(n) }]).unwrap();
    }
    for n in 10..200 {
        queue.forget(&archive(n).id()).unwrap();
    }
    queue.claim(NOW, &limits(1, 0)).unwrap().unwrap();
    let (jobs, before) = (queue.list(&Filter::default()), queue.stats().unwrap());
    let after = queue.compact().unwrap();
    assert!(after.file_bytes < before.file_bytes, "{before:?} {after:?}");
    assert_eq!(after.live_bytes, before.live_bytes);
    assert_eq!(queue.list(&Filter::default()), jobs);
    assert!(!dir.path().join("jobs-1").exists());
    queue.enqueue(NOW, &[archive(900)]).unwrap();
    drop(queue);
    let queue = open(dir.path());
    assert_eq!(queue.list(&Filter::default()).len(), 11);
    assert_eq!(queue.get(&jobs[0].id).unwrap().state, State::Ready { at_unix_ms: NOW });
}

#[test]
fn a_compaction_that_was_cut_short_leaves_one_complete_folder() {
    // (what the cut left, the folder that must be in force)
    let check = |mess: &dyn Fn(&std::path::Path), expected: usize| {
        let dir = tempfile::tempdir().unwrap();
        let queue = open(dir.path());
        queue.enqueue(NOW, &[archive(1)]).unwrap();
        drop(queue);
        mess(dir.path());
        let queue = open(dir.path());
        assert_eq!(queue.list(&Filter::default()).len(), expected);
        let folders = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        assert_eq!(folders.filter(|name| name.starts_with("jobs-")).count(), 1);
    };
    check(&|dir| fs::create_dir(dir.join("jobs-2")).unwrap(), 1);
    check(&|dir| fs::write(dir.join("current.new"), "2").unwrap(), 1);
    check(&|dir| fs::rename(dir.join("jobs-1"), dir.join("jobs-7")).unwrap(), 0);
    check(&|dir| fs::remove_file(dir.join("current")).unwrap(), 0);
}

#[test]
fn a_folder_without_current_is_set_aside_not_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::remove_file(dir.path().join("current")).unwrap();
    let (_queue, report) = Queue::open(dir.path(), Settings::default(), NOW).unwrap();
    assert_eq!(report.set_aside, ["set-aside-1"]);
    assert!(dir.path().join("set-aside-1/db").exists());
}

#[test]
fn only_the_last_few_are_kept_of_what_was_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=10 {
        drop(open(dir.path()));
        fs::remove_file(dir.path().join("current")).unwrap();
        let (_queue, report) = Queue::open(dir.path(), Settings::default(), NOW).unwrap();
        assert_eq!(report.set_aside, [format!("set-aside-{number}")]);
    }
    let kept: Vec<u32> = (1..=10).filter(|number| dir.path().join(format!("set-aside-{number}")).exists()).collect();
    assert_eq!(kept, [3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn records_that_cannot_be_read_are_named() {
    let check = |value: &[u8], newer: bool| {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let db = sled::open(dir.path().join("jobs-1")).unwrap();
        db.insert(archive(1).id().as_str(), value).unwrap();
        db.flush().unwrap();
        drop(db);
        match Queue::open(dir.path(), Settings::default(), NOW) {
            Ok((_, report)) => {
                assert!(!newer);
                assert_eq!(report.damaged, [archive(1).id().as_str()]);
            }
            Err(error) => assert!(newer && matches!(error, QueueError::Newer { version: 2, .. })),
        }
    };
    check(b"\x02{}", true);
    check(b"", false);
    check(b"\x01", false);
    check(b"\x01{}", false);
    check(b"\x00{}", false);
}

//! The order in which work gives way, as threads and jobs have it: capture, answering, archives, exports.

use std::thread;

use callvault_control::Heartbeat;
use callvault_policy::overload::{Rank, Strain};
use callvault_queue::{JobKind, StateName};

use super::rig::{Generation, Rig, Running, both, pcmu};
use crate::ingest::{Ingest, unix_ms};
use crate::recorder::RecorderState;
use crate::warm::Warm;
use crate::{backlog, overload, workers};

/// A call of so many packets on each track, in the catalogue and not archived yet.
fn ingested(running: &Running, packets: u32) -> uuid::Uuid {
    let mut generation = Generation::begin(running);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    call.audio(&mut generation, &both(&pcmu(), packets));
    call.end(&mut generation);
    generation.finish();
    Ingest::new(&running.appliance).round();
    call.id
}

/// What is begun when the recorder shows this: archives of eight that are configured, and whether anything is given out.
fn check(change: impl FnOnce(&mut RecorderState), strain: Strain, archives: Option<usize>, exports: bool) {
    let rig = Rig::new("codec = \"as-received\"\n[render]\nparallel = 8");
    let running = rig.start();
    assert_eq!(overload::strain(&running.appliance), Strain::None);
    running.channels.state.send_modify(change);
    let limits = workers::limits(&running.appliance);
    assert_eq!(limits.get(&JobKind::ARCHIVE).copied(), archives);
    assert_eq!(limits.get(&JobKind::DELETE), Some(&1), "what makes room goes on");
    assert_eq!((overload::strain(&running.appliance), overload::may_export(&running.appliance)), (strain, exports));
}

#[test]
fn capture_goes_first_then_answering_then_archives_then_exports() {
    check(|_| (), Strain::None, Some(8), true);
    check(|state| state.heartbeat.transport.invites_too_fast = 1, Strain::Answering, Some(1), false);
    check(|state| state.heartbeat.dropped = 1, Strain::Capture, Some(0), false);
    check(|state| state.heartbeat.behind = true, Strain::Capture, Some(0), false);
    check(|state| state.deaths_total = 1, Strain::Capture, Some(0), false);
    // A recorder that is another one goes on counting where the last one ended.
    let replaced = |state: &mut RecorderState| state.before = Heartbeat { dropped: 3, ..Heartbeat::default() };
    check(replaced, Strain::Capture, Some(0), false);
}

#[test]
fn no_archive_is_begun_while_audio_is_lost_and_none_is_lost_by_that() {
    let rig = Rig::as_received();
    let running = rig.start();
    let id = ingested(&running, 100);
    assert_eq!(overload::strain(&running.appliance), Strain::None);
    running.channels.state.send_modify(|state| state.heartbeat.behind = true);
    assert_eq!(running.work(), 0, "an archive was made while capture was in trouble");
    let job = running.appliance.queue.get(&callvault_queue::JobId::new(&JobKind::ARCHIVE, id)).unwrap();
    assert_eq!((job.state.name(), job.attempts), (StateName::Ready, 0), "waiting is no attempt");
    // What was seen is forgotten as after a while.
    running.channels.state.send_modify(|state| state.heartbeat.behind = false);
    running.appliance.pressure.forget();
    assert_eq!(running.work(), 1);
    assert!(running.row(id).archive.place().is_some());
}

#[test]
fn what_waits_is_counted_in_hours_of_calls_and_gone_when_it_is_archived() {
    let rig = Rig::as_received();
    let running = rig.start();
    for _ in 0..3 {
        ingested(&running, 100);
    }
    let before = backlog::look(&running.appliance).unwrap();
    assert_eq!((before.backlog.recordings, before.backlog.duration_ms), (3, 6_000));
    assert_eq!(before.caught_up_in_s, None, "nothing is known of the speed yet");
    running.work();
    running.appliance.worked.forget_count();
    let after = backlog::look(&running.appliance).unwrap();
    assert_eq!((after.backlog.recordings, after.caught_up_in_s), (0, Some(0.0)));
}

#[test]
fn one_render_process_does_one_job_after_another_and_another_comes_after_an_error() {
    let rig = Rig::new("codec = \"opus\"");
    let running = rig.start();
    let mut warm = Warm::default();
    let mut archive = |running: &Running| {
        ingested(running, 50);
        let limits = workers::limits(&running.appliance);
        let job = running.appliance.queue.claim(unix_ms(), &limits).unwrap().unwrap();
        workers::work(&running.appliance, &mut warm, &job);
        warm.pid()
    };
    let first = archive(&running);
    assert!(first.is_some());
    assert_eq!(archive(&running), first, "a process is kept warm");
    let failed = warm.run(&running.appliance, std::time::Duration::from_secs(10), |_| {
        Err::<(), _>(callvault_render_protocol::RenderError::Malformed("for the test"))
    });
    assert!(failed.is_err() && warm.pid().is_none(), "a process is not used again after an error");
}

/// Niceness and I/O priority of the calling thread, as the kernel has them.
#[allow(unsafe_code)]
fn priorities() -> (i32, i64) {
    use nix::libc::{PRIO_PROCESS, SYS_ioprio_get, getpriority, syscall};
    // SAFETY: both take integers and touch no memory; 0 means the calling thread.
    unsafe { (getpriority(PRIO_PROCESS, 0), syscall(SYS_ioprio_get, 1, 0)) }
}

#[test]
fn a_thread_has_the_priority_of_its_rank_and_passes_it_on() {
    let (before, _) = priorities();
    let of = |rank| {
        thread::spawn(move || {
            overload::give_way(rank);
            (priorities(), thread::spawn(priorities).join().unwrap())
        })
    };
    for rank in [Rank::Archive, Rank::Exports] {
        let (own, inherited) = of(rank).join().unwrap();
        // Who runs with a lower priority already stays there.
        assert_eq!(own.0, rank.niceness().max(before));
        // The best-effort class, its last level.
        assert_eq!(own.1, 0x4007);
        assert_eq!(own, inherited);
    }
}

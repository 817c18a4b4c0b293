//! From the journal into the catalogue, the queue, the store, exactly once.

use callvault_catalogue::{ArchiveState, Deletion, Verdict};
use callvault_journal::LaneEnd;
use callvault_journal::facts::{CallFacts, SessionEvent, Started};
use callvault_queue::{JobId, JobKind, StateName};
use jiff::Timestamp;
use uuid::Uuid;

use super::rig::{Generation, Rig, Running, both, pcmu, whole_call};
use crate::ingest::Ingest;

type Step = fn(&mut Ingest<'_>, &Running);

/// Everything that happens to a recording, in its order.
const STEPS: [Step; 7] = [
    |ingest, _| ingest.look(),
    |ingest, _| ingest.take_in(),
    |ingest, _| ingest.settle(),
    |_, running| _ = running.work(),
    |ingest, _| ingest.look(),
    |ingest, _| ingest.remove_files(),
    |ingest, _| ingest.tidy(),
];

fn check_once(rig: &Rig, running: &Running, id: Uuid) {
    assert_eq!(running.recordings().len(), 1);
    let row = running.row(id);
    assert_eq!((row.verdict, row.archive.state), (Verdict::Ok, ArchiveState::Archived));
    assert_eq!(rig.stored().len(), 1);
    assert_eq!(rig.journal_files(), 0);
    assert!(running.appliance.catalogue.lanes_needed().unwrap().is_empty());
    assert!(running.appliance.catalogue.owed(10).unwrap().is_empty());
    let job = running.appliance.queue.get(&JobId::new(&JobKind::ARCHIVE, id)).unwrap();
    assert_eq!(job.state.name(), StateName::Done);
}

/// The daemon dies before step `at`, and again before it in the next life.
fn check_crash(at: usize) {
    let rig = Rig::as_received();
    let id = {
        let running = rig.start();
        let mut generation = Generation::begin(&running);
        let call = whole_call(&mut generation, &pcmu(), 100);
        generation.finish();
        call.id
    };
    for _ in 0..2 {
        let running = rig.start();
        let mut ingest = Ingest::new(&running.appliance);
        STEPS[..at].iter().for_each(|step| step(&mut ingest, &running));
    }
    let running = rig.start();
    running.settle();
    check_once(&rig, &running, id);
    // And doing everything again changes nothing.
    running.settle();
    check_once(&rig, &running, id);
}

#[test]
fn a_recording_is_there_once_whenever_the_daemon_dies() {
    (0..=STEPS.len()).for_each(check_crash);
}

#[test]
fn a_key_that_was_never_written_is_a_failed_recording_and_holds_no_space() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.audio(&mut generation, &both(&pcmu(), 50));
    generation.flush();
    running.settle();
    let row = running.row(call.id);
    assert_eq!((row.verdict, row.flaws[0].code.as_str()), (Verdict::Failed, "key-lost"));
    assert_eq!(rig.journal_files(), 0);
    drop(running);
    // The next start does not make a job of it either.
    let running = rig.start();
    running.settle();
    assert!(running.appliance.queue.list(&callvault_queue::Filter::default()).is_empty());
}

#[test]
fn a_discarded_session_has_a_row_and_nothing_else() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let mut call = generation.call(&[pcmu()]);
    call.audio(&mut generation, &both(&pcmu(), 50));
    generation.writer.end_lane(call.lane, LaneEnd::Discarded, &[]).unwrap();
    generation.flush();
    generation.finish();
    running.settle();
    assert_eq!(running.row(call.id).verdict, Verdict::Discarded);
    assert_eq!((rig.journal_files(), rig.stored().len()), (0, 0));
}

#[test]
fn a_row_says_by_which_rule_it_was_not_kept_and_that_is_counted() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let call = generation.call(&[pcmu()]);
    generation.writer.discard_lane(call.lane, "on-demand-not-kept").unwrap();
    generation.flush();
    generation.finish();
    running.settle();
    let row = running.row(call.id);
    assert_eq!(row.verdict, Verdict::Discarded);
    assert_eq!(row.flaws[0].text, "the recording was not kept, by the rule on-demand-not-kept");
    let [discarded, reasons, _] = running.appliance.metrics.names();
    assert_eq!(discarded, [("on-demand-not-kept".to_owned(), 1)]);
    assert!(reasons.is_empty());
}

#[test]
fn recordings_of_one_call_are_linked_also_where_one_was_not_kept() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let tracked = |id: &str| {
        let tracking_id = Some(id.to_owned());
        SessionEvent::Call(Box::new(CallFacts { tracking_id, ..CallFacts::default() }))
    };
    let first = generation.call(&[pcmu()]);
    let mut calls = vec![first.id];
    generation.writer.discard_lane(first.lane, "r").unwrap();
    let events = [
        SessionEvent::Started(Started { follows: Some(first.id), ..Started::default() }),
        tracked("a"),
        tracked("a"),
        tracked("b"),
    ];
    for event in events {
        let mut call = generation.call(&[pcmu()]);
        call.keep(&mut generation);
        call.fact(&mut generation, &event);
        call.end(&mut generation);
        calls.push(call.id);
    }
    generation.finish();
    running.settle();
    let linked: Vec<_> = calls.iter().map(|id| running.row(*id).linked).collect();
    assert_eq!(linked, [vec![calls[1]], vec![calls[0]], vec![calls[3]], vec![calls[2]], vec![]]);
}

#[test]
fn a_recorder_that_died_leaves_a_degraded_recording() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    call.audio(&mut generation, &both(&pcmu(), 50));
    generation.flush();
    running.settle();
    let row = running.row(call.id);
    assert_eq!(row.verdict, Verdict::Degraded);
    assert!(row.flaws.iter().any(|f| f.code == "recorder-restarted"), "{:?}", row.flaws);
    assert_eq!(row.tracks.iter().map(|t| t.packets).collect::<Vec<_>>(), [50, 50]);
    assert_eq!(row.archive.state, ArchiveState::Archived);
}

/// A recorder dies in the middle of a call of 100 packets, the next goes on after so many of them were lost.
fn check_gone_on_with(kept_before: bool, missing: usize) {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut first = Generation::begin(&running);
    let mut call = first.call(&[pcmu(), pcmu()]);
    if kept_before {
        call.keep(&mut first);
    }
    let audio = both(&pcmu(), 100);
    call.audio(&mut first, &audio[..100]);
    first.flush();
    let mut second = Generation::begin(&running);
    let mut later = second.go_on(&call, !kept_before, true);
    second.flush();
    running.channels.state.send_modify(|s| (s.generation, s.ready) = (Some(second.id()), Some(second.id())));
    let mut ingest = Ingest::new(&running.appliance);
    ingest.round();
    assert!(running.recordings().is_empty(), "it goes on");
    later.audio(&mut second, &audio[100 + missing * 2..]);
    later.end(&mut second);
    running.channels.state.send_modify(|s| s.generation = None);
    running.settle();
    check_once_but_for_loss(&running, &later, missing);
    // Nothing of it is entered again.
    running.settle();
    assert_eq!((running.recordings().len(), rig.stored().len()), (1, 1));
}

fn check_once_but_for_loss(running: &Running, call: &super::rig::Call, missing: usize) {
    let row = running.row(call.id);
    assert_eq!(row.tracks.iter().map(|t| t.packets as usize).collect::<Vec<_>>(), [100 - missing; 2]);
    let text = &row.flaws.iter().find(|f| f.code == "recorder-restarted").unwrap().text;
    assert!(text.contains("which went on"), "{text}");
    assert_eq!(text.contains(&format!("{} ms of track 0 are missing", missing * 20)), missing > 0, "{text}");
    // Everything is where it would be without the restart.
    let archived = running.archived(call.id);
    let positions: Vec<u64> = archived.iter().filter(|(track, ..)| *track == 0).map(|(_, _, at, _)| *at).collect();
    let whole = (0..100).filter(|n| !(50..50 + missing).contains(n));
    assert_eq!(positions, whole.map(|n| n as u64 * 960).collect::<Vec<_>>());
}

#[test]
fn a_recording_that_went_on_is_one_with_all_its_parts() {
    check_gone_on_with(true, 0);
    check_gone_on_with(true, 10);
    check_gone_on_with(false, 5);
}

#[test]
fn what_was_cut_off_waits_for_a_recorder_that_may_go_on_with_it() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    call.audio(&mut generation, &both(&pcmu(), 50));
    generation.flush();
    let set = |ready: Option<Uuid>, resumed: &[Uuid]| {
        running.channels.state.send_modify(|s| (s.ready, s.resumed) = (ready, resumed.iter().copied().collect()));
    };
    let check = |ready, resumed: &[Uuid], entered| {
        set(ready, resumed);
        Ingest::new(&running.appliance).round();
        assert_eq!(running.recordings().len(), entered, "{ready:?} {resumed:?}");
    };
    check(None, &[], 0);
    check(Some(generation.id()), &[], 0);
    check(Some(Uuid::now_v7()), &[call.id], 0);
    check(Some(Uuid::now_v7()), &[], 1);
    assert_eq!(running.row(call.id).verdict, Verdict::Degraded);
}

#[test]
fn a_part_whose_key_is_lost_leaves_the_rest() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut first = Generation::begin(&running);
    let mut call = first.call(&[pcmu(), pcmu()]);
    let audio = both(&pcmu(), 100);
    call.audio(&mut first, &audio[..100]);
    first.flush();
    let mut second = Generation::begin(&running);
    let mut later = second.go_on(&call, false, false);
    later.audio(&mut second, &audio[100..]);
    later.end(&mut second);
    running.settle();
    let row = running.row(call.id);
    assert_eq!((row.verdict, row.archive.state), (Verdict::Degraded, ArchiveState::Archived));
    assert!(row.flaws.iter().any(|f| f.code == "key-lost-in-part"), "{:?}", row.flaws);
    assert_eq!(row.tracks[0].packets, 50);
}

#[test]
fn a_session_that_lives_is_left_alone() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    running.channels.state.send_modify(|s| s.generation = Some(generation.id()));
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    let audio = both(&pcmu(), 100);
    call.audio(&mut generation, &audio[..100]);
    generation.flush();
    let mut ingest = Ingest::new(&running.appliance);
    ingest.round();
    assert!(running.recordings().is_empty());
    call.audio(&mut generation, &audio[100..]);
    call.end(&mut generation);
    ingest.round();
    let row = running.row(call.id);
    assert_eq!((row.verdict, row.tracks[1].packets), (Verdict::Ok, 100));
}

#[test]
fn a_file_stays_as_long_as_a_recording_in_it_needs_it() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    running.channels.state.send_modify(|s| s.generation = Some(generation.id()));
    let mut long = generation.call(&[pcmu(), pcmu()]);
    long.keep(&mut generation);
    let audio = both(&pcmu(), 100);
    long.audio(&mut generation, &audio[..100]);
    let short = whole_call(&mut generation, &pcmu(), 20);
    generation.flush();
    generation.rotate();
    let other = whole_call(&mut generation, &pcmu(), 20);
    generation.flush();
    running.settle();
    for call in [&short, &other] {
        assert_eq!(running.row(call.id).archive.state, ArchiveState::Archived);
    }
    // The long call needs the first file, and the second is being written.
    assert_eq!(rig.journal_files(), 2);
    long.audio(&mut generation, &audio[100..]);
    long.end(&mut generation);
    generation.flush();
    generation.rotate();
    generation.flush();
    running.settle();
    assert_eq!(running.row(long.id).archive.state, ArchiveState::Archived);
    assert_eq!(rig.journal_files(), 1);
    assert!(running.appliance.catalogue.ingested_lanes(generation.id()).unwrap().is_empty());
}

#[test]
fn what_is_not_understood_is_not_thrown_away() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    whole_call(&mut generation, &pcmu(), 20);
    generation.finish();
    // A file of another version of the format.
    let path = std::fs::read_dir(rig.path("data/journal")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32c(&bytes[..76]);
    bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    running.settle();
    running.settle();
    assert!(path.exists());
    assert!(running.appliance.notes.get("ingest").is_some_and(|text| text.contains("failed to follow the journal")));
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[test]
fn a_job_that_comes_before_the_journal_was_read_waits() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let call = whole_call(&mut generation, &pcmu(), 20);
    generation.finish();
    Ingest::new(&running.appliance).round();
    drop(running);
    let running = rig.start();
    // The job is ready, the index is empty.
    assert_eq!(running.work(), 1);
    let job = running.appliance.queue.get(&JobId::new(&JobKind::ARCHIVE, call.id)).unwrap();
    assert_eq!((job.state.name(), job.failures), (StateName::Ready, 0));
    assert_eq!(running.row(call.id).archive.error, None);
}

#[test]
fn a_store_that_is_away_costs_nothing_but_time() {
    let rig = Rig::as_received();
    let running = rig.start();
    running.appliance.store.check().unwrap();
    std::fs::rename(rig.path("data/store"), rig.path("unmounted")).unwrap();
    let mut generation = Generation::begin(&running);
    let call = whole_call(&mut generation, &pcmu(), 20);
    generation.finish();
    running.settle();
    assert_eq!(running.row(call.id).archive.state, ArchiveState::Journal);
    let id = JobId::new(&JobKind::ARCHIVE, call.id);
    let job = running.appliance.queue.get(&id).unwrap();
    assert_eq!((job.state.name(), job.failures), (StateName::Ready, 0));
    std::fs::rename(rig.path("unmounted"), rig.path("data/store")).unwrap();
    // It is not even tried again before a look has found the store.
    running.appliance.queue.retry(&id, crate::ingest::unix_ms()).unwrap();
    assert_eq!(running.work(), 0);
    assert!(running.appliance.store.look(), "it is back");
    running.settle();
    check_once(&rig, &running, call.id);
}

/// A recording is deleted after some of the steps; nothing of it stays.
fn check_deleted(after: usize) {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let call = whole_call(&mut generation, &pcmu(), 20);
    generation.finish();
    let mut ingest = Ingest::new(&running.appliance);
    STEPS[..after].iter().for_each(|step| step(&mut ingest, &running));
    let deleted = running.appliance.catalogue.delete(call.id, Timestamp::now(), "by a test").unwrap();
    assert!(matches!(deleted, Deletion::Deleted { .. }));
    running.appliance.journals.lock().release(call.id);
    running.settle();
    assert_eq!((rig.stored().len(), rig.journal_files(), running.recordings().len()), (0, 0, 0), "after {after}");
    drop(ingest);
    drop(running);
    let running = rig.start();
    running.settle();
    assert!(running.recordings().is_empty());
}

#[test]
fn what_is_deleted_leaves_nothing_and_does_not_come_back() {
    (2..=STEPS.len()).for_each(check_deleted);
}

#[test]
fn what_an_attempt_left_of_a_deleted_recording_is_removed() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let call = whole_call(&mut generation, &pcmu(), 20);
    generation.finish();
    running.settle();
    let archive = rig.stored().remove(0);
    let left = std::fs::read(&archive).unwrap();
    running.appliance.catalogue.delete(call.id, Timestamp::now(), "by a test").unwrap();
    running.settle();
    assert!(rig.stored().is_empty());
    // As if the daemon had died between the renaming and the catalogue, and the deletion had come before the next start.
    std::fs::write(&archive, left).unwrap();
    let name = archive.file_name().unwrap().to_str().unwrap();
    std::fs::write(archive.with_file_name(format!(".{name}.tmp")), b"half").unwrap();
    let job = JobId::new(&JobKind::ARCHIVE, call.id);
    running.appliance.queue.retry(&job, crate::ingest::unix_ms()).unwrap();
    running.work();
    assert!(rig.stored().is_empty());
}

/// What the queue has lost, or thinks to have done, is found again from the catalogue.
fn check_owed_again(lose: fn(&Running, &JobId)) {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let call = whole_call(&mut generation, &pcmu(), 20);
    generation.finish();
    Ingest::new(&running.appliance).round();
    lose(&running, &JobId::new(&JobKind::ARCHIVE, call.id));
    drop(running);
    let running = rig.start();
    running.settle();
    check_once(&rig, &running, call.id);
}

#[test]
fn whatever_has_no_archive_has_a_job() {
    check_owed_again(|running, job| running.appliance.queue.forget(job).unwrap());
    check_owed_again(|running, job| {
        let now = crate::ingest::unix_ms();
        running.appliance.queue.claim(now, &crate::workers::limits(&running.appliance)).unwrap().unwrap();
        running.appliance.queue.complete(job, now).unwrap();
    });
}

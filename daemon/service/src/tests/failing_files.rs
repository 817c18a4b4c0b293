//! Journal files that fail, and deletions and queues that fail with them: what is promised is on the device, and done in the end.

use callvault_catalogue::ArchiveState;
use callvault_queue::{Filter, JobId, JobKind, StateName};
use jiff::Timestamp;

use super::rig::{Generation, Rig, Running, both, pcmu, whole_call};
use crate::ingest::Ingest;

fn live(running: &Running, generation: &Generation) {
    running.channels.state.send_modify(|s| (s.generation, s.ready) = (Some(generation.id()), Some(generation.id())));
}

#[test]
fn a_row_waits_for_the_word_that_the_end_is_on_the_device() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    live(&running, &generation);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    call.audio(&mut generation, &both(&pcmu(), 50));
    call.end_unsynced(&mut generation);
    generation.write();
    let mut ingest = Ingest::new(&running.appliance);
    ingest.round();
    assert!(running.recordings().is_empty(), "only the page cache is known to have it");
    generation.flush();
    ingest.round();
    assert_eq!(running.recordings().len(), 1);
}

#[test]
fn a_row_whose_file_was_closed_in_order_waits_for_nothing() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    live(&running, &generation);
    let mut call = generation.call(&[pcmu(), pcmu()]);
    call.keep(&mut generation);
    call.end_unsynced(&mut generation);
    generation.write();
    generation.rotate();
    let mut ingest = Ingest::new(&running.appliance);
    ingest.round();
    assert!(running.recordings().is_empty(), "the next file is made when this one is durable");
    generation.write();
    ingest.round();
    assert_eq!(running.recordings().len(), 1);
}

/// The file fails after the session ended and its recording was archived, and all of it is written again, the word that it is durable or
/// not.
fn check_written_again(first_file_gone: bool) {
    let rig = Rig::as_received();
    let id = {
        let running = rig.start();
        let mut generation = Generation::begin(&running);
        live(&running, &generation);
        let mut call = generation.call(&[pcmu(), pcmu()]);
        call.keep(&mut generation);
        call.audio(&mut generation, &both(&pcmu(), 50));
        call.end_unsynced(&mut generation);
        generation.writer.commit(generation.writer.last_seq(), generation.wall_ns, 0);
        let batch = generation.write();
        let mut ingest = Ingest::new(&running.appliance);
        ingest.round();
        running.work();
        assert_eq!(running.row(call.id).archive.state, ArchiveState::Archived);
        generation.writer.abandon_file([], generation.wall_ns, 0).unwrap();
        if first_file_gone {
            // The new file is there, and what is written again is not in it yet.
            generation.write();
            ingest.round();
            assert_eq!(rig.journal_files(), 1);
        }
        generation.give_up(vec![batch]);
        call.id
    };
    let running = rig.start();
    running.settle();
    running.settle();
    assert_eq!(running.appliance.notes.get("recordings"), None);
    assert_eq!((running.recordings().len(), rig.stored().len(), rig.journal_files()), (1, 1, 0), "{id}");
}

#[test]
fn a_recording_that_is_written_again_into_the_next_file_is_entered_once() {
    check_written_again(false);
    check_written_again(true);
}

/// What the queue had is lost after `steps` of a deletion; it comes to its end all the same.
fn check_deletion(lose: fn(&Rig)) {
    let rig = Rig::as_received();
    let id = {
        let running = rig.start();
        let mut generation = Generation::begin(&running);
        let call = whole_call(&mut generation, &pcmu(), 20);
        generation.finish();
        running.settle();
        assert_eq!(rig.stored().len(), 1);
        running.appliance.catalogue.delete(call.id, Timestamp::now(), "by a test").unwrap();
        Ingest::new(&running.appliance).settle();
        assert!(running.appliance.catalogue.owed(9).unwrap().is_empty());
        assert_eq!(running.appliance.catalogue.deletions_owed().unwrap().len(), 1);
        call.id
    };
    lose(&rig);
    let running = rig.start();
    running.settle();
    assert!(rig.stored().is_empty());
    assert!(running.appliance.catalogue.deletions_owed().unwrap().is_empty());
    let job = running.appliance.queue.get(&JobId::new(&JobKind::DELETE, id)).unwrap();
    assert_eq!(job.state.name(), StateName::Done);
    running.settle();
    assert_eq!(running.work(), 0);
}

#[test]
fn a_deletion_is_owed_until_it_is_done_whatever_becomes_of_the_queue() {
    check_deletion(|_| {});
    check_deletion(|rig| std::fs::write(rig.path("data/queue/current"), "x").unwrap());
    check_deletion(|rig| std::fs::remove_dir_all(rig.path("data/queue")).unwrap());
}

#[test]
fn a_daemon_starts_with_a_damaged_queue_and_does_what_is_owed() {
    let rig = Rig::as_received();
    let id = {
        let running = rig.start();
        let mut generation = Generation::begin(&running);
        let call = whole_call(&mut generation, &pcmu(), 20);
        generation.finish();
        Ingest::new(&running.appliance).round();
        assert_eq!(running.appliance.queue.list(&Filter::default()).len(), 1);
        call.id
    };
    let db = rig.path("data/queue/jobs-1/db");
    let bytes = std::fs::read(&db).unwrap();
    std::fs::write(&db, vec![0xa5; bytes.len()]).unwrap();
    let running = rig.start();
    running.settle();
    assert_eq!(running.row(id).archive.state, ArchiveState::Archived);
}

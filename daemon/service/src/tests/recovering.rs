//! A catalogue made again: from what is left of it, from archives, from the journal, and from the queue what was deleted.

use std::path::Path;

use callvault_archive::{ArchiveFacts, Keys, Played, Writer, key_context};
use callvault_catalogue::{ArchiveState, Recording};
use callvault_control::CheckpointKey;
use callvault_journal::facts::{CallFacts, SessionEvent};
use callvault_seal::{DataKey, seal_key};
use jiff::Timestamp;
use uuid::Uuid;

use super::rig::{Generation, Rig, Running, both, pcmu, whole_call};
use crate::appliance::Bell;
use crate::ingest::Ingest;
use crate::playback::open_archive;
use crate::recover::{Manner, Report, recover};
use crate::{keys, start};

/// A place with one recording of each sort; the ids: archived, in the journal only, deleted with its archive still there. The journal has
/// the lanes of all of them, since they are in one file.
fn furnish(rig: &Rig) -> (Uuid, Uuid, Uuid) {
    furnish_in(rig, false)
}

/// The same; `two_files`: the journal has the second alone.
fn furnish_in(rig: &Rig, two_files: bool) -> (Uuid, Uuid, Uuid) {
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    running.channels.state.send_modify(|s| s.generation = Some(generation.id()));
    let mut named = generation.call(&[pcmu(), pcmu()]);
    let call = CallFacts { tracking_id: Some("track-1".into()), ..CallFacts::default() };
    named.fact(&mut generation, &SessionEvent::Call(Box::new(call)));
    named.keep(&mut generation);
    named.audio(&mut generation, &both(&pcmu(), 100));
    named.end(&mut generation);
    let deleted = whole_call(&mut generation, &pcmu(), 30);
    running.settle();
    assert_eq!(rig.stored().len(), 2);
    if two_files {
        generation.rotate();
        generation.flush();
    }
    let journalled = whole_call(&mut generation, &pcmu(), 40);
    generation.finish();
    running.channels.state.send_modify(|s| s.generation = None);
    let mut ingest = Ingest::new(&running.appliance);
    ingest.look();
    ingest.take_in();
    ingest.settle();
    ingest.remove_files();
    assert_eq!(rig.journal_files(), 1);
    running.appliance.catalogue.delete(deleted.id, Timestamp::now(), "by a test").unwrap();
    ingest.settle();
    (named.id, journalled.id, deleted.id)
}

/// Why the daemon does not start.
fn refusal(rig: &Rig) -> anyhow::Error {
    let key = CheckpointKey::from_bytes([0; 32]);
    start::open(rig.config(), Bell::default(), key).err().unwrap()
}

fn recovered(rig: &Rig) -> Report {
    recover(&rig.config(), Manner::default()).unwrap()
}

fn remove_catalogue(rig: &Rig) {
    for name in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
        let _ = std::fs::remove_file(rig.path("data").join(name));
    }
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[..middle].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

/// What can be compared of two rows: an archive's facts are written before anybody listened.
fn essence(row: &Recording) -> impl PartialEq + std::fmt::Debug {
    let tracks: Vec<_> = row.tracks.iter().map(|t| (t.label.clone(), t.codec.clone(), t.packets, t.local)).collect();
    (row.id, row.started_at, row.duration_ms, row.tracking_id.clone(), tracks, row.archive.clone(), row.facts.clone())
}

fn settled(rig: &Rig) -> Running {
    let running = rig.start();
    running.settle();
    running.settle();
    running
}

/// Loses something, recovers, starts: everything is as it would have been.
fn check(lose: fn(&Rig), from_archives: usize) {
    let rig = Rig::as_received();
    let (archived, journalled, deleted) = furnish(&rig);
    let before = rig.start().row(archived);
    lose(&rig);
    let said = recovered(&rig);
    assert_eq!((said.from_archives, said.lost, said.deleted, said.deletions_owed), (from_archives, 0, 1, 1), "{said}");
    assert!(said.changed && !said.has_gaps(), "{said}");
    let running = settled(&rig);
    let rows = running.recordings();
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids, [journalled, archived]);
    assert!(rows.iter().all(|row| row.archive.state == ArchiveState::Archived), "{rows:?}");
    assert_eq!(format!("{:?}", essence(&running.row(archived))), format!("{:?}", essence(&before)));
    assert!(running.appliance.catalogue.tombstone(deleted).unwrap().is_some());
    assert_eq!((rig.stored().len(), rig.journal_files()), (2, 0));
    let mut verified = crate::check::Check::new(&running.appliance);
    verified.everything().unwrap();
    assert_eq!(verified.json()["findings"], serde_json::json!([]));
    assert_eq!(running.archived(archived).len(), 200);
    assert_eq!(running.appliance.notes.get("recordings"), None);
    drop(running);
    // And doing it again changes nothing.
    let again = recovered(&rig);
    assert!(!again.is_needed && !again.changed, "{again}");
}

#[test]
fn a_catalogue_that_is_gone_is_made_again() {
    check(remove_catalogue, 1);
}

#[test]
fn a_catalogue_that_is_damaged_is_made_again_and_kept_aside() {
    check(|rig| damage(&rig.path("data/catalogue.db")), 1);
    let rig = Rig::as_received();
    furnish(&rig);
    damage(&rig.path("data/catalogue.db"));
    let damaged = std::fs::read(rig.path("data/catalogue.db")).unwrap();
    let said = recovered(&rig);
    assert_eq!(std::fs::read(said.aside.unwrap()).unwrap(), damaged);
}

#[test]
fn catalogue_and_queue_that_are_damaged_cost_only_what_nothing_else_knows() {
    let rig = Rig::as_received();
    let (archived, journalled, deleted) = furnish(&rig);
    remove_catalogue(&rig);
    std::fs::remove_dir_all(rig.path("data/queue")).unwrap();
    let said = recovered(&rig);
    // Nobody knows any more that it was deleted.
    assert_eq!((said.from_archives, said.from_journal, said.deleted), (2, 1, 0), "{said}");
    let running = settled(&rig);
    let ids: Vec<Uuid> = running.recordings().iter().map(|row| row.id).collect();
    assert_eq!(ids, [journalled, deleted, archived]);
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let rig = Rig::as_received();
    furnish(&rig);
    remove_catalogue(&rig);
    let listed = || {
        let mut all: Vec<_> = std::fs::read_dir(rig.path("data")).unwrap().map(|e| e.unwrap().file_name()).collect();
        all.sort();
        all
    };
    recover(&rig.config(), Manner { dry_run: true, ..Manner::default() }).unwrap();
    let before = listed();
    let dry = recover(&rig.config(), Manner { dry_run: true, ..Manner::default() }).unwrap();
    assert_eq!(listed(), before);
    let done = recovered(&rig);
    assert!(dry.is_needed && !dry.changed && done.changed);
    assert_eq!(
        (dry.from_archives, dry.from_journal, dry.deleted),
        (done.from_archives, done.from_journal, done.deleted)
    );
}

#[test]
fn it_refuses_while_the_daemon_runs() {
    let rig = Rig::as_received();
    furnish(&rig);
    let lock = crate::lock::FolderLock::take(&rig.path("data")).unwrap();
    let said = recover(&rig.config(), Manner::default()).unwrap_err().to_string();
    assert!(said.contains("callvaultd is running") && said.contains("systemctl stop"), "{said}");
    drop(lock);
    assert!(!recovered(&rig).is_needed);
}

#[test]
fn archives_of_older_keys_are_opened_and_of_lost_ones_named() {
    let check = |loses_key: bool| {
        let rig = Rig::as_received();
        let (archived, ..) = furnish(&rig);
        {
            let running = rig.start();
            let folder = running.appliance.config.keys_path();
            keys::rotate(&folder, &running.appliance.current_key, &mut rand::rng()).unwrap();
        }
        remove_catalogue(&rig);
        if loses_key {
            for entry in std::fs::read_dir(rig.path("data/keys")).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_str().unwrap().starts_with("appliance-") {
                    std::fs::remove_file(path).unwrap();
                }
            }
        }
        let said = recovered(&rig);
        assert_eq!(said.from_archives, usize::from(!loses_key), "{said}");
        assert_eq!(said.has_gaps(), loses_key);
        if loses_key {
            let remark = said.remarks.iter().find(|remark| remark.recording == Some(archived)).unwrap();
            assert!(remark.text.contains("it is sealed to") && remark.text.contains("run this again"), "{remark:?}");
        }
    };
    check(false);
    check(true);
}

#[test]
fn a_store_that_is_away_stops_it_unless_it_is_told_to_do_without() {
    let rig = Rig::as_received();
    let (archived, journalled, _) = furnish_in(&rig, true);
    remove_catalogue(&rig);
    std::fs::rename(rig.path("data/store"), rig.path("unmounted")).unwrap();
    let said = recover(&rig.config(), Manner::default()).unwrap_err().to_string();
    assert!(said.contains("is not there") && said.contains("--without-store"), "{said}");
    assert!(!rig.path("data/catalogue.db").exists());
    let said = recover(&rig.config(), Manner { without_store: true, ..Manner::default() }).unwrap();
    assert!(said.changed && said.has_gaps(), "{said}");
    // It is back: the same again brings the rest.
    let running = rig.start();
    Ingest::new(&running.appliance).round();
    assert_eq!(running.recordings().iter().map(|row| row.id).collect::<Vec<_>>(), [journalled]);
    drop(running);
    std::fs::rename(rig.path("unmounted"), rig.path("data/store")).unwrap();
    let said = recovered(&rig);
    assert_eq!((said.kept, said.from_archives), (1, 1), "{said}");
    let ids: Vec<Uuid> = settled(&rig).recordings().iter().map(|row| row.id).collect();
    assert_eq!(ids, [journalled, archived]);
}

/// Writes the archive of a recording again, with its audio and with what `strip` leaves of its facts.
fn write_again(rig: &Rig, id: Uuid, strip: fn(&mut ArchiveFacts)) {
    let running = rig.start();
    let path = rig.stored().into_iter().find(|path| path.to_str().unwrap().contains(&id.to_string())).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let mut archive = open_archive(file, &running.appliance.keyring, &running.appliance.catalogue).unwrap();
    let (header, mut facts) = (archive.header(), archive.facts().unwrap().clone());
    let packets: Vec<_> = archive.packets(0..u64::MAX).map(Result::unwrap).collect();
    strip(&mut facts);
    let key = DataKey::generate(&mut rand::rng());
    let seal = |to| seal_key(&mut rand::rng(), to, &key, &key_context(&id));
    let sealed: Vec<_> = running.appliance.recipients.iter().map(seal).collect();
    let mut writer = Writer::create(Vec::new(), &header, Keys::InFile(&sealed), &key, &facts).unwrap();
    for packet in packets {
        let Played::Packet(p) = packet else { panic!("{packet:?}") };
        writer.packet(p.track, p.codec, p.position, &p.payload).unwrap();
    }
    std::fs::write(path, writer.finish().unwrap().0).unwrap();
}

#[test]
fn an_archive_with_few_facts_is_a_recording_all_the_same() {
    let check = |strip: fn(&mut ArchiveFacts), has_events: bool| {
        let rig = Rig::as_received();
        let (archived, ..) = furnish(&rig);
        let before = rig.start().row(archived);
        write_again(&rig, archived, strip);
        remove_catalogue(&rig);
        let said = recovered(&rig);
        assert_eq!((said.from_archives, said.has_gaps()), (1, false), "{said}");
        let running = rig.start();
        let row = running.row(archived);
        assert_eq!(row.flaws.iter().any(|flaw| flaw.code == "facts-lost"), !has_events, "{:?}", row.flaws);
        assert_eq!(row.tracking_id, before.tracking_id.filter(|_| has_events));
        assert_eq!(running.archived(archived).len(), 200);
        let mut verified = crate::check::Check::new(&running.appliance);
        verified.recording(&row);
        assert_eq!(verified.json()["findings"], serde_json::json!([]));
    };
    // An earlier version did not put the row into it.
    check(|facts| facts.recording = serde_json::Value::Null.into(), true);
    check(
        |facts| {
            facts.recording = serde_json::Value::Null.into();
            facts.events = Vec::new().into();
        },
        false,
    );
}

/// The archive is damaged and the catalogue lost; what comes of it.
fn damaged_archive(two_files: bool) -> (Rig, Uuid, Report) {
    let rig = Rig::as_received();
    let (archived, ..) = furnish_in(&rig, two_files);
    remove_catalogue(&rig);
    let path = rig.stored().into_iter().find(|path| path.to_str().unwrap().contains(&archived.to_string())).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 100].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let said = recovered(&rig);
    assert!(said.has_gaps(), "{said}");
    (rig, archived, said)
}

#[test]
fn a_damaged_archive_is_a_recording_and_its_damage_is_named() {
    let (rig, id, said) = damaged_archive(true);
    assert_eq!(said.from_archives, 1, "{said}");
    let row = rig.start().row(id);
    assert!(row.flaws.iter().any(|flaw| flaw.code == "archive-damaged"), "{:?}", row.flaws);
}

#[test]
fn a_damaged_archive_that_the_journal_still_has_is_made_again() {
    let (rig, id, said) = damaged_archive(false);
    assert_eq!((said.from_archives, said.from_journal), (0, 2), "{said}");
    let running = settled(&rig);
    assert!(running.row(id).flaws.is_empty());
    assert_eq!(running.archived(id).len(), 200);
    let mut verified = crate::check::Check::new(&running.appliance);
    verified.everything().unwrap();
    assert_eq!(verified.json()["findings"], serde_json::json!([]));
}

#[test]
fn a_recovery_that_was_broken_off_is_brought_to_its_end_and_keeps_the_daemon_from_starting() {
    let rig = Rig::as_received();
    let (archived, ..) = furnish(&rig);
    let complete = rig.path("data/recovering");
    std::fs::create_dir_all(&complete).unwrap();
    {
        // As it is after the new catalogue was completed and before the old one was replaced.
        let said = recover(&rig.config(), Manner::default()).unwrap();
        assert!(!said.is_needed);
        std::fs::create_dir_all(&complete).unwrap();
        std::fs::copy(rig.path("data/catalogue.db"), complete.join("catalogue.complete")).unwrap();
        damage(&rig.path("data/catalogue.db"));
    }
    let refused = refusal(&rig).to_string();
    assert!(refused.contains("callvaultctl recover"), "{refused}");
    let said = recovered(&rig);
    assert!(said.was_interrupted && said.changed, "{said}");
    assert!(!complete.exists());
    assert_eq!(rig.start().row(archived).archive.state, ArchiveState::Archived);
}

#[test]
fn a_daemon_says_what_to_run_when_its_catalogue_is_damaged() {
    let rig = Rig::as_received();
    furnish(&rig);
    damage(&rig.path("data/catalogue.db"));
    let refused = format!("{:#}", refusal(&rig));
    assert!(refused.contains("callvaultctl recover"), "{refused}");
    remove_catalogue(&rig);
    let running = rig.start();
    let note = running.appliance.notes.get("catalogue-lost").unwrap();
    assert!(note.contains("callvaultctl recover"), "{note}");
}

#[test]
fn a_catalogue_that_something_else_can_read_is_not_thrown_away() {
    let check = |change: fn(&Rig), says: &str| {
        let rig = Rig::as_received();
        furnish(&rig);
        change(&rig);
        let said = recover(&rig.config(), Manner::default()).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("move"), "{said}");
        assert!(rig.path("data/catalogue.db").exists() && !rig.path("data/recovering").exists());
    };
    let other_key = |rig: &Rig| {
        std::fs::remove_file(rig.path("data/keys/appliance.key")).unwrap();
        keys::load_or_make(&rig.path("data/keys"), &rig.path("data"), false, &mut rand::rng()).unwrap();
    };
    check(other_key, "sealed to");
    // The version of the database is at byte 60 of its file (SQLite's file format, section 1.3).
    let newer = |rig: &Rig| {
        let path = rig.path("data/catalogue.db");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[63] = 99;
        std::fs::write(path, bytes).unwrap();
    };
    check(newer, "it is at version 99");
}

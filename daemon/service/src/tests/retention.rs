//! Retention as the daemon applies it: what is due goes, from every file, and what is unusual is asked first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use callvault_access::Caller;
use callvault_catalogue::AuditFilter;
use callvault_http::{Api, ErrorKind, Status};
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{Call, Generation, Rig, Running, pcmu, whole_call};
use crate::api::Control;
use crate::playback::open_archive;
use crate::sound::SoundError;
use crate::{health, retention, told};

const HOUR_NS: i64 = 3_600 * 1_000_000_000;

fn rig(rule: &str) -> Rig {
    let rig = Rig::as_received();
    rig.configure(&format!("[archive]\ncodec = \"as-received\"\n[retention]\n{rule}"));
    rig
}

/// Calls that ended so many hours ago, archived.
fn calls(running: &Running, hours: &[i64]) -> Vec<Call> {
    let mut generation = Generation::begin(running);
    let now_ns = generation.wall_ns;
    let calls = hours
        .iter()
        .map(|hours| {
            generation.wall_ns = now_ns - hours * HOUR_NS;
            whole_call(&mut generation, &pcmu(), 20)
        })
        .collect();
    generation.finish();
    running.settle();
    calls
}

fn there(running: &Running) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = running.recordings().iter().map(|row| row.id).collect();
    ids.sort();
    ids
}

fn asks(running: &Running) -> Option<String> {
    let snapshot = health::snapshot(&running.appliance);
    let component = &snapshot.health.components["retention"];
    (component.status != Status::Ok).then(|| format!("{component:?}"))
}

fn plan(running: &Running) -> Value {
    Control(Arc::clone(&running.appliance)).retention(&Caller::operator("unix")).unwrap()
}

fn confirm(running: &Running, token: &str) -> Result<Value, ErrorKind> {
    let control = Control(Arc::clone(&running.appliance));
    control.confirm_retention(&Caller::operator("unix"), token).map_err(|error| error.kind)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files of the appliance in which these bytes are.
fn having(rig: &Rig, bytes: &[u8]) -> Vec<PathBuf> {
    let has = |path: &PathBuf| std::fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes);
    files(&rig.path("data")).into_iter().filter(has).collect()
}

#[test]
fn what_is_due_goes_from_every_file_and_what_is_not_stays() {
    let rig = rig("rule = \"4-hours\"");
    let running = rig.start();
    running.appliance.store.look();
    let calls = calls(&running, &[5, 3]);
    let (old, new) = (&calls[0], &calls[1]);
    let place = running.row(old.id).archive.place().unwrap();
    let archive = rig.path("data/store").join(&place.path);
    // The first key slot of the header: its state, then the sealed key.
    let slot = std::fs::read(&archive).unwrap()[68..68 + 88].to_vec();
    assert_eq!(having(&rig, &slot), std::slice::from_ref(&archive), "where its key is before");

    assert_eq!(retention::pass(&running.appliance), 1);
    assert_eq!(there(&running), [new.id]);
    let stone = running.appliance.catalogue.tombstone(old.id).unwrap().unwrap();
    assert_eq!(stone.rule, "retention 4-hours");
    running.settle();

    let audio = &old.sent[10].payload;
    for (what, bytes) in [
        ("the sealed key of its archive", slot.as_slice()),
        ("the sealed key of its lane", &old.keys[0].to_bytes()),
        ("its audio", audio),
    ] {
        assert!(having(&rig, bytes).is_empty(), "{what} is still in {:?}", having(&rig, bytes));
    }
    assert!(!archive.exists() && rig.stored().len() == 1);
    let page = running.appliance.catalogue.audit_entries(&AuditFilter::default(), None).unwrap();
    assert!(page.entries.iter().any(|(_, entry)| entry.recording == Some(old.id)), "the audit log has it");

    assert_eq!(retention::pass(&running.appliance), 0, "once is enough");
    assert_eq!(asks(&running), None);
}

#[test]
fn a_rule_made_shorter_waits_for_an_answer_and_outlives_a_restart() {
    let rig = rig("rule = \"custom\"\nperiod = \"10 hours\"\nconfirm_few = 1");
    let running = rig.start();
    running.appliance.store.look();
    assert_eq!(retention::pass(&running.appliance), 0, "the rule is in force as long as there is nothing");
    let calls = calls(&running, &[11, 5, 6, 1]);
    drop(running);

    rig.configure("[archive]\ncodec = \"as-received\"\n[retention]\nrule = \"4-hours\"\nconfirm_few = 1");
    let running = rig.start();
    running.appliance.store.look();
    assert_eq!(retention::pass(&running.appliance), 1, "what was due without the change");
    assert_eq!(there(&running).len(), 3);
    assert!(asks(&running).is_some_and(|text| text.contains("2 of 4")), "{:?}", asks(&running));
    let asked = plan(&running);
    assert_eq!((&asked["question"]["kind"], &asked["plan"]["due_by_new_rule"]), (&json!("shorter-rule"), &json!(2)));
    assert_eq!(confirm(&running, "another"), Err(ErrorKind::Conflict));
    let token = asked["question"]["token"].as_str().unwrap().to_owned();
    drop(running);

    let running = rig.start();
    assert_eq!(retention::pass(&running.appliance), 0, "nobody has answered");
    assert_eq!(confirm(&running, &token), Err(ErrorKind::Conflict), "it is asked anew after a restart");
    let token = plan(&running)["question"]["token"].as_str().unwrap().to_owned();
    confirm(&running, &token).unwrap();
    drop(running);

    let running = rig.start();
    running.appliance.store.look();
    assert_eq!(retention::pass(&running.appliance), 2, "the answer is remembered");
    assert_eq!((there(&running), asks(&running)), (vec![calls[3].id], None));
}

#[test]
fn a_large_share_is_asked_for_and_more_than_was_confirmed_is_not() {
    let rig = rig("rule = \"4-hours\"\nconfirm_few = 1");
    let running = rig.start();
    running.appliance.store.look();
    retention::pass(&running.appliance);
    let _ = calls(&running, &[5, 6, 1]);
    assert_eq!(retention::pass(&running.appliance), 0);
    let asked = plan(&running);
    assert_eq!(asked["question"]["kind"], "large-share");
    let token = asked["question"]["token"].as_str().unwrap();
    assert_eq!(plan(&running)["question"]["token"], token, "the same question has the same name");
    confirm(&running, token).unwrap();
    assert_eq!(confirm(&running, token), Err(ErrorKind::Conflict), "an answer is for once");
    assert_eq!(retention::pass(&running.appliance), 2);
    let _ = calls(&running, &[5, 6]);
    assert_eq!(retention::pass(&running.appliance), 0, "what came later was not confirmed");
}

#[test]
fn what_is_being_played_waits() {
    let rig = rig("rule = \"4-hours\"");
    let running = rig.start();
    running.appliance.store.look();
    let calls = calls(&running, &[5]);
    let first = running.appliance.retention.playing.begin(calls[0].id);
    let second = running.appliance.retention.playing.begin(calls[0].id);
    for playing in [first, second] {
        assert_eq!(retention::pass(&running.appliance), 0);
        drop(playing);
    }
    assert_eq!(retention::pass(&running.appliance), 1);
}

#[test]
fn a_clock_that_jumped_deletes_nothing() {
    // Of another start of the machine only the time that it was off counts.
    let check = |wall_hours_ago: i64, on_hours: i64, boot: Uuid, deleted: u64| {
        let up_hours = if boot.is_nil() { boot_ms() / 3_600_000 } else { 0 };
        let wall_hours_ago = wall_hours_ago + up_hours;
        let rig = rig("rule = \"4-hours\"");
        let running = rig.start();
        let _ = calls(&running, &[5]);
        let on_ms = on_hours * 3_600_000;
        let wall = Timestamp::now().checked_sub(wall_hours_ago.hours()).unwrap();
        let state = json!({"clock": {"wall": wall, "boot_ms": boot_ms() - on_ms, "boot": boot}});
        running.appliance.catalogue.set_retention_state(&state, None).unwrap();
        drop(running);
        let running = rig.start();
        running.appliance.store.look();
        let what = format!("the clock advanced by {wall_hours_ago} h in {on_hours} h");
        assert_eq!(retention::pass(&running.appliance), deleted, "{what}");
        assert_eq!(asks(&running).is_some(), deleted == 0, "{what}");
        if deleted == 0 {
            let asked = plan(&running);
            assert_eq!((&asked["question"]["kind"], &asked["plan"]), (&json!("clock"), &Value::Null));
            confirm(&running, asked["question"]["token"].as_str().unwrap()).unwrap();
            assert_eq!(retention::pass(&running.appliance), 1, "somebody said that it is right");
        }
    };
    let this = told::boot_id();
    check(1, 1, this, 1);
    check(2, 1, this, 0);
    check(1, 2, this, 0);
    check(24, 1, Uuid::nil(), 1);
    check(24 * 30, 1, Uuid::nil(), 0);
}

fn boot_ms() -> i64 {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap().tv_sec() * 1_000
}

#[test]
fn an_archive_copied_away_cannot_be_opened_with_what_a_deletion_leaves() {
    let rig = Rig::as_received();
    rig.configure("[archive]\ncodec = \"as-received\"\nkeys = \"catalogue\"\n[retention]\nrule = \"4-hours\"");
    let running = rig.start();
    running.appliance.store.look();
    let calls = calls(&running, &[5, 1]);
    let old = &calls[0];
    let archive = rig.path("data/store").join(running.row(old.id).archive.place().unwrap().path);
    let copy = std::fs::read(&archive).unwrap();
    let open = |running: &Running| {
        let file = std::io::Cursor::new(copy.clone());
        open_archive(file, &running.appliance.keyring, &running.appliance.catalogue).map(drop)
    };
    // Played and verified as every other.
    open(&running).unwrap();
    assert_eq!(running.archived(old.id).len(), 40);
    let verified = Control(Arc::clone(&running.appliance)).verify(&Caller::operator("unix"), None).unwrap();
    assert_eq!(verified["findings"], json!([]));
    let sealed = running.appliance.catalogue.archive_keys(old.id).unwrap().remove(0).to_bytes();
    assert!(!copy.windows(sealed.len()).any(|window| window == sealed), "the file has the key");
    assert!(!having(&rig, &sealed).is_empty(), "where its key is before");

    assert_eq!(retention::pass(&running.appliance), 1);
    running.settle();
    assert!(having(&rig, &sealed).is_empty(), "its key is still in {:?}", having(&rig, &sealed));
    assert!(having(&rig, &old.keys[0].to_bytes()).is_empty() && !archive.exists());
    drop(running);
    let running = rig.start();
    assert!(matches!(open(&running), Err(SoundError::NoKey)));
    assert_eq!(running.archived(calls[1].id).len(), 40, "the other one is still there");
}

#[test]
fn a_count_that_was_broken_off_puts_no_rule_in_force() {
    let rig = rig("rule = \"4-hours\"\nconfirm_few = 1");
    let running = rig.start();
    let calls = calls(&running, &[5, 6, 1]);
    running.appliance.stop();
    assert_eq!(retention::pass(&running.appliance), 0);
    drop(running);
    let running = rig.start();
    assert_eq!(retention::pass(&running.appliance), 0);
    assert_eq!((there(&running).len(), asks(&running).is_some()), (calls.len(), true));
}

//! Each invariant that is broken is found, by its number, and nothing is found where none is.

use jiff::Timestamp;
use uuid::Uuid;

use super::rig::{Generation, Rig, Running, pcmu, whole_call};
use crate::check::Check;
use crate::ingest::Ingest;

/// Numbers and kinds of what a whole check finds.
fn found(running: &Running) -> Vec<(u64, String)> {
    let mut check = Check::new(&running.appliance);
    check.everything().unwrap();
    numbers(check)
}

/// Those of what is looked at now and then.
fn promises(running: &Running) -> Vec<(u64, String)> {
    let mut check = Check::new(&running.appliance);
    check.promises().unwrap();
    numbers(check)
}

fn numbers(check: Check<'_>) -> Vec<(u64, String)> {
    let said = check.json();
    let findings = said["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| !finding["remedy"].as_str().unwrap().is_empty()));
    findings.iter().map(|f| (f["invariant"].as_u64().unwrap(), f["kind"].as_str().unwrap().to_owned())).collect()
}

/// One recording that is archived and one in the journal; `destroy` breaks something of one of them.
fn check(destroy: fn(&Rig, &Running, Uuid, Uuid), expected: &[(u64, &str)], expected_of_promises: &[(u64, &str)]) {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut generation = Generation::begin(&running);
    let archived = whole_call(&mut generation, &pcmu(), 30);
    generation.finish();
    running.settle();
    let mut next = Generation::begin(&running);
    let journalled = whole_call(&mut next, &pcmu(), 30);
    next.finish();
    Ingest::new(&running.appliance).round();
    assert_eq!((found(&running), promises(&running)), (Vec::new(), Vec::new()));
    destroy(&rig, &running, archived.id, journalled.id);
    let named = |pairs: &[(u64, &str)]| pairs.iter().map(|(n, kind)| (*n, (*kind).to_owned())).collect::<Vec<_>>();
    assert_eq!(found(&running), named(expected));
    assert_eq!(promises(&running), named(expected_of_promises));
}

fn archive_job(id: Uuid) -> callvault_queue::JobId {
    callvault_queue::JobId::new(&callvault_queue::JobKind::ARCHIVE, id)
}

#[test]
fn every_broken_promise_is_found_by_its_number() {
    check(|_, _, _, _| {}, &[], &[]);
    let remove_archive = |rig: &Rig, _: &Running, _: Uuid, _: Uuid| std::fs::remove_file(&rig.stored()[0]).unwrap();
    check(remove_archive, &[(1, "unreadable")], &[]);
    check(
        |_, running, _, journalled| running.appliance.journals.lock().release(journalled),
        &[(2, "missing")],
        &[(2, "missing")],
    );
    check(
        |rig, _, _, _| {
            let from = &rig.stored()[0];
            std::fs::copy(from, from.with_file_name(format!("{}.cva", Uuid::now_v7()))).unwrap();
        },
        &[(3, "file-without-row")],
        &[],
    );
    check(
        |rig, _, _, _| {
            let from = &rig.stored()[0];
            let other = from.parent().unwrap().parent().unwrap().join("other");
            std::fs::create_dir(&other).unwrap();
            std::fs::copy(from, other.join(from.file_name().unwrap())).unwrap();
        },
        &[(3, "second-file")],
        &[],
    );
    check(
        |_, running, _, journalled| running.appliance.queue.forget(&archive_job(journalled)).unwrap(),
        &[(6, "job-missing")],
        &[(6, "job-missing")],
    );
    check(
        |_, running, archived, _| {
            running.appliance.catalogue.delete(archived, Timestamp::now(), "by a test").unwrap();
            running.appliance.catalogue.settled(&[format!("delete:{archived}")]).unwrap();
        },
        &[(7, "deletion-job-missing")],
        &[(7, "deletion-job-missing")],
    );
    check(
        |_, running, archived, _| {
            running.appliance.catalogue.delete(archived, Timestamp::now(), "by a test").unwrap();
            running.appliance.catalogue.settled(&[format!("delete:{archived}")]).unwrap();
            running.appliance.catalogue.removed(archived).unwrap();
        },
        &[(7, "deleted-file")],
        &[],
    );
}

/// One recording in two lanes, of which one is gone.
#[test]
fn a_lane_that_was_freed_too_early_is_found() {
    let rig = Rig::as_received();
    let running = rig.start();
    let mut first = Generation::begin(&running);
    let mut call = first.call(&[pcmu(), pcmu()]);
    call.keep(&mut first);
    let audio = super::rig::both(&pcmu(), 60);
    call.audio(&mut first, &audio[..60]);
    first.flush();
    let mut second = Generation::begin(&running);
    let mut later = second.go_on(&call, false, true);
    later.audio(&mut second, &audio[60..]);
    later.end(&mut second);
    Ingest::new(&running.appliance).round();
    assert_eq!(promises(&running), []);
    let name = crate::journals::LaneName { generation: first.id(), lane: call.lane.number() };
    running.appliance.journals.lock().release_lane(name);
    assert_eq!(promises(&running), [(5, "lane-gone".to_owned())]);
    assert!(found(&running).contains(&(5, "lane-gone".to_owned())));
    // It is shown by health, with what to do.
    Ingest::new(&running.appliance).tidy();
    let said = running.appliance.notes.get("promises").unwrap();
    assert!(said.contains("invariant 5") && said.contains("backup"), "{said}");
}

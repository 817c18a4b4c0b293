//! What the catalogue always does.
#![allow(clippy::unwrap_used)]

mod sut;

use std::collections::BTreeSet;

use callvault_catalogue::{
    ArchivePlace, ArchiveState, Archived, Archiving, CatalogueError, Cursor, Deletion, Direction, Filter, Flaw,
    IngestOutcome, OwedJob, Recording, Verdict,
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use sut::{at, generation, id, lane, new, open, place, recording};

#[test]
fn a_recordings_json_is_the_documented_one() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    let json = serde_json::to_value(catalogue.get(id(1)).unwrap().unwrap()).unwrap();
    let expected = serde_json::json!({
        "id": "01900000-0000-7000-8000-000000000001",
        "verdict": "ok",
        "started_at": "2027-01-15T08:00:00.001Z",
        "ended_at": "2027-01-15T08:01:01.235Z",
        "duration_ms": 61234,
        "owner": "zoe@example.org", "owner_id": null, "owner_name": null, "matched_by": null,
        "direction": "incoming",
        "local_number": "+493012344711",
        "local_name": "Zoë Quarterstaff",
        "remote_number": "+1 (555) 010-0001",
        "remote_name": null,
        "traffic": "external",
        "call_id": "callhalf-9418731:0",
        "tracks": [{
            "label": "1", "participant": "Zoë Quarterstaff", "codec": "PCMU",
            "packets": 3000, "lost": 2, "duplicates": 1, "late": 4, "gaps_ms": 40,
            "jitter_ms_max": 3, "started_after_ms": 180, "clock_skew_ppm": null, "tones": 4, "paused_ms": 5,
            "silent_ms": null, "clipped_ms": null, "level_dbfs": null,
        }],
        "flaws": [{"code": "loss", "text": "2 of 3002 packets never came"}],
        "archive": {"state": "journal", "bytes": null, "store": null},
        "linked": [],
        "preserved": null,
        "notes": [],
        "tags": [],
    });
    assert_eq!(json, expected);
}

#[test]
fn a_recording_comes_back_as_it_was_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).ingest(&new(1), at(0)).unwrap();
    let catalogue = open(folder.path());
    assert!(catalogue.get(id(1)).unwrap() == Some(recording(1)));
    assert!(catalogue.get(id(2)).unwrap().is_none());
    let listed = catalogue.list(&Filter::default(), None).unwrap().recordings;
    assert!(listed == [Recording { facts: serde_json::Value::Null, ..recording(1) }]);
    assert!(catalogue.check().unwrap().is_empty());
}

#[test]
fn what_was_heard_takes_the_place_of_what_was_known() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    let mut heard = recording(1);
    heard.verdict = Verdict::Degraded;
    heard.tracks[0].silent_ms = Some(40);
    heard.tracks[0].level_dbfs = Some(-19);
    heard.flaws.push(Flaw { code: "one-leg-silent".into(), text: "nothing is heard".into() });
    // What listening cannot know is not taken from it.
    let told = Recording { local_name: None, duration_ms: 1, ..heard.clone() };
    for _ in 0..2 {
        assert!(catalogue.heard(&told).unwrap());
        assert!(catalogue.get(id(1)).unwrap() == Some(heard.clone()));
    }
    assert!(!catalogue.heard(&recording(2)).unwrap());
    catalogue.delete(id(1), at(1), "by hand").unwrap();
    assert!(!catalogue.heard(&told).unwrap() && catalogue.get(id(1)).unwrap().is_none());
}

#[test]
fn whole_seconds_show_their_milliseconds() {
    let text = serde_json::to_value(Recording { started_at: at(0), ..recording(1) }).unwrap();
    assert_eq!(text["started_at"], "2027-01-15T08:00:00.000Z");
}

#[test]
fn ingesting_twice_is_once() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    assert_eq!(catalogue.ingest(&new(1), at(0)).unwrap(), IngestOutcome::Inserted);
    catalogue.settled(&[OwedJob::new("archive", id(1)).id()]).unwrap();
    assert_eq!(catalogue.ingest(&new(1), at(0)).unwrap(), IngestOutcome::AlreadyThere);
    assert!(catalogue.owed(10).unwrap().is_empty(), "what was settled is not owed again");
    assert_eq!(catalogue.list(&Filter::default(), None).unwrap().recordings.len(), 1);
    assert_eq!(catalogue.ingested_lanes(generation(0)).unwrap(), BTreeSet::from([1]));
}

#[test]
fn a_lane_belongs_to_one_recording() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    let check = |n, lanes| {
        let mut other = new(n);
        other.lanes = lanes;
        assert!(matches!(catalogue.ingest(&other, at(0)), Err(CatalogueError::Conflict { .. })));
    };
    check(2, vec![lane(0, 1, 0)]);
    check(2, vec![lane(0, 2, 0), lane(0, 1, 0)]);
    check(1, vec![lane(1, 0, 0)]);
    assert!(catalogue.get(id(2)).unwrap().is_none());
    assert_eq!(catalogue.lanes(id(1)).unwrap().len(), 1);
    assert_eq!(catalogue.owed(10).unwrap().len(), 1);
}

#[test]
fn a_recording_that_went_on_after_all_is_entered_anew() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    let mut whole = new(1);
    whole.lanes.push(lane(1, 0, 0));
    whole.recording.duration_ms += 5_000;
    assert_eq!(catalogue.ingest(&whole, at(1)).unwrap(), IngestOutcome::Extended);
    assert_eq!(catalogue.ingest(&whole, at(2)).unwrap(), IngestOutcome::AlreadyThere);
    assert_eq!(catalogue.get(id(1)).unwrap().unwrap().duration_ms, whole.recording.duration_ms);
    assert_eq!((catalogue.lanes(id(1)).unwrap().len(), catalogue.owed(10).unwrap().len()), (2, 1));
    // Once it is archived the journal may have let its parts go.
    let place = ArchivePlace { bytes: 1, store: "s".into(), path: "p".into(), sha256: [1; 32] };
    catalogue.set_archiving(id(1)).unwrap();
    catalogue.archived(id(1), &place, &[], at(3)).unwrap();
    whole.lanes.push(lane(2, 0, 0));
    assert!(matches!(catalogue.ingest(&whole, at(4)), Err(CatalogueError::Conflict { .. })));
}

#[test]
fn facts_that_are_too_large_are_left_out_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    let mut large = new(1);
    large.recording.facts = "x".repeat(2 << 20).into();
    assert_eq!(catalogue.ingest(&large, at(0)).unwrap(), IngestOutcome::Inserted);
    assert!(catalogue.get(id(1)).unwrap().unwrap().facts.is_null());
}

#[test]
fn debug_shows_no_personal_data() {
    let filter = Filter { number: Some(sut::NUMBER.into()), owner: Some("zoe".into()), ..Filter::default() };
    let text = format!("{:?} {:?} {filter:?}", recording(1), recording(1).tracks);
    for private in [sut::NUMBER, sut::NAME, "zoe", sut::CALL_ID, "555"] {
        assert!(!text.contains(private), "{private} in {text}");
    }
}

#[test]
fn an_archive_is_made_from_every_state_but_archived_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    let state = |expected| assert_eq!(catalogue.get(id(1)).unwrap().unwrap().archive.state, expected);
    let begin = |expected| assert_eq!(catalogue.set_archiving(id(1)).unwrap(), expected);
    let notify = [OwedJob::new("notify", id(1))];
    let end = |place: &ArchivePlace| catalogue.archived(id(1), place, &notify, at(5));

    state(ArchiveState::Journal);
    begin(Archiving::Started);
    begin(Archiving::Started);
    state(ArchiveState::Archiving);
    catalogue.archive_waits(id(1)).unwrap();
    state(ArchiveState::Journal);
    begin(Archiving::Started);
    catalogue.archive_failed(id(1), "the store is full").unwrap();
    catalogue.archive_waits(id(1)).unwrap();
    state(ArchiveState::Failed);
    let failed = catalogue.get(id(1)).unwrap().unwrap().archive;
    assert_eq!(failed.error.as_deref(), Some("the store is full"));
    begin(Archiving::Started);
    assert_eq!(end(&place(1)).unwrap(), Archived::Recorded);
    state(ArchiveState::Archived);
    begin(Archiving::AlreadyArchived);
    assert_eq!(end(&place(1)).unwrap(), Archived::AlreadyRecorded);
    let other = ArchivePlace { sha256: [8; 32], ..place(1) };
    assert!(matches!(end(&other), Err(CatalogueError::OtherArchive(_))));
    catalogue.archive_failed(id(1), "late news").unwrap();
    catalogue.archive_waits(id(1)).unwrap();
    state(ArchiveState::Archived);

    let archive = catalogue.get(id(1)).unwrap().unwrap().archive;
    assert_eq!(archive.place(), Some(place(1)));
    assert_eq!(archive.error, None);
    let json = serde_json::to_value(archive).unwrap();
    assert_eq!(json, serde_json::json!({"state": "archived", "bytes": 1000, "store": "local"}));
    let kinds: Vec<_> = catalogue.owed(10).unwrap().into_iter().map(|job| job.kind).collect();
    assert_eq!(kinds, ["archive", "notify"]);

    assert_eq!(catalogue.set_archiving(id(9)).unwrap(), Archiving::Gone);
    assert_eq!(catalogue.archived(id(9), &place(9), &[], at(5)).unwrap(), Archived::Gone);
    catalogue.archive_failed(id(9), "").unwrap();
}

#[test]
fn the_journal_is_needed_until_the_archive_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in 1..=5 {
        let mut recording = new(n);
        if n == 5 {
            recording.recording.verdict = Verdict::Discarded;
        }
        catalogue.ingest(&recording, at(0)).unwrap();
    }
    let needed = |expected: &[u32]| {
        let lanes = catalogue.lanes_needed().unwrap();
        assert_eq!(lanes.iter().map(|lane| lane.lane).collect::<Vec<_>>(), expected);
        assert!(lanes.iter().all(|lane| lane.recording == id(lane.lane.into())));
        let ids: Vec<_> = expected.iter().map(|n| id((*n).into())).collect();
        assert_eq!(catalogue.unarchived().unwrap(), ids);
    };
    needed(&[1, 2, 3, 4]);
    catalogue.set_archiving(id(1)).unwrap();
    catalogue.archive_failed(id(2), "").unwrap();
    needed(&[1, 2, 3, 4]);
    catalogue.archived(id(1), &place(1), &[], at(0)).unwrap();
    needed(&[2, 3, 4]);
    catalogue.delete(id(3), at(0), "test").unwrap();
    needed(&[2, 4]);

    // lanes stay known until their files are gone, those that are needed even then
    let ingested = |expected: &[u32]| {
        assert_eq!(catalogue.ingested_lanes(generation(0)).unwrap(), expected.iter().copied().collect());
    };
    catalogue.lanes_released(generation(1), 99).unwrap();
    ingested(&[1, 2, 3, 4, 5]);
    catalogue.lanes_released(generation(0), 2).unwrap();
    ingested(&[1, 2, 3, 4, 5]);
    catalogue.lanes_released(generation(0), 3).unwrap();
    ingested(&[2, 3, 4, 5]);
    catalogue.lanes_released(generation(0), 99).unwrap();
    ingested(&[2, 4]);
    // a journal file that comes back from the dead is noticed, not taken for news
    assert!(matches!(catalogue.ingest(&new(1), at(0)), Err(CatalogueError::Conflict { lane: 1, .. })));
}

#[test]
fn what_is_deleted_stays_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    catalogue.ingest(&new(2), at(0)).unwrap();
    catalogue.archived(id(1), &place(1), &[], at(0)).unwrap();

    let gone = catalogue.delete(id(1), at(7), "operator").unwrap();
    assert_eq!(gone, Deletion::Deleted { archive: Some(place(1)) });
    assert_eq!(catalogue.delete(id(2), at(7), "operator").unwrap(), Deletion::Deleted { archive: None });
    assert_eq!(catalogue.delete(id(3), at(7), "operator").unwrap(), Deletion::Unknown);
    let tombstone = catalogue.tombstone(id(1)).unwrap().unwrap();
    assert_eq!((tombstone.deleted_at, tombstone.rule.as_str()), (at(7), "operator"));
    assert_eq!(catalogue.delete(id(1), at(9), "again").unwrap(), Deletion::AlreadyDeleted(tombstone));

    assert!(catalogue.get(id(1)).unwrap().is_none());
    assert!(catalogue.list(&Filter::default(), None).unwrap().recordings.is_empty());
    assert_eq!(catalogue.ingest(&new(1), at(0)).unwrap(), IngestOutcome::Deleted);
    assert!(catalogue.get(id(1)).unwrap().is_none());
    assert_eq!(catalogue.archived(id(1), &place(1), &[], at(0)).unwrap(), Archived::Gone);
    // the only thing owed is the removal of what was made of them
    let payload = serde_json::json!({"store": "local", "path": place(1).path});
    let owed = [OwedJob { payload, ..OwedJob::new("delete", id(1)) }, OwedJob::new("delete", id(2))];
    assert_eq!(catalogue.owed(10).unwrap(), owed);
    // which the tombstone owes also when the queue has it and loses it, until it is done
    catalogue.settled(&owed.each_ref().map(OwedJob::id)).unwrap();
    assert_eq!(catalogue.deletions_owed().unwrap(), owed);
    catalogue.removed(id(1)).unwrap();
    catalogue.removed(id(3)).unwrap();
    drop(catalogue);
    let catalogue = open(folder.path());
    assert_eq!(catalogue.deletions_owed().unwrap(), owed[1..]);
}

#[test]
fn what_is_owed_is_owed_until_it_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    for n in 1..=3 {
        open(folder.path()).ingest(&new(n), at(10 - n as i64)).unwrap();
    }
    let catalogue = open(folder.path());
    let owed = |limit| catalogue.owed(limit).unwrap().iter().map(OwedJob::id).collect::<Vec<_>>();
    let job = |n| OwedJob::new("archive", id(n)).id();
    assert_eq!(owed(10), [job(3), job(2), job(1)]);
    assert_eq!(owed(1), [job(3)]);
    catalogue.settled(&[job(2), job(9)]).unwrap();
    assert_eq!(owed(10), [job(3), job(1)]);
    catalogue.settled::<&str>(&[]).unwrap();
}

#[test]
fn counts_are_by_verdict_and_state() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in 1..=3 {
        catalogue.ingest(&new(n), at(0)).unwrap();
    }
    catalogue.archived(id(1), &place(1), &[], at(0)).unwrap();
    let counts: Vec<_> = catalogue.counts().unwrap().into_iter().collect();
    let expected = [((Verdict::Ok, ArchiveState::Journal), 2), ((Verdict::Ok, ArchiveState::Archived), 1)];
    assert_eq!(counts, expected);
}

#[test]
fn filters_keep_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in 1..=4 {
        let mut one = new(n);
        if n == 2 {
            one.recording.verdict = Verdict::Degraded;
            one.recording.direction = Direction::Outgoing;
            one.recording.owner = None;
            one.recording.local_number = Some("Alice.Room-7".into());
        }
        catalogue.ingest(&one, at(0)).unwrap();
    }
    let check = |filter: Filter, expected: &[u128]| {
        let found = catalogue.list(&filter, None).unwrap();
        let expected: Vec<_> = expected.iter().map(|n| id(*n)).collect();
        assert_eq!(found.recordings.iter().map(|one| one.id).collect::<Vec<_>>(), expected, "{filter:?}");
        assert_eq!(found.next, None);
    };
    let none = Filter::default;
    check(none(), &[4, 3, 2, 1]);
    check(Filter { from: Some(at(3)), ..none() }, &[4, 3]);
    check(Filter { to: Some(at(3)), ..none() }, &[2, 1]);
    check(Filter { from: Some(at(2)), to: Some(at(4)), ..none() }, &[3, 2]);
    check(Filter { verdict: Some(Verdict::Degraded), ..none() }, &[2]);
    check(Filter { verdict: Some(Verdict::Failed), ..none() }, &[]);
    check(Filter { direction: Some(Direction::Outgoing), ..none() }, &[2]);
    check(Filter { owner: Some("ZOE@example.org".into()), ..none() }, &[4, 3, 1]);
    let number = |text: &str| Filter { number: Some(text.into()), ..none() };
    check(number("+49 30 1234-4711"), &[4, 3, 1]);
    check(number("4711"), &[4, 3, 1]);
    check(number("+4711"), &[]);
    check(number("4712"), &[]);
    check(number("010.0003"), &[3]);
    check(number("+1 555 0100003"), &[3]);
    check(number("alice.room-7"), &[2]);
    check(number("alice"), &[]);
    check(number("+"), &[]);
    let all = Filter { from: Some(at(1)), to: Some(at(9)), verdict: Some(Verdict::Ok), ..number("0003") };
    check(Filter { direction: Some(Direction::Incoming), owner: Some("zoe@example.org".into()), ..all }, &[3]);
}

#[test]
fn a_page_ends_at_its_limit_and_the_next_goes_on_although_the_list_changed() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in [1, 2, 3, 5, 6] {
        catalogue.ingest(&new(n), at(0)).unwrap();
    }
    let filter = Filter { limit: Some(2), ..Filter::default() };
    let page = catalogue.list(&filter, None).unwrap();
    assert_eq!(page.recordings.iter().map(|one| one.id).collect::<Vec<_>>(), [id(6), id(5)]);
    // the recording that the cursor names goes, a newer and an older one come
    catalogue.delete(id(5), at(0), "").unwrap();
    catalogue.ingest(&new(7), at(0)).unwrap();
    catalogue.ingest(&new(4), at(0)).unwrap();
    let cursor: Cursor = page.next.unwrap().to_string().parse().unwrap();
    let page = catalogue.list(&filter, Some(cursor)).unwrap();
    assert_eq!(page.recordings.iter().map(|one| one.id).collect::<Vec<_>>(), [id(4), id(3)]);
    let page = catalogue.list(&filter, page.next).unwrap();
    assert_eq!(page.recordings.iter().map(|one| one.id).collect::<Vec<_>>(), [id(2), id(1)]);
    assert_eq!(page.next, None);
    for bad in ["", "_", "1", "x_y", "1_2", "99999999999999999999_01900000000070008000000000000001"] {
        assert!(matches!(bad.parse::<Cursor>(), Err(CatalogueError::BadCursor)), "{bad:?}");
    }
}

/// Seeds that failed are kept beside this file.
fn kept(cases: u32) -> ProptestConfig {
    let file = FileFailurePersistence::Direct("tests/invariants.proptest-regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(file)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept(12))]
    /// Pages put together are the whole list, newest first, each recording once, whatever the page size and however many
    /// started in the same millisecond.
    #[test]
    fn pages_are_the_list(starts in prop::collection::vec(0..20_i64, 0..60), limit in 1..9_usize) {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = open(folder.path());
        for (n, start) in starts.iter().enumerate() {
            let mut one = new(n as u128);
            one.recording.started_at = at(*start);
            catalogue.ingest(&one, at(0)).unwrap();
        }
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let filter = Filter { limit: Some(limit), ..Filter::default() };
            let page = catalogue.list(&filter, cursor).unwrap();
            prop_assert!(page.recordings.len() <= limit);
            found.extend(page.recordings.iter().map(|one| (one.started_at, one.id)));
            cursor = page.next;
            if cursor.is_none() { break; }
            prop_assert_eq!(page.recordings.len(), limit);
        }
        let mut expected: Vec<_> = starts.iter().enumerate().map(|(n, start)| (at(*start), id(n as u128))).collect();
        expected.sort_by(|a, b| b.cmp(a));
        prop_assert_eq!(found, expected);
    }
}

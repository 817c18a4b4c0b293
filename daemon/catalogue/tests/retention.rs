//! What retention sees, remembers and deletes, and the keys that are in the catalogue alone.
#![allow(clippy::unwrap_used)]

mod sut;

use callvault_catalogue::{ArchiveState, Archived, Catalogue, Deletion, RETENTION_ROWS_MAX, RetentionRow};
use jiff::Timestamp;
use serde_json::json;
use sut::{at, id, new, open, place, sealed_key};
use uuid::Uuid;

fn filled(folder: &std::path::Path, count: u128) -> Catalogue {
    let catalogue = open(folder);
    (1..=count).for_each(|n| {
        catalogue.ingest(&new(n), at(0)).unwrap();
    });
    catalogue
}

#[test]
fn rows_come_by_their_end_in_the_order_of_their_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = filled(folder.path(), 4);
    catalogue.archived(id(2), &place(2), &[], at(0)).unwrap();
    // each lasts 61,234 ms and begins at its number
    let check = |ended_by: Timestamp, after: Option<(Timestamp, Uuid)>, expected: &[u128]| {
        let found: Vec<Uuid> = catalogue.retention_rows(ended_by, after).unwrap().iter().map(|row| row.id).collect();
        assert_eq!(found, expected.iter().map(|n| id(*n)).collect::<Vec<_>>(), "ended by {ended_by} after {after:?}");
    };
    check(at(0), None, &[]);
    check(at(61_234), None, &[]);
    check(at(61_236), None, &[1, 2]);
    check(at(99_999), None, &[1, 2, 3, 4]);
    check(at(99_999), Some((at(2), id(2))), &[3, 4]);
    check(at(99_999), Some((at(2), id(1))), &[2, 3, 4]);
    check(at(99_999), Some((at(4), id(4))), &[]);
    let second = catalogue.retention_rows(at(99_999), None).unwrap()[1];
    let expected = RetentionRow {
        id: id(2),
        started_at: at(2),
        ended_at: at(61_236),
        is_preserved: false,
        state: Some(ArchiveState::Archived),
        bytes: place(2).bytes,
    };
    assert_eq!(second, expected);
    assert_eq!(catalogue.newest_end().unwrap(), Some(at(61_238)));
    assert_eq!(open(tempfile::tempdir().unwrap().path()).newest_end().unwrap(), None);
}

#[test]
fn a_page_has_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let count = RETENTION_ROWS_MAX + 5;
    let catalogue = filled(folder.path(), count.into());
    let first = catalogue.retention_rows(Timestamp::MAX, None).unwrap();
    let last = first.last().unwrap();
    let rest = catalogue.retention_rows(Timestamp::MAX, Some((last.started_at, last.id))).unwrap();
    assert_eq!((first.len(), rest.len()), (RETENTION_ROWS_MAX as usize, 5));
}

#[test]
fn what_changed_in_the_last_moment_stays() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = filled(folder.path(), 1);
    let delete = |goes: bool| catalogue.delete_if(id(1), (at(9), "a rule"), None, &|_| goes).unwrap();
    assert_eq!(delete(false), Deletion::Kept);
    assert!(catalogue.get(id(1)).unwrap().is_some() && catalogue.tombstone(id(1)).unwrap().is_none());
    assert_eq!(delete(true), Deletion::Deleted { archive: None });
    assert!(matches!(delete(true), Deletion::AlreadyDeleted(_)));
    assert_eq!(catalogue.delete_if(id(7), (at(9), "a rule"), None, &|_| true).unwrap(), Deletion::Unknown);
}

#[test]
fn what_is_remembered_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    assert_eq!(catalogue.retention_state().unwrap(), None);
    catalogue.set_retention_state(&json!({"in_force": 1}), None).unwrap();
    catalogue.set_retention_state(&json!({"in_force": 2}), None).unwrap();
    drop(catalogue);
    assert_eq!(open(folder.path()).retention_state().unwrap(), Some(json!({"in_force": 2})));
}

#[test]
fn keys_of_archives_are_here_until_the_recording_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = filled(folder.path(), 2);
    let keys = [sealed_key(7), sealed_key(8)];
    let archived = |n| catalogue.archived_with_keys(id(n), (&place(n), &keys), &[], at(0)).unwrap();
    assert_eq!(
        (archived(1), archived(1), archived(9)),
        (Archived::Recorded, Archived::AlreadyRecorded, Archived::Gone)
    );
    catalogue.archived(id(2), &place(2), &[], at(0)).unwrap();
    assert_eq!(catalogue.archive_keys(id(1)).unwrap(), keys);
    assert_eq!((catalogue.archive_keys(id(2)).unwrap(), catalogue.archive_keys(id(9)).unwrap()), (vec![], vec![]));

    // made again, a catalogue has them too
    let other = tempfile::tempdir().unwrap();
    let again = open(other.path());
    assert_eq!(again.take_over(&catalogue).unwrap(), Vec::<String>::new());
    assert_eq!(again.archive_keys(id(1)).unwrap(), keys);
    drop(again);

    let is_in_a_file = |bytes: &[u8]| {
        std::fs::read_dir(folder.path()).unwrap().any(|entry| {
            std::fs::read(entry.unwrap().path()).unwrap().windows(bytes.len()).any(|window| window == bytes)
        })
    };
    assert!(is_in_a_file(&keys[1].to_bytes()));
    catalogue.delete(id(1), at(9), "a rule").unwrap();
    assert_eq!(catalogue.archive_keys(id(1)).unwrap(), []);
    assert!(!keys.iter().any(|key| is_in_a_file(&key.to_bytes())), "a key is still in a file of the database");
}

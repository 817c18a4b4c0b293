//! Recordings of one call are found from each other, and what they share is not on the disk.
#![allow(clippy::unwrap_used)]

mod sut;

use callvault_catalogue::{Filter, LINKED_MAX, LINKS_MAX, NewRecording};
use sut::{at, contains, file, id, new, open, recording};

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Recording `n` with these texts, begun so many milliseconds after the first.
fn with(n: u128, links: &[&str], after_ms: i64) -> NewRecording {
    let mut new = new(n);
    new.recording.started_at = at(after_ms);
    NewRecording { links: links.iter().map(|text| (*text).to_owned()).collect(), ..new }
}

#[test]
fn recordings_that_share_a_text_are_linked() {
    fn check(second: &NewRecording, expected: bool) {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = open(folder.path());
        catalogue.ingest(&with(1, &["a", "b"], 0), at(0)).unwrap();
        catalogue.ingest(second, at(0)).unwrap();
        let other = second.recording.id;
        let found = |one| catalogue.get(one).unwrap().unwrap().linked;
        assert_eq!(found(id(1)), if expected { vec![other] } else { vec![] }, "{:?}", second.links);
        assert_eq!(found(other), if expected { vec![id(1)] } else { vec![] }, "{:?}", second.links);
        let listed = catalogue.list(&Filter::default(), None).unwrap().recordings;
        assert!(listed.iter().all(|one| one.linked.is_empty() != expected));
        let json = serde_json::to_value(&listed[0]).unwrap();
        assert_eq!(json["linked"].as_array().unwrap().len(), usize::from(expected));
    }
    check(&with(2, &["b"], 0), true);
    check(&with(2, &["c", "a", "b"], 0), true);
    check(&with(2, &["c"], 0), false);
    check(&with(2, &[], 0), false);
    // Some clients count from one again.
    check(&with(2, &["a"], DAY_MS), true);
    check(&with(2, &["a"], DAY_MS + 1), false);
}

#[test]
fn what_is_deleted_is_linked_with_nothing_and_comes_back_with_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in 1..=3 {
        catalogue.ingest(&with(n, &["a"], 0), at(0)).unwrap();
    }
    assert_eq!(catalogue.get(id(1)).unwrap().unwrap().linked, [id(2), id(3)]);
    catalogue.delete(id(2), at(0), "test").unwrap();
    catalogue.ingest(&with(2, &["a"], 0), at(0)).unwrap();
    assert_eq!(catalogue.get(id(1)).unwrap().unwrap().linked, [id(3)]);
    let rows: i64 = rusqlite::Connection::open(folder.path().join("catalogue.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM call_links", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 2);
}

#[test]
fn links_hold_over_a_restart_and_are_not_readable() {
    let folder = tempfile::tempdir().unwrap();
    let text = "tracking-of-a-call-4711";
    open(folder.path()).ingest(&with(1, &[text], 0), at(0)).unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&with(2, &[text], 0), at(0)).unwrap();
    assert_eq!(catalogue.get(id(1)).unwrap().unwrap().linked, [id(2)]);
    let other = tempfile::tempdir().unwrap();
    let elsewhere = open(other.path());
    elsewhere.ingest(&with(1, &[text], 0), at(0)).unwrap();
    let link = |folder: &std::path::Path| -> Vec<u8> {
        rusqlite::Connection::open(folder.join("catalogue.db"))
            .unwrap()
            .query_row("SELECT link FROM call_links LIMIT 1", [], |row| row.get(0))
            .unwrap()
    };
    // The hash is under a key of the catalogue's own.
    assert_ne!(link(folder.path()), link(other.path()));
    for name in ["catalogue.db", "catalogue.db-wal"] {
        assert!(!contains(&file(folder.path(), name), text.as_bytes()));
    }
}

#[test]
fn links_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    let many: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    catalogue.ingest(&NewRecording { links: many, ..new(1) }, at(0)).unwrap();
    for n in 2..=100 {
        catalogue.ingest(&with(n, &["0"], 0), at(0)).unwrap();
    }
    assert_eq!(catalogue.get(id(1)).unwrap().unwrap().linked.len(), LINKED_MAX);
    assert!(LINKS_MAX < 1_000 && recording(1).linked.is_empty());
    catalogue.ingest(&with(200, &["999"], 0), at(0)).unwrap();
    assert!(catalogue.get(id(200)).unwrap().unwrap().linked.is_empty());
}

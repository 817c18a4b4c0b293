//! A catalogue made again from what can be read of another.
#![allow(clippy::unwrap_used)]

mod sut;

use std::path::Path;

use callvault_catalogue::{ArchiveState, Catalogue, CatalogueError, Lane, Restored};
use sut::{at, boxed, generation, id, keyring, new, open, place};

/// Everything that can be read of `old`, in a new catalogue in `folder`.
fn rebuilt(old: &Catalogue, folder: &Path) -> Catalogue {
    let catalogue = open(folder);
    catalogue.bury(&old.buried()).unwrap();
    for id in old.ids() {
        let Ok(Some(recording)) = old.get(id) else { continue };
        let lanes = old.lanes(id).unwrap_or_default();
        let one = Restored { recording, lanes, owed: Vec::new(), links: Vec::new() };
        catalogue.restore(&[one], at(0)).unwrap();
    }
    catalogue
}

#[test]
fn what_is_restored_is_as_it_was() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = open(one.path());
    for n in 1..=4 {
        old.ingest(&new(n), at(0)).unwrap();
    }
    old.archived(id(1), &place(1), &[], at(0)).unwrap();
    old.archive_failed(id(2), "no").unwrap();
    old.archived(id(4), &place(4), &[], at(0)).unwrap();
    old.delete(id(4), at(7), "by a test").unwrap();

    let catalogue = rebuilt(&old, other.path());
    for n in 1..=4 {
        assert_eq!(catalogue.get(id(n)).unwrap(), old.get(id(n)).unwrap(), "{n}");
    }
    for n in 1..=3 {
        assert_eq!(catalogue.lanes(id(n)).unwrap(), old.lanes(id(n)).unwrap());
    }
    assert_eq!(catalogue.get(id(1)).unwrap().unwrap().archive.place(), Some(place(1)));
    assert_eq!(catalogue.get(id(2)).unwrap().unwrap().archive.state, ArchiveState::Failed);
    assert_eq!(catalogue.tombstone(id(4)).unwrap(), old.tombstone(id(4)).unwrap());
    assert_eq!(catalogue.deletions_owed().unwrap(), old.deletions_owed().unwrap());
    // the journal is not taken in again, and what was deleted does not come back
    assert!(catalogue.ingest(&new(1), at(0)).is_ok());
    let again = Restored { recording: sut::recording(4), lanes: Vec::new(), owed: Vec::new(), links: Vec::new() };
    assert_eq!(catalogue.restore(&[again], at(0)).unwrap(), 0);
    assert!(catalogue.get(id(4)).unwrap().is_none());
}

#[test]
fn what_is_restored_is_linked_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    let one = |n: u128| Restored {
        recording: sut::recording(n),
        lanes: vec![Lane { generation: generation(9), ..sut::lane(9, n as u32, 1) }],
        owed: Vec::new(),
        links: vec!["call".into()],
    };
    assert_eq!(catalogue.restore(&[one(1), one(2), one(1)], at(0)).unwrap(), 2);
    assert_eq!(catalogue.get(id(1)).unwrap().unwrap().linked, [id(2)]);
    assert_eq!(catalogue.ingested_lanes(generation(9)).unwrap(), [1, 2].into());
}

/// A catalogue of 400 recordings is damaged: by `damage`, which gets the file's bytes.
fn check_damaged(damage: impl Fn(&mut [u8]), found: std::ops::RangeInclusive<usize>) {
    let folder = tempfile::tempdir().unwrap();
    {
        let catalogue = open(folder.path());
        let all: Vec<_> = (1..=400)
            .map(|n| Restored { recording: sut::recording(n), lanes: Vec::new(), owed: Vec::new(), links: Vec::new() })
            .collect();
        assert_eq!(catalogue.restore(&all, at(0)).unwrap(), 400);
    }
    let path = folder.path().join("catalogue.db");
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let opened = Catalogue::open(&path, &keyring(1, &[]), boxed(3));
    let rows =
        opened.as_ref().map_or(0, |old| old.ids().iter().filter(|id| matches!(old.get(**id), Ok(Some(_)))).count());
    assert!(found.contains(&rows), "{rows}");
    if let Err(error) = opened {
        assert!(matches!(error, CatalogueError::Corrupt { .. } | CatalogueError::Foreign(_)), "{error}");
        assert!(error.to_string().contains("callvaultctl recover"), "{error}");
    }
}

#[test]
fn of_a_damaged_catalogue_what_is_whole_is_found() {
    check_damaged(|_| {}, 400..=400);
    // pages here and there, some of which have recordings in them
    let here_and_there = |bytes: &mut [u8]| {
        for part in 1..=5 {
            let at = bytes.len() * part / 6 / 4_096 * 4_096;
            bytes[at..at + 8_192].fill(0xa5);
        }
    };
    check_damaged(here_and_there, 200..=399);
    check_damaged(|bytes| bytes[400 * 1024..404 * 1024].fill(0), 300..=400);
    // the beginning, with the schema
    check_damaged(|bytes| bytes[..100].fill(0xff), 0..=0);
    check_damaged(|bytes| bytes[..8192].fill(0), 0..=0);
}

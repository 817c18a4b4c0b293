//! What is on the disk: nothing readable, nothing that can be moved about, nothing that stays.
#![allow(clippy::unwrap_used)]

mod sut;

use std::os::unix::fs::PermissionsExt as _;

use callvault_catalogue::{Catalogue, CatalogueError, Filter};
use callvault_seal::SealError;
use sut::{at, boxed, contains, file, id, keyring, new, open, place};

const FILES: [&str; 3] = ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"];

#[test]
fn no_number_no_name_and_no_identifier_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in 1..=30 {
        catalogue.ingest(&new(n), at(0)).unwrap();
    }
    catalogue.archived(id(1), &place(1), &[], at(0)).unwrap();
    catalogue.list(&Filter { number: Some("4711".into()), ..Filter::default() }, None).unwrap();
    let check = |found| {
        let bytes: Vec<u8> = FILES.iter().flat_map(|name| file(folder.path(), name)).collect();
        for private in [
            sut::NUMBER,
            &sut::NUMBER[1..],
            "Quarterstaff",
            "zoe@",
            "callhalf",
            "track-815",
            "555",
            "participant",
            "PCMU",
        ] {
            assert!(!contains(&bytes, private.as_bytes()), "{private} is on the disk");
        }
        // the search can find: this is stored in the clear
        assert_eq!(contains(&bytes, place(1).path.as_bytes()), found);
    };
    check(true);
    catalogue.delete(id(1), at(0), "test").unwrap();
    drop(catalogue);
    let catalogue = open(folder.path());
    catalogue.settled(&[format!("delete:{}", id(1))]).unwrap();
    catalogue.removed(id(1)).unwrap();
    catalogue.delete(id(2), at(0), "test").unwrap();
    check(false);
}

#[test]
fn the_files_are_their_owners() {
    let folder = tempfile::tempdir().unwrap();
    let _catalogue = open(folder.path());
    for name in FILES {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
}

#[test]
fn a_deleted_row_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for n in 1..=3 {
        catalogue.ingest(&new(n), at(0)).unwrap();
    }
    let sealed: Vec<u8> = rusqlite::Connection::open(folder.path().join("catalogue.db"))
        .unwrap()
        .query_row("SELECT details FROM recordings WHERE id = ?1", [id(2).to_string()], |row| row.get(0))
        .unwrap();
    let there = |sealed: &[u8]| FILES.iter().any(|name| contains(&file(folder.path(), name), sealed));
    // a stretch of the ciphertext, short enough not to be split between pages
    assert!(there(&sealed[100..140]));
    catalogue.delete(id(2), at(0), "test").unwrap();
    assert!(!there(&sealed[100..140]));
}

#[test]
fn values_that_were_moved_or_changed_are_noticed() {
    let check = |change: &str| {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = open(folder.path());
        catalogue.ingest(&new(1), at(0)).unwrap();
        catalogue.ingest(&new(2), at(0)).unwrap();
        drop(catalogue);
        let db = rusqlite::Connection::open(folder.path().join("catalogue.db")).unwrap();
        let change = change.replace("$1", &id(1).to_string()).replace("$2", &id(2).to_string());
        assert_eq!(db.execute(&change, []).unwrap(), 1);
        drop(db);
        let catalogue = open(folder.path());
        let error = catalogue.get(id(1)).unwrap_err();
        assert!(matches!(error, CatalogueError::Damaged { id: bad, .. } if bad == id(1)), "{change}: {error}");
        assert!(catalogue.get(id(2)).unwrap().is_some());
        let listed = catalogue.list(&Filter::default(), None).unwrap();
        assert_eq!(listed.recordings.iter().map(|one| one.id).collect::<Vec<_>>(), [id(2)]);
        assert_eq!(listed.damaged, [id(1)]);
    };
    check("UPDATE recordings SET details = (SELECT details FROM recordings WHERE id = '$2') WHERE id = '$1'");
    check("UPDATE recordings SET details = facts WHERE id = '$1'");
    check("UPDATE recordings SET details = substr(details, 1, length(details) - 1) WHERE id = '$1'");
    check("UPDATE recordings SET details = CAST(x'02' || substr(details, 2) AS BLOB) WHERE id = '$1'");
    check("UPDATE recordings SET details = x'' WHERE id = '$1'");
    check("UPDATE recordings SET details = x'01020304' WHERE id = '$1'");
    check("UPDATE recordings SET verdict = 'splendid' WHERE id = '$1'");
    check("UPDATE recordings SET duration_ms = -1 WHERE id = '$1'");
    check("UPDATE recordings SET started_at_ms = 9223372036854775807 WHERE id = '$1'");
    check("UPDATE recordings SET archive_sha256 = x'00' WHERE id = '$1'");
}

#[test]
fn facts_that_were_exchanged_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).ingest(&new(1), at(0)).unwrap();
    let db = rusqlite::Connection::open(folder.path().join("catalogue.db")).unwrap();
    db.execute("UPDATE recordings SET facts = details", []).unwrap();
    let error = open(folder.path()).get(id(1)).unwrap_err();
    assert!(matches!(error, CatalogueError::Damaged { column: "facts", .. }), "{error}");
}

#[test]
fn it_opens_with_a_key_of_the_ring_and_follows_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalogue.db");
    let open = |current, older: &[u64]| Catalogue::open(&path, &keyring(current, older), boxed(current + 100));
    open(1, &[]).unwrap().ingest(&new(1), at(0)).unwrap();
    let missing = open(2, &[]).unwrap_err();
    assert!(matches!(missing, CatalogueError::Key(SealError::NoPrivateKey { .. })), "{missing}");
    open(2, &[3, 1]).unwrap().ingest(&new(2), at(0)).unwrap();
    // the rotation sealed the key to the new one too: the old one may go
    let catalogue = open(2, &[]).unwrap();
    assert!(catalogue.get(id(1)).unwrap().is_some() && catalogue.get(id(2)).unwrap().is_some());
}

#[test]
fn other_files_and_newer_versions_are_refused_and_not_touched() {
    let check = |sql: &str, expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalogue.db");
        if sql.starts_with("PRAGMA") {
            drop(open(folder.path()));
        }
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = Catalogue::open(&path, &keyring(1, &[]), boxed(1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    };
    check("PRAGMA user_version = 1000", "it is at version 1000, this callvaultd knows up to");
    check("CREATE TABLE notes (text TEXT)", "another program's database");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalogue.db");
    std::fs::write(&path, "this is not a database, it is a text of some length".repeat(50)).unwrap();
    let error = Catalogue::open(&path, &keyring(1, &[]), boxed(1)).unwrap_err().to_string();
    assert!(error.contains("another program's database"), "{error}");
}

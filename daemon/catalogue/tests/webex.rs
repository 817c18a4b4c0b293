//! What is remembered of Webex: sealed, whole or not at all, and known to the next start.
#![allow(clippy::unwrap_used)]

mod sut;

use std::collections::BTreeMap;

use callvault_access::{Action, Caller, audit::Entry};
use callvault_catalogue::{Catalogue, Synchronised, WebexPerson, WebexRecord, WebexRun};
use callvault_directory::User;
use rusqlite::Connection;
use serde_json::json;
use sut::{at, contains, id, open};
use uuid::Uuid;

fn entry() -> Entry {
    Entry::new(&Caller::appliance("webex"), Action::ChangeUsers, at(1_000))
}

fn user(n: u128) -> User {
    User { id: id(n), webex_email: format!("secret-user-{n}@example.com"), ..User::default() }
}

fn person(n: u128) -> WebexPerson {
    WebexPerson {
        person_id: format!("secret-person-{n}"),
        native: Some(format!("secret-native-{n}")),
        ..WebexPerson::default()
    }
}

fn run(n: u128) -> WebexRun {
    WebexRun { id: id(n), at: at(i64::try_from(n).unwrap()), report: json!({"changes": ["secret-change"]}) }
}

fn synchronise(catalogue: &Catalogue, numbers: &[u128], run_number: u128) {
    let users: Vec<User> = numbers.iter().map(|n| user(*n)).collect();
    let people: BTreeMap<Uuid, WebexPerson> = numbers.iter().map(|n| (id(*n), person(*n))).collect();
    let run = run(run_number);
    let change = Synchronised { users: &users, people: &people, run: &run };
    catalogue.put_synchronised(&change, &entry()).unwrap();
}

#[test]
fn an_authorisation_is_there_after_a_start_and_on_no_disk_in_the_open() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    assert_eq!(catalogue.webex_grant().unwrap(), None);
    catalogue.set_webex_grant(&json!({"refresh": "secret-token-1"})).unwrap();
    catalogue.set_webex_grant(&json!({"refresh": "secret-token-2"})).unwrap();
    drop(catalogue);
    assert_eq!(open(folder.path()).webex_grant().unwrap(), Some(json!({"refresh": "secret-token-2"})));
    for file in std::fs::read_dir(folder.path()).unwrap() {
        assert!(!contains(&std::fs::read(file.unwrap().path()).unwrap(), b"secret-token"));
    }
}

#[test]
fn a_synchronisation_is_kept_whole_and_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    synchronise(&catalogue, &[1, 2], 10);
    synchronise(&catalogue, &[2, 3], 11);
    let people: Vec<Uuid> = catalogue.webex_people().unwrap().into_keys().collect();
    assert_eq!(people, [id(2), id(3)], "who is not there any more is none of Webex's");
    let runs: Vec<Uuid> = catalogue.webex_runs(10).unwrap().iter().map(|run| run.id).collect();
    assert_eq!(runs, [id(11), id(10)]);
    assert_eq!(catalogue.users().unwrap().0.len(), 3);
    drop(catalogue);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        assert!(!contains(&std::fs::read(file.unwrap().path()).unwrap(), b"secret-"));
    }
}

#[test]
fn one_that_fails_half_way_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    synchronise(&catalogue, &[1], 10);
    let db = Connection::open(folder.path().join("catalogue.db")).unwrap();
    db.execute_batch("CREATE TRIGGER no BEFORE INSERT ON webex_runs BEGIN SELECT RAISE(ABORT, 'no'); END").unwrap();
    let (users, people, run) = ([user(2)], BTreeMap::from([(id(2), person(2))]), run(11));
    let change = Synchronised { users: &users, people: &people, run: &run };
    assert!(catalogue.put_synchronised(&change, &entry()).is_err());
    assert_eq!(catalogue.users().unwrap().0.len(), 1);
    assert_eq!(catalogue.webex_people().unwrap().into_keys().collect::<Vec<_>>(), [id(1)]);
}

#[test]
fn old_reports_go() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    (1..=120).for_each(|n| catalogue.put_webex_run(&run(n)).unwrap());
    let runs = catalogue.webex_runs(1_000).unwrap();
    assert_eq!((runs.len(), runs[0].id, runs[99].id), (100, id(120), id(21)));
}

#[test]
fn a_record_that_is_read_twice_is_kept_once_and_as_it_was_last() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    let record = |name: &str, s: i64, content: &str| WebexRecord {
        name: name.to_owned(),
        begun_at: at(s * 1_000),
        content: json!(content),
    };
    let first = [record("a", 10, "secret-one"), record("b", 20, "two")];
    catalogue.put_webex_records(&first, &json!({"to": 1})).unwrap();
    catalogue.put_webex_records(&[record("a", 11, "three")], &json!({"to": 2})).unwrap();
    assert_eq!(catalogue.webex_records(at(0), at(20_000)).unwrap(), [json!("three")]);
    assert_eq!(catalogue.webex_records(at(0), at(20_001)).unwrap(), [json!("three"), json!("two")]);
    assert_eq!(catalogue.webex_read_to().unwrap(), Some(json!({"to": 2})));
    assert_eq!(catalogue.forget_webex_records(at(20_000)).unwrap(), 1);
    assert_eq!(catalogue.webex_records(at(0), at(99_000)).unwrap(), [json!("two")]);
}

#[test]
fn a_catalogue_that_is_made_again_keeps_the_authorisation_and_who_came_from_webex() {
    let (old_folder, new_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (open(old_folder.path()), open(new_folder.path()));
    old.set_webex_grant(&json!("grant")).unwrap();
    synchronise(&old, &[1], 10);
    assert_eq!(new.take_over(&old).unwrap(), Vec::<String>::new());
    assert_eq!(new.webex_grant().unwrap(), Some(json!("grant")));
    assert_eq!(new.webex_people().unwrap(), old.webex_people().unwrap());
}

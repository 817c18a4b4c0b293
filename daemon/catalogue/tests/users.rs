//! Users and what was not kept, in the catalogue.

mod sut;

use callvault_access::{Action, Caller, audit::Entry};
use callvault_catalogue::{Catalogue, Direction, Discard, Traffic};
use callvault_directory::User;
use jiff::Timestamp;
use sut::{contains, file, open};
use uuid::Uuid;

fn entry() -> Entry {
    Entry::new(&Caller::operator("here"), Action::ChangeUsers, Timestamp::UNIX_EPOCH)
}

fn user(id: u128, email: &str) -> User {
    User {
        id: Uuid::from_u128(id),
        webex_email: email.to_owned(),
        first_name: "Annabella".into(),
        pin: "4711".into(),
        ..User::default()
    }
}

fn emails(catalogue: &Catalogue) -> Vec<String> {
    let found = catalogue.users().unwrap();
    assert!(found.damaged.is_empty());
    found.users.into_iter().map(|user| user.webex_email).collect()
}

#[test]
fn users_are_put_and_read_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let ann = User { group: "Sales".into(), supervised_groups: vec!["Legal".into()], ..user(1, "ann@example.com") };
    open(folder.path()).put_users(&[ann.clone(), user(2, "bob@example.com")], &entry()).unwrap();
    let catalogue = open(folder.path());
    assert!(catalogue.users().unwrap().users[0] == ann);
    let gone = User { removed_at: Some(Timestamp::UNIX_EPOCH), ..ann };
    catalogue.put_users(std::slice::from_ref(&gone), &entry()).unwrap();
    assert!(catalogue.users().unwrap().users[0] == gone);
    assert_eq!(emails(&catalogue), ["ann@example.com", "bob@example.com"]);
    assert_eq!(catalogue.audit_head().unwrap().entries, 2);
}

#[test]
fn a_change_is_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.put_users(&[user(1, "ann@example.com")], &entry()).unwrap();
    // the second of them has the e-mail of another
    let error = catalogue.put_users(&[user(2, "bob@example.com"), user(3, "ANN@example.com")], &entry()).unwrap_err();
    assert!(error.to_string().contains("change the users"), "{error}");
    assert_eq!(emails(&catalogue), ["ann@example.com"]);
    assert_eq!(catalogue.audit_head().unwrap().entries, 1);
}

#[test]
fn nothing_of_a_user_is_readable_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.put_users(&[user(1, "ann@example.com")], &entry()).unwrap();
    catalogue.note_discard(&discard(1, "blacklist", 0)).unwrap();
    let bytes = [file(folder.path(), "catalogue.db"), file(folder.path(), "catalogue.db-wal")].concat();
    assert!(contains(&bytes, b"blacklist"));
    for text in ["ann@example.com", "Annabella", "4711", "+390501"] {
        assert!(!contains(&bytes, text.as_bytes()), "{text}");
    }
}

fn discard(id: u128, rule: &str, at_s: i64) -> Discard {
    Discard {
        id: Uuid::from_u128(id),
        at: Timestamp::from_second(at_s).unwrap(),
        rule: rule.to_owned(),
        owner_id: None,
        owner: None,
        direction: Direction::Incoming,
        traffic: Traffic::External,
        local_number: None,
        remote_number: Some("+390501".into()),
    }
}

#[test]
fn what_was_not_kept_is_found_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    for (id, rule, at_s) in [(1, "blacklist", 10), (2, "direction", 20), (3, "blacklist", 30), (1, "again", 40)] {
        catalogue.note_discard(&discard(id, rule, at_s)).unwrap();
    }
    let check = |rule: Option<&str>, limit: u32, expected: &[u128]| {
        let found: Vec<u128> = catalogue.discards(rule, limit).unwrap().iter().map(|one| one.id.as_u128()).collect();
        assert_eq!(found, expected, "{rule:?} {limit}");
    };
    check(None, 10, &[3, 2, 1]);
    check(None, 2, &[3, 2]);
    check(Some("blacklist"), 10, &[3, 1]);
    check(Some("traffic"), 10, &[]);
    assert_eq!(catalogue.forget_discards(Timestamp::from_second(20).unwrap()).unwrap(), 1);
    check(None, 10, &[3, 2]);
    assert!(catalogue.discards(None, 1).unwrap()[0] == discard(3, "blacklist", 30));
}

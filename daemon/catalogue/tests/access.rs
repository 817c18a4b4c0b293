//! The audit log, tokens and decrees: what stays, what shows, and what cannot be undone.
#![allow(clippy::unwrap_used)]

mod sut;

use std::path::Path;

use callvault_access::{
    Action, Caller, Level,
    audit::{Entry, Outcome},
};
use callvault_catalogue::{AuditFilter, AuditHead, Catalogue, CatalogueError, Decree, Deletion, Token};
use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::json;
use sut::{at, contains, file, id, new, open};
use uuid::Uuid;

fn caller(name: &str) -> Caller {
    Caller::of_token(name, Level::Administrator, "192.0.2.7")
}

fn entry(n: i64) -> Entry {
    let action = [Action::Play, Action::Search, Action::Delete][n as usize % 3];
    let name = if n % 2 == 0 { "zoe@example.org" } else { "bob@example.org" };
    Entry::new(&caller(name), action, at(n * 1_000)).on(id(n as u128)).with("number", "+4930123")
}

/// A log of so many entries.
fn log(folder: &Path, entries: i64) -> Catalogue {
    let catalogue = open(folder);
    for n in 1..=entries {
        assert_eq!(catalogue.audit(&entry(n)).unwrap().entries, n as u64);
    }
    catalogue
}

/// SQL by somebody who has the file, and has taken the triggers away.
fn tamper(folder: &Path, sql: &str) {
    let db = Connection::open(folder.join("catalogue.db")).unwrap();
    db.execute_batch("DROP TRIGGER IF EXISTS audit_is_not_changed; DROP TRIGGER IF EXISTS audit_is_not_cut").unwrap();
    db.execute_batch(sql).unwrap();
}

fn findings(catalogue: &Catalogue, noted: Option<AuditHead>) -> Vec<u64> {
    catalogue.audit_check(None, noted).unwrap().findings.into_iter().map(|(number, _)| number).collect()
}

#[test]
fn what_is_written_is_read_again_and_holds() {
    let folder = tempfile::tempdir().unwrap();
    let head = log(folder.path(), 7).audit_head().unwrap();
    let catalogue = open(folder.path());
    assert_eq!(catalogue.audit_head().unwrap(), head);
    assert_eq!(head.to_string().parse::<AuditHead>().unwrap(), head);
    let check = catalogue.audit_check(None, Some(head)).unwrap();
    assert_eq!((check.checked, check.head, check.findings), (7, head, Vec::new()));
    let all = catalogue.audit_entries(&AuditFilter { oldest_first: true, ..AuditFilter::default() }, None).unwrap();
    let expected: Vec<(u64, Entry)> = (1..=7).map(|n| (n as u64, entry(n))).collect();
    assert!(all.entries == expected && all.next.is_none());
    assert!(findings(&open(tempfile::tempdir().unwrap().path()), None).is_empty(), "an empty log is well");
}

#[test]
fn an_entry_of_each_kind_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = log(folder.path(), 12);
    catalogue.audit(&Entry { outcome: Outcome::Refused, ..entry(13) }).unwrap();
    let check = |filter: AuditFilter, expected: &[u64]| {
        let page = catalogue.audit_entries(&filter, None).unwrap();
        assert_eq!(page.entries.iter().map(|(number, _)| *number).collect::<Vec<_>>(), expected);
    };
    check(AuditFilter { limit: Some(2), ..AuditFilter::default() }, &[13, 12]);
    check(AuditFilter { limit: Some(2), oldest_first: true, ..AuditFilter::default() }, &[1, 2]);
    check(AuditFilter { from: Some(at(11_000)), to: Some(at(13_000)), ..AuditFilter::default() }, &[12, 11]);
    check(AuditFilter { action: Some("play".into()), ..AuditFilter::default() }, &[12, 9, 6, 3]);
    check(
        AuditFilter { name: Some("Bob@Example.org".into()), from: Some(at(10_000)), ..AuditFilter::default() },
        &[13, 11],
    );
    check(AuditFilter { recording: Some(id(5)), ..AuditFilter::default() }, &[5]);
    check(AuditFilter { outcome: Some(Outcome::Refused), ..AuditFilter::default() }, &[13]);
    let filter = AuditFilter { limit: Some(5), ..AuditFilter::default() };
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = catalogue.audit_entries(&filter, after).unwrap();
        seen.extend(page.entries.into_iter().map(|(number, _)| number));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (1..=13).rev().collect::<Vec<u64>>());
}

#[test]
fn whatever_is_done_to_the_log_shows() {
    fn check(sql: &str, expected: &[u64]) {
        let folder = tempfile::tempdir().unwrap();
        drop(log(folder.path(), 6));
        tamper(folder.path(), sql);
        assert_eq!(findings(&open(folder.path()), None), expected, "{sql}");
    }
    check("UPDATE audit SET at_ms = at_ms + 1 WHERE number = 3", &[3]);
    check("UPDATE audit SET sealed = (SELECT sealed FROM audit WHERE number = 2) WHERE number = 4", &[4, 4]);
    check("UPDATE audit SET link = zeroblob(32) WHERE number = 4", &[4, 5]);
    check("UPDATE audit SET link = x'00' WHERE number = 4", &[4]);
    check("DELETE FROM audit WHERE number = 1", &[2]);
    check("DELETE FROM audit WHERE number = 3", &[4]);
    check("DELETE FROM audit WHERE number > 4", &[6]);
    check("DELETE FROM audit", &[6]);
    check("DELETE FROM audit; DELETE FROM meta WHERE name = 'audit_head'", &[]);
    check("DELETE FROM meta WHERE name = 'audit_head'", &[6]);
    check("UPDATE meta SET value = zeroblob(80) WHERE name = 'audit_head'", &[6]);
}

#[test]
fn an_end_that_was_cut_off_stays_missing() {
    let folder = tempfile::tempdir().unwrap();
    drop(log(folder.path(), 6));
    tamper(folder.path(), "DELETE FROM audit WHERE number > 4");
    let catalogue = open(folder.path());
    assert_eq!(catalogue.audit(&entry(7)).unwrap().entries, 7, "no number is given twice");
    assert_eq!(findings(&catalogue, None), [7]);
}

#[test]
fn an_end_that_was_cut_off_shows_against_what_was_noted() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = log(folder.path(), 4);
    let noted = catalogue.audit_head().unwrap();
    drop(catalogue);
    tamper(folder.path(), "DELETE FROM audit; DELETE FROM meta WHERE name = 'audit_head'");
    let catalogue = open(folder.path());
    assert_eq!(findings(&catalogue, Some(noted)), [4]);
    // nor does it help to write as many again
    for n in 1..=5 {
        catalogue.audit(&entry(n + 50)).unwrap();
    }
    assert_eq!(findings(&catalogue, None), [0; 0]);
    assert_eq!(findings(&catalogue, Some(noted)), [4]);
}

#[test]
fn the_log_cannot_be_changed_by_sql_as_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let _catalogue = log(folder.path(), 2);
    let db = Connection::open(folder.path().join("catalogue.db")).unwrap();
    for sql in ["UPDATE audit SET at_ms = 0", "DELETE FROM audit WHERE number = 2"] {
        let error = db.execute(sql, []).unwrap_err().to_string();
        assert!(error.contains("only appended to"), "{error}");
    }
}

#[test]
fn the_tail_is_checked_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    drop(log(folder.path(), 20));
    tamper(folder.path(), "UPDATE audit SET at_ms = 0 WHERE number = 5");
    let catalogue = open(folder.path());
    let check = |tail, checked: u64, findings: &[u64]| {
        let found = catalogue.audit_check(tail, None).unwrap();
        let numbers: Vec<u64> = found.findings.iter().map(|(number, _)| *number).collect();
        assert_eq!((found.checked, numbers.as_slice()), (checked, findings), "{tail:?}");
    };
    check(None, 20, &[5]);
    check(Some(16), 17, &[5]);
    check(Some(10), 11, &[]);
    check(Some(1_000), 20, &[5]);
}

#[test]
fn nothing_personal_of_access_is_readable_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = log(folder.path(), 3);
    catalogue.create_token(&token(1, None), &[7; 32], &entry(4)).unwrap();
    catalogue.decree(Decree::RecordingStopped, &json!({"reason": "Zoe is ill"}), &entry(5)).unwrap();
    for name in ["catalogue.db", "catalogue.db-wal"] {
        let bytes = file(folder.path(), name);
        for private in ["zoe@", "bob@", "192.0.2.7", "+4930123", "Zoe", "for the script"] {
            assert!(!contains(&bytes, private.as_bytes()), "{private} is in {name}");
        }
    }
}

#[test]
fn a_deletion_and_its_entry_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.ingest(&new(1), at(0)).unwrap();
    // a log that cannot be written keeps the recording
    let db = Connection::open(folder.path().join("catalogue.db")).unwrap();
    db.execute_batch("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END").unwrap();
    assert!(catalogue.delete_audited(id(1), at(1), "by hand", Some(&entry(1))).is_err());
    assert!(catalogue.get(id(1)).unwrap().is_some());
    db.execute_batch("DROP TRIGGER full").unwrap();
    let done = catalogue.delete_audited(id(1), at(1), "by hand", Some(&entry(1))).unwrap();
    assert!(matches!(done, Deletion::Deleted { .. }));
    assert_eq!(catalogue.audit_head().unwrap().entries, 1);
    // what was not done is not in it
    catalogue.delete_audited(id(1), at(2), "by hand", Some(&entry(1))).unwrap();
    catalogue.delete_audited(id(2), at(2), "by hand", Some(&entry(1))).unwrap();
    assert_eq!(catalogue.audit_head().unwrap().entries, 1);
}

fn token(n: u128, expires_ms: Option<i64>) -> Token {
    Token {
        id: id(n),
        name: "for the script".into(),
        level: Level::Base,
        user: Some(Uuid::from_u128(9)),
        created_at: at(0),
        expires_at: expires_ms.map(at),
        session: false,
        revoked_at: None,
        used_on: None,
    }
}

#[test]
fn a_token_is_found_by_its_hash_until_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.create_token(&token(1, None), &[1; 32], &entry(1)).unwrap();
    catalogue.create_token(&token(2, Some(10)), &[2; 32], &entry(2)).unwrap();
    assert_eq!(catalogue.token_of(&[1; 32]).unwrap(), Some(token(1, None)));
    assert_eq!(catalogue.token_of(&[3; 32]).unwrap(), None);
    assert!(token(2, Some(10)).is_good(at(9)) && !token(2, Some(10)).is_good(at(10)));
    catalogue.token_used(id(1), at(0)).unwrap();
    let used_on = catalogue.tokens().unwrap()[0].used_on.unwrap();
    assert_eq!(used_on.as_millisecond() % 86_400_000, 0, "the day alone is kept");
    let revoked = catalogue.revoke_token(id(1), at(5), &entry(3)).unwrap().unwrap();
    assert_eq!((revoked.revoked_at, revoked.used_on), (Some(at(5)), Some(used_on)));
    assert_eq!(catalogue.token_of(&[1; 32]).unwrap(), None);
    let again = catalogue.revoke_token(id(1), at(6), &entry(4)).unwrap().unwrap();
    assert_eq!(again.revoked_at, Some(at(5)));
    assert_eq!(catalogue.revoke_token(id(3), at(6), &entry(5)).unwrap(), None);
    assert_eq!(catalogue.tokens().unwrap().len(), 2);
    assert_eq!(catalogue.audit_head().unwrap().entries, 4, "every change is in the log, and nothing else");
}

#[test]
fn a_token_is_not_made_another_by_sql() {
    let check = |sql: &str| {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = open(folder.path());
        catalogue.create_token(&token(1, None), &[1; 32], &entry(1)).unwrap();
        let administrators = Token { level: Level::Administrator, user: None, ..token(2, None) };
        catalogue.create_token(&administrators, &[2; 32], &entry(2)).unwrap();
        tamper(folder.path(), sql);
        assert!(matches!(catalogue.token_of(&[1; 32]), Err(CatalogueError::Damaged { .. })), "{sql}");
    };
    check(&format!(
        "UPDATE tokens SET details = (SELECT details FROM tokens WHERE id = '{}') WHERE id = '{}'",
        id(2),
        id(1)
    ));
    check(&format!(
        "UPDATE tokens SET hash = NULL WHERE id = '{}'; UPDATE tokens SET hash = x'{}' WHERE id = '{}'",
        id(1),
        "01".repeat(32),
        id(2)
    ));
}

#[test]
fn what_was_decreed_stays() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    assert_eq!(catalogue.decreed(Decree::NeverDelete).unwrap(), None);
    catalogue.decree(Decree::NeverDelete, &json!({"since": "x"}), &entry(1)).unwrap();
    catalogue.decree(Decree::RecordingStopped, &json!({"reason": "y"}), &entry(2)).unwrap();
    drop(catalogue);
    let catalogue = open(folder.path());
    assert_eq!(catalogue.decreed(Decree::NeverDelete).unwrap(), Some(json!({"since": "x"})));
    assert_eq!(catalogue.decreed(Decree::RecordingStopped).unwrap(), Some(json!({"reason": "y"})));
    catalogue.lift_recording_stopped(&entry(3)).unwrap();
    assert_eq!(catalogue.decreed(Decree::RecordingStopped).unwrap(), None);
    assert_eq!(catalogue.audit_head().unwrap().entries, 3);
    // changed, it is in force as before
    tamper(folder.path(), "UPDATE meta SET value = x'00' WHERE name = 'never_delete'");
    assert!(matches!(catalogue.decreed(Decree::NeverDelete), Err(CatalogueError::DamagedMeta(_))));
}

#[test]
fn a_catalogue_made_again_has_the_log_and_its_chain() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = log(one.path(), 5);
    old.create_token(&token(1, None), &[1; 32], &entry(6)).unwrap();
    old.decree(Decree::NeverDelete, &json!({"since": "x"}), &entry(7)).unwrap();
    let noted = old.audit_head().unwrap();
    let made = open(other.path());
    assert_eq!(made.take_over(&old).unwrap(), Vec::<String>::new());
    drop(made);
    let made = open(other.path());
    assert_eq!(findings(&made, Some(noted)), [0; 0]);
    assert_eq!(made.audit(&entry(8)).unwrap().entries, 8);
    assert_eq!(findings(&made, Some(noted)), [0; 0]);
    let first = made.audit_entries(&AuditFilter { oldest_first: true, ..AuditFilter::default() }, None).unwrap();
    assert!(first.entries[0].1 == entry(1));
    assert_eq!(made.token_of(&[1; 32]).unwrap(), Some(token(1, None)));
    assert_eq!(made.decreed(Decree::NeverDelete).unwrap(), Some(json!({"since": "x"})));
}

#[test]
fn a_damaged_log_does_not_keep_the_rest_from_being_taken_over() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let old = log(one.path(), 3);
    old.decree(Decree::NeverDelete, &json!({}), &entry(4)).unwrap();
    tamper(one.path(), "UPDATE meta SET value = x'00' WHERE name IN ('audit_key', 'never_delete')");
    let made = open(other.path());
    let lost = made.take_over(&old).unwrap();
    assert!(lost.len() == 1 && lost[0].starts_with("the audit log"), "{lost:?}");
    // in force, and nothing known about it any more
    assert_eq!(made.decreed(Decree::NeverDelete).unwrap(), Some(json!(null)));
    assert_eq!(made.audit(&entry(1)).unwrap().entries, 1, "a new log is begun");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Whatever byte of an entry is changed, and however many are taken out, the check tells.
    #[test]
    fn no_change_stays_unseen(entries in 2..12_i64, at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), cut in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        drop(log(folder.path(), entries));
        let number = at.index(entries as usize) + 1;
        let db = Connection::open(folder.path().join("catalogue.db")).unwrap();
        let mut sealed: Vec<u8> =
            db.query_row("SELECT sealed FROM audit WHERE number = ?1", [number as i64], |row| row.get(0)).unwrap();
        let byte = byte.index(sealed.len());
        sealed[byte] ^= 1;
        drop(db);
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        let sql = match cut {
            true => format!("DELETE FROM audit WHERE number = {number}"),
            false => format!("UPDATE audit SET sealed = x'{hex}' WHERE number = {number}"),
        };
        tamper(folder.path(), &sql);
        prop_assert!(!findings(&open(folder.path()), None).is_empty());
    }
}

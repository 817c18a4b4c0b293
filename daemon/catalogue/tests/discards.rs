//! What was not kept, in the catalogue.

#![allow(clippy::unwrap_used)]

mod sut;

use callvault_catalogue::{Direction, Discard, Traffic};
use jiff::Timestamp;
use sut::{contains, file, open};
use uuid::Uuid;

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
        call_id: Some("callhalf-1:0".into()),
        tracking_id: None,
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
        let found: Vec<u128> =
            catalogue.discards(rule, (None, None), limit).unwrap().iter().map(|one| one.id.as_u128()).collect();
        assert_eq!(found, expected, "{rule:?} {limit}");
    };
    check(None, 10, &[3, 2, 1]);
    check(None, 2, &[3, 2]);
    check(Some("blacklist"), 10, &[3, 1]);
    check(Some("traffic"), 10, &[]);
    let within = |from_s: Option<i64>, to_s: Option<i64>| -> Vec<u128> {
        let at = |s: Option<i64>| s.map(|s| Timestamp::from_second(s).unwrap());
        catalogue.discards(None, (at(from_s), at(to_s)), 10).unwrap().iter().map(|one| one.id.as_u128()).collect()
    };
    assert_eq!(within(Some(20), None), [3, 2]);
    assert_eq!(within(Some(11), Some(30)), [2]);
    assert_eq!(catalogue.forget_discards(Timestamp::from_second(20).unwrap()).unwrap(), 1);
    check(None, 10, &[3, 2]);
    assert!(catalogue.discards(None, (None, None), 1).unwrap()[0] == discard(3, "blacklist", 30));
}

#[test]
fn who_called_whom_is_not_readable_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    catalogue.note_discard(&discard(1, "blacklist", 0)).unwrap();
    let bytes = [file(folder.path(), "catalogue.db"), file(folder.path(), "catalogue.db-wal")].concat();
    assert!(contains(&bytes, b"blacklist") && !contains(&bytes, b"+390501"));
}

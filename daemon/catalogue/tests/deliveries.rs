//! Deliveries: owed with the archive, remembered, gone with the recording.
#![allow(clippy::unwrap_used)]

mod sut;

use callvault_catalogue::{Catalogue, DeliveryStep, OwedJob};
use serde_json::{Value, json};
use sut::{at, contains, file, id, new, open, place};

const SINK: &str = "upload";

/// Recordings 1 to 3, archived, each owed to the sink; 2 to another as well.
fn archived(catalogue: &Catalogue) {
    for n in 1..=3 {
        catalogue.ingest(&new(n), at(0)).unwrap();
        catalogue.set_archiving(id(n)).unwrap();
        let mut owed = vec![OwedJob::delivery(SINK, id(n)), OwedJob::new("notify", id(n))];
        if n == 2 {
            owed.push(OwedJob::delivery("webhook", id(n)));
        }
        catalogue.archived(id(n), &place(n), &owed, at(n as i64)).unwrap();
    }
}

#[test]
fn what_is_archived_owes_its_deliveries_until_they_are_done() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    archived(&catalogue);
    let jobs: Vec<String> = catalogue.owed(100).unwrap().iter().map(OwedJob::id).collect();
    assert!(jobs.contains(&format!("upload:{}", id(2))) && jobs.contains(&format!("webhook:{}", id(2))), "{jobs:?}");
    // the queue has them; they are owed all the same
    catalogue.settled(&jobs).unwrap();
    assert_eq!(catalogue.undelivered(SINK, 100).unwrap(), [id(1), id(2), id(3)]);
    assert!(catalogue.undelivered("notify", 100).unwrap().is_empty());
    let backlogs = catalogue.backlogs().unwrap();
    let told: Vec<_> = backlogs.iter().map(|b| (b.sink.as_str(), b.count, b.oldest_unix_ms)).collect();
    assert_eq!(told, [(SINK, 3, at(1).as_millisecond()), ("webhook", 1, at(2).as_millisecond())]);

    assert!(catalogue.note_delivery(id(2), SINK, &json!({"remote_id": "r2"}), at(10)).unwrap());
    catalogue.delivery_failed(id(2), SINK, "put the audio: answered 500", at(11)).unwrap();
    drop(catalogue);
    let catalogue = open(folder.path());
    let delivery = catalogue.delivery(id(2), SINK).unwrap().unwrap();
    assert_eq!((delivery.step, &delivery.progress), (DeliveryStep::Begun, &json!({"remote_id": "r2"})));
    assert_eq!(delivery.error.as_deref(), Some("put the audio: answered 500"));
    assert_eq!((delivery.owed_at, delivery.changed_at), (at(2), at(11)));

    assert!(!catalogue.is_delivered(id(2), &[SINK]).unwrap());
    assert!(catalogue.delivered(id(2), SINK, &json!({"remote_id": "r2"}), at(12)).unwrap());
    catalogue.delivery_failed(id(2), SINK, "too late", at(13)).unwrap();
    let delivery = catalogue.delivery(id(2), SINK).unwrap().unwrap();
    assert_eq!((delivery.step, delivery.error, delivery.changed_at), (DeliveryStep::Delivered, None, at(12)));
    assert_eq!(catalogue.undelivered(SINK, 100).unwrap(), [id(1), id(3)]);
    assert_eq!(catalogue.undelivered(SINK, 1).unwrap(), [id(1)]);
}

#[test]
fn whether_a_recording_may_go_is_asked_by_sink() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    archived(&catalogue);
    catalogue.delivered(id(2), SINK, &Value::Null, at(9)).unwrap();
    #[track_caller]
    fn check(catalogue: &Catalogue, n: u128, sinks: &[&str], expected: bool) {
        assert_eq!(catalogue.is_delivered(id(n), sinks).unwrap(), expected, "{n} {sinks:?}");
    }
    check(&catalogue, 1, &[SINK], false);
    check(&catalogue, 2, &[SINK], true);
    check(&catalogue, 2, &[SINK, "webhook"], false);
    check(&catalogue, 1, &["webhook"], true);
    check(&catalogue, 1, &[], true);
    check(&catalogue, 99, &[SINK], true);
}

#[test]
fn a_delivery_is_owed_once() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    archived(&catalogue);
    catalogue.delivered(id(1), SINK, &Value::Null, at(9)).unwrap();
    // the archive is recorded again, and somebody asks for what is done
    catalogue.archived(id(1), &place(1), &[OwedJob::delivery(SINK, id(1))], at(20)).unwrap();
    assert!(catalogue.owe(id(1), &[OwedJob::delivery(SINK, id(1))], at(20)).unwrap());
    assert_eq!(catalogue.undelivered(SINK, 100).unwrap(), [id(2), id(3)]);
    assert!(catalogue.owe(id(3), &[OwedJob::delivery("webhook", id(3))], at(20)).unwrap());
    assert_eq!(catalogue.undelivered("webhook", 100).unwrap(), [id(2), id(3)]);
    assert!(!catalogue.owe(id(99), &[OwedJob::delivery(SINK, id(99))], at(20)).unwrap());
}

#[test]
fn a_deleted_recording_has_no_deliveries() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    archived(&catalogue);
    catalogue.note_delivery(id(1), SINK, &json!({"url": "https://a.example"}), at(9)).unwrap();
    catalogue.delete(id(1), at(10), "test").unwrap();
    assert_eq!(catalogue.deliveries(id(1)).unwrap(), []);
    assert!(!catalogue.note_delivery(id(1), SINK, &Value::Null, at(11)).unwrap());
    assert!(!catalogue.delivered(id(1), SINK, &Value::Null, at(11)).unwrap());
    assert_eq!(catalogue.deliveries(id(1)).unwrap(), []);
}

#[test]
fn what_the_other_side_gave_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    archived(&catalogue);
    catalogue.note_delivery(id(1), SINK, &json!({"url": "https://presigned.example/x"}), at(9)).unwrap();
    let bytes: Vec<u8> =
        ["catalogue.db", "catalogue.db-wal"].iter().flat_map(|name| file(folder.path(), name)).collect();
    assert!(!contains(&bytes, b"presigned"));
    assert!(contains(&bytes, SINK.as_bytes()), "the search can find");
}

#[test]
fn what_was_sealed_for_one_sink_is_not_taken_for_anothers() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    archived(&catalogue);
    catalogue.note_delivery(id(2), SINK, &json!({"url": "u"}), at(9)).unwrap();
    let db = rusqlite::Connection::open(folder.path().join("catalogue.db")).unwrap();
    let sql = "UPDATE deliveries SET progress = (SELECT progress FROM deliveries WHERE recording_id = ?1 AND sink = 'upload') \
               WHERE recording_id = ?1 AND sink = 'webhook'";
    assert_eq!(db.execute(sql, [id(2).to_string()]).unwrap(), 1);
    assert!(catalogue.deliveries(id(2)).is_err());
}

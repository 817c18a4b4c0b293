//! How far a mail came is on record, and goes with its recording.
#![allow(clippy::unwrap_used)]

mod sut;

use callvault_catalogue::{Archived, Catalogue, MailStep, OwedJob};
use sut::{at, contains, file, id, new, open, place};

const ANN: &str = "Ann@example.com";

/// A catalogue with recording `n` archived, and the jobs of these kinds owed.
fn archived(catalogue: &Catalogue, n: u128, kinds: &[&str]) {
    catalogue.ingest(&new(n), at(0)).unwrap();
    let owed: Vec<OwedJob> = kinds.iter().map(|kind| OwedJob::new(kind, id(n))).collect();
    assert_eq!(catalogue.archived(id(n), &place(n), &owed, at(n as i64)).unwrap(), Archived::Recorded);
}

#[test]
fn a_mail_is_owed_with_its_job_until_it_was_taken() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    archived(&catalogue, 1, &["notify"]);
    archived(&catalogue, 2, &["upload"]);
    archived(&catalogue, 3, &["upload", "notify"]);
    assert_eq!(catalogue.mails_owed().unwrap(), [id(1), id(3)]);
    assert!(catalogue.owed(10).unwrap().iter().any(|job| job.id() == format!("notify:{}", id(1))));
    assert_eq!(catalogue.mail(id(2), ANN).unwrap(), None);
    let standing = catalogue.mail(id(1), ANN).unwrap().unwrap();
    assert_eq!((standing.step, standing.same_recipient), (MailStep::Owed, false));

    assert!(catalogue.mail_came(id(1), ANN, MailStep::Sending, at(10)).unwrap());
    assert_eq!(catalogue.mails_owed().unwrap(), [id(3), id(1)], "what was under way may not have been taken");
    assert!(catalogue.mail_came(id(1), ANN, MailStep::Accepted, at(11)).unwrap());
    assert!(catalogue.mail_came(id(3), ANN, MailStep::Dropped, at(11)).unwrap());
    assert!(catalogue.mails_owed().unwrap().is_empty());
    drop(catalogue);

    let catalogue = open(folder.path());
    let standing = catalogue.mail(id(1), " ann@EXAMPLE.com ").unwrap().unwrap();
    assert_eq!((standing.step, standing.same_recipient, standing.at), (MailStep::Accepted, true, at(11)));
    assert!(!catalogue.mail(id(1), "bob@example.com").unwrap().unwrap().same_recipient);
}

#[test]
fn archived_again_owes_nothing_again() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    archived(&catalogue, 1, &["notify"]);
    catalogue.mail_came(id(1), ANN, MailStep::Accepted, at(1)).unwrap();
    let again = catalogue.archived(id(1), &place(1), &[OwedJob::new("notify", id(1))], at(2)).unwrap();
    assert_eq!(again, Archived::AlreadyRecorded);
    assert_eq!(catalogue.mail(id(1), ANN).unwrap().unwrap().step, MailStep::Accepted);
}

#[test]
fn who_was_told_is_forgotten_with_the_recording_and_is_never_readable() {
    let folder = tempfile::tempdir().unwrap();
    let catalogue = open(folder.path());
    archived(&catalogue, 1, &["notify"]);
    catalogue.mail_came(id(1), ANN, MailStep::Sending, at(1)).unwrap();
    for part in ["Ann@", "ann@example"] {
        assert!(
            !["catalogue.db", "catalogue.db-wal"]
                .iter()
                .any(|name| contains(&file(folder.path(), name), part.as_bytes())),
            "{part}"
        );
    }
    catalogue.delete(id(1), at(2), "test").unwrap();
    assert_eq!(catalogue.mail(id(1), ANN).unwrap(), None);
    assert!(!catalogue.mail_came(id(1), ANN, MailStep::Accepted, at(3)).unwrap());
    assert_eq!(catalogue.mail(id(1), ANN).unwrap(), None);
}

//! Vectors of version 1 that never change: the writer makes them bit for bit, the reader reads them.
#![allow(clippy::unwrap_used)]

mod sample;

use std::path::PathBuf;

use callvault_journal::facts::{Flaw, SessionEvent};
use callvault_journal::file_name;
use sample::*;

/// Flaws, because the other events will get more fields, which are not this format's business.
fn golden() -> Files {
    let flaw = |text: &str| SessionEvent::Flaw(Flaw { code: "golden".to_owned(), text: text.to_owned() });
    journal_of([flaw("first"), flaw("second"), flaw("third")])
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn committed() -> Files {
    let read = |file_seq| std::fs::read(folder().join(file_name(GENERATION, file_seq))).unwrap();
    [0, 1].map(|file_seq| (file_seq, read(file_seq))).into()
}

/// With `CALLVAULT_WRITE_GOLDEN=1` the files are written anew: only for a new version, into a new folder.
#[test]
fn the_writer_makes_version_1() {
    let made = golden();
    if std::env::var_os("CALLVAULT_WRITE_GOLDEN").is_some() {
        for (file_seq, bytes) in &made {
            std::fs::write(folder().join(file_name(GENERATION, *file_seq)), bytes).unwrap();
        }
        std::fs::write(folder().join("private-key"), private_key().to_text().expose()).unwrap();
    }
    assert!(made == committed(), "the bytes of version 1 have changed");
}

#[test]
fn the_reader_reads_version_1() {
    let mut files = committed();
    let private = std::fs::read_to_string(folder().join("private-key")).unwrap();
    let private = callvault_seal::PrivateKey::from_text(&private).unwrap();
    let ring = callvault_seal::Keyring::new(private, vec![]).unwrap();
    let found = look(&mut files);
    assert_eq!(found.report.findings, vec![]);
    assert_eq!((found.report.frames, found.report.durable_seq), (19, 17));
    let kept = found.index.get(1).unwrap();
    let key = ring.open(&kept.keys, &kept.key_context(GENERATION, 1).unwrap()).unwrap();
    assert_eq!(key.expose(), data_key(1).expose());
    assert_eq!(found.items, look(&mut golden()).items);
    assert_eq!(found.items.values().flatten().count(), 3 + 9);
}

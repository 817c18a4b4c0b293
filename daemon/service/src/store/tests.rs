//! The store as others use it, in a folder that is taken away, changed, or made to hang: a FIFO in the place of a file blocks whoever
//! opens it until it has another end.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use uuid::Uuid;

use super::{IDENTITY_NAME, Store, StoreError, StoreFile, StoreState};

/// How long a call may take where the test waits for it to be too long.
const SHORT: Duration = Duration::from_millis(200);

/// How long where no call must be taken for one that hangs.
const LONG: Duration = Duration::from_secs(60);

/// A store in a folder of its own, used once.
struct Rig {
    place: tempfile::TempDir,
    store: Arc<Store>,
}

impl Rig {
    fn new(timeout: Duration) -> Self {
        let place = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::new(&place.path().join("share"), place.path(), Uuid::from_u128(1), timeout));
        assert!(!store.look(), "it was not away");
        Self { place, store }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.place.path().join("share").join(below)
    }

    /// The same store after a start of the daemon.
    fn again(&self) -> Store {
        Store::new(&self.path(""), self.place.path(), Uuid::from_u128(2), LONG)
    }

    fn state(&self) -> StoreState {
        self.store.condition().state
    }

    /// Opening this file blocks from now on.
    fn block(&self, name: &str) {
        let path = self.path(name);
        let _ = fs::rename(&path, self.place.path().join("aside"));
        mkfifo(&path, Mode::S_IRWXU).unwrap();
    }

    /// Whoever is blocked gets an end of file, and the file is as it was.
    fn unblock(&self, name: &str) {
        drop(fs::OpenOptions::new().write(true).open(self.path(name)).unwrap());
        fs::remove_file(self.path(name)).unwrap();
        let _ = fs::rename(self.place.path().join("aside"), self.path(name));
    }

    fn files(&self, folder: &str) -> usize {
        fs::read_dir(self.path(folder)).unwrap().count()
    }
}

fn put(store: &Store, name: &str, content: &[u8]) -> Result<(), StoreError> {
    let failed = |error| StoreError::io("write", Path::new(name))(error);
    store.put(Path::new(name), |mut w| w.write_all(content).map(|()| (w, ())).map_err(failed))
}

fn get(store: &Store, name: &str) -> Vec<u8> {
    let mut content = Vec::new();
    store.get(Path::new(name)).unwrap().read_to_end(&mut content).unwrap();
    content
}

fn check_away<T>(result: Result<T, StoreError>, state: StoreState) {
    let error = result.err().expect("it is away");
    assert!(error.is_away(), "{error}");
    assert_eq!(error.state(), Some(state), "{error}");
}

#[test]
fn what_is_put_is_there_whole_and_nothing_else() {
    let rig = Rig::new(LONG);
    put(&rig.store, "2026/11/a.cva", b"first").unwrap();
    put(&rig.store, "2026/11/a.cva", b"again").unwrap();
    assert_eq!(get(&rig.store, "2026/11/a.cva"), b"again");
    assert_eq!(rig.files("2026/11"), 1);
    let long: Vec<u8> = (0..9_000_000_u32).map(|n| (n % 251) as u8).collect();
    put(&rig.store, "2026/11/b.cva", &long).unwrap();
    assert!(get(&rig.store, "2026/11/b.cva") == long);
    for _ in 0..2 {
        rig.store.remove(Path::new("2026/11/a.cva")).unwrap();
    }
    rig.store.remove(Path::new("2025/01/never.cva")).unwrap();
    assert_eq!(rig.files("2026/11"), 1);
    assert!(rig.store.get(Path::new("2026/11/a.cva")).unwrap_err().is_not_found());
    assert_eq!(rig.state(), StoreState::Ok);
}

#[test]
fn an_unmounted_share_is_not_an_empty_store() {
    let rig = Rig::new(LONG);
    fs::remove_file(rig.path(IDENTITY_NAME)).unwrap();
    check_away(put(&rig.store, "a.cva", b"x"), StoreState::Absent);
    check_away(rig.again().check(), StoreState::Absent);
    assert_eq!((rig.files(""), rig.state()), (0, StoreState::Absent));
}

#[test]
fn another_store_at_the_same_place_is_refused() {
    let rig = Rig::new(LONG);
    let before = fs::read(rig.path(IDENTITY_NAME)).unwrap();
    let other = Rig::new(LONG);
    let foreign = format!("{{\"store\":\"{}\"}}", Uuid::from_u128(9));
    for identity in [foreign.as_bytes(), b"", b"\0\0\0\0"] {
        fs::write(rig.path(IDENTITY_NAME), identity).unwrap();
        check_away(put(&rig.store, "a.cva", b"x"), StoreState::Foreign);
        check_away(rig.again().check(), StoreState::Foreign);
    }
    fs::write(rig.path(IDENTITY_NAME), before).unwrap();
    rig.again().check().unwrap();
    assert_eq!(other.state(), StoreState::Ok);
}

#[test]
fn a_store_that_is_away_is_used_again_when_it_is_back() {
    let rig = Rig::new(LONG);
    let hidden = rig.place.path().join("unmounted");
    fs::rename(rig.path(""), &hidden).unwrap();
    assert!(!rig.store.look());
    assert!(rig.store.condition().away.is_some_and(|text| text.contains("is the share mounted")));
    check_away(put(&rig.store, "a.cva", b"x"), StoreState::Absent);
    assert!(!rig.path("").exists());
    fs::rename(&hidden, rig.path("")).unwrap();
    assert!(rig.store.look(), "it is back");
    assert!(!rig.store.look(), "it has been back");
    let condition = rig.store.condition();
    assert!(condition.away.is_none() && condition.free_bytes.is_some());
    put(&rig.store, "a.cva", b"x").unwrap();
}

#[test]
fn what_was_broken_off_does_not_stay() {
    let rig = Rig::new(LONG);
    let name = Path::new("2026/11/22/a.cva");
    let broken_off = |mut w: BufWriter<StoreFile>| {
        w.write_all(b"some").unwrap();
        Err::<(_, ()), _>(StoreError::Stopping)
    };
    assert!(rig.store.put(name, broken_off).is_err());
    assert_eq!(rig.files("2026/11/22"), 0);
    fs::write(rig.path("2026/11/22/.a.cva.tmp"), b"left by a crash").unwrap();
    rig.store.remove(name).unwrap();
    assert_eq!(rig.files("2026/11/22"), 0);
}

#[test]
fn nobody_waits_for_a_store_that_hangs() {
    let rig = Rig::new(SHORT);
    put(&rig.store, "a.cva", b"x").unwrap();
    rig.block(IDENTITY_NAME);
    check_away(put(&rig.store, "b.cva", b"x"), StoreState::Hung);
    assert_eq!(rig.state(), StoreState::Hung);
    let begun = rig.store.shared.errands.begun();
    for _ in 0..20 {
        check_away(rig.store.get(Path::new("a.cva")), StoreState::Hung);
        assert!(!rig.store.look());
    }
    assert_eq!(rig.store.shared.errands.begun(), begun, "an errand was begun");
    let text = rig.store.condition().away.unwrap();
    assert!(text.contains("has not answered"), "{text}");
    rig.unblock(IDENTITY_NAME);
    // The call that returns rings, and the next look finds everything as it was.
    rig.store.bell().wait(0, LONG);
    assert!(rig.store.look());
    assert_eq!(get(&rig.store, "a.cva"), b"x");
    assert!(!rig.path("b.cva").exists());
}

#[test]
fn a_daemon_that_stops_does_not_wait_for_the_store() {
    let rig = Rig::new(LONG);
    rig.block(IDENTITY_NAME);
    let store = Arc::clone(&rig.store);
    let waits = thread::spawn(move || store.check());
    while rig.store.shared.errands.waits() == 0 {
        thread::yield_now();
    }
    rig.store.stop();
    assert!(matches!(waits.join().unwrap(), Err(StoreError::Stopping)));
    assert!(matches!(rig.store.check(), Err(StoreError::Stopping)));
    assert_eq!(rig.state(), StoreState::Ok);
    rig.unblock(IDENTITY_NAME);
}

#[test]
fn what_failed_has_to_prove_itself() {
    let rig = Rig::new(LONG);
    rig.store.shared.set(StoreState::Failing, Some("as if".to_owned()), None);
    // Nothing can be written under the name of the proof.
    fs::create_dir(rig.path(super::PROOF_NAME)).unwrap();
    assert!(!rig.store.look());
    assert_eq!(rig.state(), StoreState::Failing);
    fs::remove_dir(rig.path(super::PROOF_NAME)).unwrap();
    assert!(rig.store.look());
    assert_eq!(rig.files(""), 1, "the proof is gone");
}

#[test]
fn a_full_store_is_used_again_when_there_is_room_for_what_did_not_fit() {
    let rig = Rig::new(LONG);
    let full = StoreError::away(StoreState::Full, &rig.path(""), "write: no space".to_owned());
    rig.store.shared.note(&full);
    rig.store.shared.did_not_fit(&full, u64::MAX);
    assert!(!rig.store.look());
    assert_eq!(rig.state(), StoreState::Full);
    rig.store.shared.looks().wanted_bytes = 2 << 20;
    assert!(rig.store.look());
}

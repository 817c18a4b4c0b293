//! The store: the folder, local or on a share, in which archives live.
//!
//! A store carries an identity file. A folder at the store's path without it, or with another one, is an unmounted or a
//! wrong share, not an empty store: nothing is written to it. The identity that the appliance expects is kept in its data
//! folder from the first use on, and is checked before every write, since a mount can go away at any time and leave the
//! empty folder below it. What is then written goes through the very folder in which the identity was read ([`below`]), so
//! nothing that happens to the path in between leads it elsewhere. That folder is held open no longer than the work takes, so a share can
//! be unmounted.
//!
//! A share can hang, so every call on it is made by a thread that may be left behind ([`errand`]), and nobody waits longer than
//! `store.timeout` for one. A store that cannot be used stops nothing but the work on it: its state ([`StoreState`]) is known to health,
//! it is looked at again and again, and what waits for it goes on at once when it is back. After a failure that means: when it has
//! taken a small file.
//!
//! An archive appears whole or not at all:
//!
//! 1. identity checked; 2. written as `.<name>.tmp` in its folder; 3. `fsync`; 4. `rename`; 5. `fsync` of the folder.
//!
//! A crash before 4 leaves a temporary file. The next attempt at the same recording overwrites it, and where there is no next
//! attempt, because the recording was deleted, [`Store::remove`] takes it away with the archive; so none stays for ever.

mod below;
mod errand;
mod file;
mod state;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufWriter, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs, statvfs};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::appliance::Bell;
use crate::files::{make_folder, write_whole};
use crate::log::events;
pub(crate) use below::StoreEntry;
use errand::{Errand, Errands, Hand};
pub(crate) use file::StoreFile;
use state::Purpose;
pub(crate) use state::StoreState;

/// Name of the identity file at the top of a store.
pub(crate) const IDENTITY_NAME: &str = ".callvault-store";

/// Name of the file in the data folder that says which store is expected.
pub(crate) const EXPECTED_NAME: &str = "store.identity";

/// Name of the file that a store has to take before it is used again after a failure.
const PROOF_NAME: &str = ".callvault-proof.tmp";

/// Bytes of that file, where the store did not lack space.
const PROOF_BYTES: u64 = 4_096;

/// Most bytes of that file. Where a quota is exhausted the free space says nothing, and only writing does.
const PROOF_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A store with less room than this is full: hardly any archive is smaller.
const ROOM_BYTES_MIN: u64 = 1024 * 1024;

/// Bytes handed to an errand at once.
const WRITE_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// Identifies the store wherever it is mounted.
    store: Uuid,
}

/// Why the store, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Not now, none of it.
    #[error("use the store {path}: {why}; {}", state.remedy())]
    Away { state: StoreState, path: String, why: String },
    #[error("{what} {path}: {error}")]
    Io { what: &'static str, path: String, error: io::Error },
    #[error("go on: the daemon is stopping")]
    Stopping,
}

impl StoreError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::Io { what, path, error }
    }

    fn away(state: StoreState, path: &Path, why: String) -> Self {
        Self::Away { state, path: path.display().to_string(), why }
    }

    /// The state of the store that it speaks of.
    fn state(&self) -> Option<StoreState> {
        match self {
            Self::Away { state, .. } => Some(*state),
            Self::Io { .. } | Self::Stopping => None,
        }
    }

    /// Whether the store as a whole is not to be used now, so that waiting is all that there is to do.
    pub(crate) fn is_away(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }

    /// Whether just this file is missing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == ErrorKind::NotFound)
    }
}

/// Whether an error of reading or writing a [`StoreFile`] speaks of the store as a whole.
pub(crate) fn is_away(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>()).is_some_and(StoreError::is_away)
}

/// How the store is, as far as is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    /// Its state.
    pub(crate) state: StoreState,
    /// Why it cannot be used and what to do about it, if it cannot.
    pub(crate) away: Option<String>,
    /// Free bytes, where it can say.
    pub(crate) free_bytes: Option<u64>,
}

#[derive(Debug, Default)]
struct Looks {
    condition: Condition,
    /// Since when it is in its state.
    since: Option<Instant>,
    /// Whether it was ever found in order; until then it has to prove itself.
    proven: bool,
    /// Bytes for which it had no room.
    wanted_bytes: u64,
}

/// What errands share.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    errands: Arc<Errands>,
    looks: Mutex<Looks>,
}

impl Shared {
    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an errand, and notes when it cannot be because the store hangs.
    fn begin(&self) -> Result<Arc<Errand>, StoreError> {
        self.errands.begin().map(Arc::new).inspect_err(|error| self.note(error))
    }

    /// Has a call made that is about the file or folder `about`, and notes what its error says of the store.
    fn call<T: Send + 'static>(
        &self,
        (errand, about): (&Errand, &Path),
        (what, purpose): (&'static str, Purpose),
        call: impl FnOnce(&mut Hand) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (store, about) = (self.path.clone(), about.to_owned());
        let judged = move |error| match state::state_of(&error, purpose) {
            Some(state) => StoreError::away(state, &store, format!("{what}: {error}")),
            None => StoreError::io(what, &about)(error),
        };
        // That an errand is lost was noted when it was; the store may be back since.
        let is_news = !errand.is_lost();
        errand.run(move |hand| call(hand).map_err(judged)).inspect_err(|error| {
            if is_news {
                self.note(error);
            }
        })
    }

    fn note(&self, error: &StoreError) {
        if let Some(state) = error.state() {
            self.set(state, Some(format!("failed to {error}")), None);
        }
    }

    /// Takes over what is known now, and says so where it has changed. Gives whether the store is back.
    fn set(&self, state: StoreState, away: Option<String>, free_bytes: Option<u64>) -> bool {
        let mut looks = self.looks();
        let before = looks.condition.state;
        if before != state {
            let lasted_s = looks.since.map_or(0, |since| since.elapsed().as_secs());
            match &away {
                Some(text) => {
                    tracing::error!(event = events::STORE_AWAY, state = state.name(), before = before.name(), "{text}")
                }
                None => tracing::info!(
                    event = events::STORE_BACK,
                    before = before.name(),
                    after_s = lasted_s,
                    "the store is back; what waited for it goes on"
                ),
            }
            looks.since = Some(Instant::now());
        }
        let is_ok = state == StoreState::Ok;
        looks.proven = is_ok;
        if is_ok {
            looks.wanted_bytes = 0;
        }
        looks.condition = Condition { state, away, free_bytes };
        is_ok && before != state
    }

    /// Notes how much room was missing, when that was why a write failed.
    fn did_not_fit(&self, error: &StoreError, bytes: u64) {
        if error.state() == Some(StoreState::Full) {
            let mut looks = self.looks();
            looks.wanted_bytes = looks.wanted_bytes.max(bytes);
        }
    }
}

/// The store. No call waits much longer than `store.timeout` for the share.
#[derive(Debug)]
pub(crate) struct Store {
    /// The file in the data folder that says which store is expected.
    expected_path: PathBuf,
    /// For the store that is made at the very first use.
    new_id: Uuid,
    identity: OnceLock<Identity>,
    /// Guards the making of a store, so that two threads do not make two.
    making: Mutex<()>,
    shared: Arc<Shared>,
}

impl Store {
    /// The store at `path`, which need not be there. `data` is the appliance's data folder, `timeout` how long a call on the
    /// store may take.
    #[cfg(test)]
    pub(crate) fn new(path: &Path, data: &Path, new_id: Uuid, timeout: Duration) -> Self {
        Self::known(path, data.join(EXPECTED_NAME), new_id, (timeout, Bell::default()))
    }

    /// The same; which store is expected says the file `expected_path`. `bell` is rung when it is worth a look before its time.
    pub(crate) fn known(path: &Path, expected_path: PathBuf, new_id: Uuid, (timeout, bell): (Duration, Bell)) -> Self {
        let errands = Errands::new(path, timeout, bell);
        Self {
            expected_path,
            new_id,
            identity: OnceLock::new(),
            making: Mutex::new(()),
            shared: Arc::new(Shared { path: path.to_owned(), errands, looks: Mutex::default() }),
        }
    }

    /// The store's folder.
    pub(crate) fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Whether it is there and the right one; at the very first use it is made.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.enter().map(drop)
    }

    /// How it is, as far as is known. Asks nobody.
    pub(crate) fn condition(&self) -> Condition {
        self.shared.looks().condition.clone()
    }

    /// Whether it can be used, as far as is known. Asks nobody.
    pub(crate) fn is_ok(&self) -> bool {
        self.shared.looks().condition.state == StoreState::Ok
    }

    /// Rung when it is worth a look before its time.
    #[cfg(test)]
    pub(crate) fn bell(&self) -> &Bell {
        &self.shared.errands.returned
    }

    /// Lets everybody go who waits for it: the daemon stops.
    pub(crate) fn stop(&self) {
        self.shared.errands.stop();
    }

    /// Looks how it is, for [`Store::condition`]. Gives whether it is back.
    pub(crate) fn look(&self) -> bool {
        let mut free_bytes = None;
        match self.look_at(&mut free_bytes) {
            Ok(()) => self.shared.set(StoreState::Ok, None, free_bytes),
            Err(StoreError::Stopping) => false,
            Err(error) => {
                // What says nothing of the whole, such as an identity file that cannot be read, is in the way of everything here.
                let state = error.state().unwrap_or(StoreState::Failing);
                self.shared.set(state, Some(format!("failed to {error}")), free_bytes)
            }
        }
    }

    fn look_at(&self, free_bytes: &mut Option<u64>) -> Result<(), StoreError> {
        let errand = self.enter()?;
        let (proven, wanted_bytes) = {
            let looks = self.shared.looks();
            (looks.proven, looks.wanted_bytes)
        };
        let about =
            self.shared.call((&errand, self.path()), ("look at", Purpose::Write), |hand| Ok(fstatvfs(root(hand)?)?))?;
        let free = about.blocks_available().saturating_mul(about.fragment_size());
        // Some file systems have no figures to give.
        *free_bytes = (about.blocks() > 0).then_some(free);
        if about.flags().contains(FsFlags::ST_RDONLY) {
            return Err(StoreError::away(StoreState::ReadOnly, self.path(), "it is mounted read-only".to_owned()));
        }
        let room = wanted_bytes.max(ROOM_BYTES_MIN);
        if free_bytes.is_some_and(|free| free < room) {
            let why = format!("it has {} KiB left, and {} KiB are needed", free >> 10, room >> 10);
            return Err(StoreError::away(StoreState::Full, self.path(), why));
        }
        if proven { Ok(()) } else { self.prove(errand, wanted_bytes.clamp(PROOF_BYTES, PROOF_BYTES_MAX)) }
    }

    /// Has it take a file of some bytes.
    fn prove(&self, errand: Arc<Errand>, bytes: u64) -> Result<(), StoreError> {
        let (temporary, about) = (OsString::from(PROOF_NAME), self.path().join(PROOF_NAME));
        let name = temporary.clone();
        self.shared.call((&errand, &about), ("begin to write", Purpose::Write), move |hand| {
            let folder = root(hand)?.try_clone()?;
            hand.file = Some(below::create(&folder, &name)?);
            hand.folder = Some(folder);
            Ok(())
        })?;
        let mut file = StoreFile::begun(&self.shared, errand, about, temporary);
        let block = vec![0; WRITE_BYTES];
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        while left > 0 {
            let some = left.min(block.len());
            file.put(&block[..some])?;
            left -= some;
        }
        file.sync()
    }

    /// Free bytes where the store is or would be made; none where the file system has no figures to give. Makes nothing.
    pub(crate) fn room(&self) -> Result<Option<u64>, StoreError> {
        let errand = self.shared.begin()?;
        let path = self.path().to_owned();
        let about = self.shared.call((&errand, self.path()), ("look at", Purpose::Write), move |_| {
            let there = path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
            Ok(statvfs(there)?)
        })?;
        let free = about.blocks_available().saturating_mul(about.fragment_size());
        Ok((about.blocks() > 0).then_some(free))
    }

    /// Begins an errand in the store's folder, once it is known to be the right one.
    fn enter(&self) -> Result<Arc<Errand>, StoreError> {
        let Some(identity) = self.identity.get() else { return self.establish() };
        let errand = self.shared.begin()?;
        match self.open_root(&errand)? {
            Some(found) if found == *identity => Ok(errand),
            Some(_) => Err(self.another()),
            None => Err(self.not_there()),
        }
    }

    /// Opens the store's folder and reads its identity, if it has one.
    fn open_root(&self, errand: &Errand) -> Result<Option<Identity>, StoreError> {
        let path = self.path().to_owned();
        let read = self.shared.call((errand, self.path()), ("read the identity of", Purpose::Write), move |hand| {
            let root = match open(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(root) => root,
                Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let identity = below::read_small(&root, &IDENTITY_NAME.into())?;
            hand.root = Some(root);
            Ok(identity)
        })?;
        let Some(bytes) = read else { return Ok(None) };
        match serde_json::from_slice(&bytes) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) => {
                let why = format!("its identity file {IDENTITY_NAME} cannot be understood ({error})");
                Err(self.noted(StoreError::away(StoreState::Foreign, self.path(), why)))
            }
        }
    }

    fn establish(&self) -> Result<Arc<Errand>, StoreError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = read_expected(&self.expected_path)?;
        let errand = self.shared.begin()?;
        let identity = match (expected, self.open_root(&errand)?) {
            (Some(expected), Some(found)) if expected == found => expected,
            (Some(_), Some(_)) => return Err(self.another()),
            (Some(_), None) => return Err(self.not_there()),
            // A store that came from another appliance, or one made just before a crash.
            (None, Some(found)) => {
                write_expected(&self.expected_path, &found)?;
                found
            }
            (None, None) => self.make(&errand)?,
        };
        self.identity.get_or_init(|| identity);
        Ok(errand)
    }

    /// Makes the store, at its very first use.
    fn make(&self, errand: &Errand) -> Result<Identity, StoreError> {
        if let Some(point) = errand::unmounted_above(self.path()) {
            let why = format!("there is no store yet, and {} is in /etc/fstab but not mounted", point.display());
            return Err(self.noted(StoreError::away(StoreState::Absent, self.path(), why)));
        }
        let identity = Identity { store: self.new_id };
        let failed = |path| StoreError::io("write", path);
        let text = serde_json::to_vec(&identity).map_err(|e| failed(&self.expected_path)(e.into()))?;
        let path = self.path().to_owned();
        self.shared.call((errand, self.path()), ("make the store", Purpose::Write), move |hand| {
            make_folder(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotADirectory => {
                    io::Error::other("it is not a folder; mount the share there, or name another one in store.path")
                }
                _ => error,
            })?;
            let root = open(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            let name = OsString::from(IDENTITY_NAME);
            below::write_small(&root, &temporary_name(&name), &name, &text)?;
            hand.root = Some(root);
            Ok(())
        })?;
        write_expected(&self.expected_path, &identity)?;
        Ok(identity)
    }

    /// A mount point of /etc/fstab, at its path or above, on which nothing is mounted: what is made below it is no store.
    pub(crate) fn unmounted(&self) -> Option<PathBuf> {
        errand::unmounted_above(self.path())
    }

    fn noted(&self, error: StoreError) -> StoreError {
        self.shared.note(&error);
        error
    }

    fn not_there(&self) -> StoreError {
        let why = format!("its identity file {IDENTITY_NAME} is missing");
        self.noted(StoreError::away(StoreState::Absent, self.path(), why))
    }

    fn another(&self) -> StoreError {
        let why = "it is another store than the one this appliance has used so far".to_owned();
        self.noted(StoreError::away(StoreState::Foreign, self.path(), why))
    }

    /// Writes a file whole: `write` gets a writer and gives it back when it is done.
    pub(crate) fn put<T, E: From<StoreError>>(
        &self,
        name: &Path,
        write: impl FnOnce(BufWriter<StoreFile>) -> Result<(BufWriter<StoreFile>, T), E>,
    ) -> Result<T, E> {
        let about = self.path().join(name);
        let (folders, name) = below::split(name).map_err(StoreError::io("begin to write", &about))?;
        let errand = self.enter()?;
        let temporary = temporary_name(&name);
        let at = temporary.clone();
        self.shared.call((&errand, &about), ("begin to write", Purpose::Write), move |hand| {
            let folder = below::folder(root(hand)?, &folders, true)?;
            hand.file = Some(below::create(&folder, &at)?);
            hand.folder = Some(folder);
            Ok(())
        })?;
        let file = StoreFile::begun(&self.shared, errand, about, temporary);
        let (writer, result) = write(BufWriter::with_capacity(WRITE_BYTES, file))?;
        let (file, rest) = writer.into_parts();
        let mut file = file;
        // A writer that panicked is none that comes here.
        file.put(&rest.unwrap_or_default())?;
        file.finish(name)?;
        Ok(result)
    }

    /// What is in a folder below the store's; an empty path: in the store's own.
    pub(crate) fn list(&self, name: &Path) -> Result<Vec<StoreEntry>, StoreError> {
        let about = self.path().join(name);
        let folders = below::parts(name).map_err(StoreError::io("list", &about))?;
        let errand = self.enter()?;
        self.shared.call((&errand, &about), ("list", Purpose::Read), move |hand| below::list(root(hand)?, &folders))
    }

    /// Opens a file for reading.
    pub(crate) fn get(&self, name: &Path) -> Result<StoreFile, StoreError> {
        self.open(name, Purpose::Read)
    }

    /// Opens a file that was just put, for reading it back. An error of the device is then one of the store.
    pub(crate) fn get_back(&self, name: &Path) -> Result<StoreFile, StoreError> {
        self.open(name, Purpose::Write)
    }

    fn open(&self, name: &Path, purpose: Purpose) -> Result<StoreFile, StoreError> {
        let about = self.path().join(name);
        let (folders, name) = below::split(name).map_err(StoreError::io("read", &about))?;
        let errand = self.enter()?;
        self.shared.call((&errand, &about), ("read", purpose), move |hand| {
            let folder = below::folder(root(hand)?, &folders, false)?;
            hand.file = Some(below::open(&folder, &name, false)?);
            Ok(())
        })?;
        Ok(StoreFile::opened(&self.shared, errand, about, purpose))
    }

    /// Removes an archive for ever: its keys are erased in place, durably, then the file goes, and with it what an attempt that was
    /// broken off left under its temporary name. What is gone already is fine.
    pub(crate) fn remove(&self, name: &Path) -> Result<(), StoreError> {
        self.take_away(name, true)
    }

    /// Removes a file that is a copy of one that stays, or a part of such a copy. Its keys are those of the one that stays and are left as
    /// they are. What is gone already is fine.
    pub(crate) fn discard(&self, name: &Path) -> Result<(), StoreError> {
        self.take_away(name, false)
    }

    fn take_away(&self, name: &Path, erases: bool) -> Result<(), StoreError> {
        let about = self.path().join(name);
        let (folders, name) = below::split(name).map_err(StoreError::io("remove", &about))?;
        let errand = self.enter()?;
        let is_there = self.shared.call((&errand, &about), ("remove", Purpose::Write), move |hand| {
            match below::folder(root(hand)?, &folders, false) {
                Ok(folder) => hand.folder = Some(folder),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
            Ok(true)
        })?;
        if !is_there {
            return Ok(());
        }
        for name in [temporary_name(&name), name] {
            if erases {
                self.erase(&errand, &about, name.clone())?;
            }
            self.shared.call((&errand, &about), ("remove", Purpose::Write), move |hand| {
                hand.file = None;
                below::unlink(folder(hand)?, &name)
            })?;
        }
        self.shared.call((&errand, &about), ("make durable the removal of", Purpose::Write), |hand| {
            below::sync_folder(folder(hand)?)
        })
    }

    /// Erases the keys of an archive in place, if it is there.
    fn erase(&self, errand: &Arc<Errand>, about: &Path, name: OsString) -> Result<(), StoreError> {
        let is_there = self.shared.call((errand, about), ("erase the keys of", Purpose::Write), move |hand| {
            hand.file = match below::open(folder(hand)?, &name, true) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            Ok(hand.file.is_some())
        })?;
        if !is_there {
            return Ok(());
        }
        let mut file = StoreFile::opened(&self.shared, Arc::clone(errand), about.to_owned(), Purpose::Write);
        if let Err(error) = callvault_archive::erase_keys(&mut file) {
            // What is no whole archive has no keys to be found; it is removed all the same, unless the store is away, which the next
            // call says.
            tracing::warn!("failed to {error}; the file is removed all the same");
        }
        file.sync()
    }
}

/// The store's folder, which an errand that was begun by [`Store::enter`] has open.
fn root(hand: &Hand) -> io::Result<&OwnedFd> {
    hand.root.as_ref().ok_or_else(|| ErrorKind::NotFound.into())
}

/// The folder of the file at hand.
fn folder(hand: &Hand) -> io::Result<&OwnedFd> {
    hand.folder.as_ref().ok_or_else(|| ErrorKind::NotFound.into())
}

fn temporary_name(name: &OsString) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".tmp");
    temporary
}

fn read_expected(path: &Path) -> Result<Option<Identity>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| StoreError::io("understand", path)(e.into())),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(StoreError::io("read", path)(e)),
    }
}

fn write_expected(path: &Path, identity: &Identity) -> Result<(), StoreError> {
    let text = serde_json::to_vec(identity).map_err(|e| StoreError::io("write", path)(e.into()))?;
    write_whole(path, &text).map_err(StoreError::io("write", path))
}

//! The store: the folder, local or on a share, in which archives live.
//!
//! A store carries an identity file. A folder at the store's path without it, or with another one, is an unmounted or a
//! wrong share, not an empty store: nothing is written to it. The identity that the appliance expects is kept in its data
//! folder from the first use on, and is checked before every write, since a mount can go away at any time and leave the
//! empty folder below it. A store that is not there stops nothing but the work on it: it is looked at again and again, by a
//! thread of its own, and what waits for it goes on when it is back.
//!
//! An archive appears whole or not at all:
//!
//! 1. identity checked; 2. written as `.<name>.tmp` in its folder; 3. `fsync`; 4. `rename`; 5. `fsync` of the folder.
//!
//! A crash before 4 leaves a temporary file. The next attempt at the same recording overwrites it, and where there is no next
//! attempt, because the recording was deleted, [`Store::remove`] takes it away with the archive; so none stays for ever.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files::{make_folder, sync_folder, write_whole};

/// Name of the identity file at the top of a store.
pub(crate) const IDENTITY_NAME: &str = ".callvault-store";

/// Name of the file in the data folder that says which store is expected.
pub(crate) const EXPECTED_NAME: &str = "store.identity";

/// A look at the store that takes longer than this is a share that hangs.
const LOOK_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// Identifies the store wherever it is mounted.
    store: Uuid,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("use the store {path}: its identity file {IDENTITY_NAME} is missing; is the share mounted?")]
    NotThere { path: String },
    #[error(
        "use the store {path}: it is another store than the one this appliance has used so far; mount the right share, or move the old archives here together with their {IDENTITY_NAME}"
    )]
    Another { path: String },
    #[error("{what} {path}: {error}")]
    Io { what: &'static str, path: String, error: io::Error },
}

impl StoreError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::Io { what, path, error }
    }

    /// Whether the store as a whole is not to be used now, so that waiting is all that there is to do.
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::NotThere { .. } | Self::Another { .. } => true,
            Self::Io { error, .. } => is_away(error),
        }
    }

    /// Whether just this file is missing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == ErrorKind::NotFound)
    }
}

/// Whether an error of the file system speaks of the whole of it: full, read-only, disconnected.
pub(crate) fn is_away(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::StaleNetworkFileHandle
            | ErrorKind::NotConnected
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut
    )
}

/// How the store was when it was last looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    /// Why it cannot be used, if it cannot.
    pub(crate) away: Option<String>,
    /// Free bytes, where it is there.
    pub(crate) free_bytes: Option<u64>,
}

#[derive(Debug, Default)]
struct Looks {
    condition: Condition,
    /// When the look that is under way began.
    since: Option<Instant>,
}

/// The store. Everything but [`Store::condition`] may block as long as the share pleases.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// The file in the data folder that says which store is expected.
    expected_path: PathBuf,
    /// For the store that is made at the very first use.
    new_id: Uuid,
    identity: OnceLock<Identity>,
    /// Guards the making of a store, so that two threads do not make two.
    making: Mutex<()>,
    looks: Mutex<Looks>,
}

impl Store {
    /// The store at `path`, which need not be there. `data` is the appliance's data folder.
    pub(crate) fn new(path: &Path, data: &Path, new_id: Uuid) -> Self {
        Self {
            path: path.to_owned(),
            expected_path: data.join(EXPECTED_NAME),
            new_id,
            identity: OnceLock::new(),
            making: Mutex::new(()),
            looks: Mutex::default(),
        }
    }

    /// The store's folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there and the right one; at the very first use it is made.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let Some(identity) = self.identity.get() else { return self.establish() };
        match read_identity(&self.path.join(IDENTITY_NAME))? {
            Some(found) if found == *identity => Ok(()),
            Some(_) => Err(self.another()),
            None => Err(self.not_there()),
        }
    }

    fn establish(&self) -> Result<(), StoreError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = read_identity(&self.expected_path)?;
        let found = read_identity(&self.path.join(IDENTITY_NAME))?;
        let identity = match (expected, found) {
            (Some(expected), Some(found)) if expected == found => expected,
            (Some(_), Some(_)) => return Err(self.another()),
            (Some(_), None) => return Err(self.not_there()),
            // A store that came from another appliance, or one made just before a crash.
            (None, Some(found)) => {
                write_identity(&self.expected_path, &found)?;
                found
            }
            (None, None) => {
                make_folder(&self.path).map_err(StoreError::io("make the store", &self.path))?;
                let identity = Identity { store: self.new_id };
                write_identity(&self.path.join(IDENTITY_NAME), &identity)?;
                write_identity(&self.expected_path, &identity)?;
                identity
            }
        };
        self.identity.get_or_init(|| identity);
        Ok(())
    }

    fn not_there(&self) -> StoreError {
        StoreError::NotThere { path: self.path.display().to_string() }
    }

    fn another(&self) -> StoreError {
        StoreError::Another { path: self.path.display().to_string() }
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks how it is, for [`Store::condition`].
    pub(crate) fn look(&self) {
        self.looks().since = Some(Instant::now());
        let away = self.check().err().map(|error| format!("failed to {error}"));
        let about = if away.is_none() { statvfs(&self.path).ok() } else { None };
        let free_bytes = about.map(|about| about.blocks_available().saturating_mul(about.fragment_size()));
        let mut looks = self.looks();
        match (&looks.condition.away, &away) {
            (before, Some(text)) if before.as_ref() != Some(text) => tracing::error!("{text}"),
            (Some(_), None) => tracing::info!("the store is back; what waited for it goes on"),
            _ => {}
        }
        *looks = Looks { condition: Condition { away, free_bytes }, since: None };
    }

    /// How it was at the last look. Never blocks; a look that does not end is itself an answer.
    pub(crate) fn condition(&self) -> Condition {
        let looks = self.looks();
        match looks.since.map(|since| since.elapsed()) {
            Some(age) if age > LOOK_WITHIN => {
                let text = format!(
                    "failed to use the store {}: it has not answered for {} s; is the file server there?",
                    self.path.display(),
                    age.as_secs()
                );
                Condition { away: Some(text), free_bytes: None }
            }
            _ => looks.condition.clone(),
        }
    }

    /// Writes a file whole: `write` gets a writer and gives it back when it is done.
    pub(crate) fn put<T, E: From<StoreError>>(
        &self,
        name: &Path,
        write: impl FnOnce(BufWriter<File>) -> Result<(BufWriter<File>, T), E>,
    ) -> Result<T, E> {
        self.check()?;
        let path = self.path.join(name);
        let temporary = temporary_name(&path);
        let result = self.write_temporary(&path, &temporary, write);
        if result.is_err() {
            // Room for the next attempt, which may be for another recording; if it fails that attempt overwrites it.
            let _ = fs::remove_file(&temporary);
            return result;
        }
        let folder = path.parent().unwrap_or(&self.path);
        fs::rename(&temporary, &path).map_err(StoreError::io("put in place", &path))?;
        sync_folder(folder).map_err(StoreError::io("make durable the name of", &path))?;
        result
    }

    fn write_temporary<T, E: From<StoreError>>(
        &self,
        path: &Path,
        temporary: &Path,
        write: impl FnOnce(BufWriter<File>) -> Result<(BufWriter<File>, T), E>,
    ) -> Result<T, E> {
        let failed = |what| StoreError::io(what, path);
        let folder = path.parent().unwrap_or(&self.path);
        make_folder(folder).map_err(failed("make the folder of"))?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(temporary)
            .map_err(failed("begin to write"))?;
        let (writer, result) = write(BufWriter::with_capacity(256 * 1024, file))?;
        let file = writer.into_inner().map_err(|e| failed("write")(e.into_error()))?;
        file.sync_all().map_err(failed("make durable"))?;
        Ok(result)
    }

    /// Opens a file for reading.
    pub(crate) fn get(&self, name: &Path) -> Result<File, StoreError> {
        let path = self.path.join(name);
        File::open(&path).map_err(|e| match self.check() {
            Ok(()) => StoreError::io("read", &path)(e),
            Err(why) => why,
        })
    }

    /// Removes an archive for ever: its keys are erased in place, durably, then the file goes, and with it what an attempt that was
    /// broken off left under its temporary name. What is gone already is fine.
    pub(crate) fn remove(&self, name: &Path) -> Result<(), StoreError> {
        self.check()?;
        let path = self.path.join(name);
        for path in [&temporary_name(&path), &path] {
            erase(path)?;
            match fs::remove_file(path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(StoreError::io("remove", path)(e)),
                _ => {}
            }
        }
        match sync_folder(path.parent().unwrap_or(&self.path)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::io("make durable the removal of", &path)(e)),
            _ => Ok(()),
        }
    }
}

/// Erases the keys of an archive in place, if it is there.
fn erase(path: &Path) -> Result<(), StoreError> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(StoreError::io("erase the keys of", path)(e)),
    };
    if let Err(error) = callvault_archive::erase_keys(&mut file) {
        // What is no whole archive has no keys to be found; it is removed all the same.
        tracing::warn!("failed to {error}; the file is removed all the same");
    }
    file.sync_all().map_err(StoreError::io("make durable the erased keys of", path))
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

fn read_identity(path: &Path) -> Result<Option<Identity>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| StoreError::io("understand", path)(e.into())),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(StoreError::io("read", path)(e)),
    }
}

fn write_identity(path: &Path, identity: &Identity) -> Result<(), StoreError> {
    let text = serde_json::to_vec(identity).map_err(|e| StoreError::io("write", path)(e.into()))?;
    write_whole(path, &text).map_err(StoreError::io("write", path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::path::Path;

    use uuid::Uuid;

    use super::{IDENTITY_NAME, Store, StoreError};

    fn put(store: &Store, name: &str, content: &[u8]) -> Result<(), StoreError> {
        store.put(Path::new(name), |mut w| {
            w.write_all(content).map_err(StoreError::io("write", Path::new(name)))?;
            Ok((w, ()))
        })
    }

    #[test]
    fn what_is_put_is_there_whole_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(&root.path().join("store"), root.path(), Uuid::from_u128(1));
        put(&store, "2026/11/a.cva", b"first").unwrap();
        put(&store, "2026/11/a.cva", b"again").unwrap();
        let mut content = Vec::new();
        store.get(Path::new("2026/11/a.cva")).unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content, b"again");
        assert_eq!(std::fs::read_dir(root.path().join("store/2026/11")).unwrap().count(), 1);
        store.remove(Path::new("2026/11/a.cva")).unwrap();
        store.remove(Path::new("2026/11/a.cva")).unwrap();
        store.remove(Path::new("2025/01/never.cva")).unwrap();
    }

    #[test]
    fn an_unmounted_share_is_not_an_empty_store() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("share");
        let store = Store::new(&path, root.path(), Uuid::from_u128(1));
        store.check().unwrap();
        std::fs::remove_file(path.join(IDENTITY_NAME)).unwrap();
        assert!(matches!(put(&store, "a.cva", b"x"), Err(StoreError::NotThere { .. })));
        assert!(!path.join("a.cva").exists());
        let again = Store::new(&path, root.path(), Uuid::from_u128(2)).check();
        assert!(matches!(again, Err(StoreError::NotThere { .. })));
    }

    #[test]
    fn another_store_at_the_same_place_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let path = root.path().join("share");
        Store::new(&path, other.path(), Uuid::from_u128(9)).check().unwrap();
        Store::new(&root.path().join("first"), root.path(), Uuid::from_u128(1)).check().unwrap();
        let wrong = Store::new(&path, root.path(), Uuid::from_u128(2)).check();
        assert!(matches!(wrong, Err(StoreError::Another { .. })));
    }

    #[test]
    fn a_store_that_is_away_is_used_again_when_it_is_back() {
        let root = tempfile::tempdir().unwrap();
        let (path, hidden) = (root.path().join("share"), root.path().join("unmounted"));
        Store::new(&path, root.path(), Uuid::from_u128(1)).check().unwrap();
        std::fs::rename(&path, &hidden).unwrap();
        let store = Store::new(&path, root.path(), Uuid::from_u128(2));
        store.look();
        assert!(store.condition().away.is_some_and(|text| text.contains("is the share mounted")));
        assert!(put(&store, "a.cva", b"x").unwrap_err().is_away());
        std::fs::rename(&hidden, &path).unwrap();
        store.look();
        assert!(store.condition().away.is_none() && store.condition().free_bytes.is_some());
        put(&store, "a.cva", b"x").unwrap();
    }

    #[test]
    fn what_was_broken_off_does_not_stay() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(&root.path().join("store"), root.path(), Uuid::from_u128(1));
        let name = Path::new("2026/11/22/a.cva");
        let failed = store.put(name, |_| Err::<(_, ()), _>(StoreError::NotThere { path: String::new() }));
        assert!(failed.is_err());
        let folder = root.path().join("store/2026/11/22");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::write(folder.join(".a.cva.tmp"), b"left by a crash").unwrap();
        store.remove(name).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }
}

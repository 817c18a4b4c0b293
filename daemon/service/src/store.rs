//! The store: the folder, local or on a share, in which archives live.
//!
//! A store carries an identity file. A folder at the store's path without it, or with another one, is an unmounted or a
//! wrong share, not an empty store: nothing is written to it. The identity that the appliance expects is kept in its data
//! folder from the first use on, and is checked before every write, since a mount can go away at any time and leave the
//! empty folder below it.
//!
//! An archive appears whole or not at all:
//!
//! 1. identity checked; 2. written as `.<name>.tmp` in its folder; 3. `fsync`; 4. `rename`; 5. `fsync` of the folder.
//!
//! A crash before 4 leaves a temporary file that the next attempt overwrites.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::files::{make_folder, sync_folder, write_whole};

/// Name of the identity file at the top of a store.
const IDENTITY_NAME: &str = ".callvault-store";

/// Name of the file in the data folder that says which store is expected.
const EXPECTED_NAME: &str = "store.identity";

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
    #[error("use the store {path}: it is another store than the one this appliance has used so far; mount the right share, or move the old archives here together with their {IDENTITY_NAME}")]
    Another { path: String },
    #[error("{what} {path}: {error}")]
    Io { what: &'static str, path: String, error: io::Error },
}

impl StoreError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::Io { what, path, error }
    }
}

/// A store whose identity has been checked once.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    path: PathBuf,
    identity: Identity,
}

impl Store {
    /// Opens the store at `path`; at the very first use makes it. `data` is the appliance's data folder.
    pub(crate) fn open(path: &Path, data: &Path, new_id: Uuid) -> Result<Self, StoreError> {
        let expected_path = data.join(EXPECTED_NAME);
        let expected = read_identity(&expected_path)?;
        let found = read_identity(&path.join(IDENTITY_NAME))?;
        let identity = match (expected, found) {
            (Some(expected), Some(found)) if expected == found => expected,
            (Some(_), Some(_)) => return Err(StoreError::Another { path: path.display().to_string() }),
            (Some(_), None) => return Err(StoreError::NotThere { path: path.display().to_string() }),
            // A store that came from another appliance, or one made just before a crash.
            (None, Some(found)) => found,
            (None, None) => {
                make_folder(path).map_err(StoreError::io("make the store", path))?;
                let identity = Identity { store: new_id };
                write_identity(&path.join(IDENTITY_NAME), &identity)?;
                identity
            }
        };
        write_identity(&expected_path, &identity)?;
        Ok(Self { path: path.to_owned(), identity })
    }

    /// The store's folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there and the right one.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match read_identity(&self.path.join(IDENTITY_NAME))? {
            Some(found) if found == self.identity => Ok(()),
            Some(_) => Err(StoreError::Another { path: self.path.display().to_string() }),
            None => Err(StoreError::NotThere { path: self.path.display().to_string() }),
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
        let failed = |what| StoreError::io(what, &path);
        let folder = path.parent().unwrap_or(&self.path).to_owned();
        make_folder(&folder).map_err(failed("make the folder of"))?;
        let temporary = temporary_name(&path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed("begin to write"))?;
        let (writer, result) = write(BufWriter::with_capacity(256 * 1024, file))?;
        let file = writer.into_inner().map_err(|e| failed("write")(e.into_error()))?;
        file.sync_all().map_err(failed("make durable"))?;
        drop(file);
        fs::rename(&temporary, &path).map_err(failed("put in place"))?;
        sync_folder(&folder).map_err(failed("make durable the name of"))?;
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

    /// Opens a file for overwriting in place (its key slots).
    pub(crate) fn edit(&self, name: &Path) -> Result<File, StoreError> {
        self.check()?;
        let path = self.path.join(name);
        OpenOptions::new().read(true).write(true).open(&path).map_err(StoreError::io("change", &path))
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, name: &Path) -> Result<(), StoreError> {
        self.check()?;
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", &path)(e)),
            _ => sync_folder(path.parent().unwrap_or(&self.path)).or_else(|e| match e.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(StoreError::io("make durable the removal of", &path)(e)),
            }),
        }
    }
}

fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

fn read_identity(path: &Path) -> Result<Option<Identity>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| StoreError::io("understand", path)(e.into())),
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
        let store = Store::open(&root.path().join("store"), root.path(), Uuid::from_u128(1)).unwrap();
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
        let store = Store::open(&path, root.path(), Uuid::from_u128(1)).unwrap();
        std::fs::remove_file(path.join(IDENTITY_NAME)).unwrap();
        assert!(matches!(put(&store, "a.cva", b"x"), Err(StoreError::NotThere { .. })));
        assert!(!path.join("a.cva").exists());
        let again = Store::open(&path, root.path(), Uuid::from_u128(2));
        assert!(matches!(again, Err(StoreError::NotThere { .. })));
    }

    #[test]
    fn another_store_at_the_same_place_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let path = root.path().join("share");
        Store::open(&path, other.path(), Uuid::from_u128(9)).unwrap();
        Store::open(&root.path().join("first"), root.path(), Uuid::from_u128(1)).unwrap();
        let wrong = Store::open(&path, root.path(), Uuid::from_u128(2));
        assert!(matches!(wrong, Err(StoreError::Another { .. })));
    }
}

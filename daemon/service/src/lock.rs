//! One daemon per data folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held as long as the daemon uses the folder. The kernel lets go of it when the process ends, however it ends.
pub(crate) struct FolderLock {
    _file: Flock<File>,
}

/// Why the folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error(
        "use the data folder {folder}: another callvaultd (process {process}) uses it already; stop that one, or give this one a data_dir of its own"
    )]
    Taken { folder: String, process: String },
    #[error("lock the data folder {folder}: {error}; it must be writable by the user that callvaultd runs as")]
    Io { folder: String, error: io::Error },
}

impl FolderLock {
    /// Locks `folder`, or says who has it.
    pub(crate) fn take(folder: &Path) -> Result<Self, LockError> {
        let failed = |error| LockError::Io { folder: folder.display().to_string(), error };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join("lock"))
            .map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // For people only: the lock is the lock, not the number in it.
                file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
                Ok(Self { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut process = String::new();
                let _ = file.rewind();
                let _ = file.read_to_string(&mut process);
                Err(LockError::Taken { folder: folder.display().to_string(), process: process.trim().to_owned() })
            }
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::FolderLock;

    #[test]
    fn the_second_is_told_who_has_it_and_the_next_may() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let said = FolderLock::take(folder.path()).err().unwrap().to_string();
        assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
        drop(first);
        assert!(FolderLock::take(folder.path()).is_ok());
    }
}

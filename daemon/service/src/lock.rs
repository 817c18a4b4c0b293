//! One daemon per data folder, and one recorder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

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
    #[error(
        "begin in the data folder {folder}: a recorder of a daemon that is gone has not ended within {within_s} s; end it (`pgrep -a callvault-record`, then kill -9), the daemon tries again when it is started again"
    )]
    Recorder { folder: String, within_s: u64 },
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

/// How long the recorder of a daemon that is gone may take to end: it has a journal to flush.
const RECORDER_WITHIN: Duration = Duration::from_secs(15);

/// Held by the daemon and, by a copy of its descriptor, by each recorder that it starts: as long as one of them lives, no other daemon
/// starts a recorder beside it. The kernel lets go of it when the last of them has ended.
pub(crate) struct RecorderLock(File);

impl RecorderLock {
    /// Waits until no recorder uses `folder`. The caller has the [`FolderLock`], so what still has this lock is a recorder that is
    /// left over, and which ends because its daemon is gone.
    pub(crate) fn take(folder: &Path) -> Result<Self, LockError> {
        Self::take_within(folder, RECORDER_WITHIN)
    }

    fn take_within(folder: &Path, within: Duration) -> Result<Self, LockError> {
        let name = || folder.display().to_string();
        let failed = |error| LockError::Io { folder: name(), error };
        let path = folder.join("recorder.lock");
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
        let begun = Instant::now();
        loop {
            // It is never unlocked, only closed: to unlock it would take it from the recorders as well.
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= within => {
                    return Err(LockError::Recorder { folder: name(), within_s: within.as_secs() });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl AsFd for RecorderLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::{FolderLock, RecorderLock};

    #[test]
    fn the_second_is_told_who_has_it_and_the_next_may() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let said = FolderLock::take(folder.path()).err().unwrap().to_string();
        assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
        drop(first);
        assert!(FolderLock::take(folder.path()).is_ok());
    }

    #[test]
    fn a_recorder_that_is_left_over_keeps_another_from_being_started() {
        let folder = tempfile::tempdir().unwrap();
        let daemons = RecorderLock::take_within(folder.path(), Duration::ZERO).unwrap();
        let recorders = daemons.as_fd().try_clone_to_owned().unwrap();
        drop(daemons);
        let said = RecorderLock::take_within(folder.path(), Duration::ZERO).err().unwrap().to_string();
        assert!(said.contains("kill -9"), "{said}");
        drop(recorders);
        assert!(RecorderLock::take_within(folder.path(), Duration::ZERO).is_ok());
    }
}

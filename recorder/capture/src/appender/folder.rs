//! Where journal files are made: the system calls that the appender needs, and nothing of when or why.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::statvfs::statvfs;

/// A journal file that is being written.
pub(crate) trait JournalFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when what was written is on the device (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// The folder of the journal.
pub(crate) trait JournalFolder: Send {
    /// Creates a file that was not there, and makes its name durable.
    fn create(&self, name: &str) -> io::Result<Arc<dyn JournalFile>>;
    /// Bytes that can still be written; none when the system does not say.
    fn free_bytes(&self) -> Option<u64>;
}

/// A folder on a disk.
pub(crate) struct DiskFolder(pub(crate) PathBuf);

impl JournalFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl JournalFolder for DiskFolder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn JournalFile>> {
        let path = self.0.join(name);
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        let file = match options.clone().create_new(true).open(&path) {
            // An earlier try came as far as this: no other generation has files of this name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = options.open(&path)?;
                if file.metadata()?.len() > 0 {
                    return Err(error);
                }
                file
            }
            other => other?,
        };
        File::open(&self.0)?.sync_all()?;
        Ok(Arc::new(file))
    }

    fn free_bytes(&self) -> Option<u64> {
        let about = statvfs(&self.0).ok()?;
        Some(about.blocks_available().saturating_mul(about.fragment_size()))
    }
}

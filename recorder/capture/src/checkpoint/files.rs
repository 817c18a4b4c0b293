//! Where the files of the checkpoints are: the system calls, and nothing of when or why.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::folder::OpenError;

/// The files of the checkpoints, by name.
pub(crate) trait Files: Send + Sync {
    /// Replaces a file: whoever reads it finds all of it as it was, or all of it as it is now. `new` is what it is called meanwhile.
    fn replace(&self, name: &str, new: &str, bytes: &[u8]) -> io::Result<()>;
    /// Opens a file to be written to; it may be there.
    fn open(&self, name: &str) -> io::Result<Box<dyn OpenFile>>;
    /// The first bytes of a file, at most so many.
    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>>;
    /// All of `bytes` from `offset` of a file.
    fn read_at(&self, name: &str, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// What there is.
    fn names(&self) -> io::Result<Vec<String>>;
    fn rename(&self, name: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A file that is open to be written to.
pub(crate) trait OpenFile: Send {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

/// A folder in memory (tmpfs).
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it, for this user alone.
    pub(super) fn make(path: &Path) -> Result<Self, OpenError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let kind = statfs(path).map_err(io::Error::from)?.filesystem_type();
        if kind == TMPFS_MAGIC { Ok(Self(path.to_owned())) } else { Err(OpenError::OnDisk) }
    }
}

impl Files for Folder {
    fn replace(&self, name: &str, new: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.0.join(new);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        fs::rename(&new, self.0.join(name))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn OpenFile>> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(self.0.join(name))?;
        Ok(Box::new(file))
    }

    fn read(&self, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.0.join(name))?.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_at(&self, name: &str, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        File::open(self.0.join(name))?.read_exact_at(bytes, offset)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            // What is not text is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn rename(&self, name: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(name), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }
}

impl OpenFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }
}

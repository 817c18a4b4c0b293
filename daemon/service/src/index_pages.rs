//! What the index of the journal puts away: a file beside the journal that has no name, and is gone with the process.
//!
//! Where each frame of a live call is takes 60 bytes a second, which an hour of 200 calls would make 45 MB of memory for what is needed once,
//! when the call is over. It says no more than the frames' headers in the journal beside it, which are in the clear too.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use callvault_journal::{PAGE_BYTES, Pages};
use nix::libc::O_TMPFILE;

/// The file is made when the first page is put away.
#[derive(Debug)]
pub(crate) struct IndexPages {
    folder: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<File>,
    free: Vec<u32>,
    /// Pages that the file has.
    count: u32,
}

impl IndexPages {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offset(number: u32) -> u64 {
    u64::from(number) * PAGE_BYTES as u64
}

impl Pages for IndexPages {
    fn put(&self, page: &[u8]) -> io::Result<u32> {
        let mut inner = self.lock();
        let Inner { file, free, count } = &mut *inner;
        let file = match file {
            Some(file) => file,
            none => {
                let options = OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(O_TMPFILE).clone();
                none.insert(options.open(&self.folder)?)
            }
        };
        let number = free.last().copied().unwrap_or(*count);
        file.write_all_at(page, offset(number))?;
        if free.pop().is_none() {
            *count = count.checked_add(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(number)
    }

    fn get(&self, number: u32, page: &mut [u8]) -> io::Result<()> {
        let inner = self.lock();
        inner.file.as_ref().ok_or(io::ErrorKind::NotFound)?.read_exact_at(page, offset(number))
    }

    fn free(&self, number: u32) {
        let mut inner = self.lock();
        inner.free.push(number);
        // Nothing is kept any more: the disk has it back.
        if inner.free.len() as u64 == u64::from(inner.count) {
            *inner = Inner::default();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_and_their_room_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let pages = IndexPages::new(folder.path());
        let numbers: Vec<u32> = (0..3).map(|n| pages.put(&vec![n; PAGE_BYTES - usize::from(n)]).unwrap()).collect();
        let mut page = [0; PAGE_BYTES - 2];
        pages.get(numbers[2], &mut page).unwrap();
        assert_eq!(page, [2; PAGE_BYTES - 2]);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it has no name");
        pages.free(numbers[1]);
        assert_eq!(pages.put(&[9; 7]).unwrap(), numbers[1]);
        assert_eq!(pages.lock().count, 3);
        numbers.iter().for_each(|number| pages.free(*number));
        assert!(pages.lock().file.is_none());
        assert!(pages.get(numbers[0], &mut page).is_err());
    }

    #[test]
    fn a_folder_that_takes_no_file_is_an_error() {
        assert!(IndexPages::new(Path::new("/proc")).put(&[1]).is_err());
    }
}

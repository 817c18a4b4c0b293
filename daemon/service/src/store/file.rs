//! A file in the store, read or written by an errand: every call has its deadline, so a long file may take as long as it goes on.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::errand::{Errand, Hand};
use super::state::Purpose;
use super::{Shared, StoreError, below};

/// After so many written bytes they are synced. What one sync has to carry to a server is bounded by it, and so is its time: with the
/// usual deadline of 30 s, a share need take no more than 140 KB/s.
const SYNC_BYTES: u64 = 4 * 1024 * 1024;

/// Most bytes of one read.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// What becomes of the file when this is dropped.
#[derive(Debug)]
enum Left {
    /// Nothing: it was there before, or it is in its place.
    AsItIs,
    /// It was being written under this name, and goes.
    Removed(OsString),
}

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct StoreFile {
    shared: Arc<Shared>,
    errand: Arc<Errand>,
    about: PathBuf,
    /// What it is read for.
    purpose: Purpose,
    position: u64,
    unsynced: u64,
    left: Left,
}

/// The file at hand; an errand that has one was begun by opening it.
fn file_of(hand: &Hand) -> io::Result<&File> {
    hand.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl StoreFile {
    /// A file that the errand has open.
    pub(super) fn opened(shared: &Arc<Shared>, errand: Arc<Errand>, about: PathBuf, purpose: Purpose) -> Self {
        Self { shared: Arc::clone(shared), errand, about, purpose, position: 0, unsynced: 0, left: Left::AsItIs }
    }

    /// A file that the errand has made under its temporary name.
    pub(super) fn begun(shared: &Arc<Shared>, errand: Arc<Errand>, about: PathBuf, temporary: OsString) -> Self {
        let mut file = Self::opened(shared, errand, about, Purpose::Write);
        file.left = Left::Removed(temporary);
        file
    }

    fn call<T: Send + 'static>(
        &self,
        (what, purpose): (&'static str, Purpose),
        call: impl FnOnce(&mut Hand) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.call((&self.errand, &self.about), (what, purpose), call)
    }

    /// Writes at the end of what was written so far.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (content, at, end) = (bytes.to_vec(), self.position, self.position.saturating_add(bytes.len() as u64));
        let write = move |hand: &mut Hand| file_of(hand)?.write_all_at(&content, at);
        self.call(("write", Purpose::Write), write).inspect_err(|error| self.shared.did_not_fit(error, end))?;
        self.position = end;
        self.unsynced = self.unsynced.saturating_add(bytes.len() as u64);
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Everything that was written is on the device.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        self.call(("make durable", Purpose::Write), |hand| file_of(hand)?.sync_all())?;
        self.unsynced = 0;
        Ok(())
    }

    /// Syncs it and gives it its name; then it is there, whole and durable.
    pub(super) fn finish(mut self, name: OsString) -> Result<(), StoreError> {
        self.sync()?;
        let Left::Removed(temporary) = std::mem::replace(&mut self.left, Left::AsItIs) else { return Ok(()) };
        let from = temporary.clone();
        let renamed = self.call(("put in place", Purpose::Write), move |hand| {
            let folder = hand.folder.as_ref().ok_or(io::ErrorKind::NotFound)?;
            below::rename(folder, &from, &name)
        });
        if renamed.is_err() {
            self.left = Left::Removed(temporary);
        }
        renamed
    }

    /// How a reader or writer hears of an error: as it is, unless it speaks of the whole store.
    fn told(error: StoreError) -> io::Error {
        match error {
            StoreError::Io { error, .. } => error,
            other => io::Error::other(other),
        }
    }
}

impl Write for StoreFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map_err(Self::told)?;
        Ok(bytes.len())
    }

    /// Nothing is held back here; [`StoreFile::finish`] syncs.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for StoreFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (wanted, at) = (bytes.len().min(READ_BYTES_MAX), self.position);
        let read = move |hand: &mut Hand| {
            let mut content = vec![0; wanted];
            let count = loop {
                match file_of(hand)?.read_at(&mut content, at) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
            content.truncate(count);
            Ok(content)
        };
        let content = self.call(("read", self.purpose), read).map_err(Self::told)?;
        bytes[..content.len()].copy_from_slice(&content);
        self.position = self.position.saturating_add(content.len() as u64);
        Ok(content.len())
    }
}

impl Seek for StoreFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => {
                let length = |hand: &mut Hand| Ok(file_of(hand)?.metadata()?.len());
                self.call(("find the length of", self.purpose), length).map_err(Self::told)?.checked_add_signed(by)
            }
        };
        self.position = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl Drop for StoreFile {
    fn drop(&mut self) {
        let Left::Removed(name) = std::mem::replace(&mut self.left, Left::AsItIs) else { return };
        // Room for the next attempt, which may be for another recording; if it fails that attempt overwrites it.
        let _ = self.errand.run(move |hand| {
            hand.file = None;
            Ok(hand.folder.as_ref().map(|folder| below::unlink(folder, &name)))
        });
    }
}

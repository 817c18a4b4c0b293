//! The files of the journal: what was written to which of them, what of it is on the device, and what to do when one fails.
//!
//! Everything that is not known to be on the device is kept in memory. When a write or a sync fails the file is given up, for
//! good; once another can be created (the disk has room again, or is back) all of that is written to it, in order. Until then it
//! waits here, and the appender takes no more than its bound.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use callvault_journal::{Batch, JournalError, Writer, file_name};

use super::folder::{JournalFile, JournalFolder};

/// Unsynced batches kept for the case that the file must be given up. Above it the disk has stood still for a quarter of a minute
/// at 1,000 calls.
pub(super) const UNSYNCED_BYTES_MAX: usize = 256 << 20;

/// Room in a batch's memory beyond its bytes that is worth giving back while it is kept.
const SPARE_ROOM_BYTES: usize = 64 << 10;

/// First and longest pause between two tries to create a file.
const RETRY_NS_MIN: u64 = 100_000_000;
const RETRY_NS_MAX: u64 = 2_000_000_000;

/// Room beyond what waits that a disk must have for another try: a full disk would only be left with one more torn file.
const ROOM_BYTES_SLACK: u64 = 1 << 20;

/// What [`Disk`] has to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The operator should know.
    Alarm(&'static str, String),
    /// It goes on in a new file after one was given up. `lost`: what was no longer in memory is lost with the old one.
    Recovered { lost: bool },
    /// This file is closed and durable.
    Rotated(u32),
    /// All frames up to here are on the device.
    Durable(u64),
}

/// A sync to be done elsewhere.
pub(super) struct SyncRequest {
    pub(super) file: Arc<dyn JournalFile>,
    pub(super) seq: u64,
}

/// The present file and what is not durable yet.
pub(super) struct Disk {
    folder: Box<dyn JournalFolder>,
    /// None while no file can be had.
    file: Option<Arc<dyn JournalFile>>,
    /// Without a file: whether the writer's present one was given up, or has only not been created yet.
    given_up: bool,
    retry_at_ns: u64,
    retry_ns: u64,
    /// Batches since the last sync, oldest first.
    unsynced: VecDeque<Batch>,
    unsynced_bytes: usize,
    /// Last frame in the present file.
    written_seq: u64,
    durable_seq: u64,
    /// Last frame that memory no longer holds and that was not durable then.
    let_go_seq: u64,
    syncing: bool,
    told: VecDeque<Told>,
}

impl Disk {
    /// Creates the generation's first file, with its header on the device.
    pub(super) fn begin(folder: Box<dyn JournalFolder>, writer: &mut Writer) -> io::Result<Self> {
        let file = folder.create(&file_name(writer.generation(), writer.file_seq()))?;
        let first = writer.take();
        file.write_at(&first.bytes, first.offset)?;
        file.sync()?;
        Ok(Self {
            folder,
            file: Some(file),
            given_up: false,
            retry_at_ns: 0,
            retry_ns: RETRY_NS_MIN,
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            written_seq: first.last_seq,
            durable_seq: first.last_seq,
            let_go_seq: 0,
            syncing: false,
            told: VecDeque::new(),
        })
    }

    /// The next thing that it has to say.
    pub(super) fn poll(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// Whether there is a file to write to.
    pub(super) fn is_writable(&self) -> bool {
        self.file.is_some()
    }

    /// Whether so much waits for the device that no new session should be taken.
    pub(super) fn is_behind(&self) -> bool {
        self.file.is_none() || self.unsynced_bytes > UNSYNCED_BYTES_MAX / 2
    }

    pub(super) fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// Bytes that are kept until they are known to be on the device.
    pub(super) fn unsynced_bytes(&self) -> usize {
        self.unsynced_bytes
    }

    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.folder.free_bytes()
    }

    /// Writes what the writer has; says how many bytes, or nothing when that failed. Without a file nothing is written.
    pub(super) fn write(&mut self, writer: &mut Writer, now_ns: u64) -> Option<u64> {
        let Some(file) = self.file.clone().filter(|_| writer.pending_bytes() > 0) else { return Some(0) };
        let batch = writer.take();
        let (bytes, seq) = (batch.bytes.len(), batch.last_seq);
        let result = file.write_at(&batch.bytes, batch.offset);
        self.remember(batch);
        match result {
            Ok(()) => {
                self.written_seq = seq;
                self.retry_ns = RETRY_NS_MIN;
                Some(bytes as u64)
            }
            Err(error) => {
                self.give_up(writer, &error, now_ns);
                None
            }
        }
    }

    /// A sync of everything written, unless one is under way or nothing is new.
    pub(super) fn sync(&mut self) -> Option<SyncRequest> {
        if self.syncing || self.written_seq <= self.durable_seq {
            return None;
        }
        let file = self.file.clone()?;
        self.syncing = true;
        Some(SyncRequest { file, seq: self.written_seq })
    }

    /// A sync is done. Says whether it was of the present file and succeeded.
    pub(super) fn synced(
        &mut self,
        writer: &mut Writer,
        done: &SyncRequest,
        result: &io::Result<()>,
        now_ns: u64,
    ) -> bool {
        // A file that was given up or closed meanwhile: what became of it is known already.
        if !self.file.as_ref().is_some_and(|file| Arc::ptr_eq(file, &done.file)) {
            return false;
        }
        self.syncing = false;
        match result {
            Ok(()) => self.became_durable(writer, done.seq),
            Err(error) => self.give_up(writer, error, now_ns),
        }
        result.is_ok()
    }

    /// Ends the file and begins the next, in the order of the journal's procedures: write the end, sync, create. Waits for a
    /// sync that is under way: the kernel tells a failed write-back once, and it must not be that one which hears of it and
    /// this one which believes that all is well.
    pub(super) fn rotate(&mut self, writer: &mut Writer, now_ns: u64, wall_ns: i64) -> Result<(), JournalError> {
        if self.syncing {
            return Ok(());
        }
        let Some(file) = self.file.clone().filter(|_| writer.pending_bytes() == 0) else { return Ok(()) };
        let closed = writer.file_seq();
        let last = writer.rotate(wall_ns, now_ns)?;
        let (offset, seq) = (last.offset, last.last_seq);
        let written = file.write_at(&last.bytes, offset).and_then(|()| file.sync());
        self.remember(last);
        if let Err(error) = written {
            self.give_up(writer, &error, now_ns);
            return Ok(());
        }
        self.written_seq = seq;
        self.became_durable(writer, seq);
        self.told.push_back(Told::Rotated(closed));
        (self.file, self.given_up, self.syncing, self.retry_at_ns) = (None, false, false, now_ns);
        self.find_file(writer, now_ns, wall_ns);
        Ok(())
    }

    /// Ends the generation. Says whether everything is on the device; not while a sync is under way, as for [`Disk::rotate`].
    pub(super) fn finish(&mut self, writer: &mut Writer, now_ns: u64) -> bool {
        if self.syncing {
            return false;
        }
        let Some(file) = self.file.clone() else { return false };
        let last = writer.finish();
        let (seq, done) = (last.last_seq, file.write_at(&last.bytes, last.offset).and_then(|()| file.sync()));
        self.remember(last);
        match done {
            Ok(()) => self.became_durable(writer, seq),
            Err(error) => self.give_up(writer, &error, now_ns),
        }
        self.file.is_some()
    }

    fn remember(&mut self, mut batch: Batch) {
        if batch.bytes.capacity() - batch.bytes.len() > SPARE_ROOM_BYTES {
            batch.bytes.shrink_to_fit();
        }
        self.unsynced_bytes += batch.bytes.len();
        self.unsynced.push_back(batch);
        // Beyond the bound, what is oldest cannot be written again should the file fail; it is in the page cache still.
        while self.unsynced_bytes > UNSYNCED_BYTES_MAX && self.unsynced.len() > 1 && self.file.is_some() {
            let Some(oldest) = self.unsynced.pop_front() else { break };
            self.let_go_seq = oldest.last_seq;
            self.unsynced_bytes -= oldest.bytes.len();
        }
    }

    fn became_durable(&mut self, writer: &mut Writer, seq: u64) {
        self.durable_seq = self.durable_seq.max(seq);
        while self.unsynced.front().is_some_and(|b| b.last_seq <= seq) {
            if let Some(batch) = self.unsynced.pop_front() {
                self.unsynced_bytes -= batch.bytes.len();
                writer.recycle(batch.bytes);
            }
        }
        self.told.push_back(Told::Durable(self.durable_seq));
    }

    /// The present file failed: nothing more is written to it.
    fn give_up(&mut self, writer: &Writer, error: &io::Error, now_ns: u64) {
        let name = file_name(writer.generation(), writer.file_seq());
        self.told.push_back(Told::Alarm(
            "journal-file",
            format!("the journal file {name} failed ({error}); it is sealed off, and what is not known to be on the disk goes to a new one"),
        ));
        (self.file, self.given_up, self.syncing) = (None, true, false);
        self.retry_later(now_ns);
    }

    fn retry_later(&mut self, now_ns: u64) {
        self.retry_at_ns = now_ns.saturating_add(self.retry_ns);
        self.retry_ns = self.retry_ns.saturating_mul(2).min(RETRY_NS_MAX);
    }

    /// Where there is no file, gets one to go on in, when it is time to try and there is room for what waits. Nothing is written to it yet.
    pub(super) fn find_file(&mut self, writer: &mut Writer, now_ns: u64, wall_ns: i64) {
        if self.file.is_some() || now_ns < self.retry_at_ns {
            return;
        }
        let waiting = (self.unsynced_bytes + writer.pending_bytes()) as u64;
        let room = self.folder.free_bytes().unwrap_or(u64::MAX);
        if room < waiting.saturating_add(ROOM_BYTES_SLACK) {
            return self.retry_later(now_ns);
        }
        // Created before anything is moved, so that a failure leaves everything as it was.
        let next = if self.given_up { writer.file_seq().checked_add(1) } else { Some(writer.file_seq()) };
        let Some(next) = next else { return self.retry_later(now_ns) };
        let file = match self.folder.create(&file_name(writer.generation(), next)) {
            Ok(file) => file,
            Err(error) => {
                if self.retry_ns == RETRY_NS_MIN {
                    self.told
                        .push_back(Told::Alarm("journal-file", format!("failed to create a journal file: {error}")));
                }
                return self.retry_later(now_ns);
            }
        };
        if std::mem::take(&mut self.given_up) {
            let lost = self.let_go_seq > self.durable_seq;
            self.let_go_seq = 0;
            self.unsynced_bytes = 0;
            if let Err(error) = writer.abandon_file(self.unsynced.drain(..), wall_ns, now_ns) {
                // Only when four billion files are used: nothing more can be written, which is told over and over.
                self.told.push_back(Told::Alarm("journal-file", format!("failed to {error}")));
                return self.retry_later(now_ns);
            }
            self.told.push_back(Told::Recovered { lost });
        }
        (self.file, self.written_seq) = (Some(file), self.durable_seq);
    }
}

//! The appender: the one thread that writes the journal.
//!
//! Everything that is to be kept comes here as [`Entry`], in order, through one bounded queue. The appender seals it, and writes
//! what has gathered with one `write(2)`. Another thread syncs: about once a second, and soon after a session ended, it calls
//! `fdatasync`, so that a slow disk holds up neither the media nor the signalling. What the order guarantees:
//!
//! 1. A frame is written before anything that depends on it (a lane's opening before its audio, its events before its end).
//! 2. The daemon hears of an ended recording only when its end is durable.
//! 3. The sealed key of a lane is written only after the verdict *keep*; until then it exists in this thread's memory alone.
//! 4. A file is durable before its successor exists.
//!
//! A write or sync that fails is never tried again on the same file: the file is given up, and what was not known to be durable
//! is written again to a new one.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread;
use std::time::Duration;

use callvault_control::{Decision, Start};
use callvault_journal::facts::{Ended, Flaw, SessionEvent};
use callvault_journal::{AudioBatch, Batch, JournalError, Lane, LaneEnd, Limits, Writer, file_name};
use callvault_seal::{Cipher, DataKey, PublicKey, SealedKey, seal_key};
use nix::sys::statvfs::statvfs;
use uuid::Uuid;

use crate::Feedback;
use crate::clock::{journal_ns, wall_ns};

/// Entries taken from the queue before they are written: bounds how long one write can get.
const ENTRIES_PER_WRITE_MAX: usize = 4_096;

/// How long the appender waits for entries: the period of its own housekeeping.
const ROUND: Duration = Duration::from_millis(50);

/// Shortest time between two syncs that ended sessions ask for.
const SYNC_SOON_NS: u64 = 100_000_000;

/// Unsynced batches kept for the case that the file must be given up. Above it the disk has stood still for minutes.
const UNSYNCED_BYTES_MAX: usize = 256 << 20;

/// Audio buffers kept for reuse.
const SPARE_BATCHES_MAX: usize = 1_024;

/// Something for the journal.
pub(crate) enum Entry {
    /// A recording begins.
    Open { recording: Uuid },
    /// Something happened in it.
    Facts { recording: Uuid, event: SessionEvent },
    /// Packets of it.
    Audio { recording: Uuid, batch: AudioBatch },
    /// What becomes of it.
    Decide { recording: Uuid, decision: Decision },
    /// It has ended.
    End { recording: Uuid, ended: Ended },
    /// Flush everything and stop.
    Stop,
}

/// What the other threads see of the appender.
#[derive(Debug, Default)]
pub(crate) struct AppenderState {
    pub(crate) rounds: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) spool_free_bytes: AtomicU64,
    pub(crate) spool_full: AtomicBool,
    /// Whether unsynced data is above its bound.
    pub(crate) behind: AtomicBool,
}

struct OpenLane {
    lane: Lane,
    cipher: Cipher,
    /// The key until the verdict; then it is in the journal, sealed, or forgotten.
    key: Option<DataKey>,
    sealed: Vec<SealedKey>,
    ended: bool,
}

enum SyncRequest {
    Sync { file: Arc<File>, seq: u64, bytes: u64 },
    Stop,
}

struct Synced {
    file: Arc<File>,
    seq: u64,
    bytes: u64,
    result: io::Result<()>,
}

/// The appender. [`Appender::run`] is its thread.
pub(crate) struct Appender {
    settings: Arc<Start>,
    recipients: Vec<PublicKey>,
    writer: Writer,
    folder: PathBuf,
    file: Arc<File>,
    lanes: HashMap<Uuid, OpenLane>,
    /// Ended recordings and the frame that must be durable before the daemon hears of them.
    ended: VecDeque<(u64, Uuid)>,
    unsynced: VecDeque<Batch>,
    unsynced_bytes: usize,
    written_bytes: u64,
    syncing: bool,
    sync_wanted: bool,
    last_sync_ns: u64,
    looked_ns: u64,
    durable_seq: u64,
    committed_seq: u64,
    to_sync: Sender<SyncRequest>,
    synced: Receiver<Synced>,
    syncer: Option<thread::JoinHandle<()>>,
    state: Arc<AppenderState>,
    feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
    spare: SyncSender<AudioBatch>,
}

/// Why the appender cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("{what} {path}: {error}")]
    Io { what: &'static str, path: String, error: io::Error },
    #[error("use a public key for the journal: {0}")]
    Key(#[from] callvault_seal::SealError),
    #[error("{0}")]
    Journal(#[from] JournalError),
}

impl AppendError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::Io { what, path, error }
    }
}

/// Where used audio buffers come back from.
pub(crate) fn spare_batches() -> (SyncSender<AudioBatch>, Receiver<AudioBatch>) {
    std::sync::mpsc::sync_channel(SPARE_BATCHES_MAX)
}

impl Appender {
    /// Creates the generation's first file, durably.
    pub(crate) fn begin(
        settings: Arc<Start>,
        state: Arc<AppenderState>,
        feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
        spare: SyncSender<AudioBatch>,
    ) -> Result<Self, AppendError> {
        let recipients =
            settings.recipients.iter().map(|text| PublicKey::from_text(text)).collect::<Result<Vec<_>, _>>()?;
        let limits = Limits {
            file_bytes_max: settings.file_bytes_max,
            file_age_ms_max: u64::from(settings.file_age_max_s) * 1_000,
            ..Limits::default()
        };
        let now = journal_ns();
        let mut writer = Writer::new(settings.generation, wall_ns(), now, limits);
        let folder = settings.journal_dir.clone();
        let file = create(&folder, settings.generation, 0)?;
        let first = writer.take();
        file.write_all_at(&first.bytes, 0)
            .and_then(|()| file.sync_data())
            .map_err(AppendError::io("write the journal in", &folder))?;
        let (to_sync, requests) = channel();
        let (done, synced) = channel();
        let syncer = thread::Builder::new()
            .name("journal-sync".into())
            .spawn(move || sync_loop(&requests, &done))
            .map_err(AppendError::io("start the sync thread for", &folder))?;
        let mut appender = Self {
            recipients,
            file: Arc::new(file),
            lanes: HashMap::new(),
            ended: VecDeque::new(),
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            written_bytes: first.bytes.len() as u64,
            syncing: false,
            sync_wanted: false,
            last_sync_ns: now,
            looked_ns: 0,
            durable_seq: first.last_seq,
            committed_seq: 0,
            to_sync,
            synced,
            syncer: Some(syncer),
            writer,
            folder,
            settings,
            state,
            feedback,
            spare,
        };
        appender.look_at_the_disk(now);
        Ok(appender)
    }

    /// Works until told to stop, or until everybody who could send something is gone.
    pub(crate) fn run(mut self, entries: &Receiver<Entry>) {
        loop {
            let mut stop = false;
            match entries.recv_timeout(ROUND) {
                Ok(entry) => {
                    stop = self.take(entry);
                    for _ in 1..ENTRIES_PER_WRITE_MAX {
                        if stop {
                            break;
                        }
                        match entries.try_recv() {
                            Ok(entry) => stop = self.take(entry),
                            Err(_) => break,
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => stop = true,
            }
            while let Ok(synced) = self.synced.try_recv() {
                self.after_sync(synced);
            }
            if stop {
                return self.stop();
            }
            self.round();
        }
    }

    fn round(&mut self) {
        let now = journal_ns();
        self.state.rounds.fetch_add(1, Ordering::Relaxed);
        self.write();
        if self.writer.should_rotate(now) {
            self.rotate();
        }
        let interval = u64::from(self.settings.commit_interval_ms) * 1_000_000;
        let since = now.saturating_sub(self.last_sync_ns);
        let due = since >= interval || (self.sync_wanted && since >= SYNC_SOON_NS.min(interval));
        if due && !self.syncing && self.writer.last_seq() > self.durable_seq.max(self.committed_seq) {
            self.ask_sync(now);
        }
        if now.saturating_sub(self.looked_ns) >= 1_000_000_000 {
            self.look_at_the_disk(now);
        }
    }

    /// Says whether to stop.
    fn take(&mut self, entry: Entry) -> bool {
        let result = match entry {
            Entry::Open { recording } => self.open(recording),
            Entry::Facts { recording, event } => self.facts(recording, &event),
            Entry::Audio { recording, mut batch } => {
                let result = self.audio(recording, &mut batch);
                batch.clear();
                let _ = self.spare.try_send(batch);
                result
            }
            Entry::Decide { recording, decision } => self.decide(recording, &decision),
            Entry::End { recording, ended } => self.end(recording, ended),
            Entry::Stop => return true,
        };
        match result {
            Ok(()) => {}
            Err(JournalError::PendingFull { .. }) => {
                // Everything pending is written at once; what did not fit is a hole that the recording will show.
                self.write();
                self.alarm("journal-behind", "the journal's disk does not keep up; audio was lost".into());
            }
            Err(error) => self.alarm("journal-entry", format!("failed to {error}")),
        }
        false
    }

    fn open(&mut self, recording: Uuid) -> Result<(), JournalError> {
        let lane = self.writer.open_lane(recording, 0)?;
        let key = DataKey::generate(&mut rand::rng());
        let cipher = key.cipher();
        self.lanes.insert(recording, OpenLane { lane, cipher, key: Some(key), sealed: Vec::new(), ended: false });
        Ok(())
    }

    fn facts(&mut self, recording: Uuid, event: &SessionEvent) -> Result<(), JournalError> {
        let Some(open) = self.lanes.get(&recording) else { return Ok(()) };
        match self.writer.write_facts(open.lane, &open.cipher, event) {
            // Only a body that a client sent can be so long; that it was left out is said in its place.
            Err(JournalError::FactsTooLarge { bytes, .. }) => {
                let flaw = Flaw {
                    code: "facts-too-large".into(),
                    text: format!("a message body of {bytes} bytes was too large to be kept"),
                };
                self.writer.write_facts(open.lane, &open.cipher, &SessionEvent::Flaw(flaw))
            }
            other => other,
        }
    }

    fn audio(&mut self, recording: Uuid, batch: &mut AudioBatch) -> Result<(), JournalError> {
        let Some(open) = self.lanes.get(&recording) else { return Ok(()) };
        self.writer.write_audio(open.lane, &open.cipher, batch)
    }

    fn decide(&mut self, recording: Uuid, decision: &Decision) -> Result<(), JournalError> {
        let Some(open) = self.lanes.get_mut(&recording) else { return Ok(()) };
        match decision {
            Decision::Keep => {
                let Some(key) = open.key.take() else { return Ok(()) };
                let context = open.lane.key_context();
                open.sealed =
                    self.recipients.iter().map(|to| seal_key(&mut rand::rng(), to, &key, &context)).collect();
                let written = self.writer.write_key(open.lane, &open.sealed);
                if written.is_err() {
                    open.key = Some(key);
                }
                written?;
                if open.ended { self.finish(recording, LaneEnd::Ended) } else { Ok(()) }
            }
            Decision::Discard { .. } => {
                open.key = None;
                self.finish(recording, LaneEnd::Discarded)
            }
        }
    }

    fn end(&mut self, recording: Uuid, ended: Ended) -> Result<(), JournalError> {
        self.facts(recording, &SessionEvent::Ended(ended))?;
        let Some(open) = self.lanes.get_mut(&recording) else { return Ok(()) };
        open.ended = true;
        // Without a verdict yet it waits for one, with its key in memory.
        if open.key.is_none() { self.finish(recording, LaneEnd::Ended) } else { Ok(()) }
    }

    fn finish(&mut self, recording: Uuid, end: LaneEnd) -> Result<(), JournalError> {
        let Some(open) = self.lanes.remove(&recording) else { return Ok(()) };
        self.writer.end_lane(open.lane, end, &open.sealed)?;
        self.ended.push_back((self.writer.last_seq(), recording));
        self.sync_wanted = true;
        Ok(())
    }

    fn write(&mut self) {
        if self.writer.pending_bytes() == 0 {
            return;
        }
        let batch = self.writer.take();
        let result = self.file.write_all_at(&batch.bytes, batch.offset);
        let bytes = batch.bytes.len();
        self.remember(batch);
        match result {
            Ok(()) => {
                self.written_bytes += bytes as u64;
                self.state.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) => self.give_up_file(&error),
        }
    }

    fn remember(&mut self, batch: Batch) {
        self.unsynced_bytes += batch.bytes.len();
        self.unsynced.push_back(batch);
        self.state.behind.store(self.unsynced_bytes > UNSYNCED_BYTES_MAX / 2, Ordering::Relaxed);
        // Beyond the bound, what is oldest cannot be written again should the file fail; it is in the page cache still.
        while self.unsynced_bytes > UNSYNCED_BYTES_MAX {
            let Some(oldest) = self.unsynced.pop_front() else { break };
            self.unsynced_bytes -= oldest.bytes.len();
        }
    }

    fn ask_sync(&mut self, now: u64) {
        self.syncing = true;
        self.sync_wanted = false;
        self.last_sync_ns = now;
        let request = SyncRequest::Sync {
            file: Arc::clone(&self.file),
            seq: self.writer.last_seq(),
            bytes: self.written_bytes,
        };
        if self.to_sync.send(request).is_err() {
            self.alarm("journal-sync", "the sync thread is gone".into());
        }
    }

    fn after_sync(&mut self, synced: Synced) {
        self.syncing = false;
        if !Arc::ptr_eq(&synced.file, &self.file) {
            return; // a file that was given up or closed meanwhile
        }
        match synced.result {
            Ok(()) => {
                self.state.commits.fetch_add(1, Ordering::Relaxed);
                self.became_durable(synced.seq);
                self.writer.commit(synced.seq, wall_ns(), journal_ns());
                // A commit frame alone is no reason for another sync.
                self.committed_seq = self.writer.last_seq();
            }
            Err(error) => self.give_up_file(&error),
        }
        tracing::trace!(bytes = synced.bytes, "journal synced");
    }

    fn became_durable(&mut self, seq: u64) {
        self.durable_seq = self.durable_seq.max(seq);
        while self.unsynced.front().is_some_and(|b| b.last_seq <= seq) {
            if let Some(batch) = self.unsynced.pop_front() {
                self.unsynced_bytes -= batch.bytes.len();
                self.writer.recycle(batch.bytes);
            }
        }
        self.state.behind.store(self.unsynced_bytes > UNSYNCED_BYTES_MAX / 2, Ordering::Relaxed);
        while self.ended.front().is_some_and(|(last, _)| *last <= seq) {
            if let Some((_, recording)) = self.ended.pop_front() {
                let _ = self.feedback.send(Feedback::Durable(recording));
            }
        }
    }

    /// Ends the file and begins the next, in the order of the journal's procedures: write the end, sync, create, sync the folder.
    fn rotate(&mut self) {
        let closed = self.writer.file_seq();
        let last = match self.writer.rotate(wall_ns(), journal_ns()) {
            Ok(last) => last,
            Err(error) => return self.alarm("journal-rotate", format!("failed to {error}")),
        };
        let (offset, seq) = (last.offset, last.last_seq);
        let written = self.file.write_all_at(&last.bytes, offset).and_then(|()| self.file.sync_data());
        self.remember(last);
        if let Err(error) = written {
            return self.give_up_file(&error);
        }
        self.became_durable(seq);
        match create(&self.folder, self.settings.generation, self.writer.file_seq()) {
            Ok(file) => {
                self.file = Arc::new(file);
                self.written_bytes = 0;
                self.syncing = false;
                let _ = self.feedback.send(Feedback::Rotated(closed));
            }
            Err(error) => {
                self.alarm("journal-file", format!("failed to {error}"));
                self.begin_another_file();
            }
        }
    }

    /// The present file failed: nothing more is written to it, and what is not known to be on the device goes to a new one.
    fn give_up_file(&mut self, error: &io::Error) {
        let name = file_name(self.settings.generation, self.writer.file_seq());
        self.alarm("journal-file", format!("the journal file {name} failed ({error}); it is sealed off and a new one is begun"));
        self.begin_another_file();
    }

    fn begin_another_file(&mut self) {
        // A disk that is full or gone may come back; until it does, everything waits here, up to its bound.
        let again: Vec<Batch> = self.unsynced.drain(..).collect();
        self.unsynced_bytes = 0;
        if let Err(error) = self.writer.abandon_file(again, wall_ns(), journal_ns()) {
            return self.alarm("journal-file", format!("failed to {error}"));
        }
        self.syncing = false;
        self.written_bytes = 0;
        match create(&self.folder, self.settings.generation, self.writer.file_seq()) {
            Ok(file) => self.file = Arc::new(file),
            Err(error) => {
                self.alarm("journal-file", format!("failed to {error}"));
                thread::sleep(Duration::from_millis(200));
            }
        }
    }

    fn look_at_the_disk(&mut self, now: u64) {
        self.looked_ns = now;
        let Ok(about) = statvfs(&self.folder) else { return };
        let free = about.blocks_available().saturating_mul(about.fragment_size());
        self.state.spool_free_bytes.store(free, Ordering::Relaxed);
        let full = free < self.settings.spool_free_min_bytes;
        if full != self.state.spool_full.swap(full, Ordering::Relaxed) {
            let free_mib = free >> 20;
            if full {
                self.alarm(
                    "spool-full",
                    format!("the journal's disk has {free_mib} MiB free, less than journal.spool_free_min; new sessions are refused until there is room"),
                );
            } else {
                tracing::info!(free_mib, "the journal's disk has room again");
            }
        }
    }

    fn stop(mut self) {
        let open: Vec<Uuid> = self.lanes.keys().copied().collect();
        for recording in open {
            // The daemon did not say: keeping is what loses nothing.
            let _ = self.decide(recording, &Decision::Keep);
            let _ = self.finish(recording, LaneEnd::Aborted);
        }
        self.write();
        let last = self.writer.finish();
        let seq = last.last_seq;
        let done = self.file.write_all_at(&last.bytes, last.offset).and_then(|()| self.file.sync_data());
        match done {
            Ok(()) => self.became_durable(seq),
            Err(error) => self.alarm("journal-file", format!("failed to end the journal: {error}")),
        }
        let _ = self.to_sync.send(SyncRequest::Stop);
        if let Some(syncer) = self.syncer.take() {
            let _ = syncer.join();
        }
    }

    fn alarm(&self, code: &'static str, text: String) {
        let _ = self.feedback.send(Feedback::Alarm(code, text));
    }
}

fn sync_loop(requests: &Receiver<SyncRequest>, done: &Sender<Synced>) {
    while let Ok(SyncRequest::Sync { file, seq, bytes }) = requests.recv() {
        let result = file.sync_data();
        if done.send(Synced { file, seq, bytes, result }).is_err() {
            return;
        }
    }
}

/// Creates a journal file and makes its name durable.
fn create(folder: &Path, generation: Uuid, seq: u32) -> Result<File, AppendError> {
    let path = folder.join(file_name(generation, seq));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(AppendError::io("create the journal file", &path))?;
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(AppendError::io("make durable the name of the journal file", &path))?;
    Ok(file)
}

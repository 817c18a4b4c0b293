//! The appender: the one thread that writes the journal.
//!
//! Everything that is to be kept comes here as [`Entry`], in order, through one bounded queue. The appender seals it (`lanes`), and
//! writes what has gathered with one `write(2)` (`disk`). Another thread syncs: about once a second, and soon after a session ended,
//! it calls `fdatasync`, so that a slow disk holds up neither the media nor the signalling. What the order guarantees:
//!
//! 1. A frame is written before anything that depends on it (a lane's opening before its audio, its events before its end).
//! 2. The daemon hears of an ended recording only when its end is durable.
//! 3. The sealed key of a lane is written only after the verdict *keep*; until then it exists in this thread's memory alone.
//! 4. A file is durable before its successor exists.
//!
//! A write or sync that fails is never tried again on the same file: the file is given up, and what was not known to be durable
//! is written again to a new one. While none can be had (a full disk), entries are taken until memory has its fill and then
//! left in the queue, new sessions are refused, live ones go on as long as their own bounds allow, and when there is room again all of
//! it is written in its order.

mod disk;
pub(crate) mod folder;
mod lanes;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread;
use std::time::Duration;

use callvault_control::{Decision, Start};
use callvault_journal::facts::{Ended, Flaw, SessionEvent};
use callvault_journal::{AudioBatch, JournalError, Limits, Writer};
use callvault_seal::PublicKey;
use uuid::Uuid;

use crate::Feedback;
use crate::checkpoint::{Checkpoints, Continued, MediaState};
use crate::clock::{journal_ns, wall_ns};
use disk::{Disk, SyncRequest, Told};
use folder::{DiskFolder, JournalFolder};
use lanes::Lanes;

/// Entries taken from the queue before they are written: bounds how long one write can get.
const ENTRIES_PER_WRITE_MAX: usize = 4_096;

/// Sealed bytes that may wait for the write: above it nothing more is taken from the queue. Far enough below the writer's own limit
/// (64 MiB) that the largest entry (1 MiB of facts) always fits.
const PENDING_BYTES_MAX: usize = 8 << 20;

/// Between two tries to end the generation: a sync may be under way, or the disk be full.
const STOP_ROUND: Duration = Duration::from_millis(5);

/// How long the appender waits for entries: the period of its own housekeeping.
const ROUND: Duration = Duration::from_millis(50);

/// How long the appender lets entries gather once there is one. A visit of many sessions hands over a batch for each, one by one: who took
/// each as it comes would be woken, seal and write a thousand times a second, and most of that would be waking up.
const GATHER: Duration = Duration::from_millis(5);

/// Shortest time between two syncs that ended sessions ask for.
const SYNC_SOON_NS: u64 = 100_000_000;

/// So many bytes that are not on the device are a reason to sync before it is time: they are kept in memory until then, and with many calls
/// that would be most of what the process takes. 200 calls of two G.711 tracks write as much in a second.
const SYNC_BYTES: usize = 4 << 20;

/// A sync that takes longer is told to the operator: the disk, or what it hangs on, is in trouble.
const SYNC_SLOW_NS: u64 = 10_000_000_000;

/// How long a recorder that stops waits for a disk that takes nothing. Then what is in memory is lost, and said to be. The daemon
/// waits 10 s before it kills.
const STOP_NS_MAX: u64 = 5_000_000_000;

/// Audio buffers kept for reuse.
const SPARE_BATCHES_MAX: usize = 1_024;

/// Something for the journal.
pub(crate) enum Entry {
    /// A recording begins, or goes on from what another recorder wrote.
    Open { recording: Uuid, continued: Option<Box<Continued>> },
    /// Something happened in it. Facts of the signalling are numbered from 1, others have 0.
    Facts { recording: Uuid, event: SessionEvent, number: u64 },
    /// Packets of it, and how its tracks stand after them.
    Audio { recording: Uuid, batch: AudioBatch, media: MediaState, unwritten: Unwritten },
    /// What becomes of it.
    Decide { recording: Uuid, decision: Decision },
    /// What becomes of it is asked again: should it end meanwhile, its end waits for the answer.
    Reconsider { recording: Uuid },
    /// It has ended.
    End { recording: Uuid, ended: Ended },
    /// Say so ([`Feedback::Marked`]) when everything before this is written.
    Mark,
    /// Flush everything and stop: what lives is left as it is, for another recorder to go on with.
    Leave,
    /// End everything, flush and stop.
    Stop,
}

/// A batch that is in memory alone: counted as long as this exists, which is until it is in a file.
#[derive(Debug)]
pub(crate) struct Unwritten(Arc<AtomicU64>);

impl Unwritten {
    /// One more of those that `count` counts.
    pub(crate) fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the other threads see of the appender.
#[derive(Debug, Default)]
pub(crate) struct AppenderState {
    pub(crate) rounds: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) spool_free_bytes: AtomicU64,
    pub(crate) spool_full: AtomicBool,
    /// Whether no file can be written, or unsynced data is above its bound.
    pub(crate) behind: AtomicBool,
    /// Set when the recorder stops, so that a disk that takes nothing cannot hold that up for ever.
    pub(crate) stopping: AtomicBool,
}

struct Synced {
    request: SyncRequest,
    result: io::Result<()>,
}

/// The appender. [`Appender::run`] is its thread.
pub(crate) struct Appender {
    settings: Arc<Start>,
    writer: Writer,
    disk: Disk,
    lanes: Lanes,
    /// Ended recordings and the frame that must be durable before the daemon hears of them.
    ended: VecDeque<(u64, Uuid)>,
    /// Last frame that is more than a note of a commit: a reason for another sync.
    entry_seq: u64,
    sync_wanted: bool,
    last_sync_ns: u64,
    /// When the sync under way was asked for; none when none is, or when it was told that it is slow.
    syncing_since_ns: Option<u64>,
    looked_ns: u64,
    stop_asked_ns: Option<u64>,
    to_sync: Sender<SyncRequest>,
    synced: Receiver<Synced>,
    state: Arc<AppenderState>,
    feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
    spare: SyncSender<AudioBatch>,
    checkpoints: Option<Checkpoints>,
    marked: bool,
    /// Batches that were taken and are not in a file.
    unwritten: Vec<Unwritten>,
}

/// Whether the appender goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    On,
    /// It flushes and stops.
    Leaving,
    /// It ends what lives, flushes and stops.
    Stopping,
}

/// Why the appender cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("begin the journal in {folder}: {error}")]
    Io { folder: String, error: io::Error },
    #[error("use a public key for the journal: {0}")]
    Key(#[from] callvault_seal::SealError),
    #[error("begin the journal: there is no public key to seal recordings to")]
    NoKey,
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
        checkpoints: Option<Checkpoints>,
    ) -> Result<Self, AppendError> {
        let folder = Box::new(DiskFolder(settings.journal_dir.clone()));
        Self::begin_in(folder, settings, state, feedback, spare, checkpoints)
    }

    fn begin_in(
        folder: Box<dyn JournalFolder>,
        settings: Arc<Start>,
        state: Arc<AppenderState>,
        feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
        spare: SyncSender<AudioBatch>,
        checkpoints: Option<Checkpoints>,
    ) -> Result<Self, AppendError> {
        let (to_sync, requests) = channel();
        let (done, synced) = channel();
        // It ends with the appender, whose end of the queue it waits at.
        let named = settings.journal_dir.display().to_string();
        thread::Builder::new()
            .name("journal-sync".into())
            .spawn(move || sync_loop(&requests, &done))
            .map_err(|error| AppendError::Io { folder: named, error })?;
        Self::begin_with(folder, settings, state, feedback, spare, checkpoints, (to_sync, synced))
    }

    /// The same, with whoever syncs at the other ends of the two queues.
    fn begin_with(
        folder: Box<dyn JournalFolder>,
        settings: Arc<Start>,
        state: Arc<AppenderState>,
        feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
        spare: SyncSender<AudioBatch>,
        checkpoints: Option<Checkpoints>,
        (to_sync, synced): (Sender<SyncRequest>, Receiver<Synced>),
    ) -> Result<Self, AppendError> {
        let recipients =
            settings.recipients.iter().map(|text| PublicKey::from_text(text)).collect::<Result<Vec<_>, _>>()?;
        if recipients.is_empty() {
            return Err(AppendError::NoKey);
        }
        let limits = Limits {
            file_bytes_max: settings.file_bytes_max,
            file_age_ms_max: u64::from(settings.file_age_max_s) * 1_000,
            ..Limits::default()
        };
        let named = settings.journal_dir.display().to_string();
        let io = |error| AppendError::Io { folder: named.clone(), error };
        let now = journal_ns();
        let mut writer = Writer::new(settings.generation, wall_ns(), now, limits);
        let disk = Disk::begin(folder, &mut writer).map_err(io)?;
        let mut appender = Self {
            writer,
            disk,
            lanes: Lanes::new(recipients, checkpoints.clone()),
            ended: VecDeque::new(),
            entry_seq: 0,
            sync_wanted: false,
            last_sync_ns: now,
            syncing_since_ns: None,
            looked_ns: 0,
            stop_asked_ns: None,
            to_sync,
            synced,
            settings,
            state,
            feedback,
            spare,
            checkpoints,
            marked: false,
            unwritten: Vec::new(),
        };
        appender.look_at_the_disk(now);
        Ok(appender)
    }

    /// Works until told to stop, or until everybody who could send something is gone.
    pub(crate) fn run(mut self, entries: &Receiver<Entry>) {
        loop {
            let going = if self.has_room() {
                self.take_some(entries)
            } else {
                // The disk takes nothing: neither does the appender, but it goes on looking.
                thread::sleep(ROUND);
                if self.is_stopping_too_long() { self.discard_rest(entries) } else { Going::On }
            };
            while let Ok(done) = self.synced.try_recv() {
                self.after_sync(&done);
            }
            if going != Going::On {
                return self.stop(going);
            }
            self.round(journal_ns());
        }
    }

    /// Takes what waits in the queue, or waits a little.
    fn take_some(&mut self, entries: &Receiver<Entry>) -> Going {
        let first = match entries.recv_timeout(ROUND) {
            Ok(entry) => entry,
            Err(RecvTimeoutError::Timeout) => return Going::On,
            Err(RecvTimeoutError::Disconnected) => return Going::Stopping,
        };
        thread::sleep(GATHER);
        let mut going = self.take(first);
        for _ in 1..ENTRIES_PER_WRITE_MAX {
            if going != Going::On || !self.has_room() {
                break;
            }
            let Ok(entry) = entries.try_recv() else { break };
            going = self.take(entry);
        }
        going
    }

    fn has_room(&self) -> bool {
        self.writer.pending_bytes() < PENDING_BYTES_MAX
    }

    fn is_stopping_too_long(&mut self) -> bool {
        if !self.state.stopping.load(Ordering::Relaxed) {
            return false;
        }
        let now = journal_ns();
        now.saturating_sub(*self.stop_asked_ns.get_or_insert(now)) > STOP_NS_MAX
    }

    /// The recorder must stop and the disk takes nothing: lets go of what is in the queue, up to the word to stop.
    fn discard_rest(&mut self, entries: &Receiver<Entry>) -> Going {
        let mut lost = 0_u64;
        let mut going = Going::Stopping;
        while let Ok(entry) = entries.recv_timeout(ROUND) {
            match entry {
                Entry::Stop => break,
                Entry::Leave => {
                    going = Going::Leaving;
                    break;
                }
                _ => lost += 1,
            }
        }
        self.alarm(
            "journal-file",
            format!("the recorder stopped while no journal file could be written: {lost} entries were lost"),
        );
        going
    }

    fn round(&mut self, now: u64) {
        self.state.rounds.fetch_add(1, Ordering::Relaxed);
        self.write(now);
        if self.disk.is_writable() && self.writer.should_rotate(now) {
            if let Err(error) = self.disk.rotate(&mut self.writer, now, wall_ns()) {
                self.alarm("journal-rotate", format!("failed to {error}"));
            }
            self.hear_disk();
        }
        let interval = u64::from(self.settings.commit_interval_ms) * 1_000_000;
        let since = now.saturating_sub(self.last_sync_ns);
        let wanted = self.sync_wanted || self.disk.unsynced_bytes() >= SYNC_BYTES;
        let due = since >= interval || (wanted && since >= SYNC_SOON_NS.min(interval));
        // A commit frame alone is no reason for another sync.
        if due && self.entry_seq > self.disk.durable_seq() {
            self.ask_sync(now);
        }
        if self.syncing_since_ns.is_some_and(|since| now.saturating_sub(since) > SYNC_SLOW_NS) {
            self.syncing_since_ns = None;
            self.alarm(
                "journal-sync-slow",
                "the journal's disk takes more than 10 s to make data durable; look at the disk".into(),
            );
        }
        self.state.behind.store(self.disk.is_behind() || !self.has_room(), Ordering::Relaxed);
        if now.saturating_sub(self.looked_ns) >= 1_000_000_000 {
            self.look_at_the_disk(now);
        }
    }

    fn take(&mut self, entry: Entry) -> Going {
        let (writer, lanes, rng) = (&mut self.writer, &mut self.lanes, &mut rand::rng());
        let result = match entry {
            Entry::Open { recording, continued } => lanes.open(writer, rng, recording, continued.map(|from| *from)),
            Entry::Facts { recording, event, number } => lanes.facts(writer, recording, &event, number),
            Entry::Audio { recording, mut batch, media, unwritten } => {
                self.unwritten.push(unwritten);
                let result = lanes.audio(writer, recording, &mut batch, media);
                batch.clear();
                let _ = self.spare.try_send(batch);
                result
            }
            Entry::Decide { recording, decision } => {
                let result = lanes.decide(writer, recording, &decision);
                self.after_end(recording, result)
            }
            Entry::Reconsider { recording } => {
                lanes.reconsider(recording);
                Ok(())
            }
            Entry::End { recording, ended } => {
                let result = lanes.end(writer, recording, ended);
                self.after_end(recording, result)
            }
            Entry::Mark => {
                self.marked = true;
                Ok(())
            }
            Entry::Leave => return Going::Leaving,
            Entry::Stop => return Going::Stopping,
        };
        self.entry_seq = self.writer.last_seq();
        if let Err(error) = result {
            self.alarm("journal-entry", format!("failed to {error}"));
        }
        Going::On
    }

    fn after_end(&mut self, recording: Uuid, ended: Result<bool, JournalError>) -> Result<(), JournalError> {
        if ended? {
            self.ended.push_back((self.writer.last_seq(), recording));
            self.sync_wanted = true;
        }
        Ok(())
    }

    fn write(&mut self, now: u64) {
        self.disk.find_file(&mut self.writer, now, wall_ns());
        self.hear_disk();
        // Before the frames: who reads a checkpoint looks whether the last of them is there.
        if self.disk.is_writable() {
            self.save_lanes();
        }
        match self.disk.write(&mut self.writer, now) {
            Some(bytes) => {
                self.state.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
                self.lanes.written();
            }
            None => self.lanes.not_written(),
        }
        self.hear_disk();
        if self.disk.is_writable() && self.writer.pending_bytes() == 0 {
            self.after_write();
        }
    }

    /// Everything that was taken is in a file.
    fn after_write(&mut self) {
        self.unwritten.clear();
        for (recording, number) in self.lanes.take_noted() {
            let _ = self.feedback.send(Feedback::Written(recording, number));
        }
        if std::mem::take(&mut self.marked) {
            let _ = self.feedback.send(Feedback::Marked);
        }
    }

    fn save_lanes(&mut self) {
        let Some(checkpoints) = &self.checkpoints else { return };
        match self.lanes.save() {
            Ok(()) => checkpoints.worked(),
            Err(error) if checkpoints.failed() => self.alarm("checkpoint", unsaved(&error)),
            Err(_) => {}
        }
    }

    fn ask_sync(&mut self, now: u64) {
        let Some(request) = self.disk.sync() else { return };
        self.sync_wanted = false;
        self.last_sync_ns = now;
        self.syncing_since_ns = Some(now);
        if self.to_sync.send(request).is_err() {
            self.alarm("journal-sync", "the sync thread is gone".into());
        }
    }

    fn after_sync(&mut self, done: &Synced) {
        let now = journal_ns();
        self.syncing_since_ns = None;
        if self.disk.synced(&mut self.writer, &done.request, &done.result, now) {
            self.state.commits.fetch_add(1, Ordering::Relaxed);
            self.writer.commit(done.request.seq, wall_ns(), now);
        }
        self.hear_disk();
    }

    /// Passes on what the disk has to say.
    fn hear_disk(&mut self) {
        while let Some(told) = self.disk.poll() {
            match told {
                Told::Alarm(code, text) => self.alarm(code, text),
                Told::Recovered { lost } => {
                    self.lanes.moved(&self.writer.pending_places());
                    if lost {
                        self.note_loss();
                    } else {
                        tracing::info!("the journal goes on in a new file; nothing was lost");
                    }
                }
                Told::Rotated(closed) => drop(self.feedback.send(Feedback::Rotated(closed))),
                Told::Durable(seq) => self.tell_ended(seq),
            }
        }
    }

    fn tell_ended(&mut self, durable_seq: u64) {
        while let Some((_, recording)) = self.ended.pop_front_if(|(last, _)| *last <= durable_seq) {
            let _ = self.feedback.send(Feedback::Durable(recording));
        }
    }

    /// Part of what was written is lost with the file that failed: every recording that was there may miss some.
    fn note_loss(&mut self) {
        for recording in self.lanes.recordings() {
            let flaw = Flaw {
                code: "journal-write-failed".into(),
                text: "the journal could not be written for a while; audio may be missing".into(),
            };
            if let Err(error) = self.lanes.facts(&mut self.writer, recording, &SessionEvent::Flaw(flaw), 0) {
                self.alarm("journal-entry", format!("failed to {error}"));
                break;
            }
        }
        self.entry_seq = self.writer.last_seq();
    }

    fn look_at_the_disk(&mut self, now: u64) {
        self.looked_ns = now;
        let Some(free) = self.disk.free_bytes() else { return };
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

    /// The last thing that the lanes hear when the recorder stops: what is open is ended.
    fn end_lanes(&mut self) {
        for recording in self.lanes.recordings() {
            // A recording that has ended is ended by this.
            let decision = self.lanes.last_decision(recording);
            let kept = self.lanes.decide(&mut self.writer, recording, &decision);
            let aborted = self.lanes.abort(&mut self.writer, recording);
            let ended = kept.and_then(|kept| Ok(kept | aborted?));
            if let Err(error) = self.after_end(recording, ended) {
                self.alarm("journal-entry", format!("failed to {error}"));
            }
        }
    }

    /// One try to end the generation; says whether all of it is on the device.
    fn finish(&mut self, now: u64) -> bool {
        self.write(now);
        // A file that fails now has a successor, as always; finishing twice writes one end too many, which readers allow.
        let done = self.writer.pending_bytes() == 0 && self.disk.finish(&mut self.writer, now);
        self.hear_disk();
        done
    }

    fn stop(mut self, going: Going) {
        if going == Going::Stopping {
            self.end_lanes();
        }
        let begun = journal_ns();
        loop {
            let now = journal_ns();
            while let Ok(done) = self.synced.try_recv() {
                self.after_sync(&done);
            }
            if self.finish(now) {
                return;
            }
            if now.saturating_sub(begun) > STOP_NS_MAX {
                return self.alarm(
                    "journal-file",
                    "the recorder stopped while no journal file could be written; what was not on the disk is lost"
                        .into(),
                );
            }
            thread::sleep(STOP_ROUND);
        }
    }

    fn alarm(&self, code: &'static str, text: String) {
        let _ = self.feedback.send(Feedback::Alarm(code, text));
    }
}

/// What the operator is told when checkpoints cannot be written.
pub(crate) fn unsaved(error: &io::Error) -> String {
    format!(
        "failed to write a checkpoint of a call: {error}; calls are recorded, but would not survive the recorder's death; look at the space in runtime_dir"
    )
}

fn sync_loop(requests: &Receiver<SyncRequest>, done: &Sender<Synced>) {
    while let Ok(request) = requests.recv() {
        let result = request.file.sync();
        if done.send(Synced { request, result }).is_err() {
            return;
        }
    }
}

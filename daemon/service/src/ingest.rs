//! The ingest: from the journal into the catalogue, exactly once.
//!
//! One thread follows the journal. For each session that has ended (or whose recorder is gone) it does, in this order:
//!
//! 1. wait until the recorder has said that all of it is on the device, or, where that is dead, make it so (`fdatasync`); then read the
//!    lane's facts and count its packets;
//! 2. one catalogue transaction: the recording, its lanes, the jobs that it owes;
//! 3. put the owed jobs into the queue, which is durable when it returns;
//! 4. take them off the list of what is owed;
//! 5. remove the journal files that nothing needs any more, sync their folder, and only then forget their lanes.
//!
//! A crash between any two of these is repaired by doing them again: a lane is ingested once because the catalogue says so, a job
//! is queued once because its name is the recording's. Nothing tells the ingest where to go on; it reads the journal again.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use callvault_archive::ArchiveTrack;
use callvault_catalogue::{
    ArchiveState, CatalogueError, Flaw, IngestOutcome, Lane, NewRecording, OwedJob, Recording, Verdict,
};
use callvault_journal::facts::SessionEvent;
use callvault_policy::{fold_call, links, summarise};
use callvault_queue::{JobId, JobKind, NewJob, QueueError, StateName};
use callvault_render_protocol::ForeignCodec;
use jiff::Timestamp;
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::check::Check;
use crate::deliveries;
use crate::follow::Follower;
use crate::journals::{LaneName, LaneView};
use crate::log::events;
use crate::row::{self, KEY_LOST, UNNAMED, nameless};
use crate::sound::{Reading, SoundError, codec_spec, open_lanes};

/// How often the journal is looked at without being told to.
const LOOK: Duration = Duration::from_secs(2);

/// How soon it is looked at again when a session has ended and all that is missing is the word that its end is on the device.
const LOOK_SOON: Duration = Duration::from_millis(100);

/// After this long a lane that could not be ingested is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// How often the queue is compared with the catalogue and its files are looked at.
const TIDY: Duration = Duration::from_secs(600);

/// How long the last round may take when the daemon stops: what it leaves is ingested by the next one.
const LAST_ROUND: Duration = Duration::from_secs(3);

/// Owed jobs moved to the queue at once.
const OWED_AT_ONCE: u32 = 500;

/// The ingest's own state: which lanes wait. Everything else is in journal and catalogue.
pub(crate) struct Ingest<'a> {
    appliance: &'a Appliance,
    follower: Follower,
    /// Lanes that are not in the catalogue yet.
    waiting: BTreeSet<LaneName>,
    /// Those of them that failed, and when to try again.
    failed: BTreeMap<LaneName, Instant>,
    /// Generations whose ingested lanes were looked up.
    known: BTreeSet<Uuid>,
    /// Files were removed of these, below that file, and the catalogue has not been told yet.
    removed: BTreeMap<Uuid, u32>,
    tidied: Option<Instant>,
    /// When to leave off, once the daemon stops.
    until: Option<Instant>,
    /// A session has ended whose end is not known to be on the device.
    awaits_device: bool,
    /// Which recorder was ready before the journal was looked at, and which recordings it goes on with.
    seen: (Option<Uuid>, BTreeSet<Uuid>),
}

impl<'a> Ingest<'a> {
    pub(crate) fn new(appliance: &'a Appliance) -> Self {
        Self {
            appliance,
            follower: Follower::new(&appliance.config.journal_path()),
            waiting: BTreeSet::new(),
            failed: BTreeMap::new(),
            known: BTreeSet::new(),
            removed: BTreeMap::new(),
            tidied: None,
            until: None,
            awaits_device: false,
            seen: (None, BTreeSet::new()),
        }
    }

    /// Works until the appliance stops. A bug must not end it unnoticed.
    pub(crate) fn run(self, wake: &Receiver<()>) {
        let appliance = self.appliance;
        if catch_unwind(AssertUnwindSafe(|| self.follow(wake))).is_err() {
            let text = "the ingest was ended by an internal error, see the log; calls are recorded, but restart callvaultd when there are few";
            appliance.notes.set("ingest", text.to_owned());
        }
    }

    fn follow(mut self, wake: &Receiver<()>) {
        loop {
            self.round();
            if self.appliance.stopping.load(Ordering::Relaxed) {
                // Once more: the recorder's last words are in the journal now.
                self.until = Some(Instant::now() + LAST_ROUND);
                return self.round();
            }
            match wake.recv_timeout(if self.awaits_device { LOOK_SOON } else { LOOK }) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One look at the journal and at what is owed: the steps in their order, each of which can be called alone.
    pub(crate) fn round(&mut self) {
        self.look();
        self.take_in();
        if self.tidied.is_none_or(|at| at.elapsed() >= TIDY) {
            self.tidied = Some(Instant::now());
            self.tidy();
        }
        self.settle();
        self.remove_files();
        self.appliance.metrics.ingest_rounds.fetch_add(1, Ordering::Relaxed);
    }

    fn leaves_off(&self) -> bool {
        let stopping = self.appliance.stopping.load(Ordering::Relaxed);
        stopping && self.until.is_none_or(|until| Instant::now() >= until)
    }

    /// Reads what is new in the journal.
    pub(crate) fn look(&mut self) {
        let appliance = self.appliance;
        let until = self.until;
        let gives_up = || {
            let stopping = appliance.stopping.load(Ordering::Relaxed);
            stopping && until.is_none_or(|until| Instant::now() >= until)
        };
        // Before the journal: what a recorder goes on with is there when it is ready.
        self.seen = {
            let recorder = appliance.recorder.borrow();
            (recorder.ready, recorder.resumed.clone())
        };
        let live = || appliance.recorder.borrow().generation;
        let look = self.follower.look(&appliance.journals, live, gives_up);
        match look.failed {
            None => appliance.notes.clear("ingest"),
            Some(error) => appliance.notes.set("ingest", format!("failed to follow the journal: {error}")),
        }
        // All of them first: whatever fails from here on, none is overlooked.
        self.waiting.extend(look.touched);
        let generations: BTreeSet<Uuid> = self.waiting.iter().map(|name| name.generation).collect();
        for generation in generations {
            if self.known.contains(&generation) {
                continue;
            }
            match self.recall(generation) {
                Ok(()) => _ = self.known.insert(generation),
                Err(error) => appliance.notes.set("catalogue", format!("failed to {error}")),
            }
        }
    }

    /// Lanes of a generation that an earlier daemon ingested: they are not ingested again, and those that are archived are let go.
    fn recall(&mut self, generation: Uuid) -> Result<(), CatalogueError> {
        for lane in self.appliance.catalogue.ingested_lanes(generation)? {
            let name = LaneName { generation, lane };
            let Some(state) = self.appliance.journals.lock().state(name) else { continue };
            let id = state.recording.unwrap_or_else(|| row::unnamed_id(generation, lane));
            let is_done = match self.appliance.catalogue.get(id) {
                Ok(Some(row)) => row.archive.state == ArchiveState::Archived || !row::has_audio(&row),
                Ok(None) => true, // deleted
                // The row is damaged; the journal is what it can be rebuilt from.
                Err(CatalogueError::Damaged { .. }) => false,
                Err(error) => return Err(error),
            };
            let mut journals = self.appliance.journals.lock();
            if is_done {
                journals.release_lane(name);
            } else {
                journals.set_ingested(name);
            }
        }
        Ok(())
    }

    /// Enters the lanes that are complete.
    pub(crate) fn take_in(&mut self) {
        self.awaits_device = false;
        let waiting: Vec<LaneName> = self.waiting.iter().copied().collect();
        for name in waiting {
            if self.leaves_off() {
                return;
            }
            // Until it is known what was ingested before, nothing of a generation is.
            if !self.known.contains(&name.generation)
                || self.failed.get(&name).is_some_and(|again| *again > Instant::now())
            {
                continue;
            }
            self.lane(name);
        }
        if self.failed.is_empty() {
            self.appliance.notes.clear("recordings");
        }
    }

    /// Enters the recording that a lane is a part of, once all of it is there.
    fn lane(&mut self, name: LaneName) {
        let state = self.appliance.journals.lock().state(name);
        let Some(state) = state.filter(|s| !s.ingested) else {
            self.waiting.remove(&name);
            self.failed.remove(&name);
            return;
        };
        if !(state.ended || state.over) {
            return;
        }
        let views = match state.recording {
            Some(recording) => self.appliance.journals.lock().lanes_of(recording),
            None => self.appliance.journals.lock().view(name).into_iter().collect(),
        };
        if !self.is_complete(&views) {
            return;
        }
        // A file that fails keeps what was written to it in the page cache, and no sync of ours hears of it: only the recorder knows.
        if !views.iter().all(|view| view.over || view.durable) {
            self.awaits_device = true;
            return;
        }
        match self.make_durable(&views).and_then(|()| self.ingest(&views)) {
            Ok(is_needed) => {
                let mut journals = self.appliance.journals.lock();
                for LaneView { name, .. } in views {
                    self.waiting.remove(&name);
                    self.failed.remove(&name);
                    if is_needed {
                        journals.set_ingested(name);
                    } else {
                        journals.release_lane(name);
                    }
                }
            }
            Err(error) => {
                self.failed.insert(name, Instant::now() + AGAIN);
                let recording = state.recording.unwrap_or_default();
                let text = format!("failed to take recording {recording} from the journal: {error}");
                self.appliance.notes.set("recordings", text);
            }
        }
    }

    /// What is read of a recording may be in the page cache alone, and when its recorder is dead nobody else will ever sync it. A row
    /// must not promise what a power cut can still take.
    fn make_durable(&self, views: &[LaneView]) -> Result<(), IngestError> {
        let folder = self.appliance.config.journal_path();
        for view in views.iter().filter(|view| !view.durable) {
            for file in view.entry.files().into_iter().flatten() {
                let path = folder.join(callvault_journal::file_name(view.name.generation, file));
                match std::fs::File::open(path).and_then(|file| file.sync_data()) {
                    // A file in the middle of a lane's may have been removed: then the lane has nothing in it.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    other => other.map_err(SoundError::from)?,
                }
            }
        }
        Ok(())
    }

    /// Whether nothing more comes of a recording. One that was cut off may be gone on with by the next recorder, which has opened a lane for
    /// it by the time that it is ready; until there is one, nobody knows.
    fn is_complete(&self, views: &[LaneView]) -> bool {
        let Some(last) = views.last() else { return false };
        let (ready, resumed) = &self.seen;
        let may_go_on = !last.ended()
            && (ready.is_none_or(|ready| ready == last.name.generation)
                || last.entry.recording.is_some_and(|recording| resumed.contains(&recording)));
        views.iter().all(LaneView::is_whole) && !may_go_on
    }

    /// Enters a recording with all of its lanes; tells whether the journal is needed for it any further.
    fn ingest(&self, views: &[LaneView]) -> Result<bool, IngestError> {
        let Some(last) = views.last() else { return Ok(false) };
        let LaneName { generation, lane } = last.name;
        let id = last.entry.recording.unwrap_or_else(|| row::unnamed_id(generation, lane));
        let mut read = Read::default();
        let discarded = views.iter().rev().find(|view| view.discarded());
        let recording = if let Some(view) = discarded {
            nameless(id, Verdict::Discarded, "discarded", &discarded_by(&view.entry.rule))
        } else if last.entry.recording.is_none() {
            let text = "every frame of the journal that says what this was is damaged; nothing of it can be read";
            nameless(id, Verdict::Failed, UNNAMED, text)
        } else if views.iter().all(|view| view.entry.keys.is_empty()) {
            let text =
                "the recorder was lost before the recording's key was written; what it had captured cannot be read";
            nameless(id, Verdict::Failed, KEY_LOST, text)
        } else {
            self.read(id, views, &mut read)?
        };
        let is_needed = row::has_audio(&recording);
        let owed = if is_needed { vec![OwedJob::new(JobKind::ARCHIVE.as_str(), id)] } else { Vec::new() };
        let verdict = recording.verdict;
        let links = links(&id.to_string(), &read.events);
        let lanes = views.iter().map(|view| catalogued(id, view)).collect();
        let new = NewRecording { recording, lanes, owed, links };
        // First, as it is the same done twice: what has its row is looked at no more.
        self.appliance.settle_call(id, discarded.map(|view| view.entry.rule.as_str()));
        match self.appliance.catalogue.ingest(&new, Timestamp::now())? {
            IngestOutcome::Inserted => {
                self.appliance.metrics.ingested.fetch_add(1, Ordering::Relaxed);
                if let Some(view) = discarded {
                    self.appliance.metrics.discarded_by(&view.entry.rule);
                }
                self.appliance.metrics.not_ok_for(&read.reasons);
                tracing::info!(event = events::CALL_ENDED, recording = %id, %verdict, "recording {id}: {verdict}");
                Ok(is_needed)
            }
            IngestOutcome::Extended | IngestOutcome::AlreadyThere => Ok(is_needed),
            IngestOutcome::Deleted => Ok(false),
        }
    }

    fn read(&self, id: Uuid, views: &[LaneView], read: &mut Read) -> Result<Recording, SoundError> {
        let lanes = open_lanes(views, &self.appliance.keyring)?;
        let mut reading = Reading::of_journal(&self.appliance.config.journal_path(), &lanes)?;
        let unreadable = views.len().saturating_sub(lanes.len());
        reading.damage.parts_unreadable = u32::try_from(unreadable).unwrap_or(u32::MAX);
        let summary = summarise(&reading.events, &reading.damage);
        read.reasons.clone_from(&summary.reasons);
        let mut recording = row::recording(id, summary, &reading.events);
        let directory = self.appliance.access.people.now();
        row::belongs(&mut recording, &fold_call(&reading.events), &directory);
        row::imported(&mut recording, &reading.events, &directory);
        if reading.unplaced > 0 {
            if recording.verdict == Verdict::Ok {
                recording.verdict = Verdict::Degraded;
            }
            let text = format!("{} packets have no place in time and are not played", reading.unplaced);
            recording.flaws.push(Flaw { code: "packets-unplaced".to_owned(), text });
        }
        recording.flaws.extend(undecodable(&reading.tracks, crate::playback::ffmpeg(self.appliance).is_some()));
        read.events = reading.events;
        Ok(recording)
    }

    /// Moves what is owed into the queue.
    pub(crate) fn settle(&self) {
        match self.try_settle() {
            Ok(()) => self.appliance.notes.clear("outbox"),
            Err(error) => {
                self.appliance.notes.set("outbox", format!("failed to queue what is owed: {error}"));
                self.appliance.mend_queue();
            }
        }
    }

    fn try_settle(&self) -> Result<(), String> {
        while !self.leaves_off() {
            let owed = self.appliance.catalogue.owed(OWED_AT_ONCE).map_err(|e| e.to_string())?;
            if owed.is_empty() {
                return Ok(());
            }
            let mut jobs = Vec::new();
            for one in &owed {
                let kind = JobKind::new(&one.kind).map_err(|e| e.to_string())?;
                let priority = deliveries::priority_of(&kind);
                jobs.push(NewJob { payload: one.payload.clone(), priority, ..NewJob::new(kind, one.recording) });
            }
            // When the queue is full the rest stays owed: that is what the list of the owed is for.
            self.appliance.queue.enqueue(unix_ms(), &jobs).map_err(|e| e.to_string())?;
            let ids: Vec<String> = owed.iter().map(OwedJob::id).collect();
            self.appliance.catalogue.settled(&ids).map_err(|e| e.to_string())?;
            self.appliance.work.ring();
        }
        Ok(())
    }

    /// Now and then: whatever has no archive has a job, since the queue is only ever as good as the catalogue says; and the queue's
    /// files are rebuilt when they have grown far beyond what lives in them.
    pub(crate) fn tidy(&self) {
        let owed = self.owe_archives().and_then(|()| self.owe_deletions()).and_then(|()| self.owe_deliveries());
        if let Err(error) = owed.and_then(|()| self.owe_mails()) {
            self.appliance.notes.set("catalogue", format!("failed to {error}"));
        } else {
            self.appliance.notes.clear("catalogue");
        }
        self.look_at_promises();
        self.appliance.imports.give_up_idle();
        self.appliance.forget_discards();
        let queue = &self.appliance.queue;
        match queue.stats() {
            Ok(stats) if stats.compaction_worthwhile() => match queue.compact() {
                Ok(now) => tracing::info!(before = stats.file_bytes, after = now.file_bytes, "the queue was compacted"),
                Err(error) => tracing::error!("failed to compact the queue: {error}"),
            },
            Ok(_) => {}
            Err(_) => self.appliance.mend_queue(),
        }
    }

    /// The invariants that can be tested without the store: what cannot hold any more, a person must hear of.
    fn look_at_promises(&self) {
        let mut check = Check::new(self.appliance);
        if check.promises().is_ok() {
            match check.summary() {
                Some(text) => self.appliance.notes.set("promises", text),
                None => self.appliance.notes.clear("promises"),
            }
        }
    }

    fn owe_archives(&self) -> Result<(), CatalogueError> {
        let mut missing = Vec::new();
        for id in self.appliance.catalogue.unarchived()? {
            let job = NewJob::new(JobKind::ARCHIVE, id);
            if let Some(known) = self.appliance.queue.get(&job.id()) {
                if known.state.name() == StateName::Done {
                    self.drive_again(id, &known.id);
                }
                continue;
            }
            match self.appliance.catalogue.get(id) {
                Ok(Some(row)) if row::has_audio(&row) => missing.push(job),
                Ok(_) | Err(CatalogueError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.queue_again(&missing);
        Ok(())
    }

    /// What a tombstone still owes has a job, also when the queue lost it. The catalogue takes it off only when it is done.
    fn owe_deletions(&self) -> Result<(), CatalogueError> {
        let mut missing = Vec::new();
        for owed in self.appliance.catalogue.deletions_owed()? {
            let job = NewJob { payload: owed.payload, ..NewJob::new(JobKind::DELETE, owed.recording) };
            match self.appliance.queue.get(&job.id()) {
                None => missing.push(job),
                // Done by a version that did not say so to the catalogue, or before the catalogue was put together again.
                Some(known) if known.state.name() == StateName::Done => self.retry(&known.id),
                Some(_) => {}
            }
        }
        self.queue_again(&missing);
        Ok(())
    }

    /// The same of what is owed to others.
    fn owe_deliveries(&self) -> Result<(), CatalogueError> {
        self.queue_again(&deliveries::missing_jobs(self.appliance)?);
        Ok(())
    }

    /// What mails are owed have jobs, also when the queue lost them.
    fn owe_mails(&self) -> Result<(), CatalogueError> {
        let mut missing = Vec::new();
        for id in self.appliance.catalogue.mails_owed()? {
            let job = NewJob::new(JobKind::NOTIFY, id);
            match self.appliance.queue.get(&job.id()) {
                None => missing.push(job),
                // Done, but the catalogue was put back to a time before that.
                Some(known) if known.state.name() == StateName::Done => self.retry(&known.id),
                Some(_) => {}
            }
        }
        self.queue_again(&missing);
        Ok(())
    }

    fn queue_again(&self, missing: &[NewJob]) {
        for jobs in missing.chunks(OWED_AT_ONCE as usize) {
            match self.appliance.queue.enqueue(unix_ms(), jobs) {
                Ok(_) => self.appliance.work.ring(),
                // There is enough to do; the rest is found again.
                Err(QueueError::Full(_)) => break,
                Err(error) => {
                    self.appliance.notes.set("queue", format!("failed to {error}"));
                    self.appliance.mend_queue();
                    break;
                }
            }
        }
    }

    fn retry(&self, job: &JobId) {
        if let Err(error) = self.appliance.queue.retry(job, unix_ms()) {
            self.appliance.notes.set("queue", format!("failed to {error}"));
        }
    }

    /// A job that is done while there is no archive has not done its work, unless it did so between two looks.
    fn drive_again(&self, id: Uuid, job: &JobId) {
        let row = self.appliance.catalogue.get(id);
        let lacks_archive =
            row.is_ok_and(|row| row.is_some_and(|row| row.archive.place().is_none() && row::has_audio(&row)));
        if lacks_archive {
            tracing::error!(recording = %id, "recording {id} has no archive though its job is done; it is made again");
            self.retry(job);
        }
    }

    /// Removes the journal files that nothing needs, and lets the catalogue forget their lanes.
    pub(crate) fn remove_files(&mut self) {
        let (removed, error) = self.appliance.journals.remove_unneeded();
        match error {
            None => self.appliance.notes.clear("journal-files"),
            Some(error) => {
                let text = format!("failed to remove a journal file that is not needed: {error}");
                self.appliance.notes.set("journal-files", text);
            }
        }
        for one in removed {
            tracing::debug!(generation = %one.generation, files = one.files, "journal files removed");
            self.removed.insert(one.generation, one.below_file);
        }
        self.removed.retain(|generation, below| {
            let told = self.appliance.catalogue.lanes_released(*generation, *below);
            if let Err(error) = &told {
                self.appliance.notes.set("catalogue", format!("failed to {error}"));
            }
            told.is_err()
        });
    }
}

/// A flaw for each codec that was heard and that nothing here decodes. Its audio is kept as it came, so nothing is missing.
fn undecodable(tracks: &[ArchiveTrack], has_ffmpeg: bool) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for codec in tracks.iter().flat_map(|track| &track.codecs).map(codec_spec) {
        let name = codec.codec.encoding();
        let is_silent = ["telephone-event", "CN"].iter().any(|silent| name.eq_ignore_ascii_case(silent));
        let is_foreign = ForeignCodec::of(&codec).is_some();
        if is_silent || codec.audio_rate().is_some() || is_foreign && has_ffmpeg {
            continue;
        }
        // The name is the peer's: only what looks like one is shown.
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let shown: String = name.chars().filter(|c| is_name(*c)).take(CODEC_NAME_CHARS_MAX).collect();
        let remedy =
            if is_foreign { "can be played when ffmpeg is installed" } else { "cannot be played by this version" };
        let text = format!("audio in {shown} was kept as it came; it {remedy}");
        let flaw = Flaw { code: "codec-not-decodable".to_owned(), text };
        if !flaws.contains(&flaw) && flaws.len() < CODEC_FLAWS_MAX {
            flaws.push(flaw);
        }
    }
    flaws
}

/// Most flaws about codecs in a row, and characters of a codec's name in them.
const CODEC_FLAWS_MAX: usize = 4;
const CODEC_NAME_CHARS_MAX: usize = 32;

/// What is known of a lane that could be read, beside its row.
#[derive(Default)]
struct Read {
    events: Vec<SessionEvent>,
    /// Why its verdict is not ok.
    reasons: Vec<String>,
}

/// Why there is nothing of a recording. An earlier version's journal does not name the rule.
fn discarded_by(rule: &str) -> String {
    match rule {
        "" => "the recording was discarded by a rule".to_owned(),
        rule => format!("the recording was not kept, by the rule {rule}"),
    }
}

/// A lane as the catalogue remembers it.
pub(crate) fn catalogued(recording: Uuid, view: &LaneView) -> Lane {
    let files = view.entry.files().unwrap_or(0..=0);
    Lane {
        generation: view.name.generation,
        lane: view.name.lane,
        recording,
        segment: view.entry.segment.into(),
        first_file: *files.start(),
        last_file: *files.end(),
    }
}

/// Why a lane could not be ingested.
#[derive(Debug, thiserror::Error)]
enum IngestError {
    #[error("{0}")]
    Sound(#[from] SoundError),
    #[error("{0}")]
    Catalogue(#[from] CatalogueError),
}

/// The wall clock in milliseconds, as the queue wants it.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

//! The ingest: from the journal into the catalogue, exactly once.
//!
//! One thread follows the journal. For each session that has ended (or whose recorder is gone) it does, in this order:
//!
//! 1. read the lane's facts and count its packets;
//! 2. one catalogue transaction: the recording, its lanes, the jobs that it owes;
//! 3. put the owed jobs into the queue, which is durable when it returns;
//! 4. take them off the list of what is owed.
//!
//! A crash between any two of these is repaired by doing them again: a lane is ingested once because the catalogue says so, a job
//! is queued once because its name is the recording's. Nothing tells the ingest where to go on; it reads the journal again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use callvault_catalogue::{
    Archive, ArchiveState, Direction, Flaw, IngestOutcome, Lane, NewRecording, OwedJob, Recording, Track, Traffic,
    Verdict,
};
use callvault_journal::facts::SessionEvent;
use callvault_policy::{Summary, summarise};
use callvault_queue::{JobKind, NewJob};
use jiff::Timestamp;
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::journals::{LaneName, LaneView};
use crate::sound::{Reading, SoundError, open_lanes};

/// How often the journal is looked at without being told to.
const LOOK: Duration = Duration::from_secs(2);

/// After this long a lane that could not be ingested is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// Owed jobs moved to the queue at once.
const OWED_AT_ONCE: u32 = 500;

/// The ingest's own state: which lanes wait. Everything else is in journal and catalogue.
pub(crate) struct Ingest<'a> {
    appliance: &'a Appliance,
    /// Lanes that are not in the catalogue yet.
    waiting: BTreeSet<LaneName>,
    /// Those of them that failed, and when to try again.
    failed: BTreeMap<LaneName, Instant>,
    /// Generations whose ingested lanes were looked up.
    known: BTreeSet<Uuid>,
}

impl<'a> Ingest<'a> {
    pub(crate) fn new(appliance: &'a Appliance) -> Self {
        Self { appliance, waiting: BTreeSet::new(), failed: BTreeMap::new(), known: BTreeSet::new() }
    }

    /// Works until the appliance stops.
    pub(crate) fn run(mut self, wake: &Receiver<()>) {
        loop {
            self.round();
            match wake.recv_timeout(LOOK) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.appliance.stopping.load(Ordering::Relaxed) {
                // Once more: the recorder's last words are in the journal now.
                return self.round();
            }
        }
    }

    /// One look at the journal and at what is owed.
    pub(crate) fn round(&mut self) {
        match self.look() {
            Ok(()) => self.appliance.notes.clear("ingest"),
            Err(error) => self.appliance.notes.set("ingest", format!("failed to follow the journal: {error}")),
        }
        let waiting: Vec<LaneName> = self.waiting.iter().copied().collect();
        for name in waiting {
            if self.failed.get(&name).is_some_and(|again| *again > Instant::now()) {
                continue;
            }
            self.lane(name);
        }
        if let Err(error) = self.settle() {
            self.appliance.notes.set("queue", error);
        }
        let released = self.appliance.journals().remove_unneeded();
        if let Err(error) = released {
            self.appliance.notes.set("ingest", format!("failed to remove a journal file that is not needed: {error}"));
        }
        self.appliance.metrics.ingest_rounds.fetch_add(1, Ordering::Relaxed);
    }

    fn look(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let live = self.appliance.recorder.borrow().generation;
        let touched = self.appliance.journals().refresh(live)?;
        for name in touched {
            if self.known.insert(name.generation) {
                self.recall(name.generation)?;
            }
            let state = self.appliance.journals().state(name);
            if state.is_some_and(|s| !s.ingested) {
                self.waiting.insert(name);
            }
        }
        Ok(())
    }

    /// Lanes of a generation that an earlier daemon ingested: they are not ingested again, and those that are archived are let go.
    fn recall(&mut self, generation: Uuid) -> Result<(), Box<dyn std::error::Error>> {
        for lane in self.appliance.catalogue.ingested_lanes(generation)? {
            let name = LaneName { generation, lane };
            let recording = self.appliance.journals().state(name).and_then(|s| s.recording);
            let done = match recording.map(|id| self.appliance.catalogue.get(id)).transpose()? {
                Some(Some(row)) => row.archive.state == ArchiveState::Archived || row.verdict == Verdict::Discarded,
                Some(None) => true, // deleted
                None => false,
            };
            let mut journals = self.appliance.journals();
            if done {
                journals.release_lane(name);
            } else {
                journals.set_ingested(name);
            }
        }
        Ok(())
    }

    fn lane(&mut self, name: LaneName) {
        let state = self.appliance.journals().state(name);
        let Some(state) = state else {
            self.waiting.remove(&name);
            return;
        };
        if !(state.ended || state.over) {
            return;
        }
        let Some(view) = self.appliance.journals().view(name) else { return };
        match self.ingest(&view) {
            Ok(()) => {
                self.waiting.remove(&name);
                self.failed.remove(&name);
                self.appliance.journals().set_ingested(name);
                if view.discarded() {
                    self.appliance.journals().release_lane(name);
                }
                if self.failed.is_empty() {
                    self.appliance.notes.clear("recordings");
                }
            }
            Err(error) => {
                self.failed.insert(name, Instant::now() + AGAIN);
                let recording = view.entry.recording.unwrap_or_default();
                self.appliance.notes.set("recordings", format!("failed to take recording {recording} from the journal: {error}"));
            }
        }
    }

    fn ingest(&self, view: &LaneView) -> Result<(), IngestError> {
        let Some(id) = view.entry.recording else {
            // Every frame that names it is damaged: `recordings verify` names the damage, there is nothing to enter.
            return Ok(());
        };
        let (recording, owed) = if view.discarded() {
            (nameless(id, Verdict::Discarded, "discarded", "the recording was discarded by a rule"), Vec::new())
        } else if view.entry.keys.is_empty() {
            let text = "the recorder was lost before the recording's key was written; what it had captured cannot be read";
            (nameless(id, Verdict::Failed, "key-lost", text), Vec::new())
        } else {
            (self.read(id, view)?, vec![OwedJob::new(JobKind::ARCHIVE.as_str(), id)])
        };
        let files = view.entry.files().unwrap_or(0..=0);
        let lane = Lane {
            generation: view.name.generation,
            lane: view.name.lane,
            recording: id,
            segment: view.entry.segment.into(),
            first_file: *files.start(),
            last_file: *files.end(),
        };
        let verdict = recording.verdict;
        let new = NewRecording { recording, lanes: vec![lane], owed };
        if self.appliance.catalogue.ingest(&new, Timestamp::now())? == IngestOutcome::Inserted {
            self.appliance.metrics.ingested.fetch_add(1, Ordering::Relaxed);
            tracing::info!(recording = %id, %verdict, "recording {id}: {verdict}");
        }
        Ok(())
    }

    fn read(&self, id: Uuid, view: &LaneView) -> Result<Recording, SoundError> {
        let folder = self.appliance.journals().folder().to_owned();
        let lanes = open_lanes(vec![view.clone()], &self.appliance.keyring)?;
        let reading = Reading::of_journal(&folder, &lanes)?;
        let summary = summarise(&reading.events, &reading.damage);
        Ok(recording(id, summary, &reading.events))
    }

    /// Moves what is owed into the queue.
    fn settle(&self) -> Result<(), String> {
        let text = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        loop {
            let owed = self.appliance.catalogue.owed(OWED_AT_ONCE).map_err(|e| text("failed", &e))?;
            if owed.is_empty() {
                return Ok(());
            }
            let jobs: Vec<NewJob> = owed
                .iter()
                .filter_map(|o| {
                    let kind = JobKind::new(&o.kind).ok()?;
                    Some(NewJob { payload: o.payload.clone(), ..NewJob::new(kind, o.recording) })
                })
                .collect();
            self.appliance.queue.enqueue(unix_ms(), &jobs).map_err(|e| text("failed to queue what is owed", &e))?;
            let ids: Vec<String> = owed.iter().map(OwedJob::id).collect();
            self.appliance.catalogue.settled(&ids).map_err(|e| text("failed", &e))?;
            self.appliance.work.ring();
        }
    }
}

/// Why a lane could not be ingested.
#[derive(Debug, thiserror::Error)]
enum IngestError {
    #[error("{0}")]
    Sound(#[from] SoundError),
    #[error("{0}")]
    Catalogue(#[from] callvault_catalogue::CatalogueError),
}

/// The wall clock in milliseconds, as the queue wants it.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// The row of a recording from its summary.
pub(crate) fn recording(id: Uuid, summary: Summary, events: &[SessionEvent]) -> Recording {
    Recording {
        id,
        verdict: summary.verdict.as_str().parse().unwrap_or(Verdict::Failed),
        started_at: summary.started_at,
        ended_at: summary.ended_at,
        duration_ms: summary.duration_ms,
        owner: summary.owner,
        direction: match summary.direction {
            callvault_journal::facts::Direction::Incoming => Direction::Incoming,
            callvault_journal::facts::Direction::Outgoing => Direction::Outgoing,
            callvault_journal::facts::Direction::Unknown => Direction::Unknown,
        },
        local_number: summary.local_number,
        local_name: summary.local_name,
        remote_number: summary.remote_number,
        remote_name: summary.remote_name,
        traffic: match summary.traffic {
            callvault_policy::Traffic::Internal => Traffic::Internal,
            callvault_policy::Traffic::External => Traffic::External,
            callvault_policy::Traffic::Unknown => Traffic::Unknown,
        },
        call_id: summary.call_id,
        tracks: summary
            .tracks
            .into_iter()
            .map(|t| Track {
                label: t.label,
                participant: t.participant,
                codec: t.codec,
                packets: t.packets,
                lost: t.lost,
                duplicates: t.duplicates,
                late: t.late,
                gaps_ms: t.gaps_ms,
                local: t.local,
            })
            .collect(),
        flaws: summary.flaws.into_iter().map(|f| Flaw { code: f.code, text: f.text }).collect(),
        archive: Archive::journal(),
        tracking_id: summary.tracking_id,
        facts: serde_json::to_value(events).unwrap_or_default(),
    }
}

/// The row of a session of which nothing can be read: its id alone says when it was.
fn nameless(id: Uuid, verdict: Verdict, code: &str, text: &str) -> Recording {
    let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |t| t.to_unix());
    let at = Timestamp::new(i64::try_from(seconds).unwrap_or(0), i32::try_from(nanos).unwrap_or(0)).unwrap_or_default();
    Recording {
        id,
        verdict,
        started_at: at,
        ended_at: at,
        duration_ms: 0,
        owner: None,
        direction: Direction::Unknown,
        local_number: None,
        local_name: None,
        remote_number: None,
        remote_name: None,
        traffic: Traffic::Unknown,
        call_id: None,
        tracks: Vec::new(),
        flaws: vec![Flaw { code: code.to_owned(), text: text.to_owned() }],
        archive: Archive::journal(),
        tracking_id: None,
        facts: serde_json::Value::Null,
    }
}

impl From<io::Error> for IngestError {
    fn from(error: io::Error) -> Self {
        Self::Sound(error.into())
    }
}

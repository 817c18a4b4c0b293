//! What the daemon keeps on its own disk: catalogue and queue, as models with the promises of the real ones.
//!
//! A transaction of the catalogue is on the device when it returns. A change of the queue is on the device when it is acknowledged;
//! a claim is not waited for. What decides in the queue is the real machine (`callvault_queue::machine`).

use std::collections::{BTreeMap, BTreeSet};

use callvault_queue::{Job, JobId, JobKind};
use uuid::Uuid;

/// Names a lane: generation and number.
pub(crate) type LaneName = (Uuid, u32);

/// Where an archive is, as it is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: String,
    pub(crate) sha256: [u8; 32],
}

/// A recording's row.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) verdict: String,
    pub(crate) flaws: Vec<String>,
    pub(crate) has_audio: bool,
    pub(crate) call_id: Option<String>,
    pub(crate) archive: Option<Place>,
    /// How often it was entered.
    pub(crate) entered: u32,
    /// When its archive was put on record.
    pub(crate) archived_ns: u64,
    /// How often an archive was put on record.
    pub(crate) recorded: u32,
}

/// The catalogue.
#[derive(Debug, Default, Clone)]
pub(crate) struct Catalogue {
    pub(crate) rows: BTreeMap<Uuid, Row>,
    /// Lanes that were taken, with the last file that each is in.
    pub(crate) lanes: BTreeMap<LaneName, (Uuid, u32)>,
    pub(crate) owed: BTreeMap<JobId, (JobKind, Uuid, Option<String>)>,
    pub(crate) tombstones: BTreeSet<Uuid>,
}

/// What entering a lane found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    Inserted,
    AlreadyThere,
    Deleted,
}

impl Catalogue {
    pub(crate) fn owe(&mut self, kind: JobKind, id: Uuid, path: Option<String>) {
        self.owed.insert(JobId::new(&kind, id), (kind, id, path));
    }

    /// Forgets the lanes of a generation that end below a file, as the real one does: not those whose recordings need the journal.
    pub(crate) fn lanes_released(&mut self, generation: Uuid, below: u32) {
        let rows = &self.rows;
        self.lanes.retain(|(of, _), (id, last)| {
            let is_needed = rows.get(id).is_some_and(|row| row.archive.is_none() && row.verdict != "discarded");
            *of != generation || *last >= below || is_needed
        });
    }
}

/// The queue's jobs: what is written, and what of it is on the device.
#[derive(Default)]
pub(crate) struct Jobs {
    pub(crate) written: BTreeMap<JobId, Job>,
    device: BTreeMap<JobId, Job>,
    /// Jobs whose enqueueing was acknowledged.
    pub(crate) acknowledged: BTreeSet<JobId>,
}

impl Jobs {
    pub(crate) fn sync(&mut self) {
        self.device = self.written.clone();
    }

    pub(crate) fn power_cut(&mut self) {
        self.written = self.device.clone();
    }

    /// A job that was acknowledged and is not there.
    pub(crate) fn lost(&self) -> Option<&JobId> {
        self.acknowledged.iter().find(|id| !self.written.contains_key(*id))
    }
}

/// Everything that the daemon has on its disk.
#[derive(Default)]
pub(crate) struct Stable {
    pub(crate) catalogue: Catalogue,
    pub(crate) jobs: Jobs,
}

impl Stable {
    /// What must hold whenever a daemon starts, before it repairs anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(id) = self.jobs.lost() {
            return Err(format!("the job {id} was acknowledged and is lost"));
        }
        for (id, row) in &self.catalogue.rows {
            let job = JobId::new(&JobKind::ARCHIVE, *id);
            let has_job = self.catalogue.owed.contains_key(&job) || self.jobs.written.contains_key(&job);
            if row.has_audio && row.archive.is_none() && !has_job {
                return Err(format!("recording {id} has a row, no archive, and no job is owed or queued"));
            }
            if row.entered > 1 {
                return Err(format!("recording {id} was entered {} times", row.entered));
            }
        }
        Ok(())
    }
}

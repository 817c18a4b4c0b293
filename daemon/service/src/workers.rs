//! The job workers: threads that take jobs from the queue, one after the other, and do them. They run at low priority, and so do
//! the render processes that they start: what is archived can wait, what is recorded cannot.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use callvault_catalogue::CatalogueError;
use callvault_config::Config;
use callvault_policy::overload::Rank;
use callvault_queue::{Failure, Job, JobKind, KindLimits, QueueError};
use rand::Rng;

use crate::access;
use crate::appliance::Appliance;
use crate::archiving::{self, AWAY_MS, STORE_NAME};
use crate::ingest::unix_ms;
use crate::log::events;
use crate::overload;
use crate::store::StoreError;
use crate::warm::Warm;

/// Longest sleep between two looks at the queue.
const LOOK: Duration = Duration::from_secs(5);

/// After the queue failed, it is left alone for this long.
const QUEUE_PAUSE: Duration = Duration::from_secs(1);

/// How often the store is looked at.
const STORE_LOOK: Duration = Duration::from_secs(5);

/// How many jobs of each kind may run at once: fewer or none while capturing is in trouble. Those that need the store are left alone while it is away: they cost nothing, and are
/// all due when it is back.
pub(crate) fn limits(appliance: &Appliance) -> KindLimits {
    if !appliance.store.is_ok() {
        return KindLimits::new();
    }
    let parallel = overload::strain(appliance).archives(count(&appliance.config));
    [(JobKind::ARCHIVE, parallel), (JobKind::DELETE, 1)].into()
}

/// Most workers where their number is left to us, as many as may be configured.
const WORKERS_MAX: usize = 64;

/// Fewest workers where their number is left to us: while one waits for a disk, another calculates.
const WORKERS_MIN: usize = 2;

/// How many workers there are: as many as configured, or as there are processors.
pub(crate) fn count(config: &Config) -> usize {
    match config.render.parallel {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get).clamp(WORKERS_MIN, WORKERS_MAX),
        configured => configured as usize,
    }
}

/// One worker: works until the appliance stops.
pub(crate) fn run(appliance: &Appliance) {
    overload::give_way(Rank::Archive);
    let mut renderer = Warm::default();
    let mut heard = 0;
    while !appliance.stopping.load(Ordering::Relaxed) {
        let limits = limits(appliance);
        match appliance.queue.claim(unix_ms(), &limits) {
            Ok(Some(job)) => {
                appliance.notes.clear("queue");
                let done = catch_unwind(AssertUnwindSafe(|| work(appliance, &mut renderer, &job)));
                if done.is_err() {
                    // A bug; it has been logged. It must not cost the worker, nor be tried in a tight loop.
                    renderer.cool();
                    let text = "do the job: an internal error, see the log";
                    let (now, random) = (unix_ms(), rand::rng().next_u64());
                    let _ = appliance.queue.fail(&job.id, now, Failure::Transient, text, random);
                }
            }
            Ok(None) => {
                appliance.notes.clear("queue");
                let due = appliance.queue.next_due(&limits).map(|at| at.saturating_sub(unix_ms()));
                let sleep = due.map_or(LOOK, Duration::from_millis).clamp(Duration::from_millis(5), LOOK);
                heard = appliance.work.wait(heard, sleep);
            }
            Err(error) => {
                appliance.notes.set("queue", format!("failed to {error}"));
                appliance.mend_queue();
                heard = appliance.work.wait(heard, QUEUE_PAUSE);
            }
        }
    }
}

/// Looks at the store from time to time, and at once when a call on it has returned at last; wakes the workers when it is back.
pub(crate) fn watch_store(appliance: &Appliance) {
    let mut heard = 0;
    while !appliance.stopping.load(Ordering::Relaxed) {
        if appliance.store.look() {
            appliance.work.ring();
        }
        // One that archives are moved away from is looked at only after a failure, as then it has to take a file.
        for source in appliance.store.sources().iter().filter_map(|name| appliance.store.of(name).ok()) {
            if !source.is_ok() && source.look() {
                appliance.moving.bell.ring();
            }
        }
        if appliance.store.is_ok() {
            access::keep_in_store(appliance);
        }
        heard = appliance.store.bell().wait(heard, STORE_LOOK);
    }
}

/// Does one job and tells the queue how it went.
pub(crate) fn work(appliance: &Appliance, renderer: &mut Warm, job: &Job) {
    let result = if job.kind == JobKind::ARCHIVE {
        archiving::archive(appliance, renderer, job.recording).map_err(|e| (e.failure(), e.to_string()))
    } else if job.kind == JobKind::DELETE {
        delete(appliance, job).map_err(|e| match e.is_away() {
            true => (Failure::NotYet { wait_ms: AWAY_MS }, e.to_string()),
            false => (Failure::Transient, e.to_string()),
        })
    } else {
        Err((Failure::Permanent, "do a job of a kind that this version does not know".to_owned()))
    };
    let told = match result {
        Ok(()) => appliance.queue.complete(&job.id, unix_ms()),
        Err((failure, text)) => {
            if matches!(failure, Failure::NotYet { .. }) {
                tracing::debug!(job = %job.id, "job {} waits: failed to {text}", job.id);
            } else {
                appliance.metrics.job_failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(event = events::JOB_FAILED, job = %job.id, attempt = job.attempts, "job {} failed to {text}", job.id);
            }
            appliance.queue.fail(&job.id, unix_ms(), failure, &text, rand::rng().next_u64()).map(drop)
        }
    };
    if let Err(error) = told
        && !matches!(error, QueueError::Unknown { .. })
    {
        appliance.notes.set("queue", format!("failed to {error}"));
        appliance.mend_queue();
    }
}

/// Why a deletion could not be brought to its end.
#[derive(Debug, thiserror::Error)]
enum DeleteError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Catalogue(#[from] CatalogueError),
}

impl DeleteError {
    fn is_away(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_away())
    }
}

/// Removes what was made of a deleted recording, its archive or what attempts at one left; only then is the deletion no longer owed.
fn delete(appliance: &Appliance, job: &Job) -> Result<(), DeleteError> {
    match job.payload.get("path").and_then(serde_json::Value::as_str) {
        Some(path) => {
            let name = job.payload.get("store").and_then(serde_json::Value::as_str).unwrap_or(STORE_NAME);
            appliance.store.of(name)?.remove(Path::new(path))?;
        }
        None => archiving::remove_leavings::<DeleteError>(appliance, job.recording)?,
    }
    Ok(appliance.catalogue.removed(job.recording)?)
}

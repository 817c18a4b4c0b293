//! The job workers: threads that take jobs from the queue, one after the other, and do them.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use callvault_queue::{Failure, Job, JobKind, KindLimits, QueueError};
use callvault_render_protocol::Renderer;
use rand::Rng;

use crate::appliance::Appliance;
use crate::archiving;
use crate::ingest::unix_ms;
use crate::store::StoreError;

/// Longest sleep between two looks at the queue.
const LOOK: Duration = Duration::from_secs(5);

/// How many jobs of each kind may run at once.
pub(crate) fn limits(appliance: &Appliance) -> KindLimits {
    let parallel = appliance.config.render.parallel.max(1) as usize;
    [(JobKind::ARCHIVE, parallel), (JobKind::DELETE, 1)].into()
}

/// One worker: works until the appliance stops.
pub(crate) fn run(appliance: &Appliance) {
    let limits = limits(appliance);
    let mut renderer: Option<Renderer> = None;
    let mut heard = 0;
    loop {
        if appliance.stopping.load(Ordering::Relaxed) {
            return;
        }
        match appliance.queue.claim(unix_ms(), &limits) {
            Ok(Some(job)) => {
                appliance.notes.clear("queue");
                work(appliance, &mut renderer, &job);
            }
            Ok(None) => {
                let due = appliance.queue.next_due(&limits).map(|at| at.saturating_sub(unix_ms()));
                let sleep = due.map_or(LOOK, Duration::from_millis).clamp(Duration::from_millis(5), LOOK);
                heard = appliance.work.wait(heard, sleep);
            }
            Err(error) => {
                appliance.notes.set("queue", format!("failed to {error}"));
                if appliance.queue.broken().is_some()
                    && let Err(error) = appliance.queue.reopen(unix_ms())
                {
                    appliance.notes.set("queue", format!("failed to {error}"));
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

fn work(appliance: &Appliance, renderer: &mut Option<Renderer>, job: &Job) {
    let result = if job.kind == JobKind::ARCHIVE {
        archiving::archive(appliance, renderer, job.recording).map_err(|e| (e.failure(), e.to_string()))
    } else if job.kind == JobKind::DELETE {
        delete(appliance, job).map_err(|e| match e {
            StoreError::NotThere { .. } | StoreError::Another { .. } => {
                (Failure::NotYet { wait_ms: 10_000 }, e.to_string())
            }
            e => (Failure::Transient, e.to_string()),
        })
    } else {
        Err((Failure::Permanent, "do a job of a kind that this version does not know".to_owned()))
    };
    let told = match result {
        Ok(()) => {
            appliance.notes.clear("store");
            appliance.queue.complete(&job.id, unix_ms())
        }
        Err((failure, text)) => {
            appliance.metrics.job_failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(job = %job.id, attempt = job.attempts, "job {} failed to {text}", job.id);
            if matches!(failure, Failure::NotYet { .. }) {
                appliance.notes.set("store", format!("failed to {text}"));
            }
            appliance.queue.fail(&job.id, unix_ms(), failure, &text, rand::rng().next_u64()).map(drop)
        }
    };
    if let Err(error) = told
        && !matches!(error, QueueError::Unknown { .. })
    {
        appliance.notes.set("queue", format!("failed to {error}"));
    }
}

/// Removes the archive of a deleted recording: its keys first, durably, then the file.
fn delete(appliance: &Appliance, job: &Job) -> Result<(), StoreError> {
    let Some(path) = job.payload.get("path").and_then(serde_json::Value::as_str) else { return Ok(()) };
    let name = Path::new(path);
    match appliance.store.edit(name) {
        Ok(mut file) => {
            let erased = callvault_archive::erase_keys(&mut file);
            if let Err(error) = erased {
                tracing::warn!(%error, job = %job.id, "failed to {error}; the file is removed all the same");
            }
            file.sync_all().map_err(|error| StoreError::Io {
                what: "make durable the erased keys of",
                path: path.to_owned(),
                error,
            })?;
        }
        Err(StoreError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    appliance.store.remove(name)
}

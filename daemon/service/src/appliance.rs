//! What all parts of the daemon share. Each lock guards one thing and is held for no longer than one look at it; none is held
//! while another is taken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use callvault_catalogue::Catalogue;
use callvault_config::Config;
use callvault_queue::Queue;
use callvault_seal::{Keyring, PublicKey};
use tokio::sync::{mpsc, watch};

use crate::journals::Journals;
use crate::recorder::{RecorderState, Request};
use crate::store::Store;

/// The parts.
pub(crate) struct Appliance {
    pub(crate) config: Config,
    pub(crate) keyring: Keyring,
    pub(crate) current_key: PathBuf,
    /// Public keys that every recording is sealed to, the appliance's first.
    pub(crate) recipients: Vec<PublicKey>,
    pub(crate) catalogue: Catalogue,
    pub(crate) queue: Queue,
    pub(crate) store: Store,
    pub(crate) journals: Mutex<Journals>,
    pub(crate) render_program: PathBuf,
    pub(crate) recorder: watch::Receiver<RecorderState>,
    pub(crate) requests: mpsc::Sender<Request>,
    /// Wakes the ingest.
    pub(crate) wake_ingest: SyncSender<()>,
    /// Wakes the job workers.
    pub(crate) work: Bell,
    /// What the parts have to say about themselves.
    pub(crate) notes: Notes,
    pub(crate) draining: AtomicBool,
    pub(crate) stopping: AtomicBool,
    pub(crate) metrics: Metrics,
}

impl Appliance {
    /// The journal's index.
    pub(crate) fn journals(&self) -> MutexGuard<'_, Journals> {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters that only the daemon knows.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) ingested: AtomicU64,
    pub(crate) archived: AtomicU64,
    pub(crate) archived_bytes: AtomicU64,
    pub(crate) job_failures: AtomicU64,
    pub(crate) ingest_rounds: AtomicU64,
}

/// Something that threads wait for, with a memory of one ring.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    /// Wakes everybody who waits, and whoever waits next without having heard it.
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits for a ring after `heard`, or for the time to pass; returns the count of rings.
    pub(crate) fn wait(&self, heard: u64, most: Duration) -> u64 {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (rung, _) = self
            .changed
            .wait_timeout_while(rung, most, |rung| *rung <= heard)
            .unwrap_or_else(PoisonError::into_inner);
        *rung
    }
}

/// What is wrong with a part, by its name: said once when it begins, once when it ends, and shown by health meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    notes: Mutex<BTreeMap<&'static str, (Instant, String)>>,
}

impl Notes {
    /// Something is wrong with `part`.
    pub(crate) fn set(&self, part: &'static str, text: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.get(part).is_none_or(|(_, known)| *known != text) {
            tracing::error!(part, "{text}");
        }
        let since = notes.get(part).map_or_else(Instant::now, |(since, _)| *since);
        notes.insert(part, (since, text));
    }

    /// It is well again.
    pub(crate) fn clear(&self, part: &'static str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, text)) = notes.remove(part) {
            tracing::info!(part, after_s = since.elapsed().as_secs(), "well again; it was: {text}");
        }
    }

    /// What is wrong with `part`, if anything.
    pub(crate) fn get(&self, part: &str) -> Option<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).get(part).map(|(_, text)| text.clone())
    }
}

//! What all parts of the daemon share. Each lock guards one thing and is held for no longer than one look at it; none is held
//! while another is taken.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use callvault_catalogue::Catalogue;
use callvault_config::Config;
use callvault_control::CheckpointKey;
use callvault_queue::Queue;
use callvault_seal::{Keyring, PublicKey};
use tokio::sync::{mpsc, watch};

use crate::access::Access;
use crate::backlog::Worked;
use crate::clock::Clock;
use crate::deciding::Deciding;
use crate::deliveries::Deliveries;
use crate::headroom::{Headroom, Sample, Samples};
use crate::imports::Imports;
use crate::ingest::unix_ms;
use crate::journals::{LaneView, Shared};
use crate::log::events;
use crate::mailing::Mailing;
use crate::moving::Moving;
use crate::overload::Pressure;
use crate::playback::{Players, Turns};
use crate::recorder::{RecorderState, Request};
use crate::retention::Retention;
use crate::settings::Settings;
use crate::sound::SoundError;
use crate::stores::Stores;
use crate::webex::Webex;

/// The parts.
pub(crate) struct Appliance {
    /// The configuration that it was started with: for what only a restart changes. All else asks [`Appliance::settings`].
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) keyring: Keyring,
    pub(crate) current_key: PathBuf,
    /// Public keys that every recording is sealed to, the appliance's first.
    pub(crate) recipients: Vec<PublicKey>,
    /// What the checkpoints of live calls are sealed under: recorders of this daemon go on with each other's calls, nobody else can.
    pub(crate) checkpoint_key: CheckpointKey,
    pub(crate) catalogue: Catalogue,
    pub(crate) queue: Queue,
    pub(crate) store: Stores,
    /// What is known of archives being moved to another store.
    pub(crate) moving: Moving,
    pub(crate) journals: Shared,
    pub(crate) render_program: PathBuf,
    /// Threads that play to people.
    pub(crate) players: Arc<Players>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) recorder: watch::Receiver<RecorderState>,
    pub(crate) requests: mpsc::Sender<Request>,
    /// Wakes the ingest.
    pub(crate) wake_ingest: SyncSender<()>,
    /// Wakes the job workers.
    pub(crate) work: Bell,
    /// Wakes everybody who sleeps between two looks, when the daemon stops.
    pub(crate) stop_bell: Bell,
    /// Rung when the configuration may have changed.
    pub(crate) reload: Bell,
    /// What the parts have to say about themselves.
    pub(crate) notes: Notes,
    pub(crate) access: Access,
    pub(crate) deciding: Deciding,
    pub(crate) retention: Retention,
    /// Recordings that are being brought from elsewhere.
    pub(crate) imports: Imports,
    /// Whether calls go on when the service is restarted: the service manager keeps the sockets.
    pub(crate) sockets_stay: AtomicBool,
    pub(crate) stopping: AtomicBool,
    pub(crate) metrics: Metrics,
    /// What is known of those that recordings are delivered to.
    pub(crate) deliveries: Deliveries,
    /// What is known of mail to users.
    pub(crate) mailing: Mailing,
    /// What is known of Webex.
    pub(crate) webex: Webex,
    /// How the journal's disk has filled lately.
    pub(crate) spool: Spool,
    /// Whether somebody keeps the clock right.
    pub(crate) clock: Clock,
    /// What the workers have archived, and how long it took them.
    pub(crate) worked: Worked,
    /// What is known of the recorder's troubles.
    pub(crate) pressure: Pressure,
}

impl Appliance {
    /// The settings in force, as they are now: a change of the configuration that takes effect at once is in the next ones. To be asked
    /// for each piece of work, and used to its end.
    pub(crate) fn settings(&self) -> Arc<Config> {
        self.settings.in_force()
    }

    /// Whether a recording's lanes can be read now as a whole.
    ///
    /// # Errors
    /// [`SoundError::NotReadYet`] while the journal is still being read after a start, since what is in the index may be a part;
    /// [`SoundError::NotThere`] when the journal has nothing of it.
    pub(crate) fn check_read(&self, views: &[LaneView]) -> Result<(), SoundError> {
        let is_ready = self.journals.lock().is_ready();
        match views.is_empty() {
            true if is_ready => Err(SoundError::NotThere),
            false if views.iter().all(LaneView::is_whole) => Ok(()),
            _ => Err(SoundError::NotReadYet),
        }
    }

    /// How long the journal's disk lasts; None before the recorder has said anything.
    pub(crate) fn headroom(&self, recorder: &RecorderState) -> Option<Headroom> {
        self.spool.headroom(recorder, self.config.journal.spool_free_min.0, self.store.is_ok())
    }

    /// Tells everybody to stop.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.store.stop();
        self.players.end();
        let _ = self.wake_ingest.try_send(());
        for bell in
            [&self.work, &self.stop_bell, &self.reload, &self.retention.bell, &self.moving.bell, &self.webex.bell]
        {
            bell.ring();
        }
    }

    /// Opens the queue again when it refuses changes. What it lost by that is still owed, or found again from the catalogue.
    pub(crate) fn mend_queue(&self) {
        if self.queue.broken().is_none() {
            return;
        }
        match self.queue.reopen(unix_ms()) {
            Ok(report) => {
                self.notes.clear("queue");
                if report.missing || !report.damaged.is_empty() {
                    tracing::error!(?report, "the queue was damaged; what it held is found again from the catalogue");
                }
                self.work.ring();
            }
            Err(error) => self.notes.set("queue", format!("failed to {error}")),
        }
    }
}

/// The journal's disk, as the recorder's heartbeats tell of it.
#[derive(Debug)]
pub(crate) struct Spool {
    since: Instant,
    samples: Mutex<Samples>,
}

impl Default for Spool {
    fn default() -> Self {
        Self { since: Instant::now(), samples: Mutex::default() }
    }
}

impl Spool {
    /// How long its room lasts; None before the recorder has said anything. To be asked every few seconds: it observes by that.
    pub(crate) fn headroom(&self, recorder: &RecorderState, floor_bytes: u64, drains: bool) -> Option<Headroom> {
        let beat = &recorder.heartbeat;
        if recorder.beat_at.is_none() || beat.spool_free_bytes == 0 && beat.append_rounds == 0 {
            return None;
        }
        let sample = Sample {
            at: self.since.elapsed(),
            free_bytes: beat.spool_free_bytes,
            appended_bytes: beat.appended_bytes.saturating_add(recorder.before.appended_bytes),
        };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.take(sample);
        Some(samples.headroom(sample, floor_bytes, drains))
    }
}

/// Counters that only the daemon knows.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) ingested: AtomicU64,
    pub(crate) archived: AtomicU64,
    pub(crate) archived_bytes: AtomicU64,
    pub(crate) job_failures: AtomicU64,
    pub(crate) access_refused: AtomicU64,
    pub(crate) ingest_rounds: AtomicU64,
    /// Rounds of the recorder's driver, at least one a second.
    pub(crate) supervisor_rounds: Arc<AtomicU64>,
    /// When the certificate of SIP over TLS expires, in seconds since the Unix epoch; 0: there is none.
    pub(crate) certificate_expires_unix_s: AtomicI64,
    /// Recordings that were not kept, by the name of the rule.
    discarded: Mutex<BTreeMap<String, u64>>,
    /// Recordings that were deleted, by the name of the rule.
    deleted: Mutex<BTreeMap<String, u64>>,
    /// Recordings that are not as they should be, by the flaw that made them so.
    reasons: Mutex<BTreeMap<String, u64>>,
}

/// Names that a count is kept for; there are far fewer rules and flaws, and a journal that was tampered with must not fill the
/// memory. The rest is counted together.
const NAMES_MAX: usize = 100;

impl Metrics {
    /// A recording was not kept, by this rule.
    pub(crate) fn discarded_by(&self, rule: &str) {
        count(&self.discarded, if rule.is_empty() { "unknown" } else { rule });
    }

    /// A recording was deleted, by this rule.
    pub(crate) fn deleted_by(&self, rule: &str) {
        count(&self.deleted, rule);
    }

    /// A recording has a verdict other than ok for these reasons.
    pub(crate) fn not_ok_for(&self, reasons: &[String]) {
        reasons.iter().for_each(|reason| count(&self.reasons, reason));
    }

    /// How many recordings were not kept, by rule; how many were not ok, by reason; and how many were deleted, by rule.
    pub(crate) fn names(&self) -> [Vec<(String, u64)>; 3] {
        [&self.discarded, &self.reasons, &self.deleted].map(|counts| {
            let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.iter().map(|(name, count)| (name.clone(), *count)).collect()
        })
    }
}

fn count(counts: &Mutex<BTreeMap<String, u64>>, name: &str) {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_. ".contains(&byte));
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let is_known = counts.contains_key(name);
    let name = if is_plain && (is_known || counts.len() < NAMES_MAX) { name } else { "other" };
    *counts.entry(name.to_owned()).or_default() += 1;
}

/// Something that threads wait for, with a memory of its rings. Its clones are the same bell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Rings>);

#[derive(Debug, Default)]
struct Rings {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    /// Wakes everybody who waits, and whoever waits next without having heard it.
    pub(crate) fn ring(&self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.changed.notify_all();
    }

    /// Waits for a ring after `heard`, or for the time to pass; returns the count of rings.
    pub(crate) fn wait(&self, heard: u64, most: Duration) -> u64 {
        let count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.changed.wait_timeout_while(count, most, |count| *count <= heard);
        *waited.unwrap_or_else(PoisonError::into_inner).0
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
            tracing::error!(event = events::ALARM_RAISED, part, "{text}");
        }
        let since = notes.get(part).map_or_else(Instant::now, |(since, _)| *since);
        notes.insert(part, (since, text));
    }

    /// It is well again.
    pub(crate) fn clear(&self, part: &'static str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, text)) = notes.remove(part) {
            tracing::info!(
                event = events::ALARM_CLEARED,
                part,
                after_s = since.elapsed().as_secs(),
                "well again; it was: {text}"
            );
        }
    }

    /// What is wrong with `part`, if anything.
    pub(crate) fn get(&self, part: &str) -> Option<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).get(part).map(|(_, text)| text.clone())
    }
}

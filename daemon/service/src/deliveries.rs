//! Deliveries to others: which recordings are owed to whom, the threads that deliver them, and what is known of each sink.
//!
//! A delivery is a job of a kind of its own for each sink, owed by the transaction in which a recording is archived, and a row of the
//! catalogue that says how far it got. The job is only what makes it happen: one that the queue lost is put there again from the row.
//!
//! Each sink has threads of its own, so that one that hangs holds up nothing else. A sink that is in trouble as a whole (not there, busy, does
//! not know us) closes its gate: nothing of its jobs is claimed until it opens again, so ten thousand of them cost nothing and no attempts.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use callvault_catalogue::{CatalogueError, DeliveryStep, OwedJob, Recording, Verdict};
use callvault_config::Config;
use callvault_http::{ApiError, ErrorKind};
use callvault_journal::facts::SessionEvent;
use callvault_policy::fold_call;
use callvault_policy::overload::Rank;
use callvault_queue::{Failure, Job, JobKind, KindLimits, NewJob, Next, QueueError, StateName};
use callvault_upload::{
    Analytics, AnalyticsSettings, Audio, Begun, Call, Direction, Folder, Gate, Ledger, Party, SecretFile, Tokens,
    Traffic, Trouble, Web, WebSettings, Webhook, WebhookSettings,
};
use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::ingest::unix_ms;
use crate::log::events;
use crate::overload;
use crate::playback::{self, Format};
use crate::row::has_audio;
use crate::sound::SoundError;

/// Deliveries come after archives and deletions.
pub(crate) const PRIORITY: u8 = 200;

/// Longest sleep between two looks at the queue.
const LOOK: Duration = Duration::from_secs(5);

/// After the queue failed, it is left alone for this long.
const QUEUE_PAUSE: Duration = Duration::from_secs(1);

/// How often what is left to do is counted.
const COUNT: Duration = Duration::from_secs(10);

/// Shorter recordings are delivered to nobody: there is nothing in them, and Voice Analytics takes none below a second.
const DURATION_MS_MIN: u64 = 1_000;

/// The domain of the users of a self-test. No real user can be there (RFC 2606 section 2).
const SELF_TEST_DOMAIN: &str = "@selftest.invalid";

/// Deliveries looked for at once where the queue is compared with the catalogue.
const OWED_AT_ONCE: u32 = 10_000;

/// A job whose store is away is due again after this long.
const AWAY_MS: u64 = 30_000;

/// Where recordings can be delivered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkKind {
    Analytics,
    Webhook,
    Folder,
}

impl SinkKind {
    pub(crate) const ALL: [Self; 3] = [Self::Analytics, Self::Webhook, Self::Folder];

    /// The kind of its jobs, which is also its name in the catalogue.
    pub(crate) fn job_kind(self) -> JobKind {
        match self {
            Self::Analytics => JobKind::UPLOAD,
            Self::Webhook => JobKind::WEBHOOK,
            Self::Folder => JobKind::FOLDER,
        }
    }

    /// Its section of the configuration, which is also its part of health.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::Analytics => "analytics",
            Self::Webhook => "webhook",
            Self::Folder => "export_folder",
        }
    }

    pub(crate) fn is_enabled(self, config: &Config) -> bool {
        match self {
            Self::Analytics => config.analytics.enabled,
            Self::Webhook => config.webhook.enabled,
            Self::Folder => config.export_folder.enabled,
        }
    }

    /// Whether this recording is owed to it.
    fn wants(self, config: &Config, row: &Recording) -> bool {
        is_delivered(row) && (self != Self::Analytics || user_of(config, row).is_some())
    }
}

/// Whether a recording is one that is delivered to anybody.
fn is_delivered(row: &Recording) -> bool {
    has_audio(row)
        && !matches!(row.verdict, Verdict::NoMedia | Verdict::Discarded)
        && row.duration_ms >= DURATION_MS_MIN
        && !is_self_test(row)
}

/// Calls of a self-test are nobody's.
pub(crate) fn is_self_test(row: &Recording) -> bool {
    let events: Vec<SessionEvent> = serde_json::from_value(row.facts.clone()).unwrap_or_default();
    let local = fold_call(&events).local;
    let names = [row.owner.as_deref(), local.user_id.as_deref(), local.aor.as_deref()];
    names.into_iter().flatten().any(|name| name.to_ascii_lowercase().ends_with(SELF_TEST_DOMAIN))
}

/// Under whose address a recording is uploaded.
fn user_of(config: &Config, row: &Recording) -> Option<String> {
    let fallback = Some(&config.analytics.fallback_user).filter(|user| !user.is_empty());
    row.owner.as_ref().filter(|owner| is_email(owner)).or(fallback).cloned()
}

/// As much of an address as is needed to know that it is one.
fn is_email(text: &str) -> bool {
    let is_plain = |part: &str| !part.is_empty() && part.chars().all(|c| !c.is_whitespace() && !c.is_control());
    text.split_once('@').is_some_and(|(user, host)| is_plain(user) && is_plain(host) && !host.contains('@'))
}

/// The jobs that follow from a recording's being archived. They are owed in the same transaction.
pub(crate) fn owed_with_archive(config: &Config, row: &Recording) -> Vec<OwedJob> {
    let wanted = SinkKind::ALL.into_iter().filter(|kind| kind.is_enabled(config) && kind.wants(config, row));
    wanted.map(|kind| OwedJob::delivery(kind.job_kind().as_str(), row.id)).collect()
}

/// What is known of the sinks.
pub(crate) struct Deliveries {
    sinks: [Sink; 3],
    tokens: Tokens,
    analytics: AnalyticsSettings,
    webhook: WebhookSettings,
    folder: Folder,
    web: [WebSettings; 2],
    since: Instant,
}

/// What is known of one sink. Each lock guards one thing.
#[derive(Default)]
struct Sink {
    gate: Mutex<Gate>,
    counts: Mutex<Counts>,
}

/// What became of deliveries since the start, and what is left.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    pub(crate) refused: u64,
    pub(crate) waiting: u64,
    /// Unix milliseconds.
    pub(crate) oldest_unix_ms: Option<i64>,
    counted_at: Option<Instant>,
}

impl Deliveries {
    pub(crate) fn new(config: &Config) -> Self {
        let secret = |key, path: &Option<PathBuf>, name: &str| SecretFile {
            key,
            path: path.clone().or_else(|| Some(PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name))),
        };
        let (analytics, webhook) = (&config.analytics, &config.webhook);
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let web = |section, proxy, credentials: &Option<PathBuf>, ca: &Option<PathBuf>, key| WebSettings {
            section,
            proxy: text(proxy),
            proxy_credentials: credentials.as_ref().map(|path| SecretFile { key, path: Some(path.clone()) }),
            ca: ca.clone(),
            connect_within: config.uploads.connect_timeout,
            silent_max: config.uploads.timeout,
            total_max: config.uploads.total_timeout,
            keeps_connection: false,
        };
        let sink = || Sink { gate: Mutex::new(Gate::new(config.uploads.per_minute)), ..Sink::default() };
        Self {
            sinks: [sink(), sink(), sink()],
            tokens: Tokens::default(),
            analytics: AnalyticsSettings {
                url: analytics.url.clone(),
                token_url: analytics.token_url.clone(),
                client_id: analytics.client_id.clone(),
                client_secret: secret("analytics.client_secret", &analytics.client_secret, "analytics.secret"),
                scope: analytics.scope.clone(),
                language: analytics.language.clone(),
                speakers: analytics.speakers,
                now: Timestamp::now,
            },
            webhook: WebhookSettings {
                url: webhook.url.clone(),
                secret: secret("webhook.secret", &webhook.secret, "webhook.secret"),
                now: Timestamp::now,
            },
            folder: Folder {
                path: config.export_folder.path.clone().unwrap_or_default(),
                remembered: config.data_dir.join("export-folder"),
            },
            web: [
                web(
                    "analytics",
                    &analytics.proxy,
                    &analytics.proxy_credentials,
                    &analytics.ca,
                    "analytics.proxy_credentials",
                ),
                web("webhook", &webhook.proxy, &webhook.proxy_credentials, &webhook.ca, "webhook.proxy_credentials"),
            ],
            since: Instant::now(),
        }
    }

    fn sink(&self, kind: SinkKind) -> &Sink {
        &self.sinks[kind as usize]
    }

    fn gate<T>(&self, kind: SinkKind, look: impl FnOnce(&mut Gate, u64) -> T) -> T {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        look(&mut self.sink(kind).gate.lock().unwrap_or_else(PoisonError::into_inner), now_ms)
    }

    fn count(&self, kind: SinkKind, change: impl FnOnce(&mut Counts)) {
        change(&mut self.sink(kind).counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The numbers of a sink.
    pub(crate) fn counts(&self, kind: SinkKind) -> Counts {
        *self.sink(kind).counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client for a thread that delivers to this sink; none where it needs none.
    fn web(&self, kind: SinkKind) -> Result<Option<Web>, Trouble> {
        match kind {
            SinkKind::Analytics => Web::new(&self.web[0]).map(Some),
            SinkKind::Webhook => Web::new(&self.web[1]).map(Some),
            SinkKind::Folder => Ok(None),
        }
    }

    /// What the files that the settings name hold: everything that would keep a sink that is on from working, one sentence each.
    pub(crate) fn wrong(&self, config: &Config) -> Vec<String> {
        let mut wrong = Vec::new();
        for kind in SinkKind::ALL.into_iter().filter(|kind| kind.is_enabled(config)) {
            let secret = match kind {
                SinkKind::Analytics => self.analytics.client_secret.read().err(),
                SinkKind::Webhook => self.webhook.secret.read().err(),
                SinkKind::Folder => None,
            };
            wrong.extend([secret, self.web(kind).err()].into_iter().flatten().map(|trouble| trouble.to_string()));
        }
        wrong
    }
}

/// What `--check` says of the deliveries of a configuration that is good otherwise: a line for each thing that is wrong. They keep
/// nothing else from working, so they are remarks.
pub(crate) fn check(config: &Config) -> String {
    let wrong = Deliveries::new(config).wrong(config);
    wrong.iter().map(|text| format!("remark: failed to {text}\n")).collect()
}

/// One thread for one sink: works until the appliance stops.
pub(crate) fn run(appliance: &Arc<Appliance>, kind: SinkKind) {
    overload::give_way(Rank::Exports);
    let job_kind = kind.job_kind();
    let parallel = if kind == SinkKind::Folder { 1 } else { appliance.config.uploads.parallel.max(1) as usize };
    let limits: KindLimits = [(job_kind, parallel)].into();
    let mut web = None;
    let mut heard = 0;
    while !appliance.stopping.load(Ordering::Relaxed) {
        count_backlog(appliance, kind);
        let wait_ms = appliance.deliveries.gate(kind, |gate, now_ms| gate.wait_ms(now_ms));
        if wait_ms > 0 {
            appliance.stop_bell.wait(0, Duration::from_millis(wait_ms).min(LOOK));
            continue;
        }
        if !overload::may_export(appliance) {
            appliance.stop_bell.wait(0, overload::LOOK);
            continue;
        }
        match appliance.queue.claim(unix_ms(), &limits) {
            Ok(Some(job)) => {
                appliance.deliveries.gate(kind, Gate::begins);
                let attempt = std::panic::AssertUnwindSafe(|| work(appliance, kind, &mut web, &job));
                if std::panic::catch_unwind(attempt).is_err() {
                    // A bug; it has been logged. It must not cost the thread, nor be tried in a tight loop.
                    web = None;
                    let text = "deliver the recording: an internal error, see the log";
                    let random = rand::rng().next_u64();
                    let _ = appliance.queue.fail(&job.id, unix_ms(), Failure::Transient, text, random);
                }
            }
            Ok(None) => {
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

/// Counts what is left, now and then: metrics read what was counted.
fn count_backlog(appliance: &Appliance, kind: SinkKind) {
    let counted_at = appliance.deliveries.counts(kind).counted_at;
    if counted_at.is_some_and(|at| at.elapsed() < COUNT) {
        return;
    }
    let Ok(backlogs) = appliance.catalogue.backlogs() else { return };
    let mine = backlogs.into_iter().find(|backlog| backlog.sink == kind.job_kind().as_str());
    appliance.deliveries.count(kind, |counts| {
        counts.counted_at = Some(Instant::now());
        counts.waiting = mine.as_ref().map_or(0, |backlog| backlog.count);
        counts.oldest_unix_ms = mine.map(|backlog| backlog.oldest_unix_ms);
    });
}

/// Does one job and tells queue, catalogue, health and log how it went.
fn work(appliance: &Arc<Appliance>, kind: SinkKind, web: &mut Option<Web>, job: &Job) {
    let id = job.recording;
    let result = deliver(appliance, kind, web, id);
    let told = match result {
        Ok(()) | Err(Trouble::Gone) => appliance.queue.complete(&job.id, unix_ms()),
        Err(trouble) => {
            let failure = failure(appliance, kind, &trouble);
            let text = trouble.to_string();
            if trouble == Trouble::Stopping {
                tracing::debug!(job = %job.id, "job {} goes on with the next start", job.id);
            } else {
                let noted = appliance.catalogue.delivery_failed(id, kind.job_kind().as_str(), &text, Timestamp::now());
                if let Err(error) = noted {
                    tracing::error!(recording = %id, "failed to {error}");
                }
                appliance.metrics.job_failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(event = events::JOB_FAILED, job = %job.id, attempt = job.attempts, "job {} failed to {text}", job.id);
            }
            appliance.queue.fail(&job.id, unix_ms(), failure, &text, rand::rng().next_u64()).map(|next| {
                appliance.deliveries.count(kind, |counts| match next {
                    Next::Parked(_) => counts.refused += 1,
                    Next::Retry { .. } if trouble == Trouble::Stopping => {}
                    Next::Retry { .. } => counts.failed += 1,
                });
            })
        }
    };
    if let Err(error) = told
        && !matches!(error, QueueError::Unknown { .. })
    {
        appliance.notes.set("queue", format!("failed to {error}"));
        appliance.mend_queue();
    }
}

/// What the queue should make of a trouble; closes the gate where it is the sink's.
fn failure(appliance: &Appliance, kind: SinkKind, trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Sink { wait_ms, text } => {
            appliance.notes.set(kind.section(), format!("failed to {text}"));
            let random = rand::rng().next_u64();
            let wait_ms = appliance.deliveries.gate(kind, |gate, now_ms| gate.trouble(now_ms, *wait_ms, random));
            Failure::NotYet { wait_ms }
        }
        Trouble::Refused(_) | Trouble::Audio { permanent: true, .. } => Failure::Permanent,
        Trouble::Audio { away: true, .. } => Failure::NotYet { wait_ms: AWAY_MS },
        Trouble::Stopping => Failure::NotYet { wait_ms: 0 },
        Trouble::Recording(_) | Trouble::Audio { .. } | Trouble::Gone => Failure::Transient,
    }
}

/// Delivers one recording, unless that is done.
fn deliver(appliance: &Arc<Appliance>, kind: SinkKind, web: &mut Option<Web>, id: Uuid) -> Result<(), Trouble> {
    let sink = kind.job_kind();
    let Some(row) = appliance.catalogue.get(id).map_err(catalogue)? else { return Err(Trouble::Gone) };
    let known = appliance.catalogue.delivery(id, sink.as_str()).map_err(catalogue)?;
    if known.is_some_and(|known| known.step == DeliveryStep::Delivered) || !kind.wants(&appliance.config, &row) {
        return Ok(());
    }
    if web.is_none() {
        *web = appliance.deliveries.web(kind)?;
    }
    let begun_at = Instant::now();
    let stopping = || appliance.stopping.load(Ordering::Relaxed);
    let mut call = call(&row);
    if kind == SinkKind::Analytics {
        call.owner = user_of(&appliance.config, &row);
    }
    let audio: Arc<dyn Audio> = Arc::new(RecordingAudio { appliance: Arc::clone(appliance), row });
    let book = Book { appliance, id, sink: sink.as_str() };
    let deliveries = &appliance.deliveries;
    let remembered = match (kind, web.as_ref()) {
        (SinkKind::Analytics, Some(web)) => {
            let driver =
                Analytics { web, settings: &deliveries.analytics, tokens: &deliveries.tokens, stopping: &stopping };
            let begun = driver.deliver(&call, &audio, &book)?;
            serde_json::to_value(begun).unwrap_or_default()
        }
        (SinkKind::Webhook, Some(web)) => {
            Webhook { web, settings: &deliveries.webhook, stopping: &stopping }.deliver(&call, &audio)?;
            Value::Null
        }
        _ => {
            deliveries.folder.deliver(&call, &*audio, &stopping)?;
            Value::Null
        }
    };
    // The service did something for us, whatever becomes of our note of it.
    deliveries.gate(kind, |gate, _| gate.well());
    appliance.notes.clear(kind.section());
    if !appliance.catalogue.delivered(id, sink.as_str(), &remembered, Timestamp::now()).map_err(catalogue)? {
        return Err(Trouble::Gone);
    }
    deliveries.count(kind, |counts| {
        counts.delivered += 1;
        counts.counted_at = None;
    });
    let ms = u64::try_from(begun_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(event = events::DELIVERED, recording = %id, sink = kind.section(), ms, "recording {id} delivered to {}", kind.section());
    Ok(())
}

fn catalogue(error: CatalogueError) -> Trouble {
    Trouble::Recording(error.to_string())
}

/// A recording as others are told of it.
fn call(row: &Recording) -> Call {
    use callvault_catalogue::{Direction as Way, Traffic as Whose};
    Call {
        id: row.id,
        owner: row.owner.clone(),
        started_at: row.started_at,
        ended_at: row.ended_at,
        duration_ms: row.duration_ms,
        direction: match row.direction {
            Way::Incoming => Direction::Incoming,
            Way::Outgoing => Direction::Outgoing,
            Way::Unknown => Direction::Unknown,
        },
        traffic: match row.traffic {
            Whose::Internal => Traffic::Internal,
            Whose::External => Traffic::External,
            Whose::Unknown => Traffic::Unknown,
        },
        local: Party { name: row.local_name.clone(), number: row.local_number.clone() },
        remote: Party { name: row.remote_name.clone(), number: row.remote_number.clone() },
        call_id: row.call_id.clone(),
        verdict: row.verdict.as_str().to_owned(),
        tracks: row.tracks.len(),
    }
}

/// The catalogue as what remembers how far a delivery got.
struct Book<'a> {
    appliance: &'a Appliance,
    id: Uuid,
    sink: &'a str,
}

impl Ledger for Book<'_> {
    fn begun(&self) -> Result<Option<Begun>, Trouble> {
        let known = self.appliance.catalogue.delivery(self.id, self.sink).map_err(catalogue)?;
        let progress = known.map(|known| known.progress).filter(|progress| !progress.is_null());
        // What cannot be read any more is as good as nothing: it is created again.
        Ok(progress.and_then(|progress| serde_json::from_value(progress).ok()))
    }

    fn note(&self, begun: &Begun) -> Result<(), Trouble> {
        let progress = serde_json::to_value(begun).unwrap_or_default();
        match self.appliance.catalogue.note_delivery(self.id, self.sink, &progress, Timestamp::now()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Trouble::Gone),
            Err(error) => Err(catalogue(error)),
        }
    }
}

/// A recording's MP3, rendered each time that it is opened.
struct RecordingAudio {
    appliance: Arc<Appliance>,
    row: Recording,
}

impl Audio for RecordingAudio {
    fn open(&self) -> Result<Box<dyn Read + Send>, Trouble> {
        match playback::render(&self.appliance, &self.row, Format::Mp3, None..None) {
            Ok(rendered) => Ok(Box::new(rendered)),
            Err(SoundError::Deleted) => Err(Trouble::Gone),
            Err(SoundError::Stopping) => Err(Trouble::Stopping),
            Err(error) => {
                let permanent = matches!(error, SoundError::NoKey | SoundError::Key(_));
                let away = error.is_away() || matches!(error, SoundError::NotReadYet);
                Err(Trouble::Audio { permanent, away, text: format!("render the audio: {error}") })
            }
        }
    }
}

/// Whatever is owed to a sink has a job, also when the queue lost it; one that is done while the delivery is not is driven again. Gives
/// the jobs that are missing, and drives the others.
pub(crate) fn missing_jobs(appliance: &Appliance) -> Result<Vec<NewJob>, CatalogueError> {
    let mut missing = Vec::new();
    for kind in SinkKind::ALL.into_iter().filter(|kind| kind.is_enabled(&appliance.config)) {
        for id in appliance.catalogue.undelivered(kind.job_kind().as_str(), OWED_AT_ONCE)? {
            let job = NewJob { priority: PRIORITY, ..NewJob::new(kind.job_kind(), id) };
            match appliance.queue.get(&job.id()) {
                None => missing.push(job),
                Some(known) if known.state.name() == StateName::Done => {
                    // Between our look at the catalogue and this one it may have been done.
                    let still = appliance.catalogue.is_delivered(id, &[kind.job_kind().as_str()])?;
                    if !still && let Err(error) = appliance.queue.retry(&known.id, unix_ms()) {
                        appliance.notes.set("queue", format!("failed to {error}"));
                    }
                }
                Some(_) => {}
            }
        }
    }
    Ok(missing)
}

/// Whether a job is a delivery: those come after other work.
pub(crate) fn priority_of(kind: &JobKind) -> u8 {
    if SinkKind::ALL.iter().any(|sink| sink.job_kind() == *kind) { PRIORITY } else { NewJob::PRIORITY }
}

/// Has a recording delivered that was archived before the sink was switched on. Gives the name of the job.
pub(crate) fn ask_for(appliance: &Appliance, row: &Recording, sink: &str) -> Result<String, ApiError> {
    let refuse = |kind, text: String| Err(ApiError::new(kind, text));
    let Some(kind) = SinkKind::ALL.into_iter().find(|kind| kind.section() == sink) else {
        let text = "recordings are delivered to analytics, webhook or export_folder; name one of them";
        return refuse(ErrorKind::BadRequest, text.to_owned());
    };
    if !kind.is_enabled(&appliance.config) {
        return refuse(
            ErrorKind::Unprocessable,
            format!("{sink} is switched off; set {sink}.enabled and restart callvaultd"),
        );
    }
    if !kind.wants(&appliance.config, row) {
        let text = "this recording is not delivered there: it has no audio, is shorter than a second, is of a self-test, or its owner has no e-mail address (analytics.fallback_user is for those)";
        return refuse(ErrorKind::Unprocessable, text.to_owned());
    }
    if row.archive.place().is_none() {
        return refuse(ErrorKind::Conflict, "it is not archived yet; once it is, it is delivered by itself".to_owned());
    }
    let name = kind.job_kind();
    let internal = |error: CatalogueError| ApiError::new(ErrorKind::Internal, format!("failed to {error}"));
    let known = appliance.catalogue.delivery(row.id, name.as_str()).map_err(internal)?;
    if let Some(known) = known {
        let text = match known.step {
            DeliveryStep::Delivered => format!("it was delivered at {:.0}", known.changed_at),
            _ => format!("it is owed already; `callvaultctl jobs retry {name}:{}` drives it", row.id),
        };
        return refuse(ErrorKind::Conflict, text);
    }
    let job = OwedJob::delivery(name.as_str(), row.id);
    appliance.catalogue.owe(row.id, std::slice::from_ref(&job), Timestamp::now()).map_err(internal)?;
    let _ = appliance.wake_ingest.try_send(());
    Ok(job.id())
}

/// The deliveries of a recording, for people and programs. What the other side gave is its identifier; a URL is a permission and is
/// never shown.
pub(crate) fn of_recording(appliance: &Appliance, id: Uuid) -> Result<Value, CatalogueError> {
    let deliveries = appliance.catalogue.deliveries(id)?;
    let shown = deliveries.iter().map(|delivery| {
        let remote_id = delivery.progress.get("remote_id").and_then(Value::as_str).filter(|id| !id.is_empty());
        json!({
            "sink": SinkKind::ALL.iter().find(|kind| kind.job_kind().as_str() == delivery.sink).map(|kind| kind.section()),
            "job": format!("{}:{id}", delivery.sink),
            "step": delivery.step,
            "remote_id": remote_id,
            "error": delivery.error,
            "owed_at": format!("{:.3}", delivery.owed_at),
            "changed_at": format!("{:.3}", delivery.changed_at),
        })
    });
    Ok(json!({"deliveries": shown.collect::<Vec<_>>()}))
}

#[cfg(test)]
mod tests;

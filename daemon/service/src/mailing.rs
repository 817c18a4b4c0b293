//! Telling users of their recordings by mail: a thread of its own takes the jobs, one mail at a time, so that a mail server that hangs
//! holds up mails and nothing else.
//!
//! # What is guaranteed
//!
//! 1. The job `notify:<id>` is owed in the transaction that puts the archive on record, and the mail with it (`mails` in the catalogue).
//! 2. Before the mail itself is sent, `sending` is on record, with a keyed hash of the recipient.
//! 3. The server's 250 is on record before the queue hears that the job is done. From then on the mail is never sent again, whatever
//!    becomes of the queue.
//! 4. What ends between the server's 250 and step 3 (a crash, a lost connection) sends the mail again, with the same Message-ID. A
//!    server that takes mails and never answers gets each [`UNANSWERED_MAX`] times at most; then the job is parked.
//!
//! What is about the server and not about a mail (no connection, a wrong password) is not counted against jobs: they wait, and health says why.

mod server;
mod templates;

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use callvault_access::{Action, Caller};
use callvault_catalogue::{CatalogueError, Direction, MailStep, OwedJob, Recording};
use callvault_config::{Config, SizeLimit};
use callvault_directory::{Level, User};
use callvault_mail::{
    ATTACHMENT_BYTES_MAX, Accepted, Attachment, Call, ComposeError, Failed, Failing, Message, Notice, Person, Sender,
    Templates, compose, compose_plain, send,
};
use callvault_policy::overload::Rank;
use callvault_queue::{Failure, Job, JobKind, QueueError};
use callvault_render_protocol::RenderError;
use jiff::Timestamp;
use rand::Rng;
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::archiving::AWAY_MS;
use crate::ingest::unix_ms;
use crate::log::events;
use crate::overload;
use crate::playback::{self, Format};
use crate::row;
use crate::sound::SoundError;
use templates::LoadedTemplates;

/// Part under which health shows that mails cannot be sent.
pub(crate) const NOTE: &str = "mail";

/// Part under which health shows that templates cannot be used.
pub(crate) const TEMPLATES_NOTE: &str = "mail-templates";

/// Longest sleep between two looks at the queue.
const LOOK: Duration = Duration::from_secs(5);

/// How long the server is left alone after it failed for the first time; doubled with each time after it.
const PAUSE_MIN: Duration = Duration::from_secs(5);

/// How long it is left alone at most.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// How often a mail is handed to a server that does not say whether it took it: each may be one more in the user's mailbox.
const UNANSWERED_MAX: u32 = 5;

/// After so many failures to make the audio a mail goes without.
const AUDIO_FAILURES_MAX: u32 = 5;

/// Administrators who are told by mail at most.
const ADMINISTRATORS_MAX: usize = 50;

/// Tries to put a server's 250 on record.
const RECORD_TRIES: u32 = 5;

/// Between two of these.
const RECORD_PAUSE: Duration = Duration::from_millis(200);

/// What is known of mail.
#[derive(Debug, Default)]
pub(crate) struct Mailing {
    templates: LoadedTemplates,
    pub(crate) counts: Counts,
}

/// Mails by what became of them.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    accepted: AtomicU64,
    without_attachment: AtomicU64,
    later: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
    server: AtomicU64,
    not_wanted: AtomicU64,
}

impl Counts {
    /// Name and number of each outcome.
    pub(crate) fn all(&self) -> [(&'static str, u64); 7] {
        [
            ("accepted", &self.accepted),
            ("without-attachment", &self.without_attachment),
            ("later", &self.later),
            ("refused", &self.refused),
            ("unanswered", &self.unanswered),
            ("server", &self.server),
            ("not-wanted", &self.not_wanted),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The jobs that are owed when this recording's archive is on record.
pub(crate) fn owed_with_archive(appliance: &Appliance, row: &Recording) -> Vec<OwedJob> {
    let is_on = !appliance.settings().mail.server.is_empty();
    // Nobody waits for word of a call of some other year.
    let is_wanted = is_on && !row::is_import(row) && owner(appliance, row).is_some_and(|user| wants(&user));
    is_wanted.then(|| OwedJob::new(JobKind::NOTIFY.as_str(), row.id)).into_iter().collect()
}

/// Whose the recording is.
fn owner(appliance: &Appliance, row: &Recording) -> Option<Arc<User>> {
    row.owner_id.and_then(|id| appliance.access.people.by_id(id))
}

fn wants(user: &User) -> bool {
    user.notify && user.removed_at.is_none()
}

/// Reads the templates again, if they changed.
pub(crate) fn look_at_templates(appliance: &Appliance) {
    appliance.mailing.templates.look(&appliance.settings().mail, &appliance.notes);
}

/// When the server is spoken to again.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    fn failed(&mut self) {
        let pause = PAUSE_MIN.saturating_mul(1_u32 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.until = Instant::now().checked_add(pause);
    }

    fn left(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// Sends mails until the appliance stops.
pub(crate) fn run(appliance: &Arc<Appliance>) {
    overload::give_way(Rank::Exports);
    look_at_templates(appliance);
    let (mut heard, mut pause) = (0, Pause::default());
    let mut known = appliance.settings().mail.clone();
    while !appliance.stopping.load(Ordering::Relaxed) {
        let settings = appliance.settings();
        if settings.mail != known {
            // Whatever was wrong may be well now.
            known = settings.mail.clone();
            pause = Pause::default();
            appliance.notes.clear(NOTE);
        }
        if settings.mail.server.is_empty() || pause.left() > Duration::ZERO {
            let sleep = if settings.mail.server.is_empty() { LOOK } else { pause.left().min(LOOK) };
            heard = appliance.work.wait(heard, sleep);
            continue;
        }
        if !overload::may_export(appliance) {
            appliance.stop_bell.wait(0, overload::LOOK);
            continue;
        }
        let limits = [(JobKind::NOTIFY, 1)].into();
        match appliance.queue.claim(unix_ms(), &limits) {
            Ok(Some(job)) => {
                let result = notify(appliance, &settings, &job);
                match &result {
                    Err(NotSent { failing: Some(Failing::Server), text, .. }) => {
                        pause.failed();
                        appliance.notes.set(NOTE, text.clone());
                    }
                    Ok(Outcome::Sent) | Err(NotSent { failing: Some(_), .. }) => {
                        pause = Pause::default();
                        appliance.notes.clear(NOTE);
                    }
                    _ => {}
                }
                tell(appliance, &job, result);
            }
            Ok(None) => {
                let due = appliance.queue.next_due(&limits).map(|at| at.saturating_sub(unix_ms()));
                if due.is_none() {
                    // Nothing waits for the server any more, however it is.
                    appliance.notes.clear(NOTE);
                }
                let sleep = due.map_or(LOOK, Duration::from_millis).clamp(Duration::from_millis(5), LOOK);
                heard = appliance.work.wait(heard, sleep);
            }
            // The workers say what is wrong with the queue, and mend it.
            Err(_) => heard = appliance.work.wait(heard, LOOK),
        }
    }
}

/// Tells the queue how it went.
pub(crate) fn tell(appliance: &Appliance, job: &Job, result: Result<Outcome, NotSent>) {
    let told = match result {
        Ok(_) => appliance.queue.complete(&job.id, unix_ms()),
        Err(NotSent { failure, text, .. }) => {
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

/// How a job came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server has the mail, now or since before.
    Sent,
    /// There is nobody to tell, or nothing to tell of.
    Needless,
}

/// Why a mail was not sent. The text is for the log and for the queue: it holds nothing personal.
#[derive(Debug)]
pub(crate) struct NotSent {
    failure: Failure,
    /// What it means, where a server was spoken to.
    failing: Option<Failing>,
    text: String,
}

impl NotSent {
    fn new(failure: Failure, text: impl std::fmt::Display) -> Self {
        Self { failure, failing: None, text: text.to_string() }
    }

    /// It is about the server or our settings: the job waits for as long as that takes.
    fn server(text: impl std::fmt::Display) -> Self {
        let wait_ms = u64::try_from(PAUSE_MIN.as_millis()).unwrap_or(u64::MAX);
        Self { failure: Failure::NotYet { wait_ms }, failing: Some(Failing::Server), text: text.to_string() }
    }
}

impl From<CatalogueError> for NotSent {
    fn from(error: CatalogueError) -> Self {
        Self::new(Failure::Transient, error)
    }
}

impl From<ComposeError> for NotSent {
    fn from(error: ComposeError) -> Self {
        match error {
            ComposeError::Sender => Self::server(error),
            _ => Self::new(Failure::Permanent, error),
        }
    }
}

/// Does the job: tells the recording's owner of it, unless that was done.
pub(crate) fn notify(appliance: &Arc<Appliance>, settings: &Config, job: &Job) -> Result<Outcome, NotSent> {
    let id = job.recording;
    let Some(row) = appliance.catalogue.get(id)? else { return Ok(Outcome::Needless) };
    let user = owner(appliance, &row);
    let Some(user) = user.filter(|user| wants(user)) else {
        count(&appliance.mailing.counts.not_wanted);
        appliance.catalogue.mail_came(id, "", MailStep::Dropped, Timestamp::now())?;
        return Ok(Outcome::Needless);
    };
    match appliance.catalogue.mail(id, user.mail_address())? {
        Some(known) if known.step == MailStep::Accepted => return Ok(Outcome::Sent),
        Some(known) if known.step == MailStep::Sending => {
            tracing::warn!(recording = %id, "the mail for recording {id} was under way when something ended; it is sent again, with the same Message-ID");
        }
        _ => {}
    }
    let attachment = if user.attach { audio(appliance, settings, &row, job)? } else { Attachment::NotWanted };
    let notice = Notice { recording: id, to: person(&user), call: call(&row), attachment, test: false };
    deliver(appliance, settings, notice, job)
}

/// Hands the mail over, and puts on record how far that came.
fn deliver(appliance: &Appliance, settings: &Config, mut notice: Notice, job: &Job) -> Result<Outcome, NotSent> {
    let (id, counts) = (notice.recording, &appliance.mailing.counts);
    let address = notice.to.address.clone();
    let server = server::of(&settings.mail).map_err(NotSent::server)?;
    let begin = || match appliance.catalogue.mail_came(id, &address, MailStep::Sending, Timestamp::now()) {
        Ok(is_there) => is_there,
        Err(error) => {
            tracing::error!(recording = %id, "failed to {error}");
            false
        }
    };
    let mut message = composed(appliance, settings, &notice)?;
    let mut sent = send(&server, &message, begin);
    if message.has_attachment() && sent.as_ref().is_err_and(|failed| failed.failing == Failing::TooLarge) {
        tracing::info!(recording = %id, "the mail server does not take the mail with its attachment; it goes without");
        notice.attachment = Attachment::RefusedByServer;
        message = composed(appliance, settings, &notice)?;
        sent = send(&server, &message, begin);
    }
    match sent {
        Ok(_) => {
            put_on_record(appliance, id, &address)?;
            let entry = appliance.entry(&Caller::appliance("mail"), Action::Mail).on(id).with("to", &address);
            // The mail is gone whatever becomes of this: when it cannot be written, that is said.
            let _ = appliance.audit(&entry.with("attached", message.has_attachment().to_string()));
            count(&counts.accepted);
            if !matches!(notice.attachment, Attachment::Mp3(_) | Attachment::NotWanted) {
                count(&counts.without_attachment);
            }
            tracing::info!(recording = %id, attached = message.has_attachment(), "the owner of recording {id} was told by mail");
            Ok(Outcome::Sent)
        }
        Err(failed) => not_taken(appliance, id, &address, &failed, job),
    }
}

/// The server has it: that is on record before anything else happens, if it can be.
fn put_on_record(appliance: &Appliance, id: Uuid, address: &str) -> Result<(), NotSent> {
    let mut tries = 0;
    loop {
        tries += 1;
        match appliance.catalogue.mail_came(id, address, MailStep::Accepted, Timestamp::now()) {
            Ok(_) => return Ok(()),
            Err(_) if tries < RECORD_TRIES => std::thread::sleep(RECORD_PAUSE),
            Err(error) => {
                return Err(NotSent::new(
                    Failure::Transient,
                    format!("{error}; the server took the mail, and gets it again"),
                ));
            }
        }
    }
}

/// What a failure means for the job.
fn not_taken(appliance: &Appliance, id: Uuid, address: &str, failed: &Failed, job: &Job) -> Result<Outcome, NotSent> {
    let counts = &appliance.mailing.counts;
    if failed.failing != Failing::Unknown {
        // It is certain that nobody has it. If the note fails, it is sent again, which is what is to happen anyway.
        let _ = appliance.catalogue.mail_came(id, address, MailStep::Owed, Timestamp::now());
    }
    let text = format!("send a mail: {failed}");
    let not_sent = |failure| NotSent { failure, failing: Some(failed.failing), text: text.clone() };
    match failed.failing {
        Failing::Server => {
            count(&counts.server);
            Err(NotSent::server(&text))
        }
        Failing::Later => {
            count(&counts.later);
            Err(not_sent(Failure::Transient))
        }
        Failing::Refused | Failing::TooLarge => {
            count(&counts.refused);
            Err(not_sent(Failure::Permanent))
        }
        Failing::Unknown => {
            count(&counts.unanswered);
            let is_last = job.failures.saturating_add(1) >= UNANSWERED_MAX;
            Err(not_sent(if is_last { Failure::Permanent } else { Failure::Transient }))
        }
        // The recording was deleted meanwhile, or the catalogue does not take notes.
        Failing::Stopped => match appliance.catalogue.get(id)? {
            None => Ok(Outcome::Needless),
            Some(_) => Err(not_sent(Failure::Transient)),
        },
    }
}

fn composed(appliance: &Appliance, settings: &Config, notice: &Notice) -> Result<Message, NotSent> {
    let sender = Sender { address: settings.mail.from.clone(), name: settings.mail.sender_name.clone() };
    let (zone, now) = (settings.organisation.time_zone.zone(), Timestamp::now());
    match compose(&appliance.mailing.templates.current(), notice, &sender, &zone, now) {
        // It was tried before it was used, so this is a case nobody thought of; the mail is sent all the same.
        Err(ComposeError::Template(flaw)) => {
            tracing::error!("failed to use a template, the built-in one is used: {flaw}");
            Ok(compose(&Templates::built_in(), notice, &sender, &zone, now)?)
        }
        composed => Ok(composed?),
    }
}

fn person(user: &User) -> Person {
    Person {
        name: user.display_name(),
        first_name: user.first_name.clone(),
        last_name: user.last_name.clone(),
        address: user.mail_address().to_owned(),
        language: user.preferred_language.clone(),
    }
}

fn call(row: &Recording) -> Call {
    Call {
        started_at: row.started_at,
        duration_ms: row.duration_ms,
        direction: match row.direction {
            Direction::Incoming => callvault_mail::Direction::Incoming,
            Direction::Outgoing => callvault_mail::Direction::Outgoing,
            Direction::Unknown => callvault_mail::Direction::Unknown,
        },
        local_number: row.local_number.clone().unwrap_or_default(),
        remote_number: row.remote_number.clone().unwrap_or_default(),
        remote_name: row.remote_name.clone().unwrap_or_default(),
    }
}

/// The audio as MP3, or why the mail goes without; an error where it is to be tried again.
fn audio(appliance: &Arc<Appliance>, settings: &Config, row: &Recording, job: &Job) -> Result<Attachment, NotSent> {
    let limit_bytes = match settings.mail.attachment_max {
        SizeLimit::Off => ATTACHMENT_BYTES_MAX,
        SizeLimit::UpTo(limit) => limit.0.min(ATTACHMENT_BYTES_MAX),
    };
    let rendered = match playback::render(appliance, row, Format::Mp3, Some(0)..None) {
        Ok(rendered) => rendered,
        Err(error) => return without_audio(&error, job),
    };
    let mut mp3 = Vec::new();
    match rendered.take(limit_bytes.saturating_add(1)).read_to_end(&mut mp3) {
        Ok(_) if mp3.len() as u64 > limit_bytes => Ok(Attachment::TooLarge { limit_bytes }),
        Ok(0) => Ok(Attachment::Unavailable),
        Ok(_) => Ok(Attachment::Mp3(mp3)),
        Err(error) => without_audio(&error.into(), job),
    }
}

fn without_audio(error: &SoundError, job: &Job) -> Result<Attachment, NotSent> {
    let is_permanent = match error {
        SoundError::Render(error @ RenderError::Failed { .. }) => error.is_permanent(),
        SoundError::NoKey | SoundError::Key(_) => true,
        _ => false,
    };
    if error.is_away() {
        return Err(NotSent::new(Failure::NotYet { wait_ms: AWAY_MS }, error));
    }
    if is_permanent || job.failures >= AUDIO_FAILURES_MAX {
        tracing::warn!(recording = %job.recording, "a mail goes without its audio: failed to {error}");
        return Ok(Attachment::Unavailable);
    }
    Err(NotSent::new(Failure::Transient, error))
}

/// The mail server, as the settings name it.
///
/// # Errors
/// As for [`server::of`].
pub(crate) fn server_of(mail: &callvault_config::Mail) -> Result<callvault_mail::Server, String> {
    server::of(mail)
}

/// Who was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// One administrator at least.
    Somebody,
    /// Nobody, though there is whom to tell.
    Failed,
    /// There is no mail server, or no administrator is a user.
    Nobody,
}

/// Tells every administrator who is a user, in plain text, at once; what cannot be sent is in the log alone: health says what is wrong.
pub(crate) fn tell_administrators(appliance: &Appliance, subject: &str, text: &str) -> Told {
    let settings = appliance.settings();
    let directory = appliance.access.people.now();
    let is_told = |user: &&Arc<User>| user.level == Level::Administrator && user.removed_at.is_none();
    let mut administrators = directory.all().iter().filter(is_told).take(ADMINISTRATORS_MAX).peekable();
    if settings.mail.server.is_empty() || administrators.peek().is_none() {
        return Told::Nobody;
    }
    let server = match server::of(&settings.mail) {
        Ok(server) => server,
        Err(error) => {
            tracing::error!("administrators are not told by mail: failed to {error}");
            return Told::Failed;
        }
    };
    let mut told = Told::Failed;
    let sender = Sender { address: settings.mail.from.clone(), name: settings.mail.sender_name.clone() };
    for user in administrators {
        let made = compose_plain(&sender, user.mail_address(), Uuid::now_v7(), (subject, text), Timestamp::now());
        let sent = made.map_err(|error| error.to_string()).and_then(|message| {
            send(&server, &message, || true).map(drop).map_err(|failed| format!("send a mail: {failed}"))
        });
        match sent {
            Ok(()) => {
                told = Told::Somebody;
                tracing::info!(user = %user.id, "an administrator was told by mail");
            }
            Err(error) => tracing::error!(user = %user.id, "an administrator is not told by mail: failed to {error}"),
        }
    }
    told
}

/// Sends a try to this address, now.
///
/// # Errors
/// How far it came, as the server said it.
pub(crate) fn try_out(appliance: &Appliance, address: &str, language: Option<&str>) -> Result<Accepted, String> {
    let settings = appliance.settings();
    if settings.mail.server.is_empty() {
        return Err("send a mail: mail.server is empty; name the mail server in the configuration".to_owned());
    }
    let language = language.unwrap_or(&settings.mail.language).to_owned();
    let to = Person { name: address.to_owned(), address: address.to_owned(), language, ..Person::default() };
    look_at_templates(appliance);
    let notice = Notice::sample(Uuid::now_v7(), to, Timestamp::now());
    let server = server::of(&settings.mail)?;
    let message = composed(appliance, &settings, &notice).map_err(|not_sent| not_sent.text)?;
    send(&server, &message, || true).map_err(|failed| match &failed.reply {
        Some(reply) => format!("send a mail: {failed}: {reply}"),
        None => format!("send a mail: {failed}"),
    })
}

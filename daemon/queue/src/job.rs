//! Jobs and their states.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::QueueError;

/// Jobs held at once, those that are done not counted. All live in memory, about 500 bytes each; what does not fit stays
/// owed in the catalogue.
pub const JOBS_MAX: usize = 100_000;

/// Bytes of a job's payload as JSON. A payload says what a catalogue row does not; a few names and paths.
pub const PAYLOAD_BYTES_MAX: usize = 4096;

/// Bytes of error text kept with a job: enough for a sentence and a path.
pub const ERROR_BYTES_MAX: usize = 500;

/// Done jobs remembered, newest first, so that lists show recent work and late duplicates are recognised.
pub const DONE_KEPT: usize = 1000;

/// What sort of work a job is. An open set: a kind that this version does not know is kept and never claimed by accident,
/// because claims name their kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobKind(Cow<'static, str>);

impl JobKind {
    /// Make the archive file of a recording.
    pub const ARCHIVE: Self = Self(Cow::Borrowed("archive"));
    /// Send a recording to an analytics service.
    pub const UPLOAD: Self = Self(Cow::Borrowed("upload"));
    /// Post a recording to a web server.
    pub const WEBHOOK: Self = Self(Cow::Borrowed("webhook"));
    /// Put a recording into a folder.
    pub const FOLDER: Self = Self(Cow::Borrowed("folder"));
    /// Tell the owner by mail.
    pub const NOTIFY: Self = Self(Cow::Borrowed("notify"));
    /// Remove what is left of a deleted recording.
    pub const DELETE: Self = Self(Cow::Borrowed("delete"));

    /// A kind by name: 1 to 32 of `a`-`z`, `0`-`9`, `-`.
    ///
    /// # Errors
    /// [`QueueError::BadKind`] for anything else.
    pub fn new(name: &str) -> Result<Self, QueueError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(allowed) {
            return Err(QueueError::BadKind);
        }
        Ok([Self::ARCHIVE, Self::UPLOAD, Self::WEBHOOK, Self::FOLDER, Self::NOTIFY, Self::DELETE]
            .into_iter()
            .find(|known| known.0 == name)
            .unwrap_or_else(|| Self(Cow::Owned(name.to_owned()))))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for JobKind {
    type Error = QueueError;
    fn try_from(name: String) -> Result<Self, QueueError> {
        Self::new(&name)
    }
}

impl From<JobKind> for String {
    fn from(kind: JobKind) -> Self {
        kind.0.into_owned()
    }
}

/// A job's stable name, `<kind>:<recording id>`: the same work always has the same name, so asking twice is asking once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(Arc<str>);

impl JobId {
    /// The name of `kind`'s work on `recording`.
    pub fn new(kind: &JobKind, recording: Uuid) -> Self {
        Self(format!("{kind}:{}", recording.hyphenated()).into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its two halves.
    pub(crate) fn parts(&self) -> Result<(JobKind, Uuid), QueueError> {
        let (kind, recording) = self.0.split_once(':').ok_or(QueueError::BadId)?;
        let kind = JobKind::new(kind).map_err(|_| QueueError::BadId)?;
        let recording = Uuid::try_parse(recording).map_err(|_| QueueError::BadId)?;
        Ok((kind, recording))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for JobId {
    type Err = QueueError;
    fn from_str(text: &str) -> Result<Self, QueueError> {
        let (kind, recording) = Self(text.into()).parts()?;
        Ok(Self::new(&kind, recording))
    }
}

impl TryFrom<String> for JobId {
    type Error = QueueError;
    fn try_from(text: String) -> Result<Self, QueueError> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// A job to be done, as the caller describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// What sort of work.
    pub kind: JobKind,
    /// For which recording.
    pub recording: Uuid,
    /// Smaller goes first among those that are due; [`NewJob::PRIORITY`] unless there is a reason.
    pub priority: u8,
    /// Not before this moment, Unix milliseconds; at once if `None`. At most [`crate::WAIT_MS_MAX`] ahead.
    pub not_before_unix_ms: Option<u64>,
    /// What the work needs beyond the recording's id; at most [`PAYLOAD_BYTES_MAX`] as JSON, and no personal data, for
    /// the queue's files are not encrypted.
    pub payload: serde_json::Value,
}

impl NewJob {
    /// The priority of ordinary work.
    pub const PRIORITY: u8 = 100;

    /// Ordinary work, due at once, without payload.
    pub fn new(kind: JobKind, recording: Uuid) -> Self {
        Self { kind, recording, priority: Self::PRIORITY, not_before_unix_ms: None, payload: serde_json::Value::Null }
    }

    /// The name that it will have.
    pub fn id(&self) -> JobId {
        JobId::new(&self.kind, self.recording)
    }
}

/// Why a job is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParkReason {
    /// It failed in a way that no retry cures.
    Permanent,
    /// It failed as often as its kind may.
    Attempts,
    /// It has been failing for as long as its kind may.
    Age,
    /// Someone asked for it.
    Asked,
}

/// Where a job stands. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Waits to be claimed.
    Ready {
        /// Not before this moment.
        at_unix_ms: u64,
    },
    /// Handed out by a claim.
    Running {
        /// When.
        since_unix_ms: u64,
    },
    /// Waits for someone to drive it again.
    Parked {
        /// Why.
        reason: ParkReason,
        /// When.
        since_unix_ms: u64,
    },
    /// Done, and remembered for a while.
    Done {
        /// When.
        at_unix_ms: u64,
    },
}

/// A state without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the variants of State, where they are explained")]
pub enum StateName {
    Ready,
    Running,
    Parked,
    Done,
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Parked => "parked",
            Self::Done => "done",
        })
    }
}

impl State {
    /// Its name.
    pub fn name(&self) -> StateName {
        match self {
            Self::Ready { .. } => StateName::Ready,
            Self::Running { .. } => StateName::Running,
            Self::Parked { .. } => StateName::Parked,
            Self::Done { .. } => StateName::Done,
        }
    }
}

/// A job. Its JSON is what the operator's list shows: the fields below, those of [`State`] among them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What sort of work.
    pub kind: JobKind,
    /// For which recording.
    pub recording: Uuid,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
    /// Smaller goes first.
    pub priority: u8,
    /// When it was enqueued, Unix milliseconds.
    pub created_unix_ms: u64,
    /// How often it was claimed since it was enqueued or last driven again.
    pub attempts: u32,
    /// How often in a row it failed in a way that counts.
    pub failures: u32,
    /// How often in a row the process ended while it ran.
    pub interruptions: u32,
    /// What went wrong last; without personal data, cut to [`ERROR_BYTES_MAX`].
    pub last_error: Option<String>,
    /// As given.
    pub payload: serde_json::Value,
}

/// `text` cut to [`ERROR_BYTES_MAX`], between characters.
pub(crate) fn cut_error(text: &str) -> String {
    text[..text.floor_char_boundary(ERROR_BYTES_MAX)].to_owned()
}

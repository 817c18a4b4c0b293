//! What the daemon answers, and what it is asked.

use std::{fmt, io::Read};

use callvault_access::Caller;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Annotate, AuditQuery, ChangeSettings, DiscardsQuery, Elsewhere, Import, NewToken, SignIn, Snapshot, UserImport,
    WebexCall,
};

/// The answer to a call: JSON, sent as it is.
pub type Answer = Result<Value, ApiError>;

/// The daemon, as the endpoint sees it. Calls come from several threads at once, and may block. Whoever the caller is, what they may do
/// is decided behind this trait.
pub trait Api: Send + Sync + 'static {
    /// How things stand: called about once a second, from a thread of its own. If it takes long, `/health` says so.
    fn snapshot(&self) -> Snapshot;

    /// Whose token that is, and what they may do. `from` is where they speak from, see [`Caller::from`]. Asked for every request whose
    /// token is not the control token, from the threads that also read requests: it has to be quick.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`] for a token that is not one, or no longer; [`ErrorKind::Unavailable`] where it cannot be told.
    fn authenticate(&self, token: &str, from: &str) -> Result<Caller, ApiError>;

    /// `GET /v1/status`: a summary for the operator.
    ///
    /// # Errors
    /// As all calls: the kind decides the status, the message is shown.
    fn status(&self, caller: &Caller) -> Answer;

    /// `GET /v1/calls`: `{"calls": […]}`, the sessions now live.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn calls(&self, caller: &Caller) -> Answer;

    /// `POST /v1/calls/ID/ACTION`: does something about a live call, and answers how it stands then.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::NotFound`] where no such call lives, [`ErrorKind::Conflict`] where its recording was
    /// stopped and something else than a start is asked for.
    fn control_call(&self, caller: &Caller, id: Uuid, action: CallAction) -> Answer;

    /// `GET /v1/recordings`: `{"recordings": […], "next": cursor or null}`.
    ///
    /// # Errors
    /// See [`Api::status`]; a cursor that is not one is [`ErrorKind::BadRequest`].
    fn recordings(&self, caller: &Caller, query: &RecordingsQuery) -> Answer;

    /// `GET /v1/recordings/ID`.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::NotFound`], [`ErrorKind::Gone`].
    fn recording(&self, caller: &Caller, id: Uuid) -> Answer;

    /// `GET /v1/recordings/ID/deliveries`: to whom it is owed, and how far that is.
    ///
    /// # Errors
    /// As [`Api::recording`].
    fn deliveries(&self, caller: &Caller, id: Uuid) -> Answer;

    /// `POST /v1/recordings/ID/deliveries/SINK`: has it delivered there although it was not owed.
    ///
    /// # Errors
    /// As [`Api::recording`]; [`ErrorKind::Unprocessable`] when it cannot be delivered there; [`ErrorKind::Conflict`] when it was.
    fn deliver(&self, caller: &Caller, id: Uuid, sink: &str) -> Answer;

    /// `GET /v1/recordings/ID/waveform`: the peaks of each channel as archiving worked them out, or that there are none yet.
    ///
    /// # Errors
    /// As [`Api::recording`].
    fn waveform(&self, caller: &Caller, id: Uuid) -> Answer;

    /// `GET /v1/recordings/ID/audio`. An error that shows before the first byte is to be returned; one that shows later ends the
    /// reader with an error, and the client notices that the body is incomplete.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::Unprocessable`] where a codec cannot be decoded here.
    fn audio(&self, caller: &Caller, id: Uuid, request: &AudioRequest) -> Result<Audio, ApiError>;

    /// `DELETE /v1/recordings/ID`.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn delete_recording(&self, caller: &Caller, id: Uuid) -> Answer;

    /// `PUT` and `DELETE /v1/recordings/ID/preserve`, `POST /v1/recordings/ID/notes`, `PATCH` and `DELETE /v1/recordings/ID/notes/NOTE`,
    /// `PUT` and `DELETE /v1/recordings/ID/tags/TAG`: changes what people add to a recording, and answers what there is then.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::NotFound`] for a note that is none; [`ErrorKind::Conflict`] where there is no room for more.
    fn annotate(&self, caller: &Caller, id: Uuid, change: &Annotate) -> Answer;

    /// `GET /v1/recordings/ID/verify`, and `GET /v1/verify` for everything: `{"checked": n, "findings": […]}`.
    ///
    /// # Errors
    /// See [`Api::status`]. A finding is no error.
    fn verify(&self, caller: &Caller, id: Option<Uuid>) -> Answer;

    /// `GET /v1/jobs`: `{"jobs": […]}`.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn jobs(&self, caller: &Caller) -> Answer;

    /// `POST /v1/jobs/ID/retry`: drives a job again.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn retry_job(&self, caller: &Caller, id: &str) -> Answer;

    /// `POST /v1/drain`: takes no new calls, lets the live ones end. `DELETE /v1/drain` (not `wanted`): takes calls again.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn drain(&self, caller: &Caller, wanted: bool) -> Answer;

    /// `GET /v1/settings`: `{"settings": […], "refused": …}`, the settings in force, where each was set, and what waits for a restart.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn settings(&self, caller: &Caller) -> Answer;

    /// `PUT /v1/settings`: changes settings, all of them or none, or says only what that would do.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::Unprocessable`] with everything that is wrong; [`ErrorKind::Conflict`] where the settings are not
    /// those that were looked at, or where what a change does has to be confirmed.
    fn change_settings(&self, caller: &Caller, wanted: &ChangeSettings) -> Answer;

    /// `GET /v1/capacity`: how much of what is limited is used, and for how long the disks last.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn capacity(&self, caller: &Caller) -> Answer;

    /// `POST /v1/mail/test?address=…&language=…`: sends a mail that tells of a made-up call, now, and says what the server said.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::Unprocessable`] where it was not taken.
    fn try_mail(&self, caller: &Caller, address: &str, language: Option<&str>) -> Answer;

    /// `GET /v1/keys`: the public keys in use.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn keys(&self, caller: &Caller) -> Answer;

    /// `POST /v1/keys/rotate`: a new key pair for what is recorded from now on.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn rotate_keys(&self, caller: &Caller) -> Answer;

    /// `POST /v1/sign-in`, which the portal alone may ask: `{"session", "seconds"}`, or `{"change": true}` where the password was a first one,
    /// which has to be changed with it.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`] where name and password do not go together, with the same text whatever is wrong;
    /// [`ErrorKind::Unavailable`] while that name has to wait; [`ErrorKind::Unprocessable`] for a new password that is none.
    fn sign_in(&self, caller: &Caller, wanted: &SignIn) -> Answer;

    /// Signing in at the organisation's provider, which the portal alone may ask. `GET /v1/sign-in`: `{"provider"}`, its name or null. `POST
    /// /v1/sign-in/begin`: `{"url", "attempt", "seconds"}`, where to send the browser, and what it has to bring back, for how long.
    /// `POST /v1/sign-in/finish`: as [`Api::sign_in`].
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`] where the provider's word is not taken, or is about nobody here; [`ErrorKind::Unavailable`] where the provider
    /// cannot be asked; [`ErrorKind::NotFound`] where there is none.
    fn sign_in_elsewhere(&self, caller: &Caller, step: &Elsewhere) -> Answer;

    /// `POST /v1/sign-out`: ends the session that the caller came with.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn sign_out(&self, caller: &Caller) -> Answer;

    /// `GET /v1/sessions`: `{"sessions": […]}`, the caller's own.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn sessions(&self, caller: &Caller) -> Answer;

    /// `DELETE /v1/sessions/ID`: ends one of them.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::NotFound`] for one that is not the caller's.
    fn end_session(&self, caller: &Caller, id: Uuid) -> Answer;

    /// `GET /v1/me`: who asks, as it was understood, and what they may.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn me(&self, caller: &Caller) -> Answer;

    /// `GET /v1/users`: `{"users": […]}`.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn users(&self, caller: &Caller) -> Answer;

    /// `GET /v1/users/EMAIL`.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn user(&self, caller: &Caller, email: &str) -> Answer;

    /// `PUT /v1/users/EMAIL`: sets fields of a user, or makes one.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn set_user(&self, caller: &Caller, email: &str, fields: &[(String, String)]) -> Answer;

    /// `DELETE /v1/users/EMAIL`: the user goes, the recordings stay.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn remove_user(&self, caller: &Caller, email: &str) -> Answer;

    /// `GET /v1/users/EMAIL/picture`: `{"type", "bytes", "base64"}`.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::NotFound`] for a user without one.
    fn user_picture(&self, caller: &Caller, email: &str) -> Answer;

    /// `PUT /v1/users/EMAIL/picture`: a picture in base64, a PNG, JPEG or BMP file. `DELETE`: none any more.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::Unprocessable`] for what is none, or is too large.
    fn set_user_picture(&self, caller: &Caller, email: &str, base64: Option<&str>) -> Answer;

    /// `POST /v1/users/import`: users from a file, all of them or none.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::Unprocessable`] with every line that is wrong, [`ErrorKind::Conflict`] where unusually many users
    /// would go.
    fn import_users(&self, caller: &Caller, import: &UserImport) -> Answer;

    /// Everything about Webex: the authorisation, the synchronisation of users, completeness. See [`WebexCall`].
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::Conflict`] where Webex is switched off, or not authorised.
    fn webex(&self, caller: &Caller, wanted: &WebexCall) -> Answer;

    /// Bringing a recording that was made elsewhere, step by step, see [`Import`]. Each answers `{"id"}`, which is the recording's; audio also
    /// `samples`, those of each channel that came, and the last step `duration_ms`.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::Conflict`] where retention would delete it at once, or where a piece is not the next;
    /// [`ErrorKind::Unprocessable`] where it is too long, or empty; [`ErrorKind::Unavailable`] where there is no room, or too many come at once.
    fn import_recording(&self, caller: &Caller, step: &Import) -> Answer;

    /// `GET /v1/discards`: `{"discards": […]}`, calls that were not kept.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn discards(&self, caller: &Caller, query: &DiscardsQuery) -> Answer;

    /// `GET /v1/tokens`: `{"tokens": […]}`.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn tokens(&self, caller: &Caller) -> Answer;

    /// `POST /v1/tokens`: makes a token, and shows it, which is done once.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn create_token(&self, caller: &Caller, token: &NewToken) -> Answer;

    /// `DELETE /v1/tokens/ID`: makes a token worthless.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::NotFound`].
    fn revoke_token(&self, caller: &Caller, id: Uuid) -> Answer;

    /// `GET /v1/audit`: `{"entries": […], "next": cursor or null}`.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn audit(&self, caller: &Caller, query: &AuditQuery) -> Answer;

    /// `GET /v1/audit/verify`: `{"checked": n, "head": …, "findings": […]}`. `head` is one that somebody noted.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::BadRequest`] for a head that is none. A finding is no error.
    fn verify_audit(&self, caller: &Caller, head: Option<&str>) -> Answer;

    /// `POST /v1/recording/stop`: takes no new calls until recording is started again, whatever is restarted meanwhile.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn stop_recording(&self, caller: &Caller, reason: &str) -> Answer;

    /// `POST /v1/recording/start`: takes calls again.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn start_recording(&self, caller: &Caller) -> Answer;

    /// `GET /v1/store`: the stores, what they have, and how far a move is.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn store(&self, caller: &Caller) -> Answer;

    /// `POST /v1/store/migrate`: has new archives go to another folder, and those that there are moved there.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::Unprocessable`] when that folder cannot be a store; [`ErrorKind::Conflict`] when all is there.
    fn migrate_store(&self, caller: &Caller, wanted: &MigrateStore) -> Answer;

    /// `GET /v1/retention`: the rule, what it would delete now, and what it waits to be answered.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn retention(&self, caller: &Caller) -> Answer;

    /// `POST /v1/retention/run`: deletes what is due and needs no answer, now; answers as [`Api::retention`] before that.
    ///
    /// # Errors
    /// See [`Api::status`].
    fn run_retention(&self, caller: &Caller) -> Answer;

    /// `POST /v1/retention/confirm`: the answer to what retention asks, which `token` names.
    ///
    /// # Errors
    /// See [`Api::status`]; [`ErrorKind::Conflict`] when that is not asked (any more).
    fn confirm_retention(&self, caller: &Caller, token: &str) -> Answer;
}

/// Where archives are to be moved.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrateStore {
    /// The folder, a whole path.
    pub to: String,
    /// Most bytes a second; 0, which is usual: as fast as it goes.
    #[serde(default)]
    pub rate_bytes_per_s: u64,
    /// Say only what would be moved.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is done about a live call. All of them are the same done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallAction {
    /// Store nothing for now.
    Pause,
    /// Store again what comes, unless the client has paused too.
    Resume,
    /// End the recording, not the call.
    Stop,
    /// Begin another recording after a stop; keep what is recorded on demand.
    Start,
    /// Keep what is recorded on demand.
    Keep,
}

impl CallAction {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pause, Self::Resume, Self::Stop, Self::Start, Self::Keep];

    /// The word for it in a path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Keep => "keep",
        }
    }
}

/// Which recordings are asked for. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RecordingsQuery {
    /// Started at or after.
    pub from: Option<Timestamp>,
    /// Started before.
    pub to: Option<Timestamp>,
    /// One of `ok`, `degraded`, `failed`, `no-media`, `discarded`.
    pub verdict: Option<String>,
    /// One of `incoming`, `outgoing`, `unknown`.
    pub direction: Option<String>,
    /// One of `internal`, `external`, `unknown`.
    pub traffic: Option<String>,
    /// At least so long.
    pub duration_min_ms: Option<u64>,
    /// At most so long.
    pub duration_max_ms: Option<u64>,
    /// A number of either side.
    pub number: Option<String>,
    /// Which part of a number that is: one of `prefix`, `suffix`, `part`; by default its end, or all of it if it begins with `+`.
    pub number_match: Option<String>,
    /// The owner.
    pub owner: Option<String>,
    /// The group that the owner is in.
    pub group: Option<String>,
    /// All of these tags.
    pub tags: Vec<String>,
    /// A text of a note.
    pub note: Option<String>,
    /// Whether it is preserved.
    pub preserved: Option<bool>,
    /// At most so many, 1 to 1000.
    pub limit: Option<usize>,
    /// What an earlier answer gave as `next`.
    pub cursor: Option<String>,
}

impl fmt::Debug for RecordingsQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingsQuery")
            .field("from", &self.from)
            .field("to", &self.to)
            .field("verdict", &self.verdict)
            .field("direction", &self.direction)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The form in which audio is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioFormat {
    /// RIFF WAVE.
    Wav,
    /// Opus in Ogg.
    Opus,
    /// MP3.
    Mp3,
}

impl AudioFormat {
    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Opus => "audio/ogg; codecs=opus",
            Self::Mp3 => "audio/mpeg",
        }
    }
}

/// Which audio of a recording is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioRequest {
    /// In which form.
    pub format: AudioFormat,
    /// From here, milliseconds from the recording's start; 0 by default.
    pub start_ms: u64,
    /// To here, not included; the recording's end by default. Always after `start_ms`.
    pub end_ms: Option<u64>,
    /// What for.
    pub purpose: AudioPurpose,
}

/// What audio is asked for. Who may hear may not always take away; it is the client's word, and the audit log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioPurpose {
    /// To be heard once.
    Play,
    /// To be kept as a file; what is not said otherwise.
    Download,
}

/// Audio to be sent.
pub struct Audio {
    /// Bytes that `body` will give, if known before.
    pub bytes: Option<u64>,
    /// The bytes. Dropped as soon as the client is gone.
    pub body: Box<dyn Read + Send>,
}

impl fmt::Debug for Audio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audio").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// What kind of error it is: decides status and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400 `bad-request`: the request is wrong; the message says what is allowed.
    BadRequest,
    /// 401 `unauthorized`: no token, or another one.
    Unauthorized,
    /// 403 `forbidden`: known, but not allowed.
    Forbidden,
    /// 404 `not-found`.
    NotFound,
    /// 405 `method-not-allowed`.
    MethodNotAllowed,
    /// 409 `conflict`: not in the state that it is in.
    Conflict,
    /// 410 `gone`: it was deleted.
    Gone,
    /// 422 `unprocessable`: understood, but it cannot be done with this recording.
    Unprocessable,
    /// 500 `internal`: our fault.
    Internal,
    /// 501 `not-implemented`.
    NotImplemented,
    /// 503 `unavailable`: not now; try again.
    Unavailable,
}

impl ErrorKind {
    /// HTTP status and the code in the JSON.
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "bad-request"),
            Self::Unauthorized => (401, "unauthorized"),
            Self::Forbidden => (403, "forbidden"),
            Self::NotFound => (404, "not-found"),
            Self::MethodNotAllowed => (405, "method-not-allowed"),
            Self::Conflict => (409, "conflict"),
            Self::Gone => (410, "gone"),
            Self::Unprocessable => (422, "unprocessable"),
            Self::Internal => (500, "internal"),
            Self::NotImplemented => (501, "not-implemented"),
            Self::Unavailable => (503, "unavailable"),
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Decides the status.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// For [`ErrorKind::MethodNotAllowed`]: the methods that are.
    pub(crate) allow: &'static str,
}

impl ApiError {
    /// An error of that kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), allow: "" }
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        Self { allow, ..Self::new(ErrorKind::MethodNotAllowed, format!("only {allow} is allowed here")) }
    }

    pub(crate) fn json(&self) -> Value {
        error_json(self.kind.status().1, &self.message)
    }
}

pub(crate) fn error_json(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

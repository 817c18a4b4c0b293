//! What the control endpoint answers. Each answer begins with whether the caller may have it.

mod access;
mod annotate;
mod capacity;
mod elsewhere;
mod sign_in;
pub(crate) mod users;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use callvault_access::audit::Entry;
use callvault_access::{Action, Caller, Level, On, Owned, Visible, decide};
use callvault_catalogue::{CatalogueError, Cursor, Deletion, Filter, NumberMatch, Recording};
use callvault_control::{self as control, CallStanding, LiveCall, Refusal};
use callvault_directory::User;
use callvault_http::{
    Annotate, Answer, Api, ApiError, Audio, AudioFormat, AudioPurpose, AudioRequest, AuditQuery, CallAction,
    ChangeSettings, DiscardsQuery, Elsewhere, ErrorKind, Import, MigrateStore, NewToken, RecordingsQuery, SignIn,
    Snapshot, UserImport, WebexCall,
};
use callvault_queue::{Filter as JobFilter, Job, JobId, QueueError, State};
use callvault_render_protocol::RenderError;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::check::{Check, note_damaged};
use crate::deliveries;
use crate::health;
use crate::imports;
use crate::ingest::unix_ms;
use crate::keys;
use crate::log::events;
use crate::mailing;
use crate::playback::{self, Format};
use crate::recorder::Request;
use crate::reload;
use crate::retention;
use crate::row::has_audio;
use crate::settings;
use crate::sound::SoundError;
use crate::waveform;
use crate::webex;

pub(crate) use sign_in::Door;

/// How long the recorder may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Jobs listed at most.
const JOBS_MAX: usize = 1_000;

/// The endpoint's view of the appliance.
pub(crate) struct Control(pub(crate) Arc<Appliance>);

pub(crate) fn internal(error: impl std::fmt::Display) -> ApiError {
    tracing::error!("failed to {error}");
    ApiError::new(ErrorKind::Internal, format!("failed to {error}"))
}

fn not_found(id: Uuid) -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        format!("there is no recording {id}; `callvaultctl recordings list` shows what there is"),
    )
}

/// How a live call is recorded.
fn standing_json(standing: &CallStanding) -> serde_json::Map<String, Value> {
    let paused_by = [(standing.paused_by_client, "client"), (standing.paused_by_control, "control")];
    let paused_by: Vec<&str> = paused_by.into_iter().filter_map(|(is_so, by)| is_so.then_some(by)).collect();
    serde_json::Map::from_iter([
        ("id".to_owned(), json!(standing.recording)),
        ("state".to_owned(), json!(standing.state)),
        ("kept".to_owned(), json!(standing.kept)),
        ("paused_by".to_owned(), json!(paused_by)),
    ])
}

impl Control {
    fn row(&self, id: Uuid) -> Result<Recording, ApiError> {
        match self.0.catalogue.get(id).map_err(internal)? {
            Some(row) => Ok(row),
            None => match self.0.catalogue.tombstone(id).map_err(internal)? {
                Some(stone) => {
                    let text = format!("recording {id} was deleted at {:.0} ({})", stone.deleted_at, stone.rule);
                    Err(ApiError::new(ErrorKind::Gone, text))
                }
                None => Err(not_found(id)),
            },
        }
    }

    /// The recording, if the caller may know that there is one. For a recording that they may not see they get the same answer as for one that
    /// there is not, that was deleted, or that never was; and after the same work, so that the time says nothing either.
    fn seen(&self, caller: &Caller, action: Action, id: Uuid) -> Result<Recording, ApiError> {
        if caller.rank() == Level::Administrator {
            return self.row(id);
        }
        let owner = self.0.catalogue.owner_of(id).map_err(internal)?;
        let settings = self.0.access.permissions();
        let user = owner.flatten().and_then(|owner| self.0.access.people.by_id(owner));
        // A user that the directory does not have any more still owns it, and is in no group.
        let owned = Owned { owner: owner.flatten(), ..Owned::by(user.as_deref()) };
        if decide(caller, Action::Show, On::One(owned), &settings).is_ok() && owner.is_some() {
            return self.row(id);
        }
        self.unseen(&self.0.entry(caller, action).on(id));
        Err(ApiError::new(
            ErrorKind::NotFound,
            "there is no such recording that you may see; ask an administrator whose it is",
        ))
    }

    /// Notes that somebody asked for what they may not know of, whether or not there is such a thing.
    fn unseen(&self, entry: &Entry) {
        self.0.metrics.access_refused.fetch_add(1, Ordering::Relaxed);
        let what_to_do = "ask an administrator whose it is";
        let refusal = callvault_access::Refusal { rule: "unseen", who_may: String::new(), what_to_do };
        // It is refused either way.
        let _ = self.0.audit(&entry.clone().refused(&refusal));
    }

    /// The recording, if the caller may do that with it; `say` adds to the entry in the audit log.
    fn permitted(
        &self,
        caller: &Caller,
        action: Action,
        id: Uuid,
        say: impl FnOnce(Entry) -> Entry,
    ) -> Result<Recording, ApiError> {
        let row = self.seen(caller, action, id)?;
        let entry = say(self.0.entry(caller, action).on(id));
        self.0.owned(&row, |owned| self.0.permit(caller, action, On::One(owned), &entry))?;
        Ok(row)
    }

    /// Whether the caller may do that about a live call. Nothing is written.
    fn may(&self, caller: &Caller, action: Action, call: &LiveCall) -> bool {
        let owner = self.owner_of(call);
        decide(caller, action, On::One(Owned::by(owner.as_deref())), &self.0.access.permissions()).is_ok()
    }

    /// The user whose call it is, as far as it can be told while it lasts.
    fn owner_of(&self, call: &LiveCall) -> Option<Arc<User>> {
        self.0.access.people.by_number(call.local_number.as_deref()?)
    }

    /// Whether the caller may do that about the live call of this recording, and the entry that they did.
    fn permit_call(&self, caller: &Caller, action: CallAction, id: Uuid) -> Result<(), ApiError> {
        let action = match action {
            CallAction::Pause => Action::Pause,
            CallAction::Resume => Action::Resume,
            CallAction::Stop => Action::Stop,
            CallAction::Start => Action::Start,
            CallAction::Keep => Action::Keep,
        };
        let entry = self.0.entry(caller, action).on(id);
        // Administrators may in any case, and whose it is need not be known for that.
        if caller.rank() == Level::Administrator {
            return self.0.permit(caller, action, On::One(Owned::default()), &entry);
        }
        let calls = self.answered(Request::Calls)?;
        let owner = calls.iter().find(|call| call.standing.recording == id).and_then(|call| self.owner_of(call));
        let on = On::One(Owned::by(owner.as_deref()));
        if decide(caller, Action::SeeCalls, on, &self.0.access.permissions()).is_err() {
            self.unseen(&entry);
            return Err(ApiError::new(ErrorKind::NotFound, "there is no such live call that you may see"));
        }
        self.0.permit(caller, action, on, &entry)
    }

    /// The users who are in a group, those that were removed among them; a blank group is nobody's.
    fn users_in(&self, group: &str) -> BTreeSet<Uuid> {
        let group = group.trim();
        let is_in = |user: &&Arc<User>| !group.is_empty() && user.group.trim().eq_ignore_ascii_case(group);
        self.0.access.people.now().all().iter().filter(is_in).map(|user| user.id).collect()
    }

    /// What belongs together with a recording is told only as far as it may be seen.
    fn hide_linked(&self, visible: &Visible, rows: &mut [Recording]) -> Result<(), ApiError> {
        if *visible == Visible::All {
            return Ok(());
        }
        for row in rows {
            let mut seen = Vec::new();
            for id in std::mem::take(&mut row.linked) {
                let owner = self.0.catalogue.get(id).map_err(internal)?.and_then(|other| other.owner_id);
                if visible.has(owner) {
                    seen.push(id);
                }
            }
            row.linked = seen;
        }
        Ok(())
    }

    /// Asks the recorder and waits for what it says.
    fn answered<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        self.ask(question(answer))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(internal)?;
        match runtime.block_on(async { tokio::time::timeout(ANSWER_WITHIN, answered).await }) {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(ApiError::new(ErrorKind::Unavailable, "the recorder did not answer; it may be restarting")),
        }
    }

    fn ask(&self, request: Request) -> Result<(), ApiError> {
        self.0.requests.try_send(request).map_err(|_| {
            ApiError::new(ErrorKind::Unavailable, "the recorder's supervisor is busy or stopping; try again")
        })
    }
}

impl Api for Control {
    fn snapshot(&self) -> Snapshot {
        health::snapshot(&self.0)
    }

    fn authenticate(&self, token: &str, from: &str) -> Result<Caller, ApiError> {
        self.0.authenticate(token, from)
    }

    /// | field | meaning |
    /// |---|---|
    /// | `version` | of callvaultd |
    /// | `health` | as `/health` says it |
    /// | `ready`, `draining` | whether calls are taken, whether they are refused because somebody asked for it |
    /// | `calls` | sessions being recorded now |
    /// | `calls_survive_restart` | whether they go on when the service is restarted |
    /// | `recorder` | `up`, `generation` (UUID or null), `restarts` since the daemon's start, `port_pairs`, `port_pairs_used` |
    /// | `recording` | whether recording is `stopped`, `since` when and for which `reason` |
    /// | `permissions` | `delete`, `download`, `preserve`: who may, in force now |
    /// | `audit` | `entries` in the audit log, and its `head`, to be noted somewhere else |
    /// | `recordings` | `verdicts`: recordings by verdict; `archive`: recordings by state of their archive |
    /// | `jobs` | jobs by `KIND.STATE` |
    /// | `journal_bytes` | bytes of all journal files |
    /// | `spool` | `free_bytes` on the journal's disk; `room_bytes` above `journal.spool_free_min`; `filling_bytes_per_s` in the last hour and `headroom_hours` that leaves, each null where there is no figure |
    /// | `store`, `store_state`, `store_free_bytes` | the store's folder; `ok`, or why it cannot be used; its free bytes, or null where they are not known |
    ///
    /// Fields are only ever added.
    fn status(&self, caller: &Caller) -> Answer {
        self.0.permit_all(caller, Action::Status)?;
        let snapshot = health::snapshot(&self.0);
        let audit = self.0.catalogue.audit_head().map_err(internal)?;
        let counts = self.0.catalogue.counts().map_err(internal)?;
        let mut verdicts: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
        let mut states: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
        for ((verdict, state), count) in counts {
            *verdicts.entry(verdict.as_str()).or_default() += count;
            *states.entry(state.as_str()).or_default() += count;
        }
        let jobs: serde_json::Map<String, Value> =
            self.0.queue.counts().iter().map(|((kind, state), n)| (format!("{kind}.{state}"), json!(n))).collect();
        let recorder = self.0.recorder.borrow().clone();
        let store = self.0.store.condition();
        let headroom = self.0.headroom(&recorder);
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "health": snapshot.health.json(),
            "ready": snapshot.not_ready.is_none(),
            "draining": self.0.access.is_draining(),
            "recording": self.0.recording_state(),
            "permissions": access::permissions_json(&self.0.access.permissions()),
            "audit": {"entries": audit.entries, "head": audit.to_string()},
            "calls": recorder.heartbeat.live,
            "calls_survive_restart": self.0.sockets_stay.load(Ordering::Relaxed),
            "recorder": {
                "up": recorder.up, "generation": recorder.generation, "restarts": recorder.deaths_total,
                "port_pairs": recorder.port_pairs, "port_pairs_used": recorder.heartbeat.port_pairs_used,
            },
            "recordings": {"verdicts": verdicts, "archive": states},
            "jobs": jobs,
            "journal_bytes": self.0.journals.bytes(),
            "spool": {
                "free_bytes": recorder.heartbeat.spool_free_bytes,
                "room_bytes": headroom.map(|h| h.bytes),
                "filling_bytes_per_s": headroom.and_then(|h| h.filling_bytes_per_s),
                "headroom_hours": headroom.and_then(|h| h.lasts).map(|left| left.as_secs() / 3_600),
            },
            "store": self.0.store.path().display().to_string(),
            "store_state": store.state.name(),
            "store_free_bytes": store.free_bytes,
        }))
    }

    fn calls(&self, caller: &Caller) -> Answer {
        self.0.permit_all(caller, Action::SeeCalls)?;
        let calls = self.answered(Request::Calls)?;
        let calls: Vec<Value> = calls
            .iter()
            .filter(|call| self.may(caller, Action::SeeCalls, call))
            .map(|c| {
                let (mut call, owner) = (standing_json(&c.standing), self.owner_of(c));
                call.extend([
                    (
                        "started_at".to_owned(),
                        json!(Timestamp::from_millisecond(c.started_unix_ms).map(|t| format!("{t:.3}")).ok()),
                    ),
                    ("duration_ms".to_owned(), json!(c.duration_ms)),
                    ("local_number".to_owned(), json!(c.local_number)),
                    ("remote_number".to_owned(), json!(c.remote_number)),
                    ("remote_name".to_owned(), json!(c.remote_name)),
                    ("owner".to_owned(), json!(owner.as_ref().map(|user| &user.webex_email))),
                    ("owner_device".to_owned(), json!(owner.as_ref().map(|user| &user.device_name))),
                    ("owner_numeric_id".to_owned(), json!(owner.as_ref().and_then(|user| user.numeric_user_id))),
                    ("direction".to_owned(), json!(c.direction)),
                    ("tracks".to_owned(), json!(c.tracks)),
                    ("packets".to_owned(), json!(c.packets)),
                ]);
                Value::Object(call)
            })
            .collect();
        Ok(json!({"calls": calls}))
    }

    /// Each action answers when it holds: after a pause nothing that arrives is stored, although the packets that arrived before
    /// it may not be in the journal yet.
    fn control_call(&self, caller: &Caller, id: Uuid, action: CallAction) -> Answer {
        let wanted = match action {
            CallAction::Pause => control::CallAction::Pause,
            CallAction::Resume => control::CallAction::Resume,
            CallAction::Stop => control::CallAction::Stop,
            CallAction::Start => control::CallAction::Start,
            CallAction::Keep => control::CallAction::Keep,
        };
        let word = action.as_str();
        self.permit_call(caller, action, id)?;
        let standing = self.answered(|answer| Request::Control(id, wanted, answer))?.map_err(|refusal| {
            let (kind, text) = match refusal {
                Refusal::Unknown => (
                    ErrorKind::NotFound,
                    format!("no live call has the recording {id}; `callvaultctl calls` shows those that there are"),
                ),
                Refusal::Stopped => (
                    ErrorKind::Conflict,
                    format!("the recording of this call was stopped: there is nothing to {word}; start it again first"),
                ),
                Refusal::TooMany => (
                    ErrorKind::Conflict,
                    "this session has had as many recordings as one may have; it cannot be started again".to_owned(),
                ),
            };
            ApiError::new(kind, text)
        })?;
        tracing::info!(recording = %standing.recording, asked = %id, action = word, "a call was controlled: {word}");
        Ok(Value::Object(standing_json(&standing)))
    }

    fn recordings(&self, caller: &Caller, query: &RecordingsQuery) -> Answer {
        let parse =
            |what: &str| ApiError::new(ErrorKind::BadRequest, format!("{what} is not one that this endpoint gave out"));
        let cursor: Option<Cursor> =
            query.cursor.as_deref().map(str::parse).transpose().map_err(|_: CatalogueError| parse("cursor"))?;
        let filter = Filter {
            from: query.from,
            to: query.to,
            verdict: query.verdict.as_deref().map(str::parse).transpose().map_err(|()| parse("verdict"))?,
            direction: query.direction.as_deref().map(str::parse).transpose().map_err(|()| parse("direction"))?,
            traffic: query.traffic.as_deref().map(str::parse).transpose().map_err(|()| parse("traffic"))?,
            duration_min_ms: query.duration_min_ms,
            duration_max_ms: query.duration_max_ms,
            preserved: query.preserved,
            number: query.number.clone(),
            number_match: match query.number_match.as_deref() {
                Some("prefix") => NumberMatch::Prefix,
                Some("suffix") => NumberMatch::Suffix,
                Some("part") => NumberMatch::Part,
                _ => NumberMatch::Usual,
            },
            owner: query.owner.clone(),
            owners: query.group.as_deref().map(|group| self.users_in(group)),
            tags: query.tags.clone(),
            note: query.note.clone(),
            visible: Some(self.0.visible(caller)),
            limit: query.limit,
        };
        let entry = searched(self.0.entry(caller, Action::Search), query);
        self.0.permit(caller, Action::Search, On::Everything, &entry)?;
        let visible = self.0.visible(caller);
        let mut page = self.0.catalogue.list(&filter, cursor).map_err(internal)?;
        note_damaged(&self.0, &page.damaged);
        self.hide_linked(&visible, &mut page.recordings)?;
        let next = page.next.map(|c| c.to_string());
        Ok(json!({"recordings": page.recordings, "next": next, "partial": page.partial}))
    }

    fn recording(&self, caller: &Caller, id: Uuid) -> Answer {
        let mut row = [self.permitted(caller, Action::Show, id, |entry| entry)?];
        self.hide_linked(&self.0.visible(caller), &mut row)?;
        let [row] = row;
        serde_json::to_value(row).map_err(internal)
    }

    fn deliveries(&self, caller: &Caller, id: Uuid) -> Answer {
        self.permitted(caller, Action::Show, id, |entry| entry)?;
        deliveries::of_recording(&self.0, id).map_err(internal)
    }

    fn deliver(&self, caller: &Caller, id: Uuid, sink: &str) -> Answer {
        let entry = self.0.entry(caller, Action::RetryJob).on(id).with("sink", sink);
        self.0.permit(caller, Action::RetryJob, On::Everything, &entry)?;
        let row = self.row(id)?;
        let job = deliveries::ask_for(&self.0, &row, sink)?;
        Ok(json!({"id": id, "sink": sink, "job": job}))
    }

    fn audio(&self, caller: &Caller, id: Uuid, request: &AudioRequest) -> Result<Audio, ApiError> {
        let action = match request.purpose {
            AudioPurpose::Play => Action::Play,
            AudioPurpose::Download => Action::Download,
        };
        let row = self.permitted(caller, action, id, |entry| heard(entry, request))?;
        if !has_audio(&row) {
            let why = row.flaws.first().map_or("there is no audio", |flaw| flaw.text.as_str());
            return Err(ApiError::new(ErrorKind::Unprocessable, format!("there is nothing to play: {why}")));
        }
        let format = match request.format {
            AudioFormat::Wav => Format::Wav,
            AudioFormat::Opus => Format::Opus,
            AudioFormat::Mp3 if request.purpose == AudioPurpose::Play => Format::QuickMp3,
            AudioFormat::Mp3 => Format::Mp3,
        };
        match playback::render(&self.0, &row, format, Some(request.start_ms)..request.end_ms) {
            Ok(rendered) => Ok(Audio { bytes: None, body: Box::new(rendered) }),
            Err(error) => Err(audio_error(id, error)),
        }
    }

    fn waveform(&self, caller: &Caller, id: Uuid) -> Answer {
        self.permitted(caller, Action::Play, id, |entry| entry.with("part", "waveform"))?;
        let kept = self.0.catalogue.waveform(id).map_err(internal)?;
        Ok(waveform::json(kept.as_deref()))
    }

    fn delete_recording(&self, caller: &Caller, id: Uuid) -> Answer {
        let row = self.seen(caller, Action::Delete, id)?;
        let entry = self.0.entry(caller, Action::Delete).on(id);
        self.0.owned(&row, |owned| self.0.allow(caller, Action::Delete, On::One(owned), &entry))?;
        match self.0.catalogue.delete_audited(id, Timestamp::now(), "by hand", Some(&entry)).map_err(internal)? {
            Deletion::Deleted { .. } => {
                retention::let_go(&self.0, id);
                self.0.metrics.deleted_by("by hand");
                tracing::info!(event = events::DELETED, recording = %id, "recording {id} was deleted by hand");
                Ok(json!({"id": id, "deleted": true}))
            }
            Deletion::AlreadyDeleted(stone) => Err(ApiError::new(
                ErrorKind::Gone,
                format!("recording {id} was deleted at {:.0} ({})", stone.deleted_at, stone.rule),
            )),
            Deletion::Unknown | Deletion::Kept => Err(not_found(id)),
        }
    }

    fn annotate(&self, caller: &Caller, id: Uuid, change: &Annotate) -> Answer {
        self.change_annotations(caller, id, change)
    }

    fn verify(&self, caller: &Caller, id: Option<Uuid>) -> Answer {
        let entry = self.0.entry(caller, Action::Verify);
        let entry = id.map_or(entry.clone(), |id| entry.on(id));
        self.0.permit(caller, Action::Verify, On::Everything, &entry)?;
        let mut check = Check::new(&self.0);
        match id {
            Some(id) => check.recording(&self.row(id)?),
            None => check.everything().map_err(internal)?,
        }
        Ok(check.json())
    }

    fn jobs(&self, caller: &Caller) -> Answer {
        self.0.permit_all(caller, Action::Jobs)?;
        let jobs = self.0.queue.list(&JobFilter { limit: Some(JOBS_MAX), ..JobFilter::default() });
        Ok(json!({"jobs": jobs.iter().map(job_json).collect::<Vec<_>>()}))
    }

    fn retry_job(&self, caller: &Caller, id: &str) -> Answer {
        let entry = self.0.entry(caller, Action::RetryJob).with("job", id);
        self.0.permit(caller, Action::RetryJob, On::Everything, &entry)?;
        let id: JobId = id.parse().map_err(|_| {
            ApiError::new(
                ErrorKind::BadRequest,
                "a job's id looks like archive:<recording id>; `callvaultctl jobs list` shows them",
            )
        })?;
        match self.0.queue.retry(&id, unix_ms()) {
            Ok(()) => {
                self.0.work.ring();
                Ok(json!({"id": id.as_str(), "state": "ready"}))
            }
            Err(error @ QueueError::Unknown { .. }) => {
                Err(ApiError::new(ErrorKind::NotFound, format!("failed to {error}")))
            }
            Err(error @ QueueError::WrongState { .. }) => {
                Err(ApiError::new(ErrorKind::Conflict, format!("failed to {error}")))
            }
            Err(error) => Err(internal(error)),
        }
    }

    fn drain(&self, caller: &Caller, wanted: bool) -> Answer {
        let entry = self.0.entry(caller, Action::Drain).with("wanted", wanted.to_string());
        self.0.permit(caller, Action::Drain, On::Everything, &entry)?;
        self.0.access.drain(wanted);
        let live = self.0.recorder.borrow().heartbeat.live;
        if wanted {
            tracing::info!(live, "draining: no new sessions are taken");
        } else {
            tracing::info!(live, "no longer draining: new sessions are taken");
        }
        Ok(json!({"draining": wanted, "calls": live}))
    }

    /// The fields of a setting are listed at `settings.rs`. `refused` says what is wrong with a changed configuration, null where the
    /// files are in force or wait for a restart. `sections` have `name` and `about`; `version` is what a change has to name; `file` is where
    /// changes are written.
    fn settings(&self, caller: &Caller) -> Answer {
        self.0.permit_all(caller, Action::SeeSettings)?;
        let latest = self.0.settings.latest();
        Ok(json!({
            "settings": self.0.settings.json(), "refused": self.0.notes.get(reload::PART),
            "sections": settings::sections(), "version": settings::version(&latest), "file": latest.portal_file(),
        }))
    }

    fn change_settings(&self, caller: &Caller, wanted: &ChangeSettings) -> Answer {
        settings::changing::change(&self.0, caller, wanted)
    }

    fn capacity(&self, caller: &Caller) -> Answer {
        capacity::capacity(&self.0, caller)
    }

    fn try_mail(&self, caller: &Caller, address: &str, language: Option<&str>) -> Answer {
        self.0.permit_all(caller, Action::TryMail)?;
        match mailing::try_out(&self.0, address, language) {
            Ok(accepted) => Ok(json!({"accepted": true, "reply": accepted.reply, "encrypted": accepted.encrypted})),
            Err(text) => Err(ApiError::new(ErrorKind::Unprocessable, format!("failed to {text}"))),
        }
    }

    fn keys(&self, caller: &Caller) -> Answer {
        self.0.permit_all(caller, Action::Keys)?;
        let current = self.0.keyring.public();
        let older: Vec<String> =
            self.0.keyring.ids().filter(|id| *id != current.id()).map(|id| id.to_string()).collect();
        let escrow: Vec<String> = self.0.recipients.iter().skip(1).map(|k| k.id().to_string()).collect();
        Ok(json!({
            "current": {"id": current.id().to_string(), "public": current.to_text()},
            "older": older, "escrow": escrow, "file": self.0.current_key.display().to_string(),
        }))
    }

    fn rotate_keys(&self, caller: &Caller) -> Answer {
        self.0.permit_all(caller, Action::RotateKeys)?;
        let folder = self.0.config.keys_path();
        match keys::rotate(&folder, &self.0.current_key, &mut rand::rng()) {
            Ok(id) => {
                tracing::warn!(key = %id, "a new private key was made; it is used from the next start on. Back up {} now", folder.display());
                Ok(json!({
                    "id": id.to_string(), "file": self.0.current_key.display().to_string(), "restart_needed": true,
                }))
            }
            Err(error) => Err(ApiError::new(ErrorKind::Conflict, format!("failed to {error}"))),
        }
    }

    fn me(&self, caller: &Caller) -> Answer {
        access::me(&self.0, caller)
    }

    fn webex(&self, caller: &Caller, wanted: &WebexCall) -> Answer {
        webex::answer(&self.0, caller, wanted)
    }

    fn discards(&self, caller: &Caller, query: &DiscardsQuery) -> Answer {
        users::discards(&self.0, caller, query)
    }

    fn users(&self, caller: &Caller) -> Answer {
        users::users(&self.0, caller)
    }

    fn user(&self, caller: &Caller, email: &str) -> Answer {
        users::user(&self.0, caller, email)
    }

    fn set_user(&self, caller: &Caller, email: &str, fields: &[(String, String)]) -> Answer {
        users::set(&self.0, caller, email, fields)
    }

    fn remove_user(&self, caller: &Caller, email: &str) -> Answer {
        users::remove(&self.0, caller, email)
    }

    fn import_users(&self, caller: &Caller, import: &UserImport) -> Answer {
        users::import(&self.0, caller, import)
    }

    fn tokens(&self, caller: &Caller) -> Answer {
        access::tokens(&self.0, caller)
    }

    fn create_token(&self, caller: &Caller, token: &NewToken) -> Answer {
        access::create_token(&self.0, caller, token)
    }

    fn sign_in(&self, caller: &Caller, wanted: &SignIn) -> Answer {
        sign_in::sign_in(&self.0, caller, wanted)
    }

    fn sign_in_elsewhere(&self, caller: &Caller, step: &Elsewhere) -> Answer {
        elsewhere::sign_in(&self.0, caller, step)
    }

    fn sign_out(&self, caller: &Caller) -> Answer {
        sign_in::sign_out(&self.0, caller)
    }

    fn sessions(&self, caller: &Caller) -> Answer {
        sign_in::sessions(&self.0, caller)
    }

    fn end_session(&self, caller: &Caller, id: Uuid) -> Answer {
        sign_in::end_session(&self.0, caller, id)
    }

    fn revoke_token(&self, caller: &Caller, id: Uuid) -> Answer {
        access::revoke_token(&self.0, caller, id)
    }

    fn audit(&self, caller: &Caller, query: &AuditQuery) -> Answer {
        access::audit(&self.0, caller, query)
    }

    fn verify_audit(&self, caller: &Caller, head: Option<&str>) -> Answer {
        access::verify_audit(&self.0, caller, head)
    }

    fn stop_recording(&self, caller: &Caller, reason: &str) -> Answer {
        self.0.stop_recording(caller, reason)
    }

    fn start_recording(&self, caller: &Caller) -> Answer {
        self.0.start_recording(caller)
    }

    fn retention(&self, caller: &Caller) -> Answer {
        self.0.retention_plan(caller)
    }

    fn run_retention(&self, caller: &Caller) -> Answer {
        self.0.retention_run(caller)
    }

    fn import_recording(&self, caller: &Caller, step: &Import) -> Answer {
        imports::import(&self.0, caller, step)
    }

    fn user_picture(&self, caller: &Caller, email: &str) -> Answer {
        users::picture(&self.0, caller, email)
    }

    fn set_user_picture(&self, caller: &Caller, email: &str, base64: Option<&str>) -> Answer {
        users::set_picture(&self.0, caller, email, base64)
    }

    fn store(&self, caller: &Caller) -> Answer {
        self.0.store_status(caller)
    }

    fn migrate_store(&self, caller: &Caller, wanted: &MigrateStore) -> Answer {
        self.0.migrate_store(caller, wanted)
    }

    fn confirm_retention(&self, caller: &Caller, token: &str) -> Answer {
        self.0.retention_confirm(caller, token)
    }
}

/// What was looked for.
fn searched(entry: Entry, query: &RecordingsQuery) -> Entry {
    let time = |at: Option<Timestamp>| at.map(|at| format!("{at:.0}"));
    let asked = [
        ("from", time(query.from)),
        ("to", time(query.to)),
        ("verdict", query.verdict.clone()),
        ("direction", query.direction.clone()),
        ("number", query.number.clone()),
        ("owner", query.owner.clone()),
        ("traffic", query.traffic.clone()),
        ("duration_min_ms", query.duration_min_ms.map(|ms| ms.to_string())),
        ("duration_max_ms", query.duration_max_ms.map(|ms| ms.to_string())),
        ("number_match", query.number_match.clone()),
        ("group", query.group.clone()),
        ("tag", (!query.tags.is_empty()).then(|| query.tags.join(","))),
        ("note", query.note.clone()),
        ("preserved", query.preserved.map(|preserved| preserved.to_string())),
    ];
    asked
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .fold(entry, |entry, (name, value)| entry.with(name, value))
}

/// Which audio was asked for.
fn heard(entry: Entry, request: &AudioRequest) -> Entry {
    let format = match request.format {
        AudioFormat::Wav => "wav",
        AudioFormat::Opus => "opus",
        AudioFormat::Mp3 => "mp3",
    };
    let entry = entry.with("format", format);
    let entry = if request.start_ms > 0 { entry.with("start_ms", request.start_ms.to_string()) } else { entry };
    request.end_ms.map_or(entry.clone(), |end_ms| entry.with("end_ms", end_ms.to_string()))
}

/// The answer to a request for audio that cannot be given.
fn audio_error(id: Uuid, error: SoundError) -> ApiError {
    let kind = match &error {
        SoundError::Render(error @ RenderError::Failed { .. }) if error.is_permanent() => ErrorKind::Unprocessable,
        SoundError::NoKey | SoundError::Key(_) => ErrorKind::Unprocessable,
        SoundError::NotReadYet | SoundError::Stopping => ErrorKind::Unavailable,
        error if error.is_away() => ErrorKind::Unavailable,
        SoundError::Deleted => ErrorKind::Gone,
        _ => ErrorKind::Internal,
    };
    if kind == ErrorKind::Internal {
        tracing::error!(recording = %id, "failed to {error}");
    }
    ApiError::new(kind, format!("failed to {error}"))
}

fn job_json(job: &Job) -> Value {
    let (state, next) = match &job.state {
        State::Ready { at_unix_ms } => ("ready", Some(*at_unix_ms)),
        State::Running { .. } => ("running", None),
        State::Parked { .. } => ("parked", None),
        State::Done { .. } => ("done", None),
    };
    let time =
        |ms: u64| i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).map(|t| format!("{t:.3}"));
    json!({
        "id": job.id.as_str(), "kind": job.kind.as_str(), "recording": job.recording, "state": state,
        "attempts": job.attempts, "next_at": next.and_then(time), "last_error": job.last_error,
    })
}

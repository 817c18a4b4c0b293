//! Recordings that were made elsewhere and are brought: they go the way of every other, through the journal.
//!
//! Each is a generation of its own with one file and one lane, sealed from the first piece on, under a name that nobody follows. When all of
//! it is there and on the device, the file gets its name, and the ingest finds a generation that is over. Until then nothing of it is
//! anywhere else: one that breaks off leaves a file that is removed, and whoever brought it brings it again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use callvault_access::{Action, Caller, On, Owned};
use callvault_catalogue::{NOTE_CHARS_MAX, note_text};
use callvault_directory::User;
use callvault_http::{Answer, ApiError, ErrorKind, Import, NewImport, Piece};
use callvault_journal::facts::{
    CallFacts, CodecFacts, Direction, Ended, Flaw, ImportFacts, Party, SessionEvent, SourceFacts, Started, TrackCounts,
    TrackFacts,
};
use callvault_journal::{
    AudioBatch, JournalError, Lane, LaneEnd, Limits, Packet, Pushed, Writer, file_name, parse_file_name,
};
use callvault_render_protocol::OPUS_RATES;
use callvault_seal::{Cipher, DataKey, SealedKey, seal_key};
use jiff::{SignedDuration, Timestamp};
use nix::sys::statvfs::statvfs;
use serde_json::json;
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::files::{TEMPORARY_ENDING, sync_folder};

/// Recordings that are brought at once: each writes beside the calls.
const AT_ONCE: usize = 4;

/// One of which nothing came for so long is given up.
const IDLE: Duration = Duration::from_secs(120);

/// The longest that is taken, in hours.
const HOURS_MAX: u64 = 24;

/// Written to the device at once, so that the journal's own writing never waits long behind it.
const SYNC_BYTES: u64 = 8 << 20;

/// Packets a second.
const PACKETS_PER_SECOND: u32 = 50;

/// Characters of a number, a name or an identifier.
const TEXT_CHARS_MAX: usize = 200;

/// How far in the future a beginning may be, for clocks that are not quite the same.
const FUTURE_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Audio that is shorter than was said by more than this is a part, in milliseconds.
const SHORTER_MS_MAX: u64 = 2_000;

/// How long the answer waits until the recording is in the catalogue; it is safe before.
const INGESTED_WITHIN: Duration = Duration::from_secs(10);

/// What the payloads are called.
const PAYLOAD_TYPE: u8 = 96;

/// Recordings that are coming.
#[derive(Default)]
pub(crate) struct Imports {
    coming: Mutex<BTreeMap<Uuid, Arc<Mutex<Coming>>>>,
}

impl Imports {
    fn of(&self, caller: &Caller, id: Uuid) -> Result<Arc<Mutex<Coming>>, ApiError> {
        let known = self.coming.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        // Somebody else's is not there.
        known.filter(|coming| locked(coming).by == (caller.user, caller.name.clone())).ok_or_else(|| {
            let text =
                format!("nothing is being brought as {id}, or no more, after {} s without a word", IDLE.as_secs());
            ApiError::new(ErrorKind::NotFound, text)
        })
    }

    fn forget(&self, id: Uuid) {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Gives up those of which nothing comes any more.
    pub(crate) fn give_up_idle(&self) {
        let all: Vec<_> = self
            .coming
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(id, one)| (*id, Arc::clone(one)))
            .collect();
        for (id, coming) in all {
            // One that is being written to is not idle.
            if coming.try_lock().is_ok_and(|coming| coming.touched.elapsed() >= IDLE) {
                tracing::info!(recording = %id, "a recording that was being brought is given up: nothing came for {} s", IDLE.as_secs());
                self.forget(id);
            }
        }
    }

    fn enter(&self, coming: Coming) -> Result<(), ApiError> {
        let mut all = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= AT_ONCE {
            let text = format!("{AT_ONCE} recordings are being brought already; try again when one of them is there");
            return Err(ApiError::new(ErrorKind::Unavailable, text));
        }
        all.insert(coming.lane.recording(), Arc::new(Mutex::new(coming)));
        Ok(())
    }
}

fn locked(coming: &Mutex<Coming>) -> std::sync::MutexGuard<'_, Coming> {
    coming.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what an earlier daemon was being brought: nobody brings the rest of it.
///
/// # Errors
/// What the system calls say.
pub(crate) fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = path.file_stem().and_then(OsStr::to_str).is_some_and(|stem| parse_file_name(stem).is_some());
        if is_ours && path.extension().is_some_and(|ending| ending == TEMPORARY_ENDING) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A recording that is coming.
struct Coming {
    /// Who brings it.
    by: (Option<Uuid>, String),
    touched: Instant,
    started_at: Timestamp,
    said_ms: Option<u64>,
    rate_hz: u32,
    channels: u8,
    /// Samples of each channel that came.
    samples: u64,
    /// What is less than a packet.
    rest: Vec<u8>,
    packets: u32,
    bytes: u64,
    batch: AudioBatch,
    writer: Writer,
    lane: Lane,
    cipher: Cipher,
    keys: Vec<SealedKey>,
    file: TemporaryFile,
    folder: PathBuf,
    unsynced: u64,
}

/// A file that is removed unless it gets its name.
struct TemporaryFile {
    file: File,
    path: Option<PathBuf>,
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!("failed to remove {}, which nobody needs: {error}", path.display());
        }
    }
}

/// Why a piece was not taken, after which nothing more of the recording can be.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("write to the journal's folder: {0}")]
    Io(#[from] io::Error),
    #[error("make the journal's file: {0}")]
    Journal(#[from] JournalError),
}

impl From<Broken> for ApiError {
    fn from(error: Broken) -> Self {
        tracing::error!("a recording that was being brought is given up: failed to {error}");
        ApiError::new(ErrorKind::Unavailable, format!("failed to {error}; nothing of it was taken in, bring it again"))
    }
}

impl Coming {
    /// `events` are what is known before the audio.
    fn begin(
        appliance: &Appliance,
        caller: &Caller,
        id: Uuid,
        wanted: &NewImport,
        events: &[SessionEvent],
    ) -> Result<Self, Broken> {
        let folder = appliance.config.journal_path();
        let wall_ns = wall_ns(wanted.started_at);
        // All of it is one file: it is there as a whole or not at all.
        let limits = Limits { file_bytes_max: u64::MAX, file_age_ms_max: u64::MAX, ..Limits::default() };
        let mut writer = Writer::new(Uuid::now_v7(), wall_ns, 0, limits);
        let path = folder.join(file_name(writer.generation(), 0)).with_added_extension(TEMPORARY_ENDING);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let file = TemporaryFile { file, path: Some(path) };
        let lane = writer.open_lane(id, 0)?;
        let key = DataKey::generate(&mut rand::rng());
        let context = lane.key_context();
        let keys: Vec<SealedKey> =
            appliance.recipients.iter().map(|to| seal_key(&mut rand::rng(), to, &key, &context)).collect();
        let cipher = key.cipher();
        for event in events {
            writer.write_facts(lane, &cipher, event)?;
        }
        writer.write_key(lane, &keys)?;
        Ok(Self {
            by: (caller.user, caller.name.clone()),
            touched: Instant::now(),
            started_at: wanted.started_at,
            said_ms: wanted.duration_ms,
            rate_hz: wanted.rate_hz,
            channels: wanted.channels,
            samples: 0,
            rest: Vec::new(),
            packets: 0,
            bytes: 0,
            batch: AudioBatch::new(),
            writer,
            lane,
            cipher,
            keys,
            file,
            folder,
            unsynced: 0,
        })
    }

    /// Bytes of one sample of all channels.
    fn frame_bytes(&self) -> usize {
        2 * usize::from(self.channels)
    }

    fn samples_max(&self) -> u64 {
        HOURS_MAX * 3_600 * u64::from(self.rate_hz)
    }

    /// Takes audio whose length is a whole number of samples.
    fn take(&mut self, pcm: &[u8]) -> Result<(), Broken> {
        self.samples += (pcm.len() / self.frame_bytes()) as u64;
        self.rest.extend_from_slice(pcm);
        let packet_bytes = (self.rate_hz / PACKETS_PER_SECOND) as usize * self.frame_bytes();
        let rest = std::mem::take(&mut self.rest);
        let mut packets = rest.chunks_exact(packet_bytes);
        for frames in &mut packets {
            self.packet(frames)?;
        }
        self.rest.extend_from_slice(packets.remainder());
        self.write()?;
        if self.unsynced >= SYNC_BYTES {
            self.file.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Writes 20 ms, or what is left, of each channel.
    fn packet(&mut self, frames: &[u8]) -> Result<(), Broken> {
        let number = self.packets;
        self.packets += 1;
        for track in 0..self.channels {
            let at = 2 * usize::from(track);
            // RFC 3551 section 4.5.11: in network order.
            let sample = |frame: &[u8]| [frame.get(at + 1).copied().unwrap_or(0), frame.get(at).copied().unwrap_or(0)];
            let payload: Vec<u8> = frames.chunks_exact(self.frame_bytes()).flat_map(sample).collect();
            self.bytes += payload.len() as u64;
            let packet = Packet {
                track,
                source: 0,
                payload_type: PAYLOAD_TYPE,
                marker: number == 0,
                seq: number,
                timestamp: number.wrapping_mul(self.rate_hz / PACKETS_PER_SECOND),
                arrival_ns: u64::from(number) * 1_000_000_000 / u64::from(PACKETS_PER_SECOND),
                payload: &payload,
            };
            if !matches!(self.batch.push(&packet), Pushed::Taken) {
                self.writer.write_audio(self.lane, &self.cipher, &mut self.batch)?;
                // Into an empty batch a packet of 20 ms always goes.
                let _taken = self.batch.push(&packet);
            }
        }
        Ok(())
    }

    /// Writes what has gathered.
    fn write(&mut self) -> Result<(), Broken> {
        let batch = self.writer.take();
        self.file.file.write_all(&batch.bytes)?;
        self.unsynced += batch.bytes.len() as u64;
        self.writer.recycle(batch.bytes);
        Ok(())
    }

    fn length_ns(&self) -> u64 {
        let ns = u128::from(self.samples) * 1_000_000_000 / u128::from(self.rate_hz);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// Writes its end, and gives it its name: from here on it is a recording. Gives its length in milliseconds.
    fn finish(&mut self) -> Result<u64, Broken> {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.packet(&rest)?;
        }
        self.writer.write_audio(self.lane, &self.cipher, &mut self.batch)?;
        let (at_ns, packets, bytes) = (self.length_ns(), self.packets.into(), self.bytes / u64::from(self.channels));
        let length_ms = at_ns / 1_000_000;
        if let Some(said_ms) = self.said_ms.filter(|said_ms| length_ms.saturating_add(SHORTER_MS_MAX) < *said_ms) {
            let text = format!(
                "{} s of audio were brought of a recording that is said to be {} s long",
                length_ms / 1_000,
                said_ms / 1_000
            );
            let flaw = SessionEvent::Flaw(Flaw { code: "import-shorter".to_owned(), text });
            self.writer.write_facts(self.lane, &self.cipher, &flaw)?;
        }
        let tracks =
            (0..self.channels).map(|track| TrackCounts { track, packets, bytes, sources: 1, ..TrackCounts::default() });
        let ended = Ended {
            wall_ns: wall_ns(self.started_at).saturating_add(i64::try_from(at_ns).unwrap_or(i64::MAX)),
            at_ns,
            reason: "imported".to_owned(),
            tracks: tracks.collect(),
        };
        self.writer.write_facts(self.lane, &self.cipher, &SessionEvent::Ended(ended))?;
        self.writer.end_lane(self.lane, LaneEnd::Ended, &self.keys)?;
        let last = self.writer.finish();
        self.file.file.write_all(&last.bytes)?;
        self.file.file.sync_all()?;
        if let Some(path) = &self.file.path {
            fs::rename(path, self.folder.join(file_name(self.writer.generation(), 0)))?;
        }
        self.file.path = None;
        sync_folder(&self.folder)?;
        Ok(length_ms)
    }
}

fn wall_ns(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, text.into())
}

/// What is asked about bringing a recording.
pub(crate) fn import(appliance: &Appliance, caller: &Caller, step: &Import) -> Answer {
    let imports = &appliance.imports;
    match step {
        Import::Begin(wanted) => begin(appliance, caller, wanted),
        Import::Audio(id, piece) => {
            allow(appliance, caller)?;
            let coming = imports.of(caller, *id)?;
            take(appliance, *id, &coming, piece)
        }
        Import::Finish(id, whole) => {
            allow(appliance, caller)?;
            finish(appliance, caller, *id, whole.samples)
        }
        Import::GiveUp(id) => {
            allow(appliance, caller)?;
            imports.of(caller, *id)?;
            imports.forget(*id);
            Ok(json!({"id": id}))
        }
    }
}

fn allow(appliance: &Appliance, caller: &Caller) -> Result<(), ApiError> {
    let action = Action::ImportRecording;
    appliance.allow(caller, action, On::Everything, &appliance.entry(caller, action))
}

fn begin(appliance: &Appliance, caller: &Caller, wanted: &NewImport) -> Answer {
    allow(appliance, caller)?;
    let now = Timestamp::now();
    let events = facts(appliance, caller, wanted, now)?;
    let length = SignedDuration::from_millis(i64::try_from(wanted.duration_ms.unwrap_or(0)).unwrap_or(i64::MAX));
    let ended_at = wanted.started_at.saturating_add(length).unwrap_or(Timestamp::MAX);
    let due_at = appliance.retention.due_at(ended_at, wanted.is_preserved);
    if due_at.is_some_and(|at| at <= now) {
        let text = "a recording of that day is older than retention keeps any; it would be deleted at once";
        return Err(ApiError::new(ErrorKind::Conflict, text));
    }
    appliance.imports.give_up_idle();
    check_room(appliance, 0)?;
    // As those of calls: it says when it was.
    let ns = wanted.started_at.as_nanosecond();
    let seconds = u64::try_from(ns / 1_000_000_000).unwrap_or(0);
    let nanos = u32::try_from(ns % 1_000_000_000).unwrap_or(0);
    let id = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos));
    appliance.imports.enter(Coming::begin(appliance, caller, id, wanted, &events)?)?;
    Ok(json!({"id": id}))
}

fn take(appliance: &Appliance, id: Uuid, coming: &Mutex<Coming>, piece: &Piece) -> Answer {
    check_room(appliance, piece.pcm.len() as u64)?;
    let mut coming = locked(coming);
    coming.touched = Instant::now();
    let came = (piece.pcm.len() / coming.frame_bytes()) as u64;
    if !piece.pcm.len().is_multiple_of(coming.frame_bytes()) {
        return Err(bad(format!("\"pcm\" is to be whole samples of {} bytes", coming.frame_bytes())));
    }
    if piece.at_samples != coming.samples {
        let text =
            format!("{} samples of each channel came, and this piece begins at {}", coming.samples, piece.at_samples);
        return Err(ApiError::new(ErrorKind::Conflict, text));
    }
    if coming.samples.saturating_add(came) > coming.samples_max() {
        let text = format!("a recording may be {HOURS_MAX} hours long; bring it in parts");
        return Err(ApiError::new(ErrorKind::Unprocessable, text));
    }
    if let Err(error) = coming.take(&piece.pcm) {
        appliance.imports.forget(id);
        return Err(error.into());
    }
    Ok(json!({"id": id, "samples": coming.samples}))
}

fn finish(appliance: &Appliance, caller: &Caller, id: Uuid, samples: u64) -> Answer {
    let coming = appliance.imports.of(caller, id)?;
    let length_ms = {
        let mut coming = locked(&coming);
        coming.touched = Instant::now();
        if samples != coming.samples {
            let text = format!("{} samples of each channel came, and {samples} are said to be all", coming.samples);
            return Err(ApiError::new(ErrorKind::Conflict, text));
        }
        if samples == 0 {
            return Err(ApiError::new(ErrorKind::Unprocessable, "there is no audio in it"));
        }
        // Before it is there: what the log does not have is not done.
        appliance.audit(&appliance.entry(caller, Action::ImportRecording).on(id))?;
        appliance.imports.forget(id);
        coming.finish()?
    };
    let _ = appliance.wake_ingest.try_send(());
    let until = Instant::now() + INGESTED_WITHIN;
    while Instant::now() < until && appliance.catalogue.get(id).is_ok_and(|row| row.is_none()) {
        thread::sleep(Duration::from_millis(20));
    }
    tracing::info!(recording = %id, "a recording that was made elsewhere was taken in");
    Ok(json!({"id": id, "duration_ms": length_ms}))
}

/// That the journal's disk has room beside what calls need.
fn check_room(appliance: &Appliance, more: u64) -> Result<(), ApiError> {
    let folder = appliance.config.journal_path();
    let disk =
        statvfs(&folder).map_err(|error| super::api::internal(format!("look at {}: {error}", folder.display())))?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    if free < appliance.config.journal.spool_free_min.0.saturating_add(more) {
        let text = "the journal's disk has only the room that calls need (journal.spool_free_min); bring it when there is more";
        return Err(ApiError::new(ErrorKind::Unavailable, text));
    }
    Ok(())
}

/// What is known of it before its audio, as a recorder would have written it.
fn facts(
    appliance: &Appliance,
    caller: &Caller,
    wanted: &NewImport,
    now: Timestamp,
) -> Result<Vec<SessionEvent>, ApiError> {
    if !OPUS_RATES.contains(&wanted.rate_hz) {
        return Err(bad(format!("\"rate_hz\" is to be one of {OPUS_RATES:?}")));
    }
    if !(1..=2).contains(&wanted.channels) {
        return Err(bad("\"channels\" is to be 1 or 2"));
    }
    if wanted.started_at.as_second() < 0 || wanted.started_at > now.saturating_add(FUTURE_MAX).unwrap_or(Timestamp::MAX)
    {
        return Err(bad("\"started_at\" is in the future, or before 1970"));
    }
    let direction = match wanted.direction.as_deref() {
        Some("incoming") => Direction::Incoming,
        Some("outgoing") => Direction::Outgoing,
        None | Some("unknown") => Direction::Unknown,
        Some(_) => return Err(bad("\"direction\" is to be incoming, outgoing or unknown")),
    };
    let note = match wanted.note.as_deref().filter(|text| !text.trim().is_empty()) {
        Some(text) => Some(
            note_text(text).ok_or_else(|| bad(format!("\"note\" is a note of 1 to {NOTE_CHARS_MAX} characters")))?,
        ),
        None => None,
    };
    // Where everything is kept there is no such mark.
    let preserved = wanted.is_preserved && appliance.retention.allows_preserving();
    if preserved {
        let action = Action::Preserve;
        appliance.allow(caller, action, On::One(Owned::default()), &appliance.entry(caller, action))?;
    }
    let owner = text("owner", &wanted.owner)?.map(|name| owner(appliance, &name)).transpose()?;
    let call = CallFacts {
        shape: "import".to_owned(),
        direction,
        local: Party {
            number: text("local_number", &wanted.local_number)?,
            name: text("local_name", &wanted.local_name)?,
            labels: vec!["1".to_owned()],
            ..Party::default()
        },
        remotes: vec![Party {
            number: text("remote_number", &wanted.remote_number)?,
            name: text("remote_name", &wanted.remote_name)?,
            labels: vec!["2".to_owned()],
            ..Party::default()
        }],
        call_id: text("call_id", &wanted.call_id)?,
        ..CallFacts::default()
    };
    let import = ImportFacts {
        wall_ns: wall_ns(now),
        by_user: caller.user,
        by_name: caller.name.clone(),
        by_level: caller.rank().as_str().to_owned(),
        owner: owner.map(|user| user.webex_email.clone()),
        note_id: note.as_ref().map(|_| Uuid::now_v7()),
        note,
        preserved,
    };
    let started = Started { wall_ns: wall_ns(wanted.started_at), transport: "import".to_owned(), ..Started::default() };
    let codec = CodecFacts {
        payload_type: PAYLOAD_TYPE,
        encoding: "L16".to_owned(),
        clock_rate: wanted.rate_hz,
        channels: 1,
        fmtp: None,
    };
    let tracks = (0..wanted.channels).flat_map(|track| {
        let (is_mixed, codecs) = (wanted.channels == 1, vec![codec.clone()]);
        let label = (track + 1).to_string();
        let facts = TrackFacts { track, label, local: track == 0 && !is_mixed, mixed: is_mixed, codecs };
        let source = SourceFacts { track, ssrc: u32::from(track) + 1, ..SourceFacts::default() };
        [SessionEvent::Track(facts), SessionEvent::Source(source)]
    });
    let mut events = vec![
        SessionEvent::Started(started),
        SessionEvent::Imported(Box::new(import)),
        SessionEvent::Call(Box::new(call)),
    ];
    events.extend(tracks);
    Ok(events)
}

/// A text that is fit to be kept; empty is none.
fn text(name: &str, text: &Option<String>) -> Result<Option<String>, ApiError> {
    let Some(text) = text.as_deref().map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.chars().count() > TEXT_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(bad(format!("\"{name}\" is a text of at most {TEXT_CHARS_MAX} characters on one line")));
    }
    Ok(Some(text.to_owned()))
}

/// The user of that e-mail, or of one that is so before its `@`.
fn owner(appliance: &Appliance, name: &str) -> Result<Arc<User>, ApiError> {
    let directory = appliance.access.people.now();
    if let Some(user) = directory.by_email(name) {
        return Ok(Arc::clone(user));
    }
    let is_named = |user: &User| {
        let local = user.webex_email.split_once('@').map_or("", |(local, _)| local);
        user.removed_at.is_none() && local.eq_ignore_ascii_case(name)
    };
    let mut named = directory.all().iter().filter(|user| is_named(user));
    match (named.next(), named.next()) {
        (Some(user), None) => Ok(Arc::clone(user)),
        (None, _) => {
            Err(bad("\"owner\" is nobody here; add that user first, or leave it out and the number tells whose it is"))
        }
        (Some(_), Some(_)) => {
            Err(bad("\"owner\" is what several users are called before the @; give the whole e-mail"))
        }
    }
}

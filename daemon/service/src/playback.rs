//! Playing and exporting: one recording, whole or a stretch, as WAV, Ogg Opus or MP3, from the archive, or from the journal while
//! there is no archive yet. What is rendered streams through; nothing holds a whole call. A recording that moves from one to the
//! other meanwhile is played on from where it was begun: what is being read stays until it has been read.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TrySendError, channel, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use callvault_archive::{ArchiveTrack, KeysFound, Reader, key_context};
use callvault_catalogue::{ArchivePlace, Catalogue, Recording};
use callvault_policy::overload::Rank;
use callvault_render_protocol::{
    FromRender, Job, Limits, Output, POST_ROLL_TICKS, PRE_ROLL_TICKS, Packet, TONE_TICKS_MAX, TrackSpec,
};
use callvault_seal::{DataKey, Keyring};
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::overload;
use crate::sound::{Reading, SoundError, archive_packets, codec_spec, open_lanes};
use crate::store::{StoreError, StoreFile};
use crate::warm::Warm;

/// Rendered blocks that may wait for a slow listener.
const BLOCKS_MAX: usize = 32;

/// Bits per second of each channel of an Ogg Opus export: transparent for speech.
const EXPORT_OPUS_BIT_RATE: u32 = 32_000;

/// How long somebody waits for a turn before he goes on without one.
const TURN_WAIT: Duration = Duration::from_secs(1);

/// How long a thread that has played waits for more, and how many do at most: a render process each, of some megabytes.
const IDLE: Duration = Duration::from_secs(30);
const IDLE_MAX: usize = 8;

/// Read from the store at once, in bytes: chunks of an archive are read one after the other.
const READ_BYTES: usize = 64 * 1024;

/// What a recording can be exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Wav,
    Opus,
    Mp3,
    /// For somebody who waits: half the work.
    QuickMp3,
}

impl Format {
    fn output(self) -> Output {
        match self {
            Self::Wav => Output::Wav,
            Self::Opus => Output::OggOpus { bit_rate: EXPORT_OPUS_BIT_RATE, complexity: 9 },
            Self::Mp3 => Output::Mp3 { bit_rate_kbps: 0, quick: false },
            Self::QuickMp3 => Output::Mp3 { bit_rate_kbps: 0, quick: true },
        }
    }
}

/// Rendered bytes as they come. Reading gives an error when the rendering broke off.
pub(crate) struct Rendered {
    blocks: Receiver<Result<Vec<u8>, String>>,
    block: Vec<u8>,
    at: usize,
    /// Why there is no more than was read already.
    failed: Option<String>,
}

impl Read for Rendered {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.block.len() {
            if let Some(text) = self.failed.take() {
                return Err(io::Error::other(text));
            }
            match self.blocks.recv() {
                Ok(Ok(block)) => (self.block, self.at) = (block, 0),
                Ok(Err(text)) => return Err(io::Error::other(text)),
                Err(_) => return Ok(0),
            }
        }
        // What has come already goes along.
        let mut filled = 0;
        loop {
            let (rest, room) = (&self.block[self.at..], &mut buf[filled..]);
            let count = rest.len().min(room.len());
            room[..count].copy_from_slice(&rest[..count]);
            (self.at, filled) = (self.at + count, filled + count);
            if filled == buf.len() || self.failed.is_some() {
                return Ok(filled);
            }
            match self.blocks.try_recv() {
                Ok(Ok(block)) => (self.block, self.at) = (block, 0),
                Ok(Err(text)) => self.failed = Some(text),
                Err(_) => return Ok(filled),
            }
        }
    }
}

/// What a thread that plays is given to do.
type Task = Box<dyn FnOnce(&mut Warm) + Send>;

/// The threads that have played and wait for more, the last one that came last. Those that play are as many as there are listeners.
#[derive(Default)]
pub(crate) struct Players(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    ended: bool,
    last: u64,
    idle: Vec<(u64, Sender<Task>)>,
}

impl std::fmt::Debug for Players {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Players").field(&self.lock().idle.len()).finish()
    }
}

impl Players {
    /// Has `task` done by a thread that waits, or by a new one.
    fn give(players: &Arc<Self>, mut task: Task) -> io::Result<()> {
        loop {
            let waiting = players.lock().idle.pop();
            let Some((_, to)) = waiting else { break };
            match to.send(task) {
                Ok(()) => return Ok(()),
                // It gave up waiting just now.
                Err(back) => task = back.0,
            }
        }
        let players = Arc::clone(players);
        thread::Builder::new().name("playback".into()).spawn(move || {
            overload::give_way(Rank::Playing);
            let mut renderer = Warm::default();
            let mut next = Some(task);
            while let Some(task) = next {
                task(&mut renderer);
                next = players.await_next();
            }
        })?;
        Ok(())
    }

    /// The next task, if one comes soon and not many wait already.
    fn await_next(&self) -> Option<Task> {
        let (to, tasks) = channel();
        let number = {
            let mut waiting = self.lock();
            if waiting.ended || waiting.idle.len() >= IDLE_MAX {
                return None;
            }
            waiting.last = waiting.last.wrapping_add(1);
            let number = waiting.last;
            waiting.idle.push((number, to));
            number
        };
        tasks.recv_timeout(IDLE).ok().or_else(|| {
            self.lock().idle.retain(|(other, _)| *other != number);
            // One may have been sent between the two.
            tasks.try_recv().ok()
        })
    }

    /// Nobody waits any more.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        waiting.idle.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many render at once as there are processors; the others wait for their turn, the longest first. Dozens at once would all be late, and
/// take the processors from those who search.
#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<Queue>,
    given: Condvar,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    /// The numbers of those who wait, and the one that the next gets.
    waiting: VecDeque<u64>,
    next: u64,
}

/// A turn, or none.
struct Turn(Option<Arc<Turns>>);

impl Default for Turns {
    fn default() -> Self {
        let free = thread::available_parallelism().map_or(1, usize::from);
        let state = Mutex::new(Queue { free, waiting: VecDeque::new(), next: 0 });
        Self { state, given: Condvar::new() }
    }
}

impl Turns {
    /// Waits for a turn, and not for long: what is read from a share that hangs keeps its turn, and must not keep all others waiting.
    fn take(turns: &Arc<Self>) -> Turn {
        let mut state = turns.lock();
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.waiting.push_back(number);
        let is_next = |state: &Queue| state.free > 0 && state.waiting.front() == Some(&number);
        let waited = turns.given.wait_timeout_while(state, TURN_WAIT, |state| !is_next(state));
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let turn = is_next(&state);
        state.waiting.retain(|other| *other != number);
        state.free -= usize::from(turn);
        drop(state);
        turns.given.notify_all();
        Turn(turn.then(|| Arc::clone(turns)))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn give_back(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.lock().free += 1;
            turns.given.notify_all();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Renders a recording. Returns when the first bytes are there, so that what cannot be rendered at all is an error and not a file.
pub(crate) fn render(
    appliance: &Arc<Appliance>,
    row: &Recording,
    format: Format,
    ms: Range<Option<u64>>,
) -> Result<Rendered, SoundError> {
    let (to, blocks) = sync_channel(BLOCKS_MAX);
    let (own, row) = (Arc::clone(appliance), row.clone());
    let (first_to, first) = sync_channel(1);
    // Before there is a thread and a process for it.
    let mut turn = Turns::take(&appliance.turns);
    let play = move |renderer: &mut Warm| {
        let mut begun = false;
        let _being_played = own.retention.playing.begin(row.id);
        let result = run(&own, renderer, &row, format, ms, |data| {
            if !begun {
                begun = true;
                let _ = first_to.send(Ok(()));
            }
            let sent = to.try_send(Ok(data));
            let Err(TrySendError::Full(data)) = sent else {
                return sent.map_err(|_| SoundError::ListenerGone);
            };
            // Whoever waits for his listener lets others go on.
            turn.give_back();
            let sent = to.send(data);
            turn = Turns::take(&own.turns);
            sent.map_err(|_| SoundError::ListenerGone)
        });
        match result {
            Err(SoundError::ListenerGone) => tracing::debug!(recording = %row.id, "the listener left"),
            Err(error) if begun => {
                tracing::warn!(recording = %row.id, "failed to {error}");
                let _ = to.send(Err(error.to_string()));
            }
            Err(error) => drop(first_to.send(Err(error))),
            Ok(()) => drop(first_to.send(Ok(()))),
        }
    };
    Players::give(&appliance.players, Box::new(play))?;
    first.recv().unwrap_or_else(|_| Err(io::Error::other("the renderer broke off").into()))?;
    Ok(Rendered { blocks, block: Vec::new(), at: 0, failed: None })
}

fn run(
    appliance: &Appliance,
    renderer: &mut Warm,
    row: &Recording,
    format: Format,
    ms: Range<Option<u64>>,
    mut each: impl FnMut(Vec<u8>) -> Result<(), SoundError>,
) -> Result<(), SoundError> {
    let mut on_output = |output| match output {
        FromRender::Data(data) => each(data),
        FromRender::Undecodable { encoding, text, .. } => {
            tracing::warn!(recording = %row.id, encoding, "a track is silent in the export: {text}");
            Ok(())
        }
        _ => Ok(()),
    };
    // Between the caller's look at the row and ours the archive may have been made, and the journal released.
    let pinned = appliance.journals.pin(row.id);
    let row = if row.archive.place().is_none() && pinned.is_empty() {
        appliance.catalogue.get(row.id)?.ok_or(SoundError::Deleted)?
    } else {
        row.clone()
    };
    let mut play = |job: &Job, packets: &mut (dyn Iterator<Item = Result<Packet, SoundError>> + Send)| {
        renderer.run(appliance, Limits::default().job_max, |r| r.run(job, packets, &mut on_output)).map(drop)
    };
    if let Some(place) = row.archive.place() {
        drop(pinned);
        let file = stored(appliance, row.id, place)?;
        let mut archive =
            open_archive(io::BufReader::with_capacity(READ_BYTES, file), &appliance.keyring, &appliance.catalogue)?;
        let facts = archive.facts()?;
        let job = job(appliance, &facts.tracks, facts.total_ticks, format, &ms);
        return play(&job, &mut needed(&job, archive_packets(&mut archive, stretch(&job))));
    }
    appliance.check_read(&pinned)?;
    let lanes = open_lanes(&pinned, &appliance.keyring)?;
    let reading = Reading::of_journal(&pinned.folder, &lanes)?;
    let job = job(appliance, &reading.tracks, reading.total_ticks, format, &ms);
    play(&job, &mut needed(&job, reading.packets(&pinned.folder, &lanes, stretch(&job))?))
}

/// Opens an archive where it is. Between a look at the row and this one it may have been moved to another store.
fn stored(appliance: &Appliance, id: Uuid, mut place: ArchivePlace) -> Result<StoreFile, SoundError> {
    loop {
        let opened = appliance.store.of(&place.store).and_then(|store| store.get(Path::new(&place.path)));
        match opened {
            Err(error) if error.is_not_found() => match appliance.catalogue.archive_place(id)? {
                Some(now) if now != place => place = now,
                _ => return Err(missing(appliance, id, error)),
            },
            opened => return Ok(opened?),
        }
    }
}

/// An archive that is missing may be so because the recording was deleted.
fn missing(appliance: &Appliance, id: Uuid, error: StoreError) -> SoundError {
    match appliance.catalogue.tombstone(id) {
        Ok(Some(_)) if error.is_not_found() => SoundError::Deleted,
        _ => error.into(),
    }
}

/// Opens an archive with one of the ring's keys. The sealed key is in the archive, or in the catalogue.
pub(crate) fn open_archive<R: Read + io::Seek>(
    input: R,
    keyring: &Keyring,
    catalogue: &Catalogue,
) -> Result<callvault_archive::Unlocked<R>, SoundError> {
    let reader = Reader::open(input)?;
    let key = archive_key(&reader, keyring, catalogue)?;
    Ok(reader.unlock(&key)?)
}

/// The key of an archive.
pub(crate) fn archive_key<R: Read + io::Seek>(
    reader: &Reader<R>,
    keyring: &Keyring,
    catalogue: &Catalogue,
) -> Result<DataKey, SoundError> {
    let id = reader.header().recording;
    let kept_here;
    let sealed = match reader.keys() {
        KeysFound::InFile(sealed) => sealed,
        KeysFound::Elsewhere => {
            kept_here = catalogue.archive_keys(id)?;
            &kept_here
        }
        KeysFound::Erased => return Err(SoundError::NoKey),
    };
    if sealed.is_empty() {
        return Err(SoundError::NoKey);
    }
    Ok(keyring.open(sealed, &key_context(&id))?)
}

/// From where to where packets may be needed.
fn stretch(job: &Job) -> Range<u64> {
    let roll = if job.mask_tones { TONE_TICKS_MAX } else { PRE_ROLL_TICKS };
    job.start_ticks.saturating_sub(roll)..job.end_ticks.saturating_add(POST_ROLL_TICKS)
}

/// The packets that are needed: what lies long before the beginning matters only when it is an event, which may last until then.
fn needed<'a>(
    job: &'a Job,
    packets: impl Iterator<Item = Result<Packet, SoundError>> + Send + 'a,
) -> impl Iterator<Item = Result<Packet, SoundError>> + Send + 'a {
    let from = job.start_ticks.saturating_sub(PRE_ROLL_TICKS);
    let is_event = |packet: &Packet| {
        let codec = job.tracks.get(usize::from(packet.track)).and_then(|t| t.codecs.get(usize::from(packet.codec)));
        codec.is_some_and(|codec| codec.codec.encoding().eq_ignore_ascii_case("telephone-event"))
    };
    packets.filter(move |packet| packet.as_ref().map_or(true, |packet| packet.position >= from || is_event(packet)))
}

/// The channel of each track: the recorded user on the left, the others on the right; one track alone is mono.
pub(crate) fn channels(tracks: &[ArchiveTrack]) -> Vec<u8> {
    let any_local = tracks.iter().any(|track| track.local);
    let channel = |(place, track): (usize, &ArchiveTrack)| {
        // Where nothing says which one is the recorded user's, the first is taken for it.
        let is_left = if any_local { track.local } else { place == 0 };
        u8::from(tracks.len() > 1 && !is_left)
    };
    tracks.iter().enumerate().map(channel).collect()
}

fn job(
    appliance: &Appliance,
    tracks: &[ArchiveTrack],
    total_ticks: u64,
    format: Format,
    ms: &Range<Option<u64>>,
) -> Job {
    let places = channels(tracks);
    let specs = tracks
        .iter()
        .zip(&places)
        .map(|(track, channel)| TrackSpec { codecs: track.codecs.iter().map(codec_spec).collect(), channel: *channel });
    let ticks = |ms: u64| ms.saturating_mul(48).min(total_ticks);
    let start_ticks = ms.start.map_or(0, ticks);
    Job {
        output: format.output(),
        tracks: specs.collect(),
        channels: if tracks.len() > 1 { 2 } else { 1 },
        start_ticks,
        end_ticks: ms.end.map_or(total_ticks, ticks).max(start_ticks),
        mask_tones: appliance.settings().render.mask_tones,
        measured: Vec::new(),
        ffmpeg: ffmpeg(appliance),
    }
}

/// The program that decodes rare codecs, where it is installed.
pub(crate) fn ffmpeg(appliance: &Appliance) -> Option<String> {
    let path = &appliance.settings().render.ffmpeg;
    if path.is_file() { path.to_str().map(str::to_owned) } else { None }
}

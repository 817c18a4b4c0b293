//! Playing and exporting: one recording, whole or a stretch, as WAV, Ogg Opus or MP3, from the archive, or from the journal while
//! there is no archive yet. What is rendered streams through; nothing holds a whole call. A recording that moves from one to the
//! other meanwhile is played on from where it was begun: what is being read stays until it has been read.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

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
const BLOCKS_MAX: usize = 8;

/// Bits per second of each channel of an Ogg Opus export: transparent for speech.
const EXPORT_OPUS_BIT_RATE: u32 = 32_000;

/// Read from the store at once, in bytes: chunks of an archive are read one after the other.
const READ_BYTES: usize = 64 * 1024;

/// What a recording can be exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Wav,
    Opus,
    Mp3,
}

impl Format {
    fn output(self) -> Output {
        match self {
            Self::Wav => Output::Wav,
            Self::Opus => Output::OggOpus { bit_rate: EXPORT_OPUS_BIT_RATE, complexity: 9 },
            Self::Mp3 => Output::Mp3 { bit_rate_kbps: 0 },
        }
    }
}

/// Rendered bytes as they come. Reading gives an error when the rendering broke off.
pub(crate) struct Rendered {
    blocks: Receiver<Result<Vec<u8>, String>>,
    block: Vec<u8>,
    at: usize,
}

impl Read for Rendered {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.block.len() {
            match self.blocks.recv() {
                Ok(Ok(block)) => (self.block, self.at) = (block, 0),
                Ok(Err(text)) => return Err(io::Error::other(text)),
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.block[self.at..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
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
    let (appliance, row) = (Arc::clone(appliance), row.clone());
    let (first_to, first) = sync_channel(1);
    thread::Builder::new().name("playback".into()).spawn(move || {
        overload::give_way(Rank::Archive);
        let mut renderer = Warm::default();
        let mut begun = false;
        let _being_played = appliance.retention.playing.begin(row.id);
        let result = run(&appliance, &mut renderer, &row, format, ms, |data| {
            if !begun {
                begun = true;
                let _ = first_to.send(Ok(()));
            }
            to.send(Ok(data)).map_err(|_| SoundError::ListenerGone)
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
    })?;
    first.recv().unwrap_or_else(|_| Err(io::Error::other("the renderer broke off").into()))?;
    Ok(Rendered { blocks, block: Vec::new(), at: 0 })
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

/// The recorded user on the left, the others on the right; one track alone is mono.
fn job(
    appliance: &Appliance,
    tracks: &[ArchiveTrack],
    total_ticks: u64,
    format: Format,
    ms: &Range<Option<u64>>,
) -> Job {
    let channels: u8 = if tracks.len() > 1 { 2 } else { 1 };
    let any_local = tracks.iter().any(|t| t.local);
    let specs = tracks.iter().enumerate().map(|(place, track)| {
        // Where nothing says which one is the recorded user's, the first is taken for it.
        let is_left = if any_local { track.local } else { place == 0 };
        TrackSpec {
            codecs: track.codecs.iter().map(codec_spec).collect(),
            channel: if channels == 2 && !is_left { 1 } else { 0 },
        }
    });
    let ticks = |ms: u64| ms.saturating_mul(48).min(total_ticks);
    let start_ticks = ms.start.map_or(0, ticks);
    Job {
        output: format.output(),
        tracks: specs.collect(),
        channels,
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

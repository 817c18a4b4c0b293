//! Playing and exporting: one recording, whole or a stretch, as WAV, Ogg Opus or MP3, from the archive, or from the journal while
//! there is no archive yet. What is rendered streams through; nothing holds a whole call.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use callvault_archive::{ArchiveTrack, Reader, key_context};
use callvault_catalogue::Recording;
use callvault_render_protocol::{
    FromRender, Job, Output, POST_ROLL_TICKS, PRE_ROLL_TICKS, Renderer, TrackSpec,
};
use callvault_seal::Keyring;

use crate::appliance::Appliance;
use crate::archiving::with_renderer;
use crate::sound::{Reading, SoundError, archive_packets, codec_spec, open_lanes};

/// Rendered blocks that may wait for a slow listener.
const BLOCKS_MAX: usize = 8;

/// Bits per second of each channel of an Ogg Opus export: transparent for speech.
const EXPORT_OPUS_BIT_RATE: u32 = 32_000;

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
        let mut renderer = None;
        let mut begun = false;
        let result = run(&appliance, &mut renderer, &row, format, ms, |data| {
            if !begun {
                begun = true;
                let _ = first_to.send(Ok(()));
            }
            // The listener left: nothing more is wanted.
            to.send(Ok(data)).map_err(|_| SoundError::Io(io::ErrorKind::BrokenPipe.into()))
        });
        match result {
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
    renderer: &mut Option<Renderer>,
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
    if let Some(place) = row.archive.place() {
        let file = appliance.store.get(Path::new(&place.path))?;
        let mut archive = open_archive(io::BufReader::new(file), &appliance.keyring)?;
        let facts = archive.facts()?;
        let job = job(&facts.tracks, facts.total_ticks, format, &ms);
        let packets = archive_packets(&mut archive, stretch(&job));
        return with_renderer(appliance, renderer, |r| r.run(&job, packets, &mut on_output))
            .map(drop);
    }
    let (views, folder) = {
        let journals = appliance.journals();
        (journals.lanes_of(row.id), journals.folder().to_owned())
    };
    if views.is_empty() {
        return Err(SoundError::NoKey);
    }
    let lanes = open_lanes(views, &appliance.keyring)?;
    let reading = Reading::of_journal(&folder, &lanes)?;
    let job = job(&reading.tracks, reading.total_ticks, format, &ms);
    let packets = reading.packets(&folder, &lanes, stretch(&job));
    with_renderer(appliance, renderer, |r| r.run(&job, packets, &mut on_output)).map(drop)
}

/// Opens an archive with one of the ring's keys.
pub(crate) fn open_archive<R: Read + io::Seek>(
    input: R,
    keyring: &Keyring,
) -> Result<callvault_archive::Unlocked<R>, SoundError> {
    let reader = Reader::open(input)?;
    let context = key_context(&reader.header().recording);
    let callvault_archive::KeysFound::InFile(keys) = reader.keys() else { return Err(SoundError::NoKey) };
    let key = keyring.open(keys, &context)?;
    Ok(reader.unlock(&key)?)
}

fn stretch(job: &Job) -> Range<u64> {
    job.start_ticks.saturating_sub(PRE_ROLL_TICKS)..job.end_ticks.saturating_add(POST_ROLL_TICKS)
}

/// The recorded user on the left, the others on the right; one track alone is mono.
fn job(tracks: &[ArchiveTrack], total_ticks: u64, format: Format, ms: &Range<Option<u64>>) -> Job {
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
    }
}

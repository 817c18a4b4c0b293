//! The archive job: from the journal to one sealed file in the store.
//!
//! 1. the catalogue notes that an archive is being made (or says that there is one already, or that the recording is gone);
//! 2. the journal is read, the tracks are aligned, what is not Opus is encoded by a render process, which also tells what is heard;
//! 3. the file is written under a temporary name, synced, renamed, its folder synced ([`crate::store::Store::put`]);
//! 4. it is read back and verified with its key, chunk by chunk, against what was written;
//! 5. what was heard is noted in the row; one catalogue transaction: archived, where, how large;
//! 6. the journal lets the recording go.
//!
//! Each step can be done again after a crash: the file has the recording's name and replaces itself, the catalogue knows whether
//! it was told. Until 5 is durable the journal keeps everything. A recording that is deleted meanwhile is found gone at 1 or at 5,
//! and what was made of it by then is removed.

use std::collections::{BTreeSet, VecDeque};
use std::io::BufWriter;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use callvault_archive::{
    ArchiveCodec, ArchiveFacts, ArchiveTrack, Header, Keys, Summary, Writer, key_context, relative_path, verify,
};
use callvault_catalogue::{ArchivePlace, Archived, Archiving, CatalogueError, Recording};
use callvault_config::{ArchiveCodec as Wanted, ArchiveKeys, BitRate};
use callvault_queue::Failure;
use callvault_render_protocol::{
    CODECS_PER_TRACK_MAX, Codec, CodecSpec, FromRender, Heard, Job, Output, Packet, RenderError, TRACKS_MAX, TrackSpec,
};
use callvault_seal::{DataKey, SealedKey, seal_key};
use jiff::Timestamp;
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::deliveries;
use crate::log::events;
use crate::mailing;
use crate::row::{self, has_audio};
use crate::sound::{OpenLane, Reading, SoundError, codec_spec, open_lanes};
use crate::store::{Store, StoreError, StoreFile, is_away};
use crate::warm::Warm;
use crate::waveform;

/// Name of the first store, that of `store.path`, as recordings show it.
pub(crate) const STORE_NAME: &str = "default";

/// A job whose store is away is due again after this long; it is claimed when the store is back, which its watch says.
pub(crate) const AWAY_MS: u64 = 1_000;

/// While the journal is still being read, a job looks again after this long.
const READING_MS: u64 = 500;

/// How much later than its position the audio of our own Opus packets is, in ticks: what libopus says for speech at every rate
/// (6.5 ms). What the render process reports must agree, or the archive is not finished.
const OPUS_PRE_SKIP_TICKS: u16 = 312;

/// Why an archive could not be made, and whether trying again can help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchivingError {
    #[error("{0}")]
    Sound(#[from] SoundError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Archive(#[from] callvault_archive::ArchiveError),
    #[error("{0}")]
    Catalogue(#[from] CatalogueError),
    #[error("verify the archive just written: {0}")]
    Unsound(String),
    #[error("encode the archive: the render process reported an encoder that was not expected")]
    Encoder,
}

impl From<RenderError> for ArchivingError {
    fn from(error: RenderError) -> Self {
        Self::Sound(SoundError::Render(error))
    }
}

impl ArchivingError {
    /// What the queue should make of it.
    pub(crate) fn failure(&self) -> Failure {
        let wait = Failure::NotYet { wait_ms: AWAY_MS };
        match self {
            Self::Store(e) if e.is_away() => wait,
            Self::Sound(e) if e.is_away() => wait,
            Self::Archive(callvault_archive::ArchiveError::Io { source, .. }) if is_away(source) => wait,
            Self::Sound(SoundError::NotReadYet) => Failure::NotYet { wait_ms: READING_MS },
            Self::Sound(SoundError::Stopping) => Failure::NotYet { wait_ms: 0 },
            Self::Sound(SoundError::Render(e)) if e.is_permanent() => Failure::Permanent,
            Self::Sound(SoundError::NoKey | SoundError::Key(_) | SoundError::NotThere) => Failure::Permanent,
            _ => Failure::Transient,
        }
    }
}

/// Does the job. `renderer` is the worker's own, kept warm between jobs.
pub(crate) fn archive(appliance: &Appliance, renderer: &mut Warm, id: Uuid) -> Result<(), ArchivingError> {
    let row = appliance.catalogue.get(id)?;
    if row.as_ref().is_some_and(|row| !has_audio(row)) {
        appliance.journals.lock().release(id);
        return Ok(());
    }
    // Before anything is noted: a recording whose store is away waits, it has not failed.
    appliance.store.check()?;
    match (appliance.catalogue.set_archiving(id)?, row) {
        (Archiving::Started, Some(row)) => {
            let result = make_listening(appliance, renderer, id, &row);
            if let Err(error) = &result {
                let noted = match error.failure() {
                    Failure::NotYet { .. } => appliance.catalogue.archive_waits(id),
                    _ => appliance.catalogue.archive_failed(id, &error.to_string()),
                };
                if let Err(also) = noted {
                    tracing::error!(recording = %id, "failed to {also}");
                }
            }
            return result;
        }
        (Archiving::AlreadyArchived, _) => {}
        // It came between the two looks at the catalogue.
        (Archiving::Started, None) => return Err(SoundError::NotReadYet.into()),
        (Archiving::Gone, _) => remove_leavings::<ArchivingError>(appliance, id)?,
    }
    appliance.journals.lock().release(id);
    Ok(())
}

/// Removes what attempts at archiving a recording that is deleted now may have left. Its row is gone, and with it the day that is
/// in the name, but an id of version 7 holds the time as well, within the seconds between an INVITE and its answer.
pub(crate) fn remove_leavings<E: From<StoreError> + From<CatalogueError>>(
    appliance: &Appliance,
    id: Uuid,
) -> Result<(), E> {
    let Some((seconds, _)) = id.get_timestamp().map(|t| t.to_unix()) else { return Ok(()) };
    let seconds = i64::try_from(seconds).unwrap_or(0);
    let around = [0, -EARLIER_S, EARLIER_S].map(|by| seconds.saturating_add(by).saturating_mul(1_000_000_000));
    let names: BTreeSet<String> = around.iter().map(|at_ns| relative_path(&id, *at_ns)).collect();
    let into = appliance.store.for_writing();
    for name in &names {
        leave_to_others(appliance, id, name, &into.name)?;
        into.store.remove(Path::new(name))?;
    }
    Ok(())
}

/// An attempt that was broken off may have left something where archives went before; it is taken away as a move's copies are.
fn leave_to_others(appliance: &Appliance, id: Uuid, path: &str, name: &str) -> Result<(), CatalogueError> {
    let others = appliance.store.sources();
    others.iter().filter(|other| *other != name).try_for_each(|other| appliance.catalogue.may_be_left(id, other, path))
}

/// How far the time in an id and the start of its recording may be apart, in seconds.
const EARLIER_S: i64 = 600;

/// Makes the archive and listens to what is in it. Nothing that is kept as it came is lost because it cannot be listened to.
fn make_listening(appliance: &Appliance, renderer: &mut Warm, id: Uuid, row: &Recording) -> Result<(), ArchivingError> {
    let mut listened = true;
    let result = make(appliance, renderer, id, row, &mut listened);
    match result {
        Err(ArchivingError::Sound(SoundError::Render(error))) if listened => {
            tracing::warn!(recording = %id, "archiving {id} again without listening to it: failed to {error}");
            make(appliance, renderer, id, row, &mut false)
        }
        result => result,
    }
}

/// Makes the archive. `listens` says whether tracks that are not encoded are listened to, and afterwards whether any was.
fn make(
    appliance: &Appliance,
    renderer: &mut Warm,
    id: Uuid,
    row: &Recording,
    listens: &mut bool,
) -> Result<(), ArchivingError> {
    let began = Instant::now();
    let pinned = appliance.journals.pin(id);
    appliance.check_read(&pinned)?;
    let folder = pinned.folder.clone();
    let lanes = open_lanes(&pinned, &appliance.keyring)?;
    let reading = Reading::of_journal(&folder, &lanes)?;
    let started_ns = i64::try_from(row.started_at.as_nanosecond()).unwrap_or(0);
    let name = relative_path(&id, started_ns);
    let plan = Plan::new(appliance, &reading, *listens);
    *listens = !plan.job.measured.is_empty();
    let key = DataKey::generate(&mut rand::rng());
    let sealed = seal(appliance, &key, id);
    let (keys, kept_here) = match appliance.config.archive.keys {
        ArchiveKeys::File => (Keys::InFile(&sealed), [].as_slice()),
        ArchiveKeys::Catalogue => (Keys::Elsewhere, sealed.as_slice()),
    };
    let facts = ArchiveFacts {
        recording_id: id,
        started_at_ns: started_ns,
        duration_ms: row.duration_ms,
        total_ticks: reading.total_ticks,
        recording: serde_json::to_value(row).unwrap_or_default().into(),
        tracks: plan.tracks.clone(),
        events: reading.events.iter().map(|e| serde_json::to_value(e).unwrap_or_default()).collect::<Vec<_>>().into(),
        ..ArchiveFacts::default()
    };
    let header = Header { recording: id, created_at_ns: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0) };
    let mut listened = Listened::default();
    let into = appliance.store.for_writing();
    let summary = into.store.put(Path::new(&name), |out| {
        let mut writer = Writer::create(out, &header, keys, &key, &facts)?;
        listened = plan.write(appliance, renderer, &reading, &folder, &lanes, &mut writer)?;
        writer.finish().map_err(ArchivingError::from)
    })?;
    check(&into.store, &name, &key, &summary)?;
    let mut owed = Vec::new();
    if let Some(mut row) = appliance.catalogue.get(id)? {
        row::listen(&mut row, &listened.heard);
        appliance.catalogue.heard(&row)?;
        if let Some(waveform) = waveform::of(&reading.tracks, &listened.peaks) {
            appliance.catalogue.put_waveform(id, &waveform)?;
        }
        owed = deliveries::owed_with_archive(&appliance.config, &row);
        owed.extend(mailing::owed_with_archive(appliance, &row));
    }
    let place =
        ArchivePlace { bytes: summary.bytes, store: into.name.clone(), path: name.clone(), sha256: summary.sha256 };
    leave_to_others(appliance, id, &name, &into.name)?;
    match appliance.catalogue.archived_with_keys(id, (&place, kept_here), &owed, Timestamp::now()) {
        Ok(Archived::Gone) => into.store.remove(Path::new(&name))?,
        Ok(Archived::Recorded | Archived::AlreadyRecorded) => {
            appliance.metrics.archived.fetch_add(1, Ordering::Relaxed);
            appliance.worked.add(row.duration_ms, began.elapsed());
            appliance.metrics.archived_bytes.fetch_add(summary.bytes, Ordering::Relaxed);
            tracing::info!(event = events::ARCHIVED, recording = %id, bytes = summary.bytes, "recording {id} archived and verified");
            if !owed.is_empty() {
                // What follows need not wait for the next look.
                let _ = appliance.wake_ingest.try_send(());
            }
        }
        Err(error) => return Err(error.into()),
    }
    drop(pinned);
    appliance.journals.lock().release(id);
    Ok(())
}

fn seal(appliance: &Appliance, key: &DataKey, id: Uuid) -> Vec<SealedKey> {
    let context = key_context(&id);
    appliance.recipients.iter().map(|to| seal_key(&mut rand::rng(), to, key, &context)).collect()
}

/// Reads the archive back, every byte of it.
fn check(store: &Store, name: &str, key: &DataKey, summary: &Summary) -> Result<(), ArchivingError> {
    let file = store.get_back(Path::new(name))?;
    let report = verify(std::io::BufReader::with_capacity(256 * 1024, file), Some(key))?;
    if let Some(finding) = report.findings.first() {
        return Err(ArchivingError::Unsound(finding.to_string()));
    }
    if report.packets != Some(summary.packets) || report.sha256 != summary.sha256 || report.bytes != summary.bytes {
        return Err(ArchivingError::Unsound("it is not what was written".into()));
    }
    Ok(())
}

/// What listening to the tracks found, by their places.
#[derive(Default)]
struct Listened {
    heard: Vec<(usize, Heard)>,
    peaks: Vec<(usize, Vec<u8>)>,
}

/// What becomes of each track.
struct Plan {
    /// As the archive will list them.
    tracks: Vec<ArchiveTrack>,
    /// The job for what is encoded or listened to.
    job: Job,
    /// The codecs of each track as received.
    codecs: Vec<Vec<CodecSpec>>,
    /// Place in the job of each track that can be decoded.
    places: Vec<Option<u8>>,
    /// Whether a track is encoded.
    encodes: bool,
    /// For each track, the places of its codecs that are kept as they are.
    kept: Vec<Vec<Option<u8>>>,
}

impl Plan {
    fn new(appliance: &Appliance, reading: &Reading, listens: bool) -> Self {
        let listens = listens && reading.tracks.len() <= TRACKS_MAX;
        let settings = appliance.settings();
        let wanted = &settings.archive;
        let (mut tracks, mut kept, mut received, mut in_job) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut specs, mut measured) = (Vec::new(), Vec::new());
        for track in &reading.tracks {
            let codecs: Vec<_> = track.codecs.iter().map(codec_spec).collect();
            let is_voice = |codec: &Codec| matches!(codec, Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::L16);
            let encode =
                wanted.codec == Wanted::Opus && codecs.iter().any(|c| is_voice(&c.codec) && c.audio_rate().is_some());
            let mut listed = track.clone();
            listed.codecs.clear();
            let mut places = Vec::new();
            if encode {
                // The render process encodes at the highest rate of the codecs that it decodes.
                let rate = codecs.iter().filter_map(callvault_render_protocol::CodecSpec::audio_rate).max();
                listed.codecs.push(ArchiveCodec {
                    encoding: "opus".to_owned(),
                    clock_rate: rate.unwrap_or(8_000),
                    channels: 1,
                    fmtp: None,
                    pre_skip: OPUS_PRE_SKIP_TICKS,
                });
            }
            for (codec, spec) in track.codecs.iter().zip(&codecs) {
                // What is encoded is not kept twice; what cannot be decoded (events, rare codecs) is kept as it came.
                if encode && spec.audio_rate().is_some() {
                    places.push(None);
                } else {
                    places.push(u8::try_from(listed.codecs.len()).ok());
                    listed.codecs.push(codec.clone());
                }
            }
            // What stays as it is, is listened to all the same.
            let can_listen = codecs.len() <= CODECS_PER_TRACK_MAX && codecs.iter().any(|c| c.audio_rate().is_some());
            let place = u8::try_from(specs.len()).ok().filter(|_| encode || listens && can_listen);
            if let Some(place) = place {
                measured.extend((!encode).then_some(place));
                specs.push(TrackSpec { codecs: codecs.clone(), channel: 0 });
            }
            in_job.push(place);
            received.push(codecs);
            tracks.push(listed);
            kept.push(places);
        }
        let bit_rate = match wanted.bit_rate {
            BitRate::Auto => 0,
            BitRate::BitsPerSecond(bits) => bits,
        };
        let complexity = u8::try_from(wanted.complexity).unwrap_or(5);
        let encodes = measured.len() < specs.len();
        let job = Job {
            output: Output::OpusTracks { bit_rate, complexity },
            tracks: specs,
            channels: 1,
            start_ticks: 0,
            end_ticks: reading.total_ticks,
            mask_tones: false,
            measured,
            // What it would decode is kept as it came.
            ffmpeg: None,
        };
        Self { tracks, job, codecs: received, places: in_job, encodes, kept }
    }

    /// Writes the packets, and tells what was heard on the tracks.
    fn write(
        &self,
        appliance: &Appliance,
        renderer: &mut Warm,
        reading: &Reading,
        folder: &Path,
        lanes: &[OpenLane],
        writer: &mut Writer<BufWriter<StoreFile>>,
    ) -> Result<Listened, ArchivingError> {
        let packets =
            reading.packets(folder, lanes, 0..u64::MAX).map_err(SoundError::from)?.map(|packet| match packet {
                // A call of hours must not hold up a stop: the job is done again by the next daemon.
                _ if appliance.stopping.load(Ordering::Relaxed) => Err(SoundError::Stopping),
                packet => packet,
            });
        if self.job.tracks.is_empty() {
            for packet in packets {
                self.keep(&packet?, writer)?;
            }
            return Ok(Listened::default());
        }
        // Two streams become one in the order of positions: what is kept waits here until what is encoded has come as far. Where
        // nothing is encoded it need not wait.
        let aside: Mutex<VecDeque<Packet>> = Mutex::new(VecDeque::new());
        let aside = || aside.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = Mutex::new(writer);
        let writer = || writer.lock().unwrap_or_else(PoisonError::into_inner);
        let to_decode = packets.filter_map(|packet| {
            let packet = match packet {
                Ok(packet) => packet,
                Err(error) => return Some(Err(ArchivingError::from(error))),
            };
            let place = self.place_in_job(&packet);
            match (self.kept_as(&packet).is_some(), self.encodes) {
                (true, true) => aside().push_back(packet.clone()),
                (true, false) => {
                    if let Err(error) = self.keep(&packet, &mut writer()) {
                        return Some(Err(error));
                    }
                }
                (false, _) => {}
            }
            place.map(|track| Ok(Packet { track, ..packet }))
        });
        // The track behind each place in the job.
        let tracks: Vec<u8> = (0..=u8::MAX).zip(&self.places).filter_map(|(n, place)| place.map(|_| n)).collect();
        let stats = renderer.run(appliance, appliance.settings().render.timeout, |renderer| {
            renderer.run(&self.job, to_decode, |output| {
                if let FromRender::OpusPacket { track, position, payload } = output {
                    let mut writer = writer();
                    while let Some(before) = { aside().pop_front_if(|p| p.position <= position) } {
                        self.keep(&before, &mut writer)?;
                    }
                    let track = tracks.get(usize::from(track)).copied().ok_or(ArchivingError::Encoder)?;
                    writer.packet(track, 0, position, &payload)?;
                }
                Ok::<(), ArchivingError>(())
            })
        })?;
        let rest: Vec<Packet> = aside().drain(..).collect();
        for packet in rest {
            self.keep(&packet, &mut writer())?;
        }
        let mut listened = Listened::default();
        for (track, stats) in tracks.iter().zip(stats.tracks) {
            let listed = self.tracks[usize::from(*track)].codecs.first();
            let agrees = stats
                .output
                .as_ref()
                .is_none_or(|o| listed.is_some_and(|l| l.pre_skip == o.pre_skip && l.clock_rate == o.clock_rate));
            if !agrees {
                return Err(ArchivingError::Encoder);
            }
            listened.heard.push((usize::from(*track), stats.heard));
            listened.peaks.push((usize::from(*track), stats.peaks));
        }
        Ok(listened)
    }

    /// Place of the packet's track in the render job, if the packet can be decoded.
    fn place_in_job(&self, packet: &Packet) -> Option<u8> {
        let codec = self.codecs.get(usize::from(packet.track))?.get(usize::from(packet.codec))?;
        codec.audio_rate()?;
        *self.places.get(usize::from(packet.track))?
    }

    /// Place of the packet's codec in the archive, if it is kept as it is.
    fn kept_as(&self, packet: &Packet) -> Option<u8> {
        *self.kept.get(usize::from(packet.track))?.get(usize::from(packet.codec))?
    }

    fn keep(&self, packet: &Packet, writer: &mut Writer<BufWriter<StoreFile>>) -> Result<(), ArchivingError> {
        if let Some(codec) = self.kept_as(packet) {
            writer.packet(packet.track, codec, packet.position, &packet.payload)?;
        }
        Ok(())
    }
}

//! The daemon's jobs, step by step: from the journal to a verified archive on record, and its removal.

use std::io::Cursor;

use callvault_archive::{
    ArchiveCodec, ArchiveFacts, ArchiveTrack, Header, Keys, KeysFound, Played, Reader, Summary, Writer, erase_keys,
    key_context, verify,
};
use callvault_queue::{Failure, Job, JobKind, KindLimits};
use callvault_seal::{DataKey, seal_key};
use uuid::Uuid;

use crate::bug::Bug;
use crate::daemon::Daemon;
use crate::device::Device;
use crate::outside::{Killed, Outside, keys};
use crate::sound::Sound;
use crate::stable::Place;

/// Bytes written at once.
const WRITE_BYTES: usize = 16 * 1024;

/// A store that is away is asked again after this long.
const AWAY_MS: u64 = 10_000;

/// Why a job failed: it waits for the store, or something went wrong.
enum Trouble {
    Away,
    Failed(String),
    /// No other try will cure it.
    Permanent(String),
    Killed,
}

impl From<Killed> for Trouble {
    fn from(_: Killed) -> Self {
        Self::Killed
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Daemon {
    /// Does the job that is due, if there is one.
    pub(crate) fn work(&mut self, out: &mut Outside) -> Result<bool, Killed> {
        if out.now_ns < out.store.hangs_until_ns {
            return Ok(false);
        }
        let limits: KindLimits = [(JobKind::ARCHIVE, 1), (JobKind::DELETE, 1)].into();
        let Some(job) = self.machine.claim(out.unix_ms, &limits) else { return Ok(false) };
        self.write_jobs(out, std::slice::from_ref(&job.id));
        if out.has(Bug::RunningJobsNotResumed) {
            out.stable.jobs.sync();
        }
        out.point()?;
        let result =
            if job.kind == JobKind::ARCHIVE { self.archive(out, job.recording) } else { self.remove(out, &job) };
        let now = out.unix_ms;
        out.note(|| {
            let how = match &result {
                Ok(()) => "done".to_owned(),
                Err(Trouble::Away) => "the store is away".to_owned(),
                Err(Trouble::Failed(text) | Trouble::Permanent(text)) => text.clone(),
                Err(Trouble::Killed) => "killed".to_owned(),
            };
            format!("job {}: {how}", job.id)
        });
        let told = match result {
            Ok(()) => self.machine.complete(&job.id, now),
            Err(Trouble::Killed) => return Err(Killed),
            Err(Trouble::Failed(_)) if out.has(Bug::JobsGivenUp) && job.failures >= 1 => {
                self.machine.complete(&job.id, now)
            }
            Err(trouble) => {
                let (failure, text) = match trouble {
                    Trouble::Failed(text) => (Failure::Transient, text),
                    Trouble::Permanent(text) => (Failure::Permanent, text),
                    _ => (Failure::NotYet { wait_ms: AWAY_MS }, "use the store".to_owned()),
                };
                let random = out.dice.next();
                self.machine.fail(&job.id, now, failure, &text, random).map(|(_, touched)| touched)
            }
        };
        match told {
            Ok(touched) => {
                self.write_jobs(out, &touched);
                out.point()?;
                out.stable.jobs.sync();
            }
            Err(error) => out.say(format!("failed to {error}")),
        }
        Ok(true)
    }

    fn archive(&mut self, out: &mut Outside, id: Uuid) -> Result<(), Trouble> {
        let Some(row) = out.stable.catalogue.rows.get(&id).cloned() else {
            // Deleted: what an attempt may have left goes.
            let device = store(out)?;
            take_away(out, &device, &path(id))?;
            self.release(id);
            return Ok(());
        };
        if row.has_audio && row.archive.is_none() {
            let device = store(out)?;
            let views = self.lanes_of(id);
            if views.iter().all(|view| view.entry.keys.is_empty()) {
                return Err(Trouble::Permanent("its audio is neither in the store nor in the journal".to_owned()));
            }
            let sound = Sound::read(out, &views).map_err(Trouble::Failed)?;
            let key = DataKey::generate(&mut rand::rng());
            let (bytes, summary) = make(id, &sound, &key).map_err(Trouble::Failed)?;
            put(out, &device, &path(id), &bytes)?;
            if out.has(Bug::ReleasedBeforeRecorded) {
                self.release(id);
                self.round(out)?;
            }
            out.point()?;
            if !out.has(Bug::NotVerified) {
                check(&device, &path(id), &key, &summary).map_err(Trouble::Failed)?;
            }
            out.point()?;
            match out.stable.catalogue.rows.get_mut(&id) {
                Some(row) => {
                    row.archive = Some(Place { path: path(id), sha256: summary.sha256 });
                    row.recorded += 1;
                    row.archived_ns = out.now_ns;
                    out.archives += 1;
                }
                None => take_away(out, &device, &path(id))?,
            }
            out.point()?;
        }
        self.release(id);
        Ok(())
    }

    /// Removes the archive of a deleted recording.
    fn remove(&mut self, out: &mut Outside, job: &Job) -> Result<(), Trouble> {
        let place = job.payload.get("path").and_then(serde_json::Value::as_str);
        let device = store(out)?;
        take_away(out, &device, &place.map_or_else(|| path(job.recording), str::to_owned))
    }
}

fn path(id: Uuid) -> String {
    format!("{id}.cva")
}

/// What is at the store's path, after a look at its identity.
fn store(out: &Outside) -> Result<Device, Trouble> {
    match out.store.is_away {
        false => Ok(out.store.device.clone()),
        true if out.has(Bug::StoreNotChecked) => Ok(out.store.below.clone()),
        true => Err(Trouble::Away),
    }
}

fn make(id: Uuid, sound: &Sound, key: &DataKey) -> Result<(Vec<u8>, Summary), String> {
    let context = key_context(&id);
    let sealed = [seal_key(&mut rand::rng(), &keys().1, key, &context)];
    let tracks = sound.packets.iter().map(|packet| packet.track + 1).max().unwrap_or(0);
    let codec = ArchiveCodec { encoding: "PCMU".into(), clock_rate: 8_000, channels: 1, fmtp: None, pre_skip: 0 };
    let track =
        |track: u8| ArchiveTrack { label: track.to_string(), codecs: vec![codec.clone()], ..ArchiveTrack::default() };
    let facts = ArchiveFacts {
        recording_id: id,
        total_ticks: sound.total_ticks,
        tracks: (0..tracks).map(track).collect(),
        ..ArchiveFacts::default()
    };
    let header = Header { recording: id, created_at_ns: 0 };
    let write = || {
        let mut writer = Writer::create(Vec::new(), &header, Keys::InFile(&sealed), key, &facts)?;
        for packet in &sound.packets {
            writer.packet(packet.track, 0, packet.position, &packet.payload)?;
        }
        writer.finish()
    };
    write().map_err(|error: callvault_archive::ArchiveError| error.to_string())
}

/// Writes a file whole: under another name, durable, then in its place.
fn put(out: &mut Outside, device: &Device, path: &str, bytes: &[u8]) -> Result<(), Trouble> {
    let temporary = format!(".{path}.tmp");
    let inode = device.create(&temporary, true)?;
    let mut at = 0;
    for part in bytes.chunks(WRITE_BYTES) {
        if let Err(error) = device.write_at(inode, part, at) {
            device.remove(&temporary);
            return Err(error.into());
        }
        at += part.len() as u64;
        out.point()?;
    }
    if !out.has(Bug::RenamedBeforeSync) {
        if let Err(error) = device.open_and_sync(inode) {
            device.remove(&temporary);
            return Err(error.into());
        }
        out.point()?;
    }
    device.rename(&temporary, path)?;
    out.point()?;
    device.sync_folder();
    Ok(())
}

/// Reads the archive back, every byte of it.
fn check(device: &Device, path: &str, key: &DataKey, summary: &Summary) -> Result<(), String> {
    let bytes = device.read(path).ok_or("it is not there")?;
    let report = verify(Cursor::new(bytes), Some(key)).map_err(|error| error.to_string())?;
    if let Some(finding) = report.findings.first() {
        return Err(finding.to_string());
    }
    let is_same = (report.packets, report.sha256) == (Some(summary.packets), summary.sha256);
    if is_same { Ok(()) } else { Err("it is not what was written".to_owned()) }
}

/// Removes an archive: its keys are erased, durably, then the file goes.
fn take_away(out: &mut Outside, device: &Device, path: &str) -> Result<(), Trouble> {
    for name in [format!(".{path}.tmp"), path.to_owned()] {
        let Some(inode) = device.inode(&name) else { continue };
        if !out.has(Bug::KeysNotErased) {
            let mut file = Cursor::new(device.read(&name).unwrap_or_default());
            // What is no whole archive has no keys to be found.
            let _ = erase_keys(&mut file);
            device.write_at(inode, file.get_ref(), 0)?;
            out.point()?;
            device.open_and_sync(inode)?;
        }
        out.point()?;
        if device.read(&name).is_some_and(|bytes| open(bytes).is_ok()) {
            out.say(format!("{name} is removed and whoever finds its bytes can open it"));
        }
        device.remove(&name);
    }
    out.point()?;
    device.sync_folder();
    Ok(())
}

/// Everything in an archive, opened as whoever has the appliance's key would.
pub(crate) fn open(bytes: Vec<u8>) -> Result<Vec<(u8, u64, Vec<u8>)>, String> {
    let reader = Reader::open(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let context = key_context(&reader.header().recording);
    let KeysFound::InFile(sealed) = reader.keys() else { return Err("it has no keys".to_owned()) };
    let key = keys().0.open(sealed, &context).map_err(|error| error.to_string())?;
    let mut archive = reader.unlock(&key).map_err(|error| error.to_string())?;
    let mut packets = Vec::new();
    for played in archive.packets(0..u64::MAX) {
        match played.map_err(|error| error.to_string())? {
            Played::Packet(packet) => packets.push((packet.track, packet.position, packet.payload)),
            Played::Hole(finding) => return Err(finding.to_string()),
        }
    }
    Ok(packets)
}

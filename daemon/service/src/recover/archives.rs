//! What an archive says of its recording: enough for the row that the catalogue had of it.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use callvault_archive::{ArchiveFacts, KeysFound, Reader, key_context, verify};
use callvault_catalogue::{Annotations, Archive, ArchivePlace, ArchiveState, Flaw, Recording, Track, Verdict};
use callvault_journal::facts::SessionEvent;
use callvault_policy::{Damage, fold_call, summarise};
use callvault_seal::Keyring;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::row;
use crate::sound::TICKS_PER_SECOND;
use crate::store::StoreEntry;
use crate::stores::Known;

/// Read from the store at once, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Ending of an archive's name.
const ENDING: &str = "cva";

/// Folders below each other that are looked into: year, month, day.
const DEPTH_MAX: usize = 4;

/// An archive that was read to its end.
pub(super) struct Whole {
    pub(super) recording: Recording,
    pub(super) events: Vec<SessionEvent>,
    /// What is damaged in it; 0: nothing.
    pub(super) findings: u64,
}

/// What became of the look at an archive.
pub(super) enum Seen {
    Whole(Box<Whole>),
    /// Its keys were erased: its deletion had begun.
    Erased,
    /// Nothing can be made of it, and why.
    Useless(String),
}

/// The archives below the store's folder, which `list` looks into: recording by its file's name, and path in the store; and what could
/// not be looked into.
pub(crate) fn find(list: &mut dyn FnMut(&Path) -> io::Result<Vec<StoreEntry>>) -> (Vec<(Uuid, String)>, Vec<String>) {
    let (mut found, mut troubles) = (Vec::new(), Vec::new());
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = list(&folder).unwrap_or_else(|error| {
            troubles.push(format!("failed to list {} in the store: {error}", folder.display()));
            Vec::new()
        });
        for StoreEntry { name, is_folder } in entries {
            let below = folder.join(name);
            if is_folder {
                if depth < DEPTH_MAX {
                    folders.push((below, depth + 1));
                }
            } else if let Some(id) = named(&below)
                && let Some(path) = below.to_str()
            {
                found.push((id, path.to_owned()));
            }
        }
    }
    found.sort();
    (found, troubles)
}

/// What is in a folder below `store`, for [`find`].
pub(super) fn list(store: &Path, folder: &Path) -> io::Result<Vec<StoreEntry>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok(StoreEntry { name: entry.file_name(), is_folder: entry.file_type()?.is_dir() })
    };
    fs::read_dir(store.join(folder))?.map(entry).collect()
}

fn named(path: &Path) -> Option<Uuid> {
    let is_archive = path.extension().is_some_and(|ending| ending == ENDING);
    let stem = path.file_stem()?.to_str()?;
    if is_archive { Uuid::try_parse(stem).ok() } else { None }
}

/// Reads an archive to its end and makes a row of what it says.
pub(super) fn read(store: &Known, path: &str, keyring: &Keyring) -> Seen {
    match try_read(store, path, keyring) {
        Ok(seen) => seen,
        Err(text) => Seen::Useless(text),
    }
}

fn try_read(store: &Known, path: &str, keyring: &Keyring) -> Result<Seen, String> {
    let open = || {
        let file = File::open(store.path.join(path)).map_err(|error| format!("failed to read it: {error}"))?;
        Ok::<_, String>(BufReader::with_capacity(READ_BYTES, file))
    };
    let reader = Reader::open(open()?).map_err(|error| format!("failed to {error}"))?;
    let id = reader.header().recording;
    let sealed = match reader.keys() {
        KeysFound::InFile(keys) => keys.clone(),
        KeysFound::Erased => return Ok(Seen::Erased),
        KeysFound::Elsewhere => {
            return Err("its key is not in the file; it was in the catalogue and is lost with it".to_owned());
        }
    };
    let key = keyring.open(&sealed, &key_context(&id)).map_err(|error| {
        let to: Vec<String> = reader.recipients().iter().map(ToString::to_string).collect();
        let to = to.join(", ");
        format!("failed to open its key: {error}; it is sealed to {to}. Put that private key into the folder of keys and run this again")
    })?;
    let report = verify(open()?, Some(&key)).map_err(|error| format!("failed to {error}"))?;
    let archive = reader.unlock(&key).map_err(|error| format!("failed to {error}"))?;
    let place =
        ArchivePlace { bytes: report.bytes, store: store.name.clone(), path: path.to_owned(), sha256: report.sha256 };
    let findings = u64::try_from(report.findings.len()).unwrap_or(u64::MAX).saturating_add(report.findings_left_out);
    let (mut recording, events) = match archive.facts() {
        Ok(facts) => of_facts(id, facts),
        Err(_) => (without_facts(id, report.total_ticks), Vec::new()),
    };
    recording.archive = archived(place);
    if findings > 0 {
        let text = format!("the archive was found damaged in {findings} places when the catalogue was made again");
        flaw(&mut recording, "archive-damaged", &text);
    }
    Ok(Seen::Whole(Box::new(Whole { recording, events, findings })))
}

/// The archive state of a recording whose archive is there.
pub(super) fn archived(place: ArchivePlace) -> Archive {
    Archive {
        state: ArchiveState::Archived,
        bytes: Some(place.bytes),
        store: Some(place.store),
        path: Some(place.path),
        sha256: Some(place.sha256),
        error: None,
    }
}

fn flaw(recording: &mut Recording, code: &str, text: &str) {
    if recording.verdict == Verdict::Ok {
        recording.verdict = Verdict::Degraded;
    }
    recording.flaws.push(Flaw { code: code.to_owned(), text: text.to_owned() });
}

/// The row as the archive's facts have it; where an earlier version left it out, as its events tell.
fn of_facts(id: Uuid, facts: &ArchiveFacts) -> (Recording, Vec<SessionEvent>) {
    let values = facts.events.expose();
    // What a later version tells is passed over, as everywhere.
    let events: Vec<SessionEvent> = values.iter().filter_map(|v| serde_json::from_value(v.clone()).ok()).collect();
    let row = Row::deserialize(facts.recording.expose()).ok().filter(|row| row.id == id);
    let mut recording = match row {
        Some(row) => row.into_recording(),
        None if events.is_empty() => without_facts(id, Some(facts.total_ticks)),
        None => row::recording(id, summarise(&events, &Damage::default()), &events),
    };
    for (track, listed) in recording.tracks.iter_mut().zip(&facts.tracks) {
        track.local = listed.local;
    }
    recording.tracking_id = fold_call(&events).tracking_id;
    recording.facts = Value::Array(values.clone());
    (recording, events)
}

/// All that there is to say when the facts are lost: the id tells when it was, the archive how long.
fn without_facts(id: Uuid, total_ticks: Option<u64>) -> Recording {
    let text = "who spoke with whom was lost with the catalogue and the facts in the archive; the audio is there";
    let mut recording = row::nameless(id, Verdict::Degraded, "facts-lost", text);
    recording.duration_ms = total_ticks.unwrap_or(0).saturating_mul(1_000) / TICKS_PER_SECOND;
    let length = jiff::SignedDuration::from_millis(i64::try_from(recording.duration_ms).unwrap_or(0));
    recording.ended_at = recording.started_at.checked_add(length).unwrap_or(recording.started_at);
    recording
}

/// A row as JSON: what `Recording` is written as. Only what identifies it must be there.
#[derive(Deserialize)]
struct Row {
    id: Uuid,
    verdict: Verdict,
    started_at: Timestamp,
    ended_at: Timestamp,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rest {
    duration_ms: u64,
    owner: Option<String>,
    owner_id: Option<Uuid>,
    owner_name: Option<String>,
    matched_by: Option<String>,
    direction: Option<callvault_catalogue::Direction>,
    local_number: Option<String>,
    local_name: Option<String>,
    remote_number: Option<String>,
    remote_name: Option<String>,
    traffic: Option<callvault_catalogue::Traffic>,
    call_id: Option<String>,
    tracks: Vec<Track>,
    flaws: Vec<Flaw>,
}

impl Row {
    fn into_recording(self) -> Recording {
        let Self { id, verdict, started_at, ended_at, rest } = self;
        Recording {
            id,
            verdict,
            started_at,
            ended_at,
            duration_ms: rest.duration_ms,
            owner: rest.owner,
            owner_id: rest.owner_id,
            owner_name: rest.owner_name,
            matched_by: rest.matched_by,
            direction: rest.direction.unwrap_or(callvault_catalogue::Direction::Unknown),
            local_number: rest.local_number,
            local_name: rest.local_name,
            remote_number: rest.remote_number,
            remote_name: rest.remote_name,
            traffic: rest.traffic.unwrap_or(callvault_catalogue::Traffic::Unknown),
            call_id: rest.call_id,
            tracks: rest.tracks,
            flaws: rest.flaws,
            archive: Archive::journal(),
            linked: Vec::new(),
            annotations: Annotations::default(),
            tracking_id: None,
            facts: Value::Null,
        }
    }
}

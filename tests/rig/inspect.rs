//! Looking into the appliance's files with the formats' own readers, and without.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use callvault_archive::{KeysFound, Packet, Played, Reader, Unlocked, key_context};
use callvault_journal::facts::SessionEvent;
use callvault_journal::{FrameRef, Kind, LaneEnd, LaneIndex, LaneItem, LaneReader, Scanner, Seekable, parse_file_name};
use callvault_seal::{Keyring, PrivateKey};
use serde_json::Value;

use super::Appliance;

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files.extend(files_below(&path)),
            kind if kind.is_file() => files.push(path),
            _ => {}
        }
    }
    files
}

/// The journal's files, the oldest first.
pub fn journal_files(appliance: &Appliance) -> Vec<PathBuf> {
    let mut files = files_below(&appliance.data().join("journal"));
    files.retain(|path| parse_file_name(path.file_name().unwrap().to_str().unwrap()).is_some());
    files.sort();
    files
}

/// The frames of a journal file that is the first of its generation.
pub fn frames(path: &Path) -> Vec<FrameRef> {
    let (generation, number) = parse_file_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
    let mut frames = Vec::new();
    let mut file = Seekable(File::open(path).unwrap());
    Scanner::new(generation).scan(number, &mut file, &mut |frame| frames.push(frame.at)).unwrap();
    frames
}

/// How many frames of a kind the whole journal has.
pub fn count_frames(appliance: &Appliance, kind: Kind) -> usize {
    let frames = journal_files(appliance).iter().flat_map(|path| frames(path)).collect::<Vec<_>>();
    frames.iter().filter(|frame| frame.kind == kind).count()
}

/// A recording's frames in the journal, opened where there is a key.
#[derive(Default)]
pub struct JournalLane {
    pub recording: String,
    /// Whether a key of it is in the journal.
    pub has_key: bool,
    pub end: Option<LaneEnd>,
    /// Track and payload of each packet.
    pub packets: Vec<(u8, Vec<u8>)>,
    pub events: Vec<SessionEvent>,
    /// Sealed bytes, readable or not.
    pub bytes: u64,
}

/// Every lane that the journal has now.
pub fn journal_lanes(appliance: &Appliance) -> Vec<JournalLane> {
    let mut files: BTreeMap<_, BTreeMap<u32, Seekable<File>>> = BTreeMap::new();
    for path in journal_files(appliance) {
        let (generation, number) = parse_file_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
        files.entry(generation).or_default().insert(number, Seekable(File::open(path).unwrap()));
    }
    let mut lanes = Vec::new();
    for (generation, mut files) in files {
        let (mut scanner, mut index) = (Scanner::new(generation), LaneIndex::new());
        for (number, file) in &mut files {
            scanner
                .scan(*number, file, &mut |frame| {
                    let _ = index.add(frame);
                })
                .unwrap();
        }
        for (lane, entry) in index.iter() {
            let mut opened = JournalLane {
                recording: entry.recording.expect("every lane says whose it is").to_string(),
                has_key: !entry.keys.is_empty(),
                end: entry.end,
                bytes: entry.bytes,
                ..JournalLane::default()
            };
            if opened.has_key {
                let key = keyring(appliance).open(&entry.keys, &entry.key_context(generation, lane).unwrap()).unwrap();
                let mut reader = LaneReader::new(generation, lane, key.cipher(), entry.frames.load().unwrap());
                while let Some(item) = reader.next(&mut files).unwrap() {
                    match item {
                        LaneItem::Audio(packets) => {
                            opened.packets.extend(packets.map(|packet| (packet.track, packet.payload.to_vec())));
                        }
                        LaneItem::Facts(event) => opened.events.push(event),
                        LaneItem::Finding(finding) => panic!("{finding}"),
                    }
                }
            }
            lanes.push(opened);
        }
    }
    lanes
}

/// The lanes of one recording.
pub fn lanes_of(appliance: &Appliance, recording: &Value) -> Vec<JournalLane> {
    let mut lanes = journal_lanes(appliance);
    lanes.retain(|lane| recording["id"] == lane.recording.as_str());
    lanes
}

fn keyring(appliance: &Appliance) -> Keyring {
    Keyring::new(PrivateKey::from_text(&private_key_text(appliance)).unwrap(), Vec::new()).unwrap()
}

/// The text of the appliance's private key.
pub fn private_key_text(appliance: &Appliance) -> String {
    fs::read_to_string(appliance.data().join("keys/appliance.key")).unwrap().trim().to_owned()
}

/// The archive files in the store.
pub fn archive_files(appliance: &Appliance) -> BTreeSet<PathBuf> {
    let files = files_below(&appliance.data().join("store")).into_iter();
    files.filter(|path| path.extension().is_some_and(|ending| ending == "cva")).collect()
}

/// The archive of a recording.
pub fn archive_of(appliance: &Appliance, recording: &Value) -> PathBuf {
    let name = format!("{}.cva", recording["id"].as_str().unwrap());
    let mut files = archive_files(appliance).into_iter();
    files.find(|path| path.ends_with(&name)).expect("the store has the archive")
}

/// The packets of one track of an archive, in order, with the encoding of each.
pub fn archived_packets(appliance: &Appliance, recording: &Value, label: &str) -> Vec<(String, Packet)> {
    let mut archive = opened_archive(appliance, recording);
    let tracks = archive.facts().unwrap().tracks.clone();
    let wanted = tracks.iter().position(|track| track.label == label).expect("the archive has the track");
    let played = archive.packets(0..u64::MAX).map(|played| match played.unwrap() {
        Played::Packet(packet) => packet,
        Played::Hole(finding) => panic!("{finding}"),
    });
    played
        .filter(|packet| usize::from(packet.track) == wanted)
        .map(|packet| (tracks[wanted].codecs[usize::from(packet.codec)].encoding.clone(), packet))
        .collect()
}

fn opened_archive(appliance: &Appliance, recording: &Value) -> Unlocked<BufReader<File>> {
    let file = BufReader::new(File::open(archive_of(appliance, recording)).unwrap());
    let reader = Reader::open(file).unwrap();
    let KeysFound::InFile(sealed) = reader.keys() else { panic!("the archive has no keys") };
    let key = keyring(appliance).open(sealed, &key_context(&reader.header().recording)).unwrap();
    reader.unlock(&key).unwrap()
}

/// The pauses of each track, in the order of the tracks, as an archive has them: from when to when in milliseconds.
pub fn archived_pauses(appliance: &Appliance, recording: &Value) -> Vec<Vec<(u64, u64)>> {
    let archive = opened_archive(appliance, recording);
    let ms = |(from, to): &(u64, u64)| (from / 48, to / 48);
    archive.facts().unwrap().tracks.iter().map(|track| track.pauses.iter().map(ms).collect()).collect()
}

/// A chunk of an archive: where it begins, how long it is, and its kind.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    pub offset: usize,
    pub length: usize,
    pub kind: u8,
}

/// The chunks of an archive file, by the specification of the format.
pub fn chunks(archive: &[u8]) -> Vec<Chunk> {
    let u32_at = |at: usize| u32::from_le_bytes(archive[at..at + 4].try_into().unwrap()) as usize;
    let mut chunks = Vec::new();
    let mut offset = u32_at(12);
    while offset < archive.len() {
        assert_eq!(archive[offset..offset + 4], [0xa7, 0x43, 0x56, 0x43], "a chunk begins at {offset}");
        let length = 40 + u32_at(offset + 12);
        chunks.push(Chunk { offset, length, kind: archive[offset + 8] });
        offset += length;
    }
    chunks
}

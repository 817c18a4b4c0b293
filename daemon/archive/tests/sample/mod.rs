//! A small archive, and a second pair of eyes on it: chunks are found here by the letter of the specification, without the crate's parser.
#![allow(dead_code, unreachable_pub)]

use std::io::Cursor;
use std::ops::Range;

use callvault_archive::{
    ArchiveCodec, ArchiveError, ArchiveFacts, ArchiveTrack, Finding, Header, Keys, Packet, Played, Reader, Summary,
    Unlocked, Writer,
};
use callvault_seal::{DataKey, KeyId, SealedKey};
use uuid::Uuid;

pub const HEADER_BYTES: usize = 5_120;
pub const CHUNK_HEADER_BYTES: usize = 40;

/// An archive in memory, and what was put into it.
pub struct Sample {
    pub bytes: Vec<u8>,
    pub summary: Summary,
    pub facts: ArchiveFacts,
    pub packets: Vec<Packet>,
    pub chunks: Vec<Chunk>,
}

/// A chunk as it lies in the file.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub span: Range<usize>,
    pub kind: u8,
    pub first_ticks: u64,
}

pub fn key(seed: u8) -> DataKey {
    DataKey::from_bytes([seed; 32])
}

pub fn sealed_key(seed: u8) -> SealedKey {
    SealedKey { recipient: KeyId([seed; 8]), encapsulated: [seed; 32], ciphertext: [seed; 48] }
}

pub fn facts(recording: Uuid, total_ticks: u64) -> ArchiveFacts {
    let codec = |encoding: &str, clock_rate| ArchiveCodec {
        encoding: encoding.into(),
        clock_rate,
        channels: 1,
        ..ArchiveCodec::default()
    };
    let track = |label: &str, local| ArchiveTrack {
        label: label.into(),
        participant: Some(format!("Party {label}").into()),
        local,
        codecs: vec![codec("PCMU", 8_000), codec("opus", 48_000)],
        ..ArchiveTrack::default()
    };
    ArchiveFacts {
        recording_id: recording,
        started_at_ns: 1_763_800_000_000_000_000,
        duration_ms: total_ticks / 48,
        total_ticks,
        recording: serde_json::json!({"verdict": "ok"}).into(),
        tracks: vec![track("1", true), track("2", false)],
        events: vec![serde_json::json!({"event": "started"})].into(),
        ..ArchiveFacts::default()
    }
}

pub fn packet(track: u8, codec: u8, position: u64, payload: &[u8]) -> Packet {
    Packet { track, codec, position, payload: payload.to_vec() }
}

/// Two tracks, two packets a second of each, `seconds` long: an Audio chunk a second.
pub fn speech(seconds: u64) -> Vec<Packet> {
    let at = |n: u64| packet((n % 2) as u8, (n / 2 % 2) as u8, n / 2 * 24_000, &n.to_le_bytes()[..(n % 5) as usize]);
    (0..seconds * 4).map(at).collect()
}

pub fn write(recording: u128, created_at_ns: i64, key: &DataKey, packets: &[Packet]) -> Sample {
    let recording = Uuid::from_u128(recording);
    let total_ticks = packets.last().map_or(0, |packet| packet.position + 24_000);
    let facts = facts(recording, total_ticks);
    let header = Header { recording, created_at_ns };
    let slots = [sealed_key(1), sealed_key(2)];
    let mut writer = Writer::create(Vec::new(), &header, Keys::InFile(&slots), key, &facts).unwrap();
    for p in packets {
        writer.packet(p.track, p.codec, p.position, &p.payload).unwrap();
    }
    let (bytes, summary) = writer.finish().unwrap();
    let chunks = chunks(&bytes);
    Sample { bytes, summary, facts, packets: packets.to_vec(), chunks }
}

/// Facts, three of Audio, Facts, Index, End.
pub fn small() -> Sample {
    write(7, 1, &key(1), &speech(3))
}

pub fn chunks(bytes: &[u8]) -> Vec<Chunk> {
    let (mut chunks, mut at) = (Vec::new(), HEADER_BYTES);
    while at < bytes.len() {
        assert_eq!(&bytes[at..at + 4], b"\xa7CVC");
        assert_eq!(bytes[at + 4..at + 8], (chunks.len() as u32).to_le_bytes());
        let body = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
        let first_ticks = u64::from_le_bytes(bytes[at + 16..at + 24].try_into().unwrap());
        let span = at..at + CHUNK_HEADER_BYTES + body;
        at = span.end;
        chunks.push(Chunk { span, kind: bytes[at - body - CHUNK_HEADER_BYTES + 8], first_ticks });
    }
    chunks
}

impl Sample {
    pub fn chunk(&self, index: usize) -> &[u8] {
        &self.bytes[self.chunks[index].span.clone()]
    }

    /// The file with these chunks, in this order, behind the header.
    pub fn with_chunks(&self, order: &[usize]) -> Vec<u8> {
        let mut bytes = self.bytes[..HEADER_BYTES].to_vec();
        order.iter().for_each(|&index| bytes.extend(self.chunk(index)));
        bytes
    }

    /// The stretch of audio in a chunk; none when it is not an Audio chunk.
    pub fn ticks_of(&self, index: usize) -> Option<Range<u64>> {
        let next = self.chunks.get(index + 1)?;
        (self.chunks[index].kind == 2).then(|| self.chunks[index].first_ticks..next.first_ticks)
    }

    /// The packets that are not in these chunks.
    pub fn packets_without(&self, lost: &[usize]) -> Vec<Packet> {
        let gone: Vec<_> = lost.iter().filter_map(|&index| self.ticks_of(index)).collect();
        let kept = |packet: &&Packet| !gone.iter().any(|ticks| ticks.contains(&packet.position));
        self.packets.iter().filter(kept).cloned().collect()
    }

    /// Chunks that these bytes of the file belong to.
    pub fn touched(&self, bytes: Range<usize>) -> Vec<usize> {
        let meets = |index: &usize| {
            let span = &self.chunks[*index].span;
            span.start < bytes.end && bytes.start < span.end
        };
        (0..self.chunks.len()).filter(meets).collect()
    }
}

/// Everything that playing a stretch of a file gives.
pub fn play(bytes: &[u8], key: &DataKey, ticks: Range<u64>) -> Result<(Vec<Packet>, Vec<Finding>), ArchiveError> {
    played(&mut Reader::open(Cursor::new(bytes))?.unlock(key)?, ticks)
}

/// Everything that playing a stretch gives.
pub fn played(
    archive: &mut Unlocked<Cursor<&[u8]>>,
    ticks: Range<u64>,
) -> Result<(Vec<Packet>, Vec<Finding>), ArchiveError> {
    let (mut packets, mut holes) = (Vec::new(), Vec::new());
    for played in archive.packets(ticks) {
        match played? {
            Played::Packet(packet) => packets.push(packet),
            Played::Hole(finding) => holes.push(finding),
        }
    }
    Ok((packets, holes))
}

/// Puts the checksums of the chunk at `at` right again, as an attacker without the key can.
pub fn forge(bytes: &mut [u8], at: usize) {
    let body = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&bytes[at + 40..at + 40 + body]);
    bytes[at + 32..at + 36].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[at..at + 36]);
    bytes[at + 36..at + 40].copy_from_slice(&crc.to_le_bytes());
}

//! An archive whose bytes were changed: whatever becomes of it, nothing is played that was not written, and what is found to be in
//! order is all there. The first byte of the input says how it is read, the rest is the file.

use std::io::Cursor;
use std::sync::OnceLock;

use callvault_archive::{FINDINGS_MAX, Packet, Played, Reader, verify};
use callvault_seal::DataKey;

/// Put checksums right before reading.
pub const REPAIR: u8 = 1;
/// Check the file and do not play it.
pub const VERIFY: u8 = 2;
/// Check without the key.
pub const KEYLESS: u8 = 4;

const HEADER_COPY_OFFSETS: [usize; 2] = [0, 4_096];
const CHUNKS_OFFSET: usize = 5_120;
const CHUNK_HEADER_BYTES: usize = 40;
pub(crate) const CHUNK_MAGIC: [u8; 4] = *b"\xa7CVC";

/// What is in the archive that inputs are changed from.
struct Sample {
    packets: Vec<Packet>,
    facts: Vec<u8>,
}

/// The archive that inputs are changed from: two and a half seconds of two tracks.
pub const FILE: &[u8] = include_bytes!("../../../../daemon/archive/tests/golden/v1/keys-in-file.cva");

fn key() -> DataKey {
    DataKey::from_bytes(*b"golden data key, of no other use")
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        assert!(verify(FILE, Some(&key())).is_ok_and(|report| report.is_clean()));
        let (packets, facts) = play(FILE).expect("the sample is whole");
        assert!(packets.len() == 45, "the sample has {} packets", packets.len());
        Sample { packets, facts: facts.expect("the sample has facts") }
    })
}

/// Reads the changed file.
pub fn run(input: &[u8]) {
    let Some((&flags, file)) = input.split_first() else { return };
    let mut file = file.to_vec();
    if flags & REPAIR != 0 {
        repair(&mut file);
    }
    if flags & VERIFY != 0 {
        check_report(&file, flags & KEYLESS == 0);
    } else {
        check_played(&file);
    }
}

fn check_report(file: &[u8], with_key: bool) {
    let key = with_key.then(key);
    let Ok(report) = verify(file, key.as_ref()) else { return };
    assert!(report.bytes == file.len() as u64 && report.findings.len() <= FINDINGS_MAX);
    for finding in &report.findings {
        assert!(finding.ticks.as_ref().is_none_or(|ticks| ticks.start <= ticks.end), "{finding:?}");
        let _ = finding.to_string();
    }
    if report.is_clean() && with_key {
        let (packets, facts) = play(file).expect("what is clean can be read");
        assert!(packets == sample().packets, "a clean file lacks packets");
        assert!(facts.as_ref() == Some(&sample().facts), "a clean file has other facts");
    }
}

/// What is played was written, in that order.
fn check_played(file: &[u8]) {
    let Some((packets, facts)) = play(file) else { return };
    let mut written = sample().packets.iter();
    for packet in &packets {
        assert!(written.any(|one| one == packet), "a packet is played that was not written, or not there");
    }
    assert!(facts.is_none_or(|facts| facts == sample().facts), "the facts are not those that were written");
}

/// The packets and, as JSON, the facts; none where the file does not open.
fn play(file: &[u8]) -> Option<(Vec<Packet>, Option<Vec<u8>>)> {
    let reader = Reader::open(Cursor::new(file)).ok()?;
    let _ = reader.recipients();
    let mut archive = reader.unlock(&key()).ok()?;
    let facts = archive.facts().ok().map(|facts| serde_json::to_vec(facts).expect("facts are written to memory"));
    let mut packets = Vec::new();
    for played in archive.packets(0..u64::MAX) {
        match played.expect("memory reads without errors") {
            Played::Packet(packet) => packets.push(packet),
            Played::Hole(hole) => assert!(hole.ticks.is_none_or(|ticks| ticks.start <= ticks.end)),
        }
    }
    Some((packets, facts))
}

/// Puts the checksums of header and chunks right, as somebody can who has no key.
fn repair(file: &mut [u8]) {
    for offset in HEADER_COPY_OFFSETS {
        if let Some(fixed) = file.get_mut(offset..offset + 64) {
            let crc = crc32c::crc32c(&fixed[..60]);
            fixed[60..].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let mut at = CHUNKS_OFFSET;
    while let Some(header) = file.get(at..at + CHUNK_HEADER_BYTES) {
        let body = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
        let end = at.saturating_add(CHUNK_HEADER_BYTES).saturating_add(body);
        if header.starts_with(&CHUNK_MAGIC) && end <= file.len() {
            fill(&mut file[at..end]);
            at = end;
        } else {
            at += 1;
        }
    }
}

/// Fills in the checksums of a chunk.
pub(crate) fn fill(chunk: &mut [u8]) {
    let body = crc32c::crc32c(&chunk[CHUNK_HEADER_BYTES..]);
    chunk[32..36].copy_from_slice(&body.to_le_bytes());
    let header = crc32c::crc32c(&chunk[..36]);
    chunk[36..40].copy_from_slice(&header.to_le_bytes());
}

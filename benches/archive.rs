//! What it costs to make an archive: the file itself, and the Opus inside.

#![allow(clippy::unwrap_used)]

mod floor;
mod rendering;
mod traffic;

use std::io::Cursor;

use callvault_archive::{
    ArchiveCodec, ArchiveFacts, ArchiveTrack, Header, Keys, Summary, TICKS_PER_SECOND, Writer, verify,
};
use callvault_render_protocol::Output;
use callvault_seal::{DataKey, KeyId, SealedKey};
use floor::{Bench, Row, Turn};
use rendering::{BIT_RATE, Call, PACKET_TICKS, RawOpus, Rendering};
use sha2::{Digest, Sha256};
use traffic::{PACKETS_PER_SECOND, PAYLOAD_BYTES, RawCipher, TRACKS, ulaw_table};

/// Plaintext of a chunk of a second: 12 bytes before each payload.
const CHUNK_BYTES: usize = PACKETS_PER_SECOND * TRACKS * (12 + PAYLOAD_BYTES);
/// Payloads come round again after so many bytes: more than the caches near a core hold, as if all of them were different.
const PAYLOADS_BYTES: usize = 16 << 20;

fn main() {
    let bench = Bench::begin("archive: what it costs to make the file of a call");
    let seconds = bench.pick(3_600, 60);
    write(&bench, seconds);
    read_back(&bench, seconds);
    opus(&bench, 5);
    opus(&bench, 10);
}

/// A call of two G.711 tracks, and its archive in memory.
struct Archiving {
    seconds: usize,
    payloads: Vec<u8>,
    key: DataKey,
    facts: ArchiveFacts,
    file: Vec<u8>,
    cipher: RawCipher,
    plain: Vec<u8>,
}

impl Archiving {
    fn new(seconds: usize) -> Self {
        let codec = ArchiveCodec { encoding: "PCMU".into(), clock_rate: 8_000, channels: 1, ..ArchiveCodec::default() };
        let track = ArchiveTrack { codecs: vec![codec], ..ArchiveTrack::default() };
        let facts = ArchiveFacts {
            total_ticks: seconds as u64 * TICKS_PER_SECOND,
            tracks: vec![track; TRACKS],
            ..ArchiveFacts::default()
        };
        Self {
            seconds,
            payloads: (0..PAYLOADS_BYTES).map(|n| n as u8).collect(),
            key: DataKey::from_bytes([1; 32]),
            facts,
            file: Vec::new(),
            cipher: RawCipher::new(),
            plain: vec![0; seconds * CHUNK_BYTES],
        }
    }

    fn write(&mut self) -> Summary {
        let mut file = std::mem::take(&mut self.file);
        file.clear();
        let header = Header { recording: self.facts.recording_id, created_at_ns: 0 };
        let sealed = [SealedKey { recipient: KeyId([1; 8]), encapsulated: [1; 32], ciphertext: [1; 48] }];
        let mut writer = Writer::create(file, &header, Keys::InFile(&sealed), &self.key, &self.facts).unwrap();
        let payloads = self.payloads.chunks_exact(PAYLOAD_BYTES).cycle();
        let packets =
            (0..self.seconds * PACKETS_PER_SECOND).flat_map(|n| (0..TRACKS as u8).map(move |track| (n, track)));
        for ((n, track), payload) in packets.zip(payloads) {
            writer.packet(track, 0, n as u64 * PACKET_TICKS, payload).unwrap();
        }
        let summary;
        (self.file, summary) = writer.finish().unwrap();
        assert_eq!(summary.packets as usize, self.seconds * PACKETS_PER_SECOND * TRACKS);
        summary
    }

    /// The cipher over the same bytes in the same pieces.
    fn seal_raw(&mut self) {
        self.plain.chunks_exact_mut(CHUNK_BYTES).for_each(|chunk| self.cipher.seal(chunk));
    }
}

fn write(bench: &Bench, seconds: usize) {
    let what = format!("write the file: {} min of two tracks, as received", seconds / 60);
    let unit = "s of call";
    let subject = |state: &mut Archiving| Turn::timed(seconds, || state.write());
    let cipher = |state: &mut Archiving| Turn::timed(seconds, || state.seal_raw());
    let mut state = Archiving::new(seconds);
    bench.compare(&Row { what: &what, unit, floor: "AES-256-GCM of the same bytes" }, &mut state, subject, cipher);
    let passes = |state: &mut Archiving| {
        Turn::timed(seconds, || {
            let (mut sha256, mut sums) = (Sha256::new(), 0);
            for chunk in state.plain.chunks_exact_mut(CHUNK_BYTES) {
                state.cipher.seal(chunk);
                sums ^= crc32c::crc32c(chunk);
                sha256.update(chunk);
            }
            (sha256.finalize(), sums)
        })
    };
    let floor = "AES-256-GCM, SHA-256 and CRC-32C of the same bytes";
    bench.compare(&Row { what: "the same", unit, floor }, &mut state, subject, passes);
}

fn read_back(bench: &Bench, seconds: usize) {
    let mut state = Archiving::new(seconds);
    let written = state.write();
    let subject = |state: &mut Archiving| {
        Turn::timed(seconds, || {
            let report = verify(Cursor::new(&state.file), Some(&state.key)).unwrap();
            assert!(report.findings.is_empty() && report.sha256 == written.sha256);
        })
    };
    let floor = |state: &mut Archiving| Turn::timed(seconds, || state.seal_raw());
    let row = Row { what: "read it back and verify it", unit: "s of call", floor: "AES-256-GCM of the same bytes" };
    bench.compare(&row, &mut state, subject, floor);
}

fn opus(bench: &Bench, complexity: u8) {
    let seconds = bench.pick(10, 2);
    let call = Call::pcmu(seconds);
    let table = ulaw_table();
    let samples =
        [0, 1].map(|track| call.payloads(track).flatten().map(|code| table[usize::from(*code)]).collect::<Vec<i16>>());
    let mut state = Rendering::new(&call, Output::OpusTracks { bit_rate: BIT_RATE, complexity });
    let mut encoder = RawOpus::new(8_000, complexity);
    let subject = |state: &mut Rendering| {
        let turn = Turn::timed(seconds, || state.work());
        assert!(state.result().packets.len() >= seconds * PACKETS_PER_SECOND * TRACKS);
        turn
    };
    let floor = |_: &mut Rendering| {
        Turn::timed(seconds, || {
            let packets: usize = samples.iter().map(|samples| encoder.encode(samples)).sum();
            assert_eq!(packets, seconds * PACKETS_PER_SECOND * TRACKS);
        })
    };
    let what = format!("G.711 to Opus of two tracks, complexity {complexity}");
    let row = Row { what: &what, unit: "s of call", floor: "libopus encoding both tracks" };
    bench.compare(&row, &mut state, subject, floor);
}

//! What is inside the sealed chunks of an archive, from somebody who has the public key and can seal anything. The input is a list of
//! chunks: kind, index, first position, length, contents; seek table and End are put right unless the input says otherwise.

use std::io::Cursor;
use std::sync::OnceLock;

use callvault_archive::{ArchiveFacts, FINDINGS_MAX, Header, Keys, Played, Reader, Writer, verify};
use callvault_seal::{Cipher, DataKey};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::archive::{CHUNK_MAGIC, fill};
use crate::input::Input;

const CHUNKS_OFFSET: usize = 5_120;
const FIXED_BYTES: usize = 60;
const KIND_INDEX: u8 = 3;
const KIND_END: u8 = 4;
/// Bytes of a packet in an Audio chunk beside its payload.
const PACKET_HEADER_BYTES: usize = 12;

/// The clear header, its hash, and the cipher of the data key.
struct Frame {
    header: Vec<u8>,
    hash: [u8; 32],
    cipher: Cipher,
}

fn key() -> DataKey {
    DataKey::from_bytes([1; 32])
}

fn frame() -> &'static Frame {
    static FRAME: OnceLock<Frame> = OnceLock::new();
    FRAME.get_or_init(|| {
        let header = Header { recording: Uuid::from_u128(7), created_at_ns: 1 };
        let facts = ArchiveFacts { recording_id: header.recording, ..ArchiveFacts::default() };
        let writer = Writer::create(Vec::new(), &header, Keys::Elsewhere, &key(), &facts);
        let (mut bytes, _) = writer.and_then(Writer::finish).expect("an archive without packets");
        bytes.truncate(CHUNKS_OFFSET);
        let hash = Sha256::digest(&bytes[..FIXED_BYTES]).into();
        Frame { header: bytes, hash, cipher: key().cipher() }
    })
}

/// A file of sealed chunks, and what a seek table says of it.
struct File {
    bytes: Vec<u8>,
    chunks: u32,
    table: Vec<u8>,
}

/// Seals the chunks, and reads the file.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let ending = input.u8();
    let mut file = File { bytes: frame().header.clone(), chunks: 0, table: vec![0; 4] };
    while !input.is_empty() {
        let kind = input.u8();
        let index = if kind & 0x80 != 0 { input.u8().into() } else { file.chunks };
        let first_ticks = if kind & 0x40 != 0 { input.u64() } else { u64::from(input.u8()) * 24_000 };
        let bytes = usize::from(input.u16()) % 4_096;
        file.put(kind & 7, index, first_ticks, input.bytes(bytes));
    }
    if ending & 1 == 0 {
        file.end(ending);
    }
    check(&file.bytes);
}

impl File {
    /// Appends a sealed chunk, by the letter of the specification.
    fn put(&mut self, kind: u8, index: u32, first_ticks: u64, plain: &[u8]) {
        let frame = frame();
        self.table.extend((self.bytes.len() as u64).to_le_bytes());
        self.table.extend(first_ticks.to_le_bytes());
        self.table.push(kind);
        let mut chunk = CHUNK_MAGIC.to_vec();
        chunk.extend(index.to_le_bytes());
        chunk.extend([kind, u8::from(kind == KIND_END), 0, 0]);
        chunk.extend((plain.len() as u32 + 16).to_le_bytes());
        chunk.extend(first_ticks.to_le_bytes());
        chunk.extend(&frame.hash[..8]);
        let aad = [&frame.hash, chunk.as_slice()].concat();
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&frame.hash[..8]);
        nonce[8..].copy_from_slice(&index.to_le_bytes());
        chunk.resize(40, 0);
        chunk.extend(plain);
        frame.cipher.seal(&nonce, &aad, &mut chunk, 40);
        fill(&mut chunk);
        self.bytes.extend(chunk);
        self.chunks += 1;
    }

    /// Appends seek table and End; `ending` chooses what the End says of itself.
    fn end(&mut self, ending: u8) {
        let (listed, offset) = (self.chunks, self.bytes.len() as u64);
        let table = self.table.clone();
        self.put(KIND_INDEX, listed, 48_000, &table);
        let mut end = Vec::new();
        end.extend((listed + 2).to_le_bytes());
        end.extend(u64::from(ending >> 2).to_le_bytes());
        end.extend(if ending & 2 == 0 { 48_000 } else { u64::MAX }.to_le_bytes());
        end.extend(offset.to_le_bytes());
        end.extend(1_u32.to_le_bytes());
        self.put(KIND_END, listed + 1, 48_000, &end);
    }
}

/// The file is read, as far as it can be, in time and room that follow its size.
fn check(file: &[u8]) {
    let report = verify(file, Some(&key())).expect("the header is whole");
    assert!(report.findings.len() <= FINDINGS_MAX);
    for finding in &report.findings {
        let _ = finding.to_string();
    }
    let Ok(mut archive) = Reader::open(Cursor::new(file)).expect("the header is whole").unlock(&key()) else {
        assert!(!report.is_clean(), "a clean file does not open");
        return;
    };
    let _ = archive.facts();
    let (mut bytes, mut packets) = (0, 0);
    for played in archive.packets(0..u64::MAX) {
        if let Played::Packet(packet) = played.expect("memory reads without errors") {
            packets += 1;
            bytes += PACKET_HEADER_BYTES + packet.payload.len();
        }
    }
    assert!(bytes <= file.len() * 2, "{bytes} bytes of packets from {} of file", file.len());
    assert!(!report.is_clean() || report.packets == Some(packets), "a clean file does not play all it has");
    let ticks = 5..24_000;
    assert!(archive.packets(ticks.clone()).all(|played| match played.expect("memory reads without errors") {
        Played::Packet(packet) => ticks.contains(&packet.position),
        Played::Hole(_) => true,
    }));
}

//! What is inside sealed frames of a journal, from a recorder that was taken over: it has the public keys and can seal anything. The
//! input is a list of frames: kind and flags, length, contents.

use std::collections::BTreeMap;

use callvault_journal::facts::SessionEvent;
use callvault_journal::{FILE_HEADER_BYTES, FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC};
use callvault_policy::{Damage, FLAWS_MAX, summarise};

use crate::input::Input;
use crate::journal::{EVENT, GENERATION, Look, NAMED_BYTES, cipher, fill, sample};

const AUDIO: u8 = 3;
const FACTS: u8 = 4;
const LANE: u32 = 1;
/// Bytes of a batch before its packets, and of a packet before its payload.
const BATCH_HEADER_BYTES: usize = 8;
const PACKET_HEADER_BYTES: usize = 17;

/// Reads the frames as the daemon does, and makes a row of their facts.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    // The header of the sample's first file, which begins with frame 1.
    let mut file = sample().files[0][..FILE_HEADER_BYTES].to_vec();
    let (mut seq, mut batches) = (1, BTreeMap::new());
    while !input.is_empty() {
        let kind_and_flags = input.u8();
        let bytes = usize::from(input.u16()) % 4096;
        let plain = input.bytes(bytes);
        let kind = if kind_and_flags & 0x80 != 0 { FACTS } else { AUDIO };
        put_frame(&mut file, kind, kind_and_flags & 3, seq, plain);
        if kind == AUDIO {
            batches.insert(seq, plain);
        }
        seq += 1;
    }
    let mut look = Look::new();
    look.scan(0, &file);
    let report = look.scanner.report();
    assert!(report.frames == seq - 1 && report.is_sound(), "frames in good order are not found: {report:?}");
    let mut files = BTreeMap::from([(0, file.as_slice())]);
    check(&look, &mut files, &batches);
}

/// Appends a sealed frame, by the letter of the specification.
fn put_frame(file: &mut Vec<u8>, kind: u8, flags: u8, seq: u64, plain: &[u8]) {
    let body_bytes = (plain.len() + 16) as u32;
    let mut frame = FRAME_MAGIC.to_vec();
    frame.extend([kind, flags, 0, 0]);
    frame.extend(body_bytes.to_le_bytes());
    frame.extend(LANE.to_le_bytes());
    frame.extend(seq.to_le_bytes());
    let aad = [GENERATION.as_bytes(), frame.as_slice()].concat();
    let mut nonce = *b"CVJ1\0\0\0\0\0\0\0\0";
    nonce[4..].copy_from_slice(&seq.to_le_bytes());
    frame.resize(FRAME_HEADER_BYTES, 0);
    frame.extend(plain);
    cipher(LANE).seal(&nonce, &aad, &mut frame, FRAME_HEADER_BYTES);
    frame.resize(frame.len().next_multiple_of(FRAME_ALIGN), 0);
    fill(&mut frame);
    file.extend(frame);
}

/// Every frame gives what is in it or a finding; a batch gives all its packets or none.
fn check(look: &Look, files: &mut BTreeMap<u32, &[u8]>, batches: &BTreeMap<u64, &[u8]>) {
    let (items, _) = look.read(LANE, None, files);
    let mut events = Vec::new();
    for json in items.iter().filter_map(|item| item.strip_prefix(&[EVENT])) {
        let event: SessionEvent = serde_json::from_slice(json).expect("what was written can be read");
        assert!(serde_json::to_vec(&event).is_ok_and(|again| again == json), "an event changed on the way");
        events.push(event);
    }
    for frame in &look.frames(LANE) {
        let Some(plain) = batches.get(&frame.seq) else { continue };
        let (packets, findings) = look.read(LANE, Some(frame), files);
        assert!(findings == usize::from(!is_batch(plain)), "frame {}: {findings} findings", frame.seq);
        let payloads: usize = packets.iter().map(|packet| packet.len() - NAMED_BYTES).sum();
        if findings == 0 {
            let whole = BATCH_HEADER_BYTES + packets.len() * PACKET_HEADER_BYTES + payloads;
            assert!(whole == plain.len(), "{whole} bytes of packets in {} of plaintext", plain.len());
        }
    }
    let summary = summarise(&events, &Damage::default());
    assert!(summary.flaws.len() <= FLAWS_MAX);
    let json = serde_json::to_string(&summary).expect("a row is written to memory");
    assert!(serde_json::from_str::<callvault_policy::Summary>(&json).is_ok(), "a row that is written does not read");
}

/// Whether this is a batch by the specification: whole packets whose arrival times exist.
fn is_batch(plain: &[u8]) -> bool {
    let Some((base, mut rest)) = plain.split_first_chunk::<BATCH_HEADER_BYTES>() else { return false };
    let base_ns = i128::from(u64::from_le_bytes(*base));
    while let Some((header, behind)) = rest.split_first_chunk::<PACKET_HEADER_BYTES>() {
        let payload = usize::from(u16::from_le_bytes([header[3], header[4]]));
        let delta = i32::from_le_bytes([header[13], header[14], header[15], header[16]]);
        let arrival_ns = base_ns + i128::from(delta);
        if u64::try_from(arrival_ns).is_err() || payload > behind.len() {
            return false;
        }
        rest = &behind[payload..];
    }
    rest.is_empty()
}

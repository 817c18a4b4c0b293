//! A small journal with everything in it, and the means to take it apart.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::convert::Infallible;

use callvault_journal::facts::{CallFacts, Ended, Party, SessionEvent, Started};
use callvault_journal::{
    AudioBatch, Batch, FrameRef, Lane, LaneEnd, LaneIndex, LaneItem, LaneReader, Limits, Packet, Pushed, Report,
    Writer, verify,
};
use callvault_seal::{DataKey, Keyring, PrivateKey, SealedKey, seal_key};
use uuid::Uuid;

/// A random number generator whose output is part of the golden vectors and so must never change: SplitMix64.
pub(crate) struct Seeded(pub(crate) u64);

impl rand::TryRng for Seeded {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.try_next_u64()? >> 32) as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(z ^ (z >> 31))
    }
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for byte in to {
            *byte = self.try_next_u64()? as u8;
        }
        Ok(())
    }
}
impl rand::TryCryptoRng for Seeded {}

pub(crate) const GENERATION: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
pub(crate) const KEPT: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00aa);
pub(crate) const DISCARDED: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_00bb);
pub(crate) const NUMBER: &str = "+493012345678";

pub(crate) type Files = BTreeMap<u32, Vec<u8>>;

pub(crate) fn private_key() -> PrivateKey {
    PrivateKey::generate(&mut Seeded(1))
}

pub(crate) fn keyring() -> Keyring {
    Keyring::new(private_key(), vec![]).unwrap()
}

pub(crate) fn data_key(lane: u32) -> DataKey {
    DataKey::generate(&mut Seeded(100 + u64::from(lane)))
}

pub(crate) fn sealed_for(lane: Lane) -> Vec<SealedKey> {
    let key = data_key(lane.number());
    let private = private_key();
    vec![seal_key(&mut Seeded(3), private.public(), &key, &lane.key_context())]
}

/// What was read, owned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Facts(SessionEvent),
    Packet { head: (u8, u8, u8, bool), seq: u32, timestamp: u32, arrival_ns: u64, payload: Vec<u8> },
}

pub(crate) fn packet(n: u32, payload: &[u8]) -> Packet<'_> {
    Packet {
        track: (n % 2) as u8,
        source: (n / 7) as u8,
        payload_type: 8,
        marker: n.is_multiple_of(5),
        seq: 65_530 + n,
        timestamp: (u32::MAX - 500).wrapping_add(n * 160),
        arrival_ns: 5_000_000_000 + u64::from(n) * 20_000_000,
        payload,
    }
}

pub(crate) fn payload(n: u32) -> Vec<u8> {
    format!("audio payload {n}").into_bytes()
}

pub(crate) fn audio(numbers: std::ops::Range<u32>) -> AudioBatch {
    let mut batch = AudioBatch::new();
    for n in numbers {
        assert_eq!(batch.push(&packet(n, &payload(n))), Pushed::Taken);
    }
    batch
}

pub(crate) fn started() -> SessionEvent {
    SessionEvent::Started(Started {
        wall_ns: 1_790_000_000_000_000_000,
        at_ns: 5_000_000_000,
        sip_call_id: "call-1@peer.example".to_owned(),
        peer: "192.0.2.1:5060".to_owned(),
        transport: "udp".to_owned(),
        user_agent: None,
        follows: None,
        resumed: None,
    })
}

pub(crate) fn call() -> SessionEvent {
    SessionEvent::Call(Box::new(CallFacts {
        local: Party { number: Some(NUMBER.to_owned()), ..Party::default() },
        ..CallFacts::default()
    }))
}

pub(crate) fn ended() -> SessionEvent {
    SessionEvent::Ended(Ended { reason: "bye".to_owned(), ..Ended::default() })
}

/// Puts a batch where it belongs, as the driver's `pwrite` does.
pub(crate) fn store(files: &mut Files, batch: Batch) {
    let file = files.entry(batch.file_seq).or_default();
    assert_eq!(file.len() as u64, batch.offset);
    file.extend_from_slice(&batch.bytes);
}

pub(crate) fn journal() -> Files {
    journal_of([started(), call(), ended()])
}

/// Two lanes interleaved over two files: lane 1 is kept, lane 2 is discarded.
pub(crate) fn journal_of(events: [SessionEvent; 3]) -> Files {
    let [first, second, third] = events;
    let mut files = Files::new();
    let mut w = Writer::new(GENERATION, 1_790_000_000_000_000_000, 5_000_000_000, Limits::default());
    let kept = w.open_lane(KEPT, 0).unwrap();
    let discarded = w.open_lane(DISCARDED, 3).unwrap();
    let (one, two) = (data_key(kept.number()).cipher(), data_key(discarded.number()).cipher());
    w.write_facts(kept, &one, &first).unwrap();
    w.write_facts(discarded, &two, &first).unwrap();
    w.write_audio(kept, &one, &mut audio(0..3)).unwrap();
    w.write_audio(discarded, &two, &mut audio(50..52)).unwrap();
    w.write_facts(kept, &one, &second).unwrap();
    w.write_key(kept, &sealed_for(kept)).unwrap();
    let batch = w.take();
    let durable = batch.last_seq;
    store(&mut files, batch);
    w.commit(durable, 1_790_000_001_000_000_000, 6_000_000_000);
    w.write_audio(kept, &one, &mut audio(3..4)).unwrap();
    let last = w.rotate(1_790_000_002_000_000_000, 7_000_000_000).unwrap();
    store(&mut files, last);
    w.write_audio(discarded, &two, &mut audio(52..53)).unwrap();
    w.write_audio(kept, &one, &mut audio(4..9)).unwrap();
    w.end_lane(discarded, LaneEnd::Discarded, &[]).unwrap();
    w.write_facts(kept, &one, &third).unwrap();
    w.end_lane(kept, LaneEnd::Ended, &sealed_for(kept)).unwrap();
    let batch = w.take();
    let durable = batch.last_seq;
    store(&mut files, batch);
    w.commit(durable, 1_790_000_003_000_000_000, 8_000_000_000);
    store(&mut files, w.finish());
    files
}

pub(crate) struct Look {
    pub(crate) report: Report,
    pub(crate) index: LaneIndex,
    /// Of lane 1, by frame.
    pub(crate) items: BTreeMap<u64, Vec<Item>>,
    /// Findings of the frames of lane 1.
    pub(crate) unopened: usize,
}

pub(crate) fn owned(item: LaneItem<'_>, items: &mut Vec<Item>) -> usize {
    match item {
        LaneItem::Facts(event) => items.push(Item::Facts(event)),
        LaneItem::Audio(packets) => items.extend(packets.map(|p| Item::Packet {
            head: (p.track, p.source, p.payload_type, p.marker),
            seq: p.seq,
            timestamp: p.timestamp,
            arrival_ns: p.arrival_ns,
            payload: p.payload.to_vec(),
        })),
        LaneItem::Finding(_) => return 1,
    }
    0
}

/// Reads the given frames of a lane; the number of findings with the items.
pub(crate) fn read_frames(files: &mut Files, lane: u32, frames: &[FrameRef]) -> (Vec<Item>, usize) {
    let cipher = data_key(lane).cipher();
    let mut reader = LaneReader::new(GENERATION, lane, cipher, frames.iter().copied());
    let (mut items, mut findings) = (Vec::new(), 0);
    while let Some(item) = reader.next(files).unwrap() {
        findings += owned(item, &mut items);
    }
    (items, findings)
}

/// Scans all files and reads lane 1 frame by frame.
pub(crate) fn look(files: &mut Files) -> Look {
    let file_seqs: Vec<u32> = files.keys().copied().collect();
    let (report, index) = verify(GENERATION, file_seqs, files).unwrap();
    let (mut items, mut unopened) = (BTreeMap::new(), 0);
    if let Some(entry) = index.get(1) {
        for frame in entry.frames.load().unwrap().into_iter() {
            let (read, findings) = read_frames(files, 1, &[frame]);
            unopened += findings;
            if findings == 0 {
                items.insert(frame.seq, read);
            }
        }
    }
    Look { report, index, items, unopened }
}

/// Where the frames of an intact file are: sequence, offset, end.
pub(crate) fn frames_of(files: &mut Files, file_seq: u32) -> Vec<(u64, usize, usize)> {
    let mut scanner = callvault_journal::Scanner::new(GENERATION);
    let mut frames = Vec::new();
    for (seq, file) in files.iter_mut() {
        scanner
            .scan(*seq, file, &mut |frame| {
                if frame.at.file_seq == file_seq {
                    let from = frame.at.offset as usize;
                    frames.push((frame.at.seq, from, from + frame.at.frame_len() as usize));
                }
            })
            .unwrap();
    }
    frames
}

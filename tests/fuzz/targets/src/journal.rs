//! A journal file whose bytes were changed: whatever becomes of it, nothing is read from it that was not written. The first byte of
//! the input says what else is there, the rest is the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use callvault_journal::facts::{Ended, SessionEvent, Started};
use callvault_journal::{
    AudioBatch, BODY_BYTES_MAX, FILE_HEADER_BYTES, FINDINGS_MAX, FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC,
    FrameRef, Kind, Lane, LaneEnd, LaneIndex, LaneItem, LaneReader, Limits, Packet, Pushed, Scanner, Writer,
};
use callvault_seal::{Cipher, DataKey, KeyId, SealedKey};
use uuid::Uuid;

/// Put checksums right before reading.
pub const REPAIR: u8 = 1;
/// An intact file follows.
pub const FOLLOWED: u8 = 2;
/// The file is the second; an intact one goes before.
pub const SECOND: u8 = 4;
/// The file is read while it grows.
pub const GROWS: u8 = 8;

pub(crate) const GENERATION: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
/// First byte of an item that is an event; its JSON follows.
pub(crate) const EVENT: u8 = 0;
/// First byte of an item that is a packet.
const PACKET: u8 = 1;
/// Bytes of a packet's item beside its payload.
pub(crate) const NAMED_BYTES: usize = 21;
const LANES: std::ops::RangeInclusive<u32> = 1..=2;

/// What a lane says, by sequence: the events in JSON, the packets by their numbers and payloads.
type Written = BTreeMap<u64, Vec<Vec<u8>>>;

/// A small journal, and what is in it.
pub struct Sample {
    /// The two files.
    pub files: [Vec<u8>; 2],
    written: [Written; 2],
}

/// The journal that inputs are changed from.
pub fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let files = compose();
        let mut look = Look::new();
        for (file_seq, file) in (0..).zip(&files) {
            look.scan(file_seq, file);
        }
        assert!(look.scanner.report().is_sound() && look.scanner.ended());
        let mut all = BTreeMap::from([(0, files[0].as_slice()), (1, files[1].as_slice())]);
        let written = [1, 2].map(|lane| look.read_by_frame(lane, &mut all));
        assert!(written.iter().all(|lane| lane.len() >= 4), "the sample does not read");
        Sample { files, written }
    })
}

pub(crate) fn cipher(lane: u32) -> Cipher {
    DataKey::from_bytes([lane as u8; 32]).cipher()
}

/// Two lanes over two files, with everything in them.
fn compose() -> [Vec<u8>; 2] {
    let mut writer = Writer::new(GENERATION, 1_790_000_000_000_000_000, 5_000_000_000, Limits::default());
    let mut files = [Vec::new(), Vec::new()];
    let lanes: Vec<Lane> = LANES.map(|n| writer.open_lane(Uuid::from_u128(n.into()), 0).expect("a lane")).collect();
    for lane in &lanes {
        writer.write_facts(*lane, &cipher(lane.number()), &started()).expect("an event");
        write_audio(&mut writer, *lane, 0);
    }
    writer.write_key(lanes[0], &sealed_keys()).expect("a key");
    let batch = writer.take();
    let durable = batch.last_seq;
    files[0].extend(batch.bytes);
    writer.commit(durable, 1_790_000_001_000_000_000, 6_000_000_000);
    write_audio(&mut writer, lanes[0], 1);
    files[0].extend(writer.rotate(1_790_000_002_000_000_000, 7_000_000_000).expect("a next file").bytes);
    for lane in &lanes {
        write_audio(&mut writer, *lane, 2);
        let ended = SessionEvent::Ended(Ended { reason: "bye".to_owned(), ..Ended::default() });
        writer.write_facts(*lane, &cipher(lane.number()), &ended).expect("an event");
    }
    writer.end_lane(lanes[1], LaneEnd::Discarded, &[]).expect("an end");
    writer.end_lane(lanes[0], LaneEnd::Ended, &sealed_keys()).expect("an end");
    files[1].extend(writer.take().bytes);
    files[1].extend(writer.finish().bytes);
    files
}

pub(crate) fn started() -> SessionEvent {
    SessionEvent::Started(Started {
        wall_ns: 1_790_000_000_000_000_000,
        at_ns: 5_000_000_000,
        sip_call_id: "call".to_owned(),
        peer: "192.0.2.1:5060".to_owned(),
        transport: "udp".to_owned(),
        ..Started::default()
    })
}

/// It opens nothing: the reader is given the key.
fn sealed_keys() -> [SealedKey; 1] {
    [SealedKey { recipient: KeyId([1; 8]), encapsulated: [2; 32], ciphertext: [3; 48] }]
}

fn write_audio(writer: &mut Writer, lane: Lane, number: u32) {
    let mut batch = AudioBatch::new();
    for n in 0..3 {
        let payload = [lane.number() as u8, number as u8, n as u8, 0xff, 0x7f];
        let packet = Packet {
            track: (n % 2) as u8,
            source: 0,
            payload_type: 8,
            marker: n == 0,
            seq: 65_530 + number * 3 + n,
            timestamp: number * 480 + n * 160,
            arrival_ns: 5_000_000_000 + u64::from(number) * 60_000_000,
            payload: &payload,
        };
        assert!(batch.push(&packet) == Pushed::Taken);
    }
    writer.write_audio(lane, &cipher(lane.number()), &mut batch).expect("a batch");
}

/// Reads the changed file.
pub fn run(input: &[u8]) {
    let Some((&flags, file)) = input.split_first() else { return };
    let sample = sample();
    let mut file = file.to_vec();
    if flags & REPAIR != 0 {
        repair(&mut file);
    }
    let (mut look, mut files) = (Look::new(), BTreeMap::new());
    let file_seq = u32::from(flags & SECOND != 0);
    if flags & SECOND != 0 {
        files.insert(0, sample.files[0].as_slice());
        look.scan(0, &sample.files[0]);
    }
    if flags & GROWS != 0 {
        let sixteenths = usize::from(flags >> 4);
        look.scan(file_seq, &file[..file.len() * sixteenths / 16]);
    }
    look.scan(file_seq, &file);
    files.insert(file_seq, file.as_slice());
    if flags & (SECOND | FOLLOWED) == FOLLOWED {
        files.insert(1, sample.files[1].as_slice());
        look.scan(1, &sample.files[1]);
    }
    check(look, &mut files, sample);
}

fn check(look: Look, files: &mut BTreeMap<u32, &[u8]>, sample: &Sample) {
    let report = look.scanner.report();
    let passed_on = look.intact.len() as u64;
    // Of a later file that has numbers from before, some are passed on that were not thought to be missing.
    assert!(
        report.frames <= passed_on && (report.frames == passed_on || look.files_differ),
        "{} frames counted, {passed_on} passed on",
        report.frames
    );
    assert!(report.findings.len() <= FINDINGS_MAX);
    for (lane, written) in LANES.zip(&sample.written) {
        let found = look.read_by_frame(lane, files);
        for (seq, items) in &found {
            assert!(written.get(seq) == Some(items), "frame {seq} of lane {lane} says what was not written");
        }
        let all: usize = found.values().map(Vec::len).sum();
        let (together, _) = look.read(lane, None, files);
        assert!(together.len() == all, "read at once there are {} items, frame by frame {all}", together.len());
    }
}

/// A reading of some files.
pub(crate) struct Look {
    pub(crate) scanner: Scanner,
    index: LaneIndex,
    /// Sequences of the intact frames. Each is passed on once, and again where a later file has it, too.
    intact: BTreeSet<u64>,
    first_file: Option<u32>,
    files_differ: bool,
}

impl Look {
    pub(crate) fn new() -> Self {
        Self {
            scanner: Scanner::new(GENERATION),
            index: LaneIndex::new(),
            intact: BTreeSet::new(),
            first_file: None,
            files_differ: false,
        }
    }

    pub(crate) fn scan(&mut self, file_seq: u32, mut file: &[u8]) {
        let may_be_again = *self.first_file.get_or_insert(file_seq) != file_seq;
        self.files_differ |= may_be_again;
        let (index, intact) = (&mut self.index, &mut self.intact);
        // An error is a file of a newer version.
        let _ = self.scanner.scan(file_seq, &mut file, &mut |frame| {
            assert!(!frame.at.intact || frame.body.len() == frame.at.body_len as usize);
            let is_first = !frame.at.intact || intact.insert(frame.at.seq);
            assert!(is_first || may_be_again, "frame {} is passed on twice", frame.at.seq);
            index.add(frame);
        });
    }

    /// The items of a lane, or of one of its frames; and how many findings there were.
    pub(crate) fn read(
        &self,
        lane: u32,
        only: Option<&FrameRef>,
        files: &mut BTreeMap<u32, &[u8]>,
    ) -> (Vec<Vec<u8>>, usize) {
        let (mut items, mut findings) = (Vec::new(), 0);
        let frames = only.map_or_else(|| self.frames(lane), |frame| vec![*frame]);
        let mut reader = LaneReader::new(GENERATION, lane, cipher(lane), frames);
        while let Some(item) = reader.next(files).expect("every file that was scanned is there") {
            match item {
                LaneItem::Facts(event) => {
                    let json = serde_json::to_vec(&event).expect("an event is written to memory");
                    items.push([&[EVENT], json.as_slice()].concat());
                }
                LaneItem::Audio(packets) => items.extend(packets.map(|packet| named(&packet))),
                LaneItem::Finding(_) => findings += 1,
            }
        }
        (items, findings)
    }

    /// The sealed frames of a lane.
    pub(crate) fn frames(&self, lane: u32) -> Vec<FrameRef> {
        self.index.get(lane).map_or_else(Vec::new, |entry| entry.frames.load().expect("all of it is in memory"))
    }

    fn read_by_frame(&self, lane: u32, files: &mut BTreeMap<u32, &[u8]>) -> Written {
        let mut written = Written::new();
        for frame in &self.frames(lane) {
            let (items, findings) = self.read(lane, Some(frame), files);
            assert!(items.is_empty() || findings == 0);
            assert!(matches!(frame.kind, Kind::Audio | Kind::Facts));
            if !items.is_empty() {
                written.insert(frame.seq, items);
            }
        }
        written
    }
}

/// A packet as bytes: [`NAMED_BYTES`] of numbers, and its payload.
fn named(packet: &Packet<'_>) -> Vec<u8> {
    let Packet { track, source, payload_type, marker, seq, timestamp, arrival_ns, payload } = *packet;
    let mut out = vec![PACKET, track, source, payload_type, marker.into()];
    out.extend(seq.to_le_bytes());
    out.extend(timestamp.to_le_bytes());
    out.extend(arrival_ns.to_le_bytes());
    out.extend(payload);
    out
}

/// Puts the checksums of header and frames right, as somebody can who has no key.
fn repair(file: &mut [u8]) {
    if let Some(header) = file.get_mut(..FILE_HEADER_BYTES) {
        let crc = crc32c::crc32c(&header[..76]);
        header[76..].copy_from_slice(&crc.to_le_bytes());
    }
    let mut at = FILE_HEADER_BYTES;
    while let Some(header) = file.get(at..at + FRAME_HEADER_BYTES) {
        let body = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let end = at + FRAME_HEADER_BYTES + body.min(BODY_BYTES_MAX).next_multiple_of(FRAME_ALIGN);
        if header.starts_with(&FRAME_MAGIC) && end <= file.len() {
            fill(&mut file[at..end]);
            at = end;
        } else {
            at += FRAME_ALIGN;
        }
    }
}

/// Fills in the checksums of a frame.
pub(crate) fn fill(frame: &mut [u8]) {
    let body = crc32c::crc32c(&frame[FRAME_HEADER_BYTES..]);
    frame[24..28].copy_from_slice(&body.to_le_bytes());
    let header = crc32c::crc32c_append(crc32c::crc32c(GENERATION.as_bytes()), &frame[..28]);
    frame[28..32].copy_from_slice(&header.to_le_bytes());
}

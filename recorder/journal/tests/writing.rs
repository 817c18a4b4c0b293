//! The writer's promises: limits, rotation, giving a file up, long events, keys that open only where they belong.
#![allow(clippy::unwrap_used)]

mod sample;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use callvault_journal::facts::{RawBody, SessionEvent};
use callvault_journal::{
    AUDIO_BATCH_BYTES, AudioBatch, EarlierKey, FACTS_BYTES_MAX, FindingKind, JournalError, LaneEnd, LaneItem,
    LaneReader, Limits, PAYLOAD_BYTES_MAX, Packet, Pushed, ReadAt, SEALED_KEYS_MAX, Writer, verify, verify_lane,
};
use sample::*;
use uuid::Uuid;

fn writer() -> Writer {
    Writer::new(GENERATION, 0, 0, Limits::default())
}

fn raw(len: usize) -> SessionEvent {
    SessionEvent::Raw(RawBody { text: "x".repeat(len), ..RawBody::default() })
}

fn check_event_round_trip(event: SessionEvent) {
    let mut w = writer();
    let lane = w.open_lane(KEPT, 0).unwrap();
    let cipher = data_key(1).cipher();
    w.write_facts(lane, &cipher, &event).unwrap();
    w.write_facts(lane, &cipher, &ended()).unwrap();
    let mut files = Files::new();
    store(&mut files, w.finish());
    let found = look(&mut files);
    let (items, findings) =
        read_frames(&mut files, 1, &found.index.get(1).unwrap().frames.load().unwrap().into_iter().collect::<Vec<_>>());
    let expected = [event, ended()].map(Item::Facts);
    assert_eq!((items.as_slice(), findings), (&expected[..], 0));
}

#[test]
fn events_of_any_length() {
    check_event_round_trip(started());
    let empty = serde_json::to_vec(&raw(0)).unwrap().len();
    let frame = callvault_journal::PLAIN_BYTES_MAX;
    for len in [frame - 1, frame, frame + 1, 2 * frame, 5 * frame, FACTS_BYTES_MAX] {
        check_event_round_trip(raw(len - empty));
    }
    let mut w = writer();
    let lane = w.open_lane(KEPT, 0).unwrap();
    let too_long = w.write_facts(lane, &data_key(1).cipher(), &raw(FACTS_BYTES_MAX));
    assert!(matches!(too_long, Err(JournalError::FactsTooLarge { .. })));
    assert_eq!(w.last_seq(), 1);
}

#[test]
fn an_event_with_a_missing_part_is_lost_alone() {
    let mut w = writer();
    let lane = w.open_lane(KEPT, 0).unwrap();
    let cipher = data_key(1).cipher();
    w.write_facts(lane, &cipher, &started()).unwrap();
    w.write_facts(lane, &cipher, &raw(200_000)).unwrap();
    w.write_facts(lane, &cipher, &ended()).unwrap();
    let mut files = Files::new();
    store(&mut files, w.finish());
    let frames = look(&mut files).index.get(1).unwrap().frames.load().unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!(frames.len(), 6);
    let expected = [started(), ended()].map(Item::Facts);
    for lost in 1..5 {
        // Not in the index, as when the frame's header is gone; and there, but changed.
        let mut without = frames.clone();
        without.remove(lost);
        let (items, findings) = read_frames(&mut files, 1, &without);
        assert_eq!(items, expected, "part {lost}");
        assert!(findings > 0, "part {lost}");

        let mut bad = files.clone();
        bad.get_mut(&0).unwrap()[frames[lost].offset as usize + 40] ^= 1;
        let (items, findings) = read_frames(&mut bad, 1, &frames);
        assert_eq!(items, expected, "part {lost}");
        assert!(findings > 0, "part {lost}");
    }
    // Cut off within the event.
    let (items, findings) = read_frames(&mut files, 1, &frames[..3]);
    assert_eq!((items.as_slice(), findings), (&expected[..1], 1));
}

#[test]
fn malformed_events_do_not_repeat_what_they_hold() {
    // An event of another shape under a valid seal: what a program with a bug would write.
    let mut w = writer();
    let lane = w.open_lane(KEPT, 0).unwrap();
    let key = data_key(1);
    w.write_facts(lane, &key.cipher(), &call()).unwrap();
    let mut files = Files::new();
    store(&mut files, w.finish());
    let frame = look(&mut files).index.get(1).unwrap().frames.load().unwrap().into_iter().next().unwrap();
    // Seal it anew, with the same header, as text that is no event but just as long.
    let file = files.get_mut(&0).unwrap();
    let (from, to) = (frame.offset as usize, frame.offset as usize + 32 + frame.body_len as usize);
    let mut nonce = *b"CVJ1\0\0\0\0\0\0\0\0";
    nonce[4..].copy_from_slice(&frame.seq.to_le_bytes());
    let aad = [GENERATION.as_bytes(), &file[from..from + 24]].concat();
    let mut body = format!("{{\"event\":\"{NUMBER}").into_bytes();
    body.resize(frame.body_len as usize - 16, b' ');
    key.cipher().seal(&nonce, &aad, &mut body, 0);
    file[from + 32..to].copy_from_slice(&body);
    let mut reader = LaneReader::new(GENERATION, 1, key.cipher(), [frame]);
    match reader.next(&mut files).unwrap() {
        Some(LaneItem::Finding(finding)) => {
            assert_eq!(finding.kind, FindingKind::Malformed);
            assert!(!format!("{finding:?}").contains(NUMBER));
        }
        other => panic!("{other:?}"),
    }
    assert!(reader.next(&mut files).unwrap().is_none());
}

#[test]
fn a_batch_takes_what_fits_and_loses_nothing() {
    let mut batch = AudioBatch::new();
    let bytes = vec![7; 1000];
    let mut taken = 0;
    while batch.push(&packet(taken, &bytes)) == Pushed::Taken {
        taken += 1;
    }
    assert_eq!(taken as usize, (AUDIO_BATCH_BYTES - 8) / 1017);
    assert_eq!(batch.packets(), taken);
    assert_eq!(batch.first_arrival_ns(), Some(5_000_000_000));
    assert_eq!(batch.push(&packet(taken, &bytes)), Pushed::Full);
    batch.clear();
    assert!(batch.is_empty());
    assert_eq!(batch.push(&packet(taken, &bytes)), Pushed::Taken);

    let long = vec![0; PAYLOAD_BYTES_MAX + 1];
    assert_eq!(batch.push(&packet(0, &long)), Pushed::TooLong);
    assert_eq!(AudioBatch::new().push(&packet(0, &long[1..])), Pushed::Taken);
    assert_eq!(AudioBatch::new().push(&packet(0, &vec![0; 70_000])), Pushed::TooLong);
}

#[test]
fn arrivals_far_apart_go_into_separate_batches() {
    let at = |arrival_ns| Packet { arrival_ns, ..packet(0, b"x") };
    let mut batch = AudioBatch::new();
    assert_eq!(batch.push(&at(10_000_000_000)), Pushed::Taken);
    assert_eq!(batch.push(&at(10_000_000_000 + i32::MAX as u64)), Pushed::Taken);
    assert_eq!(batch.push(&at(10_000_000_001 + i32::MAX as u64)), Pushed::Full);
    assert_eq!(batch.push(&at(8_000_000_000)), Pushed::Taken);
    assert_eq!(batch.push(&at(0)), Pushed::Full);
    assert_eq!(batch.push(&at(u64::MAX)), Pushed::Full);
    batch.clear();
    assert_eq!(batch.push(&at(u64::MAX)), Pushed::Taken);
    assert_eq!(batch.push(&at(u64::MAX - 5)), Pushed::Taken);
}

/// A file that notes what is announced (true) and what is read (false), by its place.
struct Noted {
    bytes: Vec<u8>,
    notes: Rc<RefCell<Vec<(bool, u64)>>>,
}

impl ReadAt for Noted {
    fn len(&mut self) -> io::Result<u64> {
        ReadAt::len(&mut self.bytes)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.notes.borrow_mut().push((false, offset));
        self.bytes.read_at(offset, buf)
    }

    fn will_read(&mut self, offset: u64, _len: usize) {
        self.notes.borrow_mut().push((true, offset));
    }
}

#[test]
fn what_is_read_is_announced_once_before_and_not_too_early() {
    const FRAMES: u32 = 1_000;
    let mut w = writer();
    let lane = w.open_lane(KEPT, 0).unwrap();
    let cipher = data_key(1).cipher();
    for n in 0..FRAMES {
        w.write_audio(lane, &cipher, &mut audio(n..n + 1)).unwrap();
    }
    let mut files = Files::new();
    store(&mut files, w.finish());
    let numbers: Vec<u32> = files.keys().copied().collect();
    let (_, index) = verify(GENERATION, numbers, &mut files).unwrap();
    let notes = Rc::new(RefCell::new(Vec::new()));
    let noted = |bytes| Noted { bytes, notes: Rc::clone(&notes) };
    let mut noted: BTreeMap<u32, Noted> = files.into_iter().map(|(number, bytes)| (number, noted(bytes))).collect();
    let frames = index.get(1).unwrap().frames.load().unwrap();
    let mut reader = LaneReader::new(GENERATION, 1, cipher, frames);
    while reader.next(&mut noted).unwrap().is_some() {}
    let (mut ahead, mut furthest, mut read) = (BTreeSet::new(), 0, 0);
    for (is_announced, offset) in notes.borrow().iter() {
        if *is_announced {
            assert!(ahead.insert(*offset), "announced twice");
            furthest = furthest.max(ahead.len());
        } else {
            assert!(ahead.remove(offset), "read without a word before");
            read += 1;
        }
    }
    assert_eq!((read, ahead.len()), (FRAMES, 0));
    assert!((64..=128).contains(&furthest), "{furthest}");
}

#[test]
fn what_waits_is_bounded() {
    let limits = Limits { pending_bytes_max: 1_000, ..Limits::default() };
    let mut w = Writer::new(GENERATION, 0, 0, limits);
    let lane = w.open_lane(KEPT, 0).unwrap();
    let cipher = data_key(1).cipher();
    let mut batch = AudioBatch::new();
    assert_eq!(batch.push(&packet(0, &[1; 900])), Pushed::Taken);
    let before = (w.pending_bytes(), w.last_seq());
    for _ in 0..2 {
        let full = w.write_audio(lane, &cipher, &mut batch);
        assert!(matches!(full, Err(JournalError::PendingFull { .. })));
    }
    assert!(w.write_facts(lane, &cipher, &raw(2_000)).is_err());
    assert_eq!((w.pending_bytes(), w.last_seq()), before);
    assert_eq!(batch.packets(), 1);
    let taken = w.take();
    w.recycle(taken.bytes);
    w.write_audio(lane, &cipher, &mut batch).unwrap();
    assert!(batch.is_empty());
    assert_eq!(w.last_seq(), before.1 + 1);
}

#[test]
fn keys_are_counted_and_lanes_belong_to_a_generation() {
    let mut w = writer();
    let lane = w.open_lane(KEPT, 0).unwrap();
    let keys = vec![sealed_for(lane)[0].clone(); SEALED_KEYS_MAX + 1];
    assert!(w.write_key(lane, &keys).is_err());
    assert!(w.write_key(lane, &[]).is_err());
    assert!(w.write_key(lane, &keys[1..]).is_ok());
    let mut other = Writer::new(Uuid::from_u128(5), 0, 0, Limits::default());
    let cipher = data_key(1).cipher();
    let foreign = |result| assert!(matches!(result, Err(JournalError::ForeignLane)));
    foreign(other.write_key(lane, &keys[1..]));
    foreign(other.write_facts(lane, &cipher, &ended()));
    foreign(other.write_audio(lane, &cipher, &mut audio(0..1)));
    foreign(other.end_lane(lane, LaneEnd::Ended, &[]));
}

#[test]
fn files_rotate_by_size_and_age() {
    let limits = Limits { file_bytes_max: 10_000, file_age_ms_max: 60_000, ..Limits::default() };
    let mut w = Writer::new(GENERATION, 0, 1_000_000_000, limits);
    let lane = w.open_lane(KEPT, 0).unwrap();
    assert!(!w.should_rotate(0));
    assert!(!w.should_rotate(60_999_999_999));
    assert!(w.should_rotate(61_000_000_000));
    let mut batch = AudioBatch::new();
    assert_eq!(batch.push(&packet(0, &[1; 9_000])), Pushed::Taken);
    w.write_audio(lane, &data_key(1).cipher(), &mut batch).unwrap();
    assert!(!w.should_rotate(1_000_000_000));
    let first = w.take();
    assert_eq!(batch.push(&packet(0, &[1; 900])), Pushed::Taken);
    w.write_audio(lane, &data_key(1).cipher(), &mut batch).unwrap();
    assert!(w.should_rotate(1_000_000_000));
    let last = w.rotate(5, 62_000_000_000).unwrap();
    assert_eq!((last.file_seq, last.offset), (0, first.bytes.len() as u64));
    assert_eq!((w.file_seq(), w.should_rotate(62_000_000_000)), (1, false));
    let next = w.take();
    assert_eq!((next.file_seq, next.offset, next.first_seq), (1, 0, last.last_seq + 1));
}

/// Whatever of the given-up file is on the disk after all, nothing is lost and nothing is there twice.
fn check_abandoned(on_disk: usize) {
    let mut w = writer();
    let lane = w.open_lane(KEPT, 0).unwrap();
    let cipher = data_key(1).cipher();
    let mut files = Files::new();
    store(&mut files, w.take());
    w.write_audio(lane, &cipher, &mut audio(0..2)).unwrap();
    let failed = w.take();
    w.write_audio(lane, &cipher, &mut audio(2..4)).unwrap();
    let half = &failed.bytes[..on_disk.min(failed.bytes.len())];
    files.get_mut(&0).unwrap().extend_from_slice(half);
    w.abandon_file([failed], 9, 9).unwrap();
    w.write_audio(lane, &cipher, &mut audio(4..6)).unwrap();
    w.end_lane(lane, LaneEnd::Ended, &sealed_for(lane)).unwrap();
    store(&mut files, w.finish());
    let found = look(&mut files);
    let packets: Vec<u32> = found
        .items
        .values()
        .flatten()
        .filter_map(|item| match item {
            Item::Packet { seq, .. } => Some(*seq - 65_530),
            Item::Facts(_) => None,
        })
        .collect();
    assert_eq!(packets, [0, 1, 2, 3, 4, 5], "{on_disk}");
    assert!(found.report.ended);
    assert!(!found.report.is_sound(), "{on_disk}: the disk error is told");
    let lost = found
        .report
        .findings
        .iter()
        .filter(|finding| !matches!(finding.kind, FindingKind::Repeated) && finding.frames.is_some());
    assert_eq!(lost.count(), 0, "{on_disk}: {:?}", found.report.findings);
}

#[test]
fn a_file_given_up_loses_nothing() {
    for on_disk in [0, 1, 16, 31, 32, 40, 100, 1_000] {
        check_abandoned(on_disk);
    }
}

#[test]
fn giving_up_the_very_first_batch() {
    let mut w = writer();
    let lane = w.open_lane(KEPT, 0).unwrap();
    let failed = w.take();
    w.write_audio(lane, &data_key(1).cipher(), &mut audio(0..2)).unwrap();
    w.abandon_file([failed], 9, 9).unwrap();
    let mut files = Files::new();
    store(&mut files, w.finish());
    let found = look(&mut files);
    assert_eq!(found.report.findings, vec![]);
    assert_eq!((found.report.frames, found.items.len()), (3, 1));
}

#[test]
fn a_lane_opens_with_its_own_key_in_its_own_place_only() {
    let mut files = journal();
    let found = look(&mut files);
    let kept = found.index.get(1).unwrap();
    let own = verify_lane(GENERATION, 1, kept, data_key(1).cipher(), &mut files).unwrap();
    assert_eq!((own.events, own.packets, own.findings.len()), (3, 9, 0));
    let other = verify_lane(GENERATION, 1, kept, data_key(2).cipher(), &mut files).unwrap();
    assert_eq!((other.events, other.packets), (0, 0));
    assert_eq!(other.findings.len(), kept.frames.len());
    assert!(other.findings.iter().all(|finding| finding.kind == FindingKind::NotAuthentic));

    let open = |generation, recording, lane| {
        let context = callvault_journal::key_context(generation, recording, lane);
        keyring().open(&kept.keys, &context).is_ok()
    };
    assert!(open(GENERATION, KEPT, 1));
    assert!(!open(GENERATION, KEPT, 2));
    assert!(!open(GENERATION, DISCARDED, 1));
    assert!(!open(Uuid::from_u128(5), KEPT, 1));
}

#[test]
fn a_forged_header_does_not_open() {
    // Who can compute checksums can rename a frame; the seal is bound to the header, so it does not open then.
    let files = journal();
    let frame = look(&mut files.clone()).index.get(1).unwrap().frames.load().unwrap().into_iter().nth(1).unwrap();
    let at = frame.offset as usize;
    for (byte, value) in [(4, 4), (5, 1), (6, 1), (12, 2), (16, 200)] {
        let mut bad = files.clone();
        let file = bad.get_mut(&0).unwrap();
        assert_ne!(file[at + byte], value);
        file[at + byte] = value;
        let seed = crc32c::crc32c(GENERATION.as_bytes());
        let crc = crc32c::crc32c_append(seed, &file[at..at + 28]);
        file[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
        let (_, index) = verify(GENERATION, [0, 1], &mut bad).unwrap();
        let lane = if byte == 12 { 2 } else { 1 };
        let moved =
            index.get(lane).unwrap().frames.load().unwrap().into_iter().find(|found| found.offset == frame.offset);
        let mut reader = LaneReader::new(GENERATION, lane, data_key(1).cipher(), [moved.unwrap()]);
        let item = reader.next(&mut bad).unwrap();
        assert!(
            matches!(&item, Some(LaneItem::Finding(finding)) if finding.kind == FindingKind::NotAuthentic),
            "byte {byte}: {item:?}"
        );
    }
}

#[test]
fn the_key_of_an_earlier_lane_is_found_in_the_lane_that_goes_on() {
    let mut w = writer();
    let lane = w.open_lane(KEPT, 1).unwrap();
    let of = EarlierKey { generation: Uuid::from_u128(9), lane: 7, keys: sealed_for(lane) };
    w.write_earlier_key(lane, &of).unwrap();
    w.write_earlier_key(lane, &of).unwrap();
    let none = EarlierKey { keys: Vec::new(), ..of.clone() };
    assert!(matches!(w.write_earlier_key(lane, &none), Err(JournalError::SealedKeysCount { .. })));
    let mut files = Files::new();
    store(&mut files, w.finish());
    let found = look(&mut files);
    let entry = found.index.get(1).unwrap();
    assert_eq!((entry.earlier_keys.as_slice(), entry.keys.len(), found.report.findings.len()), (&[of][..], 0, 0));
}

#[test]
fn a_frame_is_found_where_it_was_to_be_and_only_whole() {
    let mut w = writer();
    let lane = w.open_lane(KEPT, 0).unwrap();
    let cipher = data_key(1).cipher();
    let mut files = Files::new();
    let mut places = vec![w.last_place()];
    for n in 0..4 {
        w.write_audio(lane, &cipher, &mut audio(n..n + 1)).unwrap();
        places.push(w.last_place());
        if n % 2 == 0 {
            store(&mut files, w.take());
        }
    }
    store(&mut files, w.finish());
    let whole = files.remove(&0).unwrap();
    for place in places {
        let from = place.offset as usize;
        assert!(place.is_written(GENERATION, &mut whole.clone()).unwrap(), "{place:?}");
        assert!(!place.is_written(Uuid::from_u128(9), &mut whole.clone()).unwrap());
        for cut in [from, from + 1, from + 32, from + 33] {
            assert!(!place.is_written(GENERATION, &mut whole[..cut].to_vec()).unwrap(), "{place:?} cut at {cut}");
        }
        let mut damaged = whole.clone();
        damaged[from + 40] ^= 1;
        assert!(!place.is_written(GENERATION, &mut damaged).unwrap());
        let other = callvault_journal::FramePlace { seq: place.seq + 1, ..place };
        assert!(!other.is_written(GENERATION, &mut whole.clone()).unwrap());
    }
}

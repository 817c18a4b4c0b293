//! What always holds: what is written is read; damage is named and costs only the frames it touches.
#![allow(clippy::unwrap_used)]

mod sample;

use callvault_journal::FindingKind::{self, *};
use callvault_journal::{FILE_HEADER_BYTES, Finding, LaneEnd, Scanner, file_name, parse_file_name};
use sample::*;
use uuid::Uuid;

fn kinds(findings: &[Finding]) -> Vec<FindingKind> {
    findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn an_intact_journal_reads_as_written() {
    let mut files = journal();
    let found = look(&mut files);
    assert_eq!(found.report.findings, vec![]);
    assert!(found.report.ended && found.report.is_sound());
    assert_eq!(found.report.frames, found.report.last_seq);
    assert_eq!(found.unopened, 0);

    let kept = found.index.get(1).unwrap();
    assert_eq!((kept.recording, kept.segment), (Some(KEPT), 0));
    assert_eq!((kept.end, kept.files()), (Some(LaneEnd::Ended), Some(0..=1)));
    let context = kept.key_context(GENERATION, 1).unwrap();
    assert_eq!(keyring().open(&kept.keys, &context).unwrap().expose(), data_key(1).expose());
    let discarded = found.index.get(2).unwrap();
    assert_eq!((discarded.recording, discarded.segment), (Some(DISCARDED), 3));
    assert_eq!(discarded.end, Some(LaneEnd::Discarded));
    assert!(discarded.keys.is_empty());

    let (items, findings) = read_frames(&mut files, 1, &kept.frames.load().unwrap().into_iter().collect::<Vec<_>>());
    assert_eq!(findings, 0);
    let facts: Vec<_> = items.iter().filter(|item| matches!(item, Item::Facts(_))).collect();
    let expected = [started(), call(), ended()].map(Item::Facts);
    assert_eq!(facts, expected.iter().collect::<Vec<_>>());
    let packets: Vec<_> = items.iter().filter(|item| !matches!(item, Item::Facts(_))).collect();
    assert_eq!(packets.len(), 9);
    for (n, item) in packets.into_iter().enumerate() {
        let bytes = payload(n as u32);
        let p = packet(n as u32, &bytes);
        let expected = Item::Packet {
            head: (p.track, p.source, p.payload_type, p.marker),
            seq: p.seq,
            timestamp: p.timestamp,
            arrival_ns: p.arrival_ns,
            payload: bytes.clone(),
        };
        assert_eq!(*item, expected);
    }
}

#[test]
fn nothing_personal_is_readable_in_the_bytes() {
    for file in journal().values() {
        for secret in [NUMBER.as_bytes(), b"audio payload", b"peer.example", b"192.0.2.1"] {
            assert!(!file.windows(secret.len()).any(|window| window == secret));
        }
        for key in [data_key(1), data_key(2)] {
            assert!(!file.windows(32).any(|window| window == key.expose()));
        }
    }
}

/// All frames of lane 1 but those in `lost` read as in the intact journal.
fn check_costs_only(intact: &Look, damaged: &Look, lost: &[u64], what: &str) {
    for (seq, items) in &intact.items {
        if !lost.contains(seq) {
            assert_eq!(damaged.items.get(seq), Some(items), "{what}: frame {seq}");
        }
    }
    for (seq, items) in &damaged.items {
        assert_eq!(intact.items.get(seq), Some(items), "{what}: frame {seq}");
    }
    let kept = damaged.index.get(1).unwrap();
    assert_eq!(kept.recording, Some(KEPT), "{what}");
    assert_eq!(kept.keys, intact.index.get(1).unwrap().keys, "{what}: the key is there twice");
}

#[test]
fn every_flipped_byte_is_found_and_costs_its_frame_only() {
    let mut files = journal();
    let intact = look(&mut files);
    for file_seq in [0, 1] {
        let frames = frames_of(&mut files, file_seq);
        for at in 0..files[&file_seq].len() {
            let mut bad = files.clone();
            bad.get_mut(&file_seq).unwrap()[at] ^= 1 << (at % 8);
            let what = format!("file {file_seq} byte {at}");
            let found = look(&mut bad);
            let hit = frames.iter().find(|(_, from, to)| (*from..*to).contains(&at));
            let lost: Vec<u64> = hit.iter().map(|(seq, ..)| *seq).collect();
            check_costs_only(&intact, &found, &lost, &what);
            assert_eq!(found.report.findings.len(), 1, "{what}: {:?}", found.report);
            let finding = &found.report.findings[0];
            assert_eq!(finding.file_seq, file_seq, "{what}");
            assert!((finding.offset..finding.offset + finding.len).contains(&(at as u64)), "{what}");
            // Behind the last Commit there is nothing but that Commit and the end mark.
            let is_tail = file_seq == 1 && hit.is_some_and(|(seq, ..)| *seq > intact.report.durable_seq);
            let expected = if is_tail { TornTail } else { Damaged };
            assert_eq!(finding.kind, expected, "{what}");
            if let Some((seq, ..)) = hit
                && *seq < intact.report.last_seq
            {
                assert_eq!(finding.frames, Some(*seq..=*seq), "{what}");
            }
        }
    }
}

#[test]
fn a_cut_at_every_length_of_the_last_file_is_a_torn_tail() {
    let mut files = journal();
    let intact = look(&mut files);
    let frames = frames_of(&mut files, 1);
    for len in 0..files[&1].len() {
        let mut bad = files.clone();
        bad.get_mut(&1).unwrap().truncate(len);
        let found = look(&mut bad);
        let what = format!("cut to {len}");
        let lost: Vec<u64> = frames.iter().filter(|(_, _, to)| *to > len).map(|(seq, ..)| *seq).collect();
        let kept = found.index.get(1).unwrap();
        assert_eq!(kept.recording, Some(KEPT), "{what}");
        for (seq, items) in &intact.items {
            assert_eq!(found.items.get(seq), (!lost.contains(seq)).then_some(items), "{what}");
        }
        let clean = len == 0 || len == FILE_HEADER_BYTES || frames.iter().any(|(_, _, to)| *to == len);
        let expected = if clean { vec![] } else { vec![TornTail] };
        assert_eq!(kinds(&found.report.findings), expected, "{what}");
        assert!(!found.report.ended, "{what}");

        // Who knows from elsewhere what was durable is told what is missing.
        let mut scanner = Scanner::new(GENERATION);
        scanner.known_durable(intact.report.last_seq);
        for (seq, file) in &mut bad {
            scanner.scan(*seq, file, &mut |_| {}).unwrap();
        }
        let report = scanner.report();
        assert!(!report.is_sound(), "{what}: {report:?}");
        assert_eq!(report.findings[0].frames, Some(lost[0]..=intact.report.last_seq), "{what}");
    }
}

#[test]
fn a_cut_at_every_length_of_an_earlier_file_is_damage() {
    let mut files = journal();
    let intact = look(&mut files);
    let frames = frames_of(&mut files, 0);
    for len in 0..files[&0].len() {
        let mut bad = files.clone();
        bad.get_mut(&0).unwrap().truncate(len);
        let found = look(&mut bad);
        let what = format!("cut to {len}");
        let lost: Vec<u64> = frames.iter().filter(|(_, _, to)| *to > len).map(|(seq, ..)| *seq).collect();
        check_costs_only(&intact, &found, &lost, &what);
        assert!(!found.report.is_sound(), "{what}");
        let first = found.report.findings.iter().filter_map(|finding| finding.frames.clone()).next();
        let expected = Some(lost[0]..=lost[lost.len() - 1]);
        // A file of which not even a header is left does not say where it began.
        if len >= FILE_HEADER_BYTES {
            assert_eq!(first, expected, "{what}: {:?}", found.report.findings);
            assert_eq!(found.report.findings.len(), 1, "{what}");
        }
    }
}

/// Takes a file apart and puts it together from other pieces.
fn rearranged(file_seq: u32, order: impl Fn(&mut Vec<Vec<u8>>)) -> Files {
    let mut files = journal();
    let frames = frames_of(&mut files, file_seq);
    let file = files.get_mut(&file_seq).unwrap();
    let mut pieces = frames.iter().map(|(_, from, to)| file[*from..*to].to_vec()).collect();
    order(&mut pieces);
    file.truncate(FILE_HEADER_BYTES);
    file.extend(pieces.concat());
    files
}

fn check_rearranged(order: impl Fn(&mut Vec<Vec<u8>>, usize), lost: bool, expected: FindingKind) {
    let mut files = journal();
    let intact = look(&mut files);
    let frames = frames_of(&mut files, 0);
    for (n, (seq, ..)) in frames.iter().enumerate().take(frames.len() - 1) {
        let found = look(&mut rearranged(0, |pieces| order(pieces, n)));
        let seq = *seq;
        let what = format!("{expected} {n}");
        let gone = if lost { vec![seq] } else { vec![] };
        check_costs_only(&intact, &found, &gone, &what);
        assert_eq!(kinds(&found.report.findings), vec![expected], "{what}: {:?}", found.report);
        assert_eq!(found.report.findings[0].frames, Some(seq..=seq), "{what}");
    }
}

#[test]
fn rearranged_frames_are_named() {
    check_rearranged(|pieces, n| pieces.swap(n, n + 1), false, OutOfOrder);
    check_rearranged(|pieces, n| pieces.insert(n, pieces[n].clone()), false, Repeated);
    check_rearranged(|pieces, n| drop(pieces.remove(n)), true, SequenceGap);
}

#[test]
fn a_changed_length_of_a_body_costs_its_frame_only() {
    // Bytes removed from, or put into, the middle of a body: the frames behind are found again wherever they are.
    let intact = look(&mut journal());
    for (n, grow) in [(4, false), (4, true), (5, false), (7, true)] {
        let mut files = rearranged(0, |pieces| {
            let piece = &mut pieces[n];
            match grow {
                true => drop(piece.splice(48..48, [0x55; 32])),
                false => drop(piece.drain(48..64)),
            }
        });
        let found = look(&mut files);
        check_costs_only(&intact, &found, &[n as u64 + 1], &format!("{n} {grow}"));
        assert_eq!(kinds(&found.report.findings), vec![Damaged]);
    }
}

#[test]
fn of_two_damaged_copies_of_a_frame_the_one_that_opens_is_read() {
    let mut files = journal();
    let frames = look(&mut files).index.get(1).unwrap().frames.load().unwrap().into_iter().collect::<Vec<_>>();
    let (whole, _) = read_frames(&mut files, 1, &frames);
    let padded = frames.iter().filter(|frame| frame.file_seq == 0 && !frame.body_len.is_multiple_of(16));
    assert!(padded.clone().count() > 2);
    for frame in padded {
        for opens in [0, 1] {
            let mut files = rearranged(0, |pieces| {
                let n = frame.seq as usize - 1;
                let mut copies = [pieces[n].clone(), pieces[n].clone()];
                *copies[opens].last_mut().unwrap() ^= 1;
                copies[1 - opens][40] ^= 1;
                drop(pieces.splice(n..=n, copies));
            });
            let found = look(&mut files).index.get(1).unwrap().frames.load().unwrap().into_iter().collect::<Vec<_>>();
            assert_eq!(found.len(), frames.len() + 1);
            assert_eq!(read_frames(&mut files, 1, &found), (whole.clone(), 0), "frame {}, copy {opens}", frame.seq);
        }
    }
}

#[test]
fn swapped_files_are_named_and_still_read() {
    let mut files = journal();
    let intact = look(&mut files);
    let (first, second) = (files[&0].clone(), files[&1].clone());
    let mut swapped = Files::from([(0, second), (1, first)]);
    let found = look(&mut swapped);
    assert_eq!(found.items, intact.items);
    assert!(kinds(&found.report.findings).contains(&OutOfOrder));
}

#[test]
fn a_file_of_another_generation_is_not_read() {
    let mut files = journal();
    let other = Uuid::from_u128(7);
    let mut scanner = Scanner::new(other);
    let mut seen = 0;
    scanner.scan(0, files.get_mut(&0).unwrap(), &mut |_| seen += 1).unwrap();
    assert_eq!((seen, kinds(&scanner.report().findings)), (0, vec![Foreign]));

    // Without its header it is not read either: the frames' checksums begin with the generation.
    files.get_mut(&0).unwrap()[0] ^= 1;
    let mut scanner = Scanner::new(other);
    scanner.scan(0, files.get_mut(&0).unwrap(), &mut |_| seen += 1).unwrap();
    assert_eq!((seen, scanner.report().frames), (0, 0));
    assert!(!scanner.report().findings.is_empty());
}

#[test]
fn another_version_is_refused() {
    let mut files = journal();
    let file = files.get_mut(&0).unwrap();
    file[8] = 2;
    let crc = crc32c::crc32c(&file[..76]);
    file[76..80].copy_from_slice(&crc.to_le_bytes());
    let error = Scanner::new(GENERATION).scan(0, file, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_frame_with_the_highest_sequence_is_no_frame() {
    let mut files = journal();
    let (_, from, to) = frames_of(&mut files, 0)[3];
    for (seq, frames) in [(u64::MAX - 1, 2), (u64::MAX, 0)] {
        let mut file = files[&0][..80].to_vec();
        let mut frame = files[&0][from..to].to_vec();
        frame[16..24].copy_from_slice(&seq.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(GENERATION.as_bytes()), &frame[..28]);
        frame[28..32].copy_from_slice(&crc.to_le_bytes());
        file.extend(frame.repeat(2));
        let (mut scanner, mut seen) = (Scanner::new(GENERATION), 0);
        scanner.scan(0, &mut file, &mut |_| seen += 1).unwrap();
        assert_eq!((seen, scanner.report().frames), (frames / 2, frames / 2), "{seq}");
    }
}

#[test]
fn a_released_file_is_not_a_loss() {
    let mut files = journal();
    files.remove(&0);
    let found = look(&mut files);
    assert_eq!(found.report.findings, vec![]);
    assert_eq!(found.index.get(1).unwrap().recording, Some(KEPT));
}

/// A power cut leaves holes behind the last sync; before it, a hole is damage.
fn check_hole(seq: u64, expected: FindingKind) {
    let mut files = journal();
    let (_, from, to) = frames_of(&mut files, 1).into_iter().find(|frame| frame.0 == seq).unwrap();
    let file = files.get_mut(&1).unwrap();
    file[from..to].fill(0);
    // The Commit of the second file, which makes what is before it durable, was not written either.
    let commit = look(&mut journal()).report.last_seq - 1;
    let (_, from, _) = frames_of(&mut journal(), 1).into_iter().find(|frame| frame.0 == commit).unwrap();
    if expected == TornTail {
        file.truncate(from);
    }
    let found = look(&mut files);
    assert_eq!(kinds(&found.report.findings), vec![expected], "{:?}", found.report);
    assert_eq!(found.report.findings[0].frames, Some(seq..=seq));
}

#[test]
fn holes_before_and_behind_the_last_durable_point() {
    for seq in 12..=16 {
        check_hole(seq, Damaged);
        check_hole(seq, TornTail);
    }
}

#[test]
fn a_live_file_is_read_as_it_grows() {
    for step in [1, 7, 16, 100] {
        let files = journal();
        let mut scanner = Scanner::new(GENERATION);
        let mut seqs = Vec::new();
        for (file_seq, file) in &files {
            for len in (0..file.len()).step_by(step).chain([file.len()]) {
                let mut part = &file[..len];
                scanner.scan(*file_seq, &mut part, &mut |frame| seqs.push(frame.at.seq)).unwrap();
                assert_eq!(scanner.last_seq(), seqs.last().copied().unwrap_or(0));
            }
        }
        let report = scanner.report();
        assert_eq!(report.findings, vec![], "step {step}");
        assert_eq!(seqs, (1..=report.last_seq).collect::<Vec<_>>(), "step {step}");
        assert!(scanner.ended());
    }
}

#[test]
fn files_are_scanned_in_order_only() {
    let mut files = journal();
    let mut scanner = Scanner::new(GENERATION);
    scanner.scan(1, files.get_mut(&1).unwrap(), &mut |_| {}).unwrap();
    assert!(scanner.scan(0, files.get_mut(&0).unwrap(), &mut |_| {}).is_err());
    assert!(scanner.scan(1, files.get_mut(&1).unwrap(), &mut |_| {}).is_ok());
}

/// Does not read some bytes, as a disk with a bad block.
struct BadBlock<'a>(&'a [u8], std::ops::Range<u64>);

impl callvault_journal::ReadAt for BadBlock<'_> {
    fn len(&mut self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        if offset < self.1.end && self.1.start < offset + buf.len() as u64 {
            return Err(std::io::Error::other("bad block"));
        }
        self.0.read_at(offset, buf)
    }
}

#[test]
fn an_unreadable_block_costs_the_frames_in_it() {
    let mut w = callvault_journal::Writer::new(GENERATION, 0, 0, Default::default());
    let lane = w.open_lane(KEPT, 0).unwrap();
    for n in 0..400 {
        w.write_audio(lane, &data_key(1).cipher(), &mut audio(n..n + 1)).unwrap();
    }
    w.commit(w.last_seq(), 0, 0);
    let bytes = w.finish().bytes;
    assert!(bytes.len() > 3 * 4096);
    let mut file = BadBlock(&bytes, 4100..4101);
    let mut scanner = Scanner::new(GENERATION);
    let mut seqs = Vec::new();
    for _ in 0..2 {
        scanner.scan(0, &mut file, &mut |frame| seqs.push((frame.at.seq, frame.at.offset))).unwrap();
    }
    let report = scanner.report();
    let mut found = kinds(&report.findings);
    found.sort_by_key(ToString::to_string);
    assert_eq!(found, vec![Damaged, Unreadable]);
    assert!(seqs.iter().all(|(_, offset)| !(4096..8192).contains(offset)));
    let frame_len = seqs[5].1 - seqs[4].1;
    assert!(report.last_seq - seqs.len() as u64 <= 4096 / frame_len + 2);

    let mut dead = BadBlock(&bytes, 0..u64::MAX);
    let many = vec![0; 8 << 20];
    dead.0 = &many;
    assert!(Scanner::new(GENERATION).scan(0, &mut dead, &mut |_| {}).is_err());
}

#[test]
fn file_names() {
    let name = file_name(GENERATION, 7);
    assert_eq!(name, "01900000-0000-7000-8000-000000000001-000007.cvj");
    assert_eq!(parse_file_name(&name), Some((GENERATION, 7)));
    let large = file_name(GENERATION, 12_345_678);
    assert_eq!(parse_file_name(&large), Some((GENERATION, 12_345_678)));
    for wrong in [
        "",
        ".cvj",
        "01900000-0000-7000-8000-000000000001-7.cvj",
        "01900000-0000-7000-8000-000000000001-+00007.cvj",
        "01900000-0000-7000-8000-000000000001-0000007.cvj",
        "01900000-0000-7000-8000-000000000001-000007.tmp",
        "01900000-0000-7000-8000-000000000001-99999999999.cvj",
        "0190000000007000800000000000001-000007.cvj",
    ] {
        assert_eq!(parse_file_name(wrong), None, "{wrong}");
    }
}

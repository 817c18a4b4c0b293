//! What becomes of a damaged archive: every kind of damage is found, named, and costs no more than the chunks that it touches.
#![allow(clippy::unwrap_used)]

mod sample;

use std::io::Cursor;
use std::ops::Range;

use callvault_archive::{ArchiveError, Finding, FindingKind, Reader, Report, verify};
use sample::{HEADER_BYTES, Sample, forge, key, play, played, small, speech, write};

use FindingKind::{
    Altered, CutTail, Damaged, ForeignBytes, ForeignChunk, HeaderDamaged, Missing, Repeated, Swapped, WrongKey,
};

const ALL: Range<u64> = 0..u64::MAX;

fn report(bytes: &[u8], with_key: bool) -> Report {
    verify(bytes, with_key.then(|| key(1)).as_ref()).unwrap()
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    report.findings.iter().map(|finding| finding.kind).collect()
}

/// Damage is found with and without the key as these kinds and no others (repeats aside), and playing loses just these chunks.
#[track_caller]
fn check(case: &str, sample: &Sample, bytes: &[u8], expected: &[FindingKind], lost: &[usize]) {
    for with_key in [false, true] {
        let report = report(bytes, with_key);
        let mut found = kinds(&report);
        found.sort();
        found.dedup();
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(found, expected, "{case}, key {with_key}: {:#?}", report.findings);
        assert_lost(case, sample, &report.findings, lost);
    }
    check_play(case, sample, bytes, lost);
}

/// Findings name the lost audio, all of it, and nothing beyond the outer bound of its neighbours.
#[track_caller]
fn assert_lost(case: &str, sample: &Sample, findings: &[Finding], lost: &[usize]) {
    let told: Vec<_> = findings.iter().filter_map(|finding| finding.ticks.clone()).collect();
    for ticks in lost.iter().filter_map(|&index| sample.ticks_of(index)) {
        let covered = told.iter().any(|t| t.start <= ticks.start && ticks.end <= t.end);
        assert!(covered, "{case}: the loss of {ticks:?} is not told: {findings:#?}");
    }
    if lost.iter().all(|&index| sample.ticks_of(index).is_none()) {
        let only_bounds = told.iter().all(|t| t.start > 0 && (t.end - t.start <= 48_000 || t.end == u64::MAX));
        assert!(only_bounds, "{case}: nothing is lost: {findings:#?}");
    }
}

#[track_caller]
fn check_play(case: &str, sample: &Sample, bytes: &[u8], lost: &[usize]) {
    let mut archive = Reader::open(Cursor::new(bytes)).unwrap().unlock(&key(1)).unwrap();
    let facts_lost = lost.iter().filter(|&&index| sample.chunks[index].kind == 1).count() == 2;
    assert_eq!(archive.facts().ok(), (!facts_lost).then_some(&sample.facts), "{case}");
    let (packets, holes) = played(&mut archive, ALL).unwrap();
    assert_eq!(packets, sample.packets_without(lost), "{case}");
    assert_lost(case, sample, &holes, lost);
}

#[test]
fn the_sample_is_what_the_cases_take_it_for() {
    let sample = small();
    let kinds: Vec<u8> = sample.chunks.iter().map(|chunk| chunk.kind).collect();
    assert_eq!(kinds, [1, 2, 2, 2, 1, 3, 4]);
    for with_key in [false, true] {
        assert_eq!(report(&sample.bytes, with_key).findings, []);
    }
    check_play("untouched", &sample, &sample.bytes, &[]);
}

#[test]
fn every_flipped_byte_of_the_header_is_found_and_costs_nothing() {
    let sample = small();
    // All of what never changes and of the slots in use; some of the empty slots and of the zero bytes between.
    let copy = |at| (at..at + 256).chain((at + 256..at + 1_024).step_by(7));
    let places = copy(0).chain((1_024..4_096).step_by(97)).chain(copy(4_096));
    for at in places {
        let mut bytes = sample.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        check(&format!("byte {at}"), &sample, &bytes, &[HeaderDamaged], &[]);
        let keys = report(&bytes, false).keys;
        assert_eq!(keys, report(&sample.bytes, false).keys, "byte {at} cost a key");
    }
}

#[test]
fn every_flipped_byte_of_a_chunk_is_found_and_costs_that_chunk() {
    let sample = small();
    for at in HEADER_BYTES..sample.bytes.len() {
        let mut bytes = sample.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let touched = sample.touched(at..at + 1);
        check(&format!("byte {at}"), &sample, &bytes, &[Damaged], &touched);
        let findings = report(&bytes, true).findings;
        assert_eq!(findings.len(), 1, "byte {at}: {findings:#?}");
        assert_eq!(findings[0].chunk, Some(touched[0] as u32), "byte {at}");
        if touched[0] < 6 {
            assert_eq!(findings[0].ticks, sample.ticks_of(touched[0]), "byte {at}");
        }
    }
}

#[test]
fn a_file_cut_at_any_length_is_found_and_keeps_what_is_before_the_cut() {
    let sample = small();
    for length in (0..HEADER_BYTES).step_by(13).chain(HEADER_BYTES..sample.bytes.len()) {
        let bytes = &sample.bytes[..length];
        if length < 64 {
            assert!(matches!(verify(bytes, None), Err(ArchiveError::NotAnArchive)), "{length}");
            continue;
        }
        assert!(kinds(&report(bytes, false)).contains(&CutTail), "{length}: {:#?}", report(bytes, false));
        let lost = sample.touched(length..sample.bytes.len());
        if lost[0] == 0 {
            assert!(matches!(play(bytes, &key(1), ALL), Err(ArchiveError::NothingIntact)), "{length}");
            continue;
        }
        check(&format!("cut at {length}"), &sample, bytes, &[CutTail], &lost);
    }
}

#[test]
fn bytes_put_in_anywhere_are_found_and_cost_no_more_than_one_chunk() {
    let sample = small();
    for at in HEADER_BYTES..=sample.bytes.len() {
        let mut bytes = sample.bytes.clone();
        bytes.splice(at..at, *b"\xa7CVC\x00in");
        let between = at == sample.bytes.len() || sample.chunks.iter().any(|chunk| chunk.span.start == at);
        let lost = if between { vec![] } else { sample.touched(at..at + 1) };
        let kind = if between { ForeignBytes } else { Damaged };
        check(&format!("at {at}"), &sample, &bytes, &[kind], &lost);
    }
}

#[test]
fn bytes_taken_out_anywhere_are_found_and_cost_no_more_than_the_chunks_they_were_in() {
    let sample = small();
    for at in HEADER_BYTES..sample.bytes.len() - 7 {
        let mut bytes = sample.bytes.clone();
        bytes.drain(at..at + 7);
        let lost = sample.touched(at..at + 7);
        for with_key in [false, true] {
            let report = report(&bytes, with_key);
            assert!(!report.is_clean(), "at {at}");
            assert_lost(&format!("at {at}"), &sample, &report.findings, &lost);
        }
        check_play(&format!("at {at}"), &sample, &bytes, &lost);
    }
}

#[test]
fn bytes_put_into_or_taken_out_of_the_header_cost_nothing() {
    let sample = small();
    for at in (0..HEADER_BYTES).step_by(61) {
        let mut more = sample.bytes.clone();
        more.splice(at..at, *b"inserted");
        let mut less = sample.bytes.clone();
        less.drain(at..(at + 8).min(HEADER_BYTES));
        for (case, bytes) in [("put in", more), ("taken out", less)] {
            assert!(kinds(&report(&bytes, false)).contains(&HeaderDamaged), "{case} at {at}");
            check_play(&format!("{case} at {at}"), &sample, &bytes, &[]);
        }
    }
}

#[test]
fn every_order_of_the_chunks_but_the_right_one_is_found_and_costs_nothing() {
    let sample = write(7, 1, &key(1), &speech(2));
    let mut orders = vec![vec![]];
    for index in 0..sample.chunks.len() {
        let insert =
            |order: Vec<usize>| (0..=order.len()).map(move |at| [&order[..at], &[index], &order[at..]].concat());
        orders = orders.into_iter().flat_map(insert).collect();
    }
    assert_eq!(orders.len(), 720);
    for order in orders.into_iter().filter(|order| !order.is_sorted()) {
        let bytes = sample.with_chunks(&order);
        check(&format!("{order:?}"), &sample, &bytes, &[Swapped], &[]);
    }
}

#[test]
fn two_chunks_that_changed_places_are_named_and_no_others() {
    let sample = small();
    for (one, other) in (0..7).flat_map(|one| (one + 1..7).map(move |other| (one, other))) {
        let mut order: Vec<usize> = (0..7).collect();
        order.swap(one, other);
        for finding in report(&sample.with_chunks(&order), true).findings {
            let named = finding.chunk.unwrap() as usize;
            assert!(named == one || named == other, "{order:?}: {finding}");
        }
    }
}

#[test]
fn every_dropped_chunk_is_named() {
    let sample = small();
    for dropped in 0..7 {
        let order: Vec<usize> = (0..7).filter(|&index| index != dropped).collect();
        let kind = if dropped == 6 { CutTail } else { Missing };
        let bytes = sample.with_chunks(&order);
        check(&format!("without {dropped}"), &sample, &bytes, &[kind], &[dropped]);
        let findings = report(&bytes, true).findings;
        assert_eq!(findings[0].chunk, Some(dropped as u32));
        assert_eq!(findings[0].ticks, sample.ticks_of(dropped), "the seek table knows what is lost");
    }
}

#[test]
fn every_repeated_chunk_is_named_wherever_it_is_put() {
    let sample = small();
    for (repeated, at) in (0..7).flat_map(|repeated| (0..=7).map(move |at| (repeated, at))) {
        let mut order: Vec<usize> = (0..7).collect();
        order.insert(at, repeated);
        let bytes = sample.with_chunks(&order);
        check(&format!("{order:?}"), &sample, &bytes, &[Repeated], &[]);
        assert_eq!(report(&bytes, true).findings[0].chunk, Some(repeated as u32), "{order:?}");
    }
}

#[test]
fn a_damaged_chunk_that_is_there_twice_costs_nothing() {
    let sample = small();
    for (repeated, damaged) in (0..7).flat_map(|repeated| [(repeated, 0), (repeated, 1)]) {
        let mut order: Vec<usize> = (0..7).collect();
        order.insert(repeated, repeated);
        let mut bytes = sample.with_chunks(&order);
        let span = &sample.chunks[repeated].span;
        bytes[span.start + damaged * span.len() + 50] ^= 1;
        for with_key in [false, true] {
            let report = report(&bytes, with_key);
            assert!(kinds(&report).contains(&Damaged), "{repeated}: {report:#?}");
            assert_lost("twice", &sample, &report.findings, &[]);
        }
        check_play(&format!("{repeated} twice"), &sample, &bytes, &[]);
    }
}

#[test]
fn a_chunk_of_another_archive_is_not_taken_for_ours() {
    let sample = small();
    // Same recording, same key, same length: only the time of making differs.
    let other = write(7, 2, &key(1), &speech(3));
    for index in 0..7 {
        let mut bytes = sample.bytes.clone();
        bytes[sample.chunks[index].span.clone()].copy_from_slice(other.chunk(index));
        let gone = if index == 6 { CutTail } else { Missing };
        check(&format!("chunk {index}"), &sample, &bytes, &[ForeignChunk, gone], &[index]);

        let mut bytes = sample.bytes.clone();
        bytes.extend(other.chunk(index));
        check(&format!("chunk {index} behind"), &sample, &bytes, &[ForeignChunk], &[]);
    }
}

#[test]
fn the_header_of_another_archive_is_found() {
    let (sample, other) = (small(), write(8, 1, &key(1), &speech(3)));
    let mut bytes = sample.bytes.clone();
    bytes[..HEADER_BYTES].copy_from_slice(&other.bytes[..HEADER_BYTES]);
    for with_key in [false, true] {
        assert_eq!(kinds(&report(&bytes, with_key)), [WrongKey]);
    }
    assert!(matches!(play(&bytes, &key(1), ALL), Err(ArchiveError::NothingIntact)));

    // With one copy left, that one is believed.
    for copy in [0, 4_096] {
        let mut bytes = sample.bytes.clone();
        bytes[copy..copy + 1_024].copy_from_slice(&other.bytes[copy..copy + 1_024]);
        check(&format!("copy at {copy}"), &sample, &bytes, &[HeaderDamaged], &[]);
        assert_eq!(report(&bytes, false).header.recording.as_u128(), 7);
    }
}

#[test]
fn the_wrong_key_is_named_once() {
    let sample = small();
    let report = verify(sample.bytes.as_slice(), Some(&key(2))).unwrap();
    assert_eq!(kinds(&report), [WrongKey]);
    assert!(matches!(play(&sample.bytes, &key(2), ALL), Err(ArchiveError::WrongKey)));
    // Also when the end is gone and the file has to be read through.
    let cut = &sample.bytes[..sample.bytes.len() - 1];
    assert!(matches!(play(cut, &key(2), ALL), Err(ArchiveError::WrongKey)));
}

/// What an attacker without the key can do so that no checksum tells.
#[track_caller]
fn check_forged(case: &str, sample: &Sample, index: usize, change: impl Fn(&mut [u8])) {
    let mut bytes = sample.bytes.clone();
    let span = sample.chunks[index].span.clone();
    change(&mut bytes[span.clone()]);
    forge(&mut bytes, span.start);
    let report = report(&bytes, true);
    assert!(kinds(&report).contains(&Altered), "{case} of {index}: {:#?}", report.findings);
    assert_lost(case, sample, &report.findings, &[index]);
    check_play(case, sample, &bytes, &[index]);
}

#[test]
fn forged_chunks_do_not_open() {
    let sample = small();
    for index in 0..7 {
        for at in 40..sample.chunks[index].span.len() {
            check_forged(&format!("body byte {at}"), &sample, index, |chunk| chunk[at] ^= 1);
        }
        check_forged("reserved bytes", &sample, index, |chunk| chunk[10] = 1);
        check_forged("flags", &sample, index, |chunk| chunk[9] |= 2);
        check_forged("position", &sample, index, |chunk| chunk[16] ^= 1);
    }
    check_forged("number", &sample, 1, |chunk| chunk[4] = 2);
    check_forged("audio for facts", &sample, 1, |chunk| chunk[8] = 1);
    check_forged("an early end", &sample, 3, |chunk| (chunk[8], chunk[9]) = (4, 1));
    check_forged("an unknown kind", &sample, 3, |chunk| chunk[8] = 77);
}

#[test]
fn a_forged_renumbering_is_found() {
    let sample = small();
    // 2 is dropped, and what follows moves up.
    let mut bytes = sample.with_chunks(&[0, 1, 3, 4, 5, 6]);
    let mut at = sample.chunks[2].span.start;
    for number in 2..6u32 {
        bytes[at + 4..at + 8].copy_from_slice(&number.to_le_bytes());
        forge(&mut bytes, at);
        at += 40 + u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
    }
    assert_eq!(kinds(&report(&bytes, false)), [], "checksums alone cannot tell");
    let with_key = report(&bytes, true);
    assert_eq!(kinds(&with_key), [Altered; 4]);
    let (packets, _) = play(&bytes, &key(1), ALL).unwrap();
    assert_eq!(packets, sample.packets_without(&[2, 3]));
}

#[test]
fn several_kinds_of_damage_at_once_are_told_apart() {
    let sample = write(7, 1, &key(1), &speech(9));
    let mut bytes = sample.with_chunks(&[0, 1, 2, 4, 5, 3, 6, 6, 8, 9, 10, 11, 12]);
    let five = sample.chunks[4].span.start;
    bytes[five + 45] ^= 1;
    bytes.extend(b"tail");
    check("many", &sample, &bytes, &[Damaged, Swapped, Repeated, Missing, ForeignBytes], &[5, 7]);
}

#[test]
fn both_copies_of_the_facts_lost_leaves_the_packets() {
    let sample = small();
    let mut bytes = sample.bytes.clone();
    for index in [0, 4] {
        bytes[sample.chunks[index].span.start + 60] ^= 1;
    }
    check_play("facts", &sample, &bytes, &[0, 4]);
}

#[test]
fn what_is_not_an_archive_is_refused() {
    for bytes in [b"".as_slice(), b"RIFF", &[0; 20_000], b"\x89CVA\r\n\x1a\n"] {
        assert!(matches!(verify(bytes, None), Err(ArchiveError::NotAnArchive)));
        assert!(matches!(play(bytes, &key(1), ALL), Err(ArchiveError::NotAnArchive)));
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_says_so() {
    for (at, value) in [(8, 2), (10, 2), (10, 128)] {
        let mut bytes = small().bytes;
        for copy in [0, 4_096] {
            bytes[copy + at] |= value;
            let crc = crc32c::crc32c(&bytes[copy..copy + 60]).to_le_bytes();
            bytes[copy + 60..copy + 64].copy_from_slice(&crc);
        }
        assert!(matches!(verify(bytes.as_slice(), None), Err(ArchiveError::Newer { .. })));
    }
}

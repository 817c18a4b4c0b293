//! Random journals with random damage against a simple model: the list of frames that were written.
#![allow(clippy::unwrap_used)]

mod sample;

use std::collections::BTreeMap;

use callvault_journal::{AudioBatch, Lane, LaneEnd, Limits, Pushed, Scanner, Writer, verify};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use sample::*;
use uuid::Uuid;

#[derive(Debug, Clone)]
enum Step {
    Open,
    Audio(Index, u8, u16),
    Facts(Index),
    Key(Index),
    End(Index),
    Write,
    Rotate,
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Zero(Index, u16),
    Random(Index, u16, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        8 => (any::<Index>(), 1..20_u8, 0..300_u16).prop_map(|(lane, packets, size)| Step::Audio(lane, packets, size)),
        2 => any::<Index>().prop_map(Step::Facts),
        1 => any::<Index>().prop_map(Step::Key),
        1 => any::<Index>().prop_map(Step::End),
        3 => Just(Step::Write),
        1 => Just(Step::Rotate),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<Index>(), 1..5_000_u16).prop_map(|(at, len)| Damage::Zero(at, len)),
        (any::<Index>(), 1..5_000_u16, any::<u64>()).prop_map(|(at, len, seed)| Damage::Random(at, len, seed)),
    ]
}

/// Runs the steps; a commit after each write, as the driver does.
fn run(steps: &[Step]) -> Files {
    let mut files = Files::new();
    let mut w = Writer::new(GENERATION, 0, 0, Limits::default());
    let mut lanes: Vec<Lane> = vec![w.open_lane(Uuid::from_u128(1), 0).unwrap()];
    let mut packets = 0;
    // Sealing keys is slow and not what this is about: one sealed key does for all.
    let keys = sealed_for(lanes[0]);
    for step in steps {
        match step {
            Step::Open => lanes.push(w.open_lane(Uuid::from_u128(lanes.len() as u128 + 1), 0).unwrap()),
            Step::Audio(lane, count, size) => {
                let lane = lanes[lane.index(lanes.len())];
                let mut batch = AudioBatch::new();
                for _ in 0..*count {
                    assert_eq!(batch.push(&packet(packets, &vec![packets as u8; *size as usize])), Pushed::Taken);
                    packets += 1;
                }
                w.write_audio(lane, &data_key(lane.number()).cipher(), &mut batch).unwrap();
            }
            Step::Facts(lane) => {
                let lane = lanes[lane.index(lanes.len())];
                w.write_facts(lane, &data_key(lane.number()).cipher(), &started()).unwrap();
            }
            Step::Key(lane) => w.write_key(lanes[lane.index(lanes.len())], &keys).unwrap(),
            Step::End(lane) => w.end_lane(lanes[lane.index(lanes.len())], LaneEnd::Ended, &keys).unwrap(),
            Step::Write => {
                let batch = w.take();
                let durable = batch.last_seq;
                store(&mut files, batch);
                w.commit(durable, 0, 0);
            }
            Step::Rotate => store(&mut files, w.rotate(0, 0).unwrap()),
        }
    }
    let batch = w.take();
    let durable = batch.last_seq;
    store(&mut files, batch);
    w.commit(durable, 0, 0);
    store(&mut files, w.finish());
    files
}

/// The intact frames: where each is, and its body.
fn intact_frames(files: &mut Files) -> BTreeMap<u64, (u32, u64, u64, Vec<u8>)> {
    let mut scanner = Scanner::new(GENERATION);
    let mut frames = BTreeMap::new();
    for (file_seq, file) in files {
        let each = &mut |frame: &callvault_journal::Frame<'_>| {
            if frame.at.intact {
                let end = frame.at.offset + frame.at.frame_len();
                let before = frames.insert(frame.at.seq, (*file_seq, frame.at.offset, end, frame.body.to_vec()));
                assert!(before.is_none(), "frame {} came twice", frame.at.seq);
            }
        };
        scanner.scan(*file_seq, file, each).unwrap();
    }
    frames
}

fn apply(files: &mut Files, damage: &Damage) {
    let total: usize = files.values().map(Vec::len).sum();
    let (at, len) = match damage {
        Damage::Flip(at, _) => (at, 1),
        Damage::Zero(at, len) | Damage::Random(at, len, _) => (at, usize::from(*len)),
    };
    let mut at = at.index(total);
    let file = files.values_mut().find(|file| {
        let here = at < file.len();
        at -= if here { 0 } else { file.len() };
        here
    });
    let file = file.unwrap();
    let end = file.len().min(at + len);
    match damage {
        Damage::Flip(_, bit) => file[at] ^= 1 << bit,
        Damage::Zero(..) => file[at..end].fill(0),
        Damage::Random(_, _, seed) => rand::Rng::fill_bytes(&mut Seeded(*seed), &mut file[at..end]),
    }
}

/// Failing seeds are kept beside this file.
fn kept(cases: u32) -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept(96))]

    #[test]
    fn untouched_frames_are_read_and_every_change_is_found(
        steps in prop::collection::vec(step(), 0..60),
        damages in prop::collection::vec(damage(), 0..4),
    ) {
        let mut files = run(&steps);
        let written = intact_frames(&mut files);
        prop_assert_eq!(written.keys().copied().collect::<Vec<_>>(), (1..=written.len() as u64).collect::<Vec<_>>());

        let mut bad = files.clone();
        damages.iter().for_each(|damage| apply(&mut bad, damage));
        let untouched: BTreeMap<_, _> = written
            .iter()
            .filter(|(_, (file_seq, from, to, _))| {
                let range = *from as usize..*to as usize;
                files[file_seq][range.clone()] == bad[file_seq][range]
            })
            .map(|(seq, frame)| (*seq, frame.clone()))
            .collect();
        let version_changed = bad.values().any(|file| file[8..10] != [1, 0] && crc32c::crc32c(&file[..76]).to_le_bytes() == file[76..80]);
        prop_assert!(!version_changed);
        prop_assert_eq!(&intact_frames(&mut bad), &untouched);

        let (report, index) = verify(GENERATION, bad.keys().copied().collect::<Vec<_>>(), &mut bad).unwrap();
        prop_assert_eq!(report.findings.is_empty(), files == bad, "{:?}", report);
        prop_assert_eq!(report.frames, untouched.len() as u64);
        // Every lost frame is within the frames of some finding, as long as a later frame shows that it was there.
        let last = untouched.keys().next_back().copied().unwrap_or(0);
        for seq in written.keys().filter(|seq| **seq < last && !untouched.contains_key(seq)) {
            let named = report.findings.iter().any(|finding| finding.frames.as_ref().is_some_and(|frames| frames.contains(seq)));
            prop_assert!(named, "frame {} is not named: {:?}", seq, report);
        }
        // What still opens is what was written.
        for (lane, entry) in index.iter() {
            let intact: Vec<_> = entry.frames.load().unwrap().into_iter().filter(|frame| frame.intact).collect();
            let (items, findings) = read_frames(&mut bad, lane, &intact);
            prop_assert_eq!(findings, 0);
            let (expected, _) = read_frames(&mut files, lane, &intact);
            prop_assert_eq!(items, expected);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000), header in any::<bool>()) {
        let mut file = if header { journal()[&0][..FILE_PART].to_vec() } else { Vec::new() };
        file.extend_from_slice(&bytes);
        let mut files = Files::from([(0, file)]);
        let (report, index) = verify(GENERATION, [0], &mut files).unwrap();
        prop_assert!(report.frames <= 6);
        prop_assert!(index.iter().count() <= 2);
    }
}

/// A header, some whole frames, and a part of one.
const FILE_PART: usize = 500;

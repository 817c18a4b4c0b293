//! A track that goes on from a checkpoint is as one that was never interrupted.
#![allow(clippy::unwrap_used)]

mod rig;

use callvault_media::{Counts, MediaError, Track, TrackCheckpoint, TrackConfig};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rig::{Rig, Sent, assert_all_counted};

/// Written down and read again.
fn stored(track: &Track) -> Vec<u8> {
    postcard::to_allocvec(&track.checkpoint()).unwrap()
}

fn resumed(stored: &[u8]) -> Result<Track, MediaError> {
    let checkpoint: TrackCheckpoint = postcard::from_bytes(stored).unwrap();
    Track::resume(TrackConfig::default(), checkpoint)
}

/// The counts of a call of 300 packets of which `missing` came while nobody was there, the checkpoint being older by `unwritten`.
fn check(missing: u64, unwritten: u64, lost: u64) {
    let mut rig = Rig::new();
    let mut checkpoint = stored(&rig.track);
    for number in 0..100 {
        if number == 100 - unwritten {
            checkpoint = stored(&rig.track);
        }
        let _ = rig.send(Sent::pcmu(7, number));
    }
    if unwritten == 0 {
        checkpoint = stored(&rig.track);
    }
    rig.track = resumed(&checkpoint).unwrap();
    (100 + missing..300).for_each(|number| drop(rig.send(Sent::pcmu(7, number))));
    let Counts { packets, lost: found, sources, gaps_ms, .. } = rig.finish();
    assert_eq!((packets + found, found, sources, gaps_ms), (300, lost, 1, lost * 20), "{missing}, {unwritten}");
}

#[test]
fn what_is_missing_between_two_processes_is_counted_as_lost() {
    check(0, 0, 0);
    check(0, 10, 10);
    check(5, 0, 5);
    check(10, 10, 20);
    check(150, 3, 153);
}

#[test]
fn what_cannot_have_been_counted_is_refused() {
    let mut rig = Rig::new();
    (0..10).for_each(|number| drop(rig.send(Sent::pcmu(7, number))));
    let plain = stored(&rig.track);
    assert!(resumed(&plain).is_ok());
    // Each byte in turn is another: whatever is read is refused or goes on without a panic.
    for at in 0..plain.len() {
        for value in [0, 0x7f, 0x80, 0xff] {
            let mut bytes = plain.clone();
            bytes[at] = value;
            go_on(&bytes);
        }
    }
}

/// Goes on with whatever can be read, and receives a little.
fn go_on(bytes: &[u8]) {
    let Ok(checkpoint) = postcard::from_bytes::<TrackCheckpoint>(bytes) else { return };
    let _ = checkpoint.counts();
    let Ok(track) = Track::resume(TrackConfig::default(), checkpoint) else { return };
    let mut rig = Rig::new();
    rig.track = track;
    for number in [0, 11, 9, 12, 30_000, 70_000, 70_001] {
        let _ = rig.send(Sent::pcmu(7, number));
        let _ = rig.send(Sent::pcmu(8, number));
    }
    rig.finish();
}

fn kept() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn any_bytes_are_refused_or_gone_on_with(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        go_on(&bytes);
    }

    /// Losses, repetitions and disorder, with an interruption at any place where nothing is held.
    #[test]
    fn an_interrupted_track_counts_as_an_uninterrupted_one(
        steps in prop::collection::vec((0..4_u64, 0..6_u64, any::<bool>()), 1..200),
    ) {
        let (mut whole, mut cut) = (Rig::new(), Rig::new());
        let mut number = 10;
        for (ahead, back, interrupted) in steps {
            number += ahead;
            let mut sent = Sent::pcmu(3, number - back);
            sent.ms = number * 20;
            let _ = whole.send(sent);
            let _ = cut.send(sent);
            if interrupted && cut.track.counts().held == 0 {
                cut.track = resumed(&stored(&cut.track)).unwrap();
            }
        }
        let (whole_counts, cut_counts) = (whole.finish(), cut.finish());
        assert_all_counted(&cut_counts);
        prop_assert_eq!(whole_counts, cut_counts);
        prop_assert_eq!(whole.kept, cut.kept);
    }
}

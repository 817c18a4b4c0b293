//! What holds whatever arrives.
#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::HashSet;

use callvault_media::Received;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rig::{Rig, Sent, assert_all_counted};

#[derive(Debug, Clone)]
enum Step {
    Rtp(Sent),
    Bytes(Vec<u8>),
    Announce,
}

/// Few sources, few addresses, sequences that sometimes go on and sometimes jump, time that stands still or leaps.
fn step() -> impl Strategy<Value = Step> {
    let jump = prop_oneof![4 => 0..4_u16, 1 => any::<u16>()];
    let ahead = prop_oneof![8 => 0..40_u64, 1 => 400..2_000_u64];
    let pt = prop_oneof![Just(0), Just(101), Just(111), Just(97), Just(64), 0..128_u8];
    let rtp = (ahead, 0..2_u16, 0..3_u32, pt, jump, any::<u32>(), 0..50_usize).prop_map(
        |(ms, port, ssrc, pt, seq, timestamp, bytes)| {
            let timestamp = if timestamp % 3 == 0 { timestamp } else { timestamp % 10_000 };
            Step::Rtp(Sent { ms, port, ssrc, pt, seq, timestamp, bytes })
        },
    );
    let bytes = (prop_oneof![Just(0x80_u8), any::<u8>()], prop::collection::vec(any::<u8>(), 0..60)).prop_map(
        |(first, mut bytes)| {
            bytes.insert(0, first);
            Step::Bytes(bytes)
        },
    );
    prop_oneof![20 => rtp, 3 => bytes, 1 => Just(Step::Announce)]
}

/// Failing seeds are kept beside this file.
fn kept() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn every_datagram_is_counted_once_and_no_packet_is_kept_twice(steps in prop::collection::vec(step(), 0..400)) {
        let mut rig = Rig::new();
        let mut now_ms = 0;
        let mut sequences = [0_u16; 3];
        for step in steps {
            match step {
                Step::Rtp(mut sent) => {
                    now_ms += sent.ms;
                    let sequence = &mut sequences[sent.ssrc as usize];
                    *sequence = sequence.wrapping_add(sent.seq);
                    (sent.ms, sent.seq) = (now_ms, *sequence);
                    let _ = rig.send(sent);
                }
                Step::Bytes(bytes) => {
                    let _ = rig.datagram(now_ms, Sent::pcmu(0, 0).from(), &bytes);
                }
                Step::Announce => rig.track.signalled_change(),
            }
            assert_all_counted(&rig.track.counts());
        }
        let counts = rig.finish();
        assert_all_counted(&counts);
        prop_assert_eq!(counts.held, 0);
        prop_assert_eq!(counts.packets, rig.kept.len() as u64);
        let mut places = HashSet::new();
        prop_assert!(rig.kept.iter().all(|(_, kept, _)| places.insert((kept.source, kept.seq))));
        let begun = rig.kept.iter().filter(|(_, kept, _)| kept.new_source.is_some()).count();
        prop_assert_eq!(begun, counts.sources as usize);
        let spans = (0..counts.sources.min(255)).map(|number| {
            let of = rig.kept.iter().filter(|(_, kept, _)| u32::from(kept.source) == number).map(|(_, kept, _)| kept.seq);
            let (lowest, highest) = (of.clone().min().unwrap(), of.clone().max().unwrap());
            u64::from(highest - lowest) + 1 - of.count() as u64
        });
        prop_assert_eq!(spans.sum::<u64>(), counts.lost);
    }
}

#[test]
fn each_kind_of_datagram_has_its_count() {
    let mut rig = Rig::new();
    let from = Sent::pcmu(0, 0).from();
    assert_eq!(rig.datagram(0, from, &[]), Received::Other);
    assert_eq!(rig.datagram(0, from, &[0, 1, 0, 0]), Received::Other);
    assert!(matches!(rig.datagram(0, from, &[0x80; 5]), Received::Invalid(_)));
    assert!(matches!(rig.datagram(0, from, &[0x80, 201, 0, 1, 0, 0, 0, 9]), Received::Rtcp { source: None, .. }));
    let undescribed = Sent { pt: 96, ..Sent::pcmu(1, 0) };
    assert!(matches!(rig.send(undescribed), Received::Kept(_)));
    assert_eq!(rig.send(undescribed), Received::Duplicate);
    let counts = rig.finish();
    assert_eq!((counts.other, counts.invalid, counts.rtcp), (2, 1, 1));
    assert_eq!((counts.packets, counts.undescribed, counts.duplicates), (1, 1, 1));
    assert_all_counted(&counts);
}

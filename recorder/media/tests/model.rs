//! One source on a bad path, against a reference that keeps everything it ever saw.
#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::HashSet;

use callvault_media::Counts;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rig::{Rig, Sent, assert_all_counted};

/// What the path does to one packet.
#[derive(Debug, Clone, Copy)]
struct Fate {
    lost: bool,
    /// Delay in ms; more than 20 puts it behind later ones.
    delay_ms: u64,
    /// Delay of a second copy.
    again_ms: Option<u64>,
}

/// 5 % lost, 5 % reordered, 2 % repeated, as percentages that proptest may vary.
fn fate(lost: u32, reordered: u32, repeated: u32) -> impl Strategy<Value = Fate> {
    let percent = |percent: u32| (0..100_u32).prop_map(move |roll| roll < percent);
    let delay = (percent(reordered), 21..400_u64, 0..15_u64)
        .prop_map(|(behind, long_ms, short_ms)| if behind { long_ms } else { short_ms });
    let again = (percent(repeated), 0..400_u64).prop_map(|(again, ms)| again.then_some(ms));
    (percent(lost), delay, again).prop_map(|(lost, delay_ms, again_ms)| Fate { lost, delay_ms, again_ms })
}

/// What arrives, in the order of arrival, with each packet's number in what was sent.
fn arrivals(first: &Sent, fates: &[Fate]) -> Vec<(u64, Sent)> {
    let mut arrivals = Vec::new();
    for (number, fate) in (0..).zip(fates) {
        let sent = |delay_ms| Sent {
            ms: 1_000 + number * 20 + delay_ms,
            seq: first.seq.wrapping_add(number as u16),
            timestamp: first.timestamp.wrapping_add(number as u32 * 160),
            ..*first
        };
        if !fate.lost {
            arrivals.push((number, sent(fate.delay_ms)));
            arrivals.extend(fate.again_ms.map(|ms| (number, sent(fate.delay_ms + ms))));
        }
    }
    arrivals.sort_by_key(|(_, sent)| sent.ms);
    arrivals
}

/// The counts by the definitions.
fn reference(arrivals: &[(u64, Sent)]) -> Counts {
    let mut counts = Counts { datagrams: arrivals.len() as u64, ..Counts::default() };
    let mut kept = HashSet::new();
    for (number, sent) in arrivals {
        if !kept.insert(*number) {
            counts.duplicates += 1;
            continue;
        }
        counts.late += u64::from(kept.iter().any(|other| other > number));
        counts.bytes += sent.bytes as u64;
    }
    counts.packets = kept.len() as u64;
    if let (Some(lowest), Some(highest)) = (kept.iter().min(), kept.iter().max()) {
        counts.lost = highest - lowest + 1 - counts.packets;
        counts.gaps_ms = counts.lost * 20;
        counts.sources = 1;
    }
    counts
}

fn check(first: &Sent, fates: &[Fate]) {
    let arrivals = arrivals(first, fates);
    let (kept, counts) = Rig::run(arrivals.iter().map(|(_, sent)| *sent));
    let jitter = Counts { jitter_us: counts.jitter_us, jitter_us_max: counts.jitter_us_max, ..reference(&arrivals) };
    assert_eq!(counts, jitter);
    assert_all_counted(&counts);
    let mut seen = HashSet::new();
    let expected = arrivals.iter().filter(|(number, _)| seen.insert(*number));
    let base = kept.first().map_or(0, |(_, kept, _)| i64::from(kept.seq)) - arrivals.first().map_or(0, |a| a.0 as i64);
    assert_eq!(kept.len(), counts.packets as usize);
    for ((arrival_ns, kept, payload), (number, sent)) in kept.into_iter().zip(expected) {
        assert_eq!(i64::from(kept.seq), base + *number as i64);
        assert_eq!((kept.seq as u16, kept.timestamp, arrival_ns), (sent.seq, sent.timestamp, sent.ms * rig::MS));
        assert_eq!(payload, sent.payload());
    }
}

fn first() -> impl Strategy<Value = Sent> {
    // Near the wraps of sequence and timestamp half of the time.
    let seq = prop_oneof![any::<u16>(), 65_300..=65_535_u16];
    let timestamp = prop_oneof![any::<u32>(), (u32::MAX - 40_000)..=u32::MAX];
    (seq, timestamp).prop_map(|(seq, timestamp)| Sent { seq, timestamp, ..Sent::pcmu(7, 0) })
}

/// Failing seeds are kept beside this file.
fn kept(cases: u32) -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept(64))]

    #[test]
    fn counts_are_what_was_done(first in first(), fates in prop::collection::vec(fate(5, 5, 2), 0..600)) {
        check(&first, &fates);
    }

    #[test]
    fn counts_are_what_was_done_on_a_terrible_path(first in first(), fates in prop::collection::vec(fate(40, 40, 40), 0..300)) {
        check(&first, &fates);
    }
}

#[test]
fn the_sequence_wraps_more_than_once() {
    let good = Fate { lost: false, delay_ms: 0, again_ms: None };
    let first = Sent { seq: 65_000, timestamp: u32::MAX - 1_000, ..Sent::pcmu(7, 0) };
    let all = arrivals(&first, &vec![good; 140_000]);
    let (kept, counts) = Rig::run(all.iter().map(|(_, sent)| *sent));
    assert_eq!((counts.packets, counts.lost, counts.sources), (140_000, 0, 1));
    assert!(kept.windows(2).all(|pair| pair[0].1.seq + 1 == pair[1].1.seq));
}

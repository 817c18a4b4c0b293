//! Alignment of tracks that went over a bad path, against what was sent; and of anything at all.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use callvault_archive::timeline::{Alignment, GRID_TICKS, JOIN_TICKS, MOVE_TICKS, PacketHeader, Timeline};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const MS: u64 = 1_000_000;
const TICKS_PER_MS: u64 = 48;

/// One source: where it starts counting, and the packets of 20 ms it sends.
#[derive(Debug, Clone)]
struct Talk {
    first_seq: u16,
    first_timestamp: u32,
    /// Silence of the sender before it, in ms.
    pause_ms: u64,
    fates: Vec<Fate>,
}

/// What the path does to one packet.
#[derive(Debug, Clone, Copy)]
struct Fate {
    lost: bool,
    jitter_us: u64,
    again: bool,
}

#[derive(Debug, Clone)]
struct Speaker {
    clock_rate: u32,
    start_us: u64,
    talks: Vec<Talk>,
}

/// A packet as observed, and when it was sent.
#[derive(Debug, Clone, Copy)]
struct Truth {
    header: PacketHeader,
    sent_us: u64,
}

fn fate() -> impl Strategy<Value = Fate> {
    (0..100_u32, 0..80_000_u64, 0..100_u32).prop_map(|(lost, jitter_us, again)| Fate {
        lost: lost < 5,
        jitter_us,
        again: again < 2,
    })
}

fn talk() -> impl Strategy<Value = Talk> {
    let seq = prop_oneof![any::<u16>(), 65_400..=65_535_u16];
    let timestamp = prop_oneof![any::<u32>(), (u32::MAX - 20_000)..=u32::MAX];
    (seq, timestamp, prop_oneof![Just(0), 0..5_000_u64], prop::collection::vec(fate(), 100..300))
        .prop_map(|(first_seq, first_timestamp, pause_ms, fates)| Talk { first_seq, first_timestamp, pause_ms, fates })
}

fn speaker() -> impl Strategy<Value = Speaker> {
    let rate = prop_oneof![Just(8_000), Just(16_000), Just(48_000), Just(44_100)];
    (rate, 0..3_000_000_u64, prop::collection::vec(talk(), 1..4)).prop_map(|(clock_rate, start_us, talks)| Speaker {
        clock_rate,
        start_us,
        talks,
    })
}

/// What arrives of one track, in order.
fn arrivals(track: u8, speaker: &Speaker) -> Vec<Truth> {
    let mut all = Vec::new();
    let step = speaker.clock_rate / 50;
    let mut now_us = speaker.start_us;
    for (source, talk) in (0..).zip(&speaker.talks) {
        now_us += talk.pause_ms * 1_000;
        for (number, fate) in (0..).zip(&talk.fates) {
            let header = PacketHeader {
                track,
                source,
                seq: (1 << 16) + u32::from(talk.first_seq) + number,
                timestamp: talk.first_timestamp.wrapping_add(number * step),
                arrival_ns: 10_000 * MS + (now_us + fate.jitter_us) * 1_000,
                clock_rate: speaker.clock_rate,
                duration_ticks: Some(step),
            };
            if !fate.lost {
                let truth = Truth { header, sent_us: now_us };
                all.push(truth);
                let again = PacketHeader { arrival_ns: header.arrival_ns + 33 * MS, ..header };
                all.extend(fate.again.then_some(Truth { header: again, ..truth }));
            }
            now_us += 20_000;
        }
    }
    all.sort_by_key(|truth| truth.header.arrival_ns);
    all
}

fn align(all: &[Truth]) -> Alignment {
    let mut timeline = Timeline::new();
    all.iter().for_each(|truth| timeline.observe(&truth.header));
    timeline.finish()
}

/// The smallest delay of a source, by which all of it may be off.
fn least_delay_us(all: &[Truth]) -> BTreeMap<(u8, u8), u64> {
    let mut least = BTreeMap::new();
    for Truth { header, sent_us } in all {
        let delay_us = (header.arrival_ns - 10_000 * MS) / 1_000 - sent_us;
        let known = least.entry((header.track, header.source)).or_insert(delay_us);
        *known = delay_us.min(*known);
    }
    least
}

fn check(speakers: &[Speaker]) {
    let mut all: Vec<_> = (0..).zip(speakers).flat_map(|(track, speaker)| arrivals(track, speaker)).collect();
    all.sort_by_key(|truth| truth.header.arrival_ns);
    let alignment = align(&all);
    let least_us = least_delay_us(&all);
    let worst_us = least_us.values().max().copied().unwrap_or(0);
    let zero_us = all.iter().map(|truth| truth.sent_us).min().unwrap();
    let mut first_of = BTreeMap::new();
    for Truth { header, sent_us } in &all {
        let position = alignment.position(header).unwrap();
        let truth_ticks = (sent_us - zero_us) * TICKS_PER_MS / 1_000;
        // The anchor is off by the least delay, the beginning goes to the grid, a following source to the end of the one before.
        let tolerance = worst_us * TICKS_PER_MS / 1_000 + GRID_TICKS / 2 + JOIN_TICKS + 1;
        assert!(position.abs_diff(truth_ticks) <= tolerance, "{header:?} is at {position}, not {truth_ticks}");
        // In a source the timestamps alone say how far packets are apart.
        let first = first_of.entry((header.track, header.source)).or_insert((position, *sent_us));
        let apart = (sent_us.abs_diff(first.1)) * TICKS_PER_MS / 1_000;
        assert_eq!(position.abs_diff(first.0), apart, "{header:?}");
    }
    check_holes(&all, &alignment);
}

/// Packets and holes of a track fill it from its first packet to its end, and nothing lies over anything.
fn check_holes(all: &[Truth], alignment: &Alignment) {
    for track in 0..2 {
        let of_track = all.iter().filter(|truth| truth.header.track == track);
        let mut pieces: Vec<_> = of_track
            .map(|truth| {
                let position = alignment.position(&truth.header).unwrap();
                (position, position + 960)
            })
            .collect();
        pieces.extend(alignment.holes(track));
        pieces.sort_unstable();
        pieces.dedup();
        let Some((start, end)) = alignment.extent(track) else { continue };
        assert_eq!((pieces[0].0, pieces[pieces.len() - 1].1), (start, end));
        assert!(pieces.windows(2).all(|pair| pair[0].1 == pair[1].0), "{pieces:?}");
    }
}

/// Any header, of few sources, with times that sometimes make sense.
fn anything() -> impl Strategy<Value = PacketHeader> {
    let seq = prop_oneof![4 => 65_536..65_700_u32, 1 => any::<u32>()];
    let timestamp = prop_oneof![4 => 0..40_000_u32, 1 => any::<u32>()];
    let arrival_ns = prop_oneof![6 => 0..5_000 * MS, 1 => any::<u64>()];
    let clock_rate = prop_oneof![4 => Just(8_000), 1 => Just(48_000), 1 => any::<u32>(), 1 => 0..3_u32];
    let duration_ticks = prop_oneof![Just(Some(160)), Just(None), Just(Some(0)), any::<u32>().prop_map(Some)];
    (0..2_u8, 0..2_u8, seq, timestamp, arrival_ns, clock_rate, duration_ticks).prop_map(
        |(track, source, seq, timestamp, arrival_ns, clock_rate, duration_ticks)| PacketHeader {
            track,
            source,
            seq,
            timestamp,
            arrival_ns,
            clock_rate,
            duration_ticks,
        },
    )
}

/// Failing seeds are kept beside this file.
fn kept(cases: u32) -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept(48))]

    #[test]
    fn packets_are_where_they_were_said(speakers in prop::collection::vec(speaker(), 1..3)) {
        check(&speakers);
    }

    #[test]
    fn any_packets_are_aligned_somehow(headers in prop::collection::vec(anything(), 0..200)) {
        let mut timeline = Timeline::new();
        headers.iter().for_each(|header| timeline.observe(header));
        let alignment = timeline.finish();
        for header in &headers {
            if let Some(position) = alignment.position(header) {
                let (start, end) = alignment.extent(header.track).unwrap();
                prop_assert!((start..=end).contains(&position));
                prop_assert!(end <= alignment.total_ticks());
            }
        }
        for track in 0..2 {
            let holes = alignment.holes(track);
            prop_assert!(holes.iter().all(|(from, to)| from < to));
            prop_assert!(holes.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{:?}", holes);
        }
    }
}

#[test]
fn tolerances_are_what_they_are_said_to_be() {
    assert_eq!((GRID_TICKS, JOIN_TICKS, MOVE_TICKS), (10 * TICKS_PER_MS, 20 * TICKS_PER_MS, 100 * TICKS_PER_MS));
}

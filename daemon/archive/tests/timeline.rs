//! Alignment, one behaviour at a time.
#![allow(clippy::unwrap_used)]

use callvault_archive::timeline::{Alignment, HOLES_MAX, PacketHeader, SEGMENTS_MAX, STEP_TICKS, Timeline};

const MS: u64 = 1_000_000;
/// Ticks in a millisecond.
const T: u64 = 48;

/// 20 ms of 8 kHz audio with timestamp and arrival both `ms`, and the sequence number to fit.
fn packet(track: u8, source: u8, ms: u64) -> PacketHeader {
    PacketHeader {
        track,
        source,
        seq: 65_536 + (ms / 20) as u32,
        timestamp: (ms * 8) as u32,
        arrival_ns: (5_000 + ms) * MS,
        clock_rate: 8_000,
        duration_ticks: Some(160),
    }
}

/// Packets from `from` to `to` ms.
fn talk(track: u8, source: u8, from_ms: u64, to_ms: u64) -> Vec<PacketHeader> {
    (from_ms / 20..to_ms / 20).map(|number| packet(track, source, number * 20)).collect()
}

fn later(mut packets: Vec<PacketHeader>, change: impl Fn(&mut PacketHeader)) -> Vec<PacketHeader> {
    packets.iter_mut().for_each(change);
    packets
}

fn align(packets: &[PacketHeader]) -> Alignment {
    let mut timeline = Timeline::new();
    packets.iter().for_each(|packet| timeline.observe(packet));
    timeline.finish()
}

/// Compares the positions of `packets` with where they should be, in ms, and the holes of track 0, in ms.
#[track_caller]
fn check(parts: &[Vec<PacketHeader>], positions_ms: impl Fn(usize) -> Option<u64>, holes_ms: &[(u64, u64)]) {
    let packets = parts.concat();
    let mut by_arrival = packets.clone();
    by_arrival.sort_by_key(|packet| packet.arrival_ns);
    let alignment = align(&by_arrival);
    for (number, packet) in packets.iter().enumerate() {
        let expected = positions_ms(number).map(|ms| ms * T);
        assert_eq!(alignment.position(packet), expected, "packet {number}: {packet:?}");
    }
    let holes: Vec<_> = holes_ms.iter().map(|(from, to)| (from * T, to * T)).collect();
    assert_eq!(alignment.holes(0), holes);
    assert_eq!(alignment.unplaced(), 0);
}

/// Positions that follow from each other, 20 ms apart, except that at some packets it goes on at another position.
fn from_each(starts: &[(usize, u64)]) -> impl Fn(usize) -> Option<u64> {
    let starts = starts.to_vec();
    move |number| {
        let (first, ms) = *starts.iter().rev().find(|(first, _)| *first <= number)?;
        Some(ms + (number - first) as u64 * 20)
    }
}

#[test]
fn nothing_was_received() {
    let alignment = align(&[]);
    assert_eq!((alignment.total_ticks(), alignment.start_ns(), alignment.unplaced()), (0, 0, 0));
    assert_eq!((alignment.holes(0), alignment.extent(0)), (vec![], None));
    assert_eq!(alignment.position(&packet(0, 0, 0)), None);
}

#[test]
fn the_earliest_packet_is_at_0_and_the_last_one_s_end_is_the_length() {
    let alignment = align(&[talk(1, 0, 500, 1_000), talk(0, 0, 300, 1_500)].concat());
    assert_eq!(alignment.start_ns(), 5_300 * MS);
    assert_eq!(alignment.total_ticks(), 1_200 * T);
    assert_eq!(alignment.extent(0), Some((0, 1_200 * T)));
    assert_eq!(alignment.extent(1), Some((200 * T, 700 * T)));
}

#[test]
fn tracks_begin_on_a_grid() {
    let offset = |us: u64, expected_ms: u64| {
        let other = later(talk(1, 0, 0, 100), |packet| packet.arrival_ns += us * 1_000);
        check(&[talk(0, 0, 0, 100), other], from_each(&[(0, 0), (5, expected_ms)]), &[]);
    };
    offset(0, 0);
    offset(4_900, 0);
    offset(5_000, 10);
    offset(14_900, 10);
    offset(1_233_000, 1_230);
}

#[test]
fn silence_keeps_its_length() {
    // Timestamps run during a hold.
    check(&[talk(0, 0, 0, 200), talk(0, 0, 10_200, 11_000)], from_each(&[(0, 0), (10, 10_200)]), &[(200, 10_200)]);
    // They stop, and go on where they were.
    for stopped_ms in [300, 1_000, 10_000, 3_600_000] {
        let after = later(talk(0, 0, 200, 1_000), |packet| packet.arrival_ns += stopped_ms * MS);
        let resumed = 200 + stopped_ms;
        check(&[talk(0, 0, 0, 200), after], from_each(&[(0, 0), (10, resumed)]), &[(200, resumed)]);
    }
    // They start again from anywhere, after a hold or without one.
    for (ticks, stopped_ms) in [(1 << 31, 700), (7_777_777, 700), (u32::MAX - 900_000, 0), (1 << 30, 0), (9_000, 0)] {
        let after = later(talk(0, 0, 200, 1_000), |packet| {
            packet.timestamp = packet.timestamp.wrapping_add(ticks);
            packet.arrival_ns += stopped_ms * MS;
        });
        let hole = (200, 200 + stopped_ms);
        let holes = if stopped_ms > 0 { &[hole][..] } else { &[] };
        check(&[talk(0, 0, 0, 200), after], from_each(&[(0, 0), (10, hole.1)]), holes);
    }
}

#[test]
fn many_short_stops_do_not_add_up() {
    let parts: Vec<_> = (0..20)
        .map(|stop| {
            later(talk(0, 0, stop * 2_000, stop * 2_000 + 2_000), |packet| packet.arrival_ns += stop * 400 * MS)
        })
        .collect();
    let starts: Vec<_> = (0..20).map(|stop| (stop * 100, stop as u64 * 2_400)).collect();
    let holes: Vec<_> = (1..20).map(|stop| (stop * 2_400 - 400, stop * 2_400)).collect();
    check(&parts, from_each(&starts), &holes);
}

#[test]
fn a_delay_on_the_path_moves_nothing() {
    // What was queued comes at once when the path is free again.
    for delay_ms in [100, 300, 600, 1_500, 5_000] {
        let free_at = (5_000 + 400 + delay_ms) * MS;
        let all = later(talk(0, 0, 0, 10_000), |packet| {
            if packet.arrival_ns >= 5_400 * MS {
                packet.arrival_ns = packet.arrival_ns.max(free_at);
            }
        });
        let mut alignment = Timeline::new();
        all.iter().for_each(|packet| alignment.observe(packet));
        let alignment = alignment.finish();
        for (number, packet) in (0..).zip(&all) {
            assert_eq!(alignment.position(packet), Some(number * 20 * T), "delay of {delay_ms} ms");
        }
    }
    // It is late for a second, and then in time at once.
    let all = later(talk(0, 0, 0, 10_000), |packet| {
        if (5_400 * MS..6_400 * MS).contains(&packet.arrival_ns) {
            packet.arrival_ns += 600 * MS;
        }
    });
    let alignment = align(&all);
    assert!((0..).zip(&all).all(|(number, packet)| alignment.position(packet) == Some(number * 20 * T)));
    assert_eq!(alignment.holes(0), []);
}

#[test]
fn clocks_that_differ_cut_nothing() {
    for ppm in [-300_i64, 300] {
        let all = later(talk(0, 0, 0, 7_200_000), |packet| {
            let elapsed = packet.arrival_ns - 5_000 * MS;
            packet.arrival_ns = packet.arrival_ns.saturating_add_signed(elapsed as i64 / 1_000_000 * ppm);
        });
        let alignment = align(&all);
        for packet in &all {
            let arrival = (packet.arrival_ns - 5_000 * MS) * T / MS;
            assert!(alignment.position(packet).unwrap().abs_diff(arrival) <= STEP_TICKS, "{ppm} ppm: {packet:?}");
        }
        assert_eq!((alignment.holes(0), alignment.unplaced()), (vec![], 0));
    }
}

#[test]
fn a_new_source_continues_or_leaves_a_hole_or_waits_its_turn() {
    let joined = |shift_ms: i64, position: u64, holes: &[(u64, u64)]| {
        let second = later(talk(0, 1, 1_000, 2_000), |packet| {
            packet.timestamp = packet.timestamp.wrapping_mul(3_000_000_017) / 160 * 160;
            packet.timestamp = (packet.seq - 65_536).wrapping_mul(160).wrapping_add(0xffff_ff00);
            packet.arrival_ns = packet.arrival_ns.saturating_add_signed(shift_ms * MS as i64);
        });
        check(&[talk(0, 0, 0, 1_000), second], from_each(&[(0, 0), (50, position)]), holes);
    };
    joined(0, 1_000, &[]);
    joined(20, 1_000, &[]);
    joined(-20, 1_000, &[]);
    joined(30, 1_030, &[(1_000, 1_030)]);
    joined(-60, 1_000, &[]);
    joined(-100, 1_000, &[]);
}

#[test]
fn the_earlier_audio_wins_where_two_sources_overlap_for_long() {
    let second = talk(0, 1, 800, 2_000);
    let wins = |number: usize| if (50..60).contains(&number) { None } else { from_each(&[(0, 0), (50, 800)])(number) };
    check(&[talk(0, 0, 0, 1_000), second], wins, &[]);
    // One that is over before the other is has no place at all, and does not end the track.
    let none = |number: usize| (number < 50).then_some(number as u64 * 20);
    check(&[talk(0, 0, 0, 1_000), talk(0, 1, 400, 800)], none, &[]);
}

#[test]
fn a_change_of_clock_rate_begins_anew() {
    let wide = later(talk(0, 0, 1_000, 2_000), |packet| {
        packet.timestamp = (packet.seq - 65_536) * 960;
        (packet.clock_rate, packet.duration_ticks) = (48_000, Some(960));
    });
    check(&[talk(0, 0, 0, 1_000), wide], from_each(&[(0, 0)]), &[]);
}

#[test]
fn events_lie_over_the_audio_and_move_nothing() {
    let mut all = talk(0, 0, 0, 4_000);
    // A key held for two seconds: all packets have the time of its beginning, and come instead of audio.
    for event in &mut all[50..150] {
        (event.timestamp, event.duration_ticks) = (1_000 * 8, Some(0));
    }
    let held = |number: usize| Some(if (50..150).contains(&number) { 1_000 } else { number as u64 * 20 });
    check(&[all.clone()], held, &[(1_000, 3_000)]);
    // With a clock rate of their own that the timestamps do not keep to.
    all[50..150].iter_mut().for_each(|event| event.clock_rate = 48_000);
    check(&[all], held, &[(1_000, 3_000)]);
    // In a long silence: the event is the track's only sign of life, and audio follows.
    let event = PacketHeader { duration_ticks: Some(0), ..packet(0, 0, 60_000) };
    let parts = [talk(0, 0, 0, 100), vec![event], talk(0, 0, 60_500, 60_600)];
    check(&parts, from_each(&[(0, 0), (5, 60_000), (6, 60_500)]), &[(100, 60_500)]);
    let last = align(&[talk(0, 0, 0, 100), vec![event]].concat());
    assert_eq!((last.position(&event), last.total_ticks()), (Some(60_000 * T), 60_000 * T));
}

#[test]
fn losses_are_holes_and_late_packets_fill_them() {
    let without = |gone: &[usize]| {
        let all = talk(0, 0, 0, 400).into_iter().enumerate();
        all.filter(|(number, _)| !gone.contains(number)).map(|(_, packet)| packet).collect::<Vec<_>>()
    };
    let holes = |packets: &[PacketHeader], expected_ms: &[(u64, u64)]| {
        let expected: Vec<_> = expected_ms.iter().map(|(from, to)| (from * T, to * T)).collect();
        assert_eq!(align(packets).holes(0), expected);
    };
    holes(&without(&[]), &[]);
    holes(&without(&[3]), &[(60, 80)]);
    holes(&without(&[3, 4, 9]), &[(60, 100), (180, 200)]);
    // The first in the sequence come last.
    let late = |gone: &[usize], back: &[usize]| {
        let all = talk(0, 0, 0, 400);
        let mut packets = without(gone);
        packets.extend(back.iter().map(|&number| PacketHeader { arrival_ns: 5_420 * MS, ..all[number] }));
        packets
    };
    holes(&late(&[3, 4, 5], &[4]), &[(60, 80), (100, 120)]);
    holes(&late(&[3, 4, 5], &[4, 3]), &[(100, 120)]);
    holes(&late(&[3, 4, 5], &[5, 3, 4]), &[]);
    holes(&late(&[0, 1, 2], &[0]), &[(20, 60)]);
    holes(&late(&[0, 1, 2], &[1, 2, 0, 0]), &[]);
}

#[test]
fn payloads_that_do_not_tell_their_duration() {
    let untimed = |packets| later(packets, |packet: &mut PacketHeader| packet.duration_ticks = None);
    check(&[untimed(talk(0, 0, 0, 400))], from_each(&[(0, 0)]), &[]);
    check(&[untimed(talk(0, 0, 0, 100)), untimed(talk(0, 0, 120, 400))], from_each(&[(0, 0), (5, 120)]), &[(100, 120)]);
    // Packets of 60 ms; the length of the last one is that of the others.
    let long: Vec<_> = talk(0, 0, 0, 6_000)
        .into_iter()
        .step_by(3)
        .zip(0..)
        .map(|(packet, number)| PacketHeader { seq: 65_536 + number, duration_ticks: None, ..packet })
        .collect();
    assert_eq!(align(&long).total_ticks(), 6_000 * T);
    assert_eq!(align(&long).holes(0), []);
}

#[test]
fn rates_that_do_not_divide_48000_do_not_drift() {
    let day: Vec<_> = (0..180_000_u32)
        .map(|number| PacketHeader {
            seq: 65_536 + number,
            timestamp: number * 882,
            clock_rate: 44_100,
            duration_ticks: Some(882),
            arrival_ns: 7 * MS + u64::from(number) * 20 * MS,
            ..packet(0, 0, 0)
        })
        .collect();
    let alignment = align(&day);
    assert!((0..).zip(&day).all(|(number, packet)| alignment.position(packet) == Some(number * 960)));
    assert_eq!((alignment.holes(0), alignment.total_ticks()), (vec![], 180_000 * 960));
    let odd: Vec<_> = day
        .iter()
        .map(|packet| PacketHeader {
            timestamp: packet.timestamp / 882 * 221,
            clock_rate: 11_025,
            arrival_ns: u64::from(packet.timestamp / 882) * 221_000 * MS / 11_025,
            ..*packet
        })
        .collect();
    let alignment = align(&odd);
    let last = odd.len() - 1;
    let exact = (last as u64 * 221 * 48_000 + 5_512) / 11_025;
    assert_eq!(alignment.position(&odd[last]), Some(exact));
}

#[test]
fn a_recording_may_last_longer_than_its_timestamps() {
    // Thirty hours at 48 kHz: the timestamp wraps after 24.8, and half of that is as far as one can look.
    let all: Vec<_> = (0..108_000_u32)
        .map(|second| PacketHeader {
            seq: 65_536 + second,
            timestamp: second.wrapping_mul(48_000).wrapping_add(0xfff0_0000),
            clock_rate: 48_000,
            duration_ticks: Some(48_000),
            arrival_ns: u64::from(second) * 1_000 * MS,
            ..packet(0, 0, 0)
        })
        .collect();
    let alignment = align(&all);
    assert!((0..).zip(&all).all(|(second, packet)| alignment.position(packet) == Some(second * 48_000)));
    assert_eq!(alignment.holes(0), []);
}

#[test]
fn packets_that_belong_nowhere_have_no_position() {
    let all = talk(0, 0, 0, 1_000);
    let alignment = align(&[&all[..], &[PacketHeader { clock_rate: 0, ..packet(0, 0, 1_000) }]].concat());
    assert_eq!(alignment.unplaced(), 1);
    let none = |packet: PacketHeader| assert_eq!(alignment.position(&packet), None, "{packet:?}");
    none(PacketHeader { clock_rate: 0, ..packet(0, 0, 1_000) });
    none(packet(0, 0, 1_000));
    none(packet(0, 1, 500));
    none(packet(1, 0, 500));
    none(PacketHeader { seq: 65_535, ..packet(0, 0, 0) });
    none(PacketHeader { timestamp: 8_000, ..all[20] });
    // A late packet with a timestamp from elsewhere.
    let elsewhere = PacketHeader { timestamp: 1 << 30, arrival_ns: 6_000 * MS, ..all[20] };
    let alignment = align(&[&all[..20], &all[21..], &[elsewhere]].concat());
    assert_eq!((alignment.unplaced(), alignment.position(&elsewhere)), (1, None));
    assert_eq!(alignment.holes(0), [(400 * T, 420 * T)]);
}

#[test]
fn what_a_broken_sender_can_cost_is_bounded() {
    // A timestamp from anywhere in every packet.
    let number = SEGMENTS_MAX as u64 + 100;
    let wild: Vec<_> = (0..number)
        .map(|number| PacketHeader {
            timestamp: (number as u32).wrapping_mul(2_654_435_769),
            ..packet(0, 0, number * 20)
        })
        .collect();
    let alignment = align(&wild);
    assert!(alignment.unplaced() >= 90, "{}", alignment.unplaced());
    assert!(alignment.total_ticks() <= number * 20 * T + 48_000);
    // Every second packet lost.
    let lossy: Vec<_> = talk(0, 0, 0, 40 * (HOLES_MAX as u64 + 100)).into_iter().step_by(2).collect();
    let alignment = align(&lossy);
    assert_eq!((alignment.holes(0).len(), alignment.unplaced()), (HOLES_MAX, 0));
}

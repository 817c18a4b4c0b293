//! Telephone events, from the packets as senders send them.
#![allow(clippy::unwrap_used)]

mod rig;

use callvault_media::{TONE_SILENCE_NS, Tone, Tones};
use rig::{MS, Rig, Sent};

/// A packet of an event: arrival in ms, timestamp, event, whether it is the end, duration in ticks.
type Packet = (u64, u32, u8, bool, u16);

/// Runs packets through a track, one after the other, and gives the events that they tell of.
fn heard(packets: &[Packet]) -> Vec<Tone> {
    let mut rig = Rig::new();
    let (mut tones, mut heard) = (Tones::default(), Vec::new());
    for (number, &(ms, timestamp, event, is_end, ticks)) in packets.iter().enumerate() {
        let mut payload = vec![event, u8::from(is_end) << 7 | 10];
        payload.extend(ticks.to_be_bytes());
        let sent = Sent { ms, pt: 101, bytes: 4, timestamp, ..Sent::pcmu(1, number as u64) };
        let _ = rig.send(sent);
        let (arrival_ns, kept, _) = rig.kept.last().unwrap();
        tones.take(*arrival_ns, kept, &payload, |tone| heard.push(tone));
    }
    heard.extend(tones.finish());
    assert_eq!(tones.finish(), None);
    heard
}

/// What the packets tell of: begin in ms, event, duration in ms.
#[track_caller]
fn check(packets: &[Packet], expected: &[(u64, u8, u64)]) {
    let heard: Vec<_> = heard(packets).iter().map(|tone| (tone.at_ns / MS, tone.event, tone.duration_ms)).collect();
    assert_eq!(heard, expected, "{packets:?}");
}

/// A key of 100 ms, pressed at `ms`: three updates of 20 ms, and three times the end.
fn key(ms: u64, event: u8) -> Vec<Packet> {
    let timestamp = ms as u32 * 8;
    let updates = (1..=4_u16).map(|n| (ms + u64::from(n) * 20, timestamp, event, false, n * 160));
    updates.chain([(ms + 100, timestamp, event, true, 800); 3]).collect()
}

#[test]
fn a_key_is_told_once() {
    check(&key(1_000, 5), &[(1_000, 5, 100)]);
    check(
        &[key(1_000, 5), key(1_200, 5), key(1_400, 11)].concat(),
        &[(1_000, 5, 100), (1_200, 5, 100), (1_400, 11, 100)],
    );
    // One packet is enough, whichever it is.
    for packet in key(1_000, 5) {
        check(&[packet], &[(1_000, 5, u64::from(packet.4) / 8)]);
    }
    check(&[], &[]);
}

#[test]
fn ends_that_were_lost_and_packets_that_come_late() {
    let without_end = &key(1_000, 1)[..4];
    check(&[without_end, &key(2_000, 2)].concat(), &[(1_000, 1, 80), (2_000, 2, 100)]);
    // The same key again.
    check(&[without_end, &key(2_000, 1)].concat(), &[(1_000, 1, 80), (2_000, 1, 100)]);
    // An update behind the end, an end behind the next key.
    let mut swapped = key(1_000, 3);
    swapped.swap(3, 6);
    check(&swapped, &[(1_000, 3, 100)]);
    check(
        &[&key(1_000, 3)[..], &key(1_200, 4)[..2], &key(1_000, 3)[5..], &key(1_200, 4)[2..]].concat(),
        &[(1_000, 3, 100), (1_200, 4, 100)],
    );
}

#[test]
fn a_key_held_for_long_is_one_event() {
    // Segments of the longest duration (8.2 s), over the end of the timestamps, for twenty seconds.
    let first = 0_u32.wrapping_sub(30_000);
    let mut packets = Vec::new();
    for number in 1..=1_000_u32 {
        let ticks = number * 160;
        let (segment, rest) = (ticks / 0xffff, ticks % 0xffff);
        packets.push((u64::from(number) * 20, first.wrapping_add(segment * 0xffff), 9, number == 1_000, rest as u16));
    }
    check(&packets, &[(0, 9, 20_000)]);
    // The same key, after a longer time without a word of it, is another.
    let again = (packets[999].0 + 5_000, first.wrapping_add(0xffff * 3), 9, true, 160);
    packets.pop();
    packets.push(again);
    assert_eq!(heard(&packets).len(), 2);
}

#[test]
fn several_in_one_packet_follow_each_other() {
    let mut rig = Rig::new();
    let _ = rig.send(Sent { pt: 101, bytes: 12, timestamp: 800, ms: 500, ..Sent::pcmu(1, 0) });
    let (arrival_ns, kept, _) = &rig.kept[0];
    let payload = [1, 0x80, 0, 80, 2, 0x80, 0, 160, 3, 0x80, 1, 0x40, 9];
    let mut heard = Vec::new();
    let mut tones = Tones::default();
    tones.take(*arrival_ns, kept, &payload, |tone| heard.push((tone.event, tone.duration_ms)));
    assert_eq!(heard, [(1, 10), (2, 20), (3, 40)]);
}

#[test]
fn an_event_without_an_end_is_over_after_a_second() {
    let mut rig = Rig::new();
    let _ = rig.send(Sent { pt: 101, bytes: 4, ms: 500, ..Sent::pcmu(1, 0) });
    let (arrival_ns, kept, _) = &rig.kept[0];
    let mut tones = Tones::default();
    assert_eq!(tones.expire(u64::MAX), None);
    tones.take(*arrival_ns, kept, &[7, 0, 0, 160], |tone| panic!("{tone:?}"));
    assert_eq!(tones.expire(arrival_ns + TONE_SILENCE_NS - 1), None);
    assert_eq!(tones.expire(arrival_ns + TONE_SILENCE_NS), Some(Tone { at_ns: 480 * MS, event: 7, duration_ms: 20 }));
    assert_eq!(tones.expire(u64::MAX), None);
}

#[test]
fn what_is_no_event_is_none() {
    let mut rig = Rig::new();
    let _ = rig.send(Sent::pcmu(1, 0));
    let (arrival_ns, kept, payload) = &rig.kept[0];
    assert_eq!(kept.event_clock_rate, None);
    let mut tones = Tones::default();
    tones.take(*arrival_ns, kept, payload, |tone| panic!("{tone:?}"));
    assert_eq!(tones.finish(), None);
    // Cut short.
    let _ = rig.send(Sent { pt: 101, ..Sent::pcmu(1, 1) });
    let (arrival_ns, kept, _) = &rig.kept[1];
    assert_eq!(kept.event_clock_rate, Some(8_000));
    tones.take(*arrival_ns, kept, &[5, 0x80, 0], |tone| panic!("{tone:?}"));
    assert_eq!(tones.finish(), None);
}

#[test]
fn which_key_it_was_is_not_shown() {
    let tone = Tone { at_ns: 1, event: 77, duration_ms: 2 };
    assert!(!format!("{tone:?}").contains("77"));
}

proptest::proptest! {
    #[test]
    fn any_payload_is_read(packets: Vec<(u32, u32, Vec<u8>)>) {
        let mut rig = Rig::new();
        let _ = rig.send(Sent { pt: 101, ..Sent::pcmu(1, 0) });
        let kept = rig.kept[0].1.clone();
        let (mut tones, mut told, mut given) = (Tones::default(), 0, 0);
        for (ms, timestamp, payload) in packets {
            given += payload.len() / 4;
            let kept = callvault_media::Kept { timestamp, ..kept.clone() };
            tones.take(u64::from(ms) * MS, &kept, &payload, |_| told += 1);
        }
        told += usize::from(tones.finish().is_some());
        proptest::prop_assert!(told <= given);
    }
}

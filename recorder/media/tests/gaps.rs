//! How much audio is missing, in milliseconds, for each way in which a codec counts time; and jitter.
#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Rig, Sent};

/// Packets of 20 ms with these numbers, `ticks` of the clock each; the gap they leave.
#[track_caller]
fn check(pt: u8, ticks: u32, bytes: usize, numbers: &[u64], gaps_ms: u64) {
    let sent =
        numbers.iter().map(|&number| Sent { pt, timestamp: number as u32 * ticks, bytes, ..Sent::pcmu(1, number) });
    let (_, counts) = Rig::run(sent);
    assert_eq!((counts.packets, counts.gaps_ms), (numbers.len() as u64, gaps_ms), "{numbers:?} of payload type {pt}");
}

#[test]
fn by_payload_by_timestamps_or_by_neither() {
    // PCMU: by the length of the packet before.
    check(0, 160, 160, &[0, 1, 2], 0);
    check(0, 160, 160, &[0, 1, 3, 4, 8], 80);
    check(0, 160, 160, &[0, 3, 1], 20);
    check(0, 160, 160, &[0, 3, 1, 2], 0);
    check(0, 160, 160, &[5, 0], 80);
    // G.722 by its assignment, undescribed; its clock is 8,000.
    check(9, 160, 160, &[0, 2], 20);
    // Opus: by the first byte of the packet before, which is 0 here: one frame of 10 ms.
    check(111, 480, 40, &[0, 1, 2, 4], 10);
    // Unknown encoding, known clock: by the steps of its timestamps, before the gap or across it.
    check(97, 320, 33, &[0, 1, 3], 20);
    check(97, 320, 33, &[0, 2, 3], 20);
    // Nothing known: 8,000 is assumed.
    check(120, 160, 33, &[0, 1, 3], 20);
}

#[test]
fn silence_beside_a_loss_is_not_a_gap() {
    let packet = |number, timestamp| Sent { timestamp, ..Sent::pcmu(1, number) };
    let check = |packets: &[Sent], gaps_ms| assert_eq!(Rig::run(packets.iter().copied()).1.gaps_ms, gaps_ms);
    // Two packets are missing and a second of silence.
    check(&[packet(0, 0), packet(1, 160), packet(4, 8_000)], 40);
    // Timestamps that went back say nothing about what is missing.
    check(&[packet(0, 9_000), packet(2, 0)], 20);
    // Packets of one event bear one time: no audio is missing between them.
    let event = |number| Sent { pt: 101, bytes: 4, timestamp: 320, ..Sent::pcmu(1, number) };
    check(&[packet(0, 0), packet(1, 160), event(2), event(4), packet(5, 480)], 0);
}

#[test]
fn comfort_noise_and_discontinuous_transmission_are_neither_loss_nor_gap() {
    let voice = |number, timestamp| Sent { timestamp, ..Sent::pcmu(1, number) };
    let noise = |number, timestamp| Sent { pt: 13, bytes: 1, timestamp, ..Sent::pcmu(1, number) };
    let check = |packets: &[Sent], lost, gaps_ms| {
        let counts = Rig::run(packets.iter().copied()).1;
        assert_eq!((counts.lost, counts.gaps_ms), (lost, gaps_ms), "{packets:?}");
    };
    // Silence with a description now and then, and with none at all.
    check(&[voice(0, 0), noise(1, 160), noise(2, 4_000), noise(3, 8_000), voice(4, 9_000), voice(5, 9_160)], 0, 0);
    check(&[voice(0, 0), voice(1, 160), voice(2, 80_000), voice(3, 80_160)], 0, 0);
    // A description that was lost is a packet, and no audio.
    check(&[voice(0, 0), noise(1, 160), noise(3, 8_000), voice(4, 9_000)], 1, 0);
    check(&[voice(0, 0), noise(1, 160), voice(2, 9_000), voice(4, 9_320)], 1, 20);
}

#[test]
fn packets_may_become_longer_and_shorter_and_change_their_codec() {
    let mut sent = Vec::new();
    let mut timestamp = 0;
    for (number, &(pt, ms)) in
        [(0, 10), (0, 10), (0, 20), (0, 60), (0, 60), (8, 30), (8, 40), (0, 10)].iter().enumerate()
    {
        let bytes = ms as usize * 8;
        sent.push(Sent { pt, timestamp, bytes, ms: u64::from(timestamp) / 8, ..Sent::pcmu(1, number as u64) });
        timestamp += ms * 8;
    }
    let check = |lost: usize, gaps_ms: u64| {
        let left = sent.iter().enumerate().filter(|(number, _)| *number != lost).map(|(_, sent)| *sent);
        assert_eq!(Rig::run(left).1.gaps_ms, gaps_ms, "without packet {lost}");
    };
    check(usize::MAX, 0);
    check(1, 10);
    // The packet before tells how long the one that is missing was; the timestamps say that it was not longer than this.
    check(4, 60);
    check(3, 20);
    check(2, 10);
}

#[test]
fn gaps_add_up_over_sources() {
    let one = [0, 1, 3].map(|number| Sent::pcmu(1, number));
    let two = [100, 103].map(|number| Sent::pcmu(2, number));
    let three = [200, 202].map(|number| Sent::pcmu(3, number));
    let (_, counts) = Rig::run(one.into_iter().chain(two).chain(three));
    assert_eq!((counts.sources, counts.lost, counts.gaps_ms), (3, 4, 80));
}

#[test]
fn jitter_is_that_of_rfc_3550() {
    let jitter = |late_ms: u64| {
        let sent = (0..500).map(|number| Sent { ms: number * 20 + (number % 2) * late_ms, ..Sent::pcmu(1, number) });
        let counts = Rig::run(sent).1;
        assert_eq!(counts.jitter_us_max, counts.jitter_us);
        counts.jitter_us
    };
    assert_eq!(jitter(0), 0);
    // Each packet departs from the one before by 8 ms: the estimate goes to that.
    assert!((7_990..=8_000).contains(&jitter(8)), "{}", jitter(8));
}

//! Which source is followed, and when another is.
#![allow(clippy::unwrap_used)]

mod rig;

use callvault_media::{Counts, HELD_PACKETS_MAX, OVERFLOW_SOURCE, Received};
use rig::{Rig, Sent, assert_all_counted};

/// Packets `numbers` of an SSRC, 20 ms each.
fn talk(ssrc: u32, numbers: std::ops::Range<u64>) -> Vec<Sent> {
    numbers.map(|number| Sent::pcmu(ssrc, number)).collect()
}

/// As `talk`, from another port.
fn talk_from(port: u16, ssrc: u32, numbers: std::ops::Range<u64>) -> Vec<Sent> {
    talk(ssrc, numbers).into_iter().map(|sent| Sent { port, ..sent }).collect()
}

/// Sends all, which are in no order, by time; compares the counts, and how many packets each source kept.
#[track_caller]
fn check(parts: &[Vec<Sent>], expected: Counts, by_source: &[usize]) {
    let mut all = parts.concat();
    all.sort_by_key(|sent| sent.ms);
    let (kept, counts) = Rig::run(all);
    assert_all_counted(&counts);
    let compared = Counts { datagrams: 0, bytes: 0, jitter_us: 0, jitter_us_max: 0, packets: 0, ..counts };
    assert_eq!(compared, Counts { sources: by_source.len() as u32, ..expected });
    let of = |number: usize| kept.iter().filter(move |(_, kept, _)| usize::from(kept.source) == number);
    assert_eq!((0..by_source.len()).map(|number| of(number).count()).collect::<Vec<_>>(), by_source);
    for number in 0..by_source.len() {
        assert!(
            of(number).map(|(arrival_ns, ..)| arrival_ns).is_sorted(),
            "source {number} is not in the order of arrival"
        );
    }
    assert_eq!(kept.len(), by_source.iter().sum::<usize>());
}

#[test]
fn a_change_loses_nothing() {
    let same = Counts::default();
    // One after the other, without a pause, unannounced, and back.
    check(&[talk(1, 0..100), talk(2, 100..200)], same, &[100, 100]);
    check(&[talk(1, 0..100), talk(2, 100..200), talk(1, 200..300)], same, &[100, 100, 100]);
    // The old one has a straggler behind the first packets of the new one.
    let straggler = Sent { ms: 100 * 20 + 30, ..Sent::pcmu(1, 99) };
    check(&[talk(1, 0..99), vec![straggler], talk(2, 100..200)], same, &[100, 100]);
    // The call ends before the silence is long enough to be sure.
    check(&[talk(1, 0..100), talk(2, 100..110)], same, &[100, 10]);
    // The new one loses packets on the way in.
    let lossy = talk(2, 100..200).into_iter().filter(|sent| sent.seq % 10 != 3).collect();
    check(&[talk(1, 0..100), lossy], Counts { lost: 10, gaps_ms: 200, ..same }, &[100, 90]);
}

#[test]
fn the_same_source_may_move() {
    let moved = Counts { address_changes: 1, ..Counts::default() };
    check(&[talk(1, 0..100), talk_from(5, 1, 100..200)], moved, &[200]);
    // Both paths carry the packets around the move.
    let repeated = Counts { duplicates: 2, ..moved };
    check(&[talk(1, 0..102), talk_from(5, 1, 100..200)], repeated, &[200]);
    // From elsewhere and with a sequence of its own it is another source.
    let restarted: Vec<_> = talk_from(5, 1, 100..200).into_iter().map(|s| Sent { seq: s.seq + 9_000, ..s }).collect();
    check(&[talk(1, 0..100), restarted], Counts::default(), &[100, 100]);
}

#[test]
fn who_talks_at_the_same_time_is_foreign() {
    let foreign = |foreign| Counts { foreign, ..Counts::default() };
    check(&[talk(1, 0..200), talk(2, 1..150)], foreign(149), &[200]);
    check(&[talk(1, 0..200), talk_from(5, 1, 20..200)], foreign(180), &[200]);
    // A third is foreign while the second is waiting.
    check(&[talk(1, 0..200), talk(2, 1..150), talk(3, 2..150)], foreign(149 + 148), &[200]);
    // A stranger who was first loses his place when he falls silent.
    check(&[talk(9, 0..1), talk(1, 1..200)], Counts::default(), &[1, 199]);
    // What the other said while the followed one talked stays foreign when it is followed later, but for the overlap.
    check(&[talk(1, 0..100), talk(2, 50..200)], foreign(46), &[100, 104]);
}

#[test]
fn a_sequence_may_start_again() {
    let again = |numbers: std::ops::Range<u64>, by: u16, ticks: u32| -> Vec<Sent> {
        let shift =
            |sent: Sent| Sent { seq: sent.seq.wrapping_add(by), timestamp: sent.timestamp.wrapping_add(ticks), ..sent };
        talk(1, numbers).into_iter().map(shift).collect()
    };
    let same = Counts::default();
    check(&[talk(1, 0..100), again(100..200, 20_000, 1 << 30)], same, &[100, 100]);
    // Back into the window: only the timestamps tell.
    check(&[talk(1, 0..400), again(400..500, 65_136, 1 << 30)], same, &[400, 100]);
    check(&[talk(1, 0..400), again(400..500, 65_136, 3 << 30)], same, &[400, 100]);
    // Ahead by less than a loss could be, had there been time for it.
    check(&[talk(1, 0..100), again(100..200, 2_900, 1 << 30)], same, &[100, 100]);
    // After a minute in which 3,000 packets can have been sent it is taken for a loss.
    let lost = Counts { lost: 2_900, gaps_ms: 58_000, ..same };
    check(&[talk(1, 0..100), talk(1, 3_000..3_100)], lost, &[200]);
    // The second packet of the new sequence is lost, repeated or before the first.
    let mut gap = again(100..200, 20_000, 1 << 30);
    gap.remove(1);
    check(&[talk(1, 0..100), gap], Counts { lost: 1, gaps_ms: 20, ..same }, &[100, 99]);
    let mut twice = again(100..200, 20_000, 1 << 30);
    twice.insert(1, twice[0]);
    check(&[talk(1, 0..100), twice], Counts { duplicates: 1, ..same }, &[100, 100]);
    let mut swapped = again(100..200, 20_000, 1 << 30);
    (swapped[0].ms, swapped[1].ms) = (swapped[1].ms, swapped[0].ms);
    check(&[talk(1, 0..100), swapped], Counts { late: 1, ..same }, &[100, 100]);
    // A late packet of the old sequence in the middle of the change.
    let mut old = talk(1, 0..100);
    old[95].ms = 102 * 20 + 1;
    check(&[old, again(100..200, 20_000, 1 << 30)], Counts { late: 1, ..same }, &[100, 100]);
}

#[test]
fn a_single_packet_that_fits_nowhere_is_counted_and_changes_nothing() {
    let stray = Sent { seq: 30_000, ms: 1_001, ..Sent::pcmu(1, 50) };
    check(&[talk(1, 0..100), vec![stray]], Counts { strays: 1, ..Counts::default() }, &[100]);
    let last = Sent { ms: 2_001, ..stray };
    check(&[talk(1, 0..100), vec![last]], Counts { strays: 1, ..Counts::default() }, &[100]);
    let apart = Sent { seq: 40_000, ms: 1_002, ..stray };
    check(&[talk(1, 0..100), vec![stray, apart]], Counts { strays: 2, ..Counts::default() }, &[100]);
}

#[test]
fn an_announced_change_is_followed_at_once() {
    let announced = |say: fn(&mut Rig)| {
        let mut rig = Rig::new();
        talk(1, 0..10).into_iter().for_each(|sent| assert!(matches!(rig.send(sent), Received::Kept(_))));
        say(&mut rig);
        let Received::Kept(kept) = rig.send(Sent::pcmu(2, 10)) else { panic!("not followed") };
        assert_eq!((kept.source, kept.new_source), (1, Some(2)));
        // Once only: the next one has to wait.
        assert_eq!(rig.send(Sent::pcmu(3, 11)), Received::Held);
    };
    announced(|rig| rig.track.signalled_change());
    announced(|rig| {
        let bye = [0x81, 203, 0, 1, 0, 0, 0, 1];
        assert!(matches!(rig.datagram(200, Sent::pcmu(1, 0).from(), &bye), Received::Rtcp { .. }));
    });
}

#[test]
fn media_before_its_signalling_is_not_lost() {
    let mut rig = Rig::new();
    talk(1, 0..10).into_iter().for_each(|sent| assert!(matches!(rig.send(sent), Received::Kept(_))));
    talk(2, 10..15).into_iter().for_each(|sent| assert_eq!(rig.send(sent), Received::Held));
    assert_eq!(rig.track.counts().held, 5);
    rig.track.signalled_change();
    assert_eq!(rig.send(Sent::pcmu(2, 15)), Received::Held);
    assert_eq!(rig.kept.len(), 16);
    assert!(matches!(rig.send(Sent::pcmu(2, 16)), Received::Kept(_)));
}

#[test]
fn an_announcement_does_not_last_for_ever() {
    let mut rig = Rig::new();
    rig.track.signalled_change();
    talk(1, 0..300).into_iter().for_each(|sent| assert!(matches!(rig.send(sent), Received::Kept(_))));
    assert_eq!(rig.send(Sent::pcmu(2, 300)), Received::Held);
}

#[test]
fn what_is_left_unread_in_a_pause_is_not_lost() {
    let mut rig = Rig::new();
    let unread = 10..500;
    for sent in talk(1, 0..510).into_iter().filter(|sent| !unread.contains(&sent.seq)) {
        if sent.seq == unread.end {
            rig.track.interrupt();
        }
        assert!(matches!(rig.send(sent), Received::Kept(_)));
    }
    let counts = rig.finish();
    assert_eq!((counts.packets, counts.lost, counts.sources), (20, 0, 2));
}

#[test]
fn a_stranger_s_goodbye_announces_nothing() {
    let mut rig = Rig::new();
    assert!(matches!(rig.send(Sent::pcmu(1, 0)), Received::Kept(_)));
    let bye = [0x81, 203, 0, 1, 0, 0, 0, 1];
    assert!(matches!(rig.datagram(1, ([198, 51, 100, 9], 4_000).into(), &bye), Received::Rtcp { .. }));
    assert_eq!(rig.send(Sent::pcmu(2, 1)), Received::Held);
}

#[test]
fn what_is_held_is_bounded() {
    let check = |bytes, held_max: u64| {
        let mut rig = Rig::new();
        assert!(matches!(rig.send(Sent::pcmu(1, 0)), Received::Kept(_)));
        for number in 0..200 {
            let sent = Sent { ms: 1, seq: number, bytes, port: 9, ..Sent::pcmu(2, 0) };
            assert_eq!(rig.send(sent), Received::Held);
        }
        assert_eq!(rig.track.counts().held, held_max);
        assert_eq!(rig.track.counts().foreign, 200 - held_max);
        assert_all_counted(&rig.track.counts());
    };
    check(10, HELD_PACKETS_MAX as u64);
    check(1_024, 16);
    check(60_000, 0);
}

#[test]
fn sender_reports_name_the_source_that_they_are_about() {
    let mut rig = Rig::new();
    for sent in talk(1, 0..10).into_iter().chain(talk(2, 100..110)).chain(talk(3, 200..210)) {
        let _ = rig.send(sent);
    }
    let mut check = |ssrc: u8, expected| {
        let mut report = [0; 28];
        (report[0], report[1], report[3], report[7]) = (0x80, 200, 6, ssrc);
        let Received::Rtcp { source, .. } = rig.datagram(5_000, Sent::pcmu(0, 0).from(), &report) else { panic!() };
        assert_eq!(source, expected, "of SSRC {ssrc}");
    };
    check(1, None);
    check(2, Some(1));
    check(3, Some(2));
    check(4, None);
}

#[test]
fn sources_without_a_number_of_their_own_lose_nothing() {
    let mut rig = Rig::new();
    for source in 0..300_u64 {
        for number in 0..3 {
            let mut sent = Sent::pcmu(source as u32, source * 100 + number);
            sent.seq = (source as u16).wrapping_mul(7_919).wrapping_add(number as u16);
            let received = rig.send(sent);
            let Received::Kept(kept) = received else { panic!("{received:?}") };
            assert_eq!(u64::from(kept.source), source.min(u64::from(OVERFLOW_SOURCE)));
            assert_eq!(kept.new_source, (number == 0).then_some(source as u32));
        }
        assert_eq!(rig.track.counts().sources_overflowed(), source >= 255);
    }
    let counts = rig.finish();
    assert_eq!((counts.packets, counts.sources, counts.lost), (900, 300, 0));
    let shared: Vec<u32> = rig.kept.iter().filter(|k| k.1.source == OVERFLOW_SOURCE).map(|k| k.1.seq).collect();
    assert_eq!(shared.len(), 45 * 3);
    assert!(shared.windows(2).all(|pair| pair[0] < pair[1]));
}

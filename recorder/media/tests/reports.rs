//! Receiver reports, byte by byte, and which sender reports are kept.
#![allow(clippy::unwrap_used)]

mod rig;

use callvault_media::{
    KEPT_REPORT_NS, OwnName, REPORT_NS, Received, Reception, ReportSieve, Reporter, Rtcp, SenderReport, clock_number,
};
use rig::{MS, Rig, Sent};

const SECOND: u64 = 1_000 * MS;
const NAME: [u8; 12] = [0, 0x10, 0x83, 0x10, 0x51, 0x87, 0x20, 0x92, 0x8b, 0xff, 0xff, 0xff];

fn reporter() -> Reporter {
    Reporter::new(0, OwnName::new(NAME), 0xaaaa_bbbb, 0)
}

fn reception(expected: u64, lost: u64) -> Reception {
    let highest = expected as u32 + 99;
    Reception { source: 0, ssrc: 7, highest, expected, lost, jitter_ticks: 33, clock_rate: 8_000 }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at * 4..at * 4 + 4].try_into().unwrap())
}

#[test]
fn a_report_is_a_compound_of_reception_and_name() {
    let mut reporter = reporter();
    reporter
        .heard(&SenderReport { ssrc: 7, ntp: 0x1111_2222_3333_4444, rtp_timestamp: 0, packets: 0, bytes: 0 }, SECOND);
    let bytes = reporter.report(3 * SECOND + SECOND / 2, &reception(1_000, 10), 0);
    let expected: Vec<u32> = vec![
        0x81c9_0007,
        0xaaaa_bbbb,
        7,
        2 << 24 | 10,
        1_099,
        33,
        0x2222_3333,
        0x0002_8000,
        0x81ca_0006,
        0xaaaa_bbbb,
        u32::from_be_bytes(*b"\x01\x10AB"),
        u32::from_be_bytes(*b"CDEF"),
        u32::from_be_bytes(*b"GHIJ"),
        u32::from_be_bytes(*b"KL//"),
        u32::from_be_bytes(*b"//\0\0"),
    ];
    let words: Vec<u32> = (0..bytes.len() / 4).map(|at| word(&bytes, at)).collect();
    assert_eq!((words, bytes.len() % 4), (expected, 0));
    let cname = Rtcp::parse(&bytes).unwrap().cname.unwrap();
    assert_eq!((cname.ssrc, &bytes[cname.name]), (0xaaaa_bbbb, &b"ABCDEFGHIJKL////"[..]));
}

#[test]
fn loss_is_that_since_the_last_report_and_that_of_all_time() {
    let mut reporter = reporter();
    let mut check = |reception: Reception, fraction: u32, lost: u32| {
        let bytes = reporter.report(0, &reception, 0);
        assert_eq!((word(&bytes, 3) >> 24, word(&bytes, 3) & 0xff_ffff), (fraction, lost), "{reception:?}");
    };
    check(reception(100, 50), 128, 50);
    check(reception(200, 50), 0, 50);
    // Late packets made good what was counted as lost.
    check(reception(300, 20), 0, 20);
    check(reception(310, 30), 255, 30);
    check(reception(400_000_000, 300_000_000), 192, 0x7f_ffff);
    // Another source begins anew.
    check(Reception { source: 1, ..reception(100, 25) }, 64, 25);
    check(Reception { ssrc: 8, source: 1, ..reception(100, 25) }, 64, 25);
}

#[test]
fn who_sent_nothing_is_not_reported_on() {
    let mut reporter = reporter();
    assert_eq!(reporter.report(0, &reception(100, 0), 0).len(), 60);
    let bytes = reporter.report(0, &reception(100, 0), 0);
    assert_eq!((word(&bytes, 0), word(&bytes, 1), word(&bytes, 2)), (0x80c9_0001, 0xaaaa_bbbb, 0x81ca_0006));
    assert_eq!(reporter.report(0, &reception(101, 0), 0).len(), 60);
}

#[test]
fn only_the_report_of_that_source_is_mentioned() {
    let mut reporter = reporter();
    let check = |bytes: &[u8], last: (u32, u32)| assert_eq!((word(bytes, 6), word(bytes, 7)), last);
    check(&reporter.report(0, &reception(100, 0), 0), (0, 0));
    reporter.heard(&SenderReport { ssrc: 8, ntp: u64::MAX, rtp_timestamp: 0, packets: 0, bytes: 0 }, 0);
    check(&reporter.report(9 * SECOND, &reception(200, 0), 0), (0, 0));
    reporter.heard(&SenderReport { ssrc: 7, ntp: u64::MAX, rtp_timestamp: 0, packets: 0, bytes: 0 }, 0);
    check(&reporter.report(u64::MAX, &reception(300, 0), 0), (u32::MAX, u32::MAX));
}

#[test]
fn reports_are_five_seconds_apart_on_average() {
    let check = |random: u32, from: u64, to: u64| {
        let mut reporter = Reporter::new(SECOND, OwnName::new(NAME), 1, random);
        assert!(!reporter.is_due(SECOND + from / 2 - 1) && reporter.is_due(SECOND + to / 2));
        reporter.report(10 * SECOND, &reception(1, 0), random);
        assert!(!reporter.is_due(10 * SECOND + from - 1) && reporter.is_due(10 * SECOND + to), "{random}");
    };
    check(0, REPORT_NS / 2, REPORT_NS / 2);
    check(1 << 31, REPORT_NS - MS, REPORT_NS);
    check(u32::MAX, REPORT_NS * 3 / 2 - MS, REPORT_NS * 3 / 2);
}

#[test]
fn our_own_ssrc_is_never_the_senders() {
    let mut reporter = Reporter::new(0, OwnName::new(NAME), 7, 0);
    assert_ne!(word(&reporter.report(0, &reception(10, 0), 0), 1), 7);
}

#[test]
fn what_a_track_received_is_what_is_reported() {
    let mut rig = Rig::new();
    assert_eq!(rig.track.reception(), None);
    // Over the end of the sequence numbers, with one in ten lost.
    for number in (0..200).filter(|number| number % 10 != 5) {
        let _ = rig.send(Sent { seq: (65_500 + number) as u16, ..Sent::pcmu(1, number) });
    }
    let expected = Reception {
        source: 0,
        ssrc: 1,
        highest: 65_500 + 199,
        expected: 200,
        lost: 20,
        jitter_ticks: 0,
        clock_rate: 8_000,
    };
    assert_eq!(rig.track.reception(), Some(expected));
}

#[test]
fn of_sender_reports_few_are_kept() {
    let mut sieve = ReportSieve::default();
    let mut keeps = |ms: u64, source, ntp_ms: u64, timestamp: u32| {
        let ntp = (1 << 40) + (ntp_ms << 32) / 1_000;
        let report = SenderReport { ssrc: 7, ntp, rtp_timestamp: timestamp, packets: 0, bytes: 0 };
        sieve.keeps(ms * MS, source, 8_000, &report)
    };
    assert!(keeps(0, 0, 0, 0));
    // In time, and 50 ms off.
    assert!(!keeps(6_000, 0, 6_000, 48_000));
    assert!(!keeps(6_000, 0, 6_050, 48_000));
    // The clock was set, forwards and back; the timestamps began anew; another source.
    assert!(keeps(6_000, 0, 7_000, 48_000));
    assert!(!keeps(6_500, 0, 17_000, 52_000));
    assert!(keeps(12_000, 0, 3_000, 96_000));
    assert!(keeps(18_000, 0, 9_000, 1 << 31));
    assert!(keeps(24_000, 1, 15_000, (1 << 31) + 48_000));
    let last = 24_000 + KEPT_REPORT_NS / MS;
    assert!(!keeps(last - 10, 1, 15_000 + 30_000 - 10, (1 << 31) + 48_000 + 240_000 - 80));
    assert!(keeps(last, 1, 15_000 + 30_000, (1 << 31) + 48_000 + 240_000));
    let none = SenderReport { ssrc: 7, ntp: 0, rtp_timestamp: 0, packets: 0, bytes: 0 };
    assert!(!ReportSieve::default().keeps(0, 0, 8_000, &none));
}

#[test]
fn a_clock_is_named_by_name_and_address() {
    let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    assert_eq!(clock_number(one, b"a@b"), clock_number("::ffff:192.0.2.1".parse().unwrap(), b"a@b"));
    assert_ne!(clock_number(one, b"a@b"), clock_number(other, b"a@b"));
    assert_ne!(clock_number(one, b"a@b"), clock_number(one, b"a@c"));
    assert_eq!(clock_number(one, b""), 0);
    assert_ne!(clock_number(one, b"\0"), 0);
}

proptest::proptest! {
    #[test]
    fn any_reception_is_reported_in_a_whole_compound(
        source: u8, ssrc: u32, highest: u32, expected: u64, lost: u64, jitter_ticks: u32, clock_rate: u32,
        now_ns: u64, random: u32,
    ) {
        let mut reporter = reporter();
        let reception = Reception { source, ssrc, highest, expected, lost, jitter_ticks, clock_rate };
        for _ in 0..2 {
            let bytes = reporter.report(now_ns, &reception, random);
            proptest::prop_assert!(Rtcp::parse(&bytes).unwrap().cname.is_some());
            proptest::prop_assert!(bytes.len() <= 60);
        }
        let mut rig = Rig::new();
        let is_rtcp = matches!(rig.datagram(1, Sent::pcmu(1, 0).from(), &reporter.report(0, &reception, 0)), Received::Rtcp { .. });
        proptest::prop_assert!(is_rtcp);
    }
}

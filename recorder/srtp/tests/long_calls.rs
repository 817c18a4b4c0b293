//! Two hours of packets, compressed in time.

#![allow(clippy::unwrap_used)]

mod sending;

use callvault_srtp::{Suite, Unprotected, Unprotector};
use sending::{Client, attribute, plain};

/// Two hours of packets of 20 ms: five rollovers and a half.
const PACKETS: u64 = 2 * 3_600 * 50;

/// Sends two hours from a first sequence number on, with losses, swaps and copies, and expects each packet that came exactly once.
fn check(suite: Suite, first: u64) {
    let theirs = attribute(suite, 3);
    let mut client = Client::new(&theirs, 77);
    let mut unprotector = Unprotector::new(&theirs).unwrap();
    let mut opened = 0;
    let mut expected = 0;
    let mut open = |packet: &mut Vec<u8>, number| match unprotector.unprotect(packet) {
        Ok(Unprotected::Rtp(bytes)) => {
            assert_eq!(packet[..bytes], plain(77, number), "{suite:?}");
            opened += 1;
        }
        other => panic!("packet {number} of {suite:?} is {other:?}"),
    };
    let mut held: Option<(u64, Vec<u8>)> = None;
    for number in first..first + PACKETS {
        // Few in full: the cost of a test is better spent on the rollovers.
        let near = (number as u16).wrapping_add(40) < 80;
        if !near && number % 64 > 1 {
            continue;
        }
        let mut packet = client.packet(number);
        if number % 11 == 3 {
            continue;
        }
        expected += 1;
        if number % 7 == 5 && held.is_none() {
            held = Some((number, packet));
            continue;
        }
        open(&mut packet, number);
        if let Some((number, mut packet)) = held.take() {
            open(&mut packet, number);
        }
    }
    if let Some((number, mut packet)) = held {
        open(&mut packet, number);
    }
    assert_eq!(opened, expected, "{suite:?}");
    assert_eq!(unprotector.counts().rtp, expected);
}

#[test]
fn counter_mode() {
    check(Suite::AesCm128HmacSha1Tag80, 0);
    check(Suite::AesCm128HmacSha1Tag32, 0xfffe);
    check(Suite::AesCm256HmacSha1Tag80, 0x8000);
}

#[test]
fn gcm() {
    check(Suite::AeadAes128Gcm, 0x7fff);
    check(Suite::AeadAes256Gcm, 0xfff0);
}

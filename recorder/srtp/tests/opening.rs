//! What is opened, what is refused, and what is counted.

#![allow(clippy::unwrap_used)]

mod sending;

use callvault_srtp::sdes::KeyParam;
use callvault_srtp::{
    Checkpoint, Counts, MasterKey, PREVIOUS_KEY_PACKETS, Protector, Rekeyed, SrtpError, Suite, Unprotected,
    Unprotector, WINDOW_PACKETS,
};
use sending::{Client, again, attribute, plain};

const CM: Suite = Suite::AesCm128HmacSha1Tag80;
const SSRC: u32 = 0x5501_a0b2;

/// Opens a packet and says whether packet `number` came out of it.
fn open(unprotector: &mut Unprotector, packet: &[u8], number: u64) -> Result<(), SrtpError> {
    let mut packet = packet.to_vec();
    let before = packet.clone();
    match unprotector.unprotect(&mut packet) {
        Ok(Unprotected::Rtp(bytes)) => {
            let ssrc = u32::from_be_bytes(packet[8..12].try_into().unwrap());
            assert_eq!(packet[..bytes], plain(ssrc, number));
            Ok(())
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            assert_eq!(packet, before, "a refused packet is left as it was");
            Err(error)
        }
    }
}

#[test]
fn every_suite_opens_what_it_secured_and_nothing_else() {
    for suite in Suite::ALL {
        let theirs = attribute(suite, 1);
        let mut client = Client::new(&theirs, SSRC);
        let mut unprotector = Unprotector::new(&theirs).unwrap();
        for number in 10..20 {
            let packet = client.packet(number);
            assert_eq!(packet.len(), plain(SSRC, number).len() + suite.rtp_tag_bytes());
            for byte in (0..packet.len()).step_by(7).chain(packet.len() - 4..packet.len()) {
                let mut flipped = packet.clone();
                flipped[byte] ^= 0x10;
                if byte != 0 {
                    assert!(open(&mut unprotector, &flipped, number).is_err(), "{suite:?}, byte {byte}");
                }
            }
            assert_eq!(open(&mut unprotector, &packet, number), Ok(()), "{suite:?}");
            assert_eq!(open(&mut unprotector, &packet, number), Err(SrtpError::Replayed), "{suite:?}");
        }
        let mut other = Client::new(&attribute(suite, 2), SSRC);
        assert_eq!(open(&mut unprotector, &other.packet(20), 20), Err(SrtpError::NotAuthentic), "{suite:?}");
        assert_eq!(open(&mut unprotector, &plain(SSRC, 21), 21), Err(SrtpError::NotAuthentic), "{suite:?}");
        assert_eq!(open(&mut unprotector, &client.packet(22), 22), Ok(()), "{suite:?}");
    }
}

#[test]
fn reports() {
    for suite in Suite::ALL {
        for unencrypted_srtcp in [false, true] {
            let mut theirs = attribute(suite, 1);
            theirs.params.unencrypted_srtcp = unencrypted_srtcp;
            let mut protector = Protector::new(&theirs).unwrap();
            let mut unprotector = Unprotector::new(&theirs).unwrap();
            let report = [0x80, 201, 0, 4, 0x55, 1, 2, 3, 9, 9, 9, 9, 8, 8, 8, 8, 7, 7, 7, 7];
            for _ in 0..3 {
                let mut packet = report.to_vec();
                protector.protect_rtcp(&mut packet).unwrap();
                assert_eq!(packet.len(), report.len() + 4 + suite.rtcp_tag_bytes());
                assert_eq!(packet[8..20] == report[8..], unencrypted_srtcp, "{suite:?}");
                let mut flipped = packet.clone();
                flipped[12] ^= 1;
                assert_eq!(unprotector.unprotect(&mut flipped), Err(SrtpError::NotAuthentic));
                let mut again = packet.clone();
                assert_eq!(unprotector.unprotect(&mut packet), Ok(Unprotected::Rtcp(report.len())), "{suite:?}");
                assert_eq!(packet[..report.len()], report);
                assert_eq!(unprotector.unprotect(&mut again), Err(SrtpError::Replayed));
            }
        }
    }
}

#[test]
fn packets_in_any_order_once_each() {
    /// What becomes of the last packet when those before it came.
    fn check(before: &[u64], last: u64, expected: Result<(), SrtpError>) {
        let theirs = attribute(CM, 1);
        let mut client = Client::new(&theirs, SSRC);
        let mut unprotector = Unprotector::new(&theirs).unwrap();
        let mut numbers: Vec<u64> = before.iter().copied().chain([last]).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let packets: Vec<(u64, Vec<u8>)> = numbers.into_iter().map(|number| (number, client.packet(number))).collect();
        let packet = |wanted| &packets.iter().find(|(number, _)| *number == wanted).unwrap().1;
        for &number in before {
            assert_eq!(open(&mut unprotector, packet(number), number), Ok(()));
        }
        assert_eq!(open(&mut unprotector, packet(last), last), expected, "{before:?}, {last}");
    }
    check(&[5, 7], 6, Ok(()));
    check(&[5, 7, 6], 6, Err(SrtpError::Replayed));
    check(&[0, WINDOW_PACKETS], 1, Ok(()));
    check(&[5, 1 + WINDOW_PACKETS], 1, Err(SrtpError::TooOld));
    // Around a rollover.
    check(&[0xfff0, 0x1_0002], 0xffff, Ok(()));
    check(&[0xfff0, 0x1_0002, 0xffff], 0xffff, Err(SrtpError::Replayed));
    check(&[0xffff, 0x1_0000], 0x1_0001, Ok(()));
}

#[test]
fn what_is_not_srtp_passes_and_what_is_short_does_not() {
    fn check(datagram: &[u8], expected: Result<Unprotected, SrtpError>) {
        let mut unprotector = Unprotector::new(&attribute(CM, 1)).unwrap();
        assert_eq!(unprotector.unprotect(&mut datagram.to_vec()), expected, "{datagram:02x?}");
    }
    check(&[], Ok(Unprotected::Other));
    check(&[0, 1, 0, 0], Ok(Unprotected::Other));
    check(&[22, 254, 253], Ok(Unprotected::Other));
    check(&[0x80, 0, 0], Err(SrtpError::Truncated { bytes: 3 }));
    check(&plain(SSRC, 1)[..20], Err(SrtpError::Truncated { bytes: 20 }));
    check(&[0x80, 201, 0, 1, 0, 0, 0, 9], Err(SrtpError::Truncated { bytes: 8 }));
}

/// RTP with marker and payload type 72 looks like RTCP (RFC 5761 section 4).
#[test]
fn a_payload_type_that_looks_like_rtcp_is_told_by_its_authentication() {
    let theirs = attribute(CM, 1);
    let mut protector = Protector::new(&theirs).unwrap();
    let mut unprotector = Unprotector::new(&theirs).unwrap();
    let mut packet = plain(SSRC, 1);
    packet[1] = 0x80 | 72;
    let length = packet.len();
    protector.protect_rtp(&mut packet).unwrap();
    assert_eq!(unprotector.unprotect(&mut packet), Ok(Unprotected::Rtp(length)));
}

#[test]
fn several_keys_are_told_apart_by_mki() {
    fn with_mki(suite: Suite, byte: u8, mki: &[u8]) -> KeyParam {
        let key = MasterKey::from_bytes(suite, &vec![byte; suite.master_bytes()]).unwrap();
        KeyParam { mki: mki.to_vec(), ..KeyParam::new(key) }
    }
    for suite in Suite::ALL {
        let mut theirs = attribute(suite, 1);
        theirs.keys = vec![with_mki(suite, 1, &[0, 1]), with_mki(suite, 2, &[0, 2])];
        let mut unprotector = Unprotector::new(&theirs).unwrap();
        let sender = |byte, mki: &[u8]| {
            let mut one = attribute(suite, 1);
            one.keys = vec![with_mki(suite, byte, mki)];
            Client::new(&one, SSRC)
        };
        let (mut first, mut second) = (sender(1, &[0, 1]), sender(2, &[0, 2]));
        assert_eq!(open(&mut unprotector, &first.packet(0xfffe), 0xfffe), Ok(()), "{suite:?}");
        // The counter goes on under the other key, which began to be used before the wrap at the sender.
        second.packet(0xffff);
        assert_eq!(open(&mut unprotector, &second.packet(0x1_0000), 0x1_0000), Ok(()), "{suite:?}");
        assert_eq!(open(&mut unprotector, &first.packet(0x1_0001), 0x1_0001), Ok(()), "{suite:?}");
        let mut unknown = sender(1, &[7, 7]);
        assert_eq!(open(&mut unprotector, &unknown.packet(0x20), 0x20), Err(SrtpError::NotAuthentic), "{suite:?}");
        // Some clients announce an MKI and leave it away, since our answer has none.
        let mut without = sender(1, &[]);
        without.packet(0xffff);
        assert_eq!(open(&mut unprotector, &without.packet(0x1_0002), 0x1_0002), Ok(()), "{suite:?}");
        let mut report = vec![0x80, 201, 0, 1, 0, 0, 0, 9];
        second.protector.protect_rtcp(&mut report).unwrap();
        assert_eq!(unprotector.unprotect(&mut report), Ok(Unprotected::Rtcp(8)), "{suite:?}");
    }
}

#[test]
fn a_stream_is_joined_whatever_its_rollover_counter() {
    /// Packets lost until the first is opened, for one that joins at `number`.
    fn check(number: u64, lost: usize) {
        let theirs = attribute(CM, 1);
        let mut client = Client::new(&theirs, SSRC);
        client.skip_to(0, number);
        let mut unprotector = Unprotector::new(&theirs).unwrap();
        let opened: Vec<bool> = (number..number + 80)
            .map(|number| open(&mut unprotector, &client.packet(number), number).is_ok())
            .collect();
        assert_eq!(opened.iter().position(|&opened| opened), Some(lost), "{number:#x}");
        assert!(opened[lost..].iter().all(|&opened| opened), "{number:#x}");
    }
    check(0, 0);
    check(0xffff, 0);
    check(0x1_0005, 0);
    check(0x2_1234, 0);
    check(0x5_1234, 3);
    check(0x3f_1234, 61);
}

#[test]
fn an_outage_longer_than_half_a_rollover_is_survived() {
    /// Packets lost after the outage, between these two.
    fn check(before: u64, after: u64, lost: usize) {
        let theirs = attribute(CM, 1);
        let mut client = Client::new(&theirs, SSRC);
        let mut unprotector = Unprotector::new(&theirs).unwrap();
        assert_eq!(open(&mut unprotector, &client.packet(before), before), Ok(()));
        client.skip_to(before + 1, after);
        let opened: Vec<bool> =
            (after..after + 70).map(|number| open(&mut unprotector, &client.packet(number), number).is_ok()).collect();
        assert_eq!(opened.iter().position(|&opened| opened), Some(lost), "{before:#x}, {after:#x}");
        assert!(opened[lost..].iter().all(|&opened| opened));
    }
    check(100, 100 + 0x7000, 0);
    check(100, 100 + 0x9000, 0);
    check(0x9000, 0x1_7000, 0);
    check(0x9000, 0x1_9800, 0);
    check(100, 0x2_0000, 0);
    check(100, 0x4_0000, 2);
}

#[test]
fn new_keys_by_a_later_offer() {
    /// The rollover counter of the client goes on (RFC 3711) or begins anew (RFC 4568).
    fn check(counter_goes_on: bool) {
        let (old, new) = (attribute(CM, 1), attribute(Suite::AeadAes256Gcm, 2));
        let mut before = Client::new(&old, SSRC);
        let mut after = Client::new(&new, SSRC);
        let mut unprotector = Unprotector::new(&old).unwrap();
        before.skip_to(0, 0x3_0000);
        after.skip_to(if counter_goes_on { 0 } else { 0x3_0000 }, 0x3_0000);
        // Long enough in the call for the counter to be known.
        for number in 0x3_0000..0x3_0010 {
            let _ = open(&mut unprotector, &before.packet(number), number);
        }
        assert_eq!(unprotector.rekey(&new), Ok(Rekeyed::New));
        // What was on its way, and what comes under the new key, mixed.
        let last = before.packet(0x3_0010);
        assert_eq!(open(&mut unprotector, &after.packet(0x3_0011), 0x3_0011), Ok(()));
        assert_eq!(open(&mut unprotector, &last, 0x3_0010), Ok(()));
        assert_eq!(open(&mut unprotector, &last, 0x3_0010), Err(SrtpError::Replayed));
        for number in 0x3_0012..0x3_0012 + PREVIOUS_KEY_PACKETS {
            assert_eq!(open(&mut unprotector, &after.packet(number), number), Ok(()));
        }
        let late = 0x3_0012 + 2 * PREVIOUS_KEY_PACKETS;
        assert_eq!(open(&mut unprotector, &before.packet(late), late), Err(SrtpError::NotAuthentic), "forgotten");
    }
    check(true);
    check(false);
}

#[test]
fn the_same_keys_in_a_later_offer_change_nothing() {
    let theirs = attribute(CM, 1);
    let mut client = Client::new(&theirs, SSRC);
    let mut unprotector = Unprotector::new(&theirs).unwrap();
    let first = client.packet(0xffff);
    assert_eq!(open(&mut unprotector, &first, 0xffff), Ok(()));
    let mut repeated = again(&theirs);
    repeated.tag = 2;
    assert_eq!(unprotector.rekey(&repeated), Ok(Rekeyed::Same));
    assert_eq!(open(&mut unprotector, &first, 0xffff), Err(SrtpError::Replayed));
    assert_eq!(open(&mut unprotector, &client.packet(0x1_0000), 0x1_0000), Ok(()));
    // Away and back again: the window of the first key is still known.
    assert_eq!(unprotector.rekey(&attribute(CM, 2)), Ok(Rekeyed::New));
    assert_eq!(unprotector.rekey(&theirs), Ok(Rekeyed::New));
    assert_eq!(open(&mut unprotector, &first, 0xffff), Err(SrtpError::Replayed));
    repeated.keys.clear();
    assert_eq!(unprotector.rekey(&repeated), Err(SrtpError::Unsupported));
    assert_eq!(open(&mut unprotector, &client.packet(0x1_0001), 0x1_0001), Ok(()));
}

#[test]
fn a_resumed_call_goes_on_where_it_was() {
    for suite in Suite::ALL {
        let theirs = attribute(suite, 1);
        let mut client = Client::new(&theirs, SSRC);
        let mut unprotector = Unprotector::new(&theirs).unwrap();
        client.skip_to(0, 0x5_fff0);
        let mut before = Vec::new();
        for number in 0x5_fff0..0x5_ffff {
            before = client.packet(number);
            let _ = open(&mut unprotector, &before, number);
        }
        let stored = serde_json::to_string(&unprotector.checkpoint()).unwrap();
        let checkpoint: Checkpoint = serde_json::from_str(&stored).unwrap();
        let mut unprotector = Unprotector::resume(checkpoint).unwrap();
        assert_eq!(open(&mut unprotector, &before, 0x5_fffe), Err(SrtpError::Replayed), "{suite:?}");
        for number in 0x5_ffff..0x6_0010 {
            assert_eq!(open(&mut unprotector, &client.packet(number), number), Ok(()), "{suite:?}");
        }
    }
}

#[test]
fn checkpoints_that_cannot_be() {
    fn check(change: impl Fn(&mut serde_json::Value)) {
        let theirs = attribute(CM, 1);
        let mut unprotector = Unprotector::new(&theirs).unwrap();
        open(&mut unprotector, &Client::new(&theirs, SSRC).packet(7), 7).unwrap();
        let mut stored = serde_json::to_value(unprotector.checkpoint()).unwrap();
        change(&mut stored);
        let checkpoint: Checkpoint = serde_json::from_value(stored).unwrap();
        assert!(matches!(Unprotector::resume(checkpoint), Err(SrtpError::CheckpointInvalid { .. })));
    }
    check(|stored| stored["keys"] = serde_json::json!([]));
    check(|stored| stored["previous"] = vec![stored["keys"][0].clone(); 5].into());
    check(|stored| stored["keys"][0]["rtp"]["sources"][0]["window"]["highest"] = (1_u64 << 48).into());
    check(|stored| stored["keys"][0]["mki"] = vec![0; 129].into());
    check(|stored| {
        let source = stored["keys"][0]["rtp"]["sources"][0].clone();
        stored["keys"][0]["rtcp"]["sources"] = vec![source; 33].into();
    });
}

#[test]
fn what_we_send_never_repeats_an_index() {
    let own = attribute(CM, 1);
    let mut protector = Protector::new(&own).unwrap();
    let mut send = |number| protector.protect_rtp(&mut plain(SSRC, number));
    assert_eq!(send(10), Ok(()));
    assert_eq!(send(10), Err(SrtpError::NotAdvancing));
    assert_eq!(send(9), Err(SrtpError::NotAdvancing));
    assert_eq!(send(11), Ok(()));
    let report = || vec![0x80, 201, 0, 1, 0, 0, 0, 9];
    let index = |packet: &[u8]| u32::from_be_bytes(packet[8..12].try_into().unwrap()) & !(1 << 31);
    let mut first = report();
    protector.protect_rtcp(&mut first).unwrap();
    let checkpoint = protector.checkpoint();
    let mut second = report();
    protector.protect_rtcp(&mut second).unwrap();
    let mut resumed = Protector::resume(checkpoint).unwrap();
    assert!(resumed.key().is(protector.key()));
    let mut third = report();
    resumed.protect_rtcp(&mut third).unwrap();
    assert!(index(&first) < index(&second) && index(&second) < index(&third));
    assert_eq!(resumed.protect_rtp(&mut plain(SSRC, 11)), Err(SrtpError::NotAdvancing));
}

#[test]
fn counts_add_up() {
    let mut theirs = attribute(CM, 1);
    theirs.keys[0].lifetime_packets = Some(3);
    let mut client = Client::new(&theirs, SSRC);
    let mut unprotector = Unprotector::new(&theirs).unwrap();
    for number in 0..5 {
        open(&mut unprotector, &client.packet(number), number).unwrap();
    }
    let packet = client.packet(5);
    let _ = (open(&mut unprotector, &packet, 5), open(&mut unprotector, &packet, 5));
    let _ = open(&mut unprotector, &plain(SSRC, 6), 6);
    let _ = open(&mut unprotector, &[0x80], 6);
    assert_eq!(unprotector.unprotect(&mut []), Ok(Unprotected::Other));
    let expected = Counts { rtp: 6, rtcp: 0, other: 1, undecipherable: 2, replayed: 1, past_lifetime: 3 };
    assert_eq!(unprotector.counts(), expected);
}

//! What holds whatever comes.

#![allow(clippy::unwrap_used)]

mod sending;

use std::collections::HashSet;

use callvault_srtp::sdes::{self, CryptoAttribute, KeyParam};
use callvault_srtp::{Suite, Unprotected, Unprotector};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sending::{Client, attribute, plain};

fn suites() -> impl Strategy<Value = Suite> {
    proptest::sample::select(Suite::ALL.to_vec())
}

/// An attribute with two keys, one of them with an MKI of this length.
fn with_mki(suite: Suite, mki_bytes: usize) -> CryptoAttribute {
    let mut theirs = attribute(suite, 1);
    theirs.keys[0].mki = vec![1; mki_bytes];
    let [key] = attribute(suite, 2).keys.try_into().unwrap();
    theirs.keys.push(KeyParam { mki: vec![2; mki_bytes], ..key });
    theirs
}

/// Failing seeds are kept beside this file.
fn kept() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn any_datagrams_are_taken_and_none_is_genuine(
        suite in suites(),
        mki_bytes in 1_usize..6,
        datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20),
        second in prop_oneof![any::<u8>(), 192_u8..224],
    ) {
        let mut unprotector = Unprotector::new(&with_mki(suite, mki_bytes)).unwrap();
        for datagram in datagrams {
            for first in [None, Some(0x80), Some(0x90), Some(0xbf)] {
                let mut datagram = datagram.clone();
                if let (Some(first), [a, b, ..]) = (first, datagram.as_mut_slice()) {
                    (*a, *b) = (first, second);
                }
                let before = datagram.clone();
                let opened = unprotector.unprotect(&mut datagram);
                prop_assert!(matches!(opened, Ok(Unprotected::Other) | Err(_)), "{opened:?}");
                prop_assert_eq!(datagram, before);
            }
        }
        let counts = unprotector.counts();
        prop_assert_eq!((counts.rtp, counts.rtcp, counts.replayed), (0, 0, 0));
    }

    #[test]
    fn a_changed_packet_is_never_opened(
        suite in suites(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..=255,
        cut in 0_usize..3,
    ) {
        let theirs = attribute(suite, 1);
        let mut unprotector = Unprotector::new(&theirs).unwrap();
        let genuine = Client::new(&theirs, 5).packet(9);
        let mut packet = genuine.clone();
        packet[at.index(genuine.len())] ^= flip;
        packet.truncate(genuine.len() - cut);
        let opened = unprotector.unprotect(&mut packet);
        prop_assert!(matches!(opened, Ok(Unprotected::Other) | Err(_)), "{opened:?}");
        let mut packet = genuine.clone();
        prop_assert!(matches!(unprotector.unprotect(&mut packet), Ok(Unprotected::Rtp(_))));
    }

    /// Whatever the order and the copies: each packet within the window is opened once, and none twice.
    #[test]
    fn each_packet_once(
        suite in suites(),
        first in prop_oneof![0_u64..40, 0xffe0_u64..0x1_0010],
        order in proptest::collection::vec(0_u64..40, 1..120),
        resume_at in 0_usize..120,
    ) {
        let theirs = attribute(suite, 1);
        let mut client = Client::new(&theirs, 5);
        client.skip_to(0, first.saturating_sub(0x1000));
        let packets: Vec<Vec<u8>> = (first..first + 40).map(|number| client.packet(number)).collect();
        let mut unprotector = Unprotector::new(&theirs).unwrap();
        let mut seen = HashSet::new();
        for (turn, &place) in order.iter().enumerate() {
            if turn == resume_at {
                unprotector = Unprotector::resume(unprotector.checkpoint()).unwrap();
            }
            let mut packet = packets[place as usize].clone();
            match unprotector.unprotect(&mut packet) {
                Ok(Unprotected::Rtp(bytes)) => {
                    prop_assert!(seen.insert(place), "{place} twice");
                    prop_assert_eq!(&packet[..bytes], &plain(5, first + place)[..]);
                }
                other => prop_assert!(seen.contains(&place), "{place} is {other:?}"),
            }
        }
    }

    #[test]
    fn any_attribute_is_read_or_refused(
        value in prop_oneof![
            "\\PC{0,80}",
            "[0-9]{1,10} (AES_CM_128_HMAC_SHA1_80|AEAD_AES_128_GCM) (inline:[A-Za-z0-9+/]{38,42}={0,2}(\\|2\\^[0-9]{1,3})?(\\|[0-9]{1,40}:[0-9]{1,3})?;?){1,3}( [A-Z_=0-9-]{1,12})?",
        ],
    ) {
        if let Ok(attribute) = sdes::parse(&value) {
            prop_assert_eq!(attribute.is_supported(), Unprotector::new(&attribute).is_ok());
            if attribute.is_supported() {
                let text = attribute.to_text().unwrap();
                let again = sdes::parse(text.expose()).unwrap().to_text().unwrap();
                prop_assert!(again.expose() == text.expose(), "{value}");
            }
        }
    }
}

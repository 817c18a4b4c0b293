//! The same packets through another implementation, both ways.

#![allow(clippy::unwrap_used)]

mod sending;

use callvault_srtp::{Suite, Unprotected, Unprotector};
use sending::{Client, attribute, plain};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

fn theirs(suite: Suite, byte: u8) -> Context {
    let profile = match suite {
        Suite::AesCm128HmacSha1Tag80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Suite::AesCm128HmacSha1Tag32 => ProtectionProfile::Aes128CmHmacSha1_32,
        Suite::AesCm256HmacSha1Tag80 => ProtectionProfile::Aes256CmHmacSha1_80,
        Suite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Suite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
    };
    Context::new(&vec![byte; suite.key_bytes()], &vec![byte; suite.salt_bytes()], profile, None, None).unwrap()
}

/// With contributing sources and an extension every now and then.
fn varied(number: u64) -> Vec<u8> {
    let mut packet = plain(9, number);
    if number % 3 == 1 {
        packet[0] |= 0x12;
        let inserted = *b"csrccsrc\xbe\xde\0\x01\x12ext";
        packet.splice(12..12, inserted);
    }
    packet
}

const NUMBERS: std::ops::Range<u64> = 0xffc0..0x1_0040;

#[test]
fn what_the_other_secures_is_opened() {
    for suite in Suite::ALL {
        let mut other = theirs(suite, 4);
        let mut unprotector = Unprotector::new(&attribute(suite, 4)).unwrap();
        for number in NUMBERS {
            let plain = varied(number);
            let mut packet = other.encrypt_rtp(&plain).unwrap().to_vec();
            assert_eq!(unprotector.unprotect(&mut packet), Ok(Unprotected::Rtp(plain.len())), "{suite:?}");
            assert_eq!(packet[..plain.len()], plain, "{suite:?}");
        }
        for number in 0..4 {
            let report = [0x80, 201, 0, 2, 0, 0, 0, 9, 1, 2, 3, number];
            let mut packet = other.encrypt_rtcp(&report).unwrap().to_vec();
            assert_eq!(unprotector.unprotect(&mut packet), Ok(Unprotected::Rtcp(report.len())), "{suite:?}");
            assert_eq!(packet[..report.len()], report, "{suite:?}");
        }
    }
}

#[test]
fn the_other_opens_what_is_secured() {
    for suite in Suite::ALL {
        let mut other = theirs(suite, 4);
        let mut client = Client::new(&attribute(suite, 4), 9);
        for number in NUMBERS {
            let plain = varied(number);
            let mut packet = plain.clone();
            client.protector.protect_rtp(&mut packet).unwrap();
            assert_eq!(other.decrypt_rtp(&packet).unwrap(), plain, "{suite:?}");
        }
        for number in 0..4 {
            let report = [0x80, 201, 0, 2, 0, 0, 0, 9, 1, 2, 3, number];
            let mut packet = report.to_vec();
            client.protector.protect_rtcp(&mut packet).unwrap();
            assert_eq!(other.decrypt_rtcp(&packet).unwrap(), &report[..], "{suite:?}");
        }
    }
}

//! The vectors that begin at session keys: no master key is known that derives to them.

use super::*;
use crate::hexadecimal::bytes;
use crate::packet::RtpHeader;

fn transform(suite: Suite, key: &str, salt: &str) -> Transform {
    let mut salt_bytes = [0; SALT_BYTES_MAX];
    salt_bytes[..suite.salt_bytes()].copy_from_slice(&bytes(salt));
    Transform::new(suite, &bytes(key), &[0; 20], &salt_bytes, suite.rtp_tag_bytes())
}

/// Key stream from a block on: RFC 3711 appendix B.2 and RFC 6188 section 7.1, with SSRC, ROC and sequence number zero.
fn check_key_stream(suite: Suite, key: &str, blocks: &[(usize, &str)]) {
    let transform = transform(suite, key, "F0F1F2F3F4F5F6F7F8F9FAFBFCFD");
    let mut stream = vec![0; 0x1_0000 * 16];
    transform.apply_key_stream(Position { ssrc: 0, index: 0 }, &mut stream);
    for (number, expected) in blocks {
        let expected = bytes(expected);
        assert_eq!(stream[number * 16..][..expected.len()], expected, "block {number:#x} of {suite:?}");
    }
}

#[test]
fn key_streams() {
    check_key_stream(
        Suite::AesCm128HmacSha1Tag80,
        "2B7E151628AED2A6ABF7158809CF4F3C",
        &[
            (0, "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0"),
            (
                0xfeff,
                "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44",
            ),
        ],
    );
    check_key_stream(
        Suite::AesCm256HmacSha1Tag80,
        "57f82fe3613fd170a85ec93c40b1f092 2ec4cb0dc025b58272147cc438944a98",
        &[
            (0, "92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac 63c4868b7096d88421b563b8c94c9a31"),
            (
                0xfeff,
                "cea518c90fd91ced9cbb18c078a54711 3dbc4814f4da5f00a08772b63c6a046d 6eb246913062a16891433e97dd01a57f",
            ),
        ],
    );
}

const KEY_128: &str = "000102030405060708090a0b0c0d0e0f";
const KEY_256: &str = "000102030405060708090a0b0c0d0e0f 101112131415161718191a1b1c1d1e1f";
const SALT: &str = "51756964 2070726f 2071756f";

/// RFC 7714 section 16.
fn check_gcm_rtp(suite: Suite, key: &str, expected: &str) {
    let plain = bytes(
        "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 73207472 6573",
    );
    let header = RtpHeader::parse(&plain).unwrap();
    let at = Position { ssrc: header.ssrc, index: header.sequence.into() };
    let transform = transform(suite, key, SALT);
    let mut packet = plain.clone();
    transform.seal_rtp(&mut packet, header.bytes, at, &[], true);
    assert_eq!(packet, bytes(expected));
    let opened = transform.open_rtp(&mut packet, header.bytes, at, 0, true).unwrap();
    assert_eq!(packet[..opened], plain);
}

#[test]
fn gcm_rtp() {
    check_gcm_rtp(
        Suite::AeadAes128Gcm,
        KEY_128,
        "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf \
         8833899d 7f27beb1 6a9152cf 765ee439 0cce",
    );
    check_gcm_rtp(
        Suite::AeadAes256Gcm,
        KEY_256,
        "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 \
         b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
    );
}

const REPORT: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef deadbeef \
                      deadbeef deadbeef";

/// RFC 7714 section 17; the index is that of its examples.
fn check_gcm_rtcp(suite: Suite, key: &str, encrypted: bool, expected: &str) {
    let plain = bytes(REPORT);
    let at = Position { ssrc: 0x4d61_7273, index: 0x5d4 };
    let transform = transform(suite, key, SALT);
    let mut packet = plain.clone();
    transform.seal_rtcp(&mut packet, at, &[], encrypted);
    assert_eq!(packet, bytes(expected));
    let opened = transform.open_rtcp(&mut packet, at.ssrc, 0).unwrap();
    assert_eq!(packet[..opened], plain);
}

#[test]
fn gcm_rtcp() {
    check_gcm_rtcp(
        Suite::AeadAes128Gcm,
        KEY_128,
        true,
        "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 86303ded \
         0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
    );
    check_gcm_rtcp(
        Suite::AeadAes256Gcm,
        KEY_256,
        true,
        "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be 8415f658 c61de047 \
         6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
    );
    check_gcm_rtcp(
        Suite::AeadAes128Gcm,
        KEY_128,
        false,
        &format!("{REPORT} 841dd968 3dd78ec9 2ae58790 125f62b3 000005d4"),
    );
    check_gcm_rtcp(
        Suite::AeadAes256Gcm,
        KEY_256,
        false,
        &format!("{REPORT} 91db4afb feee5a97 8fab4393 ed2615fe 000005d4"),
    );
}

/// A packet that is not genuine is left as it was, so that another key can be tried on it.
#[test]
fn what_does_not_open_is_not_changed() {
    for suite in Suite::ALL {
        let master = MasterKey::from_bytes(suite, &[5; 46][..suite.master_bytes()]).unwrap();
        let keys = SessionKeys::derive(&master);
        let at = Position { ssrc: 0x4d61_7273, index: 7 };
        for encrypted in [true, false] {
            let mut packet = bytes(REPORT);
            keys.rtcp.seal_rtcp(&mut packet, at, &[1, 2], encrypted);
            packet[20] ^= 1;
            let damaged = packet.clone();
            assert_eq!(keys.rtcp.open_rtcp(&mut packet, at.ssrc, 2), Err(SrtpError::NotAuthentic));
            assert_eq!(packet, damaged, "{suite:?}, encrypted: {encrypted}");
        }
        let mut packet = vec![0x80; 60];
        keys.rtp.seal_rtp(&mut packet, 12, at, &[1, 2], true);
        packet[20] ^= 1;
        let damaged = packet.clone();
        assert_eq!(keys.rtp.open_rtp(&mut packet, 12, at, 2, true), Err(SrtpError::NotAuthentic));
        assert_eq!(packet, damaged, "{suite:?}");
    }
}

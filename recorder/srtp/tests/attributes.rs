//! Crypto attributes in the shapes that clients give them.

#![allow(clippy::unwrap_used)]

use callvault_srtp::sdes::{self, Unsupported};
use callvault_srtp::{MasterKey, SrtpError, Suite};

/// 30 bytes of key and salt, the example of RFC 4568 section 9.1.
const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
/// 46 bytes, with padding.
const KEY_256: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLQ==";
/// 28 bytes, with padding.
const KEY_GCM: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGw==";
/// 44 bytes, with padding.
const KEY_GCM_256: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKis=";

fn with_key(text: &str) -> String {
    text.replace(":KEY", &format!(":{KEY}"))
}

#[test]
fn attributes_that_are_chosen() {
    /// Tag, suite, and of each key its lifetime and MKI.
    fn check(value: &str, tag: u32, suite: Suite, keys: &[(Option<u64>, &[u8])]) {
        let attribute = sdes::parse(&with_key(value)).unwrap();
        assert!(attribute.is_supported(), "{value}: {:?}", attribute.unsupported);
        assert_eq!((attribute.tag, attribute.suite), (tag, Some(suite)), "{value}");
        let found: Vec<_> = attribute.keys.iter().map(|key| (key.lifetime_packets, key.mki.as_slice())).collect();
        assert_eq!(found, keys, "{value}");
    }
    use Suite::*;
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY", 1, AesCm128HmacSha1Tag80, &[(None, &[])]);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|1:4", 1, AesCm128HmacSha1Tag80, &[(Some(1 << 20), &[0, 0, 0, 1])]);
    check("999999999 aes_cm_128_hmac_sha1_32 INLINE:KEY|1:1", 999_999_999, AesCm128HmacSha1Tag32, &[(None, &[1])]);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|1048576", 1, AesCm128HmacSha1Tag80, &[(Some(1 << 20), &[])]);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^99", 1, AesCm128HmacSha1Tag80, &[(None, &[])]);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|soon|66051:3", 1, AesCm128HmacSha1Tag80, &[(None, &[1, 2, 3])]);
    check(
        "2 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|1:2;inline:KEY|2^21|2:2",
        2,
        AesCm128HmacSha1Tag80,
        &[(Some(1 << 20), &[0, 1]), (Some(1 << 21), &[0, 2])],
    );
    check(
        " 2  AES_CM_128_HMAC_SHA1_80\tinline:KEY|1:1; inline:KEY|2:1 ",
        2,
        AesCm128HmacSha1Tag80,
        &[(None, &[1]), (None, &[2])],
    );
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY WSH=64 KDR=0", 1, AesCm128HmacSha1Tag80, &[(None, &[])]);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY -vendor=a:b", 1, AesCm128HmacSha1Tag80, &[(None, &[])]);
    check(&format!("3 AES_256_CM_HMAC_SHA1_80 inline:{KEY_256}"), 3, AesCm256HmacSha1Tag80, &[(None, &[])]);
    check(&format!("3 AES_CM_256_HMAC_SHA1_80 inline:{KEY_256}"), 3, AesCm256HmacSha1Tag80, &[(None, &[])]);
    check(&format!("3 AES_256_CM_HMAC_SHA1_80 inline:{}", &KEY_256[..62]), 3, AesCm256HmacSha1Tag80, &[(None, &[])]);
    check(&format!("4 AEAD_AES_128_GCM inline:{KEY_GCM}"), 4, AeadAes128Gcm, &[(None, &[])]);
    check(&format!("5 AEAD_AES_256_GCM inline:{KEY_GCM_256}|2^31"), 5, AeadAes256Gcm, &[(Some(1 << 31), &[])]);
}

#[test]
fn attributes_that_are_passed_over() {
    fn check(value: &str, reason: Unsupported) {
        let attribute = sdes::parse(&with_key(value)).unwrap();
        assert_eq!(attribute.unsupported, Some(reason), "{value}");
        assert!(attribute.keys.is_empty(), "{value}");
        assert!(sdes::choose(&[attribute]).is_none(), "{value}");
    }
    check("1 F8_128_HMAC_SHA1_80 inline:KEY|2^20", Unsupported::Suite);
    check("1 AES_192_CM_HMAC_SHA1_80 inline:short", Unsupported::Suite);
    check("1 AES_CM_128_HMAC_SHA1_80 uri:https://key.example", Unsupported::KeyMethod);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY KDR=1", Unsupported::KeyDerivationRate);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY UNAUTHENTICATED_SRTP", Unsupported::Unauthenticated);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY FEC_ORDER=FEC_SRTP", Unsupported::ForwardErrorCorrection);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY FEC_KEY=inline:KEY", Unsupported::ForwardErrorCorrection);
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY VENDOR", Unsupported::Parameter);
    check(&format!("1 AEAD_AES_128_GCM inline:{KEY_GCM} UNENCRYPTED_SRTP"), Unsupported::UnencryptedGcm);
}

#[test]
fn attributes_that_are_none() {
    fn check(value: &str) {
        let error = sdes::parse(&with_key(value)).unwrap_err();
        let (malformed, length) =
            (matches!(error, SrtpError::AttributeMalformed { .. }), matches!(error, SrtpError::KeyLength { .. }));
        assert!(malformed || length, "{value}: {error}");
        assert!(!error.to_string().contains(&KEY[..8]), "{error}");
    }
    check("");
    check("x AES_CM_128_HMAC_SHA1_80 inline:KEY");
    check("+1 AES_CM_128_HMAC_SHA1_80 inline:KEY");
    check("1234567890 AES_CM_128_HMAC_SHA1_80 inline:KEY");
    check("1");
    check("1 AES_CM_128_HMAC_SHA1_80");
    check("1 AES_CM_128_HMAC_SHA1_80 KEY");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEYKEYKEYKEY");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:WVNf");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:*VNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz");
    check("1 AES_256_CM_HMAC_SHA1_80 inline:KEY");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|1:0");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|1:129");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|256:1");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|one:1");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY;inline:KEY");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|1:1;inline:KEY|2:2");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|1:1;inline:KEY|1:1");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|1:1;inline:KEY|2:1;inline:KEY|3:1;inline:KEY|4:1;inline:KEY|5:1");
    check(&format!("1 AES_CM_128_HMAC_SHA1_80 inline:KEY {}", "x".repeat(4_096)));
}

#[test]
fn the_choice() {
    /// The tag of the one that is chosen.
    fn check(offered: &[&str], tag: Option<u32>) {
        let offered: Vec<_> = offered.iter().filter_map(|value| sdes::parse(&with_key(value)).ok()).collect();
        assert_eq!(sdes::choose(&offered).map(|attribute| attribute.tag), tag, "{offered:?}");
    }
    const GOOD: &str = "1 AES_CM_128_HMAC_SHA1_80 inline:KEY";
    const SHORT: &str = "2 AES_CM_128_HMAC_SHA1_32 inline:KEY";
    const OPEN: &str = "3 AES_CM_128_HMAC_SHA1_80 inline:KEY UNENCRYPTED_SRTP";
    check(&[], None);
    check(&[GOOD, SHORT], Some(1));
    check(&[SHORT, GOOD], Some(2));
    check(&[OPEN, SHORT], Some(2));
    check(&[OPEN], Some(3));
    check(&["7 F8_128_HMAC_SHA1_80 inline:KEY", "nonsense", SHORT], Some(2));
    check(&["8 AES_CM_128_HMAC_SHA1_80 inline:KEY UNENCRYPTED_SRTCP", SHORT], Some(8));
}

#[test]
fn the_answer_echoes_tag_suite_and_agreed_parameters() {
    fn check(value: &str, start: &str, end: &str) {
        let offered = sdes::parse(&with_key(value)).unwrap();
        let answer = offered.answer(None, &mut rand::rng()).unwrap();
        let text = answer.to_text().unwrap();
        let text = text.expose();
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with(end) && !text.contains('|'), "{text}");
        assert!(!answer.keys[0].key.is(&offered.keys[0].key), "the key is our own");
        let read = sdes::parse(text).unwrap();
        assert!(read.keys[0].key.is(&answer.keys[0].key));
        assert_eq!((read.tag, read.params), (offered.tag, offered.params));
    }
    const CM: &str = "AES_CM_128_HMAC_SHA1_80 inline:";
    check("17 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|1:4", &format!("17 {CM}"), "");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY UNENCRYPTED_SRTCP WSH=64", &format!("1 {CM}"), " UNENCRYPTED_SRTCP");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY UNENCRYPTED_SRTP", &format!("1 {CM}"), " UNENCRYPTED_SRTP");
    check(&format!("2 AEAD_AES_256_GCM inline:{KEY_GCM_256}"), "2 AEAD_AES_256_GCM inline:", "=");
}

#[test]
fn our_key_stays_as_long_as_the_suite_does() {
    let rng = &mut rand::rng();
    let own = MasterKey::generate(Suite::AesCm128HmacSha1Tag80, rng);
    let answer = |value: &str| sdes::parse(value).unwrap().answer(Some(&own), &mut rand::rng()).unwrap();
    assert!(answer(&with_key("1 AES_CM_128_HMAC_SHA1_80 inline:KEY")).keys[0].key.is(&own));
    assert!(!answer(&with_key("1 AES_CM_128_HMAC_SHA1_32 inline:KEY")).keys[0].key.is(&own));
    let unsupported = sdes::parse(&with_key("1 F8_128_HMAC_SHA1_80 inline:KEY")).unwrap();
    assert_eq!(unsupported.answer(Some(&own), rng).unwrap_err(), SrtpError::Unsupported);
    assert_eq!(unsupported.to_text().err(), Some(SrtpError::Unsupported));
}

#[test]
fn an_attribute_reads_as_it_was_written() {
    fn check(value: &str) {
        let value = with_key(value);
        assert_eq!(*sdes::parse(&value).unwrap().to_text().unwrap().expose(), value);
    }
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY");
    check("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|1:4;inline:KEY|1000|258:4 UNENCRYPTED_SRTP UNENCRYPTED_SRTCP");
    check(&format!("9 AES_256_CM_HMAC_SHA1_80 inline:{KEY_256}|7:128"));
}

#[test]
fn keys_are_not_shown() {
    let attribute = sdes::parse(&with_key("1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|1:4")).unwrap();
    let shown = format!("{attribute:?}");
    assert!(shown.contains("AES_CM_128_HMAC_SHA1_80"), "{shown}");
    for hidden in [&KEY[..6], "89, 83, 95", "595, 0x53"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

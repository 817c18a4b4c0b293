//! What always holds for keys and sealed bytes.
#![allow(clippy::unwrap_used)]

use callvault_seal::{
    DataKey, KEYRING_KEYS_MAX, KeyId, Keyring, Private, PrivateKey, PublicKey, SealError, SealedKey, seal_key,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn private(seed: u64) -> PrivateKey {
    PrivateKey::generate(&mut rng(seed))
}

/// Holds only when the type does not implement the trait: with both, the choice of `Marker` is ambiguous and this does not compile.
macro_rules! assert_not_implemented {
    ($($type:ty: $trait:path),+ $(,)?) => {$(
        const _: fn() = || {
            struct Implemented;
            trait Marker<A> { fn marker() {} }
            impl<T: ?Sized> Marker<()> for T {}
            impl<T: ?Sized + $trait> Marker<Implemented> for T {}
            let _ = <$type as Marker<_>>::marker;
        };
    )+};
}

assert_not_implemented!(
    DataKey: std::fmt::Debug,
    DataKey: std::fmt::Display,
    DataKey: Clone,
    DataKey: serde::Serialize,
    callvault_seal::Cipher: std::fmt::Debug,
    PrivateKey: std::fmt::Debug,
    PrivateKey: Clone,
    PrivateKey: serde::Serialize,
    Keyring: std::fmt::Debug,
    callvault_seal::Secret<String>: std::fmt::Debug,
    callvault_seal::Secret<String>: std::fmt::Display,
    callvault_seal::Secret<String>: Clone,
);

fn check_private_is_silent(printed: String) {
    assert!(!printed.contains("+4930"), "{printed}");
    assert!(printed.contains("[private]"), "{printed}");
}

#[test]
fn personal_data_is_not_printed() {
    let number = Private::new("+4930123".to_owned());
    check_private_is_silent(format!("{number}"));
    check_private_is_silent(format!("{number:?}"));
    check_private_is_silent(format!("{number:#?}"));
    check_private_is_silent(format!("{number:>40}"));
    check_private_is_silent(format!("{:?}", Some(vec![number.clone()])));
    assert_eq!(number.expose(), "+4930123");
    assert_eq!(serde_json::to_string(&number).unwrap(), "\"+4930123\"");
}

fn check_error_is_silent(text: &str) {
    let error = PrivateKey::from_text(text).err().unwrap();
    for printed in [format!("{error}"), format!("{error:?}")] {
        assert!(!printed.contains("c2VjcmV0"), "{printed}");
    }
}

#[test]
fn key_errors_do_not_repeat_the_text() {
    check_error_is_silent("callvault-private-1:c2VjcmV0");
    check_error_is_silent("callvault-private-1:c2VjcmV0!");
    check_error_is_silent("callvault-public-1:c2VjcmV0");
    check_error_is_silent("c2VjcmV0");
}

fn check_text(text: &str, expected: &str) {
    let error = PublicKey::from_text(text).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn key_text_errors_say_what_is_wrong() {
    let right = private(1).public().to_text();
    check_text("", "begins with \"callvault-public-1:\"");
    check_text("callvault-public-2:AAAA", "begins with");
    check_text(private(1).to_text().expose(), "this is the other half of the pair");
    check_text("callvault-public-1:AAAA", "not 32 bytes");
    check_text(&format!("{right}AAAA"), "not 32 bytes");
    check_text(&right.replace('=', "!"), "not base64");
    check_text(&right.replace('=', ""), "not base64");
    check_text("callvault-public-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "make a new pair");
    check_text("callvault-public-1:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "make a new pair");
    assert!(PublicKey::from_text(&format!("  {right}\r\n")).is_ok());
}

#[test]
fn key_text_round_trip() {
    let key = private(2);
    let again = PrivateKey::from_text(key.to_text().expose()).unwrap();
    assert_eq!(again.public(), key.public());
    assert_eq!(again.to_text().expose(), key.to_text().expose());
    let public = PublicKey::from_text(&key.public().to_text()).unwrap();
    assert_eq!(&public, key.public());
    let json = serde_json::to_string(&public).unwrap();
    assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), public);
}

#[test]
fn key_id_text() {
    let id = private(3).public().id();
    assert_eq!(id.to_string().parse::<KeyId>().unwrap(), id);
    assert_eq!(KeyId([0, 1, 2, 3, 4, 0xab, 0xcd, 0xef]).to_string(), "0001020304abcdef");
    for wrong in ["", "0001", "+001020304abcdef", "0001020304abcdeg", "0001020304abcdef0"] {
        assert_eq!(wrong.parse::<KeyId>(), Err(SealError::KeyIdText), "{wrong}");
    }
}

fn sealed(seed: u64, to: &PrivateKey, context: &[u8]) -> (DataKey, SealedKey) {
    let key = DataKey::generate(&mut rng(seed));
    let sealed = seal_key(&mut rng(seed + 1), to.public(), &key, context);
    (key, sealed)
}

#[test]
fn sealed_key_opens_with_its_key_and_context_only() {
    let (mine, other) = (private(4), private(5));
    let (key, sealed) = sealed(6, &mine, b"here");
    assert_eq!(sealed.open(&mine, b"here").unwrap().expose(), key.expose());
    assert!(sealed.open(&mine, b"there").is_err());
    assert!(sealed.open(&mine, b"").is_err());
    assert!(sealed.open(&other, b"here").is_err());
}

#[test]
fn sealed_key_with_any_flipped_bit_does_not_open() {
    let mine = private(7);
    let (key, sealed) = sealed(8, &mine, b"here");
    let ring = Keyring::new(mine, vec![]).unwrap();
    let bytes = sealed.to_bytes();
    assert_eq!(SealedKey::from_bytes(&bytes).unwrap(), sealed);
    assert_eq!(ring.open(&[sealed], b"here").unwrap().expose(), key.expose());
    // One bit of each byte, and among them the highest of the encapsulated key.
    for bit in (0..bytes.len()).map(|byte| byte * 8 + byte % 8).chain([39 * 8 + 7]) {
        let mut bad = bytes;
        bad[bit / 8] ^= 1 << (bit % 8);
        let bad = SealedKey::from_bytes(&bad).unwrap();
        // The highest bit of an X25519 point is ignored when it is read (RFC 7748 section 5), but the key schedule binds the bytes.
        assert!(ring.open(&[bad], b"here").is_err(), "bit {bit}");
    }
    for length in [0, 87, 89] {
        assert_eq!(SealedKey::from_bytes(&vec![0; length]), Err(SealError::SealedKeyLength { found: length }));
    }
}

#[test]
fn keyring_opens_what_was_sealed_before_a_rotation() {
    let (key, sealed_then) = sealed(10, &private(9), b"here");
    let ring = Keyring::new(private(11), vec![private(12), private(9)]).unwrap();
    let opened = ring.open(std::slice::from_ref(&sealed_then), b"here").unwrap();
    assert_eq!(opened.expose(), key.expose());
    assert_eq!(ring.public().id(), private(11).public().id());
    assert_eq!(ring.ids().count(), 3);

    // One of several recipients is enough, also when another copy is damaged.
    let mut damaged = sealed_then.clone();
    damaged.ciphertext[0] ^= 1;
    assert!(ring.open(&[damaged.clone(), sealed_then.clone()], b"here").is_ok());
    assert_eq!(
        ring.open(&[damaged], b"here").err().unwrap(),
        SealError::SealedKeyNotAuthentic { recipient: private(9).public().id() }
    );
    let stranger = Keyring::new(private(13), vec![]).unwrap();
    let error = stranger.open(&[sealed_then], b"here").err().unwrap();
    assert!(error.to_string().contains(&private(9).public().id().to_string()));
    assert!(stranger.open(&[], b"here").is_err());
}

#[test]
fn keyring_is_bounded() {
    let older: Vec<PrivateKey> = (0..KEYRING_KEYS_MAX as u64).map(private).collect();
    assert!(matches!(Keyring::new(private(0), older), Err(SealError::TooManyKeys { .. })));
}

/// NIST SP 800-38D, the AES-256 case with a zero key, zero nonce and one zero block.
#[test]
fn cipher_known_answer() {
    let cipher = DataKey::from_bytes([0; 32]).cipher();
    let mut buf = vec![0; 16];
    cipher.seal(&[0; 12], b"", &mut buf, 0);
    let expected = [
        0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18, 0xd0, 0xd1,
        0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19,
    ];
    assert_eq!(buf, expected);
}

/// Failing seeds are kept beside this file.
fn kept() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { failure_persistence: Some(Box::new(beside)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn cipher_round_trip_and_any_change_is_noticed(
        head in prop::collection::vec(any::<u8>(), 0..40),
        text in prop::collection::vec(any::<u8>(), 0..300),
        aad in prop::collection::vec(any::<u8>(), 0..40),
        nonce in any::<[u8; 12]>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let cipher = DataKey::generate(&mut rng(14)).cipher();
        let mut buf = head.clone();
        buf.extend_from_slice(&text);
        cipher.seal(&nonce, &aad, &mut buf, head.len());
        prop_assert_eq!(&buf[..head.len()], &head[..]);
        prop_assert_eq!(buf.len(), head.len() + text.len() + 16);
        let sealed = buf.split_off(head.len());

        let mut opened = sealed.clone();
        cipher.open(&nonce, &aad, &mut opened).unwrap();
        prop_assert_eq!(&opened, &text);

        let bit = flip.index(sealed.len() * 8);
        let mut bad = sealed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let before = bad.clone();
        prop_assert_eq!(cipher.open(&nonce, &aad, &mut bad), Err(SealError::NotAuthentic));
        prop_assert_eq!(bad, before);

        let mut cut = sealed[..flip.index(sealed.len())].to_vec();
        prop_assert!(cipher.open(&nonce, &aad, &mut cut).is_err());
        let mut longer_aad = aad.clone();
        longer_aad.push(0);
        prop_assert!(cipher.open(&nonce, &longer_aad, &mut sealed.clone()).is_err());
    }
}

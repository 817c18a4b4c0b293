//! The X25519 pair that data keys are sealed to, its text forms and its id.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use rand::CryptoRng;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::{SealError, Secret};

pub(crate) type HpkePublic = <X25519HkdfSha256 as Kem>::PublicKey;
pub(crate) type HpkePrivate = <X25519HkdfSha256 as Kem>::PrivateKey;

const PUBLIC_PREFIX: &str = "callvault-public-1:";
const PRIVATE_PREFIX: &str = "callvault-private-1:";
/// 32 bytes in padded base64.
const BASE64_CHARS: usize = 44;
/// A key is one short line. A file that is longer than this is not one, and need not be read to its end.
pub const KEY_TEXT_BYTES_MAX: usize = 256;

/// Names a key pair: the first 8 bytes of SHA-256 over the 32 bytes of the public key. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = SealError;

    fn from_str(text: &str) -> Result<Self, SealError> {
        // from_str_radix alone would take "+" and shorter texts.
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(SealError::KeyIdText);
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| SealError::KeyIdText)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Public half of a pair: whoever has it can seal a data key, and not open it.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; 32],
    key: HpkePublic,
}

impl PublicKey {
    /// Reads the 32 bytes of an X25519 public key (RFC 7748).
    ///
    /// # Errors
    /// [`SealError::WeakPublicKey`] for the points with which no secret can be agreed, so that sealing to a key that was
    /// read cannot fail later, in a call.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, SealError> {
        let key = HpkePublic::from_bytes(&bytes).map_err(|_| SealError::WeakPublicKey)?;
        // A point of small order gives zero with every private key, so one agreement with any of them tells; decapsulation is
        // the agreement that the library offers without randomness, and it refuses zero.
        let probe = HpkePrivate::from_bytes(&[0x42; 32]).map_err(|_| SealError::WeakPublicKey)?;
        let as_encapsulated =
            <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&bytes).map_err(|_| SealError::WeakPublicKey)?;
        X25519HkdfSha256::decap(&probe, None, &as_encapsulated).map_err(|_| SealError::WeakPublicKey)?;
        Ok(Self { bytes, key })
    }

    /// Reads `callvault-public-1:<base64>`.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it; [`SealError::WeakPublicKey`].
    pub fn from_text(text: &str) -> Result<Self, SealError> {
        let bytes = from_text(text, PUBLIC_PREFIX, PRIVATE_PREFIX)?;
        Self::from_bytes(*bytes.expose())
    }

    /// Writes `callvault-public-1:<base64>`.
    pub fn to_text(&self) -> String {
        let mut text = String::from(PUBLIC_PREFIX);
        STANDARD.encode_string(self.bytes, &mut text);
        text
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The name of the pair.
    pub fn id(&self) -> KeyId {
        let digest = Sha256::digest(self.bytes);
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    pub(crate) fn hpke(&self) -> &HpkePublic {
        &self.key
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl FromStr for PublicKey {
    type Err = SealError;

    fn from_str(text: &str) -> Result<Self, SealError> {
        Self::from_text(text)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_text(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Private half of a pair: opens the data keys sealed to it. Wiped when dropped; it cannot be printed.
pub struct PrivateKey {
    // The library's type wipes itself.
    key: HpkePrivate,
    public: PublicKey,
}

impl PrivateKey {
    /// A fresh pair from `rng` (RFC 9180 section 7.1.3, DeriveKeyPair over 32 random bytes).
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut rng = rng;
        let (key, _) = X25519HkdfSha256::gen_keypair_with_rng(&mut rng);
        Self::from_hpke(key).expect("a clamped scalar times the base point is never of small order")
    }

    /// Reads `callvault-private-1:<base64>`.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it.
    pub fn from_text(text: &str) -> Result<Self, SealError> {
        let bytes = from_text(text, PRIVATE_PREFIX, PUBLIC_PREFIX)?;
        let key =
            HpkePrivate::from_bytes(bytes.expose()).map_err(|_| SealError::KeyLength { prefix: PRIVATE_PREFIX })?;
        Self::from_hpke(key)
    }

    /// Writes `callvault-private-1:<base64>`. Both callers of this are places where a person keeps the key.
    pub fn to_text(&self) -> Secret<String> {
        let mut bytes: [u8; 32] = self.key.to_bytes().into();
        // All of the room at once: a string that grows leaves unwiped copies behind.
        let mut text = String::with_capacity(PRIVATE_PREFIX.len() + BASE64_CHARS);
        text.push_str(PRIVATE_PREFIX);
        STANDARD.encode_string(bytes, &mut text);
        bytes.zeroize();
        Secret::new(text)
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn hpke(&self) -> &HpkePrivate {
        &self.key
    }

    pub(crate) fn from_hpke(key: HpkePrivate) -> Result<Self, SealError> {
        let public = X25519HkdfSha256::sk_to_pk(&key);
        let public = PublicKey::from_bytes(public.to_bytes().into())?;
        Ok(Self { key, public })
    }
}

/// The 32 bytes behind `prefix`; `other` is the prefix of the other half, to say so when they were mixed up.
fn from_text(text: &str, prefix: &'static str, other: &'static str) -> Result<Secret<[u8; 32]>, SealError> {
    let text = text.trim();
    let encoded = text
        .strip_prefix(prefix)
        .ok_or(SealError::KeyPrefix { expected: prefix, other_half: text.starts_with(other) })?;
    if encoded.len() > BASE64_CHARS {
        return Err(SealError::KeyLength { prefix });
    }
    // The decoder wants room for whole groups of three bytes.
    let mut room = Secret::new([0_u8; 33]);
    let found = STANDARD.decode_slice(encoded, room.expose_mut()).map_err(|_| SealError::KeyBase64 { prefix })?;
    if found != 32 {
        return Err(SealError::KeyLength { prefix });
    }
    let mut bytes = Secret::new([0_u8; 32]);
    bytes.expose_mut().copy_from_slice(&room.expose()[..32]);
    Ok(bytes)
}

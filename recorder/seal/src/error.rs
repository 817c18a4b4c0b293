//! What can go wrong with keys and sealed bytes.

use crate::KeyId;

/// Why a key was not read or sealed bytes were not opened. The texts hold no key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// AES-256-GCM authentication failed: the bytes were changed, or key, nonce or associated data are not those that
    /// sealed them. Which of these it was cannot be told.
    #[error("open sealed bytes: they are damaged or were sealed with another key or for another place")]
    NotAuthentic,
    /// None of the private keys at hand is a recipient of this data key.
    #[error(
        "open a sealed data key: it is sealed to {} and none of these private keys is here; add the older private key to the keyring",
        list(.recipients)
    )]
    NoPrivateKey {
        /// The keys it is sealed to.
        recipients: Vec<KeyId>,
    },
    /// The private key is here, but the sealed key does not open with it.
    #[error("open the data key sealed to {recipient}: it is damaged or belongs to another recording")]
    SealedKeyNotAuthentic {
        /// The key it is sealed to.
        recipient: KeyId,
    },
    /// The text of a key does not begin as it must.
    #[error("read a key: expected text that begins with \"{expected}\"{}", if *.other_half { ", this is the other half of the pair" } else { "" })]
    KeyPrefix {
        /// The prefix that was expected.
        expected: &'static str,
        /// Whether the text is a public key where a private one is needed, or the reverse.
        other_half: bool,
    },
    /// What follows the prefix is not base64.
    #[error("read a key: what follows \"{prefix}\" is not base64; copy the whole line again")]
    KeyBase64 {
        /// The prefix that was there.
        prefix: &'static str,
    },
    /// What follows the prefix is not 32 bytes.
    #[error("read a key: what follows \"{prefix}\" is not 32 bytes; copy the whole line again")]
    KeyLength {
        /// The prefix that was there.
        prefix: &'static str,
    },
    /// The public key is one of the few points of small order, with which no secret can be agreed (RFC 9180 section 7.1.4).
    #[error("read a public key: it is not a usable X25519 key; make a new pair")]
    WeakPublicKey,
    /// The bytes of a sealed key have the wrong length.
    #[error("read a sealed key: expected 88 bytes, found {found}")]
    SealedKeyLength {
        /// Bytes found.
        found: usize,
    },
    /// More private keys than a keyring takes.
    #[error("read the private keys: there are more than {max}; is this the right folder?")]
    TooManyKeys {
        /// How many are taken.
        max: usize,
    },
    /// The text of a key id is not 16 hexadecimal digits.
    #[error("read a key id: expected 16 hexadecimal digits")]
    KeyIdText,
}

fn list(recipients: &[KeyId]) -> String {
    if recipients.is_empty() {
        return "nobody".to_owned();
    }
    let ids: Vec<String> = recipients.iter().map(KeyId::to_string).collect();
    ids.join(", ")
}

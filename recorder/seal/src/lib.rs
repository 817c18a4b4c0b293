//! Keys and sealing: the data key of a recording, the AES-256-GCM cipher under it, the HPKE (RFC 9180) sealing of a data
//! key to the appliance's and to escrow public keys, and the wrapper types that keep secrets and personal data out of
//! logs. The crate is pure: randomness comes in as an argument; it has no clock, no files, no sockets, no threads, and it
//! decides nothing about formats. What a nonce and the associated data are is said by the format that uses them.
//!
//! # What is what
//!
//! | type | what it is | where it may be |
//! |---|---|---|
//! | [`DataKey`] | 32 random bytes, one per lane of the journal or per archive | memory, and the checkpoint on tmpfs |
//! | [`Cipher`] | the expanded key schedule of a data key | memory |
//! | [`PublicKey`] | X25519 public key of the appliance or of an escrow holder | anywhere |
//! | [`PrivateKey`] | its private half | the daemon's memory, the credential |
//! | [`SealedKey`] | a data key that only the holder of one private key opens | journal, archive, catalogue |
//! | [`Keyring`] | the current private key and those before it | the daemon's memory |
//!
//! # The form of a sealed key
//!
//! HPKE, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; `info` is the ASCII text
//! `callvault data key 1`; the associated data is the context that the caller names (which recording of which file the key
//! is for), so a sealed key that was moved elsewhere does not open; the plaintext is the 32 bytes of the data key. Stored,
//! it is 88 bytes: the recipient's [`KeyId`] (8), the encapsulated key (32), the ciphertext with its tag (48).
//!
//! # The text of a key
//!
//! `callvault-public-1:` or `callvault-private-1:` followed by the 32 bytes in base64 (RFC 4648 section 4, padded). White
//! space around it is ignored, anything else is an error that says what was expected and never repeats the text.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cipher;
mod error;
mod keyring;
mod keys;
mod sealed;
mod wrapped;

pub use cipher::{Cipher, DATA_KEY_BYTES, DataKey, NONCE_BYTES, TAG_BYTES};
pub use error::SealError;
pub use keyring::{KEYRING_KEYS_MAX, Keyring};
pub use keys::{KEY_TEXT_BYTES_MAX, KeyId, PrivateKey, PublicKey};
pub use sealed::{SEALED_KEY_BYTES, SealedKey, seal_key};
pub use wrapped::{Private, Secret};

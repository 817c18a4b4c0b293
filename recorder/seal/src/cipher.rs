//! Data keys and the AES-256-GCM cipher under them.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Tag};
use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::SealError;

/// Length of a data key in bytes (AES-256).
pub const DATA_KEY_BYTES: usize = 32;
/// Length of a nonce in bytes (NIST SP 800-38D, the 96-bit form).
pub const NONCE_BYTES: usize = 12;
/// Length of the authentication tag in bytes, never truncated.
pub const TAG_BYTES: usize = 16;

/// The key that seals one lane of a journal or one archive. Wiped when dropped; it cannot be printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; DATA_KEY_BYTES]);

impl DataKey {
    /// A fresh key from `rng`.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut key = Self([0; DATA_KEY_BYTES]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// The key that these bytes are; the copy the caller holds is the caller's to wipe.
    pub fn from_bytes(bytes: [u8; DATA_KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Another key, that only who has this one can make (HKDF-SHA256, RFC 5869): `salt` tells apart those that are made of it for the same
    /// purpose, and `purpose` those that have another.
    ///
    /// # Panics
    /// Never: 32 bytes are within what HKDF can give.
    pub fn derive(&self, salt: &[u8], purpose: &[u8]) -> Self {
        let mut key = Self([0; DATA_KEY_BYTES]);
        Hkdf::<Sha256>::new(Some(salt), &self.0)
            .expand(purpose, &mut key.0)
            .expect("32 bytes are within the 8,160 that HKDF-SHA256 can give");
        key
    }

    /// The bytes, for a checkpoint that lives in memory only.
    pub fn expose(&self) -> &[u8; DATA_KEY_BYTES] {
        &self.0
    }

    /// The expanded cipher. Expanding costs about as much as sealing a kilobyte, so keep the cipher for as long as the key
    /// is in use.
    pub fn cipher(&self) -> Cipher {
        Cipher { aes: Box::new(Aes256Gcm::new((&self.0).into())) }
    }
}

/// AES-256-GCM with an expanded key. Wiped when dropped; it cannot be printed.
///
/// A nonce must never seal two different texts under one key: who calls says how that is kept.
#[derive(Clone)]
pub struct Cipher {
    // Boxed: a kilobyte of round keys should not be moved about on the stack, where copies would stay unwiped.
    aes: Box<Aes256Gcm>,
}

impl Cipher {
    /// Encrypts `buf[from..]` in place and appends the 16-byte tag. `aad` is authenticated and not stored.
    ///
    /// # Panics
    /// If `from` lies beyond the end of `buf`: the caller's mistake, no input can cause it.
    pub fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], buf: &mut Vec<u8>, from: usize) {
        let tag = self
            .aes
            .encrypt_inout_detached(nonce.into(), aad, (&mut buf[from..]).into())
            .expect("a buffer in memory is far below the 64 GiB that AES-GCM can seal");
        buf.extend_from_slice(&tag);
    }

    /// Verifies and decrypts all of `buf`, and truncates the tag.
    ///
    /// # Errors
    /// [`SealError::NotAuthentic`]; `buf` is then as it was.
    pub fn open(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], buf: &mut Vec<u8>) -> Result<(), SealError> {
        let plain = self.open_in_place(nonce, aad, buf)?.len();
        buf.truncate(plain);
        Ok(())
    }

    /// Verifies and decrypts a slice, and returns the part of it that is plaintext (all but the tag).
    ///
    /// # Errors
    /// [`SealError::NotAuthentic`]; `buf` is then as it was.
    pub fn open_in_place<'a>(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        buf: &'a mut [u8],
    ) -> Result<&'a mut [u8], SealError> {
        let plain = buf.len().checked_sub(TAG_BYTES).ok_or(SealError::NotAuthentic)?;
        let (text, tag) = buf.split_at_mut(plain);
        let tag = Tag::try_from(&*tag).map_err(|_| SealError::NotAuthentic)?;
        self.aes
            .decrypt_inout_detached(nonce.into(), aad, (&mut *text).into(), &tag)
            .map_err(|_| SealError::NotAuthentic)?;
        Ok(text)
    }
}

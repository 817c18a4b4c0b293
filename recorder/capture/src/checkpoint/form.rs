//! The form that every file has around its content, and how the content is sealed. Integers are little-endian.
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 4 | magic `CVCP` |
//! | 4 | 1 | kind: 1 session, 2 lane, 3 ended recording |
//! | 5 | 1 | zero |
//! | 6 | 2 | version |
//! | 8 | 8 | sequence, which rises with each writing |
//! | 16 | 4 | length of the content |
//! | 20 | 8 | names the key that the daemon told |
//! | 28 | 16 | salt, of its own for each recorder |
//! | 44 | 8 | number of the sealing |
//! | 52 | | content, sealed, and 16 bytes of tag |
//!
//! The key is HKDF-SHA256 of the daemon's with the salt; the nonce of AES-256-GCM is the number of the sealing behind four zeros, and no
//! recorder uses a number twice. All of the head is authenticated.

use std::sync::atomic::{AtomicU64, Ordering};

use callvault_control::CheckpointKey;
use callvault_seal::{Cipher, DataKey, NONCE_BYTES, TAG_BYTES};
use rand::CryptoRng;
use zeroize::Zeroizing;

/// Bytes before the content.
pub(super) const HEAD_BYTES: usize = 52;

const MAGIC: [u8; 4] = *b"CVCP";
const KEY_ID_BYTES: usize = 8;
const SALT_BYTES: usize = 16;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A session.
    Session,
    /// A recording that has ended: the content is JSON.
    Ended,
    /// A lane: the content is postcard.
    Lane,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Lane => 2,
            Self::Ended => 3,
        }
    }

    /// The version that is written, and the only one that is read.
    fn version(self) -> u16 {
        match self {
            Self::Session | Self::Ended => 1,
            Self::Lane => 2,
        }
    }
}

/// Why bytes are not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    /// Cut, or changed, or something else altogether.
    #[error("it is damaged")]
    Damaged,
    /// Whole, and of another version.
    #[error("it is of version {found}, which this recorder does not know")]
    Version {
        /// The version that it has.
        found: u16,
    },
    /// Whole, and says what cannot be.
    #[error("it says what cannot be: {0}")]
    Content(&'static str),
    /// Written before the machine was started: its times mean nothing now.
    #[error("it is from before the machine was started")]
    OtherBoot,
    /// Written under another daemon, whose key is gone.
    #[error("it is sealed under the key of a daemon that is gone")]
    OtherKey,
}

/// Seals and opens contents under the daemon's key.
pub(super) struct Seal {
    key: DataKey,
    id: [u8; KEY_ID_BYTES],
    salt: [u8; SALT_BYTES],
    cipher: Cipher,
    sealed: AtomicU64,
}

impl Seal {
    /// Each has a salt of its own, so that what two of them seal under the same number is under different keys.
    pub(super) fn new(key: &CheckpointKey, rng: &mut dyn CryptoRng) -> Self {
        let key = DataKey::from_bytes(*key.expose());
        let mut salt = [0; SALT_BYTES];
        rng.fill_bytes(&mut salt);
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&key.derive(b"", b"callvault checkpoint name 1").expose()[..KEY_ID_BYTES]);
        Self { cipher: cipher(&key, salt), id, salt, key, sealed: AtomicU64::new(0) }
    }

    /// The bytes to store. None where the content is longer than a file can say.
    pub(super) fn pack(&self, kind: Kind, sequence: u64, content: &[u8]) -> Option<Vec<u8>> {
        let length = u32::try_from(content.len()).ok()?;
        let number = self.sealed.fetch_add(1, Ordering::Relaxed);
        // All of it at once: the content is in the clear in here until it is sealed, and no copy of it must be left behind.
        let mut bytes = Vec::with_capacity(HEAD_BYTES + content.len() + TAG_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[kind.number(), 0]);
        bytes.extend_from_slice(&kind.version().to_le_bytes());
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&number.to_le_bytes());
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&bytes);
        bytes.extend_from_slice(content);
        self.cipher.seal(&nonce(number), &head, &mut bytes, HEAD_BYTES);
        Some(bytes)
    }

    /// Sequence and content of stored bytes; what is behind them is not looked at.
    pub(super) fn unpack(&self, kind: Kind, bytes: &[u8]) -> Result<(u64, Zeroizing<Vec<u8>>), FormError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(FormError::Damaged)?;
        let Head { magic, kind: found, version, sequence, length, id, salt, number } = Head::read(head);
        if magic != MAGIC || found != kind.number() {
            return Err(FormError::Damaged);
        }
        if version != kind.version() {
            return Err(FormError::Version { found: version });
        }
        if id != self.id {
            return Err(FormError::OtherKey);
        }
        let sealed = rest.get(..sealed_bytes(length)).ok_or(FormError::Damaged)?;
        let mut content = Zeroizing::new(sealed.to_vec());
        cipher(&self.key, salt).open(&nonce(number), head, &mut content).map_err(|_| FormError::Damaged)?;
        Ok((sequence, content))
    }
}

/// What is before the content.
struct Head {
    magic: [u8; 4],
    kind: u8,
    version: u16,
    sequence: u64,
    length: u32,
    id: [u8; KEY_ID_BYTES],
    salt: [u8; SALT_BYTES],
    number: u64,
}

impl Head {
    fn read(bytes: &[u8; HEAD_BYTES]) -> Self {
        fn part<const N: usize>(bytes: &[u8; HEAD_BYTES], at: usize) -> [u8; N] {
            std::array::from_fn(|index| bytes[at + index])
        }
        Self {
            magic: part(bytes, 0),
            kind: bytes[4],
            version: u16::from_le_bytes(part(bytes, 6)),
            sequence: u64::from_le_bytes(part(bytes, 8)),
            length: u32::from_le_bytes(part(bytes, 16)),
            id: part(bytes, 20),
            salt: part(bytes, 28),
            number: u64::from_le_bytes(part(bytes, 44)),
        }
    }
}

fn cipher(key: &DataKey, salt: [u8; SALT_BYTES]) -> Cipher {
    key.derive(&salt, b"callvault checkpoint 1").cipher()
}

fn nonce(number: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[NONCE_BYTES - size_of::<u64>()..].copy_from_slice(&number.to_le_bytes());
    nonce
}

/// Bytes of a sealed content of this length.
fn sealed_bytes(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX).saturating_add(TAG_BYTES)
}

/// How many bytes follow the head, by what it says.
pub(super) fn bytes_behind(head: &[u8; HEAD_BYTES]) -> usize {
    sealed_bytes(Head::read(head).length)
}

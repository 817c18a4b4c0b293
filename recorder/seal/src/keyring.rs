//! The private keys of an appliance: the current one and those before it.

use crate::{DataKey, KeyId, PrivateKey, PublicKey, SealError, SealedKey};

/// Private keys in a keyring: ten years of monthly rotation. The limit keeps a wrong folder of files from being read as keys.
pub const KEYRING_KEYS_MAX: usize = 128;

/// The current private key, to whose public half new data keys are sealed, and older ones that still open what was
/// sealed before a rotation.
pub struct Keyring {
    current: PrivateKey,
    older: Vec<PrivateKey>,
}

impl Keyring {
    /// A keyring; `older` in any order. A key that is there twice does no harm.
    ///
    /// # Errors
    /// [`SealError::TooManyKeys`] beyond [`KEYRING_KEYS_MAX`].
    pub fn new(current: PrivateKey, older: Vec<PrivateKey>) -> Result<Self, SealError> {
        if older.len() >= KEYRING_KEYS_MAX {
            return Err(SealError::TooManyKeys { max: KEYRING_KEYS_MAX });
        }
        Ok(Self { current, older })
    }

    /// The public key that new data keys are sealed to.
    pub fn public(&self) -> &PublicKey {
        self.current.public()
    }

    /// The ids of all keys, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys().map(|key| key.public().id())
    }

    /// Opens the first of `sealed` that one of these keys is the recipient of and that is authentic for `context`.
    ///
    /// # Errors
    /// [`SealError::NoPrivateKey`] when none is sealed to any of these keys; [`SealError::SealedKeyNotAuthentic`] when one is
    /// but does not open.
    pub fn open(&self, sealed: &[SealedKey], context: &[u8]) -> Result<DataKey, SealError> {
        let mut failed = None;
        for one in sealed {
            for key in self.keys().filter(|key| key.public().id() == one.recipient) {
                match one.open(key, context) {
                    Ok(key) => return Ok(key),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        Err(failed.unwrap_or_else(|| SealError::NoPrivateKey {
            recipients: sealed.iter().map(|one| one.recipient).collect(),
        }))
    }

    fn keys(&self) -> impl Iterator<Item = &PrivateKey> {
        std::iter::once(&self.current).chain(&self.older)
    }
}

//! Master keys and what is derived from them (RFC 3711 section 4.3, RFC 6188 section 3, RFC 7714 section 11).

use std::fmt;

use aes::{Aes128, Aes256};
use callvault_seal::Secret;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use rand::CryptoRng;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::suite::MASTER_BYTES_MAX;
use crate::{SrtpError, Suite};

/// What a derived key is for (RFC 3711 section 4.3.1 and 4.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// A master key with its salt, and the suite that it is for. Wiped when dropped; its `Debug` shows the suite alone.
///
/// It serialises as suite and bytes, for a checkpoint that lives in memory only: what is serialised is no longer wiped by this type.
pub struct MasterKey {
    suite: Suite,
    /// Key, then salt, then zeros.
    bytes: Secret<[u8; MASTER_BYTES_MAX]>,
}

impl MasterKey {
    /// The key that these bytes are: key, then salt. The caller's copy is the caller's to wipe.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`].
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, SrtpError> {
        let expected = suite.master_bytes();
        if bytes.len() != expected {
            return Err(SrtpError::KeyLength { suite: suite.name(), expected, found: bytes.len() });
        }
        let mut key = Self { suite, bytes: Secret::new([0; MASTER_BYTES_MAX]) };
        key.bytes.expose_mut()[..expected].copy_from_slice(bytes);
        Ok(key)
    }

    /// A fresh key from `rng`.
    pub fn generate(suite: Suite, rng: &mut dyn CryptoRng) -> Self {
        let mut key = Self { suite, bytes: Secret::new([0; MASTER_BYTES_MAX]) };
        rng.fill_bytes(&mut key.bytes.expose_mut()[..suite.master_bytes()]);
        key
    }

    /// The suite that it is for.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Key and salt, for the crypto attribute and for a checkpoint that lives in memory only.
    pub fn expose(&self) -> &[u8] {
        &self.bytes.expose()[..self.suite.master_bytes()]
    }

    /// Whether it is the same key for the same suite. Takes as long whatever the answer.
    pub fn is(&self, other: &Self) -> bool {
        self.suite == other.suite && bool::from(self.bytes.expose().ct_eq(other.bytes.expose()))
    }

    /// Another copy in memory, for a checkpoint. There is no `Clone`, so that none is made by the way.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { suite: self.suite, bytes: Secret::new(*self.bytes.expose()) }
    }

    /// Fills `out` with the key stream for `label`. The key derivation rate is zero: each is derived once.
    pub(crate) fn derive(&self, label: Label, out: &mut [u8]) {
        let (key, salt) = self.expose().split_at(self.suite.key_bytes());
        // The 96-bit salt of the AEAD suites is extended with zeros at its end (RFC 7714 section 11).
        let mut block = Zeroizing::new([0_u8; 16]);
        block[..salt.len()].copy_from_slice(salt);
        block[7] ^= label as u8;
        out.fill(0);
        match self.suite.key_bytes() {
            16 => key_stream::<Ctr128BE<Aes128>>(key, &block, out),
            _ => key_stream::<Ctr128BE<Aes256>>(key, &block, out),
        }
    }
}

fn key_stream<C: KeyIvInit + StreamCipher>(key: &[u8], block: &[u8; 16], out: &mut [u8]) {
    let mut cipher =
        C::new_from_slices(key, block).expect("the suite says the length of its key, and a block has 16 bytes");
    cipher.apply_keystream(out);
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.suite.name())
    }
}

impl Serialize for MasterKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.suite, self.expose()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MasterKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (suite, mut bytes) = <(Suite, Vec<u8>)>::deserialize(deserializer)?;
        let key = Self::from_bytes(suite, &bytes).map_err(D::Error::custom);
        bytes.zeroize();
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hexadecimal::bytes;

    fn check(suite: Suite, master: &str, label: Label, expected: &str) {
        let expected = bytes(expected);
        let mut derived = vec![0xff; expected.len()];
        MasterKey::from_bytes(suite, &bytes(master)).unwrap().derive(label, &mut derived);
        assert_eq!(derived, expected, "{suite:?} {label:?}");
    }

    /// RFC 3711 appendix B.3; the authentication key there is longer than the suites use, and a longer one begins with a shorter.
    #[test]
    fn derivation_with_aes_128() {
        const MASTER: &str = "E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6";
        let suite = Suite::AesCm128HmacSha1Tag80;
        check(suite, MASTER, Label::RtpEncryption, "C61E7A93744F39EE10734AFE3FF7A087");
        check(suite, MASTER, Label::RtpSalt, "30CBBC08863D8C85D49DB34A9AE1");
        check(suite, MASTER, Label::RtpAuthentication, "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4");
    }

    /// RFC 6188 section 7.2.
    #[test]
    fn derivation_with_aes_256() {
        const MASTER: &str = "f0f04914b513f2763a1b1fa130f10e29 98f6f6e43e4309d1e622a0e332b9f1b6 \
            3b04803de51ee7c96423ab5b78d2";
        let suite = Suite::AesCm256HmacSha1Tag80;
        check(suite, MASTER, Label::RtpEncryption, "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4");
        check(suite, MASTER, Label::RtpSalt, "fa31791685ca444a9e07c6c64e93");
        check(suite, MASTER, Label::RtpAuthentication, "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05");
    }

    #[test]
    fn every_label_gives_another_key() {
        for suite in Suite::ALL {
            let key = MasterKey::from_bytes(suite, &[7; MASTER_BYTES_MAX][..suite.master_bytes()]).unwrap();
            let labels = [
                Label::RtpEncryption,
                Label::RtpAuthentication,
                Label::RtpSalt,
                Label::RtcpEncryption,
                Label::RtcpAuthentication,
                Label::RtcpSalt,
            ];
            let mut derived: Vec<[u8; 12]> = labels
                .iter()
                .map(|&label| {
                    let mut out = [0; 12];
                    key.derive(label, &mut out);
                    out
                })
                .collect();
            derived.sort_unstable();
            derived.dedup();
            assert_eq!(derived.len(), labels.len());
        }
    }

    #[test]
    fn a_key_is_not_shown_and_keeps_its_bytes_when_serialised() {
        let key = MasterKey::from_bytes(Suite::AeadAes128Gcm, &[0xab; 28]).unwrap();
        assert_eq!(format!("{key:?}"), "MasterKey(AEAD_AES_128_GCM)");
        let text = serde_json::to_string(&key).unwrap();
        assert!(key.is(&serde_json::from_str(&text).unwrap()));
        assert!(!key.is(&MasterKey::from_bytes(Suite::AeadAes128Gcm, &[0xac; 28]).unwrap()));
        assert!(serde_json::from_str::<MasterKey>("[\"AeadAes256Gcm\",[1,2,3]]").is_err());
    }
}

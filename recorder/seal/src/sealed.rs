//! Sealing a data key to a public key with HPKE (RFC 9180).

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal_with_rng};
use rand::CryptoRng;
use zeroize::Zeroize;

use crate::{DATA_KEY_BYTES, DataKey, KeyId, PrivateKey, PublicKey, SealError};

/// Length of a stored sealed key: id 8, encapsulated key 32, ciphertext and tag 48.
pub const SEALED_KEY_BYTES: usize = 88;

/// Separates this use of a key pair from any other; the number is the version of the sealed key.
const INFO: &[u8] = b"callvault data key 1";

/// A data key that only the holder of one private key can open. Not a secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Whose private key opens it.
    pub recipient: KeyId,
    /// HPKE's `enc`: the ephemeral public key.
    pub encapsulated: [u8; 32],
    /// The encrypted data key and its tag.
    pub ciphertext: [u8; 48],
}

impl SealedKey {
    /// The 88 bytes as stored: id, encapsulated key, ciphertext.
    pub fn to_bytes(&self) -> [u8; SEALED_KEY_BYTES] {
        let mut bytes = [0; SEALED_KEY_BYTES];
        bytes[..8].copy_from_slice(&self.recipient.0);
        bytes[8..40].copy_from_slice(&self.encapsulated);
        bytes[40..].copy_from_slice(&self.ciphertext);
        bytes
    }

    /// Reads the 88 bytes.
    ///
    /// # Errors
    /// [`SealError::SealedKeyLength`]. Whether it is authentic shows when it is opened.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let bytes: &[u8; SEALED_KEY_BYTES] =
            bytes.try_into().map_err(|_| SealError::SealedKeyLength { found: bytes.len() })?;
        let mut sealed = Self { recipient: KeyId([0; 8]), encapsulated: [0; 32], ciphertext: [0; 48] };
        sealed.recipient.0.copy_from_slice(&bytes[..8]);
        sealed.encapsulated.copy_from_slice(&bytes[8..40]);
        sealed.ciphertext.copy_from_slice(&bytes[40..]);
        Ok(sealed)
    }

    /// Opens it with `key`, for the same `context` as it was sealed for.
    ///
    /// # Errors
    /// [`SealError::SealedKeyNotAuthentic`] when it is damaged, sealed to another key, or for another context.
    pub fn open(&self, key: &PrivateKey, context: &[u8]) -> Result<DataKey, SealError> {
        let mut plain = hpke_open(key, &self.encapsulated, INFO, context, &self.ciphertext)
            .ok_or(SealError::SealedKeyNotAuthentic { recipient: self.recipient })?;
        let mut bytes = [0; DATA_KEY_BYTES];
        let fits = plain.len() == DATA_KEY_BYTES;
        if fits {
            bytes.copy_from_slice(&plain);
        }
        plain.zeroize();
        let opened = DataKey::from_bytes(bytes);
        bytes.zeroize();
        if !fits {
            return Err(SealError::SealedKeyNotAuthentic { recipient: self.recipient });
        }
        Ok(opened)
    }
}

/// Seals `key` to `to`. `context` says what the key is for and must be given again to open it.
pub fn seal_key(rng: &mut dyn CryptoRng, to: &PublicKey, key: &DataKey, context: &[u8]) -> SealedKey {
    let (encapsulated, sealed) = hpke_seal(rng, to, INFO, context, key.expose());
    let mut ciphertext = [0; 48];
    ciphertext.copy_from_slice(&sealed);
    SealedKey { recipient: to.id(), encapsulated, ciphertext }
}

fn hpke_seal(rng: &mut dyn CryptoRng, to: &PublicKey, info: &[u8], aad: &[u8], plain: &[u8]) -> ([u8; 32], Vec<u8>) {
    let mut rng = rng;
    let (encapsulated, sealed) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        to.hpke(),
        info,
        plain,
        aad,
        &mut rng,
    )
    .expect("keys of small order were refused when the key was read");
    (encapsulated.to_bytes().into(), sealed)
}

fn hpke_open(key: &PrivateKey, encapsulated: &[u8; 32], info: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
    single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        key.hpke(),
        &encapsulated,
        info,
        sealed,
        aad,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Gives out fixed bytes, once.
    struct Fixed(Vec<u8>);

    impl rand::TryRng for Fixed {
        type Error = Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            let mut bytes = [0; 4];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        }
        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            let mut bytes = [0; 8];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        }
        fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
            to.copy_from_slice(&self.0.drain(..to.len()).collect::<Vec<u8>>());
            Ok(())
        }
    }
    impl rand::TryCryptoRng for Fixed {}

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    // RFC 9180 test vectors, mode 0, kem 0x0020, kdf 0x0001, aead 0x0002, sequence number 0.
    const IKM_E: &str = "2cd7c601cefb3d42a62b04b7a9041494c06c7843818e0ce28a8f704ae7ab20f9";
    const IKM_R: &str = "dac33b0e9db1b59dbbea58d59a14e7b5896e9bdf98fad6891e99d1686492b9ee";
    const SK_R: &str = "497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d";
    const PK_R: &str = "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c";
    const ENC: &str = "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256";
    const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
    const PLAIN: &str = "4265617574792069732074727574682c20747275746820626561757479";
    const AAD: &str = "436f756e742d30";
    const SEALED: &str = "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a";

    fn vector_key() -> PrivateKey {
        PrivateKey::generate(&mut Fixed(hex(IKM_R)))
    }

    #[test]
    fn key_pair_of_the_rfc_vector() {
        let key = vector_key();
        // The vector shows the key before clamping (RFC 7748 section 5), the library after it.
        let expected = crate::keys::HpkePrivate::from_bytes(&hex(SK_R)).unwrap();
        assert_eq!(key.hpke().to_bytes(), expected.to_bytes());
        assert_eq!(key.public().as_bytes().as_slice(), hex(PK_R));
    }

    #[test]
    fn seals_as_the_rfc_vector() {
        let to = PublicKey::from_bytes(hex(PK_R).try_into().unwrap()).unwrap();
        let (encapsulated, sealed) = hpke_seal(&mut Fixed(hex(IKM_E)), &to, &hex(INFO), &hex(AAD), &hex(PLAIN));
        assert_eq!(encapsulated.as_slice(), hex(ENC));
        assert_eq!(sealed, hex(SEALED));
    }

    #[test]
    fn opens_the_rfc_vector() {
        let encapsulated = hex(ENC).try_into().unwrap();
        let open = |info: &str, aad: &str| hpke_open(&vector_key(), &encapsulated, &hex(info), &hex(aad), &hex(SEALED));
        assert_eq!(open(INFO, AAD), Some(hex(PLAIN)));
        assert_eq!(open(AAD, AAD), None);
        assert_eq!(open(INFO, INFO), None);
    }
}

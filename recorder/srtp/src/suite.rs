//! The crypto suites (RFC 4568 section 6.2, RFC 6188 section 5, RFC 7714 section 14.2).

use serde::{Deserialize, Serialize};

/// A crypto suite: cipher, authentication and their lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Suite {
    /// `AES_CM_128_HMAC_SHA1_80`: what everybody has.
    AesCm128HmacSha1Tag80,
    /// `AES_CM_128_HMAC_SHA1_32`: the same with 32-bit tags on RTP. On RTCP they have 80 bits here as well (RFC 4568 section 6.2.2).
    AesCm128HmacSha1Tag32,
    /// `AES_256_CM_HMAC_SHA1_80` (RFC 6188).
    AesCm256HmacSha1Tag80,
    /// `AEAD_AES_128_GCM` (RFC 7714).
    AeadAes128Gcm,
    /// `AEAD_AES_256_GCM` (RFC 7714).
    AeadAes256Gcm,
}

/// Length of a GCM tag in bytes; the suites allow no shorter one (RFC 7714 section 13.2).
pub(crate) const GCM_TAG_BYTES: usize = 16;

/// The longest master key with its salt: AES-256 in counter mode.
pub(crate) const MASTER_BYTES_MAX: usize = 32 + 14;

impl Suite {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AesCm128HmacSha1Tag80,
        Self::AesCm128HmacSha1Tag32,
        Self::AesCm256HmacSha1Tag80,
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
    ];

    /// The name in a crypto attribute.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1Tag80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1Tag32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AesCm256HmacSha1Tag80 => "AES_256_CM_HMAC_SHA1_80",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// The suite of this name, in whatever case. `AES_CM_256_…`, as some clients write what the drafts of RFC 6188 said, is taken too.
    pub fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("AES_CM_256_HMAC_SHA1_80") {
            return Some(Self::AesCm256HmacSha1Tag80);
        }
        Self::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }

    /// Length of the master key in bytes; the session keys are as long.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1Tag80 | Self::AesCm128HmacSha1Tag32 | Self::AeadAes128Gcm => 16,
            Self::AesCm256HmacSha1Tag80 | Self::AeadAes256Gcm => 32,
        }
    }

    /// Length of the master salt in bytes.
    pub fn salt_bytes(self) -> usize {
        if self.is_aead() { 12 } else { 14 }
    }

    /// Length of key and salt together, as they stand in the attribute.
    pub fn master_bytes(self) -> usize {
        self.key_bytes() + self.salt_bytes()
    }

    /// Whether the suite encrypts and authenticates in one (AES-GCM).
    pub fn is_aead(self) -> bool {
        matches!(self, Self::AeadAes128Gcm | Self::AeadAes256Gcm)
    }

    /// Length of the tag of an RTP packet in bytes.
    pub fn rtp_tag_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1Tag32 => 4,
            Self::AesCm128HmacSha1Tag80 | Self::AesCm256HmacSha1Tag80 => 10,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => GCM_TAG_BYTES,
        }
    }

    /// Length of the tag of an RTCP packet in bytes.
    pub fn rtcp_tag_bytes(self) -> usize {
        if self.is_aead() { GCM_TAG_BYTES } else { 10 }
    }
}

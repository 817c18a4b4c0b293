//! Securing and opening one packet whose index is known (RFC 3711 sections 3.1, 3.4 and 4, RFC 7714 sections 8 and 9).
//!
//! Where the parts of a packet stand (MKI only where one was agreed):
//!
//! ```text
//! RTP,  counter mode: header | encrypted payload              | MKI | tag     tag over all before the MKI, then the ROC
//! RTP,  GCM:          header | encrypted payload | tag | MKI                  header is associated data
//! RTCP, counter mode: 8 bytes | encrypted rest | E, index | MKI | tag         tag over all before the MKI
//! RTCP, GCM:          8 bytes | encrypted rest | tag | E, index | MKI         8 bytes and E, index are associated data;
//!                                                                             with E = 0 all that is not the tag
//! ```

use aes::{Aes128, Aes256};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit as _, Nonce, Tag};
use callvault_seal::Secret;
use ctr::cipher::{BlockCipherEncrypt, BlockSizeUser, InnerIvInit, StreamCipher, consts::U16};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::SrtpError;
use crate::master::{Label, MasterKey};
use crate::packet::RTCP_HEADER_BYTES;
use crate::suite::{GCM_TAG_BYTES, Suite};

/// Length of the session authentication key (RFC 3711 section 8.2).
const AUTHENTICATION_KEY_BYTES: usize = 20;
/// Length of the longest session salt.
const SALT_BYTES_MAX: usize = 14;
/// Length of what precedes an SRTCP packet's MKI and tag: whether it is encrypted, and its index.
pub(crate) const RTCP_INDEX_BYTES: usize = 4;
/// The bit that says that an SRTCP packet is encrypted (RFC 3711 section 3.4).
pub(crate) const RTCP_ENCRYPTED: u32 = 1 << 31;

/// Where a packet stands: what its key stream depends on besides the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) ssrc: u32,
    /// RTP: rollover counter and sequence number, 48 bits. RTCP: 31 bits.
    pub(crate) index: u64,
}

/// The expanded session keys of one protocol, RTP or RTCP. Wiped when dropped.
pub(crate) struct Transform {
    cipher: Cipher,
    salt: Secret<[u8; SALT_BYTES_MAX]>,
    tag_bytes: usize,
}

/// Boxed, so that moving a transform leaves no copies of round keys behind.
enum Cipher {
    Cm128 { aes: Box<Aes128>, mac: Box<Hmac<Sha1>> },
    Cm256 { aes: Box<Aes256>, mac: Box<Hmac<Sha1>> },
    Gcm128(Box<Aes128Gcm>),
    Gcm256(Box<Aes256Gcm>),
}

/// The transforms of both protocols under one master key.
pub(crate) struct SessionKeys {
    pub(crate) rtp: Transform,
    pub(crate) rtcp: Transform,
}

impl SessionKeys {
    pub(crate) fn derive(master: &MasterKey) -> Self {
        let suite = master.suite();
        let derive = |encryption, authentication, salt, tag_bytes| {
            let mut key = Zeroizing::new([0; 32]);
            let key = &mut key[..suite.key_bytes()];
            master.derive(encryption, key);
            let mut mac = Zeroizing::new([0; AUTHENTICATION_KEY_BYTES]);
            master.derive(authentication, &mut *mac);
            let mut salt_bytes = Zeroizing::new([0; SALT_BYTES_MAX]);
            master.derive(salt, &mut salt_bytes[..suite.salt_bytes()]);
            Transform::new(suite, key, &mac, &salt_bytes, tag_bytes)
        };
        Self {
            rtp: derive(Label::RtpEncryption, Label::RtpAuthentication, Label::RtpSalt, suite.rtp_tag_bytes()),
            rtcp: derive(Label::RtcpEncryption, Label::RtcpAuthentication, Label::RtcpSalt, suite.rtcp_tag_bytes()),
        }
    }
}

impl Transform {
    fn new(
        suite: Suite,
        key: &[u8],
        mac: &[u8; AUTHENTICATION_KEY_BYTES],
        salt: &[u8; SALT_BYTES_MAX],
        tag_bytes: usize,
    ) -> Self {
        const LENGTH: &str = "the suite says the length of its key";
        let mac = || Box::new(Hmac::<Sha1>::new_from_slice(mac).expect("HMAC takes keys of any length"));
        let cipher = match suite {
            Suite::AesCm128HmacSha1Tag80 | Suite::AesCm128HmacSha1Tag32 => {
                Cipher::Cm128 { aes: Box::new(Aes128::new_from_slice(key).expect(LENGTH)), mac: mac() }
            }
            Suite::AesCm256HmacSha1Tag80 => {
                Cipher::Cm256 { aes: Box::new(Aes256::new_from_slice(key).expect(LENGTH)), mac: mac() }
            }
            Suite::AeadAes128Gcm => Cipher::Gcm128(Box::new(Aes128Gcm::new_from_slice(key).expect(LENGTH))),
            Suite::AeadAes256Gcm => Cipher::Gcm256(Box::new(Aes256Gcm::new_from_slice(key).expect(LENGTH))),
        };
        Self { cipher, salt: Secret::new(*salt), tag_bytes }
    }

    /// Where an MKI of this length would be in a packet of this length, RTP or RTCP.
    pub(crate) fn mki_at(&self, packet_bytes: usize, mki_bytes: usize) -> Option<usize> {
        let behind = if self.is_gcm() { 0 } else { self.tag_bytes };
        packet_bytes.checked_sub(behind)?.checked_sub(mki_bytes)
    }

    fn is_gcm(&self) -> bool {
        matches!(self.cipher, Cipher::Gcm128(_) | Cipher::Gcm256(_))
    }

    /// Opens an RTP packet in place; returns the length of the plain packet. On an error the packet is as it was.
    pub(crate) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_bytes: usize,
        at: Position,
        mki_bytes: usize,
        encrypted: bool,
    ) -> Result<usize, SrtpError> {
        let truncated = SrtpError::Truncated { bytes: packet.len() };
        let overhead = self.tag_bytes + mki_bytes;
        let plain = packet.len().checked_sub(overhead).filter(|&plain| plain >= header_bytes).ok_or(truncated)?;
        if self.is_gcm() {
            let (header, rest) = packet.split_at_mut(header_bytes);
            let (text, tag) = rest.split_at_mut(plain - header_bytes);
            self.gcm_open(at, header, text, &tag[..GCM_TAG_BYTES])?;
        } else {
            let (body, behind) = packet.split_at_mut(plain);
            let rollovers = ((at.index >> 16) as u32).to_be_bytes();
            self.verify(&[body, &rollovers], &behind[mki_bytes..])?;
            if encrypted {
                self.apply_key_stream(at, &mut body[header_bytes..]);
            }
        }
        Ok(plain)
    }

    /// Secures an RTP packet in place.
    pub(crate) fn seal_rtp(
        &self,
        packet: &mut Vec<u8>,
        header_bytes: usize,
        at: Position,
        mki: &[u8],
        encrypted: bool,
    ) {
        if self.is_gcm() {
            let (header, text) = packet.split_at_mut(header_bytes);
            let tag = self.gcm_seal(at, header, text);
            packet.extend_from_slice(&tag);
            packet.extend_from_slice(mki);
        } else {
            if encrypted {
                self.apply_key_stream(at, &mut packet[header_bytes..]);
            }
            let rollovers = ((at.index >> 16) as u32).to_be_bytes();
            let tag = self.authenticate(&[packet, &rollovers]);
            packet.extend_from_slice(mki);
            packet.extend_from_slice(&tag[..self.tag_bytes]);
        }
    }

    /// What an RTCP packet says of its index, with the bit that tells whether it is encrypted.
    pub(crate) fn rtcp_word(&self, packet: &[u8], mki_bytes: usize) -> Result<u32, SrtpError> {
        let truncated = SrtpError::Truncated { bytes: packet.len() };
        let mki_at = self.mki_at(packet.len(), mki_bytes).ok_or(truncated.clone())?;
        let word_at = mki_at.checked_sub(RTCP_INDEX_BYTES).ok_or(truncated.clone())?;
        let before = RTCP_HEADER_BYTES + if self.is_gcm() { GCM_TAG_BYTES } else { 0 };
        match packet.get(word_at..mki_at) {
            Some(&[a, b, c, d]) if word_at >= before => Ok(u32::from_be_bytes([a, b, c, d])),
            _ => Err(truncated),
        }
    }

    /// Opens an RTCP packet in place, whose index and encryption [`Transform::rtcp_word`] has told; returns the length of the
    /// plain packet. On an error the packet is as it was.
    pub(crate) fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, mki_bytes: usize) -> Result<usize, SrtpError> {
        let word = self.rtcp_word(packet, mki_bytes)?;
        let (at, encrypted) = (Position { ssrc, index: u64::from(word & !RTCP_ENCRYPTED) }, word & RTCP_ENCRYPTED != 0);
        let truncated = SrtpError::Truncated { bytes: packet.len() };
        let mki_at = self.mki_at(packet.len(), mki_bytes).ok_or(truncated)?;
        let word_at = mki_at - RTCP_INDEX_BYTES;
        if !self.is_gcm() {
            let (body, behind) = packet.split_at_mut(mki_at);
            self.verify(&[body], &behind[mki_bytes..])?;
            if encrypted {
                self.apply_key_stream(at, &mut body[RTCP_HEADER_BYTES..word_at]);
            }
            return Ok(word_at);
        }
        let plain = word_at - GCM_TAG_BYTES;
        if encrypted {
            let (header, rest) = packet.split_at_mut(RTCP_HEADER_BYTES);
            let (text, tag) = rest.split_at_mut(plain - RTCP_HEADER_BYTES);
            self.gcm_open(at, &encrypted_rtcp_aad(header, word), text, &tag[..GCM_TAG_BYTES])?;
        } else {
            // What is authenticated stands on both sides of the tag; brought together, and back if it is not genuine.
            let behind = &mut packet[plain..mki_at];
            behind.rotate_left(GCM_TAG_BYTES);
            let (aad, tag) = packet[..mki_at].split_at(plain + RTCP_INDEX_BYTES);
            if let Err(error) = self.gcm_open(at, aad, &mut [], tag) {
                packet[plain..mki_at].rotate_right(GCM_TAG_BYTES);
                return Err(error);
            }
        }
        Ok(plain)
    }

    /// Secures an RTCP packet in place.
    pub(crate) fn seal_rtcp(&self, packet: &mut Vec<u8>, at: Position, mki: &[u8], encrypted: bool) {
        let word = at.index as u32 & !RTCP_ENCRYPTED | if encrypted { RTCP_ENCRYPTED } else { 0 };
        let word_bytes = word.to_be_bytes();
        if !self.is_gcm() {
            if encrypted {
                self.apply_key_stream(at, &mut packet[RTCP_HEADER_BYTES..]);
            }
            packet.extend_from_slice(&word_bytes);
            let tag = self.authenticate(&[packet]);
            packet.extend_from_slice(mki);
            packet.extend_from_slice(&tag[..self.tag_bytes]);
            return;
        }
        let tag = if encrypted {
            let (header, text) = packet.split_at_mut(RTCP_HEADER_BYTES);
            self.gcm_seal(at, &encrypted_rtcp_aad(header, word), text)
        } else {
            packet.extend_from_slice(&word_bytes);
            let tag = self.gcm_seal(at, packet, &mut []);
            packet.truncate(packet.len() - RTCP_INDEX_BYTES);
            tag
        };
        packet.extend_from_slice(&tag);
        packet.extend_from_slice(&word_bytes);
        packet.extend_from_slice(mki);
    }

    /// Checks a tag, which may be shortened, in the same time whatever is wrong with it.
    fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> Result<(), SrtpError> {
        let expected = self.authenticate(parts);
        match bool::from(expected[..self.tag_bytes].ct_eq(tag)) {
            true => Ok(()),
            false => Err(SrtpError::NotAuthentic),
        }
    }

    fn authenticate(&self, parts: &[&[u8]]) -> [u8; 20] {
        let (Cipher::Cm128 { mac, .. } | Cipher::Cm256 { mac, .. }) = &self.cipher else {
            // GCM authenticates by itself and never comes here; a tag of zeros would be refused anyhow by its length.
            return [0; 20];
        };
        let mut mac = (**mac).clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    /// Encrypts or decrypts in counter mode.
    fn apply_key_stream(&self, at: Position, text: &mut [u8]) {
        let mut block = [0_u8; 16];
        block[..SALT_BYTES_MAX].copy_from_slice(self.salt.expose());
        add_position(&mut block[4..14], at);
        match &self.cipher {
            Cipher::Cm128 { aes, .. } => apply(&**aes, &block, text),
            Cipher::Cm256 { aes, .. } => apply(&**aes, &block, text),
            Cipher::Gcm128(_) | Cipher::Gcm256(_) => {}
        }
    }

    fn gcm_nonce(&self, at: Position) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&self.salt.expose()[..12]);
        add_position(&mut nonce[2..], at);
        nonce
    }

    fn gcm_open(&self, at: Position, aad: &[u8], text: &mut [u8], tag: &[u8]) -> Result<(), SrtpError> {
        let nonce = Nonce::from(self.gcm_nonce(at));
        let tag = Tag::try_from(tag).map_err(|_| SrtpError::NotAuthentic)?;
        // The library looks at the tag before it decrypts.
        match &self.cipher {
            Cipher::Gcm128(gcm) => gcm.decrypt_inout_detached(&nonce, aad, text.into(), &tag),
            Cipher::Gcm256(gcm) => gcm.decrypt_inout_detached(&nonce, aad, text.into(), &tag),
            Cipher::Cm128 { .. } | Cipher::Cm256 { .. } => Err(aes_gcm::Error),
        }
        .map_err(|_| SrtpError::NotAuthentic)
    }

    fn gcm_seal(&self, at: Position, aad: &[u8], text: &mut [u8]) -> [u8; GCM_TAG_BYTES] {
        let nonce = Nonce::from(self.gcm_nonce(at));
        match &self.cipher {
            Cipher::Gcm128(gcm) => gcm.encrypt_inout_detached(&nonce, aad, text.into()),
            Cipher::Gcm256(gcm) => gcm.encrypt_inout_detached(&nonce, aad, text.into()),
            Cipher::Cm128 { .. } | Cipher::Cm256 { .. } => Err(aes_gcm::Error),
        }
        .expect("only AES-GCM comes here, and a packet is far below the 64 GiB that it can seal")
        .into()
    }
}

/// XORs SSRC and 48-bit index over ten bytes of a salt: the same for both modes and protocols.
fn add_position(salt: &mut [u8], at: Position) {
    let position = at.ssrc.to_be_bytes().into_iter().chain(at.index.to_be_bytes().into_iter().skip(2));
    salt.iter_mut().zip(position).for_each(|(byte, with)| *byte ^= with);
}

fn encrypted_rtcp_aad(header: &[u8], word: u32) -> [u8; RTCP_HEADER_BYTES + RTCP_INDEX_BYTES] {
    let mut aad = [0; RTCP_HEADER_BYTES + RTCP_INDEX_BYTES];
    aad[..RTCP_HEADER_BYTES].copy_from_slice(header);
    aad[RTCP_HEADER_BYTES..].copy_from_slice(&word.to_be_bytes());
    aad
}

/// The library counts in all 128 bits and RFC 3711 in the lower 16. It is the same for the million bytes that those count.
fn apply<C>(cipher: &C, block: &[u8; 16], text: &mut [u8])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let core = ctr::CtrCore::<&C, ctr::flavors::Ctr128BE>::inner_iv_init(cipher, block.into());
    ctr::Ctr128BE::<&C>::from_core(core).apply_keystream(text);
}

#[cfg(test)]
mod tests;

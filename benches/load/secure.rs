//! SRTP with AES_CM_128_HMAC_SHA1_80, from RFC 3711 alone: the recorder must not be tested against itself.

use aes::Aes128;
use ctr::CtrCore;
use ctr::cipher::{InnerIvInit, KeyInit as _, StreamCipher, StreamCipherCoreWrapper};
use ctr::flavors::Ctr128BE;
use hmac::{Hmac, Mac};
use sha1::Sha1;

/// Length of a master or session salt.
const SALT_BYTES: usize = 14;
/// Length of a header without extension (RFC 3550 section 5.1).
const HEADER_BYTES: usize = 12;
/// Length of the tag.
const TAG_BYTES: usize = 10;

/// What secures one source's packets.
pub(crate) struct Secure {
    aes: Aes128,
    mac: Hmac<Sha1>,
    salt: [u8; SALT_BYTES],
    /// How often the sequence number has begun again.
    rollovers: u32,
    last: Option<u16>,
}

impl Secure {
    /// From master key and salt (section 4.3).
    pub(crate) fn new(master: &[u8; 30]) -> Self {
        let (key, master_salt) = master.split_at(16);
        let derive = |label: u8, bytes: &mut [u8]| {
            let mut iv = [0; 16];
            iv[..SALT_BYTES].copy_from_slice(master_salt);
            iv[7] ^= label;
            let aes = Aes128::new_from_slice(key).expect("16 bytes");
            key_stream(&aes, &iv, bytes);
        };
        let (mut encryption, mut authentication, mut salt) = ([0; 16], [0; 20], [0; SALT_BYTES]);
        derive(0, &mut encryption);
        derive(1, &mut authentication);
        derive(2, &mut salt);
        Self {
            aes: Aes128::new_from_slice(&encryption).expect("16 bytes"),
            mac: Hmac::new_from_slice(&authentication).expect("of any length"),
            salt,
            rollovers: 0,
            last: None,
        }
    }

    /// Secures a packet in the order of the sequence numbers (section 4.1.1, 4.2.1).
    pub(crate) fn protect(&mut self, packet: &mut Vec<u8>) {
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        if self.last.is_some_and(|last| last > sequence) {
            self.rollovers += 1;
        }
        self.last = Some(sequence);
        let mut iv = [0; 16];
        iv[..SALT_BYTES].copy_from_slice(&self.salt);
        let index = [&packet[8..12], &self.rollovers.to_be_bytes(), &sequence.to_be_bytes()].concat();
        iv[4..SALT_BYTES].iter_mut().zip(index).for_each(|(byte, with)| *byte ^= with);
        key_stream(&self.aes, &iv, &mut packet[HEADER_BYTES..]);
        let mut mac = self.mac.clone();
        mac.update(packet);
        mac.update(&self.rollovers.to_be_bytes());
        packet.extend_from_slice(&mac.finalize().into_bytes()[..TAG_BYTES]);
    }
}

/// Counter mode (section 4.1.1): what it begins with, added to the bytes.
fn key_stream(aes: &Aes128, iv: &[u8; 16], bytes: &mut [u8]) {
    let core = CtrCore::<_, Ctr128BE>::inner_iv_init(aes.clone(), &(*iv).into());
    StreamCipherCoreWrapper::from_core(core).apply_keystream(bytes);
}

//! A client that sends secured packets. Each test file uses its part of it.

#![allow(dead_code)]

use callvault_srtp::sdes::{self, CryptoAttribute, KeyParam};
use callvault_srtp::{MasterKey, Protector, Suite};

/// An attribute whose key is made of this byte.
pub(crate) fn attribute(suite: Suite, byte: u8) -> CryptoAttribute {
    let key = MasterKey::from_bytes(suite, &vec![byte; suite.master_bytes()]).unwrap();
    let mut attribute = CryptoAttribute::generate(1, suite, &mut rand::rng());
    attribute.keys = vec![KeyParam::new(key)];
    attribute
}

/// The same attribute once more: it does not copy, since it holds keys.
pub(crate) fn again(attribute: &CryptoAttribute) -> CryptoAttribute {
    sdes::parse(attribute.to_text().unwrap().expose()).unwrap()
}

/// A plain packet whose payload tells it apart.
pub(crate) fn plain(ssrc: u32, number: u64) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&(number as u16).to_be_bytes());
    packet.extend_from_slice(&((number * 160) as u32).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&number.to_be_bytes());
    packet.resize(12 + 160, number as u8);
    packet
}

/// A sender of packets of one source.
pub(crate) struct Client {
    pub(crate) protector: Protector,
    pub(crate) ssrc: u32,
}

impl Client {
    pub(crate) fn new(attribute: &CryptoAttribute, ssrc: u32) -> Self {
        Self { protector: Protector::new(attribute).unwrap(), ssrc }
    }

    /// Secures packet `number`; they must advance by less than half a rollover.
    pub(crate) fn packet(&mut self, number: u64) -> Vec<u8> {
        let mut packet = plain(self.ssrc, number);
        self.protector.protect_rtp(&mut packet).unwrap();
        packet
    }

    /// Advances to just before packet `number` as if all before it had been sent.
    pub(crate) fn skip_to(&mut self, from: u64, number: u64) {
        (from..number).step_by(0x4000).for_each(|number| drop(self.packet(number)));
    }
}

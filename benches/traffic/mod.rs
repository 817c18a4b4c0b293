//! What the benchmarks feed in: RTP packets of telephone audio, and something like a voice to fill them with.

// Each benchmark uses a part of this.
#![allow(dead_code)]

use std::f64::consts::TAU;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};

/// Samples in a packet, and bytes of its payload: 20 ms of G.711.
pub(crate) const PAYLOAD_BYTES: usize = 160;
/// Packets of one track in a second.
pub(crate) const PACKETS_PER_SECOND: usize = 50;
/// Length of an RTP header without extension (RFC 3550 section 5.1).
pub(crate) const RTP_HEADER_BYTES: usize = 12;
/// Length of a datagram.
pub(crate) const DATAGRAM_BYTES: usize = RTP_HEADER_BYTES + PAYLOAD_BYTES;
/// Tracks of a session.
pub(crate) const TRACKS: usize = 2;
/// Packets of one track in a batch of audio: the default `journal.batch_interval` of 200 ms.
pub(crate) const PACKETS_PER_BATCH: usize = 10;

/// A PCMU packet, number `n` of the source `ssrc`. Its payload differs from packet to packet.
pub(crate) fn datagram(n: u32, ssrc: u32) -> [u8; DATAGRAM_BYTES] {
    let mut datagram = [n as u8; DATAGRAM_BYTES];
    datagram[0] = 0x80;
    datagram[1] = 0;
    datagram[2..4].copy_from_slice(&(n as u16).to_be_bytes());
    datagram[4..8].copy_from_slice(&n.wrapping_mul(PAYLOAD_BYTES as u32).to_be_bytes());
    datagram[8..12].copy_from_slice(&ssrc.to_be_bytes());
    datagram
}

/// AES-256-GCM with nothing around it: the floor of everything that seals.
pub(crate) struct RawCipher(Aes256Gcm);

impl RawCipher {
    pub(crate) fn new() -> Self {
        Self(Aes256Gcm::new((&[7; 32]).into()))
    }

    /// Encrypts in place. The nonce repeats, which is all right for bytes that nobody keeps.
    pub(crate) fn seal(&self, bytes: &mut [u8]) {
        let tag = self.0.encrypt_inout_detached((&[0; 12]).into(), &[], bytes.into()).unwrap();
        std::hint::black_box(tag);
    }
}

/// Something like a voice at 8 kHz: a wandering pitch with its harmonics, in syllables, over a little noise. `who` makes another person.
pub(crate) fn voice(who: u32, seconds: usize) -> Vec<i16> {
    let who = f64::from(who);
    let (mut phase, mut noise) = (0.0, 1_u32);
    let sample = |n: usize| {
        let t = n as f64 / 8_000.0;
        phase += (120.0 + 70.0 * who + 20.0 * (TAU * 0.6 * t).sin()) / 8_000.0;
        let loudness = (TAU * (3.1 + who / 3.0) * t).sin().max(0.0);
        let tone: f64 = (1..12).map(|k| (TAU * phase * f64::from(k)).sin() / f64::from(k)).sum();
        noise = noise.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        (5_000.0 * loudness * tone) as i16 + (noise >> 26) as i16 - 32
    };
    (0..seconds * 8_000).map(sample).collect()
}

/// G.711 µ-law: the code of a sample.
pub(crate) fn ulaw(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let biased = u32::from(sample.unsigned_abs().min(32_635)) + 132;
    let segment = biased.ilog2() - 7;
    let step = biased >> (segment + 3) & 0x0f;
    !(sign | (segment << 4 | step) as u8)
}

/// G.711 µ-law: the sample of each code.
pub(crate) fn ulaw_table() -> [i16; 256] {
    std::array::from_fn(|code| {
        let code = !(code as u8);
        let magnitude = ((i16::from(code & 0x0f) << 3 | 0x84) << (code >> 4 & 7)) - 0x84;
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    })
}

//! RTP packets to send to a track, and all that it gives out.
#![allow(dead_code)]

use std::net::SocketAddr;

use callvault_media::{Counts, Encoding, Kept, PayloadType, Received, Track, TrackConfig};

pub(crate) const MS: u64 = 1_000_000;
/// Payload types that every rig has described.
pub(crate) const DESCRIBED: [PayloadType; 4] = [
    PayloadType { pt: 0, encoding: Encoding::Pcmu, clock_rate: 8_000, channels: 1 },
    PayloadType { pt: 97, encoding: Encoding::Other, clock_rate: 16_000, channels: 1 },
    PayloadType { pt: 101, encoding: Encoding::TelephoneEvent, clock_rate: 8_000, channels: 1 },
    PayloadType { pt: 111, encoding: Encoding::Opus, clock_rate: 48_000, channels: 2 },
];

/// One RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) ms: u64,
    pub(crate) port: u16,
    pub(crate) ssrc: u32,
    pub(crate) pt: u8,
    pub(crate) seq: u16,
    pub(crate) timestamp: u32,
    pub(crate) bytes: usize,
}

impl Sent {
    /// Packet `number` of a source that sends 20 ms of PCMU from time 0.
    pub(crate) fn pcmu(ssrc: u32, number: u64) -> Self {
        Self {
            ms: number * 20,
            port: 4_000,
            ssrc,
            pt: 0,
            seq: number as u16,
            timestamp: (number * 160) as u32,
            bytes: 160,
        }
    }

    pub(crate) fn from(self) -> SocketAddr {
        ([192, 0, 2, 1], self.port).into()
    }

    /// The datagram; the payload names the packet.
    pub(crate) fn datagram(self) -> Vec<u8> {
        let mut out = vec![0x80, self.pt];
        out.extend(self.seq.to_be_bytes());
        out.extend(self.timestamp.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        out.extend(self.payload());
        out
    }

    pub(crate) fn payload(self) -> Vec<u8> {
        let mut out = self.timestamp.to_be_bytes().repeat(self.bytes.div_ceil(4));
        out.truncate(self.bytes);
        out
    }
}

/// A track, and what it gave out in the order in which it did.
pub(crate) struct Rig {
    pub(crate) track: Track,
    pub(crate) kept: Vec<(u64, Kept, Vec<u8>)>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut track = Track::new(TrackConfig::default());
        track.describe(&DESCRIBED);
        Self { track, kept: Vec::new() }
    }

    pub(crate) fn send(&mut self, sent: Sent) -> Received {
        self.datagram(sent.ms, sent.from(), &sent.datagram())
    }

    pub(crate) fn datagram(&mut self, ms: u64, from: SocketAddr, datagram: &[u8]) -> Received {
        let received = self.track.receive(ms * MS, from, datagram);
        if let Received::Kept(kept) = &received {
            self.kept.push((ms * MS, kept.clone(), datagram[kept.payload.clone()].to_vec()));
        }
        self.drain();
        received
    }

    pub(crate) fn finish(&mut self) -> Counts {
        self.track.finish();
        self.drain();
        self.track.counts()
    }

    fn drain(&mut self) {
        while let Some(held) = self.track.take_held() {
            assert_eq!(held.kept.payload, 0..held.payload.len());
            self.kept.push((held.arrival_ns, held.kept, held.payload));
        }
    }

    /// Sends all and finishes.
    pub(crate) fn run(all: impl IntoIterator<Item = Sent>) -> (Vec<(u64, Kept, Vec<u8>)>, Counts) {
        let mut rig = Self::new();
        for sent in all {
            let _ = rig.send(sent);
        }
        let counts = rig.finish();
        (rig.kept, counts)
    }
}

/// Every datagram is in one count.
pub(crate) fn assert_all_counted(counts: &Counts) {
    let Counts { packets, duplicates, foreign, strays, invalid, rtcp, other, held, .. } = *counts;
    assert_eq!(packets + duplicates + foreign + strays + invalid + rtcp + other + held, counts.datagrams, "{counts:?}");
}

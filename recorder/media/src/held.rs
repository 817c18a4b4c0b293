//! Packets held back until it is clear whether their source is to be followed.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use crate::{Kept, RtpHeader};

/// Packets of a source not yet followed that a track holds at most: 640 ms of the shortest usual packets (10 ms), a little
/// more than [`SILENCE_NS`](crate::SILENCE_NS). Then the oldest becomes foreign.
pub const HELD_PACKETS_MAX: usize = 64;
/// Their payload bytes at most: 500 ms of the highest usual bit rate (256 kbit/s). What a stranger who sends to every port costs, per track.
pub const HELD_BYTES_MAX: usize = 16 * 1_024;

/// A packet that was held back and is now kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// When it arrived.
    pub arrival_ns: u64,
    /// Its place; `kept.payload` is the whole of `payload`.
    pub kept: Kept,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Held {
    /// Leaves the payload out: it is what somebody said.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Held").field("arrival_ns", &self.arrival_ns).field("kept", &self.kept).finish_non_exhaustive()
    }
}

/// An RTP packet on its way through a track.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) arrival_ns: u64,
    pub(crate) from: SocketAddr,
    pub(crate) header: RtpHeader,
    pub(crate) payload: &'a [u8],
    /// Where the payload begins in what the caller holds.
    pub(crate) offset: usize,
}

impl Packet<'_> {
    pub(crate) fn hold(&self) -> HeldPacket {
        HeldPacket { arrival_ns: self.arrival_ns, from: self.from, header: self.header, payload: self.payload.to_vec() }
    }
}

/// A packet with a copy of its payload.
pub(crate) struct HeldPacket {
    pub(crate) arrival_ns: u64,
    from: SocketAddr,
    pub(crate) header: RtpHeader,
    pub(crate) payload: Vec<u8>,
}

impl HeldPacket {
    pub(crate) fn packet(&self) -> Packet<'_> {
        Packet { arrival_ns: self.arrival_ns, from: self.from, header: self.header, payload: &self.payload, offset: 0 }
    }
}

/// A source that sends while another is followed, and the last packets from it.
pub(crate) struct Rival {
    ssrc: u32,
    from: SocketAddr,
    /// Arrival of its last packet.
    pub(crate) last_ns: u64,
    pub(crate) packets: VecDeque<HeldPacket>,
    bytes: usize,
}

impl Rival {
    pub(crate) fn new(packet: &Packet<'_>) -> Self {
        Self {
            ssrc: packet.header.ssrc,
            from: packet.from,
            last_ns: packet.arrival_ns,
            packets: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(crate) fn sent(&self, packet: &Packet<'_>) -> bool {
        (self.ssrc, self.from) == (packet.header.ssrc, packet.from)
    }

    /// Holds a packet; says how many had to go for it.
    pub(crate) fn push(&mut self, packet: &Packet<'_>) -> u64 {
        self.last_ns = self.last_ns.max(packet.arrival_ns);
        self.bytes += packet.payload.len();
        self.packets.push_back(packet.hold());
        let mut gone = 0;
        while self.packets.len() > HELD_PACKETS_MAX || self.bytes > HELD_BYTES_MAX {
            self.pop();
            gone += 1;
        }
        gone
    }

    /// Lets go of the packets that arrived before `before_ns`; says how many.
    pub(crate) fn expire(&mut self, before_ns: u64) -> u64 {
        let mut gone = 0;
        while self.packets.front().is_some_and(|oldest| oldest.arrival_ns < before_ns) {
            self.pop();
            gone += 1;
        }
        gone
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.packets.pop_front() {
            self.bytes -= oldest.payload.len();
        }
    }
}

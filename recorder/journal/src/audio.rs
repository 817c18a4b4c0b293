//! The plaintext of an Audio frame: packets of one lane.

use crate::format::PLAIN_BYTES_MAX;

/// Journal time of the batch, before the first packet.
const BATCH_HEADER_BYTES: usize = 8;
/// Bytes before each payload.
const PACKET_HEADER_BYTES: usize = 17;
/// Longest payload of one packet. RTP over UDP is far below it in practice (one Ethernet frame); the rest of 64 KiB is
/// room that a batch keeps for other packets.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// The fill at which a batch is worth sealing: AES-GCM is at full speed from here on, and a damaged frame costs little.
pub const AUDIO_BATCH_BYTES: usize = 32 * 1024;

/// One audio packet as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Track number in the recording.
    pub track: u8,
    /// Number of the source (SSRC epoch) in the track.
    pub source: u8,
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// RTP marker bit.
    pub marker: bool,
    /// RTP sequence number, extended by its wraps.
    pub seq: u32,
    /// RTP timestamp as it came.
    pub timestamp: u32,
    /// When it arrived, journal time.
    pub arrival_ns: u64,
    /// The codec's bytes.
    pub payload: &'a [u8],
}

/// What [`AudioBatch::push`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a packet that was not taken must be pushed again"]
pub enum Pushed {
    /// The packet is in the batch.
    Taken,
    /// The packet is *not* in the batch, which is full: write the batch, then push the packet again.
    Full,
    /// The packet is not in the batch and never will be: its payload is longer than [`PAYLOAD_BYTES_MAX`].
    TooLong,
}

/// Packets of one lane on their way into the journal: a buffer that is filled, written and filled again, without an
/// allocation per packet.
#[derive(Debug, Default)]
pub struct AudioBatch {
    bytes: Vec<u8>,
    base_ns: u64,
    packets: u32,
}

impl AudioBatch {
    /// An empty batch; its memory grows with use, up to [`AUDIO_BATCH_BYTES`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a packet into the batch.
    pub fn push(&mut self, packet: &Packet<'_>) -> Pushed {
        let payload_len = match u16::try_from(packet.payload.len()) {
            Ok(length) if packet.payload.len() <= PAYLOAD_BYTES_MAX => length,
            _ => return Pushed::TooLong,
        };
        if self.bytes.is_empty() {
            self.base_ns = packet.arrival_ns;
            self.bytes.extend_from_slice(&self.base_ns.to_le_bytes());
        }
        let length = PACKET_HEADER_BYTES + packet.payload.len();
        let delta = i128::from(packet.arrival_ns) - i128::from(self.base_ns);
        let (Ok(delta), true) = (i32::try_from(delta), self.bytes.len() + length <= AUDIO_BATCH_BYTES) else {
            return Pushed::Full;
        };
        let marker = if packet.marker { 0x80 } else { 0 };
        let mut header = [0; PACKET_HEADER_BYTES];
        header[0] = packet.track;
        header[1] = packet.source;
        header[2] = packet.payload_type & 0x7f | marker;
        header[3..5].copy_from_slice(&payload_len.to_le_bytes());
        header[5..9].copy_from_slice(&packet.seq.to_le_bytes());
        header[9..13].copy_from_slice(&packet.timestamp.to_le_bytes());
        header[13..].copy_from_slice(&delta.to_le_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(packet.payload);
        self.packets += 1;
        Pushed::Taken
    }

    /// Packets in the batch.
    pub fn packets(&self) -> u32 {
        self.packets
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Whether there is memory for packets already.
    pub fn has_memory(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Arrival of the packet that was pushed first, journal time: what says when the batch should be written.
    pub fn first_arrival_ns(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.base_ns)
    }

    /// Forgets the packets and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.packets = 0;
    }

    pub(crate) fn plain(&self) -> &[u8] {
        &self.bytes
    }
}

/// The packets of one Audio frame, in the order in which they were pushed. Each borrows its payload.
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    base_ns: u64,
    rest: &'a [u8],
}

impl<'a> Packets<'a> {
    /// The packets in an authentic plaintext, or none when it is not as specified: then nothing of it is given out.
    pub(crate) fn parse(plain: &'a [u8]) -> Option<Self> {
        let (base, rest) = plain.split_first_chunk::<BATCH_HEADER_BYTES>()?;
        let packets = Self { base_ns: u64::from_le_bytes(*base), rest };
        let mut walk = packets.clone();
        while walk.next().is_some() {}
        walk.rest.is_empty().then_some(packets)
    }

    fn split_packet(&self) -> Option<(Packet<'a>, &'a [u8])> {
        let (header, rest) = self.rest.split_first_chunk::<PACKET_HEADER_BYTES>()?;
        let [track, source, typed, l0, l1, s0, s1, s2, s3, t0, t1, t2, t3, d0, d1, d2, d3] = *header;
        let (payload, rest) = rest.split_at_checked(u16::from_le_bytes([l0, l1]).into())?;
        let delta = i32::from_le_bytes([d0, d1, d2, d3]);
        let packet = Packet {
            track,
            source,
            payload_type: typed & 0x7f,
            marker: typed & 0x80 != 0,
            seq: u32::from_le_bytes([s0, s1, s2, s3]),
            timestamp: u32::from_le_bytes([t0, t1, t2, t3]),
            arrival_ns: self.base_ns.checked_add_signed(delta.into())?,
            payload,
        };
        Some((packet, rest))
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let (packet, rest) = self.split_packet()?;
        self.rest = rest;
        Some(packet)
    }
}

const _: () = assert!(AUDIO_BATCH_BYTES <= PLAIN_BYTES_MAX);
const _: () = assert!(BATCH_HEADER_BYTES + PACKET_HEADER_BYTES + PAYLOAD_BYTES_MAX <= AUDIO_BATCH_BYTES);

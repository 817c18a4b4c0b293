//! What was received, in figures.

use serde::{Deserialize, Serialize};

use crate::checkpoint::COUNT_MAX;

/// What became of the datagrams of a track. Every datagram is in exactly one of `packets`, `duplicates`, `foreign`,
/// `strays`, `invalid`, `rtcp`, `other` and `held`, so these add up to `datagrams`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Datagrams that came, of whatever kind.
    pub datagrams: u64,
    /// RTP packets kept.
    pub packets: u64,
    /// Payload bytes of the packets kept.
    pub bytes: u64,
    /// Packets that never came: for each source the span of its sequence numbers less the packets kept, summed.
    pub lost: u64,
    /// Packets whose extended sequence number had been kept before, in the same source.
    pub duplicates: u64,
    /// Packets kept (they are in `packets` too) that came after one of the same source with a higher sequence number.
    pub late: u64,
    /// Packets of a source that was not followed, because another was talking.
    pub foreign: u64,
    /// Packets of the followed source whose sequence number fitted nowhere, and which no second one confirmed.
    pub strays: u64,
    /// Datagrams that said they were RTP or RTCP but could not be.
    pub invalid: u64,
    /// RTCP compounds.
    pub rtcp: u64,
    /// STUN, DTLS and empty datagrams.
    pub other: u64,
    /// Packets held at the moment, until it is clear whether their source will be followed.
    pub held: u64,
    /// Packets kept (they are in `packets` too) whose payload type was not described.
    pub undescribed: u64,
    /// Audio of the lost packets in milliseconds, from the durations and timestamps of their neighbours.
    pub gaps_ms: u64,
    /// Sources followed one after the other: a new SSRC, or a restart of the sequence with the old one.
    pub sources: u32,
    /// How often the followed source went on from another address.
    pub address_changes: u32,
    /// Interarrival jitter of the followed source as of now, in microseconds (RFC 3550 section 6.4.1; of packets in order only).
    pub jitter_us: u32,
    /// The largest that `jitter_us` has been.
    pub jitter_us_max: u32,
}

impl Counts {
    /// Whether these can have been counted, for some that were stored.
    pub(crate) fn is_plausible(&self) -> bool {
        let Self { datagrams, packets, bytes, lost, duplicates, late, foreign, strays, invalid, rtcp, other, .. } =
            self;
        [datagrams, packets, bytes, lost, duplicates, late, foreign, strays, invalid, rtcp, other, &self.undescribed]
            .iter()
            .all(|count| **count <= COUNT_MAX)
    }

    /// Whether there were more sources than numbers for them: those from the 256th on share [`OVERFLOW_SOURCE`](crate::OVERFLOW_SOURCE).
    pub fn sources_overflowed(&self) -> bool {
        self.sources > u32::from(crate::OVERFLOW_SOURCE)
    }
}

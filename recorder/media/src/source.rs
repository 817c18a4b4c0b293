//! The sequence of one source: which packets are new, which are repeated, how many are missing.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::checkpoint::COUNT_MAX;
use crate::held::Packet;
use crate::{Encoding, PayloadType, Reception, payload_duration};

/// How far behind the highest sequence number a packet may come and still be known as late or repeated: ten seconds of
/// packets of 20 ms. It is kept as one bit a packet.
pub const WINDOW_PACKETS: u16 = 512;
/// How far ahead of the highest a sequence number may be at once. Further ahead it must be a loss for which there was time:
/// RFC 3550 appendix A.1 allows 3,000 packets at any time, which takes one restart in twenty for a loss of up to a minute.
pub const AHEAD_PACKETS_SLACK: u16 = 100;

/// More than half of the number space ahead is behind.
const AHEAD_PACKETS_MAX: u64 = 0x7fff;
/// A late or repeated packet has a timestamp not much later than the highest's (events carry the time at which they began) and
/// not very much earlier: ten seconds and ten minutes at the highest clock rate. This tells the restart of a sequence that happens to fall into the window.
const TIMESTAMP_AHEAD_MAX: i32 = 10 * 48_000;
const TIMESTAMP_BEHIND_MAX: i32 = 600 * 48_000;
/// Where nothing tells how long packets are.
pub(crate) const PACKET_NS_DEFAULT: u64 = 20_000_000;
/// The shortest packets of any codec, and longer than any that is used: outside, timestamps do not tell the duration.
const PACKET_NS: std::ops::RangeInclusive<u64> = 2_500_000..=200_000_000;
const CLOCK_RATE_DEFAULT: u32 = 8_000;
/// A departure from the expected time by more than this is a change of timestamps or a hold, not jitter.
const JITTER_NS_MAX: u64 = 1_000_000_000;
const NS_PER_SECOND: u64 = 1_000_000_000;
/// The first sequence number of a source is in cycle 1, so that one before it can have a number too.
pub(crate) const FIRST_CYCLE: u64 = 1;

/// Where a packet belongs in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is new, with this extended sequence number.
    New(u64),
    /// It was here before.
    Repeated,
    /// Its sequence number does not follow from those before.
    Elsewhere,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Its number in the track.
    pub(crate) number: u8,
    pub(crate) ssrc: u32,
    pub(crate) from: SocketAddr,
    /// Arrival of the last packet that was its own, repeated ones included.
    pub(crate) last_ns: u64,
    pub(crate) lost: u64,
    pub(crate) gap_ns: u64,
    pub(crate) jitter_ns: u64,
    pub(crate) jitter_ns_max: u64,
    /// Extended sequence numbers: 16 bits as sent, above them the cycles.
    highest: u64,
    lowest: u64,
    /// Of the packet with the highest sequence number.
    timestamp: u32,
    arrival_ns: u64,
    clock_rate: u32,
    payload_type: u8,
    /// How long its audio lasts, in units of its clock; 0 when unknown.
    packet_ticks: u32,
    /// Bit `n % WINDOW_PACKETS` is set when packet `n` of the last [`WINDOW_PACKETS`] is here.
    seen: [u64; WINDOW_PACKETS as usize / 64],
}

impl Source {
    /// A source whose first packet will be this one, to be taken next.
    pub(crate) fn new(number: u8, cycle: u64, packet: &Packet<'_>) -> Self {
        let first = cycle << 16 | u64::from(packet.header.sequence);
        Self {
            number,
            ssrc: packet.header.ssrc,
            from: packet.from,
            last_ns: packet.arrival_ns,
            lost: 0,
            gap_ns: 0,
            jitter_ns: 0,
            jitter_ns_max: 0,
            highest: first,
            lowest: first,
            timestamp: packet.header.timestamp,
            arrival_ns: packet.arrival_ns,
            clock_rate: CLOCK_RATE_DEFAULT,
            payload_type: packet.header.payload_type,
            packet_ticks: 0,
            seen: [0; WINDOW_PACKETS as usize / 64],
        }
    }

    pub(crate) fn sent(&self, packet: &Packet<'_>) -> bool {
        (self.ssrc, self.from) == (packet.header.ssrc, packet.from)
    }

    /// Whether it can have come about by packets, for one that was stored: nothing that is worked out from it overflows then.
    pub(crate) fn is_plausible(&self) -> bool {
        let in_order = self.lowest <= self.highest && (FIRST_CYCLE << 16..COUNT_MAX).contains(&self.highest);
        in_order && self.lost <= COUNT_MAX && self.gap_ns <= COUNT_MAX && self.jitter_ns <= COUNT_MAX
    }

    pub(crate) fn cycle(&self) -> u64 {
        self.highest >> 16
    }

    /// What a receiver report says of it.
    pub(crate) fn reception(&self) -> Reception {
        let jitter_ticks = u128::from(self.jitter_ns) * u128::from(self.clock_rate) / u128::from(NS_PER_SECOND);
        Reception {
            source: self.number,
            ssrc: self.ssrc,
            highest: (self.highest - (self.lowest >> 16 << 16)) as u32,
            expected: self.highest - self.lowest + 1,
            lost: self.lost,
            jitter_ticks: u32::try_from(jitter_ticks).unwrap_or(u32::MAX),
            clock_rate: self.clock_rate,
        }
    }

    /// Whether this packet has an earlier sequence number than one taken.
    pub(crate) fn is_late(&self, extended: u64) -> bool {
        extended < self.highest
    }

    /// Where the packet belongs, which is from this SSRC.
    pub(crate) fn place(&self, packet: &Packet<'_>) -> Place {
        let ahead = packet.header.sequence.wrapping_sub(self.highest as u16);
        if ahead != 0 && (ahead <= AHEAD_PACKETS_SLACK || u64::from(ahead) <= self.ahead_max(packet.arrival_ns)) {
            return Place::New(self.highest + u64::from(ahead));
        }
        let behind = ahead.wrapping_neg();
        let later = packet.header.timestamp.wrapping_sub(self.timestamp) as i32;
        if behind < WINDOW_PACKETS && (-TIMESTAMP_BEHIND_MAX..=TIMESTAMP_AHEAD_MAX).contains(&later) {
            let extended = self.highest - u64::from(behind);
            return if self.has_seen(extended) { Place::Repeated } else { Place::New(extended) };
        }
        Place::Elsewhere
    }

    /// Packets that can have been sent since the highest, and some.
    fn ahead_max(&self, now_ns: u64) -> u64 {
        let sent = now_ns.saturating_sub(self.arrival_ns) / self.packet_ns();
        (u64::from(AHEAD_PACKETS_SLACK) + sent).min(AHEAD_PACKETS_MAX)
    }

    pub(crate) fn packet_ns(&self) -> u64 {
        match ticks_to_ns(u64::from(self.packet_ticks), self.clock_rate) {
            0 => PACKET_NS_DEFAULT,
            ns => ns.clamp(*PACKET_NS.start(), *PACKET_NS.end()),
        }
    }

    /// Takes a packet that [`Source::place`] found to be new; says whether it is late. `described` is what its payload type stands for, if known.
    pub(crate) fn take(&mut self, extended: u64, packet: &Packet<'_>, described: Option<&PayloadType>) -> bool {
        let late = self.is_late(extended);
        if late {
            self.fill(extended);
        } else {
            self.advance(extended, packet, described);
        }
        self.set_seen(extended);
        self.last_ns = self.last_ns.max(packet.arrival_ns);
        late
    }

    /// A packet behind the highest: one missing less, or the first of all and perhaps more missing.
    fn fill(&mut self, extended: u64) {
        if extended < self.lowest {
            let missing = self.lowest - extended - 1;
            self.lost += missing;
            self.gap_ns += missing * self.packet_ns();
            self.lowest = extended;
        } else {
            // Which of the gaps it was in is not kept: take off an average packet. With none left nothing is left.
            self.gap_ns -= self.gap_ns.checked_div(self.lost).unwrap_or(0);
            self.lost = self.lost.saturating_sub(1);
        }
    }

    /// The highest so far.
    fn advance(&mut self, extended: u64, packet: &Packet<'_>, described: Option<&PayloadType>) {
        let payload_type = packet.header.payload_type;
        let clock_rate = described.map_or(self.clock_rate, |described| described.clock_rate);
        let step = packet.header.timestamp.wrapping_sub(self.timestamp);
        let same_kind = (payload_type, clock_rate) == (self.payload_type, self.clock_rate);
        let missing = (extended - self.highest).saturating_sub(1);
        if missing > 0 {
            self.lost += missing;
            // What was lost between two packets of comfort noise was one: there is no audio in it.
            let is_silence = same_kind && described.is_some_and(|kind| kind.encoding == Encoding::ComfortNoise);
            self.gap_ns += if is_silence { 0 } else { self.missing_ns(missing, step, clock_rate) };
            self.clear_seen(extended);
        } else if extended > self.highest {
            self.unset_seen(extended);
            if same_kind && PACKET_NS.contains(&ticks_to_ns(u64::from(step), clock_rate)) {
                self.packet_ticks = step;
            }
        }
        if extended > self.highest && same_kind {
            self.measure_jitter(packet.arrival_ns, step);
        }
        if let Some(described) = described {
            let PayloadType { encoding, clock_rate, channels, .. } = *described;
            match payload_duration(encoding, clock_rate, channels, packet.payload) {
                Some(ticks) if ticks > 0 => self.packet_ticks = ticks,
                _ if same_kind => {}
                _ => self.packet_ticks = 0,
            }
        }
        self.highest = extended;
        self.timestamp = packet.header.timestamp;
        self.arrival_ns = packet.arrival_ns;
        self.clock_rate = clock_rate;
        self.payload_type = payload_type;
    }

    /// Audio that is missing between the highest packet and one whose timestamp is `step` later.
    fn missing_ns(&self, missing: u64, step: u32, clock_rate: u32) -> u64 {
        let expected = missing * self.packet_ns();
        if clock_rate != self.clock_rate || (step as i32) < 0 {
            return expected;
        }
        let step_ns = ticks_to_ns(u64::from(step), clock_rate);
        if self.packet_ticks == 0 && PACKET_NS.contains(&(step_ns / (missing + 1))) {
            return step_ns / (missing + 1) * missing;
        }
        // Silence before or after the loss makes the step longer than the packets missing; events make it shorter.
        expected.min(step_ns.saturating_sub(self.packet_ns()))
    }

    fn measure_jitter(&mut self, arrival_ns: u64, step: u32) {
        let elapsed = arrival_ns.saturating_sub(self.arrival_ns);
        let departure = elapsed.abs_diff(ticks_to_ns(u64::from(step), self.clock_rate));
        if departure <= JITTER_NS_MAX {
            self.jitter_ns = self.jitter_ns - self.jitter_ns / 16 + departure / 16;
            self.jitter_ns_max = self.jitter_ns_max.max(self.jitter_ns);
        }
    }

    fn has_seen(&self, extended: u64) -> bool {
        let (word, bit) = place_of_bit(extended);
        self.seen[word] & bit != 0
    }

    fn set_seen(&mut self, extended: u64) {
        let (word, bit) = place_of_bit(extended);
        self.seen[word] |= bit;
    }

    fn unset_seen(&mut self, extended: u64) {
        let (word, bit) = place_of_bit(extended);
        self.seen[word] &= !bit;
    }

    /// Makes room in the window for the packets after the highest, up to `extended`.
    fn clear_seen(&mut self, extended: u64) {
        if extended - self.highest >= u64::from(WINDOW_PACKETS) {
            self.seen.fill(0);
        } else {
            (self.highest + 1..=extended).for_each(|number| self.unset_seen(number));
        }
    }
}

fn place_of_bit(extended: u64) -> (usize, u64) {
    let bit = extended % u64::from(WINDOW_PACKETS);
    (bit as usize / 64, 1 << (bit % 64))
}

/// `ticks` come from a 32-bit timestamp, so this does not overflow.
fn ticks_to_ns(ticks: u64, clock_rate: u32) -> u64 {
    ticks * NS_PER_SECOND / u64::from(clock_rate.max(1))
}

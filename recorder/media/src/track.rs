//! A track: which source is followed, and what becomes of each datagram.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::held::{HeldPacket, Packet, Rival};
use crate::source::{FIRST_CYCLE, PACKET_NS_DEFAULT, Place, Source};
use crate::{Counts, Datagram, Encoding, Held, MediaError, PayloadType, Rtcp, RtpHeader};

/// How long the followed source must be silent before another is followed that no signalling announced: longer than any
/// jitter or burst of loss in a usable call. Nothing is lost meanwhile, the new source's packets are held.
pub const SILENCE_NS: u64 = 500_000_000;
/// How long after signalling a new source is followed at once. Media may come some seconds late; later it is nobody announced.
pub const SIGNALLED_CHANGE_NS: u64 = 5_000_000_000;
/// How long two sources may overlap at a change from one to the other, because packets were reordered on their way.
/// What a source sent earlier, while the followed one was talking, is foreign.
pub const OVERLAP_NS: u64 = 60_000_000;
/// A second packet within this many sequence numbers of a stray one shows that the sequence started again.
pub const PROBATION_SPAN: u16 = 16;
/// Number of all sources from the 256th on; they are told apart by their extended sequence numbers, which go on rising.
pub const OVERFLOW_SOURCE: u8 = u8::MAX;

/// Payload types remembered: all that there are.
const PAYLOAD_TYPES_MAX: usize = 128;

/// Settings of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackConfig {
    /// How long the followed source must be silent before another is followed without being announced, in nanoseconds.
    pub followed_silence_ns: u64,
}

impl Default for TrackConfig {
    fn default() -> Self {
        Self { followed_silence_ns: SILENCE_NS }
    }
}

/// A packet that belongs to the track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Number of its source in the track, from 0 in the order in which they were followed.
    pub source: u8,
    /// The SSRC, with the first packet of each source.
    pub new_source: Option<u32>,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Extended sequence number: as sent in the lower 16 bits, cycles above. Unique in the source, which begins in cycle 1
    /// so that a packet from before the first to come has a number too. It wraps after 2.7 years of packets of 20 ms.
    pub seq: u32,
    /// Timestamp as sent.
    pub timestamp: u32,
    /// Where in the datagram the payload is.
    pub payload: Range<usize>,
    /// Units of the timestamp in a second, when it is a telephone event ([`Tones`](crate::Tones) takes those); none of others.
    pub event_clock_rate: Option<u32>,
}

/// What became of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what is kept is lost unless it is stored"]
pub enum Received {
    /// It is a new packet of the followed source.
    Kept(Kept),
    /// It may belong to the track; the next ones will tell. Ask [`Track::take_held`] after this, every time.
    Held,
    /// A packet that was kept before.
    Duplicate,
    /// A packet of another source than the one that is followed.
    Foreign,
    /// Neither RTP nor RTCP, although it says so.
    Invalid(MediaError),
    /// Reports about sources.
    Rtcp {
        /// What it says.
        rtcp: Rtcp,
        /// Number of the source whose sender report it has, when that is or was followed lately.
        source: Option<u8>,
    },
    /// STUN, DTLS or an empty datagram.
    Other,
}

/// The source that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Its number in the track.
    pub source: u8,
    /// Its SSRC.
    pub ssrc: u32,
    /// Where it sends from.
    pub from: SocketAddr,
    /// Arrival of its last packet.
    pub last_ns: u64,
}

/// How the followed source is received, as a receiver report tells it (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reception {
    /// Its number in the track.
    pub source: u8,
    /// Its SSRC.
    pub ssrc: u32,
    /// Highest sequence number, with the cycles since its first packet above the lower 16 bits.
    pub highest: u32,
    /// Packets that it sent, as far as sequence numbers tell.
    pub expected: u64,
    /// Those of them that never came.
    pub lost: u64,
    /// Interarrival jitter in units of its clock.
    pub jitter_ticks: u32,
    /// Units of its timestamps in a second.
    pub clock_rate: u32,
}

/// Whether signalling announced another source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    None,
    /// Announced, and nothing has arrived since.
    Announced,
    /// Announced; believed until then.
    Until(u64),
}

/// Reception of one audio stream.
///
/// A track follows one source at a time. The first that sends is followed. Another (a new SSRC, or the old one from a new
/// address) is followed at once after [`Track::signalled_change`] or the old one's BYE, and otherwise when the old one has been silent
/// for [`TrackConfig::followed_silence_ns`]; until that is decided its packets are held (see [`HELD_PACKETS_MAX`](crate::HELD_PACKETS_MAX)), so
/// that nothing is lost if it turns out to be a change, and nothing mixed if both go on talking. The followed source may also start its sequence
/// again: a packet that fits nowhere is held until a second one near it confirms it. A packet that comes late from the
/// source followed before is still that source's. The packets of one source are given out in the order of arrival; where two sources overlap,
/// those of one may be given out after later ones of the other.
///
/// Receiving costs the same whatever came before, and allocates nothing unless a packet is held.
pub struct Track {
    config: TrackConfig,
    pub(crate) payload_types: Vec<PayloadType>,
    pub(crate) followed: Option<Source>,
    /// The one before.
    pub(crate) previous: Option<Source>,
    pub(crate) rival: Option<Rival>,
    pub(crate) stray: Option<HeldPacket>,
    /// Held packets that are kept after all, in the order of arrival.
    ready: VecDeque<Held>,
    pub(crate) change: Change,
    /// Whether datagrams were left unread since the last one.
    pub(crate) interrupted: bool,
    /// All counts but those that the two sources keep themselves.
    pub(crate) counts: Counts,
    /// Audio lost in sources before those two.
    pub(crate) gap_ns: u64,
}

impl Track {
    /// A track to which nothing has come.
    pub fn new(config: TrackConfig) -> Self {
        Self {
            config,
            payload_types: Vec::new(),
            followed: None,
            previous: None,
            rival: None,
            stray: None,
            ready: VecDeque::new(),
            change: Change::None,
            interrupted: false,
            counts: Counts::default(),
            gap_ns: 0,
        }
    }

    /// Says what payload types stand for: at the answer, and at each further offer. One that is not mentioned again keeps its
    /// meaning, since packets may be on their way. Those with a clock rate of 0 or above 127 are passed over.
    pub fn describe(&mut self, payload_types: &[PayloadType]) {
        for new in payload_types.iter().filter(|new| new.clock_rate > 0 && usize::from(new.pt) < PAYLOAD_TYPES_MAX) {
            match self.payload_types.iter_mut().find(|known| known.pt == new.pt) {
                Some(known) => *known = *new,
                None => self.payload_types.push(*new),
            }
        }
    }

    /// Says that signalling announced another source: the next one is followed at once, if it comes within [`SIGNALLED_CHANGE_NS`] of
    /// the next datagram.
    pub fn signalled_change(&mut self) {
        self.change = Change::Announced;
    }

    /// Says that datagrams are left unread from now on, because recording is paused: the next packet begins a new source, so that
    /// what nobody wanted is not counted as lost.
    pub fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// The source that is followed; none before the first packet.
    pub fn followed(&self) -> Option<Followed> {
        let source = self.followed.as_ref()?;
        Some(Followed { source: source.number, ssrc: source.ssrc, from: source.from, last_ns: source.last_ns })
    }

    /// How much audio a packet of the source that is followed holds, in nanoseconds; what is usual before anything tells.
    pub fn packet_ns(&self) -> u64 {
        self.followed.as_ref().map_or(PACKET_NS_DEFAULT, Source::packet_ns)
    }

    /// How the source that is followed is received; none before the first packet.
    pub fn reception(&self) -> Option<Reception> {
        self.followed.as_ref().map(Source::reception)
    }

    /// The counts as of now.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counts;
        let mut gap_ns = self.gap_ns;
        for source in self.previous.iter().chain(&self.followed) {
            counts.lost += source.lost;
            gap_ns += source.gap_ns;
            counts.jitter_us = to_us(source.jitter_ns);
            counts.jitter_us_max = counts.jitter_us_max.max(to_us(source.jitter_ns_max));
        }
        counts.gaps_ms = gap_ns / 1_000_000;
        let rival = self.rival.as_ref().map_or(0, |rival| rival.packets.len());
        counts.held = rival as u64 + u64::from(self.stray.is_some());
        counts
    }

    /// Receives a datagram from the track's RTP or RTCP port. Arrival times are in nanoseconds of any clock that does not go back.
    /// Call [`Track::take_held`] until it gives no more after [`Received::Held`].
    pub fn receive(&mut self, arrival_ns: u64, from: SocketAddr, datagram: &[u8]) -> Received {
        self.counts.datagrams += 1;
        match self.change {
            Change::Announced => self.change = Change::Until(arrival_ns.saturating_add(SIGNALLED_CHANGE_NS)),
            Change::Until(end_ns) if arrival_ns > end_ns => self.change = Change::None,
            _ => {}
        }
        let is_agreed = |pt| self.payload_types.iter().any(|known| known.pt == pt);
        match Datagram::parse_knowing(datagram, is_agreed) {
            Ok(Datagram::Rtp { header, payload }) => {
                let offset = payload.start;
                self.receive_rtp(&Packet { arrival_ns, from, header, payload: &datagram[payload], offset })
            }
            Ok(Datagram::Rtcp(rtcp)) => self.receive_rtcp(from, rtcp),
            Ok(Datagram::Stun | Datagram::Other) => {
                self.counts.other += 1;
                Received::Other
            }
            Err(error) => {
                self.counts.invalid += 1;
                Received::Invalid(error)
            }
        }
    }

    /// A packet that was held and is now kept; none when there are no more.
    pub fn take_held(&mut self) -> Option<Held> {
        self.ready.pop_front()
    }

    /// Says that nothing more will come, and decides about what is held: a source that began when the followed one had ended is
    /// followed, the rest is counted as foreign or stray. Call [`Track::take_held`] until it gives no more.
    pub fn finish(&mut self) {
        let followed_ns = self.followed.as_ref().map_or(0, |followed| followed.last_ns);
        if self.rival.as_ref().is_some_and(|rival| rival.last_ns.saturating_sub(followed_ns) >= OVERLAP_NS) {
            self.follow_rival();
        }
        self.drop_rival();
        self.drop_stray();
    }

    fn receive_rtcp(&mut self, from: SocketAddr, rtcp: Rtcp) -> Received {
        self.counts.rtcp += 1;
        let source_of = |ssrc| self.followed.iter().chain(&self.previous).find(|source| source.ssrc == ssrc);
        let source = rtcp.sender_report.and_then(|report| source_of(report.ssrc)).map(|source| source.number);
        if let Some(followed) = &self.followed
            && rtcp.goodbye == Some(followed.ssrc)
            && from.ip() == followed.from.ip()
        {
            self.change = Change::Announced;
        }
        Received::Rtcp { rtcp, source }
    }

    fn receive_rtp(&mut self, packet: &Packet<'_>) -> Received {
        match &self.followed {
            _ if self.interrupted => self.begin(packet),
            None => self.begin(packet),
            Some(followed) if followed.sent(packet) => self.receive_followed(packet),
            Some(_) => self.receive_rival(packet),
        }
    }

    /// A packet of the followed source.
    fn receive_followed(&mut self, packet: &Packet<'_>) -> Received {
        let Some(followed) = &mut self.followed else { return self.begin(packet) };
        match followed.place(packet) {
            Place::New(extended) => {
                self.forget_older(packet.arrival_ns);
                self.keep(packet, extended, Whose::Followed)
            }
            Place::Repeated => {
                followed.last_ns = followed.last_ns.max(packet.arrival_ns);
                self.repeated()
            }
            Place::Elsewhere => self.receive_stray(packet),
        }
    }

    /// A packet of the followed SSRC whose sequence number does not fit.
    fn receive_stray(&mut self, packet: &Packet<'_>) -> Received {
        if let Some(received) = self.receive_straggler(packet) {
            return received;
        }
        let sequence = packet.header.sequence;
        let apart = self.stray.as_ref().map(|stray| distance(stray.header.sequence, sequence));
        match apart {
            Some(0) => self.repeated(),
            Some(1..=PROBATION_SPAN) => {
                if let Some(stray) = self.stray.take() {
                    let first = self.begin(&stray.packet());
                    self.make_ready(&stray, first);
                }
                let held = packet.hold();
                let second = self.receive_followed(&held.packet());
                self.make_ready(&held, second);
                Received::Held
            }
            _ if self.may_follow(packet.arrival_ns) => {
                self.drop_stray();
                self.begin(packet)
            }
            _ => {
                self.drop_stray();
                self.stray = Some(packet.hold());
                Received::Held
            }
        }
    }

    /// A packet that the source followed before had sent; none when it is not that.
    fn receive_straggler(&mut self, packet: &Packet<'_>) -> Option<Received> {
        let previous = self.previous.as_ref().filter(|previous| previous.sent(packet))?;
        match previous.place(packet) {
            Place::New(extended) if previous.is_late(extended) => Some(self.keep(packet, extended, Whose::Previous)),
            Place::Repeated => Some(self.repeated()),
            _ => None,
        }
    }

    /// A packet from another SSRC or address than the followed one.
    fn receive_rival(&mut self, packet: &Packet<'_>) -> Received {
        if let Some(received) = self.receive_straggler(packet) {
            return received;
        }
        let open = self.may_follow(packet.arrival_ns);
        let silence_ns = self.config.followed_silence_ns;
        match &self.rival {
            Some(rival) if rival.sent(packet) => {}
            Some(rival) if packet.arrival_ns.saturating_sub(rival.last_ns) < silence_ns => {
                self.counts.foreign += 1;
                return Received::Foreign;
            }
            _ => self.drop_rival(),
        }
        let rival = self.rival.get_or_insert_with(|| Rival::new(packet));
        if open && rival.packets.is_empty() {
            self.rival = None;
            return self.follow(packet);
        }
        self.counts.foreign += rival.push(packet);
        if open {
            self.follow_rival();
        }
        Received::Held
    }

    /// Whether another source may be followed now.
    fn may_follow(&self, now_ns: u64) -> bool {
        let silent_ns = self.followed.as_ref().map_or(u64::MAX, |source| now_ns.saturating_sub(source.last_ns));
        self.change != Change::None || silent_ns >= self.config.followed_silence_ns
    }

    fn follow_rival(&mut self) {
        let held = self.rival.take().map(|rival| rival.packets).unwrap_or_default();
        for (number, held) in held.into_iter().enumerate() {
            let packet = held.packet();
            let received = if number == 0 { self.follow(&packet) } else { self.receive_followed(&packet) };
            self.make_ready(&held, received);
        }
    }

    /// Follows the sender of this packet: as the same source if it only has another address.
    fn follow(&mut self, packet: &Packet<'_>) -> Received {
        match &mut self.followed {
            Some(followed) if followed.ssrc == packet.header.ssrc && followed.place(packet) != Place::Elsewhere => {
                followed.from = packet.from;
                self.counts.address_changes += 1;
                self.change = Change::None;
                self.receive_followed(packet)
            }
            _ => self.begin(packet),
        }
    }

    /// Begins a new source with this packet.
    fn begin(&mut self, packet: &Packet<'_>) -> Received {
        let number = u8::try_from(self.counts.sources).unwrap_or(OVERFLOW_SOURCE);
        let cycle = match &self.followed {
            // Two on, so that its numbers cannot meet those of the one before, late packets included.
            Some(before) if before.number == OVERFLOW_SOURCE => before.cycle() + 2,
            _ => FIRST_CYCLE,
        };
        self.counts.sources = self.counts.sources.saturating_add(1);
        self.change = Change::None;
        self.interrupted = false;
        let source = Source::new(number, cycle, packet);
        let first = cycle << 16 | u64::from(packet.header.sequence);
        let before = self.followed.replace(source);
        let closed = std::mem::replace(&mut self.previous, before);
        if let Some(closed) = closed {
            self.counts.lost += closed.lost;
            self.gap_ns += closed.gap_ns;
            self.counts.jitter_us_max = self.counts.jitter_us_max.max(to_us(closed.jitter_ns_max));
        }
        let ssrc = packet.header.ssrc;
        match self.keep(packet, first, Whose::Followed) {
            Received::Kept(kept) => Received::Kept(Kept { new_source: Some(ssrc), ..kept }),
            other => other,
        }
    }

    fn keep(&mut self, packet: &Packet<'_>, extended: u64, whose: Whose) -> Received {
        let RtpHeader { payload_type, marker, timestamp, .. } = packet.header;
        let described = self.payload_types.iter().find(|known| known.pt == payload_type).copied();
        let meaning = described.or_else(|| PayloadType::assigned(payload_type));
        let source = match whose {
            Whose::Followed => &mut self.followed,
            Whose::Previous => &mut self.previous,
        };
        let Some(source) = source else { return Received::Foreign };
        let late = source.take(extended, packet, meaning.as_ref());
        self.counts.packets += 1;
        self.counts.bytes += packet.payload.len() as u64;
        self.counts.late += u64::from(late);
        self.counts.undescribed += u64::from(described.is_none());
        Received::Kept(Kept {
            source: source.number,
            new_source: None,
            payload_type,
            marker,
            seq: extended as u32,
            timestamp,
            payload: packet.offset..packet.offset + packet.payload.len(),
            event_clock_rate: meaning
                .filter(|meaning| meaning.encoding == Encoding::TelephoneEvent)
                .map(|meaning| meaning.clock_rate),
        })
    }

    fn make_ready(&mut self, held: &HeldPacket, received: Received) {
        if let Received::Kept(kept) = received {
            self.ready.push_back(Held { arrival_ns: held.arrival_ns, kept, payload: held.payload.clone() });
        }
    }

    fn repeated(&mut self) -> Received {
        self.counts.duplicates += 1;
        Received::Duplicate
    }

    /// The followed source goes on: what others sent before that is not part of the track.
    fn forget_older(&mut self, now_ns: u64) {
        if let Some(rival) = &mut self.rival {
            self.counts.foreign += rival.expire(now_ns.saturating_sub(OVERLAP_NS));
        }
        let silence_ns = self.config.followed_silence_ns;
        if self.stray.as_ref().is_some_and(|stray| now_ns.saturating_sub(stray.arrival_ns) >= silence_ns) {
            self.drop_stray();
        }
    }

    fn drop_rival(&mut self) {
        let rival = self.rival.take();
        self.counts.foreign += rival.map_or(0, |rival| rival.packets.len() as u64);
    }

    fn drop_stray(&mut self) {
        self.counts.strays += u64::from(self.stray.take().is_some());
    }
}

/// Whose packet is kept.
#[derive(Clone, Copy)]
enum Whose {
    Followed,
    Previous,
}

fn distance(one: u16, other: u16) -> u16 {
    one.wrapping_sub(other).min(other.wrapping_sub(one))
}

fn to_us(ns: u64) -> u32 {
    u32::try_from(ns / 1_000).unwrap_or(u32::MAX)
}

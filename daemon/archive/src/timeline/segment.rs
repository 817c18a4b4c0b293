//! The segments of a source: stretches in which its timestamps keep to the arrival of its packets.
//!
//! *Media time* is the RTP timestamp without its wraps, in units of the clock rate, from an origin that a source keeps until its
//! clock rate changes. The *offset* of a packet is its arrival less its media time, in nanoseconds: a constant of the
//! source plus the packet's delay.

use std::collections::BTreeMap;

use super::drift::{Drift, LeastOffsets};
use super::{DEPARTURE_NS, PacketHeader, Room, STEP_TICKS, to_u64};
use crate::TICKS_PER_SECOND;

pub(super) const NS_PER_SECOND: u64 = 1_000_000_000;
/// Offsets are compared with the smallest of this stretch and of the one before, so that clocks that differ by hundreds of millionths
/// never depart, and a minute without a packet forgets nothing.
const LEVEL_NS: u64 = 10 * NS_PER_SECOND;
/// A segment that began so late at most, and so short a time ago, was a delay on the path if offsets return to what they were before.
const DELAY_NS_MAX: i128 = 2 * NS_PER_SECOND as i128;
const DELAY_AGE_NS_MAX: u64 = 10 * NS_PER_SECOND;
const DEPARTURE: i128 = DEPARTURE_NS as i128;
/// A packet behind later ones, or an event, belongs to a segment only if its timestamp is so near its fellows: longer than
/// any event or reordering.
const NEAR_NS: i128 = 15 * NS_PER_SECOND as i128;
/// Timestamps wrap; they are unwrapped by the nearest reference, and one is set each time media time has gone on by this.
const REFERENCE_TICKS: i64 = 1 << 29;
/// A packet lasts so long at most. Consecutive packets with steps up to this tell the duration where payloads do not.
const PACKET_NS_MAX: i128 = NS_PER_SECOND as i128 / 5;
/// Packets a second, where nothing tells how long one lasts.
const PACKETS_PER_SECOND_DEFAULT: u32 = 50;

/// A source in the first pass.
#[derive(Debug, Default)]
pub(super) struct Source {
    segments: Vec<Segment>,
}

impl Source {
    /// Sees a packet; says whether it has a place.
    pub(super) fn observe(&mut self, packet: &PacketHeader, room: &mut Room) -> bool {
        match self.segments.last_mut() {
            None => self.open(packet, 0, 0, room),
            Some(last) if packet.seq <= last.last_seq => self.observe_late(packet, room),
            Some(last) if packet.duration_ticks == Some(0) => last.add_event(packet, room),
            Some(last) if packet.clock_rate != last.clock_rate => self.open(packet, 0, 0, room),
            Some(_) => self.observe_next(packet, room),
        }
    }

    pub(super) fn into_segments(self) -> impl Iterator<Item = Segment> {
        self.segments.into_iter()
    }

    /// A packet after all others in the sequence.
    fn observe_next(&mut self, packet: &PacketHeader, room: &mut Room) -> bool {
        let Some(last) = self.segments.last() else { return false };
        let media = last.next_media(packet.timestamp);
        let offset = last.offset(media, packet.arrival_ns);
        self.heal(packet.arrival_ns, offset, room);
        let Some(last) = self.segments.last_mut() else { return false };
        let departure = offset - last.level.least();
        if departure.abs() > DEPARTURE {
            return self.open(packet, media, departure, room);
        }
        last.add_next(packet, media, room);
        true
    }

    /// Takes the last segment for part of the one before if it was but a delay: it began a little late, a little while ago, and this
    /// packet is in time again.
    fn heal(&mut self, arrival_ns: u64, offset: i128, room: &mut Room) {
        let [.., before, last] = &self.segments[..] else { return };
        let was_delay = last.continues
            && (1..=DELAY_NS_MAX).contains(&last.began_late_ns)
            && arrival_ns.saturating_sub(last.opened_ns) <= DELAY_AGE_NS_MAX
            && (offset - before.level.least()).abs() <= DEPARTURE / 2;
        if was_delay
            && let Some(delayed) = self.segments.pop()
            && let Some(before) = self.segments.last_mut()
        {
            room.segments += 1;
            before.absorb(delayed, room);
        }
    }

    fn open(&mut self, packet: &PacketHeader, media: i64, began_late_ns: i128, room: &mut Room) -> bool {
        let Some(left) = room.segments.checked_sub(1) else { return false };
        room.segments = left;
        let continues = self.segments.last().is_some_and(|last| last.clock_rate == packet.clock_rate);
        self.segments.push(Segment::open(packet, media, continues, began_late_ns));
        true
    }

    /// A packet that is behind others in the sequence.
    fn observe_late(&mut self, packet: &PacketHeader, room: &mut Room) -> bool {
        let after = self.segments.partition_point(|segment| segment.first_seq <= packet.seq);
        let before = after.saturating_sub(1);
        let is_inside = self.segments.get(before).is_some_and(|segment| segment.has_seq(packet.seq));
        // Between two segments it belongs to the one that its timestamp departs less from.
        let candidates = if is_inside { before..after } else { before..self.segments.len().min(after + 1) };
        let nearest = candidates.min_by_key(|&at| self.segments[at].departure(packet).abs());
        nearest.is_some_and(|at| self.segments[at].add_late(packet, room))
    }
}

/// A point by which timestamps are unwrapped.
#[derive(Debug, Clone, Copy)]
struct Reference {
    seq: u32,
    timestamp: u32,
    media: i64,
}

/// The smallest offset lately.
#[derive(Debug, Clone, Copy)]
struct Level {
    since_ns: u64,
    now: i128,
    before: i128,
}

impl Level {
    fn least(&self) -> i128 {
        self.now.min(self.before)
    }

    fn add(&mut self, arrival_ns: u64, offset: i128) {
        if arrival_ns.saturating_sub(self.since_ns) > LEVEL_NS {
            *self = Self { since_ns: arrival_ns, now: offset, before: self.now };
        } else {
            self.now = self.now.min(offset);
        }
    }
}

/// A stretch of a source in which timestamps and arrival keep together.
#[derive(Debug)]
pub(super) struct Segment {
    clock_rate: u32,
    first_seq: u32,
    last_seq: u32,
    references: Vec<Reference>,
    /// The packet after which the next is expected: the last in sequence that is no event.
    newest: Reference,
    /// Whether that one's payload told its duration.
    newest_is_timed: bool,
    /// Media time of the earliest and the latest packet, and where the audio ends.
    first_media: i64,
    last_media: i64,
    end_media: i64,
    /// Stretches without audio, as media times of start and end.
    holes: BTreeMap<i64, i64>,
    /// Duration of packets that do not tell theirs, in units of the clock.
    step: u32,
    /// The smallest offset of all.
    least_offset: i128,
    level: Level,
    /// What tells the drift of its clock.
    least_offsets: LeastOffsets,
    /// The drift, where it is corrected.
    drift: Option<Drift>,
    opened_ns: u64,
    /// By how much its first packet's offset was above what was expected.
    began_late_ns: i128,
    /// Whether media time has the same origin as in the segment before.
    continues: bool,
}

impl Segment {
    fn open(packet: &PacketHeader, media: i64, continues: bool, began_late_ns: i128) -> Self {
        let reference = Reference { seq: packet.seq, timestamp: packet.timestamp, media };
        let mut segment = Self {
            clock_rate: packet.clock_rate,
            first_seq: packet.seq,
            last_seq: packet.seq,
            references: vec![reference],
            newest: reference,
            newest_is_timed: packet.duration_ticks.is_some(),
            first_media: media,
            last_media: media,
            end_media: media,
            holes: BTreeMap::new(),
            step: (packet.clock_rate / PACKETS_PER_SECOND_DEFAULT).max(1),
            least_offset: 0,
            level: Level { since_ns: packet.arrival_ns, now: 0, before: 0 },
            least_offsets: LeastOffsets::default(),
            drift: None,
            opened_ns: packet.arrival_ns,
            began_late_ns,
            continues,
        };
        let offset = segment.offset(media, packet.arrival_ns);
        segment.least_offset = offset;
        (segment.level.now, segment.level.before) = (offset, offset);
        segment.least_offsets.add(segment.to_ns(media), offset);
        segment.end_media = segment.end_of(packet, media);
        segment
    }

    pub(super) fn first_seq(&self) -> u32 {
        self.first_seq
    }

    fn has_seq(&self, seq: u32) -> bool {
        (self.first_seq..=self.last_seq).contains(&seq)
    }

    pub(super) fn opened_ns(&self) -> u64 {
        self.opened_ns
    }

    /// Works out the drift of its clock, when all of it was seen, and corrects it from here on if it matters. Says how fast the clock
    /// runs, see [`Drift::skew_ppm`].
    pub(super) fn settle(&mut self) -> Option<(i64, i32)> {
        let drift = self.least_offsets.drift()?;
        let skew = drift.skew_ppm();
        if drift.matters() {
            self.least_offset = self.least_offsets.least_without(&drift)?;
            self.drift = Some(drift);
        }
        skew
    }

    /// The anchor: when its earliest packet was sent, as the least delayed packet would have it.
    pub(super) fn start_ns(&self) -> i128 {
        self.sent_ns(self.first_media)
    }

    /// When the audio of a media time was sent, as the least delayed packet would have it.
    pub(super) fn sent_ns(&self, media: i64) -> i128 {
        self.least_offset + self.to_ns(media) + i128::from(self.drift_ns(media))
    }

    /// The media time of a timestamp that was current at about this time.
    pub(super) fn media_at(&self, timestamp: u32, at_ns: u64) -> i64 {
        let since_ns = i128::from(at_ns) - self.least_offset;
        let about = since_ns * i128::from(self.clock_rate) / i128::from(NS_PER_SECOND);
        let about = i64::try_from(about).unwrap_or(i64::MAX);
        let nearest = self.references.iter().min_by_key(|reference| reference.media.abs_diff(about));
        unwrap(nearest.unwrap_or(&self.newest), timestamp)
    }

    fn drift_ns(&self, media: i64) -> i64 {
        self.drift.as_ref().map_or(0, |drift| drift.at(self.to_ns(media)))
    }

    /// From the first packet to the end of the last, in ticks of 1/48000 s.
    pub(super) fn length_ticks(&self) -> u64 {
        // A step back for the drift may come between the last packet and its end.
        self.to_ticks(self.end_media).max(self.to_ticks(self.last_media))
    }

    /// Its holes in ticks from its first packet.
    pub(super) fn holes(&self) -> impl Iterator<Item = (u64, u64)> {
        self.holes.iter().map(|(&from, &to)| (self.to_ticks(from), self.to_ticks(to)))
    }

    /// Place of a packet of this segment in ticks from its first; none when it is not one of it.
    pub(super) fn ticks_of(&self, packet: &PacketHeader) -> Option<u64> {
        let media = self.media(packet);
        let is_here = self.has_seq(packet.seq) && (self.first_media..=self.last_media).contains(&media);
        is_here.then(|| self.to_ticks(media))
    }

    /// Media time from the first packet, in ticks of 1/48000 s, rounded, and moved by whole steps where the clock drifts.
    fn to_ticks(&self, media: i64) -> u64 {
        let rate = i128::from(self.clock_rate);
        let units = i128::from(media) - i128::from(self.first_media);
        let exact = (units * i128::from(TICKS_PER_SECOND) + rate / 2) / rate;
        to_u64(exact + steps(self.drift_ns(media)) - steps(self.drift_ns(self.first_media)))
    }

    fn to_ns(&self, media: i64) -> i128 {
        i128::from(media) * i128::from(NS_PER_SECOND) / i128::from(self.clock_rate)
    }

    fn offset(&self, media: i64, arrival_ns: u64) -> i128 {
        i128::from(arrival_ns) - self.to_ns(media)
    }

    /// By how much a packet's offset is above what is usual here.
    fn departure(&self, packet: &PacketHeader) -> i128 {
        self.offset(self.media(packet), packet.arrival_ns) - self.level.least()
    }

    fn media(&self, packet: &PacketHeader) -> i64 {
        let after = self.references.partition_point(|reference| reference.seq <= packet.seq);
        let reference = self.references.get(after.saturating_sub(1)).unwrap_or(&self.newest);
        unwrap(reference, packet.timestamp)
    }

    fn next_media(&self, timestamp: u32) -> i64 {
        unwrap(&self.newest, timestamp)
    }

    fn end_of(&self, packet: &PacketHeader, media: i64) -> i64 {
        media.saturating_add(i64::from(packet.duration_ticks.unwrap_or(self.step)))
    }

    /// Takes a packet after all others in the sequence.
    fn add_next(&mut self, packet: &PacketHeader, media: i64, room: &mut Room) {
        let step = media - self.newest.media;
        let is_short = step > 0 && self.to_ns(step) <= PACKET_NS_MAX;
        let is_next = packet.seq == self.newest.seq.wrapping_add(1) && is_short;
        if is_next {
            self.step = u32::try_from(step).unwrap_or(self.step);
        }
        if media > self.end_media && (self.newest_is_timed || !is_next) {
            self.add_hole(self.end_media, media, room);
        }
        let offset = self.offset(media, packet.arrival_ns);
        self.least_offset = self.least_offset.min(offset);
        self.level.add(packet.arrival_ns, offset);
        self.least_offsets.add(self.to_ns(media), offset);
        self.newest = Reference { seq: packet.seq, timestamp: packet.timestamp, media };
        self.newest_is_timed = packet.duration_ticks.is_some();
        self.last_seq = packet.seq;
        self.cover(packet, media);
        if self.references.last().is_none_or(|last| media.abs_diff(last.media) > REFERENCE_TICKS.unsigned_abs()) {
            self.references.push(self.newest);
        }
    }

    /// Takes a telephone event, which has the timestamp at which it began.
    fn add_event(&mut self, packet: &PacketHeader, room: &mut Room) -> bool {
        let media = self.next_media(packet.timestamp);
        let departure = self.offset(media, packet.arrival_ns) - self.level.least();
        if departure.abs() > NEAR_NS || media < self.first_media {
            return false;
        }
        self.last_seq = packet.seq;
        if media > self.end_media {
            self.add_hole(self.end_media, media, room);
        }
        self.cover(packet, media);
        true
    }

    /// Takes a packet that others overtook; says whether it belongs here.
    fn add_late(&mut self, packet: &PacketHeader, room: &mut Room) -> bool {
        if packet.duration_ticks != Some(0) && packet.clock_rate != self.clock_rate {
            return false;
        }
        let media = self.media(packet);
        if self.departure(packet).abs() > NEAR_NS {
            return false;
        }
        if packet.duration_ticks == Some(0) {
            return self.has_seq(packet.seq) && (self.first_media..=self.last_media).contains(&media);
        }
        let end = self.end_of(packet, media);
        if end < self.first_media {
            self.add_hole(end, self.first_media, room);
        }
        if media > self.end_media {
            self.add_hole(self.end_media, media, room);
        }
        self.fill_hole(media, end, room);
        self.least_offset = self.least_offset.min(self.offset(media, packet.arrival_ns));
        self.first_seq = self.first_seq.min(packet.seq);
        self.last_seq = self.last_seq.max(packet.seq);
        self.cover(packet, media);
        true
    }

    fn cover(&mut self, packet: &PacketHeader, media: i64) {
        self.first_media = self.first_media.min(media);
        self.last_media = self.last_media.max(media);
        self.end_media = self.end_media.max(self.end_of(packet, media));
    }

    fn add_hole(&mut self, from: i64, to: i64, room: &mut Room) {
        if let Some(left) = room.holes.checked_sub(1) {
            room.holes = left;
            self.holes.insert(from, to);
        }
    }

    /// Audio is there from `from` to `to`, which was perhaps a hole.
    fn fill_hole(&mut self, from: i64, to: i64, room: &mut Room) {
        let Some((&start, &end)) = self.holes.range(..=from).next_back() else { return };
        if from >= end {
            return;
        }
        self.holes.remove(&start);
        room.holes += 1;
        if start < from {
            self.add_hole(start, from, room);
        }
        if to < end {
            self.add_hole(to, end, room);
        }
    }

    /// Takes in the segment after this one, whose media time has the same origin.
    fn absorb(&mut self, mut after: Self, room: &mut Room) {
        if after.first_media > self.end_media {
            self.add_hole(self.end_media, after.first_media, room);
        }
        self.holes.append(&mut after.holes);
        self.references.append(&mut after.references);
        self.newest = after.newest;
        self.newest_is_timed = after.newest_is_timed;
        self.last_seq = after.last_seq;
        self.first_media = self.first_media.min(after.first_media);
        self.last_media = self.last_media.max(after.last_media);
        self.end_media = self.end_media.max(after.end_media);
        self.least_offset = self.least_offset.min(after.least_offset);
        self.least_offsets.append(&after.least_offsets);
    }
}

/// A drift in ticks, to the nearest step.
fn steps(drift_ns: i64) -> i128 {
    let (step, second) = (i128::from(STEP_TICKS), i128::from(NS_PER_SECOND));
    (i128::from(drift_ns) * i128::from(TICKS_PER_SECOND) + step * second / 2).div_euclid(step * second) * step
}

fn unwrap(reference: &Reference, timestamp: u32) -> i64 {
    let later = timestamp.wrapping_sub(reference.timestamp) as i32;
    reference.media.saturating_add(i64::from(later))
}

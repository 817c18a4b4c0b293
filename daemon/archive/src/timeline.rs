//! Alignment: puts the packets of all tracks of a recording on one clock, from what the recorder noted of them.
//!
//! It takes two passes over the packets. In the first, [`Timeline::observe`] sees each packet's header in the order of
//! arrival; [`Timeline::finish`] turns what it learned into an [`Alignment`], which in the second pass gives each packet
//! its position in ticks of 1/48000 s from the recording's start. Memory is for sources and holes, not for packets.
//!
//! # How positions come about
//!
//! 1. Inside a source, positions follow the RTP timestamps and nothing else. Jitter, loss, reordering and repetition
//!    move nothing; the silence of a sender that sends nothing but lets its timestamps run has its length.
//! 2. A source is cut into *segments* where its timestamps depart from the arrival of its packets by more than
//!    [`DEPARTURE_NS`], or where its clock rate changes: a sender that stops its timestamps during a hold, starts them again, or
//!    leaps. So the hole has the length that it had. A short delay on the path, after which packets arrive as before, cuts nothing.
//! 3. A segment is placed by its least delayed packet: of all differences between arrival and media time, the smallest.
//!    Position 0 is the start of the earliest segment of any track; the others begin at a multiple of [`GRID_TICKS`], since
//!    arrival times are not worth more.
//! 4. A segment that would begin within [`JOIN_TICKS`] of the end of the one before in its track continues it exactly.
//!    So does one that would overlap it by at most [`MOVE_TICKS`]: a shift that nobody hears costs less than a lost word.
//!    If it would overlap by more it stays where it belongs, and its packets from before the end of the earlier one have no position:
//!    the earlier audio wins.
//! 5. Telephone events (packets of no duration) are placed by their source's timestamps but place nothing themselves.
//!
//! A position is exact in its source: the difference of two is that of their timestamps, times 48000 over the clock rate, rounded once from
//! the segment's beginning, so rates that do not divide 48000 do not drift.
//!
//! # Clocks that differ
//!
//! A sender whose clock is 300 ppm off is a second away from the other track after an hour. How the least delays of its packets rise
//! or fall tells by how much (`drift.rs`), and where that is more than ordinary clocks and jitter make, the positions of the segment
//! follow our clock, in steps of [`STEP_TICKS`]: one sample of telephone audio more or less every now and then, which is what
//! the renderer makes of it, so that nobody hears it and no word is cut. Below that, positions stay exact, and so do the samples.
//!
//! Sender reports of sources that share a clock tell which path is the longer, and the segments on it begin earlier by the
//! difference (`reports.rs`). Without reports, or with such that cannot be true, arrival alone decides.

mod drift;
mod reports;
mod segment;

use std::collections::BTreeMap;

use crate::TICKS_PER_SECOND;
use segment::{Segment, Source};

/// By how much timestamps may depart from arrival before they are taken to have stopped or leapt: more than jitter in a usable call, in nanoseconds.
pub const DEPARTURE_NS: u64 = 250_000_000;
/// Beginnings of segments are multiples of this: 10 ms, the shortest usual packet.
pub const GRID_TICKS: u64 = TICKS_PER_SECOND / 100;
/// A segment beginning so near the end of the one before, 20 ms, continues it.
pub const JOIN_TICKS: u64 = TICKS_PER_SECOND / 50;
/// A segment overlapping the one before by so much, 100 ms, is moved to its end.
pub const MOVE_TICKS: u64 = TICKS_PER_SECOND / 10;
/// Positions that are corrected for a drifting clock move by this at a time, 125 µs. The renderer takes packets up to 1 ms off their
/// predecessor's end for its continuation, and repeats or leaves out samples.
pub const STEP_TICKS: u64 = TICKS_PER_SECOND / 8_000;
/// Segments of a recording at most. Thousands are the work of a broken sender; packets beyond have no position.
pub const SEGMENTS_MAX: usize = 1 << 16;
/// Holes listed of a recording at most: one packet in ten of two hours. Further ones are there but not listed.
pub const HOLES_MAX: usize = 1 << 16;

/// What alignment needs to know of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketHeader {
    /// The track.
    pub track: u8,
    /// The source's number in the track; over all the lanes of a recording, each source needs a number of its own.
    pub source: u8,
    /// Extended sequence number.
    pub seq: u32,
    /// RTP timestamp as sent.
    pub timestamp: u32,
    /// Arrival, in nanoseconds of a clock that does not go back.
    pub arrival_ns: u64,
    /// Units of the timestamp in a second. Packets with 0 have no position.
    pub clock_rate: u32,
    /// Duration of the payload in units of the timestamp; 0 for telephone events, none where the payload does not tell.
    pub duration_ticks: Option<u32>,
}

/// Sender reports of a recording that are looked at, at most: those of two tracks for 17 hours.
pub const REPORTS_MAX: usize = 4_096;

/// What alignment needs to know of a sender report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportHeader {
    /// The track.
    pub track: u8,
    /// The source's number, as in [`PacketHeader`].
    pub source: u8,
    /// Wall clock of the sender in NTP format, 0 when it has none.
    pub ntp: u64,
    /// The same moment in its RTP timestamps.
    pub timestamp: u32,
    /// Arrival of the report, on the clock of the packets' arrivals.
    pub arrival_ns: u64,
    /// Which clock that is: sources with the same number share it; 0 is known to be shared with nobody.
    pub clock: u64,
}

/// The first pass.
#[derive(Debug, Default)]
pub struct Timeline {
    sources: BTreeMap<(u8, u8), Source>,
    reports: Vec<ReportHeader>,
    room: Room,
    unplaced: u64,
}

/// What is left of the limits.
#[derive(Debug)]
struct Room {
    segments: usize,
    holes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { segments: SEGMENTS_MAX, holes: HOLES_MAX }
    }
}

impl Timeline {
    /// A timeline that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sees a packet. The packets of a source come in the order of arrival.
    pub fn observe(&mut self, packet: &PacketHeader) {
        let placed = packet.clock_rate > 0
            && self.sources.entry((packet.track, packet.source)).or_default().observe(packet, &mut self.room);
        self.unplaced += u64::from(!placed);
    }

    /// Sees a sender report; it need not be in order with the packets. Those beyond [`REPORTS_MAX`] are passed over.
    pub fn observe_report(&mut self, report: &ReportHeader) {
        if self.reports.len() < REPORTS_MAX {
            self.reports.push(*report);
        }
    }

    /// Aligns what was seen.
    pub fn finish(self) -> Alignment {
        let mut segments: Vec<(u8, u8, Segment)> = Vec::new();
        let mut skews: BTreeMap<u8, (i64, i32)> = BTreeMap::new();
        for ((track, source), seen) in self.sources {
            for mut segment in seen.into_segments() {
                if let Some(skew) = segment.settle() {
                    let known = skews.entry(track).or_insert(skew);
                    *known = if skew.0 > known.0 { skew } else { *known };
                }
                segments.push((track, source, segment));
            }
        }
        let shifts = reports::shifts(&segments, &self.reports);
        let starts =
            segments.iter().zip(shifts.earlier_ns).map(|((.., segment), earlier)| segment.start_ns() - earlier);
        let starts: Vec<i128> = starts.collect();
        let zero_ns = starts.iter().copied().min().unwrap_or(0);
        let mut segments: Vec<_> = segments.into_iter().zip(starts).collect();
        segments.sort_by_key(|((track, ..), start_ns)| (*track, *start_ns));
        let mut alignment = Alignment {
            unplaced: self.unplaced,
            start_ns: to_u64(zero_ns),
            skews: skews.into_iter().map(|(track, (_, ppm))| (track, ppm)).collect(),
            reports_ignored: shifts.ignored,
            ..Alignment::default()
        };
        for ((track, source, segment), start_ns) in segments {
            alignment.place(track, source, segment, on_grid(start_ns - zero_ns));
        }
        for segments in alignment.sources.values_mut() {
            segments.sort_by_key(|placed| placed.segment.first_seq());
        }
        alignment
    }
}

/// Where everything is.
#[derive(Debug, Default)]
pub struct Alignment {
    sources: BTreeMap<(u8, u8), Vec<Placed>>,
    tracks: BTreeMap<u8, Extent>,
    start_ns: u64,
    unplaced: u64,
    skews: BTreeMap<u8, i32>,
    reports_ignored: Vec<u8>,
}

/// A segment in its place.
#[derive(Debug)]
struct Placed {
    segment: Segment,
    /// Position of its first packet.
    start: u64,
    /// Where the track's audio from before it ends.
    not_before: u64,
}

/// What of the recording is filled by a track.
#[derive(Debug, Default)]
struct Extent {
    start: u64,
    end: u64,
    holes: Vec<(u64, u64)>,
}

impl Extent {
    /// Adds a hole after the others, or to the last of them.
    fn add_hole(&mut self, from: u64, to: u64) {
        match self.holes.last_mut() {
            _ if from >= to => {}
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => self.holes.push((from, to)),
        }
    }
}

impl Alignment {
    /// Position of a packet in ticks from the recording's start. None when the first pass found no place for it, or when earlier audio is there
    /// (see the module's fourth rule).
    pub fn position(&self, packet: &PacketHeader) -> Option<u64> {
        let segments = self.sources.get(&(packet.track, packet.source))?;
        let after = segments.partition_point(|placed| placed.segment.first_seq() <= packet.seq);
        let placed = segments.get(after.checked_sub(1)?)?;
        let ticks = placed.segment.ticks_of(packet)?;
        let position = placed.start.saturating_add(ticks);
        (position >= placed.not_before).then_some(position)
    }

    /// Stretches in which a track has no audio, between its first packet and the end of its last, as start and end in ticks,
    /// in order. At most [`HOLES_MAX`] of them are known inside segments.
    pub fn holes(&self, track: u8) -> Vec<(u64, u64)> {
        self.tracks.get(&track).map(|extent| extent.holes.clone()).unwrap_or_default()
    }

    /// Where a track's first packet begins and its last one ends, in ticks; none when it has no packets.
    pub fn extent(&self, track: u8) -> Option<(u64, u64)> {
        self.tracks.get(&track).map(|extent| (extent.start, extent.end))
    }

    /// Length of the recording: where the last packet of any track ends.
    pub fn total_ticks(&self) -> u64 {
        self.tracks.values().map(|extent| extent.end).max().unwrap_or(0)
    }

    /// When the recording started, which is position 0, on the clock of the arrival times; 0 when there are no packets.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// Packets of the first pass that have no position: no clock rate, a timestamp that fits nowhere, or more than [`SEGMENTS_MAX`] segments.
    pub fn unplaced(&self) -> u64 {
        self.unplaced
    }

    /// How fast the clock of a track's sender runs against ours, in millionths, negative when it is slow; none when no segment is
    /// long enough (five minutes) to tell. It is told whether or not it is corrected.
    pub fn clock_skew_ppm(&self, track: u8) -> Option<i32> {
        self.skews.get(&track).copied()
    }

    /// Whether a track's sender reports were not believed, because they fit neither its packets nor each other, or would have moved
    /// it further than delays differ.
    pub fn reports_ignored(&self, track: u8) -> bool {
        self.reports_ignored.contains(&track)
    }

    /// Places the next segment of a track, in the order of their beginnings, which should begin at `wanted`.
    fn place(&mut self, track: u8, source: u8, segment: Segment, wanted: u64) {
        let is_first = !self.tracks.contains_key(&track);
        let extent = self.tracks.entry(track).or_default();
        if is_first {
            (extent.start, extent.end) = (wanted, wanted);
        }
        let not_before = extent.end;
        let joins = wanted <= not_before.saturating_add(JOIN_TICKS) && wanted.saturating_add(MOVE_TICKS) >= not_before;
        let start = if joins { not_before } else { wanted };
        extent.add_hole(not_before, start);
        for (from, to) in segment.holes() {
            extent.add_hole(start.saturating_add(from).max(not_before), start.saturating_add(to));
        }
        extent.end = not_before.max(start.saturating_add(segment.length_ticks()));
        self.sources.entry((track, source)).or_default().push(Placed { segment, start, not_before });
    }
}

/// The multiple of [`GRID_TICKS`] nearest to a time, in ticks.
fn on_grid(ns: i128) -> u64 {
    let (grid, second) = (i128::from(GRID_TICKS), i128::from(segment::NS_PER_SECOND));
    let units = (ns * i128::from(TICKS_PER_SECOND) + grid * second / 2).div_euclid(grid * second);
    to_u64(units * grid)
}

fn to_u64(value: i128) -> u64 {
    u64::try_from(value.max(0)).unwrap_or(u64::MAX)
}

//! Telephone events (RFC 4733): from the packets that tell of a key again and again to the one fact that it was pressed.

use std::fmt;

use crate::Kept;

/// An event of which nothing came for so long is over, although its end was never told: updates come every 50 ms or more often (RFC 4733
/// section 2.5.1.1).
pub const TONE_SILENCE_NS: u64 = 1_000_000_000;

/// Bytes of one event in a payload (RFC 4733 section 2.3).
const EVENT_BYTES: usize = 4;
/// A segment of an event longer than this is followed by another of the same event (section 2.5.1.3); the duration's field has 16 bits.
const SEGMENT_TICKS_MIN: u32 = 0x8000;
const SEGMENT_TICKS_MAX: u32 = 0xffff;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// A telephone event that is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tone {
    /// When it began, on the clock of the arrivals.
    pub at_ns: u64,
    /// Its number, 0 to 255: keys are 0 to 15.
    pub event: u8,
    /// How long it lasted, in milliseconds.
    pub duration_ms: u64,
}

impl fmt::Debug for Tone {
    /// Leaves out which key it was.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_ns, duration_ms, .. } = self;
        out.debug_struct("Tone").field("at_ns", at_ns).field("duration_ms", duration_ms).finish_non_exhaustive()
    }
}

/// The telephone events of one track.
#[derive(Default)]
pub struct Tones {
    /// The last event, which may be over.
    last: Option<Last>,
}

struct Last {
    source: u8,
    event: u8,
    /// Of the segment that lasts.
    timestamp: u32,
    clock_rate: u32,
    at_ns: u64,
    heard_ns: u64,
    /// Of the segments before.
    before_ticks: u64,
    ticks: u32,
    told: bool,
}

/// One event as a packet tells of it.
#[derive(Clone, Copy)]
struct Report {
    arrival_ns: u64,
    source: u8,
    clock_rate: u32,
    timestamp: u32,
    event: u8,
    is_end: bool,
    ticks: u32,
}

impl Tones {
    /// Takes a packet of telephone events, and gives each event that is over by it to `tell`, once. Packets of another kind, and what
    /// is no event, are passed over.
    pub fn take(&mut self, arrival_ns: u64, kept: &Kept, payload: &[u8], mut tell: impl FnMut(Tone)) {
        let Some(clock_rate) = kept.event_clock_rate else { return };
        let mut timestamp = kept.timestamp;
        for bytes in payload.chunks_exact(EVENT_BYTES) {
            let ticks = u32::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            let is_end = bytes[1] & 0x80 != 0;
            let source = kept.source;
            self.report(
                Report { arrival_ns, source, clock_rate, timestamp, event: bytes[0], is_end, ticks },
                &mut tell,
            );
            // Several in one packet follow each other (section 2.5.1.5).
            timestamp = timestamp.wrapping_add(ticks);
        }
    }

    /// Gives the event of which nothing came for [`TONE_SILENCE_NS`], if there is one.
    pub fn expire(&mut self, now_ns: u64) -> Option<Tone> {
        let last = self.last.as_mut()?;
        (now_ns.saturating_sub(last.heard_ns) >= TONE_SILENCE_NS).then(|| last.tell())?
    }

    /// Gives the event that had no end. Nothing more will come.
    pub fn finish(&mut self) -> Option<Tone> {
        self.last.as_mut()?.tell()
    }

    fn report(&mut self, report: Report, tell: &mut impl FnMut(Tone)) {
        match &mut self.last {
            Some(last) if last.is_same(&report) => last.add(report),
            Some(last) if last.is_later_than(&report) => return,
            last => {
                let before = last.replace(Last::new(report));
                if let Some(tone) = before.and_then(|mut before| before.tell()) {
                    tell(tone);
                }
            }
        }
        if report.is_end
            && let Some(tone) = self.finish()
        {
            tell(tone);
        }
    }
}

impl Last {
    fn new(report: Report) -> Self {
        let Report { arrival_ns, source, clock_rate, timestamp, event, ticks, .. } = report;
        let elapsed_ns = u64::from(ticks) * NS_PER_SECOND / u64::from(clock_rate.max(1));
        let at_ns = arrival_ns.saturating_sub(elapsed_ns);
        Self { source, event, timestamp, clock_rate, at_ns, heard_ns: arrival_ns, before_ticks: 0, ticks, told: false }
    }

    /// Whether a report is of this event: again, or of its next segment.
    fn is_same(&self, report: &Report) -> bool {
        let ahead = report.timestamp.wrapping_sub(self.timestamp);
        let goes_on = !self.told && report.arrival_ns.saturating_sub(self.heard_ns) < TONE_SILENCE_NS;
        let is_segment = goes_on && (SEGMENT_TICKS_MIN..=SEGMENT_TICKS_MAX).contains(&ahead);
        (self.source, self.event) == (report.source, report.event) && (ahead == 0 || is_segment)
    }

    /// Whether a report is of an event before this one.
    fn is_later_than(&self, report: &Report) -> bool {
        let ahead = report.timestamp.wrapping_sub(self.timestamp) as i32;
        self.source == report.source && ahead < 0
    }

    fn add(&mut self, report: Report) {
        let ahead = report.timestamp.wrapping_sub(self.timestamp);
        if ahead > 0 {
            self.before_ticks += u64::from(ahead);
            (self.timestamp, self.ticks) = (report.timestamp, 0);
        }
        self.ticks = self.ticks.max(report.ticks);
        self.heard_ns = self.heard_ns.max(report.arrival_ns);
    }

    fn tell(&mut self) -> Option<Tone> {
        let was_told = std::mem::replace(&mut self.told, true);
        let ticks = self.before_ticks.saturating_add(self.ticks.into());
        let duration_ms = ticks.saturating_mul(1_000) / u64::from(self.clock_rate.max(1));
        (!was_told).then_some(Tone { at_ns: self.at_ns, event: self.event, duration_ms })
    }
}

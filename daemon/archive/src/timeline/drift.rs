//! What a source's clock gains or loses against ours, from the delays of its packets.
//!
//! A packet's offset (arrival less media time) is a constant, plus its delay on the path, plus what the clocks have moved apart
//! since the beginning. Of the delay nothing is known but that it is never below the path's own; so of each window of
//! [`WINDOW_NS`] the smallest offset is kept, and how these *least offsets* rise or fall over minutes is the skew. It is the
//! median of the slopes between windows that are some way apart: bursts of jitter and a path that becomes longer or shorter
//! for good are outliers among the slopes, and move the median by little.

/// Length of a window: dozens of packets even of a sender that is silent half the time, and so short that the clocks move apart by
/// next to nothing in it.
const WINDOW_NS: i64 = 5_000_000_000;
/// Windows of a segment at most: three hours. Then two are made one, so that a call of days costs no more.
const WINDOWS_MAX: usize = 2_048;
/// Below so many windows, and so much time, nothing can be known; nor is it needed, for at 300 ppm the clocks are 18 ms apart by then.
const WINDOWS_MIN: usize = 12;
const SPAN_NS_MIN: i64 = 55_000_000_000;
/// A skew is worked out for so many windows (10 minutes) from those and as many on either side, because clocks change with their
/// temperature and some are steered.
const BLOCK_WINDOWS: usize = 120;
/// Skews beyond this (0.5 %) are no clocks'. So are 6 ticks, the smallest step, in a packet of 20 ms.
const SKEW_PPB_MAX: i128 = 5_000_000;
/// A skew up to this (25 ppm) is left alone until it has added up to [`DRIFT_LEFT_NS_MAX`]: what clocks of ordinary telephones have,
/// and little enough that samples had better stay as they came.
const SKEW_LEFT_PPM: i64 = 25;
/// So much drift is left alone in any case: 20 ms, which jitter can feign.
const DRIFT_LEFT_NS_MIN: i64 = 20_000_000;
/// And so much in none: a tenth of a second is where two voices begin to be out of turn.
const DRIFT_LEFT_NS_MAX: i64 = 100_000_000;
/// A figure is told when it comes from so long a time: in five minutes, 3 ms of jitter that is left are 10 ppm.
const TOLD_NS_MIN: i64 = 300_000_000_000;
const PPB: i128 = 1_000_000_000;

/// The packet of a window that was delayed least.
#[derive(Debug, Clone, Copy)]
struct Least {
    /// Its media time.
    at_ns: i64,
    offset: i128,
}

/// The least offsets of a segment.
#[derive(Debug)]
pub(super) struct LeastOffsets {
    windows: Vec<Least>,
    width_ns: i64,
}

impl Default for LeastOffsets {
    fn default() -> Self {
        Self { windows: Vec::new(), width_ns: WINDOW_NS }
    }
}

impl LeastOffsets {
    /// Sees a packet; those of windows that are over are passed over.
    pub(super) fn add(&mut self, at_ns: i128, offset: i128) {
        let at_ns = clamped(at_ns);
        let least = Least { at_ns, offset };
        let number = at_ns.div_euclid(self.width_ns);
        match self.windows.last_mut() {
            None => self.windows.push(least),
            Some(last) => match number.cmp(&last.at_ns.div_euclid(self.width_ns)) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal if offset < last.offset => *last = least,
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => self.windows.push(least),
            },
        }
        if self.windows.len() > WINDOWS_MAX {
            self.widen();
        }
    }

    /// Sees all that another has seen, whose media time has the same origin and is later.
    pub(super) fn append(&mut self, later: &Self) {
        later.windows.iter().for_each(|least| self.add(least.at_ns.into(), least.offset));
    }

    /// Makes two windows one.
    fn widen(&mut self) {
        self.width_ns = self.width_ns.saturating_mul(2);
        let all = std::mem::take(&mut self.windows);
        all.into_iter().for_each(|least| self.add(least.at_ns.into(), least.offset));
    }

    /// The drift from the first packet on; none where too little was seen.
    pub(super) fn drift(&self) -> Option<Drift> {
        let (first, last) = (self.windows.first()?, self.windows.last()?);
        let mut pieces: Vec<Piece> = Vec::new();
        // What is left at the end and is no whole block belongs to the last one.
        let blocks = (self.windows.len() / BLOCK_WINDOWS).max(1);
        for block in 0..blocks {
            let from = (block * BLOCK_WINDOWS).saturating_sub(BLOCK_WINDOWS);
            let is_last = block + 1 == blocks;
            let to = if is_last { self.windows.len() } else { (block + 2) * BLOCK_WINDOWS };
            let ppb = slope_ppb(&self.windows[from..to.min(self.windows.len())])?;
            let from_ns = self.windows[block * BLOCK_WINDOWS].at_ns;
            let drift_ns = pieces.last().map_or(0, |before| before.at(from_ns));
            pieces.push(Piece { from_ns, drift_ns, ppb });
        }
        Some(Drift { pieces, first_ns: first.at_ns, last_ns: last.at_ns })
    }

    /// The smallest offset of all, without the drift.
    pub(super) fn least_without(&self, drift: &Drift) -> Option<i128> {
        self.windows.iter().map(|least| least.offset - i128::from(drift.at(least.at_ns.into()))).min()
    }
}

/// The median slope between windows that are an eighth to a quarter of the whole apart: a single change of the path's delay then is in
/// less than a third of them.
fn slope_ppb(windows: &[Least]) -> Option<i64> {
    let span_ns = windows.last()?.at_ns.saturating_sub(windows.first()?.at_ns);
    if windows.len() < WINDOWS_MIN || span_ns < SPAN_NS_MIN {
        return None;
    }
    let lags = windows.len() / 8..=windows.len() / 4;
    let mut slopes: Vec<i64> = lags
        .flat_map(|lag| windows.iter().zip(&windows[lag..]))
        .filter(|(one, other)| other.at_ns > one.at_ns)
        .map(|(one, other)| {
            let apart_ns = i128::from(other.at_ns) - i128::from(one.at_ns);
            clamped(((other.offset - one.offset) * PPB / apart_ns).clamp(-SKEW_PPB_MAX, SKEW_PPB_MAX))
        })
        .collect();
    let middle = slopes.len() / 2;
    (!slopes.is_empty()).then(|| *slopes.select_nth_unstable(middle).1)
}

/// A stretch with one skew.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from_ns: i64,
    /// The drift at its beginning.
    drift_ns: i64,
    ppb: i64,
}

impl Piece {
    fn at(&self, at_ns: i64) -> i64 {
        let later_ns = i128::from(at_ns) - i128::from(self.from_ns);
        self.drift_ns.saturating_add(clamped(later_ns * i128::from(self.ppb) / PPB))
    }
}

/// By how much a source's clock has fallen behind ours, over its media time.
#[derive(Debug)]
pub(super) struct Drift {
    pieces: Vec<Piece>,
    first_ns: i64,
    last_ns: i64,
}

impl Drift {
    /// The drift at a media time, in nanoseconds: positive when the source's clock is slow. 0 at the first packet.
    pub(super) fn at(&self, at_ns: i128) -> i64 {
        let at_ns = clamped(at_ns);
        let after = self.pieces.partition_point(|piece| piece.from_ns <= at_ns);
        self.pieces.get(after.saturating_sub(1)).map_or(0, |piece| piece.at(at_ns))
    }

    /// Whether it is to be corrected: it is more than what ordinary clocks and jitter make.
    pub(super) fn matters(&self) -> bool {
        let ends = self.pieces.iter().map(|piece| piece.drift_ns).chain([self.at(self.last_ns.into())]);
        let most_ns = ends.map(i64::saturating_abs).max().unwrap_or(0);
        let left_ns = (self.span_ns() / 1_000_000).saturating_mul(SKEW_LEFT_PPM);
        most_ns > left_ns.clamp(DRIFT_LEFT_NS_MIN, DRIFT_LEFT_NS_MAX)
    }

    /// How fast the source's clock runs against ours, in millionths, negative when it is slow, and over how many nanoseconds that was seen;
    /// none when those are too few.
    pub(super) fn skew_ppm(&self) -> Option<(i64, i32)> {
        let span_ns = self.span_ns();
        let ppm = -i128::from(self.at(self.last_ns.into())) * 1_000_000 / i128::from(span_ns.max(1));
        (span_ns >= TOLD_NS_MIN).then(|| (span_ns, i32::try_from(ppm).unwrap_or(0)))
    }

    fn span_ns(&self) -> i64 {
        self.last_ns.saturating_sub(self.first_ns)
    }
}

fn clamped(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

//! Whether the wall clock can be believed: it decides what goes for ever.
//!
//! It is compared with the clock that never jumps. Between two runs since the same start of the machine both have to have advanced by
//! the same, give or take [`STEP_MS_MAX`]. The machine's own start separates them; then nothing says for how long it was off, and
//! up to [`OFF_DAYS_MAX`] days are believed. A clock that was not believed is measured against the last one that was, so one that is
//! put right again is believed again by itself.

use jiff::Timestamp;

/// Most milliseconds by which the wall clock may be put forward or back between two runs: ten minutes, far more than what keeps it
/// right ever does, and nothing to a period of retention.
pub const STEP_MS_MAX: i64 = 10 * 60 * 1_000;

/// Most days for which a machine may have been off without a question: a week covers a fault and its repair.
pub const OFF_DAYS_MAX: i64 = 7;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock.
    pub wall: Timestamp,
    /// Milliseconds of the clock that does not jump, since the machine's start.
    pub boot_ms: i64,
    /// Names that start.
    pub boot: u128,
}

/// What is thought of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockFinding {
    /// It can be believed.
    Steady,
    /// It is so many milliseconds ahead of (or, negative, behind) where it should be.
    Jumped {
        /// By how much.
        by_ms: i64,
    },
    /// The machine was off for longer than is believed without a question, or its clock is wrong.
    LongOff {
        /// For so many milliseconds, by the wall clock.
        for_ms: i64,
    },
    /// A recording ended later than the clock says it is now.
    BehindRecordings {
        /// By so many milliseconds.
        by_ms: i64,
    },
}

/// Whether `now` can be believed, given the last reading that was and the end of the newest recording.
pub fn clock(last: Option<&ClockReading>, newest: Option<Timestamp>, now: &ClockReading) -> ClockFinding {
    let ms = |at: Timestamp| at.as_millisecond();
    let Some(last) = last else {
        // Nothing to compare with but what was recorded.
        let by_ms = newest.map_or(0, |newest| ms(newest).saturating_sub(ms(now.wall)));
        return if by_ms > STEP_MS_MAX { ClockFinding::BehindRecordings { by_ms } } else { ClockFinding::Steady };
    };
    let wall_ms = ms(now.wall).saturating_sub(ms(last.wall));
    if last.boot == now.boot && now.boot_ms >= last.boot_ms {
        let by_ms = wall_ms.saturating_sub(now.boot_ms.saturating_sub(last.boot_ms));
        return if by_ms.abs() > STEP_MS_MAX { ClockFinding::Jumped { by_ms } } else { ClockFinding::Steady };
    }
    // It cannot have been off for less than it has been on since.
    let on_ms = now.boot_ms.max(0);
    let ahead_ms = wall_ms.saturating_sub(on_ms);
    if ahead_ms < -STEP_MS_MAX {
        ClockFinding::Jumped { by_ms: ahead_ms }
    } else if ahead_ms > OFF_DAYS_MAX * 86_400_000 {
        ClockFinding::LongOff { for_ms: ahead_ms }
    } else {
        ClockFinding::Steady
    }
}

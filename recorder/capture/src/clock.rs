//! The two clocks, read here and nowhere else in the recorder.
//!
//! Journal time is `CLOCK_BOOTTIME`: it never jumps, runs on while the machine sleeps, and is the same for every process
//! until the machine boots again. The wall clock is for people only; nothing is ordered or measured by it.

use nix::time::{ClockId, clock_gettime};

/// Two readings further apart than this are not of one moment. Reading takes some tens of nanoseconds.
const APART_NS_MAX: u64 = 20_000;

/// On a machine that is so busy that this many attempts fail, the last will do.
const READINGS_MAX: u32 = 8;

/// Journal time now, in nanoseconds.
#[must_use]
pub(crate) fn journal_ns() -> u64 {
    u64::try_from(read(ClockId::CLOCK_BOOTTIME)).unwrap_or(0)
}

/// Wall clock now, in nanoseconds since the Unix epoch.
#[must_use]
pub(crate) fn wall_ns() -> i64 {
    read(ClockId::CLOCK_REALTIME)
}

fn read(clock: ClockId) -> i64 {
    #[cfg(feature = "simulation")]
    if let Some(ns) = crate::simulated::clock_ns(clock == ClockId::CLOCK_REALTIME) {
        return ns;
    }
    // Linux has had both clocks since 2.6.39; a failure is impossible with valid arguments, and 0 is harmless.
    clock_gettime(clock).map_or(0, |t| t.tv_sec().saturating_mul(1_000_000_000).saturating_add(t.tv_nsec()))
}

/// Turns the kernel's receive timestamps (wall clock) into journal time, so that a step of the wall clock moves nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArrivalClock {
    now_ns: u64,
    wall_to_journal_ns: i64,
}

impl ArrivalClock {
    /// Reads both clocks at one moment, as nearly as can be: when this thread was put aside between the two readings it reads again,
    /// or packets would seem to have arrived that much earlier.
    pub(crate) fn read() -> Self {
        let mut clock = Self::at(journal_ns(), wall_ns());
        for _ in 0..READINGS_MAX {
            if journal_ns().saturating_sub(clock.now_ns) <= APART_NS_MAX {
                break;
            }
            clock = Self::at(journal_ns(), wall_ns());
        }
        clock
    }

    fn at(now_ns: u64, wall_ns: i64) -> Self {
        let now = i64::try_from(now_ns).unwrap_or(i64::MAX);
        Self { now_ns, wall_to_journal_ns: now.saturating_sub(wall_ns) }
    }

    /// Journal time of this reading.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Journal time of a datagram that the kernel stamped `stamp_ns` (wall clock). It lies between `not_before_ns`, when the
    /// socket was last found empty, and now, whatever the stamp says: so an error from a clock that stepped in between is
    /// at most one sweep.
    pub(crate) fn arrival_ns(&self, stamp_ns: Option<i64>, not_before_ns: u64) -> u64 {
        let stamped = stamp_ns
            // Before the machine was started: the wall clock was set meanwhile.
            .map_or(self.now_ns, |stamp| u64::try_from(stamp.saturating_add(self.wall_to_journal_ns)).unwrap_or(0));
        stamped.max(not_before_ns).min(self.now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::ArrivalClock;

    #[test]
    fn arrivals_stay_inside_the_sweep_whatever_the_wall_clock_does() {
        fn check(stamp_ns: Option<i64>, expected: u64) {
            let clock = ArrivalClock::at(1_000_000, 5_000_000);
            assert_eq!(clock.arrival_ns(stamp_ns, 900_000), expected);
        }
        check(Some(4_950_000), 950_000);
        check(None, 1_000_000);
        check(Some(9_000_000_000), 1_000_000);
        check(Some(1), 900_000);
        check(Some(i64::MIN), 900_000);
        check(Some(i64::MAX), 1_000_000);
    }
}

//! The two clocks, read here and nowhere else in the recorder.
//!
//! Journal time is `CLOCK_BOOTTIME`: it never jumps, runs on while the machine sleeps, and is the same for every process
//! until the machine boots again. The wall clock is for people only; nothing is ordered or measured by it.

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Two readings further apart than this are not of one moment. Reading takes some tens of nanoseconds.
const APART_NS_MAX: u64 = 20_000;

/// A datagram that comes while its socket is being read is stamped later than the clocks were read.
const LATER_NS_MAX: u64 = 100_000_000;

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

/// How the clocks stood when a socket was last found empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Emptied {
    /// Journal time.
    pub(crate) at_ns: u64,
    wall_to_journal_ns: i64,
}

/// When a datagram came, in journal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) at_ns: u64,
    /// Not before this. It is the same where the time is known.
    pub(crate) earliest_ns: u64,
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

    /// The clock of a moment at which the clocks showed this.
    pub(crate) fn at(now_ns: u64, wall_ns: i64) -> Self {
        let now = i64::try_from(now_ns).unwrap_or(i64::MAX);
        Self { now_ns, wall_to_journal_ns: now.saturating_sub(wall_ns) }
    }

    /// Journal time of this reading.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// What is to be remembered of a socket that is empty now.
    pub(crate) fn emptied(&self) -> Emptied {
        self.emptied_at(self.now_ns)
    }

    /// The same of one that was empty at another time, since which the wall clock is believed not to have been set.
    pub(crate) fn emptied_at(&self, at_ns: u64) -> Emptied {
        Emptied { at_ns, wall_to_journal_ns: self.wall_to_journal_ns }
    }

    /// When a datagram came that the kernel stamped `stamp_ns` (wall clock), to a socket that was last found empty at `since`. When the wall
    /// clock was set since then, the stamp is by how it stood before or by how it stands now, and mostly only one of them can be true.
    /// When neither can, it was set more than once, and nothing is known but that it came since then.
    pub(crate) fn came(&self, stamp_ns: Option<i64>, since: &Emptied) -> Came {
        let bound = |at_ns: u64| at_ns.max(since.at_ns).min(self.now_ns);
        let Some(stamp_ns) = stamp_ns else { return Came { at_ns: self.now_ns, earliest_ns: since.at_ns } };
        let possible = since.at_ns.saturating_sub(LATER_NS_MAX)..=self.now_ns.saturating_add(LATER_NS_MAX);
        // Before the machine was started: the wall clock was set meanwhile.
        let by = |offset_ns: i64| u64::try_from(stamp_ns.saturating_add(offset_ns)).unwrap_or(0);
        let stood = [self.wall_to_journal_ns, since.wall_to_journal_ns];
        match stood.into_iter().map(by).find(|at_ns| possible.contains(at_ns)) {
            Some(at_ns) => Came { at_ns: bound(at_ns), earliest_ns: bound(at_ns) },
            None => Came { at_ns: bound(by(self.wall_to_journal_ns)), earliest_ns: since.at_ns },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ArrivalClock, Came};

    const S: i64 = 1_000_000_000;

    /// The socket was found empty at 10 s and read at 20 s; the wall clock showed these seconds then.
    fn check(wall: (i64, i64), stamp_ns: Option<i64>, expected: (i64, i64)) {
        let since = ArrivalClock::at(10_000_000_000, wall.0 * S).emptied();
        let came = ArrivalClock::at(20_000_000_000, wall.1 * S).came(stamp_ns, &since);
        let expected = [expected.0, expected.1].map(|ns| u64::try_from(ns).unwrap());
        assert_eq!(came, Came { at_ns: expected[0], earliest_ns: expected[1] }, "{wall:?} {stamp_ns:?}");
    }

    #[test]
    fn a_stamp_is_understood_by_how_the_wall_clock_stood() {
        check((1_010, 1_020), Some(1_015 * S), (15 * S, 15 * S));
        // While the socket is being read, or a moment before it was found empty.
        check((1_010, 1_020), Some(1_020 * S + 50_000_000), (20 * S, 20 * S));
        check((1_010, 1_020), Some(1_010 * S - 1), (10 * S, 10 * S));
        // It was set an hour forwards, or back, before the packet or after it.
        check((1_010, 4_620), Some(1_012 * S), (12 * S, 12 * S));
        check((1_010, 4_620), Some(4_617 * S), (17 * S, 17 * S));
        check((5_010, 1_420), Some(5_012 * S), (12 * S, 12 * S));
        check((5_010, 1_420), Some(1_417 * S), (17 * S, 17 * S));
    }

    #[test]
    fn what_cannot_be_known_is_since_the_socket_was_empty() {
        check((1_010, 1_020), None, (20 * S, 10 * S));
        check((1_010, 1_020), Some(9_000 * S), (20 * S, 10 * S));
        check((1_010, 1_020), Some(1), (10 * S, 10 * S));
        check((1_010, 1_020), Some(i64::MIN), (10 * S, 10 * S));
        check((1_010, 1_020), Some(i64::MAX), (20 * S, 10 * S));
    }
}

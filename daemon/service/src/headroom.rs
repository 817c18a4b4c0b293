//! For how long the journal's disk lasts: the room above the floor by the rate at which it fills. Pure; the time is an argument.
//!
//! While archives are made, journal files go as others come, and what counts is how the free space shrinks over the last hour. While
//! they are not, because the store is away, nothing goes, and what counts is all that was written in that hour: that is how long the
//! store may stay away.

use std::collections::VecDeque;
use std::time::Duration;

/// The rate is that of so long a time.
const WINDOW: Duration = Duration::from_secs(3_600);

/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(60);

/// From so short a time on there is a rate at all.
const OBSERVED_MIN: Duration = Duration::from_secs(60);

/// With less than this left somebody has to look at it today.
const LOW: Duration = Duration::from_secs(24 * 3_600);

/// With less than this left somebody has to look at it now.
const VERY_LOW: Duration = Duration::from_secs(4 * 3_600);

/// The disk at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When, by a clock that does not jump.
    pub(crate) at: Duration,
    /// Free bytes on it.
    pub(crate) free_bytes: u64,
    /// Bytes appended to the journal since the daemon's start.
    pub(crate) appended_bytes: u64,
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// A day or more, or it does not fill.
    Enough,
    /// Less than a day.
    Low,
    /// Less than four hours.
    VeryLow,
    /// New calls are refused.
    None,
}

/// The room above the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Headroom {
    /// Bytes above the floor.
    pub(crate) bytes: u64,
    /// Bytes a second at which the disk fills; None while it was not observed for long enough.
    pub(crate) filling_bytes_per_s: Option<u64>,
    /// How long that lasts; None where it does not fill.
    pub(crate) lasts: Option<Duration>,
    /// What to think of it.
    pub(crate) room: Room,
}

/// The samples of the last hour.
#[derive(Debug, Default)]
pub(crate) struct Samples(VecDeque<Sample>);

impl Samples {
    /// Takes a sample, when it is time for one.
    pub(crate) fn take(&mut self, sample: Sample) {
        if self.0.back().is_some_and(|last| sample.at < last.at + SAMPLE_EVERY) {
            return;
        }
        self.0.push_back(sample);
        // The one at the edge of the window or just before it stays, so that the rate is that of a whole hour.
        while self.0.get(1).is_some_and(|next| next.at + WINDOW <= sample.at) {
            self.0.pop_front();
        }
    }

    /// How long the disk lasts. `drains` says whether journal files go.
    pub(crate) fn headroom(&self, now: Sample, floor_bytes: u64, drains: bool) -> Headroom {
        let bytes = now.free_bytes.saturating_sub(floor_bytes);
        let filling = self.0.front().and_then(|first| filling(*first, now, drains));
        let lasts = filling.filter(|rate| *rate > 0).map(|rate| Duration::from_secs(bytes / rate));
        let room = match lasts {
            _ if now.free_bytes < floor_bytes => Room::None,
            Some(left) if left < VERY_LOW => Room::VeryLow,
            Some(left) if left < LOW => Room::Low,
            _ => Room::Enough,
        };
        Headroom { bytes, filling_bytes_per_s: filling, lasts, room }
    }
}

/// Bytes a second at which the disk filled between two samples.
fn filling(first: Sample, now: Sample, drains: bool) -> Option<u64> {
    let observed = now.at.checked_sub(first.at).filter(|observed| *observed >= OBSERVED_MIN)?;
    let shrunk = first.free_bytes.saturating_sub(now.free_bytes);
    let written = now.appended_bytes.saturating_sub(first.appended_bytes);
    let bytes = if drains { shrunk } else { shrunk.max(written) };
    Some(bytes / observed.as_secs().max(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Headroom, Room, Sample, Samples};

    const MIB: u64 = 1 << 20;
    const FLOOR: u64 = 1_024 * MIB;

    fn at(minutes: u64, free_bytes: u64, appended_bytes: u64) -> Sample {
        Sample { at: Duration::from_secs(minutes * 60), free_bytes, appended_bytes }
    }

    /// The disk fills by so many MiB a minute, and as much more is written and goes again.
    fn after(minutes: u64, free_mib: u64, shrinks_mib: u64, drained_mib: u64, drains: bool) -> Headroom {
        let mut samples = Samples::default();
        let sample = |minute| {
            at(minute, (free_mib + shrinks_mib * (minutes - minute)) * MIB, (shrinks_mib + drained_mib) * minute * MIB)
        };
        (0..minutes).for_each(|minute| samples.take(sample(minute)));
        samples.headroom(sample(minutes), FLOOR, drains)
    }

    fn check(found: Headroom, lasts_minutes: Option<u64>, room: Room) {
        let minutes = found.lasts.map(|left| (left.as_secs() + 30) / 60);
        assert_eq!((minutes, found.room), (lasts_minutes, room), "{found:?}");
    }

    #[test]
    fn the_room_above_the_floor_lasts_by_the_rate_of_the_last_hour() {
        check(after(90, 1_024 + 6_000, 10, 0, true), Some(600), Room::Low);
        check(after(90, 1_024 + 2_390, 10, 0, true), Some(239), Room::VeryLow);
        check(after(90, 1_024 + 14_410, 10, 0, true), Some(1_441), Room::Enough);
        check(after(5, 1_024 + 6_000, 10, 0, true), Some(600), Room::Low);
    }

    #[test]
    fn a_disk_that_is_emptied_as_it_fills_lasts_for_ever_unless_the_store_is_away() {
        check(after(90, 1_024 + 6_000, 0, 10, true), None, Room::Enough);
        check(after(90, 1_024 + 6_000, 0, 10, false), Some(600), Room::Low);
        check(after(90, 1_024 + 6_000, 5, 5, false), Some(600), Room::Low);
    }

    #[test]
    fn below_the_floor_there_is_none() {
        check(after(90, 1_023, 0, 0, true), None, Room::None);
        check(after(90, 1_023, 10, 0, true), Some(0), Room::None);
        assert_eq!(after(90, 1_023, 10, 0, true).bytes, 0);
    }

    #[test]
    fn nothing_is_said_before_there_is_something_to_say() {
        assert_eq!(after(0, 9_000, 10, 0, true).filling_bytes_per_s, None);
        let only = Samples::default().headroom(at(10, 9_000 * MIB, 0), FLOOR, false);
        assert_eq!((only.lasts, only.room), (None, Room::Enough));
    }

    #[test]
    fn what_is_older_than_an_hour_does_not_count() {
        let mut samples = Samples::default();
        // A bad hour, then one in which nothing happens.
        (0..60).for_each(|m| samples.take(at(m, (100_000 - m * 100) * MIB, m * 100 * MIB)));
        (60..=120).for_each(|m| samples.take(at(m, 94_000 * MIB, 6_000 * MIB)));
        let now = at(121, 94_000 * MIB, 6_000 * MIB);
        assert_eq!(samples.headroom(now, FLOOR, false).filling_bytes_per_s, Some(0));
        assert!(samples.0.len() <= 62, "{} samples", samples.0.len());
    }
}

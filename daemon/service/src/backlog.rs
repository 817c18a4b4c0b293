//! What is still to be archived, and how fast that goes: how many hours of calls wait, and when they will have been archived. The
//! deciding part is pure; the time is an argument.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use callvault_catalogue::ArchiveBacklog;

use crate::appliance::Appliance;
use crate::workers;

/// The speed is that of so long a time.
const WINDOW: Duration = Duration::from_secs(3_600);
/// Between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(60);
/// From so much work on there is a speed at all.
const WORKED_MIN: Duration = Duration::from_secs(1);
/// What waits is counted at most so often: with a hundred thousand that wait it takes a tenth of a second.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// What the workers have done.
#[derive(Debug, Default)]
pub(crate) struct Worked {
    since: Mutex<Option<Instant>>,
    /// Length of the calls that were archived, in milliseconds.
    archived_ms: AtomicU64,
    /// How long all workers together took for it, in milliseconds.
    work_ms: AtomicU64,
    samples: Mutex<Samples>,
    counted: Mutex<Option<(Instant, ArchiveBacklog)>>,
}

/// The work at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    at: Duration,
    archived_ms: u64,
    work_ms: u64,
}

/// The samples of the last hour.
#[derive(Debug, Default)]
struct Samples(VecDeque<Sample>);

/// What is known now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    pub(crate) backlog: ArchiveBacklog,
    /// Seconds of calls that are archived in a second while all workers work; None before any work was seen.
    pub(crate) speed: Option<f64>,
    /// How long what waits takes at that speed, in seconds.
    pub(crate) caught_up_in_s: Option<f64>,
}

impl Worked {
    /// A worker took so long for an archive, and made one of a call of this length.
    pub(crate) fn add(&self, call_ms: u64, took: Duration) {
        self.archived_ms.fetch_add(call_ms, Ordering::Relaxed);
        self.work_ms.fetch_add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Worked {
    /// What waits is counted with the next look.
    pub(crate) fn forget_count(&self) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Samples {
    fn take(&mut self, sample: Sample) {
        if self.0.back().is_some_and(|last| sample.at < last.at + SAMPLE_EVERY) {
            return;
        }
        self.0.push_back(sample);
        while self.0.get(1).is_some_and(|next| next.at + WINDOW <= sample.at) {
            self.0.pop_front();
        }
    }

    /// The speed since the oldest of them, of so many workers.
    fn speed(&self, now: Sample, workers: usize) -> Option<f64> {
        let first = self.0.front()?;
        let work = Duration::from_millis(now.work_ms.saturating_sub(first.work_ms));
        let archived_s = now.archived_ms.saturating_sub(first.archived_ms) as f64 / 1_000.0;
        (work >= WORKED_MIN).then(|| archived_s * workers as f64 / work.as_secs_f64())
    }
}

fn standing(backlog: ArchiveBacklog, speed: Option<f64>) -> Standing {
    let left_s = backlog.duration_ms as f64 / 1_000.0;
    let caught_up_in_s = match speed {
        _ if backlog.recordings == 0 => Some(0.0),
        Some(speed) if speed > 0.0 => Some(left_s / speed),
        _ => None,
    };
    Standing { backlog, speed, caught_up_in_s }
}

/// How far the archives are; None when the catalogue cannot be read. It observes the speed by being asked.
pub(crate) fn look(appliance: &Appliance) -> Option<Standing> {
    let worked = &appliance.worked;
    let since = *worked.since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
    let sample = Sample {
        at: since.elapsed(),
        archived_ms: worked.archived_ms.load(Ordering::Relaxed),
        work_ms: worked.work_ms.load(Ordering::Relaxed),
    };
    let speed = {
        let mut samples = worked.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.0.is_empty() {
            // Work that was done before anybody asked counts too.
            samples.take(Sample { archived_ms: 0, work_ms: 0, ..sample });
        }
        samples.take(sample);
        samples.speed(sample, workers::count(&appliance.config))
    };
    Some(standing(count(appliance)?, speed))
}

fn count(appliance: &Appliance) -> Option<ArchiveBacklog> {
    let lock = || appliance.worked.counted.lock().unwrap_or_else(PoisonError::into_inner);
    let known = *lock();
    if let Some((_, backlog)) = known.filter(|(at, _)| at.elapsed() < COUNT_EVERY) {
        return Some(backlog);
    }
    let backlog = appliance.catalogue.archive_backlog().ok()?;
    *lock() = Some((Instant::now(), backlog));
    Some(backlog)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use callvault_catalogue::ArchiveBacklog;

    use super::{Sample, Samples, standing};

    fn at(seconds: u64, archived_s: u64, work_ms: u64) -> Sample {
        Sample { at: Duration::from_secs(seconds), archived_ms: archived_s * 1_000, work_ms }
    }

    fn check(samples: &[Sample], workers: usize, speed: Option<f64>) {
        let mut kept = Samples::default();
        samples.iter().for_each(|sample| kept.take(*sample));
        assert_eq!(kept.speed(*samples.last().unwrap(), workers), speed, "{samples:?}");
    }

    #[test]
    fn speed_is_that_of_the_work_and_not_of_the_time_between() {
        check(&[at(0, 0, 0), at(600, 400, 2_000)], 1, Some(200.0));
        check(&[at(0, 0, 0), at(600, 400, 2_000)], 2, Some(400.0));
        check(&[at(0, 0, 0), at(600, 10, 999)], 1, None);
    }

    #[test]
    fn only_the_last_hour_counts() {
        check(&[at(0, 0, 0), at(3_600, 100, 10_000), at(7_200, 300, 11_000)], 1, Some(200.0));
    }

    #[test]
    fn what_waits_takes_as_long_as_the_speed_says() {
        let check = |recordings: u64, duration_ms: u64, speed: Option<f64>, in_s: Option<f64>| {
            let found = standing(ArchiveBacklog { recordings, duration_ms }, speed);
            assert_eq!(found.caught_up_in_s, in_s);
        };
        check(10, 7_200_000, Some(200.0), Some(36.0));
        check(10, 7_200_000, None, None);
        check(10, 7_200_000, Some(0.0), None);
        check(0, 0, None, Some(0.0));
    }
}

//! When it is time for the daily synchronisation.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// The last moment, not after `now`, at which it was time: at `at` of the day in `zone`, later by up to `jitter_ms`, which is another for each day
/// and each `seed`, and the same whenever it is asked. A time that a day does not have (clocks are put forward) is the next there is.
pub fn last_due(now: Timestamp, zone: &TimeZone, at: Time, jitter_ms: u64, seed: &str) -> Option<Timestamp> {
    let today = now.to_zoned(zone.clone()).date();
    let on = |days: i64| {
        let date = today.checked_sub(days.days()).ok()?;
        let mut hash = DefaultHasher::new();
        (seed, date.year(), date.month(), date.day()).hash(&mut hash);
        let late_ms = i64::try_from(hash.finish() % jitter_ms.saturating_add(1)).ok()?;
        let due = date.to_datetime(at).to_zoned(zone.clone()).ok()?.timestamp();
        due.checked_add(SignedDuration::from_millis(late_ms)).ok()
    };
    // The jitter may reach into the next day.
    (0..3).filter_map(on).find(|due| *due <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn it_is_time_once_a_day() {
        #[track_caller]
        fn check(now: &str, time: &str, expected: &str) {
            let zone = TimeZone::get("Europe/Rome").unwrap();
            let due = last_due(at(now), &zone, time.parse().unwrap(), 0, "x");
            assert_eq!(due, Some(at(expected)), "{now} {time}");
        }
        check("2026-11-23T02:30:00Z", "03:30", "2026-11-23T02:30:00Z");
        check("2026-11-23T02:29:59Z", "03:30", "2026-11-22T02:30:00Z");
        check("2026-11-23T22:30:00Z", "00:10", "2026-11-22T23:10:00Z");
        check("2026-11-23T23:30:00Z", "00:10", "2026-11-23T23:10:00Z");
        // The night in which half past two is not there, and the one in which it is twice.
        check("2026-03-29T12:00:00Z", "02:30", "2026-03-29T01:30:00Z");
        check("2026-10-25T12:00:00Z", "02:30", "2026-10-25T00:30:00Z");
    }

    #[test]
    fn the_jitter_is_within_its_bounds_and_another_each_day() {
        let zone = TimeZone::UTC;
        let late: Vec<i64> = (1..29)
            .map(|day| {
                let now = at(&format!("2026-02-{day:02}T12:00:00Z"));
                let due = last_due(now, &zone, Time::midnight(), 6 * 3_600_000, "x").unwrap();
                assert_eq!(last_due(now, &zone, Time::midnight(), 6 * 3_600_000, "x"), Some(due));
                due.as_millisecond().rem_euclid(86_400_000)
            })
            .collect();
        assert!(late.iter().all(|ms| *ms <= 6 * 3_600_000), "{late:?}");
        assert!(late.iter().collect::<std::collections::BTreeSet<_>>().len() > 20, "{late:?}");
    }

    #[test]
    fn one_that_reaches_into_the_next_day_is_found() {
        let late = last_due(at("2026-02-02T00:30:00Z"), &TimeZone::UTC, "23:59".parse().unwrap(), 0, "x");
        assert_eq!(late, Some(at("2026-02-01T23:59:00Z")));
    }
}

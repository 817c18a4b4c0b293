//! That the verdict of a soak can fail: what grows is told from what is flat.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // the benchmark uses all of it
#[path = "../benches/load/verdict.rs"]
mod verdict;

use verdict::{growth, scaling, soak};

/// An hour, a sample every ten seconds: memory that begins with buffers growing, wavers, and then grows by so much an hour.
fn memory(seconds: u32, kib_per_hour: f64) -> Vec<(f64, f64)> {
    let sample = |n: u32| {
        let at = f64::from(n) * 10.0;
        let buffers = 3_000.0 * (at / 60.0).min(1.0);
        let wavers = f64::from(n % 7) * 60.0;
        (at, 40_000.0 + buffers + wavers + kib_per_hour * at / 3_600.0)
    };
    (0..=seconds / 10).map(sample).collect()
}

fn check(seconds: u32, kib_per_hour: f64, drift_ms: f64, wrong: usize) {
    let found = soak(&memory(seconds, kib_per_hour), drift_ms);
    assert_eq!(found.len(), wrong, "{seconds} s, {kib_per_hour} KiB/h, {drift_ms} ms: {found:?}");
}

#[test]
fn a_soak_is_good_when_memory_is_flat_and_lengths_are_right() {
    check(3_600, 0.0, 20.0, 0);
    check(3_600, 4_000.0, 20.0, 0);
    check(300, 0.0, 20.0, 0);
}

#[test]
fn a_soak_fails_for_growth_and_for_drift() {
    check(3_600, 6_000.0, 20.0, 1);
    check(3_600, 0.0, 1_500.0, 1);
    check(3_600, 60_000.0, 1_500.0, 2);
    // A kilobyte lost with each of two hundred packets' worth of calls shows within minutes.
    check(300, 36_000.0, 20.0, 1);
}

#[test]
fn what_is_too_short_to_tell_is_not_judged() {
    check(60, 1_000_000.0, 5_000.0, 0);
}

#[test]
fn a_run_that_was_not_looked_at_is_not_good() {
    assert_eq!(soak(&[(3_600.0, 1.0)], 0.0).len(), 1);
}

#[test]
fn the_slope_is_that_of_the_later_part() {
    let found = growth(&memory(3_600, 1_000.0)).unwrap();
    assert!((found.kib_per_hour - 1_000.0).abs() < 60.0, "{found:?}");
}

#[test]
fn cost_is_compared_with_the_number_of_calls() {
    assert_eq!(scaling((50, 2.0), (500, 16.0)), (10.0, 8.0));
}

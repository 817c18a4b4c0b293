//! Whether a run was good: memory that stays flat, and cost that grows no faster than the calls. Pure.

/// From so long a run on, growth of memory is told from its noise.
pub(crate) const JUDGED_FROM_S: f64 = 240.0;
/// So fast may memory grow: in the hour of a soak, less than the 5 MiB that allocators and caches of an idle service wander.
pub(crate) const GROWTH_MAX_KIB_PER_HOUR: f64 = 5_120.0;
/// What a fit over minutes cannot tell from growth: pages come in steps of this much.
const NOISE_KIB: f64 = 768.0;
/// So far the length of a recording may be from what the client measured.
pub(crate) const DRIFT_MAX_MS: f64 = 1_000.0;

/// How memory went in the later two thirds of a run, when buffers have their size: time in seconds, memory in KiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    /// The slope of the straight line with the least squares.
    pub(crate) kib_per_hour: f64,
    /// How much of it that makes over the time looked at.
    pub(crate) kib: f64,
}

/// None with fewer than three samples.
pub(crate) fn growth(samples: &[(f64, f64)]) -> Option<Growth> {
    let end = samples.last()?.0;
    let later: Vec<(f64, f64)> = samples.iter().copied().filter(|(at, _)| *at >= end / 3.0).collect();
    if later.len() < 3 {
        return None;
    }
    let n = later.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| later.iter().map(of).sum::<f64>() / n;
    let (at, kib) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let spread: f64 = later.iter().map(|sample| (sample.0 - at).powi(2)).sum();
    let together: f64 = later.iter().map(|sample| (sample.0 - at) * (sample.1 - kib)).sum();
    let slope = if spread > 0.0 { together / spread } else { 0.0 };
    Some(Growth { kib_per_hour: slope * 3_600.0, kib: slope * (end - later[0].0) })
}

/// Why a long run was not good; nothing for one that was, or was too short to tell.
pub(crate) fn soak(samples: &[(f64, f64)], drift_ms_max: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    if samples.last().is_none_or(|(at, _)| *at < JUDGED_FROM_S) {
        return wrong;
    }
    match growth(samples) {
        None => wrong.push("memory was not looked at often enough".to_owned()),
        Some(growth) if growth.kib_per_hour > GROWTH_MAX_KIB_PER_HOUR && growth.kib > NOISE_KIB => wrong.push(format!(
            "memory grew by {:.0} KiB, {:.0} KiB an hour; at most {GROWTH_MAX_KIB_PER_HOUR} are flat",
            growth.kib, growth.kib_per_hour
        )),
        Some(_) => {}
    }
    if drift_ms_max > DRIFT_MAX_MS {
        wrong.push(format!("a recording's length is {drift_ms_max:.0} ms from that of its call"));
    }
    wrong
}

/// How many times the cost of so many calls is that of fewer, and how many times as many they are.
pub(crate) fn scaling(fewer: (usize, f64), more: (usize, f64)) -> (f64, f64) {
    (more.0 as f64 / fewer.0 as f64, more.1 / fewer.1)
}

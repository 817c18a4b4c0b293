//! Holds a recorded channel against what was sent: where it lies, whether every sample is the same, how alike it is where
//! a lossy codec was between, and which stretches differ.

use crate::voice::RATE;

/// How far a channel may be shifted to be found at all: 200 ms.
const LAG_MAX: i64 = RATE as i64 / 5;

/// The stretch by which the shift is found: one second, the loudest.
const PROBE: usize = RATE as usize;

/// The search for the shift looks at every eighth sample: a thousand are plenty to recognise a second of speech.
const COARSE_STEP: usize = 8;

/// The stretch by which local differences are found: half a second. Shorter ones hold too little speech to be judged.
const STRETCH: usize = RATE as usize / 2;

/// A stretch whose power is below this part of the whole's is a pause; there is nothing to compare in it.
const PAUSE_POWER: f64 = 0.05;

/// A stretch less alike than this differs: a gap, another voice, or a slide. Opus at 24 kbit/s stays far above it.
pub(crate) const STRETCH_LIKENESS_MIN: f64 = 0.6;

/// What a comparison found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Likeness {
    /// Samples by which the recording lies behind (or, negative, before) what was sent.
    pub(crate) lag: i64,
    /// Normalised correlation at that lag over the whole call: 1 is the same, 0 unrelated.
    pub(crate) correlation: f64,
    /// Whether every sample that lies within the recording is equal.
    pub(crate) exact: bool,
    /// The stretches that differ, each with its begin and end in milliseconds of what was sent.
    pub(crate) differing_ms: Vec<(u64, u64)>,
}

/// Compares a recorded channel with what was sent.
pub(crate) fn compare(recorded: &[i16], sent: &[i16]) -> Likeness {
    let lag = find_lag(recorded, sent);
    let (ours, theirs) = overlap(recorded, sent, lag);
    let exact = !ours.is_empty() && ours == theirs;
    let correlation = if exact { 1.0 } else { correlate(ours, theirs) };
    Likeness { lag, correlation, exact, differing_ms: differing(recorded, sent, lag) }
}

/// The recorded and the sent samples that belong together at a lag.
fn overlap<'a>(recorded: &'a [i16], sent: &'a [i16], lag: i64) -> (&'a [i16], &'a [i16]) {
    let skip = |lag: i64| usize::try_from(lag).unwrap_or(0);
    let recorded = recorded.get(skip(lag)..).unwrap_or_default();
    let sent = sent.get(skip(-lag)..).unwrap_or_default();
    let length = recorded.len().min(sent.len());
    (&recorded[..length], &sent[..length])
}

/// The shift at which the loudest second of what was sent is found best.
fn find_lag(recorded: &[i16], sent: &[i16]) -> i64 {
    let length = PROBE.min(sent.len());
    // Away from the ends, where a shift in either direction stays within the recording.
    let margin = (LAG_MAX as usize).min((sent.len() - length) / 2);
    let loudness = |start: &usize| power(&sent[*start..*start + length]);
    let starts = (margin..=sent.len() - length - margin).step_by(STRETCH);
    let Some(start) = starts.max_by(|a, b| loudness(a).total_cmp(&loudness(b))) else { return 0 };
    let probe = &sent[start..start + length];
    let likeness = |lag: i64, step: usize| {
        let at = usize::try_from(start as i64 + lag).ok();
        let window = at.and_then(|at| recorded.get(at..at + length));
        window.map_or(-1.0, |window| correlate_every(window, probe, step))
    };
    let best = |lags: &mut dyn Iterator<Item = i64>, step: usize| {
        let better = |best: (i64, f64), lag: i64| {
            let found = likeness(lag, step);
            if found > best.1 { (lag, found) } else { best }
        };
        lags.fold((0, -1.0), better).0
    };
    // From the centre outwards, so that equal values (silence) give no shift.
    let coarse = best(&mut (0..=LAG_MAX).flat_map(|lag| [lag, -lag]), COARSE_STEP);
    best(&mut (-2..=2).map(|near| coarse + near), 1)
}

fn differing(recorded: &[i16], sent: &[i16], lag: i64) -> Vec<(u64, u64)> {
    let quiet = power(sent) * PAUSE_POWER;
    let milliseconds = |samples: usize| samples as u64 * 1000 / u64::from(RATE);
    let mut found: Vec<(u64, u64)> = Vec::new();
    for (index, stretch) in sent.chunks(STRETCH).enumerate() {
        let start = index * STRETCH;
        let there = usize::try_from(start as i64 + lag).ok().and_then(|at| recorded.get(at..at + stretch.len()));
        // A stretch at the very end may be cut by the lag itself; the length is judged elsewhere.
        let judged = stretch.len() == STRETCH && power(stretch) > quiet;
        if judged && there.is_some_and(|there| correlate(there, stretch) < STRETCH_LIKENESS_MIN) {
            let (from, to) = (milliseconds(start), milliseconds(start + STRETCH));
            match found.last_mut() {
                Some((_, end)) if *end == from => *end = to,
                _ => found.push((from, to)),
            }
        }
    }
    found
}

fn power(samples: &[i16]) -> f64 {
    let sum: i64 = samples.iter().map(|s| i64::from(*s) * i64::from(*s)).sum();
    sum as f64 / samples.len().max(1) as f64
}

/// Normalised correlation of two stretches of equal length; 0 when one of them is silent.
fn correlate(a: &[i16], b: &[i16]) -> f64 {
    correlate_every(a, b, 1)
}

/// The same from every so-many-th sample only.
fn correlate_every(a: &[i16], b: &[i16], step: usize) -> f64 {
    let (mut both, mut of_a, mut of_b) = (0_i64, 0_i64, 0_i64);
    let mut at = 0;
    while let (Some(x), Some(y)) = (a.get(at), b.get(at)) {
        let (x, y) = (i64::from(*x), i64::from(*y));
        both += x * y;
        of_a += x * x;
        of_b += y * y;
        at += step;
    }
    let scale = (of_a as f64 * of_b as f64).sqrt();
    if scale == 0.0 { 0.0 } else { both as f64 / scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voice::Voice;

    fn speech(seed: u64, higher: bool) -> Vec<i16> {
        let mut voice = Voice::new(seed, higher);
        (0..150).flat_map(|_| voice.frame()).collect()
    }

    fn shifted(samples: &[i16], lag: i64) -> Vec<i16> {
        match usize::try_from(lag) {
            Ok(lag) => [vec![0; lag], samples.to_vec()].concat(),
            Err(_) => samples[lag.unsigned_abs() as usize..].to_vec(),
        }
    }

    #[test]
    fn the_shift_is_found_and_the_samples_are_the_same() {
        let sent = speech(1, false);
        for lag in [0, 1, -1, 160, -160, 1600, -1600] {
            let found = compare(&shifted(&sent, lag), &sent);
            assert_eq!((found.lag, found.exact, found.differing_ms.len()), (lag, true, 0), "lag {lag}");
        }
    }

    #[test]
    fn two_voices_are_told_apart() {
        for call in 0..6 {
            let (own, other) = (speech(2 * call, false), speech(2 * call + 1, true));
            let found = compare(&own, &other);
            assert!(found.correlation < 0.3, "call {call}: {}", found.correlation);
            assert!(!found.exact && !found.differing_ms.is_empty());
        }
    }

    #[test]
    fn noise_of_a_codec_is_forgiven_and_measured() {
        let sent = speech(3, true);
        let noise = speech(9, false);
        let recorded: Vec<i16> = sent.iter().zip(&noise).map(|(s, n)| s.saturating_add(n / 8)).collect();
        let found = compare(&recorded, &sent);
        assert!(!found.exact && found.correlation > 0.95, "{}", found.correlation);
        assert!(found.differing_ms.is_empty(), "{:?}", found.differing_ms);
    }

    #[test]
    fn one_wrong_sample_is_not_exact() {
        let sent = speech(4, false);
        let mut recorded = sent.clone();
        recorded[12_345] ^= 1;
        assert!(!compare(&recorded, &sent).exact);
    }

    #[test]
    fn a_hole_and_a_slide_are_located() {
        let sent = speech(5, false);
        let mut hole = sent.clone();
        hole[8_000..12_000].fill(0);
        assert_eq!(compare(&hole, &sent).differing_ms, [(1000, 1500)]);
        let slid = [&sent[..12_000], &[0; 400], &sent[12_000..]].concat();
        let found = compare(&slid, &sent);
        assert!(!found.differing_ms.is_empty() && !found.exact, "{found:?}");
    }

    #[test]
    fn silence_and_nothing_are_unlike_speech() {
        let sent = speech(6, false);
        for recorded in [vec![], vec![0; 100], vec![0; sent.len()]] {
            let found = compare(&recorded, &sent);
            assert!(!found.exact && found.correlation < 0.1, "{found:?}");
        }
    }
}

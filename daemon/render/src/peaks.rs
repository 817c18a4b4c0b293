//! The waveform of a track: the loudest sample in each of a few hundred parts of its recording.

use callvault_render_protocol::PEAK_PARTS;

/// Works out the peaks of one track.
pub(crate) struct Peaks {
    /// Where the first part begins and the last ends, in samples.
    from: i64,
    length: u64,
    parts: Vec<u16>,
}

impl Peaks {
    /// Of samples from `from` to `to`; what lies outside is not looked at.
    pub(crate) fn new(from: i64, to: i64) -> Self {
        let length = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        Self { from, length, parts: vec![0; PEAK_PARTS] }
    }

    /// Takes samples, the first of which is at `first`.
    pub(crate) fn take(&mut self, first: i64, samples: &[i16]) {
        let before = usize::try_from(self.from.saturating_sub(first)).unwrap_or(0);
        let Some(mut samples) = samples.get(before..) else { return };
        let mut at = u64::try_from(first.saturating_sub(self.from)).unwrap_or(0);
        while !samples.is_empty() && at < self.length {
            let (parts, length) = (PEAK_PARTS as u128, u128::from(self.length));
            let part = u128::from(at) * parts / length;
            let end = ((part + 1) * length).div_ceil(parts);
            let count = usize::try_from(end - u128::from(at)).unwrap_or(usize::MAX).min(samples.len());
            let (of_part, rest) = samples.split_at(count);
            let loudest = of_part.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
            if let Some(peak) = usize::try_from(part).ok().and_then(|part| self.parts.get_mut(part)) {
                *peak = (*peak).max(loudest);
            }
            (samples, at) = (rest, at.saturating_add(count as u64));
        }
    }

    /// The peaks in hundredths of full scale, by the square root, so that quiet speech is seen.
    pub(crate) fn seen(&self) -> Vec<u8> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        let seen = |peak: &u16| ((f64::from(*peak) / 32_768.0).sqrt() * 100.0).round() as u8;
        self.parts.iter().map(seen).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_where_they_are_heard_however_the_samples_come() {
        let length = 12_345;
        let mut samples = vec![0_i16; length];
        for (at, sample) in [(0, -32_768), (6_000, 8_192), (length - 1, 2_048)] {
            samples[at] = sample;
        }
        for step in [1, 7, 160, 20_000] {
            let mut peaks = Peaks::new(100, 100 + i64::try_from(length).unwrap());
            for (n, part) in samples.chunks(step).enumerate() {
                peaks.take(100 + i64::try_from(n * step).unwrap(), part);
            }
            let seen = peaks.seen();
            let heard: Vec<_> = seen.iter().enumerate().filter(|(_, peak)| **peak > 0).collect();
            assert_eq!(
                heard,
                [(0, &100), (6_000 * PEAK_PARTS / length, &50), (PEAK_PARTS - 1, &25)],
                "steps of {step}"
            );
        }
    }

    #[test]
    fn what_is_outside_is_not_looked_at() {
        let check = |from: i64, to: i64, first: i64, expected: usize| {
            let mut peaks = Peaks::new(from, to);
            peaks.take(first, &[32_767; 100]);
            assert_eq!(peaks.seen().iter().filter(|peak| **peak > 0).count(), expected, "{from} {to} {first}");
        };
        check(0, 600, -100, 0);
        check(0, 600, -50, 50);
        check(0, 600, 550, 50);
        check(0, 600, 600, 0);
        check(0, 0, 0, 0);
        check(0, 600, i64::MIN, 0);
    }
}

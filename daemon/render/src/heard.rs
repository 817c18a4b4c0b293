//! Figures of decoded audio: how loud, how silent, how clipped.

use callvault_render_protocol::Heard;

/// Peak below which 10 ms are silence: -60 dB of full scale. The least of G.711 that is not zero is 8, and a quiet room on a telephone is
/// some ten times above this.
const SILENT_PEAK_MAX: u16 = 32;

/// Mean square from which on somebody speaks: -50 dB of full scale.
const ACTIVE_SQUARE_MIN: u64 = 104 * 104;

/// Samples from here on are at full scale: G.711 ends at 32,124 (mu-law) and 32,256 (A-law).
const FULL_SCALE: u16 = 32_000;

/// So many samples at full scale one after the other are clipped; a single one is a peak that fitted.
const CLIPPED_RUN_MIN: u64 = 3;

/// Listens to one track.
pub(crate) struct Meter {
    rate: u32,
    /// Samples in 10 ms.
    block: u64,
    samples: u64,
    in_block: u64,
    square: u64,
    peak: u16,
    silent_blocks: u64,
    active_blocks: u64,
    /// Sum of the mean squares of active blocks; 2^30 each at most, so that no call is long enough for it to overflow.
    active_square: u64,
    full_run: u64,
    clipped: u64,
}

impl Meter {
    /// `rate` is that of the samples, in Hz.
    pub(crate) fn new(rate: u32) -> Self {
        Self {
            rate: rate.max(1),
            block: u64::from(rate / 100).max(1),
            samples: 0,
            in_block: 0,
            square: 0,
            peak: 0,
            silent_blocks: 0,
            active_blocks: 0,
            active_square: 0,
            full_run: 0,
            clipped: 0,
        }
    }

    /// Takes the next samples.
    pub(crate) fn take(&mut self, samples: &[i16]) {
        for sample in samples {
            let size = sample.unsigned_abs();
            self.square += u64::from(size) * u64::from(size);
            self.peak = self.peak.max(size);
            if size >= FULL_SCALE {
                self.full_run += 1;
            } else if self.full_run > 0 {
                self.end_full_run();
            }
            self.in_block += 1;
            if self.in_block == self.block {
                self.end_block();
            }
        }
        self.samples += samples.len() as u64;
    }

    fn end_full_run(&mut self) {
        if self.full_run >= CLIPPED_RUN_MIN {
            self.clipped += self.full_run;
        }
        self.full_run = 0;
    }

    fn end_block(&mut self) {
        let square = self.square / self.block;
        if self.peak <= SILENT_PEAK_MAX {
            self.silent_blocks += 1;
        } else if square >= ACTIVE_SQUARE_MIN {
            self.active_blocks += 1;
            self.active_square += square;
        }
        (self.square, self.peak, self.in_block) = (0, 0, 0);
    }

    /// What was heard.
    pub(crate) fn heard(&self) -> Heard {
        let full = if self.full_run >= CLIPPED_RUN_MIN { self.full_run } else { 0 };
        let ms = |samples: u64| samples * 1_000 / u64::from(self.rate);
        // Not a whole block at the end is silent if it is so far.
        let rest = if self.peak <= SILENT_PEAK_MAX { self.in_block } else { 0 };
        Heard {
            audio_ms: ms(self.samples),
            silent_ms: ms(self.silent_blocks * self.block + rest),
            clipped_ms: ms(self.clipped + full),
            active_ms: ms(self.active_blocks * self.block),
            level_dbfs: level(self.active_square, self.active_blocks),
        }
    }
}

/// The level of a mean square, rounded to 1 dB.
fn level(square: u64, blocks: u64) -> Option<i16> {
    let mean = square.checked_div(blocks).filter(|mean| *mean > 0)?;
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "-50 to 0, to whole dB")]
    let level = (10.0 * (mean as f64 / (32_768.0 * 32_768.0)).log10()).round() as i16;
    Some(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(samples: &[i16], expected: Heard) {
        // However the samples are cut.
        for step in [1, 7, 80, 10_000] {
            let mut meter = Meter::new(8_000);
            samples.chunks(step).for_each(|part| meter.take(part));
            assert_eq!(meter.heard(), expected, "in steps of {step}");
        }
    }

    fn square_wave(size: i16, count: usize) -> Vec<i16> {
        (0..count).map(|n| if n % 2 == 0 { size } else { -size }).collect()
    }

    #[test]
    fn figures_are_those_of_the_samples() {
        check(&[], Heard::default());
        check(&[0; 805], Heard { audio_ms: 100, silent_ms: 100, ..Heard::default() });
        check(&square_wave(32, 800), Heard { audio_ms: 100, silent_ms: 100, ..Heard::default() });
        check(&square_wave(33, 800), Heard { audio_ms: 100, ..Heard::default() });
        check(&square_wave(103, 800), Heard { audio_ms: 100, ..Heard::default() });
        let loud = Heard { audio_ms: 100, active_ms: 100, level_dbfs: Some(-10), ..Heard::default() };
        check(&square_wave(10_362, 800), loud);
        // Half of it is silent, which its level does not know of.
        let half = [vec![0; 800], square_wave(10_362, 800)].concat();
        check(&half, Heard { audio_ms: 200, silent_ms: 100, ..loud });
        let full = Heard { audio_ms: 100, active_ms: 100, level_dbfs: Some(0), ..Heard::default() };
        check(&square_wave(32_124, 800), Heard { clipped_ms: 100, ..full });
        check(&square_wave(31_999, 800), full);
    }

    #[test]
    fn clipping_is_a_run_at_full_scale() {
        let check = |run: usize, clipped_ms: u64| {
            let beat = [vec![20_000; 80 - run], vec![-32_124; run]].concat();
            let mut meter = Meter::new(8_000);
            meter.take(&beat.repeat(100));
            assert_eq!(meter.heard().clipped_ms, clipped_ms, "{run}");
        };
        check(2, 0);
        check(3, 37);
        check(16, 200);
    }
}

//! A voice that nobody has: syllables of a buzzing source through three resonances, hisses and pauses between them. It is
//! speech-like so that speech codecs treat it as speech, and the same seed always gives the same samples, so that a
//! recording can be held against it without keeping what was sent.

/// Samples a second: the audio rate of G.711.
pub(crate) const RATE: u32 = 8_000;

/// Samples of one packet: 20 ms.
pub(crate) const FRAME: usize = 160;

/// The first three resonances (Hz) of a few vowels, roughly those of a textbook vowel chart.
const VOWELS: [[f32; 3]; 6] = [
    [730.0, 1090.0, 2440.0],
    [270.0, 2290.0, 3010.0],
    [300.0, 870.0, 2240.0],
    [530.0, 1840.0, 2480.0],
    [570.0, 840.0, 2410.0],
    [440.0, 1020.0, 2240.0],
];

/// Loudest sample: well below clipping, loud enough that G.711 has its full resolution.
const PEAK: f32 = 14_000.0;

/// A resonance: a two-pole filter.
#[derive(Debug, Clone, Copy, Default)]
struct Resonance {
    feed: f32,
    back: [f32; 2],
    past: [f32; 2],
}

impl Resonance {
    fn tune(&mut self, frequency: f32, bandwidth: f32) {
        let radius = (-std::f32::consts::PI * bandwidth / RATE as f32).exp();
        let angle = 2.0 * std::f32::consts::PI * frequency / RATE as f32;
        self.back = [2.0 * radius * angle.cos(), -radius * radius];
        self.feed = 1.0 - radius;
    }

    fn pass(&mut self, input: f32) -> f32 {
        let output = self.feed * input + self.back[0] * self.past[0] + self.back[1] * self.past[1];
        self.past = [output, self.past[0]];
        output
    }
}

/// What a syllable is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sound {
    Voiced,
    Hiss,
    Pause,
}

/// A speaker who never runs out of words.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    random: u64,
    /// Pitch of the speaker in Hz, around which each syllable varies.
    pitch_base: f32,
    pitch: f32,
    phase: f32,
    sound: Sound,
    /// Samples of the syllable that are still to come, and of the whole syllable.
    left: u32,
    length: u32,
    resonances: [Resonance; 3],
}

impl Voice {
    /// The speaker of that seed. A higher voice is a second speaker's: two that differ in pitch are told apart easily.
    pub(crate) fn new(seed: u64, higher: bool) -> Self {
        // The multiplier (a large odd constant) spreads neighbouring seeds over all bits; zero would stay zero.
        let random = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut voice = Self {
            random,
            pitch_base: 0.0,
            pitch: 0.0,
            phase: 0.0,
            sound: Sound::Pause,
            left: 0,
            length: 1,
            resonances: [Resonance::default(); 3],
        };
        let (low, high) = if higher { (185.0, 235.0) } else { (95.0, 135.0) };
        voice.pitch_base = voice.between(low, high);
        voice
    }

    /// Sixty-four bits that look random (xorshift64*, Vigna).
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.next_random() >> 40) as f32 / (1_u32 << 24) as f32;
        low + (high - low) * unit
    }

    fn next_syllable(&mut self) {
        self.sound = match self.next_random() % 10 {
            0 => Sound::Pause,
            1 | 2 => Sound::Hiss,
            _ => Sound::Voiced,
        };
        let milliseconds = match self.sound {
            Sound::Pause => self.between(60.0, 180.0),
            Sound::Hiss => self.between(50.0, 110.0),
            Sound::Voiced => self.between(110.0, 280.0),
        };
        self.length = (milliseconds * RATE as f32 / 1000.0) as u32;
        self.left = self.length;
        self.pitch = self.pitch_base * self.between(0.85, 1.2);
        let vowel = VOWELS[(self.next_random() >> 33) as usize % VOWELS.len()];
        let shift = self.between(0.92, 1.08);
        for (index, resonance) in self.resonances.iter_mut().enumerate() {
            resonance.tune(vowel[index] * shift, 70.0 + 40.0 * index as f32);
        }
    }

    fn sample(&mut self) -> i16 {
        if self.left == 0 {
            self.next_syllable();
        }
        let position = 1.0 - self.left as f32 / self.length as f32;
        self.left -= 1;
        // A syllable swells and fades, so that there is no click at its ends.
        let envelope = (std::f32::consts::PI * position).sin();
        // The pitch falls by a tenth in the course of a syllable.
        self.phase = (self.phase + self.pitch * (1.05 - 0.1 * position) / RATE as f32).fract();
        let noise = self.between(-1.0, 1.0);
        let source = match self.sound {
            Sound::Voiced => (1.0 - 2.0 * self.phase) + 0.02 * noise,
            Sound::Hiss => 0.35 * noise,
            Sound::Pause => 0.0,
        };
        let driven = source * envelope;
        let voiced: f32 = self.resonances.iter_mut().map(|resonance| resonance.pass(driven)).sum();
        let mixed = if self.sound == Sound::Hiss { 0.5 * driven + 0.2 * voiced } else { voiced };
        (PEAK * (2.0 * mixed).tanh()) as i16
    }

    /// The next 20 ms.
    pub(crate) fn frame(&mut self) -> [i16; FRAME] {
        std::array::from_fn(|_| self.sample())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seed: u64, higher: bool, count: usize) -> Vec<i16> {
        let mut voice = Voice::new(seed, higher);
        (0..count * 50).flat_map(|_| voice.frame()).collect()
    }

    #[test]
    fn the_same_seed_says_the_same_and_another_does_not() {
        assert_eq!(seconds(7, false, 2), seconds(7, false, 2));
        assert_ne!(seconds(7, false, 2), seconds(8, false, 2));
        assert_ne!(seconds(7, false, 2), seconds(7, true, 2));
    }

    #[test]
    fn it_is_loud_enough_and_does_not_clip() {
        for seed in 0..20 {
            let samples = seconds(seed, seed % 2 == 0, 4);
            let power: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64;
            let peak = samples.iter().map(|s| s.unsigned_abs()).max().unwrap();
            assert!(power.sqrt() > 800.0, "seed {seed}: {}", power.sqrt());
            assert!((3_000..=14_000).contains(&peak), "seed {seed}: {peak}");
        }
    }
}

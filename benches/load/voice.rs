//! What the parties say, as packets of the codec that is asked for.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::appliance::TRACKS;
use super::floor::quantile;
use super::rendering::{COMPLEXITY, RawOpus};
use super::rig::sound::{FRAME, g722, opus, packets, speech};

/// Packets until it is said again: ten seconds.
const LOOP_PACKETS: usize = 500;

/// Times that libopus is timed; the one in the middle counts.
const LIBOPUS_TURNS: usize = 15;

/// The codec of all tracks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Pcmu,
    G722,
    Opus,
}

impl Coding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "G.711",
            Self::G722 => "G.722",
            Self::Opus => "Opus",
        }
    }

    /// Its name in session descriptions.
    pub(crate) fn encoding(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::G722 => "G722",
            Self::Opus => "opus",
        }
    }

    /// The payload type that the offer gives it.
    pub(crate) fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::G722 => 9,
            Self::Opus => 111,
        }
    }

    /// By how much the timestamp grows in 20 ms (RFC 3551 section 4.5.2 of G.722; RFC 7587 section 4.1 of Opus).
    pub(crate) fn step(self) -> u32 {
        match self {
            Self::Pcmu | Self::G722 => 160,
            Self::Opus => 960,
        }
    }

    fn rate(self) -> usize {
        match self {
            Self::Pcmu => 8_000,
            Self::G722 => 16_000,
            Self::Opus => 48_000,
        }
    }

    /// The payloads of ten seconds, of which so many percent are spoken, in one piece from the beginning; the rest is a quiet room.
    pub(crate) fn payloads(self, talk: usize) -> Vec<Vec<u8>> {
        let sound = self.sound(talk);
        match self {
            Self::Pcmu => packets(&sound),
            Self::G722 => g722(&sound),
            Self::Opus => opus(&sound),
        }
    }

    /// CPU seconds that libopus alone, with the settings of an archive, takes for a second of a call of two such tracks.
    pub(crate) fn libopus_s(self, talk: usize) -> f64 {
        let (sound, mut encoder) = (self.sound(talk), RawOpus::new(self.rate() as u32, COMPLEXITY));
        let mut turn = || {
            let began = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
            assert_eq!(encoder.encode(&sound), LOOP_PACKETS);
            let took = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap() - began;
            Duration::from(took).as_secs_f64() / (sound.len() / self.rate()) as f64
        };
        let mut turns: Vec<f64> = (0..LIBOPUS_TURNS).map(|_| turn()).collect();
        TRACKS as f64 * quantile(&mut turns, 0.5)
    }

    /// What is said in ten seconds, as samples.
    fn sound(self, talk: usize) -> Vec<i16> {
        let samples = LOOP_PACKETS * FRAME * self.rate() / 8_000;
        let mut sound = speech(1, 130.0, self.rate(), samples);
        for (at, sample) in sound.iter_mut().enumerate().skip(samples * talk / 100) {
            // A noise of a few steps that repeats with a period nobody hears.
            *sample = (at.wrapping_mul(2_654_435_761) >> 7 & 15) as i16 - 8;
        }
        sound
    }
}

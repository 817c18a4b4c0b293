//! The Opus encoder as callvault uses it: 20 ms frames, one mono stream per channel, variable bit rate, tuned for voice.
//!
//! The signal is declared to be voice, but the application to be audio: libopus's telephony application puts a high-pass filter before
//! the encoder that follows the speaker's pitch, and a recording should hold what was said as it was said.

use callvault_render_protocol::TICKS_PER_SECOND;
use opus::{Application, Bitrate, MSEncoder, Signal};

use crate::error::JobError;

/// Length of a frame in ticks: 20 ms.
pub(crate) const FRAME_TICKS: u32 = TICKS_PER_SECOND / 50;

/// Longest packet that is asked for, in bytes per stream: the largest frame of 20 ms (RFC 6716 section 3.2.1) and its length field.
const PACKET_BYTES_MAX: usize = 1_278;

/// An encoder of one mono stream per channel.
pub(crate) struct OpusEncoder {
    encoder: MSEncoder,
    rate: u32,
    channels: usize,
    packet: Vec<u8>,
}

impl OpusEncoder {
    /// `rate` is one of Opus's; `bit_rate` is for each channel, 0 leaves it to the encoder.
    pub(crate) fn new(rate: u32, channels: u8, bit_rate: u32, complexity: u8) -> Result<Self, JobError> {
        let mapping: Vec<u8> = (0..channels).collect();
        let bit_rate = match bit_rate.saturating_mul(u32::from(channels)) {
            0 => Bitrate::Auto,
            bits => Bitrate::Bits(i32::try_from(bits).unwrap_or(i32::MAX)),
        };
        let mut encoder = MSEncoder::new(rate, channels, 0, &mapping, Application::Audio).map_err(JobError::encoder)?;
        encoder
            .set_vbr(true)
            .and_then(|()| encoder.set_bitrate(bit_rate))
            .and_then(|()| encoder.set_complexity(i32::from(complexity)))
            .and_then(|()| encoder.set_signal(Signal::Voice))
            .map_err(JobError::encoder)?;
        let channels = usize::from(channels);
        Ok(Self { encoder, rate, channels, packet: vec![0; PACKET_BYTES_MAX * channels] })
    }

    /// Samples per channel in a frame.
    pub(crate) fn frame_length(&self) -> usize {
        usize::try_from(self.rate / 50).unwrap_or(0)
    }

    /// How much later the audio comes out of a decoder than it went in, in ticks.
    pub(crate) fn pre_skip(&mut self) -> Result<u16, JobError> {
        let samples = self.encoder.get_lookahead().map_err(JobError::encoder)?;
        let ticks = i64::from(samples) * i64::from(TICKS_PER_SECOND / self.rate);
        u16::try_from(ticks).map_err(|_| JobError::encoder("it looks ahead for more than a second"))
    }

    /// Encodes one frame of interleaved samples.
    pub(crate) fn encode(&mut self, frame: &[i16]) -> Result<Vec<u8>, JobError> {
        debug_assert_eq!(frame.len(), self.frame_length() * self.channels);
        let length = self.encoder.encode(frame, &mut self.packet).map_err(JobError::encoder)?;
        Ok(self.packet[..length].to_vec())
    }

    /// Forgets what went in so far.
    pub(crate) fn reset(&mut self) -> Result<(), JobError> {
        self.encoder.reset_state().map_err(JobError::encoder)
    }
}

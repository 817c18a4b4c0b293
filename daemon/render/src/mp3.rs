//! MPEG layer III by LAME.
//!
//! Constant bit rate, so that players find their way in a stream that has no table at its start (a table would have to be written
//! before the first second, when its content is known after the last). Plain stereo, not joint: the channels are two people, and what
//! joint stereo saves it takes from keeping them apart. At least 16 kHz, because lower rates are an extension (MPEG-2.5) that
//! some players refuse.

use mp3lame_encoder::{Bitrate, Builder, DualPcm, Encoder, FlushGap, Mode, MonoPcm, Quality, max_required_buffer_size};

use crate::error::JobError;
use crate::mix::FileEncoder;

/// Lowest rate in Hz that is written.
const RATE_MIN: u32 = 16_000;

/// Highest rate in Hz that is written: speech has nothing above 12 kHz that is worth its bits here.
const RATE_MAX: u32 = 24_000;

/// Room that LAME asks for when it is flushed, in bytes.
const FLUSH_BYTES: usize = 7_200;

/// The bit rates of MPEG-2 layer III (ISO/IEC 13818-3) that the encoder can be asked for, in kbit/s.
const BIT_RATES: [(u16, Bitrate); 12] = [
    (8, Bitrate::Kbps8),
    (16, Bitrate::Kbps16),
    (24, Bitrate::Kbps24),
    (32, Bitrate::Kbps32),
    (40, Bitrate::Kbps40),
    (48, Bitrate::Kbps48),
    (64, Bitrate::Kbps64),
    (80, Bitrate::Kbps80),
    (96, Bitrate::Kbps96),
    (112, Bitrate::Kbps112),
    (128, Bitrate::Kbps128),
    (160, Bitrate::Kbps160),
];

/// The rate to write audio of `rate` Hz at; 12 kHz audio goes to 16 kHz.
pub(crate) fn rate_for(rate: u32) -> u32 {
    rate.clamp(RATE_MIN, RATE_MAX)
}

pub(crate) struct Mp3 {
    encoder: Encoder,
}

impl Mp3 {
    pub(crate) fn new(channels: u8, rate: u32, bit_rate_kbps: u16, quick: bool) -> Result<Self, JobError> {
        let quality = if quick { Quality::Ok } else { Quality::Good };
        let mode = if channels == 1 { Mode::Mono } else { Mode::Stereo };
        let encoder = Builder::new().ok_or_else(|| JobError::encoder("no memory"))?;
        let encoder = encoder
            .with_num_channels(channels)
            .and_then(|encoder| encoder.with_sample_rate(rate))
            .and_then(|encoder| encoder.with_mode(mode))
            .and_then(|encoder| encoder.with_brate(bit_rate(bit_rate_kbps, channels, rate)))
            .and_then(|encoder| encoder.with_quality(quality))
            .and_then(|encoder| encoder.with_to_write_vbr_tag(false))
            .and_then(Builder::build)
            .map_err(JobError::encoder)?;
        Ok(Self { encoder })
    }
}

/// The offered bit rate that is nearest to the one asked for. 0 chooses 24 kbit/s per channel at 16 kHz, 32 above.
fn bit_rate(kbps: u16, channels: u8, rate: u32) -> Bitrate {
    let chosen = u16::from(channels) * if rate > RATE_MIN { 32 } else { 24 };
    let asked = if kbps == 0 { chosen } else { kbps };
    let nearest = BIT_RATES.into_iter().min_by_key(|(offered, _)| offered.abs_diff(asked));
    nearest.map_or(Bitrate::Kbps48, |(_, bit_rate)| bit_rate)
}

impl FileEncoder for Mp3 {
    fn begin(&mut self, _: &mut Vec<u8>) -> Result<(), JobError> {
        Ok(())
    }

    fn samples(&mut self, channels: &[Vec<i16>], file: &mut Vec<u8>) -> Result<(), JobError> {
        let length = channels.first().map_or(0, Vec::len);
        file.reserve(max_required_buffer_size(length));
        let written = match channels {
            [mono] => self.encoder.encode_to_vec(MonoPcm(mono), file),
            [left, right] => self.encoder.encode_to_vec(DualPcm { left, right }, file),
            _ => return Err(JobError::bad_job("MP3 has one channel or two")),
        };
        written.map(drop).map_err(JobError::encoder)
    }

    fn finish(&mut self, file: &mut Vec<u8>) -> Result<(), JobError> {
        // With a gap: the other way keeps back what does not fill a frame.
        file.reserve(FLUSH_BYTES);
        self.encoder.flush_to_vec::<FlushGap>(file).map(drop).map_err(JobError::encoder)
    }
}

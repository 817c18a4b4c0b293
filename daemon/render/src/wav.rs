//! RIFF/WAVE with 16-bit PCM. The length is known before the first sample, so the header is final and the file can be streamed; one
//! that does not fit into the 32 bits of RIFF becomes RF64 (EBU Tech 3306).

use crate::error::JobError;
use crate::mix::FileEncoder;

/// Bytes of a RIFF file before its samples, after the size field of the file.
const RIFF_BYTES_BEFORE_SAMPLES: u64 = 36;

/// The same for RF64, which has a chunk of 64-bit sizes.
const RF64_BYTES_BEFORE_SAMPLES: u64 = RIFF_BYTES_BEFORE_SAMPLES + 36;

const BYTES_PER_SAMPLE: u16 = 2;

pub(crate) struct Wav {
    channels: u16,
    rate: u32,
    /// Samples per channel.
    length: u64,
}

impl Wav {
    pub(crate) fn new(channels: u8, rate: u32, length: u64) -> Self {
        Self { channels: u16::from(channels), rate, length }
    }
}

impl FileEncoder for Wav {
    fn begin(&mut self, file: &mut Vec<u8>) -> Result<(), JobError> {
        let frame_bytes = self.channels * BYTES_PER_SAMPLE;
        let data_bytes = self.length * u64::from(frame_bytes);
        match (u32::try_from(RIFF_BYTES_BEFORE_SAMPLES + data_bytes), u32::try_from(data_bytes)) {
            (Ok(riff_bytes), Ok(_)) => {
                file.extend_from_slice(b"RIFF");
                file.extend_from_slice(&riff_bytes.to_le_bytes());
                file.extend_from_slice(b"WAVE");
            }
            _ => {
                file.extend_from_slice(b"RF64\xff\xff\xff\xffWAVEds64");
                file.extend_from_slice(&28_u32.to_le_bytes());
                file.extend_from_slice(&(RF64_BYTES_BEFORE_SAMPLES + data_bytes).to_le_bytes());
                file.extend_from_slice(&data_bytes.to_le_bytes());
                file.extend_from_slice(&self.length.to_le_bytes());
                file.extend_from_slice(&0_u32.to_le_bytes());
            }
        }
        file.extend_from_slice(b"fmt ");
        file.extend_from_slice(&16_u32.to_le_bytes());
        file.extend_from_slice(&1_u16.to_le_bytes());
        file.extend_from_slice(&self.channels.to_le_bytes());
        file.extend_from_slice(&self.rate.to_le_bytes());
        file.extend_from_slice(&(self.rate * u32::from(frame_bytes)).to_le_bytes());
        file.extend_from_slice(&frame_bytes.to_le_bytes());
        file.extend_from_slice(&(8 * BYTES_PER_SAMPLE).to_le_bytes());
        file.extend_from_slice(b"data");
        let fits = RIFF_BYTES_BEFORE_SAMPLES + data_bytes <= u64::from(u32::MAX);
        let data_field = u32::try_from(data_bytes).ok().filter(|_| fits).unwrap_or(u32::MAX);
        file.extend_from_slice(&data_field.to_le_bytes());
        Ok(())
    }

    fn samples(&mut self, channels: &[Vec<i16>], file: &mut Vec<u8>) -> Result<(), JobError> {
        let length = channels.first().map_or(0, Vec::len);
        file.reserve(length * channels.len() * usize::from(BYTES_PER_SAMPLE));
        for n in 0..length {
            for channel in channels {
                file.extend_from_slice(&channel[n].to_le_bytes());
            }
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), JobError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u64) -> Vec<u8> {
        let mut file = Vec::new();
        Wav::new(2, 48_000, length).begin(&mut file).unwrap();
        file
    }

    #[test]
    fn a_short_file_is_riff() {
        let file = header(10);
        assert_eq!(file.len(), 44);
        assert_eq!(&file[..8], b"RIFF\x4c\0\0\0");
        assert_eq!(&file[36..], b"data\x28\0\0\0");
    }

    #[test]
    fn a_file_of_4_gib_is_rf64() {
        // The last that fits, and the first that does not.
        assert_eq!(&header((u64::from(u32::MAX) - 36) / 4)[..4], b"RIFF");
        let length = (u64::from(u32::MAX) - 36) / 4 + 1;
        let file = header(length);
        assert_eq!(file.len(), 80);
        assert_eq!(&file[..16], b"RF64\xff\xff\xff\xffWAVEds64");
        assert_eq!(file[20..28], (length * 4 + 72).to_le_bytes());
        assert_eq!(file[28..36], (length * 4).to_le_bytes());
        assert_eq!(file[36..44], length.to_le_bytes());
        assert_eq!(&file[72..], b"data\xff\xff\xff\xff");
    }
}

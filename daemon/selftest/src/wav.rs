//! Reads the WAV files that the appliance exports: 16-bit PCM, any number of channels.

/// A decoded WAV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wav {
    pub(crate) rate: u32,
    /// The samples of each channel.
    pub(crate) channels: Vec<Vec<i16>>,
}

/// `WAVE_FORMAT_PCM` and `WAVE_FORMAT_EXTENSIBLE`.
const FORMATS: [u16; 2] = [1, 0xfffe];

impl Wav {
    /// Reads a whole file. The error says what is wrong with it.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
            return Err("the export is not a WAV file".into());
        }
        let declared = u64::from(u32_at(bytes, 4).unwrap_or(0)) + 8;
        if declared != bytes.len() as u64 {
            return Err(format!("the WAV file says it has {declared} bytes, but it has {}", bytes.len()));
        }
        let mut format = None;
        let mut rest = &bytes[12..];
        while let (Some(kind), Some(length)) = (rest.get(..4), u32_at(rest, 4)) {
            let length = length as usize;
            let body = rest.get(8..8 + length).ok_or("a chunk of the WAV file is longer than the file")?;
            match kind {
                b"fmt " => format = Some(read_format(body)?),
                b"data" => return samples(body, format.ok_or("the WAV file has audio before its format")?),
                _ => {}
            }
            // Chunks are padded to an even length.
            rest = rest.get(8 + length + length % 2..).unwrap_or_default();
        }
        Err("the WAV file has no audio".into())
    }
}

/// Channels and rate.
fn read_format(body: &[u8]) -> Result<(usize, u32), String> {
    let (Some(code), Some(channels), Some(rate), Some(bits)) =
        (u16_at(body, 0), u16_at(body, 2), u32_at(body, 4), u16_at(body, 14))
    else {
        return Err("the WAV file's format is cut short".into());
    };
    if !FORMATS.contains(&code) || bits != 16 || channels == 0 {
        return Err(format!("the WAV file has format {code}, {channels} channels, {bits} bits; expected 16-bit PCM"));
    }
    Ok((usize::from(channels), rate))
}

fn samples(body: &[u8], (count, rate): (usize, u32)) -> Result<Wav, String> {
    let mut channels = vec![Vec::with_capacity(body.len() / (2 * count)); count];
    let frames = body.chunks_exact(2 * count);
    if !frames.remainder().is_empty() {
        return Err("the WAV file ends in the middle of a sample".into());
    }
    for frame in frames {
        for (channel, sample) in channels.iter_mut().zip(frame.chunks_exact(2)) {
            channel.push(i16::from_le_bytes([sample[0], sample[1]]));
        }
    }
    Ok(Wav { rate, channels })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A WAV file with these channels.
    pub(crate) fn write(rate: u32, channels: &[&[i16]]) -> Vec<u8> {
        let count = channels.len() as u16;
        let frames = channels.iter().map(|c| c.len()).min().unwrap_or(0);
        let data = (frames * channels.len() * 2) as u32;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"RIFF");
        bytes.extend_from_slice(&(36 + data).to_le_bytes());
        bytes.extend_from_slice(b"WAVEfmt ");
        bytes.extend_from_slice(&16_u32.to_le_bytes());
        bytes.extend_from_slice(&1_u16.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&rate.to_le_bytes());
        bytes.extend_from_slice(&(rate * u32::from(count) * 2).to_le_bytes());
        bytes.extend_from_slice(&(count * 2).to_le_bytes());
        bytes.extend_from_slice(&16_u16.to_le_bytes());
        bytes.extend_from_slice(b"data");
        bytes.extend_from_slice(&data.to_le_bytes());
        for index in 0..frames {
            for channel in channels {
                bytes.extend_from_slice(&channel[index].to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let wav = Wav::read(&write(8000, &[&[1, 2, -3], &[4, 5, 6]])).unwrap();
        assert_eq!(wav, Wav { rate: 8000, channels: vec![vec![1, 2, -3], vec![4, 5, 6]] });
    }

    #[test]
    fn what_is_broken_is_named() {
        let good = write(8000, &[&[1, 2], &[3, 4]]);
        let check = |bytes: &[u8], expected: &str| {
            let error = Wav::read(bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(b"", "not a WAV file");
        check(b"{\"error\":{}}", "not a WAV file");
        check(&good[..good.len() - 1], "says it has");
        let mut eight_bits = good.clone();
        eight_bits[34] = 8;
        check(&eight_bits, "expected 16-bit PCM");
        let mut no_data = good.clone();
        no_data[36..40].copy_from_slice(b"junk");
        check(&no_data, "has no audio");
        for length in 0..good.len() {
            assert!(Wav::read(&good[..length]).is_err(), "{length}");
        }
    }
}

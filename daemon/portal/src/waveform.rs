//! The waveform of a recording, worked out of its sound as it comes by: the loudest sample of each channel in each of a few hundred parts.

use serde_json::{Value, json};

/// Parts of a waveform: more than a wide screen shows as bars.
pub const PARTS: usize = 600;

/// Bytes of what stands before the samples; the daemon's files have 44.
const HEAD_BYTES_MAX: usize = 4096;

/// A waveform being worked out of a WAV file that comes in pieces of any size.
#[derive(Debug)]
pub struct Waveform {
    duration_ms: u64,
    head: Vec<u8>,
    format: Option<Format>,
    /// The bytes of a sample of which the rest has not come.
    odd: Option<u8>,
    sample: u64,
    peaks: [Vec<u16>; 2],
}

#[derive(Debug, Clone, Copy)]
struct Format {
    channels: u64,
    rate: u64,
}

/// It is no WAV file of 16-bit samples in one or two channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sound is not what a waveform can be made of")]
pub struct NoWave;

impl Waveform {
    /// Of a recording that is so long, in milliseconds; sound beyond it counts for the last part.
    pub fn new(duration_ms: u64) -> Self {
        let peaks = [vec![0; PARTS], vec![0; PARTS]];
        Self { duration_ms: duration_ms.max(1), head: Vec::new(), format: None, odd: None, sample: 0, peaks }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`NoWave`].
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), NoWave> {
        if let Some(format) = self.format {
            self.samples(format, bytes);
            return Ok(());
        }
        self.head.extend_from_slice(bytes);
        match head(&self.head)? {
            Some((format, at)) => {
                self.format = Some(format);
                let rest = std::mem::take(&mut self.head);
                self.samples(format, rest.get(at..).unwrap_or_default());
                Ok(())
            }
            None if self.head.len() > HEAD_BYTES_MAX => Err(NoWave),
            None => Ok(()),
        }
    }

    fn samples(&mut self, format: Format, mut bytes: &[u8]) {
        if let (Some(low), Some((high, rest))) = (self.odd, bytes.split_first()) {
            self.odd = None;
            bytes = rest;
            self.one(format, i16::from_le_bytes([low, *high]));
        }
        let (pairs, odd) = bytes.as_chunks::<2>();
        for pair in pairs {
            self.one(format, i16::from_le_bytes(*pair));
        }
        if let [low] = odd {
            self.odd = Some(*low);
        }
    }

    fn one(&mut self, format: Format, sample: i16) {
        let (frame, channel) = (self.sample / format.channels, self.sample % format.channels);
        self.sample = self.sample.saturating_add(1);
        let part = frame.saturating_mul(1_000 * PARTS as u64) / format.rate.saturating_mul(self.duration_ms);
        let part = usize::try_from(part).unwrap_or(usize::MAX).min(PARTS - 1);
        let channel = usize::from(channel == 1);
        if let Some(peak) = self.peaks[channel].get_mut(part) {
            *peak = (*peak).max(sample.unsigned_abs());
        }
    }

    /// `{"channels": [[0…100, …], …]}`: in hundredths of full scale, by the square root, so that quiet speech is seen.
    pub fn json(&self) -> Value {
        let channels = self.format.map_or(0, |format| usize::try_from(format.channels).unwrap_or(0));
        let seen = |peak: &u16| ((f64::from(*peak) / 32_768.0).sqrt() * 100.0).round();
        let of = |peaks: &Vec<u16>| peaks.iter().map(seen).map(|peak| peak as u8).collect::<Vec<_>>();
        json!({"channels": self.peaks.iter().take(channels).map(of).collect::<Vec<_>>()})
    }
}

/// What the file says of itself, and where its samples begin; none while that has not come.
fn head(bytes: &[u8]) -> Result<Option<(Format, usize)>, NoWave> {
    let Some(riff) = bytes.get(..12) else { return Ok(None) };
    if &riff[..4] != b"RIFF" || &riff[8..] != b"WAVE" {
        return Err(NoWave);
    }
    let (mut at, mut format) = (12_usize, None);
    loop {
        let Some(chunk) = bytes.get(at..at.saturating_add(8)) else { return Ok(None) };
        let size = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]) as usize;
        let body = at + 8;
        match (&chunk[..4], format) {
            (b"data", Some(format)) => return Ok(Some((format, body))),
            (b"data", None) => return Err(NoWave),
            (b"fmt ", _) => {
                let Some(fields) = bytes.get(body..body + 16) else { return Ok(None) };
                let u16_at = |at: usize| u64::from(u16::from_le_bytes([fields[at], fields[at + 1]]));
                let rate = u64::from(u32::from_le_bytes([fields[4], fields[5], fields[6], fields[7]]));
                let channels = u16_at(2);
                if !(1..=2).contains(&channels) || u16_at(14) != 16 || !(1..=384_000).contains(&rate) {
                    return Err(NoWave);
                }
                format = Some(Format { channels, rate });
            }
            _ => {}
        }
        // chunks begin at even bytes
        at = body.checked_add(size).and_then(|end| end.checked_add(size & 1)).ok_or(NoWave)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(channels: u16, rate: u32, samples: &[i16]) -> Vec<u8> {
        let mut bytes = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0".to_vec();
        bytes.extend(channels.to_le_bytes());
        bytes.extend(rate.to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(16_u16.to_le_bytes());
        bytes.extend(b"LIST\x03\0\0\0abc\0data\xff\xff\xff\xff");
        bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        bytes
    }

    fn peaks(bytes: &[u8], piece: usize, duration_ms: u64) -> Result<Vec<Vec<u64>>, NoWave> {
        let mut waveform = Waveform::new(duration_ms);
        for piece in bytes.chunks(piece) {
            waveform.take(piece)?;
        }
        Ok(serde_json::from_value(waveform.json()["channels"].clone()).unwrap())
    }

    #[test]
    fn each_channel_has_its_peaks_where_they_are_heard_whatever_the_pieces() {
        // a second of 600 frames a second: one for each part
        let samples: Vec<i16> =
            (0..600).flat_map(|n| [if n == 300 { -32_768 } else { 0 }, if n == 599 { 8_192 } else { 0 }]).collect();
        let bytes = wav(2, 600, &samples);
        for piece in [1, 2, 3, 7, 44, 10_000] {
            let found = peaks(&bytes, piece, 1_000).unwrap();
            assert_eq!(found.len(), 2);
            assert_eq!((found[0][299], found[0][300], found[0][301]), (0, 100, 0), "pieces of {piece}");
            assert_eq!((found[1][598], found[1][599]), (0, 50), "pieces of {piece}");
        }
    }

    #[test]
    fn sound_longer_than_was_said_is_in_the_last_part() {
        let mut samples = vec![0; 1200];
        samples[1199] = 32_767;
        assert_eq!(peaks(&wav(1, 600, &samples), 100, 1_000).unwrap()[0][599], 100);
    }

    #[test]
    fn what_is_no_wave_is_refused_and_what_is_cut_off_is_not_guessed() {
        let check = |bytes: &[u8], expected: Result<usize, NoWave>| {
            assert_eq!(peaks(bytes, 5, 1_000).map(|channels| channels.len()), expected);
        };
        let whole = wav(2, 8_000, &[1, 2]);
        check(&whole, Ok(2));
        check(&whole[..20], Ok(0));
        check(b"", Ok(0));
        check(b"OggS............", Err(NoWave));
        check(&wav(3, 8_000, &[]), Err(NoWave));
        check(&wav(0, 8_000, &[]), Err(NoWave));
        check(&wav(1, 0, &[]), Err(NoWave));
        check(b"RIFF\0\0\0\0WAVEdata\0\0\0\0\0\0", Err(NoWave));
        check(&[b"RIFF\0\0\0\0WAVE".as_slice(), &b"abcd\0\0\0\0".repeat(600)].concat(), Err(NoWave));
    }
}

//! Audio files as they come, a piece at a time: WAV and MP3 in, 16-bit samples at a rate that recordings have out.
//!
//! Files of strangers are taken apart here, in the process that has neither keys nor recordings. One that is damaged ends in an error.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _};
use symphonia::core::audio::AudioSpec;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;
use tokio::sync::mpsc;

/// Rates that recordings have, in samples a second.
const RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Rates that files may have.
const RATE_MIN: u32 = 4_000;
const RATE_MAX: u32 = 192_000;

/// Samples of each channel that are resampled at once.
const CHUNK: usize = 1_024;

/// Bytes at a file's beginning, up to the end of the shortest description of a WAV's form.
const HEAD_BYTES: usize = 36;

/// What a file sounds like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Samples a second, one of [`RATES`].
    pub(super) rate_hz: u32,
    /// 1 or 2.
    pub(super) channels: u8,
}

/// Why there is no sound in it. Holds nothing of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unheard {
    /// It is neither.
    #[error("the audio is neither WAV (PCM of 8 or 16 bits, A-law, µ-law) nor MP3")]
    Unknown,
    /// Too many channels.
    #[error("the audio has more than two channels")]
    Channels,
    /// A rate that nobody speaks at.
    #[error("the audio's rate is not between 4 and 192 kHz")]
    Rate,
    /// It does not go on as it began.
    #[error("the audio's rate or channels change in the middle")]
    Changes,
    /// It cannot be decoded.
    #[error("the audio is damaged, or in a codec that is not taken here")]
    Damaged,
    /// There is none.
    #[error("there is no audio in the file")]
    Empty,
    /// Whoever wanted it does not want it any more.
    #[error("the audio is not wanted any more")]
    Unwanted,
}

/// The pieces of a file as something to read from. That no more come is its end; whether it is whole, whoever sends them knows.
struct Pieces {
    come: mpsc::Receiver<Bytes>,
    now: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.come.blocking_recv() {
                Some(next) => self.now = next,
                None => return Ok(0),
            }
        }
        let length = self.now.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.now.split_to(length));
        Ok(length)
    }
}

impl Pieces {
    /// The same, from its beginning. A WAV of A-law or µ-law may describe its form in 16 bytes or in 18; the decoder knows the second.
    fn mended(mut self) -> Self {
        let mut head = BytesMut::with_capacity(HEAD_BYTES + 2);
        while head.len() < HEAD_BYTES {
            match self.come.blocking_recv() {
                Some(next) => head.extend_from_slice(&next),
                None => break,
            }
        }
        let is_short = head.starts_with(b"RIFF")
            && head.get(8..20).is_some_and(|head| head == b"WAVEfmt \x10\0\0\0")
            && head.get(20..22).is_some_and(|tag| matches!(tag, [6 | 7, 0]));
        if is_short {
            let rest = head.split_off(HEAD_BYTES);
            if let Some(length) = head.get_mut(16) {
                *length = 18;
            }
            if let Some(length) = head.get_mut(4..8) {
                let all = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
                length.copy_from_slice(&all.saturating_add(2).to_le_bytes());
            }
            head.extend_from_slice(&[0, 0]);
            head.unsplit(rest);
        }
        self.now = head.freeze();
        self
    }
}

/// Decodes a file, on a thread that may wait: `take` gets its form and the next samples, the channels' in turns, and says whether it wants more.
pub(super) fn decode(pieces: mpsc::Receiver<Bytes>, take: &mut dyn FnMut(Form, &[i16]) -> bool) -> Result<(), Unheard> {
    // The decoder's arithmetic gives up on some figures that no file of a recorder has. Nothing of it is used afterwards.
    catch_unwind(AssertUnwindSafe(|| heard(pieces, take))).unwrap_or(Err(Unheard::Damaged))
}

fn heard(pieces: mpsc::Receiver<Bytes>, take: &mut dyn FnMut(Form, &[i16]) -> bool) -> Result<(), Unheard> {
    let pieces = Pieces { come: pieces, now: Bytes::new() }.mended();
    let stream = MediaSourceStream::new(Box::new(ReadOnlySource::new(pieces)), MediaSourceStreamOptions::default());
    let probe = symphonia::default::get_probe();
    let format = probe.probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default());
    let mut format = format.map_err(|_| Unheard::Unknown)?;
    let track = format.default_track(TrackType::Audio).ok_or(Unheard::Unknown)?;
    let params = track.codec_params.as_ref().and_then(|params| params.audio()).ok_or(Unheard::Unknown)?;
    let decoder = symphonia::default::get_codecs().make_audio_decoder(params, &AudioDecoderOptions::default());
    let (decoder, id) = (decoder.map_err(|_| Unheard::Damaged)?, track.id);
    let mut heard = Heard { spec: None, rates: None, decoded: Vec::new(), samples: Vec::new(), is_any: false };
    heard.all(&mut *format, decoder, id, take)
}

/// How far a file was heard.
struct Heard {
    spec: Option<(AudioSpec, Form)>,
    rates: Option<Rates>,
    decoded: Vec<i16>,
    samples: Vec<i16>,
    is_any: bool,
}

impl Heard {
    fn all(
        &mut self,
        format: &mut dyn FormatReader,
        mut decoder: Box<dyn AudioDecoder>,
        track: u32,
        take: &mut dyn FnMut(Form, &[i16]) -> bool,
    ) -> Result<(), Unheard> {
        loop {
            let packet = match format.next_packet() {
                Ok(Some(packet)) if packet.track_id == track => packet,
                Ok(Some(_)) => continue,
                Ok(None) => break,
                Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(Error::ResetRequired) => return Err(Unheard::Changes),
                Err(_) => return Err(Unheard::Damaged),
            };
            let decoded = match decoder.decode(&packet) {
                Ok(decoded) => decoded,
                // The first frames of an MP3 that was cut refer to what is not there.
                Err(Error::DecodeError(_)) if !self.is_any => continue,
                Err(_) => return Err(Unheard::Damaged),
            };
            let form = self.form(decoded.spec())?;
            decoded.copy_to_vec_interleaved(&mut self.decoded);
            self.is_any |= !self.decoded.is_empty();
            self.samples.clear();
            match &mut self.rates {
                None => self.samples.extend_from_slice(&self.decoded),
                Some(rates) => rates.push(&self.decoded, &mut self.samples)?,
            }
            self.give(form, take)?;
        }
        let Some((_, form)) = self.spec.as_ref().filter(|_| self.is_any) else { return Err(Unheard::Empty) };
        let form = *form;
        if let Some(rates) = &mut self.rates {
            self.samples.clear();
            rates.finish(&mut self.samples)?;
            self.give(form, take)?;
        }
        Ok(())
    }

    fn give(&self, form: Form, take: &mut dyn FnMut(Form, &[i16]) -> bool) -> Result<(), Unheard> {
        if self.samples.is_empty() || take(form, &self.samples) { Ok(()) } else { Err(Unheard::Unwanted) }
    }

    /// The form of what comes out, the same from the first packet to the last.
    fn form(&mut self, spec: &AudioSpec) -> Result<Form, Unheard> {
        if let Some((known, form)) = &self.spec {
            return if known == spec { Ok(*form) } else { Err(Unheard::Changes) };
        }
        let channels = u8::try_from(spec.channels().count()).ok().filter(|count| (1..=2).contains(count));
        let channels = channels.ok_or(Unheard::Channels)?;
        if !(RATE_MIN..=RATE_MAX).contains(&spec.rate()) {
            return Err(Unheard::Rate);
        }
        let form = Form { rate_hz: kept_rate(spec.rate()), channels };
        if form.rate_hz != spec.rate() {
            self.rates = Some(Rates::new(spec.rate(), form)?);
        }
        self.spec = Some((spec.clone(), form));
        Ok(form)
    }
}

/// The rate in which audio of that rate is kept: one that loses nothing, where there is one.
fn kept_rate(rate: u32) -> u32 {
    RATES.into_iter().find(|kept| *kept >= rate).unwrap_or(48_000)
}

/// Another rate.
struct Rates {
    inner: Fft<f32>,
    from: u32,
    form: Form,
    /// Samples that wait, the channels' in turns.
    waiting: Vec<f32>,
    /// How much of what comes out next was before the first sample.
    lead: usize,
    came: u64,
    gone: u64,
}

impl Rates {
    fn new(from: u32, form: Form) -> Result<Self, Unheard> {
        let channels = usize::from(form.channels);
        let inner = Fft::new(from as usize, form.rate_hz as usize, CHUNK, channels, FixedSync::Input);
        let inner = inner.map_err(|_| Unheard::Rate)?;
        let lead = inner.output_delay();
        Ok(Self { inner, from, form, waiting: Vec::new(), lead, came: 0, gone: 0 })
    }

    fn push(&mut self, samples: &[i16], out: &mut Vec<i16>) -> Result<(), Unheard> {
        let channels = usize::from(self.form.channels);
        self.came += (samples.len() / channels) as u64;
        self.waiting.extend(samples.iter().map(|sample| f32::from(*sample)));
        while self.waiting.len() >= self.inner.input_frames_next() * channels {
            let next = self.inner.input_frames_next();
            self.make(next, u64::MAX, out)?;
            self.waiting.drain(..next * channels);
        }
        Ok(())
    }

    /// The rest: as much comes out as went in.
    fn finish(&mut self, out: &mut Vec<i16>) -> Result<(), Unheard> {
        let all = (self.came * u64::from(self.form.rate_hz)).div_ceil(u64::from(self.from));
        let mut rest = self.waiting.len() / usize::from(self.form.channels);
        while self.gone < all {
            self.waiting.resize(self.inner.input_frames_next() * usize::from(self.form.channels), 0.0);
            self.make(rest, all, out)?;
            (rest, self.waiting) = (0, Vec::new());
        }
        Ok(())
    }

    /// Makes what the first of those that wait become.
    fn make(&mut self, frames: usize, all: u64, out: &mut Vec<i16>) -> Result<(), Unheard> {
        let channels = usize::from(self.form.channels);
        let waiting = InterleavedSlice::new(&self.waiting[..], channels, self.inner.input_frames_next());
        let waiting = waiting.map_err(|_| Unheard::Damaged)?;
        let indexing = Indexing { partial_len: Some(frames), ..Indexing::default() };
        let made = self.inner.process(&waiting, Some(&indexing)).map_err(|_| Unheard::Damaged)?.take_data();
        let length = made.len() / channels;
        let lead = self.lead.min(length);
        self.lead -= lead;
        let wanted = usize::try_from(all.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        let to = length.min(lead.saturating_add(wanted));
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float to integer cast saturates, which is what is wanted"
        )]
        out.extend(made.iter().take(to * channels).skip(lead * channels).map(|sample| sample.round() as i16));
        self.gone += (to - lead) as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use proptest::prelude::*;

    use super::*;

    /// RIFF/WAVE: format tag, bits, rate, channels, data.
    fn wav(tag: u16, bits: u16, rate: u32, channels: u16, data: &[u8]) -> Vec<u8> {
        let frame = channels * bits / 8;
        let mut file = Vec::new();
        file.extend_from_slice(b"RIFF");
        file.extend_from_slice(&(36 + u32::try_from(data.len()).unwrap()).to_le_bytes());
        file.extend_from_slice(b"WAVEfmt \x10\0\0\0");
        file.extend_from_slice(&tag.to_le_bytes());
        file.extend_from_slice(&channels.to_le_bytes());
        file.extend_from_slice(&rate.to_le_bytes());
        file.extend_from_slice(&(rate * u32::from(frame)).to_le_bytes());
        file.extend_from_slice(&frame.to_le_bytes());
        file.extend_from_slice(&bits.to_le_bytes());
        file.extend_from_slice(b"data");
        file.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        file.extend_from_slice(data);
        file
    }

    /// Decodes a file that comes in pieces of that length.
    fn of_file(file: &[u8], piece: usize) -> Result<(Option<Form>, Vec<i16>), Unheard> {
        let (send, come) = mpsc::channel(2);
        let pieces: Vec<Bytes> = file.chunks(piece).map(Bytes::copy_from_slice).collect();
        let sending = std::thread::spawn(move || pieces.into_iter().all(|piece| send.blocking_send(piece).is_ok()));
        let (mut form, mut all) = (None, Vec::new());
        let done = decode(come, &mut |now, samples| {
            assert!(form.is_none_or(|known| known == now));
            form = Some(now);
            all.extend_from_slice(samples);
            true
        });
        sending.join().unwrap();
        done.map(|()| (form, all))
    }

    fn tone(rate: u32, count: u32, channels: u16) -> Vec<i16> {
        let sample = |n: u32, channel: u16| {
            let frequency = 300.0 * f64::from(channel + 1);
            (10_000.0 * (2.0 * PI * frequency * f64::from(n) / f64::from(rate)).sin()).round() as i16
        };
        (0..count).flat_map(|n| (0..channels).map(move |channel| sample(n, channel))).collect()
    }

    fn bytes(samples: &[i16]) -> Vec<u8> {
        samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
    }

    #[test]
    fn the_documented_forms_are_heard() {
        let samples = tone(8_000, 1_000, 2);
        let stereo = Some(Form { rate_hz: 8_000, channels: 2 });
        assert_eq!(of_file(&wav(1, 16, 8_000, 2, &bytes(&samples)), 77).unwrap(), (stereo, samples));
        let mono = Some(Form { rate_hz: 16_000, channels: 1 });
        assert_eq!(of_file(&wav(1, 8, 16_000, 1, &[0, 128, 255]), 1).unwrap(), (mono, vec![-32_768, 0, 32_512]));
        // ITU-T G.711: the least and the greatest of each.
        let law = |tag, data| of_file(&wav(tag, 8, 8_000, 1, data), 9).unwrap().1;
        assert_eq!(law(6, &[0x2a, 0xaa, 0x55]), [-32_256, 32_256, -8]);
        assert_eq!(law(7, &[0x00, 0x80, 0xff]), [-32_124, 32_124, 0]);
    }

    /// A tone that comes in another rate keeps its place, its length and its height.
    #[track_caller]
    fn check_rate(from: u32, to: u32, channels: u16) {
        let (form, samples) = of_file(&wav(1, 16, from, channels, &bytes(&tone(from, from, channels))), 4_096).unwrap();
        assert_eq!(form, Some(Form { rate_hz: to, channels: u8::try_from(channels).unwrap() }));
        let truth = tone(to, to, channels);
        assert_eq!(samples.len(), truth.len(), "{from}");
        // What was before the first sample and after the last was silence.
        let edge = samples.len() / 6;
        let inner = edge..samples.len() - edge;
        let worst =
            samples[inner.clone()].iter().zip(&truth[inner]).map(|(a, b)| (i32::from(*a) - i32::from(*b)).abs());
        assert!(worst.clone().max().unwrap() < 60, "{from}: {:?}", worst.max());
    }

    #[test]
    fn other_rates_become_the_next_that_recordings_have() {
        check_rate(44_100, 48_000, 2);
        check_rate(44_100, 48_000, 1);
        check_rate(22_050, 24_000, 1);
        check_rate(11_025, 12_000, 2);
        check_rate(32_000, 48_000, 1);
        check_rate(96_000, 48_000, 1);
        check_rate(6_000, 8_000, 1);
    }

    #[test]
    fn what_is_no_audio_is_told() {
        fn check(file: &[u8], expected: &str) {
            let told = of_file(file, 4_096).map(|(form, _)| form).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
        check(b"", "neither WAV");
        check(&[0; 5_000], "neither WAV");
        check(b"<html>no sound in here</html>", "neither WAV");
        check(&wav(1, 16, 8_000, 1, &[]), "no audio");
        check(&wav(1, 16, 8_000, 3, &[0; 600]), "more than two");
        check(&wav(1, 16, 2_000, 1, &[0; 600]), "rate");
        check(&wav(1, 16, 200_000, 1, &[0; 600]), "rate");
        check(&wav(0x31, 8, 8_000, 1, &[0; 600]), "neither WAV");
    }

    #[test]
    fn who_wants_no_more_is_given_no_more() {
        let (send, come) = mpsc::channel(100);
        for piece in wav(1, 16, 8_000, 1, &[0; 50_000]).chunks(1_000) {
            send.blocking_send(Bytes::copy_from_slice(piece)).unwrap();
        }
        drop(send);
        let mut times = 0;
        let done = decode(come, &mut |_, _| {
            times += 1;
            false
        });
        assert!(matches!(done, Err(Unheard::Unwanted)));
        assert_eq!(times, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn nothing_panics(tag in prop::sample::select(vec![1_u16, 6, 7, 2, 0xfffe]), bits in prop::sample::select(vec![0_u16, 4, 8, 16, 24, 32]), rate in prop::sample::select(vec![0_u32, 1, 7_999, 8_000, 44_100, u32::MAX / 8]), channels in 0_u16..4, data in prop::collection::vec(any::<u8>(), 0..3_000), spoilt in prop::option::of((0_usize..60, any::<u8>()))) {
            let frame = u32::from(channels * bits / 8);
            let mut file = wav(tag, bits, if rate.checked_mul(frame).is_some() { rate } else { 8_000 }, channels, &data);
            if let Some((at, byte)) = spoilt
                && let Some(place) = file.get_mut(at)
            {
                *place = byte;
            }
            let _ = of_file(&file, 500);
        }

        #[test]
        fn no_mpeg_panics(head in prop::sample::select(vec![0xfb_u8, 0xf3, 0xe3, 0xfa]), data in prop::collection::vec(any::<u8>(), 0..3_000)) {
            let file: Vec<u8> = data.chunks(200).flat_map(|chunk| [&[0xff, head], chunk].concat()).collect();
            let _ = of_file(&file, 500);
        }
    }
}

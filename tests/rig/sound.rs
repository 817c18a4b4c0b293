//! Voices, G.711, WAV, and comparing what was said with what was recorded.

use std::f64::consts::TAU;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use super::random::Chance;

/// Samples of a packet of 20 ms at 8 kHz.
pub const FRAME: usize = 160;

/// Speech-like sound: syllables of a buzzing voice whose pitch and colour change, with pauses. Two speakers differ in pitch and in
/// every syllable. `rate` is in Hz.
pub fn speech(seed: u64, pitch: f64, rate: usize, samples: usize) -> Vec<i16> {
    let mut chance = Chance(seed);
    let mut sound = Vec::with_capacity(samples);
    let mut phase = 0.0;
    while sound.len() < samples {
        let length = rate * (120 + chance.below(180) as usize) / 1_000;
        let (from, to) = (pitch * (1.0 + 0.15 * chance.noise()), pitch * (1.0 + 0.15 * chance.noise()));
        let colours: Vec<f64> = (1..=10).map(|n| (0.2 + chance.noise().abs()) / f64::from(n)).collect();
        for at in 0..length {
            let done = at as f64 / length as f64;
            phase += TAU * (from + (to - from) * done) / rate as f64;
            let tones = colours.iter().zip(1..).map(|(colour, n)| colour * (phase * f64::from(n)).sin());
            let loudness = (done * std::f64::consts::PI).sin();
            let sample = 5_000.0 * loudness * tones.sum::<f64>() + 40.0 * chance.noise();
            sound.push(sample.clamp(-30_000.0, 30_000.0) as i16);
        }
        let pause = rate * chance.below(80) as usize / 1_000;
        sound.extend((0..pause).map(|_| (40.0 * chance.noise()) as i16));
    }
    sound.truncate(samples);
    sound
}

/// G.711 µ-law, the byte whose meaning is nearest (ITU-T G.711).
pub fn ulaw(samples: &[i16]) -> Vec<u8> {
    let encode = |sample: &i16| {
        let negative = *sample < 0;
        let magnitude = (i32::from(*sample).abs()).min(32_635) + 132;
        let segment = (0..8).rev().find(|segment| magnitude >= 132 << segment).unwrap_or(0);
        let step = (magnitude >> (segment + 3)) & 0x0f;
        let byte = (segment << 4 | step) as u8 | if negative { 0x80 } else { 0 };
        !byte
    };
    samples.iter().map(encode).collect()
}

/// What µ-law bytes mean (ITU-T G.711, scaled to 16 bits).
pub fn from_ulaw(bytes: &[u8]) -> Vec<i16> {
    let decode = |byte: &u8| {
        let byte = !*byte;
        let magnitude = ((i32::from(byte & 0x0f) << 3) + 132) << ((byte >> 4) & 7);
        let value = (magnitude - 132) as i16;
        if byte & 0x80 == 0 { value } else { -value }
    };
    bytes.iter().map(decode).collect()
}

/// A voice as its packets carry it: µ-law payloads of 20 ms.
pub fn packets(sound: &[i16]) -> Vec<Vec<u8>> {
    ulaw(sound).chunks_exact(FRAME).map(<[u8]>::to_vec).collect()
}

/// 16-bit WAV.
pub struct Wav {
    pub rate: usize,
    pub channels: Vec<Vec<i16>>,
}

impl Wav {
    pub fn parse(bytes: &[u8]) -> Self {
        assert_eq!((&bytes[..4], &bytes[8..12]), (b"RIFF".as_slice(), b"WAVE".as_slice()), "not a WAV file");
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
        let (mut at, mut rate, mut channels) = (12, 0, Vec::new());
        while at + 8 <= bytes.len() {
            let (name, length, body) = (&bytes[at..at + 4], u32_at(at + 4), at + 8);
            match name {
                b"fmt " => {
                    assert_eq!((u16_at(body), u16_at(body + 14)), (1, 16), "16-bit PCM");
                    rate = u32_at(body + 4);
                    channels = vec![Vec::new(); u16_at(body + 2)];
                }
                b"data" => {
                    assert_eq!(body + length, bytes.len(), "the file is as long as it says");
                    let samples = bytes[body..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
                    let count = channels.len();
                    samples.enumerate().for_each(|(n, sample)| channels[n % count].push(sample));
                }
                _ => {}
            }
            at = body + length + length % 2;
        }
        assert!(rate > 0 && !channels.is_empty(), "a WAV file without format");
        Self { rate, channels }
    }

    pub fn samples(&self) -> usize {
        self.channels[0].len()
    }
}

/// Where in a channel the sound begins, when the channel is exactly that sound with silence around it.
pub fn find_exact(channel: &[i16], sound: &[i16]) -> Result<usize, String> {
    let Some(latest) = channel.len().checked_sub(sound.len()) else {
        return Err(format!("the channel has {} samples, the sound {}", channel.len(), sound.len()));
    };
    let fits = |offset: &usize| channel[*offset..offset + sound.len()] == *sound;
    let offset = (0..=latest).find(fits).ok_or_else(|| describe(channel, sound, latest))?;
    let around = channel[..offset].iter().chain(&channel[offset + sound.len()..]);
    match around.filter(|sample| **sample != 0).count() {
        0 => Ok(offset),
        loud => Err(format!("{loud} samples around the sound are not silent")),
    }
}

/// How near the best offset comes, for whoever must find out why it is not exact.
fn describe(channel: &[i16], sound: &[i16], latest: usize) -> String {
    let equal = |offset: usize| channel[offset..].iter().zip(sound).filter(|(a, b)| a == b).count();
    let best = (0..=latest.min(2_000)).max_by_key(|offset| equal(*offset)).unwrap_or(0);
    let first = channel[best..].iter().zip(sound).position(|(a, b)| a != b);
    format!(
        "not the same: at the best offset, {best}, {} of {} samples are, the first other one is {first:?}",
        equal(best),
        sound.len()
    )
}

/// How alike a channel and a sound are: the normalised cross-correlation at the best offset from `-lag_max` to `lag_max`.
pub fn correlation(channel: &[i16], sound: &[i16], lag_max: isize) -> f64 {
    (-lag_max..=lag_max).map(|lag| correlation_at(channel, sound, lag)).fold(-1.0, f64::max)
}

fn correlation_at(channel: &[i16], sound: &[i16], lag: isize) -> f64 {
    let (from, skip) = (usize::try_from(lag).unwrap_or(0), usize::try_from(-lag).unwrap_or(0));
    let pairs = channel.iter().skip(from).zip(sound.iter().skip(skip)).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let (dot, left, right) =
        pairs.fold((0.0, 0.0, 0.0), |(dot, left, right), (a, b)| (dot + a * b, left + a * a, right + b * b));
    dot / (left * right).sqrt().max(1.0)
}

/// How loud a tone of this frequency is where it is loudest: its amplitude in the loudest 20 ms (Goertzel's algorithm, windows that overlap by
/// half). A tone that goes on gives its own amplitude.
pub fn tone_level(channel: &[i16], rate: usize, frequency: f64) -> f64 {
    let window = rate / 50;
    let starts = (0..channel.len().saturating_sub(window)).step_by(window / 2);
    starts.map(|start| goertzel(&channel[start..start + window], rate, frequency)).fold(0.0, f64::max)
}

fn goertzel(window: &[i16], rate: usize, frequency: f64) -> f64 {
    let turn = TAU * frequency / rate as f64;
    let (mut before, mut last) = (0.0, 0.0);
    for (n, sample) in window.iter().enumerate() {
        // A Hann window keeps what begins and ends, and other frequencies, out.
        let shape = 0.5 - 0.5 * (TAU * n as f64 / window.len() as f64).cos();
        (before, last) = (last, shape * f64::from(*sample) + 2.0 * turn.cos() * last - before);
    }
    let power = last * last + before * before - 2.0 * turn.cos() * last * before;
    // The shape halves the sum, and a sine's amplitude is twice its part.
    4.0 * power.max(0.0).sqrt() / window.len() as f64
}

/// A sine.
pub fn tone(frequency: f64, amplitude: f64, rate: usize, samples: usize) -> Vec<i16> {
    (0..samples).map(|n| (amplitude * (TAU * frequency * n as f64 / rate as f64).sin()) as i16).collect()
}

/// Where a sound is in a channel, to the sample.
pub fn position(channel: &[i16], sound: &[i16]) -> Option<usize> {
    channel.windows(sound.len()).position(|window| window == sound)
}

/// That a channel is exactly what was said and silence: µ-law packets, each part with the number of the packet that it began with,
/// and where it was said but for `slack` samples.
pub fn check_parts(channel: &[i16], parts: &[(&[Vec<u8>], usize)], slack: usize, what: &str) {
    let mut silent = channel.to_vec();
    let mut offsets = Vec::new();
    for (said, at) in parts.iter().filter(|(said, _)| !said.is_empty()) {
        let heard = from_ulaw(&said.concat());
        let found = position(channel, &heard)
            .unwrap_or_else(|| panic!("{what}: what began with packet {at} is not there to the sample"));
        silent[found..found + heard.len()].fill(0);
        offsets.push(found as i64 - (at * FRAME) as i64);
    }
    let loud = silent.iter().filter(|sample| **sample != 0).count();
    assert_eq!(loud, 0, "{what}: so many samples are not silent where nothing may be");
    let slid = offsets.iter().any(|offset| offset.abs_diff(offsets[0]) > slack as u64);
    assert!(!slid, "{what} has slid: {offsets:?}");
}

/// What ffmpeg makes of a file: its channels at `rate`.
pub fn decoded(file: &[u8], rate: usize, channels: usize) -> Vec<Vec<i16>> {
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-i", "-", "-f", "s16le", "-ar", &rate.to_string()])
        .args(["-ac", &channels.to_string(), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg cannot be run; `make test` installs it");
    let (mut input, file) = (ffmpeg.stdin.take().unwrap(), file.to_vec());
    let feeder = thread::spawn(move || input.write_all(&file).unwrap());
    let output = ffmpeg.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success(), "ffmpeg cannot read it");
    let mut found = vec![Vec::new(); channels];
    let samples = output.stdout.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
    samples.enumerate().for_each(|(n, sample)| found[n % channels].push(sample));
    found
}

/// G.722 as ffmpeg makes it, in packets of 20 ms.
pub fn g722(voice: &[i16]) -> Vec<Vec<u8>> {
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "-", "-f", "g722", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ffmpeg cannot be run; `make test` installs it");
    let mut input = ffmpeg.stdin.take().unwrap();
    let bytes: Vec<u8> = voice.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let feeder = thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = ffmpeg.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success());
    output.stdout.chunks_exact(160).map(<[u8]>::to_vec).collect()
}

/// Opus in packets of 20 ms, from 48 kHz.
pub fn opus(voice: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    voice.chunks_exact(960).map(|frame| encoder.encode_vec(frame, 1_000).unwrap()).collect()
}

//! What the tests share: signals, encoders to make payloads with, the conversation in one process, and judges.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::f64::consts::PI;
use std::io::Write;
use std::process::{Command, Stdio};

use callvault_render_protocol::*;

/// A track with one codec.
pub fn track(codec: Codec, clock_rate: u32, channel: u8) -> TrackSpec {
    TrackSpec { codecs: vec![CodecSpec::new(codec, clock_rate)], channel }
}

pub fn job(output: Output, tracks: Vec<TrackSpec>, end_ticks: u64) -> Job {
    Job { output, tracks, channels: 2, start_ticks: 0, end_ticks, mask_tones: false, measured: vec![], ffmpeg: None }
}

pub fn packet(track: u8, position: u64, payload: Vec<u8>) -> Packet {
    Packet { track, codec: 0, position, payload }
}

/// Everything that came of a job.
#[derive(Debug)]
pub struct Rendered {
    pub file: Vec<u8>,
    pub opus: Vec<Packet>,
    pub undecodable: Vec<(u8, String)>,
    pub end: Result<Stats, (FailureKind, String)>,
}

impl Rendered {
    pub fn stats(&self) -> &Stats {
        self.end.as_ref().unwrap()
    }
}

/// Runs jobs through one conversation.
pub fn converse(jobs: &[(Job, Vec<Packet>)]) -> Vec<Rendered> {
    let (mut input, mut scratch) = (Vec::new(), Vec::new());
    for (job, packets) in jobs {
        write_frame(&mut input, &ToRender::Job(job.clone()), &mut scratch).unwrap();
        for packet in packets {
            write_frame(&mut input, &ToRender::Packet(packet.clone()), &mut scratch).unwrap();
        }
        write_frame(&mut input, &ToRender::End, &mut scratch).unwrap();
    }
    let mut output = Vec::new();
    callvault_render::serve(&mut input.as_slice(), &mut output).unwrap();
    let (mut output, mut all, mut now) = (output.as_slice(), Vec::new(), Vec::new());
    while let Some(message) = read_frame::<_, FromRender>(&mut output, &mut scratch).unwrap() {
        let ends = matches!(message, FromRender::Done(_) | FromRender::Failed { .. });
        now.push(message);
        if ends {
            all.push(collect(std::mem::take(&mut now)));
        }
    }
    assert!(now.is_empty());
    all
}

fn collect(messages: Vec<FromRender>) -> Rendered {
    let mut rendered =
        Rendered { file: vec![], opus: vec![], undecodable: vec![], end: Err((FailureKind::BadJob, String::new())) };
    for message in messages {
        match message {
            FromRender::Data(data) => {
                assert!(data.len() <= DATA_BYTES_MAX);
                rendered.file.extend(data);
            }
            FromRender::OpusPacket { track, position, payload } => rendered.opus.push(packet(track, position, payload)),
            FromRender::Undecodable { track, encoding, .. } => rendered.undecodable.push((track, encoding)),
            FromRender::Done(stats) => rendered.end = Ok(stats),
            FromRender::Failed { kind, text } => rendered.end = Err((kind, text)),
        }
    }
    rendered
}

pub fn render(job: &Job, packets: &[Packet]) -> Rendered {
    converse(&[(job.clone(), packets.to_vec())]).remove(0)
}

/// The samples of a WAV file, channel by channel, and its rate.
pub fn wav(file: &[u8]) -> (u32, Vec<Vec<i16>>) {
    assert_eq!((&file[..4], &file[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
    let field = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!(field(4) as usize, file.len() - 8);
    assert_eq!(field(40) as usize, file.len() - 44);
    let channels = usize::from(file[22]);
    assert_eq!(usize::from(file[32]), 2 * channels);
    (field(24), channels_of(&file[44..], channels))
}

/// Interleaved little-endian samples, channel by channel.
pub fn channels_of(bytes: &[u8], channels: usize) -> Vec<Vec<i16>> {
    let samples: Vec<i16> = bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
    (0..channels).map(|c| samples.iter().skip(c).step_by(channels).copied().collect()).collect()
}

/// Something like a voice: harmonics on a wandering pitch, in syllables with pauses; `who` makes it another person.
pub fn voice(who: u32, rate: u32, count: usize) -> Vec<i16> {
    let who = f64::from(who);
    let mut phase = 0.0;
    let mut noise = 12_345_u32 + who as u32;
    (0..count)
        .map(|n| {
            let t = n as f64 / f64::from(rate);
            let pitch =
                105.0 + 60.0 * who + 25.0 * (2.0 * PI * (0.7 + 0.2 * who) * t).sin() + 9.0 * (2.0 * PI * 2.3 * t).sin();
            let now = phase;
            phase += 2.0 * PI * pitch / f64::from(rate);
            let syllable = (2.0 * PI * (2.9 + 0.6 * who) * t + who).sin().max(0.0).powf(0.6);
            let tone: f64 = (1..=14).map(|k| (f64::from(k) * now).sin() / f64::from(k).powf(0.9)).sum();
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hiss = f64::from((noise >> 16) as i16) / 32_768.0;
            (6_000.0 * syllable * tone / 2.0 + 60.0 * hiss) as i16
        })
        .collect()
}

/// G.711 µ-law decoding, by the recommendation's table of decision values rather than by shifting.
pub fn ulaw_value(code: u8) -> i16 {
    let inverted = 255 - code;
    let (segment, step) = ((inverted % 128) / 16, i32::from(inverted % 16));
    let chord = [0, 31, 95, 223, 479, 991, 2_015, 4_063][usize::from(segment)];
    let width = 2 << segment;
    let magnitude = if segment == 0 { 2 * step } else { chord + width / 2 + step * width - i32::from(segment == 0) };
    let value = 4 * magnitude;
    (if inverted >= 128 { -value } else { value }) as i16
}

pub fn ulaw(samples: &[i16]) -> Vec<u8> {
    let mut table: Vec<(i16, u8)> = (0..=255).map(|code| (ulaw_value(code), code)).collect();
    table.sort();
    let nearest = |sample: i16| {
        let at = table.partition_point(|(value, _)| *value < sample);
        let candidates = &table[at.saturating_sub(1)..(at + 1).min(256)];
        candidates.iter().min_by_key(|(value, _)| (i32::from(*value) - i32::from(sample)).abs()).unwrap().1
    };
    samples.iter().map(|sample| nearest(*sample)).collect()
}

/// Packets of 20 ms of µ-law from `position` on.
pub fn ulaw_packets(track: u8, position: u64, samples: &[i16]) -> Vec<Packet> {
    let payloads = ulaw(samples);
    (0..).zip(payloads.chunks(160)).map(|(n, payload)| packet(track, position + n * 960, payload.to_vec())).collect()
}

/// Packets of 20 ms of G.722 from `position` on.
pub fn g722_packets(track: u8, position: u64, samples: &[i16]) -> Vec<Packet> {
    let mut encoder = ezk_g722::libg722::encoder::Encoder::new(ezk_g722::libg722::Bitrate::Mode1_64000, false, false);
    (0..).zip(samples.chunks(320)).map(|(n, part)| packet(track, position + n * 960, encoder.encode(part))).collect()
}

/// Packets of 20 ms of Opus at 48 kHz, as a telephone would send them.
pub fn opus_packets(track: u8, position: u64, samples: &[i16]) -> Vec<Packet> {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(32_000)).unwrap();
    let frames = (0..).zip(samples.chunks_exact(960));
    frames.map(|(n, frame)| packet(track, position + n * 960, encoder.encode_vec(frame, 1_500).unwrap())).collect()
}

/// All packets in order of position.
pub fn in_order(tracks: Vec<Vec<Packet>>) -> Vec<Packet> {
    let mut packets: Vec<Packet> = tracks.into_iter().flatten().collect();
    packets.sort_by_key(|packet| packet.position);
    packets
}

/// Normalised correlation of `b`, moved by `lag`, with `a`.
pub fn correlation(a: &[i16], b: &[i16], lag: isize) -> f64 {
    let pairs = (0..a.len()).filter_map(|n| {
        let moved = n.checked_add_signed(lag)?;
        Some((f64::from(a[n]), f64::from(*b.get(moved)?)))
    });
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa == 0.0 || bb == 0.0 { 0.0 } else { ab / (aa * bb).sqrt() }
}

/// The lag within `reach` at which `b` is most like `a`, and how like it is.
pub fn best_lag(a: &[i16], b: &[i16], reach: isize) -> (isize, f64) {
    (-reach..=reach).map(|lag| (lag, correlation(a, b, lag))).max_by(|x, y| x.1.total_cmp(&y.1)).unwrap()
}

/// What ffmpeg makes of some input; its absence fails the test.
pub fn ffmpeg(input_options: &[&str], input: &[u8], output_options: &[&str]) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-nostdin"])
        .args(input_options)
        .args(["-i", "pipe:0"])
        .args(output_options)
        .arg("pipe:1");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.expect("ffmpeg must be installed to judge the encoders (apt install ffmpeg)");
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "ffmpeg: {complaints}");
    output.stdout
}

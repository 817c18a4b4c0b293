//! Packets of codecs that ffmpeg decodes, on their way to becoming uncompressed ones.
//!
//! Packets are gathered, the frames of each such codec of a track are decoded by one run of ffmpeg, and every packet gets the samples
//! back that its frames became: decoders are synchronous, a frame in is a frame out. So positions stay what they were. ffmpeg is a
//! child of this process and lives in its sandbox; it gets and gives bytes through pipes.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use callvault_render_protocol::{ForeignCodec, Job, Packet, TICKS_PER_SECOND};

use crate::depacketise::{Piece, decoded_spec, header, pieces};

/// So much of a recording is gathered, in ticks: 30 s. A run of ffmpeg takes a tenth of a second however little it decodes.
const BATCH_TICKS: u64 = 30 * TICKS_PER_SECOND as u64;

/// Packets gathered at most, and bytes of their payloads, which is hundreds of times what such codecs make of 30 s.
const BATCH_PACKETS_MAX: usize = 50_000;
const BATCH_BYTES_MAX: usize = 16 << 20;

/// Frames that are decoded once more before those of the next batch, so that the decoder is where it was: a quarter of a second and more.
const REPEATED_FRAMES: usize = 25;

/// Runs of ffmpeg that may fail in a job. After a failure the packets are divided to find the ones that are to blame; hostile ones could
/// keep that going for ever.
const FAILED_RUNS_MAX: u32 = 64;

/// Samples that may come beyond those expected: what a decoder makes of the padding at the end.
const SURPLUS_SAMPLES_MAX: usize = 48_000;

/// Between the packets as they come and the job that takes them.
pub(crate) struct Foreign {
    /// The codecs of each track that are decoded here.
    codecs: HashMap<(u8, u8), ForeignCodec>,
    ffmpeg: String,
    waiting: Vec<Packet>,
    waiting_bytes: usize,
    /// The last frames of each codec of a track.
    before: HashMap<(u8, u8), Vec<Piece>>,
    failures_left: u32,
}

impl Foreign {
    /// For a job; what is decoded here is uncompressed in the job from now on. None when there is nothing to do here.
    pub(crate) fn new(job: &mut Job) -> Option<Self> {
        let ffmpeg = job.ffmpeg.clone()?;
        let mut codecs = HashMap::new();
        for (track, spec) in (0_u8..).zip(&mut job.tracks) {
            for (place, spec) in (0_u8..).zip(&mut spec.codecs) {
                if let Some(codec) = ForeignCodec::of(spec) {
                    codecs.insert((track, place), codec);
                    *spec = decoded_spec(&codec);
                }
            }
        }
        let waiting = Vec::new();
        let before = HashMap::new();
        let some = !codecs.is_empty();
        some.then_some(Self { codecs, ffmpeg, waiting, waiting_bytes: 0, before, failures_left: FAILED_RUNS_MAX })
    }

    /// Takes a packet; those that can go on now are given back, in their order.
    pub(crate) fn take(&mut self, packet: Packet) -> Vec<Packet> {
        let first = self.waiting.first().map_or(packet.position, |first| first.position);
        let is_full = packet.position.saturating_sub(first) >= BATCH_TICKS
            || self.waiting.len() >= BATCH_PACKETS_MAX
            || self.waiting_bytes >= BATCH_BYTES_MAX;
        let ready = if is_full { self.finish() } else { Vec::new() };
        self.waiting_bytes += packet.payload.len();
        self.waiting.push(packet);
        ready
    }

    /// Everything that waits, decoded. A packet that cannot be decoded has an empty payload, which every decoder refuses.
    pub(crate) fn finish(&mut self) -> Vec<Packet> {
        let mut packets = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        for (key, codec) in self.codecs.clone() {
            let mine = packets.iter_mut().filter(|packet| (packet.track, packet.codec) == key);
            let mut mine: Vec<&mut Packet> = mine.collect();
            if mine.is_empty() {
                continue;
            }
            let parts: Vec<Option<Vec<Piece>>> = mine.iter().map(|packet| pieces(&codec, &packet.payload)).collect();
            let before = self.before.remove(&key).unwrap_or_default();
            let decoded = self.decode(&codec, &before, &parts);
            for (packet, payload) in mine.iter_mut().zip(decoded) {
                packet.payload = payload;
            }
            let frames = parts.into_iter().flatten().flatten().filter(|piece| matches!(piece, Piece::Frame(..)));
            let mut last: Vec<Piece> = before.into_iter().chain(frames).collect();
            last.drain(..last.len().saturating_sub(REPEATED_FRAMES));
            self.before.insert(key, last);
        }
        packets
    }

    /// The payloads that packets of these parts become.
    fn decode(&mut self, codec: &ForeignCodec, before: &[Piece], parts: &[Option<Vec<Piece>>]) -> Vec<Vec<u8>> {
        match self.run(codec, before, parts) {
            Some(samples) => cut(parts, &samples),
            None if parts.len() > 1 && self.failures_left > 0 => {
                self.failures_left -= 1;
                let (one, two) = parts.split_at(parts.len() / 2);
                let mut payloads = self.decode(codec, before, one);
                payloads.extend(self.decode(codec, &[], two));
                payloads
            }
            None => vec![Vec::new(); parts.len()],
        }
    }

    /// The decoded frames of these parts, in network order; none when ffmpeg did not make of them what is expected.
    fn run(&self, codec: &ForeignCodec, before: &[Piece], parts: &[Option<Vec<Piece>>]) -> Option<Vec<u8>> {
        let frames = parts.iter().flatten().flatten();
        let (mut input, mut bytes) = (header(codec).to_vec(), 0);
        for piece in before.iter().chain(frames.clone()) {
            if let Piece::Frame(frame, samples) = piece {
                input.extend_from_slice(frame);
                bytes += 2 * samples;
            }
        }
        let skipped: usize = 2 * before.iter().map(Piece::samples).sum::<usize>();
        if bytes == skipped {
            return Some(Vec::new());
        }
        let mut decoded = ffmpeg(&self.ffmpeg, codec, &input, bytes + 2 * SURPLUS_SAMPLES_MAX)?;
        if decoded.len() < bytes {
            return None;
        }
        decoded.truncate(bytes);
        decoded.drain(..skipped);
        Some(decoded)
    }
}

/// Gives each packet the samples of its frames, and zeros for its silence.
fn cut(parts: &[Option<Vec<Piece>>], mut samples: &[u8]) -> Vec<Vec<u8>> {
    let each = parts.iter().map(|pieces| {
        let mut payload = Vec::new();
        for piece in pieces.iter().flatten() {
            let bytes = 2 * piece.samples();
            match piece {
                Piece::Frame(..) => {
                    let (mine, rest) = samples.split_at(bytes.min(samples.len()));
                    payload.extend_from_slice(mine);
                    samples = rest;
                }
                Piece::Silence(_) => payload.resize(payload.len() + bytes, 0),
            }
        }
        payload
    });
    each.collect()
}

/// Runs ffmpeg on frames. None when it cannot be started, fails, or gives more than `bytes_max`.
fn ffmpeg(program: &str, codec: &ForeignCodec, input: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let rate = codec.rate().to_string();
    let code_size;
    let format: &[&str] = match codec {
        ForeignCodec::G723 => &["-f", "g723_1"],
        ForeignCodec::G726 { bits, little_endian } => {
            code_size = bits.to_string();
            let name = if *little_endian { "g726le" } else { "g726" };
            &["-f", name, "-code_size", &code_size, "-sample_rate", "8000"]
        }
        ForeignCodec::G729 => &["-f", "g729"],
        ForeignCodec::Gsm => &["-f", "gsm"],
        ForeignCodec::Ilbc { .. } => &["-f", "ilbc"],
        ForeignCodec::Amr { .. } => &["-f", "amr"],
    };
    let mut child = Command::new(program)
        .args(["-v", "quiet", "-nostdin", "-protocol_whitelist", "pipe", "-threads", "1"])
        .args(format)
        .args(["-i", "pipe:0", "-threads", "1", "-filter_threads", "1"])
        .args(["-f", "s16be", "-ac", "1", "-ar", &rate, "pipe:1"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let (mut to, from) = (child.stdin.take()?, child.stdout.take()?);
    let mut output = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let read = thread::scope(|scope| {
        // A pipe that breaks shows in what comes out.
        scope.spawn(move || drop(to.write_all(input)));
        let read = from.take(limit).read_to_end(&mut output);
        if read.is_err() || output.len() > bytes_max {
            let _ = child.kill();
        }
        read
    });
    let status = child.wait().ok()?;
    (read.is_ok() && output.len() <= bytes_max && status.success()).then_some(output)
}

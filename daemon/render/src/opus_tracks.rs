//! Each track encoded by itself, for the archive.
//!
//! A track becomes runs of mono Opus packets of 20 ms at the track's own audio rate. The first run's grid begins with the track's first
//! sample. Short holes are encoded as silence; a long one ends the run, so that a call on hold costs nothing, and the encoder and
//! the grid begin anew after it. A run ends with enough silence that a decoder, which gives everything out one pre-skip late,
//! gives out all of it.

use std::collections::VecDeque;

use callvault_render_protocol::{Codec, CodecSpec, FromRender, TICKS_PER_SECOND};

use crate::error::JobError;
use crate::opus_encode::OpusEncoder;

/// Longest hole that is encoded as silence, in ticks: one second. A run costs its decoder a start, which is heard if it happens at
/// every lost packet and not if it happens at every hold; a second of silence costs some 50 bytes.
const HOLE_TICKS_MAX: i64 = TICKS_PER_SECOND as i64;

/// The encoder of one track.
pub(crate) struct TrackEncoder {
    /// At the first sample, so that a track without audio costs nothing.
    encoder: Option<OpusEncoder>,
    rate: u32,
    bit_rate: u32,
    complexity: u8,
    /// The range to encode, in samples.
    from: i64,
    to: i64,
    /// Index of the first waiting sample while a run is open.
    run_at: Option<i64>,
    /// Samples of the run that do not fill a frame yet.
    waiting: Vec<i16>,
    pre_skip: u16,
    /// Position in ticks, and packet.
    packets: VecDeque<(i64, Vec<u8>)>,
}

impl TrackEncoder {
    /// `from..to` are the indices to encode, at `rate` Hz.
    pub(crate) fn new(rate: u32, from: i64, to: i64, bit_rate: u32, complexity: u8) -> Self {
        Self {
            encoder: None,
            rate,
            bit_rate,
            complexity,
            from,
            to,
            run_at: None,
            waiting: Vec::new(),
            pre_skip: 0,
            packets: VecDeque::new(),
        }
    }

    /// The codec of what came out; `None` when nothing did.
    pub(crate) fn spec(&self) -> Option<CodecSpec> {
        self.encoder.as_ref()?;
        Some(CodecSpec { pre_skip: self.pre_skip, ..CodecSpec::new(Codec::Opus, self.rate) })
    }

    /// The next samples; the first belongs at `first`, never before the end of the ones before.
    pub(crate) fn place(&mut self, first: i64, samples: &[i16]) -> Result<(), JobError> {
        let early = index(self.from - first).min(samples.len());
        let samples = &samples[early..];
        let first = first.max(self.from);
        let samples = &samples[..index(self.to - first).min(samples.len())];
        if samples.is_empty() {
            return Ok(());
        }
        self.advance(first)?;
        match self.end_of_waiting() {
            Some(end) => {
                let silence = index(first - end);
                self.waiting.resize(self.waiting.len() + silence, 0);
            }
            None => self.begin_run(first)?,
        }
        self.waiting.extend_from_slice(samples);
        self.encode_whole_frames()
    }

    /// Nothing more will be placed before `to`: ends the run when that makes the hole a long one.
    pub(crate) fn advance(&mut self, to: i64) -> Result<(), JobError> {
        let hole_max = HOLE_TICKS_MAX / self.ticks_per_sample();
        match self.end_of_waiting() {
            Some(end) if to - end > hole_max => self.end_run(),
            _ => Ok(()),
        }
    }

    /// Encodes what is left of the run.
    pub(crate) fn end_run(&mut self) -> Result<(), JobError> {
        let Some(encoder) = self.encoder.as_ref().filter(|_| self.run_at.is_some()) else { return Ok(()) };
        let late = index(i64::from(self.pre_skip) / self.ticks_per_sample());
        let length = (self.waiting.len() + late).next_multiple_of(encoder.frame_length());
        self.waiting.resize(length, 0);
        self.encode_whole_frames()?;
        self.run_at = None;
        Ok(())
    }

    /// The earliest position in ticks that a packet to come can have, when it is already known.
    fn next_position(&self) -> Option<i64> {
        self.run_at.map(|at| at * self.ticks_per_sample())
    }

    fn begin_run(&mut self, at: i64) -> Result<(), JobError> {
        match &mut self.encoder {
            Some(encoder) => encoder.reset()?,
            None => {
                let mut encoder = OpusEncoder::new(self.rate, 1, self.bit_rate, self.complexity)?;
                self.pre_skip = encoder.pre_skip()?;
                self.encoder = Some(encoder);
            }
        }
        self.waiting.clear();
        self.run_at = Some(at);
        Ok(())
    }

    fn encode_whole_frames(&mut self) -> Result<(), JobError> {
        let ticks_per_sample = self.ticks_per_sample();
        let (Some(encoder), Some(at)) = (&mut self.encoder, &mut self.run_at) else { return Ok(()) };
        let mut frames = self.waiting.chunks_exact(encoder.frame_length());
        for frame in &mut frames {
            self.packets.push_back((*at * ticks_per_sample, encoder.encode(frame)?));
            *at += i64::try_from(frame.len()).unwrap_or(0);
        }
        let rest = frames.remainder().len();
        self.waiting.drain(..self.waiting.len() - rest);
        Ok(())
    }

    fn end_of_waiting(&self) -> Option<i64> {
        self.run_at.map(|at| at + i64::try_from(self.waiting.len()).unwrap_or(0))
    }

    fn ticks_per_sample(&self) -> i64 {
        i64::from(TICKS_PER_SECOND / self.rate)
    }
}

/// The next packet of all tracks, in order of position, that no packet to come can precede; `until` is what tracks without an open
/// run may still begin at, in ticks.
pub(crate) fn next_packet(tracks: &mut [TrackEncoder], until: i64) -> Option<FromRender> {
    let safe = tracks.iter().filter_map(TrackEncoder::next_position).fold(until, i64::min);
    let heads =
        tracks.iter().enumerate().filter_map(|(n, track)| track.packets.front().map(|(position, _)| (*position, n)));
    let (position, n) = heads.min()?;
    if position > safe {
        return None;
    }
    let (_, payload) = tracks[n].packets.pop_front()?;
    let (Ok(track), Ok(position)) = (u8::try_from(n), u64::try_from(position)) else { return None };
    Some(FromRender::OpusPacket { track, position, payload })
}

fn index(value: i64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

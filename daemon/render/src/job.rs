//! One job: from its packets to its output.

use callvault_render_protocol::{
    FromRender, Job, Output, POST_ROLL_TICKS, Packet, Stats, TICKS_PER_SECOND, TONE_MARGIN_TICKS, TrackStats,
};

use crate::decode::Plan;
use crate::error::JobError;
use crate::heard::Meter;
use crate::mix::{FileEncoder, Mix};
use crate::mp3::{self, Mp3};
use crate::ogg_opus::OggOpus;
use crate::opus_tracks::{self, TrackEncoder};
use crate::peaks::Peaks;
use crate::tones::{self, Masking};
use crate::track::{Event, Track};
use crate::wav::Wav;

/// How far behind the newest packet's position samples may still be placed, in ticks: 10 ms, for a resampler's delay (4 ms) and
/// small slips. Packets that carry their audio late add their pre-skip to it.
const SLACK_TICKS: i64 = 480;

/// How much becomes ready before it is given out, in ticks: a quarter of a second. Blocks of a packet's length would cost more in
/// messages than in encoding.
const STEP_TICKS: i64 = 12_000;

/// The rate of an output in which nothing at all was decoded, in Hz.
const RATE_WITHOUT_AUDIO: u32 = 8_000;

/// Takes the job's output.
pub(crate) type Emit<'a> = dyn FnMut(FromRender) -> Result<(), JobError> + 'a;

/// A job under way.
pub(crate) struct Run {
    job: Job,
    tracks: Vec<Track>,
    target: Target,
    /// Position of the newest packet, in ticks.
    position: u64,
    slack_ticks: i64,
    /// Everything before this instant is given out, in ticks.
    advanced_to: i64,
}

enum Target {
    File { mix: Mix, encoder: Box<dyn FileEncoder>, rate: u32, masking: Vec<Option<Masking>> },
    Tracks { encoders: Vec<TrackEncoder>, meters: Vec<Meter>, peaks: Vec<Peaks> },
}

impl Target {
    /// Takes samples of track `n`, whose output channel is `channel`.
    fn place(&mut self, n: usize, channel: u8, first: i64, samples: &[i16]) -> Result<(), JobError> {
        match self {
            Self::File { mix, masking, .. } => {
                match &mut masking[n] {
                    Some(masking) => masking.hold(first, samples),
                    None => mix.place(channel, first, samples),
                }
                Ok(())
            }
            Self::Tracks { encoders, meters, peaks } => {
                meters[n].take(samples);
                peaks[n].take(first, samples);
                encoders[n].place(first, samples)
            }
        }
    }

    /// Gives everything before `to` (at the output's rate) to the channels.
    fn release(&mut self, job: &Job, to: i64) {
        let Self::File { mix, masking, .. } = self else { return };
        for (spec, masking) in job.tracks.iter().zip(masking) {
            if let Some(masking) = masking {
                masking.release(to, |first, samples| mix.place(spec.channel, first, samples));
            }
        }
    }
}

impl Run {
    /// Begins a job.
    pub(crate) fn new(job: Job, emit: &mut Emit<'_>) -> Result<Self, JobError> {
        job.check().map_err(|error| JobError::bad_job(error.to_string()))?;
        check_decodable(&job)?;
        let (tracks, target) = match job.output {
            Output::OpusTracks { bit_rate, complexity } => for_tracks(&job, bit_rate, complexity),
            _ => for_file(&job)?,
        };
        let pre_skip = job.tracks.iter().flat_map(|track| &track.codecs).map(|spec| spec.pre_skip).max().unwrap_or(0);
        let margin = if job.mask_tones { i64::try_from(TONE_MARGIN_TICKS).unwrap_or(0) } else { 0 };
        let slack_ticks = SLACK_TICKS + margin + i64::from(pre_skip);
        let mut run = Self { job, tracks, target, position: 0, slack_ticks, advanced_to: 0 };
        if let Target::File { encoder, .. } = &mut run.target {
            let mut file = Vec::new();
            encoder.begin(&mut file)?;
            emit_file(&mut file, emit)?;
        }
        Ok(run)
    }

    /// Takes the next packet.
    pub(crate) fn packet(&mut self, packet: &Packet, emit: &mut Emit<'_>) -> Result<(), JobError> {
        if packet.position < self.position {
            return Err(JobError::bad_job("packets do not come in order of position"));
        }
        self.position = packet.position;
        if packet.position >= self.job.end_ticks.saturating_add(POST_ROLL_TICKS) {
            return Ok(());
        }
        let position = ticks(packet.position);
        // First, so that a silence before this packet is streamed and never held.
        if position - self.slack_ticks - self.advanced_to >= STEP_TICKS {
            self.advance(position - self.slack_ticks, emit)?;
        }
        let n = usize::from(packet.track);
        let track =
            self.tracks.get_mut(n).ok_or_else(|| JobError::bad_job("a packet names a track that the job has not"))?;
        let spec = &self.job.tracks[n];
        let target = &mut self.target;
        let event = track.packet(packet.codec, position, &packet.payload, &mut |first, samples| {
            target.place(n, spec.channel, first, samples)
        })?;
        if let Target::File { masking, .. } = target
            && let (Some(masking), Some(codec)) = (&mut masking[n], spec.codecs.get(usize::from(packet.codec)))
            && tones::is_event(codec)
        {
            masking.event(codec.clock_rate, position, &packet.payload);
        }
        if let Some(Event::Undecodable { encoding, text }) = event {
            emit(FromRender::Undecodable { track: packet.track, encoding, text })?;
        }
        Ok(())
    }

    /// Gives out everything before `to` (ticks).
    fn advance(&mut self, to: i64, emit: &mut Emit<'_>) -> Result<(), JobError> {
        self.advanced_to = to;
        self.settle(|track, place| track.advance(samples(to, track.rate()), place))?;
        if let Target::File { rate, .. } = &self.target {
            let to = samples(to, *rate);
            self.target.release(&self.job, to);
        }
        match &mut self.target {
            Target::File { mix, encoder, rate, .. } => {
                mix.advance(samples(to, *rate), encoder.as_mut(), &mut |file| emit_file(file, emit))
            }
            Target::Tracks { encoders, .. } => {
                for (track, encoder) in self.tracks.iter().zip(encoders.iter_mut()) {
                    encoder.advance(samples(to, track.rate()))?;
                }
                emit_packets(encoders, to, emit)
            }
        }
    }

    /// Lets every track place samples that it still holds.
    fn settle(
        &mut self,
        mut each: impl FnMut(&mut Track, &mut crate::track::Place<'_>) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        for (n, track) in self.tracks.iter_mut().enumerate() {
            let (target, channel) = (&mut self.target, self.job.tracks[n].channel);
            each(track, &mut |first, samples| target.place(n, channel, first, samples))?;
        }
        Ok(())
    }

    /// Ends the job.
    pub(crate) fn finish(mut self, emit: &mut Emit<'_>) -> Result<Stats, JobError> {
        self.check_decoded()?;
        self.settle(Track::flush)?;
        self.target.release(&self.job, i64::MAX);
        let sample_rate = match &mut self.target {
            Target::File { mix, encoder, rate, .. } => {
                mix.advance(i64::MAX, encoder.as_mut(), &mut |file| emit_file(file, emit))?;
                let mut file = Vec::new();
                encoder.finish(&mut file)?;
                emit_file(&mut file, emit)?;
                *rate
            }
            Target::Tracks { encoders, .. } => {
                for encoder in encoders.iter_mut() {
                    encoder.end_run()?;
                }
                emit_packets(encoders, i64::MAX, emit)?;
                0
            }
        };
        Ok(Stats { ticks: self.job.ticks(), sample_rate, tracks: self.track_stats() })
    }

    fn track_stats(&self) -> Vec<TrackStats> {
        let mut stats: Vec<TrackStats> = self.tracks.iter().map(Track::stats).collect();
        if let Target::Tracks { encoders, meters, peaks } = &self.target {
            for (stats, ((encoder, meter), peaks)) in stats.iter_mut().zip(encoders.iter().zip(meters).zip(peaks)) {
                stats.output = encoder.spec();
                stats.heard = meter.heard();
                stats.peaks = peaks.seen();
            }
        }
        stats
    }

    /// A file of nothing but silence, because nothing could be decoded, is no result.
    fn check_decoded(&self) -> Result<(), JobError> {
        let stats = self.track_stats();
        let undecodable = stats.iter().any(|track| track.undecodable_packets > 0);
        let decoded = stats.iter().any(|track| track.packets > 0 || track.decode_errors > 0);
        if undecodable && !decoded { Err(undecodable_error(&self.job)) } else { Ok(()) }
    }
}

/// Gives a job up before its first byte when there is speech in it and none can be decoded.
fn check_decodable(job: &Job) -> Result<(), JobError> {
    let plans = || job.tracks.iter().flat_map(|track| &track.codecs).map(|spec| Plan::new(spec, None));
    let decodable = plans().any(|plan| matches!(plan, Plan::Decode { .. }));
    let undecodable = plans().any(|plan| matches!(plan, Plan::Undecodable(_)));
    if undecodable && !decodable { Err(undecodable_error(job)) } else { Ok(()) }
}

fn undecodable_error(job: &Job) -> JobError {
    let mut reasons: Vec<String> = job
        .tracks
        .iter()
        .flat_map(|track| &track.codecs)
        .filter_map(|spec| match Plan::new(spec, None) {
            Plan::Undecodable(text) => Some(text),
            Plan::Decode { .. } | Plan::Silent => None,
        })
        .collect();
    reasons.sort();
    reasons.dedup();
    JobError::unsupported(format!(
        "no track can be decoded: {}; export the payloads as received instead",
        reasons.join(", ")
    ))
}

fn for_tracks(job: &Job, bit_rate: u32, complexity: u8) -> (Vec<Track>, Target) {
    let (mut tracks, mut encoders, mut meters, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (n, spec) in (0_u8..).zip(&job.tracks) {
        let rate = spec.codecs.iter().filter_map(Plan::wanted_rate).max().unwrap_or(RATE_WITHOUT_AUDIO);
        let (from, to) = range(job, rate);
        peaks.push(Peaks::new(from, to));
        // Of a track that is only measured there is nothing to encode.
        let to = if job.measured.contains(&n) { from } else { to };
        tracks.push(Track::new(spec, rate));
        encoders.push(TrackEncoder::new(rate, from, to, bit_rate, complexity));
        meters.push(Meter::new(rate));
    }
    (tracks, Target::Tracks { encoders, meters, peaks })
}

fn for_file(job: &Job) -> Result<(Vec<Track>, Target), JobError> {
    let wanted = job.tracks.iter().flat_map(|track| &track.codecs).filter_map(Plan::wanted_rate);
    let highest = wanted.max().unwrap_or(RATE_WITHOUT_AUDIO);
    let rate = if matches!(job.output, Output::Mp3 { .. }) { mp3::rate_for(highest) } else { highest };
    let (from, to) = range(job, rate);
    let encoder: Box<dyn FileEncoder> = match job.output {
        Output::Wav => Box::new(Wav::new(job.channels, rate, u64::try_from(to - from).unwrap_or(0))),
        Output::OggOpus { bit_rate, complexity } => {
            Box::new(OggOpus::new(job.channels, rate, bit_rate, complexity, job.ticks())?)
        }
        Output::Mp3 { bit_rate_kbps, quick } => Box::new(Mp3::new(job.channels, rate, bit_rate_kbps, quick)?),
        Output::OpusTracks { .. } => return Err(JobError::bad_job("tracks are not a file")),
    };
    let tracks = job.tracks.iter().map(|spec| Track::new(spec, rate)).collect();
    let masking = job.tracks.iter().map(|spec| {
        let is_masked = job.mask_tones && spec.codecs.iter().any(tones::is_event);
        is_masked.then(|| Masking::new(rate))
    });
    let masking = masking.collect();
    Ok((tracks, Target::File { mix: Mix::new(job.channels, rate, from, to), encoder, rate, masking }))
}

/// The job's range in samples. Both ends are rounded the same way, so that ranges that meet in time meet in samples.
fn range(job: &Job, rate: u32) -> (i64, i64) {
    (samples(ticks(job.start_ticks), rate), samples(ticks(job.end_ticks), rate))
}

/// The last sample at or before an instant in ticks, or the last there can be.
fn samples(ticks: i64, rate: u32) -> i64 {
    ticks.div_euclid(i64::from(TICKS_PER_SECOND / rate))
}

fn ticks(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

fn emit_file(file: &mut Vec<u8>, emit: &mut Emit<'_>) -> Result<(), JobError> {
    for block in file.chunks(callvault_render_protocol::DATA_BYTES_MAX) {
        emit(FromRender::Data(block.to_vec()))?;
    }
    file.clear();
    Ok(())
}

fn emit_packets(encoders: &mut [TrackEncoder], until: i64, emit: &mut Emit<'_>) -> Result<(), JobError> {
    while let Some(packet) = opus_tracks::next_packet(encoders, until) {
        emit(packet)?;
    }
    Ok(())
}

//! One track: packets in, samples at the output's rate out, each at its place.
//!
//! Packets that follow each other form a run; inside a run the decoder and the resampler go on without a seam. A hole, a change of
//! codec, or packets of an encoder that began anew end the run.

use callvault_render_protocol::{CodecSpec, TICKS_PER_SECOND, TrackSpec, TrackStats};

use crate::decode::{Decoder, Plan, SLIP_TICKS_MAX};
use crate::error::JobError;
use crate::resample::Resampler;

/// Where decoded samples go: the index of the first at the output's rate, counted from the recording's start, and the samples.
pub(crate) type Place<'a> = dyn FnMut(i64, &[i16]) -> Result<(), JobError> + 'a;

/// What a packet was, when it was not decoded.
pub(crate) enum Event {
    /// The first packet of a codec that nothing here decodes.
    Undecodable { encoding: String, text: String },
}

/// One track's decoding.
pub(crate) struct Track {
    codecs: Vec<CodecEntry>,
    rate: u32,
    run: Option<Run>,
    /// End of what was placed, at the output's rate: the earlier wins.
    placed_to: i64,
    decoded: Vec<i16>,
    resampled: Vec<i16>,
    stats: TrackStats,
}

struct CodecEntry {
    spec: CodecSpec,
    plan: Plan,
    told: bool,
}

/// Packets of one codec that follow each other.
struct Run {
    codec: u8,
    rate: u32,
    decoder: Decoder,
    resampler: Option<Resampler>,
    /// Index after the last sample that was decoded, at the codec's rate; `None` before the first.
    next: Option<i64>,
    /// A packet that follows continues; otherwise it begins a new run with this decoder.
    open: bool,
    last_sample: i16,
}

impl Track {
    /// `rate` is the output's, in Hz.
    pub(crate) fn new(spec: &TrackSpec, rate: u32) -> Self {
        let codecs = spec.codecs.iter();
        let codecs =
            codecs.map(|spec| CodecEntry { spec: spec.clone(), plan: Plan::new(spec, Some(rate)), told: false });
        Self {
            codecs: codecs.collect(),
            rate,
            run: None,
            placed_to: 0,
            decoded: Vec::new(),
            resampled: Vec::new(),
            stats: TrackStats::default(),
        }
    }

    /// The output's rate in Hz.
    pub(crate) fn rate(&self) -> u32 {
        self.rate
    }

    /// What became of the packets so far.
    pub(crate) fn stats(&self) -> TrackStats {
        self.stats.clone()
    }

    /// Takes one packet at `position` (ticks); its samples are placed now or, the last few milliseconds, later.
    pub(crate) fn packet(
        &mut self,
        codec: u8,
        position: i64,
        payload: &[u8],
        place: &mut Place<'_>,
    ) -> Result<Option<Event>, JobError> {
        let entry = self
            .codecs
            .get_mut(usize::from(codec))
            .ok_or_else(|| JobError::bad_job("a packet names a codec that its track has not"))?;
        let rate = match &entry.plan {
            Plan::Decode { rate } => *rate,
            Plan::Silent => {
                self.stats.silent_packets += 1;
                return Ok(None);
            }
            Plan::Undecodable(text) => {
                self.stats.undecodable_packets += 1;
                let first = !std::mem::replace(&mut entry.told, true);
                return Ok(first.then(|| Event::Undecodable {
                    encoding: entry.spec.codec.encoding().to_owned(),
                    text: text.clone(),
                }));
            }
        };
        let pre_skip = entry.spec.pre_skip;
        let at = ((position - i64::from(pre_skip)) * i64::from(rate)).div_euclid(i64::from(TICKS_PER_SECOND));
        self.join_run(codec, rate, at, pre_skip, payload, place)?;
        self.decode(at, pre_skip, payload, place)?;
        Ok(None)
    }

    /// Makes `self.run` the run that a packet at `at` belongs to.
    fn join_run(
        &mut self,
        codec: u8,
        rate: u32,
        at: i64,
        pre_skip: u16,
        payload: &[u8],
        place: &mut Place<'_>,
    ) -> Result<(), JobError> {
        let slip_max =
            i64::try_from(SLIP_TICKS_MAX * u64::from(rate) / u64::from(TICKS_PER_SECOND)).unwrap_or(0).max(1);
        let same_codec = self.run.as_mut().filter(|run| run.codec == codec);
        let Some(run) = same_codec else {
            self.flush(place)?;
            let spec = &self.codecs[usize::from(codec)].spec;
            let decoder = Decoder::new(spec, rate).map_err(JobError::encoder)?;
            let resampler = (rate != self.rate).then(|| Resampler::new(rate, self.rate));
            self.run = Some(Run { codec, rate, decoder, resampler, next: None, open: false, last_sample: 0 });
            return Ok(());
        };
        let Some(next) = run.next else { return Ok(()) };
        if run.open && (at - next).abs() <= slip_max {
            return Ok(());
        }
        match u64::try_from(at - next) {
            Ok(hole) if pre_skip == 0 => {
                let hole_ticks = hole * u64::from(TICKS_PER_SECOND) / u64::from(rate);
                if run.decoder.recover(hole_ticks, payload, &mut self.decoded) {
                    return self.fill(at, place);
                }
                run.decoder.skip(hole_ticks);
            }
            // Our own encoder begins anew after a hole; and an overlap is another sender.
            _ => run.decoder.reset(),
        }
        self.flush(place)
    }

    /// Places what was recovered of a hole that reaches to `at`: the run goes on without a seam.
    fn fill(&mut self, at: i64, place: &mut Place<'_>) -> Result<(), JobError> {
        self.stats.recovered_packets += 1;
        let from = at - i64::try_from(self.decoded.len()).unwrap_or(0);
        self.place_decoded(from, 0, place)
    }

    /// Decodes a payload of the current run and places it at `at`, at the codec's rate.
    fn decode(&mut self, at: i64, pre_skip: u16, payload: &[u8], place: &mut Place<'_>) -> Result<(), JobError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if run.decoder.decode(payload, &mut self.decoded).is_err() {
            self.stats.decode_errors += 1;
            return Ok(());
        }
        self.stats.packets += 1;
        self.place_decoded(at, pre_skip, place)
    }

    /// Places `self.decoded`, the next of the current run, at `at`.
    fn place_decoded(&mut self, at: i64, pre_skip: u16, place: &mut Place<'_>) -> Result<(), JobError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if self.decoded.is_empty() {
            return Ok(());
        }
        let end = at + i64::try_from(self.decoded.len()).unwrap_or(0);
        let start = match run.next {
            Some(next) if run.open => fit(&mut self.decoded, at, next, run.last_sample),
            _ => {
                // What the encoder gave out before its first sample, and what lies before the recording.
                let lead_in = i64::from(pre_skip) * i64::from(run.rate) / i64::from(TICKS_PER_SECOND);
                cut_front(&mut self.decoded, lead_in.max(-at));
                at + lead_in.max(-at).max(0)
            }
        };
        let Some(last) = self.decoded.last() else {
            return Ok(());
        };
        run.last_sample = *last;
        let begins = !std::mem::replace(&mut run.open, true);
        run.next = Some(end);
        let (first, samples) = match &mut run.resampler {
            None => (start, &self.decoded),
            Some(resampler) => {
                if begins {
                    resampler.start(start);
                }
                self.resampled.clear();
                (resampler.push(&self.decoded, &mut self.resampled), &self.resampled)
            }
        };
        place_after(&mut self.placed_to, first, samples, place)
    }

    /// Places everything that belongs before `to` (at the output's rate): the caller knows that no packet before it is to come.
    pub(crate) fn advance(&mut self, to: i64, place: &mut Place<'_>) -> Result<(), JobError> {
        match self.pending_from() {
            Some(from) if from < to => self.flush(place),
            _ => Ok(()),
        }
    }

    /// The index of the first sample that is known and not yet placed, at the output's rate.
    pub(crate) fn pending_from(&self) -> Option<i64> {
        let run = self.run.as_ref().filter(|run| run.open)?;
        run.resampler.as_ref().map(Resampler::pending_from)
    }

    /// Ends the run's samples; its decoder stays for a packet that follows.
    pub(crate) fn flush(&mut self, place: &mut Place<'_>) -> Result<(), JobError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if !std::mem::replace(&mut run.open, false) {
            return Ok(());
        }
        let Some(resampler) = &mut run.resampler else { return Ok(()) };
        self.resampled.clear();
        let first = resampler.finish(&mut self.resampled);
        place_after(&mut self.placed_to, first, &self.resampled, place)
    }
}

/// Makes the samples of a packet at `at` continue a run that ended at `next`, a few samples off at most, and gives back where they
/// now begin. A missing sample is held, a surplus one dropped.
fn fit(samples: &mut Vec<i16>, at: i64, next: i64, last: i16) -> i64 {
    if at < next {
        cut_front(samples, next - at);
    } else {
        let missing = usize::try_from(at - next).unwrap_or(0);
        samples.splice(..0, std::iter::repeat_n(last, missing));
    }
    next
}

fn cut_front(samples: &mut Vec<i16>, count: i64) {
    let count = usize::try_from(count).unwrap_or(0).min(samples.len());
    samples.drain(..count);
}

fn place_after(placed_to: &mut i64, first: i64, samples: &[i16], place: &mut Place<'_>) -> Result<(), JobError> {
    let covered = usize::try_from(*placed_to - first).unwrap_or(0).min(samples.len());
    let samples = &samples[covered..];
    if samples.is_empty() {
        return Ok(());
    }
    let first = first.max(*placed_to);
    *placed_to = first + i64::try_from(samples.len()).unwrap_or(0);
    place(first, samples)
}

//! Checks the child's output against the job: the child has met callers' bytes, so what it says is judged like any peer's.

use crate::{DATA_BYTES_MAX, FromRender, Job, Output, PEAK_PARTS, POST_ROLL_TICKS, RenderError, TICKS_PER_SECOND};

/// Longest Opus packet of one 20 ms frame, in bytes (RFC 6716 section 3.2.1), with room for the code bytes.
const OPUS_PACKET_BYTES_MAX: usize = 1_280;

/// Most bytes of a rendered file per second of audio: two channels of 16 bits at 48 kHz, the largest output there is.
const FILE_BYTES_PER_SECOND_MAX: u64 = 4 * TICKS_PER_SECOND as u64;

/// What a file may have beyond its audio, in bytes: headers, tags, the encoder's last frames.
const FILE_BYTES_BESIDE_AUDIO: u64 = 64 * 1024;

/// Longest text that is passed on from the child, in characters.
const TEXT_CHARS_MAX: usize = 300;

/// Follows one job's output.
pub(crate) struct Witness<'a> {
    job: &'a Job,
    bytes_left: u64,
    position: u64,
}

impl<'a> Witness<'a> {
    pub(crate) fn new(job: &'a Job) -> Self {
        let audio = job.ticks().div_ceil(u64::from(TICKS_PER_SECOND)).saturating_mul(FILE_BYTES_PER_SECOND_MAX);
        Self { job, bytes_left: audio.saturating_add(FILE_BYTES_BESIDE_AUDIO), position: 0 }
    }

    /// Lets a message pass that the job can account for; texts are cut and cleaned of control characters.
    pub(crate) fn check(&mut self, message: FromRender) -> Result<FromRender, RenderError> {
        let as_tracks = matches!(self.job.output, Output::OpusTracks { .. });
        match message {
            FromRender::Data(data) => {
                rule(!as_tracks, "file data in a job for tracks")?;
                rule(data.len() <= DATA_BYTES_MAX, "a block of data above the limit")?;
                self.bytes_left = u64::try_from(data.len())
                    .ok()
                    .and_then(|length| self.bytes_left.checked_sub(length))
                    .ok_or(RenderError::Malformed("more data than the job can account for"))?;
                Ok(FromRender::Data(data))
            }
            FromRender::OpusPacket { track, position, payload } => {
                rule(as_tracks, "a track's packet in a job for a file")?;
                self.check_track(track)?;
                rule(
                    !payload.is_empty() && payload.len() <= OPUS_PACKET_BYTES_MAX,
                    "an Opus packet of impossible length",
                )?;
                rule(position >= self.position, "a position that goes back")?;
                rule(position < self.job.end_ticks.saturating_add(POST_ROLL_TICKS), "a position beyond the job")?;
                self.position = position;
                Ok(FromRender::OpusPacket { track, position, payload })
            }
            FromRender::Undecodable { track, encoding, text } => {
                self.check_track(track)?;
                Ok(FromRender::Undecodable { track, encoding: clean(&encoding), text: clean(&text) })
            }
            FromRender::Done(stats) => {
                rule(stats.tracks.len() == self.job.tracks.len(), "statistics of other tracks than the job's")?;
                let is_drawn =
                    |peaks: &[u8]| [0, PEAK_PARTS].contains(&peaks.len()) && peaks.iter().all(|peak| *peak <= 100);
                rule(stats.tracks.iter().all(|track| is_drawn(&track.peaks)), "a waveform that cannot be")?;
                Ok(FromRender::Done(stats))
            }
            FromRender::Failed { kind, text } => Ok(FromRender::Failed { kind, text: clean(&text) }),
        }
    }

    fn check_track(&self, track: u8) -> Result<(), RenderError> {
        rule(usize::from(track) < self.job.tracks.len(), "a track that the job has not")
    }
}

fn rule(kept: bool, what: &'static str) -> Result<(), RenderError> {
    if kept { Ok(()) } else { Err(RenderError::Malformed(what)) }
}

fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, CodecSpec, FailureKind, Stats, TrackSpec, TrackStats};

    fn job(output: Output) -> Job {
        let track = TrackSpec { codecs: vec![CodecSpec::new(Codec::Pcmu, 8_000)], channel: 0 };
        Job {
            output,
            tracks: vec![track],
            channels: 1,
            start_ticks: 0,
            end_ticks: 48_000,
            mask_tones: false,
            measured: vec![],
            ffmpeg: None,
        }
    }

    fn check(output: Output, messages: Vec<FromRender>, refused: Option<&str>) {
        let job = job(output);
        let mut witness = Witness::new(&job);
        let result: Result<Vec<_>, _> = messages.into_iter().map(|message| witness.check(message)).collect();
        match refused {
            None => assert!(result.is_ok(), "{result:?}"),
            Some(text) => assert!(result.unwrap_err().to_string().contains(text), "{text}"),
        }
    }

    fn opus(track: u8, position: u64, length: usize) -> FromRender {
        FromRender::OpusPacket { track, position, payload: vec![0; length] }
    }

    #[test]
    fn output_that_the_job_cannot_account_for_is_refused() {
        let tracks = Output::OpusTracks { bit_rate: 0, complexity: 5 };
        check(tracks, vec![opus(0, 0, 10), opus(0, 960, 10), opus(0, 48_000, 1)], None);
        check(tracks, vec![opus(1, 0, 10)], Some("a track that the job has not"));
        check(tracks, vec![opus(0, 960, 10), opus(0, 0, 10)], Some("goes back"));
        check(tracks, vec![opus(0, 48_000 + POST_ROLL_TICKS, 10)], Some("beyond the job"));
        check(tracks, vec![opus(0, 0, 0)], Some("impossible length"));
        check(tracks, vec![opus(0, 0, 2_000)], Some("impossible length"));
        check(tracks, vec![FromRender::Data(vec![0])], Some("file data"));
        check(Output::Wav, vec![opus(0, 0, 10)], Some("a track's packet"));
        check(Output::Wav, vec![FromRender::Data(vec![0; DATA_BYTES_MAX]); 3], None);
        check(Output::Wav, vec![FromRender::Data(vec![0; DATA_BYTES_MAX]); 4], Some("more data"));
        check(Output::Wav, vec![FromRender::Data(vec![0; DATA_BYTES_MAX + 1])], Some("above the limit"));
        check(Output::Wav, vec![FromRender::Done(Stats::default())], Some("other tracks"));
        let stats = Stats { tracks: vec![TrackStats::default()], ..Stats::default() };
        check(Output::Wav, vec![FromRender::Done(stats)], None);
    }

    #[test]
    fn texts_are_cleaned_and_cut() {
        let job = job(Output::Wav);
        let long = FromRender::Failed { kind: FailureKind::Encoder, text: format!("a\n\x1b[0m{}", "x".repeat(10_000)) };
        let FromRender::Failed { text, .. } = Witness::new(&job).check(long).unwrap() else {
            panic!("another message")
        };
        assert!(text.starts_with("a[0mxxx") && text.chars().count() == TEXT_CHARS_MAX);
    }
}

//! What is to be rendered: codecs, tracks, output and time range, with the rules that a job keeps.

use serde::{Deserialize, Serialize};

use crate::RenderError;

/// Ticks in a second: the unit of every position. All audio rates that are decoded here divide it.
pub const TICKS_PER_SECOND: u32 = 48_000;

/// How long before [`Job::start_ticks`] packets should be given, where there are any: 80 ms, in ticks. Codecs with a memory (G.722,
/// Opus) need it to arrive at the right signal, and a resampler to see what lies before its first sample.
pub const PRE_ROLL_TICKS: u64 = 3_840;

/// How long after [`Job::end_ticks`] packets should still be given, where there are any: 40 ms, in ticks. Opus of our own encoder
/// carries the last samples of a run up to its pre-skip late, so the packet that holds them may lie at or after the end.
pub const POST_ROLL_TICKS: u64 = 1_920;

/// How much around a telephone event is masked on either side, in ticks: 20 ms. A gateway notices a tone some milliseconds after it
/// began and its packets are of 20 ms, so the tone itself may lie a little beside what is told of it.
pub const TONE_MARGIN_TICKS: u64 = 960;

/// Longest time that one telephone event packet can speak for, in ticks: 10 s. Its duration has 16 bits (RFC 4733 section 2.3.5), which is
/// 8.2 s at 8 kHz; an event that lasts longer goes on in further ones. Packets of events that began so long before
/// [`Job::start_ticks`] should be given as well.
pub const TONE_TICKS_MAX: u64 = 480_000;

/// Most tracks in one job: four times what a session may have by default, so that a recording of several sessions fits.
pub const TRACKS_MAX: usize = 32;

/// Most codecs in one track's table. A peer may renegotiate often, but a table entry is only needed per different codec.
pub const CODECS_PER_TRACK_MAX: usize = 32;

/// Longest job: a week, in ticks. A recording is never that long, and a position that is wrong must not cost a year of silence.
pub const JOB_TICKS_MAX: u64 = 7 * 24 * 3_600 * TICKS_PER_SECOND as u64;

/// The rates in Hz that Opus can be encoded from and decoded to (RFC 6716 section 2), which are also the audio rates that are decoded here.
pub const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Longest encoding name and format parameters that a job may carry, in bytes.
pub const CODEC_TEXT_BYTES_MAX: usize = 256;

/// Longest path, in bytes (PATH_MAX of the system).
const PATH_BYTES_MAX: usize = 4_096;

/// A codec as the signalling named it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// ITU-T G.711 µ-law.
    Pcmu,
    /// ITU-T G.711 A-law.
    Pcma,
    /// ITU-T G.722 at 64 kbit/s.
    G722,
    /// Opus, RFC 6716 and RFC 7587.
    Opus,
    /// Uncompressed samples of 16 bits in network order (RFC 3551 section 4.5.11).
    L16,
    /// Any other encoding, by the name in `a=rtpmap`.
    Other(String),
}

impl Codec {
    /// The codec for an encoding name of `a=rtpmap`; names are case-insensitive (RFC 8866 section 6.6).
    pub fn from_encoding(name: &str) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "PCMU" => Self::Pcmu,
            "PCMA" => Self::Pcma,
            "G722" => Self::G722,
            "OPUS" => Self::Opus,
            "L16" => Self::L16,
            _ => Self::Other(name.to_owned()),
        }
    }

    /// The encoding name as in `a=rtpmap`.
    pub fn encoding(&self) -> &str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
            Self::L16 => "L16",
            Self::Other(name) => name,
        }
    }
}

/// A codec with its parameters: one entry of a track's table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CodecSpec {
    /// The codec.
    pub codec: Codec,
    /// RTP clock rate in Hz, as signalled. For Opus made by our own encoder it is the rate of the audio that went in, see
    /// [`CodecSpec::audio_rate`].
    pub clock_rate: u32,
    /// Channels as signalled; Opus is always signalled with 2 (RFC 7587 section 7). Every track is rendered as one channel.
    pub channels: u8,
    /// `a=fmtp` parameters, when there were any.
    pub fmtp: Option<String>,
    /// For Opus made by our own encoder: how much later than its packet's position a packet's audio is, in ticks. 0 otherwise.
    pub pre_skip: u16,
}

impl CodecSpec {
    /// A codec with one channel and no parameters.
    pub fn new(codec: Codec, clock_rate: u32) -> Self {
        Self { codec, clock_rate, channels: 1, fmtp: None, pre_skip: 0 }
    }

    /// The rate in Hz of the audio inside, where it is known.
    ///
    /// G.722 has a clock of 8000 and audio of 16,000 (RFC 3551 section 4.5.2). Opus from the wire has a clock of 48,000; ours says
    /// the rate of what it was made from. `None` for codecs that are not decoded here.
    pub fn audio_rate(&self) -> Option<u32> {
        let own_rate = Some(self.clock_rate).filter(|rate| OPUS_RATES.contains(rate));
        match self.codec {
            Codec::Pcmu | Codec::Pcma | Codec::L16 => own_rate,
            Codec::G722 => Some(16_000),
            Codec::Opus => own_rate.or(Some(TICKS_PER_SECOND)),
            Codec::Other(_) => None,
        }
    }
}

/// One track: an audio stream of one party.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackSpec {
    /// The codecs that this track's packets refer to by index. List only those that packets of the recording use: the highest
    /// [`CodecSpec::audio_rate`] in the job sets the rate of the output, and with one rate throughout nothing is resampled.
    pub codecs: Vec<CodecSpec>,
    /// The output channel: 0 is left (the recorded user), 1 right. Tracks on the same channel are added up.
    pub channel: u8,
}

/// What is to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// RIFF/WAVE, 16-bit PCM, at the highest rate among the tracks (RF64 from 4 GiB).
    Wav,
    /// Ogg Opus (RFC 7845), with one mono stream per channel.
    OggOpus {
        /// Bits per second for each channel; 0 leaves it to the encoder.
        bit_rate: u32,
        /// Encoder effort, 0 to 10.
        complexity: u8,
    },
    /// MPEG layer III at a constant bit rate.
    Mp3 {
        /// Kilobits per second for all channels together, 8 to 160; 0 chooses.
        bit_rate_kbps: u16,
        /// Half the work, as somebody waits for it: the encoder shapes no noise.
        quick: bool,
    },
    /// For the archive: each track as mono Opus packets of 20 ms, [`crate::FromRender::OpusPacket`].
    OpusTracks {
        /// Bits per second for each track; 0 leaves it to the encoder.
        bit_rate: u32,
        /// Encoder effort, 0 to 10.
        complexity: u8,
    },
}

/// One rendering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What is to come out.
    pub output: Output,
    /// The tracks, referred to by index.
    pub tracks: Vec<TrackSpec>,
    /// Channels of the output, 1 or 2. Without meaning for [`Output::OpusTracks`].
    pub channels: u8,
    /// Start of the time range, in ticks from the recording's start.
    pub start_ticks: u64,
    /// End of the time range, in ticks; the range does not include it.
    pub end_ticks: u64,
    /// Whether the digits of telephone events (RFC 4733) are made inaudible: from [`TONE_MARGIN_TICKS`] before an event to as much
    /// after it, its track is silent. Without meaning for [`Output::OpusTracks`]: what is archived stays as it was.
    pub mask_tones: bool,
    /// Tracks of [`Output::OpusTracks`] that are decoded for their figures alone ([`crate::Heard`]): no packets of theirs come out.
    pub measured: Vec<u8>,
    /// Path of the ffmpeg that decodes [`crate::ForeignCodec`]s; without one they cannot be decoded. An absolute path, since the render
    /// process has no environment.
    pub ffmpeg: Option<String>,
}

impl Job {
    /// The length of the time range in ticks; 0 for a range that is upside down.
    pub fn ticks(&self) -> u64 {
        self.end_ticks.saturating_sub(self.start_ticks)
    }

    /// Whether the job keeps the protocol's rules. Both sides ask.
    ///
    /// # Errors
    /// [`RenderError::BadJob`] naming the rule.
    pub fn check(&self) -> Result<(), RenderError> {
        let rule = |kept: bool, text: &str| if kept { Ok(()) } else { Err(RenderError::BadJob(text.to_owned())) };
        rule(self.start_ticks <= self.end_ticks, "the time range ends before it starts")?;
        rule(self.end_ticks <= JOB_TICKS_MAX, "the time range reaches beyond a week")?;
        rule((1..=2).contains(&self.channels), "there must be 1 or 2 output channels")?;
        rule(self.tracks.len() <= TRACKS_MAX, "there are more than 32 tracks")?;
        let exists = |track: &u8| usize::from(*track) < self.tracks.len();
        rule(self.measured.len() <= TRACKS_MAX, "more than 32 tracks are to be measured")?;
        let path_rule = |path: &String| path.starts_with('/') && path.len() <= PATH_BYTES_MAX;
        rule(self.ffmpeg.as_ref().is_none_or(path_rule), "the path of ffmpeg is not absolute, or too long")?;
        rule(self.measured.iter().all(exists), "a track to be measured does not exist")?;
        for track in &self.tracks {
            rule(track.codecs.len() <= CODECS_PER_TRACK_MAX, "a track has more than 32 codecs")?;
            rule(track.channel < self.channels, "a track's output channel does not exist")?;
            for spec in &track.codecs {
                let text = spec.codec.encoding().len().max(spec.fmtp.as_ref().map_or(0, String::len));
                rule(text <= CODEC_TEXT_BYTES_MAX, "a codec's name or parameters are longer than 256 bytes")?;
            }
        }
        match self.output {
            Output::Wav => Ok(()),
            Output::OggOpus { bit_rate, complexity } | Output::OpusTracks { bit_rate, complexity } => {
                rule(complexity <= 10, "the Opus complexity is above 10")?;
                // The bounds of libopus for one stream.
                rule(
                    bit_rate == 0 || (6_000..=510_000).contains(&bit_rate),
                    "the Opus bit rate is not 0 or 6000 to 510000",
                )
            }
            // MPEG-2 layer III, the part of the standard for 16, 22.05 and 24 kHz.
            Output::Mp3 { bit_rate_kbps, .. } => rule(
                bit_rate_kbps == 0 || (8..=160).contains(&bit_rate_kbps),
                "the MP3 bit rate is not 0 or 8 to 160 kbit/s",
            ),
        }
    }
}

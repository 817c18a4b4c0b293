//! The messages of both directions.

use serde::{Deserialize, Serialize};

use crate::{CodecSpec, FailureKind, Job};

/// Longest payload of one packet in bytes: what fits into a UDP datagram.
pub const PAYLOAD_BYTES_MAX: usize = 65_535;

/// Longest block of [`FromRender::Data`] in bytes: a pipe's usual capacity.
pub const DATA_BYTES_MAX: usize = 64 * 1024;

/// One packet's payload, placed in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Index into [`Job::tracks`].
    pub track: u8,
    /// Index into that track's codecs.
    pub codec: u8,
    /// Where its audio begins, in ticks from the recording's start.
    pub position: u64,
    /// The payload, at most [`PAYLOAD_BYTES_MAX`].
    #[serde(with = "crate::bytes")]
    pub payload: Vec<u8>,
}

/// From the daemon to the render process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToRender {
    /// Begins a job.
    Job(Job),
    /// The next packet; positions never go back within a job.
    Packet(Packet),
    /// There are no more packets: finish the job.
    End,
}

/// From the render process to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromRender {
    /// The next bytes of a file that is rendered as a stream, at most [`DATA_BYTES_MAX`].
    Data(#[serde(with = "crate::bytes")] Vec<u8>),
    /// The next packet of [`crate::Output::OpusTracks`]: 20 ms of one track. Positions never go back over all tracks, and within a
    /// track follow each other by 960 ticks except where a new run begins, which is always more than a packet later.
    ///
    /// The packet's audio lies [`CodecSpec::pre_skip`] before its position; at the start of a run, that much of it is to be dropped.
    OpusPacket {
        /// Index into [`Job::tracks`].
        track: u8,
        /// In ticks from the recording's start. The last packet of a run may lie at or after the job's end, see
        /// [`crate::POST_ROLL_TICKS`]: store it all the same.
        position: u64,
        /// The Opus packet.
        #[serde(with = "crate::bytes")]
        payload: Vec<u8>,
    },
    /// A codec of a track cannot be decoded here, so where it was used the track is silent. Comes once for each, with its first packet.
    Undecodable {
        /// Index into [`Job::tracks`].
        track: u8,
        /// The encoding's name.
        encoding: String,
        /// What is missing, for people.
        text: String,
    },
    /// The job is finished.
    Done(Stats),
    /// The job is given up.
    Failed {
        /// Decides about another try.
        kind: FailureKind,
        /// For people.
        text: String,
    },
}

/// What a finished job was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Length of the time range that was rendered, in ticks.
    pub ticks: u64,
    /// Sample rate of the output in Hz; 0 for [`crate::Output::OpusTracks`], where each track has its own.
    pub sample_rate: u32,
    /// One entry per track of the job, in its order.
    pub tracks: Vec<TrackStats>,
}

/// What became of one track.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackStats {
    /// For [`crate::Output::OpusTracks`]: the codec of the packets that came out, to be stored with them. `None` when there were none,
    /// and for other outputs.
    pub output: Option<CodecSpec>,
    /// Packets that were decoded.
    pub packets: u64,
    /// Packets of codecs that cannot be decoded here; they are silence.
    pub undecodable_packets: u64,
    /// Packets that their decoder refused; they are silence.
    pub decode_errors: u64,
    /// Packets that carry no speech by design (telephone events, comfort noise); they are silence.
    pub silent_packets: u64,
    /// Packets that never came and whose audio was in the one after them (in-band error correction of Opus, RFC 7587 section 4.4).
    pub recovered_packets: u64,
    /// What is to be heard, for [`crate::Output::OpusTracks`]; all 0 for other outputs.
    pub heard: Heard,
    /// Its waveform, for [`crate::Output::OpusTracks`]: the loudest sample in each of [`PEAK_PARTS`] parts of the time range, in hundredths of
    /// full scale by the square root, 0 to 100. Empty for other outputs.
    pub peaks: Vec<u8>,
}

/// Parts of a waveform: more than a wide screen shows as bars.
pub const PEAK_PARTS: usize = 600;

/// Figures of a track's decoded audio. What was never received counts for none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Milliseconds of audio.
    pub audio_ms: u64,
    /// Milliseconds of it that never reach -60 dB of full scale: not a quiet room but no signal.
    pub silent_ms: u64,
    /// Milliseconds of it in runs of samples at full scale: the speaker was too loud for the line.
    pub clipped_ms: u64,
    /// Milliseconds of it above -50 dB of full scale (root mean square of 10 ms): somebody speaks.
    pub active_ms: u64,
    /// Level of these, root mean square in dB of full scale; `None` when there are none.
    pub level_dbfs: Option<i16>,
}

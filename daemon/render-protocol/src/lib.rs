//! The pipe protocol between the daemon and `callvault-render`, and the driver that starts and feeds that child.
//!
//! It holds the types that both sides speak ([`Job`], [`ToRender`], [`FromRender`], [`CodecSpec`]), their framing over any
//! `Read` or `Write` ([`write_frame`], [`read_frame`], [`FrameBuffer`]), and [`Renderer`], which runs the child in a sandbox.
//! It deliberately has no codec, no C code, no keys, no files and no async runtime: the daemon links it, and what callers'
//! bytes can do to a decoder happens in the other process.
//!
//! # The protocol
//!
//! Each direction of the child's standard streams carries frames:
//!
//! | bytes | meaning |
//! |---|---|
//! | 4 | length of what follows, u32 little-endian, 1 to [`FRAME_BYTES_MAX`] |
//! | 1 | version, [`PROTOCOL_VERSION`]; both sides come from one build, so another version is an error, not a negotiation |
//! | rest | one message, postcard, with nothing after it |
//!
//! The daemon writes [`ToRender::Job`], then packets of all tracks in order of position, then [`ToRender::End`]. The child
//! writes its output as it is made and closes the job with exactly one of [`FromRender::Done`] and [`FromRender::Failed`].
//! After `Failed` it reads on, without answering, up to the `End` of that job, so that one child can serve several jobs, one
//! after another. End of input between jobs is an orderly exit; within a job it is a failure.
//!
//! # What the child is trusted with
//!
//! Nothing. Its output is checked against the job: tracks that exist, positions in order and within the job, an amount that the
//! job can account for. A child that stops taking or giving is killed; a child that dies costs one retry.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bytes;
mod error;
mod foreign;
mod frame;
mod job;
mod message;
mod renderer;
mod sandbox;
mod witness;

pub use error::{FailureKind, RenderError};
pub use foreign::ForeignCodec;
pub use frame::{FRAME_BYTES_MAX, FrameBuffer, PROTOCOL_VERSION, Swelling, read_frame, write_frame};
pub use job::{
    CODEC_TEXT_BYTES_MAX, CODECS_PER_TRACK_MAX, Codec, CodecSpec, JOB_TICKS_MAX, Job, OPUS_RATES, Output,
    POST_ROLL_TICKS, PRE_ROLL_TICKS, TICKS_PER_SECOND, TONE_MARGIN_TICKS, TONE_TICKS_MAX, TRACKS_MAX, TrackSpec,
};
pub use message::{
    DATA_BYTES_MAX, FromRender, Heard, PAYLOAD_BYTES_MAX, PEAK_PARTS, Packet, Stats, ToRender, TrackStats,
};
pub use renderer::{EXIT_NOT_CONFINED, Renderer};
pub use sandbox::Limits;

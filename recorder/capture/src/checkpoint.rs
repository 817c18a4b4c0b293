//! Checkpoints: what the next recorder needs to go on with every session when this one dies at any moment.
//!
//! They are in a folder in memory (tmpfs):
//!
//! - `<first recording>.session` ([`SessionCheckpoint`]), one for each session that lives: what signalling changes: the dialog, the answer, the tracks and their ports, what is
//!   known of the call, and facts that may not be in the journal yet. The signalling thread replaces it (a temporary file, renamed)
//!   whenever it has changed, *before* the message that it is about is sent and before the other threads hear of it.
//! - `<recording>.ended` ([`EndedCheckpoint`]): a recording that has ended and whose end is not durable yet.
//! - `<recording>.lane` ([`LaneCheckpoint`]): what the media changes: how each track's reception stands, and which part of the recording is
//!   in the journal. It has two slots that are written in turn. The journal thread writes one just *before* the frames that it speaks of, and
//!   names the last of these; who reads it looks whether that frame is in the journal, and takes the other slot if it is not. So
//!   a checkpoint that is believed never claims more than is written, nor less.
//!
//! They hold secrets (SRTP keys) and personal data, so they are sealed under a key that only the daemon and its recorder have in their
//! memory; besides, they are for the recorder's user alone, and where the folder is not in memory there are none.
//! A file that cannot be read, or is of another version, another boot of the machine or another daemon, is set aside; its session has
//! then ended as if there were none.

mod files;
mod folder;
mod form;
mod lane;
mod session;
#[cfg(test)]
mod tests;

#[cfg(feature = "simulation")]
pub(crate) use files::{Files, OpenFile};
pub(crate) use folder::{Checkpoints, FoundLane, LaneFile};
pub(crate) use lane::{Continued, EARLIER_MAX, LaneCheckpoint, LaneState, MediaCheckpoint, MediaState, TrackState};
pub(crate) use session::{
    AnswerCheckpoint, EndedCheckpoint, RecordingCheckpoint, SessionCheckpoint, SessionTrackCheckpoint,
};

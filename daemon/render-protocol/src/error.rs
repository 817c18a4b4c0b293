//! What can go wrong, and whether trying again can help.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why the render process gave a job up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureKind {
    /// No track of the job has a codec that can be decoded here. Permanent until a decoder is installed.
    Unsupported,
    /// The job, or the order of its packets, is not as the protocol says: a fault in the program. Permanent.
    BadJob,
    /// An encoder refused its input or could not be set up. Worth another try in a fresh process.
    Encoder,
}

/// What keeps a rendering from being finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The job breaks a rule of the protocol, named by the text.
    #[error("accept the render job: {0}")]
    BadJob(String),
    /// The program could not be started.
    #[error("start the render process {program}: {source}; check that the package is whole")]
    Spawn {
        /// The path that was given.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The render process gave the job up and said why.
    #[error("render: {text}")]
    Failed {
        /// The kind, which decides about another try.
        kind: FailureKind,
        /// For people; never holds personal data.
        text: String,
    },
    /// The render process ended inside a job.
    #[error("finish rendering: the render process died ({0}); another try starts a fresh one")]
    Died(String),
    /// The render process neither took nor gave anything for [`crate::Limits::stall_max`] and was killed.
    #[error("finish rendering: the render process stood still for {} s and was killed", .0.as_secs())]
    Stalled(Duration),
    /// The job took longer than [`crate::Limits::job_max`] and the render process was killed.
    #[error("finish rendering within {} s, the limit for one job; the render process was killed", .0.as_secs())]
    Overdue(Duration),
    /// The child is gone: an earlier job ended without order. Spawn another.
    #[error("use a render process whose last job was broken off: start another")]
    Spent,
    /// A message to be sent is longer than [`crate::FRAME_BYTES_MAX`], or a payload than [`crate::PAYLOAD_BYTES_MAX`].
    #[error("send {0} bytes to the render process at once: that is above the limit")]
    TooLong(usize),
    /// The other side speaks another version.
    #[error("understand render protocol version {0}, only {ours}: install daemon and render from one package", ours = crate::PROTOCOL_VERSION)]
    Version(u8),
    /// Bytes that are no message, or a message that this place of the conversation does not allow.
    #[error("understand the render conversation: {0}")]
    Malformed(&'static str),
    /// The stream ended inside a frame or a job.
    #[error("read a whole render job: the stream ended early")]
    Truncated,
    /// Reading from or writing to the pipe.
    #[error("talk over the render pipe: {0}")]
    Io(#[from] io::Error),
}

impl RenderError {
    /// Whether the same job would fail the same way again, so that a retry is a waste.
    ///
    /// A child that died, stood still or sent nonsense may have met a passing shortage (memory, CPU time), and another version is
    /// there while a package is being replaced: that is not permanent, and the caller bounds the number of tries.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::BadJob(_) | Self::TooLong(_) => true,
            Self::Failed { kind, .. } => match kind {
                FailureKind::Unsupported | FailureKind::BadJob => true,
                FailureKind::Encoder => false,
            },
            _ => false,
        }
    }
}

//! Why a job ends early.

use callvault_render_protocol::{FailureKind, RenderError};

/// A job that cannot be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// The job is given up, and the daemon is told.
    #[error("{text}")]
    GivenUp { kind: FailureKind, text: String },
    /// The pipe is broken: there is nobody to tell.
    #[error(transparent)]
    Pipe(#[from] RenderError),
}

impl JobError {
    pub(crate) fn bad_job(text: impl Into<String>) -> Self {
        Self::GivenUp { kind: FailureKind::BadJob, text: text.into() }
    }

    pub(crate) fn unsupported(text: impl Into<String>) -> Self {
        Self::GivenUp { kind: FailureKind::Unsupported, text: text.into() }
    }

    pub(crate) fn encoder(text: impl std::fmt::Display) -> Self {
        Self::GivenUp { kind: FailureKind::Encoder, text: format!("the encoder refused: {text}") }
    }
}

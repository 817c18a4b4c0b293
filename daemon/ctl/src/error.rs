//! The crate's error, and the exit status that each kind of it means.

use std::process::ExitCode;

/// The exit status; the table in the crate's documentation says what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, nothing wrong found.
    Done,
    /// 1: something is wrong or was refused.
    Failed,
    /// 2: the command line is wrong.
    Usage,
    /// 3: the daemon cannot be reached.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed; each text fits after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The configuration cannot be used. All its errors, one a line.
    #[error("read the configuration:\n{0}")]
    Configuration(String),
    /// The daemon does not answer.
    #[error("reach callvaultd at {at}: {reason}")]
    Unreachable {
        /// The control endpoint.
        at: String,
        /// What happened and what to do.
        reason: String,
    },
    /// The token file cannot be used.
    #[error("read the control token {path}: {reason}")]
    Token {
        /// The file.
        path: String,
        /// What happened and what to do.
        reason: String,
    },
    /// The daemon refused.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked for, a fragment after "failed to".
        what: String,
        /// The daemon's words, with a hint where there is one.
        message: String,
    },
    /// The daemon's answer makes no sense.
    #[error(
        "{what}: callvaultd answered something unexpected ({detail}); are callvaultctl and callvaultd of the same version?"
    )]
    Answer {
        /// What was asked for.
        what: String,
        /// What was wrong with the answer.
        detail: String,
    },
    /// A local file could not be read or written.
    #[error("{what}: {reason}")]
    File {
        /// What was to be done with which file.
        what: String,
        /// What happened and what to do.
        reason: String,
    },
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// Standard output is gone.
    #[error("write the output: {0}")]
    Output(#[from] std::io::Error),
    /// The self-test could not begin.
    #[error("{0}")]
    Selftest(#[from] callvault_selftest::SelftestError),
}

impl CtlError {
    /// The exit status that it means.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Usage(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

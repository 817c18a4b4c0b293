//! Why a delivery did not come to its end, and what follows from it.

/// Why a delivery did not come to its end. The texts begin with what failed and hold neither personal data nor secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It may go better another time; it counts against the recording.
    #[error("{0}")]
    Recording(String),
    /// The other side will not have this recording, however often it is asked.
    #[error("{0}")]
    Refused(String),
    /// No recording can be delivered now: the other side cannot be reached, is busy, or does not know us. It is not this recording's
    /// fault, and the others need not try meanwhile.
    #[error("{text}")]
    Sink {
        /// How long the other side asked us to wait, in milliseconds.
        wait_ms: Option<u64>,
        /// What is wrong and what to do.
        text: String,
    },
    /// The recording's audio cannot be had now, which is nothing of the other side's.
    #[error("{text}")]
    Audio {
        /// Whether it will never be to be had.
        permanent: bool,
        /// Whether it is worth another look soon, and nothing failed: the store is away.
        away: bool,
        /// What is wrong.
        text: String,
    },
    /// The recording was deleted meanwhile: there is nothing to deliver.
    #[error("deliver the recording: it was deleted")]
    Gone,
    /// The daemon is stopping; the delivery is made again, or gone on with, by the next one.
    #[error("go on: the daemon is stopping")]
    Stopping,
}

impl Trouble {
    /// The other side as a whole is in trouble, and has not said for how long.
    pub(crate) fn sink(text: impl Into<String>) -> Self {
        Self::Sink { wait_ms: None, text: text.into() }
    }
}

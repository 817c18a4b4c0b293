//! What can go wrong with a journal as a whole. What is wrong *in* a journal is a [`crate::Finding`], not an error.

/// Why the journal could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The bytes waiting to be written have reached [`crate::Limits::pending_bytes_max`]: the disk does not keep up. Nothing
    /// was appended.
    #[error("append to the journal: {pending_bytes} bytes wait for the disk already; write them first")]
    PendingFull {
        /// Bytes that wait.
        pending_bytes: usize,
    },
    /// All lane numbers, or all file numbers, of the generation are used.
    #[error("open a lane or a file: the generation has used all its lane or file numbers; start a new generation")]
    LanesExhausted,
    /// The lane belongs to another generation.
    #[error("append to the journal: the lane belongs to another generation")]
    ForeignLane,
    /// One event is larger than [`crate::FACTS_BYTES_MAX`].
    #[error("append facts: the event has {bytes} bytes, more than {max}; shorten the raw body")]
    FactsTooLarge {
        /// Its size as JSON.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The event could not be written as JSON.
    #[error("append facts: {0}")]
    FactsJson(#[source] serde_json::Error),
    /// A Key frame holds 1 to [`crate::SEALED_KEYS_MAX`] sealed keys.
    #[error("append sealed keys: expected 1 to {max}, got {count}")]
    SealedKeysCount {
        /// How many were given.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The file was written by a version that this one does not know.
    #[error("read journal file {file_seq}: it has version {found}, this program knows version {known}; update it")]
    UnsupportedVersion {
        /// Number of the file.
        file_seq: u32,
        /// Its version.
        found: u16,
        /// The version known here.
        known: u16,
    },
    /// Files must be given in ascending order.
    #[error("read journal file {file_seq}: file {after} was read before it; give the files in order")]
    FileOrder {
        /// Number of the file.
        file_seq: u32,
        /// Highest number given before.
        after: u32,
    },
    /// Where the frames of a lane are was put away ([`crate::Pages`]) and does not come back.
    #[error(
        "read the index of the journal: {source}; the next start of the service reads the journal anew and makes another"
    )]
    Index {
        /// What the system said.
        source: std::io::Error,
    },
    /// Reading failed, and not only for single blocks.
    #[error("read journal file {file_seq}: {source}")]
    Read {
        /// Number of the file.
        file_seq: u32,
        /// What the system said.
        source: std::io::Error,
    },
}

use std::{io, path::PathBuf};

use crate::{JobId, StateName};

/// Why the queue refused or failed. The texts fit after "failed to …" and never hold personal data.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Another process has the folder open.
    #[error("open the queue: another callvaultd uses {}; stop it, or give this one its own data_dir", .0.display())]
    Locked(PathBuf),
    /// A record was written by a newer version.
    #[error(
        "read job {id}: its format is version {version}, this callvaultd knows up to {known}; install the newer version again"
    )]
    Newer {
        /// Key of the record.
        id: String,
        /// Version found.
        version: u8,
        /// Highest version that can be read.
        known: u8,
    },
    /// `current` does not hold a folder number.
    #[error("open the queue: {} does not name a folder; move the queue's folder away, what is owed is found again from the catalogue", .0.display())]
    Damaged(PathBuf),
    /// A file or folder operation failed.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// sled failed.
    #[error("{what}: {source}; if the disk is full, make room: the queue is opened again by itself")]
    Sled {
        /// What was tried.
        what: &'static str,
        /// sled's answer.
        source: sled::Error,
    },
    /// An earlier write or sync failed; nothing is accepted until the queue is opened again.
    #[error("use the queue: an earlier write failed ({0}); it must be opened again before it accepts anything")]
    Broken(String),
    /// No such job.
    #[error("find job {0}: it is not in the queue (done jobs are only remembered for a while)")]
    Unknown(JobId),
    /// The job is in a state in which this cannot be done.
    #[error("change job {id}: it is {state}")]
    WrongState {
        /// The job.
        id: JobId,
        /// Its state.
        state: StateName,
    },
    /// Too many jobs wait.
    #[error("enqueue: {0} jobs wait already, the most that are held; it will be tried again when some are done")]
    Full(usize),
    /// A payload is too large.
    #[error("enqueue {id}: its payload is {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// The job.
        id: JobId,
        /// Its payload's size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Text that is no job id.
    #[error("read a job id: it must be KIND:RECORDING, a kind of a-z, 0-9 and '-' and a recording's UUID")]
    BadId,
    /// Text that is no job kind.
    #[error("read a job kind: it must be 1 to 32 of a-z, 0-9 and '-'")]
    BadKind,
}

impl QueueError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// sled gave up in the middle of its own files.
    pub(crate) fn beyond_reading() -> Self {
        Self::Sled { what: "read the queue", source: sled::Error::ReportableBug("its files make no sense".into()) }
    }

    /// Whether the files are damaged, as opposed to a disk that is full, gone or forbidden: that may pass, this does not.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Sled { source: sled::Error::Io(error), .. } => error.raw_os_error().is_none(),
            Self::Sled { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn sled(what: &'static str) -> impl FnOnce(sled::Error) -> Self {
        move |source| Self::Sled { what, source }
    }
}

//! What can go wrong with an archive as a whole. Damage to parts of one is a [`Finding`](crate::Finding), not an error.

use std::io;

use callvault_seal::SealError;

/// Why an archive could not be written, opened or played. The texts hold no personal data and no key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The reader, writer or seeker below failed; whether a retry helps is for its kind to say.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, with the offset where it helps.
        doing: String,
        /// The cause.
        source: io::Error,
    },
    /// Neither copy of the header is there: not an archive, or its beginning is lost.
    #[error(
        "open an archive: no intact archive header was found; the file is not an archive or both copies of its header are damaged"
    )]
    NotAnArchive,
    /// Written by a newer version of the format.
    #[error(
        "open an archive: its format is version {found} with flags {flags:#06x}, which this version cannot read; update callvault"
    )]
    Newer {
        /// Version in the header.
        found: u16,
        /// Flags in the header.
        flags: u16,
    },
    /// The chunks are whole, but this data key opens none of them.
    #[error("open an archive: its data key does not fit; it was sealed for another archive")]
    WrongKey,
    /// Not one chunk is whole.
    #[error("open an archive: nothing in it is intact; restore it from a copy")]
    NothingIntact,
    /// Both copies of the facts are damaged; the packets can still be read.
    #[error("read the facts of an archive: both copies are damaged; restore it from a copy")]
    FactsLost,
    /// The facts are intact but are not what this version can understand.
    #[error("read the facts of an archive: {0}; it may need a newer callvault")]
    FactsUnreadable(String),
    /// The caller asked for something that the format does not have. No retry helps.
    #[error("write an archive: {0}")]
    Refused(String),
    /// An earlier write failed, so the file is not whole and never will be.
    #[error("write an archive: an earlier write to it failed; start again with a new file and a new key")]
    Broken,
    /// A sealed key could not be read.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl ArchiveError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Whether the cause is below (disk, share) and the same call can succeed later, as against a fault in file or request.
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

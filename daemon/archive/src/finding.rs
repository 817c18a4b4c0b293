//! What is wrong with a part of an archive.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// Findings kept in a [`Report`](crate::Report) at most; more are counted. A file that has that many is beyond reading one by one.
pub const FINDINGS_MAX: usize = 1_000;

/// Kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A copy of the header, a key slot or the zero bytes between the copies were changed.
    HeaderDamaged,
    /// Bytes of a chunk were changed, added or taken away.
    Damaged,
    /// A chunk's checksums are right but it does not open: changed by somebody who put the checksums right.
    Altered,
    /// A chunk is not there and nothing is in its place.
    Missing,
    /// A chunk is there a second time.
    Repeated,
    /// A chunk is not in its place.
    Swapped,
    /// The file ends before its End chunk does.
    CutTail,
    /// Bytes that belong to no chunk.
    ForeignBytes,
    /// A chunk of another archive, or one numbered beyond the last.
    ForeignChunk,
    /// The chunks belong to another archive than the header, or the data key to another than the chunks.
    WrongKey,
    /// Chunks are authentic but contradict each other: a fault of the writer.
    Inconsistent,
}

impl FindingKind {
    /// Stable short name, for example "cut-tail".
    pub fn code(self) -> &'static str {
        match self {
            Self::HeaderDamaged => "header-damaged",
            Self::Damaged => "damaged",
            Self::Altered => "altered",
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::Swapped => "swapped",
            Self::CutTail => "cut-tail",
            Self::ForeignBytes => "foreign-bytes",
            Self::ForeignChunk => "foreign-chunk",
            Self::WrongKey => "wrong-key",
            Self::Inconsistent => "inconsistent",
        }
    }
}

/// Something wrong with a part of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Index of the first chunk that it concerns.
    pub chunk: Option<u32>,
    /// How many chunks it concerns, from `chunk` on; 0 with a `chunk` means all that should follow.
    pub chunks: u32,
    /// Where in the file it begins.
    pub offset: u64,
    /// How many bytes of the file it takes; 0 where something should be and is not.
    pub length: u64,
    /// The stretch of the recording, in ticks, in which audio is lost; none when no audio is lost. Where neither the seek table nor the chunk's
    /// header is left to say it exactly, this is the stretch within which the loss lies; an end of `u64::MAX` means that nothing
    /// is left to say how long the recording was.
    pub ticks: Option<Range<u64>>,
    /// One sentence for people, without personal data.
    pub text: String,
}

impl Finding {
    pub(crate) fn new(kind: FindingKind, offset: u64, length: u64, text: impl Into<String>) -> Self {
        Self { kind, chunk: None, chunks: 0, offset, length, ticks: None, text: text.into() }
    }

    pub(crate) fn of_chunks(mut self, chunk: u32, chunks: u32) -> Self {
        (self.chunk, self.chunks) = (Some(chunk), chunks);
        self
    }

    pub(crate) fn losing(mut self, ticks: Option<Range<u64>>) -> Self {
        self.ticks = ticks;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.code(), self.text)?;
        match (self.chunk, self.chunks) {
            (Some(chunk), 0) => write!(f, "; chunk {chunk} and all after it")?,
            (Some(chunk), 1) => write!(f, "; chunk {chunk}")?,
            (Some(chunk), count) => {
                let last = u64::from(chunk) + u64::from(count) - 1;
                write!(f, "; chunks {chunk} to {last}")?;
            }
            (None, _) => {}
        }
        write!(f, "; {} bytes at offset {}", self.length, self.offset)?;
        if let Some(ticks) = &self.ticks {
            let seconds = |ticks: u64| ticks as f64 / crate::TICKS_PER_SECOND as f64;
            write!(f, "; audio lost from {:.3} s to ", seconds(ticks.start))?;
            match ticks.end {
                u64::MAX => write!(f, "the end")?,
                end => write!(f, "{:.3} s", seconds(end))?,
            }
        }
        Ok(())
    }
}

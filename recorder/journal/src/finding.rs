//! What is found wrong with a journal: named, located, counted.

use std::fmt;
use std::ops::RangeInclusive;

/// Findings kept in one report; what comes beyond is counted. A journal with more is not read by a person line by line.
pub const FINDINGS_MAX: usize = 10_000;

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// Bytes behind the last durable point are not valid frames: what a crash or a power cut leaves. Nothing that was
    /// promised is lost.
    TornTail,
    /// Bytes that were durable are not what was written.
    Damaged,
    /// Frames are missing, without bytes in their place.
    SequenceGap,
    /// A frame is there again.
    Repeated,
    /// A frame is there, but not in its place.
    OutOfOrder,
    /// A file belongs to another generation; it was not read.
    Foreign,
    /// The disk does not read these bytes.
    Unreadable,
    /// A file that is not the last has no end mark.
    Unended,
    /// A frame is intact but its body is not as the specification says.
    Malformed,
    /// A sealed frame does not open with its lane's key.
    NotAuthentic,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TornTail => "torn-tail",
            Self::Damaged => "damaged",
            Self::SequenceGap => "sequence-gap",
            Self::Repeated => "repeated",
            Self::OutOfOrder => "out-of-order",
            Self::Foreign => "foreign",
            Self::Unreadable => "unreadable",
            Self::Unended => "unended",
            Self::Malformed => "malformed",
            Self::NotAuthentic => "not-authentic",
        })
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// Number of the file.
    pub file_seq: u32,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it covers; 0 when there are none in its place.
    pub len: u64,
    /// The frames concerned, first to last: lost ones for damage, torn tails and gaps; present ones for the others. None when
    /// none is known to be.
    pub frames: Option<RangeInclusive<u64>>,
    /// The lane concerned, where that is known.
    pub lane: Option<u32>,
    /// One sentence for people.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: file {}", self.kind, self.file_seq)?;
        write!(f, ", offset {}, {} bytes", self.offset, self.len)?;
        if let Some(frames) = &self.frames {
            write!(f, ", frames {} to {}", frames.start(), frames.end())?;
        }
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// A list of findings with its limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    pub(crate) list: Vec<Finding>,
    pub(crate) dropped: u64,
}

impl Findings {
    pub(crate) fn push(&mut self, finding: Finding) {
        if self.merge(&finding) {
            return;
        }
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.dropped += 1;
        }
    }

    /// A run of frames that are all repeated, or all out of place, is one finding.
    fn merge(&mut self, finding: &Finding) -> bool {
        let Some(last) = self.list.last_mut() else {
            return false;
        };
        let kind_merges = matches!(finding.kind, FindingKind::Repeated | FindingKind::OutOfOrder);
        let adjacent =
            last.kind == finding.kind && last.file_seq == finding.file_seq && last.offset + last.len == finding.offset;
        let (true, true, Some(run), Some(next)) = (kind_merges, adjacent, &last.frames, &finding.frames) else {
            return false;
        };
        if run.end().checked_add(1) != Some(*next.start()) {
            return false;
        }
        last.frames = Some(*run.start()..=*next.end());
        last.len += finding.len;
        if last.lane != finding.lane {
            last.lane = None;
        }
        true
    }
}

/// What a look at all files of a generation showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, file by file.
    pub findings: Vec<Finding>,
    /// Findings beyond [`FINDINGS_MAX`].
    pub findings_dropped: u64,
    /// Intact frames, each counted once.
    pub frames: u64,
    /// Highest sequence seen; 0 when there was none.
    pub last_seq: u64,
    /// All frames up to here were promised to be on the device; 0 when none was.
    pub durable_seq: u64,
    /// Whether the generation was ended in order.
    pub ended: bool,
}

impl Report {
    /// Whether nothing that was durable is missing or changed: a torn tail is not against it.
    pub fn is_sound(&self) -> bool {
        let harmless = |finding: &Finding| finding.kind == FindingKind::TornTail;
        self.findings_dropped == 0 && self.findings.iter().all(harmless)
    }
}

//! Which sequences are missing, and the stretches of bytes in which they may have been.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::finding::FINDINGS_MAX;
use crate::format::FILE_HEADER_BYTES;

/// Separate ranges of missing sequences that are remembered, so that a frame that comes late is told from one that comes
/// twice. Beyond it such frames count as repeated; no sound journal has a single one.
const RANGES_MAX: usize = 65_536;

/// A stretch of a file that is not frames, or a place where frames should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) file_seq: u32,
    pub(crate) offset: u64,
    /// 0 when frames are missing with no bytes in their place.
    pub(crate) len: u64,
    /// Sequence of the last frame before it.
    pub(crate) after_seq: u64,
    /// First and last sequence that it may have held; none when no later frame told.
    pub(crate) range: Option<(u64, u64)>,
    /// The bytes begin with a frame whose header is valid and whose body is damaged.
    pub(crate) body: bool,
    /// The lane that is concerned, where known.
    pub(crate) lane: Option<u32>,
    /// The bytes are a file header.
    pub(crate) file_header: bool,
}

impl Lost {
    pub(crate) fn new(file_seq: u32, offset: u64, end: u64) -> Self {
        Self {
            file_seq,
            offset,
            len: end.saturating_sub(offset),
            after_seq: 0,
            range: None,
            body: false,
            lane: None,
            file_header: false,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Missing {
    /// First to last sequence of each range.
    ranges: BTreeMap<u64, u64>,
    lost: Vec<Lost>,
    /// Takes what is beyond the limit, so that callers need not know of it.
    overflow: Option<Lost>,
    dropped: u64,
}

impl Missing {
    pub(crate) fn lost(&self) -> &[Lost] {
        &self.lost
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Notes bytes that are not frames.
    pub(crate) fn stretch(&mut self, file_seq: u32, offset: u64, end: u64) -> &mut Lost {
        self.push(Lost::new(file_seq, offset, end))
    }

    /// Notes a file header that is damaged.
    pub(crate) fn damaged_header(&mut self, file_seq: u32) {
        self.stretch(file_seq, 0, FILE_HEADER_BYTES as u64).file_header = true;
    }

    /// The sequence went from `next` (expected) to `found` (seen at this place): `next..found` is missing. It belongs to the
    /// stretch just before, if there is one.
    pub(crate) fn jump(&mut self, file_seq: u32, offset: u64, next: u64, found: u64) {
        let last = found.saturating_sub(1);
        self.lose(next, last);
        let before = self.lost.last_mut().filter(|lost| {
            let touches = lost.file_seq == file_seq && lost.offset + lost.len == offset;
            let up_to = lost.range.map_or(lost.after_seq, |(_, last)| last);
            touches && lost.len > 0 && !lost.file_header && up_to.checked_add(1) == Some(next)
        });
        match before {
            Some(lost) => {
                let first = lost.range.map_or(next, |(first, _)| first);
                lost.range = Some((first, last));
            }
            None => {
                let lost = self.push(Lost::new(file_seq, offset, offset));
                lost.after_seq = next.saturating_sub(1);
                lost.range = Some((next, last));
            }
        }
    }

    /// Remembers that these sequences are missing.
    pub(crate) fn lose(&mut self, first: u64, last: u64) {
        if self.ranges.len() < RANGES_MAX {
            self.ranges.insert(first, last);
        }
    }

    /// A sequence that was missing is there. False when it was not missing.
    pub(crate) fn fill(&mut self, seq: u64) -> bool {
        let Some((&first, &last)) = self.ranges.range(..=seq).next_back() else {
            return false;
        };
        if last < seq {
            return false;
        }
        self.ranges.remove(&first);
        if first < seq {
            self.ranges.insert(first, seq - 1);
        }
        if seq < last {
            self.ranges.insert(seq + 1, last);
        }
        true
    }

    /// The frames of a stretch that did not turn up elsewhere: from the first to the last of them.
    pub(crate) fn still_lost(&self, lost: &Lost, last_seq: u64) -> Option<RangeInclusive<u64>> {
        let (from, to) = lost.range?;
        if from > last_seq {
            // Behind the last frame there are no ranges: nothing came after.
            return Some(from..=to);
        }
        let touching = self.ranges.range(..=to).rev();
        let mut touching =
            touching.take_while(|(_, last)| **last >= from).map(|(first, last)| ((*first).max(from), (*last).min(to)));
        let (first, last) = touching.next()?;
        let first = touching.last().map_or(first, |(first, _)| first);
        Some(first..=last)
    }

    fn push(&mut self, lost: Lost) -> &mut Lost {
        if self.lost.len() >= FINDINGS_MAX {
            self.dropped += 1;
            return self.overflow.insert(lost);
        }
        self.lost.push(lost);
        let at = self.lost.len() - 1;
        &mut self.lost[at]
    }
}

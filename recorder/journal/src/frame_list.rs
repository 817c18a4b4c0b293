//! Where the frames of a lane are, packed.

use serde::{Deserialize, Serialize};

use crate::format::Kind;
use crate::scanner::FrameRef;

/// The frames of one lane: some ten bytes each, where a [`FrameRef`] has 32, since each is told by how it differs from the one before. An
/// hour's call has 18,000 of them, and thousands of calls may wait in the journal while a store is away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameList {
    packed: Vec<u8>,
    len: usize,
    last: Option<FrameRef>,
}

/// How a frame differs from the one before, with wrapping arithmetic, so that any two can follow each other.
#[derive(Serialize, Deserialize)]
struct Step {
    seq: i64,
    offset: i64,
    body_len: u32,
    /// Kind, and whether it is intact in the lowest bit.
    kind: u16,
    /// File and lane, where one of them is another.
    elsewhere: Option<(i32, i32)>,
}

impl Step {
    fn between(before: Option<&FrameRef>, frame: &FrameRef) -> Self {
        let (seq, file_seq, offset, lane) = before.map_or((0, 0, 0, 0), |b| (b.seq, b.file_seq, b.offset, b.lane));
        let elsewhere =
            (frame.file_seq.wrapping_sub(file_seq).cast_signed(), frame.lane.wrapping_sub(lane).cast_signed());
        Self {
            seq: frame.seq.wrapping_sub(seq).cast_signed(),
            offset: frame.offset.wrapping_sub(offset).cast_signed(),
            body_len: frame.body_len,
            kind: u16::from(frame.kind.number()) << 1 | u16::from(frame.intact),
            elsewhere: (elsewhere != (0, 0)).then_some(elsewhere),
        }
    }

    fn after(&self, before: Option<&FrameRef>) -> FrameRef {
        let (seq, file_seq, offset, lane) = before.map_or((0, 0, 0, 0), |b| (b.seq, b.file_seq, b.offset, b.lane));
        let (file_step, lane_step) = self.elsewhere.unwrap_or_default();
        let [_, kind] = (self.kind >> 1).to_be_bytes();
        FrameRef {
            seq: seq.wrapping_add_signed(self.seq),
            offset: offset.wrapping_add_signed(self.offset),
            file_seq: file_seq.wrapping_add_signed(file_step),
            lane: lane.wrapping_add_signed(lane_step),
            body_len: self.body_len,
            kind: Kind::from_number(kind),
            intact: self.kind & 1 != 0,
        }
    }
}

impl FrameList {
    /// Adds a frame behind the others.
    pub fn push(&mut self, frame: FrameRef) {
        let step = Step::between(self.last.as_ref(), &frame);
        // Writing into a vector does not fail; a step that could not be written must not be counted.
        if let Ok(packed) = postcard::to_extend(&step, std::mem::take(&mut self.packed)) {
            self.packed = packed;
            self.len += 1;
            self.last = Some(frame);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = FrameRef> + '_ {
        let (mut rest, mut last) = (&self.packed[..], None);
        std::iter::from_fn(move || {
            let (step, behind) = postcard::take_from_bytes::<Step>(rest).ok()?;
            rest = behind;
            last = Some(step.after(last.as_ref()));
            last
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::FrameList;
    use crate::format::Kind;
    use crate::scanner::FrameRef;

    #[test]
    fn a_usual_frame_takes_a_third_of_its_size() {
        let mut list = FrameList::default();
        for n in 0..18_000_u64 {
            let (seq, offset) = (n * 500, n * 500 * 3_600 % 268_435_456);
            let file_seq = u32::try_from(n / 3_000).unwrap();
            list.push(FrameRef { seq, offset, file_seq, lane: 7, body_len: 3_500, kind: Kind::Audio, intact: true });
        }
        let each = list.packed.len() / list.len();
        assert!(each <= size_of::<FrameRef>() / 3, "{each} bytes a frame");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever frames there are, in whatever order.
        #[test]
        fn what_goes_in_comes_out(frames: Vec<(u64, u64, u32, u32, u32, u8, bool)>) {
            let frame = |(seq, offset, file_seq, lane, body_len, kind, intact)| FrameRef {
                seq, offset, file_seq, lane, body_len, kind: Kind::from_number(kind), intact,
            };
            let frames: Vec<FrameRef> = frames.into_iter().map(frame).collect();
            let mut list = FrameList::default();
            frames.iter().for_each(|frame| list.push(*frame));
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), frames.clone());
            prop_assert_eq!((list.len(), list.is_empty()), (frames.len(), frames.is_empty()));
        }
    }
}

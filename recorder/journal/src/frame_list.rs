//! Where the frames of a lane are, packed, and put away where there is a place for it.

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::JournalError;
use crate::format::Kind;
use crate::scanner::FrameRef;

/// Bytes of a page: two hundred frames, half a minute of a call.
pub const PAGE_BYTES: usize = 2_048;

/// Most that one [`Step`] takes: seven numbers at their longest, and whether there are the last two.
const STEP_BYTES_MAX: usize = 10 + 10 + 5 + 3 + 1 + 5 + 5;

/// Where an index puts away what is only needed when the lane is read, so that a long call takes no more memory than a short one. What it is
/// given may be lost with the process: the journal is read again then.
pub trait Pages: fmt::Debug + Send + Sync {
    /// Keeps up to [`PAGE_BYTES`] and says under which number.
    ///
    /// # Errors
    /// What the system says; the page then stays in memory.
    fn put(&self, page: &[u8]) -> io::Result<u32>;

    /// Reads the beginning of a page that was put away, as many bytes as were given.
    ///
    /// # Errors
    /// What the system says.
    fn get(&self, number: u32, page: &mut [u8]) -> io::Result<()>;

    /// The page is not needed any more.
    fn free(&self, number: u32);
}

/// A page that was put away, until nobody has it any more.
#[derive(Debug)]
struct Away {
    pages: Arc<dyn Pages>,
    number: u32,
    len: usize,
}

impl Drop for Away {
    fn drop(&mut self) {
        self.pages.free(self.number);
    }
}

/// A full page. Each begins anew, so that it can be understood alone.
#[derive(Debug, Clone)]
enum Page {
    Away(Arc<Away>),
    Here(Arc<[u8]>),
}

/// The frames of one lane: some ten bytes each, where a [`FrameRef`] has 32, since each is told by how it differs from the one before. An
/// hour's call has 22,500 of them, and thousands of calls may wait in the journal while a store is away: what fills a page is put away.
#[derive(Debug, Clone, Default)]
pub struct FrameList {
    pages: Option<Arc<dyn Pages>>,
    full: Vec<Page>,
    packed: Vec<u8>,
    len: usize,
    /// The frame before the next one, in this page.
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
    /// An empty list that puts full pages away.
    pub fn with_pages(pages: Arc<dyn Pages>) -> Self {
        Self { pages: Some(pages), ..Self::default() }
    }

    /// Adds a frame behind the others.
    pub fn push(&mut self, frame: FrameRef) {
        if self.packed.len() + STEP_BYTES_MAX > PAGE_BYTES {
            self.turn_page();
        }
        let step = Step::between(self.last.as_ref(), &frame);
        // Writing into a vector does not fail; a step that could not be written must not be counted.
        if let Ok(packed) = postcard::to_extend(&step, std::mem::take(&mut self.packed)) {
            self.packed = packed;
            self.len += 1;
            self.last = Some(frame);
        }
    }

    fn turn_page(&mut self) {
        let put = self.pages.as_ref().and_then(|pages| {
            let number = pages.put(&self.packed).ok()?;
            Some(Page::Away(Arc::new(Away { pages: Arc::clone(pages), number, len: self.packed.len() })))
        });
        self.full.push(put.unwrap_or_else(|| Page::Here(self.packed.as_slice().into())));
        self.packed.clear();
        self.last = None;
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
    ///
    /// # Errors
    /// [`JournalError::Index`] when what was put away does not read.
    pub fn load(&self) -> Result<Vec<FrameRef>, JournalError> {
        let mut frames = Vec::with_capacity(self.len);
        let mut page = [0; PAGE_BYTES];
        for full in &self.full {
            let packed = match full {
                Page::Here(packed) => packed,
                Page::Away(away) => {
                    let packed = &mut page[..away.len];
                    away.pages.get(away.number, packed).map_err(|source| JournalError::Index { source })?;
                    &*packed
                }
            };
            unpack(packed, &mut frames);
        }
        unpack(&self.packed, &mut frames);
        if frames.len() == self.len {
            return Ok(frames);
        }
        let text = "what was put away came back as something else";
        Err(JournalError::Index { source: io::Error::new(io::ErrorKind::InvalidData, text) })
    }
}

fn unpack(mut rest: &[u8], frames: &mut Vec<FrameRef>) {
    let mut last = None;
    while let Ok((step, behind)) = postcard::take_from_bytes::<Step>(rest) {
        rest = behind;
        let frame = step.after(last.as_ref());
        frames.push(frame);
        last = Some(frame);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::{FrameList, PAGE_BYTES, Pages, STEP_BYTES_MAX, Step};
    use crate::error::JournalError;
    use crate::format::Kind;
    use crate::scanner::FrameRef;

    fn hour() -> impl Iterator<Item = FrameRef> {
        (0..18_000_u64).map(|n| {
            let (seq, offset) = (n * 500, n * 500 * 3_600 % 268_435_456);
            let file_seq = u32::try_from(n / 3_000).unwrap();
            FrameRef { seq, offset, file_seq, lane: 7, body_len: 3_500, kind: Kind::Audio, intact: true }
        })
    }

    /// Pages in memory, of which the disk takes and gives back as many as it is told to.
    #[derive(Debug)]
    struct Disk {
        pages: Mutex<Vec<Option<Vec<u8>>>>,
        takes: usize,
        reads: bool,
    }

    impl Disk {
        fn new(takes: usize, reads: bool) -> Arc<Self> {
            Arc::new(Self { pages: Mutex::default(), takes, reads })
        }

        fn kept(&self) -> usize {
            self.pages.lock().unwrap().iter().flatten().count()
        }
    }

    impl Pages for Disk {
        fn put(&self, page: &[u8]) -> io::Result<u32> {
            assert!(page.len() <= PAGE_BYTES);
            if self.kept() == self.takes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let mut pages = self.pages.lock().unwrap();
            pages.push(Some(page.to_vec()));
            Ok(u32::try_from(pages.len() - 1).unwrap())
        }

        fn get(&self, number: u32, page: &mut [u8]) -> io::Result<()> {
            if !self.reads {
                return Err(io::ErrorKind::Other.into());
            }
            page.copy_from_slice(self.pages.lock().unwrap()[number as usize].as_ref().unwrap());
            Ok(())
        }

        fn free(&self, number: u32) {
            self.pages.lock().unwrap()[number as usize] = None;
        }
    }

    #[test]
    fn a_usual_frame_takes_a_third_of_its_size() {
        let disk = Disk::new(usize::MAX, true);
        let mut list = FrameList::with_pages(disk.clone());
        hour().for_each(|frame| list.push(frame));
        let bytes: usize = disk.pages.lock().unwrap().iter().flatten().map(Vec::len).sum();
        let each = (bytes + list.packed.len()) / list.len();
        assert!(each <= size_of::<FrameRef>() / 3, "{each} bytes a frame");
    }

    #[test]
    fn an_hour_takes_no_more_memory_than_a_minute_does() {
        let disk = Disk::new(usize::MAX, true);
        let mut list = FrameList::with_pages(disk.clone());
        hour().for_each(|frame| list.push(frame));
        assert!(list.packed.capacity() <= 2 * PAGE_BYTES, "{}", list.packed.capacity());
        assert!(list.full.len() * 4 < list.len() / 10 && disk.kept() == list.full.len());
        assert_eq!(list.load().unwrap(), hour().collect::<Vec<_>>());
        let copy = list.clone();
        drop(list);
        assert_eq!(copy.load().unwrap().len(), 18_000, "a copy keeps what it needs");
        drop(copy);
        assert_eq!(disk.kept(), 0);
    }

    #[test]
    fn a_disk_that_takes_nothing_more_leaves_it_in_memory() {
        let mut list = FrameList::with_pages(Disk::new(3, true));
        hour().for_each(|frame| list.push(frame));
        assert_eq!(list.load().unwrap(), hour().collect::<Vec<_>>());
    }

    #[test]
    fn what_does_not_read_is_an_error_and_not_a_shorter_call() {
        let mut list = FrameList::with_pages(Disk::new(usize::MAX, false));
        hour().for_each(|frame| list.push(frame));
        assert!(matches!(list.load(), Err(JournalError::Index { .. })));
        let disk = Disk::new(usize::MAX, true);
        let mut list = FrameList::with_pages(disk.clone());
        hour().for_each(|frame| list.push(frame));
        disk.pages.lock().unwrap()[1].as_mut().unwrap().fill(0xff);
        assert!(matches!(list.load(), Err(JournalError::Index { .. })));
    }

    #[test]
    fn no_step_is_longer_than_a_page_has_room_for() {
        let far = Step {
            seq: i64::MIN,
            offset: i64::MIN,
            body_len: u32::MAX,
            kind: u16::MAX,
            elsewhere: Some((i32::MIN, i32::MIN)),
        };
        assert_eq!(postcard::to_stdvec(&far).unwrap().len(), STEP_BYTES_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever frames there are, in whatever order.
        #[test]
        fn what_goes_in_comes_out(frames in prop::collection::vec(any::<(u64, u64, u32, u32, u32, u8, bool)>(), 0..300)) {
            let frame = |(seq, offset, file_seq, lane, body_len, kind, intact)| FrameRef {
                seq, offset, file_seq, lane, body_len, kind: Kind::from_number(kind), intact,
            };
            let frames: Vec<FrameRef> = frames.into_iter().map(frame).collect();
            for mut list in [FrameList::default(), FrameList::with_pages(Disk::new(2, true))] {
                frames.iter().for_each(|frame| list.push(*frame));
                prop_assert_eq!(list.load().unwrap(), frames.clone());
                prop_assert_eq!((list.len(), list.is_empty()), (frames.len(), frames.is_empty()));
            }
        }
    }
}

//! Where the bytes of journal files come from: whatever can be read at an offset. Nothing here opens a file.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use crate::error::JournalError;

/// Bytes read ahead at a time while scanning.
const WINDOW_BYTES: usize = 256 * 1024;
/// What is given up at a time where a disk does not read: the block size of common file systems and disks.
const BLOCK_BYTES: usize = 4096;
/// Unreadable blocks after which the file as a whole counts as unreadable: then it is not a bad spot but a missing disk.
const UNREADABLE_BLOCKS_MAX: usize = 1024;

/// Random access to the bytes of one file.
pub trait ReadAt {
    /// Length in bytes, now.
    ///
    /// # Errors
    /// What the system says.
    fn len(&mut self) -> io::Result<u64>;

    /// Whether there are no bytes, now.
    ///
    /// # Errors
    /// What the system says.
    fn is_empty(&mut self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end, as `pread` does.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// These bytes are read soon: what can be fetched meanwhile is worth to be. It waits for nothing, and may do nothing.
    fn will_read(&mut self, _offset: u64, _len: usize) {}
}

impl ReadAt for &[u8] {
    fn len(&mut self) -> io::Result<u64> {
        Ok(<[u8]>::len(self) as u64)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(from..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl ReadAt for Vec<u8> {
    fn len(&mut self) -> io::Result<u64> {
        Ok(self.as_slice().len() as u64)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buf)
    }
}

/// Anything that reads and seeks, for example an open file.
#[derive(Debug)]
pub struct Seekable<T>(pub T);

impl<T: Read + Seek> ReadAt for Seekable<T> {
    fn len(&mut self) -> io::Result<u64> {
        self.0.seek(SeekFrom::End(0))
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.seek(SeekFrom::Start(offset))?;
        let mut filled = 0;
        while filled < buf.len() {
            match self.0.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// The files of one generation, by number.
pub trait JournalFiles {
    /// The file with this number.
    ///
    /// # Errors
    /// What the system says, for example that there is no such file.
    fn file(&mut self, file_seq: u32) -> io::Result<&mut dyn ReadAt>;
}

impl<T: ReadAt> JournalFiles for BTreeMap<u32, T> {
    fn file(&mut self, file_seq: u32) -> io::Result<&mut dyn ReadAt> {
        match self.get_mut(&file_seq) {
            Some(file) => Ok(file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// A stretch of a file that the disk would not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Reads one file from front to back through a buffer, as long as it was when the window was opened. Blocks that do not
/// read are zeros here, and are noted.
pub(crate) struct Window<'a> {
    file: &'a mut dyn ReadAt,
    file_seq: u32,
    len: u64,
    start: u64,
    buf: Vec<u8>,
    unreadable_blocks: usize,
    pub(crate) unreadable: Vec<Unreadable>,
}

impl<'a> Window<'a> {
    pub(crate) fn open(file: &'a mut dyn ReadAt, file_seq: u32) -> Result<Self, JournalError> {
        let len = file.len().map_err(|source| JournalError::Read { file_seq, source })?;
        Ok(Self { file, file_seq, len, start: 0, buf: Vec::new(), unreadable_blocks: 0, unreadable: Vec::new() })
    }

    /// Length of the file when the window was opened; what was appended since is for the next time.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes `offset..offset + count`, or none when the file ends before. `count` is at most one frame.
    pub(crate) fn get(&mut self, offset: u64, count: usize) -> Result<Option<&[u8]>, JournalError> {
        let Some(end) = offset.checked_add(count as u64).filter(|end| *end <= self.len) else {
            return Ok(None);
        };
        let inside = offset >= self.start && end <= self.start + self.buf.len() as u64;
        if !inside {
            self.fill(offset, count.max(WINDOW_BYTES))?;
        }
        let from = (offset - self.start) as usize;
        // Shorter only when the file was cut off meanwhile.
        Ok(self.buf.get(from..from + count))
    }

    fn fill(&mut self, offset: u64, count: usize) -> Result<(), JournalError> {
        let available = self.len - offset;
        let count = usize::try_from(available).map_or(count, |available| count.min(available));
        self.start = offset;
        self.buf.resize(count, 0);
        match read_whole(self.file, offset, &mut self.buf) {
            Ok(filled) => self.buf.truncate(filled),
            Err(error) => self.fill_by_blocks(error)?,
        }
        Ok(())
    }

    fn fill_by_blocks(&mut self, error: io::Error) -> Result<(), JournalError> {
        let mut at = 0;
        while at < self.buf.len() {
            let offset = self.start + at as u64;
            let to_boundary = BLOCK_BYTES - (offset % BLOCK_BYTES as u64) as usize;
            let end = (at + to_boundary).min(self.buf.len());
            let block = &mut self.buf[at..end];
            if read_whole(self.file, offset, block).is_err() {
                block.fill(0);
                self.note_unreadable(offset, (end - at) as u64);
                self.unreadable_blocks += 1;
                if self.unreadable_blocks > UNREADABLE_BLOCKS_MAX {
                    return Err(JournalError::Read { file_seq: self.file_seq, source: error });
                }
            }
            at = end;
        }
        Ok(())
    }

    /// A window may be filled twice over the same block, which is still one block.
    fn note_unreadable(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        let known = self
            .unreadable
            .iter_mut()
            .find(|known| offset <= known.offset + known.len && known.offset <= end && known.len < 1 << 20);
        match known {
            Some(known) => {
                let known_end = (known.offset + known.len).max(end);
                known.offset = known.offset.min(offset);
                known.len = known_end - known.offset;
            }
            None => self.unreadable.push(Unreadable { offset, len }),
        }
    }
}

/// Reads until `buf` is full or the file ends, and says how much it was.
pub(crate) fn read_whole(file: &mut dyn ReadAt, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(offset + filled as u64, &mut buf[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

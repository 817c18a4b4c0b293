//! One frame found again: whether it was written, asked by who remembers where it was to be.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::JournalError;
use crate::format::{BODY_BYTES_MAX, Checksums, FRAME_HEADER_BYTES};
use crate::read_at::{ReadAt, read_whole};

/// Where a frame is in its generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramePlace {
    /// Number of the file.
    pub file_seq: u32,
    /// Where the frame begins in it.
    pub offset: u64,
    /// The frame's sequence.
    pub seq: u64,
}

impl FramePlace {
    /// Whether the frame is in the file at its place, whole. Frames are written in the order of their sequence, so all before it in
    /// the file were written too.
    ///
    /// # Errors
    /// [`JournalError::Read`], when the disk does not read.
    pub fn is_written(&self, generation: Uuid, file: &mut dyn ReadAt) -> Result<bool, JournalError> {
        let failed = |source| JournalError::Read { file_seq: self.file_seq, source };
        let mut header = [0; FRAME_HEADER_BYTES];
        if read_whole(file, self.offset, &mut header).map_err(failed)? < FRAME_HEADER_BYTES {
            return Ok(false);
        }
        let found = Checksums::new(generation).header(&header, BODY_BYTES_MAX);
        let Some((found, body_crc)) = found.filter(|(found, _)| found.seq == self.seq) else { return Ok(false) };
        let mut body = vec![0; found.padded_len()];
        let at = self.offset.saturating_add(FRAME_HEADER_BYTES as u64);
        let filled = read_whole(file, at, &mut body).map_err(failed)?;
        Ok(filled == body.len() && crc32c::crc32c(&body) == body_crc)
    }
}

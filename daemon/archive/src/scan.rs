//! Reading an archive from front to back, whatever has become of it.

use std::io::Read;

use sha2::{Digest, Sha256};

use crate::ArchiveError;
use crate::chunk::{CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES, CHUNK_MAGIC, CHUNKS_MAX, ChunkHeader};

/// Pieces of a file looked at: twice the chunks that an archive can have. A file with more was made to fill the memory.
pub(crate) const PIECES_MAX: usize = 2 * CHUNKS_MAX as usize;

/// Bytes asked for at a time: a few chunks, so that a network share is not asked for each.
const READ_BYTES: usize = 256 * 1_024;

/// Whether the body of a chunk is what was written, as far as its checksum says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Whole,
    Damaged,
    /// The file ends in it.
    Cut,
}

/// A stretch of the file. Pieces follow each other without gaps.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Piece {
    /// A chunk with an intact header. Where its body is not whole, the length goes up to the next header.
    Chunk { header: ChunkHeader, body: Body, offset: u64, length: u64 },
    /// Bytes up to the next header that are no chunk.
    Noise { offset: u64, length: u64 },
}

/// Cuts a file into [`Piece`]s. Holds some hundred kilobytes of it at a time.
pub(crate) struct Scanner<R> {
    input: R,
    buf: Vec<u8>,
    /// What of `buf` is done with.
    start: usize,
    /// Offset in the file of `buf[start]`.
    offset: u64,
    ended: bool,
    sha256: Option<Sha256>,
}

impl<R: Read> Scanner<R> {
    /// A scanner over `input`, which stands at offset 0; `hashed` when the SHA-256 of the file is wanted.
    pub(crate) fn new(input: R, hashed: bool) -> Self {
        let sha256 = hashed.then(Sha256::new);
        Self { input, buf: Vec::new(), start: 0, offset: 0, ended: false, sha256 }
    }

    /// What comes next: at least `bytes` of it, or all that is left.
    pub(crate) fn peek(&mut self, bytes: usize) -> Result<&[u8], ArchiveError> {
        while self.buf.len() - self.start < bytes && !self.ended {
            self.buf.drain(..self.start);
            self.start = 0;
            let had = self.buf.len();
            let more = READ_BYTES.max(bytes - had) as u64;
            let read = self.input.by_ref().take(more).read_to_end(&mut self.buf);
            let read =
                read.map_err(ArchiveError::io(format!("read an archive from offset {}", self.offset + had as u64)))?;
            self.ended = read == 0;
            if let Some(sha256) = &mut self.sha256 {
                sha256.update(&self.buf[had..]);
            }
        }
        Ok(&self.buf[self.start..])
    }

    /// Passes over bytes that were peeked at.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// The next piece, and in `text` the body of a chunk that is whole; none at the end of the file.
    pub(crate) fn next(&mut self, text: &mut Vec<u8>) -> Result<Option<Piece>, ArchiveError> {
        let offset = self.offset;
        let ahead = self.peek(CHUNK_HEADER_BYTES)?;
        if ahead.is_empty() {
            return Ok(None);
        }
        let Some(header) = ChunkHeader::parse(ahead) else {
            let length = self.skip_to_header(1)?;
            return Ok(Some(Piece::Noise { offset, length }));
        };
        let (body, length) = self.body(&header, text)?;
        Ok(Some(Piece::Chunk { header, body, offset, length }))
    }

    /// Bytes read so far, and the SHA-256 of them: of the file, once [`Scanner::next`] gave none.
    pub(crate) fn finish(self) -> (u64, [u8; 32]) {
        let hash = self.sha256.map(|sha256| sha256.finalize().into());
        (self.offset, hash.unwrap_or_default())
    }

    fn body(&mut self, header: &ChunkHeader, text: &mut Vec<u8>) -> Result<(Body, u64), ArchiveError> {
        let length = header.chunk_bytes();
        let ahead = self.peek(length + CHUNK_HEADER_BYTES)?;
        let all_there = ahead.len() >= length;
        if all_there {
            let (chunk, rest) = ahead.split_at(length);
            let body = &chunk[CHUNK_HEADER_BYTES..];
            let whole = header.body_is_whole(body);
            if whole {
                text.clear();
                text.extend(body);
            }
            // A damaged body may have become longer or shorter: its length counts only when what follows bears it out.
            if whole || rest.is_empty() || ChunkHeader::parse(rest).is_some() {
                self.consume(length);
                return Ok((if whole { Body::Whole } else { Body::Damaged }, length as u64));
            }
        }
        let length = self.skip_to_header(CHUNK_HEADER_BYTES)?;
        let cut = !all_there && self.peek(1)?.is_empty();
        Ok((if cut { Body::Cut } else { Body::Damaged }, length))
    }

    /// Passes over `at_least` bytes and on to the next chunk header, or to the end; says how many bytes that was.
    fn skip_to_header(&mut self, at_least: usize) -> Result<u64, ArchiveError> {
        let before = self.offset;
        self.consume(at_least);
        loop {
            let ahead = self.peek(CHUNK_BYTES_MAX)?;
            let length = ahead.len();
            let here = |at: &usize| ahead[*at] == CHUNK_MAGIC[0] && ChunkHeader::parse(&ahead[*at..]).is_some();
            if let Some(at) = (0..length).find(here) {
                self.consume(at);
                return Ok(self.offset - before);
            }
            if length < CHUNK_BYTES_MAX {
                self.consume(length);
                return Ok(self.offset - before);
            }
            self.consume(length - CHUNK_HEADER_BYTES + 1);
        }
    }
}

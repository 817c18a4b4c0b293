//! Framing: length, version byte, postcard.

use std::io::{self, BufWriter, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::RenderError;

/// The version that this build speaks.
pub const PROTOCOL_VERSION: u8 = 3;

/// Longest frame after its length field, in bytes: a job with every track and codec in use and the longest names. Packets and data
/// are a tenth of it. What a peer can make us allocate for one message.
pub const FRAME_BYTES_MAX: usize = 640 * 1024;

const LENGTH_BYTES: usize = 4;

/// The first piece of a [`Swelling`]: a quarter of a second of G.711, half a second of MP3.
const PIECE_BYTES_MIN: usize = 4 * 1024;

/// Writes one message as a frame. `scratch` is reused between calls; its content does not matter.
///
/// # Errors
/// [`RenderError::TooLong`] when the message does not fit (nothing is written then), [`RenderError::Io`] from the writer.
pub fn write_frame<W: Write, T: Serialize>(
    writer: &mut W,
    message: &T,
    scratch: &mut Vec<u8>,
) -> Result<(), RenderError> {
    scratch.clear();
    scratch.extend_from_slice(&[0; LENGTH_BYTES]);
    scratch.push(PROTOCOL_VERSION);
    *scratch = postcard::to_extend(message, std::mem::take(scratch))
        .map_err(|_| RenderError::Malformed("a message that cannot be written"))?;
    let length = scratch.len() - LENGTH_BYTES;
    if length > FRAME_BYTES_MAX {
        return Err(RenderError::TooLong(length));
    }
    let length = u32::try_from(length).map_err(|_| RenderError::TooLong(length))?;
    scratch[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    writer.write_all(scratch)?;
    Ok(())
}

/// Reads one frame. `scratch` is reused between calls; its content does not matter. `None` is the end of the stream at a frame's
/// boundary.
///
/// # Errors
/// [`RenderError::Truncated`] when the stream ends inside a frame; [`RenderError::Version`] and [`RenderError::Malformed`] for what is no message of ours; [`RenderError::Io`] from the reader. After an error the stream is not
/// in step any more.
pub fn read_frame<R: Read, T: DeserializeOwned>(
    reader: &mut R,
    scratch: &mut Vec<u8>,
) -> Result<Option<T>, RenderError> {
    let mut length = [0; LENGTH_BYTES];
    if !read_or_end(reader, &mut length)? {
        return Ok(None);
    }
    let length = frame_length(length)?;
    scratch.clear();
    scratch.resize(length, 0);
    if !read_or_end(reader, scratch)? {
        return Err(RenderError::Truncated);
    }
    parse(scratch).map(Some)
}

/// Fills `into`; false when the stream ended before its first byte.
fn read_or_end<R: Read>(reader: &mut R, into: &mut [u8]) -> Result<bool, RenderError> {
    let mut filled = 0;
    while filled < into.len() {
        match reader.read(&mut into[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(RenderError::Truncated),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn frame_length(field: [u8; LENGTH_BYTES]) -> Result<usize, RenderError> {
    match usize::try_from(u32::from_le_bytes(field)) {
        Ok(0) => Err(RenderError::Malformed("an empty frame")),
        Ok(length) if length <= FRAME_BYTES_MAX => Ok(length),
        _ => Err(RenderError::Malformed("a frame above the limit")),
    }
}

fn parse<T: DeserializeOwned>(frame: &[u8]) -> Result<T, RenderError> {
    let (version, body) = frame.split_first().ok_or(RenderError::Malformed("an empty frame"))?;
    if *version != PROTOCOL_VERSION {
        return Err(RenderError::Version(*version));
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(RenderError::Malformed("bytes after a message")),
        Err(_) => Err(RenderError::Malformed("bytes that are no message")),
    }
}

/// A pipe's buffered writer whose first bytes go soon, because somebody waits for them, and which then sends ever larger pieces.
pub struct Swelling<W: Write> {
    pipe: BufWriter<W>,
    /// Bytes that wait.
    waiting: usize,
    /// Bytes that wait at most.
    piece: usize,
}

impl<W: Write> Swelling<W> {
    /// Sends pieces of up to `bytes_max`.
    pub fn new(pipe: W, bytes_max: usize) -> Self {
        Self { pipe: BufWriter::with_capacity(bytes_max, pipe), waiting: 0, piece: PIECE_BYTES_MIN }
    }

    /// The pipe, when all is sent.
    ///
    /// # Errors
    /// The pipe's.
    pub fn into_inner(self) -> io::Result<W> {
        self.pipe.into_inner().map_err(io::IntoInnerError::into_error)
    }

    /// Throws away what waits.
    pub fn discard(self) {
        drop(self.pipe.into_parts());
    }
}

impl<W: Write> Write for Swelling<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.pipe.write(bytes)?;
        self.waiting = self.waiting.saturating_add(written);
        if self.waiting >= self.piece {
            self.waiting = 0;
            self.pipe.flush()?;
            self.piece = self.piece.saturating_mul(2).min(self.pipe.capacity());
        }
        Ok(written)
    }

    /// Somebody waits for what comes next, too.
    fn flush(&mut self) -> io::Result<()> {
        (self.waiting, self.piece) = (0, PIECE_BYTES_MIN);
        self.pipe.flush()
    }
}

/// Collects bytes as they come and gives out whole messages: the reader for a pipe that must not be read without looking first.
///
/// Holds at most one frame and what was added after it.
#[derive(Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    taken: usize,
}

impl FrameBuffer {
    /// Adds bytes from the stream. Take all messages with [`FrameBuffer::next`] before adding more, so that it stays small.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message; `None` when more bytes are needed.
    ///
    /// # Errors
    /// As [`read_frame`], without `Io` and `Truncated`.
    #[expect(clippy::should_implement_trait, reason = "the item type is the caller's choice at each call")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, RenderError> {
        let waiting = &self.bytes[self.taken..];
        let Some((field, rest)) = waiting.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = frame_length(*field)?;
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        let message = parse(frame)?;
        self.taken += LENGTH_BYTES + length;
        Ok(Some(message))
    }

    /// Whether the stream may end here without cutting a message.
    pub fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }
}

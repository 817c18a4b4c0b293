//! Finding messages in a stream (RFC 3261 section 18.3) and the keep-alives between them (RFC 5626 section 3.5.1).

use std::fmt;

use super::Message;
use super::parse::{ContentLength, Head, check_start_line, head_end, is_token, split_line};
use crate::error::ParseError;
use crate::limits::Limits;

/// What a stream brought.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // handed on one at a time, never stored in numbers
pub enum StreamItem {
    /// A whole message.
    Message(Message),
    /// A keep-alive: answer with [`StreamParser::PONG`].
    Ping,
}

/// The stream cannot be read any further: hand both parts to [`crate::Endpoint::receive_invalid`], which answers where an answer is
/// possible and says to close the connection.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamFault {
    /// The message at fault, as far as it came and within the limit on header bytes.
    pub raw: Vec<u8>,
    /// Why it cannot be read.
    pub error: ParseError,
}

impl fmt::Debug for StreamFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {} bytes", self.error, self.raw.len())
    }
}

/// Takes a stream's bytes as they come and gives whole messages.
///
/// It holds at most one unfinished message within its limits, besides what was just pushed. After a fault it gives nothing more.
pub struct StreamParser {
    limits: Limits,
    buffer: Vec<u8>,
    /// Where the current message starts in `buffer`.
    start: usize,
    /// How far behind `start` the end of the header section was looked for already.
    scanned: usize,
    /// The current message once its header section is whole: the section, its length, the body's length.
    head: Option<(Head, usize, usize)>,
    start_line_checked: bool,
    /// Line ends seen between messages; two make a ping.
    line_ends: u8,
    failed: bool,
}

impl StreamParser {
    /// The answer to [`StreamItem::Ping`].
    pub const PONG: &'static [u8] = b"\r\n";

    /// A parser for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            head: None,
            start_line_checked: false,
            line_ends: 0,
            failed: false,
        }
    }

    /// Adds what was read from the connection. Call [`Self::poll`] until it gives nothing before reading on.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether part of a message has come and the rest is awaited; a driver gives that a deadline.
    #[must_use]
    pub fn is_within_message(&self) -> bool {
        !self.failed && self.start < self.buffer.len()
    }

    /// The next message or keep-alive; `None` until more bytes come.
    ///
    /// # Errors
    /// [`StreamFault`] when the bytes are no SIP, over a limit, or without a usable Content-Length. The connection is to be closed.
    pub fn poll(&mut self) -> Result<Option<StreamItem>, StreamFault> {
        if self.failed {
            return Ok(None);
        }
        if self.head.is_none() {
            if self.take_line_ends() {
                return Ok(Some(StreamItem::Ping));
            }
            self.read_head().map_err(|error| self.fail(error))?;
        }
        Ok(self.take_message().map(StreamItem::Message))
    }

    fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Skips line ends in front of a message; true when a ping is complete.
    fn take_line_ends(&mut self) -> bool {
        loop {
            let skip = match self.pending() {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                // Half a line end: wait. A lone CR before anything else is noise.
                [b'\r'] => return false,
                [b'\r', ..] => {
                    self.start += 1;
                    continue;
                }
                [] => return false,
                _ => {
                    self.line_ends = 0;
                    return false;
                }
            };
            self.start += skip;
            self.line_ends += 1;
            if self.line_ends == 2 {
                self.line_ends = 0;
                return true;
            }
        }
    }

    /// Reads the header section when it is whole; fails as early as it is clear that it will not do.
    fn read_head(&mut self) -> Result<(), ParseError> {
        let limit_bytes = self.limits.header_bytes_max;
        let pending = &self.buffer[self.start..];
        if !self.start_line_checked {
            match pending.first() {
                None | Some(b'\r') => return Ok(()),
                Some(byte) if !is_token(*byte) => return Err(ParseError::NotSip),
                Some(_) => {}
            }
            if pending.contains(&b'\n') {
                check_start_line(split_line(pending).0)?;
                self.start_line_checked = true;
            }
        }
        let Some(end) = head_end(pending, self.scanned) else {
            // The empty line may have begun: look at its first bytes again.
            self.scanned = pending.len().saturating_sub(3);
            return if pending.len() > limit_bytes { Err(ParseError::HeaderBytes { limit_bytes }) } else { Ok(()) };
        };
        let head = Head::parse(&pending[..end], &self.limits)?;
        let body_bytes = match head.content_length {
            ContentLength::Bytes(bytes) => bytes,
            // Forgiven only where there is nothing to frame.
            ContentLength::Absent if head.headers.get("Content-Type").is_none() => 0,
            ContentLength::Absent | ContentLength::Malformed => return Err(ParseError::ContentLength),
        };
        let limit_bytes = self.limits.body_bytes_max;
        match usize::try_from(body_bytes) {
            Ok(bytes) if bytes <= limit_bytes => self.head = Some((head, end, bytes)),
            _ => return Err(ParseError::BodyBytes { limit_bytes }),
        }
        Ok(())
    }

    /// The current message when its body is whole.
    fn take_message(&mut self) -> Option<Message> {
        let (head, head_bytes, body_bytes) = self.head.take()?;
        let Some(body) = self.pending().get(head_bytes..head_bytes + body_bytes) else {
            self.head = Some((head, head_bytes, body_bytes));
            return None;
        };
        let message = head.into_message(body.to_vec());
        self.start += head_bytes + body_bytes;
        self.scanned = 0;
        self.start_line_checked = false;
        self.line_ends = 0;
        Some(message)
    }

    fn fail(&mut self, error: ParseError) -> StreamFault {
        self.failed = true;
        let pending = self.pending();
        let raw = pending[..pending.len().min(self.limits.header_bytes_max)].to_vec();
        self.buffer = Vec::new();
        self.start = 0;
        StreamFault { raw, error }
    }
}

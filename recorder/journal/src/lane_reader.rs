//! Opens the sealed frames of one lane, frame by frame.

use std::cmp::Reverse;

use callvault_seal::Cipher;
use uuid::Uuid;

use crate::audio::Packets;
use crate::error::JournalError;
use crate::facts::SessionEvent;
use crate::finding::{Finding, FindingKind};
use crate::format::{BODY_BYTES_MAX, Checksums, FACTS_BYTES_MAX, FLAG_CONTINUES, FLAG_MORE, FRAME_HEADER_BYTES, Kind};
use crate::read_at::{JournalFiles, read_whole};
use crate::scanner::FrameRef;

/// Frames that are announced before they are read: some twenty seconds of a call. The calls of a journal lie between one another, so that each
/// frame of an hour's call is somewhere else on the disk, and read one by one each would wait for it.
const FRAMES_AHEAD: usize = 128;

/// One thing read from a lane.
#[derive(Debug)]
pub enum LaneItem<'a> {
    /// Something that happened in the session.
    Facts(SessionEvent),
    /// The packets of one frame, in the order in which they were received.
    Audio(Packets<'a>),
    /// A frame that is lost; reading goes on behind it.
    Finding(Finding),
}

/// Reads a lane in journal order. Holds one frame and one event in memory.
pub struct LaneReader {
    generation: Uuid,
    lane: u32,
    cipher: Cipher,
    frames: Vec<FrameRef>,
    at: usize,
    /// The frames before this one were announced.
    announced: usize,
    frame: Vec<u8>,
    /// The event whose parts are being put together, and the sequence of the part that must come next.
    event: Option<(Vec<u8>, FrameRef)>,
}

/// What one step found; audio is in `frame`.
enum Step {
    End,
    Audio,
    Facts(SessionEvent),
    Finding(Finding),
    /// Part of an event, or a frame of another kind: nothing to tell.
    Nothing,
}

impl LaneReader {
    /// A reader of `lane` over its frames ([`crate::LaneEntry::frames`], in any order) with its cipher.
    pub fn new(generation: Uuid, lane: u32, cipher: Cipher, frames: impl IntoIterator<Item = FrameRef>) -> Self {
        let mut frames: Vec<FrameRef> = frames.into_iter().filter(|frame| frame.lane == lane).collect();
        // A frame may be known twice: in a file that was abandoned, and in the one that replaced it. Of intact copies the later is the
        // one that can be on the device; the first may be in the page cache alone. Each is tried until one opens: the checksum of a copy
        // may be right and its seal not, and one that is not intact may be damaged in its padding alone.
        frames.sort_by_key(|frame| (frame.seq, !frame.intact, Reverse(frame.file_seq)));
        frames.dedup();
        Self { generation, lane, cipher, frames, at: 0, announced: 0, frame: Vec::new(), event: None }
    }

    /// The next item, or none at the end. What is lost is an item, not an error.
    ///
    /// # Errors
    /// [`JournalError::Read`] when a file cannot be had at all. The same item is tried again by the next call.
    pub fn next(&mut self, files: &mut dyn JournalFiles) -> Result<Option<LaneItem<'_>>, JournalError> {
        loop {
            match self.step(files)? {
                Step::End => return Ok(None),
                Step::Nothing => {}
                Step::Facts(event) => return Ok(Some(LaneItem::Facts(event))),
                Step::Finding(finding) => return Ok(Some(LaneItem::Finding(finding))),
                Step::Audio => break,
            }
        }
        // Parsed once already by `step`, which gave a finding where this would give nothing.
        Ok(Packets::parse(self.plain()).map(LaneItem::Audio))
    }

    /// The opened body of the frame that was loaded last.
    fn plain(&self) -> &[u8] {
        self.frame.get(FRAME_HEADER_BYTES..).unwrap_or_default()
    }

    fn step(&mut self, files: &mut dyn JournalFiles) -> Result<Step, JournalError> {
        let Some(&frame) = self.frames.get(self.at) else {
            return Ok(match self.event.take() {
                Some((_, first)) => Step::Finding(incomplete(&first)),
                None => Step::End,
            });
        };
        if let Some((_, first)) = self.event.take_if(|(_, last)| last.seq.checked_add(1) != Some(frame.seq)) {
            return Ok(Step::Finding(incomplete(&first)));
        }
        self.announce(files);
        let loaded = self.load(files, &frame)?;
        self.at += 1;
        let flags = match loaded {
            Ok(flags) => {
                while self.is_copy(self.at, &frame) {
                    self.at += 1;
                }
                flags
            }
            // The next is another copy of it.
            Err(_) if self.is_copy(self.at, &frame) => return Ok(Step::Nothing),
            Err(finding) => {
                self.event = None;
                return Ok(Step::Finding(finding));
            }
        };
        Ok(match frame.kind {
            Kind::Audio if Packets::parse(self.plain()).is_none() => Step::Finding(finding(
                &frame,
                FindingKind::Malformed,
                "the audio batch is not as the specification says",
            )),
            Kind::Audio => Step::Audio,
            Kind::Facts => self.facts(&frame, flags),
            _ => Step::Nothing,
        })
    }

    /// Announces what comes next, some at a time. A file that cannot be had is found out when it is read.
    fn announce(&mut self, files: &mut dyn JournalFiles) {
        if self.announced >= self.at + FRAMES_AHEAD / 2 {
            return;
        }
        let end = self.frames.len().min(self.at + FRAMES_AHEAD);
        for frame in self.frames.get(self.announced..end).unwrap_or_default() {
            if let Ok(file) = files.file(frame.file_seq) {
                let body_len = (frame.body_len as usize).min(BODY_BYTES_MAX);
                file.will_read(frame.offset, FRAME_HEADER_BYTES + body_len);
            }
        }
        self.announced = self.announced.max(end);
    }

    /// Whether there is a copy of the frame at this place in the list, or the frame itself.
    fn is_copy(&self, at: usize, frame: &FrameRef) -> bool {
        self.frames.get(at).is_some_and(|other| other.seq == frame.seq)
    }

    /// Adds the opened frame to the event that it is a part of.
    fn facts(&mut self, frame: &FrameRef, flags: u8) -> Step {
        let mut json = match (self.event.take(), flags & FLAG_CONTINUES != 0) {
            (None, false) => Vec::new(),
            (Some((json, _)), true) => json,
            (None, true) => {
                let text = "the beginning of the event is missing";
                return Step::Finding(finding(frame, FindingKind::Damaged, text));
            }
            (Some((_, last)), false) => {
                // The frame itself begins an event: read it again, after what is said about the one before.
                while self.at.checked_sub(1).is_some_and(|before| self.is_copy(before, frame)) {
                    self.at -= 1;
                }
                return Step::Finding(incomplete(&last));
            }
        };
        if json.len() + self.plain().len() > FACTS_BYTES_MAX {
            let text = "the event is longer than an event can be";
            return Step::Finding(finding(frame, FindingKind::Malformed, text));
        }
        json.extend_from_slice(self.plain());
        if flags & FLAG_MORE != 0 {
            self.event = Some((json, *frame));
            return Step::Nothing;
        }
        match serde_json::from_slice(&json) {
            Ok(event) => Step::Facts(event),
            // What the parser says may repeat what it read, which is personal: only where it stopped is told.
            Err(error) => Step::Finding(finding(
                frame,
                FindingKind::Malformed,
                &format!("the event is not as expected at byte {}", error.column()),
            )),
        }
    }

    /// Reads and opens a frame into `self.frame`; gives its flags, or why it is lost.
    fn load(&mut self, files: &mut dyn JournalFiles, frame: &FrameRef) -> Result<Result<u8, Finding>, JournalError> {
        let file =
            files.file(frame.file_seq).map_err(|source| JournalError::Read { file_seq: frame.file_seq, source })?;
        let body_len = (frame.body_len as usize).min(BODY_BYTES_MAX);
        self.frame.resize(FRAME_HEADER_BYTES + body_len, 0);
        match read_whole(file, frame.offset, &mut self.frame) {
            Ok(filled) if filled == self.frame.len() => {}
            Ok(_) => {
                let text = "the file ends within the frame";
                return Ok(Err(finding(frame, FindingKind::Damaged, text)));
            }
            Err(_) => {
                let text = "the disk does not read the frame";
                return Ok(Err(finding(frame, FindingKind::Unreadable, text)));
            }
        }
        let header = self
            .frame
            .first_chunk()
            .and_then(|bytes| Checksums::new(self.generation).header(bytes, BODY_BYTES_MAX))
            .map(|(header, _)| header)
            .filter(|header| {
                header.seq == frame.seq
                    && header.lane == self.lane
                    && header.kind == frame.kind
                    && header.body_len == frame.body_len
            });
        let Some(header) = header else {
            let text = "the frame is no longer what it was when the journal was scanned";
            return Ok(Err(finding(frame, FindingKind::Damaged, text)));
        };
        let aad = header.aad(self.generation);
        let sealed = &mut self.frame[FRAME_HEADER_BYTES..];
        let opened = self.cipher.open_in_place(&header.nonce(), &aad, sealed).map(|plain| plain.len());
        Ok(match opened {
            Ok(plain_len) => {
                self.frame.truncate(FRAME_HEADER_BYTES + plain_len);
                Ok(header.flags)
            }
            Err(_) => {
                Err(finding(frame, FindingKind::NotAuthentic, "the frame does not open with the key of its lane"))
            }
        })
    }
}

fn incomplete(last: &FrameRef) -> Finding {
    let text = "the end of the event is missing";
    finding(last, FindingKind::Damaged, text)
}

fn finding(frame: &FrameRef, kind: FindingKind, text: &str) -> Finding {
    Finding {
        kind,
        file_seq: frame.file_seq,
        offset: frame.offset,
        len: frame.frame_len(),
        frames: Some(frame.seq..=frame.seq),
        lane: Some(frame.lane),
        text: text.to_owned(),
    }
}

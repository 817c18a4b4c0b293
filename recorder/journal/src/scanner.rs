//! Reads the frames of a generation, file after file, and notes what is wrong. Needs no keys.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::error::JournalError;
use crate::finding::{Finding, FindingKind, Findings, Report};
use crate::format::{
    BODY_BYTES_MAX, BadFileHeader, Checksums, Content, FILE_HEADER_BYTES, FRAME_ALIGN, FRAME_HEADER_BYTES, FileHeader,
    FrameHeader, Kind, VERSION,
};
use crate::missing::{Lost, Missing};
use crate::read_at::{ReadAt, Window};

/// Where a frame is: what to keep of a frame to read it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRef {
    /// Sequence in the generation.
    pub seq: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Number of the file.
    pub file_seq: u32,
    /// The lane, or 0 when it belongs to none.
    pub lane: u32,
    /// Length of the body, without padding.
    pub body_len: u32,
    /// What kind of frame it is.
    pub kind: Kind,
    /// Whether the body's checksum holds. Where it does not, a sealed body is still worth trying with the key: the damage may
    /// be in the padding.
    pub intact: bool,
}

impl FrameRef {
    /// Bytes from the beginning of the header to the end of the padding.
    pub fn frame_len(&self) -> u64 {
        let body = u64::from(self.body_len).next_multiple_of(FRAME_ALIGN as u64);
        FRAME_HEADER_BYTES as u64 + body
    }
}

/// A frame as the scanner passes it on.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Where it is.
    pub at: FrameRef,
    /// What it says; none when the body is damaged or malformed (then there is a finding).
    pub content: Option<Content>,
    /// The body as stored, without padding.
    pub body: &'a [u8],
}

/// What is known of a file.
#[derive(Debug, Default)]
struct FileState {
    /// The next frame is expected here.
    offset: u64,
    /// Length when last looked at.
    len: u64,
    /// Between `offset` and here there is no frame header; what was appended since is still to be searched.
    searched: u64,
    header: Option<FileHeader>,
    begun: bool,
    /// The sequence that was expected when the first frame of this file was read; none before.
    begun_at: Option<u64>,
    foreign: bool,
    ended: bool,
    frames: u64,
}

/// Reads the files of one generation in order, each as often as it grows.
///
/// Call [`Scanner::scan`] for each file in ascending order; for the last one again whenever there may be more. An incomplete last
/// frame is not a finding then: it is read when it is complete. [`Scanner::report`] says what is wrong if nothing more comes.
/// Memory is bounded: one window of a file, the findings, and the ranges of missing frames, whatever the journal's size.
#[derive(Debug)]
pub struct Scanner {
    generation: Uuid,
    checksums: Checksums,
    files: BTreeMap<u32, FileState>,
    /// Sequence of the next frame; none until the first file says where it begins.
    next_seq: Option<u64>,
    frames: u64,
    durable_seq: u64,
    generation_ended: bool,
    missing: Missing,
    noted: Findings,
}

/// A look at one place in a file.
enum Look {
    /// A valid header whose body is all there, and whether its checksum holds.
    Frame(FrameHeader, bool),
    /// No header, or its body is not all there.
    Nothing,
}

impl Scanner {
    /// A scanner for the files of `generation` (their names say it).
    pub fn new(generation: Uuid) -> Self {
        Self {
            generation,
            checksums: Checksums::new(generation),
            files: BTreeMap::new(),
            next_seq: None,
            frames: 0,
            durable_seq: 0,
            generation_ended: false,
            missing: Missing::default(),
            noted: Findings::default(),
        }
    }

    /// Tells what is known from elsewhere: all frames up to `seq` were durable. Without it, only Commit frames say so, and a
    /// tail that was cut off behind the last of them cannot be told from one that was never written.
    pub fn known_durable(&mut self, seq: u64) {
        self.durable_seq = self.durable_seq.max(seq);
    }

    /// Sequence of the last frame in order; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.next_seq.map_or(0, |next| next.saturating_sub(1))
    }

    /// Whether the generation was ended in order: nothing more comes.
    pub fn ended(&self) -> bool {
        self.generation_ended
    }

    /// Sequence of the last frame that a Commit frame, or [`Scanner::known_durable`], says to be on the device; 0 before the first.
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// The files that have their end mark: nothing of them is written again in the next one.
    pub fn ended_files(&self) -> impl Iterator<Item = u32> {
        self.files.iter().filter(|(_, state)| state.ended).map(|(file_seq, _)| *file_seq)
    }

    /// The header of a file that was scanned, if it is intact.
    pub fn file_header(&self, file_seq: u32) -> Option<&FileHeader> {
        self.files.get(&file_seq)?.header.as_ref()
    }

    /// Reads what is new in file `file_seq` and passes each frame on, in the order of the file. A frame that is there twice is
    /// passed on once, but a lane's frame that an earlier file has is passed on again: a file that was abandoned may have it in
    /// the page cache alone.
    ///
    /// # Errors
    /// [`JournalError::FileOrder`] when a later file was scanned already, [`JournalError::UnsupportedVersion`],
    /// [`JournalError::Read`] when the file as a whole does not read. The scan can be repeated.
    pub fn scan(
        &mut self,
        file_seq: u32,
        file: &mut dyn ReadAt,
        each: &mut dyn FnMut(&Frame<'_>),
    ) -> Result<(), JournalError> {
        if let Some((&after, _)) = self.files.last_key_value()
            && after > file_seq
        {
            return Err(JournalError::FileOrder { file_seq, after });
        }
        let mut window = Window::open(file, file_seq)?;
        let result = self.scan_window(file_seq, &mut window, each);
        for spot in std::mem::take(&mut window.unreadable) {
            let told = self.noted.list.iter().any(|finding| {
                finding.kind == FindingKind::Unreadable && (finding.file_seq, finding.offset) == (file_seq, spot.offset)
            });
            if told {
                continue;
            }
            self.noted.push(Finding {
                kind: FindingKind::Unreadable,
                file_seq,
                offset: spot.offset,
                len: spot.len,
                frames: None,
                lane: None,
                text: "the disk does not read these bytes".to_owned(),
            });
        }
        result
    }

    fn scan_window(
        &mut self,
        file_seq: u32,
        window: &mut Window<'_>,
        each: &mut dyn FnMut(&Frame<'_>),
    ) -> Result<(), JournalError> {
        let previous = self.files.keys().next_back().copied();
        let previous = previous.filter(|previous| *previous < file_seq);
        if !self.files.contains_key(&file_seq) {
            self.close_previous(previous);
        }
        self.file(file_seq).len = window.len();
        if !self.begin_file(file_seq, previous, window)? {
            return Ok(());
        }
        loop {
            let state = self.file(file_seq);
            let (offset, searched) = (state.offset, state.searched);
            let header = match self.look(window, file_seq, offset)? {
                Look::Frame(header, true) => {
                    self.accept(file_seq, offset, &header, window, each)?;
                    continue;
                }
                Look::Frame(header, false) => Some(header),
                Look::Nothing => None,
            };
            // Damage or an unfinished end: which of them shows when a header follows. The length in the header is not believed for
            // that, because bytes may be missing from the body.
            let from = searched.max(offset.saturating_add(FRAME_ALIGN as u64));
            match self.find_header(window, file_seq, from)? {
                Ok(found) => self.step_over(file_seq, offset, found, header, window, each)?,
                Err(searched) => {
                    self.file(file_seq).searched = searched;
                    return Ok(());
                }
            }
        }
    }

    /// Reads the file header, once. False when there is nothing to read (yet).
    fn begin_file(
        &mut self,
        file_seq: u32,
        previous: Option<u32>,
        window: &mut Window<'_>,
    ) -> Result<bool, JournalError> {
        let state = self.file(file_seq);
        if state.begun {
            return Ok(!state.foreign);
        }
        let Some(bytes) = window.get(0, FILE_HEADER_BYTES)? else {
            return Ok(false);
        };
        let bytes = bytes.first_chunk().ok_or_else(|| read_short(file_seq))?;
        let header = match FileHeader::from_bytes(bytes) {
            Ok(header) => Some(header),
            Err(BadFileHeader::Damaged) => None,
            Err(BadFileHeader::Version(found)) => {
                return Err(JournalError::UnsupportedVersion { file_seq, found, known: VERSION });
            }
        };
        let foreign = header.is_some_and(|header| header.generation != self.generation);
        let state = self.file(file_seq);
        state.begun = true;
        state.foreign = foreign;
        state.offset = FILE_HEADER_BYTES as u64;
        state.header = header.filter(|_| !foreign);
        match header {
            Some(_) if foreign => self.note_foreign(file_seq),
            Some(header) => self.enter_file(file_seq, previous, &header),
            None => {
                self.missing.damaged_header(file_seq);
                // The generation's first file begins with its first frame, header or not.
                if file_seq == 0 {
                    self.next_seq.get_or_insert(1);
                }
            }
        }
        Ok(!foreign)
    }

    /// A later file exists: what is left over in the one before it will not become a frame any more.
    fn close_previous(&mut self, previous: Option<u32>) {
        let Some(previous) = previous else { return };
        let Some(state) = self.files.get(&previous) else {
            return;
        };
        if !state.foreign && state.offset < state.len {
            let lost = self.missing.stretch(previous, state.offset, state.len);
            lost.after_seq = self.next_seq.unwrap_or(1).saturating_sub(1);
        }
    }

    /// Uses what an intact file header says about the frames before it.
    fn enter_file(&mut self, file_seq: u32, previous: Option<u32>, header: &FileHeader) {
        if header.file_seq != file_seq {
            self.noted.push(Finding {
                kind: FindingKind::OutOfOrder,
                file_seq,
                offset: 0,
                len: FILE_HEADER_BYTES as u64,
                frames: None,
                lane: None,
                text: format!("the file's header says that it is file {}", header.file_seq),
            });
        }
        let Some(next) = self.next_seq else {
            self.begin_at(header.first_seq);
            return;
        };
        if header.first_seq <= next {
            return;
        }
        let Some(previous) = previous else { return };
        // Files between these two were released when everything in them was archived: that is no loss.
        if previous.checked_add(1) == Some(file_seq) {
            let end = self.file(previous).len;
            self.missing.jump(previous, end, next, header.first_seq);
        } else {
            self.missing.lose(next, header.first_seq.saturating_sub(1));
        }
        self.next_seq = Some(header.first_seq);
    }

    /// The files given begin with this sequence. What was before is not a loss; if it turns up, it is out of order.
    fn begin_at(&mut self, first_seq: u64) -> u64 {
        self.next_seq = Some(first_seq);
        if first_seq > 1 {
            self.missing.lose(1, first_seq - 1);
        }
        first_seq
    }

    fn note_foreign(&mut self, file_seq: u32) {
        let len = self.file(file_seq).len;
        self.noted.push(Finding {
            kind: FindingKind::Foreign,
            file_seq,
            offset: 0,
            len,
            frames: None,
            lane: None,
            text: "the file belongs to another generation and was not read".to_owned(),
        });
    }

    fn look(&mut self, window: &mut Window<'_>, file_seq: u32, offset: u64) -> Result<Look, JournalError> {
        let Some((header, body_crc)) = self.header_at(window, file_seq, offset)? else {
            return Ok(Look::Nothing);
        };
        let body = offset.saturating_add(FRAME_HEADER_BYTES as u64);
        Ok(match window.get(body, header.padded_len())? {
            Some(body) => Look::Frame(header, crc32c::crc32c(body) == body_crc),
            None => Look::Nothing,
        })
    }

    fn header_at(
        &self,
        window: &mut Window<'_>,
        file_seq: u32,
        offset: u64,
    ) -> Result<Option<(FrameHeader, u32)>, JournalError> {
        let file_header = self.file_header(file_seq);
        let body_bytes_max =
            file_header.map_or(BODY_BYTES_MAX, |header| BODY_BYTES_MAX.min(header.body_bytes_max as usize));
        let bytes = window.get(offset, FRAME_HEADER_BYTES)?;
        let bytes = bytes.and_then(<[u8]>::first_chunk);
        Ok(bytes.and_then(|bytes| self.checksums.header(bytes, body_bytes_max)))
    }

    /// The next valid header at or behind `from`, or how far there is none.
    fn find_header(&self, window: &mut Window<'_>, file_seq: u32, from: u64) -> Result<Result<u64, u64>, JournalError> {
        let mut at = from;
        while at.saturating_add(FRAME_HEADER_BYTES as u64) <= window.len() {
            if self.header_at(window, file_seq, at)?.is_some() {
                return Ok(Ok(at));
            }
            at += FRAME_ALIGN as u64;
        }
        Ok(Err(at))
    }

    /// Goes on at `found`, the next header behind bytes that are not a frame. If they begin with a valid header, they are a frame
    /// whose body is damaged: it is passed on as such.
    fn step_over(
        &mut self,
        file_seq: u32,
        offset: u64,
        found: u64,
        header: Option<FrameHeader>,
        window: &mut Window<'_>,
        each: &mut dyn FnMut(&Frame<'_>),
    ) -> Result<(), JournalError> {
        let after_seq = self.last_seq();
        let at = header.map(|header| frame_ref(file_seq, offset, &header, false));
        let fresh = at.is_some_and(|at| self.take_seq(&at));
        let lost = self.missing.stretch(file_seq, offset, found);
        lost.after_seq = after_seq;
        if let Some(at) = at {
            lost.body = true;
            lost.lane = lane_of(&at);
            if fresh {
                lost.range = Some((at.seq, at.seq));
                // An intact copy may be in the next file.
                self.missing.lose(at.seq, at.seq);
                let start = offset + FRAME_HEADER_BYTES as u64;
                let body = window.get(start, at.body_len as usize)?;
                each(&Frame { at, content: None, body: body.unwrap_or_default() });
            }
        }
        let state = self.file(file_seq);
        state.offset = found;
        state.searched = found;
        Ok(())
    }

    /// Takes an intact frame.
    fn accept(
        &mut self,
        file_seq: u32,
        offset: u64,
        header: &FrameHeader,
        window: &mut Window<'_>,
        each: &mut dyn FnMut(&Frame<'_>),
    ) -> Result<(), JournalError> {
        let at = frame_ref(file_seq, offset, header, true);
        // In the first file that has a frame, none is from an earlier one.
        let next = self.next_seq.filter(|_| self.frames > 0).unwrap_or(0);
        let state = self.file(file_seq);
        state.offset = offset.saturating_add(header.frame_len() as u64);
        state.frames += 1;
        let begun_at = *state.begun_at.get_or_insert(next);
        if !self.take_seq(&at) {
            // Written again, because the file before was abandoned: the copy that was read first may be in the page cache and never
            // have reached the device. So this one is told as well, and the file that holds it is needed.
            if at.seq >= begun_at || lane_of(&at).is_none() {
                return Ok(());
            }
            let body = window.get(offset + FRAME_HEADER_BYTES as u64, header.body_len as usize)?;
            let body = body.ok_or_else(|| read_short(file_seq))?;
            each(&Frame { at, content: Content::parse(header.kind, body).ok(), body });
            return Ok(());
        }
        self.frames += 1;
        let body = window.get(offset + FRAME_HEADER_BYTES as u64, header.body_len as usize)?;
        let body = body.ok_or_else(|| read_short(file_seq))?;
        let content = Content::parse(header.kind, body).ok();
        match &content {
            Some(Content::Commit { durable_seq, .. }) => {
                // What a frame says of frames behind itself cannot be true.
                let durable_seq = (*durable_seq).min(at.seq);
                self.durable_seq = self.durable_seq.max(durable_seq);
            }
            Some(Content::FileEnd { next }) => {
                self.generation_ended |= next.is_none();
                self.file(file_seq).ended = true;
            }
            Some(_) => {}
            None => self.note_frame(&at, FindingKind::Malformed, "the frame's body is not as the specification says"),
        }
        each(&Frame { at, content, body });
        Ok(())
    }

    /// Books the frame's sequence. False when the frame was there before.
    fn take_seq(&mut self, at: &FrameRef) -> bool {
        let next = match self.next_seq {
            Some(next) => next,
            None => self.begin_at(at.seq),
        };
        if at.seq >= next {
            self.next_seq = Some(at.seq.saturating_add(1));
            if at.seq > next {
                self.missing.jump(at.file_seq, at.offset, next, at.seq);
            }
            return true;
        }
        if self.missing.fill(at.seq) {
            let text = "the frame is not in its place";
            self.note_frame(at, FindingKind::OutOfOrder, text);
            return true;
        }
        let text = "the frame is there already";
        self.note_frame(at, FindingKind::Repeated, text);
        false
    }

    fn note_frame(&mut self, at: &FrameRef, kind: FindingKind, text: &str) {
        self.noted.push(Finding {
            kind,
            file_seq: at.file_seq,
            offset: at.offset,
            len: at.frame_len(),
            frames: Some(at.seq..=at.seq),
            lane: lane_of(at),
            text: text.to_owned(),
        });
    }

    fn file(&mut self, file_seq: u32) -> &mut FileState {
        self.files.entry(file_seq).or_default()
    }

    /// What is wrong, if nothing more comes than what was scanned.
    pub fn report(&self) -> Report {
        let mut found = self.noted.clone();
        let mut stretches = self.missing.lost().to_vec();
        stretches.extend(self.tail());
        for lost in &stretches {
            if let Some(finding) = self.describe(lost) {
                found.push(finding);
            }
        }
        for finding in self.unended(&stretches) {
            found.push(finding);
        }
        found.list.sort_by_key(|finding| (finding.file_seq, finding.offset));
        Report {
            findings: found.list,
            findings_dropped: found.dropped + self.missing.dropped(),
            frames: self.frames,
            last_seq: self.last_seq(),
            durable_seq: self.durable_seq,
            ended: self.generation_ended,
        }
    }

    /// What is left over at the end of the last file, or what is known to be missing behind it.
    fn tail(&self) -> Option<Lost> {
        let (&file_seq, state) = self.files.last_key_value()?;
        let known_lost = self.durable_seq > self.last_seq();
        if state.foreign || (state.offset == state.len && !known_lost) {
            return None;
        }
        let mut lost = Lost::new(file_seq, state.offset, state.len.max(state.offset));
        lost.after_seq = self.last_seq();
        if known_lost {
            lost.range = Some((self.last_seq().saturating_add(1), self.durable_seq));
        }
        Some(lost)
    }

    fn describe(&self, lost: &Lost) -> Option<Finding> {
        let is_last = self.files.last_key_value().is_none_or(|(last, _)| *last == lost.file_seq);
        let frames = self.missing.still_lost(lost, self.last_seq());
        if lost.len == 0 && frames.is_none() {
            return None;
        }
        let first = frames.as_ref().map_or(lost.after_seq.saturating_add(1), |frames| *frames.start());
        let has_frames = self.files.get(&lost.file_seq).is_some_and(|file| file.frames > 0);
        let durable = if lost.file_header { has_frames || !is_last } else { !is_last || first <= self.durable_seq };
        let (kind, text) = match (durable, lost.len, lost.file_header, lost.body) {
            (false, 0, ..) => (FindingKind::TornTail, "frames behind the last durable point were not written"),
            (false, ..) => {
                (FindingKind::TornTail, "bytes behind the last durable point are not frames; a crash leaves this")
            }
            (true, 0, ..) => (FindingKind::SequenceGap, "frames are missing"),
            (true, _, true, _) => (FindingKind::Damaged, "the file's header is damaged"),
            (true, _, _, true) => (FindingKind::Damaged, "the frame's body is damaged"),
            (true, ..) => (FindingKind::Damaged, "these bytes are not valid frames"),
        };
        Some(Finding {
            kind,
            file_seq: lost.file_seq,
            offset: lost.offset,
            len: lost.len,
            frames,
            lane: lost.lane,
            text: text.to_owned(),
        })
    }

    /// Files that are followed by another and do not say so, unless something worse was said about their end.
    fn unended(&self, stretches: &[Lost]) -> Vec<Finding> {
        let last = self.files.keys().next_back().copied();
        let unended = self.files.iter().filter(|(file_seq, state)| {
            let told = stretches.iter().any(|lost| {
                lost.file_seq == **file_seq
                    && lost.offset.saturating_add(lost.len) >= state.len
                    && self.describe(lost).is_some()
            });
            Some(**file_seq) != last && !state.ended && !state.foreign && !told
        });
        unended
            .map(|(file_seq, state)| Finding {
                kind: FindingKind::Unended,
                file_seq: *file_seq,
                offset: state.len,
                len: 0,
                frames: None,
                lane: None,
                text: "the file has no end mark: it was given up after a disk error, or its end is missing".to_owned(),
            })
            .collect()
    }
}

fn frame_ref(file_seq: u32, offset: u64, header: &FrameHeader, intact: bool) -> FrameRef {
    FrameRef {
        seq: header.seq,
        offset,
        file_seq,
        lane: header.lane,
        body_len: header.body_len,
        kind: header.kind,
        intact,
    }
}

fn lane_of(at: &FrameRef) -> Option<u32> {
    (at.lane != crate::format::NO_LANE).then_some(at.lane)
}

fn read_short(file_seq: u32) -> JournalError {
    JournalError::Read { file_seq, source: std::io::ErrorKind::UnexpectedEof.into() }
}

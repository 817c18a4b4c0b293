//! Opening an archive and playing stretches of it, damaged or not.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use callvault_seal::{DataKey, KeyId, SealedKey};

use crate::chunk::{
    CHUNK_HEADER_BYTES, CHUNK_TICKS_MAX, ChunkHeader, END_BYTES, End, Fields, IndexEntry, Kind, Sealing, StoredPacket,
};
use crate::facts::ArchiveFacts;
use crate::header::{self, CHUNKS_OFFSET, Located};
use crate::scan::{Body, PIECES_MAX, Piece, Scanner};
use crate::{ArchiveError, FACTS_BYTES_MAX, FACTS_VERSION, Finding, FindingKind, Header, KeysFound};

/// An archive whose data key is not known yet.
pub struct Reader<R> {
    input: R,
    bytes: u64,
    located: Located,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the header. One intact copy of it is enough.
    ///
    /// # Errors
    /// [`ArchiveError::NotAnArchive`], [`ArchiveError::Newer`], [`ArchiveError::Io`].
    pub fn open(mut input: R) -> Result<Self, ArchiveError> {
        let doing = || ArchiveError::io("read the header of an archive");
        let length = input.seek(SeekFrom::End(0)).map_err(doing())?;
        input.seek(SeekFrom::Start(0)).map_err(doing())?;
        let mut window = Vec::with_capacity(header::SEARCH_BYTES);
        // No further than a header in good order needs: what lies behind it may be unreadable.
        for bytes in [CHUNKS_OFFSET + CHUNK_HEADER_BYTES, header::SEARCH_BYTES] {
            let more = (bytes - window.len()) as u64;
            let read = input.by_ref().take(more).read_to_end(&mut window);
            read.map_err(doing())?;
            if header::locate(&window).is_ok_and(|located| located.findings.is_empty()) {
                break;
            }
        }
        let located = header::locate(&window)?;
        Ok(Self { input, bytes: length, located })
    }

    /// What the header says about the recording. Not proven until the archive is unlocked.
    pub fn header(&self) -> Header {
        self.located.fixed.header
    }

    /// The sealed data key, to be opened with the keyring under [`key_context`](crate::key_context).
    pub fn keys(&self) -> &KeysFound {
        &self.located.keys
    }

    /// Whose private keys open this archive; empty when its keys are elsewhere, erased or damaged.
    pub fn recipients(&self) -> Vec<KeyId> {
        let ids = |keys: &[SealedKey]| keys.iter().map(|key| key.recipient).collect();
        match self.keys() {
            KeysFound::InFile(keys) => ids(keys),
            KeysFound::Elsewhere | KeysFound::Erased => Vec::new(),
        }
    }

    /// Unlocks the archive with its data key and reads facts and seek table; a file damaged there is read through once.
    ///
    /// # Errors
    /// [`ArchiveError::WrongKey`] when the key opens none of the chunks, [`ArchiveError::NothingIntact`], [`ArchiveError::Io`].
    pub fn unlock(self, key: &DataKey) -> Result<Unlocked<R>, ArchiveError> {
        let mut archive = Unlocked {
            sealing: Sealing::new(key, self.located.fixed.hash),
            binding: self.located.fixed.binding(),
            header: self.located.fixed.header,
            chunks_from: self.located.chunks_from,
            input: self.input,
            bytes: self.bytes,
            slots: Vec::new(),
            surveyed: None,
            total_ticks: None,
            facts: None,
            body: Vec::new(),
        };
        if !archive.read_index()? {
            archive.survey()?;
            archive.prove_key()?;
        }
        archive.read_facts()?;
        Ok(archive)
    }
}

/// One chunk, or a run of chunks that are not there, in the order of their indices.
#[derive(Debug, Clone, Copy)]
struct Slot {
    index: u32,
    /// 1 for a chunk, more for a run of them, 0 where the file ends too early to say how many.
    chunks: u32,
    /// None when nothing is left to say what the chunk was.
    kind: Option<Kind>,
    /// None with `kind`.
    first_ticks: Option<u64>,
    offset: Option<u64>,
}

/// What reading the whole file through has shown.
#[derive(Debug, Default)]
struct Survey {
    /// Index and offset of each whole chunk, in order.
    found: Vec<(u32, u64)>,
    /// Whether anything in the file is neither a whole chunk nor the header.
    damaged: bool,
}

/// What became of an attempt to load a chunk.
enum Loaded {
    /// Its plaintext is in the buffer.
    Open(ChunkHeader),
    NotWhole,
    NotAuthentic,
}

/// An archive open for playing.
pub struct Unlocked<R> {
    input: R,
    bytes: u64,
    header: Header,
    sealing: Sealing,
    binding: [u8; 8],
    chunks_from: usize,
    slots: Vec<Slot>,
    surveyed: Option<Survey>,
    total_ticks: Option<u64>,
    /// None when lost; an error when not understood.
    facts: Option<Result<ArchiveFacts, String>>,
    body: Vec<u8>,
}

/// One packet of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Place of its track in [`ArchiveFacts::tracks`].
    pub track: u8,
    /// Place of its codec in the track's codecs.
    pub codec: u8,
    /// Where it begins, in ticks.
    pub position: u64,
    /// The payload as it was written.
    pub payload: Vec<u8>,
}

/// What playing an archive gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Played {
    /// A packet.
    Packet(Packet),
    /// Here audio is lost through damage to the file.
    Hole(Finding),
}

impl<R: Read + Seek> Unlocked<R> {
    /// What the header says about the recording, now proven to be what was written.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The facts of the recording.
    ///
    /// # Errors
    /// [`ArchiveError::FactsLost`] when both copies are damaged; [`ArchiveError::FactsUnreadable`]. Packets can be read all the same.
    pub fn facts(&self) -> Result<&ArchiveFacts, ArchiveError> {
        match &self.facts {
            Some(Ok(facts)) => Ok(facts),
            Some(Err(text)) => Err(ArchiveError::FactsUnreadable(text.clone())),
            None => Err(ArchiveError::FactsLost),
        }
    }

    /// The packets with positions in `ticks`, in order; only the chunks that hold them are read and decrypted. A damaged chunk gives a
    /// [`Played::Hole`] and playing goes on behind it. After an error the iterator goes on with the next chunk; a caller that
    /// does not want that stops.
    pub fn packets(&mut self, ticks: Range<u64>) -> Packets<'_, R> {
        Packets { archive: self, ticks, slot: 0, chunk: Vec::new(), taken: 0, chunk_index: 0 }
    }

    /// Goes from End to Index. False when either is not as it should be.
    fn read_index(&mut self) -> Result<bool, ArchiveError> {
        let Some(end_offset) = self.bytes.checked_sub(END_BYTES as u64) else {
            return Ok(false);
        };
        let end = match self.load(end_offset, None)? {
            Loaded::Open(header) if header.kind == Kind::End => End::parse(&self.body),
            Loaded::NotAuthentic => {
                // End and beginning both whole and neither authentic: the key, not the file. This spares reading the file through.
                let first = self.load(self.chunks_from as u64, None)?;
                let wrong = matches!(first, Loaded::NotAuthentic);
                return if wrong { Err(ArchiveError::WrongKey) } else { Ok(false) };
            }
            _ => None,
        };
        let Some(end) = end else { return Ok(false) };
        self.total_ticks = Some(end.total_ticks);
        self.read_table(&end, end_offset)
    }

    fn read_table(&mut self, end: &End, end_offset: u64) -> Result<bool, ArchiveError> {
        let Some(listed) = end.chunks.checked_sub(end.index_chunks.saturating_add(1)) else {
            return Ok(false);
        };
        let (mut table, mut offset) = (Vec::<IndexEntry>::new(), end.index_offset);
        for number in 0..end.index_chunks {
            let header = match self.load(offset, Some(listed + number))? {
                Loaded::Open(header) if header.kind == Kind::Index => header,
                _ => return Ok(false),
            };
            match IndexEntry::list(&self.body) {
                Some((first, entries)) if first as usize == table.len() => table.extend(entries),
                _ => return Ok(false),
            }
            offset += header.chunk_bytes() as u64;
        }
        if table.len() != listed as usize || offset != end_offset {
            return Ok(false);
        }
        let slot = |(index, entry): (usize, IndexEntry)| Slot {
            index: index as u32,
            chunks: 1,
            kind: Some(entry.kind),
            first_ticks: Some(entry.first_ticks),
            offset: Some(entry.offset),
        };
        self.slots = table.into_iter().enumerate().map(slot).collect();
        Ok(true)
    }

    /// Reads the whole file through for where its chunks are now. Without a seek table, this makes one.
    fn survey(&mut self) -> Result<(), ArchiveError> {
        if self.surveyed.is_some() {
            return Ok(());
        }
        let doing = ArchiveError::io("read an archive from its beginning");
        self.input.seek(SeekFrom::Start(0)).map_err(doing)?;
        let mut scanner = Scanner::new(&mut self.input, false);
        scanner.peek(self.chunks_from)?;
        scanner.consume(self.chunks_from);
        let (mut survey, mut slots, mut text) = (Survey::default(), Vec::new(), Vec::new());
        while let Some(piece) = scanner.next(&mut text)? {
            if slots.len() >= PIECES_MAX {
                survey.damaged = true;
                break;
            }
            match piece {
                Piece::Chunk { header, body, offset, .. } if header.binding == self.binding => {
                    let whole = body == Body::Whole;
                    if whole {
                        survey.found.push((header.index, offset));
                    }
                    survey.damaged |= !whole;
                    slots.push(Slot {
                        index: header.index,
                        chunks: if body == Body::Cut { 0 } else { 1 },
                        kind: Some(header.kind),
                        first_ticks: Some(header.first_ticks),
                        offset: whole.then_some(offset),
                    });
                }
                _ => survey.damaged = true,
            }
        }
        survey.found.sort_unstable();
        if self.slots.is_empty() {
            self.slots = with_gaps(slots);
        } else {
            for slot in &mut self.slots {
                slot.offset = offsets(&survey.found, slot.index).next();
            }
        }
        self.surveyed = Some(survey);
        Ok(())
    }

    /// After a survey: whether the key opens anything at all.
    fn prove_key(&mut self) -> Result<(), ArchiveError> {
        let mut whole = false;
        for slot in 0..self.slots.len() {
            let Slot { index, offset: Some(offset), .. } = self.slots[slot] else { continue };
            whole = true;
            if matches!(self.load(offset, Some(index))?, Loaded::Open(_)) {
                return Ok(());
            }
        }
        Err(if whole { ArchiveError::WrongKey } else { ArchiveError::NothingIntact })
    }

    fn read_facts(&mut self) -> Result<(), ArchiveError> {
        let mut json = self.gather_facts()?;
        if json.is_none() && self.surveyed.is_none() {
            self.survey()?;
            json = self.gather_facts()?;
        }
        self.facts = json.map(|json| decode_facts(&json));
        if self.total_ticks.is_none() {
            self.total_ticks = self.facts().ok().map(|facts| facts.total_ticks);
        }
        Ok(())
    }

    /// The facts' JSON, each part from wherever it is whole.
    fn gather_facts(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        let mut parts: Vec<Option<Vec<u8>>> = Vec::new();
        for slot in 0..self.slots.len() {
            if self.slots[slot].kind != Some(Kind::Facts) || !matches!(self.load_slot(slot)?, Loaded::Open(_)) {
                continue;
            }
            let Some((part, count, text)) = facts_part(&self.body) else { continue };
            parts.resize(usize::from(count), None);
            parts[usize::from(part)].get_or_insert_with(|| text.to_vec());
            let bytes: usize = parts.iter().flatten().map(Vec::len).sum();
            if bytes > FACTS_BYTES_MAX {
                return Ok(None);
            }
            if parts.iter().all(Option::is_some) {
                return Ok(Some(parts.into_iter().flatten().flatten().collect()));
            }
        }
        Ok(None)
    }

    /// Loads the chunk of a slot from wherever in the file it is whole. Goes through the file when it is not in its place.
    fn load_slot(&mut self, slot: usize) -> Result<Loaded, ArchiveError> {
        let Slot { index, offset, .. } = self.slots[slot];
        let mut outcome = Loaded::NotWhole;
        if let Some(offset) = offset {
            outcome = self.load(offset, Some(index))?;
        }
        if matches!(outcome, Loaded::Open(_)) {
            return Ok(outcome);
        }
        self.survey()?;
        let others: Vec<u64> = self.surveyed.iter().flat_map(|s| offsets(&s.found, index)).collect();
        for other in others.into_iter().filter(|&other| Some(other) != offset) {
            match self.load(other, Some(index))? {
                Loaded::NotWhole => {}
                loaded => outcome = loaded,
            }
            if matches!(outcome, Loaded::Open(_)) {
                return Ok(outcome);
            }
        }
        Ok(outcome)
    }

    /// Loads the chunk at `offset`, which should be `index` when that is known.
    fn load(&mut self, offset: u64, index: Option<u32>) -> Result<Loaded, ArchiveError> {
        let mut head = [0; CHUNK_HEADER_BYTES];
        self.body.clear();
        if !self.read_at(offset, &mut head)? {
            return Ok(Loaded::NotWhole);
        }
        let ours =
            |header: &ChunkHeader| header.binding == self.binding && index.is_none_or(|index| header.index == index);
        let Some(header) = ChunkHeader::parse(&head).filter(ours) else {
            return Ok(Loaded::NotWhole);
        };
        let mut body = std::mem::take(&mut self.body);
        body.resize(header.body_bytes, 0);
        let there = self.read_at(offset + CHUNK_HEADER_BYTES as u64, &mut body)?;
        let loaded = if !there || !header.body_is_whole(&body) {
            Loaded::NotWhole
        } else if self.sealing.open(&header, &mut body) {
            Loaded::Open(header)
        } else {
            Loaded::NotAuthentic
        };
        self.body = body;
        Ok(loaded)
    }

    /// Fills `to`; false when the file ends before it is full.
    fn read_at(&mut self, offset: u64, to: &mut [u8]) -> Result<bool, ArchiveError> {
        if offset.checked_add(to.len() as u64).is_none_or(|end| end > self.bytes) {
            return Ok(false);
        }
        let read = self.input.seek(SeekFrom::Start(offset)).and_then(|_| self.input.read_exact(to));
        match read {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(ArchiveError::Io { doing: format!("read an archive at offset {offset}"), source }),
        }
    }

    /// The stretch of audio that a slot held, or within which its audio lies when nothing says it exactly.
    fn ticks_of(&self, slot: usize) -> Range<u64> {
        let before = self.slots[..=slot].iter().rev().find_map(|slot| slot.first_ticks);
        let after = self.slots[slot + 1..].iter().find_map(|slot| slot.first_ticks);
        let start = before.unwrap_or(0);
        start..after.or(self.total_ticks).unwrap_or(u64::MAX).max(start)
    }

    fn hole(&self, slot: usize, altered: bool) -> Finding {
        let Slot { index, chunks, offset, .. } = self.slots[slot];
        let damaged = self.surveyed.as_ref().is_some_and(|survey| survey.damaged);
        let (kind, text) = match (altered, chunks, damaged) {
            (true, ..) => (FindingKind::Altered, "a chunk is not authentic"),
            (false, 0, _) => (FindingKind::CutTail, "the end of the file is not there"),
            (false, _, true) => (FindingKind::Damaged, "the file is damaged here"),
            (false, _, false) => (FindingKind::Missing, "a chunk is not there"),
        };
        Finding::new(kind, offset.unwrap_or(self.bytes), 0, text)
            .of_chunks(index, chunks)
            .losing(Some(self.ticks_of(slot)))
    }
}

/// The slots in the order of their indices, each once, and slots for those that are not there.
fn with_gaps(mut found: Vec<Slot>) -> Vec<Slot> {
    found.sort_by_key(|slot| (slot.index, slot.offset.is_none()));
    found.dedup_by_key(|slot| slot.index);
    let gap = |index, chunks| Slot { index, chunks, kind: None, first_ticks: None, offset: None };
    let (mut slots, mut next) = (Vec::with_capacity(found.len()), 0);
    for slot in found {
        if slot.index > next {
            slots.push(gap(next, slot.index - next));
        }
        next = slot.index + 1;
        slots.push(slot);
    }
    if slots.last().is_none_or(|slot| slot.kind != Some(Kind::End) && slot.chunks > 0) {
        slots.push(gap(next, 0));
    }
    slots
}

/// Where in the file chunk `index` was found.
fn offsets(found: &[(u32, u64)], index: u32) -> impl Iterator<Item = u64> + '_ {
    let from = found.partition_point(|&(other, _)| other < index);
    found[from..].iter().take_while(move |&&(other, _)| other == index).map(|&(_, offset)| offset)
}

/// Number of the part, count of parts, and the part.
pub(crate) fn facts_part(plaintext: &[u8]) -> Option<(u16, u16, &[u8])> {
    let mut fields = Fields(plaintext);
    let (part, count) = (fields.u16()?, fields.u16()?);
    (part < count).then_some((part, count, fields.0))
}

/// Reads the facts. The error says where, and never repeats what is there: it is personal.
pub(crate) fn decode_facts(json: &[u8]) -> Result<ArchiveFacts, String> {
    let facts: ArchiveFacts = serde_json::from_slice(json)
        .map_err(|e| format!("they are not as expected at line {}, column {}", e.line(), e.column()))?;
    if facts.version > FACTS_VERSION {
        return Err(format!("they are of version {}", facts.version));
    }
    Ok(facts)
}

/// Iterator over the packets of a stretch; made by [`Unlocked::packets`].
pub struct Packets<'a, R> {
    archive: &'a mut Unlocked<R>,
    ticks: Range<u64>,
    /// The next slot to look at.
    slot: usize,
    /// Plaintext of the chunk being played, and how much of it is done with.
    chunk: Vec<u8>,
    taken: usize,
    chunk_index: u32,
}

impl<R: Read + Seek> Packets<'_, R> {
    /// The next packet of the chunk being played that is in the stretch.
    fn take(&mut self) -> Option<Played> {
        while self.taken < self.chunk.len() {
            let mut fields = Fields(&self.chunk[self.taken..]);
            let Some(packet) = StoredPacket::take(&mut fields) else {
                self.taken = self.chunk.len();
                let text = "an audio chunk does not hold whole packets";
                let finding = Finding::new(FindingKind::Inconsistent, 0, 0, text);
                let ticks = self.archive.ticks_of(self.slot - 1);
                return Some(Played::Hole(finding.of_chunks(self.chunk_index, 1).losing(Some(ticks))));
            };
            self.taken = self.chunk.len() - fields.0.len();
            if self.ticks.contains(&packet.position) {
                let StoredPacket { track, codec, position, payload } = packet;
                return Some(Played::Packet(Packet { track, codec, position, payload: payload.to_vec() }));
            }
        }
        None
    }

    /// Whether a slot can hold packets of the stretch.
    fn wants(&self, slot: usize) -> bool {
        let Slot { kind, first_ticks, .. } = self.archive.slots[slot];
        match (kind, first_ticks) {
            (Some(Kind::Audio), Some(first)) => {
                first < self.ticks.end && first.saturating_add(CHUNK_TICKS_MAX) > self.ticks.start
            }
            (Some(_), _) => false,
            (None, _) => {
                let lost = self.archive.ticks_of(slot);
                lost.start < lost.end && lost.start < self.ticks.end && lost.end > self.ticks.start
            }
        }
    }
}

impl<R: Read + Seek> Iterator for Packets<'_, R> {
    type Item = Result<Played, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(played) = self.take() {
                return Some(Ok(played));
            }
            let slot = self.slot;
            if slot >= self.archive.slots.len() {
                return None;
            }
            self.slot += 1;
            if !self.wants(slot) {
                continue;
            }
            match self.archive.load_slot(slot) {
                Ok(Loaded::Open(header)) => {
                    std::mem::swap(&mut self.chunk, &mut self.archive.body);
                    (self.taken, self.chunk_index) = (0, header.index);
                }
                Ok(Loaded::NotWhole) => return Some(Ok(Played::Hole(self.archive.hole(slot, false)))),
                Ok(Loaded::NotAuthentic) => return Some(Ok(Played::Hole(self.archive.hole(slot, true)))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

//! Makes the bytes of a journal. Pure: the bytes leave through [`Writer::take`], the driver puts them on the disk.

use callvault_seal::{Cipher, SealedKey, TAG_BYTES};
use uuid::Uuid;

use crate::audio::AudioBatch;
use crate::error::JournalError;
use crate::facts::SessionEvent;
use crate::format::{
    BODY_BYTES_MAX, Checksums, Content, EarlierKey, FACTS_BYTES_MAX, FILE_HEADER_BYTES, FLAG_CONTINUES, FLAG_MORE,
    FRAME_HEADER_BYTES, FileHeader, FrameHeader, Kind, LaneEnd, NO_LANE, PLAIN_BYTES_MAX, SEALED_KEYS_MAX, key_context,
    padding,
};
use crate::place::FramePlace;

/// Longest buffer that is kept: what is written in one go on a usual day. What a disk that stood still has made longer is given back.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Buffers kept for reuse: one is being filled, one being written, one is on its way back.
const SPARE_BUFFERS_MAX: usize = 3;

/// When a file is full and when too much waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A file is closed when it has this many bytes. Smaller files are released sooner, larger ones cost fewer syncs.
    pub file_bytes_max: u64,
    /// A file is closed when it is this old, in milliseconds of journal time, so that a quiet night releases space too.
    pub file_age_ms_max: u64,
    /// Bytes that may wait in memory to be written; beyond it appending fails. At 2,000 tracks of G.711 the default is
    /// about two seconds of a disk that stands still.
    pub pending_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes_max: 256 << 20, file_age_ms_max: 15 * 60 * 1000, pending_bytes_max: 64 << 20 }
    }
}

/// One recording's stream of frames in this generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane {
    generation: Uuid,
    number: u32,
    recording: Uuid,
    segment: u16,
}

impl Lane {
    /// Its number, unique in the generation, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The recording it is a part of.
    pub fn recording(&self) -> Uuid {
        self.recording
    }

    /// Which part of the recording it is.
    pub fn segment(&self) -> u16 {
        self.segment
    }

    /// The generation it belongs to.
    pub fn generation(&self) -> Uuid {
        self.generation
    }

    /// The context to seal the lane's data key with.
    pub fn key_context(&self) -> [u8; 43] {
        key_context(self.generation, self.recording, self.number)
    }
}

/// Bytes for one write, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The file they belong to.
    pub file_seq: u32,
    /// Where in that file they begin: its present length.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Sequence of the first frame in them, or of the next one when there is none.
    pub first_seq: u64,
    /// Sequence of the last frame in them, or of the last before when there is none: durable once they are.
    pub last_seq: u64,
}

impl Batch {
    /// The frames, without the file header that the first batch of a file begins with.
    fn frames(&self) -> &[u8] {
        let from = if self.offset == 0 { FILE_HEADER_BYTES } else { 0 };
        self.bytes.get(from..).unwrap_or_default()
    }
}

/// Makes the frames of one generation, file after file.
#[derive(Debug)]
pub struct Writer {
    generation: Uuid,
    checksums: Checksums,
    limits: Limits,
    next_seq: u64,
    next_lane: u32,
    file_seq: u32,
    file_journal_ns: u64,
    /// Bytes of the file that were taken.
    taken_bytes: u64,
    pending: Vec<u8>,
    pending_first_seq: u64,
    /// Where the last frame begins in its file.
    last_offset: u64,
    spare: Vec<Vec<u8>>,
}

impl Writer {
    /// Begins a generation with its file 0. `generation` must be fresh (a UUIDv7); the first bytes to take are the header.
    pub fn new(generation: Uuid, wall_ns: i64, journal_ns: u64, limits: Limits) -> Self {
        let mut writer = Self {
            generation,
            checksums: Checksums::new(generation),
            limits,
            next_seq: 1,
            next_lane: 1,
            file_seq: 0,
            file_journal_ns: journal_ns,
            taken_bytes: 0,
            pending: Vec::new(),
            pending_first_seq: 1,
            last_offset: 0,
            spare: Vec::new(),
        };
        writer.begin_file(wall_ns, journal_ns);
        writer
    }

    /// The generation.
    pub fn generation(&self) -> Uuid {
        self.generation
    }

    /// Number of the file that is being filled.
    pub fn file_seq(&self) -> u32 {
        self.file_seq
    }

    /// Sequence of the last frame made; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Where the last frame made will be found, as long as its file is not given up.
    pub fn last_place(&self) -> FramePlace {
        FramePlace { file_seq: self.file_seq, offset: self.last_offset, seq: self.last_seq() }
    }

    /// Where the frames that wait to be taken will be found, as long as their file is not given up: after [`Writer::abandon_file`], where
    /// those are that were made for the file before.
    pub fn pending_places(&self) -> Vec<FramePlace> {
        let checksums = Checksums::new(self.generation);
        let mut at = if self.taken_bytes == 0 { FILE_HEADER_BYTES } else { 0 };
        let mut places = Vec::new();
        while let Some(header) = self.pending.get(at..).and_then(<[u8]>::first_chunk::<FRAME_HEADER_BYTES>) {
            // It was made here, so there is no other.
            let Some((frame, _)) = checksums.header(header, BODY_BYTES_MAX) else { break };
            let offset = self.taken_bytes.saturating_add(at as u64);
            places.push(FramePlace { file_seq: self.file_seq, offset, seq: frame.seq });
            at += FRAME_HEADER_BYTES + frame.padded_len();
        }
        places
    }

    /// Bytes that wait to be taken.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Opens a lane for a recording. Use a fresh data key for every lane: nonces are unique in one lane of one generation only.
    ///
    /// # Errors
    /// [`JournalError::LanesExhausted`], [`JournalError::PendingFull`].
    pub fn open_lane(&mut self, recording: Uuid, segment: u16) -> Result<Lane, JournalError> {
        let number = self.next_lane;
        let next_lane = number.checked_add(1).ok_or(JournalError::LanesExhausted)?;
        self.append_clear(number, &Content::LaneOpen { recording, segment })?;
        self.next_lane = next_lane;
        Ok(Lane { generation: self.generation, number, recording, segment })
    }

    /// Writes the lane's sealed data key: the recording is kept from now on. May be repeated.
    ///
    /// # Errors
    /// [`JournalError::SealedKeysCount`], [`JournalError::PendingFull`], [`JournalError::ForeignLane`].
    pub fn write_key(&mut self, lane: Lane, keys: &[SealedKey]) -> Result<(), JournalError> {
        self.check_lane(lane)?;
        check_keys(keys)?;
        let content = Content::Key { recording: lane.recording, segment: lane.segment, keys: keys.to_vec() };
        self.append_clear(lane.number, &content)
    }

    /// Writes, into the lane that goes on with a recording, the sealed key of a part of it that an earlier generation wrote.
    ///
    /// # Errors
    /// [`JournalError::SealedKeysCount`], [`JournalError::PendingFull`], [`JournalError::ForeignLane`].
    pub fn write_earlier_key(&mut self, lane: Lane, of: &EarlierKey) -> Result<(), JournalError> {
        self.check_lane(lane)?;
        check_keys(&of.keys)?;
        let content = Content::EarlierKey { recording: lane.recording, segment: lane.segment, of: of.clone() };
        self.append_clear(lane.number, &content)
    }

    /// Writes one event, sealed under the lane's key; a long one becomes several frames in a row.
    ///
    /// # Errors
    /// [`JournalError::FactsTooLarge`], [`JournalError::FactsJson`], [`JournalError::PendingFull`] (then no part of it is
    /// written), [`JournalError::ForeignLane`].
    pub fn write_facts(&mut self, lane: Lane, cipher: &Cipher, event: &SessionEvent) -> Result<(), JournalError> {
        self.check_lane(lane)?;
        let json = serde_json::to_vec(event).map_err(JournalError::FactsJson)?;
        if json.len() > FACTS_BYTES_MAX {
            return Err(JournalError::FactsTooLarge { bytes: json.len(), max: FACTS_BYTES_MAX });
        }
        let parts = json.len().div_ceil(PLAIN_BYTES_MAX);
        self.check_room(json.len() + parts * (FRAME_HEADER_BYTES + 2 * TAG_BYTES))?;
        for (part, plain) in json.chunks(PLAIN_BYTES_MAX).enumerate() {
            let more = if part + 1 < parts { FLAG_MORE } else { 0 };
            let continues = if part > 0 { FLAG_CONTINUES } else { 0 };
            self.append_sealed(Kind::Facts, more | continues, lane.number, cipher, plain);
        }
        Ok(())
    }

    /// Writes the packets of `batch`, sealed under the lane's key, and empties it. Nothing is written when it is empty.
    ///
    /// # Errors
    /// [`JournalError::PendingFull`], [`JournalError::ForeignLane`]; the packets are then still in the batch.
    pub fn write_audio(&mut self, lane: Lane, cipher: &Cipher, batch: &mut AudioBatch) -> Result<(), JournalError> {
        self.check_lane(lane)?;
        if batch.is_empty() {
            return Ok(());
        }
        self.check_room(batch.plain().len() + FRAME_HEADER_BYTES + 2 * TAG_BYTES)?;
        self.append_sealed(Kind::Audio, 0, lane.number, cipher, batch.plain());
        batch.clear();
        Ok(())
    }

    /// Ends a lane. `keys` are the sealed keys of a lane that is kept: they are written once more before the end, so that no
    /// single damaged block holds the only copy; empty for a lane whose key was never written.
    ///
    /// # Errors
    /// [`JournalError::SealedKeysCount`], [`JournalError::PendingFull`], [`JournalError::ForeignLane`].
    pub fn end_lane(&mut self, lane: Lane, end: LaneEnd, keys: &[SealedKey]) -> Result<(), JournalError> {
        self.check_lane(lane)?;
        if !keys.is_empty() {
            self.write_key(lane, keys)?;
        }
        let content = Content::LaneEnd { recording: lane.recording, segment: lane.segment, end, rule: String::new() };
        self.append_clear(lane.number, &content)
    }

    /// Ends a lane that is not kept, as [`LaneEnd::Discarded`]. `rule` is the name of the rule that says so: it is written in
    /// the clear, since nobody can read anything else of the lane, and so holds no personal data; at most [`crate::RULE_BYTES_MAX`]
    /// bytes of it are kept.
    ///
    /// # Errors
    /// [`JournalError::PendingFull`], [`JournalError::ForeignLane`].
    pub fn discard_lane(&mut self, lane: Lane, rule: &str) -> Result<(), JournalError> {
        self.check_lane(lane)?;
        let (recording, segment, end) = (lane.recording, lane.segment, LaneEnd::Discarded);
        self.append_clear(lane.number, &Content::LaneEnd { recording, segment, end, rule: rule.to_owned() })
    }

    /// Notes that all frames up to `durable_seq` are on the device ([`Batch::last_seq`] of the last batch that was synced),
    /// and what time it is.
    pub fn commit(&mut self, durable_seq: u64, wall_ns: i64, journal_ns: u64) {
        let content = Content::Commit { durable_seq, journal_ns, wall_ns };
        self.append_unchecked(NO_LANE, &content);
    }

    /// Whether the file should be closed: it is full, or old.
    pub fn should_rotate(&self, journal_ns: u64) -> bool {
        let bytes = self.taken_bytes.saturating_add(self.pending.len() as u64);
        let age_ms = journal_ns.saturating_sub(self.file_journal_ns) / 1_000_000;
        bytes >= self.limits.file_bytes_max || age_ms >= self.limits.file_age_ms_max
    }

    /// Ends the file and begins the next. The batch is the last of the old file: write it and sync it before the next file is
    /// created (see "Procedures" in the crate's documentation).
    ///
    /// # Errors
    /// [`JournalError::LanesExhausted`] when the generation has used all file numbers; the file then simply goes on.
    pub fn rotate(&mut self, wall_ns: i64, journal_ns: u64) -> Result<Batch, JournalError> {
        let next = self.next_file_seq()?;
        self.append_unchecked(NO_LANE, &Content::FileEnd { next: Some(next) });
        let last = self.take();
        self.file_seq = next;
        self.begin_file(wall_ns, journal_ns);
        Ok(last)
    }

    /// Gives up the present file, which failed to be written or synced, and begins the next with what is not known to be
    /// durable: the frames of `unwritten` (batches taken, in order) and those still pending. Frames that are in the old file
    /// after all are then there twice, which readers tell by their sequence.
    ///
    /// # Errors
    /// [`JournalError::LanesExhausted`] when the generation has used all file numbers.
    pub fn abandon_file(
        &mut self,
        unwritten: impl IntoIterator<Item = Batch>,
        wall_ns: i64,
        journal_ns: u64,
    ) -> Result<(), JournalError> {
        let next = self.next_file_seq()?;
        let pending = self.take();
        self.file_seq = next;
        self.begin_file(wall_ns, journal_ns);
        let mut first_seq = None;
        for batch in unwritten.into_iter().chain([pending]) {
            first_seq = first_seq.or((!batch.frames().is_empty()).then_some(batch.first_seq));
            self.pending.extend_from_slice(batch.frames());
        }
        // The header was made for a file that begins with the next new frame.
        if let Some(first_seq) = first_seq {
            self.pending_first_seq = first_seq;
            let header = self.file_header(wall_ns, journal_ns).to_bytes();
            self.pending[..FILE_HEADER_BYTES].copy_from_slice(&header);
        }
        Ok(())
    }

    /// Ends the generation: the batch is its last. Append nothing afterwards.
    pub fn finish(&mut self) -> Batch {
        self.append_unchecked(NO_LANE, &Content::FileEnd { next: None });
        self.take()
    }

    /// What is to be written now; empty when nothing is. Give the buffer back with [`Writer::recycle`].
    pub fn take(&mut self) -> Batch {
        let bytes = std::mem::replace(&mut self.pending, self.spare.pop().unwrap_or_default());
        let batch = Batch {
            file_seq: self.file_seq,
            offset: self.taken_bytes,
            first_seq: self.pending_first_seq,
            last_seq: self.last_seq(),
            bytes,
        };
        self.taken_bytes = self.taken_bytes.saturating_add(batch.bytes.len() as u64);
        self.pending_first_seq = self.next_seq;
        batch
    }

    /// Takes back a buffer whose bytes are written, so that steady running allocates nothing.
    pub fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && bytes.capacity() <= SPARE_BYTES_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    fn begin_file(&mut self, wall_ns: i64, journal_ns: u64) {
        self.taken_bytes = 0;
        self.file_journal_ns = journal_ns;
        self.pending_first_seq = self.next_seq;
        let header = self.file_header(wall_ns, journal_ns).to_bytes();
        self.pending.extend_from_slice(&header);
    }

    fn file_header(&self, wall_ns: i64, journal_ns: u64) -> FileHeader {
        FileHeader {
            generation: self.generation,
            file_seq: self.file_seq,
            body_bytes_max: BODY_BYTES_MAX as u32,
            first_seq: self.pending_first_seq,
            wall_ns,
            journal_ns,
        }
    }

    fn next_file_seq(&self) -> Result<u32, JournalError> {
        // The highest number means "no next file" in a FileEnd frame.
        self.file_seq.checked_add(1).filter(|next| *next < u32::MAX).ok_or(JournalError::LanesExhausted)
    }

    fn check_lane(&self, lane: Lane) -> Result<(), JournalError> {
        if lane.generation == self.generation { Ok(()) } else { Err(JournalError::ForeignLane) }
    }

    fn check_room(&self, bytes: usize) -> Result<(), JournalError> {
        if self.pending.len().saturating_add(bytes) > self.limits.pending_bytes_max {
            return Err(JournalError::PendingFull { pending_bytes: self.pending.len() });
        }
        Ok(())
    }

    fn append_clear(&mut self, lane: u32, content: &Content) -> Result<(), JournalError> {
        self.check_room(content.body_len() + FRAME_HEADER_BYTES + TAG_BYTES)?;
        self.append_unchecked(lane, content);
        Ok(())
    }

    /// Without a look at the limit: what ends and commits a file is small and is what makes room.
    fn append_unchecked(&mut self, lane: u32, content: &Content) {
        let header = self.frame_header(content.kind(), 0, lane, content.body_len());
        let start = self.begin_frame(&header);
        content.append_to(&mut self.pending);
        self.end_frame(start, &header);
    }

    fn append_sealed(&mut self, kind: Kind, flags: u8, lane: u32, cipher: &Cipher, plain: &[u8]) {
        let header = self.frame_header(kind, flags, lane, plain.len() + TAG_BYTES);
        let start = self.begin_frame(&header);
        self.pending.extend_from_slice(plain);
        cipher.seal(&header.nonce(), &header.aad(self.generation), &mut self.pending, start + FRAME_HEADER_BYTES);
        self.end_frame(start, &header);
    }

    fn frame_header(&self, kind: Kind, flags: u8, lane: u32, body_len: usize) -> FrameHeader {
        FrameHeader {
            kind,
            flags,
            reserved: 0,
            // Every caller is within BODY_BYTES_MAX, which is far below 4 GiB.
            body_len: body_len as u32,
            lane,
            seq: self.next_seq,
        }
    }

    fn begin_frame(&mut self, header: &FrameHeader) -> usize {
        let start = self.pending.len();
        self.last_offset = self.taken_bytes.saturating_add(start as u64);
        self.pending.reserve(header.frame_len());
        self.pending.extend_from_slice(&header.to_bytes());
        self.pending.extend_from_slice(&[0; FRAME_HEADER_BYTES - 24]);
        start
    }

    fn end_frame(&mut self, start: usize, header: &FrameHeader) {
        let padded = self.pending.len() + padding(header.body_len as usize);
        self.pending.resize(padded, 0);
        self.checksums.fill(&mut self.pending, start);
        // 2^64 frames are beyond any machine's life.
        self.next_seq += 1;
    }
}

fn check_keys(keys: &[SealedKey]) -> Result<(), JournalError> {
    if keys.is_empty() || keys.len() > SEALED_KEYS_MAX {
        return Err(JournalError::SealedKeysCount { count: keys.len(), max: SEALED_KEYS_MAX });
    }
    Ok(())
}

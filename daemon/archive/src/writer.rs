//! Writing an archive in one pass, with one chunk in memory.

use std::io::Write;

use callvault_seal::DataKey;
use sha2::{Digest, Sha256};

use crate::chunk::{
    CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES, CHUNK_TICKS_MAX, CHUNKS_MAX, End, FACTS_PART_BYTES_MAX, INDEX_ENTRIES_MAX,
    IndexEntry, Kind, PACKET_HEADER_BYTES, PAYLOAD_BYTES_MAX, PLAINTEXT_BYTES_MAX, Sealing, StoredPacket,
};
use crate::{ArchiveError, ArchiveFacts, FACTS_BYTES_MAX, Header, Keys, header};

/// Chunks kept free for what follows the audio: the facts again (at most 257), the seek table of [`CHUNKS_MAX`] chunks (at most 273), the End.
const CHUNKS_AFTER_AUDIO_MAX: u32 = 1_024;

/// Writes one archive. Memory: one chunk, the facts, and 24 bytes a chunk for the seek table.
///
/// An archive that is dropped before [`Writer::finish`] has no End and is known to be cut. After a failed write every further
/// call fails: begin again with a new file and a new key.
pub struct Writer<W> {
    out: W,
    sealing: Sealing,
    /// Room for a chunk header, then the plaintext of the chunk being filled.
    buf: Vec<u8>,
    /// First position in the Audio chunk being filled; none when it is empty.
    chunk_first: Option<u64>,
    last_position: u64,
    table: Vec<IndexEntry>,
    offset: u64,
    packets: u64,
    total_ticks: u64,
    /// Codecs of each track: what a packet may name.
    codecs: Vec<usize>,
    facts: Vec<u8>,
    sha256: Sha256,
    broken: bool,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Length of the file.
    pub bytes: u64,
    /// Chunks in it, End included.
    pub chunks: u32,
    /// Packets in it.
    pub packets: u64,
    /// Length of the recording: that of the facts, or the last packet's position when that is later.
    pub total_ticks: u64,
    /// SHA-256 of the whole file, as it is until its keys are erased.
    pub sha256: [u8; 32],
}

impl<W: Write> Writer<W> {
    /// Begins an archive: writes the header and the facts. `key` must be fresh, made for this one attempt at this one file, and
    /// `keys` are that same key sealed under [`key_context`](crate::key_context).
    ///
    /// # Errors
    /// [`ArchiveError::Refused`] when there are no keys or too many, when the facts are of another recording than the header or larger
    /// than [`FACTS_BYTES_MAX`], or list more than 256 tracks or codecs; [`ArchiveError::Io`].
    pub fn create(
        out: W,
        header: &Header,
        keys: Keys<'_>,
        key: &DataKey,
        facts: &ArchiveFacts,
    ) -> Result<Self, ArchiveError> {
        let json = encode_facts(header, facts)?;
        let (bytes, hash) = header::compose(header, keys)?;
        let mut buf = Vec::with_capacity(CHUNK_BYTES_MAX);
        buf.resize(CHUNK_HEADER_BYTES, 0);
        let mut writer = Self {
            out,
            sealing: Sealing::new(key, hash),
            buf,
            chunk_first: None,
            last_position: 0,
            table: Vec::new(),
            offset: 0,
            packets: 0,
            total_ticks: facts.total_ticks,
            codecs: facts.tracks.iter().map(|track| track.codecs.len()).collect(),
            facts: json,
            sha256: Sha256::new(),
            broken: false,
        };
        writer.put(&bytes)?;
        writer.put_facts(0)?;
        Ok(writer)
    }

    /// Adds a packet: `track` and `codec` are places in the facts' lists, `position` is in ticks and not less than that of the packet before.
    ///
    /// # Errors
    /// [`ArchiveError::Refused`] when track or codec is not in the facts, the position goes back, the payload is longer
    /// than [`PAYLOAD_BYTES_MAX`], or the archive is full ([`CHUNKS_MAX`]); the packet is then not in the archive and writing can go on.
    /// [`ArchiveError::Io`], after which it cannot.
    pub fn packet(&mut self, track: u8, codec: u8, position: u64, payload: &[u8]) -> Result<(), ArchiveError> {
        if self.broken {
            return Err(ArchiveError::Broken);
        }
        let packet = StoredPacket { track, codec, position, payload };
        self.admit(&packet)?;
        let bytes = PACKET_HEADER_BYTES + payload.len();
        if self.chunk_first.is_some_and(|first| position - first >= CHUNK_TICKS_MAX)
            || self.buf.len() - CHUNK_HEADER_BYTES + bytes > PLAINTEXT_BYTES_MAX
        {
            self.flush_audio()?;
        }
        self.chunk_first.get_or_insert(position);
        packet.put(&mut self.buf);
        self.last_position = position;
        self.packets += 1;
        Ok(())
    }

    /// Completes the archive and gives the writer back, flushed. It is for the caller to sync it, and to read it back with
    /// [`verify`](crate::verify()) before relying on it.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn finish(mut self) -> Result<(W, Summary), ArchiveError> {
        if self.broken {
            return Err(ArchiveError::Broken);
        }
        self.flush_audio()?;
        let total_ticks = self.total_ticks.max(self.last_position);
        self.put_facts(total_ticks)?;
        let index_offset = self.offset;
        let index_chunks = self.put_index(total_ticks)?;
        let chunks = self.index() + 1;
        let end = End { chunks, packets: self.packets, total_ticks, index_offset, index_chunks };
        end.put(&mut self.buf);
        self.emit(Kind::End, total_ticks)?;
        self.out.flush().map_err(ArchiveError::io("write an archive"))?;
        let summary = Summary {
            bytes: self.offset,
            chunks,
            packets: self.packets,
            total_ticks,
            sha256: self.sha256.finalize().into(),
        };
        Ok((self.out, summary))
    }

    fn admit(&self, packet: &StoredPacket<'_>) -> Result<(), ArchiveError> {
        let refuse = |text: String| Err(ArchiveError::Refused(text));
        let (track, codec) = (packet.track, packet.codec);
        match self.codecs.get(usize::from(track)) {
            Some(&codecs) if usize::from(codec) < codecs => {}
            _ => return refuse(format!("a packet names codec {codec} of track {track}, which the facts do not have")),
        }
        if packet.position < self.last_position {
            return refuse(format!(
                "a packet of track {track} is at {} ticks, after one at {}; give them in order",
                packet.position, self.last_position
            ));
        }
        let bytes = packet.payload.len();
        if bytes > PAYLOAD_BYTES_MAX {
            return refuse(format!("a packet of track {track} has {bytes} bytes, more than {PAYLOAD_BYTES_MAX}"));
        }
        if self.index() + CHUNKS_AFTER_AUDIO_MAX >= CHUNKS_MAX {
            return refuse(format!("it has {CHUNKS_MAX} chunks and is full; continue in another recording"));
        }
        Ok(())
    }

    /// Index of the next chunk.
    fn index(&self) -> u32 {
        self.table.len() as u32
    }

    fn flush_audio(&mut self) -> Result<(), ArchiveError> {
        match self.chunk_first.take() {
            Some(first) => self.emit(Kind::Audio, first),
            None => Ok(()),
        }
    }

    fn put_facts(&mut self, first_ticks: u64) -> Result<(), ArchiveError> {
        let facts = std::mem::take(&mut self.facts);
        let parts = facts.chunks(FACTS_PART_BYTES_MAX);
        let count = parts.len() as u16;
        for (number, part) in parts.enumerate() {
            self.buf.extend((number as u16).to_le_bytes());
            self.buf.extend(count.to_le_bytes());
            self.buf.extend(part);
            self.emit(Kind::Facts, first_ticks)?;
        }
        self.facts = facts;
        Ok(())
    }

    /// Writes the seek table of all chunks so far; says in how many chunks.
    fn put_index(&mut self, first_ticks: u64) -> Result<u32, ArchiveError> {
        let listed = self.table.len();
        let starts = (0..listed).step_by(INDEX_ENTRIES_MAX);
        let count = starts.len() as u32;
        for start in starts {
            let end = listed.min(start + INDEX_ENTRIES_MAX);
            self.buf.extend((start as u32).to_le_bytes());
            for entry in &self.table[start..end] {
                entry.put(&mut self.buf);
            }
            self.emit(Kind::Index, first_ticks)?;
        }
        Ok(count)
    }

    /// Seals and writes the chunk whose plaintext is in the buffer, and empties the buffer.
    fn emit(&mut self, kind: Kind, first_ticks: u64) -> Result<(), ArchiveError> {
        let mut buf = std::mem::take(&mut self.buf);
        self.sealing.seal(self.index(), kind, first_ticks, &mut buf);
        let offset = self.offset;
        self.put(&buf)?;
        buf.truncate(CHUNK_HEADER_BYTES);
        self.buf = buf;
        self.table.push(IndexEntry { offset, first_ticks, kind });
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        // Whole only when this comes back: a failed write leaves it so.
        self.broken = true;
        let doing = || format!("write an archive at offset {}", self.offset);
        self.out.write_all(bytes).map_err(|source| ArchiveError::Io { doing: doing(), source })?;
        self.sha256.update(bytes);
        self.offset += bytes.len() as u64;
        self.broken = false;
        Ok(())
    }
}

/// The facts as JSON, if they can be those of this archive.
fn encode_facts(header: &Header, facts: &ArchiveFacts) -> Result<Vec<u8>, ArchiveError> {
    let refuse = |text: String| Err(ArchiveError::Refused(text));
    if facts.recording_id != header.recording {
        return refuse(format!(
            "its facts are of recording {} and its header of {}",
            facts.recording_id, header.recording
        ));
    }
    let names_max = usize::from(u8::MAX) + 1;
    let codecs_most = facts.tracks.iter().map(|track| track.codecs.len()).max();
    if facts.tracks.len() > names_max || codecs_most > Some(names_max) {
        return refuse(format!("more than {names_max} tracks, or codecs of a track"));
    }
    let json =
        serde_json::to_vec(facts).map_err(|error| ArchiveError::Refused(format!("its facts are not JSON: {error}")))?;
    if json.len() > FACTS_BYTES_MAX {
        return refuse(format!(
            "its facts have {} bytes, more than {FACTS_BYTES_MAX}; leave out raw bodies",
            json.len()
        ));
    }
    Ok(json)
}

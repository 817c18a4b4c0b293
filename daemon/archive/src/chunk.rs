//! Chunks: their headers, their sealing, and what is in them once they are open.

use callvault_seal::{Cipher, DataKey, TAG_BYTES};

/// Plaintext of a chunk at most, in bytes: what one damaged block costs at high bit rates, and what a reader must hold.
pub const PLAINTEXT_BYTES_MAX: usize = 64 * 1_024;
/// All packets of an Audio chunk begin less than this many ticks (one second) after its first: what one damaged block costs at low
/// bit rates, and what a seek reads too much.
pub const CHUNK_TICKS_MAX: u64 = crate::TICKS_PER_SECOND;
/// Chunks in an archive at most: twelve days of audio. The seek table is held in memory (17 bytes a chunk), so it needs an end.
pub const CHUNKS_MAX: u32 = 1 << 20;
/// Payload of a packet at most, in bytes: what is left of a chunk with one packet; more than a UDP datagram holds.
pub const PAYLOAD_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX - PACKET_HEADER_BYTES;

pub(crate) const CHUNK_HEADER_BYTES: usize = 40;
pub(crate) const CHUNK_BYTES_MAX: usize = CHUNK_HEADER_BYTES + PLAINTEXT_BYTES_MAX + TAG_BYTES;
pub(crate) const CHUNK_MAGIC: [u8; 4] = *b"\xa7CVC";
pub(crate) const PACKET_HEADER_BYTES: usize = 12;
pub(crate) const FACTS_PART_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX - 4;
pub(crate) const INDEX_ENTRY_BYTES: usize = 17;
pub(crate) const INDEX_ENTRIES_MAX: usize = (PLAINTEXT_BYTES_MAX - 4) / INDEX_ENTRY_BYTES;
const END_PLAINTEXT_BYTES: usize = 32;
pub(crate) const END_BYTES: usize = CHUNK_HEADER_BYTES + END_PLAINTEXT_BYTES + TAG_BYTES;
const FLAG_LAST: u8 = 1;
/// Bytes of the chunk header that are authenticated with the body.
const AUTHENTICATED_BYTES: usize = 32;

/// `N` bytes of `bytes` from `at` on, which the caller knows to be there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// What is in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Facts,
    Audio,
    Index,
    End,
    /// A kind of a later writer.
    Other(u8),
}

impl Kind {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Facts => 1,
            Self::Audio => 2,
            Self::Index => 3,
            Self::End => 4,
            Self::Other(number) => number,
        }
    }

    pub(crate) fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Facts,
            2 => Self::Audio,
            3 => Self::Index,
            4 => Self::End,
            other => Self::Other(other),
        }
    }
}

/// A chunk header whose checksum is right and whose fields are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkHeader {
    pub(crate) index: u32,
    pub(crate) kind: Kind,
    pub(crate) body_bytes: usize,
    pub(crate) first_ticks: u64,
    /// Beginning of the hash of the header under which the chunk was written.
    pub(crate) binding: [u8; 8],
    body_crc: u32,
    authenticated: [u8; AUTHENTICATED_BYTES],
}

impl ChunkHeader {
    /// The header at the beginning of `bytes`, if there is one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..CHUNK_HEADER_BYTES)?;
        let crc = crc32c::crc32c(&bytes[..36]).to_le_bytes();
        if !bytes.starts_with(&CHUNK_MAGIC) || bytes[36..] != crc {
            return None;
        }
        let header = Self {
            index: u32::from_le_bytes(array(bytes, 4)),
            kind: Kind::from_number(bytes[8]),
            body_bytes: usize::try_from(u32::from_le_bytes(array(bytes, 12))).ok()?,
            first_ticks: u64::from_le_bytes(array(bytes, 16)),
            binding: array(bytes, 24),
            body_crc: u32::from_le_bytes(array(bytes, 32)),
            authenticated: array(bytes, 0),
        };
        let last = bytes[9] & FLAG_LAST != 0;
        let possible = (TAG_BYTES..=PLAINTEXT_BYTES_MAX + TAG_BYTES).contains(&header.body_bytes)
            && last == (header.kind == Kind::End)
            && header.index < CHUNKS_MAX;
        possible.then_some(header)
    }

    /// Length of the chunk with its header, in bytes.
    pub(crate) fn chunk_bytes(&self) -> usize {
        CHUNK_HEADER_BYTES + self.body_bytes
    }

    pub(crate) fn body_is_whole(&self, body: &[u8]) -> bool {
        crc32c::crc32c(body) == self.body_crc
    }
}

/// Seals and opens the chunks of one archive.
pub(crate) struct Sealing {
    cipher: Cipher,
    header_hash: [u8; 32],
}

impl Sealing {
    pub(crate) fn new(key: &DataKey, header_hash: [u8; 32]) -> Self {
        Self { cipher: key.cipher(), header_hash }
    }

    /// Turns `buf`, which is room for a header and then the plaintext, into the chunk.
    pub(crate) fn seal(&self, index: u32, kind: Kind, first_ticks: u64, buf: &mut Vec<u8>) {
        let body_bytes = (buf.len() - CHUNK_HEADER_BYTES + TAG_BYTES) as u32;
        buf[..4].copy_from_slice(&CHUNK_MAGIC);
        buf[4..8].copy_from_slice(&index.to_le_bytes());
        buf[8] = kind.number();
        buf[9] = if kind == Kind::End { FLAG_LAST } else { 0 };
        buf[10..12].fill(0);
        buf[12..16].copy_from_slice(&body_bytes.to_le_bytes());
        buf[16..24].copy_from_slice(&first_ticks.to_le_bytes());
        buf[24..32].copy_from_slice(&self.header_hash[..8]);
        let (nonce, aad) = (self.nonce(index), self.aad(&buf[..AUTHENTICATED_BYTES]));
        self.cipher.seal(&nonce, &aad, buf, CHUNK_HEADER_BYTES);
        let body_crc = crc32c::crc32c(&buf[CHUNK_HEADER_BYTES..]);
        buf[32..36].copy_from_slice(&body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&buf[..36]);
        buf[36..40].copy_from_slice(&crc.to_le_bytes());
    }

    /// Turns the body of a chunk into its plaintext; false when it is not authentic.
    pub(crate) fn open(&self, header: &ChunkHeader, body: &mut Vec<u8>) -> bool {
        let (nonce, aad) = (self.nonce(header.index), self.aad(&header.authenticated));
        self.cipher.open(&nonce, &aad, body).is_ok()
    }

    fn nonce(&self, index: u32) -> [u8; 12] {
        let mut nonce = [0; 12];
        // The hash keeps nonces apart should a caller ever seal two archives with one key; the index keeps them apart within one.
        nonce[..8].copy_from_slice(&self.header_hash[..8]);
        nonce[8..].copy_from_slice(&index.to_le_bytes());
        nonce
    }

    fn aad(&self, chunk_header: &[u8]) -> [u8; 32 + AUTHENTICATED_BYTES] {
        let mut aad = [0; 32 + AUTHENTICATED_BYTES];
        aad[..32].copy_from_slice(&self.header_hash);
        aad[32..].copy_from_slice(chunk_header);
        aad
    }
}

/// Takes fields off the front of a plaintext; none when there are not enough bytes.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N).map(|bytes| array(bytes, 0))
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// One packet in the plaintext of an Audio chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredPacket<'a> {
    pub(crate) track: u8,
    pub(crate) codec: u8,
    pub(crate) position: u64,
    pub(crate) payload: &'a [u8],
}

impl<'a> StoredPacket<'a> {
    /// Takes the next packet off; none when what is left is not a packet.
    pub(crate) fn take(fields: &mut Fields<'a>) -> Option<Self> {
        let (track, codec, position) = (fields.u8()?, fields.u8()?, fields.u64()?);
        let length = fields.u16()?;
        let payload = fields.bytes(usize::from(length))?;
        Some(Self { track, codec, position, payload })
    }

    pub(crate) fn put(&self, to: &mut Vec<u8>) {
        let length = self.payload.len() as u16;
        to.push(self.track);
        to.push(self.codec);
        to.extend(self.position.to_le_bytes());
        to.extend(length.to_le_bytes());
        to.extend(self.payload);
    }
}

/// One entry of the seek table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) offset: u64,
    pub(crate) first_ticks: u64,
    pub(crate) kind: Kind,
}

impl IndexEntry {
    pub(crate) fn put(&self, to: &mut Vec<u8>) {
        to.extend(self.offset.to_le_bytes());
        to.extend(self.first_ticks.to_le_bytes());
        to.push(self.kind.number());
    }

    /// The plaintext of an Index chunk: the index of the first chunk listed, and the entries.
    pub(crate) fn list(plaintext: &[u8]) -> Option<(u32, Vec<Self>)> {
        let mut fields = Fields(plaintext);
        let first = fields.u32()?;
        let mut entries = Vec::with_capacity(fields.0.len() / INDEX_ENTRY_BYTES);
        while !fields.0.is_empty() {
            let (offset, first_ticks) = (fields.u64()?, fields.u64()?);
            let kind = Kind::from_number(fields.u8()?);
            entries.push(Self { offset, first_ticks, kind });
        }
        Some((first, entries))
    }
}

/// What the End chunk says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Chunks in the file, this one included.
    pub(crate) chunks: u32,
    pub(crate) packets: u64,
    pub(crate) total_ticks: u64,
    pub(crate) index_offset: u64,
    pub(crate) index_chunks: u32,
}

impl End {
    pub(crate) fn put(&self, to: &mut Vec<u8>) {
        to.extend(self.chunks.to_le_bytes());
        to.extend(self.packets.to_le_bytes());
        to.extend(self.total_ticks.to_le_bytes());
        to.extend(self.index_offset.to_le_bytes());
        to.extend(self.index_chunks.to_le_bytes());
    }

    pub(crate) fn parse(plaintext: &[u8]) -> Option<Self> {
        let mut fields = Fields(plaintext);
        Some(Self {
            chunks: fields.u32()?,
            packets: fields.u64()?,
            total_ticks: fields.u64()?,
            index_offset: fields.u64()?,
            index_chunks: fields.u32()?,
        })
    }
}

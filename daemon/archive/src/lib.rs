//! The archive: one sealed file per recording, which stands alone. This crate writes it ([`Writer`]), reads it
//! ([`Reader`]), checks it ([`verify()`]) and makes it unreadable for ever ([`erase_keys`]); [`timeline`] puts the packets of
//! all tracks on one clock before they are written. It works over `Read`, `Write` and `Seek` and has no files, no folders,
//! no clock, no randomness, no threads and no codecs: payloads go in and come out as they are, and whoever opens a file
//! also syncs and renames it.
//!
//! # The format, version 1
//!
//! What follows is complete: a reader can be written from it. All integers are little-endian; CRC-32C is the Castagnoli checksum (RFC 3385). *Ticks* are 1/48000 s, counted
//! from the recording's start, which is the start of its earliest packet. A file is
//!
//! ```text
//! header (5,120 bytes)  Facts…  Audio…  Facts… (the same again)  Index…  End
//! ```
//!
//! and lies in the store at `<yyyy>/<mm>/<dd>/<recording id>.cva`, the day being that of the recording's start in UTC
//! ([`relative_path`]).
//!
//! ## Header
//!
//! The header is there twice, at offsets 0 and 4,096, so that one damaged disk block does not cost the keys. The bytes from
//! 1,024 to 4,096 are zero. Chunks begin at 5,120. A copy is 1,024 bytes:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `89 43 56 41 0D 0A 1A 0A` |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | flags; bit 0: the sealed keys are not in this file (`archive.keys = "catalogue"`). A reader refuses unknown flags among bits 0 to 7 and ignores those above |
//! | 12 | 4 | offset of the first chunk, 5,120 |
//! | 16 | 16 | recording id (UUID, bytes in their printed order) |
//! | 32 | 8 | when the archive was made: nanoseconds since the Unix epoch, signed |
//! | 40 | 20 | zero |
//! | 60 | 4 | CRC-32C of bytes 0 to 60; every later version keeps magic, version and this checksum where they are |
//! | 64 | 960 | ten key slots of 96 bytes |
//!
//! Bytes 0 to 60 never change; their SHA-256 is the *header hash*. The key slots are written over in place when the
//! recording is deleted, before anything else happens to the file. A key slot is
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | state: 0 empty, 1 a sealed key, 2 erased |
//! | 4 | 88 | the sealed key: recipient's key id (8), encapsulated key (32), ciphertext (48); zero in the other states |
//! | 92 | 4 | CRC-32C of bytes 0 to 92 |
//!
//! The data key (32 bytes) is sealed with HPKE (`callvault-seal` has the details) with the context `archive` (ASCII)
//! followed by the 16 bytes of the recording id ([`key_context`]). The keys of a file are the different ones in the slots of
//! both copies. One erased slot anywhere means that the keys were erased: a deletion that was interrupted is a deletion.
//!
//! ## Chunk
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `A7 43 56 43` |
//! | 4 | 4 | index of the chunk, from 0, without gaps, below 1,048,576 |
//! | 8 | 1 | kind: 1 Facts, 2 Audio, 3 Index, 4 End. A reader passes over kinds that it does not know |
//! | 9 | 1 | flags; bit 0: the last chunk, set on End and on nothing else |
//! | 10 | 2 | zero, ignored by readers |
//! | 12 | 4 | length of the body, 16 to 65,552 |
//! | 16 | 8 | first position in ticks: of the first packet in an Audio chunk, 0 before the audio, total ticks after it |
//! | 24 | 8 | bytes 0 to 8 of the header hash, so that a chunk of another archive is known without a key |
//! | 32 | 4 | CRC-32C of the body |
//! | 36 | 4 | CRC-32C of bytes 0 to 36 |
//! | 40 | | body: AES-256-GCM ciphertext and its 16-byte tag |
//!
//! Nonce: bytes 0 to 8 of the header hash, then the chunk's index (4). Associated data: header hash (32), then bytes 0 to 32
//! of the chunk's header. So a chunk that was changed, moved, taken from another archive, or made the last one does not
//! open, and a file without its End is known to be cut. **A data key seals one archive file only**: a second attempt at the same
//! recording takes a fresh key. The plaintext is at most 65,536 bytes.
//!
//! **Facts**: number of the part (2), count of parts (2), then a part of the JSON of [`ArchiveFacts`]. The facts are written
//! before the audio, and again after it because without them the audio cannot be understood; a reader takes each part from where it is whole.
//!
//! **Audio**: packets in the order of their positions, whole packets only: track (1), index into the track's codec table in
//! the facts (1), position in ticks (8), payload length (2), payload. All positions in a chunk are less than 48,000 ticks
//! (one second) after the chunk's first, so a reader that wants position *p* needs no chunk whose first position is 48,000
//! or more before it, and a lost chunk costs at most a second.
//!
//! **Index**: index of the first chunk that it lists (4), then for each of consecutive chunks its offset in the file (8), first
//! position (8) and kind (1). Together the Index chunks list all chunks before the first of them.
//!
//! **End**: chunks in the file, itself included (4), packets (8), total ticks (8), offset of the first Index chunk (8),
//! number of Index chunks (4). It is always 88 bytes long, so it is found from the end of the file.
//!
//! Positions never go back, within a chunk and from one Audio chunk to the next. *Total ticks* are those of the facts, or the last
//! packet's position should that be later. An archive has at most 1,048,576 chunks, and its facts at most 16 MiB of JSON.
//!
//! ## Reading a damaged file
//!
//! A reader goes from End to Index to the chunks it wants. Where that fails it reads the file from the first chunk on; where
//! no intact header is found it looks for the next chunk magic with a right checksum. If a header is whole but its body is not,
//! its length is believed only when another header, or the end of the file, is where it says. Chunks are
//! then taken by index, wherever they lie, so damage costs the chunks that it touches and nothing else.
//!
//! ## What the file shows, and what it does not prove
//!
//! Without a key, the file shows the recording's id, when it was archived, how long it is, and how many bytes each second of it takes.
//! The seal proves that the file is as it was written; it does not prove who wrote it, because anybody can seal to a public
//! key. That is what the SHA-256 of the file in the catalogue is for ([`Summary::sha256`]; taken before the keys are erased).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chunk;
mod contents;
mod erase;
mod error;
mod facts;
mod finding;
mod header;
mod place;
mod reader;
mod scan;
pub mod timeline;
mod verify;
mod writer;

pub use chunk::{CHUNK_TICKS_MAX, CHUNKS_MAX, PAYLOAD_BYTES_MAX, PLAINTEXT_BYTES_MAX};
pub use erase::erase_keys;
pub use error::ArchiveError;
pub use facts::{ArchiveCodec, ArchiveFacts, ArchiveTrack, FACTS_BYTES_MAX, FACTS_VERSION};
pub use finding::{FINDINGS_MAX, Finding, FindingKind};
pub use header::{Header, KEY_SLOTS_MAX, Keys, KeysFound, VERSION};
pub use place::{key_context, relative_path};
pub use reader::{Packet, Packets, Played, Reader, Unlocked};
pub use verify::{Report, verify};
pub use writer::{Summary, Writer};

/// Ticks in a second: the unit of all positions in an archive is 1/48000 s.
pub const TICKS_PER_SECOND: u64 = 48_000;

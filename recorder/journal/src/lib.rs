//! The journal: the append-only, encrypted log into which a recorder writes all live sessions, and from which the daemon reads
//! what was recorded. [`Writer`] makes its bytes, [`Scanner`] finds its frames again and names what is wrong with them,
//! [`LaneReader`] opens one recording's frames. The crate is the format and nothing else: it has no files, no clock, no
//! randomness, no threads; bytes leave as buffers and come in through [`ReadAt`], and the driver does the system calls in the
//! order that "Procedures" says.
//!
//! What follows is the specification of version 1. Integers are little-endian, offsets are in bytes, `||` joins byte strings, CRC is
//! CRC32C (Castagnoli; RFC 3720 appendix B.4). Times named `wall` are nanoseconds since the Unix epoch (i64); times named
//! `journal` are nanoseconds of a clock that never goes back and runs on while the machine sleeps (u64).
//!
//! # Words
//!
//! A **generation** is one run of a recorder. It has a UUID, a sequence of **files** and a sequence of **frames** that goes on
//! through the files. A **lane** is one recording's stream of frames in one generation, with a data key of its own. A recording that
//! is resumed by a later generation has a further lane there: its **segments** are numbered 0, 1, 2, ….
//!
//! # Files
//!
//! A file is named `<generation>-<number>.cvj`, the number in decimal with at least six digits, from 000000. It is a header and
//! frames. It is only ever appended to, by one writer.
//!
//! | offset | size | file header |
//! |---|---|---|
//! | 0 | 8 | magic `89 43 56 4a 0d 0a 1a 0a` |
//! | 8 | 2 | version, 1 |
//! | 10 | 6 | zero |
//! | 16 | 16 | generation (UUID, in the byte order of RFC 9562) |
//! | 32 | 4 | number of the file |
//! | 36 | 4 | longest frame body in this file, at most 65,504 |
//! | 40 | 8 | sequence of the first frame in this file |
//! | 48 | 8 | wall time when the file was begun |
//! | 56 | 8 | journal time of the same moment |
//! | 64 | 12 | zero |
//! | 76 | 4 | CRC of bytes 0 to 75 |
//!
//! A reader that does not know the version reads nothing of the file. A reader whose file header is damaged reads the frames from
//! offset 80 on with the generation that the name says.
//!
//! # Frames
//!
//! A frame begins at a multiple of 16 and is at most 64 KiB long.
//!
//! | offset | size | frame |
//! |---|---|---|
//! | 0 | 4 | magic `CVJF` |
//! | 4 | 1 | kind |
//! | 5 | 1 | flags; zero but where a kind defines them |
//! | 6 | 2 | zero |
//! | 8 | 4 | length of the body |
//! | 12 | 4 | lane, from 1; 0 where the frame belongs to none |
//! | 16 | 8 | sequence: 1 for the first frame of the generation, then one more for each; never `ffffffffffffffff` |
//! | 24 | 4 | CRC of body and padding |
//! | 28 | 4 | CRC of generation (16 bytes) `\|\|` bytes 0 to 27 |
//! | 32 | | body, then zeros up to the next multiple of 16 |
//!
//! The generation is in the header's CRC and not in the header, so a stale block of another generation is never taken for a frame
//! of this one. Checksums are there to find damage without keys; what a sealed frame says is believed only when it opens.
//!
//! | kind | name | body |
//! |---|---|---|
//! | 1 | LaneOpen | recording (UUID, 16), segment (u16), zero (u16) |
//! | 2 | Key | recording (16), segment (u16), number n of sealed keys (u16, 1 to 16), n sealed keys of 88 bytes |
//! | 3 | Audio | sealed batch of packets |
//! | 4 | Facts | sealed JSON of a [`facts::SessionEvent`], or a part of it |
//! | 5 | LaneEnd | recording (16), segment (u16), how (u8: 1 ended, 2 discarded, 3 aborted), bytes n of the rule's name (u8, 0 to 64), n bytes: the rule by which it was discarded |
//! | 6 | Commit | durable sequence (u64), journal time (u64), wall time of the same moment (i64) |
//! | 7 | FileEnd | number of the next file (u32), `ffffffff` where the generation ends |
//! | 8 | EarlierKey | recording (16), segment (u16), number n of sealed keys (u16, 1 to 16), generation (16), lane (u32), n sealed keys |
//!
//! Frames of other kinds are skipped by their length. Clear bodies may be longer than listed; the rest is ignored. A new meaning
//! of a flag or of a sealed body is a new kind.
//!
//! # Keys and sealed bodies
//!
//! A lane has a fresh random AES-256 key that serves nothing else. A sealed body is AES-256-GCM: ciphertext, then the 16-byte tag.
//! The nonce is `CVJ1 || sequence (u64)`, unique because no sequence is used twice in a generation; the associated data is
//! `generation (16) || bytes 0 to 23 of the frame header`, so a frame opens only as what it is, where it is in the sequence.
//!
//! A Key frame holds the lane's key sealed to the appliance and to escrow holders (`callvault-seal`), with the context
//! `journal (7 ASCII bytes) || generation (16) || recording (16) || lane (u32)`. It is written when the recording is to be kept,
//! which may be long after its audio; a lane without one is bytes that nobody can read. It may be repeated, with the same or with
//! newly sealed copies, and the writer repeats it just before LaneEnd, so that one bad block cannot take a whole recording.
//! For the same reason Key and LaneEnd repeat what LaneOpen says.
//!
//! When a recorder dies before it is known that a recording is kept, the key of the lane that it wrote is not in its generation. The
//! generation that goes on with the recording then writes it as EarlierKey, into the recording's lane there; the generation and lane
//! in its body are those that the key was sealed for. Readers that do not know the kind skip it.
//!
//! # Audio
//!
//! The plaintext is a base time (journal, u64), then packets without gaps between them, in the order of their reception:
//!
//! | offset | size | packet |
//! |---|---|---|
//! | 0 | 1 | track |
//! | 1 | 1 | source: number of the SSRC epoch in the track |
//! | 2 | 1 | RTP payload type, and the marker as the highest bit |
//! | 3 | 2 | length of the payload |
//! | 5 | 4 | RTP sequence number, extended by its wraps |
//! | 9 | 4 | RTP timestamp as it came |
//! | 13 | 4 | arrival minus base time in nanoseconds (i32) |
//! | 17 | | payload as it came |
//!
//! # Facts
//!
//! The plaintext is JSON, at most 1 MiB. An event that does not fit one frame is cut into parts in consecutive frames: flag 1
//! says that the next frame continues the event, flag 2 that this frame continues the one before. An event with a missing part is
//! lost as a whole.
//!
//! # What a damaged journal means
//!
//! Where there is no valid frame, a reader looks at every following multiple of 16 for a valid frame header, and goes on there; so
//! damage costs the frames it touches. A frame whose header is valid and whose body is not is lost alone, and may still open when
//! only its padding is damaged. A sequence that was seen before is a repetition and is ignored; one that was missed before is out
//! of order and is used.
//!
//! Something is *durable* when a Commit frame says so, or when it is in a file that is followed by another file of the
//! generation. What is wrong with durable bytes is **damage** (or a **gap**, when no bytes are in their place). What is wrong behind the
//! last durable point is a **torn tail**: a crash leaves it, and a power cut may leave it with valid frames behind it, because a
//! disk writes blocks in any order until it is told to sync. While a writer may still be at work, invalid bytes at the end are
//! neither: they are *not yet*.
//!
//! Files may be missing from the front and from the middle of a generation: those were removed when all that is in them was
//! archived or discarded. The first-frame sequence in the file header tells such a hole from a loss.
//!
//! # Procedures
//!
//! Group commit, about once a second and with at least one batch pending:
//!
//! 1. [`Writer::take`], one `write` at [`Batch::offset`], [`Writer::recycle`]; repeated for all that has gathered.
//! 2. `fdatasync`.
//! 3. [`Writer::commit`] with [`Batch::last_seq`] of the last batch written before step 2. The Commit frame goes with the next batch.
//!
//! Next file, when [`Writer::should_rotate`]:
//!
//! 1. Group commit. 2. [`Writer::rotate`], `write` what it returns, `fdatasync`, `close`. 3. Create the next file (`O_EXCL`), `write` the first
//!    batch, `fdatasync`, `fsync` the folder.
//!
//! So a file that is followed by another is durable to its end.
//!
//! A `write` or `fdatasync` failed: never try the file again. [`Writer::abandon_file`] with the batches since the last sync that
//! succeeded, then step 3 above. The old file has no FileEnd, which readers report; frames that are in both files count once.
//!
//! End of the generation: group commit, [`Writer::finish`], `write`, `fdatasync`, `close`.
//!
//! Invariants that these keep: a frame's bytes never change; a Commit frame never promises what is not on the device; a sequence is
//! never used for two different frames; a lane's key is on the disk only when its recording is kept.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod audio;
mod error;
pub mod facts;
mod finding;
mod format;
mod frame_list;
mod index;
mod lane_reader;
mod missing;
mod place;
mod read_at;
mod scanner;
mod verify;
mod writer;

pub use audio::{AUDIO_BATCH_BYTES, AudioBatch, PAYLOAD_BYTES_MAX, Packet, Packets, Pushed};
pub use error::JournalError;
pub use finding::{FINDINGS_MAX, Finding, FindingKind, Report};
pub use format::{
    BODY_BYTES_MAX, Content, EarlierKey, FACTS_BYTES_MAX, FILE_HEADER_BYTES, FILE_MAGIC, FRAME_ALIGN,
    FRAME_HEADER_BYTES, FRAME_MAGIC, FileHeader, Kind, LaneEnd, PLAIN_BYTES_MAX, RULE_BYTES_MAX, SEALED_KEYS_MAX,
    VERSION, file_name, key_context, parse_file_name,
};
pub use frame_list::{FrameList, PAGE_BYTES, Pages};
pub use index::{LaneEntry, LaneIndex};
pub use lane_reader::{LaneItem, LaneReader};
pub use place::FramePlace;
pub use read_at::{JournalFiles, ReadAt, Seekable};
pub use scanner::{Frame, FrameRef, Scanner};
pub use verify::{LaneReport, verify, verify_lane};
pub use writer::{Batch, Lane, Limits, Writer};

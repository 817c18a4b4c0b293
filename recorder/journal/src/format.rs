//! The bytes of version 1: file header, frame header, clear bodies, nonce, associated data. The specification is in the
//! crate's documentation; this module is its one implementation, used by writer and reader alike.

use callvault_seal::{NONCE_BYTES, SEALED_KEY_BYTES, SealedKey, TAG_BYTES};
use uuid::Uuid;

/// Version of the format that this crate writes and reads.
pub const VERSION: u16 = 1;
/// First bytes of a file. Not text, and damaged visibly by whatever treats a file as text.
pub const FILE_MAGIC: [u8; 8] = [0x89, b'C', b'V', b'J', 0x0d, 0x0a, 0x1a, 0x0a];
/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"CVJF";
/// Length of the file header; the first frame begins behind it.
pub const FILE_HEADER_BYTES: usize = 80;
/// Length of a frame header.
pub const FRAME_HEADER_BYTES: usize = 32;
/// Frames begin at multiples of this, so that a reader that lost its way need only look there.
pub const FRAME_ALIGN: usize = 16;
/// Longest body: header, body and padding stay within 64 KiB, which is the most that one damaged frame can cost.
pub const BODY_BYTES_MAX: usize = 65_536 - FRAME_HEADER_BYTES;
/// Longest plaintext of a sealed body.
pub const PLAIN_BYTES_MAX: usize = BODY_BYTES_MAX - TAG_BYTES;
/// Most sealed keys in a Key frame: the appliance's and a handful of escrow keys.
pub const SEALED_KEYS_MAX: usize = 16;
/// Most bytes of one event as JSON. A SIP body that fills a whole UDP datagram fits several times, whatever JSON escapes in it.
pub const FACTS_BYTES_MAX: usize = 1 << 20;

/// The lane number of frames that belong to no lane.
pub(crate) const NO_LANE: u32 = 0;
/// The `next` of a FileEnd frame that ends the generation.
const NO_NEXT_FILE: u32 = u32::MAX;
/// Facts: the event continues in the next frame.
pub(crate) const FLAG_MORE: u8 = 1;
/// Facts: this frame continues the event of the frame before it.
pub(crate) const FLAG_CONTINUES: u8 = 2;
/// First four bytes of every nonce: this use of a data key and its version.
const NONCE_DOMAIN: [u8; 4] = *b"CVJ1";
/// What the frame header and the generation contribute to the associated data.
const AAD_BYTES: usize = 16 + 24;

/// Reads a field; the callers check the length of `bytes` once, before.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// What kind of frame it is. Numbers that are not listed belong to newer versions and are skipped by their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A lane begins (clear).
    LaneOpen,
    /// The sealed data key of a lane (clear, sealed by HPKE).
    Key,
    /// A batch of packets (sealed).
    Audio,
    /// One event of the session, or a part of it (sealed).
    Facts,
    /// A lane ends (clear).
    LaneEnd,
    /// How far the journal is durable, and what time it is (clear).
    Commit,
    /// A file ends (clear).
    FileEnd,
    /// The sealed data key of a lane of an earlier generation (clear, sealed by HPKE).
    EarlierKey,
    /// A kind of a newer version.
    Other(u8),
}

impl Kind {
    /// The number in the frame header.
    pub fn number(self) -> u8 {
        match self {
            Self::LaneOpen => 1,
            Self::Key => 2,
            Self::Audio => 3,
            Self::Facts => 4,
            Self::LaneEnd => 5,
            Self::Commit => 6,
            Self::FileEnd => 7,
            Self::EarlierKey => 8,
            Self::Other(number) => number,
        }
    }

    /// The kind with this number.
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::LaneOpen,
            2 => Self::Key,
            3 => Self::Audio,
            4 => Self::Facts,
            5 => Self::LaneEnd,
            6 => Self::Commit,
            7 => Self::FileEnd,
            8 => Self::EarlierKey,
            number => Self::Other(number),
        }
    }
}

/// How a lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneEnd {
    /// The session ended; what was kept is complete.
    Ended,
    /// The recording is not to be kept.
    Discarded,
    /// The recorder gave the lane up (it drained, or a limit was reached); the recording may go on in another generation.
    Aborted,
    /// A reason of a newer version.
    Other(u8),
}

impl LaneEnd {
    fn number(self) -> u8 {
        match self {
            Self::Ended => 1,
            Self::Discarded => 2,
            Self::Aborted => 3,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Ended,
            2 => Self::Discarded,
            3 => Self::Aborted,
            number => Self::Other(number),
        }
    }
}

/// The header of a journal file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// The generation: one run of a recorder.
    pub generation: Uuid,
    /// Number of the file in the generation, from 0.
    pub file_seq: u32,
    /// Longest body in this file, at most [`BODY_BYTES_MAX`].
    pub body_bytes_max: u32,
    /// Sequence of the first frame in this file.
    pub first_seq: u64,
    /// Wall clock when the file was begun, nanoseconds since the Unix epoch.
    pub wall_ns: i64,
    /// Journal time of the same moment.
    pub journal_ns: u64,
}

/// Why the first bytes of a file are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadFileHeader {
    Damaged,
    Version(u16),
}

impl FileHeader {
    /// The wall clock at a journal time, as far as the clock ran evenly since the file was begun.
    pub fn wall_ns_at(&self, journal_ns: u64) -> i64 {
        let since = i128::from(journal_ns) - i128::from(self.journal_ns);
        let wall = i128::from(self.wall_ns) + since;
        wall.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    pub(crate) fn to_bytes(self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(&FILE_MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(self.generation.as_bytes());
        bytes[32..36].copy_from_slice(&self.file_seq.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.body_bytes_max.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.wall_ns.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.journal_ns.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..76]);
        bytes[76..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; FILE_HEADER_BYTES]) -> Result<Self, BadFileHeader> {
        let crc = u32::from_le_bytes(field(bytes, 76));
        if bytes[..8] != FILE_MAGIC || crc32c::crc32c(&bytes[..76]) != crc {
            return Err(BadFileHeader::Damaged);
        }
        let version = u16::from_le_bytes(field(bytes, 8));
        if version != VERSION {
            return Err(BadFileHeader::Version(version));
        }
        Ok(Self {
            generation: Uuid::from_bytes(field(bytes, 16)),
            file_seq: u32::from_le_bytes(field(bytes, 32)),
            body_bytes_max: u32::from_le_bytes(field(bytes, 36)),
            first_seq: u64::from_le_bytes(field(bytes, 40)),
            wall_ns: i64::from_le_bytes(field(bytes, 48)),
            journal_ns: u64::from_le_bytes(field(bytes, 56)),
        })
    }
}

/// The header of a frame, without its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    /// Zero in version 1; kept because a seal covers the bytes as they are.
    pub(crate) reserved: u16,
    pub(crate) body_len: u32,
    pub(crate) lane: u32,
    pub(crate) seq: u64,
}

impl FrameHeader {
    /// The first 24 bytes: all but the checksums. They are what a sealed body is bound to.
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&FRAME_MAGIC);
        bytes[4] = self.kind.number();
        bytes[5] = self.flags;
        bytes[6..8].copy_from_slice(&self.reserved.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.lane.to_le_bytes());
        bytes[16..].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }

    /// The length of body and padding.
    pub(crate) fn padded_len(&self) -> usize {
        (self.body_len as usize).next_multiple_of(FRAME_ALIGN)
    }

    /// The length of the whole frame.
    pub(crate) fn frame_len(&self) -> usize {
        FRAME_HEADER_BYTES + self.padded_len()
    }

    /// The nonce of a sealed body: unique because sequences are, within a generation, and a data key serves one lane of one
    /// generation only.
    pub(crate) fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..4].copy_from_slice(&NONCE_DOMAIN);
        nonce[4..].copy_from_slice(&self.seq.to_le_bytes());
        nonce
    }

    /// The associated data of a sealed body.
    pub(crate) fn aad(&self, generation: Uuid) -> [u8; AAD_BYTES] {
        let mut aad = [0; AAD_BYTES];
        aad[..16].copy_from_slice(generation.as_bytes());
        aad[16..].copy_from_slice(&self.to_bytes());
        aad
    }
}

/// The checksums of the frames of one generation: the header's begins with the generation, so that a frame of another
/// generation (an old block of the disk, a file under a wrong name) is never taken for one of this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checksums {
    seed: u32,
}

impl Checksums {
    pub(crate) fn new(generation: Uuid) -> Self {
        Self { seed: crc32c::crc32c(generation.as_bytes()) }
    }

    /// Fills in the checksums of the frame that begins at `start` and ends at the end of `out`, padding included.
    pub(crate) fn fill(&self, out: &mut [u8], start: usize) {
        let body = crc32c::crc32c(&out[start + FRAME_HEADER_BYTES..]);
        out[start + 24..start + 28].copy_from_slice(&body.to_le_bytes());
        let header = crc32c::crc32c_append(self.seed, &out[start..start + 28]);
        out[start + 28..start + 32].copy_from_slice(&header.to_le_bytes());
    }

    /// The header in these bytes and the checksum of its body, if it is a valid header of this generation.
    pub(crate) fn header(&self, bytes: &[u8; FRAME_HEADER_BYTES], body_bytes_max: usize) -> Option<(FrameHeader, u32)> {
        if bytes[..4] != FRAME_MAGIC {
            return None;
        }
        let crc = u32::from_le_bytes(field(bytes, 28));
        if crc32c::crc32c_append(self.seed, &bytes[..28]) != crc {
            return None;
        }
        let header = FrameHeader {
            kind: Kind::from_number(bytes[4]),
            flags: bytes[5],
            reserved: u16::from_le_bytes(field(bytes, 6)),
            body_len: u32::from_le_bytes(field(bytes, 8)),
            lane: u32::from_le_bytes(field(bytes, 12)),
            seq: u64::from_le_bytes(field(bytes, 16)),
        };
        // The highest sequence has none after it, so that nobody could tell it from a repetition of itself.
        let fits = header.body_len as usize <= body_bytes_max && header.seq < u64::MAX;
        fits.then(|| (header, u32::from_le_bytes(field(bytes, 24))))
    }
}

/// What a clear frame says; of sealed frames, only that they are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A lane begins.
    LaneOpen {
        /// The recording that the lane is a part of.
        recording: Uuid,
        /// Which part of the recording: 0, and one more for each later generation that resumed it.
        segment: u16,
    },
    /// The lane's data key, sealed to one or more recipients.
    Key {
        /// The recording, repeated so that losing the LaneOpen frame does not lose the recording.
        recording: Uuid,
        /// The part of the recording.
        segment: u16,
        /// The sealed copies.
        keys: Vec<SealedKey>,
    },
    /// The data key of an earlier part of the same recording, whose recorder died before it was known that the recording is kept.
    EarlierKey {
        /// The recording.
        recording: Uuid,
        /// The part of the recording that this frame's own lane is.
        segment: u16,
        /// Which lane the key is for, and its sealed copies.
        of: EarlierKey,
    },
    /// A lane ends.
    LaneEnd {
        /// The recording, repeated.
        recording: Uuid,
        /// The part of the recording.
        segment: u16,
        /// How.
        end: LaneEnd,
        /// Name of the rule by which it was discarded; empty where it was not, or where an earlier version wrote it.
        rule: String,
    },
    /// How far the journal was on the disk.
    Commit {
        /// All frames up to this sequence were durable when this frame was made.
        durable_seq: u64,
        /// Journal time.
        journal_ns: u64,
        /// Wall clock of the same moment, nanoseconds since the Unix epoch.
        wall_ns: i64,
    },
    /// The file ends.
    FileEnd {
        /// The next file's number, or none when the generation ends.
        next: Option<u32>,
    },
    /// Audio or facts: sealed.
    Sealed,
    /// A kind of a newer version.
    Unknown,
}

/// The sealed key of a lane of another generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierKey {
    /// The generation that wrote the lane.
    pub generation: Uuid,
    /// The lane's number there.
    pub lane: u32,
    /// The sealed copies.
    pub keys: Vec<SealedKey>,
}

/// The body of a clear frame is not as the specification says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Recording and segment, then what belongs to the kind: the beginning of LaneOpen, Key and LaneEnd alike.
const LANE_BODY_BYTES: usize = 20;
/// The same with the generation and the number of another lane: the beginning of EarlierKey.
const EARLIER_BODY_BYTES: usize = LANE_BODY_BYTES + 20;

/// `count` sealed keys at the beginning of these bytes.
fn sealed_keys(bytes: &[u8], count: usize) -> Result<Vec<SealedKey>, Malformed> {
    if count == 0 || count > SEALED_KEYS_MAX || bytes.len() < count * SEALED_KEY_BYTES {
        return Err(Malformed);
    }
    let keys = bytes.chunks_exact(SEALED_KEY_BYTES).take(count);
    keys.map(SealedKey::from_bytes).collect::<Result<_, _>>().map_err(|_| Malformed)
}

fn lane_body(recording: Uuid, segment: u16, last: u16) -> [u8; LANE_BODY_BYTES] {
    let mut bytes = [0; LANE_BODY_BYTES];
    bytes[..16].copy_from_slice(recording.as_bytes());
    bytes[16..18].copy_from_slice(&segment.to_le_bytes());
    bytes[18..].copy_from_slice(&last.to_le_bytes());
    bytes
}

/// Longest name of a rule, in bytes: a word or two. What is longer is cut.
pub const RULE_BYTES_MAX: usize = 64;

fn clipped(rule: &str) -> &str {
    &rule[..rule.floor_char_boundary(RULE_BYTES_MAX)]
}

impl Content {
    pub(crate) fn parse(kind: Kind, body: &[u8]) -> Result<Self, Malformed> {
        match kind {
            Kind::LaneOpen | Kind::Key | Kind::LaneEnd | Kind::EarlierKey => Self::parse_lane(kind, body),
            // Longer bodies are taken: a newer version may add fields behind these.
            Kind::Commit if body.len() >= 24 => Ok(Self::Commit {
                durable_seq: u64::from_le_bytes(field(body, 0)),
                journal_ns: u64::from_le_bytes(field(body, 8)),
                wall_ns: i64::from_le_bytes(field(body, 16)),
            }),
            Kind::FileEnd if body.len() >= 4 => {
                let next = u32::from_le_bytes(field(body, 0));
                Ok(Self::FileEnd { next: (next != NO_NEXT_FILE).then_some(next) })
            }
            Kind::Audio | Kind::Facts if body.len() >= TAG_BYTES => Ok(Self::Sealed),
            Kind::Other(_) => Ok(Self::Unknown),
            _ => Err(Malformed),
        }
    }

    fn parse_lane(kind: Kind, body: &[u8]) -> Result<Self, Malformed> {
        if body.len() < LANE_BODY_BYTES {
            return Err(Malformed);
        }
        let recording = Uuid::from_bytes(field(body, 0));
        let segment = u16::from_le_bytes(field(body, 16));
        let last = u16::from_le_bytes(field(body, 18));
        match kind {
            Kind::LaneOpen => Ok(Self::LaneOpen { recording, segment }),
            Kind::Key => {
                Ok(Self::Key { recording, segment, keys: sealed_keys(&body[LANE_BODY_BYTES..], last.into())? })
            }
            Kind::EarlierKey => {
                let sealed = body.get(EARLIER_BODY_BYTES..).ok_or(Malformed)?;
                let generation = Uuid::from_bytes(field(body, LANE_BODY_BYTES));
                let lane = u32::from_le_bytes(field(body, LANE_BODY_BYTES + 16));
                let of = EarlierKey { generation, lane, keys: sealed_keys(sealed, last.into())? };
                Ok(Self::EarlierKey { recording, segment, of })
            }
            _ => {
                let [end, rule_bytes] = last.to_le_bytes();
                let rule = body.get(LANE_BODY_BYTES..).and_then(|rest| rest.get(..usize::from(rule_bytes)));
                Ok(Self::LaneEnd {
                    recording,
                    segment,
                    end: LaneEnd::from_number(end),
                    rule: rule.map(|rule| String::from_utf8_lossy(rule).into_owned()).unwrap_or_default(),
                })
            }
        }
    }

    /// Appends the clear body. Sealed bodies are not made here.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::LaneOpen { recording, segment } => {
                out.extend_from_slice(&lane_body(*recording, *segment, 0));
            }
            Self::Key { recording, segment, keys } => {
                // The writer has checked the number against SEALED_KEYS_MAX.
                out.extend_from_slice(&lane_body(*recording, *segment, keys.len() as u16));
                keys.iter().for_each(|key| out.extend_from_slice(&key.to_bytes()));
            }
            Self::EarlierKey { recording, segment, of } => {
                out.extend_from_slice(&lane_body(*recording, *segment, of.keys.len() as u16));
                out.extend_from_slice(of.generation.as_bytes());
                out.extend_from_slice(&of.lane.to_le_bytes());
                of.keys.iter().for_each(|key| out.extend_from_slice(&key.to_bytes()));
            }
            Self::LaneEnd { recording, segment, end, rule } => {
                let rule = clipped(rule);
                // The limit on it fits a byte.
                let last = u16::from_le_bytes([end.number(), rule.len() as u8]);
                out.extend_from_slice(&lane_body(*recording, *segment, last));
                out.extend_from_slice(rule.as_bytes());
            }
            Self::Commit { durable_seq, journal_ns, wall_ns } => {
                out.extend_from_slice(&durable_seq.to_le_bytes());
                out.extend_from_slice(&journal_ns.to_le_bytes());
                out.extend_from_slice(&wall_ns.to_le_bytes());
            }
            Self::FileEnd { next } => {
                out.extend_from_slice(&next.unwrap_or(NO_NEXT_FILE).to_le_bytes());
            }
            Self::Sealed | Self::Unknown => {}
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::LaneOpen { .. } => Kind::LaneOpen,
            Self::Key { .. } => Kind::Key,
            Self::EarlierKey { .. } => Kind::EarlierKey,
            Self::LaneEnd { .. } => Kind::LaneEnd,
            Self::Commit { .. } => Kind::Commit,
            Self::FileEnd { .. } => Kind::FileEnd,
            Self::Sealed => Kind::Audio,
            Self::Unknown => Kind::Other(0),
        }
    }

    pub(crate) fn body_len(&self) -> usize {
        match self {
            Self::LaneOpen { .. } => LANE_BODY_BYTES,
            Self::LaneEnd { rule, .. } => LANE_BODY_BYTES + clipped(rule).len(),
            Self::Key { keys, .. } => LANE_BODY_BYTES + keys.len() * SEALED_KEY_BYTES,
            Self::EarlierKey { of, .. } => EARLIER_BODY_BYTES + of.keys.len() * SEALED_KEY_BYTES,
            Self::Commit { .. } => 24,
            Self::FileEnd { .. } => 4,
            Self::Sealed | Self::Unknown => 0,
        }
    }
}

/// What the sealed key of a lane is sealed for: `journal`, generation, recording, lane (little-endian). Moved to another
/// lane, recording or generation it does not open.
pub fn key_context(generation: Uuid, recording: Uuid, lane: u32) -> [u8; 43] {
    let mut context = [0; 43];
    context[..7].copy_from_slice(b"journal");
    context[7..23].copy_from_slice(generation.as_bytes());
    context[23..39].copy_from_slice(recording.as_bytes());
    context[39..].copy_from_slice(&lane.to_le_bytes());
    context
}

/// The name of a journal file: `<generation>-<number, six digits or more>.cvj`.
pub fn file_name(generation: Uuid, file_seq: u32) -> String {
    format!("{generation}-{file_seq:06}.cvj")
}

/// The generation and number in a file name, or none when it is not the name of a journal file.
pub fn parse_file_name(name: &str) -> Option<(Uuid, u32)> {
    let (generation, number) = name.strip_suffix(".cvj")?.rsplit_once('-')?;
    let generation = Uuid::try_parse(generation).ok()?;
    let number = number.parse().ok()?;
    // Only the one spelling: "+7" and "0000007" parse as numbers too, and one file must not have two names.
    (file_name(generation, number) == name).then_some((generation, number))
}

/// Padding for a body of this length.
pub(crate) fn padding(body_len: usize) -> usize {
    body_len.next_multiple_of(FRAME_ALIGN) - body_len
}

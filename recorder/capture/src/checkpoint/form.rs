//! The form that both kinds of file have around their content, version 1. Integers are little-endian.
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 4 | magic `CVCP` |
//! | 4 | 1 | kind: 1 session, 2 lane, 3 ended recording |
//! | 5 | 1 | zero |
//! | 6 | 2 | version |
//! | 8 | 8 | sequence, which rises with each writing |
//! | 16 | 4 | length of the content |
//! | 20 | 4 | CRC32C of bytes 0 to 19 and the content |
//! | 24 | | content |

use zeroize::Zeroizing;

/// Bytes before the content.
pub(super) const HEAD_BYTES: usize = 24;

const MAGIC: [u8; 4] = *b"CVCP";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A session.
    Session,
    /// A recording that has ended: the content is JSON.
    Ended,
    /// A lane: the content is postcard.
    Lane,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Lane => 2,
            Self::Ended => 3,
        }
    }

    /// The version that is written, and the only one that is read.
    fn version(self) -> u16 {
        match self {
            Self::Session | Self::Lane | Self::Ended => 1,
        }
    }
}

/// Why bytes are not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    /// Cut, or changed, or something else altogether.
    #[error("it is damaged")]
    Damaged,
    /// Whole, and of another version.
    #[error("it is of version {found}, which this recorder does not know")]
    Version {
        /// The version that it has.
        found: u16,
    },
    /// Whole, and says what cannot be.
    #[error("it says what cannot be: {0}")]
    Content(&'static str),
    /// Written before the machine was started last: its times mean nothing now.
    #[error("it is from before the machine was started")]
    OtherBoot,
}

/// The bytes to store.
pub(super) fn pack(kind: Kind, sequence: u64, content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let length = u32::try_from(content.len()).ok()?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + content.len()));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind.number(), 0]);
    bytes.extend_from_slice(&kind.version().to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), content);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(content);
    Some(bytes)
}

/// How long the content is, by what the head says.
pub(super) fn content_bytes(head: &[u8; HEAD_BYTES]) -> u32 {
    u32::from_le_bytes([head[16], head[17], head[18], head[19]])
}

/// Sequence and content of stored bytes; what is behind the content is not looked at.
pub(super) fn unpack(kind: Kind, bytes: &[u8]) -> Result<(u64, &[u8]), FormError> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(FormError::Damaged)?;
    let [m0, m1, m2, m3, found, _, v0, v1, sequence @ .., l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).map_err(|_| FormError::Damaged)?;
    let content = rest.get(..length).ok_or(FormError::Damaged)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..20]), content);
    if [m0, m1, m2, m3] != MAGIC || found != kind.number() || crc != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(FormError::Damaged);
    }
    match u16::from_le_bytes([v0, v1]) {
        version if version == kind.version() => Ok((u64::from_le_bytes(sequence), content)),
        found => Err(FormError::Version { found }),
    }
}

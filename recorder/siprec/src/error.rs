//! The crate's error.

use thiserror::Error;

/// Why a body cannot be used. The texts are fragments that fit after "failed to" and hold nothing personal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SiprecError {
    /// The session description is larger than [`SDP_BYTES_MAX`](crate::SDP_BYTES_MAX).
    #[error(
        "read the session description: {bytes} bytes are more than the limit of {bytes_max}; offer fewer media lines or codecs"
    )]
    SdpTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The session description has more than [`MEDIA_LINES_MAX`](crate::MEDIA_LINES_MAX) media lines.
    #[error(
        "read the session description: it has more than {lines_max} media lines; offer one audio line for each party"
    )]
    TooManyMediaLines {
        /// The limit.
        lines_max: usize,
    },
    /// The session description cannot be understood even leniently.
    #[error("read the session description: line {line} {what}; check the body that the client sends")]
    SdpMalformed {
        /// Number of the line, from 1, as it came.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No media line is RTP audio: there is nothing to record.
    #[error(
        "find audio in the session description: no media line is RTP audio; the client must offer m=audio over RTP"
    )]
    NoAudio,
    /// The metadata is larger than [`METADATA_BYTES_MAX`](crate::METADATA_BYTES_MAX).
    #[error(
        "read the recording metadata: {bytes} bytes are more than the limit of {bytes_max}; the call is recorded without it"
    )]
    MetadataTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The metadata's XML is not well-formed.
    #[error("read the recording metadata: line {line}, column {column}: {what}; check the XML that the client sends")]
    MetadataMalformed {
        /// Line, from 1.
        line: u32,
        /// Column in characters, from 1.
        column: u32,
        /// What is wrong there.
        what: &'static str,
    },
    /// The metadata declares a document type: refused, because entities are a way to attack a reader.
    #[error("read the recording metadata: it has a document type declaration, which is refused; send it without one")]
    MetadataHasDtd,
    /// The metadata's XML is more intricate than any real metadata.
    #[error(
        "read the recording metadata: it has {what} than the limit of {limit}; check the XML that the client sends"
    )]
    MetadataTooComplex {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

//! The crate's one error: why bytes could not be read as a SIP message.

use thiserror::Error;

/// Why bytes could not be read as a SIP message or body. Texts fit after "failed to read the message: "; none of them quotes
/// the message, which may hold names and numbers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The first line belongs to no SIP message: another protocol, or a stream that lost its framing.
    #[error("not a SIP message; check that the peer speaks SIP on this port and uses TLS only where it is expected")]
    NotSip,
    /// The first line names a SIP version other than 2.0.
    #[error("SIP version is not 2.0; the peer must use SIP/2.0")]
    Version,
    /// The first line is SIP's but cannot be understood (method, URI or status code).
    #[error("malformed request or status line; the peer must send METHOD URI SIP/2.0")]
    StartLine,
    /// The header section is longer than [`crate::Limits::header_bytes_max`].
    #[error("header section is over the limit of {limit_bytes} bytes; shorten it at the peer or raise the limit")]
    HeaderBytes {
        /// The limit that was passed, in bytes.
        limit_bytes: usize,
    },
    /// There are more header fields than [`crate::Limits::headers_max`].
    #[error("more than {limit} header fields; remove some at the peer or raise the limit")]
    HeaderCount {
        /// The limit that was passed, in fields.
        limit: usize,
    },
    /// The body is, or says it is, longer than [`crate::Limits::body_bytes_max`].
    #[error("body is over the limit of {limit_bytes} bytes; shorten it at the peer or raise the limit")]
    BodyBytes {
        /// The limit that was passed, in bytes.
        limit_bytes: usize,
    },
    /// A datagram holds less of the body than its Content-Length promises (RFC 3261 section 18.3).
    #[error("body is cut short: {got} of {declared} bytes came; use TCP for messages this long")]
    BodyTruncated {
        /// What Content-Length says, in bytes.
        declared: u64,
        /// What came, in bytes.
        got: usize,
    },
    /// On a stream, Content-Length is absent beside a body, is no number, or contradicts itself: the end of the message cannot be known.
    #[error("missing or malformed Content-Length on a stream; the peer must send exactly one that is right")]
    ContentLength,
    /// A multipart body has no boundary and does not start like any body that is known.
    #[error("no boundary in the multipart body; the peer must name one in Content-Type and use it")]
    Boundary,
}

impl ParseError {
    /// The status code (RFC 3261 section 21) for a request that failed this way.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::BodyBytes { .. } => 413,
            Self::Version => 505,
            Self::HeaderBytes { .. } | Self::HeaderCount { .. } => 513,
            _ => 400,
        }
    }
}

//! What can be wrong with a datagram, or with what was kept of a track.

/// Why a datagram is neither RTP nor RTCP although its first byte says so. It is for the sender, or for whoever sends to
/// the wrong port, to put right; a recorder counts it and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// The header, with its contributing sources and its extension, is longer than the datagram (RFC 3550 section 5.1).
    #[error(
        "read an RTP packet of {bytes} bytes: its header is cut short; see whether the sender or the path cuts datagrams"
    )]
    RtpTruncated {
        /// Length of the datagram.
        bytes: usize,
    },
    /// The padding is longer than what follows the header, or says that it has no length (RFC 3550 section 5.1).
    #[error(
        "read an RTP packet of {bytes} bytes: its padding cannot be so long; see whether it is encrypted, or the sender broken"
    )]
    RtpPadding {
        /// Length of the datagram.
        bytes: usize,
    },
    /// Not even the first packet of the RTCP compound is whole (RFC 3550 section 6.4).
    #[error("read an RTCP packet of {bytes} bytes: it is cut short; see whether it is encrypted, or the sender broken")]
    RtcpTruncated {
        /// Length of the datagram.
        bytes: usize,
    },
    /// A checkpoint that says what no track can have come to.
    #[error("go on with a track: its checkpoint holds what cannot have been counted")]
    CheckpointInvalid,
}

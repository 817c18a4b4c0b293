//! What can go wrong with keys and secured packets.

/// Why a crypto attribute was not read, or a packet was not opened or secured. The texts hold no key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SrtpError {
    /// A crypto attribute does not keep to the grammar (RFC 4568 section 9.2).
    #[error("read a crypto attribute: {what}")]
    AttributeMalformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Key and salt have another length than the suite needs.
    #[error("read a key for {suite}: key and salt are {expected} bytes together, found {found}")]
    KeyLength {
        /// The suite's name.
        suite: &'static str,
        /// Bytes that the suite needs.
        expected: usize,
        /// Bytes found; one more than expected stands for any larger number.
        found: usize,
    },
    /// The attribute was understood, but names a suite or a parameter that is not supported. [`choose`] passes such over.
    ///
    /// [`choose`]: crate::sdes::choose
    #[error("use a crypto attribute: its suite or one of its parameters is not supported; choose another of the offer")]
    Unsupported,
    /// A packet is too short to be what it says, or to be secured at all.
    #[error("read a secured packet: {bytes} bytes cannot hold header and authentication tag")]
    Truncated {
        /// Its length.
        bytes: usize,
    },
    /// Authentication failed: the packet was changed, is for another key, is not secured at all, or its rollover counter is
    /// beyond what is searched. Which of these it was cannot be told. The packet is as it was.
    #[error("authenticate a packet: it was damaged, or secured with another key")]
    NotAuthentic,
    /// The packet's index was accepted before (RFC 3711 section 3.3.2): the network doubled the packet, or somebody replays it.
    #[error("accept a packet: it came before")]
    Replayed,
    /// The packet is so far behind the newest that it is not known whether it came before.
    #[error("accept a packet: it is older than the replay window")]
    TooOld,
    /// More packets than one key may secure (RFC 3711 section 9.2).
    #[error("secure a packet: the key is used up; agree on a new one")]
    KeyExhausted,
    /// To be secured, packets of a source must advance: the same index twice would give the key stream away.
    #[error("secure a packet: its sequence number is not after that of the packet before")]
    NotAdvancing,
    /// More sources than are kept apart when sending.
    #[error("secure a packet: more than {sources_max} sources under one key")]
    TooManySources {
        /// How many are kept apart.
        sources_max: usize,
    },
    /// A checkpoint holds what no run of this crate leaves behind.
    #[error("resume from a checkpoint: {what}; agree on a new key by signalling")]
    CheckpointInvalid {
        /// What is wrong with it.
        what: &'static str,
    },
}

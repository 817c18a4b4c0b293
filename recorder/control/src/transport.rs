//! What the transports need and what they count.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Longest certificate chain in PEM, in bytes: some ten certificates. Together with the other two limits it stays below
/// [`crate::MESSAGE_BYTES_MAX`].
pub const CHAIN_BYTES_MAX: usize = 32 * 1024;

/// Longest private key in PEM, in bytes: an RSA key of 16,384 bits has 13,000.
pub const KEY_BYTES_MAX: usize = 16 * 1024;

/// Longest list of client authorities in PEM, in bytes: some thirty certificates.
pub const CLIENT_CA_BYTES_MAX: usize = 64 * 1024;

/// What TLS connections are secured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsIdentity {
    /// Our certificate and the ones between it and its authority, in PEM; at most [`CHAIN_BYTES_MAX`].
    pub chain_pem: Vec<u8>,
    /// The private key of the first of them.
    pub key_pem: KeyPem,
    /// Authorities that sign clients' certificates, in PEM; at most [`CLIENT_CA_BYTES_MAX`]. Empty: clients are not asked for one.
    pub client_ca_pem: Vec<u8>,
    /// Whether a client without a certificate is taken, where there are authorities.
    pub client_certificate_optional: bool,
}

/// A private key in PEM, at most [`KEY_BYTES_MAX`]: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPem(Zeroizing<Vec<u8>>);

impl KeyPem {
    /// Takes charge of a key. Copies that the caller made before are the caller's to wipe.
    #[must_use]
    pub fn new(pem: Vec<u8>) -> Self {
        Self(Zeroizing::new(pem))
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Serialize for KeyPem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyPem {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(|bytes| Self::new(bytes.to_vec()))
    }
}

/// An enum of reasons, each with a stable name, that counters are kept for.
macro_rules! reasons {
    ($(#[doc = $about:literal])* $name:ident { $(#[doc = $doc:literal] $reason:ident = $text:literal,)* }) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $(#[doc = $doc] $reason,)*
        }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$reason),*];

            /// Its stable name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$reason => $text,)* }
            }
        }
    };
}

reasons! {
    /// Why a TLS handshake came to nothing.
    HandshakeFailure {
        /// What came is not TLS.
        Plaintext = "plaintext",
        /// It was not done in time.
        TimedOut = "timeout",
        /// The peer closed the connection.
        Closed = "closed",
        /// The client has no certificate, and one is required.
        NoClientCertificate = "no-client-certificate",
        /// The peer's certificate is signed by an authority that is not ours to trust.
        UnknownAuthority = "unknown-authority",
        /// The peer's certificate is expired, or not valid yet.
        Expired = "expired",
        /// The peer's certificate is wrong in another way.
        BadCertificate = "bad-certificate",
        /// The peer does not like our certificate.
        RefusedByPeer = "refused-by-peer",
        /// No version or suite in common.
        Incompatible = "incompatible",
        /// We have no certificate that can be used.
        NoCertificate = "no-certificate",
        /// Anything else.
        Other = "other",
    }
}

reasons! {
    /// Why a connection was turned away or closed.
    ClosedBecause {
        /// Its source is not in the allow-list.
        NotAllowed = "not-allowed",
        /// There are too many.
        Full = "full",
        /// It had not carried a message, and made room for another.
        Replaced = "replaced",
        /// Its source opens them too fast.
        TooFast = "too-fast",
        /// Nothing came on it.
        Silent = "silent",
        /// A message did not come to its end in time.
        Slow = "slow",
        /// Nothing came on it for long.
        Idle = "idle",
    }
}

/// What the transports count. Counters only grow while a recorder lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportCounts {
    /// Connections over TCP that are open now.
    pub connections_tcp: u32,
    /// Connections over TLS that are open now, in the handshake included.
    pub connections_tls: u32,
    /// Connections of peers taken, over TCP.
    pub accepted_tcp: u64,
    /// Connections of peers taken, over TLS.
    pub accepted_tls: u64,
    /// Connections turned away or closed, by [`ClosedBecause::ALL`].
    pub closed: [u64; ClosedBecause::ALL.len()],
    /// Handshakes that succeeded.
    pub handshakes: u64,
    /// Handshakes that failed, by [`HandshakeFailure::ALL`].
    pub handshakes_failed: [u64; HandshakeFailure::ALL.len()],
    /// Connections of our own that were opened.
    pub connects: u64,
    /// Connections of our own that could not be opened.
    pub connects_failed: u64,
    /// Datagrams from outside the allow-list that were dropped unread.
    pub datagrams_not_allowed: u64,
    /// Datagrams without a message that were not even answered, because their source sends so many.
    pub datagrams_unanswered: u64,
    /// INVITEs answered 503 because they came too fast.
    pub invites_too_fast: u64,
    /// INVITEs answered 503 because their source has too many sessions.
    pub invites_over_share: u64,
}

impl TransportCounts {
    /// The sums of the counters; gauges are 0.
    #[must_use]
    pub fn sum(self, other: Self) -> Self {
        fn each<const N: usize>(a: [u64; N], b: [u64; N]) -> [u64; N] {
            let mut sums = a;
            for (sum, more) in sums.iter_mut().zip(b) {
                *sum = sum.saturating_add(more);
            }
            sums
        }
        Self {
            connections_tcp: 0,
            connections_tls: 0,
            accepted_tcp: self.accepted_tcp.saturating_add(other.accepted_tcp),
            accepted_tls: self.accepted_tls.saturating_add(other.accepted_tls),
            closed: each(self.closed, other.closed),
            handshakes: self.handshakes.saturating_add(other.handshakes),
            handshakes_failed: each(self.handshakes_failed, other.handshakes_failed),
            connects: self.connects.saturating_add(other.connects),
            connects_failed: self.connects_failed.saturating_add(other.connects_failed),
            datagrams_not_allowed: self.datagrams_not_allowed.saturating_add(other.datagrams_not_allowed),
            datagrams_unanswered: self.datagrams_unanswered.saturating_add(other.datagrams_unanswered),
            invites_too_fast: self.invites_too_fast.saturating_add(other.invites_too_fast),
            invites_over_share: self.invites_over_share.saturating_add(other.invites_over_share),
        }
    }
}

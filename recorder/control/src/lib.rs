//! The contract between the daemon and its recorder: which messages go over the socket between them, and how open sockets
//! travel with them. There is nothing here that decides, waits or keeps state.
//!
//! The two processes share one `SOCK_SEQPACKET` Unix socket pair, made by the daemon; the recorder finds its end as
//! descriptor 0, in place of the standard input that it has no use for. Each datagram is one message: a version byte
//! ([`VERSION`]) and the message in postcard. Both processes come from the same package, so a version that differs is refused, not translated. Sockets are
//! sent as `SCM_RIGHTS` beside a [`ToRecorder::Sockets`] message that says what each is, at most [`SOCKETS_PER_MESSAGE_MAX`]
//! at a time (the kernel's limit is 253).
//!
//! Messages say where to look, facts live in the journal: losing any message but `Start` and `Sockets` costs latency, never
//! a recording.

mod channel;
mod checkpoint_key;
mod message;
mod transport;

pub use channel::{Channel, ControlError, decode, encode};
pub use checkpoint_key::{CHECKPOINT_KEY_BYTES, CheckpointKey};
pub use message::{
    CallAction, CallStanding, CallState, Decision, Heartbeat, LiveCall, Network, Refusal, SocketKind, Start, ToDaemon,
    ToRecorder,
};
pub use transport::{
    CHAIN_BYTES_MAX, CLIENT_CA_BYTES_MAX, ClosedBecause, HandshakeFailure, KEY_BYTES_MAX, KeyPem, TlsIdentity,
    TransportCounts,
};

/// First byte of every message. Raised whenever a message changes its meaning or its fields.
pub const VERSION: u8 = 1;

/// Longest message, version byte included. Above every real one (the longest lists live calls, [`CALLS_PER_MESSAGE_MAX`] at
/// a time) and below the default send buffer of a Unix socket, so that a message is never refused for its size.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// Sockets in one message: what the kernel passes at once is 253 (`SCM_MAX_FD`).
pub const SOCKETS_PER_MESSAGE_MAX: usize = 250;

/// Live calls in one [`ToDaemon::Calls`] message: at most 500 bytes each, so it stays under [`MESSAGE_BYTES_MAX`].
pub const CALLS_PER_MESSAGE_MAX: usize = 200;

/// Recordings in one [`ToDaemon::Resumed`] message: 16 bytes each.
pub const RESUMED_PER_MESSAGE_MAX: usize = 2_000;

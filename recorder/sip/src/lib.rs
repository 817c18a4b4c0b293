//! A SIP user agent server for a recorder: messages, transactions and dialogs, lenient beyond the grammar of RFC 3261,
//! because a call that a strict parser turns away is a call that nobody records. The crate deliberately has no socket,
//! no clock, no thread and no randomness of its own: bytes, time and a seed come in as arguments, bytes to send and
//! events come out. It knows nothing of SDP, of recording metadata (beyond recognising that there is some) or of policy.
//!
//! # The parts
//!
//! - [`message`]: owned [`Request`] and [`Response`], [`Headers`] in their order, and the tolerant readings of the fields that
//!   matter ([`Via`], [`NameAddr`], [`CSeq`], [`Uri`]). [`parse_datagram`] for UDP, [`StreamParser`] for TCP and TLS.
//! - [`multipart`]: the bodies of a message, whatever their boundary looks like.
//! - [`endpoint`]: one machine, [`Endpoint`], for server transactions (RFC 3261 section 17.2, RFC 6026), dialogs and the few
//!   requests that a recorder sends itself.
//! - [`recognition`]: whether a request asks for a recording.
//!
//! # Driving the endpoint
//!
//! ```
//! use callvault_sip::{Endpoint, EndpointConfig, Event, Flow, FlowId, Limits, Now, Output, TransportKind, parse_datagram};
//!
//! let mut endpoint = Endpoint::new(EndpointConfig::new("callvault"), [7; 32]);
//! let flow = Flow {
//!     id: FlowId(1),
//!     kind: TransportKind::Udp,
//!     local: "192.0.2.1:5060".parse()?,
//!     peer: "192.0.2.9:5060".parse()?,
//! };
//! let datagram = b"OPTIONS sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\n\
//!     From: <sip:a@192.0.2.9>;tag=1\r\nTo: <sip:192.0.2.1>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n";
//! match parse_datagram(datagram, &Limits::default()) {
//!     Ok(Some(message)) => endpoint.receive(Now(0), &flow, message),
//!     Ok(None) => {} // a keep-alive
//!     Err(error) => endpoint.receive_invalid(Now(0), &flow, datagram, &error),
//! }
//! while let Some(output) = endpoint.poll() {
//!     match output {
//!         Output::Send { bytes, .. } => assert!(bytes.starts_with(b"SIP/2.0 200 OK\r\n")),
//!         Output::Event(Event::Options { tx, .. }) => {
//!             endpoint.accept(Now(0), tx, Default::default());
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok::<(), std::net::AddrParseError>(())
//! ```
//!
//! Bytes from a peer never make anything here panic; a panic is a bug.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod endpoint;
mod error;
mod limits;
pub mod message;
pub mod multipart;
pub mod recognition;

pub use endpoint::{
    Accept, ConnectId, Counters, DIALOG_CHECKPOINT_VERSION, DialogCheckpoint, DialogId, EndReason, Endpoint,
    EndpointConfig, Event, Flow, FlowId, Now, Output, ResumeError, Timers, TransactionId, TransportKind,
    UnknownRequire,
};
pub use error::ParseError;
pub use limits::{BODY_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_MAX, Limits};
pub use message::{
    CSeq, Field, Headers, Message, MessageFlaw, Method, NameAddr, Params, Request, Response, StreamFault, StreamItem,
    StreamParser, Uri, Via, parse_datagram,
};
pub use multipart::{Multipart, MultipartFlaw, Part};
pub use recognition::{RecordingHints, is_recording_session};

//! What a SIPREC client says about a recording session: the offered media (SDP, RFC 3264 and RFC 8866), our answer to it, and
//! the recording metadata (RFC 7865, and the draft shape that BroadWorks and Webex Calling send), brought together into the
//! facts of a session. Everything is a pure function from text to values: there is no socket, no clock, no file, no
//! randomness, no SIP transaction and no RTP in here, and nothing is decided about whether a call is kept.
//!
//! The rule of the house is *accept and flag*: what deviates from the standards is understood as far as it can be and noted
//! as a [`Flaw`]; only an offer that has no audio in it, or that cannot be answered, is an error. Text from the peer never
//! panics and never costs more than the limits named here allow.
//!
//! The way of the data:
//!
//! ```text
//! application/sdp ──▶ Offer::parse ──▶ answer() ──▶ the answer's text, NegotiatedTrack per accepted media line
//!                          │
//! rs-metadata+xml ──▶ Metadata::parse, Metadata::merge
//! X-Cisco-… ────────▶ Metadata::from_cisco_participants, where there is no document
//!                          │
//! From, X-BroadWorks… ─────┴──▶ session_facts() ──▶ SessionFacts { call, tracks, flaws }
//! ```
//!
//! Flaw texts and error texts hold no numbers, names or addresses, so they may be logged. The values themselves are personal
//! data: their `Debug` is for tests.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod codec;
mod encoding;
mod error;
mod facts;
mod flaw;
mod metadata;
mod number;
mod sdp;

pub use answer::{AnswerParams, DEFAULT_PREFERENCE, NegotiatedTrack, Ports, answer, answer_secured};
pub use codec::{Codec, UNKNOWN_ENCODING};
pub use error::SiprecError;
pub use facts::{CallDirection, CallFacts, HeaderParty, Party, SessionFacts, Signalling, TrackRole, session_facts};
pub use flaw::Flaw;
pub use metadata::{
    Acd, BroadworksFacts, CallLeg, DEPTH_MAX, DataMode, METADATA_BYTES_MAX, Merge, Metadata, PARTICIPANTS_MAX,
    Participant, RedirectedCall, SESSIONS_MAX, STREAMS_MAX, Session, Shape, Stream, StreamMode, TEXT_CHARS_MAX,
    VendorCall, snapshot_request,
};
pub use number::number_of;
pub use sdp::{
    CryptoLine, MEDIA_LINES_MAX, MediaDirection, MediaKind, MediaLine, Offer, RtcpPort, SDP_BYTES_MAX, without_keys,
};

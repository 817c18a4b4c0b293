//! The daemon's HTTP endpoint: health, readiness and metrics for monitoring, `/v1/` for the operator's command.
//!
//! It listens on a loopback address or a Unix socket and nowhere else, has no TLS, keeps no state, touches no file but its
//! socket, and decides nothing: what a request asks is parsed here and answered by the [`Api`] that it was given.
//!
//! # Two listeners behind one door
//!
//! tiny_http parses, queues and answers requests. It has no time-outs, reads heads of any length, makes room for as many bytes
//! as a `Content-Length` claims, starts a thread for every connection, and is not maintained. So nobody reaches it directly:
//!
//! ```text
//! client ──▶ front: accepts, bounds, reads head and body, refuses what is odd, asks whose token it is
//!              ├─▶ tiny_http "open": /health /ready /metrics   ◀── threads of its own, a snapshot, never the Api
//!              └─▶ tiny_http "api":  /v1/…                     ◀── one thread per request let through ──▶ Api
//! ```
//!
//! The front hands on only requests that are complete and that it has written anew from their parsed parts, over Unix sockets in a
//! folder that only this user may enter. One connection carries one request.
//!
//! # What is bounded, and what happens at the bound
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | connections whose request is being read | [`Limits::reading_max`] | the oldest is cut off |
//! | time from connecting to the last byte of a request | [`Limits::request_ms_max`] | 408 |
//! | head of a request | [`HEAD_BYTES_MAX`], [`HEADERS_MAX`] fields | 431 |
//! | body of a request | [`BODY_BYTES_MAX`], of an import [`IMPORT_BYTES_MAX`]; `Transfer-Encoding` is refused | 413; 501 |
//! | `/v1/` requests being answered | [`Limits::api_max`], of which sound has three quarters | as many wait, for two seconds; 503 with `Retry-After` |
//! | open requests being answered | [`Limits::open_max`] | 503 with `Retry-After` |
//! | time that a client may take none of an answer | [`Limits::stall_ms_max`] | the connection is closed |
//! | age of the snapshot behind `/health` | [`Limits::snapshot_ms_max`] | `failing`, and says so |
//!
//! Not bounded: the time that the [`Api`] takes for an answer. A call that hangs holds one of [`Limits::api_max`] places; `/health`
//! does not notice, unless [`Api::snapshot`] hangs too, and then it says so.
//!
//! # Answers
//!
//! JSON, errors as `{"error": {"code", "message"}}`. Nothing that a client sent is put into a header or a log line: paths hold
//! ids, queries hold numbers. An audio body that breaks off is never ended in order, so that no client takes half a call for
//! a whole one.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod annotate;
mod api;
mod error;
mod front;
mod head;
mod imports;
mod listen;
mod paths;
mod places;
mod respond;
mod route;
mod server;
mod settings;
mod sign_in;
mod snapshot;
mod tickets;
mod users;
mod webex;
mod worker;

pub use access::{AuditQuery, NewToken};
pub use annotate::Annotate;
pub use api::{
    Answer, Api, ApiError, Audio, AudioFormat, AudioPurpose, AudioRequest, CallAction, ErrorKind, MigrateStore,
    RecordingsQuery,
};
pub use callvault_access::{Caller, Level};
pub use error::HttpError;
pub use head::{BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, IMPORT_BYTES_MAX};
pub use imports::{Import, NewImport, Piece, Whole};
pub use listen::Listen;
pub use server::{Limits, Server};
pub use settings::ChangeSettings;
pub use sign_in::{CameBack, Elsewhere, Entrance, SignIn};
pub use snapshot::{Component, Health, Snapshot, Status};
pub use users::{DiscardsQuery, UserImport};
pub use webex::{CompletenessQuery, Pasted, SyncWanted, WebexCall};

//! The recorder process: the drivers around the machines that decide.
//!
//! Three threads, each with one loop, and queues between them; no lock is held across any of them:
//!
//! - **signalling** ([`run`], the main thread): SIP over UDP and TCP, the sessions, the control connection to the daemon.
//! - **media** (`sweep`): takes what waits at the media sockets, every 20 ms.
//! - **journal** (`appender`, with a thread of its own for `fdatasync`): seals, writes, commits.
//!
//! The process gets everything from the daemon: its sockets, its settings, the public keys. It reads no configuration, holds no
//! private key, and cannot read what it has written. When the control connection closes, it ends every session in order, flushes
//! and exits.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod appender;
mod clock;
mod connections;
mod convert;
mod handover;
mod ports;
mod receive;
mod sessions;
mod signalling;
mod sweep;

use std::process::ExitCode;
use std::sync::Arc;

use ports::PortPair;
use uuid::Uuid;

pub use signalling::run;
#[doc(hidden)]
pub use sweep::bench;

/// What the media and journal threads tell the signalling.
pub(crate) enum Feedback {
    /// The sweep has left these sockets.
    Left(Vec<Arc<PortPair>>),
    /// Nothing has come on any track of this recording for `media.timeout`.
    Silent(Uuid),
    /// The end of this recording is durable.
    Durable(Uuid),
    /// This journal file is closed and durable.
    Rotated(u32),
    /// Something that the operator must hear of: a stable name and a sentence.
    Alarm(&'static str, String),
    /// The appender has stopped: everything is written.
    Stopped,
}

/// The program `callvault-recorder`.
#[must_use]
pub fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).without_time().init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start the recorder's runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "failed to {error}");
            ExitCode::FAILURE
        }
    }
}

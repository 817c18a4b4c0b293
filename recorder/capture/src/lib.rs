//! The recorder process: the drivers around the machines that decide.
//!
//! Three threads, each with one loop, and queues between them; no lock is held across any of them:
//!
//! - **signalling** ([`run`], the main thread): SIP over UDP, TCP and TLS, the sessions, the control connection to the daemon.
//! - **media** (`sweep`): takes what waits at the media sockets, each session's in its turn.
//! - **journal** (`appender`, with a thread of its own for `fdatasync`): seals, writes, commits.
//!
//! The process gets everything from the daemon: its sockets, its settings, the public keys. It reads no configuration, holds no
//! private key, and cannot read what it has written. When the control connection closes, it ends every session in order, flushes
//! and exits.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admission;
mod appender;
mod checkpoint;
mod clock;
mod confinement;
mod connections;
mod convert;
mod handover;
mod listeners;
mod ports;
mod receive;
#[cfg(test)]
mod rig;
mod sessions;
mod signalling;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulated;
mod sweep;
mod tls;
mod transports;

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
    /// Facts of the signalling up to this number are in the journal's file.
    Written(Uuid, u64),
    /// Everything before [`appender::Entry::Mark`] is.
    Marked,
    /// The end of this recording is durable.
    Durable(Uuid),
    /// This journal file is closed and durable.
    Rotated(u32),
    /// Something that the operator must hear of: a stable name and a sentence.
    Alarm(&'static str, String),
    /// The appender has stopped: everything is written.
    Stopped,
}

/// How the process ends when a thread panicked, which is a bug: as every Rust program whose main thread does.
const PANICKED: i32 = 101;

/// Arenas of memory: one for the signalling, one for media and journal, so that neither waits long for memory.
const ARENAS_MAX: i32 = 2;

/// A recorder without one of its threads would go on and lose calls: it ends at once, and the daemon starts another.
///
/// Only the place is logged: a panic's message may quote what it tripped over. And it ends without a core, in which keys and voices would be.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            thread,
            place,
            "the {thread} thread panicked at {place}: this is a bug; the recorder ends and is started again"
        );
        std::process::exit(PANICKED);
    }));
}

/// The program `callvault-recorder`.
#[must_use]
pub fn main() -> ExitCode {
    callvault_confine::give_memory_back(ARENAS_MAX);
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).without_time().init();
    end_on_panic();
    // Keys of calls and voices are in it from here on.
    if let Err(error) = callvault_confine::leave_no_core() {
        tracing::warn!(%error, "failed to keep the recorder's memory out of core dumps: {error}");
    }
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

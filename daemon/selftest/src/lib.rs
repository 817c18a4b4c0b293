//! The self-test: calls the running appliance as a SIPREC client would, with speech-like audio that is known sample by
//! sample, and judges what was recorded. It has its own SIP, RTP, G.711 and WAV code on purpose and shares none with the
//! recorder or the daemon: a reader that judges itself agrees with its own mistakes. It does not know how the control
//! endpoint is reached; the caller brings that as an [`Appliance`]. It sends to the one SIP address that it is given, for a
//! bounded time, and stops by itself.
//!
//! One run: plan the calls ([`plan`]), hold them all at once from a few threads ([`driver`]; the dialog of each is the
//! clockless machine in [`dialog`]), wait until each is archived ([`verdict`]), export each as WAV and compare both channels
//! with what was sent ([`compare`]).
//!
//! The phone numbers are from ranges that are reserved for fiction (United Kingdom, Ofcom: 020 7946 0xxx and 01632 960xxx),
//! so no real person's number gets into anyone's recordings.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod compare;
mod dialog;
mod driver;
mod g711;
mod message;
mod plan;
mod report;
mod verdict;
mod voice;
mod wav;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use report::{CallReport, ChannelReport, Report};

/// Most calls at once. More is the business of a load generator, not of a check that an operator runs beside real calls.
pub const CALLS_MAX: usize = 1000;

/// Longest and shortest call in seconds. Below two there is too little speech to tell two voices apart.
pub const SECONDS: std::ops::RangeInclusive<u32> = 2..=600;

/// How the appliance is reached for signalling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// SIP over UDP, with retransmissions.
    Udp,
    /// SIP over TCP, one connection for all calls of a thread.
    Tcp,
}

impl Transport {
    /// The name in lower case, as in `;transport=udp`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub struct SelftestParams {
    /// How signalling travels.
    pub transport: Transport,
    /// Where the recorder listens. A definite address, not `0.0.0.0`.
    pub address: SocketAddr,
    /// Calls at once, 1 to [`CALLS_MAX`].
    pub calls: usize,
    /// Length of each call, within [`SECONDS`].
    pub seconds: u32,
    /// How long after the last call to wait for the last archive.
    pub archive_wait: Duration,
    /// Names this run: it is part of every call id, so that two runs never mix. Give a random number.
    pub run: u64,
}

/// The appliance's control endpoint, as far as the self-test needs it. Errors are sentences for people.
pub trait Appliance {
    /// `GET /v1/recordings`, newest first, one page: the object with `recordings` and `next`.
    fn recordings(&self, cursor: Option<&str>) -> Result<Value, String>;

    /// `GET /v1/recordings/ID`.
    fn recording(&self, id: &str) -> Result<Value, String>;

    /// `GET /v1/recordings/ID/audio?format=wav`, the whole body.
    fn wav(&self, id: &str) -> Result<Vec<u8>, String>;
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is going on.
    pub stage: Stage,
    /// How much of it is done, in calls; for [`Stage::Talking`] in seconds.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

/// The parts of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Calls are set up, audio is sent, calls are ended.
    Talking,
    /// The appliance works on its archives.
    Archiving,
    /// The recordings are exported and compared.
    Comparing,
}

/// Why a run could not even begin. What goes wrong with a call is in its [`CallReport`].
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// A parameter is out of range.
    #[error("begin the self-test: {0}")]
    Params(String),
    /// A socket could not be opened or a thread not be started.
    #[error("open what the self-test needs: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs the self-test to its end.
///
/// # Errors
/// Only when it could not begin. A call that failed is part of the report.
pub fn run(
    params: &SelftestParams,
    appliance: &dyn Appliance,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, SelftestError> {
    check_params(params)?;
    let began = Instant::now();
    let started_at = jiff::Timestamp::now();
    let plans: Vec<plan::CallPlan> = (0..params.calls).map(|index| plan::CallPlan::new(index, params)).collect();
    let held = driver::hold_calls(params, &plans, progress)?;
    let calls = verdict::judge(params, &plans, held, started_at, appliance, progress);
    Ok(Report::new(params, calls, began.elapsed()))
}

fn check_params(params: &SelftestParams) -> Result<(), SelftestError> {
    let refuse = |text: String| Err(SelftestError::Params(text));
    if !(1..=CALLS_MAX).contains(&params.calls) {
        return refuse(format!("{} calls are not between 1 and {CALLS_MAX}", params.calls));
    }
    if !SECONDS.contains(&params.seconds) {
        return refuse(format!("{} seconds are not between {} and {}", params.seconds, SECONDS.start(), SECONDS.end()));
    }
    if params.address.ip().is_unspecified() || params.address.port() == 0 {
        return refuse(format!("{} is not an address that can be called; name a definite one", params.address));
    }
    Ok(())
}

#[cfg(test)]
mod run_tests;

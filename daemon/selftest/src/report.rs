//! What a run found, for people and for programs.

use std::time::Duration;

use serde::Serialize;

use crate::plan::Shape;
use crate::{SelftestParams, Transport};

/// The result of a run. Serialises to the JSON that `callvaultctl selftest --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether every call was recorded as it was held.
    pub ok: bool,
    /// Calls that were.
    pub passed: usize,
    /// Calls that were not.
    pub failed: usize,
    /// How signalling travelled.
    pub transport: Transport,
    /// The recorder's address.
    pub address: String,
    /// Length of each call.
    pub call_ms: u64,
    /// Length of the run.
    pub took_ms: u64,
    /// The calls, in the order of their index.
    pub calls: Vec<CallReport>,
}

/// One call of the run.
#[derive(Debug, Clone, Serialize)]
pub struct CallReport {
    /// Place in the run, from 1.
    pub call: usize,
    /// In whose manner the session was opened.
    pub(crate) shape: Shape,
    /// The SIP Call-ID.
    pub call_id: String,
    /// Whether nothing is in `problems`.
    pub ok: bool,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// From the INVITE to its answer.
    pub answered_in_ms: Option<f64>,
    /// Packets sent in both tracks together.
    pub packets_sent: u64,
    /// The recording's id, once found.
    pub recording: Option<String>,
    /// What the appliance says about it.
    pub verdict: Option<String>,
    /// Where its audio is, as the appliance says.
    pub archive_state: Option<String>,
    /// From the end of the last call until this archive was seen.
    pub archived_after_ms: Option<u64>,
    /// The recorded user, left.
    pub left: Option<ChannelReport>,
    /// The other party, right.
    pub right: Option<ChannelReport>,
}

/// One channel of an exported recording.
#[derive(Debug, Clone, Serialize)]
pub struct ChannelReport {
    /// The codec in which it was sent.
    pub codec: String,
    /// Whether every sample is the one that was sent.
    pub exact: bool,
    /// Likeness to what was sent: 1 is the same, 0 unrelated.
    pub correlation: f64,
    /// Likeness to what the other party said.
    pub crosstalk: f64,
    /// How far it lies behind what was sent; negative: before.
    pub lag_ms: f64,
}

impl Report {
    pub(crate) fn new(params: &SelftestParams, calls: Vec<CallReport>, took: Duration) -> Self {
        let failed = calls.iter().filter(|call| !call.ok).count();
        Self {
            ok: failed == 0,
            passed: calls.len() - failed,
            failed,
            transport: params.transport,
            address: params.address.to_string(),
            call_ms: u64::from(params.seconds) * 1000,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            calls,
        }
    }

    /// The report for a person: a line for each call (of many good ones only the first few), then the sum.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut unmentioned = 0;
        for (index, call) in self.calls.iter().enumerate() {
            if call.ok && index >= GOOD_CALLS_SHOWN_MAX {
                unmentioned += 1;
                continue;
            }
            text.push_str(&call.text());
        }
        if unmentioned > 0 {
            text.push_str(&format!("… and {unmentioned} more calls without a fault\n"));
        }
        let seconds = self.call_ms / 1000;
        text.push_str(&format!(
            "{} of {} calls of {seconds} s over {} were recorded, archived and exported as they were held ({:.1} s in all)\n",
            self.passed,
            self.calls.len(),
            self.transport.as_str().to_uppercase(),
            self.took_ms as f64 / 1000.0
        ));
        text
    }
}

/// So many good calls are told one by one; the rest only counted.
const GOOD_CALLS_SHOWN_MAX: usize = 8;

impl CallReport {
    fn text(&self) -> String {
        let mut text = format!("call {}: {}", self.call, if self.ok { "good" } else { "FAILED" });
        if let Some(recording) = &self.recording {
            text.push_str(&format!(", recording {recording}"));
        }
        if let Some(answered) = self.answered_in_ms {
            text.push_str(&format!(", answered in {answered:.1} ms"));
        }
        if let Some(archived) = self.archived_after_ms {
            text.push_str(&format!(", archived {:.1} s after the last call", archived as f64 / 1000.0));
        }
        text.push('\n');
        for (side, channel) in [("left", &self.left), ("right", &self.right)] {
            if let Some(channel) = channel {
                text.push_str(&format!("  {side:5} {}\n", channel.text()));
            }
        }
        for problem in &self.problems {
            text.push_str(&format!("  ! {problem}\n"));
        }
        text
    }
}

impl ChannelReport {
    fn text(&self) -> String {
        let likeness =
            if self.exact { "every sample as sent".to_owned() } else { format!("likeness {:.3}", self.correlation) };
        format!("{} {likeness}, other party {:.3}, shifted by {:.1} ms", self.codec, self.crosstalk, self.lag_ms)
    }
}

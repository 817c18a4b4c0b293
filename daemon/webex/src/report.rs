//! What is told of a comparison: sums by verdict, day, location and user, and the calls that somebody should look at.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::completeness::{Finding, JoinedBy, Verdict};

/// Calls that a report names at most; sums count all of them. Who has more has one cause, not ten thousand.
pub const FINDINGS_MAX: usize = 10_000;

/// Calls by the names of their verdicts.
pub type Sums = BTreeMap<&'static str, u64>;

/// A report. `Debug` shows no personal data.
#[derive(Clone, Default)]
pub struct Report {
    /// All calls.
    pub sums: Sums,
    /// By the day on which they began, in UTC.
    pub by_day: BTreeMap<String, Sums>,
    /// By location as Webex shows it; empty where a record does not say.
    pub by_location: BTreeMap<String, Sums>,
    /// By user as Webex shows them.
    pub by_user: BTreeMap<String, Sums>,
    /// How often each key held.
    pub joined_by: BTreeMap<&'static str, u64>,
    /// Calls that are not simply recorded, not kept as wished or awaited, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").field("sums", &self.sums).field("joined_by", &self.joined_by).finish_non_exhaustive()
    }
}

impl Report {
    /// The report of `findings`.
    pub fn of(findings: Vec<Finding>) -> Self {
        let mut report = Self::default();
        report.add(findings);
        report
    }

    /// Takes more of them in, for example those of another day.
    pub fn add(&mut self, findings: Vec<Finding>) {
        let report = self;
        for finding in findings {
            let name = finding.verdict.as_str();
            let count = |sums: &mut Sums| *sums.entry(name).or_default() += 1;
            count(&mut report.sums);
            count(report.by_day.entry(finding.begun_at.strftime("%Y-%m-%d").to_string()).or_default());
            count(report.by_location.entry(finding.location.clone().unwrap_or_default()).or_default());
            count(report.by_user.entry(finding.user.clone().unwrap_or_default()).or_default());
            if let Some(by) = finding.joined_by {
                *report.joined_by.entry(by.as_str()).or_default() += 1;
            }
            let is_well = matches!(finding.verdict, Verdict::Recorded | Verdict::NotKept | Verdict::Awaited);
            if !is_well && report.findings.len() < FINDINGS_MAX {
                report.findings.push(finding);
            }
        }
    }

    /// Calls of a verdict.
    pub fn count(&self, verdict: &str) -> u64 {
        self.sums.get(verdict).copied().unwrap_or(0)
    }

    /// The calls that it names as comma-separated values (RFC 4180), with a head.
    pub fn csv(&self) -> String {
        let mut csv =
            "verdict,begun_at,duration_ms,missing_ms,rule,joined_by,recordings,local_call_id,user,location\r\n"
                .to_owned();
        for finding in &self.findings {
            let missing_ms = match finding.verdict {
                Verdict::Short { missing_ms } => missing_ms.to_string(),
                _ => String::new(),
            };
            let rule = match &finding.verdict {
                Verdict::Filtered { rule } => quoted(rule),
                _ => String::new(),
            };
            let recordings: Vec<String> = finding.recordings.iter().map(ToString::to_string).collect();
            let cell = |text: &Option<String>| quoted(text.as_deref().unwrap_or_default());
            // Writing to a text never fails.
            let _ = write!(
                csv,
                "{},{},{},{missing_ms},{rule},{},{},{},{},{}\r\n",
                finding.verdict.as_str(),
                finding.begun_at,
                finding.duration_ms,
                finding.joined_by.map(JoinedBy::as_str).unwrap_or_default(),
                recordings.join(" "),
                cell(&finding.local_call_id),
                cell(&finding.user),
                cell(&finding.location),
            );
        }
        csv
    }
}

/// A cell. What a spreadsheet would take for a formula gets an apostrophe before it: names are whatever people call themselves.
fn quoted(text: &str) -> String {
    let text = match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

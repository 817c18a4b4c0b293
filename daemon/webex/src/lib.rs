//! What callvault decides about Webex: which call detail records tell of a call that should be held here, whether it is, and what is to
//! be said of it; what a synchronisation of users would change; when a token is used, renewed or given up; how pages are walked.
//!
//! It is pure: no clock, no randomness, no files, no network, no database. Answers of Webex come in as bytes, time as an argument. What it
//! reads was written by somebody else, so every field may be missing, new ones are passed over, and nothing in it is believed to be short.
//!
//! `Debug` of what it holds shows no numbers, names, addresses or tokens, and neither do its errors.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod completeness;
mod page;
mod person;
mod picture;
mod record;
mod report;
mod rules;
mod schedule;
mod sync;
mod token;

pub use callvault_directory::NumberingPlan;
pub use completeness::{
    CompletenessSettings, Finding, Held, HeldState, JoinedBy, SETTLE_MS, SKEW_MS, TOLERANCE_MS, Verdict, join,
};
pub use page::{FAILURES_MAX, PAGES_MAX, PageAnswer, Step, WAIT_MS_MAX, Walk, WalkError};
pub use person::{Gathered, Kind, Person, Phone, RecordingSettings};
pub use picture::{PICTURE_BYTES_MAX, Picture, PictureError, PictureKind};
pub use record::{RECORDS_MAX, Record, RecordError, RecordingResult, read_page};
pub use report::{FINDINGS_MAX, Report, Sums};
pub use rules::{Rule, Rules, Source};
pub use schedule::last_due;
pub use sync::{SyncError, SyncPlan, SyncSettings, Unknown, plan};
pub use token::{Authorisation, Dead, Grant, Next, Renewal};

//! The users of the organisation: who a recording can belong to, which rights each has, and which groups; how a file becomes users; whose a
//! call is; and which numbers are the organisation's own.
//!
//! It is pure: no clock, no randomness, no files, no database. The catalogue keeps users, sealed; what is here is what they are.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod fields;
mod import;
mod numbers;
mod pattern;
mod picture;
mod plan;
mod snapshot;
mod user;

pub use fields::{FIELDS, Field};
pub use import::{FileForm, Imported, LineError, USERS_MAX, read};
pub use numbers::{Number, NumberingPlan};
pub use pattern::{Pattern, PatternError};
pub use picture::PictureForm;
pub use plan::{Plan, PlanCounts};
pub use snapshot::{Directory, Found, MatchedBy, Names};
pub use user::{Level, RecordingMode, User, groups_in};

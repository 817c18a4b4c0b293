//! The users of the organisation: who a recording can belong to, which rights each has, and which groups.
//!
//! It is pure: no clock, no randomness, no files, no database. The catalogue keeps users, sealed; what is here is what they are.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod user;

pub use user::{Level, RecordingMode, User, groups_in};

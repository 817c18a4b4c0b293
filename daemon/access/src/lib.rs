//! Who asks, and what they may do.
//!
//! It is pure: no clock, no randomness, no files, no database.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod caller;

pub use caller::{Caller, Through};
pub use callvault_directory::Level;

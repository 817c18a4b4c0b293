//! Who asks, what they may do, and what is remembered of it.
//!
//! | level | may, on | what |
//! |---|---|---|
//! | record only | own live calls | see, pause, resume, stop, start, keep |
//! | base | own recordings too | find, show, play, notes, tags; download, delete, preserve as the settings say |
//! | group supervisor | those of the own group and the additional groups too | the same |
//! | administrator | everything | the same, and all that is about the appliance |
//!
//! A group supervisor without a group of their own counts as base. What belongs to a user without a group is the user's and
//! administrators' alone, what belongs to nobody administrators'. `delete`, `download` and `preserve` are open to a level and those
//! above it, as the settings say, or to nobody, administrators included. Nobody deletes or lets go what somebody of a higher level
//! preserved, and nobody changes a note that somebody of a higher level wrote.
//!
//! All of that is [`decide()`], and nowhere else. It is pure: no clock, no randomness, no files, no database.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod action;
pub mod audit;
mod caller;
mod decide;
pub mod password;
mod visible;

pub use action::{Action, Scope};
pub use caller::{Caller, Through};
pub use callvault_directory::Level;
pub use decide::{On, Owned, Permissions, Refusal, WhoMay, decide, outranks, visible};
pub use visible::Visible;

//! Tests of the parts together: a journal as a recorder writes it, catalogue, queue and store in a temporary folder, and the steps
//! of the daemon one by one. Starting and crashing are opening and dropping.

#![allow(clippy::unwrap_used)]

mod access;
mod annotating;
mod archives;
mod clocks;
mod elsewhere;
mod failing_files;
mod importing;
mod ingesting;
mod mailing;
mod order;
mod overload;
mod promises;
mod recovering;
mod rendering;
mod retention;
mod rig;
mod settings;
mod sign_in;
mod truth;
mod users;
mod webex;

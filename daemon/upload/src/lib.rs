//! Delivering recordings to others after the call: Voice Analytics, a web server of one's own, a folder.
//!
//! It decides what the next step of a delivery is, speaks HTTP, and says what came of it. It deliberately has no queue, no
//! catalogue, no wall clock and no settings file: the caller lends a thread, says what is to be delivered, gives the audio as
//! something that can be read from its beginning more than once, and remembers what it is told to remember ([`Ledger`]). Calls
//! block for as long as the other side takes, within time-outs that are given.
//!
//! # Two halves
//!
//! Pure, tested by themselves: [`Delivery`] (the steps of Voice Analytics), [`Meaning`] (what an answer means), [`Gate`] (pauses and
//! the rate of a sink), the documents that are sent ([`Call`]), signatures ([`signature`]). Drivers: [`Analytics`], [`Webhook`],
//! [`Folder`].
//!
//! # Audio that is never on a disk
//!
//! MD5, SHA-256 and length must be said before the audio is sent, so it is read twice: once to be counted and hashed, once to be
//! sent. What is no longer than [`KEPT_BYTES_MAX`] stays in memory in between; what is longer is made a second time, and unless
//! that gives the same bytes the last of them is held back and the request is broken off, so that nothing else than what was
//! announced is ever complete on the other side.
//!
//! # What is guaranteed
//!
//! A delivery that is not known to have succeeded is made again. Where the other side keeps to its part that is the same as once: the
//! same URL is put to with the same bytes, the same idempotency key is posted, the same file is replaced. See each driver.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod analytics;
mod answer;
mod audio;
mod body;
mod call;
mod fetch;
mod folder;
mod gate;
mod secrets;
mod steps;
mod token;
mod trouble;
mod web;
mod webhook;

pub use analytics::{Analytics, AnalyticsSettings, Ledger};
pub use answer::{Answer, Created, Meaning, RETRY_AFTER_MS_MAX, Token, meaning};
pub use audio::{AUDIO_BYTES_MAX, Audio, KEPT_BYTES_MAX, Prepared};
pub use call::{Call, Direction, Party, Traffic};
pub use fetch::{FetchError, Fetched};
pub use folder::{Folder, IDENTITY_NAME};
pub use gate::{Gate, PAUSE_MS_MAX, PAUSE_MS_MIN};
pub use secrets::{SECRET_BYTES_MAX, SecretFile, SecretText};
pub use steps::{Action, Begun, Delivery, REFUSALS_MAX};
pub use token::{Tokens, encoded};
pub use trouble::Trouble;
pub use web::{Web, WebSettings, check_url};
pub use webhook::{Webhook, WebhookSettings, signature};

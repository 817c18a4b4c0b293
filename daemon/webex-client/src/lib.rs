//! Speaking with Webex: authorising, renewing, walking through its lists, fetching pictures and call detail records.
//!
//! What an answer means and what is done next is decided by `callvault-webex`; this asks, waits and hands over. It has no clock, no catalogue
//! and no settings file: what it needs of the appliance is lent ([`Outside`]), and calls block for as long as the other side takes, within
//! the time-outs of its settings. Only what answers `GET` is asked for, and the address that gives out tokens: nothing is ever changed there.
//!
//! # Tokens
//!
//! A token that was received is handed to [`Outside::keep`] before it is used, and what was there before is let go only when that has
//! said that it is on the device. Asking for one, and storing it, is one thread's work at a time.
//!
//! # Secrets
//!
//! Tokens go to the addresses of the settings, and to the pages that these name on the same machine; never to where a picture is. Errors are
//! sentences of our own, with nothing in them of what was asked or answered.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod authorising;
mod fault;
mod gather;
mod records;
mod walking;

pub use authorising::{Access, authorise_url, code_in};
pub use callvault_upload::{SecretFile, WebSettings};
pub use fault::Fault;
pub use gather::{Asked, Known, PEOPLE_MAX, RECORDING_BELIEVED_S};
pub use records::{FEED_BACK_MS, FEED_WINDOW_MS, Feed, STREAM_BACK_MS, STREAM_WINDOW_MS, windows};

use callvault_upload::Web;
use callvault_webex::Grant;
use jiff::Timestamp;

/// Where Webex is, and as whom it is asked.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The base of its addresses, for example `https://webexapis.com/v1`.
    pub url: String,
    /// The base of the addresses of call detail records.
    pub records_url: String,
    /// The integration's or Service App's id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretFile,
    /// Where the answer of an authorisation comes back to, as it is registered with the integration.
    pub redirect_url: String,
    /// What is asked for, separated by blanks.
    pub scopes: String,
    /// Ids of organisations; the administrator's own when empty.
    pub organisations: Vec<String>,
    /// Whether workspaces are read.
    pub workspaces: bool,
    /// Whether virtual lines are read.
    pub virtual_lines: bool,
    /// Whether it is read how each is recorded.
    pub wants_recording: bool,
    /// How it is reached.
    pub web: WebSettings,
}

/// What is lent by the appliance.
pub struct Outside<'a> {
    /// The clock.
    pub now: &'a dyn Fn() -> Timestamp,
    /// Sleeps for so many milliseconds; false when the appliance stops.
    pub pause: &'a dyn Fn(u64) -> bool,
    /// Whether the appliance stops.
    pub stopping: &'a dyn Fn() -> bool,
    /// Puts a grant on the device, sealed, in the place of the one before.
    pub keep: &'a dyn Fn(&Grant) -> Result<(), String>,
}

/// A client, for one thread.
pub struct Client {
    settings: ClientSettings,
    web: Web,
}

impl Client {
    /// One by these settings. The files that they name are read now, but for the secret, which is read when it is needed.
    ///
    /// # Errors
    /// [`Fault::Settings`].
    pub fn new(settings: ClientSettings) -> Result<Self, Fault> {
        let web = Web::new(&settings.web).map_err(|trouble| Fault::Settings(trouble.to_string()))?;
        Ok(Self { settings, web })
    }
}

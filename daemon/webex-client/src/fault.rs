//! Why something was not had from Webex.

use callvault_upload::FetchError;
use callvault_webex::{Dead, WalkError};

/// Why something was not had. The texts are for an administrator: what is wrong and what to do, without personal data or secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody has authorised yet.
    #[error("Webex has not been authorised yet: an administrator authorises with `callvaultctl webex authorise`")]
    NotAuthorised,
    /// The authorisation is dead.
    #[error("{0}")]
    Dead(Dead),
    /// Webex answered, and not as it should.
    #[error("{0}")]
    Walk(WalkError),
    /// There is no way to it.
    #[error(
        "Webex cannot be reached ({0}): look at the network, the name server, webex.proxy and webex.ca; it is tried again by itself, and calls are recorded meanwhile"
    )]
    Unreachable(String),
    /// An answer that is not what it must be.
    #[error("{0}; it is tried again by itself")]
    Form(&'static str),
    /// A token could not be put on the device, so it is not used.
    #[error("{0}")]
    Keep(String),
    /// A file that the settings name, or a setting.
    #[error("{0}")]
    Settings(String),
    /// What an administrator pasted, or what came back to the redirect, is no answer of an authorisation, or a refusal.
    #[error("{0}")]
    Answer(&'static str),
    /// The appliance stops.
    #[error("go on: the daemon is stopping")]
    Stopping,
}

impl Fault {
    /// Whether only an administrator can mend it: it does not pass by itself.
    pub fn needs_somebody(&self) -> bool {
        match self {
            Self::NotAuthorised | Self::Dead(_) | Self::Settings(_) | Self::Answer(_) => true,
            Self::Walk(error) => matches!(error, WalkError::Unauthorised | WalkError::Forbidden),
            Self::Unreachable(_) | Self::Form(_) | Self::Keep(_) | Self::Stopping => false,
        }
    }
}

impl From<FetchError> for Fault {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Stopping => Self::Stopping,
            FetchError::TooLong(_) => Self::Form("an answer of Webex is longer than any should be"),
            FetchError::Unreachable(text) | FetchError::Broken(text) => Self::Unreachable(text),
        }
    }
}

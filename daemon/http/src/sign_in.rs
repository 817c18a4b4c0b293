//! What the portal asks for its visitors: to sign in.

use std::{fmt, os::unix::net::UnixStream};

use callvault_seal::Secret;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::Deserialize;

use crate::{ApiError, ErrorKind, route::json_in};

/// Bytes of a name or a password that are looked at.
const TEXT_BYTES_MAX: usize = 1_024;

/// Who may speak through a listener, and as whom.
pub enum Entrance {
    /// Programs and people with tokens, the operator among them, whose token this is. An empty one is nobody's.
    Operator(Secret<String>),
    /// The portal alone: processes of these users. It says where its visitors speak from, which is believed, and is nobody by itself:
    /// without a session there is nothing to be had but to sign in.
    Portal(Vec<u32>),
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator(_) => "Operator",
            Self::Portal(_) => "Portal",
        })
    }
}

/// Whether the process at the other end of `stream` is of one of these users.
pub(crate) fn is_of(stream: &UnixStream, users: &[u32]) -> bool {
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| users.contains(&peer.uid()))
}

/// Somebody who wants to sign in. `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The Webex e-mail, in any case.
    pub user: String,
    /// The password.
    pub password: String,
    /// The one to be used from now on, if it is to be another; a first password has to be changed.
    #[serde(default)]
    pub new_password: Option<String>,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignIn")
    }
}

/// A step of signing in at the organisation's provider instead of with a password. `Debug` shows which step, and nothing more.
#[derive(Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// Whether that is offered.
    Offered,
    /// Where to send the browser.
    Begin,
    /// It has come back.
    Finish(CameBack),
}

impl fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offered => "Offered",
            Self::Begin => "Begin",
            Self::Finish(_) => "Finish",
        })
    }
}

/// With what a browser comes back.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameBack {
    /// What the beginning gave, from the browser's cookie.
    pub attempt: String,
    /// The provider's answer: the state.
    pub state: String,
    /// And the code.
    pub code: String,
}

/// `POST /v1/sign-in/finish`.
pub(crate) fn came_back(body: &[u8]) -> Result<Elsewhere, ApiError> {
    let back: CameBack = json_in(body)?;
    // a provider's code may be a whole token
    if back.code.len() > 4 * TEXT_BYTES_MAX
        || [&back.attempt, &back.state].iter().any(|text| text.len() > TEXT_BYTES_MAX)
    {
        return Err(ApiError::new(ErrorKind::BadRequest, "what a provider gives is shorter"));
    }
    Ok(Elsewhere::Finish(back))
}

/// `POST /v1/sign-in`.
pub(crate) fn sign_in(body: &[u8]) -> Result<SignIn, ApiError> {
    let mut wanted: SignIn = json_in(body)?;
    let new = wanted.new_password.as_ref().map_or(0, String::len);
    if [wanted.user.len(), wanted.password.len(), new].into_iter().any(|bytes| bytes > TEXT_BYTES_MAX) {
        return Err(ApiError::new(ErrorKind::BadRequest, "names and passwords have at most 1024 bytes"));
    }
    wanted.user = wanted.user.trim().to_lowercase();
    Ok(wanted)
}

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

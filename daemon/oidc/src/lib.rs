//! Signing in with OpenID Connect (Core 1.0): the authorisation code flow with PKCE (RFC 7636), state and nonce. Decisions alone: no network, no
//! clock, no files; bytes, time and randomness come in as arguments.
//!
//! ```text
//! Attempt::new ─▶ authorization_url ─▶ browser ─▶ provider ─▶ browser ─▶ state, code
//!    token_form ─▶ provider ─▶ id_token_in ─▶ verify (with the provider's Keys) ─▶ whose e-mail that is
//! ```
//!
//! What is believed is the ID token alone, and of it nothing before its signature: made with a key that the provider publishes, by an
//! asymmetric algorithm that is listed here; said by that provider, to us, for this attempt, just now.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attempt;
mod keys;
mod provider;
mod token;

pub use attempt::{ATTEMPT_SECONDS_MAX, Attempt, Client, token_form};
pub use keys::{KEYS_MAX, Keys};
pub use provider::{ANSWER_BYTES_MAX, Provider, discovery_url};
pub use token::{Expected, LEEWAY_S, TOKEN_BYTES_MAX, id_token_in, verify};

/// Why nobody is signed in. Holds nothing of tokens, names and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The provider's description of itself cannot be used.
    #[error("use the provider's description of itself: {0}")]
    Provider(&'static str),
    /// Its keys cannot be used.
    #[error("use the provider's keys: {0}")]
    Keys(&'static str),
    /// What it gave for the code is no token.
    #[error("read what the provider gave for the code: {0}")]
    Answer(&'static str),
    /// The token is signed with a key that is not among those known: they may have changed.
    #[error("find the key that the token is signed with")]
    UnknownKey,
    /// The token is not one that may be believed.
    #[error("believe the provider's token: {0}")]
    Token(&'static str),
}

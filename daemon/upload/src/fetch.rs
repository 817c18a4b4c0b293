//! Asking others for something, by whoever is no delivery: lists, tokens, pictures.

use crate::token::encoded;
use crate::web::NoAnswer;
use crate::{Trouble, Web};

/// What came. `Debug` shows the status alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The status code.
    pub status: u16,
    /// The headers `Link` (RFC 8288), joined by commas.
    pub link: Option<String>,
    /// The header `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Why nothing came. The texts hold neither addresses nor anything that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No connection.
    #[error("{0}")]
    Unreachable(String),
    /// There was one, and then nothing came of it.
    #[error("{0}")]
    Broken(String),
    /// The answer has more bytes than this, or no end.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// We are stopping.
    #[error("go on: the daemon is stopping")]
    Stopping,
}

impl From<NoAnswer> for FetchError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Unreachable(text) => Self::Unreachable(text),
            NoAnswer::Broken(text) => Self::Broken(text),
            NoAnswer::TooLong(bytes_max) => Self::TooLong(bytes_max),
            NoAnswer::Ours(Trouble::Stopping) => Self::Stopping,
            NoAnswer::Ours(trouble) => Self::Broken(trouble.to_string()),
        }
    }
}

impl Web {
    /// Gets what is at `url`, with a bearer token (RFC 6750) if one is given: an answer with any status, its body of at most `bytes_max`.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn get(
        &self,
        url: &str,
        bearer: Option<&str>,
        bytes_max: usize,
        stopping: &dyn Fn() -> bool,
    ) -> Result<Fetched, FetchError> {
        let request = self.client.get(url);
        let request = if let Some(bearer) = bearer { request.bearer_auth(bearer) } else { request };
        Ok(self.exchange(request, bytes_max, stopping)?)
    }

    /// Posts a form (`application/x-www-form-urlencoded`) to `url`: as [`Web::get`].
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn post_form(
        &self,
        url: &str,
        fields: &[(&str, &str)],
        bytes_max: usize,
        stopping: &dyn Fn() -> bool,
    ) -> Result<Fetched, FetchError> {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = self
            .client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(fields.join("&"));
        Ok(self.exchange(request, bytes_max, stopping)?)
    }
}

use std::{io, path::PathBuf};

/// Why the endpoint did not start. The texts fit after "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not an address that it may listen on.
    #[error(
        "listen on {0:?}: expected a loopback address with a port (127.0.0.1:8088, [::1]:8088) or unix:/path; this endpoint has no encryption and must not be reachable from outside"
    )]
    Address(String),
    /// Somebody listens there.
    #[error(
        "listen on {0}: somebody listens there already (`ss -lnp` shows who); stop it, or set http.listen to another"
    )]
    InUse(String),
    /// There is a file that is not a socket.
    #[error("listen on {}: there is a file that is not a socket; move it away", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{what} {place}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        place: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl HttpError {
    pub(crate) fn io(what: &'static str, place: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let place = place.to_string();
        move |source| Self::Io { what, place, source }
    }
}

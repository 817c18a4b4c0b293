//! The way to the daemon: one connection over its Unix socket for each request, as its door wants it.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

/// Time for the daemon to take a connection: it is on this machine.
pub const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Time for it to begin an answer. Sound of a long recording that is read from a slow share takes some seconds to begin.
pub const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Bytes of an answer that is read whole here: a waveform or calls, never a list.
const WHOLE_BYTES_MAX: usize = 4 << 20;

/// The header field that tells the daemon where a visitor speaks from, for its audit log. It believes it on this socket alone.
const FROM: &str = "x-callvault-from";

/// Where the daemon is.
#[derive(Debug, Clone)]
pub struct Daemon {
    socket: PathBuf,
}

/// Why there is no answer. Holds nothing of the request.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Nobody takes the connection.
    #[error("connect to the daemon's socket {0}: {1}")]
    Connect(PathBuf, std::io::Error),
    /// The connection broke.
    #[error("ask the daemon: {0}")]
    Broken(#[from] hyper::Error),
    /// No answer in time.
    #[error("get an answer of the daemon in time")]
    Late,
    /// What was asked cannot be put into a request, or the answer is none.
    #[error("put a request to the daemon into words")]
    Words,
}

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// How.
    pub method: Method,
    /// What, from `/v1/` on, with the query.
    pub target: &'a str,
    /// Who: a session; none to begin one.
    pub session: Option<&'a str>,
    /// From where.
    pub from: IpAddr,
    /// With which body.
    pub body: Bytes,
}

impl Daemon {
    /// The one behind that socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks, and gives the answer as it begins. Its body comes as it is taken, and the daemon makes it no faster.
    ///
    /// # Errors
    /// See [`DaemonError`]. What the daemon refuses is an answer.
    pub async fn ask(&self, question: Question<'_>) -> Result<Response<Incoming>, DaemonError> {
        let connected = timeout(CONNECT_MAX, UnixStream::connect(&self.socket)).await.map_err(|_| DaemonError::Late)?;
        let stream = connected.map_err(|error| DaemonError::Connect(self.socket.clone(), error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // How it ends is seen by whoever reads the answer.
            let _ = connection.await;
        });
        let mut request = Request::builder()
            .method(question.method)
            .uri(question.target)
            .header("host", "callvault")
            .header(FROM, question.from.to_canonical().to_string());
        if let Some(session) = question.session {
            request = request.header("authorization", format!("Bearer {session}"));
        }
        let request = request.body(Full::new(question.body)).map_err(|_| DaemonError::Words)?;
        Ok(timeout(ANSWER_MAX, sender.send_request(request)).await.map_err(|_| DaemonError::Late)??)
    }

    /// Asks, and reads the answer whole.
    ///
    /// # Errors
    /// See [`DaemonError`].
    pub async fn ask_json(&self, question: Question<'_>) -> Result<(StatusCode, Value), DaemonError> {
        let answer = self.ask(question).await?;
        let status = answer.status();
        let body = timeout(ANSWER_MAX, Limited::new(answer.into_body(), WHOLE_BYTES_MAX).collect());
        let bytes = body.await.map_err(|_| DaemonError::Late)?.map_err(|_| DaemonError::Words)?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).map_err(|_| DaemonError::Words)?))
    }
}

/// An answer of the daemon as one of ours: its body is passed on as it comes.
pub fn passed_on(answer: Response<Incoming>) -> Response<Body> {
    let mut passed = Response::new(());
    *passed.status_mut() = answer.status();
    for name in ["content-type", "content-length", "retry-after", "allow"] {
        if let Some(value) = answer.headers().get(name) {
            passed.headers_mut().insert(name, value.clone());
        }
    }
    passed.map(|()| Body::new(answer.into_body()))
}

//! The control endpoint, asked: addresses, token, time-outs, and what each way of failing means for the operator.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use callvault_config::{Config, HttpListen};
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::error::CtlError;
use crate::unix::UnixConnector;

/// Longest time to connect: the endpoint is on this machine.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Longest time for an ordinary question.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Longest time for what reads a whole store, or renders a long call, before the first byte of the answer comes.
const LONG_ANSWER_MAX: Duration = Duration::from_secs(3600);

/// Longest silence within a body.
const READ_MAX: Duration = Duration::from_secs(120);

/// Longest JSON answer: a page of a thousand recordings has about two megabytes.
const JSON_BYTES_MAX: u64 = 64 << 20;

/// Longest error answer that is looked at.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// Longest token file; the token has some dozens of characters.
const TOKEN_BYTES_MAX: u64 = 4096;

/// What is done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// A question to the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: Method,
    path: String,
    /// What it is for; fits after "failed to".
    what: String,
    answer_max: Duration,
    /// JSON, of a request that says more than its path.
    body: String,
}

impl Request {
    pub(crate) fn new(method: Method, path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { method, path: path.into(), what: what.into(), answer_max: ANSWER_MAX, body: String::new() }
    }

    pub(crate) fn get(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Method::Get, path, what)
    }

    /// With this JSON; not of requests with [`Method::Get`] or [`Method::Delete`].
    pub(crate) fn with_body(self, body: &Value) -> Self {
        Self { body: body.to_string(), ..self }
    }

    /// May take long before it answers.
    pub(crate) fn long(self) -> Self {
        Self { answer_max: LONG_ANSWER_MAX, ..self }
    }
}

/// The daemon's control endpoint.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    /// The endpoint as it is told to people.
    at: String,
    token_path: std::path::PathBuf,
}

impl Client {
    pub(crate) fn new(config: &Config, token_file: Option<&Path>) -> Self {
        let settings = Agent::config_builder()
            .http_status_as_error(false)
            // A proxy from the environment has no business between this machine and itself.
            .proxy(None)
            .max_redirects(0)
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_per_read(Some(READ_MAX))
            .user_agent(concat!("callvaultctl/", env!("CARGO_PKG_VERSION")))
            .build();
        let (agent, base) = match &config.http.listen {
            HttpListen::Tcp(address) => (Agent::new_with_config(settings), format!("http://{address}")),
            HttpListen::Unix(path) => {
                let resolver = ureq::unversioned::resolver::DefaultResolver::default();
                (Agent::with_parts(settings, UnixConnector(path.clone()), resolver), "http://127.0.0.1".into())
            }
        };
        Self {
            agent,
            base,
            at: config.http.listen.to_string(),
            token_path: token_file.map_or_else(|| config.control_token_path(), Path::to_path_buf),
        }
    }

    /// Asks and reads a JSON answer.
    pub(crate) fn json(&self, request: &Request) -> Result<Value, CtlError> {
        let (response, _) = self.response(request)?;
        self.read_json(response, request)
    }

    /// `/health`: needs no token, and answers 503 with the same JSON when the appliance is failing.
    pub(crate) fn health(&self) -> Result<Value, CtlError> {
        let request = Request::get("/health", "ask for the appliance's health");
        let response = self.send(&request, None)?;
        match response.status().as_u16() {
            200 | 503 => self.read_json(response, &request),
            _ => Err(self.refusal(response, &request)),
        }
    }

    /// Asks and gives the answer's body with its length, where it is known.
    pub(crate) fn body(&self, request: &Request) -> Result<(Body, Option<u64>), CtlError> {
        let (response, length) = self.response(request)?;
        Ok((response.into_body(), length))
    }

    /// What went wrong while a body was read.
    pub(crate) fn broken_off(&self, what: &str, error: &std::io::Error) -> CtlError {
        CtlError::Refused {
            what: what.to_owned(),
            message: format!("the answer broke off ({error}); callvaultd's log says why, try again"),
        }
    }

    fn response(&self, request: &Request) -> Result<(Response<Body>, Option<u64>), CtlError> {
        let token = self.token()?;
        let response = self.send(request, Some(&token))?;
        if !response.status().is_success() {
            return Err(self.refusal(response, request));
        }
        let length = response.headers().get("content-length").and_then(|v| v.to_str().ok()?.parse().ok());
        Ok((response, length))
    }

    fn send(&self, request: &Request, token: Option<&str>) -> Result<Response<Body>, CtlError> {
        let url = format!("{}{}", self.base, request.path);
        let bearer = token.map(|token| format!("Bearer {token}"));
        macro_rules! call {
            ($builder:expr, $send:ident $(, $argument:expr)?) => {{
                let mut builder = $builder.config().timeout_recv_response(Some(request.answer_max)).build();
                if let Some(bearer) = &bearer {
                    builder = builder.header("Authorization", bearer);
                }
                builder.$send($($argument)?)
            }};
        }
        match request.method {
            Method::Get => call!(self.agent.get(&url), call),
            Method::Delete => call!(self.agent.delete(&url), call),
            // With a body, even if empty: a length is stated, and nothing is sent in pieces.
            Method::Post => call!(self.agent.post(&url), send, request.body.as_bytes()),
            Method::Put => call!(self.agent.put(&url), send, request.body.as_bytes()),
            Method::Patch => call!(self.agent.patch(&url), send, request.body.as_bytes()),
        }
        .map_err(|error| self.unreachable(&error, request))
    }

    fn read_json(&self, response: Response<Body>, request: &Request) -> Result<Value, CtlError> {
        let mut text = Vec::new();
        let answer = |detail: String| CtlError::Answer { what: request.what.clone(), detail };
        response
            .into_body()
            .into_with_config()
            .limit(JSON_BYTES_MAX)
            .reader()
            .read_to_end(&mut text)
            .map_err(|error| self.broken_off(&request.what, &error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text).map_err(|error| answer(format!("not JSON: {error}")))
    }

    fn token(&self) -> Result<String, CtlError> {
        let path = self.token_path.display().to_string();
        let mut text = String::new();
        let read =
            std::fs::File::open(&self.token_path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
        match read {
            Ok(_) if text.trim().is_empty() || text.trim().contains(char::is_whitespace) => {
                let reason = "it does not hold a token; stop callvaultd, remove the file and start it again";
                Err(CtlError::Token { path, reason: reason.into() })
            }
            Ok(_) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(CtlError::Unreachable {
                at: self.at.clone(),
                reason: format!(
                    "there is no token {path}, which it makes when it starts; start it with `systemctl start callvaultd`, or name the configuration that it runs with: --config FILE"
                ),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let reason = "permission denied; run callvaultctl as root or as the user that callvaultd runs as";
                Err(CtlError::Token { path, reason: reason.into() })
            }
            Err(error) => Err(CtlError::Token { path, reason: error.to_string() }),
        }
    }

    /// The daemon's refusal in its own words, with a hint where there is one.
    fn refusal(&self, response: Response<Body>, request: &Request) -> CtlError {
        let status = response.status();
        let mut text = Vec::new();
        // What cannot be read of an error is told by its status alone.
        let _ = response.into_body().into_with_config().limit(ERROR_BYTES_MAX).reader().read_to_end(&mut text);
        let error: Value = serde_json::from_slice(&text).unwrap_or_default();
        let said = error["error"]["message"].as_str().filter(|said| !said.is_empty());
        let message = match (status.as_u16(), said) {
            (401, said) => format!(
                "the token in {} was refused: {}. Does callvaultd run with another configuration? name it with --config FILE",
                self.token_path.display(),
                said.map_or_else(|| "no reason was given".to_owned(), crate::table::harmless)
            ),
            (404, None) => "there is no such thing".into(),
            (_, Some(said)) => crate::table::harmless(said),
            (code, None) => format!("callvaultd answered {code} {}", status.canonical_reason().unwrap_or_default()),
        };
        CtlError::Refused { what: request.what.clone(), message }
    }

    fn unreachable(&self, error: &ureq::Error, request: &Request) -> CtlError {
        let start =
            "start it with `systemctl start callvaultd`, or name the configuration that it runs with: --config FILE";
        let reason = match error {
            ureq::Error::Io(error) => match error.kind() {
                std::io::ErrorKind::ConnectionRefused => format!("nothing listens there; {start}"),
                std::io::ErrorKind::NotFound => format!("there is no such socket; {start}"),
                std::io::ErrorKind::PermissionDenied => {
                    "permission denied; run callvaultctl as root or as the user that callvaultd runs as".into()
                }
                _ => format!("{error}; see its log: journalctl -u callvaultd"),
            },
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                format!(
                    "no answer within {} s; it is stuck or overloaded: see journalctl -u callvaultd",
                    CONNECT_MAX.as_secs()
                )
            }
            ureq::Error::Timeout(_) => {
                format!(
                    "no answer within {} s; it is stuck or overloaded: see `callvaultctl status` and journalctl -u callvaultd",
                    request.answer_max.as_secs()
                )
            }
            ureq::Error::ConnectionFailed => format!("the connection failed; {start}"),
            other => format!("{other}; is it callvaultd that listens there?"),
        };
        CtlError::Unreachable { at: self.at.clone(), reason }
    }
}

/// A part of a path or a query, escaped so that it stays one part (RFC 3986, 2.3).
pub(crate) fn escaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// A path with the parameters that have a value.
pub(crate) fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given: Vec<String> = parameters
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", escaped(value))))
        .collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_stays_one_part_of_the_address() {
        let check = |part: &str, expected: &str| assert_eq!(escaped(part), expected);
        check("archive:0199-ab", "archive%3A0199-ab");
        check("../../health?x=1&y#z", "..%2F..%2Fhealth%3Fx%3D1%26y%23z");
        check("+44 20", "%2B44%2020");
        check("é\r\n", "%C3%A9%0D%0A");
        assert_eq!(
            with_query("/p", &[("a", None), ("b", Some("1&2".into())), ("c", Some("x".into()))]),
            "/p?b=1%262&c=x"
        );
        assert_eq!(with_query("/p", &[("a", None)]), "/p");
    }
}

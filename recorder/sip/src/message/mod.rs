//! Messages: what was received, and what is to be sent.

mod fields;
mod headers;
mod parse;
mod stream;
mod uri;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use fields::{CSeq, NameAddr, Params, Via};
pub use headers::{Field, Headers};
pub(crate) use headers::{latin1, one_line, split_list};
pub use parse::parse_datagram;
pub(crate) use parse::{is_token, parse_part_headers, salvage};
pub use stream::{StreamFault, StreamItem, StreamParser};
pub use uri::Uri;

/// A request's method. Case matters (RFC 3261 section 7.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Method {
    /// Opens a session, or changes it.
    Invite,
    /// Confirms the final answer to an INVITE.
    Ack,
    /// Ends a session.
    Bye,
    /// Withdraws a request that is not answered yet.
    Cancel,
    /// Asks whether we are there and what we can do.
    Options,
    /// Changes a session without a three-way handshake (RFC 3311).
    Update,
    /// Carries something of the application (RFC 6086).
    Info,
    /// Anything else.
    Other(String),
}

impl Method {
    /// The method with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "INVITE" => Self::Invite,
            "ACK" => Self::Ack,
            "BYE" => Self::Bye,
            "CANCEL" => Self::Cancel,
            "OPTIONS" => Self::Options,
            "UPDATE" => Self::Update,
            "INFO" => Self::Info,
            other => Self::Other(other.to_owned()),
        }
    }

    /// Its name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Update => "UPDATE",
            Self::Info => "INFO",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A deviation that was forgiven while reading a message, to be noted on the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MessageFlaw {
    /// A line of the header section is no header field; it was skipped.
    HeaderLine,
    /// A header value is not UTF-8; it was read as Latin-1.
    HeaderNotUtf8,
    /// Content-Length is no number or contradicts itself; the whole rest of the datagram was taken as the body.
    ContentLengthMalformed,
    /// A datagram holds more than Content-Length says; the rest was dropped (RFC 3261 section 18.3).
    BytesBehindBody,
    /// A datagram ends within the header section.
    HeaderSectionUnterminated,
    /// The interval of the session timer is smaller than we agree to, and the client cannot be asked for a larger one.
    SessionIntervalTooSmall,
}

impl MessageFlaw {
    /// The flaw's name for records and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HeaderLine => "sip-header-line",
            Self::HeaderNotUtf8 => "sip-header-not-utf8",
            Self::ContentLengthMalformed => "sip-content-length-malformed",
            Self::BytesBehindBody => "sip-bytes-behind-body",
            Self::SessionIntervalTooSmall => "sip-session-interval-too-small",
            Self::HeaderSectionUnterminated => "sip-header-section-unterminated",
        }
    }
}

/// A SIP request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Of whom (Request-URI).
    pub uri: Uri,
    /// The header fields, without Content-Length.
    pub headers: Headers,
    /// The body; empty when there is none.
    pub body: Vec<u8>,
    /// What was forgiven while reading, each kind once; empty for a request of our own.
    pub flaws: Vec<MessageFlaw>,
}

impl Request {
    /// A request without header fields.
    #[must_use]
    pub fn new(method: Method, uri: &str) -> Self {
        let uri = Uri::parse(uri);
        Self { method, uri, headers: Headers::new(), body: Vec::new(), flaws: Vec::new() }
    }

    /// The request on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(&format!("{} {} SIP/2.0", self.method, self.uri), &self.headers, &self.body)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {:?} + {} bytes", self.method, self.uri, self.headers, self.body.len())
    }
}

/// A SIP response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, 100 to 699.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: String,
    /// The header fields, without Content-Length.
    pub headers: Headers,
    /// The body; empty when there is none.
    pub body: Vec<u8>,
    /// What was forgiven while reading, each kind once; empty for a response of our own.
    pub flaws: Vec<MessageFlaw>,
}

impl Response {
    /// A response without header fields. Line ends in `reason` become spaces.
    #[must_use]
    pub fn new(status: u16, reason: &str) -> Self {
        let reason = one_line(reason);
        Self { status, reason, headers: Headers::new(), body: Vec::new(), flaws: Vec::new() }
    }

    /// The response on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(&format!("SIP/2.0 {} {}", self.status, self.reason), &self.headers, &self.body)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} + {} bytes", self.status, self.headers, self.body.len())
    }
}

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

impl Message {
    /// The header fields of either.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    /// The message on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }
}

/// Writes a message; the one Content-Length is that of the body.
fn to_bytes(start_line: &str, headers: &Headers, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 + body.len());
    out.extend_from_slice(start_line.as_bytes());
    out.extend_from_slice(b"\r\n");
    for field in headers.fields().iter().filter(|field| !field.is("Content-Length")) {
        field.write_to(&mut out);
    }
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out
}

//! The head of a request, as the front takes it: strictly, because everything that is odd here is an attack or a mistake.

use crate::imports::PIECE_BODY_BYTES_MAX;

/// Bytes of a request's line and header fields together.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// Header fields of a request.
pub const HEADERS_MAX: usize = 64;

/// Bytes of a request's body. No request of this API needs one; this is room for those to come.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// The same of an import of users: a hundred thousand of them in a file.
pub const IMPORT_BYTES_MAX: usize = 32 << 20;

/// Most bytes of the body that brings a user's picture: the largest that can be allowed (`directory.picture_max`), in base64.
const PICTURE_BODY_BYTES_MAX: usize = 1 << 20;

/// What of a head is used; everything else a client sends is dropped here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// As it came: it is compared, never shown.
    pub(crate) method: String,
    /// Path and query, in visible ASCII, begun with `/`.
    pub(crate) target: String,
    /// HTTP/1.1 (true) or 1.0.
    pub(crate) persistent: bool,
    /// What follows `Bearer`.
    pub(crate) token: Option<String>,
    /// Where the portal says that its visitor speaks from.
    pub(crate) from: Option<std::net::IpAddr>,
    /// Bytes of the body.
    pub(crate) body_bytes: usize,
}

impl Head {
    /// Whether its body is one that strangers may not even send.
    pub(crate) fn is_large(&self) -> bool {
        self.body_bytes > BODY_BYTES_MAX
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }
}

/// Why a head is refused: status, code, text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) text: &'static str,
}

const fn refusal(status: u16, code: &'static str, text: &'static str) -> Refusal {
    Refusal { status, code, text }
}

pub(crate) const TOO_LATE: Refusal = refusal(408, "timeout", "the request did not come to its end in time");
pub(crate) const HEAD_TOO_LARGE: Refusal = refusal(431, "head-too-large", "the request's head is too large");
const MALFORMED: Refusal = refusal(400, "bad-request", "this is no HTTP/1.1 request");
const VERSION: Refusal = refusal(505, "version", "only HTTP/1.1 and HTTP/1.0 are spoken here");
const TRANSFER: Refusal = refusal(501, "not-implemented", "Transfer-Encoding is not accepted; send a Content-Length");
const BODY_TOO_LARGE: Refusal = refusal(413, "body-too-large", "the request's body may have at most 65536 bytes");
const EXPECT: Refusal = refusal(417, "expectation", "Expect is not supported");

/// Where the head in `bytes` ends, its empty line included.
pub(crate) fn end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a head, its empty line included.
pub(crate) fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| MALFORMED)?;
    let text = text.strip_suffix("\r\n\r\n").ok_or(MALFORMED)?;
    let mut lines = text.split("\r\n");
    let mut head = request_line(lines.next().ok_or(MALFORMED)?)?;
    let mut length = None;
    for (n, line) in lines.enumerate() {
        if n >= HEADERS_MAX {
            return Err(HEAD_TOO_LARGE);
        }
        let (name, value) = field(line)?;
        match name.to_ascii_lowercase().as_str() {
            "transfer-encoding" => return Err(TRANSFER),
            "expect" => return Err(EXPECT),
            "content-length" if length.is_some() => return Err(MALFORMED),
            "content-length" => length = Some(content_length(value, body_bytes_max(&head.target))?),
            "authorization" if head.token.is_some() => return Err(MALFORMED),
            "x-callvault-from" if head.from.is_some() => return Err(MALFORMED),
            "x-callvault-from" => head.from = Some(value.parse().map_err(|_| MALFORMED)?),
            "authorization" => head.token = bearer(value),
            _ => {}
        }
    }
    head.body_bytes = length.unwrap_or(0);
    Ok(head)
}

fn request_line(line: &str) -> Result<Head, Refusal> {
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(MALFORMED);
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(MALFORMED);
    }
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(MALFORMED);
    }
    let persistent = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        other if other.starts_with("HTTP/") => return Err(VERSION),
        _ => return Err(MALFORMED),
    };
    Ok(Head { method: method.into(), target: target.into(), persistent, token: None, from: None, body_bytes: 0 })
}

/// RFC 9112 section 5: no folding, nothing between name and colon.
fn field(line: &str) -> Result<(&str, &str), Refusal> {
    let (name, value) = line.split_once(':').ok_or(MALFORMED)?;
    let controls = value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
    if name.is_empty() || !name.bytes().all(is_token) || controls {
        return Err(MALFORMED);
    }
    Ok((name, value.trim_matches([' ', '\t'])))
}

/// Most bytes that a body of a request for this may have.
fn body_bytes_max(target: &str) -> usize {
    match target.split('?').next() {
        Some("/v1/users/import") => IMPORT_BYTES_MAX,
        Some(path) if path.starts_with("/v1/users/") && path.ends_with("/picture") => PICTURE_BODY_BYTES_MAX,
        Some(path) if path.starts_with("/v1/imports/") && path.ends_with("/audio") => PIECE_BODY_BYTES_MAX,
        _ => BODY_BYTES_MAX,
    }
}

fn content_length(value: &str, max: usize) -> Result<usize, Refusal> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MALFORMED);
    }
    // digits that do not fit are as much too large as digits that do
    match value.parse() {
        Ok(bytes) if bytes <= max => Ok(bytes),
        _ => Err(BODY_TOO_LARGE),
    }
}

fn bearer(value: &str) -> Option<String> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_are_read_strictly() {
        let check = |text: &str, status: u16| {
            let found = parse(text.as_bytes()).map_or_else(|refusal| refusal.status, |_| 200);
            assert_eq!(found, status, "{text:?}");
        };
        check("GET / HTTP/1.1\r\n\r\n", 200);
        check("GET /a?b=c HTTP/1.0\r\nHost: x\r\nX:\r\n\r\n", 200);
        check("POST / HTTP/1.1\r\nContent-Length: 65536\r\n\r\n", 200);
        check("POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 413);
        check("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413);
        check("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\nContent-Length: \r\n\r\n", 400);
        check("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 501);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\n", 501);
        check("POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\nA: b\r\n Transfer-Encoding: chunked\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", 417);
        check("GET  / HTTP/1.1\r\n\r\n", 400);
        check("GET / HTTP/1.1 \r\n\r\n", 400);
        check("GET http://x/ HTTP/1.1\r\n\r\n", 400);
        check("GET * HTTP/1.1\r\n\r\n", 400);
        check("GET /ä HTTP/1.1\r\n\r\n", 400);
        check("G:T / HTTP/1.1\r\n\r\n", 400);
        check("GET / HTTP/2.0\r\n\r\n", 505);
        check("GET / FTP/1\r\n\r\n", 400);
        check("GET /\r\n\r\n", 400);
        check("\r\n\r\n", 400);
        check("", 400);
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX)), 200);
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1)), 431);
    }

    #[test]
    fn the_token_is_what_follows_bearer() {
        let check = |value: &str, expected: Option<&str>| {
            let head = parse(format!("GET / HTTP/1.1\r\nauthorization: {value}\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(head.token.as_deref(), expected, "{value:?}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic abc", None);
        check("Bearer", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = end(&bytes);
        }
    }
}

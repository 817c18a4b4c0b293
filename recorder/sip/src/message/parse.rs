//! Reading messages. What can be forgiven is forgiven and noted as a [`MessageFlaw`]; an error is left only where the message's
//! purpose or its end cannot be known.

use super::{Field, Headers, Message, MessageFlaw, Method, Request, Response, Uri, latin1};
use crate::error::ParseError;
use crate::limits::Limits;

/// Reads the one message of a datagram. `Ok(None)` is a keep-alive: nothing but line ends, spaces or NULs.
///
/// Forgiven and noted are: bytes behind the body, a Content-Length that is no number, lines that are no header fields, an end within
/// the header section. Lines may end in LF alone.
///
/// # Errors
/// Every [`ParseError`] but [`ParseError::ContentLength`] and [`ParseError::Boundary`]; hand it to
/// [`crate::Endpoint::receive_invalid`], which answers where an answer is possible.
pub fn parse_datagram(datagram: &[u8], limits: &Limits) -> Result<Option<Message>, ParseError> {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    let Some(start) = datagram.iter().position(|byte| !blank(byte)) else { return Ok(None) };
    let message = &datagram[start..];
    let end = head_end(message, 0);
    let (head, rest) = message.split_at(end.unwrap_or(message.len()));
    let mut head = Head::parse(head, limits)?;
    if end.is_none() {
        head.note(MessageFlaw::HeaderSectionUnterminated);
    }
    let body = match head.content_length {
        ContentLength::Absent => rest,
        ContentLength::Malformed => {
            head.note(MessageFlaw::ContentLengthMalformed);
            rest
        }
        ContentLength::Bytes(declared) => {
            let fits = usize::try_from(declared).ok().filter(|bytes| *bytes <= limits.body_bytes_max);
            let Some(bytes) = fits else {
                return Err(ParseError::BodyBytes { limit_bytes: limits.body_bytes_max });
            };
            let Some(body) = rest.get(..bytes) else {
                return Err(ParseError::BodyTruncated { declared, got: rest.len() });
            };
            if rest.len() > bytes {
                head.note(MessageFlaw::BytesBehindBody);
            }
            body
        }
    };
    if body.len() > limits.body_bytes_max {
        return Err(ParseError::BodyBytes { limit_bytes: limits.body_bytes_max });
    }
    Ok(Some(head.into_message(body.to_vec())))
}

/// As much of a request as can be read of bytes that are no good message, so that it can be refused. `None` for a response and for what
/// is not SIP at all.
pub(crate) fn salvage(raw: &[u8], limits: &Limits) -> Option<Request> {
    let raw = raw.trim_ascii_start();
    let end = head_end(raw, 0).unwrap_or(raw.len()).min(limits.header_bytes_max);
    let (line, rest) = split_line(&raw[..end]);
    let line = latin1(line);
    let method = line.split_ascii_whitespace().next()?;
    if !method.bytes().all(is_token) || !line.to_ascii_uppercase().contains("SIP/") {
        return None;
    }
    let mut request = Request::new(Method::from_name(method), "");
    let mut flaws = Vec::new();
    // The fields that an answer needs stand in front; what lies beyond the limit is not missed.
    let _ = read_fields(rest, limits.headers_max, &mut request.headers, &mut flaws);
    Some(request)
}

/// The header fields of a body part, possibly none; `None` when the text starts with something else.
pub(crate) fn parse_part_headers(text: &[u8], limits: &Limits) -> Option<Headers> {
    let (first, _) = split_line(text);
    if !first.is_empty() {
        read_field(first)?;
    }
    let mut headers = Headers::new();
    read_fields(text, limits.headers_max, &mut headers, &mut Vec::new()).ok()?;
    Some(headers)
}

/// What Content-Length says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentLength {
    Absent,
    Bytes(u64),
    Malformed,
}

/// The first line of a message.
enum StartLine {
    Request { method: Method, uri: Uri },
    Response { status: u16, reason: String },
}

/// A message up to its body.
pub(super) struct Head {
    start_line: StartLine,
    pub(super) headers: Headers,
    flaws: Vec<MessageFlaw>,
    pub(super) content_length: ContentLength,
}

impl Head {
    /// Reads start line and header fields, with or without the empty line behind them.
    pub(super) fn parse(head: &[u8], limits: &Limits) -> Result<Self, ParseError> {
        if head.len() > limits.header_bytes_max {
            return Err(ParseError::HeaderBytes { limit_bytes: limits.header_bytes_max });
        }
        let (line, rest) = split_line(head);
        let start_line = parse_start_line(line)?;
        let (mut headers, mut flaws) = (Headers::new(), Vec::new());
        read_fields(rest, limits.headers_max, &mut headers, &mut flaws)
            .map_err(|TooMany| ParseError::HeaderCount { limit: limits.headers_max })?;
        let content_length = content_length(&headers);
        headers.remove("Content-Length");
        Ok(Self { start_line, headers, flaws, content_length })
    }

    fn note(&mut self, flaw: MessageFlaw) {
        note(&mut self.flaws, flaw);
    }

    pub(super) fn into_message(self, body: Vec<u8>) -> Message {
        let Self { start_line, headers, flaws, .. } = self;
        match start_line {
            StartLine::Request { method, uri } => Message::Request(Request { method, uri, headers, body, flaws }),
            StartLine::Response { status, reason } => {
                Message::Response(Response { status, reason, headers, body, flaws })
            }
        }
    }
}

/// The length of the header section with its empty line, looking no earlier than `from`; `None` when it has not ended.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(offset) = bytes.get(at..)?.iter().position(|byte| *byte == b'\n') {
        let next = at + offset + 1;
        match bytes.get(next..)? {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => at = next,
        }
    }
    None
}

/// Whether the first line could be SIP's.
pub(super) fn check_start_line(line: &[u8]) -> Result<(), ParseError> {
    parse_start_line(line).map(|_| ())
}

fn parse_start_line(line: &[u8]) -> Result<StartLine, ParseError> {
    let line = match std::str::from_utf8(line) {
        Ok(line) => line.to_owned(),
        Err(_) => latin1(line),
    };
    let line = line.replace(['\r', '\0'], " ");
    let line = line.trim();
    if let Some(version) = line.split_ascii_whitespace().next().filter(|first| is_version(first)) {
        check_version(version)?;
        let (status, reason) = match line[version.len()..].trim_start().split_once([' ', '\t']) {
            Some((status, reason)) => (status, reason.trim()),
            None => (line[version.len()..].trim(), ""),
        };
        let status = status.parse().ok().filter(|status| (100..700).contains(status));
        let Some(status) = status else { return Err(ParseError::StartLine) };
        return Ok(StartLine::Response { status, reason: reason.to_owned() });
    }
    let Some((rest, version)) = line.rsplit_once([' ', '\t']).filter(|(_, last)| is_version(last)) else {
        return Err(ParseError::NotSip);
    };
    check_version(version)?;
    let Some((method, uri)) = rest.trim_end().split_once([' ', '\t']) else {
        return Err(ParseError::StartLine);
    };
    if !method.bytes().all(is_token) {
        return Err(ParseError::StartLine);
    }
    // However many brackets and spaces there are: what is left is read the same way again.
    let uri = uri.trim_start_matches(|c: char| c == '<' || c.is_whitespace());
    let uri = uri.trim_end_matches(|c: char| c == '>' || c.is_whitespace());
    Ok(StartLine::Request { method: Method::from_name(method), uri: Uri::parse(uri) })
}

fn is_version(text: &str) -> bool {
    text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/"))
}

fn check_version(text: &str) -> Result<(), ParseError> {
    if text.eq_ignore_ascii_case("SIP/2.0") { Ok(()) } else { Err(ParseError::Version) }
}

/// There are more fields than the limit.
struct TooMany;

/// Reads header fields into `headers` until the empty line or the end, unfolding continued lines (RFC 3261 section 7.3.1).
fn read_fields(
    mut text: &[u8],
    headers_max: usize,
    headers: &mut Headers,
    flaws: &mut Vec<MessageFlaw>,
) -> Result<(), TooMany> {
    let mut count = 0;
    while !text.is_empty() {
        let (line, mut rest) = split_line(text);
        if line.is_empty() {
            break;
        }
        let mut unfolded = None;
        while let Some(b' ' | b'\t') = rest.first() {
            let (more, behind) = split_line(rest);
            let whole: &mut Vec<u8> = unfolded.get_or_insert_with(|| line.to_vec());
            whole.push(b' ');
            whole.extend_from_slice(more.trim_ascii());
            rest = behind;
        }
        text = rest;
        let Some(field) = read_field(unfolded.as_deref().unwrap_or(line)) else {
            note(flaws, MessageFlaw::HeaderLine);
            continue;
        };
        count += 1;
        if count > headers_max {
            return Err(TooMany);
        }
        if field.is_latin1() {
            note(flaws, MessageFlaw::HeaderNotUtf8);
        }
        headers.push_field(field);
    }
    Ok(())
}

fn read_field(line: &[u8]) -> Option<Field> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(line[..colon].trim_ascii()).ok()?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    Some(Field::from_wire(name, &line[colon + 1..]))
}

/// The first line without its end, and what follows.
pub(super) fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&text[..end], &text[end + 1..]),
        None => (text, &[][..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

fn content_length(headers: &Headers) -> ContentLength {
    let mut found = ContentLength::Absent;
    for field in headers.all("Content-Length") {
        let digits = field.value();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return ContentLength::Malformed;
        }
        // Digits that do not fit are a number all the same: a body that is too large.
        let bytes = ContentLength::Bytes(digits.parse().unwrap_or(u64::MAX));
        if found != ContentLength::Absent && found != bytes {
            return ContentLength::Malformed;
        }
        found = bytes;
    }
    found
}

fn note(flaws: &mut Vec<MessageFlaw>, flaw: MessageFlaw) {
    if !flaws.contains(&flaw) {
        flaws.push(flaw);
    }
}

/// token of RFC 3261 section 25.1.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

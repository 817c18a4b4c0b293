//! The bodies of a message: one, or several in a multipart (RFC 2046 section 5.1, RFC 5621).
//!
//! Everything that a peer can get wrong about a boundary is forgiven and told as a [`MultipartFlaw`]: a missing or wrong `boundary`
//! parameter, spaces behind the boundary, an empty line in front of the first, no closing one, LF alone as line end, part headers
//! without a space behind the colon or without any part headers at all, a part's Content-Length that is wrong.

use std::fmt;

use crate::error::ParseError;
use crate::limits::Limits;
use crate::message::{Headers, Params, Request, parse_part_headers};

/// Most parts of a message that are kept. SIPREC needs two; vendors have sent four.
pub const PARTS_MAX: usize = 16;

/// How deep a multipart within a multipart is opened. One level has been seen (an alternative inside a mixed).
pub const DEPTH_MAX: usize = 3;

/// One body with the header fields that describe it.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// The part's own header fields, Content-Length included when it was there.
    pub headers: Headers,
    /// The bytes.
    pub body: Vec<u8>,
    /// The type when no header field says it and the first bytes do.
    sniffed: Option<&'static str>,
}

impl Part {
    /// The media type in lower case without parameters, "application/sdp"; guessed from the first bytes where the peer names none.
    #[must_use]
    pub fn content_type(&self) -> Option<String> {
        self.headers.get("Content-Type").and_then(media_type).or_else(|| self.sniffed.map(str::to_owned))
    }

    /// The disposition in lower case without parameters, "recording-session" (RFC 3261 section 20.11).
    #[must_use]
    pub fn disposition(&self) -> Option<String> {
        self.headers.get("Content-Disposition").and_then(media_type)
    }

    /// Content-ID as it came.
    #[must_use]
    pub fn content_id(&self) -> Option<&str> {
        self.headers.get("Content-ID")
    }

    /// Whether this is an offer or an answer.
    #[must_use]
    pub fn is_sdp(&self) -> bool {
        self.content_type().as_deref() == Some("application/sdp")
    }

    /// Whether this is recording metadata, under any of the names in use (RFC 7866 section 9.1, RFC 9806 section 2).
    #[must_use]
    pub fn is_recording_metadata(&self) -> bool {
        self.content_type().is_some_and(|kind| kind.starts_with("application/rs-metadata"))
            || self.disposition().as_deref() == Some("recording-session")
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} + {} bytes", self.content_type(), self.headers, self.body.len())
    }
}

/// A deviation that was forgiven while splitting, to be noted on the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MultipartFlaw {
    /// Content-Type has no `boundary`; the first line that starts with `--` was taken.
    BoundaryMissing,
    /// The `boundary` of Content-Type does not occur; the first line that starts with `--` was taken.
    BoundaryMismatch,
    /// No line starts with `--`; the whole body was taken as one part and its type guessed.
    BoundaryNotFound,
    /// The closing boundary is missing; the last part goes to the end.
    ClosingBoundaryMissing,
    /// A part has no header fields; its type was guessed.
    PartHeadersMissing,
    /// A part's Content-Length differs from what stands between the boundaries, which counts.
    PartLengthWrong,
    /// More than [`PARTS_MAX`] parts; the rest was dropped.
    TooManyParts,
    /// A multipart deeper than [`DEPTH_MAX`] was left closed.
    TooDeep,
}

impl MultipartFlaw {
    /// The flaw's name for records and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BoundaryMissing => "multipart-boundary-missing",
            Self::BoundaryMismatch => "multipart-boundary-mismatch",
            Self::BoundaryNotFound => "multipart-boundary-not-found",
            Self::ClosingBoundaryMissing => "multipart-closing-boundary-missing",
            Self::PartHeadersMissing => "multipart-part-headers-missing",
            Self::PartLengthWrong => "multipart-part-length-wrong",
            Self::TooManyParts => "multipart-too-many-parts",
            Self::TooDeep => "multipart-too-deep",
        }
    }
}

/// The bodies of a message, nested ones laid flat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Multipart {
    /// The parts in their order, at most [`PARTS_MAX`].
    pub parts: Vec<Part>,
    /// What was forgiven, each kind once.
    pub flaws: Vec<MultipartFlaw>,
}

impl Multipart {
    /// The first offer or answer.
    #[must_use]
    pub fn sdp(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.is_sdp())
    }

    /// The first part with recording metadata.
    #[must_use]
    pub fn recording_metadata(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.is_recording_metadata())
    }

    /// Keeps a part, up to [`PARTS_MAX`].
    fn keep(&mut self, part: Part) {
        if self.parts.len() < PARTS_MAX {
            self.parts.push(part);
        } else {
            self.note(MultipartFlaw::TooManyParts);
        }
    }

    fn note(&mut self, flaw: MultipartFlaw) {
        if !self.flaws.contains(&flaw) {
            self.flaws.push(flaw);
        }
    }
}

/// The bodies of a request: none, the one, or the parts of a multipart.
///
/// # Errors
/// As [`split`].
pub fn bodies(request: &Request) -> Result<Multipart, ParseError> {
    bodies_of(&request.headers, &request.body)
}

/// The bodies of any message, from its header fields and its body.
///
/// # Errors
/// As [`split`].
pub fn bodies_of(headers: &Headers, body: &[u8]) -> Result<Multipart, ParseError> {
    if body.is_empty() {
        return Ok(Multipart::default());
    }
    let content_type = headers.get("Content-Type").unwrap_or("");
    if is_multipart(content_type) {
        return split(content_type, body);
    }
    let mut own = Headers::new();
    for name in ["Content-Type", "Content-Disposition", "Content-ID", "Content-Encoding"] {
        if let Some(field) = headers.field(name) {
            own.push_field(field.renamed(name));
        }
    }
    let part = Part { sniffed: sniff(body), headers: own, body: body.to_vec() };
    Ok(Multipart { parts: vec![part], flaws: Vec::new() })
}

/// Splits a multipart body; `content_type` is the value of the field that describes it.
///
/// # Errors
/// [`ParseError::Boundary`] when no boundary can be found and the body as a whole is nothing that is known either.
pub fn split(content_type: &str, body: &[u8]) -> Result<Multipart, ParseError> {
    let mut multipart = Multipart::default();
    split_into(&mut multipart, content_type, body, 1)?;
    Ok(multipart)
}

fn split_into(out: &mut Multipart, content_type: &str, body: &[u8], depth: usize) -> Result<(), ParseError> {
    let Some(boundary) = find_boundary(out, content_type, body) else {
        let sniffed = sniff(body);
        if sniffed.is_none() {
            return Err(ParseError::Boundary);
        }
        out.note(MultipartFlaw::BoundaryNotFound);
        out.keep(Part { headers: Headers::new(), body: body.to_vec(), sniffed });
        return Ok(());
    };
    let mut from = None;
    for line in Lines::new(body) {
        let Some(closing) = delimiter(line.text, boundary) else { continue };
        if let Some(start) = from.replace(line.end) {
            add_part(out, without_line_end(&body[start..line.start.max(start)]), depth);
        }
        if closing {
            return Ok(());
        }
    }
    out.note(MultipartFlaw::ClosingBoundaryMissing);
    if let Some(rest) = from.and_then(|start| body.get(start..)).filter(|rest| !rest.trim_ascii().is_empty()) {
        add_part(out, rest, depth);
    }
    Ok(())
}

/// Reads one part, opens it when it is a multipart itself, and keeps it.
fn add_part(out: &mut Multipart, text: &[u8], depth: usize) {
    if text.trim_ascii().is_empty() {
        return;
    }
    let (headers, body) = match split_part(text) {
        Some((headers, body)) => (headers, body),
        None => {
            out.note(MultipartFlaw::PartHeadersMissing);
            (Headers::new(), text)
        }
    };
    if headers.get("Content-Length").is_some_and(|length| length.parse() != Ok(body.len())) {
        out.note(MultipartFlaw::PartLengthWrong);
    }
    let content_type = headers.get("Content-Type").unwrap_or("");
    if is_multipart(content_type) {
        if depth >= DEPTH_MAX {
            out.note(MultipartFlaw::TooDeep);
        } else if split_into(out, content_type, body, depth + 1).is_ok() {
            return;
        }
    }
    out.keep(Part { sniffed: sniff(body), headers, body: body.to_vec() });
}

/// Header fields and body of a part. `None` when it starts with something that is no header field, such as `v=0`.
fn split_part(text: &[u8]) -> Option<(Headers, &[u8])> {
    let mut end = None;
    for line in Lines::new(text) {
        if line.text.is_empty() {
            end = Some((line.start, line.end));
            break;
        }
    }
    // Without a body, the line end that was taken for the boundary's was the empty line.
    let (head_end, body_start) = end.or(text.ends_with(b"\n").then_some((text.len(), text.len())))?;
    let headers = parse_part_headers(&text[..head_end], &Limits::default())?;
    Some((headers, &text[body_start..]))
}

/// The boundary that the body really uses.
fn find_boundary<'a>(out: &mut Multipart, content_type: &'a str, body: &'a [u8]) -> Option<&'a [u8]> {
    let params = content_type.split_once(';').map_or("", |(_, params)| params);
    let params = Params::parse(params);
    let named = params.get("boundary").map(str::trim).filter(|boundary| !boundary.is_empty());
    let used = |boundary: &[u8]| Lines::new(body).any(|line| delimiter(line.text, boundary).is_some());
    if let Some(named) = named.filter(|named| used(named.as_bytes())) {
        // Found again in the text itself, which lives longer than the parameters.
        let at = content_type.find(named)?;
        return Some(&content_type.as_bytes()[at..at + named.len()]);
    }
    let found = Lines::new(body).find_map(|line| {
        let boundary = line.text.strip_prefix(b"--")?.trim_ascii_end();
        (!boundary.is_empty()).then_some(boundary)
    });
    if found.is_some() {
        let flaw = if named.is_some() { MultipartFlaw::BoundaryMismatch } else { MultipartFlaw::BoundaryMissing };
        out.note(flaw);
    }
    found
}

/// Whether the line is a delimiter, and if so, whether it is the closing one.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    match rest.trim_ascii() {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

/// A line with its place; the text is without its end.
struct Line<'a> {
    text: &'a [u8],
    start: usize,
    end: usize,
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let start = self.at;
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(self.bytes.len(), |at| start + at + 1);
        self.at = end;
        let text = &self.bytes[start..end];
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        Some(Line { text: text.strip_suffix(b"\r").unwrap_or(text), start, end })
    }
}

/// The line end in front of a delimiter belongs to the delimiter.
fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

fn is_multipart(content_type: &str) -> bool {
    media_type(content_type).is_some_and(|kind| kind.starts_with("multipart/"))
}

fn media_type(value: &str) -> Option<String> {
    let kind = value.split(';').next().unwrap_or("").trim();
    (!kind.is_empty()).then(|| kind.to_ascii_lowercase())
}

/// What a body without a type is, by its first bytes.
fn sniff(body: &[u8]) -> Option<&'static str> {
    match body.trim_ascii_start() {
        [b'v', b'=', ..] => Some("application/sdp"),
        [b'<', ..] => Some("application/rs-metadata+xml"),
        [0xEF, 0xBB, 0xBF, b'<', ..] => Some("application/rs-metadata+xml"),
        _ => None,
    }
}

//! Header fields: ordered, looked up without regard to case or compact form, and kept byte for byte for the echo in a response.

use std::fmt;

/// One header field. The value is unfolded and trimmed; `\r`, `\n` and NUL never occur in it, so that echoing a field cannot
/// start a new one.
///
/// A value that is not UTF-8 is read as Latin-1, which is what such peers send, and goes out again as the bytes that came.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    name: String,
    value: String,
    raw: Option<Box<[u8]>>,
}

impl Field {
    /// A field of our own. Line ends and NULs in either text become spaces.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Self {
        Self { name: one_line(name), value: one_line(value), raw: None }
    }

    /// A field as received; `value` may hold anything.
    pub(crate) fn from_wire(name: &str, value: &[u8]) -> Self {
        let mut bytes = value.to_vec();
        for byte in &mut bytes {
            if matches!(byte, b'\r' | b'\n' | 0) {
                *byte = b' ';
            }
        }
        let bytes = bytes.trim_ascii();
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { name: name.to_owned(), value: text.to_owned(), raw: None },
            Err(_) => {
                Self { name: name.to_owned(), value: latin1(bytes), raw: Some(bytes.to_vec().into_boxed_slice()) }
            }
        }
    }

    /// The name as written: "Via", "v", "VIA".
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value; empty for a field without one.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether the value came in bytes that are not UTF-8.
    #[must_use]
    pub fn is_latin1(&self) -> bool {
        self.raw.is_some()
    }

    /// Whether this is the field called `name`, in any case and in compact or long form.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        long_form(&self.name).eq_ignore_ascii_case(long_form(name))
    }

    /// The same value under another name: the From of one direction is the To of the other.
    pub(crate) fn renamed(&self, name: &str) -> Self {
        Self { name: one_line(name), ..self.clone() }
    }

    /// The same field with `suffix` behind its value, for a tag.
    pub(crate) fn with_suffix(&self, suffix: &str) -> Self {
        let mut field = self.clone();
        field.value.push_str(suffix);
        if let Some(raw) = field.raw.take() {
            let mut raw = raw.into_vec();
            raw.extend_from_slice(suffix.as_bytes());
            field.raw = Some(raw.into_boxed_slice());
        }
        field
    }

    /// The value as it stands on the wire; [`Self::from_wire`] reads it back.
    pub(crate) fn wire_value(&self) -> &[u8] {
        self.raw.as_deref().unwrap_or(self.value.as_bytes())
    }

    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(self.wire_value());
        out.extend_from_slice(b"\r\n");
    }
}

impl fmt::Debug for Field {
    /// Names the field and keeps its value, which may be a person's, to itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ({} bytes)", self.name, self.value.len())
    }
}

/// The header fields of a message or of a body part, in their order.
///
/// Content-Length is never among the fields of a parsed message: the length of the body says it, and it is written anew.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    fields: Vec<Field>,
}

impl Headers {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of the first field called `name` (any case, compact or long); it may be empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.field(name).map(Field::value)
    }

    /// The first field called `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.is(name))
    }

    /// All fields called `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> {
        self.fields.iter().filter(move |field| field.is(name))
    }

    /// The elements of a comma-separated field, over all its repetitions, without the empty ones.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|field| field.is(name));
        let items = fields.flat_map(|field| split_list(field.value(), b','));
        items.filter(|item| !item.is_empty()).collect()
    }

    /// Every field, in order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Adds a field of our own at the end; see [`Field::new`].
    pub fn push(&mut self, name: &str, value: &str) {
        self.fields.push(Field::new(name, value));
    }

    /// Adds a field at the end.
    pub fn push_field(&mut self, field: Field) {
        self.fields.push(field);
    }

    /// Removes every field called `name`; says how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.fields.len();
        self.fields.retain(|field| !field.is(name));
        before - self.fields.len()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.fields).finish()
    }
}

/// The long form of a compact header name (RFC 3261 section 7.3.3 and the IANA registry); any other name as it is.
fn long_form(name: &str) -> &str {
    let [letter] = name.as_bytes() else { return name };
    match letter.to_ascii_lowercase() {
        b'a' => "Accept-Contact",
        b'b' => "Referred-By",
        b'c' => "Content-Type",
        b'd' => "Request-Disposition",
        b'e' => "Content-Encoding",
        b'f' => "From",
        b'i' => "Call-ID",
        b'j' => "Reject-Contact",
        b'k' => "Supported",
        b'l' => "Content-Length",
        b'm' => "Contact",
        b'n' => "Identity-Info",
        b'o' => "Event",
        b'r' => "Refer-To",
        b's' => "Subject",
        b't' => "To",
        b'u' => "Allow-Events",
        b'v' => "Via",
        b'x' => "Session-Expires",
        b'y' => "Identity",
        _ => name,
    }
}

/// Splits at `separator` where it stands outside quotes and angle brackets; elements are trimmed and may be empty.
///
/// A quote that nobody closes does not swallow what follows: it then counts as an ordinary character. So does an angle bracket. The
/// text is gone through a fixed number of times, whatever is in it: a field may have all of [`crate::HEADER_BYTES_MAX`].
pub(crate) fn split_list(text: &str, separator: u8) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut items = Vec::new();
    let (mut start, mut at, mut in_angle) = (0, 0, false);
    let last_closing = bytes.iter().rposition(|&byte| byte == b'>');
    let mut quotes_close = true;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            // Behind a quote that nobody closes all others are escaped, so nobody closes them either.
            b'"' if !in_angle && quotes_close => match quoted_end(bytes, at) {
                Some(end) => at = end,
                None => quotes_close = false,
            },
            b'<' => in_angle = last_closing > Some(at),
            b'>' => in_angle = false,
            _ if byte == separator && !in_angle => {
                items.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    items.push(text[start..].trim());
    items
}

/// The index of the quote that closes the one at `open`; backslash escapes.
pub(crate) fn quoted_end(bytes: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// `text` trimmed, with line ends and NULs turned into spaces.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(['\r', '\n', '\0'], " ").trim().to_owned()
}

/// Every byte as the character with its number.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_split(text: &str, want: &[&str]) {
        assert_eq!(split_list(text, b','), want, "{text:?}");
    }

    #[test]
    fn lists_split_outside_quotes_and_brackets() {
        check_split("a, b", &["a", "b"]);
        check_split("\"a, b\" <sip:x>, c", &["\"a, b\" <sip:x>", "c"]);
        check_split("<sip:a,b@x>,<sip:c>", &["<sip:a,b@x>", "<sip:c>"]);
        check_split("\"a\\\", b\", c", &["\"a\\\", b\"", "c"]);
        check_split("\"open, b", &["\"open", "b"]);
        check_split("\"a, b\", \"open\\\", c\\\", d", &["\"a, b\"", "\"open\\\"", "c\\\"", "d"]);
        check_split("<a,b>, <c, <d, e", &["<a,b>", "<c", "<d", "e"]);
        check_split("<sip:open, b", &["<sip:open", "b"]);
        check_split("", &[""]);
    }

    /// Each would take minutes if every quote or bracket were followed to the end of the text.
    #[test]
    fn the_longest_field_is_gone_through_once() {
        for (piece, items) in [("\\\",", 333_334), ("<,", 500_001)] {
            let text = format!("\"{}", piece.repeat(1_000_000 / piece.len()));
            assert_eq!(split_list(&text, b',').len(), items, "{piece:?}");
        }
    }

    #[test]
    fn a_field_cannot_carry_a_second_line() {
        let field = Field::new("Reason", "a\r\nVia: evil\0");
        assert_eq!(field.value(), "a  Via: evil");
    }

    #[test]
    fn latin1_is_readable_and_goes_out_unchanged() {
        let field = Field::from_wire("From", b"\"M\xfcller\" <sip:a>").with_suffix(";tag=1");
        assert_eq!(field.value(), "\"Müller\" <sip:a>;tag=1");
        let mut out = Vec::new();
        field.write_to(&mut out);
        assert_eq!(out, b"From: \"M\xfcller\" <sip:a>;tag=1\r\n");
    }

    #[test]
    fn names_match_in_any_form() {
        for (written, asked) in [("v", "Via"), ("VIA", "via"), ("Via", "v"), ("I", "Call-ID"), ("x", "session-expires")]
        {
            assert!(Field::new(written, "").is(asked), "{written} {asked}");
        }
        assert!(!Field::new("To", "").is("From"));
        assert!(!Field::new("z", "").is("Via"));
    }
}

//! How a peer's bytes become text.

use std::borrow::Cow;

/// Reads bytes as UTF-8, and as ISO 8859-1 where they are not: older clients send names in it whatever they declare, and
/// every byte has a meaning there, so nothing is lost. A byte order mark is dropped.
pub(crate) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text.trim_start_matches('\u{feff}')),
        Err(_) => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_text() {
        fn check(bytes: &[u8], text: &str) {
            assert_eq!(decode(bytes), text);
        }
        check("Zoë".as_bytes(), "Zoë");
        check(b"Zo\xeb", "Zoë");
        check(b"\xef\xbb\xbf<a/>", "<a/>");
        check(b"", "");
    }
}

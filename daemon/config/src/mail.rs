//! The values of mail.

use crate::macros::choices;
use crate::setting::{Raw, Setting, quoted};
use crate::values::Bytes;

choices! {
    /// How the connection to the mail server is protected.
    pub enum MailTls {
        /// By STARTTLS (RFC 3207), or there is no connection.
        Starttls = "starttls",
        /// By TLS from its beginning (RFC 8314).
        Tls = "tls",
        /// Not.
        None = "none",
    }
    shape "\"starttls\", \"tls\" or \"none\""
}

impl MailTls {
    /// The port that is usual for it.
    #[must_use]
    pub fn usual_port(self) -> u16 {
        match self {
            Self::Starttls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// The least limit of an attachment: below it next to no call would fit, which is what "attach" being off is for.
const LIMIT_LEAST: Bytes = Bytes(1 << 20);

/// The word for no limit.
const OFF: &str = "off";

/// Up to which size something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeLimit {
    /// At any size.
    Off,
    /// Up to so many bytes; at least 1 MiB.
    UpTo(Bytes),
}

impl Setting for SizeLimit {
    const SHAPE: &'static str = "a size from \"1MiB\", or \"off\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == OFF => Ok(Self::Off),
            _ => match Bytes::read(raw) {
                Ok(size) if size >= LIMIT_LEAST => Ok(Self::UpTo(size)),
                _ => Err(Self::expected(raw)),
            },
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Off => quoted(OFF),
            Self::UpTo(size) => size.write(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_limited_from_a_mebibyte_or_not_at_all() {
        let check = |text: &str, expected: Option<SizeLimit>| {
            let read = SizeLimit::read(&Raw::Text(text.into()));
            assert_eq!(read.clone().ok(), expected, "{text}: {read:?}");
        };
        check("off", Some(SizeLimit::Off));
        check("1MiB", Some(SizeLimit::UpTo(Bytes(1 << 20))));
        check("15MiB", Some(SizeLimit::UpTo(Bytes(15 << 20))));
        check("1023KiB", None);
        check("0B", None);
        check("", None);
        check("15", None);
    }
}

//! The organisation's time zone.

use jiff::tz::TimeZone;

use crate::setting::{Raw, Setting, quoted};

/// The word for the machine's own time zone.
const SYSTEM: &str = "system";

/// A time zone by its name in the IANA time zone database, or the machine's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneName(String);

impl ZoneName {
    /// Its rules. Those of UTC when the machine's database has lost the name since the configuration was checked.
    #[must_use]
    pub fn zone(&self) -> TimeZone {
        if self.0 == SYSTEM { TimeZone::system() } else { TimeZone::get(&self.0).unwrap_or(TimeZone::UTC) }
    }

    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for ZoneName {
    const SHAPE: &'static str = "\"system\", \"UTC\" or the name of a time zone such as \"Europe/Rome\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw.text() {
            Some(name) if name == SYSTEM || TimeZone::get(name).is_ok() => Ok(Self(name.to_owned())),
            Some(name) => Err(format!(
                "\"{}\" is no time zone that this machine knows; write {} (the names are those of the package tzdata)",
                name.escape_debug(),
                Self::SHAPE
            )),
            None => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        quoted(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_known_by_its_name() {
        let check = |text: &str, expected: bool| {
            let read = ZoneName::read(&Raw::Text(text.into()));
            assert_eq!(read.is_ok(), expected, "{text}: {read:?}");
        };
        check("system", true);
        check("UTC", true);
        check("Europe/Rome", true);
        check("Europe/Atlantis", false);
        check("", false);
        check("../../etc/passwd", false);
        assert!(ZoneName::read(&Raw::Integer(1)).is_err());
    }
}

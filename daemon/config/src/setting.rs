//! What a type must be able to do to be the type of a key, and the description of a key that the rest works from.

use std::path::PathBuf;
use std::time::Duration;

/// A value as it was written, before it has a meaning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Raw>),
    /// Anything that no key can be: the name of what was found, with its article.
    Other(&'static str),
}

impl Raw {
    /// The text without the space around it; `None` when it is not a text.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Raw::Text(text) = self { Some(text.trim()) } else { None }
    }

    /// What was written, for an error text.
    pub(crate) fn found(&self) -> String {
        match self {
            Raw::Text(text) => format!("\"{}\"", text.escape_debug()),
            Raw::Integer(number) => number.to_string(),
            Raw::Boolean(flag) => flag.to_string(),
            Raw::List(_) => "a list".into(),
            Raw::Other(name) => (*name).into(),
        }
    }
}

/// A type that a key can have.
pub(crate) trait Setting: Sized {
    /// What the documentation calls it: `a duration ("200ms", "10m")`.
    const SHAPE: &'static str;

    /// The words that it can be, where these are all; empty where it can be more.
    const CHOICES: &'static [&'static str] = &[];

    /// Reads a written value. The error says what was expected and, where it can, what to write.
    fn read(raw: &Raw) -> Result<Self, String>;

    /// The value in TOML notation; reading it again gives the same value.
    fn write(&self) -> String;

    /// The standard refusal of a value of the wrong kind.
    fn expected(raw: &Raw) -> String {
        format!("expected {}, found {}", Self::SHAPE, raw.found())
    }
}

/// A key: everything that is known about it besides its value.
#[derive(Debug, Clone, Copy)]
pub struct KeySpec {
    /// The dotted key, `sip.udp`.
    pub key: &'static str,
    /// The default in TOML notation.
    pub default: &'static str,
    /// What a value looks like.
    pub shape: &'static str,
    /// The words that a value can be, where these are all; empty where it can be more.
    pub choices: &'static [&'static str],
    /// The least and the greatest value, where there are such.
    pub range: Option<(&'static str, &'static str)>,
    /// What the key means and why its default is what it is, a line an entry.
    pub doc: &'static [&'static str],
    /// Checks a written value; gives it back in TOML notation.
    pub(crate) canonical: fn(&Raw) -> Result<String, String>,
}

/// Reads a value and holds it against its range.
pub(crate) fn read_within<T: Setting + PartialOrd>(raw: &Raw, least: &str, greatest: &str) -> Result<T, String> {
    let value = T::read(raw)?;
    let bound = |text: &str| T::read(&Raw::Text(text.into())).expect("bounds are valid values, a test proves it");
    if value < bound(least) || value > bound(greatest) {
        return Err(format!("{} is outside {least} to {greatest}; choose a value between them", raw.found()));
    }
    Ok(value)
}

impl Setting for String {
    const SHAPE: &'static str = "text in quotes";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text.chars().any(char::is_control) => {
                Err("must not contain line breaks or control characters".into())
            }
            Raw::Text(text) => Ok(text.clone()),
            _ => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        quoted(self)
    }
}

impl Setting for bool {
    const SHAPE: &'static str = "true or false";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Boolean(flag) => Ok(*flag),
            _ => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for u32 {
    const SHAPE: &'static str = "a whole number";

    fn read(raw: &Raw) -> Result<Self, String> {
        let number = match raw {
            Raw::Integer(number) => Self::try_from(*number).ok(),
            Raw::Text(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| Self::expected(raw))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// A folder or file; it is made absolute when the whole configuration is put together.
impl Setting for PathBuf {
    const SHAPE: &'static str = "a path in quotes";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text.is_empty() => Err("must not be empty; write a path".into()),
            Raw::Text(text) if text.contains('\0') => Err("must not contain a NUL character".into()),
            Raw::Text(text) if text.starts_with('~') => Err("`~` is not expanded here; write the whole path".into()),
            Raw::Text(text) => Ok(Self::from(text)),
            _ => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

/// A path that may be left empty, for a default that depends on another key.
impl Setting for Option<PathBuf> {
    const SHAPE: &'static str = "a path in quotes, or \"\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text.is_empty() => Ok(None),
            Raw::Text(_) => PathBuf::read(raw).map(Some),
            _ => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        self.as_ref().map_or_else(|| quoted(""), Setting::write)
    }
}

/// The units of a duration with their length in milliseconds, greatest first.
const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Setting for Duration {
    const SHAPE: &'static str = "a duration such as \"200ms\", \"1s\", \"10m\", \"2h\" or \"7d\"";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => {
                quantity(text, &DURATION_UNITS).map(Self::from_millis).ok_or_else(|| Self::expected(raw))
            }
            Raw::Integer(number) => Err(format!("a duration needs its unit: write \"{number}s\" or \"{number}ms\"")),
            _ => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        written(u64::try_from(self.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
    }
}

/// A whole number directly followed by (or a space away from) one of the units.
pub(crate) fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The number in the greatest unit that divides it.
pub(crate) fn written(value: u64, units: &[(&str, u64)]) -> String {
    let fitting = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor) && value >= *factor;
    let (name, factor) = units.iter().find(fitting).unwrap_or(&units[units.len() - 1]);
    quoted(&format!("{}{name}", value / factor))
}

/// Text as a TOML basic string. (`Display` of [`toml::Value`] escapes what has to be.)
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

//! The types of `[retention]`.

use std::fmt;

use crate::macros::choices;
use crate::setting::{Raw, Setting, quoted};

choices! {
    /// How long recordings stay.
    pub enum RetentionRule {
        /// For ever.
        KeepAll = "keep-all",
        /// A year.
        TwelveMonths = "12-months",
        /// Four years.
        FortyEightMonths = "48-months",
        /// Four hours.
        FourHours = "4-hours",
        /// As long as the period says.
        Custom = "custom",
    }
    shape "\"keep-all\", \"12-months\", \"48-months\", \"4-hours\" or \"custom\""
}

/// A length of time by the calendar, at least one unit, at most a hundred years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPeriod {
    /// How many.
    pub count: u32,
    /// Of what: "hours", "days", "months" or "years".
    pub unit: &'static str,
}

/// The units, and how many of each are at most a hundred years.
const PERIOD_UNITS: [(&str, &str, u32); 4] =
    [("hours", "hour", 876_600), ("days", "day", 36_600), ("months", "month", 1_200), ("years", "year", 100)];

impl RetentionPeriod {
    fn parse(text: &str) -> Option<Self> {
        let (count, word) = text.split_once(' ')?;
        let (unit, _, most) = PERIOD_UNITS.iter().find(|(many, one, _)| *many == word || *one == word)?;
        let count = count.parse().ok().filter(|count| (1..=*most).contains(count))?;
        Some(Self { count, unit })
    }
}

impl fmt::Display for RetentionPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.unit)
    }
}

impl Setting for RetentionPeriod {
    const SHAPE: &'static str = "a number of hours, days, months or years such as \"90 days\", at most 100 years";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::parse(text).ok_or_else(|| Self::expected(raw)),
            _ => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        quoted(&self.to_string())
    }
}

/// How much longer preserved recordings stay; none: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreservedPeriod(pub Option<RetentionPeriod>);

impl Setting for PreservedPeriod {
    const SHAPE: &'static str =
        "\"for-ever\", or a number of hours, days, months or years such as \"2 years\", at most 100 years";

    fn read(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) if text == "for-ever" => Ok(Self(None)),
            Raw::Text(text) => RetentionPeriod::parse(text).map(|p| Self(Some(p))).ok_or_else(|| Self::expected(raw)),
            _ => Err(Self::expected(raw)),
        }
    }

    fn write(&self) -> String {
        self.0.map_or_else(|| quoted("for-ever"), |period| period.write())
    }
}

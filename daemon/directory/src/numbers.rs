//! The numbering plan: when two numbers are the same, and which are the organisation's own.

use crate::pattern::Pattern;

/// Digits of the longest country code.
const COUNTRY_DIGITS_MAX: usize = 3;

/// Digits of a national number, at least: what is shorter is an extension or a service.
const NATIONAL_DIGITS_MIN: usize = 7;

/// How numbers are written where the organisation is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberingPlan {
    country_code: String,
    national_prefix: String,
    international_prefix: String,
    internal: Vec<Pattern>,
}

/// A number as it is compared: with `+` where the country is known, otherwise as it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(String);

impl Number {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NumberingPlan {
    /// A plan. `country_code` has one to three digits or none, where only numbers with `+` are known to be whole; `national_prefix` is
    /// what is dialled before an area code (0 in most countries, none in Italy), `international_prefix` what stands for `+` (00);
    /// `internal` are the patterns of the organisation's own numbers.
    pub fn new(country_code: &str, national_prefix: &str, international_prefix: &str, internal: Vec<Pattern>) -> Self {
        let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
        let country_code: String = digits(country_code).chars().take(COUNTRY_DIGITS_MAX).collect();
        Self {
            country_code,
            national_prefix: digits(national_prefix),
            international_prefix: digits(international_prefix),
            internal,
        }
    }

    /// A number as it is compared; none where there is none, but an address.
    pub fn number(&self, text: &str) -> Option<Number> {
        let text = text.trim();
        let text = ["tel:", "sip:", "sips:"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let text = text.split([';', '@']).next().unwrap_or_default();
        let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')' | '/')).collect();
        let digits = plain.strip_prefix('+').unwrap_or(&plain);
        if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '*' | '#')) {
            return None;
        }
        if plain.starts_with('+') {
            return Some(Number(plain));
        }
        Some(Number(self.whole(digits).unwrap_or(plain.clone())))
    }

    /// The number with its country, where it is long enough to have one.
    fn whole(&self, digits: &str) -> Option<String> {
        let behind = |prefix: &str| digits.strip_prefix(prefix).filter(|_| !prefix.is_empty());
        let is_long = |digits: &&str| digits.len() >= NATIONAL_DIGITS_MIN && digits.bytes().all(|b| b.is_ascii_digit());
        if let Some(international) = behind(&self.international_prefix).filter(is_long) {
            return Some(format!("+{international}"));
        }
        if self.country_code.is_empty() {
            return None;
        }
        let national = behind(&self.national_prefix).filter(is_long)?;
        Some(format!("+{}{national}", self.country_code))
    }

    /// Whether it says which numbers are the organisation's own.
    pub fn has_internal(&self) -> bool {
        !self.internal.is_empty()
    }

    /// Whether a number is one of the organisation's own by its patterns, as it came or with its country.
    pub fn is_internal(&self, text: &str) -> bool {
        let whole = self.number(text).map(|number| number.0);
        self.internal
            .iter()
            .any(|pattern| pattern.matches(text.trim()) || whole.as_ref().is_some_and(|whole| pattern.matches(whole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn german() -> NumberingPlan {
        NumberingPlan::new("+49", "0", "00", ["72..", "+49301234!"].iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn one_number_written_in_many_ways() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(german().number(text).map(|number| number.0).as_deref(), expected, "{text}");
        }
        check("+49 30 1234-567", Some("+49301234567"));
        check("0049 30 1234567", Some("+49301234567"));
        check("(030) 1234567", Some("+49301234567"));
        check("tel:+49301234567;phone-context=x", Some("+49301234567"));
        check("sip:+49301234567@example.com;user=phone", Some("+49301234567"));
        check("7201", Some("7201"));
        // Neither an extension nor a service is made a number of the country.
        check("110", Some("110"));
        check("0110", Some("0110"));
        check("1234567", Some("1234567"));
        check("*21#", Some("*21#"));
        check("ann@example.com", None);
        check("", None);
        check("+", None);
    }

    #[test]
    fn the_organisations_own_numbers() {
        fn check(text: &str, expected: bool) {
            assert_eq!(german().is_internal(text), expected, "{text}");
        }
        check("7201", true);
        check("720", false);
        check("+49301234999", true);
        check("0301234999", true);
        check("0049 30 1234 999", true);
        check("+49301235999", false);
        check("", false);
    }

    #[test]
    fn without_a_country_only_whole_numbers_are_whole() {
        let plan = NumberingPlan::default();
        assert_eq!(plan.number("0301234567").unwrap().0, "0301234567");
        assert_eq!(plan.number("+4930").unwrap().0, "+4930");
    }
}

//! Patterns of numbers: which digits may stand where.
//!
//! Digits, `+`, `*` and `#` stand for themselves, `.` is one digit, `!` is any number of digits, none included, `[2-5]` is one of a set and
//! `[^2-5]` one digit that is not in it. A pattern is for the whole number.

use std::fmt;
use std::str::FromStr;

/// Characters of a pattern at most; numbers have fifteen digits (E.164).
const CHARS_MAX: usize = 100;

/// One place of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// This character.
    Is(char),
    /// A digit of these, by bit.
    OneOf(u16),
    /// Any digits, or none.
    Any,
}

/// All ten digits.
const DIGITS: u16 = 0b11_1111_1111;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    places: Vec<Place>,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {column}: {why}")]
pub struct PatternError {
    /// The character that is wrong, from 1.
    pub column: usize,
    /// What is wrong and what is right.
    pub why: String,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        let wrong = |at: usize, why: &str| Err(PatternError { column: at + 1, why: why.to_owned() });
        let chars: Vec<char> = text.chars().collect();
        if chars.is_empty() {
            return wrong(0, "a pattern is missing");
        }
        if chars.len() > CHARS_MAX {
            return wrong(CHARS_MAX, "a pattern has at most 100 characters");
        }
        let (mut places, mut at) = (Vec::new(), 0);
        while let Some(&c) = chars.get(at) {
            match c {
                '0'..='9' | '*' | '#' => places.push(Place::Is(c)),
                '+' if at == 0 => places.push(Place::Is(c)),
                '+' => return wrong(at, "a + can only be the first"),
                '.' => places.push(Place::OneOf(DIGITS)),
                // Two of them are one.
                '!' if places.last() == Some(&Place::Any) => {}
                '!' => places.push(Place::Any),
                '[' => {
                    let end = (at..chars.len()).find(|at| chars[*at] == ']');
                    let Some(end) = end else { return wrong(at, "this set does not end; a ] is missing") };
                    places.push(Place::OneOf(set(&chars[at + 1..end], at + 1)?));
                    at = end;
                }
                ']' => return wrong(at, "there is no [ before this"),
                _ => return wrong(at, "a pattern has digits, +, *, #, ., ! and sets like [2-5] or [^2-5]"),
            }
            at += 1;
        }
        Ok(Self { text: text.to_owned(), places })
    }
}

/// The digits of what stands between brackets, which begins at `first`.
fn set(inside: &[char], first: usize) -> Result<u16, PatternError> {
    let wrong = |at: usize, why: &str| PatternError { column: at + 1, why: why.to_owned() };
    let (negated, digits) = match inside {
        ['^', rest @ ..] => (true, rest),
        _ => (false, inside),
    };
    let begin = first + usize::from(negated);
    let digit = |at: usize| {
        let digit = digits.get(at).and_then(|c| c.to_digit(10));
        digit.ok_or_else(|| wrong(begin + at, "a set has digits and ranges like 2-5"))
    };
    let (mut found, mut at) = (0_u16, 0);
    while at < digits.len() {
        let low = digit(at)?;
        let high = if digits.get(at + 1) == Some(&'-') { digit(at + 2)? } else { low };
        if high < low {
            return Err(wrong(begin + at, "a range goes upwards"));
        }
        (low..=high).for_each(|digit| found |= 1 << digit);
        at += if digits.get(at + 1) == Some(&'-') { 3 } else { 1 };
    }
    let found = if negated { DIGITS & !found } else { found };
    if digits.is_empty() || found == 0 { Err(wrong(first, "no digit is in this set")) } else { Ok(found) }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// Whether a number is one of the pattern's. Separators do not count. The time is at most that of the product of both lengths.
    pub fn matches(&self, number: &str) -> bool {
        let number: Vec<char> = number.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')' | '/')).collect();
        // Where the last `!` stood, and from where on the number was left to what follows it.
        let (mut place, mut at, mut back): (usize, usize, Option<(usize, usize)>) = (0, 0, None);
        loop {
            match (self.places.get(place), number.get(at)) {
                (Some(Place::Any), _) => {
                    back = Some((place, at));
                    place += 1;
                }
                (Some(Place::Is(c)), Some(d)) if c == d => (place, at) = (place + 1, at + 1),
                (Some(Place::OneOf(set)), Some(d)) if d.to_digit(10).is_some_and(|d| set & (1 << d) != 0) => {
                    (place, at) = (place + 1, at + 1);
                }
                (None, None) => return true,
                _ => match back {
                    // The `!` takes one digit more.
                    Some((any, from)) if number.get(from).is_some_and(char::is_ascii_digit) => {
                        (place, at, back) = (any + 1, from + 1, Some((any, from + 1)));
                    }
                    _ => return false,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, matching: &str, others: &str) {
        let parsed: Pattern = pattern.parse().unwrap();
        for number in matching.split_whitespace() {
            assert!(parsed.matches(number), "{pattern} {number}");
        }
        for number in others.split_whitespace() {
            assert!(!parsed.matches(number), "not {pattern} {number}");
        }
    }

    #[test]
    fn numbers_of_a_pattern() {
        check("7100", "7100 71-00", "710 71000 +7100 x");
        check("72.", "720 729", "72 7200 72x 72+");
        check("8!", "8 80 8123456789", "7 +8 8x");
        check("!", "1 123", "+1 a");
        check("+49!", "+49 +4930123", "49 4930123 +4830");
        check("[2-5]..", "200 599", "100 600 20");
        check("[^2-5]", "1 6 0", "2 5");
        check("[135-7]", "1 3 5 6 7", "2 4 8");
        check("!00!", "00 1001 12300", "0 101");
        check("0!1!2", "012 0112 01002", "02 0121");
        check("*21#", "*21#", "21");
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        fn check(pattern: &str, column: usize, why: &str) {
            let error = pattern.parse::<Pattern>().unwrap_err();
            assert!(error.column == column && error.why.contains(why), "{pattern}: {error}");
        }
        check("", 1, "missing");
        check("71x", 3, "a pattern has digits");
        check("7+1", 2, "only be the first");
        check("7[2-5", 2, "does not end");
        check("7]", 2, "no [");
        check("[]", 2, "no digit");
        check("[^0-9]", 2, "no digit");
        check("[5-2]", 2, "upwards");
        check("[2-]", 4, "digits and ranges");
        check("[a]", 2, "digits and ranges");
        check("7 1", 2, "a pattern has digits");
        check(&"1".repeat(101), 101, "at most 100");
    }

    /// The meaning, without any care for time.
    fn is_match(places: &[Place], number: &[char]) -> bool {
        match (places.split_first(), number.split_first()) {
            (None, None) => true,
            (Some((Place::Any, rest)), next) => {
                is_match(rest, number) || next.is_some_and(|(d, left)| d.is_ascii_digit() && is_match(places, left))
            }
            (Some((Place::Is(c), rest)), Some((d, left))) => c == d && is_match(rest, left),
            (Some((Place::OneOf(set), rest)), Some((d, left))) => {
                d.to_digit(10).is_some_and(|d| set & (1 << d) != 0) && is_match(rest, left)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_it_means(pattern in "[+]?(1|2|[.]|!|\\[1\\]|\\[\\^2\\]){1,8}", number in "[+]?[123]{0,8}") {
            let parsed: Pattern = pattern.parse().unwrap();
            let chars: Vec<char> = number.chars().collect();
            prop_assert_eq!(parsed.matches(&number), is_match(&parsed.places, &chars));
        }

        #[test]
        fn no_text_panics(pattern in ".{0,30}", number in ".{0,30}") {
            if let Ok(parsed) = pattern.parse::<Pattern>() {
                let _ = parsed.matches(&number);
            }
        }
    }
}

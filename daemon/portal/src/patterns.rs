//! Patterns of numbers, tried before they are set: by the very code that decides about calls.

use callvault_directory::Pattern;
use serde::Deserialize;
use serde_json::{Value, json};

/// Patterns tried at once.
pub const PATTERNS_MAX: usize = 200;

/// Characters of the number: more than any has, with its separators.
pub const NUMBER_CHARS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    number: String,
    patterns: Vec<String>,
}

/// Answers `{"patterns": [{"pattern", "matches", "error"}]}` of `{"number", "patterns"}`: `matches` is null and `error` says what is wrong
/// where one is no pattern.
///
/// # Errors
/// What of the body is wrong, in words.
pub fn tried(body: &[u8]) -> Result<Value, &'static str> {
    let Body { number, patterns } =
        serde_json::from_slice(body).map_err(|_| "the body is {\"number\", \"patterns\"}")?;
    if number.chars().count() > NUMBER_CHARS_MAX {
        return Err("a number has at most 64 characters");
    }
    if patterns.len() > PATTERNS_MAX {
        return Err("at most 200 patterns are tried at once");
    }
    let one = |text: &String| match text.parse::<Pattern>() {
        Ok(pattern) => json!({"pattern": text, "matches": pattern.matches(&number), "error": null}),
        Err(error) => json!({"pattern": text, "matches": null, "error": error.to_string()}),
    };
    Ok(json!({"patterns": patterns.iter().map(one).collect::<Vec<_>>()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_tried_each_by_itself() {
        let check = |number: &str, pattern: &str, matches: Value, has_error: bool| {
            let body = json!({"number": number, "patterns": [pattern]}).to_string();
            let answer = tried(body.as_bytes()).unwrap();
            assert_eq!(answer["patterns"][0]["matches"], matches, "{number} {pattern}");
            assert_eq!(answer["patterns"][0]["error"].is_string(), has_error, "{number} {pattern}");
        };
        check("+49 30 123", "+49!", json!(true), false);
        check("+39 02 123", "+49!", json!(false), false);
        check("7100", "[9-2]", json!(null), true);
        check("", "7", json!(false), false);
    }

    #[test]
    fn what_is_too_much_is_not_tried() {
        let check = |number: &str, count: usize, is_tried: bool| {
            let body = json!({"number": number, "patterns": vec!["1"; count]}).to_string();
            assert_eq!(tried(body.as_bytes()).is_ok(), is_tried, "{count}");
        };
        check(&"1".repeat(64), 200, true);
        check(&"1".repeat(65), 1, false);
        check("1", 201, false);
        assert!(tried(b"{}").is_err() && tried(b"").is_err());
    }
}

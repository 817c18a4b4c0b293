//! Changing settings.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::route::json_in;
use crate::{ApiError, ErrorKind};

/// Settings changed at once: more than there are, and few enough to be looked at.
const CHANGES_MAX: usize = 500;

/// Changes of settings that are wanted. `Debug` shows no values, which may be secrets.
#[derive(Clone, PartialEq)]
pub struct ChangeSettings {
    /// The version that was looked at.
    pub version: String,
    /// For each key what it is to be: a text, a whole number, true or false, a list of texts; null takes out what was set in the portal.
    pub changes: Vec<(String, Value)>,
    /// Say only what would be changed.
    pub is_dry_run: bool,
    /// What was typed to show that it is meant.
    pub confirm: Option<String>,
}

impl fmt::Debug for ChangeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeSettings")
            .field("changes", &self.changes.len())
            .field("is_dry_run", &self.is_dry_run)
            .finish_non_exhaustive()
    }
}

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, text)
}

/// Whether a setting can be such a value.
fn is_value(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.is_i64(),
        Value::Array(entries) => entries.iter().all(Value::is_string),
        Value::Object(_) => false,
    }
}

/// `PUT /v1/settings`.
pub(crate) fn change(body: &[u8]) -> Result<ChangeSettings, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        version: String,
        changes: Map<String, Value>,
        #[serde(default)]
        dry_run: bool,
        confirm: Option<String>,
    }
    let Body { version, changes, dry_run, confirm } = json_in(body)?;
    if changes.is_empty() || changes.len() > CHANGES_MAX {
        return Err(bad("\"changes\" has 1 to 500 settings, each with what it is to be"));
    }
    if let Some((key, _)) = changes.iter().find(|(_, value)| !is_value(value)) {
        let key: String = key.chars().filter(|letter| !letter.is_control()).take(100).collect();
        let text = format!(
            "{key:?} is to be a text, a whole number, true, false, a list of texts, or null to take out what the portal set"
        );
        return Err(bad(text));
    }
    Ok(ChangeSettings { version, changes: changes.into_iter().collect(), is_dry_run: dry_run, confirm })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_or_said_what_is_wrong_with_it() {
        let check = |body: &str, expected: &str| {
            let found = change(body.as_bytes()).map_or_else(|error| error.message, |_| "fine".into());
            assert!(found.contains(expected), "{body}: {found}");
        };
        check(r#"{"version": "a", "changes": {"log.level": "debug", "mail.port": 25, "x": null, "y": ["z"]}}"#, "fine");
        check(
            r#"{"version": "a", "changes": {"log.level": "debug"}, "dry_run": true, "confirm": "log.level"}"#,
            "fine",
        );
        check(r#"{"version": "a", "changes": {}}"#, "1 to 500");
        check(r#"{"changes": {"log.level": "debug"}}"#, "not the JSON");
        check(r#"{"version": "a", "changes": {"log.level": 1.5}}"#, "\"log.level\" is to be");
        check(r#"{"version": "a", "changes": {"log.level": {"a": 1}}}"#, "\"log.level\" is to be");
        check(r#"{"version": "a", "changes": {"log.level": [1]}}"#, "\"log.level\" is to be");
        check(r#"{"version": "a", "changes": {"mail.port": 18446744073709551615}}"#, "\"mail.port\" is to be");
        check(r#"{"version": "a", "changes": ["log.level"]}"#, "not the JSON");
        check(r#"{"version": "a", "changes": {"log.level": "debug"}, "force": true}"#, "not the JSON");
        let many: Vec<String> = (0..501).map(|n| format!("\"k{n}\": 1")).collect();
        check(&format!(r#"{{"version": "a", "changes": {{{}}}}}"#, many.join(",")), "1 to 500");
        let secret = change(br#"{"version": "a", "changes": {"webex_rules.pin": "when adding 4711"}}"#).unwrap();
        assert!(!format!("{secret:?}").contains("4711"));
    }
}

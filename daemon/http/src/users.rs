//! What is asked about users, and about calls that were not kept.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::{
    ApiError, ErrorKind,
    route::{Query, json_in, non_empty, one_of, wrong},
};

/// Calls not kept that are listed, unless asked otherwise and at most.
const DISCARDS_DEFAULT: u32 = 100;
const DISCARDS_MAX: u32 = 1_000;

/// Users from a file. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UsersImport {
    /// The file.
    pub file: Vec<u8>,
    /// It is TOML, not CSV.
    pub is_toml: bool,
    /// Nothing is to be changed, only to be told.
    pub is_dry_run: bool,
    /// Users that are not in it go.
    pub removes_missing: bool,
    /// However many these are.
    pub removes_many: bool,
}

impl fmt::Debug for UsersImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsersImport").field("bytes", &self.file.len()).finish_non_exhaustive()
    }
}

/// Which calls that were not kept are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardsQuery {
    /// Only by this rule.
    pub rule: Option<String>,
    /// At most so many, 1 to 1000.
    pub limit: u32,
}

fn flag(query: &mut Query, name: &str) -> Result<bool, ApiError> {
    let word = query.take(name).map(|text| one_of(name, text, &["yes", "no"])).transpose()?;
    Ok(word.as_deref() == Some("yes"))
}

/// `GET /v1/users`.
pub(crate) fn list(query: &str) -> Result<bool, ApiError> {
    flag(&mut Query::parse(query, &["removed"])?, "removed")
}

/// `POST /v1/users/import`.
pub(crate) fn import(query: &str, body: &[u8]) -> Result<UsersImport, ApiError> {
    let mut query = Query::parse(query, &["form", "dry_run", "remove_missing", "remove_many"])?;
    let form = query.take("form").map(|text| one_of("form", text, &["csv", "toml"])).transpose()?;
    Ok(UsersImport {
        file: body.to_vec(),
        is_toml: form.as_deref() == Some("toml"),
        is_dry_run: flag(&mut query, "dry_run")?,
        removes_missing: flag(&mut query, "remove_missing")?,
        removes_many: flag(&mut query, "remove_many")?,
    })
}

/// `PUT /v1/users/EMAIL`: an object of fields. Lists may be lists, yes and no may be true and false, and null empties a field.
pub(crate) fn values(body: &[u8]) -> Result<BTreeMap<String, String>, ApiError> {
    let given: BTreeMap<String, Value> = json_in(body)?;
    let text = |name: String, value: Value| {
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text,
            Value::Bool(is_so) => if is_so { "yes" } else { "no" }.to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Array(list) => {
                let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                texts.ok_or_else(|| bad("a list of a user's has texts in it"))?.join(";")
            }
            Value::Object(_) => return Err(bad("no field of a user is an object")),
        };
        Ok((name, text))
    };
    given.into_iter().map(|(name, value)| text(name, value)).collect()
}

fn bad(text: &str) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, text)
}

/// `GET /v1/discards`.
pub(crate) fn discards(query: &str) -> Result<DiscardsQuery, ApiError> {
    let mut query = Query::parse(query, &["rule", "limit"])?;
    let limit = query.take("limit").map(|text| match text.parse() {
        Ok(limit @ 1..=DISCARDS_MAX) => Ok(limit),
        _ => Err(wrong("limit", "a number from 1 to 1000")),
    });
    let rule = non_empty("rule", query.take("rule"), "the name of a rule, for example blacklist")?;
    Ok(DiscardsQuery { rule, limit: limit.transpose()?.unwrap_or(DISCARDS_DEFAULT) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_texts_whatever_they_came_as() {
        let check = |body: &str, expected: Option<&[(&str, &str)]>| {
            let found = values(body.as_bytes()).ok();
            let expected = expected.map(|pairs| {
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
            });
            assert_eq!(found, expected, "{body}");
        };
        check(r#"{"group": "Sales", "pin": null}"#, Some(&[("group", "Sales"), ("pin", "")]));
        check(r#"{"supervised_groups": ["a", "b"]}"#, Some(&[("supervised_groups", "a;b")]));
        check(r#"{"notify": true, "numeric_user_id": 7}"#, Some(&[("notify", "yes"), ("numeric_user_id", "7")]));
        check(r#"{"supervised_groups": [1]}"#, None);
        check(r#"{"group": {}}"#, None);
        check("[]", None);
        check("", None);
    }
}

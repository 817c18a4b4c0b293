//! What is asked about users.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    ApiError,
    route::{Query, json_in, non_empty, time, wrong},
};

/// Calls not kept that are listed, unless asked otherwise and at most.
const DISCARDS_DEFAULT: u32 = 100;
const DISCARDS_MAX: u32 = 1_000;

/// Which calls that were not kept are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardsQuery {
    /// Only by this rule.
    pub rule: Option<String>,
    /// Entered at or after, which is at the end of the call.
    pub from: Option<Timestamp>,
    /// Entered before.
    pub to: Option<Timestamp>,
    /// At most so many, 1 to 1000.
    pub limit: u32,
}

/// Users to be imported from a file. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserImport {
    /// The file's name; its ending says what it is.
    pub name: String,
    /// What is in it.
    #[serde(deserialize_with = "bytes_of_text")]
    pub content: Vec<u8>,
    /// Only tell what would be done.
    #[serde(default, rename = "dry_run")]
    pub is_dry_run: bool,
    /// Users that are not in the file go.
    #[serde(default, rename = "remove_missing")]
    pub removes_missing: bool,
    /// It is meant, although unusually many would go.
    #[serde(default, rename = "confirm")]
    pub is_confirmed: bool,
}

fn bytes_of_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    String::deserialize(deserializer).map(String::into_bytes)
}

impl fmt::Debug for UserImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserImport").field("bytes", &self.content.len()).finish_non_exhaustive()
    }
}

pub(crate) fn import(body: &[u8]) -> Result<UserImport, ApiError> {
    json_in(body)
}

/// Fields with their values, all of them texts.
pub(crate) fn fields(body: &[u8]) -> Result<Vec<(String, String)>, ApiError> {
    json_in::<BTreeMap<String, String>>(body).map(|fields| fields.into_iter().collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Picture {
    base64: String,
}

/// A picture, in base64.
pub(crate) fn picture(body: &[u8]) -> Result<String, ApiError> {
    json_in::<Picture>(body).map(|picture| picture.base64)
}

/// `GET /v1/discards`.
pub(crate) fn discards(query: &str) -> Result<DiscardsQuery, ApiError> {
    let mut query = Query::parse(query, &["rule", "from", "to", "limit"])?;
    let limit = query.take("limit").map(|text| match text.parse() {
        Ok(limit @ 1..=DISCARDS_MAX) => Ok(limit),
        _ => Err(wrong("limit", "a number from 1 to 1000")),
    });
    let rule = non_empty("rule", query.take("rule"), "the name of a rule, for example blacklist")?;
    let (from, to) = (time("from", query.take("from"))?, time("to", query.take("to"))?);
    Ok(DiscardsQuery { rule, from, to, limit: limit.transpose()?.unwrap_or(DISCARDS_DEFAULT) })
}

//! What is asked about users.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use crate::{ApiError, route::json_in};

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

//! Whether the store is there, without making one or believing in a folder that is not it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::store::IDENTITY_NAME;
use crate::stores::{Known, Record};

/// How the store stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there and the right one, this one.
    There(Known),
    /// It is expected and not there, or another one is; why.
    Away(String),
    /// None was ever used: there are no archives.
    New,
}

impl Standing {
    /// Looks at the store in the folder `store`; `data` is the data folder, which says which store is expected.
    pub(super) fn of(known: &Known, data: &Path) -> Self {
        let store = known.path.as_path();
        let read = |path: &Path| fs::read(path).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let (expected, found) =
            (read(&data.join(Record::expected_name(&known.name))), read(&store.join(IDENTITY_NAME)));
        let shown = store.display();
        match (expected, found) {
            (Some(expected), Some(found)) if expected != found => {
                Self::Away(format!("the store {shown} is another one than the one that was used so far"))
            }
            // Without a word of what is expected, the data folder is a new one and the store an old one: the case of a lost disk.
            (_, Some(_)) => Self::There(known.clone()),
            (Some(_), None) => {
                Self::Away(format!("the store {shown} is not there: its identity file {IDENTITY_NAME} is missing"))
            }
            (None, None) => Self::New,
        }
    }
}

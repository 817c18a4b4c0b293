//! Settings that are others than at the start before are in the audit log: whoever changed the file, it was changed.
//!
//! What is remembered of each setting is its SHA-256. An entry has the names of those that changed, and the values where they say who may
//! do what and how long things are kept; others may be passwords.

use callvault_access::audit::{DETAILS_MAX, Entry};
use callvault_access::{Action, Caller};
use callvault_catalogue::{Catalogue, CatalogueError};
use callvault_config::Config;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Sections of which the values are told.
const TOLD: [&str; 3] = ["permissions.", "recording.", "retention."];

/// Compares the settings with those of the start before.
pub(super) fn note_changes(config: &Config, catalogue: &Catalogue) -> Result<(), CatalogueError> {
    let hash = |value: &str| {
        let hash = Sha256::digest(value.as_bytes());
        hash.iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    };
    let now: Map<String, Value> =
        config.effective().iter().map(|setting| (setting.key.to_owned(), json!(hash(&setting.value)))).collect();
    let before = catalogue.settings_seen()?;
    if before.as_ref().and_then(Value::as_object) == Some(&now) {
        return Ok(());
    }
    // A setting that a version before did not have has not been changed by anybody.
    let was = before.as_ref().and_then(Value::as_object);
    let changed: Vec<_> = config
        .effective()
        .iter()
        .filter(|setting| was.and_then(|was| was.get(setting.key)).is_some_and(|was| now.get(setting.key) != Some(was)))
        .collect();
    let entry = (!changed.is_empty()).then(|| {
        let entry = Entry::new(&Caller::appliance("configuration"), Action::Settings, Timestamp::now());
        let left_out = changed.len().saturating_sub(DETAILS_MAX - 1);
        let entry = changed.iter().take(DETAILS_MAX - 1).fold(entry, |entry, setting| {
            let is_told = TOLD.iter().any(|section| setting.key.starts_with(section));
            entry.with(setting.key, if is_told { setting.value.as_str() } else { "changed" })
        });
        if left_out > 0 { entry.with("others", left_out.to_string()) } else { entry }
    });
    catalogue.see_settings(&Value::Object(now), entry.as_ref())
}

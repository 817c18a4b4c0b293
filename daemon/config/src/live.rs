//! What a change of the configuration does to an appliance that runs: some keys take effect at once, the others with the next start.

use std::path::PathBuf;

use crate::error::ConfigError;
use crate::layers::{Merged, of_entries};
use crate::{Config, Effective, cross_check, schema};

/// What takes effect at once: keys, and sections by their name and a dot. Whatever uses one of these looks at it anew each time.
/// Everything else is opened, bound, or handed to a recorder at the start: addresses, folders, ports, limits of the recorder.
const AT_ONCE: &[&str] = &[
    "organisation.",
    "recording.",
    "filters.",
    "directory.",
    "mail.",
    "webex.",
    "webex_rules.",
    "archive.codec",
    "archive.complexity",
    "archive.bit_rate",
    "render.timeout",
    "render.mask_tones",
    "render.ffmpeg",
    "log.level",
];

/// Ends of the names of keys whose value is a secret itself, and is never shown. Most secrets are in files of their own.
const SECRET_ENDS: &[&str] = &["password", "secret", "token", "pin"];

/// What is shown in the place of a secret.
pub(crate) const HIDDEN: &str = "\"(hidden)\"";

/// Whether a change of this key takes effect while the appliance runs.
#[must_use]
pub fn takes_effect_at_once(key: &str) -> bool {
    AT_ONCE.iter().any(|entry| *entry == key || entry.ends_with('.') && key.starts_with(entry))
}

/// Whether the value of this key must not be shown.
pub(crate) fn is_secret(key: &str) -> bool {
    SECRET_ENDS.iter().any(|end| key.ends_with(end))
}

impl Config {
    /// This configuration, with those values of `changed` that take effect at once: what an appliance that was started with this one
    /// works with after the change.
    ///
    /// # Errors
    /// What does not go together, where the change is good only as a whole, which needs a restart.
    pub fn changed_to(&self, changed: &Self) -> Result<Self, Vec<ConfigError>> {
        let new = |old: &Effective| changed.effective().iter().find(|entry| entry.key == old.key);
        let entries = self.effective().iter().map(|old| match new(old) {
            Some(new) if takes_effect_at_once(old.key) => new.clone(),
            _ => old.clone(),
        });
        let mixed = Self::of_entries(&entries.collect::<Vec<_>>(), self.base.clone())?;
        Ok(Self { file: self.file.clone(), from_portal: changed.from_portal.clone(), ..mixed })
    }

    fn of_entries(entries: &[Effective], base: PathBuf) -> Result<Self, Vec<ConfigError>> {
        let merged: Merged = of_entries(entries)?;
        let config = schema::build(&merged, &base)?;
        let errors = cross_check::errors(&config, &merged);
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }

    /// The keys whose values differ from those of `other`.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let value = |key: &str| other.effective().iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        self.effective().iter().filter(|entry| value(entry.key) != Some(&entry.value)).map(|entry| entry.key).collect()
    }
}

impl Effective {
    /// The value as it may be shown: in TOML notation, or a word in its place where it is a secret.
    #[must_use]
    pub fn shown(&self) -> &str {
        if self.is_secret() { HIDDEN } else { &self.value }
    }

    /// Whether its value must not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        is_secret(self.key)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_entry_names_a_key_or_a_section_that_there_is() {
        for entry in AT_ONCE {
            assert!(schema::keys().any(|spec| spec.key == *entry || spec.key.starts_with(entry)), "{entry}");
        }
    }

    #[test]
    fn what_is_opened_at_the_start_waits_for_the_next() {
        let check = |key: &str, expected: bool| {
            assert!(schema::keys().any(|spec| spec.key == key), "{key}");
            assert_eq!(takes_effect_at_once(key), expected, "{key}");
        };
        check("log.level", true);
        check("recording.mode", true);
        check("archive.bit_rate", true);
        check("log.personal_data", false);
        check("sip.udp", false);
        check("media.ports", false);
        check("data_dir", false);
        check("store.path", false);
        check("http.listen", false);
    }

    #[test]
    fn a_change_brings_what_takes_effect_at_once_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            let path = folder.path().join("callvault.toml");
            std::fs::write(&path, text).unwrap();
            Config::load(&path, []).unwrap()
        };
        let started = load("[store]\npath = \"archives\"\n[recording]\nmode = \"always\"\n");
        let changed = load(
            "[store]\npath = \"elsewhere\"\n[recording]\nmode = \"on-demand\"\non_demand_users = [\"ann\", \"7100\"]\n",
        );
        assert_eq!(changed.differing(&started), ["recording.mode", "recording.on_demand_users", "store.path"]);
        let now = started.changed_to(&changed).unwrap();
        assert_eq!(now.recording, changed.recording);
        assert_eq!(now.store, started.store);
        assert_eq!(now.store_path(), folder.path().join("archives"));
        assert_eq!(changed.differing(&now), ["store.path"]);
        let origin = |key: &str| now.effective().iter().find(|entry| entry.key == key).unwrap().origin.clone();
        assert!(origin("recording.mode").ends_with("callvault.toml:4"), "{}", origin("recording.mode"));
        assert!(origin("store.path").ends_with("callvault.toml:2"), "{}", origin("store.path"));
        assert_eq!(started.changed_to(&started).unwrap(), started);
    }

    #[test]
    fn all_defaults_survive_the_way() {
        let defaults = Config::defaults(Path::new("/etc/callvault"));
        assert_eq!(defaults.changed_to(&defaults).unwrap(), defaults);
    }

    #[test]
    fn a_secret_is_never_shown() {
        let entry = |key| Effective { key, value: "\"hunter2\"".into(), origin: "default".into() };
        assert_eq!(entry("sink.password").shown(), HIDDEN);
        assert_eq!(entry("mail.password_file").shown(), "\"hunter2\"");
    }
}

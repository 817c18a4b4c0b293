//! The settings in force: those that the appliance was started with, and of a later configuration that was found good whatever takes
//! effect while it runs. Whoever works by one takes a snapshot for each piece of work, so no work sees half of a change.

use std::sync::{Arc, PoisonError, RwLock};

use callvault_config::{Config, Effective, render_errors, schema, takes_effect_at_once};
use serde_json::{Value, json};

/// The settings in force, and the configuration as it was last found good.
#[derive(Debug)]
pub(crate) struct Settings {
    started: Arc<Config>,
    now: RwLock<Now>,
}

#[derive(Debug, Clone)]
struct Now {
    in_force: Arc<Config>,
    latest: Arc<Config>,
}

/// What a change did, by the names of the keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// These are other than they were, from now on.
    pub(crate) at_once: Vec<&'static str>,
    /// These are other with the next start.
    pub(crate) waiting: Vec<&'static str>,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        let config = Arc::new(config.clone());
        let now = Now { in_force: Arc::clone(&config), latest: Arc::clone(&config) };
        Self { started: config, now: RwLock::new(now) }
    }

    /// The settings in force.
    pub(crate) fn in_force(&self) -> Arc<Config> {
        self.now().in_force
    }

    fn now(&self) -> Now {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a configuration that was found good, as a whole or not at all.
    ///
    /// # Errors
    /// Why what takes effect at once does not go together with what stays until the next start.
    pub(crate) fn take(&self, latest: Config) -> Result<Change, String> {
        let in_force = self.started.changed_to(&latest).map_err(|errors| {
            let text = render_errors(&errors);
            let text = text.lines().next().unwrap_or_default();
            format!("failed to use the changed configuration while the appliance runs, restart it to use it as a whole: {text}")
        })?;
        let before = self.now();
        let change = Change {
            at_once: in_force.differing(&before.in_force),
            waiting: latest.differing(&before.latest).into_iter().filter(|key| !takes_effect_at_once(key)).collect(),
        };
        let now = Now { in_force: Arc::new(in_force), latest: Arc::new(latest) };
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(change)
    }

    /// Every key with the value in force, where that was set, and when a change takes effect; and what waits for a restart.
    ///
    /// | field of an entry | meaning |
    /// |---|---|
    /// | `key`, `value` | the value in force in TOML notation; a secret is not shown |
    /// | `origin` | `default`, `FILE:LINE`, or the variable's name |
    /// | `default` | the built-in value |
    /// | `takes_effect` | of a change: `at once` or `restart` |
    /// | `waiting` | `value` and `origin` in the configuration that waits for a restart; null where it is the same |
    pub(crate) fn json(&self) -> Vec<Value> {
        let now = self.now();
        let waiting = |key: &str| now.latest.effective().iter().find(|entry| entry.key == key);
        let entry = |entry: &Effective| {
            let waiting = waiting(entry.key)
                .filter(|waiting| waiting.value != entry.value)
                .map(|waiting| json!({"value": waiting.shown(), "origin": waiting.origin}));
            json!({
                "key": entry.key, "value": entry.shown(), "origin": entry.origin,
                "default": schema::keys().find(|spec| spec.key == entry.key).map(|spec| spec.default),
                "takes_effect": if takes_effect_at_once(entry.key) { "at once" } else { "restart" },
                "waiting": waiting,
            })
        };
        now.in_force.effective().iter().map(entry).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use callvault_config::{ArchiveCodec, Config};

    use super::*;

    #[test]
    fn a_change_is_in_the_next_snapshot_or_waits() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            let path = folder.path().join("callvault.toml");
            std::fs::write(&path, text).unwrap();
            Config::load(&path, []).unwrap()
        };
        let settings = Settings::new(&load(""));
        let before = settings.in_force();
        let change = settings.take(load("[archive]\ncodec = \"as-received\"\n[limits]\nsessions_max = 7\n")).unwrap();
        assert_eq!(change, Change { at_once: vec!["archive.codec"], waiting: vec!["limits.sessions_max"] });
        assert_eq!(before.archive.codec, ArchiveCodec::Opus, "work that was begun goes on as it was begun");
        assert_eq!(settings.in_force().archive.codec, ArchiveCodec::AsReceived);
        assert_eq!(settings.in_force().limits.sessions_max, 2000);
        let shown = settings.json();
        let entry = |key: &str| shown.iter().find(|entry| entry["key"] == key).unwrap();
        assert_eq!(entry("archive.codec")["value"], "\"as-received\"");
        assert_eq!(entry("archive.codec")["takes_effect"], "at once");
        assert!(entry("archive.codec")["origin"].as_str().unwrap().ends_with("callvault.toml:2"));
        assert_eq!(entry("limits.sessions_max")["value"], "2000");
        assert_eq!(entry("limits.sessions_max")["waiting"]["value"], "7");
        assert_eq!(entry("log.level")["waiting"], Value::Null);
        assert_eq!(shown.len(), schema::keys().count());
        let change = settings.take(load("")).unwrap();
        assert_eq!(change, Change { at_once: vec!["archive.codec"], waiting: vec!["limits.sessions_max"] });
        assert_eq!(settings.take(load("# nothing\n")).unwrap(), Change::default());
    }
}

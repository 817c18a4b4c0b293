//! The settings in force: those that the appliance was started with, and of a later configuration that was found good whatever takes
//! effect while it runs. Whoever works by one takes a snapshot for each piece of work, so no work sees half of a change.

pub(crate) mod changing;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use callvault_config::{
    Config, ConfigError, Effective, KeySpec, LogLevel, Wanted, render_errors, schema, takes_effect_at_once,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Sets the level of the log.
pub(crate) type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// The settings in force, and the configuration as it was last found good.
pub(crate) struct Settings {
    started: Arc<Config>,
    now: RwLock<Now>,
    /// Held while files are looked at and taken, and while they are written: what is checked is what is taken.
    changing: Mutex<()>,
    /// Nothing where something stronger than the configuration sets the level.
    pub(crate) set_level: OnceLock<SetLevel>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
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
        Self { started: config, now: RwLock::new(now), changing: Mutex::default(), set_level: OnceLock::new() }
    }

    /// The settings in force.
    pub(crate) fn in_force(&self) -> Arc<Config> {
        self.now().in_force
    }

    /// The configuration as it was last found good: what the files say.
    pub(crate) fn latest(&self) -> Arc<Config> {
        self.now().latest
    }

    /// To be held while the files are looked at and changed.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What would be in force after the change, without a restart.
    ///
    /// # Errors
    /// What does not go together until the restart.
    pub(crate) fn mixed(&self, latest: &Config) -> Result<Config, Vec<ConfigError>> {
        self.started.changed_to(latest)
    }

    fn now(&self) -> Now {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a configuration that was found good, as a whole or not at all.
    ///
    /// # Errors
    /// Why what takes effect at once does not go together with what stays until the next start.
    pub(crate) fn take(&self, latest: Config) -> Result<Change, String> {
        let in_force = self.mixed(&latest).map_err(|errors| {
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
    /// | `doc`, `shape`, `range` | what it means; what a value looks like; the least and the greatest, or null |
    /// | `choices` | the words that it can be, where these are all |
    /// | `kind` | `flag`, `number`, `text` or `list`: as what it is changed |
    /// | `set` | what the files say, as JSON; null for a secret |
    /// | `in_portal` | whether it was set in the portal |
    /// | `fixed` | why it cannot be changed in the portal: `by` (`machine`, `variable`, `file`) and `text`; null where it can |
    pub(crate) fn json(&self) -> Vec<Value> {
        let now = self.now();
        let latest = |key: &str| now.latest.effective().iter().find(|entry| entry.key == key);
        let entry = |entry: &Effective| {
            let latest = latest(entry.key).unwrap_or(entry);
            let waiting = Some(latest)
                .filter(|waiting| waiting.value != entry.value)
                .map(|waiting| json!({"value": waiting.shown(), "origin": waiting.origin}));
            let fixed = now.latest.fixed(latest);
            let spec = schema::keys().find(|spec| spec.key == entry.key);
            json!({
                "key": entry.key, "value": entry.shown(), "origin": entry.origin,
                "default": spec.map(|spec| spec.default),
                "takes_effect": if takes_effect_at_once(entry.key) { "at once" } else { "restart" },
                "waiting": waiting,
                "doc": spec.map(|spec| doc(spec.doc)),
                "shape": spec.map(|spec| spec.shape),
                "range": spec.and_then(|spec| spec.range),
                "choices": spec.map(|spec| spec.choices),
                "kind": spec.map_or("text", kind),
                "set": plain(latest),
                "in_portal": now.latest.is_set_in_portal(entry.key),
                "fixed": fixed.map(|fixed| json!({"by": fixed.as_str(), "text": fixed.text()})),
            })
        };
        now.in_force.effective().iter().map(entry).collect()
    }
}

/// The version of what the files say: another one for any other value, or the same one from another place.
pub(crate) fn version(config: &Config) -> String {
    let mut hash = Sha256::new();
    for entry in config.effective() {
        let file = entry.origin.rsplit_once(':').map_or(entry.origin.as_str(), |(file, _)| file);
        for part in [entry.key, &entry.value, file] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.update([u8::from(config.is_set_in_portal(entry.key))]);
    }
    hash.finalize().iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The documentation as one text.
fn doc(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// As what a key is changed. A number is one whose every value is.
fn kind(spec: &KeySpec) -> &'static str {
    match Wanted::of_toml(spec.default) {
        Some(Wanted::Flag(_)) => "flag",
        Some(Wanted::Number(_)) if spec.range.is_some() => "number",
        Some(Wanted::List(_)) => "list",
        _ => "text",
    }
}

/// A value as JSON; null for a secret.
fn plain(entry: &Effective) -> Value {
    if entry.is_secret() {
        return Value::Null;
    }
    match Wanted::of_toml(&entry.value) {
        Some(Wanted::Text(text)) => json!(text),
        Some(Wanted::Number(number)) => json!(number),
        Some(Wanted::Flag(flag)) => json!(flag),
        Some(Wanted::List(texts)) => json!(texts),
        None => Value::Null,
    }
}

/// The sections, in the order of the documentation.
pub(crate) fn sections() -> Vec<Value> {
    schema::sections().map(|(name, about, _)| json!({"name": name, "about": doc(about)})).collect()
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

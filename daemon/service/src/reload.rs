//! Watches the configuration and the certificates of SIP over TLS: when a file of the configuration changes, the whole is checked. What is wrong is said in the log, with file and
//! line, and shown by health, and the configuration in force stays; what is good takes effect with the next start, but for
//! `log.level`, which does so at once. Certificates that changed are in force at once (`certificates.rs`).
//!
//! The file system's events are a hint that makes it quick; a look now and then is what can be relied on, since shares and some
//! editors send none.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use callvault_config::{Config, LogLevel, environment, render_errors};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::appliance::{Appliance, Bell};
use crate::certificates::{self, CertificateFiles, CertificateWatch};
use crate::sd_notify;

/// How often the files are read without being told to.
const LOOK: Duration = Duration::from_secs(60);

/// An editor needs a moment to be done with a file.
const SETTLE: Duration = Duration::from_millis(300);

/// The only key that takes effect at once.
const LEVEL_KEY: &str = "log.level";

/// Part under which health shows what is wrong.
const PART: &str = "configuration";

/// What the watch needs.
pub(crate) struct Reload {
    /// The configuration file.
    pub(crate) path: PathBuf,
    /// Sets the level of the log; none when something stronger than the configuration set it.
    pub(crate) set_level: Option<Box<dyn Fn(LogLevel) + Send>>,
    /// The certificates of SIP over TLS.
    pub(crate) certificates: CertificateWatch,
}

impl Reload {
    /// Watches until the appliance stops; `bell` is rung by SIGHUP and by the file system.
    pub(crate) fn run(mut self, appliance: &Appliance) {
        let _watcher = watch(&self.folders(), &appliance.reload);
        let mut watched = Watched::new(appliance.config.clone());
        let mut heard = 0;
        loop {
            let rung = appliance.reload.wait(heard, LOOK);
            if appliance.stopping.load(Ordering::Relaxed) {
                return;
            }
            if rung > heard {
                appliance.stop_bell.wait(0, SETTLE);
            }
            heard = rung;
            self.certificates.look(certificates::unix_s(), &appliance.notes, &appliance.metrics);
            let loaded = Config::load(&self.path, environment()).map_err(|errors| render_errors(&errors));
            match watched.look(loaded) {
                Outcome::Same => {}
                Outcome::Good(changed) => {
                    appliance.notes.clear(PART);
                    self.tell(&watched.latest, &changed);
                }
                Outcome::Bad(text) => appliance.notes.set(PART, text),
            }
            sd_notify::reloaded();
        }
    }

    /// The folders in which changes show.
    fn folders(&self) -> Vec<PathBuf> {
        let configuration = std::path::absolute(&self.path).ok().and_then(|path| path.parent().map(Path::to_path_buf));
        let mut folders: Vec<PathBuf> = configuration.into_iter().flat_map(|at| [at.join("conf.d"), at]).collect();
        let certificates = self.certificates.files().into_iter().flat_map(CertificateFiles::folders);
        folders.extend(certificates.map(Path::to_path_buf));
        folders.sort();
        folders.dedup();
        folders
    }

    fn tell(&self, latest: &Config, changed: &[String]) {
        let (at_once, later): (Vec<&String>, Vec<&String>) =
            changed.iter().partition(|key| *key == LEVEL_KEY && self.set_level.is_some());
        if let (false, Some(set)) = (at_once.is_empty(), &self.set_level) {
            set(latest.log.level);
            tracing::warn!("the configuration changed: log.level is now {}", latest.log.level.as_str());
        }
        if !later.is_empty() {
            let keys: Vec<&str> = later.iter().map(|key| key.as_str()).collect();
            tracing::warn!("the configuration changed; with the next start take effect: {}", keys.join(", "));
        }
        for remark in latest.remarks() {
            tracing::warn!("{remark}");
        }
    }
}

/// What a look at the files showed.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The same as before.
    Same,
    /// It is good; these keys differ from what was there before.
    Good(Vec<String>),
    /// It cannot be used.
    Bad(String),
}

/// The configuration as last seen.
struct Watched {
    latest: Config,
    is_bad: bool,
}

impl Watched {
    fn new(config: Config) -> Self {
        Self { latest: config, is_bad: false }
    }

    fn look(&mut self, loaded: Result<Config, String>) -> Outcome {
        let config = match loaded {
            Ok(config) => config,
            Err(text) => {
                self.is_bad = true;
                let text = text.trim_end().replace('\n', "; ");
                return Outcome::Bad(format!(
                    "failed to use the changed configuration, the one before stays in force: {text}"
                ));
            }
        };
        let value = |of: &Config, key: &str| of.effective().iter().find(|e| e.key == key).map(|e| e.value.clone());
        let changed: Vec<String> = config
            .effective()
            .iter()
            .filter(|e| value(&self.latest, e.key).as_ref() != Some(&e.value))
            .map(|e| e.key.to_owned())
            .collect();
        let was_bad = std::mem::take(&mut self.is_bad);
        self.latest = config;
        if changed.is_empty() && !was_bad { Outcome::Same } else { Outcome::Good(changed) }
    }
}

/// Rings when something happens in these folders. Without it there is the look now and then.
fn watch(folders: &[PathBuf], bell: &Bell) -> Option<RecommendedWatcher> {
    let bell = bell.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too, and we read them.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            bell.ring();
        }
    });
    let mut watcher = watcher.inspect_err(|error| tracing::debug!(%error, "the configuration is not watched")).ok()?;
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::debug!(%error, "a folder of the configuration is not watched");
        }
    }
    Some(watcher)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use callvault_config::{Config, render_errors};

    use super::{Outcome, Watched};

    fn load(folder: &Path, text: &str) -> Result<Config, String> {
        let path = folder.join("callvault.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path, []).map_err(|errors| render_errors(&errors))
    }

    #[test]
    fn a_change_is_told_once_and_a_mistake_keeps_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut watched = Watched::new(load(folder.path(), "").unwrap());
        let mut look = |text: &str| watched.look(load(folder.path(), text));
        assert_eq!(look("# a remark\n"), Outcome::Same);
        assert_eq!(look("[log]\nlevel = \"debug\"\n"), Outcome::Good(vec!["log.level".into()]));
        assert_eq!(look("[log]\nlevel = \"debug\"\n"), Outcome::Same);
        let Outcome::Bad(text) = look("[log]\nlevle = \"debug\"\n") else { panic!("a typing mistake was accepted") };
        assert!(text.contains("callvault.toml:2") && text.contains("log.level"), "{text}");
        assert_eq!(look("[log]\nlevel = \"debug\"\n"), Outcome::Good(Vec::new()));
        assert_eq!(look("[log]\nlevel = \"info\"\n"), Outcome::Good(vec!["log.level".into()]));
    }
}

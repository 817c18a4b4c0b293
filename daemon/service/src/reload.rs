//! Watches the configuration and the certificates of SIP over TLS: when a file of the configuration changes, the whole is checked. What is wrong is said in the log, with file and
//! line, and shown by health, and the configuration in force stays, as a whole; of what is good, some keys take effect at once
//! (`settings.rs`), the others with the next start. Certificates that changed are in force at once (`certificates.rs`).
//!
//! The file system's events are a hint that makes it quick; a look now and then is what can be relied on, since shares and some
//! editors send none.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use callvault_access::{Action, Caller};
use callvault_config::{Config, ConfigError, environment, render_errors};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::appliance::{Appliance, Bell};
use crate::certificates::{self, CertificateFiles, CertificateWatch};
use crate::mailing;
use crate::sd_notify;
use crate::settings::{Change, Settings};

/// How often the files are read without being told to.
const LOOK: Duration = Duration::from_secs(60);

/// An editor needs a moment to be done with a file.
const SETTLE: Duration = Duration::from_millis(300);

/// The key that takes effect by being told to the log.
const LEVEL_KEY: &str = "log.level";

/// Part under which health shows what is wrong.
pub(crate) const PART: &str = "configuration";

/// What the watch needs.
pub(crate) struct Reload {
    /// The certificates of SIP over TLS.
    pub(crate) certificates: CertificateWatch,
}

impl Reload {
    /// Watches until the appliance stops; `bell` is rung by SIGHUP and by the file system.
    pub(crate) fn run(mut self, appliance: &Appliance) {
        let mut folders = self.folders(&appliance.settings());
        let mut watcher = watch(&folders, &appliance.reload);
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
            let taken = {
                let _one_at_a_time = appliance.settings.changing();
                take_files(appliance)
            };
            if taken.is_ok() {
                let now = self.folders(&appliance.settings());
                if now != folders {
                    // The one before ends first: what it has to say is said by the one that follows.
                    drop(watcher.take());
                    watcher = watch(&now, &appliance.reload);
                    folders = now;
                }
            }
            sd_notify::reloaded();
        }
    }

    /// The folders in which changes show.
    fn folders(&self, settings: &Config) -> Vec<PathBuf> {
        let configuration =
            std::path::absolute(settings.file()).ok().and_then(|path| path.parent().map(Path::to_path_buf));
        let mut folders: Vec<PathBuf> = configuration.into_iter().flat_map(|at| [at.join("conf.d"), at]).collect();
        folders.extend(settings.portal_file().parent().map(Path::to_path_buf));
        let certificates = self.certificates.files().into_iter().flat_map(CertificateFiles::folders);
        folders.extend(certificates.map(Path::to_path_buf));
        folders.extend(settings.mail.templates.clone());
        folders.sort();
        folders.dedup();
        folders
    }
}

/// Looks at the files and takes what they say, if it is good; what changed is told and in the audit log. To be called with
/// [`Settings::changing`] held.
///
/// # Errors
/// Why the settings stay as they were, which health shows too.
pub(crate) fn take_files(appliance: &Appliance) -> Result<(), String> {
    let loaded = Config::load(appliance.config.file(), environment());
    let change = take(&appliance.settings, loaded).inspect_err(|text| appliance.notes.set(PART, text.clone()))?;
    appliance.notes.clear(PART);
    mailing::look_at_templates(appliance);
    if let Some(change) = change {
        tell(&appliance.settings, &change);
        let entry = appliance.entry(&Caller::appliance("settings"), Action::Settings);
        let [in_force, waiting] = [&change.at_once, &change.waiting].map(|keys| keys.join(" "));
        // When it cannot be written, that is said, and access is refused until it can be.
        let _ = appliance.audit(&entry.with("in-force", in_force).with("with-restart", waiting));
    }
    Ok(())
}

fn tell(settings: &Settings, change: &Change) {
    let (in_force, set_level) = (settings.in_force(), settings.set_level.get());
    let at_once = change.at_once.iter().filter(|key| **key != LEVEL_KEY || set_level.is_some());
    let at_once: Vec<&str> = at_once.copied().collect();
    if let (true, Some(set)) = (at_once.contains(&LEVEL_KEY), set_level) {
        set(in_force.log.level);
    }
    if !at_once.is_empty() {
        tracing::warn!("the configuration changed; in force now: {}", at_once.join(", "));
    }
    if !change.waiting.is_empty() {
        tracing::warn!("the configuration changed; with the next start take effect: {}", change.waiting.join(", "));
    }
    for remark in in_force.remarks() {
        tracing::warn!("{remark}");
    }
}

/// Takes what was loaded if it is good. What changed, `None` where that is nothing; or why the settings stay as they were.
fn take(settings: &Settings, loaded: Result<Config, Vec<ConfigError>>) -> Result<Option<Change>, String> {
    let config = loaded.map_err(|errors| {
        let text = render_errors(&errors);
        let text = text.trim_end().replace('\n', "; ");
        format!("failed to use the changed configuration, the one before stays in force: {text}")
    })?;
    settings.take(config).map(|change| Some(change).filter(|change| *change != Change::default()))
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

    use callvault_config::{Config, ConfigError, LogLevel};

    use super::{Change, Settings, take};

    fn load(folder: &Path, text: &str) -> Result<Config, Vec<ConfigError>> {
        let path = folder.join("callvault.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path, [])
    }

    #[test]
    fn a_change_is_told_once_and_a_mistake_keeps_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(&load(folder.path(), "").unwrap());
        let look = |text: &str| take(&settings, load(folder.path(), text));
        let level = || Ok(Some(Change { at_once: vec!["log.level"], waiting: Vec::new() }));
        assert_eq!(look("# a remark\n"), Ok(None));
        assert_eq!(look("[log]\nlevel = \"debug\"\n"), level());
        assert_eq!(look("[log]\nlevel = \"debug\"\n"), Ok(None));
        let text = look("[archive]\ncodec = \"as-received\"\n[log]\nlevle = \"info\"\n").unwrap_err();
        assert!(text.contains("callvault.toml:4") && text.contains("log.level"), "{text}");
        assert_eq!(settings.in_force().log.level, LogLevel::Debug);
        assert_eq!(
            settings.in_force().archive,
            Config::defaults(folder.path()).archive,
            "nothing of a bad change is used"
        );
        assert_eq!(look("[log]\nlevel = \"debug\"\n"), Ok(None));
        assert_eq!(look("[log]\nlevel = \"info\"\n"), level());
    }
}

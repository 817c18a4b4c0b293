//! `callvaultd --recover`: a catalogue that is lost or damaged is made again from what is left of it, from the archives in the store and
//! from the journal. The daemon must not run meanwhile.
//!
//! Nothing is overwritten. In this order:
//!
//! 1. the data folder is locked; the old catalogue and the queue are copied into [`FOLDER`] and read there, as far as they can be;
//! 2. the journal is read, the store is looked through; an archive that is on no record is opened with its key and read to its end;
//! 3. the new catalogue is written beside, as the plan is made ([`plan::Plan`]; a dry run only counts, and ends here);
//! 4. it is closed, synced, and renamed to [`DONE_NAME`]: from here on it is complete;
//! 5. the old one gets a second name that says when; its log is removed; the new one is renamed over it; the folder is synced.
//!
//! A crash before the end of 4 leaves a folder that the next attempt removes, after it one that the next attempt goes on with at 5; the
//! daemon does not start in between. The journal is not entered here: what it has is taken by the next start, as always. Nor is the
//! queue touched: the next start sets it aside if it is damaged, and puts into it whatever the catalogue owes.

mod archives;
mod plan;
mod report;
mod standing;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use callvault_catalogue::{Catalogue, CatalogueError};
use callvault_config::Config;
use callvault_queue::Queue;
use callvault_seal::SealError;
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::files::{make_folder, sync_folder};
use crate::follow::Follower;
use crate::ingest::unix_ms;
use crate::journals::Shared;
use crate::keys;
use crate::lock::{FolderLock, LockError, RecorderLock};
use crate::stores::{Known, Record};
pub(crate) use archives::find as find_archives;
use plan::{Plan, Sink, Sources};
pub(crate) use report::Report;
use standing::Standing;

/// The folder that it works in, in the data folder. It may go whenever nobody recovers, unless [`DONE_NAME`] is in it.
const FOLDER: &str = "recovering";

/// A new catalogue that is complete and only has to be put in its place.
const DONE_NAME: &str = "catalogue.complete";

/// What stands beside a database in use: the write-ahead log and the memory that is shared about it.
const LOG_ENDINGS: [&str; 2] = ["-wal", "-shm"];

/// The new catalogue while it is written.
const NEW_NAME: &str = "new.db";

/// How it is done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Only say what would be done.
    pub(crate) dry_run: bool,
    /// Go on although the archives cannot be looked at.
    pub(crate) without_store: bool,
}

/// Recovers what the configuration at `path` names; what it found and did.
pub(crate) fn run(path: &Path, manner: Manner) -> anyhow::Result<Report> {
    let config = Config::load(path, callvault_config::environment())
        .map_err(|errors| anyhow!("use the configuration:\n{}", callvault_config::render_errors(&errors)))?;
    recover(&config, manner)
}

/// Refuses to start beside a recovery that was broken off when the new catalogue was already complete: the old one may lack its log.
pub(crate) fn check_not_interrupted(config: &Config) -> anyhow::Result<()> {
    if config.data_dir.join(FOLDER).join(DONE_NAME).exists() {
        bail!(
            "open the catalogue: a recovery was interrupted; run `callvaultctl recover` again, which brings it to its end"
        );
    }
    Ok(())
}

pub(crate) fn recover(config: &Config, manner: Manner) -> anyhow::Result<Report> {
    check_user(&config.data_dir)?;
    let _lock = FolderLock::take(&config.data_dir).map_err(|error| match error {
        LockError::Taken { process, .. } => anyhow!(
            "recover: callvaultd is running (process {process}); stop it first (`systemctl stop callvaultd`), live calls included"
        ),
        error => error.into(),
    })?;
    // One that is left over still writes to the journal.
    let _recorder = RecorderLock::take(&config.data_dir)?;
    let folder = config.data_dir.join(FOLDER);
    if folder.join(DONE_NAME).exists() {
        if manner.dry_run {
            return Ok(Report { dry_run: true, ..Report::interrupted() });
        }
        let aside = put_in_place(config, &folder)?;
        return Ok(Report { aside, changed: true, ..Report::interrupted() });
    }
    clear(&folder)?;
    let mut rng = rand::rng();
    let keyring = keys::load_or_make(&config.keys_path(), &config.data_dir, true, &mut rng)?.keyring;
    make_folder(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let result = (|| {
        // Where archives were moved, those that are still elsewhere have their rows, if the catalogue can be read; else this is done once
        // more with store.path set to that store.
        let (record, _) = Record::read(config);
        let used = record.known(&record.current).cloned().unwrap_or_else(|| Known::first(config));
        let store = Standing::of(&used, &config.data_dir);
        if let Standing::Away(why) = &store
            && !manner.dry_run
            && !manner.without_store
        {
            bail!(
                "recover: {why}. Mount it and try again; or do without its archives for now with --without-store, and run this again when it is back"
            );
        }
        let (old, old_trouble) = old_catalogue(config, &folder, &keyring)?;
        let (jobs, queue_trouble) = old_jobs(config, &folder);
        let journals = Shared::new(&config.journal_path());
        let journal_trouble = read_journal(config, &journals);
        let new = if manner.dry_run { None } else { Some(open_catalogue(&folder.join(NEW_NAME), &keyring)?) };
        let sources = Sources { old: old.as_ref(), jobs: &jobs, journals: &journals, store: &store, keyring: &keyring };
        let mut report = Plan::make(&sources, &mut Sink::new(new.as_ref()))?;
        let lost = match (&old, &new) {
            (Some(old), Some(new)) => new.take_over(old)?,
            _ => Vec::new(),
        };
        drop((old, new));
        report.dry_run = manner.dry_run;
        report.is_needed |= old_trouble.is_some();
        for text in lost {
            report.note(None, "catalogue", &text);
        }
        for (place, trouble) in [("catalogue", old_trouble), ("queue", queue_trouble), ("journal", journal_trouble)] {
            if let Some(text) = trouble {
                report.note(None, place, &text);
            }
        }
        if manner.dry_run || !report.is_needed {
            return Ok(report);
        }
        complete(&folder)?;
        report.aside = put_in_place(config, &folder)?;
        report.changed = true;
        Ok(report)
    })();
    if !folder.join(DONE_NAME).exists() {
        clear(&folder)?;
    }
    result
}

/// Files that another user makes are of no use to the daemon.
fn check_user(data: &Path) -> anyhow::Result<()> {
    let owner = fs::metadata(data).with_context(|| format!("look at the data folder {}", data.display()))?.uid();
    let user = nix::unistd::geteuid().as_raw();
    if owner != user {
        bail!(
            "recover: the data folder {} belongs to user {owner}, and this runs as user {user}; run it as that user, for example with `sudo -u '#{owner}' callvaultctl recover`",
            data.display()
        );
    }
    Ok(())
}

fn clear(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove the folder {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The catalogue as it is, opened as a copy: reading a database changes its files.
fn old_catalogue(
    config: &Config,
    folder: &Path,
    keyring: &callvault_seal::Keyring,
) -> anyhow::Result<(Option<Catalogue>, Option<String>)> {
    let path = config.catalogue_path();
    let copy = folder.join("old.db");
    let copied = copy_if_there(&path, &copy).and_then(|is_there| {
        copy_if_there(&beside(&path, LOG_ENDINGS[0]), &beside(&copy, LOG_ENDINGS[0]))?;
        Ok(is_there)
    });
    match copied {
        Ok(true) => {}
        Ok(false) => return Ok((None, Some("there is no catalogue".to_owned()))),
        Err(error) if error.kind() == ErrorKind::StorageFull => {
            bail!("recover: failed to copy {}: {error}; make room on that disk", path.display())
        }
        // Bad sectors: the archives are what is left.
        Err(error) => return Ok((None, Some(format!("failed to copy {}: {error}", path.display())))),
    }
    match open_catalogue(&copy, keyring) {
        Ok(old) => {
            let wrong = old.check().unwrap_or_else(|error| vec![error.to_string()]);
            let trouble = wrong.first().map(|first| format!("the file is damaged: {first}"));
            Ok((Some(old), trouble))
        }
        // What a newer version or another key can read is not to be thrown away for what this one can.
        Err(error @ (CatalogueError::Newer { .. } | CatalogueError::Key(SealError::NoPrivateKey { .. }))) => {
            bail!(
                "recover: failed to {error}. If that cannot be had, move {} away and run this again: the archives are then all that it is made from",
                path.display()
            )
        }
        Err(error) => Ok((None, Some(format!("nothing of the old catalogue can be read: failed to {error}")))),
    }
}

/// The jobs of the queue, read from a copy.
fn old_jobs(config: &Config, folder: &Path) -> (Vec<callvault_queue::Job>, Option<String>) {
    let copy = folder.join("queue");
    if let Err(error) = copy_folder(&config.queue_path(), &copy) {
        return (
            Vec::new(),
            Some(format!("failed to copy the queue: {error}; it is put together again by the next start")),
        );
    }
    match Queue::open(&copy, callvault_queue::Settings::default(), unix_ms()) {
        Ok((queue, found)) => {
            let is_damaged = found.missing || !found.damaged.is_empty();
            let text = "the queue is damaged; the next start puts it together again from the catalogue".to_owned();
            (queue.list(&callvault_queue::Filter::default()), is_damaged.then_some(text))
        }
        Err(error) => (Vec::new(), Some(format!("failed to {error}"))),
    }
}

fn read_journal(config: &Config, journals: &Shared) -> Option<String> {
    let look = Follower::new(&config.journal_path()).look(journals, || None, || false);
    look.failed.map(|error| format!("failed to read the journal to its end: {error}"))
}

fn open_catalogue(path: &Path, keyring: &callvault_seal::Keyring) -> Result<Catalogue, CatalogueError> {
    Catalogue::open(path, keyring, Box::new(StdRng::from_rng(&mut rand::rng())))
}

/// Gives the new catalogue, which is closed, the name that says that it is complete.
fn complete(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(NEW_NAME);
    // The last connection that closes writes its log into the file and removes it.
    if LOG_ENDINGS.iter().any(|ending| beside(&path, ending).exists()) {
        bail!("close the new catalogue {}: its log is still there", path.display());
    }
    let done = || {
        File::open(&path)?.sync_all()?;
        fs::rename(&path, folder.join(DONE_NAME))?;
        sync_folder(folder)
    };
    done().with_context(|| format!("make durable the new catalogue {}", path.display()))
}

/// Puts the complete new catalogue in the place of the old one, which keeps its content under another name: that one is returned.
fn put_in_place(config: &Config, folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    let path = config.catalogue_path();
    let when = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ");
    let aside = path.with_file_name(format!("catalogue.db.before-{when}"));
    let swap = || -> io::Result<bool> {
        let was_there = link_if_there(&path, &aside)?;
        link_if_there(&beside(&path, LOG_ENDINGS[0]), &beside(&aside, LOG_ENDINGS[0]))?;
        sync_folder(&config.data_dir)?;
        // The new one must not find the old one's log: its pages would be taken for news.
        for ending in LOG_ENDINGS {
            match fs::remove_file(beside(&path, ending)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_folder(&config.data_dir)?;
        fs::rename(folder.join(DONE_NAME), &path)?;
        sync_folder(&config.data_dir)?;
        Ok(was_there)
    };
    let was_there = swap().with_context(|| format!("put the new catalogue in place of {}", path.display()))?;
    clear(folder)?;
    Ok(was_there.then_some(aside))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn copy_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::copy(from, to) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn link_if_there(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies a folder with all that is in it; a missing one is an empty one.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    make_folder(to)?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

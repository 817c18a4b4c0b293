//! `--backup` and `--restore`: keys, catalogue and settings in one file that is locked with a passphrase or for a recipient.
//!
//! A backup is made while the daemon runs, by a process of its own: the catalogue is copied as it is at one moment. What is not archived
//! yet is in the journal, and the archives are in the store; neither is in it. A restore goes into an empty data folder. Everything is
//! unpacked beside its place and looked at (do the keys open the catalogue, is its file sound) before anything is put there, and the
//! catalogue comes last, so that a restore that was cut short is begun anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use callvault_backup::{Lock, Manifest, Place, VERSION, Writer, read};
use callvault_catalogue::Catalogue;
use callvault_config::Config;
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, User, chown, geteuid};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::access::NEVER_DELETE_NAME;
use crate::files::{TEMPORARY_ENDING, make_folder, sync_folder};
use crate::keys;
use crate::lock::FolderLock;
use crate::stores::RECORD_NAME;

/// The copy of the catalogue while a backup is made, in the data folder.
const COPY_NAME: &str = "catalogue.backup.tmp";

/// What a restore unpacks, in the data folder, until it is put in its place.
const UNPACKED_NAME: &str = "restore.tmp";

/// Where the settings of the backup are put, in the data folder: they are of another machine.
const SETTINGS_NAME: &str = "restored-configuration";

/// The user that the packages make.
const USER: &str = "callvault";

/// Name of the catalogue's file as it is unpacked.
const CATALOGUE_NAME: &str = "catalogue.db";

/// Longest file of a passphrase or an identity, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

fn load(path: &Path) -> anyhow::Result<Config> {
    let loaded = Config::load(path, callvault_config::environment());
    loaded.map_err(|errors| anyhow::anyhow!("use the configuration:\n{}", callvault_config::render_errors(&errors)))
}

/// The words of a passphrase's file, or the text of an identity's.
pub(crate) fn secret(path: &Path, what: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text));
    read.with_context(|| format!("read the {what} {}", path.display()))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Makes a backup. Says what is in it.
pub(crate) fn make(configuration: &Path, target: &Path, lock: &Lock) -> anyhow::Result<Value> {
    let config = load(configuration)?;
    let data = &config.data_dir;
    let copy = Copy::make(&config)?;
    let private_key = keys::look(&config.keys_path()).ok().map(|id| id.to_string());
    let manifest = Manifest {
        version: VERSION,
        made_at: Timestamp::now().to_string(),
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        private_key: private_key.clone(),
        left_out: named_files(&config),
    };
    let temporary = target.with_added_extension(TEMPORARY_ENDING);
    if target.exists() {
        bail!("write the backup {}: there is a file of this name; name another", target.display());
    }
    let written = || -> anyhow::Result<u64> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let file = file.with_context(|| format!("write the backup {}", target.display()))?;
        let mut writer = Writer::begin(io::BufWriter::new(file), lock, &manifest)?;
        for (place, path) in small_files(configuration, &config)? {
            add(&mut writer, &place, &path)?;
        }
        if data.join(NEVER_DELETE_NAME).exists() {
            add(&mut writer, &Place::NeverDelete, &data.join(NEVER_DELETE_NAME))?;
        }
        add(&mut writer, &Place::Catalogue, &copy.path)?;
        let file = writer.finish()?.into_inner().map_err(|error| error.into_error()).context("end the backup")?;
        file.sync_all().context("make the backup durable")?;
        fs::rename(&temporary, target).with_context(|| format!("name the backup {}", target.display()))?;
        sync_folder(target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            .context("make the backup durable")?;
        Ok(file.metadata().map_or(0, |about| about.len()))
    };
    let bytes = written().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(json!({
        "file": target, "bytes": bytes, "made_at": manifest.made_at, "private_key": private_key, "left_out": manifest.left_out,
    }))
}

/// The catalogue's copy, which goes when it is dropped.
struct Copy {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Copy {
    fn make(config: &Config) -> anyhow::Result<Self> {
        let path = config.data_dir.join(COPY_NAME);
        let failed = || format!("copy the catalogue to {}", path.display());
        // Empty and ours alone before SQLite fills it.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.with_context(failed)?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            bail!("make a backup: another is being made");
        };
        lock.set_len(0).with_context(failed)?;
        let this = Self { path, _lock: lock };
        Catalogue::copy(&config.catalogue_path(), &this.path)?;
        Ok(this)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The settings and the keys.
fn small_files(configuration: &Path, config: &Config) -> anyhow::Result<Vec<(Place, PathBuf)>> {
    let mut files = Vec::new();
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if configuration.exists() {
        files.push((Place::Configuration(name(configuration)), configuration.to_owned()));
    }
    let of = |folder: &Path, ending: &str, place: fn(String) -> Place| -> anyhow::Result<Vec<(Place, PathBuf)>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("read the folder {}", folder.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("read the folder {}", folder.display()))?.path();
            let name = name(&path);
            if !name.starts_with('.') && name.ends_with(ending) && path.is_file() {
                found.push((place(name), path));
            }
        }
        found.sort();
        Ok(found)
    };
    files.extend(of(&configuration.parent().unwrap_or(Path::new(".")).join("conf.d"), ".toml", Place::ConfD)?);
    // It is put among the others, where it has the same effect. An operator's file of this name, which it wins over, is theirs.
    let portal = config.portal_file();
    let place = Place::ConfD(name(portal));
    if portal.is_file() && files.iter().all(|(known, _)| *known != place) {
        files.push((place, portal.to_owned()));
    }
    files.extend(of(&config.keys_path(), ".key", Place::Key)?);
    files.extend(of(&config.data_dir, ".identity", Place::Store)?);
    files.extend(of(&config.data_dir, RECORD_NAME, Place::Store)?);
    Ok(files)
}

/// The files of others that the settings name, such as certificates and passwords; whoever restores needs them as well.
fn named_files(config: &Config) -> Vec<String> {
    let sip = [&config.sip.tls_certificate, &config.sip.tls_key, &config.sip.tls_client_ca];
    let mail = [&config.mail.ca, &config.mail.password_file, &config.mail.templates];
    let uploads = [
        &config.analytics.client_secret,
        &config.analytics.proxy_credentials,
        &config.analytics.ca,
        &config.webhook.secret,
        &config.webhook.proxy_credentials,
        &config.webhook.ca,
        &config.oidc.client_secret,
        &config.oidc.ca,
    ];
    let all = sip.into_iter().chain(mail).chain(uploads).flatten();
    all.filter(|path| !path.as_os_str().is_empty()).map(|path| path.display().to_string()).collect()
}

fn add<W: io::Write>(writer: &mut Writer<W>, place: &Place, path: &Path) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("read {}", path.display()))?;
    let bytes = file.metadata().with_context(|| format!("read {}", path.display()))?.len();
    Ok(writer.add(place, bytes, file)?)
}

/// Puts a backup into the empty data folder of the configuration. Says what was in it and what is to be done. With `dry_run` it is read and
/// looked at, and nothing is put anywhere.
pub(crate) fn restore(configuration: &Path, source: &Path, lock: &Lock, dry_run: bool) -> anyhow::Result<Value> {
    let config = load(configuration)?;
    let input = File::open(source).with_context(|| format!("read the backup {}", source.display()))?;
    let owner = owner_of(&config.data_dir);
    make_folder(&config.data_dir).with_context(|| format!("make the data folder {}", config.data_dir.display()))?;
    let _lock = FolderLock::take(&config.data_dir)?;
    check_empty(&config)?;
    let unpacked = config.data_dir.join(UNPACKED_NAME);
    // What an earlier one left that was cut short.
    let _ = fs::remove_dir_all(&unpacked);
    make_folder(&unpacked).with_context(|| format!("make the folder {}", unpacked.display()))?;
    let result = restore_through(&config, &unpacked, input, lock, dry_run);
    let _ = fs::remove_dir_all(&unpacked);
    let report = result?;
    if let Some((user, group)) = owner {
        give(&config.data_dir, user, group).context("give what was restored to the user of callvaultd")?;
        if config.keys_path().exists() {
            give(&config.keys_path(), user, group).context("give the keys to the user of callvaultd")?;
        }
    }
    Ok(report)
}

fn restore_through(config: &Config, unpacked: &Path, input: File, lock: &Lock, dry_run: bool) -> anyhow::Result<Value> {
    let mut settings = Vec::new();
    let manifest = read::<anyhow::Error>(io::BufReader::new(input), lock, |_, place, content| {
        let path = unpacked.join(place.path());
        if let Place::Configuration(name) | Place::ConfD(name) = place {
            settings.push(name.clone());
        }
        let folder = path.parent().unwrap_or(unpacked);
        make_folder(folder).with_context(|| format!("make the folder {}", folder.display()))?;
        let failed = || format!("unpack {}", path.display());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.with_context(failed)?;
        io::copy(content, &mut file).and_then(|_| file.sync_all()).with_context(failed)
    })?;
    let recordings = check(unpacked, &manifest, config)?;
    if !dry_run {
        place(config, unpacked)?;
    }
    Ok(json!({
        "made_at": manifest.made_at, "made_by": manifest.made_by, "private_key": manifest.private_key,
        "recordings": recordings, "settings": settings, "left_out": manifest.left_out,
        "settings_in": config.data_dir.join(SETTINGS_NAME), "changed": !dry_run,
    }))
}

/// Nothing of an appliance is there that would be written over.
fn check_empty(config: &Config) -> anyhow::Result<()> {
    let has_journal = fs::read_dir(config.journal_path()).is_ok_and(|mut entries| entries.next().is_some());
    let there = [(config.catalogue_path(), true), (config.journal_path(), has_journal)];
    if let Some((path, _)) = there.iter().find(|(path, counts)| *counts && path.exists()) {
        bail!(
            "restore into {}: there is {} already, and a backup goes into an empty data folder; move what is there away, or name another data_dir",
            config.data_dir.display(),
            path.display()
        );
    }
    Ok(())
}

/// Whether the keys open the catalogue and its file is sound; how many recordings it has.
fn check(unpacked: &Path, manifest: &Manifest, config: &Config) -> anyhow::Result<u64> {
    let folder = unpacked.join("keys");
    let mut rng = rand::rng();
    let keys = match manifest.private_key {
        Some(_) => keys::load_or_make(&folder, unpacked, true, &mut rng)?,
        None => keys::load_or_make(&config.keys_path(), unpacked, true, &mut rng).context(
            "check the backup: it was made where the private key is a credential, and has none; put the key into its place first",
        )?,
    };
    let path = unpacked.join(CATALOGUE_NAME);
    let catalogue = Catalogue::open(&path, &keys.keyring, Box::new(StdRng::from_rng(&mut rng)))?;
    if let Some(problem) = catalogue.check()?.first() {
        bail!("use the catalogue of the backup: {problem}; take another backup");
    }
    let recordings = catalogue.counts()?.values().sum::<u64>();
    drop(catalogue);
    Ok(recordings)
}

/// Puts everything in its place, the catalogue last: until it is there the folder counts as empty, and the restore can be begun anew. Keys
/// that are there already must be the same.
fn place(config: &Config, unpacked: &Path) -> anyhow::Result<()> {
    let data = &config.data_dir;
    let put = |from: &Path, to: &Path| -> anyhow::Result<()> {
        if !from.exists() {
            return Ok(());
        }
        let folder = to.parent().unwrap_or(data);
        let moved = make_folder(folder).and_then(|()| rename_or_copy(from, to)).and_then(|()| sync_folder(folder));
        moved.with_context(|| format!("put {} in its place", to.display()))
    };
    // Those of a folder, each with its place.
    let unpacked_files = |folder: &str, to: &Path| -> Vec<(PathBuf, PathBuf)> {
        let names = fs::read_dir(unpacked.join(folder)).into_iter().flatten();
        let names = names.filter_map(|entry| Some(entry.ok()?.file_name()));
        names.map(|name| (unpacked.join(folder).join(&name), to.join(&name))).collect()
    };
    let keys = unpacked_files("keys", &config.keys_path());
    for (from, to) in &keys {
        let same = || -> io::Result<bool> { Ok(fs::read(from)? == fs::read(to)?) };
        if to.exists() && !same().with_context(|| format!("read the key {}", to.display()))? {
            bail!(
                "put the key {} in its place: there is another of this name, which may be the only one that opens something; move it away",
                to.display()
            );
        }
    }
    put(&unpacked.join("configuration"), &data.join(SETTINGS_NAME))?;
    for (from, to) in unpacked_files("stores", data) {
        put(&from, &to)?;
    }
    put(&unpacked.join("never-delete"), &data.join(NEVER_DELETE_NAME))?;
    for (from, to) in &keys {
        put(from, to)?;
    }
    put(&unpacked.join(CATALOGUE_NAME), &config.catalogue_path())
}

/// The keys may be on another file system.
fn rename_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() && to.exists() {
        fs::remove_dir_all(to)?;
    }
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
            io::copy(&mut File::open(from)?, &mut file)?;
            file.sync_all()?;
            fs::remove_file(from)
        }
        result => result,
    }
}

/// Whom what root restores belongs to: the owner of the data folder, or the packages' user; none where we are not root.
fn owner_of(data: &Path) -> Option<(Uid, Gid)> {
    if !geteuid().is_root() {
        return None;
    }
    if let Ok(about) = fs::metadata(data) {
        return Some((Uid::from_raw(about.uid()), Gid::from_raw(about.gid())));
    }
    User::from_name(USER).ok().flatten().map(|user| (user.uid, user.gid))
}

/// Gives a folder and all in it to a user, without following links.
fn give(path: &Path, user: Uid, group: Gid) -> io::Result<()> {
    let about = fs::symlink_metadata(path)?;
    if about.is_symlink() {
        return Ok(());
    }
    if about.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user, group)?;
        }
    }
    chown(path, Some(user), Some(group)).map_err(io::Error::from)
}

//! The file that setup writes: how it comes about from the one before it, and how it takes its place.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use callvault_config::PORTAL_FILE;
use nix::sys::signal::{SigSet, Signal};
use similar::TextDiff;
use tempfile::NamedTempFile;
use toml_edit::{DocumentMut, Item, Table, Value};

/// Its name in `conf.d`: read before what operators add there, which so wins.
const NAME: &str = "10-setup.toml";

/// What is put behind the name of the one before it. Only `*.toml` is read.
const OLD: &str = "old";

/// The file of the mail server's password, beside the configuration.
const PASSWORD_NAME: &str = "mail.password";

/// What a new one begins with.
const HEAD: &str = "\
# Written by `callvaultctl setup`, which changes only the keys that it asks for and keeps everything else in here.
# It is read after callvault.toml; files in this folder with a later name win over it.
";

/// Where it is, for this configuration.
pub(super) fn path_for(config: &Path) -> PathBuf {
    folder_of(config).join("conf.d").join(NAME)
}

/// Where the password of mail is put that was asked for on a terminal.
pub(super) fn password_path_for(config: &Path) -> PathBuf {
    folder_of(config).join(PASSWORD_NAME)
}

fn folder_of(config: &Path) -> PathBuf {
    let absolute = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// Whether what is set in `origin` (as the configuration names it) wins over what is set here.
pub(super) fn is_later(origin: &str, path: &Path) -> bool {
    if !origin.contains('/') {
        // A variable, or the default.
        return origin.starts_with("CALLVAULT__");
    }
    let file = Path::new(origin.rsplit_once(':').map_or(origin, |(file, _)| file));
    let is_beside = file.parent().map(Path::as_os_str) == path.parent().map(Path::as_os_str);
    // The portal's lies elsewhere, and is read among these by its name.
    let is_of_portal = file.file_name() == Some(OsStr::new(PORTAL_FILE));
    (is_beside || is_of_portal) && file.file_name() > path.file_name()
}

/// What is there now; empty where nothing is.
pub(super) fn read(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// The text with these keys (`section.field`) at these values (TOML), everything else as it was.
///
/// # Errors
/// What makes it no TOML.
pub(super) fn compose(before: &str, changes: &[(String, String)]) -> Result<String, toml_edit::TomlError> {
    let mut document: DocumentMut = before.parse()?;
    // Comments alone would be taken for the end of the file.
    let head = if before.is_empty() { HEAD } else { before };
    let head = if document.is_empty() { head } else { "" };
    if !head.is_empty() {
        document = DocumentMut::new();
    }
    for (key, value) in changes {
        let value: Value = value.parse()?;
        let (section, field) = key.rsplit_once('.').unwrap_or(("", key));
        let table = if section.is_empty() {
            document.as_table_mut()
        } else {
            let is_new = !document.contains_key(section);
            let entry = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
            let Some(table) = entry.as_table_mut() else { continue };
            if is_new {
                table.decor_mut().set_prefix("\n");
            }
            table
        };
        match table.get_mut(field).and_then(Item::as_value_mut) {
            Some(there) => {
                // A comment behind the value stays.
                let decor = there.decor().clone();
                *there = value;
                *there.decor_mut() = decor;
            }
            None => {
                table.insert(field, Item::Value(value));
            }
        }
    }
    Ok(format!("{head}{document}"))
}

/// What changes, as a unified diff; empty where nothing does.
pub(super) fn difference(path: &Path, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let name = path.display().to_string();
    let from = if before.is_empty() { "/dev/null" } else { &name };
    TextDiff::from_lines(before, after).unified_diff().context_radius(2).header(from, &name).to_string()
}

/// Puts the new text in its place, whole or not at all, and keeps the old one beside it. Gives the path of the old one.
pub(super) fn write(path: &Path, config: &Path, before: &str, after: &str) -> io::Result<Option<PathBuf>> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let owner = fs::metadata(config)?;
    let owner = (owner.uid(), owner.gid());
    let old = path.with_extension(format!("toml.{OLD}"));
    let had = path.exists();
    unbroken(|| {
        if had {
            put(&old, before.as_bytes(), 0o644, owner)?;
        }
        put(path, after.as_bytes(), 0o644, owner)
    })?;
    Ok(had.then_some(old))
}

/// Writes a secret where only the owner of the data may read it.
pub(super) fn write_secret(path: &Path, data: &Path, secret: &str) -> io::Result<()> {
    let owner = data.ancestors().find_map(|folder| fs::metadata(folder).ok()).filter(|_| data.exists());
    let owner = owner.map_or_else(
        || (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
        |about| (about.uid(), about.gid()),
    );
    unbroken(|| put(path, format!("{secret}\n").as_bytes(), 0o600, owner))
}

/// A whole file in the place of whatever was there: written beside it, synced, renamed.
fn put(path: &Path, bytes: &[u8], mode: u32, (user, group): (u32, u32)) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = NamedTempFile::with_prefix_in(".setup-", folder)?;
    file.write_all(bytes)?;
    let about = file.as_file().metadata()?;
    if (about.uid(), about.gid()) != (user, group) {
        chown(file.path(), Some(user), Some(group))?;
    }
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|failed| failed.error)?;
    File::open(folder)?.sync_all()
}

/// Does it with the signals held back that a person at a terminal ends programs with, so that no half of it is left behind.
fn unbroken<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    let done = work();
    signals.thread_unblock()?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_somebody_wrote_into_the_file_stays() {
        let check = |before: &str, pairs: &[(&str, &str)], expected: &str| {
            assert_eq!(compose(before, &changes(pairs)).unwrap(), expected);
        };
        let mine = "# mine\n[sip]\nudp = [\"127.0.0.1:1\"] # why\nserver_name = \"x\"\n";
        check(mine, &[], mine);
        check(
            mine,
            &[("sip.udp", "[]"), ("sip.tcp", "[\"127.0.0.1:2\"]"), ("mail.server", "\"m\"")],
            "# mine\n[sip]\nudp = [] # why\nserver_name = \"x\"\ntcp = [\"127.0.0.1:2\"]\n\n[mail]\nserver = \"m\"\n",
        );
        check("# gone\n", &[("store.path", "\"/s\"")], "# gone\n\n[store]\npath = \"/s\"\n");
        check("", &[("store.path", "\"/s\"")], &format!("{HEAD}\n[store]\npath = \"/s\"\n"));
    }

    #[test]
    fn a_file_with_a_later_name_and_a_variable_win() {
        let path = Path::new("/etc/callvault/conf.d/10-setup.toml");
        let check = |origin: &str, expected| assert_eq!(is_later(origin, path), expected, "{origin}");
        check("default", false);
        check("/etc/callvault/callvault.toml:3", false);
        check("/etc/callvault/conf.d/05-mine.toml:3", false);
        check("/etc/callvault/conf.d/10-setup.toml:3", false);
        check("/etc/callvault/conf.d/50-mine.toml:3", true);
        check("/var/lib/callvault/conf.d/50-portal.toml:3", true);
        check("/var/lib/callvault/conf.d/50-mine.toml:3", false);
        check("CALLVAULT__SIP__UDP", true);
    }

    #[test]
    fn the_old_file_is_kept_and_nothing_else_is_left() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("callvault.toml");
        fs::write(&config, "").unwrap();
        let path = path_for(&config);
        assert_eq!(write(&path, &config, "", "a = 1\n").unwrap(), None);
        let old = write(&path, &config, "a = 1\n", "a = 2\n").unwrap().unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), fs::read_to_string(old).unwrap()),
            ("a = 2\n".into(), "a = 1\n".into())
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        let secret = password_path_for(&config);
        write_secret(&secret, home.path(), "word").unwrap();
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&secret).unwrap(), "word\n");
    }
}

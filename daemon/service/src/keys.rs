//! The appliance's keys on disk.
//!
//! `appliance.key` in the keys folder is the private key that recordings are sealed to now; `appliance-<id>.key` are those
//! it replaced, needed as long as there are recordings sealed to them. Under systemd the private key may come as a
//! credential instead (`LoadCredential=appliance.key:…`), which then is the current one.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use callvault_seal::{KeyId, Keyring, PrivateKey, SealError};
use rand::CryptoRng;

use crate::files::{make_folder, write_whole};

/// Name of the current private key, as a file and as a credential.
pub(crate) const CURRENT_NAME: &str = "appliance.key";

/// Why the keys are not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(
        "read the private key {path}: {error}; it must be readable by the user that callvaultd runs as, and by nobody else"
    )]
    Read { path: String, error: io::Error },
    #[error("use the private key {path}: {error}; restore it from your backup of the keys folder")]
    Content { path: String, error: SealError },
    #[error(
        "find the private key {path}: there are recordings in {data} that only it can open; restore it from your backup of the keys folder (a new key is made only for an empty data folder)"
    )]
    Missing { path: String, data: String },
    #[error("write the private key {path}: {error}; the folder must be writable by the user that callvaultd runs as")]
    Write { path: String, error: io::Error },
    #[error(
        "rotate the private key: it comes from a systemd credential; replace the credential instead and keep the old key as {keep}"
    )]
    FromCredential { keep: String },
}

/// The keys and where the current one came from.
pub(crate) struct Keys {
    /// For opening what is sealed.
    pub(crate) keyring: Keyring,
    /// Whether the current key was made just now, so that the operator must be told to back it up.
    pub(crate) made: bool,
    /// File of the current key.
    pub(crate) path: PathBuf,
}

/// Reads the keys, or makes the first one when `data_in_use` says that nothing can depend on a lost one.
pub(crate) fn load_or_make(
    folder: &Path,
    data: &Path,
    data_in_use: bool,
    rng: &mut dyn CryptoRng,
) -> Result<Keys, KeysError> {
    let credential =
        env::var_os("CREDENTIALS_DIRECTORY").map(|d| PathBuf::from(d).join(CURRENT_NAME)).filter(|p| p.exists());
    let path = credential.unwrap_or_else(|| folder.join(CURRENT_NAME));
    let (current, made) = match read(&path) {
        Ok(key) => (key, false),
        Err(KeysError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            if data_in_use {
                return Err(KeysError::Missing { path: path.display().to_string(), data: data.display().to_string() });
            }
            let key = PrivateKey::generate(rng);
            make_folder(folder)
                .and_then(|()| write_whole(&path, key.to_text().expose().as_bytes()))
                .map_err(|error| KeysError::Write { path: path.display().to_string(), error })?;
            (key, true)
        }
        Err(e) => return Err(e),
    };
    let keyring = Keyring::new(current, older(folder)?)
        .map_err(|error| KeysError::Content { path: path.display().to_string(), error })?;
    Ok(Keys { keyring, made, path })
}

/// Permissions that nobody but the daemon's user may have on a private key.
const OTHERS: u32 = 0o077;

/// What is to be done about a private key that others may read; nothing where nobody may. A credential is systemd's to guard.
pub(crate) fn open_to_others(path: &Path) -> Option<String> {
    let is_credential = env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| path.starts_with(folder));
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & OTHERS != 0 && !is_credential).then(|| {
        format!(
            "others may read the private key {path} (mode {:o}); `chmod 600 {path}`, and if anybody has read it, `callvaultctl keys rotate`",
            mode & 0o777,
            path = path.display()
        )
    })
}

/// Reads all keys as a start would, and makes none. Gives the name of the current one.
pub(crate) fn look(folder: &Path) -> Result<KeyId, KeysError> {
    let current = read(&folder.join(CURRENT_NAME))?;
    let id = current.public().id();
    Keyring::new(current, older(folder)?)
        .map_err(|error| KeysError::Content { path: folder.display().to_string(), error })?;
    Ok(id)
}

/// Makes a new current key; the one before stays beside it under its own name. Takes effect with the next start.
pub(crate) fn rotate(folder: &Path, current: &Path, rng: &mut dyn CryptoRng) -> Result<KeyId, KeysError> {
    let old = read(current)?;
    let keep = folder.join(format!("appliance-{}.key", old.public().id()));
    if current != folder.join(CURRENT_NAME) {
        return Err(KeysError::FromCredential { keep: keep.display().to_string() });
    }
    let write = |path: &Path, key: &PrivateKey| {
        write_whole(path, key.to_text().expose().as_bytes())
            .map_err(|error| KeysError::Write { path: path.display().to_string(), error })
    };
    // The old one first: at no moment is there a key on which recordings depend in no file.
    write(&keep, &old)?;
    let new = PrivateKey::generate(rng);
    write(current, &new)?;
    Ok(new.public().id())
}

fn read(path: &Path) -> Result<PrivateKey, KeysError> {
    let text = fs::read_to_string(path).map_err(|error| KeysError::Read { path: path.display().to_string(), error })?;
    PrivateKey::from_text(text.trim()).map_err(|error| KeysError::Content { path: path.display().to_string(), error })
}

fn older(folder: &Path) -> Result<Vec<PrivateKey>, KeysError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(KeysError::Read { path: folder.display().to_string(), error }),
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|p| {
            p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("appliance-") && n.ends_with(".key"))
        })
        .collect();
    paths.sort();
    paths.iter().map(|p| read(p)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{load_or_make, rotate};

    #[test]
    fn the_first_start_makes_a_key_and_later_ones_keep_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("keys");
        let first = load_or_make(&folder, root.path(), false, &mut rand::rng()).unwrap();
        assert!(first.made);
        let second = load_or_make(&folder, root.path(), true, &mut rand::rng()).unwrap();
        assert!(!second.made);
        assert_eq!(first.keyring.public().id(), second.keyring.public().id());
    }

    #[test]
    fn a_lost_key_is_not_replaced_behind_the_operators_back() {
        let root = tempfile::tempdir().unwrap();
        let said = load_or_make(&root.path().join("keys"), root.path(), true, &mut rand::rng());
        assert!(said.err().unwrap().to_string().contains("restore it from your backup"));
    }

    #[test]
    fn a_damaged_key_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("appliance.key"), "callvault-private-1:oops").unwrap();
        let said = load_or_make(root.path(), root.path(), false, &mut rand::rng()).err().unwrap().to_string();
        assert!(said.contains("appliance.key") && !said.contains("oops"), "{said}");
    }

    #[test]
    fn rotation_keeps_the_old_key_readable() {
        let root = tempfile::tempdir().unwrap();
        let before = load_or_make(root.path(), root.path(), false, &mut rand::rng()).unwrap();
        let new = rotate(root.path(), &before.path, &mut rand::rng()).unwrap();
        let after = load_or_make(root.path(), root.path(), true, &mut rand::rng()).unwrap();
        assert_eq!(after.keyring.public().id(), new);
        let ids: Vec<_> = after.keyring.ids().collect();
        assert!(ids.contains(&before.keyring.public().id()));
    }
}

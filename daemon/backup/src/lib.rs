//! The form of a backup of the appliance's keys, catalogue and settings: a tar archive, encrypted with age
//! (<https://age-encryption.org/v1>), so that it can be opened without callvault too (`age -d FILE | tar x`).
//!
//! ```text
//! manifest.json          first: version, when, by which version, what is not in it
//! configuration/NAME     the configuration file and those of conf.d (configuration/conf.d/NAME)
//! keys/NAME              private keys
//! stores/NAME            which stores belong to the appliance: the files of its data folder that say so
//! never-delete           that deleting was switched off for ever
//! catalogue.db           last, since it is large
//! ```
//!
//! age authenticates every 64 KiB and the end, so what was changed or cut off is an error before it is believed; a reader must do nothing
//! that cannot be undone before it has reached the end. Other names are refused: nothing in a backup can be put anywhere else.
//!
//! There is no I/O here but on what the caller gives.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::io::{self, Read, Write};
use std::iter;

use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, Identity, Recipient, scrypt, x25519};
use serde::{Deserialize, Serialize};

/// Version of the form.
pub const VERSION: u32 = 1;

/// Name of the manifest.
const MANIFEST: &str = "manifest.json";

/// Longest manifest that is read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Longest file other than the catalogue that is read, in bytes.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// Most files in a backup: keys are replaced once a year at most, and files of settings are few.
const FILES_MAX: usize = 10_000;

/// Shortest passphrase that is taken, in characters. The file has private keys in it, and whoever has it can try for years.
pub const PASSPHRASE_CHARS_MIN: usize = 12;

/// Why a backup cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The recipient is none.
    #[error("use the recipient: {0}; it begins with age1, and `age-keygen` makes one")]
    Recipient(String),
    /// The identity is none.
    #[error("use the identity: {0}; its file has a line that begins with AGE-SECRET-KEY-1")]
    Identity(String),
    /// The passphrase is too short to make a backup with.
    #[error(
        "use the passphrase: it has fewer than {PASSPHRASE_CHARS_MIN} characters, and private keys are in the backup"
    )]
    Passphrase,
    /// It was not made with this passphrase, or for this identity.
    #[error("open the backup: {0}")]
    Locked(&'static str),
    /// It is no backup, or not whole.
    #[error("read the backup: {0}; it is damaged or cut off, take another one")]
    Damaged(String),
    /// It was made by a later version.
    #[error("read the backup: its version is {0}, and this callvault knows {VERSION}; install a newer one")]
    Newer(u32),
    /// Reading or writing failed.
    #[error("{what} the backup: {error}")]
    Io {
        /// What was done.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl BackupError {
    fn damaged(error: impl std::fmt::Display) -> Self {
        Self::Damaged(error.to_string())
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> BackupError {
    move |error| BackupError::Io { what, error }
}

/// With what a backup is locked, or opened. There is no `Debug`: it is a secret.
pub enum Lock {
    /// The same words for both.
    Passphrase(String),
    /// An age recipient (`age1…`) to make it, the identity (`AGE-SECRET-KEY-1…`) that belongs to it to open it.
    Key(String),
}

impl Lock {
    fn passphrase(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the form, [`VERSION`].
    pub version: u32,
    /// When it was made (RFC 3339).
    pub made_at: String,
    /// Version of callvault that made it.
    pub made_by: String,
    /// Name of the private key that recordings were sealed to then; none when it is not in the backup.
    pub private_key: Option<String>,
    /// Files that the settings name and that are not in it.
    pub left_out: Vec<String>,
}

/// Where a file of a backup belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A configuration file of this name.
    Configuration(String),
    /// One of `conf.d`.
    ConfD(String),
    /// A private key.
    Key(String),
    /// What says which stores there are, and which one is which.
    Store(String),
    /// The mark that nothing is ever deleted by hand.
    NeverDelete,
    /// The catalogue.
    Catalogue,
}

impl Place {
    /// Its path in the archive.
    pub fn path(&self) -> String {
        match self {
            Self::Configuration(name) => format!("configuration/{name}"),
            Self::ConfD(name) => format!("configuration/conf.d/{name}"),
            Self::Key(name) => format!("keys/{name}"),
            Self::Store(name) => format!("stores/{name}"),
            Self::NeverDelete => "never-delete".to_owned(),
            Self::Catalogue => "catalogue.db".to_owned(),
        }
    }

    /// The place of a path; none of one that no backup has.
    pub fn of(path: &str) -> Option<Self> {
        let name = |text: &str| {
            let is_plain = !text.is_empty() && !text.starts_with('.') && !text.contains(['/', '\\', '\0']);
            is_plain.then(|| text.to_owned())
        };
        match path {
            "never-delete" => Some(Self::NeverDelete),
            "catalogue.db" => Some(Self::Catalogue),
            _ => match path.split_once('/')? {
                ("keys", rest) => name(rest).map(Self::Key),
                ("stores", rest) => name(rest).map(Self::Store),
                ("configuration", rest) => match rest.strip_prefix("conf.d/") {
                    Some(rest) => name(rest).map(Self::ConfD),
                    None => name(rest).map(Self::Configuration),
                },
                _ => None,
            },
        }
    }
}

/// A backup that is being written.
pub struct Writer<W: Write> {
    tar: tar::Builder<age::stream::StreamWriter<W>>,
}

impl<W: Write> Writer<W> {
    /// Begins a backup.
    ///
    /// # Errors
    /// [`BackupError::Recipient`], [`BackupError::Passphrase`], [`BackupError::Io`].
    pub fn begin(out: W, lock: &Lock, manifest: &Manifest) -> Result<Self, BackupError> {
        let encryptor = match lock {
            Lock::Passphrase(text) if text.chars().count() < PASSPHRASE_CHARS_MIN => {
                return Err(BackupError::Passphrase);
            }
            Lock::Passphrase(text) => Encryptor::with_user_passphrase(Lock::passphrase(text)),
            Lock::Key(text) => {
                let recipient: x25519::Recipient =
                    text.trim().parse().map_err(|error: &str| BackupError::Recipient(error.to_owned()))?;
                Encryptor::with_recipients(iter::once(&recipient as &dyn Recipient))
                    .map_err(|error| BackupError::Recipient(error.to_string()))?
            }
        };
        let stream = encryptor.wrap_output(out).map_err(failed("begin"))?;
        let mut this = Self { tar: tar::Builder::new(stream) };
        let text = serde_json::to_vec_pretty(manifest).map_err(BackupError::damaged)?;
        this.append(MANIFEST, text.len() as u64, &text[..])?;
        Ok(this)
    }

    /// Adds a file of this length.
    ///
    /// # Errors
    /// [`BackupError::Io`], also when it is shorter.
    pub fn add(&mut self, place: &Place, bytes: u64, content: impl Read) -> Result<(), BackupError> {
        self.append(&place.path(), bytes, content)
    }

    fn append(&mut self, path: &str, bytes: u64, content: impl Read) -> Result<(), BackupError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_cksum();
        let mut content = content.take(bytes);
        self.tar.append_data(&mut header, path, &mut content).map_err(failed("write"))?;
        if content.limit() > 0 {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, format!("{path} became shorter meanwhile"));
            return Err(BackupError::Io { what: "write", error });
        }
        Ok(())
    }

    /// Ends it. Without this it is not a backup.
    ///
    /// # Errors
    /// [`BackupError::Io`].
    pub fn finish(self) -> Result<W, BackupError> {
        let stream = self.tar.into_inner().map_err(failed("end"))?;
        stream.finish().map_err(failed("end"))
    }
}

/// Reads a backup to its end and gives each file to `each`, the manifest first. Nothing of it may be used before this has returned without
/// an error: what follows may show that it is not whole.
///
/// # Errors
/// [`BackupError`], or what `each` says.
pub fn read<E: From<BackupError>>(
    input: impl Read,
    lock: &Lock,
    mut each: impl FnMut(&Manifest, &Place, &mut dyn Read) -> Result<(), E>,
) -> Result<Manifest, E> {
    let mut archive = tar::Archive::new(decrypted(input, lock)?);
    let (mut manifest, mut has_catalogue, mut files) = (None, false, 0);
    for entry in archive.entries().map_err(BackupError::damaged)? {
        let mut entry = entry.map_err(BackupError::damaged)?;
        files += 1;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let bytes = entry.size();
        if entry.header().entry_type() != tar::EntryType::Regular || files > FILES_MAX {
            return Err(BackupError::damaged(format!("{path} does not belong into one")).into());
        }
        let Some(known) = &manifest else {
            manifest = Some(read_manifest(&path, bytes, &mut entry)?);
            continue;
        };
        let place = Place::of(&path).ok_or_else(|| BackupError::damaged(format!("{path} does not belong into one")))?;
        if place == Place::Catalogue {
            has_catalogue = true;
        } else if bytes > SMALL_BYTES_MAX {
            return Err(BackupError::damaged(format!("{path} is larger than any such file")).into());
        }
        let mut watched = Watched { inner: &mut entry, error: None };
        let used = each(known, &place, &mut watched);
        // Whatever was made of it: it was the backup that could not be read.
        if let Some(error) = watched.error {
            return Err(BackupError::damaged(error).into());
        }
        used?;
    }
    // The end of the archive comes before that of the encryption, which alone shows that nothing is missing.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(BackupError::damaged)?;
    let manifest = manifest.ok_or_else(|| BackupError::damaged("it is empty"))?;
    if !has_catalogue {
        return Err(BackupError::damaged("it has no catalogue").into());
    }
    Ok(manifest)
}

/// Remembers that reading failed, which whoever reads cannot tell from its own errors.
struct Watched<'a> {
    inner: &'a mut dyn Read,
    error: Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let told = io::Error::new(error.kind(), error.to_string());
            self.error = Some(error);
            told
        })
    }
}

fn read_manifest(path: &str, bytes: u64, entry: &mut dyn Read) -> Result<Manifest, BackupError> {
    if path != MANIFEST || bytes > MANIFEST_BYTES_MAX {
        return Err(BackupError::damaged("it is no backup of callvault"));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(BackupError::damaged)?;
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(&text).map_err(BackupError::damaged)?;
    if version > VERSION {
        return Err(BackupError::Newer(version));
    }
    serde_json::from_slice(&text).map_err(BackupError::damaged)
}

fn decrypted<R: Read>(input: R, lock: &Lock) -> Result<age::stream::StreamReader<R>, BackupError> {
    let decryptor = Decryptor::new(input).map_err(|error| match error {
        DecryptError::Io(error) => BackupError::Io { what: "read", error },
        _ => BackupError::damaged("it is no backup of callvault"),
    })?;
    let identity: Box<dyn Identity> = match (lock, decryptor.is_scrypt()) {
        (Lock::Passphrase(text), true) => Box::new(scrypt::Identity::new(Lock::passphrase(text))),
        (Lock::Key(text), false) => Box::new(parse_identity(text)?),
        (Lock::Passphrase(_), false) => {
            return Err(BackupError::Locked("it was made for a recipient; name the file of its identity"));
        }
        (Lock::Key(_), true) => {
            return Err(BackupError::Locked("it was made with a passphrase; name the file that has it"));
        }
    };
    decryptor.decrypt(iter::once(&*identity)).map_err(|error| match error {
        DecryptError::Io(error) => BackupError::Io { what: "read", error },
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed | DecryptError::NoMatchingKeys => {
            BackupError::Locked("this is not the passphrase, or the identity, that it was made with")
        }
        error => BackupError::damaged(error),
    })
}

/// The first identity in the text of an identity file, as `age-keygen` writes it.
fn parse_identity(text: &str) -> Result<x25519::Identity, BackupError> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let line = line.ok_or_else(|| BackupError::Identity("it is empty".to_owned()))?;
    line.parse().map_err(|error: &str| BackupError::Identity(error.to_owned()))
}

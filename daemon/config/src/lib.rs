//! The appliance's configuration: which keys there are, what each defaults to, and the typed, checked values that every
//! other part works with. It reads TOML files and a given set of environment variables, once, when asked; it has no
//! watcher, no clock and no global state, changes nothing on disk, and knows nothing of what the values are used for.
//!
//! # Where a value comes from
//!
//! Later layers win over earlier ones, key by key (a list is replaced, not extended):
//!
//! 1. the built-in default,
//! 2. the configuration file (`/etc/callvault/callvault.toml`, or the one that was named),
//! 3. each `*.toml` in the folder `conf.d` beside that file, in the order of their names; among them, by its name, the one file that the
//!    daemon writes when an administrator changes settings in the portal ([`PORTAL_FILE`]), which lies in the data folder,
//! 4. environment variables: `CALLVAULT__SIP__UDP` is the key `sip.udp`, `CALLVAULT__DATA_DIR` is `data_dir`.
//!
//! A relative path means: relative to the folder of the configuration file, wherever the value itself was written. So a
//! configuration can be moved with its folder, and does not depend on where a program was started.
//!
//! # Errors
//!
//! [`Config::load`] reports every error of every layer at once, each with its file, line and column. A key that does not
//! exist is an error that names the nearest one that does: a typing mistake that is quietly ignored is how recordings get
//! lost. A value is checked even where a later layer replaces it.
//!
//! # One source
//!
//! [`schema`] declares each key once: type, default, range, documentation. The structs, the checks, the list of known
//! keys and the documented sample file (`etc/callvault.toml`, see [`documented_defaults`]) all come from that.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cross_check;
mod deliveries_check;
mod error;
mod layers;
mod live;
mod macros;
mod mail;
mod portal_file;
mod risk;
pub mod schema;
mod setting;
mod values;
mod webex_check;
mod zone;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use error::ConfigError;
pub use live::takes_effect_at_once;
pub use mail::{MailTls, SizeLimit};
pub use portal_file::{Fixed, Mistake, PORTAL_FILE, Proposal, Wanted};
pub use risk::{Risk, risks};
pub use schema::{
    Analytics, Archive, Directory, ExportFolder, Filters, Http, Journal, Keys, Licence, Limits, Log, Mail, Media,
    Numbers, Oidc, Organisation, Permissions, Portal, Queue, Recording, Render, Retention, Sip, Store, Uploads, Webex,
    WebexRules, Webhook, documented_defaults,
};
pub use setting::KeySpec;
pub use values::{
    ArchiveCodec, ArchiveKeys, BitRate, Bytes, ClientCertificate, DialDigits, HttpListen, KeptDirection, KeptTraffic,
    LicenceModel, Listen, LogLevel, MediaAddress, Network, Patterns, PeerList, PortRange, PreservedPeriod,
    PublicKeyTexts, RecordingMode, RetentionPeriod, RetentionRule, Texts, UnknownUser, WhoDeletes, WhoMay,
};
pub use zone::ZoneName;

/// The configuration file that is read when no other is named.
pub const DEFAULT_PATH: &str = "/etc/callvault/callvault.toml";

/// The whole configuration, checked. See [`schema`] for what each value means.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where everything that must survive a restart is kept. Absolute.
    pub data_dir: PathBuf,
    /// Where sockets and the checkpoints of live sessions are kept, on tmpfs. Absolute.
    pub runtime_dir: PathBuf,
    /// What is the same for the whole organisation.
    pub organisation: Organisation,
    /// SIP signalling.
    pub sip: Sip,
    /// RTP reception.
    pub media: Media,
    /// Limits on everything that callers can make grow.
    pub limits: Limits,
    /// The journal on local disk.
    pub journal: Journal,
    /// Which calls are kept.
    pub recording: Recording,
    /// Whose calls they are.
    pub directory: Directory,
    /// Which calls are not kept.
    pub filters: Filters,
    /// How numbers are written, and which are the organisation's own.
    pub numbers: Numbers,
    /// How much may be used.
    pub licence: Licence,
    /// What an archive holds.
    pub archive: Archive,
    /// Where archives live.
    pub store: Store,
    /// How long recordings stay.
    pub retention: Retention,
    /// The health and control endpoint.
    pub http: Http,
    /// `[portal]`.
    pub portal: Portal,
    /// See [`Oidc`].
    pub oidc: Oidc,
    /// Who may do what with recordings.
    pub permissions: Permissions,
    /// The appliance's keys.
    pub keys: Keys,
    /// The job queue.
    pub queue: Queue,
    /// Deliveries to others, whoever they are.
    pub uploads: Uploads,
    /// Voice Analytics.
    pub analytics: Analytics,
    /// A web server.
    pub webhook: Webhook,
    /// A folder.
    pub export_folder: ExportFolder,
    /// Mail to users.
    pub mail: Mail,
    /// Webex.
    pub webex: Webex,
    /// What a synchronisation with it does with each field.
    pub webex_rules: WebexRules,
    /// The render processes.
    pub render: Render,
    /// The log.
    pub log: Log,
    effective: Vec<Effective>,
    /// What relative paths are relative to.
    base: PathBuf,
    /// The configuration file, as it was named.
    file: PathBuf,
    from_portal: portal_file::PortalKeys,
}

/// One key as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The dotted key, `sip.udp`.
    pub key: &'static str,
    /// The value in TOML notation.
    pub value: String,
    /// Where it was set: `default`, `FILE:LINE`, or the environment variable's name.
    pub origin: String,
}

impl Config {
    /// Reads the file at `path`, the drop-ins beside it and the variables of `env` (pairs of name and value; only names
    /// that begin with `CALLVAULT_` are looked at, so the whole environment may be given, see [`environment`]).
    ///
    /// # Errors
    /// All errors found in all layers, in the order of the layers. Never empty.
    pub fn load(path: &Path, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<ConfigError>> {
        Self::load_with(path, env, None)
    }

    /// [`Config::load`], as if the portal's file held `portal_text`, where that is given.
    pub(crate) fn load_with(
        path: &Path,
        env: impl IntoIterator<Item = (String, String)>,
        portal_text: Option<&str>,
    ) -> Result<Self, Vec<ConfigError>> {
        let env: BTreeMap<String, String> = env.into_iter().collect();
        let base = base_folder(path);
        let loaded = layers::load(path, &env, &base, portal_text)?;
        let config = schema::build(&loaded.merged, &base)?;
        let errors = cross_check::errors(&config, &loaded.merged);
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { file: path.to_owned(), from_portal: loaded.portal.keys, ..config })
    }

    /// The built-in defaults, as if an empty file stood in `folder`.
    #[must_use]
    pub fn defaults(folder: &Path) -> Self {
        let merged = layers::defaults();
        let config = schema::build(&merged, folder).expect("the built-in defaults are valid, a test proves it");
        let from_portal = portal_file::PortalKeys::none_in(&config.data_dir);
        Self { file: folder.join("callvault.toml"), from_portal, ..config }
    }

    /// Every key with the value in force and where it comes from, in the order of the documentation.
    #[must_use]
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// Things that are allowed but probably not meant; one sentence each, for the log and for `--check`.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = cross_check::remarks(self);
        remarks.extend(self.from_portal.unseen.clone());
        remarks
    }

    /// The folder of the archives: `store.path`, or `store` in the data folder.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.store.path.clone().unwrap_or_else(|| self.data_dir.join("store"))
    }

    /// The folder of the private keys: `keys.path`, or `keys` in the data folder.
    #[must_use]
    pub fn keys_path(&self) -> PathBuf {
        self.keys.path.clone().unwrap_or_else(|| self.data_dir.join("keys"))
    }

    /// The file with the current private key. Older ones stand beside it as `appliance-<key id>.key`.
    #[must_use]
    pub fn appliance_key_path(&self) -> PathBuf {
        self.keys_path().join("appliance.key")
    }

    /// The folder of the journal files.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.data_dir.join("journal")
    }

    /// The catalogue's database file.
    #[must_use]
    pub fn catalogue_path(&self) -> PathBuf {
        self.data_dir.join("catalogue.db")
    }

    /// The folder of the job queue.
    #[must_use]
    pub fn queue_path(&self) -> PathBuf {
        self.data_dir.join("queue")
    }

    /// The file with the bearer token of the control endpoint.
    #[must_use]
    pub fn control_token_path(&self) -> PathBuf {
        self.data_dir.join("control.token")
    }
}

/// The `CALLVAULT_…` variables of this process. A value that is not UTF-8 is passed on with replacement characters, so
/// that the check of that value complains instead of the variable being overlooked.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(layers::ENVIRONMENT_PREFIX))
        .collect()
}

/// What [`check`] found, ready to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Whether the configuration can be used: the exit status is 0 when it is, 1 when it is not.
    pub ok: bool,
    /// Lines for a person, each ended by a newline: every error, or a summary with the remarks.
    pub text: String,
}

/// Validates the configuration at `path` without using it: what `callvaultd --check` and `callvaultctl config check` do.
#[must_use]
pub fn check(path: &Path, env: impl IntoIterator<Item = (String, String)>) -> Checked {
    match Config::load(path, env) {
        Ok(config) => {
            let set = config.effective().iter().filter(|e| e.origin != layers::DEFAULT_ORIGIN).count();
            let total = config.effective().len();
            let mut text =
                format!("{}: good; {set} of {total} keys are set, the others have their defaults\n", path.display());
            for remark in config.remarks() {
                text.push_str(&format!("remark: {remark}\n"));
            }
            Checked { ok: true, text }
        }
        Err(errors) => Checked { ok: false, text: render_errors(&errors) },
    }
}

/// All errors, one a line, and a last line with their number.
#[must_use]
pub fn render_errors(errors: &[ConfigError]) -> String {
    let mut text: String = errors.iter().map(|error| format!("{error}\n")).collect();
    let plural = if errors.len() == 1 { "error" } else { "errors" };
    text.push_str(&format!("{} {plural} in the configuration; nothing was started or changed\n", errors.len()));
    text
}

/// The folder that relative paths are relative to.
fn base_folder(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

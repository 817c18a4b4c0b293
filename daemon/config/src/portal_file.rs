//! The file that holds what administrators change in the portal: where it is, what may be in it, what wins over it, and how the next
//! one comes about. It is written by the daemon, which may not write into `/etc`; so it lies in the data folder.
//!
//! It is read among the files of `conf.d`, at the place of its name: a file of the operator with a later name wins over it, and so does a
//! variable. What names files, programs or sockets of the machine is not in it: who signs in at the portal is not who runs the machine,
//! and a file that is read as a password and sent somewhere is a file that is stolen.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::ConfigError;
use crate::layers::{Layer, check_length, file_layer, raw_of_toml_text, raw_of_value, read_file, unknown};
use crate::setting::{KeySpec, Raw};
use crate::{Config, Effective, schema};

/// Its name, which also says which files of `conf.d` are read before it and which after it.
pub const PORTAL_FILE: &str = "50-portal.toml";

/// Its folder in the data folder.
const FOLDER: &str = "conf.d";

/// What it begins with.
const HEAD: &str = "\
# Written by callvaultd when an administrator changes settings in the portal; what else is written in here is lost with the next change.
# It is read among the files of /etc/callvault/conf.d, by its name: to overrule it, write a file there with a later name.
";

/// Keys that name something on the machine although their values do not look like a path.
const OF_THE_MACHINE: &[&str] = &["http.listen", "portal.user"];

/// Keys that name folders, and that the portal may set all the same: where archives and copies go.
const FOLDERS_TO_CHOOSE: &[&str] = &["store.path", "export_folder.path"];

/// Whether only who runs the machine sets this key, in its files.
fn is_of_the_machine(spec: &KeySpec) -> bool {
    let names_a_file = spec.shape.starts_with("a path") && !FOLDERS_TO_CHOOSE.contains(&spec.key);
    names_a_file || OF_THE_MACHINE.contains(&spec.key)
}

/// The folder of the data where nothing sets one.
pub(crate) fn default_data_dir() -> PathBuf {
    let default = schema::key("data_dir").and_then(|spec| raw_of_toml_text(spec.default));
    default.and_then(|raw| raw.text().map(PathBuf::from)).unwrap_or_default()
}

/// Whether a file of `conf.d` is read after the portal's.
pub(crate) fn is_later_name(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.as_encoded_bytes() > PORTAL_FILE.as_bytes())
}

fn path_in(data_dir: &Path) -> PathBuf {
    let path = data_dir.join(FOLDER).join(PORTAL_FILE);
    std::path::absolute(&path).unwrap_or(path)
}

/// What is known of the portal's file.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct PortalKeys {
    path: PathBuf,
    /// What it sets, in TOML notation, whatever wins over it.
    set: Vec<(&'static str, String)>,
    /// That it could not be looked for, for people.
    pub(crate) unseen: Option<String>,
}

impl PortalKeys {
    /// That there is no such file.
    pub(crate) fn none_in(data_dir: &Path) -> Self {
        Self { path: path_in(data_dir), ..Self::default() }
    }
}

/// What is in the portal's file.
pub(crate) struct PortalLayer {
    pub(crate) layer: Layer,
    pub(crate) keys: PortalKeys,
}

impl PortalLayer {
    /// Reads and checks it. `text` stands for its content, where it is given.
    pub(crate) fn read(data_dir: &Path, text: Option<&str>, errors: &mut Vec<ConfigError>) -> Self {
        let mut keys = PortalKeys::none_in(data_dir);
        let name = keys.path.display().to_string();
        let text = match text {
            Some(text) => check_length(&name, text.len()).map(|()| text.to_owned()),
            None => keys.on_disk(),
        };
        let layer = match text {
            Ok(text) => file_layer(&name, &text, errors),
            Err(error) => {
                errors.push(error);
                Layer::default()
            }
        };
        for (key, value) in &layer.0 {
            let Some(spec) = schema::key(key) else { continue };
            if is_of_the_machine(spec) {
                let message =
                    "names something on the machine and is not taken from this file; set it in /etc/callvault";
                errors.push(ConfigError { key: key.clone(), ..ConfigError::file(name.clone(), message) });
            } else if let Ok(value) = (spec.canonical)(&raw_of_value(value)) {
                keys.set.push((spec.key, value));
            }
        }
        Self { layer, keys }
    }
}

impl PortalKeys {
    /// The text of the file; empty where there is none.
    fn on_disk(&mut self) -> Result<String, ConfigError> {
        match std::fs::metadata(&self.path) {
            Ok(_) => read_file(&self.path),
            // The folder of the data is the daemon's own. Who may not look into it can work with the rest.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.unseen = Some(format!(
                    "{} cannot be looked at by this user: what was set in the portal is not considered here",
                    self.path.display()
                ));
                Ok(String::new())
            }
            // None; that the folder of the data is none is said by who opens it, with the setting that names it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(String::new()),
            Err(_) => read_file(&self.path),
        }
    }
}

/// Why a key cannot be changed in the portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fixed {
    /// It names something on the machine.
    Machine,
    /// A variable wins over it.
    Variable(String),
    /// A file with a later name wins over it: its path and line.
    File(String),
}

impl Fixed {
    /// A stable word for it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Variable(_) => "variable",
            Self::File(_) => "file",
        }
    }

    /// One sentence on why, and what to do.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Machine => {
                "names something on the machine, so only who runs it sets it, in a file in /etc/callvault/conf.d".into()
            }
            Self::Variable(name) => format!(
                "is set by the variable {name} of the service, which wins over the portal; ask who runs the machine to take it away"
            ),
            Self::File(origin) => {
                format!("is set in {origin}, which wins over the portal; ask who runs the machine to take it out there")
            }
        }
    }
}

/// A value as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A text, or whatever is written as one: a duration, a size, a word.
    Text(String),
    /// A whole number.
    Number(i64),
    /// True or false.
    Flag(bool),
    /// A list of texts.
    List(Vec<String>),
}

impl Wanted {
    fn raw(&self) -> Raw {
        match self {
            Self::Text(text) => Raw::Text(text.clone()),
            Self::Number(number) => Raw::Integer(*number),
            Self::Flag(flag) => Raw::Boolean(*flag),
            Self::List(texts) => Raw::List(texts.iter().cloned().map(Raw::Text).collect()),
        }
    }

    fn of_raw(raw: &Raw) -> Option<Self> {
        match raw {
            Raw::Text(text) => Some(Self::Text(text.clone())),
            Raw::Integer(number) => Some(Self::Number(*number)),
            Raw::Boolean(flag) => Some(Self::Flag(*flag)),
            Raw::List(entries) => {
                let text = |entry: &Raw| if let Raw::Text(text) = entry { Some(text.clone()) } else { None };
                entries.iter().map(text).collect::<Option<_>>().map(Self::List)
            }
            Raw::Other(_) => None,
        }
    }

    /// A value in TOML notation.
    #[must_use]
    pub fn of_toml(text: &str) -> Option<Self> {
        Self::of_raw(&raw_of_toml_text(text)?)
    }
}

/// Why a change is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key that it is about; empty where it is about all of them.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Mistake {
    fn of_error(error: &ConfigError) -> Self {
        Self { key: error.key.clone(), message: error.message.clone() }
    }
}

/// A change that was found good.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// What the portal's file holds with it.
    pub text: String,
    /// The whole configuration with it.
    pub config: Config,
}

impl Config {
    /// The configuration file, as it was named.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The file that holds what is set in the portal, whether or not there is one.
    #[must_use]
    pub fn portal_file(&self) -> &Path {
        &self.from_portal.path
    }

    /// Whether the portal's file has this key, also where something wins over it.
    #[must_use]
    pub fn is_set_in_portal(&self, key: &str) -> bool {
        self.from_portal.set.iter().any(|(name, _)| *name == key)
    }

    /// Why the key of this entry cannot be changed in the portal; none: it can.
    #[must_use]
    pub fn fixed(&self, entry: &Effective) -> Option<Fixed> {
        if schema::key(entry.key).is_some_and(is_of_the_machine) {
            return Some(Fixed::Machine);
        }
        if entry.origin.starts_with(crate::layers::ENVIRONMENT_PREFIX) {
            return Some(Fixed::Variable(entry.origin.clone()));
        }
        let (file, _) = entry.origin.rsplit_once(':')?;
        let file = Path::new(file);
        let is_drop_in = file.parent().is_some_and(|folder| folder.ends_with(FOLDER)) && file != self.from_portal.path;
        (is_drop_in && is_later_name(file)).then(|| Fixed::File(entry.origin.clone()))
    }

    /// The configuration that these changes make of this one, through everything that a start checks. A key without a value is taken out of
    /// the portal's file. Nothing is written.
    ///
    /// # Errors
    /// Everything that is wrong, never empty.
    pub fn proposed(
        &self,
        env: impl IntoIterator<Item = (String, String)>,
        changes: &[(String, Option<Wanted>)],
    ) -> Result<Proposal, Vec<Mistake>> {
        let mut set = self.from_portal.set.clone();
        let mut mistakes = Vec::new();
        for (key, wanted) in changes {
            match self.one_proposed(key, wanted.as_ref()) {
                Ok((key, value)) => {
                    set.retain(|(name, _)| *name != key);
                    set.extend(value.map(|value| (key, value)));
                }
                Err(message) => mistakes.push(Mistake { key: key.clone(), message }),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let text = compose(&set);
        match Self::load_with(&self.file, env, Some(&text)) {
            Ok(config) => Ok(Proposal { text, config }),
            Err(errors) => Err(errors.iter().map(Mistake::of_error).collect()),
        }
    }

    fn one_proposed(&self, key: &str, wanted: Option<&Wanted>) -> Result<(&'static str, Option<String>), String> {
        let spec = schema::key(key).ok_or_else(|| unknown(key, false))?;
        let Some(wanted) = wanted else { return Ok((spec.key, None)) };
        let entry = self.effective().iter().find(|entry| entry.key == spec.key);
        if let Some(fixed) = entry.and_then(|entry| self.fixed(entry)) {
            return Err(fixed.text());
        }
        (spec.canonical)(&wanted.raw()).map(|value| (spec.key, Some(value)))
    }
}

/// The text of the file: sections and keys in the order of the documentation.
fn compose(set: &[(&'static str, String)]) -> String {
    let mut text = HEAD.to_owned();
    for (section, _, keys) in schema::sections() {
        let mut heading = (!section.is_empty()).then(|| format!("\n[{section}]\n"));
        for spec in keys {
            let Some((_, value)) = set.iter().find(|(key, _)| *key == spec.key) else { continue };
            text.extend(heading.take());
            let field = spec.key.rsplit('.').next().unwrap_or(spec.key);
            text.push_str(&format!("{field} = {value}\n"));
        }
    }
    text
}

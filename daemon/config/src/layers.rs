//! Reading the layers: files with the place of every value, then variables, each checked against the schema, then merged.
//!
//! The `config` crate merges the layers and maps variables to keys. It knows no lines, so files are parsed here with
//! `toml`, and each value carries its place through the merge as the origin that `config` keeps with a value.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use config::{Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::ConfigError;
use crate::portal_file::{self, PortalLayer};
use crate::schema::{self, SECTIONS};
use crate::setting::Raw;

/// What the names of our variables begin with.
pub(crate) const ENVIRONMENT_PREFIX: &str = "CALLVAULT_";

/// The origin of a value that nobody set.
pub(crate) const DEFAULT_ORIGIN: &str = "default";

/// Longest configuration file. The documented sample has 10 KiB; a file of many megabytes is not a configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most files in `conf.d`, so that a wrong folder does not make the start read for minutes.
const DROP_INS_MAX: usize = 256;

/// The merged layers.
#[derive(Debug)]
pub(crate) struct Merged(Value);

impl Merged {
    /// The value of a key as it was written, and where.
    pub(crate) fn find(&self, key: &str) -> Option<(Raw, String)> {
        let mut value = &self.0;
        for part in key.split('.') {
            let ValueKind::Table(table) = &value.kind else {
                return None;
            };
            value = table.get(part)?;
        }
        Some((raw_of_value(value), value.origin().unwrap_or(DEFAULT_ORIGIN).to_owned()))
    }

    /// Reads the value of a key; an error goes to `errors`.
    pub(crate) fn value<T>(
        &self,
        key: &str,
        errors: &mut Vec<ConfigError>,
        read: impl FnOnce(&Raw) -> Result<T, String>,
    ) -> Option<T> {
        let (read, origin) = match self.find(key) {
            Some((raw, origin)) => (read(&raw), origin),
            None => (Err("has no value".into()), DEFAULT_ORIGIN.into()),
        };
        read.map_err(|message| errors.push(ConfigError { key: key.into(), ..at_origin(&origin, message) })).ok()
    }
}

/// An error at the place that a value's origin names.
pub(crate) fn at_origin(origin: &str, message: impl Into<String>) -> ConfigError {
    let mut error = ConfigError::file(origin, message);
    if let Some((file, line)) = origin.rsplit_once(':')
        && let Ok(line) = line.parse()
    {
        error.file = file.to_owned();
        error.line = line;
    }
    error
}

/// One layer on its way into the merge: dotted keys with their values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer(pub(crate) Vec<(String, Value)>);

impl Layer {
    /// The path that a key has here.
    fn text(&self, key: &str) -> Option<PathBuf> {
        let (_, value) = self.0.iter().rev().find(|(name, _)| name == key)?;
        let ValueKind::String(text) = &value.kind else { return None };
        Some(PathBuf::from(text))
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.iter().cloned().collect())
    }
}

/// The defaults alone.
pub(crate) fn defaults() -> Merged {
    merge(Vec::new()).expect("the built-in defaults merge, a test proves it")
}

/// Values that were merged before, as the one layer above the defaults.
pub(crate) fn of_entries(entries: &[crate::Effective]) -> Result<Merged, Vec<ConfigError>> {
    let value = |entry: &crate::Effective| {
        let raw = raw_of_toml_text(&entry.value).unwrap_or(Raw::Other("a value that is not TOML"));
        (entry.key.to_owned(), value_of_raw(&raw, &entry.origin))
    };
    merge_or_say(vec![Layer(entries.iter().map(value).collect())])
}

/// All layers, merged, and what the portal's file has of them.
pub(crate) struct Loaded {
    pub(crate) merged: Merged,
    pub(crate) portal: PortalLayer,
}

/// Reads, checks and merges all layers. `portal_text` stands for the content of the portal's file, where it is given.
pub(crate) fn load(
    path: &Path,
    env: &BTreeMap<String, String>,
    base: &Path,
    portal_text: Option<&str>,
) -> Result<Loaded, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut layers = Vec::new();
    let mut before_portal = 0;
    for file in std::iter::once(path.to_path_buf()).chain(drop_ins(path, &mut errors)) {
        match read_file(&file) {
            Ok(text) => layers.push(file_layer(&file.display().to_string(), &text, &mut errors)),
            Err(error) => errors.push(error),
        }
        if layers.len() == 1 || !portal_file::is_later_name(&file) {
            before_portal = layers.len();
        }
    }
    layers.push(environment_layer(env, &mut errors));
    let data_dir = layers.iter().rev().find_map(|layer| layer.text("data_dir"));
    let data_dir = data_dir.unwrap_or_else(portal_file::default_data_dir);
    let portal = PortalLayer::read(&base.join(data_dir), portal_text, &mut errors);
    layers.insert(before_portal, portal.layer.clone());
    if !errors.is_empty() {
        return Err(errors);
    }
    merge_or_say(layers).map(|merged| Loaded { merged, portal })
}

fn merge_or_say(layers: Vec<Layer>) -> Result<Merged, Vec<ConfigError>> {
    merge(layers)
        .map_err(|error| vec![ConfigError::file("configuration", format!("the layers cannot be merged: {error}"))])
}

fn merge(layers: Vec<Layer>) -> Result<Merged, config::ConfigError> {
    let mut builder = config::Config::builder().add_source(default_layer());
    for layer in layers {
        builder = builder.add_source(layer);
    }
    builder.build().map(|merged| Merged(merged.cache))
}

fn default_layer() -> Layer {
    let value = |spec: &crate::KeySpec| {
        let raw = raw_of_toml_text(spec.default).unwrap_or(Raw::Other("a default that is not TOML"));
        (spec.key.to_owned(), value_of_raw(&raw, DEFAULT_ORIGIN))
    };
    Layer(schema::keys().map(value).collect())
}

/// The `*.toml` in `conf.d` beside the file, in the order of their names.
fn drop_ins(path: &Path, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("")).join("conf.d");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            errors.push(ConfigError::file(
                folder.display().to_string(),
                format!("cannot be read ({error}); check its permissions"),
            ));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => files.push(entry.path()),
            Err(error) => errors
                .push(ConfigError::file(folder.display().to_string(), format!("cannot be read to its end ({error})"))),
        }
    }
    // Editors and package managers leave hidden files behind; they are not meant.
    let hidden = |file: &PathBuf| file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml") && !hidden(file));
    files.sort();
    if files.len() > DROP_INS_MAX {
        let message =
            format!("holds {} files; at most {DROP_INS_MAX} are read, put several settings into one", files.len());
        errors.push(ConfigError::file(folder.display().to_string(), message));
        files.truncate(DROP_INS_MAX);
    }
    files
}

pub(crate) fn read_file(path: &Path) -> Result<String, ConfigError> {
    let name = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "there is no such file; name another with --config, or create it (an empty file means: all defaults)"
                    .into()
            }
            std::io::ErrorKind::PermissionDenied => {
                "cannot be read (permission denied); run as root or as the appliance's user".into()
            }
            _ => format!("cannot be read ({error})"),
        };
        ConfigError::file(name.clone(), remedy)
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    check_length(&name, bytes.len())?;
    String::from_utf8(bytes).map_err(|error| {
        let (line, column) = place(error.as_bytes(), error.utf8_error().valid_up_to());
        ConfigError { line, column, ..ConfigError::file(name, "is not UTF-8 text here; save the file as UTF-8") }
    })
}

/// Whether a file of so many bytes is read.
pub(crate) fn check_length(name: &str, bytes: usize) -> Result<(), ConfigError> {
    if bytes as u64 <= FILE_BYTES_MAX {
        return Ok(());
    }
    let message = format!("is longer than {FILE_BYTES_MAX} bytes; that is not a configuration of callvault");
    Err(ConfigError::file(name, message))
}

/// Parses and checks one file; what is good goes into the layer, what is not into `errors`.
pub(crate) fn file_layer(file: &str, text: &str, errors: &mut Vec<ConfigError>) -> Layer {
    let (table, syntax) = DeTable::parse_recoverable(text);
    let at = |offset: usize, key: &str, message: String| {
        let (line, column) = place(text.as_bytes(), offset);
        ConfigError { file: file.to_owned(), line, column, key: key.to_owned(), message }
    };
    let mut found = Vec::new();
    for error in &syntax {
        let offset = error.span().map_or(0, |span| span.start);
        found.push(at(offset, "", format!("not valid TOML: {}", error.message().replace('\n', "; "))));
    }
    let mut layer = Layer(Vec::new());
    let mut flawed = Vec::new();
    walk(table.get_ref(), "", &mut |key, offset, checked| match checked {
        Ok(raw) => {
            let (line, _) = place(text.as_bytes(), offset);
            layer.0.push((key.to_owned(), value_of_raw(&raw, &format!("{file}:{line}"))));
        }
        Err(message) => flawed.push(at(offset, key, message)),
    });
    // Where the text itself is broken, what the parser made of that line is a guess: one error is enough.
    flawed.retain(|flaw| found.iter().all(|syntax| syntax.line != flaw.line));
    found.append(&mut flawed);
    found.sort_by_key(|error| (error.line, error.column));
    errors.append(&mut found);
    layer
}

/// Takes a dotted key, the offset of its place in the file, and its value or what is wrong.
type Visitor<'a> = dyn FnMut(&str, usize, Result<Raw, String>) + 'a;

/// Calls `each` with every key of a table: its dotted name, the offset of its name or (for a bad value) of its value, and
/// the value or what is wrong.
fn walk(table: &DeTable<'_>, prefix: &str, each: &mut Visitor<'_>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        let is_section =
            prefix.is_empty() && SECTIONS.iter().any(|(section, _, _)| !section.is_empty() && *section == key);
        match (is_section, value.get_ref()) {
            (true, DeValue::Table(inner)) => walk(inner, &key, each),
            (true, _) => each(
                &key,
                name.span().start,
                Err(format!("is a section; write [{key}] on a line of its own and its keys below")),
            ),
            (false, _) => match schema::key(&key) {
                None => each(&key, name.span().start, Err(unknown(&key, matches!(value.get_ref(), DeValue::Table(_))))),
                Some(spec) => {
                    let raw = raw_of_toml(value);
                    match (spec.canonical)(&raw) {
                        Ok(_) => each(&key, name.span().start, Ok(raw)),
                        Err(message) => each(&key, value.span().start, Err(message)),
                    }
                }
            },
        }
    }
}

/// The variables. Their names are mapped to keys by the `config` crate: `CALLVAULT__SIP__UDP` to `sip.udp`.
fn environment_layer(env: &BTreeMap<String, String>, errors: &mut Vec<ConfigError>) -> Layer {
    let ours: Map<String, String> = env
        .iter()
        .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    report_single_underscores(ours.keys(), errors);
    let source =
        config::Environment::with_prefix("CALLVAULT").prefix_separator("__").separator("__").source(Some(ours));
    let mut variables: Vec<(String, Value)> = source.collect().unwrap_or_default().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    let mut layer = Layer(Vec::new());
    for (key, value) in variables {
        let variable = variable_of(&key);
        let text = value.into_string().unwrap_or_default();
        let checked = match schema::key(&key) {
            None => Err(unknown(&key, false)),
            Some(spec) => raw_of_variable(&text, spec),
        };
        match checked {
            Ok(raw) => layer.0.push((key, value_of_raw(&raw, &variable))),
            Err(message) => errors.push(ConfigError { key: variable, ..ConfigError::file("environment", message) }),
        }
    }
    layer
}

/// `CALLVAULT_SIP_UDP` is a likely slip for `CALLVAULT__SIP__UDP`, and would otherwise be ignored without a word. Other
/// names with one underscore belong to someone else.
fn report_single_underscores<'a>(names: impl Iterator<Item = &'a String>, errors: &mut Vec<ConfigError>) {
    for name in names {
        let rest = name[ENVIRONMENT_PREFIX.len()..].to_lowercase();
        let meant = schema::keys().find(|spec| spec.key.replace('.', "_") == rest);
        if let Some(spec) = meant {
            let message = format!("is not read; write {} (two underscores)", variable_of(spec.key));
            errors.push(ConfigError { key: name.clone(), ..ConfigError::file("environment", message) });
        }
    }
}

fn variable_of(key: &str) -> String {
    format!("CALLVAULT__{}", key.to_uppercase().replace('.', "__"))
}

/// A variable's text is taken as TOML (`true`, `5`, `["a", "b"]`) where that fits the key, else as plain text.
fn raw_of_variable(text: &str, spec: &crate::KeySpec) -> Result<Raw, String> {
    if let Some(raw) = raw_of_toml_text(text)
        && (spec.canonical)(&raw).is_ok()
    {
        return Ok(raw);
    }
    let raw = Raw::Text(text.to_owned());
    (spec.canonical)(&raw).map(|_| raw)
}

/// What to say about a key that does not exist.
pub(crate) fn unknown(key: &str, is_table: bool) -> String {
    let what = if is_table && !key.contains('.') { "unknown section" } else { "unknown key" };
    match nearest(key, is_table) {
        Some(near) => format!("{what}; did you mean `{near}`?"),
        None => format!("{what}; etc/callvault.toml lists all that exist"),
    }
}

/// The known key (or, for a table, section) that the writer most likely meant.
fn nearest(key: &str, is_table: bool) -> Option<&'static str> {
    let key = key.to_lowercase().replace('-', "_");
    let sections = SECTIONS.iter().map(|(name, _, _)| *name).filter(|name| is_table && !name.is_empty());
    let candidates = sections.chain(schema::keys().map(|spec| spec.key).filter(|_| !is_table));
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |candidate: &str| {
        let whole = strsim::damerau_levenshtein(&key, candidate);
        // The right name in the wrong section (`udp` before any section, `journal.listen`) is worth one slip.
        if last(&key) == last(candidate) { whole.min(1) } else { whole }
    };
    let (near, slips) = candidates.map(|candidate| (candidate, distance(candidate))).min_by_key(|(_, slips)| *slips)?;
    // A third of the name may be wrong; beyond that the suggestion would be a guess that misleads.
    (slips <= 1.max(key.len() / 3)).then_some(near)
}

pub(crate) fn raw_of_toml_text(text: &str) -> Option<Raw> {
    DeValue::parse(text).ok().map(|value| raw_of_toml(&value))
}

fn raw_of_toml(value: &Spanned<DeValue<'_>>) -> Raw {
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a number that is too large"), Raw::Integer),
        DeValue::Boolean(flag) => Raw::Boolean(*flag),
        DeValue::Array(entries) => Raw::List(entries.iter().map(raw_of_toml).collect()),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

fn value_of_raw(raw: &Raw, origin: &str) -> Value {
    let kind = match raw {
        Raw::Text(text) => ValueKind::String(text.clone()),
        Raw::Integer(number) => ValueKind::I64(*number),
        Raw::Boolean(flag) => ValueKind::Boolean(*flag),
        Raw::List(entries) => ValueKind::Array(entries.iter().map(|entry| value_of_raw(entry, origin)).collect()),
        Raw::Other(_) => ValueKind::Nil,
    };
    Value::new(Some(&origin.to_owned()), kind)
}

pub(crate) fn raw_of_value(value: &Value) -> Raw {
    match &value.kind {
        ValueKind::String(text) => Raw::Text(text.clone()),
        ValueKind::I64(number) => Raw::Integer(*number),
        ValueKind::Boolean(flag) => Raw::Boolean(*flag),
        ValueKind::Array(entries) => Raw::List(entries.iter().map(raw_of_value).collect()),
        _ => Raw::Other("a table"),
    }
}

/// Line and column, counted from 1, the column in characters, of an offset in bytes.
fn place(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}

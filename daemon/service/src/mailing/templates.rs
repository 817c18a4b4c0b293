//! The templates in use: the built-in ones and those in `mail.templates`, read again when a file there changes.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use callvault_config::Mail;
use callvault_mail::{TEMPLATE_BYTES_MAX, TEMPLATES_MAX, Templates};

use super::TEMPLATES_NOTE;
use crate::appliance::Notes;

/// Flaws that are told at once; who repaired these sees the next.
const FLAWS_SHOWN: usize = 5;

/// The templates in use. The lock guards them and what they were made of.
#[derive(Debug, Default)]
pub(super) struct LoadedTemplates(Mutex<Option<Loaded>>);

#[derive(Debug)]
struct Loaded {
    of: Source,
    templates: Arc<Templates>,
}

/// What templates are made of.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    language: String,
    files: BTreeMap<String, String>,
}

impl LoadedTemplates {
    /// Those in use.
    pub(super) fn current(&self) -> Arc<Templates> {
        let loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.as_ref().map_or_else(|| Arc::new(Templates::built_in()), |loaded| Arc::clone(&loaded.templates))
    }

    /// Looks at the folder, and takes what is good of it.
    pub(super) fn look(&self, mail: &Mail, notes: &Notes) {
        let files = match mail.templates.as_deref().map(read_folder).transpose() {
            Ok(files) => files.unwrap_or_default(),
            Err(error) => {
                let path = mail.templates.as_deref().unwrap_or(Path::new(""));
                let text = format!(
                    "failed to read the templates {} (mail.templates), those before stay: {error}",
                    path.display()
                );
                return notes.set(TEMPLATES_NOTE, text);
            }
        };
        let of = Source { language: mail.language.clone(), files };
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.as_ref().is_some_and(|loaded| loaded.of == of) {
            return;
        }
        let (templates, flaws) = Templates::new(&of.files, &of.language);
        *loaded = Some(Loaded { of, templates: Arc::new(templates) });
        drop(loaded);
        if flaws.is_empty() {
            return notes.clear(TEMPLATES_NOTE);
        }
        let shown: Vec<String> = flaws.iter().take(FLAWS_SHOWN).map(ToString::to_string).collect();
        let text = format!(
            "{} flaws in mail.templates, the built-in templates are used instead: {}",
            flaws.len(),
            shown.join("; ")
        );
        notes.set(TEMPLATES_NOTE, text);
    }
}

/// The files of the folder whose names begin as those of templates do. What an editor leaves behind is passed over.
fn read_folder(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if !name.starts_with("recording.") || name.ends_with('~') || !entry.path().is_file() {
            continue;
        }
        // One more than is allowed, so that it is seen that there are too many, or too much.
        if files.len() > TEMPLATES_MAX {
            break;
        }
        let mut bytes = Vec::new();
        fs::File::open(entry.path())?.take(TEMPLATE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not UTF-8 text; save it as UTF-8"))
        })?;
        files.insert(name, text);
    }
    Ok(files)
}

//! That nobody deletes by hand, ever: once `permissions.delete` was `nobody-irreversibly`, it is so for good.
//!
//! It is kept where each can be lost or replaced without the others: sealed in the catalogue, as a file in the data folder, and as a file in
//! the store. Any of them is enough, and what lacks it gets it again. So neither an edited settings file nor an older copy of the
//! catalogue undoes it, and a catalogue that is made anew beside an old store has it too. Who can write to all three can undo it; they
//! could as well delete the archives. A file is no secret and needs no seal: to forge one is to switch deleting off.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::Context;
use callvault_access::audit::Entry;
use callvault_access::{Action, Caller, Refusal};
use callvault_catalogue::{Catalogue, CatalogueError, Decree};
use callvault_config::{Config, WhoDeletes};
use jiff::Timestamp;
use serde_json::json;

use super::PERMISSIONS_NOTE;
use crate::appliance::{Appliance, Notes};
use crate::files::write_whole;
use crate::store::StoreError;

/// Its name in the data folder.
pub(crate) const FILE_NAME: &str = "never-delete";

/// Its name in the store.
const STORE_NAME: &str = ".callvault-never-delete";

/// What is in either: for people, as its being there is what counts.
const TEXT: &str = "permissions.delete was set to nobody-irreversibly: no recording of this appliance is ever deleted by hand.\n\
                    To remove this file changes nothing; it is made again.\n";

/// Whether nobody may ever delete by hand. What the settings decide for good is entered here.
pub(super) fn open(config: &Config, catalogue: &Catalogue, notes: &Notes) -> anyhow::Result<bool> {
    let path = config.data_dir.join(FILE_NAME);
    let in_catalogue = match catalogue.decreed(Decree::NeverDelete) {
        Ok(kept) => kept.is_some(),
        // It was there before somebody changed it.
        Err(CatalogueError::DamagedMeta(_)) => true,
        Err(error) => return Err(error.into()),
    };
    let was_set = in_catalogue || path.exists();
    let is_wanted = config.permissions.delete == WhoDeletes::NobodyIrreversibly;
    if !was_set && !is_wanted {
        return Ok(false);
    }
    if !in_catalogue {
        enter(catalogue, if was_set { "data folder" } else { "permissions.delete" })?;
    }
    keep_in_file(&path)?;
    if !is_wanted {
        overrule(config, catalogue, notes)?;
    }
    Ok(true)
}

/// Puts it into the catalogue, and says why in the audit log.
fn enter(catalogue: &Catalogue, because: &str) -> Result<(), CatalogueError> {
    let entry = Entry::new(&Caller::appliance("settings"), Action::Settings, Timestamp::now())
        .with("permissions.delete", "nobody-irreversibly")
        .with("because", because);
    catalogue.decree(Decree::NeverDelete, &json!({"since": format!("{:.3}", entry.at)}), &entry)?;
    tracing::warn!("deleting by hand is switched off for ever, because of: {because}");
    Ok(())
}

fn keep_in_file(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    write_whole(path, TEXT.as_bytes()).with_context(|| format!("write {}", path.display()))
}

/// The settings say something else: they are overruled, and that is seen.
fn overrule(config: &Config, catalogue: &Catalogue, notes: &Notes) -> Result<(), CatalogueError> {
    let wanted = config.permissions.delete.as_str();
    let text = format!(
        "permissions.delete is \"{wanted}\" in the configuration, but was set to \"nobody-irreversibly\" before: that cannot be changed, and nobody deletes by hand. Write \"nobody-irreversibly\" again"
    );
    notes.set(PERMISSIONS_NOTE, text);
    let refusal = Refusal {
        rule: "delete-never",
        who_may: "nobody".to_owned(),
        what_to_do: "write \"nobody-irreversibly\" again",
    };
    let entry = Entry::new(&Caller::appliance("settings"), Action::Settings, Timestamp::now());
    catalogue.audit(&entry.with("permissions.delete", wanted).refused(&refusal)).map(drop)
}

/// Brings what the store says of it and what is known here together, once for each run of the daemon; to be called while the store is
/// there.
pub(crate) fn keep_in_store(appliance: &Appliance) {
    let access = &appliance.access;
    if access.store_asked.load(Ordering::Relaxed) {
        return;
    }
    match bring_together(appliance) {
        Ok(()) => access.store_asked.store(true, Ordering::Relaxed),
        // It is tried again at the next look.
        Err(error) => {
            tracing::warn!("failed to compare with the store whether deleting by hand is switched off: {error:#}")
        }
    }
}

fn bring_together(appliance: &Appliance) -> anyhow::Result<()> {
    let access = &appliance.access;
    let name = Path::new(STORE_NAME);
    let in_store = match appliance.store.get(name) {
        Ok(_) => true,
        Err(error) if error.is_not_found() => false,
        Err(error) => return Err(error.into()),
    };
    match (access.never_delete.load(Ordering::Relaxed), in_store) {
        (true, false) => appliance
            .store
            .put::<(), StoreError>(name, |mut out| {
                let written = out.write_all(TEXT.as_bytes());
                written.map_err(|error| StoreError::Io { what: "write", path: STORE_NAME.to_owned(), error })?;
                Ok((out, ()))
            })
            .map_err(Into::into),
        (false, true) => {
            access.never_delete.store(true, Ordering::Relaxed);
            enter(&appliance.catalogue, "store")?;
            keep_in_file(&appliance.config.data_dir.join(FILE_NAME))?;
            Ok(overrule(&appliance.config, &appliance.catalogue, &appliance.notes)?)
        }
        _ => Ok(()),
    }
}

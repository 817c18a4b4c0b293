//! What is asked about stores, and the order to move archives.

use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use callvault_access::{Action, Caller, On};
use callvault_catalogue::StoreHas;
use callvault_http::{Answer, ApiError, ErrorKind, MigrateStore};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::NOTE;
use crate::appliance::Appliance;
use crate::stores::{Known, Move, RECORD_NAME, Record};

/// Failures that are shown.
const FAILED_SHOWN: usize = 50;

fn failed(error: impl std::fmt::Display) -> ApiError {
    tracing::error!("failed to {error}");
    ApiError::new(ErrorKind::Unavailable, format!("failed to {error}"))
}

fn refused(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::Unprocessable, text)
}

fn sum<'a>(has: impl Iterator<Item = &'a StoreHas>) -> StoreHas {
    has.fold(StoreHas::default(), |all, one| StoreHas {
        archives: all.archives.saturating_add(one.archives),
        bytes: all.bytes.saturating_add(one.bytes),
    })
}

impl Appliance {
    /// The stores, what they have, and how far a move is.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`]; [`ErrorKind::Unavailable`].
    pub(crate) fn store_status(&self, caller: &Caller) -> Answer {
        self.permit_all(caller, Action::Status)?;
        self.stores_json()
    }

    /// Has new archives go to another folder, and those that there are moved there; with `dry_run` says what that would be.
    ///
    /// # Errors
    /// [`ErrorKind::Unprocessable`] when that folder cannot be a store; [`ErrorKind::Conflict`] when all is there already.
    pub(crate) fn migrate_store(&self, caller: &Caller, wanted: &MigrateStore) -> Answer {
        let entry = self.entry(caller, Action::ChangeStore).with("store", "migrate").with("to", &wanted.to);
        let entry = if wanted.dry_run { entry.with("dry_run", "true") } else { entry };
        self.permit(caller, Action::ChangeStore, On::Everything, &entry)?;
        let record = self.store.record();
        let to = self.checked_path(&record, &wanted.to)?;
        let moving = Move { rate_bytes_per_s: wanted.rate_bytes_per_s, begun_at: Timestamp::now() };
        let changed = record.move_to(&to, moving).ok_or_else(|| {
            refused(format!("too many stores were used so far; take those that have nothing out of {RECORD_NAME}"))
        })?;
        let has = self.catalogue.store_has().map_err(failed)?;
        let goes = sum(has.iter().filter(|(name, _)| **name != changed.current).map(|(_, has)| has));
        if goes.archives == 0 && changed.current == record.current {
            let text = format!("every archive is in {} already, and new ones go there", to.display());
            return Err(ApiError::new(ErrorKind::Conflict, text));
        }
        let target = self.store.prepare(&Known { name: changed.current.clone(), path: to.clone() });
        if wanted.dry_run {
            let free_bytes = target.room().map_err(|error| refused(format!("failed to {error}")))?;
            return Ok(json!({"plan": {
                "to": to.display().to_string(), "archives": goes.archives, "bytes": goes.bytes, "free_bytes": free_bytes,
                "fits": free_bytes.map(|free| free >= goes.bytes),
                "at_least_s": goes.bytes.checked_div(wanted.rate_bytes_per_s),
            }}));
        }
        // Makes it, or finds that it is the right one, and has it take a file.
        target.check().map_err(|error| refused(format!("failed to {error}")))?;
        target.look();
        if let Some(why) = target.condition().away {
            return Err(refused(why));
        }
        let is_new = changed.current != record.current;
        let path = self.config.data_dir.join(RECORD_NAME);
        self.store.set_record(changed).map_err(|error| failed(format!("write {}: {error}", path.display())))?;
        if is_new {
            self.access.ask_store_again();
            tracing::warn!(
                archives = goes.archives,
                bytes = goes.bytes,
                "new archives go to the store {}, and those that there are follow",
                to.display()
            );
        }
        self.store.look();
        self.notes.clear(NOTE);
        self.moving.left.store(goes.archives, Ordering::Relaxed);
        self.moving.bell.ring();
        self.work.ring();
        self.stores_json()
    }

    /// A folder that may be a store.
    fn checked_path(&self, record: &Record, text: &str) -> Result<PathBuf, ApiError> {
        let path = PathBuf::from(text);
        let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !is_plain || path == Path::new("/") {
            let text = format!("{text} is no folder for a store: give a whole path, such as /mnt/share/callvault");
            return Err(refused(text));
        }
        // Of its components, so that slashes at the end make no difference.
        let path: PathBuf = path.components().collect();
        let overlaps = |known: &&Known| known.path != path && overlap(&known.path, &path);
        if let Some(other) = record.stores.iter().find(overlaps) {
            let (one, other) = (path.display(), other.path.display());
            return Err(refused(format!("{one} and the store {other} are one in the other; give another folder")));
        }
        let config = &self.config;
        let inner = [config.journal_path(), config.queue_path(), config.keys_path()];
        let is_own = inner.iter().any(|folder| overlap(folder, &path)) || config.data_dir.starts_with(&path);
        if is_own {
            let text = format!("{} has files of the appliance's own; give another folder", path.display());
            return Err(refused(text));
        }
        Ok(path)
    }

    fn stores_json(&self) -> Answer {
        let record = self.store.record();
        let has = self.catalogue.store_has().map_err(failed)?;
        let store_json = |known: &Known| {
            let has = has.get(&known.name).copied().unwrap_or_default();
            // Of one that nothing is done with, nothing is known.
            let is_used = known.name == record.current || record.moving.is_some();
            let condition = self.store.of(&known.name).map(|store| store.condition()).unwrap_or_default();
            json!({
                "name": known.name, "path": known.path.display().to_string(), "current": known.name == record.current,
                "archives": has.archives, "bytes": has.bytes, "state": is_used.then(|| condition.state.name()), "why": condition.away,
                "free_bytes": condition.free_bytes,
            })
        };
        let stores: Vec<Value> = record.stores.iter().map(store_json).collect();
        let left = sum(has.iter().filter(|(name, _)| **name != record.current).map(|(_, has)| has));
        let failures: Vec<Value> =
            self.moving.failed().iter().take(FAILED_SHOWN).map(|(id, why)| json!({"id": id, "why": why})).collect();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let moving = record.moving.as_ref().map(|moving| {
            json!({
                "to": record.current, "begun_at": format!("{:.3}", moving.begun_at),
                "rate_bytes_per_s": moving.rate_bytes_per_s, "left": left.archives, "left_bytes": left.bytes,
                "moved": count(&self.moving.moved), "moved_bytes": count(&self.moving.moved_bytes),
                "failed": failures, "trouble": self.notes.get(NOTE),
            })
        });
        let (configured, current) = (record.configured.display().to_string(), self.store.path().display().to_string());
        let remark = (configured != current).then(|| {
            format!(
                "store.path still names {configured}, while {current} is used: set store.path to that, so that nobody who reads the configuration is misled"
            )
        });
        Ok(json!({"stores": stores, "configured": configured, "move": moving, "remark": remark}))
    }
}

/// Whether one is in the other, or both are the same.
fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

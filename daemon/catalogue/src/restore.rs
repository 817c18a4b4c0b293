//! Deletions that are not over, and rebuilding: what is read of an old catalogue, damaged or not, and entered into a new one.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Catalogue, CatalogueError, Lane, OwedJob, Recording, Tombstone, annotations,
    catalogue::Writer,
    ingest::{DELETE, insert, insert_lanes, seal_facts, state_of, tombstone},
    outbox::owe,
    row::{self, DETAILS, Details},
    schema,
};

/// A recording to be entered as it was, wherever its audio is.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The recording; its `archive` is entered as it is.
    pub recording: Recording,
    /// Its lanes, as far as the journal still has them. Their `recording` is not looked at.
    pub lanes: Vec<Lane>,
    /// Jobs that it owes.
    pub owed: Vec<OwedJob>,
    /// As in [`crate::NewRecording::links`].
    pub links: Vec<String>,
}

/// What a catalogue remembers of a deleted recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Buried {
    /// Its tombstone.
    pub tombstone: Tombstone,
    /// The payload of the job `delete:<id>` while that is owed.
    pub owes: Option<Value>,
}

/// Every index of the table of recordings, from both ends: damage in the middle of one ends a look from either side, and leaves the
/// other indexes.
const WAYS: [&str; 6] = [
    "SELECT id FROM recordings ORDER BY id",
    "SELECT id FROM recordings ORDER BY id DESC",
    "SELECT id FROM recordings ORDER BY started_at_ms, id",
    "SELECT id FROM recordings ORDER BY started_at_ms DESC, id DESC",
    "SELECT id FROM recordings NOT INDEXED ORDER BY rowid",
    "SELECT id FROM recordings NOT INDEXED ORDER BY rowid DESC",
];

impl Catalogue {
    /// The deletions that are owed until [`Catalogue::removed`], as the jobs that the queue must have.
    ///
    /// # Errors
    /// Disk errors.
    pub fn deletions_owed(&self) -> Result<Vec<OwedJob>, CatalogueError> {
        let read = || -> rusqlite::Result<Vec<OwedJob>> {
            let db = self.reader();
            let mut statement =
                db.prepare_cached("SELECT id, owes FROM tombstones WHERE owes IS NOT NULL ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                let payload: String = row.get(1)?;
                // what cannot be read any more is as good as none: the job then looks wherever the archive can be
                let payload = serde_json::from_str(&payload).unwrap_or_default();
                Ok(OwedJob { payload, ..OwedJob::new(DELETE, row::uuid(row, 0)?) })
            })?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read the deletions owed"))
    }

    /// Whatever was made of a deleted recording is gone for good. An unknown id is no error.
    ///
    /// # Errors
    /// [`CatalogueError::StillRead`] as long as the catalogue's own file may still have it; disk errors.
    pub fn removed(&self, id: Uuid) -> Result<(), CatalogueError> {
        let sql = "UPDATE tombstones SET owes = NULL WHERE id = ?1 AND owes IS NOT NULL";
        let what = CatalogueError::sql("note that a deletion is done");
        let writer = self.writer();
        if self.keeps_deleted.load(Ordering::Relaxed) {
            if !schema::empty_wal(&writer.db).map_err(&what)? {
                return Err(CatalogueError::StillRead);
            }
            self.keeps_deleted.store(false, Ordering::Relaxed);
        }
        writer.db.execute(sql, [id.to_string()]).map(drop).map_err(what)
    }

    /// The ids of all recordings that can be found, whatever is damaged.
    pub fn ids(&self) -> BTreeSet<Uuid> {
        let db = self.reader();
        WAYS.iter().flat_map(|sql| until_damage(&db, sql, |row| row::uuid(row, 0))).collect()
    }

    /// What is remembered of deleted recordings, as far as it can be read.
    pub fn buried(&self) -> Vec<Buried> {
        let sql = "SELECT id, deleted_at_ms, rule, owes FROM tombstones";
        until_damage(&self.reader(), sql, |row| {
            let ms: i64 = row.get(1)?;
            let deleted_at =
                Timestamp::from_millisecond(ms).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(1, ms))?;
            let owes: Option<String> = row.get(3)?;
            Ok(Buried {
                tombstone: Tombstone { id: row::uuid(row, 0)?, deleted_at, rule: row.get(2)? },
                owes: owes.map(|text| serde_json::from_str(&text).unwrap_or_default()),
            })
        })
    }

    /// Enters recordings as they were, all or none; those that are there, or were deleted, are passed over. Says how many were
    /// entered.
    ///
    /// # Errors
    /// [`CatalogueError::TooLarge`]; [`CatalogueError::Range`]; disk errors.
    pub fn restore(&self, recordings: &[Restored], now: Timestamp) -> Result<usize, CatalogueError> {
        let what = CatalogueError::sql("restore recordings");
        let mut writer = self.writer();
        let Writer { db, rng } = &mut *writer;
        let transaction = schema::write(db).map_err(&what)?;
        let (mut entered, mut changed) = (0, Vec::new());
        for Restored { recording, lanes, owed, links } in recordings {
            let id = recording.id;
            let is_known = state_of(&transaction, id).map_err(&what)?.is_some()
                || tombstone(&transaction, id).map_err(&what)?.is_some();
            if is_known {
                continue;
            }
            let details = self.sealing.seal(&mut **rng, id, DETAILS, &Details::json(recording))?;
            let facts = seal_facts(&self.sealing, &mut **rng, recording)?;
            insert(&transaction, recording, &details, facts.as_deref())?;
            set_archive(&transaction, recording)?;
            annotations::put(&transaction, &self.sealing, &mut **rng, id, &recording.annotations)?;
            changed.push(id);
            insert_lanes(&transaction, id, lanes).map_err(&what)?;
            self.linking.insert(&transaction, id, links).map_err(&what)?;
            owe(&transaction, owed, now).map_err(&what)?;
            entered += 1;
        }
        transaction.commit().map_err(&what)?;
        changed.into_iter().for_each(|id| self.reindex(db, id));
        Ok(entered)
    }

    /// Remembers recordings as deleted, all or none, and what their deletions still owe.
    ///
    /// # Errors
    /// Disk errors.
    pub fn bury(&self, buried: &[Buried]) -> Result<(), CatalogueError> {
        let sql = "INSERT INTO tombstones (id, deleted_at_ms, rule, owes) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT (id) DO NOTHING";
        let mut writer = self.writer();
        let mut write = || -> rusqlite::Result<()> {
            let transaction = schema::write(&mut writer.db)?;
            for Buried { tombstone: Tombstone { id, deleted_at, rule }, owes } in buried {
                let owes = owes.as_ref().map(Value::to_string);
                transaction.execute(sql, (id.to_string(), deleted_at.as_millisecond(), rule, owes))?;
            }
            transaction.commit()
        };
        write().map_err(CatalogueError::sql("restore what was deleted"))
    }
}

fn set_archive(db: &Connection, recording: &Recording) -> Result<(), CatalogueError> {
    let archive = &recording.archive;
    let bytes = archive.bytes.map(i64::try_from).transpose().map_err(|_| CatalogueError::Range("archive_bytes"))?;
    let sql = "UPDATE recordings SET archive_state = ?2, archive_bytes = ?3, archive_store = ?4, archive_path = ?5, \
               archive_sha256 = ?6, archive_error = ?7 WHERE id = ?1";
    let sha256 = archive.sha256.as_ref().map(<[u8; 32]>::as_slice);
    let values = (
        recording.id.to_string(),
        archive.state.as_str(),
        bytes,
        &archive.store,
        &archive.path,
        sha256,
        &archive.error,
    );
    db.execute(sql, values).map(drop).map_err(CatalogueError::sql("restore a recording"))
}

/// The rows of a statement up to the first that the database cannot give; a row that is not understood is passed over.
fn until_damage<T>(db: &Connection, sql: &str, read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let mut found = Vec::new();
    let Ok(mut statement) = db.prepare(sql) else { return found };
    let Ok(mut rows) = statement.query([]) else { return found };
    while let Ok(Some(row)) = rows.next() {
        found.extend(read(row));
    }
    found
}

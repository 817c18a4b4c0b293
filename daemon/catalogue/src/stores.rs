//! Which archive is in which store, and the moving of one to another.
//!
//! A move is three transactions around two files. [`Catalogue::copying`] writes down that there may be a copy, before there is one.
//! [`Catalogue::moved`] names the copy in the place of the original, once the copy is on the device and was read back, and writes down
//! that there may still be the original. [`Catalogue::left_nothing`] says that it is gone. So whatever dies in between, the file on
//! record is whole, and any other is in [`Catalogue::leavings`]; also when the recording is deleted meanwhile.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rand::CryptoRng;
use rusqlite::Connection;
use uuid::Uuid;

use crate::{
    ArchivePlace, Catalogue, CatalogueError,
    ingest::{place_of, tombstone},
    row, schema,
    sealing::Sealing,
};

/// Archives that [`Catalogue::archives_in`] gives at most: minutes of work, and little memory.
pub const STORED_ROWS_MAX: u32 = 500;

/// Leavings that [`Catalogue::leavings`] gives at most; the rest comes when these are gone.
pub const LEAVINGS_MAX: u32 = 1_000;

/// An archive in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredArchive {
    /// Whose it is.
    pub id: Uuid,
    /// When the recording began.
    pub started_at: Timestamp,
}

/// A file that may be in a store, and is not the one on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// Whose archive it is, or a part of one.
    pub id: Uuid,
    /// Name of the store.
    pub store: String,
    /// Path in it.
    pub path: String,
}

/// What a store has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreHas {
    /// Archives.
    pub archives: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Catalogue {
    /// The archives on record in a store, in the order of their recordings' beginning, after the one that `after` names by that and its
    /// id: at most [`STORED_ROWS_MAX`], fewer only at the end.
    ///
    /// # Errors
    /// Disk errors.
    pub fn archives_in(
        &self,
        store: &str,
        after: Option<(Timestamp, Uuid)>,
    ) -> Result<Vec<StoredArchive>, CatalogueError> {
        let sql = format!(
            "SELECT id, started_at_ms FROM recordings WHERE archive_store = ?1 AND (started_at_ms, id) > (?2, ?3) \
             ORDER BY started_at_ms, id LIMIT {STORED_ROWS_MAX}"
        );
        let (from_ms, from_id) =
            after.map_or((i64::MIN, String::new()), |(at, id)| (at.as_millisecond(), id.to_string()));
        let read = || -> rusqlite::Result<_> {
            let db = self.reader();
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map((store, from_ms, from_id), |row| {
                let ms: i64 = row.get(1)?;
                let started_at =
                    Timestamp::from_millisecond(ms).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(1, ms))?;
                Ok(StoredArchive { id: row::uuid(row, 0)?, started_at })
            })?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read which archives a store has"))
    }

    /// What each store has, by its name. Reads an index from end to end: for somebody who asks, not for each look.
    ///
    /// # Errors
    /// Disk errors.
    pub fn store_has(&self) -> Result<BTreeMap<String, StoreHas>, CatalogueError> {
        let sql = "SELECT archive_store, count(*), COALESCE(sum(archive_bytes), 0) FROM recordings \
                   WHERE archive_store IS NOT NULL GROUP BY archive_store";
        let read = || -> rusqlite::Result<_> {
            let db = self.reader();
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                let number = |index| row.get::<_, i64>(index).map(|number| u64::try_from(number).unwrap_or(0));
                Ok((row.get(0)?, StoreHas { archives: number(1)?, bytes: number(2)? }))
            })?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("count what stores have"))
    }

    /// Where the archive of a recording is; `None` when it has none, is unknown or was deleted.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn archive_place(&self, id: Uuid) -> Result<Option<ArchivePlace>, CatalogueError> {
        place_of(&self.reader(), id)
    }

    /// A copy of an archive that is at `place` is about to be made in the store `to`, under the same path. False when it is not there any
    /// more: then nothing is to be copied.
    ///
    /// # Errors
    /// Disk errors.
    pub fn copying(&self, id: Uuid, place: &ArchivePlace, to: &str) -> Result<bool, CatalogueError> {
        let what = CatalogueError::sql("note that an archive is copied");
        let mut writer = self.writer();
        let transaction = schema::write(&mut writer.db).map_err(&what)?;
        if place_of(&transaction, id)?.as_ref() != Some(place) {
            return Ok(false);
        }
        leave(&transaction, id, to, &place.path).map_err(&what)?;
        transaction.commit().map_err(&what)?;
        Ok(true)
    }

    /// The copy in the store `to` is complete, on the device and verified: it is the archive from now on, and the one at `place` is left.
    /// False when that is not on record any more (it was deleted, say): then the copy stays what is left.
    ///
    /// # Errors
    /// Disk errors.
    pub fn moved(&self, id: Uuid, place: &ArchivePlace, to: &str) -> Result<bool, CatalogueError> {
        let what = CatalogueError::sql("record that an archive was moved");
        let mut writer = self.writer();
        let transaction = schema::write(&mut writer.db).map_err(&what)?;
        if place_of(&transaction, id)?.as_ref() != Some(place) {
            return Ok(false);
        }
        let sql = "UPDATE recordings SET archive_store = ?2 WHERE id = ?1";
        transaction.execute(sql, (id.to_string(), to)).map_err(&what)?;
        forget(&transaction, id, to, &place.path).map_err(&what)?;
        leave(&transaction, id, &place.store, &place.path).map_err(&what)?;
        transaction.commit().map_err(&what)?;
        Ok(true)
    }

    /// A file may have been left in a store, where nothing of this recording is on record.
    ///
    /// # Errors
    /// Disk errors.
    pub fn may_be_left(&self, id: Uuid, store: &str, path: &str) -> Result<(), CatalogueError> {
        leave(&self.writer().db, id, store, path).map_err(CatalogueError::sql("note what may be left in a store"))
    }

    /// Files that may be in a store and are not on record.
    ///
    /// # Errors
    /// Disk errors.
    pub fn leavings(&self) -> Result<Vec<Leaving>, CatalogueError> {
        let sql = format!(
            "SELECT recording_id, store, path FROM archive_leavings ORDER BY recording_id, store LIMIT {LEAVINGS_MAX}"
        );
        let read = || -> rusqlite::Result<_> {
            let db = self.reader();
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement
                .query_map([], |row| Ok(Leaving { id: row::uuid(row, 0)?, store: row.get(1)?, path: row.get(2)? }))?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read what is left in stores"))
    }

    /// Those of one recording.
    ///
    /// # Errors
    /// Disk errors.
    pub fn leavings_of(&self, id: Uuid) -> Result<Vec<Leaving>, CatalogueError> {
        let sql = "SELECT store, path FROM archive_leavings WHERE recording_id = ?1";
        let read = || -> rusqlite::Result<_> {
            let db = self.reader();
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement
                .query_map([id.to_string()], |row| Ok(Leaving { id, store: row.get(0)?, path: row.get(1)? }))?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read what is left of an archive in stores"))
    }

    /// Whether the recording was deleted, so that whatever is left of it goes with its keys.
    ///
    /// # Errors
    /// Disk errors.
    pub fn is_deleted(&self, id: Uuid) -> Result<bool, CatalogueError> {
        let found = tombstone(&self.reader(), id).map_err(CatalogueError::sql("read a tombstone"))?;
        Ok(found.is_some())
    }

    /// That file is gone.
    ///
    /// # Errors
    /// Disk errors.
    pub fn left_nothing(&self, leaving: &Leaving) -> Result<(), CatalogueError> {
        forget(&self.writer().db, leaving.id, &leaving.store, &leaving.path)
            .map_err(CatalogueError::sql("note that nothing is left in a store"))
    }
}

fn leave(db: &Connection, id: Uuid, store: &str, path: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO archive_leavings (recording_id, store, path) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    db.execute(sql, (id.to_string(), store, path)).map(drop)
}

fn forget(db: &Connection, id: Uuid, store: &str, path: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM archive_leavings WHERE recording_id = ?1 AND store = ?2 AND path = ?3";
    db.execute(sql, (id.to_string(), store, path)).map(drop)
}

/// Takes over what an old catalogue has, as far as it can be read.
pub(crate) fn carry_over(
    (old, _): (&Connection, &Sealing),
    (new, _): (&Connection, &Sealing),
    _: &mut dyn CryptoRng,
) -> Result<(), CatalogueError> {
    let what = CatalogueError::sql("take over what is left in stores");
    let mut statement = old.prepare("SELECT recording_id, store, path FROM archive_leavings").map_err(&what)?;
    let mut rows = statement.query([]).map_err(&what)?;
    while let Ok(Some(row)) = rows.next() {
        let (Ok(id), Ok(store), Ok(path)) = (row::uuid(row, 0), row.get::<_, String>(1), row.get::<_, String>(2))
        else {
            continue;
        };
        leave(new, id, &store, &path).map_err(&what)?;
    }
    Ok(())
}

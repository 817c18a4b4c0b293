//! The steps from journal to archive: each only from a state that allows it, each the same done twice.

use callvault_seal::SealedKey;
use jiff::Timestamp;
use rusqlite::OptionalExtension as _;
use uuid::Uuid;

use crate::{
    ArchivePlace, Catalogue, CatalogueError, OwedJob, Recording, archive_keys,
    catalogue::Writer,
    ingest::{place_of, state_of},
    mails,
    outbox::owe,
    row::{self, Details, StoredRow},
    schema,
};

/// Bytes of a reason that are kept.
const REASON_BYTES_MAX: usize = 500;

/// What beginning an archive found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archiving {
    /// It is to be made now; also when an earlier attempt did not come to its end.
    Started,
    /// There is one already: nothing to do.
    AlreadyArchived,
    /// The recording is unknown or was deleted: remove what an earlier attempt may have left under its name.
    Gone,
}

/// What recording an archive found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archived {
    /// It is on record now.
    Recorded,
    /// The same was on record before.
    AlreadyRecorded,
    /// The recording was deleted meanwhile: remove the file.
    Gone,
}

/// What has no archive yet and shall have one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchiveBacklog {
    /// How many recordings.
    pub recordings: u64,
    /// How long they are together, in milliseconds.
    pub duration_ms: u64,
}

/// What archives of a time take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchivedSince {
    /// How many recordings that are archived.
    pub recordings: u64,
    /// The bytes of their archives.
    pub bytes: u64,
    /// When the first of them began.
    pub first: Option<Timestamp>,
}

impl Catalogue {
    /// The archives of recordings that began at this time or later, and are there still.
    ///
    /// # Errors
    /// Disk errors.
    pub fn archived_since(&self, from: Timestamp) -> Result<ArchivedSince, CatalogueError> {
        let sql = "SELECT count(*), COALESCE(sum(archive_bytes), 0), min(started_at_ms) FROM recordings \
                   WHERE started_at_ms >= ?1 AND archive_bytes IS NOT NULL";
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        self.reader()
            .query_row(sql, [from.as_millisecond()], |row| {
                let first: Option<i64> = row.get(2)?;
                Ok(ArchivedSince {
                    recordings: count(row.get(0)?),
                    bytes: count(row.get(1)?),
                    first: first.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
                })
            })
            .map_err(CatalogueError::sql("count the bytes of archives"))
    }

    /// An archive is about to be made.
    ///
    /// # Errors
    /// Disk errors.
    pub fn set_archiving(&self, id: Uuid) -> Result<Archiving, CatalogueError> {
        let sql = "UPDATE recordings SET archive_state = 'archiving' \
                   WHERE id = ?1 AND archive_state IN ('journal', 'archiving', 'failed')";
        let what = CatalogueError::sql("note that an archive is made");
        let writer = &mut *self.writer();
        let transaction = schema::write(&mut writer.db).map_err(&what)?;
        let changed = transaction.execute(sql, [id.to_string()]).map_err(&what)?;
        let found = state_of(&transaction, id).map_err(&what)?;
        transaction.commit().map_err(&what)?;
        Ok(match (changed, found) {
            (0, None) => Archiving::Gone,
            (0, Some(_)) => Archiving::AlreadyArchived,
            _ => Archiving::Started,
        })
    }

    /// The archive is complete, on the device and verified; `owed` are the jobs that follow from it. From now on the journal
    /// is not needed for this recording.
    ///
    /// # Errors
    /// [`CatalogueError::OtherArchive`] when a different one is on record; [`CatalogueError::Range`]; disk errors.
    pub fn archived(
        &self,
        id: Uuid,
        place: &ArchivePlace,
        owed: &[OwedJob],
        now: Timestamp,
    ) -> Result<Archived, CatalogueError> {
        self.archived_with_keys(id, (place, &[]), owed, now)
    }

    /// As [`Catalogue::archived`], for an archive whose sealed keys are not in the file: they are kept here from the same transaction on.
    ///
    /// # Errors
    /// As [`Catalogue::archived`].
    pub fn archived_with_keys(
        &self,
        id: Uuid,
        (place, keys): (&ArchivePlace, &[SealedKey]),
        owed: &[OwedJob],
        now: Timestamp,
    ) -> Result<Archived, CatalogueError> {
        let what = CatalogueError::sql("record an archive");
        let bytes = i64::try_from(place.bytes).map_err(|_| CatalogueError::Range("archive_bytes"))?;
        let writer = &mut *self.writer();
        let transaction = schema::write(&mut writer.db).map_err(&what)?;
        match place_of(&transaction, id)? {
            Some(known) if known == *place => return Ok(Archived::AlreadyRecorded),
            Some(_) => return Err(CatalogueError::OtherArchive(id)),
            None => {}
        }
        let sql = "UPDATE recordings SET archive_state = 'archived', archive_bytes = ?2, archive_store = ?3, \
                   archive_path = ?4, archive_sha256 = ?5, archive_error = NULL WHERE id = ?1";
        let values = (id.to_string(), bytes, &place.store, &place.path, place.sha256.as_slice());
        if transaction.execute(sql, values).map_err(&what)? == 0 {
            return Ok(Archived::Gone);
        }
        archive_keys::put(&transaction, id, keys).map_err(&what)?;
        owe(&transaction, owed, now).map_err(&what)?;
        mails::owe(&transaction, owed, now).map_err(&what)?;
        transaction.commit().map_err(&what)?;
        Ok(Archived::Recorded)
    }

    /// What listening to a recording's audio showed: puts its verdict, tracks and flaws in the place of those on record. The rest of
    /// `recording` is not looked at. False when it is unknown or was deleted. The same twice is the same as once.
    ///
    /// # Errors
    /// [`CatalogueError::TooLarge`]; [`CatalogueError::Damaged`]; disk errors.
    pub fn heard(&self, recording: &Recording) -> Result<bool, CatalogueError> {
        let what = CatalogueError::sql("note what is heard");
        let id = recording.id;
        let mut writer = self.writer();
        let Writer { db, rng } = &mut *writer;
        let transaction = schema::write(db).map_err(&what)?;
        let sql = format!("SELECT {} FROM recordings WHERE id = ?1", row::COLUMNS);
        let stored = transaction.query_row(&sql, [id.to_string()], StoredRow::read).optional().map_err(&what)?;
        let Some(stored) = stored else { return Ok(false) };
        let now = Recording {
            tracks: recording.tracks.clone(),
            flaws: recording.flaws.clone(),
            ..stored.open(&self.sealing)?
        };
        let details = self.sealing.seal(&mut **rng, id, row::DETAILS, &Details::json(&now))?;
        let sql = "UPDATE recordings SET verdict = ?2, details = ?3 WHERE id = ?1";
        transaction.execute(sql, (id.to_string(), recording.verdict.as_str(), details)).map_err(&what)?;
        transaction.commit().map_err(&what)?;
        self.reindex(db, id);
        Ok(true)
    }

    /// An attempt failed; `reason` holds no personal data. Changes nothing once there is an archive, or no recording.
    ///
    /// # Errors
    /// Disk errors.
    pub fn archive_failed(&self, id: Uuid, reason: &str) -> Result<(), CatalogueError> {
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        let sql = "UPDATE recordings SET archive_state = 'failed', archive_error = ?2 \
                   WHERE id = ?1 AND archive_state <> 'archived'";
        self.writer()
            .db
            .execute(sql, (id.to_string(), reason))
            .map(drop)
            .map_err(CatalogueError::sql("note that an archive failed"))
    }

    /// An attempt that was begun came to nothing, and has not failed: it is made again once what it waits for is there. Changes
    /// nothing unless an archive was being made.
    ///
    /// # Errors
    /// Disk errors.
    pub fn archive_waits(&self, id: Uuid) -> Result<(), CatalogueError> {
        let sql = "UPDATE recordings SET archive_state = 'journal' WHERE id = ?1 AND archive_state = 'archiving'";
        let changed = self.writer().db.execute(sql, [id.to_string()]);
        changed.map(drop).map_err(CatalogueError::sql("note that an archive waits"))
    }

    /// Recordings that have no archive yet and shall have one, oldest first: each must have a job in the queue.
    ///
    /// # Errors
    /// Disk errors.
    pub fn unarchived(&self) -> Result<Vec<Uuid>, CatalogueError> {
        let read = || -> rusqlite::Result<Vec<Uuid>> {
            let db = self.reader();
            let mut statement = db.prepare_cached(
                "SELECT id FROM recordings WHERE archive_state IN ('journal', 'archiving', 'failed') \
                 AND verdict <> 'discarded' ORDER BY started_at_ms, id",
            )?;
            let rows = statement.query_map([], |row| row::uuid(row, 0))?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read what is not archived"))
    }

    /// How much has no archive yet. It takes about a microsecond for each of them.
    ///
    /// # Errors
    /// Disk errors.
    pub fn archive_backlog(&self) -> Result<ArchiveBacklog, CatalogueError> {
        let read = || -> rusqlite::Result<ArchiveBacklog> {
            let db = self.reader();
            let mut statement = db.prepare_cached(
                "SELECT count(*), total(duration_ms) FROM recordings \
                 WHERE archive_state IN ('journal', 'archiving', 'failed') AND verdict NOT IN ('discarded', 'no-media')",
            )?;
            statement.query_row([], |row| {
                let (recordings, duration_ms): (i64, f64) = (row.get(0)?, row.get(1)?);
                Ok(ArchiveBacklog { recordings: recordings.unsigned_abs(), duration_ms: duration_ms.max(0.0) as u64 })
            })
        };
        read().map_err(CatalogueError::sql("count what is not archived"))
    }
}

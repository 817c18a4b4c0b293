//! How recordings come in and go.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use callvault_access::audit::Entry;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use crate::{
    ArchivePlace, ArchiveState, Catalogue, CatalogueError, OwedJob, Recording, RetentionRow, annotations, archive_keys,
    catalogue::Writer,
    link, mails,
    outbox::owe,
    retention,
    row::{self, DETAILS, Details, FACTS},
    schema,
    sealing::Sealing,
    waveform,
};

/// One recording's frames in one generation of the journal, and the files that hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    /// The journal's generation.
    pub generation: Uuid,
    /// The lane's number in it.
    pub lane: u32,
    /// The recording.
    pub recording: Uuid,
    /// Which part of the recording it is, from 0.
    pub segment: u32,
    /// Number of the first file that holds a frame of it.
    pub first_file: u32,
    /// Number of the last.
    pub last_file: u32,
}

/// A recording to be ingested.
#[derive(Debug, Clone)]
pub struct NewRecording {
    /// The recording; its `archive` is not looked at, it begins in the journal.
    pub recording: Recording,
    /// Where its audio is. Their `recording` is not looked at.
    pub lanes: Vec<Lane>,
    /// The jobs that it owes.
    pub owed: Vec<OwedJob>,
    /// What every recording of the same call has too, and no other. Of these texts only keyed hashes are kept; at most
    /// [`crate::LINKS_MAX`] are looked at.
    pub links: Vec<String>,
}

/// What ingesting found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestOutcome {
    /// It is new and now there.
    Inserted,
    /// It was there, with the same lanes; nothing was changed.
    AlreadyThere,
    /// It was there with a part of its lanes, and has the rest and the row that comes of all of them now.
    Extended,
    /// It was deleted; it does not come back.
    Deleted,
}

/// What remains of a deleted recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Its id.
    pub id: Uuid,
    /// When it was deleted.
    pub deleted_at: Timestamp,
    /// By which rule, or by hand.
    pub rule: String,
}

/// What deleting found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone. Whatever was made of it is to be removed by the job `delete:<id>` that is now owed; its payload is
    /// `{"store", "path"}` where there is an archive on record, else null. It stays owed until [`Catalogue::removed`] says that
    /// it is done.
    Deleted {
        /// Where the archive is.
        archive: Option<ArchivePlace>,
    },
    /// It was deleted before.
    AlreadyDeleted(Tombstone),
    /// There is no such recording.
    Unknown,
    /// It is there and stays: what was asked in the last moment said so.
    Kept,
}

impl Catalogue {
    /// Adds a recording, its lanes and its jobs, all or nothing. The facts are left out when they are larger than
    /// [`crate::SEALED_BYTES_MAX`]; journal and archive have them.
    ///
    /// # Errors
    /// [`CatalogueError::Conflict`] when a lane is another recording's, or the recording has other lanes and cannot be extended by
    /// these: it is archived, or some that it has are not among them; [`CatalogueError::TooLarge`]; [`CatalogueError::Range`]; disk errors.
    pub fn ingest(&self, new: &NewRecording, now: Timestamp) -> Result<IngestOutcome, CatalogueError> {
        let what = CatalogueError::sql("ingest a recording");
        let id = new.recording.id;
        let mut writer = self.writer();
        let Writer { db, rng } = &mut *writer;
        let details = self.sealing.seal(&mut **rng, id, DETAILS, &Details::json(&new.recording))?;
        let facts = seal_facts(&self.sealing, &mut **rng, &new.recording)?;

        let transaction = schema::write(db).map_err(&what)?;
        if tombstone(&transaction, id).map_err(&what)?.is_some() {
            // the lanes are remembered, so that the journal's next reader need not look at them again
            insert_lanes(&transaction, id, &new.lanes).map_err(&what)?;
            transaction.commit().map_err(&what)?;
            return Ok(IngestOutcome::Deleted);
        }
        let known = lanes_of(&transaction, id).map_err(&what)?;
        let (mut outcome, mut gone) = (IngestOutcome::Inserted, None);
        if let Some(state) = state_of(&transaction, id).map_err(&what)? {
            if !extends(new, &known, &state) {
                return same_lanes(new, &known).map(|()| IngestOutcome::AlreadyThere);
            }
            gone = Self::index_key(&transaction, id);
            transaction.execute("DELETE FROM recordings WHERE id = ?1", [id.to_string()]).map_err(&what)?;
            outcome = IngestOutcome::Extended;
        }
        check_lanes_free(&transaction, new)?;
        insert(&transaction, &new.recording, &details, facts.as_deref())?;
        if outcome == IngestOutcome::Inserted && !new.recording.annotations.is_empty() {
            // They came with it. What people added meanwhile to one that grew stays.
            annotations::put(&transaction, &self.sealing, &mut **rng, id, &new.recording.annotations)?;
        }
        insert_lanes(&transaction, id, &new.lanes).map_err(&what)?;
        self.linking.insert(&transaction, id, &new.links).map_err(&what)?;
        owe(&transaction, &new.owed, now).map_err(&what)?;
        transaction.commit().map_err(&what)?;
        if let Some(gone) = gone {
            self.index().remove(gone);
        }
        self.reindex(db, id);
        Ok(outcome)
    }

    /// The lanes of a generation that were ingested before.
    ///
    /// # Errors
    /// Disk errors.
    pub fn ingested_lanes(&self, generation: Uuid) -> Result<BTreeSet<u32>, CatalogueError> {
        let read = || -> rusqlite::Result<_> {
            let db = self.reader();
            let mut statement = db.prepare_cached("SELECT lane FROM journal_lanes WHERE generation = ?1")?;
            let rows = statement.query_map([generation.to_string()], |row| row::small(row, 0))?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read the lanes ingested"))
    }

    /// The lanes of a recording, in the order of their segments.
    ///
    /// # Errors
    /// Disk errors.
    pub fn lanes(&self, id: Uuid) -> Result<Vec<Lane>, CatalogueError> {
        lanes_of(&self.reader(), id).map_err(CatalogueError::sql("read the lanes of a recording"))
    }

    /// The lanes whose audio is nowhere but in the journal: those of recordings that are neither archived, nor discarded, nor
    /// deleted. A journal file that ended, whose lanes were all ingested, and that none of these needs may be removed.
    ///
    /// # Errors
    /// Disk errors.
    pub fn lanes_needed(&self) -> Result<Vec<Lane>, CatalogueError> {
        let read = || -> rusqlite::Result<Vec<Lane>> {
            let db = self.reader();
            let mut statement = db.prepare_cached(
                "SELECT l.generation, l.lane, l.recording_id, l.segment, l.first_file, l.last_file \
                 FROM recordings r JOIN journal_lanes l ON l.recording_id = r.id \
                 WHERE r.archive_state IN ('journal', 'archiving', 'failed') AND r.verdict <> 'discarded' \
                 ORDER BY l.generation, l.lane",
            )?;
            let rows = statement.query_map([], read_lane)?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read the lanes needed"))
    }

    /// The files of `generation` below number `file` are gone from the journal for good (removed, and their folder synced):
    /// lanes that ended in them are forgotten. Not earlier, for a file that is still there could be read again, and is
    /// then recognised by its lanes alone.
    ///
    /// # Errors
    /// Disk errors.
    pub fn lanes_released(&self, generation: Uuid, file: u32) -> Result<(), CatalogueError> {
        let sql = "DELETE FROM journal_lanes WHERE generation = ?1 AND last_file < ?2 AND NOT EXISTS \
                   (SELECT 1 FROM recordings r WHERE r.id = journal_lanes.recording_id \
                    AND r.archive_state <> 'archived' AND r.verdict <> 'discarded')";
        self.writer()
            .db
            .execute(sql, (generation.to_string(), file))
            .map(drop)
            .map_err(CatalogueError::sql("forget lanes"))
    }

    /// Deletes a recording: its row is overwritten, a tombstone stays, the jobs that it owed are dropped, and the removal of what
    /// was made of it is owed instead: by the tombstone until it is done, whatever becomes of the queue. `rule` says by which rule, without personal data.
    ///
    /// # Errors
    /// Disk errors; [`CatalogueError::Damaged`] when the row's archive columns cannot be read.
    pub fn delete(&self, id: Uuid, now: Timestamp, rule: &str) -> Result<Deletion, CatalogueError> {
        self.delete_audited(id, now, rule, None)
    }

    /// As [`Catalogue::delete`]; where it was deleted, the audit log has `entry` from the same transaction.
    ///
    /// # Errors
    /// Disk errors.
    pub fn delete_audited(
        &self,
        id: Uuid,
        now: Timestamp,
        rule: &str,
        entry: Option<&Entry>,
    ) -> Result<Deletion, CatalogueError> {
        self.delete_if(id, (now, rule), entry, &|_| true)
    }

    /// As [`Catalogue::delete_audited`], at a time and by a rule, if `goes` says so of the recording as it is in the transaction: what was
    /// preserved in the last moment stays.
    ///
    /// # Errors
    /// Disk errors.
    pub fn delete_if(
        &self,
        id: Uuid,
        (now, rule): (Timestamp, &str),
        entry: Option<&Entry>,
        goes: &dyn Fn(&RetentionRow) -> bool,
    ) -> Result<Deletion, CatalogueError> {
        let what = CatalogueError::sql("delete a recording");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        if let Some(tombstone) = tombstone(&transaction, id).map_err(&what)? {
            return Ok(Deletion::AlreadyDeleted(tombstone));
        }
        match retention::row_of(&transaction, id).map_err(&what)? {
            None => return Ok(Deletion::Unknown),
            Some(row) if !goes(&row) => return Ok(Deletion::Kept),
            Some(_) => {}
        }
        let archive = place_of(&transaction, id)?;
        let gone = Self::index_key(&transaction, id);
        let text = id.to_string();
        let payload = archive.as_ref().map_or(serde_json::Value::Null, delete_payload);
        let run = || -> rusqlite::Result<()> {
            let sql = "INSERT INTO tombstones (id, deleted_at_ms, rule, owes) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, (&text, now.as_millisecond(), rule, payload.to_string()))?;
            transaction.execute("DELETE FROM owed_jobs WHERE recording_id = ?1", [&text])?;
            transaction.execute("DELETE FROM recordings WHERE id = ?1", [&text])?;
            transaction.execute("DELETE FROM deliveries WHERE recording_id = ?1", [&text])?;
            link::remove(&transaction, &text)?;
            mails::remove(&transaction, &text)?;
            archive_keys::remove(&transaction, &text)?;
            waveform::remove(&transaction, &text)?;
            annotations::remove(&transaction, &text)?;
            owe(&transaction, &[OwedJob { payload: payload.clone(), ..OwedJob::new(DELETE, id) }], now)
        };
        run().map_err(&what)?;
        if let Some(entry) = entry {
            self.auditing.append(&transaction, &mut **rng, entry)?;
        }
        transaction.commit().map_err(&what)?;
        if let Some(gone) = gone {
            self.index().remove(gone);
        }
        // a reader in the middle of a list can prevent it: then the deletion is not at its end before it was done
        self.keeps_deleted.store(true, Ordering::Relaxed);
        let is_emptied = schema::empty_wal(db).map_err(&what)?;
        self.keeps_deleted.store(!is_emptied, Ordering::Relaxed);
        Ok(Deletion::Deleted { archive })
    }

    /// What remains of a recording that was deleted.
    ///
    /// # Errors
    /// Disk errors.
    pub fn tombstone(&self, id: Uuid) -> Result<Option<Tombstone>, CatalogueError> {
        tombstone(&self.reader(), id).map_err(CatalogueError::sql("read a tombstone"))
    }
}

/// The kind of the job that a deletion owes, as the queue names it.
pub(crate) const DELETE: &str = "delete";

/// What the job that removes an archive needs to know.
pub(crate) fn delete_payload(place: &ArchivePlace) -> serde_json::Value {
    serde_json::json!({"store": place.store, "path": place.path})
}

/// The archive state of a recording that is there.
pub(crate) fn state_of(db: &Connection, id: Uuid) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT archive_state FROM recordings WHERE id = ?1", [id.to_string()], |row| row.get(0)).optional()
}

/// Where the archive of a recording is, if it has one.
pub(crate) fn place_of(db: &Connection, id: Uuid) -> Result<Option<ArchivePlace>, CatalogueError> {
    let sql = "SELECT archive_bytes, archive_store, archive_path, archive_sha256 FROM recordings \
               WHERE id = ?1 AND archive_state = 'archived'";
    let found = db
        .query_row(sql, [id.to_string()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?, row.get::<_, Vec<u8>>(3)?))
        })
        .optional()
        .map_err(CatalogueError::sql("read where an archive is"))?;
    let damaged = |column| CatalogueError::Damaged { id, column };
    found
        .map(|(bytes, store, path, sha256)| {
            Ok(ArchivePlace {
                bytes: u64::try_from(bytes).map_err(|_| damaged("archive_bytes"))?,
                store,
                path,
                sha256: sha256.try_into().map_err(|_| damaged("archive_sha256"))?,
            })
        })
        .transpose()
}

pub(crate) fn seal_facts(
    sealing: &Sealing,
    rng: &mut dyn rand::CryptoRng,
    recording: &Recording,
) -> Result<Option<Vec<u8>>, CatalogueError> {
    if recording.facts.is_null() {
        return Ok(None);
    }
    let json = recording.facts.to_string();
    match sealing.seal(rng, recording.id, FACTS, json.as_bytes()) {
        Ok(sealed) => Ok(Some(sealed)),
        Err(CatalogueError::TooLarge { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

pub(crate) fn insert(
    db: &Connection,
    recording: &Recording,
    details: &[u8],
    facts: Option<&[u8]>,
) -> Result<(), CatalogueError> {
    let duration = i64::try_from(recording.duration_ms).map_err(|_| CatalogueError::Range("duration_ms"))?;
    db.execute(
        "INSERT INTO recordings (id, started_at_ms, ended_at_ms, duration_ms, verdict, direction, traffic, archive_state, \
         details, facts, owner_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        (
            recording.id.to_string(),
            recording.started_at.as_millisecond(),
            recording.ended_at.as_millisecond(),
            duration,
            recording.verdict.as_str(),
            recording.direction.as_str(),
            recording.traffic.as_str(),
            ArchiveState::Journal.as_str(),
            details,
            facts,
            recording.owner_id.map(|owner| owner.to_string()),
        ),
    )
    .map(drop)
    .map_err(CatalogueError::sql("ingest a recording"))
}

pub(crate) fn insert_lanes(db: &Connection, recording: Uuid, lanes: &[Lane]) -> rusqlite::Result<()> {
    for lane in lanes {
        db.execute(
            "INSERT INTO journal_lanes (generation, lane, recording_id, segment, first_file, last_file) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (generation, lane) DO NOTHING",
            (
                lane.generation.to_string(),
                lane.lane,
                recording.to_string(),
                lane.segment,
                lane.first_file,
                lane.last_file,
            ),
        )?;
    }
    Ok(())
}

fn check_lanes_free(db: &Connection, new: &NewRecording) -> Result<(), CatalogueError> {
    for lane in &new.lanes {
        let sql = "SELECT count(*) FROM journal_lanes WHERE generation = ?1 AND lane = ?2 AND recording_id <> ?3";
        let key = (lane.generation.to_string(), lane.lane, new.recording.id.to_string());
        let taken: i64 = db.query_row(sql, key, |row| row.get(0)).map_err(CatalogueError::sql("ingest a recording"))?;
        if taken > 0 {
            return Err(conflict(new, lane, "belongs to another recording"));
        }
    }
    Ok(())
}

/// A known recording comes with all the lanes that it has and more: it was entered before it was known that it went on. Once it is
/// archived, part of its audio may be nowhere else.
fn extends(new: &NewRecording, known: &[Lane], state: &str) -> bool {
    let has = |lanes: &[Lane], lane: &Lane| {
        lanes.iter().any(|one| (one.generation, one.lane) == (lane.generation, lane.lane))
    };
    let is_open = [ArchiveState::Journal, ArchiveState::Failed].iter().any(|open| open.as_str() == state);
    is_open && known.iter().all(|lane| has(&new.lanes, lane)) && new.lanes.iter().any(|lane| !has(known, lane))
}

/// A known recording comes again with the lanes that it has, or with fewer once their files were released.
fn same_lanes(new: &NewRecording, known: &[Lane]) -> Result<(), CatalogueError> {
    let is_known = |lane: &Lane| known.iter().any(|one| (one.generation, one.lane) == (lane.generation, lane.lane));
    match new.lanes.iter().find(|lane| !is_known(lane)) {
        None => Ok(()),
        Some(other) => Err(conflict(new, other, "is not one of those that the recording was ingested with")),
    }
}

fn conflict(new: &NewRecording, lane: &Lane, why: &'static str) -> CatalogueError {
    CatalogueError::Conflict { id: new.recording.id, generation: lane.generation, lane: lane.lane, why }
}

fn lanes_of(db: &Connection, id: Uuid) -> rusqlite::Result<Vec<Lane>> {
    let mut statement = db.prepare_cached(
        "SELECT generation, lane, recording_id, segment, first_file, last_file FROM journal_lanes \
         WHERE recording_id = ?1 ORDER BY segment, generation, lane",
    )?;
    let rows = statement.query_map([id.to_string()], read_lane)?;
    rows.collect()
}

fn read_lane(row: &rusqlite::Row<'_>) -> rusqlite::Result<Lane> {
    Ok(Lane {
        generation: row::uuid(row, 0)?,
        lane: row::small(row, 1)?,
        recording: row::uuid(row, 2)?,
        segment: row::small(row, 3)?,
        first_file: row::small(row, 4)?,
        last_file: row::small(row, 5)?,
    })
}

pub(crate) fn tombstone(db: &Connection, id: Uuid) -> rusqlite::Result<Option<Tombstone>> {
    db.query_row("SELECT deleted_at_ms, rule FROM tombstones WHERE id = ?1", [id.to_string()], |row| {
        let ms: i64 = row.get(0)?;
        let deleted_at =
            Timestamp::from_millisecond(ms).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, ms))?;
        Ok(Tombstone { id, deleted_at, rule: row.get(1)? })
    })
    .optional()
}

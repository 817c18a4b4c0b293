//! What retention has to know of the recordings, without opening one; and what it remembers between two runs.

use callvault_access::audit::Entry;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde_json::Value;
use uuid::Uuid;

use crate::{ArchiveState, Catalogue, CatalogueError, catalogue::Writer, decree, row, schema};

/// Rows that [`Catalogue::retention_rows`] gives at most: small enough for the memory and for whoever waits for the database.
pub const RETENTION_ROWS_MAX: u32 = 1_000;

/// Whether a recording is preserved, in SQL.
const IS_PRESERVED: &str =
    "EXISTS (SELECT 1 FROM annotations a WHERE a.recording_id = recordings.id AND a.preserved <> 0)";

/// Name of what retention remembers.
const STATE: &str = "retention";

/// A recording, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRow {
    /// Its id.
    pub id: Uuid,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Whether it is preserved.
    pub is_preserved: bool,
    /// Where its audio is; none: in a state that this version does not know.
    pub state: Option<ArchiveState>,
    /// Bytes of its archive, 0 without one.
    pub bytes: u64,
}

impl Catalogue {
    /// Recordings that began and ended by `ended_by`, in the order of their beginning, after the one that `after` names by beginning and id:
    /// at most [`RETENTION_ROWS_MAX`], fewer only at the end.
    ///
    /// # Errors
    /// Disk errors.
    pub fn retention_rows(
        &self,
        ended_by: Timestamp,
        after: Option<(Timestamp, Uuid)>,
    ) -> Result<Vec<RetentionRow>, CatalogueError> {
        let sql = format!(
            "SELECT {} FROM recordings \
             WHERE started_at_ms <= ?1 AND ended_at_ms <= ?1 AND (started_at_ms, id) > (?2, ?3) \
             ORDER BY started_at_ms, id LIMIT {RETENTION_ROWS_MAX}",
            columns()
        );
        let (from_ms, from_id) =
            after.map_or((i64::MIN, String::new()), |(at, id)| (at.as_millisecond(), id.to_string()));
        let read = || -> rusqlite::Result<_> {
            let db = self.reader();
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map((ended_by.as_millisecond(), from_ms, from_id), read_row)?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read what may be due"))
    }

    /// When the recording ended that began last.
    ///
    /// # Errors
    /// Disk errors.
    pub fn newest_end(&self) -> Result<Option<Timestamp>, CatalogueError> {
        let sql = "SELECT ended_at_ms FROM recordings ORDER BY started_at_ms DESC, id DESC LIMIT 1";
        self.reader()
            .query_row(sql, [], |row| time(row, 0))
            .optional()
            .map_err(CatalogueError::sql("read which recording is the newest"))
    }

    /// What retention remembered.
    ///
    /// # Errors
    /// [`CatalogueError::DamagedMeta`] when it was changed; disk errors.
    pub fn retention_state(&self) -> Result<Option<Value>, CatalogueError> {
        let sealed =
            schema::meta(&self.reader(), STATE).map_err(CatalogueError::sql("read what retention remembered"))?;
        sealed.map(|sealed| decree::open(&self.sealing, STATE, &sealed)).transpose()
    }

    /// Remembers something for retention, and writes the entry to the audit log where there is one.
    ///
    /// # Errors
    /// [`CatalogueError::TooLarge`]; disk errors.
    pub fn set_retention_state(&self, state: &Value, entry: Option<&Entry>) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("remember something for retention");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        decree::put(&transaction, &self.sealing, &mut **rng, STATE, state)?;
        if let Some(entry) = entry {
            self.auditing.append(&transaction, &mut **rng, entry)?;
        }
        transaction.commit().map_err(&what)
    }
}

fn columns() -> String {
    format!("id, started_at_ms, ended_at_ms, {IS_PRESERVED}, archive_state, COALESCE(archive_bytes, 0)")
}

/// A recording that is there, as it is in a transaction.
pub(crate) fn row_of(db: &Connection, id: Uuid) -> rusqlite::Result<Option<RetentionRow>> {
    let sql = format!("SELECT {} FROM recordings WHERE id = ?1", columns());
    db.query_row(&sql, [id.to_string()], read_row).optional()
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<RetentionRow> {
    let state: String = row.get(4)?;
    let bytes: i64 = row.get(5)?;
    Ok(RetentionRow {
        id: row::uuid(row, 0)?,
        started_at: time(row, 1)?,
        ended_at: time(row, 2)?,
        // a time that cannot be read preserves all the same
        is_preserved: row.get(3)?,
        state: state.parse().ok(),
        bytes: u64::try_from(bytes).unwrap_or(0),
    })
}

fn time(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    let ms: i64 = row.get(index)?;
    Timestamp::from_millisecond(ms).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, ms))
}

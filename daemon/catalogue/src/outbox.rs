//! Jobs that are owed to the queue: written with what makes them due, taken off when the queue has them.

use jiff::Timestamp;
use rusqlite::Connection;
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, deliveries, row, schema};

/// A job that must be put into the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct OwedJob {
    /// What sort of work, as the queue names it.
    pub kind: String,
    /// For which recording.
    pub recording: Uuid,
    /// What the work needs; no personal data, it is readable on the disk.
    pub payload: serde_json::Value,
    /// Whether it is a delivery: then it is owed by a row of its own, too, until [`Catalogue::delivered`], whatever becomes of the
    /// queue, and how far it got can be remembered ([`Catalogue::note_delivery`]). Its kind is the sink's name.
    pub delivery: bool,
}

impl OwedJob {
    /// A job without payload.
    pub fn new(kind: &str, recording: Uuid) -> Self {
        Self { kind: kind.to_owned(), recording, payload: serde_json::Value::Null, delivery: false }
    }

    /// The delivery of a recording to a sink.
    pub fn delivery(sink: &str, recording: Uuid) -> Self {
        Self { delivery: true, ..Self::new(sink, recording) }
    }

    /// Its stable name, the same as in the queue.
    pub fn id(&self) -> String {
        format!("{}:{}", self.kind, self.recording)
    }
}

impl Catalogue {
    /// The jobs owed, the longest owed first, at most `limit`.
    ///
    /// # Errors
    /// Disk errors.
    pub fn owed(&self, limit: u32) -> Result<Vec<OwedJob>, CatalogueError> {
        let read = || -> rusqlite::Result<Vec<OwedJob>> {
            let db = self.reader();
            let mut statement = db
                .prepare_cached("SELECT kind, recording_id, payload FROM owed_jobs ORDER BY owed_at_ms, id LIMIT ?1")?;
            let rows = statement.query_map([limit], |row| {
                let payload: String = row.get(2)?;
                // what cannot be read any more is as good as none: the job says what it misses
                let payload = serde_json::from_str(&payload).unwrap_or_default();
                Ok(OwedJob { kind: row.get(0)?, recording: row::uuid(row, 1)?, payload, delivery: false })
            })?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read the jobs owed"))
    }

    /// The queue has these, durably. Ids that are not owed are no error.
    ///
    /// # Errors
    /// Disk errors.
    pub fn settled<S: AsRef<str>>(&self, ids: &[S]) -> Result<(), CatalogueError> {
        let mut writer = self.writer();
        let mut write = || -> rusqlite::Result<()> {
            let transaction = schema::write(&mut writer.db)?;
            for id in ids {
                transaction.execute("DELETE FROM owed_jobs WHERE id = ?1", [id.as_ref()])?;
            }
            transaction.commit()
        };
        write().map_err(CatalogueError::sql("settle jobs owed"))
    }
}

pub(crate) fn owe(db: &Connection, jobs: &[OwedJob], now: Timestamp) -> rusqlite::Result<()> {
    for job in jobs {
        db.execute(
            "INSERT INTO owed_jobs (id, kind, recording_id, payload, owed_at_ms) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (id) DO NOTHING",
            (job.id(), &job.kind, job.recording.to_string(), job.payload.to_string(), now.as_millisecond()),
        )?;
        if job.delivery {
            deliveries::owe(db, job, now)?;
        }
    }
    Ok(())
}

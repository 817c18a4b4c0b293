//! Deliveries of recordings to others: owed with the archive, remembered step by step, until they are done.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, OwedJob, catalogue::Writer, ingest::state_of, row, schema};

/// Sealed column with what the other side gave.
const PROGRESS: &str = "progress";

/// Bytes of an error text that are kept.
const ERROR_BYTES_MAX: usize = 500;

/// How far a delivery got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryStep {
    /// Nothing of it was done.
    Owed,
    /// The other side knows of it.
    Begun,
    /// It is done.
    Delivered,
}

impl DeliveryStep {
    fn as_str(self) -> &'static str {
        match self {
            Self::Owed => "owed",
            Self::Begun => "begun",
            Self::Delivered => "delivered",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Owed, Self::Begun, Self::Delivered].into_iter().find(|step| step.as_str() == text)
    }
}

/// A delivery as it is remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryState {
    /// To where, the kind of its job.
    pub sink: String,
    /// How far it got.
    pub step: DeliveryStep,
    /// What was remembered with it; null where nothing was. Its keys are the sink's.
    pub progress: Value,
    /// Why the last attempt failed, without personal data.
    pub error: Option<String>,
    /// Since when it is owed.
    pub owed_at: Timestamp,
    /// When anything of this changed last.
    pub changed_at: Timestamp,
}

/// What of a sink is not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The sink.
    pub sink: String,
    /// How many recordings.
    pub count: u64,
    /// Since when the oldest is owed, Unix milliseconds.
    pub oldest_unix_ms: i64,
}

/// The form of the sealed column: the sink is in it, so that a value moved to another sink's row is not taken for that one's.
#[derive(Serialize, Deserialize)]
struct Sealed {
    sink: String,
    progress: Value,
}

/// Owes a delivery; one that is owed or done stays as it is.
pub(crate) fn owe(db: &Connection, job: &OwedJob, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "INSERT INTO deliveries (recording_id, sink, step, owed_at_ms, changed_at_ms) VALUES (?1, ?2, 'owed', ?3, ?3) \
               ON CONFLICT (recording_id, sink) DO NOTHING";
    db.execute(sql, (job.recording.to_string(), &job.kind, now.as_millisecond())).map(drop)
}

impl Catalogue {
    /// Owes jobs that follow from a recording that is there, after the fact: somebody wants them. False when the recording is unknown
    /// or was deleted.
    ///
    /// # Errors
    /// Disk errors.
    pub fn owe(&self, recording: Uuid, jobs: &[OwedJob], now: Timestamp) -> Result<bool, CatalogueError> {
        let mut writer = self.writer();
        let mut write = || -> rusqlite::Result<bool> {
            let transaction = schema::write(&mut writer.db)?;
            if state_of(&transaction, recording)?.is_none() {
                return Ok(false);
            }
            crate::outbox::owe(&transaction, jobs, now)?;
            transaction.commit()?;
            Ok(true)
        };
        write().map_err(CatalogueError::sql("owe jobs"))
    }

    /// What is remembered of a delivery; none when it was never owed, or the recording was deleted.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn delivery(&self, recording: Uuid, sink: &str) -> Result<Option<DeliveryState>, CatalogueError> {
        Ok(self.deliveries(recording)?.into_iter().find(|delivery| delivery.sink == sink))
    }

    /// All deliveries of a recording, by sink.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn deliveries(&self, recording: Uuid) -> Result<Vec<DeliveryState>, CatalogueError> {
        type Row = (String, String, Option<Vec<u8>>, Option<String>, i64, i64);
        let read = || -> rusqlite::Result<Vec<Row>> {
            let db = self.reader();
            let mut statement = db.prepare_cached(
                "SELECT sink, step, progress, error, owed_at_ms, changed_at_ms FROM deliveries \
                 WHERE recording_id = ?1 ORDER BY sink",
            )?;
            let rows = statement.query_map([recording.to_string()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            })?;
            rows.collect()
        };
        let rows = read().map_err(CatalogueError::sql("read the deliveries of a recording"))?;
        rows.into_iter().map(|row| self.open_delivery(recording, row)).collect()
    }

    fn open_delivery(
        &self,
        id: Uuid,
        (sink, step, progress, error, owed_at_ms, changed_at_ms): (
            String,
            String,
            Option<Vec<u8>>,
            Option<String>,
            i64,
            i64,
        ),
    ) -> Result<DeliveryState, CatalogueError> {
        let damaged = |column| move || CatalogueError::Damaged { id, column };
        let progress = match progress {
            None => Value::Null,
            Some(sealed) => {
                let json = self.sealing.open_column(id, PROGRESS, &sealed)?;
                let opened: Sealed = serde_json::from_slice(&json).map_err(|_| damaged(PROGRESS)())?;
                if opened.sink != sink {
                    return Err(damaged(PROGRESS)());
                }
                opened.progress
            }
        };
        let time = |ms, column| Timestamp::from_millisecond(ms).map_err(|_| damaged(column)());
        Ok(DeliveryState {
            step: DeliveryStep::parse(&step).ok_or_else(damaged("step"))?,
            progress,
            error,
            owed_at: time(owed_at_ms, "owed_at_ms")?,
            changed_at: time(changed_at_ms, "changed_at_ms")?,
            sink,
        })
    }

    /// Remembers how far a delivery got, whether or not it was owed before. On the device when it returns. False when the recording is
    /// unknown or was deleted: nothing of it is delivered then.
    ///
    /// # Errors
    /// [`CatalogueError::TooLarge`]; disk errors.
    pub fn note_delivery(
        &self,
        recording: Uuid,
        sink: &str,
        progress: &Value,
        now: Timestamp,
    ) -> Result<bool, CatalogueError> {
        self.set_delivery(recording, sink, DeliveryStep::Begun, progress, now)
    }

    /// A delivery is done; what is worth remembering of it stays. As [`Catalogue::note_delivery`].
    ///
    /// # Errors
    /// As [`Catalogue::note_delivery`].
    pub fn delivered(
        &self,
        recording: Uuid,
        sink: &str,
        progress: &Value,
        now: Timestamp,
    ) -> Result<bool, CatalogueError> {
        self.set_delivery(recording, sink, DeliveryStep::Delivered, progress, now)
    }

    fn set_delivery(
        &self,
        id: Uuid,
        sink: &str,
        step: DeliveryStep,
        progress: &Value,
        now: Timestamp,
    ) -> Result<bool, CatalogueError> {
        let what = CatalogueError::sql("note how far a delivery is");
        let mut writer = self.writer();
        let Writer { db, rng } = &mut *writer;
        let sealed = Sealed { sink: sink.to_owned(), progress: progress.clone() };
        let json = serde_json::to_vec(&sealed).expect("text keys and plain values always make JSON");
        let sealed = self.sealing.seal(&mut **rng, id, PROGRESS, &json)?;
        let transaction = schema::write(db).map_err(&what)?;
        if state_of(&transaction, id).map_err(&what)?.is_none() {
            return Ok(false);
        }
        let sql = "INSERT INTO deliveries (recording_id, sink, step, progress, owed_at_ms, changed_at_ms) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (recording_id, sink) \
                   DO UPDATE SET step = excluded.step, progress = excluded.progress, error = NULL, \
                   changed_at_ms = excluded.changed_at_ms";
        let values = (id.to_string(), sink, step.as_str(), sealed, now.as_millisecond());
        transaction.execute(sql, values).map_err(&what)?;
        transaction.commit().map_err(&what)?;
        Ok(true)
    }

    /// An attempt at a delivery failed; `error` holds no personal data. Changes nothing once it is done, or where none is owed.
    ///
    /// # Errors
    /// Disk errors.
    pub fn delivery_failed(&self, id: Uuid, sink: &str, error: &str, now: Timestamp) -> Result<(), CatalogueError> {
        let error = &error[..error.floor_char_boundary(ERROR_BYTES_MAX)];
        let sql = "UPDATE deliveries SET error = ?3, changed_at_ms = ?4 \
                   WHERE recording_id = ?1 AND sink = ?2 AND step <> 'delivered'";
        let changed = self.writer().db.execute(sql, (id.to_string(), sink, error, now.as_millisecond()));
        changed.map(drop).map_err(CatalogueError::sql("note that a delivery failed"))
    }

    /// Whether a recording is delivered to all of these sinks: whoever deletes recordings may ask this first. A sink to which nothing of
    /// it was ever owed has all that it shall have.
    ///
    /// # Errors
    /// Disk errors.
    pub fn is_delivered<S: AsRef<str>>(&self, id: Uuid, sinks: &[S]) -> Result<bool, CatalogueError> {
        let read = || -> rusqlite::Result<bool> {
            let db = self.reader();
            let mut statement = db.prepare_cached(
                "SELECT step FROM deliveries WHERE recording_id = ?1 AND sink = ?2 AND step <> 'delivered'",
            )?;
            for sink in sinks {
                let open = statement.query_row((id.to_string(), sink.as_ref()), |_| Ok(())).optional()?;
                if open.is_some() {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        read().map_err(CatalogueError::sql("read whether a recording is delivered"))
    }

    /// The recordings that are owed to a sink, the longest owed first, at most `limit`: each must have a job in the queue.
    ///
    /// # Errors
    /// Disk errors.
    pub fn undelivered(&self, sink: &str, limit: u32) -> Result<Vec<Uuid>, CatalogueError> {
        let read = || -> rusqlite::Result<Vec<Uuid>> {
            let db = self.reader();
            let mut statement = db.prepare_cached(
                "SELECT recording_id FROM deliveries WHERE sink = ?1 AND step <> 'delivered' \
                 ORDER BY owed_at_ms, recording_id LIMIT ?2",
            )?;
            let rows = statement.query_map((sink, limit), |row| row::uuid(row, 0))?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read what is not delivered"))
    }

    /// How much is not delivered, by sink; sinks with nothing left are not listed.
    ///
    /// # Errors
    /// Disk errors.
    pub fn backlogs(&self) -> Result<Vec<Backlog>, CatalogueError> {
        let read = || -> rusqlite::Result<Vec<Backlog>> {
            let db = self.reader();
            let mut statement = db.prepare_cached(
                "SELECT sink, count(*), min(owed_at_ms) FROM deliveries WHERE step <> 'delivered' GROUP BY sink",
            )?;
            let rows = statement.query_map([], |row| {
                let count: i64 = row.get(1)?;
                let count = u64::try_from(count).unwrap_or(0);
                Ok(Backlog { sink: row.get(0)?, count, oldest_unix_ms: row.get(2)? })
            })?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("count what is not delivered"))
    }
}

//! Call detail records of Webex, sealed, until they are too old to be compared again.

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::Value;
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, decree, schema, webex::READ_TO};

const RECORD: &str = "webex-record";

/// Bytes of a record's name: its keyed hash.
const NAME_BYTES: usize = 16;

/// Records that are given at once; thirty-five days of 20,000 calls are 700,000.
pub const WEBEX_RECORDS_MAX: u32 = 2_000_000;

/// A call detail record to be kept. `Debug` shows no personal data.
#[derive(Clone, PartialEq)]
pub struct WebexRecord {
    /// What tells it from all others; read twice, it is kept once, as it was read last.
    pub name: String,
    /// When its call began.
    pub begun_at: Timestamp,
    /// What it says.
    pub content: Value,
}

impl std::fmt::Debug for WebexRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebexRecord").field("begun_at", &self.begun_at).finish_non_exhaustive()
    }
}

impl Catalogue {
    /// Keeps these records, and how far they have been read with them, in one transaction.
    ///
    /// # Errors
    /// Disk errors: nothing is kept then.
    pub fn put_webex_records(&self, records: &[WebexRecord], read_to: &Value) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("keep call detail records");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        let sql = "INSERT INTO webex_records (name, begun_at_ms, details) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (name) DO UPDATE SET begun_at_ms = excluded.begun_at_ms, details = excluded.details";
        for record in records {
            let blind = self.linking.blind(&format!("webex-record:{}", record.name));
            let name: Vec<u8> = blind.iter().copied().take(NAME_BYTES).collect();
            let content = record.content.to_string();
            let sealed = self.sealing.seal(&mut **rng, id_of(&name), RECORD, content.as_bytes())?;
            transaction.execute(sql, (name, record.begun_at.as_millisecond(), sealed)).map_err(&what)?;
        }
        decree::put(&transaction, &self.sealing, &mut **rng, READ_TO, read_to)?;
        transaction.commit().map_err(&what)
    }

    /// The records of calls that began from `from` to before `to`, the oldest first. Those that do not open are left out.
    ///
    /// # Errors
    /// Disk errors.
    pub fn webex_records(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Value>, CatalogueError> {
        let rows = stored(&self.reader(), from.as_millisecond(), to.as_millisecond())
            .map_err(CatalogueError::sql("read call detail records"))?;
        let one = |(name, sealed): (Vec<u8>, Vec<u8>)| {
            let json = self.sealing.open_column(id_of(&name), RECORD, &sealed).ok()?;
            serde_json::from_slice(&json).ok()
        };
        Ok(rows.into_iter().filter_map(one).collect())
    }

    /// Forgets the records of calls that began before `before`; how many.
    ///
    /// # Errors
    /// Disk errors.
    pub fn forget_webex_records(&self, before: Timestamp) -> Result<usize, CatalogueError> {
        let sql = "DELETE FROM webex_records WHERE begun_at_ms < ?1";
        let forgotten = self.writer().db.execute(sql, [before.as_millisecond()]);
        forgotten.map_err(CatalogueError::sql("forget call detail records"))
    }
}

/// What the seal of a record is bound to.
fn id_of(name: &[u8]) -> Uuid {
    Uuid::from_slice(name).unwrap_or_default()
}

fn stored(db: &Connection, from_ms: i64, to_ms: i64) -> rusqlite::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let sql = "SELECT name, details FROM webex_records WHERE begun_at_ms >= ?1 AND begun_at_ms < ?2 \
               ORDER BY begun_at_ms, name LIMIT ?3";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map((from_ms, to_ms, WEBEX_RECORDS_MAX), |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

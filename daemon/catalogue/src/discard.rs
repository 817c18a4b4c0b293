//! What was not kept, for a while: who called whom and when, and the rule by which there is no recording of it. Sealed; never any audio.

use std::fmt;

use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, Direction, Traffic, catalogue::Writer, row, sealing::Sealing};

/// The sealed column.
const DETAILS: &str = "discard";

/// A call that was not kept. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discard {
    /// The id that its recording would have had.
    pub id: Uuid,
    /// When it was entered: at the end of the call.
    pub at: Timestamp,
    /// The rule that says so.
    pub rule: String,
    /// The user whose call it was, if one is known.
    pub owner_id: Option<Uuid>,
    /// That user's Webex e-mail as it was.
    pub owner: Option<String>,
    /// Seen from the recorded user.
    pub direction: Direction,
    /// Whether the other party belongs to the organisation.
    pub traffic: Traffic,
    /// The recorded user's number.
    pub local_number: Option<String>,
    /// The other party's number.
    pub remote_number: Option<String>,
    /// The client's identifier of the call.
    #[serde(default)]
    pub call_id: Option<String>,
    /// The same for both halves of an internal call, where the client says so.
    #[serde(default)]
    pub tracking_id: Option<String>,
}

impl fmt::Debug for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discard").field("id", &self.id).field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl Catalogue {
    /// Notes a call that was not kept. Noted twice is noted once.
    ///
    /// # Errors
    /// Disk errors.
    pub fn note_discard(&self, discard: &Discard) -> Result<(), CatalogueError> {
        let json = serde_json::to_vec(discard).map_err(|_| CatalogueError::Range("a discard"))?;
        let Writer { db, rng } = &mut *self.writer();
        let sealed = self.sealing.seal(&mut **rng, discard.id, DETAILS, &json)?;
        let sql = "INSERT INTO discards (id, at_ms, rule, details) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        db.execute(sql, (discard.id.to_string(), discard.at.as_millisecond(), &discard.rule, sealed))
            .map(drop)
            .map_err(CatalogueError::sql("note a call that was not kept"))
    }

    /// The newest first, at most `limit`, of this rule if one is given, entered from the one time to before the other where such are given.
    /// Those that do not open are left out.
    ///
    /// # Errors
    /// Disk errors.
    pub fn discards(
        &self,
        rule: Option<&str>,
        (from, to): (Option<Timestamp>, Option<Timestamp>),
        limit: u32,
    ) -> Result<Vec<Discard>, CatalogueError> {
        let from_ms = from.map_or(i64::MIN, |at| at.as_millisecond());
        let to_ms = to.map_or(i64::MAX, |at| at.as_millisecond());
        let rows = stored(&self.reader(), rule, (from_ms, to_ms), limit)
            .map_err(CatalogueError::sql("list the calls not kept"))?;
        Ok(rows.into_iter().filter_map(|(id, details)| open(&self.sealing, id, &details)).collect())
    }

    /// Forgets those that were noted before `before`; how many.
    ///
    /// # Errors
    /// Disk errors.
    pub fn forget_discards(&self, before: Timestamp) -> Result<usize, CatalogueError> {
        let sql = "DELETE FROM discards WHERE at_ms < ?1";
        let forgotten = self.writer().db.execute(sql, [before.as_millisecond()]);
        forgotten.map_err(CatalogueError::sql("forget calls not kept"))
    }
}

fn stored(
    db: &Connection,
    rule: Option<&str>,
    (from_ms, to_ms): (i64, i64),
    limit: u32,
) -> rusqlite::Result<Vec<(Uuid, Vec<u8>)>> {
    let sql = "SELECT id, details FROM discards WHERE (?1 IS NULL OR rule = ?1) AND at_ms >= ?2 AND at_ms < ?3 \
               ORDER BY at_ms DESC, id DESC LIMIT ?4";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map((rule, from_ms, to_ms, limit), |row| Ok((row::uuid(row, 0)?, row.get(1)?)))?;
    rows.collect()
}

fn open(sealing: &Sealing, id: Uuid, details: &[u8]) -> Option<Discard> {
    serde_json::from_slice(&sealing.open_column(id, DETAILS, details).ok()?).ok()
}

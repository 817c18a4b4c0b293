//! The mail that tells a recording's owner of it: owed when the archive is on record, and how far it came. A server's answer is on
//! record before the queue hears of it, so that a mail which a server has accepted is not sent again; and a queue that lost its jobs
//! gets them back from here.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, OwedJob, row};

/// The kind of the job that tells an owner, as the queue names it.
pub(crate) const NOTIFY: &str = "notify";

/// How far a mail came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailStep {
    /// It is to be sent.
    Owed,
    /// It is being handed to a server, or was when the daemon died: that server may have it.
    Sending,
    /// A server has taken responsibility for it. Nothing is sent any more.
    Accepted,
    /// There is nothing to send any more: the user does not want mails now, or a server refused this one for good and a person has to
    /// look at the job.
    Dropped,
}

impl MailStep {
    const ALL: [Self; 4] = [Self::Owed, Self::Sending, Self::Accepted, Self::Dropped];

    fn as_str(self) -> &'static str {
        match self {
            Self::Owed => "owed",
            Self::Sending => "sending",
            Self::Accepted => "accepted",
            Self::Dropped => "dropped",
        }
    }
}

/// A mail as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailStanding {
    /// How far it came.
    pub step: MailStep,
    /// Whether that was with the recipient that was asked about.
    pub same_recipient: bool,
    /// When.
    pub at: Timestamp,
}

impl Catalogue {
    /// How far the mail of this recording came, and whether with this recipient. `None` when none was ever owed.
    ///
    /// # Errors
    /// Disk errors.
    pub fn mail(&self, id: Uuid, address: &str) -> Result<Option<MailStanding>, CatalogueError> {
        let sql = "SELECT recipient, step, at_ms FROM mails WHERE recording_id = ?1";
        let read = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
        };
        let found = self.reader().query_row(sql, [id.to_string()], read).optional();
        let found = found.map_err(CatalogueError::sql("read how far a mail came"))?;
        let Some((recipient, step, at_ms)) = found else { return Ok(None) };
        // A step that this version does not know is of a later one, and no reason to send.
        let step = MailStep::ALL.into_iter().find(|known| known.as_str() == step).unwrap_or(MailStep::Dropped);
        let at = Timestamp::from_millisecond(at_ms).map_err(|_| CatalogueError::Range("at_ms"))?;
        let same_recipient = recipient.is_some_and(|hash| hash == self.recipient(address));
        Ok(Some(MailStanding { step, same_recipient, at }))
    }

    /// The mail of this recording to this address came so far. False when the recording is gone, and nothing is on record of it.
    ///
    /// # Errors
    /// Disk errors.
    pub fn mail_came(&self, id: Uuid, address: &str, step: MailStep, now: Timestamp) -> Result<bool, CatalogueError> {
        let sql = "INSERT INTO mails (recording_id, recipient, step, at_ms) \
                   SELECT r.id, ?2, ?3, ?4 FROM recordings r WHERE r.id = ?1 \
                   ON CONFLICT (recording_id) DO UPDATE SET recipient = excluded.recipient, step = excluded.step, \
                   at_ms = excluded.at_ms";
        let recipient = self.recipient(address);
        let values = (id.to_string(), recipient.as_slice(), step.as_str(), now.as_millisecond());
        let changed = self.writer().db.execute(sql, values);
        changed.map(|rows| rows > 0).map_err(CatalogueError::sql("note how far a mail came"))
    }

    /// Recordings whose mail is owed or was under way, oldest first: each must have a job in the queue.
    ///
    /// # Errors
    /// Disk errors.
    pub fn mails_owed(&self) -> Result<Vec<Uuid>, CatalogueError> {
        let read = || -> rusqlite::Result<Vec<Uuid>> {
            let db = self.reader();
            let sql = "SELECT recording_id FROM mails WHERE step IN ('owed', 'sending') ORDER BY at_ms, recording_id";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| row::uuid(row, 0))?;
            rows.collect()
        };
        read().map_err(CatalogueError::sql("read what mails are owed"))
    }

    fn recipient(&self, address: &str) -> Vec<u8> {
        self.linking.blind(&format!("mail:{}", address.trim().to_lowercase())).to_vec()
    }
}

/// What of these jobs is a mail is owed from now on, whatever becomes of the queue.
pub(crate) fn owe(db: &Connection, jobs: &[OwedJob], now: Timestamp) -> rusqlite::Result<()> {
    let sql = "INSERT INTO mails (recording_id, step, at_ms) VALUES (?1, ?2, ?3) ON CONFLICT (recording_id) DO NOTHING";
    for job in jobs.iter().filter(|job| job.kind == NOTIFY) {
        db.execute(sql, (job.recording.to_string(), MailStep::Owed.as_str(), now.as_millisecond()))?;
    }
    Ok(())
}

/// A recording is gone, and nobody is told of it any more.
pub(crate) fn remove(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM mails WHERE recording_id = ?1", [id]).map(drop)
}

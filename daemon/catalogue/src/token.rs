//! Tokens of programs and people. Everything that decides what a token may is sealed with its row; beside it there is only the hash by
//! which it is found, and the day on which it was used last. The token itself is nowhere.

use std::fmt;

use callvault_access::{Level, audit::Entry};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, row, schema, sealing::Sealing};

/// Most tokens, those that were revoked or have expired among them; each costs some hundred bytes.
pub const TOKENS_MAX: u32 = 10_000;

const DETAILS: &str = "token";
const MS_A_DAY: i64 = 86_400_000;

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// A token, as far as it is kept. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id, a UUIDv7.
    pub id: Uuid,
    /// What it is for, as whoever made it put it.
    pub name: String,
    /// What it gives at most.
    pub level: Level,
    /// Whose it is; none: nobody's, which is right only for an administrator's.
    #[serde(default)]
    pub user: Option<Uuid>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it is worth something; none: for ever.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Whether it is a session of the portal: made when its user signed in, and forgotten some time after its end.
    #[serde(default)]
    pub session: bool,
    /// When it was made worthless.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
    /// The beginning of the day, in UTC, on which it was used last; finer is not kept.
    #[serde(skip)]
    pub used_on: Option<Timestamp>,
}

impl Token {
    /// Whether it is worth something at `now`, as far as it is for itself to say.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).field("level", &self.level).finish_non_exhaustive()
    }
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Details {
    #[serde(flatten)]
    token: Token,
    /// The hash that it goes with: one that was written over another's finds nothing.
    hash: Option<TokenHash>,
}

impl Catalogue {
    /// Keeps a new token, and the entry of the audit log that says so.
    ///
    /// # Errors
    /// [`CatalogueError::TooManyTokens`]; disk errors.
    pub fn create_token(&self, token: &Token, hash: &TokenHash, entry: &Entry) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("keep a token");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        let count: u32 = transaction.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0)).map_err(&what)?;
        if count >= TOKENS_MAX {
            return Err(CatalogueError::TooManyTokens);
        }
        let details = Details { token: token.clone(), hash: Some(*hash) };
        put(&transaction, &self.sealing, &mut **rng, &details)?;
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)
    }

    /// The token with that hash, whether or not it is worth something still; revoked ones are not found any more.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn token_of(&self, hash: &TokenHash) -> Result<Option<Token>, CatalogueError> {
        let sql = "SELECT id, details, used_on_day FROM tokens WHERE hash = ?1";
        let found = self.reader().query_row(sql, [hash.as_slice()], Stored::read).optional();
        let Some(stored) = found.map_err(CatalogueError::sql("look for a token"))? else { return Ok(None) };
        let id = stored.id;
        let details = stored.open(&self.sealing)?;
        if details.hash != Some(*hash) {
            return Err(CatalogueError::Damaged { id, column: DETAILS });
        }
        Ok(Some(details.token))
    }

    /// Forgets sessions that are worth nothing any more at `now`, which are no tokens that anybody made.
    ///
    /// # Errors
    /// Disk errors.
    pub fn forget_sessions(&self, now: Timestamp) -> Result<usize, CatalogueError> {
        let what = CatalogueError::sql("forget sessions");
        let Writer { db, .. } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        let rows = stored(&transaction).map_err(&what)?;
        let over = rows.into_iter().filter_map(|row| row.open(&self.sealing).ok()).map(|details| details.token);
        let over: Vec<_> = over.filter(|token| token.session && !token.is_good(now)).collect();
        for token in &over {
            transaction.execute("DELETE FROM tokens WHERE id = ?1", [token.id.to_string()]).map_err(&what)?;
        }
        transaction.commit().map_err(&what)?;
        Ok(over.len())
    }

    /// All tokens, the oldest first. Those that do not open are left out.
    ///
    /// # Errors
    /// Disk errors.
    pub fn tokens(&self) -> Result<Vec<Token>, CatalogueError> {
        let rows = stored(&self.reader()).map_err(CatalogueError::sql("list tokens"))?;
        Ok(rows.into_iter().filter_map(|row| row.open(&self.sealing).ok()).map(|details| details.token).collect())
    }

    /// The token was used at `now`. The day is kept, no more.
    ///
    /// # Errors
    /// Disk errors.
    pub fn token_used(&self, id: Uuid, now: Timestamp) -> Result<(), CatalogueError> {
        let day = now.as_millisecond().div_euclid(MS_A_DAY);
        let sql = "UPDATE tokens SET used_on_day = ?2 WHERE id = ?1";
        let changed = self.writer().db.execute(sql, (id.to_string(), day));
        changed.map(drop).map_err(CatalogueError::sql("note that a token was used"))
    }

    /// Makes a token worthless for good, and keeps the entry of the audit log that says so. Gives it as it is then; `None` when there is
    /// none of that id. Revoked twice is revoked once.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn revoke_token(&self, id: Uuid, now: Timestamp, entry: &Entry) -> Result<Option<Token>, CatalogueError> {
        let what = CatalogueError::sql("revoke a token");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        let sql = "SELECT id, details, used_on_day FROM tokens WHERE id = ?1";
        let found = transaction.query_row(sql, [id.to_string()], Stored::read).optional().map_err(&what)?;
        let Some(stored) = found else { return Ok(None) };
        let used_on = stored.used_on();
        // One that does not open is as worthless, and goes.
        let Ok(details) = stored.open(&self.sealing) else {
            transaction.execute("DELETE FROM tokens WHERE id = ?1", [id.to_string()]).map_err(&what)?;
            self.auditing.append(&transaction, &mut **rng, entry)?;
            transaction.commit().map_err(&what)?;
            return Err(CatalogueError::Damaged { id, column: DETAILS });
        };
        let token = Token { revoked_at: details.token.revoked_at.or(Some(now)), used_on, ..details.token };
        put(&transaction, &self.sealing, &mut **rng, &Details { token: token.clone(), hash: None })?;
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)?;
        Ok(Some(token))
    }
}

struct Stored {
    id: Uuid,
    details: Vec<u8>,
    used_on_day: Option<i64>,
}

impl Stored {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: row::uuid(row, 0)?, details: row.get(1)?, used_on_day: row.get(2)? })
    }

    fn used_on(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.used_on_day?.checked_mul(MS_A_DAY)?).ok()
    }

    fn open(&self, sealing: &Sealing) -> Result<Details, CatalogueError> {
        let damaged = || CatalogueError::Damaged { id: self.id, column: DETAILS };
        let json = sealing.open_column(self.id, DETAILS, &self.details)?;
        let mut details: Details = serde_json::from_slice(&json).map_err(|_| damaged())?;
        details.token.used_on = self.used_on();
        Ok(details)
    }
}

fn stored(db: &Connection) -> rusqlite::Result<Vec<Stored>> {
    let mut statement = db.prepare_cached("SELECT id, details, used_on_day FROM tokens ORDER BY id")?;
    let rows = statement.query_map([], Stored::read)?;
    rows.collect()
}

fn put(
    db: &Connection,
    sealing: &Sealing,
    rng: &mut dyn rand::CryptoRng,
    details: &Details,
) -> Result<(), CatalogueError> {
    let id = details.token.id;
    let json = serde_json::to_vec(details).map_err(|_| CatalogueError::Range("a token"))?;
    let sealed = sealing.seal(rng, id, DETAILS, &json)?;
    let sql = "INSERT INTO tokens (id, hash, details, used_on_day) VALUES (?1, ?2, ?3, ?4) \
               ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, details = excluded.details";
    let day = details.token.used_on.map(|at| at.as_millisecond().div_euclid(MS_A_DAY));
    let values = (id.to_string(), details.hash.as_ref().map(<[u8; 32]>::as_slice), sealed, day);
    db.execute(sql, values).map(drop).map_err(CatalogueError::sql("keep a token"))
}

/// Copies the tokens of `old` that open into `new`.
pub(crate) fn carry_over(
    (old, of_old): (&Connection, &Sealing),
    (new, of_new): (&Connection, &Sealing),
    rng: &mut dyn rand::CryptoRng,
) -> Result<(), CatalogueError> {
    let rows = stored(old).map_err(CatalogueError::sql("take over tokens"))?;
    for details in rows.iter().filter_map(|row| row.open(of_old).ok()) {
        put(new, of_new, rng, &details)?;
    }
    Ok(())
}

//! The users: each a row with everything about it sealed, found by a keyed hash of the Webex e-mail. Rows are never removed, so that the
//! recordings of a user who is gone still say whose they are.

use callvault_access::audit::Entry;
use callvault_directory::User;
use rusqlite::Connection;
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, link::Linking, row, schema, sealing::Sealing};

/// The sealed column.
const DETAILS: &str = "user";

/// The users that could be read.
#[derive(Debug, Default)]
pub struct Users {
    /// All of them, removed ones among them.
    pub users: Vec<User>,
    /// Rows that do not open: who these are, nobody can tell.
    pub damaged: Vec<Uuid>,
}

impl Catalogue {
    /// All users, removed ones among them.
    ///
    /// # Errors
    /// Disk errors.
    pub fn users(&self) -> Result<Users, CatalogueError> {
        let rows = stored(&self.reader()).map_err(CatalogueError::sql("read the users"))?;
        let mut found = Users::default();
        for (id, details) in rows {
            match open(&self.sealing, id, &details) {
                Ok(user) => found.users.push(user),
                Err(_) => found.damaged.push(id),
            }
        }
        Ok(found)
    }

    /// Puts users in, each in the place of the one with its id; all or none, with the entry of the audit log that says so.
    ///
    /// # Errors
    /// Disk errors, also when two users would have one e-mail: then nothing has changed.
    pub fn put_users(&self, users: &[User], entry: &Entry) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("change the users");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        for user in users {
            put(&transaction, (&self.sealing, &self.linking), &mut **rng, user)?;
        }
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)
    }
}

fn stored(db: &Connection) -> rusqlite::Result<Vec<(Uuid, Vec<u8>)>> {
    let mut statement = db.prepare_cached("SELECT id, details FROM users ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok((row::uuid(row, 0)?, row.get(1)?)))?;
    rows.collect()
}

fn open(sealing: &Sealing, id: Uuid, details: &[u8]) -> Result<User, CatalogueError> {
    let json = sealing.open_column(id, DETAILS, details)?;
    serde_json::from_slice(&json)
        .ok()
        .filter(|user: &User| user.id == id)
        .ok_or(CatalogueError::Damaged { id, column: DETAILS })
}

fn put(
    db: &Connection,
    (sealing, linking): (&Sealing, &Linking),
    rng: &mut dyn rand::CryptoRng,
    user: &User,
) -> Result<(), CatalogueError> {
    let json = serde_json::to_vec(user).map_err(|_| CatalogueError::Range("a user"))?;
    let sealed = sealing.seal(rng, user.id, DETAILS, &json)?;
    // No text that recordings are linked by begins so.
    let hash = linking.blind(&format!("user\0{}", user.webex_email.to_lowercase()));
    let sql = "INSERT INTO users (id, email_hash, removed_at_ms, details) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE \
               SET email_hash = excluded.email_hash, removed_at_ms = excluded.removed_at_ms, details = excluded.details";
    let removed_at_ms = user.removed_at.map(jiff::Timestamp::as_millisecond);
    db.execute(sql, (user.id.to_string(), hash.as_slice(), removed_at_ms, sealed))
        .map(drop)
        .map_err(CatalogueError::sql("change the users"))
}

/// Copies the users of `old` that open into `new`.
pub(crate) fn carry_over(
    (old, of_old): (&Connection, &Sealing),
    (new, of_new, linking): (&Connection, &Sealing, &Linking),
    rng: &mut dyn rand::CryptoRng,
) -> Result<(), CatalogueError> {
    let rows = stored(old).map_err(CatalogueError::sql("take over the users"))?;
    for user in rows.iter().filter_map(|(id, details)| open(of_old, *id, details).ok()) {
        put(new, (of_new, linking), rng, &user)?;
    }
    Ok(())
}

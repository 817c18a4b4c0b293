//! The users: one sealed row each, the removed ones among them, since recordings keep naming them.

use callvault_access::audit::Entry;
use callvault_directory::User;
use rusqlite::Connection;
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, row, schema, sealing::Sealing};

const DETAILS: &str = "user";

impl Catalogue {
    /// All users, in the order in which they came, and the ids of those whose rows do not open.
    ///
    /// # Errors
    /// Disk errors.
    pub fn users(&self) -> Result<(Vec<User>, Vec<Uuid>), CatalogueError> {
        let rows = stored(&self.reader()).map_err(CatalogueError::sql("read the users"))?;
        let (mut users, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
        for (id, sealed) in rows {
            match open(&self.sealing, id, &sealed) {
                Ok(user) => users.push(user),
                Err(_) => damaged.push(id),
            }
        }
        Ok((users, damaged))
    }

    /// Keeps these users as they are now, all of them or none, and the entry of the audit log that says so.
    ///
    /// # Errors
    /// Disk errors.
    pub fn put_users(&self, users: &[User], entry: &Entry) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("keep the users");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        for user in users {
            put(&transaction, &self.sealing, &mut **rng, user)?;
        }
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)
    }
}

fn open(sealing: &Sealing, id: Uuid, sealed: &[u8]) -> Result<User, CatalogueError> {
    let json = sealing.open_column(id, DETAILS, sealed)?;
    let user: User = serde_json::from_slice(&json).map_err(|_| CatalogueError::Damaged { id, column: DETAILS })?;
    if user.id == id { Ok(user) } else { Err(CatalogueError::Damaged { id, column: DETAILS }) }
}

fn stored(db: &Connection) -> rusqlite::Result<Vec<(Uuid, Vec<u8>)>> {
    let mut statement = db.prepare_cached("SELECT id, details FROM users ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok((row::uuid(row, 0)?, row.get(1)?)))?;
    rows.collect()
}

pub(crate) fn put(
    db: &Connection,
    sealing: &Sealing,
    rng: &mut dyn rand::CryptoRng,
    user: &User,
) -> Result<(), CatalogueError> {
    let json = serde_json::to_vec(user).map_err(|_| CatalogueError::Range("a user"))?;
    let sealed = sealing.seal(rng, user.id, DETAILS, &json)?;
    let sql =
        "INSERT INTO users (id, details) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET details = excluded.details";
    let kept = db.execute(sql, (user.id.to_string(), sealed));
    kept.map(drop).map_err(CatalogueError::sql("keep a user"))
}

/// Copies the users of `old` that open into `new`.
pub(crate) fn carry_over(
    (old, of_old): (&Connection, &Sealing),
    (new, of_new): (&Connection, &Sealing),
    rng: &mut dyn rand::CryptoRng,
) -> Result<(), CatalogueError> {
    let rows = stored(old).map_err(CatalogueError::sql("take over users"))?;
    for user in rows.iter().filter_map(|(id, sealed)| open(of_old, *id, sealed).ok()) {
        put(new, of_new, rng, &user)?;
    }
    Ok(())
}

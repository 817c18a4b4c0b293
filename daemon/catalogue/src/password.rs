//! Passwords of users, as hashes, each sealed with its user's id; and the sessions that end with them.

use callvault_access::audit::Entry;
use callvault_directory::User;
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, row, schema, sealing::Sealing, user};

const COLUMN: &str = "password";

impl Catalogue {
    /// What is kept of a user's password, a PHC string; none where none was ever chosen.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn password_of(&self, id: Uuid) -> Result<Option<String>, CatalogueError> {
        let sql = "SELECT sealed FROM passwords WHERE user_id = ?1";
        let found = self.reader().query_row(sql, [id.to_string()], |row| row.get::<_, Vec<u8>>(0)).optional();
        let Some(sealed) = found.map_err(CatalogueError::sql("look for a password"))? else { return Ok(None) };
        open(&self.sealing, id, &sealed).map(Some)
    }

    /// Keeps a user's new password as a PHC string, with the user as they are then (their first password is forgotten with it), and the entry
    /// of the audit log that says so.
    ///
    /// # Errors
    /// Disk errors.
    pub fn set_password(&self, user: &User, phc: &str, entry: &Entry) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("keep a password");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        put(&transaction, &self.sealing, &mut **rng, user.id, phc)?;
        user::put(&transaction, &self.sealing, &mut **rng, user)?;
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)
    }
}

fn open(sealing: &Sealing, id: Uuid, sealed: &[u8]) -> Result<String, CatalogueError> {
    let bytes = sealing.open_column(id, COLUMN, sealed)?;
    String::from_utf8(bytes).map_err(|_| CatalogueError::Damaged { id, column: COLUMN })
}

fn put(
    db: &Connection,
    sealing: &Sealing,
    rng: &mut dyn rand::CryptoRng,
    id: Uuid,
    phc: &str,
) -> Result<(), CatalogueError> {
    let sealed = sealing.seal(rng, id, COLUMN, phc.as_bytes())?;
    let sql = "INSERT INTO passwords (user_id, sealed) VALUES (?1, ?2) \
               ON CONFLICT (user_id) DO UPDATE SET sealed = excluded.sealed";
    db.execute(sql, (id.to_string(), sealed)).map(drop).map_err(CatalogueError::sql("keep a password"))
}

/// Copies the passwords of `old` that open into `new`.
pub(crate) fn carry_over(
    (old, of_old): (&Connection, &Sealing),
    (new, of_new): (&Connection, &Sealing),
    rng: &mut dyn rand::CryptoRng,
) -> Result<(), CatalogueError> {
    let what = CatalogueError::sql("take over passwords");
    let mut statement = old.prepare("SELECT user_id, sealed FROM passwords").map_err(&what)?;
    let rows = statement.query_map([], |row| Ok((row::uuid(row, 0)?, row.get::<_, Vec<u8>>(1)?))).map_err(&what)?;
    for (id, sealed) in rows.collect::<Result<Vec<_>, _>>().map_err(&what)? {
        if let Ok(phc) = open(of_old, id, &sealed) {
            put(new, of_new, rng, id, &phc)?;
        }
    }
    Ok(())
}

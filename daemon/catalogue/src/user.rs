//! The users: one sealed row each, the removed ones among them, since recordings keep naming them.

use callvault_access::audit::Entry;
use callvault_directory::User;
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, row, schema, sealing::Sealing};

const DETAILS: &str = "user";
const PICTURE: &str = "picture";

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
            // The recordings of who is removed stay, and the name on them; the face does not.
            if user.removed_at.is_some() {
                remove_picture(&transaction, user.id).map_err(&what)?;
            }
        }
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)
    }
}

impl Catalogue {
    /// The picture of a user, as it was given; `None` without one.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn user_picture(&self, id: Uuid) -> Result<Option<Vec<u8>>, CatalogueError> {
        let sql = "SELECT sealed FROM user_pictures WHERE user_id = ?1";
        let sealed: Option<Vec<u8>> = self
            .reader()
            .query_row(sql, [id.to_string()], |row| row.get(0))
            .optional()
            .map_err(CatalogueError::sql("read a user's picture"))?;
        sealed.map(|sealed| self.sealing.open_column(id, PICTURE, &sealed).map(|bytes| bytes.to_vec())).transpose()
    }

    /// Keeps a picture of a user in the place of the one before, or none, and the entry of the audit log that says so.
    ///
    /// # Errors
    /// [`CatalogueError::TooLarge`]; disk errors.
    pub fn put_user_picture(&self, id: Uuid, picture: Option<&[u8]>, entry: &Entry) -> Result<(), CatalogueError> {
        let what = CatalogueError::sql("keep a user's picture");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        remove_picture(&transaction, id).map_err(&what)?;
        if let Some(picture) = picture {
            let sealed = self.sealing.seal(&mut **rng, id, PICTURE, picture)?;
            put_picture(&transaction, id, &sealed).map_err(&what)?;
        }
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)
    }
}

fn put_picture(db: &Connection, id: Uuid, sealed: &[u8]) -> rusqlite::Result<()> {
    db.execute("INSERT INTO user_pictures (user_id, sealed) VALUES (?1, ?2)", (id.to_string(), sealed)).map(drop)
}

pub(crate) fn remove_picture(db: &Connection, id: Uuid) -> rusqlite::Result<()> {
    db.execute("DELETE FROM user_pictures WHERE user_id = ?1", [id.to_string()]).map(drop)
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
    let what = CatalogueError::sql("take over the pictures of users");
    let mut statement = old.prepare("SELECT user_id, sealed FROM user_pictures").map_err(&what)?;
    let mut rows = statement.query([]).map_err(&what)?;
    while let Ok(Some(row)) = rows.next() {
        let (Ok(id), Ok(sealed)) = (row::uuid(row, 0), row.get::<_, Vec<u8>>(1)) else { continue };
        // One that does not open is not worth the others.
        let Ok(picture) = of_old.open_column(id, PICTURE, &sealed) else { continue };
        let sealed = of_new.seal(rng, id, PICTURE, &picture)?;
        put_picture(new, id, &sealed).map_err(&what)?;
    }
    Ok(())
}

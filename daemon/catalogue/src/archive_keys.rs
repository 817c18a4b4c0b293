//! The sealed keys of archives that do not have them in themselves (`archive.keys = "catalogue"`). They are in this database and nowhere
//! else: with the row of a deleted recording they are overwritten, and then no copy of its archive can be opened, wherever it is.

use callvault_seal::{SEALED_KEY_BYTES, SealedKey};
use rand::CryptoRng;
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, sealing::Sealing};

impl Catalogue {
    /// The sealed keys of a recording's archive; empty where the catalogue has none.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; disk errors.
    pub fn archive_keys(&self, id: Uuid) -> Result<Vec<SealedKey>, CatalogueError> {
        let sql = "SELECT keys FROM archive_keys WHERE recording_id = ?1";
        let found: Option<Vec<u8>> = self
            .reader()
            .query_row(sql, [id.to_string()], |row| row.get(0))
            .optional()
            .map_err(CatalogueError::sql("read the key of an archive"))?;
        let damaged = |_| CatalogueError::Damaged { id, column: "keys" };
        found
            .unwrap_or_default()
            .chunks(SEALED_KEY_BYTES)
            .map(|one| SealedKey::from_bytes(one).map_err(damaged))
            .collect()
    }
}

/// Puts the keys of a recording's archive in the place of those that an earlier one had.
pub(crate) fn put(db: &Connection, id: Uuid, keys: &[SealedKey]) -> rusqlite::Result<()> {
    remove(db, &id.to_string())?;
    if keys.is_empty() {
        return Ok(());
    }
    let bytes: Vec<u8> = keys.iter().flat_map(SealedKey::to_bytes).collect();
    db.execute("INSERT INTO archive_keys (recording_id, keys) VALUES (?1, ?2)", (id.to_string(), bytes)).map(drop)
}

pub(crate) fn remove(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM archive_keys WHERE recording_id = ?1", [id]).map(drop)
}

/// Takes over what an old catalogue has, as far as it can be read.
pub(crate) fn carry_over(
    (old, _): (&Connection, &Sealing),
    (new, _): (&Connection, &Sealing),
    _: &mut dyn CryptoRng,
) -> Result<(), CatalogueError> {
    let what = CatalogueError::sql("take over the keys of archives");
    let mut statement = old.prepare("SELECT recording_id, keys FROM archive_keys").map_err(&what)?;
    let mut rows = statement.query([]).map_err(&what)?;
    while let Ok(Some(row)) = rows.next() {
        let (Ok(id), Ok(keys)) = (row.get::<_, String>(0), row.get::<_, Vec<u8>>(1)) else { continue };
        let sql = "INSERT INTO archive_keys (recording_id, keys) VALUES (?1, ?2) ON CONFLICT (recording_id) DO NOTHING";
        new.execute(sql, (id, keys)).map_err(&what)?;
    }
    Ok(())
}

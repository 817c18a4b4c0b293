//! Which recordings belong together, by a blind index.
//!
//! Recordings of one call share texts: the client's identifier of the call, the session that they were made in. Those texts are
//! not stored. What is stored is a keyed hash of each (HMAC-SHA-256, RFC 2104, cut to 16 bytes), under a random key of its own that
//! is sealed like a column. So the table tells that two rows belong together, and without the key not by what.

use callvault_seal::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::CryptoRng;
use rusqlite::Connection;
use sha2::Sha256;
use uuid::Uuid;

use crate::{CatalogueError, row, schema, sealing::Sealing};

/// Texts of one recording that are looked at: a call that is transferred more often than this is linked by the first ones.
pub const LINKS_MAX: usize = 64;

/// Recordings that one is linked with at most: a conference of users who are all recorded.
pub const LINKED_MAX: usize = 64;

/// Recordings that began further apart are not of one call, whatever they share: some clients count their calls from one again
/// when they start. In milliseconds.
const APART_MS_MAX: i64 = 24 * 3_600 * 1_000;

/// The name of the sealed key in `meta`, and of the column that it is sealed as.
const LINK_KEY: &str = "link_key";

const KEY_BYTES: usize = 32;
const LINK_BYTES: usize = 16;

/// The key of the index.
pub(crate) struct Linking(Secret<[u8; KEY_BYTES]>);

impl std::fmt::Debug for Linking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linking").finish_non_exhaustive()
    }
}

impl Linking {
    /// Reads the key, or makes one.
    pub(crate) fn open(
        db: &mut Connection,
        sealing: &Sealing,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, CatalogueError> {
        let what = CatalogueError::sql("read the key of the links");
        let transaction = schema::write(db).map_err(&what)?;
        if let Some(sealed) = schema::meta(&transaction, LINK_KEY).map_err(&what)? {
            let key = sealing.open_column(Uuid::nil(), LINK_KEY, &sealed)?;
            let key = key.try_into().map_err(|_| CatalogueError::DamagedMeta(LINK_KEY))?;
            return Ok(Self(Secret::new(key)));
        }
        let mut key = [0; KEY_BYTES];
        rng.fill_bytes(&mut key);
        let sealed = sealing.seal(rng, Uuid::nil(), LINK_KEY, &key)?;
        schema::set_meta(&transaction, LINK_KEY, &sealed).map_err(&what)?;
        transaction.commit().map_err(&what)?;
        Ok(Self(Secret::new(key)))
    }

    pub(crate) fn blind(&self, text: &str) -> [u8; LINK_BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose()).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        let (link, _) = hash.split_first_chunk().expect("a hash is longer than a link");
        *link
    }

    pub(crate) fn insert(&self, db: &Connection, id: Uuid, texts: &[String]) -> rusqlite::Result<()> {
        let sql = "INSERT INTO call_links (link, recording_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        for text in texts.iter().take(LINKS_MAX) {
            db.execute(sql, (self.blind(text).as_slice(), id.to_string()))?;
        }
        Ok(())
    }
}

/// A recording is gone, and with it what it had in common with others.
pub(crate) fn remove(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM call_links WHERE recording_id = ?1", [id]).map(drop)
}

/// The other recordings of the same call that are there, oldest first.
pub(crate) fn linked(db: &Connection, id: Uuid) -> rusqlite::Result<Vec<Uuid>> {
    let sql = "SELECT DISTINCT other.id FROM recordings own \
               JOIN call_links mine ON mine.recording_id = own.id \
               JOIN call_links theirs ON theirs.link = mine.link \
               JOIN recordings other ON other.id = theirs.recording_id \
               WHERE own.id = ?1 AND other.id <> own.id \
               AND other.started_at_ms BETWEEN own.started_at_ms - ?2 AND own.started_at_ms + ?2 \
               ORDER BY other.id LIMIT ?3";
    let mut statement = db.prepare_cached(sql)?;
    let limit = i64::try_from(LINKED_MAX).unwrap_or(i64::MAX);
    let rows = statement.query_map((id.to_string(), APART_MS_MAX, limit), |row| row::uuid(row, 0))?;
    rows.collect()
}

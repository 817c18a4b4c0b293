use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use callvault_seal::Keyring;
use rand::CryptoRng;
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use crate::{
    ArchiveState, CatalogueError, Recording, Verdict, annotations,
    audit::Auditing,
    index::Index,
    link::{Linking, linked},
    row::{COLUMNS, FACTS, StoredRow},
    schema,
    sealing::Sealing,
};

/// Numbers of recordings, by how well they were recorded and where their audio is.
pub type Counts = BTreeMap<(Verdict, ArchiveState), u64>;

/// The catalogue. See the crate's doc.
#[derive(Debug)]
pub struct Catalogue {
    pub(crate) sealing: Sealing,
    pub(crate) linking: Linking,
    pub(crate) auditing: Auditing,
    /// Guards the index of searches. Never held while the writer is waited for.
    index: Mutex<Index>,
    /// Guards the one connection that writes, and the randomness for what it seals.
    writer: Mutex<Writer>,
    /// Guards the connection that lists and looks up, beside the writer. Never both at once.
    reader: Mutex<Connection>,
    /// Whether the file may still have what was deleted, since the end of it is in the log alone. Changed by who has the writer.
    pub(crate) keeps_deleted: AtomicBool,
}

pub(crate) struct Writer {
    pub(crate) db: Connection,
    pub(crate) rng: Box<dyn CryptoRng + Send>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("db", &self.db).finish_non_exhaustive()
    }
}

impl Catalogue {
    /// Opens the catalogue at `path`, making or migrating it if need be. Its key is sealed to the keyring's current key from
    /// now on, if it was not before.
    ///
    /// # Errors
    /// [`CatalogueError::Key`] when no key of the ring opens it; [`CatalogueError::Newer`]; [`CatalogueError::Foreign`]; disk errors.
    pub fn open(path: &Path, keyring: &Keyring, mut rng: Box<dyn CryptoRng + Send>) -> Result<Self, CatalogueError> {
        let mut db = schema::open_writer(path)?;
        let sealing = Sealing::open(&mut db, keyring, &mut *rng)?;
        let linking = Linking::open(&mut db, &sealing, &mut *rng)?;
        let auditing = Auditing::open(&mut db, &sealing, &mut *rng)?;
        // A daemon that died behind the transaction of a deletion left what was deleted in the file, and its end in the log. A backup that
        // reads meanwhile can be in the way, or a full disk: then whoever brings a deletion to its end tries again.
        let keeps_deleted = !schema::try_to_empty_wal(&db);
        let reader = schema::open_reader(path)?;
        let index = Mutex::default();
        Ok(Self {
            sealing,
            linking,
            auditing,
            index,
            writer: Mutex::new(Writer { db, rng }),
            reader: Mutex::new(reader),
            keeps_deleted: AtomicBool::new(keeps_deleted),
        })
    }

    /// Writes a copy of the catalogue at `path` as it is at one moment to `copy`, which must not be there, without keys and while others
    /// use it. What was deleted is not in it, not even in unused pages.
    ///
    /// # Errors
    /// [`CatalogueError::Foreign`], [`CatalogueError::Newer`]; disk errors.
    pub fn copy(path: &Path, copy: &Path) -> Result<(), CatalogueError> {
        schema::copy(path, copy)
    }

    /// The recording with that id, its facts included; `None` when it is unknown or deleted.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`], disk errors.
    pub fn get(&self, id: Uuid) -> Result<Option<Recording>, CatalogueError> {
        let sql = format!("SELECT {COLUMNS}, facts FROM recordings WHERE id = ?1");
        let found = self
            .reader()
            .query_row(&sql, [id.to_string()], |row| Ok((StoredRow::read(row)?, row.get::<_, Option<Vec<u8>>>(14)?)))
            .optional()
            .map_err(CatalogueError::sql("read a recording"))?;
        let Some((row, facts)) = found else { return Ok(None) };
        let mut recording = row.open(&self.sealing)?;
        if let Some(sealed) = facts {
            let json = self.sealing.open_column(id, FACTS, &sealed)?;
            recording.facts =
                serde_json::from_slice(&json).map_err(|_| CatalogueError::Damaged { id, column: FACTS })?;
        }
        recording.linked = self.linked(id)?;
        recording.annotations = annotations::read(&self.reader(), &self.sealing, id)?;
        Ok(Some(recording))
    }

    /// Whose recording that is: none where there is no such recording, or where it cannot be told; within, none where it is nobody's. Does the
    /// same work either way: with an id that no recording has, the row that is nearest is read and opened instead, so that the time
    /// tells nothing.
    ///
    /// # Errors
    /// Disk errors.
    pub fn owner_of(&self, id: Uuid) -> Result<Option<Option<Uuid>>, CatalogueError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM recordings WHERE id = coalesce(\
             (SELECT id FROM recordings WHERE id >= ?1 ORDER BY id LIMIT 1), (SELECT max(id) FROM recordings))"
        );
        let found = self
            .reader()
            .query_row(&sql, [id.to_string()], StoredRow::read)
            .optional()
            .map_err(CatalogueError::sql("read whose a recording is"))?;
        let opened = found.and_then(|row| row.open(&self.sealing).ok());
        Ok(opened.filter(|recording| recording.id == id).map(|recording| recording.owner_id))
    }

    /// The other recordings of the same call.
    pub(crate) fn linked(&self, id: Uuid) -> Result<Vec<Uuid>, CatalogueError> {
        linked(&self.reader(), id).map_err(CatalogueError::sql("read which recordings belong together"))
    }

    /// Numbers by verdict and state. Reads an index from end to end: for a page or a metric now and then, not for each call.
    ///
    /// # Errors
    /// Disk errors.
    pub fn counts(&self) -> Result<Counts, CatalogueError> {
        let what = CatalogueError::sql("count recordings");
        let db = self.reader();
        let mut statement = db
            .prepare_cached("SELECT verdict, archive_state, count(*) FROM recordings GROUP BY archive_state, verdict")
            .map_err(&what)?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)))
            .map_err(&what)?;
        let mut counts = Counts::new();
        for row in rows {
            let (verdict, state, count) = row.map_err(&what)?;
            // a word that this version does not know is counted by the version that does
            if let (Ok(verdict), Ok(state)) = (verdict.parse(), state.parse()) {
                counts.insert((verdict, state), u64::try_from(count).unwrap_or(0));
            }
        }
        Ok(counts)
    }

    /// What the database's own check finds; empty when all is well. Reads the whole file.
    ///
    /// # Errors
    /// Disk errors.
    pub fn check(&self) -> Result<Vec<String>, CatalogueError> {
        schema::check(&self.reader()).map_err(CatalogueError::sql("check the catalogue"))
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        // a panic while it was held rolled the transaction back
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

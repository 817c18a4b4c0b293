//! What people add to a recording: that it is to be preserved, notes, tags. All of it is one sealed value beside the row, read and written
//! whole; it goes with the recording.

use std::{collections::BTreeSet, fmt};

use callvault_access::{Caller, Level, audit::Entry};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Catalogue, CatalogueError, catalogue::Writer, ingest::state_of, schema, sealing::Sealing};

/// Notes on one recording. With [`NOTE_CHARS_MAX`] this keeps the sealed value below [`crate::SEALED_BYTES_MAX`].
pub const NOTES_MAX: usize = 50;

/// Characters of a note: a page.
pub const NOTE_CHARS_MAX: usize = 2_000;

/// Tags of one recording.
pub const TAGS_MAX: usize = 30;

/// Characters of a tag: some words.
pub const TAG_CHARS_MAX: usize = 50;

/// The sealed value's name.
const COLUMN: &str = "annotations";

/// Who added something, as they were then. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Which user; none for the operator and for tokens that are nobody's.
    pub user: Option<Uuid>,
    /// Their name, see [`Caller::name`].
    pub name: String,
    /// Their permission level, which decides who may undo it (requirement C3).
    pub level: Level,
}

impl Author {
    /// The caller, at the level that counts.
    pub fn of(caller: &Caller) -> Self {
        Self { user: caller.user, name: caller.name.clone(), level: caller.rank() }
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Author").field("level", &self.level).finish_non_exhaustive()
    }
}

/// That a recording is kept beyond its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preserved {
    /// By whom.
    pub by: Author,
    /// Since when.
    pub at: Timestamp,
}

/// A note on a recording. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Its id, a UUIDv7.
    pub id: Uuid,
    /// Which moment of the audio it is about, in milliseconds from the recording's start; none: all of it.
    pub at_ms: Option<u64>,
    /// What it says, 1 to [`NOTE_CHARS_MAX`] characters.
    pub text: String,
    /// Who wrote it.
    pub by: Author,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub edited_at: Option<Timestamp>,
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Note").field("id", &self.id).field("by", &self.by).finish_non_exhaustive()
    }
}

/// What people added to a recording. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Annotations {
    /// Whether it is preserved, and by whom.
    pub preserved: Option<Preserved>,
    /// Notes, the oldest first.
    pub notes: Vec<Note>,
    /// Tags, as [`tag`] makes them.
    pub tags: BTreeSet<String>,
}

impl Annotations {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.preserved.is_none() && self.notes.is_empty() && self.tags.is_empty()
    }
}

impl fmt::Debug for Annotations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Annotations")
            .field("preserved", &self.preserved)
            .field("notes", &self.notes)
            .field("tags", &self.tags.len())
            .finish()
    }
}

/// A tag as it is kept: without blanks around it, in small letters, so that it is one tag however it is typed. `None` where it is none: it
/// is empty, too long, or holds a comma or what is not to be seen.
pub fn tag(text: &str) -> Option<String> {
    let tag = text.trim().to_lowercase();
    let is_fit = |c: char| !c.is_control() && c != ',';
    (!tag.is_empty() && tag.chars().count() <= TAG_CHARS_MAX && tag.chars().all(is_fit)).then_some(tag)
}

/// A note's text as it is kept, or `None` where it is none: it is empty, too long, or holds control characters other than ends of lines and
/// tabulators.
pub fn note_text(text: &str) -> Option<String> {
    let text = text.trim();
    let is_fit = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    (!text.is_empty() && text.chars().count() <= NOTE_CHARS_MAX && text.chars().all(is_fit)).then(|| text.to_owned())
}

impl Catalogue {
    /// Changes what was added to a recording, with the entry of the audit log that says so. `change` sees what is there now, while nobody
    /// else changes it, and may refuse: then nothing is changed. `None`: there is no such recording.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`]; [`CatalogueError::TooLarge`]; disk errors.
    pub fn annotate<E>(
        &self,
        id: Uuid,
        entry: &Entry,
        change: impl FnOnce(&mut Annotations) -> Result<(), E>,
    ) -> Result<Option<Result<Annotations, E>>, CatalogueError> {
        let what = CatalogueError::sql("change what was added to a recording");
        let Writer { db, rng } = &mut *self.writer();
        let transaction = schema::write(db).map_err(&what)?;
        if state_of(&transaction, id).map_err(&what)?.is_none() {
            return Ok(None);
        }
        let before = read(&transaction, &self.sealing, id)?;
        let mut now = before.clone();
        if let Err(refused) = change(&mut now) {
            return Ok(Some(Err(refused)));
        }
        put(&transaction, &self.sealing, &mut **rng, id, &now)?;
        self.auditing.append(&transaction, &mut **rng, entry)?;
        transaction.commit().map_err(&what)?;
        self.reindex(db, id);
        Ok(Some(Ok(now)))
    }
}

/// What was added to a recording.
pub(crate) fn read(db: &Connection, sealing: &Sealing, id: Uuid) -> Result<Annotations, CatalogueError> {
    let what = CatalogueError::sql("read what was added to a recording");
    let mut statement = db.prepare_cached("SELECT sealed FROM annotations WHERE recording_id = ?1").map_err(&what)?;
    let sealed: Option<Vec<u8>> = statement.query_row([id.to_string()], |row| row.get(0)).optional().map_err(&what)?;
    let Some(sealed) = sealed else { return Ok(Annotations::default()) };
    let json = sealing.open_column(id, COLUMN, &sealed)?;
    serde_json::from_slice(&json).map_err(|_| CatalogueError::Damaged { id, column: COLUMN })
}

pub(crate) fn put(
    db: &Connection,
    sealing: &Sealing,
    rng: &mut dyn rand::CryptoRng,
    id: Uuid,
    annotations: &Annotations,
) -> Result<(), CatalogueError> {
    let what = CatalogueError::sql("keep what was added to a recording");
    if annotations.is_empty() {
        return remove(db, &id.to_string()).map_err(&what);
    }
    let json = serde_json::to_vec(annotations).expect("texts and plain values always make JSON");
    let sealed = sealing.seal(rng, id, COLUMN, &json)?;
    let sql = "INSERT INTO annotations (recording_id, preserved, sealed) VALUES (?1, ?2, ?3) \
               ON CONFLICT (recording_id) DO UPDATE SET preserved = excluded.preserved, sealed = excluded.sealed";
    let values = (id.to_string(), i64::from(annotations.preserved.is_some()), sealed);
    db.execute(sql, values).map(drop).map_err(&what)
}

/// The recording is gone, and with it what was added.
pub(crate) fn remove(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM annotations WHERE recording_id = ?1", [id]).map(drop)
}

use std::{io, path::PathBuf};

use callvault_seal::SealError;
use uuid::Uuid;

/// Why the catalogue refused or failed. The texts fit after "failed to …" and never hold personal data.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A newer version migrated the file.
    #[error("open the catalogue {}: it is at version {found}, this callvaultd knows up to {known}; install the newer version again", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The highest version known.
        known: i64,
    },
    /// The file is a database of something else.
    #[error("open the catalogue {}: this is another program's database, or its beginning is damaged; give another data_dir, or run `callvaultctl recover`, which sets it aside and makes a catalogue from store and journal", .0.display())]
    Foreign(PathBuf),
    /// The catalogue's data key does not open.
    #[error("open the catalogue's key: {0}")]
    Key(#[from] SealError),
    /// A stored value is not what was stored.
    #[error(
        "read {column} of {id}: it was changed or damaged; stop callvaultd and run `callvaultctl recover`, which rebuilds it from store and journal"
    )]
    Damaged {
        /// The row.
        id: Uuid,
        /// The column.
        column: &'static str,
    },
    /// An entry of `meta` is missing or damaged.
    #[error(
        "open the catalogue: its entry {0} is missing or damaged; restore it from a backup, or run `callvaultctl recover`, which rebuilds it from store and journal"
    )]
    DamagedMeta(&'static str),
    /// A lane or a recording was ingested before, with other lanes or as another recording.
    #[error("ingest recording {id}: lane {lane} of journal {generation} {why}")]
    Conflict {
        /// The recording.
        id: Uuid,
        /// The journal's generation.
        generation: Uuid,
        /// The lane.
        lane: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The archive that is on record is another one.
    #[error("record the archive of {0}: another archive is on record for it already; verify both before removing one")]
    OtherArchive(Uuid),
    /// Facts are too large for a row.
    #[error("ingest recording {id}: its {column} take {bytes} bytes, at most {max} are kept in the catalogue")]
    TooLarge {
        /// The recording.
        id: Uuid,
        /// The column.
        column: &'static str,
        /// Bytes of the facts.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A number or a time does not fit the database's range.
    #[error("store {0}: it is outside of what the catalogue can hold")]
    Range(&'static str),
    /// The cursor is not one that the catalogue gave.
    #[error("list recordings: the cursor is not one that was given out; start again without one")]
    BadCursor,
    /// What should say where the audit log ended does not.
    #[error("check the audit log: what was noted is not a head; it looks like 123:, followed by 64 hexadecimal digits")]
    BadHead,
    /// There are as many tokens as there may be.
    #[error("keep a token: there are {max} already, which is the limit", max = crate::TOKENS_MAX)]
    TooManyTokens,
    /// What was deleted is still in the file, because somebody reads an earlier state of it.
    #[error(
        "take what was deleted out of the catalogue's file: another program reads it; end that program, or wait for it"
    )]
    StillRead,
    /// A file operation failed.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The database's file is damaged.
    #[error(
        "{what}: {source}; the catalogue is damaged: stop callvaultd and run `callvaultctl recover`, which rebuilds it from store and journal"
    )]
    Corrupt {
        /// What was tried.
        what: &'static str,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// SQLite failed.
    #[error("{what}: {source}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
}

impl CatalogueError {
    pub(crate) fn sql(what: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                Self::Corrupt { what, source }
            }
            _ => Self::Sql { what, source },
        }
    }
}

//! The tables, and everything that is SQLite's own: pragmas, versions, connections.

mod access;
mod archive_keys;
mod discards;
mod library;
mod mails;
mod passwords;
mod stores;
mod users;
mod waveforms;
mod webex;

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior};

use crate::CatalogueError;

mod deliveries;

/// "cvlt": says in the file's header whose it is.
const APPLICATION_ID: i64 = 0x6376_6c74;

/// How long a call waits for another process's lock (a backup, an operator's sqlite3) before it fails.
const BUSY: Duration = Duration::from_secs(10);

/// The write-ahead log is cut back to this size after a checkpoint.
const WAL_BYTES_KEPT: u32 = 32 << 20;

/// Step N makes version N+1 out of version N.
const STEPS: &[&str] = &[
    "
    CREATE TABLE meta (
        name TEXT NOT NULL PRIMARY KEY,
        value BLOB NOT NULL
    );
    CREATE TABLE recordings (
        id TEXT NOT NULL PRIMARY KEY,
        started_at_ms BIGINT NOT NULL,
        ended_at_ms BIGINT NOT NULL,
        duration_ms BIGINT NOT NULL,
        verdict TEXT NOT NULL,
        direction TEXT NOT NULL,
        traffic TEXT NOT NULL,
        owner_id TEXT,
        archive_state TEXT NOT NULL,
        archive_bytes BIGINT,
        archive_store TEXT,
        archive_path TEXT,
        archive_sha256 BLOB,
        archive_error TEXT,
        details BLOB NOT NULL,
        facts BLOB
    );
    CREATE INDEX recordings_by_start ON recordings (started_at_ms, id);
    CREATE INDEX recordings_by_state ON recordings (archive_state, verdict);
    CREATE TABLE journal_lanes (
        generation TEXT NOT NULL,
        lane BIGINT NOT NULL,
        recording_id TEXT NOT NULL,
        segment BIGINT NOT NULL,
        first_file BIGINT NOT NULL,
        last_file BIGINT NOT NULL,
        PRIMARY KEY (generation, lane)
    );
    CREATE INDEX journal_lanes_by_recording ON journal_lanes (recording_id);
    CREATE TABLE owed_jobs (
        id TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL,
        recording_id TEXT NOT NULL,
        payload TEXT NOT NULL,
        owed_at_ms BIGINT NOT NULL
    );
    CREATE TABLE tombstones (
        id TEXT NOT NULL PRIMARY KEY,
        deleted_at_ms BIGINT NOT NULL,
        rule TEXT NOT NULL
    );
",
    "
    CREATE TABLE call_links (
        link BLOB NOT NULL,
        recording_id TEXT NOT NULL,
        PRIMARY KEY (link, recording_id)
    );
    CREATE INDEX call_links_by_recording ON call_links (recording_id);
",
    // What was deleted before owed nothing that was remembered here: each of these is seen to once more.
    "
    ALTER TABLE tombstones ADD COLUMN owes TEXT;
    UPDATE tombstones SET owes = COALESCE(
        (SELECT o.payload FROM owed_jobs o WHERE o.kind = 'delete' AND o.recording_id = tombstones.id), 'null');
    CREATE INDEX tombstones_owing ON tombstones (id) WHERE owes IS NOT NULL;
",
    access::STEP,
    users::STEP,
    discards::STEP,
    deliveries::DELIVERIES,
    mails::MAILS,
    archive_keys::STEP,
    library::STEP,
    stores::STEP,
    passwords::STEP,
    webex::STEP,
    waveforms::STEP,
];

/// Opens and migrates the file.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, CatalogueError> {
    create(path)?;
    let what = CatalogueError::sql("open the catalogue");
    let mut db = Connection::open(path).map_err(&what)?;
    db.busy_timeout(BUSY).map_err(&what)?;
    // before anything is written, or a foreign file would be turned into ours
    check_whose(&db, path)?;
    prepare(&db).map_err(&what)?;
    migrate(&mut db, path)?;
    Ok(db)
}

/// A second connection, which cannot write.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, CatalogueError> {
    let what = CatalogueError::sql("open the catalogue");
    let db = Connection::open(path).map_err(&what)?;
    db.busy_timeout(BUSY).map_err(&what)?;
    prepare(&db).map_err(&what)?;
    db.pragma_update(None, "query_only", true).map_err(&what)?;
    Ok(db)
}

/// Copies the file as it is at one moment.
pub(crate) fn copy(path: &Path, copy: &Path) -> Result<(), CatalogueError> {
    let what = CatalogueError::sql("copy the catalogue");
    // Without the flag that makes a file: there is one, or there is nothing to copy.
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(&what)?;
    db.busy_timeout(BUSY).map_err(&what)?;
    check_whose(&db, path)?;
    db.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map_err(&what)?;
    Ok(())
}

/// A transaction that takes the write lock at once, so that it cannot fail half way for want of it.
pub(crate) fn write(db: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    db.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Writes the log into the file and empties it: after a deletion, so that the log does not keep what the file lost.
pub(crate) fn empty_wal(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map(|busy| busy == 0)
}

/// The same, without waiting for anybody. Says whether it is empty.
pub(crate) fn try_to_empty_wal(db: &Connection) -> bool {
    let emptied = db.busy_timeout(Duration::ZERO).and_then(|()| empty_wal(db));
    db.busy_timeout(BUSY).is_ok() && matches!(emptied, Ok(true))
}

/// SQLite's own check of the file: empty when all is well.
pub(crate) fn check(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare("PRAGMA integrity_check(20)")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

pub(crate) fn meta(db: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

pub(crate) fn set_meta(db: &Connection, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    db.execute(sql, (name, value)).map(drop)
}

/// Makes the file before SQLite does: for its owner only (log and shared memory take the file's mode), its folder synced.
fn create(path: &Path) -> Result<(), CatalogueError> {
    let io = |what| move |source| CatalogueError::Io { what, path: path.to_owned(), source };
    if path.exists() {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io("create"))?;
    file.sync_all().map_err(io("sync"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of"))
}

fn check_whose(db: &Connection, path: &Path) -> Result<(), CatalogueError> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables = || db.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0));
    let what = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => CatalogueError::Foreign(path.to_owned()),
        _ => CatalogueError::sql("open the catalogue")(source),
    };
    let (application, version) = (pragma("application_id").map_err(what)?, pragma("user_version").map_err(what)?);
    let known = known();
    match application {
        APPLICATION_ID if version > known => {
            Err(CatalogueError::Newer { path: path.to_owned(), found: version, known })
        }
        APPLICATION_ID => Ok(()),
        0 if version == 0 && tables().map_err(what)? == 0 => Ok(()),
        _ => Err(CatalogueError::Foreign(path.to_owned())),
    }
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "secure_delete", true)?;
    db.pragma_update(None, "trusted_schema", false)?;
    // sorting never spills rows into a file
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)
}

fn migrate(db: &mut Connection, path: &Path) -> Result<(), CatalogueError> {
    let what = CatalogueError::sql("migrate the catalogue");
    loop {
        let transaction = write(db).map_err(&what)?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&what)?;
        let step = usize::try_from(version).map_err(|_| CatalogueError::Foreign(path.to_owned()))?;
        let Some(step) = STEPS.get(step) else { return Ok(()) };
        transaction.execute_batch(step).map_err(&what)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(&what)?;
        transaction.pragma_update(None, "user_version", version + 1).map_err(&what)?;
        transaction.commit().map_err(&what)?;
    }
}

fn known() -> i64 {
    i64::try_from(STEPS.len()).expect("the steps are few")
}

//! Archives in more than one store, and the pictures of users.

/// The index answers which archives a store has, how many and how large, without a look at the rows. A leaving is a file that is not the
/// one on record, or not yet: written down before it is made, and taken off once it is gone. A picture is sealed, as all of a
/// user is, and apart from the row, which is read whenever the daemon starts.
pub(super) const STEP: &str = "
    CREATE INDEX recordings_by_store ON recordings (archive_store, started_at_ms, id, archive_bytes)
        WHERE archive_store IS NOT NULL;
    CREATE TABLE archive_leavings (
        recording_id TEXT NOT NULL,
        store TEXT NOT NULL,
        path TEXT NOT NULL,
        PRIMARY KEY (recording_id, store, path)
    );
    CREATE TABLE user_pictures (
        user_id TEXT NOT NULL PRIMARY KEY,
        sealed BLOB NOT NULL
    );
";

//! Users, and what was not kept.

/// An e-mail has one row, for ever: who is removed and comes back is who it was.
pub(super) const STEP: &str = "
    CREATE TABLE users (
        id TEXT NOT NULL PRIMARY KEY,
        email_hash BLOB NOT NULL UNIQUE,
        removed_at_ms BIGINT,
        details BLOB NOT NULL
    );
    CREATE TABLE discards (
        id TEXT NOT NULL PRIMARY KEY,
        at_ms BIGINT NOT NULL,
        rule TEXT NOT NULL,
        details BLOB NOT NULL
    );
    CREATE INDEX discards_by_time ON discards (at_ms, id);
";

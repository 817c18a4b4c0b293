//! How far the mail that tells a recording's owner of it has come.

/// One row for each mail that was owed. The recipient is a keyed hash.
pub(super) const MAILS: &str = "
    CREATE TABLE mails (
        recording_id TEXT NOT NULL PRIMARY KEY,
        recipient BLOB,
        step TEXT NOT NULL,
        at_ms BIGINT NOT NULL
    );
    CREATE INDEX mails_by_step ON mails (step);
";

//! What is remembered of Webex.

/// A row of each user who came from Webex: only these may a later synchronisation remove. What happened in each run, the users among it, is
/// sealed; so is a call detail record, whose name is a keyed hash.
pub(super) const STEP: &str = "
    CREATE TABLE webex_people (
        user_id TEXT NOT NULL PRIMARY KEY,
        details BLOB NOT NULL
    );
    CREATE TABLE webex_runs (
        id TEXT NOT NULL PRIMARY KEY,
        at_ms BIGINT NOT NULL,
        details BLOB NOT NULL
    );
    CREATE INDEX webex_runs_by_time ON webex_runs (at_ms, id);
    CREATE TABLE webex_records (
        name BLOB NOT NULL PRIMARY KEY,
        begun_at_ms BIGINT NOT NULL,
        details BLOB NOT NULL
    );
    CREATE INDEX webex_records_by_time ON webex_records (begun_at_ms);
";

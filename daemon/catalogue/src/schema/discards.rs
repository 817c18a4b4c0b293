//! What was not kept.

/// Who called whom is sealed; the rule is one of a few words.
pub(super) const STEP: &str = "
    CREATE TABLE discards (
        id TEXT NOT NULL PRIMARY KEY,
        at_ms BIGINT NOT NULL,
        rule TEXT NOT NULL,
        details BLOB NOT NULL
    );
    CREATE INDEX discards_by_time ON discards (at_ms, id);
";

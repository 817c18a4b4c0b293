//! Tokens and the audit log.

/// The log is only appended to: whoever changes an entry by SQL has to remove the triggers first, and then the chain shows it.
pub(super) const STEP: &str = "
    CREATE TABLE tokens (
        id TEXT NOT NULL PRIMARY KEY,
        hash BLOB UNIQUE,
        details BLOB NOT NULL,
        used_on_day BIGINT
    );
    CREATE TABLE audit (
        number INTEGER NOT NULL PRIMARY KEY,
        at_ms BIGINT NOT NULL,
        sealed BLOB NOT NULL,
        link BLOB NOT NULL
    );
    CREATE INDEX audit_by_time ON audit (at_ms, number);
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
    CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
";

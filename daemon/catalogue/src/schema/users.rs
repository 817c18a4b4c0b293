//! Users.

/// Everything about a user is sealed: an e-mail says who somebody is.
pub(super) const STEP: &str = "
    CREATE TABLE users (
        id TEXT NOT NULL PRIMARY KEY,
        details BLOB NOT NULL
    );
";

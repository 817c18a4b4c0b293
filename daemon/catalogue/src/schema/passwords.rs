//! Passwords of users.

/// What is kept of a password is sealed: to try guesses on a stolen catalogue, its key is needed too.
pub(super) const STEP: &str = "
    CREATE TABLE passwords (
        user_id TEXT NOT NULL PRIMARY KEY,
        sealed BLOB NOT NULL
    );
";

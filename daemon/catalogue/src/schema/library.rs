//! What people add to recordings.

/// Whether a recording is preserved is readable, so that retention passes it over without a key; by whom, the notes and the tags are sealed
/// in one value, which is what counts.
pub(super) const STEP: &str = "
    CREATE TABLE annotations (
        recording_id TEXT NOT NULL PRIMARY KEY,
        preserved BIGINT NOT NULL,
        sealed BLOB NOT NULL
    );
";

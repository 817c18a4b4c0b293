//! Keys of archives that are in the catalogue alone.

/// The keys are sealed to the appliance's public keys; one after the other, in the form that archives have them in.
pub(super) const STEP: &str = "
    CREATE TABLE archive_keys (
        recording_id TEXT NOT NULL PRIMARY KEY,
        keys BLOB NOT NULL
    );
";

//! What a recording looks like.

/// The waveform is sealed: it shows when somebody spoke, and for how long.
pub(super) const STEP: &str = "
    CREATE TABLE waveforms (
        recording_id TEXT NOT NULL PRIMARY KEY,
        peaks BLOB NOT NULL
    );
";

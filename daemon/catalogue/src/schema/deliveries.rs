//! Deliveries to others: what is owed, and how far it got.

/// A row for each recording and sink, from when the delivery is owed. What the other side gave (identifier, URL) is sealed.
pub(super) const DELIVERIES: &str = "
    CREATE TABLE deliveries (
        recording_id TEXT NOT NULL,
        sink TEXT NOT NULL,
        step TEXT NOT NULL,
        progress BLOB,
        error TEXT,
        owed_at_ms BIGINT NOT NULL,
        changed_at_ms BIGINT NOT NULL,
        PRIMARY KEY (recording_id, sink)
    );
    CREATE INDEX deliveries_open ON deliveries (sink, owed_at_ms) WHERE step <> 'delivered';
";

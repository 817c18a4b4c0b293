//! Between rows and recordings: the sealed columns' JSON is a form of its own, with a version of its own in the sealing.
//!
//! Old reader, new data: unknown fields are ignored. New reader, old data: missing fields have defaults.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Archive, ArchiveState, CatalogueError, Direction, Flaw, Recording, Track, Traffic, Verdict, sealing::Sealing,
};

/// Sealed column with what lists show.
pub(crate) const DETAILS: &str = "details";
/// Sealed column with the raw facts.
pub(crate) const FACTS: &str = "facts";

/// The columns that [`StoredRow::read`] expects, in its order.
pub(crate) const COLUMNS: &str = "id, started_at_ms, ended_at_ms, duration_ms, verdict, direction, traffic, archive_state, \
     archive_bytes, archive_store, archive_path, archive_sha256, archive_error, details";

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Details {
    owner: Option<String>,
    owner_id: Option<Uuid>,
    owner_name: Option<String>,
    matched_by: Option<String>,
    local_number: Option<String>,
    local_name: Option<String>,
    remote_number: Option<String>,
    remote_name: Option<String>,
    call_id: Option<String>,
    tracking_id: Option<String>,
    tracks: Vec<StoredTrack>,
    flaws: Vec<Flaw>,
}

/// [`Track`] with what its JSON leaves out.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredTrack {
    #[serde(flatten)]
    track: Track,
    local: bool,
}

impl Details {
    pub(crate) fn json(recording: &Recording) -> Vec<u8> {
        let details = Self {
            owner: recording.owner.clone(),
            owner_id: recording.owner_id,
            owner_name: recording.owner_name.clone(),
            matched_by: recording.matched_by.clone(),
            local_number: recording.local_number.clone(),
            local_name: recording.local_name.clone(),
            remote_number: recording.remote_number.clone(),
            remote_name: recording.remote_name.clone(),
            call_id: recording.call_id.clone(),
            tracking_id: recording.tracking_id.clone(),
            tracks: recording
                .tracks
                .iter()
                .map(|track| StoredTrack { local: track.local, track: track.clone() })
                .collect(),
            flaws: recording.flaws.clone(),
        };
        serde_json::to_vec(&details).expect("text keys and plain values always make JSON")
    }
}

/// A row as SQL gave it, nothing opened yet: so that statements end before work begins.
pub(crate) struct StoredRow {
    pub(crate) id: Uuid,
    pub(crate) started_at_ms: i64,
    ended_at_ms: i64,
    duration_ms: i64,
    words: [String; 4],
    archive: StoredArchive,
    details: Vec<u8>,
}

struct StoredArchive {
    bytes: Option<i64>,
    store: Option<String>,
    path: Option<String>,
    sha256: Option<Vec<u8>>,
    error: Option<String>,
}

impl StoredRow {
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: uuid(row, 0)?,
            started_at_ms: row.get(1)?,
            ended_at_ms: row.get(2)?,
            duration_ms: row.get(3)?,
            words: [row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?],
            archive: StoredArchive {
                bytes: row.get(8)?,
                store: row.get(9)?,
                path: row.get(10)?,
                sha256: row.get(11)?,
                error: row.get(12)?,
            },
            details: row.get(13)?,
        })
    }

    pub(crate) fn open(self, sealing: &Sealing) -> Result<Recording, CatalogueError> {
        let id = self.id;
        let json = sealing.open_column(id, DETAILS, &self.details)?;
        let details: Details =
            serde_json::from_slice(&json).map_err(|_| CatalogueError::Damaged { id, column: DETAILS })?;
        let [verdict, direction, traffic, state] = &self.words;
        let StoredArchive { bytes, store, path, sha256, error } = self.archive;
        let unsigned = |value: i64, column| u64::try_from(value).map_err(|_| CatalogueError::Damaged { id, column });
        let archive = Archive {
            state: word::<ArchiveState>(id, "archive_state", state)?,
            bytes: bytes.map(|bytes| unsigned(bytes, "archive_bytes")).transpose()?,
            store,
            path,
            sha256: sha256
                .map(|sum| sum.try_into().map_err(|_| CatalogueError::Damaged { id, column: "archive_sha256" }))
                .transpose()?,
            error,
        };
        Ok(Recording {
            id,
            verdict: word::<Verdict>(id, "verdict", verdict)?,
            started_at: time(id, "started_at_ms", self.started_at_ms)?,
            ended_at: time(id, "ended_at_ms", self.ended_at_ms)?,
            duration_ms: unsigned(self.duration_ms, "duration_ms")?,
            owner: details.owner,
            owner_id: details.owner_id,
            owner_name: details.owner_name,
            matched_by: details.matched_by,
            direction: word::<Direction>(id, "direction", direction)?,
            local_number: details.local_number,
            local_name: details.local_name,
            remote_number: details.remote_number,
            remote_name: details.remote_name,
            traffic: word::<Traffic>(id, "traffic", traffic)?,
            call_id: details.call_id,
            tracks: details.tracks.into_iter().map(|stored| Track { local: stored.local, ..stored.track }).collect(),
            flaws: details.flaws,
            archive,
            linked: Vec::new(),
            annotations: crate::Annotations::default(),
            tracking_id: details.tracking_id,
            facts: serde_json::Value::Null,
        })
    }
}

/// A UUID that is stored as text.
pub(crate) fn uuid(row: &Row<'_>, index: usize) -> rusqlite::Result<Uuid> {
    let text: String = row.get(index)?;
    Uuid::try_parse(&text).map_err(|source| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(source))
    })
}

/// A small number that is stored as BIGINT.
pub(crate) fn small(row: &Row<'_>, index: usize) -> rusqlite::Result<u32> {
    let value: i64 = row.get(index)?;
    u32::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, value))
}

fn word<T: FromStr>(id: Uuid, column: &'static str, text: &str) -> Result<T, CatalogueError> {
    text.parse().map_err(|_| CatalogueError::Damaged { id, column })
}

fn time(id: Uuid, column: &'static str, ms: i64) -> Result<Timestamp, CatalogueError> {
    Timestamp::from_millisecond(ms).map_err(|_| CatalogueError::Damaged { id, column })
}

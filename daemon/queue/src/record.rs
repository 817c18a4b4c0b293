//! A job as it is stored: one version byte, then JSON.
//!
//! Old reader, new data: unknown JSON fields are ignored within version 1; a change that an old reader would misunderstand
//! takes a new version byte, which an old reader refuses by name. New reader, old data: fields added later have defaults.

use serde::{Deserialize, Serialize};

use crate::{Job, JobId, QueueError, State};

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct RecordV1<'a> {
    #[serde(flatten)]
    state: State,
    priority: u8,
    created_unix_ms: u64,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    failures: u32,
    #[serde(default)]
    interruptions: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    payload: std::borrow::Cow<'a, serde_json::Value>,
}

/// Why a stored job cannot be used.
pub(crate) enum Unreadable {
    /// Of a newer version: the queue must not be opened.
    Newer(u8),
    /// Not a job: it is left alone and reported.
    Damaged,
}

impl Unreadable {
    pub(crate) fn newer(version: u8, key: &[u8]) -> QueueError {
        QueueError::Newer { id: String::from_utf8_lossy(key).into_owned(), version, known: VERSION }
    }
}

pub(crate) fn encode(job: &Job) -> Vec<u8> {
    let record = RecordV1 {
        state: job.state.clone(),
        priority: job.priority,
        created_unix_ms: job.created_unix_ms,
        attempts: job.attempts,
        failures: job.failures,
        interruptions: job.interruptions,
        last_error: job.last_error.as_deref().map(Into::into),
        payload: std::borrow::Cow::Borrowed(&job.payload),
    };
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, &record).expect("writing JSON with text keys into memory cannot fail");
    bytes
}

pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Job, Unreadable> {
    let id: JobId = std::str::from_utf8(key).ok().and_then(|text| text.parse().ok()).ok_or(Unreadable::Damaged)?;
    let (kind, recording) = id.parts().map_err(|_| Unreadable::Damaged)?;
    let json = match value.split_first() {
        Some((&VERSION, json)) => json,
        Some((&version, _)) if version > VERSION => return Err(Unreadable::Newer(version)),
        _ => return Err(Unreadable::Damaged),
    };
    let record: RecordV1<'_> = serde_json::from_slice(json).map_err(|_| Unreadable::Damaged)?;
    Ok(Job {
        id,
        kind,
        recording,
        state: record.state,
        priority: record.priority,
        created_unix_ms: record.created_unix_ms,
        attempts: record.attempts,
        failures: record.failures,
        interruptions: record.interruptions,
        last_error: record.last_error.map(std::borrow::Cow::into_owned),
        payload: record.payload.into_owned(),
    })
}

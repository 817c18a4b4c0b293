//! What people add to recordings, as it is asked.

use std::fmt;

use serde::Deserialize;
use uuid::Uuid;

use crate::{
    ApiError,
    route::{json_in, uuid_of},
};

/// A change of what people add to a recording. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq)]
pub enum Annotate {
    /// Keep it beyond its time. The same twice is the same as once.
    Preserve,
    /// Let it go with its time.
    Release,
    /// Write a note, on a moment of the audio or on all of it.
    AddNote {
        /// What it says.
        text: String,
        /// Milliseconds from the recording's start.
        at_ms: Option<u64>,
    },
    /// Change what a note says.
    EditNote {
        /// The note.
        note: Uuid,
        /// What it says from now on.
        text: String,
    },
    /// Delete a note.
    DeleteNote(Uuid),
    /// Add a tag. The same twice is the same as once.
    AddTag(String),
    /// Take a tag away. One that is not there is no error.
    RemoveTag(String),
}

impl fmt::Debug for Annotate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preserve => "Preserve",
            Self::Release => "Release",
            Self::AddNote { .. } => "AddNote",
            Self::EditNote { .. } => "EditNote",
            Self::DeleteNote(_) => "DeleteNote",
            Self::AddTag(_) => "AddTag",
            Self::RemoveTag(_) => "RemoveTag",
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNote {
    text: String,
    at_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
}

/// What is asked of the part of a recording that `rest` names; `None` where there is no such part.
pub(crate) fn annotate(method: &str, rest: &[&str], body: &[u8]) -> Option<Result<Annotate, ApiError>> {
    Some(match (rest, method) {
        (["preserve"], "PUT") => Ok(Annotate::Preserve),
        (["preserve"], "DELETE") => Ok(Annotate::Release),
        (["preserve"], _) => Err(ApiError::method("PUT, DELETE")),
        (["notes"], "POST") => json_in(body).map(|NewNote { text, at_ms }: NewNote| Annotate::AddNote { text, at_ms }),
        (["notes"], _) => Err(ApiError::method("POST")),
        (["notes", note], "PATCH") => uuid_of(note).and_then(|note| {
            let Text { text } = json_in(body)?;
            Ok(Annotate::EditNote { note, text })
        }),
        (["notes", note], "DELETE") => uuid_of(note).map(Annotate::DeleteNote),
        (["notes", _], _) => Err(ApiError::method("PATCH, DELETE")),
        (["tags", tag], "PUT") => Ok(Annotate::AddTag((*tag).to_owned())),
        (["tags", tag], "DELETE") => Ok(Annotate::RemoveTag((*tag).to_owned())),
        (["tags", _], _) => Err(ApiError::method("PUT, DELETE")),
        _ => return None,
    })
}

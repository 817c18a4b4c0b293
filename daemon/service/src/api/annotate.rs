//! What people add to recordings: preserving, notes, tags.

use callvault_access::{Action, Caller, Level, On, Refusal, decide};
use callvault_catalogue::{
    Annotations, Author, NOTE_CHARS_MAX, NOTES_MAX, Note, Preserved, TAG_CHARS_MAX, TAGS_MAX, note_text, tag,
};
use callvault_http::{Annotate, Answer, ApiError, ErrorKind};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::{Control, internal, not_found};

/// Why nothing was changed.
enum Stop {
    /// They may not.
    Refused(Refusal),
    /// It cannot be done.
    Cannot(ApiError),
}

/// The change in the form in which it is kept.
fn kept(change: &Annotate) -> Result<Annotate, ApiError> {
    let bad = |text: String| ApiError::new(ErrorKind::BadRequest, text);
    let text = |text: &str| {
        note_text(text).ok_or_else(|| bad(format!("\"text\" is a note of 1 to {NOTE_CHARS_MAX} characters")))
    };
    let tag = |text: &str| {
        tag(text).ok_or_else(|| bad(format!("a tag is 1 to {TAG_CHARS_MAX} characters, none of them a comma")))
    };
    Ok(match change {
        Annotate::AddNote { text: said, at_ms } => Annotate::AddNote { text: text(said)?, at_ms: *at_ms },
        Annotate::EditNote { note, text: said } => Annotate::EditNote { note: *note, text: text(said)? },
        Annotate::AddTag(said) => Annotate::AddTag(tag(said)?),
        Annotate::RemoveTag(said) => Annotate::RemoveTag(tag(said)?),
        other => other.clone(),
    })
}

fn action(change: &Annotate) -> Action {
    match change {
        Annotate::Preserve => Action::Preserve,
        Annotate::Release => Action::Unpreserve,
        Annotate::AddNote { .. } => Action::NoteAdd,
        Annotate::EditNote { .. } => Action::NoteEdit,
        Annotate::DeleteNote(_) => Action::NoteDelete,
        Annotate::AddTag(_) | Annotate::RemoveTag(_) => Action::Tag,
    }
}

impl Control {
    /// Decides and changes in one transaction, so that what decides cannot have changed in between.
    pub(super) fn change_annotations(&self, caller: &Caller, id: Uuid, change: &Annotate) -> Answer {
        let row = self.seen(caller, action(change), id)?;
        let (action, settings) = (action(change), self.0.access.permissions());
        let entry = self.0.entry(caller, action).on(id);
        // Whose it is comes first: who may not see it learns nothing about notes and tags.
        let seen = match action {
            Action::NoteEdit | Action::NoteDelete => Action::NoteAdd,
            other => other,
        };
        self.0.owned(&row, |owned| self.0.allow(caller, seen, On::One(owned), &entry))?;
        if *change == Annotate::Preserve && !self.0.retention.allows_preserving() {
            // A mark that does nothing now would do something once the rule is another, when nobody thinks of it any more.
            let text = "preserving is off, because everything is kept (retention.rule is \"keep-all\"); it is on with every other rule, which an administrator sets in the configuration";
            return Err(ApiError::new(ErrorKind::Conflict, text));
        }
        let change = kept(change)?;
        let now = Timestamp::now();
        let new_note = Uuid::now_v7();
        let entry = match &change {
            Annotate::AddNote { .. } => entry.with("note", new_note.to_string()),
            Annotate::EditNote { note, .. } | Annotate::DeleteNote(note) => entry.with("note", note.to_string()),
            Annotate::AddTag(tag) => entry.with("added", tag),
            Annotate::RemoveTag(tag) => entry.with("removed", tag),
            Annotate::Preserve | Annotate::Release => entry,
        };
        let done = self.0.catalogue.annotate(id, &entry, |annotations| {
            let preserved_by = annotations.preserved.as_ref().map(|preserved| preserved.by.level);
            let written_by = note_level(annotations, &change).map_err(Stop::Cannot)?;
            self.0
                .owned(&row, |owned| {
                    let owned = callvault_access::Owned { preserved_by, ..owned };
                    let on = written_by.map_or(On::One(owned), |level| On::Note(owned, level));
                    decide(caller, action, on, &settings)
                })
                .map_err(Stop::Refused)?;
            apply(annotations, change, caller, new_note, now).map_err(Stop::Cannot)
        });
        match done.map_err(internal)?.ok_or_else(|| not_found(id))? {
            Ok(annotations) => Ok(json!({
                "id": id, "preserved": annotations.preserved, "notes": annotations.notes, "tags": annotations.tags,
            })),
            Err(Stop::Refused(refusal)) => {
                // It is refused either way.
                let _ = self.0.audit(&entry.refused(&refusal));
                Err(ApiError::new(ErrorKind::Forbidden, refusal.to_string()))
            }
            Err(Stop::Cannot(error)) => Err(error),
        }
    }
}

/// The level of who wrote the note that is to be changed; none where it is about no note that is there already.
fn note_level(annotations: &Annotations, change: &Annotate) -> Result<Option<Level>, ApiError> {
    let (Annotate::EditNote { note, .. } | Annotate::DeleteNote(note)) = change else { return Ok(None) };
    match annotations.notes.iter().find(|known| known.id == *note) {
        Some(found) => Ok(Some(found.by.level)),
        None => Err(ApiError::new(
            ErrorKind::NotFound,
            format!("this recording has no note {note}; `callvaultctl recordings show` shows its notes"),
        )),
    }
}

fn apply(
    annotations: &mut Annotations,
    change: Annotate,
    caller: &Caller,
    new_note: Uuid,
    now: Timestamp,
) -> Result<(), ApiError> {
    let full = |what: &str, max: usize| {
        let text = format!("a recording has at most {max} {what}, and this one has as many; delete one first");
        Err(ApiError::new(ErrorKind::Conflict, text))
    };
    let by = Author::of(caller);
    match change {
        // What somebody of a higher level preserved stays theirs to release.
        Annotate::Preserve => match &annotations.preserved {
            Some(preserved) if preserved.by.level >= by.level => {}
            _ => annotations.preserved = Some(Preserved { by, at: now }),
        },
        Annotate::Release => annotations.preserved = None,
        Annotate::AddNote { .. } if annotations.notes.len() >= NOTES_MAX => return full("notes", NOTES_MAX),
        Annotate::AddNote { text, at_ms } => {
            annotations.notes.push(Note { id: new_note, at_ms, text, by, created_at: now, edited_at: None });
        }
        Annotate::EditNote { note, text } => {
            // It is as hard to change again as for the one who changed it last.
            for known in annotations.notes.iter_mut().filter(|known| known.id == note) {
                known.text.clone_from(&text);
                known.edited_at = Some(now);
                known.by.level = known.by.level.max(by.level);
            }
        }
        Annotate::DeleteNote(note) => annotations.notes.retain(|known| known.id != note),
        Annotate::AddTag(tag) if annotations.tags.len() >= TAGS_MAX && !annotations.tags.contains(&tag) => {
            return full("tags", TAGS_MAX);
        }
        Annotate::AddTag(tag) => annotations.tags.extend([tag]),
        Annotate::RemoveTag(tag) => annotations.tags.retain(|known| *known != tag),
    }
    Ok(())
}

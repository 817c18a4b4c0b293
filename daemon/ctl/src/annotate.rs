//! What people add to recordings: preserving, notes, tags.

use serde_json::{Value, json};

use crate::cli::{NoteVerb, Recordings, TagVerb};
use crate::client::{Method, Request, escaped};
use crate::error::{CtlError, Exit};
use crate::format::{duration, text, time};
use crate::table::harmless;
use crate::verbs::Session;

/// Runs a verb that changes what is added to a recording; `None`: it is another verb.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Recordings) -> Option<Result<Exit, CtlError>> {
    let request = |method, id: &str, rest: &str, what: &str| {
        Request::new(method, format!("/v1/recordings/{id}/{rest}"), format!("{what} {id}"))
    };
    Some(match verb {
        Recordings::Preserve { id } => {
            change(session, &request(Method::Put, id, "preserve", "preserve the recording"), "it is preserved")
        }
        Recordings::Release { id } => {
            change(session, &request(Method::Delete, id, "preserve", "release the recording"), "it goes with its time")
        }
        Recordings::Note { verb: NoteVerb::Add { id, text, at_ms } } => {
            let body = json!({"text": text, "at_ms": at_ms});
            let request = request(Method::Post, id, "notes", "write a note on the recording").with_body(&body);
            change(session, &request, "the note is written")
        }
        Recordings::Note { verb: NoteVerb::Edit { id, note, text } } => {
            let rest = format!("notes/{note}");
            let request = request(Method::Patch, id, &rest, "change a note on the recording");
            change(session, &request.with_body(&json!({"text": text})), "the note is changed")
        }
        Recordings::Note { verb: NoteVerb::Delete { id, note } } => {
            let rest = format!("notes/{note}");
            change(
                session,
                &request(Method::Delete, id, &rest, "delete a note on the recording"),
                "the note is deleted",
            )
        }
        Recordings::Tag { verb: TagVerb::Add { id, tag } } => {
            let rest = format!("tags/{}", escaped(tag));
            change(session, &request(Method::Put, id, &rest, "tag the recording"), "it has the tag")
        }
        Recordings::Tag { verb: TagVerb::Remove { id, tag } } => {
            let rest = format!("tags/{}", escaped(tag));
            change(session, &request(Method::Delete, id, &rest, "take a tag from the recording"), "the tag is gone")
        }
        _ => return None,
    })
}

fn change(session: &mut Session<'_, '_>, request: &Request, done: &str) -> Result<Exit, CtlError> {
    let answer = session.client.json(request)?;
    if !session.printed_json(&answer)? {
        session.say(done)?;
        show(session, &answer)?;
    }
    Ok(Exit::Done)
}

/// What people added to a recording.
pub(crate) fn show(session: &mut Session<'_, '_>, recording: &Value) -> Result<(), CtlError> {
    let preserved = &recording["preserved"];
    if !preserved.is_null() {
        let by = &preserved["by"];
        let at = time(&preserved["at"], &session.around.zone);
        session.say(&harmless(&format!("preserved: by {} ({}), {at}", text(&by["name"]), text(&by["level"]))))?;
    }
    let tags: Vec<&str> = recording["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !tags.is_empty() {
        session.say(&harmless(&format!("tags: {}", tags.join(", "))))?;
    }
    for note in recording["notes"].as_array().into_iter().flatten() {
        let at = if note["at_ms"].is_null() { String::new() } else { format!(" at {}", duration(&note["at_ms"])) };
        let (id, by, level) = (text(&note["id"]), text(&note["by"]["name"]), text(&note["by"]["level"]));
        session.say(&harmless(&format!("note {id}{at}, by {by} ({level}): {}", text(&note["text"]))))?;
    }
    Ok(())
}

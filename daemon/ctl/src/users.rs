//! Users: imports, lists, changes.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::cli::{ImportUsers, SyncUsers, Users};
use crate::client::{Method, Request, escaped};
use crate::error::{CtlError, Exit};
use crate::format::{text, time};
use crate::table::{Table, harmless, write_pairs};
use crate::verbs::{Session, rows};

/// Largest file of users that is sent.
const FILE_BYTES_MAX: u64 = 24 << 20;

/// Largest picture that is sent; the appliance may allow less.
const PICTURE_BYTES_MAX: u64 = 700 << 10;

/// Changes shown of an import; the rest is counted.
const CHANGES_SHOWN: usize = 50;

/// Runs a verb on the users.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Users) -> Result<Exit, CtlError> {
    match verb {
        Users::Import(import) => self::import(session, import),
        Users::Sync(sync) => synchronise(session, sync),
        Users::List => list(session),
        Users::Unmatched => unmatched(session),
        Users::Show { email, picture: Some(file) } => save_picture(session, email, file),
        Users::Show { email, picture: None } => {
            let user = session.client.json(&Request::get(path(email), "show the user"))?;
            show(session, &user)
        }
        Users::Set { email, fields, picture, no_picture } => {
            let user = set(session, email, fields)?;
            let with_picture = match picture {
                Some(file) => {
                    let body = json!({"base64": STANDARD.encode(bytes_of(file, PICTURE_BYTES_MAX)?)});
                    let request = Request::new(Method::Put, picture_path(email), "set the user's picture");
                    Some(session.client.json(&request.with_body(&body))?)
                }
                None if *no_picture => {
                    let request = Request::new(Method::Delete, picture_path(email), "remove the user's picture");
                    Some(session.client.json(&request)?)
                }
                None => None,
            };
            show(session, &with_picture.or(user).unwrap_or_default())
        }
        Users::Remove { email } => {
            let user = session.client.json(&Request::new(Method::Delete, path(email), "remove the user"))?;
            if !session.printed_json(&user)? {
                session.say(&harmless(&format!("{} is removed; the recordings stay", text(&user["webex_email"]))))?;
            }
            Ok(Exit::Done)
        }
    }
}

/// Sets the fields, where any are named.
fn set(session: &Session<'_, '_>, email: &str, fields: &[(String, String)]) -> Result<Option<Value>, CtlError> {
    if fields.is_empty() {
        return Ok(None);
    }
    let body: Map<String, Value> = fields.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let request = Request::new(Method::Put, path(email), "set the user's fields");
    session.client.json(&request.with_body(&Value::Object(body))).map(Some)
}

fn picture_path(email: &str) -> String {
    format!("{}/picture", path(email))
}

fn save_picture(session: &mut Session<'_, '_>, email: &str, file: &Path) -> Result<Exit, CtlError> {
    let what = "show the user's picture";
    let answer = session.client.json(&Request::get(picture_path(email), what))?;
    let failed = |reason: String| CtlError::File { what: format!("write {}", file.display()), reason };
    let bytes = STANDARD.decode(text(&answer["base64"])).map_err(|error| failed(error.to_string()))?;
    std::fs::write(file, bytes).map_err(|error| failed(error.to_string()))?;
    let about = json!({"type": answer["type"], "bytes": answer["bytes"], "file": file.display().to_string()});
    if !session.printed_json(&about)? {
        session.say(&format!("{}: {}, {} bytes", file.display(), text(&answer["type"]), text(&answer["bytes"])))?;
    }
    Ok(Exit::Done)
}

fn path(email: &str) -> String {
    format!("/v1/users/{}", escaped(email))
}

/// What is in a file of at most so many bytes.
fn bytes_of(file: &Path, most: u64) -> Result<Vec<u8>, CtlError> {
    let failed = |reason: String| CtlError::File { what: format!("read {}", file.display()), reason };
    let bytes = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
    if bytes > most {
        return Err(failed(format!("it has {bytes} bytes, and {most} are the most that is sent")));
    }
    std::fs::read(file).map_err(|error| failed(error.to_string()))
}

fn read(file: &Path) -> Result<String, CtlError> {
    let failed = |reason: String| CtlError::File { what: format!("read {}", file.display()), reason };
    String::from_utf8(bytes_of(file, FILE_BYTES_MAX)?).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        failed(format!("line {line} is not UTF-8; save the file as UTF-8"))
    })
}

fn import(session: &mut Session<'_, '_>, import: &ImportUsers) -> Result<Exit, CtlError> {
    let content = read(&import.file)?;
    let name = import.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let body = json!({
        "name": name, "content": content, "dry_run": import.dry_run, "remove_missing": import.remove_missing,
        "confirm": import.confirm,
    });
    let request = Request::new(Method::Post, "/v1/users/import", "import the users").with_body(&body).long();
    let answer = session.client.json(&request)?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    changes(session, &answer, import.dry_run)?;
    Ok(Exit::Done)
}

/// How often it is looked whether a synchronisation has ended.
const LOOK: Duration = Duration::from_millis(500);

/// Looks after which nobody waits any more: a day.
const LOOKS_MAX: usize = 2 * 86_400;

fn synchronise(session: &mut Session<'_, '_>, sync: &SyncUsers) -> Result<Exit, CtlError> {
    const WHAT: &str = "synchronise the users";
    if sync.history {
        return history(session);
    }
    let body = json!({"dry_run": sync.dry_run, "confirm": sync.confirm});
    let begun = session.client.json(&Request::new(Method::Post, "/v1/users/sync", WHAT).with_body(&body))?;
    for _ in 0..LOOKS_MAX {
        let answer = session.client.json(&Request::get("/v1/users/sync", WHAT))?;
        let is_told = rows(&answer, "runs", WHAT)?.iter().any(|run| run["id"] == begun["id"]);
        // Pictures come after everything else, and are told of too.
        let is_over = answer["running_since"].is_null() && answer["waiting"] != true;
        if !is_over {
            std::thread::sleep(LOOK);
            continue;
        }
        if !is_told {
            break;
        }
        let run = &session.client.json(&Request::get(format!("/v1/users/sync/{}", text(&begun["id"])), WHAT))?;
        let exit = if run["outcome"] == "done" { Exit::Done } else { Exit::Failed };
        if session.printed_json(run)? {
            return Ok(exit);
        }
        if exit == Exit::Failed {
            session.say(&harmless(&format!("nothing was changed: {}", text(&run["error"]))))?;
            return Ok(exit);
        }
        changes(session, run, sync.dry_run)?;
        for (what, field) in [("left out", "left_out"), ("values not taken", "values_not_taken")] {
            for (reason, count) in run[field].as_object().into_iter().flatten() {
                session.say(&harmless(&format!("{what}: {}, {reason}", text(count))))?;
            }
        }
        for (reason, count) in run["pictures"]["not_taken"].as_object().into_iter().flatten() {
            session.say(&harmless(&format!("pictures not taken: {}, {reason}", text(count))))?;
        }
        if !run["would_be_refused"].is_null() {
            session.say(&harmless(&format!(
                "without --confirm it would be refused: {}",
                text(&run["would_be_refused"])
            )))?;
        }
        return Ok(exit);
    }
    let message = "it ended without a report, as the daemon was restarted or could not write it; try again".to_owned();
    Err(CtlError::Refused { what: WHAT.to_owned(), message })
}

fn history(session: &mut Session<'_, '_>) -> Result<Exit, CtlError> {
    const WHAT: &str = "list the synchronisations";
    let answer = session.client.json(&Request::get("/v1/users/sync", WHAT))?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["ENDED", "OUTCOME", "DRY", ">ADDED", ">CHANGED", ">REMOVED", "ERROR"]);
    for run in rows(&answer, "runs", WHAT)? {
        table.row([
            time(&run["ended_at"], &session.around.zone),
            text(&run["outcome"]),
            text(&run["dry_run"]),
            text(&run["added"]),
            text(&run["changed"]),
            text(&run["removed"]),
            text(&run["error"]),
        ]);
    }
    session.write_table(
        &table,
        "users were never synchronised; `callvaultctl users sync --dry-run` shows what would be done",
    )?;
    Ok(Exit::Done)
}

fn unmatched(session: &mut Session<'_, '_>) -> Result<Exit, CtlError> {
    const WHAT: &str = "list who is on one side alone";
    let answer = session.client.json(&Request::get("/v1/users/unmatched", WHAT))?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    if answer["synchronised_at"].is_null() {
        session.say("users were never synchronised with Webex, so it is not known whom it records")?;
    } else {
        let mut unknown = Table::new(&["RECORDED AT WEBEX", "NAME", "KIND", "NO USER HERE BECAUSE"]);
        for one in rows(&answer, "unknown", WHAT)? {
            unknown.row([text(&one["address"]), text(&one["name"]), text(&one["kind"]), text(&one["reason"])]);
        }
        session.write_table(&unknown, "everybody whom Webex records for this appliance is a user")?;
        let mut unrecorded = Table::new(&["USER", "NO CALLS BECAUSE"]);
        for one in rows(&answer, "unrecorded", WHAT)? {
            unrecorded.row([text(&one["webex_email"]), text(&one["reason"])]);
        }
        session.write_table(&unrecorded, "Webex records every user")?;
    }
    let mut sessions = Table::new(&["CALLS OF NOBODY", "NAME", ">KEPT", ">DISCARDED", "LAST"]);
    for one in rows(&answer, "sessions", WHAT)? {
        sessions.row([
            text(&one["number"]),
            text(&one["name"]),
            text(&one["kept"]),
            text(&one["discarded"]),
            time(&one["last_at"], &session.around.zone),
        ]);
    }
    session.write_table(&sessions, "every call of the last seven days belongs to a user")?;
    Ok(Exit::Done)
}

/// Tells what was changed, or would be.
fn changes(session: &mut Session<'_, '_>, answer: &Value, is_dry_run: bool) -> Result<(), CtlError> {
    let changes = rows(answer, "changes", "read what changed")?;
    let mut table = Table::new(&["CHANGE", "USER", "FIELDS"]);
    for change in changes.iter().take(CHANGES_SHOWN) {
        let fields: Vec<String> = change["fields"].as_array().into_iter().flatten().map(text).collect();
        table.row([text(&change["change"]), text(&change["webex_email"]), fields.join(", ")]);
    }
    session.write_table(&table, "nothing changes")?;
    if changes.len() > CHANGES_SHOWN {
        session.say(&format!("… and {} more; --json has them all", changes.len() - CHANGES_SHOWN))?;
    }
    let number = |name: &str| answer[name].as_u64().unwrap_or(0);
    let (added, changed, removed) = (number("added"), number("changed"), number("removed"));
    let tense = if is_dry_run { "would be" } else { "were" };
    let unchanged = number("unchanged");
    session.say(&format!("{added} {tense} added, {changed} changed, {removed} removed; {unchanged} stay as they are"))
}

fn list(session: &mut Session<'_, '_>) -> Result<Exit, CtlError> {
    let answer = session.client.json(&Request::get("/v1/users", "list the users"))?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["USER", "NAME", "NUMBER", "GROUP", "LEVEL", "MODE", "MAIL"]);
    for user in rows(&answer, "users", "list the users")? {
        let mail = match (user["notify"].as_str(), user["attach"].as_str()) {
            (Some("yes"), Some("yes")) => "with audio",
            (Some("yes"), _) => "yes",
            _ => "-",
        };
        table.row([
            text(&user["webex_email"]),
            text(&user["name"]),
            text(&user["first_extension"]),
            text(&user["group"]),
            text(&user["level"]),
            text(&user["recording_mode"]),
            mail.to_owned(),
        ]);
    }
    session.write_table(&table, "there are no users; `callvaultctl users import FILE` takes them from a file")?;
    Ok(Exit::Done)
}

fn show(session: &mut Session<'_, '_>, user: &Value) -> Result<Exit, CtlError> {
    if session.printed_json(user)? {
        return Ok(Exit::Done);
    }
    let fields = user.as_object().into_iter().flatten();
    let mut pairs: Vec<(&str, String)> = fields
        .filter(|(name, value)| !value.is_null() && value.as_str() != Some("") && *name != "removed_at")
        .map(|(name, value)| (name.as_str(), text(value)))
        .collect();
    if !user["removed_at"].is_null() {
        pairs.push(("removed_at", time(&user["removed_at"], &session.around.zone)));
    }
    write_pairs(session.around.stdout, &pairs)?;
    Ok(Exit::Done)
}

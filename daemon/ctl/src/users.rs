//! Users, and the calls that were not kept.

use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::{Discards, Users};
use crate::client::{Method, Request, escaped, with_query};
use crate::error::{CtlError, Exit};
use crate::format::{NOTHING, text, time};
use crate::table::{Table, harmless, write_pairs};
use crate::verbs::{Session, rows};

/// Bytes of a file of users; the daemon takes no more.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Runs a verb on the users.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Users) -> Result<Exit, CtlError> {
    match verb {
        Users::Import { file, dry_run, remove_missing, remove_many } => {
            import(session, file, [*dry_run, *remove_missing, *remove_many])
        }
        Users::List { removed } => list(session, *removed),
        Users::Show { email } => {
            let user = session.client.json(&Request::get(path(email), "show the user"))?;
            show(session, &user)
        }
        Users::Set { email, values } => {
            let body: Map<String, Value> = values.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            let request = Request::new(Method::Put, path(email), "change the user").with_body(&Value::Object(body));
            let user = session.client.json(&request)?;
            if session.printed_json(&user)? {
                return Ok(Exit::Done);
            }
            let changed: Vec<String> = user["changed"].as_array().into_iter().flatten().map(text).collect();
            let changed = if changed.is_empty() { "nothing".to_owned() } else { changed.join(", ") };
            session.say(&harmless(&format!("{}: changed {changed}", text(&user["webex_email"]))))?;
            Ok(Exit::Done)
        }
        Users::Remove { email } => {
            let user = session.client.json(&Request::new(Method::Delete, path(email), "remove the user"))?;
            if !session.printed_json(&user)? {
                let line = format!("{} is removed; the recordings stay", text(&user["webex_email"]));
                session.say(&harmless(&line))?;
            }
            Ok(Exit::Done)
        }
    }
}

fn path(email: &str) -> String {
    format!("/v1/users/{}", escaped(email))
}

fn import(session: &mut Session<'_, '_>, file: &Path, flags: [bool; 3]) -> Result<Exit, CtlError> {
    let what = "import the users";
    let refused = |message: String| CtlError::Refused { what: what.to_owned(), message };
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| refused(format!("read {}: {error}", file.display())))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(format!("{} has more than 32 MiB, which no file of users has", file.display())));
    }
    let is_toml = file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml"));
    let yes = |is_so: bool| is_so.then(|| "yes".to_owned());
    let [dry_run, remove_missing, remove_many] = flags;
    let parameters = [
        ("form", Some(if is_toml { "toml" } else { "csv" }.to_owned())),
        ("dry_run", yes(dry_run)),
        ("remove_missing", yes(remove_missing)),
        ("remove_many", yes(remove_many)),
    ];
    let request = Request::new(Method::Post, with_query("/v1/users/import", &parameters), what).with_file(bytes);
    let done = session.client.json(&request.long())?;
    if session.printed_json(&done)? {
        return Ok(Exit::Done);
    }
    for (word, name) in [("+", "added"), ("~", "changed"), ("-", "removed")] {
        for user in done[name].as_array().into_iter().flatten() {
            let fields: Vec<String> = user["fields"].as_array().into_iter().flatten().map(text).collect();
            let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
            session.say(&harmless(&format!("{word} {}{fields}", text(&user["email"]))))?;
        }
    }
    let count = |name: &str| done[name].as_array().map_or(0, Vec::len);
    let (added, changed, removed) = (count("added"), count("changed"), count("removed"));
    let unchanged = text(&done["unchanged"]);
    let mood = if dry_run { "would be " } else { "" };
    session.say(&format!(
        "{mood}added {added}, {mood}changed {changed}, {mood}removed {removed}, unchanged {unchanged}"
    ))?;
    Ok(Exit::Done)
}

fn list(session: &mut Session<'_, '_>, removed: bool) -> Result<Exit, CtlError> {
    let path = with_query("/v1/users", &[("removed", removed.then(|| "yes".to_owned()))]);
    let answer = session.client.json(&Request::get(path, "list the users"))?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["EMAIL", "NAME", "NUMBER", "GROUP", "LEVEL", "RECORDING", "REMOVED"]);
    for user in rows(&answer, "users", "list the users")? {
        let zone = &session.around.zone;
        let name = [&user["first_name"], &user["last_name"]].map(|name| name.as_str().unwrap_or_default()).join(" ");
        let recording = match user["catch_all"] {
            Value::Bool(true) => "catch-all".to_owned(),
            _ => text(&user["recording_mode"]),
        };
        table.row([
            text(&user["webex_email"]),
            if name.trim().is_empty() { NOTHING.to_owned() } else { name.trim().to_owned() },
            text(&user["first_extension"]),
            text(&user["group"]),
            text(&user["level"]),
            recording,
            time(&user["removed_at"], zone),
        ]);
    }
    session.write_table(&table, "no user is known; `callvaultctl users import FILE` brings them")?;
    Ok(Exit::Done)
}

fn show(session: &mut Session<'_, '_>, user: &Value) -> Result<Exit, CtlError> {
    if session.printed_json(user)? {
        return Ok(Exit::Done);
    }
    let shown = |value: &Value| match value {
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join("; "),
        value => text(value),
    };
    let fields = user.as_object().into_iter().flatten();
    let pairs: Vec<(&str, String)> = fields.map(|(name, value)| (name.as_str(), shown(value))).collect();
    write_pairs(session.around.stdout, &pairs)?;
    Ok(Exit::Done)
}

/// Lists calls that were not kept.
pub(crate) fn discards(session: &mut Session<'_, '_>, verb: &Discards) -> Result<Exit, CtlError> {
    let Discards::List { rule, limit } = verb;
    let path = with_query("/v1/discards", &[("rule", rule.clone()), ("limit", Some(limit.to_string()))]);
    let answer = session.client.json(&Request::get(path, "list the calls not kept"))?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["AT", "RULE", "OWNER", "DIRECTION", "TRAFFIC", "LOCAL", "REMOTE", "ID"]);
    for one in rows(&answer, "discards", "list the calls not kept")? {
        table.row([
            time(&one["at"], &session.around.zone),
            text(&one["rule"]),
            text(&one["owner"]),
            text(&one["direction"]),
            text(&one["traffic"]),
            text(&one["local_number"]),
            text(&one["remote_number"]),
            text(&one["id"]),
        ]);
    }
    session
        .write_table(&table, "no call that was not kept is noted; filters.discards_kept says for how long they are")?;
    Ok(Exit::Done)
}

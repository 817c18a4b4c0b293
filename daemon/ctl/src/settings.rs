//! `settings`: what is in force in the daemon, and where it was set.

use serde_json::{Value, json};

use crate::cli::Settings;
use crate::client::Request;
use crate::error::{CtlError, Exit};
use crate::format::text;
use crate::table::{Table, harmless, write_pairs};
use crate::verbs::{Session, rows};

/// Runs a verb on the settings.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Settings) -> Result<Exit, CtlError> {
    let Settings::Show { key } = verb;
    let answer = session.client.json(&Request::get("/v1/settings", "ask for the settings"))?;
    let all = rows(&answer, "settings", "ask for the settings")?;
    let wanted: Vec<&Value> = all.iter().filter(|entry| key.as_deref().is_none_or(|key| is_in(entry, key))).collect();
    if let (true, Some(key)) = (wanted.is_empty(), key) {
        let text = format!(
            "show the setting {}: there is no such key or section; `callvaultctl settings show` lists all",
            harmless(key)
        );
        return Err(CtlError::Usage(text));
    }
    if session.printed_json(&json!({"settings": wanted, "refused": answer["refused"]}))? {
        return Ok(Exit::Done);
    }
    match (key, wanted.as_slice()) {
        (Some(key), [one]) if one["key"] == key.as_str() => show_one(session, one)?,
        _ => show_all(session, &wanted)?,
    }
    if let Some(refused) = answer["refused"].as_str() {
        session.say(&format!("\n{}", harmless(refused)))?;
    }
    Ok(Exit::Done)
}

/// Whether the entry is this key, or of this section.
fn is_in(entry: &Value, key: &str) -> bool {
    let name = entry["key"].as_str().unwrap_or_default();
    name == key || name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
}

fn show_one(session: &mut Session<'_, '_>, entry: &Value) -> Result<(), CtlError> {
    let mut pairs = vec![
        ("key", text(&entry["key"])),
        ("value", text(&entry["value"])),
        ("set in", text(&entry["origin"])),
        ("default", text(&entry["default"])),
        ("a change takes effect", when(entry)),
    ];
    if let Some(waiting) = entry["waiting"].as_object() {
        pairs.push(("waits for a restart", format!("{} ({})", text(&waiting["value"]), text(&waiting["origin"]))));
    }
    Ok(write_pairs(session.around.stdout, &pairs)?)
}

fn show_all(session: &mut Session<'_, '_>, entries: &[&Value]) -> Result<(), CtlError> {
    let mut table = Table::new(&["KEY", "VALUE", "SET IN", "CHANGES", "WAITS FOR A RESTART"]);
    for entry in entries {
        let [key, value, origin] = ["key", "value", "origin"].map(|name| text(&entry[name]));
        table.row([key, value, origin, when(entry), text(&entry["waiting"]["value"])]);
    }
    Ok(table.write(session.around.stdout)?)
}

fn when(entry: &Value) -> String {
    if entry["takes_effect"] == "restart" { "with a restart".to_owned() } else { text(&entry["takes_effect"]) }
}

//! `store`: where archives are, and moving them.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::StoreVerb;
use crate::client::{Method, Request};
use crate::error::{CtlError, Exit};
use crate::format::{NOTHING, size, text, time};
use crate::table::{Table, harmless, write_pairs};
use crate::verbs::{Session, rows};

/// Between two looks at a move.
const LOOK: Duration = Duration::from_secs(2);

/// Bytes of a megabyte, as disks and networks count them.
const MEGABYTE: u64 = 1_000_000;

/// Runs a verb on the stores.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &StoreVerb) -> Result<Exit, CtlError> {
    match verb {
        StoreVerb::Status => {
            let status = status(session)?;
            show(session, &status)
        }
        StoreVerb::Migrate { to, rate, dry_run, wait } => {
            let rate = rate.map_or(0, |megabytes| u64::from(megabytes) * MEGABYTE);
            let body = json!({"to": to, "rate_bytes_per_s": rate, "dry_run": dry_run});
            let request = Request::new(Method::Post, "/v1/store/migrate", "move the archives").with_body(&body).long();
            let answer = session.client.json(&request)?;
            if *dry_run {
                return show_plan(session, &answer);
            }
            if *wait {
                return wait_for_end(session);
            }
            if !session.printed_json(&answer)? {
                let left = text(&answer["move"]["left"]);
                session.say(&format!(
                    "new archives go to {} from now on, and {left} follow; `callvaultctl store status` shows how far that is",
                    harmless(to)
                ))?;
                remark(session, &answer)?;
            }
            Ok(Exit::Done)
        }
    }
}

fn status(session: &Session<'_, '_>) -> Result<Value, CtlError> {
    session.client.json(&Request::get("/v1/store", "ask how the stores are").long())
}

fn show(session: &mut Session<'_, '_>, status: &Value) -> Result<Exit, CtlError> {
    if session.printed_json(status)? {
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["", "NAME", "ARCHIVES", "SIZE", "FREE", "STATE", "FOLDER"]);
    for store in rows(status, "stores", "ask how the stores are")? {
        let mark = if store["current"] == true { "*" } else { " " };
        let free = if store["free_bytes"].is_null() { NOTHING.to_owned() } else { size(&store["free_bytes"]) };
        let cells = [text(&store["name"]), text(&store["archives"]), size(&store["bytes"]), free];
        let last = [text(&store["state"]), text(&store["path"])];
        table.row(std::iter::once(mark.to_owned()).chain(cells).chain(last));
    }
    table.write(session.around.stdout)?;
    show_move(session, status)?;
    remark(session, status)?;
    Ok(Exit::Done)
}

fn show_move(session: &mut Session<'_, '_>, status: &Value) -> Result<(), CtlError> {
    let moving = &status["move"];
    if !moving.is_object() {
        return Ok(());
    }
    let rate = match moving["rate_bytes_per_s"].as_u64() {
        Some(rate) if rate > 0 => format!("{} MB/s at most", rate / MEGABYTE),
        _ => "as fast as it goes".to_owned(),
    };
    let pairs = [
        ("moving to", text(&moving["to"])),
        ("since", time(&moving["begun_at"], &session.around.zone)),
        ("left", format!("{} archives, {}", text(&moving["left"]), size(&moving["left_bytes"]))),
        ("rate", rate),
        ("trouble", harmless(&text(&moving["trouble"]))),
    ];
    writeln!(session.around.stdout)?;
    write_pairs(session.around.stdout, &pairs)?;
    for one in moving["failed"].as_array().into_iter().flatten() {
        let line = format!("{}: {}", text(&one["id"]), harmless(&text(&one["why"])));
        session.say(&line)?;
    }
    Ok(())
}

fn remark(session: &mut Session<'_, '_>, status: &Value) -> Result<(), CtlError> {
    match status["remark"].as_str() {
        Some(remark) => Ok(session.say(&harmless(remark))?),
        None => Ok(()),
    }
}

fn show_plan(session: &mut Session<'_, '_>, answer: &Value) -> Result<Exit, CtlError> {
    let plan = &answer["plan"];
    let exit = if plan["fits"] == false { Exit::Failed } else { Exit::Done };
    if session.printed_json(answer)? {
        return Ok(exit);
    }
    let fits = match plan["fits"].as_bool() {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    };
    let pairs = [
        ("to", text(&plan["to"])),
        ("archives", text(&plan["archives"])),
        ("size", size(&plan["bytes"])),
        ("free there", size(&plan["free_bytes"])),
        ("fits", fits.to_owned()),
        ("seconds at least", text(&plan["at_least_s"])),
    ];
    write_pairs(session.around.stdout, &pairs)?;
    Ok(exit)
}

fn wait_for_end(session: &mut Session<'_, '_>) -> Result<Exit, CtlError> {
    let mut told = None;
    loop {
        let status = status(session)?;
        let moving = &status["move"];
        if !moving.is_object() {
            return show(session, &status);
        }
        let line = match moving["trouble"].as_str() {
            Some(trouble) => harmless(trouble),
            None => format!("{} archives are left", text(&moving["left"])),
        };
        if told.as_ref() != Some(&line) {
            writeln!(session.around.stderr, "{line}")?;
            told = Some(line);
        }
        thread::sleep(LOOK);
    }
}

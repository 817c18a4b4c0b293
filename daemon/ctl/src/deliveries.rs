//! `deliveries`: to whom recordings are owed, and sending what was not owed.

use crate::cli::Deliveries;
use crate::client::{Method, Request};
use crate::error::{CtlError, Exit};
use crate::format::{text, time};
use crate::table::{Table, harmless};
use crate::verbs::{Session, rows};

/// Lists the deliveries of one recording, or asks for those of several.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Deliveries) -> Result<Exit, CtlError> {
    match verb {
        Deliveries::List { id } => list(session, id),
        Deliveries::Send { to, ids } => send(session, to, ids),
    }
}

fn list(session: &mut Session<'_, '_>, id: &str) -> Result<Exit, CtlError> {
    const WHAT: &str = "list the deliveries of the recording";
    let answer = session.client.json(&Request::get(format!("/v1/recordings/{id}/deliveries"), WHAT))?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["TO", "STEP", "SINCE", "REMOTE ID", "LAST ERROR"]);
    for one in rows(&answer, "deliveries", WHAT)? {
        let since = time(&one["changed_at"], &session.around.zone);
        table.row([text(&one["sink"]), text(&one["step"]), since, text(&one["remote_id"]), text(&one["error"])]);
    }
    session.write_table(&table, "it is owed to nobody")?;
    Ok(Exit::Done)
}

fn send(session: &mut Session<'_, '_>, to: &str, ids: &[String]) -> Result<Exit, CtlError> {
    for id in ids {
        let path = format!("/v1/recordings/{id}/deliveries/{to}");
        let answer = session.client.json(&Request::new(Method::Post, path, format!("send the recording {id}")))?;
        if !session.printed_json(&answer)? {
            session.say(&harmless(&format!("{id} will be delivered ({})", text(&answer["job"]))))?;
        }
    }
    Ok(Exit::Done)
}

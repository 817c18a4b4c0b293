//! Calls that were not kept.

use crate::cli::Discards;
use crate::client::{Request, with_query};
use crate::error::{CtlError, Exit};
use crate::format::{text, time};
use crate::table::Table;
use crate::verbs::{Session, rows};

/// Lists calls that were not kept.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Discards) -> Result<Exit, CtlError> {
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

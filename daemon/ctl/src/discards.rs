//! Calls that were not kept.

use jiff::Timestamp;

use crate::cli::Discards;
use crate::client::{Request, with_query};
use crate::error::{CtlError, Exit};
use crate::format::{parse_time, text, time};
use crate::table::Table;
use crate::verbs::{Session, rows};

/// Lists calls that were not kept.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Discards) -> Result<Exit, CtlError> {
    let Discards::List { rule, from, to, limit } = verb;
    let moment = |text: &Option<String>| {
        let parsed = text.as_ref().map(|text| parse_time(text, &session.around.zone, Timestamp::now()));
        parsed.transpose().map_err(CtlError::Usage)
    };
    let query =
        [("rule", rule.clone()), ("from", moment(from)?), ("to", moment(to)?), ("limit", Some(limit.to_string()))];
    let path = with_query("/v1/discards", &query);
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

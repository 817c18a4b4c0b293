//! The audit log: listed, checked, and written to a file.

use serde_json::Value;

use crate::cli::{Audit, AuditFilter, AuditFormat};
use crate::client::{Request, escaped, with_query};
use crate::error::{CtlError, Exit};
use crate::format::{NOTHING, parse_time, text, time};
use crate::table::{Table, harmless};
use crate::verbs::{Session, rows};

/// Entries asked for at a time when all are wanted.
const PAGE: u32 = 1_000;

/// Pages followed at most: a hundred million entries. A cursor that never ends is a fault of the daemon.
const PAGES_MAX: usize = 100_000;

/// The first line of a CSV file, which other recorders' logs have too.
const CSV_HEAD: &str = "Date,Email,IpAddress,AppName,ActionType,Details";

/// Runs a verb on the audit log.
pub(crate) fn run(session: &mut Session<'_, '_>, verb: &Audit) -> Result<Exit, CtlError> {
    match verb {
        Audit::List { filter, limit, cursor } => list(session, filter, *limit, cursor.as_deref()),
        Audit::Verify { head } => verify(session, head.as_deref()),
        Audit::Export { filter, format } => export(session, filter, *format),
    }
}

/// A page of the log.
fn page(
    session: &Session<'_, '_>,
    filter: &AuditFilter,
    (order, limit): (&str, u32),
    cursor: Option<&str>,
) -> Result<Value, CtlError> {
    let now = jiff::Timestamp::now();
    let moment = |text: &Option<String>| {
        let parsed = text.as_ref().map(|text| parse_time(text, &session.around.zone, now));
        parsed.transpose().map_err(|error| CtlError::Usage(format!("read the audit log: {error}")))
    };
    let parameters = [
        ("from", moment(&filter.from)?),
        ("to", moment(&filter.to)?),
        ("action", filter.action.clone()),
        ("name", filter.name.clone()),
        ("recording", filter.recording.clone()),
        ("outcome", filter.outcome.clone()),
        ("order", Some(order.to_owned())),
        ("limit", Some(limit.to_string())),
        ("cursor", cursor.map(str::to_owned)),
    ];
    session.client.json(&Request::get(with_query("/v1/audit", &parameters), "read the audit log").long())
}

fn list(
    session: &mut Session<'_, '_>,
    filter: &AuditFilter,
    limit: u32,
    cursor: Option<&str>,
) -> Result<Exit, CtlError> {
    let answer = page(session, filter, ("newest", limit), cursor)?;
    if session.printed_json(&answer)? {
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&[">NUMBER", "WHEN", "WHO", "FROM", "ACTION", "OUTCOME", "DETAILS"]);
    for entry in rows(&answer, "entries", "read the audit log")? {
        table.row([
            text(&entry["number"]),
            time(&entry["at"], &session.around.zone),
            text(&entry["name"]),
            text(&entry["from"]),
            text(&entry["action"]),
            text(&entry["outcome"]),
            details(entry),
        ]);
    }
    session.write_table(&table, "no entry fits")?;
    if let Some(cursor) = answer["next"].as_str() {
        writeln!(session.around.stderr, "there are more: add --cursor {}", harmless(cursor))?;
    }
    Ok(Exit::Done)
}

fn verify(session: &mut Session<'_, '_>, head: Option<&str>) -> Result<Exit, CtlError> {
    let path = match head {
        Some(head) => format!("/v1/audit/verify?head={}", escaped(head)),
        None => "/v1/audit/verify".to_owned(),
    };
    let answer = session.client.json(&Request::get(path, "check the audit log").long())?;
    let findings = rows(&answer, "findings", "check the audit log")?;
    let exit = if findings.is_empty() { Exit::Done } else { Exit::Failed };
    if session.printed_json(&answer)? {
        return Ok(exit);
    }
    for finding in findings {
        session.say(&harmless(&format!("entry {}: {}", text(&finding["number"]), text(&finding["text"]))))?;
    }
    let checked = text(&answer["checked"]);
    let line = if findings.is_empty() { "entries, all as they were written" } else { "entries were looked at" };
    session.say(&format!("{checked} {line}"))?;
    session.say(&harmless(&format!("head: {}", text(&answer["head"]))))?;
    if head.is_none() {
        session.say(
            "Note the head somewhere else: `callvaultctl audit verify --head …` shows later that nothing up to here was cut off.",
        )?;
    }
    Ok(exit)
}

/// Oldest first, to standard output, a page at a time: a log may be larger than memory.
fn export(session: &mut Session<'_, '_>, filter: &AuditFilter, format: AuditFormat) -> Result<Exit, CtlError> {
    if format == AuditFormat::Csv {
        session.say(CSV_HEAD)?;
    }
    let (mut cursor, mut damaged) = (None::<String>, 0);
    for _ in 0..PAGES_MAX {
        let answer = page(session, filter, ("oldest", PAGE), cursor.as_deref())?;
        for entry in rows(&answer, "entries", "read the audit log")? {
            match format {
                AuditFormat::Csv => session.say(&csv_line(entry))?,
                // an object a line: it can be read as it comes
                AuditFormat::Json => writeln!(session.around.stdout, "{entry}")?,
            }
        }
        damaged += answer["damaged"].as_array().map_or(0, Vec::len);
        cursor = answer["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if damaged > 0 {
        writeln!(
            session.around.stderr,
            "{damaged} entries cannot be read, because they were changed; `callvaultctl audit verify` shows which"
        )?;
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}

/// What an entry says beside who, what and when: the recording, how it went where it was not allowed, and the rest.
fn details(entry: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(recording) = entry["recording"].as_str() {
        parts.push(format!("recording={recording}"));
    }
    if let Some(outcome) = entry["outcome"].as_str().filter(|outcome| *outcome != "allowed") {
        parts.push(format!("outcome={outcome}"));
    }
    for (name, value) in entry["details"].as_object().into_iter().flatten() {
        parts.push(format!("{name}={}", text(value)));
    }
    parts.join("; ")
}

fn csv_line(entry: &Value) -> String {
    let date = entry["at"]
        .as_str()
        .and_then(|at| at.parse::<jiff::Timestamp>().ok())
        .map_or_else(|| NOTHING.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
    let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let cells = [date, field("name"), field("from"), field("through"), field("action"), details(entry)];
    cells.iter().map(|cell| csv_cell(cell)).collect::<Vec<_>>().join(",")
}

/// A cell (RFC 4180 section 2). One that a spreadsheet would take for a formula begins with an apostrophe: what is in the log came from
/// whoever asked.
pub(crate) fn csv_cell(text: &str) -> String {
    let text = harmless(text);
    let text = if text.starts_with(['=', '+', '-', '@', '\t']) { format!("'{text}") } else { text };
    if text.contains(['"', ',', ';']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_as_other_programs_read_it() {
        let check = |entry: Value, expected: &str| assert_eq!(csv_line(&entry), expected);
        check(
            json!({"at": "2027-03-01T09:08:07.654Z", "name": "ann@example.com", "from": "192.0.2.7", "through": "token",
                "action": "play", "recording": "0190", "outcome": "allowed", "details": {"format": "wav"}}),
            "2027-03-01 09:08:07 +0000 UTC,ann@example.com,192.0.2.7,token,play,\"recording=0190; format=wav\"",
        );
        check(
            json!({"at": "2027-03-01T09:08:07Z", "name": "=cmd()", "from": "unix", "through": "control",
                "action": "search", "outcome": "refused", "details": {"number": "a\"b,c"}}),
            "2027-03-01 09:08:07 +0000 UTC,'=cmd(),unix,control,search,\"outcome=refused; number=a\"\"b,c\"",
        );
    }
}

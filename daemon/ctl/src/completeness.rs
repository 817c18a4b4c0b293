//! Whether every call that Webex's call detail records say was to be recorded is held here.

use std::collections::HashMap;
use std::path::Path;

use callvault_webex::{
    CompletenessSettings, Finding, Held, HeldState, JoinedBy, NumberingPlan, Record, Report, Verdict, join, read_page,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cli::{Completeness, Search};
use crate::client::{Request, with_query};
use crate::error::{CtlError, Exit};
use crate::format::{parse_time, text, time};
use crate::table::{Table, harmless};
use crate::verbs::{Session, rows};

/// Largest file of records that is read: ten thousand records are some thirty megabytes.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// By how much more than the records' time sessions are looked at: calls that began before the first record and last.
const MARGIN_S: i64 = 3600;

/// Findings shown as a table; all of them are in `--csv` and `--json`.
const FINDINGS_SHOWN: usize = 100;

/// Calls that were not kept, at most as many as the daemon tells of at once. Only by what is noted of them can they be found: their rows
/// name nobody.
const DISCARDS_MAX: usize = 1000;

/// The rule of calls on demand that nobody asked for.
const NOT_ASKED_FOR: &str = "on-demand-not-kept";

/// Compares the records in files with what is held.
pub(crate) fn run(session: &mut Session<'_, '_>, parameters: &Completeness) -> Result<Exit, CtlError> {
    if parameters.files.is_empty() {
        return by_itself(session, parameters);
    }
    let (mut records, mut passed_over) = (Vec::new(), 0);
    for file in &parameters.files {
        let (more, passed) = read(file)?;
        records.extend(more);
        passed_over += passed;
    }
    let begun = || records.iter().map(|record| record.begun_at);
    let (Some(first), Some(last)) = (begun().min(), begun().max()) else {
        session.say("there is no record in these files that says when its call was")?;
        return Ok(Exit::Failed);
    };
    let held = held(session, first, last)?;
    let numbers = &session.config.numbers;
    let settings = CompletenessSettings {
        platforms: parameters.platform.clone(),
        plan: NumberingPlan::new(
            &numbers.country_code.0,
            &numbers.national_prefix.0,
            &numbers.international_prefix.0,
            Vec::new(),
        ),
        ..CompletenessSettings::default()
    };
    let mut findings = join(&records, &held, &settings, Timestamp::now());
    // Of sessions before the first record and behind the last the files say nothing.
    findings.retain(|one| one.local_call_id.is_some() || (first..=last).contains(&one.begun_at));
    let report = Report::of(findings);
    let json = json!({
        "sums": report.sums, "by_day": report.by_day, "by_location": report.by_location, "by_user": report.by_user,
        "joined_by": report.joined_by, "records_passed_over": passed_over,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(), "csv": report.csv(),
    });
    print(session, parameters, &json)
}

/// Compares what the appliance has read.
fn by_itself(session: &mut Session<'_, '_>, parameters: &Completeness) -> Result<Exit, CtlError> {
    let moment = |text: &Option<String>| -> Result<Option<String>, CtlError> {
        let parsed = text.as_ref().map(|text| parse_time(text, &session.around.zone, Timestamp::now()));
        parsed.transpose().map_err(CtlError::Usage)
    };
    let query = [
        ("from", moment(&parameters.from)?),
        ("to", moment(&parameters.to)?),
        ("location", parameters.location.clone()),
        ("user", parameters.user.clone()),
    ];
    let path = with_query("/v1/completeness", &query);
    let answer = session.client.json(&Request::get(path, "compare the calls").long())?;
    print(session, parameters, &answer)
}

fn read(file: &Path) -> Result<(Vec<Record>, usize), CtlError> {
    let failed = |reason: String| CtlError::File { what: format!("read {}", file.display()), reason };
    let bytes = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(failed("it is larger than 128 MiB; ask Webex for shorter times".to_owned()));
    }
    let content = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    read_page(&content).map_err(|error| failed(error.to_string()))
}

/// The sessions of that time, kept or not.
fn held(session: &mut Session<'_, '_>, first: Timestamp, last: Timestamp) -> Result<Vec<Held>, CtlError> {
    let margin = SignedDuration::from_secs(MARGIN_S);
    let search = Search {
        from: first.checked_sub(margin).ok().map(|at| at.to_string()),
        to: last.checked_add(margin).ok().map(|at| at.to_string()),
        ..Search::default()
    };
    let found = session.all(&search)?;
    let what = "list the calls not kept";
    let discards_path =
        with_query("/v1/discards", &[("from", search.from.clone()), ("limit", Some(DISCARDS_MAX.to_string()))]);
    let discards = session.client.json(&Request::get(discards_path, what))?;
    if rows(&discards, "discards", what)?.len() >= DISCARDS_MAX {
        writeln!(
            session.around.stderr,
            "of calls that were not kept only the newest {DISCARDS_MAX} are told apart; older ones may be called missing"
        )?;
    }
    let discards: HashMap<&str, &Value> =
        rows(&discards, "discards", what)?.iter().filter_map(|one| Some((one["id"].as_str()?, one))).collect();
    Ok(rows(&found, "recordings", "list the recordings")?.iter().filter_map(|row| one(row, &discards)).collect())
}

fn one(row: &Value, discards: &HashMap<&str, &Value>) -> Option<Held> {
    let id = row["id"].as_str()?;
    let discard = discards.get(id);
    let told = |name: &str| {
        let value = row[name].as_str().or_else(|| discard.and_then(|discard| discard[name].as_str()));
        value.map(str::to_owned)
    };
    let state = match row["verdict"].as_str() {
        Some("discarded") => match rule(row, discard.copied()) {
            rule if rule == NOT_ASKED_FOR => HeldState::NotKept,
            rule => HeldState::Filtered { rule },
        },
        _ => HeldState::Kept,
    };
    // Of a session without audio nothing is there, however long it was.
    let duration_ms = if row["verdict"] == "no-media" { 0 } else { row["duration_ms"].as_i64().unwrap_or(0) };
    Some(Held {
        id: id.parse().ok()?,
        started_at: row["started_at"].as_str()?.parse().ok()?,
        duration_ms,
        call_id: told("call_id"),
        tracking_id: None,
        local_number: told("local_number"),
        remote_number: told("remote_number"),
        state,
    })
}

/// By which rule it was not kept: what is noted of it, else the last word of its flaw.
fn rule(row: &Value, discard: Option<&Value>) -> String {
    let noted = discard.and_then(|discard| discard["rule"].as_str());
    let flaw = || row["flaws"].as_array()?.iter().find_map(|flaw| flaw["text"].as_str()?.split("by the rule ").nth(1));
    noted.or_else(flaw).unwrap_or("unknown").to_owned()
}

fn print(session: &mut Session<'_, '_>, parameters: &Completeness, report: &Value) -> Result<Exit, CtlError> {
    let sum = |name: &str| report["sums"][name].as_u64().unwrap_or(0);
    let is_well = ["missing", "short", "failed-at-webex"].iter().all(|name| sum(name) == 0);
    let exit = if is_well { Exit::Done } else { Exit::Failed };
    if parameters.csv {
        write!(session.around.stdout, "{}", report["csv"].as_str().unwrap_or_default())?;
        return Ok(exit);
    }
    if session.printed_json(report)? {
        return Ok(exit);
    }
    let sums = report["sums"].as_object().into_iter().flatten();
    let sums: Vec<String> = sums.map(|(name, count)| format!("{} {name}", text(count))).collect();
    session.say(&harmless(&format!("calls: {}", sums.join(", "))))?;
    if !report["read_to"].is_null() {
        let read_to = time(&report["read_to"], &session.around.zone);
        session.say(&format!("records are read up to {read_to}"))?;
    }
    if let Some(passed_over @ 1..) = report["records_passed_over"].as_u64() {
        session.say(&format!("records passed over, as they do not say when the call was: {passed_over}"))?;
    }
    let mut table = Table::new(&["VERDICT", "BEGAN", ">SECONDS", ">MISSING", "RULE", "USER", "LOCATION", "RECORDING"]);
    let findings = rows(report, "findings", "compare the calls")?;
    for one in findings.iter().take(FINDINGS_SHOWN) {
        let seconds = |name: &str| one[name].as_i64().map(|ms| (ms / 1000).to_string()).unwrap_or_default();
        table.row([
            text(&one["verdict"]),
            text(&one["begun_at"]),
            seconds("duration_ms"),
            seconds("missing_ms"),
            text(&one["rule"]),
            text(&one["user"]),
            text(&one["location"]),
            text(&one["recordings"][0]),
        ]);
    }
    session.write_table(&table, "every call that was to be recorded is held, or was not kept as wished")?;
    if let Some(more @ 1..) = findings.len().checked_sub(FINDINGS_SHOWN) {
        session.say(&format!("and {more} more: see them all with --csv"))?;
    }
    Ok(exit)
}

fn finding(one: &Finding) -> Value {
    let missing_ms = if let Verdict::Short { missing_ms } = one.verdict { Some(missing_ms) } else { None };
    let rule = if let Verdict::Filtered { rule } = &one.verdict { Some(rule) } else { None };
    json!({
        "verdict": one.verdict.as_str(), "begun_at": one.begun_at.to_string(), "duration_ms": one.duration_ms,
        "missing_ms": missing_ms, "rule": rule, "joined_by": one.joined_by.map(JoinedBy::as_str),
        "recordings": one.recordings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "local_call_id": one.local_call_id, "user": one.user, "location": one.location,
    })
}

//! Comparing call detail records with what is held.

use std::collections::HashMap;

use callvault_catalogue::{CatalogueError, Discard, Filter, LIMIT_MAX, Recording, Verdict as Kept};
use callvault_config::Config;
use callvault_http::{Answer, ApiError, CompletenessQuery, ErrorKind};
use callvault_webex::{
    CompletenessSettings, Finding, Held, HeldState, JoinedBy, NumberingPlan, Record, Report, Verdict, join,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{MISSING_NOTE, locked};
use crate::api::internal;
use crate::appliance::Appliance;

/// By how much more than the time that is asked for sessions and records are looked at: calls that began before it and last.
const MARGIN: SignedDuration = SignedDuration::from_hours(1);

/// What is looked at all the time: a day, and what may still come.
const LOOKED_AT: SignedDuration = SignedDuration::from_hours(24);

/// The longest time that is compared at once.
const SPAN_MAX: SignedDuration = SignedDuration::from_hours(24 * 35);

/// Calls not kept that are told apart.
const DISCARDS_MAX: u32 = 1_000_000;

/// The rule of calls on demand that nobody asked for.
const NOT_ASKED_FOR: &str = "on-demand-not-kept";

/// Compares the last day, and says what is missing.
pub(super) fn look(appliance: &Appliance, settings: &Config) {
    let now = Timestamp::now();
    let from = now.checked_sub(LOOKED_AT).unwrap_or(Timestamp::MIN);
    let query = CompletenessQuery { from: Some(from), to: Some(now), ..CompletenessQuery::default() };
    match report(appliance, settings, &query, from, now) {
        Ok(report) => {
            let [missing, short, failed] = ["missing", "short", "failed-at-webex"].map(|verdict| report.count(verdict));
            if missing + short + failed > 0 {
                let text = format!(
                    "of the calls of the last day that Webex has a record of {missing} are missing here, {short} are too short and of {failed} Webex says that recording failed; `callvaultctl completeness` names them"
                );
                appliance.notes.set(MISSING_NOTE, text);
            } else {
                appliance.notes.clear(MISSING_NOTE);
            }
            *locked(&appliance.webex.compared) = Some((now, report.sums));
        }
        Err(error) => tracing::error!("failed to {error}"),
    }
}

/// `from`, `to`, `read_to`, `sums`, `by_day`, `by_location`, `by_user`, `joined_by`, `findings`, `csv`.
pub(super) fn completeness(appliance: &Appliance, query: &CompletenessQuery) -> Answer {
    let settings = appliance.settings();
    if !settings.webex.records {
        let text = "call detail records are not read: an administrator sets webex.records to true; files from the Control Hub can be compared with `callvaultctl completeness FILE`";
        return Err(ApiError::new(ErrorKind::Conflict, text));
    }
    let to = query.to.unwrap_or_else(Timestamp::now);
    let from = query.from.unwrap_or_else(|| to.checked_sub(LOOKED_AT).unwrap_or(Timestamp::MIN));
    if to.duration_since(from) > SPAN_MAX {
        let text = "at most 35 days are compared at once; ask for a shorter time";
        return Err(ApiError::new(ErrorKind::Unprocessable, text));
    }
    let report = report(appliance, &settings, query, from, to).map_err(internal)?;
    let read_to = appliance.catalogue.webex_read_to().map_err(internal)?;
    Ok(json!({
        "from": from.to_string(), "to": to.to_string(), "read_to": read_to.map(|state| state["to"].clone()),
        "sums": report.sums, "by_day": report.by_day, "by_location": report.by_location, "by_user": report.by_user,
        "joined_by": report.joined_by, "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "csv": report.csv(),
    }))
}

fn report(
    appliance: &Appliance,
    settings: &Config,
    query: &CompletenessQuery,
    from: Timestamp,
    to: Timestamp,
) -> Result<Report, CatalogueError> {
    let numbers = &settings.numbers;
    let compared = CompletenessSettings {
        platforms: settings.webex.platforms.0.clone(),
        tolerance_ms: i64::try_from(settings.webex.tolerance.as_millis()).unwrap_or(i64::MAX),
        plan: NumberingPlan::new(
            &numbers.country_code.0,
            &numbers.national_prefix.0,
            &numbers.international_prefix.0,
            Vec::new(),
        ),
        ..CompletenessSettings::default()
    };
    let mut report = Report::default();
    let (mut begin, now) = (from, Timestamp::now());
    // A day at a time, so that what is in memory does not grow with the time that is asked for.
    while begin < to {
        let end = begin.checked_add(LOOKED_AT).map_or(to, |end| end.min(to));
        report.add(findings(appliance, &compared, query, (begin, end), now)?);
        begin = end;
    }
    Ok(report)
}

/// What is said of the calls that began from the one moment to before the other.
fn findings(
    appliance: &Appliance,
    compared: &CompletenessSettings,
    query: &CompletenessQuery,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
) -> Result<Vec<Finding>, CatalogueError> {
    let wide_from = from.checked_sub(MARGIN).unwrap_or(Timestamp::MIN);
    let wide_to = to.checked_add(MARGIN).unwrap_or(Timestamp::MAX);
    let records = appliance.catalogue.webex_records(wide_from, wide_to)?;
    let records: Vec<Record> = records.into_iter().filter_map(|value| serde_json::from_value(value).ok()).collect();
    let held = held(appliance, wide_from, wide_to)?;
    let mut findings = join(&records, &held, compared, now);
    let is_of = |found: &Option<String>, wanted: &Option<String>| match wanted {
        None => true,
        Some(wanted) => found.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(wanted)),
    };
    findings.retain(|one| {
        (from..to).contains(&one.begun_at) && is_of(&one.location, &query.location) && is_of(&one.user, &query.user)
    });
    Ok(findings)
}

/// The sessions of that time, kept or not.
fn held(appliance: &Appliance, from: Timestamp, to: Timestamp) -> Result<Vec<Held>, CatalogueError> {
    let discards = appliance.catalogue.discards(None, (Some(from), None), DISCARDS_MAX)?;
    let discards: HashMap<Uuid, Discard> = discards.into_iter().map(|one| (one.id, one)).collect();
    let filter = Filter { from: Some(from), to: Some(to), limit: Some(LIMIT_MAX), ..Filter::default() };
    let (mut held, mut cursor) = (Vec::new(), None);
    loop {
        let page = appliance.catalogue.list(&filter, cursor)?;
        held.extend(page.recordings.iter().map(|row| one(row, discards.get(&row.id))));
        cursor = page.next;
        if cursor.is_none() {
            return Ok(held);
        }
    }
}

fn one(row: &Recording, discard: Option<&Discard>) -> Held {
    let state = match row.verdict {
        Kept::Discarded => match rule(row, discard) {
            rule if rule == NOT_ASKED_FOR => HeldState::NotKept,
            rule => HeldState::Filtered { rule },
        },
        _ => HeldState::Kept,
    };
    // Of a session without audio nothing is there, however long it was.
    let is_silent = row.verdict == Kept::NoMedia;
    let or = |own: &Option<String>, noted: Option<&Option<String>>| own.clone().or_else(|| noted.cloned().flatten());
    Held {
        id: row.id,
        started_at: row.started_at,
        duration_ms: if is_silent { 0 } else { i64::try_from(row.duration_ms).unwrap_or(i64::MAX) },
        call_id: or(&row.call_id, discard.map(|discard| &discard.call_id)),
        tracking_id: or(&row.tracking_id, discard.map(|discard| &discard.tracking_id)),
        local_number: or(&row.local_number, discard.map(|discard| &discard.local_number)),
        remote_number: or(&row.remote_number, discard.map(|discard| &discard.remote_number)),
        state,
    }
}

/// By which rule it was not kept: what is noted of it, else the last word of its flaw.
fn rule(row: &Recording, discard: Option<&Discard>) -> String {
    let flaw = || row.flaws.iter().find_map(|flaw| flaw.text.split("by the rule ").nth(1).map(str::to_owned));
    discard.map(|discard| discard.rule.clone()).or_else(flaw).unwrap_or_else(|| "unknown".to_owned())
}

fn finding(one: &Finding) -> Value {
    let missing_ms = if let Verdict::Short { missing_ms } = one.verdict { Some(missing_ms) } else { None };
    let rule = if let Verdict::Filtered { rule } = &one.verdict { Some(rule) } else { None };
    json!({
        "verdict": one.verdict.as_str(), "begun_at": one.begun_at.to_string(), "duration_ms": one.duration_ms,
        "missing_ms": missing_ms, "rule": rule, "joined_by": one.joined_by.map(JoinedBy::as_str),
        "recordings": one.recordings, "local_call_id": one.local_call_id, "user": one.user, "location": one.location,
    })
}

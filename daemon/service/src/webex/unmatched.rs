//! Who is on one side alone: recorded at Webex and unknown here, or a user here whose calls Webex does not send.

use std::collections::{BTreeMap, BTreeSet};

use callvault_catalogue::{CatalogueError, Filter, LIMIT_MAX, Recording};
use callvault_http::Answer;
use callvault_policy::rules;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use super::syncing::{CHANGES_MAX, RUNS_SHOWN, is_done};
use crate::api::internal;
use crate::appliance::Appliance;
use crate::deliveries::is_self_test;

/// Of how long ago sessions are looked at.
const LOOKED_AT: SignedDuration = SignedDuration::from_hours(24 * 7);

/// Calls that are looked at, and numbers that are named.
const CALLS_MAX: u32 = 100_000;
const NUMBERS_MAX: usize = 1_000;

/// The last synchronisation that changed something or found nothing to change, as it reported.
fn last_done(appliance: &Appliance) -> Result<Option<Value>, CatalogueError> {
    // Mostly it is among the last.
    for limit in [RUNS_SHOWN, u32::MAX] {
        if let Some(done) = appliance.catalogue.webex_runs(limit)?.iter().find(|run| is_done(run)) {
            return Ok(appliance.catalogue.webex_run(done.id)?.map(|run| run.report));
        }
    }
    Ok(None)
}

/// `synchronised_at`, `unknown`, `unknown_count`, `unrecorded`, `unrecorded_count`, `sessions_from`, `sessions`.
pub(super) fn unmatched(appliance: &Appliance) -> Answer {
    let report = last_done(appliance).map_err(internal)?.unwrap_or_default();
    let mut unrecorded: Vec<Value> = report["unrecorded"].as_array().cloned().unwrap_or_default();
    let mut unrecorded_count = report["unrecorded_count"].as_u64().unwrap_or(0);
    if !report.is_null() {
        // Who was made by hand or from a file, and whom Webex has not.
        let synchronised = appliance.catalogue.webex_people().map_err(internal)?;
        let directory = appliance.access.people.now();
        let is_here = |user: &Uuid| !synchronised.contains_key(user);
        let users = directory.all().iter().filter(|user| user.removed_at.is_none() && !user.catch_all);
        for user in users.filter(|user| is_here(&user.id)) {
            unrecorded_count += 1;
            if unrecorded.len() < CHANGES_MAX {
                unrecorded.push(json!({"webex_email": user.webex_email, "reason": "Webex has no such user"}));
            }
        }
    }
    let from = Timestamp::now().checked_sub(LOOKED_AT).unwrap_or(Timestamp::MIN);
    Ok(json!({
        "synchronised_at": report["ended_at"], "unknown": report.get("unknown").unwrap_or(&json!([])),
        "unknown_count": report["unknown_count"].as_u64().unwrap_or(0),
        "unrecorded": unrecorded, "unrecorded_count": unrecorded_count,
        "sessions_from": from.to_string(), "sessions": sessions(appliance, from).map_err(internal)?,
    }))
}

/// Calls of a number that no user has.
#[derive(Default)]
struct Calls {
    name: Option<String>,
    kept: u64,
    discarded: u64,
    last_at: Timestamp,
}

/// Calls whose user nobody knows, by number, those with the most calls first: `number`, `name`, `kept`, `discarded`, `last_at`.
fn sessions(appliance: &Appliance, from: Timestamp) -> Result<Vec<Value>, CatalogueError> {
    let mut numbers: BTreeMap<String, Calls> = BTreeMap::new();
    let unknown = appliance.catalogue.discards(Some(rules::UNKNOWN_USER), (Some(from), None), CALLS_MAX)?;
    for call in unknown {
        let calls = numbers.entry(call.local_number.unwrap_or_default()).or_default();
        calls.discarded += 1;
        calls.last_at = calls.last_at.max(call.at);
    }
    let directory = appliance.access.people.now();
    if directory.is_empty() {
        // Then nobody is known, which health says.
        return Ok(Vec::new());
    }
    let catch_all: BTreeSet<Uuid> = directory.all().iter().filter(|user| user.catch_all).map(|user| user.id).collect();
    // Without a catch-all user they are nobody's, for whom there is no index.
    let owners = Some(catch_all).filter(|owners| !owners.is_empty());
    let filter = Filter { from: Some(from), owners, limit: Some(LIMIT_MAX), ..Filter::default() };
    let (mut cursor, mut looked_at) = (None, 0);
    while looked_at < CALLS_MAX as usize {
        let page = appliance.catalogue.list(&filter, cursor)?;
        looked_at += page.recordings.len();
        // Calls that the catch-all user has by a number of its own are not unknown, and self-tests are nobody's.
        let is_unknown = |call: &Recording| {
            let whole = || appliance.catalogue.get(call.id).ok().flatten();
            let is_nobodys = || call.owner_id.is_none() && whole().is_some_and(|call| !is_self_test(&call));
            call.matched_by.as_deref() == Some("catch-all") || is_nobodys()
        };
        for call in page.recordings.into_iter().filter(is_unknown) {
            let calls = numbers.entry(call.local_number.unwrap_or_default()).or_default();
            calls.kept += 1;
            calls.last_at = calls.last_at.max(call.started_at);
            calls.name = calls.name.take().or(call.local_name);
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let mut numbers: Vec<(String, Calls)> = numbers.into_iter().collect();
    numbers.sort_by_key(|(_, calls)| std::cmp::Reverse(calls.kept + calls.discarded));
    numbers.truncate(NUMBERS_MAX);
    let told = |(number, calls): (String, Calls)| {
        json!({
            "number": Some(number).filter(|number| !number.is_empty()), "name": calls.name, "kept": calls.kept,
            "discarded": calls.discarded, "last_at": calls.last_at.to_string(),
        })
    };
    Ok(numbers.into_iter().map(told).collect())
}

//! Synchronising users: everything is asked for, then there is a plan, then guards, then one transaction; pictures come after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use callvault_access::audit::Entry;
use callvault_access::{Action, Caller};
use callvault_catalogue::{Synchronised, WebexPerson, WebexRun};
use callvault_config::Config;
use callvault_directory::User;
use callvault_http::{Answer, ApiError, ErrorKind, SyncWanted};
use callvault_webex::{
    Gathered, Kind, Person, RecordingSettings, SyncError, SyncPlan, SyncSettings, Unknown, last_due, plan,
};
use callvault_webex_client::{Asked, Client, Fault, Known, RECORDING_BELIEVED_S};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{SYNC_NOTE, locked, rules, wants_pictures};
use crate::api::users::{check_licence, in_place};
use crate::appliance::Appliance;

/// Changes that a report names, and entries of its other lists; more are counted.
pub(super) const CHANGES_MAX: usize = 5_000;

/// Runs that are shown.
pub(super) const RUNS_SHOWN: u32 = 20;

/// How long it is waited after a failure before it is tried again, and the longest.
const AGAIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1_800)..=Duration::from_secs(4 * 3_600);

/// A synchronisation that somebody asked for.
pub(super) struct Wanted {
    id: Uuid,
    how: SyncWanted,
    entry: Entry,
}

/// Whose turn it is. One value, so that who waits for a run never finds it in between.
#[derive(Default)]
pub(super) enum Turn {
    #[default]
    Nobody,
    Wanted(Wanted),
    /// Since then. Until its report is kept.
    Running(Timestamp),
}

impl Turn {
    pub(super) fn running_since(&self) -> Option<String> {
        if let Self::Running(since) = self { Some(since.to_string()) } else { None }
    }
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// When the last one that counts ended; none before the catalogue was asked.
    last: Option<Timestamp>,
    failures: u32,
    not_before: Option<Instant>,
}

/// Asks for one: `id` of the run. The thread does it.
pub(super) fn begin(appliance: &Appliance, how: SyncWanted, entry: Entry) -> Answer {
    if !appliance.webex.is_authorised() {
        return Err(ApiError::new(ErrorKind::Conflict, Fault::NotAuthorised.to_string()));
    }
    let id = Uuid::now_v7();
    let mut turn = locked(&appliance.webex.turn);
    if !matches!(*turn, Turn::Nobody) {
        let text = "users are being synchronised already; `callvaultctl webex status` shows since when";
        return Err(ApiError::new(ErrorKind::Conflict, text));
    }
    *turn = Turn::Wanted(Wanted { id, how, entry });
    drop(turn);
    appliance.webex.bell.ring();
    Ok(json!({"id": id}))
}

/// Whether a run did what it was there for.
pub(super) fn is_done(run: &WebexRun) -> bool {
    run.report["dry_run"] == false && run.report["outcome"] == "done"
}

/// The whole report of a run.
pub(super) fn report(appliance: &Appliance, id: Uuid) -> Answer {
    let run = appliance.catalogue.webex_run(id).map_err(crate::api::internal)?;
    let text = "there is no report of such a synchronisation; it may still run, or be older than the last hundred";
    run.map(|run| run.report).ok_or_else(|| ApiError::new(ErrorKind::NotFound, text))
}

/// `running_since`, and `runs`, the newest first, without their lists.
pub(super) fn runs(appliance: &Appliance) -> Answer {
    // The turn first: a run that is over by then has its report in the catalogue.
    let (running_since, is_wanted) = {
        let turn = locked(&appliance.webex.turn);
        (turn.running_since(), matches!(*turn, Turn::Wanted(_)))
    };
    let runs = appliance.catalogue.webex_runs(RUNS_SHOWN).map_err(crate::api::internal)?;
    Ok(json!({
        "running_since": running_since, "waiting": is_wanted,
        "runs": runs.into_iter().map(|run| run.report).collect::<Vec<_>>(),
    }))
}

/// Does what is wanted, or what it is time for.
pub(super) fn look(appliance: &Appliance, settings: &Config, client: &Client, schedule: &mut Schedule) {
    let is_time = is_time(appliance, settings, schedule);
    let began_at = Timestamp::now();
    let asked_for = {
        let mut turn = locked(&appliance.webex.turn);
        if matches!(*turn, Turn::Nobody) && !is_time {
            return;
        }
        std::mem::replace(&mut *turn, Turn::Running(began_at))
    };
    let (id, how, entry) = match asked_for {
        Turn::Wanted(wanted) => (wanted.id, wanted.how, wanted.entry),
        Turn::Nobody | Turn::Running(_) => {
            let entry = appliance.entry(&Caller::appliance("webex"), Action::ChangeUsers).with("webex", "synchronised");
            (Uuid::now_v7(), SyncWanted::default(), entry)
        }
    };
    run(Run { appliance, settings, client, id, how, began_at, asked: Asked::default() }, entry, schedule);
    *locked(&appliance.webex.turn) = Turn::Nobody;
}

fn run(mut run: Run<'_>, entry: Entry, schedule: &mut Schedule) {
    let appliance = run.appliance;
    let done = run.synchronise(entry);
    let counts = &appliance.webex.counts;
    if run.how.is_dry_run {
        if let Err(stopped) = done {
            run.keep_failure(&stopped);
        }
        return;
    }
    counts.syncs.fetch_add(1, Ordering::Relaxed);
    schedule.last = Some(Timestamp::now());
    match done {
        Ok(()) => {
            *schedule = Schedule { last: schedule.last, ..Schedule::default() };
            appliance.notes.clear(SYNC_NOTE);
        }
        Err(Stopped::Fault(Fault::Stopping)) => {}
        Err(stopped) => {
            counts.syncs_failed.fetch_add(1, Ordering::Relaxed);
            appliance.notes.set(SYNC_NOTE, format!("users were not synchronised: {}", stopped.text()));
            run.keep_failure(&stopped);
            if stopped.passes() {
                let pause = AGAIN.start().saturating_mul(1 << schedule.failures.min(5)).min(*AGAIN.end());
                schedule.failures = schedule.failures.saturating_add(1);
                schedule.not_before = Instant::now().checked_add(pause);
            }
        }
    }
}

fn is_time(appliance: &Appliance, settings: &Config, schedule: &mut Schedule) -> bool {
    let Some(at) = settings.webex.sync_time() else { return false };
    if !appliance.webex.is_authorised() {
        return false;
    }
    if let Some(not_before) = schedule.not_before {
        return not_before <= Instant::now();
    }
    let last = *schedule.last.get_or_insert_with(|| {
        let runs = appliance.catalogue.webex_runs(RUNS_SHOWN).unwrap_or_default();
        let at = runs.iter().find(|run| run.report["dry_run"] == false).map(|run| run.at);
        if let Some(done) = runs.iter().find(|run| is_done(run)) {
            appliance.webex.counts.synchronised(done);
        }
        // One that never was waits for its time, so that an administrator can look at it first.
        at.unwrap_or(appliance.webex.started_at)
    });
    let jitter_ms = u64::try_from(settings.webex.sync_jitter.as_millis()).unwrap_or(0);
    let zone = settings.organisation.time_zone.zone();
    let due = last_due(Timestamp::now(), &zone, at, jitter_ms, &settings.webex.client_id);
    due.is_some_and(|due| due > last)
}

/// Why a run changed nothing.
enum Stopped {
    Fault(Fault),
    Guard(SyncError),
    Ours(String),
}

impl Stopped {
    fn text(&self) -> String {
        match self {
            Self::Fault(fault) => fault.to_string(),
            Self::Guard(guard) => guard.to_string(),
            Self::Ours(text) => text.clone(),
        }
    }

    fn outcome(&self) -> &'static str {
        if matches!(self, Self::Guard(_)) { "refused" } else { "failed" }
    }

    /// Whether it may go better by itself in a while.
    fn passes(&self) -> bool {
        match self {
            Self::Fault(fault) => !fault.needs_somebody(),
            Self::Guard(_) => false,
            Self::Ours(_) => true,
        }
    }
}

/// `address`, `name`, `kind`, `reason`.
fn unknown(one: &Unknown) -> Value {
    let kind = match one.kind {
        Kind::Person => "person",
        Kind::Workspace => "workspace",
        Kind::VirtualLine => "virtual-line",
    };
    json!({"address": one.address, "name": one.name, "kind": kind, "reason": one.reason})
}

struct Run<'a> {
    appliance: &'a Appliance,
    settings: &'a Config,
    client: &'a Client,
    id: Uuid,
    how: SyncWanted,
    began_at: Timestamp,
    asked: Asked,
}

impl Run<'_> {
    fn synchronise(&mut self, entry: Entry) -> Result<(), Stopped> {
        let (appliance, settings) = (self.appliance, self.settings);
        let ours = |error: &dyn std::fmt::Display| Stopped::Ours(format!("failed to {error}"));
        let before = appliance.catalogue.webex_people().map_err(|error| ours(&error))?;
        let known = before.values().filter_map(|person| {
            let recording = RecordingSettings { native: person.native.clone()?, mode: person.mode.clone()? };
            let (last_modified, read_at_s) = (person.last_modified.clone(), person.read_at_s);
            Some((person.person_id.clone(), Known { recording, last_modified, read_at_s }))
        });
        let known: BTreeMap<String, Known> = known.collect();
        let access = &appliance.webex.access;
        let (gathered, asked) =
            appliance.with_webex(|outside| self.client.gather(access, outside, &known)).map_err(Stopped::Fault)?;
        self.asked = asked;
        appliance.webex.counts.requests.fetch_add(asked.lists + asked.people, Ordering::Relaxed);

        let _one_at_a_time = appliance.access.changing_users();
        let users: Vec<User> = appliance.access.people.now().all().iter().map(|user| User::clone(user)).collect();
        let synchronised: BTreeSet<Uuid> = before.keys().copied().collect();
        let mut wanted = SyncSettings {
            rules: rules(settings),
            country_code: settings.numbers.country_code.0.clone(),
            calling_only: settings.webex.calling_only,
            locations: settings.webex.locations.0.clone(),
            platforms: settings.webex.platforms.0.clone(),
            confirmed: self.how.is_confirmed,
        };
        let now = Timestamp::now();
        let planned = |wanted: &SyncSettings| plan(&users, &synchronised, &gathered, wanted, now, Uuid::now_v7);
        let (made, guard) = match planned(&wanted) {
            Ok(made) => (made, None),
            // Who only looks is shown what it would be, and that it is not done like this.
            Err(guard @ SyncError::ManyRemoved { .. }) if self.how.is_dry_run => {
                wanted.confirmed = true;
                (planned(&wanted).map_err(Stopped::Guard)?, Some(guard))
            }
            Err(guard) => return Err(Stopped::Guard(guard)),
        };
        check_licence(appliance, &users, &made.plan.clone().into_users())
            .map_err(|error| Stopped::Ours(error.message))?;
        let mut report = self.report(&made, &users, guard);
        let counts = made.plan.counts();
        if self.how.is_dry_run {
            let run = WebexRun { id: self.id, at: Timestamp::now(), report };
            return appliance.catalogue.put_webex_run(&run).map_err(|error| ours(&error));
        }
        let (pictures, ids) = (made.pictures, made.synchronised);
        let changed = made.plan.into_users();
        let people = self.people(&ids, (&users, &changed), &before, &gathered);
        let entry = entry
            .with("added", counts.added.to_string())
            .with("changed", counts.changed.to_string())
            .with("removed", counts.removed.to_string());
        let run = WebexRun { id: self.id, at: Timestamp::now(), report: report.clone() };
        let change = Synchronised { users: &changed, people: &people, run: &run };
        appliance.catalogue.put_synchronised(&change, &entry).map_err(|error| ours(&error))?;
        in_place(appliance, changed, users);
        drop(_one_at_a_time);
        appliance.webex.counts.synchronised(&run);
        tracing::info!(
            added = counts.added,
            changed = counts.changed,
            removed = counts.removed,
            requests = asked.lists + asked.people,
            "users were synchronised with Webex"
        );
        if wants_pictures(settings) {
            report["pictures"] = self.pictures(&pictures, &people);
            let run = WebexRun { id: self.id, at: run.at, report };
            appliance.catalogue.put_webex_run(&run).map_err(|error| ours(&error))?;
        }
        Ok(())
    }

    /// What is remembered of each who comes from Webex.
    fn people(
        &self,
        ids: &BTreeSet<Uuid>,
        (before, changed): (&[User], &[User]),
        known: &BTreeMap<Uuid, WebexPerson>,
        gathered: &Gathered,
    ) -> BTreeMap<Uuid, WebexPerson> {
        let mut people: BTreeMap<String, &Person> = BTreeMap::new();
        for person in &gathered.people {
            // As in the plan: the first with an address is it.
            people.entry(person.address()).or_insert(person);
        }
        let users = before.iter().chain(changed).filter(|user| ids.contains(&user.id));
        let one = |user: &User| {
            let person = people.get(&user.webex_email)?;
            let (was, now_s) = (known.get(&user.id), self.began_at.as_second());
            let recording = gathered.recording.get(&person.id);
            let native = recording.map(|recording| recording.native.clone());
            let mode = recording.map(|recording| recording.mode.clone());
            // What was taken over from before is as old as it was.
            let same = was.filter(|was| (&was.native, &was.mode) == (&native, &mode));
            let same = same.filter(|was| was.last_modified == person.last_modified);
            let is_fresh = |was: &&WebexPerson| now_s.saturating_sub(was.read_at_s) < RECORDING_BELIEVED_S;
            let person = WebexPerson {
                person_id: person.id.clone(),
                native,
                mode,
                last_modified: person.last_modified.clone(),
                read_at_s: same.filter(is_fresh).map_or(now_s, |was| was.read_at_s),
                avatar: was.and_then(|was| was.avatar.clone()),
            };
            Some((user.id, person))
        };
        users.filter_map(one).collect()
    }

    /// Fetches pictures that are others than before; what became of them, in numbers.
    fn pictures(&self, pictures: &[(Uuid, String)], people: &BTreeMap<Uuid, WebexPerson>) -> Value {
        let (appliance, max) = (self.appliance, self.settings.directory.picture_max.0);
        let bytes_max = usize::try_from(max).unwrap_or(usize::MAX);
        let stopping = || appliance.stopping.load(Ordering::Relaxed);
        let (mut taken, mut not_taken) = (0, BTreeMap::<String, u64>::new());
        for (id, url) in pictures {
            let Some(person) = people.get(id).filter(|person| person.avatar.as_ref() != Some(url)) else { continue };
            if stopping() {
                break;
            }
            appliance.webex.counts.requests.fetch_add(1, Ordering::Relaxed);
            let kept = self.client.picture(url, bytes_max, &stopping).and_then(|(_, bytes)| {
                let entry = appliance.entry(&Caller::appliance("webex"), Action::ChangeUsers);
                let entry = entry.with("user", id.to_string()).with("fields", "picture");
                let person = WebexPerson { avatar: Some(url.clone()), ..person.clone() };
                let kept = appliance.catalogue.put_user_picture(*id, Some(&bytes), &entry);
                kept.and_then(|()| appliance.catalogue.put_webex_person(*id, &person))
                    .map_err(|error| error.to_string())
            });
            match kept {
                Ok(()) => taken += 1,
                Err(reason) => *not_taken.entry(reason).or_default() += 1,
            }
        }
        json!({"taken": taken, "not_taken": not_taken})
    }

    /// What is the same in all reports.
    fn head(&self, outcome: &str) -> Map<String, Value> {
        let Value::Object(head) = json!({
            "id": self.id, "began_at": self.began_at.to_string(), "ended_at": Timestamp::now().to_string(),
            "dry_run": self.how.is_dry_run, "outcome": outcome,
            "requests": {"lists": self.asked.lists, "people": self.asked.people},
        }) else {
            return Map::new();
        };
        head
    }

    fn report(&self, made: &SyncPlan, users: &[User], guard: Option<SyncError>) -> Value {
        let mut changes = Vec::new();
        let mut tell = |user: &User, change: &str, fields: &[&str]| {
            if changes.len() < CHANGES_MAX {
                changes.push(json!({"webex_email": user.webex_email, "change": change, "fields": fields}));
            }
        };
        made.plan.removed.iter().for_each(|user| tell(user, "removed", &[]));
        made.plan.added.iter().for_each(|user| tell(user, "added", &[]));
        made.plan.changed.iter().for_each(|(user, fields)| tell(user, "changed", fields));
        let counts = made.plan.counts();
        let all = users.iter().chain(&made.plan.added);
        let emails: BTreeMap<Uuid, &str> = all.map(|user| (user.id, user.webex_email.as_str())).collect();
        let of = |(id, reason): &(Uuid, &str)| json!({"webex_email": emails.get(id), "reason": reason});
        let unrecorded: Vec<Value> = made.unrecorded.iter().take(CHANGES_MAX).map(of).collect();
        let mut report = self.head("done");
        let Value::Object(more) = json!({
            "added": counts.added, "changed": counts.changed, "removed": counts.removed, "unchanged": counts.unchanged,
            "left_out": made.left_out, "values_not_taken": made.not_taken, "changes": changes,
            "would_be_refused": guard.map(|guard| guard.to_string()),
            "unknown_count": made.unknown.len(), "unknown": made.unknown.iter().take(CHANGES_MAX).map(unknown).collect::<Vec<_>>(),
            "unrecorded_count": made.unrecorded.len(), "unrecorded": unrecorded,
        }) else {
            return Value::Object(report);
        };
        report.extend(more);
        Value::Object(report)
    }

    /// Keeps why nothing was changed.
    fn keep_failure(&self, stopped: &Stopped) {
        let mut report = self.head(stopped.outcome());
        report.insert("error".to_owned(), json!(stopped.text()));
        let run = WebexRun { id: self.id, at: Timestamp::now(), report: Value::Object(report) };
        if let Err(error) = self.appliance.catalogue.put_webex_run(&run) {
            tracing::error!("failed to {error}");
        }
    }
}

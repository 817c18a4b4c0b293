//! Retention, applied: a thread that looks every few minutes what is due, and deletes it, or asks first. What is decided by which rule
//! is in `callvault_policy::retention`.
//!
//! What it remembers between two runs, and two starts, is in the catalogue: the rule that is in force, up to when deletions were
//! confirmed, and both clocks as they were when they were last believed. Where that is lost, no rule was in force, and all that is due is
//! asked about.
//!
//! When the journal's disk or the store runs short it looks more often: what is due makes room before calls are refused.

mod answers;
mod playing;
mod preview;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use callvault_access::audit::Entry;
use callvault_access::{Action, Caller};
use callvault_catalogue::{ArchiveState, Catalogue, CatalogueError, Deletion, RETENTION_ROWS_MAX, RetentionRow};
use callvault_config::Config;
use callvault_policy::overload::Rank;
use callvault_policy::retention::{
    AskThresholds, Candidate, ClockFinding, ClockReading, Decision, Period, Permits, Preserving, Question,
    RetentionRule, StoredRule, Tally, clock,
};
use callvault_queue::{Filter as JobFilter, JobId, JobKind, QueueError, State, StateName};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::appliance::{Appliance, Bell};
use crate::headroom::Room;
use crate::ingest::unix_ms;
use crate::log::events;
use crate::overload;
use crate::store::StoreState;
use crate::told::boot_id;
pub(crate) use playing::Playing;
pub(crate) use preview::{Preview, preview};

/// Part under which health shows what is asked.
pub(crate) const ASKS_NOTE: &str = "retention-asks";

/// Part under which health shows that it cannot be done.
pub(crate) const FAILS_NOTE: &str = "retention";

/// How often it is looked whether space runs short.
const SHORT_LOOK: Duration = Duration::from_secs(10);

/// While it does, what is due is deleted so often, unless the interval is shorter.
const SHORT_EVERY: Duration = Duration::from_secs(60);

/// Owed jobs looked at for uploads; the queue has the others.
const OWED_MAX: u32 = 1_000;

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Remembered {
    in_force: Option<StoredRule>,
    confirmed_until: Option<Timestamp>,
    clock: Option<StoredClock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct StoredClock {
    wall: Timestamp,
    boot_ms: i64,
    boot: Uuid,
}

impl StoredClock {
    fn now() -> Self {
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map_or(0, |at| at.tv_sec().saturating_mul(1_000).saturating_add(at.tv_nsec() / 1_000_000));
        Self { wall: Timestamp::now(), boot_ms: since_boot, boot: boot_id() }
    }

    fn reading(self) -> ClockReading {
        ClockReading { wall: self.wall, boot_ms: self.boot_ms, boot: self.boot.as_u128() }
    }
}

/// Something that waits for an answer.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    /// What the answer names.
    token: String,
    kind: &'static str,
    text: String,
    /// Recordings that go with the answer; 0 where it is about the clock.
    recordings: u64,
    /// The rule that was set, and the time up to which the answer holds.
    rule: StoredRule,
    until: Timestamp,
}

/// What happened last.
#[derive(Debug, Clone, Default)]
struct LastRun {
    at: Option<Timestamp>,
    deleted: u64,
    error: Option<String>,
}

/// What retention knows.
#[derive(Debug)]
pub(crate) struct Retention {
    rule: RetentionRule,
    thresholds: AskThresholds,
    wait_for_upload: bool,
    interval: Duration,
    remembered: Mutex<Remembered>,
    asked: Mutex<Option<Asked>>,
    last_run: Mutex<LastRun>,
    /// Recordings that were due when it was last looked.
    due: AtomicU64,
    /// Rung when it is to be looked at once.
    pub(crate) bell: Bell,
    pub(crate) playing: Playing,
}

/// What was found.
struct Look {
    decision: Decision,
    tally: Tally,
    permits: Permits,
    now: Timestamp,
}

/// The rule that the configuration sets.
///
/// # Errors
/// What the configuration has checked before, or a time zone that has gone since.
fn rule_of(config: &Config) -> anyhow::Result<RetentionRule> {
    use callvault_config::RetentionRule as Rule;
    let settings = &config.retention;
    let period = |period: callvault_config::RetentionPeriod| {
        period.to_string().parse::<Period>().map_err(|()| anyhow::anyhow!("use the period {period}"))
    };
    let fixed = |text: &str| text.parse::<Period>().ok();
    let kept = match settings.rule {
        Rule::KeepAll => return Ok(RetentionRule::keep_all()),
        Rule::TwelveMonths => fixed("12 months"),
        Rule::FortyEightMonths => fixed("48 months"),
        Rule::FourHours => fixed("4 hours"),
        Rule::Custom => Some(period(settings.period)?),
    };
    let preserving = match settings.preserved.0 {
        None => Preserving::ForEver,
        Some(longer) => Preserving::Longer(period(longer)?),
    };
    let zone = config.organisation.time_zone.zone();
    Ok(RetentionRule { name: settings.rule.as_str().to_owned(), period: kept, preserving, zone })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Retention {
    /// Reads what was remembered.
    ///
    /// # Errors
    /// The catalogue cannot be read, or the configuration is not to be used.
    pub(crate) fn open(config: &Config, catalogue: &Catalogue) -> anyhow::Result<Self> {
        let remembered = match catalogue.retention_state() {
            Ok(state) => state.and_then(|state| serde_json::from_value(state).ok()).unwrap_or_default(),
            // Then nothing was in force, and everything is asked about.
            Err(CatalogueError::DamagedMeta(_)) => Remembered::default(),
            Err(error) => return Err(error.into()),
        };
        let few = u64::from(config.retention.confirm_few);
        Ok(Self {
            rule: rule_of(config)?,
            thresholds: AskThresholds { few, share_percent: config.retention.confirm_share },
            wait_for_upload: config.retention.wait_for_upload,
            interval: config.retention.interval,
            remembered: Mutex::new(remembered),
            asked: Mutex::default(),
            last_run: Mutex::default(),
            due: AtomicU64::new(0),
            bell: Bell::default(),
            playing: Playing::default(),
        })
    }

    /// When a recording that ended then has to go by the configured rule; none: never.
    pub(crate) fn due_at(&self, ended_at: Timestamp, is_preserved: bool) -> Option<Timestamp> {
        self.rule.due_at(ended_at, is_preserved)
    }

    /// Whether there is anything that preserving would do.
    pub(crate) fn allows_preserving(&self) -> bool {
        self.rule.allows_preserving()
    }

    /// Recordings that are due, and when it was looked last.
    pub(crate) fn figures(&self) -> (u64, Option<Timestamp>) {
        (self.due.load(Ordering::Relaxed), locked(&self.last_run).at)
    }

    /// Changes what is remembered, with an entry in the audit log where there is one.
    fn remember(
        &self,
        catalogue: &Catalogue,
        entry: Option<&Entry>,
        change: impl Fn(&mut Remembered),
    ) -> Result<(), CatalogueError> {
        let mut changed = locked(&self.remembered).clone();
        change(&mut changed);
        catalogue.set_retention_state(&json!(changed), entry)?;
        change(&mut locked(&self.remembered));
        Ok(())
    }

    /// Asks, or goes on asking what is asked already: an answer given to it a while later still fits.
    fn ask(&self, kind: &'static str, text: String, (recordings, until): (u64, Timestamp)) -> String {
        let rule = StoredRule::of(&self.rule);
        let mut asked = locked(&self.asked);
        let fits = |asked: &&Asked| {
            asked.kind == kind
                && asked.rule == rule
                && recordings <= asked.recordings.saturating_add(self.thresholds.few)
        };
        if let Some(asked) = asked.as_ref().filter(fits) {
            return asked.text.clone();
        }
        let token = format!("{:016x}", rand::rng().next_u64());
        *asked = Some(Asked { token, kind, text: text.clone(), recordings, rule, until });
        text
    }
}

/// The thread: looks every few minutes, and oftener when space runs short.
pub(crate) fn run(appliance: &Appliance) {
    overload::give_way(Rank::Archive);
    let retention = &appliance.retention;
    let (mut heard, mut last) = (0, None::<Instant>);
    while !appliance.stopping.load(Ordering::Relaxed) {
        let every = if is_short(appliance) { SHORT_EVERY.min(retention.interval) } else { retention.interval };
        let is_time = last.is_none_or(|last| last.elapsed() >= every);
        let rings = retention.bell.wait(heard, if is_time { Duration::ZERO } else { SHORT_LOOK.min(every) });
        if appliance.stopping.load(Ordering::Relaxed) {
            return;
        }
        if is_time || rings > heard {
            pass(appliance);
            last = Some(Instant::now());
        }
        heard = rings;
    }
}

/// Whether what is due is to make room now.
fn is_short(appliance: &Appliance) -> bool {
    let recorder = appliance.recorder.borrow().clone();
    let spool = appliance.headroom(&recorder).map(|headroom| headroom.room);
    matches!(spool, Some(Room::None | Room::VeryLow)) || appliance.store.condition().state == StoreState::Full
}

/// Looks, and deletes what is due and needs no answer. Gives how many were deleted.
pub(crate) fn pass(appliance: &Appliance) -> u64 {
    let mut deleted = 0;
    let done = try_pass(appliance, &mut deleted);
    let error = match done {
        Ok(()) => {
            appliance.notes.clear(FAILS_NOTE);
            None
        }
        Err(error) => {
            let text = format!("failed to {error}; what is due is deleted as soon as that is mended");
            appliance.notes.set(FAILS_NOTE, text.clone());
            Some(text)
        }
    };
    if deleted > 0 {
        tracing::info!(
            event = events::RETENTION_DELETED,
            deleted,
            rule = appliance.retention.rule.name,
            "retention deleted {deleted} recordings"
        );
    }
    *locked(&appliance.retention.last_run) = LastRun { at: Some(Timestamp::now()), deleted, error };
    deleted
}

fn try_pass(appliance: &Appliance, deleted: &mut u64) -> Result<(), CatalogueError> {
    let retention = &appliance.retention;
    let Some(look) = look(appliance)? else { return Ok(()) };
    let wanted = StoredRule::of(&retention.rule);
    let has_changed = locked(&retention.remembered).in_force.as_ref() != Some(&wanted);
    if has_changed && look.permits.due_by_new_rule {
        retention.remember(&appliance.catalogue, None, |state| state.in_force = Some(wanted.clone()))?;
        tracing::info!(rule = retention.rule.name, "retention: {}", retention.rule);
    }
    if look.tally.all() == 0 {
        return Ok(());
    }
    let confirmed_until = look.decision.confirmed_until;
    *deleted = delete_due(appliance, &look)?;
    if confirmed_until.is_some() && !appliance.stopping.load(Ordering::Relaxed) {
        retention.remember(&appliance.catalogue, None, |state| {
            if state.confirmed_until == confirmed_until {
                state.confirmed_until = None;
            }
        })?;
    }
    Ok(())
}

/// Counts what is due and asks where that has to be; none where nothing can be due, or the clock is not believed.
fn look(appliance: &Appliance) -> Result<Option<Look>, CatalogueError> {
    let retention = &appliance.retention;
    let remembered = locked(&retention.remembered).clone();
    let Some(now) = believed_clock(appliance, &remembered)? else { return Ok(None) };
    let decision = Decision {
        wanted: retention.rule.clone(),
        in_force: remembered.in_force.as_ref().map_or_else(RetentionRule::keep_all, StoredRule::rule),
        confirmed_until: remembered.confirmed_until,
    };
    let mut tally = Tally { recordings: appliance.catalogue.counts()?.values().sum(), ..Tally::default() };
    let awaiting = awaiting_upload(appliance, retention.wait_for_upload);
    each_row(appliance, &decision.wanted, now, |row| {
        let candidate = candidate(appliance, row, &awaiting);
        tally.count(&candidate, decision.standing(&candidate, now));
        Ok(true)
    })?;
    if appliance.stopping.load(Ordering::Relaxed) {
        // The count was broken off, and nothing may be concluded from it: least of all that a shorter rule is harmless.
        return Ok(None);
    }
    retention.due.store(tally.all().saturating_add(tally.held), Ordering::Relaxed);
    let permits = tally.permits(&retention.thresholds);
    match tally.question(&retention.thresholds) {
        Some(question) => {
            let text = question_text(question, &tally, &decision);
            appliance.notes.set(ASKS_NOTE, retention.ask(question.as_str(), text, (tally.all(), now)));
        }
        None => {
            *locked(&retention.asked) = None;
            appliance.notes.clear(ASKS_NOTE);
        }
    }
    Ok(Some(Look { decision, tally, permits, now }))
}

/// What time it is, if the clock can be believed. By a rule that deletes nothing it does not matter.
fn believed_clock(appliance: &Appliance, remembered: &Remembered) -> Result<Option<Timestamp>, CatalogueError> {
    let retention = &appliance.retention;
    let now = StoredClock::now();
    if retention.rule.period.is_none() {
        return Ok(Some(now.wall));
    }
    let newest = appliance.catalogue.newest_end()?;
    let last = remembered.clock.map(StoredClock::reading);
    let why = match clock(last.as_ref(), newest, &now.reading()) {
        ClockFinding::Steady => {
            retention.remember(&appliance.catalogue, None, |state| state.clock = Some(now))?;
            return Ok(Some(now.wall));
        }
        ClockFinding::Jumped { by_ms } if by_ms > 0 => {
            format!("the clock is {} s ahead of where it should be", by_ms / 1_000)
        }
        ClockFinding::Jumped { by_ms } => format!("the clock is {} s behind where it should be", by_ms / -1_000),
        ClockFinding::LongOff { for_ms } => {
            format!("by the clock the machine was off for {} days", for_ms / 86_400_000)
        }
        ClockFinding::BehindRecordings { by_ms } => {
            format!("the newest recording ended {} s after what the clock says", by_ms / 1_000)
        }
    };
    let text = format!(
        "{why}: nothing is deleted until it is right, or until somebody says that it is; see `callvaultctl retention plan`"
    );
    appliance.notes.set(ASKS_NOTE, retention.ask("clock", text, (0, now.wall)));
    Ok(None)
}

fn question_text(question: Question, tally: &Tally, decision: &Decision) -> String {
    let (due, all) = (tally.due.saturating_add(tally.due_by_new_rule), tally.recordings);
    match question {
        Question::ShorterRule => format!(
            "{} of {all} recordings would be deleted because retention was made shorter; until that is confirmed the rule before it goes on ({}); see `callvaultctl retention plan`",
            tally.due_by_new_rule, decision.in_force
        ),
        Question::LargeShare => format!(
            "{due} of {all} recordings would be deleted at once, which is unusually many; nothing is deleted until that is confirmed; see `callvaultctl retention plan`"
        ),
    }
}

/// Recordings whose upload is still to be made; none where that is not waited for.
fn awaiting_upload(appliance: &Appliance, is_waited_for: bool) -> HashSet<Uuid> {
    if !is_waited_for {
        return HashSet::new();
    }
    let filter = JobFilter { kind: Some(JobKind::UPLOAD), ..JobFilter::default() };
    let queued = appliance.queue.list(&filter).into_iter().filter(|job| job.state.name() != StateName::Done);
    let owed = appliance.catalogue.owed(OWED_MAX).unwrap_or_default();
    let owed = owed.into_iter().filter(|job| job.kind == JobKind::UPLOAD.as_str());
    queued.map(|job| job.recording).chain(owed.map(|job| job.recording)).collect()
}

fn candidate(appliance: &Appliance, row: &RetentionRow, awaiting: &HashSet<Uuid>) -> Candidate {
    Candidate {
        ended_at: row.ended_at,
        is_preserved: row.is_preserved,
        is_playing: appliance.retention.playing.is(row.id),
        is_being_archived: row.state == Some(ArchiveState::Archiving),
        awaits_upload: awaiting.contains(&row.id),
        bytes: row.bytes,
    }
}

/// Everything that may be due, the oldest first, until there is no more or `each` says so. The catalogue is free for others between
/// its pages.
fn each_row(
    appliance: &Appliance,
    rule: &RetentionRule,
    now: Timestamp,
    mut each: impl FnMut(&RetentionRow) -> Result<bool, CatalogueError>,
) -> Result<(), CatalogueError> {
    let Some(ended_by) = rule.ended_before(now) else { return Ok(()) };
    let mut after = None;
    loop {
        let rows = appliance.catalogue.retention_rows(ended_by, after)?;
        for row in &rows {
            if appliance.stopping.load(Ordering::Relaxed) || !each(row)? {
                return Ok(());
            }
        }
        match rows.last() {
            Some(last) if rows.len() == RETENTION_ROWS_MAX as usize => after = Some((last.started_at, last.id)),
            _ => return Ok(()),
        }
    }
}

fn delete_due(appliance: &Appliance, look: &Look) -> Result<u64, CatalogueError> {
    let caller = Caller::appliance("retention");
    let rule = format!("retention {}", appliance.retention.rule.name);
    let awaiting = awaiting_upload(appliance, appliance.retention.wait_for_upload);
    let mut deleted = 0;
    let goes = |row: &RetentionRow| {
        let candidate = candidate(appliance, row, &awaiting);
        look.permits.goes(look.decision.standing(&candidate, look.now))
    };
    each_row(appliance, &look.decision.wanted, look.now, |row| {
        if goes(row) {
            let now = Timestamp::now();
            let entry = Entry::new(&caller, Action::Delete, now).on(row.id).with("rule", &rule);
            if let Deletion::Deleted { .. } =
                appliance.catalogue.delete_if(row.id, (now, &rule), Some(&entry), &goes)?
            {
                deleted += 1;
                appliance.metrics.deleted_by(&rule);
                let_go(appliance, row.id);
            }
        }
        Ok(true)
    })?;
    let left = look.tally.all().saturating_add(look.tally.held).saturating_sub(deleted);
    appliance.retention.due.store(left, Ordering::Relaxed);
    Ok(deleted)
}

/// A recording was deleted: the journal lets it go, and what was to archive it finds that out at once, not after a long pause or never,
/// and removes what it may have left.
pub(crate) fn let_go(appliance: &Appliance, id: Uuid) {
    appliance.journals.lock().release(id);
    let job = JobId::new(&JobKind::ARCHIVE, id);
    let waits = |state: &State| matches!(state, State::Ready { .. } | State::Parked { .. });
    if appliance.queue.get(&job).is_some_and(|job| waits(&job.state)) {
        match appliance.queue.retry(&job, unix_ms()) {
            // It began to run meanwhile, or has run.
            Ok(()) | Err(QueueError::WrongState { .. } | QueueError::Unknown { .. }) => {}
            Err(error) => tracing::error!("failed to {error}"),
        }
    }
    appliance.work.ring();
    let _ = appliance.wake_ingest.try_send(());
}

//! Which calls that Webex should have sent are held here: records and sessions joined by ranked keys, and classified.
//!
//! # Keys
//!
//! Which key holds is not documented, so they are ranked, and each match says which one it was: the call id, which the metadata give as
//! `callhalf-113104021:0` and the record as `113104021:0`; then the correlation id, which all legs of a call share, and so only together
//! with a number, a user or the time; then numbers and overlapping time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use callvault_directory::NumberingPlan;
use jiff::Timestamp;
use uuid::Uuid;

use crate::record::{Record, RecordingResult, later};

/// By how much a recording may be shorter than its call, in milliseconds: the recorder is called after the answer, and the record's
/// times are whole seconds.
pub const TOLERANCE_MS: i64 = 5_000;

/// By how much two clocks may differ, in milliseconds, for two calls to be the same.
pub const SKEW_MS: i64 = 10_000;

/// For how long after its end a call without its counterpart is waited for, in milliseconds: records are late by minutes as a rule.
pub const SETTLE_MS: i64 = 30 * 60 * 1000;

/// How it is compared.
#[derive(Debug, Clone)]
pub struct CompletenessSettings {
    /// Names of the recording platform by which Webex knows this appliance; when empty, every one but Webex's own.
    pub platforms: Vec<String>,
    /// See [`TOLERANCE_MS`].
    pub tolerance_ms: i64,
    /// See [`SKEW_MS`].
    pub skew_ms: i64,
    /// See [`SETTLE_MS`].
    pub settle_ms: i64,
    /// When two numbers are one.
    pub plan: NumberingPlan,
}

impl Default for CompletenessSettings {
    fn default() -> Self {
        let (tolerance_ms, skew_ms, settle_ms) = (TOLERANCE_MS, SKEW_MS, SETTLE_MS);
        Self { platforms: Vec::new(), tolerance_ms, skew_ms, settle_ms, plan: NumberingPlan::default() }
    }
}

/// Whether this appliance is the platform, by the names that `platforms` has for it; by none every one but Webex's own.
pub(crate) fn is_ours(platforms: &[String], platform: &str) -> bool {
    match platforms.is_empty() {
        true => !platform.eq_ignore_ascii_case("webex"),
        false => platforms.iter().any(|name| name.eq_ignore_ascii_case(platform)),
    }
}

impl CompletenessSettings {
    fn is_ours(&self, platform: &str) -> bool {
        is_ours(&self.platforms, platform)
    }

    /// Whether the call should be held here.
    fn is_wanted(&self, record: &Record) -> bool {
        record.is_answered
            && record.tells_of_recording
            && record.platform.as_deref().is_none_or(|platform| self.is_ours(platform))
    }
}

/// What became of a session here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldState {
    /// It is kept.
    Kept,
    /// A rule did not keep it.
    Filtered {
        /// The rule's name.
        rule: String,
    },
    /// It was on demand, and nobody asked.
    NotKept,
}

/// A session of the appliance. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    /// The recording's id.
    pub id: Uuid,
    /// When it began.
    pub started_at: Timestamp,
    /// For how long there is audio, in milliseconds.
    pub duration_ms: i64,
    /// The client's id of the call, as the metadata had it.
    pub call_id: Option<String>,
    /// The metadata's tracking id.
    pub tracking_id: Option<String>,
    /// The recorded user's number.
    pub local_number: Option<String>,
    /// The other party's.
    pub remote_number: Option<String>,
    /// What became of it.
    pub state: HeldState,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Held {
    fn ended_at(&self) -> Timestamp {
        later(self.started_at, self.duration_ms.max(0))
    }
}

/// Which key made two one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JoinedBy {
    /// The id of the call's half.
    CallId,
    /// The id of the call, and what tells its legs apart.
    Correlation,
    /// Both numbers, and the time.
    Numbers,
}

impl JoinedBy {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallId => "call-id",
            Self::Correlation => "correlation-id",
            Self::Numbers => "numbers",
        }
    }
}

/// What is said of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is held, whole.
    Recorded,
    /// It is held, and less of it than there was.
    Short {
        /// How much is not there, in milliseconds.
        missing_ms: i64,
    },
    /// It should be held, and is not.
    Missing,
    /// It is held, and Webex has no record of it, or one that does not want it here.
    Extra,
    /// It is held a second time.
    Duplicate,
    /// Webex itself says that its recording failed, and nothing is held.
    FailedAtWebex,
    /// A rule of the appliance did not keep it.
    Filtered {
        /// The rule's name.
        rule: String,
    },
    /// It was on demand and nobody asked: not kept, as wished.
    NotKept,
    /// It ended so lately that its counterpart may still come.
    Awaited,
}

impl Verdict {
    /// Its stable name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Short { .. } => "short",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Duplicate => "duplicate",
            Self::FailedAtWebex => "failed-at-webex",
            Self::Filtered { .. } => "filtered",
            Self::NotKept => "not-kept",
            Self::Awaited => "awaited",
        }
    }
}

/// A call with what is said of it. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is said.
    pub verdict: Verdict,
    /// When the call began.
    pub begun_at: Timestamp,
    /// How long it was, in milliseconds.
    pub duration_ms: i64,
    /// Which key joined it with its first session.
    pub joined_by: Option<JoinedBy>,
    /// The sessions, the earliest first.
    pub recordings: Vec<Uuid>,
    /// The record's id of the call's half.
    pub local_call_id: Option<String>,
    /// Whose call it was, as Webex shows it; personal.
    pub user: Option<String>,
    /// Where.
    pub location: Option<String>,
}

impl std::fmt::Debug for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Finding");
        shown.field("verdict", &self.verdict).field("begun_at", &self.begun_at).field("recordings", &self.recordings);
        shown.finish_non_exhaustive()
    }
}

/// Compares `records` with `held` as both are known at `now`: a finding for each call that should be held and for each session that
/// is, in the order of their beginnings. Told again with records that came late it says what is so then: nothing is remembered.
///
/// Both should be of the same time, the records with `settle_ms` more on either side. A record that is told twice counts once.
pub fn join(records: &[Record], held: &[Held], settings: &CompletenessSettings, now: Timestamp) -> Vec<Finding> {
    let records = once(records);
    let matched = Matching::of(&records, held, settings);
    let mut findings = Vec::new();
    for (at, record) in records.iter().enumerate() {
        let sessions: Vec<&Held> = matched.sessions[at].iter().map(|(session, _)| &held[*session]).collect();
        let joined_by = matched.sessions[at].iter().map(|(_, by)| *by).min();
        findings.extend(of_record(record, sessions, joined_by, settings, now));
    }
    for (session, _) in held.iter().zip(&matched.taken).filter(|(_, is_taken)| !**is_taken) {
        // What is not kept here and not recorded there owes nobody a word.
        if session.state == HeldState::Kept {
            let awaited = later(session.ended_at(), settings.settle_ms) > now;
            let verdict = if awaited { Verdict::Awaited } else { Verdict::Extra };
            findings.push(of_session(session, verdict, None, None));
        }
    }
    findings.sort_by(|a, b| (a.begun_at, &a.recordings).cmp(&(b.begun_at, &b.recordings)));
    findings
}

/// Each record once: by its own id, else by the call's half and the moment.
fn once(records: &[Record]) -> Vec<&Record> {
    let mut known = BTreeSet::new();
    let is_new = |record: &&Record| match (&record.id, &record.local_call_id) {
        (Some(id), _) => known.insert((id.clone(), None)),
        (None, Some(call)) => known.insert((call.clone(), Some(record.begun_at))),
        (None, None) => true,
    };
    records.iter().filter(is_new).collect()
}

/// Sessions with the records to which they belong.
struct Matching {
    /// For each record its sessions, with the key that held.
    sessions: Vec<Vec<(usize, JoinedBy)>>,
    /// For each session whether it has a record.
    taken: Vec<bool>,
}

impl Matching {
    fn of(records: &[&Record], held: &[Held], settings: &CompletenessSettings) -> Self {
        let mut matching = Self { sessions: vec![Vec::new(); records.len()], taken: vec![false; held.len()] };
        let calls =
            records.iter().enumerate().filter_map(|(at, record)| Some((half(record.local_call_id.as_deref()?), at)));
        matching.by_key(records, held, JoinedBy::CallId, &grouped(calls), settings, |held| {
            held.call_id.as_deref().map(half)
        });
        let calls = records.iter().enumerate().filter_map(|(at, record)| Some((record.correlation_id.as_deref()?, at)));
        matching.by_key(records, held, JoinedBy::Correlation, &grouped(calls), settings, |held| {
            held.tracking_id.as_deref()
        });
        matching.by_numbers(records, held, settings);
        matching
    }

    fn by_key(
        &mut self,
        records: &[&Record],
        held: &[Held],
        key: JoinedBy,
        groups: &HashMap<&str, Vec<usize>>,
        settings: &CompletenessSettings,
        of: impl Fn(&Held) -> Option<&str>,
    ) {
        for (at, session) in held.iter().enumerate() {
            let Some(group) = of(session).filter(|_| !self.taken[at]).and_then(|key| groups.get(key)) else { continue };
            // Ids are counters that begin anew, so the time has to fit as well; and of the legs of a call the numbers tell which.
            let fits = group.iter().filter(|record| overlap_ms(records[**record], session, settings) >= 0);
            let agrees = |record: &Record| {
                let own = same(&record.own_number, &session.local_number, settings);
                let other = same(&record.other_number, &session.remote_number, settings);
                (own != Some(false) || key == JoinedBy::CallId)
                    .then(|| u8::from(own == Some(true)) + u8::from(other == Some(true)))
            };
            let ranked = fits.filter_map(|record| Some((agrees(records[*record])?, *record)));
            let best = ranked.max_by_key(|(agreed, record)| {
                let first = self.sessions[*record].is_empty();
                (*agreed, overlap_ms(records[*record], session, settings), first)
            });
            if let Some((_, record)) = best {
                self.take(record, at, key);
            }
        }
    }

    fn by_numbers(&mut self, records: &[&Record], held: &[Held], settings: &CompletenessSettings) {
        let number = |text: &Option<String>| settings.plan.number(text.as_deref()?);
        let mut open: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, record) in records.iter().enumerate().filter(|(at, _)| self.sessions[*at].is_empty()) {
            if let (Some(own), Some(other)) = (number(&record.own_number), number(&record.other_number)) {
                open.entry((own, other)).or_default().push(at);
            }
        }
        for (at, session) in held.iter().enumerate() {
            if self.taken[at] {
                continue;
            }
            let (Some(own), Some(other)) = (number(&session.local_number), number(&session.remote_number)) else {
                continue;
            };
            let Some(group) = open.get(&(own, other)) else { continue };
            let fits = group.iter().map(|record| (overlap_ms(records[*record], session, settings), *record));
            if let Some((_, record)) = fits.filter(|(overlap, _)| *overlap >= 0).max() {
                self.take(record, at, JoinedBy::Numbers);
            }
        }
    }

    fn take(&mut self, record: usize, session: usize, by: JoinedBy) {
        self.sessions[record].push((session, by));
        self.taken[session] = true;
    }
}

fn grouped<'a>(keys: impl Iterator<Item = (&'a str, usize)>) -> HashMap<&'a str, Vec<usize>> {
    let mut groups: HashMap<&str, Vec<usize>> = HashMap::new();
    for (key, at) in keys {
        groups.entry(key).or_default().push(at);
    }
    groups
}

/// The id of a call's half without the word that the metadata put before it.
fn half(call_id: &str) -> &str {
    call_id.strip_prefix("callhalf-").unwrap_or(call_id)
}

/// Whether two numbers are one; none where one of them is not told.
fn same(a: &Option<String>, b: &Option<String>, settings: &CompletenessSettings) -> Option<bool> {
    let (a, b) = (settings.plan.number(a.as_deref()?)?, settings.plan.number(b.as_deref()?)?);
    Some(a == b)
}

/// For how long the two were at the same time, the clocks' difference granted; below zero when they were not.
fn overlap_ms(record: &Record, session: &Held, settings: &CompletenessSettings) -> i64 {
    let begins = record.begun_at.max(session.started_at).as_millisecond();
    let ends = record.ended_at().min(session.ended_at()).as_millisecond();
    ends.saturating_sub(begins).saturating_add(settings.skew_ms)
}

/// What is said of a record and its sessions.
fn of_record(
    record: &Record,
    mut sessions: Vec<&Held>,
    joined_by: Option<JoinedBy>,
    settings: &CompletenessSettings,
    now: Timestamp,
) -> Vec<Finding> {
    sessions.sort_by_key(|session| (session.started_at, session.id));
    let kept: Vec<&Held> = sessions.iter().copied().filter(|session| session.state == HeldState::Kept).collect();
    let elsewhere = record.platform.as_deref().is_some_and(|platform| !settings.is_ours(platform));
    if elsewhere {
        return kept.into_iter().map(|session| of_session(session, Verdict::Extra, Some(record), joined_by)).collect();
    }
    if sessions.is_empty() && !settings.is_wanted(record) {
        return Vec::new();
    }
    let (kept, twice) = without_copies(kept, settings);
    let verdict = if kept.is_empty() {
        match sessions.first().map(|session| &session.state) {
            Some(HeldState::Filtered { rule }) => Verdict::Filtered { rule: rule.clone() },
            Some(_) => Verdict::NotKept,
            None => nothing_held(record, settings, now),
        }
    } else {
        let covered_ms: i64 = kept.iter().map(|session| session.duration_ms.max(0)).fold(0, i64::saturating_add);
        let missing_ms = record.duration_ms.saturating_sub(covered_ms);
        // What is on demand begins and ends when the user says.
        let is_short = missing_ms > settings.tolerance_ms && !record.is_on_demand && record.is_answered;
        if is_short { Verdict::Short { missing_ms } } else { Verdict::Recorded }
    };
    let whole = Finding {
        verdict,
        begun_at: record.begun_at,
        duration_ms: record.duration_ms,
        joined_by,
        recordings: if kept.is_empty() { &sessions } else { &kept }.iter().map(|session| session.id).collect(),
        local_call_id: record.local_call_id.clone(),
        user: record.user.clone(),
        location: record.location.clone(),
    };
    let copies = twice.into_iter().map(|session| of_session(session, Verdict::Duplicate, Some(record), joined_by));
    std::iter::once(whole).chain(copies).collect()
}

fn nothing_held(record: &Record, settings: &CompletenessSettings, now: Timestamp) -> Verdict {
    match record.result {
        Some(RecordingResult::Failed) => Verdict::FailedAtWebex,
        Some(RecordingResult::NotKept) => Verdict::NotKept,
        _ if later(record.ended_at(), settings.settle_ms) > now => Verdict::Awaited,
        _ => Verdict::Missing,
    }
}

/// Sessions that follow each other are parts of one call; one that lies within what is there already, but for the tolerance, is a copy.
/// The longer of two is the one that counts.
fn without_copies<'a>(kept: Vec<&'a Held>, settings: &CompletenessSettings) -> (Vec<&'a Held>, Vec<&'a Held>) {
    let mut longest_first = kept;
    longest_first.sort_by_key(|session| (std::cmp::Reverse(session.duration_ms), session.started_at, session.id));
    let (mut parts, mut copies): (Vec<&Held>, Vec<&Held>) = (Vec::new(), Vec::new());
    for session in longest_first {
        let within = |part: &&Held| {
            let begins = part.started_at.max(session.started_at).as_millisecond();
            let ends = part.ended_at().min(session.ended_at()).as_millisecond();
            let alone_ms = session.duration_ms.saturating_sub(ends.saturating_sub(begins).max(0));
            ends > begins && alone_ms <= settings.tolerance_ms
        };
        if parts.iter().any(within) { copies.push(session) } else { parts.push(session) }
    }
    parts.sort_by_key(|session| (session.started_at, session.id));
    (parts, copies)
}

fn of_session(session: &Held, verdict: Verdict, record: Option<&Record>, joined_by: Option<JoinedBy>) -> Finding {
    Finding {
        verdict,
        begun_at: session.started_at,
        duration_ms: session.duration_ms,
        joined_by,
        recordings: vec![session.id],
        local_call_id: record.and_then(|record| record.local_call_id.clone()),
        user: record.and_then(|record| record.user.clone()),
        location: record.and_then(|record| record.location.clone()),
    }
}

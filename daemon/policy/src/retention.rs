//! How long recordings stay: when one is due, what holds it back all the same, and when a deletion is to be asked for first.
//!
//! The time that counts is that at which the recording ended. Hours are hours; days, months and years are those of the calendar in
//! the configured time zone. No recording goes early for a peculiarity of the calendar: a time of day that a day has twice counts as
//! the second, one that it has not counts as the time after the gap. Where a month is too short its last day counts: what ended on
//! 29 February goes, by a rule of twelve months, on 28 February at the same time of day.
//!
//! Three things make retention stop and ask: a clock that jumped ([`clock()`]), a rule that was made shorter, and a run that would
//! delete an unusually large share ([`Tally::question`]). Nothing here deletes anything.

mod clock;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use jiff::{Span, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

pub use clock::{ClockFinding, ClockReading, OFF_DAYS_MAX, STEP_MS_MAX, clock};

/// Longest period in years: beyond it, to keep everything says it better, and no sum of two leaves the calendar.
pub const PERIOD_YEARS_MAX: u32 = 100;

/// By how much the bound of [`RetentionRule::ended_before`] is wider than it needs to be where the calendar counts: a month is up to
/// three days shorter than another, and clocks are changed by less than a day.
const CALENDAR_SLACK_DAYS: i64 = 5;

/// The unit of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeriodUnit {
    /// Of 3,600 seconds.
    Hours,
    /// Of the calendar.
    Days,
    /// Of the calendar.
    Months,
    /// Of the calendar.
    Years,
}

impl PeriodUnit {
    const ALL: [(Self, &'static str, u32); 4] = [
        (Self::Hours, "hours", 8_766),
        (Self::Days, "days", 366),
        (Self::Months, "months", 12),
        (Self::Years, "years", 1),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(unit, ..)| *unit == self).map_or("", |(_, name, _)| name)
    }
}

/// A length of time, at least one unit and at most [`PERIOD_YEARS_MAX`] years. Written "4 hours", "12 months".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    count: u32,
    unit: PeriodUnit,
}

impl Period {
    /// That many of the unit; none beyond the limits.
    pub fn new(count: u32, unit: PeriodUnit) -> Option<Self> {
        let (.., per_year) = PeriodUnit::ALL.iter().find(|(known, ..)| *known == unit)?;
        (1..=per_year * PERIOD_YEARS_MAX).contains(&count).then_some(Self { count, unit })
    }

    /// That much after `from`; none beyond the calendar's end.
    fn after(self, from: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.unit == PeriodUnit::Hours {
            return from.checked_add(Span::new().hours(self.count)).ok();
        }
        let there = from.to_zoned(zone.clone()).datetime().checked_add(self.span()).ok()?;
        zone.to_ambiguous_zoned(there).later().ok().map(|zoned| zoned.timestamp())
    }

    /// At least that much before `until`, and hardly more.
    fn before(self, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.unit == PeriodUnit::Hours {
            return until.checked_sub(Span::new().hours(self.count)).ok();
        }
        let there = until.to_zoned(zone.clone()).datetime().checked_sub(self.span()).ok()?;
        let there = there.checked_add(Span::new().days(CALENDAR_SLACK_DAYS)).ok()?;
        zone.to_ambiguous_zoned(there).later().ok().map(|zoned| zoned.timestamp())
    }

    fn span(self) -> Span {
        let count = i64::from(self.count);
        match self.unit {
            PeriodUnit::Hours => Span::new().hours(count),
            PeriodUnit::Days => Span::new().days(count),
            PeriodUnit::Months => Span::new().months(count),
            PeriodUnit::Years => Span::new().years(count),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.unit.name())
    }
}

impl FromStr for Period {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (count, unit) = text.split_once(' ').ok_or(())?;
        let (unit, ..) = PeriodUnit::ALL.iter().find(|(_, name, _)| *name == unit).ok_or(())?;
        Self::new(count.parse().map_err(|_| ())?, *unit).ok_or(())
    }
}

/// What preserving does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preserving {
    /// What is preserved stays until somebody lets it go.
    ForEver,
    /// It stays so much longer than the ordinary time.
    Longer(Period),
}

/// How long recordings stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRule {
    /// Its name, which tombstones and the audit log have.
    pub name: String,
    /// For so long; none: for ever.
    pub period: Option<Period>,
    /// What preserving does. Nothing goes by a rule without a period, so there it does nothing.
    pub preserving: Preserving,
    /// Whose calendar counts.
    pub zone: TimeZone,
}

impl RetentionRule {
    /// The rule by which nothing goes.
    pub fn keep_all() -> Self {
        Self { name: "keep-all".to_owned(), period: None, preserving: Preserving::ForEver, zone: TimeZone::UTC }
    }

    /// Whether a recording can be preserved: not where everything stays anyway.
    pub fn allows_preserving(&self) -> bool {
        self.period.is_some()
    }

    /// When a recording that ended then has to go; none: never.
    pub fn due_at(&self, ended_at: Timestamp, is_preserved: bool) -> Option<Timestamp> {
        let ordinary = self.period?.after(ended_at, &self.zone)?;
        match (is_preserved, self.preserving) {
            (false, _) => Some(ordinary),
            (true, Preserving::ForEver) => None,
            (true, Preserving::Longer(period)) => period.after(ordinary, &self.zone),
        }
    }

    /// A time such that nothing that ended after it is due at `now`; none: nothing is due at all. For a search by an index: what ended
    /// earlier need not be due.
    pub fn ended_before(&self, now: Timestamp) -> Option<Timestamp> {
        self.period?.before(now, &self.zone)
    }

    fn is_due(&self, candidate: &Candidate, now: Timestamp) -> bool {
        self.due_at(candidate.ended_at, candidate.is_preserved).is_some_and(|at| at <= now)
    }
}

impl fmt::Display for RetentionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(period) = self.period else { return f.write_str("everything is kept") };
        write!(f, "recordings are kept for {period}, preserved ones ")?;
        match self.preserving {
            Preserving::ForEver => f.write_str("for ever"),
            Preserving::Longer(period) => write!(f, "{period} longer"),
        }
    }
}

/// A rule as it is remembered, to be compared with the one that comes after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredRule {
    /// Its name.
    pub name: String,
    /// The period in words; none: for ever.
    pub period: Option<String>,
    /// What preserved ones have more, in words; none: for ever.
    pub preserved: Option<String>,
    /// The time zone's name in the IANA database.
    pub zone: String,
}

impl StoredRule {
    /// What is remembered of a rule.
    pub fn of(rule: &RetentionRule) -> Self {
        let preserved = match rule.preserving {
            Preserving::ForEver => None,
            Preserving::Longer(period) => Some(period.to_string()),
        };
        Self {
            name: rule.name.clone(),
            period: rule.period.map(|period| period.to_string()),
            preserved,
            zone: rule.zone.iana_name().unwrap_or("UTC").to_owned(),
        }
    }

    /// The rule that it was. What is not understood any more keeps everything, so that what is in force now has to be confirmed.
    pub fn rule(&self) -> RetentionRule {
        let understood = || {
            let period = self.period.as_deref().map(str::parse).transpose().ok()?;
            let preserved = self.preserved.as_deref().map(str::parse).transpose().ok()?;
            let zone = TimeZone::get(&self.zone).ok()?;
            let preserving = preserved.map_or(Preserving::ForEver, Preserving::Longer);
            Some(RetentionRule { name: self.name.clone(), period, preserving, zone })
        };
        understood().unwrap_or_else(RetentionRule::keep_all)
    }
}

/// A recording, as far as retention has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// When it ended.
    pub ended_at: Timestamp,
    /// Whether somebody preserved it.
    pub is_preserved: bool,
    /// Whether it is being played or exported now.
    pub is_playing: bool,
    /// Whether its archive is being written now.
    pub is_being_archived: bool,
    /// Whether it is still to be uploaded, and is to stay until it was.
    pub awaits_upload: bool,
    /// Bytes of its archive.
    pub bytes: u64,
}

/// What holds a recording that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// It is being played or exported.
    Playing,
    /// Its archive is being written: it goes when that is done.
    BeingArchived,
    /// It is still to be uploaded.
    AwaitsUpload,
}

/// What is to become of a recording now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its time has not come.
    Stays,
    /// Its time has come, and it goes in a later run.
    Held(Hold),
    /// It goes, and somebody confirmed it.
    Confirmed,
    /// It goes.
    Due,
    /// It goes as soon as the rule that is set is in force; by the one that was, it stays.
    DueByNewRule,
}

/// By what is decided.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The rule that is set.
    pub wanted: RetentionRule,
    /// The rule that was in force last; it goes on to be as long as the one that is set waits for a confirmation.
    pub in_force: RetentionRule,
    /// What was due then by the rule that is set was confirmed.
    pub confirmed_until: Option<Timestamp>,
}

impl Decision {
    /// What is to become of a recording at `now`.
    pub fn standing(&self, candidate: &Candidate, now: Timestamp) -> Standing {
        if !self.wanted.is_due(candidate, now) {
            return Standing::Stays;
        }
        let holds = [
            (candidate.is_playing, Hold::Playing),
            (candidate.is_being_archived, Hold::BeingArchived),
            (candidate.awaits_upload, Hold::AwaitsUpload),
        ];
        if let Some((_, hold)) = holds.into_iter().find(|(holds, _)| *holds) {
            return Standing::Held(hold);
        }
        if self.confirmed_until.is_some_and(|until| self.wanted.is_due(candidate, until.min(now))) {
            Standing::Confirmed
        } else if self.in_force.is_due(candidate, now) {
            Standing::Due
        } else {
            Standing::DueByNewRule
        }
    }
}

/// What a run would do, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Recordings that there are.
    pub recordings: u64,
    /// Those that go and were confirmed.
    pub confirmed: u64,
    /// Those that go, without these.
    pub due: u64,
    /// Those that go once the rule that is set is in force.
    pub due_by_new_rule: u64,
    /// Those that are held.
    pub held: u64,
    /// Bytes of the archives of all that go, held ones not counted.
    pub bytes: u64,
    /// End of the earliest recording that goes.
    pub oldest: Option<Timestamp>,
    /// End of the latest.
    pub newest: Option<Timestamp>,
}

impl Tally {
    /// Counts one more recording.
    pub fn count(&mut self, candidate: &Candidate, standing: Standing) {
        let counter = match standing {
            Standing::Stays => return,
            Standing::Held(_) => {
                self.held += 1;
                return;
            }
            Standing::Confirmed => &mut self.confirmed,
            Standing::Due => &mut self.due,
            Standing::DueByNewRule => &mut self.due_by_new_rule,
        };
        *counter += 1;
        self.bytes = self.bytes.saturating_add(candidate.bytes);
        let ended_at = candidate.ended_at;
        self.oldest = Some(self.oldest.map_or(ended_at, |oldest| oldest.min(ended_at)));
        self.newest = Some(self.newest.map_or(ended_at, |newest| newest.max(ended_at)));
    }

    /// All that go, whether asked for or not.
    pub fn all(&self) -> u64 {
        self.confirmed.saturating_add(self.due).saturating_add(self.due_by_new_rule)
    }

    /// What has to be asked before more than what was confirmed goes.
    pub fn question(&self, thresholds: &AskThresholds) -> Option<Question> {
        if self.due_by_new_rule > thresholds.few {
            return Some(Question::ShorterRule);
        }
        let due = self.due.saturating_add(self.due_by_new_rule);
        let share = u128::from(self.recordings) * u128::from(thresholds.share_percent);
        (due > thresholds.few && u128::from(due) * 100 > share).then_some(Question::LargeShare)
    }

    /// Which of these may go now. A shorter rule that waits does not stop what was due without it, unless that alone is too much.
    pub fn permits(&self, thresholds: &AskThresholds) -> Permits {
        match self.question(thresholds) {
            None => Permits { due: true, due_by_new_rule: true },
            Some(Question::LargeShare) => Permits::default(),
            Some(Question::ShorterRule) => {
                let without = Self { due_by_new_rule: 0, ..self.clone() };
                Permits { due: without.question(thresholds).is_none(), due_by_new_rule: false }
            }
        }
    }
}

/// When a deletion is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskThresholds {
    /// So many recordings go without a question.
    pub few: u64,
    /// More than so many of a hundred do not.
    pub share_percent: u32,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The rule that is set lets recordings go that the one before it kept.
    ShorterRule,
    /// An unusually large share of all recordings would go at once.
    LargeShare,
}

impl Question {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ShorterRule => "shorter-rule",
            Self::LargeShare => "large-share",
        }
    }
}

/// What may go now besides what was confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permits {
    /// What is due by the rule in force.
    pub due: bool,
    /// What is due by the rule that is set alone.
    pub due_by_new_rule: bool,
}

impl Permits {
    /// Whether a recording of this standing goes now.
    pub fn goes(self, standing: Standing) -> bool {
        match standing {
            Standing::Stays | Standing::Held(_) => false,
            Standing::Confirmed => true,
            Standing::Due => self.due,
            Standing::DueByNewRule => self.due_by_new_rule,
        }
    }
}

//! Supervision of one child process, as a machine: it is told what happened and when, and says what to do.
//!
//! It starts nothing and kills nothing, has no clock and no thread; the daemon's driver does what it says. The rules:
//!
//! - The child is to run, always. When it dies it is started again, at once if it had served for [`Limits::served_after`]: it goes
//!   on with its calls, which wait. One that dies before that is started at once the first time, then after a pause that doubles up to
//!   [`Limits::pause_max`]. It never gives up: an appliance that stopped trying records nothing.
//! - A child that stayed up for [`Limits::steady_after`] has its past forgiven.
//! - A child that does not become ready within [`Limits::ready_within`], or of which something stands still for
//!   [`Limits::stuck_after`], is killed and so started again. Unless it is the journal, and it waits for its disk
//!   ([`Event::Disk`]): the kernel does not let it die before the disk answers, and when it does, it goes on by itself with what it has kept
//!   in memory, which a death would cost.
//! - When it has died [`Limits::deaths_alarm`] times without being steady, that is an alarm, raised once and cleared
//!   when it is steady again.
//! - On [`Event::StopWanted`] it is asked to stop, and killed after [`Limits::stop_within`].

use std::time::Duration;

/// A moment of the monotonic clock, as time since some fixed point that the caller chose.
pub type Now = Duration;

/// The numbers behind the rules.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a child must have been ready to be worth a restart at once.
    pub served_after: Duration,
    /// First pause before a restart of one that has not served, and which is not the first.
    pub pause_min: Duration,
    /// Longest pause: short, since calls are waiting.
    pub pause_max: Duration,
    /// How long a child must be up to count as steady.
    pub steady_after: Duration,
    /// How long a child may take to become ready.
    pub ready_within: Duration,
    /// How long any of the child's counters may stand still.
    pub stuck_after: Duration,
    /// How long a child may take to stop when asked; it has a journal to flush.
    pub stop_within: Duration,
    /// Deaths without a steady time in between after which it is an alarm.
    pub deaths_alarm: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            served_after: Duration::from_secs(1),
            pause_min: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
            steady_after: Duration::from_secs(60),
            ready_within: Duration::from_secs(10),
            stuck_after: Duration::from_secs(5),
            stop_within: Duration::from_secs(10),
            deaths_alarm: 3,
        }
    }
}

/// Counters of the parts of the child that must keep moving.
pub type Progress = [u64; 3];

/// What the counters of [`Progress`] count, for messages.
pub const PROGRESS_NAMES: [&str; 3] = ["signalling", "media sweep", JOURNAL];

/// The part that writes.
pub const JOURNAL: &str = "journal";

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The child was started.
    Started,
    /// It could not be started.
    StartFailed,
    /// It says that it is ready.
    Ready,
    /// It says how far its parts are.
    Beat(Progress),
    /// Its journal stands still: whether it waits in the kernel for a disk that does not answer. It counts until the journal moves.
    Disk {
        /// Whether it does not wait.
        answers: bool,
    },
    /// It is gone (reaped).
    Exited,
    /// The daemon stops.
    StopWanted,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the child.
    Start,
    /// Ask it to stop.
    AskToStop,
    /// Kill it; its exit will be reported as [`Event::Exited`].
    Kill {
        /// Why, for the log.
        why: String,
    },
    /// It dies again and again.
    Alarm {
        /// Deaths in a row.
        deaths: u32,
    },
    /// It is steady again after an alarm.
    AllClear,
    /// It has stopped as wanted: nothing more will be asked.
    Stopped,
}

/// Where the child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not running; to be started at the given moment.
    Waiting {
        /// When.
        until: Now,
    },
    /// A start was asked for.
    Starting,
    /// Started, not ready yet.
    Rising {
        /// Since when.
        since: Now,
    },
    /// Ready.
    Up {
        /// Since when.
        since: Now,
    },
    /// Killed, its exit is awaited.
    Dying,
    /// Asked to stop.
    Stopping {
        /// Since when.
        since: Now,
    },
    /// Stopped as wanted.
    Stopped,
}

/// The machine.
#[derive(Debug)]
pub struct Supervisor {
    limits: Limits,
    state: State,
    deaths: u32,
    /// Deaths in a row of children that had not served.
    early_deaths: u32,
    /// Since when the child is ready, or was before it was killed.
    ready_since: Option<Now>,
    deaths_total: u64,
    alarmed: bool,
    progress: [(u64, Now); 3],
    /// Whether the journal waits for its disk.
    waits_for_disk: bool,
    /// Why the last one was killed; none once another one is ready.
    killed: Option<String>,
    stop_wanted: bool,
}

impl Supervisor {
    /// A machine whose child is to be started at `now`.
    #[must_use]
    pub fn new(limits: Limits, now: Now) -> Self {
        Self {
            limits,
            state: State::Waiting { until: now },
            deaths: 0,
            early_deaths: 0,
            ready_since: None,
            deaths_total: 0,
            alarmed: false,
            progress: [(0, now); 3],
            waits_for_disk: false,
            killed: None,
            stop_wanted: false,
        }
    }

    /// Where the child is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Deaths since the last steady time.
    #[must_use]
    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    /// Deaths since the machine was made.
    #[must_use]
    pub fn deaths_total(&self) -> u64 {
        self.deaths_total
    }

    /// Whether the child is up and ready.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Which part of a child that is up has stood still for longest, by its name in [`PROGRESS_NAMES`], and for how long.
    #[must_use]
    pub fn stillest(&self, now: Now) -> Option<(&'static str, Duration)> {
        let (moved, name) = self.oldest_progress(false);
        self.is_up().then(|| (name, now.saturating_sub(moved)))
    }

    /// Whether it is let live although its journal stands still.
    #[must_use]
    pub fn waits_for_disk(&self) -> bool {
        self.waits_for_disk
    }

    /// Why the last child was killed, until another one is ready.
    #[must_use]
    pub fn killed(&self) -> Option<&str> {
        self.killed.as_deref()
    }

    /// When [`Event::Tick`] is due at the latest; none: nothing depends on time now.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Starting | State::Dying | State::Stopped => None,
            State::Rising { since } => Some(since + self.limits.ready_within),
            State::Up { since } => {
                let stuck = self.oldest_progress(self.waits_for_disk).0 + self.limits.stuck_after;
                let steady = since + self.limits.steady_after;
                Some(if self.deaths > 0 { stuck.min(steady) } else { stuck })
            }
            State::Stopping { since } => Some(since + self.limits.stop_within),
        }
    }

    /// Tells the machine what happened at `now`; it says what to do, in order.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Action> {
        match event {
            Event::StopWanted => self.want_stop(now),
            Event::Started => self.started(now),
            Event::StartFailed | Event::Exited => self.gone(now),
            Event::Ready => {
                if let State::Rising { .. } = self.state {
                    self.state = State::Up { since: now };
                    self.ready_since = Some(now);
                    self.killed = None;
                    self.progress = self.progress.map(|(count, _)| (count, now));
                }
                Vec::new()
            }
            Event::Beat(progress) => {
                for ((seen, count), name) in self.progress.iter_mut().zip(progress).zip(PROGRESS_NAMES) {
                    if seen.0 != count {
                        *seen = (count, now);
                        self.waits_for_disk &= name != JOURNAL;
                    }
                }
                self.tick(now)
            }
            Event::Disk { answers } => {
                // From now on it is seen whether it goes on.
                if answers && std::mem::take(&mut self.waits_for_disk) {
                    for ((_, moved), name) in self.progress.iter_mut().zip(PROGRESS_NAMES) {
                        *moved = if name == JOURNAL { now } else { *moved };
                    }
                }
                self.waits_for_disk = !answers && self.is_up();
                self.tick(now)
            }
            Event::Tick => self.tick(now),
        }
    }

    fn want_stop(&mut self, now: Now) -> Vec<Action> {
        self.stop_wanted = true;
        match self.state {
            State::Waiting { .. } => {
                self.state = State::Stopped;
                vec![Action::Stopped]
            }
            State::Rising { .. } | State::Up { .. } => {
                self.state = State::Stopping { since: now };
                vec![Action::AskToStop]
            }
            State::Starting | State::Dying | State::Stopping { .. } | State::Stopped => Vec::new(),
        }
    }

    fn started(&mut self, now: Now) -> Vec<Action> {
        self.progress = [(0, now); 3];
        self.waits_for_disk = false;
        if self.stop_wanted {
            self.state = State::Stopping { since: now };
            return vec![Action::AskToStop];
        }
        self.state = State::Rising { since: now };
        Vec::new()
    }

    fn gone(&mut self, now: Now) -> Vec<Action> {
        if self.stop_wanted {
            self.state = State::Stopped;
            return vec![Action::Stopped];
        }
        if let State::Up { since } = self.state
            && now.saturating_sub(since) >= self.limits.steady_after
        {
            self.deaths = 0;
        }
        let served = self.ready_since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.early_deaths = if served >= self.limits.served_after { 0 } else { self.early_deaths.saturating_add(1) };
        self.deaths = self.deaths.saturating_add(1);
        self.deaths_total = self.deaths_total.saturating_add(1);
        self.state = State::Waiting { until: now + self.pause() };
        let mut actions = Vec::new();
        if self.deaths >= self.limits.deaths_alarm && !self.alarmed {
            self.alarmed = true;
            actions.push(Action::Alarm { deaths: self.deaths });
        }
        actions.extend(self.tick(now));
        actions
    }

    /// The first early death costs nothing: calls are waiting, and most deaths are single ones.
    fn pause(&self) -> Duration {
        match self.early_deaths {
            0 | 1 => Duration::ZERO,
            n => {
                let doublings = (n - 2).min(16);
                (self.limits.pause_min * (1 << doublings)).min(self.limits.pause_max)
            }
        }
    }

    fn tick(&mut self, now: Now) -> Vec<Action> {
        match self.state {
            State::Waiting { until } if now >= until => {
                self.state = State::Starting;
                vec![Action::Start]
            }
            State::Rising { since } if now >= since + self.limits.ready_within => {
                self.kill(format!("it was not ready after {} s", self.limits.ready_within.as_secs()))
            }
            State::Up { since } => {
                let (moved, name) = self.oldest_progress(self.waits_for_disk);
                if now >= moved + self.limits.stuck_after {
                    return self
                        .kill(format!("its {name} has not moved for {} s", now.saturating_sub(moved).as_secs()));
                }
                if now >= since + self.limits.steady_after {
                    self.deaths = 0;
                    if std::mem::take(&mut self.alarmed) {
                        return vec![Action::AllClear];
                    }
                }
                Vec::new()
            }
            State::Stopping { since } if now >= since + self.limits.stop_within => {
                self.kill(format!("it did not stop within {} s", self.limits.stop_within.as_secs()))
            }
            _ => Vec::new(),
        }
    }

    fn kill(&mut self, why: String) -> Vec<Action> {
        self.state = State::Dying;
        self.killed = Some(why.clone());
        vec![Action::Kill { why }]
    }

    /// What has stood still for longest, and since when; with or without the journal.
    fn oldest_progress(&self, without_journal: bool) -> (Now, &'static str) {
        let mut oldest = (self.progress[0].1, PROGRESS_NAMES[0]);
        for ((_, moved), name) in self.progress.iter().zip(PROGRESS_NAMES) {
            if *moved < oldest.0 && !(without_journal && name == JOURNAL) {
                oldest = (*moved, name);
            }
        }
        oldest
    }
}

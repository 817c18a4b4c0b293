//! The deciding half: which job is in which state, and which one is next. Pure: no disk, no clock, no randomness.
//!
//! Every change answers with the ids that it touched; the driver writes those jobs (or removes them, where
//! [`Machine::get`] no longer knows them) before it acknowledges anything.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use uuid::Uuid;

use crate::{
    DONE_KEPT, Failure, JOBS_MAX, Job, JobId, JobKind, NewJob, PAYLOAD_BYTES_MAX, ParkReason, QueueError,
    RetryPolicies, State, StateName, WAIT_MS_MAX, backoff_ms, job::cut_error, retry::exhausted,
};

/// A step back of the clock smaller than this is ordinary discipline and changes nothing.
const CLOCK_STEP_MS: u64 = 60_000;

/// How many jobs of each kind may run at once. A kind that is not named is not claimed.
pub type KindLimits = BTreeMap<JobKind, usize>;

/// What enqueueing a job found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It is new.
    New,
    /// It was there, in this state, and was left as it is. To repeat one that is done, [`Machine::retry`] it.
    Known(StateName),
}

/// What becomes of a job that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It will be tried again at that moment, Unix milliseconds.
    Retry {
        /// The moment.
        at_unix_ms: u64,
    },
    /// It waits for someone.
    Parked(ParkReason),
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this kind only.
    pub kind: Option<JobKind>,
    /// In this state only.
    pub state: Option<StateName>,
    /// Of this recording only.
    pub recording: Option<Uuid>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Numbers of jobs by kind and state, for health and metrics.
pub type Counts = BTreeMap<(JobKind, StateName), usize>;

/// All jobs and the indexes over them. See the module's doc.
#[derive(Debug, Default)]
pub struct Machine {
    policies: RetryPolicies,
    jobs: BTreeMap<JobId, Job>,
    /// Ready, moment not known to have come: by kind, then moment.
    waiting: BTreeMap<JobKind, BTreeSet<(u64, JobId)>>,
    /// Ready and due: by kind, then priority, moment.
    due: BTreeMap<JobKind, BTreeSet<(u8, u64, JobId)>>,
    running: BTreeMap<JobKind, usize>,
    done: BTreeSet<(u64, JobId)>,
    now_latest: u64,
}

impl Machine {
    /// An empty one.
    pub fn new(policies: RetryPolicies) -> Self {
        Self { policies, ..Self::default() }
    }

    /// All jobs as they were stored. Those that ran when the process ended are ready again, later each time it happens so that a
    /// job that kills the process does not do so in a tight circle; how many those are is the second result, and
    /// the third the ids to be written. Waits that a wrong clock made are cut to [`WAIT_MS_MAX`].
    pub fn load(
        policies: RetryPolicies,
        jobs: impl IntoIterator<Item = Job>,
        now_unix_ms: u64,
    ) -> (Self, usize, Vec<JobId>) {
        let mut machine = Self::new(policies);
        machine.now_latest = now_unix_ms;
        let (mut resumed, mut touched) = (0, Vec::new());
        for mut job in jobs {
            match job.state {
                State::Running { .. } => {
                    resumed += 1;
                    job.interruptions = job.interruptions.saturating_add(1);
                    // the first time at once; afterwards the longest wait of its policy, not a random one: nothing competes
                    let policy = machine.policies.of(&job.kind);
                    let wait = backoff_ms(policy, job.interruptions - 1, u64::MAX);
                    let wait = if job.interruptions > 1 { wait } else { 0 };
                    job.state = State::Ready { at_unix_ms: now_unix_ms.saturating_add(wait) };
                    touched.push(job.id.clone());
                }
                State::Ready { at_unix_ms } => {
                    let latest = now_unix_ms.saturating_add(WAIT_MS_MAX);
                    job.state = State::Ready { at_unix_ms: at_unix_ms.min(latest) };
                }
                State::Parked { .. } | State::Done { .. } => {}
            }
            machine.insert(job);
        }
        touched.extend(machine.forget_old_done());
        (machine, resumed, touched)
    }

    /// Adds what is not there yet: all or none.
    ///
    /// # Errors
    /// [`QueueError::TooLarge`], [`QueueError::Full`].
    pub fn enqueue(&mut self, now_unix_ms: u64, new: &[NewJob]) -> Result<(Vec<Enqueued>, Vec<JobId>), QueueError> {
        for job in new {
            let bytes = job.payload.to_string().len();
            if bytes > PAYLOAD_BYTES_MAX {
                return Err(QueueError::TooLarge { id: job.id(), bytes, max: PAYLOAD_BYTES_MAX });
            }
        }
        let fresh: BTreeSet<_> = new.iter().map(NewJob::id).filter(|id| !self.jobs.contains_key(id)).collect();
        let live = self.jobs.len() - self.done.len();
        if live + fresh.len() > JOBS_MAX {
            return Err(QueueError::Full(live));
        }
        let (mut found, mut touched) = (Vec::with_capacity(new.len()), Vec::new());
        for job in new {
            let id = job.id();
            if let Some(known) = self.jobs.get(&id) {
                found.push(Enqueued::Known(known.state.name()));
                continue;
            }
            let at = job.not_before_unix_ms.unwrap_or(now_unix_ms);
            self.insert(Job {
                id: id.clone(),
                kind: job.kind.clone(),
                recording: job.recording,
                state: State::Ready { at_unix_ms: at.min(now_unix_ms.saturating_add(WAIT_MS_MAX)) },
                priority: job.priority,
                created_unix_ms: now_unix_ms,
                attempts: 0,
                failures: 0,
                interruptions: 0,
                last_error: None,
                payload: job.payload.clone(),
            });
            found.push(Enqueued::New);
            touched.push(id);
        }
        Ok((found, touched))
    }

    /// The job to run now, if there is one of a kind that has room: smallest priority first, then the one due longest.
    pub fn claim(&mut self, now_unix_ms: u64, limits: &KindLimits) -> Option<Job> {
        self.follow_clock(now_unix_ms);
        self.ripen(now_unix_ms);
        let (_, _, id) = limits
            .iter()
            .filter(|(kind, limit)| self.running_of(kind) < **limit)
            .filter_map(|(kind, _)| self.due.get(kind)?.first())
            .min()?
            .clone();
        self.change(&id, |job| {
            job.attempts = job.attempts.saturating_add(1);
            job.state = State::Running { since_unix_ms: now_unix_ms };
        });
        self.jobs.get(&id).cloned()
    }

    /// A running job is done.
    ///
    /// # Errors
    /// [`QueueError::Unknown`], [`QueueError::WrongState`] when it does not run.
    pub fn complete(&mut self, id: &JobId, now_unix_ms: u64) -> Result<Vec<JobId>, QueueError> {
        self.expect(id, &[StateName::Running])?;
        self.change(id, |job| {
            job.state = State::Done { at_unix_ms: now_unix_ms };
            job.last_error = None;
            job.payload = serde_json::Value::Null;
        });
        let mut touched = vec![id.clone()];
        touched.extend(self.forget_old_done());
        Ok(touched)
    }

    /// A running job failed; `error` says how, without personal data; `random` is uniform over all of `u64`.
    ///
    /// # Errors
    /// [`QueueError::Unknown`], [`QueueError::WrongState`] when it does not run.
    pub fn fail(
        &mut self,
        id: &JobId,
        now_unix_ms: u64,
        failure: Failure,
        error: &str,
        random: u64,
    ) -> Result<(Next, Vec<JobId>), QueueError> {
        let job = self.expect(id, &[StateName::Running])?;
        let policy = *self.policies.of(&job.kind);
        let failures = match failure {
            Failure::NotYet { .. } => job.failures,
            Failure::Transient | Failure::Permanent => job.failures.saturating_add(1),
        };
        let age_ms = now_unix_ms.saturating_sub(job.created_unix_ms);
        let next = match failure {
            Failure::Permanent => Next::Parked(ParkReason::Permanent),
            Failure::NotYet { wait_ms } => {
                Next::Retry { at_unix_ms: now_unix_ms.saturating_add(wait_ms.min(WAIT_MS_MAX)) }
            }
            Failure::Transient => match exhausted(&policy, failures, age_ms) {
                Some(reason) => Next::Parked(reason),
                None => {
                    let wait = backoff_ms(&policy, failures, random);
                    Next::Retry { at_unix_ms: now_unix_ms.saturating_add(wait) }
                }
            },
        };
        self.change(id, |job| {
            job.failures = failures;
            job.interruptions = 0;
            job.last_error = Some(cut_error(error));
            job.state = match next {
                Next::Retry { at_unix_ms } => State::Ready { at_unix_ms },
                Next::Parked(reason) => State::Parked { reason, since_unix_ms: now_unix_ms },
            };
        });
        Ok((next, vec![id.clone()]))
    }

    /// Puts a job aside until someone drives it again.
    ///
    /// # Errors
    /// [`QueueError::Unknown`], [`QueueError::WrongState`] when it runs or is done.
    pub fn park(&mut self, id: &JobId, now_unix_ms: u64) -> Result<Vec<JobId>, QueueError> {
        if self.expect(id, &[StateName::Ready, StateName::Parked])?.state.name() == StateName::Parked {
            return Ok(Vec::new());
        }
        self.change(id, |job| {
            job.state = State::Parked { reason: ParkReason::Asked, since_unix_ms: now_unix_ms };
        });
        Ok(vec![id.clone()])
    }

    /// Drives a job again: due now, its counters as if new. Also repeats one that is done and still remembered (its payload
    /// is gone: give a new one by forgetting it and enqueueing).
    ///
    /// # Errors
    /// [`QueueError::Unknown`], [`QueueError::WrongState`] when it runs, [`QueueError::Full`] when it was done.
    pub fn retry(&mut self, id: &JobId, now_unix_ms: u64) -> Result<Vec<JobId>, QueueError> {
        let state = self.expect(id, &[StateName::Ready, StateName::Parked, StateName::Done])?.state.name();
        let live = self.jobs.len() - self.done.len();
        if state == StateName::Done && live >= JOBS_MAX {
            return Err(QueueError::Full(live));
        }
        self.change(id, |job| {
            job.state = State::Ready { at_unix_ms: now_unix_ms };
            // the age limit counts from here
            job.created_unix_ms = now_unix_ms;
            (job.attempts, job.failures, job.interruptions) = (0, 0, 0);
        });
        Ok(vec![id.clone()])
    }

    /// Drops a job that does not run, for example because its recording was deleted. Unknown ids are no error.
    ///
    /// # Errors
    /// [`QueueError::WrongState`] when it runs.
    pub fn forget(&mut self, id: &JobId) -> Result<Vec<JobId>, QueueError> {
        match self.expect(id, &[StateName::Ready, StateName::Parked, StateName::Done]) {
            Ok(_) => {
                self.take(id);
                Ok(vec![id.clone()])
            }
            Err(QueueError::Unknown(_)) => Ok(Vec::new()),
            Err(other) => Err(other),
        }
    }

    /// Marks as running what runs although the disk does not know it: for the driver, after it read the disk again while
    /// the workers went on.
    pub(crate) fn keep_running(&mut self, running: &[Job]) {
        for was in running {
            self.change(&was.id, |job| {
                job.state = was.state.clone();
                job.attempts = was.attempts;
                job.interruptions = was.interruptions;
            });
        }
    }

    /// The job of that name.
    pub fn get(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id)
    }

    /// All jobs, by id.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// Jobs that match: the oldest first, and after them those that are done, the latest first.
    pub fn list(&self, filter: &Filter) -> Vec<Job> {
        let wanted = |job: &&Job| {
            filter.kind.as_ref().is_none_or(|kind| *kind == job.kind)
                && filter.state.is_none_or(|state| state == job.state.name())
                && filter.recording.is_none_or(|recording| recording == job.recording)
        };
        let mut found: Vec<&Job> = self.jobs.values().filter(wanted).collect();
        found.sort_by_key(|job| match job.state {
            State::Done { at_unix_ms } => (true, u64::MAX - at_unix_ms, &job.id),
            _ => (false, job.created_unix_ms, &job.id),
        });
        found.into_iter().take(filter.limit.unwrap_or(usize::MAX)).cloned().collect()
    }

    /// When the next job among `limits`' kinds with room becomes due (it may be past): when to claim again if nothing
    /// else happens.
    pub fn next_due(&self, limits: &KindLimits) -> Option<u64> {
        let first = |kind| {
            let due = self.due.get(kind).and_then(|set| set.first()).map(|(_, at, _)| *at);
            due.or_else(|| Some(self.waiting.get(kind)?.first()?.0))
        };
        let with_room = limits.iter().filter(|(kind, limit)| self.running_of(kind) < **limit);
        with_room.filter_map(|(kind, _)| first(kind)).min()
    }

    /// Numbers by kind and state.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for job in self.jobs.values() {
            *counts.entry((job.kind.clone(), job.state.name())).or_default() += 1;
        }
        counts
    }

    fn running_of(&self, kind: &JobKind) -> usize {
        self.running.get(kind).copied().unwrap_or(0)
    }

    fn expect(&self, id: &JobId, states: &[StateName]) -> Result<&Job, QueueError> {
        let job = self.jobs.get(id).ok_or_else(|| QueueError::Unknown(id.clone()))?;
        let state = job.state.name();
        if states.contains(&state) { Ok(job) } else { Err(QueueError::WrongState { id: id.clone(), state }) }
    }

    fn change(&mut self, id: &JobId, change: impl FnOnce(&mut Job)) {
        if let Some(mut job) = self.take(id) {
            change(&mut job);
            self.insert(job);
        }
    }

    fn insert(&mut self, job: Job) {
        match job.state {
            State::Ready { at_unix_ms } => {
                let waiting = self.waiting.entry(job.kind.clone()).or_default();
                waiting.insert((at_unix_ms, job.id.clone()));
            }
            State::Running { .. } => *self.running.entry(job.kind.clone()).or_default() += 1,
            State::Done { at_unix_ms } => {
                self.done.insert((at_unix_ms, job.id.clone()));
            }
            State::Parked { .. } => {}
        }
        self.jobs.insert(job.id.clone(), job);
    }

    fn take(&mut self, id: &JobId) -> Option<Job> {
        let job = self.jobs.remove(id)?;
        match job.state {
            State::Ready { at_unix_ms } => {
                if let Some(set) = self.waiting.get_mut(&job.kind) {
                    set.remove(&(at_unix_ms, id.clone()));
                }
                if let Some(set) = self.due.get_mut(&job.kind) {
                    set.remove(&(job.priority, at_unix_ms, id.clone()));
                }
            }
            State::Running { .. } => {
                if let Some(running) = self.running.get_mut(&job.kind) {
                    *running = running.saturating_sub(1);
                }
            }
            State::Done { at_unix_ms } => {
                self.done.remove(&(at_unix_ms, id.clone()));
            }
            State::Parked { .. } => {}
        }
        Some(job)
    }

    /// Moves what has become due from `waiting` to `due`.
    fn ripen(&mut self, now_unix_ms: u64) {
        for (kind, waiting) in &mut self.waiting {
            while let Some((at, id)) = waiting.pop_first() {
                if at > now_unix_ms {
                    waiting.insert((at, id));
                    break;
                }
                if let Some(job) = self.jobs.get(&id) {
                    self.due.entry(kind.clone()).or_default().insert((job.priority, at, id));
                }
            }
        }
    }

    /// When the clock was set back, moves all waits back with it, or they would last longer by as much.
    fn follow_clock(&mut self, now_unix_ms: u64) {
        if now_unix_ms.saturating_add(CLOCK_STEP_MS) < self.now_latest {
            let step = self.now_latest - now_unix_ms;
            for set in self.waiting.values_mut() {
                for (at, id) in std::mem::take(set) {
                    let at = at.saturating_sub(step);
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.state = State::Ready { at_unix_ms: at };
                        set.insert((at, id));
                    }
                }
            }
            self.now_latest = now_unix_ms;
        }
        self.now_latest = self.now_latest.max(now_unix_ms);
    }

    fn forget_old_done(&mut self) -> Vec<JobId> {
        let mut forgotten = Vec::new();
        while self.done.len() > DONE_KEPT
            && let Some((_, id)) = self.done.pop_first()
        {
            self.jobs.remove(&id);
            forgotten.push(id);
        }
        forgotten
    }
}

impl Serialize for Enqueued {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::New => serializer.serialize_str("new"),
            Self::Known(state) => state.serialize(serializer),
        }
    }
}

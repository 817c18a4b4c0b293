//! When to try again, and when to stop trying.

use std::collections::BTreeMap;

use crate::JobKind;

/// The longest that a job may be told to wait, 24 hours. Longer plans belong into the catalogue; and a clock that was wrong
/// when a job was put off can cost no more than this.
pub const WAIT_MS_MAX: u64 = 24 * 3600 * 1000;

/// Failures before the age limit is looked at, so that a clock that leapt forward does not park a job at its first failure.
const FAILURES_BEFORE_AGE: u32 = 5;

/// How a kind of job is retried: after its n-th failure in a row it waits a random time between nothing and
/// `base · 2^(n-1)`, at most `cap` ("full jitter": thousands of jobs that failed together do not come back together).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Longest wait after the first failure, milliseconds.
    pub base_ms: u64,
    /// Longest wait at all, milliseconds; at most [`WAIT_MS_MAX`].
    pub cap_ms: u64,
    /// Failures after which the job is parked; `None`: never.
    pub attempts_max: Option<u32>,
    /// Age (since enqueued) after which a failing job is parked, milliseconds; `None`: never.
    pub age_ms_max: Option<u64>,
}

impl RetryPolicy {
    /// 2 s doubling to 10 minutes, for ever: for work on which data depends.
    pub const PATIENT: Self = Self { base_ms: 2_000, cap_ms: 600_000, attempts_max: None, age_ms_max: None };
    /// The same waits for a week: for work that others refuse or that is stale some day.
    pub const WEEK: Self = Self { age_ms_max: Some(7 * 24 * 3600 * 1000), ..Self::PATIENT };
}

/// The policy of each kind.
#[derive(Debug, Clone)]
pub struct RetryPolicies {
    /// For kinds not named.
    pub default: RetryPolicy,
    /// By kind.
    pub kinds: BTreeMap<JobKind, RetryPolicy>,
}

impl Default for RetryPolicies {
    /// Archive and delete never give up; everything else gives up after a week.
    fn default() -> Self {
        let patient = [JobKind::ARCHIVE, JobKind::DELETE].map(|kind| (kind, RetryPolicy::PATIENT));
        Self { default: RetryPolicy::WEEK, kinds: patient.into() }
    }
}

impl RetryPolicies {
    /// The policy of `kind`.
    pub fn of(&self, kind: &JobKind) -> &RetryPolicy {
        self.kinds.get(kind).unwrap_or(&self.default)
    }
}

/// How a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may go better another time.
    Transient,
    /// It cannot be tried before that many milliseconds have passed (an unmounted share, a server's `Retry-After`), and that
    /// is not the job's fault: it does not count towards the limits. At most [`WAIT_MS_MAX`].
    NotYet {
        /// Milliseconds to wait.
        wait_ms: u64,
    },
    /// No retry will cure it.
    Permanent,
}

/// The wait after `failures` failures in a row (from 1), with `random` uniform over all of `u64`.
pub fn backoff_ms(policy: &RetryPolicy, failures: u32, random: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(63);
    let ceiling = u128::from(policy.base_ms) << doublings;
    let ceiling = ceiling.min(u128::from(policy.cap_ms.min(WAIT_MS_MAX)));
    let wait = (u128::from(random) * (ceiling + 1)) >> 64;
    u64::try_from(wait).expect("a 64 bit number times at most 2^64, shifted by 64, fits")
}

/// Whether `policy` ends the retries of a job with that many failures in a row (the latest counted) and that age.
pub(crate) fn exhausted(policy: &RetryPolicy, failures: u32, age_ms: u64) -> Option<crate::ParkReason> {
    if policy.attempts_max.is_some_and(|max| failures >= max) {
        return Some(crate::ParkReason::Attempts);
    }
    let old = policy.age_ms_max.is_some_and(|max| age_ms >= max);
    (old && failures >= FAILURES_BEFORE_AGE).then_some(crate::ParkReason::Age)
}

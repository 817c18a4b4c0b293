//! How things stand, taken once a second, so that saying it needs nobody's cooperation.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::{Value, json};

/// How well something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    #[default]
    Ok,
    /// It works, and someone should look at it.
    Degraded,
    /// It does not do what it is for.
    Failing,
}

/// One part of the appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    /// How well it is.
    pub status: Status,
    /// Why, and what to do; empty when it is well. Without personal data: anyone who reaches the endpoint reads it.
    pub reason: String,
}

impl Component {
    /// Well.
    pub fn ok() -> Self {
        Self { status: Status::Ok, reason: String::new() }
    }

    /// Not well.
    pub fn new(status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }
}

/// The parts of the appliance; together they are as well as the worst of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// By name.
    pub components: BTreeMap<String, Component>,
}

impl Health {
    /// The worst of the parts.
    pub fn status(&self) -> Status {
        self.components.values().map(|component| component.status).max().unwrap_or_default()
    }

    /// `{"status", "components": {NAME: {"status", "reason"}}}`.
    pub fn json(&self) -> Value {
        json!({"status": self.status(), "components": self.components})
    }
}

/// How things stood at some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What `/health` says.
    pub health: Health,
    /// Why `/ready` says no; `None` when calls are taken.
    pub not_ready: Option<String>,
    /// What `/metrics` says, in Prometheus' text form, or in OpenMetrics' when it ends with `# EOF`.
    pub metrics: String,
}

/// The latest snapshot and its age.
#[derive(Debug)]
pub(crate) struct Board {
    latest: Mutex<Option<(Instant, Snapshot)>>,
    started: Instant,
    age_max: Duration,
}

impl Board {
    pub(crate) fn new(age_max: Duration) -> Self {
        Self { latest: Mutex::new(None), started: Instant::now(), age_max }
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), snapshot));
    }

    /// The latest; when there is none yet, or it is old, one that says so.
    pub(crate) fn read(&self) -> Snapshot {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match latest {
            Some((taken, snapshot)) if taken.elapsed() <= self.age_max => snapshot,
            Some((taken, snapshot)) => {
                let age_s = taken.elapsed().as_secs();
                let reason = format!("callvaultd has not said how it is for {age_s} s; if it stays so, restart it");
                outdated(snapshot, reason)
            }
            None => {
                let age_s = self.started.elapsed().as_secs();
                let reason = format!("callvaultd has not said how it is since it started {age_s} s ago");
                outdated(Snapshot::default(), reason)
            }
        }
    }

    /// Whether the latest is too old to be believed.
    pub(crate) fn is_stale(&self) -> bool {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.as_ref().is_none_or(|(taken, _)| taken.elapsed() > self.age_max)
    }
}

fn outdated(mut snapshot: Snapshot, reason: String) -> Snapshot {
    let component = Component::new(Status::Failing, &reason);
    snapshot.health.components.insert("daemon".into(), component);
    snapshot.not_ready = Some(reason);
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn together_they_are_as_well_as_the_worst() {
        let check = |parts: &[Status], expected| {
            let components =
                parts.iter().enumerate().map(|(n, status)| (n.to_string(), Component::new(*status, "why"))).collect();
            assert_eq!(Health { components }.status(), expected);
        };
        check(&[], Status::Ok);
        check(&[Status::Ok], Status::Ok);
        check(&[Status::Degraded, Status::Ok], Status::Degraded);
        check(&[Status::Ok, Status::Failing, Status::Degraded], Status::Failing);
    }
}

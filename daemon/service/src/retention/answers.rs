//! What is asked about retention, and the answers that it waits for.

use callvault_access::{Action, Caller, On};
use callvault_http::{Answer, ApiError, ErrorKind};
use callvault_policy::retention::{Preserving, RetentionRule, StoredRule};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ASKS_NOTE, Look, StoredClock, locked, look};
use crate::appliance::Appliance;

fn failed(error: impl std::fmt::Display) -> ApiError {
    tracing::error!("failed to {error}");
    ApiError::new(ErrorKind::Unavailable, format!("failed to {error}"))
}

impl Appliance {
    /// What retention would do now.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`]; [`ErrorKind::Unavailable`].
    pub(crate) fn retention_plan(&self, caller: &Caller) -> Answer {
        self.permit_all(caller, Action::Retention)?;
        self.plan()
    }

    /// Has it run at once. What has to be confirmed is not deleted by that.
    ///
    /// # Errors
    /// As [`Appliance::retention_plan`].
    pub(crate) fn retention_run(&self, caller: &Caller) -> Answer {
        let entry = self.entry(caller, Action::ChangeStore).with("retention", "run");
        self.permit(caller, Action::ChangeStore, On::Everything, &entry)?;
        let plan = self.plan()?;
        self.retention.bell.ring();
        Ok(plan)
    }

    /// Confirms what is asked, if that is what `token` names.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when nothing is asked, or something else by now; as [`Appliance::retention_plan`].
    pub(crate) fn retention_confirm(&self, caller: &Caller, token: &str) -> Answer {
        let entry = self.entry(caller, Action::ChangeStore).with("retention", "confirm");
        self.allow(caller, Action::ChangeStore, On::Everything, &entry)?;
        let asked = locked(&self.retention.asked).clone().filter(|asked| asked.token == token).ok_or_else(|| {
            let text = "this is not what is asked, or not any more; `callvaultctl retention plan` shows what is";
            ApiError::new(ErrorKind::Conflict, text)
        })?;
        let entry = entry.with("kind", asked.kind).with("recordings", asked.recordings.to_string());
        let done = if asked.kind == "clock" {
            let now = StoredClock::now();
            self.retention.remember(&self.catalogue, Some(&entry), |state| state.clock = Some(now))
        } else {
            self.retention.remember(&self.catalogue, Some(&entry), |state| {
                state.in_force = Some(asked.rule.clone());
                state.confirmed_until = Some(asked.until);
            })
        };
        done.map_err(failed)?;
        *locked(&self.retention.asked) = None;
        self.notes.clear(ASKS_NOTE);
        tracing::warn!(kind = asked.kind, recordings = asked.recordings, "retention: what was asked is confirmed");
        self.retention.bell.ring();
        Ok(json!({"confirmed": asked.kind, "recordings": asked.recordings}))
    }

    fn plan(&self) -> Answer {
        let retention = &self.retention;
        let found = look(self).map_err(failed)?;
        let remembered = locked(&retention.remembered).clone();
        let in_force = remembered.in_force.as_ref().map_or_else(RetentionRule::keep_all, StoredRule::rule);
        let asked = locked(&retention.asked).clone();
        let last = locked(&retention.last_run).clone();
        Ok(json!({
            "rule": rule_json(&retention.rule),
            "in_force": rule_json(&in_force),
            "preserving": retention.rule.allows_preserving(),
            "plan": found.as_ref().map(plan_json),
            "question": asked.map(|asked| json!({
                "kind": asked.kind, "token": asked.token, "text": asked.text, "recordings": asked.recordings,
                "until": time(asked.until),
            })),
            "last_run": {"at": last.at.map(time), "deleted": last.deleted, "error": last.error},
        }))
    }
}

pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

pub(super) fn rule_json(rule: &RetentionRule) -> Value {
    let preserved = match rule.preserving {
        Preserving::ForEver => "for-ever".to_owned(),
        Preserving::Longer(period) => period.to_string(),
    };
    json!({
        "name": rule.name, "period": rule.period.map(|period| period.to_string()), "preserved": preserved,
        "time_zone": StoredRule::of(rule).zone, "text": rule.to_string(),
    })
}

fn plan_json(look: &Look) -> Value {
    let tally = &look.tally;
    json!({
        "at": time(look.now), "recordings": tally.recordings, "due": tally.all(),
        "due_by_new_rule": tally.due_by_new_rule, "confirmed": tally.confirmed, "held": tally.held,
        "bytes": tally.bytes, "oldest": tally.oldest.map(time), "newest": tally.newest.map(time),
        "goes_now": tally.confirmed
            + if look.permits.due { tally.due } else { 0 }
            + if look.permits.due_by_new_rule { tally.due_by_new_rule } else { 0 },
    })
}

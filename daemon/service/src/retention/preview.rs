//! What retention would do under settings that are not in force: counted from the recordings, by the rules that delete, and nothing is
//! deleted or asked by it.

use std::sync::atomic::Ordering;

use anyhow::Context as _;
use callvault_config::Config;
use callvault_policy::retention::{AskThresholds, Decision, RetentionRule, StoredRule, Tally};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::answers::{rule_json, time};
use super::{awaiting_upload, candidate, each_row, locked, rule_of};
use crate::appliance::Appliance;

/// What the first run under other settings would do.
pub(crate) struct Preview {
    rule: RetentionRule,
    tally: Tally,
    thresholds: AskThresholds,
}

impl Preview {
    /// Whether recordings go that would stay under the rule in force.
    pub(crate) fn deletes_more(&self) -> bool {
        self.tally.due_by_new_rule > 0
    }

    /// | field | meaning |
    /// |---|---|
    /// | `rule` | the rule, as `GET /v1/retention` has it |
    /// | `recordings` | that there are |
    /// | `due` | that the next run would delete, those included that it asks about first |
    /// | `due_by_new_rule` | of these, those that would stay under the rule in force |
    /// | `held` | that go later: they are being played, archived or uploaded |
    /// | `bytes`, `oldest`, `newest` | of those that are due |
    /// | `question` | what it asks before: `shorter-rule`, `large-share`, or null |
    pub(crate) fn json(&self) -> Value {
        let tally = &self.tally;
        json!({
            "rule": rule_json(&self.rule), "recordings": tally.recordings, "due": tally.all(),
            "due_by_new_rule": tally.due_by_new_rule, "held": tally.held, "bytes": tally.bytes,
            "oldest": tally.oldest.map(time), "newest": tally.newest.map(time),
            "question": tally.question(&self.thresholds).map(|question| question.as_str()),
        })
    }
}

/// Counts what the next run would delete under `config`.
///
/// # Errors
/// The rule cannot be used, the catalogue cannot be read, or the appliance stops.
pub(crate) fn preview(appliance: &Appliance, config: &Config) -> anyhow::Result<Preview> {
    let rule = rule_of(config)?;
    let remembered = locked(&appliance.retention.remembered).clone();
    let decision = Decision {
        wanted: rule.clone(),
        in_force: remembered.in_force.as_ref().map_or_else(RetentionRule::keep_all, StoredRule::rule),
        confirmed_until: remembered.confirmed_until,
    };
    let now = Timestamp::now();
    let awaiting = awaiting_upload(appliance, config.retention.wait_for_upload);
    let recordings = appliance.catalogue.counts().context("count recordings")?.values().sum();
    let mut tally = Tally { recordings, ..Tally::default() };
    each_row(appliance, &rule, now, |row| {
        let candidate = candidate(appliance, row, &awaiting);
        tally.count(&candidate, decision.standing(&candidate, now));
        Ok(true)
    })
    .context("count what would be deleted")?;
    anyhow::ensure!(!appliance.stopping.load(Ordering::Relaxed), "count what would be deleted: the appliance stops");
    let thresholds =
        AskThresholds { few: u64::from(config.retention.confirm_few), share_percent: config.retention.confirm_share };
    Ok(Preview { rule, tally, thresholds })
}

//! What becomes of calls: the policy asked with the users as they are now; what is remembered of calls until it is known that they are not
//! kept; and how much is used of what is licensed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use callvault_catalogue::{Direction, Discard};
use callvault_config::{Config, LicenceModel};
use callvault_control::Decision;
use callvault_directory::{Directory, RecordingMode as Own, User};
use callvault_journal::facts::{self, CallFacts};
use callvault_policy::{Owner, Ownership, owner, traffic_by};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::{row, told};

/// Calls that are remembered at once; more than any machine has at a time. Beyond it those discarded are counted and not noted.
const WAITING_MAX: usize = 50_000;

/// Calls that may come to nothing.
#[derive(Debug, Default)]
pub(crate) struct Deciding {
    /// Calls that were not to be kept when they began; a journal whose key is gone does not say whose they were.
    waiting: Mutex<BTreeMap<Uuid, Discard>>,
}

impl Appliance {
    /// What becomes of a call, by the rules of the policy. Waits for nothing.
    pub(crate) fn decide(&self, id: Uuid, facts: &CallFacts) -> Decision {
        let directory = self.access.people.now();
        let decision = told::decide(facts, &told::policy(&self.settings()), &directory);
        if matches!(decision, Decision::Keep) {
            return decision;
        }
        let mut waiting = self.deciding.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.config.filters.discards_kept.is_zero() || waiting.len() >= WAITING_MAX {
            return decision;
        }
        waiting.insert(id, not_kept(id, facts, &directory));
        decision
    }

    /// A call has ended: where it was not kept, by this rule, that is noted.
    pub(crate) fn settle_call(&self, id: Uuid, rule: Option<&str>) {
        let waited = self.deciding.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let (Some(discard), Some(rule)) = (waited, rule) else { return };
        let rule = if rule.is_empty() { "unknown" } else { rule }.to_owned();
        if let Err(error) = self.catalogue.note_discard(&Discard { rule, at: Timestamp::now(), ..discard }) {
            tracing::error!("failed to {error}");
        }
    }

    /// Forgets what was not kept long ago.
    pub(crate) fn forget_discards(&self) {
        let kept = SignedDuration::try_from(self.config.filters.discards_kept).unwrap_or(SignedDuration::MAX);
        let Ok(before) = Timestamp::now().checked_sub(kept) else { return };
        match self.catalogue.forget_discards(before) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "calls that were not kept are forgotten"),
            Err(error) => tracing::error!("failed to {error}"),
        }
    }

    /// Users whose calls are recorded, as far as a licence counts them.
    pub(crate) fn licensed_users<'a>(users: impl IntoIterator<Item = &'a User>) -> usize {
        let counts =
            |user: &&User| user.removed_at.is_none() && !user.catch_all && user.recording_mode != Some(Own::Never);
        users.into_iter().filter(counts).count()
    }

    /// What is wrong with how much is used; none where that is not limited, or all is well.
    pub(crate) fn licence_alarm(&self, calls: u32) -> Option<String> {
        let licence = &self.config.licence;
        let directory = self.access.people.now();
        let users = || Self::licensed_users(directory.all().iter().map(AsRef::as_ref));
        match licence.model {
            LicenceModel::Channels if calls >= licence.channels_max => Some(format!(
                "as many calls are recorded as licence.channels_max allows ({}): others are refused (503); raise it, or find out who calls",
                licence.channels_max
            )),
            LicenceModel::Users if users() > licence.users_max as usize => Some(format!(
                "there are {} users whose calls are recorded, and licence.users_max is {}: remove some, set their recording_mode to never, or raise it",
                users(),
                licence.users_max
            )),
            _ => None,
        }
    }

    /// What is to be said while nobody is in the directory.
    pub(crate) fn directory_remark(&self) -> Option<String> {
        self.access.people.now().is_empty().then(|| {
            "no user is known: every call is kept, and only administrators see it; import users with `callvaultctl users import FILE`"
                .to_owned()
        })
    }
}

/// The sessions that the recorder takes at once.
pub(crate) fn sessions_max(config: &Config) -> u32 {
    match config.licence.model {
        LicenceModel::Channels => config.limits.sessions_max.min(config.licence.channels_max),
        LicenceModel::None | LicenceModel::Users => config.limits.sessions_max,
    }
}

fn not_kept(id: Uuid, call: &CallFacts, directory: &Directory) -> Discard {
    let user = match owner(call, directory) {
        Ownership::Of(Owner { user, .. }) => Some(user),
        Ownership::Ambiguous | Ownership::Nobody => None,
    };
    Discard {
        id,
        at: Timestamp::UNIX_EPOCH,
        rule: String::new(),
        owner_id: user.as_ref().map(|user| user.id),
        owner: user.map(|user| user.webex_email.clone()),
        direction: match call.direction {
            facts::Direction::Incoming => Direction::Incoming,
            facts::Direction::Outgoing => Direction::Outgoing,
            facts::Direction::Unknown => Direction::Unknown,
        },
        traffic: row::traffic_word(traffic_by(call, directory)),
        local_number: call.local.number.clone(),
        remote_number: call.remotes.first().and_then(|remote| remote.number.clone()),
        call_id: call.call_id.clone(),
        tracking_id: call.tracking_id.clone(),
    }
}

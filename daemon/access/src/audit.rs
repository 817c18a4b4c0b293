//! The audit log: what an entry says, and the chain that shows when one was changed, taken out or put in.
//!
//! An entry is sealed before it is stored, as it holds names; the chain is over the sealed bytes, so that it can be checked without
//! any key. Each link is the SHA-256 of what is in [`link`], the link before it included; that before the first is [`genesis`].
//! What the chain cannot show by itself is that its end is missing: for that, somebody has to have noted a head.

use callvault_directory::Level;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{Action, Caller, Refusal, Through};

/// Characters of a value among the details of an entry; the rest is cut off. An entry is of a size that nobody can blow up.
pub const DETAIL_CHARS_MAX: usize = 200;

/// Details of an entry.
pub const DETAILS_MAX: usize = 16;

/// A link of the chain.
pub type Link = [u8; 32];

/// What stands before the first entry of the log `log`.
pub fn genesis(log: Uuid) -> Link {
    Sha256::new().chain_update(b"callvault audit 1\0").chain_update(log.as_bytes()).finalize().into()
}

/// The link of the entry `number` (from 1) of the time `at_ms`, after the one with the link `before`.
pub fn link(before: &Link, number: u64, at_ms: i64, sealed: &[u8]) -> Link {
    Sha256::new()
        .chain_update(b"callvault audit entry 1\0")
        .chain_update(before)
        .chain_update(number.to_be_bytes())
        .chain_update(at_ms.to_be_bytes())
        .chain_update(sealed)
        .finalize()
        .into()
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was allowed, and done or about to be done.
    Allowed,
    /// It was not allowed.
    Refused,
    /// It was allowed and could not be done.
    Failed,
}

impl Outcome {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// An entry. Almost all of it is personal data: `Debug` shows what was done and how it went alone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, to the millisecond.
    pub at: Timestamp,
    /// Who, as [`Caller::name`].
    pub name: String,
    /// Which user, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Uuid>,
    /// At which level.
    pub level: Level,
    /// From where, as [`Caller::from`].
    pub from: String,
    /// By which way.
    pub through: Through,
    /// What, as [`Action::as_str`]. Text, so that an entry of a later version can be read.
    pub action: String,
    /// On which recording, if on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<Uuid>,
    /// How it went.
    pub outcome: Outcome,
    /// What else there is to say: names and values, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<(String, String)>,
}

impl Entry {
    /// Something that `caller` is allowed to do.
    pub fn new(caller: &Caller, action: Action, at: Timestamp) -> Self {
        Self {
            at: Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at),
            name: cut(&caller.name),
            user: caller.user,
            level: caller.level,
            from: cut(&caller.from),
            through: caller.through,
            action: action.as_str().to_owned(),
            recording: None,
            outcome: Outcome::Allowed,
            details: Vec::new(),
        }
    }

    /// The same on a recording.
    #[must_use]
    pub fn on(self, recording: Uuid) -> Self {
        Self { recording: Some(recording), ..self }
    }

    /// The same with something else to say. Beyond [`DETAILS_MAX`] nothing is added, and long values are cut.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        if self.details.len() < DETAILS_MAX {
            self.details.push((cut(name), cut(value.as_ref())));
        }
        self
    }

    /// The same, refused.
    #[must_use]
    pub fn refused(self, refusal: &Refusal) -> Self {
        Self { outcome: Outcome::Refused, ..self.with("rule", refusal.rule) }
    }

    /// The same, which could not be done; `why` without personal data.
    #[must_use]
    pub fn failed(self, why: &str) -> Self {
        Self { outcome: Outcome::Failed, ..self.with("why", why) }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("action", &self.action).field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_CHARS_MAX).collect()
}

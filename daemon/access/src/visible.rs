//! Which recordings somebody may find.

use std::collections::BTreeSet;

use uuid::Uuid;

/// Which recordings may be in a list or in what a search finds: by their owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visible {
    /// All, those that belong to nobody among them.
    All,
    /// Those of these users.
    Of(BTreeSet<Uuid>),
}

impl Visible {
    /// None at all.
    pub fn nothing() -> Self {
        Self::Of(BTreeSet::new())
    }

    /// Whether a recording of `owner` is among them.
    pub fn has(&self, owner: Option<Uuid>) -> bool {
        match self {
            Self::All => true,
            Self::Of(owners) => owner.is_some_and(|owner| owners.contains(&owner)),
        }
    }
}

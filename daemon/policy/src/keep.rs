//! Whether a call is kept.

use callvault_journal::facts::CallFacts;

/// What the organisation has set about which calls are kept.
///
/// There is nothing to set as long as the directory of users is empty: then every call is kept, unowned, for administrators
/// only. Filters, the catch-all and on-demand users are settings here when they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicySettings {}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepVerdict {
    /// Its key is written: it becomes a recording.
    Keep,
    /// Its key is dropped; nobody can ever read what the journal has of it.
    Discard {
        /// The rule that says so.
        rule: String,
    },
    /// Its key waits until someone asks for the call to be kept.
    OnDemand,
}

/// One rule: a verdict where it applies, none where the next rule is to be asked.
type Rule = fn(&CallFacts, &PolicySettings) -> Option<KeepVerdict>;

/// The rules in the order in which they are asked; the first that applies decides.
const RULES: &[Rule] = &[];

/// Whether this call is kept. What no rule speaks of is kept: a call is lost only by decision.
pub fn keep(facts: &CallFacts, settings: &PolicySettings) -> KeepVerdict {
    RULES.iter().find_map(|rule| rule(facts, settings)).unwrap_or(KeepVerdict::Keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use callvault_journal::facts::Party;

    #[test]
    fn without_settings_every_call_is_kept() {
        fn check(facts: &CallFacts) {
            assert_eq!(keep(facts, &PolicySettings::default()), KeepVerdict::Keep, "{facts:?}");
        }
        check(&CallFacts::default());
        check(&CallFacts {
            local: Party { number: Some("+390505550171".to_owned()), ..Party::default() },
            recording_type: Some("off".to_owned()),
            ..CallFacts::default()
        });
    }
}

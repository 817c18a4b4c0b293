//! Whether a call is kept.

use callvault_journal::facts::{CallFacts, Party};

/// When a user's calls are kept. Webex has these modes for each of its users and more; what it does not tell the recorder is
/// set here. (Users whose calls are never kept come with the directory.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecordingMode {
    /// All of them.
    #[default]
    Always,
    /// Those that somebody asks for while they go on.
    OnDemand,
}

/// What the organisation has set about which calls are kept. The default keeps every call, unowned, for administrators only.
///
/// Filters and the catch-all are settings here when they come. A directory of users takes the place of `on_demand_users`: it tells
/// the mode of a user, which `mode_of` is asked for and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicySettings {
    mode: RecordingMode,
    on_demand_users: Vec<String>,
    keep_types: Vec<String>,
}

impl PolicySettings {
    /// Settings. `mode` is that of users of whom nothing else is known; `on_demand_users` are ids of users, numbers, or
    /// addresses with or without their scheme; `keep_types` are the recording types by which a client asks for a call to be kept.
    pub fn new(mode: RecordingMode, on_demand_users: &[String], keep_types: &[String]) -> Self {
        let all = |texts: &[String], as_compared: fn(&str) -> String| {
            texts.iter().map(|text| as_compared(text)).filter(|text| !text.is_empty()).collect()
        };
        let word = |text: &str| text.trim().to_lowercase();
        Self { mode, on_demand_users: all(on_demand_users, comparable), keep_types: all(keep_types, word) }
    }

    /// The mode of the recorded user.
    fn mode_of(&self, user: &Party) -> RecordingMode {
        let names = [&user.user_id, &user.aor, &user.number];
        let is_listed = names
            .into_iter()
            .flatten()
            .map(|name| comparable(name))
            .any(|name| !name.is_empty() && self.on_demand_users.contains(&name));
        if is_listed { RecordingMode::OnDemand } else { self.mode }
    }
}

/// An id, a number or an address in a form in which two that are the same are equal: without scheme, parameters and the separators of
/// numbers, in lower case.
fn comparable(text: &str) -> String {
    let text = text.trim().trim_start_matches('<').trim_end_matches('>').to_lowercase();
    let text = ["sip:", "sips:", "tel:"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(&text);
    let text = text.split([';', '?']).next().unwrap_or_default();
    let is_number = text.chars().all(|c| c.is_ascii_digit() || " +-.()/".contains(c));
    if is_number { text.chars().filter(|c| c.is_ascii_digit() || *c == '+').collect() } else { text.to_owned() }
}

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
const RULES: &[Rule] = &[self_test, asked_for_by_the_client, on_demand];

/// The domain of the users of a self-test. No real user can be there (RFC 2606 section 2).
const SELF_TEST_DOMAIN: &str = "@selftest.invalid";

/// A self-test looks for its recordings and asks nobody to keep them.
fn self_test(facts: &CallFacts, _: &PolicySettings) -> Option<KeepVerdict> {
    let is_there =
        |name: &Option<String>| name.as_deref().is_some_and(|name| comparable(name).ends_with(SELF_TEST_DOMAIN));
    (is_there(&facts.local.user_id) || is_there(&facts.local.aor)).then_some(KeepVerdict::Keep)
}

/// The client says that the call is to be kept.
fn asked_for_by_the_client(facts: &CallFacts, settings: &PolicySettings) -> Option<KeepVerdict> {
    let said = facts.recording_type.as_deref()?.trim().to_lowercase();
    settings.keep_types.contains(&said).then_some(KeepVerdict::Keep)
}

fn on_demand(facts: &CallFacts, settings: &PolicySettings) -> Option<KeepVerdict> {
    (settings.mode_of(&facts.local) == RecordingMode::OnDemand).then_some(KeepVerdict::OnDemand)
}

/// Whether this call is kept. What no rule speaks of is kept: a call is lost only by decision.
pub fn keep(facts: &CallFacts, settings: &PolicySettings) -> KeepVerdict {
    RULES.iter().find_map(|rule| rule(facts, settings)).unwrap_or(KeepVerdict::Keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(user_id: &str, aor: &str, number: &str, recording_type: &str) -> CallFacts {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        CallFacts {
            local: Party { user_id: some(user_id), aor: some(aor), number: some(number), ..Party::default() },
            recording_type: some(recording_type),
            ..CallFacts::default()
        }
    }

    #[test]
    fn without_settings_every_call_is_kept() {
        fn check(facts: &CallFacts) {
            assert_eq!(keep(facts, &PolicySettings::default()), KeepVerdict::Keep, "{facts:?}");
        }
        check(&CallFacts::default());
        check(&call("", "", "+390505550171", "off"));
        check(&call("", "", "", ""));
    }

    #[test]
    fn on_demand_users_are_told_by_any_of_their_names() {
        fn check(listed: &str, facts: &CallFacts, expected: KeepVerdict) {
            let settings = PolicySettings::new(RecordingMode::Always, &[listed.to_owned()], &[]);
            assert_eq!(keep(facts, &settings), expected, "{listed} {facts:?}");
        }
        let (kept, waits) = (KeepVerdict::Keep, KeepVerdict::OnDemand);
        let ann = call("aaaa1111bb@12.example.com", "sip:ann@example.com;user=phone", "+15551230100", "");
        check("AAAA1111BB@12.example.com", &ann, waits.clone());
        check("ann@example.com", &ann, waits.clone());
        check("sip:Ann@example.com", &ann, waits.clone());
        check("+1 (555) 123-0100", &ann, waits.clone());
        check("tel:+1-555-123-0100", &ann, waits.clone());
        check("bob@example.com", &ann, kept.clone());
        check("0100", &ann, kept.clone());
        check("", &CallFacts::default(), kept.clone());
        check("", &call("", "sip:", " ", ""), kept.clone());
        // Only the recorded user's mode counts.
        let other = CallFacts { remotes: vec![ann.local.clone()], ..CallFacts::default() };
        check("ann@example.com", &other, kept);
        check("7711", &call("", "", "7711", ""), waits);
    }

    #[test]
    fn what_the_client_asks_to_keep_is_kept_whatever_the_mode() {
        fn check(mode: RecordingMode, recording_type: &str, expected: KeepVerdict) {
            let settings = PolicySettings::new(mode, &[], &["Keep".to_owned(), String::new()]);
            assert_eq!(keep(&call("", "", "1", recording_type), &settings), expected, "{mode:?} {recording_type}");
        }
        check(RecordingMode::OnDemand, "keep", KeepVerdict::Keep);
        check(RecordingMode::OnDemand, " KEEP ", KeepVerdict::Keep);
        check(RecordingMode::OnDemand, "on", KeepVerdict::OnDemand);
        check(RecordingMode::OnDemand, "", KeepVerdict::OnDemand);
        check(RecordingMode::Always, "on", KeepVerdict::Keep);
    }

    #[test]
    fn a_self_test_finds_its_calls_whatever_the_mode() {
        let settings = PolicySettings::new(RecordingMode::OnDemand, &[], &[]);
        let check = |user_id: &str, aor: &str, expected: KeepVerdict| {
            assert_eq!(keep(&call(user_id, aor, "1", "on"), &settings), expected, "{user_id} {aor}");
        };
        check("selftest0000@selftest.invalid", "", KeepVerdict::Keep);
        check("", "sip:+442079460000@selftest.invalid", KeepVerdict::Keep);
        check("a@example.com", "sip:selftest.invalid@example.com", KeepVerdict::OnDemand);
    }
}

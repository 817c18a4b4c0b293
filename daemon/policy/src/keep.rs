//! Whether a call is kept.

use callvault_directory::{Directory, Pattern};
use callvault_journal::facts::{CallFacts, Direction, Party};

use crate::owner::{Owner, owner};
use crate::traffic::{Traffic, traffic_among};

/// When the calls of users are kept of whom nothing else is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecordingMode {
    /// All of them.
    #[default]
    Always,
    /// Those that somebody asks for while they go on.
    OnDemand,
}

/// Which calls are not kept, whoever's they are. What the signalling does not tell is no reason: a call is lost only by decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// Only calls in this direction, seen from the user; [`Direction::Unknown`]: both.
    pub direction: Direction,
    /// Only this traffic; [`Traffic::Unknown`]: both.
    pub traffic: Traffic,
    /// No calls with one of these numbers on the other side.
    pub blacklist: Vec<Pattern>,
    /// No calls of which the directory does not know the user, unless it is empty.
    pub discards_unknown: bool,
}

/// What the organisation has set about which calls are kept. The default keeps every call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicySettings {
    mode: RecordingMode,
    on_demand_users: Vec<String>,
    keep_types: Vec<String>,
    filters: Filters,
}

impl PolicySettings {
    /// Settings. `mode` is that of users of whom nothing else is known; `on_demand_users` are ids of users, numbers, or
    /// addresses with or without their scheme; `keep_types` are the recording types by which a client asks for a call to be kept.
    pub fn new(mode: RecordingMode, on_demand_users: &[String], keep_types: &[String]) -> Self {
        let all = |texts: &[String], as_compared: fn(&str) -> String| {
            texts.iter().map(|text| as_compared(text)).filter(|text| !text.is_empty()).collect()
        };
        let word = |text: &str| text.trim().to_lowercase();
        let (on_demand_users, keep_types) = (all(on_demand_users, comparable), all(keep_types, word));
        Self { mode, on_demand_users, keep_types, filters: Filters::default() }
    }

    /// These settings, with filters.
    #[must_use]
    pub fn with_filters(self, filters: Filters) -> Self {
        Self { filters, ..self }
    }

    /// Whether a user is one of those that are recorded on demand by the settings.
    fn lists_on_demand(&self, user: &Party) -> bool {
        let names = [&user.user_id, &user.aor, &user.number];
        let mut names = names.into_iter().flatten().map(|name| comparable(name));
        names.any(|name| !name.is_empty() && self.on_demand_users.contains(&name))
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

/// What the rules look at.
struct Case<'a> {
    facts: &'a CallFacts,
    settings: &'a PolicySettings,
    directory: &'a Directory,
    owner: Owner,
}

/// One rule: a verdict where it applies, none where the next rule is to be asked.
type Rule = fn(&Case<'_>) -> Option<KeepVerdict>;

/// The rules in the order in which they are asked; the first that applies decides. What people decided about a user or a call goes before what is
/// set for all.
const RULES: &[Rule] = &[self_test, never, asked_for_by_the_client, direction, traffic, blacklist, no_user, on_demand];

/// The names by which calls are discarded, in metrics, in rows and in the list of what was not kept. They never change.
mod rule_names {
    /// The user's recording mode is `never`.
    pub(super) const NEVER: &str = "user-never";
    /// `filters.direction`.
    pub(super) const DIRECTION: &str = "direction";
    /// `filters.traffic`.
    pub(super) const TRAFFIC: &str = "traffic";
    /// `filters.blacklist`.
    pub(super) const BLACKLIST: &str = "blacklist";
    /// `directory.unknown`.
    pub(super) const NO_USER: &str = "no-user";
}

fn discard(rule: &str, applies: bool) -> Option<KeepVerdict> {
    applies.then(|| KeepVerdict::Discard { rule: rule.to_owned() })
}

/// The domain of the users of a self-test. No real user can be there (RFC 2606 section 2).
const SELF_TEST_DOMAIN: &str = "@selftest.invalid";

/// A self-test looks for its recordings and asks nobody to keep them.
fn self_test(case: &Case<'_>) -> Option<KeepVerdict> {
    let local = &case.facts.local;
    let is_there =
        |name: &Option<String>| name.as_deref().is_some_and(|name| comparable(name).ends_with(SELF_TEST_DOMAIN));
    (is_there(&local.user_id) || is_there(&local.aor)).then_some(KeepVerdict::Keep)
}

/// The directory's mode of the user, if it has one of its own.
fn own_mode(case: &Case<'_>) -> Option<callvault_directory::RecordingMode> {
    match &case.owner {
        Owner::User(user, _) => user.recording_mode,
        _ => None,
    }
}

fn never(case: &Case<'_>) -> Option<KeepVerdict> {
    discard(rule_names::NEVER, own_mode(case) == Some(callvault_directory::RecordingMode::Never))
}

/// The client says that the call is to be kept.
fn asked_for_by_the_client(case: &Case<'_>) -> Option<KeepVerdict> {
    let said = case.facts.recording_type.as_deref()?.trim().to_lowercase();
    case.settings.keep_types.contains(&said).then_some(KeepVerdict::Keep)
}

fn direction(case: &Case<'_>) -> Option<KeepVerdict> {
    let (wanted, found) = (case.settings.filters.direction, case.facts.direction);
    let is_other = wanted != Direction::Unknown && found != Direction::Unknown && wanted != found;
    discard(rule_names::DIRECTION, is_other)
}

fn traffic(case: &Case<'_>) -> Option<KeepVerdict> {
    let wanted = case.settings.filters.traffic;
    if wanted == Traffic::Unknown {
        return None;
    }
    let found = traffic_among(case.facts, case.directory);
    discard(rule_names::TRAFFIC, found != Traffic::Unknown && wanted != found)
}

fn blacklist(case: &Case<'_>) -> Option<KeepVerdict> {
    let listed = &case.settings.filters.blacklist;
    let is_listed = |party: &Party| {
        let by_number = party.number.as_deref().is_some_and(|text| case.directory.plan().is_any_of(listed, text));
        by_number
            || party.number.is_none()
                && party.aor.as_deref().is_some_and(|aor| {
                    let user = comparable(aor);
                    case.directory.plan().is_any_of(listed, user.split('@').next().unwrap_or_default())
                })
    };
    discard(rule_names::BLACKLIST, case.facts.remotes.iter().any(is_listed))
}

/// A directory with nobody in it knows nobody, which says nothing. Who could be one of several is one of them.
fn no_user(case: &Case<'_>) -> Option<KeepVerdict> {
    let is_unknown = case.owner == Owner::Nobody && !case.directory.is_empty();
    discard(rule_names::NO_USER, case.settings.filters.discards_unknown && is_unknown)
}

/// The user's own mode, then the list, then the mode of all.
fn on_demand(case: &Case<'_>) -> Option<KeepVerdict> {
    use callvault_directory::RecordingMode as Own;
    let is_on_demand = match own_mode(case) {
        Some(Own::OnDemand | Own::OnDemandUserStart) => true,
        Some(Own::Always | Own::AlwaysWithPause | Own::Never) => false,
        None => case.settings.lists_on_demand(&case.facts.local) || case.settings.mode == RecordingMode::OnDemand,
    };
    is_on_demand.then_some(KeepVerdict::OnDemand)
}

/// Whether this call is kept. What no rule speaks of is kept: a call is lost only by decision.
pub fn keep(facts: &CallFacts, settings: &PolicySettings, directory: &Directory) -> KeepVerdict {
    let case = Case { facts, settings, directory, owner: owner(facts, directory) };
    RULES.iter().find_map(|rule| rule(&case)).unwrap_or(KeepVerdict::Keep)
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
            assert_eq!(keep(facts, &PolicySettings::default(), &Directory::default()), KeepVerdict::Keep, "{facts:?}");
        }
        check(&CallFacts::default());
        check(&call("", "", "+390505550171", "off"));
        check(&call("", "", "", ""));
    }

    #[test]
    fn on_demand_users_are_told_by_any_of_their_names() {
        fn check(listed: &str, facts: &CallFacts, expected: KeepVerdict) {
            let settings = PolicySettings::new(RecordingMode::Always, &[listed.to_owned()], &[]);
            assert_eq!(keep(facts, &settings, &Directory::default()), expected, "{listed} {facts:?}");
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
            assert_eq!(
                keep(&call("", "", "1", recording_type), &settings, &Directory::default()),
                expected,
                "{mode:?} {recording_type}"
            );
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
            assert_eq!(
                keep(&call(user_id, aor, "1", "on"), &settings, &Directory::default()),
                expected,
                "{user_id} {aor}"
            );
        };
        check("selftest0000@selftest.invalid", "", KeepVerdict::Keep);
        check("", "sip:+442079460000@selftest.invalid", KeepVerdict::Keep);
        check("a@example.com", "sip:selftest.invalid@example.com", KeepVerdict::OnDemand);
    }

    /// `email number mode`; `all` is the catch-all.
    fn directory(users: &str) -> Directory {
        let users = users.split(',').filter(|user| !user.trim().is_empty()).map(|user| {
            let part: Vec<&str> = user.split_whitespace().collect();
            callvault_directory::User {
                webex_email: part[0].to_owned(),
                first_extension: part[1].to_owned(),
                recording_mode: part[2].parse().ok(),
                catch_all: part[0] == "all",
                ..Default::default()
            }
        });
        Directory::new(users, callvault_directory::NumberingPlan::new("39", "", "00", vec!["77..".parse().unwrap()]))
    }

    /// What becomes of a call of `local` with `remote`, and by which rule.
    fn decided(settings: &PolicySettings, users: &str, facts: &CallFacts) -> String {
        match keep(facts, settings, &directory(users)) {
            KeepVerdict::Keep => "keep".to_owned(),
            KeepVerdict::OnDemand => "on-demand".to_owned(),
            KeepVerdict::Discard { rule } => rule,
        }
    }

    fn with(local: &str, remote: &str, direction: Direction, recording_type: &str) -> CallFacts {
        let remotes = vec![Party { number: Some(remote.to_owned()), ..Party::default() }];
        CallFacts { remotes, direction, ..call("", "", local, recording_type) }
    }

    #[test]
    fn users_have_modes_of_their_own() {
        fn check(mode: RecordingMode, listed: &[String], own: &str, recording_type: &str, expected: &str) {
            let settings = PolicySettings::new(mode, listed, &["keep".to_owned()]);
            let facts = with("7711", "+441", Direction::Incoming, recording_type);
            let users = format!("ann@x 7711 {own}");
            assert_eq!(decided(&settings, &users, &facts), expected, "{mode:?} {listed:?} {own} {recording_type}");
        }
        let listed = ["7711".to_owned()];
        use RecordingMode::{Always, OnDemand};
        check(Always, &[], "never", "", "user-never");
        check(Always, &[], "never", "keep", "user-never");
        check(Always, &[], "on-demand", "", "on-demand");
        check(Always, &[], "on-demand", "keep", "keep");
        check(Always, &[], "on-demand-user-start", "", "on-demand");
        check(OnDemand, &[], "always", "", "keep");
        check(OnDemand, &[], "always-with-pause", "", "keep");
        check(OnDemand, &[], "-", "", "on-demand");
        check(Always, &listed, "-", "", "on-demand");
        check(Always, &listed, "always", "", "keep");
        check(Always, &[], "-", "", "keep");
    }

    #[test]
    fn filters_in_their_order() {
        fn check(filters: &Filters, facts: &CallFacts, expected: &str) {
            let settings = PolicySettings::new(RecordingMode::OnDemand, &[], &["keep".to_owned()]);
            let settings = settings.with_filters(filters.clone());
            assert_eq!(decided(&settings, "ann@x 7711 always", facts), expected, "{filters:?} {facts:?}");
        }
        let both = Filters::default();
        let incoming = Filters { direction: Direction::Incoming, ..both.clone() };
        let internal = Filters { traffic: Traffic::Internal, ..both.clone() };
        let external = Filters { traffic: Traffic::External, ..both.clone() };
        let listed = Filters { blacklist: vec!["+4420!".parse().unwrap(), "7799".parse().unwrap()], ..both.clone() };
        let known = Filters { discards_unknown: true, ..both.clone() };
        let to = |remote: &str| with("7711", remote, Direction::Outgoing, "");
        check(&both, &to("+442"), "keep");
        check(&incoming, &to("+442"), "direction");
        check(&incoming, &with("7711", "+442", Direction::Incoming, ""), "keep");
        check(&incoming, &with("7711", "+442", Direction::Unknown, ""), "keep");
        check(&incoming, &with("7711", "+442", Direction::Outgoing, "Keep"), "keep");
        check(&internal, &to("+442"), "traffic");
        check(&internal, &to("7712"), "keep");
        check(&external, &to("7712"), "traffic");
        check(&external, &CallFacts { remotes: Vec::new(), ..to("") }, "keep");
        check(&listed, &to("+44 20 7946"), "blacklist");
        check(&listed, &to("00442079460000"), "blacklist");
        check(&listed, &to("7799"), "blacklist");
        check(&listed, &to("+4421"), "keep");
        let by_address = Party { aor: Some("sip:7799@pbx;user=phone".to_owned()), ..Party::default() };
        check(&listed, &CallFacts { remotes: vec![by_address], ..to("") }, "blacklist");
        check(&known, &to("+442"), "keep");
        check(&known, &with("7712", "+442", Direction::Outgoing, ""), "no-user");
        let all = Filters { direction: Direction::Incoming, traffic: Traffic::Internal, ..listed.clone() };
        check(&all, &to("+4420"), "direction");
        check(&Filters { direction: Direction::Unknown, ..all }, &to("+4420"), "traffic");
    }

    #[test]
    fn calls_of_nobody_are_kept_or_not() {
        fn check(discards_unknown: bool, users: &str, expected: &str) {
            let filters = Filters { discards_unknown, ..Filters::default() };
            let settings = PolicySettings::default().with_filters(filters);
            let facts = with("7711", "+441", Direction::Incoming, "");
            assert_eq!(decided(&settings, users, &facts), expected, "{discards_unknown} {users}");
        }
        check(true, "", "keep");
        check(true, "bob@x 7712 -", "no-user");
        check(false, "bob@x 7712 -", "keep");
        check(true, "bob@x 7712 -,all +1 -", "keep");
        check(true, "all +1 never", "user-never");
        check(true, "ann@x 7711 -,bob@x 7711 -", "keep");
    }
}

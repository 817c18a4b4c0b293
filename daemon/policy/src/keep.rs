//! Whether a call is kept.

use callvault_directory::{Directory, Found, Pattern, RecordingMode as UserMode};
use callvault_journal::facts::{CallFacts, Direction, Party};

use crate::call::main_remote;
use crate::owner::{find, traffic_by};
use crate::traffic::Traffic;

/// When the calls of users are kept of whom the directory does not say it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecordingMode {
    /// All of them.
    #[default]
    Always,
    /// Those that somebody asks for while they go on.
    OnDemand,
}

/// Calls that are not kept, whosever they are. The default keeps all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// The only direction that is kept, seen from the recorded user.
    pub direction: Option<Direction>,
    /// The only traffic that is kept.
    pub traffic: Option<Traffic>,
    /// Numbers of others whose calls are not kept.
    pub blacklist: Vec<Pattern>,
    /// Whether calls of nobody in the directory are kept; those of an empty directory are in any case.
    pub keeps_unknown: bool,
}

/// What the organisation has set about which calls are kept. The default keeps every call, unowned, for administrators only.
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

    /// The same with these filters.
    #[must_use]
    pub fn with(self, filters: Filters) -> Self {
        Self { filters, ..self }
    }

    /// The mode of a recorded user: what the directory says, else what the settings say.
    fn mode_of(&self, user: &Party, found: &Found) -> RecordingMode {
        if let Found::User(known, _) = found
            && let Some(mode) = known.recording_mode
        {
            return match mode {
                UserMode::OnDemand | UserMode::OnDemandUserStart => RecordingMode::OnDemand,
                UserMode::Always | UserMode::AlwaysWithPause | UserMode::Never => RecordingMode::Always,
            };
        }
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

/// A call that is to be decided about, with what was found of it.
struct Asked<'a> {
    facts: &'a CallFacts,
    settings: &'a PolicySettings,
    directory: &'a Directory,
    found: Found,
}

/// One rule: a verdict where it applies, none where the next rule is to be asked.
type Rule = fn(&Asked<'_>) -> Option<KeepVerdict>;

/// The rules in the order in which they are asked; the first that applies decides. First what forbids: that a user is never recorded, that
/// a number is not to be, that nobody is there whose call it could be. Nobody's wish goes before that. Then what is asked for, and only
/// then what chooses among the rest: direction, traffic and demand say what is worth keeping where nobody says it of this call.
const RULES: &[Rule] =
    &[self_test, never, blacklist, unknown_user, asked_for_by_the_client, direction, traffic, on_demand];

/// The names of the rules by which a call is discarded, as they are counted and shown.
pub mod rules {
    /// The user's calls are never recorded.
    pub const NEVER: &str = "user-never";
    /// Not the direction that is kept.
    pub const DIRECTION: &str = "filter-direction";
    /// Not the traffic that is kept.
    pub const TRAFFIC: &str = "filter-traffic";
    /// A number of the black list.
    pub const BLACKLIST: &str = "filter-blacklist";
    /// Nobody in the directory.
    pub const UNKNOWN_USER: &str = "unknown-user";
}

fn discard(rule: &str) -> Option<KeepVerdict> {
    Some(KeepVerdict::Discard { rule: rule.to_owned() })
}

/// The domain of the users of a self-test. No real user can be there (RFC 2606 section 2).
const SELF_TEST_DOMAIN: &str = "@selftest.invalid";

/// A self-test looks for its recordings and asks nobody to keep them.
fn self_test(asked: &Asked<'_>) -> Option<KeepVerdict> {
    let facts = asked.facts;
    let is_there =
        |name: &Option<String>| name.as_deref().is_some_and(|name| comparable(name).ends_with(SELF_TEST_DOMAIN));
    (is_there(&facts.local.user_id) || is_there(&facts.local.aor)).then_some(KeepVerdict::Keep)
}

fn never(asked: &Asked<'_>) -> Option<KeepVerdict> {
    let Found::User(user, _) = &asked.found else { return None };
    if user.recording_mode == Some(UserMode::Never) { discard(rules::NEVER) } else { None }
}

fn direction(asked: &Asked<'_>) -> Option<KeepVerdict> {
    let kept = asked.settings.filters.direction?;
    let is_other = asked.facts.direction != Direction::Unknown && asked.facts.direction != kept;
    if is_other { discard(rules::DIRECTION) } else { None }
}

fn traffic(asked: &Asked<'_>) -> Option<KeepVerdict> {
    let kept = asked.settings.filters.traffic?;
    let found = traffic_by(asked.facts, asked.directory);
    if found != Traffic::Unknown && found != kept { discard(rules::TRAFFIC) } else { None }
}

fn blacklist(asked: &Asked<'_>) -> Option<KeepVerdict> {
    let number = main_remote(asked.facts)?.number.as_deref()?;
    let whole = asked.directory.plan().number(number);
    let is_listed = |pattern: &Pattern| {
        pattern.matches(number) || whole.as_ref().is_some_and(|whole| pattern.matches(whole.as_str()))
    };
    if asked.settings.filters.blacklist.iter().any(is_listed) { discard(rules::BLACKLIST) } else { None }
}

/// A call of nobody: with a catch-all user it is that user's.
fn unknown_user(asked: &Asked<'_>) -> Option<KeepVerdict> {
    let is_known = matches!(asked.found, Found::User(..) | Found::Ambiguous);
    let is_kept =
        asked.directory.is_empty() || asked.directory.catch_all().is_some() || asked.settings.filters.keeps_unknown;
    if is_known || is_kept { None } else { discard(rules::UNKNOWN_USER) }
}

/// The client says that the call is to be kept.
fn asked_for_by_the_client(asked: &Asked<'_>) -> Option<KeepVerdict> {
    let said = asked.facts.recording_type.as_deref()?.trim().to_lowercase();
    asked.settings.keep_types.contains(&said).then_some(KeepVerdict::Keep)
}

fn on_demand(asked: &Asked<'_>) -> Option<KeepVerdict> {
    let mode = asked.settings.mode_of(&asked.facts.local, &asked.found);
    (mode == RecordingMode::OnDemand).then_some(KeepVerdict::OnDemand)
}

/// Whether this call is kept. What no rule speaks of is kept: a call is lost only by decision.
pub fn keep(facts: &CallFacts, settings: &PolicySettings, directory: &Directory) -> KeepVerdict {
    let asked = Asked { facts, settings, directory, found: find(facts, directory) };
    RULES.iter().find_map(|rule| rule(&asked)).unwrap_or(KeepVerdict::Keep)
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

    fn user(line: &str) -> callvault_directory::User {
        let mut part = line.split(' ');
        let mut next = || part.next().unwrap_or_default().to_owned();
        callvault_directory::User {
            webex_email: next(),
            first_extension: next(),
            recording_mode: next().parse().ok(),
            catch_all: line.starts_with("all@"),
            ..callvault_directory::User::default()
        }
    }

    fn party(number: &str) -> Party {
        Party { number: (!number.is_empty()).then(|| number.to_owned()), ..Party::default() }
    }

    /// `direction local remote`, and the filters.
    fn check_filter(
        users: &[&str],
        filters: &Filters,
        (direction, local, remote): (Direction, &str, &str),
        expected: &str,
    ) {
        let plan = callvault_directory::NumberingPlan::new("49", "0", "00", vec!["72..".parse().unwrap()]);
        let directory = Directory::new(users.iter().map(|line| user(line)), plan);
        let facts = CallFacts { direction, local: party(local), remotes: vec![party(remote)], ..CallFacts::default() };
        let settings = PolicySettings::default().with(filters.clone());
        let shown = match keep(&facts, &settings, &directory) {
            KeepVerdict::Keep => "keep".to_owned(),
            KeepVerdict::OnDemand => "on-demand".to_owned(),
            KeepVerdict::Discard { rule } => rule,
        };
        assert_eq!(shown, expected, "{users:?} {filters:?} {direction:?} {local} {remote}");
    }

    const ANN: &[&str] = &["ann@x 7201", "bob@x +4930999"];

    #[test]
    fn what_is_asked_for_is_kept_unless_it_is_forbidden() {
        fn check(users: &[&str], filters: Filters, local: &str, recording_type: &str, expected: KeepVerdict) {
            let directory =
                Directory::new(users.iter().map(|line| user(line)), callvault_directory::NumberingPlan::default());
            let settings = PolicySettings::new(RecordingMode::Always, &[], &["keep".to_owned()]).with(filters.clone());
            let call = CallFacts {
                direction: Direction::Incoming,
                remotes: vec![party("+4989123")],
                ..call("", "", local, recording_type)
            };
            assert_eq!(keep(&call, &settings, &directory), expected, "{users:?} {filters:?} {recording_type}");
        }
        let discarded = |rule: &str| KeepVerdict::Discard { rule: rule.to_owned() };
        let direction = || Filters { direction: Some(Direction::Outgoing), ..Filters::default() };
        let traffic = || Filters { traffic: Some(Traffic::Internal), ..Filters::default() };
        let listed = || Filters { blacklist: vec!["+4989!".parse().unwrap()], ..Filters::default() };
        check(ANN, direction(), "7201", "on", discarded(rules::DIRECTION));
        check(ANN, direction(), "7201", "keep", KeepVerdict::Keep);
        check(ANN, traffic(), "7201", "on", discarded(rules::TRAFFIC));
        check(ANN, traffic(), "7201", "keep", KeepVerdict::Keep);
        check(ANN, listed(), "7201", "keep", discarded(rules::BLACKLIST));
        check(ANN, Filters::default(), "7777", "keep", discarded(rules::UNKNOWN_USER));
        check(&["ann@x 7201 never"], Filters::default(), "7201", "keep", discarded(rules::NEVER));
    }

    #[test]
    fn filters_by_direction_and_traffic() {
        use Direction::{Incoming, Outgoing, Unknown};
        let incoming = Filters { direction: Some(Incoming), ..Filters::default() };
        check_filter(ANN, &incoming, (Incoming, "7201", "1"), "keep");
        check_filter(ANN, &incoming, (Outgoing, "7201", "1"), "filter-direction");
        check_filter(ANN, &incoming, (Unknown, "7201", "1"), "keep");
        let external = Filters { traffic: Some(Traffic::External), ..Filters::default() };
        check_filter(ANN, &external, (Incoming, "7201", "+4930111111"), "keep");
        check_filter(ANN, &external, (Incoming, "7201", "030 999"), "keep");
        check_filter(ANN, &external, (Incoming, "7201", "+4930999"), "filter-traffic");
        check_filter(ANN, &external, (Incoming, "7201", "7299"), "filter-traffic");
        check_filter(ANN, &external, (Incoming, "7201", ""), "keep");
        let internal = Filters { traffic: Some(Traffic::Internal), ..Filters::default() };
        check_filter(ANN, &internal, (Incoming, "7201", "7299"), "keep");
        check_filter(ANN, &internal, (Incoming, "7201", "+4930111111"), "filter-traffic");
    }

    #[test]
    fn the_black_list_is_of_the_others_numbers() {
        let list = |texts: &[&str]| Filters {
            blacklist: texts.iter().map(|text| text.parse().unwrap()).collect(),
            ..Filters::default()
        };
        let call = |remote| (Direction::Incoming, "7201", remote);
        check_filter(ANN, &list(&["+4989!"]), call("+49 89 1234567"), "filter-blacklist");
        check_filter(ANN, &list(&["+4989!"]), call("089 1234567"), "filter-blacklist");
        check_filter(ANN, &list(&["7.."]), call("720"), "filter-blacklist");
        check_filter(ANN, &list(&["7.."]), call("7201"), "keep");
        check_filter(ANN, &list(&["7201"]), call("1"), "keep");
        check_filter(ANN, &list(&["!"]), call(""), "keep");
    }

    #[test]
    fn calls_of_nobody() {
        let call = (Direction::Incoming, "7777", "1");
        let none = Filters::default();
        check_filter(&[], &none, call, "keep");
        check_filter(ANN, &none, call, "unknown-user");
        check_filter(ANN, &Filters { keeps_unknown: true, ..none.clone() }, call, "keep");
        check_filter(&["ann@x 7201", "all@x"], &none, call, "keep");
        // Whose it is cannot be said, but it is somebody's.
        check_filter(&["ann@x 7777", "bob@x 7777"], &none, call, "keep");
        // What is filtered is filtered whosever it is.
        let outgoing = Filters { direction: Some(Direction::Outgoing), ..none };
        check_filter(&["all@x"], &outgoing, call, "filter-direction");
    }

    #[test]
    fn a_users_own_mode_goes_before_that_of_all() {
        let call = (Direction::Incoming, "7201", "1");
        let none = Filters::default();
        check_filter(&["ann@x 7201 never"], &none, call, "user-never");
        check_filter(&["ann@x 7201 on-demand"], &none, call, "on-demand");
        check_filter(&["ann@x 7201 on-demand-user-start"], &none, call, "on-demand");
        check_filter(&["ann@x 7201 always"], &none, call, "keep");
        check_filter(&["ann@x 7201 always-with-pause"], &none, call, "keep");
        let settings = PolicySettings::new(RecordingMode::OnDemand, &[], &[]);
        let directory = Directory::new([user("ann@x 7201 always")], callvault_directory::NumberingPlan::default());
        let facts = CallFacts { local: party("7201"), ..CallFacts::default() };
        assert_eq!(keep(&facts, &settings, &directory), KeepVerdict::Keep);
    }

    #[test]
    fn a_self_test_passes_every_filter() {
        let filters = Filters { direction: Some(Direction::Outgoing), ..Filters::default() };
        let directory = Directory::new([user("ann@x 7201")], callvault_directory::NumberingPlan::default());
        let facts = CallFacts { direction: Direction::Incoming, ..call("a@selftest.invalid", "", "1", "") };
        assert_eq!(keep(&facts, &PolicySettings::default().with(filters), &directory), KeepVerdict::Keep);
    }
}

//! Whose a call is, and whether its other side belongs to the organisation, by the directory of users.

use callvault_directory::{Directory, Found, MatchedBy, Names, User};
use callvault_journal::facts::{CallFacts, Party};

use crate::call::main_remote;
use crate::traffic::{Traffic, traffic};

/// The owner of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: std::sync::Arc<User>,
    /// By what the user was found.
    pub by: MatchedBy,
}

/// What a call has to say about its owner, beside who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// This user owns it.
    Of(Owner),
    /// Several users have what the client calls the recorded one by: for administrators only.
    Ambiguous,
    /// Nobody: for administrators only.
    Nobody,
}

fn names(party: &Party) -> Names<'_> {
    Names { user_id: party.user_id.as_deref(), number: party.number.as_deref(), aor: party.aor.as_deref() }
}

/// The recorded user, as the directory knows them.
pub(crate) fn find(call: &CallFacts, directory: &Directory) -> Found {
    directory.find(&names(&call.local))
}

/// Who owns the recording of a call: the recorded user, or the catch-all user where that is nobody in the directory.
pub fn owner(call: &CallFacts, directory: &Directory) -> Ownership {
    match find(call, directory) {
        Found::User(user, by) => Ownership::Of(Owner { user, by }),
        Found::Ambiguous => Ownership::Ambiguous,
        Found::Nobody => directory.catch_all().map_or(Ownership::Nobody, |user| {
            Ownership::Of(Owner { user: std::sync::Arc::clone(user), by: MatchedBy::CatchAll })
        }),
    }
}

/// Whether a call stayed within the organisation: the other party is a user, or has a number of the plan. Without users and patterns it is
/// told from the signalling alone.
pub fn traffic_by(call: &CallFacts, directory: &Directory) -> Traffic {
    if directory.is_empty() && !directory.plan().has_internal() {
        return traffic(call);
    }
    let Some(remote) = main_remote(call) else { return Traffic::Unknown };
    if directory.is_internal(&names(remote)) {
        Traffic::Internal
    } else if remote.number.is_some() || remote.aor.is_some() {
        Traffic::External
    } else {
        Traffic::Unknown
    }
}

#[cfg(test)]
mod tests {
    use callvault_directory::NumberingPlan;

    use super::*;

    fn directory(lines: &[&str]) -> Directory {
        let users = lines.iter().map(|line| {
            let (email, number) = line.split_once(' ').unwrap_or((line, ""));
            let catch_all = email.starts_with("all@");
            User { webex_email: email.into(), first_extension: number.into(), catch_all, ..User::default() }
        });
        Directory::new(users, NumberingPlan::default())
    }

    fn call(local: &str, remote: &str) -> CallFacts {
        let party = |number: &str| Party { number: Some(number.into()), ..Party::default() };
        CallFacts { local: party(local), remotes: vec![party(remote)], ..CallFacts::default() }
    }

    #[test]
    fn who_owns_a_call() {
        fn check(lines: &[&str], local: &str, expected: &str) {
            let shown = match owner(&call(local, "1"), &directory(lines)) {
                Ownership::Of(Owner { user, by }) => format!("{} {}", user.webex_email, by.as_str()),
                Ownership::Ambiguous => "ambiguous".to_owned(),
                Ownership::Nobody => "nobody".to_owned(),
            };
            assert_eq!(shown, expected, "{lines:?} {local}");
        }
        check(&["ann@x 7201"], "7201", "ann@x number");
        check(&["ann@x 7201"], "7202", "nobody");
        check(&["ann@x 7201", "all@x"], "7202", "all@x catch-all");
        check(&["ann@x 7201", "bob@x 7201", "all@x"], "7201", "ambiguous");
        check(&[], "7201", "nobody");
    }

    #[test]
    fn without_users_and_patterns_the_signalling_tells() {
        fn check(lines: &[&str], remote: &str, expected: Traffic) {
            assert_eq!(traffic_by(&call("7201", remote), &directory(lines)), expected, "{lines:?} {remote}");
        }
        check(&[], "7202", Traffic::Internal);
        check(&[], "+4930111", Traffic::External);
        check(&["ann@x 7201"], "7202", Traffic::External);
        check(&["ann@x 7201"], "7201", Traffic::Internal);
    }
}

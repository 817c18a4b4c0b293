//! Whose a call is.

use std::sync::Arc;

use callvault_directory::{Directory, Found, MatchedBy, Names, User};
use callvault_journal::facts::{CallFacts, Flaw, Party};

/// Whose a call is, as far as the directory tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This user's, found by that.
    User(Arc<User>, MatchedBy),
    /// Several users have what the client calls the user by; nobody is guessed.
    Ambiguous,
    /// Nobody's.
    Nobody,
}

/// What tells who a party is.
pub(crate) fn names(party: &Party) -> Names<'_> {
    Names { user_id: party.user_id.as_deref(), number: party.number.as_deref(), aor: party.aor.as_deref() }
}

/// Whose a call is: the recorded user's, else the catch-all's, if there is one.
pub fn owner(call: &CallFacts, directory: &Directory) -> Owner {
    match (directory.find(&names(&call.local)), directory.catch_all()) {
        (Found::User(user, by), _) => Owner::User(user, by),
        (_, Some(user)) => Owner::User(Arc::clone(user), MatchedBy::CatchAll),
        (Found::Ambiguous, None) => Owner::Ambiguous,
        (Found::Nobody, None) => Owner::Nobody,
    }
}

/// What there is to say about whose a call is: that nobody was guessed, or that there was nobody to be found.
pub fn owner_flaw(call: &CallFacts, directory: &Directory) -> Option<Flaw> {
    let flaw = |code: &str, text: &str| Some(Flaw { code: code.to_owned(), text: text.to_owned() });
    match directory.find(&names(&call.local)) {
        Found::Ambiguous => flaw(
            "user-ambiguous",
            "several users have the number or id of this call's user, so it is nobody's; give each their own with `callvaultctl users set`",
        ),
        Found::Nobody if !directory.is_empty() && directory.catch_all().is_none() => {
            flaw("user-unknown", "no user of the directory has the number, id or address of this call's user")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use callvault_directory::NumberingPlan;

    use super::*;

    fn directory(users: &[(&str, &str, bool)]) -> Directory {
        let user = |&(email, number, catch_all): &(&str, &str, bool)| User {
            webex_email: email.to_owned(),
            first_extension: number.to_owned(),
            catch_all,
            ..User::default()
        };
        Directory::new(users.iter().map(user), NumberingPlan::default())
    }

    #[test]
    fn a_call_is_its_users_or_the_catch_alls_or_nobodys() {
        fn check(users: &[(&str, &str, bool)], number: &str, expected: &str, flaw: &str) {
            let local = Party { number: Some(number.to_owned()), ..Party::default() };
            let call = CallFacts { local, ..CallFacts::default() };
            let directory = directory(users);
            let found = match owner(&call, &directory) {
                Owner::User(user, by) => format!("{} by {}", user.webex_email, by.as_str()),
                Owner::Ambiguous => "ambiguous".to_owned(),
                Owner::Nobody => "nobody".to_owned(),
            };
            let said = owner_flaw(&call, &directory).map(|flaw| flaw.code).unwrap_or_default();
            assert_eq!((found.as_str(), said.as_str()), (expected, flaw), "{users:?} {number}");
        }
        let (ann, bob, all) = (("ann@x", "7711", false), ("bob@x", "7711", false), ("all@x", "", true));
        check(&[ann], "7711", "ann@x by number", "");
        check(&[ann], "7712", "nobody", "user-unknown");
        check(&[ann, bob], "7711", "ambiguous", "user-ambiguous");
        check(&[ann, bob, all], "7711", "all@x by catch-all", "user-ambiguous");
        check(&[ann, all], "7712", "all@x by catch-all", "");
        // while there is nobody, nobody is missing
        check(&[], "7711", "nobody", "");
    }
}

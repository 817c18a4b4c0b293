//! The users as they are at one moment, and whose a call is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::numbers::{Number, NumberingPlan};
use crate::user::User;

/// What tells who a party is, as signalling has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// The client's own id of the user.
    pub user_id: Option<&'a str>,
    /// Number as signalled.
    pub number: Option<&'a str>,
    /// Address of record.
    pub aor: Option<&'a str>,
}

/// By what a user was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchedBy {
    /// The client's id of the user.
    UserId,
    /// A number.
    Number,
    /// An e-mail in an address.
    Email,
    /// Nothing: it is the catch-all's.
    CatchAll,
}

impl MatchedBy {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserId => "user-id",
            Self::Number => "number",
            Self::Email => "email",
            Self::CatchAll => "catch-all",
        }
    }
}

/// Whose something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This user's.
    User(Arc<User>, MatchedBy),
    /// Several users have what the client calls the user by: nobody is guessed.
    Ambiguous,
    /// Nobody's here.
    Nobody,
}

/// What several users may have in common.
type Index<K> = HashMap<K, Vec<usize>>;

/// All users. Cheap to share, never changed: others take its place.
#[derive(Debug, Default)]
pub struct Directory {
    plan: NumberingPlan,
    users: Vec<Arc<User>>,
    by_id: BTreeMap<Uuid, usize>,
    by_email: HashMap<String, usize>,
    by_user_id: Index<String>,
    by_number: Index<Number>,
    /// Ids of users whose numbers are no numbers.
    by_alias: Index<String>,
    catch_all: Option<usize>,
}

impl Directory {
    /// A snapshot of these users, removed ones among them, under this plan.
    pub fn new(users: impl IntoIterator<Item = User>, plan: NumberingPlan) -> Self {
        let mut directory = Self { plan, ..Self::default() };
        for user in users {
            let at = directory.users.len();
            directory.by_id.insert(user.id, at);
            if user.removed_at.is_none() {
                directory.index(&user, at);
            }
            directory.users.push(Arc::new(user));
        }
        directory
    }

    fn index(&mut self, user: &User, at: usize) {
        self.by_email.insert(comparable(&user.webex_email), at);
        if user.catch_all {
            // It owns what nobody is found for, and is nobody's name.
            self.catch_all.get_or_insert(at);
            return;
        }
        let add = |index: &mut Index<String>, name: &str| {
            let name = comparable(name);
            let known = index.entry(name).or_default();
            if !known.contains(&at) {
                known.push(at);
            }
        };
        for name in [&user.device_name, &user.preferred_device_name].into_iter().filter(|name| !name.is_empty()) {
            add(&mut self.by_user_id, name);
            // With its domain or without: BroadWorks says it with, people often write it without.
            if let Some((local, _)) = name.split_once('@') {
                add(&mut self.by_user_id, local);
            }
        }
        for name in [&user.first_extension, &user.extension_alias].into_iter().filter(|name| !name.is_empty()) {
            match self.plan.number(name) {
                Some(number) => {
                    let known = self.by_number.entry(number).or_default();
                    if !known.contains(&at) {
                        known.push(at);
                    }
                }
                None => add(&mut self.by_alias, name),
            }
        }
    }

    /// The plan that its numbers are compared by.
    pub fn plan(&self) -> &NumberingPlan {
        &self.plan
    }

    /// Whether there is nobody in it.
    pub fn is_empty(&self) -> bool {
        self.by_email.is_empty()
    }

    /// Users that are there, the catch-all among them.
    pub fn len(&self) -> usize {
        self.by_email.len()
    }

    /// All of them, removed ones among them.
    pub fn all(&self) -> &[Arc<User>] {
        &self.users
    }

    /// The user of that id, also a removed one.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<User>> {
        self.by_id.get(&id).and_then(|at| self.users.get(*at))
    }

    /// The user of that Webex e-mail, in any case, unless removed.
    pub fn by_email(&self, email: &str) -> Option<&Arc<User>> {
        self.by_email.get(&comparable(email)).and_then(|at| self.users.get(*at))
    }

    /// The user who owns what nobody else does, if there is one.
    pub fn catch_all(&self) -> Option<&Arc<User>> {
        self.catch_all.and_then(|at| self.users.get(at))
    }

    /// Who that is: by the client's id of the user, then by number, then by e-mail. What several users have tells nothing, and the next is
    /// asked; where nothing else tells, that is said.
    pub fn find(&self, names: &Names<'_>) -> Found {
        let mut ambiguous = false;
        let by_number = |text: &str| self.plan.number(text).and_then(|number| self.by_number.get(&number));
        let by_user_id = names.user_id.and_then(|id| self.users_of_id(id));
        let numbers = names.number.and_then(by_number).or_else(|| names.aor.and_then(by_number));
        let alias =
            [names.number, names.aor].into_iter().flatten().find_map(|name| self.by_alias.get(&comparable(name)));
        let ways = [(by_user_id, MatchedBy::UserId), (numbers, MatchedBy::Number), (alias, MatchedBy::Number)];
        for (found, by) in ways {
            match found.map(Vec::as_slice) {
                Some([at]) => {
                    return self.users.get(*at).map_or(Found::Nobody, |user| Found::User(Arc::clone(user), by));
                }
                Some([_, _, ..]) => ambiguous = true,
                _ => {}
            }
        }
        let emails = [names.aor, names.user_id].into_iter().flatten().map(comparable);
        let found = emails.filter_map(|email| self.by_email.get(&email)).find(|at| Some(**at) != self.catch_all);
        match found.and_then(|at| self.users.get(*at)) {
            Some(user) => Found::User(Arc::clone(user), MatchedBy::Email),
            None if ambiguous => Found::Ambiguous,
            None => Found::Nobody,
        }
    }

    fn users_of_id(&self, id: &str) -> Option<&Vec<usize>> {
        let id = comparable(id);
        let local = || id.split_once('@').and_then(|(local, _)| self.by_user_id.get(local));
        self.by_user_id.get(&id).or_else(local)
    }

    /// Whether a party belongs to the organisation: it is a user, or has a number of the plan.
    pub fn is_internal(&self, names: &Names<'_>) -> bool {
        let is_own = |text: &str| self.plan.is_internal(text);
        matches!(self.find(names), Found::User(..) | Found::Ambiguous) || names.number.is_some_and(is_own)
    }
}

/// A name or an address in a form in which two that are the same are equal.
fn comparable(text: &str) -> String {
    let text = text.trim().trim_start_matches('<').trim_end_matches('>').to_lowercase();
    let text = ["sip:", "sips:", "mailto:"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(&text);
    text.split([';', '?']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `email device number alias`, with `-` for nothing.
    fn directory(lines: &[&str]) -> Directory {
        let users = lines.iter().enumerate().map(|(at, line)| {
            let part: Vec<String> =
                line.split(' ').map(|part| if part == "-" { String::new() } else { part.to_owned() }).collect();
            User {
                id: Uuid::from_u128(at as u128 + 1),
                webex_email: part[0].clone(),
                device_name: part[1].clone(),
                first_extension: part[2].clone(),
                extension_alias: part[3].clone(),
                catch_all: part[0] == "all@x",
                ..User::default()
            }
        });
        Directory::new(users, NumberingPlan::new("39", "", "00", vec!["7...".parse().unwrap()]))
    }

    fn check(lines: &[&str], (user_id, number, aor): (&str, &str, &str), expected: &str) {
        let given = |text| if str::is_empty(text) { None } else { Some(text) };
        let found = directory(lines).find(&Names { user_id: given(user_id), number: given(number), aor: given(aor) });
        let shown = match found {
            Found::User(user, by) => format!("{} {}", user.webex_email, by.as_str()),
            Found::Ambiguous => "ambiguous".to_owned(),
            Found::Nobody => "nobody".to_owned(),
        };
        assert_eq!(shown, expected, "{user_id} {number} {aor}");
    }

    const TWO: &[&str] = &["ann@x ab12@25.webex +390501 7711", "bob@x - +390502 ann@phones"];

    #[test]
    fn a_user_is_found_by_id_then_number_then_email() {
        check(TWO, ("AB12@25.webex", "+390502", "bob@x"), "ann@x user-id");
        check(TWO, ("ab12", "", ""), "ann@x user-id");
        check(TWO, ("ab12@other", "", ""), "ann@x user-id");
        check(TWO, ("zz", "+39 0502", "ann@x"), "bob@x number");
        check(TWO, ("", "7711", ""), "ann@x number");
        check(TWO, ("", "", "sip:+390502@webex;user=phone"), "bob@x number");
        check(TWO, ("", "", "sip:ann@phones"), "bob@x number");
        check(TWO, ("", "", "sip:Ann@X;p=1"), "ann@x email");
        check(TWO, ("bob@x", "", ""), "bob@x email");
        check(TWO, ("", "0502", ""), "nobody");
        check(TWO, ("", "", ""), "nobody");
    }

    #[test]
    fn what_two_have_tells_nothing() {
        let lines = &["ann@x - 7711 -", "bob@x - 7711 -"];
        check(lines, ("", "7711", ""), "ambiguous");
        check(lines, ("", "7711", "sip:bob@x"), "bob@x email");
    }

    #[test]
    fn the_catch_all_and_the_removed_are_not_found() {
        check(&["all@x id 7711 -"], ("id", "7711", "all@x"), "nobody");
        let mut user = User { webex_email: "a@x".into(), first_extension: "7711".into(), ..User::default() };
        user.removed_at = Some(jiff::Timestamp::UNIX_EPOCH);
        let directory = Directory::new([user], NumberingPlan::default());
        assert_eq!(directory.find(&Names { number: Some("7711"), ..Names::default() }), Found::Nobody);
        assert!(directory.is_empty() && directory.by_id(Uuid::nil()).is_some());
    }

    #[test]
    fn who_belongs_to_the_organisation() {
        fn check(number: &str, expected: bool) {
            let names = Names { number: Some(number), ..Names::default() };
            assert_eq!(directory(TWO).is_internal(&names), expected, "{number}");
        }
        check("+390501", true);
        check("7123", true);
        check("+390599", false);
        check("712", false);
    }
}

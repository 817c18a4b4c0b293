//! What a change of many users would do, before it is done.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::fields::FIELDS;
use crate::import::Imported;
use crate::user::User;

/// Users that an import may remove without being asked again, whatever the share.
const REMOVED_FREELY: usize = 5;

/// The share of all users, in hundredths, that it may remove beyond that.
const REMOVED_PERCENT_MAX: usize = 10;

/// What an import does. `Debug` shows no personal data.
#[derive(Clone, Default)]
pub struct Plan {
    /// Users that come, with ids of their own; one who had been removed comes back under the old one.
    pub added: Vec<User>,
    /// Users that change, with the names of the fields.
    pub changed: Vec<(User, Vec<&'static str>)>,
    /// Users that go. Their recordings stay.
    pub removed: Vec<User>,
    /// How many stay as they are.
    pub unchanged: usize,
}

/// A plan in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PlanCounts {
    /// Users that come.
    pub added: usize,
    /// Users that change.
    pub changed: usize,
    /// Users that go.
    pub removed: usize,
    /// Users that stay as they are.
    pub unchanged: usize,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.counts().fmt(f)
    }
}

impl Plan {
    /// What an import of `imported` does to `users`, removed ones among them. Those that are not in the file go only where
    /// `removes_missing`. `new_id` gives ids to those that are new.
    pub fn of(
        users: &[User],
        imported: &[Imported],
        removes_missing: bool,
        now: Timestamp,
        mut new_id: impl FnMut() -> Uuid,
    ) -> Self {
        let mut left: BTreeMap<&str, &User> = BTreeMap::new();
        for user in users {
            // One that is there goes before one that was removed.
            let known = left.entry(&user.webex_email).or_insert(user);
            if known.removed_at.is_some() {
                *known = user;
            }
        }
        let mut plan = Self::default();
        for one in imported {
            match left.remove(one.webex_email.as_str()) {
                Some(before) if before.removed_at.is_none() => plan.change(before, one.onto(before)),
                Some(before) => plan.added.push(User { removed_at: None, ..one.onto(before) }),
                None => plan.added.push(one.onto(&User { id: new_id(), ..User::default() })),
            }
        }
        for user in left.into_values().filter(|user| user.removed_at.is_none()) {
            // The catch-all is a user of the appliance's own, of which no file knows.
            if removes_missing && !user.catch_all {
                plan.removed.push(User { removed_at: Some(now), ..user.clone() });
            } else {
                plan.unchanged += 1;
            }
        }
        plan
    }

    /// One user becomes another.
    pub fn change(&mut self, before: &User, after: User) {
        let fields = FIELDS.iter().filter(|field| field.get(before) != field.get(&after)).map(|field| field.name);
        let fields: Vec<&'static str> = fields.collect();
        if fields.is_empty() {
            self.unchanged += 1;
        } else {
            self.changed.push((after, fields));
        }
    }

    /// In numbers.
    pub fn counts(&self) -> PlanCounts {
        let (added, changed, removed) = (self.added.len(), self.changed.len(), self.removed.len());
        PlanCounts { added, changed, removed, unchanged: self.unchanged }
    }

    /// Whether it removes so many that somebody should say so: more than five users and more than a tenth of all.
    pub fn removes_many(&self) -> bool {
        let before = self.unchanged + self.changed.len() + self.removed.len();
        self.removed.len() > REMOVED_FREELY && self.removed.len() * 100 > before * REMOVED_PERCENT_MAX
    }

    /// How many catch-all users there are afterwards, of `before`, all users before.
    pub fn catch_alls(&self, before: &[User]) -> usize {
        let changed = self.changed.iter().map(|(user, _)| user);
        let after: Vec<&User> = self.added.iter().chain(changed).chain(&self.removed).collect();
        let stays = |user: &&User| !after.iter().any(|other| other.id == user.id);
        let all = before.iter().filter(stays).chain(after.iter().copied());
        all.filter(|user| user.catch_all && user.removed_at.is_none()).count()
    }

    /// The users that are different afterwards.
    pub fn into_users(self) -> Vec<User> {
        self.added.into_iter().chain(self.changed.into_iter().map(|(user, _)| user)).chain(self.removed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{FileForm, read};

    fn users(emails: &str) -> Vec<User> {
        let user = |(number, email): (usize, &str)| {
            let removed_at = email.strip_suffix('-').map(|_| Timestamp::UNIX_EPOCH);
            let webex_email = email.trim_end_matches('-').to_owned();
            User { id: Uuid::from_u128(number as u128 + 1), webex_email, removed_at, ..User::default() }
        };
        emails.split_whitespace().enumerate().map(user).collect()
    }

    fn plan(before: &str, file: &str, removes_missing: bool) -> Plan {
        let imported = read(FileForm::Csv, format!("webex_email,group\n{file}").as_bytes()).unwrap();
        Plan::of(&users(before), &imported, removes_missing, Timestamp::UNIX_EPOCH, || Uuid::from_u128(99))
    }

    #[test]
    fn an_import_adds_changes_and_removes() {
        fn check(before: &str, file: &str, removes: bool, expected: [usize; 4]) {
            let counts = plan(before, file, removes).counts();
            let found = [counts.added, counts.changed, counts.removed, counts.unchanged];
            assert_eq!(found, expected, "{before:?} {file:?} {removes}");
        }
        check("", "a@b,\n", false, [1, 0, 0, 0]);
        check("a@b", "a@b,\n", false, [0, 0, 0, 1]);
        check("a@b", "A@B,x\n", false, [0, 1, 0, 0]);
        check("a@b c@d", "a@b,\n", false, [0, 0, 0, 2]);
        check("a@b c@d", "a@b,\n", true, [0, 0, 1, 1]);
        check("a@b-", "a@b,\n", true, [1, 0, 0, 0]);
        check("a@b- c@d-", "x@y,\n", true, [1, 0, 0, 0]);
    }

    #[test]
    fn who_comes_back_is_who_it_was() {
        let plan = plan("a@b-", "a@b,x\n", false);
        assert_eq!((plan.added[0].id, plan.added[0].removed_at), (Uuid::from_u128(1), None));
    }

    #[test]
    fn the_catch_all_is_never_removed_by_a_file() {
        let mut before = users("a@b all@c");
        before[1].catch_all = true;
        let imported = read(FileForm::Csv, b"webex_email\na@b\n").unwrap();
        let plan = Plan::of(&before, &imported, true, Timestamp::UNIX_EPOCH, Uuid::nil);
        assert_eq!(plan.counts().removed, 0);
    }

    #[test]
    fn many_are_more_than_five_and_more_than_a_tenth() {
        fn check(all: usize, gone: usize, expected: bool) {
            let email = |number: usize| format!("u{number}@b");
            let before: Vec<String> = (0..all).map(email).collect();
            let file: Vec<String> = (gone..all).map(|number| format!("{},\n", email(number))).collect();
            let plan = plan(&before.join(" "), &format!("new@b,\n{}", file.concat()), true);
            assert_eq!(plan.removes_many(), expected, "{gone} of {all}");
        }
        check(5, 5, false);
        check(6, 6, true);
        check(60, 6, false);
        check(59, 6, true);
        check(200, 20, false);
        check(200, 21, true);
    }
}

//! What holds whoever asks for what.
#![allow(clippy::unwrap_used)]

use callvault_access::{Action, Caller, Level, On, Owned, Permissions, Scope, WhoMay, audit, decide, visible};
use callvault_directory::User;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use uuid::Uuid;

const GROUPS: [&str; 5] = ["", " ", "Sales", "Legal", "Support"];
const WHO: [WhoMay; 4] = [WhoMay::Nobody, WhoMay::Administrators, WhoMay::GroupSupervisors, WhoMay::Users];

fn user() -> impl Strategy<Value = User> {
    let groups = prop::collection::vec(select(&GROUPS[..]), 0..3);
    (0..3_u128, select(&Level::ALL[..]), select(&GROUPS[..]), groups).prop_map(|(id, level, group, more)| User {
        id: Uuid::from_u128(id),
        level,
        group: group.to_owned(),
        supervised_groups: more.into_iter().map(str::to_owned).collect(),
        ..User::default()
    })
}

fn settings() -> impl Strategy<Value = Permissions> {
    (select(&WHO[..]), any::<bool>(), select(&WHO[..]), select(&WHO[..]))
        .prop_map(|(delete, never_delete, download, preserve)| Permissions { delete, never_delete, download, preserve })
}

fn on() -> impl Strategy<Value = On<'static>> {
    let level = || prop::option::of(select(&Level::ALL[..]));
    let owner = prop::option::of((0..3_u128).prop_map(Uuid::from_u128));
    (owner, select(&GROUPS[..]), level(), level(), any::<bool>()).prop_map(|(owner, group, preserved_by, note, all)| {
        let owned = Owned { owner, group, preserved_by };
        match note {
            _ if all => On::Everything,
            Some(by) => On::Note(owned, by),
            None => On::One(owned),
        }
    })
}

fn may(user: &User, action: Action, on: On<'_>, settings: &Permissions) -> bool {
    decide(&Caller::of_user(user, Level::Administrator, ""), action, on, settings).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::with_cases(2_000)
    })]

    #[test]
    fn a_higher_level_may_no_less(user in user(), on in on(), settings in settings(), action in select(Action::ALL)) {
        for higher in Level::ALL.into_iter().filter(|level| *level >= user.level) {
            let raised = User { level: higher, ..user.clone() };
            prop_assert!(!may(&user, action, on, &settings) || may(&raised, action, on, &settings));
        }
    }

    #[test]
    fn nobody_gains_by_losing_something(user in user(), on in on(), settings in settings(), action in select(Action::ALL)) {
        let fewer = User { supervised_groups: user.supervised_groups.iter().skip(1).cloned().collect(), ..user.clone() };
        let none = User { group: String::new(), ..user.clone() };
        for less in [&fewer, &none] {
            prop_assert!(!may(less, action, on, &settings) || may(&user, action, on, &settings));
        }
        for who in WHO {
            let narrowed = Permissions {
                delete: settings.delete.min(who),
                never_delete: true,
                download: settings.download.min(who),
                preserve: settings.preserve.min(who),
            };
            prop_assert!(!may(&user, action, on, &narrowed) || may(&user, action, on, &settings));
        }
    }

    #[test]
    fn a_token_never_gives_more_than_its_user_has(
        user in user(), on in on(), settings in settings(), action in select(Action::ALL), level in select(&Level::ALL[..]),
    ) {
        let token = Caller::of_user(&user, level, "");
        prop_assert!(decide(&token, action, on, &settings).is_err() || may(&user, action, on, &settings));
        let bare = User { level, ..user.clone() };
        prop_assert!(decide(&token, action, on, &settings).is_err() || may(&bare, action, on, &settings));
    }

    #[test]
    fn what_is_found_is_what_may_be_shown(user in user(), others in prop::collection::vec(user(), 0..5), settings in settings()) {
        let caller = Caller::of_user(&user, Level::Administrator, "");
        let mut users = others;
        // one user for an id, and whoever asks is in the directory as they are
        users.retain(|other| other.id != user.id);
        users.push(user.clone());
        users.sort_by_key(|user| user.id);
        users.dedup_by_key(|user| user.id);
        let visible = visible(&caller, &users);
        for owner in &users {
            let on = On::One(Owned::by(Some(owner)));
            prop_assert_eq!(visible.has(Some(owner.id)), decide(&caller, Action::Show, on, &settings).is_ok());
        }
        prop_assert_eq!(visible.has(None), decide(&caller, Action::Show, On::One(Owned::default()), &settings).is_ok());
    }

    #[test]
    fn what_was_switched_off_for_ever_is_off(user in user(), on in on(), settings in settings()) {
        let never = Permissions { never_delete: true, ..settings };
        prop_assert!(!may(&user, Action::Delete, on, &never));
        prop_assert!(decide(&Caller::operator(""), Action::Delete, on, &never).is_err());
        prop_assert!(decide(&Caller::appliance("retention"), Action::Delete, on, &never).is_err());
    }

    #[test]
    fn any_change_to_an_entry_breaks_its_link(
        before in any::<[u8; 32]>(), number in any::<u64>(), at in any::<i64>(), sealed in prop::collection::vec(any::<u8>(), 0..80),
        bit in 0..8_u32, at_byte in any::<prop::sample::Index>(),
    ) {
        let link = audit::link(&before, number, at, &sealed);
        let mut other = before;
        other[at_byte.index(32)] ^= 1 << bit;
        prop_assert_ne!(audit::link(&other, number, at, &sealed), link);
        prop_assert_ne!(audit::link(&before, number.wrapping_add(1), at, &sealed), link);
        prop_assert_ne!(audit::link(&before, number, at.wrapping_add(1), &sealed), link);
        let mut changed = sealed.clone();
        if !changed.is_empty() {
            let at = at_byte.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert_ne!(audit::link(&before, number, at as i64, &changed), audit::link(&before, number, at as i64, &sealed));
        }
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    // what changes something is always in the audit log
    assert!(Action::ALL.iter().filter(|action| action.scope() == Scope::Recording).all(|action| action.is_audited()));
}

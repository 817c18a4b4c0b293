//! Every rule, a line for each side of each boundary.
#![allow(clippy::unwrap_used)]

use callvault_access::{Action, Caller, Level, On, Owned, Permissions, Scope, WhoMay, decide, visible};
use callvault_directory::User;
use uuid::Uuid;

const ANN: Uuid = Uuid::from_u128(1);
const BOB: Uuid = Uuid::from_u128(2);

const OPEN: Permissions =
    Permissions { delete: WhoMay::Users, never_delete: false, download: WhoMay::Users, preserve: WhoMay::Users };

/// Ann, at that level and with these groups.
fn ann(level: Level, own: &str, additional: &[&str]) -> Caller {
    let supervised_groups = additional.iter().map(|&group| group.to_owned()).collect();
    let user = User { id: ANN, level, group: own.into(), supervised_groups, ..User::default() };
    Caller::of_user(&user, Level::Administrator, "127.0.0.1")
}

fn of(owner: Option<Uuid>, group: &str) -> Owned<'_> {
    Owned { owner, group, preserved_by: None }
}

/// The rule that refuses; `-` where nothing does.
fn rule(caller: &Caller, action: Action, on: On<'_>, settings: &Permissions) -> &'static str {
    decide(caller, action, on, settings).err().map_or("-", |refusal| {
        assert!(!refusal.who_may.is_empty() && !refusal.what_to_do.is_empty());
        refusal.rule
    })
}

#[test]
fn whose_recordings_are_within_reach() {
    #[track_caller]
    fn check(caller: &Caller, owner: Option<Uuid>, group: &str, expected: &str) {
        for action in [Action::Show, Action::Play, Action::NoteAdd, Action::Tag, Action::Delete, Action::Download] {
            assert_eq!(rule(caller, action, On::One(of(owner, group)), &OPEN), expected, "{action}");
        }
        // what is found is what may be shown
        let bob = User { id: BOB, group: group.into(), ..User::default() };
        if owner == Some(BOB) || owner.is_none() {
            assert_eq!(visible(caller, [&bob]).has(owner), expected == "-", "in a search");
        }
    }
    let base = ann(Level::Base, "Sales", &[]);
    check(&base, Some(ANN), "Sales", "-");
    check(&base, Some(ANN), "", "-");
    check(&base, Some(BOB), "Sales", "not-own");
    check(&base, None, "", "unowned");
    let supervisor = ann(Level::GroupSupervisor, "Sales", &["Legal"]);
    check(&supervisor, Some(ANN), "", "-");
    check(&supervisor, Some(BOB), "Sales", "-");
    check(&supervisor, Some(BOB), " sales ", "-");
    check(&supervisor, Some(BOB), "Legal", "-");
    check(&supervisor, Some(BOB), "Support", "not-own");
    check(&supervisor, Some(BOB), "", "not-own");
    check(&supervisor, Some(BOB), "  ", "not-own");
    // a group without an owner is nobody's group
    check(&supervisor, None, "Sales", "unowned");
    // with additional groups and none of one's own, nobody supervises
    let groupless = ann(Level::GroupSupervisor, " ", &["Legal"]);
    check(&groupless, Some(ANN), "", "-");
    check(&groupless, Some(BOB), "Legal", "not-own");
    check(&groupless, Some(BOB), "", "not-own");
    let administrator = ann(Level::Administrator, "", &[]);
    check(&administrator, Some(BOB), "", "-");
    check(&administrator, Some(BOB), "Sales", "-");
    check(&administrator, None, "", "-");
    let record_only = ann(Level::RecordOnly, "Sales", &["Sales"]);
    check(&record_only, Some(ANN), "Sales", "record-only");
    check(&record_only, Some(BOB), "Sales", "record-only");
    // a token that is nobody's does not own what nobody owns
    let nobody = Caller::of_token("script", Level::Base, "");
    check(&nobody, None, "", "unowned");
    check(&nobody, Some(ANN), "", "not-own");
}

#[test]
fn live_calls_are_controlled_by_whose_they_are() {
    #[track_caller]
    fn check(level: Level, owner: Option<Uuid>, expected: &str) {
        for action in Action::ALL.iter().filter(|action| action.scope() == Scope::Call) {
            let caller = ann(level, "Sales", &[]);
            assert_eq!(rule(&caller, *action, On::One(of(owner, "Sales")), &OPEN), expected, "{action}");
        }
    }
    check(Level::RecordOnly, Some(ANN), "-");
    check(Level::RecordOnly, Some(BOB), "not-own");
    check(Level::Base, Some(ANN), "-");
    check(Level::Base, Some(BOB), "not-own");
    check(Level::GroupSupervisor, Some(BOB), "-");
    check(Level::GroupSupervisor, None, "unowned");
    check(Level::Administrator, None, "-");
}

#[test]
fn a_record_only_user_sees_nothing() {
    let caller = ann(Level::RecordOnly, "Sales", &["Sales"]);
    let user = User { id: ANN, group: "Sales".into(), ..User::default() };
    assert!(!visible(&caller, [&user]).has(Some(ANN)));
    for action in Action::ALL.iter().filter(|action| action.scope() != Scope::Call) {
        assert!(decide(&caller, *action, On::One(of(Some(ANN), "")), &OPEN).is_err(), "{action}");
        assert!(decide(&caller, *action, On::Everything, &OPEN).is_err(), "{action}");
    }
}

#[test]
fn the_settings_say_who_deletes_downloads_and_preserves() {
    #[track_caller]
    fn check(who: WhoMay, level: Level, expected: &str) {
        let settings = Permissions { delete: who, never_delete: false, download: who, preserve: who };
        for action in [Action::Delete, Action::Download, Action::Preserve, Action::Unpreserve] {
            let caller = ann(level, "Sales", &[]);
            assert_eq!(rule(&caller, action, On::One(of(Some(ANN), "Sales")), &settings), expected, "{action}");
        }
        // to hear is never what a setting forbids
        assert_eq!(rule(&ann(level, "Sales", &[]), Action::Play, On::One(of(Some(ANN), "")), &settings), "-");
    }
    check(WhoMay::Nobody, Level::Administrator, "setting");
    check(WhoMay::Administrators, Level::Administrator, "-");
    check(WhoMay::Administrators, Level::GroupSupervisor, "setting");
    check(WhoMay::GroupSupervisors, Level::GroupSupervisor, "-");
    check(WhoMay::GroupSupervisors, Level::Base, "setting");
    check(WhoMay::Users, Level::Base, "-");
    let groupless = ann(Level::GroupSupervisor, "", &[]);
    let settings = Permissions { delete: WhoMay::GroupSupervisors, ..OPEN };
    assert_eq!(rule(&groupless, Action::Delete, On::One(of(Some(ANN), "")), &settings), "setting");
    let never = Permissions { never_delete: true, ..OPEN };
    for caller in [ann(Level::Administrator, "", &[]), Caller::operator("")] {
        assert_eq!(rule(&caller, Action::Delete, On::One(of(Some(ANN), "")), &never), "delete-never");
    }
}

#[test]
fn the_hierarchy_holds() {
    #[track_caller]
    fn check(by: Level, level: Level, may: bool) {
        let caller = ann(level, "Sales", &[]);
        let owned = Owned { preserved_by: Some(by), ..of(Some(ANN), "Sales") };
        let expected = if may { "-" } else { "preserved-higher" };
        assert_eq!(rule(&caller, Action::Delete, On::One(owned), &OPEN), expected);
        assert_eq!(rule(&caller, Action::Unpreserve, On::One(owned), &OPEN), expected);
        assert_eq!(rule(&caller, Action::Play, On::One(owned), &OPEN), "-");
        let note = On::Note(of(Some(ANN), "Sales"), by);
        let expected = if may { "-" } else { "note-higher" };
        assert_eq!(rule(&caller, Action::NoteEdit, note, &OPEN), expected);
        assert_eq!(rule(&caller, Action::NoteDelete, note, &OPEN), expected);
    }
    check(Level::Base, Level::Base, true);
    check(Level::GroupSupervisor, Level::Base, false);
    check(Level::Administrator, Level::Base, false);
    check(Level::Base, Level::GroupSupervisor, true);
    check(Level::GroupSupervisor, Level::GroupSupervisor, true);
    check(Level::Administrator, Level::GroupSupervisor, false);
    check(Level::Administrator, Level::Administrator, true);
}

#[test]
fn the_appliance_is_the_administrators() {
    for action in Action::ALL.iter().filter(|action| action.scope() == Scope::Appliance) {
        assert_eq!(
            rule(&ann(Level::GroupSupervisor, "Sales", &[]), *action, On::Everything, &OPEN),
            "level",
            "{action}"
        );
        assert_eq!(rule(&Caller::operator(""), *action, On::Everything, &OPEN), "-", "{action}");
    }
}

#[test]
fn without_a_word_of_which_only_lists_are_allowed() {
    let base = ann(Level::Base, "Sales", &[]);
    let check = |action, expected| assert_eq!(rule(&base, action, On::Everything, &OPEN), expected, "{action}");
    check(Action::Search, "-");
    check(Action::SeeCalls, "-");
    check(Action::Export, "-");
    check(Action::Show, "unowned");
    check(Action::Delete, "unowned");
    check(Action::Pause, "unowned");
}

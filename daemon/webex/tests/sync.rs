//! Every cell of the table of rules, the guards, and five thousand people.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use callvault_directory::{Field, User};
use callvault_webex::{Gathered, Kind, RecordingSettings, Rules, SyncError, SyncPlan, SyncSettings, plan};
use jiff::Timestamp;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn gathered(people: &str) -> Gathered {
    let mut gathered = Gathered::default();
    gathered.people_page(format!(r#"{{"items": [{people}], "notFoundIds": []}}"#).as_bytes()).unwrap();
    gathered
        .locations_page(br#"{"items": [{"id": "L1", "name": "Paris, France"}, {"id": "L2", "name": "Rome"}]}"#)
        .unwrap();
    gathered.organisations_page(br#"{"items": [{"id": "O1", "displayName": "ACME Inc."}]}"#).unwrap();
    gathered.recording.insert("P1".into(), recording("jsmith", "On Demand"));
    gathered
}

fn recording(native: &str, mode: &str) -> RecordingSettings {
    RecordingSettings { native: native.into(), mode: mode.into() }
}

/// Each source of him is another: the extension is a whole number as well, and the work number is not the primary one.
const JOHN: &str = r#"{"id": "P1", "emails": ["John.Smith@Company.com"], "extension": "+442079466623", "locationId": "L1", "orgId": "O1",
    "phoneNumbers": [{"type": "mobile", "value": "+44 7700 900123", "primary": true}, {"type": "work", "value": "+44 7259 856623"}],
    "firstName": "John", "lastName": "Smith", "type": "person", "avatar": "https://pictures.example/1", "tomorrow": {}}"#;

fn rules(field: &str, rule: &str) -> Result<Rules, Vec<String>> {
    Rules::read(&BTreeMap::from([(field.to_owned(), rule.to_owned())]))
}

fn id(number: usize) -> Uuid {
    Uuid::from_u128(number as u128 + 1)
}

fn made(users: &[User], gathered: &Gathered, settings: &SyncSettings) -> Result<SyncPlan, SyncError> {
    let (synchronised, mut next) = (users.iter().map(|user| user.id).collect(), 1_000_000 + users.len());
    plan(users, &synchronised, gathered, settings, NOW, || {
        next += 1;
        id(next)
    })
}

#[test]
fn every_cell_of_the_table() {
    // What a user who is added has, and one who was there with the value `before`.
    fn check(field: &str, rule: &str, before: &str, added: &str, changed: &str) {
        let settings = SyncSettings { rules: rules(field, rule).unwrap(), ..SyncSettings::default() };
        let field = Field::named(field).unwrap();
        let new = made(&[], &gathered(JOHN), &settings).unwrap();
        assert_eq!(field.get(&new.plan.added[0]), added, "{} added, {rule}", field.name);
        let mut user = User { id: id(1), webex_email: "john.smith@company.com".into(), ..User::default() };
        field.set(&mut user, before).unwrap();
        let known = made(std::slice::from_ref(&user), &gathered(JOHN), &settings).unwrap();
        assert_eq!(field.get(&known.plan.changed[0].0), changed, "{} changed, {rule}", field.name);
    }
    check("user_name", "every time e-mail user", "x", "john.smith", "john.smith");
    check("domain", "every time e-mail domain", "x", "company.com", "company.com");
    check("first_name", "every time first name", "x", "John", "John");
    check("last_name", "every time last name", "x", "Smith", "Smith");
    for (field, value, other) in
        [("pin", "1234", "9876"), ("initial_password", "changeme", "other"), ("preferred_language", "en", "it")]
    {
        check(field, &format!("when adding {value}"), other, value, other);
        check(field, "keep", other, "", other);
    }
    for field in ["first_extension", "extension_alias"] {
        check(field, "every time extension or phone number", "7", "+442079466623", "+442079466623");
        check(field, "every time phone number or extension", "7", "+447259856623", "+447259856623");
        check(field, "keep", "7", "", "7");
    }
    check("extension_alias", "every time work phone", "7", "+447259856623", "+447259856623");
    check("extension_alias", "every time e-mail", "7", "john.smith@company.com", "john.smith@company.com");
    for field in ["device_name", "preferred_device_name"] {
        check(field, "every time native user id", "x", "jsmith", "jsmith");
        check(field, "keep", "x", "", "x");
    }
    for field in ["email", "presence_uri", "microsoft_uri", "webex_uri"] {
        check(field, "every time e-mail", "x@y.z", "john.smith@company.com", "john.smith@company.com");
        check(field, "keep", "x@y.z", "", "x@y.z");
    }
    for field in ["department", "cost_centre", "office_location"] {
        check(field, "every time organisation name", "x", "ACME Inc.", "ACME Inc.");
        check(field, "every time location name", "x", "Paris, France", "Paris, France");
        check(field, "keep", "x", "", "x");
    }
    check("recording_mode", "every time recording mode", "always", "on-demand", "on-demand");
    check("recording_mode", "keep", "never", "", "never");
}

#[test]
fn modes_are_those_of_webex() {
    fn check(mode: &str, expected: &str) {
        let settings = SyncSettings {
            rules: rules("recording_mode", "every time recording mode").unwrap(),
            ..SyncSettings::default()
        };
        let mut john = gathered(JOHN);
        john.recording.insert("P1".into(), recording("jsmith", mode));
        let user = made(&[], &john, &settings).unwrap().plan.added.remove(0);
        assert_eq!(user.recording_mode.map(|mode| mode.as_str()).unwrap_or_default(), expected, "{mode}");
    }
    check("Always", "always");
    check("Always with Pause/Resume", "always-with-pause");
    check("On Demand", "on-demand");
    check("On Demand with User Initiated Start", "on-demand-user-start");
    check("Never", "never");
    check("", "never");
    check("On Sundays", "");
}

#[test]
fn the_work_number_goes_before_the_primary_and_that_before_the_first() {
    fn check(phones: &str, phone: &str, work: &str) {
        let person = format!(r#"{{"id": "P", "emails": ["a@b.c"], "phoneNumbers": [{phones}]}}"#);
        let user = made(&[], &gathered(&person), &SyncSettings::default()).unwrap().plan.added.remove(0);
        assert_eq!((&*user.first_extension, &*user.extension_alias), (phone, work), "{phones}");
    }
    let (first, primary, work) = (
        r#"{"type": "mobile", "value": "+441"}"#,
        r#"{"type": "home", "value": "+442", "primary": true}"#,
        r#"{"type": "work", "value": "+443"}"#,
    );
    check(&format!("{first},{primary},{work}"), "+443", "+443");
    check(&format!("{first},{primary}"), "+442", "");
    check(first, "+441", "");
    check("", "", "");
}

/// A lobby, and a line that several people have on their telephones.
fn places() -> Gathered {
    let mut gathered = gathered(JOHN);
    let workspace =
        br#"{"items": [{"id": "W1", "displayName": "Lobby", "orgId": "O1", "locationId": "L2", "type": "other"}]}"#;
    gathered.workspaces_page(workspace).unwrap();
    let lobby = gathered.people.last_mut().unwrap();
    lobby.numbers(br#"{"phoneNumbers": [{"external": "+390655501", "extension": "501", "primary": true}, {"extension": "777"}]}"#).unwrap();
    let line = br#"{"virtualLines": [{"id": "V1", "firstName": "Service", "lastName": "Line", "location": {"id": "L1", "name": "Paris, France"},
        "number": {"external": null, "extension": "6103", "primary": true}, "numberOfDevicesAssigned": 2}]}"#;
    gathered.virtual_lines_page(line, Some("O1")).unwrap();
    gathered.recording.insert("W1".into(), recording("lobby@x", "Always"));
    gathered
}

#[test]
fn workspaces_and_virtual_lines_are_users_without_e_mail_and_password() {
    let table = [("initial_password", "when adding changeme"), ("pin", "when adding 1234")];
    let table = table.map(|(field, rule)| (field.to_owned(), rule.to_owned()));
    let settings = SyncSettings {
        rules: Rules::read(&BTreeMap::from(table)).unwrap(),
        calling_only: true,
        ..SyncSettings::default()
    };
    let made = made(&[], &places(), &settings).unwrap();
    let [john, lobby, line] = made.plan.added.as_slice() else { panic!("{:?}", made.plan) };
    assert_eq!((&*john.initial_password, &*john.pin), ("changeme", "1234"));
    let told = |user: &User| {
        let (secrets, email) = (user.initial_password.clone() + &user.pin, &user.email);
        let name = format!("{} {}", user.first_name, user.last_name).trim().to_owned();
        format!(
            "{}|{name}|{}|{}|{}|{secrets}{email}",
            user.webex_email, user.first_extension, user.device_name, user.office_location
        )
    };
    assert_eq!(told(lobby), "w1@workspace.webex.invalid|Lobby|+390655501|lobby@x|Rome|");
    assert_eq!(told(line), "v1@virtual-line.webex.invalid|Service Line|6103||Paris, France|");
}

#[test]
fn whom_webex_records_and_who_is_unknown_here_is_told_and_the_reverse() {
    let told = |gathered: &Gathered, settings: &SyncSettings| {
        let made = made(&[], gathered, settings).unwrap();
        let unknown =
            made.unknown.iter().map(|one| format!("{} {} {:?}: {}", one.address, one.name, one.kind, one.reason));
        let email = |id: &Uuid| made.plan.added.iter().find(|user| user.id == *id).unwrap().webex_email.clone();
        let unrecorded = made.unrecorded.iter().map(|(id, reason)| format!("{}: {reason}", email(id)));
        (unknown.collect::<Vec<_>>(), unrecorded.collect::<Vec<_>>())
    };
    let none: Vec<String> = Vec::new();
    let mut gathered = places();
    assert_eq!(told(&gathered, &SyncSettings::default()), (none.clone(), none.clone()));
    // A filter leaves one out, who is recorded all the same.
    let paris = SyncSettings { locations: vec!["Paris, France".into()], ..SyncSettings::default() };
    let lobby = format!("w1@workspace.webex.invalid Lobby {:?}: another location", Kind::Workspace);
    assert_eq!(told(&gathered, &paris), (vec![lobby], none.clone()));
    for off in ["", "Never"] {
        gathered.recording.insert("W1".into(), recording("lobby@x", off));
        let off = "w1@workspace.webex.invalid: recording is off in Webex".to_owned();
        assert_eq!(told(&gathered, &SyncSettings::default()), (none.clone(), vec![off]));
        assert_eq!(told(&gathered, &paris), (none.clone(), none.clone()));
    }
    // Webex records for somebody else there.
    gathered.platform("L1", br#"{"orgDefaultVendorName": "Imagicle", "defaultVendorName": "Webex"}"#).unwrap();
    gathered.platform("L2", br#"{"defaultVendorName": "callvault"}"#).unwrap();
    let (_, unrecorded) = told(&gathered, &SyncSettings::default());
    assert_eq!(unrecorded[0], "john.smith@company.com: another platform records");
    let named = SyncSettings { platforms: vec!["WEBEX".into()], ..SyncSettings::default() };
    assert_eq!(told(&gathered, &named).1.len(), 1, "of the lobby, where recording is off");
}

#[test]
fn pictures_are_looked_at_unless_kept() {
    let every = SyncSettings::default();
    assert_eq!(made(&[], &gathered(JOHN), &every).unwrap().pictures.len(), 1);
    let keep = SyncSettings { rules: rules("picture", "keep").unwrap(), ..SyncSettings::default() };
    assert_eq!(made(&[], &gathered(JOHN), &keep).unwrap().pictures.len(), 0);
}

#[test]
fn rules_that_are_none_are_refused_when_they_are_read() {
    fn check(field: &str, rule: &str, expected: &str) {
        let errors = rules(field, rule).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{field} {rule} {errors:?}");
    }
    check("user_name", "keep", "\"every time e-mail user\"");
    check("user_name", "when adding x", "\"every time e-mail user\"");
    check("pin", "every time e-mail", "\"when adding VALUE\"");
    check("pin", "when adding 1", "that the field takes");
    check("first_extension", "every time e-mail", "or \"every time phone number or extension\", or \"keep\"");
    check("first_extension", "every time extension", "extension or phone number");
    check("department", "sometimes", "\"keep\"");
    check("level", "keep", "fields are user_name");
    let error = rules("pin", "when adding secret").unwrap_err();
    assert!(!error[0].contains("secret"));
}

#[test]
fn numbers_become_whole() {
    fn check(extension: &str, phone: &str, country_code: &str, expected: &str) {
        let person = format!(
            r#"{{"id": "P", "emails": ["a@b.c"], "extension": "{extension}", "phoneNumbers": [{{"value": "{phone}"}}]}}"#
        );
        let settings = SyncSettings { country_code: country_code.into(), ..SyncSettings::default() };
        let new = made(&[], &gathered(&person), &settings).unwrap();
        assert_eq!(new.plan.added[0].first_extension, expected, "{extension} {phone}");
    }
    check("623", "+1 408 526 7209", "", "+14085267209");
    check("623", "(408) 526-7209", "1", "+14085267209");
    check("623", "07259 856623", "44", "+447259856623");
    check("623", "055 1234567", "39", "+390551234567");
    check("623", "408 526 7209", "", "623");
    check("", "408 526 7209", "", "4085267209");
    check("623", "", "44", "623");
    check("", "", "44", "");
    check("4085267209", "+442079460000", "1", "+14085267209");
}

#[test]
fn who_is_left_out() {
    fn check(person: &str, settings: &SyncSettings, expected: Option<&str>) {
        let made = made(&[], &gathered(person), settings).unwrap();
        assert_eq!(made.left_out.keys().next().copied(), expected, "{person}");
        assert_eq!(made.plan.added.len(), usize::from(expected.is_none()));
    }
    let all = SyncSettings::default();
    let calling = SyncSettings { calling_only: true, ..SyncSettings::default() };
    let rome = SyncSettings { locations: vec!["rome".into()], ..SyncSettings::default() };
    check(r#"{"emails": ["a@b.c"]}"#, &all, None);
    check(r#"{"emails": ["a@b.c"], "type": "bot"}"#, &all, Some("not a person"));
    check(r#"{"emails": []}"#, &all, Some("no e-mail"));
    check(r#"{"emails": ["nobody"]}"#, &all, Some("no e-mail"));
    check(r#"{"emails": ["a@b.c"]}"#, &calling, Some("no Webex Calling"));
    check(r#"{"emails": ["a@b.c"], "locationId": "L1"}"#, &calling, None);
    check(r#"{"emails": ["a@b.c"], "locationId": "L1"}"#, &rome, Some("another location"));
    check(r#"{"emails": ["a@b.c"], "locationId": "L2"}"#, &rome, None);
}

#[test]
fn what_is_not_known_stays_and_what_is_gone_goes() {
    let mut user = User { id: id(1), webex_email: "a@b.c".into(), ..User::default() };
    (user.device_name, user.department, user.first_extension) = ("old".into(), "Old".into(), "+4420".into());
    let person = r#"{"id": "P9", "emails": ["a@b.c"], "orgId": "O9"}"#;
    let settings = SyncSettings::default();
    let after = made(&[user.clone()], &gathered(person), &settings).unwrap().plan.changed.remove(0).0;
    assert_eq!((&*after.device_name, &*after.department, &*after.first_extension), ("old", "Old", ""));
    let mut known = gathered(person);
    known.recording.insert("P9".into(), recording("", ""));
    assert_eq!(made(&[user], &known, &settings).unwrap().plan.changed.remove(0).0.device_name, "");
}

/// So many people with e-mails of their own.
fn people(range: std::ops::Range<usize>) -> String {
    let one = |number| format!(r#"{{"id": "Q{number}", "emails": ["user{number}@b.c"], "firstName": "U{number}"}}"#);
    range.map(one).collect::<Vec<_>>().join(",")
}

#[test]
fn five_thousand_people_and_the_days_after() {
    let settings = SyncSettings::default();
    let mut first = Gathered::default();
    for page in 0..50 {
        first.people_page(format!(r#"{{"items": [{}]}}"#, people(page * 100..page * 100 + 100)).as_bytes()).unwrap();
    }
    let users = made(&[], &first, &settings).unwrap().plan.into_users();
    assert_eq!(users.len(), 5_000);
    let check =
        |range: std::ops::Range<usize>, confirmed, expected: Result<(usize, usize, usize, usize), SyncError>| {
            let settings = SyncSettings { confirmed, ..settings.clone() };
            let counts = made(&users, &gathered(&people(range.clone())), &settings).map(|made| {
                let counts = made.plan.counts();
                (counts.added, counts.changed, counts.removed, counts.unchanged)
            });
            assert_eq!(counts, expected, "{range:?}");
        };
    check(0..5_000, false, Ok((0, 0, 0, 5_000)));
    check(0..4_999, false, Ok((0, 0, 1, 4_999)));
    check(500..5_200, false, Ok((200, 0, 500, 4_500)));
    check(501..5_000, false, Err(SyncError::ManyRemoved { removed: 501, known: 5_000 }));
    check(501..5_000, true, Ok((0, 0, 501, 4_499)));
    check(0..0, true, Err(SyncError::Nobody { known: 5_000 }));
}

#[test]
fn an_email_that_changed_is_another_user_and_one_who_comes_back_is_the_same() {
    let settings = SyncSettings::default();
    let user = made(&[], &gathered(&people(1..2)), &settings).unwrap().plan.into_users();
    let renamed = made(&user, &gathered(r#"{"id": "P1", "emails": ["new@b.c"]}"#), &settings).unwrap();
    assert_eq!((renamed.plan.added.len(), renamed.plan.removed.len()), (1, 1));
    assert_ne!(renamed.plan.added[0].id, user[0].id);
    let back = made(&renamed.plan.removed, &gathered(&people(1..2)), &settings).unwrap();
    assert_eq!((back.plan.added[0].id, back.plan.added[0].removed_at), (user[0].id, None));
}

#[test]
fn whom_webex_never_had_stays() {
    let by_hand = User { id: id(1), webex_email: "hand@b.c".into(), ..User::default() };
    let made = plan(&[by_hand], &BTreeSet::new(), &gathered(JOHN), &SyncSettings::default(), NOW, || id(2)).unwrap();
    assert_eq!((made.plan.removed.len(), made.plan.unchanged), (0, 1));
    assert_eq!(made.synchronised, BTreeSet::from([id(2)]));
}

#[test]
fn a_page_of_another_form_makes_nobody_vanish() {
    fn check(page: &str) {
        assert!(Gathered::default().people_page(page.as_bytes()).is_err(), "{page}");
    }
    check("");
    check("[]");
    check(r#"{"items": {}}"#);
    check(r#"{"items": [{"emails": "a@b.c"}]}"#);
    check(r#"{"items": [17]}"#);
}

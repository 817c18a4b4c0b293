//! Reading a whole organisation against the stand-in, with everything that goes wrong on the way.

#![allow(clippy::unwrap_used)]

mod standin;

use std::collections::{BTreeMap, BTreeSet};

use callvault_webex::{Gathered, Kind, SyncSettings, WalkError, plan};
use callvault_webex_client::{Access, Asked, Fault, Known};
use jiff::Timestamp;
use serde_json::json;
use standin::{Around, StandIn};
use uuid::Uuid;

fn gather(
    webex: &StandIn,
    access: &Access,
    around: &Around,
    known: &BTreeMap<String, Known>,
) -> Result<(Gathered, Asked), Fault> {
    around.with(|outside| webex.client().gather(access, outside, known))
}

/// What is known after a run.
fn known_of(gathered: &Gathered, around: &Around) -> BTreeMap<String, Known> {
    let one = |person: &callvault_webex::Person| {
        let recording = gathered.recording.get(&person.id)?.clone();
        let known =
            Known { recording, last_modified: person.last_modified.clone(), read_at_s: around.now().as_second() };
        Some((person.id.clone(), known))
    };
    gathered.people.iter().filter_map(one).collect()
}

#[test]
fn five_thousand_people_come_whole_through_all_that_goes_wrong() {
    const PEOPLE: usize = 5_000;
    let (webex, around) = (StandIn::start(), Around::default());
    webex.set(&json!({
        "people": standin::people(PEOPLE), "locations": standin::locations(), "native": standin::native(PEOPLE),
        "faults": [
            {"path": "/people", "kind": 429, "every": 131, "retry_after": 7}, {"path": "/people", "kind": "cut", "every": 171},
            {"path": "/people", "kind": 423, "every": 401}, {"path": "/people", "kind": 500, "every": 303},
            {"path": "/people", "kind": 401, "every": 1_009}, {"path": "/locations", "kind": 503, "times": 1},
        ],
    }));
    let access = webex.authorised(&around);
    let (gathered, asked) = gather(&webex, &access, &around, &BTreeMap::new()).unwrap();
    let ids: BTreeSet<&str> = gathered.people.iter().map(|person| person.id.as_str()).collect();
    assert_eq!((gathered.people.len(), ids.len()), (PEOPLE, PEOPLE), "everybody, and nobody twice");
    assert_eq!((gathered.recording.len(), gathered.locations.len(), gathered.organisations.len()), (4_500, 3, 1));
    assert_eq!(gathered.platforms.values().collect::<BTreeSet<_>>().len(), 1, "{:?}", gathered.platforms);
    // 50 pages of people, one of locations, one of organisations, 3 platforms, 4,500 recording settings: and one more for each fault.
    let sent = webex.requests("/people") + webex.requests("/callRecording") + webex.requests("/locations");
    assert!((4_551..4_551 + 120).contains(&sent), "{sent}");
    assert_eq!(asked.lists + asked.people, sent + webex.requests("/organizations") + webex.requests("/vendors"));
    assert_eq!(webex.seen()["wrong"], json!([]), "nothing was asked that the documentation does not allow");
    let settings = SyncSettings { calling_only: true, ..SyncSettings::default() };
    let made = plan(&[], &BTreeSet::new(), &gathered, &settings, Timestamp::now(), Uuid::now_v7).unwrap();
    assert_eq!((made.plan.added.len(), made.left_out["no Webex Calling"]), (4_500, 500));
    // A day later nothing has changed, and nobody is asked about singly.
    let known = known_of(&gathered, &around);
    webex.set(&json!({"faults": []}));
    around.later(86_400);
    let (again, asked) = gather(&webex, &access, &around, &known).unwrap();
    assert_eq!((again.recording == gathered.recording, asked), (true, Asked { lists: 55, people: 0 }));
}

#[test]
fn several_organisations_are_read_one_after_the_other() {
    let (webex, around) = (StandIn::start(), Around::default());
    let mut people = standin::people(250);
    let others = people.as_array_mut().unwrap().iter_mut().skip(120);
    others.for_each(|person| person["orgId"] = json!("org-2"));
    let organisations = json!([{"id": "org-1", "displayName": "ACME"}, {"id": "org-2", "displayName": "Other"}]);
    webex.set(&json!({"people": people, "organizations": organisations, "locations": standin::locations()}));
    let access = webex.authorised(&around);
    let check = |named: &[&str], expected: usize| {
        let mut settings = webex.settings();
        settings.organisations = named.iter().map(|id| (*id).to_owned()).collect();
        settings.wants_recording = false;
        let client = callvault_webex_client::Client::new(settings).unwrap();
        let gathered = around.with(|outside| client.gather(&access, outside, &BTreeMap::new()));
        assert_eq!(gathered.unwrap().0.people.len(), expected, "{named:?}");
    };
    check(&[], 120);
    check(&["org-2"], 130);
    check(&["org-1", "org-2"], 250);
}

#[test]
fn recording_settings_are_read_again_when_webex_says_so_or_after_a_week() {
    let (webex, around) = (StandIn::start(), Around::default());
    let mut people = standin::people(3);
    webex.set(&json!({"people": people, "locations": standin::locations(), "native": standin::native(3)}));
    let access = webex.authorised(&around);
    let (gathered, first) = gather(&webex, &access, &around, &BTreeMap::new()).unwrap();
    assert_eq!(first.people, 2);
    let known = known_of(&gathered, &around);
    people[1]["lastModified"] = json!("2026-02-02T00:00:00.000Z");
    webex.set(&json!({"people": people, "native": {"person-00001": "another@x"}}));
    let (again, second) = gather(&webex, &access, &around, &known).unwrap();
    assert_eq!((second.people, &*again.recording["person-00001"].native), (1, "another@x"));
    around.later(8 * 86_400);
    let (gone, third) = gather(&webex, &access, &around, &known).unwrap();
    assert_eq!((third.people, &*gone.recording["person-00002"].native), (2, ""), "who has none any more has none");
}

#[test]
fn workspaces_and_virtual_lines_come_where_they_are_wanted() {
    let (webex, around) = (StandIn::start(), Around::default());
    let workspace = |n: usize, calling: &str| json!({"id": format!("place-{n}"), "displayName": format!("Room {n}"), "locationId": "location-1", "calling": {"type": calling}});
    let mut workspaces: Vec<_> = (0..1_100).map(|n| workspace(n, "webexCalling")).collect();
    workspaces.push(workspace(9_999, "freeCalling"));
    let line = |n: usize| {
        let number = json!({"extension": format!("6{n:04}"), "primary": true});
        json!({"id": format!("line-{n}"), "firstName": "Line", "lastName": n.to_string(), "number": number, "location": {"id": "location-2", "name": "B"}})
    };
    webex.set(&json!({
        "people": standin::people(3), "locations": standin::locations(), "workspaces": workspaces,
        "numbers": {"place-0": [{"external": "+14085550000", "extension": "0", "primary": true}]},
        "virtual_lines": (0..2_500).map(line).collect::<Vec<_>>(),
        "native": {"place-0": "lobby@x", "line-7": "line7@x"}, "modes": {"line-7": "off"}, "vendors": {"location-2": "Webex"},
    }));
    let access = webex.authorised(&around);
    let mut settings = webex.settings();
    (settings.workspaces, settings.virtual_lines) = (true, true);
    let client = callvault_webex_client::Client::new(settings).unwrap();
    let gathered = around.with(|outside| client.gather(&access, outside, &BTreeMap::new())).unwrap().0;
    let of = |kind| gathered.people.iter().filter(|person| person.kind == kind).count();
    assert_eq!((of(Kind::Person), of(Kind::Workspace), of(Kind::VirtualLine)), (3, 1_100, 2_500));
    let lobby = gathered.people.iter().find(|person| person.id == "place-0").unwrap();
    assert_eq!((lobby.phone_numbers[0].value.as_str(), lobby.extension.as_deref()), ("+14085550000", Some("0")));
    let recording = |id: &str| (gathered.recording[id].native.clone(), gathered.recording[id].is_recording());
    assert_eq!(recording("place-0"), ("lobby@x".to_owned(), true));
    assert_eq!(recording("line-7"), ("line7@x".to_owned(), false));
    assert_eq!(recording("line-8"), (String::new(), false), "who has no recording settings is not recorded");
    assert_eq!(gathered.platforms["location-2"], "Webex");
    assert_eq!(webex.seen()["wrong"], json!([]));
    // A token without the scope says so, and nothing comes.
    webex.set(&json!({"scopes": ["spark-admin:people_read", "spark-admin:organizations_read", "spark-admin:locations_read", "spark-admin:telephony_config_read"]}));
    let fault = around.with(|outside| client.gather(&access, outside, &BTreeMap::new())).map(drop).unwrap_err();
    assert_eq!(fault, Fault::Walk(WalkError::Forbidden));
}

#[test]
fn half_a_directory_is_none() {
    #[track_caller]
    fn check(fault: &serde_json::Value, expected: &Fault) {
        let (webex, around) = (StandIn::start(), Around::default());
        webex.set(&json!({"people": standin::people(300), "native": standin::native(300)}));
        let access = webex.authorised(&around);
        webex.set(&json!({"faults": [fault]}));
        assert_eq!(&gather(&webex, &access, &around, &BTreeMap::new()).map(drop).unwrap_err(), expected, "{fault}");
    }
    let walk = Fault::Walk;
    check(&json!({"path": "/people", "kind": 403, "every": 3}), &walk(WalkError::Forbidden));
    check(&json!({"path": "/people", "kind": 400, "every": 3}), &walk(WalkError::Refused(400)));
    check(&json!({"path": "/people", "kind": 503}), &walk(WalkError::Unavailable));
    check(&json!({"path": "/locations", "kind": 429}), &walk(WalkError::Unavailable));
    check(&json!({"path": "/people", "kind": "html"}), &Fault::Form("the answer of Webex is not a list of items"));
}

#[test]
fn a_token_that_is_refused_twice_is_dead_and_once_is_renewed() {
    let (webex, around) = (StandIn::start(), Around::default());
    webex.set(&json!({"people": standin::people(30), "native": standin::native(30)}));
    let access = webex.authorised(&around);
    webex.set(&json!({"revoke": "access"}));
    assert!(gather(&webex, &access, &around, &BTreeMap::new()).is_ok());
    assert_eq!(webex.requests("/access_token"), 2);
    webex.set(&json!({"faults": [{"path": "/organizations", "kind": 401}]}));
    let fault = gather(&webex, &access, &around, &BTreeMap::new()).map(drop).unwrap_err();
    assert!(fault.needs_somebody(), "{fault:?}");
}

#[test]
fn nobody_there_is_said_with_what_to_look_at() {
    let (webex, around) = (StandIn::start(), Around::default());
    let access = webex.authorised(&around);
    let mut settings = webex.settings();
    // A port that nobody listens at.
    settings.url = "http://127.0.0.1:9/v1".to_owned();
    let client = callvault_webex_client::Client::new(settings).unwrap();
    let fault = around.with(|outside| client.gather(&access, outside, &BTreeMap::new())).map(drop).unwrap_err();
    assert!(matches!(&fault, Fault::Unreachable(_)), "{fault:?}");
    assert!(fault.to_string().contains("webex.proxy") && !fault.needs_somebody(), "{fault}");
}

#[test]
fn pictures_are_looked_at_and_end() {
    let webex = StandIn::start();
    let client = webex.client();
    let check = |name: &str, expected: &str| {
        let url = format!("http://127.0.0.1:{}/avatar/{name}", webex.port);
        let found = client.picture(&url, 200 * 1024, &|| false);
        let found = found.map_or_else(|text| text, |(kind, bytes)| format!("{kind:?} of {}", bytes.len()));
        assert!(found.contains(expected), "{name}: {found}");
    };
    check("good.png", "Png of 70");
    check("lies.png", "neither PNG, JPEG nor BMP");
    check("large.png", "longer than 204800");
    check("endless.png", "longer than 204800");
    check("gone.png", "status 404");
    let elsewhere = client.picture("http://192.0.2.1/avatar", 200 * 1024, &|| false).unwrap_err();
    assert!(elsewhere.contains("not https"), "{elsewhere}");
    assert_eq!(webex.seen()["wrong"], json!([]), "no token goes to where pictures are");
}

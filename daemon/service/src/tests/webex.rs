//! Webex, against the stand-in: authorised, synchronised, compared; and what is said when it is not.

#[path = "../../../webex-client/tests/standin/mod.rs"]
mod standin;

use std::sync::Arc;

use callvault_access::Caller;
use callvault_http::{Answer, Api, CompletenessQuery, ErrorKind, Pasted, Status, SyncWanted, WebexCall};
use callvault_journal::facts::{CallFacts, Party, SessionEvent};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use standin::StandIn;

use super::rig::{Generation, Rig, Running, both, pcmu};
use crate::api::Control;
use crate::health;
use crate::webex::Between;

struct Sut {
    running: Running,
    control: Control,
    between: Between,
    operator: Caller,
}

fn configure(rig: &Rig, webex: &StandIn, more: &str) {
    let (base, secret) = (format!("http://127.0.0.1:{}/v1", webex.port), webex.place.path().join("secret"));
    rig.configure(&format!(
        "[archive]\ncodec = \"as-received\"\n[uploads]\ntimeout = \"5s\"\n[numbers]\ncountry_code = \"39\"\n[webex]\nenabled = true\nurl = \"{base}\"\nrecords_url = \"{base}\"\nclient_id = \"C-integration\"\nclient_secret = \"{}\"\nsync_at = \"\"\n{more}\n",
        secret.display()
    ));
}

impl Sut {
    fn start(rig: &Rig) -> Self {
        let running = rig.start();
        let control = Control(Arc::clone(&running.appliance));
        Self { running, control, between: Between::default(), operator: Caller::operator("127.0.0.1") }
    }

    fn ask(&self, call: &WebexCall) -> Answer {
        self.control.webex(&self.operator, call)
    }

    fn authorise(&self, webex: &StandIn) -> Answer {
        let begun = self.ask(&WebexCall::Begin)?;
        let answer = webex.agree(begun["url"].as_str().unwrap());
        self.ask(&WebexCall::Finish(Pasted { answer }))
    }

    /// A synchronisation from being asked for to its report.
    fn sync(&mut self, wanted: SyncWanted) -> Value {
        let begun = self.ask(&WebexCall::Sync(wanted)).unwrap();
        self.between.pass(&self.running.appliance);
        let runs = self.ask(&WebexCall::Runs).unwrap();
        assert_eq!(runs["runs"][0]["id"], begun["id"]);
        self.ask(&WebexCall::Run(begun["id"].as_str().unwrap().parse().unwrap())).unwrap()
    }

    fn users(&self) -> Vec<String> {
        let users = self.control.users(&self.operator).unwrap();
        let users = users["users"].as_array().unwrap().iter();
        users.map(|user| user["webex_email"].as_str().unwrap().to_owned()).collect()
    }

    fn webex_component(&self) -> (Status, String) {
        let snapshot = health::snapshot(&self.running.appliance);
        let component = &snapshot.health.components["webex"];
        (component.status, component.reason.clone())
    }
}

const DRY_RUN: SyncWanted = SyncWanted { is_dry_run: true, is_confirmed: false };
const CONFIRMED: SyncWanted = SyncWanted { is_dry_run: false, is_confirmed: true };

/// People of whom all are in Webex Calling.
fn people(count: usize) -> Value {
    let mut people = standin::people(count);
    people.as_array_mut().unwrap().iter_mut().for_each(|person| person["locationId"] = json!("location-1"));
    people
}

#[test]
fn users_come_from_webex_and_go_with_it() {
    let (rig, webex) = (Rig::as_received(), StandIn::start());
    configure(&rig, &webex, "");
    let mut people = people(20);
    people[1]["avatar"] = json!(format!("http://127.0.0.1:{}/avatar/good.png", webex.port));
    people[2]["avatar"] = json!(format!("http://127.0.0.1:{}/avatar/lies.png", webex.port));
    webex.set(&json!({"people": people, "locations": standin::locations(), "native": standin::native(20)}));
    let mut sut = Sut::start(&rig);
    assert!(sut.ask(&WebexCall::Sync(DRY_RUN)).is_err_and(|error| error.message.contains("webex authorise")));
    assert_eq!(sut.authorise(&webex).unwrap()["state"], "authorised");
    let dry = sut.sync(DRY_RUN);
    assert_eq!((&dry["outcome"], &dry["added"], sut.users().len()), (&json!("done"), &json!(20), 0), "{dry}");
    let done = sut.sync(SyncWanted::default());
    assert_eq!((&done["added"], &done["pictures"]["taken"], sut.users().len()), (&json!(20), &json!(1), 20), "{done}");
    assert!(done["pictures"]["not_taken"].to_string().contains("neither PNG"), "{done}");
    let user = sut.control.user(&sut.operator, "user3@example.com").unwrap();
    assert_eq!((&user["first_extension"], &user["department"]), (&json!("+140855500003"), &json!("ACME Inc.")));
    assert_eq!(
        (&user["device_name"], &user["office_location"]),
        (&json!("u00003@1.int10.bcld.webex.com"), &json!("Place 1"))
    );
    assert!(sut.control.user_picture(&sut.operator, "user1@example.com").is_ok());
    // Nothing changed: nobody is asked about singly, and no picture is fetched again.
    let before = webex.requests("callRecording");
    let again = sut.sync(SyncWanted::default());
    assert_eq!((&again["unchanged"], &again["pictures"]["taken"]), (&json!(20), &json!(0)), "{again}");
    assert_eq!(webex.requests("callRecording"), before);
    // An e-mail that changed is one who goes and one who comes, and a user made by hand stays.
    sut.control.set_user(&sut.operator, "hand@example.com", &[]).unwrap();
    people[5]["emails"] = json!(["new5@example.com"]);
    webex.set(&json!({"people": people}));
    let moved = sut.sync(SyncWanted::default());
    assert_eq!((&moved["added"], &moved["removed"]), (&json!(1), &json!(1)), "{moved}");
    let users = sut.users();
    assert!(users.contains(&"new5@example.com".to_owned()) && users.contains(&"hand@example.com".to_owned()));
    assert!(!users.contains(&"user5@example.com".to_owned()));
    assert_eq!(webex.seen()["wrong"], json!([]));
}

#[test]
fn who_is_on_one_side_alone_is_named() {
    let (rig, webex) = (Rig::as_received(), StandIn::start());
    configure(
        &rig,
        &webex,
        "locations = [\"Place 1\"]\nworkspaces = true\nscopes = \"spark-admin:people_read spark-admin:organizations_read spark-admin:locations_read spark-admin:telephony_config_read spark-admin:workspaces_read\"",
    );
    let mut people = people(4);
    people[3]["locationId"] = json!("location-2");
    let lobby = json!({"id": "place-1", "displayName": "Lobby", "locationId": "location-1", "calling": {"type": "webexCalling"}});
    webex.set(&json!({
        "people": people, "locations": standin::locations(), "native": standin::native(4), "modes": {"person-00002": "off"},
        "workspaces": [lobby], "numbers": {"place-1": [{"external": "+14085559999", "primary": true}]},
    }));
    let mut sut = Sut::start(&rig);
    let before = sut.ask(&WebexCall::Unmatched).unwrap();
    assert_eq!((&before["synchronised_at"], &before["unknown"]), (&Value::Null, &json!([])), "{before}");
    sut.authorise(&webex).unwrap();
    let done = sut.sync(SyncWanted::default());
    assert_eq!((&done["outcome"], &done["added"]), (&json!("done"), &json!(4)), "{done}");
    sut.control.set_user(&sut.operator, "hand@example.com", &[]).unwrap();
    // A number that no user has, and the number of the lobby.
    for (number, call) in [("+390501", 1), ("+390501", 2), ("+14085559999", 3)] {
        let party = Party { number: Some(number.to_owned()), ..Party::default() };
        let facts = CallFacts { call_id: Some(format!("callhalf-{call}:0")), local: party, ..CallFacts::default() };
        let id = uuid::Uuid::now_v7();
        let decision = sut.running.appliance.decide(id, &facts);
        let rule = if let callvault_control::Decision::Discard { rule } = decision { Some(rule) } else { None };
        assert_eq!(rule.as_deref(), (call < 3).then_some("unknown-user"), "{number}");
        sut.running.appliance.settle_call(id, rule.as_deref());
    }
    let found = sut.ask(&WebexCall::Unmatched).unwrap();
    let reasons = |list: &str, name: &str| {
        let one = |one: &Value| format!("{}: {}", one[name].as_str().unwrap(), one["reason"].as_str().unwrap());
        found[list].as_array().unwrap().iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(reasons("unknown", "address"), ["user3@example.com: another location"]);
    let unrecorded = reasons("unrecorded", "webex_email");
    assert_eq!(unrecorded.len(), 4, "two have no recording settings, the lobby among them: {unrecorded:?}");
    assert!(unrecorded.contains(&"user2@example.com: recording is off in Webex".to_owned()), "{unrecorded:?}");
    assert!(unrecorded.contains(&"hand@example.com: Webex has no such user".to_owned()), "{unrecorded:?}");
    assert_eq!(found["unrecorded_count"], 4);
    let sessions = &found["sessions"];
    assert_eq!((sessions.as_array().unwrap().len(), &sessions[0]["number"]), (1, &json!("+390501")), "{sessions}");
    assert_eq!((&sessions[0]["kept"], &sessions[0]["discarded"]), (&json!(0), &json!(2)));
    let metrics = health::snapshot(&sut.running.appliance).metrics;
    assert!(
        metrics.contains("callvault_webex_unknown_users 1\n")
            && metrics.contains("callvault_webex_unrecorded_users 3\n")
    );
    // The next start knows it too.
    drop(sut);
    let mut sut = Sut::start(&rig);
    sut.between.pass(&sut.running.appliance);
    assert_eq!(sut.ask(&WebexCall::Unmatched).unwrap()["unknown_count"], 1);
    assert_eq!(webex.seen()["wrong"], json!([]));
}

#[test]
fn who_waits_for_a_synchronisation_never_finds_it_neither_going_on_nor_told_of() {
    let (rig, webex) = (Rig::as_received(), StandIn::start());
    configure(&rig, &webex, "");
    webex.set(&json!({"people": people(1), "native": standin::native(1)}));
    let mut sut = Sut::start(&rig);
    sut.authorise(&webex).unwrap();
    // A list that cannot be had is a run that ends quickly, and has the shortest way to its report.
    webex.set(&json!({"faults": [{"path": "/people", "kind": 403, "times": 100_000}]}));
    let asking = Control(Arc::clone(&sut.running.appliance));
    let operator = sut.operator.clone();
    for _ in 0..30 {
        let id = sut.ask(&WebexCall::Sync(DRY_RUN)).unwrap()["id"].clone();
        std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                loop {
                    let runs = asking.webex(&operator, &WebexCall::Runs).unwrap();
                    if runs["runs"].as_array().unwrap().iter().any(|run| run["id"] == id) {
                        break;
                    }
                    assert!(runs["waiting"] == true || !runs["running_since"].is_null(), "{runs}");
                }
            });
            sut.between.pass(&sut.running.appliance);
            looks.join().unwrap();
        });
    }
}

#[test]
fn it_is_done_by_itself_once_a_day_and_not_before_somebody_looked() {
    let (rig, webex) = (Rig::as_received(), StandIn::start());
    configure(&rig, &webex, "");
    webex.set(&json!({"people": people(3), "native": standin::native(3)}));
    let start = |sync_at: &str| {
        let path = rig.path("callvault.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("sync_at = \"\"", &format!("sync_at = \"{sync_at}\"\nsync_jitter = \"0s\""));
        std::fs::write(&path, text).unwrap();
        Sut::start(&rig)
    };
    let mut sut = start("00:00");
    sut.authorise(&webex).unwrap();
    sut.between.pass(&sut.running.appliance);
    assert_eq!(sut.users().len(), 0, "one that never was waits for its time");
    let days_ago = |days: i64| Timestamp::now().checked_sub(SignedDuration::from_hours(24 * days)).unwrap();
    let report = json!({"dry_run": false, "outcome": "done"});
    let run = callvault_catalogue::WebexRun { id: uuid::Uuid::now_v7(), at: days_ago(2), report };
    sut.running.appliance.catalogue.put_webex_run(&run).unwrap();
    drop(sut);
    let mut sut = Sut::start(&rig);
    sut.between.pass(&sut.running.appliance);
    assert_eq!(sut.users().len(), 3);
    assert_eq!(sut.running.appliance.catalogue.webex_runs(10).unwrap().len(), 2);
    sut.between.pass(&sut.running.appliance);
    assert_eq!(sut.running.appliance.catalogue.webex_runs(10).unwrap().len(), 2, "once a day");
}

#[test]
fn who_would_remove_many_is_asked_and_half_a_list_removes_nobody() {
    let (rig, webex) = (Rig::as_received(), StandIn::start());
    configure(&rig, &webex, "");
    webex.set(&json!({"people": people(40), "native": standin::native(40)}));
    let mut sut = Sut::start(&rig);
    sut.authorise(&webex).unwrap();
    sut.sync(SyncWanted::default());
    webex.set(&json!({"people": people(30)}));
    let refused = sut.sync(SyncWanted::default());
    assert_eq!((&refused["outcome"], sut.users().len()), (&json!("refused"), 40), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("10 of 40 users would be removed"), "{refused}");
    assert_eq!(sut.webex_component().0, Status::Degraded);
    let dry = sut.sync(DRY_RUN);
    assert_eq!((&dry["removed"], sut.users().len()), (&json!(10), 40), "{dry}");
    assert!(dry["would_be_refused"].as_str().is_some(), "{dry}");
    assert_eq!((&sut.sync(CONFIRMED)["removed"], sut.users().len()), (&json!(10), 30));
    assert_eq!(sut.webex_component(), (Status::Ok, String::new()));
    webex.set(&json!({"people": people(0)}));
    assert_eq!((&sut.sync(CONFIRMED)["outcome"], sut.users().len()), (&json!("refused"), 30));
    webex.set(&json!({"faults": [{"path": "/people", "kind": 403}]}));
    let failed = sut.sync(SyncWanted::default());
    assert_eq!((&failed["outcome"], sut.users().len()), (&json!("failed"), 30), "{failed}");
}

#[test]
fn an_authorisation_lives_on_with_the_next_start_and_is_repaired_with_all_users_in_place() {
    let (rig, webex) = (Rig::as_received(), StandIn::start());
    configure(&rig, &webex, "");
    webex.set(&json!({"people": people(5), "native": standin::native(5)}));
    let mut sut = Sut::start(&rig);
    sut.between.pass(&sut.running.appliance);
    assert!(sut.webex_component().1.contains("has not been authorised yet"), "{:?}", sut.webex_component());
    sut.authorise(&webex).unwrap();
    sut.sync(SyncWanted::default());
    drop(sut);
    let mut sut = Sut::start(&rig);
    assert_eq!(sut.ask(&WebexCall::Status).unwrap()["state"], "authorised");
    webex.set(&json!({"revoke": "all"}));
    let failed = sut.sync(SyncWanted::default());
    assert_eq!((&failed["outcome"], sut.users().len()), (&json!("failed"), 5), "{failed}");
    sut.between.pass(&sut.running.appliance);
    let (status, reason) = sut.webex_component();
    assert!(status == Status::Degraded && reason.contains("withdrawn the authorisation"), "{reason}");
    assert!(health::snapshot(&sut.running.appliance).metrics.contains("callvault_webex_authorised 0"));
    sut.authorise(&webex).unwrap();
    assert_eq!((&sut.sync(SyncWanted::default())["unchanged"], sut.users().len()), (&json!(5), 5));
    assert_eq!(sut.webex_component(), (Status::Ok, String::new()));
    assert!(health::snapshot(&sut.running.appliance).metrics.contains("callvault_webex_authorised 1"));
}

#[test]
fn what_comes_back_is_taken_once_and_only_for_what_was_begun() {
    let (rig, webex) = (Rig::as_received(), StandIn::start());
    configure(&rig, &webex, "");
    let sut = Sut::start(&rig);
    let finish = |answer: &str| sut.ask(&WebexCall::Finish(Pasted { answer: answer.to_owned() }));
    let kind = |answer: Answer| answer.unwrap_err().kind;
    assert!(kind(finish("code=x&state=y")) == ErrorKind::Conflict);
    let begun = sut.ask(&WebexCall::Begin).unwrap();
    assert!(kind(finish("http://localhost:8990/callback?code=x&state=y")) == ErrorKind::Unprocessable);
    let answer = webex.agree(begun["url"].as_str().unwrap());
    finish(&answer).unwrap();
    assert!(kind(finish(&answer)) == ErrorKind::Conflict);
    let nobody = Caller::of_token("t", callvault_access::Level::Base, "192.0.2.7");
    for call in [WebexCall::Begin, WebexCall::Status, WebexCall::Sync(DRY_RUN), WebexCall::Runs] {
        assert!(kind(sut.control.webex(&nobody, &call)) == ErrorKind::Forbidden, "{call:?}");
    }
}

#[test]
fn webex_out_of_reach_is_said_and_changes_nothing() {
    let (rig, webex) = (Rig::as_received(), StandIn::start());
    configure(&rig, &webex, "");
    webex.set(&json!({"people": people(5), "native": standin::native(5)}));
    let mut sut = Sut::start(&rig);
    sut.authorise(&webex).unwrap();
    sut.sync(SyncWanted::default());
    drop(sut);
    configure(&rig, &webex, "proxy = \"http://127.0.0.1:9\"");
    let mut sut = Sut::start(&rig);
    webex.set(&json!({"revoke": "access"}));
    let appliance = Arc::clone(&sut.running.appliance);
    // Pauses between attempts are cut short by the stop.
    let stopping = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        appliance.stop();
    });
    let begun = sut.ask(&WebexCall::Sync(SyncWanted::default()));
    sut.between.pass(&sut.running.appliance);
    stopping.join().unwrap();
    assert!(begun.is_ok() && sut.users().len() == 5);
}

fn record(call: &str, begun_at: Timestamp, duration_s: i64) -> Value {
    let after = |s: i64| begun_at.checked_add(SignedDuration::from_secs(s)).unwrap();
    json!({
        "Report ID": format!("report-{call}"), "Local call ID": call, "Direction": "TERMINATING", "Answered": "true",
        "Start time": format!("{begun_at:.3}"), "Answer time": format!("{begun_at:.3}"), "Duration": duration_s,
        "Release time": format!("{:.3}", after(duration_s)), "_inserted": format!("{:.3}", after(duration_s)),
        "User": "ann@example.com", "Location": "Place 1", "Call Recording Platform Name": "Imagicle",
        "Call Recording Result": "successful", "Call Recording Trigger": "always",
    })
}

#[test]
fn every_call_that_webex_has_a_record_of_is_found_here_or_named() {
    let (rig, webex) = (Rig::as_received(), StandIn::start());
    configure(&rig, &webex, "records = true");
    let mut sut = Sut::start(&rig);
    sut.authorise(&webex).unwrap();
    let mut generation = Generation::begin(&sut.running);
    let ago = |min: i64| Timestamp::now().checked_sub(SignedDuration::from_mins(min)).unwrap();
    generation.wall_ns = i64::try_from(ago(120).as_nanosecond()).unwrap();
    let mut call = generation.call(&[pcmu(), pcmu()]);
    let party = |number: &str| Party { number: Some(number.to_owned()), ..Party::default() };
    let facts = CallFacts {
        call_id: Some("callhalf-77:0".to_owned()),
        local: party("+390501"),
        remotes: vec![party("+390502")],
        ..CallFacts::default()
    };
    call.fact(&mut generation, &SessionEvent::Call(Box::new(facts)));
    call.keep(&mut generation);
    call.audio(&mut generation, &both(&pcmu(), 500));
    call.end(&mut generation);
    generation.finish();
    sut.running.settle();
    let records = [record("77:0", ago(120), 10), record("78:0", ago(110), 30)];
    webex.set(&json!({"records": records}));
    sut.between.pass(&sut.running.appliance);
    let report = sut.ask(&WebexCall::Completeness(CompletenessQuery::default())).unwrap();
    assert_eq!(report["sums"], json!({"missing": 1, "recorded": 1}), "{report}");
    assert_eq!(report["findings"][0]["local_call_id"], "78:0");
    assert_eq!(
        (&report["joined_by"], &report["by_location"]["Place 1"]["missing"]),
        (&json!({"call-id": 1}), &json!(1))
    );
    assert!(report["csv"].as_str().unwrap().contains("\r\nmissing,"), "{report}");
    let (status, reason) = sut.webex_component();
    assert!(status == Status::Degraded && reason.contains("1 are missing here, 0 are too short"), "{reason}");
    let metrics = health::snapshot(&sut.running.appliance).metrics;
    assert!(metrics.contains("callvault_webex_calls{verdict=\"missing\"} 1"), "{metrics}");
    assert!(!metrics.contains("ann@") && !reason.contains("ann@"));
    // However many days are asked for, each call is told of once.
    let week = CompletenessQuery { from: Some(ago(7 * 24 * 60 + 90)), ..CompletenessQuery::default() };
    assert_eq!(sut.ask(&WebexCall::Completeness(week)).unwrap()["sums"], json!({"missing": 1, "recorded": 1}));
    let elsewhere = CompletenessQuery { location: Some("Elsewhere".to_owned()), ..CompletenessQuery::default() };
    assert_eq!(sut.ask(&WebexCall::Completeness(elsewhere)).unwrap()["sums"], json!({}));
    assert_eq!(webex.seen()["wrong"], json!([]), "nothing was asked that the documentation does not allow");
}

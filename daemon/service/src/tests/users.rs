//! Users as the endpoint changes them, and what follows for calls: whose they are, what is noted of those that are not kept, and what is licensed.

use std::sync::Arc;

use callvault_access::Caller;
use callvault_control::Decision;
use callvault_http::{Answer, Api, ApiError, DiscardsQuery, ErrorKind, Status, UserImport};
use callvault_journal::facts::{CallFacts, Direction, Party, SessionEvent};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{Generation, Rig, Running, both, pcmu};
use crate::api::Control;
use crate::health;

struct Sut {
    running: Running,
    control: Control,
    operator: Caller,
}

impl Sut {
    fn start(rig: &Rig) -> Self {
        let running = rig.start();
        let control = Control(Arc::clone(&running.appliance));
        Self { running, control, operator: Caller::operator("127.0.0.1") }
    }

    fn import(&self, file: &str) -> Answer {
        let import = UserImport {
            name: "users.csv".to_owned(),
            content: file.as_bytes().to_vec(),
            is_dry_run: false,
            removes_missing: false,
            is_confirmed: false,
        };
        self.control.import_users(&self.operator, &import)
    }

    fn set(&self, email: &str, values: &[(&str, &str)]) -> Answer {
        let values: Vec<(String, String)> =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.control.set_user(&self.operator, email, &values)
    }

    fn component(&self, name: &str) -> (Status, String) {
        let snapshot = health::snapshot(&self.running.appliance);
        let component = &snapshot.health.components[name];
        (component.status, component.reason.clone())
    }

    fn discards(&self) -> Vec<Value> {
        let query = DiscardsQuery { rule: None, from: None, to: None, limit: 10 };
        self.control.discards(&self.operator, &query).unwrap()["discards"].as_array().unwrap().clone()
    }
}

fn refused(answer: Answer, kind: ErrorKind, part: &str) {
    let error: ApiError = answer.unwrap_err();
    assert!(error.kind == kind && error.message.contains(part), "{error:?}");
}

fn call(local: &str, remote: &str) -> CallFacts {
    let party = |number: &str| Party { number: Some(number.to_owned()), ..Party::default() };
    CallFacts {
        direction: Direction::Incoming,
        local: party(local),
        remotes: vec![party(remote)],
        ..CallFacts::default()
    }
}

const FILE: &str =
    "webex_email,first_name,first_extension,group,pin\nann@x.example,Ann,7711,Sales,4711\nbob@x.example,Bob,7712,,\n";

#[test]
fn no_more_users_than_are_licensed() {
    let rig = Rig::as_received();
    rig.configure("[licence]\nmodel = \"users\"\nusers_max = 3\n");
    let sut = Sut::start(&rig);
    assert!(sut.component("directory").1.contains("users import"), "nobody is known");
    sut.import(FILE).unwrap();
    assert_eq!(sut.component("directory"), (Status::Ok, String::new()));
    sut.set("all@x.example", &[("catch_all", "yes")]).unwrap();
    sut.set("eve@x.example", &[]).unwrap();
    refused(sut.set("joe@x.example", &[]), ErrorKind::Conflict, "licence.users_max is 3");
    refused(sut.import("webex_email\njoe@x.example\n"), ErrorKind::Conflict, "licence.users_max is 3");
    sut.set("joe@x.example", &[("recording_mode", "never")]).unwrap();
    assert_eq!(sut.component("licence").0, Status::Ok);
    drop(sut);
    rig.configure("[licence]\nmodel = \"users\"\nusers_max = 2\n");
    let sut = Sut::start(&rig);
    assert_eq!(sut.component("licence").0, Status::Degraded);
    // What makes it no worse is let through.
    sut.set("eve@x.example", &[("group", "Sales")]).unwrap();
}

#[test]
fn who_comes_back_is_who_it_was() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig);
    let before = sut.set("ann@x.example", &[("group", "Sales")]).unwrap();
    sut.control.remove_user(&sut.operator, "ann@x.example").unwrap();
    let after = sut.set("ANN@x.example", &[("first_name", "Ann")]).unwrap();
    assert_eq!((&after["id"], &after["group"], &after["removed_at"]), (&before["id"], &json!("Sales"), &Value::Null));
}

/// Writes a call into the journal as the recorder does: kept, or with its key forgotten by this rule.
fn record(sut: &Sut, facts: &CallFacts) -> (Uuid, Decision) {
    let mut generation = Generation::begin(&sut.running);
    let mut live = generation.call(&[pcmu(), pcmu()]);
    live.fact(&mut generation, &SessionEvent::Call(Box::new(facts.clone())));
    let decision = sut.running.appliance.decide(live.id, facts);
    live.audio(&mut generation, &both(&pcmu(), 50));
    match &decision {
        Decision::Discard { rule } => {
            generation.writer.discard_lane(live.lane, rule).unwrap();
            generation.flush();
        }
        _ => {
            live.keep(&mut generation);
            live.end(&mut generation);
        }
    }
    generation.finish();
    sut.running.settle();
    (live.id, decision)
}

#[test]
fn recordings_have_owners_and_what_is_not_kept_is_noted() {
    let rig = Rig::as_received();
    rig.configure("[filters]\nblacklist = [\"+44!\"]\n");
    let sut = Sut::start(&rig);
    let (before, _) = record(&sut, &call("7711", "+441"));
    let row = sut.control.recording(&sut.operator, before);
    assert!(row.is_ok_and(|row| row["verdict"] == "discarded"), "a filter needs no users");
    sut.import(FILE).unwrap();
    let (kept, _) = record(&sut, &call("7711", "+491"));
    sut.set("ann@x.example", &[("first_name", "Anne"), ("group", "Legal")]).unwrap();
    let row = sut.control.recording(&sut.operator, kept).unwrap();
    let shown = ["owner", "owner_name", "matched_by", "traffic"].map(|name| row[name].as_str().unwrap());
    assert_eq!(shown, ["ann@x.example", "Ann", "number", "external"], "as it was: {row:#}");
    let (unknown, decision) = record(&sut, &call("7799", "7711"));
    assert_eq!(decision, Decision::Discard { rule: "unknown-user".into() });
    let noted: Vec<(Value, Value, Value)> = sut
        .discards()
        .into_iter()
        .map(|one| (one["id"].clone(), one["rule"].clone(), one["remote_number"].clone()))
        .collect();
    let expected = [(unknown, "unknown-user", "7711"), (before, "filter-blacklist", "+441")];
    assert_eq!(noted, expected.map(|(id, rule, number)| (json!(id), json!(rule), json!(number))));
    let metrics = health::snapshot(&sut.running.appliance).metrics;
    assert!(metrics.contains("discarded_total{rule=\"unknown-user\"} 1"), "{metrics}");
    // A user that goes is not found any more, and what is recorded stays.
    sut.control.remove_user(&sut.operator, "ann@x.example").unwrap();
    assert_eq!(sut.running.appliance.decide(Uuid::now_v7(), &call("7711", "+491")), decision);
    let row = sut.control.recording(&sut.operator, kept).unwrap();
    assert_eq!((&row["owner"], &row["owner_name"]), (&json!("ann@x.example"), &json!("Ann")));
}

#[test]
fn channels_that_are_licensed_are_the_recorders_limit() {
    let rig = Rig::as_received();
    rig.configure("[licence]\nmodel = \"channels\"\nchannels_max = 7\n");
    let sut = Sut::start(&rig);
    assert_eq!(crate::deciding::sessions_max(&sut.running.appliance.config), 7);
    assert_eq!(sut.component("licence").0, Status::Ok);
    sut.running.channels.state.send_modify(|state| state.heartbeat.live = 7);
    let (status, text) = sut.component("licence");
    assert!(status == Status::Degraded && text.contains("licence.channels_max"), "{text}");
}

//! Notes, tags and preserving through the endpoint: who may (requirement C3), what is refused, what the audit log has.

use std::sync::Arc;

use callvault_access::{Caller, Level};
use callvault_catalogue::{NewRecording, Recording, Verdict};
use callvault_directory::User;
use callvault_http::{Annotate, Api, ApiError, AuditQuery, ErrorKind, RecordingsQuery};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::rig::{Rig, Running};
use crate::api::Control;
use crate::row::{KEY_LOST, nameless};

const ANN: Uuid = Uuid::from_u128(0xa);
const BOB: Uuid = Uuid::from_u128(0xb);
const EVE: Uuid = Uuid::from_u128(0xe);

/// Ann supervises Bob; Eve is in no group.
/// Where everything is kept there is nothing to preserve.
const PRESERVING: &str = "[archive]\ncodec = \"as-received\"\n[retention]\nrule = \"12-months\"\n";

fn users() -> [User; 3] {
    [(ANN, "ann", Level::GroupSupervisor, "Sales"), (BOB, "bob", Level::Base, "Sales"), (EVE, "eve", Level::Base, "")]
        .map(|(id, name, level, group)| User {
            id,
            webex_email: format!("{name}@example.com"),
            level,
            group: group.into(),
            ..User::default()
        })
}

struct Sut {
    running: Running,
    control: Control,
    operator: Caller,
}

impl Sut {
    fn start(rig: &Rig) -> Self {
        let running = rig.start();
        running.appliance.access.people.set(users());
        let control = Control(Arc::clone(&running.appliance));
        Self { running, control, operator: Caller::operator("127.0.0.1") }
    }

    fn recording(&self, owner: Uuid) -> Uuid {
        let id = Uuid::now_v7();
        let recording = Recording { owner_id: Some(owner), ..nameless(id, Verdict::Ok, KEY_LOST, "-") };
        let new = NewRecording { recording, lanes: Vec::new(), owed: Vec::new(), links: Vec::new() };
        self.running.appliance.catalogue.ingest(&new, Timestamp::now()).unwrap();
        id
    }

    fn done(&self, caller: &Caller, id: Uuid, change: Annotate) -> Value {
        self.control.annotate(caller, id, &change).unwrap()
    }

    fn refused(&self, caller: &Caller, id: Uuid, change: Annotate) -> ErrorKind {
        self.control.annotate(caller, id, &change).unwrap_err().kind
    }

    fn found(&self, query: RecordingsQuery) -> usize {
        self.control.recordings(&self.operator, &query).unwrap()["recordings"].as_array().unwrap().len()
    }
}

fn caller(n: usize) -> Caller {
    Caller::of_user(&users()[n], Level::Administrator, "192.0.2.7")
}

fn note(text: &str) -> Annotate {
    Annotate::AddNote { text: text.into(), at_ms: Some(1_000) }
}

fn note_id(answer: &Value) -> Uuid {
    answer["notes"][0]["id"].as_str().unwrap().parse().unwrap()
}

#[test]
fn what_a_higher_level_preserved_or_wrote_is_not_for_a_lower_one() {
    let rig = Rig::as_received();
    rig.configure(PRESERVING);
    let sut = Sut::start(&rig);
    let (ann, bob, eve) = (caller(0), caller(1), caller(2));
    let id = sut.recording(BOB);
    sut.done(&sut.operator, id, Annotate::Preserve);
    for lower in [&ann, &bob] {
        assert_eq!(sut.refused(lower, id, Annotate::Release), ErrorKind::Forbidden);
        assert!(sut.control.delete_recording(lower, id).is_err());
    }
    assert_eq!(sut.done(&sut.operator, id, Annotate::Release)["preserved"], Value::Null);
    let written = note_id(&sut.done(&ann, id, note("Listen to this")));
    let edit = |text: &str| Annotate::EditNote { note: written, text: text.into() };
    assert_eq!(sut.refused(&bob, id, edit("x")), ErrorKind::Forbidden);
    assert_eq!(sut.refused(&bob, id, Annotate::DeleteNote(written)), ErrorKind::Forbidden);
    // changed by an administrator it is an administrator's
    assert_eq!(sut.done(&sut.operator, id, edit("Listen again"))["notes"][0]["text"], "Listen again");
    assert_eq!(sut.refused(&ann, id, edit("x")), ErrorKind::Forbidden);
    assert_eq!(sut.done(&sut.operator, id, Annotate::DeleteNote(written))["notes"], serde_json::json!([]));
    let own = note_id(&sut.done(&bob, id, note("Mine")));
    assert_eq!(sut.done(&bob, id, Annotate::DeleteNote(own))["notes"], serde_json::json!([]));
    for change in [note("x"), Annotate::AddTag("x".into()), Annotate::Preserve, Annotate::DeleteNote(own)] {
        assert_eq!(sut.refused(&eve, id, change), ErrorKind::NotFound);
    }
}

#[test]
fn what_cannot_be_kept_is_refused_with_what_is_allowed() {
    let rig = Rig::as_received();
    rig.configure(PRESERVING);
    let sut = Sut::start(&rig);
    let id = sut.recording(BOB);
    let check = |change: Annotate, kind: ErrorKind, text: &str| {
        let ApiError { kind: found, message, .. } = sut.control.annotate(&sut.operator, id, &change).unwrap_err();
        assert!(found == kind && message.contains(text), "{found:?}: {message}");
    };
    check(note("  "), ErrorKind::BadRequest, "1 to 2000 characters");
    check(Annotate::AddTag("a,b".into()), ErrorKind::BadRequest, "1 to 50 characters");
    check(Annotate::DeleteNote(BOB), ErrorKind::NotFound, "has no note");
    for n in 0..50 {
        sut.done(&sut.operator, id, note(&format!("note {n}")));
    }
    check(note("one more"), ErrorKind::Conflict, "at most 50 notes");
    for n in 0..30 {
        sut.done(&sut.operator, id, Annotate::AddTag(format!("tag {n}")));
    }
    check(Annotate::AddTag("one more".into()), ErrorKind::Conflict, "at most 30 tags");
    sut.done(&sut.operator, id, Annotate::AddTag("Tag 3".into()));
    assert_eq!(sut.refused(&sut.operator, Uuid::now_v7(), Annotate::Preserve), ErrorKind::NotFound);
}

#[test]
fn searches_find_it_and_the_audit_log_has_it() {
    let rig = Rig::as_received();
    rig.configure(PRESERVING);
    let sut = Sut::start(&rig);
    let (of_bob, of_eve) = (sut.recording(BOB), sut.recording(EVE));
    sut.done(&sut.operator, of_bob, Annotate::AddTag(" Angry ".into()));
    sut.done(&sut.operator, of_eve, note("Wants a quotation"));
    sut.done(&sut.operator, of_eve, Annotate::Preserve);
    let log = sut.control.audit(&sut.operator, &AuditQuery::default()).unwrap();
    let actions: Vec<&str> =
        log["entries"].as_array().unwrap().iter().filter_map(|entry| entry["action"].as_str()).collect();
    for action in ["tag", "note-add", "preserve"] {
        assert!(actions.contains(&action), "{actions:?}");
    }
    for _ in 0..2 {
        let all = RecordingsQuery::default;
        assert_eq!(sut.found(RecordingsQuery { tags: vec!["angry".into()], ..all() }), 1);
        assert_eq!(sut.found(RecordingsQuery { tags: vec!["calm".into()], ..all() }), 0);
        assert_eq!(sut.found(RecordingsQuery { note: Some("QUOTATION".into()), ..all() }), 1);
        assert_eq!(sut.found(RecordingsQuery { preserved: Some(true), ..all() }), 1);
        assert_eq!(sut.found(RecordingsQuery { preserved: Some(false), ..all() }), 1);
        assert_eq!(sut.found(RecordingsQuery { group: Some(" sales".into()), ..all() }), 1);
        assert_eq!(sut.found(RecordingsQuery { group: Some("legal".into()), ..all() }), 0);
        assert!(sut.running.appliance.catalogue.build_index(100).unwrap());
    }
}

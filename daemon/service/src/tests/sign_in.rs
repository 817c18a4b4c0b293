//! Signing in at the portal: the password, the first one, the sessions, and what the audit log has of it.

use std::sync::Arc;

use callvault_access::{Action, Caller, Level, Through};
use callvault_catalogue::{NewRecording, Recording, Verdict};
use callvault_directory::User;
use callvault_http::{Annotate, Api, ApiError, AudioFormat, AudioPurpose, AudioRequest, AuditQuery, ErrorKind, SignIn};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::rig::{Rig, Running};
use crate::api::Control;
use crate::row::{KEY_LOST, nameless};

const FIRST: &str = "the first one";
const CHOSEN: &str = "correct horse battery";

struct Sut {
    running: Running,
    control: Control,
}

impl Sut {
    fn start(rig: &Rig) -> Self {
        let running = rig.start();
        let control = Control(Arc::clone(&running.appliance));
        let sut = Self { running, control };
        let user = |name: &str, first: &str| User {
            id: Uuid::now_v7(),
            webex_email: format!("{name}@example.com"),
            initial_password: first.into(),
            ..User::default()
        };
        sut.put(vec![user("ann", FIRST), user("bob", ""), user("eve", FIRST)]);
        sut
    }

    fn put(&self, users: Vec<User>) {
        let entry = self.running.appliance.entry(&Caller::operator("127.0.0.1"), Action::ChangeUsers);
        self.running.appliance.catalogue.put_users(&users, &entry).unwrap();
        self.running.appliance.access.people.set(self.running.appliance.catalogue.users().unwrap().0);
    }

    fn sign_in(&self, name: &str, password: &str, new: Option<&str>) -> Result<Value, ApiError> {
        let wanted = SignIn {
            user: format!("{name}@example.com"),
            password: password.into(),
            new_password: new.map(Into::into),
        };
        self.control.sign_in(&Caller::visitor("", "192.0.2.7"), &wanted)
    }

    fn refused(&self, name: &str, password: &str, new: Option<&str>) -> (ErrorKind, String) {
        let error = self.sign_in(name, password, new).unwrap_err();
        (error.kind, error.message)
    }

    fn session(&self, name: &str, password: &str, new: Option<&str>) -> String {
        self.sign_in(name, password, new).unwrap()["session"].as_str().unwrap().to_owned()
    }

    fn caller(&self, session: &str) -> Result<Caller, ErrorKind> {
        self.control.authenticate(session, "192.0.2.7").map_err(|error| error.kind)
    }
}

#[test]
fn a_first_password_is_good_for_choosing_another_and_for_nothing_else() {
    let rig = Rig::new("");
    let sut = Sut::start(&rig);
    assert_eq!(sut.sign_in("ann", FIRST, None).unwrap(), serde_json::json!({"change": true}));
    assert_eq!(sut.refused("ann", FIRST, Some("short")).0, ErrorKind::Unprocessable);
    assert_eq!(sut.refused("ann", FIRST, Some("the one 1")).0, ErrorKind::Unprocessable);
    let ann = sut.caller(&sut.session("ann", FIRST, Some(CHOSEN))).unwrap();
    assert_eq!((ann.name.as_str(), ann.level, ann.through), ("ann@example.com", Level::Base, Through::Portal));
    assert_eq!(sut.refused("ann", FIRST, None).0, ErrorKind::Unauthorized, "the first password was good twice");
    sut.session("ann", CHOSEN, None);
    // It is kept, and an administrator's new first password takes its place.
    let mut users = sut.running.appliance.catalogue.users().unwrap().0;
    assert!(users[0].initial_password.is_empty());
    users[0].initial_password = "another first one".into();
    sut.put(users);
    assert_eq!(sut.refused("ann", CHOSEN, None).0, ErrorKind::Unauthorized);
    assert!(sut.sign_in("ann", "another first one", None).is_ok());
}

#[test]
fn who_has_no_password_or_is_nobody_is_refused_as_who_has_a_wrong_one() {
    let rig = Rig::new("");
    let sut = Sut::start(&rig);
    let wrong = sut.refused("ann", "not that", None);
    assert_eq!(wrong.0, ErrorKind::Unauthorized);
    assert_eq!(sut.refused("nobody", "not that", None), wrong);
    assert_eq!(sut.refused("bob", "", None), wrong);
    assert_eq!(sut.refused("bob", "", Some(CHOSEN)), wrong);
    let mut users = sut.running.appliance.catalogue.users().unwrap().0;
    users[2].removed_at = Some(Timestamp::now());
    sut.put(users);
    assert_eq!(sut.refused("eve", FIRST, None), wrong);
}

#[test]
fn after_some_failures_the_right_password_has_to_wait_too() {
    let rig = Rig::new("");
    let sut = Sut::start(&rig);
    assert_eq!(sut.refused("ann", "not that", None).0, ErrorKind::Unauthorized);
    // The others fail when the test cannot have come yet, however slow the machine.
    let door = &sut.running.appliance.access.door;
    for hours in 1..=3 {
        door.begin("ann@example.com", Timestamp::now() + jiff::SignedDuration::from_hours(hours)).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(sut.refused("ann", FIRST, None).0, ErrorKind::Unavailable);
    }
    assert!(sut.sign_in("eve", FIRST, None).is_ok(), "another user has to wait");
    let query = AuditQuery { action: Some("sign-in".into()), ..AuditQuery::default() };
    let log = sut.control.audit(&Caller::operator(""), &query).unwrap()["entries"].to_string();
    assert_eq!(log.matches("too-many-attempts").count(), 1, "once a minute: {log}");
}

#[test]
fn sessions_end_when_they_are_ended_and_with_the_password() {
    let rig = Rig::new("");
    let sut = Sut::start(&rig);
    let first = sut.session("ann", FIRST, Some(CHOSEN));
    let second = sut.session("ann", CHOSEN, None);
    let eves = sut.session("eve", FIRST, Some(CHOSEN));
    let (ann, eve) = (sut.caller(&first).unwrap(), sut.caller(&eves).unwrap());
    assert_eq!(sut.control.sessions(&ann).unwrap()["sessions"].as_array().unwrap().len(), 2);
    let foreign = sut.control.end_session(&ann, eve.token.unwrap()).unwrap_err();
    assert_eq!(foreign.kind, ErrorKind::NotFound);
    sut.control.sign_out(&ann).unwrap();
    assert_eq!(sut.caller(&first), Err(ErrorKind::Unauthorized));
    assert!(sut.caller(&second).is_ok() && sut.caller(&eves).is_ok());
    sut.session("ann", CHOSEN, Some("quite another password"));
    assert_eq!(sut.caller(&second), Err(ErrorKind::Unauthorized), "a session outlived its password");
    for _ in 0..25 {
        if sut.sign_in("eve", CHOSEN, None).is_err() {
            let left = sut.control.sessions(&eve).unwrap()["sessions"].as_array().unwrap().len();
            assert_eq!(left, 20);
            return;
        }
    }
    panic!("sessions without end");
}

#[test]
fn only_the_portal_signs_people_in_and_the_audit_log_has_no_password() {
    let rig = Rig::new("");
    let sut = Sut::start(&rig);
    let wanted = SignIn { user: "ann@example.com".into(), password: FIRST.into(), new_password: Some(CHOSEN.into()) };
    let operator = Caller::operator("127.0.0.1");
    assert_eq!(sut.control.sign_in(&operator, &wanted).unwrap_err().kind, ErrorKind::Forbidden);
    let session = sut.session("ann", FIRST, Some(CHOSEN));
    let ann = sut.caller(&session).unwrap();
    assert_eq!(sut.control.sign_in(&ann, &wanted).unwrap_err().kind, ErrorKind::Forbidden, "a session signs nobody in");
    let _ = sut.refused("ann", "not that", None);
    let log = sut.control.audit(&operator, &AuditQuery { action: Some("sign-in".into()), ..AuditQuery::default() });
    let log = log.unwrap()["entries"].clone();
    let seen: Vec<_> =
        log.as_array().unwrap().iter().map(|entry| (entry["name"].as_str(), entry["outcome"].as_str())).collect();
    let ann = Some("ann@example.com");
    assert_eq!(seen, [(ann, Some("refused")), (ann, Some("allowed")), (ann, Some("allowed"))]);
    let text = log.to_string();
    assert!(text.contains("192.0.2.7") && text.contains("portal"), "{text}");
    for secret in [FIRST, CHOSEN, "not that", session.as_str()] {
        assert!(!text.contains(secret), "the log has a secret");
    }
}

#[test]
fn who_may_not_see_a_recording_does_not_learn_that_there_is_one() {
    let rig = Rig::new("");
    let sut = Sut::start(&rig);
    let ann = sut.caller(&sut.session("ann", FIRST, Some(CHOSEN))).unwrap();
    let eve = sut.caller(&sut.session("eve", FIRST, Some(CHOSEN))).unwrap();
    let of = |owner: Option<Uuid>| {
        let id = Uuid::now_v7();
        let recording = Recording { owner_id: owner, ..nameless(id, Verdict::Ok, KEY_LOST, "-") };
        let new = NewRecording { recording, lanes: Vec::new(), owed: Vec::new(), links: Vec::new() };
        sut.running.appliance.catalogue.ingest(&new, Timestamp::now()).unwrap();
        id
    };
    let (hers, gone, none) = (of(eve.user), of(eve.user), Uuid::now_v7());
    sut.control.delete_recording(&Caller::operator("127.0.0.1"), gone).unwrap();
    let play = AudioRequest { format: AudioFormat::Wav, start_ms: 0, end_ms: None, purpose: AudioPurpose::Play };
    let note = Annotate::AddNote { text: "hello".into(), at_ms: None };
    let refused = || {
        let log = sut.control.audit(
            &Caller::operator("127.0.0.1"),
            &AuditQuery { outcome: Some("refused".into()), limit: Some(1_000), ..AuditQuery::default() },
        );
        log.unwrap()["entries"].as_array().unwrap().len()
    };
    let answers = |id: Uuid| {
        let before = refused();
        let errors = [
            sut.control.recording(&ann, id).map(drop),
            sut.control.deliveries(&ann, id).map(drop),
            sut.control.audio(&ann, id, &play).map(drop),
            sut.control.delete_recording(&ann, id).map(drop),
            sut.control.annotate(&ann, id, &Annotate::Preserve).map(drop),
            sut.control.annotate(&ann, id, &note).map(drop),
        ];
        let errors = errors.map(|answer| answer.map_err(|error| (error.kind, error.message)).unwrap_err());
        (errors, refused() - before)
    };
    let unseen = answers(hers);
    assert!(unseen.0.iter().all(|(kind, _)| *kind == ErrorKind::NotFound), "{:?}", unseen.0);
    assert_eq!(unseen.1, 6, "each is in the audit log");
    assert_eq!(answers(none), unseen);
    assert_eq!(answers(gone), unseen);
    assert!(sut.control.recording(&eve, hers).is_ok());
    let kind = sut.control.delete_recording(&eve, hers).unwrap_err().kind;
    assert_eq!(kind, ErrorKind::Forbidden, "who may see it is told why not");
}

//! Permissions as the endpoint applies them: three users with tokens of theirs, and the audit log that has it all.

use std::collections::BTreeSet;
use std::sync::Arc;

use callvault_access::{Caller, Level};
use callvault_catalogue::{Decree, NewRecording, Recording, Verdict};
use callvault_directory::User;
use callvault_http::{
    Api, ApiError, AudioFormat, AudioPurpose, AudioRequest, AuditQuery, ErrorKind, NewToken, RecordingsQuery, Status,
};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::rig::{Rig, Running};
use crate::api::Control;
use crate::health;
use crate::row::{KEY_LOST, nameless};

const ANN: Uuid = Uuid::from_u128(0xa);
const BOB: Uuid = Uuid::from_u128(0xb);
const EVE: Uuid = Uuid::from_u128(0xe);

fn user(id: Uuid, name: &str, level: Level, group: &str) -> User {
    User { id, webex_email: format!("{name}@example.com"), level, group: group.into(), ..User::default() }
}

/// Ann and Bob sell, and Ann supervises; Eve is in no group.
fn users() -> [User; 3] {
    [
        user(ANN, "ann", Level::GroupSupervisor, "Sales"),
        user(BOB, "bob", Level::Base, "Sales"),
        user(EVE, "eve", Level::Base, ""),
    ]
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

    fn set(&self, users: [User; 3]) {
        self.running.appliance.access.people.set(users);
    }

    /// A recording of that user.
    fn recording(&self, owner: Option<Uuid>) -> Uuid {
        let id = Uuid::now_v7();
        let recording = Recording { owner_id: owner, ..nameless(id, Verdict::Ok, KEY_LOST, "-") };
        let new = NewRecording { recording, lanes: Vec::new(), owed: Vec::new(), links: Vec::new() };
        self.running.appliance.catalogue.ingest(&new, Timestamp::now()).unwrap();
        id
    }

    /// What the token of that user gives.
    fn token(&self, level: Level, user: Option<&str>) -> Result<String, ApiError> {
        let user = user.map(|name| format!("{name}@example.com"));
        let wanted = NewToken { name: "script".into(), level, user, expires_days: Some(1) };
        let made = self.control.create_token(&self.operator, &wanted)?;
        Ok(made["token"].as_str().unwrap().to_owned())
    }

    fn caller(&self, name: &str) -> Caller {
        let token = self.token(Level::Administrator, Some(name)).unwrap();
        self.control.authenticate(&token, "192.0.2.7").unwrap()
    }

    fn found(&self, caller: &Caller) -> BTreeSet<Uuid> {
        let list = self.control.recordings(caller, &RecordingsQuery::default()).unwrap();
        list["recordings"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().parse().unwrap()).collect()
    }

    /// The log, the newest first.
    fn log(&self) -> Vec<Value> {
        let list = self.control.audit(&self.operator, &AuditQuery { limit: Some(1_000), ..AuditQuery::default() });
        list.unwrap()["entries"].as_array().unwrap().clone()
    }

    /// What the log says last: who, what, how it went.
    fn last(&self) -> (String, String, String) {
        // The newest is the look at the log itself.
        let entry = self.log()[1].clone();
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        (text("name"), text("action"), text("outcome"))
    }

    fn refused(&self, by: &str) -> Option<String> {
        health::snapshot(&self.running.appliance)
            .health
            .components
            .get(by)
            .and_then(|component| (component.status != Status::Ok).then(|| component.reason.clone()))
    }
}

fn kind<T>(answer: Result<T, ApiError>) -> Option<ErrorKind> {
    answer.err().map(|error| error.kind)
}

fn audio(purpose: AudioPurpose) -> AudioRequest {
    AudioRequest { format: AudioFormat::Wav, start_ms: 0, end_ms: None, purpose }
}

#[test]
fn each_sees_what_is_theirs() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig);
    let of = [Some(ANN), Some(BOB), Some(EVE), None].map(|owner| sut.recording(owner));
    let check = |caller: &Caller, seen: [bool; 4]| {
        let expected: BTreeSet<Uuid> = of.into_iter().zip(seen).filter(|(_, seen)| *seen).map(|(id, _)| id).collect();
        assert_eq!(sut.found(caller), expected, "{caller:?}");
        for (id, seen) in of.into_iter().zip(seen) {
            let expected = (!seen).then_some(ErrorKind::NotFound);
            assert_eq!(kind(sut.control.recording(caller, id)), expected, "{caller:?}");
            // there is nothing in it to play, which is told to those who may hear it
            let expected = Some(if seen { ErrorKind::Unprocessable } else { ErrorKind::NotFound });
            assert_eq!(kind(sut.control.audio(caller, id, &audio(AudioPurpose::Play))), expected, "{caller:?}");
        }
    };
    check(&sut.caller("ann"), [true, true, false, false]);
    check(&sut.caller("bob"), [false, true, false, false]);
    check(&sut.caller("eve"), [false, false, true, false]);
    check(&sut.operator, [true; 4]);
    // what becomes of the users counts at once, for tokens that are there
    let ann = sut.token(Level::Administrator, Some("ann")).unwrap();
    sut.set(users().map(|user| User { group: "Legal".into(), ..user }));
    check(&sut.control.authenticate(&ann, "").unwrap(), [true, true, true, false]);
    sut.set(users().map(|user| User { level: Level::RecordOnly, ..user }));
    let record_only = sut.control.authenticate(&ann, "").unwrap();
    assert_eq!(kind(sut.control.recordings(&record_only, &RecordingsQuery::default())), Some(ErrorKind::Forbidden));
}

/// That pages of this size have as many of `expected` as they may, and all of them once.
fn check_pages(sut: &Sut, caller: &Caller, limit: usize, expected: &BTreeSet<Uuid>) {
    let (mut found, mut cursor) = (BTreeSet::new(), None);
    loop {
        let query = RecordingsQuery { limit: Some(limit), cursor, ..RecordingsQuery::default() };
        let page = sut.control.recordings(caller, &query).unwrap();
        let rows = page["recordings"].as_array().unwrap();
        found.extend(rows.iter().map(|row| row["id"].as_str().unwrap().parse::<Uuid>().unwrap()));
        assert_eq!(page["partial"], false);
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
        assert_eq!(rows.len(), limit, "a page that is not the last is full: {caller:?}");
    }
    assert_eq!(found, *expected, "{caller:?}");
}

#[test]
fn pages_are_full_whatever_of_all_there_is_may_be_seen() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig);
    let of: Vec<(Option<Uuid>, Uuid)> = (0..60)
        .map(|n| [Some(ANN), Some(EVE), None, Some(BOB), Some(EVE), None][n % 6])
        .map(|owner| (owner, sut.recording(owner)))
        .collect();
    while !sut.running.appliance.catalogue.build_index(7).unwrap() {}
    let seen_by = |owners: &[Option<Uuid>]| -> BTreeSet<Uuid> {
        of.iter().filter(|(owner, _)| owners.contains(owner)).map(|(_, id)| *id).collect()
    };
    for limit in [1, 3, 7] {
        check_pages(&sut, &sut.caller("bob"), limit, &seen_by(&[Some(BOB)]));
        check_pages(&sut, &sut.caller("ann"), limit, &seen_by(&[Some(ANN), Some(BOB)]));
        check_pages(&sut, &sut.operator, limit, &seen_by(&[Some(ANN), Some(BOB), Some(EVE), None]));
    }
}

#[test]
fn the_appliance_is_the_administrators_and_every_refusal_says_so() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig);
    let ann = sut.caller("ann");
    let check = |name: &str, answer: Result<Value, ApiError>| {
        let error = answer.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Forbidden, "{name}");
        assert!(error.message.contains("only an administrator may; ask an administrator"), "{}", error.message);
        let (who, _, outcome) = sut.last();
        assert_eq!((who.as_str(), outcome.as_str()), ("ann@example.com", "refused"), "{name}");
    };
    let api = &sut.control;
    let token = NewToken { name: "x".into(), level: Level::Base, user: None, expires_days: None };
    check("status", api.status(&ann));
    check("verify", api.verify(&ann, None));
    check("jobs", api.jobs(&ann));
    check("retry", api.retry_job(&ann, "archive:1"));
    check("drain", api.drain(&ann, true));
    check("keys", api.keys(&ann));
    check("rotate", api.rotate_keys(&ann));
    check("tokens", api.tokens(&ann));
    check("create", api.create_token(&ann, &token));
    check("revoke", api.revoke_token(&ann, ANN));
    check("audit", api.audit(&ann, &AuditQuery::default()));
    check("verify audit", api.verify_audit(&ann, None));
    check("stop", api.stop_recording(&ann, "because"));
    check("start", api.start_recording(&ann));
    assert!(!sut.running.appliance.access.is_draining() && sut.running.appliance.access.stopped().is_none());
    assert_eq!(api.me(&ann).unwrap()["level"], "group-supervisor");
}

#[test]
fn who_deletes_and_downloads_is_set() {
    let rig = Rig::as_received();
    rig.configure("[permissions]\ndelete = \"group-supervisors\"\ndownload = \"users\"");
    let sut = Sut::start(&rig);
    let (ann, bob) = (sut.caller("ann"), sut.caller("bob"));
    let [of_bob, of_eve] = [Some(BOB), Some(EVE)].map(|owner| sut.recording(owner));
    assert_eq!(kind(sut.control.delete_recording(&bob, of_bob)), Some(ErrorKind::Forbidden));
    assert_eq!(sut.last(), ("bob@example.com".into(), "delete".into(), "refused".into()));
    assert_eq!(kind(sut.control.delete_recording(&ann, of_eve)), Some(ErrorKind::NotFound));
    let download = audio(AudioPurpose::Download);
    assert_eq!(kind(sut.control.audio(&bob, of_bob, &download)), Some(ErrorKind::Unprocessable));
    assert_eq!(sut.last(), ("bob@example.com".into(), "download".into(), "allowed".into()));
    sut.control.delete_recording(&ann, of_bob).unwrap();
    assert_eq!(sut.last(), ("ann@example.com".into(), "delete".into(), "allowed".into()));
    assert_eq!(kind(sut.control.recording(&sut.operator, of_bob)), Some(ErrorKind::Gone));
}

#[test]
fn a_token_is_good_until_it_is_not() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig);
    let api = &sut.control;
    let check = |token: &str, expected: &str| {
        let error = api.authenticate(token, "192.0.2.7").unwrap_err();
        assert!(error.kind == ErrorKind::Unauthorized && error.message.contains(expected), "{}", error.message);
    };
    check("", "not known");
    check("cvt-0000", "not known");
    assert_eq!(kind(sut.token(Level::Base, None)), Some(ErrorKind::Unprocessable), "whose would it be?");
    assert_eq!(kind(sut.token(Level::Base, Some("nobody"))), Some(ErrorKind::Unprocessable));
    let token = sut.token(Level::Base, Some("ann")).unwrap();
    assert!(token.starts_with("cvt-") && token.len() == 68);
    let caller = api.authenticate(&token, "192.0.2.7").unwrap();
    assert_eq!((caller.level, caller.user, caller.from.as_str()), (Level::Base, Some(ANN), "192.0.2.7"));
    let listed = api.tokens(&sut.operator).unwrap();
    let listed = &listed["tokens"][0];
    assert!(listed["state"] == "good" && listed["used_on"].is_string() && listed.get("token").is_none(), "{listed}");
    // of a removed user: at once, and in the log once a minute at most
    sut.set(users().map(|user| User { removed_at: Some(Timestamp::now()), ..user }));
    check(&token, "was removed");
    check(&token, "was removed");
    let refused = sut.log().iter().filter(|entry| entry["action"] == "sign-in").count();
    assert_eq!(refused, 1);
    sut.set(users());
    api.authenticate(&token, "").unwrap();
    let id = listed["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(api.revoke_token(&sut.operator, id).unwrap()["state"], "revoked");
    check(&token, "revoked");
    assert_eq!(kind(api.revoke_token(&sut.operator, ANN)), Some(ErrorKind::NotFound));
    let everything = format!("{:?}", sut.log());
    assert!(!everything.contains(&token[4..]), "the token is in the log");
}

#[test]
fn what_is_switched_off_for_ever_stays_off() {
    let rig = Rig::as_received();
    let never = || rig.configure("[permissions]\ndelete = \"nobody-irreversibly\"");
    never();
    let id = {
        let sut = Sut::start(&rig);
        let id = sut.recording(Some(BOB));
        let error = sut.control.delete_recording(&sut.operator, id).unwrap_err();
        assert!(error.kind == ErrorKind::Forbidden && error.message.contains("for ever"), "{}", error.message);
        assert_eq!(sut.refused("permissions"), None);
        id
    };
    // the file is edited
    rig.configure("[permissions]\ndelete = \"users\"");
    let refused = |because: &str| {
        let sut = Sut::start(&rig);
        let error = sut.control.delete_recording(&sut.operator, id).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Forbidden, "{because}");
        let shown = sut.refused("permissions").unwrap_or_default();
        assert!(shown.contains("permissions.delete is \"users\""), "{because}: {shown}");
        let log = sut.log();
        assert!(log.iter().any(|e| e["action"] == "settings" && e["outcome"] == "refused"), "{because}");
        assert_eq!(sut.control.status(&sut.operator).unwrap()["permissions"]["delete"], "nobody-irreversibly");
    };
    refused("the file was edited");
    // the catalogue is of before, or another
    let database = rig.path("data/catalogue.db");
    let db = rusqlite::Connection::open(&database).unwrap();
    assert_eq!(db.execute("DELETE FROM meta WHERE name = 'never_delete'", []).unwrap(), 1);
    drop(db);
    refused("the catalogue forgot it");
    std::fs::remove_file(rig.path("data/never-delete")).unwrap();
    refused("the data folder forgot it");
    assert!(rig.path("data/never-delete").exists());
    never();
    let sut = Sut::start(&rig);
    assert_eq!(sut.refused("permissions"), None);
    assert!(sut.running.appliance.catalogue.decreed(Decree::NeverDelete).unwrap().is_some());
}

#[test]
fn the_store_remembers_too() {
    let rig = Rig::as_received();
    rig.configure("[permissions]\ndelete = \"nobody-irreversibly\"");
    {
        let sut = Sut::start(&rig);
        sut.running.appliance.store.look();
        crate::access::keep_in_store(&sut.running.appliance);
    }
    // nothing is left but the store
    rig.configure("");
    let db = rusqlite::Connection::open(rig.path("data/catalogue.db")).unwrap();
    db.execute("DELETE FROM meta WHERE name = 'never_delete'", []).unwrap();
    drop(db);
    std::fs::remove_file(rig.path("data/never-delete")).unwrap();
    let sut = Sut::start(&rig);
    let id = sut.recording(Some(BOB));
    assert!(!sut.running.appliance.access.permissions().never_delete);
    sut.running.appliance.store.look();
    crate::access::keep_in_store(&sut.running.appliance);
    assert_eq!(kind(sut.control.delete_recording(&sut.operator, id)), Some(ErrorKind::Forbidden));
    assert!(sut.refused("permissions").is_some());
}

#[test]
fn recording_stays_stopped_until_it_is_started() {
    let rig = Rig::as_received();
    {
        let sut = Sut::start(&rig);
        let closed = sut.running.appliance.access.closed();
        assert!(!*closed.borrow());
        sut.control.stop_recording(&sut.operator, "the office moves").unwrap();
        assert!(*closed.borrow());
        assert_eq!(sut.last(), ("operator".into(), "stop-recording".into(), "allowed".into()));
        // a drain that ends does not start it
        sut.control.drain(&sut.operator, true).unwrap();
        sut.control.drain(&sut.operator, false).unwrap();
        assert!(*closed.borrow());
    }
    let sut = Sut::start(&rig);
    assert!(*sut.running.appliance.access.closed().borrow(), "the restart forgot it");
    let shown = sut.refused("recording").unwrap();
    assert!(shown.contains("the office moves") && shown.contains("callvaultctl recording start"), "{shown}");
    assert!(health::snapshot(&sut.running.appliance).not_ready.is_some());
    assert_eq!(sut.control.status(&sut.operator).unwrap()["recording"]["reason"], "the office moves");
    sut.control.start_recording(&sut.operator).unwrap();
    assert!(!*sut.running.appliance.access.closed().borrow());
    assert_eq!(sut.refused("recording"), None);
}

#[test]
fn without_the_log_nothing_is_shown_or_done() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig);
    let id = sut.recording(Some(BOB));
    let db = rusqlite::Connection::open(rig.path("data/catalogue.db")).unwrap();
    db.execute_batch("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END").unwrap();
    let (api, operator) = (&sut.control, &sut.operator);
    assert_eq!(kind(api.recordings(operator, &RecordingsQuery::default())), Some(ErrorKind::Unavailable));
    assert_eq!(kind(api.recording(operator, id)), Some(ErrorKind::Unavailable));
    assert_eq!(kind(api.audio(operator, id, &audio(AudioPurpose::Play))), Some(ErrorKind::Unavailable));
    assert!(api.delete_recording(operator, id).is_err());
    assert!(api.stop_recording(operator, "because").is_err() && sut.running.appliance.access.stopped().is_none());
    assert!(sut.refused("audit").unwrap().contains("access to recordings and settings is refused"));
    // how it is can be seen, and live calls are in nobody's way
    assert!(api.status(operator).is_ok());
    let entry = sut.running.appliance.entry(operator, callvault_access::Action::Pause);
    let on = callvault_access::On::Everything;
    assert!(sut.running.appliance.permit(operator, callvault_access::Action::Pause, on, &entry).is_ok());
    db.execute_batch("DROP TRIGGER full").unwrap();
    assert!(api.recording(operator, id).is_ok());
    assert_eq!(sut.refused("audit"), None);
}

#[test]
fn a_setting_that_was_changed_is_in_the_log() {
    let rig = Rig::as_received();
    let settings = |sut: &Sut| {
        let log = sut.log();
        log.iter()
            .filter(|entry| entry["action"] == "settings")
            .map(|entry| entry["details"].clone())
            .collect::<Vec<_>>()
    };
    assert!(settings(&Sut::start(&rig)).is_empty(), "the first settings are nobody's change");
    rig.configure("[permissions]\ndownload = \"users\"\n[archive]\ncodec = \"as-received\"\n[log]\nlevel = \"debug\"");
    let expected = serde_json::json!({"permissions.download": "\"users\"", "log.level": "changed"});
    for _ in 0..2 {
        assert_eq!(settings(&Sut::start(&rig)), std::slice::from_ref(&expected), "once");
    }
}

#[test]
fn a_log_that_was_changed_is_shown_at_the_next_start() {
    let rig = Rig::as_received();
    {
        let sut = Sut::start(&rig);
        sut.log();
        sut.log();
        assert_eq!(sut.refused("audit"), None);
    }
    let db = rusqlite::Connection::open(rig.path("data/catalogue.db")).unwrap();
    db.execute_batch("DROP TRIGGER audit_is_not_cut; DELETE FROM audit WHERE number = 2").unwrap();
    drop(db);
    let sut = Sut::start(&rig);
    assert!(sut.refused("audit").unwrap().contains("entry 2: the end was cut off"));
    let check = sut.control.verify_audit(&sut.operator, None).unwrap();
    assert!(!check["head"].as_str().unwrap().is_empty());
    assert_eq!(kind(sut.control.verify_audit(&sut.operator, Some("7"))), Some(ErrorKind::BadRequest));
}

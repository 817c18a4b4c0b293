//! Settings as administrators change them: who may, what is refused, what is told before, what is in force after, and what is left of it
//! when something fails.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use callvault_access::{Caller, Level};
use callvault_directory::User;
use callvault_http::{Api, ApiError, AuditQuery, ChangeSettings, ErrorKind};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{Generation, Rig, Running, pcmu, whole_call};
use crate::api::Control;

const HOUR_NS: i64 = 3_600 * 1_000_000_000;

struct Sut {
    rig: Rig,
    running: Running,
    control: Control,
    caller: Caller,
}

impl Sut {
    fn new(sections: &str) -> Self {
        let rig = Rig::as_received();
        rig.configure(sections);
        Self::on(rig)
    }

    fn on(rig: Rig) -> Self {
        let running = rig.start();
        let control = Control(Arc::clone(&running.appliance));
        let user = User {
            id: Uuid::from_u128(6),
            webex_email: "ann@example.com".into(),
            level: Level::Administrator,
            ..User::default()
        };
        let caller = Caller::of_user(&user, Level::Administrator, "192.0.2.7");
        Self { rig, running, control, caller }
    }

    /// The appliance, started anew.
    fn restarted(self) -> Self {
        let Self { rig, running, control, .. } = self;
        drop((control, running));
        Self::on(rig)
    }

    fn shown(&self) -> Value {
        self.control.settings(&self.caller).unwrap()
    }

    fn version(&self) -> String {
        self.shown()["version"].as_str().unwrap().to_owned()
    }

    fn entry(&self, key: &str) -> Value {
        let shown = self.shown();
        shown["settings"].as_array().unwrap().iter().find(|entry| entry["key"] == key).unwrap().clone()
    }

    fn wanted(&self, changes: Value) -> ChangeSettings {
        let Value::Object(changes) = changes else { panic!("an object") };
        let changes = changes.into_iter().collect();
        ChangeSettings { version: self.version(), changes, is_dry_run: false, confirm: None }
    }

    fn ask(&self, wanted: &ChangeSettings) -> Result<Value, ApiError> {
        self.control.change_settings(&self.caller, wanted)
    }

    fn change(&self, changes: Value) -> Result<Value, ApiError> {
        self.ask(&self.wanted(changes))
    }

    fn plan(&self, changes: Value) -> Value {
        let plan = self.ask(&ChangeSettings { is_dry_run: true, ..self.wanted(changes) }).unwrap();
        assert_eq!(plan["applied"], false);
        plan
    }

    fn confirmed(&self, changes: Value, word: &str) -> Result<Value, ApiError> {
        self.ask(&ChangeSettings { confirm: Some(word.into()), ..self.wanted(changes) })
    }

    /// The text of the portal's file.
    fn file(&self) -> Option<String> {
        fs::read_to_string(self.rig.path("data/conf.d/50-portal.toml")).ok()
    }

    /// What the audit log has of settings that this caller changed, the newest first.
    fn log(&self) -> Vec<Value> {
        let answer = self.control.audit(&Caller::operator(""), &AuditQuery::default()).unwrap();
        let entries = answer["entries"].as_array().unwrap().iter();
        entries.filter(|entry| entry["action"] == "settings" && entry["name"] == "ann@example.com").cloned().collect()
    }
}

#[test]
fn a_change_is_told_taken_kept_and_in_the_log() {
    let sut = Sut::new("");
    let changes = json!({"archive.codec": "as-received", "limits.sessions_max": 3_000, "filters.discards_kept": null});
    let plan = sut.plan(changes.clone());
    assert_eq!(plan["mistakes"], json!([]));
    assert_eq!(plan["confirm"], Value::Null, "{plan:#}");
    assert_eq!(plan["retention"], Value::Null);
    let told = &plan["changes"];
    assert_eq!(told.as_array().unwrap().len(), 2);
    assert_eq!((&told[0]["key"], &told[0]["takes_effect"]), (&json!("limits.sessions_max"), &json!("restart")));
    assert_eq!((&told[1]["from"], &told[1]["to"]), (&json!("\"opus\""), &json!("\"as-received\"")));
    assert_eq!((sut.file(), sut.log().len()), (None, 0), "a plan changes nothing");

    let before = sut.version();
    let done = sut.change(changes).unwrap();
    assert_eq!((&done["applied"], &done["version"]), (&json!(true), &json!(sut.version())));
    assert_ne!(sut.version(), before);
    let entry = sut.entry("archive.codec");
    assert_eq!((&entry["value"], &entry["set"]), (&json!("\"as-received\""), &json!("as-received")));
    assert!(entry["origin"].as_str().unwrap().contains("data/conf.d/50-portal.toml:"), "{entry}");
    assert_eq!(entry["in_portal"], true);
    assert_eq!(sut.entry("limits.sessions_max")["waiting"]["value"], "3000");
    assert_eq!(sut.entry("limits.sessions_max")["set"], 3_000);
    assert_eq!(sut.running.appliance.settings().archive.codec, callvault_config::ArchiveCodec::AsReceived);
    let log = sut.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0]["details"]["archive.codec"], "\"opus\" → \"as-received\"");
    assert_eq!(log[0]["details"]["limits.sessions_max"], "2000 → 3000");
    assert_eq!((&log[0]["from"], &log[0]["outcome"]), (&json!("192.0.2.7"), &json!("allowed")));

    let sut = sut.restarted();
    assert_eq!(sut.running.appliance.config.limits.sessions_max, 3_000);
    assert_eq!(sut.entry("limits.sessions_max")["waiting"], Value::Null);
    sut.confirmed(json!({"archive.codec": null, "limits.sessions_max": null}), "limits.sessions_max").unwrap();
    assert_eq!(sut.entry("archive.codec")["origin"], "default");
    assert!(!sut.file().unwrap().contains('['), "{:?}", sut.file());
}

#[test]
fn administrators_alone_may() {
    let sut = Sut::new("");
    let user = |level| User { id: Uuid::now_v7(), webex_email: "x@example.com".into(), level, ..User::default() };
    for level in [Level::RecordOnly, Level::Base, Level::GroupSupervisor, Level::Administrator] {
        for is_dry_run in [true, false] {
            let caller = Caller::of_user(&user(level), Level::Administrator, "192.0.2.8");
            let wanted = ChangeSettings { is_dry_run, ..sut.wanted(json!({"log.level": "debug"})) };
            let found = sut.control.change_settings(&caller, &wanted).map_err(|error| error.kind);
            let may = level == Level::Administrator;
            assert_eq!(found.is_ok(), may, "{level} {is_dry_run}");
            assert!(may || found == Err(ErrorKind::Forbidden));
            let seen = sut.control.capacity(&caller).map_err(|error| error.kind);
            assert_eq!(seen.is_ok(), may, "capacity: {level}");
        }
        // a token of less than its user is less
        let caller = Caller::of_user(&user(Level::Administrator), level, "192.0.2.8");
        let found = sut.control.change_settings(&caller, &sut.wanted(json!({"log.level": "warn"})));
        assert_eq!(found.is_ok(), level == Level::Administrator, "token: {level}");
    }
    let answer = sut.control.audit(&Caller::operator(""), &AuditQuery::default()).unwrap();
    let refused = answer["entries"].as_array().unwrap().iter().filter(|one| one["outcome"] == "refused");
    let refused: BTreeSet<&str> = refused.map(|one| one["action"].as_str().unwrap()).collect();
    assert!(refused.contains("settings"), "{refused:?}");
}

#[test]
fn what_is_wrong_is_said_with_its_key_and_nothing_is_changed() {
    let sut = Sut::new("");
    fs::create_dir_all(sut.rig.path("conf.d")).unwrap();
    fs::write(sut.rig.path("conf.d/90-pinned.toml"), "[mail]\nlanguage = \"de\"\n").unwrap();
    sut.change(json!({"mail.sender_name": "Calls"})).expect_err("the files are others than when they were looked at");
    let check = |changes: Value, key: &str, expected: &str| {
        let before = (sut.file(), sut.version(), sut.log().len());
        let plan = sut.plan(changes.clone());
        let mistakes = plan["mistakes"].as_array().unwrap();
        assert!(mistakes.iter().any(|one| one["key"] == key), "{plan}");
        let error = sut.change(changes).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unprocessable);
        assert!(error.message.starts_with("nothing was changed: ") && error.message.contains(expected), "{error}");
        assert_eq!((sut.file(), sut.version(), sut.log().len()), before, "{error}");
    };
    check(json!({"mail.sever": "x"}), "mail.sever", "did you mean `mail.server`?");
    check(json!({"log.level": "debug", "limits.sessions_max": 0}), "limits.sessions_max", "outside 1 to 20000");
    check(json!({"mail.language": "it"}), "mail.language", "90-pinned.toml:2, which wins over the portal");
    check(json!({"mail.password_file": "/etc/shadow"}), "mail.password_file", "only who runs it sets it");
    check(json!({"mail.server": "mail.example.com"}), "mail.server", "mail.from must be the address");
    check(json!({"sip.tls": ["0.0.0.0:5061"]}), "sip.tls", "needs a certificate");
    check(json!({"sip.udp": "192.0.2.1:5060"}), "sip.udp", "192.0.2.1:5060 cannot be bound");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check(json!({"sip.tcp": ["0.0.0.0:5060", address]}), "sip.tcp", "a port that is free");
    check(json!({"media.address": "192.0.2.1"}), "media.address", "192.0.2.1:0 cannot be bound");
    check(json!({"retention.rule": 12}), "retention.rule", "expected \"keep-all\"");
    let pinned = sut.entry("mail.language")["fixed"].clone();
    assert_eq!(pinned["by"], "file");
    assert!(pinned["text"].as_str().unwrap().contains("90-pinned.toml:2"), "{pinned}");
    assert_eq!(sut.entry("data_dir")["fixed"]["by"], "machine");
    assert_eq!(sut.entry("mail.server")["fixed"], Value::Null);
}

#[test]
fn who_looked_at_other_settings_is_refused() {
    let sut = Sut::new("");
    let [first, second] = [json!({"log.level": "debug"}), json!({"mail.language": "it"})].map(|one| sut.wanted(one));
    sut.ask(&first).unwrap();
    let error = sut.ask(&second).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains("somebody changed them meanwhile"), "{error}");
    assert!(!sut.file().unwrap().contains("language"));
    assert_eq!(sut.ask(&ChangeSettings { is_dry_run: true, ..second.clone() }).unwrap_err().kind, ErrorKind::Conflict);
    sut.ask(&ChangeSettings { version: sut.version(), ..second }).unwrap();
    let text = sut.file().unwrap();
    assert!(text.contains("level = \"debug\"") && text.contains("language = \"it\""), "{text}");

    // the operator's files count too, and what is in them is known with the refusal
    let third = sut.wanted(json!({"mail.language": "fr"}));
    sut.rig.configure("[archive]\ncodec = \"as-received\"\n[mail]\nsender_name = \"Recorder\"");
    assert_eq!(sut.ask(&third).unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(sut.entry("mail.sender_name")["set"], "Recorder");
    sut.ask(&ChangeSettings { version: sut.version(), ..third }).unwrap();

    // and where they have mistakes, those come first
    let fourth = sut.wanted(json!({"mail.language": "es"}));
    sut.rig.configure("[archive]\ncodec = \"mp3\"");
    let error = sut.ask(&fourth).unwrap_err();
    assert!(error.kind == ErrorKind::Conflict && error.message.contains("archive.codec"), "{error}");
    assert!(sut.file().unwrap().contains("\"fr\""));
}

#[test]
fn what_opens_or_destroys_is_typed() {
    let sut = Sut::new("");
    let check = |changes: Value, word: &str, risk: &str| {
        let plan = sut.plan(changes.clone());
        assert_eq!(plan["confirm"], word, "{plan:#}");
        assert_eq!(plan["risks"][0]["risk"], risk, "{plan:#}");
        let before = sut.file();
        for typed in [None, Some("yes"), Some("permissions"), Some("")] {
            let wanted = ChangeSettings { confirm: typed.map(str::to_owned), ..sut.wanted(changes.clone()) };
            let error = sut.ask(&wanted).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Conflict);
            assert!(error.message.contains(&format!("confirm it with {word:?}")), "{error}");
            assert_eq!(sut.file(), before);
        }
        sut.confirmed(changes, word).unwrap();
    };
    check(json!({"permissions.download": "users"}), "permissions.download", "opens");
    check(json!({"store.path": "/srv/elsewhere"}), "store.path", "loses");
    check(json!({"webhook.url": "https://example.com/in"}), "webhook.url", "sends");
    let both = json!({"sip.allowed_peers": ["0.0.0.0/0"], "permissions.delete": "nobody-irreversibly"});
    check(both, "sip.allowed_peers permissions.delete", "opens");
    assert_eq!(sut.plan(json!({"permissions.download": "nobody"}))["confirm"], Value::Null);

    // what was switched off for ever says so
    let sut = sut.restarted();
    assert!(sut.running.appliance.access.permissions().never_delete);
    let error = sut.confirmed(json!({"permissions.delete": "users"}), "permissions.delete").unwrap_err();
    assert!(error.kind == ErrorKind::Unprocessable && error.message.contains("for ever"), "{error}");
}

#[test]
fn what_a_shorter_retention_would_delete_is_counted_from_the_recordings() {
    let sut = Sut::new("[archive]\ncodec = \"as-received\"");
    sut.running.appliance.store.look();
    let mut generation = Generation::begin(&sut.running);
    let now_ns = generation.wall_ns;
    for hours in [50, 30, 5, 1] {
        generation.wall_ns = now_ns - hours * HOUR_NS;
        whole_call(&mut generation, &pcmu(), 20);
    }
    generation.finish();
    sut.running.settle();
    let check = |rule: Value, due: u64, question: Value| {
        let plan = sut.plan(rule);
        let found = &plan["retention"];
        assert_eq!((&found["due"], &found["recordings"]), (&json!(due), &json!(4)), "{plan:#}");
        assert_eq!(found["due_by_new_rule"], due);
        assert_eq!(found["question"], question, "{plan:#}");
        assert_eq!(found["oldest"].is_string(), due > 0, "{plan:#}");
        plan
    };
    check(json!({"retention.rule": "12-months"}), 0, Value::Null);
    let plan = check(json!({"retention.rule": "4-hours"}), 3, Value::Null);
    assert!(plan["retention"]["oldest"].as_str() < plan["retention"]["newest"].as_str());
    assert_eq!(plan["retention"]["rule"]["period"], "4 hours");
    assert_eq!((&plan["confirm"], &plan["risks"][0]["risk"]), (&json!("retention.rule"), &json!("deletes")));
    let custom = json!({"retention.rule": "custom", "retention.period": "40 hours", "retention.confirm_few": 0});
    check(custom.clone(), 1, json!("shorter-rule"));
    assert_eq!(sut.running.recordings().len(), 4, "nothing is deleted by looking");
    sut.confirmed(custom, "retention.rule retention.period").unwrap();
    assert_eq!(crate::retention::pass(&sut.running.appliance), 0, "the rule waits for the restart");
    let sut = sut.restarted();
    let plan = sut.control.retention(&sut.caller).unwrap();
    assert_eq!(plan["plan"]["due_by_new_rule"], 1, "what was told is what comes: {plan:#}");
}

#[test]
fn a_secret_is_set_and_never_shown() {
    let sut = Sut::new("");
    let plan = sut.plan(json!({"webex_rules.pin": "when adding 4711"}));
    sut.change(json!({"webex_rules.pin": "when adding 4711"})).unwrap();
    assert!(sut.file().unwrap().contains("4711"));
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(sut.rig.path("data/conf.d/50-portal.toml")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    for said in [plan, sut.shown(), json!(sut.log())] {
        assert!(!said.to_string().contains("4711"), "{said}");
    }
    assert_eq!(sut.entry("webex_rules.pin")["set"], Value::Null);
    assert_eq!(sut.log()[0]["details"]["webex_rules.pin"], "\"(hidden)\" → \"(hidden)\"");
}

#[test]
fn what_cannot_be_written_is_not_in_force() {
    let sut = Sut::new("");
    // a folder in the file's place
    fs::create_dir_all(sut.rig.path("data/conf.d/50-portal.toml.tmp")).unwrap();
    let error = sut.change(json!({"log.level": "debug"})).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("nothing was changed"), "{error}");
    assert_eq!((sut.entry("log.level")["value"].clone(), sut.file()), (json!("\"info\""), None));
    let outcomes: Vec<Value> = sut.log().iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, [json!("failed"), json!("allowed")]);
    fs::remove_dir(sut.rig.path("data/conf.d/50-portal.toml.tmp")).unwrap();

    // and nothing is written that the audit log does not have
    let db = rusqlite::Connection::open(sut.rig.path("data/catalogue.db")).unwrap();
    db.execute_batch("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(FAIL, 'full'); END").unwrap();
    assert_eq!(sut.change(json!({"log.level": "debug"})).unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(sut.file(), None);
    db.execute_batch("DROP TRIGGER full").unwrap();
    sut.change(json!({"log.level": "debug"})).unwrap();
    assert_eq!(sut.entry("log.level")["value"], "\"debug\"");
}

#[test]
fn many_changes_are_all_in_the_log_and_long_ones_do_not_fill_it() {
    let sut = Sut::new("");
    let keys = "limits.tracks_per_session_max limits.sessions_per_peer_max limits.invites_per_second limits.connections_max \
        limits.invites_per_peer_per_second limits.connections_per_peer_max limits.http_connections_max licence.users_max \
        licence.channels_max archive.complexity retention.confirm_share retention.confirm_few portal.requests_max \
        queue.attempts_max uploads.parallel uploads.per_minute mail.port render.parallel";
    let other = |key: &str| {
        let number = sut.entry(key)["set"].as_i64().unwrap();
        (key.to_owned(), json!(if number > 4 { number - 1 } else { number + 1 }))
    };
    let mut changes: serde_json::Map<String, Value> = keys.split_whitespace().map(other).collect();
    changes.insert("mail.sender_name".into(), json!("x".repeat(10_000)));
    let count = changes.len();
    assert!(count > 16, "{changes:?}");
    let word = sut.plan(Value::Object(changes.clone()))["confirm"].as_str().unwrap_or_default().to_owned();
    sut.confirmed(Value::Object(changes), &word).unwrap();
    let log = sut.log();
    assert!(log.len() > 1);
    let keys: BTreeSet<&String> = log.iter().flat_map(|one| one["details"].as_object().unwrap().keys()).collect();
    assert_eq!(keys.len(), count);
    assert!(log.iter().all(|one| one.to_string().len() < 8_000));
    let size = "x".repeat(60_000);
    for _ in 0..2 {
        let error = sut.change(json!({"organisation.time_zone": size})).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unprocessable);
    }
}

//! Settings changed through the daemon, with the real programs: what is changed is in force, survives restarts and kills, gives way to what the
//! operator wrote, and nothing that somebody sends leaves a configuration with which the appliance does not start.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Barrier;

use rig::http::{self, Response};
use rig::offer::Offer;
use rig::shapes::{Facts, webex_offering};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::speaker::Speaker;
use rig::{Appliance, wait_until};
use serde_json::{Value, json};

/// What the daemon writes.
const FILE: &str = "data/conf.d/50-portal.toml";

fn send(appliance: &Appliance, token: &str, body: &str) -> Response {
    http::ask_with(appliance.place.http(), ("PUT", "/v1/settings"), Some(token), body).unwrap()
}

fn put(appliance: &Appliance, body: &Value) -> (u16, Value) {
    let response = send(appliance, &appliance.token(), &body.to_string());
    (response.status, response.json())
}

fn version(appliance: &Appliance) -> Value {
    appliance.get("/v1/settings")["version"].clone()
}

/// Changes settings as they are now, and confirms what has to be.
fn change(appliance: &Appliance, changes: &Value) -> (u16, Value) {
    let version = version(appliance);
    let (status, plan) = put(appliance, &json!({"version": version, "changes": changes, "dry_run": true}));
    assert_eq!(status, 200, "{plan}");
    put(appliance, &json!({"version": version, "changes": changes, "confirm": plan["confirm"]}))
}

fn setting(appliance: &Appliance, key: &str) -> Value {
    let answer = appliance.get("/v1/settings");
    answer["settings"].as_array().unwrap().iter().find(|entry| entry["key"] == key).unwrap().clone()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes of the archive of a call of some seconds.
fn archived_bytes(appliance: &Appliance, number: u32) -> u64 {
    let facts = Facts::incoming(number);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &Offer::two(appliance.place.ip).text()));
    let voice = packets(&speech(1, 120.0, 8_000, 150 * FRAME));
    Speaker::start(&media).say_all(&[&voice, &voice]);
    client.bye();
    appliance.archived(&facts.call_id)["archive"]["bytes"].as_u64().unwrap()
}

/// Both ways of checking say that the files are good.
fn assert_good(appliance: &Appliance) {
    for output in [appliance.ctl(&["config", "check"]), appliance.daemon_output(&["--check"])] {
        let said = text(&output.stdout) + &text(&output.stderr);
        // Its ports are in use by the appliance itself, which is why the check may fail; of the configuration it says that it is good.
        assert!(said.contains("callvault.toml: good;"), "{said}");
    }
}

#[test]
fn what_is_changed_is_in_force_kept_and_overruled_by_the_operator() {
    let mut appliance = Appliance::start("");
    let opus = archived_bytes(&appliance, 44_001);
    let retention = json!({"retention.rule": "48-months", "retention.confirm_few": 7});
    let changes = json!({"mail.server": "127.0.0.1", "mail.from": "callvault@example.org", "mail.tls": "none", "archive.codec": "as-received"});
    let (status, done) = change(&appliance, &changes);
    assert_eq!((status, &done["applied"]), (200, &json!(true)), "{done:#}");
    let (status, done) = change(&appliance, &retention);
    assert_eq!(status, 200, "{done:#}");
    assert!(done["changes"].as_array().unwrap().iter().all(|one| one["takes_effect"] == "restart"));
    assert_eq!(setting(&appliance, "retention.rule")["waiting"]["value"], "\"48-months\"");
    assert_eq!(appliance.get("/v1/retention")["rule"]["name"], "keep-all", "it waits for the restart");
    let about = fs::metadata(appliance.home().join(FILE)).unwrap();
    assert_eq!(about.mode() & 0o777, 0o600);
    assert_good(&appliance);

    // A call is archived by the new codec, without a restart: as it came it takes more than what Opus makes of it.
    assert!(archived_bytes(&appliance, 44_002) > opus * 3 / 2);

    appliance.stop();
    appliance.launch();
    assert_eq!(appliance.get("/v1/retention")["rule"]["name"], "48-months");
    let shown = text(&appliance.ctl(&["config", "show"]).stdout);
    let line = shown.lines().find(|line| line.contains("retention.rule")).unwrap();
    assert!(line.contains("48-months") && line.contains("50-portal.toml:"), "{line}");
    let shown = text(&appliance.ctl(&["settings", "show", "mail.server"]).stdout);
    assert!(shown.contains("50-portal.toml:"), "{shown}");

    // An earlier name gives way, a later one wins, and then the portal cannot change it.
    fs::write(appliance.home().join("conf.d/10-setup.toml"), "[mail]\ntls = \"tls\"\n").unwrap();
    fs::write(appliance.home().join("conf.d/60-fixed.toml"), "[archive]\ncodec = \"opus\"\n").unwrap();
    wait_until("the operator's file is in force", || setting(&appliance, "archive.codec")["value"] == "\"opus\"");
    assert_eq!(setting(&appliance, "mail.tls")["value"], "\"none\"");
    let codec = setting(&appliance, "archive.codec");
    assert_eq!((&codec["fixed"]["by"], &codec["in_portal"]), (&json!("file"), &json!(true)));
    let body = json!({"version": version(&appliance), "changes": {"archive.codec": "as-received"}});
    let (status, refused) = put(&appliance, &body);
    assert!(status == 422 && refused["error"]["message"].as_str().unwrap().contains("60-fixed.toml:2"), "{refused}");

    // Who did what is in the audit log.
    let log = appliance.get("/v1/audit?action=settings");
    let entries = log["entries"].as_array().unwrap();
    let has =
        |key: &str, value: &str| entries.iter().any(|one| one["details"][key] == value && one["name"] == "operator");
    assert!(
        has("archive.codec", "\"opus\" → \"as-received\"") && has("retention.rule", "\"keep-all\" → \"48-months\""),
        "{log:#}"
    );

    // And everything can be taken back by removing the file.
    appliance.stop();
    fs::remove_file(appliance.home().join(FILE)).unwrap();
    appliance.launch();
    assert_eq!(setting(&appliance, "retention.rule")["origin"], "default");
    assert_eq!(setting(&appliance, "mail.tls")["value"], "\"tls\"");
}

#[test]
fn of_administrators_at_once_one_wins_and_the_others_are_told() {
    const MANY: usize = 12;
    let appliance = Appliance::start("");
    let token = appliance.token();
    for round in 0..3 {
        let version = version(&appliance);
        let start = Barrier::new(MANY);
        let answers: Vec<(usize, Response)> = std::thread::scope(|scope| {
            let one = |n: usize| {
                let body = json!({"version": version, "changes": {"mail.sender_name": format!("round {round}, {n}")}});
                let (appliance, token, start) = (&appliance, token.as_str(), &start);
                scope.spawn(move || {
                    start.wait();
                    (n, send(appliance, token, &body.to_string()))
                })
            };
            let all: Vec<_> = (0..MANY).map(one).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let winners: Vec<usize> = answers.iter().filter(|(_, answer)| answer.status == 200).map(|(n, _)| *n).collect();
        assert_eq!(winners.len(), 1, "{:?}", answers.iter().map(|(_, answer)| answer.status).collect::<Vec<_>>());
        assert!(answers.iter().all(|(_, answer)| [200, 409].contains(&answer.status)));
        let expected = format!("\"round {round}, {}\"", winners[0]);
        assert_eq!(setting(&appliance, "mail.sender_name")["value"], expected);
    }
}

#[test]
fn nothing_that_is_sent_keeps_the_appliance_from_starting() {
    let mut appliance = Appliance::start("");
    let escapes = "x\"\n[permissions]\ndelete = \"users\"\n#";
    let check = |changes: Value, statuses: &[u16]| {
        let body = json!({"version": version(&appliance), "changes": changes, "confirm": "mail.server"});
        let response = send(&appliance, &appliance.token(), &body.to_string());
        assert!(statuses.contains(&response.status), "{body}: {} {}", response.status, text(&response.body));
    };
    check(json!({"mail.sender_name": escapes}), &[422]);
    check(json!({"mail.sender_name": "'''\"\"\"\\u0000 ]] = \u{2028}\u{feff}\u{202e}"}), &[200]);
    check(json!({"numbers.internal": ["7!", "\"]\n[sip]"]}), &[422]);
    check(json!({"mail.sender_name\"\n[sip]\nudp": "x"}), &[422]);
    check(json!({"": "x", "..": "x", "mail.": "x", ".mail": null}), &[422]);
    check(json!({"recording.on_demand_users": ["x".repeat(60_000)]}), &[200, 409, 422]);
    check(json!({"mail.port": 4_294_967_296_i64}), &[422]);
    check(json!({"mail.port": i64::MIN}), &[422]);
    check(json!({"mail.password_file": "/etc/shadow", "mail.server": "192.0.2.1"}), &[422]);
    check(json!({"data_dir": "/"}), &[422]);
    check(json!({"mail": {"server": "x"}}), &[400]);
    check(json!({"filters.blacklist": [["7"]]}), &[400]);
    let deep = "[".repeat(2_000) + &"]".repeat(2_000);
    let token = appliance.token();
    for (body, status) in [
        (format!(r#"{{"version": "x", "changes": {{"mail.server": {deep}}}}}"#), 400),
        (String::new(), 400),
        ("null".to_owned(), 400),
        (r#"{"version": "x", "changes": {"log.level": "debug"}}"#.to_owned(), 409),
        (format!(r#"{{"version": "{}", "changes": {{"log.level": "debug"}}}}"#, "x".repeat(60_000)), 409),
        (" ".repeat(70_000), 413),
    ] {
        let response = send(&appliance, &token, &body);
        assert_eq!(response.status, status, "{body:.80}: {}", text(&response.body));
    }
    // Who is less than an administrator changes nothing and learns nothing.
    let file = appliance.home().join("users.csv");
    fs::write(&file, "webex_email;level\nbob@example.com;base\n").unwrap();
    assert!(appliance.ctl(&["users", "import", file.to_str().unwrap()]).status.success());
    let made =
        appliance.ctl(&["--json", "tokens", "create", "--name", "b", "--level", "base", "--user", "bob@example.com"]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let body = json!({"version": version(&appliance), "changes": {"log.level": "debug"}, "dry_run": true});
    let refused = send(&appliance, made["token"].as_str().unwrap(), &body.to_string());
    assert!(refused.status == 403 && !text(&refused.body).contains("info"), "{}", text(&refused.body));

    assert_good(&appliance);
    let kept = setting(&appliance, "mail.sender_name")["value"].clone();
    assert_eq!(setting(&appliance, "permissions.delete")["origin"], "default");
    appliance.stop();
    appliance.launch();
    assert_eq!(setting(&appliance, "mail.sender_name")["value"], kept);
    assert!(!appliance.log().contains("x\"\n[permissions]"));
}

/// A daemon that dies at any moment of a change starts again with the settings of before, or of after.
#[test]
fn a_kill_in_the_middle_of_a_change_leaves_one_or_the_other() {
    let mut appliance = Appliance::prepare("");
    let file = appliance.home().join(FILE);
    appliance.launch();
    assert_eq!(change(&appliance, &json!({"mail.sender_name": "old"})).0, 200);
    let old = fs::read_to_string(&file).unwrap();
    for n in 0..4_u64 {
        let version = version(&appliance);
        let (to, token) = (appliance.place.http(), appliance.token());
        let asker = std::thread::spawn(move || {
            let body = json!({"version": version, "changes": {"mail.sender_name": "new"}}).to_string();
            let _ = http::ask_with(to, ("PUT", "/v1/settings"), Some(&token), &body);
        });
        std::thread::sleep(std::time::Duration::from_millis(n * 4));
        appliance.kill();
        asker.join().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text == old || text == old.replace("old", "new"), "{text}");
        appliance.launch();
        let value = setting(&appliance, "mail.sender_name")["value"].clone();
        assert!(text.contains(value.as_str().unwrap()), "{value}: {text}");
        if text != old {
            assert_eq!(change(&appliance, &json!({"mail.sender_name": "old"})).0, 200);
        }
    }
}

//! Who may do what, with the programs that are shipped: tokens, what was switched off for ever, the audit log, and recording that is
//! stopped until it is started.

#![allow(clippy::unwrap_used)]

mod rig;

use std::process::Output;

use rig::http::Response;
use rig::offer::Offer;
use rig::shapes::{Facts, webex_offering};
use rig::sip::{Answer, Client};
use rig::sound::{FRAME, packets, speech};
use rig::speaker::Speaker;
use rig::{Appliance, http, wait_until};
use serde_json::Value;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// What a command prints as JSON.
fn json(appliance: &Appliance, arguments: &[&str]) -> Value {
    let output = appliance.ctl(&[&["--json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {}", said(&output)))
}

fn invite(appliance: &Appliance, number: u32) -> (Client, Answer) {
    let mut client = Client::udp(appliance.sip());
    let offer = Offer::two(appliance.place.ip).text();
    let answer = client.invite(&webex_offering(&Facts::incoming(number), &offer));
    (client, answer)
}

/// A short call; its recording, archived.
fn recorded(appliance: &Appliance, number: u32) -> String {
    let facts = Facts::incoming(number);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &Offer::two(appliance.place.ip).text()));
    let speaker = Speaker::start(&media);
    let voice = packets(&speech(u64::from(number), 120.0, 8_000, 25 * FRAME));
    speaker.say_all(&[&voice, &voice]);
    drop(speaker);
    client.bye();
    appliance.archived(&facts.call_id)["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_opens_what_it_was_made_for_until_it_is_revoked_and_the_log_has_it_all() {
    let appliance = Appliance::start("[permissions]\ndownload = \"nobody\"\n");
    let id = recorded(&appliance, 1);
    let made =
        json(&appliance, &["tokens", "create", "--name", "script", "--level", "administrator", "--expires", "1"]);
    let token = made["token"].as_str().unwrap();
    let ask = |method: &str, path: &str| http::ask(appliance.place.http(), method, path, Some(token)).unwrap();
    assert_eq!(ask("GET", "/v1/me").json()["name"], "script");
    assert_eq!(ask("GET", "/v1/recordings").json()["recordings"][0]["id"], id.as_str());
    let play = ask("GET", &format!("/v1/recordings/{id}/audio?format=wav&for=play"));
    assert!(play.status == 200 && play.body.starts_with(b"RIFF"));
    let download = ask("GET", &format!("/v1/recordings/{id}/audio?format=wav"));
    assert_eq!(download.status, 403);
    let why = download.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(why.contains("nobody may; the setting permissions.download says who"), "{why}");
    let refused = appliance.ctl(&["tokens", "create", "--name", "x", "--level", "base"]);
    assert!(!refused.status.success() && said(&refused).contains("--user EMAIL"), "{}", said(&refused));

    // for people, and with another token than the control token
    let file = appliance.home().join("script.token");
    std::fs::write(&file, token).unwrap();
    let with = ["--token-file", file.to_str().unwrap()];
    let listed = said(&appliance.ctl(&[&with[..], &["audit", "list", "--name", "script"]].concat()));
    for action in ["search", "play", "download"] {
        assert!(listed.contains(action), "{action}: {listed}");
    }
    assert!(said(&appliance.ctl(&["tokens", "list"])).contains("script  administrator"));
    let revoked = appliance.ctl(&["tokens", "revoke", made["id"].as_str().unwrap()]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    assert_eq!(ask("GET", "/v1/me").status, 401);
    let refused = appliance.ctl(&[&with[..], &["audit", "list"]].concat());
    assert!(said(&refused).contains("not known, or was revoked; ask an administrator"), "{}", said(&refused));

    let head = json(&appliance, &["status"])["audit"]["head"].as_str().unwrap().to_owned();
    let verified = appliance.ctl(&["audit", "verify", "--head", &head]);
    assert!(verified.status.success() && said(&verified).contains("all as they were written"), "{}", said(&verified));
    let csv = said(&appliance.ctl(&["audit", "export"]));
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("Date,Email,IpAddress,AppName,ActionType,Details"));
    let expected = format!(",script,127.0.0.1,token,play,\"recording={id}; format=wav\"");
    assert!(lines.any(|line| line.ends_with(&expected)), "no {expected} in\n{csv}");
    // nothing of it is in the log
    let log = appliance.log();
    assert!(!log.contains(token) && !log.contains("script"), "names or tokens are in the log");
}

/// Asks with somebody's token.
fn ask(appliance: &Appliance, token: &str, method: &str, path: &str) -> Response {
    http::ask(appliance.place.http(), method, path, Some(token)).unwrap()
}

#[test]
fn three_users_have_what_is_theirs_and_no_more() {
    let appliance = Appliance::start(
        "[permissions]\ndelete = \"users\"\n[numbers]\ncountry_code = \"39\"\nnational_prefix = \"\"\n",
    );
    let numbers = [21, 22, 23].map(|number| Facts::incoming(number).local_number);
    let file = appliance.home().join("users.csv");
    let [ann, bob, eve] = &numbers;
    let text = format!(
        "webex_email;first_extension;group;level\nann@example.com;{ann};Sales;group-supervisor\n\
         bob@example.com;{bob};Sales;base\neve@example.com;{eve};;base\n"
    );
    std::fs::write(&file, text).unwrap();
    let imported = appliance.ctl(&["users", "import", file.to_str().unwrap()]);
    assert!(imported.status.success(), "{}", said(&imported));
    let tokens = ["ann", "bob", "eve"].map(|name| {
        let user = format!("{name}@example.com");
        let level = "administrator";
        let made = json(&appliance, &["tokens", "create", "--name", name, "--level", level, "--user", &user]);
        made["token"].as_str().unwrap().to_owned()
    });
    let recordings = [21, 22, 23].map(|number| recorded(&appliance, number));
    let check = |token: &str, seen: [bool; 3]| {
        let list = ask(&appliance, token, "GET", "/v1/recordings").json();
        let found: Vec<&str> =
            list["recordings"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
        for (id, seen) in recordings.iter().zip(seen) {
            let path = format!("/v1/recordings/{id}");
            // what may not be seen is answered as if it were not there
            let status = if seen { 200 } else { 404 };
            assert_eq!(found.contains(&id.as_str()), seen, "{list:#}");
            assert_eq!(ask(&appliance, token, "GET", &path).status, status);
            assert_eq!(ask(&appliance, token, "GET", &format!("{path}/audio?format=wav&for=play")).status, status);
            assert_eq!(
                ask(&appliance, token, "GET", &format!("{path}/audio?format=wav")).status,
                if seen { 403 } else { 404 }
            );
            if !seen {
                assert_eq!(ask(&appliance, token, "DELETE", &path).status, 404);
            }
        }
        assert_eq!(ask(&appliance, token, "GET", "/v1/status").status, 403, "a token gives no more than its user has");
    };
    check(&tokens[0], [true, true, false]);
    check(&tokens[1], [false, true, false]);
    check(&tokens[2], [false, false, true]);

    // a live call is its user's, the supervisor's, and nobody else's
    let (live, answer) = invite(&appliance, 22);
    assert_eq!(answer.status, 200);
    let calls = |token: &str| ask(&appliance, token, "GET", "/v1/calls").json()["calls"].as_array().unwrap().clone();
    wait_until("the call in the list", || !calls(&tokens[1]).is_empty());
    assert!(calls(&tokens[2]).is_empty());
    let path = format!("/v1/calls/{}/pause", calls(&tokens[0])[0]["id"].as_str().unwrap());
    assert_eq!(ask(&appliance, &tokens[2], "POST", &path).status, 404);
    assert_eq!(ask(&appliance, &tokens[0], "POST", &path).json()["state"], "paused");
    live.bye();

    // what is changed about a user counts at once, for tokens that are there
    assert!(appliance.ctl(&["users", "set", "bob@example.com", "level=record-only"]).status.success());
    assert_eq!(ask(&appliance, &tokens[1], "GET", "/v1/recordings").status, 403);
    assert_eq!(ask(&appliance, &tokens[0], "DELETE", &format!("/v1/recordings/{}", recordings[1])).status, 200);
    assert!(appliance.ctl(&["users", "remove", "eve@example.com"]).status.success());
    let gone = ask(&appliance, &tokens[2], "GET", "/v1/me");
    assert!(gone.status == 401 && gone.json()["error"]["message"].as_str().unwrap().contains("was removed"));
    let csv = said(&appliance.ctl(&["audit", "export"]));
    for (name, action) in [("ann@example.com", "delete"), ("eve@example.com", "pause"), ("bob@example.com", "search")] {
        assert!(
            csv.lines().any(|line| line.contains(&format!(",{name},127.0.0.1,token,{action},"))),
            "{action}: {csv}"
        );
    }
}

#[test]
fn deleting_that_was_switched_off_for_ever_stays_off() {
    let mut appliance = Appliance::start("[permissions]\ndelete = \"nobody-irreversibly\"\n");
    let id = recorded(&appliance, 2);
    let check = |appliance: &Appliance| {
        let refused = appliance.ctl(&["recordings", "delete", &id, "--yes"]);
        assert!(!refused.status.success() && said(&refused).contains("for ever"), "{}", said(&refused));
        assert_eq!(json(appliance, &["status"])["permissions"]["delete"], "nobody-irreversibly");
        let log = json(appliance, &["audit", "list", "--action", "delete", "--outcome", "refused"]);
        assert!(!log["entries"].as_array().unwrap().is_empty());
    };
    check(&appliance);
    appliance.stop();
    appliance.configure("[permissions]\ndelete = \"administrators\"\n");
    appliance.launch();
    check(&appliance);
    let status = said(&appliance.ctl(&["status"]));
    assert!(status.contains("permissions.delete is \"administrators\" in the configuration"), "{status}");
    // nor does a catalogue that is made again from the archives forget it
    appliance.stop();
    for file in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
        let _ = std::fs::remove_file(appliance.data().join(file));
    }
    let _ = std::fs::remove_file(appliance.data().join("never-delete"));
    let recovered = appliance.ctl(&["recover"]);
    assert!(appliance.data().join("catalogue.db").exists(), "{}", said(&recovered));
    appliance.launch();
    wait_until("the store to be asked", || {
        json(&appliance, &["status"])["permissions"]["delete"] == "nobody-irreversibly"
    });
    check(&appliance);
}

#[test]
fn recording_that_was_stopped_stays_so_whatever_is_restarted() {
    let mut appliance = Appliance::start("");
    let (live, answer) = invite(&appliance, 3);
    assert_eq!(answer.status, 200);
    let stopped = appliance.ctl(&["recording", "stop", "--reason", "the office moves"]);
    assert!(said(&stopped).contains("the office moves. New calls are refused"), "{}", said(&stopped));
    assert_eq!(invite(&appliance, 4).1.status, 503, "what is stopped is stopped when it is said");
    wait_until("it to say that it takes no calls", || !appliance.is_ready());
    assert!(said(&appliance.ctl(&["status"])).contains("the office moves"));
    let calls = || json(&appliance, &["calls"])["calls"].as_array().unwrap().len();
    wait_until("the call that was there to be the only one", || calls() == 1);
    live.bye();
    // a recorder that is new knows it before it answers anybody
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(appliance.recorder()).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(invite(&appliance, 5).1.status, 503);
    appliance.kill();
    appliance.spawn();
    // it is not ready, so that nobody waits for it to be
    wait_until("an answer", || {
        json_of(&appliance, "/v1/status").is_some_and(|status| status["recorder"]["up"] == true)
    });
    assert_eq!(invite(&appliance, 6).1.status, 503);
    // a drain is another thing, and its end does not start it
    assert!(appliance.ctl(&["drain"]).status.success() && appliance.ctl(&["drain", "--cancel"]).status.success());
    assert_eq!(invite(&appliance, 7).1.status, 503);
    assert!(appliance.ctl(&["recording", "start"]).status.success());
    wait_until("a call to be taken", || {
        let (client, answer) = invite(&appliance, 8);
        if answer.status == 200 {
            client.bye();
        }
        answer.status == 200
    });
    wait_until("it to say that it takes calls", || appliance.is_ready());
}

/// The answer, once somebody answers.
fn json_of(appliance: &Appliance, path: &str) -> Option<Value> {
    let token = std::fs::read_to_string(appliance.data().join("control.token")).ok()?;
    let answer = http::ask(appliance.place.http(), "GET", path, Some(token.trim())).ok()?;
    (answer.status == 200).then(|| answer.json())
}

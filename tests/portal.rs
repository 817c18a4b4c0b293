//! The portal in a real browser: every level of permission, two languages, light and dark, wide and narrow. `tests/portal/browser.mjs` is what
//! the people do; here are the appliance, its users and their calls.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rig::Appliance;
use rig::mail::{self, MailServer};
use rig::offer::Offer;
use rig::portal::{Portal, socket};
use rig::shapes::{Facts, webex, webex_offering};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::speaker::Speaker;
use rig::tls::Authority;
use rig::traffic::traffic;
use rig::webex::{Process, SECRET};
use serde_json::{Value, json};

/// Levels differ in each of these, so that a button that is shown to the wrong people is seen.
const SETTINGS: &str =
    "[permissions]\ndownload = \"group-supervisors\"\ndelete = \"administrators\"\npreserve = \"users\"\n";

/// What the portal may change, as its name is earlier than that of the portal's file.
const FIRST: &str = "[retention]\nrule = \"12-months\"\n";

/// Who gets the test mail.
const MAIL_TO: &str = "operator@example.org";

const FIRST_PASSWORD: &str = "first-password-of-all";

/// Seconds of each call: long enough to be heard, sought in and left before the end.
const CALL_S: usize = 8;

/// The people: name, level, the number their calls are recorded by.
const PEOPLE: [(&str, &str, u32); 4] =
    [("ann", "administrator", 31), ("sue", "group-supervisor", 32), ("bob", "base", 33), ("rex", "record-only", 34)];

/// The `nth` call of that number's user; its recording, archived.
fn recorded(appliance: &Appliance, number: u32, nth: u32) {
    let other = Facts::incoming(number * 10 + nth);
    let facts = Facts { local_number: Facts::incoming(number).local_number, ..other };
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &Offer::two(appliance.place.ip).text()));
    let speaker = Speaker::start(&media);
    let voice = |pitch| packets(&speech(u64::from(number + nth), pitch, 8_000, CALL_S * 50 * FRAME));
    speaker.say_all(&[&voice(120.0), &voice(210.0)]);
    drop(speaker);
    client.bye();
    appliance.archived(&facts.call_id);
}

/// What drives the browser, as its lock file has it, in a folder that stays for the next run.
fn modules() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("portal-browser");
    fs::create_dir_all(&place).unwrap();
    let is_there = |file: &str| {
        let (ours, there) = (Path::new("tests/portal").join(file), place.join(file));
        let ours = fs::read(ours).unwrap();
        let same = fs::read(&there).is_ok_and(|there| there == ours);
        fs::write(there, ours).unwrap();
        same
    };
    let is_same = ["package.json", "package-lock.json"].map(is_there).iter().all(|same| *same);
    if !is_same || !place.join("node_modules").exists() {
        let mut command = Command::new("npm");
        command.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&place);
        let status = command.stdout(Stdio::null()).status().expect("npm cannot be run (Debian: npm)");
        assert!(status.success(), "npm ci failed");
    }
    place
}

/// The section of the stand-in for Webex.
fn of_webex(cloud: &Process) -> String {
    let base = format!("http://127.0.0.1:{}/v1", cloud.port);
    format!(
        "[webex]\nenabled = true\nurl = \"{base}\"\nrecords_url = \"{base}\"\nclient_id = \"C-integration\"\n\
         client_secret = \"webex.secret\"\nsync_at = \"\"\nrecords = true\n"
    )
}

/// Whom it knows.
fn people() -> Value {
    let person = |n: usize| {
        json!({
            "id": format!("person-{n}"), "emails": [format!("cloud-{n}@example.com")], "firstName": "Given",
            "lastName": format!("Family{n}"), "type": "person", "locationId": "location-1",
            "phoneNumbers": [{"type": "work", "value": format!("+1408555{n:04}")}],
        })
    };
    json!({"people": (0..3).map(person).collect::<Vec<_>>(), "locations": [{"id": "location-1", "name": "Place"}]})
}

#[test]
fn people_of_every_level_find_and_hear_what_is_theirs_in_a_browser() {
    let ours = Authority::new("ours");
    let mut appliance = mail::prepare("starttls", &ours, "");
    let mail = fs::read_to_string(appliance.home().join("conf.d/test.toml")).unwrap();
    let more = format!("{SETTINGS}[portal]\nsocket = {:?}\nuser = \"root\"\n", socket(&appliance));
    let cloud = Process::start("127.0.0.1", &[]);
    cloud.set(&people());
    fs::write(appliance.home().join("webex.secret"), format!("{SECRET}\n")).unwrap();
    appliance.configure(&(mail + &more + &of_webex(&cloud)));
    fs::write(appliance.home().join("conf.d/10-first.toml"), FIRST).unwrap();
    let server = MailServer::start(appliance.place.ip, "starttls", &ours);
    appliance.launch();
    let mut csv = "webex_email;first_extension;group;level;initial_password\n".to_owned();
    for (name, level, number) in PEOPLE {
        let number = Facts::incoming(number).local_number;
        csv += &format!("{name}@example.com;{number};Sales;{level};{FIRST_PASSWORD}\n");
    }
    let file = appliance.home().join("users.csv");
    fs::write(&file, csv).unwrap();
    let imported = appliance.ctl(&["users", "import", file.to_str().unwrap()]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    std::thread::scope(|scope| {
        for (number, nth) in PEOPLE.iter().flat_map(|(_, _, number)| [(*number, 1), (*number, 2)]) {
            let appliance = &appliance;
            scope.spawn(move || recorded(appliance, number, nth));
        }
    });
    // a live call of the administrator's
    let live = Facts::incoming(PEOPLE[0].2);
    let mut client = Client::udp(appliance.sip());
    client.call(&webex_offering(&live, &Offer::two(appliance.place.ip).text()));
    let portal = Portal::start(&appliance);
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("portal-shots");
    fs::create_dir_all(&shots).unwrap();
    let plan = json!({
        "url": portal.url(),
        "first_password": FIRST_PASSWORD,
        "shots": shots,
        "live": live.remote_number,
        "mail_to": MAIL_TO,
        "people": PEOPLE.map(|(name, level, number)| json!({
            "user": format!("{name}@example.com"), "level": level, "own": Facts::incoming(number).local_number,
            "remote": Facts::incoming(number * 10 + 1).remote_number,
        })),
    });
    let output = Command::new("node")
        .arg("tests/portal/browser.mjs")
        .arg(modules())
        .arg(plan.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("node cannot be run (Debian: nodejs, chromium)");
    client.bye();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let log = fs::read_to_string(appliance.home().join("portal.log")).unwrap();
    assert!(
        output.status.success(),
        "{said}\n{}\nthe portal's log:\n{log:.4000}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mails = server.wait_for_mails(1);
    assert!(mails.iter().all(|mail| mail.contains(&format!("To: {MAIL_TO}")) && mail.contains("Subject: Try: ")));
    assert_eq!(mails.len(), 1, "the button was pressed once");
    let written = fs::read_to_string(appliance.data().join("conf.d/50-portal.toml")).unwrap();
    assert!(written.contains("complexity = 7") && written.contains("rule = \"4-hours\""), "{written}");
    for (name, ..) in PEOPLE {
        assert!(!log.contains(name) && !appliance.log().contains(&format!("{name}@example")), "a name is in a log");
    }
}

/// How much the crowd's test has of something: the variable `CALLVAULT_PORTAL_…`, or what an ordinary run has.
fn many(name: &str, otherwise: usize) -> usize {
    let name = format!("CALLVAULT_PORTAL_{name}");
    std::env::var(&name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Calls of so many packets, all of them at once; what each track of them then says.
fn spoken(appliance: &Appliance, first: u32, count: usize, packets_each: usize, meanwhile: impl FnOnce()) {
    let voice = packets(&speech(3, 140.0, 8_000, packets_each * FRAME));
    let mut media = Vec::new();
    let mut calls = Vec::new();
    for number in (first..).take(count) {
        let facts = Facts::incoming(number);
        let mut client = Client::udp(appliance.sip());
        media.extend(client.call(&webex(&facts, appliance.sip())));
        calls.push((facts, client));
    }
    let talk = traffic(media, voice);
    meanwhile();
    assert_eq!(talk.wait(), packets_each as u64);
    // what was sent last has arrived
    std::thread::sleep(Duration::from_millis(200));
    for (facts, client) in calls {
        client.bye();
        let recording = appliance.archived(&facts.call_id);
        for track in recording["tracks"].as_array().unwrap() {
            let figures = ["packets", "lost", "gaps_ms"].map(|name| track[name].as_u64().unwrap());
            assert_eq!(figures, [packets_each as u64, 0, 0], "{recording:#}");
        }
    }
}

/// With `CALLVAULT_PORTAL_PEOPLE=100 CALLVAULT_PORTAL_CALLS=200 CALLVAULT_PORTAL_SECONDS=60` and release programs, the figures of the portal.
#[test]
fn a_crowd_that_searches_and_plays_costs_live_calls_no_packet() {
    let (people, calls, seconds) = (many("PEOPLE", 20), many("CALLS", 20), many("SECONDS", 10));
    let mut appliance = Appliance::prepare("");
    appliance.configure(&format!(
        "[media]\nports = \"16000-31999\"\n[limits]\nsessions_max = 4000\n[portal]\nsocket = {:?}\nuser = \"root\"\n",
        socket(&appliance)
    ));
    appliance.launch();
    spoken(&appliance, 1, 20, 400, || {});
    let portal = Portal::start(&appliance);
    let session = |n: usize| {
        let name = format!("person-{n}");
        let made = appliance.ctl(&["--json", "tokens", "create", "--name", &name, "--level", "administrator"]);
        let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
        made["token"].as_str().unwrap().to_owned()
    };
    let sessions: Vec<String> = (0..people).map(session).collect();
    let url = portal.url().replace("localhost", "127.0.0.1");
    let plan = json!({"url": url, "sessions": sessions, "seconds": seconds, "rest_ms": many("REST_MS", 4_000)});
    // the calls begin before the crowd and end after it
    spoken(&appliance, 1_000, calls, (seconds + 8) * 50, || {
        let output = Command::new("node").arg("tests/portal/crowd.mjs").arg(plan.to_string()).output();
        let output = output.expect("node cannot be run (Debian: nodejs)");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{people} people beside {calls} calls, {seconds} s: {said}");
        let figures: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|_| {
            panic!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
        });
        assert_eq!(figures["odd"], json!({}), "not everything was answered");
        for what in ["page", "search", "show", "sound"] {
            assert!(figures[what]["count"].as_u64().unwrap() >= people as u64, "{figures}");
        }
    });
}

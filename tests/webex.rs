//! Webex with the real programs: authorised at the terminal, killed while tokens are renewed, out of reach while calls are recorded; and
//! nothing secret anywhere.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rig::inspect::files_below;
use rig::mail::{MAIL_PORT, MailServer, PASSWORD, USER};
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::tls::Authority;
use rig::webex::{Process, SECRET, TOKENS};
use rig::{Appliance, http, wait_for, wait_until};
use serde_json::{Value, json};

/// An appliance that knows the stand-in, ready.
fn launched(webex: &Process, more: &str) -> Appliance {
    let mut appliance = Appliance::prepare("");
    appliance.configure(&settings(webex, more));
    fs::create_dir_all(appliance.home().join("files")).unwrap();
    fs::write(appliance.home().join("files/webex.secret"), format!("{SECRET}\n")).unwrap();
    appliance.launch();
    appliance
}

fn settings(webex: &Process, more: &str) -> String {
    let base = format!("http://127.0.0.1:{}/v1", webex.port);
    format!(
        "[webex]\nenabled = true\nurl = \"{base}\"\nrecords_url = \"{base}\"\nclient_id = \"C-integration\"\n\
         client_secret = \"files/webex.secret\"\nsync_at = \"\"\n{more}"
    )
}

fn people(count: usize) -> Value {
    let person = |n: usize| {
        json!({
            "id": format!("person-{n}"), "emails": [format!("webexuser{n}@example.com")], "firstName": "Given", "lastName": format!("Family{n}"),
            "type": "person", "locationId": "location-1", "phoneNumbers": [{"type": "work", "value": format!("+1408555{n:04}")}],
        })
    };
    json!({"people": (0..count).map(person).collect::<Vec<_>>(), "locations": [{"id": "location-1", "name": "Place"}]})
}

fn post(appliance: &Appliance, path: &str, body: &Value) -> http::Response {
    let (to, token) = (appliance.place.http(), appliance.token());
    http::ask_with(to, ("POST", path), Some(&token), &body.to_string()).unwrap()
}

fn authorise(appliance: &Appliance, webex: &Process) {
    let begun = post(appliance, "/v1/webex/authorisation", &json!({})).json();
    let answer = webex.agree(begun["url"].as_str().unwrap());
    let done = post(appliance, "/v1/webex/authorisation/answer", &json!({"answer": answer}));
    assert_eq!((done.status, &done.json()["state"]), (200, &json!("authorised")));
}

fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Where tokens, codes or the secret are, of all that an appliance writes and says.
fn leaks(appliance: &Appliance, more: &[String]) -> Vec<String> {
    let secrets = [SECRET, TOKENS];
    let holds = |bytes: &[u8]| secrets.iter().any(|secret| contains(bytes, secret.as_bytes()));
    let files = files_below(appliance.home()).into_iter().chain(files_below(appliance.runtime()));
    let files = files.filter(|path| !path.ends_with("files/webex.secret"));
    let mut found: Vec<String> = files
        .filter(|path| holds(&fs::read(path).unwrap_or_default()))
        .map(|path| path.display().to_string())
        .collect();
    for path in ["/health", "/metrics", "/v1/webex", "/v1/users/sync", "/v1/settings", "/v1/audit", "/v1/status"] {
        if holds(&appliance.ask("GET", path).body) {
            found.push(path.to_owned());
        }
    }
    found.extend(more.iter().filter(|text| holds(text.as_bytes())).cloned());
    found
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[test]
fn an_administrator_authorises_at_the_terminal_and_users_come() {
    let webex = Process::start("127.0.0.1", &[]);
    // A port that is free now: the command listens there for the browser.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let redirect = format!("http://localhost:{port}/callback");
    webex.set(&people(12));
    webex.set(&json!({"redirect_uri": redirect}));
    let appliance = launched(&webex, &format!("redirect_url = \"{redirect}\"\n"));
    let before = appliance.ctl(&["webex", "status"]);
    assert!(!before.status.success() && said(&before).contains("not-authorised"), "{}", said(&before));
    let early = appliance.ctl(&["users", "sync"]);
    assert!(said(&early).contains("callvaultctl webex authorise"), "{}", said(&early));

    let config = appliance.home().join("callvault.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_callvaultctl"));
    command.args([Path::new("--config"), &config]).args(["webex", "authorise"]).env_clear();
    let mut command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(command.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("http") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "no address was printed");
    }
    let answer = webex.agree(line.trim());
    let path = answer.split_once(&format!("localhost:{port}")).unwrap().1;
    let mut browser = wait_for("the command to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
    write!(browser, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (mut page, mut rest) = (String::new(), String::new());
    browser.read_to_string(&mut page).unwrap();
    assert!(page.contains("200 OK") && page.contains("close this window"), "{page}");
    output.read_to_string(&mut rest).unwrap();
    assert!(command.wait().unwrap().success() && rest.contains("Webex is authorised"), "{rest}");

    let dry = appliance.ctl(&["users", "sync", "--dry-run"]);
    assert!(dry.status.success() && said(&dry).contains("12 would be added"), "{}", said(&dry));
    let done = appliance.ctl(&["users", "sync"]);
    assert!(done.status.success() && said(&done).contains("12 were added"), "{}", said(&done));
    let listed = said(&appliance.ctl(&["users", "list"]));
    assert!(listed.contains("webexuser7@example.com") && listed.contains("+14085550007"), "{listed}");
    let status = appliance.ctl(&["webex", "status"]);
    assert!(status.status.success(), "{}", said(&status));
    // The stand-in has recording settings for nobody.
    let unmatched = said(&appliance.ctl(&["users", "unmatched"]));
    let told = ["webexuser7@example.com", "recording is off in Webex", "every call of the last seven days"];
    assert!(told.iter().all(|text| unmatched.contains(text)), "{unmatched}");
    webex.set(&people(1));
    let refused = appliance.ctl(&["users", "sync"]);
    assert!(
        !refused.status.success() && said(&refused).contains("11 of 12 users would be removed"),
        "{}",
        said(&refused)
    );
    let confirmed = appliance.ctl(&["users", "sync", "--confirm"]);
    assert!(confirmed.status.success() && said(&confirmed).contains("11 removed"), "{}", said(&confirmed));
    let history = said(&appliance.ctl(&["users", "sync", "--history"]));
    assert!(history.contains("refused") && history.lines().count() >= 5, "{history}");
    let told = [&before, &early, &dry, &done, &status, &refused, &confirmed].map(said);
    assert_eq!(leaks(&appliance, &told), Vec::<String>::new());
    let log = appliance.log();
    assert!(!log.contains("webexuser") && !log.contains("4085550"), "nobody is named in the log");
    assert!(!contains(&appliance.ask("GET", "/metrics").body, b"webexuser"));
}

#[test]
fn a_daemon_that_is_killed_while_it_renews_has_an_authorisation_that_webex_knows() {
    let webex = Process::start("127.0.0.1", &[]);
    webex.set(&people(3));
    // Tokens that are to be renewed as soon as they are looked at.
    webex.set(&json!({"token_s": 1}));
    let mut appliance = launched(&webex, "");
    authorise(&appliance, &webex);
    for round in 0..8_u64 {
        thread::sleep(Duration::from_millis(600));
        // Which has the token renewed first.
        post(&appliance, "/v1/users/sync", &json!({}));
        thread::sleep(Duration::from_millis(round * 4));
        appliance.kill();
        appliance.launch();
        assert_eq!(appliance.get("/v1/webex")["authorised"], true, "round {round}");
    }
    webex.set(&json!({"token_s": 1_209_599}));
    let renewed = webex.seen()["seen"]["/v1/access_token"].as_u64().unwrap();
    assert!(renewed >= 5, "tokens were renewed: {renewed}");
    let done = appliance.ctl(&["users", "sync"]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(leaks(&appliance, &[]), Vec::<String>::new());
}

/// At every write and sync of the catalogue, from the first that follows a token that Webex has given.
#[test]
fn a_daemon_that_is_killed_at_any_step_of_keeping_a_token_goes_on_with_one_that_webex_knows() {
    let (kills, deaths) = killed_at_every_step_of_keeping(true);
    println!("{kills} kills after a token was given, before it was used");
    assert!(kills >= 2 && deaths == 0, "{kills} {deaths}");
}

/// Where Webex forgets the token before with the first answer, as some services do: then the one that was on its way is lost, which is said.
#[test]
fn a_token_that_was_lost_on_its_way_is_told_and_repaired_with_all_users_in_place() {
    let (kills, deaths) = killed_at_every_step_of_keeping(false);
    println!("{kills} kills after a token was given, of which {deaths} lost it");
    assert!(deaths >= 1 && deaths <= kills, "{kills} {deaths}");
}

/// Kills after which Webex had given a token that was not used yet, and how often an administrator had to authorise again.
fn killed_at_every_step_of_keeping(grace: bool) -> (u64, u64) {
    let webex = Process::start("127.0.0.1", &[]);
    webex.set(&people(3));
    let mut appliance = launched(&webex, "");
    authorise(&appliance, &webex);
    assert!(appliance.ctl(&["users", "sync"]).status.success());
    // From here on tokens are to be renewed as soon as they are looked at, the first among them.
    webex.set(&json!({"token_s": 1, "grace": grace}));
    authorise(&appliance, &webex);
    let files = ["catalogue.db", "catalogue.db-wal"].map(|name| appliance.data().join(name));
    let given = || webex.seen()["seen"]["/v1/access_token"].as_u64().unwrap();
    let (mut kills_with_token, mut deaths) = (0, 0);
    for system_call in ["pwrite64", "fsync,fdatasync"] {
        for step in 1.. {
            // It is due again by then.
            thread::sleep(Duration::from_millis(600));
            let before = given();
            let tracer = appliance.kill_at("webex", (system_call, step), &files);
            let is_killed = wait_for("a kill, or a token that is kept", || {
                let is_used = appliance.ctl(&["users", "sync"]).status.success();
                // What is used is kept.
                appliance.is_killed().then_some(true).or((is_used && given() > before).then_some(false))
            });
            drop(tracer);
            if !is_killed {
                break;
            }
            kills_with_token += u64::from(given() > before);
            appliance.launch();
            deaths += u64::from(is_repaired(&appliance, &webex, &format!("{system_call} {step}")));
        }
    }
    assert_eq!(leaks(&appliance, &[]), Vec::<String>::new());
    (kills_with_token, deaths)
}

/// Whether an administrator has to authorise again, which is done then: users are there all the while, and synchronised afterwards.
fn is_repaired(appliance: &Appliance, webex: &Process, round: &str) -> bool {
    assert!(said(&appliance.ctl(&["users", "list"])).contains("webexuser2@example.com"), "{round}");
    let synchronised = appliance.ctl(&["users", "sync"]);
    if synchronised.status.success() {
        return false;
    }
    assert!(said(&synchronised).contains("authorise"), "{round}: {}", said(&synchronised));
    authorise(appliance, webex);
    let again = appliance.ctl(&["users", "sync"]);
    assert!(again.status.success(), "{round}: {}", said(&again));
    true
}

/// At every write and sync of the catalogue while what came back from an administrator is made a token: it is authorised afterwards, or says
/// that it is not, and the next attempt succeeds.
#[test]
fn a_daemon_that_is_killed_while_it_is_authorised_is_authorised_or_says_that_it_is_not() {
    let webex = Process::start("127.0.0.1", &[]);
    webex.set(&people(3));
    let mut appliance = launched(&webex, "");
    authorise(&appliance, &webex);
    assert!(appliance.ctl(&["users", "sync"]).status.success());
    let files = ["catalogue.db", "catalogue.db-wal"].map(|name| appliance.data().join(name));
    let (mut lost, mut kept) = (0, 0);
    for system_call in ["pwrite64", "fsync,fdatasync"] {
        for step in 1.. {
            // What it had is worth nothing, so that only the new authorisation can be what works.
            webex.set(&json!({"revoke": "all"}));
            let tracer = appliance.kill_at("", (system_call, step), &files);
            let is_killed = wait_for("a kill, or an authorisation", || {
                let is_authorised = is_authorised(&appliance, &webex);
                appliance.is_killed().then_some(true).or(is_authorised.then_some(false))
            });
            drop(tracer);
            if !is_killed {
                break;
            }
            appliance.launch();
            match is_repaired(&appliance, &webex, &format!("{system_call} {step}")) {
                true => lost += 1,
                false => kept += 1,
            }
        }
    }
    println!("{lost} kills before the authorisation was kept, {kept} after");
    assert!(lost >= 2, "{lost} {kept}");
    assert_eq!(leaks(&appliance, &[]), Vec::<String>::new());
}

/// Authorises a daemon that may die on the way.
fn is_authorised(appliance: &Appliance, webex: &Process) -> bool {
    let (to, token) = (appliance.place.http(), appliance.token());
    let post = |path: &str, body: &Value| {
        let answer = http::ask_with(to, ("POST", path), Some(&token), &body.to_string()).ok()?;
        (answer.status == 200).then(|| answer.json())
    };
    let Some(begun) = post("/v1/webex/authorisation", &json!({})) else { return false };
    let answer = webex.agree(begun["url"].as_str().unwrap());
    post("/v1/webex/authorisation/answer", &json!({"answer": answer})).is_some()
}

/// What a daemon holds in memory of its own, in KiB.
fn anonymous_kib(process: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn five_thousand_users_are_synchronised_day_after_day_in_the_same_memory() {
    // Memory in pieces and what sled keeps for reuse settle within some days, by up to 4.7 MiB (80 days are within 3 of the tenth). One copy
    // of the users that stayed each day would be 30 MiB.
    const GROWTH_KIB_MAX: i64 = 8_192;
    let webex = Process::start("127.0.0.1", &[]);
    webex.set(&people(5_000));
    let appliance = launched(&webex, "");
    let daemon = appliance.daemon();
    let empty = anonymous_kib(daemon);
    authorise(&appliance, &webex);
    let after_days = |days: usize| {
        for _ in 0..days {
            let done = appliance.ctl(&["users", "sync"]);
            assert!(done.status.success(), "{}", said(&done));
        }
        anonymous_kib(daemon)
    };
    // The first days fill what is kept for reuse.
    let (early, late) = (after_days(5), after_days(15));
    println!("{empty} KiB without users, {early} after 5 synchronisations of 5,000, {late} after 20");
    assert!(late - early <= GROWTH_KIB_MAX, "{early} {late}");
    assert!(said(&appliance.ctl(&["users", "list"])).lines().count() > 5_000);
}

/// The appliance's mail server, with what it needs to trust it.
fn mail(appliance: &Appliance, ours: &Authority) -> String {
    fs::write(appliance.home().join("mail-ca.pem"), ours.pem()).unwrap();
    fs::write(appliance.home().join("mail.password"), format!("{PASSWORD}\n")).unwrap();
    format!(
        "[mail]\nserver = \"{}\"\nport = {MAIL_PORT}\ntls = \"starttls\"\nca = \"mail-ca.pem\"\nuser = \"{USER}\"\n\
         password_file = \"mail.password\"\nfrom = \"callvault@example.org\"\n",
        appliance.place.ip
    )
}

/// Also when the mail server is away at first.
#[test]
fn a_death_that_could_not_be_told_is_told_later() {
    let (webex_service, ours) = (Process::start("127.0.0.1", &[]), Authority::new("ours"));
    webex_service.set(&people(3));
    let mut appliance = launched(&webex_service, "");
    appliance.stop();
    appliance.configure(&format!("{}{}", settings(&webex_service, ""), mail(&appliance, &ours)));
    appliance.launch();
    authorise(&appliance, &webex_service);
    assert!(appliance.ctl(&["users", "sync"]).status.success());
    assert!(appliance.ctl(&["users", "set", "webexuser1@example.com", "level=administrator"]).status.success());
    webex_service.set(&json!({"revoke": "all"}));
    assert!(!appliance.ctl(&["users", "sync"]).status.success());
    wait_until("nobody could be told", || appliance.log().contains("an administrator is not told by mail"));
    appliance.kill();
    let server = MailServer::start(appliance.place.ip, "starttls", &ours);
    appliance.launch();
    assert!(!appliance.ctl(&["users", "sync"]).status.success());
    let mails = server.wait_for_mails(1);
    assert!(mails[0].contains("Webex has to be authorised again"), "{mails:?}");
}

/// Also when there is no mail server at all, nor anybody to tell.
#[test]
fn a_death_of_which_there_was_nobody_to_tell_is_told_when_there_is() {
    let (webex_service, ours) = (Process::start("127.0.0.1", &[]), Authority::new("ours"));
    webex_service.set(&people(3));
    let mut appliance = launched(&webex_service, "");
    authorise(&appliance, &webex_service);
    assert!(appliance.ctl(&["users", "sync"]).status.success());
    webex_service.set(&json!({"revoke": "all"}));
    assert!(!appliance.ctl(&["users", "sync"]).status.success());
    appliance.stop();
    let server = MailServer::start(appliance.place.ip, "starttls", &ours);
    appliance.configure(&format!("{}{}", settings(&webex_service, ""), mail(&appliance, &ours)));
    appliance.launch();
    assert!(!appliance.ctl(&["users", "sync"]).status.success());
    assert!(appliance.ctl(&["users", "set", "webexuser1@example.com", "level=administrator"]).status.success());
    // What is asked for wakes who looks.
    assert!(!appliance.ctl(&["users", "sync"]).status.success());
    let mails = server.wait_for_mails(1);
    assert!(mails[0].contains("Webex has to be authorised again"), "{mails:?}");
}

#[test]
fn a_dead_authorisation_is_told_to_administrators_and_calls_are_recorded_meanwhile() {
    let (webex_service, ours) = (Process::start("127.0.0.1", &[]), Authority::new("ours"));
    webex_service.set(&people(3));
    let mut appliance = launched(&webex_service, "");
    let server = MailServer::start(appliance.place.ip, "starttls", &ours);
    appliance.stop();
    appliance.configure(&format!("{}{}", settings(&webex_service, ""), mail(&appliance, &ours)));
    appliance.launch();
    authorise(&appliance, &webex_service);
    assert!(appliance.ctl(&["users", "sync"]).status.success());
    let local = Facts::incoming(43_001).local_number;
    let alias = format!("extension_alias={local}");
    let set = appliance.ctl(&["users", "set", "webexuser1@example.com", "level=administrator", &alias]);
    assert!(set.status.success(), "{}", said(&set));
    webex_service.set(&json!({"revoke": "all"}));
    let failed = appliance.ctl(&["users", "sync"]);
    assert!(!failed.status.success(), "{}", said(&failed));
    let mails = server.wait_for_mails(1);
    let mail = mails[0].replace("=\r\n", "");
    assert!(mail.contains("To: webexuser1@example.com") && mail.contains("Webex has to be authorised again"), "{mail}");
    assert!(mail.contains("callvaultctl webex authorise") && !mail.contains(TOKENS), "{mail}");
    let health = appliance.get("/health")["components"]["webex"].clone();
    assert_eq!(health["status"], "degraded", "{health}");
    // Who is started again finds the same death, and has told of it.
    appliance.stop();
    appliance.launch();
    assert!(!appliance.ctl(&["users", "sync"]).status.success());
    wait_until("it is known again", || {
        appliance.get("/health")["components"]["webex"]["reason"]
            .as_str()
            .is_some_and(|text| text.contains("withdrawn"))
    });
    drop(webex_service);

    let facts = Facts::incoming(43_001);
    let voices = [1, 2].map(|n| packets(&speech(n, 140.0, 8_000, 60 * FRAME)));
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    client.bye();
    let recording = appliance.archived(&facts.call_id);
    assert_eq!((&recording["verdict"], &recording["owner"]), (&json!("ok"), &json!("webexuser1@example.com")));
    wait_until("nothing is left to do", || appliance.jobs_left().is_empty());
    assert_eq!(server.mails().len(), 1, "administrators are told once");
}

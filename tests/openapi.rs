//! Every endpoint is asked, and what it answers is what the OpenAPI document says: whole answers, errors among them, with no field that is
//! not in it.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rig::http::{self, Response};
use rig::offer::Offer;
use rig::shapes::{Facts, webex_offering};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::speaker::Speaker;
use rig::{Appliance, wait_for, wait_until};
use serde_json::{Value, json};

/// What cannot be done here: there is no mail server, no provider and no Webex, and retention asks nothing of an appliance that is some seconds
/// old. Other tests have these; here the refusals are looked at.
const REFUSED: [(&str, &str, u16, &str); 9] = [
    ("POST", "/v1/mail/test?address=ann@example.com", 422, ""),
    ("POST", "/v1/retention/confirm", 409, r#"{"token": "5f0c"}"#),
    ("POST", "/v1/webex/authorisation", 409, ""),
    ("POST", "/v1/webex/authorisation/answer", 409, r#"{"answer": "code"}"#),
    ("POST", "/v1/webex/authorisation/service-app", 409, r#"{"answer": "code"}"#),
    ("POST", "/v1/users/sync", 409, ""),
    ("GET", "/v1/completeness", 409, ""),
    ("POST", "/v1/sign-in/begin", 403, ""),
    ("POST", "/v1/sign-in/finish", 403, r#"{"attempt": "a", "state": "s", "code": "c"}"#),
];

const NOBODY: &str = "01900000-0000-7000-8000-000000000001";

/// A PNG of one pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// A schema that says of the fields of an object which there are takes no others.
fn close(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        if fields.get("properties").is_some_and(Value::is_object) && !fields.contains_key("additionalProperties") {
            fields.insert("additionalProperties".to_owned(), json!(false));
        }
        fields.values_mut().for_each(close);
    } else if let Some(items) = schema.as_array_mut() {
        items.iter_mut().for_each(close);
    }
}

struct Walk {
    appliance: Appliance,
    document: Value,
    /// Which statuses each operation has answered.
    seen: BTreeMap<String, BTreeSet<u16>>,
}

impl Walk {
    fn new(appliance: Appliance) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let mut document: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        close(&mut document["components"]["schemas"]);
        Self { appliance, document, seen: BTreeMap::new() }
    }

    fn operations(&self) -> Vec<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, described)| {
            let methods = described.as_object().unwrap().keys().filter(|name| *name != "parameters");
            methods.map(move |method| (method.to_uppercase(), path.clone()))
        });
        operations.collect()
    }

    /// Holds an answer against the document.
    fn check(&mut self, method: &str, template: &str, response: &Response) {
        let name = format!("{method} {template}");
        let described = &self.document["paths"][template][method.to_lowercase()]["responses"];
        let status = response.status.to_string();
        let said = String::from_utf8_lossy(&response.body);
        let found = described.get(&status).or_else(|| described.get("default").filter(|_| response.status >= 400));
        let found = found.unwrap_or_else(|| panic!("{name}: {status} is not described: {said}"));
        if let Some(content) = found["content"].get("application/json") {
            let mut schema = content["schema"].clone();
            close(&mut schema);
            schema["components"] = self.document["components"].clone();
            let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
            let answer = response.json();
            let wrong: Vec<String> =
                validator.iter_errors(&answer).map(|error| format!("{}: {error}", error.instance_path())).collect();
            assert!(wrong.is_empty(), "{name} {status}: {wrong:#?}\n{said}");
        }
        self.seen.entry(name).or_default().insert(response.status);
    }

    /// Asks with these parts of the path, a query and a body.
    fn ask(&mut self, method: &str, template: &str, parts: &[&str], query: &str, body: &str) -> Response {
        let path = filled(template, parts) + query;
        let to = self.appliance.place.http();
        let response = http::ask_with(to, (method, &path), Some(&self.appliance.token()), body).unwrap();
        self.check(method, template, &response);
        response
    }

    /// [`Walk::ask`]; it is done.
    fn done(&mut self, method: &str, template: &str, parts: &[&str], body: &str) -> Value {
        let response = self.ask(method, template, parts, "", body);
        assert_eq!(response.status, 200, "{method} {template}: {}", String::from_utf8_lossy(&response.body));
        response.json()
    }

    fn get(&mut self, template: &str, parts: &[&str]) -> Value {
        self.done("GET", template, parts, "")
    }

    /// Asks at the portal's socket.
    fn at_portal(&mut self, method: &str, template: &str, parts: &[&str], token: Option<&str>, body: &str) -> Value {
        let stream = UnixStream::connect(self.appliance.runtime().join("portal")).unwrap();
        let response = http::ask_over(stream, (method, &filled(template, parts)), token, body).unwrap();
        self.check(method, template, &response);
        response.json()
    }
}

/// A path with its parts in the places of `{…}`.
fn filled(template: &str, parts: &[&str]) -> String {
    let mut parts = parts.iter();
    let fill = |part: &str| if part.starts_with('{') { (*parts.next().unwrap()).to_owned() } else { part.to_owned() };
    template.split('/').map(fill).collect::<Vec<_>>().join("/")
}

/// A live call that has said something.
fn call(appliance: &Appliance, number: u32) -> (Client, Speaker, Facts, String) {
    let facts = Facts::incoming(number);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &Offer::two(appliance.place.ip).text()));
    let speaker = Speaker::start(&media);
    let voice = packets(&speech(u64::from(number), 120.0, 8_000, 55 * FRAME));
    speaker.say_all(&[&voice, &voice]);
    let id = wait_for("the call in the list", || {
        let calls = appliance.get("/v1/calls")["calls"].as_array().unwrap().clone();
        let ours = calls.into_iter().find(|call| call["local_number"] == facts.local_number.as_str());
        ours.map(|call| call["id"].as_str().unwrap().to_owned())
    });
    (client, speaker, facts, id)
}

fn end((client, speaker, ..): (Client, Speaker, Facts, String)) {
    drop(speaker);
    client.bye();
}

/// A recording whose archive could not be made at first.
fn jobs(walk: &mut Walk) -> String {
    rig::appliance::keep_from_archiving(&walk.appliance);
    let live = call(&walk.appliance, 72_000);
    let id = live.3.clone();
    let job = format!("archive:{id}");
    end(live);
    wait_until("the job that waits", || {
        let jobs = walk.appliance.get("/v1/jobs")["jobs"].as_array().unwrap().clone();
        jobs.iter().any(|one| one["id"] == job.as_str() && one["last_error"].is_string())
    });
    walk.get("/v1/jobs", &[]);
    rig::appliance::let_archive(&walk.appliance);
    walk.done("POST", "/v1/jobs/{id}/retry", &[&job], "");
    walk.appliance.archived_by_id(&id);
    id
}

fn live_calls(walk: &mut Walk) {
    let control = "/v1/calls/{id}/{action}";
    let live = call(&walk.appliance, 72_001);
    walk.get("/v1/calls", &[]);
    for action in ["keep", "pause", "resume", "stop", "start"] {
        walk.done("POST", control, &[&live.3, action], "");
    }
    walk.done("POST", control, &[&live.3, "stop"], "");
    assert_eq!(walk.ask("POST", control, &[&live.3, "pause"], "", "").status, 409);
    end(live);
    // Kept by nobody.
    end(call(&walk.appliance, 72_002));
    wait_until("the call that was not kept", || {
        !walk.appliance.get("/v1/discards")["discards"].as_array().unwrap().is_empty()
    });
    walk.get("/v1/discards", &[]);
}

/// What people do with a recording, which is gone afterwards.
fn recordings(walk: &mut Walk, id: &str) {
    let one = "/v1/recordings/{id}";
    let (audio, deliver) = (format!("{one}/audio"), format!("{one}/deliveries/{{sink}}"));
    walk.get("/v1/recordings", &[]);
    for format in ["wav", "opus", "mp3"] {
        let response = walk.ask("GET", &audio, &[id], &format!("?format={format}"), "");
        assert!(response.status == 200 && response.body.len() > 100, "{format}: {}", response.status);
    }
    wait_until("the waveform, which is made with the archive", || {
        !walk.appliance.get(&format!("/v1/recordings/{id}/waveform"))["channels"].is_null()
    });
    assert_eq!(walk.get(&format!("{one}/waveform"), &[id])["channels"][0].as_array().unwrap().len(), 600);
    walk.done("PUT", &format!("{one}/preserve"), &[id], "");
    walk.done("DELETE", &format!("{one}/preserve"), &[id], "");
    let noted = walk.done("POST", &format!("{one}/notes"), &[id], r#"{"text": "wants a quotation", "at_ms": 10}"#);
    let note = noted["notes"][0]["id"].as_str().unwrap().to_owned();
    walk.done("PATCH", &format!("{one}/notes/{{note}}"), &[id, &note], r#"{"text": "has it"}"#);
    walk.done("PUT", &format!("{one}/tags/{{tag}}"), &[id, "complaint"], "");
    walk.done("PUT", &format!("{one}/preserve"), &[id], "");
    let shown = walk.get(one, &[id]);
    assert_eq!((&shown["notes"][0]["text"], &shown["tags"]), (&json!("has it"), &json!(["complaint"])));
    walk.done("DELETE", &format!("{one}/tags/{{tag}}"), &[id, "complaint"], "");
    walk.done("DELETE", &format!("{one}/notes/{{note}}"), &[id, &note], "");
    walk.done("POST", &deliver, &[id, "export_folder"], "");
    wait_until("the recording is delivered", || {
        let all = walk.appliance.get(&format!("/v1/recordings/{id}/deliveries"));
        all["deliveries"][0]["step"] == "delivered"
    });
    walk.get(&format!("{one}/deliveries"), &[id]);
    assert_eq!(walk.ask("POST", &deliver, &[id, "export_folder"], "", "").status, 409);
    assert_eq!(walk.ask("POST", &deliver, &[id, "webhook"], "", "").status, 422);
    walk.get(&format!("{one}/verify"), &[id]);
    walk.get("/v1/verify", &[]);
    walk.done("DELETE", one, &[id], "");
    assert_eq!(walk.ask("GET", one, &[id], "", "").status, 410);
}

/// A recording that was made elsewhere.
fn imports(walk: &mut Walk) {
    let wanted = json!({"started_at": "2026-03-01T09:00:00Z", "rate_hz": 8_000, "channels": 1, "local_number": "7201"});
    let begun = walk.done("POST", "/v1/imports", &[], &wanted.to_string());
    let id = begun["id"].as_str().unwrap().to_owned();
    let (audio, finish) = ("/v1/imports/{id}/audio", "/v1/imports/{id}/finish");
    let piece = json!({"at_samples": 0, "pcm": "AAAB".repeat(4_000)}).to_string();
    assert_eq!(walk.done("POST", audio, &[&id], &piece)["samples"], 6_000);
    assert_eq!(walk.ask("POST", audio, &[&id], "", &piece).status, 409);
    assert_eq!(walk.done("POST", finish, &[&id], r#"{"samples": 6000}"#)["duration_ms"], 750);
    walk.appliance.archived_by_id(&id);
    assert_eq!(walk.ask("POST", finish, &[&id], "", r#"{"samples": 6000}"#).status, 404);
    let other = walk.done("POST", "/v1/imports", &[], &wanted.to_string())["id"].as_str().unwrap().to_owned();
    walk.done("DELETE", "/v1/imports/{id}", &[&other], "");
}

fn users(walk: &mut Walk) {
    let (one, picture) = ("/v1/users/{email}", "/v1/users/{email}/picture");
    let file = json!({"name": "users.csv", "content": "webex_email;group\nbob@example.com;Sales\n"});
    walk.done("POST", "/v1/users/import", &[], &file.to_string());
    let fields = r#"{"group": "Sales", "initial_password": "a first password"}"#;
    walk.done("PUT", one, &["ann@example.com"], fields);
    walk.get(one, &["ann@example.com"]);
    walk.get("/v1/users", &[]);
    walk.done("PUT", picture, &["ann@example.com"], &json!({"base64": PNG}).to_string());
    walk.get(picture, &["ann@example.com"]);
    walk.done("DELETE", picture, &["ann@example.com"], "");
    assert_eq!(walk.ask("GET", picture, &["ann@example.com"], "", "").status, 404);
    walk.done("DELETE", one, &["bob@example.com"], "");
}

fn sessions(walk: &mut Walk) {
    assert_eq!(walk.at_portal("GET", "/v1/sign-in", &[], None, ""), json!({"provider": null}));
    let first = json!({"user": "ann@example.com", "password": "a first password"});
    assert_eq!(walk.at_portal("POST", "/v1/sign-in", &[], None, &first.to_string()), json!({"change": true}));
    let changing =
        json!({"user": "ann@example.com", "password": "a first password", "new_password": "battery staple 9"});
    let session = walk.at_portal("POST", "/v1/sign-in", &[], None, &changing.to_string());
    let session = session["session"].as_str().unwrap().to_owned();
    let again = json!({"user": "ann@example.com", "password": "battery staple 9"});
    walk.at_portal("POST", "/v1/sign-in", &[], None, &again.to_string());
    let all = walk.at_portal("GET", "/v1/sessions", &[], Some(&session), "");
    let all = all["sessions"].as_array().unwrap().clone();
    let other = all.iter().find(|one| one["current"] == false).unwrap()["id"].as_str().unwrap().to_owned();
    walk.at_portal("DELETE", "/v1/sessions/{id}", &[&other], Some(&session), "");
    walk.at_portal("GET", "/v1/me", &[], Some(&session), "");
    let refused = walk.at_portal("GET", "/v1/tokens", &[], Some(&session), "");
    assert_eq!(refused["error"]["code"], "forbidden");
    walk.at_portal("POST", "/v1/sign-out", &[], Some(&session), "");
    let wrong = json!({"user": "ann@example.com", "password": "wrong"});
    let refused = walk.at_portal("POST", "/v1/sign-in", &[], None, &wrong.to_string());
    assert_eq!(refused["error"]["code"], "unauthorized");
}

fn access(walk: &mut Walk) {
    walk.get("/v1/me", &[]);
    let wanted = json!({"name": "exports", "level": "base", "user": "ann@example.com", "expires_days": 90});
    let token = walk.done("POST", "/v1/tokens", &[], &wanted.to_string());
    walk.get("/v1/tokens", &[]);
    walk.done("DELETE", "/v1/tokens/{id}", &[token["id"].as_str().unwrap()], "");
    walk.get("/v1/audit", &[]);
    walk.get("/v1/audit/verify", &[]);
}

/// Settings, planned, refused, confirmed and changed.
fn settings(walk: &mut Walk) {
    let path = "/v1/settings";
    let version = walk.get(path, &[])["version"].clone();
    let body = |changes: Value, dry_run: bool| json!({"version": version, "changes": changes, "dry_run": dry_run});
    let shorter = json!({"retention.preserved": "1 years", "mail.language": "it"});
    let planned = walk.done("PUT", path, &[], &body(shorter.clone(), true).to_string());
    assert!(planned["retention"].is_object() && planned["risks"][0]["key"] == "retention.preserved", "{planned:#}");
    let planned = walk.done("PUT", path, &[], &body(json!({"mail.port": -1}), true).to_string());
    assert_eq!(planned["mistakes"][0]["key"], "mail.port");
    let (wrong, meant) = (body(json!({"mail.port": -1}), false), body(shorter, false));
    assert_eq!(walk.ask("PUT", path, &[], "", &wrong.to_string()).status, 422);
    assert_eq!(walk.ask("PUT", path, &[], "", &meant.to_string()).status, 409);
    let mut confirmed = meant;
    confirmed["confirm"] = json!("retention.preserved");
    walk.done("PUT", path, &[], &confirmed.to_string());
    walk.get(path, &[]);
}

fn appliance_itself(walk: &mut Walk) {
    for path in [
        "/v1/status",
        "/v1/keys",
        "/v1/settings",
        "/v1/capacity",
        "/v1/store",
        "/v1/retention",
        "/v1/openapi.json",
        "/v1/webex",
        "/v1/users/sync",
        "/v1/users/unmatched",
    ] {
        walk.get(path, &[]);
    }
    for path in ["/health", "/ready"] {
        walk.get(path, &[]);
    }
    assert_eq!(walk.ask("GET", "/metrics", &[], "", "").status, 200);
    for (method, path) in
        [("POST", "/v1/drain"), ("DELETE", "/v1/drain"), ("POST", "/v1/keys/rotate"), ("POST", "/v1/retention/run")]
    {
        walk.done(method, path, &[], "");
    }
    walk.done("POST", "/v1/recording/stop", &[], r#"{"reason": "moving house"}"#);
    wait_until("/ready says so", || walk.ask("GET", "/ready", &[], "", "").status == 503);
    walk.done("POST", "/v1/recording/start", &[], "");
    for (method, target, status, body) in REFUSED {
        let (path, query) =
            target.split_once('?').map_or((target, String::new()), |(path, query)| (path, format!("?{query}")));
        let response = walk.ask(method, path, &[], &query, body);
        assert_eq!(response.status, status, "{method} {target}: {}", String::from_utf8_lossy(&response.body));
    }
    settings(walk);
    let to = walk.appliance.home().join("other-store");
    let wanted = |dry_run: bool| json!({"to": to, "rate_bytes_per_s": 1_000_000, "dry_run": dry_run}).to_string();
    let planned = walk.done("POST", "/v1/store/migrate", &[], &wanted(true));
    assert!(planned["plan"].is_object());
    walk.done("POST", "/v1/store/migrate", &[], &wanted(false));
}

/// Every endpoint refuses whoever has no token, and what is wrong; what names something that there is not is told so.
fn errors(walk: &mut Walk) {
    let to = walk.appliance.place.http();
    for (method, template) in walk.operations().into_iter().filter(|(_, path)| path.starts_with("/v1/")) {
        let parts: Vec<&str> = match template.as_str() {
            "/v1/calls/{id}/{action}" => vec![NOBODY, "pause"],
            "/v1/jobs/{id}/retry" => vec!["archive:01900000-0000-7000-8000-000000000001"],
            "/v1/users/sync/{id}" => vec![NOBODY],
            _ if template.starts_with("/v1/users/") => vec!["nobody@example.com"],
            _ => vec![NOBODY, NOBODY],
        };
        let path = filled(&template, &parts);
        let response = http::ask_with(to, (&method, &path), None, "").unwrap();
        assert_eq!(response.status, 401, "{method} {path}");
        walk.check(&method, &template, &response);
        let response = walk.ask(&method, &template, &parts, "?zz=1", "");
        assert_eq!(response.status, 400, "{method} {path}");
        if template.contains('{') && (method == "GET" || method == "DELETE") {
            let query = if template.ends_with("/audio") { "?format=wav" } else { "" };
            let response = walk.ask(&method, &template, &parts, query, "");
            assert_eq!(response.status, 404, "{method} {path}: {}", String::from_utf8_lossy(&response.body));
        }
    }
}

#[test]
fn every_endpoint_answers_as_the_document_says() {
    let waits = "[archive]\ncodec = \"as-received\"\n[queue]\nbackoff_min = \"1h\"\nbackoff_max = \"1d\"\n";
    let mut walk = Walk::new(Appliance::start(waits));
    let id = jobs(&mut walk);
    // What is switched on now owes nothing of what was recorded before.
    let appliance = &mut walk.appliance;
    appliance.stop();
    let (exports, portal) = (appliance.home().join("exports"), appliance.runtime().join("portal"));
    fs::create_dir(&exports).unwrap();
    appliance.configure(&format!(
        "{waits}[recording]\nmode = \"on-demand\"\n[retention]\nrule = \"12-months\"\n\
         [portal]\nsocket = {portal:?}\nuser = \"root\"\n[export_folder]\nenabled = true\npath = {exports:?}\n"
    ));
    appliance.launch();
    live_calls(&mut walk);
    recordings(&mut walk, &id);
    users(&mut walk);
    imports(&mut walk);
    sessions(&mut walk);
    access(&mut walk);
    errors(&mut walk);

    appliance_itself(&mut walk);

    let written = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json")).unwrap();
    assert!(walk.appliance.ask("GET", "/v1/openapi.json").body == written.as_bytes(), "another document is served");
    let unseen: Vec<String> = (walk.operations().into_iter())
        .map(|(method, path)| format!("{method} {path}"))
        .filter(|name| {
            !REFUSED
                .iter()
                .any(|(method, target, ..)| *name == format!("{method} {}", target.split('?').next().unwrap()))
        })
        // Reports are of synchronisations, which want Webex: tests/webex.rs.
        .filter(|name| name != "GET /v1/users/sync/{id}")
        .filter(|name| !walk.seen.get(name).is_some_and(|statuses| statuses.contains(&200)))
        .collect();
    assert!(unseen.is_empty(), "never answered with what was asked: {unseen:#?}");
}

//! The stand-in for Webex, started for a test; what it is told and what it saw.

#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use callvault_webex::Grant;
use callvault_webex_client::{Access, Client, ClientSettings, Fault, Outside, SecretFile, WebSettings};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

pub const SCOPES: &str = "spark-admin:people_read spark-admin:locations_read spark-admin:organizations_read spark-admin:telephony_config_read spark-admin:calling_cdr_read";
pub const SECRET: &str = "the-integration-secret";

pub struct StandIn {
    child: Child,
    address: String,
    pub port: u16,
    pub place: TempDir,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl StandIn {
    pub fn start() -> Self {
        Self::at("127.0.0.1", &[])
    }

    pub fn at(address: &str, tls: &[PathBuf]) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/rig/webex.py");
        let mut command = Command::new("python3");
        command.arg(program).arg(address).args(tls).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let place = TempDir::new().unwrap();
        std::fs::write(place.path().join("secret"), SECRET).unwrap();
        Self { child, address: address.to_owned(), port: port.trim().parse().unwrap(), place }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect((self.address.as_str(), self.port)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn set(&self, told: &Value) {
        assert!(self.ask("POST", "/_set", &told.to_string()).starts_with("HTTP/1.1 200"));
    }

    pub fn seen(&self) -> Value {
        let answer = self.ask("GET", "/_seen", "");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Requests whose path ends so.
    pub fn requests(&self, ending: &str) -> u64 {
        let seen = self.seen();
        let paths = seen["seen"].as_object().unwrap();
        paths.iter().filter(|(path, _)| path.ends_with(ending)).filter_map(|(_, count)| count.as_u64()).sum()
    }

    /// What a browser does with the address: where it is sent to.
    pub fn agree(&self, url: &str) -> String {
        let path = url.split_once("/v1/").unwrap().1;
        let answer = self.ask("GET", &format!("/v1/{path}"), "");
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: "));
        location.unwrap_or_else(|| panic!("no redirect: {answer}")).to_owned()
    }

    pub fn settings(&self) -> ClientSettings {
        let base = format!("http://127.0.0.1:{}/v1", self.port);
        ClientSettings {
            url: base.clone(),
            records_url: base,
            client_id: "C-integration".to_owned(),
            client_secret: SecretFile { key: "webex.client_secret", path: Some(self.place.path().join("secret")) },
            redirect_url: "http://localhost:8990/callback".to_owned(),
            scopes: SCOPES.to_owned(),
            organisations: Vec::new(),
            wants_native: true,
            web: WebSettings {
                section: "webex",
                proxy: None,
                proxy_credentials: None,
                ca: None,
                connect_within: Duration::from_secs(5),
                silent_max: Duration::from_secs(10),
                total_max: Duration::from_secs(30),
                keeps_connection: true,
            },
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.settings()).unwrap()
    }

    /// Authorised, as an administrator does it.
    pub fn authorised(&self, around: &Around) -> Access {
        let access = Access::default();
        self.authorise(&access, around).unwrap();
        access
    }

    pub fn authorise(&self, access: &Access, around: &Around) -> Result<(), Fault> {
        let url = callvault_webex_client::authorise_url(&self.settings(), "state-1");
        let code = callvault_webex_client::code_in(&self.agree(&url), "state-1")?;
        around.with(|outside| self.client().authorise(access, &code, outside))
    }
}

/// A clock that tests set, pauses that take no time, and a device.
#[derive(Default)]
pub struct Around {
    pub ahead_s: AtomicI64,
    pub paused_ms: AtomicU64,
    pub kept: Mutex<Vec<Grant>>,
    pub full: std::sync::atomic::AtomicBool,
}

impl Around {
    pub fn now(&self) -> Timestamp {
        Timestamp::now() + jiff::SignedDuration::from_secs(self.ahead_s.load(Ordering::Relaxed))
    }

    pub fn later(&self, s: i64) {
        self.ahead_s.fetch_add(s, Ordering::Relaxed);
    }

    pub fn with<T>(&self, run: impl FnOnce(&Outside<'_>) -> T) -> T {
        run(&Outside {
            now: &|| self.now(),
            pause: &|ms| {
                self.paused_ms.fetch_add(ms, Ordering::Relaxed);
                true
            },
            stopping: &|| false,
            keep: &|grant| {
                if self.full.load(Ordering::Relaxed) {
                    return Err("keep the authorisation: the disk is full".to_owned());
                }
                self.kept.lock().unwrap().push(grant.clone());
                Ok(())
            },
        })
    }
}

/// So many people, every tenth without Webex Calling.
pub fn people(count: usize) -> Value {
    let person = |n: usize| {
        let mut person = json!({
            "id": format!("person-{n:05}"), "emails": [format!("user{n}@example.com")], "displayName": format!("User {n}"),
            "firstName": "User", "lastName": format!("Number{n}"), "orgId": "org-1", "type": "person", "status": "active",
            "phoneNumbers": [{"type": "work", "value": format!("+1 408 555 {n:05}"), "primary": true}],
            "lastModified": "2026-01-01T00:00:00.000Z", "loginEnabled": "true", "invitePending": "false",
        });
        if !n.is_multiple_of(10) {
            person["locationId"] = json!(format!("location-{}", n % 3));
            person["extension"] = json!(format!("{}", 10_000 + n));
        }
        person
    };
    (0..count).map(person).collect()
}

pub fn locations() -> Value {
    (0..3).map(|n| json!({"id": format!("location-{n}"), "name": format!("Place {n}"), "orgId": "org-1"})).collect()
}

pub fn native(count: usize) -> Value {
    let one = |n: usize| (format!("person-{n:05}"), json!(format!("u{n:05}@1.int10.bcld.webex.com")));
    Value::Object((0..count).filter(|n| !n.is_multiple_of(10)).map(one).collect())
}

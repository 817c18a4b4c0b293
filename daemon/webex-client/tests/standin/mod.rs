//! The stand-in for Webex, started for a test; what it is told and what it saw.

#![allow(dead_code, unreachable_pub)]

#[path = "../../../../tests/rig/webex.rs"]
mod process;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use callvault_webex::Grant;
use callvault_webex_client::{Access, Client, ClientSettings, Fault, Outside, SecretFile, WebSettings};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use process::Process;
pub use process::SECRET;

pub const SCOPES: &str = "spark-admin:people_read spark-admin:workspaces_read spark-admin:locations_read spark-admin:organizations_read spark-admin:telephony_config_read spark-admin:calling_cdr_read";

pub struct StandIn {
    process: Process,
    pub port: u16,
    pub place: TempDir,
}

impl StandIn {
    pub fn start() -> Self {
        Self::at("127.0.0.1", &[])
    }

    pub fn at(address: &str, tls: &[PathBuf]) -> Self {
        let (process, place) = (Process::start(address, tls), TempDir::new().unwrap());
        std::fs::write(place.path().join("secret"), SECRET).unwrap();
        Self { port: process.port, process, place }
    }

    pub fn set(&self, told: &Value) {
        self.process.set(told);
    }

    pub fn seen(&self) -> Value {
        self.process.seen()
    }

    pub fn agree(&self, url: &str) -> String {
        self.process.agree(url)
    }

    /// Requests whose path ends so.
    pub fn requests(&self, ending: &str) -> u64 {
        let seen = self.seen();
        let paths = seen["seen"].as_object().unwrap();
        paths.iter().filter(|(path, _)| path.ends_with(ending)).filter_map(|(_, count)| count.as_u64()).sum()
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
            workspaces: false,
            virtual_lines: false,
            wants_recording: true,
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

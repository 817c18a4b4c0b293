//! What may be wrong with a machine, and all doors at which somebody meets it: check, setup, doctor and the start of the daemon. Each
//! says it in one sentence, with the file or address that it is about and with what to do.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs::{self, Permissions};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rig::place::MEDIA_PORT;
use rig::tls::{Authority, EXPIRED, GOOD, NAME};
use rig::{Appliance, wait_for, wait_until};

/// What becomes of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// It is refused.
    Refused,
    /// Calls are recorded as far as they can be, and the log says it.
    GoesOn,
}

/// Who everybody is who has no rights.
const NOBODY: u32 = 65_534;

/// A machine with something wrong, as the case makes it.
struct Case {
    appliance: Appliance,
    /// What starts the programs as somebody else; empty where nobody does.
    lead: &'static [&'static str],
    /// What the case holds on to, such as a port.
    _held: Vec<Box<dyn std::any::Any>>,
}

impl From<Appliance> for Case {
    fn from(appliance: Appliance) -> Self {
        Self { appliance, lead: &[], _held: Vec::new() }
    }
}

/// What of this text is one sentence with all of these words.
fn says(text: &str, words: &[&str]) -> bool {
    text.lines().any(|line| words.iter().all(|word| line.contains(word)))
}

impl Case {
    /// A program of the machine's, to its end.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let words = [self.lead, &[program]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--config").arg(self.appliance.home().join("callvault.toml")).args(arguments);
        command.env_clear().env("TZ", "UTC").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command.output().unwrap()
    }

    fn spawn(&mut self) {
        if self.lead.is_empty() {
            self.appliance.spawn();
        } else {
            self.appliance.spawn_by(self.lead);
        }
    }
}

/// Every door says it.
fn check(name: &str, case: impl Into<Case>, start: Start, words: &[&str]) {
    let mut case = case.into();
    for arguments in [&["config", "check"][..], &["setup", "--dry-run"], &["doctor"]] {
        let output = case.run(env!("CARGO_BIN_EXE_callvaultctl"), arguments);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(says(&said, words), "{name}: {arguments:?} has no line with {words:?}: {said}");
        assert_eq!(output.status.code(), Some(1), "{name}: {arguments:?}: {said}");
    }
    if start == Start::Refused {
        let output = case.run(env!("CARGO_BIN_EXE_callvaultd"), &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(says(&said, words), "{name}: the start has no line with {words:?}: {said}");
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        return;
    }
    case.spawn();
    let mut appliance = case.appliance;
    wait_until(&format!("{name}: the log has a line with {words:?}"), || says(&appliance.log(), words));
    wait_until(&format!("{name}: it serves"), || {
        rig::http::ask(appliance.place.http(), "GET", "/health", None).is_ok()
    });
    appliance.stop();
}

/// A prepared machine, changed.
fn machine(settings: &str, change: impl FnOnce(&Path)) -> Appliance {
    let appliance = Appliance::prepare(settings);
    change(appliance.home());
    appliance
}

/// One with SIP over TLS, whose files are changed.
fn with_tls(until: i32, more: &str, change: impl FnOnce(&Path)) -> Appliance {
    let appliance = rig::tls::prepare("", &Authority::new("ours").sign(until), None);
    let path = appliance.home().join("conf.d/tls.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap() + more).unwrap();
    change(appliance.home());
    appliance
}

/// One that has run, and has a key and a catalogue.
fn used(settings: &str, change: impl FnOnce(&Path)) -> Appliance {
    let mut appliance = Appliance::start(settings);
    appliance.stop();
    change(appliance.home());
    appliance
}

fn remove(path: impl AsRef<Path>) {
    fs::remove_file(path).unwrap();
}

#[test]
fn certificates() {
    let there = "it must be there and readable";
    check("missing", with_tls(GOOD, "", |home| remove(home.join("chain.pem"))), Start::GoesOn, &["chain.pem", there]);
    let garbage = |home: &Path| fs::write(home.join("chain.pem"), "garbage").unwrap();
    check("garbage", with_tls(GOOD, "", garbage), Start::GoesOn, &["chain.pem", "must hold certificates in PEM"]);
    check(
        "expired",
        with_tls(EXPIRED, "", |_| {}),
        Start::GoesOn,
        &["expired on 2021", "Replace", "chain.pem", "sip.tls_certificate"],
    );
    let other = "tls_name = \"other.example\"\n";
    check(
        "another name",
        with_tls(GOOD, other, |_| {}),
        Start::GoesOn,
        &["other.example", "Have one made", "chain.pem"],
    );
    check("key missing", with_tls(GOOD, "", |home| remove(home.join("key.pem"))), Start::GoesOn, &["key.pem", there]);
    let foreign = |home: &Path| fs::write(home.join("key.pem"), Authority::new("x").sign(GOOD).key).unwrap();
    check(
        "another key",
        with_tls(GOOD, "", foreign),
        Start::GoesOn,
        &["key.pem", "chain.pem", "replace both together"],
    );
    let right = with_tls(GOOD, &format!("tls_name = \"{NAME}\"\n"), |_| {});
    assert_eq!(right.ctl(&["config", "check"]).status.code(), Some(0));
}

#[test]
fn private_keys() {
    let key = |home: &Path| home.join("data/keys/appliance.key");
    check("lost", used("", |home| remove(key(home))), Start::Refused, &["data/keys", "restore it from your backup"]);
    let damaged = |home: &Path| fs::write(key(home), "callvault-private-1:x").unwrap();
    check("damaged", used("", damaged), Start::Refused, &["appliance.key", "restore it from your backup"]);
    let open = |home: &Path| fs::set_permissions(key(home), Permissions::from_mode(0o644)).unwrap();
    check("open", used("", open), Start::GoesOn, &["appliance.key", "chmod 600"]);
}

#[test]
fn folders_shares_and_disks() {
    let a_file = |home: &Path| fs::write(home.join("data"), "").unwrap();
    check("data is a file", machine("", a_file), Start::Refused, &["/data", "data_dir", "name another one"]);
    let away = |home: &Path| {
        fs::rename(home.join("data/store"), home.join("away")).unwrap();
        fs::create_dir(home.join("data/store")).unwrap();
    };
    let mut archived = Appliance::start("");
    wait_for("the store is made", || archived.data().join("store.identity").exists().then_some(()));
    archived.stop();
    away(archived.home());
    check("share not mounted", archived, Start::GoesOn, &["data/store", "is the share mounted?"]);
    let file = |home: &Path| fs::write(home.join("share"), "").unwrap();
    check(
        "share is a file",
        machine("[store]\npath = \"share\"\n", file),
        Start::GoesOn,
        &["/share", "is not a folder"],
    );
    let full = "[journal]\nspool_free_min = \"1TiB\"\n";
    check("disk full", machine(full, |_| {}), Start::GoesOn, &["data/journal", "make room"]);
}

#[test]
fn addresses_and_ports() {
    let appliance = Appliance::prepare("");
    let sip = appliance.sip();
    let held: Vec<Box<dyn std::any::Any>> = vec![Box::new(UdpSocket::bind(sip).unwrap())];
    check(
        "SIP",
        Case { appliance, lead: &[], _held: held },
        Start::Refused,
        &[&sip.to_string(), "is another program using the port"],
    );
    let appliance = Appliance::prepare("");
    let http = appliance.place.http();
    let held: Vec<Box<dyn std::any::Any>> = vec![Box::new(TcpListener::bind(http).unwrap())];
    check("control", Case { appliance, lead: &[], _held: held }, Start::Refused, &[&http.to_string(), "ss -l"]);
    let range = format!("[media]\nports = \"{}-{}\"\n", MEDIA_PORT, MEDIA_PORT + 1);
    let appliance = Appliance::prepare(&range);
    let held: Vec<Box<dyn std::any::Any>> = vec![Box::new(UdpSocket::bind((appliance.place.ip, MEDIA_PORT)).unwrap())];
    check(
        "media",
        Case { appliance, lead: &[], _held: held },
        Start::Refused,
        &[&MEDIA_PORT.to_string(), "choose another range"],
    );
    let foreign = "[sip]\nudp = \"192.0.2.1:5060\"\n";
    check("not ours", Appliance::prepare(foreign), Start::Refused, &["192.0.2.1:5060", "one of this machine's"]);
}

/// The machine as somebody meets it who has no rights, with these of its files and folders being theirs.
fn as_nobody(appliance: Appliance, theirs: &[&str]) -> Option<Case> {
    let is_root = nix::unistd::geteuid().is_root();
    let lead: &[&str] =
        if is_root { &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] } else { &[] };
    let home = appliance.home().to_owned();
    if is_root {
        fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
        for path in theirs.iter().map(|name| home.join(name)).chain([appliance.runtime().to_owned(), home.join("tmp")])
        {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let case = Case { appliance, lead, _held: Vec::new() };
    // Where the programs were built may be closed to others.
    let is_open = case.run(env!("CARGO_BIN_EXE_callvaultctl"), &["config", "sample"]).status.success();
    if !is_open {
        eprintln!("SKIPPED: others than root cannot start the programs where they were built");
    }
    is_open.then_some(case)
}

#[test]
fn permissions() {
    let closed = |path: std::path::PathBuf| fs::set_permissions(path, Permissions::from_mode(0o0)).unwrap();
    let check = |name: &str, case: Option<Case>, start, words: &[&str]| {
        if let Some(case) = case {
            check(name, case, start, words);
        }
    };
    let data = machine("", |home| {
        fs::create_dir(home.join("data")).unwrap();
        fs::set_permissions(home.join("data"), Permissions::from_mode(0o500)).unwrap();
    });
    check("data", as_nobody(data, &[]), Start::Refused, &["/data", "the user that callvaultd runs as"]);
    let key = machine("", |home| {
        fs::create_dir_all(home.join("data/keys")).unwrap();
        fs::write(home.join("data/keys/appliance.key"), "").unwrap();
        closed(home.join("data/keys/appliance.key"));
    });
    let words = ["appliance.key", "must be readable by the user that callvaultd runs as"];
    check("private key", as_nobody(key, &["data", "data/keys"]), Start::Refused, &words);
    let tls = with_tls(GOOD, "", |home| {
        fs::create_dir(home.join("data")).unwrap();
        closed(home.join("key.pem"));
    });
    let words = ["key.pem", "readable by the user that callvaultd runs as"];
    check("key of TLS", as_nobody(tls, &["data"]), Start::GoesOn, &words);
    let store = machine("[store]\npath = \"share\"\n", |home| {
        for folder in ["data", "share"] {
            fs::create_dir(home.join(folder)).unwrap();
        }
        fs::set_permissions(home.join("share"), Permissions::from_mode(0o500)).unwrap();
    });
    let words = ["/share", "give the"];
    check("share", as_nobody(store, &["data"]), Start::GoesOn, &words);
}

//! `callvaultctl setup` against real parts, with flags and on a terminal; and the table of what may be wrong with a machine, each of
//! which all doors (check, setup, doctor, the start of the daemon) say in one sentence with what to do.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use rexpect::session::{PtySession, spawn_command};
use rig::Appliance;
use rig::mail::{MAIL_PORT, MailServer, PASSWORD, USER};
use rig::tls::{Authority, GOOD, NAME};
use serde_json::Value;

/// How long the terminal may take to show what is waited for: a look at a mail server is part of it.
const SHOWN_WITHIN_MS: u64 = 120_000;

/// The file that setup writes.
fn written(appliance: &Appliance) -> PathBuf {
    appliance.home().join("conf.d/10-setup.toml")
}

/// Everything in the configuration's folder and in `conf.d`, but for what the rig has put there.
fn files(appliance: &Appliance) -> Vec<String> {
    let names = |folder: PathBuf| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let mut all = [names(appliance.home().to_owned()), names(appliance.home().join("conf.d"))].concat();
    all.retain(|name| !["callvault.toml", "conf.d", "tmp", "test.toml"].contains(&name.as_str()));
    all.sort();
    all
}

/// What setup says with these flags, as JSON, and its exit status.
fn set_up(appliance: &Appliance, flags: &[&str]) -> (i32, Value) {
    let output = appliance.ctl(&[&["setup", "--json"], flags].concat());
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap(), said)
}

/// A machine with certificates in its folder, and nothing configured of them.
fn with_certificate(until: i32) -> Appliance {
    let appliance = Appliance::prepare("");
    Authority::new("ours").sign(until).install(appliance.home());
    appliance
}

fn at(appliance: &Appliance, name: &str) -> String {
    appliance.home().join(name).to_str().unwrap().to_owned()
}

#[test]
fn what_the_flags_say_is_checked_written_and_used() {
    let authority = Authority::new("mail");
    let mut appliance = with_certificate(GOOD);
    let _server = MailServer::start(appliance.place.ip, "starttls", &authority);
    fs::write(appliance.home().join("ca.pem"), authority.pem()).unwrap();
    fs::write(appliance.home().join("word"), PASSWORD).unwrap();
    let [chain, key, ca, word, store] =
        ["chain.pem", "key.pem", "ca.pem", "word", "kept"].map(|name| at(&appliance, name));
    let (tls, ip, port) = (appliance.place.tls().to_string(), appliance.place.ip.to_string(), MAIL_PORT.to_string());
    let address = ["--tls", &tls, "--certificate", &chain, "--key", &key, "--name", NAME, "--store", &store];
    let rest = ["--retention", "custom", "--retention-period", "90 days", "--time-zone", "Europe/Rome"];
    let mail = ["--mail-server", &ip, "--mail-port", &port, "--mail-ca", &ca, "--mail-user", USER];
    let more = ["--mail-password-file", &word, "--mail-from", "callvault@example.org"];
    let flags = [&address[..], &rest, &mail, &more].concat();

    let before = files(&appliance);
    let (status, said) = set_up(&appliance, &[&flags[..], &["--dry-run"]].concat());
    assert_eq!((status, &said["written"]), (0, &Value::Null), "{said:#}");
    assert!(said["difference"].as_str().unwrap().contains("+time_zone = \"Europe/Rome\""), "{said:#}");
    assert_eq!(files(&appliance), before, "a dry run writes nothing");

    let (status, said) = set_up(&appliance, &[&flags[..], &["--yes"]].concat());
    assert_eq!((status, said["written"].as_str()), (0, written(&appliance).to_str()), "{said:#}");
    let text = fs::read_to_string(written(&appliance)).unwrap();
    assert!(!text.contains(PASSWORD) && !said.to_string().contains(PASSWORD), "{text}");
    for line in ["tls_name = \"recorder.example\"", "period = \"90 days\"", "[mail]"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(said["next"].to_string().contains("systemctl enable --now callvaultd"), "{said:#}");

    // The same again changes nothing; what somebody wrote there stays, and the file before is kept.
    let (status, said) = set_up(&appliance, &[&flags[..], &["--yes"]].concat());
    assert_eq!((status, &said["difference"], &said["written"]), (0, &Value::from(""), &Value::Null));
    fs::write(written(&appliance), format!("# mine\n{text}")).unwrap();
    let (status, said) = set_up(&appliance, &["--time-zone", "Europe/Berlin", "--yes"]);
    assert_eq!(status, 0, "{said:#}");
    let text = fs::read_to_string(written(&appliance)).unwrap();
    assert!(text.starts_with("# mine\n") && text.contains("Europe/Berlin") && text.contains("90 days"), "{text}");
    let old = fs::read_to_string(said["kept"].as_str().unwrap()).unwrap();
    assert!(old.starts_with("# mine\n") && old.contains("Europe/Rome"), "{old}");

    appliance.launch();
    let (status, said) = set_up(&appliance, &["--time-zone", "Europe/Rome", "--yes"]);
    assert_eq!(status, 0, "{said:#}");
    assert!(!said["next"].to_string().contains("enable --now"), "it runs: {said:#}");
    // It has its own ports; those that it would need are looked at.
    let holder = UdpSocket::bind((appliance.place.ip, 0)).unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let (status, said) = set_up(&appliance, &["--udp", &format!("{}, {taken}", appliance.sip()), "--dry-run"]);
    let findings = said["findings"].to_string();
    assert!(status == 1 && findings.contains(&taken) && findings.contains("another program"), "{said:#}");
    assert!(!findings.contains(&appliance.sip().to_string()), "{said:#}");
    drop(holder);
    let (status, said) = set_up(&appliance, &["--udp", &format!("{}, {taken}", appliance.sip()), "--dry-run"]);
    assert_eq!(status, 0, "{said:#}");
}

#[test]
fn what_is_wrong_with_an_answer_is_said_and_nothing_is_written() {
    let authority = Authority::new("mail");
    let appliance = with_certificate(GOOD);
    let _server = MailServer::start(appliance.place.ip, "starttls", &authority);
    fs::write(appliance.home().join("ca.pem"), authority.pem()).unwrap();
    fs::write(appliance.home().join("word"), "wrong").unwrap();
    let (tls, ip) = (appliance.place.tls().to_string(), appliance.place.ip.to_string());
    let holder = UdpSocket::bind((appliance.place.ip, 0)).unwrap();
    let taken = holder.local_addr().unwrap();
    let [chain, key, ca, word] = ["chain.pem", "key.pem", "ca.pem", "word"].map(|name| at(&appliance, name));
    let mail = ["--mail-server", &ip, "--mail-from", "a@example.org", "--mail-ca", &ca, "--mail-port"];
    let port = MAIL_PORT.to_string();
    let before = files(&appliance);
    let check = |flags: &[&str], words: &[&str]| {
        let (status, said) = set_up(&appliance, &[flags, &["--yes"]].concat());
        let is_it = |finding: &Value| {
            let text = finding["text"].as_str().unwrap();
            finding["state"] == "problem" && words.iter().all(|word| text.contains(word))
        };
        assert!(said["findings"].as_array().unwrap().iter().any(is_it), "{words:?}: {said:#}");
        assert_eq!((status, &said["written"]), (1, &Value::Null), "{said:#}");
        assert_eq!(files(&appliance), before);
    };
    check(&["--udp", "nonsense"], &["sip.udp"]);
    check(&["--udp", &taken.to_string()], &[&taken.to_string(), "another program"]);
    check(&["--media-ports", "30-20"], &["media.ports"]);
    check(&["--tls", &tls], &["sip.tls"]);
    check(&["--tls", &tls, "--certificate", &chain, "--key", &ca], &["ca.pem", "passphrase"]);
    check(
        &["--tls", &tls, "--certificate", &chain, "--key", &key, "--name", "x.example"],
        &["x.example", "made for that name"],
    );
    check(&["--store", &chain], &["chain.pem", "is not a folder"]);
    check(&["--store", &at(&appliance, "kept"), "--share"], &["kept", "on no share", "/etc/fstab"]);
    check(&["--retention", "custom", "--retention-period", "soon"], &["retention.period", "90 days"]);
    check(&["--time-zone", "Europe/Atlantis"], &["organisation.time_zone", "Atlantis"]);
    check(&[&mail[..], &["15026"]].concat(), &[&ip, "connect"]);
    check(&[&mail[..], &[&port, "--mail-user", USER, "--mail-password-file", &word]].concat(), &[&ip, "mails wait"]);

    // What is not there yet may be written all the same, and is still said.
    let (status, said) = set_up(&appliance, &["--udp", &taken.to_string(), "--yes", "--anyway"]);
    assert_eq!((status, said["written"].is_null()), (1, false), "{said:#}");
}

#[test]
fn what_a_later_file_sets_is_not_set_in_vain() {
    let appliance = Appliance::prepare("[organisation]\ntime_zone = \"UTC\"\n");
    let output = appliance.ctl(&["setup", "--time-zone", "Europe/Rome", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in ["organisation.time_zone", "conf.d/test.toml:2", "take it away there"] {
        assert!(said.contains(word), "{said}");
    }
    assert!(files(&appliance).is_empty());
    // Without a terminal somebody has to say that nothing is to be asked.
    assert_eq!(appliance.ctl(&["setup"]).status.code(), Some(2));
}

/// Setup on a terminal of its own.
fn on_a_terminal(appliance: &Appliance, flags: &[&str]) -> PtySession {
    // The shell gives the terminal a size first, as one that a person looks at has.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "stty rows 50 cols 200; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_callvaultctl")]);
    command.arg("--config").arg(appliance.home().join("callvault.toml")).arg("setup").args(flags);
    command.env_clear().env("TERM", "xterm-256color").env("TZ", "UTC").env("PATH", "/usr/bin:/bin");
    spawn_command(command, Some(SHOWN_WITHIN_MS)).unwrap()
}

/// Waits for the question and answers it.
fn answer(terminal: &mut PtySession, question: &str, text: &str) {
    shown(terminal, question);
    terminal.send(&format!("{text}\r")).unwrap();
    terminal.flush().unwrap();
}

fn shown(terminal: &mut PtySession, text: &str) {
    terminal.exp_string(text).unwrap_or_else(|error| panic!("{text}: {error}"));
}

/// The questions before that for the time zone, where nothing is encrypted.
const FIRST: [&str; 8] = [
    "SIP over UDP",
    "SIP over TCP",
    "that may call",
    "audio is sent to",
    "ports for audio",
    "SIP over TLS",
    "Folder for archives",
    "recordings stay",
];

#[test]
fn on_a_terminal_a_wrong_answer_is_said_and_asked_again() {
    let authority = Authority::new("mail");
    let appliance = Appliance::prepare("");
    let _server = MailServer::start(appliance.place.ip, "starttls", &authority);
    fs::write(appliance.home().join("ca.pem"), authority.pem()).unwrap();
    let mut terminal = on_a_terminal(&appliance, &[]);
    for question in FIRST {
        answer(&mut terminal, question, "");
    }
    answer(&mut terminal, "Time zone of", "Europe/Atlantis");
    shown(&mut terminal, "no time zone that this machine knows");
    answer(&mut terminal, "Answer again?", "");
    answer(&mut terminal, "Time zone of", "Europe/Rome");
    answer(&mut terminal, "Mail server", &appliance.place.ip.to_string());
    answer(&mut terminal, "is protected", "");
    answer(&mut terminal, "Its port", &MAIL_PORT.to_string());
    answer(&mut terminal, "authorities", &at(&appliance, "ca.pem"));
    answer(&mut terminal, "mails come from", "callvault@example.org");
    answer(&mut terminal, "sign in with", USER);
    answer(&mut terminal, "Password", "wrong");
    shown(&mut terminal, "mails wait until it works");
    answer(&mut terminal, "Answer again?", "");
    for question in ["Mail server", "is protected", "Its port", "authorities", "mails come from", "sign in with"] {
        answer(&mut terminal, question, "");
    }
    answer(&mut terminal, "Password", PASSWORD);
    shown(&mut terminal, "+time_zone = \"Europe/Rome\"");
    assert_eq!(files(&appliance), ["ca.pem"], "until it is confirmed nothing is on a disk");
    answer(&mut terminal, "Write it?", "");
    shown(&mut terminal, "written:");
    let rest = terminal.exp_eof().unwrap();
    assert!(rest.contains("systemctl enable --now callvaultd"), "{rest}");

    let password = appliance.home().join("mail.password");
    assert_eq!(fs::read_to_string(&password).unwrap().trim(), PASSWORD);
    assert_eq!(fs::metadata(&password).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(written(&appliance)).unwrap();
    assert!(text.contains("mail.password") && !text.contains(PASSWORD), "{text}");
    let (status, said) = set_up(&appliance, &["--dry-run"]);
    assert_eq!((status, &said["difference"]), (0, &Value::from("")), "{said:#}");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let check = |lead: fn(&mut PtySession)| {
        let appliance = Appliance::prepare("");
        let mut terminal = on_a_terminal(&appliance, &["--time-zone", "Europe/Rome"]);
        lead(&mut terminal);
        terminal.send_control('c').unwrap();
        let said = terminal.exp_eof().unwrap();
        assert!(said.contains("nothing was written"), "{said}");
        assert!(files(&appliance).is_empty(), "{:?}", files(&appliance));
    };
    check(|terminal| shown(terminal, "SIP over UDP"));
    check(|terminal| {
        for question in FIRST {
            answer(terminal, question, "");
        }
        answer(terminal, "Mail server", "");
        shown(terminal, "Write it?");
    });
}

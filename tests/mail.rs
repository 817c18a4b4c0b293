//! Mail against a real mail server, and settings that change while the appliance runs, with the real programs.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::process::Output;

use nix::sys::signal::Signal;
use rig::mail::{ANN, MailServer, PASSWORD, assert_holds_the_call, call, configure, import_user, prepare};
use rig::tls::Authority;
use rig::{Appliance, process, wait_for, wait_until};
use serde_json::Value;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `callvaultctl mail test` says.
fn try_mail(appliance: &Appliance) -> Output {
    appliance.ctl(&["mail", "test", ANN, "--language", "it"])
}

fn setting(appliance: &Appliance, key: &str) -> Value {
    let output = appliance.ctl(&["settings", "show", key, "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["settings"][0].clone()
}

fn component(appliance: &Appliance, name: &str) -> Value {
    appliance.get("/health")["components"][name].clone()
}

fn message_id(mail: &str) -> &str {
    mail.lines().find(|line| line.starts_with("Message-ID:")).unwrap()
}

#[test]
fn the_owner_of_a_call_gets_it_by_mail() {
    let ours = Authority::new("ours");
    let mut appliance = prepare("starttls", &ours, "");
    let server = MailServer::start(appliance.place.ip, "starttls", &ours);
    appliance.launch();
    import_user(&appliance, 42_001);
    let (facts, said) = call(&appliance, 42_001);
    let mails = server.wait_for_mails(1);
    let mail = &mails[0];
    let flat = mail.replace("=\r\n", "");
    for part in ["To: Ann Lee <ann@example.com>", "Content-Language: fr", "Bonjour Ann Lee,", &facts.remote_number] {
        assert!(flat.contains(part) || flat.replace('"', "").contains(part), "no {part} in\n{flat:.3000}");
    }
    assert_holds_the_call(mail, &said);
    let recording = appliance.archived(&facts.call_id);
    assert!(mail.contains(recording["id"].as_str().unwrap()));
    wait_until("nothing is left to do", || appliance.jobs_left().is_empty());
    assert_eq!(server.mails().len(), 1);
    assert!(!appliance.log().contains(ANN));
}

/// Whatever moment the daemon is killed at: the mail comes, and when it comes twice it is the same.
#[test]
fn a_daemon_that_is_killed_in_the_middle_sends_the_mail() {
    let ours = Authority::new("ours");
    let mut appliance = prepare("starttls", &ours, "timeout = \"1m\"");
    let server = MailServer::start(appliance.place.ip, "starttls", &ours);
    server.set("stall");
    appliance.launch();
    import_user(&appliance, 42_002);
    call(&appliance, 42_002);
    server.wait_stalled();
    appliance.kill();
    server.set("");
    appliance.launch();
    let mails = server.wait_for_mails(1);
    wait_until("nothing is left to do", || appliance.jobs_left().is_empty());
    assert!(appliance.log().contains("under way when something ended"));
    // Once more, now that its answer is on record: nothing is sent.
    appliance.kill();
    appliance.launch();
    wait_until("nothing is left to do", || appliance.jobs_left().is_empty());
    assert_eq!(server.mails().len(), mails.len());

    // A server that takes the mail and says nothing gets it again, and both are the same.
    server.set("cut");
    call(&appliance, 42_002);
    server.wait_for_mails(2);
    server.set("");
    wait_until("nothing is left to do", || appliance.jobs_left().is_empty());
    let mails = server.mails();
    assert!(mails.len() >= 3, "{} mails", mails.len());
    assert!(mails[1..].iter().all(|mail| message_id(mail) == message_id(&mails[1])));
    assert_ne!(message_id(&mails[0]), message_id(&mails[1]));
}

#[test]
fn a_mail_arrives_over_each_protection() {
    for protection in ["starttls", "tls", "none"] {
        let ours = Authority::new("ours");
        let mut appliance = prepare(protection, &ours, "");
        let server = MailServer::start(appliance.place.ip, protection, &ours);
        appliance.launch();
        let output = try_mail(&appliance);
        assert!(output.status.success(), "{protection}: {}", text(&output.stderr));
        let said = text(&output.stdout);
        assert_eq!(said.contains("(encrypted)"), protection != "none", "{said}");
        let mails = server.wait_for_mails(1);
        let mail = &mails[0];
        let expected = [
            "To: ann@example.com",
            "Subject: Prova: Registrata: ",
            "Auto-Submitted: auto-generated",
            "Content-Language: it",
        ];
        for part in expected {
            assert!(mail.contains(part), "no {part} in\n{mail}");
        }
        assert_eq!(component(&appliance, "mail")["status"], "ok");
        for hidden in [PASSWORD, ANN] {
            assert!(!appliance.log().contains(hidden), "{hidden} is in the log");
        }
    }
}

#[test]
fn what_is_wrong_with_the_server_is_said_and_nothing_is_sent_unprotected() {
    fn check(offered: &str, wanted: &str, theirs: bool, password: &str, expected: &str) {
        let (ours, other) = (Authority::new("ours"), Authority::new("other"));
        let mut appliance = prepare(wanted, &ours, "timeout = \"2s\"");
        fs::write(appliance.home().join("mail.password"), password).unwrap();
        let server = MailServer::start(appliance.place.ip, offered, if theirs { &other } else { &ours });
        appliance.launch();
        let output = try_mail(&appliance);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{expected}: {}", text(&output.stdout));
        assert!(said.contains(expected), "no {expected:?} in {said}");
        assert!(!said.contains(PASSWORD) && server.mails().is_empty());
    }
    check("starttls", "starttls", true, PASSWORD, "UnknownIssuer");
    check("tls", "tls", true, PASSWORD, "UnknownIssuer");
    check("none", "starttls", false, PASSWORD, "does not offer STARTTLS");
    check("starttls", "starttls", false, "wrong", "see mail.user and the password");
    check("starttls", "none", false, PASSWORD, "sign in");
    check("starttls", "starttls", false, "", "its first line is empty");
    check("starttls", "tls", false, PASSWORD, "connect");
}

#[test]
fn a_server_that_stalls_or_refuses_is_told_as_it_is() {
    let ours = Authority::new("ours");
    let mut appliance = prepare("starttls", &ours, "timeout = \"1s\"");
    let server = MailServer::start(appliance.place.ip, "starttls", &ours);
    appliance.launch();
    for (fault, expected) in [
        ("later", "450 4.2.0"),
        ("refused", "550 5.1.1 <ann@example.com>: no such user"),
        ("stall", "whether the server took the mail is not known"),
        ("cut", "whether the server took the mail is not known"),
    ] {
        server.set(fault);
        let said = text(&try_mail(&appliance).stderr);
        assert!(said.contains(expected), "{fault}: {said}");
    }
    server.set("");
    assert!(try_mail(&appliance).status.success());
}

#[test]
fn settings_change_while_it_runs_as_a_whole_or_not_at_all() {
    let ours = Authority::new("ours");
    let mut appliance = prepare("none", &ours, "sender_name = \"First\"");
    let server = MailServer::start(appliance.place.ip, "none", &ours);
    appliance.launch();
    let daemon = appliance.daemon();
    assert_eq!(setting(&appliance, "mail.sender_name")["value"], "\"First\"");
    assert_eq!(setting(&appliance, "mail.port")["takes_effect"], "at once");

    configure(&appliance, "none", "sender_name = \"Second\"\n[limits]\nsessions_max = 7");
    process::send(daemon, Signal::SIGHUP);
    wait_until("the change is in force", || setting(&appliance, "mail.sender_name")["value"] == "\"Second\"");
    let origin = setting(&appliance, "mail.sender_name")["origin"].as_str().unwrap().to_owned();
    assert!(origin.ends_with("conf.d/test.toml:12"), "{origin}");
    let sessions = setting(&appliance, "limits.sessions_max");
    assert_eq!((&sessions["value"], &sessions["waiting"]["value"]), (&Value::from("100"), &Value::from("7")));
    assert!(try_mail(&appliance).status.success());
    assert!(server.wait_for_mails(1)[0].contains("From: Second <callvault@example.org>"));

    // One mistake, and nothing of the change is used.
    configure(&appliance, "none", "sender_name = \"Third\"\nattachment_max = \"1KiB\"");
    process::send(daemon, Signal::SIGHUP);
    let bad = wait_for("health says what is wrong", || {
        Some(component(&appliance, "configuration")).filter(|component| component["status"] == "degraded")
    });
    let reason = bad["reason"].as_str().unwrap();
    assert!(reason.contains("test.toml:13") && reason.contains("mail.attachment_max"), "{reason}");
    // The command cannot read such a configuration either, and says so; the daemon has the one before.
    assert!(text(&appliance.ctl(&["settings", "show"]).stderr).contains("mail.attachment_max"));
    let answer = appliance.get("/v1/settings");
    let in_force = answer["settings"].as_array().unwrap().iter().find(|entry| entry["key"] == "mail.sender_name");
    assert_eq!(in_force.unwrap()["value"], "\"Second\"");
    assert!(answer["refused"].as_str().unwrap().contains("the one before stays in force"), "{answer}");

    configure(&appliance, "none", "sender_name = \"Fourth\"");
    process::send(daemon, Signal::SIGHUP);
    wait_until("the change is in force", || setting(&appliance, "mail.sender_name")["value"] == "\"Fourth\"");
    wait_until("health is well again", || component(&appliance, "configuration")["status"] == "ok");
    assert_eq!(setting(&appliance, "limits.sessions_max")["waiting"], Value::Null);
    let unknown = appliance.ctl(&["settings", "show", "mail.colour"]);
    assert!(text(&unknown.stderr).contains("no such key"), "{}", text(&unknown.stderr));
}

#[test]
fn templates_of_the_administrators_are_used_and_bad_ones_are_told() {
    let ours = Authority::new("ours");
    let mut appliance = prepare("none", &ours, "templates = \"templates\"");
    let folder = appliance.home().join("templates");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("recording.it.subject"), "Una chiamata con {{ call.with }}\n").unwrap();
    let server = MailServer::start(appliance.place.ip, "none", &ours);
    appliance.launch();
    assert!(try_mail(&appliance).status.success());
    let mails = server.wait_for_mails(1);
    assert!(mails[0].contains("Subject: Una chiamata con Robin Example (+12025550178)"), "{}", mails[0]);

    fs::write(folder.join("recording.it.subject"), "Una chiamata\ncon {{ call.whom }}\n").unwrap();
    assert!(try_mail(&appliance).status.success());
    assert!(server.wait_for_mails(2)[1].contains("Subject: Prova:"), "the built-in one is used");
    let mail = wait_for("health tells of the template", || {
        Some(component(&appliance, "mail")).filter(|mail| mail["status"] == "degraded")
    });
    assert!(mail["reason"].as_str().unwrap().contains("recording.it.subject:2: "), "{mail}");
    fs::remove_file(folder.join("recording.it.subject")).unwrap();
    wait_until("health is well again", || component(&appliance, "mail")["status"] == "ok");
}

//! Mail to Postfix, which wants STARTTLS and a password, fetched from the mailbox that Dovecot keeps. Run by `make torture`: it needs root,
//! and both (`packaging/prerequisites mail`).

#![allow(clippy::unwrap_used)]

mod rig;

use rig::mail::{ANN, assert_holds_the_call, call, import_user, prepare};
use rig::postfix::MailServers;
use rig::tls::Authority;
use rig::wait_until;

#[test]
fn the_owner_of_a_call_finds_it_in_the_mailbox_and_hears_it() {
    let ours = Authority::new("ours");
    let mut appliance = prepare("starttls", &ours, "");
    let servers = MailServers::start(appliance.place.ip, &ours);
    appliance.launch();
    let tried = appliance.ctl(&["mail", "test", ANN]);
    assert!(tried.status.success(), "{tried:?}\n{}", servers.log());
    let mail = servers.wait_for_mail(1);
    assert!(
        mail.contains("Delivered-To: <ann@example.com>") || mail.contains("Delivered-To: ann@example.com"),
        "{mail}"
    );
    assert!(mail.contains("with ESMTPSA"), "neither encrypted nor signed in:\n{mail}");

    import_user(&appliance, 43_001);
    let (facts, said) = call(&appliance, 43_001);
    let mail = servers.wait_for_mail(2);
    assert_holds_the_call(&mail, &said);
    let recording = appliance.archived(&facts.call_id);
    assert!(mail.contains(recording["id"].as_str().unwrap()));
    wait_until("nothing is left to do", || appliance.jobs_left().is_empty());
    assert!(!servers.has_mail(3), "one call, one mail");
}

#[test]
fn a_server_under_another_authority_gets_neither_password_nor_call() {
    let (ours, another) = (Authority::new("ours"), Authority::new("another"));
    let mut appliance = prepare("starttls", &ours, "");
    let servers = MailServers::start(appliance.place.ip, &another);
    appliance.launch();
    let tried = appliance.ctl(&["mail", "test", ANN]);
    let said = String::from_utf8_lossy(&tried.stderr).into_owned();
    assert!(!tried.status.success() && said.contains("certificate"), "{said}");
    assert!(!servers.log().contains("sasl_username"), "{}", servers.log());
    assert!(!servers.has_mail(1));
}

//! Session timers (RFC 4028): what is agreed on, who refreshes, and what happens when nobody does.

#![allow(clippy::unwrap_used)]

mod rig;

use callvault_sip::{Accept, EndpointConfig, Event, MessageFlaw, TransportKind};
use rig::{Rig, ack, invite, request};

const UDP: TransportKind = TransportKind::Udp;
const TCP: TransportKind = TransportKind::Tcp;
const SDP: &str = "Content-Type: application/sdp\n\nv=0\n";
const NONE: &str = "(none)";
const ALLOW: &str = "Allow: INVITE, ACK, BYE, UPDATE";

/// An INVITE with these fields is answered with this Session-Expires and Require.
fn check_agreed(config: &EndpointConfig, fields: &str, session_expires: &str, require: &str) {
    let mut rig = Rig::with(UDP, config.clone());
    assert_eq!(rig.receive(&request("INVITE", 1, "a", "", fields)), ["Invite"], "{fields}");
    rig.accept();
    assert_eq!((rig.header("Session-Expires"), rig.header("Require")), (session_expires, require), "{fields}");
}

#[test]
fn what_is_agreed_on() {
    let c = &EndpointConfig::new("");
    let uac = |seconds: u32| format!("{seconds};refresher=uac");
    let uas = |seconds: u32| format!("{seconds};refresher=uas");
    check_agreed(c, "", NONE, NONE);
    check_agreed(c, "Supported: 100rel, Timer", &uac(1800), "timer");
    check_agreed(c, "k: timer\nx: 600", &uac(600), "timer");
    check_agreed(c, "Require: timer\nSession-Expires: 600", &uac(600), "timer");
    check_agreed(c, "Supported: timer\nSession-Expires: 600 ; refresher=UAC", &uac(600), "timer");
    check_agreed(c, "Supported: timer\nSession-Expires: 90", &uac(90), "timer");
    check_agreed(c, "Supported: timer\nSession-Expires: 7200", &uac(1800), "timer");
    check_agreed(c, "Supported: timer\nSession-Expires: 7200\nMin-SE: 3600", &uac(3600), "timer");
    check_agreed(c, "Supported: timer\nMin-SE: 3600", &uac(3600), "timer");
    check_agreed(c, "Supported: timer\nSession-Expires: 99999999999999", &uac(1800), "timer");
    check_agreed(c, "Supported: timer\nSession-Expires: soon", &uac(1800), "timer");
    check_agreed(c, "Supported: timer\nSession-Expires: -1", &uac(1800), "timer");
    check_agreed(c, "Supported: timer\nSession-Expires:", &uac(1800), "timer");
    // We refresh when the client wants it and takes what we would refresh with.
    check_agreed(c, &format!("Supported: timer\n{ALLOW}\nSession-Expires: 600;refresher=uas"), &uas(600), NONE);
    check_agreed(c, "Supported: timer\nSession-Expires: 600;refresher=uas", NONE, NONE);
    check_agreed(c, "Supported: timer\nAllow: INVITE\nSession-Expires: 600;refresher=uas", NONE, NONE);
    // A proxy's timer is the proxy's affair unless we are told to care.
    check_agreed(c, &format!("{ALLOW}\nSession-Expires: 600"), NONE, NONE);
    let c = &EndpointConfig { refresh_for_others: true, ..EndpointConfig::new("") };
    check_agreed(c, &format!("{ALLOW}\nSession-Expires: 600"), &uas(600), NONE);
    check_agreed(c, &format!("{ALLOW}\nSession-Expires: 10"), NONE, NONE);
    check_agreed(c, "Session-Expires: 600", NONE, NONE);
    let c = &EndpointConfig { session_expires_s: 0, ..EndpointConfig::new("") };
    check_agreed(c, "Supported: timer", NONE, NONE);
    check_agreed(c, "Supported: timer\nSession-Expires: 7200", &uac(7200), "timer");
}

#[test]
fn too_small_an_interval_is_refused_to_who_understands_that() {
    let mut rig = Rig::new(UDP);
    let small = "Supported: timer\nSession-Expires: 89";
    assert_eq!(rig.receive(&request("INVITE", 1, "a", "", small)), ["422 INVITE"]);
    assert_eq!(rig.header("Min-SE"), "90");
    assert_eq!(rig.endpoint.dialogs(), 0);
    let larger = request("INVITE", 2, "b", "", "Supported: timer\nSession-Expires: 90\nMin-SE: 90");
    assert_eq!(rig.receive(&larger), ["Invite"]);
    rig.accept();
    rig.receive(&ack(2));
    assert_eq!(rig.receive(&request("UPDATE", 3, "u", "{tag}", small)), ["422 UPDATE"]);
    assert_eq!(rig.receive(&request("INVITE", 4, "r", "{tag}", small)), ["422 INVITE"]);
    assert_eq!(rig.receive(&request("INVITE", 5, "s", "{tag}", SDP)), ["Reinvite"], "the dialog lives on");

    let mut rig = Rig::new(UDP);
    assert_eq!(rig.receive(&request("INVITE", 1, "a", "", "Session-Expires: 10")), ["Invite"]);
    let Some(Event::Invite { request, .. }) = rig.events.last() else { panic!() };
    assert_eq!(request.flaws, [MessageFlaw::SessionIntervalTooSmall]);
    rig.accept();
    assert_eq!(rig.header("Session-Expires"), NONE);
}

/// A call whose INVITE has these fields.
fn call(kind: TransportKind, fields: &str) -> Rig {
    let mut rig = Rig::new(kind);
    assert_eq!(rig.receive(&request("INVITE", 1, "a", "", fields)), ["Invite"]);
    rig.accept();
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    rig
}

const THEIRS: &str = "Supported: timer\nSession-Expires: 600";
const OURS: &str = "Supported: timer\nAllow: UPDATE\nSession-Expires: 600;refresher=uas";

#[test]
fn a_session_that_its_client_does_not_refresh_expires_once_and_lives_on() {
    let mut rig = call(UDP, THEIRS);
    assert_eq!(rig.wait(2_000_000), ["568000 SessionExpired"]);
    assert_eq!(rig.endpoint.dialogs(), 1, "the session layer decides");
    assert_eq!(rig.receive(&request("UPDATE", 2, "u", "{tag}", THEIRS)), ["Update"]);
    rig.accept_with(Accept::default());
    assert_eq!(rig.wait(2_000_000), ["568000 SessionExpired"]);
    assert_eq!(rig.bye(), ["BYE"]);
    let mut rig = call(UDP, "Supported: timer\nSession-Expires: 90");
    assert_eq!(rig.wait(2_000_000), ["60000 SessionExpired"], "a third before the end");
}

#[test]
fn any_request_that_is_accepted_refreshes_it() {
    for (method, more) in [("INVITE", format!("{THEIRS}\n{SDP}")), ("UPDATE", THEIRS.to_owned())] {
        let mut rig = call(UDP, THEIRS);
        assert!(rig.wait(500_000).is_empty());
        rig.receive(&request(method, 2, "r", "{tag}", &more));
        rig.accept();
        assert_eq!(rig.header("Session-Expires"), "600;refresher=uac");
        rig.receive(&ack(2));
        assert_eq!(rig.wait(2_000_000), ["568000 SessionExpired"], "{method}");
    }
    let mut rig = call(UDP, THEIRS);
    rig.wait(500_000);
    rig.receive(&request("INVITE", 2, "r", "{tag}", &format!("{THEIRS}\n{SDP}")));
    rig.reject(488);
    rig.receive(&rig::ack_refusal(2, "r"));
    assert_eq!(rig.wait(2_000_000), ["68000 SessionExpired"], "a refused one does not");
    let mut rig = call(UDP, THEIRS);
    rig.wait(500_000);
    rig.receive(&request("UPDATE", 2, "u", "{tag}", ""));
    rig.accept_with(Accept::default());
    assert_eq!(rig.header("Session-Expires"), NONE);
    assert!(rig.wait(2_000_000).is_empty(), "one without a timer ends the timer");
}

fn answer(rig: &mut Rig, status: u16, fields: &str) -> Vec<String> {
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}\n") };
    let via = "Via: SIP/2.0/UDP 192.0.2.1:5060;branch={branch}";
    rig.receive(&format!("SIP/2.0 {status} X\n{via}\nCSeq: 1 UPDATE\n{fields}\n"))
}

/// A call that we refresh, at the moment of its first refresh.
fn refreshing() -> Rig {
    let mut rig = call(UDP, OURS);
    assert_eq!(rig.wait(300_000), ["300000 UPDATE"]);
    rig
}

#[test]
fn we_refresh_with_an_update_at_half_the_interval() {
    let mut rig = refreshing();
    assert_eq!(rig.header("Session-Expires"), "600;refresher=uac");
    assert_eq!((rig.header("Min-SE"), rig.header("Supported")), ("90", "timer"));
    assert_eq!(rig.header("Contact"), "<sip:192.0.2.1:5060;transport=udp>;+sip.srs");
    assert!(rig.last_sent().to_bytes().ends_with(b"\r\n\r\n"), "no body");
    assert!(answer(&mut rig, 200, "Session-Expires: 400;refresher=uac").is_empty(), "nobody need know");
    assert_eq!(rig.wait(200_000), ["200000 UPDATE"]);
    assert!(answer(&mut rig, 200, "Session-Expires: 400;refresher=uas").is_empty());
    assert_eq!(rig.wait(2_000_000), ["368000 SessionExpired"], "the client has taken it over");
    let mut rig = refreshing();
    assert!(answer(&mut rig, 200, "").is_empty());
    assert!(rig.wait(2_000_000).is_empty(), "the client has no timer any more");
}

fn check_refused(status: u16, fields: &str, want: &[&str]) {
    let mut rig = refreshing();
    let mut seen = answer(&mut rig, status, fields);
    seen.extend(rig.wait(15_000));
    assert_eq!(seen, want, "{status} {fields}");
}

#[test]
fn refreshes_that_are_refused() {
    check_refused(408, "", &["SessionExpired"]);
    check_refused(481, "", &["SessionExpired"]);
    check_refused(405, "", &[]);
    let repeated = ["10000 UPDATE", "10500 UPDATE", "11500 UPDATE", "13500 UPDATE"];
    check_refused(500, "", &repeated);
    check_refused(503, "Retry-After: 3 (soon)", &repeated);
    check_refused(503, "Retry-After: 12;duration=9", &["12000 UPDATE", "12500 UPDATE", "13500 UPDATE"]);
    check_refused(422, "Min-SE: 60", &[]);
    check_refused(422, "", &[]);
    check_refused(422, "Min-SE: 999999999", &[]);
    let mut rig = refreshing();
    assert_eq!(answer(&mut rig, 405, ""), [""; 0]);
    assert_eq!(rig.wait(2_000_000), ["268000 SessionExpired"], "in its time");
}

#[test]
fn a_refresh_with_too_small_an_interval_is_repeated_with_a_larger_one() {
    let mut rig = refreshing();
    assert_eq!(answer(&mut rig, 422, "Min-SE: 1200"), ["UPDATE"]);
    assert_eq!((rig.header("Session-Expires"), rig.header("Min-SE")), ("1200;refresher=uac", "1200"));
    assert!(answer(&mut rig, 422, "Min-SE: 1200").is_empty(), "it has what it wanted");
}

#[test]
fn a_refresh_that_crosses_another_request_is_tried_again_soon() {
    let mut rig = refreshing();
    answer(&mut rig, 491, "");
    let seen = rig.wait(2_100);
    assert!(seen[0].ends_with(" UPDATE"), "{seen:?}");
}

#[test]
fn a_refresh_without_answer() {
    let mut rig = refreshing();
    let seen = rig.wait(2_000_000);
    assert_eq!(seen.last().unwrap(), "32000 SessionExpired");
    let mut rig = call(TCP, OURS);
    rig.close_flow();
    assert_eq!(rig.wait(300_000), ["300000 Connect tcp 192.0.2.9:5070"]);
    assert!(rig.connect_failed().is_empty());
    assert_eq!(rig.wait(10_000), ["10000 Connect tcp 192.0.2.9:5070"], "again until it is too late");
    assert_eq!(rig.connected(7), ["UPDATE"]);
    let mut rig = call(UDP, OURS);
    rig.close_flow();
    assert_eq!(rig.wait(2_000_000), ["568000 SessionExpired"], "no way at all");
}

#[test]
fn a_dialog_that_is_ending_needs_no_timer() {
    let mut rig = call(UDP, OURS);
    rig.wait(299_000);
    rig.bye();
    assert!(!rig.wait(2_000_000).iter().any(|what| what.contains("UPDATE") || what.contains("SessionExpired")));
    assert_eq!(rig.endpoint.deadline(), None);
    let mut rig = call(UDP, THEIRS);
    rig.receive(&request("BYE", 2, "b", "{tag}", ""));
    rig.wait(40_000);
    assert_eq!(rig.endpoint.deadline(), None);
}

#[test]
fn a_timer_outlives_the_process() {
    let mut rig = call(UDP, THEIRS);
    rig.wait(100_000);
    rig.restart();
    assert_eq!(rig.wait(2_000_000), ["468000 SessionExpired"]);
    let mut rig = call(UDP, OURS);
    rig.wait(100_000);
    rig.restart();
    assert_eq!(rig.wait(200_000), ["200000 UPDATE"]);
    rig.restart();
    assert_eq!(rig.wait(10_000), ["10000 UPDATE"], "the answer went to the process before");
    assert!(answer(&mut rig, 200, "Session-Expires: 600;refresher=uac").is_empty());
    assert_eq!(rig.wait(300_000), ["300000 UPDATE"]);
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    rig.receive(&ack(1));
    rig.restart();
    assert!(rig.wait(2_000_000).is_empty());
}

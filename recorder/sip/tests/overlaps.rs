//! Requests that cross, overtake and repeat each other (RFC 3261 sections 12.2.2, 14.2 and 17.2, RFC 3311 section 5.2).

#![allow(clippy::unwrap_used)]

mod rig;

use callvault_sip::TransportKind;
use rig::{Rig, ack, ack_refusal, call, flow, request};

const UDP: TransportKind = TransportKind::Udp;
const SDP: &str = "Content-Type: application/sdp\n\nv=0\n";

/// A call in which our offer awaits its answer.
fn offering() -> Rig {
    let mut rig = Rig::new(UDP);
    rig.receive(&request("INVITE", 1, "a", "", ""));
    rig.accept();
    rig
}

fn check_across_our_offer(message: &str, want: &str) {
    let mut rig = offering();
    assert_eq!(rig.receive(message), [want], "{message}");
}

#[test]
fn requests_across_our_unanswered_offer() {
    check_across_our_offer(&request("INVITE", 2, "r", "{tag}", SDP), "491 INVITE");
    check_across_our_offer(&request("INVITE", 2, "r", "{tag}", ""), "491 INVITE");
    check_across_our_offer(&request("UPDATE", 2, "u", "{tag}", SDP), "491 UPDATE");
    check_across_our_offer(&request("UPDATE", 2, "u", "{tag}", ""), "Update");
    check_across_our_offer(&request("INFO", 2, "i", "{tag}", ""), "Info");
    let mut rig = offering();
    let reinvite = request("INVITE", 2, "r", "{tag}", SDP);
    rig.receive(&reinvite);
    assert_eq!(rig.receive(&reinvite), ["491 INVITE"], "repeated, refused again");
    assert!(rig.receive(&ack_refusal(2, "r")).is_empty());
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    assert_eq!(rig.receive(&request("INVITE", 3, "s", "{tag}", SDP)), ["Reinvite"], "it tries again");
    assert_eq!(rig.accept(), ["200 INVITE"]);
    assert_eq!(rig.receive(&ack(3)), ["Acked"]);
}

#[test]
fn a_request_of_ours_does_not_stand_in_the_way() {
    let mut rig = call(UDP);
    assert!(rig.endpoint.update_request(rig.now, rig.dialog.unwrap(), None, Vec::new()));
    assert_eq!(rig.drain(), ["UPDATE"]);
    let branch = rig.branch.clone();
    assert_eq!(rig.receive(&request("INVITE", 2, "r", "{tag}", SDP)), ["Reinvite"], "ours has no offer");
    assert_eq!(rig.accept(), ["200 INVITE"]);
    let answer = format!("SIP/2.0 491 Pending\nVia: SIP/2.0/UDP h;branch={branch}\nCSeq: 1 UPDATE\n\n");
    assert_eq!(rig.receive(&answer), ["UPDATE answered Some(491)"]);
    assert!(rig.receive(&answer).is_empty(), "once");
}

#[test]
fn a_change_while_another_is_pending_is_asked_for_again() {
    let mut rig = call(UDP);
    assert_eq!(rig.receive(&request("INVITE", 2, "r", "{tag}", SDP)), ["Reinvite"]);
    let first = rig.tx;
    for (method, cseq) in [("INVITE", 3), ("UPDATE", 4)] {
        let second = request(method, cseq, &format!("s{cseq}"), "{tag}", SDP);
        assert_eq!(rig.receive(&second), [format!("500 {method}")]);
        let retry_after_s: u64 = rig.header("Retry-After").parse().unwrap();
        assert!((1..=10).contains(&retry_after_s), "{retry_after_s}");
        let refusal = rig.last_sent().clone();
        assert_eq!(rig.receive(&second), [format!("500 {method}")]);
        assert_eq!(*rig.last_sent(), refusal, "the same pause");
    }
    assert!(rig.receive(&ack_refusal(3, "s3")).is_empty());
    rig.tx = first;
    assert_eq!(rig.accept(), ["200 INVITE"], "the first one is answered all the same");
    assert_eq!(rig.receive(&ack(2)), ["Acked"]);
    assert_eq!(rig.receive(&request("INVITE", 5, "t", "{tag}", SDP)), ["Reinvite"]);
}

#[test]
fn a_request_that_was_overtaken_is_refused() {
    let mut rig = call(UDP);
    assert_eq!(rig.receive(&request("UPDATE", 3, "u", "{tag}", "")), ["Update"]);
    rig.accept();
    for method in ["INVITE", "UPDATE", "INFO", "OPTIONS"] {
        assert_eq!(rig.receive(&request(method, 2, method, "{tag}", "")), [format!("500 {method}")]);
    }
    assert_eq!(rig.receive(&request("INVITE", 900, "far", "{tag}", SDP)), ["Reinvite"], "gaps are fine");
}

/// What is sent twice is served once, and answered twice alike; on another flow as well.
fn check_twice(message: &str, answer: bool, want: &[&str]) {
    let mut rig = call(UDP);
    let mut seen = rig.receive(message);
    if answer {
        seen.extend(rig.accept());
    }
    assert_eq!(seen, want, "{message}");
    let first = rig.last_sent().clone();
    let last = want.iter().rfind(|what| what.starts_with(|c: char| c.is_ascii_digit())).unwrap();
    for id in [1, 8] {
        rig.flow = flow(UDP, id);
        assert_eq!(rig.receive(message), [*last], "{message}");
        assert_eq!(*rig.last_sent(), first);
    }
}

#[test]
fn duplicates_of_everything() {
    let r = request;
    check_twice(&r("INVITE", 2, "x", "{tag}", SDP), true, &["Reinvite", "200 INVITE"]);
    check_twice(&r("UPDATE", 2, "x", "{tag}", ""), true, &["Update", "200 UPDATE"]);
    check_twice(&r("INFO", 2, "x", "{tag}", ""), true, &["Info", "200 INFO"]);
    check_twice(&r("OPTIONS", 2, "x", "{tag}", ""), false, &["200 OPTIONS"]);
    check_twice(&r("BYE", 2, "x", "{tag}", ""), false, &["200 BYE", "Bye", "Ended PeerBye"]);
    check_twice(&r("CANCEL", 1, "a", "", ""), false, &["200 CANCEL"]);
    check_twice(&r("CANCEL", 9, "x", "", ""), false, &["481 CANCEL"]);
    check_twice(&r("REFER", 2, "x", "{tag}", ""), false, &["405 REFER"]);
    check_twice(&r("UPDATE", 0, "x", "{tag}", ""), false, &["500 UPDATE"]);
    check_twice(&r("BYE", 2, "x", "gone", ""), false, &["481 BYE"]);
    check_twice(&r("MESSAGE", 2, "x", "", ""), false, &["405 MESSAGE"]);
}

#[test]
fn a_reinvite_before_the_ack_of_the_last_one() {
    let mut rig = call(UDP);
    rig.receive(&request("INVITE", 2, "r", "{tag}", SDP));
    rig.accept();
    assert_eq!(rig.receive(&request("INVITE", 3, "s", "{tag}", SDP)), ["Reinvite"]);
    rig.accept();
    assert_eq!(rig.receive(&ack(2)), ["Acked"]);
    assert!(rig.bye().is_empty(), "the last ACK is still to come");
    assert_eq!(rig.receive(&ack(3)), ["Acked", "BYE"]);
}

//! Calls as their peers see them: what is sent and told, message by message and moment by moment.

#![allow(clippy::unwrap_used)]

mod rig;

use callvault_sip::{Accept, EndpointConfig, Message, TransportKind, UnknownRequire};
use rig::{Rig, ack, ack_refusal, call, invite, request};

const UDP: TransportKind = TransportKind::Udp;
const TCP: TransportKind = TransportKind::Tcp;
const SDP: &str = "Content-Type: application/sdp\n\nv=0\n";

/// The times of a repeated message up to 32 s: T1 doubling to T2.
fn repeated(what: &str, times: &[u64]) -> Vec<String> {
    times.iter().map(|ms| format!("{ms} {what}")).collect()
}

const EVERY: [u64; 10] = [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500];

#[test]
fn a_call_over_udp_with_every_message_repeated() {
    let mut rig = Rig::new(UDP);
    assert_eq!(rig.receive(&invite()), ["Invite"]);
    assert!(rig.receive(&invite()).is_empty(), "no answer yet");
    assert_eq!(rig.accept(), ["200 INVITE"]);
    let first = rig.last_sent().clone();
    assert_eq!(rig.receive(&invite()), ["200 INVITE"]);
    assert_eq!(*rig.last_sent(), first, "the same answer, same tag");
    assert_eq!(rig.wait(1_600), ["500 200 INVITE", "1500 200 INVITE"]);
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    assert!(rig.receive(&ack(1)).is_empty());
    assert!(rig.receive(&invite()).is_empty(), "a late duplicate is absorbed");
    assert!(rig.wait(10_000).is_empty(), "no more repetitions");
    let update = request("UPDATE", 2, "u", "{tag}", "");
    assert_eq!(rig.receive(&update), ["Update"]);
    assert_eq!(rig.accept_with(Accept::default()), ["200 UPDATE"]);
    assert_eq!(rig.receive(&update), ["200 UPDATE"]);
    let reinvite = request("INVITE", 3, "r", "{tag}", SDP);
    assert_eq!(rig.receive(&reinvite), ["Reinvite"]);
    assert_eq!(rig.accept(), ["200 INVITE"]);
    assert_eq!(rig.receive(&ack(3)), ["Acked"]);
    let bye = request("BYE", 4, "b", "{tag}", "");
    assert_eq!(rig.receive(&bye), ["200 BYE", "Bye", "Ended PeerBye"]);
    assert_eq!(rig.receive(&bye), ["200 BYE"]);
    assert!(rig.wait(40_000).is_empty());
    assert_eq!((rig.endpoint.dialogs(), rig.endpoint.transactions()), (0, 0));
    assert_eq!(rig.endpoint.deadline(), None);
    assert_eq!(rig.receive(&bye), ["481 BYE"]);
}

#[test]
fn over_tcp_only_the_2xx_is_repeated() {
    let mut rig = Rig::new(TCP);
    rig.receive(&invite());
    rig.accept();
    assert_eq!(rig.wait(600), ["500 200 INVITE"]);
    rig.receive(&ack(1));
    assert_eq!(rig.receive(&request("BYE", 2, "b", "{tag}", "")), ["200 BYE", "Bye", "Ended PeerBye"]);
    assert!(rig.wait(40_000).is_empty());
    assert_eq!(rig.endpoint.transactions(), 0);
}

#[test]
fn an_answer_that_is_never_acked() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    let mut want = repeated("200 INVITE", &EVERY);
    want.push("32000 AckTimeout".to_owned());
    assert_eq!(rig.wait(100_000), want);
    assert_eq!(rig.endpoint.dialogs(), 1, "the session layer decides");
    assert_eq!(rig.bye(), ["BYE"]);
}

#[test]
fn an_ack_that_is_missing_for_an_earlier_invite_does_not_matter() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    assert_eq!(rig.receive(&request("INVITE", 2, "r", "{tag}", SDP)), ["Reinvite"]);
    rig.accept();
    assert_eq!(rig.receive(&ack(2)), ["Acked"]);
    assert!(!rig.wait(100_000).iter().any(|what| what.ends_with("AckTimeout")));
}

#[test]
fn a_refusal_is_repeated_until_its_ack() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    assert_eq!(rig.reject(488), ["488 INVITE", "Ended Rejected 488"]);
    assert_eq!(rig.receive(&invite()), ["488 INVITE"]);
    assert_eq!(rig.wait(600), ["500 488 INVITE"]);
    assert!(rig.receive(&ack_refusal(1, "a")).is_empty());
    assert!(rig.wait(4_000).is_empty());
    assert!(rig.receive(&invite()).is_empty(), "absorbed for T4");
    rig.wait(1_100);
    assert_eq!(rig.endpoint.transactions(), 0);
    assert_eq!(rig.receive(&invite()), ["Invite"]);
}

#[test]
fn a_refusal_without_ack_ends_by_itself() {
    for (kind, times) in [(UDP, &EVERY[..]), (TCP, &[])] {
        let mut rig = Rig::new(kind);
        rig.receive(&invite());
        rig.reject(486);
        assert_eq!(rig.wait(100_000), repeated("486 INVITE", times));
        assert_eq!(rig.endpoint.transactions(), 0);
    }
}

#[test]
fn an_ack_with_a_wrong_branch_is_understood() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.reject(488);
    rig.receive(&ack(1));
    assert!(rig.wait(100_000).is_empty());
}

#[test]
fn an_ack_for_another_tag_is_not_ours() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    assert!(rig.receive(&request("ACK", 1, "x", "other", "")).is_empty());
    assert_eq!(rig.endpoint.counters().strays, 1);
    assert_eq!(rig.wait(600), ["500 200 INVITE"]);
}

#[test]
fn cancel_before_and_after_the_answer() {
    let cancel = request("CANCEL", 1, "a", "", "");
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    assert_eq!(rig.receive(&cancel), ["200 CANCEL", "487 INVITE", "Cancelled", "Ended Cancelled"]);
    assert_eq!(rig.receive(&cancel), ["200 CANCEL"]);
    assert_eq!(rig.accept(), ["no effect"]);
    assert_eq!(rig.reject(500), ["no effect"]);
    rig.receive(&ack_refusal(1, "a"));
    assert!(rig.wait(100_000).is_empty());

    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    assert_eq!(rig.receive(&cancel), ["200 CANCEL"], "too late, no effect");
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);

    let mut rig = call(UDP);
    rig.receive(&request("INVITE", 2, "r", "{tag}", SDP));
    let cancel = request("CANCEL", 2, "r", "{tag}", "");
    assert_eq!(rig.receive(&cancel), ["200 CANCEL", "487 INVITE", "Cancelled"], "the dialog lives on");
    assert_eq!(rig.endpoint.dialogs(), 1);
    assert_eq!(rig.receive(&request("INVITE", 3, "s", "{tag}", SDP)), ["Reinvite"]);

    let mut rig = Rig::new(UDP);
    assert_eq!(rig.receive(&cancel), ["481 CANCEL"]);
    rig.receive(&invite());
    let stray = request("CANCEL", 1, "wrong", "", "");
    assert_eq!(rig.receive(&stray), ["200 CANCEL", "487 INVITE", "Cancelled", "Ended Cancelled"]);
}

#[test]
fn a_slow_answer_gets_100_first_and_none_at_all_is_given_up() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    assert_eq!(rig.wait(300), ["200 100 INVITE"]);
    assert_eq!(rig.receive(&invite()), ["100 INVITE"]);
    assert_eq!(rig.wait(180_000)[..2], ["179700 500 INVITE", "179700 Ended GivenUp"]);
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    assert!(rig.endpoint.trying(rig.tx.unwrap()));
    assert_eq!(rig.drain(), ["100 INVITE"]);
    assert_eq!((rig.header("To"), rig.header("Contact")), ("<sip:192.0.2.1>", "(none)"));
    assert!(rig.wait(300).is_empty());
    let mut rig = Rig::new(UDP);
    assert_eq!(rig.receive(&request("OPTIONS", 1, "o", "", "")), ["Options"]);
    assert!(rig.wait(40_000).is_empty());
    assert_eq!(rig.endpoint.transactions(), 0);
}

fn check_in_dialog(steps: &[(String, &[&str])]) {
    let mut rig = call(UDP);
    for (message, want) in steps {
        assert_eq!(rig.receive(message), *want, "{message}");
    }
}

#[test]
fn requests_within_a_dialog() {
    let r = request;
    check_in_dialog(&[(r("INFO", 2, "i", "{tag}", ""), &["Info"])]);
    check_in_dialog(&[(r("INFO", 1, "i", "{tag}", ""), &["Info"])]);
    check_in_dialog(&[(r("OPTIONS", 2, "o", "{tag}", ""), &["200 OPTIONS"])]);
    check_in_dialog(&[(r("REFER", 2, "x", "{tag}", ""), &["405 REFER"])]);
    check_in_dialog(&[(r("FOO", 2, "x", "{tag}", ""), &["501 FOO"])]);
    check_in_dialog(&[(r("UPDATE", 2, "u", "unknown", ""), &["481 UPDATE"])]);
    check_in_dialog(&[(r("INVITE", 2, "u", "unknown", SDP), &["481 INVITE"])]);
    check_in_dialog(&[(r("UPDATE", 2, "u", "{tag}", "").replace("tag=f", "tag=g"), &["481 UPDATE"])]);
    check_in_dialog(&[(r("UPDATE", 0, "u", "{tag}", ""), &["500 UPDATE"])]);
    check_in_dialog(&[(r("BYE", 0, "b", "{tag}", ""), &["200 BYE", "Bye", "Ended PeerBye"])]);
    check_in_dialog(&[
        (r("INVITE", 2, "r", "{tag}", SDP), &["Reinvite"]),
        (r("INVITE", 3, "s", "{tag}", SDP), &["500 INVITE"]),
        (r("UPDATE", 4, "u", "{tag}", ""), &["500 UPDATE"]),
        (r("INFO", 5, "i", "{tag}", ""), &["Info"]),
        (r("BYE", 6, "b", "{tag}", ""), &["200 BYE", "Bye", "487 INVITE", "Ended PeerBye"]),
    ]);
}

#[test]
fn a_reused_branch_is_another_request_when_its_cseq_is() {
    check_in_dialog(&[(request("INVITE", 2, "a", "{tag}", SDP), &["Reinvite"])]);
}

#[test]
fn an_offer_across_our_unanswered_offer_is_pending() {
    let mut rig = Rig::new(UDP);
    rig.receive(&request("INVITE", 1, "a", "", ""));
    rig.accept();
    assert_eq!(rig.receive(&request("UPDATE", 2, "u", "{tag}", SDP)), ["491 UPDATE"]);
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    assert_eq!(rig.receive(&request("UPDATE", 3, "v", "{tag}", SDP)), ["Update"]);
}

#[test]
fn a_refused_reinvite_leaves_the_dialog() {
    let mut rig = call(UDP);
    rig.receive(&request("INVITE", 2, "r", "{tag}", SDP));
    assert_eq!(rig.reject(488), ["488 INVITE"]);
    assert_eq!(rig.receive(&request("INVITE", 3, "s", "{tag}", SDP)), ["Reinvite"]);
}

fn check_fresh(message: &str, want: &[&str]) {
    assert_eq!(Rig::new(UDP).receive(message), want, "{message}");
}

#[test]
fn requests_outside_a_dialog() {
    for method in ["BYE", "UPDATE", "INFO"] {
        check_fresh(&request(method, 1, "x", "", ""), &[&format!("481 {method}")]);
    }
    for method in ["REGISTER", "SUBSCRIBE", "NOTIFY", "MESSAGE", "REFER", "PRACK", "PUBLISH"] {
        check_fresh(&request(method, 1, "x", "", ""), &[&format!("405 {method}")]);
    }
    check_fresh(&request("invite", 1, "x", "", ""), &["501 invite"]);
    check_fresh(&request("OPTIONS", 1, "x", "", ""), &["Options"]);
    check_fresh(&request("ACK", 1, "x", "t", ""), &[]);
    check_fresh(&request("INVITE", 1, "x", "", "Max-Forwards: 0\nRoute: <sip:foreign.example;lr>"), &["Invite"]);
    check_fresh(&request("INVITE", 1, "x", "", "Content-Encoding: gzip\n\nxx"), &["415 INVITE"]);
    check_fresh(&request("INVITE", 1, "x", "", "").replace("Call-ID: c1\n", ""), &["400 INVITE"]);
    check_fresh(&request("INVITE", 1, "x", "", "").replace("CSeq: 1", "CSeq: x"), &["400 "]);
    check_fresh(&request("INVITE", 1, "x", "", "").replace("Via:", "X:"), &[]);
    check_fresh("SIP/2.0 200 OK\nVia: SIP/2.0/UDP 192.0.2.1;branch=z\nCSeq: 1 BYE\n\n", &[]);
}

#[test]
fn unknown_extensions_are_flagged_on_recordings_and_refused_otherwise() {
    let unknown = request("INVITE", 1, "x", "", "Require: siprec, foo");
    let mut rig = Rig::new(UDP);
    assert_eq!(rig.receive(&unknown), ["Invite"]);
    let callvault_sip::Event::Invite { hints, .. } = &rig.events[0] else { panic!() };
    assert_eq!(hints.unknown_required, ["foo"]);
    let plain = unknown.replace(";+sip.src", "").replace("siprec, ", "");
    assert_eq!(rig.receive(&plain.replace("c1", "c2")), ["420 INVITE"]);
    assert_eq!(rig.header("Unsupported"), "foo");
    let strict = EndpointConfig { unknown_require: UnknownRequire::Refuse, ..EndpointConfig::new("") };
    assert_eq!(Rig::with(UDP, strict).receive(&unknown), ["420 INVITE"]);
    check_fresh(&unknown.replace("siprec, foo", "siprec, timer, 100rel"), &["Invite"]);
}

#[test]
fn a_merged_request_is_refused_but_a_new_attempt_is_not() {
    let again = invite().replace("z9hG4bKa", "z9hG4bKother");
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    assert_eq!(rig.receive(&again), ["482 INVITE"]);
    rig.accept();
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.reject(503);
    assert_eq!(rig.receive(&again), ["Invite"]);
    let mut rig = Rig::new(TCP);
    rig.receive(&invite());
    rig.endpoint.flow_closed(rig.now, rig.flow.id);
    rig.flow = rig::flow(TCP, 2);
    assert_eq!(rig.receive(&again), ["Invite"]);
}

#[test]
fn what_an_answer_says() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite().replace(
        "Call-ID",
        "Via: SIP/2.0/TCP far;branch=q\nRecord-Route: <sip:p1;lr>, <sip:p2;lr>\nRecord-Route: <sip:p3>\nTimestamp: 7\nCall-ID",
    ));
    rig.accept_with(Accept {
        contact_user: Some("rec".to_owned()),
        body: Some(("application/sdp".to_owned(), b"v=0\r\n".to_vec())),
        extra_headers: vec![("X-Id".to_owned(), "1\r\nEvil: 2".to_owned())],
    });
    let Message::Response(answer) = rig.last_sent().clone() else { panic!() };
    let fields: Vec<_> = answer.headers.fields().iter().map(|f| format!("{}: {}", f.name(), f.value())).collect();
    let tag = &rig.tag;
    assert_eq!(
        fields,
        [
            "Via: SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKa;rport=5070;received=192.0.2.9",
            "Via: SIP/2.0/TCP far;branch=q",
            "From: \"Ann\" <sip:+15551230100@192.0.2.9;user=phone>;tag=f",
            &format!("To: <sip:192.0.2.1>;tag={tag}"),
            "Call-ID: c1",
            "CSeq: 1 INVITE",
            "Record-Route: <sip:p1;lr>, <sip:p2;lr>",
            "Record-Route: <sip:p3>",
            "Server: callvault",
            "Contact: <sip:rec@192.0.2.1:5060;transport=udp>;+sip.srs",
            "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO",
            "Supported: siprec, timer",
            "Accept: application/sdp, application/rs-metadata+xml, application/rs-metadata, multipart/mixed",
            "X-Id: 1  Evil: 2",
            "Content-Type: application/sdp",
        ]
    );
    assert_eq!(answer.body, b"v=0\r\n");
    assert_eq!((tag.len(), answer.reason.as_str()), (16, "OK"));
}

fn check_route(kind: TransportKind, via: &str, want: &str) {
    let mut rig = Rig::new(kind);
    rig.receive(&invite().replace("SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKa;rport", via));
    rig.accept();
    assert_eq!(rig.last_peer(), want, "{via}");
}

#[test]
fn where_answers_go() {
    check_route(UDP, "SIP/2.0/UDP 10.0.0.1:5080;rport;branch=z", "192.0.2.9:5070");
    check_route(UDP, "SIP/2.0/UDP 10.0.0.1:5080;branch=z", "192.0.2.9:5080");
    check_route(UDP, "SIP/2.0/UDP host.example;branch=z", "192.0.2.9:5060");
    check_route(UDP, "SIP/2.0/UDP 192.0.2.9;maddr=203.0.113.1;branch=z", "192.0.2.9:5060");
    check_route(TCP, "SIP/2.0/TCP 10.0.0.1:5080;branch=z", "192.0.2.9:5070");
}

fn check_contact(change: impl FnOnce(&mut Rig), uri: &str, want: &str) {
    let mut rig = Rig::new(UDP);
    change(&mut rig);
    rig.receive(&invite().replacen("sip:192.0.2.1:5060", uri, 1));
    rig.accept();
    assert_eq!(rig.header("Contact"), want);
}

#[test]
fn our_contact_can_be_reached() {
    check_contact(|_| {}, "sips:x", "<sips:192.0.2.1:5060;transport=tcp>;+sip.srs");
    check_contact(|rig| rig.flow.kind = TransportKind::Tls, "sip:x", "<sip:192.0.2.1:5060;transport=tls>;+sip.srs");
    let unspecified = |rig: &mut Rig| rig.flow.local = "0.0.0.0:5060".parse().unwrap();
    check_contact(unspecified, "sip:rec.example:5060", "<sip:rec.example:5060;transport=udp>;+sip.srs");
    let v6 = |rig: &mut Rig| rig.flow.local = "[2001:db8::1]:5060".parse().unwrap();
    check_contact(v6, "sip:x", "<sip:[2001:db8::1]:5060;transport=udp>;+sip.srs");
    let mut config = EndpointConfig::new("");
    config.contact_host = Some("public.example".to_owned());
    let named = |rig: &mut Rig| *rig = Rig::with(UDP, config);
    check_contact(named, "sip:x", "<sip:public.example:5060;transport=udp>;+sip.srs");
}

fn answer_own(status: u16, method: &str) -> String {
    format!("SIP/2.0 {status} X\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch={{branch}};rport=5060\nCSeq: 1 {method}\n\n")
}

#[test]
fn our_bye() {
    let mut rig = call(UDP);
    assert_eq!(rig.bye(), ["BYE"]);
    let Message::Request(bye) = rig.last_sent().clone() else { panic!() };
    let names: Vec<_> = bye.headers.fields().iter().map(|field| field.name()).collect();
    assert_eq!(names, ["Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq", "User-Agent", "Reason"]);
    assert_eq!(bye.uri.as_str(), "sip:192.0.2.9:5070");
    assert_eq!(bye.headers.get("From"), Some(format!("<sip:192.0.2.1>;tag={}", rig.tag).as_str()));
    assert_eq!(bye.headers.get("To"), Some("\"Ann\" <sip:+15551230100@192.0.2.9;user=phone>;tag=f"));
    assert_eq!(bye.headers.get("CSeq"), Some("1 BYE"));
    assert_eq!(rig.bye(), ["no effect"]);
    assert_eq!(rig.receive(&request("UPDATE", 2, "u", "{tag}", "")), ["481 UPDATE"]);
    assert_eq!(rig.wait(600), ["500 BYE"]);
    assert!(rig.receive(&answer_own(100, "BYE")).is_empty());
    assert_eq!(rig.wait(4_100), ["4000 BYE"]);
    assert!(rig.receive(&answer_own(200, "INVITE")).is_empty(), "another method's answer");
    assert_eq!(rig.receive(&answer_own(200, "BYE")), ["Ended OwnBye Some(200)"]);
    assert!(rig.receive(&answer_own(200, "BYE")).is_empty());
    assert_eq!(rig.endpoint.counters().strays, 2);
    assert!(rig.wait(100_000).is_empty());
}

#[test]
fn our_bye_unanswered_crossing_refused() {
    let mut rig = call(UDP);
    rig.bye();
    let mut want = repeated("BYE", &EVERY);
    want.push("32000 Ended OwnBye None".to_owned());
    assert_eq!(rig.wait(100_000), want);

    let mut rig = call(UDP);
    rig.bye();
    assert_eq!(rig.receive(&request("BYE", 2, "b", "{tag}", "")), ["200 BYE", "Bye", "Ended PeerBye"]);
    assert!(rig.receive(&answer_own(481, "BYE")).is_empty());
    assert!(rig.wait(100_000).is_empty());

    let mut rig = call(UDP);
    rig.bye();
    assert_eq!(rig.receive(&answer_own(481, "BYE")), ["Ended OwnBye Some(481)"]);

    let mut rig = call(UDP);
    rig.receive(&request("INVITE", 2, "r", "{tag}", SDP));
    rig.bye();
    assert_eq!(rig.receive(&answer_own(200, "BYE")), ["487 INVITE", "Ended OwnBye Some(200)"]);
}

#[test]
fn a_dialog_that_is_over_repeats_no_answer() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    assert_eq!(rig.receive(&request("BYE", 2, "b", "{tag}", "")), ["200 BYE", "Bye", "Ended PeerBye"]);
    assert!(rig.wait(100_000).is_empty());
}

#[test]
fn our_bye_waits_for_the_ack() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    assert!(rig.bye().is_empty());
    assert_eq!(rig.receive(&ack(1)), ["Acked", "BYE"]);
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    rig.bye();
    assert_eq!(rig.wait(32_000).last().unwrap(), "32000 BYE");
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    assert_eq!(rig.bye(), ["480 INVITE", "Ended Rejected 480"]);
}

fn check_target(invite_more: &str, contact: &str, uri: &str, routes: &[&str], peers: &[&str]) {
    let mut rig = Rig::new(UDP);
    rig.receive(&request("INVITE", 1, "a", "", invite_more).replace("<sip:192.0.2.9:5070>;+sip.src", contact));
    rig.accept();
    rig.receive(&ack(1));
    rig.bye();
    let Message::Request(bye) = rig.last_sent().clone() else { panic!() };
    assert_eq!(bye.uri.as_str(), uri);
    assert_eq!(bye.headers.list("Route"), routes);
    let mut went = vec![rig.last_peer()];
    for _ in 1..peers.len() {
        rig.wait(4_000);
        went.push(rig.last_peer());
    }
    assert_eq!(went, peers, "{contact}");
}

#[test]
fn our_requests_follow_route_set_and_contact() {
    check_target("", "<sip:a@192.0.2.9:5070;x=y>", "sip:a@192.0.2.9:5070;x=y", &[], &["192.0.2.9:5070"]);
    check_target("", "<sip:192.0.2.9:5070", "sip:192.0.2.9:5070", &[], &["192.0.2.9:5070"]);
    check_target("", "<sip:h.example>", "sip:h.example", &[], &["192.0.2.9:5070"]);
    check_target("", "<sip:0.0.0.0>", "sip:0.0.0.0", &[], &["192.0.2.9:5070"]);
    check_target(
        "Record-Route: <sip:198.51.100.1;lr>,<sip:p2;lr>",
        "<sip:10.0.0.1>",
        "sip:10.0.0.1",
        &["<sip:198.51.100.1;lr>", "<sip:p2;lr>"],
        &["198.51.100.1:5060"],
    );
    check_target(
        "Record-Route: <sip:p1>,<sip:p2;lr>",
        "<sip:10.0.0.1>",
        "sip:p1",
        &["<sip:p2;lr>", "<sip:10.0.0.1>"],
        &["192.0.2.9:5070"],
    );
    let missing = "sip:+15551230100@192.0.2.9;user=phone";
    check_target("", "", missing, &[], &["192.0.2.9:5060"]);
}

#[test]
fn repetitions_of_our_bye_go_to_contact_and_source_by_turns() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite().replace("<sip:192.0.2.9:5070>", "<sip:10.0.0.1:5080>"));
    rig.accept();
    rig.receive(&ack(1));
    rig.bye();
    rig.wait(4_000);
    let peers: Vec<_> = rig.sent[1..].iter().map(|(_, peer, _)| peer.to_string()).collect();
    assert_eq!(peers, ["10.0.0.1:5080", "192.0.2.9:5070", "10.0.0.1:5080", "192.0.2.9:5070"]);
}

#[test]
fn the_target_moves_with_an_accepted_reinvite() {
    let mut rig = call(UDP);
    let moved = request("INVITE", 2, "r", "{tag}", SDP).replace("<sip:192.0.2.9:5070>", "<sip:192.0.2.10:5070>");
    rig.receive(&moved);
    rig.accept();
    rig.receive(&ack(2));
    rig.bye();
    let Message::Request(bye) = rig.last_sent().clone() else { panic!() };
    assert_eq!(bye.uri.as_str(), "sip:192.0.2.10:5070");
}

#[test]
fn our_update_asks_for_a_snapshot() {
    let mut rig = call(UDP);
    let body = Some(("application/rs-metadata+xml".to_owned(), b"<requestsnapshot/>".to_vec()));
    let disposition = vec![("Content-Disposition".to_owned(), "recording-session".to_owned())];
    assert!(rig.endpoint.update_request(rig.now, rig.dialog.unwrap(), body, disposition));
    assert_eq!(rig.drain(), ["UPDATE"]);
    assert_eq!(rig.header("Contact"), "<sip:192.0.2.1:5060;transport=udp>;+sip.srs");
    assert_eq!(rig.receive(&answer_own(200, "UPDATE")), ["UPDATE answered Some(200)"]);
    assert!(rig.endpoint.update_request(rig.now, rig.dialog.unwrap(), None, Vec::new()));
    rig.drain();
    assert_eq!(rig.wait(40_000).last().unwrap(), "32000 UPDATE answered None");
    assert_eq!(rig.endpoint.dialogs(), 1);
}

#[test]
fn a_dialog_moves_to_a_new_connection() {
    let mut rig = call(TCP);
    rig.endpoint.flow_closed(rig.now, rig.flow.id);
    rig.flow = rig::flow(TCP, 2);
    assert_eq!(rig.receive(&request("UPDATE", 2, "u", "{tag}", "")), ["Update"]);
    assert_eq!(rig.accept_with(Accept::default()), ["200 UPDATE"]);
    assert_eq!(rig.bye(), ["BYE"]);

    let mut rig = Rig::new(TCP);
    rig.receive(&invite());
    rig.endpoint.flow_closed(rig.now, rig.flow.id);
    assert_eq!(rig.accept(), ["Connect tcp 192.0.2.9:5070"]);
    rig.flow = rig::flow(TCP, 2);
    assert_eq!(rig.receive(&invite()), ["200 INVITE"], "the repetition on the new connection gets it");
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    assert_eq!(rig.bye(), ["BYE"]);
}

#[test]
fn limits_turn_new_calls_away_and_keep_those_that_are() {
    let config = EndpointConfig { dialogs_max: 1, ..EndpointConfig::new("") };
    let mut rig = Rig::with(UDP, config);
    rig.receive(&invite());
    rig.accept();
    let other = invite().replace("c1", "c2").replace("z9hG4bKa", "z9hG4bKc2");
    let tag = rig.tag.clone();
    assert_eq!(rig.receive(&other), ["503 INVITE"]);
    assert_eq!(rig.header("Retry-After"), "5");
    rig.tag = tag;
    rig.receive(&ack(1));
    rig.receive(&request("BYE", 2, "b", "{tag}", ""));
    assert_eq!(rig.receive(&other), ["Invite"]);
    assert_eq!(rig.endpoint.counters().refused_dialogs, 1);

    let config = EndpointConfig { transactions_max: 1, ..EndpointConfig::new("") };
    let mut rig = Rig::with(UDP, config);
    rig.receive(&invite());
    rig.accept();
    let tag = rig.tag.clone();
    assert_eq!(rig.receive(&other), ["503 INVITE"]);
    assert_eq!(rig.receive(&request("OPTIONS", 1, "o", "", "").replace("c1", "c3")), ["503 OPTIONS"]);
    rig.tag = tag;
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    assert_eq!(rig.receive(&request("BYE", 2, "b", "{tag}", "")), ["200 BYE", "Bye", "Ended PeerBye"]);
    assert_eq!(rig.endpoint.counters().refused_transactions, 2);
}

#[test]
fn calls_without_tags_and_branches_work_as_in_rfc_2543() {
    let old = |text: &str| text.replace(";branch=z9hG4bKa", "").replace(";tag=f", "");
    let mut rig = Rig::new(UDP);
    assert_eq!(rig.receive(&old(&invite())), ["Invite"]);
    assert_eq!(rig.accept(), ["200 INVITE"]);
    assert_eq!(rig.receive(&old(&invite())), ["200 INVITE"]);
    assert_eq!(rig.receive(&old(&ack_refusal(1, "a"))), ["Acked"]);
    let bye = old(&request("BYE", 2, "a", "{tag}", ""));
    assert_eq!(rig.receive(&bye), ["200 BYE", "Bye", "Ended PeerBye"]);
}

#[test]
fn a_pause_of_the_process_is_not_caught_up() {
    let mut rig = Rig::new(UDP);
    rig.receive(&invite());
    rig.accept();
    rig.now = rig.now.after(20_000 * rig::MS);
    rig.endpoint.handle_timeout(rig.now);
    assert_eq!(rig.drain(), ["200 INVITE"], "one repetition, not six");
}

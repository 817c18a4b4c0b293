//! Connections of our own making: for requests and answers whose connection is closed.

#![allow(clippy::unwrap_used)]

mod rig;

use callvault_sip::{Accept, Message, TransportKind};
use rig::{Rig, ack, call, flow, invite, request};

const UDP: TransportKind = TransportKind::Udp;
const TCP: TransportKind = TransportKind::Tcp;
const TLS: TransportKind = TransportKind::Tls;

const ANSWER: &str = "SIP/2.0 200 OK\nVia: SIP/2.0/TCP 192.0.2.1:5060;branch={branch}\nCSeq: 1 BYE\n\n";

#[test]
fn our_bye_goes_over_a_new_connection() {
    let mut rig = call(TCP);
    rig.close_flow();
    assert_eq!(rig.bye(), ["Connect tcp 192.0.2.9:5070"]);
    assert_eq!(rig.connected(7), ["BYE"]);
    assert!(rig.header("Via").starts_with("SIP/2.0/TCP 192.0.2.1:5060;"), "the listener's port, not the socket's");
    assert_eq!(rig.receive(ANSWER), ["Ended OwnBye Some(200)"]);
    assert!(rig.wait(100_000).is_empty());
}

#[test]
fn our_bye_that_was_under_way_is_sent_once_more() {
    let mut rig = call(TCP);
    assert_eq!(rig.bye(), ["BYE"]);
    let first = rig.last_sent().to_bytes();
    assert_eq!(rig.close_flow(), ["Connect tcp 192.0.2.9:5070"]);
    assert_eq!(rig.connected(7), ["BYE"]);
    assert_eq!(rig.last_sent().to_bytes(), first, "the same transaction");
    assert_eq!(rig.close_flow(), ["Ended Unreachable"], "not a third time");

    let mut rig = Rig::new(TCP);
    rig.receive(&invite().replace("<sip:192.0.2.9:5070>", "<sip:10.0.0.1:5080>"));
    rig.accept();
    rig.receive(&ack(1));
    rig.bye();
    assert_eq!(rig.close_flow(), ["Connect tcp 10.0.0.1:5080"]);
    rig.connected(7);
    assert_eq!(rig.close_flow(), ["Ended Unreachable"], "nor at another address");
}

#[test]
fn a_connection_that_cannot_be_made() {
    let mut rig = call(TCP);
    rig.close_flow();
    rig.bye();
    assert_eq!(rig.connect_failed(), ["Ended Unreachable"]);
    assert!(rig.connect_failed().is_empty(), "told twice");
    assert!(rig.connected(7).is_empty(), "too late");

    let mut rig = call(TCP);
    rig.close_flow();
    rig.bye();
    assert_eq!(rig.wait(100_000), ["32000 Ended Unreachable"], "nothing is heard of it");
    assert!(rig.connected(7).is_empty());
    assert_eq!(rig.endpoint.deadline(), None);
}

#[test]
fn a_peer_that_connects_meanwhile_is_asked_there() {
    let mut rig = call(TCP);
    rig.close_flow();
    rig.bye();
    rig.flow = flow(TCP, 3);
    let update = request("UPDATE", 2, "u", "{tag}", "");
    assert_eq!(rig.receive(&update), ["481 UPDATE"], "it is ending");
    assert_eq!(rig.connect_failed(), ["BYE"]);
}

#[test]
fn datagrams_need_no_connection() {
    let mut rig = call(UDP);
    rig.close_flow();
    assert_eq!(rig.bye(), ["Ended Unreachable"]);
}

fn check_destination(kind: TransportKind, invite_more: &str, contact: &str, want: &[&str]) {
    let mut rig = Rig::new(kind);
    rig.receive(&request("INVITE", 1, "a", "", invite_more).replace("<sip:192.0.2.9:5070>;+sip.src", contact));
    rig.accept();
    rig.receive(&ack(1));
    rig.close_flow();
    let mut seen = rig.bye();
    for _ in 1..want.len() {
        seen.extend(rig.connect_failed());
    }
    assert_eq!(seen, want, "{contact} {invite_more}");
    assert_eq!(rig.connect_failed(), ["Ended Unreachable"]);
}

#[test]
fn where_connections_go() {
    check_destination(TCP, "", "<sip:192.0.2.9:5070>", &["Connect tcp 192.0.2.9:5070"]);
    check_destination(TCP, "", "<sip:a@192.0.2.9>", &["Connect tcp 192.0.2.9:5060"]);
    check_destination(TCP, "", "<sip:192.0.2.9:5070;transport=TLS>", &["Connect tls 192.0.2.9:5070"]);
    check_destination(TCP, "", "<sips:192.0.2.9>", &["Connect tls 192.0.2.9:5061"]);
    check_destination(TLS, "", "<sip:192.0.2.9;transport=tcp>", &["Connect tls 192.0.2.9:5061"]);
    check_destination(TCP, "", "<sip:client.example:5080>", &["Connect tcp 192.0.2.9:5080"]);
    check_destination(TCP, "", "<sip:0.0.0.0:5080>", &["Connect tcp 192.0.2.9:5080"]);
    check_destination(TCP, "", "<sip:[2001:db8::9]:5080>", &["Connect tcp 192.0.2.9:5080"]);
    check_destination(TCP, "", "<sip:192.0.2.9:0>", &["Connect tcp 192.0.2.9:5060"]);
    check_destination(TCP, "", "<sip:10.0.0.1:5080>", &["Connect tcp 10.0.0.1:5080", "Connect tcp 192.0.2.9:5080"]);
    let route = "Record-Route: <sip:198.51.100.1:5090;lr>,<sip:p2;lr>";
    let both = ["Connect tcp 198.51.100.1:5090", "Connect tcp 192.0.2.9:5090"];
    check_destination(TCP, route, "<sip:10.0.0.1>", &both);
}

/// A second call on the same connection.
fn second_call(rig: &mut Rig) {
    let text = |text: &str| text.replace("c1", "c2").replace("z9hG4bK", "z9hG4bKother");
    assert_eq!(rig.receive(&text(&invite())), ["Invite"]);
    rig.accept();
    assert_eq!(rig.receive(&text(&ack(1))), ["Acked"]);
}

#[test]
fn dialogs_share_a_connection() {
    let mut rig = call(TCP);
    let first = rig.dialog;
    second_call(&mut rig);
    rig.close_flow();
    assert_eq!(rig.bye(), ["Connect tcp 192.0.2.9:5070"]);
    rig.dialog = first;
    assert!(rig.bye().is_empty(), "the same one is waited for");
    assert_eq!(rig.connected(7), ["BYE", "BYE"]);

    let mut rig = call(TCP);
    let first = rig.dialog;
    second_call(&mut rig);
    rig.close_flow();
    rig.bye();
    rig.connected(7);
    rig.dialog = first;
    assert_eq!(rig.bye(), ["BYE"], "the open one is used");

    let mut rig = call(TCP);
    let first = rig.dialog;
    second_call(&mut rig);
    rig.close_flow();
    rig.bye();
    rig.connected(7);
    assert_eq!(rig.close_flow(), ["Ended Unreachable"], "it was its second");
    rig.dialog = first;
    assert_eq!(rig.bye(), ["Connect tcp 192.0.2.9:5070"], "a closed one is not used");
}

#[test]
fn an_update_goes_over_a_new_connection_and_the_dialog_stays_there() {
    let mut rig = call(TCP);
    rig.close_flow();
    assert!(rig.endpoint.update_request(rig.now, rig.dialog.unwrap(), None, Vec::new()));
    assert_eq!(rig.drain(), ["Connect tcp 192.0.2.9:5070"]);
    assert_eq!(rig.connected(7), ["UPDATE"]);
    assert_eq!(rig.receive(&ANSWER.replace("BYE", "UPDATE")), ["UPDATE answered Some(200)"]);
    assert_eq!(rig.bye(), ["BYE"]);
    assert!(rig.header("Via").starts_with("SIP/2.0/TCP 192.0.2.1:5060;"), "the listener's port, not the socket's");

    let mut rig = call(TCP);
    rig.close_flow();
    rig.endpoint.update_request(rig.now, rig.dialog.unwrap(), None, Vec::new());
    rig.drain();
    assert_eq!(rig.connect_failed(), ["UPDATE answered None"]);
    assert_eq!(rig.endpoint.dialogs(), 1);
}

#[test]
fn the_answer_to_an_invite_finds_its_way() {
    let mut rig = Rig::new(TCP);
    rig.receive(&invite());
    rig.close_flow();
    assert_eq!(rig.accept(), ["Connect tcp 192.0.2.9:5070"]);
    assert!(rig.wait(600).is_empty(), "nothing to repeat it on yet");
    assert_eq!(rig.connected(7), ["200 INVITE"]);
    assert_eq!(rig.receive(&ack(1)), ["Acked"]);
    assert_eq!(rig.bye(), ["BYE"]);

    let mut rig = Rig::new(TCP);
    rig.receive(&invite());
    rig.accept();
    rig.close_flow();
    assert_eq!(rig.wait(600), ["500 Connect tcp 192.0.2.9:5070"], "the first one may have been lost with it");
    assert_eq!(rig.connected(7), ["200 INVITE"]);

    let mut rig = Rig::new(TCP);
    rig.receive(&invite());
    rig.close_flow();
    assert_eq!(rig.reject(503), ["Connect tcp 192.0.2.9:5070", "Ended Rejected 503"]);
    assert_eq!(rig.connected(7), ["503 INVITE"]);

    let mut rig = Rig::new(TCP);
    rig.receive(&invite());
    rig.close_flow();
    rig.accept();
    assert!(rig.connect_failed().is_empty());
    assert_eq!(rig.wait(100_000), ["32000 AckTimeout"], "tried once");
}

fn check_no_way_back(kind: TransportKind, message: &str) {
    let mut rig = Rig::new(kind);
    rig.receive(message);
    rig.close_flow();
    assert!(rig.accept_with(Accept::default()).is_empty(), "{message}");
    assert_eq!(rig.endpoint.counters().unsendable, 1);
}

#[test]
fn answers_that_are_dropped_with_their_connection() {
    let via = |sent_by: &str| invite().replace("UDP 192.0.2.9:5070", &format!("TCP {sent_by}"));
    check_no_way_back(TCP, &via("client.example:5070"));
    check_no_way_back(TCP, &via("198.51.100.7:5070"));
    check_no_way_back(TCP, &via("192.0.2.9:0"));
    check_no_way_back(TCP, &request("OPTIONS", 1, "o", "", ""));
    check_no_way_back(UDP, &invite());
}

#[test]
fn a_repetition_on_a_new_connection_is_answered_there() {
    let mut rig = Rig::new(TCP);
    rig.receive(&invite());
    rig.close_flow();
    rig.accept();
    let connect = rig.connect;
    rig.flow = flow(TCP, 2);
    assert_eq!(rig.receive(&invite()), ["200 INVITE"]);
    let Message::Response(answer) = rig.last_sent().clone() else { panic!() };
    assert_eq!(answer.status, 200);
    rig.endpoint.connected(rig.now, connect.unwrap(), &flow(TCP, 9));
    assert!(rig.drain().is_empty(), "it has its answer");
}

//! Messages in the shapes of real clients and of none: what is forgiven, what is noted, what is refused and how.

#![allow(clippy::unwrap_used)]

mod rig;

use callvault_sip::{
    Limits, Message, MessageFlaw, Method, NameAddr, ParseError, Request, TransportKind, is_recording_session,
    multipart, parse_datagram,
};
use rig::{Rig, flow, request};

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn parsed(bytes: &[u8]) -> Request {
    match parse_datagram(bytes, &Limits::default()) {
        Ok(Some(Message::Request(request))) => request,
        other => panic!("{other:?}"),
    }
}

/// The shape of Webex Calling's INVITE: no Require, a bare `src` on the Contact, empty fields, no space behind the colons of the part
/// headers, metadata in front of the offer, a foreign Route on top.
const WEBEX: &str = "INVITE sip:192.0.2.1:5060;transport=udp SIP/2.0
Via:SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bKBroadWorksRec.1
Route:<sip:CRP.vendor.region.example;lr>
From:\"Ann Example\"<sip:+15551230100@198.51.100.7;user=phone>;tag=927-17
To:<sip:192.0.2.1:5060>
Call-ID:BW0930-rec@198.51.100.7
CSeq:880 INVITE
Contact:<sip:198.51.100.7:5060;transport=udp>;src
Supported:
Recv-Info:
Privacy:none
X-BroadWorks-Correlation-Info:2f1e6d8a-0000-4000-8000-000000000001
Session-ID:0123456789abcdef0123456789abcdef;remote=00000000000000000000000000000000
Accept:application/media_control+xml,application/sdp,application/x-broadworks-call-center+xml
Allow:ACK,BYE,CANCEL,INFO,INVITE,OPTIONS,PRACK,REFER,NOTIFY
Max-Forwards:69
Content-Type:multipart/mixed;boundary=UniqueBroadWorksBoundary

--UniqueBroadWorksBoundary
Content-Type:application/rs-metadata+xml
Content-Disposition:recording-session

<?xml version=\"1.0\"?><recording_metadata/>
--UniqueBroadWorksBoundary
Content-Type:application/sdp

v=0
m=audio 4000 RTP/AVP 0
--UniqueBroadWorksBoundary--
";

#[test]
fn a_webex_invite_is_a_recording_session() {
    let request = parsed(&crlf(WEBEX));
    assert!(request.flaws.is_empty());
    assert_eq!(request.headers.get("supported"), Some(""));
    assert_eq!(request.headers.get("Recv-Info"), Some(""));
    let from = NameAddr::parse(request.headers.get("From").unwrap());
    assert_eq!((from.display_name(), from.uri().user()), (Some("Ann Example"), Some("+15551230100")));
    let hints = is_recording_session(&request);
    assert!(hints.is_recording() && hints.contact_tag && hints.metadata && !hints.required);
    let bodies = multipart::bodies(&request).unwrap();
    assert!(bodies.flaws.is_empty());
    assert_eq!(bodies.parts.len(), 2);
    assert_eq!(bodies.recording_metadata().unwrap().body, b"<?xml version=\"1.0\"?><recording_metadata/>");
    assert_eq!(bodies.sdp().unwrap().body, b"v=0\r\nm=audio 4000 RTP/AVP 0");
    let mut rig = Rig::new(TransportKind::Udp);
    assert_eq!(rig.receive(WEBEX), ["Invite"]);
    assert_eq!(rig.accept(), ["200 INVITE"]);
    assert_eq!(rig.last_peer(), "192.0.2.9:5060");
}

fn check_hints(more: &str, contact: &str, recording: bool) {
    let text = request("INVITE", 1, "a", "", more).replace("<sip:192.0.2.9:5070>;+sip.src", contact);
    assert_eq!(is_recording_session(&parsed(&crlf(&text))).is_recording(), recording, "{more} {contact}");
}

#[test]
fn signs_of_a_recording_session() {
    check_hints("", "<sip:h>", false);
    check_hints("Supported: siprec", "<sip:h>", false);
    check_hints("Content-Type: application/sdp\n\nv=0\n", "<sip:h>", false);
    check_hints("Require: 100rel, SIPREC", "<sip:h>", true);
    check_hints("", "<sip:h>;+sip.src", true);
    check_hints("", "<sip:h>;+sip.src=\"TRUE\"", true);
    check_hints("", "<sip:h>;src", true);
    check_hints("", "<sip:h;+sip.src>", true);
    check_hints("", "<sip:h;+sip.src", true);
    check_hints("", "sip:h;+sip-src", true);
    check_hints("", "<sip:x>, <sip:h>;+sip.src", true);
    check_hints("", "<sip:h>;srcx", false);
    check_hints("Content-Type: application/rs-metadata\n\n<x/>\n", "<sip:h>", true);
    check_hints("Content-Type: application/RS-metadata+xml\n\n<x/>\n", "<sip:h>", true);
    check_hints("Content-Disposition: recording-session\nContent-Type: text/xml\n\n<x/>\n", "<sip:h>", true);
    check_hints("X-Cisco-Recording-Participant: sip:1@h;media-index=\"0\"", "<sip:h>", true);
}

fn check_reads(text: &[u8], flaws: &[MessageFlaw], subject: &str, body: &[u8]) {
    let request = parsed(text);
    let got = (request.headers.get("Subject").unwrap_or("(none)"), request.body.as_slice(), request.flaws.as_slice());
    assert_eq!(got, (subject, body, flaws), "{:?}", String::from_utf8_lossy(text));
}

#[test]
fn what_is_forgiven_in_a_datagram() {
    use MessageFlaw::*;
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nSubject: x\r\n\r\n", &[], "x", b"");
    check_reads(b"OPTIONS sip:a SIP/2.0\nSubject: x\n\nbody", &[], "x", b"body");
    check_reads(b"\r\n\r\n OPTIONS   sip:a \t sip/2.0  \r\ns : x \t\r\n\r\n", &[], "x", b"");
    check_reads(b"OPTIONS <sip:a> SIP/2.0\r\nSUBJECT:x\r\n\r\n", &[], "x", b"");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nSubject: a\r\n b\r\n\t c\r\n\r\n", &[], "a b c", b"");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nSubject:\r\n x\r\nSubject: y\r\n\r\n", &[], "x", b"");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nSubject: \r\n\r\n", &[], "", b"");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nSubject: a\rVia: b\0\r\n\r\n", &[], "a Via: b", b"");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nSubject: \xfc\r\n\r\n", &[HeaderNotUtf8], "\u{fc}", b"");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\njunk\r\n: y\r\nSubject: x\r\n\r\n", &[HeaderLine], "x", b"");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nSubject: x", &[HeaderSectionUnterminated], "x", b"");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nl: 2\r\nSubject: x\r\n\r\nabcd", &[BytesBehindBody], "x", b"ab");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nl: x\r\n\r\nabcd", &[ContentLengthMalformed], "(none)", b"abcd");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\nabcd", &[ContentLengthMalformed], "(none)", b"abcd");
    check_reads(b"OPTIONS sip:a SIP/2.0\r\nl: 4\r\nContent-Length: 4\r\n\r\nabcd", &[], "(none)", b"abcd");
}

fn check_fails(text: &[u8], error: ParseError) {
    let got = parse_datagram(text, &Limits { header_bytes_max: 200, headers_max: 3, body_bytes_max: 10 });
    assert_eq!(got, Err(error), "{:?}", String::from_utf8_lossy(text));
}

#[test]
fn what_cannot_be_forgiven() {
    check_fails(b"GET / HTTP/1.1\r\n\r\n", ParseError::NotSip);
    check_fails(b"\x16\x03\x01\x02\x00", ParseError::NotSip);
    check_fails(b"OPTIONS sip:a SIP/3.0\r\n\r\n", ParseError::Version);
    check_fails(b"SIP/1.0 200 OK\r\n\r\n", ParseError::Version);
    check_fails(b"OPTIONS SIP/2.0\r\n\r\n", ParseError::StartLine);
    check_fails(b"OPT(IONS sip:a SIP/2.0\r\n\r\n", ParseError::StartLine);
    check_fails(b"SIP/2.0 99 X\r\n\r\n", ParseError::StartLine);
    check_fails(b"SIP/2.0 700 X\r\n\r\n", ParseError::StartLine);
    check_fails(b"SIP/2.0\r\n\r\n", ParseError::StartLine);
    let long = format!("OPTIONS sip:a SIP/2.0\r\nSubject: {}\r\n\r\n", "x".repeat(200));
    check_fails(long.as_bytes(), ParseError::HeaderBytes { limit_bytes: 200 });
    check_fails(b"OPTIONS sip:a SIP/2.0\r\na:1\r\nb:2\r\nc:3\r\nd:4\r\n\r\n", ParseError::HeaderCount { limit: 3 });
    check_fails(b"OPTIONS sip:a SIP/2.0\r\n\r\n12345678901", ParseError::BodyBytes { limit_bytes: 10 });
    check_fails(b"OPTIONS sip:a SIP/2.0\r\nl: 11\r\n\r\n", ParseError::BodyBytes { limit_bytes: 10 });
    check_fails(
        b"OPTIONS sip:a SIP/2.0\r\nl: 99999999999999999999999\r\n\r\n",
        ParseError::BodyBytes { limit_bytes: 10 },
    );
    check_fails(b"OPTIONS sip:a SIP/2.0\r\nl: 5\r\n\r\nabcd", ParseError::BodyTruncated { declared: 5, got: 4 });
}

#[test]
fn keep_alives_are_no_messages() {
    for keep_alive in [&b""[..], b"\r\n\r\n", b"\0\0\0\0", b" \r\n"] {
        assert_eq!(parse_datagram(keep_alive, &Limits::default()), Ok(None));
    }
}

fn check_refused(kind: TransportKind, bytes: &[u8], want: &[&str]) {
    let mut rig = Rig::new(kind);
    assert_eq!(rig.receive_bytes(bytes), want, "{:?}", String::from_utf8_lossy(bytes));
}

#[test]
fn what_cannot_be_read_is_refused_when_it_can_be() {
    let (udp, tcp) = (TransportKind::Udp, TransportKind::Tcp);
    let cut = crlf(&request("INVITE", 1, "a", "", "Content-Length: 100\n\nv=0\n"));
    check_refused(udp, &cut, &["400 INVITE"]);
    check_refused(tcp, &cut, &["400 INVITE", "close"]);
    let large = crlf(&request("INVITE", 1, "a", "", "Content-Length: 10000000\n\nv=0\n"));
    check_refused(udp, &large, &["413 INVITE"]);
    check_refused(tcp, &large, &["413 INVITE", "close"]);
    check_refused(udp, &crlf(&request("INVITE", 1, "a", "", "").replace("SIP/2.0\n", "SIP/7.0\n")), &["505 INVITE"]);
    let many = crlf(&request("INVITE", 1, "a", "", &"X: y\n".repeat(300)));
    check_refused(udp, &many, &["513 INVITE"]);
    check_refused(udp, &crlf(&request("ACK", 1, "a", "", "Content-Length: 100\n\nv=0\n")), &[]);
    check_refused(udp, b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z\r\nl: 4\r\n\r\n", &[]);
    check_refused(tcp, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &["close"]);
    check_refused(udp, b"INVITE sip:a SIP/2.0\r\nl: 4\r\n\r\n", &[]);
}

#[test]
fn a_body_truncated_on_udp_says_so() {
    let mut rig = Rig::new(TransportKind::Udp);
    rig.receive_bytes(&crlf(&request("INVITE", 1, "a", "", "Content-Length: 100\n\nv=0\n")));
    let Message::Response(response) = rig.last_sent().clone() else { panic!() };
    assert_eq!((response.status, response.reason.as_str()), (400, "Body Truncated"));
    assert_eq!(rig.endpoint.counters().invalid_answered, 1);
}

#[test]
fn latin1_and_odd_spelling_are_echoed_byte_for_byte() {
    let mut text = crlf(&request("OPTIONS", 1, "a", "", ""));
    let at = text.windows(3).position(|window| window == b"Ann").unwrap();
    text[at + 1] = 0xfc;
    let mut rig = Rig::new(TransportKind::Udp);
    assert_eq!(rig.receive_bytes(&text), ["Options"]);
    let flow = flow(TransportKind::Udp, 1);
    assert!(rig.endpoint.accept(rig.now, rig.tx.unwrap(), Default::default()));
    let Some(callvault_sip::Output::Send { bytes, .. }) = rig.endpoint.poll() else { panic!() };
    assert!(bytes.windows(3).any(|window| window == b"A\xfcn"), "{}", flow.peer);
}

/// An INVITE with these Vias is answered, with these, and nothing of it stays.
fn check_vias(vias: &str, want: &[&str]) {
    let mut rig = Rig::new(TransportKind::Udp);
    let invite = request("INVITE", 1, "a", "", "Require: siprec");
    let invite = invite.replace("Via: SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKa;rport\n", vias);
    assert_eq!(rig.receive(&invite), ["Invite"], "{vias}");
    assert_eq!(rig.accept(), ["200 INVITE"], "{vias}");
    let answered: Vec<_> = rig.last_sent().headers().all("Via").map(|via| via.value().to_owned()).collect();
    assert_eq!(answered, want, "{vias}");
    rig.bye();
    rig.wait(200_000);
    assert_eq!((rig.endpoint.dialogs(), rig.endpoint.transactions()), (0, 0), "{vias}");
}

#[test]
fn empty_vias_are_passed_over() {
    let top = "SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKa";
    check_vias(&format!("Via: {top}\n"), &[top]);
    check_vias(&format!("Via: , {top}\n"), &[top]);
    check_vias(
        &format!("Via:\nVia: ,,\nVia: {top}, SIP/2.0/TCP p\nVia: SIP/2.0/TLS q\n"),
        &[&format!("{top}, SIP/2.0/TCP p"), "SIP/2.0/TLS q"],
    );
}

/// Our BYE in a dialog whose INVITE had these lines goes to this Request-URI, through these routes.
fn check_bye(contact: &str, from: &str, record_route: &str, uri: &str, routes: &[&str]) {
    let mut rig = Rig::new(TransportKind::Udp);
    let invite = request("INVITE", 1, "a", "", "Require: siprec");
    let invite = invite.replace("<sip:192.0.2.9:5070>;+sip.src", contact);
    let invite = invite.replace("\"Ann\" <sip:+15551230100@192.0.2.9;user=phone>", from);
    let invite = invite.replace("Require:", &format!("Record-Route: {record_route}\nRequire:"));
    assert_eq!(rig.receive(&invite), ["Invite"], "{invite}");
    rig.accept();
    rig.receive(&request("ACK", 1, "ack", "{tag}", ""));
    assert_eq!(rig.bye(), ["BYE"], "{invite}");
    let Message::Request(bye) = rig.last_sent() else { panic!("no request") };
    let sent: Vec<_> = bye.headers.all("Route").map(|route| route.value()).collect();
    assert_eq!((bye.uri.as_str(), sent.as_slice()), (uri, routes), "{invite}");
}

#[test]
fn our_bye_always_has_somewhere_to_go() {
    check_bye("<sip:h:1>", "<sip:a@b>", "", "sip:h:1", &[]);
    check_bye("", "<sip:a@b>", "<sip:p;lr>", "sip:a@b", &["<sip:p;lr>"]);
    check_bye("<>", "\"Ann\"", "<>, <>;lr", "sip:192.0.2.9:5070", &[]);
    check_bye("<tel:+15551230100>", "<tel:+15551230100>", "", "sip:192.0.2.9:5070", &[]);
}

#[test]
fn a_request_uri_is_without_its_brackets() {
    for uri in ["sip:a", "<sip:a>", "< sip:a >", "<<sip:a>>", "<sip:a>\0>", "sip:a> > "] {
        let request = parsed(format!("OPTIONS {uri} SIP/2.0\r\n\r\n").as_bytes());
        assert_eq!(request.uri.as_str(), "sip:a", "{uri:?}");
    }
}

#[test]
fn names_numbers_and_bodies_stay_out_of_debug() {
    let request = parsed(&crlf(WEBEX));
    let text = format!("{request:?} {:?}", multipart::bodies(&request).unwrap());
    let from = NameAddr::parse(request.headers.get("From").unwrap());
    let text = format!("{text} {from:?}");
    for secret in ["Ann", "5551230100", "recording_metadata"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(request.method, Method::Invite);
}

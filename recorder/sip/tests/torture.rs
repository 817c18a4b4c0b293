//! The torture test messages of RFC 4475, in our own words under the RFC's names: what each is understood as and answered with.
//!
//! Where the RFC wants a message refused and it is taken here, the line says why. The rule is that a message is taken when its purpose
//! and its end can be known, because behind it stands a call that nobody else records.

#![allow(clippy::unwrap_used)]

mod rig;

use callvault_sip::{
    CSeq, Limits, Message, MessageFlaw, NameAddr, ParseError, Request, StreamParser, TransportKind, multipart,
    parse_datagram,
};
use rig::{Rig, answers_of};

/// The file of a message.
fn torture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/torture/{name}.sip", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn parsed(name: &str) -> Message {
    parse_datagram(&torture(name), &Limits::default()).unwrap().unwrap()
}

fn request(name: &str) -> Request {
    match parsed(name) {
        Message::Request(request) => request,
        Message::Response(_) => panic!("{name} is a response"),
    }
}

/// What an endpoint does with the message in a datagram; an INVITE or OPTIONS that is passed on is accepted.
fn check(name: &str, want: &[&str]) {
    let mut rig = Rig::new(TransportKind::Udp);
    let mut seen = rig.receive_bytes(&torture(name));
    if rig.tx.is_some() {
        seen.extend(rig.accept());
    }
    assert_eq!(seen, want, "{name}");
}

/// What comes of the message on a connection: the error that closes it, or nothing.
fn check_stream(name: &str, want: Option<ParseError>) {
    let mut parser = StreamParser::new(Limits::default());
    parser.push(&torture(name));
    let mut fault = None;
    loop {
        match parser.poll() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                fault = Some(error.error);
                break;
            }
        }
    }
    assert_eq!(fault, want, "{name}");
}

/// One thing that a message says, in a word of this test.
fn said(request: &Request, what: &str) -> String {
    let text = |name: &str| request.headers.get(name).unwrap_or("(none)").to_owned();
    let (field, part) = what.split_once('.').unwrap_or((what, ""));
    let address = || NameAddr::parse(&text(field));
    match (field, part) {
        ("method", _) => request.method.to_string(),
        ("uri", "") => request.uri.as_str().to_owned(),
        ("uri", "scheme") => request.uri.scheme().to_owned(),
        ("uri", "user") => request.uri.user().unwrap_or("(none)").to_owned(),
        ("uri", "host") => request.uri.host().to_owned(),
        ("cseq", _) => CSeq::parse(&text("CSeq")).map(|cseq| format!("{} {}", cseq.number, cseq.method)).unwrap(),
        ("flaws", _) => format!("{:?}", request.flaws),
        ("body", _) => request.body.len().to_string(),
        ("all", name) => request.headers.list(name).join(" | "),
        (_, "name") => address().display_name().unwrap_or("(none)").to_owned(),
        (_, "uri") => address().uri().as_str().to_owned(),
        (_, "user") => address().uri().user().unwrap_or("(none)").to_owned(),
        (_, "host") => address().uri().host().to_owned(),
        (_, "tag") => address().tag().unwrap_or("(none)").to_owned(),
        (_, "params") => address().params().to_string(),
        (_, "uri-params") => address().uri().params().to_string(),
        (_, _) => text(field),
    }
}

fn check_said(name: &str, what: &str, want: &str) {
    assert_eq!(said(&request(name), what), want, "{name} {what}");
}

const TAKEN: &[&str] = &["Invite", "200 INVITE"];
const PING: &[&str] = &["Options", "200 OPTIONS"];

/// Section 3.1.1.1: everything that is allowed and nobody writes.
#[test]
fn wsinv() {
    // It claims to be within a dialog, and is in none of ours.
    check("wsinv", &["481 INVITE"]);
    check_said("wsinv", "uri", "sip:recorder@rec.example;maybe");
    check_said("wsinv", "to.uri", "sip:recorder@rec.example");
    check_said("wsinv", "to.tag", "77ab");
    check_said("wsinv", "from.name", "Ann \\ \"of\" Example");
    check_said("wsinv", "from.tag", "1f00");
    check_said("wsinv", "max-forwards", "0068");
    check_said("wsinv", "cseq", "9 INVITE");
    check_said("wsinv", "subject", "");
    check_said("wsinv", "newfangledheader", "a value nobody knows on more than one line");
    check_said("wsinv", "contact.name", "Quoted name \"\"");
    check_said("wsinv", "contact.params", ";newparam=newvalue;secondparam;q=0.33");
    check_said("wsinv", "flaws", "[]");
    assert_eq!(request("wsinv").headers.list("Via").len(), 3);
    let vias = answers_of(&torture("wsinv"))[0].headers.list("Via").join(" | ");
    let first = "SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKwsinv1";
    assert!(vias.starts_with(first), "{vias}");
}

/// Section 3.1.1.2: every character that may stand somewhere.
#[test]
fn intmeth() {
    check("intmeth", &["501 !odd-Method0123456789_*+`.%of'course~"]);
    check_said("intmeth", "uri.host", "rec.example");
    check_said("intmeth", "uri.user", "1_odd.URI~(to-be!true)&isn't+it$/queer?,/;;*");
    check_said("intmeth", "from.name", "token1~` token2'+_ token3*%!.-");
    check_said("intmeth", "from.tag", "_token~1'+`*%!-.");
    // A NUL cannot be kept where it might end a text early: it is read as a space.
    check_said("intmeth", "to.name", "BEL:\u{7} NUL:  DEL:\u{7f}");
    check_said("intmeth", "call-id", "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{");
    assert_eq!(request("intmeth").headers.get("EXTENSIONHEADER-!.%*+_`'~"), Some("\u{feff}大停電"));
}

/// Sections 3.1.1.3 to 3.1.1.5: escapes are kept as they are written, and so are never taken for what they stand for.
#[test]
fn escapes() {
    check("esc01", TAKEN);
    check_said("esc01", "uri.user", "sips%3Auser%40inner.example");
    check_said("esc01", "from.user", "I%20have%20spaces");
    check_said("esc01", "contact.uri-params", ";%6C%72;n%61me=v%61lue%25%34%31");
    check("escnull", &["405 REGISTER"]);
    check_said("escnull", "to.user", "null-%00-null");
    check_said("escnull", "all.contact", "<sip:%00@192.0.2.9> | <sip:%00%00@192.0.2.9>");
    check("esc02", &["501 RE%47IST%45R"]);
    check_said("esc02", "to.name", "%Z%45");
}

/// Sections 3.1.1.6 to 3.1.1.10.
#[test]
fn odd_but_valid() {
    check("lwsdisp", PING);
    check_said("lwsdisp", "from.name", "caller");
    check_said("lwsdisp", "from.tag", "323");
    check("longreq", TAKEN);
    check_said("longreq", "flaws", "[]");
    assert_eq!(request("longreq").headers.list("Via").len(), 34);
    assert_eq!(said(&request("longreq"), "contact.user"), "caller".repeat(30));
    // What stands behind the end of a datagram's message is dropped, be it a whole INVITE.
    check("dblreq", &["405 REGISTER"]);
    assert_eq!(request("dblreq").flaws, [MessageFlaw::BytesBehindBody]);
    check("semiuri", PING);
    check_said("semiuri", "uri.user", "user;par=u%40inner.example");
    check("transports", PING);
    let vias = answers_of(&torture("transports"))[0].headers.list("Via").join(" | ");
    assert!(vias.ends_with(
        "SIP/2.0/SCTP a.example;branch=z9hG4bKtr2 | SIP/2.0/TLS b.example;branch=z9hG4bKtr3 | \
         SIP/2.0/UNHEARDOF c.example;branch=z9hG4bKtr4 | SIP/2.0/TCP d.example;branch=z9hG4bKtr5"
    ));
}

/// Section 3.1.1.11: a part may hold any bytes.
#[test]
fn mpart01() {
    check("mpart01", &["405 MESSAGE"]);
    let request = request("mpart01");
    let bodies = multipart::bodies(&request).unwrap();
    let parts: Vec<&[u8]> = bodies.parts.iter().map(|part| &*part.body).collect();
    assert_eq!(parts, [b"A note.", &b"0\x82\0\0\r\n--\xff\xfe\r\n\0\x01\x02\x03"[..]]);
}

fn check_response(name: &str, status: u16, reason: &str) {
    let Message::Response(response) = parsed(name) else { panic!("{name} is a request") };
    assert_eq!((response.status, response.reason.as_str()), (status, reason), "{name}");
    check(name, &[]);
}

/// Sections 3.1.1.12, 3.1.1.13, 3.1.2.5, 3.1.2.19 and 3.3.10: answers to nothing of ours, whatever they say.
#[test]
fn responses() {
    check_response("unreason", 200, "= 2**3 * 5**2 но сто девяносто девять - простое");
    check_response("noreason", 100, "");
    check_response("scalarlg", 503, "Service Unavailable");
    check_response("bcast", 200, "OK");
    assert_eq!(parse_datagram(&torture("bigcode"), &Limits::default()), Err(ParseError::StartLine));
    check("bigcode", &[]);
}

/// Sections 3.1.2.1, 3.1.2.6 to 3.1.2.12, 3.1.2.14 and 3.1.2.15: what is said wrongly and can be understood.
#[test]
fn invalid_and_taken() {
    // Separators with nothing between them say nothing.
    check("badinv01", TAKEN);
    check_said("badinv01", "contact.uri", "sip:ann@192.0.2.9");
    // The quote that nobody closes is dropped: the address behind it is whole.
    check("quotbal", TAKEN);
    check_said("quotbal", "to.uri", "sip:j.user@rec.example");
    check_said("quotbal", "to.name", "Mr. J. User");
    // The Request-URI decides nothing here: whoever reached this port meant this recorder.
    check("ltgtruri", TAKEN);
    check_said("ltgtruri", "uri", "sip:recorder@rec.example");
    check("lwsruri", TAKEN);
    check_said("lwsruri", "uri", "sip:recorder@rec.example; lr");
    check("lwsstart", TAKEN);
    check_said("lwsstart", "uri", "sip:recorder@rec.example");
    check("trws", PING);
    // Header fields that a URI wants to have are never added to anything.
    check("escruri", TAKEN);
    check_said("escruri", "route", "(none)");
    // Nothing is decided by Date.
    check("baddate", TAKEN);
    check("badaspec", PING);
    check_said("badaspec", "to.uri", "sip:t.watt@rec.example");
    check("baddn", PING);
    check_said("baddn", "from.name", "Dial, Alexandra");
    check_said("baddn", "from.tag", "43");
}

/// Sections 3.1.2.2 to 3.1.2.4 and 3.3.9: numbers that cannot be, or cannot all be.
#[test]
fn numbers() {
    check("clerr", &["400 INVITE"]);
    check_stream("clerr", None);
    // In a datagram the end is known all the same; on a connection it is not.
    check("ncl", TAKEN);
    assert_eq!(request("ncl").flaws, [MessageFlaw::ContentLengthMalformed]);
    check_stream("ncl", Some(ParseError::ContentLength));
    check("mcl01", PING);
    assert_eq!(request("mcl01").flaws, [MessageFlaw::ContentLengthMalformed]);
    check_stream("mcl01", Some(ParseError::ContentLength));
    check("scalar02", &["400 "]);
}

/// Sections 3.1.2.16 to 3.1.2.18, 3.3.1 and 3.3.8, where it cannot be known which request it is; 3.3.2, 3.3.3 and 3.3.5.
#[test]
fn refused() {
    check("badvers", &["505 OPTIONS"]);
    check("mismatch01", &["400 INVITE"]);
    check("mismatch02", &["400 INVITE"]);
    check("insuf", &["400 INVITE"]);
    check("multi01", &["400 INVITE"]);
    // No call stands behind these: an OPTIONS gets what the RFC says.
    check("unkscm", &["416 OPTIONS"]);
    check("novelsc", &["416 OPTIONS"]);
    check("bext01", &["420 OPTIONS"]);
    assert_eq!(
        answers_of(&torture("bext01"))[0].headers.get("Unsupported"),
        Some("nothingHasThisAtAll, nothingHasThisAsWell")
    );
}

/// Section 3.2.1: the cookie alone is no branch; requests are told apart by what else they say.
#[test]
fn badbranch() {
    let mut rig = Rig::new(TransportKind::Udp);
    assert_eq!(rig.receive_bytes(&torture("badbranch")), ["Options"]);
    let other = String::from_utf8(torture("badbranch")).unwrap().replace("badbranch.1", "badbranch.2");
    assert_eq!(rig.receive(&other), ["Options"], "another request");
    assert!(rig.receive(&other).is_empty(), "the same request");
    assert_eq!(rig.accept(), ["200 OPTIONS"]);
    assert_eq!(rig.receive(&other), ["200 OPTIONS"]);
}

/// Sections 3.1.2.13, 3.3.4, 3.3.6, 3.3.7 and 3.3.11 to 3.4.1.
#[test]
fn application_layer() {
    // Registrations are not served, whatever else is odd about them.
    for name in ["unksm2", "regaut01", "cparam01", "cparam02", "regescrt", "regbadct"] {
        check(name, &["405 REGISTER"]);
    }
    check_said("unksm2", "to.uri", "isbn:2983792873");
    check_said("cparam01", "contact.params", ";unknownparam");
    check_said("cparam01", "contact.uri-params", "");
    check_said("cparam02", "contact.params", "");
    check_said("cparam02", "contact.uri-params", ";unknownparam");
    check_said("regescrt", "contact.host", "192.0.2.9");
    check_said("regbadct", "contact.host", "192.0.2.9");
    // The last hop is still a hop.
    check("zeromf", PING);
    // What a body and an answer may be is for the session layer. Accept is not held against anybody: lists without
    // application/sdp come from clients that send and take nothing else.
    check("invut", TAKEN);
    check("sdp01", TAKEN);
    // Section 3.4.1: neither branch nor tag nor Contact.
    check("inv2543", TAKEN);
    assert!(!request("inv2543").body.is_empty());
}

/// A file without a line above is a file that is forgotten.
#[test]
fn every_message_is_looked_at() {
    let source = include_str!("torture.rs");
    let folder = std::fs::read_dir(format!("{}/tests/torture", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let names: Vec<String> =
        folder.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 49);
    for name in names {
        assert!(source.contains(&format!("\"{name}\"")), "{name}");
    }
}

//! Messages in a stream, however it is cut.

#![allow(clippy::unwrap_used)]

use callvault_sip::{Limits, Message, ParseError, StreamItem, StreamParser};

const ONE: &str =
    "INVITE sip:a SIP/2.0\r\nCall-ID: 1\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nab\r\n\r\n";
const TWO: &str = "OPTIONS sip:a SIP/2.0\r\nCall-ID: 2\r\n\r\n";
const THREE: &str = "SIP/2.0 200 OK\nCall-ID: 3\nl: 0\n\n";

/// What the stream gives when it comes in pieces of `size` bytes: Call-IDs, pings, and the fault at the end.
fn read(stream: &[u8], size: usize, limits: Limits) -> (Vec<String>, Option<ParseError>) {
    let mut parser = StreamParser::new(limits);
    let mut seen = Vec::new();
    for piece in stream.chunks(size) {
        parser.push(piece);
        loop {
            match parser.poll() {
                Ok(Some(StreamItem::Ping)) => seen.push("ping".to_owned()),
                Ok(Some(StreamItem::Message(message))) => seen.push(name(&message)),
                Ok(None) => break,
                Err(fault) => {
                    parser.push(TWO.as_bytes());
                    assert_eq!(parser.poll(), Ok(None), "nothing behind a fault");
                    return (seen, Some(fault.error));
                }
            }
        }
    }
    (seen, None)
}

fn name(message: &Message) -> String {
    message.headers().get("Call-ID").unwrap().to_owned()
}

fn check(stream: &str, want: &[&str], fault: Option<ParseError>) {
    let limits = Limits { header_bytes_max: 300, headers_max: 5, body_bytes_max: 20 };
    for size in 1..=stream.len() {
        let got = read(stream.as_bytes(), size, limits);
        assert_eq!(got, (want.iter().map(|s| (*s).to_owned()).collect(), fault.clone()), "{stream:?} by {size}");
    }
}

#[test]
fn messages_come_whole_however_the_stream_is_cut() {
    check(&format!("{ONE}{TWO}{THREE}{ONE}"), &["1", "2", "3", "1"], None);
    check(&ONE[..ONE.len() - 1], &[], None);
}

#[test]
fn keep_alives_between_messages() {
    check(&format!("\r\n\r\n{TWO}\r\n\r\n\r\n\r\n{ONE}"), &["ping", "2", "ping", "ping", "1"], None);
    check(&format!("\r\n{TWO}\r\n{TWO}"), &["2", "2"], None);
    check(&format!("\n\n{TWO}"), &["ping", "2"], None);
    check(&format!("\r\r\n{TWO}"), &["2"], None);
}

#[test]
fn faults_end_the_stream() {
    let limit_bytes = 20;
    check("GET / HTTP/1.1\r\n\r\n", &[], Some(ParseError::NotSip));
    check("\u{16}\u{3}\u{1}", &[], Some(ParseError::NotSip));
    check(&format!("{TWO}garbage\r\n\r\n"), &["2"], Some(ParseError::NotSip));
    check("OPTIONS sip:a SIP/3.0\r\n", &[], Some(ParseError::Version));
    check("A sip:a SIP/2.0\r\nl: 21\r\n\r\n", &[], Some(ParseError::BodyBytes { limit_bytes }));
    check("A sip:a SIP/2.0\r\nl: 99999999999999999999\r\n\r\n", &[], Some(ParseError::BodyBytes { limit_bytes }));
    check("A sip:a SIP/2.0\r\nl: -1\r\n\r\n", &[], Some(ParseError::ContentLength));
    check("A sip:a SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n", &[], Some(ParseError::ContentLength));
    check("A sip:a SIP/2.0\r\nc: text/plain\r\n\r\n", &[], Some(ParseError::ContentLength));
    check(&format!("A sip:a SIP/2.0\r\n{}\r\n", "X: y\r\n".repeat(6)), &[], Some(ParseError::HeaderCount { limit: 5 }));
    let long = format!("A sip:a SIP/2.0\r\nX: {}", "x".repeat(300));
    check(&long, &[], Some(ParseError::HeaderBytes { limit_bytes: 300 }));
    check(&format!("{long}\r\n\r\n"), &[], Some(ParseError::HeaderBytes { limit_bytes: 300 }));
}

#[test]
fn a_fault_carries_what_an_answer_needs() {
    let mut parser = StreamParser::new(Limits { body_bytes_max: 10, ..Limits::default() });
    parser.push(b"INVITE sip:a SIP/2.0\r\nCall-ID: 1\r\nl: 10000000\r\n\r\nv=0");
    let fault = parser.poll().unwrap_err();
    assert!(fault.raw.starts_with(b"INVITE sip:a SIP/2.0\r\nCall-ID: 1\r\n"));
    assert_eq!(fault.error.status(), 413);
}

#[test]
fn a_driver_can_tell_a_half_message_from_silence() {
    let mut parser = StreamParser::new(Limits::default());
    assert!(!parser.is_within_message());
    parser.push(&ONE.as_bytes()[..ONE.len() - 1]);
    assert_eq!(parser.poll(), Ok(None));
    assert!(parser.is_within_message());
    parser.push(b"\n");
    assert!(matches!(parser.poll(), Ok(Some(StreamItem::Message(_)))));
    assert!(!parser.is_within_message());
}

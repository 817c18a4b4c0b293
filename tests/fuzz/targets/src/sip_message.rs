//! A SIP message, as a datagram and as a stream: what was read is written the same way, and pieces give what the whole gives.

use callvault_sip::multipart::{PARTS_MAX, bodies};
use callvault_sip::{
    CSeq, Headers, Limits, Message, NameAddr, StreamItem, StreamParser, Via, is_recording_session, parse_datagram,
};

/// Low enough that an input can pass each of them; one input in four, by its length, is read under them.
const LOW: Limits = Limits { header_bytes_max: 700, headers_max: 12, body_bytes_max: 300 };

/// Reads the input as a datagram or as a stream.
pub fn run(input: &[u8]) {
    let limits = if input.len() % 8 > 5 { LOW } else { Limits::default() };
    // One way at a time, by the input's length: what reads a message is the same in both.
    if input.len().is_multiple_of(2) {
        check_stream(input, limits);
    } else if let Ok(Some(message)) = parse_datagram(input, &limits) {
        check_message(&message, &limits);
    }
}

fn check_message(message: &Message, limits: &Limits) {
    let body = match message {
        Message::Request(request) => &request.body,
        Message::Response(response) => &response.body,
    };
    assert!(body.len() <= limits.body_bytes_max && message.headers().fields().len() <= limits.headers_max);
    check_headers(message.headers());
    if let Message::Request(request) = message {
        let _ = is_recording_session(request);
        if let Ok(bodies) = bodies(request) {
            assert!(bodies.parts.len() <= PARTS_MAX);
        }
    }
    // A request for nobody is understood, since whoever reached us meant us; but nobody would write it.
    if matches!(message, Message::Request(request) if request.uri.as_str().is_empty()) {
        return;
    }
    let written = message.to_bytes();
    // What is written has its length, which what was read may not have had.
    let limits = Limits { headers_max: limits.headers_max + 1, ..Limits::default() };
    let again = parse_datagram(&written, &limits);
    let Ok(Some(again)) = again else { panic!("what was read does not read when it is written: {again:?}") };
    assert!(again.headers() == message.headers(), "the header fields changed on the way");
    assert!(again.to_bytes() == written, "the message changed on the way");
    let mut stream = StreamParser::new(limits);
    stream.push(&written);
    let Ok(Some(StreamItem::Message(streamed))) = stream.poll() else { panic!("no message when it comes in a stream") };
    assert!(streamed.to_bytes() == written && !stream.is_within_message());
}

/// No value can begin a line of its own, and every tolerant reading takes every value.
fn check_headers(headers: &Headers) {
    for field in headers.fields() {
        assert!(!field.value().contains(['\r', '\n', '\0']) && !field.is("Content-Length"));
        let address = NameAddr::parse(field.value());
        let _ = (address.tag(), address.display_name(), address.uri().socket_addr());
        let _ = CSeq::parse(field.value());
        if let Some(via) = Via::parse(field.value()) {
            let shown = via.to_string();
            assert!(Via::parse(&shown).is_some(), "a Via that is written does not read");
        }
        assert!(headers.list(field.name()).iter().all(|item| !item.is_empty()));
    }
}

/// The stream's items, and whether it ended in a fault, however it is cut.
fn check_stream(input: &[u8], limits: Limits) {
    let whole = read_stream([input], limits);
    let step = 1 + input.len() % 61;
    let cut = read_stream(input.chunks(step), limits);
    assert!(whole == cut, "a stream in pieces of {step} gives something else than the whole");
}

fn read_stream<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: Limits) -> (Vec<StreamItem>, bool) {
    let (mut parser, mut items) = (StreamParser::new(limits), Vec::new());
    for piece in pieces {
        parser.push(piece);
        loop {
            match parser.poll() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(fault) => {
                    assert!(fault.raw.len() <= limits.header_bytes_max);
                    return (items, true);
                }
            }
        }
    }
    (items, false)
}

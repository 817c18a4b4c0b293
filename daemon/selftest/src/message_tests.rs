use std::time::Duration;

use super::*;
use crate::SelftestParams;

fn plan(index: usize) -> CallPlan {
    let address = "127.0.0.1:5060".parse().unwrap();
    CallPlan::new(
        index,
        &SelftestParams {
            transport: Transport::Udp,
            address,
            calls: 4,
            seconds: 2,
            archive_wait: Duration::ZERO,
            run: 3,
        },
    )
}

fn addresses() -> Addresses {
    let at = |text: &str| text.parse().unwrap();
    Addresses {
        transport: Transport::Udp,
        target: at("127.0.0.1:5060"),
        local: at("127.0.0.1:40000"),
        media: [at("127.0.0.1:41000"), at("127.0.0.1:41002")],
    }
}

#[test]
fn an_invite_reads_back_as_what_it_says() {
    for index in 0..4 {
        let text = invite(&plan(index), &addresses());
        let (message, length) = Message::read(text.as_bytes(), false).unwrap().unwrap();
        assert_eq!(length, text.len());
        assert_eq!(message.method(), "INVITE");
        assert_eq!(message.status(), None);
        assert_eq!(message.call_id(), plan(index).call_id);
        assert_eq!(message.header("Content-Length", "l").unwrap(), message.body.len().to_string());
        assert_eq!(message.body.matches("--UniqueBroadWorksBoundary").count(), 3);
        for number in plan(index).numbers {
            assert!(message.body.contains(&number), "{index} lacks {number}");
        }
        let webex = index % 2 == 0;
        assert_eq!(text.contains("Require: siprec"), !webex);
        assert_eq!(
            text.find("rs-metadata+xml\r\nContent-Disposition") < text.find("Content-Type: application/sdp"),
            webex
        );
        // No reader may trip over a line that is indented by accident or has a bare line feed in its head.
        let head = text.split("\r\n\r\n").next().unwrap();
        assert!(head.split("\r\n").all(|line| !line.starts_with(' ') && !line.contains('\n')), "{head}");
    }
}

#[test]
fn a_message_in_a_stream_is_read_when_it_is_whole() {
    let text = b"SIP/2.0 200 OK\r\nCall-ID: a\r\nContact: \"x\" <sip:h:1>;q=1\r\nl: 3\r\n\r\nabcSIP/2.0";
    for length in 0..text.len() - 7 {
        assert_eq!(Message::read(&text[..length], true), Ok(None), "{length}");
    }
    let (message, length) = Message::read(text, true).unwrap().unwrap();
    assert_eq!((message.body.as_str(), length), ("abc", text.len() - 7));
    assert_eq!(message.status(), Some(200));
    assert_eq!(Answered::of(&message, &addresses()).contact, "sip:h:1");
    assert!(Message::read(b"hello", false).is_err());
    assert!(Message::read(&[b'x'; MESSAGE_BYTES_MAX + 1], true).is_err());
    assert!(Message::read(b"SIP/2.0 200 OK\r\nContent-Length: 99999999\r\n\r\n", true).is_err());
}

#[test]
fn the_answer_says_where_to_send_or_what_is_wrong() {
    let check = |sdp: &str, expected: Result<[&str; 2], &str>| match (media_targets(&plan(0), sdp), expected) {
        (Ok(targets), Ok(expected)) => assert_eq!(targets.map(|t| t.to_string()), expected),
        (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
        (got, expected) => panic!("{sdp}\n{got:?}\n{expected:?}"),
    };
    let good = "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 20000 RTP/AVP 0 101\r\na=label:1\r\nm=audio 20002 RTP/AVP 8\r\na=label:2\r\nc=IN IP4 127.0.0.2\r\n";
    check(good, Ok(["127.0.0.1:20000", "127.0.0.2:20002"]));
    check(&good.replace("20002", "0"), Err("declines track 2"));
    check(&good.replace("AVP 8", "AVP 0"), Err("lacks the offered codec (payload type 8) of track 2"));
    check(&good.replace("label:2", "label:7"), Err("does not repeat the label of track 2"));
    check(&good.replace("127.0.0.1", "0.0.0.0"), Err("names no address for track 1"));
    check("v=0\r\nm=audio 1 RTP/AVP 0\r\n", Err("has 1 media lines"));
    check("", Err("has 0 media lines"));
}

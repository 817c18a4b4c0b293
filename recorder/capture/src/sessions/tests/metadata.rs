//! Metadata whose sequence is broken, and the snapshot that is asked for.

use super::*;

const SECOND: u64 = 1_000 * MS;
const SNAPSHOT: &str = include_str!("../../../../../tests/corpus/rfc7865/two-parties.xml");
const PARTIAL: &str = include_str!("../../../../../tests/corpus/rfc7865/partial-join.xml");
const CONFERENCE: &str = include_str!("../../../../../tests/corpus/webex/conference-leave.xml");

/// A partial document that gives a stream to somebody whom nobody has described.
const UNKNOWN: &str = "<recording xmlns='urn:ietf:params:xml:ns:recording:1'><datamode>partial</datamode>\
    <participantstreamassoc participant_id='nobody'><send>nothing</send></participantstreamassoc></recording>";

/// Whether a snapshot is asked for after these documents, the first with the INVITE, and whether the sequence stayed broken.
fn check(allow: &str, documents: &[&str], asked: usize, broken: bool) {
    let mut rig = rig();
    let mut requests = 0;
    for (number, document) in documents.iter().enumerate() {
        let (fields, text) = body(if number == 0 { OFFER } else { "" }, document);
        let fields = format!("{allow}{fields}");
        let seen = rig.send(if number == 0 { "INVITE" } else { "UPDATE" }, "c", (fields, text));
        requests += seen.iter().filter(|word| *word == "UPDATE").count();
        if number == 0 {
            requests += rig.send("ACK", "c", body("", "")).iter().filter(|word| *word == "UPDATE").count();
        }
        rig.now += SECOND;
    }
    let seen = rig.send("BYE", "c", body("", ""));
    assert_eq!(requests, asked, "{allow} {documents:?}");
    assert_eq!(seen.contains(&"metadata-sequence-broken".to_owned()), broken, "{allow} {documents:?}");
}

#[test]
fn a_snapshot_is_asked_for_when_the_sequence_is_broken() {
    check("", &[SNAPSHOT, PARTIAL], 0, false);
    check("", &[SNAPSHOT, UNKNOWN], 1, true);
    check("", &[SNAPSHOT, UNKNOWN, SNAPSHOT], 1, false);
    check("", &["", PARTIAL, SNAPSHOT], 1, false);
    check("", &["", PARTIAL, PARTIAL], 1, true);
    check("Allow: INVITE, BYE, update\r\n", &[SNAPSHOT, UNKNOWN], 1, true);
    check("Allow: INVITE, BYE\r\n", &[SNAPSHOT, UNKNOWN], 0, true);
    // This client's partial documents name everybody, and it does not know such requests.
    check("", &["", CONFERENCE], 0, false);
}

#[test]
fn snapshots_are_asked_for_within_bounds() {
    let mut rig = rig();
    rig.call(OFFER, SNAPSHOT);
    let mut asked = Vec::new();
    for second in 0..100 {
        let fields = format!("{}<!-- {second} -->", UNKNOWN);
        let seen = rig.send("UPDATE", "c", body("", &fields));
        if seen.contains(&"UPDATE".to_owned()) {
            asked.push(second);
        }
        rig.now += SECOND;
    }
    assert_eq!(asked, [0, 10, 20, 30, 40]);
}

#[test]
fn the_request_for_a_snapshot_is_as_the_standard_has_it() {
    let mut rig = rig();
    rig.call(OFFER, SNAPSHOT);
    rig.send("UPDATE", "c", body("", UNKNOWN));
    let request = rig.request.as_ref().unwrap();
    assert_eq!(request.headers.get("Content-Disposition"), Some("recording-session"));
    assert_eq!(request.headers.get("Content-Type"), Some("application/rs-metadata+xml"));
    let text = String::from_utf8(request.body.clone()).unwrap();
    assert!(text.contains("<requestsnapshot xmlns=\"urn:ietf:params:xml:ns:recording:1\">"), "{text}");
}

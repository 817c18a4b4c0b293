//! Multipart bodies in every shape of boundary that has been seen, and some that have not.

#![allow(clippy::unwrap_used)]

use callvault_sip::multipart::{DEPTH_MAX, PARTS_MAX, split};
use callvault_sip::{MultipartFlaw, ParseError};

const XML: &str = "application/rs-metadata+xml";
const SDP: &str = "application/sdp";

/// Checks types and bodies of the parts, and the flaws.
fn check(content_type: &str, body: &str, parts: &[(&str, &str)], flaws: &[MultipartFlaw]) {
    for body in [body.to_owned(), body.replace('\n', "\r\n")] {
        let got = split(content_type, body.as_bytes()).unwrap();
        let seen: Vec<_> = got
            .parts
            .iter()
            .map(|part| {
                let text = String::from_utf8(part.body.clone()).unwrap().replace("\r\n", "\n");
                (part.content_type().unwrap_or_default(), text)
            })
            .collect();
        let want: Vec<_> = parts.iter().map(|(kind, text)| ((*kind).to_owned(), (*text).to_owned())).collect();
        assert_eq!((seen, got.flaws.as_slice()), (want, flaws), "{content_type} {body:?}");
    }
}

const TWO: &str =
    "--b\nContent-Type: application/sdp\n\nv=0\ns=-\n\n--b\nContent-Type:application/rs-metadata+xml\n\n<x/>\n--b--\n";
const BOTH: [(&str, &str); 2] = [(SDP, "v=0\ns=-\n"), (XML, "<x/>")];

#[test]
fn boundaries_as_they_should_be() {
    check("multipart/mixed;boundary=b", TWO, &BOTH, &[]);
    check("multipart/mixed; boundary=\"b\"; x=y", TWO, &BOTH, &[]);
    check("Multipart/Mixed ; BOUNDARY = b ", TWO, &BOTH, &[]);
    check("multipart/mixed;boundary=b", &format!("preamble\n{TWO}epilogue\n"), &BOTH, &[]);
    check("multipart/mixed;boundary=\"a;b c\"", "--a;b c\nContent-Type: x/y\n\n1\n--a;b c--", &[("x/y", "1")], &[]);
    check("multipart/mixed;boundary=b", "--b\nContent-Type: x/y\n\n--bc\n--b--", &[("x/y", "--bc")], &[]);
}

#[test]
fn boundaries_as_they_are() {
    use MultipartFlaw::*;
    check("multipart/mixed;boundary=b", &TWO.replace("--b\n", "--b  \n"), &BOTH, &[]);
    check("multipart/mixed;boundary=b", &format!("\n\n{TWO}"), &BOTH, &[]);
    check("multipart/mixed;boundary=b", TWO.trim_end_matches("--b--\n").trim_end(), &BOTH, &[ClosingBoundaryMissing]);
    check("multipart/mixed;boundary=b", &TWO.replace("--b--", "--b"), &BOTH, &[ClosingBoundaryMissing]);
    check("multipart/mixed", TWO, &BOTH, &[BoundaryMissing]);
    check("multipart/mixed;boundary=", TWO, &BOTH, &[BoundaryMissing]);
    check("multipart/mixed;boundary=other", TWO, &BOTH, &[BoundaryMismatch]);
    check("multipart/mixed", "v=0\n", &[(SDP, "v=0\n")], &[BoundaryNotFound]);
    check("multipart/mixed;boundary=b", "<x/>", &[(XML, "<x/>")], &[BoundaryNotFound]);
    assert_eq!(split("multipart/mixed;boundary=b", b"nothing known"), Err(ParseError::Boundary));
}

#[test]
fn part_headers_as_they_are() {
    use MultipartFlaw::*;
    let typed = "multipart/mixed;boundary=b";
    check(typed, "--b\nv=0\no=- 1 1 IN IP6 ::1\n--b--", &[(SDP, "v=0\no=- 1 1 IN IP6 ::1")], &[PartHeadersMissing]);
    check(typed, "--b\n\nv=0\n--b--", &[(SDP, "v=0")], &[]);
    check(typed, "--b\nContent-Type: application/sdp\nContent-Length: 3\n\nv=0\n--b--", &[(SDP, "v=0")], &[]);
    check(typed, "--b\nContent-Type: application/sdp\nl: 99\n\nv=0\n--b--", &[(SDP, "v=0")], &[PartLengthWrong]);
    check(typed, "--b\nContent-Type: application/sdp\njunk line\n\nv=0\n--b--", &[(SDP, "v=0")], &[]);
    check(typed, "--b\nContent-Type:\n application/sdp;x=y\n\nv=0\n--b--", &[(SDP, "v=0")], &[]);
    check(typed, "--b\n\n--b\n--b--", &[], &[]);
}

#[test]
fn a_part_tells_its_disposition_and_id() {
    let body = b"--b\r\nContent-Type: x/y\r\nContent-Disposition:Recording-Session;handling=optional\r\nContent-ID: <1>\r\n\r\n--b--";
    let got = split("multipart/mixed;boundary=b", body).unwrap();
    let part = &got.parts[0];
    assert_eq!((part.disposition().as_deref(), part.content_id()), (Some("recording-session"), Some("<1>")));
    assert!(part.is_recording_metadata());
}

#[test]
fn nested_multiparts_lie_flat_down_to_a_depth() {
    let inner = "--i\nContent-Type: application/sdp\n\nv=0\n--i--";
    let body = format!("--b\nContent-Type: multipart/alternative;boundary=i\n\n{inner}\n--b\n\n<x/>\n--b--");
    check("multipart/mixed;boundary=b", &body, &[(SDP, "v=0"), (XML, "<x/>")], &[]);
    let mut deep = "v=0".to_owned();
    for level in 0..=DEPTH_MAX {
        deep = format!(
            "--b{level}\nContent-Type: multipart/mixed;boundary=b{}\n\n{deep}\n--b{level}--",
            level.wrapping_sub(1)
        );
    }
    let got = split(&format!("multipart/mixed;boundary=b{DEPTH_MAX}"), deep.as_bytes()).unwrap();
    assert!(got.flaws.contains(&MultipartFlaw::TooDeep));
}

#[test]
fn parts_beyond_the_limit_are_dropped_and_noted() {
    let body = "--b\nContent-Type: x/y\n\n1\n".repeat(PARTS_MAX + 1) + "--b--";
    let got = split("multipart/mixed;boundary=b", body.as_bytes()).unwrap();
    assert_eq!((got.parts.len(), got.flaws.as_slice()), (PARTS_MAX, &[MultipartFlaw::TooManyParts][..]));
    let nested = "--b\nContent-Type: multipart/mixed\n\nv=0\n".repeat(PARTS_MAX + 1) + "--b--";
    let got = split("multipart/mixed;boundary=b", nested.as_bytes()).unwrap();
    assert_eq!(got.parts.len(), PARTS_MAX);
    assert!(got.flaws.contains(&MultipartFlaw::TooManyParts));
}

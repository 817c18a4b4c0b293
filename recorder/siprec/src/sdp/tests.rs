use super::*;

fn offer(lines: &[&str]) -> Offer {
    Offer::parse(lines.join("\r\n").as_bytes()).unwrap()
}

/// The first media line of a description that consists of these media-level lines under a plain audio line.
fn line_with(lines: &[&str]) -> MediaLine {
    let head = ["v=0", "c=IN IP4 192.0.2.1", "m=audio 4000 RTP/AVP 0"];
    offer(&[&head, lines].concat()).media.swap_remove(0)
}

#[test]
fn direction_is_what_is_meant() {
    use MediaDirection::{Inactive, RecvOnly, SendOnly, SendRecv};
    fn check(lines: &[&str], direction: MediaDirection) {
        assert_eq!(offer(lines).media[0].direction, direction, "{lines:?}");
    }
    const M: &str = "m=audio 4000 RTP/AVP 0";
    const C: &str = "c=IN IP4 192.0.2.1";
    check(&["v=0", C, M], SendRecv);
    check(&["v=0", C, M, "a=sendonly"], SendOnly);
    check(&["v=0", C, "a=sendonly", M], SendOnly);
    check(&["v=0", C, "a=sendonly", M, "a=inactive"], Inactive);
    check(&["v=0", C, M, "a=recvonly"], RecvOnly);
    check(&["v=0", C, M, "a=SendOnly "], SendOnly);
    check(&["v=0", "c=IN IP4 0.0.0.0", M], Inactive);
    check(&["v=0", "c=IN IP4 0.0.0.0", M, "a=sendonly"], Inactive);
    check(&["v=0", "c=IN IP6 ::", M, "a=sendonly"], Inactive);
    check(&["v=0", C, M, "c=IN IP4 0.0.0.0", "a=sendonly"], Inactive);
    check(&["v=0", "c=IN IP4 0.0.0.0", M, C, "a=sendonly"], SendOnly);
    check(&["v=0", C, "m=audio 0 RTP/AVP 0", "a=sendonly"], Inactive);
    check(&["v=0", "o=- 1 1 IN IP4 0.0.0.0", M, "a=sendonly"], SendOnly);
    check(&["v=0", C, M, "a=direction:both", "a=sendonly"], SendOnly);
}

#[test]
fn addresses_are_found() {
    fn check(lines: &[&str], address: Option<&str>) {
        assert_eq!(offer(lines).media[0].address.as_deref(), address, "{lines:?}");
    }
    const M: &str = "m=audio 4000 RTP/AVP 0";
    check(&["v=0", M], None);
    check(&["v=0", "c=IN IP4 192.0.2.1", M], Some("192.0.2.1"));
    check(&["v=0", "c=IN IP4 192.0.2.1", M, "c=IN IP4 192.0.2.2"], Some("192.0.2.2"));
    check(&["v=0", "c=IN  IP4  192.0.2.1 ", M], Some("192.0.2.1"));
    check(&["v=0", "c=IN IP4 233.252.0.1/127", M], Some("233.252.0.1"));
    check(&["v=0", "c=IN IP6 2001:db8::1", M], Some("2001:db8::1"));
    check(&["v=0", "c=IN IP4 media.example.com", M], Some("media.example.com"));
    check(&["v=0", "c=IN IP4", M], None);
}

#[test]
fn codecs_are_read() {
    fn check(lines: &[&str], expected: &[(u8, &str, u32, u8)]) {
        let found = offer(lines).media.swap_remove(0).codecs;
        let found: Vec<(u8, &str, u32, u8)> =
            found.iter().map(|c| (c.payload_type, c.encoding.as_str(), c.clock_rate, c.channels)).collect();
        assert_eq!(found, expected, "{lines:?}");
    }
    check(
        &["v=0", "m=audio 1 RTP/AVP 111 0", "a=rtpmap:111 opus/48000/2"],
        &[(111, "opus", 48000, 2), (0, "PCMU", 8000, 1)],
    );
    check(
        &["v=0", "m=audio 1 RTP/AVP 2 0 18 9 8 13"],
        &[
            (2, "G726-32", 8000, 1),
            (0, "PCMU", 8000, 1),
            (18, "G729", 8000, 1),
            (9, "G722", 8000, 1),
            (8, "PCMA", 8000, 1),
            (13, "CN", 8000, 1),
        ],
    );
    check(&["v=0", "m=audio 1 RTP/AVP 10"], &[(10, "L16", 44100, 2)]);
    check(&["v=0", "m=audio 1 RTP/AVP 120"], &[(120, UNKNOWN_ENCODING, 8000, 1)]);
    check(&["v=0", "m=audio 1 RTP/AVP 0 0 300 x 8"], &[(0, "PCMU", 8000, 1), (8, "PCMA", 8000, 1)]);
    check(&["v=0", "m=audio 1 RTP/AVP", "a=rtpmap:96 AMR-WB/16000"], &[(96, "AMR-WB", 16000, 1)]);
    check(&["v=0", "m=audio 1 RTP/AVP 96", "a=rtpmap: 96  SILK / 16000 / x"], &[(96, "SILK", 16000, 1)]);
    check(&["v=0", "m=audio 1 RTP/AVP 96", "a=rtpmap:96 odd/0/0"], &[(96, "odd", 8000, 1)]);
}

#[test]
fn a_line_s_attributes_are_read() {
    let line = line_with(&[
        "a=fmtp:0 annexb=no",
        "a=ptime:20",
        "a=rtcp:4011 IN IP4 192.0.2.9",
        "a=mid:left",
        "a=label: 7 ",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:QUJD",
        "a=crypto:2 AEAD_AES_256_GCM inline:REVG",
    ]);
    assert_eq!(line.codecs[0].fmtp.as_deref(), Some("annexb=no"));
    assert_eq!(line.ptime_ms, Some(20));
    assert_eq!(line.rtcp_port(), Some(4011));
    assert_eq!(line.rtcp.unwrap().address.as_deref(), Some("192.0.2.9"));
    assert_eq!(line.mid.as_deref(), Some("left"));
    assert_eq!((line.label.as_str(), line.label_given), ("7", true));
    let crypto: Vec<&str> = line.crypto.iter().map(CryptoLine::expose).collect();
    assert_eq!(crypto[1], "2 AEAD_AES_256_GCM inline:REVG");
    assert!(!format!("{:?}", line.crypto).contains("REVG"));
}

#[test]
fn rtcp_ports_are_found() {
    fn check(lines: &[&str], port: Option<u16>) {
        assert_eq!(line_with(lines).rtcp_port(), port, "{lines:?}");
    }
    check(&[], Some(4001));
    check(&["a=rtcp-mux"], Some(4000));
    check(&["a=rtcp:4005"], Some(4005));
    check(&["a=rtcp:0"], Some(4001));
    check(&["a=rtcp:x"], Some(4001));
}

#[test]
fn packet_times_are_read() {
    fn check(text: &str, ptime_ms: Option<u32>) {
        assert_eq!(line_with(&[&format!("a=ptime:{text}")]).ptime_ms, ptime_ms);
    }
    check("20", Some(20));
    check("22.5", Some(23));
    check("0", None);
    check("-3", None);
    check("1e99", None);
    check("NaN", None);
}

#[test]
fn labels_are_given_where_they_are_missing() {
    fn check(given: &[Option<&str>], labels: &[&str]) {
        let mut text = String::from("v=0\r\n");
        for label in given {
            text += "m=audio 4000 RTP/AVP 0\r\n";
            if let Some(label) = label {
                text += &format!("a=label:{label}\r\n");
            }
        }
        let offer = Offer::parse(text.as_bytes()).unwrap();
        let found: Vec<&str> = offer.media.iter().map(|line| line.label.as_str()).collect();
        assert_eq!(found, labels);
        let flawed = offer.flaws.iter().any(|flaw| flaw.code == "label-missing");
        assert_eq!(flawed, given.contains(&None));
    }
    check(&[Some("96"), Some("97")], &["96", "97"]);
    check(&[None, None], &["1", "2"]);
    check(&[Some("2"), None], &["2", "line-2"]);
    check(&[Some("a_leg"), None], &["a_leg", "2"]);
}

#[test]
fn deviations_are_flaws() {
    fn check(lines: &[&str], codes: &[&str]) {
        let found: Vec<&str> = offer(lines).flaws.iter().map(|flaw| flaw.code).collect();
        assert_eq!(found, codes, "{lines:?}");
    }
    const M: &str = "m=audio 4000 RTP/AVP 0";
    check(&["v=0", M, "a=label:1"], &[]);
    check(&["v=0", M, "a=label:1", M, "a=label:1"], &["label-duplicate"]);
    check(&["v=0", "m=audio 4000 RTP/AVP 99", "a=label:1"], &["codec-undescribed"]);
    check(&["v=0", "m=video", M, "a=label:1"], &["sdp-line-malformed"]);
}

#[test]
fn known_deviations_are_read() {
    fn check(text: &str) {
        let offer = Offer::parse(text.as_bytes()).unwrap();
        assert_eq!(offer.media.len(), 1, "{text:?}");
        assert_eq!(offer.media[0].port, 4000, "{text:?}");
    }
    check("v=0\nm=audio 4000 RTP/AVP 0\n");
    check("v=0\rm=audio 4000 RTP/AVP 0\r");
    check("\r\n\r\nv=0\r\nm=audio 4000 RTP/AVP 0");
    check("m=audio 4000 RTP/AVP 0");
    check("v=1\r\nm=audio 4000 RTP/AVP 0\r\n");
    check("v=0\r\no=broken\r\ns=\r\nt=x y\r\nb=AS\r\nz=1\r\nr=7\r\nm=audio 4000 RTP/AVP 0\r\n");
    check("v=0\r\ns=a\r\ns=b\r\nc=IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.2\r\nm=audio 4000 RTP/AVP 0\r\n");
    check("v=0\r\nm=AUDIO   4000/2  rtp/avp   0 \r\na=\r\na=:\r\nx\r\n\0\r\n");
    check("v=0\r\ns=caf\u{e9}\r\nm=audio 4000 RTP/AVP 0\r\n");
}

#[test]
fn an_offer_that_cannot_be_answered_is_an_error() {
    fn check(text: &str, wanted: impl Fn(&SiprecError) -> bool) {
        let error = Offer::parse(text.as_bytes()).unwrap_err();
        assert!(wanted(&error), "{error:?}");
        let shown = error.to_string();
        assert!(shown.starts_with(char::is_lowercase), "{shown}");
    }
    let no_audio = |error: &SiprecError| matches!(error, SiprecError::NoAudio);
    check("v=0\r\ns=-\r\n", no_audio);
    check("v=0\r\nm=video 4000 RTP/AVP 96\r\n", no_audio);
    check("v=0\r\nm=audio 4000 TCP/MRCPv2 1\r\n", no_audio);
    check("v=0\r\nm=audio 4000 RTP/AVP x\r\n", no_audio);
    check("", |error| matches!(error, SiprecError::SdpMalformed { line: 1, .. }));
    check("<recording/>", |error| matches!(error, SiprecError::SdpMalformed { .. }));
    check("v=0\r\nm=audio\r\n", |error| matches!(error, SiprecError::SdpMalformed { line: 2, .. }));
    check("v=0\r\nm=audio 70000 RTP/AVP 0\r\n", |error| matches!(error, SiprecError::SdpMalformed { line: 2, .. }));
    check(&"m=audio 1 RTP/AVP 0\n".repeat(MEDIA_LINES_MAX + 1), |error| {
        matches!(error, SiprecError::TooManyMediaLines { .. })
    });
    check(&"a".repeat(SDP_BYTES_MAX + 1), |error| matches!(error, SiprecError::SdpTooLarge { .. }));
}

#[test]
fn pauses_are_seen_on_the_whole() {
    fn check(directions: &[&str], paused: bool) {
        let mut text = String::from("v=0\n");
        for direction in directions {
            text += &format!("m=audio 4000 RTP/AVP 0\na={direction}\n");
        }
        assert_eq!(Offer::parse(text.as_bytes()).unwrap().is_paused(), paused);
    }
    check(&["sendonly", "sendonly"], false);
    check(&["inactive", "sendonly"], false);
    check(&["inactive", "inactive"], true);
    check(&["recvonly"], true);
}

#[test]
fn keys_are_struck_out() {
    fn check(line: &str, kept: &str) {
        let text = format!("v=0\r\n{line}\nm=audio 1 RTP/AVP 0");
        assert_eq!(without_keys(&text), format!("v=0\r\n{kept}\nm=audio 1 RTP/AVP 0"));
    }
    check("a=label:1", "a=label:1");
    check("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:QUJD|2^20 KDR=1", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 struck");
    check("a=crypto:1 inline:QUJD", "a=crypto:1 struck");
    check(" a= CRYPTO:1 X inline:QUJD", "a=CRYPTO:1 X struck");
    check("k=base64:QUJD", "k=struck");
    check("a=key-mgmt:mikey QUJD", "a=key-mgmt:struck");
    check("no line", "no line");
}

//! What the answer says to each kind of media line.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use callvault_siprec::{
    AnswerParams, DEFAULT_PREFERENCE, NegotiatedTrack, Offer, Ports, answer, answer_secured, without_keys,
};

const PORTS: &[Option<Ports>] = &[Some((20_000, 20_001)), Some((20_002, 20_003))];

fn answered(offer: &str, ports: &[Option<Ports>]) -> (String, Vec<NegotiatedTrack>) {
    let offer = Offer::parse(offer.as_bytes()).unwrap();
    answer(
        &offer,
        &AnswerParams {
            address: IpAddr::from([192, 0, 2, 5]),
            session_id: 7,
            version: 3,
            ports,
            prefer: DEFAULT_PREFERENCE,
        },
    )
}

#[test]
fn a_whole_answer() {
    let (text, tracks) = answered(
        "v=0\r\no=- 1 1 IN IP4 198.51.100.1\r\ns=-\r\nc=IN IP4 198.51.100.1\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 8 101 0 111\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendonly\r\na=label:1\r\na=mid:a\r\n\
         m=video 4002 RTP/AVP 96 97\r\na=label:3\r\na=sendonly\r\n\
         m=audio 4004 RTP/SAVP 9\r\na=inactive\r\na=label:2\r\n",
        &[Some((20_000, 20_001)), None, Some((20_004, 21_000))],
    );
    let expected = "v=0\r\no=callvault 7 3 IN IP4 192.0.2.5\r\ns=callvault\r\nc=IN IP4 192.0.2.5\r\nt=0 0\r\n\
         m=audio 20000 RTP/AVP 111 0 8 101\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n\
         a=ptime:20\r\na=recvonly\r\na=mid:a\r\na=label:1\r\n\
         m=video 0 RTP/AVP 96 97\r\na=label:3\r\n\
         m=audio 20004 RTP/SAVP 9\r\na=rtpmap:9 G722/8000\r\na=rtcp:21000\r\na=inactive\r\na=label:2\r\n";
    assert_eq!(text, expected);
    assert_eq!(tracks.len(), 2);
    assert_eq!((tracks[0].media_line, tracks[1].media_line), (0, 2));
    assert_eq!((tracks[0].paused, tracks[1].paused), (false, true));
    assert_eq!(tracks[0].remote_address.as_deref(), Some("198.51.100.1"));
    assert_eq!((tracks[0].remote_port, tracks[0].remote_rtcp_port), (4000, Some(4001)));
    assert!(tracks[0].codecs[0].is("OPUS"));
}

#[test]
fn lines_of_the_answer() {
    /// The answer's line that begins so, for a plain audio line with these attributes.
    fn check(attributes: &str, ports: Ports, start: &str, line: Option<&str>) {
        let offer = format!("v=0\nc=IN IP4 198.51.100.1\nm=audio 4000 RTP/AVP 0\n{attributes}");
        let (text, _) = answered(&offer, &[Some(ports)]);
        let found = text.lines().find(|line| line.starts_with(start));
        assert_eq!(found, line, "{attributes:?} in\n{text}");
    }
    check("a=sendrecv", (2, 3), "a=recv", Some("a=recvonly"));
    check("", (2, 3), "a=recv", Some("a=recvonly"));
    check("a=recvonly", (2, 3), "a=inactive", Some("a=inactive"));
    check("c=IN IP4 0.0.0.0", (2, 3), "a=inactive", Some("a=inactive"));
    check("", (2, 3), "a=rtcp", None);
    check("", (2, 9), "a=rtcp", Some("a=rtcp:9"));
    check("", (65_535, 1), "a=rtcp", Some("a=rtcp:1"));
    check("a=rtcp-mux", (2, 3), "a=rtcp", None);
    check("a=rtcp-mux", (2, 2), "a=rtcp", Some("a=rtcp-mux"));
    check("", (2, 2), "a=rtcp", Some("a=rtcp:2"));
    check("a=ptime:30", (2, 3), "a=ptime", Some("a=ptime:30"));
    check("", (2, 3), "a=ptime", None);
    check("", (2, 3), "a=label", None);
    check("a=label:b_leg", (2, 3), "a=label", Some("a=label:b_leg"));
}

#[test]
fn refused_lines_keep_their_place() {
    fn check(offer: &str, ports: &[Option<Ports>], media: &[&str]) {
        let (text, tracks) = answered(offer, ports);
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with("m=")).collect();
        assert_eq!(found, media, "{offer}");
        let accepted = media.iter().filter(|line| !line.contains(" 0 RTP")).count();
        assert_eq!(tracks.len(), accepted);
    }
    const TWO: &str = "m=audio 1 RTP/AVP 0\nm=audio 3 RTP/AVP 8\n";
    check(TWO, PORTS, &["m=audio 20000 RTP/AVP 0", "m=audio 20002 RTP/AVP 8"]);
    check(TWO, &PORTS[..1], &["m=audio 20000 RTP/AVP 0", "m=audio 0 RTP/AVP 8"]);
    check(TWO, &[None, PORTS[0]], &["m=audio 0 RTP/AVP 0", "m=audio 20000 RTP/AVP 8"]);
    check("m=audio 0 RTP/AVP 0\nm=audio 3 RTP/AVP 8\n", PORTS, &["m=audio 0 RTP/AVP 0", "m=audio 20002 RTP/AVP 8"]);
    check("m=x-odd\nm=audio 3 RTP/AVP 8\n", PORTS, &["m=x-odd 0 RTP/AVP 0", "m=audio 20002 RTP/AVP 8"]);
}

#[test]
fn six_is_named_six() {
    let offer = Offer::parse(b"m=audio 1 RTP/AVP 120\n").unwrap();
    let params =
        AnswerParams { address: "2001:db8::5".parse().unwrap(), session_id: 1, version: 1, ports: PORTS, prefer: &[] };
    let (text, _) = answer(&offer, &params);
    assert!(text.contains("\r\nc=IN IP6 2001:db8::5\r\n"), "{text}");
    assert!(text.contains("\r\nm=audio 20000 RTP/AVP 120\r\n"), "{text}");
    assert!(!text.contains("rtpmap"), "an undescribed payload type stays so: {text}");
}

#[test]
fn keys_are_answered_where_they_were_offered() {
    const OURS: &str = "1 AES_CM_128_HMAC_SHA1_80 inline:OurOwnKey";
    /// The answer to one audio line of this transport: its media line, and its crypto attributes.
    fn check(proto: &str, attributes: &str, ours: Option<&str>, crypto: &[&str]) {
        let offer = format!("c=IN IP4 198.51.100.1\nm=audio 4000 {proto} 0\n{attributes}");
        let offer = Offer::parse(offer.as_bytes()).unwrap();
        let params = AnswerParams {
            address: IpAddr::from([192, 0, 2, 5]),
            session_id: 1,
            version: 1,
            ports: PORTS,
            prefer: DEFAULT_PREFERENCE,
        };
        let (text, tracks) = answer_secured(&offer, &params, &[ours]);
        assert!(text.contains(&format!("\r\nm=audio 20000 {proto} 0\r\n")), "{text}");
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with("a=crypto")).collect();
        assert_eq!(found, crypto, "{proto} {attributes:?}");
        assert_eq!(tracks[0].secured, !crypto.is_empty());
        assert!(!text.contains("Theirs") && !without_keys(&text).contains("OurOwnKey"), "{text}");
        let (plain, _) = answer(&offer, &params);
        assert!(!plain.contains("crypto"), "{plain}");
    }
    const OFFERED: &str =
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:Theirs\na=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:Theirs\n";
    let answered = &[format!("a=crypto:{OURS}")];
    let answered: Vec<&str> = answered.iter().map(String::as_str).collect();
    check("RTP/SAVP", OFFERED, Some(OURS), &answered);
    check("RTP/SAVPF", OFFERED, Some(OURS), &answered);
    check("UDP/RTP/SAVP", OFFERED, Some(OURS), &answered);
    check("RTP/AVP", OFFERED, Some(OURS), &answered);
    check("RTP/AVPF", OFFERED, Some(OURS), &answered);
    check("RTP/AVP", OFFERED, None, &[]);
    check("RTP/AVP", "", Some(OURS), &[]);
    check("RTP/SAVP", OFFERED, None, &[]);
    check("RTP/SAVP", OFFERED, Some(""), &[]);
    check("RTP/SAVP", OFFERED, Some("1 X inline:Y\r\na=inactive"), &[]);
}

#[test]
fn each_line_has_its_own_keys() {
    let offer = Offer::parse(
        b"m=audio 1 RTP/SAVP 0\na=crypto:4 X inline:A\nm=audio 3 RTP/AVP 8\nm=audio 5 RTP/SAVP 8\na=crypto:7 X inline:B\n",
    )
    .unwrap();
    let ports = [Some((20_000, 20_001)), Some((20_002, 20_003)), Some((20_004, 20_005))];
    let params =
        AnswerParams { address: IpAddr::from([192, 0, 2, 5]), session_id: 1, version: 1, ports: &ports, prefer: &[] };
    let (text, tracks) = answer_secured(&offer, &params, &[Some("4 X inline:C"), None, Some("7 X inline:D")]);
    let sections: Vec<&str> = text.split("m=audio ").skip(1).collect();
    let has = |section: usize, line: &str| sections[section].contains(&format!("\r\na=crypto:{line}\r\n"));
    assert!(has(0, "4 X inline:C") && has(2, "7 X inline:D") && !sections[1].contains("crypto"), "{text}");
    assert_eq!(tracks.iter().map(|track| track.secured).collect::<Vec<_>>(), [true, false, true]);
}

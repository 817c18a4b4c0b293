//! Text that is not in the corpus: SIP at its edges, offers with keys, and messages inside scripts for the endpoint.

use crate::{Seeds, add};

const HEAD: &str = "Via: SIP/2.0/UDP 192.0.2.9:5070;branch=z9hG4bKa;rport\r\nFrom: \"A, \\\"B\\\"\" <sip:+15551230100@192.0.2.9;user=phone>;tag=f\r\n\
     To: <sip:192.0.2.1>\r\nCall-ID: c0\r\nCSeq: 1 INVITE\r\n";

pub(crate) fn add_all(seeds: &mut Seeds) {
    sip(seeds);
    sdp(seeds);
    endpoint(seeds);
    for (name, text) in [
        ("xml-without-root", "<?xml version='1.0'?>"),
        ("xml-unquoted", "<recording xmlns='urn:x' a=b><x:participant id=1><aor>sip:1@h & 2</aor></recording>"),
        ("xml-deep", "<a><a><a><a><a><a><a><a><participant id='1'/></a></a></a></a></a></a></a></a>"),
        ("header-fields", "sip:4711@h;media-index=0\nsip:+15551230100@h;user=phone;media-index=1"),
    ] {
        add(seeds, "metadata", name, text.as_bytes().to_vec());
    }
    for (name, text) in [
        ("one-part", "multipart/mixed;boundary=b\n--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n"),
        ("no-boundary", "multipart/mixed\n--x \nContent-Type:application/sdp\n\nv=0\n--x\n\n<a/>\n"),
        (
            "nested",
            "multipart/mixed;boundary=\"a b\"\n--a b\nContent-Type: multipart/alternative;boundary=c\n\n--c\n\nv=0\n--c\n\
             Content-Length: 9\n\n<a/>\n--c--\n--a b--",
        ),
    ] {
        add(seeds, "multipart", name, text.as_bytes().to_vec());
    }
    for (name, text) in [
        ("all-suites", crypto()),
        ("mki", "1 AES_CM_128_HMAC_SHA1_80 inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd|2^20|1:4".to_owned()),
        (
            "two-keys",
            "7 AEAD_AES_128_GCM inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGw==|2^31|1:2;inline:BAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGw==|2^31|2:2"
                .to_owned(),
        ),
        (
            "parameters",
            "2 AES_CM_128_HMAC_SHA1_32 inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd UNENCRYPTED_SRTCP WSH=64 -X KDR=1"
                .to_owned(),
        ),
    ] {
        add(seeds, "crypto_attribute", name, text.into_bytes());
    }
}

/// A line for each suite, as an offer has them.
fn crypto() -> String {
    let key = |bytes: usize| {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let text: String = (0..bytes.div_ceil(3) * 4).map(|n| char::from(alphabet[n % 64])).collect();
        // What the last character stands for beyond the key is zero.
        match bytes % 3 {
            0 => text,
            1 => format!("{}A==", &text[..text.len() - 3]),
            _ => format!("{}A=", &text[..text.len() - 2]),
        }
    };
    let suites = [
        ("AEAD_AES_256_GCM", 44),
        ("AEAD_AES_128_GCM", 28),
        ("AES_256_CM_HMAC_SHA1_80", 46),
        ("AES_CM_128_HMAC_SHA1_80", 30),
        ("AES_CM_128_HMAC_SHA1_32", 30),
    ];
    let lines = (1..).zip(suites).map(|(tag, (suite, bytes))| format!("{tag} {suite} inline:{}|2^31", key(bytes)));
    lines.collect::<Vec<_>>().join("\n")
}

fn sip(seeds: &mut Seeds) {
    let options = format!("OPTIONS sip:192.0.2.1 SIP/2.0\r\n{HEAD}\r\n");
    let folded = format!("INVITE sip:192.0.2.1 SIP/2.0\r\n{HEAD}Subject: one\r\n two\r\n\tthree\r\n\r\n");
    let compact = "INVITE sip:a@h SIP/2.0\nv: SIP / 2.0 / TCP h:5060;branch=1\nf: <sip:a@h\nt: sip:b@h\ni: x\nCSeq: 7\n\
                   m: <sip:h;+sip.src\nc: application/sdp\nl: 5\n\nv=0\r\n";
    let two = format!("{options}\r\n\r\nSIP/2.0 200 OK\r\n{HEAD}Content-Length: 0\r\n\r\n{options}");
    let escaped = "OPTIONS sip:%61%00@[2001:db8::1]:5060;transport=tcp?x=y SIP/2.0\r\nVia: SIP/2.0/TLS [2001:db8::9]\r\n\
                   To: \"M\u{fc}ller\" <sip:M%C3%BC@h>\r\nContact: *\r\nRoute: <sip:a;lr>,\"x,\" <sip:b>\r\n\r\n";
    let wrong = "ACK sip:h SIP/3.0\r\nContent-Length: 99999999999999999999\r\nContent-Length: -1\r\nNo colon\r\n\r\n";
    for (name, text) in [
        ("options", options.as_str()),
        ("folded", &folded),
        ("compact", compact),
        ("stream-of-two", &two),
        ("escaped", escaped),
        ("wrong", wrong),
        ("response", "SIP/2.0 481 \r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1;received=192.0.2.1;rport=1\r\n\r\n"),
        ("ping", "\r\n\r\n"),
        ("other-protocol", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ] {
        add(seeds, "sip_message", name, text.as_bytes().to_vec());
    }
    add(
        seeds,
        "sip_message",
        "latin-1",
        b"BYE sip:h SIP/2.0\r\nFrom: \"M\xfcller\" <sip:a>\r\nSubject: \0\r\n\r\n".to_vec(),
    );
}

fn sdp(seeds: &mut Seeds) {
    let lines: String = crypto().lines().map(|line| format!("a=crypto:{line}\r\n")).collect();
    let audio = |proto: &str| {
        format!("m=audio 4000 {proto} 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n{lines}a=label:1\r\n")
    };
    for (name, text) in [
        ("secure", format!("v=0\r\nc=IN IP4 192.0.2.9\r\n{}{}", audio("RTP/SAVP"), audio("RTP/SAVPF"))),
        ("best-effort", format!("v=0\r\nc=IN IP6 2001:db8::9/127\r\n{}", audio("RTP/AVP"))),
        (
            "odd",
            "m=audio 4000/2 RTP/AVP\na=rtpmap:96 opus/48000/2\na=fmtp:96 stereo=1\na=ptime:20.5\na=rtcp:5000 IN IP4 h\n\
             m=video 0 RTP/AVP 97\nm=\na=mid:x\nm=audio 1 UDP/TLS/RTP/SAVPF 0\na=inactive\nc=IN IP4 0.0.0.0\n"
                .to_owned(),
        ),
        ("carriage-returns", "v=0\rm=audio 4000 RTP/AVP 0\ra=label:1\ra=rtcp-mux\r".to_owned()),
    ] {
        add(seeds, "sdp", name, text.into_bytes());
    }
}

/// Scripts: what the steps are called is in the target.
fn endpoint(seeds: &mut Seeds) {
    const REQUEST: u8 = 0;
    const RAW: u8 = 6;
    const RESPONSE: u8 = 7;
    const ANSWER: u8 = 8;
    const BYE: u8 = 11;
    const UPDATE: u8 = 12;
    const CLOSE: u8 = 13;
    const WAIT: u8 = 14;
    const RESTART: u8 = 15;
    // Kind, call, CSeq, branch, more: an INVITE, its ACK within the dialog, a BYE.
    let invite: &[u8] = &[REQUEST, 0, 0, 1, 0, 0x23];
    let ack: &[u8] = &[REQUEST, 0x13, 0, 1, 1, 0];
    let bye: &[u8] = &[REQUEST, 0x15, 0, 2, 2, 0];
    let cancel: &[u8] = &[REQUEST, 6, 0, 1, 0, 0];
    let reinvite: &[u8] = &[REQUEST, 0x10, 0, 2, 3, 0x22];
    let update: &[u8] = &[REQUEST, 0x17, 0, 3, 4, 0];
    let options: &[u8] = &[REQUEST, 8, 1, 1, 0, 0];
    let accept: &[u8] = &[ANSWER, 6, 0];
    let reject: &[u8] = &[ANSWER, 4, 0];
    let own_bye: &[u8] = &[BYE, 0];
    let wait = |ms: u16| [&[WAIT][..], &ms.to_le_bytes()].concat();
    let answered: &[u8] = &[RESPONSE, 100, 0, 0xff];
    let raw = format!("INVITE sip:192.0.2.1 SIP/2.0\r\n{HEAD}Require: siprec\r\n\r\n");
    let raw = [&[RAW], &(raw.len() as u16).to_le_bytes()[..], &[0], raw.as_bytes()].concat();
    let restart: &[u8] = &[RESTART, 0];
    let scripts: [(&str, Vec<&[u8]>); 12] = [
        ("call", vec![invite, accept, ack, bye]),
        ("call-that-we-end", vec![invite, accept, ack, own_bye, answered]),
        ("cancelled", vec![invite, cancel, ack]),
        ("rejected", vec![invite, reject, ack]),
        ("changed", vec![invite, accept, ack, reinvite, accept, ack, update, accept, bye]),
        ("asked-back", vec![invite, accept, ack, &[UPDATE, 0], answered, bye]),
        ("connection-lost", vec![invite, accept, &[CLOSE, 0, 0], ack, own_bye]),
        ("both-at-once", vec![options, invite, reinvite, accept, own_bye, bye, reject, ack]),
        ("raw", vec![&raw, accept, own_bye]),
        ("restarted", vec![invite, accept, ack, restart, reinvite, accept, ack, restart, bye]),
        ("restarted-unacknowledged", vec![invite, accept, restart, invite, ack, restart, own_bye, restart, answered]),
        ("restarted-from-damage", vec![invite, accept, &[RESTART, 3, 20, 0, 255, 60, 0, 0, 99, 0, 7], ack, own_bye]),
    ];
    for (name, steps) in scripts {
        add(seeds, "sip_endpoint", name, steps.concat());
        let slowly: Vec<u8> = steps.iter().flat_map(|step| [step, wait(700).as_slice()].concat()).collect();
        add(seeds, "sip_endpoint", &format!("{name}-slowly"), slowly);
    }
    let many: Vec<u8> = (0..40).flat_map(|n| [REQUEST, n, n % 3, n % 4, n % 6, n.wrapping_mul(37)]).collect();
    add(seeds, "sip_endpoint", "many", many);
    let alone = [invite, accept, &wait(60_000), &wait(60_000)].concat();
    add(seeds, "sip_endpoint", "never-acknowledged", alone);
}

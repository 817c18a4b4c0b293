//! What a mail says and how it looks on the wire.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use callvault_mail::{
    Attachment, Call, ComposeError, Direction, Message, Notice, Person, Sender, Templates, compose, message_id,
};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use uuid::Uuid;

fn notice(language: &str) -> Notice {
    Notice {
        recording: Uuid::from_u128(7),
        to: Person {
            name: "Ann Müller".into(),
            first_name: "Ann".into(),
            last_name: "Müller".into(),
            address: "ann@example.com".into(),
            language: language.into(),
        },
        call: Call {
            started_at: "2026-11-05T13:30:00Z".parse().unwrap(),
            duration_ms: 83_000,
            direction: Direction::Outgoing,
            local_number: "+4930111".into(),
            remote_number: "+39061234".into(),
            remote_name: "Bob <b>".into(),
        },
        attachment: Attachment::NotWanted,
        test: false,
    }
}

fn sender() -> Sender {
    Sender { address: "callvault@example.org".into(), name: "Call recording".into() }
}

fn made(templates: &Templates, notice: &Notice) -> Result<Message, ComposeError> {
    let zone = TimeZone::get("Europe/Rome").unwrap();
    compose(templates, notice, &sender(), &zone, "2026-11-05T14:00:00Z".parse().unwrap())
}

fn wire(notice: &Notice) -> String {
    let message = made(&Templates::built_in(), notice).unwrap();
    let bytes: Vec<u8> = message.parts().flatten().collect();
    assert_eq!(bytes.len() as u64, message.bytes());
    String::from_utf8(bytes).unwrap()
}

/// The text without its quoted-printable line breaks and escapes.
fn plain(wire: &str) -> String {
    let joined = wire.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = joined.bytes();
    while let Some(byte) = rest.next() {
        let code: Option<u8> = (byte == b'=')
            .then(|| rest.clone().take(2).map(char::from).collect::<String>())
            .and_then(|digits| u8::from_str_radix(&digits, 16).ok());
        if code.is_some() {
            rest.nth(1);
        }
        bytes.push(code.unwrap_or(byte));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn each_user_reads_it_in_the_language_that_they_prefer() {
    let check = |language: &str, expected: &[&str]| {
        let text = plain(&wire(&notice(language)));
        for part in expected {
            assert!(text.contains(part), "{language}: no {part:?} in\n{text}");
        }
    };
    check("en", &["Hello Ann Müller,", "Thursday, 5 November 2026, 14:30 (CET, UTC+1)", "1 min 23 s", "outgoing"]);
    check("it", &["giovedì, 5 novembre 2026, 14:30", "in uscita", "Con:", "Content-Language: it"]);
    check("de-AT", &["Donnerstag, 5. November 2026, 14:30", "1 Min. 23 Sek.", "ausgehend", "Ihre Nummer: +4930111"]);
    check("FR_fr", &["jeudi, 5 novembre 2026", "sortant"]);
    check("es", &["jueves, 5 de noviembre de 2026", "saliente"]);
    check("pt", &["Hello Ann Müller,"]);
    check("", &["Hello Ann Müller,"]);
}

#[test]
fn text_and_html_say_the_same_and_html_is_escaped() {
    let text = plain(&wire(&notice("en")));
    assert!(text.contains("With:        Bob <b> (+39061234)\r\n"), "{text}");
    assert!(text.contains("<td>Bob &lt;b&gt; (+39061234)</td>"), "{text}");
    assert!(text.contains("Content-Type: multipart/alternative"), "{text}");
}

#[test]
fn what_became_of_the_audio_is_said() {
    let check = |attachment: Attachment, expected: &str| {
        let text = plain(&wire(&Notice { attachment, ..notice("en") }));
        assert_eq!(text.matches(expected).count(), 2, "{expected:?} in text and HTML:\n{text}");
    };
    check(Attachment::Mp3(vec![0; 1 << 20]), "is attached as 2026-11-05_14-30_Bob_b.mp3 (1 MB)");
    check(Attachment::TooLarge { limit_bytes: 15 << 20 }, "is larger than 15 MB, the limit");
    check(Attachment::RefusedByServer, "does not take a mail as large");
    check(Attachment::Unavailable, "could not be attached");
    assert!(!plain(&wire(&notice("en"))).contains("attach"));
}

#[test]
fn the_mail_is_marked_as_automatic_and_always_the_same() {
    let one = wire(&notice("en"));
    assert!(one.contains("Auto-Submitted: auto-generated\r\n"));
    assert!(one.contains(&format!(
        "Message-ID: <{}>\r\n",
        message_id(Uuid::from_u128(7), "ann@example.com", "x@example.org")
    )));
    assert!(one.contains("Date: Thu, 05 Nov 2026 14:00:00 +0000\r\n"), "{one}");
    assert_eq!(one, wire(&notice("en")), "nothing in it is random");
    let id = |recording: u128, address: &str| message_id(Uuid::from_u128(recording), address, "x@example.org");
    assert_eq!(id(1, "ann@example.com"), id(1, " Ann@Example.com"));
    assert_ne!(id(1, "ann@example.com"), id(1, "bob@example.com"));
    assert_ne!(id(1, "ann@example.com"), id(2, "ann@example.com"));
    assert!(!id(1, "ann@example.com").contains("ann"));
}

#[test]
fn the_audio_is_attached_byte_for_byte() {
    use base64::Engine as _;
    let mp3: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(n) >> 3) as u8).collect();
    let text = wire(&Notice { attachment: Attachment::Mp3(mp3.clone()), ..notice("en") });
    assert!(text.contains("Content-Disposition: attachment;\r\n filename=\"2026-11-05_14-30_Bob_b.mp3\"\r\n"));
    let from = text.find("Content-Type: audio/mpeg").unwrap();
    let from = from + text[from..].find("\r\n\r\n").unwrap() + 4;
    let to = from + text[from..].find("\r\n--").unwrap();
    assert!(text[from..to].lines().all(|line| line.len() <= 76));
    let encoded: String = text[from..to].split("\r\n").collect();
    assert!(base64::engine::general_purpose::STANDARD.decode(encoded).unwrap() == mp3);
}

#[test]
fn an_address_that_is_none_is_refused() {
    let check = |address: &str, is_one: bool| {
        let mut notice = notice("en");
        notice.to.address = address.into();
        assert_eq!(made(&Templates::built_in(), &notice).is_ok(), is_one, "{address:?}");
    };
    check("ann@example.com", true);
    check("", false);
    check("ann", false);
    check("ann@example.com, bob@example.com", false);
    check("ann@example.com\r\nBcc: eve@example.com", false);
    check("ann@example.com> SIZE=1", false);
}

#[test]
fn templates_of_the_administrators_take_the_place_of_the_built_in_ones() {
    let files = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    };
    let text = |pairs: &[(&str, &str)], default: &str, language: &str| {
        let (templates, flaws) = Templates::new(&files(pairs), default);
        let message = made(&templates, &notice(language)).unwrap();
        let wire = String::from_utf8(message.parts().flatten().collect()).unwrap();
        (plain(&wire), flaws.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (said, flaws) = text(&[("recording.en.subject", "A call with {{ call.with }}")], "en", "en");
    assert!(said.contains("Subject: A call with Bob <b> (+39061234)\r\n") && flaws.is_empty(), "{said} {flaws:?}");

    // A whole language, for a user who prefers it.
    let portuguese = [
        ("recording.pt.subject", "Chamada"),
        ("recording.pt.txt", "Olá {{ user.first_name }}, {{ call.date }}, {{ call.duration }}"),
        ("recording.pt.html", "<p>Olá {{ user.first_name }}</p>"),
    ];
    let (said, flaws) = text(&portuguese, "en", "pt-BR");
    assert!(said.contains("Olá Ann, 2026-11-05, 0:01:23") && flaws.is_empty(), "{said} {flaws:?}");
    let (said, flaws) = text(&portuguese[..2], "en", "pt");
    assert!(said.contains("Hello") && flaws[0].starts_with("recording.pt.html: is missing"), "{flaws:?}");
    assert!(text(&[], "de", "pt").0.contains("Guten Tag"));
    assert!(text(&[], "xx", "pt").1[0].contains("no templates in \"xx\""));
}

#[test]
fn a_bad_template_is_told_with_its_line_and_the_built_in_one_stays() {
    let check = |name: &str, source: &str, expected: &[&str]| {
        let (templates, flaws) = Templates::new(&[(name.to_owned(), source.to_owned())].into(), "en");
        let flaw = flaws.first().unwrap_or_else(|| panic!("{source:?} was accepted")).to_string();
        for part in expected {
            assert!(flaw.contains(part), "{flaw}");
        }
        let wire: Vec<u8> = made(&templates, &notice("en")).unwrap().parts().flatten().collect();
        assert!(plain(&String::from_utf8(wire).unwrap()).contains("Hello Ann"));
    };
    check("recording.en.txt", "one\n{{ call.remote_nmae }}\n", &["recording.en.txt:2: ", "no such name"]);
    check("recording.en.txt", "one\n\n{% if call.date %}\n", &["recording.en.txt:", "syntax error"]);
    check(
        "recording.en.txt",
        "{% if attachment.state == 'too-large' %}{{ oops }}{% endif %}",
        &[":1: ", "no such name"],
    );
    check(
        "recording.en.txt",
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
        &["too many steps"],
    );
    check("recording.en.txt", "{{ call.date|nosuch }}", &[":1: ", "nosuch"]);
    check("recording.en.subject", "{% if test %}a{% endif %}", &["empty subject"]);
    check("recordings.en.txt", "", &["is no template's name"]);
    check("recording.EN.txt", "", &["is no template's name"]);
    check("recording.en.text", "", &["is no template's name"]);
    check("recording.en.html", &" ".repeat(600_000), &["is longer than"]);
    check("recording.en.html", "{% include 'recording.en.txt' %}", &["recording.en.html"]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Whatever a caller is called: no header begins but ours, no line is longer than SMTP allows, nothing but ASCII is sent.
    #[test]
    fn nothing_from_a_call_becomes_a_header(
        name in any::<String>(), number in any::<String>(), user in "[ -~\r\n\u{80}-\u{2ff}]{0,300}", language in any::<String>(),
    ) {
        let mut notice = notice(&language);
        notice.call.remote_name = name;
        notice.call.remote_number = format!("{number}\r\nBcc: eve@example.com\r\n\r\nX");
        notice.to.name = format!("{user}\nX-Evil: 1");
        notice.attachment = Attachment::Mp3(vec![1, 2, 3]);
        let text = wire(&notice);
        let head = text.split("\r\n\r\n").next().unwrap();
        let names: Vec<&str> = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])).map(|line| line.split(':').next().unwrap()).collect();
        let expected = [
            "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Language", "MIME-Version", "Content-Type",
        ];
        prop_assert_eq!(names, expected);
        prop_assert!(text.is_ascii());
        prop_assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
        prop_assert_eq!(text.matches("Content-Type: audio/mpeg").count(), 1);
    }
}

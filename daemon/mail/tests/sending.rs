//! What each answer of a mail server means. The server is a script: what it says to each command, and where it stops.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use callvault_mail::{
    Attachment, Failing, Message, Notice, Person, Protection, Sender, Server, Stage, Templates, compose, send,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use uuid::Uuid;

/// What the server does at a step.
#[derive(Clone, Copy)]
enum Does {
    Says(&'static str),
    Closes,
    Stalls,
}

use Does::{Closes, Says, Stalls};

/// What it does where the script says nothing.
fn usual(step: &str) -> Does {
    Says(match step {
        "connect" => "220 mail.test ESMTP",
        "EHLO" => "250-mail.test\r\n250-SIZE 1000000\r\n250 HELP",
        "DATA" => "354 go on",
        "QUIT" => "221 bye",
        _ => "250 OK",
    })
}

/// A server for one connection; what it received comes of the thread.
fn serve(script: &[(&'static str, Does)]) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = script.to_vec();
    (address, thread::spawn(move || talk(listener.accept().unwrap().0, &script)))
}

fn talk(mut stream: TcpStream, script: &[(&'static str, Does)]) -> Vec<String> {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut received = Vec::new();
    let mut step = "connect".to_owned();
    loop {
        match script.iter().find(|(at, _)| *at == step).map_or_else(|| usual(&step), |(_, does)| *does) {
            Says(text) => {
                if write!(stream, "{text}\r\n").is_err() {
                    return received;
                }
            }
            Closes => return received,
            Stalls => {
                // Until the client has given up.
                let mut rest = Vec::new();
                let _ = std::io::Read::read_to_end(&mut lines, &mut rest);
                return received;
            }
        }
        let in_mail = step == "DATA" && usual_data(script);
        let mut line = String::new();
        loop {
            line.clear();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                return received;
            }
            received.push(line.trim_end_matches(['\r', '\n']).to_owned());
            if !in_mail || line == ".\r\n" {
                break;
            }
        }
        step = if in_mail { ".".to_owned() } else { line.split([' ', '\r']).next().unwrap().to_owned() };
        if step == "QUIT" {
            let _ = stream.write_all(b"221 bye\r\n");
            return received;
        }
    }
}

/// Whether DATA was answered by what begins the mail.
fn usual_data(script: &[(&'static str, Does)]) -> bool {
    !script.iter().any(|(at, does)| *at == "DATA" && !matches!(does, Says(text) if text.starts_with("354")))
}

fn message(attachment: Attachment) -> Message {
    let to = Person { name: "Ann".into(), address: "ann@example.com".into(), ..Person::default() };
    let now = Timestamp::UNIX_EPOCH;
    let notice = Notice { attachment, ..Notice::sample(Uuid::nil(), to, now) };
    let sender = Sender { address: "callvault@example.org".into(), name: "callvault".into() };
    compose(&Templates::built_in(), &notice, &sender, &TimeZone::UTC, now).unwrap()
}

fn server(address: SocketAddr) -> Server {
    Server {
        host: address.ip().to_string(),
        port: address.port(),
        protection: Protection::None,
        ca: None,
        credentials: None,
        hello: "recorder.test".into(),
        timeout: Duration::from_millis(400),
    }
}

#[test]
fn a_mail_is_handed_over_whole() {
    let (address, received) = serve(&[(".", Says("250 2.0.0 queued as 7"))]);
    let message = message(Attachment::Mp3(vec![b'.'; 100_000]));
    let mut asked = false;
    let accepted = send(&server(address), &message, || {
        asked = true;
        true
    });
    let accepted = accepted.unwrap();
    assert!(asked && !accepted.encrypted);
    assert_eq!(accepted.reply, "2.0.0 queued as 7");
    let received = received.join().unwrap();
    let at =
        |what: &str| received.iter().position(|line| line.starts_with(what)).unwrap_or_else(|| panic!("no {what}"));
    assert_eq!(received[at("MAIL")], format!("MAIL FROM:<callvault@example.org> SIZE={}", message.bytes()));
    assert_eq!(received[at("RCPT")], "RCPT TO:<ann@example.com>");
    // A dot at the beginning of a line is doubled on the way (RFC 5321 section 4.5.2).
    let lines = received[at("DATA") + 1..at("QUIT") - 1].iter().map(|line| line.strip_prefix('.').unwrap_or(line));
    let mail = lines.collect::<Vec<_>>().join("\r\n");
    let sent = String::from_utf8(message.parts().flatten().collect()).unwrap();
    // Their difference would be pages long.
    assert!(mail.trim_end() == sent.trim_end());
}

#[test]
fn each_answer_has_its_meaning() {
    let check = |script: &[(&'static str, Does)], failing: Failing, stage: Stage, text: &str| {
        let (address, received) = serve(script);
        let failed = send(&server(address), &message(Attachment::NotWanted), || true).unwrap_err();
        assert_eq!((failed.failing, failed.stage), (failing, stage), "{failed}");
        let said = failed.to_string();
        assert!(said.contains(text), "{said}");
        assert!(!said.contains("ann@"), "{said}");
        received.join().unwrap();
    };
    use Stage::{Connect, Content, Data, Recipient};
    check(&[("connect", Says("554 no"))], Failing::Server, Connect, "554");
    check(&[("connect", Closes)], Failing::Server, Connect, "");
    check(&[("connect", Stalls)], Failing::Server, Connect, "did not answer in time");
    check(&[("connect", Says("hello"))], Failing::Server, Connect, "");
    check(&[("EHLO", Says("502 what?"))], Failing::Server, Connect, "502");
    check(&[("MAIL", Says("451 4.3.0 later"))], Failing::Server, Stage::Sender, "451 4.3.0");
    check(&[("MAIL", Says("550 5.7.1 not you"))], Failing::Server, Stage::Sender, "mail.from");
    check(&[("MAIL", Says("552 5.3.4 too big"))], Failing::TooLarge, Stage::Sender, "552 5.3.4");
    check(&[("MAIL", Says("530 5.7.0 sign in first"))], Failing::Server, Stage::Sender, "530 5.7.0");
    check(&[("RCPT", Says("450 4.2.0 <ann@example.com>: Greylisted"))], Failing::Later, Recipient, "450 4.2.0");
    check(&[("RCPT", Says("550 5.1.1 <ann@example.com>: no such user"))], Failing::Refused, Recipient, "550 5.1.1");
    check(&[("RCPT", Says("552 5.2.2 mailbox full"))], Failing::Refused, Recipient, "552 5.2.2");
    check(&[("RCPT", Says("421 4.3.2 closing"))], Failing::Server, Recipient, "421");
    check(&[("RCPT", Closes)], Failing::Server, Recipient, "");
    check(&[("RCPT", Stalls)], Failing::Server, Recipient, "in time");
    check(&[("DATA", Says("451 later"))], Failing::Later, Data, "451");
    check(&[("DATA", Says("554 no valid recipients"))], Failing::Refused, Data, "554");
    check(&[("DATA", Says("250 what"))], Failing::Server, Data, "354");
    check(&[(".", Says("451 4.7.1 later"))], Failing::Later, Content, "451 4.7.1");
    check(&[(".", Says("554 5.6.0 no"))], Failing::Refused, Content, "554 5.6.0");
    check(&[(".", Says("552 too big"))], Failing::TooLarge, Content, "552");
    check(&[(".", Says("354 go on"))], Failing::Unknown, Content, "250");
    check(&[(".", Closes)], Failing::Unknown, Content, "not known");
    check(&[(".", Stalls)], Failing::Unknown, Content, "not known");
    check(&[("EHLO", Says("250-x\r\n250 SIZE 100"))], Failing::TooLarge, Stage::Sender, "takes 100");
}

#[test]
fn what_a_server_says_of_the_recipient_is_kept_apart() {
    let (address, _received) = serve(&[("RCPT", Says("550 5.1.1 <ann@example.com>: no such user"))]);
    let failed = send(&server(address), &message(Attachment::NotWanted), || true).unwrap_err();
    assert_eq!(failed.reply.as_deref(), Some("550 5.1.1 <ann@example.com>: no such user"));
    assert!(!format!("{failed:?}").contains("ann@"));
}

#[test]
fn who_does_not_want_to_go_on_sends_nothing() {
    let (address, received) = serve(&[]);
    let failed = send(&server(address), &message(Attachment::NotWanted), || false).unwrap_err();
    assert_eq!(failed.failing, Failing::Stopped);
    assert!(!received.join().unwrap().iter().any(|line| line == "DATA"));
}

#[test]
fn nothing_is_sent_unprotected_that_is_to_be_protected() {
    for protection in [Protection::Starttls, Protection::Tls] {
        // It has nothing of TLS, and answers a ClientHello by what it says to anything.
        let (address, received) = serve(&[]);
        let mut server = server(address);
        server.protection = protection;
        server.credentials = Some(("user".into(), "secret".into()));
        let failed = send(&server, &message(Attachment::NotWanted), || true).unwrap_err();
        assert_eq!(failed.failing, Failing::Server, "{failed}");
        let received = received.join().unwrap();
        assert!(!received.iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")), "{received:?}");
    }
}

#[test]
fn a_wrong_password_is_about_the_server() {
    let (address, received) = serve(&[("EHLO", Says("250-x\r\n250 AUTH PLAIN")), ("AUTH", Says("535 5.7.8 no"))]);
    let mut server = server(address);
    server.credentials = Some(("user".into(), "secret".into()));
    let failed = send(&server, &message(Attachment::NotWanted), || true).unwrap_err();
    assert_eq!((failed.failing, failed.stage), (Failing::Server, Stage::SignIn));
    let said = format!("{failed} {failed:?} {:?}", failed.reply);
    assert!(said.contains("535 5.7.8") && said.contains("mail.user") && !said.contains("secret"), "{said}");
    assert!(received.join().unwrap().iter().any(|line| line.starts_with("AUTH PLAIN")));
}

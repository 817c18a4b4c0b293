//! How Webex is reached: an authority of one's own, a proxy, IPv6 alone, nobody there; and what is said when it is not.

#![allow(clippy::unwrap_used)]

mod standin;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use callvault_webex_client::{Access, Client, ClientSettings, Fault, SecretFile};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use standin::{Around, StandIn};

/// A stand-in with a certificate of an authority that no system knows, and that authority's file.
fn secured(place: &Path) -> (StandIn, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let write = |name: &str, text: String| {
        std::fs::write(place.join(name), text).unwrap();
        place.join(name)
    };
    let pair = [write("chain.pem", certificate.pem()), write("key.pem", key.serialize_pem())];
    (StandIn::at("127.0.0.1", &pair), write("ca.pem", authority.pem()))
}

/// What a request for a token comes to.
fn asked(settings: ClientSettings) -> Fault {
    let around = Around::default();
    let client = Client::new(settings).unwrap();
    around.with(|outside| client.authorise(&Access::default(), "no-code", outside)).unwrap_err()
}

/// That the other side was reached: it does not know the code.
fn is_reached(fault: &Fault) -> bool {
    matches!(fault, Fault::Answer(text) if text.contains("a code is good for some minutes"))
}

fn over_tls(webex: &StandIn, ca: Option<PathBuf>) -> ClientSettings {
    let mut settings = webex.settings();
    settings.url = format!("https://127.0.0.1:{}/v1", webex.port);
    settings.web.ca = ca;
    settings
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_it_is_named_and_nowhere_else() {
    let place = tempfile::tempdir().unwrap();
    let (webex, ca) = secured(place.path());
    assert!(is_reached(&asked(over_tls(&webex, Some(ca)))));
    let fault = asked(over_tls(&webex, None));
    assert!(matches!(&fault, Fault::Unreachable(text) if text.to_lowercase().contains("cert")), "{fault:?}");
    assert!(fault.to_string().contains("webex.ca"), "{fault}");
    let missing = Client::new(over_tls(&webex, Some(place.path().join("none.pem")))).err().unwrap();
    assert!(missing.needs_somebody() && missing.to_string().contains("webex.ca"), "{missing}");
}

/// A proxy that tunnels (RFC 9110 section 9.3.6) for whoever has the password; what it was asked for.
fn proxy() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let heads = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heads = Arc::clone(&heads);
            thread::spawn(move || tunnel(stream, &heads));
        }
    });
    (port, seen)
}

fn tunnel(mut near: TcpStream, heads: &Mutex<Vec<String>>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && near.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    // user:password in base64.
    let may = head.to_lowercase().contains("proxy-authorization: basic ") && head.contains("dXNlcjpwYXNzd29yZA==");
    heads.lock().unwrap().push(head);
    let Some(mut far) = target.filter(|_| may).and_then(|target| TcpStream::connect(target).ok()) else {
        let _ = near.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
        return;
    };
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut far, &mut near);
}

#[test]
fn a_proxy_is_gone_through_and_sees_no_token() {
    let place = tempfile::tempdir().unwrap();
    let (webex, ca) = secured(place.path());
    let (port, seen) = proxy();
    let mut settings = over_tls(&webex, Some(ca));
    settings.web.proxy = Some(format!("http://127.0.0.1:{port}"));
    let refused = asked(settings.clone());
    assert!(matches!(refused, Fault::Unreachable(_)), "{refused:?}");
    assert!(refused.to_string().contains("webex.proxy"), "{refused}");
    std::fs::write(place.path().join("credentials"), "user:password\n").unwrap();
    let path = Some(place.path().join("credentials"));
    settings.web.proxy_credentials = Some(SecretFile { key: "webex.proxy_credentials", path });
    let fault = asked(settings);
    assert!(is_reached(&fault), "{fault:?}");
    let heads = seen.lock().unwrap().join("\n");
    assert!(!heads.contains(standin::SECRET) && !heads.contains("no-code"), "{heads}");
}

#[test]
fn six_alone_is_enough() {
    let webex = StandIn::at("::1", &[]);
    let mut settings = webex.settings();
    settings.url = format!("http://[::1]:{}/v1", webex.port);
    assert!(is_reached(&asked(settings)));
}

#[test]
fn what_is_wrong_is_said_in_words() {
    #[track_caller]
    fn check(url: &str, expected: &str) {
        let webex = StandIn::start();
        let mut settings = webex.settings();
        settings.url = url.to_owned();
        let text = asked(settings).to_string();
        assert!(text.contains(expected) && text.contains("calls are recorded meanwhile"), "{url}: {text}");
        assert!(!text.contains(url), "{url}: {text}");
    }
    check("http://127.0.0.1:9/v1", "refused");
    check("https://webex.invalid/v1", "cannot be reached");
}

#[test]
fn a_secret_that_is_not_there_is_for_somebody_to_put_there() {
    let webex = StandIn::start();
    let mut settings = webex.settings();
    settings.client_secret.path = Some(webex.place.path().join("none"));
    let fault = asked(settings);
    assert!(fault.needs_somebody() && fault.to_string().contains("webex.client_secret"), "{fault}");
}

#[test]
fn a_page_that_points_elsewhere_gets_no_token() {
    let (webex, elsewhere, around) = (StandIn::start(), StandIn::start(), Around::default());
    webex.set(&json!({"people": standin::people(150), "native": standin::native(150)}));
    let access = webex.authorised(&around);
    let link = format!("<http://127.0.0.1:{}/v1/people?after=x>; rel=\"next\"", elsewhere.port);
    webex.set(&json!({"link": link}));
    let gathered = around.with(|outside| webex.client().gather(&access, outside, &BTreeMap::new()));
    assert_eq!(gathered.map(drop).unwrap_err(), Fault::Walk(callvault_webex::WalkError::Elsewhere));
    assert_eq!(elsewhere.seen()["seen"], json!({}), "nothing was asked there");
}

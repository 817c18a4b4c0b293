//! The drivers against real servers that fail in every way that servers fail: in the end exactly one complete recording is there.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/rig/receiver.rs"]
#[allow(dead_code, unreachable_pub)]
mod receiver;

use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callvault_upload::{
    Analytics, AnalyticsSettings, Audio, Begun, Call, Direction, KEPT_BYTES_MAX, Ledger, Party, SecretFile, Tokens,
    Traffic, Trouble, Web, WebSettings, Webhook, WebhookSettings,
};
use jiff::Timestamp;
use receiver::{At, CLIENT_ID, CLIENT_SECRET, Fault, PROXY_CREDENTIALS, Proxy, Receiver, SCOPE, WEBHOOK_SECRET};
use tempfile::TempDir;

struct Sound {
    bytes: Vec<u8>,
    /// What is rendered the n-th time differs.
    differs_at: Option<usize>,
    opened: AtomicUsize,
}

impl Sound {
    fn of(length: usize) -> Self {
        let bytes = (0..length).map(|n| (n % 251) as u8).collect();
        Self { bytes, differs_at: None, opened: AtomicUsize::new(0) }
    }
}

impl Audio for Sound {
    fn open(&self) -> Result<Box<dyn Read + Send>, Trouble> {
        let mut bytes = self.bytes.clone();
        if self.differs_at == Some(self.opened.fetch_add(1, Ordering::Relaxed)) {
            bytes[1] ^= 1;
        }
        Ok(Box::new(Cursor::new(bytes)))
    }
}

/// Remembers across attempts, as the catalogue does.
#[derive(Default)]
struct Book {
    begun: Mutex<Option<Begun>>,
    deleted: AtomicBool,
}

impl Ledger for Book {
    fn begun(&self) -> Result<Option<Begun>, Trouble> {
        Ok(self.begun.lock().unwrap().clone())
    }

    fn note(&self, begun: &Begun) -> Result<(), Trouble> {
        if self.deleted.load(Ordering::Relaxed) {
            return Err(Trouble::Gone);
        }
        *self.begun.lock().unwrap() = Some(begun.clone());
        Ok(())
    }
}

fn call() -> Call {
    Call {
        id: "019ab000-0000-7000-8000-000000000001".parse().unwrap(),
        owner: Some("ann@example.com".into()),
        started_at: "2026-11-23T10:00:00Z".parse().unwrap(),
        ended_at: "2026-11-23T10:00:05Z".parse().unwrap(),
        duration_ms: 5_000,
        direction: Direction::Outgoing,
        traffic: Traffic::Internal,
        local: Party { name: Some("Ann Example".into()), number: Some("1001".into()) },
        remote: Party { name: None, number: None },
        call_id: None,
        verdict: "ok".into(),
        tracks: 2,
    }
}

/// A server, and what it takes to deliver to it.
struct Rig {
    server: Receiver,
    folder: TempDir,
    settings: AnalyticsSettings,
    web: WebSettings,
    tokens: Tokens,
    book: Book,
    audio: Arc<dyn Audio>,
}

impl Rig {
    fn new(server: Receiver) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| -> PathBuf {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let settings = AnalyticsSettings {
            url: format!("{}/voice-analytics/", server.base()),
            token_url: format!("{}/oauth2/token", server.base()),
            client_id: CLIENT_ID.into(),
            client_secret: SecretFile { key: "analytics.client_secret", path: Some(file("secret", CLIENT_SECRET)) },
            scope: SCOPE.into(),
            language: "en-US".into(),
            speakers: 0,
            now: Timestamp::now,
        };
        let web = WebSettings {
            section: "analytics",
            proxy: None,
            proxy_credentials: None,
            ca: server.ca_pem.as_ref().map(|pem| file("ca.pem", pem)),
            connect_within: Duration::from_secs(10),
            silent_max: Duration::from_secs(30),
            total_max: Duration::from_secs(60),
            keeps_connection: false,
        };
        let audio = Arc::new(Sound::of(200_000));
        Self { server, folder, settings, web, tokens: Tokens::default(), book: Book::default(), audio }
    }

    fn attempt(&self) -> Result<Begun, Trouble> {
        let web = Web::new(&self.web).unwrap();
        let stopping = || false;
        let analytics = Analytics { web: &web, settings: &self.settings, tokens: &self.tokens, stopping: &stopping };
        analytics.deliver(&call(), &self.audio, &self.book)
    }

    fn post(&self) -> Result<(), Trouble> {
        let secret = self.folder.path().join("webhook");
        std::fs::write(&secret, WEBHOOK_SECRET).unwrap();
        let settings = WebhookSettings {
            url: format!("{}/hook", self.server.base()),
            secret: SecretFile { key: "webhook.secret", path: Some(secret) },
            now: Timestamp::now,
        };
        let web = Web::new(&self.web).unwrap();
        Webhook { web: &web, settings: &settings, stopping: &|| false }.deliver(&call(), &self.audio)
    }
}

fn ending(result: &Result<Begun, Trouble>) -> &'static str {
    match result {
        Ok(_) => "delivered",
        Err(Trouble::Recording(_)) => "later",
        Err(Trouble::Refused(_)) => "refused",
        Err(Trouble::Sink { .. }) => "sink",
        Err(_) => "other",
    }
}

#[test]
fn a_recording_is_delivered_in_the_documented_shape() {
    let rig = Rig::new(Receiver::start());
    let begun = rig.attempt().unwrap();
    assert_eq!((begun.remote_id.as_str(), begun.url.as_str()), ("r1", ""));
    let complete = rig.server.complete();
    assert_eq!(complete.len(), 1);
    assert_eq!(complete[0].puts, [(0..200_000).map(|n| (n % 251) as u8).collect::<Vec<_>>()]);
    assert_eq!(complete[0].asked["callData"]["language"], "en-US");
    // the token serves the next one too
    *rig.book.begun.lock().unwrap() = None;
    rig.attempt().unwrap();
    assert_eq!((rig.server.count(At::Token), rig.server.count(At::Create)), (1, 2));
    rig.server.assert_kept_to_the_shape();
}

/// Each case: what goes wrong, how the attempts end one after the other (the last is delivered), and how many entries there are then.
#[test]
fn whatever_goes_wrong_one_complete_recording_is_there_in_the_end() {
    #[track_caller]
    fn check(faults: &[(At, Fault)], endings: &[&str], entries: usize) {
        let mut rig = Rig::new(Receiver::start());
        if faults.iter().any(|(_, fault)| *fault == Fault::Stall) {
            rig.web.silent_max = Duration::from_millis(300);
        }
        for (at, fault) in faults {
            rig.server.fail(*at, std::slice::from_ref(fault));
        }
        for expected in endings {
            let result = rig.attempt();
            assert_eq!(ending(&result), *expected, "{faults:?}: {result:?}");
            if let Err(trouble) = result {
                let text = trouble.to_string();
                let is_private =
                    ["s3cret", "token-1", "ann@", "sig=", "1001"].iter().any(|private| text.contains(private));
                assert!(!is_private, "{text}");
            }
        }
        assert_eq!(rig.server.complete().len(), 1, "{faults:?}");
        assert_eq!(rig.server.entries().len(), entries, "{faults:?}");
        rig.server.assert_kept_to_the_shape();
    }
    use At::*;
    use Fault::*;
    check(&[(Token, Status(500, None))], &["sink", "delivered"], 1);
    check(&[(Token, Status(400, None))], &["sink", "delivered"], 1);
    check(&[(Token, Status(429, Some("7")))], &["sink", "delivered"], 1);
    check(&[(Token, Close)], &["sink", "delivered"], 1);
    check(&[(Token, Stall)], &["sink", "delivered"], 1);
    check(&[(Token, HalfAnswer)], &["sink", "delivered"], 1);
    check(&[(Token, Says("<html>a portal</html>"))], &["sink", "delivered"], 1);
    check(&[(Create, Status(500, None))], &["later", "delivered"], 1);
    check(&[(Create, Status(503, None))], &["sink", "delivered"], 1);
    check(&[(Create, Status(429, Some("Mon, 23 Nov 2026 10:00:30 GMT")))], &["sink", "delivered"], 1);
    check(&[(Create, Status(404, None))], &["sink", "delivered"], 1);
    check(&[(Create, Status(302, None))], &["sink", "delivered"], 1);
    check(&[(Create, Status(401, None))], &["delivered"], 1);
    check(&[(Create, Status(401, None)), (Create, Status(401, None))], &["sink", "delivered"], 1);
    check(&[(Create, TokensExpire)], &["delivered"], 1);
    check(&[(Create, Status(400, None))], &["refused", "delivered"], 1);
    check(&[(Create, Status(403, None))], &["refused", "delivered"], 1);
    check(&[(Create, Close)], &["later", "delivered"], 1);
    check(&[(Create, Stall)], &["later", "delivered"], 1);
    check(&[(Create, Says("{}"))], &["later", "delivered"], 1);
    check(
        &[(Create, Says(r#"{"presignedUrl":"http://a.example/x","state":"s","recordingId":"r"}"#))],
        &["later", "delivered"],
        1,
    );
    // the answer to a create was lost: an entry without audio stays behind, and is no recording
    check(&[(Create, DoneAndClosed)], &["later", "delivered"], 2);
    check(&[(Create, HalfAnswer)], &["later", "delivered"], 2);
    check(&[(Put, Status(500, None))], &["later", "delivered"], 1);
    check(&[(Put, Status(503, Some("3")))], &["sink", "delivered"], 1);
    check(&[(Put, Close)], &["later", "delivered"], 1);
    check(&[(Put, Stall)], &["later", "delivered"], 1);
    // it was taken and the answer lost: the same is put to the same place
    check(&[(Put, DoneAndClosed)], &["later", "delivered"], 1);
    check(&[(Put, HalfAnswer)], &["later", "delivered"], 1);
    // what arrived damaged, and URLs that are refused, are made anew
    check(&[(Put, BadDigest)], &["delivered"], 2);
    check(&[(Put, Status(403, None))], &["delivered"], 2);
    check(&[(Put, BadDigest), (Put, BadDigest)], &["later", "delivered"], 3);
}

#[test]
fn a_pause_that_is_asked_for_is_told() {
    let rig = Rig::new(Receiver::start());
    rig.server.fail(At::Create, &[Fault::Status(429, Some("7"))]);
    assert!(matches!(rig.attempt(), Err(Trouble::Sink { wait_ms: Some(7_000), .. })));
}

#[test]
fn a_url_that_refuses_for_ever_is_given_up() {
    let rig = Rig::new(Receiver::start());
    rig.server.fail(At::Put, &vec![Fault::BadDigest; 100]);
    let endings: Vec<&str> = (0..3).map(|_| ending(&rig.attempt())).collect();
    assert_eq!(endings, ["later", "later", "refused"]);
    rig.server.mend();
    rig.attempt().unwrap();
    assert_eq!(rig.server.complete().len(), 1);
}

#[test]
fn an_expired_url_is_replaced_after_a_crash() {
    let rig = Rig::new(Receiver::start());
    rig.server.fail(At::Put, &[Fault::Close]);
    rig.attempt().unwrap_err();
    rig.server.expire_urls();
    assert_eq!(rig.attempt().unwrap().remote_id, "r2");
    assert_eq!(rig.server.complete().len(), 1);
}

#[test]
fn nothing_is_put_of_a_recording_that_was_deleted() {
    let rig = Rig::new(Receiver::start());
    rig.book.deleted.store(true, Ordering::Relaxed);
    assert_eq!(rig.attempt(), Err(Trouble::Gone));
    assert_eq!(rig.server.count(At::Put), 0);
}

#[test]
fn long_audio_is_made_twice_and_is_the_same_or_never_complete() {
    let mut rig = Rig::new(Receiver::start());
    let long = KEPT_BYTES_MAX + 70_000;
    rig.audio = Arc::new(Sound { differs_at: Some(1), ..Sound::of(long) });
    assert_eq!(ending(&rig.attempt()), "later");
    assert_eq!(rig.server.complete().len(), 0);
    let sound = Arc::new(Sound::of(long));
    rig.audio = Arc::clone(&sound) as Arc<dyn Audio>;
    rig.attempt().unwrap();
    assert_eq!(sound.opened.load(Ordering::Relaxed), 2);
    assert_eq!(rig.server.complete()[0].puts[0].len(), long);
    rig.post().unwrap();
    assert_eq!(rig.server.hooks()[0].audio.len(), long);
}

#[test]
fn an_authority_of_ones_own_is_trusted_where_it_is_named() {
    let mut rig = Rig::new(Receiver::start_tls());
    rig.attempt().unwrap();
    assert_eq!(rig.server.complete().len(), 1);
    rig.web.ca = None;
    let told = rig.post().unwrap_err();
    assert!(matches!(&told, Trouble::Sink { text, .. } if text.contains("certificate")), "{told:?}");
}

#[test]
fn a_proxy_is_used_for_everything() {
    #[track_caller]
    fn check(server: Receiver, expected: &[&str]) {
        let mut rig = Rig::new(server);
        let proxy = Proxy::start();
        let credentials = rig.folder.path().join("proxy");
        std::fs::write(&credentials, PROXY_CREDENTIALS).unwrap();
        rig.web.proxy = Some(format!("http://{}", proxy.address));
        rig.web.proxy_credentials = Some(SecretFile { key: "analytics.proxy_credentials", path: Some(credentials) });
        rig.attempt().unwrap();
        let base = rig.server.base();
        let (_, authority) = base.split_once("://").unwrap();
        let expected: Vec<String> =
            expected.iter().map(|line| line.replace("BASE", &base).replace("HOST", authority)).collect();
        assert_eq!(proxy.served(), expected);
        rig.web.proxy_credentials = None;
        *rig.book.begun.lock().unwrap() = None;
        assert_eq!(ending(&rig.attempt()), "sink");
        rig.server.assert_kept_to_the_shape();
    }
    check(Receiver::start_tls(), &["CONNECT HOST"; 3]);
    check(Receiver::start(), &["POST BASE/oauth2/token", "POST BASE/voice-analytics/v1/recordings", "PUT BASE/put/r1"]);
}

#[test]
fn who_cannot_be_reached_is_in_trouble_as_a_whole() {
    let mut rig = Rig::new(Receiver::start());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    rig.settings.token_url = format!("http://{nobody}/oauth2/token");
    assert_eq!(ending(&rig.attempt()), "sink");
    std::fs::write(rig.settings.client_secret.path.as_ref().unwrap(), "another").unwrap();
    rig.settings.token_url = format!("{}/oauth2/token", rig.server.base());
    let told = rig.attempt().unwrap_err().to_string();
    assert!(told.contains("invalid_client") && told.contains("analytics.client_secret"), "{told}");
}

#[test]
fn a_post_is_signed_and_taken_once() {
    let rig = Rig::new(Receiver::start());
    rig.server.fail(At::Hook, &[Fault::Status(500, None), Fault::DoneAndClosed]);
    assert!(matches!(rig.post(), Err(Trouble::Recording(_))));
    // it was taken and the answer lost: the server says that it has it
    assert!(matches!(rig.post(), Err(Trouble::Recording(_))));
    rig.post().unwrap();
    let hooks = rig.server.hooks();
    assert_eq!(hooks.len(), 1);
    assert_eq!(hooks[0].metadata["owner"], "ann@example.com");
    assert_eq!(hooks[0].audio.len(), 200_000);
    rig.server.fail(At::Hook, &[Fault::Status(422, None), Fault::Status(503, Some("9")), Fault::Status(404, None)]);
    assert!(matches!(rig.post(), Err(Trouble::Refused(_))));
    assert!(matches!(rig.post(), Err(Trouble::Sink { wait_ms: Some(9_000), .. })));
    assert!(matches!(rig.post(), Err(Trouble::Sink { wait_ms: None, .. })));
    rig.server.assert_kept_to_the_shape();
}

#[test]
fn a_delivery_leaves_off_when_it_is_told_to() {
    let rig = Rig::new(Receiver::start());
    rig.server.fail(At::Put, &[Fault::Stall]);
    let web = Web::new(&rig.web).unwrap();
    let server = &rig.server;
    let stopping = || server.count(At::Put) > 0;
    let analytics = Analytics { web: &web, settings: &rig.settings, tokens: &rig.tokens, stopping: &stopping };
    assert_eq!(analytics.deliver(&call(), &rig.audio, &rig.book), Err(Trouble::Stopping));
    rig.attempt().unwrap();
    assert_eq!((rig.server.complete().len(), rig.server.entries().len()), (1, 1));
}

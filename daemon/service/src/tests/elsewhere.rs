//! Signing in at a provider: a small one is here, which speaks HTTP, changes its keys and lies where it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use callvault_access::{Action, Caller};
use callvault_directory::User;
use callvault_http::{Api, ApiError, AuditQuery, CameBack, Elsewhere, ErrorKind};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::rig::{Rig, Running};
use crate::api::Control;

/// What the provider does next.
struct State {
    key: EcdsaKeyPair,
    key_id: String,
    nonce: String,
    challenge: String,
    /// Put into the token's claims.
    lies: Value,
    /// Of the token.
    algorithm: &'static str,
    /// Answers with this instead.
    broken: Option<&'static str>,
    forms: Vec<String>,
}

struct Provider {
    issuer: String,
    state: Arc<Mutex<State>>,
}

fn key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn coded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Provider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            key: key(),
            key_id: "1".into(),
            nonce: String::new(),
            challenge: String::new(),
            lies: json!({}),
            algorithm: "ES256",
            broken: None,
            forms: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let (shared, own) = (Arc::clone(&state), issuer.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &own, &shared);
            }
        });
        Self { issuer, state }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }
}

fn serve(mut stream: TcpStream, issuer: &str, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    loop {
        let mut field = String::new();
        reader.read_line(&mut field).unwrap();
        if field.trim().is_empty() {
            break;
        }
        if let Some(text) = field.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut state = state.lock().unwrap();
    let (status, answer) = match (state.broken, line.split(' ').nth(1).unwrap()) {
        (Some(status), _) => (status, json!({})),
        (None, "/.well-known/openid-configuration") => {
            let at = |path: &str| format!("{issuer}{path}");
            (
                "200 OK",
                json!({
                    "issuer": issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"), "jwks_uri": at("/keys"),
                }),
            )
        }
        (None, "/keys") => {
            let point = state.key.public_key().as_ref().to_vec();
            let jwk = json!({
                "kty": "EC", "crv": "P-256", "kid": state.key_id, "use": "sig", "x": coded(&point[1..33]), "y": coded(&point[33..]),
            });
            ("200 OK", json!({"keys": [jwk]}))
        }
        (None, "/token") => token(&mut state, issuer, &String::from_utf8(body).unwrap()),
        _ => ("404 Not Found", json!({})),
    };
    let body = answer.to_string();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
}

/// Gives a token for the code `good`, to whoever has the verifier of the challenge.
fn token(state: &mut State, issuer: &str, form: &str) -> (&'static str, Value) {
    state.forms.push(form.to_owned());
    let field =
        |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default();
    let is_verifier = coded(Sha256::digest(field("code_verifier"))) == state.challenge;
    if field("code") != "good" || !is_verifier || field("client_secret") != "hush" {
        return ("400 Bad Request", json!({"error": "invalid_grant"}));
    }
    let now = Timestamp::now().as_second();
    let mut claims = json!({
        "iss": issuer, "aud": "callvault", "sub": "7", "nonce": state.nonce, "exp": now + 300, "iat": now,
        "email": "Ann@example.com", "email_verified": true,
    });
    for (name, value) in state.lies.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let header = json!({"alg": state.algorithm, "kid": state.key_id});
    let signed = format!("{}.{}", coded(header.to_string()), coded(claims.to_string()));
    let signature = state.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    (
        "200 OK",
        json!({"access_token": "x", "token_type": "Bearer", "id_token": format!("{signed}.{}", coded(signature))}),
    )
}

struct Sut {
    running: Running,
    control: Control,
    provider: Provider,
}

impl Sut {
    fn start(rig: &Rig, provider: Provider) -> Self {
        std::fs::write(rig.path("secret"), "hush\n").unwrap();
        rig.configure(&format!(
            "[oidc]\nissuer = \"{}\"\nclient_id = \"callvault\"\nclient_secret = \"{}\"\nredirect = \"https://localhost/sign-in/back\"\n",
            provider.issuer,
            rig.path("secret").display()
        ));
        let running = rig.start();
        let control = Control(Arc::clone(&running.appliance));
        let user = User { id: Uuid::now_v7(), webex_email: "ann@example.com".into(), ..User::default() };
        let entry = running.appliance.entry(&Caller::operator(""), Action::ChangeUsers);
        running.appliance.catalogue.put_users(std::slice::from_ref(&user), &entry).unwrap();
        running.appliance.access.people.set([user]);
        Self { running, control, provider }
    }

    /// A browser is sent to the provider, which notes what it came with.
    fn begin(&self) -> Result<CameBack, ApiError> {
        let begun = self.control.sign_in_elsewhere(&visitor(), &Elsewhere::Begin)?;
        let url = begun["url"].as_str().unwrap();
        let field = |name: &str| {
            let found = url.split(['?', '&']).find_map(|pair| pair.strip_prefix(&format!("{name}=")));
            found.unwrap().to_owned()
        };
        self.provider.set(|state| {
            state.nonce = field("nonce");
            state.challenge = field("code_challenge");
        });
        let attempt = begun["attempt"].as_str().unwrap().to_owned();
        Ok(CameBack { attempt, state: field("state"), code: "good".into() })
    }

    fn finish(&self, back: CameBack) -> Result<Value, ApiError> {
        self.control.sign_in_elsewhere(&visitor(), &Elsewhere::Finish(back))
    }

    fn kind(&self, back: CameBack) -> Option<ErrorKind> {
        self.finish(back).err().map(|error| error.kind)
    }

    /// The rule by which somebody was not let in last.
    fn log(&self) -> Value {
        let query = AuditQuery { action: Some("sign-in".into()), ..AuditQuery::default() };
        self.control.audit(&Caller::operator(""), &query).unwrap()["entries"].clone()
    }
}

fn visitor() -> Caller {
    Caller::visitor("", "192.0.2.7")
}

#[test]
fn who_the_provider_knows_and_we_know_gets_a_session() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig, Provider::start());
    assert_eq!(sut.control.sign_in_elsewhere(&visitor(), &Elsewhere::Offered).unwrap()["provider"], "Webex");
    let answer = sut.finish(sut.begin().unwrap()).unwrap();
    let caller = sut.control.authenticate(answer["session"].as_str().unwrap(), "192.0.2.7").unwrap();
    assert_eq!(caller.name, "ann@example.com");
    let log = sut.log();
    assert_eq!((&log[0]["name"], &log[0]["details"]["by"]), (&json!("ann@example.com"), &json!("provider")));
    // the provider changes its keys, and nobody notices
    sut.provider.set(|state| {
        state.key = key();
        state.key_id = "2".into();
    });
    assert_eq!(sut.kind(sut.begin().unwrap()), None);
    let forms = sut.provider.state.lock().unwrap().forms.join("\n");
    assert!(forms.contains("grant_type=authorization_code") && forms.contains("localhost%2Fsign-in%2Fback"), "{forms}");
    let text = sut.log().to_string();
    assert!(!text.contains("hush") && !text.contains("good"), "a secret is in the log");
}

#[test]
fn what_does_not_hold_is_refused_and_in_the_log() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig, Provider::start());
    let check = |lies: Value, algorithm: &'static str, rule: &str| {
        sut.provider.set(|state| (state.lies, state.algorithm) = (lies.clone(), algorithm));
        assert_eq!(sut.kind(sut.begin().unwrap()), Some(ErrorKind::Unauthorized), "{lies} {algorithm}");
        let log = sut.log();
        assert_eq!((&log[0]["outcome"], &log[0]["details"]["rule"]), (&json!("refused"), &json!(rule)), "{}", log[0]);
    };
    check(json!({"aud": "another"}), "ES256", "provider");
    check(json!({"iss": "https://evil.example"}), "ES256", "provider");
    check(json!({"nonce": "another"}), "ES256", "provider");
    check(json!({"exp": 1_000}), "ES256", "provider");
    check(json!({"email_verified": false}), "ES256", "provider");
    check(json!({}), "none", "provider");
    check(json!({}), "HS256", "provider");
    check(json!({"email": "eve@example.com"}), "ES256", "no-user");
    sut.provider.set(|state| (state.lies, state.algorithm) = (json!({}), "ES256"));
    let with = |change: fn(&mut CameBack)| {
        let mut back = sut.begin().unwrap();
        change(&mut back);
        sut.kind(back)
    };
    assert_eq!(with(|_| ()), None);
    assert_eq!(with(|back| back.state = "another".into()), Some(ErrorKind::Unauthorized));
    assert_eq!(with(|back| back.attempt = "x.y.z".into()), Some(ErrorKind::Unauthorized));
    assert_eq!(with(|back| back.code = "stolen".into()), Some(ErrorKind::Unauthorized));
    // the code of somebody else's attempt is worth nothing without its verifier
    let (first, second) = (sut.begin().unwrap(), sut.begin().unwrap());
    assert_eq!(sut.kind(first), Some(ErrorKind::Unauthorized));
    assert_eq!(sut.kind(second), None);
    // a user that was removed
    let mut users = sut.running.appliance.catalogue.users().unwrap().0;
    users[0].removed_at = Some(Timestamp::now());
    sut.running.appliance.access.people.set(users);
    assert_eq!(with(|_| ()), Some(ErrorKind::Unauthorized));
}

#[test]
fn a_provider_that_is_away_is_said_and_passwords_go_on() {
    let rig = Rig::as_received();
    let sut = Sut::start(&rig, Provider::start());
    sut.provider.set(|state| state.broken = Some("503 Service Unavailable"));
    let error = sut.begin().err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("sign in with a password"), "{}", error.message);
    sut.provider.set(|state| state.broken = None);
    let back = sut.begin().unwrap();
    sut.provider.set(|state| state.broken = Some("502 Bad Gateway"));
    assert_eq!(sut.kind(back), Some(ErrorKind::Unavailable));
}

#[test]
fn without_a_provider_there_is_none() {
    let rig = Rig::as_received();
    let running = rig.start();
    let control = Control(Arc::clone(&running.appliance));
    assert_eq!(control.sign_in_elsewhere(&visitor(), &Elsewhere::Offered).unwrap()["provider"], Value::Null);
    assert_eq!(control.sign_in_elsewhere(&visitor(), &Elsewhere::Begin).unwrap_err().kind, ErrorKind::NotFound);
    let operator = Caller::operator("127.0.0.1");
    assert_eq!(control.sign_in_elsewhere(&operator, &Elsewhere::Begin).unwrap_err().kind, ErrorKind::Forbidden);
}

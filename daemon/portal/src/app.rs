//! What is asked, and who answers it.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    assets,
    cookie::{self, Kind},
    daemon::{Daemon, DaemonError, Question, passed_on},
    elsewhere,
    imagicle::{self, credentials::Sessions, serve::Sent},
    live, origin, patterns,
    rate::{Buckets, REQUESTS, SIGN_INS},
    serve::Peer,
    tls::{Certificate, Remark},
    waveform::Waveform,
};

/// Bytes of a request's body: a note has two thousand characters.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Bytes of a list of users: some ten thousand of them.
pub const IMPORT_BYTES_MAX: usize = 4 << 20;

/// Such lists taken at once, as each is held whole; and recordings, as each is decoded here.
pub const IMPORTS_MAX: usize = 2;

/// Time for a body.
pub const BODY_MAX: Duration = Duration::from_secs(15);

/// Waveforms worked out at once: each reads a whole recording, which is the dearest that a page asks for.
pub const WAVEFORMS_MAX: usize = 2;

/// Where pages ask.
const API: &str = "/api/";

/// What programs put after it.
const V1: &str = "v1/";

/// A recording of which a waveform is made is not longer than a day.
const DURATION_MS_MAX: u64 = 86_400_000;

/// Sent with everything. No code but our files', nothing from or in other sites.
const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    ("strict-transport-security", "max-age=31536000"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
];

/// The gadget's page: the only one that may stand in a frame of another site.
pub const GADGET: &str = "/gadgets/CallRecording";

/// What is said of the certificate, for the gadget to show.
const GADGET_CERTIFICATE: &str = "/gadgets/certificate";

/// Sent with the gadget's page in place of the one above: Webex's sites may frame it.
const GADGET_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors https://*.webex.com; require-trusted-types-for 'script'";

/// The portal.
#[derive(Debug)]
pub struct App {
    pub(crate) daemon: Daemon,
    /// What stands for the credentials of programs that send them with each request.
    pub(crate) basic_sessions: Mutex<Sessions>,
    /// Held while such a session is begun.
    pub(crate) signing_in: tokio::sync::Mutex<()>,
    requests: Mutex<Buckets>,
    sign_ins: Mutex<Buckets>,
    waveforms: Semaphore,
    pub(crate) imports: Semaphore,
    followers: Arc<Semaphore>,
    certificate: Option<Arc<Certificate>>,
}

impl App {
    /// One that asks that daemon.
    pub fn new(daemon: Daemon) -> Self {
        Self {
            daemon,
            basic_sessions: Mutex::default(),
            signing_in: tokio::sync::Mutex::default(),
            requests: Mutex::new(Buckets::new(REQUESTS)),
            sign_ins: Mutex::new(Buckets::new(SIGN_INS)),
            waveforms: Semaphore::new(WAVEFORMS_MAX),
            imports: Semaphore::new(IMPORTS_MAX),
            followers: Arc::new(Semaphore::new(live::FOLLOWERS_MAX)),
            certificate: None,
        }
    }

    /// The same, knowing by which certificate it is served.
    #[must_use]
    pub fn served_by(mut self, certificate: Arc<Certificate>) -> Self {
        self.certificate = Some(certificate);
        self
    }

    fn remark(&self) -> Option<Remark> {
        self.certificate.as_ref()?.remark(SystemTime::now())
    }

    /// What a connection is served by; each puts its [`Peer`] to it.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().fallback(entered).with_state(Arc::clone(self))
    }

    async fn answer(&self, from: IpAddr, request: Request) -> Result<Response<Body>, Refusal> {
        let now = Instant::now();
        if !self.requests.lock().unwrap_or_else(PoisonError::into_inner).take(from, now) {
            return Err(SLOWLY);
        }
        let path = request.uri().path().to_owned();
        if path == GADGET_CERTIFICATE && request.method() == Method::GET {
            return Ok(json_answer(StatusCode::OK, &json!({"remark": self.remark().map(Remark::code)})));
        }
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
        if let Some(below) = imagicle::below(&path) {
            // A browser may send such credentials by itself, so that no page of another site may ask.
            if !origin::is_ours(origin::Told { has_field: true, ..told(&request) }, changes) {
                return Err(refusal(403, "forbidden", "this request was begun by a page of another site"));
            }
            let (parts, body) = request.into_parts();
            // A recording that is sent is read as it comes, once it is known who sends it.
            let sent = match imagicle::is_upload(&parts.method, &parts.headers, below) {
                true => Sent::Coming(body),
                false => Sent::Whole(read(body, BODY_BYTES_MAX).await?),
            };
            return Ok(self.imagicle(from, &parts, below, sent).await);
        }
        if [elsewhere::OFF, elsewhere::BACK].contains(&path.as_str()) {
            return Ok(self.elsewhere(from, &request.into_parts().0).await);
        }
        let Some(rest) = path.strip_prefix(API) else {
            if changes {
                return Err(only("GET, HEAD", "pages are read with GET"));
            }
            return assets::answer(&path, request.headers()).ok_or(NOWHERE);
        };
        // Programs have a version in the address and a token in a field, which no browser sends by itself. Where there is a cookie, it counts.
        let (rest, may_be_program) = rest.strip_prefix(V1).map_or((rest, false), |rest| (rest, true));
        let token = bearer(request.headers()).filter(|_| may_be_program);
        let has_field = told(&request).has_field || token.is_some();
        if !origin::is_ours(origin::Told { has_field, ..told(&request) }, changes) {
            return Err(refusal(403, "forbidden", "this request was not begun by a page of the portal"));
        }
        let (parts, body) = request.into_parts();
        let is_piece = rest.starts_with("imports/") && rest.ends_with("/audio");
        let import = match rest {
            _ if is_piece => Some(self.imports.try_acquire().map_err(|_| FULL)?),
            "users/import" => Some(self.imports.try_acquire().map_err(|_| FULL)?),
            _ => None,
        };
        let body = read(body, import.as_ref().map_or(BODY_BYTES_MAX, |_| IMPORT_BYTES_MAX)).await?;
        let fields = parts.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let is_gadget = parts.headers.get(origin::FIELD).is_some_and(|value| value == origin::GADGET);
        let kind = if is_gadget { Kind::Gadget } else { Kind::Pages };
        let session = cookie::session(kind, fields);
        let is_browser = session.is_some();
        let session = session.or(token.as_deref());
        match (&parts.method, rest) {
            (&Method::POST, "sign-in") => return self.sign_in(kind, from, now, body).await,
            (&Method::GET, "sign-in") => {
                let question =
                    Question { method: Method::GET, target: "/v1/sign-in", session: None, from, body: Bytes::new() };
                let (status, answer) = self.daemon.ask_json(question).await?;
                return Ok(json_answer(status, &answer));
            }
            (_, "sign-in") => return Err(only("GET, POST", "sign in with POST")),
            // Their answers have a session in them, which no script is to see.
            (_, "sign-in/begin" | "sign-in/finish") => return Err(NOWHERE),
            _ => {}
        }
        let session = session.ok_or(refusal(401, "unauthorized", "sign in first"))?;
        match (&parts.method, rest.split('/').collect::<Vec<_>>().as_slice()) {
            (&Method::GET, ["live"]) => {
                let place = Arc::clone(&self.followers).try_acquire_owned().map_err(|_| FULL)?;
                Ok(live::follow(self.daemon.clone(), session.to_owned(), from, place))
            }
            (&Method::GET, ["recordings", id, "waveform"]) => {
                self.waveform(from, session, id, parts.uri.query().unwrap_or_default()).await
            }
            (&Method::POST, ["patterns", "try"]) => self.patterns(from, session, &body).await,
            (_, ["live"] | ["recordings", _, "waveform"]) => Err(only("GET", "this is read with GET")),
            (_, ["patterns", "try"]) => Err(only("POST", "patterns are tried with POST")),
            (method, segments) => {
                let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                let target = format!("/v1/{rest}{query}");
                let question = Question { method: method.clone(), target: &target, session: Some(session), from, body };
                let is_end = matches!((method, segments), (&Method::POST, ["sign-out"]));
                let answer = self.daemon.ask(question).await?;
                let is_over = is_end || answer.status() == StatusCode::UNAUTHORIZED;
                let mut answer = passed_on(answer);
                if is_over && is_browser {
                    set(answer.headers_mut(), "set-cookie", &cookie::end(kind));
                }
                if let (["recordings", id, "audio"], Some(query)) = (segments, parts.uri.query()) {
                    name_file(&mut answer, id, query);
                }
                Ok(answer)
            }
        }
    }

    /// Whether that address has an attempt to sign in left, which it takes.
    pub(crate) fn may_sign_in(&self, from: IpAddr, now: Instant) -> bool {
        self.sign_ins.lock().unwrap_or_else(PoisonError::into_inner).take(from, now)
    }

    /// Asks the daemon for a session, and gives it to the browser alone: the page never sees it.
    async fn sign_in(&self, kind: Kind, from: IpAddr, now: Instant, body: Bytes) -> Result<Response<Body>, Refusal> {
        if !self.may_sign_in(from, now) {
            return Err(SLOWLY);
        }
        let question = Question { method: Method::POST, target: "/v1/sign-in", session: None, from, body };
        let (status, mut answer) = self.daemon.ask_json(question).await?;
        let session = answer.as_object_mut().and_then(|fields| fields.remove("session"));
        let mut reply = json_answer(status, &answer);
        if let Some(session) = session.as_ref().and_then(Value::as_str).filter(|text| cookie::is_session(text)) {
            let seconds = answer.get("seconds").and_then(Value::as_u64).unwrap_or(0);
            set(reply.headers_mut(), "set-cookie", &cookie::begin(kind, session, seconds));
        }
        Ok(reply)
    }

    /// Tries patterns, for those who may set them, which is the daemon's to say.
    async fn patterns(&self, from: IpAddr, session: &str, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let question =
            Question { method: Method::GET, target: "/v1/me", session: Some(session), from, body: Bytes::new() };
        let (status, me) = self.daemon.ask_json(question).await?;
        if !status.is_success() {
            return Ok(json_answer(status, &me));
        }
        if me.pointer("/may/administer") != Some(&Value::Bool(true)) {
            return Err(refusal(403, "forbidden", "patterns are tried by administrators; ask one"));
        }
        let answer = patterns::tried(body).map_err(|text| refusal(400, "bad-request", text))?;
        Ok(json_answer(StatusCode::OK, &answer))
    }

    async fn waveform(&self, from: IpAddr, session: &str, id: &str, query: &str) -> Result<Response<Body>, Refusal> {
        let duration_ms = query.strip_prefix("duration_ms=").and_then(|text| text.parse().ok());
        let duration_ms = duration_ms.filter(|ms| (1..=DURATION_MS_MAX).contains(ms));
        if duration_ms.is_none() && !query.is_empty() {
            return Err(refusal(
                400,
                "bad-request",
                "duration_ms says how long the recording is; there is nothing else",
            ));
        }
        // What archiving worked out.
        let target = format!("/v1/recordings/{id}/waveform");
        let question =
            Question { method: Method::GET, target: &target, session: Some(session), from, body: Bytes::new() };
        let (status, kept) = self.daemon.ask_json(question).await?;
        let Some(duration_ms) = duration_ms.filter(|_| status.is_success() && kept["channels"].is_null()) else {
            return Ok(json_answer(status, &kept));
        };
        let _place = self.waveforms.acquire().await.map_err(|_| FULL)?;
        let target = format!("/v1/recordings/{id}/audio?format=wav&for=play");
        let question =
            Question { method: Method::GET, target: &target, session: Some(session), from, body: Bytes::new() };
        let answer = self.daemon.ask(question).await?;
        if !answer.status().is_success() {
            return Ok(passed_on(answer));
        }
        let mut body = answer.into_body();
        let mut waveform = Waveform::new(duration_ms);
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame.map_err(DaemonError::from)?.into_data() {
                waveform.take(&bytes).map_err(|_| refusal(422, "unprocessable", "no waveform can be made of it"))?;
            }
        }
        Ok(json_answer(StatusCode::OK, &waveform.json()))
    }
}

async fn entered(
    State(app): State<Arc<App>>,
    Extension(Peer(from)): Extension<Peer>,
    request: Request,
) -> Response<Body> {
    let path = request.uri().path();
    let is_api = path.starts_with(API) || imagicle::below(path).is_some();
    let is_gadget = path == GADGET;
    let mut answer = app.answer(from, request).await.unwrap_or_else(|refusal| {
        let text = json!({"error": {"code": refusal.code, "message": refusal.text}});
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = json_answer(status, &text);
        if let Some(methods) = refusal.allows {
            set(answer.headers_mut(), "allow", methods);
        }
        answer
    });
    for (name, value) in HEADERS {
        answer.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    if is_gadget {
        answer.headers_mut().insert("content-security-policy", HeaderValue::from_static(GADGET_POLICY));
        answer.headers_mut().remove("x-frame-options");
    }
    if is_api {
        set(answer.headers_mut(), "cache-control", "no-store");
    }
    answer
}

/// Why something is not answered.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    status: u16,
    code: &'static str,
    text: &'static str,
    /// The methods that there are, where another was used (RFC 9110 section 15.5.6).
    allows: Option<&'static str>,
}

const fn refusal(status: u16, code: &'static str, text: &'static str) -> Refusal {
    Refusal { status, code, text, allows: None }
}

const fn only(methods: &'static str, text: &'static str) -> Refusal {
    Refusal { status: 405, code: "method-not-allowed", text, allows: Some(methods) }
}

const SLOWLY: Refusal = refusal(429, "too-many-requests", "too many requests from this address; wait a little");
const NOWHERE: Refusal = refusal(404, "not-found", "there is nothing here");
const FULL: Refusal = refusal(503, "unavailable", "too many people do that just now; try again");

impl From<DaemonError> for Refusal {
    fn from(error: DaemonError) -> Self {
        tracing::warn!("failed to {error}");
        refusal(503, "unavailable", "the recorder cannot be asked just now; try again")
    }
}

fn told(request: &Request) -> origin::Told<'_> {
    let field = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    origin::Told {
        fetch_site: field("sec-fetch-site"),
        origin: field("origin"),
        host: request.uri().authority().map(|authority| authority.as_str()).or_else(|| field("host")),
        has_field: request.headers().contains_key(origin::FIELD),
    }
}

/// The token of a program; more than one are none.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = fields.next()?.to_str().ok()?.split_once(' ')?;
    let is_one = scheme.eq_ignore_ascii_case("bearer") && cookie::is_session(token) && fields.next().is_none();
    is_one.then(|| token.to_owned())
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    match timeout(BODY_MAX, Limited::new(body, bytes_max).collect()).await {
        Err(_) => Err(refusal(408, "timeout", "the request did not come to its end in time")),
        Ok(Err(_)) => Err(refusal(413, "body-too-large", "the request's body is too large, or broke off")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

pub(crate) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(value.to_string()));
    *answer.status_mut() = status;
    set(answer.headers_mut(), "content-type", "application/json");
    answer
}

/// Sets a field whose value is made here of visible ASCII.
pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// What is taken away is saved under a name that tells nothing: who called whom is not for a folder of downloads.
fn name_file(answer: &mut Response<Body>, id: &str, query: &str) {
    let ends = [("format=mp3", "mp3"), ("format=wav", "wav"), ("format=opus", "opus")];
    let end = ends.iter().find(|(part, _)| query.split('&').any(|one| one == *part));
    let is_taken = query.split('&').any(|one| one == "for=download");
    let is_id = id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if let (Some((_, end)), true, true, true) = (end, is_taken, is_id, answer.status().is_success()) {
        set(answer.headers_mut(), "content-disposition", &format!("attachment; filename=\"{id}.{end}\""));
    }
}

//! Signing in at the organisation's provider: the browser is sent there, and comes back with a code, which the daemon makes a session of. What
//! ties the two together is in a cookie of the browser that began; so a link that somebody else made signs nobody in.

use std::{net::IpAddr, time::Instant};

use axum::{
    body::Body,
    http::{Method, Response, StatusCode, header},
};
use bytes::Bytes;
use hyper::http::request::Parts;
use serde_json::{Value, json};

use crate::{
    app::{App, set},
    cookie,
    daemon::Question,
    imagicle::pairs,
};

/// Where the browser is sent off.
pub const OFF: &str = "/sign-in/provider";

/// Where it comes back to, `oidc.redirect` in the daemon's settings.
pub const BACK: &str = "/sign-in/back";

/// What people read when it did not work.
struct Told {
    status: u16,
    text: String,
}

fn told(status: u16, text: impl Into<String>) -> Told {
    Told { status, text: text.into() }
}

impl App {
    /// Answers both; `parts` are of a request for one of them.
    pub(crate) async fn elsewhere(&self, from: IpAddr, parts: &Parts) -> Response<Body> {
        let answer = match () {
            () if parts.method != Method::GET => Err(told(405, "This is read with GET.")),
            () if !self.may_sign_in(from, Instant::now()) => Err(told(429, "Too many attempts; wait a little.")),
            () if parts.uri.path() == OFF => self.off(from).await,
            () => self.back(from, parts).await,
        };
        answer.unwrap_or_else(|told| page(&told))
    }

    async fn off(&self, from: IpAddr) -> Result<Response<Body>, Told> {
        let begun = self.said(from, "/v1/sign-in/begin", Bytes::new()).await?;
        let text = |name: &str| begun.get(name).and_then(Value::as_str).unwrap_or_default();
        let seconds = begun.get("seconds").and_then(Value::as_u64).unwrap_or(0);
        if !cookie::is_attempt(text("attempt")) {
            return Err(told(503, "The recorder cannot be asked just now; try again."));
        }
        let mut answer = to(text("url"));
        set(answer.headers_mut(), "set-cookie", &cookie::begin_attempt(text("attempt"), seconds));
        Ok(answer)
    }

    async fn back(&self, from: IpAddr, parts: &Parts) -> Result<Response<Body>, Told> {
        let fields = parts.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let attempt = cookie::attempt(fields);
        let attempt = attempt
            .ok_or_else(|| told(400, "This sign-in was not begun in this browser, or too long ago. Begin again."))?;
        let given =
            pairs(parts.uri.query().unwrap_or_default()).map_err(|_| told(400, "This is no answer of a provider."))?;
        let field = |name: &str| given.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let (Some(code), Some(state)) = (field("code"), field("state")) else {
            return Err(told(403, "The provider did not let you in. Begin again, or ask an administrator."));
        };
        let body = json!({"attempt": attempt, "state": state, "code": code}).to_string();
        let done = self.said(from, "/v1/sign-in/finish", Bytes::from(body)).await?;
        let session = done.get("session").and_then(Value::as_str).filter(|text| cookie::is_session(text));
        let session = session.ok_or_else(|| told(503, "The recorder cannot be asked just now; try again."))?;
        let seconds = done.get("seconds").and_then(Value::as_u64).unwrap_or(0);
        let mut answer = to("/");
        set(answer.headers_mut(), "set-cookie", &cookie::begin(cookie::Kind::Pages, session, seconds));
        end_attempt(&mut answer);
        Ok(answer)
    }

    /// What the daemon says, or what people are told where it refuses.
    async fn said(&self, from: IpAddr, target: &str, body: Bytes) -> Result<Value, Told> {
        let question = Question { method: Method::POST, target, session: None, from, body };
        match self.daemon.ask_json(question).await {
            Ok((status, answer)) if status.is_success() => Ok(answer),
            Ok((status, answer)) => {
                let text = answer.pointer("/error/message").and_then(Value::as_str);
                Err(told(status.as_u16(), text.unwrap_or("it is refused")))
            }
            Err(error) => {
                tracing::warn!("failed to {error}");
                Err(told(503, "The recorder cannot be asked just now; try again."))
            }
        }
    }
}

fn to(place: &str) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    set(answer.headers_mut(), "location", place);
    set(answer.headers_mut(), "cache-control", "no-store");
    answer
}

fn end_attempt(answer: &mut Response<Body>) {
    if let Ok(value) = cookie::end_attempt().parse() {
        answer.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// A page that says what was wrong, with the way back.
fn page(told: &Told) -> Response<Body> {
    let text: String = told.text.chars().map(escaped).collect();
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Sign in</title><link rel=\"stylesheet\" href=\"/app.css\"></head><body><main><section class=\"card sign-in\">\
         <h1>That did not work</h1><p role=\"alert\">{text}</p><p><a href=\"/\">Back</a></p></section></main></body></html>"
    );
    let mut answer = Response::new(Body::from(html));
    *answer.status_mut() = StatusCode::from_u16(told.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(answer.headers_mut(), "content-type", "text/html; charset=utf-8");
    set(answer.headers_mut(), "cache-control", "no-store");
    end_attempt(&mut answer);
    answer
}

fn escaped(c: char) -> String {
    match c {
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        '&' => "&amp;".into(),
        '"' => "&quot;".into(),
        c => c.into(),
    }
}

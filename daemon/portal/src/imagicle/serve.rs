//! Asks the daemon what a call needs, and answers.

use std::{
    net::IpAddr,
    sync::PoisonError,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use bytes::Bytes;
use hyper::http::request::Parts;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Asked, Live, Problem, ROWS_MAX, Wanted, answers, credentials::Basic};
use crate::{
    app::{App, json_answer, set},
    cookie,
    daemon::{DaemonError, Question, passed_on},
};

/// What came with a request.
pub(crate) enum Sent {
    /// All of it.
    Whole(Bytes),
    /// It is large, and still comes.
    Coming(Body),
}

impl Sent {
    fn take(&mut self) -> Body {
        match std::mem::replace(self, Self::Whole(Bytes::new())) {
            Self::Whole(body) => Body::from(body),
            Self::Coming(body) => body,
        }
    }
}

/// Who asks, and from where.
pub(super) struct Visitor<'a> {
    pub(super) session: &'a str,
    pub(super) from: IpAddr,
}

impl From<DaemonError> for Problem {
    fn from(error: DaemonError) -> Self {
        tracing::warn!("failed to {error}");
        Self::new(504, None, "the recorder cannot be asked just now; try again")
    }
}

/// What the daemon refuses, in that API's words.
fn refused(status: StatusCode, answer: &Value) -> Problem {
    let said = answer.pointer("/error/message").and_then(Value::as_str).unwrap_or("it is refused");
    let reason = (status == StatusCode::BAD_REQUEST).then_some(0);
    Problem::new(status.as_u16(), reason, said)
}

impl App {
    /// Answers a call of that API; `below` is its path after [`super::PREFIX`].
    pub(crate) async fn imagicle(&self, from: IpAddr, parts: &Parts, below: &str, body: Sent) -> Response<Body> {
        self.imagicle_answer(from, parts, below, body).await.unwrap_or_else(|problem| {
            let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = json_answer(status, &json!({"reason": problem.reason, "message": problem.message}));
            if status == StatusCode::UNAUTHORIZED {
                set(answer.headers_mut(), "www-authenticate", "Basic realm=\"callvault\", charset=\"UTF-8\"");
            }
            answer
        })
    }

    async fn imagicle_answer(
        &self,
        from: IpAddr,
        parts: &Parts,
        below: &str,
        mut sent: Sent,
    ) -> Result<Response<Body>, Problem> {
        // Who may is asked first: strangers do not learn what there is.
        let basic = basic(&parts.headers)?;
        let query = parts.uri.query().unwrap_or_default();
        let mut is_new = false;
        loop {
            let session = match basic.token() {
                Some(token) => token.to_owned(),
                None => self.session_of(&basic, from, &mut is_new).await?,
            };
            let visitor = Visitor { session: &session, from };
            let body = match &sent {
                Sent::Whole(body) => body,
                Sent::Coming(_) => &Bytes::new(),
            };
            let done = match super::understand(parts.method.as_str(), below, query, body) {
                Ok(Asked::Upload) => match self.may_upload(&visitor).await {
                    // It comes once: from here on nothing is tried again.
                    Ok(()) => return self.upload(&visitor, &parts.headers, sent.take()).await,
                    Err(problem) => Err(problem),
                },
                Ok(asked) => self.do_asked(&visitor, asked).await,
                // Also this is for those alone who are somebody.
                Err(problem) => self.told(&visitor, Method::GET, "/v1/me").await.and(Err(problem)),
            };
            match done {
                // It was ended meanwhile: begin another, once.
                Err(problem) if problem.status == 401 && basic.token().is_none() && !is_new => {
                    self.basic_sessions.lock().unwrap_or_else(PoisonError::into_inner).forget(&basic);
                }
                done => return done,
            }
        }
    }

    /// The session of these credentials, begun if there is none. One at a time, so that calls that come together begin one between them.
    async fn session_of(&self, basic: &Basic, from: IpAddr, is_new: &mut bool) -> Result<String, Problem> {
        let known = |now| self.basic_sessions.lock().unwrap_or_else(PoisonError::into_inner).of(basic, now);
        if let Some(session) = known(Instant::now()) {
            return Ok(session);
        }
        let _turn = self.signing_in.lock().await;
        let now = Instant::now();
        if let Some(session) = known(now) {
            return Ok(session);
        }
        *is_new = true;
        if !self.may_sign_in(from, now) {
            return Err(Problem::new(429, None, "too many attempts from this address; wait a little"));
        }
        let body = Bytes::from(basic.sign_in());
        let question = Question { method: Method::POST, target: "/v1/sign-in", session: None, from, body };
        let (status, answer) = self.daemon.ask_json(question).await?;
        if !status.is_success() {
            return Err(refused(status, &answer));
        }
        let session = answer.get("session").and_then(Value::as_str).filter(|text| cookie::is_session(text));
        let text = "the first password has to be changed, which is done at the portal";
        let session = session.ok_or_else(|| Problem::new(403, None, text))?.to_owned();
        let good = Duration::from_secs(answer.get("seconds").and_then(Value::as_u64).unwrap_or(0));
        let mut sessions = self.basic_sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.keep(basic, session.clone(), good, now);
        Ok(session)
    }

    async fn do_asked(&self, visitor: &Visitor<'_>, asked: Asked) -> Result<Response<Body>, Problem> {
        match asked {
            Asked::List(wanted) => self.list(visitor, &wanted).await,
            Asked::One(id) => {
                let found = self.told(visitor, Method::GET, &format!("/v1/recordings/{id}")).await?;
                Ok(json_answer(StatusCode::OK, &answers::detail(&found)))
            }
            Asked::Download(id) => self.download(visitor, id).await,
            Asked::Active(line) => {
                let calls = self.calls(visitor).await?;
                let on: Vec<Value> =
                    calls.iter().filter(|call| answers::is_on(call, &line)).map(answers::live).collect();
                Ok(json_answer(StatusCode::OK, &json!(on)))
            }
            Asked::Start(which) => {
                let begun = self.control(visitor, &which, "start").await?;
                Ok(json_answer(StatusCode::CREATED, &json!({"id": begun.get("id")})))
            }
            Asked::Upload => Err(Problem::new(400, 0, "a recording is sent as multipart/form-data")),
            Asked::Stop(which) => {
                self.control(visitor, &which, "stop").await?;
                let mut answer = Response::new(Body::empty());
                *answer.status_mut() = StatusCode::NO_CONTENT;
                Ok(answer)
            }
        }
    }

    async fn list(&self, visitor: &Visitor<'_>, wanted: &Wanted) -> Result<Response<Body>, Problem> {
        let (query, page) = (wanted.query(), wanted.page());
        let (mut rows, mut count, mut shown, mut cursor) = (0, 0, Vec::new(), None::<String>);
        loop {
            let target = match &cursor {
                None => format!("/v1/recordings?{query}"),
                Some(cursor) => format!("/v1/recordings?{query}&cursor={}", super::filter::encoded(cursor)),
            };
            let found = self.told(visitor, Method::GET, &target).await?;
            let recordings = found.get("recordings").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            rows += recordings.len();
            for recording in recordings.iter().filter(|recording| wanted.has(recording)) {
                if page.contains(&count) {
                    shown.push(answers::recording(recording));
                }
                count += 1;
            }
            cursor = found.get("next").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                return Ok(json_answer(StatusCode::OK, &json!({"totalCount": count, "recordings": shown})));
            }
            if rows >= ROWS_MAX {
                let text = format!("more than {ROWS_MAX} recordings would have to be looked at; narrow startTime");
                return Err(Problem::new(400, 0, text));
            }
        }
    }

    async fn download(&self, visitor: &Visitor<'_>, id: Uuid) -> Result<Response<Body>, Problem> {
        let target = format!("/v1/recordings/{id}/audio?format=mp3&for=download");
        let question = visitor.asks(Method::GET, &target);
        let answer = self.daemon.ask(question).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(Problem::new(status.as_u16(), None, "there is no audio of it that you may have"));
        }
        let mut answer = passed_on(answer);
        set(answer.headers_mut(), "content-disposition", &format!("attachment; filename=\"{id}.mp3\""));
        Ok(answer)
    }

    async fn calls(&self, visitor: &Visitor<'_>) -> Result<Vec<Value>, Problem> {
        let told = self.told(visitor, Method::GET, "/v1/calls").await?;
        Ok(told.get("calls").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Does that about the live call.
    async fn control(&self, visitor: &Visitor<'_>, which: &Live, action: &str) -> Result<Value, Problem> {
        let none = || Problem::new(409, None, "there is no call there that is being recorded");
        let id = match which {
            Live::Id(id) => *id,
            Live::On(line) => first(&self.calls(visitor).await?, |call| answers::is_on(call, line)).ok_or_else(none)?,
            Live::Mine => {
                let me = self.told(visitor, Method::GET, "/v1/me").await?;
                let is_mine = |call: &Value| call.get("owner").is_some_and(|owner| Some(owner) == me.get("name"));
                first(&self.calls(visitor).await?, is_mine).ok_or_else(none)?
            }
        };
        let told = self.told(visitor, Method::POST, &format!("/v1/calls/{id}/{action}")).await;
        told.map_err(|problem| if problem.status == 404 { none() } else { problem })
    }

    /// Whether they may, before all of it is sent: the daemon decides by itself when it comes.
    async fn may_upload(&self, visitor: &Visitor<'_>) -> Result<(), Problem> {
        let me = self.told(visitor, Method::GET, "/v1/me").await?;
        if me.pointer("/may/administer") == Some(&Value::Bool(true)) {
            return Ok(());
        }
        Err(Problem::new(403, None, "recordings are taken in for administrators; ask one"))
    }

    /// What the daemon says to it.
    async fn told(&self, visitor: &Visitor<'_>, method: Method, target: &str) -> Result<Value, Problem> {
        self.told_with(visitor, method, target, Bytes::new()).await
    }

    /// What the daemon says to it and this.
    pub(super) async fn told_with(
        &self,
        visitor: &Visitor<'_>,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Value, Problem> {
        let question = Question { body, ..visitor.asks(method, target) };
        let (status, answer) = self.daemon.ask_json(question).await?;
        if status.is_success() { Ok(answer) } else { Err(refused(status, &answer)) }
    }
}

impl<'a> Visitor<'a> {
    fn asks(&self, method: Method, target: &'a str) -> Question<'a>
    where
        Self: 'a,
    {
        Question { method, target, session: Some(self.session), from: self.from, body: Bytes::new() }
    }
}

fn first(calls: &[Value], is_it: impl Fn(&Value) -> bool) -> Option<Uuid> {
    let call = calls.iter().find(|call| is_it(call))?;
    Uuid::try_parse(call.get("id")?.as_str()?).ok()
}

/// The credentials; more than one are none.
fn basic(headers: &HeaderMap) -> Result<Basic, Problem> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let found = fields.next().and_then(|field| Basic::of(field.to_str().ok()?));
    let problem = || Problem::new(401, None, "send a name and a password by HTTP Basic");
    match (found, fields.next()) {
        (Some(basic), None) => Ok(basic),
        _ => Err(problem()),
    }
}

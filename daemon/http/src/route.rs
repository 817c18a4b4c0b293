//! From method and target to what is asked. Pure.

use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    Annotate, ApiError, AudioFormat, AudioPurpose, AudioRequest, AuditQuery, CallAction, ChangeSettings, DiscardsQuery,
    Elsewhere, ErrorKind, Import, MigrateStore, NewToken, RecordingsQuery, SignIn, UserImport, WebexCall, access,
    annotate, imports, paths, settings, sign_in, users, webex,
};

/// What a request under `/v1/` asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    /// The description of all this.
    OpenApi,
    Discards(DiscardsQuery),
    Status,
    Calls,
    Control(Uuid, CallAction),
    Recordings(RecordingsQuery),
    Recording(Uuid),
    Deliveries(Uuid),
    Deliver(Uuid, String),
    Waveform(Uuid),
    Audio(Uuid, AudioRequest),
    Delete(Uuid),
    Annotate(Uuid, Annotate),
    Verify(Option<Uuid>),
    Jobs,
    RetryJob(String),
    /// Whether to drain, or to stop draining.
    Drain(bool),
    Keys,
    RotateKeys,
    Me,
    Users,
    User(String),
    SetUser(String, Vec<(String, String)>),
    RemoveUser(String),
    UserPicture(String),
    /// With the picture in base64; none: without one.
    SetUserPicture(String, Option<String>),
    ImportUsers(UserImport),
    Tokens,
    CreateToken(NewToken),
    RevokeToken(Uuid),
    Audit(AuditQuery),
    /// Whether what somebody noted of the log's end is in it.
    VerifyAudit(Option<String>),
    /// For this reason.
    StopRecording(String),
    StartRecording,
    Settings,
    ChangeSettings(ChangeSettings),
    Capacity,
    /// To which address, in which language.
    TryMail(String, Option<String>),
    Store,
    MigrateStore(MigrateStore),
    Retention,
    RunRetention,
    /// What is asked, by its name.
    ConfirmRetention(String),
    SignIn(SignIn),
    Elsewhere(Elsewhere),
    SignOut,
    Sessions,
    EndSession(Uuid),
    Webex(WebexCall),
    Import(Import),
}

/// The paths that need no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    Health,
    Ready,
    Metrics,
}

impl Open {
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "/health" => Some(Self::Health),
            "/ready" => Some(Self::Ready),
            "/metrics" => Some(Self::Metrics),
            _ => None,
        }
    }
}

const MAIL: &[&str] = &["address", "language"];
const RECORDINGS: &[&str] = &[
    "from",
    "to",
    "verdict",
    "direction",
    "traffic",
    "duration_min_ms",
    "duration_max_ms",
    "number",
    "number_match",
    "owner",
    "group",
    "tag",
    "note",
    "preserved",
    "limit",
    "cursor",
];
const AUDIO: &[&str] = &["format", "start_ms", "end_ms", "for"];
const VERDICTS: &[&str] = &["ok", "degraded", "failed", "no-media", "discarded"];
const DIRECTIONS: &[&str] = &["incoming", "outgoing", "unknown"];
const TRAFFICS: &[&str] = &["internal", "external", "unknown"];
const MATCHES: &[&str] = &["prefix", "suffix", "part"];
const FORMATS: &[&str] = &["wav", "opus", "mp3"];
const LIMIT_MAX: usize = 1000;

/// What unknown paths are told.
pub(crate) const NOTHING_HERE: &str = "there is nothing here; the paths are /health, /ready, /metrics and /v1/…";

/// Understands a request (a body that is not asked for is not looked at), or says what is wrong with it.
pub(crate) fn route(method: &str, target: &str, body: &[u8]) -> Result<Call, ApiError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let unknown = || ApiError::new(ErrorKind::NotFound, NOTHING_HERE);
    let parts: Vec<String> = path
        .strip_prefix("/v1/")
        .ok_or_else(unknown)?
        .split('/')
        .map(|part| decode(part).ok_or_else(unknown))
        .collect::<Result<_, _>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let only = |expected: &'static str, call: Call| {
        if method != expected {
            return Err(ApiError::method(expected));
        }
        Query::parse(query, &[]).map(|_| call)
    };
    if !paths::is_known(&parts) {
        return Err(unknown());
    }
    match parts.as_slice() {
        ["openapi.json"] => only("GET", Call::OpenApi),
        ["status"] => only("GET", Call::Status),
        ["calls"] => only("GET", Call::Calls),
        ["jobs"] => only("GET", Call::Jobs),
        ["jobs", id, "retry"] => only("POST", Call::RetryJob((*id).to_owned())),
        ["drain"] => match method {
            "POST" => only("POST", Call::Drain(true)),
            "DELETE" => only("DELETE", Call::Drain(false)),
            _ => Err(ApiError::method("POST, DELETE")),
        },
        ["calls", id, action] => match CallAction::ALL.into_iter().find(|known| known.as_str() == *action) {
            Some(action) => only("POST", Call::Control(uuid(id)?, action)),
            None => Err(unknown()),
        },
        ["sign-in"] if method == "POST" => only("POST", Call::SignIn(sign_in::sign_in(body)?)),
        ["sign-in"] if method == "GET" => only("GET", Call::Elsewhere(Elsewhere::Offered)),
        ["sign-in"] => Err(ApiError::method("GET, POST")),
        ["sign-in", "begin"] => only("POST", Call::Elsewhere(Elsewhere::Begin)),
        ["sign-in", "finish"] if method == "POST" => only("POST", Call::Elsewhere(sign_in::came_back(body)?)),
        ["sign-in", "finish"] => Err(ApiError::method("POST")),
        ["sign-out"] => only("POST", Call::SignOut),
        ["sessions"] => only("GET", Call::Sessions),
        ["sessions", id] => only("DELETE", Call::EndSession(uuid_of(id)?)),
        ["me"] => only("GET", Call::Me),
        ["webex", ..] | ["users", "sync" | "unmatched"] | ["users", "sync", _] | ["completeness"] => {
            webex::webex(method, &parts, query, body)
        }
        ["users"] => only("GET", Call::Users),
        ["users", "import"] if method == "POST" => only("POST", Call::ImportUsers(users::import(body)?)),
        ["users", email] if email.contains('@') => match method {
            "GET" => only("GET", Call::User((*email).to_owned())),
            "PUT" => only("PUT", Call::SetUser((*email).to_owned(), users::fields(body)?)),
            "DELETE" => only("DELETE", Call::RemoveUser((*email).to_owned())),
            _ => Err(ApiError::method("GET, PUT, DELETE")),
        },
        ["users", email, "picture"] if email.contains('@') => {
            let email = (*email).to_owned();
            match method {
                "GET" => only("GET", Call::UserPicture(email)),
                "PUT" => only("PUT", Call::SetUserPicture(email, Some(users::picture(body)?))),
                "DELETE" => only("DELETE", Call::SetUserPicture(email, None)),
                _ => Err(ApiError::method("GET, PUT, DELETE")),
            }
        }
        ["users", "import"] => Err(ApiError::method("POST")),
        ["discards"] => match method {
            "GET" => users::discards(query).map(Call::Discards),
            _ => Err(ApiError::method("GET")),
        },
        ["tokens"] => match method {
            "GET" => only("GET", Call::Tokens),
            "POST" => only("POST", Call::CreateToken(access::new_token(body)?)),
            _ => Err(ApiError::method("GET, POST")),
        },
        ["tokens", id] => only("DELETE", Call::RevokeToken(uuid_of(id)?)),
        ["audit"] => match method {
            "GET" => access::audit(query).map(Call::Audit),
            _ => Err(ApiError::method("GET")),
        },
        ["audit", "verify"] => match method {
            "GET" => Ok(Call::VerifyAudit(Query::parse(query, &["head"])?.take("head"))),
            _ => Err(ApiError::method("GET")),
        },
        ["recording", "stop"] if method == "POST" => only("POST", Call::StopRecording(access::reason(body)?)),
        ["recording", "stop"] => Err(ApiError::method("POST")),
        ["recording", "start"] => only("POST", Call::StartRecording),
        ["settings"] if method == "PUT" => only("PUT", Call::ChangeSettings(settings::change(body)?)),
        ["settings"] if method == "GET" => only("GET", Call::Settings),
        ["settings"] => Err(ApiError::method("GET, PUT")),
        ["capacity"] => only("GET", Call::Capacity),
        ["mail", "test"] => match method {
            "POST" => try_mail(query),
            _ => Err(ApiError::method("POST")),
        },
        ["store"] => only("GET", Call::Store),
        ["store", "migrate"] if method == "POST" => only("POST", Call::MigrateStore(json_in(body)?)),
        ["store", "migrate"] => Err(ApiError::method("POST")),
        ["retention"] => only("GET", Call::Retention),
        ["retention", "run"] => only("POST", Call::RunRetention),
        ["retention", "confirm"] if method == "POST" => only("POST", Call::ConfirmRetention(access::answer(body)?)),
        ["retention", "confirm"] => Err(ApiError::method("POST")),
        ["keys"] => only("GET", Call::Keys),
        ["keys", "rotate"] => only("POST", Call::RotateKeys),
        ["verify"] => only("GET", Call::Verify(None)),
        ["recordings", id, "verify"] => only("GET", Call::Verify(Some(uuid(id)?))),
        ["recordings"] => match method {
            "GET" => recordings(query).map(Call::Recordings),
            _ => Err(ApiError::method("GET")),
        },
        ["recordings", id] => match method {
            "GET" => only("GET", Call::Recording(uuid(id)?)),
            "DELETE" => only("DELETE", Call::Delete(uuid(id)?)),
            _ => Err(ApiError::method("GET, DELETE")),
        },
        ["recordings", id, "deliveries", sink] => only("POST", Call::Deliver(uuid(id)?, (*sink).to_owned())),
        ["recordings", id, "deliveries"] => only("GET", Call::Deliveries(uuid(id)?)),
        ["recordings", id, "waveform"] => only("GET", Call::Waveform(uuid(id)?)),
        ["recordings", id, "audio"] => match method {
            "GET" => Ok(Call::Audio(uuid(id)?, audio(query)?)),
            _ => Err(ApiError::method("GET")),
        },
        ["imports", rest @ ..] => {
            let step = imports::imports(method, rest, body).ok_or_else(unknown)??;
            Query::parse(query, &[]).map(|_| step)
        }
        ["recordings", id, rest @ ..] => {
            let change = annotate::annotate(method, rest, body).ok_or_else(unknown)??;
            Query::parse(query, &[])?;
            Ok(Call::Annotate(uuid(id)?, change))
        }
        _ => Err(unknown()),
    }
}

/// The JSON of a body.
pub(crate) fn json_in<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        // what serde_json says of a value could hold the value
        let place = format!("line {}, column {}", error.line(), error.column());
        ApiError::new(ErrorKind::BadRequest, format!("the body is not the JSON that is wanted here: look at {place}"))
    })
}

fn recordings(query: &str) -> Result<RecordingsQuery, ApiError> {
    let mut query = Query::parse(query, RECORDINGS)?;
    let limit = query.take("limit").map(|text| match text.parse() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        _ => Err(wrong("limit", "a number from 1 to 1000")),
    });
    Ok(RecordingsQuery {
        from: time("from", query.take("from"))?,
        to: time("to", query.take("to"))?,
        verdict: query.take("verdict").map(|text| one_of("verdict", text, VERDICTS)).transpose()?,
        direction: query.take("direction").map(|text| one_of("direction", text, DIRECTIONS)).transpose()?,
        traffic: query.take("traffic").map(|text| one_of("traffic", text, TRAFFICS)).transpose()?,
        duration_min_ms: ms("duration_min_ms", query.take("duration_min_ms"))?,
        duration_max_ms: ms("duration_max_ms", query.take("duration_max_ms"))?,
        number: non_empty("number", query.take("number"), "a number or the end of one")?,
        number_match: query.take("number_match").map(|text| one_of("number_match", text, MATCHES)).transpose()?,
        owner: non_empty("owner", query.take("owner"), "a user's name")?,
        group: non_empty("group", query.take("group"), "a group's name")?,
        tags: query.take("tag").map_or_else(Vec::new, |tags| tags.split(',').map(str::to_owned).collect()),
        note: non_empty("note", query.take("note"), "a text of a note")?,
        preserved: (query.take("preserved").map(|text| one_of("preserved", text, &["true", "false"])).transpose()?)
            .map(|text| text == "true"),
        limit: limit.transpose()?,
        cursor: non_empty("cursor", query.take("cursor"), "what an earlier answer gave as next")?,
    })
}

fn try_mail(query: &str) -> Result<Call, ApiError> {
    let mut query = Query::parse(query, MAIL)?;
    let address = query.take("address").filter(|text| text.contains('@'));
    let address = address.ok_or_else(|| wrong("address", "a mail address"))?;
    Ok(Call::TryMail(address, query.take("language")))
}

fn ms(name: &str, text: Option<String>) -> Result<Option<u64>, ApiError> {
    text.map(|text| text.parse::<u64>().map_err(|_| wrong(name, "a number of milliseconds"))).transpose()
}

fn audio(query: &str) -> Result<AudioRequest, ApiError> {
    let mut query = Query::parse(query, AUDIO)?;
    let format = query.take("format").ok_or_else(|| wrong("format", &listed(FORMATS)))?;
    let format = match one_of("format", format, FORMATS)?.as_str() {
        "wav" => AudioFormat::Wav,
        "opus" => AudioFormat::Opus,
        _ => AudioFormat::Mp3,
    };
    let start_ms = ms("start_ms", query.take("start_ms"))?.unwrap_or(0);
    let end_ms = ms("end_ms", query.take("end_ms"))?;
    if end_ms.is_some_and(|end_ms| end_ms <= start_ms) {
        return Err(wrong("end_ms", "more than start_ms"));
    }
    let purpose = query.take("for").map(|text| one_of("for", text, &["play", "download"])).transpose()?;
    let purpose = if purpose.as_deref() == Some("play") { AudioPurpose::Play } else { AudioPurpose::Download };
    Ok(AudioRequest { format, start_ms, end_ms, purpose })
}

pub(crate) fn time(name: &str, text: Option<String>) -> Result<Option<Timestamp>, ApiError> {
    let allowed = "an RFC 3339 time, for example 2027-01-31T08:00:00Z";
    text.map(|text| Timestamp::from_str(&text).map_err(|_| wrong(name, allowed))).transpose()
}

pub(crate) fn non_empty(name: &str, text: Option<String>, what: &str) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.trim().is_empty() => Err(wrong(name, what)),
        text => Ok(text),
    }
}

/// The parameters of a query, each at most once.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str, allowed: &[&str]) -> Result<Self, ApiError> {
        let bad = |message: String| ApiError::new(ErrorKind::BadRequest, message);
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(bad("the query is not percent-encoded UTF-8".into()));
            };
            if !allowed.contains(&name.as_str()) {
                let allowed = if allowed.is_empty() { "none is".into() } else { listed(allowed) };
                return Err(bad(format!("parameter {name:?} is not known here; allowed: {allowed}")));
            }
            if found.iter().any(|(known, _)| *known == name) {
                return Err(bad(format!("parameter {name:?} is there twice")));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

pub(crate) fn one_of(name: &str, value: String, allowed: &[&str]) -> Result<String, ApiError> {
    if allowed.contains(&value.as_str()) { Ok(value) } else { Err(wrong(name, &listed(allowed))) }
}

fn listed(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}

pub(crate) fn wrong(name: &str, allowed: &str) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, format!("parameter {name:?} must be {allowed}"))
}

/// An id of something else than a recording.
pub(crate) fn uuid_of(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::new(ErrorKind::BadRequest, "an id is a UUID"))
}

fn uuid(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::new(ErrorKind::BadRequest, "a recording's id is a UUID"))
}

/// Percent-decoding (RFC 3986). A `+` is a plus sign: numbers begin with one, and so do time zones.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "01900000-0000-7000-8000-000000000001";

    fn status(method: &str, target: &str) -> u16 {
        route(method, target, b"").map_or_else(|error| error.kind.status().0, |_| 200)
    }

    #[test]
    fn the_documented_paths_are_there_and_no_others() {
        let check = |method: &str, path: &str, expected: u16| {
            let target = path.replace("ID", ID);
            assert_eq!(status(method, &target), expected, "{method} {target}");
        };
        check("GET", "/v1/status", 200);
        check("GET", "/v1/calls", 200);
        check("GET", "/v1/recordings", 200);
        check("GET", "/v1/recordings/ID", 200);
        check("DELETE", "/v1/recordings/ID", 200);
        check("GET", "/v1/recordings/ID/audio?format=wav", 200);
        check("GET", "/v1/recordings/ID/verify", 200);
        check("GET", "/v1/verify", 200);
        check("GET", "/v1/jobs", 200);
        check("POST", "/v1/jobs/archive:ID/retry", 200);
        check("POST", "/v1/jobs/archive%3AID/retry", 200);
        check("POST", "/v1/drain", 200);
        check("DELETE", "/v1/drain", 200);
        for action in ["pause", "resume", "stop", "start", "keep"] {
            check("POST", &format!("/v1/calls/ID/{action}"), 200);
            check("GET", &format!("/v1/calls/ID/{action}"), 405);
        }
        check("POST", "/v1/calls/ID/hold", 404);
        check("POST", "/v1/calls/1/pause", 400);
        check("POST", "/v1/calls/ID/pause?x=1", 400);
        check("POST", "/v1/calls/ID", 404);
        check("GET", "/v1/recordings/ID/audio?format=wav&for=play", 200);
        check("GET", "/v1/recordings/ID/audio?format=wav&for=fun", 400);
        check("GET", "/v1/sign-in", 200);
        check("POST", "/v1/sign-in", 400);
        check("PUT", "/v1/sign-in", 405);
        check("POST", "/v1/sign-in/begin", 200);
        check("GET", "/v1/sign-in/begin", 405);
        check("POST", "/v1/sign-in/finish", 400);
        check("GET", "/v1/sign-in/finish", 405);
        check("GET", "/v1/me", 200);
        check("GET", "/v1/users", 200);
        check("POST", "/v1/users", 405);
        check("GET", "/v1/users/ann@example.com", 200);
        check("GET", "/v1/users/ann%40example.com", 200);
        check("PUT", "/v1/users/ann@example.com", 400);
        check("DELETE", "/v1/users/ann@example.com", 200);
        check("GET", "/v1/users/ann", 404);
        check("POST", "/v1/users/import", 400);
        check("GET", "/v1/users/import", 405);
        check("GET", "/v1/discards?rule=filter-blacklist&limit=5", 200);
        check("GET", "/v1/discards?limit=0", 400);
        check("POST", "/v1/discards", 405);
        check("GET", "/v1/tokens", 200);
        check("POST", "/v1/tokens", 400);
        check("DELETE", "/v1/tokens/ID", 200);
        check("GET", "/v1/tokens/ID", 405);
        check("GET", "/v1/audit", 200);
        check("GET", "/v1/audit?order=oldest&outcome=refused&recording=ID&limit=5&cursor=7&name=ann", 200);
        check("GET", "/v1/audit?outcome=good", 400);
        check("GET", "/v1/audit?cursor=x", 400);
        check("POST", "/v1/audit", 405);
        check("GET", "/v1/audit/verify?head=1:00", 200);
        check("POST", "/v1/recording/stop", 400);
        check("GET", "/v1/recording/stop", 405);
        check("POST", "/v1/recording/start", 200);
        check("DELETE", "/v1/recording/start", 405);
        check("GET", "/v1/settings", 200);
        check("PUT", "/v1/settings", 400);
        check("POST", "/v1/settings", 405);
        check("GET", "/v1/capacity", 200);
        check("POST", "/v1/capacity", 405);
        check("POST", "/v1/mail/test?address=ann%40example.com", 200);
        check("POST", "/v1/mail/test?address=ann@example.com&language=it", 200);
        check("POST", "/v1/mail/test", 400);
        check("POST", "/v1/mail/test?address=ann", 400);
        check("GET", "/v1/mail/test?address=ann@example.com", 405);
        check("GET", "/v1/users/ann@example.com/picture", 200);
        check("PUT", "/v1/users/ann@example.com/picture", 400);
        check("DELETE", "/v1/users/ann@example.com/picture", 200);
        check("POST", "/v1/users/ann@example.com/picture", 405);
        check("GET", "/v1/users/ann/picture", 404);
        check("GET", "/v1/store", 200);
        check("POST", "/v1/store", 405);
        check("POST", "/v1/store/migrate", 400);
        check("GET", "/v1/store/migrate", 405);
        check("GET", "/v1/retention", 200);
        check("POST", "/v1/retention", 405);
        check("POST", "/v1/retention/run", 200);
        check("GET", "/v1/retention/run", 405);
        check("POST", "/v1/retention/confirm", 400);
        check("GET", "/v1/retention/confirm", 405);
        check("GET", "/v1/keys", 200);
        check("POST", "/v1/keys/rotate", 200);
        check("GET", "/", 404);
        check("GET", "/v1", 404);
        check("GET", "/v1/", 404);
        check("GET", "/v2/status", 404);
        check("GET", "/v1/recordings/", 400);
        check("GET", "/v1/recordings/ID/", 404);
        check("GET", "/v1/recordings/ID/notes", 405);
        check("PUT", "/v1/recordings/ID/preserve", 200);
        check("DELETE", "/v1/recordings/ID/preserve", 200);
        check("POST", "/v1/recordings/ID/preserve", 405);
        check("POST", "/v1/recordings/ID/notes", 400);
        check("PATCH", "/v1/recordings/ID/notes/ID", 400);
        check("DELETE", "/v1/recordings/ID/notes/ID", 200);
        check("DELETE", "/v1/recordings/ID/notes/1", 400);
        check("PUT", "/v1/recordings/ID/notes/ID", 405);
        check("PUT", "/v1/recordings/ID/tags/very%20angry", 200);
        check("DELETE", "/v1/recordings/ID/tags/very%20angry", 200);
        check("GET", "/v1/recordings/ID/tags", 404);
        check("PUT", "/v1/recordings/ID/tags/x?y=1", 400);
        check("GET", "/v1/recordings?preserved=maybe", 400);
        check("GET", "/v1/recordings?number=1&number_match=part&tag=a,b&note=x&group=Sales&traffic=external", 200);
        check("GET", "/v1/recordings?duration_min_ms=1&duration_max_ms=x", 400);
        check("GET", "/v1/status/%zz", 404);
        check("GET", "/v1/status/%", 404);
        check("GET", "/v1/recordings/1", 400);
        check("POST", "/v1/status", 405);
        check("HEAD", "/v1/status", 405);
        check("get", "/v1/status", 405);
        check("PUT", "/v1/recordings/ID", 405);
        check("DELETE", "/v1/recordings", 405);
        check("GET", "/v1/drain", 405);
        check("GET", "/v1/status?x=1", 400);
    }

    #[test]
    fn a_query_is_understood() {
        let Ok(Call::Recordings(query)) = route(
            "GET",
            "/v1/recordings?from=2027-01-01T00:00:00%2B01:00&to=2027-01-02T00:00:00+01:00&verdict=no-media\
             &direction=incoming&number=+49%2030&owner=zo%C3%AB&limit=7&cursor=1_2&",
            b"",
        ) else {
            panic!("not understood");
        };
        let expected = RecordingsQuery {
            from: Some("2026-12-31T23:00:00Z".parse().unwrap()),
            to: Some("2027-01-01T23:00:00Z".parse().unwrap()),
            verdict: Some("no-media".into()),
            direction: Some("incoming".into()),
            number: Some("+49 30".into()),
            owner: Some("zoë".into()),
            limit: Some(7),
            cursor: Some("1_2".into()),
            ..RecordingsQuery::default()
        };
        assert!(query == expected);
        let audio = route("GET", &format!("/v1/recordings/{ID}/audio?end_ms=9&format=opus&start_ms=5"), b"");
        let request =
            AudioRequest { format: AudioFormat::Opus, start_ms: 5, end_ms: Some(9), purpose: AudioPurpose::Download };
        assert_eq!(audio, Ok(Call::Audio(ID.parse().unwrap(), request)));
    }

    #[test]
    fn bodies_are_read_strictly() {
        let check = |path: &str, body: &str, expected: &str| {
            let found = route("POST", path, body.as_bytes()).map_or_else(|error| error.message, |_| "fine".into());
            assert!(found.contains(expected), "{body}: {found}");
        };
        check("/v1/tokens", r#"{"name": "x", "level": "base", "user": "ann@example.com", "expires_days": 30}"#, "fine");
        check("/v1/tokens", r#"{"name": " ", "level": "base"}"#, "1 to 100 characters");
        check("/v1/tokens", r#"{"name": "x", "level": "boss"}"#, "one of record-only, base");
        check("/v1/tokens", r#"{"name": "x", "level": "base", "expires_days": 0}"#, "1 to 3660");
        check("/v1/tokens", r#"{"name": "x", "level": "base", "expires_days": 3661}"#, "1 to 3660");
        check("/v1/tokens", r#"{"name": "x", "level": "base", "secret-name": 1}"#, "look at line 1, column 44");
        check("/v1/tokens", "", "not the JSON");
        let notes = format!("/v1/recordings/{ID}/notes");
        check(&notes, r#"{"text": "a", "at_ms": 5}"#, "fine");
        check(&notes, r#"{"text": "a", "at_ms": -5}"#, "look at line 1");
        check(&notes, r#"{"text": "a", "by": "me"}"#, "look at line 1");
        check("/v1/recording/stop", r#"{"reason": "moving house"}"#, "fine");
        check("/v1/recording/stop", r#"{"reason": "  "}"#, "says why");
        check("/v1/recording/stop", "{\"reason\": \"a\\nb\"}", "on one line");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        let check = |target: &str, expected: &str| {
            let error = route("GET", &target.replace("ID", ID), b"").unwrap_err();
            assert_eq!(error.kind, ErrorKind::BadRequest, "{target}");
            assert!(error.message.contains(expected), "{target}: {}", error.message);
        };
        check("/v1/recordings?colour=red", "\"colour\" is not known here; allowed: one of from, to,");
        check("/v1/status?x", "\"x\" is not known here; allowed: none");
        check("/v1/recordings?limit=1&limit=2", "\"limit\" is there twice");
        check("/v1/recordings?limit=0", "\"limit\" must be a number from 1 to 1000");
        check("/v1/recordings?limit=1001", "1 to 1000");
        check("/v1/recordings?from=yesterday", "\"from\" must be an RFC 3339 time");
        check("/v1/recordings?to=2027-01-01", "\"to\" must be an RFC 3339 time");
        check("/v1/recordings?verdict=good", "\"verdict\" must be one of ok, degraded, failed, no-media, discarded");
        check("/v1/recordings?direction=up", "\"direction\" must be one of incoming, outgoing, unknown");
        check("/v1/recordings?number=", "\"number\" must be");
        check("/v1/recordings?number=%FF", "not percent-encoded UTF-8");
        check("/v1/recordings/ID/audio", "\"format\" must be one of wav, opus, mp3");
        check("/v1/recordings/ID/audio?format=aac", "one of wav, opus, mp3");
        check("/v1/recordings/ID/audio?format=wav&start_ms=-1", "\"start_ms\" must be a number of milliseconds");
        check("/v1/recordings/ID/audio?format=wav&start_ms=5&end_ms=5", "\"end_ms\" must be more than start_ms");
        check("/v1/recordings/x/audio?format=wav", "a recording's id is a UUID");
    }

    proptest! {
        #[test]
        fn no_target_panics(target in "(/v1/(recordings|jobs|keys))?[/?&=%a-f0-9+.:é-]{0,60}") {
            let _ = route("GET", &target, b"");
        }
    }
}

//! From method and target to what is asked. Pure.

use std::str::FromStr;

use jiff::Timestamp;
use uuid::Uuid;

use crate::{ApiError, AudioFormat, AudioRequest, CallAction, ErrorKind, RecordingsQuery};

/// What a request under `/v1/` asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Status,
    Calls,
    Control(Uuid, CallAction),
    Recordings(RecordingsQuery),
    Recording(Uuid),
    Audio(Uuid, AudioRequest),
    Delete(Uuid),
    Verify(Option<Uuid>),
    Jobs,
    RetryJob(String),
    /// Whether to drain, or to stop draining.
    Drain(bool),
    Keys,
    RotateKeys,
    Settings,
    /// To which address, in which language.
    TryMail(String, Option<String>),
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

const RECORDINGS: &[&str] = &["from", "to", "verdict", "direction", "number", "owner", "limit", "cursor"];
const MAIL: &[&str] = &["address", "language"];
const AUDIO: &[&str] = &["format", "start_ms", "end_ms"];
const VERDICTS: &[&str] = &["ok", "degraded", "failed", "no-media", "discarded"];
const DIRECTIONS: &[&str] = &["incoming", "outgoing", "unknown"];
const FORMATS: &[&str] = &["wav", "opus", "mp3"];
const LIMIT_MAX: usize = 1000;

/// What unknown paths are told.
pub(crate) const NOTHING_HERE: &str = "there is nothing here; the paths are /health, /ready, /metrics and /v1/…";

/// Understands a request, or says what is wrong with it.
pub(crate) fn route(method: &str, target: &str) -> Result<Call, ApiError> {
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
    match parts.as_slice() {
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
        ["settings"] => only("GET", Call::Settings),
        ["mail", "test"] => match method {
            "POST" => try_mail(query),
            _ => Err(ApiError::method("POST")),
        },
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
        ["recordings", id, "audio"] => match method {
            "GET" => Ok(Call::Audio(uuid(id)?, audio(query)?)),
            _ => Err(ApiError::method("GET")),
        },
        _ => Err(unknown()),
    }
}

fn recordings(query: &str) -> Result<RecordingsQuery, ApiError> {
    let mut query = Query::parse(query, RECORDINGS)?;
    let time = |name: &str, text: Option<String>| {
        let allowed = "an RFC 3339 time, for example 2027-01-31T08:00:00Z";
        text.map(|text| Timestamp::from_str(&text).map_err(|_| wrong(name, allowed))).transpose()
    };
    let limit = query.take("limit").map(|text| match text.parse() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        _ => Err(wrong("limit", "a number from 1 to 1000")),
    });
    let non_empty = |name: &str, text: Option<String>, what: &str| match text {
        Some(text) if text.trim().is_empty() => Err(wrong(name, what)),
        text => Ok(text),
    };
    Ok(RecordingsQuery {
        from: time("from", query.take("from"))?,
        to: time("to", query.take("to"))?,
        verdict: query.take("verdict").map(|text| one_of("verdict", text, VERDICTS)).transpose()?,
        direction: query.take("direction").map(|text| one_of("direction", text, DIRECTIONS)).transpose()?,
        number: non_empty("number", query.take("number"), "a number or the end of one")?,
        owner: non_empty("owner", query.take("owner"), "a user's name")?,
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

fn audio(query: &str) -> Result<AudioRequest, ApiError> {
    let mut query = Query::parse(query, AUDIO)?;
    let format = query.take("format").ok_or_else(|| wrong("format", &listed(FORMATS)))?;
    let format = match one_of("format", format, FORMATS)?.as_str() {
        "wav" => AudioFormat::Wav,
        "opus" => AudioFormat::Opus,
        _ => AudioFormat::Mp3,
    };
    let ms = |name: &str, text: Option<String>| {
        text.map(|text| text.parse::<u64>().map_err(|_| wrong(name, "a number of milliseconds"))).transpose()
    };
    let start_ms = ms("start_ms", query.take("start_ms"))?.unwrap_or(0);
    let end_ms = ms("end_ms", query.take("end_ms"))?;
    if end_ms.is_some_and(|end_ms| end_ms <= start_ms) {
        return Err(wrong("end_ms", "more than start_ms"));
    }
    Ok(AudioRequest { format, start_ms, end_ms })
}

/// The parameters of a query, each at most once.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str, allowed: &[&str]) -> Result<Self, ApiError> {
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

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

fn one_of(name: &str, value: String, allowed: &[&str]) -> Result<String, ApiError> {
    if allowed.contains(&value.as_str()) { Ok(value) } else { Err(wrong(name, &listed(allowed))) }
}

fn listed(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}

fn wrong(name: &str, allowed: &str) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, format!("parameter {name:?} must be {allowed}"))
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
        route(method, target).map_or_else(|error| error.kind.status().0, |_| 200)
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
        check("GET", "/v1/settings", 200);
        check("PUT", "/v1/settings", 405);
        check("POST", "/v1/mail/test?address=ann%40example.com", 200);
        check("POST", "/v1/mail/test?address=ann@example.com&language=it", 200);
        check("POST", "/v1/mail/test", 400);
        check("POST", "/v1/mail/test?address=ann", 400);
        check("GET", "/v1/mail/test?address=ann@example.com", 405);
        check("GET", "/v1/keys", 200);
        check("POST", "/v1/keys/rotate", 200);
        check("GET", "/", 404);
        check("GET", "/v1", 404);
        check("GET", "/v1/", 404);
        check("GET", "/v2/status", 404);
        check("GET", "/v1/recordings/", 400);
        check("GET", "/v1/recordings/ID/", 404);
        check("GET", "/v1/recordings/ID/notes", 404);
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
        };
        assert!(query == expected);
        let audio = route("GET", &format!("/v1/recordings/{ID}/audio?end_ms=9&format=opus&start_ms=5"));
        let request = AudioRequest { format: AudioFormat::Opus, start_ms: 5, end_ms: Some(9) };
        assert_eq!(audio, Ok(Call::Audio(ID.parse().unwrap(), request)));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        let check = |target: &str, expected: &str| {
            let error = route("GET", &target.replace("ID", ID)).unwrap_err();
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
            let _ = route("GET", &target);
        }
    }
}

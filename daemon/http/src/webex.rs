//! What is asked about Webex.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::route::{Call, NOTHING_HERE, Query, json_in, non_empty, time, uuid_of, wrong};
use crate::{ApiError, ErrorKind};

/// Something about Webex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebexCall {
    /// `GET /v1/webex`: how the authorisation stands, and what was done last.
    Status,
    /// `POST /v1/webex/authorisation`: where an administrator authorises.
    Begin,
    /// `POST /v1/webex/authorisation/answer`: what came back.
    Finish(Pasted),
    /// `POST /v1/webex/authorisation/service-app`: the refresh token of a Service App.
    ServiceApp(Pasted),
    /// `POST /v1/users/sync`: users are synchronised now.
    Sync(SyncWanted),
    /// `GET /v1/users/sync`: what synchronisations did.
    Runs,
    /// `GET /v1/users/sync/ID`: the whole report of one.
    Run(Uuid),
    /// `GET /v1/users/unmatched`: who is known here or at Webex alone.
    Unmatched,
    /// `GET /v1/completeness`: calls that Webex has records of, compared with what is held.
    Completeness(CompletenessQuery),
}

/// What an administrator pasted, or what came back to the redirect. `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pasted {
    /// It.
    pub answer: String,
}

impl fmt::Debug for Pasted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pasted")
    }
}

/// How users are to be synchronised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncWanted {
    /// Only tell what would be done.
    #[serde(default, rename = "dry_run")]
    pub is_dry_run: bool,
    /// It is meant, although unusually many would go.
    #[serde(default, rename = "confirm")]
    pub is_confirmed: bool,
}

/// Which calls are compared. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CompletenessQuery {
    /// Begun at or after; without it a day before `to`.
    pub from: Option<Timestamp>,
    /// Begun before; without it now.
    pub to: Option<Timestamp>,
    /// Only of this location, as Webex names it.
    pub location: Option<String>,
    /// Only of this user, as Webex names them.
    pub user: Option<String>,
}

impl fmt::Debug for CompletenessQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletenessQuery").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

/// What is asked at `parts`, which begin with `webex`, with `users` and `sync` or `unmatched`, or with `completeness`.
pub(crate) fn webex(method: &str, parts: &[&str], query: &str, body: &[u8]) -> Result<Call, ApiError> {
    let only = |expected: &'static str| if method == expected { Ok(()) } else { Err(ApiError::method(expected)) };
    let call = match parts {
        ["webex"] => only("GET").map(|()| WebexCall::Status),
        ["webex", "authorisation"] => only("POST").map(|()| WebexCall::Begin),
        ["webex", "authorisation", "answer"] => only("POST").and_then(|()| Ok(WebexCall::Finish(json_in(body)?))),
        ["webex", "authorisation", "service-app"] => {
            only("POST").and_then(|()| Ok(WebexCall::ServiceApp(json_in(body)?)))
        }
        ["users", "sync"] => match method {
            "GET" => Ok(WebexCall::Runs),
            "POST" if body.is_empty() => Ok(WebexCall::Sync(SyncWanted::default())),
            "POST" => Ok(WebexCall::Sync(json_in(body)?)),
            _ => Err(ApiError::method("GET, POST")),
        },
        ["users", "sync", id] => only("GET").and_then(|()| Ok(WebexCall::Run(uuid_of(id)?))),
        ["users", "unmatched"] => only("GET").map(|()| WebexCall::Unmatched),
        ["completeness"] => return only("GET").and_then(|()| completeness(query)),
        _ => Err(ApiError::new(ErrorKind::NotFound, NOTHING_HERE)),
    }?;
    Query::parse(query, &[]).map(|_| Call::Webex(call))
}

fn completeness(query: &str) -> Result<Call, ApiError> {
    let mut query = Query::parse(query, &["from", "to", "location", "user"])?;
    let (from, to) = (time("from", query.take("from"))?, time("to", query.take("to"))?);
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(wrong("to", "later than from"));
    }
    let location = non_empty("location", query.take("location"), "a location's name")?;
    let user = non_empty("user", query.take("user"), "a user's name")?;
    Ok(Call::Webex(WebexCall::Completeness(CompletenessQuery { from, to, location, user })))
}

#[cfg(test)]
mod tests {
    use crate::route::{Call, route};

    #[track_caller]
    fn check(method: &str, target: &str, body: &str, expected: &str) {
        let found = match route(method, target, body.as_bytes()) {
            Ok(Call::Webex(call)) => format!("{call:?}"),
            other => format!("{other:?}"),
        };
        assert!(found.contains(expected), "{method} {target} {body}: {found}");
    }

    #[test]
    fn what_is_asked_about_webex() {
        check("GET", "/v1/webex", "", "Status");
        check("POST", "/v1/webex", "", "Method");
        check("POST", "/v1/webex/authorisation", "", "Begin");
        check("POST", "/v1/webex/authorisation/answer", r#"{"answer":"code=secret"}"#, "Finish(Pasted)");
        check("POST", "/v1/webex/authorisation/service-app", r#"{"answer":"secret"}"#, "ServiceApp(Pasted)");
        check("POST", "/v1/webex/authorisation/answer", "{}", "BadRequest");
        check("GET", "/v1/users/sync", "", "Runs");
        check("POST", "/v1/users/sync", "", "is_dry_run: false, is_confirmed: false");
        check("POST", "/v1/users/sync", r#"{"dry_run":true}"#, "is_dry_run: true, is_confirmed: false");
        check("DELETE", "/v1/users/sync", "", "Method");
        check("GET", "/v1/users/sync/01a209ab-1893-7125-a272-196191d776ad", "", "Run(01a209ab");
        check("GET", "/v1/users/sync/last", "", "an id is a UUID");
        check("GET", "/v1/users/unmatched", "", "Unmatched");
        check("POST", "/v1/users/unmatched", "", "Method");
        check("GET", "/v1/completeness", "", "from: None");
        check("GET", "/v1/completeness?from=2026-01-02T00:00:00Z&to=2026-01-03T00:00:00Z", "", "2026-01-02");
        check("GET", "/v1/completeness?from=2026-01-03T00:00:00Z&to=2026-01-02T00:00:00Z", "", "later than from");
        check("GET", "/v1/completeness?days=2", "", "not known here");
        check("GET", "/v1/webex/tokens", "", "NotFound");
    }
}

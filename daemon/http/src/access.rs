//! What is asked about access: tokens, the audit log, stopping and starting recording.

use std::{fmt, str::FromStr as _};

use callvault_access::Level;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    ApiError, ErrorKind,
    route::{Query, json_in, non_empty, one_of, time, uuid_of, wrong},
};

/// Characters of a token's name.
const NAME_CHARS_MAX: usize = 100;

/// Days after which a token expires: ten years, which is longer than anybody looks after one.
const EXPIRES_DAYS_MAX: u32 = 3_660;

/// Characters of the reason for which recording is stopped.
const REASON_CHARS_MAX: usize = 500;

/// Bytes of what names a question.
const ANSWER_BYTES_MAX: usize = 64;

/// Entries of the audit log on a page.
const LIMIT_MAX: usize = 1_000;

const AUDIT: &[&str] = &["from", "to", "action", "name", "recording", "outcome", "order", "limit", "cursor"];

/// A token to be made. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// What it gives at most.
    pub level: Level,
    /// The Webex e-mail of whose it is; none: nobody's.
    pub user: Option<String>,
    /// Days until it is worth nothing; none: for ever.
    pub expires_days: Option<u32>,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Which entries of the audit log are asked for. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// At or after.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// Only this action.
    pub action: Option<String>,
    /// Only what this one did.
    pub name: Option<String>,
    /// Only what was done to this recording.
    pub recording: Option<Uuid>,
    /// One of `allowed`, `refused`, `failed`.
    pub outcome: Option<String>,
    /// The oldest first.
    pub oldest_first: bool,
    /// At most so many, 1 to 1000.
    pub limit: Option<usize>,
    /// What an earlier answer gave as `next`.
    pub cursor: Option<u64>,
}

impl fmt::Debug for AuditQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditQuery").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

fn bad(text: &str) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, text)
}

/// `POST /v1/tokens`.
pub(crate) fn new_token(body: &[u8]) -> Result<NewToken, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        name: String,
        level: String,
        user: Option<String>,
        expires_days: Option<u32>,
    }
    let Body { name, level, user, expires_days } = json_in(body)?;
    let name = name.trim().to_owned();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return Err(bad("\"name\" says what the token is for, in 1 to 100 characters"));
    }
    let level = Level::from_str(&level)
        .map_err(|()| bad("\"level\" must be one of record-only, base, group-supervisor, administrator"))?;
    if expires_days.is_some_and(|days| !(1..=EXPIRES_DAYS_MAX).contains(&days)) {
        return Err(bad("\"expires_days\" must be a number from 1 to 3660, or be left out for a token without an end"));
    }
    Ok(NewToken { name, level, user, expires_days })
}

/// What names the question that is answered.
pub(crate) fn answer(body: &[u8]) -> Result<String, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        token: String,
    }
    let Body { token } = json_in(body)?;
    if token.is_empty() || token.len() > ANSWER_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(bad("\"token\" is the one that /v1/retention shows with its question"));
    }
    Ok(token)
}

/// `POST /v1/recording/stop`.
pub(crate) fn reason(body: &[u8]) -> Result<String, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        reason: String,
    }
    let Body { reason } = json_in(body)?;
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        return Err(bad("\"reason\" says why, in 1 to 500 characters on one line; health shows it to whoever asks"));
    }
    Ok(reason.to_owned())
}

/// `GET /v1/audit`.
pub(crate) fn audit(query: &str) -> Result<AuditQuery, ApiError> {
    let mut query = Query::parse(query, AUDIT)?;
    let limit = query.take("limit").map(|text| match text.parse() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        _ => Err(wrong("limit", "a number from 1 to 1000")),
    });
    let order = query.take("order").map(|text| one_of("order", text, &["newest", "oldest"])).transpose()?;
    let outcome = query.take("outcome").map(|text| one_of("outcome", text, &["allowed", "refused", "failed"]));
    let cursor = query.take("cursor").map(|text| text.parse());
    Ok(AuditQuery {
        from: time("from", query.take("from"))?,
        to: time("to", query.take("to"))?,
        action: non_empty("action", query.take("action"), "an action, for example play")?,
        name: non_empty("name", query.take("name"), "an e-mail or the name of a token")?,
        recording: query.take("recording").map(|text| uuid_of(&text)).transpose()?,
        outcome: outcome.transpose()?,
        oldest_first: order.as_deref() == Some("oldest"),
        limit: limit.transpose()?,
        cursor: cursor.transpose().map_err(|_| wrong("cursor", "what an earlier answer gave as next"))?,
    })
}

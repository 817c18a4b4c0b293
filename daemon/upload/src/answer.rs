//! What comes back over HTTP, and what it means.

use callvault_seal::Secret;
use jiff::Timestamp;
use serde::Deserialize;

use crate::SecretText;

/// The longest that a `Retry-After` is obeyed, 24 hours in milliseconds: what asks for more is mistaken or malicious.
pub const RETRY_AFTER_MS_MAX: u64 = 24 * 3600 * 1000;

/// Longest access token, presigned URL and state, in bytes: they travel in a request's head, and servers refuse longer ones.
const HEAD_TEXT_BYTES_MAX: usize = 8 * 1024;

/// Longest identifier that the other side gives a recording.
const REMOTE_ID_BYTES_MAX: usize = 256;

/// How long a token is taken to be good for when the answer does not say, in seconds (RFC 6749 section 5.1 only recommends to say).
const LIFETIME_S_UNSAID: u64 = 300;

/// The longest that a token is kept, in seconds.
const LIFETIME_S_MAX: u64 = 24 * 3600;

/// An answer over HTTP, as far as anything depends on it. `Debug` does not show the body.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header `Retry-After`, as it came.
    pub retry_after: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What an answer means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// 2xx: done.
    Good,
    /// 401: who asks is not known, or not any more.
    Unauthorised,
    /// 429: too much at once. 502, 503, 504: nobody is served now.
    Busy {
        /// For how long, where it says so, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// 408, 425, 500 and other 5xx: this went wrong, another time it may not.
    Failed,
    /// 3xx, 404, 405, 407, 410: what was asked for is not there where it was looked for.
    Elsewhere,
    /// Any other: no.
    Refused,
}

/// What a status means (RFC 9110 section 15), with the header `Retry-After` (section 10.2.3: seconds, or a date).
pub fn meaning(answer: &Answer, now: Timestamp) -> Meaning {
    match answer.status {
        200..=299 => Meaning::Good,
        401 => Meaning::Unauthorised,
        429 | 502..=504 => {
            Meaning::Busy { wait_ms: answer.retry_after.as_deref().and_then(|text| retry_after_ms(text, now)) }
        }
        408 | 425 | 500.. => Meaning::Failed,
        300..=399 | 404 | 405 | 407 | 410 => Meaning::Elsewhere,
        _ => Meaning::Refused,
    }
}

/// The wait that a `Retry-After` asks for; none when it cannot be read.
fn retry_after_ms(text: &str, now: Timestamp) -> Option<u64> {
    let text = text.trim();
    let ms = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number can have are more than the most.
        text.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000)
    } else {
        let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        u64::try_from(at.as_millisecond().saturating_sub(now.as_millisecond())).unwrap_or(0)
    };
    Some(ms.min(RETRY_AFTER_MS_MAX))
}

/// The stable word for what went wrong that an answer's body may hold (`{"error": "invalid_client"}`, `<Code>BadDigest</Code>`).
/// Nothing else of a body is ever shown: it may repeat what was sent.
pub(crate) fn reason(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let found = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(json) => ["error", "code", "errorCode", "reason"]
            .iter()
            .find_map(|name| json.get(name).and_then(serde_json::Value::as_str).map(str::to_owned)),
        Err(_) => {
            text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code.to_owned())
        }
    }?;
    let is_word = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b'-';
    // Words alone: a number or an address is somebody's.
    (found.len() <= 48 && !found.is_empty() && found.bytes().all(is_word)).then_some(found)
}

/// `answered 400 (BadDigest)`.
pub(crate) fn said(answer: &Answer) -> String {
    match reason(&answer.body) {
        Some(reason) => format!("answered {} ({reason})", answer.status),
        None => format!("answered {}", answer.status),
    }
}

/// An access token and for how long it is good.
pub struct Token {
    /// What goes behind `Bearer`.
    pub text: SecretText,
    /// For how long from when it was given, in seconds.
    pub lifetime_s: u64,
}

impl Token {
    /// Reads the answer of a token endpoint (RFC 6749 section 5.1).
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(body: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Said {
            access_token: String,
            token_type: Option<String>,
            expires_in: Option<f64>,
        }
        let Said { access_token, token_type, expires_in } =
            serde_json::from_slice(body).map_err(|_| "it is not JSON with an access_token")?;
        let text = Secret::new(access_token);
        if !is_head_text(text.expose()) {
            return Err("its access_token cannot be sent in a header");
        }
        if token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err("its token_type is not Bearer");
        }
        // A cast from a float that is out of range saturates, which is what is wanted.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let lifetime_s = expires_in.map_or(LIFETIME_S_UNSAID, |s| s as u64).min(LIFETIME_S_MAX);
        Ok(Self { text, lifetime_s })
    }
}

/// What creating a recording gives. `Debug` shows nothing of it: a presigned URL is a permission.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Created {
    /// Where the audio is to be put.
    pub presigned_url: String,
    /// What goes into the header `x-amz-meta-state` of the PUT.
    pub state: String,
    /// The other side's identifier of the recording.
    pub recording_id: String,
}

impl std::fmt::Debug for Created {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Created")
    }
}

impl Created {
    /// Reads the answer to a create.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let created: Self =
            serde_json::from_slice(body).map_err(|_| "it is not JSON with presignedUrl, state and recordingId")?;
        if !is_head_text(&created.presigned_url) {
            return Err("its presignedUrl is no URL");
        }
        if !is_head_text(&created.state) {
            return Err("its state cannot be sent in a header");
        }
        let is_plain = created.recording_id.bytes().all(|b| b.is_ascii_graphic());
        if created.recording_id.is_empty() || created.recording_id.len() > REMOTE_ID_BYTES_MAX || !is_plain {
            return Err("its recordingId is no identifier");
        }
        Ok(created)
    }
}

/// Printable ASCII without spaces, not empty, not beyond what a head may hold.
fn is_head_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= HEAD_TEXT_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        Answer { status, retry_after: retry_after.map(str::to_owned), body: Vec::new() }
    }

    #[test]
    fn every_status_means_something() {
        #[track_caller]
        fn check(status: u16, expected: Meaning) {
            assert_eq!(meaning(&answer(status, None), Timestamp::UNIX_EPOCH), expected, "{status}");
        }
        check(200, Meaning::Good);
        check(201, Meaning::Good);
        check(204, Meaning::Good);
        check(100, Meaning::Refused);
        check(301, Meaning::Elsewhere);
        check(307, Meaning::Elsewhere);
        check(400, Meaning::Refused);
        check(401, Meaning::Unauthorised);
        check(403, Meaning::Refused);
        check(404, Meaning::Elsewhere);
        check(408, Meaning::Failed);
        check(409, Meaning::Refused);
        check(413, Meaning::Refused);
        check(425, Meaning::Failed);
        check(429, Meaning::Busy { wait_ms: None });
        check(500, Meaning::Failed);
        check(502, Meaning::Busy { wait_ms: None });
        check(503, Meaning::Busy { wait_ms: None });
        check(504, Meaning::Busy { wait_ms: None });
        check(599, Meaning::Failed);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        #[track_caller]
        fn check(text: &str, expected: Option<u64>) {
            let now = "2026-11-23T10:00:00Z".parse().unwrap();
            assert_eq!(meaning(&answer(429, Some(text)), now), Meaning::Busy { wait_ms: expected }, "{text}");
        }
        check("0", Some(0));
        check("120", Some(120_000));
        check(" 7 ", Some(7_000));
        check("Mon, 23 Nov 2026 10:00:30 GMT", Some(30_000));
        // a date that has passed: now
        check("Mon, 23 Nov 2026 09:00:00 GMT", Some(0));
        // beyond all measure
        check("99999999999999999999999", Some(RETRY_AFTER_MS_MAX));
        check("Fri, 23 Nov 2096 09:00:00 GMT", Some(RETRY_AFTER_MS_MAX));
        check("", None);
        check("soon", None);
        check("-5", None);
        check("1.5", None);
    }

    #[test]
    fn a_token_is_read_or_refused_without_being_repeated() {
        #[track_caller]
        fn check(body: &str, expected: Option<u64>) {
            let read = Token::parse(body.as_bytes());
            if let Err(text) = &read {
                assert!(!text.contains("s3cret"), "{text}");
            }
            assert_eq!(read.ok().map(|token| token.lifetime_s), expected, "{body}");
        }
        check(r#"{"access_token":"s3cret","token_type":"Bearer","expires_in":3600}"#, Some(3600));
        check(r#"{"access_token":"s3cret","token_type":"bearer","expires_in":60.5}"#, Some(60));
        check(r#"{"access_token":"s3cret"}"#, Some(300));
        check(r#"{"access_token":"s3cret","expires_in":-1}"#, Some(0));
        check(r#"{"access_token":"s3cret","expires_in":1e300}"#, Some(86_400));
        check(r#"{"access_token":"s3cret","token_type":"mac"}"#, None);
        check(r#"{"access_token":"s3cret\r\nX: y"}"#, None);
        check(r#"{"access_token":""}"#, None);
        check("[]", None);
        check("", None);
    }

    #[test]
    fn what_creating_gives_is_read_or_refused() {
        #[track_caller]
        fn check(body: &str, expected: bool) {
            assert_eq!(Created::parse(body.as_bytes()).is_ok(), expected, "{body}");
        }
        check(r#"{"presignedUrl":"https://a.example/x?y=z","state":"s","recordingId":"1"}"#, true);
        check(r#"{"presignedUrl":"https://a.example/x","state":"s","recordingId":"1","more":[]}"#, true);
        check(r#"{"presignedUrl":"https://a.example/x","state":"s\r\nHost: b","recordingId":"1"}"#, false);
        check(r#"{"presignedUrl":"https://a.example/x","state":"s","recordingId":""}"#, false);
        check(r#"{"presignedUrl":"","state":"s","recordingId":"1"}"#, false);
        check(r#"{"presigned_url":"https://a.example/x","state":"s","recordingId":"1"}"#, false);
        check("<html>", false);
    }

    #[test]
    fn of_a_body_only_a_word_is_shown() {
        #[track_caller]
        fn check(body: &str, expected: Option<&str>) {
            assert_eq!(reason(body.as_bytes()).as_deref(), expected, "{body}");
        }
        check(r#"{"error":"invalid_client"}"#, Some("invalid_client"));
        check(r#"{"code":"UserNotLicensed","message":"ann@example.com"}"#, Some("UserNotLicensed"));
        check("<Error><Code>BadDigest</Code><Message>x</Message></Error>", Some("BadDigest"));
        check(r#"{"error":"ann@example.com"}"#, None);
        check(r#"{"error":"+390505550171"}"#, None);
        check(r#"{"error":"Ann Example"}"#, None);
        check(r#"{"error":7}"#, None);
        check("", None);
    }
}

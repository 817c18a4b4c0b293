//! The recordings API of Imagicle Call Recording, as its documentation gives it, so that what was written for it goes on working here. It is
//! answered by translating: nothing is kept here, and who may do what is decided by the daemon as ever.
//!
//! | call (below `/fw/Apps/Recorder/WebAPI/`) | becomes |
//! |---|---|
//! | `GET Recordings` | `GET /v1/recordings`, as many pages as it takes, counted and cut into pages by number |
//! | `GET Recordings/ID` | `GET /v1/recordings/ID` |
//! | `GET Recordings/ID/Download` (or `File`, `Audio`, `Media`) | `GET /v1/recordings/ID/audio`, MP3 |
//! | `GET LiveRecordings` | `GET /v1/calls` |
//! | `POST LiveRecordings`, `POST LiveRecordings/Mine` | `POST /v1/calls/ID/start` for the call on that line |
//! | `DELETE LiveRecordings`, `…/ID`, `…/Mine` | `POST /v1/calls/ID/stop` |
//! | `POST Recordings` | `POST /v1/imports` and what follows it, for administrators |
//!
//! Credentials come by HTTP Basic: a user's e-mail and password, or any name and an API token as the password.

mod answers;
pub mod credentials;
mod filter;
pub(crate) mod serve;
mod sound;
mod upload;

pub(crate) use filter::pairs;
pub use filter::{Wanted, understand_list};

use axum::http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;
use uuid::Uuid;

/// Where the API is; compared without case, as the server that it comes from does.
pub const PREFIX: &str = "/fw/Apps/Recorder/WebAPI/";

/// Recordings that one list looks at, at most: beyond it the filters have to be narrowed, so that nobody has the catalogue read from end to end.
pub const ROWS_MAX: usize = 20_000;

/// Why a call is refused, in that API's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of the answer.
    pub status: u16,
    /// What is wrong, where the documentation has numbers for it.
    pub reason: Option<u8>,
    /// What is wrong, in words. Holds nothing of the request.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(status: u16, reason: impl Into<Option<u8>>, message: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), message: message.into() }
    }
}

/// A line, by what is said of it; everything said must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The phone.
    pub device: Option<String>,
    /// Its number.
    pub number: Option<String>,
    /// The user, by e-mail or by what is before the `@`.
    pub user: Option<String>,
    /// The user, by number.
    pub numeric_user: Option<String>,
}

/// Which live recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// That one.
    Id(Uuid),
    /// The one on that line.
    On(Line),
    /// The one of whoever asks.
    Mine,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// A list of recordings.
    List(Wanted),
    /// All about one.
    One(Uuid),
    /// Its audio.
    Download(Uuid),
    /// What is being recorded.
    Active(Line),
    /// Record that call.
    Start(Live),
    /// Record it no more.
    Stop(Live),
    /// Take in a recording that was made elsewhere, which is the body.
    Upload,
}

/// Whether a path belongs to this API: what follows [`PREFIX`].
pub fn below(path: &str) -> Option<&str> {
    let head = path.get(..PREFIX.len())?;
    head.eq_ignore_ascii_case(PREFIX).then(|| &path[PREFIX.len()..])
}

/// Whether a request brings a recording: its body is large, and is not read before it is known who sends it.
pub(crate) fn is_upload(method: &Method, headers: &HeaderMap, path: &str) -> bool {
    let is_form = |value: &HeaderValue| {
        value.to_str().is_ok_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data"))
    };
    let is_there = path.trim_end_matches('/').eq_ignore_ascii_case("recordings");
    is_there && method == Method::POST && headers.get(header::CONTENT_TYPE).is_some_and(is_form)
}

/// Understands a call; `path` is what follows [`PREFIX`].
///
/// # Errors
/// [`Problem`]: 400 with the documented reason, 404, 405, 501.
pub fn understand(method: &str, path: &str, query: &str, body: &[u8]) -> Result<Asked, Problem> {
    let parts: Vec<String> = path.trim_end_matches('/').split('/').map(|part| part.to_ascii_lowercase()).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let wrong = || Problem::new(405, None, "this is not asked in that way");
    match parts.as_slice() {
        ["recordings"] => match method {
            "GET" => understand_list(query).map(Asked::List),
            "POST" => Ok(Asked::Upload),
            _ => Err(wrong()),
        },
        ["recordings", id] if method == "GET" => Ok(Asked::One(uuid(id)?)),
        ["recordings", id, "download" | "file" | "audio" | "media"] if method == "GET" => {
            Ok(Asked::Download(uuid(id)?))
        }
        ["liverecordings"] => match method {
            "GET" => line(query).map(Asked::Active),
            "POST" => start(body).map(|line| Asked::Start(Live::On(line))),
            "DELETE" => some(line(query)?).map(|line| Asked::Stop(Live::On(line))),
            _ => Err(wrong()),
        },
        ["liverecordings", "mine"] => match method {
            "POST" => Ok(Asked::Start(Live::Mine)),
            "DELETE" => Ok(Asked::Stop(Live::Mine)),
            _ => Err(wrong()),
        },
        ["liverecordings", id] if method == "DELETE" => Ok(Asked::Stop(Live::Id(uuid(id)?))),
        ["recordings" | "liverecordings", ..] if parts.len() <= 3 && method != "GET" => Err(wrong()),
        _ => Err(Problem::new(404, None, "there is nothing here")),
    }
}

fn uuid(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::new(400, 0, "the id is no GUID"))
}

/// Which line a query speaks of.
fn line(query: &str) -> Result<Line, Problem> {
    let mut line = Line::default();
    for (name, value) in filter::pairs(query)? {
        let place = match name.to_ascii_lowercase().as_str() {
            "devicename" => &mut line.device,
            "directorynumber" => &mut line.number,
            "username" => &mut line.user,
            "numericuserid" => &mut line.numeric_user,
            _ => continue,
        };
        *place = Some(value).filter(|value| !value.is_empty());
    }
    Ok(line)
}

fn some(line: Line) -> Result<Line, Problem> {
    if line.device.is_none() && line.number.is_none() {
        return Err(Problem::new(400, 0, "deviceName or directoryNumber says which line"));
    }
    Ok(line)
}

/// The body of a start: which line, and a mode, which is for phones that are asked to fork and says nothing here.
fn start(body: &[u8]) -> Result<Line, Problem> {
    let asked: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |name: &str| asked.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    if asked.get("mode").is_some_and(|mode| !mode.is_null() && !matches!(mode.as_u64(), Some(0 | 1))) {
        return Err(Problem::new(400, 2, "the recording mode is 0 or 1"));
    }
    some(Line { device: text("deviceName"), number: text("directoryNumber"), ..Line::default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "75A90276-E47E-4e9e-B463-E3C743D5FF3A";

    #[test]
    fn the_documented_calls_are_understood() {
        let check = |method: &str, target: &str, body: &str, expected: &str| {
            let target = target.replace("ID", ID);
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let found = match understand(method, below(path).unwrap(), query, body.as_bytes()) {
                Ok(Asked::List(_)) => "list".to_owned(),
                Ok(Asked::One(_)) => "one".to_owned(),
                Ok(Asked::Download(_)) => "download".to_owned(),
                Ok(Asked::Active(_)) => "active".to_owned(),
                Ok(Asked::Start(_)) => "start".to_owned(),
                Ok(Asked::Stop(_)) => "stop".to_owned(),
                Ok(Asked::Upload) => "upload".to_owned(),
                Err(Problem { status, reason: Some(reason), .. }) => format!("{status} {reason}"),
                Err(Problem { status, .. }) => status.to_string(),
            };
            assert_eq!(found, expected, "{method} {target} {body}");
        };
        check("GET", "/fw/Apps/Recorder/WebAPI/Recordings", "", "list");
        check(
            "GET",
            "/fw/Apps/Recorder/WebAPI/Recordings/?page=0&pageSize=25&startTime=after:2023-01-01T00:00:00Z",
            "",
            "list",
        );
        check("GET", "/fw/apps/recorder/webapi/recordings", "", "list");
        check("GET", "/fw/Apps/Recorder/WebAPI/Recordings/ID", "", "one");
        check("GET", "/fw/Apps/Recorder/WebAPI/Recordings/7", "", "400 0");
        check("GET", "/fw/Apps/Recorder/WebAPI/Recordings/ID/Download", "", "download");
        check("GET", "/fw/Apps/Recorder/WebAPI/Recordings/ID/else", "", "404");
        check("POST", "/fw/Apps/Recorder/WebAPI/Recordings", "", "upload");
        check("DELETE", "/fw/Apps/Recorder/WebAPI/Recordings/ID", "", "405");
        check("GET", "/fw/Apps/Recorder/WebAPI/LiveRecordings", "", "active");
        check("GET", "/fw/Apps/Recorder/WebAPI/LiveRecordings?directoryNumber=123456&username=user1", "", "active");
        check("POST", "/fw/Apps/Recorder/WebAPI/LiveRecordings", r#"{"directoryNumber": "101", "mode": 0}"#, "start");
        check("POST", "/fw/Apps/Recorder/WebAPI/LiveRecordings", r#"{"deviceName": "SEP123456789ABC"}"#, "start");
        check("POST", "/fw/Apps/Recorder/WebAPI/LiveRecordings", "{}", "400 0");
        check("POST", "/fw/Apps/Recorder/WebAPI/LiveRecordings", "no JSON", "400 0");
        check("POST", "/fw/Apps/Recorder/WebAPI/LiveRecordings", r#"{"directoryNumber": "101", "mode": 7}"#, "400 2");
        check("POST", "/fw/Apps/Recorder/WebAPI/LiveRecordings/Mine", "", "start");
        check("DELETE", "/fw/Apps/Recorder/WebAPI/LiveRecordings/ID", "", "stop");
        check("DELETE", "/fw/Apps/Recorder/WebAPI/LiveRecordings/7", "", "400 0");
        check("DELETE", "/fw/Apps/Recorder/WebAPI/LiveRecordings?directoryNumber=101", "", "stop");
        check("DELETE", "/fw/Apps/Recorder/WebAPI/LiveRecordings", "", "400 0");
        check("DELETE", "/fw/Apps/Recorder/WebAPI/LiveRecordings/Mine", "", "stop");
        check("PUT", "/fw/Apps/Recorder/WebAPI/LiveRecordings", "", "405");
        check("GET", "/fw/Apps/Recorder/WebAPI/Users", "", "404");
        assert_eq!(below("/fw/Apps/Recorder"), None);
        assert_eq!(below("/fw/äpps/Recorder/WebAPI/Recordings"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(method in "GET|POST|DELETE", path in "(Recordings|LiveRecordings)?[/a-zA-Z0-9é-]{0,50}", query in "[a-zA-Z]{0,9}=?[%:&a-f0-9é+-]{0,40}", body in ".{0,60}") {
            let _ = understand(&method, &path, &query, body.as_bytes());
            let _ = below(&path);
        }
    }
}

//! A recording that was made elsewhere comes as `multipart/form-data` (RFC 7578): what is known of it (`jsondata`), and its audio (`attachment`).
//! The audio is decoded as it comes and goes on to the daemon in pieces; nothing of it is kept here.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, Method, Response, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout, timeout_at},
};
use uuid::Uuid;

use super::{
    Problem,
    serve::Visitor,
    sound::{Form, decode},
};
use crate::app::{App, BODY_MAX, json_answer};
use crate::daemon::Question;

/// Bytes of an audio file, as the documentation has it.
const AUDIO_BYTES_MAX: u64 = 256 << 20;

/// Bytes of what is known of it.
const METADATA_BYTES_MAX: u64 = 64 << 10;

/// Bytes of audio that may come before what is known of it: they wait in memory.
const EARLY_BYTES_MAX: usize = 32 << 20;

/// Time for all of it.
const ALL_MAX: Duration = Duration::from_secs(1_800);

/// Bytes of samples in a piece.
const PIECE_BYTES: usize = 512 << 10;

/// Pieces that wait between those who read, decode and pass on.
const WAITING: usize = 4;

/// Content types of an attachment that are taken.
const AUDIO_TYPES: [&str; 8] = [
    "audio/wave",
    "audio/wav",
    "audio/vnd.wav",
    "audio/vnd.wave",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/mpeg",
    "audio/mp3",
];

const UNPARSEABLE: u8 = 0;
const METADATA: u8 = 1;
const AUDIO: u8 = 2;

/// What is known of it, as that API has it. What else there is says nothing here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    start_date_time: Option<String>,
    duration: Option<String>,
    direction: Option<Value>,
    local_party: Option<Party>,
    remote_party: Option<Party>,
    notes: Option<String>,
    preserved: Option<bool>,
    pbx_call_id: Option<String>,
    pbx_info: Option<PbxInfo>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Party {
    username: Option<String>,
    phone_number: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PbxInfo {
    call_id: Option<String>,
}

impl Party {
    fn name(&self) -> Option<String> {
        let parts = [self.first_name.as_deref(), self.last_name.as_deref()];
        let name = parts.into_iter().flatten().map(str::trim).collect::<Vec<_>>().join(" ");
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    }
}

fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

/// What the daemon is told of it, but for what its audio tells.
///
/// # Errors
/// [`Problem`] with the documented reason.
fn understood(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let wrong = |text: &str| Problem::new(400, METADATA, text);
    let metadata: Metadata = serde_json::from_slice(body).map_err(|error| {
        // what is said of a value could hold the value
        let place = format!("line {}, column {}", error.line(), error.column());
        wrong(&format!("jsondata is not the JSON that is documented: look at {place}"))
    })?;
    let started_at = metadata.start_date_time.and_then(|text| text.trim().parse::<Timestamp>().ok());
    let started_at = started_at
        .ok_or_else(|| wrong("startDateTime is a time in ISO 8601, as 2018-09-25T13:00:00Z, with its zone"))?;
    let duration = metadata.duration.filter(|text| text.trim_start().starts_with('P'));
    let duration = duration.and_then(|text| text.trim().parse::<SignedDuration>().ok());
    let duration_ms = duration.and_then(|duration| u64::try_from(duration.as_millis()).ok());
    let duration_ms = duration_ms.ok_or_else(|| wrong("duration is a time in ISO 8601, as PT1M30S"))?;
    let direction = match metadata.direction.as_ref().and_then(|value| match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_u64(),
    }) {
        Some(0) => "unknown",
        Some(1) => "incoming",
        Some(2) => "outgoing",
        _ => return Err(wrong("direction is 0, 1 or 2")),
    };
    let local = metadata.local_party.unwrap_or_default();
    let (owner, local_number) = (some(local.username.clone()), some(local.phone_number.clone()));
    if owner.is_none() && local_number.is_none() {
        return Err(wrong("localParty has to have a username or a phoneNumber"));
    }
    let remote = metadata.remote_party.unwrap_or_default();
    let call_id = some(metadata.pbx_info.and_then(|pbx| pbx.call_id)).or_else(|| some(metadata.pbx_call_id));
    let all = [
        ("started_at", json!(started_at)),
        ("duration_ms", json!(duration_ms)),
        ("direction", json!(direction)),
        ("local_number", json!(local_number)),
        ("local_name", json!(local.name())),
        ("owner", json!(owner)),
        ("remote_name", json!(remote.name())),
        ("remote_number", json!(some(remote.phone_number))),
        ("call_id", json!(call_id)),
        ("note", json!(some(metadata.notes))),
        ("preserved", json!(metadata.preserved.unwrap_or(false))),
    ];
    Ok(all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The form's parts, each piece of them in time.
struct Parts {
    multipart: Multipart<'static>,
    until: Instant,
}

fn late() -> Problem {
    Problem::new(408, None, "the request did not come to its end in time")
}

fn broken(error: &multer::Error) -> Problem {
    match error {
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => {
            let text = format!("the audio may have {AUDIO_BYTES_MAX} bytes, what is known of it {METADATA_BYTES_MAX}");
            Problem::new(413, None, text)
        }
        _ => Problem::new(400, UNPARSEABLE, "the form is none, or broke off"),
    }
}

impl Parts {
    fn of(headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let text = "a recording is sent as multipart/form-data, with the parts jsondata and attachment";
        let boundary = multer::parse_boundary(kind).map_err(|_| Problem::new(400, UNPARSEABLE, text))?;
        let sizes = SizeLimit::new()
            .whole_stream(AUDIO_BYTES_MAX + 2 * METADATA_BYTES_MAX)
            .per_field(METADATA_BYTES_MAX)
            .for_field("attachment", AUDIO_BYTES_MAX);
        let constraints = Constraints::new().size_limit(sizes);
        let multipart = Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
        Ok(Self { multipart, until: Instant::now() + ALL_MAX })
    }

    async fn next(&mut self) -> Result<Option<Field<'static>>, Problem> {
        let next = timeout(BODY_MAX, self.multipart.next_field()).await.map_err(|_| late())?;
        next.map_err(|error| broken(&error))
    }

    /// Reads what is left, so that whoever sends it hears the answer: a connection that is closed with bytes unread takes it along.
    async fn drain(mut self) {
        let until = Instant::now() + BODY_MAX;
        let _ = timeout_at(until, async { while let Ok(Some(_)) = self.next().await {} }).await;
    }
}

async fn chunk(field: &mut Field<'static>, until: Instant) -> Result<Option<Bytes>, Problem> {
    let by = until.min(Instant::now() + BODY_MAX);
    let chunk = timeout_at(by, field.chunk()).await.map_err(|_| late())?;
    chunk.map_err(|error| broken(&error))
}

/// Where audio comes from: the form, or what was kept of it.
enum Source {
    Coming(Box<Field<'static>>),
    Kept(std::vec::IntoIter<Bytes>),
}

impl Source {
    async fn next(&mut self, until: Instant) -> Result<Option<Bytes>, Problem> {
        match self {
            Self::Coming(field) => chunk(field, until).await,
            Self::Kept(kept) => Ok(kept.next()),
        }
    }
}

impl App {
    /// Takes a recording in, for those who may.
    pub(super) async fn upload(
        &self,
        visitor: &Visitor<'_>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, Problem> {
        let busy = || Problem::new(503, None, "others send recordings just now; try again");
        let _place = self.imports.try_acquire().map_err(|_| busy())?;
        let mut parts = Parts::of(headers, body)?;
        let mut bringing = Bringing { app: self, visitor, id: None, form: None, samples: 0, pcm: Vec::new() };
        match bringing.all(&mut parts).await {
            Ok(id) => Ok(json_answer(StatusCode::CREATED, &json!({"id": id}))),
            Err(problem) => {
                drop(bringing);
                parts.drain().await;
                Err(problem)
            }
        }
    }
}

/// A recording on its way to the daemon.
struct Bringing<'a> {
    app: &'a App,
    visitor: &'a Visitor<'a>,
    id: Option<Uuid>,
    form: Option<Form>,
    /// Samples of each channel that the daemon has.
    samples: u64,
    /// What goes next.
    pcm: Vec<u8>,
}

impl Bringing<'_> {
    async fn all(&mut self, parts: &mut Parts) -> Result<Uuid, Problem> {
        let twice = |name: &str| Problem::new(400, UNPARSEABLE, format!("{name} is there twice"));
        let (mut known, mut early, mut is_heard) = (None, None, false);
        while let Some(mut field) = parts.next().await? {
            match field.name() {
                Some("jsondata") if known.is_some() => return Err(twice("jsondata")),
                Some("jsondata") => {
                    let mut text = Vec::new();
                    while let Some(chunk) = chunk(&mut field, parts.until).await? {
                        text.extend_from_slice(&chunk);
                    }
                    known = Some(understood(&text)?);
                }
                Some("attachment") if is_heard || early.is_some() => return Err(twice("attachment")),
                Some("attachment") => {
                    let kind = field.content_type().map(|kind| kind.essence_str().to_ascii_lowercase());
                    if !kind.is_some_and(|kind| AUDIO_TYPES.contains(&kind.as_str())) {
                        let text = "the attachment's Content-Type is to be audio/wave or audio/mpeg";
                        return Err(Problem::new(400, AUDIO, text));
                    }
                    match &known {
                        Some(known) => {
                            self.hear(Source::Coming(Box::new(field)), known, parts.until).await?;
                            is_heard = true;
                        }
                        None => early = Some(kept(field, parts.until).await?),
                    }
                }
                _ => {}
            }
        }
        let missing = |name: &str| Problem::new(400, UNPARSEABLE, format!("the part {name} is missing"));
        let known = known.ok_or_else(|| missing("jsondata"))?;
        match early {
            Some(kept) => self.hear(Source::Kept(kept.into_iter()), &known, parts.until).await?,
            None if is_heard => {}
            None => return Err(missing("attachment")),
        }
        self.send().await?;
        let id = self.id.ok_or_else(|| Problem::new(400, AUDIO, "there is no audio in the file"))?;
        self.ask(Method::POST, &format!("/v1/imports/{id}/finish"), &json!({"samples": self.samples})).await?;
        self.id = None;
        Ok(id)
    }

    /// Decodes what comes and passes it on, each as fast as the other.
    async fn hear(&mut self, mut source: Source, known: &Map<String, Value>, until: Instant) -> Result<(), Problem> {
        let (pieces, come) = mpsc::channel(WAITING);
        let (heard, mut hear) = mpsc::channel::<(Form, Vec<i16>)>(WAITING);
        let decoding = spawn_blocking(move || {
            decode(come, &mut |form, samples| heard.blocking_send((form, samples.to_vec())).is_ok())
        });
        let reading = async move {
            while let Some(piece) = source.next(until).await? {
                // Whoever decodes has given up; it says why.
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
            Ok::<(), Problem>(())
        };
        let passing_on = async {
            while let Some((form, samples)) = hear.recv().await {
                if self.id.is_none() {
                    self.begin(form, known).await?;
                }
                self.pcm.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
                if self.pcm.len() >= PIECE_BYTES {
                    self.send().await?;
                }
            }
            Ok(())
        };
        tokio::try_join!(reading, passing_on)?;
        let decoded = decoding.await.map_err(|_| Problem::new(500, None, "the audio could not be decoded"))?;
        decoded.map_err(|unheard| Problem::new(400, AUDIO, unheard.to_string()))
    }

    async fn begin(&mut self, form: Form, known: &Map<String, Value>) -> Result<(), Problem> {
        let mut wanted = known.clone();
        wanted.insert("rate_hz".to_owned(), json!(form.rate_hz));
        wanted.insert("channels".to_owned(), json!(form.channels));
        let begun = self.ask(Method::POST, "/v1/imports", &Value::Object(wanted)).await;
        let begun = begun.map_err(|problem| match problem.status {
            400 => Problem { reason: Some(METADATA), ..problem },
            _ => problem,
        })?;
        let id = begun.get("id").and_then(Value::as_str).and_then(|id| Uuid::try_parse(id).ok());
        self.id = Some(id.ok_or_else(|| Problem::new(500, None, "the recorder's answer is not understood"))?);
        self.form = Some(form);
        Ok(())
    }

    /// Sends the samples that have gathered.
    async fn send(&mut self) -> Result<(), Problem> {
        let (Some(id), Some(form)) = (self.id, self.form) else { return Ok(()) };
        for piece in std::mem::take(&mut self.pcm).chunks(PIECE_BYTES) {
            let body = json!({"at_samples": self.samples, "pcm": STANDARD.encode(piece)});
            self.ask(Method::POST, &format!("/v1/imports/{id}/audio"), &body).await?;
            self.samples += (piece.len() / 2 / usize::from(form.channels)) as u64;
        }
        Ok(())
    }

    async fn ask(&self, method: Method, target: &str, body: &Value) -> Result<Value, Problem> {
        self.app.told_with(self.visitor, method, target, Bytes::from(body.to_string())).await
    }
}

impl Drop for Bringing<'_> {
    /// Whoever sends it may be gone, and with the connection everything that waits for it: the daemon is told all the same.
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let (daemon, session, from) = (self.app.daemon.clone(), self.visitor.session.to_owned(), self.visitor.from);
        tokio::spawn(async move {
            let target = format!("/v1/imports/{id}");
            let question =
                Question { method: Method::DELETE, target: &target, session: Some(&session), from, body: Bytes::new() };
            // What it does not hear of, it gives up by itself after a while.
            let _ = daemon.ask_json(question).await;
        });
    }
}

/// The audio that comes before what is known of it.
async fn kept(mut field: Field<'static>, until: Instant) -> Result<Vec<Bytes>, Problem> {
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while let Some(chunk) = chunk(&mut field, until).await? {
        bytes += chunk.len();
        if bytes > EARLY_BYTES_MAX {
            let text = format!("an attachment of more than {EARLY_BYTES_MAX} bytes has to come after jsondata");
            return Err(Problem::new(400, UNPARSEABLE, text));
        }
        kept.push(chunk);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_documented_is_understood() {
        let body = json!({
            "startDateTime": "2018-09-25T13:00:00.0000000Z", "duration": "PT1M30S", "direction": 1,
            "localParty": {"username": "mario_rossi", "phoneNumber": "346"},
            "remoteParty": {"phoneNumber": "+390584123456", "firstName": "Anna", "lastName": "Bianchi"},
            "notes": "Some notes", "preserved": true, "pbxInfo": {"callId": "100", "globalCallId": "7"}, "more": [],
        });
        let known = Value::Object(understood(body.to_string().as_bytes()).unwrap());
        let expected = json!({
            "started_at": "2018-09-25T13:00:00Z", "duration_ms": 90_000, "direction": "incoming", "local_number": "346",
            "local_name": null, "owner": "mario_rossi", "remote_name": "Anna Bianchi", "remote_number": "+390584123456",
            "call_id": "100", "note": "Some notes", "preserved": true,
        });
        assert_eq!(known, expected);
        let least = r#"{"startDateTime": "2018-09-25T15:00:00+02:00", "duration": "PT0.5S", "direction": "2", "localParty": {"phoneNumber": "346"}, "pbxCallId": "9", "notes": null}"#;
        let known = understood(least.as_bytes()).unwrap();
        assert_eq!((&known["started_at"], &known["duration_ms"]), (&json!("2018-09-25T13:00:00Z"), &json!(500)));
        assert_eq!((&known["call_id"], &known["note"]), (&json!("9"), &Value::Null));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_reason() {
        let check = |name: &str, value: Value, expected: &str| {
            let mut body = json!({
                "startDateTime": "2018-09-25T13:00:00Z", "duration": "PT1M30S", "direction": 1,
                "localParty": {"username": "mario_rossi", "phoneNumber": "346"},
            });
            body[name] = value;
            let problem = understood(body.to_string().as_bytes()).unwrap_err();
            assert_eq!((problem.status, problem.reason), (400, Some(METADATA)));
            assert!(problem.message.contains(expected), "{}", problem.message);
        };
        check("startDateTime", json!(null), "startDateTime");
        check("startDateTime", json!("yesterday"), "startDateTime");
        check("startDateTime", json!("2018-09-25T13:00:00"), "with its zone");
        check("duration", json!("90"), "PT1M30S");
        check("duration", json!("-PT1S"), "PT1M30S");
        check("duration", json!(null), "PT1M30S");
        check("direction", json!(3), "0, 1 or 2");
        check("direction", json!(null), "0, 1 or 2");
        check("localParty", json!(null), "localParty");
        check("localParty", json!({"username": " "}), "localParty");
        check("preserved", json!("perhaps"), "line 1");
        assert!(understood(b"").is_err() && understood(b"[]").is_err());
    }
}

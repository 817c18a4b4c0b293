//! Recordings that were made elsewhere, as they are brought.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::route::{Call, json_in, uuid_of};
use crate::{ApiError, ErrorKind};

/// Most bytes of a body that brings audio: a piece of a megabyte and a half in base64.
pub(crate) const PIECE_BODY_BYTES_MAX: usize = 2 << 20;

/// A step of bringing a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Import {
    /// `POST /v1/imports`: it is going to come.
    Begin(Box<NewImport>),
    /// `POST /v1/imports/ID/audio`: the next of its audio.
    Audio(Uuid, Piece),
    /// `POST /v1/imports/ID/finish`: that was all.
    Finish(Uuid, Whole),
    /// `DELETE /v1/imports/ID`: it is not to be taken in after all.
    GiveUp(Uuid),
}

/// What is known of a recording that is going to come. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewImport {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it is said to be, in milliseconds: where its audio is shorter, that is noted.
    pub duration_ms: Option<u64>,
    /// Samples a second: one of 8,000, 12,000, 16,000, 24,000, 48,000.
    pub rate_hz: u32,
    /// 1: all parties in one; 2: the recorded user first, then the others.
    pub channels: u8,
    /// `incoming`, `outgoing` or `unknown`.
    pub direction: Option<String>,
    /// The recorded user's number.
    pub local_number: Option<String>,
    /// Their name.
    pub local_name: Option<String>,
    /// The other's number.
    pub remote_number: Option<String>,
    /// Their name.
    pub remote_name: Option<String>,
    /// Whose it is: a user's e-mail, or what is before its `@`. Without it the number tells.
    pub owner: Option<String>,
    /// Identifier of the call where it was recorded.
    pub call_id: Option<String>,
    /// A note on it.
    pub note: Option<String>,
    /// Whether it is to be kept beyond its time.
    #[serde(default, rename = "preserved")]
    pub is_preserved: bool,
}

impl fmt::Debug for NewImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started_at, rate_hz, channels, .. } = self;
        let mut f = f.debug_struct("NewImport");
        f.field("started_at", started_at).field("rate_hz", rate_hz).field("channels", channels).finish_non_exhaustive()
    }
}

/// Some of its audio. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Piece {
    /// How many samples of each channel came before it: what comes twice is so recognised.
    pub at_samples: u64,
    /// 16-bit samples, little-endian, the channels' in turns.
    pub pcm: Vec<u8>,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("at_samples", &self.at_samples).field("bytes", &self.pcm.len()).finish()
    }
}

/// That all of it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// How many samples of each channel there are.
    pub samples: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PieceBody {
    at_samples: u64,
    pcm: String,
}

fn piece(body: &[u8]) -> Result<Piece, ApiError> {
    let PieceBody { at_samples, pcm } = json_in(body)?;
    let pcm = STANDARD.decode(pcm);
    let pcm = pcm.map_err(|_| ApiError::new(ErrorKind::BadRequest, "\"pcm\" is to be samples in base64"))?;
    Ok(Piece { at_samples, pcm })
}

/// What is asked at `rest`, which is what follows `imports`.
pub(crate) fn imports(method: &str, rest: &[&str], body: &[u8]) -> Option<Result<Call, ApiError>> {
    let step = match (rest, method) {
        ([], "POST") => json_in(body).map(|wanted| Import::Begin(Box::new(wanted))),
        ([id, "audio"], "POST") => uuid_of(id).and_then(|id| Ok(Import::Audio(id, piece(body)?))),
        ([id, "finish"], "POST") => uuid_of(id).and_then(|id| Ok(Import::Finish(id, json_in(body)?))),
        ([id], "DELETE") => uuid_of(id).map(Import::GiveUp),
        ([] | [_, "audio" | "finish"], _) => Err(ApiError::method("POST")),
        ([_], _) => Err(ApiError::method("DELETE")),
        _ => return None,
    };
    Some(step.map(Call::Import))
}

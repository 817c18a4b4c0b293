//! Call detail records of Webex Calling, as its detailed call history gives them: one for each leg of a call.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Records of one answer at most: the service gives 5,000 at most.
pub const RECORDS_MAX: usize = 10_000;

/// Characters of a value at most; the longest that the service is known to give are addresses.
const VALUE_CHARS_MAX: usize = 512;

/// A call is no longer than a week; what says more is read as saying nothing.
const DURATION_S_MAX: i64 = 7 * 24 * 3600;

/// What Webex says became of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordingResult {
    /// It was handed over as it should be.
    Successful,
    /// It was not.
    Failed,
    /// Nobody asked to keep it.
    NotKept,
}

/// What is read of a record. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// `Report ID`: the record's own name.
    pub id: Option<String>,
    /// `Local call ID`, for example `113104021:0`.
    pub local_call_id: Option<String>,
    /// `Correlation ID`: the same for all legs of a call.
    pub correlation_id: Option<String>,
    /// `User`: who the leg belongs to, as Webex shows it.
    pub user: Option<String>,
    /// `Location`.
    pub location: Option<String>,
    /// The number of the leg's own side: calling for an originating leg, called for a terminating one.
    pub own_number: Option<String>,
    /// The other side's number.
    pub other_number: Option<String>,
    /// `Answer time`, or `Start time` where there is none.
    pub begun_at: Timestamp,
    /// `Duration`, in milliseconds: from the answer to the release.
    pub duration_ms: i64,
    /// `Answered`.
    pub is_answered: bool,
    /// `Call Recording Platform Name`.
    pub platform: Option<String>,
    /// `Call Recording Result`, where it is one of those that are known.
    pub result: Option<RecordingResult>,
    /// Whether `Call Recording Trigger` says that somebody has to ask for the recording.
    pub is_on_demand: bool,
    /// Whether the record says anything of a recording.
    pub tells_of_recording: bool,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("begun_at", &self.begun_at).field("result", &self.result).finish_non_exhaustive()
    }
}

impl Record {
    /// When the leg ended.
    pub fn ended_at(&self) -> Timestamp {
        later(self.begun_at, self.duration_ms)
    }

    /// A record of the service's JSON; none where it does not say when the call was.
    pub fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| text_of(value.get(name)?);
        let time = |name: &str| text(name)?.parse::<Timestamp>().ok();
        let begun_at = time("Answer time").or_else(|| time("Start time"))?;
        let told_ms =
            text("Duration").and_then(|text| text.parse::<i64>().ok()).filter(|s| (0..=DURATION_S_MAX).contains(s));
        // Without a duration the release says how long it was.
        let between_ms = || {
            let ms = time("Release time")?.as_millisecond().checked_sub(begun_at.as_millisecond())?;
            (0..=DURATION_S_MAX * 1000).contains(&ms).then_some(ms)
        };
        let duration_ms = told_ms.map(|s| s * 1000).or_else(between_ms).unwrap_or(0);
        let (calling, called) = (text("Calling number"), text("Called number"));
        let terminates = text("Direction").is_some_and(|text| text.eq_ignore_ascii_case("TERMINATING"));
        let (own_number, other_number) = if terminates { (called, calling) } else { (calling, called) };
        let trigger = text("Call Recording Trigger");
        let result = text("Call Recording Result");
        let platform = text("Call Recording Platform Name").filter(|name| !name.eq_ignore_ascii_case("unknown"));
        Some(Self {
            id: text("Report ID"),
            local_call_id: text("Local call ID"),
            correlation_id: text("Correlation ID"),
            user: text("User"),
            location: text("Location"),
            own_number,
            other_number,
            begun_at,
            duration_ms,
            is_answered: match text("Answered") {
                Some(text) => text.eq_ignore_ascii_case("true"),
                None => duration_ms > 0,
            },
            tells_of_recording: trigger.is_some() || result.is_some() || platform.is_some(),
            is_on_demand: trigger.is_some_and(|text| text.to_ascii_lowercase().starts_with("on-demand")),
            platform,
            result: result.and_then(|text| match text.to_ascii_lowercase().as_str() {
                "successful" => Some(RecordingResult::Successful),
                "failed" => Some(RecordingResult::Failed),
                "successful but not kept" => Some(RecordingResult::NotKept),
                _ => None,
            }),
        })
    }
}

/// A moment `ms` later; the last there is where that is beyond all.
pub(crate) fn later(at: Timestamp, ms: i64) -> Timestamp {
    at.checked_add(jiff::SignedDuration::from_millis(ms)).unwrap_or(Timestamp::MAX)
}

/// A value as text; none where it is empty, `NA` or no simple value. Numbers and truths come as such or as text.
fn text_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(is_so) => is_so.to_string(),
        _ => return None,
    };
    let is_told = !text.is_empty() && text != "NA" && text.chars().count() <= VALUE_CHARS_MAX;
    is_told.then_some(text)
}

/// Why a page of records cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is not what the service gives.
    #[error("read the call detail records: an object with a list named items was expected, as Webex gives it")]
    Form,
    /// It has more than [`RECORDS_MAX`].
    #[error("read the call detail records: there are more than 10,000 in one answer; ask for shorter times")]
    TooMany,
}

/// Reads an answer of the service, or a file with such answers' records in one list: the records, and how many were passed over
/// because they do not say when the call was.
///
/// # Errors
/// When it has another form.
pub fn read_page(bytes: &[u8]) -> Result<(Vec<Record>, usize), RecordError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| RecordError::Form)?;
    let items = value.get("items").and_then(Value::as_array).ok_or(RecordError::Form)?;
    if items.len() > RECORDS_MAX {
        return Err(RecordError::TooMany);
    }
    let records: Vec<Record> = items.iter().filter_map(Record::read).collect();
    let passed_over = items.len() - records.len();
    Ok((records, passed_over))
}

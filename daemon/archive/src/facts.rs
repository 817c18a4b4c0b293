//! What an archive says about its recording, so that it can be understood with nothing else at hand.

use callvault_seal::Private;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Version of [`ArchiveFacts`] that this crate writes. Fields are added without a new version (a reader ignores what it does not
/// know and takes defaults for what is not there); a new version means that an old reader would misunderstand the audio.
pub const FACTS_VERSION: u32 = 1;

/// Bytes of the facts' JSON at most. A recording with a full-size metadata body in every one of sixty requests stays below; the limit
/// bounds what a reader must hold in memory.
pub const FACTS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The facts of an archived recording. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveFacts {
    /// [`FACTS_VERSION`] of the writer.
    pub version: u32,
    /// The recording; the same as in the header.
    pub recording_id: Uuid,
    /// Wall clock at position 0, nanoseconds since the Unix epoch.
    pub started_at_ns: i64,
    /// Length of the recording in milliseconds, for people.
    pub duration_ms: u64,
    /// Length of the recording in ticks: where its last packet ends.
    pub total_ticks: u64,
    /// The recording as the catalogue has it, opaque here: enough to rebuild the catalogue's row.
    pub recording: Private<Value>,
    /// The tracks; packets name them by their place in this list. At most 256.
    pub tracks: Vec<ArchiveTrack>,
    /// The session events in their order, raw signalling bodies included, opaque here.
    pub events: Private<Vec<Value>>,
}

impl Default for ArchiveFacts {
    fn default() -> Self {
        Self {
            version: FACTS_VERSION,
            recording_id: Uuid::nil(),
            started_at_ns: 0,
            duration_ms: 0,
            total_ticks: 0,
            recording: Private::default(),
            tracks: Vec::new(),
            events: Private::default(),
        }
    }
}

/// One track of an archived recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveTrack {
    /// Label of the media stream (`a=label`, RFC 4574), or its number where it had none.
    pub label: String,
    /// Who speaks on it, as far as known.
    pub participant: Option<Private<String>>,
    /// Whether it is the recorded user's own voice.
    pub local: bool,
    /// The codecs of its packets; packets name them by their place in this list. At most 256.
    pub codecs: Vec<ArchiveCodec>,
    /// Stretches without audio that should have been there (loss), as start and end in ticks, in order.
    pub holes: Vec<(u64, u64)>,
    /// Stretches without audio on purpose (pause, hold), as start and end in ticks, in order.
    pub pauses: Vec<(u64, u64)>,
}

/// One codec of a track.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveCodec {
    /// Encoding name as registered for RTP (RFC 3551, RFC 7587), for example "opus", "PCMU".
    pub encoding: String,
    /// Clock rate in Hz; for Opus that callvault encoded, the rate of the audio it was made from.
    pub clock_rate: u32,
    /// Channels.
    pub channels: u8,
    /// `fmtp` parameters as signalled.
    pub fmtp: Option<String>,
    /// Samples at 48 kHz that a decoder drops at the beginning of each run of Opus that callvault encoded; 0 otherwise.
    pub pre_skip: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_another_version_are_understood_as_far_as_they_go() {
        let newer =
            r#"{"version":2,"total_ticks":5,"tracks":[{"label":"1","stereo":true,"codecs":[{}]}],"colour":"red"}"#;
        let facts: ArchiveFacts = serde_json::from_str(newer).unwrap();
        assert_eq!((facts.version, facts.total_ticks), (2, 5));
        assert_eq!(facts.tracks[0].codecs, [ArchiveCodec::default()]);
    }

    #[test]
    fn debug_shows_nothing_personal() {
        let facts = ArchiveFacts {
            recording: Value::from("+15550100").into(),
            events: vec![Value::from("+15550100")].into(),
            tracks: vec![ArchiveTrack { participant: Some("+15550100".to_owned().into()), ..ArchiveTrack::default() }],
            ..ArchiveFacts::default()
        };
        assert!(serde_json::to_string(&facts).unwrap().contains("15550100"));
        assert!(!format!("{facts:?}").contains("15550100"));
    }
}

//! What is told of a recording, and the documents that tell it.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

/// Which way a call went, seen from the recorded user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say what they are")]
pub enum Direction {
    Incoming,
    Outgoing,
    Unknown,
}

/// Whether the other party belongs to the organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they say what they are")]
pub enum Traffic {
    Internal,
    External,
    Unknown,
}

/// One side of a call. It holds personal data, and has no `Debug` for that reason.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Party {
    /// Display name.
    pub name: Option<String>,
    /// Number.
    pub number: Option<String>,
}

/// A recording as it is told to others. It holds personal data, and has no `Debug` for that reason.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// Its id.
    pub id: Uuid,
    /// The owner's e-mail address.
    pub owner: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How long it is.
    pub duration_ms: u64,
    /// Seen from the recorded user.
    pub direction: Direction,
    /// Whether the other party belongs to the organisation.
    pub traffic: Traffic,
    /// The recorded user.
    pub local: Party,
    /// The other party.
    pub remote: Party,
    /// The client's identifier of the call.
    pub call_id: Option<String>,
    /// How well it was recorded, the catalogue's word.
    pub verdict: String,
    /// Audio streams.
    pub tracks: usize,
}

impl Call {
    /// The name of the file: when it began and the id. It holds no personal data.
    pub fn file_name(&self) -> String {
        format!("{}_{}.mp3", self.started_at.strftime("%Y%m%dT%H%M%SZ"), self.id)
    }

    /// What Voice Analytics is told when the recording is created. `speakers` 0: the number of tracks, where it is from 2 to 10;
    /// `language` empty: it is left to the service.
    pub fn analytics_json(&self, md5_base64: &str, language: &str, speakers: u32) -> Value {
        let mut call = json!({
            "direction": match self.direction {
                Direction::Incoming => "IN",
                Direction::Outgoing => "OUT",
                Direction::Unknown => "UNKNOWN",
            },
            "localParty": party_json(&self.local),
            "remoteParty": party_json(&self.remote),
            // Whole seconds, at least one: nearest, so that the sum over many calls is right.
            "duration": (self.duration_ms.saturating_add(500) / 1000).max(1),
            "callType": match self.traffic {
                Traffic::Internal => "INTERNAL",
                Traffic::External => "EXTERNAL",
                Traffic::Unknown => "UNKNOWN",
            },
            "recordingDate": format!("{:.3}", self.started_at),
        });
        let speakers = if speakers == 0 { u32::try_from(self.tracks).unwrap_or(0) } else { speakers };
        if (2..=10).contains(&speakers) {
            call["speakers"] = json!(speakers);
        }
        if !language.is_empty() {
            call["language"] = json!(language);
        }
        json!({
            "user": {"email": self.owner.as_deref().unwrap_or_default()},
            "fileName": self.file_name(),
            "contentMd5": md5_base64,
            "callData": call,
        })
    }

    /// What goes with the audio to a web server or into a folder. It changes only by addition.
    pub fn metadata_json(&self, bytes: u64, sha256_hex: &str) -> Value {
        json!({
            "version": 1,
            "recording_id": self.id,
            "owner": self.owner,
            "started_at": format!("{:.3}", self.started_at),
            "ended_at": format!("{:.3}", self.ended_at),
            "duration_ms": self.duration_ms,
            "direction": match self.direction {
                Direction::Incoming => "incoming",
                Direction::Outgoing => "outgoing",
                Direction::Unknown => "unknown",
            },
            "traffic": match self.traffic {
                Traffic::Internal => "internal",
                Traffic::External => "external",
                Traffic::Unknown => "unknown",
            },
            "local": {"number": self.local.number, "name": self.local.name},
            "remote": {"number": self.remote.number, "name": self.remote.name},
            "call_id": self.call_id,
            "verdict": self.verdict,
            "audio": {
                "file_name": self.file_name(), "content_type": "audio/mpeg", "bytes": bytes, "sha256": sha256_hex,
            },
        })
    }
}

/// The documented shape has three texts; what is not known is an empty one.
fn party_json(party: &Party) -> Value {
    let name = party.name.as_deref().unwrap_or_default().trim();
    // "Ann Maria Example": what a client shows is one text, and its last word is taken for the family's name.
    let (first, last) = name.rsplit_once(char::is_whitespace).unwrap_or((name, ""));
    json!({
        "firstName": first.trim(),
        "lastName": last,
        "number": party.number.as_deref().unwrap_or_default(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn call() -> Call {
        Call {
            id: "019ab000-0000-7000-8000-000000000001".parse().unwrap(),
            owner: Some("ann@example.com".into()),
            started_at: "2026-11-23T10:00:00.250Z".parse().unwrap(),
            ended_at: "2026-11-23T10:01:01.250Z".parse().unwrap(),
            duration_ms: 61_000,
            direction: Direction::Incoming,
            traffic: Traffic::External,
            local: Party { name: Some("Ann Maria Example".into()), number: Some("+390505550171".into()) },
            remote: Party { name: None, number: Some("+441632960001".into()) },
            call_id: Some("abc".into()),
            verdict: "ok".into(),
            tracks: 2,
        }
    }

    #[test]
    fn analytics_is_told_in_the_documented_shape() {
        assert_eq!(
            call().analytics_json("1B2M2Y8AsgTpgAmY7PhCfg==", "en-US", 0),
            json!({
                "user": {"email": "ann@example.com"},
                "fileName": "20261123T100000Z_019ab000-0000-7000-8000-000000000001.mp3",
                "contentMd5": "1B2M2Y8AsgTpgAmY7PhCfg==",
                "callData": {
                    "direction": "IN",
                    "localParty": {"firstName": "Ann Maria", "lastName": "Example", "number": "+390505550171"},
                    "remoteParty": {"firstName": "", "lastName": "", "number": "+441632960001"},
                    "duration": 61,
                    "callType": "EXTERNAL",
                    "recordingDate": "2026-11-23T10:00:00.250Z",
                    "speakers": 2,
                    "language": "en-US",
                },
            })
        );
    }

    #[test]
    fn names_are_split_as_well_as_can_be() {
        #[track_caller]
        fn check(name: Option<&str>, first: &str, last: &str) {
            let party = Party { name: name.map(str::to_owned), number: None };
            assert_eq!(party_json(&party), json!({"firstName": first, "lastName": last, "number": ""}), "{name:?}");
        }
        check(Some("Ann Example"), "Ann", "Example");
        check(Some("  Ann   Example "), "Ann", "Example");
        check(Some("Ann"), "Ann", "");
        check(Some(""), "", "");
        check(None, "", "");
    }

    #[test]
    fn durations_and_speakers_stay_within_what_is_documented() {
        #[track_caller]
        fn check(duration_ms: u64, tracks: usize, speakers: u32, expected: (u64, Option<u64>)) {
            let call = Call { duration_ms, tracks, ..call() };
            let json = call.analytics_json("", "", speakers);
            let data = &json["callData"];
            assert_eq!((data["duration"].as_u64().unwrap(), data.get("speakers").and_then(Value::as_u64)), expected);
            assert!(data.get("language").is_none());
        }
        check(1_000, 1, 0, (1, None));
        check(400, 2, 0, (1, Some(2)));
        check(1_499, 10, 0, (1, Some(10)));
        check(1_500, 11, 0, (2, None));
        check(u64::MAX, 2, 4, (u64::MAX / 1000, Some(4)));
    }
}

//! A recording as people and other programs see it. The JSON of [`Recording`] is the API's and changes only by addition.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::Annotations;

/// Makes an enum of words: JSON, SQL and `as_str` agree by construction.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for it, in JSON and in the database.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = ();
            fn from_str(word: &str) -> Result<Self, ()> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word).ok_or(())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// How well a session was recorded.
    Verdict {
        /// As it should be.
        Ok = "ok",
        /// Something is missing or doubtful; the flaws say what.
        Degraded = "degraded",
        /// There is no usable audio although there was some.
        Failed = "failed",
        /// No packet came.
        NoMedia = "no-media",
        /// Not kept, on purpose.
        Discarded = "discarded",
    }
}

words! {
    /// Which way the call went, seen from the recorded user.
    Direction {
        /// The user was called.
        Incoming = "incoming",
        /// The user called.
        Outgoing = "outgoing",
        /// Nothing says.
        Unknown = "unknown",
    }
}

words! {
    /// Whether the remote party belongs to the organisation.
    Traffic {
        /// It does.
        Internal = "internal",
        /// It does not.
        External = "external",
        /// Nothing says.
        Unknown = "unknown",
    }
}

words! {
    /// Where a recording's audio is.
    ArchiveState {
        /// In the journal, no archive begun.
        Journal = "journal",
        /// In the journal, an archive is being made.
        Archiving = "archiving",
        /// In the archive, verified.
        Archived = "archived",
        /// In the journal, the last attempt at an archive failed.
        Failed = "failed",
    }
}

/// A recording. `Debug` shows no personal data.
#[derive(Clone, PartialEq, Serialize)]
pub struct Recording {
    /// Its id, a UUIDv7.
    pub id: Uuid,
    /// How well it was recorded.
    pub verdict: Verdict,
    /// Wall clock; kept and shown to the millisecond.
    #[serde(serialize_with = "rfc3339_ms")]
    pub started_at: Timestamp,
    /// Wall clock; kept and shown to the millisecond.
    #[serde(serialize_with = "rfc3339_ms")]
    pub ended_at: Timestamp,
    /// By the journal's clock, which does not jump.
    pub duration_ms: u64,
    /// The user whom it belongs to, if one is known.
    pub owner: Option<String>,
    /// That user's id.
    pub owner_id: Option<Uuid>,
    /// The owner's name as it was then: it stays when the user goes.
    pub owner_name: Option<String>,
    /// By what the owner was found: `user-id`, `number`, `email` or `catch-all`.
    pub matched_by: Option<String>,
    /// Seen from the recorded user.
    pub direction: Direction,
    /// The recorded user's number.
    pub local_number: Option<String>,
    /// The recorded user's display name.
    pub local_name: Option<String>,
    /// The other party's number.
    pub remote_number: Option<String>,
    /// The other party's display name.
    pub remote_name: Option<String>,
    /// Whether the other party belongs to the organisation.
    pub traffic: Traffic,
    /// The client's identifier of the call.
    pub call_id: Option<String>,
    /// Its audio streams.
    pub tracks: Vec<Track>,
    /// What was not as it should be.
    pub flaws: Vec<Flaw>,
    /// Where its audio is.
    pub archive: Archive,
    /// The other recordings of the same call, oldest first: the other half of a call between two users who are both recorded, and
    /// what was recorded of the same session before or after a stop. Worked out when it is read.
    pub linked: Vec<Uuid>,
    /// What people added: `preserved`, `notes`, `tags`.
    #[serde(flatten)]
    pub annotations: Annotations,
    /// The same for both halves of an internal call, where the client says so.
    #[serde(skip)]
    pub tracking_id: Option<String>,
    /// The session's facts as they were journalled; only [`crate::Catalogue::get`] reads them.
    #[serde(skip)]
    pub facts: serde_json::Value,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("id", &self.id)
            .field("verdict", &self.verdict)
            .field("started_at", &self.started_at)
            .field("duration_ms", &self.duration_ms)
            .field("archive", &self.archive)
            .finish_non_exhaustive()
    }
}

/// One audio stream of a recording. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Track {
    /// The client's label of the stream.
    pub label: String,
    /// Who speaks on it, as far as is known: a name or a number.
    pub participant: Option<String>,
    /// Encoding name, for example "PCMU"; several are joined with a comma.
    pub codec: String,
    /// Packets kept.
    pub packets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Copies not kept.
    pub duplicates: u64,
    /// Packets kept that came after their successor.
    pub late: u64,
    /// Milliseconds missing because of loss.
    pub gaps_ms: u64,
    /// The largest interarrival jitter (RFC 3550 section 6.4.1), in milliseconds.
    pub jitter_ms_max: u64,
    /// Milliseconds from the session's beginning to the first packet; none where nothing tells.
    pub started_after_ms: Option<u64>,
    /// By how much the sender's clock runs fast, in millionths; negative when it is slow, none where it is not known.
    pub clock_skew_ppm: Option<i32>,
    /// Telephone events: keys that were pressed.
    pub tones: u64,
    /// Milliseconds during which it was paused or on hold: nothing of them is stored.
    pub paused_ms: u64,
    /// Milliseconds of its audio without any signal; none until it was listened to, which is when the archive is made.
    pub silent_ms: Option<u64>,
    /// Milliseconds of its audio at full scale, too loud for the line; none until it was listened to.
    pub clipped_ms: Option<u64>,
    /// Level of its speech in dB of full scale; none until it was listened to, and where nobody speaks.
    pub level_dbfs: Option<i16>,
    /// Whether it is the recorded user's own voice.
    #[serde(skip_serializing)]
    pub local: bool,
}

impl fmt::Debug for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Track")
            .field("label", &self.label)
            .field("codec", &self.codec)
            .field("packets", &self.packets)
            .finish_non_exhaustive()
    }
}

/// Something that was not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flaw {
    /// Stable short name, for example "metadata-missing".
    pub code: String,
    /// One sentence for people, without personal data.
    pub text: String,
}

/// Where a recording's audio is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Archive {
    /// The state.
    pub state: ArchiveState,
    /// Size of the archive file.
    pub bytes: Option<u64>,
    /// Name of the store that has it.
    pub store: Option<String>,
    /// Path inside the store.
    #[serde(skip)]
    pub path: Option<String>,
    /// SHA-256 of the file.
    #[serde(skip)]
    pub sha256: Option<[u8; 32]>,
    /// Why the last attempt failed.
    #[serde(skip)]
    pub error: Option<String>,
}

impl Archive {
    /// What a recording begins with: its audio is in the journal.
    pub fn journal() -> Self {
        Self { state: ArchiveState::Journal, bytes: None, store: None, path: None, sha256: None, error: None }
    }

    /// Where the archive file is, once there is one.
    pub fn place(&self) -> Option<ArchivePlace> {
        Some(ArchivePlace {
            bytes: self.bytes?,
            store: self.store.clone()?,
            path: self.path.clone()?,
            sha256: self.sha256?,
        })
    }
}

/// An archive file. Neither store nor path may hold personal data: they are readable in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivePlace {
    /// Size of the file.
    pub bytes: u64,
    /// Name of the store.
    pub store: String,
    /// Path inside the store.
    pub path: String,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
}

fn rfc3339_ms<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

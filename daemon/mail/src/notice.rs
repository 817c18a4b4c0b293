//! What a mail tells.

use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

/// Who is told. Personal data: there is no `Debug` of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// First and last name, or what there is.
    pub name: String,
    /// Given name; may be empty.
    pub first_name: String,
    /// Family name; may be empty.
    pub last_name: String,
    /// Where mail goes.
    pub address: String,
    /// BCP 47, for example `it` or `de-AT`; may be empty.
    pub language: String,
}

/// Seen from the user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// The user was called.
    Incoming,
    /// The user called.
    Outgoing,
    /// The client did not say.
    #[default]
    Unknown,
}

impl Direction {
    /// Its name in templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
            Self::Unknown => "unknown",
        }
    }
}

/// The call. Personal data: there is no `Debug` of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// When the recording began.
    pub started_at: Timestamp,
    /// How long it is, in milliseconds.
    pub duration_ms: u64,
    /// Which way.
    pub direction: Direction,
    /// The user's number; may be empty.
    pub local_number: String,
    /// The other party's number; may be empty.
    pub remote_number: String,
    /// The other party's name; may be empty.
    pub remote_name: String,
}

/// What became of the audio.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Attachment {
    /// The user does not want it.
    #[default]
    NotWanted,
    /// An MP3 file.
    Mp3(Vec<u8>),
    /// It is larger than this many bytes, which is the limit.
    TooLarge {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// The mail server does not take mails as large as this one would have been.
    RefusedByServer,
    /// It cannot be made.
    Unavailable,
}

impl Attachment {
    /// Its name in templates.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotWanted => "none",
            Self::Mp3(_) => "attached",
            Self::TooLarge { .. } => "too-large",
            Self::RefusedByServer => "refused-by-server",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that a mail is made of.
#[derive(Clone, PartialEq)]
pub struct Notice {
    /// Of which recording.
    pub recording: Uuid,
    /// Who is told.
    pub to: Person,
    /// Of which call.
    pub call: Call,
    /// Whether the audio is with it.
    pub attachment: Attachment,
    /// Whether this mail is a try and the call is made up.
    pub test: bool,
}

impl Notice {
    /// A notice of a call that never was, for tries.
    pub fn sample(recording: Uuid, to: Person, now: Timestamp) -> Self {
        let call = Call {
            started_at: now,
            duration_ms: 83_000,
            direction: Direction::Incoming,
            local_number: "+12025550143".into(),
            remote_number: "+12025550178".into(),
            remote_name: "Robin Example".into(),
        };
        Self { recording, to, call, attachment: Attachment::NotWanted, test: true }
    }
}

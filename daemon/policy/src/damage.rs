//! What reading a journal showed beside the facts themselves.

use callvault_journal::facts::TrackCounts;

/// A moment on both clocks: a journal's header has one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Anchor {
    /// Wall clock, nanoseconds since the Unix epoch.
    pub wall_ns: i64,
    /// Journal time of the same moment.
    pub at_ns: u64,
}

/// The payload type that most of a track's packets have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeardCodec {
    /// Track number.
    pub track: u8,
    /// RTP payload type.
    pub payload_type: u8,
}

/// What is missing of a track because a recorder died and another went on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestartLoss {
    /// Track number.
    pub track: u8,
    /// Packets, all restarts together. They are lost in the track's counters too.
    pub packets: u64,
    /// Their audio in milliseconds.
    pub ms: u64,
}

/// What aligning a track showed of its sender's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrackClock {
    /// Track number.
    pub track: u8,
    /// By how much it runs fast, in millionths; negative when it is slow, none where the track was too short to know.
    pub skew_ppm: Option<i32>,
    /// Its sender reports were not believed.
    pub reports_ignored: bool,
}

/// What the journal's reader found about one recording, beside its facts. The default is: nothing amiss, nothing measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// The journal ends in a torn frame. Harmless to a recording whose end is written.
    pub torn_tail: bool,
    /// Frames of the recording that could not be read.
    pub lost_frames: u64,
    /// The recorder that wrote the journal did not close it.
    pub recorder_died: bool,
    /// How often another recorder went on with the session.
    pub restarts: u32,
    /// What is missing because of that; tracks of which nothing is are not listed.
    pub lost_at_restarts: Vec<RestartLoss>,
    /// Parts of the recording of which nothing can be read, because their recorder died before their key was written.
    pub parts_unreadable: u32,
    /// Journal time of the first packet or fact that could be read.
    pub first_ns: Option<u64>,
    /// Journal time of the last packet or fact that could be read: where a recording without an end is taken to end.
    pub last_ns: Option<u64>,
    /// The journal's own anchor, for a recording whose beginning cannot be read.
    pub anchor: Option<Anchor>,
    /// What the packets in the journal add up to, for each track. It stands in for the counters that the end of a session
    /// brings, and shows what of them is missing. Empty: not counted.
    pub counted: Vec<TrackCounts>,
    /// The codecs that were really heard. A track that is not listed is shown with the first codec that was agreed.
    pub heard: Vec<HeardCodec>,
    /// The clocks of the tracks. One that is not listed is not known.
    pub clocks: Vec<TrackClock>,
}

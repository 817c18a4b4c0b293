//! What the recorder knows about a session, as it is written into sealed `Facts` frames.
//!
//! Facts are JSON because they are few, they live for years in nobody's memory, and a reader of another version must get
//! on with them: unknown fields are ignored, missing ones have defaults, and an event of an unknown kind becomes
//! [`SessionEvent::Unknown`]. Times named `_ns` are journal time; wall-clock times say so.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One thing that happened in a session, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum SessionEvent {
    /// The session began: always the first event of a lane.
    Started(Started),
    /// The recording was made elsewhere and taken in here; this is what came with it beside the call's facts.
    Imported(Box<ImportFacts>),
    /// Parties and call identifiers as last understood; a later one replaces an earlier one field by field where it says more.
    Call(Box<CallFacts>),
    /// The signalling bodies as they came, so that nothing a parser missed is lost.
    Raw(RawBody),
    /// A track was opened, or its description changed (same `track`).
    Track(TrackFacts),
    /// A track follows a new source (SSRC) from here on.
    Source(SourceFacts),
    /// A source said which moment of its own wall clock one of its timestamps is. Not every report is written, see
    /// [`SenderReportFacts`].
    SenderReport(SenderReportFacts),
    /// A key was pressed, or another telephone event, as the track's packets tell (RFC 4733); written when it is over.
    Tone(ToneFacts),
    /// A track, or with `track: None` each of them, is paused or held: what comes meanwhile is a hole on purpose. Pauses by different
    /// sides know nothing of each other; a track is paused while any of them lasts.
    Paused(Pause),
    /// The pause by that side ended.
    Resumed(Pause),
    /// Something was not as it should be; the recording goes on.
    Flaw(Flaw),
    /// The session ended: always the last event of a session that ended in order.
    Ended(Ended),
    /// An event written by a newer version: skipped.
    #[serde(other)]
    Unknown,
}

/// The beginning of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Started {
    /// Wall clock, nanoseconds since the Unix epoch, when the INVITE was answered.
    pub wall_ns: i64,
    /// Journal time of the same moment.
    pub at_ns: u64,
    /// SIP Call-ID of the recording session's dialog.
    pub sip_call_id: String,
    /// Address that the INVITE came from, `ip:port`.
    pub peer: String,
    /// "udp", "tcp" or "tls".
    pub transport: String,
    /// `User-Agent` of the client, when it gave one.
    pub user_agent: Option<String>,
    /// The first recording of the same session, where this one was started after that had been stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follows: Option<Uuid>,
    /// Where a later recorder goes on with the session; all else here repeats what was true of its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
}

/// A session goes on in another generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resumed {
    /// Journal time at which it was taken over.
    pub at_ns: u64,
    /// Whether sources have the same numbers as in the segment before. Otherwise nothing was known of the media any more: sources are
    /// numbered from 0 again and are others.
    pub sources_continue: bool,
}

/// What came with a recording that was made elsewhere. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImportFacts {
    /// Wall clock, nanoseconds since the Unix epoch, when it was taken in.
    pub wall_ns: i64,
    /// The user of this organisation who brought it; none for the operator and for tokens that are nobody's.
    pub by_user: Option<Uuid>,
    /// That user's name, or the token's.
    pub by_name: String,
    /// Their permission level, by its name.
    pub by_level: String,
    /// E-mail of the user whose it is. It goes before the number, which may have been another's then.
    pub owner: Option<String>,
    /// A note that came with it.
    pub note: Option<String>,
    /// The id of that note, a UUIDv7.
    pub note_id: Option<Uuid>,
    /// Whether it is to be kept beyond its time.
    pub preserved: bool,
}

impl std::fmt::Debug for ImportFacts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wall_ns, by_level, preserved, .. } = self;
        let mut out = out.debug_struct("ImportFacts");
        out.field("wall_ns", wall_ns).field("by_level", by_level).field("preserved", preserved).finish_non_exhaustive()
    }
}

/// Which way the call went, seen from the recorded user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The recorded user was called.
    Incoming,
    /// The recorded user called.
    Outgoing,
    /// Nothing in the signalling says.
    #[default]
    Unknown,
}

/// Who talks to whom, as far as the signalling says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallFacts {
    /// Shape of the metadata that was recognised, for example "broadworks", "rfc7865"; empty when there was none.
    pub shape: String,
    /// Seen from the recorded user.
    pub direction: Direction,
    /// The recorded user.
    pub local: Party,
    /// The others; the first is the main remote party.
    pub remotes: Vec<Party>,
    /// Vendor's or metadata's identifier of the call (BroadWorks `callID`).
    pub call_id: Option<String>,
    /// BroadWorks `extTrackingID`: the same for both halves of an internal call.
    pub tracking_id: Option<String>,
    /// BroadWorks `serviceProviderID` (the Webex organisation).
    pub service_provider_id: Option<String>,
    /// BroadWorks `groupID` (the Webex location).
    pub group_id: Option<String>,
    /// BroadWorks `recordingType`, as it came.
    pub recording_type: Option<String>,
    /// Number the call was first meant for, when it was redirected.
    pub redirected_from: Option<String>,
}

/// One party of a call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Party {
    /// Number as signalled (E.164, extension), without scheme and domain.
    pub number: Option<String>,
    /// Display name.
    pub name: Option<String>,
    /// Address of record as it came.
    pub aor: Option<String>,
    /// The peer's own id of the user (BroadWorks `userID`).
    pub user_id: Option<String>,
    /// Labels of the media streams (`a=label`) that this party sends.
    pub labels: Vec<String>,
}

/// A body of a SIP message, unchanged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RawBody {
    /// SIP method of the message that carried it.
    pub method: String,
    /// Its `Content-Type`.
    pub content_type: String,
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// One track: one media line of the session description.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrackFacts {
    /// Number of the track in this recording, from 0.
    pub track: u8,
    /// `a=label`, or the number of the media line where there is none.
    pub label: String,
    /// Whether this is the recorded user's own voice.
    pub local: bool,
    /// Whether all parties are mixed into this one track.
    pub mixed: bool,
    /// Payload types and what they mean on this track.
    pub codecs: Vec<CodecFacts>,
}

/// What a payload type means (RFC 4566 `rtpmap`, `fmtp`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CodecFacts {
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// Encoding name as registered, for example "PCMU", "opus", "telephone-event".
    pub encoding: String,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Channels, 1 unless signalled.
    pub channels: u8,
    /// `fmtp` parameters as they came.
    pub fmtp: Option<String>,
}

/// A source that a track began to follow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceFacts {
    /// Track number.
    pub track: u8,
    /// Number of the source in the track, from 0; packets carry it.
    pub source: u8,
    /// Its SSRC (RFC 3550).
    pub ssrc: u32,
    /// Journal time of its first packet.
    pub at_ns: u64,
}

/// What a source said about its clocks (RFC 3550 section 6.4.1). The first report of a source is written, then one about every
/// thirty seconds, and one that says something else than those before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SenderReportFacts {
    /// Track number.
    pub track: u8,
    /// Number of the source in the track, as in [`SourceFacts`].
    pub source: u8,
    /// The source's wall clock in NTP format: seconds since 1900 in the upper half, fractions of a second in the lower.
    pub ntp: u64,
    /// The same moment in the source's RTP timestamps.
    pub rtp_timestamp: u32,
    /// Journal time of the report's arrival.
    pub at_ns: u64,
    /// Which clock `ntp` is of: sources with the same number, not 0, have said that they share one. It is derived from the canonical
    /// name and the address, so that the name itself need not be kept; 0 where no name was given.
    pub clock: u64,
}

/// A telephone event (RFC 4733 section 2.3), once, however many packets told of it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToneFacts {
    /// Track number.
    pub track: u8,
    /// Journal time of its beginning, as its first packet has it.
    pub at_ns: u64,
    /// The event's number: 0 to 9 are the digits, 10 is *, 11 is #, 12 to 15 are A to D (RFC 4733 section 3.2).
    pub event: u8,
    /// How long it lasted, milliseconds.
    pub duration_ms: u64,
}

impl std::fmt::Debug for ToneFacts {
    /// Leaves out which key it was: it may be a part of somebody's card number.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { track, at_ns, duration_ms, .. } = self;
        let mut out = out.debug_struct("ToneFacts");
        out.field("track", track).field("at_ns", at_ns).field("duration_ms", duration_ms).finish_non_exhaustive()
    }
}

/// Beginning or end of a pause.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    /// The track, or none for all of them.
    pub track: Option<u8>,
    /// Journal time.
    pub at_ns: u64,
    /// Who asked: "client" (signalling) or "control".
    pub by: String,
}

/// Something noted about a session that does not stop it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flaw {
    /// Stable short name, for example "metadata-missing".
    pub code: String,
    /// One sentence for people, without personal data.
    pub text: String,
}

/// The end of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// Wall clock, nanoseconds since the Unix epoch.
    pub wall_ns: i64,
    /// Journal time of the same moment.
    pub at_ns: u64,
    /// "bye", "cancel", "stopped" (by control), "media-timeout", "drain", "lost" and the like.
    pub reason: String,
    /// Counters of each track.
    pub tracks: Vec<TrackCounts>,
}

/// What a track's reception counted (definitions in `callvault-media`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrackCounts {
    /// Track number.
    pub track: u8,
    /// Packets kept.
    pub packets: u64,
    /// Packets that never came, by sequence number.
    pub lost: u64,
    /// Copies of packets that had come already, not kept.
    pub duplicates: u64,
    /// Packets kept that came after one with a higher sequence number.
    pub late: u64,
    /// Packets of another source while the followed one was talking, not kept.
    pub foreign: u64,
    /// Datagrams that were not RTP, not kept.
    pub invalid: u64,
    /// Milliseconds of audio missing inside the track because of loss.
    pub gaps_ms: u64,
    /// Payload bytes of the packets kept.
    pub bytes: u64,
    /// Packets of the followed source whose sequence number fitted nowhere, not kept.
    pub strays: u64,
    /// Packets kept whose payload type the signalling had not described.
    pub undescribed: u64,
    /// Sources followed one after the other.
    pub sources: u32,
    /// The largest interarrival jitter (RFC 3550 section 6.4.1), in microseconds.
    pub jitter_us_max: u32,
    /// Packets of a secured track that could not be opened with its keys, not kept.
    pub undecipherable: u64,
}

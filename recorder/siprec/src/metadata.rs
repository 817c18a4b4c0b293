//! Recording metadata: what the client says of sessions, participants and streams.
//!
//! Two families are understood by the same rules: the standard (RFC 7865: ids as `session_id`, `nameID`, associations as
//! elements of their own) and the drafts before it (ids as `id`, `aor`, `send` below the participant), the latter with
//! BroadWorks' own data in `extensiondata`. Clients mix them freely, so elements are taken by their local name, wherever they
//! stand and whatever namespace they claim.

mod broadworks;
mod cisco;
mod mend;
mod read;
mod vendor;
mod xml;

use std::collections::BTreeMap;

pub use broadworks::{Acd, BroadworksFacts, CallLeg, RedirectedCall};
pub use read::{PARTICIPANTS_MAX, SESSIONS_MAX, STREAMS_MAX};
pub use vendor::VendorCall;
pub use xml::{DEPTH_MAX, METADATA_BYTES_MAX, TEXT_CHARS_MAX};

use serde::{Deserialize, Serialize};

use crate::error::SiprecError;
use crate::flaw::{Flaw, note};
use crate::number::comparable;

/// The family of metadata that was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Shape {
    /// BroadWorks and Webex Calling: a draft with `broadWorksRecordingMetadata`.
    Broadworks,
    /// RFC 7865.
    Rfc7865,
    /// One of the drafts before RFC 7865, without vendor data that is known here.
    Draft,
    /// No document: participants from `X-Cisco-Recording-Participant` header fields.
    Cisco,
    /// Another root element; read by the same rules all the same.
    Unknown,
}

impl Shape {
    /// The name under which the facts carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Shape::Broadworks => "broadworks",
            Shape::Rfc7865 => "rfc7865",
            Shape::Draft => "draft",
            Shape::Cisco => "cisco",
            Shape::Unknown => "unknown",
        }
    }
}

/// Whether a document says everything or only what changed (RFC 7865, section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataMode {
    /// A snapshot; also what is meant when nothing is said.
    Complete,
    /// Changes to what was said before.
    Partial,
}

/// What a document of recording metadata says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The family that it belongs to.
    pub shape: Shape,
    /// Snapshot or change.
    pub datamode: DataMode,
    /// The communication sessions that are recorded.
    pub sessions: Vec<Session>,
    /// Who takes part, in the order of the document.
    pub participants: Vec<Participant>,
    /// The media streams.
    pub streams: Vec<Stream>,
    /// What BroadWorks adds.
    pub broadworks: Option<BroadworksFacts>,
    /// What other clients add about the call.
    pub vendor: Option<VendorCall>,
    /// Deviations that were tolerated.
    #[serde(skip)]
    pub flaws: Vec<Flaw>,
}

/// A communication session (RFC 7865, section 6.3). Times are as they came: zones and forms differ too much to compare by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The group that it belongs to.
    pub group_id: Option<String>,
    /// Identifiers of the recorded SIP dialog (`sipSessionID`, RFC 7989).
    pub sip_session_ids: Vec<String>,
    /// When it began.
    pub start_time: Option<String>,
    /// When it ended; its participants have left it then.
    pub stop_time: Option<String>,
}

/// A participant (RFC 7865, section 6.5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Its id.
    pub id: String,
    /// Addresses of record as they came: URIs, or without a scheme.
    pub aors: Vec<String>,
    /// Names as they came.
    pub names: Vec<String>,
    /// Ids of the streams that it sends.
    pub sends: Vec<String>,
    /// Ids of the streams that it receives.
    pub recvs: Vec<String>,
    /// Whether it called (`true`) or was called, where the client says so of each participant.
    pub calling: Option<bool>,
    /// Whether it is said to have left: for good, or every session that it was in.
    pub left: bool,
    /// Whether it was there when last anybody was: the end of a call must not make strangers of those who had it.
    there_last: bool,
    /// Ids of the streams that it sends, or sent when last it sent any.
    sent: Vec<String>,
    /// The sessions that it was ever in, and whether it still is.
    sessions: BTreeMap<String, bool>,
    /// Whether the document speaks of its streams: if so and there are none, it sends none any more.
    streams_stated: bool,
    /// Whether the document speaks of its belonging to a session.
    session_stated: bool,
}

/// Whether a stream carries one side or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamMode {
    /// One side alone.
    Separate,
    /// All parties together.
    Mixed,
}

/// A media stream (RFC 7865, section 6.7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its id.
    pub id: String,
    /// The session that it belongs to.
    pub session_id: Option<String>,
    /// The `a=label` of its media line.
    pub label: Option<String>,
    /// Whether it carries one side or all; drafts only.
    pub mode: Option<StreamMode>,
    /// Place of its media line in the offer, from 0, where the client names that and no label.
    pub media_line: Option<usize>,
}

/// User part and host of a participant that is the client itself, standing in for a party that it does not know yet: Avaya's
/// border element sends it until the call is answered.
const PLACEHOLDER: &str = "asbce@asbce.com";

/// What [`Metadata::merge`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The later document says nothing new: some clients repeat themselves.
    Unchanged,
    /// A snapshot took the place of what was known.
    Replaced,
    /// A partial document changed or added to what was known.
    Extended,
}

impl Metadata {
    /// Reads a document of recording metadata.
    ///
    /// # Errors
    /// Where it is no XML, declares a document type, or is over the limits. The call is recorded without it.
    pub fn parse(bytes: &[u8]) -> Result<Metadata, SiprecError> {
        read::parse(bytes)
    }

    /// Gives back the room that its lists were given to grow: they are kept as long as the call.
    fn shrink_to_fit(&mut self) {
        self.sessions.shrink_to_fit();
        self.participants.shrink_to_fit();
        self.streams.shrink_to_fit();
        self.sessions.iter_mut().for_each(|session| session.sip_session_ids.shrink_to_fit());
        for Participant { aors, names, sends, recvs, sent, .. } in &mut self.participants {
            [aors, names, sends, recvs, sent].into_iter().for_each(Vec::shrink_to_fit);
        }
    }

    /// Brings in a later document of the same dialog.
    ///
    /// A snapshot replaces everything, except that BroadWorks' data stays where the later one has none: it speaks of the call,
    /// not of its moment. A partial document changes what it names and adds what is new: a participant that it names without
    /// any stream sends none any more, one that it does not name stays. Nothing can be inferred from ids across snapshots:
    /// BroadWorks makes all of them new when a call is transferred.
    pub fn merge(&mut self, later: Metadata) -> Merge {
        let before = self.clone();
        let done = match later.datamode {
            DataMode::Complete => {
                self.replace(later);
                Merge::Replaced
            }
            DataMode::Partial => {
                self.extend(later);
                Merge::Extended
            }
        };
        if self.says_the_same(&before) { Merge::Unchanged } else { done }
    }

    /// Whether this partial document speaks of something that neither it nor what is `known` describes: the sequence of
    /// documents is broken (RFC 7866, section 9.2).
    pub fn builds_on_unknown(&self, known: Option<&Metadata>) -> bool {
        let has = |mine: &dyn Fn(&Metadata) -> bool| mine(self) || known.is_some_and(mine);
        let is_described = |one: &Participant| {
            let describes = |all: &Metadata| all.participants.iter().any(|p| p.id == one.id && !p.aors.is_empty());
            has(&describes)
        };
        let has_stream = |id: &String| has(&|all: &Metadata| all.streams.iter().any(|stream| &stream.id == id));
        let has_session =
            |id: &String| id.is_empty() || has(&|all: &Metadata| all.sessions.iter().any(|session| &session.id == id));
        let all_there = self.participants.iter().all(|participant| {
            is_described(participant)
                && participant.sends.iter().chain(&participant.recvs).all(has_stream)
                && participant.sessions.keys().all(has_session)
        });
        !all_there
    }

    fn replace(&mut self, mut later: Metadata) {
        if later.broadworks.is_none() {
            later.broadworks = self.broadworks.take();
            if later.broadworks.is_some() {
                later.shape = Shape::Broadworks;
            }
        }
        if let Some(mut known) = self.vendor.take() {
            known.update(later.vendor.take().unwrap_or_default());
            later.vendor = Some(known);
        }
        for participant in &mut later.participants {
            if let Some(old) = self.participants.iter().find(|old| old.id == participant.id) {
                participant.there_last |= old.there_last && participant.left;
                if participant.sent.is_empty() {
                    participant.sent.clone_from(&old.sent);
                }
            }
        }
        *self = later;
        self.settle();
    }

    fn extend(&mut self, later: Metadata) {
        for session in later.sessions {
            match self.sessions.iter_mut().find(|old| old.id == session.id) {
                Some(old) => old.update(session),
                None => push_below(&mut self.sessions, session, SESSIONS_MAX, &mut self.flaws),
            }
        }
        for stream in later.streams {
            match self.streams.iter_mut().find(|old| old.id == stream.id) {
                Some(old) => old.update(stream),
                None => push_below(&mut self.streams, stream, STREAMS_MAX, &mut self.flaws),
            }
        }
        for participant in later.participants {
            match self.participants.iter_mut().find(|old| old.id == participant.id) {
                Some(old) => old.update(participant),
                None => push_below(&mut self.participants, participant, PARTICIPANTS_MAX, &mut self.flaws),
            }
        }
        match (&mut self.broadworks, later.broadworks) {
            (Some(old), Some(new)) => old.update(new),
            (old @ None, Some(new)) => {
                *old = Some(new);
                self.shape = Shape::Broadworks;
            }
            (_, None) => {}
        }
        if let Some(later) = later.vendor {
            self.vendor.get_or_insert_default().update(later);
        }
        self.settle();
        for flaw in later.flaws {
            note(&mut self.flaws, flaw);
        }
    }

    /// Works out who has left: a participant leaves with the last session that it is in (RFC 7865, section 6.6), and a
    /// session that stops is left by all.
    fn settle(&mut self) {
        let stopped =
            |id: &String| self.sessions.iter().any(|session| &session.id == id && session.stop_time.is_some());
        for participant in &mut self.participants {
            if !participant.sessions.is_empty() {
                participant.left = !participant.sessions.iter().any(|(id, open)| *open && !stopped(id));
            }
            if !participant.sends.is_empty() {
                participant.sent.clone_from(&participant.sends);
            }
        }
        if self.participants.iter().any(|participant| !participant.left) {
            for participant in &mut self.participants {
                participant.there_last = !participant.left;
            }
        }
    }

    fn says_the_same(&self, other: &Metadata) -> bool {
        self.shape == other.shape
            && self.datamode == other.datamode
            && self.sessions == other.sessions
            && self.streams == other.streams
            && self.participants == other.participants
            && self.broadworks == other.broadworks
            && self.vendor == other.vendor
    }
}

impl Session {
    fn update(&mut self, later: Session) {
        take_some(&mut self.group_id, later.group_id);
        take_filled(&mut self.sip_session_ids, later.sip_session_ids);
        take_some(&mut self.start_time, later.start_time);
        take_some(&mut self.stop_time, later.stop_time);
    }
}

impl Stream {
    fn update(&mut self, later: Stream) {
        take_some(&mut self.session_id, later.session_id);
        take_some(&mut self.label, later.label);
        take_some(&mut self.mode, later.mode);
        take_some(&mut self.media_line, later.media_line);
    }
}

impl Participant {
    /// Its name, where it has one.
    pub fn name(&self) -> Option<&str> {
        self.names.first().map(String::as_str)
    }

    /// Whether it takes part: it has not left, and where the document speaks of its streams, it has some. When everybody has
    /// left, as the last document of a call says, those who left last take part.
    pub fn is_active(&self) -> bool {
        if self.left && self.there_last {
            return true;
        }
        let silent = self.streams_stated && self.sends.is_empty() && self.recvs.is_empty();
        !self.left && !silent
    }

    /// Whether it has left before the others did.
    pub(crate) fn is_gone(&self) -> bool {
        self.left && !self.there_last
    }

    /// Whether it sends this stream, or did when last it sent any.
    pub(crate) fn has_sent(&self, stream_id: &str) -> bool {
        self.sent.iter().any(|id| id == stream_id)
    }

    /// Whether it is no party, but the client itself in the place of one.
    pub fn is_placeholder(&self) -> bool {
        let is_client = |aor: &String| comparable(aor).eq_ignore_ascii_case(PLACEHOLDER);
        !self.aors.is_empty() && self.aors.iter().all(is_client)
    }

    fn update(&mut self, later: Participant) {
        take_filled(&mut self.aors, later.aors);
        take_filled(&mut self.names, later.names);
        take_some(&mut self.calling, later.calling);
        if later.streams_stated {
            self.sends = later.sends;
            self.recvs = later.recvs;
            self.streams_stated = true;
        }
        if later.session_stated {
            self.left = later.left;
            self.session_stated = true;
        }
        for (id, open) in later.sessions {
            if self.sessions.len() < SESSIONS_MAX || self.sessions.contains_key(&id) {
                self.sessions.insert(id, open);
            }
        }
    }
}

/// Takes the later value where there is one.
fn take_some<T>(old: &mut Option<T>, later: Option<T>) {
    if later.is_some() {
        *old = later;
    }
}

/// Takes the later values where there are any.
fn take_filled<T>(old: &mut Vec<T>, later: Vec<T>) {
    if !later.is_empty() {
        *old = later;
    }
}

/// The document that asks a client for a snapshot of its metadata (RFC 7865, section 7; RFC 7866, section 9.2).
pub fn snapshot_request() -> String {
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<requestsnapshot xmlns=\"urn:ietf:params:xml:ns:recording:1\">\
     <requestreason xml:lang=\"en\">the sequence of metadata is broken</requestreason></requestsnapshot>\r\n"
        .to_owned()
}

/// Adds an item, or notes that there are too many: partial documents must not let a session grow without end.
fn push_below<T>(items: &mut Vec<T>, item: T, items_max: usize, flaws: &mut Vec<Flaw>) {
    if items.len() < items_max {
        items.push(item);
    } else {
        note(flaws, too_many(items_max));
    }
}

fn too_many(items_max: usize) -> Flaw {
    Flaw::new(
        "metadata-limit",
        format!("the metadata names more than {items_max} things of a kind; the rest was left out"),
    )
}

#[cfg(test)]
mod tests;

//! From XML to [`Metadata`].

use std::collections::BTreeMap;

use roxmltree::Node;

use super::broadworks::BroadworksFacts;
use super::mend::mend;
use super::vendor::{VendorCall, is_calling};
use super::xml::{self, METADATA_BYTES_MAX, attribute, child, child_text, children, local_name, text};
use super::{DataMode, Metadata, Participant, Session, Shape, Stream, StreamMode, push_below, too_many};
use crate::encoding::decode;
use crate::error::SiprecError;
use crate::flaw::{Flaw, note};

/// Most sessions kept. One is usual; a transfer adds another.
pub const SESSIONS_MAX: usize = 64;

/// Most participants kept: a large conference.
pub const PARTICIPANTS_MAX: usize = 256;

/// Most streams kept; a recording session has as many media lines at most.
pub const STREAMS_MAX: usize = 256;

/// Most associations of a kind, and most addresses, names or streams of a participant.
const ASSOCIATIONS_MAX: usize = 1024;

/// Reads a document (see [`Metadata::parse`]).
pub(super) fn parse(bytes: &[u8]) -> Result<Metadata, SiprecError> {
    if bytes.len() > METADATA_BYTES_MAX {
        return Err(SiprecError::MetadataTooLarge { bytes: bytes.len(), bytes_max: METADATA_BYTES_MAX });
    }
    let decoded = decode(bytes);
    // Space before the XML declaration is not well-formed, but clients send it; a NUL may end the body.
    let text = decoded.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    match xml::parse(text) {
        Ok(document) => Ok(Reader::default().read(document.root_element())),
        Err(error @ SiprecError::MetadataMalformed { .. }) => read_mended(text).ok_or(error),
        Err(error) => Err(error),
    }
}

/// Reads a document that is not well-formed as it came; none where mending does not help.
fn read_mended(text: &str) -> Option<Metadata> {
    let mended = mend(text)?;
    let document = xml::parse(&mended).ok()?;
    let mut reader = Reader::default();
    reader.flaw("metadata-mended", "the metadata was not well-formed XML; it was read after mending its markup");
    Some(reader.read(document.root_element()))
}

/// A `participantsessionassoc`.
struct SessionAssociation {
    participant_id: String,
    session_id: Option<String>,
    closed: bool,
}

/// A `participantstreamassoc`.
struct StreamAssociation {
    participant_id: String,
    sends: Vec<String>,
    recvs: Vec<String>,
}

#[derive(Default)]
struct Reader {
    datamode: Option<DataMode>,
    sessions: Vec<Session>,
    participants: Vec<Participant>,
    streams: Vec<Stream>,
    session_associations: Vec<SessionAssociation>,
    stream_associations: Vec<StreamAssociation>,
    broadworks: Option<BroadworksFacts>,
    vendor: Option<VendorCall>,
    flaws: Vec<Flaw>,
}

impl Reader {
    fn read(mut self, root: Node<'_, '_>) -> Metadata {
        let recording = root
            .descendants()
            .find(|node| node.is_element() && matches!(local_name(*node).as_str(), "recording" | "recording_metadata"));
        // The drafts' root is `recording_metadata`, with a `recording` in it that holds nothing.
        let is_draft_root = local_name(root) == "recording_metadata";
        let top = if is_draft_root { root } else { recording.unwrap_or(root) };
        self.walk(top);
        // Vendor data stands anywhere, also in what is otherwise not looked into.
        self.broadworks = root
            .descendants()
            .find(|node| node.is_element() && local_name(*node) == "broadworksrecordingmetadata")
            .map(BroadworksFacts::read);
        self.vendor = VendorCall::read(root, &self.sessions);
        let shape = match recording {
            _ if self.broadworks.is_some() => Shape::Broadworks,
            None => Shape::Unknown,
            Some(_) if is_draft_root => Shape::Draft,
            Some(recording) if is_standard(recording) => Shape::Rfc7865,
            Some(_) => Shape::Draft,
        };
        if shape == Shape::Unknown {
            self.flaw("unknown-shape", "the metadata has a root element that is not known");
        }
        self.associate();
        self.check_ids();
        let mut metadata = Metadata {
            shape,
            datamode: self.datamode.unwrap_or(DataMode::Complete),
            sessions: self.sessions,
            participants: self.participants,
            streams: self.streams,
            broadworks: self.broadworks,
            vendor: self.vendor,
            flaws: self.flaws,
        };
        metadata.settle();
        metadata.shrink_to_fit();
        metadata
    }

    fn flaw(&mut self, code: &'static str, text: &'static str) {
        note(&mut self.flaws, Flaw::new(code, text));
    }

    /// Takes the elements that are known, and looks for them inside those that are mere containers. How deep that goes is
    /// bounded by [`DEPTH_MAX`](super::DEPTH_MAX).
    fn walk(&mut self, parent: Node<'_, '_>) {
        for node in parent.children().filter(Node::is_element) {
            match local_name(node).as_str() {
                "datamode" => self.read_datamode(node),
                "session" => {
                    self.read_session(node);
                    self.walk(node);
                }
                "participant" => self.read_participant(node),
                "stream" => self.read_stream(node),
                "participantsessionassoc" => self.read_session_association(node),
                "participantstreamassoc" => self.read_stream_association(node),
                "recording" | "group" => self.walk(node),
                _ => {}
            }
        }
    }

    fn read_datamode(&mut self, node: Node<'_, '_>) {
        match text(node).map(|mode| mode.to_ascii_lowercase()).as_deref() {
            Some("partial") => self.datamode = Some(DataMode::Partial),
            Some("complete") | None => self.datamode = Some(DataMode::Complete),
            Some(_) => {
                self.flaw("datamode-unknown", "the metadata is neither complete nor partial; it was taken as complete")
            }
        }
    }

    fn read_session(&mut self, node: Node<'_, '_>) {
        let Some(id) = attribute(node, &["session_id", "id"]) else {
            // Below other elements `session` is a mere reference.
            return;
        };
        let session = Session {
            id,
            group_id: child_text(node, "group-ref")
                .or_else(|| child_text(node, "group"))
                .or_else(|| attribute(node, &["group_id", "group"])),
            sip_session_ids: children(node, "sipsessionid").filter_map(text).take(ASSOCIATIONS_MAX).collect(),
            start_time: child_text(node, "start-time").or_else(|| child_text(node, "associate-time")),
            stop_time: child_text(node, "stop-time"),
        };
        match self.sessions.iter_mut().find(|old| old.id == session.id) {
            Some(old) => old.update(session),
            None => push_below(&mut self.sessions, session, SESSIONS_MAX, &mut self.flaws),
        }
    }

    fn read_participant(&mut self, node: Node<'_, '_>) {
        let name_ids: Vec<Node<'_, '_>> = children(node, "nameid").collect();
        let mut aors: Vec<String> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for name_id in &name_ids {
            aors.extend(attribute(*name_id, &["aor"]).or_else(|| child_text(*name_id, "aor")));
            names.extend(children(*name_id, "name").filter_map(text));
        }
        aors.extend(children(node, "aor").filter_map(text));
        names.extend(children(node, "name").filter_map(text));
        aors.truncate(ASSOCIATIONS_MAX);
        names.truncate(ASSOCIATIONS_MAX);
        // The drafts put the streams below the participant, so there their absence says something. The standard has elements
        // of their own for it, and says who it is with `nameID`.
        let sends = references(node, "send");
        let recvs = references(node, "recv");
        let streams_stated = name_ids.is_empty() || !sends.is_empty() || !recvs.is_empty();
        let left = child(node, "disassociate-time").is_some();
        let session_id = attribute(node, &["session_id", "session"]);
        let participant = Participant {
            id: self.id_of(node, "participant_id", self.participants.len()),
            aors,
            names,
            sends,
            recvs,
            calling: is_calling(node),
            left,
            sessions: session_id.map(|id| (id, !left)).into_iter().collect(),
            streams_stated,
            session_stated: left || streams_stated,
            ..Participant::default()
        };
        match self.participants.iter_mut().find(|old| old.id == participant.id) {
            Some(old) => old.update(participant),
            None => push_below(&mut self.participants, participant, PARTICIPANTS_MAX, &mut self.flaws),
        }
        for nested in children(node, "participantstreamassoc") {
            self.read_stream_association(nested);
        }
    }

    fn read_stream(&mut self, node: Node<'_, '_>) {
        let mode = child_text(node, "mode").or_else(|| attribute(node, &["mode"]));
        let stream = Stream {
            id: self.id_of(node, "stream_id", self.streams.len()),
            session_id: attribute(node, &["session_id", "session"]).or_else(|| child_text(node, "session")),
            label: child_text(node, "label").or_else(|| attribute(node, &["label"])),
            mode: match mode.map(|mode| mode.to_ascii_lowercase()).as_deref() {
                Some("separate") => Some(StreamMode::Separate),
                Some("mixed") => Some(StreamMode::Mixed),
                _ => None,
            },
            media_line: None,
        };
        match self.streams.iter_mut().find(|old| old.id == stream.id) {
            Some(old) => old.update(stream),
            None => push_below(&mut self.streams, stream, STREAMS_MAX, &mut self.flaws),
        }
    }

    /// The element's id; its number where it has none, so that two without one stay two.
    fn id_of(&mut self, node: Node<'_, '_>, name: &'static str, count: usize) -> String {
        attribute(node, &[name, "id"]).unwrap_or_else(|| {
            self.flaw("id-missing", "a participant or stream of the metadata has no id");
            format!("#{count}")
        })
    }

    fn read_session_association(&mut self, node: Node<'_, '_>) {
        let Some(participant_id) = attribute(node, &["participant_id", "participant"]) else {
            return;
        };
        let association = SessionAssociation {
            participant_id,
            session_id: attribute(node, &["session_id", "session"]),
            closed: child(node, "disassociate-time").is_some(),
        };
        push_below(&mut self.session_associations, association, ASSOCIATIONS_MAX, &mut self.flaws);
    }

    fn read_stream_association(&mut self, node: Node<'_, '_>) {
        let parent_id = || {
            let parent = node.parent().filter(|parent| local_name(*parent) == "participant")?;
            attribute(parent, &["participant_id", "id"])
        };
        let Some(participant_id) = attribute(node, &["participant_id", "participant", "id"]).or_else(parent_id) else {
            return;
        };
        let closed = child(node, "disassociate-time").is_some();
        let streams = |name| if closed { Vec::new() } else { references(node, name) };
        let association = StreamAssociation { participant_id, sends: streams("send"), recvs: streams("recv") };
        push_below(&mut self.stream_associations, association, ASSOCIATIONS_MAX, &mut self.flaws);
    }

    /// Brings the associations to their participants, wherever they stood in the document. A partial document may speak of
    /// participants that only an earlier one described.
    fn associate(&mut self) {
        for association in std::mem::take(&mut self.stream_associations) {
            let Some(participant) = self.participant(&association.participant_id) else {
                continue;
            };
            participant.streams_stated = true;
            add_new(&mut participant.sends, association.sends);
            add_new(&mut participant.recvs, association.recvs);
        }
        // Of several associations with a session, as when someone comes back, an open one counts.
        let mut open: BTreeMap<(String, String), bool> = BTreeMap::new();
        for association in std::mem::take(&mut self.session_associations) {
            let session_id = association.session_id.unwrap_or_default();
            *open.entry((association.participant_id, session_id)).or_default() |= !association.closed;
        }
        for ((participant_id, session_id), open) in open {
            if let Some(participant) = self.participant(&participant_id) {
                participant.session_stated = true;
                participant.sessions.insert(session_id, open);
            }
        }
    }

    /// The participant with this id, added where only associations name it, as partial documents do.
    fn participant(&mut self, id: &str) -> Option<&mut Participant> {
        let known = self.participants.iter().position(|known| known.id == id);
        if let Some(index) = known {
            return self.participants.get_mut(index);
        }
        if self.datamode != Some(DataMode::Partial) {
            self.flaw("association-unresolved", "the metadata associates a participant that it does not describe");
            return None;
        }
        if self.participants.len() >= PARTICIPANTS_MAX {
            note(&mut self.flaws, too_many(PARTICIPANTS_MAX));
            return None;
        }
        self.participants.push(Participant { id: id.to_owned(), ..Participant::default() });
        self.participants.last_mut()
    }

    /// One id for two different things is an error of the client (RFC 7865, section 6.10); only noted, since who means what
    /// follows from where an id stands.
    fn check_ids(&mut self) {
        let reused = self.participants.iter().any(|participant| {
            self.streams.iter().any(|stream| stream.id == participant.id && !stream.id.starts_with('#'))
        });
        if reused {
            self.flaw("id-reused", "the metadata has one id for a participant and a stream");
        }
    }
}

/// The ids in `send` or `recv` elements: as text, as a child `id`, or as an attribute.
fn references(node: Node<'_, '_>, name: &'static str) -> Vec<String> {
    let mut found = Vec::new();
    for element in children(node, name).take(ASSOCIATIONS_MAX) {
        let ids: Vec<String> = match text(element) {
            Some(id) => vec![id],
            None => children(element, "id").filter_map(text).collect(),
        };
        add_new(&mut found, ids);
        add_new(&mut found, attribute(element, &["stream_id", "id"]).into_iter().collect());
    }
    found
}

fn add_new(known: &mut Vec<String>, more: Vec<String>) {
    for item in more {
        if known.len() < ASSOCIATIONS_MAX && !known.contains(&item) {
            known.push(item);
        }
    }
}

/// Whether a `recording` element follows RFC 7865: by its namespace, or by elements and attributes that only the standard has.
fn is_standard(recording: Node<'_, '_>) -> bool {
    let named = recording
        .tag_name()
        .namespace()
        .is_some_and(|namespace| namespace.trim() == "urn:ietf:params:xml:ns:recording:1");
    named
        || recording.children().filter(Node::is_element).any(|node| {
            let name = local_name(node);
            matches!(name.as_str(), "sessionrecordingassoc" | "participantsessionassoc")
        })
}

//! What a session is told about the call, and what of that is written down.

use callvault_journal::facts::{CallFacts, Party, RawBody, SessionEvent};
use callvault_sip::{DialogId, Multipart, Request};
use callvault_siprec::{DataMode, Merge, Metadata, Shape, SiprecError, snapshot_request};

use serde::{Deserialize, Serialize};

use super::session::Kept;
use super::{Moment, Sessions, Todo};
use crate::convert;

/// Raw bodies kept per session: a client that re-sends metadata all day must not fill the journal.
const RAW_BODIES_MAX: u32 = 200;

/// The media type of recording metadata (RFC 9806).
const METADATA_TYPE: &str = "application/rs-metadata+xml";

/// Whether something changed that rules go by: who is recorded, whom they talk to, which way, and what the client says about keeping.
fn has_news(before: &CallFacts, after: &CallFacts) -> bool {
    let who = |party: &Party| (party.number.clone(), party.aor.clone(), party.user_id.clone());
    let looked_at = |call: &CallFacts| {
        let remotes: Vec<_> = call.remotes.iter().map(who).collect();
        (who(&call.local), remotes, call.direction, call.recording_type.clone())
    };
    looked_at(before) != looked_at(after)
}

/// Bytes of raw bodies kept per session, for the same reason: 200 of the largest metadata that real clients send.
const RAW_BYTES_MAX: usize = 4 << 20;

/// Between two requests for a snapshot: the client is to send one at once (RFC 7866 section 9.2), and one that does not
/// will not for being asked more often.
const SNAPSHOT_AGAIN_NS: u64 = 10_000_000_000;

/// Requests for a snapshot in one session: a client that goes on breaking its sequence has other troubles.
const SNAPSHOTS_ASKED_MAX: u8 = 5;

/// What has become of the sequence of metadata documents, and of our requests for a snapshot that would mend it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct SnapshotRequests {
    /// The client's Allow header, if it has one, names UPDATE.
    may_update: bool,
    /// A complete document has come.
    had_snapshot: bool,
    /// A partial document built on something that never came, and no snapshot has come since.
    is_broken: bool,
    asked: u8,
    last_ns: u64,
}

impl SnapshotRequests {
    pub(super) fn of(invite: &Request) -> Self {
        let mut allowed = invite.headers.all("Allow").flat_map(|field| field.value().split(',')).peekable();
        let may_update = allowed.peek().is_none() || allowed.any(|method| method.trim().eq_ignore_ascii_case("UPDATE"));
        Self { may_update, ..Self::default() }
    }

    /// Takes note of a document; says whether to ask for a snapshot now.
    fn look_at(&mut self, now: Moment, known: Option<&Metadata>, document: &Metadata) -> bool {
        if document.datamode == DataMode::Complete {
            (self.had_snapshot, self.is_broken) = (true, false);
            return false;
        }
        // Only the standard has requests for snapshots. BroadWorks' partial documents name everybody, and its client says
        // itself that it takes no UPDATE.
        if document.shape != Shape::Rfc7865 {
            return false;
        }
        self.is_broken |= !self.had_snapshot || document.builds_on_unknown(known);
        let waited = self.asked == 0 || now.journal_ns.saturating_sub(self.last_ns) >= SNAPSHOT_AGAIN_NS;
        if !self.is_broken || !self.may_update || !waited || self.asked >= SNAPSHOTS_ASKED_MAX {
            return false;
        }
        (self.asked, self.last_ns) = (self.asked + 1, now.journal_ns);
        true
    }
}

impl Sessions {
    /// Metadata of the first INVITE.
    pub(super) fn begin_metadata(
        &mut self,
        now: Moment,
        dialog: DialogId,
        first: Result<Option<Metadata>, SiprecError>,
    ) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        let is_wanted = matches!(&first, Ok(Some(document)) if session.snapshots.look_at(now, None, document));
        session.metadata = first;
        if is_wanted {
            self.ask_for_snapshot(dialog);
        }
    }

    /// Asks the client for a snapshot of its metadata (RFC 7866 section 9.2).
    fn ask_for_snapshot(&mut self, dialog: DialogId) {
        let body = (METADATA_TYPE.to_owned(), snapshot_request().into_bytes());
        let headers = vec![("Content-Disposition".to_owned(), "recording-session".to_owned())];
        self.todo.push_back(Todo::Update(dialog, body, headers));
    }

    /// The session ends: where the sequence of its metadata stayed broken, that is noted.
    pub(super) fn note_broken_sequence(&mut self, dialog: DialogId) {
        if self.by_dialog.get(&dialog).is_some_and(|session| session.snapshots.is_broken) {
            let text = "the client sent changes to metadata that never came, and no complete metadata afterwards";
            self.flaw(dialog, "metadata-sequence-broken", text.into());
        }
    }

    /// Metadata that came with a later message.
    pub(super) fn take_metadata(&mut self, now: Moment, dialog: DialogId, bodies: &Multipart) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        let Some(part) = bodies.recording_metadata() else { return };
        let parsed = Metadata::parse(&part.body);
        if let Ok(document) = &parsed {
            let known = session.metadata.as_ref().ok().and_then(Option::as_ref);
            if session.snapshots.look_at(now, known, document) {
                self.ask_for_snapshot(dialog);
            }
        }
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        match (parsed, &mut session.metadata) {
            (Ok(later), Ok(Some(known))) => {
                if known.merge(later) == Merge::Unchanged {
                    return;
                }
                // Whoever talks now may send from elsewhere, as after a transfer.
                let recording = session.recording;
                self.todo.extend(session.tracks.iter().map(|track| track.announce(recording)));
            }
            (Ok(later), unknown) => *unknown = Ok(Some(later)),
            // What was understood before still holds.
            (Err(error), Ok(Some(_))) => {
                let text = format!("later metadata was not understood: failed to {error}");
                return self.flaw(dialog, "metadata-malformed", text);
            }
            (Err(error), unknown) => *unknown = Err(error),
        }
        self.tell_call(now, dialog);
    }

    /// Works out the facts of the call again and writes down what changed.
    pub(super) fn tell_call(&mut self, now: Moment, dialog: DialogId) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        let recording = session.recording;
        let was_asked = session.kept == Kept::OnDemand || self.undecided.contains_key(&recording);
        let understood = convert::understand(&session.parties, &session.offer, session.metadata.as_ref());
        let mut events = Vec::new();
        let mut is_news = false;
        if understood.call != session.call {
            is_news = has_news(&session.call, &understood.call);
            session.call = understood.call;
            events.push(SessionEvent::Call(Box::new(session.call.clone())));
        }
        for track in &mut session.tracks {
            let mut facts = track.facts.clone();
            if let Some(role) = understood.roles.iter().find(|r| r.media_line == track.media_line) {
                (facts.local, facts.mixed) = (role.local, role.mixed);
            }
            if !track.told || facts != track.facts {
                track.told = true;
                track.facts = facts;
                events.push(SessionEvent::Track(track.facts.clone()));
            }
        }
        for event in events {
            self.event(recording, event);
        }
        if is_news && was_asked {
            // Another user's rules may hold from here on, or the metadata may say that the call is to be kept.
            self.ask(now, dialog);
        }
        for flaw in understood.flaws {
            self.flaw(dialog, flaw.code, flaw.text);
        }
    }

    pub(super) fn keep_raw(&mut self, dialog: DialogId, request: &Request, bodies: &Multipart) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        let recording = session.recording;
        let mut kept = Vec::new();
        let mut left_out = false;
        for part in &bodies.parts {
            if session.raw_bodies >= RAW_BODIES_MAX || session.raw_bytes + part.body.len() > RAW_BYTES_MAX {
                left_out = true;
                break;
            }
            session.raw_bodies += 1;
            session.raw_bytes += part.body.len();
            let text = String::from_utf8_lossy(&part.body);
            kept.push(RawBody {
                method: request.method.as_str().to_owned(),
                content_type: part.content_type().unwrap_or_default(),
                text: if part.is_sdp() { callvault_siprec::without_keys(&text) } else { text.into_owned() },
            });
        }
        for body in kept {
            self.event(recording, SessionEvent::Raw(body));
        }
        if left_out {
            let text = "the client sent so many bodies that later ones are not kept; what they say was used";
            self.flaw(dialog, "raw-bodies-left-out", text.into());
        }
    }
}

//! Going on with what another recorder has begun.

use std::collections::HashMap;
use std::sync::Arc;

use callvault_journal::facts::{Flaw, Resumed, SessionEvent, Started};
use callvault_sip::{DialogId, NameAddr};
use callvault_siprec::SiprecError;
use callvault_srtp::sdes::CryptoAttribute;
use uuid::Uuid;

use super::keys::{OwnKeys, theirs};
use super::session::{AnswerState, Kept, Session, SessionTrack};
use super::standing::Standing;
use super::{Moment, Parties, Sessions, Todo};
use crate::appender::Entry;
use crate::checkpoint::{
    Continued, EndedCheckpoint, FoundLane, LaneState, MediaCheckpoint, MediaState, RecordingCheckpoint,
    SessionCheckpoint, SessionTrackCheckpoint,
};
use crate::convert;
use crate::ports::PortPair;
use crate::sweep::{Command, Counters, NewTrack, Resumption, counted};

/// A session that is younger has had no time to receive more than what any death of a recorder costs.
const UNKNOWN_NS_MIN: u64 = 1_000_000_000;

/// Why a session cannot be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresumable {
    #[error("its media ports are not there any more")]
    Ports,
    #[error("it was gone on with too often")]
    Segments,
}

impl Sessions {
    /// Goes on with a session whose dialog is there again under this name.
    pub(crate) fn resume(
        &mut self,
        now: Moment,
        dialog: DialogId,
        stored: SessionCheckpoint,
        found: FoundLane,
    ) -> Result<(), Unresumable> {
        let segment = next_segment(&stored.recording)?;
        let pairs = self.claim(&stored.tracks)?;
        let media = media_of(&found);
        let recording = stored.recording.recording;
        let kept = kept(&stored.recording, &found);
        let name = stored.name();
        let (stopped, changed_ns) = (stored.stopped, stored.changed_ns);
        let facts = (!stopped).then(|| stored.recording.clone());
        let session = session_of(stored, &pairs, kept);
        let keys: Vec<(u8, CryptoAttribute)> = session
            .tracks
            .iter()
            .filter(|track| track.secured)
            .filter_map(|track| Some((track.number, theirs(session.offer.media.get(track.media_line)?)?)))
            .collect();
        let tracks = session.tracks.iter().map(|track| track.to_resume(&keys, session.held_back)).collect();
        let resumption = Resumption {
            recording,
            tracks,
            secured: session.tracks.iter().filter(|track| track.secured).map(|track| track.number).collect(),
            keys,
            media,
            counters: Arc::clone(&session.counters),
            opened_ns: session.started.journal_ns,
            opened_wall_ns: session.started.wall_ns,
            stopped,
            ended_ns: None,
            changed_ns,
        };
        self.by_recording.extend(session.recordings.iter().map(|recording| (*recording, dialog)));
        self.by_dialog.insert(dialog, Box::new(session));
        self.changes.dialogs.insert(dialog);
        tracing::info!(session = %name, recording = %recording, segment, "recording {recording} goes on");
        if let Some(stored) = facts {
            self.go_on_writing(now, stored, segment, kept, found);
            if kept == Kept::Undecided {
                self.ask(now, dialog);
            }
        }
        self.todo.push_back(Todo::Media(Command::Resume(Box::new(resumption))));
        Ok(())
    }

    /// Brings a recording to the end that it had, unless that is in the journal.
    pub(crate) fn resume_ended(
        &mut self,
        now: Moment,
        stored: EndedCheckpoint,
        found: FoundLane,
    ) -> Result<(), Unresumable> {
        let EndedCheckpoint { recording: stored, mut ended, tracks, changed_ns, .. } = stored;
        let recording = stored.recording;
        if found.lane.as_ref().is_some_and(|lane| lane.state == LaneState::Over) {
            self.changes.over.push(recording);
            return Ok(());
        }
        let segment = next_segment(&stored)?;
        if stored.kept == Kept::Discarded {
            self.discard_again(stored, ended, segment, found, changed_ns);
            return Ok(());
        }
        // Without its ports nothing more comes of it, and it ends all the same.
        let pairs = self.claim(&tracks).unwrap_or_default();
        let media = media_of(&found);
        let kept = kept(&stored, &found);
        let call = stored.call.clone();
        let (opened_ns, opened_wall_ns) = (stored.started.at_ns, stored.started.wall_ns);
        self.go_on_writing(now, stored, segment, kept, found);
        let end =
            super::standing::End { ended: ended.clone(), kept, call: call.clone(), tracks: Vec::new(), changed_ns };
        if pairs.is_empty() {
            let states = MediaCheckpoint::from_state(&media).unwrap_or_default().tracks;
            ended.tracks = states.iter().map(counted).collect();
            self.todo.push_back(Todo::Journal(Entry::End { recording, ended }));
        } else {
            let resumption = Resumption {
                recording,
                secured: tracks.iter().filter(|track| track.secured).map(|track| track.number).collect(),
                tracks: tracks.iter().filter_map(|track| to_empty(track, &pairs)).collect(),
                keys: Vec::new(),
                media,
                counters: Arc::new(Counters::default()),
                opened_ns,
                opened_wall_ns,
                stopped: false,
                ended_ns: Some(ended.at_ns),
                changed_ns,
            };
            self.todo.push_back(Todo::Media(Command::Resume(Box::new(resumption))));
            self.todo.push_back(Todo::Media(Command::Close { recording, ended }));
        }
        self.note_end(recording, super::standing::End { tracks, ..end });
        if kept == Kept::Undecided {
            self.ask_about(now, recording, &call);
        }
        Ok(())
    }

    /// Says in a part of its own that a recording is discarded: whoever reads the journal cannot know it from a part that was cut off.
    fn discard_again(
        &mut self,
        stored: RecordingCheckpoint,
        ended: callvault_journal::facts::Ended,
        segment: u16,
        found: FoundLane,
        changed_ns: u64,
    ) {
        let RecordingCheckpoint { recording, started, call, facts, .. } = stored;
        let continued = Continued {
            segment,
            kept: false,
            earlier: Vec::new(),
            facts,
            media: MediaState::default(),
            sequence: found.sequence,
        };
        self.open_recording(recording, Standing::new(segment, started, facts), Some(Box::new(continued)));
        // By which rule is not in the checkpoint; the part before may say it.
        let decision = callvault_control::Decision::Discard { rule: String::new() };
        self.todo.push_back(Todo::Journal(Entry::Decide { recording, decision }));
        let kept = Kept::Discarded;
        self.note_end(recording, super::standing::End { ended, kept, call, tracks: Vec::new(), changed_ns });
    }

    /// Opens the next part of a recording and tells in it what the parts before may not have.
    fn go_on_writing(&mut self, now: Moment, stored: RecordingCheckpoint, segment: u16, kept: Kept, found: FoundLane) {
        let RecordingCheckpoint { recording, started, call, facts, unwritten, .. } = stored;
        let FoundLane { lane, sequence } = found;
        let written = lane.as_ref().map_or(0, |lane| lane.facts);
        let sources_continue = lane.is_some();
        let (earlier, media) = lane.map_or_else(Default::default, |lane| (lane.keys, lane.media));
        let continued = Continued { segment, kept: kept == Kept::Yes, earlier, facts, media, sequence };
        let mut standing = Standing::new(segment, started.clone(), facts);
        standing.unwritten.clear();
        self.open_recording(recording, standing, Some(Box::new(continued)));
        if kept == Kept::OnDemand {
            let decision = callvault_control::Decision::OnDemand;
            self.todo.push_back(Todo::Journal(Entry::Decide { recording, decision }));
        }
        let age_ns = now.journal_ns.saturating_sub(started.at_ns);
        let resumed = Some(Resumed { at_ns: now.journal_ns, sources_continue });
        self.event(recording, SessionEvent::Started(Started { resumed, ..started }));
        if !sources_continue && age_ns >= UNKNOWN_NS_MIN {
            let text = format!(
                "the recorder died and nothing is known of what it had received: audio of the {} s before may be missing, and is not counted",
                age_ns / 1_000_000_000
            );
            self.event(recording, SessionEvent::Flaw(Flaw { code: "media-state-lost".to_owned(), text }));
        }
        if call != callvault_journal::facts::CallFacts::default() {
            self.event(recording, SessionEvent::Call(Box::new(call)));
        }
        let dialog = self.by_recording.get(&recording).copied();
        let tracks = dialog.and_then(|dialog| self.by_dialog.get(&dialog)).map(|session| &session.tracks);
        let described: Vec<_> = tracks.into_iter().flatten().map(|track| track.facts.clone()).collect();
        for track in described {
            self.event(recording, SessionEvent::Track(track));
        }
        for (_, event) in unwritten.into_iter().filter(|(number, _)| *number > written) {
            // Where it began is told above.
            if !matches!(&event, SessionEvent::Started(started) if started.resumed.is_some()) {
                self.event(recording, event);
            }
        }
    }

    /// Takes the ports that a session has.
    fn claim(&mut self, tracks: &[SessionTrackCheckpoint]) -> Result<HashMap<u16, Arc<PortPair>>, Unresumable> {
        let wanted: Vec<u16> = tracks.iter().map(|track| track.port).collect();
        let pairs = self.ports.claim(&wanted).ok_or(Unresumable::Ports)?;
        Ok(pairs.into_iter().map(|pair| (pair.port, pair)).collect())
    }
}

fn next_segment(stored: &RecordingCheckpoint) -> Result<u16, Unresumable> {
    stored.segment.checked_add(1).ok_or(Unresumable::Segments)
}

fn media_of(found: &FoundLane) -> MediaState {
    found.lane.as_ref().map(|lane| lane.media.clone()).unwrap_or_default()
}

/// What becomes of a recording: the verdict may have been carried out before it was written down, or the other way round.
fn kept(stored: &RecordingCheckpoint, found: &FoundLane) -> Kept {
    let is_kept = found.lane.as_ref().is_some_and(|lane| lane.state == LaneState::Kept);
    if is_kept { Kept::Yes } else { stored.kept }
}

/// A track whose sockets are to be emptied for the last time.
fn to_empty(track: &SessionTrackCheckpoint, pairs: &HashMap<u16, Arc<PortPair>>) -> Option<NewTrack> {
    Some(NewTrack {
        number: track.number,
        pair: Arc::clone(pairs.get(&track.port)?),
        payload_types: convert::payload_types(&track.facts),
        paused: track.paused,
        unprotector: None,
        protector: None,
        remote_ports: track.remote_ports,
    })
}

fn session_of(stored: SessionCheckpoint, pairs: &HashMap<u16, Arc<PortPair>>, kept: Kept) -> Session {
    let tracks = stored.tracks.into_iter().filter_map(|track| {
        Some(SessionTrack {
            media_line: track.media_line,
            number: track.number,
            pair: Arc::clone(pairs.get(&track.port)?),
            facts: track.facts,
            told: true,
            paused: track.paused,
            remote: track.remote,
            remote_ports: track.remote_ports,
            secured: track.secured,
        })
    });
    let answer = stored.answer;
    Session {
        recording: stored.recording.recording,
        recordings: stored.recordings,
        origin: stored.origin,
        kept,
        stopped: stored.stopped,
        held_back: stored.held_back,
        changed_ns: stored.changed_ns,
        snapshots: stored.snapshots,
        started: Moment { journal_ns: stored.started.0, wall_ns: stored.started.1 },
        parties: Parties { from: NameAddr::parse(&stored.from), text: stored.from, correlation: stored.correlation },
        offer: stored.offer,
        // What was wrong with it has been said.
        metadata: stored.metadata.map_err(|()| SiprecError::MetadataMalformed {
            line: 0,
            column: 0,
            what: "it was not understood",
        }),
        call: stored.recording.call,
        tracks: tracks.collect(),
        sdp: AnswerState {
            session_id: answer.session_id,
            version: answer.version,
            address: answer.address,
            last: answer.last,
            is_offer: answer.is_offer,
            own_keys: OwnKeys::resumed(answer.own_keys),
        },
        raw_bodies: stored.raw_bodies,
        raw_bytes: stored.raw_bytes,
        flaws: stored.flaws.into_iter().map(Into::into).collect(),
        counters: Arc::new(Counters::default()),
    }
}

/// The recordings that are in `ended` although their session has not got as far.
pub(crate) fn is_ahead(ended: Uuid, sessions: &[SessionCheckpoint]) -> bool {
    sessions.iter().any(|session| session.recording.recording == ended && !session.stopped)
}

//! What is to be known of each recording until its end is durable, whatever becomes of this process, and what of all that has changed.

use std::collections::{BTreeSet, HashMap, VecDeque};

use callvault_journal::facts::{CallFacts, Ended, SessionEvent, Started};
use callvault_sip::DialogId;
use uuid::Uuid;

use super::session::{Kept, Session};
use super::{Sessions, Todo};
use crate::appender::Entry;
use crate::checkpoint::{
    AnswerCheckpoint, Continued, EndedCheckpoint, RecordingCheckpoint, SessionCheckpoint, SessionTrackCheckpoint,
};

/// Facts of one recording that are remembered until they are in the journal. Beyond it the disk has stood still for long, and the oldest are in
/// the appender's queue alone.
const UNWRITTEN_MAX: usize = 1_024;

/// A recording whose end is not durable.
pub(super) struct Standing {
    pub(super) segment: u16,
    pub(super) started: Started,
    /// The number of the last fact.
    pub(super) facts: u64,
    /// Facts that are not known to be in the journal.
    pub(super) unwritten: VecDeque<(u64, SessionEvent)>,
    ended: Option<End>,
    durable: bool,
}

/// How a recording ended.
pub(super) struct End {
    pub(super) ended: Ended,
    pub(super) kept: Kept,
    pub(super) call: CallFacts,
    pub(super) tracks: Vec<SessionTrackCheckpoint>,
    pub(super) changed_ns: u64,
}

/// What has changed since this was last asked.
#[derive(Default)]
pub(crate) struct Changes {
    /// Sessions of which something changed.
    pub(crate) dialogs: BTreeSet<DialogId>,
    /// Recordings that have ended.
    pub(crate) ended: BTreeSet<Uuid>,
    /// Sessions that are over, by the first of their recordings.
    pub(crate) gone: Vec<Uuid>,
    /// Recordings whose end is durable.
    pub(crate) over: Vec<Uuid>,
}

/// All recordings whose end is not durable.
pub(super) type Standings = HashMap<Uuid, Standing>;

impl Standing {
    pub(super) fn new(segment: u16, started: Started, facts: u64) -> Self {
        Self { segment, started, facts, unwritten: VecDeque::new(), ended: None, durable: false }
    }

    /// Numbers a fact and remembers it.
    fn note(&mut self, event: &SessionEvent) -> u64 {
        self.facts += 1;
        if self.unwritten.len() >= UNWRITTEN_MAX {
            self.unwritten.pop_front();
        }
        self.unwritten.push_back((self.facts, event.clone()));
        self.facts
    }

    fn checkpoint(&self, recording: Uuid, kept: Kept, call: &CallFacts) -> RecordingCheckpoint {
        RecordingCheckpoint {
            recording,
            segment: self.segment,
            kept,
            started: self.started.clone(),
            call: call.clone(),
            facts: self.facts,
            unwritten: self.unwritten.iter().cloned().collect(),
        }
    }
}

impl Sessions {
    /// Begins to write a recording, or goes on.
    pub(super) fn open_recording(&mut self, recording: Uuid, standing: Standing, continued: Option<Box<Continued>>) {
        self.standings.insert(recording, standing);
        self.todo.push_back(Todo::Journal(Entry::Open { recording, continued }));
    }

    /// Writes down what happened.
    pub(super) fn event(&mut self, recording: Uuid, event: SessionEvent) {
        let number = self.standings.get_mut(&recording).map_or(0, |standing| standing.note(&event));
        self.todo.push_back(Todo::Journal(Entry::Facts { recording, event, number }));
    }

    /// Facts up to this number are in the journal.
    pub(crate) fn written(&mut self, recording: Uuid, number: u64) {
        if let Some(standing) = self.standings.get_mut(&recording) {
            while standing.unwritten.pop_front_if(|(known, _)| *known <= number).is_some() {}
        }
    }

    /// The end of a recording is durable.
    pub(crate) fn durable(&mut self, recording: Uuid) {
        let Some(standing) = self.standings.get_mut(&recording) else { return };
        standing.durable = true;
        self.forget_if_over(recording);
    }

    /// A recording has ended: that is remembered until it is durable.
    pub(super) fn note_end(&mut self, recording: Uuid, end: End) {
        let Some(standing) = self.standings.get_mut(&recording) else { return };
        standing.ended = Some(end);
        self.changes.ended.insert(recording);
        self.forget_if_over(recording);
    }

    /// What becomes of a recording is known, or is asked again.
    pub(super) fn note_kept(&mut self, recording: Uuid, kept: Kept) {
        if let Some(end) = self.standings.get_mut(&recording).and_then(|standing| standing.ended.as_mut()) {
            end.kept = kept;
            self.changes.ended.insert(recording);
        } else if let Some(dialog) = self.by_recording.get(&recording) {
            self.changes.dialogs.insert(*dialog);
        }
    }

    fn forget_if_over(&mut self, recording: Uuid) {
        if self.standings.get(&recording).is_some_and(|standing| standing.durable && standing.ended.is_some()) {
            self.standings.remove(&recording);
            self.changes.ended.remove(&recording);
            self.changes.over.push(recording);
        }
    }

    /// What has changed since this was last asked.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// A session as data; its dialog is to be added.
    pub(crate) fn checkpoint(&self, dialog: DialogId, boot: Uuid) -> Option<SessionCheckpoint> {
        let session = self.by_dialog.get(&dialog)?;
        let gone = Standing::new(0, session.origin.clone(), 0);
        let standing = self.standings.get(&session.recording).unwrap_or(&gone);
        Some(SessionCheckpoint {
            boot,
            dialog: None,
            recording: standing.checkpoint(session.recording, session.kept, &session.call),
            recordings: session.recordings.clone(),
            origin: session.origin.clone(),
            stopped: session.stopped,
            held_back: session.held_back,
            changed_ns: session.changed_ns,
            snapshots: session.snapshots,
            started: (session.started.journal_ns, session.started.wall_ns),
            from: session.parties.text.clone(),
            correlation: session.parties.correlation.clone(),
            offer: session.offer.clone(),
            metadata: session.metadata.clone().map_err(drop),
            tracks: session.track_checkpoints(),
            answer: AnswerCheckpoint {
                session_id: session.sdp.session_id,
                version: session.sdp.version,
                address: session.sdp.address,
                last: session.sdp.last.clone(),
                is_offer: session.sdp.is_offer,
                own_keys: session.sdp.own_keys.stored(),
            },
            raw_bodies: session.raw_bodies,
            raw_bytes: session.raw_bytes,
            flaws: session.flaws.iter().map(|code| code.to_string()).collect(),
        })
    }

    /// A recording that has ended, as data.
    pub(crate) fn ended_checkpoint(&self, recording: Uuid, boot: Uuid) -> Option<EndedCheckpoint> {
        let standing = self.standings.get(&recording)?;
        let End { ended, kept, call, tracks, changed_ns } = standing.ended.as_ref()?;
        Some(EndedCheckpoint {
            boot,
            recording: standing.checkpoint(recording, *kept, call),
            ended: ended.clone(),
            tracks: tracks.clone(),
            changed_ns: *changed_ns,
        })
    }
}

impl Session {
    pub(super) fn track_checkpoints(&self) -> Vec<SessionTrackCheckpoint> {
        let tracks = self.tracks.iter().map(|track| SessionTrackCheckpoint {
            media_line: track.media_line,
            number: track.number,
            port: track.pair.port,
            facts: track.facts.clone(),
            paused: track.paused,
            remote: track.remote.clone(),
            remote_ports: track.remote_ports,
            secured: track.secured,
        });
        tracks.collect()
    }

    /// How its recording ends; `tracks` are those whose sockets are left by it.
    pub(super) fn end(&self, ended: Ended, tracks: Vec<SessionTrackCheckpoint>) -> End {
        End { ended, kept: self.kept, call: self.call.clone(), tracks, changed_ns: self.changed_ns }
    }
}

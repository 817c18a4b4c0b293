//! What people do about a live call: pause, resume, stop, start, keep.
//!
//! A pause that was asked for here and one of the client's are two reasons that know nothing of each other: a track is stored only
//! while there is neither. What is asked for holds from the moment at which it is decided here, whatever waits in sockets and
//! queues: the sweep goes by when a packet arrived.

use std::sync::Arc;

use callvault_control::{CallAction, CallStanding, CallState, Decision, Refusal};
use callvault_journal::facts::{Ended, SessionEvent, Started};
use callvault_sip::DialogId;
use rand::CryptoRng;
use uuid::Uuid;

use super::media::{CONTROL, pause_event};
use super::session::{Kept, Session};
use super::standing::Standing;
use super::{Moment, Sessions, Todo, new_id};
use crate::sweep::{Command, Counters};

/// Most recordings of one session: nobody stops and starts a call so often, and each costs a lane and a row.
const RECORDINGS_PER_SESSION_MAX: usize = 100;

impl Sessions {
    /// Does something about a live call, which any recording of its session names. Answers how the call stands then.
    pub(crate) fn control(
        &mut self,
        now: Moment,
        recording: Uuid,
        action: CallAction,
        rng: &mut dyn CryptoRng,
    ) -> Result<CallStanding, Refusal> {
        let dialog = self.by_recording.get(&recording).copied().ok_or(Refusal::Unknown)?;
        let session = self.by_dialog.get(&dialog).ok_or(Refusal::Unknown)?;
        let is_kept = session.kept == Kept::Yes;
        self.changes.dialogs.insert(dialog);
        match action {
            // What was kept stays kept.
            CallAction::Keep if session.stopped && is_kept => {}
            CallAction::Pause | CallAction::Resume | CallAction::Keep if session.stopped => {
                return Err(Refusal::Stopped);
            }
            CallAction::Pause => self.hold_back(now, dialog, true),
            CallAction::Resume => self.hold_back(now, dialog, false),
            CallAction::Stop => self.stop_recording(now, dialog, "stopped"),
            CallAction::Start if session.stopped => self.start_recording(now, dialog, rng)?,
            CallAction::Start | CallAction::Keep if is_kept => {}
            CallAction::Start | CallAction::Keep => {
                let recording = session.recording;
                self.undecided.remove(&recording);
                self.decide(now, recording, Decision::Keep);
            }
        }
        self.by_dialog.get(&dialog).map(|session| session.standing()).ok_or(Refusal::Unknown)
    }

    fn hold_back(&mut self, now: Moment, dialog: DialogId, paused: bool) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        if std::mem::replace(&mut session.held_back, paused) == paused {
            return;
        }
        let (recording, at_ns) = (session.recording, now.journal_ns);
        session.changed_ns = at_ns;
        // The client's own pauses stop their tracks in any case.
        for track in session.tracks.iter().filter(|track| !track.paused) {
            let track = track.number;
            self.todo.push_back(Todo::Media(Command::Pause { recording, track, paused, at_ns }));
        }
        self.event(recording, pause_event(now, None, paused, CONTROL));
    }

    /// Ends the recording; the session goes on.
    pub(super) fn stop_recording(&mut self, now: Moment, dialog: DialogId, reason: &str) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        if std::mem::replace(&mut session.stopped, true) {
            return;
        }
        session.changed_ns = now.journal_ns;
        let recording = session.recording;
        let ended =
            Ended { wall_ns: now.wall_ns, at_ns: now.journal_ns, reason: reason.to_owned(), tracks: Vec::new() };
        let end = session.end(ended.clone(), Vec::new());
        self.note_end(recording, end);
        self.todo.push_back(Todo::Media(Command::Cut { recording, ended }));
    }

    /// Begins another recording in a session whose last one was stopped. Who starts it wants it kept.
    fn start_recording(&mut self, now: Moment, dialog: DialogId, rng: &mut dyn CryptoRng) -> Result<(), Refusal> {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return Err(Refusal::Unknown) };
        if session.recordings.len() >= RECORDINGS_PER_SESSION_MAX {
            return Err(Refusal::TooMany);
        }
        let recording = new_id(now, rng);
        let after = std::mem::replace(&mut session.recording, recording);
        session.recordings.push(recording);
        (session.stopped, session.kept, session.counters) = (false, Kept::Yes, Arc::new(Counters::default()));
        session.changed_ns = now.journal_ns;
        let counters = Arc::clone(&session.counters);
        let started = Started {
            wall_ns: now.wall_ns,
            at_ns: now.journal_ns,
            follows: session.recordings.first().copied(),
            ..session.origin.clone()
        };
        // It stands alone: everything that is known is told anew.
        session.call = callvault_journal::facts::CallFacts::default();
        session.flaws.clear();
        session.tracks.iter_mut().for_each(|track| track.told = false);
        let was_held_back = std::mem::take(&mut session.held_back);
        let paused: Vec<_> = session.tracks.iter().filter(|t| t.paused).map(|t| (t.number, true)).collect();
        let running: Vec<u8> = session.tracks.iter().filter(|t| !t.paused).map(|t| t.number).collect();
        let tracks = session.tracks.len();

        self.totals.started_again += 1;
        self.by_recording.insert(recording, dialog);
        self.open_recording(recording, Standing::new(0, started.clone(), 0), None);
        self.event(recording, SessionEvent::Started(started));
        let at_ns = now.journal_ns;
        if was_held_back {
            for track in running {
                self.todo.push_back(Todo::Media(Command::Pause { recording: after, track, paused: false, at_ns }));
            }
        }
        self.todo.push_back(Todo::Media(Command::Begin { after, recording, counters, at_ns }));
        self.decide(now, recording, Decision::Keep);
        self.tell_call(now, dialog);
        self.tell_pauses(now, recording, &paused, tracks);
        Ok(())
    }
}

impl Session {
    /// How it stands, for whoever looks at the live calls.
    pub(super) fn standing(&self) -> CallStanding {
        let paused_by_client = self.is_paused();
        CallStanding {
            recording: self.recording,
            state: match () {
                () if self.stopped => CallState::Stopped,
                () if self.held_back || paused_by_client => CallState::Paused,
                () if self.kept == Kept::OnDemand => CallState::OnDemand,
                () => CallState::Recording,
            },
            kept: match self.kept {
                Kept::Undecided => None,
                Kept::Yes => Some(true),
                Kept::OnDemand | Kept::Discarded => Some(false),
            },
            paused_by_client,
            paused_by_control: self.held_back,
        }
    }
}

//! What becomes of recordings: the daemon is asked and never waited for.
//!
//! A question is asked when a session begins, and again when later signalling changes what is known of the call while nobody has
//! said *keep*: a call that goes over to another user has that user's rules. Messages may be lost in either direction, so what is
//! not answered is asked again. Kept once is kept.

use callvault_control::{Decision, ToDaemon};
use callvault_journal::facts::CallFacts;
use callvault_sip::DialogId;
use uuid::Uuid;

use super::session::Kept;
use super::{Moment, Sessions, Todo};
use crate::appender::Entry;

/// Between two questions for the same verdict: a message in either direction may be lost, the recording must not be.
const ASK_AGAIN_NS: u64 = 5_000_000_000;

/// Recordings without a verdict, ended ones included: their keys are in memory only. Beyond it the oldest is kept, which loses nothing;
/// a daemon that answers never gets this far.
const UNDECIDED_MAX: usize = 10_000;

/// Remote parties in a question for a verdict: rules look at the main one; the journal has all.
const REMOTES_ASKED_MAX: usize = 16;

/// A question for a verdict.
pub(super) struct Question {
    /// When to ask again.
    again_ns: u64,
    facts: Box<CallFacts>,
    /// It was asked with other facts before, and an answer may be to those: if it is not *keep*, another comes.
    is_changed: bool,
}

impl Sessions {
    /// The daemon's verdict on a recording.
    pub(crate) fn verdict(&mut self, now: Moment, recording: Uuid, decision: Decision) {
        // An answer to a question that was asked twice comes twice.
        let Some(question) = self.undecided.get_mut(&recording) else { return };
        if std::mem::take(&mut question.is_changed) && decision != Decision::Keep {
            return;
        }
        self.undecided.remove(&recording);
        self.decide(now, recording, decision);
    }

    /// To be called now and then: asks again for verdicts that do not come.
    pub(crate) fn tick(&mut self, now: Moment) {
        for (recording, question) in &mut self.undecided {
            if question.again_ns <= now.journal_ns {
                question.again_ns = now.journal_ns.saturating_add(ASK_AGAIN_NS);
                let facts = question.facts.clone();
                self.todo.push_back(Todo::Tell(ToDaemon::Decide { recording: *recording, facts }));
            }
        }
    }

    /// Asks what becomes of a recording, unless it is kept already or nothing can be kept of it any more.
    pub(super) fn ask(&mut self, now: Moment, dialog: DialogId) {
        let Some(session) = self.by_dialog.get_mut(&dialog) else { return };
        if session.stopped || matches!(session.kept, Kept::Yes | Kept::Discarded) {
            return;
        }
        let recording = session.recording;
        if std::mem::replace(&mut session.kept, Kept::Undecided) == Kept::OnDemand {
            self.todo.push_back(Todo::Journal(Entry::Reconsider { recording }));
        }
        let call = session.call.clone();
        self.changes.dialogs.insert(dialog);
        self.ask_about(now, recording, &call);
    }

    /// Asks what becomes of a recording, which may have ended.
    pub(super) fn ask_about(&mut self, now: Moment, recording: Uuid, call: &CallFacts) {
        let mut facts = Box::new(call.clone());
        facts.remotes.truncate(REMOTES_ASKED_MAX);
        if self.undecided.len() >= UNDECIDED_MAX
            && !self.undecided.contains_key(&recording)
            && let Some((oldest, _)) = self.undecided.pop_first()
        {
            tracing::error!("the daemon does not say what becomes of recordings; the oldest without a verdict is kept");
            self.decide(now, oldest, Decision::Keep);
        }
        let again_ns = now.journal_ns.saturating_add(ASK_AGAIN_NS);
        let is_changed = self.undecided.contains_key(&recording);
        self.undecided.insert(recording, Question { again_ns, facts: facts.clone(), is_changed });
        self.todo.push_back(Todo::Tell(ToDaemon::Decide { recording, facts }));
    }

    /// It is decided what becomes of a recording, which may have ended.
    pub(super) fn decide(&mut self, now: Moment, recording: Uuid, decision: Decision) {
        let kept = match &decision {
            Decision::Keep => Kept::Yes,
            Decision::OnDemand => Kept::OnDemand,
            Decision::Discard { .. } => Kept::Discarded,
        };
        self.todo.push_back(Todo::Journal(Entry::Decide { recording, decision }));
        self.note_kept(recording, kept);
        let Some(dialog) = self.by_recording.get(&recording).copied() else { return };
        let Some(session) = self.by_dialog.get_mut(&dialog).filter(|s| s.recording == recording) else { return };
        session.kept = kept;
        if kept == Kept::Discarded {
            // Nothing of it can be read from here on, so nothing need be written.
            self.stop_recording(now, dialog, "discarded");
        }
    }
}

//! The checkpoints of the sessions: written before anything that they are about leaves, and gone on from at the start.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use callvault_control::{RESUMED_PER_MESSAGE_MAX, ToDaemon};
use callvault_sip::{DialogId, Flow};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Signalling, Step, moment, now};
use crate::Feedback;
use crate::appender::{Entry, unsaved};
use crate::checkpoint::SessionCheckpoint;
use crate::sessions::is_ahead;

/// How long the journal is waited for at the start. A disk that takes longer than this holds up no calls; the daemon has been told what goes on.
const MARKED_WITHIN: Duration = Duration::from_secs(2);

impl Signalling {
    /// Writes down what has changed.
    pub(super) fn save(&mut self) {
        let changed: BTreeSet<DialogId> = self.endpoint.take_changed_dialogs().collect();
        let changes = self.sessions.take_changes();
        let Some(checkpoints) = &self.checkpoints else { return };
        let mut result = Ok(());
        // An end before its session's, so that one of them says it at every moment.
        for recording in changes.ended {
            if let Some(ended) = self.sessions.ended_checkpoint(recording, checkpoints.boot()) {
                result = result.and(checkpoints.save_ended(&ended));
            }
        }
        for dialog in changed.union(&changes.dialogs) {
            // Nothing is kept of a dialog that is not accepted, or has no session any more.
            if let Some(session) = self.checkpoint(*dialog, checkpoints.boot()) {
                result = result.and(checkpoints.save_session(&session));
            }
        }
        changes.gone.into_iter().for_each(|session| checkpoints.remove_session(session));
        changes.over.into_iter().for_each(|recording| checkpoints.remove_recording(recording));
        match result {
            Ok(()) => checkpoints.worked(),
            Err(error) if checkpoints.failed() => self.alarm("checkpoint", unsaved(&error)),
            Err(_) => {}
        }
    }

    fn checkpoint(&self, dialog: DialogId, boot: Uuid) -> Option<SessionCheckpoint> {
        let state = self.endpoint.checkpoint(dialog)?;
        let session = self.sessions.checkpoint(dialog, boot)?;
        Some(SessionCheckpoint { dialog: Some(state), ..session })
    }

    /// Goes on with everything that another recorder left, and tells the daemon with what.
    pub(super) async fn resume(&mut self, feedback: &mut mpsc::UnboundedReceiver<Feedback>) {
        let resumed = match self.resume_all() {
            Ok(resumed) => resumed,
            Err(error) => {
                self.alarm(
                    "session-refused",
                    format!("failed to read the checkpoints of calls: {error}; they are lost"),
                );
                return;
            }
        };
        if resumed.is_empty() {
            return;
        }
        self.waiting.push_back(Step::Journal(Entry::Mark));
        self.work();
        // Who reads the journal is to find there what goes on.
        let marked = async {
            while let Some(told) = feedback.recv().await {
                if matches!(told, Feedback::Marked) {
                    return;
                }
                self.hear(told);
                self.work();
            }
        };
        let _ = tokio::time::timeout(MARKED_WITHIN, marked).await;
        for recordings in resumed.chunks(RESUMED_PER_MESSAGE_MAX) {
            self.tell(ToDaemon::Resumed { recordings: recordings.to_vec() });
        }
    }

    fn resume_all(&mut self) -> io::Result<Vec<Uuid>> {
        let Some(checkpoints) = self.checkpoints.clone() else { return Ok(Vec::new()) };
        let found = checkpoints.load()?;
        for (name, why) in &found.refused {
            self.alarm("session-refused", format!("the call of recording {name} cannot go on: its checkpoint cannot be used, {why}, so its client cannot be told (no BYE); it is set aside in runtime_dir"));
        }
        let journal = self.settings.journal_dir.clone();
        let mut resumed = Vec::new();
        let mut ended = found.ended;
        ended.retain(|ended| !is_ahead(ended.recording.recording, &found.sessions));
        // Before those that have ended: their ports may be a session's by now.
        for session in found.sessions {
            let (name, recording) = (session.name(), session.recording.recording);
            match self.resume_session(session) {
                Ok(()) => resumed.push(recording),
                Err(why) => {
                    checkpoints.set_aside_session(name);
                    self.alarm("session-refused", format!("the call of recording {recording} cannot go on: {why}; its checkpoint is set aside in runtime_dir"));
                }
            }
        }
        for ended in ended {
            let recording = ended.recording.recording;
            let lane = checkpoints.find_lane(recording, &journal);
            match self.sessions.resume_ended(moment(), ended, lane) {
                Ok(()) => resumed.push(recording),
                Err(why) => {
                    self.alarm("session-refused", format!("recording {recording} cannot be ended in order: {why}"))
                }
            }
        }
        Ok(resumed)
    }

    fn resume_session(&mut self, mut session: SessionCheckpoint) -> Result<(), String> {
        let Some(state) = session.dialog.take() else { return Err("its dialog is missing".into()) };
        let lane = match &self.checkpoints {
            Some(checkpoints) => checkpoints.find_lane(session.recording.recording, &self.settings.journal_dir),
            None => return Err("there are no checkpoints".into()),
        };
        let transports = &self.transports;
        let peer = std::cell::Cell::new(None);
        let resumed = |flow: &Flow| {
            peer.set(Some(flow.peer.ip()));
            transports.resumed(flow)
        };
        let dialog = self.endpoint.resume(now(), state, resumed).map_err(|e| e.to_string())?;
        // It counts for its source's limits as it did.
        if let Some(peer) = peer.get() {
            self.transports.resumed_dialog(dialog, peer);
        }
        self.sessions.resume(moment(), dialog, session, lane).map_err(|why| {
            // The client is told, since nobody listens to what it sends.
            self.endpoint.bye(now(), dialog, Some("SIP ;text=\"the recording cannot go on\""));
            why.to_string()
        })
    }

    pub(super) fn alarm(&mut self, code: &'static str, text: String) {
        tracing::error!(code, "{text}");
        self.tell(ToDaemon::Alarm { code: code.to_owned(), text });
    }
}

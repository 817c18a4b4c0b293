//! The appender without its two threads: who drives it says when it takes entries, when it does its housekeeping, and when a
//! sync begins and ends.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use callvault_control::Start;

use super::folder::JournalFolder;
use super::{AppendError, Appender, AppenderState, ENTRIES_PER_WRITE_MAX, Entry, SyncRequest, Synced, spare_batches};
use crate::Feedback;
use crate::checkpoint::Checkpoints;
use crate::clock::journal_ns;

/// See the module.
pub(crate) struct Stepped {
    appender: Appender,
    requests: Receiver<SyncRequest>,
    done: Sender<Synced>,
}

impl Stepped {
    pub(crate) fn begin(
        folder: Box<dyn JournalFolder>,
        settings: Arc<Start>,
        state: Arc<AppenderState>,
        feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
        checkpoints: Option<Checkpoints>,
    ) -> Result<Self, AppendError> {
        let (to_sync, requests) = channel();
        let (done, synced) = channel();
        let appender =
            Appender::begin_with(folder, settings, state, feedback, spare_batches().0, checkpoints, (to_sync, synced))?;
        Ok(Self { appender, requests, done })
    }

    /// One turn of the appender's loop. `next` gives the entries.
    pub(crate) fn turn(&mut self, mut next: impl FnMut() -> Option<Entry>) {
        for _ in 0..ENTRIES_PER_WRITE_MAX {
            if !self.appender.has_room() {
                break;
            }
            let Some(entry) = next() else { break };
            let _ = self.appender.take(entry);
        }
        self.hear_syncs();
        self.appender.round(journal_ns());
    }

    /// What the thread that syncs does: one sync, if one was asked for. Says whether there was one.
    pub(crate) fn sync(&mut self) -> bool {
        let Ok(request) = self.requests.try_recv() else { return false };
        let result = request.file.sync();
        let _ = self.done.send(Synced { request, result });
        true
    }

    /// The word to stop: lanes that are open are ended.
    pub(crate) fn end_lanes(&mut self) {
        self.appender.end_lanes();
    }

    /// One try to end the generation; says whether all of it is on the device.
    pub(crate) fn finish(&mut self) -> bool {
        self.hear_syncs();
        self.appender.finish(journal_ns())
    }

    fn hear_syncs(&mut self) {
        while let Ok(done) = self.appender.synced.try_recv() {
            self.appender.after_sync(&done);
        }
    }
}

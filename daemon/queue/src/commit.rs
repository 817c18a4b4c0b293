//! Group commit: callers that wait for the device at the same time share one sync.
//!
//! Each caller joins the open batch after its writes are in sled. The first that finds no sync under way leads: it closes the
//! batch, so that later callers join the next one, syncs, and gives everyone in the batch the same answer.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::{QueueError, folder::Folder};

/// The answer shared by the callers of one sync.
#[derive(Debug, Default)]
pub(crate) struct Batch(OnceLock<Result<(), String>>);

#[derive(Debug)]
struct State {
    open: Arc<Batch>,
    syncing: bool,
    folder: Option<Arc<Folder>>,
    broken: Option<String>,
}

/// Guards the order of syncs. Lock order: the queue's jobs first, then this.
#[derive(Debug)]
pub(crate) struct Commit {
    state: Mutex<State>,
    changed: Condvar,
}

/// The right to be the only one that touches the folder; everyone who joined before waits for its [`Lead::finish`].
pub(crate) struct Lead<'a> {
    commit: &'a Commit,
    batch: Arc<Batch>,
    finished: bool,
}

impl Commit {
    pub(crate) fn new(folder: Arc<Folder>) -> Self {
        let state = State { open: Arc::default(), syncing: false, folder: Some(folder), broken: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The folder in force.
    pub(crate) fn folder(&self) -> Result<Arc<Folder>, QueueError> {
        let state = self.lock();
        match (&state.broken, &state.folder) {
            (Some(why), _) => Err(QueueError::Broken(why.clone())),
            (None, Some(folder)) => Ok(Arc::clone(folder)),
            (None, None) => Err(QueueError::Broken("it is being opened".into())),
        }
    }

    /// From now on everything is refused.
    pub(crate) fn break_off(&self, why: &QueueError) {
        self.lock().broken.get_or_insert_with(|| why.to_string());
    }

    pub(crate) fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Joins the open batch; what the caller wrote before is covered by its sync.
    pub(crate) fn join(&self) -> Arc<Batch> {
        Arc::clone(&self.lock().open)
    }

    /// Waits until `batch` is on the device, leading its sync if nobody else does.
    pub(crate) fn wait(&self, batch: &Arc<Batch>) -> Result<(), QueueError> {
        loop {
            let mut state = self.lock();
            while batch.0.get().is_none() && state.syncing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if let Some(answer) = batch.0.get() {
                return answer.clone().map_err(QueueError::Broken);
            }
            let lead = self.lead_locked(state);
            let answer = self.folder().and_then(|folder| folder.sync());
            lead.finish(answer.as_ref().err());
        }
    }

    /// Waits for a running sync to end and keeps others from starting.
    pub(crate) fn lead(&self) -> Lead<'_> {
        let mut state = self.lock();
        while state.syncing {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.lead_locked(state)
    }

    fn lead_locked(&self, mut state: MutexGuard<'_, State>) -> Lead<'_> {
        state.syncing = true;
        let batch = std::mem::take(&mut state.open);
        Lead { commit: self, batch, finished: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // nothing between lock and unlock can leave the state half changed
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead<'_> {
    /// Answers everyone in the batch; an error breaks the queue.
    pub(crate) fn finish(mut self, error: Option<&QueueError>) {
        self.settle(error.map(|error| match error {
            QueueError::Broken(why) => why.clone(),
            other => other.to_string(),
        }));
    }

    /// Takes the folder away, so that it is closed once the caller drops it. Everyone who waits is refused.
    pub(crate) fn close(&self, why: &str) -> Option<Arc<Folder>> {
        let mut state = self.commit.lock();
        state.broken.get_or_insert_with(|| why.to_owned());
        state.folder.take()
    }

    /// Puts `folder` in force. Those who joined under the old one keep the answer `covered`.
    pub(crate) fn replace(mut self, folder: Arc<Folder>, covered: Result<(), String>) {
        {
            let mut state = self.commit.lock();
            state.folder = Some(folder);
            state.broken = None;
            // joined while this lead went on: impossible for writers, who need the queue's lock, which the caller holds
            self.batch.0.get_or_init(|| covered);
        }
        self.finished = true;
        self.end();
    }

    fn settle(&mut self, error: Option<String>) {
        {
            let mut state = self.commit.lock();
            if let Some(why) = &error {
                state.broken.get_or_insert_with(|| why.clone());
            }
            self.batch.0.get_or_init(|| error.map_or(Ok(()), Err));
        }
        self.finished = true;
        self.end();
    }

    fn end(&self) {
        self.commit.lock().syncing = false;
        self.commit.changed.notify_all();
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // a panic in sled, or an early return: what was joined is not known to be durable
        if !self.finished {
            self.settle(Some("a sync did not come to its end".into()));
        }
    }
}

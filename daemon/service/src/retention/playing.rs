//! Which recordings are being read by somebody, and are not taken away meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// The recordings that are being played or exported, each with by how many.
#[derive(Debug, Default)]
pub(crate) struct Playing(Mutex<HashMap<Uuid, u32>>);

impl Playing {
    /// Somebody reads it until the answer is dropped.
    pub(crate) fn begin(&self, id: Uuid) -> BeingPlayed<'_> {
        *self.locked().entry(id).or_default() += 1;
        BeingPlayed { playing: self, id }
    }

    /// Whether somebody reads it.
    pub(crate) fn is(&self, id: Uuid) -> bool {
        self.locked().contains_key(&id)
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Uuid, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That somebody reads a recording.
#[derive(Debug)]
pub(crate) struct BeingPlayed<'a> {
    playing: &'a Playing,
    id: Uuid,
}

impl Drop for BeingPlayed<'_> {
    fn drop(&mut self) {
        let mut playing = self.playing.locked();
        if let Some(count) = playing.get_mut(&self.id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                playing.remove(&self.id);
            }
        }
    }
}

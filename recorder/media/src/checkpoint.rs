//! What a track needs to be gone on with in another process.

use serde::{Deserialize, Serialize};

use crate::source::Source;
use crate::track::{Change, Track};
use crate::{Counts, MediaError, PayloadType, TrackConfig};

/// The state of a [`Track`]: what it follows, how far it is, what it has counted.
///
/// Packets that the track held (see [`Received::Held`](crate::Received::Held)) are not in it, since their payloads are what somebody
/// said: they count as foreign or stray, as they would had they been decided against. Its form belongs to this version: who stores it
/// writes a version beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrackCheckpoint {
    payload_types: Vec<PayloadType>,
    followed: Option<Source>,
    previous: Option<Source>,
    change: Change,
    interrupted: bool,
    counts: Counts,
    gap_ns: u64,
}

impl TrackCheckpoint {
    /// The counts as of the moment it was taken.
    pub fn counts(&self) -> Counts {
        // A checkpoint that was changed by somebody may have sums beyond what a number holds; nothing is decided by these.
        let (mut counts, mut gap_ns) = (self.counts, self.gap_ns);
        for source in self.previous.iter().chain(&self.followed) {
            counts.lost = counts.lost.saturating_add(source.lost);
            gap_ns = gap_ns.saturating_add(source.gap_ns);
        }
        counts.gaps_ms = gap_ns / 1_000_000;
        counts
    }
}

impl Track {
    /// Everything that the next process needs to go on.
    pub fn checkpoint(&self) -> TrackCheckpoint {
        let mut counts = self.counts;
        counts.foreign += self.rival.as_ref().map_or(0, |rival| rival.packets.len() as u64);
        counts.strays += u64::from(self.stray.is_some());
        TrackCheckpoint {
            payload_types: self.payload_types.clone(),
            followed: self.followed.clone(),
            previous: self.previous.clone(),
            change: self.change,
            interrupted: self.interrupted,
            counts,
            gap_ns: self.gap_ns,
        }
    }

    /// Goes on from a checkpoint: what has not come since is lost by sequence number, as if it had been lost on its way.
    ///
    /// # Errors
    /// [`MediaError::CheckpointInvalid`], for what cannot have been a track's state.
    pub fn resume(config: TrackConfig, checkpoint: TrackCheckpoint) -> Result<Self, MediaError> {
        let TrackCheckpoint { payload_types, followed, previous, change, interrupted, counts, gap_ns } = checkpoint;
        let plausible = counts.is_plausible()
            && gap_ns <= COUNT_MAX
            && followed.iter().chain(&previous).all(Source::is_plausible)
            && (previous.is_none() || followed.is_some());
        if !plausible {
            return Err(MediaError::CheckpointInvalid);
        }
        let mut track = Self::new(config);
        track.describe(&payload_types);
        (track.followed, track.previous) = (followed, previous);
        (track.change, track.interrupted) = (change, interrupted);
        (track.counts, track.gap_ns) = (counts, gap_ns);
        Ok(track)
    }
}

/// No count of a track comes near this, and sums of some of them stay far from what a number holds.
pub(crate) const COUNT_MAX: u64 = u64::MAX >> 8;

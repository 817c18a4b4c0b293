//! What the media changes: the state of a recording's lane and of the reception of its tracks.

use callvault_journal::{EarlierKey, FramePlace};
use callvault_media::TrackCheckpoint;
use callvault_seal::SealedKey;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::clock::Emptied;

use super::form::{FormError, Kind, Seal};

/// Parts of a recording whose keys are not in the journal that are remembered; who is asked for a verdict so often and does not answer will
/// not.
pub(crate) const EARLIER_MAX: usize = 256;

/// Tracks of a session at most: what a track's number can be.
const TRACKS_MAX: usize = 256;

/// As long as a track's state is, mostly: so much is set aside for it, or writing it would move it about several times, and leave copies of
/// its keys behind.
const STATE_BYTES: usize = 768;

/// What has become of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LaneState {
    /// Whether the recording is kept is not known, or its key is not in the journal yet.
    Undecided,
    /// Its key is in the journal.
    Kept,
    /// Its end is in the journal, in order or because it is not kept. Nothing is to be gone on with.
    Over,
}

/// See [the module](super).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LaneCheckpoint {
    pub(crate) generation: Uuid,
    pub(crate) lane: u32,
    pub(crate) segment: u16,
    pub(crate) state: LaneState,
    /// The last frame of the lane that this speaks of.
    pub(crate) place: FramePlace,
    /// The number of the last fact of the signalling in it.
    pub(crate) facts: u64,
    /// Sealed keys that are not in the journal, this lane's own among them. Without a verdict they are nowhere else.
    pub(crate) keys: Vec<EarlierKey>,
    /// How the tracks stand, as [`MediaCheckpoint`]; empty as long as no packet came.
    pub(crate) media: MediaState,
}

/// [`MediaCheckpoint`] on its way between threads and into a file: made where the tracks are, read where they go on.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct MediaState(pub(crate) Zeroizing<Vec<u8>>);

impl MediaState {
    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for MediaState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MediaState({} bytes)", self.0.len())
    }
}

/// How the tracks of a session stand.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct MediaCheckpoint {
    pub(crate) tracks: Vec<TrackState>,
}

/// How one track stands.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TrackState {
    pub(crate) number: u8,
    pub(crate) reception: TrackCheckpoint,
    /// What opens its packets. None where it is not secured, or where keys may not be stored.
    pub(crate) unprotector: Option<callvault_srtp::Checkpoint>,
    /// What secures the reports to its sender.
    pub(crate) protector: Option<callvault_srtp::SendingCheckpoint>,
    pub(crate) replayed: u64,
    pub(crate) undecipherable: u64,
    /// Whether what arrives is kept, and since when that is so.
    pub(crate) gate: (bool, u64),
    pub(crate) emptied: [Emptied; 2],
}

/// What a lane goes on from.
#[derive(Debug, Clone)]
pub(crate) struct Continued {
    /// Which part of the recording begins.
    pub(crate) segment: u16,
    /// The verdict has fallen: the keys may be written at once.
    pub(crate) kept: bool,
    /// Sealed keys of earlier parts that are not in the journal.
    pub(crate) earlier: Vec<EarlierKey>,
    /// The number of the last fact in the parts before.
    pub(crate) facts: u64,
    /// How the tracks stand.
    pub(crate) media: MediaState,
    /// The sequence of the next checkpoint of the lane.
    pub(crate) sequence: u64,
}

impl MediaCheckpoint {
    pub(crate) fn to_state(&self) -> MediaState {
        // Writing to memory does not fail; should it, there is no checkpoint, which is safe.
        let room = Vec::with_capacity(STATE_BYTES * self.tracks.len());
        MediaState(Zeroizing::new(postcard::to_extend(self, room).unwrap_or_default()))
    }

    /// None where nothing is known.
    pub(crate) fn from_state(state: &MediaState) -> Option<Self> {
        if state.0.is_empty() {
            return None;
        }
        postcard::from_bytes(&state.0).ok().filter(|media: &Self| media.tracks.len() <= TRACKS_MAX)
    }
}

/// What is stored.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    generation: Uuid,
    lane: u32,
    segment: u16,
    state: LaneState,
    place: FramePlace,
    facts: u64,
    keys: Vec<StoredKey>,
    media: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    generation: Uuid,
    lane: u32,
    sealed: Vec<Vec<u8>>,
}

impl LaneCheckpoint {
    /// The bytes of a slot.
    pub(super) fn pack(&self, seal: &Seal, sequence: u64) -> Option<Vec<u8>> {
        let stored_key = |key: &EarlierKey| StoredKey {
            generation: key.generation,
            lane: key.lane,
            sealed: key.keys.iter().map(|sealed| sealed.to_bytes().to_vec()).collect(),
        };
        let stored = Stored {
            generation: self.generation,
            lane: self.lane,
            segment: self.segment,
            state: self.state,
            place: self.place,
            facts: self.facts,
            keys: self.keys.iter().map(stored_key).collect(),
            media: &self.media.0,
        };
        // The same for what is around it.
        let room = Vec::with_capacity(self.media.0.len() + STATE_BYTES);
        let content = Zeroizing::new(postcard::to_extend(&stored, room).ok()?);
        seal.pack(Kind::Lane, sequence, &content)
    }

    /// Reads the bytes of a slot.
    pub(super) fn unpack(seal: &Seal, bytes: &[u8]) -> Result<(u64, Self), FormError> {
        let (sequence, content) = seal.unpack(Kind::Lane, bytes)?;
        let stored: Stored<'_> = postcard::from_bytes(&content).map_err(|_| FormError::Content("its fields"))?;
        if stored.keys.len() > EARLIER_MAX {
            return Err(FormError::Content("more keys than parts"));
        }
        let mut keys = Vec::with_capacity(stored.keys.len());
        for StoredKey { generation, lane, sealed } in stored.keys {
            let sealed: Result<Vec<_>, _> = sealed.iter().map(|bytes| SealedKey::from_bytes(bytes)).collect();
            keys.push(EarlierKey { generation, lane, keys: sealed.map_err(|_| FormError::Content("a sealed key"))? });
        }
        let Stored { generation, lane, segment, state, place, facts, media, .. } = stored;
        let media = MediaState(Zeroizing::new(media.to_vec()));
        Ok((sequence, Self { generation, lane, segment, state, place, facts, keys, media }))
    }
}

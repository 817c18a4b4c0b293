//! The folder of the checkpoints: which files there are and what is in them, and nothing of when or why.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use callvault_control::CheckpointKey;
use callvault_journal::{Seekable, file_name};
use uuid::Uuid;

use super::files::{Files, Folder, OpenFile};
use super::form::{FormError, HEAD_BYTES, Seal, bytes_behind};
use super::lane::LaneCheckpoint;
use super::session::{EndedCheckpoint, SessionCheckpoint};

/// Room for one slot of a lane's file. Slots are sparse: only what is written takes memory. A usual one has 2 KiB; this is enough for
/// every source that a secured session can have.
const SLOT_BYTES: u64 = 1 << 20;

/// Longest session file that is read: every body that a session may be told and that is not yet in the journal.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Files set aside that are kept for who wants to know why; beyond it they are removed.
const REFUSED_MAX: usize = 64;

const SESSION: &str = "session";
const ENDED: &str = "ended";
const LANE: &str = "lane";
const NEW: &str = "new";
const REFUSED: &str = "refused";

/// The folder. Its clones are the same.
#[derive(Clone)]
pub(crate) struct Checkpoints(Arc<Inner>);

struct Inner {
    files: Box<dyn Files>,
    boot: Uuid,
    seal: Seal,
    failures: AtomicU64,
}

/// Why there are no checkpoints.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("keep checkpoints of calls: {0}")]
    Io(#[from] io::Error),
    #[error(
        "keep checkpoints of calls: runtime_dir is on a disk, and what they tell must be gone when the machine is off; put it on tmpfs"
    )]
    OnDisk,
}

/// The file of one lane, open to be written to.
pub(crate) struct LaneFile {
    checkpoints: Checkpoints,
    file: Box<dyn OpenFile>,
    sequence: u64,
}

/// What was found of the lane of a recording.
#[derive(Debug, Default)]
pub(crate) struct FoundLane {
    /// The newest checkpoint of which all is in the journal.
    pub(crate) lane: Option<LaneCheckpoint>,
    /// The sequence with which its file goes on.
    pub(crate) sequence: u64,
}

/// Everything that the recorder before left and that can be gone on with.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) sessions: Vec<SessionCheckpoint>,
    pub(crate) ended: Vec<EndedCheckpoint>,
    /// What cannot be gone on with, and was set aside.
    pub(crate) refused: Vec<(Uuid, FormError)>,
}

impl Checkpoints {
    /// Makes the folder, for this user alone. What is put into it is sealed under `key`.
    ///
    /// # Errors
    /// [`OpenError::OnDisk`], where it is not in memory: what they tell of a call must not stay when the machine is off.
    pub(crate) fn open(folder: &Path, boot: Uuid, key: &CheckpointKey) -> Result<Self, OpenError> {
        Ok(Self::open_in(Box::new(Folder::make(folder)?), boot, key))
    }

    /// The same, wherever the files are.
    pub(crate) fn open_in(files: Box<dyn Files>, boot: Uuid, key: &CheckpointKey) -> Self {
        let seal = Seal::new(key, &mut rand::rng());
        Self(Arc::new(Inner { files, boot, seal, failures: AtomicU64::new(0) }))
    }

    /// Names the time since the machine was started.
    pub(crate) fn boot(&self) -> Uuid {
        self.0.boot
    }

    /// Notes a failure; says whether it is the first in a row, which is what somebody should hear of.
    pub(crate) fn failed(&self) -> bool {
        self.0.failures.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Writing works again.
    pub(crate) fn worked(&self) {
        self.0.failures.store(0, Ordering::Relaxed);
    }

    /// Replaces what is stored of a session.
    pub(crate) fn save_session(&self, session: &SessionCheckpoint) -> io::Result<()> {
        let bytes = session.pack(&self.0.seal).ok_or(io::ErrorKind::InvalidData)?;
        self.replace(session.name(), SESSION, &bytes)
    }

    /// Stores that a recording has ended.
    pub(crate) fn save_ended(&self, ended: &EndedCheckpoint) -> io::Result<()> {
        let bytes = ended.pack(&self.0.seal).ok_or(io::ErrorKind::InvalidData)?;
        self.replace(ended.recording.recording, ENDED, &bytes)
    }

    fn replace(&self, name: Uuid, ending: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.files.replace(&file(name, ending), &file(name, NEW), bytes)
    }

    /// The file of a lane that begins, or goes on with this sequence.
    pub(crate) fn lane(&self, recording: Uuid, sequence: u64) -> io::Result<LaneFile> {
        let file = self.0.files.open(&file(recording, LANE))?;
        Ok(LaneFile { checkpoints: self.clone(), file, sequence })
    }

    /// Forgets a session: it is over.
    pub(crate) fn remove_session(&self, name: Uuid) {
        let _ = self.0.files.remove(&file(name, SESSION));
    }

    /// Forgets a recording: its end is durable.
    pub(crate) fn remove_recording(&self, recording: Uuid) {
        // The lane first: by itself it is nothing, and is removed by who finds it.
        for ending in [LANE, ENDED] {
            let _ = self.0.files.remove(&file(recording, ending));
        }
    }

    /// Reads everything that is there. What cannot be gone on with is set aside.
    pub(crate) fn load(&self) -> io::Result<Found> {
        let mut found = Found::default();
        let mut lanes = Vec::new();
        for name in self.0.files.names()? {
            let Some((text, ending)) = name.rsplit_once('.') else { continue };
            let Ok(name) = Uuid::try_parse(text) else { continue };
            let result = match ending {
                SESSION => self.read(name, SESSION).and_then(|bytes| {
                    found.sessions.push(SessionCheckpoint::unpack(&self.0.seal, &bytes, self.0.boot)?);
                    Ok(())
                }),
                ENDED => self.read(name, ENDED).and_then(|bytes| {
                    found.ended.push(EndedCheckpoint::unpack(&self.0.seal, &bytes, self.0.boot)?);
                    Ok(())
                }),
                LANE => {
                    lanes.push(name);
                    Ok(())
                }
                // A replacement that was not finished.
                NEW => {
                    let _ = self.0.files.remove(&file(name, NEW));
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(error) = result {
                self.set_aside(name, ending);
                found.refused.push((name, error));
            }
        }
        // In the order in which they began, so that what is done first is the same each time.
        found.sessions.sort_by_key(SessionCheckpoint::name);
        found.ended.sort_by_key(|ended| ended.recording.recording);
        let living = found.sessions.iter().map(|session| session.recording.recording);
        let known: BTreeSet<Uuid> = living.chain(found.ended.iter().map(|ended| ended.recording.recording)).collect();
        lanes.into_iter().filter(|lane| !known.contains(lane)).for_each(|lane| self.remove_recording(lane));
        Ok(found)
    }

    fn read(&self, name: Uuid, ending: &str) -> Result<Vec<u8>, FormError> {
        self.0.files.read(&file(name, ending), FILE_BYTES_MAX).map_err(|_| FormError::Damaged)
    }

    /// Keeps a session for who wants to know why it cannot be gone on with.
    pub(crate) fn set_aside_session(&self, name: Uuid) {
        self.set_aside(name, SESSION);
    }

    fn set_aside(&self, name: Uuid, ending: &str) {
        let names = self.0.files.names().unwrap_or_default();
        let is_refused = |name: &&String| name.rsplit_once('.').is_some_and(|(_, ending)| ending == REFUSED);
        let name_now = file(name, ending);
        // Where neither can be done it is found again by the next, as by this one.
        let _ = if names.iter().filter(is_refused).count() >= REFUSED_MAX {
            self.0.files.remove(&name_now)
        } else {
            self.0.files.rename(&name_now, &file(name, REFUSED))
        };
    }

    /// What is known of the lane of a recording. `journal` is the journal's folder, where it is looked up what was written.
    pub(crate) fn find_lane(&self, recording: Uuid, journal: &Path) -> FoundLane {
        self.find_lane_by(recording, |lane| is_written(lane, journal))
    }

    /// The same, wherever the journal is: `is_written` says whether all that a slot speaks of is there.
    pub(crate) fn find_lane_by(&self, recording: Uuid, is_written: impl Fn(&LaneCheckpoint) -> bool) -> FoundLane {
        let slots = self.slots(recording).unwrap_or_default();
        let newest = slots.iter().map(|(sequence, _)| *sequence).max();
        let believed = slots.into_iter().find(|(_, lane)| is_written(lane));
        let next = newest.map_or(0, |newest| newest.saturating_add(1));
        // The slot that is believed is not the next to be written to.
        let collides = believed.as_ref().is_some_and(|(sequence, _)| sequence % 2 == next % 2);
        let sequence = if collides { next.saturating_add(1) } else { next };
        FoundLane { lane: believed.map(|(_, lane)| lane), sequence }
    }

    /// The slots of a lane that can be read, the newest first.
    fn slots(&self, recording: Uuid) -> io::Result<Vec<(u64, LaneCheckpoint)>> {
        let name = file(recording, LANE);
        let mut slots = Vec::new();
        for slot in 0..2 {
            let mut head = [0; HEAD_BYTES];
            match self.0.files.read_at(&name, &mut head, slot * SLOT_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                Err(_) => continue,
                Ok(()) => {}
            }
            let length = HEAD_BYTES.saturating_add(bytes_behind(&head)).min(SLOT_BYTES as usize);
            let mut bytes = vec![0; length];
            if self.0.files.read_at(&name, &mut bytes, slot * SLOT_BYTES).is_ok() {
                slots.extend(LaneCheckpoint::unpack(&self.0.seal, &bytes).ok());
            }
        }
        slots.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        Ok(slots)
    }
}

fn file(name: Uuid, ending: &str) -> String {
    format!("{name}.{ending}")
}

/// Whether all that a slot speaks of is in the journal.
fn is_written(lane: &LaneCheckpoint, journal: &Path) -> bool {
    let place = lane.place;
    File::open(journal.join(file_name(lane.generation, place.file_seq)))
        .is_ok_and(|file| place.is_written(lane.generation, &mut Seekable(file)).unwrap_or(false))
}

impl LaneFile {
    /// Writes the next slot.
    pub(crate) fn save(&mut self, lane: &LaneCheckpoint) -> io::Result<()> {
        let bytes = lane.pack(&self.checkpoints.0.seal, self.sequence).ok_or(io::ErrorKind::InvalidData)?;
        if bytes.len() as u64 > SLOT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_at(&bytes, (self.sequence % 2) * SLOT_BYTES)?;
        self.sequence = self.sequence.saturating_add(1);
        Ok(())
    }

    /// What the last slot speaks of was not written: the next one takes its place, and the one before stays.
    pub(crate) fn take_back(&mut self) {
        self.sequence = self.sequence.saturating_sub(1);
    }
}

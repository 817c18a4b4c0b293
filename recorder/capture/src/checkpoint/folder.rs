//! The folder of the checkpoints: the system calls, and nothing of when or why.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use callvault_journal::{Seekable, file_name};
use nix::sys::statfs::{RAMFS_MAGIC, TMPFS_MAGIC, statfs};
use uuid::Uuid;

use super::form::{FormError, HEAD_BYTES, content_bytes};
use super::lane::{LaneCheckpoint, LaneState};
use super::session::SessionCheckpoint;

/// Room for one slot of a lane's file. Slots are sparse: only what is written takes memory. A usual one has 2 KiB; this is enough for
/// every source that a secured session can have.
const SLOT_BYTES: u64 = 1 << 20;

/// Longest session file that is read: every body that a session may be told and that is not yet in the journal.
const SESSION_BYTES_MAX: u64 = 16 << 20;

/// Files set aside that are kept for who wants to know why; beyond it they are removed.
const REFUSED_MAX: usize = 64;

const SESSION: &str = "session";
const LANE: &str = "lane";
const REFUSED: &str = "refused";

/// The folder. Its clones are the same.
#[derive(Clone)]
pub(crate) struct Checkpoints(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    boot: Uuid,
    in_memory: bool,
    failures: AtomicU64,
}

/// The file of one lane, open to be written to.
pub(crate) struct LaneFile {
    file: File,
    sequence: u64,
}

/// What was found of one recording.
pub(crate) struct Found {
    pub(crate) session: SessionCheckpoint,
    /// Its lane, where something is known of it.
    pub(crate) lane: Option<LaneCheckpoint>,
    /// The sequence with which its lane's file goes on.
    pub(crate) sequence: u64,
}

impl Checkpoints {
    /// Makes the folder, for this user alone. Where it is not in memory, no keys are stored in it.
    pub(crate) fn open(folder: &Path, boot: Uuid) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let kind = statfs(folder)?.filesystem_type();
        let in_memory = kind == TMPFS_MAGIC || kind == RAMFS_MAGIC;
        Ok(Self(Arc::new(Inner { folder: folder.to_owned(), boot, in_memory, failures: AtomicU64::new(0) })))
    }

    /// Whether the folder is in memory.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.0.in_memory
    }

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

    fn path(&self, recording: Uuid, ending: &str) -> PathBuf {
        self.0.folder.join(format!("{recording}.{ending}"))
    }

    /// Replaces what is stored of a session. Where keys may not be stored, a session that has some is not.
    pub(crate) fn save(&self, session: &SessionCheckpoint) -> io::Result<()> {
        if session.holds_keys() && !self.0.in_memory {
            return Ok(());
        }
        let bytes = session.pack().ok_or(io::ErrorKind::InvalidData)?;
        let path = self.path(session.recording, SESSION);
        let temporary = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        fs::rename(&temporary, &path)
    }

    /// The file of a lane that begins, or goes on with this sequence.
    pub(crate) fn lane(&self, recording: Uuid, sequence: u64) -> io::Result<LaneFile> {
        let path = self.path(recording, LANE);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(LaneFile { file, sequence })
    }

    /// Forgets a recording: its end is durable.
    pub(crate) fn remove(&self, recording: Uuid) {
        // The session last: a lane's file without it is nothing, and is removed by who finds it.
        for ending in [LANE, SESSION] {
            let _ = fs::remove_file(self.path(recording, ending));
        }
    }

    /// Everything that the recorder before left and that can be gone on with. `journal` is the journal's folder, in which it is
    /// looked up what was written. What cannot be gone on with is set aside, and `refused` is told why.
    pub(crate) fn load(&self, journal: &Path, mut refused: impl FnMut(Uuid, &FormError)) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut lanes = Vec::new();
        for entry in fs::read_dir(&self.0.folder)? {
            let name = entry?.file_name();
            let Some((recording, ending)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            let Ok(recording) = Uuid::try_parse(recording) else { continue };
            match ending {
                SESSION => match self.read(recording) {
                    Ok(session) if session.recording == recording => found.push(session),
                    Ok(_) => self.refuse(recording, &FormError::Content("another recording"), &mut refused),
                    Err(error) => self.refuse(recording, &error, &mut refused),
                },
                LANE => lanes.push(recording),
                // A replacement that was not finished.
                "new" => drop(fs::remove_file(self.0.folder.join(&name))),
                _ => {}
            }
        }
        let known: Vec<Uuid> = found.iter().map(|session| session.recording).collect();
        lanes.into_iter().filter(|lane| !known.contains(lane)).for_each(|lane| self.remove(lane));
        let mut complete: Vec<Found> =
            found.into_iter().map(|session| self.with_lane(session, journal)).collect();
        // In the order in which they began, so that what is done first is the same each time.
        complete.sort_by_key(|found| found.session.recording);
        Ok(complete)
    }

    fn read(&self, recording: Uuid) -> Result<SessionCheckpoint, FormError> {
        let file = File::open(self.path(recording, SESSION)).map_err(|_| FormError::Damaged)?;
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        file.take(SESSION_BYTES_MAX).read_to_end(&mut bytes).map_err(|_| FormError::Damaged)?;
        SessionCheckpoint::unpack(&bytes, self.0.boot)
    }

    /// Puts a session aside that cannot be gone on with.
    pub(crate) fn refuse(&self, recording: Uuid, why: &FormError, refused: &mut impl FnMut(Uuid, &FormError)) {
        refused(recording, why);
        let aside = |path: &PathBuf| path.extension().is_some_and(|ending| ending == REFUSED);
        let files = fs::read_dir(&self.0.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let path = self.path(recording, SESSION);
        if files.filter(aside).count() >= REFUSED_MAX {
            let _ = fs::remove_file(&path);
        } else {
            let _ = fs::rename(&path, self.path(recording, REFUSED));
        }
        let _ = fs::remove_file(self.path(recording, LANE));
    }

    fn with_lane(&self, session: SessionCheckpoint, journal: &Path) -> Found {
        let slots = self.slots(session.recording).unwrap_or_default();
        let newest = slots.iter().map(|(sequence, _)| *sequence).max();
        let believed = slots.into_iter().find(|(_, lane)| is_written(lane, journal));
        let next = newest.map_or(0, |newest| newest.saturating_add(1));
        // The slot that is believed is not the next to be written to.
        let collides = believed.as_ref().is_some_and(|(sequence, _)| sequence % 2 == next % 2);
        let sequence = if collides { next.saturating_add(1) } else { next };
        Found { session, lane: believed.map(|(_, lane)| lane), sequence }
    }

    /// The slots of a lane that can be read, the newest first.
    fn slots(&self, recording: Uuid) -> io::Result<Vec<(u64, LaneCheckpoint)>> {
        let file = File::open(self.path(recording, LANE))?;
        let mut slots = Vec::new();
        for slot in 0..2 {
            let mut head = [0; HEAD_BYTES];
            if file.read_exact_at(&mut head, slot * SLOT_BYTES).is_err() {
                continue;
            }
            let length = (HEAD_BYTES as u64).saturating_add(content_bytes(&head).into()).min(SLOT_BYTES);
            let mut bytes = zeroize::Zeroizing::new(vec![0; length as usize]);
            if file.read_exact_at(&mut bytes, slot * SLOT_BYTES).is_err() {
                continue;
            }
            slots.extend(LaneCheckpoint::unpack(&bytes).ok());
        }
        slots.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        Ok(slots)
    }
}

/// Whether all that a slot speaks of is in the journal.
fn is_written(lane: &LaneCheckpoint, journal: &Path) -> bool {
    let Some(place) = lane.place else { return true };
    File::open(journal.join(file_name(lane.generation, place.file_seq)))
        .is_ok_and(|file| place.is_written(lane.generation, &mut Seekable(file)).unwrap_or(false))
}

impl LaneFile {
    /// Writes the next slot.
    pub(crate) fn save(&mut self, lane: &LaneCheckpoint) -> io::Result<()> {
        let bytes = lane.pack(self.sequence).ok_or(io::ErrorKind::InvalidData)?;
        if bytes.len() as u64 > SLOT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all_at(&bytes, (self.sequence % 2) * SLOT_BYTES)?;
        self.sequence = self.sequence.saturating_add(1);
        Ok(())
    }
}

impl LaneCheckpoint {
    /// Whether there is nothing to go on with.
    pub(crate) fn is_over(&self) -> bool {
        self.state == LaneState::Over
    }
}

//! The journal's disk as the recorder sees it, and a witness of every byte that is written: it knows nothing of the journal but its
//! frame headers, and says at once when a promise is broken.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use callvault_capture::simulated::{JournalFile, JournalFolder, Life, Step};
use callvault_journal::{FILE_HEADER_BYTES, FRAME_HEADER_BYTES, parse_file_name};
use uuid::Uuid;

use crate::bug::Bug;
use crate::device::{Device, Heard, Inode};
use crate::outside::is_traced;

const KIND_LANE_OPEN: u8 = 1;
const KIND_KEY: u8 = 2;
const KIND_LANE_END: u8 = 5;
const KIND_COMMIT: u8 = 6;
const KIND_FILE_END: u8 = 7;
const KIND_EARLIER_KEY: u8 = 8;

/// Where a frame is.
#[derive(Clone, Copy)]
struct Place {
    inode: Inode,
    offset: usize,
    length: usize,
    /// Whether it is a lane's.
    is_of_lane: bool,
}

/// What was written, as the frame headers say.
#[derive(Default)]
pub(crate) struct Witness {
    /// A hash of every frame, by generation and sequence.
    frames: HashMap<(Uuid, u64), u64>,
    /// Where the frames are that no commit has promised yet.
    unpromised: BTreeMap<(Uuid, u64), Vec<Place>>,
    /// Where a recording's lane was ended.
    ends: HashMap<Uuid, Vec<Place>>,
    /// Where a recording's lane was opened.
    opens: BTreeMap<Uuid, Vec<Place>>,
    /// Which lane is which part of a recording.
    parts: BTreeMap<(Uuid, u16), (Uuid, u32)>,
    /// Recordings whose key was written.
    keys: BTreeSet<Uuid>,
    /// Whether the last frame of a file says that another follows; and the file's length.
    lasts: HashMap<(Uuid, u32), (bool, Inode, usize)>,
    /// Generations of which a write got only a part of the way.
    torn: BTreeSet<Uuid>,
    /// What is wrong.
    wrong: Option<String>,
}

impl Witness {
    fn say(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    fn written(&mut self, device: &Device, file: (Uuid, u32), inode: Inode, bytes: &[u8], offset: usize) {
        let mut at = if offset == 0 { FILE_HEADER_BYTES } else { 0 };
        while let Some(header) = bytes.get(at..at + FRAME_HEADER_BYTES) {
            let number =
                |from: usize| u32::from_le_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]]);
            let body = number(8) as usize;
            let length = FRAME_HEADER_BYTES + body.next_multiple_of(16);
            let seq = u64::from(number(16)) | u64::from(number(20)) << 32;
            let Some(frame) = bytes.get(at..at + length) else { break };
            let place = Place { inode, offset: offset + at, length, is_of_lane: number(12) != 0 };
            self.frame(device, file, seq, frame, place);
            at += length;
        }
    }

    fn frame(&mut self, device: &Device, file: (Uuid, u32), seq: u64, frame: &[u8], place: Place) {
        let (kind, body) = (frame[4], &frame[FRAME_HEADER_BYTES..]);
        let mut hasher = DefaultHasher::new();
        frame.hash(&mut hasher);
        let hash = hasher.finish();
        if *self.frames.entry((file.0, seq)).or_insert(hash) != hash {
            self.say(format!("sequence {seq} of generation {} is used for two frames", file.0));
        }
        let recording = || body.first_chunk::<16>().map(|bytes| Uuid::from_bytes(*bytes)).unwrap_or_default();
        self.unpromised.entry((file.0, seq)).or_default().push(place);
        // An end of the generation promises no successor, and one that was written again, after its file had failed, is not this file's.
        let next = file.1.wrapping_add(1).to_le_bytes();
        let ends_file = kind == KIND_FILE_END && body.first_chunk::<4>() == Some(&next);
        self.lasts.insert(file, (ends_file, place.inode, place.offset + place.length));
        match kind {
            KIND_LANE_OPEN => {
                self.opens.entry(recording()).or_default().push(place);
                let segment = body.get(16..18).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
                let lane = (file.0, u32::from_le_bytes([frame[12], frame[13], frame[14], frame[15]]));
                if *self.parts.entry((recording(), segment)).or_insert(lane) != lane {
                    self.say(format!("two lanes are part {segment} of recording {}", recording()));
                }
            }
            KIND_KEY | KIND_EARLIER_KEY => _ = self.keys.insert(recording()),
            KIND_LANE_END => self.ends.entry(recording()).or_default().push(place),
            KIND_COMMIT => {
                let promised = body.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                self.promised(device, file.0, promised);
            }
            _ => {}
        }
    }

    fn promised(&mut self, device: &Device, generation: Uuid, upto: u64) {
        let kept = self.unpromised.split_off(&(generation, upto.saturating_add(1)));
        let mut promised = std::mem::replace(&mut self.unpromised, kept);
        let mut earlier = promised.split_off(&(generation, 0));
        // What sorts before belongs to other generations.
        self.unpromised.append(&mut promised);
        std::mem::swap(&mut promised, &mut earlier);
        for ((_, seq), places) in promised {
            if !places.iter().any(|place| device.is_durable(place.inode, place.offset, place.length)) {
                return self.say(format!("a commit promises frame {seq}, which is not on the device"));
            }
        }
    }

    /// A file is removed: what was in it and nowhere else need not be anywhere any more. Where it was the copy of a lane's frame that
    /// another file has too, the other one must be good.
    pub(crate) fn removed(&mut self, inode: Inode) {
        self.unpromised.retain(|_, places| {
            let count = places.len();
            places.retain(|place| place.inode != inode);
            let is_gone = places.len() < count && !places.iter().any(|place| place.is_of_lane);
            !places.is_empty() && !is_gone
        });
    }

    fn successor(&mut self, device: &Device, generation: Uuid, file_seq: u32) {
        let Some(before) = file_seq.checked_sub(1) else { return };
        if let Some(&(true, inode, length)) = self.lasts.get(&(generation, before))
            && !device.is_durable(inode, 0, length)
        {
            self.say(format!("journal file {before} has a successor and is not durable to its end"));
        }
    }
}

/// The spool: the disk, its witness, and what goes wrong.
#[derive(Clone)]
pub(crate) struct Spool {
    pub(crate) device: Device,
    witness: Arc<Mutex<Witness>>,
    bug: Option<Bug>,
    syncs: Arc<AtomicU64>,
}

impl Spool {
    pub(crate) fn new(room: u64, bug: Option<Bug>) -> Self {
        let device = Device::new(room);
        if bug == Some(Bug::FolderNotSynced) {
            device.ignore_folder_syncs();
        }
        Self { device, witness: Arc::default(), bug, syncs: Arc::default() }
    }

    pub(crate) fn witness(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wrong(&self) -> Option<String> {
        self.witness().wrong.clone()
    }

    /// Whether a write of this generation got only a part of the way: then whole frames can be there that no checkpoint knows of.
    pub(crate) fn was_torn(&self, generation: Uuid) -> bool {
        self.witness().torn.contains(&generation)
    }

    /// Whether a recording's key was ever written.
    pub(crate) fn has_key(&self, recording: Uuid) -> bool {
        self.witness().keys.contains(&recording)
    }

    /// Whether the end of a recording is on the device.
    pub(crate) fn end_is_durable(&self, recording: Uuid) -> bool {
        let places = self.witness().ends.get(&recording).cloned().unwrap_or_default();
        places.iter().any(|place| self.device.is_durable(place.inode, place.offset, place.length))
    }

    /// Whether the opening of a recording's lane is there, on the device or in the cache only.
    pub(crate) fn open_is_there(&self, recording: Uuid, durable: bool) -> bool {
        let places = self.witness().opens.get(&recording).cloned().unwrap_or_default();
        places.iter().any(|place| !durable || self.device.is_durable(place.inode, place.offset, place.length))
    }

    /// The folder as one recorder sees it, as long as it lives.
    pub(crate) fn folder(&self, life: &Life) -> Box<dyn JournalFolder> {
        Box::new(Folder { spool: self.clone(), life: life.clone() })
    }
}

struct Folder {
    spool: Spool,
    life: Life,
}

struct OpenFile {
    spool: Spool,
    file: (Uuid, u32),
    inode: Inode,
    life: Life,
    ended: AtomicBool,
    heard: Heard,
}

impl JournalFolder for Folder {
    fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        if self.life.is_over() {
            return Err(Life::over());
        }
        let file = parse_file_name(name).ok_or(io::ErrorKind::InvalidInput)?;
        self.spool.witness().successor(&self.spool.device, file.0, file.1);
        // A generation that is used twice finds its files there: whoever makes this mistake writes over them.
        let truncate = self.spool.bug == Some(Bug::GenerationReused);
        let inode = self.spool.device.create(name, truncate)?;
        self.spool.device.sync_folder();
        Ok(Box::new(OpenFile {
            spool: self.spool.clone(),
            file,
            inode,
            life: self.life.clone(),
            ended: AtomicBool::new(false),
            heard: self.spool.device.heard(inode),
        }))
    }

    fn free_bytes(&self) -> u64 {
        self.spool.device.room()
    }
}

impl JournalFile for OpenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.life.step() {
            Step::Whole => {}
            Step::Half => {
                self.spool.witness().torn.insert(self.file.0);
                let _ = self.spool.device.write_at(self.inode, &bytes[..bytes.len() / 2], offset);
                return Err(Life::over());
            }
            Step::Not => return Err(Life::over()),
        }
        let written = self.spool.device.write_at(self.inode, bytes, offset);
        if is_traced() {
            println!("             write of {} bytes to file {}: {written:?}", bytes.len(), self.file.1);
        }
        if written.is_err() {
            self.spool.witness().torn.insert(self.file.0);
        }
        written?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.spool.witness().written(&self.spool.device, self.file, self.inode, bytes, offset);
        let last = self.spool.witness().lasts.get(&self.file).is_some_and(|last| last.0);
        self.ended.store(last, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.life.is_over() {
            return Err(Life::over());
        }
        let count = self.spool.syncs.fetch_add(1, Ordering::Relaxed);
        match self.spool.bug {
            Some(Bug::SyncPretended) if count % 7 == 6 => return Ok(()),
            Some(Bug::RotatedWithoutSync) if self.ended.load(Ordering::Relaxed) => return Ok(()),
            _ => {}
        }
        let first = self.spool.device.sync(self.inode, &self.heard);
        if is_traced() {
            println!("             sync of file {}: {first:?}", self.file.1);
        }
        if first.is_err() && self.spool.bug == Some(Bug::FailedSyncRetried) {
            return self.spool.device.sync(self.inode, &self.heard);
        }
        first
    }
}

//! The journal as the daemon sees it: which recordings are in it, where their frames are, which files are still needed.
//!
//! What is known is an index in memory, made by reading the files ([`crate::follow`]); nothing about the journal is kept anywhere
//! else, so after any crash the same reading gives the same index. A lane stays in the index, and the files that hold its frames
//! on the disk, until it is released: its recording is archived and verified, discarded, or deleted. A file is removed only
//! when it was read to its end and no lane in the index needs it: what was not understood is not thrown away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use callvault_journal::{
    EarlierKey, Finding, FindingKind, Frame, JournalFiles, LaneEnd, LaneEntry, LaneIndex, Pages, ReadAt, Report,
    file_name,
};
use callvault_policy::Anchor;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use uuid::Uuid;

use crate::files::sync_folder;
use crate::index_pages::IndexPages;

/// Files of one generation kept open for reading.
const OPEN_FILES_MAX: usize = 16;

/// Names one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneName {
    pub(crate) generation: Uuid,
    pub(crate) lane: u32,
}

/// A lane as it is now, to be read without holding anything up.
#[derive(Debug, Clone)]
pub(crate) struct LaneView {
    pub(crate) name: LaneName,
    pub(crate) entry: LaneEntry,
    /// Whether its generation is over and was read to its end, so that nothing more comes.
    pub(crate) over: bool,
    /// Damage of the journal that concerns it.
    pub(crate) findings: Vec<Finding>,
    /// Both clocks at one moment, as the header of its first file says.
    pub(crate) anchor: Option<Anchor>,
    /// Whether the recorder that writes it said, after a sync, that all of it is on the device. Of one that is dead nothing more will
    /// be said.
    pub(crate) durable: bool,
}

impl LaneView {
    /// Whether the session ended in order.
    pub(crate) fn ended(&self) -> bool {
        self.entry.end.is_some()
    }

    /// Whether all of it is in the index: nothing more comes.
    pub(crate) fn is_whole(&self) -> bool {
        self.ended() || self.over
    }

    /// Whether it was discarded: there is nothing that could be read.
    pub(crate) fn discarded(&self) -> bool {
        self.entry.end == Some(LaneEnd::Discarded)
    }
}

/// The files of one generation, opened as they are needed.
pub(crate) struct GenerationFiles {
    folder: PathBuf,
    generation: Uuid,
    open: BTreeMap<u32, OpenFile>,
}

/// A file of the journal.
struct OpenFile(File);

impl ReadAt for OpenFile {
    fn len(&mut self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    /// The kernel fetches them in any order, many at once.
    fn will_read(&mut self, offset: u64, len: usize) {
        if let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) {
            // Where it is not done, reading waits as it would have.
            let _ = posix_fadvise(&self.0, offset, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }
}

impl GenerationFiles {
    pub(crate) fn new(folder: &Path, generation: Uuid) -> Self {
        Self { folder: folder.to_owned(), generation, open: BTreeMap::new() }
    }
}

impl JournalFiles for GenerationFiles {
    fn file(&mut self, file_seq: u32) -> io::Result<&mut dyn ReadAt> {
        if !self.open.contains_key(&file_seq) {
            if self.open.len() >= OPEN_FILES_MAX {
                self.open.pop_first();
            }
            let file = File::open(self.folder.join(file_name(self.generation, file_seq)))?;
            self.open.insert(file_seq, OpenFile(file));
        }
        match self.open.get_mut(&file_seq) {
            Some(file) => Ok(file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// What must be known of a lane to decide what to do with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneState {
    pub(crate) recording: Option<Uuid>,
    pub(crate) ended: bool,
    pub(crate) over: bool,
    pub(crate) ingested: bool,
}

/// What a look at the files of a generation came to.
pub(crate) struct Looked {
    /// The files that are there.
    pub(crate) files: BTreeSet<u32>,
    /// The files up to this one were read as far as they go; none: not even the first.
    pub(crate) read_to: Option<u32>,
    /// All files were read and nothing more will be written.
    pub(crate) over: bool,
    /// What is wrong with it.
    pub(crate) report: Report,
    /// Both clocks, from the file headers.
    pub(crate) anchors: BTreeMap<u32, Anchor>,
    /// The last frame that is known to be on the device.
    pub(crate) durable_seq: u64,
    /// The files that have their end mark.
    pub(crate) ended: BTreeSet<u32>,
}

struct Generation {
    index: LaneIndex,
    /// Lanes that are in the catalogue.
    ingested: BTreeSet<u32>,
    /// Lanes that were let go; nothing that is said of them later counts.
    released: BTreeSet<u32>,
    files: BTreeSet<u32>,
    read_to: Option<u32>,
    over: bool,
    report: Option<Report>,
    anchors: BTreeMap<u32, Anchor>,
    durable_seq: u64,
    ended: BTreeSet<u32>,
}

impl Generation {
    fn new(index: LaneIndex) -> Self {
        Self {
            index,
            ingested: BTreeSet::new(),
            released: BTreeSet::new(),
            files: BTreeSet::new(),
            read_to: None,
            over: false,
            report: None,
            anchors: BTreeMap::new(),
            durable_seq: 0,
            ended: BTreeSet::new(),
        }
    }

    /// Whether all frames of a lane are on the device: a Commit says so, or its last file was closed in order and has a successor,
    /// which is made only when the file is durable to its end.
    fn is_durable(&self, entry: &LaneEntry) -> bool {
        let closed = entry.files().is_some_and(|files| {
            self.ended.contains(files.end()) && self.files.last().is_some_and(|last| last > files.end())
        });
        entry.last_seq <= self.durable_seq || closed
    }

    /// The number of the file below which no frame of this generation is, nor will be. A file without its end mark was given up: what
    /// was not known to be durable in it is written again in the next one, so the lanes that ended in it must not be forgotten
    /// before that one is gone.
    fn gone_below(&self, first_left: u32) -> u32 {
        if self.over && self.files.is_empty() {
            return first_left;
        }
        let mut below = first_left;
        while let Some(before) = below.checked_sub(1).filter(|before| !self.ended.contains(before)) {
            below = before;
        }
        below
    }

    /// The files that may go: read to the end, understood, needed by no lane, and not being written.
    fn unneeded(&self) -> Vec<u32> {
        let Some(read_to) = self.read_to else { return Vec::new() };
        let mut kept: BTreeSet<u32> = self.index.iter().filter_map(|(_, e)| e.files()).flatten().collect();
        let findings = self.report.iter().flat_map(|r| &r.findings);
        kept.extend(findings.filter(|f| f.kind == FindingKind::Foreign).map(|f| f.file_seq));
        if !self.over {
            kept.extend(self.files.last());
        }
        self.files.iter().copied().filter(|f| *f <= read_to && !kept.contains(f)).collect()
    }
}

/// Files were removed: of the lanes that end below `below_file` there is nothing left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) generation: Uuid,
    pub(crate) below_file: u32,
    pub(crate) files: usize,
}

/// The index of the journal's folder.
pub(crate) struct Journals {
    folder: PathBuf,
    pages: Arc<dyn Pages>,
    generations: BTreeMap<Uuid, Generation>,
    by_recording: HashMap<Uuid, BTreeSet<LaneName>>,
    /// Recordings that are being read: how many readers, and whether they are to be let go after the last of them.
    pinned: HashMap<Uuid, (usize, bool)>,
    /// Whether everything that was there at the start has been read.
    ready: bool,
}

impl Journals {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            pages: Arc::new(IndexPages::new(folder)),
            generations: BTreeMap::new(),
            by_recording: HashMap::new(),
            pinned: HashMap::new(),
            ready: false,
        }
    }

    /// Whether the journal was read through once, so that what is not in the index is not in the journal.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Everything that was there was read.
    pub(crate) fn set_ready(&mut self) {
        self.ready = true;
    }

    fn generation(&mut self, id: Uuid) -> &mut Generation {
        let index = || LaneIndex::with_pages(Arc::clone(&self.pages));
        self.generations.entry(id).or_insert_with(|| Generation::new(index()))
    }

    /// Adds a frame that was read; returns the lane that it tells something of.
    pub(crate) fn add(&mut self, generation: Uuid, frame: &Frame<'_>) -> Option<LaneName> {
        let known = self.generation(generation);
        if known.released.contains(&frame.at.lane) {
            return None;
        }
        let lane = known.index.add(frame)?;
        let name = LaneName { generation, lane };
        if let Some(recording) = known.index.get(lane).and_then(|e| e.recording) {
            self.by_recording.entry(recording).or_default().insert(name);
        }
        Some(name)
    }

    /// Takes over what a look at a generation came to; returns the lanes that are complete by it.
    pub(crate) fn looked(&mut self, generation: Uuid, looked: Looked) -> Vec<LaneName> {
        let known = self.generation(generation);
        let ends_now = looked.over && !known.over;
        known.files = looked.files;
        known.read_to = looked.read_to;
        // What is over stays over.
        known.over |= looked.over;
        known.report = Some(looked.report);
        known.anchors = looked.anchors;
        known.durable_seq = looked.durable_seq;
        known.ended = looked.ended;
        if !ends_now {
            return Vec::new();
        }
        known.index.iter().map(|(lane, _)| LaneName { generation, lane }).collect()
    }

    /// Where a lane stands.
    pub(crate) fn state(&self, name: LaneName) -> Option<LaneState> {
        let generation = self.generations.get(&name.generation)?;
        let entry = generation.index.get(name.lane)?;
        Some(LaneState {
            recording: entry.recording,
            ended: entry.end.is_some(),
            over: generation.over,
            ingested: generation.ingested.contains(&name.lane),
        })
    }

    /// The lane is in the catalogue.
    pub(crate) fn set_ingested(&mut self, name: LaneName) {
        if let Some(generation) = self.generations.get_mut(&name.generation) {
            generation.ingested.insert(name.lane);
        }
    }

    /// A lane as it is now.
    pub(crate) fn view(&self, name: LaneName) -> Option<LaneView> {
        let generation = self.generations.get(&name.generation)?;
        let entry = generation.index.get(name.lane)?.clone();
        let files = entry.files();
        let report = generation.report.as_ref().filter(|_| generation.over);
        let concerns = |f: &&Finding| {
            f.lane.map_or_else(
                || files.as_ref().is_some_and(|files| files.contains(&f.file_seq)),
                |lane| lane == name.lane,
            )
        };
        let findings = report.iter().flat_map(|r| &r.findings).filter(concerns).cloned().collect();
        let anchor = files.as_ref().and_then(|files| generation.anchors.get(files.start()).copied());
        let durable = generation.is_durable(&entry);
        Some(LaneView { name, entry, over: generation.over, findings, anchor, durable })
    }

    /// The lanes of a recording, in the order in which they were written.
    pub(crate) fn lanes_of(&self, recording: Uuid) -> Vec<LaneView> {
        let names = self.by_recording.get(&recording);
        let mut views: Vec<LaneView> = names.into_iter().flatten().filter_map(|name| self.view(*name)).collect();
        // Generations are named in the order of time, which counts where segments are equal: nothing was known of the one before.
        views.sort_by_key(|v| (v.entry.segment, v.name));
        give_earlier_keys(&mut views);
        views
    }

    /// The recordings that have lanes in the index.
    pub(crate) fn recordings(&self) -> BTreeSet<Uuid> {
        self.by_recording.keys().copied().collect()
    }

    /// Lets a recording go: it is archived, discarded or deleted. While it is being read that waits for the last reader.
    pub(crate) fn release(&mut self, recording: Uuid) {
        if let Some((_, released)) = self.pinned.get_mut(&recording) {
            *released = true;
            return;
        }
        for name in self.by_recording.remove(&recording).unwrap_or_default() {
            self.release_lane(name);
        }
    }

    /// Lets one lane go.
    pub(crate) fn release_lane(&mut self, name: LaneName) {
        let Some(generation) = self.generations.get_mut(&name.generation) else { return };
        generation.released.insert(name.lane);
        generation.ingested.remove(&name.lane);
        let Some(recording) = generation.index.remove(name.lane).and_then(|e| e.recording) else { return };
        if let Some(names) = self.by_recording.get_mut(&recording) {
            names.remove(&name);
            if names.is_empty() {
                self.by_recording.remove(&recording);
            }
        }
    }

    fn unpin(&mut self, recording: Uuid) {
        let Some((readers, released)) = self.pinned.get_mut(&recording) else { return };
        *readers -= 1;
        if *readers == 0 {
            let released = *released;
            self.pinned.remove(&recording);
            if released {
                self.release(recording);
            }
        }
    }

    /// The names of all journal files known.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let names = self.generations.iter().flat_map(|(id, g)| g.files.iter().map(|f| file_name(*id, *f)));
        names.map(|name| self.folder.join(name)).collect()
    }

    /// What is wrong with each generation, without keys.
    pub(crate) fn reports(&self) -> Vec<(Uuid, Report)> {
        self.generations.iter().filter_map(|(id, g)| Some((*id, g.report.clone()?))).collect()
    }

    fn forget_files(&mut self, generation: Uuid, files: &[u32]) -> u32 {
        let Some(known) = self.generations.get_mut(&generation) else { return 0 };
        for file in files {
            known.files.remove(file);
        }
        // A file number is never the highest one: that says "none" in the journal.
        let left = known.files.first().copied().or_else(|| files.last().map(|last| last.saturating_add(1)));
        let below = known.gone_below(left.unwrap_or(0));
        if known.over && known.files.is_empty() {
            self.generations.remove(&generation);
        }
        below
    }
}

/// Keys that a later part of a recording holds for an earlier one, whose recorder died before they could be written.
fn give_earlier_keys(views: &mut [LaneView]) {
    let earlier: Vec<EarlierKey> = views.iter().flat_map(|view| view.entry.earlier_keys.iter().cloned()).collect();
    for view in views {
        let of_this = |key: &&EarlierKey| (key.generation, key.lane) == (view.name.generation, view.name.lane);
        for key in earlier.iter().filter(of_this).flat_map(|key| &key.keys) {
            if !view.entry.keys.contains(key) {
                view.entry.keys.push(key.clone());
            }
        }
    }
}

/// The index, shared by those who fill it and those who read it. The lock is held for a look, never while a file is read.
pub(crate) struct Shared(Mutex<Journals>);

impl Shared {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(Mutex::new(Journals::new(folder)))
    }

    /// The index.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Journals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lanes of a recording, to be read: what they need stays until the pin is dropped.
    pub(crate) fn pin(&self, recording: Uuid) -> Pinned<'_> {
        let mut journals = self.lock();
        let views = journals.lanes_of(recording);
        journals.pinned.entry(recording).or_default().0 += 1;
        Pinned { shared: self, recording, folder: journals.folder.clone(), views }
    }

    /// Bytes of all journal files.
    pub(crate) fn bytes(&self) -> u64 {
        let paths = self.lock().paths();
        paths.iter().filter_map(|p| fs::metadata(p).ok()).map(|m| m.len()).sum()
    }

    /// Removes the files that no lane needs any more, durably. What was removed before an error is said all the same.
    pub(crate) fn remove_unneeded(&self) -> (Vec<Removed>, Option<io::Error>) {
        let (folder, unneeded) = {
            let journals = self.lock();
            let unneeded: Vec<(Uuid, Vec<u32>)> =
                journals.generations.iter().map(|(id, g)| (*id, g.unneeded())).filter(|(_, f)| !f.is_empty()).collect();
            (journals.folder.clone(), unneeded)
        };
        if unneeded.is_empty() {
            return (Vec::new(), None);
        }
        let mut gone = Vec::new();
        let mut failed = None;
        for (generation, files) in unneeded {
            let mut of_this = Vec::new();
            for file in files {
                match fs::remove_file(folder.join(file_name(generation, file))) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Some(error),
                    _ => of_this.push(file),
                }
            }
            gone.push((generation, of_this));
        }
        // Until the folder is synced a power cut can bring them back, and the catalogue must still know their lanes then.
        if let Err(error) = sync_folder(&folder) {
            return (Vec::new(), Some(error));
        }
        let mut journals = self.lock();
        let removed = gone.into_iter().filter(|(_, files)| !files.is_empty()).map(|(generation, files)| Removed {
            generation,
            below_file: journals.forget_files(generation, &files),
            files: files.len(),
        });
        (removed.collect(), failed)
    }
}

/// A recording in the journal that is being read.
pub(crate) struct Pinned<'a> {
    shared: &'a Shared,
    recording: Uuid,
    /// The journal's folder.
    pub(crate) folder: PathBuf,
    views: Vec<LaneView>,
}

impl Deref for Pinned<'_> {
    type Target = [LaneView];

    fn deref(&self) -> &[LaneView] {
        &self.views
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.shared.lock().unpin(self.recording);
    }
}

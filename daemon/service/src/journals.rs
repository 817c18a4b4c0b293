//! The journal as the daemon sees it: which recordings are in it, where their frames are, which files are still needed.
//!
//! The recorder's files are followed as they grow. What is known of them is an index in memory, made by reading them; nothing
//! about the journal is kept anywhere else, so after any crash the same reading gives the same index. A lane stays in the index,
//! and the files that hold its frames on the disk, until it is released: its recording is archived and verified, discarded, or
//! deleted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use callvault_journal::{
    Finding, JournalError, JournalFiles, LaneEntry, LaneEnd, LaneIndex, ReadAt, Report, Scanner, Seekable, file_name,
    parse_file_name,
};
use uuid::Uuid;

use crate::files::sync_folder;

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
    /// Whether its generation is over, so that nothing more comes.
    pub(crate) over: bool,
    /// Damage of the journal that concerns it.
    pub(crate) findings: Vec<Finding>,
}

impl LaneView {
    /// Whether the session ended in order.
    pub(crate) fn ended(&self) -> bool {
        self.entry.end.is_some()
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
    open: BTreeMap<u32, Seekable<File>>,
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
            self.open.insert(file_seq, Seekable(file));
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

struct Generation {
    scanner: Scanner,
    index: LaneIndex,
    /// Lanes that are in the catalogue.
    ingested: BTreeSet<u32>,
    files: BTreeSet<u32>,
    /// The highest file seen, also when it is removed by now.
    last_file: u32,
    over: bool,
}

/// The journal's folder and what is in it.
pub(crate) struct Journals {
    folder: PathBuf,
    generations: BTreeMap<Uuid, Generation>,
    by_recording: HashMap<Uuid, BTreeSet<LaneName>>,
}

impl Journals {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), generations: BTreeMap::new(), by_recording: HashMap::new() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads what is new. `live` is the generation that a recorder is writing now; all others are over.
    /// Returns the lanes of which something new was seen.
    pub(crate) fn refresh(&mut self, live: Option<Uuid>) -> io::Result<BTreeSet<LaneName>> {
        let mut touched = BTreeSet::new();
        for (generation, files) in self.list()? {
            let over = live != Some(generation);
            let known = self.generations.entry(generation).or_insert_with(|| Generation {
                scanner: Scanner::new(generation),
                index: LaneIndex::new(),
                ingested: BTreeSet::new(),
                files: BTreeSet::new(),
                last_file: 0,
                over: false,
            });
            // A generation that is over is read to its end once more after that was learnt.
            if known.over && over && known.files == files {
                continue;
            }
            known.files = files;
            let mut source = GenerationFiles::new(&self.folder, generation);
            for &file_seq in known.files.range(known.last_file..) {
                known.last_file = file_seq;
                let result = source.file(file_seq).map_err(|source| JournalError::Read { file_seq, source });
                let (scanner, index) = (&mut known.scanner, &mut known.index);
                let scanned = result.and_then(|file| {
                    scanner.scan(file_seq, file, &mut |frame| {
                        if let Some(lane) = index.add(frame) {
                            touched.insert(LaneName { generation, lane });
                        }
                    })
                });
                if let Err(error) = scanned {
                    tracing::error!(%error, file = file_name(generation, file_seq), "failed to {error}");
                    break;
                }
            }
            if over && !known.over {
                known.over = true;
                touched.extend(known.index.iter().map(|(lane, _)| LaneName { generation, lane }));
            }
        }
        for name in &touched {
            let entry = self.generations.get(&name.generation).and_then(|g| g.index.get(name.lane));
            if let Some(recording) = entry.and_then(|e| e.recording) {
                self.by_recording.entry(recording).or_default().insert(*name);
            }
        }
        Ok(touched)
    }

    fn list(&self) -> io::Result<BTreeMap<Uuid, BTreeSet<u32>>> {
        let mut found: BTreeMap<Uuid, BTreeSet<u32>> = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            if let Some((generation, seq)) = entry?.file_name().to_str().and_then(parse_file_name) {
                found.entry(generation).or_default().insert(seq);
            }
        }
        Ok(found)
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
        let findings = if generation.over { generation.scanner.report().findings } else { Vec::new() };
        let concerns = |f: &Finding| {
            let files = entry.files();
            f.lane.map_or_else(|| files.is_some_and(|files| files.contains(&f.file_seq)), |lane| lane == name.lane)
        };
        let findings = findings.into_iter().filter(concerns).collect();
        Some(LaneView { name, entry, over: generation.over, findings })
    }

    /// The lanes of a recording, in the order in which they were written.
    pub(crate) fn lanes_of(&self, recording: Uuid) -> Vec<LaneView> {
        let names = self.by_recording.get(&recording);
        let mut views: Vec<LaneView> = names.into_iter().flatten().filter_map(|name| self.view(*name)).collect();
        views.sort_by_key(|v| v.entry.segment);
        views
    }

    /// Lets a recording go: it is archived, discarded or deleted.
    pub(crate) fn release(&mut self, recording: Uuid) {
        for name in self.by_recording.remove(&recording).unwrap_or_default() {
            self.release_lane(name);
        }
    }

    /// Lets one lane go.
    pub(crate) fn release_lane(&mut self, name: LaneName) {
        if let Some(generation) = self.generations.get_mut(&name.generation) {
            generation.index.remove(name.lane);
        }
    }

    /// Removes the files that no lane needs any more; returns how many. The file being written is never removed.
    pub(crate) fn remove_unneeded(&mut self) -> io::Result<usize> {
        let mut removed = 0;
        let mut over = Vec::new();
        for (&id, generation) in &mut self.generations {
            let needed: BTreeSet<u32> =
                generation.index.iter().filter_map(|(_, e)| e.files()).flatten().collect();
            let last = if generation.over { None } else { generation.files.last().copied() };
            let unneeded: Vec<u32> =
                generation.files.iter().copied().filter(|f| !needed.contains(f) && Some(*f) != last).collect();
            for file_seq in unneeded {
                match fs::remove_file(self.folder.join(file_name(id, file_seq))) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
                generation.files.remove(&file_seq);
                removed += 1;
            }
            if generation.over && generation.files.is_empty() {
                over.push(id);
            }
        }
        for id in over {
            self.generations.remove(&id);
        }
        if removed > 0 {
            sync_folder(&self.folder)?;
        }
        Ok(removed)
    }

    /// Bytes of all journal files.
    pub(crate) fn bytes(&self) -> u64 {
        let paths = self
            .generations
            .iter()
            .flat_map(|(id, g)| g.files.iter().map(|f| self.folder.join(file_name(*id, *f))));
        paths.filter_map(|p| fs::metadata(p).ok()).map(|m| m.len()).sum()
    }

    /// What is wrong with each generation, without keys.
    pub(crate) fn reports(&self) -> Vec<(Uuid, bool, Report)> {
        self.generations.iter().map(|(id, g)| (*id, g.over, g.scanner.report())).collect()
    }
}

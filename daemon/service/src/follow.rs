//! Follows the journal's files as they grow, and tells the index what is in them.
//!
//! One thread owns this. Files are read without holding the index's lock, which is taken for one frame at a time, so that nobody
//! waits for a disk: after a long absence there may be gigabytes to read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use callvault_journal::{JournalError, JournalFiles, Scanner, file_name, parse_file_name};
use callvault_policy::Anchor;
use uuid::Uuid;

use crate::journals::{GenerationFiles, LaneName, Looked, Shared};

/// How far each generation was read.
pub(crate) struct Follower {
    folder: PathBuf,
    generations: BTreeMap<Uuid, Followed>,
}

struct Followed {
    scanner: Scanner,
    /// The highest file that was read.
    read_to: Option<u32>,
    files: BTreeSet<u32>,
    anchors: BTreeMap<u32, Anchor>,
    /// It is over and was read to its end.
    done: bool,
}

/// What a look brought.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// Lanes of which something new is known.
    pub(crate) touched: BTreeSet<LaneName>,
    /// What kept the journal from being read to its end, if anything did; the next look goes on there.
    pub(crate) failed: Option<String>,
}

impl Follower {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), generations: BTreeMap::new() }
    }

    /// Reads what is new. `live` says which generation a recorder is writing now; all others are over. It is asked before and
    /// after the files are listed: a generation that lives at either moment may have files that are not on the list.
    pub(crate) fn look(
        &mut self,
        shared: &Shared,
        live: impl Fn() -> Option<Uuid>,
        give_up: impl Fn() -> bool,
    ) -> Look {
        let mut look = Look::default();
        let before = live();
        let listed = match list(&self.folder) {
            Ok(listed) => listed,
            Err(error) => {
                look.failed = Some(format!("list the journal's folder {}: {error}", self.folder.display()));
                return look;
            }
        };
        let after = live();
        self.generations.retain(|id, _| listed.contains_key(id));
        for (generation, files) in listed {
            if give_up() {
                return look;
            }
            let lives = [before, after].contains(&Some(generation));
            if let Err(error) = self.generation(shared, generation, files, lives, &give_up, &mut look.touched) {
                look.failed = Some(error);
            }
        }
        if look.failed.is_none() {
            shared.lock().set_ready();
        }
        look
    }

    fn generation(
        &mut self,
        shared: &Shared,
        generation: Uuid,
        files: BTreeSet<u32>,
        lives: bool,
        give_up: &impl Fn() -> bool,
        touched: &mut BTreeSet<LaneName>,
    ) -> Result<(), String> {
        let known = self.generations.entry(generation).or_insert_with(|| Followed {
            scanner: Scanner::new(generation),
            read_to: None,
            files: BTreeSet::new(),
            anchors: BTreeMap::new(),
            done: false,
        });
        let grew = known.files.last() < files.last();
        known.files = files;
        if known.done && !grew {
            return Ok(());
        }
        let result = known.read(&self.folder, generation, shared, give_up, touched);
        let whole = matches!(result, Ok(true));
        known.done = whole && !lives;
        let looked = Looked {
            files: known.files.clone(),
            read_to: known.read_to,
            over: known.done,
            report: known.scanner.report(),
            anchors: known.anchors.clone(),
            durable_seq: known.scanner.durable_seq(),
            ended: known.scanner.ended_files().collect(),
        };
        touched.extend(shared.lock().looked(generation, looked));
        result.map(drop)
    }
}

impl Followed {
    /// Reads on from where the last look ended. False: given up before the end.
    fn read(
        &mut self,
        folder: &Path,
        generation: Uuid,
        shared: &Shared,
        give_up: &impl Fn() -> bool,
        touched: &mut BTreeSet<LaneName>,
    ) -> Result<bool, String> {
        let mut source = GenerationFiles::new(folder, generation);
        let from = self.read_to.unwrap_or(0);
        for &file_seq in self.files.range(from..) {
            if give_up() {
                return Ok(false);
            }
            let file = source.file(file_seq).map_err(|source| JournalError::Read { file_seq, source });
            let scanned = file.and_then(|file| {
                self.scanner.scan(file_seq, file, &mut |frame| {
                    touched.extend(shared.lock().add(generation, frame));
                })
            });
            scanned.map_err(|error| format!("{error} ({})", file_name(generation, file_seq)))?;
            self.read_to = Some(file_seq);
            if let Some(header) = self.scanner.file_header(file_seq) {
                self.anchors.insert(file_seq, Anchor { wall_ns: header.wall_ns, at_ns: header.journal_ns });
            }
        }
        Ok(true)
    }
}

/// The journal's files by generation.
fn list(folder: &Path) -> io::Result<BTreeMap<Uuid, BTreeSet<u32>>> {
    let mut found: BTreeMap<Uuid, BTreeSet<u32>> = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        if let Some((generation, seq)) = entry?.file_name().to_str().and_then(parse_file_name) {
            found.entry(generation).or_default().insert(seq);
        }
    }
    Ok(found)
}

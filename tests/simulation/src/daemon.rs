//! The daemon's ingest, step by step as the architecture writes it down. The order of the steps is this module's; what decides is
//! the real thing: the scanner and index of the journal, the policy, the queue's machine.

use std::collections::{BTreeMap, BTreeSet};

use callvault_journal::{
    EarlierKey, Finding, FindingKind, LaneEnd, LaneEntry, LaneIndex, Scanner, file_name, parse_file_name,
};
use callvault_policy::summarise;
use callvault_queue::machine::Machine;
use callvault_queue::{JobId, JobKind, NewJob, RetryPolicies, State, StateName};
use uuid::Uuid;

use crate::bug::Bug;
use crate::outside::{Killed, Outside};
use crate::sound::Sound;
use crate::stable::{Entered, LaneName, Row};

/// Flaw of a session whose key was never written.
pub(crate) const KEY_LOST: &str = "key-lost";

#[derive(Default)]
pub(crate) struct Generation {
    scanner: Option<Scanner>,
    pub(crate) index: LaneIndex,
    pub(crate) ingested: BTreeSet<u32>,
    released: BTreeSet<u32>,
    files: BTreeSet<u32>,
    read_to: Option<u32>,
    pub(crate) over: bool,
    findings: Vec<Finding>,
}

/// A lane as it is now.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) name: LaneName,
    pub(crate) entry: LaneEntry,
    pub(crate) over: bool,
    pub(crate) findings: Vec<Finding>,
    /// Whether its recorder has said that all of it is on the device.
    durable: bool,
}

/// One run of the daemon: what it has in memory.
pub(crate) struct Daemon {
    pub(crate) machine: Machine,
    pub(crate) generations: BTreeMap<Uuid, Generation>,
    waiting: BTreeSet<LaneName>,
    known: BTreeSet<Uuid>,
    removed: BTreeMap<Uuid, u32>,
    has_tidied: bool,
    /// Which recorder was ready before the journal was looked at, and what it goes on with.
    seen: (Option<Uuid>, BTreeSet<Uuid>),
}

impl Daemon {
    /// Opens what a daemon opens.
    pub(crate) fn start(out: &mut Outside) -> Self {
        if let Err(wrong) = out.stable.check() {
            out.say(wrong);
        }
        let mut jobs: Vec<_> = out.stable.jobs.written.values().cloned().collect();
        if out.has(Bug::RunningJobsNotResumed) {
            jobs.retain(|job| !matches!(job.state, State::Running { .. }));
        }
        let (machine, _, touched) = Machine::load(RetryPolicies::default(), jobs, out.unix_ms);
        let mut daemon = Self {
            machine,
            generations: BTreeMap::new(),
            waiting: BTreeSet::new(),
            known: BTreeSet::new(),
            removed: BTreeMap::new(),
            has_tidied: false,
            seen: (None, BTreeSet::new()),
        };
        daemon.write_jobs(out, &touched);
        out.stable.jobs.sync();
        daemon
    }

    /// Writes what the machine touched.
    pub(crate) fn write_jobs(&mut self, out: &mut Outside, touched: &[JobId]) {
        for id in touched {
            match self.machine.get(id) {
                Some(job) => _ = out.stable.jobs.written.insert(id.clone(), job.clone()),
                None => {
                    out.stable.jobs.written.remove(id);
                    out.stable.jobs.acknowledged.remove(id);
                }
            }
        }
    }

    /// One round of the ingest.
    pub(crate) fn round(&mut self, out: &mut Outside) -> Result<(), Killed> {
        // Before the journal: what a recorder goes on with is there when it is ready.
        self.seen.clone_from(&out.ready);
        self.look(out)?;
        self.take_in(out)?;
        if !std::mem::replace(&mut self.has_tidied, true) {
            self.owe_archives(out)?;
        }
        self.settle(out)?;
        self.remove_files(out)
    }

    fn look(&mut self, out: &mut Outside) -> Result<(), Killed> {
        let mut listed: BTreeMap<Uuid, BTreeSet<u32>> = BTreeMap::new();
        for name in out.spool.device.names() {
            if let Some((generation, seq)) = parse_file_name(&name) {
                listed.entry(generation).or_default().insert(seq);
            }
        }
        let mut touched = BTreeSet::new();
        for (id, files) in listed {
            let lives = out.live == Some(id);
            let known = self.generations.entry(id).or_default();
            let grew = known.files.last() < files.last();
            known.files = files;
            if !known.over || grew {
                known.read(out, id, lives, &mut touched);
            }
        }
        out.point()?;
        self.waiting.extend(touched);
        let generations: BTreeSet<Uuid> = self.waiting.iter().map(|name| name.0).collect();
        for generation in generations {
            if self.known.insert(generation) {
                self.recall(out, generation);
            }
        }
        Ok(())
    }

    /// Lanes that an earlier daemon took.
    fn recall(&mut self, out: &Outside, generation: Uuid) {
        if out.has(Bug::LanesNotRemembered) {
            return;
        }
        let catalogue = &out.stable.catalogue;
        let Some(known) = self.generations.get_mut(&generation) else { return };
        for ((_, lane), (id, _)) in catalogue.lanes.range((generation, 0)..=(generation, u32::MAX)) {
            let is_done = catalogue.rows.get(id).is_none_or(|row| row.archive.is_some() || !row.has_audio);
            if known.index.get(*lane).is_none() {
                continue;
            }
            if is_done {
                known.release(*lane);
            } else {
                known.ingested.insert(*lane);
            }
        }
    }

    fn take_in(&mut self, out: &mut Outside) -> Result<(), Killed> {
        for name in self.waiting.clone() {
            let Some(view) = self.view(name) else {
                self.waiting.remove(&name);
                continue;
            };
            if self.generations.get(&name.0).is_some_and(|known| known.ingested.contains(&name.1)) {
                self.waiting.remove(&name);
                continue;
            }
            if view.entry.end.is_none() && !view.over {
                continue;
            }
            let views = view.entry.recording.map_or_else(|| vec![view], |recording| self.lanes_of(recording));
            if !self.is_complete(&views) {
                continue;
            }
            // Only a recorder hears of a sync that failed.
            if !views.iter().all(|view| view.over || view.durable) {
                continue;
            }
            let Some(is_needed) = self.ingest(out, &views)? else { continue };
            for View { name, .. } in views {
                self.waiting.remove(&name);
                if let Some(known) = self.generations.get_mut(&name.0) {
                    if is_needed {
                        known.ingested.insert(name.1);
                    } else {
                        known.release(name.1);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether nothing more comes of a recording: a recorder that is not ready yet may go on with one that was cut off.
    fn is_complete(&self, views: &[View]) -> bool {
        let Some(last) = views.last() else { return false };
        let (ready, resumed) = &self.seen;
        let may_go_on = last.entry.end.is_none()
            && (ready.is_none_or(|ready| ready == last.name.0)
                || last.entry.recording.is_some_and(|recording| resumed.contains(&recording)));
        views.iter().all(|view| view.entry.end.is_some() || view.over) && !may_go_on
    }

    pub(crate) fn view(&self, name: LaneName) -> Option<View> {
        let known = self.generations.get(&name.0)?;
        let entry = known.index.get(name.1)?.clone();
        let findings = known.findings.iter().filter(|f| f.lane.is_none_or(|lane| lane == name.1)).cloned().collect();
        let durable = known.is_durable(&entry);
        Some(View { name, entry, over: known.over, findings, durable })
    }

    /// Enters a recording with its lanes; says whether the journal is needed for it any further, or nothing when it is to be tried again.
    fn ingest(&mut self, out: &mut Outside, views: &[View]) -> Result<Option<bool>, Killed> {
        for view in views {
            if !self.make_durable(out, view) {
                return Ok(None);
            }
        }
        // A lane of which no frame names the recording is entered under a name of its own; it tells nothing here.
        let Some(id) = views.last().and_then(|view| view.entry.recording) else { return Ok(Some(false)) };
        let is_discarded = views.iter().any(|view| view.entry.end == Some(LaneEnd::Discarded));
        let (verdict, flaws, has_audio, call_id) = if is_discarded {
            ("discarded".to_owned(), vec!["discarded".to_owned()], false, None)
        } else if views.iter().all(|view| view.entry.keys.is_empty()) {
            ("failed".to_owned(), vec![KEY_LOST.to_owned()], false, None)
        } else {
            match Sound::read(out, views) {
                Ok(sound) => {
                    let is_torn = views.iter().any(|view| out.spool.was_torn(view.name.0));
                    if let Some(track) = sound.uncounted().filter(|_| !is_torn) {
                        out.say(format!("recording {id} has more packets of track {track} than its end says"));
                    }
                    let summary = summarise(&sound.events, &sound.damage);
                    let flaws = summary.flaws.iter().map(|flaw| flaw.code.clone()).collect();
                    let is_whole = sound.unplaced == 0 || summary.verdict.as_str() != "ok";
                    let verdict = if is_whole { summary.verdict.as_str() } else { "degraded" };
                    (verdict.to_owned(), flaws, true, sound.call_id)
                }
                Err(error) => {
                    out.say(format!("recording {id} cannot be read from the journal: {error}"));
                    return Ok(Some(true));
                }
            }
        };
        out.point()?;
        let row = Row { verdict, flaws, has_audio, call_id, archive: None, entered: 1, archived_ns: 0, recorded: 0 };
        let entered = self.enter(out, id, views, row)?;
        out.point()?;
        Ok(Some(has_audio && entered != Entered::Deleted))
    }

    /// Brings a lane to the device. False: that failed.
    fn make_durable(&self, out: &mut Outside, view: &View) -> bool {
        if !out.has(Bug::EnteredBeforeDurable) {
            for file in view.entry.files().into_iter().flatten() {
                let inode = out.spool.device.inode(&file_name(view.name.0, file));
                if inode.is_some_and(|inode| out.spool.device.open_and_sync(inode).is_err()) {
                    return false;
                }
            }
        }
        let frames = view.entry.frames.load().expect("frames that are kept in memory");
        let is_lost = frames.iter().any(|frame| {
            let inode = out.spool.device.inode(&file_name(view.name.0, frame.file_seq));
            let length = usize::try_from(frame.frame_len()).unwrap_or(0);
            let offset = usize::try_from(frame.offset).unwrap_or(0);
            // Where a sync has failed nothing can be known any more.
            inode.is_some_and(|inode| {
                !out.spool.device.has_failed(inode) && !out.spool.device.is_durable(inode, offset, length)
            })
        });
        if is_lost {
            out.say(format!("lane {} is entered and is not on the device", view.name.1));
        }
        true
    }

    /// One transaction: the row, its lanes, what it owes.
    fn enter(&self, out: &mut Outside, id: Uuid, views: &[View], row: Row) -> Result<Entered, Killed> {
        let remembers = !out.has(Bug::LanesNotRemembered);
        let is_owed_later = out.has(Bug::RowBeforeOwed);
        let catalogue = &mut out.stable.catalogue;
        let last_file = |view: &View| view.entry.files().map_or(0, |files| *files.end());
        let lanes = views.iter().map(|view| (view.name, (id, last_file(view))));
        if catalogue.tombstones.contains(&id) {
            catalogue.lanes.extend(lanes);
            return Ok(Entered::Deleted);
        }
        if let Some(known) = catalogue.rows.get_mut(&id) {
            if remembers {
                if known.archive.is_some() {
                    let began = |generation: &Uuid| out.began.get(generation).copied().unwrap_or(0);
                    let late = views.iter().map(|view| view.name.0).filter(|of| began(of) > known.archived_ns);
                    out.too_late.extend(late);
                }
                catalogue.lanes.extend(lanes);
                return Ok(Entered::AlreadyThere);
            }
            known.entered += 1;
        }
        let has_audio = row.has_audio;
        let verdict = row.verdict.clone();
        catalogue.rows.entry(id).or_insert(row);
        catalogue.lanes.extend(lanes);
        if is_owed_later {
            out.point()?;
        }
        if has_audio {
            out.stable.catalogue.owe(JobKind::ARCHIVE, id, None);
        }
        out.note(|| format!("recording {id} entered: {verdict}"));
        Ok(Entered::Inserted)
    }

    /// Whatever has no archive has a job.
    fn owe_archives(&mut self, out: &mut Outside) -> Result<(), Killed> {
        let rows = &out.stable.catalogue.rows;
        let missing: Vec<NewJob> = rows
            .iter()
            .filter(|(_, row)| row.has_audio && row.archive.is_none())
            .map(|(id, _)| NewJob::new(JobKind::ARCHIVE, *id))
            .collect();
        for job in &missing {
            if self.machine.get(&job.id()).is_some_and(|known| known.state.name() == StateName::Done) {
                out.say(format!("the job {} is done and there is no archive", job.id()));
            }
        }
        self.enqueue(out, &missing)
    }

    fn enqueue(&mut self, out: &mut Outside, jobs: &[NewJob]) -> Result<(), Killed> {
        let touched = match self.machine.enqueue(out.unix_ms, jobs) {
            Ok((_, touched)) => touched,
            Err(error) => {
                out.say(format!("failed to {error}"));
                return Ok(());
            }
        };
        self.write_jobs(out, &touched);
        if !out.has(Bug::QueueAcknowledgesEarly) {
            out.point()?;
            out.stable.jobs.sync();
        }
        out.stable.jobs.acknowledged.extend(jobs.iter().map(NewJob::id));
        Ok(())
    }

    /// Moves what is owed into the queue.
    fn settle(&mut self, out: &mut Outside) -> Result<(), Killed> {
        let owed = out.stable.catalogue.owed.clone();
        if owed.is_empty() {
            return Ok(());
        }
        let jobs: Vec<NewJob> = owed
            .values()
            .map(|(kind, id, path)| NewJob {
                payload: path.as_ref().map(|path| serde_json::json!({ "path": path })).unwrap_or_default(),
                ..NewJob::new(kind.clone(), *id)
            })
            .collect();
        self.enqueue(out, &jobs)?;
        out.point()?;
        out.stable.catalogue.owed.retain(|id, _| !owed.contains_key(id));
        out.point()
    }

    fn remove_files(&mut self, out: &mut Outside) -> Result<(), Killed> {
        let careless = out.has(Bug::FilesOfLaterLanesRemoved);
        let mut gone = Vec::new();
        for (id, known) in &self.generations {
            for file in known.unneeded(careless) {
                let name = file_name(*id, file);
                if let Some(inode) = out.spool.device.inode(&name) {
                    out.spool.witness().removed(inode);
                    out.spool.device.remove(&name);
                    out.note(|| format!("journal file {name} removed"));
                    gone.push((*id, file));
                }
            }
        }
        if gone.is_empty() && self.removed.is_empty() {
            return Ok(());
        }
        if out.has(Bug::LanesForgottenEarly) {
            self.forget(out, &gone);
            return out.point();
        }
        out.point()?;
        out.spool.device.sync_folder();
        out.point()?;
        self.forget(out, &gone);
        Ok(())
    }

    fn forget(&mut self, out: &mut Outside, gone: &[(Uuid, u32)]) {
        for (id, file) in gone {
            let Some(known) = self.generations.get_mut(id) else { continue };
            known.files.remove(file);
            let below = known.files.first().copied().unwrap_or(file + 1);
            self.removed.insert(*id, below);
            if known.over && known.files.is_empty() {
                self.generations.remove(id);
            }
        }
        for (id, below) in std::mem::take(&mut self.removed) {
            out.stable.catalogue.lanes_released(id, below);
        }
    }

    /// The lanes of a recording.
    pub(crate) fn lanes_of(&self, recording: Uuid) -> Vec<View> {
        let names = self.generations.iter().flat_map(|(id, known)| {
            let of = known.index.iter().filter(|(_, entry)| entry.recording == Some(recording));
            of.map(|(lane, _)| (*id, lane)).collect::<Vec<_>>()
        });
        let mut views: Vec<View> = names.filter_map(|name| self.view(name)).collect();
        views.sort_by_key(|view| (view.entry.segment, view.name));
        // The key of a part that was written before the verdict is with a later one.
        let earlier: Vec<EarlierKey> = views.iter().flat_map(|view| view.entry.earlier_keys.iter().cloned()).collect();
        for view in &mut views {
            let of_this = |key: &&EarlierKey| (key.generation, key.lane) == view.name;
            for key in earlier.iter().filter(of_this).flat_map(|key| key.keys.clone()) {
                if !view.entry.keys.contains(&key) {
                    view.entry.keys.push(key);
                }
            }
        }
        views
    }

    /// Lets a recording go: it is archived, discarded or deleted.
    pub(crate) fn release(&mut self, recording: Uuid) {
        for view in self.lanes_of(recording) {
            if let Some(known) = self.generations.get_mut(&view.name.0) {
                known.release(view.name.1);
            }
        }
    }

    /// A person deletes a recording.
    pub(crate) fn delete(&mut self, out: &mut Outside, id: Uuid) -> Result<(), Killed> {
        let catalogue = &mut out.stable.catalogue;
        let Some(row) = catalogue.rows.remove(&id) else { return Ok(()) };
        let has_archive = row.archive.is_some();
        catalogue.tombstones.insert(id);
        catalogue.owed.remove(&JobId::new(&JobKind::ARCHIVE, id));
        // Also where there is none on record: an attempt may have left one.
        catalogue.owe(JobKind::DELETE, id, row.archive.map(|place| place.path));
        out.note(|| format!("recording {id} deleted, with an archive: {has_archive}"));
        out.point()?;
        self.release(id);
        Ok(())
    }
}

impl Generation {
    fn read(&mut self, out: &Outside, id: Uuid, lives: bool, touched: &mut BTreeSet<LaneName>) {
        let scanner = self.scanner.get_or_insert_with(|| Scanner::new(id));
        let mut failed = false;
        for &seq in self.files.range(self.read_to.unwrap_or(0)..) {
            let Some(mut file) = out.spool.device.reading(&file_name(id, seq)) else { continue };
            let (index, released) = (&mut self.index, &self.released);
            let scanned = scanner.scan(seq, &mut file, &mut |frame| {
                if !released.contains(&frame.at.lane) {
                    touched.extend(index.add(frame).map(|lane| (id, lane)));
                }
            });
            failed = scanned.is_err();
            if failed {
                break;
            }
            self.read_to = Some(seq);
        }
        let ends_now = !failed && !lives && !self.over;
        self.over |= !failed && !lives;
        self.findings = scanner.report().findings;
        if ends_now {
            touched.extend(self.index.iter().map(|(lane, _)| (id, lane)));
        }
    }

    /// Whether a commit speaks of all of a lane, or another file follows on all that it is in.
    fn is_durable(&self, entry: &LaneEntry) -> bool {
        let Some(scanner) = &self.scanner else { return false };
        let closed = entry.files().is_some_and(|files| {
            scanner.ended_files().any(|file| file == *files.end())
                && self.files.last().is_some_and(|last| last > files.end())
        });
        entry.last_seq <= scanner.durable_seq() || closed
    }

    fn release(&mut self, lane: u32) {
        self.released.insert(lane);
        self.ingested.remove(&lane);
        self.index.remove(lane);
    }

    /// The files that may go: read to the end, understood, needed by no lane, and not being written.
    fn unneeded(&self, careless: bool) -> Vec<u32> {
        let Some(read_to) = self.read_to else { return Vec::new() };
        let needed =
            |entry: &LaneEntry| entry.files().map(|files| if careless { *files.end()..=*files.end() } else { files });
        let mut kept: BTreeSet<u32> = self.index.iter().filter_map(|(_, entry)| needed(entry)).flatten().collect();
        kept.extend(self.findings.iter().filter(|f| f.kind == FindingKind::Foreign).map(|f| f.file_seq));
        if !self.over {
            kept.extend(self.files.last());
        }
        self.files.iter().copied().filter(|file| *file <= read_to && !kept.contains(file)).collect()
    }
}

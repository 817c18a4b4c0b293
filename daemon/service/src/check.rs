//! `recordings verify`: tests the invariants that the writers keep ([`Invariant`]). An archive is read to its end and compared with what
//! the catalogue says of it, the journal's frames are opened with their keys, the catalogue's rows and files are looked through, the
//! store is searched for what is on no record, the queue for what is owed. What of that needs neither the store nor the reading of
//! audio is looked at when the daemon has started, and now and then ([`Check::promises`]).

mod invariant;

use std::collections::BTreeSet;

use std::io::BufReader;
use std::path::Path;

pub(crate) use invariant::Invariant;

use callvault_archive::{Reader, verify};
use callvault_catalogue::{ArchivePlace, CatalogueError, Filter, Recording};
use callvault_journal::{FindingKind, verify_lane};
use callvault_queue::{JobId, JobKind, StateName};
use callvault_seal::DataKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::journals::{GenerationFiles, LaneView};
use crate::playback::archive_key;
use crate::recover::find_archives;
use crate::row::has_audio;
use crate::sound::{SoundError, open_lanes};
use crate::store::{Store, StoreFile};

/// Recordings taken from the catalogue at once.
const PAGE: usize = 500;

/// Owed jobs looked through for one.
const OWED_MAX: u32 = 10_000;

/// Findings that are listed; more of them tell nobody more, they are counted.
const FINDINGS_MAX: usize = 10_000;

/// Read from the store at once, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// A check under way, and what it found.
pub(crate) struct Check<'a> {
    appliance: &'a Appliance,
    checked: u64,
    findings: Vec<Value>,
    left_out: u64,
    store_is_away: bool,
}

impl<'a> Check<'a> {
    pub(crate) fn new(appliance: &'a Appliance) -> Self {
        Self { appliance, checked: 0, findings: Vec::new(), left_out: 0, store_is_away: false }
    }

    /// What was found: `checked` recordings, `findings` with `recording` (or null), `where`, `kind`, `text`, and how many were
    /// `left_out` of the list. Each finding also has the number of the `invariant` that does not hold, and the `remedy`.
    pub(crate) fn json(self) -> Value {
        json!({"checked": self.checked, "findings": self.findings, "left_out": self.left_out})
    }

    fn note(&mut self, broken: Invariant, recording: Option<Uuid>, place: &str, kind: &str, text: &str) {
        self.add(json!({
            "recording": recording, "where": place, "kind": kind, "text": text,
            "invariant": broken.number(), "remedy": broken.remedy(),
        }));
    }

    fn add(&mut self, finding: Value) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.left_out += 1;
        }
    }

    /// Checks all recordings, the journal as a whole, and the catalogue itself.
    ///
    /// # Errors
    /// The catalogue cannot be read.
    pub(crate) fn everything(&mut self) -> Result<(), CatalogueError> {
        let (mut cursor, mut damaged) = (None, Vec::new());
        loop {
            let page = self.appliance.catalogue.list(&Filter { limit: Some(PAGE), ..Filter::default() }, cursor)?;
            for row in &page.recordings {
                self.recording(row);
            }
            for id in &page.damaged {
                self.checked += 1;
                let text = "its row was changed or damaged";
                self.note(Invariant::CatalogueSound, Some(*id), "catalogue", "damaged-row", text);
            }
            damaged.extend(page.damaged);
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        if damaged.is_empty() {
            self.appliance.notes.clear("catalogue-rows");
        }
        note_damaged(self.appliance, &damaged);
        self.journal_files();
        self.store_files();
        self.deletions()?;
        if let Some(why) = self.appliance.queue.broken() {
            self.note(Invariant::QueueSound, None, "queue", "queue-broken", &why);
        }
        for problem in self.appliance.catalogue.check()? {
            self.note(Invariant::CatalogueSound, None, "catalogue", "damaged", &problem);
        }
        Ok(())
    }

    /// Checks one recording, wherever its audio is.
    pub(crate) fn recording(&mut self, row: &Recording) {
        self.checked += 1;
        match row.archive.place() {
            Some(place) => self.archived(row, &place),
            None if has_audio(row) => {
                self.journalled(row);
                self.lanes_kept(row.id);
                self.archive_owed(row.id);
            }
            None => {}
        }
    }

    fn archived(&mut self, row: &Recording, place: &ArchivePlace) {
        let path = place.path.as_str();
        let open = || self.appliance.store.of(&place.store)?.get(Path::new(path));
        let key = open().map_err(SoundError::from).and_then(|file| self.archive_key(file));
        let report = open()
            .map_err(SoundError::from)
            .and_then(|file| Ok(verify(BufReader::with_capacity(READ_BYTES, file), key.as_ref().ok())?));
        let report = match report {
            Ok(report) => report,
            // That the store is away is no finding about this recording; it is said once.
            Err(error) if error.is_away() => {
                self.checked = self.checked.saturating_sub(1);
                return self.away(&error.to_string());
            }
            Err(error) => {
                // A recording that was deleted while it was looked at is no finding.
                let is_gone = matches!(self.appliance.catalogue.tombstone(row.id), Ok(Some(_)));
                // Nor is one that was moved to another store.
                if let Ok(Some(now)) = self.appliance.catalogue.archive_place(row.id)
                    && now != *place
                {
                    return self.archived(row, &now);
                }
                if !is_gone {
                    self.note(Invariant::ArchiveWhole, Some(row.id), path, "unreadable", &format!("failed to {error}"));
                }
                return;
            }
        };
        if let Err(error) = key {
            self.note(Invariant::KeyHere, Some(row.id), path, "key", &format!("failed to {error}"));
        }
        for found in &report.findings {
            self.note(Invariant::ArchiveWhole, Some(row.id), path, found.kind.code(), &found.to_string());
        }
        self.left_out = self.left_out.saturating_add(report.findings_left_out);
        if report.findings.is_empty() && row.archive.sha256.is_some_and(|sha| sha != report.sha256) {
            let text = "the archive is whole, but it is not the one that was written";
            self.note(Invariant::ArchiveWhole, Some(row.id), path, "another-file", text);
        }
        if report.header.recording != row.id {
            let text = "the archive is that of another recording";
            self.note(Invariant::ArchiveWhole, Some(row.id), path, "another-file", text);
        }
    }

    /// Says once that archives cannot be looked at. That breaks nothing that was promised, so it has no number, and its text says what to do.
    fn away(&mut self, error: &str) {
        if !std::mem::replace(&mut self.store_is_away, true) {
            let text = format!("failed to {error}; the archives were not checked");
            self.add(json!({
                "recording": null, "where": "store", "kind": "away", "text": text, "invariant": null, "remedy": null,
            }));
        }
    }

    fn archive_key(&self, file: StoreFile) -> Result<DataKey, SoundError> {
        let reader = Reader::open(BufReader::new(file))?;
        archive_key(&reader, &self.appliance.keyring, &self.appliance.catalogue)
    }

    fn journalled(&mut self, row: &Recording) {
        let id = row.id;
        let pinned = self.appliance.journals.pin(id);
        match self.appliance.check_read(&pinned) {
            Ok(()) => {}
            // It is being read; what is wrong with it will be found by the next check.
            Err(SoundError::NotReadYet) => return,
            // It moved on while we looked, or was deleted.
            Err(_) if self.has_moved(id) => return,
            Err(_) => {
                let text = "the recording is neither in the store nor in the journal";
                return self.note(Invariant::AudioThere, Some(id), "journal", "missing", text);
            }
        }
        let lanes: Vec<Option<u64>> = pinned.iter().map(|view| self.lane(id, view, &pinned.folder)).collect();
        // A tail that is cut off leaves nothing behind that could be found wrong: only the catalogue knows what was there.
        let (held, entered) =
            (lanes.into_iter().sum::<Option<u64>>(), row.tracks.iter().map(|t| t.packets).sum::<u64>());
        if let Some(held) = held.filter(|held| *held < entered) {
            let text = format!("{} of {entered} packets that it had are not in the journal any more", entered - held);
            self.note(Invariant::AudioThere, Some(id), "journal", "packets-missing", &text);
        }
    }

    fn has_moved(&self, id: Uuid) -> bool {
        self.appliance.catalogue.get(id).is_ok_and(|row| row.is_none_or(|row| row.archive.place().is_some()))
    }

    /// Checks one lane; gives how many packets could be read, unless it could not be read at all, which is noted.
    fn lane(&mut self, id: Uuid, view: &LaneView, folder: &Path) -> Option<u64> {
        let name = view.name;
        let place = format!("journal {} lane {}", name.generation, name.lane);
        let lanes = match open_lanes(std::slice::from_ref(view), &self.appliance.keyring) {
            Ok(lanes) => lanes,
            Err(error) => {
                self.note(Invariant::KeyHere, Some(id), &place, "key", &format!("failed to {error}"));
                return None;
            }
        };
        let mut packets = 0_u64;
        let mut files = GenerationFiles::new(folder, name.generation);
        for lane in &lanes {
            match verify_lane(name.generation, name.lane, &view.entry, lane.cipher(), &mut files) {
                Ok(report) => {
                    for found in &report.findings {
                        let kind = found.kind.to_string();
                        self.note(Invariant::JournalSound, Some(id), &place, &kind, &found.to_string());
                    }
                    self.left_out = self.left_out.saturating_add(report.findings_dropped);
                    packets = packets.saturating_add(report.packets);
                }
                Err(error) => {
                    let text = format!("failed to {error}");
                    self.note(Invariant::JournalSound, Some(id), &place, "unreadable", &text);
                    return None;
                }
            }
        }
        Some(packets)
    }

    /// What must hold without a look at the store or at any audio: recordings that have no archive are in the journal, no file of it was
    /// freed too early, and whatever is owed has a job. Only when the journal was read through can this be told.
    ///
    /// # Errors
    /// The catalogue cannot be read.
    pub(crate) fn promises(&mut self) -> Result<(), CatalogueError> {
        if !self.appliance.journals.lock().is_ready() {
            return Ok(());
        }
        for id in self.appliance.catalogue.unarchived()? {
            match self.appliance.catalogue.get(id) {
                Ok(Some(row)) if has_audio(&row) => {
                    self.checked += 1;
                    let is_there = !self.appliance.journals.lock().lanes_of(id).is_empty();
                    if is_there {
                        self.lanes_kept(id);
                    } else if !self.has_moved(id) {
                        let text = "the recording is neither in the store nor in the journal";
                        self.note(Invariant::AudioThere, Some(id), "journal", "missing", text);
                    }
                    self.archive_owed(id);
                }
                Ok(_) | Err(CatalogueError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.deletions()
    }

    /// The first finding and how many there are, for health.
    pub(crate) fn summary(&self) -> Option<String> {
        let first = self.findings.first()?;
        let word = |name: &str| first[name].as_str().unwrap_or_default().to_owned();
        let (recording, count) = (word("recording"), self.findings.len());
        Some(format!(
            "invariant {} does not hold: {} (recording {recording}; {count} findings in all, `callvaultctl recordings verify` names them); {}",
            first["invariant"],
            word("text"),
            word("remedy")
        ))
    }

    /// The lanes that the catalogue knows of a recording without an archive are in the journal.
    fn lanes_kept(&mut self, id: Uuid) {
        if !self.appliance.journals.lock().is_ready() {
            return;
        }
        let Ok(lanes) = self.appliance.catalogue.lanes(id) else { return };
        let there: BTreeSet<_> = {
            let journals = self.appliance.journals.lock();
            journals.lanes_of(id).iter().map(|view| (view.name.generation, view.name.lane)).collect()
        };
        let gone: Vec<_> = lanes.iter().filter(|lane| !there.contains(&(lane.generation, lane.lane))).collect();
        // Where nothing is there that was said already.
        let Some(first) = gone.first().filter(|_| !there.is_empty() && !self.has_moved(id)) else { return };
        let text = format!(
            "lane {} of journal {}, files {} to {}, is gone from the journal before the recording was archived",
            first.lane, first.generation, first.first_file, first.last_file
        );
        self.note(Invariant::JournalKept, Some(id), "journal", "lane-gone", &text);
    }

    /// A recording without an archive has a job, or is owed one.
    fn archive_owed(&mut self, id: Uuid) {
        if !self.has_job(&JobKind::ARCHIVE, id) && !self.has_moved(id) && !self.is_owed(JobKind::ARCHIVE.as_str(), id) {
            let text = "it has no archive, and no job that makes one";
            self.note(Invariant::ArchiveOwed, Some(id), "queue", "job-missing", text);
        }
    }

    fn deletions(&mut self) -> Result<(), CatalogueError> {
        for owed in self.appliance.catalogue.deletions_owed()? {
            let id = owed.recording;
            if self.has_job(&JobKind::DELETE, id) || self.is_owed(&owed.kind, id) {
                continue;
            }
            let is_still = self.appliance.catalogue.deletions_owed()?.iter().any(|still| still.recording == id);
            if is_still {
                let text = "it was deleted, and no job removes what was made of it";
                self.note(Invariant::DeletionOwed, Some(id), "queue", "deletion-job-missing", text);
            }
        }
        Ok(())
    }

    fn has_job(&self, kind: &JobKind, id: Uuid) -> bool {
        let job = self.appliance.queue.get(&JobId::new(kind, id));
        job.is_some_and(|job| job.state.name() != StateName::Done)
    }

    fn is_owed(&self, kind: &str, id: Uuid) -> bool {
        let owed = self.appliance.catalogue.owed(OWED_MAX).unwrap_or_default();
        owed.iter().any(|one| one.kind == kind && one.recording == id)
    }

    /// Archives in the store that are on no record.
    fn store_files(&mut self) {
        let current = self.appliance.store.record().current;
        for name in std::iter::once(current).chain(self.appliance.store.sources()) {
            match self.appliance.store.of(&name) {
                Ok(store) => self.files_of(&name, &store),
                Err(error) => self.away(&error.to_string()),
            }
        }
    }

    fn files_of(&mut self, name: &str, store: &Store) {
        if let Err(error) = store.check() {
            return self.away(&error.to_string());
        }
        let (found, troubles) = find_archives(&mut |folder| store.list(folder).map_err(std::io::Error::other));
        for text in troubles {
            self.note(Invariant::ArchiveOnRecord, None, "store", "unreadable", &text);
        }
        for (id, path) in found {
            let row = self.appliance.catalogue.get(id);
            let tombstone = self.appliance.catalogue.tombstone(id);
            match (row, tombstone) {
                (Ok(Some(row)), _) => match row.archive.place() {
                    Some(place)
                        if (place.path != path || place.store != name) && !self.is_being_moved(id, name, &path) =>
                    {
                        let text = "the archive of this recording is another file";
                        self.note(Invariant::ArchiveOnRecord, Some(id), &path, "second-file", text);
                    }
                    // One that is on no record yet is replaced by the next attempt.
                    _ => {}
                },
                (Ok(None), Ok(Some(_))) => {
                    let owed = self.appliance.catalogue.deletions_owed().unwrap_or_default();
                    let is_there = store.get(Path::new(&path)).is_ok();
                    if is_there && !self.is_being_moved(id, name, &path) && !owed.iter().any(|one| one.recording == id)
                    {
                        let text = "the recording was deleted, and its archive is still there";
                        self.note(Invariant::DeletionOwed, Some(id), &path, "deleted-file", text);
                    }
                }
                (Ok(None), Ok(None)) => {
                    let text = "the archive is on no record";
                    self.note(Invariant::ArchiveOnRecord, Some(id), &path, "file-without-row", text);
                }
                _ => {}
            }
        }
    }

    /// Whether a file that was not on record is one that a move takes away, or is on record by now.
    fn is_being_moved(&self, id: Uuid, store: &str, path: &str) -> bool {
        let left = self.appliance.catalogue.leavings_of(id).unwrap_or_default();
        let place = self.appliance.catalogue.archive_place(id).ok().flatten();
        left.iter().any(|one| one.store == store && one.path == path)
            || place.is_some_and(|place| place.store == store && place.path == path)
    }

    fn journal_files(&mut self) {
        let reports = self.appliance.journals.lock().reports();
        for (generation, report) in reports {
            // What a crash leaves at the end of a journal is not damage; while the recorder writes it is not even that.
            for found in report.findings.iter().filter(|found| found.kind != FindingKind::TornTail) {
                let (place, kind) = (format!("journal {generation}"), found.kind.to_string());
                self.note(Invariant::JournalSound, None, &place, &kind, &found.to_string());
            }
            self.left_out = self.left_out.saturating_add(report.findings_dropped);
        }
    }
}

/// Shows in health that rows of the catalogue do not open.
pub(crate) fn note_damaged(appliance: &Appliance, damaged: &[Uuid]) {
    if let Some(first) = damaged.first() {
        let count = damaged.len();
        let text = format!(
            "{count} rows of the catalogue were changed or damaged, the first that of recording {first}; `callvaultctl recordings verify` names them"
        );
        appliance.notes.set("catalogue-rows", text);
    }
}

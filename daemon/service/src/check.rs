//! `recordings verify`: tests the invariants that the writers keep. An archive is read to its end and compared with what the
//! catalogue says of it, the journal's frames are opened with their keys, the catalogue's rows and files are looked through.

use std::io::BufReader;
use std::path::Path;

use callvault_archive::{KeysFound, Reader, key_context, verify};
use callvault_catalogue::{CatalogueError, Filter, Recording};
use callvault_journal::{FindingKind, verify_lane};
use callvault_seal::DataKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::appliance::Appliance;
use crate::journals::{GenerationFiles, LaneView};
use crate::row::has_audio;
use crate::sound::{SoundError, open_lanes};
use crate::store::StoreFile;

/// Recordings taken from the catalogue at once.
const PAGE: usize = 500;

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
    /// `left_out` of the list.
    pub(crate) fn json(self) -> Value {
        json!({"checked": self.checked, "findings": self.findings, "left_out": self.left_out})
    }

    fn note(&mut self, recording: Option<Uuid>, place: &str, kind: &str, text: &str) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(json!({"recording": recording, "where": place, "kind": kind, "text": text}));
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
                let text = "its row was changed or damaged; restore the catalogue from a backup, or rebuild it from store and journal";
                self.note(Some(*id), "catalogue", "damaged-row", text);
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
        for problem in self.appliance.catalogue.check()? {
            self.note(None, "catalogue", "damaged", &problem);
        }
        Ok(())
    }

    /// Checks one recording, wherever its audio is.
    pub(crate) fn recording(&mut self, row: &Recording) {
        self.checked += 1;
        match row.archive.place() {
            Some(place) => self.archived(row, &place.path),
            None if has_audio(row) => self.journalled(row),
            None => {}
        }
    }

    fn archived(&mut self, row: &Recording, path: &str) {
        let open = || self.appliance.store.get(Path::new(path));
        let key = open().map_err(SoundError::from).and_then(|file| self.archive_key(file));
        let report = open()
            .map_err(SoundError::from)
            .and_then(|file| Ok(verify(BufReader::with_capacity(READ_BYTES, file), key.as_ref().ok())?));
        let report = match report {
            Ok(report) => report,
            // That the store is away is no finding about this recording; it is said once.
            Err(error) if error.is_away() => return self.away(&error),
            Err(error) => {
                // A recording that was deleted while it was looked at is no finding.
                let is_gone = matches!(self.appliance.catalogue.tombstone(row.id), Ok(Some(_)));
                if !is_gone {
                    self.note(Some(row.id), path, "unreadable", &format!("failed to {error}"));
                }
                return;
            }
        };
        if let Err(error) = key {
            self.note(Some(row.id), path, "key", &format!("failed to {error}"));
        }
        for found in &report.findings {
            self.note(Some(row.id), path, found.kind.code(), &found.to_string());
        }
        self.left_out = self.left_out.saturating_add(report.findings_left_out);
        if report.findings.is_empty() && row.archive.sha256.is_some_and(|sha| sha != report.sha256) {
            let text = "the archive is whole, but it is not the one that was written";
            self.note(Some(row.id), path, "another-file", text);
        }
        if report.header.recording != row.id {
            self.note(Some(row.id), path, "another-file", "the archive is that of another recording");
        }
    }

    fn away(&mut self, error: &SoundError) {
        self.checked = self.checked.saturating_sub(1);
        if !std::mem::replace(&mut self.store_is_away, true) {
            let text = format!("failed to {error}; the archives were not checked");
            self.note(None, "store", "away", &text);
        }
    }

    fn archive_key(&self, file: StoreFile) -> Result<DataKey, SoundError> {
        let reader = Reader::open(BufReader::new(file))?;
        match reader.keys() {
            KeysFound::InFile(sealed) => {
                Ok(self.appliance.keyring.open(sealed, &key_context(&reader.header().recording))?)
            }
            _ => Err(SoundError::NoKey),
        }
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
                return self.note(
                    Some(id),
                    "journal",
                    "missing",
                    "the recording is neither in the store nor in the journal",
                );
            }
        }
        let lanes: Vec<Option<u64>> = pinned.iter().map(|view| self.lane(id, view, &pinned.folder)).collect();
        // A tail that is cut off leaves nothing behind that could be found wrong: only the catalogue knows what was there.
        let (held, entered) =
            (lanes.into_iter().sum::<Option<u64>>(), row.tracks.iter().map(|t| t.packets).sum::<u64>());
        if let Some(held) = held.filter(|held| *held < entered) {
            let text = format!("{} of {entered} packets that it had are not in the journal any more", entered - held);
            self.note(Some(id), "journal", "packets-missing", &text);
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
                self.note(Some(id), &place, "key", &format!("failed to {error}"));
                return None;
            }
        };
        let mut packets = 0_u64;
        let mut files = GenerationFiles::new(folder, name.generation);
        for lane in &lanes {
            match verify_lane(name.generation, name.lane, &view.entry, lane.cipher(), &mut files) {
                Ok(report) => {
                    for found in &report.findings {
                        self.note(Some(id), &place, &found.kind.to_string(), &found.to_string());
                    }
                    self.left_out = self.left_out.saturating_add(report.findings_dropped);
                    packets = packets.saturating_add(report.packets);
                }
                Err(error) => {
                    self.note(Some(id), &place, "unreadable", &format!("failed to {error}"));
                    return None;
                }
            }
        }
        Some(packets)
    }

    fn journal_files(&mut self) {
        let reports = self.appliance.journals.lock().reports();
        for (generation, report) in reports {
            // What a crash leaves at the end of a journal is not damage; while the recorder writes it is not even that.
            for found in report.findings.iter().filter(|found| found.kind != FindingKind::TornTail) {
                self.note(None, &format!("journal {generation}"), &found.kind.to_string(), &found.to_string());
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

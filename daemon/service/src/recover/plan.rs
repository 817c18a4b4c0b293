//! What the new catalogue will hold: decided from what is left of the old one, the queue, the journal and the store.

use std::collections::{BTreeMap, BTreeSet};

use callvault_catalogue::{
    ArchiveState, Buried, Catalogue, CatalogueError, Lane, OwedJob, Recording, Restored, Tombstone, Verdict,
};
use callvault_journal::facts::SessionEvent;
use callvault_policy::links;
use callvault_queue::{Job, JobKind, StateName};
use callvault_seal::Keyring;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::archives::{self, Seen, Whole};
use super::report::Report;
use super::standing::Standing;
use crate::ingest::catalogued;
use crate::journals::{LaneView, Shared};
use crate::row::has_audio;
use crate::stores::Known;

/// Rows entered in one transaction.
const ROWS_AT_ONCE: usize = 200;

/// Owed jobs of kinds that only the old catalogue knows of, at most.
const OWED_MAX: u32 = 1_000_000;

/// What there is to decide from.
pub(super) struct Sources<'a> {
    pub(super) old: Option<&'a Catalogue>,
    pub(super) jobs: &'a [Job],
    pub(super) journals: &'a Shared,
    pub(super) store: &'a Standing,
    pub(super) keyring: &'a Keyring,
}

/// Where rows go as they are found: a catalogue may be larger than memory.
pub(super) struct Sink<'a> {
    /// None: it is only counted.
    catalogue: Option<&'a Catalogue>,
    waiting: Vec<Restored>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(catalogue: Option<&'a Catalogue>) -> Self {
        Self { catalogue, waiting: Vec::new() }
    }

    fn bury(&mut self, buried: &[Buried]) -> Result<(), CatalogueError> {
        self.catalogue.map_or(Ok(()), |catalogue| catalogue.bury(buried))
    }

    fn row(&mut self, row: Restored) -> Result<(), CatalogueError> {
        if self.catalogue.is_some() {
            self.waiting.push(row);
        }
        if self.waiting.len() >= ROWS_AT_ONCE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), CatalogueError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.catalogue.map_or(Ok(0), |catalogue| catalogue.restore(&waiting, Timestamp::now())).map(drop)
    }
}

/// What was found, and what is to be said about it.
#[derive(Default)]
pub(super) struct Plan {
    /// Recordings that are entered, or remembered as deleted.
    known: BTreeSet<Uuid>,
    /// What is counted on the way.
    counted: Report,
    /// Deletions that the old catalogue did not know, or not as owed.
    buried_anew: usize,
    /// Rows of the old catalogue that are damaged.
    damaged: BTreeSet<Uuid>,
}

impl Plan {
    /// Looks at everything there is, and gives each row to `sink`.
    ///
    /// # Errors
    /// Those of the catalogue that is written.
    pub(super) fn make(from: &Sources<'_>, sink: &mut Sink<'_>) -> Result<Report, CatalogueError> {
        let mut plan = Self::default();
        let archives = plan.archives(from);
        plan.bury(from, &archives, sink)?;
        let in_journal = from.journals.lock().recordings();
        plan.keep(from, &archives, &in_journal, sink)?;
        plan.adopt(from, &archives, &in_journal, sink)?;
        sink.flush()?;
        Ok(plan.report(from.old.is_some(), &in_journal))
    }

    /// Enters a row and counts it.
    fn enter(&mut self, row: Restored, sink: &mut Sink<'_>) -> Result<(), CatalogueError> {
        let recording = &row.recording;
        self.known.insert(recording.id);
        self.counted.discarded += usize::from(recording.verdict == Verdict::Discarded);
        let lacks_archive = recording.archive.state != ArchiveState::Archived && has_audio(recording);
        self.counted.archives_owed += usize::from(lacks_archive);
        sink.row(row)
    }

    /// Remembers deletions and counts them.
    fn lay(&mut self, buried: &[Buried], sink: &mut Sink<'_>) -> Result<(), CatalogueError> {
        self.known.extend(buried.iter().map(|one| one.tombstone.id));
        self.counted.deleted += buried.len();
        self.counted.deletions_owed += buried.iter().filter(|one| one.owes.is_some()).count();
        sink.bury(buried)
    }

    /// The archives of each recording.
    fn archives(&mut self, from: &Sources<'_>) -> BTreeMap<Uuid, Vec<String>> {
        let mut archives: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
        match from.store {
            Standing::There(used) => {
                let (found, troubles) = archives::find(&mut |folder| archives::list(&used.path, folder));
                for (id, path) in found {
                    archives.entry(id).or_default().push(path);
                }
                for text in troubles {
                    self.note(None, "store", text);
                }
            }
            Standing::Away(why) => {
                let text =
                    format!("{why}; recordings that only its archives know of are missing until this is run again");
                self.note(None, "store", text);
            }
            Standing::New => {}
        }
        archives
    }

    /// What was deleted stays so: by the tombstones of the old catalogue, by the jobs of the queue. Whatever still has an archive is
    /// not gone, whoever says so.
    fn bury(
        &mut self,
        from: &Sources<'_>,
        archives: &BTreeMap<Uuid, Vec<String>>,
        sink: &mut Sink<'_>,
    ) -> Result<(), CatalogueError> {
        let mut buried: BTreeMap<Uuid, Buried> =
            from.old.map(Catalogue::buried).unwrap_or_default().into_iter().map(|b| (b.tombstone.id, b)).collect();
        for job in from.jobs.iter().filter(|job| job.kind == JobKind::DELETE) {
            let when = i64::try_from(job.created_unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
            let tombstone = Tombstone {
                id: job.recording,
                deleted_at: when.unwrap_or_default(),
                rule: "known from the queue alone".to_owned(),
            };
            let owes = (job.state.name() != StateName::Done).then(|| job.payload.clone());
            buried.entry(job.recording).or_insert_with(|| {
                self.buried_anew += 1;
                Buried { tombstone, owes }
            });
        }
        for (id, buried) in &mut buried {
            if buried.owes.is_none()
                && let Some(path) = archives.get(id).and_then(|paths| paths.first())
                && let Standing::There(store) = from.store
            {
                buried.owes = Some(owed_for(store, path));
                self.buried_anew += 1;
            }
        }
        let buried: Vec<Buried> = buried.into_values().collect();
        self.lay(&buried, sink)
    }

    /// Rows that can be read stay as they are.
    fn keep(
        &mut self,
        from: &Sources<'_>,
        archives: &BTreeMap<Uuid, Vec<String>>,
        in_journal: &BTreeSet<Uuid>,
        sink: &mut Sink<'_>,
    ) -> Result<(), CatalogueError> {
        let Some(old) = from.old else { return Ok(()) };
        let mut owed: BTreeMap<Uuid, Vec<OwedJob>> = BTreeMap::new();
        for job in old.owed(OWED_MAX).unwrap_or_default() {
            owed.entry(job.recording).or_default().push(job);
        }
        for id in old.ids() {
            let mut recording = match old.get(id) {
                Ok(Some(recording)) => recording,
                Ok(None) => continue,
                Err(error) => {
                    if !matches!(error, CatalogueError::Damaged { .. }) {
                        self.note(Some(id), "catalogue", format!("failed to {error}"));
                    }
                    self.damaged.insert(id);
                    continue;
                }
            };
            let mut lanes = old.lanes(id).unwrap_or_default();
            let paths = archives.get(&id);
            let place = recording.archive.place();
            match (&place, from.store) {
                (Some(place), Standing::There(store))
                    if place.store == store.name && !paths.is_some_and(|paths| paths.contains(&place.path)) =>
                {
                    self.note(Some(id), "store", "its archive is not in the store; its row is kept".to_owned());
                }
                // The archive was made, and the catalogue that knew of it is lost.
                (None, Standing::There(_)) if has_audio(&recording) && !in_journal.contains(&id) => {
                    self.counted.from_archives += usize::from(self.complete(from, &mut recording, paths));
                }
                _ => {}
            }
            if recording.archive.state == ArchiveState::Archived {
                add_lanes(&mut lanes, id, from.journals);
            }
            let events = events_of(&recording.facts);
            let links = links(&id.to_string(), &events);
            let owed = owed.remove(&id).unwrap_or_default();
            self.counted.kept += 1;
            self.enter(Restored { recording, lanes, owed, links }, sink)?;
        }
        Ok(())
    }

    /// A row without an archive gets the one that is in the store, if that is whole. Says whether it did.
    fn complete(&mut self, from: &Sources<'_>, recording: &mut Recording, paths: Option<&Vec<String>>) -> bool {
        let Standing::There(store) = from.store else { return false };
        for path in paths.into_iter().flatten() {
            match archives::read(store, path, from.keyring) {
                Seen::Whole(whole) if whole.findings == 0 && whole.recording.id == recording.id => {
                    recording.archive = whole.recording.archive;
                    return true;
                }
                Seen::Whole(_) => {}
                Seen::Erased => self.note(Some(recording.id), path, "its keys were erased".to_owned()),
                Seen::Useless(text) => self.note(Some(recording.id), path, text),
            }
        }
        self.note(Some(recording.id), "journal", "its audio is neither in the journal nor in the store".to_owned());
        false
    }

    /// Archives without a row become recordings again.
    fn adopt(
        &mut self,
        from: &Sources<'_>,
        archives: &BTreeMap<Uuid, Vec<String>>,
        in_journal: &BTreeSet<Uuid>,
        sink: &mut Sink<'_>,
    ) -> Result<(), CatalogueError> {
        let Standing::There(store) = from.store else { return Ok(()) };
        for (id, path) in archives.iter().flat_map(|(id, paths)| paths.iter().map(move |path| (*id, path))) {
            if self.known.contains(&id) {
                continue;
            }
            match archives::read(store, path, from.keyring) {
                Seen::Useless(text) => self.note(Some(id), path, text),
                Seen::Erased => {
                    let tombstone =
                        Tombstone { id, deleted_at: Timestamp::now(), rule: "its keys were erased".to_owned() };
                    self.buried_anew += 1;
                    self.lay(&[Buried { tombstone, owes: Some(owed_for(store, path)) }], sink)?;
                }
                Seen::Whole(whole) if whole.recording.id != id => {
                    self.note(Some(id), path, "it is the archive of another recording".to_owned());
                }
                Seen::Whole(whole) if whole.findings > 0 && in_journal.contains(&id) => {
                    let text =
                        "it is damaged; the journal still has the recording, and it is archived again".to_owned();
                    self.note(Some(id), path, text);
                }
                Seen::Whole(whole) => {
                    let Whole { recording, events, findings } = *whole;
                    if findings > 0 {
                        let text = format!("it is damaged in {findings} places; the rest is kept");
                        self.note(Some(id), path, text);
                    }
                    let mut lanes = Vec::new();
                    add_lanes(&mut lanes, id, from.journals);
                    let links = links(&id.to_string(), &events);
                    self.counted.from_archives += 1;
                    self.enter(Restored { recording, lanes, owed: Vec::new(), links }, sink)?;
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, recording: Option<Uuid>, place: &str, text: String) {
        self.counted.note(recording, place, &text);
    }

    /// What is to be said; `had_catalogue` says whether the old one could be opened.
    fn report(mut self, had_catalogue: bool, in_journal: &BTreeSet<Uuid>) -> Report {
        let from_journal: BTreeSet<Uuid> = in_journal.difference(&self.known).copied().collect();
        self.counted.from_journal = from_journal.len();
        let is_lost = |id: &Uuid| !self.known.contains(id) && !from_journal.contains(id);
        let lost: Vec<Uuid> = self.damaged.iter().copied().filter(is_lost).collect();
        for id in &lost {
            let text = "its row is damaged, and neither journal nor store have it".to_owned();
            self.note(Some(*id), "catalogue", text);
        }
        let anew = self.counted.from_archives + self.buried_anew;
        let is_needed = !had_catalogue || !self.damaged.is_empty() || anew > 0;
        Report { lost: lost.len(), is_needed, ..self.counted }
    }
}

fn owed_for(store: &Known, path: &str) -> Value {
    json!({"store": store.name, "path": path})
}

/// The lanes that the journal has of a recording that needs none of them: they must not be entered again.
fn add_lanes(lanes: &mut Vec<Lane>, id: Uuid, journals: &Shared) {
    let views: Vec<LaneView> = journals.lock().lanes_of(id);
    for view in &views {
        let is_known = |lane: &Lane| (lane.generation, lane.lane) == (view.name.generation, view.name.lane);
        if !lanes.iter().any(is_known) {
            lanes.push(catalogued(id, view));
        }
    }
}

fn events_of(facts: &Value) -> Vec<SessionEvent> {
    let values = facts.as_array().into_iter().flatten();
    values.filter_map(|value| serde_json::from_value(value.clone()).ok()).collect()
}

//! What a recovery says of itself, for people and for programs.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use uuid::Uuid;

/// Remarks that are listed; more of them are counted.
const REMARKS_MAX: usize = 10_000;

/// Something that could not be recovered, or that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Remark {
    /// The recording that it concerns.
    pub(crate) recording: Option<Uuid>,
    /// Where: "catalogue", "queue", "journal", "store", or an archive's path in the store.
    #[serde(rename = "where")]
    pub(crate) place: String,
    /// One sentence, without personal data.
    pub(crate) text: String,
}

/// What was found, and what was done or would be.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    /// Nothing was to be changed.
    pub(crate) dry_run: bool,
    /// There is something to recover.
    pub(crate) is_needed: bool,
    /// A new catalogue was put in place.
    pub(crate) changed: bool,
    /// An earlier recovery had been broken off after its catalogue was complete, and was brought to its end.
    pub(crate) was_interrupted: bool,
    /// Recordings as the old catalogue has them.
    pub(crate) kept: usize,
    /// Recordings made again, or completed, from their archives.
    pub(crate) from_archives: usize,
    /// Recordings that the next start takes from the journal.
    pub(crate) from_journal: usize,
    /// Of those kept: sessions that were not kept on purpose.
    pub(crate) discarded: usize,
    /// Recordings that were deleted and stay so.
    pub(crate) deleted: usize,
    /// Of those: what was made of them is still to be removed, by the next start.
    pub(crate) deletions_owed: usize,
    /// Recordings that have no archive yet: the next start gives each a job.
    pub(crate) archives_owed: usize,
    /// Recordings whose row is damaged and of which nothing else is left.
    pub(crate) lost: usize,
    /// Where the old catalogue is now.
    pub(crate) aside: Option<PathBuf>,
    /// What could not be recovered, and why.
    pub(crate) remarks: Vec<Remark>,
    /// Remarks left out of the list.
    pub(crate) left_out: usize,
}

impl Report {
    /// An earlier recovery is only to be brought to its end.
    pub(super) fn interrupted() -> Self {
        Self { was_interrupted: true, is_needed: true, ..Self::default() }
    }

    pub(super) fn note(&mut self, recording: Option<Uuid>, place: &str, text: &str) {
        if self.remarks.len() < REMARKS_MAX {
            self.remarks.push(Remark { recording, place: place.to_owned(), text: text.to_owned() });
        } else {
            self.left_out += 1;
        }
    }

    /// Whether something could not be recovered.
    pub(crate) fn has_gaps(&self) -> bool {
        self.lost > 0 || self.remarks.iter().any(|remark| remark.recording.is_some() || remark.place == "store")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Remark { recording, place, text } in &self.remarks {
            match recording {
                Some(id) => writeln!(f, "recording {id}, {place}: {text}")?,
                None => writeln!(f, "{place}: {text}")?,
            }
        }
        if self.left_out > 0 {
            writeln!(f, "and {} more", self.left_out)?;
        }
        if self.was_interrupted {
            let word = if self.changed { "was" } else { "would be" };
            return writeln!(
                f,
                "an earlier recovery had been broken off when its catalogue was complete; it {word} put in place"
            );
        }
        let figures = [
            (self.kept, "recordings are kept as the catalogue has them"),
            (self.from_archives, "are made again from their archives"),
            (self.from_journal, "are in the journal; the next start takes them from it"),
            (self.deleted, "were deleted and stay so"),
            (self.deletions_owed, "of those are still to be removed; the next start does it"),
            (self.archives_owed, "have no archive yet; the next start gives each a job"),
            (self.lost, "are lost"),
        ];
        for (count, text) in figures {
            writeln!(f, "{count:>8} {text}")?;
        }
        match (&self.aside, self.is_needed) {
            _ if self.dry_run && self.is_needed => writeln!(f, "nothing was changed: this was a dry run"),
            (_, false) => writeln!(f, "the catalogue needs no recovery; nothing was changed"),
            (Some(aside), true) => writeln!(f, "the catalogue was made again; the old one is {}", aside.display()),
            (None, true) => writeln!(f, "the catalogue was made again; there was none before"),
        }
    }
}

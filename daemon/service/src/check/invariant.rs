//! What holds of everything that is kept, by the numbers of docs/durability.md.

/// One thing that always holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// What is on record as archived is in the store, whole, and the file that was written.
    ArchiveWhole = 1,
    /// A recording that is not archived has its audio in the journal, all of it.
    AudioThere = 2,
    /// An archive in the store is on record, or its removal is owed.
    ArchiveOnRecord = 3,
    /// Whatever is sealed is sealed to a private key that is here.
    KeyHere = 4,
    /// No journal file is freed before what it holds is archived or deleted.
    JournalKept = 5,
    /// Each recording without an archive has a job that makes it.
    ArchiveOwed = 6,
    /// Each deletion is owed until it is done, and has a job that does it.
    DeletionOwed = 7,
    /// Every row of the catalogue opens, and its file is sound.
    CatalogueSound = 8,
    /// Every frame of the journal that was promised is there and opens.
    JournalSound = 9,
    /// The queue takes and keeps jobs.
    QueueSound = 10,
}

impl Invariant {
    /// Its number.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// What to do when it does not hold.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::ArchiveWhole => {
                "restore the file from a backup of the store, into the same place; what is damaged only in part still plays"
            }
            Self::AudioThere => {
                "look for the journal's files in a backup of the data folder; otherwise the audio is lost"
            }
            Self::ArchiveOnRecord => {
                "stop callvaultd and run `callvaultctl recover`, which enters archives that are on no record"
            }
            Self::KeyHere => "put the private key that it is sealed to into the folder of keys, and restart",
            Self::JournalKept => "look for the journal's files in a backup of the data folder, and look at that disk",
            Self::ArchiveOwed => "nothing: it is put into the queue again within ten minutes, and at the next start",
            Self::DeletionOwed => {
                "a job that is missing comes back within ten minutes; for a file that is still there stop callvaultd and run `callvaultctl recover`, which owes its removal again"
            }
            Self::CatalogueSound => {
                "stop callvaultd and run `callvaultctl recover`, which rebuilds the catalogue from store and journal"
            }
            Self::JournalSound => "look at the disk of the journal; what is damaged costs itself, the rest is archived",
            Self::QueueSound => "make room on the disk of the data folder; the queue is opened again by itself",
        }
    }
}

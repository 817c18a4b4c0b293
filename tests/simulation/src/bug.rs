//! The mistakes that can be planted: each is one that the design forbids, made at the place where somebody could make it. A
//! simulation that does not find them shows nothing when it finds nothing.

use callvault_capture::simulated::Planted;

/// A planted mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// One in the recorder's glue.
    Recorder(Planted),
    /// A sync of the journal says that it is done and has not begun.
    SyncPretended,
    /// A failed sync is asked again and believed.
    FailedSyncRetried,
    /// A new journal file's name is not made durable.
    FolderNotSynced,
    /// A journal file has a successor before it is durable.
    RotatedWithoutSync,
    /// A recorder that is started again goes on under the generation of the one before, and begins its sequence anew.
    GenerationReused,
    /// The catalogue writes the row first and what it owes afterwards.
    RowBeforeOwed,
    /// The catalogue does not remember which lanes it has taken.
    LanesNotRemembered,
    /// A lane is entered when it is read, though it may be in the page cache alone.
    EnteredBeforeDurable,
    /// The queue acknowledges a job that is not on the device.
    QueueAcknowledgesEarly,
    /// The journal lets a recording go when its archive is written, not when it was verified and is on record.
    ReleasedBeforeRecorded,
    /// A journal file is removed when all lanes that begin in it have been let go, though others go on in it.
    FilesOfLaterLanesRemoved,
    /// An archive is put in its place before its bytes are on the device.
    RenamedBeforeSync,
    /// An archive is recorded without having been read back.
    NotVerified,
    /// Lanes are forgotten before the removal of their files is durable.
    LanesForgottenEarly,
    /// The store is written to without a look at its identity.
    StoreNotChecked,
    /// A job that has failed three times is taken for done.
    JobsGivenUp,
    /// A deletion removes the file and leaves its keys.
    KeysNotErased,
    /// A worker that was interrupted leaves its job running for ever.
    RunningJobsNotResumed,
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Bug] = &[
        Bug::Recorder(Planted::KeyBeforeVerdict),
        Bug::Recorder(Planted::OldestDropped),
        Bug::Recorder(Planted::PausesNotPassedOn),
        Bug::Recorder(Planted::EndsToldEarly),
        Bug::Recorder(Planted::QuestionsNotRepeated),
        Bug::Recorder(Planted::EndsWithoutSweep),
        Bug::Recorder(Planted::AudioOfAnother),
        Bug::Recorder(Planted::CheckpointAfterFrames),
        Bug::Recorder(Planted::NewestSlotBelieved),
        Bug::Recorder(Planted::RolloverForgotten),
        Bug::Recorder(Planted::SegmentReused),
        Bug::Recorder(Planted::SessionsNotForgotten),
        Bug::Recorder(Planted::AnsweredBeforeSaved),
        Bug::Recorder(Planted::PausesForgotten),
        Bug::Recorder(Planted::KeptUnasked),
        Bug::Recorder(Planted::ResumedNotTold),
        Bug::Recorder(Planted::EarlierKeysForgotten),
        Bug::SyncPretended,
        Bug::FailedSyncRetried,
        Bug::FolderNotSynced,
        Bug::RotatedWithoutSync,
        Bug::GenerationReused,
        Bug::RowBeforeOwed,
        Bug::LanesNotRemembered,
        Bug::EnteredBeforeDurable,
        Bug::QueueAcknowledgesEarly,
        Bug::ReleasedBeforeRecorded,
        Bug::FilesOfLaterLanesRemoved,
        Bug::RenamedBeforeSync,
        Bug::NotVerified,
        Bug::LanesForgottenEarly,
        Bug::StoreNotChecked,
        Bug::JobsGivenUp,
        Bug::KeysNotErased,
        Bug::RunningJobsNotResumed,
    ];
}

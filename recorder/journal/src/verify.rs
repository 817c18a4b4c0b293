//! Checks of whole journals: without keys, checksums and order; with a key, that every frame of a lane opens.

use callvault_seal::Cipher;
use uuid::Uuid;

use crate::error::JournalError;
use crate::finding::{Finding, Findings, Report};
use crate::index::{LaneEntry, LaneIndex};
use crate::lane_reader::{LaneItem, LaneReader};
use crate::read_at::JournalFiles;
use crate::scanner::Scanner;

/// Reads the files `file_seqs` (ascending) of a generation to their ends and says what is wrong; needs no keys. The index is
/// what [`verify_lane`] and [`LaneReader`] work from.
///
/// # Errors
/// As [`Scanner::scan`], and [`JournalError::Read`] when a file cannot be had.
pub fn verify(
    generation: Uuid,
    file_seqs: impl IntoIterator<Item = u32>,
    files: &mut dyn JournalFiles,
) -> Result<(Report, LaneIndex), JournalError> {
    let mut scanner = Scanner::new(generation);
    let mut index = LaneIndex::new();
    for file_seq in file_seqs {
        let file = files.file(file_seq).map_err(|source| JournalError::Read { file_seq, source })?;
        scanner.scan(file_seq, file, &mut |frame| {
            index.add(frame);
        })?;
    }
    Ok((scanner.report(), index))
}

/// What a lane held, opened with its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LaneReport {
    /// Frames that do not open or do not read.
    pub findings: Vec<Finding>,
    /// Findings beyond [`crate::FINDINGS_MAX`].
    pub findings_dropped: u64,
    /// Events read.
    pub events: u64,
    /// Packets read.
    pub packets: u64,
}

/// Opens every frame of a lane and says which do not.
///
/// # Errors
/// [`JournalError::Read`] when a file cannot be had; [`JournalError::Index`] when it is not known where the frames are.
pub fn verify_lane(
    generation: Uuid,
    lane: u32,
    entry: &LaneEntry,
    cipher: Cipher,
    files: &mut dyn JournalFiles,
) -> Result<LaneReport, JournalError> {
    let mut reader = LaneReader::new(generation, lane, cipher, entry.frames.load()?);
    let mut findings = Findings::default();
    let mut report = LaneReport::default();
    while let Some(item) = reader.next(files)? {
        match item {
            LaneItem::Facts(_) => report.events += 1,
            LaneItem::Audio(packets) => report.packets += packets.count() as u64,
            LaneItem::Finding(finding) => findings.push(finding),
        }
    }
    report.findings = findings.list;
    report.findings_dropped = findings.dropped;
    Ok(report)
}

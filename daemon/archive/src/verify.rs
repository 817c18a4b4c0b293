//! Checking a whole archive: every byte of it, with or without its key.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;

use callvault_seal::DataKey;

use crate::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, IndexEntry, Kind, Sealing};
use crate::contents::Contents;
use crate::header::{self, CHUNKS_OFFSET, Located};
use crate::scan::{Body, PIECES_MAX, Piece, Scanner};
use crate::{ArchiveError, FINDINGS_MAX, Finding, FindingKind, Header, KeysFound};

/// What checking an archive showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the header says about the recording.
    pub header: Header,
    /// What the header says about the sealed key.
    pub keys: KeysFound,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, to be compared with that in the catalogue.
    pub sha256: [u8; 32],
    /// Chunks that are whole, each counted once; authentic ones only when the key was given.
    pub chunks: u32,
    /// Packets in them; none without the key.
    pub packets: Option<u64>,
    /// Length of the recording in ticks, as far as an End or the facts are left to say it.
    pub total_ticks: Option<u64>,
    /// What is wrong, in the order of the file as far as there is one; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more findings there were.
    pub findings_left_out: u64,
}

impl Report {
    /// Whether nothing at all is wrong. Without a key this says that the bytes are those that were written, barring an attacker;
    /// with the key it says so without reservation.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Reads an archive from its beginning to its end and says everything that is wrong with it. Without `key` only checksums, order
/// and completeness of the chunks are checked; with it also that they are authentic and agree with each other.
///
/// # Errors
/// [`ArchiveError::NotAnArchive`] when no header is left, [`ArchiveError::Newer`], [`ArchiveError::Io`]. Damage is no error but a finding.
pub fn verify<R: Read>(input: R, key: Option<&DataKey>) -> Result<Report, ArchiveError> {
    let mut scanner = Scanner::new(input, true);
    let located = header::locate(first(scanner.peek(header::SEARCH_BYTES)?, header::SEARCH_BYTES))?;
    scanner.consume(located.chunks_from);
    let mut survey = Survey::new(&located, key);
    survey.run(&mut scanner)?;
    let (bytes, sha256) = scanner.finish();
    let mut findings = Findings::default();
    located.findings.into_iter().for_each(|finding| findings.add(finding));
    survey.judge(bytes, &mut findings);
    findings.kept.sort_by_key(|finding| finding.offset);
    Ok(Report {
        header: located.fixed.header,
        keys: located.keys,
        bytes,
        sha256,
        chunks: survey.whole_chunks(),
        packets: survey.sealing.is_some().then_some(survey.contents.packets),
        total_ticks: survey.total_ticks(),
        findings: findings.kept,
        findings_left_out: findings.left_out,
    })
}

/// What was found, up to [`FINDINGS_MAX`].
#[derive(Default)]
struct Findings {
    kept: Vec<Finding>,
    left_out: u64,
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(finding);
        } else {
            self.left_out += 1;
        }
    }
}

fn first(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

/// What a chunk was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Damaged,
    Cut,
    Altered,
}

/// A chunk of this archive, as found.
#[derive(Debug, Clone, Copy)]
struct Seen {
    index: u32,
    entry: IndexEntry,
    length: u64,
    state: State,
}

impl Seen {
    fn end(&self) -> u64 {
        self.entry.offset + self.length
    }
}

/// Everything found in the file, in the file's order.
struct Survey {
    header: Header,
    binding: [u8; 8],
    chunks_from: u64,
    sealing: Option<Sealing>,
    seen: Vec<Seen>,
    /// Offset and length of what is no chunk.
    noise: Vec<(u64, u64)>,
    /// Offset, length and index of chunks that are not this archive's.
    foreign: Vec<(u64, u64, u32)>,
    contents: Contents,
    overfull: bool,
}

impl Survey {
    fn new(located: &Located, key: Option<&DataKey>) -> Self {
        Self {
            header: located.fixed.header,
            binding: located.fixed.binding(),
            chunks_from: located.chunks_from as u64,
            sealing: key.map(|key| Sealing::new(key, located.fixed.hash)),
            seen: Vec::new(),
            noise: Vec::new(),
            foreign: Vec::new(),
            contents: Contents::default(),
            overfull: false,
        }
    }

    fn run<R: Read>(&mut self, scanner: &mut Scanner<R>) -> Result<(), ArchiveError> {
        let mut text = Vec::new();
        let mut taken = BTreeSet::new();
        while let Some(piece) = scanner.next(&mut text)? {
            self.overfull = self.seen.len() + self.noise.len() + self.foreign.len() >= PIECES_MAX;
            match piece {
                // Read on all the same, for the checksum of the file.
                _ if self.overfull => {}
                Piece::Noise { offset, length } => self.noise.push((offset, length)),
                Piece::Chunk { header, offset, length, .. } if header.binding != self.binding => {
                    self.foreign.push((offset, length, header.index));
                }
                Piece::Chunk { header, body, offset, length } => {
                    let state = self.examine(&header, body, &mut text, &mut taken);
                    let entry = IndexEntry { offset, first_ticks: header.first_ticks, kind: header.kind };
                    self.seen.push(Seen { index: header.index, entry, length, state });
                }
            }
        }
        Ok(())
    }

    fn examine(&mut self, header: &ChunkHeader, body: Body, text: &mut Vec<u8>, taken: &mut BTreeSet<u32>) -> State {
        match (body, &self.sealing) {
            (Body::Damaged, _) => State::Damaged,
            (Body::Cut, _) => State::Cut,
            (Body::Whole, Some(sealing)) if !sealing.open(header, text) => State::Altered,
            (Body::Whole, sealing) => {
                // A repeated chunk counts once.
                if sealing.is_some() && taken.insert(header.index) {
                    self.contents.take(&self.header, header, text);
                }
                State::Whole
            }
        }
    }

    fn whole_chunks(&self) -> u32 {
        let whole = self.seen.iter().filter(|seen| seen.state == State::Whole);
        whole.map(|seen| seen.index).collect::<BTreeSet<_>>().len() as u32
    }

    fn total_ticks(&self) -> Option<u64> {
        let end = self.seen.iter().rev().find(|seen| seen.entry.kind == Kind::End);
        let by_contents = self.contents.end.map(|end| end.total_ticks).or(self.contents.facts_ticks);
        by_contents.or(end.map(|seen| seen.entry.first_ticks))
    }

    /// Adds everything that is wrong with the chunks.
    fn judge(&mut self, bytes: u64, findings: &mut Findings) {
        let before = findings.kept.len();
        if self.overfull {
            let text = "the file has more pieces than an archive can have; what follows was not checked";
            findings.add(Finding::new(FindingKind::ForeignBytes, 0, bytes, text));
        }
        if self.seen.is_empty() && !self.foreign.is_empty() {
            let length = bytes - self.chunks_from;
            let text = "the chunks belong to another archive than the header";
            findings.add(Finding::new(FindingKind::WrongKey, self.chunks_from, length, text));
            return;
        }
        self.wrong_key(bytes).into_iter().for_each(|finding| findings.add(finding));
        let ends = self.seen.iter().filter(|seen| seen.entry.kind == Kind::End);
        // Should there be several, the best one counts.
        let end = ends.min_by_key(|seen| seen.state as u8).map(|seen| seen.index);
        self.set_apart_beyond(end);
        let judge = Judge::new(self, bytes, end.is_some());
        judge.chunks(findings);
        judge.gaps(findings);
        judge.tail(findings);
        judge.foreign(findings);
        judge.noise(findings);
        // What chunks say about each other means something only when all of them are there and in order.
        if findings.kept.len() == before && self.sealing.is_some() {
            let entries: Vec<IndexEntry> = self.seen.iter().map(|seen| seen.entry).collect();
            self.contents.disagreements(&entries);
            self.inconsistencies(findings);
        }
    }

    /// When no chunk opens, it is the key: one finding, and the chunks count as whole.
    fn wrong_key(&mut self, bytes: u64) -> Option<Finding> {
        let count = |state| self.seen.iter().filter(|seen| seen.state == state).count();
        if self.sealing.is_none() || count(State::Whole) > 0 || count(State::Altered) < 2 {
            return None;
        }
        for seen in self.seen.iter_mut().filter(|seen| seen.state == State::Altered) {
            seen.state = State::Whole;
        }
        self.sealing = None;
        let text = "the data key opens none of the chunks; they were checked without it";
        let length = bytes - self.chunks_from;
        Some(Finding::new(FindingKind::WrongKey, self.chunks_from, length, text))
    }

    /// Chunks numbered beyond the End are not this archive's, whatever they say.
    fn set_apart_beyond(&mut self, end: Option<u32>) {
        let Some(end) = end else { return };
        let (own, beyond) = std::mem::take(&mut self.seen).into_iter().partition(|seen| seen.index <= end);
        self.seen = own;
        let apart = |seen: Seen| (seen.entry.offset, seen.length, seen.index);
        self.foreign.extend(Vec::into_iter(beyond).map(apart));
    }

    fn inconsistencies(&self, findings: &mut Findings) {
        for (chunk, text) in &self.contents.faults {
            let place = self.seen.iter().find(|seen| seen.index == *chunk);
            let (offset, length) = place.map_or((0, 0), |seen| (seen.entry.offset, seen.length));
            let finding = Finding::new(FindingKind::Inconsistent, offset, length, text);
            findings.add(finding.of_chunks(*chunk, 1));
        }
    }
}

/// Turns what was found into findings. Every method is a question that leaves things as they are.
struct Judge<'a> {
    survey: &'a Survey,
    bytes: u64,
    ended: bool,
    total_ticks: u64,
    /// Which of `seen` are in their place.
    in_place: Vec<bool>,
    /// How many whole chunks there are of an index.
    whole: BTreeMap<u32, u32>,
    /// Known chunks by index: those of the seek table, then those found.
    known: Vec<(u32, IndexEntry)>,
    /// Runs of chunks that are nowhere, and between which offsets they should be; in order.
    gaps: Vec<(Range<u32>, Range<u64>)>,
}

impl<'a> Judge<'a> {
    fn new(survey: &'a Survey, bytes: u64, ended: bool) -> Self {
        let indices: Vec<u32> = survey.seen.iter().map(|seen| seen.index).collect();
        let table = survey.contents.table.iter().enumerate().map(|(index, entry)| (index as u32, *entry));
        let found = survey.seen.iter().filter(|seen| seen.state != State::Altered);
        let mut known: Vec<_> = table.chain(found.map(|seen| (seen.index, seen.entry))).collect();
        known.sort_by_key(|&(index, _)| index);
        known.dedup_by_key(|&mut (index, _)| index);
        let mut whole = BTreeMap::new();
        for seen in survey.seen.iter().filter(|seen| seen.state == State::Whole) {
            *whole.entry(seen.index).or_default() += 1;
        }
        let in_place = longest_rise(&indices);
        let gaps = find_gaps(survey, &in_place, bytes);
        let total_ticks = survey.total_ticks().unwrap_or(u64::MAX);
        Self { survey, bytes, ended, total_ticks, in_place, whole, known, gaps }
    }

    /// Chunks that are there but are not whole or not in their place.
    fn chunks(&self, findings: &mut Findings) {
        for (seen, &in_place) in self.survey.seen.iter().zip(&self.in_place) {
            let copies = self.whole.get(&seen.index).copied().unwrap_or(0);
            let (kind, text) = match (seen.state, in_place) {
                (State::Whole, true) => continue,
                (State::Whole, false) if copies > 1 => {
                    (FindingKind::Repeated, "a chunk is there a second time; nothing is lost")
                }
                (State::Whole, false) => (FindingKind::Swapped, "a chunk is not in its place; nothing is lost"),
                (State::Damaged, _) => (FindingKind::Damaged, "a chunk's bytes were changed"),
                (State::Cut, _) => (FindingKind::CutTail, "the file ends in the middle of a chunk"),
                (State::Altered, _) => (FindingKind::Altered, "a chunk is not authentic: it was changed on purpose"),
            };
            // What follows a cut is lost with it, and nobody can say how many chunks that is.
            let chunks = if seen.state == State::Cut { 0 } else { 1 };
            let ticks = if copies == 0 { self.ticks(seen.index, chunks) } else { None };
            let finding = Finding::new(kind, seen.entry.offset, seen.length, text);
            findings.add(finding.of_chunks(seen.index, chunks).losing(ticks));
        }
    }

    /// Chunks that are nowhere, before others that are somewhere.
    fn gaps(&self, findings: &mut Findings) {
        for (run, place) in &self.gaps {
            let chunks = run.end - run.start;
            let inside = self.noise_in(place);
            let finding = match (inside.first(), inside.last()) {
                (Some((start, _)), Some((offset, length))) => {
                    let text = "where a chunk should be there are other bytes";
                    Finding::new(FindingKind::Damaged, *start, offset + length - start, text)
                }
                _ => Finding::new(FindingKind::Missing, place.end, 0, "a chunk is not there"),
            };
            findings.add(finding.of_chunks(run.start, chunks).losing(self.ticks(run.start, chunks)));
        }
    }

    fn noise_in(&self, place: &Range<u64>) -> &[(u64, u64)] {
        let noise = &self.survey.noise;
        let from = noise.partition_point(|&(offset, _)| offset < place.start);
        let to = noise.partition_point(|&(offset, _)| offset < place.end);
        &noise[from..to]
    }

    /// When no End was found: what the file ends with.
    fn tail(&self, findings: &mut Findings) {
        if self.ended || self.survey.seen.iter().any(|seen| seen.state == State::Cut) {
            return;
        }
        let next = self.survey.seen.iter().map(|seen| seen.index + 1).max().unwrap_or(0);
        let (offset, length) = self.tail_noise().unwrap_or((self.bytes, 0));
        let room = length >= CHUNK_HEADER_BYTES as u64 && self.bytes > CHUNKS_OFFSET as u64;
        let finding = if room {
            let text = "the file does not end with an intact End chunk";
            Finding::new(FindingKind::Damaged, offset, length, text)
        } else {
            Finding::new(FindingKind::CutTail, offset, length, "the file ends before its End chunk")
        };
        findings.add(finding.of_chunks(next, 0).losing(self.ticks(next, 0)));
    }

    /// What follows the last chunk, if anything does.
    fn tail_noise(&self) -> Option<(u64, u64)> {
        self.survey.noise.last().copied().filter(|(offset, length)| offset + length == self.bytes)
    }

    fn foreign(&self, findings: &mut Findings) {
        for &(offset, length, index) in &self.survey.foreign {
            let text = "a chunk of another archive";
            findings.add(Finding::new(FindingKind::ForeignChunk, offset, length, text).of_chunks(index, 1));
        }
    }

    /// Bytes that stand for no chunk that is missed.
    fn noise(&self, findings: &mut Findings) {
        let tail = self.tail_noise().filter(|_| !self.ended);
        for &(offset, length) in &self.survey.noise {
            let gaps_before = self.gaps.partition_point(|(_, place)| place.start <= offset);
            let in_gap = gaps_before > 0 && offset < self.gaps[gaps_before - 1].1.end;
            // The rest of a header whose copies are not both in place was reported with them.
            let of_header = offset == self.survey.chunks_from && offset != CHUNKS_OFFSET as u64;
            if !in_gap && !of_header && tail != Some((offset, length)) {
                let text = "bytes that belong to no chunk; nothing is lost";
                findings.add(Finding::new(FindingKind::ForeignBytes, offset, length, text));
            }
        }
    }

    /// The stretch of audio that is lost with these chunks (`chunks` = 0: with all from this one on); none when they held no audio.
    fn ticks(&self, index: u32, chunks: u32) -> Option<Range<u64>> {
        let from = self.known.partition_point(|&(known, _)| known < index);
        let beyond = if chunks == 0 { u32::MAX } else { index.saturating_add(chunks) };
        let to = self.known.partition_point(|&(known, _)| known < beyond);
        let lost = &self.known[from..to];
        let all_known = chunks > 0 && lost.len() == chunks as usize;
        let any_audio = lost.iter().any(|(_, entry)| entry.kind == Kind::Audio);
        let before = from.checked_sub(1).map(|at| &self.known[at].1);
        let itself = lost.first().filter(|(first, _)| *first == index).map(|(_, entry)| entry);
        // After the audio come only facts and seek table.
        let after_audio = |entry: &IndexEntry| entry.kind != Kind::Audio && entry.first_ticks > 0;
        let no_more_audio = before.is_some_and(after_audio) || itself.is_some_and(after_audio);
        if !any_audio && (all_known || no_more_audio) {
            return None;
        }
        let start = itself.or(before).map_or(0, |entry| entry.first_ticks);
        let after = self.known.get(to).map(|(_, entry)| entry.first_ticks);
        let end = after.unwrap_or(self.total_ticks).max(start);
        (any_audio || start < end).then_some(start..end)
    }
}

/// Runs of chunks that are nowhere, and between which offsets they should be.
fn find_gaps(survey: &Survey, in_place: &[bool], bytes: u64) -> Vec<(Range<u32>, Range<u64>)> {
    let present: BTreeSet<u32> = survey.seen.iter().map(|seen| seen.index).collect();
    let (mut gaps, mut next, mut end) = (Vec::new(), 0, survey.chunks_from);
    for (seen, _) in survey.seen.iter().zip(in_place).filter(|(_, placed)| **placed) {
        let place = end..seen.entry.offset;
        gaps.extend(absent(&present, next..seen.index).into_iter().map(|run| (run, place.clone())));
        (next, end) = (seen.index + 1, seen.end());
    }
    // Beyond the last one in place, up to the highest there is: the last ones changed places.
    let highest = present.last().map_or(0, |&index| index + 1).max(next);
    gaps.extend(absent(&present, next..highest).into_iter().map(|run| (run, end..bytes)));
    gaps
}

/// The runs of `range` that are not in `present`.
fn absent(present: &BTreeSet<u32>, range: Range<u32>) -> Vec<Range<u32>> {
    let (mut runs, mut next) = (Vec::new(), range.start);
    for &index in present.range(range.clone()) {
        if index > next {
            runs.push(next..index);
        }
        next = index + 1;
    }
    if range.end > next {
        runs.push(next..range.end);
    }
    runs
}

/// Which elements belong to the longest strictly rising sequence: the chunks that are in their place. Of equal ones the first does.
fn longest_rise(indices: &[u32]) -> Vec<bool> {
    // ends[n]: where the rise of length n + 1 with the lowest end ends; before[i]: what comes before i in its rise.
    let (mut ends, mut before) = (Vec::<usize>::new(), vec![None; indices.len()]);
    for (at, &index) in indices.iter().enumerate() {
        let length = ends.partition_point(|&end| indices[end] < index);
        before[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        match ends.get_mut(length) {
            Some(end) if indices[*end] == index => {}
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let (mut rising, mut next) = (vec![false; indices.len()], ends.last().copied());
    while let Some(at) = next {
        rising[at] = true;
        next = before[at];
    }
    // Where there are several, the one of chunks that are where their numbers say: then two that changed places are told as those two.
    let at_home: Vec<bool> = (0u32..).zip(indices).map(|(at, &index)| at == index).collect();
    let count = |these: &[bool]| these.iter().filter(|is| **is).count();
    if count(&at_home) == count(&rising) { at_home } else { rising }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(indices: &[u32], in_place: &[u32]) {
        let rise = longest_rise(indices);
        let found: Vec<u32> = indices.iter().zip(rise).filter(|(_, r)| *r).map(|(i, _)| *i).collect();
        assert_eq!(found, in_place, "of {indices:?}");
    }

    #[test]
    fn what_is_in_place_is_the_longest_rise() {
        check(&[], &[]);
        check(&[0, 1, 2, 3], &[0, 1, 2, 3]);
        check(&[0, 3, 2, 1, 4], &[0, 2, 4]);
        check(&[0, 5, 2, 3, 4, 1, 6], &[0, 2, 3, 4, 6]);
        check(&[0, 1, 1, 2, 3, 2, 3, 4], &[0, 1, 2, 3, 4]);
        check(&[3, 0, 1, 2], &[0, 1, 2]);
        check(&[u32::MAX, 0], &[0]);
    }
}

//! Whether authentic chunks agree with each other: the part of checking an archive that needs its key.

use crate::chunk::{CHUNK_TICKS_MAX, ChunkHeader, End, Fields, IndexEntry, Kind, StoredPacket};
use crate::reader::{decode_facts, facts_part};
use crate::{FACTS_BYTES_MAX, Header};

/// What the chunks hold, gathered while they go by.
#[derive(Default)]
pub(crate) struct Contents {
    /// The seek table, as far as its chunks came in order.
    pub(crate) table: Vec<IndexEntry>,
    pub(crate) end: Option<End>,
    pub(crate) packets: u64,
    pub(crate) last_position: u64,
    /// Total ticks by the facts, when these were understood.
    pub(crate) facts_ticks: Option<u64>,
    /// Number of codecs of each track, by the facts.
    codecs: Vec<usize>,
    facts: Vec<u8>,
    facts_next: u16,
    /// How often the facts were there whole and understood.
    facts_copies: u32,
    /// What was wrong, by chunk.
    pub(crate) faults: Vec<(u32, String)>,
}

/// Faults kept at most: a writer that went wrong did so in every chunk.
const FAULTS_MAX: usize = 100;

impl Contents {
    /// Takes in the plaintext of an authentic chunk. `header` is that of the archive.
    pub(crate) fn take(&mut self, header: &Header, chunk: &ChunkHeader, plaintext: &[u8]) {
        let fault = match chunk.kind {
            Kind::Facts => self.take_facts(header, plaintext),
            Kind::Audio => self.take_audio(chunk, plaintext),
            Kind::Index => self.take_index(plaintext),
            Kind::End => self.take_end(plaintext),
            Kind::Other(_) => Ok(()),
        };
        if let Err(text) = fault {
            self.fault(chunk.index, text);
        }
    }

    fn fault(&mut self, chunk: u32, text: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push((chunk, text));
        }
    }

    fn take_facts(&mut self, header: &Header, plaintext: &[u8]) -> Result<(), String> {
        let (part, count, text) = facts_part(plaintext).ok_or("it is not a part of the facts")?;
        if part == 0 {
            self.facts.clear();
            self.facts_next = 0;
        }
        if part != self.facts_next || self.facts.len() + text.len() > FACTS_BYTES_MAX {
            return Err("it is not the part of the facts that follows".into());
        }
        self.facts.extend(text);
        self.facts_next += 1;
        if self.facts_next == count {
            self.facts_next = 0;
            let json = std::mem::take(&mut self.facts);
            let facts = decode_facts(&json).map_err(|text| format!("the facts cannot be read: {text}"))?;
            if facts.recording_id != header.recording {
                return Err("the facts are of another recording than the header".into());
            }
            self.facts_ticks = Some(facts.total_ticks);
            self.codecs = facts.tracks.iter().map(|track| track.codecs.len()).collect();
            self.facts_copies += 1;
        }
        Ok(())
    }

    fn take_audio(&mut self, chunk: &ChunkHeader, plaintext: &[u8]) -> Result<(), String> {
        let mut fields = Fields(plaintext);
        let mut last = chunk.first_ticks;
        let (mut first, mut bad) = (None, None);
        while !fields.0.is_empty() {
            let packet = StoredPacket::take(&mut fields).ok_or("it does not hold whole packets")?;
            let known = self.codecs.get(usize::from(packet.track));
            // Without the facts nothing can be said about codecs.
            if !self.codecs.is_empty() && known.is_none_or(|&codecs| usize::from(packet.codec) >= codecs) {
                bad = Some("a packet names a track or codec that the facts do not have");
            }
            if packet.position < last || packet.position - chunk.first_ticks >= CHUNK_TICKS_MAX {
                bad = Some("its packets are not in order or reach too far");
            }
            first = first.or(Some(packet.position));
            last = last.max(packet.position);
            self.packets += 1;
        }
        self.last_position = self.last_position.max(last);
        if first != Some(chunk.first_ticks) {
            bad = Some("its first packet is not where its header says");
        }
        bad.map_or(Ok(()), |text| Err(text.into()))
    }

    fn take_index(&mut self, plaintext: &[u8]) -> Result<(), String> {
        let (first, entries) = IndexEntry::list(plaintext).ok_or("it is not a seek table")?;
        if first as usize == self.table.len() {
            self.table.extend(entries);
        }
        Ok(())
    }

    fn take_end(&mut self, plaintext: &[u8]) -> Result<(), String> {
        self.end = Some(End::parse(plaintext).ok_or("it does not hold the counts")?);
        Ok(())
    }

    /// What does not agree, once every chunk was there, authentic and in its place; `chunks` are their entries in order.
    pub(crate) fn disagreements(&mut self, chunks: &[IndexEntry]) {
        let Some(end) = self.end else { return };
        let last = chunks.len().saturating_sub(1) as u32;
        let listed = end.chunks.saturating_sub(end.index_chunks.saturating_add(1)) as usize;
        let index_offset = chunks.get(listed).map(|entry| entry.offset);
        if end.chunks as usize != chunks.len() || index_offset != Some(end.index_offset) {
            self.fault(last, "the End does not say where the seek table is".into());
        } else if self.table != chunks[..listed] {
            self.fault(last, "the seek table does not list the chunks as they are".into());
        }
        if end.packets != self.packets {
            let text = format!("the End counts {} packets, and there are {}", end.packets, self.packets);
            self.fault(last, text);
        }
        let total_ticks = self.facts_ticks.map(|ticks| ticks.max(self.last_position));
        if total_ticks.is_some_and(|ticks| ticks != end.total_ticks) {
            self.fault(last, "the End and the facts do not agree on the length".into());
        }
        if self.facts_copies != 2 {
            let text = format!("the facts are there {} times instead of twice", self.facts_copies);
            self.fault(0, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use callvault_seal::DataKey;
    use uuid::Uuid;

    use super::*;
    use crate::chunk::{CHUNK_HEADER_BYTES, Sealing};
    use crate::{ArchiveCodec, ArchiveFacts, ArchiveTrack, FindingKind, Keys, Played, Reader, header, verify};

    /// What a writer that went wrong put into chunks: kind, first position, plaintext.
    type Chunks = Vec<(Kind, u64, Vec<u8>)>;

    const HEADER: Header = Header { recording: Uuid::from_u128(7), created_at_ns: 1 };

    fn packet(codec: u8, position: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        StoredPacket { track: 0, codec, position, payload: b"speech" }.put(&mut bytes);
        bytes
    }

    fn facts(change: impl Fn(&mut ArchiveFacts)) -> Vec<u8> {
        let track = ArchiveTrack { codecs: vec![ArchiveCodec::default()], ..ArchiveTrack::default() };
        let mut facts = ArchiveFacts {
            recording_id: HEADER.recording,
            total_ticks: 960,
            tracks: vec![track],
            ..ArchiveFacts::default()
        };
        change(&mut facts);
        [vec![0, 0, 1, 0], serde_json::to_vec(&facts).unwrap()].concat()
    }

    /// Facts, one of Audio, Facts, Index, End, as they should be.
    fn right() -> Chunks {
        let facts = facts(|_| {});
        let mut chunks =
            vec![(Kind::Facts, 0, facts.clone()), (Kind::Audio, 0, packet(0, 0)), (Kind::Facts, 960, facts)];
        let (mut offset, mut index) = (header::CHUNKS_OFFSET as u64, vec![0; 4]);
        for (kind, first_ticks, plaintext) in &chunks {
            IndexEntry { offset, first_ticks: *first_ticks, kind: *kind }.put(&mut index);
            offset += (CHUNK_HEADER_BYTES + plaintext.len() + 16) as u64;
        }
        chunks.push((Kind::Index, 960, index));
        let mut end = Vec::new();
        End { chunks: 5, packets: 1, total_ticks: 960, index_offset: offset, index_chunks: 1 }.put(&mut end);
        chunks.push((Kind::End, 960, end));
        chunks
    }

    /// A file of these chunks is found to be inconsistent in this chunk and for this reason, and playing it gives as many packets.
    #[track_caller]
    fn check(change: impl Fn(&mut Chunks), chunk: u32, reason: &str, packets: usize) {
        let mut chunks = right();
        change(&mut chunks);
        let key = DataKey::from_bytes([1; 32]);
        let (mut file, hash) = header::compose(&HEADER, Keys::Elsewhere).unwrap();
        let sealing = Sealing::new(&key, hash);
        for (index, (kind, first_ticks, plaintext)) in chunks.iter().enumerate() {
            let mut buf = [vec![0; CHUNK_HEADER_BYTES], plaintext.clone()].concat();
            sealing.seal(index as u32, *kind, *first_ticks, &mut buf);
            file.extend(buf);
        }
        let report = verify(file.as_slice(), Some(&key)).unwrap();
        let all_so = report.findings.iter().all(|finding| finding.kind == FindingKind::Inconsistent);
        let told = report.findings.iter().any(|f| f.chunk == Some(chunk) && f.text.contains(reason));
        assert!(all_so && told != reason.is_empty(), "{reason}: {:#?}", report.findings);
        assert!(!reason.is_empty() || report.is_clean(), "{:#?}", report.findings);
        let mut archive = Reader::open(Cursor::new(&file)).unwrap().unlock(&key).unwrap();
        let played = archive.packets(0..u64::MAX).filter(|played| matches!(played, Ok(Played::Packet(_))));
        assert_eq!(played.count(), packets, "{reason}");
    }

    #[test]
    fn a_writer_that_went_wrong_is_found() {
        check(|_| {}, 0, "", 1);
        check(|c| c[1].2.truncate(15), 1, "whole packets", 0);
        check(|c| c[1].2.clear(), 1, "first packet is not where", 0);
        check(|c| c[1].2 = packet(1, 0), 1, "track or codec", 1);
        check(|c| c[1].2 = packet(0, 1), 1, "first packet is not where", 1);
        check(|c| c[1].2.extend(packet(0, CHUNK_TICKS_MAX)), 1, "not in order or reach too far", 2);
        check(|c| (c[1].1, c[1].2) = (5, [packet(0, 5), packet(0, 4)].concat()), 1, "not in order or reach too far", 2);
        check(|c| c[1].2[9] = 0xff, 1, "first packet is not where", 1);
        check(|c| c[2].2 = facts(|f| f.recording_id = Uuid::nil()), 2, "another recording", 1);
        check(|c| c[2].2 = facts(|f| f.version = 2), 2, "version 2", 1);
        check(|c| c[2].2 = facts(|f| f.total_ticks = 961), 4, "agree on the length", 1);
        check(|c| c[2].2[10] = 0, 2, "cannot be read", 1);
        check(|c| c[2].2[2] = 2, 0, "1 times instead of twice", 1);
        check(|c| c[2].2[0] = 1, 2, "not a part of the facts", 1);
        check(|c| (c[2].2[0], c[2].2[2]) = (1, 2), 2, "part of the facts that follows", 1);
        check(|c| c[3].0 = Kind::Other(9), 4, "does not list the chunks", 1);
        check(|c| c[3].2.truncate(30), 3, "not a seek table", 1);
        check(|c| c[3].2[0] = 1, 4, "does not list the chunks", 1);
        check(|c| c[3].2[4] = 9, 4, "does not list the chunks", 1);
        check(|c| c[4].2.truncate(20), 4, "does not hold the counts", 1);
        check(|c| c[4].2[0] = 9, 4, "where the seek table is", 1);
        check(|c| c[4].2[0] = 0, 4, "where the seek table is", 1);
        check(|c| c[4].2[4] = 9, 4, "counts 9 packets", 1);
        check(|c| c[4].2[12] = 9, 4, "agree on the length", 1);
        check(|c| c[4].2[20] = 9, 4, "where the seek table is", 1);
        check(|c| c[4].2[30] = 16, 4, "where the seek table is", 1);
    }
}

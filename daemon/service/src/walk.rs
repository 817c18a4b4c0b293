//! A walk over everything that the journal holds of a recording, lane after lane, frame after frame. Each walk meets the same things
//! in the same order and names them the same, so what a first one learnt holds for a second.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;

use callvault_archive::timeline::{PacketHeader, ReportHeader};
use callvault_journal::facts::{CodecFacts, SessionEvent, Started, TrackFacts};
use callvault_journal::{JournalError, LaneItem, LaneReader};
use callvault_media::{Encoding, payload_duration};

use crate::journals::GenerationFiles;
use crate::sound::{OpenLane, SoundError};

/// Codecs of one track; packets name theirs by a byte.
const CODECS_MAX: usize = 255;

/// Which codec a payload type means at each moment: the same walk over the events gives the same answers each time.
#[derive(Default)]
pub(crate) struct CodecTable {
    pub(crate) tracks: BTreeMap<u8, TrackTable>,
}

#[derive(Default)]
pub(crate) struct TrackTable {
    pub(crate) facts: TrackFacts,
    pub(crate) codecs: Vec<CodecFacts>,
    by_payload_type: HashMap<u8, u8>,
}

impl CodecTable {
    fn learn(&mut self, event: &SessionEvent) {
        let SessionEvent::Track(facts) = event else { return };
        let table = self.tracks.entry(facts.track).or_default();
        for codec in &facts.codecs {
            let place = table.place(codec);
            table.by_payload_type.insert(codec.payload_type, place);
        }
        table.facts = facts.clone();
    }

    fn codec(&mut self, track: u8, payload_type: u8) -> (u8, &CodecFacts) {
        let table = self.tracks.entry(track).or_default();
        table.facts.track = track;
        let place = match table.by_payload_type.get(&payload_type) {
            Some(place) => *place,
            None => {
                let unknown = CodecFacts {
                    payload_type,
                    encoding: format!("payload-type-{payload_type}"),
                    clock_rate: 8_000,
                    channels: 1,
                    fmtp: None,
                };
                let place = table.place(&unknown);
                table.by_payload_type.insert(payload_type, place);
                place
            }
        };
        (place, &table.codecs[usize::from(place)])
    }
}

impl TrackTable {
    fn place(&mut self, codec: &CodecFacts) -> u8 {
        let same = |known: &CodecFacts| {
            known.encoding.eq_ignore_ascii_case(&codec.encoding)
                && (known.clock_rate, known.channels, &known.fmtp) == (codec.clock_rate, codec.channels, &codec.fmtp)
        };
        let place = self.codecs.iter().position(same).unwrap_or_else(|| {
            if self.codecs.len() < CODECS_MAX {
                self.codecs.push(codec.clone());
            }
            self.codecs.len() - 1
        });
        u8::try_from(place).unwrap_or(u8::MAX)
    }
}

/// The packets and events of all lanes of a recording, one after the other.
pub(crate) struct Walk {
    lanes: VecDeque<(LaneReader, GenerationFiles)>,
    pub(crate) table: CodecTable,
    sources: Sources,
    /// Lanes that were read to their end.
    lane: usize,
    /// How often sources have been numbered from 0 again: with each lane, but for those whose recorder knew of the one before.
    numbering: usize,
}

/// The numbers of the sources. The recorder numbers them from 0 in a lane unless it knew of the lane before; over all lanes of a
/// recording they must not be confused.
#[derive(Default)]
struct Sources {
    numbers: HashMap<(usize, u8, u8), u8>,
    /// The next number of each track; none when all are used.
    next: HashMap<u8, Option<u8>>,
}

impl Sources {
    /// The number of a source over all lanes; none when the track has had more sources than there are numbers.
    fn number(&mut self, numbering: usize, track: u8, source: u8) -> Option<u8> {
        if let Some(number) = self.numbers.get(&(numbering, track, source)) {
            return Some(*number);
        }
        let next = self.next.entry(track).or_insert(Some(0));
        let number = (*next)?;
        *next = number.checked_add(1);
        self.numbers.insert((numbering, track, source), number);
        Some(number)
    }
}

/// One packet met on the walk.
pub(crate) struct Met<'a> {
    /// Place of its lane among those of the recording.
    pub(crate) lane: usize,
    pub(crate) header: PacketHeader,
    pub(crate) codec: u8,
    pub(crate) payload_type: u8,
    pub(crate) payload: &'a [u8],
}

pub(crate) enum Item<'a> {
    Event(&'a SessionEvent),
    /// A sender report, which is an event too.
    Report(ReportHeader),
    Packet(Met<'a>),
    /// A packet of a source that has no number.
    Unnumbered,
    /// Frames that are lost.
    Lost(u64),
}

impl Walk {
    /// Fails when it is not known where the lanes' frames are.
    pub(crate) fn new(folder: &Path, lanes: &[OpenLane]) -> Result<Self, JournalError> {
        let open = |lane: &OpenLane| {
            let name = lane.view.name;
            let frames = lane.view.entry.frames.load()?;
            let reader = LaneReader::new(name.generation, name.lane, lane.cipher(), frames);
            Ok((reader, GenerationFiles::new(folder, name.generation)))
        };
        let lanes = lanes.iter().map(open).collect::<Result<_, JournalError>>()?;
        Ok(Self { lanes, table: CodecTable::default(), sources: Sources::default(), lane: 0, numbering: 0 })
    }

    /// Takes the next frame and gives each thing in it to `each`. False at the end.
    pub(crate) fn step(&mut self, mut each: impl FnMut(Item<'_>)) -> Result<bool, SoundError> {
        let Some((reader, files)) = self.lanes.front_mut() else { return Ok(false) };
        match reader.next(files)? {
            None => {
                self.lanes.pop_front();
                self.lane += 1;
                self.numbering += 1;
            }
            Some(LaneItem::Facts(event)) => {
                self.table.learn(&event);
                if let SessionEvent::Started(Started { resumed: Some(resumed), .. }) = &event
                    && resumed.sources_continue
                {
                    self.numbering = self.numbering.saturating_sub(1);
                }
                each(Item::Event(&event));
                if let SessionEvent::SenderReport(facts) = &event
                    && let Some(source) = self.sources.number(self.numbering, facts.track, facts.source)
                {
                    each(Item::Report(ReportHeader {
                        track: facts.track,
                        source,
                        ntp: facts.ntp,
                        timestamp: facts.rtp_timestamp,
                        arrival_ns: facts.at_ns,
                        clock: facts.clock,
                    }));
                }
            }
            Some(LaneItem::Audio(packets)) => {
                for packet in packets {
                    let (codec, facts) = self.table.codec(packet.track, packet.payload_type);
                    let Some(source) = self.sources.number(self.numbering, packet.track, packet.source) else {
                        each(Item::Unnumbered);
                        continue;
                    };
                    let duration = payload_duration(
                        Encoding::named(&facts.encoding),
                        facts.clock_rate,
                        facts.channels,
                        packet.payload,
                    );
                    let header = PacketHeader {
                        track: packet.track,
                        source,
                        seq: packet.seq,
                        timestamp: packet.timestamp,
                        arrival_ns: packet.arrival_ns,
                        clock_rate: facts.clock_rate,
                        duration_ticks: duration,
                    };
                    each(Item::Packet(Met {
                        lane: self.lane,
                        header,
                        codec,
                        payload_type: packet.payload_type,
                        payload: packet.payload,
                    }));
                }
            }
            Some(LaneItem::Finding(finding)) => {
                let frames = finding.frames.map_or(1, |f| f.end().saturating_sub(*f.start()).saturating_add(1));
                each(Item::Lost(frames));
            }
        }
        Ok(true)
    }
}

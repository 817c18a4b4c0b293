//! A recording's audio from the journal: the real reader, the real alignment.

use std::collections::{BTreeMap, HashMap};

use callvault_archive::timeline::{PacketHeader, Timeline};
use callvault_journal::facts::{SessionEvent, Started, TrackCounts};
use callvault_journal::{FindingKind, JournalFiles, LaneItem, LaneReader, ReadAt, file_name};
use callvault_media::{Encoding, payload_duration};
use callvault_policy::{Damage, RestartLoss};
use uuid::Uuid;

use crate::daemon::View;
use crate::device::{Device, Reading};
use crate::outside::{Outside, keys};

/// The clock rate of the one codec of these simulations, PCMU.
const CLOCK_RATE: u32 = 8_000;

/// A packet in its place.
pub(crate) struct Placed {
    pub(crate) track: u8,
    pub(crate) position: u64,
    pub(crate) payload: Vec<u8>,
}

/// What reading a recording's lanes gives.
pub(crate) struct Sound {
    pub(crate) events: Vec<SessionEvent>,
    pub(crate) damage: Damage,
    /// In the order of their positions.
    pub(crate) packets: Vec<Placed>,
    pub(crate) total_ticks: u64,
    pub(crate) call_id: Option<String>,
    /// Packets that have no place.
    pub(crate) unplaced: u64,
}

struct Files {
    device: Device,
    generation: Uuid,
    open: BTreeMap<u32, Reading>,
}

impl JournalFiles for Files {
    fn file(&mut self, file_seq: u32) -> std::io::Result<&mut dyn ReadAt> {
        if !self.open.contains_key(&file_seq) {
            let name = file_name(self.generation, file_seq);
            let file = self.device.reading(&name).ok_or(std::io::ErrorKind::NotFound)?;
            self.open.insert(file_seq, file);
        }
        self.open
            .get_mut(&file_seq)
            .map(|file| file as &mut dyn ReadAt)
            .ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

impl Sound {
    /// A track of which there are more packets than were counted when the recording ended.
    pub(crate) fn uncounted(&self) -> Option<u8> {
        let ended = self.events.iter().find_map(|event| match event {
            SessionEvent::Ended(ended) => Some(ended),
            _ => None,
        })?;
        let is_more = |there: &&TrackCounts| {
            ended.tracks.iter().any(|counted| counted.track == there.track && counted.packets < there.packets)
        };
        self.damage.counted.iter().find(is_more).map(|there| there.track)
    }

    /// Reads lanes in their order.
    ///
    /// # Errors
    /// When a key does not open, or a file is missing.
    pub(crate) fn read(out: &Outside, views: &[View]) -> Result<Self, String> {
        let mut events = Vec::new();
        let mut met: Vec<(PacketHeader, Vec<u8>)> = Vec::new();
        let mut lost_frames = 0;
        let (mut numbering, mut sources, mut joins) = (0_usize, Sources::default(), Joins::default());
        // A part without a key is passed over as long as another has one.
        let readable: Vec<&View> = views.iter().filter(|view| !view.entry.keys.is_empty()).collect();
        for (place, view) in readable.iter().enumerate() {
            let context = view.entry.key_context(view.name.0, view.name.1).ok_or("it has no name")?;
            let key = keys().0.open(&view.entry.keys, &context).map_err(|error| error.to_string())?;
            let frames = view.entry.frames.load().map_err(|error| error.to_string())?;
            let mut reader = LaneReader::new(view.name.0, view.name.1, key.cipher(), frames);
            let mut files = Files { device: out.spool.device.clone(), generation: view.name.0, open: BTreeMap::new() };
            while let Some(item) = reader.next(&mut files).map_err(|error| error.to_string())? {
                match item {
                    LaneItem::Facts(event) => {
                        if let SessionEvent::Started(Started { resumed: Some(resumed), .. }) = &event
                            && resumed.sources_continue
                        {
                            numbering = numbering.saturating_sub(1);
                        }
                        events.push(event);
                    }
                    LaneItem::Audio(packets) => met.extend(packets.map(|packet| {
                        let source = sources.number(numbering, packet.track, packet.source);
                        let encoding = Encoding::named("PCMU");
                        let header = PacketHeader {
                            track: packet.track,
                            source,
                            seq: packet.seq,
                            timestamp: packet.timestamp,
                            arrival_ns: packet.arrival_ns,
                            clock_rate: CLOCK_RATE,
                            duration_ticks: payload_duration(encoding, CLOCK_RATE, 1, packet.payload),
                        };
                        joins.observe(place, &header);
                        (header, packet.payload.to_vec())
                    })),
                    LaneItem::Finding(_) => lost_frames += 1,
                }
            }
            numbering += 1;
        }
        let seen = Damage {
            lost_frames,
            restarts: joins.restarts,
            lost_at_restarts: joins.lost(),
            parts_unreadable: (views.len() - readable.len()) as u32,
            ..Damage::default()
        };
        Ok(Self::place(&readable, events, met, seen))
    }

    fn place(views: &[&View], events: Vec<SessionEvent>, met: Vec<(PacketHeader, Vec<u8>)>, seen: Damage) -> Self {
        let mut timeline = Timeline::new();
        met.iter().for_each(|(header, _)| timeline.observe(header));
        let alignment = timeline.finish();
        let mut counted: BTreeMap<u8, u64> = BTreeMap::new();
        for (header, _) in &met {
            *counted.entry(header.track).or_default() += 1;
        }
        let damage = Damage {
            torn_tail: views.iter().flat_map(|v| &v.findings).any(|f| f.kind == FindingKind::TornTail),
            recorder_died: views.iter().any(|v| v.over && v.entry.end.is_none()),
            first_ns: met.iter().map(|(header, _)| header.arrival_ns).min(),
            last_ns: met.iter().map(|(header, _)| header.arrival_ns).max(),
            counted: counted
                .into_iter()
                .map(|(track, packets)| TrackCounts { track, packets, ..TrackCounts::default() })
                .collect(),
            ..seen
        };
        let unplaced = alignment.unplaced();
        let mut packets: Vec<Placed> = met
            .into_iter()
            .filter_map(|(header, payload)| {
                Some(Placed { track: header.track, position: alignment.position(&header)?, payload })
            })
            .collect();
        packets.sort_by_key(|packet| packet.position);
        let call_id = events.iter().find_map(|event| match event {
            SessionEvent::Started(started) => Some(started.sip_call_id.clone()),
            _ => None,
        });
        Self { events, damage, packets, total_ticks: alignment.total_ticks(), call_id, unplaced }
    }
}

/// The numbers of the sources over all parts of a recording: each recorder numbers them from 0 unless it knew of the part before.
#[derive(Default)]
struct Sources {
    numbers: HashMap<(usize, u8, u8), u8>,
    next: HashMap<u8, u8>,
}

impl Sources {
    fn number(&mut self, numbering: usize, track: u8, source: u8) -> u8 {
        let next = self.next.entry(track).or_default();
        *self.numbers.entry((numbering, track, source)).or_insert_with(|| {
            *next = next.wrapping_add(1);
            next.wrapping_sub(1)
        })
    }
}

/// What is missing between one part and the next, by the numbers of the packets.
#[derive(Default)]
struct Joins {
    restarts: u32,
    place: usize,
    newest: HashMap<(u8, u8), (usize, u32)>,
    lost: BTreeMap<u8, (u64, u64)>,
}

impl Joins {
    fn observe(&mut self, place: usize, header: &PacketHeader) {
        self.restarts += u32::from(place > self.place);
        self.place = self.place.max(place);
        let newest = self.newest.entry((header.track, header.source)).or_insert((place, header.seq));
        let (before, last) = *newest;
        if before < place {
            let missing = u64::from(header.seq.saturating_sub(last).saturating_sub(1));
            let (packets, ms) = self.lost.entry(header.track).or_default();
            *packets += missing;
            *ms += missing * 20;
        }
        *newest = (place, last.max(header.seq));
    }

    fn lost(&self) -> Vec<RestartLoss> {
        let lost = self.lost.iter().filter(|(_, (packets, _))| *packets > 0);
        lost.map(|(track, (packets, ms))| RestartLoss { track: *track, packets: *packets, ms: *ms }).collect()
    }
}

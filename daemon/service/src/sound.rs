//! The audio of a recording in the order of its positions, wherever it is: in the journal while there is no archive yet, in the
//! archive afterwards. What plays, exports and archives works on this alone.
//!
//! From the journal it takes two passes: the first reads the facts and aligns the tracks, the second gives out the packets at
//! their positions. Packets are in the journal nearly in the order of their positions; a window of [`WINDOW_TICKS`] puts them
//! in order exactly, so memory does not grow with the call.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use callvault_archive::timeline::{Alignment, PacketHeader, Timeline};
use callvault_archive::{ArchiveCodec, ArchiveError, ArchiveTrack, Played, Unlocked};
use callvault_journal::facts::{CodecFacts, SessionEvent, TrackCounts, TrackFacts};
use callvault_journal::{JournalError, LaneItem, LaneReader};
use callvault_media::{Encoding, payload_duration};
use callvault_policy::{Anchor, Damage, HeardCodec};
use callvault_render_protocol::{Codec, CodecSpec, Packet, RenderError};
use callvault_seal::{Cipher, DataKey, Keyring, SealError};

use crate::journals::{GenerationFiles, LaneView};

/// Ticks in a second.
pub(crate) const TICKS_PER_SECOND: u64 = 48_000;

/// How far packets may be from their place in the journal: more than what gathers in a socket while a recorder restarts.
const WINDOW_TICKS: u64 = 60 * TICKS_PER_SECOND;

/// Codecs of one track; packets name theirs by a byte.
const CODECS_MAX: usize = 255;

/// Why audio cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SoundError {
    #[error("read the journal: {0}")]
    Journal(#[from] JournalError),
    #[error("read the archive: {0}")]
    Archive(#[from] ArchiveError),
    #[error("open the recording's key: {0}")]
    Key(#[from] SealError),
    #[error("open the recording's key: it is in no journal frame; the recording was not kept, or the frame is damaged")]
    NoKey,
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("{0}")]
    Store(#[from] crate::store::StoreError),
    #[error("use the disk: {0}")]
    Io(#[from] io::Error),
}

/// What the first pass over a recording in the journal shows.
pub(crate) struct Reading {
    /// All events, in order.
    pub(crate) events: Vec<SessionEvent>,
    /// What reading showed beside them.
    pub(crate) damage: Damage,
    /// The tracks, with the codecs that were heard.
    pub(crate) tracks: Vec<ArchiveTrack>,
    /// Length in ticks.
    pub(crate) total_ticks: u64,
    alignment: Arc<Alignment>,
    /// Place of each (track, codec as met) among the tracks and their codecs above.
    places: HashMap<(u8, u8), (u8, u8)>,
}

/// A lane with its key.
pub(crate) struct OpenLane {
    view: LaneView,
    key: DataKey,
}

impl OpenLane {
    /// The lane's key, ready to open frames.
    pub(crate) fn cipher(&self) -> Cipher {
        self.key.cipher()
    }
}

/// Opens the keys of a recording's lanes.
pub(crate) fn open_lanes(views: Vec<LaneView>, keyring: &Keyring) -> Result<Vec<OpenLane>, SoundError> {
    views
        .into_iter()
        .map(|view| {
            let context = view.entry.key_context(view.name.generation, view.name.lane).ok_or(SoundError::NoKey)?;
            if view.entry.keys.is_empty() {
                return Err(SoundError::NoKey);
            }
            let key = keyring.open(&view.entry.keys, &context)?;
            Ok(OpenLane { view, key })
        })
        .collect()
}

/// Which codec a payload type means at each moment: the same walk over the events gives the same answers each time.
#[derive(Default)]
struct CodecTable {
    tracks: BTreeMap<u8, TrackTable>,
}

#[derive(Default)]
struct TrackTable {
    facts: TrackFacts,
    codecs: Vec<CodecFacts>,
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
struct Walk {
    lanes: VecDeque<(LaneReader, GenerationFiles)>,
    table: CodecTable,
    /// Sources are numbered per lane; over all lanes they must not be confused.
    sources: HashMap<(usize, u8, u8), u8>,
    next_source: HashMap<u8, u8>,
    lane: usize,
}

/// One packet met on the walk.
struct Met<'a> {
    header: PacketHeader,
    codec: u8,
    payload_type: u8,
    payload: &'a [u8],
}

enum Item<'a> {
    Event(&'a SessionEvent),
    Packet(Met<'a>),
    Lost(u64),
}

impl Walk {
    fn new(folder: &Path, lanes: &[OpenLane]) -> Self {
        let lanes = lanes
            .iter()
            .map(|lane| {
                let name = lane.view.name;
                let reader =
                    LaneReader::new(name.generation, name.lane, lane.key.cipher(), &lane.view.entry.frames);
                (reader, GenerationFiles::new(folder, name.generation))
            })
            .collect();
        Self { lanes, table: CodecTable::default(), sources: HashMap::new(), next_source: HashMap::new(), lane: 0 }
    }

    /// Takes the next frame and gives each thing in it to `each`. False at the end.
    fn step(&mut self, mut each: impl FnMut(Item<'_>)) -> Result<bool, SoundError> {
        let Some((reader, files)) = self.lanes.front_mut() else { return Ok(false) };
        match reader.next(files)? {
            None => {
                self.lanes.pop_front();
                self.lane += 1;
            }
            Some(LaneItem::Facts(event)) => {
                self.table.learn(&event);
                each(Item::Event(&event));
            }
            Some(LaneItem::Audio(packets)) => {
                for packet in packets {
                    let (codec, facts) = self.table.codec(packet.track, packet.payload_type);
                    let source = *self.sources.entry((self.lane, packet.track, packet.source)).or_insert_with(|| {
                        let next = self.next_source.entry(packet.track).or_insert(0);
                        let source = *next;
                        *next = next.saturating_add(1);
                        source
                    });
                    let duration =
                        payload_duration(Encoding::named(&facts.encoding), facts.clock_rate, facts.channels, packet.payload);
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

impl Reading {
    /// Reads a recording's lanes through once: its events, its alignment, what is missing.
    pub(crate) fn of_journal(folder: &Path, lanes: &[OpenLane]) -> Result<Self, SoundError> {
        let mut events = Vec::new();
        let mut timeline = Timeline::new();
        let mut heard: BTreeMap<(u8, u8), u64> = BTreeMap::new();
        let mut types: HashMap<(u8, u8), u64> = HashMap::new();
        let mut lost_frames = 0;
        let (mut first_ns, mut last_ns) = (None, None);
        let mut walk = Walk::new(folder, lanes);
        while walk.step(|item| match item {
            Item::Event(event) => events.push(event.clone()),
            Item::Lost(frames) => lost_frames += frames,
            Item::Packet(met) => {
                timeline.observe(&met.header);
                *heard.entry((met.header.track, met.codec)).or_default() += 1;
                *types.entry((met.header.track, met.payload_type)).or_default() += 1;
                let at = met.header.arrival_ns;
                first_ns = Some(first_ns.map_or(at, |first: u64| first.min(at)));
                last_ns = Some(last_ns.map_or(at, |last: u64| last.max(at)));
            }
        })? {}
        let alignment = Arc::new(timeline.finish());
        let (tracks, places) = tracks(&walk.table, &heard, &alignment, &events);
        let ended_badly = lanes.iter().any(|l| l.view.over && !l.view.ended());
        let findings = lanes.iter().flat_map(|l| &l.view.findings);
        let damage = Damage {
            torn_tail: findings.clone().any(|f| f.kind == callvault_journal::FindingKind::TornTail),
            lost_frames: lost_frames
                + findings
                    .filter(|f| f.lane.is_some() && f.kind != callvault_journal::FindingKind::TornTail)
                    .filter_map(|f| f.frames.as_ref())
                    .map(|f| f.end().saturating_sub(*f.start()).saturating_add(1))
                    .sum::<u64>(),
            recorder_died: ended_badly,
            first_ns,
            last_ns,
            anchor: None::<Anchor>,
            counted: counted(&heard),
            heard: most_heard(&types),
        };
        let total_ticks = alignment.total_ticks();
        Ok(Self { events, damage, tracks, total_ticks, alignment, places })
    }

    /// The packets at positions in `range`, in order.
    pub(crate) fn packets(&self, folder: &Path, lanes: &[OpenLane], range: Range<u64>) -> JournalPackets {
        JournalPackets {
            walk: Walk::new(folder, lanes),
            alignment: Arc::clone(&self.alignment),
            places: self.places.clone(),
            held: BinaryHeap::new(),
            met: 0,
            horizon: 0,
            given: 0,
            range,
            at_end: false,
        }
    }
}

fn counted(heard: &BTreeMap<(u8, u8), u64>) -> Vec<TrackCounts> {
    let mut per_track: BTreeMap<u8, u64> = BTreeMap::new();
    for ((track, _), packets) in heard {
        *per_track.entry(*track).or_default() += packets;
    }
    per_track.into_iter().map(|(track, packets)| TrackCounts { track, packets, ..TrackCounts::default() }).collect()
}

fn most_heard(types: &HashMap<(u8, u8), u64>) -> Vec<HeardCodec> {
    let mut most: BTreeMap<u8, (u64, u8)> = BTreeMap::new();
    for (&(track, payload_type), &packets) in types {
        let best = most.entry(track).or_default();
        *best = (*best).max((packets, payload_type));
    }
    most.into_iter().map(|(track, (_, payload_type))| HeardCodec { track, payload_type }).collect()
}

/// The tracks as an archive lists them: only codecs that were heard, since the highest rate among them is that of the output.
fn tracks(
    table: &CodecTable,
    heard: &BTreeMap<(u8, u8), u64>,
    alignment: &Alignment,
    events: &[SessionEvent],
) -> (Vec<ArchiveTrack>, HashMap<(u8, u8), (u8, u8)>) {
    let mut tracks = Vec::new();
    let mut places = HashMap::new();
    let call = callvault_policy::fold_call(events);
    for (&number, known) in &table.tracks {
        let mut codecs = Vec::new();
        for (&(_, met), _) in heard.range((number, 0)..=(number, u8::MAX)) {
            if let (Some(codec), Ok(track), Ok(place)) =
                (known.codecs.get(usize::from(met)), u8::try_from(tracks.len()), u8::try_from(codecs.len()))
            {
                places.insert((number, met), (track, place));
                codecs.push(ArchiveCodec {
                    encoding: codec.encoding.clone(),
                    clock_rate: codec.clock_rate,
                    channels: codec.channels,
                    fmtp: codec.fmtp.clone(),
                    pre_skip: 0,
                });
            }
        }
        let label = &known.facts.label;
        let speaker = std::iter::once(&call.local)
            .chain(&call.remotes)
            .find(|p| p.labels.contains(label))
            .and_then(|p| p.name.clone().or_else(|| p.number.clone()));
        let (holes, pauses) = split_holes(alignment.holes(number), &pauses_of(events, number, alignment));
        tracks.push(ArchiveTrack {
            label: label.clone(),
            participant: speaker.map(Into::into),
            local: known.facts.local,
            codecs,
            holes,
            pauses,
        });
    }
    (tracks, places)
}

/// The pauses of a track, in ticks.
fn pauses_of(events: &[SessionEvent], track: u8, alignment: &Alignment) -> Vec<(u64, u64)> {
    let mut pauses = Vec::new();
    let mut since: Option<u64> = None;
    let end = alignment.total_ticks();
    let ticks = |at_ns: u64| (at_ns.saturating_sub(alignment.start_ns()) / 1_000).saturating_mul(48) / 1_000;
    for event in events {
        match event {
            SessionEvent::Paused(p) if p.track.is_none_or(|t| t == track) => {
                since = since.or(Some(ticks(p.at_ns).min(end)));
            }
            SessionEvent::Resumed(p) if p.track.is_none_or(|t| t == track) => {
                if let Some(from) = since.take() {
                    pauses.push((from, ticks(p.at_ns).min(end)));
                }
            }
            _ => {}
        }
    }
    pauses.extend(since.map(|from| (from, end)));
    pauses.retain(|(from, to)| to > from);
    pauses
}

/// Holes that lie in a pause are there on purpose.
fn split_holes(holes: Vec<(u64, u64)>, pauses: &[(u64, u64)]) -> (Vec<(u64, u64)>, Vec<(u64, u64)>) {
    let on_purpose = |hole: &(u64, u64)| pauses.iter().any(|p| hole.0 < p.1 && p.0 < hole.1);
    (holes.into_iter().filter(|h| !on_purpose(h)).collect(), pauses.to_vec())
}

/// A packet that waits for its turn; ordered by position, then by the order in the journal.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    position: u64,
    met: u64,
    track: u8,
    codec: u8,
    payload: Vec<u8>,
}

/// The packets of a recording in the journal, in order of their positions.
pub(crate) struct JournalPackets {
    walk: Walk,
    alignment: Arc<Alignment>,
    places: HashMap<(u8, u8), (u8, u8)>,
    held: BinaryHeap<Reverse<Held>>,
    met: u64,
    horizon: u64,
    given: u64,
    range: Range<u64>,
    at_end: bool,
}

impl JournalPackets {
    fn read_on(&mut self) -> Result<(), SoundError> {
        let Self { walk, alignment, places, held, met, horizon, given, range, at_end } = self;
        let more = walk.step(|item| {
            let Item::Packet(packet) = item else { return };
            let Some(position) = alignment.position(&packet.header) else { return };
            *horizon = (*horizon).max(position);
            let Some(&(track, codec)) = places.get(&(packet.header.track, packet.codec)) else { return };
            // One that comes after its window has nowhere to go: the place is given out already.
            if !range.contains(&position) || position < *given {
                return;
            }
            *met += 1;
            held.push(Reverse(Held { position, met: *met, track, codec, payload: packet.payload.to_vec() }));
        })?;
        *at_end = !more;
        Ok(())
    }
}

impl Iterator for JournalPackets {
    type Item = Result<Packet, SoundError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let is_due = |held: &Reverse<Held>| self.at_end || held.0.position + WINDOW_TICKS <= self.horizon;
            if self.held.peek().is_some_and(is_due) {
                let Reverse(held) = self.held.pop()?;
                self.given = held.position;
                let Held { position, track, codec, payload, .. } = held;
                return Some(Ok(Packet { track, codec, position, payload }));
            }
            if self.at_end {
                return None;
            }
            if let Err(error) = self.read_on() {
                self.at_end = true;
                self.held.clear();
                return Some(Err(error));
            }
        }
    }
}

/// The packets of an archive. A damaged chunk is a hole, not an end.
pub(crate) fn archive_packets<R: io::Read + io::Seek>(
    archive: &mut Unlocked<R>,
    range: Range<u64>,
) -> impl Iterator<Item = Result<Packet, SoundError>> + use<'_, R> {
    archive.packets(range).filter_map(|played| match played {
        Ok(Played::Packet(p)) => {
            Some(Ok(Packet { track: p.track, codec: p.codec, position: p.position, payload: p.payload }))
        }
        Ok(Played::Hole(finding)) => {
            tracing::warn!(%finding, "a part of an archive is damaged");
            None
        }
        Err(error) => Some(Err(error.into())),
    })
}

/// A codec as the render process knows it.
pub(crate) fn codec_spec(codec: &ArchiveCodec) -> CodecSpec {
    CodecSpec {
        codec: Codec::from_encoding(&codec.encoding),
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        fmtp: codec.fmtp.clone(),
        pre_skip: codec.pre_skip,
    }
}

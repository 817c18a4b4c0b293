//! The audio of a recording in the order of its positions, wherever it is: in the journal while there is no archive yet, in the
//! archive afterwards. What plays, exports and archives works on this alone.
//!
//! From the journal it takes two passes: the first reads the facts and aligns the tracks, the second gives out the packets at
//! their positions. Packets are in the journal nearly in the order of their positions; a window of [`WINDOW_TICKS`] puts them
//! in order exactly, so memory does not grow with the call.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use callvault_archive::timeline::{Alignment, PacketHeader, Timeline};
use callvault_archive::{ArchiveCodec, ArchiveError, ArchiveTrack, Played, Unlocked};
use callvault_journal::facts::{SessionEvent, TrackCounts};
use callvault_journal::{FindingKind, JournalError};
use callvault_policy::{Damage, HeardCodec, RestartLoss, TrackClock};
use callvault_render_protocol::{CODEC_TEXT_BYTES_MAX, Codec, CodecSpec, Packet, RenderError};
use callvault_seal::{Cipher, DataKey, Keyring, SealError};

use crate::journals::LaneView;
use crate::listing::{Places, tracks};
use crate::store::is_away;
use crate::walk::{CodecTable, Item, Walk};

/// Ticks in a second.
pub(crate) const TICKS_PER_SECOND: u64 = 48_000;

/// How far packets may be from their place in the journal: more than what gathers in a socket while a recorder restarts.
const WINDOW_TICKS: u64 = 60 * TICKS_PER_SECOND;

/// Why audio cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SoundError {
    #[error("read the journal: {0}")]
    Journal(#[from] JournalError),
    #[error("read the archive: {0}")]
    Archive(#[from] ArchiveError),
    #[error("open the recording's key: {0}")]
    Key(#[from] SealError),
    #[error("open the recording's key: there is none that is sealed to this appliance beside the audio")]
    NoKey,
    #[error("find the recording's audio: it is neither in the store nor in the journal")]
    NotThere,
    #[error("find the recording's audio: the journal is still being read; try again in a moment")]
    NotReadYet,
    #[error("find the recording's audio: the recording was deleted")]
    Deleted,
    #[error("go on: the daemon is stopping")]
    Stopping,
    #[error("go on: the listener is gone")]
    ListenerGone,
    #[error("look the recording up: {0}")]
    Catalogue(#[from] callvault_catalogue::CatalogueError),
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("{0}")]
    Store(#[from] crate::store::StoreError),
    #[error("use the disk: {0}")]
    Io(#[from] io::Error),
}

impl SoundError {
    /// Whether it says that the store as a whole is not to be used now.
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::Store(error) => error.is_away(),
            Self::Archive(ArchiveError::Io { source, .. }) => is_away(source),
            _ => false,
        }
    }
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
    /// Packets that have no place in time, or whose source is beyond what a track can have.
    pub(crate) unplaced: u64,
    alignment: Arc<Alignment>,
    /// Place of each (track, codec as met) among the tracks and their codecs above.
    places: Places,
}

/// A lane with its key.
pub(crate) struct OpenLane {
    pub(crate) view: LaneView,
    key: DataKey,
}

impl OpenLane {
    /// The lane's key, ready to open frames.
    pub(crate) fn cipher(&self) -> Cipher {
        self.key.cipher()
    }
}

/// Opens the keys of a recording's lanes. A lane without a key is passed over as long as another has one: its recorder was lost together
/// with what it had not written yet.
pub(crate) fn open_lanes(views: &[LaneView], keyring: &Keyring) -> Result<Vec<OpenLane>, SoundError> {
    let has_key = |view: &&LaneView| !view.entry.keys.is_empty();
    let is_any = views.iter().any(|view| has_key(&view));
    views
        .iter()
        .filter(|view| has_key(view) || !is_any)
        .map(|view| {
            let context = view.entry.key_context(view.name.generation, view.name.lane).ok_or(SoundError::NoKey)?;
            if view.entry.keys.is_empty() {
                return Err(SoundError::NoKey);
            }
            let key = keyring.open(&view.entry.keys, &context)?;
            Ok(OpenLane { view: view.clone(), key })
        })
        .collect()
}

impl Reading {
    /// Reads a recording's lanes through once: its events, its alignment, what is missing.
    pub(crate) fn of_journal(folder: &Path, lanes: &[OpenLane]) -> Result<Self, SoundError> {
        let mut events = Vec::new();
        let mut timeline = Timeline::new();
        let mut heard: BTreeMap<(u8, u8), u64> = BTreeMap::new();
        let mut types: HashMap<(u8, u8), u64> = HashMap::new();
        let (mut lost_frames, mut unnumbered) = (0_u64, 0_u64);
        let (mut first_ns, mut last_ns) = (None, None);
        let mut walk = Walk::new(folder, lanes)?;
        let mut joins = Joins::default();
        while walk.step(|item| match item {
            Item::Event(event) => events.push(event.clone()),
            Item::Lost(frames) => lost_frames = lost_frames.saturating_add(frames),
            Item::Report(report) => timeline.observe_report(&report),
            Item::Unnumbered => unnumbered += 1,
            Item::Packet(met) => {
                timeline.observe(&met.header);
                joins.observe(met.lane, &met.header);
                *heard.entry((met.header.track, met.codec)).or_default() += 1;
                *types.entry((met.header.track, met.payload_type)).or_default() += 1;
                let at = met.header.arrival_ns;
                first_ns = Some(first_ns.map_or(at, |first: u64| first.min(at)));
                last_ns = Some(last_ns.map_or(at, |last: u64| last.max(at)));
            }
        })? {}
        for lane in lanes {
            lost_frames = lost_frames.saturating_add(missing_frames(&lane.view)?);
        }
        let alignment = Arc::new(timeline.finish());
        let (tracks, places) = tracks(&walk.table, &heard, &alignment, &events);
        let damage = Damage {
            torn_tail: lanes.iter().flat_map(|l| &l.view.findings).any(|f| f.kind == FindingKind::TornTail),
            lost_frames,
            recorder_died: lanes.iter().any(|l| l.view.over && !l.view.ended()),
            restarts: joins.restarts,
            lost_at_restarts: joins.lost(),
            parts_unreadable: 0,
            first_ns,
            last_ns,
            anchor: lanes.first().and_then(|l| l.view.anchor),
            counted: counted(&heard),
            heard: most_heard(&types),
            clocks: clocks(&walk.table, &alignment),
        };
        let total_ticks = alignment.total_ticks();
        let unplaced = alignment.unplaced().saturating_add(unnumbered);
        Ok(Self { events, damage, tracks, total_ticks, unplaced, alignment, places })
    }

    /// The packets at positions in `range`, in order. Fails when it is not known where the lanes' frames are.
    pub(crate) fn packets(
        &self,
        folder: &Path,
        lanes: &[OpenLane],
        range: Range<u64>,
    ) -> Result<JournalPackets, JournalError> {
        Ok(JournalPackets {
            walk: Walk::new(folder, lanes)?,
            alignment: Arc::clone(&self.alignment),
            places: self.places.clone(),
            held: BinaryHeap::new(),
            met: 0,
            horizon: 0,
            given: 0,
            too_late: 0,
            range,
            at_end: false,
        })
    }
}

/// What is missing between one lane and the next: what the recorder that died had taken and not written.
#[derive(Default)]
struct Joins {
    restarts: u32,
    lane: usize,
    /// The newest packet of each source, and its lane.
    newest: HashMap<(u8, u8), (usize, u32)>,
    lost: BTreeMap<u8, (u64, u64)>,
}

impl Joins {
    fn observe(&mut self, lane: usize, header: &PacketHeader) {
        self.restarts += u32::from(lane > self.lane);
        self.lane = self.lane.max(lane);
        let newest = self.newest.entry((header.track, header.source)).or_insert((lane, header.seq));
        let (before, last) = *newest;
        if before < lane {
            let missing = u64::from(header.seq.saturating_sub(last).saturating_sub(1));
            let packet_us = u64::from(header.duration_ticks.unwrap_or(0)).saturating_mul(1_000_000)
                / u64::from(header.clock_rate.max(1));
            let (packets, us) = self.lost.entry(header.track).or_default();
            *packets = packets.saturating_add(missing);
            *us = us.saturating_add(missing.saturating_mul(packet_us));
        }
        *newest = (lane, last.max(header.seq));
    }

    fn lost(&self) -> Vec<RestartLoss> {
        let lost = self.lost.iter().filter(|(_, (packets, _))| *packets > 0);
        lost.map(|(track, (packets, us))| RestartLoss { track: *track, packets: *packets, ms: us / 1_000 }).collect()
    }
}

/// Frames of a lane that the scan knows to be lost and that are not even in the index, where reading would meet them again. What
/// is repeated or out of order is there; a torn tail was never promised.
fn missing_frames(view: &LaneView) -> Result<u64, JournalError> {
    let lost = view.findings.iter().filter(|f| {
        f.lane == Some(view.name.lane) && matches!(f.kind, FindingKind::Damaged | FindingKind::SequenceGap)
    });
    let ranges: Vec<_> = lost.filter_map(|f| f.frames.clone()).collect();
    if ranges.is_empty() {
        return Ok(0);
    }
    let frames = view.entry.frames.load()?;
    let missing = ranges.iter().map(|range| {
        let met = frames.iter().filter(|frame| range.contains(&frame.seq)).count();
        let count = range.end().saturating_sub(*range.start()).saturating_add(1);
        count.saturating_sub(u64::try_from(met).unwrap_or(u64::MAX))
    });
    Ok(missing.fold(0, u64::saturating_add))
}

fn counted(heard: &BTreeMap<(u8, u8), u64>) -> Vec<TrackCounts> {
    let mut per_track: BTreeMap<u8, u64> = BTreeMap::new();
    for ((track, _), packets) in heard {
        *per_track.entry(*track).or_default() += packets;
    }
    per_track.into_iter().map(|(track, packets)| TrackCounts { track, packets, ..TrackCounts::default() }).collect()
}

fn clocks(table: &CodecTable, alignment: &Alignment) -> Vec<TrackClock> {
    let clock = |&track: &u8| TrackClock {
        track,
        skew_ppm: alignment.clock_skew_ppm(track),
        reports_ignored: alignment.reports_ignored(track),
    };
    table.tracks.keys().map(clock).collect()
}

fn most_heard(types: &HashMap<(u8, u8), u64>) -> Vec<HeardCodec> {
    let mut most: BTreeMap<u8, (u64, u8)> = BTreeMap::new();
    for (&(track, payload_type), &packets) in types {
        let best = most.entry(track).or_default();
        *best = (*best).max((packets, payload_type));
    }
    most.into_iter().map(|(track, (_, payload_type))| HeardCodec { track, payload_type }).collect()
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
    places: Places,
    held: BinaryHeap<Reverse<Held>>,
    met: u64,
    horizon: u64,
    given: u64,
    /// Packets that came after their window.
    too_late: u64,
    range: Range<u64>,
    at_end: bool,
}

impl JournalPackets {
    fn read_on(&mut self) -> Result<(), SoundError> {
        let Self { walk, alignment, places, held, met, horizon, given, too_late, range, at_end } = self;
        let more = walk.step(|item| {
            let Item::Packet(packet) = item else { return };
            let Some(position) = alignment.position(&packet.header) else { return };
            *horizon = (*horizon).max(position);
            let Some(&(track, codec)) = places.get(&(packet.header.track, packet.codec)) else { return };
            if !range.contains(&position) {
                return;
            }
            if position < *given {
                // It comes after its window and has nowhere to go: the place is given out already.
                *too_late += 1;
                return;
            }
            *met += 1;
            held.push(Reverse(Held { position, met: *met, track, codec, payload: packet.payload.to_vec() }));
        })?;
        *at_end = !more;
        if *at_end && *too_late > 0 {
            tracing::warn!(packets = *too_late, "packets were too far from their place in the journal to be put there");
        }
        Ok(())
    }
}

impl Iterator for JournalPackets {
    type Item = Result<Packet, SoundError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let is_due =
                |held: &Reverse<Held>| self.at_end || held.0.position.saturating_add(WINDOW_TICKS) <= self.horizon;
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
    // A name or parameters beyond all measure are no reason to render nothing.
    let name = &codec.encoding[..codec.encoding.floor_char_boundary(CODEC_TEXT_BYTES_MAX)];
    CodecSpec {
        codec: Codec::from_encoding(name),
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        fmtp: codec.fmtp.clone().filter(|fmtp| fmtp.len() <= CODEC_TEXT_BYTES_MAX),
        pre_skip: codec.pre_skip,
    }
}

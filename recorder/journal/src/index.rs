//! Which frames belong to which lane.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use callvault_seal::SealedKey;
use uuid::Uuid;

use crate::format::{Content, EarlierKey, Kind, LaneEnd, NO_LANE, key_context};
use crate::frame_list::{FrameList, Pages};
use crate::scanner::Frame;

/// What is known of one lane.
#[derive(Debug, Clone, Default)]
pub struct LaneEntry {
    /// The recording; none while every frame that says so is damaged.
    pub recording: Option<Uuid>,
    /// Which part of the recording.
    pub segment: u16,
    /// The sealed keys, each once; empty while the recording is not (or not yet) kept.
    pub keys: Vec<SealedKey>,
    /// Sealed keys of lanes of earlier generations of the same recording, each once.
    pub earlier_keys: Vec<EarlierKey>,
    /// How it ended; none while it has not.
    pub end: Option<LaneEnd>,
    /// Name of the rule by which it was discarded; empty where it was not, or nothing says.
    pub rule: String,
    /// Its sealed frames, by sequence as long as the journal is in order.
    pub frames: FrameList,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Sequence of its last frame of any kind.
    pub last_seq: u64,
    files: Option<(u32, u32)>,
}

impl LaneEntry {
    /// The files in which it has frames, first to last: those must stay while the recording is needed.
    pub fn files(&self) -> Option<RangeInclusive<u32>> {
        self.files.map(|(first, last)| first..=last)
    }

    /// The context that its key was sealed with; none while the recording is not known.
    pub fn key_context(&self, generation: Uuid, lane: u32) -> Option<[u8; 43]> {
        Some(key_context(generation, self.recording?, lane))
    }

    fn add(&mut self, frame: &Frame<'_>) {
        let file_seq = frame.at.file_seq;
        let (first, last) = self.files.unwrap_or((file_seq, file_seq));
        self.files = Some((first.min(file_seq), last.max(file_seq)));
        self.last_seq = self.last_seq.max(frame.at.seq);
        match &frame.content {
            Some(Content::LaneOpen { recording, segment }) => self.identify(*recording, *segment),
            Some(Content::Key { recording, segment, keys }) => {
                self.identify(*recording, *segment);
                for key in keys {
                    if !self.keys.contains(key) && self.keys.len() < LANE_KEYS_MAX {
                        self.keys.push(key.clone());
                    }
                }
            }
            Some(Content::EarlierKey { recording, segment, of }) => {
                self.identify(*recording, *segment);
                if !self.earlier_keys.contains(of) && self.earlier_keys.len() < EARLIER_KEYS_MAX {
                    self.earlier_keys.push(of.clone());
                }
            }
            Some(Content::LaneEnd { recording, segment, end, rule }) => {
                self.identify(*recording, *segment);
                self.end = Some(*end);
                self.rule.clone_from(rule);
            }
            _ => {}
        }
        if matches!(frame.at.kind, Kind::Audio | Kind::Facts) {
            self.bytes += u64::from(frame.at.body_len);
            self.frames.push(frame.at);
        }
    }

    fn identify(&mut self, recording: Uuid, segment: u16) {
        if self.recording.is_none() {
            self.recording = Some(recording);
            self.segment = segment;
        }
    }
}

/// Different sealed keys of one lane: its own are written a few times at most, to up to
/// [`crate::SEALED_KEYS_MAX`] recipients, and sealed anew each time at worst.
const LANE_KEYS_MAX: usize = 8 * crate::format::SEALED_KEYS_MAX;

/// Keys of earlier lanes that one lane can have: as many parts as a recording is written in before its verdict, and some repetitions.
const EARLIER_KEYS_MAX: usize = 1_024;

/// Lanes of a generation and where their frames are: some ten bytes a frame, in memory or put away. It grows with the journal; whoever
/// holds it takes out the lanes that are done ([`LaneIndex::remove`]).
#[derive(Debug, Clone, Default)]
pub struct LaneIndex {
    lanes: BTreeMap<u32, LaneEntry>,
    pages: Option<Arc<dyn Pages>>,
}

impl LaneIndex {
    /// An empty index that has everything in memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty index that puts away what fills a page.
    pub fn with_pages(pages: Arc<dyn Pages>) -> Self {
        Self { lanes: BTreeMap::new(), pages: Some(pages) }
    }

    /// Adds a frame that the scanner passed on; returns its lane, if it has one.
    pub fn add(&mut self, frame: &Frame<'_>) -> Option<u32> {
        let lane = frame.at.lane;
        if lane == NO_LANE {
            return None;
        }
        let entry = self.lanes.entry(lane).or_insert_with(|| LaneEntry {
            frames: self
                .pages
                .as_ref()
                .map_or_else(FrameList::default, |pages| FrameList::with_pages(Arc::clone(pages))),
            ..LaneEntry::default()
        });
        entry.add(frame);
        Some(lane)
    }

    /// What is known of a lane.
    pub fn get(&self, lane: u32) -> Option<&LaneEntry> {
        self.lanes.get(&lane)
    }

    /// Takes a lane out.
    pub fn remove(&mut self, lane: u32) -> Option<LaneEntry> {
        self.lanes.remove(&lane)
    }

    /// All lanes by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &LaneEntry)> {
        self.lanes.iter().map(|(lane, entry)| (*lane, entry))
    }
}

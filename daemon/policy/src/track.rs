//! The tracks of a row.

use std::collections::BTreeMap;

use callvault_journal::facts::{CallFacts, CodecFacts, Ended, SessionEvent, TrackCounts, TrackFacts};
use serde::{Deserialize, Serialize};

use crate::call::display;
use crate::damage::Damage;

/// Encodings that accompany a voice codec and are never what a track is in.
const COMPANIONS: &[&str] = &["telephone-event", "CN", "tone", "red"];

/// One track as a row shows it. The field names are those of the JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackSummary {
    /// `a=label`, or the number of the media line where there is none.
    pub label: String,
    /// Who is heard: names, else numbers.
    pub participant: Option<String>,
    /// Encoding name of the codec that was heard, else of the first that was agreed.
    pub codec: String,
    /// Packets kept.
    pub packets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Copies that were not kept.
    pub duplicates: u64,
    /// Packets kept that came out of order.
    pub late: u64,
    /// Milliseconds of audio missing because of loss.
    pub gaps_ms: u64,
    /// The largest interarrival jitter (RFC 3550 section 6.4.1), in milliseconds.
    #[serde(default)]
    pub jitter_ms_max: u64,
    /// Milliseconds from the session's beginning to the track's first packet; none where nothing tells.
    #[serde(default)]
    pub started_after_ms: Option<u64>,
    /// By how much the sender's clock runs fast against ours, in millionths; negative when it is slow, none where the track was too
    /// short to know.
    #[serde(default)]
    pub clock_skew_ppm: Option<i32>,
    /// Telephone events: keys that were pressed.
    #[serde(default)]
    pub tones: u64,
    /// Milliseconds during which it was paused or on hold, by the client or by somebody here: nothing of them is stored.
    #[serde(default)]
    pub paused_ms: u64,
    /// Whether it is the recorded user's own voice.
    pub local: bool,
}

/// A track as the facts describe it, with its counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// The last description.
    pub(crate) facts: TrackFacts,
    /// Every payload type that was ever agreed, the latest meaning of each, in the order of first mention.
    codecs: Vec<CodecFacts>,
    /// The counters of the session's end, else those of the journal.
    pub(crate) counts: TrackCounts,
    /// Packets that the journal holds, when they were counted.
    pub(crate) held: Option<u64>,
    /// When its first source was heard, in journal time.
    first_ns: Option<u64>,
    tones: u64,
}

/// The tracks by number. A track that is only counted, its description having been lost, is one too.
pub(crate) fn known_tracks(events: &[SessionEvent], damage: &Damage) -> BTreeMap<u8, Known> {
    let mut tracks: BTreeMap<u8, Known> = BTreeMap::new();
    for event in events {
        match event {
            SessionEvent::Track(facts) => tracks.entry(facts.track).or_default().describe(facts),
            // A track that only these speak of is none: its packets may not have been kept.
            SessionEvent::Source(source) => {
                if let Some(known) = tracks.get_mut(&source.track) {
                    known.first_ns = Some(known.first_ns.map_or(source.at_ns, |first_ns| first_ns.min(source.at_ns)));
                }
            }
            SessionEvent::Tone(tone) => {
                if let Some(known) = tracks.get_mut(&tone.track) {
                    known.tones = known.tones.saturating_add(1);
                }
            }
            _ => {}
        }
    }
    for counts in &damage.counted {
        let known = tracks.entry(counts.track).or_default();
        known.held = Some(counts.packets);
        known.counts.clone_from(counts);
    }
    for counts in ended(events).iter().flat_map(|ended| &ended.tracks) {
        tracks.entry(counts.track).or_default().counts.clone_from(counts);
    }
    let is_counted = !damage.counted.is_empty();
    for (&number, known) in &mut tracks {
        known.facts.track = number;
        if is_counted && known.held.is_none() {
            known.held = Some(0);
        }
    }
    tracks
}

/// The session's end, the last one where a session was resumed and ended more than once.
pub(crate) fn ended(events: &[SessionEvent]) -> Option<&Ended> {
    events.iter().rev().find_map(|event| match event {
        SessionEvent::Ended(ended) => Some(ended),
        _ => None,
    })
}

impl Known {
    fn describe(&mut self, facts: &TrackFacts) {
        for codec in &facts.codecs {
            match self.codecs.iter_mut().find(|old| old.payload_type == codec.payload_type) {
                Some(old) => old.clone_from(codec),
                None => self.codecs.push(codec.clone()),
            }
        }
        self.facts.clone_from(facts);
    }

    /// Packets of which the recording consists: those that the journal holds, where they were counted.
    pub(crate) fn packets(&self) -> u64 {
        self.held.unwrap_or(self.counts.packets)
    }

    /// Packets that were kept once and that the journal has no more.
    pub(crate) fn unreadable(&self) -> u64 {
        self.held.map_or(0, |held| self.counts.packets.saturating_sub(held))
    }

    /// Packets lost of a thousand sent.
    pub(crate) fn lost_permille(&self) -> u64 {
        let TrackCounts { packets, lost, .. } = self.counts;
        let sent = packets.saturating_add(lost).max(1);
        lost.saturating_mul(1000) / sent
    }

    /// The row's view of it.
    pub(crate) fn summary(&self, call: &CallFacts, damage: &Damage, begin_ns: u64, paused_ms: u64) -> TrackSummary {
        let clock = damage.clocks.iter().find(|clock| clock.track == self.facts.track);
        TrackSummary {
            label: self.label(),
            participant: self.participant(call),
            codec: self.codec(damage),
            packets: self.packets(),
            lost: self.counts.lost,
            duplicates: self.counts.duplicates,
            late: self.counts.late,
            gaps_ms: self.counts.gaps_ms,
            jitter_ms_max: (u64::from(self.counts.jitter_us_max) + 500) / 1_000,
            started_after_ms: self.first_ns.map(|first_ns| first_ns.saturating_sub(begin_ns) / 1_000_000),
            clock_skew_ppm: clock.and_then(|clock| clock.skew_ppm),
            tones: self.tones,
            paused_ms,
            local: self.facts.local,
        }
    }

    /// Its label; the number of its media line from 1 where the description was lost.
    pub(crate) fn label(&self) -> String {
        match self.facts.label.as_str() {
            "" => (u16::from(self.facts.track) + 1).to_string(),
            label => label.to_owned(),
        }
    }

    fn codec(&self, damage: &Damage) -> String {
        let heard = damage.heard.iter().find(|heard| heard.track == self.facts.track);
        let meant = heard.and_then(|heard| self.codecs.iter().find(|codec| codec.payload_type == heard.payload_type));
        let agreed = || self.facts.codecs.iter().find(|codec| is_voice(codec));
        meant.or_else(agreed).map(|codec| codec.encoding.clone()).unwrap_or_default()
    }

    fn participant(&self, call: &CallFacts) -> Option<String> {
        let TrackFacts { label, local, mixed, .. } = &self.facts;
        let own = (*local || *mixed).then_some(&call.local);
        // On a track that is not the user's, who has no labels at all is heard where nobody else is known to be.
        let others = || call.remotes.iter().filter(|_| *mixed || !*local);
        let labelled = others().filter(|party| *mixed || party.labels.contains(label));
        let mut shown: Vec<&str> = own.into_iter().chain(labelled).filter_map(display).collect();
        if shown.is_empty() {
            shown = others().filter(|party| party.labels.is_empty()).filter_map(display).collect();
        }
        shown.dedup();
        (!shown.is_empty()).then(|| shown.join(", "))
    }
}

fn is_voice(codec: &CodecFacts) -> bool {
    !COMPANIONS.iter().any(|name| codec.encoding.eq_ignore_ascii_case(name))
}

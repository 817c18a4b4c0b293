//! What a session has for the journal: packets in batches, and what is to be said of them, in order and within a bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::TrySendError;

use callvault_journal::facts::{Ended, Flaw, SenderReportFacts, SessionEvent, SourceFacts, ToneFacts};
use callvault_journal::{AudioBatch, Packet, Pushed};
use callvault_media::{Held, Kept, OVERFLOW_SOURCE, Tone, Tones, Track};
use uuid::Uuid;

use super::Ways;
use crate::appender::{Entry, Unwritten};
use crate::checkpoint::MediaState;

/// Full batches of one session that may wait for the appender: 32 KiB each, about 20 s of two G.711 tracks.
pub(super) const WAITING_BATCHES_MAX: usize = 12;

/// How old the state of the tracks in a checkpoint may get when no batch takes it along. Rollover counters are found again as long as less than
/// half of one has passed, which is minutes.
const STATE_NS_MAX: u64 = 10_000_000_000;

/// Telephone events written of a session: more than anybody presses in a call, and an hour of a key in each four seconds.
const TONES_MAX: usize = 1_000;

/// Sender reports written of a session: as many as alignment looks at, those of two tracks for 17 hours.
const REPORTS_MAX: usize = 4_096;

/// What is remarked on a recording, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remark {
    /// The journal did not follow.
    Behind,
    /// Datagrams were longer than any that is read.
    TooLong,
    /// Payload types came that nobody had described.
    Undescribed,
    /// There were more sources than numbers for them.
    SourcesOverflowed,
    /// There were more telephone events than are written.
    TonesOverflowed,
    /// So many packets of secured tracks could not be opened.
    Undecipherable(u64),
}

impl Remark {
    fn flaw(self) -> Flaw {
        let (code, text) = match self {
            Self::Behind => ("audio-dropped", "audio was lost because the journal's disk did not keep up"),
            Self::TooLong => ("audio-dropped", "packets were lost because they were longer than any that is read"),
            Self::Undescribed => (
                "payload-undescribed",
                "packets came with a payload type that the signalling did not describe; they are kept",
            ),
            Self::SourcesOverflowed => {
                ("sources-overflowed", "a track changed its source so often that the last ones share a number")
            }
            Self::TonesOverflowed => {
                ("tones-overflowed", "there were more telephone events than are listed; their packets are all kept")
            }
            Self::Undecipherable(packets) => {
                let text = format!(
                    "{packets} packets could not be opened with the keys of the signalling, and are not recorded"
                );
                return Flaw { code: "audio-undecipherable".into(), text };
            }
        };
        Flaw { code: code.into(), text: text.into() }
    }
}

/// See the module.
pub(super) struct Outbox {
    recording: Uuid,
    batch: AudioBatch,
    /// Entries that the appender had no room for, in order.
    waiting: VecDeque<Entry>,
    waiting_batches: usize,
    /// Batches that are with the appender or on their way to it.
    unwritten: Arc<AtomicU64>,
    /// A batch went off in the middle of a sweep, without the state of the tracks: the next goes soon.
    state_is_due: bool,
    /// When a batch last went with the state of the tracks.
    state_ns: u64,
    dropped: u64,
    remarked: Vec<Remark>,
    /// Tracks whose sources can no longer be told apart: said once each.
    overflowed: Vec<u8>,
    /// The telephone events of tracks that had any.
    tones: Vec<(u8, Tones)>,
    tones_written: usize,
    reports_written: usize,
}

impl Outbox {
    pub(super) fn new(recording: Uuid) -> Self {
        Self {
            recording,
            batch: AudioBatch::default(),
            waiting: VecDeque::new(),
            waiting_batches: 0,
            unwritten: Arc::default(),
            state_is_due: false,
            state_ns: 0,
            dropped: 0,
            remarked: Vec::new(),
            overflowed: Vec::new(),
            tones: Vec::new(),
            tones_written: 0,
            reports_written: 0,
        }
    }

    pub(super) fn recording(&self) -> Uuid {
        self.recording
    }

    /// Puts a packet into the batch; returns how many are kept.
    pub(super) fn packet(&mut self, track: u8, arrival_ns: u64, kept: &Kept, payload: &[u8], ways: &Ways) -> u64 {
        if let Some(ssrc) = kept.new_source {
            self.source(SourceFacts { track, source: kept.source, ssrc, at_ns: arrival_ns });
        }
        if kept.event_clock_rate.is_some() {
            self.telephone_event(track, arrival_ns, kept, payload);
        }
        let packet = Packet {
            track,
            source: kept.source,
            payload_type: kept.payload_type,
            marker: kept.marker,
            seq: kept.seq,
            timestamp: kept.timestamp,
            arrival_ns,
            payload,
        };
        if self.batch.is_empty() && !self.batch.has_memory() {
            self.batch = ways.spare.try_recv().unwrap_or_default();
        }
        for _ in 0..2 {
            match self.batch.push(&packet) {
                Pushed::Taken => return 1,
                Pushed::TooLong => {
                    self.drop_packets(1, Remark::TooLong);
                    return 0;
                }
                // How the tracks stand has this packet in it already, so it cannot go along.
                Pushed::Full => {
                    self.state_is_due = true;
                    self.flush(MediaState::default(), ways);
                }
            }
        }
        self.drop_packets(1, Remark::Behind);
        0
    }

    /// Packets that were held back until it was clear that they belong to the track.
    pub(super) fn held(&mut self, track: u8, reception: &mut Track, ways: &Ways) -> u64 {
        let mut packets = 0;
        while let Some(Held { arrival_ns, kept, payload }) = reception.take_held() {
            packets += self.packet(track, arrival_ns, &kept, &payload, ways);
        }
        packets
    }

    /// A sender report that is worth keeping.
    pub(super) fn sender_report(&mut self, report: SenderReportFacts) {
        if self.reports_written < REPORTS_MAX {
            self.reports_written += 1;
            self.event(SessionEvent::SenderReport(report));
        }
    }

    /// Writes the telephone events whose ends were lost.
    pub(super) fn expire_tones(&mut self, now_ns: u64) {
        let expired = self.tones.iter_mut().filter_map(|(track, tones)| Some((*track, tones.expire(now_ns)?)));
        for (track, tone) in expired.collect::<Vec<_>>() {
            self.tone(track, tone);
        }
    }

    /// Whether the batch has waited long enough. While the appender does not follow, batches are filled first, so that the bound on
    /// their number is one on audio. Now and then there is something to send without any packet: in a long pause keys go on.
    pub(super) fn is_due(&mut self, now_ns: u64, batch_ns: u64, ways: &Ways) -> bool {
        self.retry(ways);
        let waited = self.batch.first_arrival_ns().map(|first| now_ns.saturating_sub(first));
        let is_old = now_ns.saturating_sub(self.state_ns) >= STATE_NS_MAX;
        self.waiting.is_empty() && (is_old || self.state_is_due || waited.is_some_and(|ns| ns >= batch_ns))
    }

    /// Sends the batch off, and with it how the tracks stand after its last packet; `media` is empty where that is not known.
    pub(super) fn flush(&mut self, media: MediaState, ways: &Ways) {
        self.retry(ways);
        if self.batch.is_empty() && media.is_empty() {
            return;
        }
        if self.waiting_batches >= WAITING_BATCHES_MAX {
            let packets = u64::from(self.batch.packets());
            self.batch.clear();
            return self.drop_packets(packets, Remark::Behind);
        }
        // Between two visits a session needs none of its own.
        let batch = std::mem::take(&mut self.batch);
        self.waiting_batches += 1;
        self.waiting.push_back(Entry::Audio {
            recording: self.recording,
            batch,
            media,
            unwritten: Unwritten::new(&self.unwritten),
        });
        self.retry(ways);
    }

    /// Whether everything that was sent off is in the journal's file.
    pub(super) fn is_written(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) == 0
    }

    /// The batch is to go now, whatever it has waited.
    pub(super) fn hurry(&mut self) {
        self.state_is_due = true;
    }

    /// A batch goes now: the next one that must go for the state's sake is due later.
    pub(super) fn note_state(&mut self, now_ns: u64) {
        (self.state_is_due, self.state_ns) = (false, now_ns);
    }

    /// Packets that came and are not stored.
    pub(super) fn drop_packets(&mut self, packets: u64, why: Remark) {
        self.dropped += packets;
        self.remark(why);
    }

    /// Packets dropped since this was last asked.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Notes something about the recording, once.
    pub(super) fn remark(&mut self, remark: Remark) {
        if !self.remarked.contains(&remark) {
            self.remarked.push(remark);
            self.event(SessionEvent::Flaw(remark.flaw()));
        }
    }

    /// The last thing that is said of the recording. The last batch goes with it, whatever waits.
    pub(super) fn end(&mut self, ended: Ended, media: MediaState, ways: &Ways) {
        self.flush(media, ways);
        self.expire_tones(u64::MAX);
        self.waiting.push_back(Entry::End { recording: self.recording, ended });
    }

    /// Gives the appender what it has room for; says whether nothing is left.
    pub(super) fn hand_over(&mut self, ways: &Ways) -> bool {
        self.retry(ways);
        self.waiting.is_empty()
    }

    /// All that is left, in order.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        let Self { recording, batch, waiting, unwritten, .. } = self;
        let (media, unwritten) = (MediaState::default(), Unwritten::new(&unwritten));
        let last = (!batch.is_empty()).then_some(Entry::Audio { recording, batch, media, unwritten });
        // Behind an end nothing comes: its batch went before it.
        waiting.into_iter().chain(last)
    }

    fn source(&mut self, source: SourceFacts) {
        if source.source == OVERFLOW_SOURCE {
            if self.overflowed.contains(&source.track) {
                return;
            }
            self.overflowed.push(source.track);
        }
        self.event(SessionEvent::Source(source));
    }

    fn telephone_event(&mut self, track: u8, arrival_ns: u64, kept: &Kept, payload: &[u8]) {
        let place = self.tones.iter().position(|(known, _)| *known == track).unwrap_or_else(|| {
            self.tones.push((track, Tones::default()));
            self.tones.len() - 1
        });
        let mut told = Vec::new();
        self.tones[place].1.take(arrival_ns, kept, payload, |tone| told.push(tone));
        told.into_iter().for_each(|tone| self.tone(track, tone));
    }

    fn tone(&mut self, track: u8, tone: Tone) {
        if self.tones_written >= TONES_MAX {
            return self.remark(Remark::TonesOverflowed);
        }
        self.tones_written += 1;
        let Tone { at_ns, event, duration_ms } = tone;
        self.event(SessionEvent::Tone(ToneFacts { track, at_ns, event, duration_ms }));
    }

    fn event(&mut self, event: SessionEvent) {
        self.waiting.push_back(Entry::Facts { recording: self.recording, event, number: 0 });
    }

    fn retry(&mut self, ways: &Ways) {
        while let Some(entry) = self.waiting.pop_front() {
            let is_audio = matches!(entry, Entry::Audio { .. });
            if let Err(TrySendError::Full(entry) | TrySendError::Disconnected(entry)) = ways.journal.try_send(entry) {
                self.waiting.push_front(entry);
                return;
            }
            self.waiting_batches -= usize::from(is_audio);
        }
    }
}

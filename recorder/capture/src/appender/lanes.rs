//! The lanes: from entries to frames, without a journal file in sight. Here is decided when a key may be written and when a lane ends,
//! and here is known what a checkpoint of a lane says.

use std::collections::{BTreeSet, HashMap};
use std::io;

use callvault_control::Decision;
use callvault_journal::facts::{Ended, Flaw, SessionEvent};
use callvault_journal::{AudioBatch, EarlierKey, FramePlace, JournalError, Lane, LaneEnd, Writer};
use callvault_seal::{Cipher, DataKey, PublicKey, SealedKey, seal_key};
use rand::CryptoRng;
use uuid::Uuid;

use crate::checkpoint::{Checkpoints, Continued, EARLIER_MAX, LaneCheckpoint, LaneFile, LaneState, MediaState};

/// The rule by which a call is discarded that was recorded on demand and that nobody asked for.
pub(super) const ON_DEMAND_NOT_KEPT: &str = "on-demand-not-kept";

/// A recording that is being written.
struct OpenLane {
    lane: Lane,
    cipher: Cipher,
    /// The key until the verdict; then it is in the journal, sealed, or forgotten.
    key: Option<DataKey>,
    /// The same sealed. Before the verdict it is in the checkpoint and nowhere else.
    sealed: Vec<SealedKey>,
    /// Sealed keys of the parts that earlier generations wrote and that are not in the journal.
    earlier: Vec<EarlierKey>,
    /// The verdict is to keep it if somebody asks: until then its key stays in memory, and goes with its end.
    on_demand: bool,
    ended: bool,
    /// Its last frame.
    place: FramePlace,
    /// The number of the last fact of the signalling.
    facts: u64,
    media: MediaState,
    file: Option<LaneFile>,
}

/// The lanes that are open. A recording without one (it was discarded) is passed over.
pub(super) struct Lanes {
    recipients: Vec<PublicKey>,
    checkpoints: Option<Checkpoints>,
    open: HashMap<Uuid, OpenLane>,
    /// Those of which something is not in their checkpoint.
    changed: BTreeSet<Uuid>,
    /// Lanes that are over, of which that is not in their checkpoint.
    over: Vec<(LaneFile, LaneCheckpoint)>,
    /// Those whose checkpoint speaks of frames that are to be written next.
    ahead: BTreeSet<Uuid>,
    /// The same, of lanes that are over.
    over_ahead: Vec<(LaneFile, LaneCheckpoint)>,
    /// Facts of the signalling that are in frames, with their numbers.
    noted: HashMap<Uuid, u64>,
}

impl Lanes {
    pub(super) fn new(recipients: Vec<PublicKey>, checkpoints: Option<Checkpoints>) -> Self {
        Self {
            recipients,
            checkpoints,
            open: HashMap::new(),
            changed: BTreeSet::new(),
            over: Vec::new(),
            ahead: BTreeSet::new(),
            over_ahead: Vec::new(),
            noted: HashMap::new(),
        }
    }

    /// Opens a lane, with a key of its own.
    pub(super) fn open(
        &mut self,
        writer: &mut Writer,
        rng: &mut dyn CryptoRng,
        recording: Uuid,
        continued: Option<Continued>,
    ) -> Result<(), JournalError> {
        if self.open.contains_key(&recording) {
            return Ok(());
        }
        let (segment, sequence) = continued.as_ref().map_or((0, 0), |from| (from.segment, from.sequence));
        let lane = writer.open_lane(recording, segment)?;
        let key = DataKey::generate(rng);
        let context = lane.key_context();
        let sealed = self.recipients.iter().map(|to| seal_key(&mut *rng, to, &key, &context)).collect();
        // Without a file the lane is written as ever; it only cannot be gone on with.
        let file = self.checkpoints.as_ref().and_then(|folder| folder.lane(recording, sequence).ok());
        let mut open = OpenLane {
            lane,
            cipher: key.cipher(),
            key: Some(key),
            sealed,
            earlier: Vec::new(),
            on_demand: false,
            ended: false,
            place: writer.last_place(),
            facts: 0,
            media: MediaState::default(),
            file,
        };
        let mut is_kept = false;
        if let Some(from) = continued {
            (open.earlier, open.facts, open.media) = (from.earlier, from.facts, from.media);
            // Who is asked for a verdict so often does not answer; what was written first can be read least.
            let over = open.earlier.len().saturating_sub(EARLIER_MAX - 1);
            open.earlier.drain(..over);
            is_kept = from.kept;
        }
        self.open.insert(recording, open);
        self.changed.insert(recording);
        if is_kept { self.keep(writer, recording) } else { Ok(()) }
    }

    /// Writes down what happened. `number` is that of a fact of the signalling, 0 for others.
    pub(super) fn facts(
        &mut self,
        writer: &mut Writer,
        recording: Uuid,
        event: &SessionEvent,
        number: u64,
    ) -> Result<(), JournalError> {
        let Some(open) = self.open.get_mut(&recording) else { return Ok(()) };
        let written = match writer.write_facts(open.lane, &open.cipher, event) {
            // Only a body that a client sent can be so long; that it was left out is said in its place.
            Err(JournalError::FactsTooLarge { bytes, .. }) => {
                let flaw = Flaw {
                    code: "facts-too-large".into(),
                    text: format!("a message body of {bytes} bytes was too large to be kept"),
                };
                writer.write_facts(open.lane, &open.cipher, &SessionEvent::Flaw(flaw))
            }
            other => other,
        };
        if written.is_ok() && number > 0 {
            open.facts = open.facts.max(number);
            self.noted.insert(recording, open.facts);
        }
        self.touch(writer, recording);
        written
    }

    /// Writes packets, and remembers how the tracks stand after them, where that is known.
    pub(super) fn audio(
        &mut self,
        writer: &mut Writer,
        recording: Uuid,
        batch: &mut AudioBatch,
        media: MediaState,
    ) -> Result<(), JournalError> {
        let Some(open) = self.open.get_mut(&recording) else { return Ok(()) };
        if !batch.is_empty() {
            writer.write_audio(open.lane, &open.cipher, batch)?;
            open.place = writer.last_place();
        }
        if !media.is_empty() {
            open.media = media;
            self.changed.insert(recording);
        }
        Ok(())
    }

    /// What becomes of the recording, while it lives or after it has ended. Says whether its lane is ended now.
    pub(super) fn decide(
        &mut self,
        writer: &mut Writer,
        recording: Uuid,
        decision: &Decision,
    ) -> Result<bool, JournalError> {
        let Some(open) = self.open.get_mut(&recording) else { return Ok(false) };
        match decision {
            Decision::Keep => {
                if open.key.is_none() {
                    return Ok(false);
                }
                let has_ended = open.ended;
                self.keep(writer, recording)?;
                if has_ended { self.finish(writer, recording, LaneEnd::Ended) } else { Ok(false) }
            }
            // Kept once is kept: whoever has the journal could read it already.
            Decision::Discard { .. } if open.key.is_none() => Ok(false),
            Decision::OnDemand if open.key.is_none() => Ok(false),
            Decision::OnDemand if open.ended => self.discard(writer, recording, ON_DEMAND_NOT_KEPT),
            Decision::OnDemand => {
                open.on_demand = true;
                Ok(false)
            }
            Decision::Discard { rule } => self.discard(writer, recording, rule),
        }
    }

    /// What becomes of the recording is asked again: its end waits for the answer, as if there had been none yet.
    pub(super) fn reconsider(&mut self, recording: Uuid) {
        if let Some(open) = self.open.get_mut(&recording) {
            open.on_demand = false;
        }
    }

    /// What becomes of a recording when there is nobody left to say: where the daemon has not said anything, keeping is what
    /// loses nothing; what nobody asked for is not kept.
    pub(super) fn last_decision(&self, recording: Uuid) -> Decision {
        match self.open.get(&recording) {
            Some(open) if open.on_demand => Decision::Discard { rule: ON_DEMAND_NOT_KEPT.to_owned() },
            _ => Decision::Keep,
        }
    }

    /// The recording has ended. Without a verdict yet its lane waits for one, with its key in memory; one that nobody asked for is
    /// discarded. Says whether the lane is ended now.
    pub(super) fn end(&mut self, writer: &mut Writer, recording: Uuid, ended: Ended) -> Result<bool, JournalError> {
        self.facts(writer, recording, &SessionEvent::Ended(ended), 0)?;
        let Some(open) = self.open.get_mut(&recording) else { return Ok(false) };
        open.ended = true;
        match (&open.key, open.on_demand) {
            (None, _) => self.finish(writer, recording, LaneEnd::Ended),
            (Some(_), true) => self.discard(writer, recording, ON_DEMAND_NOT_KEPT),
            (Some(_), false) => Ok(false),
        }
    }

    /// Ends a lane whose recording did not end in order, and keeps it.
    pub(super) fn abort(&mut self, writer: &mut Writer, recording: Uuid) -> Result<bool, JournalError> {
        self.finish(writer, recording, LaneEnd::Aborted)
    }

    /// The recordings whose lanes are open, oldest first.
    pub(super) fn recordings(&self) -> Vec<Uuid> {
        let mut recordings: Vec<Uuid> = self.open.keys().copied().collect();
        recordings.sort_unstable();
        recordings
    }

    /// Facts of the signalling that came into frames since this was last asked, by recording the number of the last.
    pub(super) fn take_noted(&mut self) -> impl Iterator<Item = (Uuid, u64)> {
        std::mem::take(&mut self.noted).into_iter()
    }

    /// Frames will be found elsewhere than where they were made for.
    pub(super) fn moved(&mut self, places: &[FramePlace]) {
        // In the order of their sequence, as all frames are.
        let now = |place: &FramePlace| {
            let found = places.binary_search_by_key(&place.seq, |moved| moved.seq).ok()?;
            places.get(found).copied()
        };
        for (recording, open) in &mut self.open {
            if let Some(place) = now(&open.place) {
                open.place = place;
                self.changed.insert(*recording);
            }
        }
        for (_, lane) in &mut self.over {
            lane.place = now(&lane.place).unwrap_or(lane.place);
        }
    }

    /// What the checkpoints speak of is written.
    pub(super) fn written(&mut self) {
        self.ahead.clear();
        self.over_ahead.clear();
    }

    /// What the last checkpoints speak of was not written: they are made again, and those before them stay until then.
    pub(super) fn not_written(&mut self) {
        for recording in std::mem::take(&mut self.ahead) {
            if let Some(file) = self.open.get_mut(&recording).and_then(|open| open.file.as_mut()) {
                file.take_back();
                self.changed.insert(recording);
            }
        }
        for (mut file, lane) in self.over_ahead.drain(..) {
            file.take_back();
            self.over.push((file, lane));
        }
    }

    /// Writes the checkpoints of all lanes that have changed. The frames that they speak of are to be written next.
    ///
    /// # Errors
    /// The first that failed; the others were written.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for recording in std::mem::take(&mut self.changed) {
            let Some(open) = self.open.get_mut(&recording) else { continue };
            let checkpoint = open.checkpoint(LaneState::of(open));
            let Some(file) = &mut open.file else { continue };
            match file.save(&checkpoint) {
                Ok(()) => _ = self.ahead.insert(recording),
                Err(error) => result = result.and(Err(error)),
            }
        }
        for (mut file, checkpoint) in self.over.drain(..) {
            match file.save(&checkpoint) {
                Ok(()) => self.over_ahead.push((file, checkpoint)),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Something was written into the lane.
    fn touch(&mut self, writer: &Writer, recording: Uuid) {
        if let Some(open) = self.open.get_mut(&recording) {
            open.place = writer.last_place();
            self.changed.insert(recording);
        }
    }

    /// Writes the keys: from here on the recording can be read.
    fn keep(&mut self, writer: &mut Writer, recording: Uuid) -> Result<(), JournalError> {
        let Some(open) = self.open.get_mut(&recording) else { return Ok(()) };
        for earlier in &open.earlier {
            writer.write_earlier_key(open.lane, earlier)?;
        }
        writer.write_key(open.lane, &open.sealed)?;
        open.key = None;
        self.touch(writer, recording);
        Ok(())
    }

    /// Forgets the key, before anything else: from here on nobody can read what the journal has of the recording.
    fn discard(&mut self, writer: &mut Writer, recording: Uuid, rule: &str) -> Result<bool, JournalError> {
        let Some(open) = self.open.get_mut(&recording) else { return Ok(false) };
        open.key = None;
        open.sealed.clear();
        open.earlier.clear();
        writer.discard_lane(open.lane, rule)?;
        self.close(writer, recording);
        Ok(true)
    }

    fn finish(&mut self, writer: &mut Writer, recording: Uuid, end: LaneEnd) -> Result<bool, JournalError> {
        let Some(open) = self.open.get(&recording) else { return Ok(false) };
        let is_kept = open.key.is_none();
        // Once more, as the lane's own, so that no single damaged block holds the only copy.
        for earlier in open.earlier.iter().filter(|_| is_kept) {
            writer.write_earlier_key(open.lane, earlier)?;
        }
        writer.end_lane(open.lane, end, if is_kept { &open.sealed } else { &[] })?;
        self.close(writer, recording);
        Ok(true)
    }

    fn close(&mut self, writer: &Writer, recording: Uuid) {
        let Some(mut open) = self.open.remove(&recording) else { return };
        self.changed.remove(&recording);
        (open.place, open.media) = (writer.last_place(), MediaState::default());
        let checkpoint = open.checkpoint(LaneState::Over);
        self.over.extend(open.file.map(|file| (file, checkpoint)));
    }
}

impl LaneState {
    fn of(open: &OpenLane) -> Self {
        if open.key.is_some() { Self::Undecided } else { Self::Kept }
    }
}

impl OpenLane {
    fn checkpoint(&self, state: LaneState) -> LaneCheckpoint {
        let mut keys = Vec::new();
        if state == LaneState::Undecided {
            keys.clone_from(&self.earlier);
            let (generation, lane) = (self.lane.generation(), self.lane.number());
            keys.push(EarlierKey { generation, lane, keys: self.sealed.clone() });
        }
        LaneCheckpoint {
            generation: self.lane.generation(),
            lane: self.lane.number(),
            segment: self.lane.segment(),
            state,
            place: self.place,
            facts: self.facts,
            keys,
            media: self.media.clone(),
        }
    }
}

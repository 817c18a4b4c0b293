//! The lanes: from entries to frames, without a file in sight. Here is decided when a key may be written and when a lane ends.

use std::collections::HashMap;

use callvault_control::Decision;
use callvault_journal::facts::{Ended, Flaw, SessionEvent};
use callvault_journal::{AudioBatch, JournalError, Lane, LaneEnd, Writer};
use callvault_seal::{Cipher, DataKey, PublicKey, SealedKey, seal_key};
use rand::CryptoRng;
use uuid::Uuid;

/// The rule by which a call is discarded that was recorded on demand and that nobody asked for.
pub(super) const ON_DEMAND_NOT_KEPT: &str = "on-demand-not-kept";

/// A recording that is being written.
struct OpenLane {
    lane: Lane,
    cipher: Cipher,
    /// The key until the verdict; then it is in the journal, sealed, or forgotten.
    key: Option<DataKey>,
    sealed: Vec<SealedKey>,
    /// The verdict is to keep it if somebody asks: until then its key stays in memory, and goes with its end.
    on_demand: bool,
    ended: bool,
}

/// The lanes that are open. A recording without one (it was discarded) is passed over.
pub(super) struct Lanes {
    recipients: Vec<PublicKey>,
    open: HashMap<Uuid, OpenLane>,
}

impl Lanes {
    pub(super) fn new(recipients: Vec<PublicKey>) -> Self {
        Self { recipients, open: HashMap::new() }
    }

    /// Opens a lane, with a key of its own.
    pub(super) fn open(
        &mut self,
        writer: &mut Writer,
        rng: &mut dyn CryptoRng,
        recording: Uuid,
    ) -> Result<(), JournalError> {
        if self.open.contains_key(&recording) {
            return Ok(());
        }
        let lane = writer.open_lane(recording, 0)?;
        let key = DataKey::generate(rng);
        let cipher = key.cipher();
        let (sealed, key) = (Vec::new(), Some(key));
        self.open.insert(recording, OpenLane { lane, cipher, key, sealed, on_demand: false, ended: false });
        Ok(())
    }

    /// Writes down what happened.
    pub(super) fn facts(&self, writer: &mut Writer, recording: Uuid, event: &SessionEvent) -> Result<(), JournalError> {
        let Some(open) = self.open.get(&recording) else { return Ok(()) };
        match writer.write_facts(open.lane, &open.cipher, event) {
            // Only a body that a client sent can be so long; that it was left out is said in its place.
            Err(JournalError::FactsTooLarge { bytes, .. }) => {
                let flaw = Flaw {
                    code: "facts-too-large".into(),
                    text: format!("a message body of {bytes} bytes was too large to be kept"),
                };
                writer.write_facts(open.lane, &open.cipher, &SessionEvent::Flaw(flaw))
            }
            other => other,
        }
    }

    /// Writes packets.
    pub(super) fn audio(
        &self,
        writer: &mut Writer,
        recording: Uuid,
        batch: &mut AudioBatch,
    ) -> Result<(), JournalError> {
        let Some(open) = self.open.get(&recording) else { return Ok(()) };
        writer.write_audio(open.lane, &open.cipher, batch)
    }

    /// What becomes of the recording, while it lives or after it has ended. Says whether its lane is ended now.
    pub(super) fn decide(
        &mut self,
        writer: &mut Writer,
        rng: &mut dyn CryptoRng,
        recording: Uuid,
        decision: &Decision,
    ) -> Result<bool, JournalError> {
        let Some(open) = self.open.get_mut(&recording) else { return Ok(false) };
        match decision {
            Decision::Keep => {
                let Some(key) = &open.key else { return Ok(false) };
                let context = open.lane.key_context();
                let sealed: Vec<_> = self.recipients.iter().map(|to| seal_key(&mut *rng, to, key, &context)).collect();
                writer.write_key(open.lane, &sealed)?;
                (open.sealed, open.key) = (sealed, None);
                if open.ended { self.finish(writer, recording, LaneEnd::Ended) } else { Ok(false) }
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
        self.facts(writer, recording, &SessionEvent::Ended(ended))?;
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

    /// The recordings whose lanes are open.
    pub(super) fn recordings(&self) -> Vec<Uuid> {
        self.open.keys().copied().collect()
    }

    /// Forgets the key, before anything else: from here on nobody can read what the journal has of the recording.
    fn discard(&mut self, writer: &mut Writer, recording: Uuid, rule: &str) -> Result<bool, JournalError> {
        let Some(open) = self.open.get_mut(&recording) else { return Ok(false) };
        open.key = None;
        writer.discard_lane(open.lane, rule)?;
        self.open.remove(&recording);
        Ok(true)
    }

    fn finish(&mut self, writer: &mut Writer, recording: Uuid, end: LaneEnd) -> Result<bool, JournalError> {
        let Some(open) = self.open.get(&recording) else { return Ok(false) };
        writer.end_lane(open.lane, end, &open.sealed)?;
        self.open.remove(&recording);
        Ok(true)
    }
}

//! What a session needs to be gone on with by another recorder: how its tracks stand, sent off with each batch, and how little is in memory
//! alone at any moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use callvault_journal::facts::TrackCounts;
use callvault_media::{Counts, Track, TrackConfig};
use callvault_srtp::sdes::CryptoAttribute;
use callvault_srtp::{Protector, Unprotector};

use super::{Gate, LiveSession, LiveTrack};
use crate::checkpoint::{MediaCheckpoint, MediaState, TrackState};
use crate::clock::ArrivalClock;
use crate::sweep::outbox::Outbox;
use crate::sweep::reporting::Reports;
use crate::sweep::{Resumption, Ways};

/// How much audio of a track is in memory alone, at most, in nanoseconds: what a death of the process costs.
const UNWRITTEN_NS_MAX: u64 = 200_000_000;

/// How long packets are left in the sockets because the appender has not written what was taken before. A disk that takes longer may take
/// very long, and the queues here have room for more than the sockets, which hold five seconds at least.
const HELD_BACK_NS_MAX: u64 = 2_000_000_000;

/// Packets that are taken whatever they hold.
const UNWRITTEN_MIN: usize = 2;

impl LiveSession {
    /// Goes on with a session. A track of whose media nothing is known begins anew.
    pub(in crate::sweep) fn resume(resumption: Resumption, now_ns: u64, out: Outbox, reports: &mut Reports) -> Self {
        let Resumption {
            tracks,
            keys,
            secured,
            media,
            counters,
            opened_ns,
            opened_wall_ns,
            stopped,
            ended_ns,
            changed_ns,
            ..
        } = resumption;
        let mut states = MediaCheckpoint::from_state(&media).unwrap_or_default().tracks;
        let name = reports.name();
        let mut packets = 0;
        let pairs = tracks.iter().map(|track| Arc::clone(&track.pair)).collect();
        let mut resumed = Vec::with_capacity(tracks.len());
        for new in tracks {
            let theirs = keys.iter().find(|(number, _)| *number == new.number).map(|(_, keys)| keys);
            let state = states.iter().position(|state| state.number == new.number).map(|at| states.swap_remove(at));
            let mut track = LiveTrack::new(new, opened_ns, name, reports);
            let open = !track.paused && !stopped;
            match state {
                Some(state) => {
                    packets += state.reception.counts().packets;
                    track.go_on_from(state, secured.contains(&track.number), theirs);
                    track.gate.turn(open, changed_ns);
                }
                None => {
                    track.gate = Gate { open, since_ns: changed_ns };
                    // Whenever its sockets were empty last, it was after this.
                    track.emptied = [ArrivalClock::at(opened_ns, opened_wall_ns).emptied(); 2];
                }
            }
            if let Some(ended_ns) = ended_ns {
                track.gate.turn(false, ended_ns);
            }
            resumed.push(track);
        }
        counters.packets.store(packets, Ordering::Relaxed);
        let mut session = Self::new(Vec::new(), counters, now_ns, out, reports);
        (session.tracks, session.pairs, session.packets) = (resumed, pairs, packets);
        (session.stopped, session.name) = (stopped, name);
        session
    }

    /// Sends off what has gathered, when it is time.
    pub(in crate::sweep) fn flush_if_due(&mut self, now_ns: u64, batch_ns: u64, ways: &Ways) {
        if self.out.is_due(now_ns, batch_ns, ways) {
            self.out.note_state(now_ns);
            self.flush(ways);
        }
    }

    /// Sends off what has gathered, and with it how the tracks stand.
    pub(in crate::sweep) fn flush(&mut self, ways: &Ways) {
        // Of a recording that has ended the last has been said.
        if !self.stopped {
            let media = self.state(ways);
            self.out.flush(media, ways);
            for [batched, with_appender] in self.tracks.iter_mut().map(|track| &mut track.unwritten) {
                *with_appender += std::mem::take(batched);
            }
        }
    }

    /// How the tracks stand, every packet of theirs being in a batch.
    pub(super) fn state(&self, ways: &Ways) -> MediaState {
        if !ways.keeps_states {
            return MediaState::default();
        }
        MediaCheckpoint { tracks: self.tracks.iter().map(LiveTrack::state).collect() }.to_state()
    }

    /// Whether so little is to be taken at once that what is in memory alone stays within [`UNWRITTEN_NS_MAX`]: more waits in the
    /// sockets, where it outlives this process. With an appender that does not follow for [`HELD_BACK_NS_MAX`] nothing is held back.
    pub(super) fn is_bounded(&mut self, now_ns: u64) -> bool {
        if self.out.is_written() {
            self.unwritten_ns = None;
            self.tracks.iter_mut().for_each(|track| track.unwritten[1] = 0);
            return true;
        }
        now_ns.saturating_sub(*self.unwritten_ns.get_or_insert(now_ns)) < HELD_BACK_NS_MAX
    }
}

impl LiveTrack {
    /// How many packets may be taken now.
    pub(super) fn room(&self) -> usize {
        let most = usize::try_from(UNWRITTEN_NS_MAX / self.reception.packet_ns().max(1)).unwrap_or(usize::MAX);
        most.max(UNWRITTEN_MIN).saturating_sub(self.unwritten[0].saturating_add(self.unwritten[1]))
    }

    /// How it stands.
    fn state(&self) -> TrackState {
        TrackState {
            number: self.number,
            reception: self.reception.checkpoint(),
            unprotector: self.unprotector.as_ref().map(Unprotector::checkpoint),
            protector: self.reporting.protector().map(Protector::checkpoint),
            replayed: self.replayed,
            undecipherable: self.undecipherable,
            gate: (self.gate.open, self.gate.since_ns),
            emptied: self.emptied,
        }
    }

    /// Goes on from how it stood. `theirs` are the keys of the last offer, which may have come since.
    fn go_on_from(&mut self, state: TrackState, secured: bool, theirs: Option<&CryptoAttribute>) {
        if let Ok(reception) = Track::resume(TrackConfig::default(), state.reception) {
            self.reception = reception;
            self.reception.describe(&self.payload_types);
        }
        if let Some(checkpoint) = state.unprotector.filter(|_| secured)
            && let Ok(mut unprotector) = Unprotector::resume(checkpoint)
            && theirs.is_none_or(|theirs| unprotector.rekey(theirs).is_ok())
        {
            self.unprotector = Some(unprotector);
        }
        // Without its state our key is not used any more: an index must not be used twice.
        let protector = state.protector.and_then(|checkpoint| Protector::resume(checkpoint).ok());
        self.reporting.secure_with(protector.map(Box::new));
        (self.replayed, self.undecipherable) = (state.replayed, state.undecipherable);
        let (open, since_ns) = state.gate;
        self.gate = Gate { open, since_ns };
        self.emptied = state.emptied;
    }

    pub(super) fn counts(&self) -> TrackCounts {
        counts(self.number, &self.reception.counts(), self.replayed, self.undecipherable)
    }
}

/// What a track that stood like this had counted.
pub(crate) fn counted(state: &TrackState) -> TrackCounts {
    counts(state.number, &state.reception.counts(), state.replayed, state.undecipherable)
}

fn counts(track: u8, counts: &Counts, replayed: u64, undecipherable: u64) -> TrackCounts {
    TrackCounts {
        track,
        packets: counts.packets,
        lost: counts.lost,
        duplicates: counts.duplicates.saturating_add(replayed),
        late: counts.late,
        foreign: counts.foreign,
        invalid: counts.invalid,
        gaps_ms: counts.gaps_ms,
        bytes: counts.bytes,
        strays: counts.strays,
        undescribed: counts.undescribed,
        sources: counts.sources,
        jitter_us_max: counts.jitter_us_max,
        undecipherable,
    }
}

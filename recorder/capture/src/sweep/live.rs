//! A session at its sockets: from datagrams to packets, paused or not.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use callvault_journal::AudioBatch;
use callvault_journal::facts::{Ended, TrackCounts};
use callvault_media::{Counts, Datagram as Kind, PayloadType, Received, Track, TrackConfig};
use callvault_srtp::sdes::CryptoAttribute;
use callvault_srtp::{Rekeyed, SrtpError, Unprotected, Unprotector};

use super::outbox::{Outbox, Remark};
use super::{Counters, DATAGRAMS_PER_SWEEP_MAX, Look, NewTrack, Resumption, Ways};
use crate::checkpoint::{MediaCheckpoint, MediaState, TrackState};
use crate::clock::ArrivalClock;
use crate::ports::PortPair;
use crate::receive::{Datagram, Receiver};

/// How much audio of a track is in memory alone, at most, in nanoseconds: what a death of the process costs.
const UNWRITTEN_NS_MAX: u64 = 200_000_000;

/// Packets that are taken whatever they hold.
const UNWRITTEN_MIN: usize = 2;

struct LiveTrack {
    number: u8,
    pair: Arc<PortPair>,
    reception: Track,
    /// As last described.
    payload_types: Vec<PayloadType>,
    /// What opens its packets, where it is secured.
    unprotector: Option<Unprotector>,
    /// RTP packets that came again, which who opens them knows before the reception sees them.
    replayed: u64,
    /// RTP packets that could not be opened.
    undecipherable: u64,
    /// What the signalling and the control say of the track itself; the gate follows from it.
    paused: bool,
    gate: Gate,
    /// When the sockets, RTP and RTCP, were last found empty: nothing that is there now came before.
    emptied_ns: [u64; 2],
    /// Packets of it in the batch, and in batches that are not written.
    unwritten: [usize; 2],
}

/// Whether what arrives is kept, and since when that is so: what arrived before is dealt with by how it was then.
#[derive(Clone, Copy)]
struct Gate {
    open: bool,
    since_ns: u64,
}

impl Gate {
    fn turn(&mut self, open: bool, at_ns: u64) {
        if self.open != open {
            *self = Self { open, since_ns: at_ns };
        }
    }

    fn is_open_at(self, arrival_ns: u64) -> bool {
        self.open == (arrival_ns >= self.since_ns)
    }
}

/// A session whose sockets are swept.
pub(super) struct LiveSession {
    tracks: Vec<LiveTrack>,
    /// The recording has ended and no other has begun: what comes is thrown away.
    stopped: bool,
    pub(super) counters: Arc<Counters>,
    heard_ns: u64,
    silent_told: bool,
    /// Since when something is with the appender; none when all is written.
    unwritten_ns: Option<u64>,
    pub(super) out: Outbox,
}

impl LiveSession {
    pub(super) fn new(tracks: Vec<NewTrack>, counters: Arc<Counters>, opened_ns: u64, out: Outbox) -> Self {
        let tracks = tracks.into_iter().map(|track| LiveTrack::new(track, opened_ns)).collect();
        Self { tracks, stopped: false, counters, heard_ns: opened_ns, silent_told: false, unwritten_ns: None, out }
    }

    /// Goes on with a session. A track of whose media nothing is known begins anew.
    pub(super) fn resume(resumption: Resumption, now_ns: u64, out: Outbox) -> Self {
        let Resumption { tracks, keys, secured, media, counters, opened_ns, stopped, changed_ns, .. } = resumption;
        let mut states = MediaCheckpoint::from_state(&media).unwrap_or_default().tracks;
        let mut packets = 0;
        let mut resumed = Vec::with_capacity(tracks.len());
        for new in tracks {
            let theirs = keys.iter().find(|(number, _)| *number == new.number).map(|(_, keys)| keys);
            let state = states.iter().position(|state| state.number == new.number).map(|at| states.swap_remove(at));
            let mut track = LiveTrack::new(new, opened_ns);
            let open = !track.paused && !stopped;
            match state {
                Some(state) => {
                    packets += state.reception.counts().packets;
                    track.go_on_from(state, secured.contains(&track.number), theirs);
                    track.gate.turn(open, changed_ns);
                }
                None => track.gate = Gate { open, since_ns: changed_ns },
            }
            resumed.push(track);
        }
        counters.packets.store(packets, Ordering::Relaxed);
        Self { tracks: resumed, stopped, counters, heard_ns: now_ns, silent_told: false, unwritten_ns: None, out }
    }

    /// Sends off what has gathered, when it is time.
    pub(super) fn flush_if_due(&mut self, now_ns: u64, batch_ns: u64, ways: &Ways) {
        if self.out.is_due(now_ns, batch_ns, ways) {
            self.out.note_state(now_ns);
            self.flush(ways);
        }
    }

    /// Sends off what has gathered, and with it how the tracks stand.
    pub(super) fn flush(&mut self, ways: &Ways) {
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
    fn state(&self, ways: &Ways) -> MediaState {
        if !ways.keeps_states {
            return MediaState::default();
        }
        MediaCheckpoint { tracks: self.tracks.iter().map(LiveTrack::state).collect() }.to_state()
    }

    pub(super) fn add_track(&mut self, track: NewTrack, now_ns: u64) {
        let mut track = LiveTrack::new(track, now_ns);
        track.gate.open &= !self.stopped;
        self.tracks.push(track);
    }

    /// A later offer, or news of the call: payload types mean this from now on, and the source may be another one.
    pub(super) fn describe(&mut self, number: u8, payload_types: &[PayloadType]) {
        if let Some(track) = self.track(number) {
            track.describe(payload_types);
            track.reception.signalled_change();
        }
    }

    /// Whether what comes on the track is SRTP.
    pub(super) fn is_secured(&self, number: u8) -> bool {
        self.tracks.iter().any(|track| track.number == number && track.unprotector.is_some())
    }

    /// The keys of a later offer, or that there are none any more.
    pub(super) fn rekey(&mut self, number: u8, keys: Option<&CryptoAttribute>) {
        if let Some(track) = self.track(number) {
            track.rekey(keys);
        }
    }

    /// From `at_ns` on nothing of the track is kept, or all of it again. The sockets are to be swept next, so that one turn is
    /// done with when another comes.
    pub(super) fn pause(&mut self, number: u8, paused: bool, at_ns: u64) {
        let stopped = self.stopped;
        if let Some(track) = self.track(number) {
            track.paused = paused;
            track.gate.turn(!paused && !stopped, at_ns);
        }
    }

    /// From `at_ns` on nothing is kept, paused or not. The sockets are to be swept next.
    pub(super) fn stop(&mut self, at_ns: u64) {
        self.stopped = true;
        for track in &mut self.tracks {
            track.gate.turn(false, at_ns);
        }
    }

    /// The end of a recording whose session goes on: what is held is decided about and the counts go into `ended`, the last that
    /// goes to the journal. Gives that, and how many packets were kept besides.
    pub(super) fn cut(&mut self, ended: Ended, ways: &Ways) -> (Outbox, u64) {
        let kept = self.conclude(ended, ways);
        let spent = Outbox::new(self.out.recording(), AudioBatch::default());
        (std::mem::replace(&mut self.out, spent), kept)
    }

    /// Another recording begins after a stop, with nothing but the sockets and their keys. The sockets are to be swept next.
    pub(super) fn begin(&mut self, counters: Arc<Counters>, at_ns: u64, out: Outbox) {
        (self.counters, self.out, self.stopped) = (counters, out, false);
        for track in &mut self.tracks {
            track.reception = Track::new(TrackConfig::default());
            track.reception.describe(&track.payload_types);
            (track.replayed, track.undecipherable) = (0, 0);
            track.gate.turn(!track.paused, at_ns);
        }
        self.await_media();
    }

    /// Silence is counted from here on: in a pause nothing had to come.
    pub(super) fn await_media(&mut self) {
        self.silent_told = false;
        self.heard_ns = self.tracks.iter().map(|track| track.emptied_ns[0]).fold(self.heard_ns, u64::max);
    }

    /// Whether nothing is to be kept of any track.
    pub(super) fn is_paused(&self) -> bool {
        self.stopped || self.tracks.iter().all(|track| track.paused)
    }

    /// Whether nothing came for longer than `patience_ns`; said once.
    pub(super) fn fell_silent(&mut self, now_ns: u64, patience_ns: u64) -> bool {
        let silent = now_ns.saturating_sub(self.heard_ns) > patience_ns;
        silent && !std::mem::replace(&mut self.silent_told, true)
    }

    /// Takes what waits at the session's sockets; returns how many packets were kept.
    pub(super) fn sweep(&mut self, receiver: &mut Receiver, clock: ArrivalClock, look: Look, ways: &Ways) -> u64 {
        let mut kept = 0;
        let mut heard = false;
        let is_bounded = ways.keeps_states
            && look.datagrams_max == DATAGRAMS_PER_SWEEP_MAX
            && self.is_bounded(clock.now_ns());
        for track in &mut self.tracks {
            let pair = Arc::clone(&track.pair);
            let sockets: [BorrowedFd<'_>; 2] = [pair.rtp.as_fd(), pair.rtcp.as_fd()];
            for (which, socket) in sockets.into_iter().enumerate().take(if look.with_rtcp { 2 } else { 1 }) {
                let not_before_ns = track.emptied_ns[which];
                let room = if is_bounded && which == 0 { track.room() } else { usize::MAX };
                let datagrams_max = look.datagrams_max.min(room);
                if datagrams_max == 0 {
                    continue;
                }
                let got = receiver.receive(socket, datagrams_max, |datagram| {
                    let arrival_ns = clock.arrival_ns(datagram.stamp_ns, not_before_ns);
                    if let Some(packets) = track.take(arrival_ns, datagram, &mut self.out, ways) {
                        heard = true;
                        kept += packets;
                        track.unwritten[0] += usize::try_from(packets).unwrap_or(usize::MAX);
                    }
                });
                // An error is an ICMP answer to something sent, or a lack of memory: the next sweep tries again.
                match got {
                    Ok(got) if got < datagrams_max => track.emptied_ns[which] = clock.now_ns(),
                    Ok(_) if is_bounded => self.out.hurry(),
                    _ => {}
                }
            }
        }
        if heard {
            self.heard_ns = clock.now_ns();
            self.silent_told = false;
        }
        self.counters.packets.fetch_add(kept, Ordering::Relaxed);
        kept
    }

    /// Whether so little is to be taken at once that what is in memory alone stays within [`UNWRITTEN_NS_MAX`]: more waits in the
    /// sockets, where it outlives this process. With an appender that does not follow nothing is held back, since the sockets have
    /// less room than the queues.
    fn is_bounded(&mut self, now_ns: u64) -> bool {
        if self.out.is_written() {
            self.unwritten_ns = None;
            self.tracks.iter_mut().for_each(|track| track.unwritten[1] = 0);
            return true;
        }
        now_ns.saturating_sub(*self.unwritten_ns.get_or_insert(now_ns)) < UNWRITTEN_NS_MAX
    }

    /// The end: what is held is decided about, the counts go into `ended`, which is the last that goes to the journal. Gives that, the
    /// sockets, and how many packets were kept besides.
    pub(super) fn close(mut self, ended: Ended, ways: &Ways) -> (Outbox, Vec<Arc<PortPair>>, u64) {
        // Of a recording that was stopped the end is written.
        let kept = if self.stopped { 0 } else { self.conclude(ended, ways) };
        (self.out, self.tracks.into_iter().map(|track| track.pair).collect(), kept)
    }

    fn conclude(&mut self, mut ended: Ended, ways: &Ways) -> u64 {
        let mut kept = 0;
        let undecipherable = self.tracks.iter().map(|track| track.undecipherable).sum();
        if undecipherable > 0 {
            self.out.remark(Remark::Undecipherable(undecipherable));
        }
        for track in &mut self.tracks {
            track.reception.finish();
            kept += self.out.held(track.number, &mut track.reception, ways);
            let counts = track.reception.counts();
            if counts.undescribed > 0 {
                self.out.remark(Remark::Undescribed);
            }
            if counts.sources_overflowed() {
                self.out.remark(Remark::SourcesOverflowed);
            }
            ended.tracks.push(track.counts());
        }
        self.counters.packets.fetch_add(kept, Ordering::Relaxed);
        let media = self.state(ways);
        self.out.end(ended, media, ways);
        kept
    }

    fn track(&mut self, number: u8) -> Option<&mut LiveTrack> {
        self.tracks.iter_mut().find(|track| track.number == number)
    }
}

impl LiveTrack {
    fn new(new: NewTrack, opened_ns: u64) -> Self {
        let mut reception = Track::new(TrackConfig::default());
        reception.describe(&new.payload_types);
        Self {
            number: new.number,
            pair: new.pair,
            reception,
            unprotector: new.unprotector,
            replayed: 0,
            undecipherable: 0,
            payload_types: new.payload_types,
            paused: new.paused,
            gate: Gate { open: !new.paused, since_ns: opened_ns },
            emptied_ns: [opened_ns; 2],
            unwritten: [0; 2],
        }
    }

    /// How many packets may be taken now.
    fn room(&self) -> usize {
        let most = usize::try_from(UNWRITTEN_NS_MAX / self.reception.packet_ns().max(1)).unwrap_or(usize::MAX);
        most.max(UNWRITTEN_MIN).saturating_sub(self.unwritten[0].saturating_add(self.unwritten[1]))
    }

    /// How it stands.
    fn state(&self) -> TrackState {
        TrackState {
            number: self.number,
            reception: self.reception.checkpoint(),
            unprotector: self.unprotector.as_ref().map(Unprotector::checkpoint),
            replayed: self.replayed,
            undecipherable: self.undecipherable,
            gate: (self.gate.open, self.gate.since_ns),
            emptied_ns: self.emptied_ns,
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
        (self.replayed, self.undecipherable) = (state.replayed, state.undecipherable);
        let (open, since_ns) = state.gate;
        self.gate = Gate { open, since_ns };
        self.emptied_ns = state.emptied_ns;
    }

    fn describe(&mut self, payload_types: &[PayloadType]) {
        self.reception.describe(payload_types);
        // For a recording that begins later in the session: what is true then.
        self.payload_types = payload_types.to_vec();
    }

    fn rekey(&mut self, keys: Option<&CryptoAttribute>) {
        let changed = match (&mut self.unprotector, keys) {
            (Some(unprotector), Some(keys)) => unprotector.rekey(keys).is_ok_and(|rekeyed| rekeyed == Rekeyed::New),
            (unprotector, keys) => {
                let was_secured = unprotector.is_some();
                *unprotector = keys.and_then(|keys| Unprotector::new(keys).ok());
                was_secured != unprotector.is_some()
            }
        };
        if changed {
            // Other keys often mean another sender.
            self.reception.signalled_change();
        }
    }

    /// Puts one datagram, from the RTP or the RTCP socket, where it belongs; returns how many packets of it (or held back before
    /// it) are kept, or None when it is not from who has the track's keys.
    fn take(&mut self, arrival_ns: u64, datagram: Datagram<'_>, out: &mut Outbox, ways: &Ways) -> Option<u64> {
        let Datagram { bytes, from, cut, .. } = datagram;
        // What is cut cannot be opened. It is told of all the same, and nothing else of it is looked at.
        let length = if cut { bytes.len() } else { self.open(arrival_ns, bytes)? };
        let heard = !cut || self.unprotector.is_none();
        let kept = self.keep(arrival_ns, from, bytes.get(..length).unwrap_or_default(), cut, out, ways);
        heard.then_some(kept)
    }

    /// Opens a packet in place, in a pause too, or the rollover counter would be lost in a long one. Returns the length of what is
    /// plain then; None where there is nothing to keep.
    fn open(&mut self, arrival_ns: u64, bytes: &mut [u8]) -> Option<usize> {
        let is_paused = !self.gate.is_open_at(arrival_ns);
        let Some(unprotector) = &mut self.unprotector else { return Some(bytes.len()) };
        match unprotector.unprotect(bytes) {
            Ok(Unprotected::Rtp(length) | Unprotected::Rtcp(length)) => Some(length),
            // Anybody may have sent it, and there is no audio in it.
            Ok(Unprotected::Other) => None,
            // Nothing of a pause is counted, and reports are not audio: some clients do not secure them.
            Err(_) if is_paused || is_rtcp(bytes) => None,
            Err(SrtpError::Replayed | SrtpError::TooOld) => {
                self.replayed += 1;
                None
            }
            Err(_) => {
                self.undecipherable += 1;
                None
            }
        }
    }

    /// [`LiveTrack::take`] of a plain datagram.
    fn keep(
        &mut self,
        arrival_ns: u64,
        from: SocketAddr,
        bytes: &[u8],
        cut: bool,
        out: &mut Outbox,
        ways: &Ways,
    ) -> u64 {
        if !self.gate.is_open_at(arrival_ns) {
            // Reports still count: who says goodbye in a pause comes back as another source.
            match Kind::parse(bytes) {
                Ok(Kind::Rtcp(_)) => {}
                Ok(Kind::Rtp { .. }) => {
                    self.reception.interrupt();
                    return 0;
                }
                _ => return 0,
            }
        }
        if cut {
            // Longer than any packet of audio, and not whole: nothing to keep, but not to be passed over in silence either.
            out.drop_packets(1, Remark::TooLong);
            return 0;
        }
        match self.reception.receive(arrival_ns, from, bytes) {
            Received::Kept(kept) => {
                let payload = bytes.get(kept.payload.clone()).unwrap_or_default();
                out.packet(self.number, arrival_ns, &kept, payload, ways)
            }
            Received::Held => out.held(self.number, &mut self.reception, ways),
            // The reception has taken note of a goodbye. Sender reports are where a common clock of the tracks will come from;
            // alignment goes by arrival as yet, so they are not written.
            Received::Rtcp { .. } => 0,
            Received::Duplicate | Received::Foreign | Received::Invalid(_) | Received::Other => 0,
        }
    }

    fn counts(&self) -> TrackCounts {
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

/// Whether a datagram is RTCP by its second byte (RFC 5761 section 4), which is never encrypted.
fn is_rtcp(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|second| (192..=223).contains(second))
}

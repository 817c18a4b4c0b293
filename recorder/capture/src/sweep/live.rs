//! A session at its sockets: from datagrams to packets, paused or not.

mod keeping;

use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use callvault_journal::facts::{Ended, SenderReportFacts};
use callvault_media::{Datagram as Kind, OwnName, PayloadType, Received, Track, TrackConfig};
use callvault_srtp::sdes::CryptoAttribute;
use callvault_srtp::{Protector, Rekeyed, SrtpError, Unprotected, Unprotector};

use super::outbox::{Outbox, Remark};
use super::reporting::{Arrival, Port, Reporting, Reports};
use super::{Counters, DATAGRAMS_PER_SWEEP_MAX, Look, NewTrack, Ways};
use crate::clock::{ArrivalClock, Came, Emptied};
use crate::ports::PortPair;
use crate::receive::{Datagram, Receiver};
pub(crate) use keeping::counted;

struct LiveTrack {
    number: u8,
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
    reporting: Reporting,
    /// When the sockets, RTP and RTCP, were last found empty: nothing that is there now came before.
    emptied: [Emptied; 2],
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

    /// Whether something is to be kept that came then. Of what may have come earlier all of that time must be, for nothing that is said in a
    /// pause may be stored.
    fn is_open_for(self, arrival: &Arrival) -> bool {
        if self.open { arrival.earliest_ns >= self.since_ns } else { arrival.at_ns < self.since_ns }
    }
}

/// A datagram that was taken from its socket before it was its turn.
struct Ahead {
    /// Place of its track.
    track: usize,
    arrival: Arrival,
    bytes: Vec<u8>,
    cut: bool,
}

/// A session whose sockets are swept.
pub(super) struct LiveSession {
    tracks: Vec<LiveTrack>,
    /// The sockets of each track, in the same order: apart from them, so that a socket can be read while its track takes what comes.
    pairs: Vec<Arc<PortPair>>,
    /// What arrived too late for the last look, in order of arrival at each socket. It is what comes during one look.
    ahead: Vec<Ahead>,
    /// The recording has ended and no other has begun: what comes is thrown away.
    stopped: bool,
    pub(super) counters: Arc<Counters>,
    /// Packets kept: what the counters show. Only this thread counts, and to write costs it less than to add.
    packets: u64,
    heard_ns: u64,
    silent_told: bool,
    /// The last look left something in a socket.
    has_more: bool,
    /// Since when something is with the appender; none when all is written.
    unwritten_ns: Option<u64>,
    /// Ours, in what we send.
    name: OwnName,
    pub(super) out: Outbox,
}

impl LiveSession {
    pub(super) fn new(
        tracks: Vec<NewTrack>,
        counters: Arc<Counters>,
        opened_ns: u64,
        out: Outbox,
        reports: &mut Reports,
    ) -> Self {
        let name = reports.name();
        let pairs = tracks.iter().map(|track| Arc::clone(&track.pair)).collect();
        let tracks = tracks.into_iter().map(|track| LiveTrack::new(track, opened_ns, name, reports)).collect();
        Self {
            tracks,
            pairs,
            packets: 0,
            ahead: Vec::new(),
            stopped: false,
            counters,
            heard_ns: opened_ns,
            silent_told: false,
            has_more: false,
            unwritten_ns: None,
            name,
            out,
        }
    }

    pub(super) fn add_track(&mut self, track: NewTrack, now_ns: u64, reports: &mut Reports) {
        self.pairs.push(Arc::clone(&track.pair));
        let mut track = LiveTrack::new(track, now_ns, self.name, reports);
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

    /// The keys of a later offer, or that there are none any more, and ours.
    pub(super) fn rekey(&mut self, number: u8, keys: Option<&CryptoAttribute>, protector: Option<Box<Protector>>) {
        if let Some(track) = self.track(number) {
            track.rekey(keys);
            track.reporting.secure_with(protector);
        }
    }

    /// Does what need not be done at every sweep: reports to the senders, and telephone events that had no end.
    pub(super) fn report(&mut self, now_ns: u64, reports: &mut Reports) {
        for (track, pair) in self.tracks.iter_mut().zip(&self.pairs) {
            let is_secured = track.unprotector.is_some();
            track.reporting.send_if_due(now_ns, is_secured, &track.reception, pair, reports);
        }
        self.out.expire_tones(now_ns);
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
        let spent = Outbox::new(self.out.recording());
        (std::mem::replace(&mut self.out, spent), kept)
    }

    /// Another recording begins after a stop, with nothing but the sockets and their keys. The sockets are to be swept next.
    pub(super) fn begin(&mut self, counters: Arc<Counters>, at_ns: u64, out: Outbox) {
        (self.counters, self.out, self.stopped) = (counters, out, false);
        self.packets = 0;
        for track in &mut self.tracks {
            track.reception = Track::new(TrackConfig::default());
            track.reception.describe(&track.payload_types);
            track.reporting.begin_anew();
            (track.replayed, track.undecipherable) = (0, 0);
            track.gate.turn(!track.paused, at_ns);
        }
        self.await_media();
    }

    /// Silence is counted from here on: in a pause nothing had to come.
    pub(super) fn await_media(&mut self) {
        self.silent_told = false;
        self.heard_ns = self.tracks.iter().map(|track| track.emptied[0].at_ns).fold(self.heard_ns, u64::max);
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

    /// Whether the last look left something in a socket of the session.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Takes what waits at the session's sockets; returns how many packets were kept.
    pub(super) fn sweep(&mut self, receiver: &mut Receiver, clock: ArrivalClock, look: Look, ways: &Ways) -> u64 {
        let mut kept = 0;
        let mut heard = false;
        let (now, later): (Vec<Ahead>, Vec<Ahead>) =
            mem::take(&mut self.ahead).into_iter().partition(|ahead| ahead.arrival.at_ns < look.until_ns);
        self.ahead = later;
        for Ahead { track, arrival, mut bytes, cut } in now {
            let datagram = Datagram { bytes: &mut bytes, from: arrival.from, stamp_ns: None, cut };
            if let Some(packets) = self.tracks[track].take(&arrival, datagram, &mut self.out, ways) {
                heard = true;
                kept += packets;
            }
        }
        self.has_more = false;
        let is_bounded =
            ways.keeps_states && look.datagrams_max == DATAGRAMS_PER_SWEEP_MAX && self.is_bounded(clock.now_ns());
        for (place, (track, pair)) in self.tracks.iter_mut().zip(&self.pairs).enumerate() {
            let sockets: [BorrowedFd<'_>; 2] = [pair.rtp.as_fd(), pair.rtcp.as_fd()];
            for (which, socket) in sockets.into_iter().enumerate().take(if look.with_rtcp { 2 } else { 1 }) {
                let since = track.emptied[which];
                let room = if is_bounded && which == 0 { track.room() } else { usize::MAX };
                let datagrams_max = look.datagrams_max.min(room);
                if datagrams_max == 0 {
                    self.has_more = true;
                    continue;
                }
                let port = if which == 0 { Port::Rtp } else { Port::Rtcp };
                let got = receiver.receive(socket, datagrams_max, |datagram| {
                    let Came { at_ns, earliest_ns } = clock.came(datagram.stamp_ns, &since);
                    let arrival = Arrival { at_ns, earliest_ns, from: datagram.from, port };
                    if at_ns >= look.until_ns {
                        let Datagram { bytes, cut, .. } = datagram;
                        return self.ahead.push(Ahead { track: place, arrival, bytes: bytes.to_vec(), cut });
                    }
                    if let Some(packets) = track.take(&arrival, datagram, &mut self.out, ways) {
                        heard = true;
                        kept += packets;
                        track.unwritten[0] += usize::try_from(packets).unwrap_or(usize::MAX);
                    }
                });
                // An error is an ICMP answer to something sent, or a lack of memory: the next sweep tries again.
                match got {
                    Ok(got) if got < datagrams_max => track.emptied[which] = clock.emptied(),
                    Ok(_) => {
                        self.has_more = true;
                        if is_bounded {
                            self.out.hurry();
                        }
                    }
                    Err(_) => {}
                }
            }
        }
        if heard {
            self.heard_ns = clock.now_ns();
            self.silent_told = false;
        }
        self.count(kept);
        kept
    }

    fn count(&mut self, kept: u64) {
        self.packets += kept;
        self.counters.packets.store(self.packets, Ordering::Relaxed);
    }

    /// The end: what is held is decided about, the counts go into `ended`, which is the last that goes to the journal. Gives that, the
    /// sockets, and how many packets were kept besides.
    pub(super) fn close(mut self, ended: Ended, ways: &Ways) -> (Outbox, Vec<Arc<PortPair>>, u64) {
        // Of a recording that was stopped the end is written.
        let kept = if self.stopped { 0 } else { self.conclude(ended, ways) };
        (self.out, self.pairs, kept)
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
        self.count(kept);
        let media = self.state(ways);
        self.out.end(ended, media, ways);
        kept
    }

    fn track(&mut self, number: u8) -> Option<&mut LiveTrack> {
        self.tracks.iter_mut().find(|track| track.number == number)
    }
}

impl LiveTrack {
    fn new(new: NewTrack, opened_ns: u64, name: OwnName, reports: &mut Reports) -> Self {
        let mut reception = Track::new(TrackConfig::default());
        reception.describe(&new.payload_types);
        let mut reporting = reports.track(opened_ns, name, new.remote_ports);
        reporting.secure_with(new.protector);
        Self {
            number: new.number,
            reception,
            unprotector: new.unprotector,
            replayed: 0,
            undecipherable: 0,
            payload_types: new.payload_types,
            paused: new.paused,
            gate: Gate { open: !new.paused, since_ns: opened_ns },
            reporting,
            emptied: [ArrivalClock::read().emptied_at(opened_ns); 2],
            unwritten: [0; 2],
        }
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
    fn take(&mut self, arrival: &Arrival, datagram: Datagram<'_>, out: &mut Outbox, ways: &Ways) -> Option<u64> {
        let Datagram { bytes, cut, .. } = datagram;
        // What is cut cannot be opened. It is told of all the same, and nothing else of it is looked at.
        let length = if cut { bytes.len() } else { self.open(arrival, bytes)? };
        let heard = !cut || self.unprotector.is_none();
        let kept = self.keep(arrival, bytes.get(..length).unwrap_or_default(), cut, out, ways);
        heard.then_some(kept)
    }

    /// Opens a packet in place, in a pause too, or the rollover counter would be lost in a long one. Returns the length of what is
    /// plain then; None where there is nothing to keep.
    fn open(&mut self, arrival: &Arrival, bytes: &mut [u8]) -> Option<usize> {
        let is_paused = !self.gate.is_open_for(arrival);
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
    fn keep(&mut self, arrival: &Arrival, bytes: &[u8], cut: bool, out: &mut Outbox, ways: &Ways) -> u64 {
        let is_open = self.gate.is_open_for(arrival);
        if !is_open {
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
            // Longer than any packet of audio, and not whole: nothing to keep, but not to be passed over in silence either when
            // it may be the track's. What strangers send must not speak against the recording.
            if self.may_be_ours(arrival.from, bytes) {
                out.drop_packets(1, Remark::TooLong);
            }
            return 0;
        }
        match self.reception.receive(arrival.at_ns, arrival.from, bytes) {
            Received::Kept(kept) => {
                let payload = bytes.get(kept.payload.clone()).unwrap_or_default();
                out.packet(self.number, arrival.at_ns, &kept, payload, ways)
            }
            Received::Held => out.held(self.number, &mut self.reception, ways),
            // The reception has taken note of a goodbye. Sender reports are where a common clock of the tracks comes from.
            Received::Rtcp { rtcp, source } => {
                // A recording that has ended, or pauses, has no use for it.
                if let Some(report) =
                    self.reporting.hear(arrival, &rtcp, source, &self.reception, bytes).filter(|_| is_open)
                {
                    out.sender_report(SenderReportFacts { track: self.number, ..report });
                }
                0
            }
            Received::Duplicate | Received::Foreign | Received::Invalid(_) | Received::Other => 0,
        }
    }

    /// Whether a datagram is RTP, of the source that is followed or before there is one. The fixed header (RFC 3550 section 5.1)
    /// is looked at alone: it is in the clear also where the packet is secured, and whole also where the packet is cut.
    fn may_be_ours(&self, from: SocketAddr, bytes: &[u8]) -> bool {
        let Some(&[first, _, _, _, _, _, _, _, a, b, c, d]) = bytes.first_chunk::<12>() else { return false };
        let ssrc = u32::from_be_bytes([a, b, c, d]);
        let followed = self.reception.followed();
        first >> 6 == 2 && !is_rtcp(bytes) && followed.is_none_or(|f| (f.ssrc, f.from) == (ssrc, from))
    }
}

/// Whether a datagram is RTCP by its second byte (RFC 5761 section 4), which is never encrypted.
fn is_rtcp(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|second| (192..=223).contains(second))
}

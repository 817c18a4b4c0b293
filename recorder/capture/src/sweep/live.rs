//! A session at its sockets: from datagrams to packets, paused or not.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use callvault_journal::facts::{Ended, TrackCounts};
use callvault_media::{Datagram as Kind, PayloadType, Received, Track, TrackConfig};
use callvault_srtp::sdes::CryptoAttribute;
use callvault_srtp::{Rekeyed, SrtpError, Unprotected, Unprotector};

use super::outbox::{Outbox, Remark};
use super::{Counters, Look, NewTrack, Ways};
use crate::clock::ArrivalClock;
use crate::ports::PortPair;
use crate::receive::{Datagram, Receiver};

struct LiveTrack {
    number: u8,
    pair: Arc<PortPair>,
    reception: Track,
    /// What opens its packets, where it is secured.
    unprotector: Option<Unprotector>,
    /// RTP packets that came again, which who opens them knows before the reception sees them.
    replayed: u64,
    /// RTP packets that could not be opened.
    undecipherable: u64,
    paused: bool,
    /// When the sockets, RTP and RTCP, were last found empty: nothing that is there now came before.
    emptied_ns: [u64; 2],
}

/// A session whose sockets are swept.
pub(super) struct LiveSession {
    tracks: Vec<LiveTrack>,
    counters: Arc<Counters>,
    heard_ns: u64,
    silent_told: bool,
    pub(super) out: Outbox,
}

impl LiveSession {
    pub(super) fn new(tracks: Vec<NewTrack>, counters: Arc<Counters>, opened_ns: u64, out: Outbox) -> Self {
        let tracks = tracks.into_iter().map(|track| LiveTrack::new(track, opened_ns)).collect();
        Self { tracks, counters, heard_ns: opened_ns, silent_told: false, out }
    }

    pub(super) fn add_track(&mut self, track: NewTrack, now_ns: u64) {
        self.tracks.push(LiveTrack::new(track, now_ns));
    }

    /// A later offer, or news of the call: payload types mean this from now on, and the source may be another one.
    pub(super) fn describe(&mut self, number: u8, payload_types: &[PayloadType]) {
        if let Some(track) = self.track(number) {
            track.reception.describe(payload_types);
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

    pub(super) fn pause(&mut self, number: u8, paused: bool) {
        if let Some(track) = self.track(number) {
            track.paused = paused;
        }
        // Silence is counted from here on: in the pause nothing had to come.
        self.silent_told = false;
        self.heard_ns = self.tracks.iter().map(|track| track.emptied_ns[0]).fold(self.heard_ns, u64::max);
    }

    /// Whether nothing is to be kept of any track.
    pub(super) fn is_paused(&self) -> bool {
        self.tracks.iter().all(|track| track.paused)
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
        for track in &mut self.tracks {
            let pair = Arc::clone(&track.pair);
            let sockets: [BorrowedFd<'_>; 2] = [pair.rtp.as_fd(), pair.rtcp.as_fd()];
            for (which, socket) in sockets.into_iter().enumerate().take(if look.with_rtcp { 2 } else { 1 }) {
                let not_before_ns = track.emptied_ns[which];
                let got = receiver.receive(socket, look.datagrams_max, |datagram| {
                    let arrival_ns = clock.arrival_ns(datagram.stamp_ns, not_before_ns);
                    if let Some(packets) = track.take(arrival_ns, datagram, &mut self.out, ways) {
                        heard = true;
                        kept += packets;
                    }
                });
                // An error is an ICMP answer to something sent, or a lack of memory: the next sweep tries again.
                if got.is_ok_and(|got| got < look.datagrams_max) {
                    track.emptied_ns[which] = clock.now_ns();
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

    /// The end: what is held is decided about, the counts go into `ended`, which is the last that goes to the journal. Gives that, the
    /// sockets, and how many packets were kept besides.
    pub(super) fn close(mut self, mut ended: Ended, ways: &Ways) -> (Outbox, Vec<Arc<PortPair>>, u64) {
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
        self.out.end(ended, ways);
        (self.out, self.tracks.into_iter().map(|track| track.pair).collect(), kept)
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
            paused: new.paused,
            emptied_ns: [opened_ns; 2],
        }
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
        let length = if cut { bytes.len() } else { self.open(bytes)? };
        let heard = !cut || self.unprotector.is_none();
        let kept = self.keep(arrival_ns, from, bytes.get(..length).unwrap_or_default(), cut, out, ways);
        heard.then_some(kept)
    }

    /// Opens a packet in place, in a pause too, or the rollover counter would be lost in a long one. Returns the length of what is
    /// plain then; None where there is nothing to keep.
    fn open(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let Some(unprotector) = &mut self.unprotector else { return Some(bytes.len()) };
        match unprotector.unprotect(bytes) {
            Ok(Unprotected::Rtp(length) | Unprotected::Rtcp(length)) => Some(length),
            // Anybody may have sent it, and there is no audio in it.
            Ok(Unprotected::Other) => None,
            // Nothing of a pause is counted, and reports are not audio: some clients do not secure them.
            Err(_) if self.paused || is_rtcp(bytes) => None,
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
        if self.paused {
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
            if self.may_be_ours(from, bytes) {
                out.drop_packets(1, Remark::TooLong);
            }
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

    /// Whether a datagram is RTP, of the source that is followed or before there is one. The fixed header (RFC 3550 section 5.1)
    /// is looked at alone: it is in the clear also where the packet is secured, and whole also where the packet is cut.
    fn may_be_ours(&self, from: SocketAddr, bytes: &[u8]) -> bool {
        let Some(&[first, _, _, _, _, _, _, _, a, b, c, d]) = bytes.first_chunk::<12>() else { return false };
        let ssrc = u32::from_be_bytes([a, b, c, d]);
        let followed = self.reception.followed();
        first >> 6 == 2 && !is_rtcp(bytes) && followed.is_none_or(|f| (f.ssrc, f.from) == (ssrc, from))
    }

    fn counts(&self) -> TrackCounts {
        let counts = self.reception.counts();
        TrackCounts {
            track: self.number,
            packets: counts.packets,
            lost: counts.lost,
            duplicates: counts.duplicates + self.replayed,
            late: counts.late,
            foreign: counts.foreign,
            invalid: counts.invalid,
            gaps_ms: counts.gaps_ms,
            bytes: counts.bytes,
            strays: counts.strays,
            undescribed: counts.undescribed,
            sources: counts.sources,
            jitter_us_max: counts.jitter_us_max,
            undecipherable: self.undecipherable,
        }
    }
}

/// Whether a datagram is RTCP by its second byte (RFC 5761 section 4), which is never encrypted.
fn is_rtcp(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|second| (192..=223).contains(second))
}

//! The sweep: the one thread that receives media.
//!
//! Every [`SWEEP`] it goes over the sockets of all live tracks and takes what waits there, many datagrams with one system call.
//! The kernel has stamped each when it arrived, so nothing is lost by looking late, and a sweep costs far less than being woken
//! for every packet. Packets gather per session and go to the journal when they have waited `journal.batch_interval`, or when
//! the batch is full. Nothing here waits for anybody: when the appender does not follow, packets gather up to a bound per
//! session, and beyond it are counted as dropped.

#[doc(hidden)]
pub mod bench;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Queue, SyncSender, TryRecvError, TrySendError};
use std::thread;
use std::time::Duration;

use callvault_control::Start;
use callvault_journal::facts::{Ended, Flaw, SessionEvent, SourceFacts, TrackCounts};
use callvault_journal::{AudioBatch, Packet, Pushed};
use callvault_media::{Held, Kept, PayloadType, Received, Track, TrackConfig};
use uuid::Uuid;

use crate::Feedback;
use crate::appender::Entry;
use crate::clock::ArrivalClock;
use crate::ports::PortPair;
use crate::receive::{Datagram, Receiver};

/// Time between two sweeps. Long enough that a sweep finds about one packet per socket, short enough that with a batch
/// interval of 200 ms at most that much audio is in this process alone.
const SWEEP: Duration = Duration::from_millis(20);

/// Datagrams taken from one socket in one sweep. At 50 packets a second one waits; the rest is for what gathered while the
/// recorder was away, in several sweeps.
const DATAGRAMS_PER_SWEEP_MAX: usize = 256;

/// RTCP is looked at every so many sweeps: a report every few seconds is all that comes.
const RTCP_EVERY: u64 = 25;

/// Full batches of one session that may wait for the appender: 32 KiB each, about 20 s of two G.711 tracks.
const WAITING_BATCHES_MAX: usize = 12;

/// What the signalling asks of the sweep.
pub(crate) enum Command {
    /// Follow the sockets of a new session.
    Open { recording: Uuid, tracks: Vec<NewTrack>, counters: Arc<Counters>, opened_ns: u64 },
    /// Follow one more track.
    AddTrack { recording: Uuid, track: NewTrack },
    /// A later offer: payload types mean this from now on, and the source may be another one.
    Describe { recording: Uuid, track: u8, payload_types: Vec<PayloadType> },
    /// Keep nothing of the track, or keep it again.
    Pause { recording: Uuid, track: u8, paused: bool },
    /// Take what still waits, then leave the sockets.
    Close { recording: Uuid, ended: Ended },
    /// Hand everything over and stop.
    Stop,
}

/// A track to follow.
pub(crate) struct NewTrack {
    pub(crate) number: u8,
    pub(crate) pair: Arc<PortPair>,
    pub(crate) payload_types: Vec<PayloadType>,
    pub(crate) paused: bool,
}

/// What the signalling sees of a session's media.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Packets kept.
    pub(crate) packets: AtomicU64,
}

/// What the other threads see of the sweep.
#[derive(Debug, Default)]
pub(crate) struct SweepState {
    pub(crate) sweeps: AtomicU64,
    pub(crate) packets: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

struct LiveTrack {
    number: u8,
    pair: Arc<PortPair>,
    reception: Track,
    paused: bool,
}

struct LiveSession {
    recording: Uuid,
    tracks: Vec<LiveTrack>,
    counters: Arc<Counters>,
    /// When the sockets were last found empty.
    swept_ns: u64,
    heard_ns: u64,
    silent_told: bool,
    out: Outbox,
}

/// What a session has for the journal.
struct Outbox {
    recording: Uuid,
    batch: AudioBatch,
    /// Entries that the appender had no room for, in order.
    waiting: Vec<Entry>,
    dropped: u64,
}

/// The sweep. [`Sweep::run`] is its thread.
pub(crate) struct Sweep {
    settings: Arc<Start>,
    sessions: Vec<LiveSession>,
    places: HashMap<Uuid, usize>,
    receiver: Receiver,
    journal: SyncSender<Entry>,
    spare: Queue<AudioBatch>,
    feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
    state: Arc<SweepState>,
    rounds: u64,
}

impl Sweep {
    pub(crate) fn new(
        settings: Arc<Start>,
        journal: SyncSender<Entry>,
        spare: Queue<AudioBatch>,
        feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
        state: Arc<SweepState>,
    ) -> Self {
        Self {
            settings,
            sessions: Vec::new(),
            places: HashMap::new(),
            receiver: Receiver::new(),
            journal,
            spare,
            feedback,
            state,
            rounds: 0,
        }
    }

    /// Works until told to stop, or until nobody is left who could say so.
    pub(crate) fn run(mut self, commands: &Queue<Command>) {
        loop {
            loop {
                match commands.try_recv() {
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return self.stop(),
                    Ok(command) => self.handle(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.sweep();
            thread::sleep(SWEEP);
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Open { recording, tracks, counters, opened_ns } => {
                let tracks = tracks.into_iter().map(LiveTrack::new).collect();
                self.places.insert(recording, self.sessions.len());
                self.sessions.push(LiveSession {
                    recording,
                    tracks,
                    counters,
                    swept_ns: opened_ns,
                    heard_ns: opened_ns,
                    silent_told: false,
                    out: Outbox { recording, batch: self.spare.try_recv().unwrap_or_default(), waiting: Vec::new(), dropped: 0 },
                });
            }
            Command::AddTrack { recording, track } => {
                if let Some(session) = self.session(recording) {
                    session.tracks.push(LiveTrack::new(track));
                }
            }
            Command::Describe { recording, track, payload_types } => {
                if let Some(track) = self.track(recording, track) {
                    track.reception.describe(&payload_types);
                    track.reception.signalled_change();
                }
            }
            Command::Pause { recording, track, paused } => {
                // What arrived before the pause was signalled belongs to the recording.
                self.sweep_one(recording);
                if let Some(track) = self.track(recording, track) {
                    track.paused = paused;
                }
            }
            Command::Close { recording, ended } => self.close(recording, ended),
            Command::Stop => {}
        }
    }

    fn session(&mut self, recording: Uuid) -> Option<&mut LiveSession> {
        self.places.get(&recording).and_then(|&place| self.sessions.get_mut(place))
    }

    fn track(&mut self, recording: Uuid, number: u8) -> Option<&mut LiveTrack> {
        self.session(recording)?.tracks.iter_mut().find(|t| t.number == number)
    }

    fn sweep(&mut self) {
        self.rounds += 1;
        let with_rtcp = self.rounds.is_multiple_of(RTCP_EVERY);
        let batch_ns = u64::from(self.settings.batch_interval_ms) * 1_000_000;
        let silence_ns = u64::from(self.settings.media_timeout_s) * 1_000_000_000;
        let mut packets = 0;
        let mut dropped = 0;
        for session in &mut self.sessions {
            let clock = ArrivalClock::read();
            packets += session.sweep(&mut self.receiver, clock, with_rtcp, &self.journal, &self.spare);
            let waited = session.out.batch.first_arrival_ns().map(|first| clock.now_ns().saturating_sub(first));
            if waited.is_some_and(|ns| ns >= batch_ns) {
                session.out.flush(&self.journal, &self.spare);
            }
            session.out.retry(&self.journal);
            dropped += std::mem::take(&mut session.out.dropped);
            let silent_ns = clock.now_ns().saturating_sub(session.heard_ns);
            if silence_ns > 0 && silent_ns > silence_ns && !session.silent_told {
                session.silent_told = true;
                let _ = self.feedback.send(Feedback::Silent(session.recording));
            }
        }
        self.state.packets.fetch_add(packets, Ordering::Relaxed);
        self.state.dropped.fetch_add(dropped, Ordering::Relaxed);
        self.state.sweeps.fetch_add(1, Ordering::Relaxed);
    }

    fn sweep_one(&mut self, recording: Uuid) {
        let Some(&place) = self.places.get(&recording) else { return };
        if let Some(session) = self.sessions.get_mut(place) {
            let packets = session.sweep(&mut self.receiver, ArrivalClock::read(), true, &self.journal, &self.spare);
            self.state.packets.fetch_add(packets, Ordering::Relaxed);
        }
    }

    fn close(&mut self, recording: Uuid, mut ended: Ended) {
        self.sweep_one(recording);
        let Some(place) = self.places.remove(&recording) else { return };
        let mut session = self.sessions.swap_remove(place);
        if let Some(moved) = self.sessions.get(place) {
            self.places.insert(moved.recording, place);
        }
        let mut packets = 0;
        for track in &mut session.tracks {
            track.reception.finish();
            packets += session.out.held(track.number, &mut track.reception, &self.journal, &self.spare);
            ended.tracks.push(track.counts());
        }
        self.state.packets.fetch_add(packets, Ordering::Relaxed);
        session.out.flush(&self.journal, &self.spare);
        if session.out.dropped > 0 {
            self.state.dropped.fetch_add(session.out.dropped, Ordering::Relaxed);
        }
        session.out.put(Entry::End { recording, ended });
        // The end must get there, and the sockets are left already: waiting here is the appender's pace, which is bounded.
        for entry in session.out.waiting.drain(..) {
            if self.journal.send(entry).is_err() {
                break;
            }
        }
        let pairs = session.tracks.into_iter().map(|t| t.pair).collect();
        let _ = self.feedback.send(Feedback::Left(pairs));
    }

    fn stop(mut self) {
        let live: Vec<Uuid> = self.sessions.iter().map(|s| s.recording).collect();
        for recording in live {
            self.sweep_one(recording);
            if let Some(session) = self.session(recording) {
                let waiting = std::mem::take(&mut session.out.waiting);
                let batch = std::mem::take(&mut session.out.batch);
                for entry in waiting.into_iter().chain([Entry::Audio { recording, batch }]) {
                    let _ = self.journal.send(entry);
                }
            }
        }
    }
}

impl LiveTrack {
    fn new(new: NewTrack) -> Self {
        let mut reception = Track::new(TrackConfig::default());
        reception.describe(&new.payload_types);
        Self { number: new.number, pair: new.pair, reception, paused: new.paused }
    }

    fn counts(&self) -> TrackCounts {
        let counts = self.reception.counts();
        TrackCounts {
            track: self.number,
            packets: counts.packets,
            lost: counts.lost,
            duplicates: counts.duplicates,
            late: counts.late,
            foreign: counts.foreign,
            invalid: counts.invalid,
            gaps_ms: counts.gaps_ms,
        }
    }
}

impl LiveSession {
    /// Takes what waits at the session's sockets; returns how many packets were kept.
    fn sweep(
        &mut self,
        receiver: &mut Receiver,
        clock: ArrivalClock,
        with_rtcp: bool,
        journal: &SyncSender<Entry>,
        spare: &Queue<AudioBatch>,
    ) -> u64 {
        let mut kept_packets = 0;
        let mut heard = false;
        let (out, not_before_ns) = (&mut self.out, self.swept_ns);
        for track in &mut self.tracks {
            let (reception, number, paused) = (&mut track.reception, track.number, track.paused);
            // An error is an ICMP answer to something sent, or a lack of memory: the next sweep tries again.
            let _ = receiver.receive(track.pair.rtp.as_fd(), DATAGRAMS_PER_SWEEP_MAX, |datagram| {
                heard = true;
                if paused {
                    return;
                }
                let arrival_ns = clock.arrival_ns(datagram.stamp_ns, not_before_ns);
                kept_packets += keep(reception, number, arrival_ns, &datagram, out, journal, spare);
            });
            if with_rtcp {
                let _ = receiver.receive(track.pair.rtcp.as_fd(), DATAGRAMS_PER_SWEEP_MAX, |_| heard = true);
            }
        }
        if heard {
            self.heard_ns = clock.now_ns();
            self.silent_told = false;
        }
        self.swept_ns = clock.now_ns();
        self.counters.packets.fetch_add(kept_packets, Ordering::Relaxed);
        kept_packets
    }
}

/// Puts one datagram where it belongs; returns how many packets of it (or held back before it) are kept.
fn keep(
    reception: &mut Track,
    track: u8,
    arrival_ns: u64,
    datagram: &Datagram<'_>,
    out: &mut Outbox,
    journal: &SyncSender<Entry>,
    spare: &Queue<AudioBatch>,
) -> u64 {
    let from: SocketAddr = datagram.from;
    if datagram.cut {
        // Longer than any packet of audio, and not whole: nothing to keep, but not to be passed over in silence either.
        out.dropped += 1;
        out.flaw();
        return 0;
    }
    match reception.receive(arrival_ns, from, datagram.bytes) {
        Received::Kept(kept) => out.packet(track, arrival_ns, &kept, datagram.bytes, journal, spare),
        Received::Held => out.held(track, reception, journal, spare),
        _ => 0,
    }
}

impl Outbox {
    fn packet(
        &mut self,
        track: u8,
        arrival_ns: u64,
        kept: &Kept,
        bytes: &[u8],
        journal: &SyncSender<Entry>,
        spare: &Queue<AudioBatch>,
    ) -> u64 {
        if let Some(ssrc) = kept.new_source {
            let source = SourceFacts { track, source: kept.source, ssrc, at_ns: arrival_ns };
            self.put(Entry::Facts { recording: self.recording, event: SessionEvent::Source(source) });
        }
        let packet = Packet {
            track,
            source: kept.source,
            payload_type: kept.payload_type,
            marker: kept.marker,
            seq: kept.seq,
            timestamp: kept.timestamp,
            arrival_ns,
            payload: bytes.get(kept.payload.clone()).unwrap_or_default(),
        };
        for _ in 0..2 {
            match self.batch.push(&packet) {
                Pushed::Taken => return 1,
                Pushed::TooLong => break,
                Pushed::Full => self.flush(journal, spare),
            }
        }
        self.dropped += 1;
        0
    }

    /// Packets that were held back until it was clear that they belong to the track.
    fn held(
        &mut self,
        track: u8,
        reception: &mut Track,
        journal: &SyncSender<Entry>,
        spare: &Queue<AudioBatch>,
    ) -> u64 {
        let mut packets = 0;
        while let Some(Held { arrival_ns, kept, payload }) = reception.take_held() {
            packets += self.packet(track, arrival_ns, &kept, &payload, journal, spare);
        }
        packets
    }

    /// Sends the batch off.
    fn flush(&mut self, journal: &SyncSender<Entry>, spare: &Queue<AudioBatch>) {
        self.retry(journal);
        if self.batch.is_empty() {
            return;
        }
        if self.waiting.len() >= WAITING_BATCHES_MAX {
            self.dropped += u64::from(self.batch.packets());
            self.batch.clear();
            self.flaw();
            return;
        }
        let batch = std::mem::replace(&mut self.batch, spare.try_recv().unwrap_or_default());
        self.put(Entry::Audio { recording: self.recording, batch });
        self.retry(journal);
    }

    fn put(&mut self, entry: Entry) {
        self.waiting.push(entry);
    }

    /// Audio that could not be stored is said so in the recording, once.
    fn flaw(&mut self) {
        let said = self.waiting.iter().any(|e| matches!(e, Entry::Facts { event: SessionEvent::Flaw(_), .. }));
        if !said {
            let flaw = Flaw {
                code: "audio-dropped".into(),
                text: "audio was lost because the journal's disk did not keep up".into(),
            };
            self.put(Entry::Facts { recording: self.recording, event: SessionEvent::Flaw(flaw) });
        }
    }

    /// Gives the appender what it has room for, in order.
    fn retry(&mut self, journal: &SyncSender<Entry>) {
        let mut sent = 0;
        let mut waiting = std::mem::take(&mut self.waiting).into_iter();
        while let Some(entry) = waiting.next() {
            match journal.try_send(entry) {
                Ok(()) => sent += 1,
                Err(TrySendError::Full(entry) | TrySendError::Disconnected(entry)) => {
                    self.waiting.push(entry);
                    self.waiting.extend(waiting);
                    break;
                }
            }
        }
        tracing::trace!(sent, "given to the appender");
    }
}

//! The sweep: the one thread that receives media.
//!
//! Every [`TICK`] it goes to the sockets of some of the live tracks, each session's in its turn, and takes what waits there, many datagrams
//! with one system call. The kernel has stamped each when it arrived, so nothing is lost by looking late, and packets that wait in their
//! sockets outlive this process. What makes looking dear is the looking, not the packets: a socket of which nobody has thought for 20 ms
//! costs three times as much as the datagram in it. So a session is visited as rarely as `journal.batch_interval` allows, and what is
//! taken in a visit goes to the journal at once. Nothing here waits for anybody: when the appender does not follow, packets gather up to a
//! bound per session, and beyond it are counted as dropped.

#[doc(hidden)]
pub mod bench;
mod live;
mod outbox;
mod reporting;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Queue, SyncSender, TryRecvError};
use std::thread;
use std::time::Duration;

use callvault_control::Start;
use callvault_journal::AudioBatch;
use callvault_journal::facts::Ended;
use callvault_media::PayloadType;
use callvault_srtp::sdes::CryptoAttribute;
use callvault_srtp::{Protector, Unprotector};
use uuid::Uuid;

use crate::Feedback;
use crate::appender::Entry;
use crate::checkpoint::MediaState;
use crate::clock::ArrivalClock;
use crate::ports::PortPair;
use crate::receive::Receiver;
use live::LiveSession;
pub(crate) use live::counted;
use outbox::Outbox;
use reporting::Reports;

/// Between two rounds of the thread: as long as a command waits for it at most, and a socket that has more than was taken.
const TICK: Duration = Duration::from_millis(20);

/// The most ticks from one visit of a session to its next. With these 160 ms and a batch interval of 200 ms a visit may come two ticks late,
/// and no packet is in this process for longer than that. At 50 packets a second eight wait then.
const TICKS_PER_VISIT_MAX: u64 = 8;

/// Datagrams taken from one socket in one visit: more than ever wait, but for what gathered while the recorder was away, which is taken in
/// several.
const DATAGRAMS_PER_SWEEP_MAX: usize = 256;

/// Datagrams taken from one socket when a session ends or pauses: more than a receive buffer of the usual size holds, so that all that had
/// arrived is there, and a bound all the same.
const DATAGRAMS_AT_END_MAX: usize = 8_192;

/// RTCP is looked at about so often, and sent: a report every few seconds is all that comes.
const RTCP_EVERY: Duration = Duration::from_millis(500);

/// What the signalling asks of the sweep.
pub(crate) enum Command {
    /// Follow the sockets of a new session.
    Open { recording: Uuid, tracks: Vec<NewTrack>, counters: Arc<Counters>, opened_ns: u64 },
    /// Follow the sockets of a session that another recorder has followed.
    Resume(Box<Resumption>),
    /// Follow one more track.
    AddTrack { recording: Uuid, track: NewTrack },
    /// A later offer: payload types mean this from now on, and the source may be another one.
    Describe { recording: Uuid, track: u8, payload_types: Vec<PayloadType> },
    /// A later offer: what comes is secured with these keys from now on, or with none, and what we send with this one of ours.
    Rekey { recording: Uuid, track: u8, keys: Option<Box<CryptoAttribute>>, protector: Option<Box<Protector>> },
    /// Keep nothing of the track that arrives at `at_ns` or later, or keep it again from then on.
    Pause { recording: Uuid, track: u8, paused: bool, at_ns: u64 },
    /// The recording ends, the session goes on: what arrives later than the end is taken and thrown away.
    Cut { recording: Uuid, ended: Ended },
    /// After that: another recording of the same session begins.
    Begin { after: Uuid, recording: Uuid, counters: Arc<Counters>, at_ns: u64 },
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
    /// What opens its packets, where it is secured.
    pub(crate) unprotector: Option<Unprotector>,
    /// What secures the reports to its sender, where it is secured. Its key must not have been used by another.
    pub(crate) protector: Option<Box<Protector>>,
    /// The client's ports for RTP and RTCP, as the signalling has them.
    pub(crate) remote_ports: (u16, Option<u16>),
}

/// A session to be gone on with.
pub(crate) struct Resumption {
    pub(crate) recording: Uuid,
    /// The tracks as for a new session; what was known of their media takes the place of what they would begin with.
    pub(crate) tracks: Vec<NewTrack>,
    /// The keys of the client's last offer, by track.
    pub(crate) keys: Vec<(u8, CryptoAttribute)>,
    /// The tracks that are secured.
    pub(crate) secured: Vec<u8>,
    /// How the tracks stood.
    pub(crate) media: MediaState,
    pub(crate) counters: Arc<Counters>,
    pub(crate) opened_ns: u64,
    /// The wall clock of the same moment.
    pub(crate) opened_wall_ns: i64,
    /// Its recording was stopped before.
    pub(crate) stopped: bool,
    /// When its recording had ended, where nothing is left but to empty its sockets: what arrived later does not belong to it.
    pub(crate) ended_ns: Option<u64>,
    /// When it was last changed what is paused or stopped: what arrived earlier is dealt with by how it was then.
    pub(crate) changed_ns: u64,
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

/// The sweep. [`Sweep::run`] is its thread.
pub(crate) struct Sweep {
    settings: Arc<Start>,
    sessions: Vec<LiveSession>,
    places: HashMap<Uuid, usize>,
    /// What sessions that have ended still have for the journal. Bounded as they were; while there is any, the journal is behind and
    /// no new session is taken.
    closing: Vec<Outbox>,
    receiver: Receiver,
    ways: Ways,
    reports: Reports,
    feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
    state: Arc<SweepState>,
    /// Ticks so far.
    ticks: u64,
    /// Ticks from one visit of a session to its next.
    ticks_per_visit: u64,
    /// Sessions with more in their sockets than was taken: visited again with the next tick.
    again: Vec<Uuid>,
}

/// Where batches go, and where they come back from.
struct Ways {
    journal: SyncSender<Entry>,
    spare: Queue<AudioBatch>,
    /// Whether batches take along how the tracks stand.
    keeps_states: bool,
}

/// How thoroughly to look at the sockets of a session.
#[derive(Clone, Copy)]
struct Look {
    with_rtcp: bool,
    datagrams_max: usize,
    /// What arrived at this moment or later is left for the next look: a command that says what becomes of it may be on its way.
    until_ns: u64,
}

/// Everything that is there and arrived before this moment.
fn to_the_end(until_ns: u64) -> Look {
    Look { with_rtcp: true, datagrams_max: DATAGRAMS_AT_END_MAX, until_ns }
}

/// No moment: everything.
const ALL: u64 = u64::MAX;

impl Sweep {
    pub(crate) fn new(
        settings: Arc<Start>,
        journal: SyncSender<Entry>,
        spare: Queue<AudioBatch>,
        feedback: tokio::sync::mpsc::UnboundedSender<Feedback>,
        state: Arc<SweepState>,
    ) -> Self {
        let batch_ticks = u64::from(settings.batch_interval_ms) / TICK.as_millis() as u64;
        Self {
            reports: Reports::new(settings.receiver_reports),
            // A visit that comes two ticks late is still within the interval.
            ticks_per_visit: batch_ticks.saturating_sub(2).clamp(1, TICKS_PER_VISIT_MAX),
            settings,
            sessions: Vec::new(),
            places: HashMap::new(),
            closing: Vec::new(),
            receiver: Receiver::new(),
            ways: Ways { journal, spare, keeps_states: false },
            feedback,
            state,
            ticks: 0,
            again: Vec::new(),
        }
    }

    /// From now on batches take along how the tracks stand, for the checkpoints.
    pub(crate) fn keep_states(&mut self) {
        self.ways.keeps_states = true;
    }

    /// Works until told to stop, or until nobody is left who could say so.
    pub(crate) fn run(mut self, commands: &Queue<Command>) {
        loop {
            // A pause is on its way to here before the client hears that it is confirmed. So all commands that concern what arrived
            // before this moment are there when they are looked for after it.
            let until_ns = ArrivalClock::read().now_ns();
            loop {
                match commands.try_recv() {
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return self.stop(),
                    Ok(command) => self.handle(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.tick(until_ns);
            thread::sleep(TICK);
        }
    }

    pub(crate) fn handle(&mut self, command: Command) {
        match command {
            Command::Open { recording, tracks, counters, opened_ns } => {
                let out = Outbox::new(recording);
                self.places.insert(recording, self.sessions.len());
                self.sessions.push(LiveSession::new(tracks, counters, opened_ns, out, &mut self.reports));
            }
            Command::Resume(resumption) => self.resume(*resumption),
            Command::AddTrack { recording, track } => {
                let now_ns = ArrivalClock::read().now_ns();
                let session = self.places.get(&recording).and_then(|&place| self.sessions.get_mut(place));
                if let Some(session) = session {
                    session.add_track(track, now_ns, &mut self.reports);
                }
            }
            Command::Describe { recording, track, payload_types } => {
                if let Some(session) = self.session(recording) {
                    session.describe(track, &payload_types);
                }
            }
            Command::Rekey { recording, track, keys, protector } => {
                self.rekey(recording, track, keys.as_deref(), protector);
            }
            Command::Pause { recording, track, paused, at_ns } => {
                // What arrived before the pause was decided belongs to the recording; what came in it does not.
                if let Some(session) = self.session(recording) {
                    session.pause(track, paused, at_ns);
                }
                self.sweep_one(recording, at_ns);
                if let Some(session) = self.session(recording) {
                    session.await_media();
                }
            }
            Command::Cut { recording, ended } => self.cut(recording, ended),
            Command::Begin { after, recording, counters, at_ns } => self.begin(after, recording, counters, at_ns),
            Command::Close { recording, ended } => self.close(recording, ended),
            Command::Stop => {}
        }
    }

    fn resume(&mut self, resumption: Resumption) {
        let out = Outbox::new(resumption.recording);
        self.places.insert(resumption.recording, self.sessions.len());
        self.sessions.push(LiveSession::resume(resumption, ArrivalClock::read().now_ns(), out, &mut self.reports));
    }

    fn rekey(&mut self, recording: Uuid, track: u8, keys: Option<&CryptoAttribute>, protector: Option<Box<Protector>>) {
        // From one key to the next nothing need be taken first, since both hold for a while, and what comes under the next may
        // be here already. Between SRTP and RTP there is no such while.
        if self.session(recording).is_some_and(|session| session.is_secured(track) != keys.is_some()) {
            self.sweep_one(recording, ALL);
        }
        if let Some(session) = self.session(recording) {
            session.rekey(track, keys, protector);
        }
    }

    fn session(&mut self, recording: Uuid) -> Option<&mut LiveSession> {
        self.places.get(&recording).and_then(|&place| self.sessions.get_mut(place))
    }

    /// A visit of every session, of which nothing is left for later.
    fn sweep(&mut self) {
        self.sweep_until(ALL);
    }

    /// A visit of every session, as if all had their turn.
    pub(crate) fn sweep_until(&mut self, until_ns: u64) {
        self.again.clear();
        for turn in 0..self.ticks_per_visit {
            self.visit_those(turn, until_ns);
        }
        self.ticks += self.ticks_per_visit;
        self.after_tick();
    }

    /// Visits the sessions whose turn it is, and those that were not done with.
    fn tick(&mut self, until_ns: u64) {
        let turn = self.ticks % self.ticks_per_visit;
        let again = std::mem::take(&mut self.again);
        self.visit_those(turn, until_ns);
        for recording in again {
            let place = self.places.get(&recording).copied();
            if let Some(place) = place.filter(|place| *place as u64 % self.ticks_per_visit != turn) {
                self.visit(place, until_ns);
            }
        }
        self.ticks += 1;
        self.after_tick();
    }

    fn visit_those(&mut self, turn: u64, until_ns: u64) {
        for place in (turn as usize..self.sessions.len()).step_by(self.ticks_per_visit as usize) {
            self.visit(place, until_ns);
        }
    }

    fn visit(&mut self, place: usize, until_ns: u64) {
        let visit_ns = self.ticks_per_visit * TICK.as_nanos() as u64;
        let rtcp_visits = (RTCP_EVERY.as_nanos() as u64 / visit_ns).max(1);
        let with_rtcp = (self.ticks / self.ticks_per_visit).is_multiple_of(rtcp_visits);
        let look = Look { with_rtcp, datagrams_max: DATAGRAMS_PER_SWEEP_MAX, until_ns };
        // A batch that would be too old at the next visit goes now.
        let visits_ns = visit_ns + 2 * TICK.as_nanos() as u64;
        let batch_ns = (u64::from(self.settings.batch_interval_ms) * 1_000_000).saturating_sub(visits_ns);
        let silence_ns = u64::from(self.settings.media_timeout_s) * 1_000_000_000;
        // A pause is no silence, but who sends nothing at all in a very long one is gone and only keeps ports.
        let paused_ns = u64::from(self.settings.paused_timeout_s) * 1_000_000_000;
        let Some(session) = self.sessions.get_mut(place) else { return };
        let clock = ArrivalClock::read();
        let packets = session.sweep(&mut self.receiver, clock, look, &self.ways);
        if session.has_more() {
            self.again.push(session.out.recording());
        }
        if look.with_rtcp {
            session.report(clock.now_ns(), &mut self.reports);
        }
        session.flush_if_due(clock.now_ns(), batch_ns, &self.ways);
        let patience_ns = if session.is_paused() { paused_ns } else { silence_ns };
        if silence_ns > 0 && session.fell_silent(clock.now_ns(), patience_ns) {
            let _ = self.feedback.send(Feedback::Silent(session.out.recording()));
        }
        self.state.packets.fetch_add(packets, Ordering::Relaxed);
        self.state.dropped.fetch_add(session.out.take_dropped(), Ordering::Relaxed);
    }

    fn after_tick(&mut self) {
        self.closing.retain_mut(|out| !out.hand_over(&self.ways));
        self.state.sweeps.fetch_add(1, Ordering::Relaxed);
    }

    fn sweep_one(&mut self, recording: Uuid, until_ns: u64) {
        let Some(&place) = self.places.get(&recording) else { return };
        if let Some(session) = self.sessions.get_mut(place) {
            let packets = session.sweep(&mut self.receiver, ArrivalClock::read(), to_the_end(until_ns), &self.ways);
            self.state.packets.fetch_add(packets, Ordering::Relaxed);
        }
    }

    fn cut(&mut self, recording: Uuid, ended: Ended) {
        if let Some(session) = self.session(recording) {
            session.stop(ended.at_ns);
        }
        self.sweep_one(recording, ended.at_ns);
        let Some(session) = self.places.get(&recording).and_then(|&place| self.sessions.get_mut(place)) else { return };
        let (mut out, packets) = session.cut(ended, &self.ways);
        self.state.packets.fetch_add(packets, Ordering::Relaxed);
        self.state.dropped.fetch_add(out.take_dropped(), Ordering::Relaxed);
        if !out.hand_over(&self.ways) {
            self.closing.push(out);
        }
    }

    fn begin(&mut self, after: Uuid, recording: Uuid, counters: Arc<Counters>, at_ns: u64) {
        let Some(place) = self.places.remove(&after) else { return };
        self.places.insert(recording, place);
        if let Some(session) = self.sessions.get_mut(place) {
            session.begin(counters, at_ns, Outbox::new(recording));
        }
        self.sweep_one(recording, ALL);
    }

    fn close(&mut self, recording: Uuid, ended: Ended) {
        self.sweep_one(recording, ALL);
        let Some(place) = self.places.remove(&recording) else { return };
        let session = self.sessions.swap_remove(place);
        if let Some(moved) = self.sessions.get(place) {
            self.places.insert(moved.out.recording(), place);
        }
        let (mut out, pairs, packets) = session.close(ended, &self.ways);
        self.state.packets.fetch_add(packets, Ordering::Relaxed);
        self.state.dropped.fetch_add(out.take_dropped(), Ordering::Relaxed);
        if !out.hand_over(&self.ways) {
            self.closing.push(out);
        }
        let _ = self.feedback.send(Feedback::Left(pairs));
    }

    /// Hands everything over, for which the appender is waited for: it ends by itself, whatever its disk does.
    fn stop(mut self) {
        let live: Vec<Uuid> = self.sessions.iter().map(|s| s.out.recording()).collect();
        for recording in live {
            self.sweep_one(recording, ALL);
        }
        for session in &mut self.sessions {
            session.flush(&self.ways);
        }
        let outboxes = self.sessions.into_iter().map(|s| s.out).chain(self.closing);
        for entry in outboxes.flat_map(Outbox::into_entries) {
            if self.ways.journal.send(entry).is_err() {
                return;
            }
        }
    }
}

//! The recorder on one thread, for the simulation: its real machines and loops (SIP endpoint, sessions, sweep, appender), with
//! clocks, sockets and disk that are arguments.
//!
//! What is real: everything that decides. What is here in place of a driver: the glue of `signalling.rs` between endpoint, sessions
//! and queues, and the loops of the threads, each turn of which whoever drives the simulation asks for. [`Planted`] names the mistakes
//! that this glue can be told to make, so that the simulation can show that it finds them.
//!
//! Clocks and sockets are of the thread: simulations on different threads know nothing of each other.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use callvault_control::{Decision, Start, ToDaemon};
use callvault_sip::{Endpoint, EndpointConfig, Flow, FlowId, Limits, Now, Output, TransportKind, parse_datagram};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

use crate::Feedback;
use crate::appender::simulated::Stepped;
use crate::appender::{AppenderState, Entry, folder};
use crate::clock::{journal_ns, wall_ns};
use crate::ports::{PortPair, PortPool};
use crate::receive::Datagram;
use crate::sessions::{Moment, Sessions, Todo};
use crate::sweep::{Command, Sweep, SweepState};

/// Entries that the queue to the appender holds, as in the process.
const ENTRIES_MAX: usize = 32_768;

/// Datagrams that a socket's buffer holds, about: beyond it they are lost, as in the kernel.
const SOCKET_DATAGRAMS_MAX: usize = 400;

/// Longest pretence of a finish, in turns: a disk that takes nothing is given up by then.
const FINISH_TURNS_MAX: usize = 1_000;

thread_local! {
    static CLOCK: Cell<Option<(u64, i64)>> = const { Cell::new(None) };
    static NETWORK: RefCell<Network> = RefCell::new(Network::default());
}

/// What waits at the media sockets, by port; and which descriptor is which port.
#[derive(Default)]
struct Network {
    ports: HashMap<RawFd, u16>,
    waiting: HashMap<u16, VecDeque<(SocketAddr, i64, Vec<u8>)>>,
}

/// Sets both clocks of this thread: journal time and wall clock, in nanoseconds.
pub fn set_clocks(journal_ns: u64, wall_ns: i64) {
    CLOCK.set(Some((journal_ns, wall_ns)));
}

/// Empties all sockets of this thread: another world begins.
pub fn reset_network() {
    NETWORK.with_borrow_mut(|network| *network = Network::default());
}

/// A datagram arrives at a media port, whoever reads it and when: the sockets outlive recorders. False: its buffer is full.
pub fn arrive(port: u16, from: SocketAddr, bytes: Vec<u8>) -> bool {
    let stamp_ns = wall_ns();
    NETWORK.with_borrow_mut(|network| {
        let waiting = network.waiting.entry(port).or_default();
        let fits = waiting.len() < SOCKET_DATAGRAMS_MAX;
        if fits {
            waiting.push_back((from, stamp_ns, bytes));
        }
        fits
    })
}

/// What waits at a pair of ports is gone: the machine was started again.
pub fn empty(port: u16) {
    NETWORK.with_borrow_mut(|network| {
        network.waiting.remove(&port);
        network.waiting.remove(&port.saturating_add(1));
    });
}

pub(crate) fn clock_ns(wall: bool) -> Option<i64> {
    let (journal_ns, wall_ns) = CLOCK.get()?;
    Some(if wall { wall_ns } else { i64::try_from(journal_ns).unwrap_or(i64::MAX) })
}

/// In place of `recvmmsg`; none for a socket that is a real one.
pub(crate) fn receive(socket: RawFd, most: usize, each: &mut impl FnMut(Datagram<'_>)) -> Option<usize> {
    let got: Vec<_> = NETWORK.with_borrow_mut(|network| {
        let port = network.ports.get(&socket)?;
        let waiting = network.waiting.entry(*port).or_default();
        Some(waiting.drain(..most.min(waiting.len())).collect())
    })?;
    let count = got.len();
    for (from, stamp_ns, mut bytes) in got {
        each(Datagram { bytes: &mut bytes, from, stamp_ns: Some(stamp_ns), cut: false });
    }
    Some(count)
}

/// A file of the journal: what [`folder::JournalFile`] asks of a disk.
pub trait JournalFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the disk says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes durable what was written.
    ///
    /// # Errors
    /// What the disk says.
    fn sync(&self) -> io::Result<()>;
}

/// The folder of the journal.
pub trait JournalFolder: Send {
    /// Creates a file that was not there, and makes its name durable.
    ///
    /// # Errors
    /// What the disk says.
    fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> u64;
}

struct Folder(Box<dyn JournalFolder>);

struct OpenFile(Box<dyn JournalFile>);

impl folder::JournalFolder for Folder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn folder::JournalFile>> {
        Ok(Arc::new(OpenFile(self.0.create(name)?)))
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(self.0.free_bytes())
    }
}

impl folder::JournalFile for OpenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// Mistakes that the glue can be told to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The key of each recording is written at once, whatever the verdict will be.
    KeyBeforeVerdict,
    /// When several entries wait for the journal, the oldest audio is dropped.
    OldestDropped,
    /// The sweep is not told of pauses.
    PausesNotPassedOn,
    /// The daemon hears of an end when the journal has been given it.
    EndsToldEarly,
    /// A question for a verdict is asked once.
    QuestionsNotRepeated,
    /// What waits at the sockets when a session ends is not taken.
    EndsWithoutSweep,
    /// Audio goes to the journal under the recording that was opened last.
    AudioOfAnother,
}

/// One run of a recorder.
pub struct Recorder {
    endpoint: Endpoint,
    sessions: Sessions,
    rng: StdRng,
    sweep: Sweep,
    journal: SyncSender<Entry>,
    entries: Receiver<Entry>,
    appender: Stepped,
    appender_state: Arc<AppenderState>,
    feedback: UnboundedReceiver<Feedback>,
    commands: VecDeque<Command>,
    sent: Vec<(SocketAddr, Vec<u8>)>,
    told: Vec<ToDaemon>,
    local: SocketAddr,
    planted: Option<Planted>,
    opened_last: Option<Uuid>,
    alarms: Vec<&'static str>,
}

impl Recorder {
    /// Begins a generation. `ports` are the even ones of the pairs of media ports.
    ///
    /// # Errors
    /// When the journal's first file cannot be had.
    pub fn begin(
        settings: Start,
        folder: Box<dyn JournalFolder>,
        ports: &[u16],
        local: SocketAddr,
        seed: u64,
        planted: Option<Planted>,
    ) -> Result<Self, String> {
        let settings = Arc::new(settings);
        let (feedback_tx, feedback) = unbounded_channel();
        let (journal, entries) = sync_channel(ENTRIES_MAX);
        let appender_state = Arc::new(AppenderState::default());
        let appender = Stepped::begin(
            Box::new(Folder(folder)),
            Arc::clone(&settings),
            Arc::clone(&appender_state),
            feedback_tx.clone(),
        )
        .map_err(|error| error.to_string())?;
        let pairs = ports.iter().map(|port| pair(*port)).collect::<io::Result<Vec<_>>>().map_err(|e| e.to_string())?;
        let (_, spare) = crate::appender::spare_batches();
        let sweep =
            Sweep::new(Arc::clone(&settings), journal.clone(), spare, feedback_tx, Arc::new(SweepState::default()));
        let mut rng = StdRng::seed_from_u64(seed);
        let mut secret = [0; 32];
        rand::Rng::fill_bytes(&mut rng, &mut secret);
        let mut config = EndpointConfig::new(&settings.server_name);
        config.session_expires_s = settings.session_expires_s;
        config.min_se_s = settings.session_expires_min_s;
        Ok(Self {
            endpoint: Endpoint::new(config, secret),
            sessions: Sessions::new(settings, PortPool::new(pairs)),
            rng,
            sweep,
            journal,
            entries,
            appender,
            appender_state,
            feedback,
            commands: VecDeque::new(),
            sent: Vec::new(),
            told: Vec::new(),
            local,
            planted,
            opened_last: None,
            alarms: Vec::new(),
        })
    }

    /// A datagram of SIP arrives.
    pub fn receive(&mut self, peer: SocketAddr, bytes: &[u8]) {
        let flow = Flow { id: FlowId(0), kind: TransportKind::Udp, local: self.local, peer };
        match parse_datagram(bytes, &Limits::default()) {
            Ok(Some(message)) => self.endpoint.receive(now(), &flow, message),
            Ok(None) => {}
            Err(error) => self.endpoint.receive_invalid(now(), &flow, bytes, &error),
        }
        self.work();
    }

    /// The daemon's verdict arrives.
    pub fn verdict(&mut self, recording: Uuid, decision: Decision) {
        self.sessions.verdict(recording, decision);
        self.work();
    }

    /// A turn of the signalling: timers, and what the other threads have said.
    pub fn signalling_turn(&mut self) {
        while let Ok(told) = self.feedback.try_recv() {
            self.hear(told);
        }
        if self.endpoint.deadline().is_some_and(|Now(at)| at <= journal_ns()) {
            self.endpoint.handle_timeout(now());
        }
        if self.planted != Some(Planted::QuestionsNotRepeated) {
            self.sessions.tick(moment());
        }
        self.work();
    }

    /// A turn of the sweep.
    pub fn media_turn(&mut self) {
        while let Some(command) = self.commands.pop_front() {
            match command {
                Command::Pause { .. } if self.planted == Some(Planted::PausesNotPassedOn) => {}
                command => self.sweep.handle(command),
            }
        }
        self.sweep.sweep();
    }

    /// A turn of the appender. Gives the recordings whose lanes it was given to open.
    pub fn journal_turn(&mut self) -> Vec<Uuid> {
        let mut opened = Vec::new();
        let mut entries: VecDeque<Entry> = self.entries.try_iter().collect();
        self.spoil(&mut entries);
        let mut left = VecDeque::new();
        std::mem::swap(&mut left, &mut entries);
        let early: Vec<Uuid> = left
            .iter()
            .filter_map(|entry| match entry {
                Entry::End { recording, .. } if self.planted == Some(Planted::EndsToldEarly) => Some(*recording),
                _ => None,
            })
            .collect();
        // What the appender has no room for now must wait at the front, as it would in the queue.
        while !left.is_empty() {
            let before = left.len();
            self.appender.turn(|| {
                let entry = left.pop_front()?;
                if let Entry::Open { recording } = &entry {
                    opened.push(*recording);
                }
                Some(entry)
            });
            if left.len() == before {
                break;
            }
        }
        if !left.is_empty() {
            self.put_back(left);
        }
        self.appender.turn(|| None);
        self.told.extend(early.into_iter().map(|recording| ToDaemon::Ended { recording }));
        opened
    }

    /// The queue keeps its order: what was left goes before what came since.
    fn put_back(&mut self, left: VecDeque<Entry>) {
        let since: Vec<Entry> = self.entries.try_iter().collect();
        for entry in left.into_iter().chain(since) {
            let _ = self.journal.try_send(entry);
        }
    }

    fn spoil(&mut self, entries: &mut VecDeque<Entry>) {
        match self.planted {
            Some(Planted::KeyBeforeVerdict) => {
                let opened = |entry: &Entry| match entry {
                    Entry::Open { recording } => Some(*recording),
                    _ => None,
                };
                let mut spoilt = VecDeque::new();
                for entry in entries.drain(..) {
                    let recording = opened(&entry);
                    spoilt.push_back(entry);
                    spoilt.extend(recording.map(|recording| Entry::Decide { recording, decision: Decision::Keep }));
                }
                *entries = spoilt;
            }
            Some(Planted::OldestDropped) if entries.len() > 3 => {
                if let Some(at) = entries.iter().position(|entry| matches!(entry, Entry::Audio { .. })) {
                    entries.remove(at);
                }
            }
            Some(Planted::AudioOfAnother) => {
                for entry in entries.iter_mut() {
                    match entry {
                        Entry::Open { recording } => self.opened_last = Some(*recording),
                        Entry::Audio { recording, .. } => *recording = self.opened_last.unwrap_or(*recording),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// The sync that was asked for, if one was. Says whether there was one.
    pub fn sync(&mut self) -> bool {
        self.appender.sync()
    }

    /// What is to be sent by SIP, and where to.
    pub fn take_sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// What is to be told to the daemon.
    pub fn take_told(&mut self) -> Vec<ToDaemon> {
        std::mem::take(&mut self.told)
    }

    /// Sessions accepted by this run.
    pub fn accepted(&self) -> u64 {
        self.sessions.totals().accepted
    }

    /// Sessions that live.
    pub fn live(&self) -> usize {
        self.sessions.live()
    }

    /// The names of the alarms that were raised.
    pub fn alarms(&self) -> &[&'static str] {
        &self.alarms
    }

    /// The orderly end: sessions are ended, everything is flushed. Says whether all of it is on the device.
    pub fn stop(&mut self) -> bool {
        self.sessions.drain();
        self.sessions.end_all(moment(), "recorder-stopped");
        self.work();
        self.media_turn();
        self.appender_state.stopping.store(true, Ordering::Relaxed);
        self.journal_turn();
        self.appender.end_lanes();
        for _ in 0..FINISH_TURNS_MAX {
            self.appender.sync();
            if self.appender.finish() {
                self.signalling_turn();
                return true;
            }
        }
        false
    }

    /// Does everything that the machines want done.
    fn work(&mut self) {
        let behind = self.appender_state.behind.load(Ordering::Relaxed);
        self.sessions.set_storage(self.appender_state.spool_full.load(Ordering::Relaxed), behind);
        loop {
            if let Some(output) = self.endpoint.poll() {
                match output {
                    Output::Send { peer, bytes, .. } => self.sent.push((peer, bytes)),
                    Output::Event(event) => self.sessions.handle(moment(), event, &mut self.rng),
                    Output::CloseFlow { .. } => {}
                    Output::Connect { request, .. } => self.endpoint.connect_failed(now(), request),
                }
            } else if let Some(todo) = self.sessions.poll() {
                self.todo(todo);
            } else {
                return;
            }
        }
    }

    fn todo(&mut self, todo: Todo) {
        match todo {
            Todo::Accept(tx, accept) => drop(self.endpoint.accept(now(), tx, accept)),
            Todo::Reject(tx, status, reason, headers) => drop(self.endpoint.reject(now(), tx, status, reason, headers)),
            Todo::Bye(dialog, reason) => drop(self.endpoint.bye(now(), dialog, Some(reason))),
            Todo::Media(Command::Close { recording, ended }) if self.planted == Some(Planted::EndsWithoutSweep) => {
                NETWORK.with_borrow_mut(|network| network.waiting.clear());
                self.commands.push_back(Command::Close { recording, ended });
            }
            Todo::Media(command) => self.commands.push_back(command),
            Todo::Journal(entry) => drop(self.journal.try_send(entry)),
            Todo::Tell(message) => self.told.push(message),
        }
    }

    fn hear(&mut self, told: Feedback) {
        match told {
            Feedback::Left(pairs) => self.sessions.ports_left(moment(), pairs),
            Feedback::Silent(recording) => self.sessions.fell_silent(moment(), recording),
            Feedback::Durable(recording) => self.told.push(ToDaemon::Ended { recording }),
            Feedback::Rotated(closed_file) => self.told.push(ToDaemon::Rotated { closed_file }),
            Feedback::Alarm(code, _) => self.alarms.push(code),
            Feedback::Stopped => {}
        }
    }
}

/// A pair of descriptors that stand for sockets. What they are open on does not matter: nothing is read from them.
fn pair(port: u16) -> io::Result<PortPair> {
    let rtp = File::open("/dev/null")?;
    let rtcp = File::open("/dev/null")?;
    NETWORK.with_borrow_mut(|network| {
        network.ports.insert(rtp.as_raw_fd(), port);
        network.ports.insert(rtcp.as_raw_fd(), port.saturating_add(1));
    });
    Ok(PortPair { port, rtp: rtp.into(), rtcp: rtcp.into() })
}

fn now() -> Now {
    Now(journal_ns())
}

fn moment() -> Moment {
    Moment { journal_ns: journal_ns(), wall_ns: wall_ns() }
}

//! The recorder on one thread, for the simulation: its real machines and loops (SIP endpoint, sessions, sweep, appender), with
//! clocks, sockets and disk that are arguments.
//!
//! What is real: everything that decides. What is here in place of a driver: the glue of `signalling.rs` between endpoint, sessions
//! and queues, and the loops of the threads, each turn of which whoever drives the simulation asks for. [`Planted`] names the mistakes
//! that this glue can be told to make, so that the simulation can show that it finds them.

mod surroundings;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use callvault_control::{CallAction, Decision, Start, ToDaemon};
use callvault_journal::ReadAt;
use callvault_journal::facts::SessionEvent;
use callvault_sip::{
    DialogId, Endpoint, EndpointConfig, Flow, FlowId, Limits, Now, Output, TransportKind, parse_datagram,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use uuid::Uuid;

use crate::Feedback;
use crate::appender::simulated::Stepped;
use crate::appender::{AppenderState, Entry};
use crate::checkpoint::{Checkpoints, FoundLane, LaneState, MediaState, SessionCheckpoint};
use crate::clock::{journal_ns, wall_ns};
use crate::ports::PortPool;
use crate::sessions::{Kept, Moment, Sessions, Todo, is_ahead};
use crate::sweep::{Command, Sweep, SweepState};
use surroundings::{Journal, LivingShelf, empty_all, pair};
pub use surroundings::{JournalFile, JournalFolder, Life, Shelf, Step, arrive, empty, reset_network, set_clocks};
pub(crate) use surroundings::{clock_ns, receive};

/// Entries that the queue to the appender holds, as in the process.
const ENTRIES_MAX: usize = 32_768;

/// Longest pretence of a finish, in turns: a disk that takes nothing is given up by then.
const FINISH_TURNS_MAX: usize = 1_000;

/// How long the journal is waited for at the start, as in the process.
const MARKED_WITHIN_NS: u64 = 2_000_000_000;

/// Reads a file of the journal by its name, whichever generation's.
pub type ReadJournal = dyn Fn(&str) -> Option<Box<dyn ReadAt>>;

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
    /// The checkpoint of a lane is written after the frames that it speaks of.
    CheckpointAfterFrames,
    /// The newest checkpoint of a lane is believed, whether its frames are there or not.
    NewestSlotBelieved,
    /// A session that goes on begins with its tracks as if they were new, their senders' SRTP included.
    TracksForgotten,
    /// The next part of a recording has the number of the one before.
    SegmentReused,
    /// What is stored of a session stays when the session is over.
    SessionsNotForgotten,
    /// An answer is sent before what it says is written down.
    AnsweredBeforeSaved,
    /// A session that goes on has forgotten its pauses.
    PausesForgotten,
    /// A session that goes on is kept, whatever was decided or not.
    KeptUnasked,
    /// The daemon hears that the recorder is ready before the journal has what goes on, and not what that is.
    ReadyTooEarly,
    /// Keys of earlier parts that were not in the journal are forgotten.
    EarlierKeysForgotten,
}

/// What goes on with a new recorder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoesOn {
    /// Recordings of sessions that live.
    pub living: Vec<Uuid>,
    /// Recordings that had ended, with something left to write.
    pub ended: Vec<Uuid>,
    /// Recordings whose end is in the journal: nothing is left to do.
    pub over: Vec<Uuid>,
    /// Why something does not.
    pub refused: Vec<String>,
}

/// What a recorder is begun with.
pub struct Beginning<'a> {
    /// As the daemon tells them.
    pub settings: Start,
    /// Where it writes its journal.
    pub folder: Box<dyn JournalFolder>,
    /// The journal of all generations.
    pub journal: &'a ReadJournal,
    /// Where the checkpoints are.
    pub shelf: Shelf,
    /// When it dies.
    pub life: Life,
    /// The even ones of the pairs of media ports.
    pub ports: &'a [u16],
    /// Where it hears SIP.
    pub local: SocketAddr,
    /// Of its random numbers, those of keys and nonces apart.
    pub seed: u64,
    /// A mistake that it makes.
    pub planted: Option<Planted>,
}

/// One run of a recorder.
pub struct Recorder {
    endpoint: Endpoint,
    sessions: Sessions,
    checkpoints: Checkpoints,
    rng: StdRng,
    sweep: Sweep,
    journal: SyncSender<Entry>,
    entries: Receiver<Entry>,
    appender: Stepped,
    appender_state: Arc<AppenderState>,
    feedback: UnboundedReceiver<Feedback>,
    commands: VecDeque<Command>,
    waiting: VecDeque<Waiting>,
    outgoing: VecDeque<(SocketAddr, Vec<u8>)>,
    sent: Vec<(SocketAddr, Vec<u8>)>,
    told: Vec<ToDaemon>,
    named: Vec<(String, Uuid)>,
    local: SocketAddr,
    life: Life,
    planted: Option<Planted>,
    opened_last: Option<Uuid>,
    alarms: Vec<&'static str>,
    settings: Arc<Start>,
    /// What is to be told when the journal has it, and until when that is waited for; none: it answers calls.
    resuming: Option<(Vec<Uuid>, u64)>,
}

/// Something for another thread.
enum Waiting {
    Journal(Entry),
    Media(Command),
}

impl Recorder {
    /// Begins a generation, and goes on with what the one before left.
    ///
    /// # Errors
    /// When the journal's first file cannot be had.
    pub fn begin(beginning: Beginning<'_>) -> Result<(Self, GoesOn), String> {
        let Beginning { settings, folder, journal: earlier, shelf, life, ports, local, seed, planted } = beginning;
        let settings = Arc::new(settings);
        let (feedback_tx, feedback) = unbounded_channel();
        let (journal, entries) = sync_channel(ENTRIES_MAX);
        let appender_state = Arc::new(AppenderState::default());
        let shelf = LivingShelf {
            shelf,
            life: life.clone(),
            late: (planted == Some(Planted::CheckpointAfterFrames)).then(|| Arc::new(Mutex::new(Vec::new()))),
            keeps_sessions: planted == Some(Planted::SessionsNotForgotten),
        };
        let checkpoints = Checkpoints::open_in(Box::new(shelf.clone()), settings.boot, &settings.checkpoint_key);
        let appender = Stepped::begin(
            Box::new(Journal { folder, shelf }),
            Arc::clone(&settings),
            Arc::clone(&appender_state),
            feedback_tx.clone(),
            Some(checkpoints.clone()),
        )
        .map_err(|error| error.to_string())?;
        let pairs = ports.iter().map(|port| pair(*port)).collect::<io::Result<Vec<_>>>().map_err(|e| e.to_string())?;
        let (_, spare) = crate::appender::spare_batches();
        let mut sweep =
            Sweep::new(Arc::clone(&settings), journal.clone(), spare, feedback_tx, Arc::new(SweepState::default()));
        sweep.keep_states();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut secret = [0; 32];
        rand::Rng::fill_bytes(&mut rng, &mut secret);
        let mut config = EndpointConfig::new(&settings.server_name);
        config.session_expires_s = settings.session_expires_s;
        config.min_se_s = settings.session_expires_min_s;
        let mut recorder = Self {
            endpoint: Endpoint::new(config, secret),
            sessions: Sessions::new(Arc::clone(&settings), PortPool::new(pairs)),
            checkpoints,
            rng,
            sweep,
            journal,
            entries,
            appender,
            appender_state,
            feedback,
            commands: VecDeque::new(),
            waiting: VecDeque::new(),
            outgoing: VecDeque::new(),
            sent: Vec::new(),
            told: Vec::new(),
            named: Vec::new(),
            local,
            life,
            planted,
            opened_last: None,
            alarms: Vec::new(),
            settings,
            resuming: None,
        };
        let goes_on = recorder.resume_all(earlier);
        Ok((recorder, goes_on))
    }

    /// Goes on with everything that another recorder left. What it tells the daemon waits until the journal has it.
    fn resume_all(&mut self, journal: &ReadJournal) -> GoesOn {
        let mut goes_on = GoesOn::default();
        let Ok(found) = self.checkpoints.load() else { return goes_on };
        goes_on.refused = found.refused.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        let mut ended = found.ended;
        ended.retain(|ended| !is_ahead(ended.recording.recording, &found.sessions));
        for session in found.sessions {
            let (name, recording) = (session.name(), session.recording.recording);
            match self.resume_session(session, journal) {
                Ok(()) => goes_on.living.push(recording),
                Err(why) => {
                    self.checkpoints.set_aside_session(name);
                    goes_on.refused.push(format!("{recording}: {why}"));
                }
            }
        }
        for ended in ended {
            let recording = ended.recording.recording;
            let lane = self.find_lane(recording, journal);
            let is_over = lane.lane.as_ref().is_some_and(|lane| lane.state == LaneState::Over);
            match self.sessions.resume_ended(moment(), ended, lane) {
                Ok(()) if is_over => goes_on.over.push(recording),
                Ok(()) => goes_on.ended.push(recording),
                Err(why) => goes_on.refused.push(format!("{recording}, which had ended: {why}")),
            }
        }
        let recordings: Vec<Uuid> = goes_on.ended.iter().chain(&goes_on.over).chain(&goes_on.living).copied().collect();
        if recordings.is_empty() || self.planted == Some(Planted::ReadyTooEarly) {
            self.told.push(self.ready());
        }
        if !recordings.is_empty() {
            self.resuming = Some((recordings, journal_ns() + MARKED_WITHIN_NS));
            self.waiting.push_back(Waiting::Journal(Entry::Mark));
        }
        self.work();
        goes_on
    }

    fn find_lane(&self, recording: Uuid, journal: &ReadJournal) -> FoundLane {
        let mut found = self.checkpoints.find_lane_by(recording, |lane| {
            let place = lane.place;
            let name = callvault_journal::file_name(lane.generation, place.file_seq);
            let is_written = |mut file: Box<dyn ReadAt>| place.is_written(lane.generation, &mut *file).unwrap_or(false);
            self.planted == Some(Planted::NewestSlotBelieved) || journal(&name).is_some_and(is_written)
        });
        if let Some(lane) = found.lane.as_mut().filter(|_| self.planted == Some(Planted::TracksForgotten)) {
            lane.media = MediaState::default();
        }
        if let Some(lane) = found.lane.as_mut().filter(|_| self.planted == Some(Planted::EarlierKeysForgotten)) {
            lane.keys.clear();
        }
        found
    }

    fn resume_session(&mut self, mut session: SessionCheckpoint, journal: &ReadJournal) -> Result<(), String> {
        let state = session.dialog.take().ok_or("its dialog is missing")?;
        let lane = self.find_lane(session.recording.recording, journal);
        match self.planted {
            Some(Planted::PausesForgotten) => session.tracks.iter_mut().for_each(|track| track.paused = false),
            Some(Planted::KeptUnasked) => session.recording.kept = Kept::Yes,
            _ => {}
        }
        let dialog = self.endpoint.resume(now(), state, |flow| Some(*flow)).map_err(|error| error.to_string())?;
        self.sessions.resume(moment(), dialog, session, lane).map_err(|why| {
            self.endpoint.bye(now(), dialog, Some("SIP ;text=\"the recording cannot go on\""));
            why.to_string()
        })
    }

    fn ready(&self) -> ToDaemon {
        ToDaemon::Ready { generation: self.settings.generation, port_pairs: 0 }
    }

    /// Whether it answers calls. Until then whoever wants something of it waits.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.resuming.is_none()
    }

    fn become_ready(&mut self) {
        let Some((recordings, _)) = self.resuming.take() else { return };
        if self.planted != Some(Planted::ReadyTooEarly) {
            self.told.push(ToDaemon::Resumed { recordings });
            self.told.push(self.ready());
        }
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
        self.sessions.verdict(moment(), recording, decision);
        self.work();
    }

    /// Somebody asks for the call of a recording to be kept. Says whether it is now.
    pub fn keep(&mut self, recording: Uuid) -> bool {
        let result = self.sessions.control(moment(), recording, CallAction::Keep, &mut self.rng);
        self.work();
        result.is_ok() && !self.life.is_over()
    }

    /// A turn of the signalling: timers, and what the other threads have said.
    pub fn signalling_turn(&mut self) {
        if self.life.is_over() {
            return;
        }
        while let Ok(told) = self.feedback.try_recv() {
            self.hear(told);
            self.work();
        }
        if let Some((_, until_ns)) = &self.resuming {
            if *until_ns > journal_ns() {
                return;
            }
            self.become_ready();
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
        if self.life.is_over() {
            return;
        }
        while let Some(command) = self.commands.pop_front() {
            match command {
                Command::Pause { .. } if self.planted == Some(Planted::PausesNotPassedOn) => {}
                command => self.sweep.handle(command),
            }
        }
        self.sweep.sweep_until(u64::MAX);
    }

    /// A turn of the appender.
    pub fn journal_turn(&mut self) {
        if self.life.is_over() {
            return;
        }
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
            self.appender.turn(|| left.pop_front());
            if left.len() == before {
                break;
            }
        }
        if !left.is_empty() {
            self.put_back(left);
        }
        self.appender.turn(|| None);
        self.told.extend(early.into_iter().map(|recording| ToDaemon::Ended { recording }));
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
                    Entry::Open { recording, .. } => Some(*recording),
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
                        Entry::Open { recording, .. } => self.opened_last = Some(*recording),
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
        !self.life.is_over() && self.appender.sync()
    }

    /// What was sent by SIP, and where to.
    pub fn take_sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// What was told to the daemon.
    pub fn take_told(&mut self) -> Vec<ToDaemon> {
        std::mem::take(&mut self.told)
    }

    /// The recordings that were begun or gone on with, each with the Call-ID of its session.
    pub fn take_named(&mut self) -> Vec<(String, Uuid)> {
        std::mem::take(&mut self.named)
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
        self.sessions.set_draining(true);
        self.sessions.end_all(moment(), "recorder-stopped");
        self.work();
        self.media_turn();
        self.appender_state.stopping.store(true, Ordering::Relaxed);
        self.journal_turn();
        self.appender.end_lanes();
        for _ in 0..FINISH_TURNS_MAX {
            if self.life.is_over() {
                return false;
            }
            self.appender.sync();
            if self.appender.finish() {
                self.signalling_turn();
                return !self.life.is_over();
            }
        }
        false
    }

    /// Does everything that the machines want done: first it is written down, then the other threads hear of it, and then the peers.
    fn work(&mut self) {
        let behind = self.appender_state.behind.load(Ordering::Relaxed);
        self.sessions.set_storage(self.appender_state.spool_full.load(Ordering::Relaxed), behind);
        loop {
            self.decide();
            if self.planted == Some(Planted::AnsweredBeforeSaved) {
                self.send();
            }
            self.save();
            if self.life.is_over() {
                return;
            }
            for waiting in self.waiting.drain(..) {
                match waiting {
                    Waiting::Journal(entry) => drop(self.journal.try_send(entry)),
                    Waiting::Media(command) => self.commands.push_back(command),
                }
            }
            if self.outgoing.is_empty() {
                return;
            }
            self.send();
        }
    }

    fn send(&mut self) {
        while let Some(outgoing) = self.outgoing.pop_front() {
            match self.life.step() {
                Step::Whole => self.sent.push(outgoing),
                Step::Half | Step::Not => self.outgoing.clear(),
            }
        }
    }

    fn decide(&mut self) {
        loop {
            if let Some(output) = self.endpoint.poll() {
                match output {
                    Output::Send { peer, bytes, .. } => self.outgoing.push_back((peer, bytes)),
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

    /// Writes down what has changed, in the order of the process.
    fn save(&mut self) {
        let changed: std::collections::BTreeSet<DialogId> = self.endpoint.take_changed_dialogs().collect();
        let changes = self.sessions.take_changes();
        let boot = self.checkpoints.boot();
        for recording in changes.ended {
            if let Some(ended) = self.sessions.ended_checkpoint(recording, boot) {
                let _ = self.checkpoints.save_ended(&ended);
            }
        }
        for dialog in changed.union(&changes.dialogs) {
            let Some(state) = self.endpoint.checkpoint(*dialog) else { continue };
            let Some(session) = self.sessions.checkpoint(*dialog, boot) else { continue };
            let _ = self.checkpoints.save_session(&SessionCheckpoint { dialog: Some(state), ..session });
        }
        changes.gone.into_iter().for_each(|session| self.checkpoints.remove_session(session));
        changes.over.into_iter().for_each(|recording| self.checkpoints.remove_recording(recording));
    }

    fn todo(&mut self, todo: Todo) {
        match todo {
            Todo::Accept(tx, accept) => drop(self.endpoint.accept(now(), tx, accept)),
            Todo::Reject(tx, status, reason, headers) => drop(self.endpoint.reject(now(), tx, status, reason, headers)),
            Todo::Update(dialog, body, headers) => {
                _ = self.endpoint.update_request(now(), dialog, Some(body), headers);
            }
            Todo::Bye(dialog, reason) => drop(self.endpoint.bye(now(), dialog, Some(reason))),
            Todo::Media(command) => {
                if self.planted == Some(Planted::EndsWithoutSweep) && matches!(command, Command::Close { .. }) {
                    empty_all();
                }
                self.waiting.push_back(Waiting::Media(command));
            }
            Todo::Journal(mut entry) => {
                if let Entry::Open { continued: Some(from), .. } = &mut entry
                    && self.planted == Some(Planted::SegmentReused)
                {
                    from.segment = from.segment.saturating_sub(1);
                }
                if let Entry::Facts { recording, event: SessionEvent::Started(started), .. } = &entry {
                    self.named.push((started.sip_call_id.clone(), *recording));
                }
                self.waiting.push_back(Waiting::Journal(entry));
            }
            Todo::Tell(message) => self.told.push(message),
        }
    }

    fn hear(&mut self, told: Feedback) {
        match told {
            Feedback::Left(pairs) => self.sessions.ports_left(moment(), pairs),
            Feedback::Silent(recording) => self.sessions.fell_silent(moment(), recording),
            Feedback::Written(recording, number) => self.sessions.written(recording, number),
            Feedback::Marked => self.become_ready(),
            Feedback::Durable(recording) => {
                self.sessions.durable(recording);
                self.told.push(ToDaemon::Ended { recording });
            }
            Feedback::Rotated(closed_file) => self.told.push(ToDaemon::Rotated { closed_file }),
            Feedback::Alarm(code, _) => self.alarms.push(code),
            Feedback::Stopped => {}
        }
    }
}

fn now() -> Now {
    Now(journal_ns())
}

fn moment() -> Moment {
    Moment { journal_ns: journal_ns(), wall_ns: wall_ns() }
}

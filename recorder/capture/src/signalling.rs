//! The signalling thread: one loop over everything that can happen, around the SIP endpoint and the sessions.

mod keeping;

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use callvault_control::{
    CALLS_PER_MESSAGE_MAX, Channel, ControlError, Heartbeat, Start, TlsIdentity, ToDaemon, ToRecorder,
};
use callvault_sip::{DialogId, Endpoint, EndpointConfig, Event, FlowId, Limits, Now, Output, TransportKind};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Feedback;
use crate::appender::{AppendError, Appender, AppenderState, Entry, spare_batches};
use crate::checkpoint::Checkpoints;
use crate::clock::{journal_ns, wall_ns};
use crate::confinement;
use crate::connections::Inbound;
use crate::handover::{self, Handover, HandoverError};
use crate::listeners::{ListenerCounts, listen_tcp, listen_udp};
use crate::ports::PortPool;
use crate::sessions::{Moment, Sessions, Todo};
use crate::sweep::{Command, Sweep, SweepState};
use crate::transports::Transports;

/// Messages that may wait between the listeners and the loop; beyond it they wait in the kernel.
const INBOUND_MAX: usize = 1_024;

/// Entries that may wait for the appender. At 1,000 calls it is some seconds of a disk that stands still; what waits longer
/// waits in the sessions.
const ENTRIES_MAX: usize = 32_768;

/// Entries of the signalling that may wait beyond that; then new sessions are refused.
const ENTRIES_WAITING_MAX: usize = 4_096;

/// Messages that may wait for the daemon. Each only says where to look or is asked for again, so the oldest may go.
const UNTOLD_MAX: usize = 16_384;

/// Between two heartbeats.
const BEAT: Duration = Duration::from_millis(500);

/// How long BYEs are waited for when the recorder stops.
const GOODBYE: Duration = Duration::from_millis(300);

/// How long connections that BYEs need are waited for beyond that.
const GOODBYE_CONNECTING: Duration = Duration::from_millis(1_200);

/// Why the recorder cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The daemon did not hand over what is needed.
    #[error("{0}")]
    Handover(String),
    /// The journal cannot be begun.
    #[error("{0}")]
    Journal(String),
    /// A system call failed.
    #[error("run the recorder: {0}")]
    Io(#[from] io::Error),
}

impl From<HandoverError> for RunError {
    fn from(error: HandoverError) -> Self {
        Self::Handover(error.to_string())
    }
}

impl From<AppendError> for RunError {
    fn from(error: AppendError) -> Self {
        Self::Journal(error.to_string())
    }
}

/// Something for another thread.
enum Step {
    Journal(Entry),
    Media(Command),
}

/// Something for a peer.
enum Outgoing {
    Send(FlowId, SocketAddr, Vec<u8>),
    Close(FlowId),
}

struct Signalling {
    settings: Arc<Start>,
    endpoint: Endpoint,
    sessions: Sessions,
    rng: StdRng,
    transports: Transports,
    control: AsyncFd<Channel>,
    media: Sender<Command>,
    journal: SyncSender<Entry>,
    /// What is for the journal and the sweep, in order: a lane is opened in the journal before the sweep has audio for it.
    waiting: VecDeque<Step>,
    /// Messages to the daemon that its queue had no room for, in order.
    untold: VecDeque<ToDaemon>,
    sweep: Arc<SweepState>,
    appender: Arc<AppenderState>,
    /// What is to leave once everything that it is about is written down.
    outgoing: VecDeque<Outgoing>,
    checkpoints: Option<Checkpoints>,
    rounds: u64,
    invalid: u64,
    stopping: bool,
    /// The sessions are left to the next recorder.
    leaving: bool,
    /// Whether the sockets outlive the daemon.
    sockets_stay: bool,
    /// The flow of the message that the endpoint is at.
    hearing: Option<FlowId>,
}

/// The checkpoints, where there is a place for them. Without one calls are recorded as ever.
fn open_checkpoints(settings: &Start, feedback: &mpsc::UnboundedSender<Feedback>) -> Option<Checkpoints> {
    let folder = settings.checkpoint_dir.as_ref()?;
    match Checkpoints::open(folder, settings.boot, &settings.checkpoint_key) {
        Ok(checkpoints) => Some(checkpoints),
        Err(error) => {
            let text = format!("failed to {error}; calls would not survive the recorder's death");
            let _ = feedback.send(Feedback::Alarm("checkpoint", text));
            None
        }
    }
}

/// Runs the recorder until the daemon stops it or is gone.
///
/// # Errors
/// When the daemon's handover or the journal's first file fails. Later failures are alarms, not ends.
pub async fn run() -> Result<(), RunError> {
    let channel = handover::control()?;
    let Handover { start, udp, tcp, tls, certificates, draining, media } = handover::receive(&channel)?;
    let settings = Arc::new(*start);
    // Before there are threads, and before anything of a peer's is read.
    confinement::enter(&settings);
    let mut terminate = signal(SignalKind::terminate())?;

    let (feedback_tx, mut feedback) = mpsc::unbounded_channel();
    let (journal_tx, journal_rx) = sync_channel(ENTRIES_MAX);
    let (spare_tx, spare_rx) = spare_batches();
    let appender_state = Arc::new(AppenderState::default());
    let sweep_state = Arc::new(SweepState::default());
    let checkpoints = open_checkpoints(&settings, &feedback_tx);
    let appender = Appender::begin(
        Arc::clone(&settings),
        Arc::clone(&appender_state),
        feedback_tx.clone(),
        spare_tx,
        checkpoints.clone(),
    )?;
    let stopped = feedback_tx.clone();
    let appender_thread = thread::Builder::new().name("journal".into()).spawn(move || {
        appender.run(&journal_rx);
        let _ = stopped.send(Feedback::Stopped);
    })?;
    let (media_tx, media_rx) = channel_of_commands();
    let mut sweep =
        Sweep::new(Arc::clone(&settings), journal_tx.clone(), spare_rx, feedback_tx, Arc::clone(&sweep_state));
    if checkpoints.is_some() {
        sweep.keep_states();
    }
    let sweep_thread = thread::Builder::new().name("media".into()).spawn(move || sweep.run(&media_rx))?;

    let (inbound_tx, mut inbound) = mpsc::channel(INBOUND_MAX);
    let messages = Limits { body_bytes_max: settings.body_bytes_max as usize, ..Limits::default() };
    let listeners = Arc::new(ListenerCounts::default());
    let udp = listen_udp(udp, &settings, messages, &listeners, &inbound_tx)?;
    listen_tcp(tcp, TransportKind::Tcp, &inbound_tx)?;
    listen_tcp(tls, TransportKind::Tls, &inbound_tx)?;
    let mut config = EndpointConfig::new(&settings.server_name);
    config.limits = messages;
    config.session_expires_s = settings.session_expires_s;
    config.min_se_s = settings.session_expires_min_s;
    // Sessions are limited by the session layer, which says 503; dialogs that are ending need room beyond.
    config.dialogs_max = config.dialogs_max.max(2 * settings.sessions_max as usize);
    let mut seed = [0; 32];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut seed);
    let pool = PortPool::new(media);
    let port_pairs = u32::try_from(pool.total()).unwrap_or(u32::MAX);
    let mut signalling = Signalling {
        endpoint: Endpoint::new(config, seed),
        sessions: Sessions::new(Arc::clone(&settings), pool),
        rng: StdRng::from_rng(&mut rand::rng()),
        transports: Transports::new(&settings, messages, udp, listeners, inbound_tx),
        control: register(channel)?,
        media: media_tx,
        journal: journal_tx,
        waiting: VecDeque::new(),
        untold: VecDeque::new(),
        sweep: sweep_state,
        appender: appender_state,
        outgoing: VecDeque::new(),
        checkpoints,
        rounds: 0,
        invalid: 0,
        sockets_stay: settings.sockets_stay,
        settings,
        stopping: false,
        leaving: false,
        hearing: None,
    };
    signalling.sessions.set_draining(draining);
    signalling.secure_with(certificates.as_deref());
    signalling.resume(&mut feedback).await;
    signalling.tell(ToDaemon::Ready { generation: signalling.settings.generation, port_pairs });
    signalling.run(&mut inbound, &mut feedback, &mut terminate).await;

    // From here on the appender does not wait for its disk for ever.
    signalling.appender.stopping.store(true, Ordering::Relaxed);
    for step in signalling.waiting.drain(..) {
        match step {
            Step::Media(command) => drop(signalling.media.send(command)),
            Step::Journal(entry) => drop(signalling.journal.send(entry)),
        }
    }
    let _ = signalling.media.send(Command::Stop);
    let _ = tokio::task::spawn_blocking(move || sweep_thread.join()).await;
    let last = if signalling.leaving { Entry::Leave } else { Entry::Stop };
    let _ = signalling.journal.send(last);
    let _ = tokio::task::spawn_blocking(move || appender_thread.join()).await;
    // The last ends are durable now; whoever is still there is told.
    while let Ok(told) = feedback.try_recv() {
        signalling.hear(told);
    }
    signalling.save();
    signalling.retry();
    Ok(())
}

impl Signalling {
    async fn run(
        &mut self,
        inbound: &mut mpsc::Receiver<Inbound>,
        feedback: &mut mpsc::UnboundedReceiver<Feedback>,
        terminate: &mut tokio::signal::unix::Signal,
    ) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut goodbye: Option<Goodbye> = None;
        loop {
            self.rounds += 1;
            self.work();
            if self.stopping && self.leaving {
                return;
            }
            if self.stopping && goodbye.is_none() {
                self.sessions.set_draining(true);
                self.sessions.end_all(moment(), "recorder-stopped");
                self.work();
                goodbye = Some(Goodbye::begin());
            }
            if goodbye.is_some() && self.endpoint.dialogs() == 0 {
                return;
            }
            let until = goodbye.as_mut().map(|goodbye| goodbye.until(self.transports.connections.is_connecting()));
            let wait = self.endpoint.deadline().map(|Now(at)| Duration::from_nanos(at.saturating_sub(journal_ns())));
            tokio::select! {
                Some(message) = inbound.recv() => self.receive(message),
                Some(told) = feedback.recv() => self.hear(told),
                // A closed connection is always ready: once stopping is decided, looking at it would starve the timers.
                message = control_message(&self.control), if !self.stopping => self.obey(message),
                _ = beat.tick() => self.beat(),
                // A service manager sends it to every process of a service. What is to become of the calls the daemon says, which got it
                // too; that it is gone is seen at the connection.
                _ = terminate.recv() => tracing::debug!("SIGTERM: it is the daemon's to say what is to be done"),
                () = sleep_for(wait) => self.endpoint.handle_timeout(now()),
                () = sleep_until(until) => return,
            }
        }
    }

    /// Does everything that the machines want done.
    fn work(&mut self) {
        let behind = self.appender.behind.load(Ordering::Relaxed) || self.waiting.len() > ENTRIES_WAITING_MAX;
        self.sessions.set_storage(self.appender.spool_full.load(Ordering::Relaxed), behind);
        loop {
            self.decide();
            // First it is written down, then the other threads hear of it, and then the peers: what anybody was told stays so.
            self.save();
            self.retry();
            if self.outgoing.is_empty() {
                return;
            }
            while let Some(outgoing) = self.outgoing.pop_front() {
                match outgoing {
                    Outgoing::Send(flow, peer, bytes) => {
                        let closed = self.transports.send(flow, peer, bytes);
                        self.flow_closed(closed);
                    }
                    Outgoing::Close(flow) => self.transports.connections.close(flow),
                }
            }
        }
    }

    /// Lets the machines come to an end with each other.
    fn decide(&mut self) {
        loop {
            if let Some(output) = self.endpoint.poll() {
                self.output(output);
            } else if let Some(todo) = self.sessions.poll() {
                self.todo(todo);
            } else {
                break;
            }
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Send { flow, peer, bytes } => self.outgoing.push_back(Outgoing::Send(flow, peer, bytes)),
            Output::CloseFlow { flow } => self.outgoing.push_back(Outgoing::Close(flow)),
            Output::Connect { request, kind, local, peer } => {
                match self.transports.connect(journal_ns(), request, kind, local, peer) {
                    Ok(closed) => self.flow_closed(closed),
                    Err(()) => self.endpoint.connect_failed(now(), request),
                }
            }
            Output::Event(event) => self.event(event),
        }
    }

    fn event(&mut self, event: Event) {
        if let (Some(dialog), Some(flow)) = (dialog_of(&event), self.hearing) {
            self.transports.connections.dialog_heard(dialog, flow);
        }
        if self.transports.admit(journal_ns(), &event) {
            return self.sessions.handle(moment(), event, &mut self.rng);
        }
        if let Event::Invite { tx, .. } = event {
            let wait = [("Retry-After".to_owned(), self.settings.retry_after_s.to_string())];
            self.endpoint.reject(now(), tx, 503, "Service Unavailable", wait.into());
        }
    }

    fn flow_closed(&mut self, flow: Option<FlowId>) {
        if let Some(flow) = flow {
            self.endpoint.flow_closed(now(), flow);
        }
    }

    fn todo(&mut self, todo: Todo) {
        match todo {
            // False: the transaction or dialog is over already, and its own event has said so or will.
            Todo::Accept(tx, accept) => drop(self.endpoint.accept(now(), tx, accept)),
            Todo::Reject(tx, status, reason, headers) => drop(self.endpoint.reject(now(), tx, status, reason, headers)),
            Todo::Update(dialog, body, headers) => {
                _ = self.endpoint.update_request(now(), dialog, Some(body), headers);
            }
            Todo::Bye(dialog, reason) => drop(self.endpoint.bye(now(), dialog, Some(reason))),
            Todo::Media(command) => self.waiting.push_back(Step::Media(command)),
            Todo::Journal(entry) => self.waiting.push_back(Step::Journal(entry)),
            Todo::Tell(message) => self.tell(message),
        }
    }

    /// Gives the appender and the daemon what they had no room for.
    fn retry(&mut self) {
        while let Some(step) = self.waiting.pop_front() {
            match step {
                Step::Media(command) => {
                    let _ = self.media.send(command);
                }
                Step::Journal(entry) => {
                    if let Err(TrySendError::Full(entry) | TrySendError::Disconnected(entry)) =
                        self.journal.try_send(entry)
                    {
                        self.waiting.push_front(Step::Journal(entry));
                        break;
                    }
                }
            }
        }
        while let Some(message) = self.untold.front() {
            match self.control.get_ref().send(message, &[]) {
                Err(ControlError::WouldBlock) => break,
                Err(ControlError::Closed) => {
                    self.untold.clear();
                    break;
                }
                Ok(()) => {}
                Err(error) => tracing::error!(%error, "failed to {error}"),
            }
            self.untold.pop_front();
        }
    }

    fn tell(&mut self, message: ToDaemon) {
        if self.untold.len() >= UNTOLD_MAX {
            self.untold.pop_front();
        }
        self.untold.push_back(message);
    }

    fn receive(&mut self, message: Inbound) {
        match message {
            // What a connection said that was closed meanwhile has nowhere to be answered.
            Inbound::Message(flow, _) | Inbound::Invalid(flow, ..) if self.transports.is_closed(flow.id) => {}
            Inbound::Message(flow, message) => {
                self.transports.connections.heard(flow.id);
                self.hearing = Some(flow.id);
                self.endpoint.receive(now(), &flow, *message);
                self.work();
                self.hearing = None;
            }
            Inbound::Invalid(flow, raw, error) => {
                self.invalid += 1;
                tracing::debug!(%error, "failed to {error}");
                self.endpoint.receive_invalid(now(), &flow, &raw, &error);
            }
            Inbound::Accepted(stream, peer, kind) => {
                let closed = self.transports.accepted(journal_ns(), stream, peer, kind);
                self.flow_closed(closed);
            }
            Inbound::Closed(flow, because) => {
                self.transports.closed(flow, because);
                self.flow_closed(Some(flow));
            }
            Inbound::Handshake(flow, done) => self.transports.handshake(journal_ns(), flow.peer.ip(), done),
            Inbound::Connected(request, flow) => {
                self.transports.connected(flow.id);
                self.endpoint.connected(now(), request, &flow);
            }
            Inbound::ConnectFailed(request, flow) => {
                self.transports.closed(flow, None);
                self.transports.connect_failed(journal_ns(), "it was refused or took too long");
                self.endpoint.connect_failed(now(), request);
            }
        }
    }

    /// Takes certificates that the daemon has sent.
    fn secure_with(&mut self, identity: Option<&TlsIdentity>) {
        if let Err(error) = self.transports.secure_with(identity) {
            tracing::error!(%error, "failed to {error}");
            self.tell(ToDaemon::Alarm { code: "certificates".into(), text: format!("failed to {error}") });
        }
    }

    fn hear(&mut self, told: Feedback) {
        match told {
            Feedback::Left(pairs) => self.sessions.ports_left(moment(), pairs),
            Feedback::Silent(recording) => self.sessions.fell_silent(moment(), recording),
            Feedback::Written(recording, number) => self.sessions.written(recording, number),
            Feedback::Marked => {}
            Feedback::Durable(recording) => {
                self.sessions.durable(recording);
                self.tell(ToDaemon::Ended { recording });
            }
            Feedback::Rotated(closed_file) => self.tell(ToDaemon::Rotated { closed_file }),
            Feedback::Alarm(code, text) => self.alarm(code, text),
            Feedback::Stopped => self.stopping = true,
        }
    }

    fn obey(&mut self, message: Result<ToRecorder, ControlError>) {
        match message {
            Ok(ToRecorder::Verdict { recording, decision }) => self.sessions.verdict(moment(), recording, decision),
            Ok(ToRecorder::Calls { request }) => self.list_calls(request),
            Ok(ToRecorder::Certificates(identity)) => self.secure_with(identity.as_deref()),
            Ok(ToRecorder::Control { request, recording, action }) => {
                let result = self.sessions.control(moment(), recording, action, &mut self.rng);
                // What was decided is on its way before anybody hears of it.
                self.work();
                self.tell(ToDaemon::Controlled { request, result });
            }
            Ok(ToRecorder::SocketsStay(stay)) => self.sockets_stay = stay,
            Ok(ToRecorder::Drain) => self.sessions.set_draining(true),
            Ok(ToRecorder::Undrain) => self.sessions.set_draining(false),
            Ok(ToRecorder::Stop { end_calls }) => {
                (self.stopping, self.leaving) = (true, !end_calls && self.checkpoints.is_some());
            }
            Err(ControlError::Closed) => self.stop_alone(),
            Ok(ToRecorder::Sockets(_) | ToRecorder::Start(_)) => {
                tracing::error!("the daemon sent its settings twice; the second ones are ignored");
            }
            Err(error) => {
                tracing::error!(%error, "failed to {error}; the recorder stops");
                self.stop_alone();
            }
        }
    }

    /// Nobody says what is to become of the sessions. Where the sockets stay, another recorder goes on with them; otherwise they end.
    fn stop_alone(&mut self) {
        (self.stopping, self.leaving) = (true, self.sockets_stay && self.checkpoints.is_some());
    }

    fn list_calls(&mut self, request: u32) {
        let calls = self.sessions.calls(moment());
        let mut parts: Vec<Vec<_>> = calls.chunks(CALLS_PER_MESSAGE_MAX).map(<[_]>::to_vec).collect();
        let last = parts.pop().unwrap_or_default();
        for calls in parts {
            self.tell(ToDaemon::Calls { request, last: false, calls });
        }
        self.tell(ToDaemon::Calls { request, last: true, calls: last });
    }

    fn beat(&mut self) {
        self.sessions.tick(moment());
        let totals = self.sessions.totals();
        let (used, _) = self.sessions.port_pairs();
        let transport = self.transports.counts();
        let beat = Heartbeat {
            signalling_rounds: self.rounds,
            sweeps: self.sweep.sweeps.load(Ordering::Relaxed),
            append_rounds: self.appender.rounds.load(Ordering::Relaxed),
            appended_bytes: self.appender.appended_bytes.load(Ordering::Relaxed),
            commits: self.appender.commits.load(Ordering::Relaxed),
            accepted: totals.accepted,
            started_again: totals.started_again,
            overloaded: totals.overloaded,
            refused: totals.refused,
            live: u32::try_from(self.sessions.live()).unwrap_or(u32::MAX),
            packets: self.sweep.packets.load(Ordering::Relaxed),
            dropped: self.sweep.dropped.load(Ordering::Relaxed),
            invalid_messages: self.invalid.saturating_add(transport.datagrams_unanswered),
            port_pairs_used: u32::try_from(used).unwrap_or(u32::MAX),
            spool_free_bytes: self.appender.spool_free_bytes.load(Ordering::Relaxed),
            draining: self.sessions.is_draining(),
            behind: self.appender.behind.load(Ordering::Relaxed),
            transport,
        };
        // A daemon that does not listen does not need old heartbeats.
        if self.untold.is_empty() {
            self.tell(ToDaemon::Heartbeat(Box::new(beat)));
        }
    }
}

/// The dialog that a request of the peer's belongs to.
fn dialog_of(event: &Event) -> Option<DialogId> {
    match event {
        Event::Invite { dialog, .. }
        | Event::Reinvite { dialog, .. }
        | Event::Update { dialog, .. }
        | Event::Info { dialog, .. }
        | Event::Acked { dialog, .. } => Some(*dialog),
        _ => None,
    }
}

fn now() -> Now {
    Now(journal_ns())
}

fn moment() -> Moment {
    Moment { journal_ns: journal_ns(), wall_ns: wall_ns() }
}

fn channel_of_commands() -> (Sender<Command>, std::sync::mpsc::Receiver<Command>) {
    // Unbounded, but what goes through is bounded by sessions and their tracks, and the sweep empties it every round.
    channel()
}

/// How long the ends of the last dialogs are waited for.
struct Goodbye {
    until: Instant,
    connecting_until: Instant,
    was_connecting: bool,
}

impl Goodbye {
    fn begin() -> Self {
        let until = Instant::now() + GOODBYE;
        Self { until, connecting_until: until + GOODBYE_CONNECTING, was_connecting: false }
    }

    /// Until when, as things stand. A connection that is there now still has its BYE to carry.
    fn until(&mut self, is_connecting: bool) -> Instant {
        if std::mem::replace(&mut self.was_connecting, is_connecting) && !is_connecting {
            self.until = self.until.max(Instant::now() + GOODBYE);
        }
        if is_connecting { self.connecting_until } else { self.until }
    }
}

async fn sleep_for(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

async fn control_message(control: &AsyncFd<Channel>) -> Result<ToRecorder, ControlError> {
    loop {
        let mut ready = control.readable().await?;
        match control.get_ref().receive() {
            Err(ControlError::WouldBlock) => ready.clear_ready(),
            other => return other.map(|(message, _)| message),
        }
    }
}

/// Registers the control connection with the runtime.
#[allow(unsafe_code)]
fn register(channel: Channel) -> io::Result<AsyncFd<Channel>> {
    channel.set_nonblocking().map_err(io::Error::other)?;
    // SAFETY: a Channel owns its descriptor, gives out the same one as long as it lives, and is neither changed nor taken out
    // of the AsyncFd while registered.
    unsafe { AsyncFd::register(channel) }.map_err(|e| e.into_parts().1)
}

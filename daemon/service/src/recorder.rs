//! The driver of the recorder process: does what the supervision machine says, hands over the sockets, passes messages.
//!
//! This is one task with one loop; it owns the child, its end of the control connection, and the machine. Nothing here
//! decides: whether to start, kill or wait is the machine's, what is kept is the policy's.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use callvault_control::{
    CallAction, CallStanding, Channel, ControlError, Decision, Heartbeat, LiveCall, Refusal, SOCKETS_PER_MESSAGE_MAX,
    SocketKind, Start, TlsIdentity, ToDaemon, ToRecorder,
};
use callvault_journal::facts::CallFacts;
use callvault_supervise::{Action, Event, JOURNAL, Limits, State, Supervisor};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::files::sync_files;
use crate::lock::RecorderLock;
use crate::log::events;
use crate::sockets::Sockets;

/// How long the recorder may take to answer a question before it is dropped.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long handing over the sockets and the settings may take.
const HANDOVER_WITHIN: Duration = Duration::from_secs(5);

/// How long a part of the recorder stands still before health says so: well before the recorder is killed for it, and longer than a busy
/// machine makes it wait.
const STILL_SHOWN: Duration = Duration::from_secs(2);

/// Questions to the recorder that wait at the same time; more are refused.
const QUESTIONS_MAX: usize = 32;

/// What others may ask of the recorder.
pub(crate) enum Request {
    /// The live calls.
    Calls(oneshot::Sender<Vec<LiveCall>>),
    /// Do something about a live call, which the recording names. The answer's sender is dropped when the recorder does not
    /// answer.
    Control(Uuid, CallAction, oneshot::Sender<Result<CallStanding, Refusal>>),
    /// Stop, with or without the calls; the driver ends when the recorder has.
    Stop {
        /// Whether every call is ended with a BYE.
        end_calls: bool,
    },
}

/// How the recorder is, for health and metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecorderState {
    /// Whether it answers calls.
    pub(crate) up: bool,
    /// The generation that runs.
    pub(crate) generation: Option<Uuid>,
    /// The last generation that was started, once it is ready: what another one was cut off in and this one does not go on with has
    /// ended.
    pub(crate) ready: Option<Uuid>,
    /// Recordings that the generation that runs goes on with.
    pub(crate) resumed: BTreeSet<Uuid>,
    /// Last heartbeat.
    pub(crate) heartbeat: Heartbeat,
    /// When it came.
    pub(crate) beat_at: Option<Instant>,
    /// Pairs of media ports in the pool.
    pub(crate) port_pairs: u32,
    /// Deaths since the daemon's start.
    pub(crate) deaths_total: u64,
    /// Deaths since the last steady time.
    pub(crate) deaths: u32,
    /// Last alarm it raised, and when.
    pub(crate) alarm: Option<(Instant, String)>,
    /// Which of its parts stands still, and since when, when that is longer than [`STILL_SHOWN`].
    pub(crate) still: Option<(&'static str, Instant)>,
    /// Whether its journal waits in the kernel for a disk that does not answer.
    pub(crate) waits_for_disk: bool,
    /// Why the one before was killed, until another one is ready.
    pub(crate) killed: Option<String>,
    /// Why it could not even be started, if the last attempt ended so.
    pub(crate) start_error: Option<String>,
    /// Counters of generations before this one, so that totals never fall.
    pub(crate) before: Heartbeat,
}

/// What becomes of a call, by the id of its recording and what is known of it.
type Decide = Arc<dyn Fn(Uuid, &CallFacts) -> Decision + Send + Sync>;

/// Everything the driver needs.
pub(crate) struct Driver {
    /// The recorder's program.
    pub(crate) program: PathBuf,
    /// What every generation is told; the generation is filled in.
    pub(crate) start: Start,
    /// The sockets.
    pub(crate) sockets: Arc<Sockets>,
    /// What keeps another daemon from starting a recorder beside ours.
    pub(crate) lock: RecorderLock,
    /// Counts its rounds, by which it is seen to move.
    pub(crate) rounds: Arc<AtomicU64>,
    /// Whether the sockets outlive this daemon.
    pub(crate) stays: watch::Receiver<bool>,
    /// Whether new sessions are refused.
    pub(crate) closed: watch::Receiver<bool>,
    /// What SIP over TLS is secured with.
    pub(crate) certificates: watch::Receiver<Option<Arc<TlsIdentity>>>,
    /// What becomes of a recording.
    pub(crate) decide: Decide,
    /// Wakes the ingest: there is something to see in the journal. A wake-up that is lost, because one waits already, costs
    /// nothing.
    pub(crate) wake: SyncSender<()>,
    /// To health and metrics.
    pub(crate) state: watch::Sender<RecorderState>,
}

struct Running {
    child: Child,
    channel: AsyncFd<Channel>,
    generation: Uuid,
}

struct Question {
    number: u32,
    asked: Instant,
    answer: Awaited,
}

/// What a question waits for.
enum Awaited {
    Calls(oneshot::Sender<Vec<LiveCall>>, Vec<LiveCall>),
    Controlled(oneshot::Sender<Result<CallStanding, Refusal>>),
}

/// Whether the thread of a process that writes the journal is in the kernel where no signal reaches it, as one is that waits for a disk
/// (proc_pid_stat(5): state D).
fn waits_for_disk(process: Option<u32>) -> bool {
    let Some(threads) = process.and_then(|process| fs::read_dir(format!("/proc/{process}/task")).ok()) else {
        return false;
    };
    let stats = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.into_iter().any(|stat| {
        // The name is in brackets, and may hold anything.
        stat.rsplit_once(") ").is_some_and(|(before, after)| before.ends_with("(journal") && after.starts_with('D'))
    })
}

enum Happened {
    Message(Result<ToDaemon, ControlError>),
    Exited(io::Result<std::process::ExitStatus>),
    Asked(Option<Request>),
    Certificates,
    Stays,
    Closed,
    Time,
}

impl Driver {
    /// Runs the recorder until asked to stop.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<Request>) {
        let epoch = Instant::now();
        let mut machine = Supervisor::new(Limits::default(), Duration::ZERO);
        let mut running: Option<Running> = None;
        let mut questions: Vec<Question> = Vec::new();
        let mut number = 0_u32;
        let mut requests_open = true;
        let mut pending = vec![Event::Tick];
        let mut end_calls = true;
        let mut certificates = self.certificates.clone();
        let mut stays = self.stays.clone();
        let mut closed = self.closed.clone();
        loop {
            self.rounds.fetch_add(1, Ordering::Relaxed);
            while let Some(event) = pending.pop() {
                for action in machine.handle(epoch.elapsed(), event) {
                    match action {
                        Action::Start => pending.push(self.start(&mut running).await),
                        Action::AskToStop => self.tell(running.as_ref(), &ToRecorder::Stop { end_calls }),
                        Action::Kill { why } => {
                            tracing::error!(event = events::RECORDER_STUCK, reason = %why, "killing the recorder: {why}");
                            if let Some(running) = &mut running {
                                let _ = running.child.start_kill();
                            }
                        }
                        Action::Alarm { deaths } => tracing::error!(
                            deaths,
                            "the recorder has died {deaths} times in a row; it is started again and again, look at the lines above for why"
                        ),
                        Action::AllClear => tracing::info!("the recorder is steady again"),
                        Action::Stopped => return,
                    }
                }
                let still = machine.stillest(epoch.elapsed()).filter(|(_, still)| *still >= STILL_SHOWN);
                let still = still.and_then(|(name, still)| Some((name, Instant::now().checked_sub(still)?)));
                self.state.send_modify(|s| {
                    s.still = still;
                    s.waits_for_disk = machine.waits_for_disk();
                    s.killed = machine.killed().map(str::to_owned);
                    s.up = machine.is_up();
                    s.deaths = machine.deaths();
                    s.deaths_total = machine.deaths_total();
                });
            }
            if let (Some((JOURNAL, still)), Some(running)) = (machine.stillest(epoch.elapsed()), &running)
                && still >= STILL_SHOWN
            {
                let answers = !waits_for_disk(running.child.id());
                if answers == machine.waits_for_disk() {
                    pending.push(Event::Disk { answers });
                    continue;
                }
            }
            let wait = machine
                .deadline()
                .map_or(Duration::from_secs(1), |d| d.saturating_sub(epoch.elapsed()))
                .min(Duration::from_secs(1));
            let happened = tokio::select! {
                happened = next_of(running.as_mut()) => happened,
                request = requests.recv(), if requests_open => Happened::Asked(request),
                Ok(()) = certificates.changed() => Happened::Certificates,
                Ok(()) = stays.changed() => Happened::Stays,
                Ok(()) = closed.changed() => Happened::Closed,
                () = tokio::time::sleep(wait) => Happened::Time,
            };
            questions.retain(|q| q.asked.elapsed() < ANSWER_WITHIN);
            match happened {
                Happened::Time => pending.push(Event::Tick),
                Happened::Exited(status) => {
                    let wanted = matches!(machine.state(), State::Stopping { .. });
                    self.over(running.take(), &status, wanted);
                    questions.clear();
                    pending.push(Event::Exited);
                }
                Happened::Certificates => self.insist(running.as_ref(), &self.certificates_now()).await,
                Happened::Stays => {
                    let message = ToRecorder::SocketsStay(*self.stays.borrow());
                    self.insist(running.as_ref(), &message).await;
                }
                Happened::Asked(None) => requests_open = false,
                Happened::Asked(Some(Request::Stop { end_calls: wanted })) => {
                    end_calls = wanted;
                    pending.push(Event::StopWanted);
                }
                Happened::Closed => {
                    let message = if *self.closed.borrow() { ToRecorder::Drain } else { ToRecorder::Undrain };
                    self.insist(running.as_ref(), &message).await;
                }
                // Without a recorder, or with too many questions, the asker hears at once that there is no answer.
                Happened::Asked(Some(_)) if running.is_none() || questions.len() >= QUESTIONS_MAX => {}
                Happened::Asked(Some(Request::Calls(answer))) => {
                    number = number.wrapping_add(1);
                    let answer = Awaited::Calls(answer, Vec::new());
                    questions.push(Question { number, asked: Instant::now(), answer });
                    self.tell(running.as_ref(), &ToRecorder::Calls { request: number });
                }
                Happened::Asked(Some(Request::Control(recording, action, answer))) => {
                    number = number.wrapping_add(1);
                    let answer = Awaited::Controlled(answer);
                    questions.push(Question { number, asked: Instant::now(), answer });
                    self.tell(running.as_ref(), &ToRecorder::Control { request: number, recording, action });
                }
                Happened::Message(Ok(message)) => {
                    if let Some(event) = self.heard(running.as_ref(), message, &mut questions) {
                        pending.push(event);
                    }
                }
                Happened::Message(Err(error)) => {
                    tracing::error!(%error, "failed to {error}");
                    if let Some(running) = &mut running {
                        let _ = running.child.start_kill();
                    }
                }
            }
        }
    }

    async fn start(&self, running: &mut Option<Running>) -> Event {
        match self.try_start().await {
            Ok(started) => {
                tracing::info!(generation = %started.generation, process = started.child.id(), "recorder started");
                *running = Some(started);
                self.state.send_modify(|s| s.start_error = None);
                Event::Started
            }
            Err(error) => {
                let program = self.program.display();
                let text = format!("failed to start the recorder {program}: {error}; check that the package is whole");
                self.state.send_modify(|s| {
                    s.generation = None;
                    if s.start_error.as_ref() != Some(&text) {
                        tracing::error!("{text}");
                    }
                    s.start_error = Some(text);
                });
                Event::StartFailed
            }
        }
    }

    async fn try_start(&self) -> io::Result<Running> {
        let (ours, theirs) = Channel::pair().map_err(io::Error::other)?;
        let child = Command::new(&self.program)
            .env_clear()
            .stdin(Stdio::from(theirs.into_fd()))
            .stdout(Stdio::null())
            // Out of the terminal's group: Ctrl-C is for the daemon, which then stops its recorder in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // What a recorder before had written and not synced nobody else syncs, and a power cut soon after its death would take it.
        let journal = self.start.journal_dir.clone();
        let sync = move || {
            if let Err(error) = sync_files(&journal) {
                tracing::error!(%error, "failed to sync what was written to the journal before: {error}");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("journal-left".into()).spawn(sync) {
            tracing::error!(%error, "failed to begin to sync the journal: {error}");
        }
        let channel = register(ours)?;
        let generation = Uuid::now_v7();
        let mut running = Running { child, channel, generation };
        // Before the recorder can write anything, so that the ingest never takes a living generation for a dead one.
        self.state.send_modify(|s| {
            s.generation = Some(generation);
            s.ready = None;
            s.resumed.clear();
            s.before = sum(s.before, s.heartbeat);
            s.heartbeat = Heartbeat::default();
            s.beat_at = None;
        });
        let handed = tokio::time::timeout(HANDOVER_WITHIN, self.hand_over(&running)).await;
        let failed = match handed {
            Ok(Ok(())) => return Ok(running),
            Ok(Err(error)) => io::Error::other(error),
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        // Dead and buried before it is counted as over: nothing may still write into its generation.
        let _ = running.child.kill().await;
        Err(failed)
    }

    async fn hand_over(&self, running: &Running) -> Result<(), ControlError> {
        for some in self.sockets.listed().chunks(SOCKETS_PER_MESSAGE_MAX) {
            let (kinds, fds): (Vec<_>, Vec<_>) = some.iter().copied().unzip();
            send(&running.channel, &ToRecorder::Sockets(kinds), &fds).await?;
        }
        // The last of them: when the recorder's end closes what it has open, the sockets are free before this is.
        send(&running.channel, &ToRecorder::Sockets(vec![SocketKind::Lock]), &[self.lock.as_fd()]).await?;
        if !self.sockets.tls.is_empty() {
            send(&running.channel, &self.certificates_now(), &[]).await?;
        }
        // Before it answers anybody: nothing is taken in between.
        let is_closed = *self.closed.borrow();
        if is_closed {
            send(&running.channel, &ToRecorder::Drain, &[]).await?;
        }
        let sockets_stay = *self.stays.borrow();
        let start = Start { generation: running.generation, sockets_stay, ..self.start.clone() };
        send(&running.channel, &ToRecorder::Start(Box::new(start)), &[]).await
    }

    fn certificates_now(&self) -> ToRecorder {
        ToRecorder::Certificates(self.certificates.borrow().as_deref().cloned().map(Box::new))
    }

    /// Sends what is not sent again by itself, as certificates, and so waits.
    async fn insist(&self, running: Option<&Running>, message: &ToRecorder) {
        let Some(running) = running else { return };
        match tokio::time::timeout(HANDOVER_WITHIN, send(&running.channel, message, &[])).await {
            Ok(Ok(())) => {}
            // It is ending or stuck, which its supervision sees; the next one gets them with everything else.
            Ok(Err(error)) => tracing::warn!(%error, "failed to {error}"),
            Err(_) => tracing::warn!("the recorder did not take in time what it was told"),
        }
    }

    /// Sends without waiting. The recorder reads all the time; when its queue is full it is stuck, and that is noticed by
    /// its heartbeat.
    fn tell(&self, running: Option<&Running>, message: &ToRecorder) {
        if let Some(running) = running
            && let Err(error) = running.channel.get_ref().send(message, &[])
        {
            tracing::warn!(%error, "failed to {error}");
        }
    }

    fn heard(&self, running: Option<&Running>, message: ToDaemon, questions: &mut Vec<Question>) -> Option<Event> {
        match message {
            ToDaemon::Resumed { recordings } => {
                tracing::info!(
                    calls = recordings.len(),
                    "{} calls go on after the recorder's restart",
                    recordings.len()
                );
                self.state.send_modify(|s| s.resumed.extend(recordings));
            }
            ToDaemon::Ready { generation, port_pairs } => {
                tracing::info!(event = events::RECORDER_READY, %generation, port_pairs, "recorder ready");
                self.state.send_modify(|s| {
                    s.port_pairs = port_pairs;
                    s.ready = Some(generation);
                });
                self.wake_ingest();
                return Some(Event::Ready);
            }
            ToDaemon::Heartbeat(beat) => {
                self.state.send_modify(|s| {
                    s.heartbeat = *beat;
                    s.beat_at = Some(Instant::now());
                });
                return Some(Event::Beat([beat.signalling_rounds, beat.sweeps, beat.append_rounds]));
            }
            ToDaemon::Decide { recording, facts } => {
                tracing::info!(event = events::CALL_BEGAN, %recording, "recording {recording} began");
                let decision = (self.decide)(recording, &facts);
                self.tell(running, &ToRecorder::Verdict { recording, decision });
            }
            ToDaemon::Ended { .. } | ToDaemon::Rotated { .. } => self.wake_ingest(),
            ToDaemon::Alarm { code, text } => {
                tracing::error!(event = events::RECORDER_ALARM, code, "{text}");
                self.state.send_modify(|s| s.alarm = Some((Instant::now(), text)));
            }
            ToDaemon::Calls { request, last, calls } => {
                let at = questions.iter().position(|q| q.number == request)?;
                if let Awaited::Calls(_, heard) = &mut questions[at].answer {
                    heard.extend(calls);
                }
                if last && let Awaited::Calls(answer, heard) = questions.swap_remove(at).answer {
                    let _ = answer.send(heard);
                }
            }
            ToDaemon::Controlled { request, result } => {
                let at = questions.iter().position(|q| q.number == request)?;
                if let Awaited::Controlled(answer) = questions.swap_remove(at).answer {
                    let _ = answer.send(result);
                }
            }
        }
        None
    }

    fn wake_ingest(&self) {
        let _ = self.wake.try_send(());
    }

    fn over(&self, running: Option<Running>, status: &io::Result<std::process::ExitStatus>, wanted: bool) {
        let how = status.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        if wanted {
            tracing::info!(how, "recorder stopped ({how})");
        } else {
            tracing::error!(event = events::RECORDER_DIED, how, "the recorder died ({how}); it is started again");
        }
        drop(running);
        self.state.send_modify(|s| s.generation = None);
        self.wake_ingest();
    }
}

fn sum(a: Heartbeat, b: Heartbeat) -> Heartbeat {
    Heartbeat {
        appended_bytes: a.appended_bytes.saturating_add(b.appended_bytes),
        commits: a.commits.saturating_add(b.commits),
        accepted: a.accepted.saturating_add(b.accepted),
        started_again: a.started_again.saturating_add(b.started_again),
        overloaded: a.overloaded.saturating_add(b.overloaded),
        refused: a.refused.saturating_add(b.refused),
        packets: a.packets.saturating_add(b.packets),
        dropped: a.dropped.saturating_add(b.dropped),
        invalid_messages: a.invalid_messages.saturating_add(b.invalid_messages),
        transport: a.transport.sum(b.transport),
        ..Heartbeat::default()
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

async fn send(
    channel: &AsyncFd<Channel>,
    message: &ToRecorder,
    fds: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(), ControlError> {
    loop {
        let mut ready = channel.writable().await?;
        match channel.get_ref().send(message, fds) {
            Err(ControlError::WouldBlock) => ready.clear_ready(),
            other => return other,
        }
    }
}

/// The next message of the child, or its end. A child that is gone and has said more than was heard is heard out first.
async fn next_of(running: Option<&mut Running>) -> Happened {
    let Some(Running { child, channel, .. }) = running else { return std::future::pending().await };
    tokio::select! {
        biased;
        message = receive(channel) => match message {
            Err(ControlError::Closed) => Happened::Exited(child.wait().await),
            message => Happened::Message(message),
        },
        status = child.wait() => Happened::Exited(status),
    }
}

async fn receive(channel: &AsyncFd<Channel>) -> Result<ToDaemon, ControlError> {
    loop {
        let mut ready = channel.readable().await?;
        match channel.get_ref().receive() {
            Err(ControlError::WouldBlock) => ready.clear_ready(),
            other => return other.map(|(message, _)| message),
        }
    }
}

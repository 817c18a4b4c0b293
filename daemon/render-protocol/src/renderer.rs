//! The driver of one render process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::sandbox::{self, Limits};
use crate::witness::Witness;
use crate::{
    FrameBuffer, FromRender, Job, PAYLOAD_BYTES_MAX, Packet, RenderError, Stats, Swelling, ToRender, write_frame,
};

/// Read from the child at once, in bytes: a pipe's usual capacity.
const READ_BYTES: usize = 64 * 1024;

/// Longest wait for the child before its signs of life are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A running render process. Killed and waited for when dropped.
///
/// One thread of the caller's drives it through [`Renderer::run`], one job after another; while a job runs, a second thread feeds
/// the child, so that neither pipe can fill up and stop both sides.
pub struct Renderer {
    child: Child,
    /// `None` once a job was broken off: the conversation cannot be taken up again.
    pipes: Option<Pipes>,
    limits: Limits,
}

struct Pipes {
    to_child: ChildStdin,
    from_child: File,
}

/// How a render process ends that could not give up the file system: it does no work then. Its words go nowhere, since what it prints may be
/// a stranger's.
pub const EXIT_NOT_CONFINED: u8 = 3;

const NOT_CONFINED: &str = "it could not give up the file system, as the kernel began to let it and then did not; see whether a profile or a container around the service refuses landlock_add_rule or landlock_restrict_self";

impl Renderer {
    /// Starts the program at `path` within `limits`. Of the file system it keeps the system's programs and `ffmpeg`, to run.
    ///
    /// # Errors
    /// [`RenderError::Spawn`] when it cannot be started.
    pub fn spawn(path: &Path, ffmpeg: Option<&str>, limits: Limits) -> Result<Self, RenderError> {
        let failed = |source: io::Error| RenderError::Spawn { program: path.display().to_string(), source };
        let mut child = sandbox::command(path, limits).args(ffmpeg).spawn().map_err(failed)?;
        let (Some(to_child), Some(from_child)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::Error::other("its streams are missing")));
        };
        let from_child = File::from(OwnedFd::from(from_child));
        Ok(Self { child, pipes: Some(Pipes { to_child, from_child }), limits })
    }

    /// The process id, for logs.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether another job can be run: not after one that ended without order (an error of the source or the sink, a dead or
    /// killed child).
    pub fn is_ready(&self) -> bool {
        self.pipes.is_some()
    }

    /// Runs one job: feeds it the packets, hands each output to `on_output`, and returns what it was.
    ///
    /// `packets` is asked on a thread of its own and `on_output` is called on this one; both may block (a slow store, a slow
    /// listener) and should have deadlines of their own, since a blocked source cannot be broken off from here. `on_output` gets
    /// `Data`, `OpusPacket` and `Undecodable` only.
    ///
    /// # Errors
    /// Errors of `packets` and `on_output` come back as they are, and the child is killed. Everything else is a [`RenderError`]; after
    /// `BadJob` and `Failed` the child is ready for another job.
    pub fn run<E, P, S>(&mut self, job: &Job, packets: P, on_output: S) -> Result<Stats, E>
    where
        E: From<RenderError> + Send,
        P: Iterator<Item = Result<Packet, E>> + Send,
        S: FnMut(FromRender) -> Result<(), E>,
    {
        job.check()?;
        let Some(Pipes { to_child, mut from_child }) = self.pipes.take() else {
            return Err(RenderError::Spent.into());
        };
        let signs = Signs::default();
        let limits = self.limits;
        let child = &mut self.child;
        let (heard, fed) = thread::scope(|scope| {
            let listener = thread::current();
            let signs = &signs;
            let feeder = scope.spawn(move || {
                let fed = feed(to_child, job, packets, signs);
                signs.feeder_ended.store(true, Ordering::Release);
                listener.unpark();
                fed
            });
            let heard = listen(&mut from_child, job, signs, limits, on_output);
            signs.enough.store(true, Ordering::Relaxed);
            if heard.is_err() || !await_feeder(signs, limits) {
                // Unblocks a feeder that waits for the child to read.
                kill(child);
            }
            (heard, feeder.join())
        });
        // A panic in the caller's iterator is the caller's to see.
        let fed = fed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (heard, fed) {
            // A source that failed ends the child's input, so what the child then said is a consequence.
            (_, Fed::SourceFailed(error)) => Err(error),
            (Ok(end), Fed::Whole(to_child)) => {
                self.pipes = Some(Pipes { to_child, from_child });
                Ok(end.map_err(|(kind, text)| RenderError::Failed { kind, text })?)
            }
            // The job's own end was heard, so its result stands, but the child cannot be used again.
            (Ok(end), Fed::Broken(_)) => Ok(end.map_err(|(kind, text)| RenderError::Failed { kind, text })?),
            (Err(Broken::Caller(error)), _) => Err(error),
            (Err(Broken::Render(error)), _) => Err(error.into()),
            (Err(Broken::Ended), Fed::Broken(error)) if !is_closed_pipe(&error) => Err(error.into()),
            (Err(Broken::Ended), _) => Err(RenderError::Died(self.last_words()).into()),
        }
    }

    /// How the child ended, for people.
    fn last_words(&mut self) -> String {
        // It closed its output, so it is ending or does not follow the protocol; either way nothing more is wanted of it. A kill
        // after its death changes nothing, the status was set when it died.
        kill(&mut self.child);
        match self.child.wait() {
            Ok(status) if status.code() == Some(EXIT_NOT_CONFINED.into()) => NOT_CONFINED.to_owned(),
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        self.pipes = None;
        kill(&mut self.child);
        let _ = self.child.wait();
    }
}

/// Kills the child and what it started. It has a process group of its own, whose number stays its own until it was waited for.
fn kill(child: &mut Child) {
    if let (Ok(None), Ok(pid)) = (child.try_wait(), i32::try_from(child.id())) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.kill();
}

/// What the two threads tell each other about one job.
#[derive(Default)]
struct Signs {
    /// Frames that the child's pipe has taken.
    fed: AtomicU64,
    /// The feeder is waiting for the caller's source, not for the child.
    in_source: AtomicBool,
    /// The child has closed the job: feed no more of it.
    enough: AtomicBool,
    /// The feeder is through, one way or the other.
    feeder_ended: AtomicBool,
}

enum Fed<E> {
    /// All packets, or all that were wanted, and the end; the pipe can be used again.
    Whole(ChildStdin),
    /// The caller's source failed; the pipe is closed.
    SourceFailed(E),
    /// The pipe broke.
    Broken(RenderError),
}

fn feed<E, P>(pipe: ChildStdin, job: &Job, packets: P, signs: &Signs) -> Fed<E>
where
    P: Iterator<Item = Result<Packet, E>>,
{
    let mut pipe = Swelling::new(pipe, READ_BYTES);
    let mut scratch = Vec::new();
    match feed_packets(&mut pipe, job, packets, signs, &mut scratch) {
        Ok(None) => {}
        Ok(Some(error)) => {
            // What is still buffered is of no use to a job that is broken off.
            pipe.discard();
            return Fed::SourceFailed(error);
        }
        Err(error) => return Fed::Broken(error),
    }
    if let Err(error) = pipe.flush() {
        return Fed::Broken(error.into());
    }
    match pipe.into_inner() {
        Ok(pipe) => Fed::Whole(pipe),
        Err(error) => Fed::Broken(error.into()),
    }
}

/// Writes the job, its packets and its end; gives back the error that the source had, if it had one.
fn feed_packets<E, P>(
    pipe: &mut impl Write,
    job: &Job,
    mut packets: P,
    signs: &Signs,
    scratch: &mut Vec<u8>,
) -> Result<Option<E>, RenderError>
where
    P: Iterator<Item = Result<Packet, E>>,
{
    write_frame(pipe, &ToRender::Job(job.clone()), scratch)?;
    while !signs.enough.load(Ordering::Relaxed) {
        signs.in_source.store(true, Ordering::Relaxed);
        let next = packets.next();
        signs.in_source.store(false, Ordering::Relaxed);
        let packet = match next {
            None => break,
            Some(Err(error)) => return Ok(Some(error)),
            Some(Ok(packet)) => packet,
        };
        if packet.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(RenderError::TooLong(packet.payload.len()));
        }
        write_frame(pipe, &ToRender::Packet(packet), scratch)?;
        signs.fed.fetch_add(1, Ordering::Relaxed);
    }
    write_frame(pipe, &ToRender::End, scratch)?;
    Ok(None)
}

/// A job that did not come to its own end.
enum Broken<E> {
    Caller(E),
    Render(RenderError),
    /// The child closed its output.
    Ended,
}

impl<E> From<RenderError> for Broken<E> {
    fn from(error: RenderError) -> Self {
        Self::Render(error)
    }
}

/// The job's own end: its figures, or why the child gave it up.
type End = Result<Stats, (crate::FailureKind, String)>;

fn listen<E, S>(pipe: &mut File, job: &Job, signs: &Signs, limits: Limits, mut on_output: S) -> Result<End, Broken<E>>
where
    S: FnMut(FromRender) -> Result<(), E>,
{
    let mut patience = Patience::new(limits);
    let mut witness = Witness::new(job);
    let mut frames = FrameBuffer::default();
    let mut block = vec![0; READ_BYTES];
    loop {
        patience.look(signs)?;
        if !await_readable(pipe)? {
            continue;
        }
        let length = match pipe.read(&mut block) {
            Ok(0) => return Err(Broken::Ended),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Broken::Render(error.into())),
        };
        frames.extend(&block[..length]);
        while let Some(message) = frames.next()? {
            match witness.check(message)? {
                FromRender::Done(stats) => return finished(&frames, Ok(stats)),
                FromRender::Failed { kind, text } => return finished(&frames, Err((kind, text))),
                output => on_output(output).map_err(Broken::Caller)?,
            }
        }
        patience.renew();
    }
}

fn finished<E>(frames: &FrameBuffer, end: End) -> Result<End, Broken<E>> {
    if frames.is_empty() { Ok(end) } else { Err(Broken::Render(RenderError::Malformed("output after a job's end"))) }
}

/// Waits for the feeder after the job's end was heard: the child reads on up to the frame that ends the job. False when it does not.
fn await_feeder(signs: &Signs, limits: Limits) -> bool {
    let mut patience = Patience::new(limits);
    while !signs.feeder_ended.load(Ordering::Acquire) {
        if patience.look(signs).is_err() {
            return false;
        }
        thread::park_timeout(LOOK_INTERVAL);
    }
    true
}

/// True when a read will not block; false when it is time to look at the clock.
fn await_readable(pipe: &File) -> Result<bool, RenderError> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let interval = PollTimeout::try_from(LOOK_INTERVAL).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, interval) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) => Err(RenderError::Io(error.into())),
    }
}

/// Watches the two time limits of a job.
struct Patience {
    limits: Limits,
    started: Instant,
    last_sign: Instant,
    fed: u64,
}

impl Patience {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self { limits, started: now, last_sign: now, fed: 0 }
    }

    fn renew(&mut self) {
        self.last_sign = Instant::now();
    }

    fn look(&mut self, signs: &Signs) -> Result<(), RenderError> {
        let fed = signs.fed.load(Ordering::Relaxed);
        if fed != self.fed || signs.in_source.load(Ordering::Relaxed) {
            self.fed = fed;
            self.renew();
        }
        over(self.started, self.limits.job_max).map_or(Ok(()), |limit| Err(RenderError::Overdue(limit)))?;
        over(self.last_sign, self.limits.stall_max).map_or(Ok(()), |limit| Err(RenderError::Stalled(limit)))
    }
}

fn over(since: Instant, limit: Duration) -> Option<Duration> {
    (since.elapsed() > limit).then_some(limit)
}

fn is_closed_pipe(error: &RenderError) -> bool {
    matches!(error, RenderError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
}

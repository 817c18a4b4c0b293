//! Holds the calls: a few threads, each with a socket for signalling, two for audio and a share of the dialogs.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::dialog::{Action, Dialog, Held};
use crate::message::{Addresses, Message};
use crate::plan::CallPlan;
use crate::{Progress, SelftestParams, Stage, Transport};

/// Threads that hold calls. Four send the packets of a thousand calls; more would only compete with the recorder.
const THREADS_MAX: usize = 4;

/// Between the beginnings of two calls: 200 calls a second, a busy hour's rush and not an attack.
const BEGIN_INTERVAL: Duration = Duration::from_millis(5);

/// Longest time to open a TCP connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Longest sleep of a thread, so that it notices what came in between two packets.
const SLEEP_MAX: Duration = Duration::from_millis(5);

/// Bytes that a TCP connection may owe us of one message.
const STREAM_BYTES_MAX: usize = 256 * 1024;

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What became of each call, in the order of the plans.
pub(crate) fn hold_calls(
    params: &SelftestParams,
    plans: &[CallPlan],
    progress: &mut dyn FnMut(Progress),
) -> std::io::Result<Vec<Result<Held, String>>> {
    let threads = plans.len().div_ceil(25).clamp(1, THREADS_MAX);
    let began = Instant::now();
    let mut outcomes: Vec<Result<Held, String>> = vec![Err("the call was not held".into()); plans.len()];
    let (done, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let share: Vec<&CallPlan> = plans.iter().skip(worker).step_by(threads).collect();
            let done = done.clone();
            let work = move || {
                let held = hold_share(params, &share, began);
                // Whoever waits for it is gone only when the run is over.
                let _ = done.send((share, held));
            };
            std::thread::Builder::new().name(format!("selftest-{worker}")).spawn_scoped(scope, work)?;
        }
        drop(done);
        loop {
            match finished.recv_timeout(PROGRESS_EVERY) {
                Ok((share, held)) => {
                    for (plan, outcome) in share.iter().zip(held) {
                        outcomes[plan.index] = outcome;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let total = u64::from(params.seconds);
                    progress(Progress { stage: Stage::Talking, done: began.elapsed().as_secs().min(total), total });
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(outcomes),
            }
        }
    })
}

/// Holds a thread's share of the calls. A thread that cannot open its sockets fails its calls, not the run.
fn hold_share(params: &SelftestParams, share: &[&CallPlan], began: Instant) -> Vec<Result<Held, String>> {
    match Lines::open(params) {
        Ok(lines) => Exchange::new(lines, share, began).hold(),
        Err(error) => {
            let text = format!(
                "cannot reach {} over {}: {error}; is callvaultd running?",
                params.address,
                params.transport.as_str()
            );
            vec![Err(text); share.len()]
        }
    }
}

/// Signalling of either transport.
#[derive(Debug)]
enum Signalling {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, pending: Vec<u8> },
}

/// The sockets of a thread.
#[derive(Debug)]
struct Lines {
    signalling: Signalling,
    media: [UdpSocket; 2],
    addresses: Addresses,
}

impl Lines {
    fn open(params: &SelftestParams) -> std::io::Result<Self> {
        let any: SocketAddr = if params.address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let (signalling, local) = match params.transport {
            Transport::Udp => {
                let socket = UdpSocket::bind(any)?;
                // Connected: an ICMP "port unreachable" comes back as an error instead of ten seconds of silence.
                socket.connect(params.address)?;
                let local = socket.local_addr()?;
                (Signalling::Udp(socket), local)
            }
            Transport::Tcp => {
                let stream = TcpStream::connect_timeout(&params.address, CONNECT_MAX)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(CONNECT_MAX))?;
                let local = stream.local_addr()?;
                (Signalling::Tcp { stream, pending: Vec::new() }, local)
            }
        };
        let media = [UdpSocket::bind((local.ip(), 0))?, UdpSocket::bind((local.ip(), 0))?];
        let addresses = Addresses {
            transport: params.transport,
            target: params.address,
            local,
            media: [media[0].local_addr()?, media[1].local_addr()?],
        };
        Ok(Self { signalling, media, addresses })
    }

    fn send(&mut self, action: &Action) -> std::io::Result<()> {
        match (action, &mut self.signalling) {
            (Action::Signal(text), Signalling::Udp(socket)) => socket.send(text.as_bytes()).map(drop),
            (Action::Signal(text), Signalling::Tcp { stream, .. }) => stream.write_all(text.as_bytes()),
            // A packet that the kernel refuses is a packet lost: the comparison will show it.
            (Action::Packet { track, to, bytes }, _) => {
                self.media[*track].send_to(bytes, to).map_or(Ok(()), |_| Ok(()))
            }
        }
    }

    /// Waits for messages, at most so long, and gives all that are whole.
    fn receive(&mut self, wait: Duration) -> Result<Vec<Message>, String> {
        // A time-out of zero would mean "for ever".
        let wait = wait.max(Duration::from_millis(1));
        let mut buffer = [0; 65_536];
        match &mut self.signalling {
            Signalling::Udp(socket) => {
                socket.set_read_timeout(Some(wait)).map_err(|e| e.to_string())?;
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        Ok(Message::read(&buffer[..length], false)?.into_iter().map(|(message, _)| message).collect())
                    }
                    Err(error) if nothing_came(&error) => Ok(Vec::new()),
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        Err(format!("nothing listens on udp {}; is callvaultd running?", self.addresses.target))
                    }
                    Err(error) => Err(format!("signalling failed: {error}")),
                }
            }
            Signalling::Tcp { stream, pending } => {
                stream.set_read_timeout(Some(wait)).map_err(|e| e.to_string())?;
                match stream.read(&mut buffer) {
                    Ok(0) => Err("the recorder closed the signalling connection".into()),
                    Ok(length) => {
                        pending.extend_from_slice(&buffer[..length]);
                        whole_messages(pending)
                    }
                    Err(error) if nothing_came(&error) => Ok(Vec::new()),
                    Err(error) => Err(format!("signalling failed: {error}")),
                }
            }
        }
    }
}

fn nothing_came(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn whole_messages(pending: &mut Vec<u8>) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    loop {
        // Keep-alives between messages are empty lines (RFC 5626, 3.5.1).
        let empty = pending.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        pending.drain(..empty);
        if pending.is_empty() {
            return Ok(messages);
        }
        match Message::read(pending, true)? {
            Some((message, length)) => {
                pending.drain(..length);
                messages.push(message);
            }
            None if pending.len() > STREAM_BYTES_MAX => return Err("the recorder sent a message without end".into()),
            None => return Ok(messages),
        }
    }
}

/// The loop of one thread.
struct Exchange<'a> {
    lines: Lines,
    dialogs: Vec<Dialog<'a>>,
    by_call_id: HashMap<String, usize>,
    began: Instant,
}

impl<'a> Exchange<'a> {
    fn new(lines: Lines, share: &[&'a CallPlan], began: Instant) -> Self {
        let dialogs =
            share.iter().map(|plan| Dialog::new(plan, lines.addresses, BEGIN_INTERVAL * plan.index as u32)).collect();
        let by_call_id = share.iter().enumerate().map(|(index, plan)| (plan.call_id.clone(), index)).collect();
        Self { lines, dialogs, by_call_id, began }
    }

    fn hold(mut self) -> Vec<Result<Held, String>> {
        let mut out = Vec::new();
        loop {
            let now = self.began.elapsed();
            for dialog in &mut self.dialogs {
                dialog.poll(now, &mut out);
            }
            self.send(&mut out);
            let Some(deadline) = self.dialogs.iter().filter_map(Dialog::deadline).min() else { break };
            let wait = deadline.saturating_sub(self.began.elapsed()).min(SLEEP_MAX);
            match self.lines.receive(wait) {
                Ok(messages) => self.take(&messages, &mut out),
                Err(reason) => self.abandon(&reason),
            }
        }
        let lost = || Err("the call has no outcome".to_owned());
        self.dialogs.iter().map(|dialog| dialog.outcome().cloned().unwrap_or_else(lost)).collect()
    }

    fn take(&mut self, messages: &[Message], out: &mut Vec<Action>) {
        for message in messages {
            let now = self.began.elapsed();
            // Answers to calls of an earlier run may still come; they are nobody's here.
            if let Some(index) = self.by_call_id.get(message.call_id()) {
                self.dialogs[*index].receive(now, message, out);
            }
        }
        self.send(out);
    }

    fn send(&mut self, out: &mut Vec<Action>) {
        for action in out.drain(..) {
            if let Err(error) = self.lines.send(&action) {
                let reason = format!("cannot send to {}: {error}; is callvaultd running?", self.lines.addresses.target);
                for dialog in &mut self.dialogs {
                    dialog.abandon(&reason);
                }
            }
        }
    }

    fn abandon(&mut self, reason: &str) {
        for dialog in &mut self.dialogs {
            dialog.abandon(reason);
        }
    }
}

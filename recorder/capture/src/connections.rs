//! SIP connections over TCP: who is connected, reading messages from the stream, writing answers to it.
//!
//! Each connection has one task. Its number is bounded, as is the number from one address, how long it may say nothing unless a
//! dialog lives on it, how long a message may take to come whole, and what may wait to be written to it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callvault_sip::{DialogId, Flow, FlowId, Limits, Message, ParseError, StreamItem, StreamParser, TransportKind};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{KeepAlive, TcpKeepIdle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Numbers below are UDP listeners; connections count from here.
pub(crate) const FIRST_CONNECTION: u64 = 1 << 32;

/// Answers that may wait for a slow reader; a client that does not read its answers is no client.
const WAITING_WRITES_MAX: usize = 64;

/// How long one write may take.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// How long a message may take from its first byte to its last.
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);

/// How long the endpoint has to answer what could not be read before the connection is closed all the same.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How long, and how much, is still read after the last answer: closing while the client sends would reset the connection, and
/// the answer would be lost with it.
const LINGER_WITHIN: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 16 << 20;

/// After this long without traffic the kernel asks whether the other end is still there, so that one that vanished in a call is noticed.
const KEEP_ALIVE_AFTER_S: u32 = 60;

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// What a listener or a connection has to say.
pub(crate) enum Inbound {
    /// A message.
    Message(Flow, Box<Message>),
    /// Bytes that are none.
    Invalid(Flow, Vec<u8>, ParseError),
    /// A connection is closed.
    Closed(FlowId),
    /// A connection was accepted.
    Accepted(TcpStream, SocketAddr),
}

/// What is asked of a connection.
enum ToConnection {
    Send(Vec<u8>),
    Close,
}

/// The connections.
pub(crate) struct Connections {
    next: u64,
    open: BTreeMap<FlowId, Open>,
    /// The connection on which each dialog was last heard.
    dialogs: BTreeMap<DialogId, FlowId>,
    per_peer: HashMap<IpAddr, u32>,
    limits: ConnectionLimits,
    messages: Limits,
    inbound: mpsc::Sender<Inbound>,
}

/// An open connection.
struct Open {
    to: mpsc::Sender<ToConnection>,
    peer: IpAddr,
    /// Dialogs that live on it.
    dialogs: Arc<AtomicUsize>,
    task: AbortHandle,
}

/// Their limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    pub(crate) all_max: usize,
    pub(crate) per_peer_max: u32,
    pub(crate) idle: Duration,
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits, messages: Limits, inbound: mpsc::Sender<Inbound>) -> Self {
        Self {
            next: FIRST_CONNECTION,
            open: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            per_peer: HashMap::new(),
            limits,
            messages,
            inbound,
        }
    }

    /// Takes a connection, or drops it when there are too many.
    pub(crate) fn accept(&mut self, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let of_peer = self.per_peer.entry(peer.ip()).or_insert(0);
        if self.open.len() >= self.limits.all_max || *of_peer >= self.limits.per_peer_max {
            if *of_peer == 0 {
                self.per_peer.remove(&peer.ip());
            }
            tracing::warn!(
                open = self.open.len(),
                "a connection was refused: limits.connections_max or its per-peer limit is reached"
            );
            return;
        }
        *of_peer += 1;
        let id = FlowId(self.next);
        self.next += 1;
        let local = stream.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let flow = Flow { id, kind: TransportKind::Tcp, local, peer };
        let (to, asked) = mpsc::channel(WAITING_WRITES_MAX);
        // Without these it works too, only less well.
        let _ = stream.set_nodelay(true);
        let _ = setsockopt(&stream, KeepAlive, &true);
        let _ = setsockopt(&stream, TcpKeepIdle, &KEEP_ALIVE_AFTER_S);
        let dialogs = Arc::new(AtomicUsize::new(0));
        let connection = Connection {
            flow,
            idle: self.limits.idle,
            dialogs: Arc::clone(&dialogs),
            inbound: self.inbound.clone(),
            parser: StreamParser::new(self.messages),
        };
        let task = tokio::spawn(connection.serve(stream, asked)).abort_handle();
        self.open.insert(id, Open { to, peer: peer.ip(), dialogs, task });
    }

    /// Sends on a connection; says whether it is there and follows. If not, [`Connections::cut`] it.
    pub(crate) fn send(&mut self, flow: FlowId, bytes: Vec<u8>) -> bool {
        self.open.get(&flow).is_some_and(|open| open.to.try_send(ToConnection::Send(bytes)).is_ok())
    }

    /// Closes a connection once what waits is written.
    pub(crate) fn close(&mut self, flow: FlowId) {
        if let Some(open) = self.open.get(&flow)
            && open.to.try_send(ToConnection::Close).is_err()
        {
            self.cut(flow);
        }
    }

    /// Closes a connection at once. Says whether it was open.
    pub(crate) fn cut(&mut self, flow: FlowId) -> bool {
        let Some(open) = self.open.get(&flow) else { return false };
        open.task.abort();
        self.closed(flow);
        true
    }

    /// A connection's task has ended.
    pub(crate) fn closed(&mut self, flow: FlowId) {
        let Some(Open { peer, .. }) = self.open.remove(&flow) else { return };
        self.dialogs.retain(|_, on| *on != flow);
        if let Some(count) = self.per_peer.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_peer.remove(&peer);
            }
        }
    }

    /// A dialog was heard on this flow. If it is a connection, that is not idle as long as the dialog lives.
    pub(crate) fn dialog_heard(&mut self, dialog: DialogId, flow: FlowId) {
        if self.dialogs.get(&dialog) == Some(&flow) {
            return;
        }
        self.dialog_ended(dialog);
        if let Some(open) = self.open.get(&flow) {
            open.dialogs.fetch_add(1, Ordering::Relaxed);
            self.dialogs.insert(dialog, flow);
        }
    }

    /// A dialog is over.
    pub(crate) fn dialog_ended(&mut self, dialog: DialogId) {
        let Some(flow) = self.dialogs.remove(&dialog) else { return };
        if let Some(open) = self.open.get(&flow) {
            open.dialogs.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What the task of a connection holds.
struct Connection {
    flow: Flow,
    idle: Duration,
    dialogs: Arc<AtomicUsize>,
    inbound: mpsc::Sender<Inbound>,
    parser: StreamParser,
}

/// Whether to go on after what was read.
enum Read {
    GoOn {
        /// Whether a whole message or keep-alive was among it.
        whole: bool,
    },
    /// The framing is lost.
    Fault,
    End,
}

impl Connection {
    async fn serve(mut self, mut stream: TcpStream, mut asked: mpsc::Receiver<ToConnection>) {
        let mut buffer = vec![0; READ_BYTES];
        // When the message began whose end is awaited.
        let mut begun: Option<Instant> = None;
        let mut last = Instant::now();
        loop {
            let deadline = begun.map_or(last + self.idle, |begun| begun + MESSAGE_WITHIN);
            tokio::select! {
                read = stream.read(&mut buffer) => {
                    let Ok(count @ 1..) = read else { break };
                    last = Instant::now();
                    match self.take(&mut stream, &buffer[..count]).await {
                        Read::GoOn { whole } => {
                            let since = begun.filter(|_| !whole).unwrap_or(last);
                            begun = self.parser.is_within_message().then_some(since);
                        }
                        Read::Fault => {
                            drain_writes(&mut stream, &mut asked).await;
                            linger(&mut stream, &mut buffer).await;
                            break;
                        }
                        Read::End => break,
                    }
                },
                request = asked.recv() => match request {
                    Some(ToConnection::Send(bytes)) => {
                        last = Instant::now();
                        if !write(&mut stream, &bytes).await {
                            break;
                        }
                    }
                    Some(ToConnection::Close) | None => break,
                },
                () = tokio::time::sleep_until(deadline) => {
                    if begun.is_some() || self.dialogs.load(Ordering::Relaxed) == 0 {
                        break;
                    }
                    // A call lives on it, and may say nothing for hours.
                    last = Instant::now();
                },
            }
        }
        let _ = stream.shutdown().await;
        let _ = self.inbound.send(Inbound::Closed(self.flow.id)).await;
    }

    /// Takes what was read.
    async fn take(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> Read {
        self.parser.push(bytes);
        let mut whole = false;
        loop {
            match self.parser.poll() {
                Ok(Some(StreamItem::Message(message))) => {
                    whole = true;
                    if self.inbound.send(Inbound::Message(self.flow, Box::new(message))).await.is_err() {
                        return Read::End;
                    }
                }
                Ok(Some(StreamItem::Ping)) => {
                    whole = true;
                    if !write(stream, StreamParser::PONG).await {
                        return Read::End;
                    }
                }
                Ok(None) => return Read::GoOn { whole },
                Err(fault) => {
                    // The endpoint answers where it can, and asks for the connection to be closed.
                    let _ = self.inbound.send(Inbound::Invalid(self.flow, fault.raw, fault.error)).await;
                    return Read::Fault;
                }
            }
        }
    }
}

/// Writes what the endpoint still has to say, until it closes the connection.
async fn drain_writes(stream: &mut TcpStream, asked: &mut mpsc::Receiver<ToConnection>) {
    while let Ok(Some(ToConnection::Send(bytes))) = tokio::time::timeout(LAST_ANSWER_WITHIN, asked.recv()).await {
        if !write(stream, &bytes).await {
            return;
        }
    }
}

/// Says that nothing more will be written, and reads and forgets what the client is still sending, within bounds.
async fn linger(stream: &mut TcpStream, buffer: &mut [u8]) {
    let _ = stream.shutdown().await;
    let rest = async {
        let mut bytes = 0;
        while bytes < LINGER_BYTES_MAX {
            match stream.read(buffer).await {
                Ok(count @ 1..) => bytes += count,
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_WITHIN, rest).await;
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    matches!(tokio::time::timeout(WRITE_WITHIN, stream.write_all(bytes)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests;

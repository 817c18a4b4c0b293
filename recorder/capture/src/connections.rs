//! SIP connections over TCP: who is connected, reading messages from the stream, writing answers to it.
//!
//! Each connection has one task. Its number is bounded, as is the number from one address, how long it may say nothing, how
//! long a message may take to come whole, and what may wait to be written to it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use callvault_sip::{Flow, FlowId, Limits, Message, ParseError, StreamItem, StreamParser, TransportKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Numbers below are UDP listeners; connections count from here.
pub(crate) const FIRST_CONNECTION: u64 = 1 << 32;

/// Answers that may wait for a slow reader; a client that does not read its answers is no client.
const WAITING_WRITES_MAX: usize = 64;

/// How long one write may take.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// How long a message may take from its first byte to its last.
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// What a listener or a connection has to say.
pub(crate) enum Inbound {
    /// A message.
    Message(Flow, Box<Message>),
    /// Bytes that are none.
    Invalid(Flow, Vec<u8>, ParseError),
    /// A connection is closed.
    Closed(FlowId, IpAddr),
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
    open: BTreeMap<FlowId, mpsc::Sender<ToConnection>>,
    per_peer: HashMap<IpAddr, u32>,
    limits: ConnectionLimits,
    messages: Limits,
    inbound: mpsc::Sender<Inbound>,
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
        Self { next: FIRST_CONNECTION, open: BTreeMap::new(), per_peer: HashMap::new(), limits, messages, inbound }
    }

    /// Takes a connection, or drops it when there are too many.
    pub(crate) fn accept(&mut self, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let of_peer = self.per_peer.entry(peer.ip()).or_insert(0);
        if self.open.len() >= self.limits.all_max || *of_peer >= self.limits.per_peer_max {
            if *of_peer == 0 {
                self.per_peer.remove(&peer.ip());
            }
            tracing::warn!(open = self.open.len(), "a connection was refused: limits.connections_max or its per-peer limit is reached");
            return;
        }
        *of_peer += 1;
        let id = FlowId(self.next);
        self.next += 1;
        let local = stream.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let flow = Flow { id, kind: TransportKind::Tcp, local, peer };
        let (tx, rx) = mpsc::channel(WAITING_WRITES_MAX);
        self.open.insert(id, tx);
        let _ = stream.set_nodelay(true);
        let task = serve(stream, flow, self.messages, self.limits.idle, rx, self.inbound.clone());
        tokio::spawn(task);
    }

    /// Sends on a connection; says whether it is there and follows.
    pub(crate) fn send(&mut self, flow: FlowId, bytes: Vec<u8>) -> bool {
        self.open.get(&flow).is_some_and(|tx| tx.try_send(ToConnection::Send(bytes)).is_ok())
    }

    /// Closes a connection once what waits is written.
    pub(crate) fn close(&mut self, flow: FlowId) {
        if let Some(tx) = self.open.get(&flow) {
            let _ = tx.try_send(ToConnection::Close);
        }
    }

    /// A connection's task has ended.
    pub(crate) fn closed(&mut self, flow: FlowId, peer: IpAddr) {
        self.open.remove(&flow);
        if let Some(count) = self.per_peer.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_peer.remove(&peer);
            }
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    flow: Flow,
    limits: Limits,
    idle: Duration,
    mut asked: mpsc::Receiver<ToConnection>,
    inbound: mpsc::Sender<Inbound>,
) {
    let mut parser = StreamParser::new(limits);
    let mut buffer = vec![0; READ_BYTES];
    let mut within_since: Option<tokio::time::Instant> = None;
    let mut last = tokio::time::Instant::now();
    'open: loop {
        let deadline = within_since.map_or(last + idle, |since| since + MESSAGE_WITHIN);
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    last = tokio::time::Instant::now();
                    parser.push(&buffer[..n]);
                    loop {
                        match parser.poll() {
                            Ok(Some(StreamItem::Message(message))) => {
                                if inbound.send(Inbound::Message(flow, Box::new(message))).await.is_err() {
                                    break 'open;
                                }
                            }
                            Ok(Some(StreamItem::Ping)) => {
                                if !write(&mut stream, StreamParser::PONG).await {
                                    break 'open;
                                }
                            }
                            Ok(None) => break,
                            Err(fault) => {
                                // The framing is lost. The endpoint answers where it can, and asks for the connection to be
                                // closed; nothing more is read meanwhile.
                                let _ = inbound.send(Inbound::Invalid(flow, fault.raw, fault.error)).await;
                                drain_writes(&mut stream, &mut asked).await;
                                break 'open;
                            }
                        }
                    }
                    within_since = parser.is_within_message().then(|| within_since.unwrap_or(last));
                }
            },
            request = asked.recv() => match request {
                Some(ToConnection::Send(bytes)) => {
                    last = tokio::time::Instant::now();
                    if !write(&mut stream, &bytes).await {
                        break;
                    }
                }
                Some(ToConnection::Close) | None => break,
            },
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    let _ = stream.shutdown().await;
    let _ = inbound.send(Inbound::Closed(flow.id, flow.peer.ip())).await;
}

/// Writes what the endpoint still has to say, until it closes the connection.
async fn drain_writes(stream: &mut TcpStream, asked: &mut mpsc::Receiver<ToConnection>) {
    while let Ok(Some(ToConnection::Send(bytes))) = tokio::time::timeout(Duration::from_secs(1), asked.recv()).await {
        if !write(stream, &bytes).await {
            return;
        }
    }
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    matches!(tokio::time::timeout(WRITE_WITHIN, stream.write_all(bytes)).await, Ok(Ok(())))
}

//! SIP connections over TCP and TLS: who is connected, which dialogs live on what, and who must go when there are too many.
//!
//! Each connection has one task (`stream`). Its number is bounded, as is the number from one address; how long a connection may say
//! nothing unless a dialog lives on it, how long a handshake and a message may take, and what may wait to be written. Where there are
//! too many, one that never carried a message makes room: that is what a flood is made of, and what a client in use is not.

mod stream;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callvault_control::{ClosedBecause, HandshakeFailure};
use callvault_sip::{ConnectId, DialogId, Flow, FlowId, Limits, Message, ParseError, StreamParser, TransportKind};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{KeepAlive, TcpKeepIdle};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::tls::Tls;
use stream::{Connection, Secured};

/// Numbers below are UDP listeners; connections count from here.
pub(crate) const FIRST_CONNECTION: u64 = 1 << 32;

/// Answers that may wait for a slow reader; a client that does not read its answers is no client.
const WAITING_WRITES_MAX: usize = 64;

/// After this long without traffic the kernel asks whether the other end is still there, so that one that vanished in a call is noticed.
const KEEP_ALIVE_AFTER_S: u32 = 60;

/// What a listener or a connection has to say.
pub(crate) enum Inbound {
    /// A message.
    Message(Flow, Box<Message>),
    /// Bytes that are none.
    Invalid(Flow, Vec<u8>, ParseError),
    /// A connection is closed; why, when it was we who closed it.
    Closed(FlowId, Option<ClosedBecause>),
    /// A connection was accepted.
    Accepted(TcpStream, SocketAddr, TransportKind),
    /// A TLS handshake is done: with whom, or why not. A connection whose handshake failed is closed by its task.
    Handshake(Flow, Result<(), HandshakeFailure>),
    /// A connection that was asked for is there.
    Connected(ConnectId, Flow),
    /// A connection that was asked for could not be made; its task has ended.
    ConnectFailed(ConnectId, FlowId),
}

/// What is asked of a connection.
enum ToConnection {
    Send(Vec<u8>),
    Close,
}

/// What became of a connection that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is open.
    Yes,
    /// It is open, and this one was closed for it.
    Instead(FlowId),
    /// It is closed.
    No(ClosedBecause),
    /// It is closed, because there is nothing to secure it with.
    NoCertificate,
}

/// The connections.
pub(crate) struct Connections {
    next: u64,
    open: BTreeMap<FlowId, Open>,
    /// Those that have not carried a message yet, the oldest first.
    unproven: BTreeSet<FlowId>,
    /// The connection on which each dialog was last heard.
    dialogs: BTreeMap<DialogId, FlowId>,
    per_peer: HashMap<IpAddr, u32>,
    limits: ConnectionLimits,
    messages: Limits,
    tls: Option<Tls>,
    inbound: mpsc::Sender<Inbound>,
}

/// An open connection.
struct Open {
    to: mpsc::Sender<ToConnection>,
    peer: IpAddr,
    kind: TransportKind,
    /// Dialogs that live on it.
    dialogs: Arc<AtomicUsize>,
    task: AbortHandle,
    /// The request that it is being made for, until it is there.
    connecting: Option<ConnectId>,
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
            unproven: BTreeSet::new(),
            dialogs: BTreeMap::new(),
            per_peer: HashMap::new(),
            limits,
            messages,
            tls: None,
            inbound,
        }
    }

    /// What new TLS connections are secured with from now on.
    pub(crate) fn secure_with(&mut self, tls: Option<Tls>) {
        self.tls = tls;
    }

    /// How many are open, in the handshake included, of this transport.
    pub(crate) fn count(&self, kind: TransportKind) -> usize {
        self.open.values().filter(|open| open.kind == kind).count()
    }

    /// Whether one of our own is being made.
    pub(crate) fn is_connecting(&self) -> bool {
        self.open.values().any(|open| open.connecting.is_some())
    }

    /// Whether this one is open.
    pub(crate) fn is_open(&self, flow: FlowId) -> bool {
        self.open.contains_key(&flow)
    }

    /// Takes a connection that a peer has opened, if need be in place of another.
    pub(crate) fn accept(&mut self, stream: TcpStream, peer: SocketAddr, kind: TransportKind) -> Taken {
        let secured = match (kind, &self.tls) {
            (TransportKind::Tls, None) => return Taken::NoCertificate,
            (TransportKind::Tls, Some(tls)) => Secured::AsServer(Arc::clone(&tls.server)),
            _ => Secured::Not,
        };
        let peer = canonical(peer);
        let replaced = match self.make_room(peer.ip()) {
            Ok(replaced) => replaced,
            Err(because) => return Taken::No(because),
        };
        let local = canonical(stream.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))));
        let flow = Flow { id: self.new_id(), kind, local, peer };
        tune(&stream);
        self.open(flow, None, move |connection, asked| tokio::spawn(connection.accepted(stream, secured, asked)));
        self.unproven.insert(flow.id);
        replaced.map_or(Taken::Yes, Taken::Instead)
    }

    /// Opens a connection to a peer. Says whether it is being made ([`Inbound::Connected`] or [`Inbound::ConnectFailed`] will follow),
    /// and which connection was closed for it.
    pub(crate) fn connect(
        &mut self,
        request: ConnectId,
        kind: TransportKind,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Taken {
        let secured = match (kind, &self.tls) {
            (TransportKind::Tls, None) => return Taken::NoCertificate,
            (TransportKind::Tls, Some(tls)) => Secured::AsClient(Arc::clone(&tls.client)),
            _ => Secured::Not,
        };
        let replaced = match self.make_room(peer.ip().to_canonical()) {
            Ok(replaced) => replaced,
            Err(because) => return Taken::No(because),
        };
        let flow = Flow { id: self.new_id(), kind, local, peer };
        self.open(flow, Some(request), move |connection, asked| tokio::spawn(connection.made(request, secured, asked)));
        replaced.map_or(Taken::Yes, Taken::Instead)
    }

    /// Makes room for one more connection with this peer: there is some, or one goes that has not carried a message yet, the oldest.
    fn make_room(&mut self, peer: IpAddr) -> Result<Option<FlowId>, ClosedBecause> {
        let of_peer_full = self.per_peer.get(&peer).is_some_and(|count| *count >= self.limits.per_peer_max);
        let all_full = self.open.len() >= self.limits.all_max;
        if !of_peer_full && !all_full {
            return Ok(None);
        }
        let is_peers = |flow: &&FlowId| self.open.get(flow).is_some_and(|open| open.peer == peer);
        let oldest = self.unproven.iter().find(|flow| !of_peer_full || is_peers(flow)).copied();
        let Some(oldest) = oldest else { return Err(ClosedBecause::Full) };
        self.cut(oldest);
        Ok(Some(oldest))
    }

    fn new_id(&mut self) -> FlowId {
        let id = FlowId(self.next);
        self.next += 1;
        id
    }

    fn open(
        &mut self,
        flow: Flow,
        connecting: Option<ConnectId>,
        start: impl FnOnce(Connection, mpsc::Receiver<ToConnection>) -> tokio::task::JoinHandle<()>,
    ) {
        let peer = flow.peer.ip().to_canonical();
        *self.per_peer.entry(peer).or_insert(0) += 1;
        let (to, asked) = mpsc::channel(WAITING_WRITES_MAX);
        let dialogs = Arc::new(AtomicUsize::new(0));
        let connection = Connection {
            flow,
            idle: self.limits.idle,
            dialogs: Arc::clone(&dialogs),
            inbound: self.inbound.clone(),
            parser: StreamParser::new(self.messages),
        };
        let task = start(connection, asked).abort_handle();
        self.open.insert(flow.id, Open { to, peer, kind: flow.kind, dialogs, task, connecting });
    }

    /// A connection of our own is there.
    pub(crate) fn connected(&mut self, flow: FlowId) {
        if let Some(open) = self.open.get_mut(&flow) {
            open.connecting = None;
        }
    }

    /// A message came on a connection.
    pub(crate) fn heard(&mut self, flow: FlowId) {
        self.unproven.remove(&flow);
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
        self.unproven.remove(&flow);
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

/// An IPv4 address that came through an IPv6 socket as the IPv4 address that it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What makes a connection quicker, and shows when the other end is gone. Without it, it works too, only less well.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(stream, KeepAlive, &true);
    let _ = setsockopt(stream, TcpKeepIdle, &KEEP_ALIVE_AFTER_S);
}

#[cfg(test)]
mod tests;

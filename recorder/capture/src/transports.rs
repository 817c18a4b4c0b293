//! Everything between the sockets and the SIP endpoint: where bytes go, who may come, what is counted and what is logged of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use callvault_control::{ClosedBecause, HandshakeFailure, Network, Start, TlsIdentity, TransportCounts};
use callvault_sip::{ConnectId, DialogId, Event, Flow, FlowId, Limits, TransportKind};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

use crate::admission::{Admission, NowAndThen, PerSource, Rate, Source, TooMuch};
use crate::connections::{ConnectionLimits, Connections, FIRST_CONNECTION, Inbound, Taken};
use crate::listeners::{ListenerCounts, unmapped};
use crate::tls::{Tls, TlsError};

/// New TLS connections of one source a second, and at once. A handshake costs the thread of the signalling about a millisecond with an
/// RSA key: this leaves most of it to those who are in. At once is what a client has that comes back with all its connections.
const HANDSHAKES_PER_SOURCE: Rate = Rate::per_second(50, 256);

/// Where bytes go and come from.
pub(crate) struct Transports {
    udp: Vec<Arc<UdpSocket>>,
    pub(crate) connections: Connections,
    admission: Admission,
    handshakes: PerSource,
    allowed: Vec<Network>,
    counts: TransportCounts,
    listeners: Arc<ListenerCounts>,
    /// Lines that a peer can cause, each said now and then.
    not_allowed_line: NowAndThen,
    full_line: NowAndThen,
    handshake_line: NowAndThen,
    connect_line: NowAndThen,
    admission_line: NowAndThen,
}

impl Transports {
    pub(crate) fn new(
        settings: &Start,
        messages: Limits,
        udp: Vec<Arc<UdpSocket>>,
        listeners: Arc<ListenerCounts>,
        inbound: mpsc::Sender<Inbound>,
    ) -> Self {
        let limits = ConnectionLimits {
            all_max: settings.connections_max as usize,
            per_peer_max: settings.connections_per_peer_max,
            idle: Duration::from_secs(settings.connection_idle_s.into()),
        };
        Self {
            udp,
            connections: Connections::new(limits, messages, inbound),
            admission: Admission::new(settings),
            handshakes: PerSource::new(HANDSHAKES_PER_SOURCE),
            allowed: settings.allowed_peers.clone(),
            counts: TransportCounts::default(),
            listeners,
            not_allowed_line: NowAndThen::new(),
            full_line: NowAndThen::new(),
            handshake_line: NowAndThen::new(),
            connect_line: NowAndThen::new(),
            admission_line: NowAndThen::new(),
        }
    }

    /// What new TLS connections are secured with from now on.
    pub(crate) fn secure_with(&mut self, identity: Option<&TlsIdentity>) -> Result<(), TlsError> {
        self.connections.secure_with(identity.map(Tls::new).transpose()?);
        Ok(())
    }

    /// The flow in this process of one that another recorder had: the same listener for datagrams. Connections died with it.
    pub(crate) fn resumed(&self, flow: &Flow) -> Option<Flow> {
        let same = |socket: &Arc<UdpSocket>| socket.local_addr().is_ok_and(|bound| bound.port() == flow.local.port());
        let listener = usize::try_from(flow.id.0).ok().and_then(|index| self.udp.get(index));
        listener.filter(|socket| flow.kind == TransportKind::Udp && same(socket)).map(|_| *flow)
    }

    /// A dialog goes on that another recorder had accepted: it counts for the limits of its source.
    pub(crate) fn resumed_dialog(&mut self, dialog: DialogId, peer: IpAddr) {
        self.admission.resumed(dialog, peer);
    }

    /// Sends bytes. A connection that does not take them is closed, and given back: who does not read its answers is no client.
    pub(crate) fn send(&mut self, flow: FlowId, peer: SocketAddr, bytes: Vec<u8>) -> Option<FlowId> {
        if flow.0 >= FIRST_CONNECTION {
            return (!self.connections.send(flow, bytes) && self.connections.cut(flow)).then_some(flow);
        }
        let socket = usize::try_from(flow.0).ok().and_then(|i| self.udp.get(i));
        if let Some(socket) = socket
            && let Err(error) = socket.try_send_to(&bytes, unmapped(socket, peer))
        {
            // A datagram that is lost here is sent again by the endpoint's timers.
            tracing::debug!(%error, "a datagram could not be sent: {error}");
        }
        None
    }

    /// A peer has connected. Gives the connection that had to go for it, if one had.
    pub(crate) fn accepted(
        &mut self,
        now_ns: u64,
        stream: TcpStream,
        peer: SocketAddr,
        kind: TransportKind,
    ) -> Option<FlowId> {
        let address = peer.ip().to_canonical();
        let taken = if !self.is_allowed(address) {
            Taken::No(ClosedBecause::NotAllowed)
        } else if kind == TransportKind::Tls && !self.handshakes.take(Source::of(address), now_ns) {
            Taken::No(ClosedBecause::TooFast)
        } else {
            self.connections.accept(stream, peer, kind)
        };
        match taken {
            Taken::Yes | Taken::Instead(_) => match kind {
                TransportKind::Tls => self.counts.accepted_tls += 1,
                _ => self.counts.accepted_tcp += 1,
            },
            Taken::No(because) => self.turned_away(now_ns, because, address),
            Taken::NoCertificate => self.handshake(now_ns, address, Err(HandshakeFailure::NoCertificate)),
        }
        self.replaced(now_ns, &taken, address)
    }

    /// Opens a connection to a peer that a dialog names. `Err` when it may not be or cannot be; gives the connection that had to go
    /// for it, if one had.
    pub(crate) fn connect(
        &mut self,
        now_ns: u64,
        request: ConnectId,
        kind: TransportKind,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Result<Option<FlowId>, ()> {
        let address = peer.ip().to_canonical();
        let taken = match self.is_allowed(address) {
            true => self.connections.connect(request, kind, local, peer),
            // A peer names the address: without this it could have the recorder knock at any door.
            false => Taken::No(ClosedBecause::NotAllowed),
        };
        match taken {
            Taken::Yes | Taken::Instead(_) => Ok(self.replaced(now_ns, &taken, address)),
            Taken::No(because) => {
                self.connect_failed(now_ns, because.name());
                Err(())
            }
            Taken::NoCertificate => {
                self.connect_failed(now_ns, HandshakeFailure::NoCertificate.name());
                Err(())
            }
        }
    }

    /// A connection that was asked for could not be made.
    pub(crate) fn connect_failed(&mut self, now_ns: u64, why: &str) {
        self.counts.connects_failed += 1;
        if let Some(before) = self.connect_line.due(now_ns) {
            tracing::warn!(
                why,
                left_out = before,
                "no connection could be opened for a request within a dialog ({why}); the client's firewall may forbid it"
            );
        }
    }

    /// A connection that was asked for is there.
    pub(crate) fn connected(&mut self, flow: FlowId) {
        self.counts.connects += 1;
        self.connections.connected(flow);
    }

    /// A connection is closed, by us for this reason if there is one.
    pub(crate) fn closed(&mut self, flow: FlowId, because: Option<ClosedBecause>) {
        if let Some(because) = because {
            self.counts.closed[because as usize] += 1;
        }
        self.connections.closed(flow);
    }

    /// A TLS handshake has ended.
    pub(crate) fn handshake(&mut self, now_ns: u64, peer: IpAddr, done: Result<(), HandshakeFailure>) {
        let Err(failure) = done else {
            self.counts.handshakes += 1;
            return;
        };
        self.counts.handshakes_failed[failure as usize] += 1;
        if let Some(before) = self.handshake_line.due(now_ns) {
            let why = failure.name();
            tracing::warn!(why, %peer, left_out = before, "a TLS handshake with {peer} failed: {why}");
        }
    }

    /// What the endpoint has to say before the session layer hears it. Whether it may.
    pub(crate) fn admit(&mut self, now_ns: u64, event: &Event) -> bool {
        let refused = match event {
            Event::Invite { dialog, flow, .. } if self.is_allowed(flow.peer.ip()) => {
                self.admission.admit(now_ns, *dialog, flow.peer.ip()).err()
            }
            Event::Ended { dialog, .. } => {
                self.forget(*dialog);
                None
            }
            _ => None,
        };
        let (counter, why) = match refused {
            None => return true,
            Some(TooMuch::Fast) => (
                &mut self.counts.invites_too_fast,
                "they come faster than limits.invites_per_second or limits.invites_per_peer_per_second",
            ),
            Some(TooMuch::Share) => {
                (&mut self.counts.invites_over_share, "their source has limits.sessions_per_peer_max sessions")
            }
        };
        *counter += 1;
        if let Some(before) = self.admission_line.due(now_ns) {
            tracing::warn!(why, left_out = before, "sessions are refused with 503: {why}");
        }
        false
    }

    fn forget(&mut self, dialog: DialogId) {
        self.admission.ended(dialog);
        self.connections.dialog_ended(dialog);
    }

    /// Whether this is a connection that is not open any more.
    pub(crate) fn is_closed(&self, flow: FlowId) -> bool {
        flow.0 >= FIRST_CONNECTION && !self.connections.is_open(flow)
    }

    /// The counters as they are now.
    pub(crate) fn counts(&self) -> TransportCounts {
        let count = |kind| u32::try_from(self.connections.count(kind)).unwrap_or(u32::MAX);
        TransportCounts {
            connections_tcp: count(TransportKind::Tcp),
            connections_tls: count(TransportKind::Tls),
            datagrams_not_allowed: self.listeners.not_allowed.load(Ordering::Relaxed),
            datagrams_unanswered: self.listeners.unanswered.load(Ordering::Relaxed),
            ..self.counts
        }
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(address))
    }

    fn replaced(&mut self, now_ns: u64, taken: &Taken, peer: IpAddr) -> Option<FlowId> {
        let Taken::Instead(flow) = taken else { return None };
        self.turned_away(now_ns, ClosedBecause::Replaced, peer);
        Some(*flow)
    }

    fn turned_away(&mut self, now_ns: u64, because: ClosedBecause, peer: IpAddr) {
        self.counts.closed[because as usize] += 1;
        let (line, hint) = match because {
            ClosedBecause::NotAllowed => (&mut self.not_allowed_line, "it is not in sip.allowed_peers"),
            ClosedBecause::TooFast => (&mut self.full_line, "it opens TLS connections too fast"),
            ClosedBecause::Replaced => (
                &mut self.full_line,
                "limits.connections_max or limits.connections_per_peer_max is reached; one without a message made room",
            ),
            _ => (&mut self.full_line, "limits.connections_max or limits.connections_per_peer_max is reached"),
        };
        if let Some(before) = line.due(now_ns) {
            tracing::warn!(%peer, left_out = before, "a connection of {peer}, or one for it, was closed: {hint}");
        }
    }
}

//! The listeners: what comes in at the sockets that the daemon has bound becomes [`Inbound`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use callvault_control::Start;
use callvault_sip::{Flow, FlowId, Limits, TransportKind, parse_datagram};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use crate::connections::Inbound;

/// Pause after an error of a listening socket, which may last: a loop without one would burn the CPU.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Local addresses remembered per peer.
const ROUTES_MAX: usize = 4_096;

/// Reads the UDP sockets.
pub(crate) fn listen_udp(
    sockets: Vec<OwnedFd>,
    settings: &Arc<Start>,
    limits: Limits,
    inbound: &mpsc::Sender<Inbound>,
) -> io::Result<Vec<Arc<UdpSocket>>> {
    let mut listeners = Vec::new();
    for (index, fd) in sockets.into_iter().enumerate() {
        let socket = StdUdpSocket::from(fd);
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        listeners.push(Arc::clone(&socket));
        let bound = settings.sip_listeners.get(index).copied().unwrap_or(socket.local_addr()?);
        let inbound = inbound.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            let mut routes = Routes { bound, known: HashMap::new() };
            loop {
                // An ICMP error for an earlier answer comes out here; it says nothing about the next datagram.
                let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                };
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let flow = Flow { id: FlowId(index as u64), kind: TransportKind::Udp, local: routes.local(peer), peer };
                let bytes = &buffer[..length];
                let message = match parse_datagram(bytes, &limits) {
                    Ok(Some(message)) => Inbound::Message(flow, Box::new(message)),
                    Ok(None) => continue,
                    Err(error) => Inbound::Invalid(flow, bytes.to_vec(), error),
                };
                if inbound.send(message).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(listeners)
}

/// Accepts connections.
pub(crate) fn listen_tcp(sockets: Vec<OwnedFd>, inbound: &mpsc::Sender<Inbound>) -> io::Result<()> {
    for fd in sockets {
        let listener = std::net::TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let inbound = inbound.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        if inbound.send(Inbound::Accepted(stream, peer)).await.is_err() {
                            return;
                        }
                    }
                    // Out of descriptors, mostly: the connection waits in the kernel, a loop without a pause would burn the CPU.
                    Err(error) => {
                        tracing::error!(%error, "failed to accept a connection: {error}");
                        tokio::time::sleep(10 * AFTER_ERROR).await;
                    }
                }
            }
        });
    }
    Ok(())
}

/// Which of our addresses a peer reaches us at, when the listener is bound to all of them.
struct Routes {
    bound: SocketAddr,
    known: HashMap<IpAddr, IpAddr>,
}

impl Routes {
    fn local(&mut self, peer: SocketAddr) -> SocketAddr {
        if !self.bound.ip().is_unspecified() {
            return self.bound;
        }
        if self.known.len() >= ROUTES_MAX {
            self.known.clear();
        }
        let local = self.known.entry(peer.ip()).or_insert_with(|| {
            // Connecting a datagram socket sends nothing; it makes the kernel choose the route.
            StdUdpSocket::bind(SocketAddr::new(self.bound.ip(), 0))
                .and_then(|s| s.connect(peer).and_then(|()| s.local_addr()))
                .map_or(self.bound.ip(), |a| a.ip().to_canonical())
        });
        SocketAddr::new(*local, self.bound.port())
    }
}

/// A peer's address in the family of the socket: an IPv6 socket that takes IPv4 as well wants mapped addresses.
pub(crate) fn unmapped(socket: &UdpSocket, peer: SocketAddr) -> SocketAddr {
    match (socket.local_addr(), peer.ip()) {
        (Ok(SocketAddr::V6(_)), IpAddr::V4(v4)) => SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), peer.port()),
        _ => peer,
    }
}

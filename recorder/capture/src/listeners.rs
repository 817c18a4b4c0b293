//! The listeners: what comes in at the sockets that the daemon has bound becomes [`Inbound`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use callvault_control::Start;
use callvault_sip::{Flow, FlowId, Limits, TransportKind, parse_datagram};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use crate::admission::{NowAndThen, PerSource, Rate, Source};
use crate::clock::journal_ns;
use crate::connections::Inbound;

/// Pause after an error of a listening socket, which may last: a loop without one would burn the CPU.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Local addresses remembered per peer.
const ROUTES_MAX: usize = 4_096;

/// Datagrams from outside the allow-list that are still read in a second, all sources together: their INVITEs are answered 403, which
/// tells who sets up a client what is missing. The rest is dropped unread.
const OUTSIDERS_READ: Rate = Rate::per_second(10, 20);

/// Datagrams without a message that are answered, where they can be, in a second to one source.
const INVALID_ANSWERED: Rate = Rate::per_second(10, 20);

/// What the listeners count.
#[derive(Debug, Default)]
pub(crate) struct ListenerCounts {
    /// Datagrams from outside the allow-list that were dropped unread.
    pub(crate) not_allowed: AtomicU64,
    /// Datagrams without a message that went no further.
    pub(crate) unanswered: AtomicU64,
}

/// Reads the UDP sockets.
pub(crate) fn listen_udp(
    sockets: Vec<OwnedFd>,
    settings: &Arc<Start>,
    limits: Limits,
    counts: &Arc<ListenerCounts>,
    inbound: &mpsc::Sender<Inbound>,
) -> io::Result<Vec<Arc<UdpSocket>>> {
    let mut listeners = Vec::new();
    for (index, fd) in sockets.into_iter().enumerate() {
        let socket = StdUdpSocket::from(fd);
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        listeners.push(Arc::clone(&socket));
        let bound = settings.sip_listeners.get(index).copied().unwrap_or(socket.local_addr()?);
        let listener = Datagrams {
            id: FlowId(index as u64),
            routes: Routes { bound, known: HashMap::new() },
            settings: Arc::clone(settings),
            limits,
            counts: Arc::clone(counts),
            outsiders_full_at: 0,
            invalid: PerSource::new(INVALID_ANSWERED),
            not_allowed_line: NowAndThen::new(),
        };
        tokio::spawn(listener.read(socket, inbound.clone()));
    }
    Ok(listeners)
}

/// A UDP socket's side of the loop.
struct Datagrams {
    id: FlowId,
    routes: Routes,
    settings: Arc<Start>,
    limits: Limits,
    counts: Arc<ListenerCounts>,
    outsiders_full_at: u64,
    invalid: PerSource,
    not_allowed_line: NowAndThen,
}

impl Datagrams {
    async fn read(mut self, socket: Arc<UdpSocket>, inbound: mpsc::Sender<Inbound>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            // An ICMP error for an earlier answer comes out here; it says nothing about the next datagram.
            let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            };
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let Some(message) = self.take(journal_ns(), peer, &buffer[..length]) else { continue };
            if inbound.send(message).await.is_err() {
                return;
            }
        }
    }

    /// What a datagram is, if it goes any further.
    fn take(&mut self, now_ns: u64, peer: SocketAddr, bytes: &[u8]) -> Option<Inbound> {
        let is_allowed = self.settings.allowed_peers.iter().any(|network| network.contains(peer.ip()));
        if !is_allowed && !OUTSIDERS_READ.take(&mut self.outsiders_full_at, now_ns) {
            self.counts.not_allowed.fetch_add(1, Ordering::Relaxed);
            if let Some(before) = self.not_allowed_line.due(now_ns) {
                let peer = peer.ip();
                tracing::warn!(%peer, left_out = before, "datagrams of {peer} are dropped: it is not in sip.allowed_peers");
            }
            return None;
        }
        let parsed = parse_datagram(bytes, &self.limits).transpose()?;
        if parsed.is_err() && !self.invalid.take(Source::of(peer.ip()), now_ns) {
            self.counts.unanswered.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let flow = Flow { id: self.id, kind: TransportKind::Udp, local: self.routes.local(peer), peer };
        Some(match parsed {
            Ok(message) => Inbound::Message(flow, Box::new(message)),
            Err(error) => Inbound::Invalid(flow, bytes.to_vec(), error),
        })
    }
}

/// Accepts connections, which are of this kind.
pub(crate) fn listen_tcp(
    sockets: Vec<OwnedFd>,
    kind: TransportKind,
    inbound: &mpsc::Sender<Inbound>,
) -> io::Result<()> {
    for fd in sockets {
        let listener = std::net::TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let inbound = inbound.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        if inbound.send(Inbound::Accepted(stream, peer, kind)).await.is_err() {
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
            let any =
                if peer.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
            // Connecting a datagram socket sends nothing; it makes the kernel choose the route.
            StdUdpSocket::bind(SocketAddr::new(any, 0))
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use callvault_control::Network;
    use callvault_sip::{FlowId, Limits};

    use super::{Datagrams, INVALID_ANSWERED, Inbound, ListenerCounts, NowAndThen, PerSource, Routes};
    use crate::rig::settings;

    const GOOD: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP b;branch=z9hG4bK1\r\n\r\n";
    const SECOND_NS: u64 = 1_000_000_000;

    fn listener(bound: &str, allowed: &[(&str, u8)]) -> Datagrams {
        let mut settings = settings();
        let network = |(address, prefix): &(&str, u8)| Network { address: address.parse().unwrap(), prefix: *prefix };
        settings.allowed_peers = allowed.iter().map(network).collect();
        Datagrams {
            id: FlowId(0),
            routes: Routes { bound: bound.parse().unwrap(), known: HashMap::new() },
            settings: Arc::new(settings),
            limits: Limits::default(),
            counts: Arc::new(ListenerCounts::default()),
            outsiders_full_at: 0,
            invalid: PerSource::new(INVALID_ANSWERED),
            not_allowed_line: NowAndThen::new(),
        }
    }

    /// How many of 1,000 datagrams in a second go further.
    fn check(from: &str, bytes: &[u8], further: usize) {
        let mut listener = listener("127.0.0.1:5060", &[("192.0.2.0", 24), ("2001:db8::", 32)]);
        let peer: SocketAddr = from.parse().unwrap();
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let came = (0..1_000).filter(|n| listener.take(n * SECOND_NS / 1_000, peer, bytes).is_some()).count();
        assert_eq!(came, further, "{from} {}", String::from_utf8_lossy(bytes));
        let count =
            listener.counts.not_allowed.load(Ordering::Relaxed) + listener.counts.unanswered.load(Ordering::Relaxed);
        assert_eq!(count, if bytes == b"\r\n\r\n" { 0 } else { 1_000 - further as u64 });
    }

    #[test]
    fn who_may_say_how_much() {
        check("192.0.2.1:5060", GOOD, 1_000);
        check("[::ffff:192.0.2.1]:5060", GOOD, 1_000);
        check("[2001:db8::7]:5060", GOOD, 1_000);
        // The burst of 20, and 10 a second.
        check("192.0.2.1:5060", b"garbage", 29);
        check("198.51.100.1:5060", GOOD, 29);
        check("198.51.100.1:5060", b"garbage", 29);
        check("[2001:db9::7]:5060", GOOD, 29);
        // A keep-alive is nothing to answer.
        check("192.0.2.1:5060", b"\r\n\r\n", 0);
    }

    #[test]
    fn a_peer_learns_the_address_that_it_reaches() {
        fn check(bound: &str, peer: &str, local: &str) {
            let mut listener = listener(bound, &[("127.0.0.0", 8), ("::1", 128)]);
            let Some(Inbound::Message(flow, _)) = listener.take(0, peer.parse().unwrap(), GOOD) else {
                panic!("no message came in")
            };
            assert_eq!(flow.local.to_string(), local, "{bound} {peer}");
        }
        check("127.0.0.1:5060", "127.0.0.1:6", "127.0.0.1:5060");
        check("0.0.0.0:5060", "127.0.0.1:6", "127.0.0.1:5060");
        check("[::]:5060", "127.0.0.1:6", "127.0.0.1:5060");
        check("[::]:5060", "[::1]:6", "[::1]:5060");
    }
}

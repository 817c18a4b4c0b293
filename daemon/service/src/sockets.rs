//! The sockets of the appliance: SIP listeners and media ports. The daemon binds them and keeps them, so that they outlive
//! every recorder, and what arrives while one is being replaced waits in the kernel.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use callvault_control::SocketKind;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::{Ipv6V6Only, RcvBuf, ReceiveTimestampns, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, getsockopt, listen, setsockopt, socket,
};

use crate::fd_store::{Brought, Place};

/// Receive buffer asked for on a SIP/UDP socket: a burst of some hundred INVITEs with metadata.
const SIP_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Descriptors kept back for files, connections and pipes.
const DESCRIPTORS_RESERVED: u64 = 512;

/// How long listeners whose address is in use are waited for, all together: what had it may be about to end.
const FREE_WITHIN: Duration = Duration::from_secs(3);

/// Why sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketsError {
    #[error(
        "listen for SIP on {address} ({transport}): {error}; is another program using the port (see `ss -lnp`), and is the address one of this machine's?"
    )]
    Sip { address: SocketAddr, transport: &'static str, error: io::Error },
    #[error(
        "open a single pair of media ports in {first}-{last} on {address}: {error}; choose another range in media.ports"
    )]
    Media { address: IpAddr, first: u16, last: u16, error: io::Error },
}

/// What is to be bound.
pub(crate) struct Wanted<'a> {
    /// SIP over UDP.
    pub(crate) udp: &'a [SocketAddr],
    /// SIP over TCP.
    pub(crate) tcp: &'a [SocketAddr],
    /// SIP over TLS.
    pub(crate) tls: &'a [SocketAddr],
    /// Address of the media sockets.
    pub(crate) media_address: IpAddr,
    /// Their ports.
    pub(crate) media_ports: RangeInclusive<u16>,
    /// Most pairs of them that are opened: as many as sessions need.
    pub(crate) pairs_max: usize,
    /// Receive buffer that each is given where the kernel allows it: it bridges the time in which a recorder is replaced.
    pub(crate) buffer_bytes: usize,
}

impl Wanted<'_> {
    /// Whether a socket that is bound already is one of these.
    pub(crate) fn has(&self, place: Place, fd: &OwnedFd) -> bool {
        let is_media = !place.listens && place.ip == self.media_address && self.media_ports.contains(&place.port);
        let lists: &[&[SocketAddr]] = if place.listens { &[self.tcp, self.tls] } else { &[self.udp] };
        let is_sip = |list: &&[SocketAddr]| {
            let is_it = |at: &&SocketAddr| (at.ip(), at.port()) == (place.ip, place.port);
            // Which families it takes was settled when it was bound.
            list.iter().find(is_it).is_some_and(|at| {
                at.is_ipv4() || getsockopt(fd, Ipv6V6Only).is_ok_and(|is_apart| is_apart == stands_apart(*at, list))
            })
        };
        is_media || lists.iter().any(is_sip)
    }
}

/// Everything that is bound.
pub(crate) struct Sockets {
    /// SIP over UDP.
    pub(crate) udp: Vec<UdpSocket>,
    /// SIP over TCP.
    pub(crate) tcp: Vec<TcpListener>,
    /// SIP over TLS.
    pub(crate) tls: Vec<TcpListener>,
    /// Media sockets in pairs: RTP on the even port, RTCP on the next.
    pub(crate) media: Vec<(u16, UdpSocket)>,
    /// Pairs of the range that another program has.
    pub(crate) taken_pairs: usize,
    /// How many were bound now; the others were brought.
    pub(crate) opened: usize,
}

impl Sockets {
    /// Takes what an earlier daemon has brought, and binds what is missing. What was brought and is not wanted is to be let go of
    /// before: it may have addresses that are wanted.
    pub(crate) fn open(wanted: &Wanted<'_>, brought: &mut Brought) -> Result<Self, SocketsError> {
        let mut sockets =
            Self { udp: Vec::new(), tcp: Vec::new(), tls: Vec::new(), media: Vec::new(), taken_pairs: 0, opened: 0 };
        let until = Instant::now() + FREE_WITHIN;
        for &address in wanted.udp {
            let socket = match brought.sockets.remove(&Place::datagrams(address)) {
                Some(socket) => socket,
                None => {
                    sockets.opened += 1;
                    patiently(until, || bind(address, wanted.udp, SockType::Datagram))
                        .map_err(|error| SocketsError::Sip { address, transport: "udp", error })?
                }
            };
            let _ = setsockopt(&socket, RcvBuf, &SIP_BUFFER_BYTES);
            sockets.udp.push(socket.into());
        }
        sockets.tcp = sockets.listeners(wanted.tcp, "tcp", until, brought)?;
        sockets.tls = sockets.listeners(wanted.tls, "tls", until, brought)?;
        sockets.open_media(wanted, brought)?;
        Ok(sockets)
    }

    fn listeners(
        &mut self,
        addresses: &[SocketAddr],
        transport: &'static str,
        until: Instant,
        brought: &mut Brought,
    ) -> Result<Vec<TcpListener>, SocketsError> {
        let mut listeners = Vec::new();
        for &address in addresses {
            let listener = match brought.sockets.remove(&Place::connections(address)) {
                Some(listener) => listener,
                None => {
                    self.opened += 1;
                    let listening = || {
                        let socket = bind(address, addresses, SockType::Stream)?;
                        listen(&socket, Backlog::MAXCONN)?;
                        Ok(socket)
                    };
                    patiently(until, listening).map_err(|error| SocketsError::Sip { address, transport, error })?
                }
            };
            listeners.push(listener.into());
        }
        Ok(listeners)
    }

    /// Those that were brought are taken all, since calls use them; beside them as many are opened as are allowed.
    fn open_media(&mut self, wanted: &Wanted<'_>, brought: &mut Brought) -> Result<(), SocketsError> {
        let (address, first, last) = (wanted.media_address, *wanted.media_ports.start(), *wanted.media_ports.end());
        let pairs_max = wanted.pairs_max.min(descriptors_for_media());
        let place = |port| Place::datagrams(SocketAddr::new(address, port));
        let evens = || wanted.media_ports.clone().filter(|port| port % 2 == 0 && *port < last);
        let is_whole =
            |brought: &Brought, even| [even, even + 1].iter().all(|port| brought.sockets.contains_key(&place(*port)));
        let mut pairs = evens().filter(|even| is_whole(brought, *even)).count();
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for even in evens() {
            let is_brought = is_whole(brought, even);
            if !is_brought && pairs >= pairs_max {
                continue;
            }
            let mut socket = |port| match brought.sockets.remove(&place(port)) {
                Some(socket) => prepare(socket.into(), wanted.buffer_bytes),
                None => UdpSocket::bind((address, port)).and_then(|socket| prepare(socket, wanted.buffer_bytes)),
            };
            match (socket(even), socket(even + 1)) {
                (Ok(rtp), Ok(rtcp)) => {
                    self.media.extend([(even, rtp), (even + 1, rtcp)]);
                    if !is_brought {
                        pairs += 1;
                        self.opened += 2;
                    }
                }
                (Err(e), _) | (_, Err(e)) => {
                    self.taken_pairs += 1;
                    failure = e;
                }
            }
        }
        if self.media.is_empty() {
            return Err(SocketsError::Media { address, first, last, error: failure });
        }
        Ok(())
    }

    /// Every socket with its meaning, in the order in which a recorder gets them.
    pub(crate) fn listed(&self) -> Vec<(SocketKind, BorrowedFd<'_>)> {
        let udp = self.udp.iter().map(|s| (SocketKind::SipUdp, s.as_fd()));
        let tcp = self.tcp.iter().map(|s| (SocketKind::SipTcp, s.as_fd()));
        let tls = self.tls.iter().map(|s| (SocketKind::SipTls, s.as_fd()));
        let media = self.media.iter().map(|(port, s)| (SocketKind::Media { port: *port }, s.as_fd()));
        udp.chain(tcp).chain(tls).chain(media).collect()
    }

    /// Addresses of the SIP listeners as bound, in the order of [`Self::listed`].
    pub(crate) fn sip_addresses(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().map(UdpSocket::local_addr);
        let connections = self.tcp.iter().chain(&self.tls).map(TcpListener::local_addr);
        udp.chain(connections).filter_map(Result::ok).collect()
    }
}

/// Tries until it is not for somebody who has the address.
fn patiently(until: Instant, mut bind: impl FnMut() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(Duration::from_millis(100));
            }
            other => return other,
        }
    }
}

/// Whether this address of IPv6 does not mean those of IPv4 as well: one of the `others` has them.
fn stands_apart(address: SocketAddr, others: &[SocketAddr]) -> bool {
    others.iter().any(|other| other.is_ipv4() && other.port() == address.port())
}

/// Binds a socket. All addresses of IPv6 mean those of IPv4 as well, unless one of IPv4 with the same port is among the `others`:
/// then each has its own socket.
fn bind(address: SocketAddr, others: &[SocketAddr], kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &stands_apart(address, others))?;
    }
    if kind == SockType::Stream {
        // Connections of a daemon before this one that are not quite over must not keep it from starting.
        setsockopt(&socket, ReuseAddr, &true)?;
    }
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

/// Makes a media socket of one that is bound.
fn prepare(socket: UdpSocket, buffer_bytes: usize) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    // Less than asked for is not an error: `net.core.rmem_max` decides, and the packaged sysctl file raises it.
    let _ = setsockopt(&socket, RcvBuf, &buffer_bytes);
    Ok(socket)
}

/// How many pairs of media sockets the limit on open files leaves room for, after raising it as far as it goes. They are
/// counted twice: the recorder has them open too, and they count while in flight.
fn descriptors_for_media() -> usize {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 256 };
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    usize::try_from(hard.saturating_sub(DESCRIPTORS_RESERVED) / 2).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
    use std::ops::RangeInclusive;

    use super::{Sockets, SocketsError, Wanted};
    use crate::fd_store::Brought;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn wanted(listeners: &[SocketAddr], media_ports: RangeInclusive<u16>, pairs_max: usize) -> Wanted<'_> {
        let (udp, tcp) = (listeners, listeners);
        Wanted { udp, tcp, tls: &[], media_address: LOOPBACK, media_ports, pairs_max, buffer_bytes: 65_536 }
    }

    fn open(wanted: &Wanted<'_>) -> Result<Sockets, SocketsError> {
        Sockets::open(wanted, &mut Brought::default())
    }

    #[test]
    fn pairs_are_even_and_odd_and_what_is_taken_is_passed_over() {
        let other = UdpSocket::bind((LOOPBACK, 47_103)).unwrap();
        let sockets = open(&wanted(&[], 47_101..=47_108, 100)).unwrap();
        let ports: Vec<u16> = sockets.media.iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, [47_104, 47_105, 47_106, 47_107]);
        assert_eq!(sockets.taken_pairs, 1);
        drop(other);
    }

    #[test]
    fn a_range_without_a_free_pair_and_a_taken_listener_are_clear_errors() {
        let other = UdpSocket::bind((LOOPBACK, 47_111)).unwrap();
        let said = open(&wanted(&[], 47_110..=47_111, 10)).err().unwrap().to_string();
        assert!(said.contains("47110-47111") && said.contains("media.ports"), "{said}");
        let taken = other.local_addr().unwrap();
        let said = open(&wanted(&[taken], 47_112..=47_115, 10)).err().unwrap().to_string();
        assert!(said.contains("47111") && said.contains("another program"), "{said}");
    }

    #[test]
    fn all_addresses_of_both_families_can_be_two_sockets_or_one() {
        fn check(port: u16, listeners: &[&str], reached: &[&str]) {
            let at = |ip: &&str| SocketAddr::new(ip.parse().unwrap(), port);
            let addresses: Vec<SocketAddr> = listeners.iter().map(at).collect();
            let ports = port + 1..=port + 4;
            let sockets = open(&wanted(&addresses, ports, 1)).unwrap();
            assert_eq!((sockets.udp.len(), sockets.tcp.len()), (listeners.len(), listeners.len()));
            for to in reached.iter().map(at) {
                TcpStream::connect(to).unwrap();
                let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
                UdpSocket::bind(any).unwrap().send_to(b"x", to).unwrap();
                let came = || sockets.udp.iter().any(|socket| socket.recv(&mut [0; 1]).is_ok());
                assert!(
                    (0..1_000).any(|_| came() || {
                        std::thread::yield_now();
                        false
                    }),
                    "{to}"
                );
            }
        }
        check(47_120, &["0.0.0.0", "::"], &["127.0.0.1", "::1"]);
        check(47_130, &["::"], &["127.0.0.1", "::1"]);
        check(47_140, &["127.0.0.2", "127.0.0.3", "::1"], &["127.0.0.2", "127.0.0.3", "::1"]);
    }
}

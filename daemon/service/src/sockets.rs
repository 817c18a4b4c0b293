//! The sockets of the appliance: SIP listeners and media ports. The daemon binds them and keeps them, so that they outlive
//! every recorder, and what arrives while one is being replaced waits in the kernel.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use callvault_control::SocketKind;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::{Ipv6V6Only, RcvBuf, ReceiveTimestampns, ReuseAddr};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, listen, setsockopt, socket};

/// Receive buffer asked for on a SIP/UDP socket: a burst of some hundred INVITEs with metadata.
const SIP_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Descriptors kept back for files, connections and pipes.
const DESCRIPTORS_RESERVED: u64 = 512;

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

impl SocketsError {
    /// Whether somebody else has the address, who may be about to let go of it.
    pub(crate) fn is_taken(&self) -> bool {
        let (Self::Sip { error, .. } | Self::Media { error, .. }) = self;
        error.kind() == io::ErrorKind::AddrInUse
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
}

impl Sockets {
    /// Binds everything. Media sockets are given a receive buffer of `buffer_bytes` where the kernel allows it: it bridges the time
    /// in which a recorder is replaced. Of the media range at most `pairs_max` pairs are opened: as many as sessions need.
    pub(crate) fn open(
        udp: &[SocketAddr],
        tcp: &[SocketAddr],
        tls: &[SocketAddr],
        media_address: IpAddr,
        media_ports: RangeInclusive<u16>,
        pairs_max: usize,
        buffer_bytes: usize,
    ) -> Result<Self, SocketsError> {
        let pairs_max = pairs_max.min(descriptors_for_media());
        let mut sockets = Self { udp: Vec::new(), tcp: Vec::new(), tls: Vec::new(), media: Vec::new(), taken_pairs: 0 };
        for &address in udp {
            let socket = bind(address, udp, SockType::Datagram)
                .map(UdpSocket::from)
                .map_err(|error| SocketsError::Sip { address, transport: "udp", error })?;
            let _ = setsockopt(&socket, RcvBuf, &SIP_BUFFER_BYTES);
            sockets.udp.push(socket);
        }
        sockets.tcp = listeners(tcp, "tcp")?;
        sockets.tls = listeners(tls, "tls")?;
        sockets.open_media(media_address, media_ports, pairs_max, buffer_bytes)?;
        Ok(sockets)
    }

    fn open_media(
        &mut self,
        address: IpAddr,
        ports: RangeInclusive<u16>,
        pairs_max: usize,
        buffer_bytes: usize,
    ) -> Result<(), SocketsError> {
        let (first, last) = (*ports.start(), *ports.end());
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for even in ports.filter(|p| p % 2 == 0 && *p < last) {
            if self.media.len() / 2 >= pairs_max {
                break;
            }
            match (media_socket(address, even, buffer_bytes), media_socket(address, even + 1, buffer_bytes)) {
                (Ok(rtp), Ok(rtcp)) => self.media.extend([(even, rtp), (even + 1, rtcp)]),
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

fn listeners(addresses: &[SocketAddr], transport: &'static str) -> Result<Vec<TcpListener>, SocketsError> {
    let open = |address: SocketAddr| {
        let listener = bind(address, addresses, SockType::Stream)
            .and_then(|socket| listen(&socket, Backlog::MAXCONN).map(|()| socket).map_err(io::Error::from))
            .map(TcpListener::from);
        listener.map_err(|error| SocketsError::Sip { address, transport, error })
    };
    addresses.iter().copied().map(open).collect()
}

/// Binds a socket. All addresses of IPv6 mean those of IPv4 as well, unless one of IPv4 with the same port is among the `others`:
/// then each has its own socket.
fn bind(address: SocketAddr, others: &[SocketAddr], kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        let is_apart = others.iter().any(|other| other.is_ipv4() && other.port() == address.port());
        setsockopt(&socket, Ipv6V6Only, &is_apart)?;
    }
    if kind == SockType::Stream {
        // Connections of a daemon before this one that are not quite over must not keep it from starting.
        setsockopt(&socket, ReuseAddr, &true)?;
    }
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

fn media_socket(address: IpAddr, port: u16, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, port))?;
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

    use super::Sockets;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn pairs_are_even_and_odd_and_what_is_taken_is_passed_over() {
        let other = UdpSocket::bind((LOOPBACK, 47_103)).unwrap();
        let sockets = Sockets::open(&[], &[], &[], LOOPBACK, 47_101..=47_108, 100, 65_536).unwrap();
        let ports: Vec<u16> = sockets.media.iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, [47_104, 47_105, 47_106, 47_107]);
        assert_eq!(sockets.taken_pairs, 1);
        drop(other);
    }

    #[test]
    fn a_range_without_a_free_pair_and_a_taken_listener_are_clear_errors() {
        let other = UdpSocket::bind((LOOPBACK, 47_111)).unwrap();
        let said = Sockets::open(&[], &[], &[], LOOPBACK, 47_110..=47_111, 10, 65_536).err().unwrap().to_string();
        assert!(said.contains("47110-47111") && said.contains("media.ports"), "{said}");
        let taken = other.local_addr().unwrap();
        let said = Sockets::open(&[taken], &[], &[], LOOPBACK, 47_112..=47_115, 10, 65_536).err().unwrap().to_string();
        assert!(said.contains("47111") && said.contains("another program"), "{said}");
    }

    #[test]
    fn all_addresses_of_both_families_can_be_two_sockets_or_one() {
        fn check(port: u16, listeners: &[&str], reached: &[&str]) {
            let at = |ip: &&str| SocketAddr::new(ip.parse().unwrap(), port);
            let addresses: Vec<SocketAddr> = listeners.iter().map(at).collect();
            let ports = port + 1..=port + 4;
            let sockets = Sockets::open(&addresses, &addresses, &[], LOOPBACK, ports, 1, 65_536).unwrap();
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

//! Many calls' audio from one thread, and what enemies send beside it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use super::random::Chance;
use super::rtp::{PACKET, Source};

/// The tracks are spread over the time of a packet in so many groups, as calls are that began when they liked.
const GROUPS: usize = 4;

/// A thread that goes on until it is told to stop, or its work is done.
pub struct Work {
    over: Arc<AtomicBool>,
    /// What it did, in its own unit.
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Work {
    fn begin(work: impl FnOnce(&AtomicBool, &AtomicU64) + Send + 'static) -> Self {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count) = (Arc::clone(&over), Arc::clone(&done));
        Self { over, done, thread: Some(thread::spawn(move || work(&stop, &count))) }
    }

    /// Waits until the work is done; what was done.
    pub fn wait(mut self) -> u64 {
        self.thread.take().unwrap().join().expect("the work goes well");
        self.done.load(Ordering::Relaxed)
    }

    /// Ends it; what was done.
    pub fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.wait()
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends the same payloads to every address, to each from a source of its own, one every 20 ms until they are all sent.
pub fn traffic(to: Vec<SocketAddr>, payloads: Vec<Vec<u8>>) -> Work {
    Work::begin(move |over, done| {
        let socket = UdpSocket::bind((to[0].ip(), 0)).unwrap();
        let mut tracks: Vec<(SocketAddr, Source)> =
            to.into_iter().zip((0x6000_0000..).map(|ssrc| Source::new(ssrc, 0, 160))).collect();
        let group = tracks.len().div_ceil(GROUPS);
        let mut due = Instant::now();
        for payload in &payloads {
            for tracks in tracks.chunks_mut(group) {
                for (to, source) in tracks {
                    let _ = socket.send_to(&source.packet(payload), *to);
                }
                due += PACKET / GROUPS as u32;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            done.fetch_add(1, Ordering::Relaxed);
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    })
}

/// Garbage at this rate (packets a second), each packet from one of these addresses to one of those: to SIP every third, the rest
/// to media ports and the RTCP ports beside them.
pub fn garbage(from: &[Ipv4Addr], sip: SocketAddr, media: Vec<SocketAddr>, rate: u32) -> Work {
    /// Time between two bursts.
    const BURST: Duration = Duration::from_millis(5);
    let sockets: Vec<UdpSocket> = from.iter().map(|ip| UdpSocket::bind((*ip, 0)).unwrap()).collect();
    let burst = rate / (1_000 / BURST.as_millis() as u32);
    Work::begin(move |over, done| {
        let mut chance = Chance(7);
        let mut due = Instant::now();
        while !over.load(Ordering::Relaxed) {
            for n in 0..burst {
                let socket = &sockets[chance.below(sockets.len() as u64) as usize];
                let (to, bytes) = if n % 3 == 0 {
                    (sip, not_sip(&mut chance, socket.local_addr().unwrap(), sip))
                } else {
                    let mut to = media[chance.below(media.len() as u64) as usize];
                    to.set_port(to.port() + u16::from(chance.percent(20)));
                    (to, not_media(&mut chance))
                };
                // An answer of ICMP comes out here; the next packet goes all the same.
                let _ = socket.send_to(&bytes, to);
                done.fetch_add(1, Ordering::Relaxed);
            }
            due += BURST;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    })
}

fn noise(chance: &mut Chance, length: u64) -> Vec<u8> {
    (0..length).map(|_| chance.next() as u8).collect()
}

/// What no SIPREC client sends.
fn not_sip(chance: &mut Chance, from: SocketAddr, sip: SocketAddr) -> Vec<u8> {
    let id = chance.next();
    let request = |method: &str, tag: &str| {
        format!(
            "{method} sip:{sip} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{id:x}\r\nFrom: <sip:x@{from}>;tag={id:x}\r\n\
             To: <sip:{sip}>{tag}\r\nCall-ID: {id:x}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    };
    match chance.below(9) {
        0 => noise(chance, 1 + id % 1_200),
        1 => vec![0; 600],
        2 => request("OPTIONS", ""),
        3 => request("BYE", ";tag=none"),
        4 => request("REGISTER", ""),
        5 => request("INVITE", "")[..60 + (id % 60) as usize].to_vec(),
        6 => b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1\r\nCSeq: 1 BYE\r\nCall-ID: x\r\n\r\n".to_vec(),
        7 => b"\r\n\r\n".to_vec(),
        _ => [request("NOTIFY", ";tag=none"), noise(chance, 300)].concat(),
    }
}

/// What does not belong to the stream of a media port.
fn not_media(chance: &mut Chance) -> Vec<u8> {
    let (ssrc, id) = (chance.next() as u32, chance.next());
    match chance.below(9) {
        0 => noise(chance, 1 + id % 400),
        1 => Vec::new(),
        // RTP that could be a stream: of another source each time, and of one that goes on.
        2 | 3 => Source::new(ssrc, 0, 160).beginning_at(id as u16, id as u32).packet(&noise(chance, 160)),
        4 => Source::new(0x0bad_0bad, 0, 160).beginning_at(id as u16, id as u32).packet(&noise(chance, 160)),
        // RTCP: a goodbye of who was never here.
        5 => [&[0x81, 203, 0, 1][..], &ssrc.to_be_bytes()].concat(),
        6 => [&[0x80, 200, 0, 6][..], &ssrc.to_be_bytes(), &noise(chance, 20)].concat(),
        // STUN (RFC 8489): a binding request.
        7 => [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &noise(chance, 12)].concat(),
        _ => [&[0x80, 0][..], &noise(chance, 2_600)].concat(),
    }
}

/// Keeps so many connections open to an address, each from one of these, each in the middle of a message that it does not go on
/// with; one that is closed is made anew.
pub fn half_open(from: Vec<Ipv4Addr>, sip: SocketAddr, count: usize) -> Work {
    Work::begin(move |over, done| {
        let mut open: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
        while !over.load(Ordering::Relaxed) {
            for (n, stream) in open.iter_mut().enumerate() {
                if stream.as_mut().is_none_or(is_closed) {
                    *stream = stalled(from[n % from.len()], sip, n);
                    done.fetch_add(u64::from(stream.is_some()), Ordering::Relaxed);
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    })
}

fn stalled(from: Ipv4Addr, to: SocketAddr, n: usize) -> Option<TcpStream> {
    let mut stream = connect_from(from, to)?;
    let half = match n % 4 {
        0 => "",
        1 => "INV",
        2 => "INVITE sip:srs SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKhalf\r\n",
        _ => "OPTIONS sip:srs SIP/2.0\r\nContent-Length: 90000\r\n\r\nand then nothing",
    };
    stream.write_all(half.as_bytes()).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1_024]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// A connection from an address of the loopback network.
pub fn connect_from(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let IpAddr::V4(ip) = to.ip() else { panic!("{to} is not of the loopback network") };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let [a, b, c, d] = from.octets();
    bind(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
    let [a, b, c, d] = ip.octets();
    connect(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, to.port())).ok()?;
    Some(TcpStream::from(socket))
}

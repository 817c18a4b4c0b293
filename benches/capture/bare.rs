//! The least that can be done with audio: a process that takes every datagram and drops it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use std::{env, mem, ptr};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Says to this program that it is to be the bare process: where, and with how many sockets.
const ASKED: &str = "CALLVAULT_CAPTURE_BARE";
/// Between two sweeps: the time of a packet.
const SWEEP: Duration = Duration::from_millis(20);
/// Datagrams of one system call, as in the recorder.
const BATCH: usize = 16;

/// The bare process, from outside.
pub(crate) struct Bare {
    child: Child,
    ports: Vec<SocketAddr>,
}

impl Bare {
    pub(crate) fn start(ip: IpAddr, sockets: usize) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .env(ASKED, format!("{ip} {sockets}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ports = line.split_whitespace().map(|port| SocketAddr::new(ip, port.parse().unwrap())).collect();
        Self { child, ports }
    }

    pub(crate) fn ports(&self) -> &[SocketAddr] {
        &self.ports
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends it; how many datagrams it dropped.
    pub(crate) fn end(&mut self) -> u64 {
        drop(self.child.stdin.take());
        let mut dropped = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut dropped).unwrap();
        assert!(self.child.wait().unwrap().success());
        dropped.trim().parse().unwrap()
    }
}

/// Whether this program is to be the bare process.
pub(crate) fn is_asked_for() -> bool {
    env::var_os(ASKED).is_some()
}

/// Is the bare process.
pub(crate) fn run() {
    let asked = env::var(ASKED).unwrap();
    let (ip, sockets) = asked.split_once(' ').unwrap();
    let (ip, count): (IpAddr, usize) = (ip.parse().unwrap(), sockets.parse().unwrap());
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let sockets: Vec<UdpSocket> = (0..count).map(|_| UdpSocket::bind((ip, 0)).unwrap()).collect();
    let ports: Vec<String> = sockets.iter().map(|socket| socket.local_addr().unwrap().port().to_string()).collect();
    println!("{}", ports.join(" "));
    std::io::stdout().flush().unwrap();

    let over = AtomicBool::new(false);
    let dropped = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&sockets, &over));
        std::io::stdin().read_to_string(&mut String::new()).unwrap();
        over.store(true, Ordering::Relaxed);
        sweeping.join().unwrap()
    });
    println!("{dropped}");
}

/// Takes and drops what comes; how many there were.
#[allow(unsafe_code)]
fn sweep(sockets: &[UdpSocket], over: &AtomicBool) -> u64 {
    let mut buffers = vec![[0_u8; 2_048]; BATCH];
    let slice = |buffer: &mut [u8; 2_048]| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut slices: Vec<libc::iovec> = buffers.iter_mut().map(slice).collect();
    let header = |slice: &mut libc::iovec| {
        // SAFETY: mmsghdr is plain data for which all zeroes is a valid value (no buffers).
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_iov = slice;
        header.msg_hdr.msg_iovlen = 1;
        header
    };
    let mut headers: Vec<libc::mmsghdr> = slices.iter_mut().map(header).collect();
    let mut dropped = 0;
    while !over.load(Ordering::Relaxed) {
        for socket in sockets {
            let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
            // SAFETY: the headers point to `slices`, these to `buffers`, all of which outlive the call and are of the lengths that the
            // headers say; there are BATCH of each.
            let got = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), BATCH as u32, flags, ptr::null_mut()) };
            dropped += u64::try_from(got).unwrap_or(0);
        }
        thread::sleep(SWEEP);
    }
    dropped
}

//! The audio of many calls from few threads, with packets lost, late and jittered on purpose.
//!
//! A thread has a wheel of [`SLOTS`] slots of a millisecond, which turns once in the time of a packet. Each track has its slot, as calls
//! have that began when they liked, and all that a slot has goes out with one system call.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{mem, ptr};

use nix::libc;

use super::floor::quantile;
use super::rig::random::Chance;
use super::rig::rtp::{PACKET, Source};
use super::secure::Secure;
use super::voice::Coding;

/// Slots in the time of a packet.
const SLOTS: usize = 20;
/// Most datagrams of one system call: UIO_MAXIOV of the kernel.
const BATCH: usize = 1_024;
/// What may wait to be sent, so that sending does not have to wait.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// What goes wrong on purpose.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trouble {
    /// Percent of the packets that are never sent.
    pub(crate) lost: u64,
    /// Percent of the packets that are sent after their successor.
    pub(crate) late: u64,
    /// Each packet is sent up to so much later; below the time of a packet, so that order stays.
    pub(crate) jitter_ms: usize,
}

/// What was sent on one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    /// Kept back for good, between the first and the last that were sent.
    pub(crate) lost: u64,
    pub(crate) late: u64,
}

struct Track {
    id: usize,
    to: SocketAddrV4,
    source: Source,
    secure: Option<Secure>,
    /// The place in what is said.
    at: usize,
    sent: Sent,
    held: Option<Vec<u8>>,
    /// Kept back since the last packet that was sent: they count when another follows.
    missing: u64,
}

impl Track {
    fn step(
        &mut self,
        payloads: &[Vec<u8>],
        trouble: Trouble,
        chance: &mut Chance,
        send: &mut impl FnMut(Vec<u8>, SocketAddrV4),
    ) {
        let mut packet = self.source.packet(&payloads[self.at % payloads.len()]);
        self.at += 1;
        if let Some(secure) = &mut self.secure {
            secure.protect(&mut packet);
        }
        // The first must come, or nobody could know that there was one.
        if self.sent.packets > 0 && self.held.is_none() {
            if chance.percent(trouble.lost) {
                self.missing += 1;
                return;
            }
            if chance.percent(trouble.late) {
                self.held = Some(packet);
                return;
            }
        }
        send(packet, self.to);
        self.sent.packets += 1;
        self.sent.lost += mem::take(&mut self.missing);
        if let Some(held) = self.held.take() {
            send(held, self.to);
            self.sent.packets += 1;
            self.sent.late += 1;
        }
    }
}

/// What the sender did.
#[derive(Default)]
pub(crate) struct Done {
    /// By the track's number.
    pub(crate) tracks: Vec<Sent>,
    /// How far behind its time it was, in microseconds: 50th and 99th percentile and the worst. It is what the machine, not the
    /// recorder, did to the audio.
    pub(crate) behind_us: [f64; 3],
}

enum Order {
    Begin { id: usize, to: SocketAddr, key: Option<[u8; 30]> },
    End { id: usize },
}

/// Threads that send on every track they are given, one packet each 20 ms.
pub(crate) struct Speech {
    threads: Vec<(Sender<Order>, JoinHandle<Thread>)>,
}

/// What one thread leaves.
struct Thread {
    tracks: Vec<(usize, Sent)>,
    behind_us: Vec<f64>,
}

impl Speech {
    pub(crate) fn begin(threads: usize, from: IpAddr, coding: Coding, talk: usize, trouble: Trouble) -> Self {
        let payloads = Arc::new(coding.payloads(talk));
        let begin = |seed: usize| {
            let (orders, given) = channel();
            let payloads = payloads.clone();
            let run = move || Wheel::new(from, coding, &payloads, trouble, seed).run(&given);
            (orders, thread::spawn(run))
        };
        Self { threads: (0..threads.max(1)).map(begin).collect() }
    }

    fn order(&self, id: usize, order: Order) {
        let (orders, _) = &self.threads[id % self.threads.len()];
        orders.send(order).expect("the thread goes on until it is told to end");
    }

    /// Sends on a track from now on; with a key and salt, secured. Numbers begin at 0 and leave nothing out.
    pub(crate) fn add(&self, id: usize, to: SocketAddr, key: Option<[u8; 30]>) {
        self.order(id, Order::Begin { id, to, key });
    }

    /// Sends no more on a track.
    pub(crate) fn stop(&self, id: usize) {
        self.order(id, Order::End { id });
    }

    /// Ends it; what it sent.
    pub(crate) fn end(self) -> Done {
        let (mut tracks, mut behind_us) = (Vec::new(), Vec::new());
        for (orders, thread) in self.threads {
            drop(orders);
            let done = thread.join().expect("sending goes well");
            tracks.extend(done.tracks);
            behind_us.extend(done.behind_us);
        }
        tracks.sort_by_key(|(id, _)| *id);
        assert!(tracks.iter().zip(0..).all(|((id, _), n)| *id == n), "every track has been sent on");
        let tracks = tracks.into_iter().map(|(_, sent)| sent).collect();
        Done { tracks, behind_us: [0.5, 0.99, 1.0].map(|at| quantile(&mut behind_us, at)) }
    }
}

struct Wheel<'a> {
    socket: UdpSocket,
    coding: Coding,
    payloads: &'a [Vec<u8>],
    trouble: Trouble,
    chance: Chance,
    tracks: [Vec<Track>; SLOTS],
    /// What is to be sent in each slot.
    due: [Vec<(Vec<u8>, SocketAddrV4)>; SLOTS],
    done: Thread,
}

impl<'a> Wheel<'a> {
    fn new(from: IpAddr, coding: Coding, payloads: &'a [Vec<u8>], trouble: Trouble, seed: usize) -> Self {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::SndBuf, &SEND_BUFFER_BYTES).unwrap();
        Self {
            socket,
            coding,
            payloads,
            trouble,
            chance: Chance(3 + seed as u64),
            tracks: Default::default(),
            due: Default::default(),
            done: Thread { tracks: Vec::new(), behind_us: Vec::new() },
        }
    }

    /// Turns until there is nobody left who could order anything, and all that is due has been sent.
    fn run(mut self, given: &Receiver<Order>) -> Thread {
        // A sleep ends within microseconds of its time where the kernel is asked for that.
        let _ = nix::sys::prctl::set_timerslack(1_000);
        let (mut next, mut left) = (Instant::now(), None);
        for slot in (0..SLOTS).cycle() {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            self.done.behind_us.push(next.elapsed().as_secs_f64() * 1e6);
            next += PACKET / SLOTS as u32;
            if left.is_none() && !self.take_orders(given) {
                let all = self.tracks.iter_mut().flat_map(mem::take);
                self.done.tracks.extend(all.map(|track| (track.id, track.sent)));
                left = Some(SLOTS);
            }
            self.speak(slot);
            self.send(slot);
            left = left.map(|left| left - 1);
            if left == Some(0) {
                break;
            }
        }
        self.done
    }

    /// False when there will be no more.
    fn take_orders(&mut self, given: &Receiver<Order>) -> bool {
        loop {
            match given.try_recv() {
                Ok(Order::Begin { id, to, key }) => {
                    let SocketAddr::V4(to) = to else { panic!("{to} is not of the loopback network") };
                    let ssrc = 0x6000_0000 + id as u32;
                    let source = Source::new(ssrc, self.coding.payload_type(), self.coding.step());
                    // The two of a call speak in turns.
                    let at = if id.is_multiple_of(2) { 0 } else { self.payloads.len() / 2 };
                    let secure = key.as_ref().map(Secure::new);
                    let (sent, held, missing) = (Sent::default(), None, 0);
                    self.tracks[id % SLOTS].push(Track { id, to, source, secure, at, sent, held, missing });
                }
                Ok(Order::End { id }) => {
                    let tracks = &mut self.tracks[id % SLOTS];
                    let place = tracks.iter().position(|track| track.id == id).expect("it was begun");
                    let track = tracks.swap_remove(place);
                    self.done.tracks.push((id, track.sent));
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn speak(&mut self, slot: usize) {
        let Self { tracks, due, chance, payloads, trouble, .. } = self;
        let mut late = Chance(chance.next());
        for track in &mut tracks[slot] {
            let by = late.below(trouble.jitter_ms as u64 + 1) as usize;
            let due = &mut due[(slot + by) % SLOTS];
            track.step(payloads, *trouble, chance, &mut |packet, to| due.push((packet, to)));
        }
    }

    fn send(&mut self, slot: usize) {
        let due = mem::take(&mut self.due[slot]);
        due.chunks(BATCH).for_each(|batch| send_all(&self.socket, batch));
    }
}

/// Sends datagrams with as few system calls as the kernel allows. What cannot be sent would show as loss: nothing may go wrong here.
#[allow(unsafe_code)]
fn send_all(socket: &UdpSocket, batch: &[(Vec<u8>, SocketAddrV4)]) {
    let mut names: Vec<libc::sockaddr_in> = batch
        .iter()
        .map(|(_, to)| libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
            sin_zero: [0; 8],
        })
        .collect();
    let mut slices: Vec<libc::iovec> = batch
        .iter()
        .map(|(packet, _)| libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() })
        .collect();
    let header = |(name, slice): (&mut libc::sockaddr_in, &mut libc::iovec)| libc::mmsghdr {
        msg_hdr: libc::msghdr {
            msg_name: ptr::from_mut(name).cast(),
            msg_namelen: size_of::<libc::sockaddr_in>() as libc::socklen_t,
            msg_iov: slice,
            msg_iovlen: 1,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        },
        msg_len: 0,
    };
    let mut headers: Vec<libc::mmsghdr> = names.iter_mut().zip(&mut slices).map(header).collect();
    let mut sent = 0;
    while sent < headers.len() {
        let rest = &mut headers[sent..];
        // SAFETY: the headers point to `names` and `slices`, and these to the packets, all of which outlive the call and are of the
        // lengths that they say; the kernel reads packets and names only, and writes no more headers than it is told there are.
        let got = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
        sent += usize::try_from(got)
            .ok()
            .filter(|got| *got > 0)
            .unwrap_or_else(|| panic!("datagrams cannot be sent: {}", std::io::Error::last_os_error()));
    }
}

/// How long what was sent last may still be on its way: a turn of the wheel, and a sweep of the recorder.
pub(crate) const SETTLED: Duration = Duration::from_millis(250);

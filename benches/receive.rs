//! The way of a packet through the recorder: from the socket to the sealed frame that waits to be written.

#![allow(clippy::unwrap_used)]

mod floor;
mod traffic;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use callvault_capture::bench::HandSweep;
use callvault_journal::{AudioBatch, Lane, Limits, Packet, Pushed, Writer};
use callvault_media::{Kept, PayloadType, Received, Track, TrackConfig};
use callvault_seal::{Cipher, DataKey};
use floor::{Bench, Row, Turn};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};
use rtp_rs::RtpReader;
use traffic::{DATAGRAM_BYTES, PACKETS_PER_BATCH, RawCipher, TRACKS, datagram};
use uuid::Uuid;

/// Sockets that are swept: 250 calls with two tracks.
const SOCKETS: usize = 500;
/// Arrival of the first packet, journal time in nanoseconds.
const FIRST_NS: u64 = 1_000_000_000;
/// Time between two packets of a track.
const PACKET_NS: u64 = 20_000_000;
/// Plaintext of a batch of audio in the journal: base time, and 17 bytes before each payload.
const BATCH_BYTES: usize = 8 + TRACKS * PACKETS_PER_BATCH * (17 + traffic::PAYLOAD_BYTES);

fn main() {
    let bench = Bench::begin("receive: what a packet costs the recorder");
    reception(&bench);
    without_the_kernel(&bench);
    let sockets = bench.pick(SOCKETS, 50);
    with_the_kernel(&bench, sockets, 1, &format!("sweep of {sockets} sockets, a packet at each"));
    with_the_kernel(&bench, sockets, 5, &format!("sweep of {sockets} sockets, five at each"));
}

/// A journal that is never written, with a lane for each session.
struct Journal {
    writer: Writer,
    lanes: Vec<(Lane, Cipher)>,
}

impl Journal {
    fn new(sessions: usize) -> Self {
        let mut writer = Writer::new(Uuid::from_u128(1), 0, 0, Limits::default());
        let lane = |n: usize| {
            let key = DataKey::from_bytes([n as u8; 32]);
            (writer.open_lane(Uuid::from_u128(n as u128), 0).unwrap(), key.cipher())
        };
        let lanes = (0..sessions).map(lane).collect();
        Self { writer, lanes }
    }

    fn append(&mut self, session: usize, batch: &mut AudioBatch) {
        let (lane, cipher) = &self.lanes[session];
        self.writer.write_audio(*lane, cipher, batch).unwrap();
    }

    fn forget(&mut self) {
        let taken = self.writer.take();
        std::hint::black_box(&taken.bytes);
        self.writer.recycle(taken.bytes);
    }
}

/// Tracks with the packets of the next 200 ms for each, in order of arrival.
struct Arrivals {
    tracks: Vec<Track>,
    batches: Vec<AudioBatch>,
    journal: Journal,
    from: SocketAddr,
    next: u32,
    datagrams: Vec<[u8; DATAGRAM_BYTES]>,
    cipher: RawCipher,
    plain: Vec<u8>,
}

impl Arrivals {
    fn new() -> Self {
        let track = |_| {
            let mut track = Track::new(TrackConfig::default());
            track.describe(&[PayloadType::assigned(0).unwrap()]);
            track
        };
        let sessions = SOCKETS / TRACKS;
        Self {
            tracks: (0..SOCKETS).map(track).collect(),
            batches: (0..sessions).map(|_| AudioBatch::new()).collect(),
            journal: Journal::new(sessions),
            from: "127.0.0.1:4000".parse().unwrap(),
            next: 0,
            datagrams: Vec::new(),
            cipher: RawCipher::new(),
            plain: vec![0; sessions * BATCH_BYTES],
        }
    }

    /// Makes the datagrams that come next: one of each track, then the next of each.
    fn prepare(&mut self) {
        let numbers = self.next..self.next + PACKETS_PER_BATCH as u32;
        let of_all = |n| (0..SOCKETS as u32).map(move |ssrc| datagram(n, ssrc));
        self.next = numbers.end;
        self.datagrams.clear();
        self.datagrams.extend(numbers.flat_map(of_all));
    }

    /// Gives them to their tracks, and what is kept to `each`.
    fn receive(&mut self, mut each: impl FnMut(&mut AudioBatch, u8, u64, Kept, &[u8])) {
        for (n, datagram) in self.datagrams.iter().enumerate() {
            let (track, turn) = (n % SOCKETS, n / SOCKETS);
            let turn = u64::from(self.next) - PACKETS_PER_BATCH as u64 + turn as u64;
            let arrival_ns = FIRST_NS + turn * PACKET_NS;
            match self.tracks[track].receive(arrival_ns, self.from, datagram) {
                Received::Kept(kept) => {
                    each(&mut self.batches[track / TRACKS], (track % TRACKS) as u8, arrival_ns, kept, datagram)
                }
                other => panic!("a packet in its place was {other:?}"),
            }
        }
    }
}

fn reception(bench: &Bench) {
    let subject = |arrivals: &mut Arrivals| {
        arrivals.prepare();
        Turn::timed(arrivals.datagrams.len(), || {
            arrivals.receive(|_, _, _, kept, _| {
                std::hint::black_box(kept);
            });
        })
    };
    let floor = |arrivals: &mut Arrivals| {
        Turn::timed(arrivals.datagrams.len(), || {
            for datagram in &arrivals.datagrams {
                let packet = RtpReader::new(datagram).unwrap();
                let fields =
                    (packet.ssrc(), packet.timestamp(), u16::from(packet.sequence_number()), packet.payload_type());
                std::hint::black_box((fields, packet.mark(), packet.payload()));
            }
        })
    };
    let row = Row { what: "reception: order, source, loss", unit: "packet", floor: "parsing its header" };
    bench.compare(&row, &mut Arrivals::new(), subject, floor);
}

fn without_the_kernel(bench: &Bench) {
    let subject = |arrivals: &mut Arrivals| {
        arrivals.prepare();
        Turn::timed(arrivals.datagrams.len(), || {
            arrivals.receive(|batch, track, arrival_ns, kept, datagram| {
                let packet = Packet {
                    track,
                    source: kept.source,
                    payload_type: kept.payload_type,
                    marker: kept.marker,
                    seq: kept.seq,
                    timestamp: kept.timestamp,
                    arrival_ns,
                    payload: &datagram[kept.payload],
                };
                assert_eq!(batch.push(&packet), Pushed::Taken);
            });
            for (session, batch) in arrivals.batches.iter_mut().enumerate() {
                arrivals.journal.append(session, batch);
            }
            arrivals.journal.forget();
        })
    };
    let floor = |arrivals: &mut Arrivals| {
        Turn::timed(SOCKETS * PACKETS_PER_BATCH, || {
            arrivals.plain.chunks_exact_mut(BATCH_BYTES).for_each(|batch| arrivals.cipher.seal(batch));
        })
    };
    let what = "reception, batch, seal, frame: all but the kernel";
    let row = Row { what, unit: "packet", floor: "AES-256-GCM of the same bytes" };
    bench.compare(&row, &mut Arrivals::new(), subject, floor);
}

/// The floor that has nothing from the kernel but the bytes.
const BARE: usize = 0;
/// The floor that has the sender and the time of each packet too, which no recorder can do without.
const ASKING: usize = 1;

/// Sockets with the sweep that records what comes there, and the one that drops it.
struct Sockets {
    sweep: HandSweep,
    /// Those that drop the packets, [`BARE`] and [`ASKING`].
    floors: [BareSweep; 2],
    journal: Journal,
    sender: UdpSocket,
    to: Vec<SocketAddr>,
    next: u32,
}

impl Sockets {
    fn open(count: usize) -> Self {
        allow_open_files();
        let bind = |_| UdpSocket::bind("127.0.0.1:0").unwrap();
        let rtp: Vec<UdpSocket> = (0..count).map(bind).collect();
        rtp.iter().for_each(|socket| setsockopt(socket, ReceiveTimestampns, &true).unwrap());
        let to = rtp.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let floors = [false, true].map(|asking| BareSweep::new(&rtp, asking));
        let pairs: Vec<(OwnedFd, OwnedFd)> = rtp.into_iter().map(|rtp| (rtp.into(), bind(0).into())).collect();
        let sweep = HandSweep::open(pairs, TRACKS);
        Self { journal: Journal::new(sweep.sessions()), sweep, floors, sender: bind(0), to, next: 0 }
    }

    /// Sends the packets from number `from` on, `count` to each socket.
    fn send(&self, from: u32, count: u32) {
        for n in from..from + count {
            for (ssrc, to) in (0..).zip(&self.to) {
                self.sender.send_to(&datagram(n, ssrc), to).unwrap();
            }
        }
    }

    /// Hands the batches to the journal; says how many packets were in them.
    fn flush(&mut self) -> usize {
        let mut packets = 0;
        self.sweep.flush(|session, batch| {
            packets += batch.packets() as usize;
            self.journal.append(session, batch);
        });
        self.journal.forget();
        packets
    }
}

fn with_the_kernel(bench: &Bench, sockets: usize, waiting: u32, what: &str) {
    let sweeps = PACKETS_PER_BATCH as u32 / waiting;
    let packets = sockets * PACKETS_PER_BATCH;
    let subject = |sockets: &mut Sockets| {
        let mut turn = Turn::timed(packets, || {});
        let mut kept = 0;
        for _ in 0..sweeps {
            sockets.send(sockets.next, waiting);
            sockets.next += waiting;
            turn.add(|| sockets.sweep.sweep());
        }
        turn.add(|| kept += sockets.flush());
        await_all(packets, kept, || {
            sockets.sweep.sweep();
            sockets.flush()
        });
        turn
    };
    let floor = |sockets: &mut Sockets, which: usize| {
        let mut turn = Turn::timed(packets, || {});
        let mut got = 0;
        for _ in 0..sweeps {
            sockets.send(sockets.next, waiting);
            turn.add(|| got += sockets.floors[which].sweep());
        }
        await_all(packets, got, || sockets.floors[which].sweep());
        turn
    };
    let mut state = Sockets::open(sockets);
    let row = Row { what, unit: "packet", floor: "recvmmsg of the same sockets, all dropped" };
    bench.compare(&row, &mut state, subject, |sockets| floor(sockets, BARE));
    let row = Row { what: "the same", unit: "packet", floor: "the same, asking for sender and time" };
    bench.compare(&row, &mut state, subject, |sockets| floor(sockets, ASKING));
}

/// The kernel delivers on loopback before `send` returns, but does not promise it: waits for stragglers, so that every packet is
/// accounted for and none gets into the next turn.
fn await_all(sent: usize, mut got: usize, mut again: impl FnMut() -> usize) {
    let mut tries = 0;
    while got < sent {
        tries += 1;
        assert!(tries < 1_000, "{got} of {sent} packets came");
        std::thread::sleep(Duration::from_millis(1));
        got += again();
    }
    assert_eq!(got, sent);
}

/// As many as the system lets us: four descriptors for each track are above the usual limit of 1,024.
fn allow_open_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

/// Datagrams per system call, as in the recorder.
const BARE_BATCH: usize = 16;

/// Room for one timestamp, aligned as the kernel wants it.
type Control = [u64; 8];

/// `recvmmsg` and nothing else: no look at the bytes.
struct BareSweep {
    sockets: Vec<UdpSocket>,
    buffers: Vec<[u8; 2_048]>,
    /// Where the kernel puts sender and time, when it is asked for them.
    asked: Vec<(libc::sockaddr_storage, Control)>,
}

impl BareSweep {
    #[allow(unsafe_code)]
    fn new(sockets: &[UdpSocket], asking: bool) -> Self {
        // SAFETY: sockaddr_storage is plain data for which all zeroes is a valid value (AF_UNSPEC).
        let name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        Self {
            sockets: sockets.iter().map(|socket| socket.try_clone().unwrap()).collect(),
            buffers: vec![[0; 2_048]; BARE_BATCH],
            asked: if asking { vec![(name, Control::default()); BARE_BATCH] } else { Vec::new() },
        }
    }

    /// Takes what waits, a call to each socket; says how many datagrams there were.
    #[allow(unsafe_code)]
    fn sweep(&mut self) -> usize {
        let slice =
            |buffer: &mut [u8; 2_048]| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut slices: Vec<libc::iovec> = self.buffers.iter_mut().map(slice).collect();
        let header = |slice: &mut libc::iovec| {
            // SAFETY: mmsghdr is plain data for which all zeroes is a valid value (no buffers).
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
            header
        };
        let mut headers: Vec<libc::mmsghdr> = slices.iter_mut().map(header).collect();
        for (header, (name, control)) in headers.iter_mut().zip(&mut self.asked) {
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
        }
        let mut total = 0;
        let mut used = headers.len();
        for socket in &self.sockets {
            // The kernel has written over these with the lengths that it filled.
            for (header, (name, control)) in headers[..used].iter_mut().zip(&self.asked) {
                header.msg_hdr.msg_namelen = size_of_val(name) as libc::socklen_t;
                header.msg_hdr.msg_controllen = size_of_val(control);
            }
            let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
            // SAFETY: the headers point to `slices`, these to `self.buffers`, and the headers to `self.asked`, all of which outlive
            // the call and are of the lengths that the headers say; there are BARE_BATCH of each.
            let got = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), BARE_BATCH as u32, flags, ptr::null_mut()) };
            used = usize::try_from(got).unwrap_or(0);
            total += used;
        }
        total
    }
}

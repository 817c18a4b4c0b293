//! The audio of many calls from one thread, with packets lost and late on purpose.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::rig::random::Chance;
use super::rig::rtp::{PACKET, Source};

/// The tracks are spread over the time of a packet in so many groups: as calls are that began when they liked.
const GROUPS: usize = 20;

/// What goes wrong on purpose, in percent of all packets.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trouble {
    /// Never sent.
    pub(crate) lost: u64,
    /// Sent after their successor.
    pub(crate) late: u64,
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
    to: SocketAddr,
    source: Source,
    sent: Sent,
    held: Option<Vec<u8>>,
    /// Kept back since the last packet that was sent: they count when another follows.
    missing: u64,
}

impl Track {
    fn step(
        &mut self,
        payload: &[u8],
        trouble: Trouble,
        chance: &mut Chance,
        send: &mut impl FnMut(&[u8], SocketAddr),
    ) {
        let packet = self.source.packet(payload);
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
        send(&packet, self.to);
        self.sent.packets += 1;
        self.sent.lost += std::mem::take(&mut self.missing);
        if let Some(held) = self.held.take() {
            send(&held, self.to);
            self.sent.packets += 1;
            self.sent.late += 1;
        }
    }
}

/// What the sender did.
pub(crate) struct Done {
    /// By track, in the order in which they were given.
    pub(crate) tracks: Vec<Sent>,
    /// How far behind its time it was at worst: what the machine, not the recorder, did to the audio.
    pub(crate) behind_max: Duration,
}

/// A thread that sends on every track it is given, one packet each 20 ms.
pub(crate) struct Speech {
    tracks: Option<Sender<SocketAddr>>,
    thread: JoinHandle<Done>,
}

impl Speech {
    pub(crate) fn begin(from: IpAddr, payloads: Vec<Vec<u8>>, trouble: Trouble) -> Self {
        let (tracks, given) = channel();
        Self { tracks: Some(tracks), thread: thread::spawn(move || speak(from, &payloads, trouble, &given)) }
    }

    pub(crate) fn add(&self, to: SocketAddr) {
        self.tracks.as_ref().expect("it has not ended").send(to).expect("the thread goes on until it is told to end");
    }

    /// Ends it; what it sent.
    pub(crate) fn end(mut self) -> Done {
        self.tracks = None;
        self.thread.join().expect("sending goes well")
    }
}

fn speak(from: IpAddr, payloads: &[Vec<u8>], trouble: Trouble, given: &Receiver<SocketAddr>) -> Done {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    let (mut tracks, mut chance) = (Vec::<Track>::new(), Chance(3));
    let (mut due, mut behind_max, mut going) = (Instant::now(), Duration::ZERO, true);
    let mut send = |packet: &[u8], to: SocketAddr| {
        // What cannot be sent would show as loss: nothing may go wrong here.
        assert_eq!(socket.send_to(packet, to).unwrap(), packet.len());
    };
    for payload in payloads.iter().cycle() {
        for group in 0..GROUPS {
            let now = Instant::now();
            behind_max = behind_max.max(now.saturating_duration_since(due));
            thread::sleep(due.saturating_duration_since(now));
            for track in tracks.iter_mut().skip(group).step_by(GROUPS) {
                track.step(payload, trouble, &mut chance, &mut send);
            }
            due += PACKET / GROUPS as u32;
        }
        loop {
            match given.try_recv() {
                Ok(to) => {
                    let source = Source::new(0x6000_0000 + tracks.len() as u32, 0, 160);
                    tracks.push(Track { to, source, sent: Sent::default(), held: None, missing: 0 });
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => going = false,
            }
            if !going {
                break;
            }
        }
        if !going {
            break;
        }
    }
    Done { tracks: tracks.into_iter().map(|track| track.sent).collect(), behind_max }
}

//! The audio of many tracks, sent at the pace of speech by the thread that asks for it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use callvault_srtp::{Protector, sdes};

use super::rig::rtp::{PACKET, Source};
use super::rig::sound::{FRAME, packets, speech};
use super::rig::srtp::{SUITE, key};

/// The tracks are spread over the time of a packet in so many groups: as calls are that began when they liked.
const GROUPS: usize = 20;

/// The key of a track, as [`key`] makes it of this.
pub(crate) fn seed(track: usize) -> u64 {
    1_000 + track as u64
}

struct Track {
    to: SocketAddr,
    source: Source,
    protector: Option<Protector>,
    sent: u64,
}

/// Tracks, and what was sent on them.
pub(crate) struct Voices {
    tracks: Vec<Track>,
    payloads: Vec<Vec<u8>>,
    next: usize,
    socket: Option<UdpSocket>,
}

impl Voices {
    pub(crate) fn new(to: Vec<SocketAddr>, secure: bool) -> Self {
        let track = |(number, to): (usize, SocketAddr)| {
            let attribute = || sdes::parse(&format!("1 {SUITE} inline:{}", key(seed(number)))).unwrap();
            let protector = secure.then(|| Protector::new(&attribute()).unwrap());
            Track { to, source: Source::new(0x6000_0000 + number as u32, 0, FRAME as u32), protector, sent: 0 }
        };
        let payloads = packets(&speech(1, 130.0, 8_000, 50 * FRAME));
        Self { tracks: to.into_iter().enumerate().map(track).collect(), payloads, next: 0, socket: None }
    }

    /// Sends on every track, a packet each 20 ms, for so long; how many packets that were.
    pub(crate) fn speak(&mut self, from: IpAddr, time: Duration) -> usize {
        // The same each time, or it would look like another sender.
        let socket = self.socket.get_or_insert_with(|| UdpSocket::bind((from, 0)).unwrap());
        let mut sent = 0;
        let mut due = Instant::now();
        let end = due + time;
        while due < end {
            let payload = &self.payloads[self.next % self.payloads.len()];
            self.next += 1;
            for group in 0..GROUPS {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                for track in self.tracks.iter_mut().skip(group).step_by(GROUPS) {
                    let mut packet = track.source.packet(payload);
                    if let Some(protector) = &mut track.protector {
                        protector.protect_rtp(&mut packet).unwrap();
                    }
                    assert_eq!(socket.send_to(&packet, track.to).unwrap(), packet.len());
                    track.sent += 1;
                    sent += 1;
                }
                due += PACKET / GROUPS as u32;
            }
        }
        sent
    }

    /// What was sent on each track.
    pub(crate) fn sent(&self) -> Vec<u64> {
        self.tracks.iter().map(|track| track.sent).collect()
    }
}

//! Sending RTP.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two packets.
pub const PACKET: Duration = Duration::from_millis(20);

/// Something to be sent, and when.
pub struct Shot {
    pub at: Duration,
    /// Which of the sockets sends it.
    pub from: usize,
    pub bytes: Vec<u8>,
}

/// A source of packets: what the next one's header says.
#[derive(Clone)]
pub struct Source {
    pub ssrc: u32,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    /// By how much the timestamp grows with each packet.
    pub step: u32,
    first: bool,
}

impl Source {
    pub fn new(ssrc: u32, payload_type: u8, step: u32) -> Self {
        Self { ssrc, payload_type, sequence: 1_000, timestamp: 7_000_000, step, first: true }
    }

    /// The same, beginning elsewhere.
    pub fn beginning_at(self, sequence: u16, timestamp: u32) -> Self {
        Self { sequence, timestamp, ..self }
    }

    /// Lets the time of a packet pass without one.
    pub fn skip(&mut self) {
        self.timestamp = self.timestamp.wrapping_add(self.step);
        self.first = true;
    }

    /// The next packet.
    pub fn packet(&mut self, payload: &[u8]) -> Vec<u8> {
        let marker = if std::mem::take(&mut self.first) { 0x80 } else { 0 };
        let mut packet = vec![0x80, self.payload_type | marker];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.step);
        packet
    }
}

/// Sends each shot at its time, each track from a socket of its own.
pub fn fire(to: &[SocketAddr], mut shots: Vec<Shot>) {
    let sockets: Vec<UdpSocket> = to
        .iter()
        .map(|to| {
            let socket = UdpSocket::bind((to.ip(), 0)).unwrap();
            socket.connect(to).unwrap();
            socket
        })
        .collect();
    // A stable sort: what is due at the same time goes in the order in which it was planned.
    shots.sort_by_key(|shot| shot.at);
    let begun = Instant::now();
    for shot in shots {
        thread::sleep((begun + shot.at).saturating_duration_since(Instant::now()));
        sockets[shot.from].send(&shot.bytes).unwrap();
    }
}

/// A call's audio as it should be: one packet on each track every 20 ms. Each track's payloads with its source.
pub fn play(to: &[SocketAddr], tracks: &mut [(Source, &[Vec<u8>])]) {
    let mut shots = Vec::new();
    for (from, (source, payloads)) in tracks.iter_mut().enumerate() {
        for (payload, n) in payloads.iter().zip(0..) {
            shots.push(Shot { at: PACKET * n, from, bytes: source.packet(payload) });
        }
    }
    fire(to, shots);
}

/// [`play`] with µ-law.
pub fn play_ulaw(to: &[SocketAddr], tracks: &[&[Vec<u8>]]) {
    let mut with_sources: Vec<(Source, &[Vec<u8>])> =
        (0x51c0_0001..).zip(tracks).map(|(ssrc, payloads)| (Source::new(ssrc, 0, 160), *payloads)).collect();
    play(to, &mut with_sources);
}

//! A client's voice while it signals: one packet on each track every 20 ms, whatever else the client does, and a count of them by
//! which a test knows exactly what was said when.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::rtp::{PACKET, Source};
use super::sound::FRAME;
use super::wait_until;

/// What is sent when there is nothing to say: µ-law for no sound at all.
pub const SILENCE: [u8; FRAME] = [0xff; FRAME];

struct Track {
    socket: UdpSocket,
    source: Source,
    to_say: VecDeque<Vec<u8>>,
    /// What is sent when there is nothing to say.
    filler: Option<Vec<u8>>,
}

struct State {
    tracks: Vec<Track>,
    /// Packets that each track's time is on: what is said next is packet number `ticks` of the call.
    ticks: usize,
    /// Packets that were sent before they were due: that time is still to pass.
    early: usize,
    over: bool,
}

/// Sends until it is dropped.
pub struct Speaker {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Speaker {
    /// Begins to send, to each address a track: silence, until there is something to say.
    pub fn start(to: &[SocketAddr]) -> Self {
        Self::begin(to, Some(SILENCE.to_vec()))
    }

    /// The same, but nothing is sent when there is nothing to say.
    pub fn start_mute(to: &[SocketAddr]) -> Self {
        Self::begin(to, None)
    }

    fn begin(to: &[SocketAddr], filler: Option<Vec<u8>>) -> Self {
        let tracks = to.iter().zip(0x7000_0001..).map(|(to, ssrc)| {
            let socket = UdpSocket::bind((to.ip(), 0)).unwrap();
            socket.connect(to).unwrap();
            Track {
                socket,
                source: Source::new(ssrc, 0, FRAME as u32),
                to_say: VecDeque::new(),
                filler: filler.clone(),
            }
        });
        let state = Arc::new(Mutex::new(State { tracks: tracks.collect(), ticks: 0, early: 0, over: false }));
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            while shared.lock().unwrap().due() {
                due += PACKET;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        Self { state, thread: Some(thread) }
    }

    /// Says this next, on each track its own; returns the number of the packet that it begins with.
    pub fn say(&self, tracks: &[&[Vec<u8>]]) -> usize {
        let mut state = self.state.lock().unwrap();
        for (track, payloads) in state.tracks.iter_mut().zip(tracks) {
            track.to_say.extend(payloads.iter().cloned());
        }
        state.ticks
    }

    /// [`Speaker::say`], and waits until it is said.
    pub fn say_all(&self, tracks: &[&[Vec<u8>]]) -> usize {
        let at = self.say(tracks);
        wait_until("everything is said", || self.state.lock().unwrap().tracks.iter().all(|t| t.to_say.is_empty()));
        at
    }

    /// [`Speaker::say_all`], the first packet at once and not when it is due.
    pub fn say_now(&self, tracks: &[&[Vec<u8>]]) -> usize {
        let at = self.say(tracks);
        // What is on its way already is what was to be said before.
        let mut state = self.state.lock().unwrap();
        state.tick();
        state.early += 1;
        drop(state);
        self.say_all(&[]);
        at
    }

    /// What a track sends when it has nothing to say; nothing at all is possible.
    pub fn fill(&self, track: usize, filler: Option<Vec<u8>>) {
        self.state.lock().unwrap().tracks[track].filler = filler;
    }

    /// From now on a track goes to another port, or comes from another source, or both.
    pub fn redirect(&self, track: usize, change: impl FnOnce(&UdpSocket, &mut Source)) {
        let mut state = self.state.lock().unwrap();
        let track = &mut state.tracks[track];
        change(&track.socket, &mut track.source);
    }
}

impl State {
    /// A packet is due; whether another will be.
    fn due(&mut self) -> bool {
        match self.early.checked_sub(1) {
            Some(left) => self.early = left,
            None => self.tick(),
        }
        !self.over
    }

    fn tick(&mut self) {
        for track in &mut self.tracks {
            match track.to_say.pop_front().or_else(|| track.filler.clone()) {
                // Nobody may be there any more, which the kernel says at the next packet.
                Some(payload) => drop(track.socket.send(&track.source.packet(&payload))),
                None => track.source.skip(),
            }
        }
        self.ticks += 1;
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        // A test that fails elsewhere may have left the lock poisoned; the thread has ended then.
        if let Ok(mut state) = self.state.lock() {
            state.over = true;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! What capturing a packet costs, all in: the CPU time of the recorder's process while it takes, orders, seals, writes and checkpoints
//! the audio of many calls, beside that of a process that takes the same packets and drops them.
//!
//! Both are processes of their own, have as many sockets, are sent the same packets at the same pace by the same thread, and take turns.
//! What is counted is the kernel's own account of each process, so that whatever a wake-up, a cold cache or a system call costs is in
//! both. The bare process goes over its sockets every 20 ms, as long as a packet lasts: one packet waits at each.
//!
//! Every packet is accounted for: the bare process must have dropped all that it was sent, and each recording must have all of its.

#![allow(clippy::unwrap_used)]

mod bare;
#[path = "../floor/mod.rs"]
mod floor;
#[path = "../../tests/rig/mod.rs"]
mod rig;
mod voices;

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use bare::Bare;
use floor::{Bench, Row, Turn};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use rig::Appliance;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::srtp::{key, secured};
use rig::wait_until;
use voices::Voices;

const SETTINGS: &str = "[media]\nports = \"16000-31999\"\n[limits]\nsessions_max = 4000\n";
/// So many calls alone, where this is set.
const CALLS: &str = "CALLVAULT_CAPTURE_CALLS";
/// Tracks of a call.
const TRACKS: usize = 2;
/// Between two new calls: within what the recorder allows of a client.
const BETWEEN: Duration = Duration::from_millis(20);
/// After a turn both processes have done with what they were sent: longer than the batch interval and a sweep.
const SETTLE: Duration = Duration::from_millis(400);

fn main() {
    if bare::is_asked_for() {
        return bare::run();
    }
    let bench = Bench::begin("capture: CPU time of a packet, all in, as the kernel counts it of the whole process");
    let asked =
        std::env::var(CALLS).ok().map(|calls| vec![calls.parse().expect("CALLVAULT_CAPTURE_CALLS is a number")]);
    for calls in asked.unwrap_or(bench.pick(vec![50, 200, 500], vec![2])) {
        measure(&bench, calls, false);
        measure(&bench, calls, true);
    }
}

fn measure(bench: &Bench, calls: usize, secure: bool) {
    let appliance = Appliance::start(SETTINGS);
    let (clients, media) = begin(&appliance, calls, secure);
    let bare = Bare::start(appliance.sip().ip(), media.len());
    let mut pair = Pair {
        recorder: appliance.recorder(),
        voices: [Voices::new(media, secure), Voices::new(bare.ports().to_vec(), secure)],
        bare,
        from: appliance.sip().ip(),
        turn: bench.pick(Duration::from_secs(2), Duration::from_millis(200)),
    };
    let audio = if secure { "SRTP, AES_CM_128_HMAC_SHA1_80" } else { "G.711" };
    let what = format!("{calls} calls of two tracks, {audio}");
    let row = Row { what: &what, unit: "packet", floor: "a bare sweep every 20 ms, all dropped" };
    bench.compare(&row, &mut pair, Pair::recorder, Pair::bare);

    let [recorded, dropped] = pair.voices;
    assert_eq!(pair.bare.end(), dropped.sent().iter().sum::<u64>(), "the bare process missed packets");
    clients.into_iter().for_each(Client::bye);
    wait_until("all recordings are listed", || appliance.recordings().len() == calls);
    for (number, sent) in recorded.sent().chunks(TRACKS).enumerate() {
        let recording = appliance.recording(&Facts::incoming(number as u32).call_id);
        let kept: Vec<u64> =
            recording["tracks"].as_array().unwrap().iter().map(|track| track["packets"].as_u64().unwrap()).collect();
        assert_eq!(kept, sent, "{recording:#}");
    }
}

/// Begins the calls: who keeps them, and where their audio goes.
fn begin(appliance: &Appliance, calls: usize, secure: bool) -> (Vec<Client>, Vec<SocketAddr>) {
    let mut media = Vec::new();
    let begin = |number: usize| {
        thread::sleep(BETWEEN);
        let mut client = Client::udp(appliance.sip());
        let facts = Facts::incoming(number as u32);
        let keys = [0, 1].map(|track| key(voices::seed(number * TRACKS + track)));
        let invite = if secure { secured(&facts, appliance.sip(), &keys) } else { webex(&facts, appliance.sip()) };
        media.extend(client.call(&invite));
        client
    };
    ((0..calls).map(begin).collect(), media)
}

/// The two processes, and what is said to each.
struct Pair {
    recorder: u32,
    bare: Bare,
    /// To the recorder, and to the other.
    voices: [Voices; 2],
    from: IpAddr,
    turn: Duration,
}

impl Pair {
    fn recorder(&mut self) -> Turn {
        self.speak(0, self.recorder)
    }

    fn bare(&mut self) -> Turn {
        self.speak(1, self.bare.process())
    }

    /// A turn of one of them: its CPU time from the first packet until it has done with the last.
    fn speak(&mut self, whose: usize, process: u32) -> Turn {
        let before = cpu(process);
        let packets = self.voices[whose].speak(self.from, self.turn);
        thread::sleep(SETTLE);
        Turn::counted(cpu(process) - before, packets)
    }
}

/// CPU time that a process has taken so far.
fn cpu(process: u32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed())).unwrap();
    Duration::from(clock_gettime(clock).unwrap())
}

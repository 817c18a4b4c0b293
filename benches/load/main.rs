//! How many calls: real calls against a real appliance, more with each step, and every recording looked at afterwards.
//!
//! Each step starts an appliance of its own, begins its calls at a set rate, lets them speak for a while, ends them and waits for their
//! archives. A packet that was sent and is not in its recording, or that was kept back on purpose and is not told as lost, fails the
//! run: a figure of calls that were not recorded means nothing. Nothing is asserted about times.
//!
//! What a run does is said by variables; see docs/CAPACITY.md. The appliance's processes are others than this one, so that what
//! sending costs is in none of the figures.

#![allow(clippy::unwrap_used)]

#[path = "../floor/mod.rs"]
mod floor;
mod report;
#[path = "../../tests/rig/mod.rs"]
mod rig;
mod sender;
mod usage;

use std::collections::HashMap;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use floor::{Bench, quantile};
use report::Step;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::tls::metric;
use rig::{Appliance, wait_until};
use sender::{Done, Sent, Speech, Trouble};
use serde_json::Value;
use usage::{Sockets, Usage};

/// Pairs for 2,000 calls of two tracks at once.
const SETTINGS: &str = "[media]\nports = \"16000-31999\"\n[limits]\nsessions_max = 4000\n";
/// Tracks of a call.
const TRACKS: usize = 2;
/// How often the sockets are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The list of recordings has no more than this many on a page, so a step has no more calls.
const CALLS_MAX: usize = 1_000;
/// So long without a further archive, and there will be none.
const STALLED: Duration = Duration::from_secs(90);

/// What a run does.
struct Plan {
    calls: Vec<usize>,
    /// New calls a second.
    rate: f64,
    /// How long all of a step's calls speak together.
    hold: Duration,
    trouble: Trouble,
    /// Whether each call has a connection of its own; otherwise it is signalled over UDP.
    tcp: bool,
}

impl Plan {
    fn read(bench: &Bench) -> Self {
        let calls: String = variable("CALLS", bench.pick("50,100,200,500".to_owned(), "2,4".to_owned()));
        let calls =
            calls.split(',').map(|calls| calls.trim().parse().expect("CALLVAULT_LOAD_CALLS is a list of numbers"));
        let calls: Vec<usize> = calls.collect();
        assert!(calls.iter().all(|calls| (1..=CALLS_MAX).contains(calls)), "a step has 1 to {CALLS_MAX} calls");
        let trouble = Trouble { lost: variable("LOST", bench.pick(0, 5)), late: variable("LATE", bench.pick(0, 5)) };
        assert!(trouble.lost + trouble.late <= 50, "at most half of the packets are lost or late");
        let rate: f64 = variable("RATE", 50.0);
        assert!(rate > 0.0 && rate <= 1_000.0, "CALLVAULT_LOAD_RATE is above 0 and at most 1000");
        let transport: String = variable("TRANSPORT", "udp".to_owned());
        assert!(["udp", "tcp"].contains(&transport.as_str()), "CALLVAULT_LOAD_TRANSPORT is udp or tcp");
        let tcp = transport == "tcp";
        Self { calls, rate, tcp, hold: Duration::from_secs(variable("SECONDS", bench.pick(20, 2))), trouble }
    }
}

/// The variable `CALLVAULT_LOAD_…`, or what stands for it.
fn variable<T: FromStr>(name: &str, otherwise: T) -> T {
    let name = format!("CALLVAULT_LOAD_{name}");
    std::env::var(&name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name} cannot be read")))
}

fn main() {
    let bench =
        Bench::begin_without_table("load: calls of two G.711 tracks against an appliance, every packet accounted for");
    let plan = Plan::read(&bench);
    report::print_head();
    let mut steps = Vec::new();
    for calls in &plan.calls {
        let step = run(*calls, &plan);
        report::print(&step);
        steps.push(step);
    }
    report::print_growth(&steps);
    report::write(&steps);
}

fn run(calls: usize, plan: &Plan) -> Step {
    let appliance = Appliance::start(SETTINGS);
    let idle = Usage::of(&appliance);
    let voice = packets(&speech(1, 130.0, 8_000, 50 * FRAME));
    let speech = Speech::begin(appliance.sip().ip(), voice, plan.trouble);
    let (clients, mut invites) = ramp(&appliance, &speech, calls, plan);

    let (before, began) = (Usage::of(&appliance), Instant::now());
    let [bytes_before, commits_before] = written(&appliance);
    let mut sockets = Sockets::default();
    while began.elapsed() < plan.hold {
        let now = Sockets::of(appliance.sip());
        sockets.waiting_bytes_max = sockets.waiting_bytes_max.max(now.waiting_bytes_max);
        sockets.drops = sockets.drops.max(now.drops);
        thread::sleep(LOOK);
    }
    let (after, held) = (Usage::of(&appliance), began.elapsed().as_secs_f64());
    let [bytes, commits] = written(&appliance);

    let done = speech.end();
    // What lies in the sockets still is taken with the next sweep.
    thread::sleep(LOOK);
    let ended = Instant::now();
    for client in clients {
        client.bye();
    }
    wait_until("all recordings are listed", || appliance.recordings().len() == calls);
    let listed = ended.elapsed();
    wait_archived(&appliance, calls);
    let archived = ended.elapsed();
    let sums = check(&appliance, &done);
    let per_call_s = |ms: u64| ms as f64 / 1e3 / held / calls as f64;
    Step {
        calls,
        packets: sums.packets,
        lost_on_purpose: sums.lost,
        late_on_purpose: sums.late,
        invite_ms: [0.5, 0.99, 1.0].map(|at| quantile(&mut invites, at)),
        recorder_core_per_call: per_call_s(after.recorder_cpu_ms - before.recorder_cpu_ms),
        daemon_core_per_call: per_call_s(after.daemon_cpu_ms - before.daemon_cpu_ms),
        idle_kib: idle.memory_kib,
        live_kib: after.memory_kib,
        grown_kib: after.memory_kib.cast_signed() - before.memory_kib.cast_signed(),
        journal_bytes_per_s: (bytes - bytes_before) / held,
        commits_per_s: (commits - commits_before) / held,
        archive_bytes_per_call_hour: archived_bytes_per_hour(&appliance),
        socket_bytes_max: sockets.waiting_bytes_max,
        socket_drops: sockets.drops,
        listed_s: listed.as_secs_f64(),
        archived_s: archived.as_secs_f64(),
        sender_behind_ms: done.behind_max.as_secs_f64() * 1e3,
    }
}

/// Begins the calls, each at its time; their clients, and how long each INVITE took in milliseconds.
fn ramp(appliance: &Appliance, speech: &Speech, calls: usize, plan: &Plan) -> (Vec<Client>, Vec<f64>) {
    let (mut clients, mut invites) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for number in 0..calls {
        let due = began + Duration::from_secs_f64(number as f64 / plan.rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut client = if plan.tcp { Client::tcp(appliance.sip()) } else { Client::udp(appliance.sip()) };
        let media = client.call(&webex(&Facts::incoming(number as u32), appliance.sip()));
        invites.push(client.took().as_secs_f64() * 1e3);
        assert_eq!(media.len(), TRACKS);
        media.into_iter().for_each(|to| speech.add(to));
        clients.push(client);
    }
    (clients, invites)
}

/// Bytes that the journal was given, and its commits.
fn written(appliance: &Appliance) -> [f64; 2] {
    ["journal_appended_bytes_total", "journal_commits_total"].map(|name| metric(appliance, name))
}

fn wait_archived(appliance: &Appliance, calls: usize) {
    let (mut most, mut last) = (0, Instant::now());
    while most < calls {
        let archived = |recording: &Value| recording["archive"]["state"] == "archived";
        let now = appliance.recordings().iter().filter(|recording| archived(recording)).count();
        if now > most {
            (most, last) = (now, Instant::now());
        }
        assert!(last.elapsed() < STALLED, "only {most} of {calls} recordings were archived");
        thread::sleep(LOOK);
    }
}

/// What an hour of a call is in the archive.
fn archived_bytes_per_hour(appliance: &Appliance) -> f64 {
    let recordings = appliance.recordings();
    let sum = |pointer: &str| recordings.iter().map(|r| r.pointer(pointer).unwrap().as_f64().unwrap()).sum::<f64>();
    sum("/archive/bytes") / (sum("/duration_ms") / 3_600_000.0)
}

/// That every recording has what was sent, track by track; the sums.
fn check(appliance: &Appliance, done: &Done) -> Sent {
    let recordings = appliance.recordings();
    let by_call: HashMap<&str, &Value> =
        recordings.iter().map(|recording| (recording["call_id"].as_str().unwrap(), recording)).collect();
    let mut sums = Sent::default();
    for (number, sent) in done.tracks.chunks(TRACKS).enumerate() {
        let recording = by_call[Facts::incoming(number as u32).call_id.as_str()];
        for (sent, track) in sent.iter().zip(recording["tracks"].as_array().unwrap()) {
            let count = |name: &str| track[name].as_u64().unwrap();
            let kept = Sent { packets: count("packets"), lost: count("lost"), late: count("late") };
            assert_eq!(kept, *sent, "what was recorded of a track is not what was sent: {recording:#}");
            sums.packets += sent.packets;
            sums.lost += sent.lost;
            sums.late += sent.late;
        }
    }
    sums
}

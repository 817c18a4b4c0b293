//! How many calls: real calls against a real appliance, more with each step, and every recording looked at afterwards.
//!
//! Each step starts an appliance of its own, begins its calls at a set rate, lets them speak for a while, ends them and waits for their
//! archives. A packet that was sent and is not in its recording, or that was kept back on purpose and is not told as lost, fails the
//! run: a figure of calls that were not recorded means nothing. Nothing is asserted about how fast anything is. A long step is a soak,
//! and fails when memory grows or lengths drift; `CALLVAULT_LOAD_AGENTS` makes a day of agents' calls instead of steps.
//!
//! What a run does is said by variables; see docs/CAPACITY.md. The appliance's processes are others than this one, so that what
//! sending costs is in none of the figures.

#![allow(clippy::unwrap_used)]

mod appliance;
mod day;
#[path = "../floor/mod.rs"]
mod floor;
mod page;
mod plan;
#[path = "../rendering/mod.rs"]
mod rendering;
mod report;
#[path = "../../tests/rig/mod.rs"]
mod rig;
mod secure;
mod sender;
#[path = "../traffic/mod.rs"]
mod traffic;
mod usage;
mod verdict;
mod voice;

use std::thread;
use std::time::{Duration, Instant};

use appliance::{Loaded, TRACKS, archived_bytes_per_hour, recorded_s};
use floor::{Bench, quantile};
use plan::{Plan, Transport};
use report::{Run, Step};
use rig::shapes::Facts;
use rig::sip::Client;
use sender::{SETTLED, Speech};
use usage::{Sockets, Usage};
use voice::Coding;

/// How often processes and sockets are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often the appliance is asked how far it is after the calls.
const ASK: Duration = Duration::from_millis(200);

fn main() {
    let bench = Bench::begin_without_table("load: calls against an appliance, every packet accounted for");
    usage::take_descriptors();
    let plan = Plan::read(&bench);
    if plan.agents > 0 {
        return day::run(&plan);
    }
    let failed = steps(&plan);
    if bench.pick(false, true) {
        // That the other ways work too.
        let other = Plan { calls: vec![2], coding: Coding::G722, srtp: true, transport: Transport::Tls, ..plan };
        steps(&other);
        day::run(&Plan { coding: Coding::Opus, agents: 2, ..other });
    }
    assert!(failed.is_empty(), "the run was not good: {}", failed.join("; "));
}

/// All steps, and what was wrong with them.
fn steps(plan: &Plan) -> Vec<String> {
    let mut run = Run::begin(plan);
    let mut failed = Vec::new();
    report::print_head(&run);
    for calls in &plan.calls {
        let step = step(*calls, plan);
        report::print(&step);
        failed.extend(step.failed.clone());
        failed.extend(verdict::soak(&step.memory, step.duration_off_ms));
        run.steps.push(step);
    }
    report::print_bars(&run);
    page::write(&run);
    failed
}

fn step(calls: usize, plan: &Plan) -> Step {
    let loaded = Loaded::start(plan);
    let idle = Usage::of(&loaded.appliance);
    let speech = loaded.speech(calls * TRACKS);
    let (clients, mut invites) = ramp(&loaded, &speech, calls, plan.rate);

    let (before, began) = (Usage::of(&loaded.appliance), Instant::now());
    let [bytes_before, commits_before] = loaded.journal();
    let (mut sockets, mut memory) = (Sockets::default(), Vec::new());
    while began.elapsed() < plan.hold {
        let now = Sockets::of(loaded.appliance.sip());
        sockets.waiting_bytes_max = sockets.waiting_bytes_max.max(now.waiting_bytes_max);
        sockets.drops = sockets.drops.max(now.drops);
        memory.push((began.elapsed().as_secs_f64(), Usage::of(&loaded.appliance).memory_kib() as f64));
        thread::sleep(LOOK);
    }
    let (after, held) = (Usage::of(&loaded.appliance), began.elapsed().as_secs_f64());
    let [bytes, commits] = loaded.journal();

    let done = speech.end();
    thread::sleep(SETTLED);
    let at_end = Usage::of(&loaded.appliance);
    let ends = End::all(&loaded, clients);
    let checked = loaded.check(&done);
    let (sums, recordings) = (checked.sent, &checked.recordings);
    let cpu = after.cpu_s_since(&before).map(|cpu_s| cpu_s / held / calls as f64);
    let off = |(began, recording): (&(Instant, Instant), &serde_json::Value)| {
        let lasted_ms = began.1.duration_since(began.0).as_secs_f64() * 1e3;
        (recording["duration_ms"].as_f64().unwrap() - lasted_ms).abs()
    };
    Step {
        calls,
        packets: sums.packets,
        lost_on_purpose: sums.lost,
        late_on_purpose: sums.late,
        missing: checked.missing,
        failed: checked.failed(),
        invite_ms: spread(&mut invites, 1.0),
        core_per_call: cpu,
        idle,
        live: after,
        memory,
        journal_bytes_per_s: (bytes - bytes_before) / held,
        commits_per_s: (commits - commits_before) / held,
        written_bytes_per_s: after.written_bytes_since(&before) as f64 / held,
        archive_bytes_per_call_hour: archived_bytes_per_hour(recordings),
        socket_bytes_max: sockets.waiting_bytes_max,
        socket_drops: sockets.drops,
        playable_s: ends.playable_s,
        first_audio_s: ends.first_audio_s,
        archived_s: ends.archived_s,
        archive_took_s: ends.took_s,
        archive_core_s: ends.usage.cpu_s_since(&at_end),
        recorded_s: recorded_s(recordings),
        libopus_s: plan.makes_opus().then(|| plan.coding.libopus_s(plan.talk)),
        behind_us: done.behind_us,
        duration_off_ms: ends.lasted.iter().zip(recordings).map(off).fold(0.0, f64::max),
    }
}

/// 50th and 99th percentile and the most of some values, each times a factor.
fn spread(values: &mut [f64], factor: f64) -> [f64; 3] {
    [0.5, 0.99, 1.0].map(|at| quantile(values, at) * factor)
}

/// A call that lives.
struct Live {
    client: Client,
    began: Instant,
}

/// Begins the calls, each at its time; and how long each INVITE took in milliseconds.
fn ramp(loaded: &Loaded<'_>, speech: &Speech, calls: usize, rate: f64) -> (Vec<Live>, Vec<f64>) {
    let (mut clients, mut invites) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    for number in 0..calls {
        let due = begin + Duration::from_secs_f64(number as f64 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let (client, took) = loaded.call(number, speech);
        invites.push(took);
        clients.push(Live { client, began: Instant::now() });
    }
    (clients, invites)
}

/// What came after the calls.
struct End {
    /// When each call began and ended.
    lasted: Vec<(Instant, Instant)>,
    playable_s: [f64; 3],
    /// From the last end until the audio of that call had been heard whole.
    first_audio_s: f64,
    archived_s: [f64; 3],
    /// From the first end until all were archived.
    took_s: f64,
    usage: Usage,
}

impl End {
    /// Ends all calls, and waits until everything is archived.
    fn all(loaded: &Loaded<'_>, clients: Vec<Live>) -> Self {
        let calls = clients.len();
        thread::scope(|scope| {
            let progress = scope.spawn(|| loaded.progress(calls, ASK));
            let _alarm = loaded.alarm();
            let mut lasted = Vec::new();
            for Live { client, began } in clients {
                client.bye();
                lasted.push((began, Instant::now()));
            }
            let ends: Vec<Instant> = lasted.iter().map(|(_, end)| *end).collect();
            loaded.wait_listed(calls);
            let last = loaded.appliance.recording(&Facts::incoming(calls as u32 - 1).call_id);
            let wav = loaded.appliance.wav(&last);
            assert_eq!(wav.channels.len(), TRACKS, "both parties are heard");
            let first_audio_s = ends[calls - 1].elapsed().as_secs_f64();
            let progress = progress.join().expect("the archives come");
            let took_s = ends[0].elapsed().as_secs_f64();
            Self {
                lasted,
                playable_s: spread(&mut progress.after(&ends, |look| look.listed), 1.0),
                first_audio_s,
                archived_s: spread(&mut progress.after(&ends, |look| look.archived), 1.0),
                took_s,
                usage: Usage::of(&loaded.appliance),
            }
        })
    }
}

//! A day of agents, pressed into minutes: when calls begin follows the hours of a call centre, and every call is shorter by the same
//! factor as the day. So as many calls live at once as on the real day, and as many packets a second are recorded; what is once for
//! each call (signalling, catalogue, archive, journal) comes that much more often, so the run is harder than the day.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::appliance::{Loaded, TRACKS, archived_bytes_per_hour, recorded_s};
use super::floor::quantile;
use super::page::{plot_points, put};
use super::plan::{CALLS_MAX, Plan};
use super::rig::random::Chance;
use super::rig::sip::Client;
use super::sender::SETTLED;
use super::usage::{self, PROGRAMS, Usage};

/// How busy each hour from eight to six is, in percent of the busiest.
const HOURS: [u64; 10] = [50, 90, 100, 95, 60, 70, 90, 95, 80, 40];
/// Calls of an agent in the busiest hour.
const CALLS_PER_HOUR: f64 = 6.0;
/// How long calls are in the mean, at least and at most, in seconds; their lengths fall exponentially.
const LENGTH_S: f64 = 240.0;
const SHORTEST_S: f64 = 10.0;
const LONGEST_S: f64 = 1_800.0;
/// How short a call may become, in seconds: there must be something to record.
const PRESSED_MIN_S: f64 = 0.5;
/// How often the appliance is asked how far it is.
const ASK: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
enum What {
    Begin,
    Silence,
    End,
}

/// All that happens, in order: when, to which call.
fn script(agents: usize, day: Duration) -> (Vec<(Duration, What, usize)>, usize) {
    let mut chance = Chance(11);
    let hour_s = day.as_secs_f64() / HOURS.len() as f64;
    let factor = 3_600.0 / hour_s;
    let mut begins = Vec::new();
    for (hour, busy) in HOURS.iter().enumerate() {
        let calls = (agents as f64 * CALLS_PER_HOUR * *busy as f64 / 100.0).round() as usize;
        for _ in 0..calls {
            let part = |chance: &mut Chance| chance.below(1_000_000) as f64 / 1e6;
            let at = hour_s * (hour as f64 + part(&mut chance));
            let length = (-LENGTH_S * (1.0 - part(&mut chance)).ln()).clamp(SHORTEST_S, LONGEST_S) / factor;
            begins.push((at, length.max(PRESSED_MIN_S)));
        }
    }
    begins.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut events = Vec::new();
    for (number, (at, length)) in begins.iter().enumerate() {
        let (begin, end) = (Duration::from_secs_f64(*at), Duration::from_secs_f64(at + length));
        events.extend([(begin, What::Begin, number), (end, What::Silence, number), (end + SETTLED, What::End, number)]);
    }
    events.sort_by_key(|event| event.0);
    (events, begins.len())
}

pub(crate) fn run(plan: &Plan) {
    let (events, calls) = script(plan.agents, plan.day);
    let live = events.iter().scan(0_usize, |live, (_, what, _)| {
        match what {
            What::Begin => *live += 1,
            What::Silence => {}
            What::End => *live -= 1,
        }
        Some(*live)
    });
    let live_max = live.max().unwrap_or(0);
    assert!(live_max <= CALLS_MAX, "{live_max} calls at once are more than {CALLS_MAX}");
    let factor = 3_600.0 * HOURS.len() as f64 / plan.day.as_secs_f64();
    println!("  {}\n  {}", usage::machine(), plan.words());
    println!(
        "  a day of {} agents in {:.0} s, {factor:.0} times as fast: {calls} calls",
        plan.agents,
        plan.day.as_secs_f64()
    );

    let loaded = Loaded::start(plan);
    let (speech, before, begin) = (loaded.speech(live_max * TRACKS), Usage::of(&loaded.appliance), Instant::now());
    thread::scope(|scope| {
        let progress = scope.spawn(|| loaded.progress(calls, ASK));
        let _alarm = loaded.alarm();
        let mut clients: Vec<Option<Client>> = (0..calls).map(|_| None).collect();
        let (mut invites, mut ends, mut behind_max) = (Vec::new(), Vec::new(), Duration::ZERO);
        for (at, what, number) in events {
            thread::sleep((begin + at).saturating_duration_since(Instant::now()));
            behind_max = behind_max.max(begin.elapsed().saturating_sub(at));
            match what {
                What::Begin => {
                    let (client, took) = loaded.call(number, &speech);
                    invites.push(took);
                    clients[number] = Some(client);
                }
                What::Silence => (0..TRACKS).for_each(|track| speech.stop(number * TRACKS + track)),
                What::End => {
                    clients[number].take().expect("it lives").bye();
                    ends.push(Instant::now());
                }
            }
        }
        let (over, at_end) = (Instant::now(), Usage::of(&loaded.appliance));
        let done = speech.end();
        let progress = progress.join().expect("the archives come");
        let (caught_up_s, after) = (over.elapsed().as_secs_f64(), Usage::of(&loaded.appliance));
        let checked = loaded.check(&done);
        let (sums, recordings) = (checked.sent, &checked.recordings);

        let since = |at: Instant| at.saturating_duration_since(begin).as_secs_f64();
        let backlog: Vec<(f64, f64)> = progress
            .0
            .iter()
            .map(|look| (since(look.at), ends.partition_point(|end| *end <= look.at) as f64 - look.archived as f64))
            .collect();
        let backlog_max = backlog.iter().map(|(_, left)| *left).fold(0.0, f64::max);
        let mut archived = progress.after(&ends, |look| look.archived);
        let plotted = backlog.clone();
        let archived_s = [0.5, 0.99, 1.0].map(|at| quantile(&mut archived, at));
        let invite_ms = [0.5, 0.99, 1.0].map(|at| quantile(&mut invites, at));
        let cpu = at_end.cpu_s_since(&before).map(|cpu_s| cpu_s / since(over));
        let recorded_h = recorded_s(recordings) / 3_600.0;
        println!(
            "  {} packets, {} missing; {live_max} calls at once; INVITE to 200 {:.2} ms (p50), {:.2} ms (p99)",
            sums.packets, checked.missing, invite_ms[0], invite_ms[1]
        );
        println!(
            "  CPU, parts of a core: {}; memory at the end {:.0} MiB",
            [0, 1, 2].map(|n| format!("{} {:.2}", PROGRAMS[n], cpu[n])).join(", "),
            after.memory_kib() as f64 / 1024.0
        );
        println!(
            "  archived {:.1} s after a call's end (p50), {:.1} s (p99); at most {backlog_max:.0} recordings waited, all done {caught_up_s:.1} s \
             after the day; {recorded_h:.1} h recorded",
            archived_s[0], archived_s[1]
        );
        let json = json!({
            "version": usage::version(), "machine": usage::machine(), "what": plan.words(), "agents": plan.agents,
            "day_s": plan.day.as_secs_f64(), "faster": factor, "calls": calls, "live_max": live_max, "packets": sums.packets, "missing": checked.missing,
            "invite_ms": {"p50": invite_ms[0], "p99": invite_ms[1], "max": invite_ms[2]},
            "cores": {"daemon": cpu[0], "recorder": cpu[1], "render": cpu[2]},
            "memory_kib_at_end": after.memory_kib(), "memory_kib_before": before.memory_kib(),
            "archived_s": {"p50": archived_s[0], "p99": archived_s[1], "max": archived_s[2]},
            "backlog_recordings_max": backlog_max, "caught_up_s": caught_up_s, "recorded_s": recorded_s(recordings),
            "archive_bytes_per_call_hour": archived_bytes_per_hour(recordings),
            "sender_behind_us": {"p50": done.behind_us[0], "p99": done.behind_us[1], "max": done.behind_us[2]},
            "script_behind_ms_max": behind_max.as_secs_f64() * 1e3,
        });
        let title = format!("callvault {}: a day of {} agents", usage::version(), plan.agents);
        let plots = [
            plot_points("Recordings waiting for their archive", "seconds", &[("recordings", plotted)]),
            plot_points(
                "Archived so far",
                "seconds",
                &[("recordings", progress.0.iter().map(|look| (since(look.at), look.archived as f64)).collect())],
            ),
        ];
        let what =
            format!("{}. {}. {calls} calls, {factor:.0} times as fast as the day.", usage::machine(), plan.words());
        let failed = checked.failed();
        put("day", &json, &super::page::page(&title, &what, "", &plots));
        assert!(failed.is_none(), "the day was not good: {}", failed.unwrap_or_default());
    });
}

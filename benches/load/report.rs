//! What a run has shown: lines, and JSON.

use serde_json::{Value, json};

use super::plan::Plan;
use super::usage::{self, PROGRAMS, Usage};
use super::verdict::{GROWTH_MAX_KIB_PER_HOUR, JUDGED_FROM_S, growth, scaling};

/// Memory of all processes together without calls, in MiB.
const IDLE_MAX_MIB: f64 = 60.0;
/// What a live call of two tracks may add, in KiB.
const CALL_MAX_KIB: f64 = 32.0;
/// Part of the CPU time of archiving that libopus alone would take, in percent.
const LIBOPUS_MIN_PERCENT: f64 = 90.0;
/// INVITE to 200 in 99 of 100 cases, in milliseconds.
const INVITE_MAX_MS: f64 = 10.0;

/// All steps of a run, and what they were run with.
pub(crate) struct Run {
    pub(crate) version: String,
    pub(crate) machine: String,
    pub(crate) words: String,
    pub(crate) steps: Vec<Step>,
}

/// One step: so many calls at once.
pub(crate) struct Step {
    pub(crate) calls: usize,
    /// Sent, and found in the recordings.
    pub(crate) packets: u64,
    /// Kept back, and told as lost by the recordings.
    pub(crate) lost_on_purpose: u64,
    pub(crate) late_on_purpose: u64,
    /// Sent, and in no recording; and what was wrong, if anything was.
    pub(crate) missing: u64,
    pub(crate) failed: Option<String>,
    /// INVITE to 200: median, 99th percentile, longest.
    pub(crate) invite_ms: [f64; 3],
    /// Parts of a core that each program takes for a call while it lives.
    pub(crate) core_per_call: [f64; 3],
    /// Before the first call, and with all calls.
    pub(crate) idle: Usage,
    pub(crate) live: Usage,
    /// Memory of all processes in KiB while the calls spoke, by seconds.
    pub(crate) memory: Vec<(f64, f64)>,
    pub(crate) journal_bytes_per_s: f64,
    pub(crate) commits_per_s: f64,
    /// What all processes gave to disks while the calls spoke.
    pub(crate) written_bytes_per_s: f64,
    /// Of the archives, for an hour of a call.
    pub(crate) archive_bytes_per_call_hour: f64,
    /// The most that was seen waiting in a socket.
    pub(crate) socket_bytes_max: u64,
    /// Datagrams that the kernel had no room for.
    pub(crate) socket_drops: u64,
    /// From a call's end until its recording is in the catalogue, where it can be played: median, 99th percentile, longest.
    pub(crate) playable_s: [f64; 3],
    /// From the last call's end until the whole of its audio had been fetched.
    pub(crate) first_audio_s: f64,
    /// From a call's end until its recording is archived and verified.
    pub(crate) archived_s: [f64; 3],
    /// From the first call's end until all were archived; CPU seconds of each program in that time; and how much was recorded.
    pub(crate) archive_took_s: f64,
    pub(crate) archive_core_s: [f64; 3],
    pub(crate) recorded_s: f64,
    /// CPU seconds of libopus alone for a second of such a call, where that is what the archives are made of.
    pub(crate) libopus_s: Option<f64>,
    /// How late the sender was, in microseconds.
    pub(crate) behind_us: [f64; 3],
    /// How far the length of a recording is from what the client measured, at most.
    pub(crate) duration_off_ms: f64,
}

impl Run {
    pub(crate) fn begin(plan: &Plan) -> Self {
        Self { version: usage::version(), machine: usage::machine(), words: plan.words(), steps: Vec::new() }
    }

    pub(crate) fn json(&self) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(Step::json).collect();
        json!({"version": self.version, "machine": self.machine, "what": self.words, "steps": steps})
    }

    /// Memory that each further call takes, between the first step and the last; with one step, all that came with its calls.
    pub(crate) fn kib_per_call(&self) -> Option<f64> {
        let (first, last) = (self.steps.first()?, self.steps.last()?);
        if last.calls == first.calls {
            return Some(last.kib_per_call());
        }
        Some(
            (last.live.memory_kib() as f64 - first.live.memory_kib() as f64) / (last.calls as f64 - first.calls as f64),
        )
    }
}

impl Step {
    pub(crate) fn core_per_all(&self) -> f64 {
        self.core_per_call.iter().sum::<f64>() * self.calls as f64
    }

    pub(crate) fn kib_per_call(&self) -> f64 {
        self.live.memory_kib().saturating_sub(self.idle.memory_kib()) as f64 / self.calls as f64
    }

    /// For how long memory was looked at.
    fn held_s(&self) -> f64 {
        self.memory.last().map_or(0.0, |(at, _)| *at)
    }

    /// How many seconds of calls are archived in a second when nothing else is to be done.
    pub(crate) fn archive_speed(&self) -> f64 {
        self.recorded_s / self.archive_took_s
    }

    /// Which part of the CPU time of daemon and render processes, from the calls' end until all were archived, libopus alone would take.
    pub(crate) fn part_of_libopus(&self) -> Option<f64> {
        Some(self.libopus_s? * self.recorded_s / (self.archive_core_s[0] + self.archive_core_s[2]))
    }

    fn json(&self) -> Value {
        let programs =
            |values: [f64; 3]| json!({PROGRAMS[0]: values[0], PROGRAMS[1]: values[1], PROGRAMS[2]: values[2]});
        let memory = |usage: &Usage| programs(usage.0.map(|taken| taken.memory_kib as f64));
        let spread = |values: [f64; 3]| json!({"p50": values[0], "p99": values[1], "max": values[2]});
        json!({
            "calls": self.calls,
            "packets": self.packets,
            "lost_on_purpose": self.lost_on_purpose,
            "late_on_purpose": self.late_on_purpose,
            "missing": self.missing,
            "failed": self.failed,
            "invite_ms": spread(self.invite_ms),
            "core_per_call": programs(self.core_per_call),
            "idle_kib": memory(&self.idle),
            "live_kib": memory(&self.live),
            "kib_per_call": self.kib_per_call(),
            "growth_kib_per_hour": growth(&self.memory).map(|growth| growth.kib_per_hour),
            "journal_bytes_per_s": self.journal_bytes_per_s,
            "commits_per_s": self.commits_per_s,
            "written_bytes_per_s": self.written_bytes_per_s,
            "archive_bytes_per_call_hour": self.archive_bytes_per_call_hour,
            "socket_bytes_max": self.socket_bytes_max,
            "socket_drops": self.socket_drops,
            "playable_s": spread(self.playable_s),
            "first_audio_s": self.first_audio_s,
            "archived_s": spread(self.archived_s),
            "archive_took_s": self.archive_took_s,
            "archive_core_s": programs(self.archive_core_s),
            "recorded_s": self.recorded_s,
            "libopus_core_s": self.libopus_s.map(|cpu_s| cpu_s * self.recorded_s),
            "sender_behind_us": spread(self.behind_us),
            "duration_off_ms": self.duration_off_ms,
        })
    }
}

pub(crate) fn print_head(run: &Run) {
    println!("  {}\n  {}", run.machine, run.words);
    println!(
        "  {:>5} {:>9} {:>7} {:>6} {:>6} {:>7} {:>7} {:>9} {:>8} {:>9} {:>9} {:>7} {:>7} {:>8} {:>10} {:>10} {:>9}",
        "calls",
        "packets",
        "missing",
        "lost",
        "late",
        "p50 ms",
        "p99 ms",
        "recorder",
        "daemon",
        "KiB/call",
        "KB/s disk",
        "sync/s",
        "socket",
        "dropped",
        "playable s",
        "archived s",
        "x faster"
    );
}

pub(crate) fn print(step: &Step) {
    let [p50, p99, _] = step.invite_ms;
    println!(
        "  {:>5} {:>9} {:>7} {:>6} {:>6} {p50:>7.2} {p99:>7.2} {:>8.3}% {:>7.3}% {:>9.1} {:>9.1} {:>7.1} {:>7} {:>8} {:>10.2} {:>10.1} {:>9.0}",
        step.calls,
        step.packets,
        step.missing,
        step.lost_on_purpose,
        step.late_on_purpose,
        100.0 * step.core_per_call[1],
        100.0 * step.core_per_call[0],
        step.kib_per_call(),
        step.journal_bytes_per_s / 1e3,
        step.commits_per_s,
        step.socket_bytes_max,
        step.socket_drops,
        step.playable_s[1],
        step.archived_s[2],
        step.archive_speed(),
    );
    if let Some(text) = &step.failed {
        println!("        NOT GOOD: {text}");
    }
}

/// A bar: what was found, and whether it is met.
pub(crate) fn bars(run: &Run) -> Vec<(String, bool)> {
    let (Some(first), Some(last)) = (run.steps.first(), run.steps.last()) else { return Vec::new() };
    let missing: u64 = run.steps.iter().map(|step| step.missing).sum();
    let is_whole = run.steps.iter().all(|step| step.failed.is_none());
    let mut bars = vec![(format!("{missing} packets are missing that were not lost on purpose"), is_whole)];
    let idle = first.idle.memory_kib() as f64 / 1024.0;
    bars.push((format!("{idle:.1} MiB without calls, at most {IDLE_MAX_MIB}"), idle <= IDLE_MAX_MIB));
    if let Some(kib) = run.kib_per_call() {
        bars.push((format!("{kib:.1} KiB for each further call, at most {CALL_MAX_KIB}"), kib <= CALL_MAX_KIB));
    }
    for step in run.steps.iter().filter(|step| step.calls <= 500) {
        let p99 = step.invite_ms[1];
        let text = format!("{p99:.2} ms from INVITE to 200 (p99, up to {} calls), at most {INVITE_MAX_MS}", step.calls);
        bars.push((text, p99 <= INVITE_MAX_MS));
    }
    if let Some(part) = last.part_of_libopus() {
        let percent = 100.0 * part;
        let text = format!("{percent:.0} % of the CPU time of archiving is libopus', at least {LIBOPUS_MIN_PERCENT}");
        bars.push((text, percent >= LIBOPUS_MIN_PERCENT));
    }
    if last.calls > first.calls && first.core_per_all() > 0.0 {
        let (more, cost) = scaling((first.calls, first.core_per_all()), (last.calls, last.core_per_all()));
        let text = format!("{cost:.1} times the CPU for {more:.1} times the calls, {} to {}", first.calls, last.calls);
        bars.push((text, cost <= more));
    }
    bars
}

pub(crate) fn print_bars(run: &Run) {
    let Some(last) = run.steps.last() else { return };
    println!(
        "  an hour of a call is {:.1} MB in the archive; the sender was {:.0} us behind (p99)",
        last.archive_bytes_per_call_hour / 1e6,
        last.behind_us[1],
    );
    if let Some(growth) = growth(&last.memory).filter(|_| last.held_s() >= JUDGED_FROM_S) {
        println!("  memory grew by {:.0} KiB an hour; {GROWTH_MAX_KIB_PER_HOUR} are flat", growth.kib_per_hour);
    }
    for (text, met) in bars(run) {
        println!("  {} {text}", if met { "met:    " } else { "NOT MET:" });
    }
}

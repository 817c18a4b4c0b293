//! What a run has shown: lines, JSON, and a page with plots.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// One step: so many calls at once.
pub(crate) struct Step {
    pub(crate) calls: usize,
    /// Sent, and found in the recordings.
    pub(crate) packets: u64,
    /// Kept back, and told as lost by the recordings.
    pub(crate) lost_on_purpose: u64,
    pub(crate) late_on_purpose: u64,
    /// INVITE to 200: median, 99th percentile, longest.
    pub(crate) invite_ms: [f64; 3],
    /// Parts of a core that a call takes while it lives.
    pub(crate) recorder_core_per_call: f64,
    pub(crate) daemon_core_per_call: f64,
    /// Memory of all processes before the first call and with all calls.
    pub(crate) idle_kib: u64,
    pub(crate) live_kib: u64,
    /// How much of that came while the calls spoke: what a leak would show as in a long step.
    pub(crate) grown_kib: i64,
    pub(crate) journal_bytes_per_s: f64,
    pub(crate) commits_per_s: f64,
    /// Of the archives, for an hour of a call.
    pub(crate) archive_bytes_per_call_hour: f64,
    /// The most that was seen waiting in a socket.
    pub(crate) socket_bytes_max: u64,
    /// Datagrams that the kernel had no room for.
    pub(crate) socket_drops: u64,
    /// From the first call's end until all recordings are listed, and archived.
    pub(crate) listed_s: f64,
    pub(crate) archived_s: f64,
    /// How late the sender was at worst: the machine's doing.
    pub(crate) sender_behind_ms: f64,
}

impl Step {
    fn core_per_call(&self) -> f64 {
        self.recorder_core_per_call + self.daemon_core_per_call
    }

    fn json(&self) -> Value {
        json!({
            "calls": self.calls,
            "packets": self.packets,
            "lost_on_purpose": self.lost_on_purpose,
            "late_on_purpose": self.late_on_purpose,
            "invite_ms": {"p50": self.invite_ms[0], "p99": self.invite_ms[1], "max": self.invite_ms[2]},
            "recorder_core_per_call": self.recorder_core_per_call,
            "daemon_core_per_call": self.daemon_core_per_call,
            "idle_kib": self.idle_kib,
            "live_kib": self.live_kib,
            "grown_kib": self.grown_kib,
            "journal_bytes_per_s": self.journal_bytes_per_s,
            "commits_per_s": self.commits_per_s,
            "archive_bytes_per_call_hour": self.archive_bytes_per_call_hour,
            "socket_bytes_max": self.socket_bytes_max,
            "socket_drops": self.socket_drops,
            "listed_s": self.listed_s,
            "archived_s": self.archived_s,
            "sender_behind_ms": self.sender_behind_ms,
        })
    }

    fn kib_per_call(&self) -> f64 {
        self.live_kib.saturating_sub(self.idle_kib) as f64 / self.calls as f64
    }
}

pub(crate) fn print_head() {
    println!(
        "  {:>5} {:>9} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9} {:>8} {:>9} {:>9} {:>8} {:>6} {:>7} {:>9}",
        "calls",
        "packets",
        "lost",
        "late",
        "p50 ms",
        "p99 ms",
        "recorder",
        "daemon",
        "MiB idle",
        "KiB/call",
        "KB/s disk",
        "sync/s",
        "socket",
        "dropped",
        "archive s"
    );
}

pub(crate) fn print(step: &Step) {
    let [p50, p99, _] = step.invite_ms;
    println!(
        "  {:>5} {:>9} {:>6} {:>6} {p50:>9.2} {p99:>9.2} {:>8.3}% {:>8.3}% {:>8.1} {:>9.1} {:>9.1} {:>8.1} {:>6} {:>7} {:>9.1}",
        step.calls,
        step.packets,
        step.lost_on_purpose,
        step.late_on_purpose,
        100.0 * step.recorder_core_per_call,
        100.0 * step.daemon_core_per_call,
        step.idle_kib as f64 / 1024.0,
        step.kib_per_call(),
        step.journal_bytes_per_s / 1e3,
        step.commits_per_s,
        step.socket_bytes_max,
        step.socket_drops,
        step.archived_s,
    );
}

/// How cost and memory grow from the first step to the last.
pub(crate) fn print_growth(steps: &[Step]) {
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return };
    println!(
        "  while {} calls spoke, memory grew by {} KiB; an hour of a call is {:.1} MB in the archive",
        last.calls,
        last.grown_kib,
        last.archive_bytes_per_call_hour / 1e6
    );
    if steps.len() < 2 || first.core_per_call() == 0.0 || last.calls <= first.calls {
        return;
    }
    let more = last.calls as f64 / first.calls as f64;
    let cost = more * last.core_per_call() / first.core_per_call();
    let memory = last.live_kib as f64 - first.live_kib as f64;
    let memory = memory / (last.calls - first.calls) as f64;
    println!(
        "  {more:.1} times as many calls cost {cost:.1} times the CPU time; each further call takes {memory:.1} KiB"
    );
}

/// Writes `load.json` and `load.html` beside what cargo builds.
pub(crate) fn write(steps: &[Step]) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let steps_json: Vec<Value> = steps.iter().map(Step::json).collect();
    let run = json!({"version": env!("CARGO_PKG_VERSION"), "steps": steps_json});
    fs::write(folder.join("load.json"), serde_json::to_vec_pretty(&run).unwrap()).unwrap();
    fs::write(folder.join("load.html"), page(steps)).unwrap();
    println!("  load.json and load.html are in {}", folder.display());
}

fn page(steps: &[Step]) -> String {
    let plots = [
        plot("CPU, % of a core", steps, |step| 100.0 * step.core_per_call() * step.calls as f64),
        plot("Memory of all processes, MiB", steps, |step| step.live_kib as f64 / 1024.0),
        plot("INVITE to 200, 99th percentile, ms", steps, |step| step.invite_ms[1]),
        plot("To the journal, KB/s", steps, |step| step.journal_bytes_per_s / 1e3),
        plot("All archived after, s", steps, |step| step.archived_s),
    ];
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>callvault {version}: load</title>\
         <style>body{{font:15px sans-serif;max-width:45em;margin:2em auto}}svg{{width:100%;height:auto}}</style>\
         <h1>callvault {version}: load</h1><p>Every packet that was sent is in its recording. Calls at once run to the right.</p>{}</html>\n",
        plots.concat(),
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// A line over the number of calls, with the value at each step.
fn plot(title: &str, steps: &[Step], value: impl Fn(&Step) -> f64) -> String {
    const WIDTH: f64 = 600.0;
    const HEIGHT: f64 = 160.0;
    const MARGIN: f64 = 50.0;
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max);
    let (x_max, y_max) = (most(&mut steps.iter().map(|s| s.calls as f64)), most(&mut steps.iter().map(&value)));
    let place =
        |step: &Step| (MARGIN + WIDTH * step.calls as f64 / x_max, MARGIN + HEIGHT - HEIGHT * value(step) / y_max);
    let line: String = steps.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
    let marks: String = steps
        .iter()
        .map(|step| {
            let (x, y) = place(step);
            format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/><text x=\"{x:.1}\" y=\"{:.1}\">{:.3}</text>\
                 <text x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                y - 8.0,
                value(step),
                HEIGHT + MARGIN + 20.0,
                step.calls
            )
        })
        .collect();
    format!(
        "<h2>{title}</h2><svg viewBox=\"0 0 {} {}\" font-size=\"12\" text-anchor=\"middle\">\
         <path d=\"M{MARGIN} {MARGIN}v{HEIGHT}h{WIDTH}\" fill=\"none\" stroke=\"#999\"/>\
         <polyline points=\"{line}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>{marks}</svg>",
        WIDTH + 2.0 * MARGIN,
        HEIGHT + 2.0 * MARGIN,
    )
}

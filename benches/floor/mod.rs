//! The harness: a subject beside its floor.
//!
//! A floor is the least that the same work can cost on this machine: the system call, the cipher or the codec alone. Subject and floor
//! take turns (A B, B A, A B, …), so that whatever else the machine does slows both alike, and the ratio of the two turns of a round says
//! more than either cost. Printed are the medians over all rounds, and the quartiles of the ratio: when these lie far apart, the machine
//! was too busy to tell.

// Each benchmark uses a part of this.
#![allow(dead_code)]

use std::time::{Duration, Instant};

/// Quick runs only show that the benchmarks still work; asked for with this variable, and taken when cargo runs a benchmark as a test.
const QUICK_VARIABLE: &str = "CALLVAULT_BENCH_QUICK";

/// Rounds of one row: as many as fit into the time, but at least and at most so many.
struct Rounds {
    time: Duration,
    at_least: usize,
    at_most: usize,
}

const FULL: Rounds = Rounds { time: Duration::from_secs(4), at_least: 7, at_most: 301 };
const QUICK: Rounds = Rounds { time: Duration::from_millis(50), at_least: 3, at_most: 25 };

/// What one turn took.
pub(crate) struct Turn {
    took: Duration,
    units: u64,
}

impl Turn {
    /// Runs `work`, which does `units` of something.
    pub(crate) fn timed<R>(units: usize, work: impl FnOnce() -> R) -> Self {
        let mut turn = Self { took: Duration::ZERO, units: units as u64 };
        turn.add(work);
        turn
    }

    /// A turn that took so long by another clock than this thread's.
    pub(crate) fn counted(took: Duration, units: usize) -> Self {
        Self { took, units: units as u64 }
    }

    /// Runs a further part of the work; what is done between the parts is not counted.
    pub(crate) fn add<R>(&mut self, work: impl FnOnce() -> R) {
        let began = Instant::now();
        std::hint::black_box(work());
        self.took += began.elapsed();
    }

    fn ns_per_unit(&self) -> f64 {
        self.took.as_nanos() as f64 / self.units.max(1) as f64
    }
}

/// What a row of the table is called.
pub(crate) struct Row<'a> {
    /// The subject.
    pub(crate) what: &'a str,
    /// What the costs are for.
    pub(crate) unit: &'a str,
    /// The floor.
    pub(crate) floor: &'a str,
}

/// One benchmark: a table.
pub(crate) struct Bench {
    quick: bool,
}

impl Bench {
    /// Prints the head of the table.
    pub(crate) fn begin(title: &str) -> Self {
        let bench = Self::begin_without_table(title);
        print_line("what", "per", "cost", "floor", "ratio", "quartiles", "the floor is");
        bench
    }

    /// Prints the title alone, for a benchmark with a table of its own.
    pub(crate) fn begin_without_table(title: &str) -> Self {
        let asked = std::env::var_os(QUICK_VARIABLE).is_some_and(|value| value != "0" && !value.is_empty());
        let as_test = !std::env::args().any(|argument| argument == "--bench");
        let quick = asked || as_test;
        println!("\n{title}{}", if quick { " (quick: these figures mean nothing)" } else { "" });
        Self { quick }
    }

    /// A size of the work: the full one, or the quick one.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Measures a row and prints it. Both turns work on `state`; each prepares what it needs before it starts to count.
    pub(crate) fn compare<S>(
        &self,
        row: &Row<'_>,
        state: &mut S,
        mut subject: impl FnMut(&mut S) -> Turn,
        mut floor: impl FnMut(&mut S) -> Turn,
    ) {
        // The first round fills caches and buffers.
        subject(state);
        floor(state);
        let rounds = self.pick(FULL, QUICK);
        let (mut costs, mut floors, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let began = Instant::now();
        while ratios.len() < rounds.at_least || (began.elapsed() < rounds.time && ratios.len() < rounds.at_most) {
            let (cost, least);
            if ratios.len().is_multiple_of(2) {
                cost = subject(state).ns_per_unit();
                least = floor(state).ns_per_unit();
            } else {
                least = floor(state).ns_per_unit();
                cost = subject(state).ns_per_unit();
            }
            costs.push(cost);
            floors.push(least);
            ratios.push(cost / least);
        }
        let quartiles = format!("{:.2} to {:.2}", quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75));
        let (cost, least) = (time(quantile(&mut costs, 0.5)), time(quantile(&mut floors, 0.5)));
        let ratio = format!("{:.2}", quantile(&mut ratios, 0.5));
        print_line(row.what, row.unit, &cost, &least, &ratio, &quartiles, row.floor);
    }
}

fn print_line(what: &str, unit: &str, cost: &str, floor: &str, ratio: &str, quartiles: &str, floor_is: &str) {
    println!("  {what:<54} {unit:<14} {cost:>9} {floor:>9} {ratio:>6}  {quartiles:<14} {floor_is}");
}

/// The value below which the part `at` (0 to 1) of the values lies.
pub(crate) fn quantile(values: &mut [f64], at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = at * (values.len() - 1) as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// A time with three digits and its unit.
pub(crate) fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

//! Many worlds, and the mistakes that they must find.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Instant;

use callvault_simulation::{Bug, run};

/// Seeds of an ordinary run; `SEEDS=10000` for a long one.
const SEEDS: u64 = 300;

/// Seeds within which each planted mistake must be found.
const SEEDS_PER_BUG: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn again(seed: u64) -> String {
    format!("SEED={seed} cargo test --release -p callvault-simulation --test seeds one_seed -- --nocapture")
}

/// Whatever a world does, also when it panics, which is a mistake like any other.
fn run_one(seed: u64, bug: Option<Bug>) -> Result<callvault_simulation::Outcome, String> {
    std::panic::catch_unwind(|| run(seed, bug)).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

fn check_seeds(seeds: impl Iterator<Item = u64>) {
    let began = Instant::now();
    let (mut failed, mut count, mut sessions, mut gone_on, mut packets) = (Vec::new(), 0_u64, 0, 0, 0);
    let mut deaths = [0_u64; 3];
    for seed in seeds {
        count += 1;
        match run_one(seed, None) {
            Ok(outcome) => {
                sessions += outcome.sessions;
                gone_on += outcome.gone_on;
                packets += outcome.packets;
                deaths.iter_mut().zip(outcome.deaths).for_each(|(sum, one)| *sum += one);
            }
            Err(wrong) => {
                println!("seed {seed}: {wrong}\n  again: {}\n  keep it: tests/simulation/seeds.txt", again(seed));
                failed.push(seed);
            }
        }
    }
    let [recorders, daemons, power] = deaths;
    println!(
        "{count} seeds in {:.1} s: {sessions} sessions, {gone_on} times another recorder went on with one, {packets} packets compared, {recorders} recorders and {daemons} daemons killed, {power} power cuts",
        began.elapsed().as_secs_f64()
    );
    assert!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}", failed.len());
}

#[test]
fn every_seed_holds() {
    let (from, count) = (number("FROM").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    check_seeds(from..from + count);
}

/// Seeds that once found something.
#[test]
fn kept_seeds_hold() {
    let kept = include_str!("../seeds.txt");
    check_seeds(kept.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok()));
}

#[test]
fn one_seed() {
    if let Some(seed) = number("SEED") {
        println!("{:?}", run(seed, None));
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..20 {
        assert_eq!(run_one(seed, None), run_one(seed, None), "seed {seed}");
    }
}

#[test]
fn each_planted_mistake_is_found() {
    let limit = number("SEEDS_PER_BUG").unwrap_or(SEEDS_PER_BUG);
    let mut missed = Vec::new();
    for &bug in Bug::ALL {
        // It must be the mistake that is found: without it the same world holds.
        let find =
            |seed| run_one(seed, Some(bug)).err().filter(|_| run_one(seed, None).is_ok()).map(|wrong| (seed, wrong));
        match (0..limit).find_map(find) {
            Some((seed, wrong)) => println!("{bug:?}: after {} seeds: {wrong}", seed + 1),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {limit} seeds: {missed:?}");
}

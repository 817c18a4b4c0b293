//! `kill -9` of a process that enqueues: what it said is there is there.
#![allow(clippy::unwrap_used)]

mod sut;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use callvault_queue::Filter;
use sut::{NOW, archive, limits, open};

const ROUNDS: u128 = 10;

// The test starts its own program again as the process to kill; these variables tell it that it is the child.
const CHILD_DIR: &str = "QUEUE_CRASH_DIR";
const CHILD_FIRST: &str = "QUEUE_CRASH_FIRST";

/// What the killed process does, until it is killed.
fn child(dir: &Path) {
    let first: u128 = std::env::var(CHILD_FIRST).unwrap().parse().unwrap();
    let queue = open(dir);
    let mut out = std::io::stdout();
    for n in first.. {
        queue.enqueue(NOW, &[archive(n)]).unwrap();
        writeln!(out, "ack {n}").unwrap();
        out.flush().unwrap();
        if n % 7 == 0
            && let Some(job) = queue.claim(NOW, &limits(9, 0)).unwrap()
            && n % 2 == 0
        {
            queue.complete(&job.id, NOW).unwrap();
        }
        if n % 50 == 49 {
            queue.compact().unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_loses_nothing_that_it_acknowledged", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_FIRST, (round * 1_000_000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut read = 0;
        // a different number each round, so that the kill meets different moments
        while read < 20 + round * 13 {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, n)) = line.split_once("ack ") {
                acknowledged.push(n.parse::<u128>().unwrap());
                read += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // what it managed to say before it died
        let rest = lines.map_while(Result::ok);
        acknowledged.extend(rest.filter_map(|line| line.split_once("ack ")?.1.parse::<u128>().ok()));
        let queue = open(dir.path());
        let missing: Vec<_> = acknowledged.iter().filter(|n| queue.get(&archive(**n).id()).is_none()).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} of {}", acknowledged.len());
        assert!(queue.list(&Filter::default()).len() >= acknowledged.len());
    }
}

//! `kill -9` of a process that ingests: each recording is there whole, with its lanes and jobs, or not at all.
#![allow(clippy::unwrap_used)]

mod sut;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use callvault_catalogue::{Filter, IngestOutcome};
use sut::{at, generation, new, open};

// The test starts its own program again as the process to kill; these variables tell it that it is the child.
const CHILD_DIR: &str = "CATALOGUE_CRASH_DIR";
const CHILD_FIRST: &str = "CATALOGUE_CRASH_FIRST";

/// What the killed process does, until it is killed.
fn child(folder: &Path) {
    let first: u128 = std::env::var(CHILD_FIRST).unwrap().parse().unwrap();
    let catalogue = open(folder);
    let mut out = std::io::stdout();
    for n in first.. {
        catalogue.ingest(&new(n), at(0)).unwrap();
        writeln!(out, "ack {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_killed_process_leaves_whole_recordings() {
    if let Some(folder) = std::env::var_os(CHILD_DIR) {
        return child(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..6_u128 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_leaves_whole_recordings", "--nocapture"])
            .env(CHILD_DIR, folder.path())
            .env(CHILD_FIRST, (round * 1_000_000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let number = |line: String| line.split_once("ack ")?.1.parse::<u128>().ok();
        let enough = acknowledged.len() as u128 + 5 + round * 7;
        while (acknowledged.len() as u128) < enough {
            acknowledged.extend(number(lines.next().unwrap().unwrap()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter_map(number));

        let catalogue = open(folder.path());
        for n in &acknowledged {
            assert_eq!(catalogue.ingest(&new(*n), at(0)).unwrap(), IngestOutcome::AlreadyThere, "{n}");
        }
        let mut recordings = BTreeSet::new();
        let mut cursor = None;
        loop {
            let page = catalogue.list(&Filter::default(), cursor).unwrap();
            recordings.extend(page.recordings.iter().map(|one| one.id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let owed: BTreeSet<_> = catalogue.owed(100_000).unwrap().into_iter().map(|job| job.recording).collect();
        let lanes: BTreeSet<_> = catalogue.lanes_needed().unwrap().into_iter().map(|lane| lane.recording).collect();
        assert!(recordings.len() >= acknowledged.len());
        assert_eq!(recordings, owed);
        assert_eq!(recordings, lanes);
        assert_eq!(catalogue.ingested_lanes(generation(0)).unwrap().len(), recordings.len());
        assert!(catalogue.check().unwrap().is_empty());
    }
}

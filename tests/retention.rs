//! Retention by the real programs: what is due goes, from every file, once, and nothing else; what is unusual is asked first; and a
//! daemon that is killed at any step of it brings it to its end.
//!
//! Nobody waits four hours here: recordings are made old in the catalogue while nothing runs. Clocks are not touched either; what a
//! clock that jumped looks like is made with a namespace in which the machine started at another time.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rig::inspect::{archive_files, files_below, journal_lanes};
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::{Appliance, wait_for, wait_until};
use rusqlite::Connection;
use serde_json::Value;

const HOUR_MS: i64 = 3_600_000;

/// Where the first key slot of an archive is: behind its state, the sealed key.
const KEY_SLOT: std::ops::Range<usize> = 69..69 + 80;

/// A stretch of sealed audio so long is in no other file by chance.
const SEALED_BYTES: usize = 48;

fn settings(keys: &str, more: &str) -> String {
    format!(
        "[archive]\ncodec = \"as-received\"\nkeys = \"{keys}\"\n[retention]\nrule = \"4-hours\"\ninterval = \"1s\"\n\
         confirm_few = 1000\n{more}"
    )
}

/// Short calls, at the same time; the ids of their recordings once they are archived.
fn calls(appliance: &Appliance, count: u32) -> Vec<String> {
    let sip = appliance.sip();
    let one = |number: u32| {
        let facts = Facts::incoming(number);
        let voices = [1, 2].map(|n| packets(&speech(u64::from(number) * 2 + n, 140.0, 8_000, 15 * FRAME)));
        let mut client = Client::udp(sip);
        let media = client.call(&webex(&facts, sip));
        play_ulaw(&media, &[&voices[0], &voices[1]]);
        client.bye();
        facts.call_id
    };
    let call_ids: Vec<String> = thread::scope(|scope| {
        let calls: Vec<_> = (1..=count).map(|number| scope.spawn(move || one(number))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    call_ids.iter().map(|call_id| appliance.archived(call_id)["id"].as_str().unwrap().to_owned()).collect()
}

fn catalogue(appliance: &Appliance) -> Connection {
    Connection::open(appliance.data().join("catalogue.db")).unwrap()
}

/// Makes recordings of an appliance that is stopped older; negative: younger.
fn age(appliance: &Appliance, ids: &[String], by_ms: i64) {
    let sql = "UPDATE recordings SET started_at_ms = started_at_ms - ?2, ended_at_ms = ended_at_ms - ?2 WHERE id = ?1";
    let db = catalogue(appliance);
    for id in ids {
        assert_eq!(db.execute(sql, (id, by_ms)).unwrap(), 1);
    }
}

fn ctl(appliance: &Appliance, arguments: &[&str]) -> Value {
    let output = appliance.ctl(&[&["--json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn there(appliance: &Appliance) -> BTreeSet<String> {
    appliance.recordings().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn set(ids: &[String]) -> BTreeSet<String> {
    ids.iter().cloned().collect()
}

/// What must be found nowhere once a recording is deleted: its sealed keys, and what its audio became.
struct Remains(Vec<(String, Vec<u8>)>);

impl Remains {
    fn of(appliance: &Appliance, ids: &[String]) -> Self {
        let mut remains = Vec::new();
        for path in archive_files(appliance) {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if !ids.contains(&name) {
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            remains.push((format!("sealed audio of {name}"), bytes[bytes.len() / 2..][..SEALED_BYTES].to_vec()));
            let sql = "SELECT keys FROM archive_keys WHERE recording_id = ?1";
            let kept_apart = catalogue(appliance).query_row(sql, [&name], |row| row.get(0));
            let key = kept_apart.unwrap_or_else(|_| bytes[KEY_SLOT].to_vec());
            remains.push((format!("the sealed key of {name}"), key));
        }
        assert_eq!(remains.len(), 2 * ids.len());
        Self(remains)
    }

    /// Which of it is in files below the folder.
    fn found(&self, folder: &Path) -> Vec<(String, PathBuf)> {
        let mut found = Vec::new();
        for path in files_below(folder) {
            let bytes = fs::read(&path).unwrap_or_default();
            let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
            found.extend(self.0.iter().filter(|(_, wanted)| has(wanted)).map(|(what, _)| (what.clone(), path.clone())));
        }
        found
    }
}

/// How often each recording was deleted, and by which rule, as the audit log has it.
fn deletions(appliance: &Appliance) -> BTreeMap<String, Vec<String>> {
    let list = ctl(appliance, &["audit", "list", "--action", "delete", "--limit", "1000"]);
    let mut deletions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in list["entries"].as_array().unwrap() {
        let id = entry["recording"].as_str().unwrap().to_owned();
        deletions.entry(id).or_default().push(entry["details"]["rule"].as_str().unwrap_or_default().to_owned());
    }
    deletions
}

/// That these went, each once, wholly and by the rule, and the others are as they were.
fn assert_gone_once(appliance: &mut Appliance, gone: &[String], stay: &[String], remains: &Remains) {
    wait_until("what is due is gone", || there(appliance) == set(stay));
    wait_until("the deletions are brought to their end", || {
        appliance.jobs_left().is_empty() && archive_files(appliance).len() == stay.len()
    });
    let by_rule = gone.iter().map(|id| (id.clone(), vec!["retention 4-hours".to_owned()])).collect();
    assert_eq!(deletions(appliance), by_rule);
    let said = ctl(appliance, &["audit", "verify"]);
    assert_eq!(said["findings"].as_array().unwrap().len(), 0, "{said}");
    for id in gone {
        let answer = appliance.ask("GET", &format!("/v1/recordings/{id}"));
        assert_eq!(answer.status, 410, "{}", String::from_utf8_lossy(&answer.body));
        assert!(String::from_utf8_lossy(&answer.body).contains("retention 4-hours"));
    }
    // A journal's file stays while the recorder that made it lives.
    appliance.stop();
    appliance.launch();
    wait_until("the journal lets them go", || {
        journal_lanes(appliance).iter().all(|lane| !gone.contains(&lane.recording))
    });
    assert_eq!(remains.found(&appliance.data()), []);
    appliance.assert_verifies();
}

fn check_due_goes(keys: &str) {
    // Whatever goes is asked about, so that the plan can be held against what is done.
    let asks = settings(keys, "").replace("confirm_few = 1000", "confirm_few = 1");
    let mut appliance = Appliance::start(&asks);
    let ids = calls(&appliance, 5);
    let (due, preserved, young) = (&ids[..2], &ids[2], &ids[3..]);
    ctl(&appliance, &["recordings", "preserve", preserved]);
    appliance.stop();
    age(&appliance, &ids[..3], 5 * HOUR_MS);
    age(&appliance, &ids[3..4], 3 * HOUR_MS);
    let remains = Remains::of(&appliance, due);
    assert_eq!(remains.found(&appliance.data()).len(), remains.0.len(), "the search finds what is there");
    appliance.launch();

    // Two of five is more than the share that goes without a question.
    let plan = wait_for("the question", || {
        let plan = ctl(&appliance, &["retention", "plan"]);
        plan["question"].is_object().then_some(plan)
    });
    assert_eq!((&plan["plan"]["due"], &plan["plan"]["goes_now"]), (&2.into(), &0.into()), "{plan:#}");
    assert_eq!(plan["question"]["kind"], "large-share");
    let health = appliance.ask("GET", "/health").json();
    assert_eq!(health["components"]["retention"]["status"], "degraded", "{health:#}");
    ctl(&appliance, &["retention", "run"]);
    let dry = ctl(&appliance, &["retention", "run", "--dry-run"]);
    assert_eq!(dry["plan"]["goes_now"], 0);
    assert_eq!(there(&appliance), set(&ids), "nothing goes before it is confirmed");
    let wrong = appliance.ctl(&["retention", "confirm", "--yes", "0123456789abcdef"]);
    assert!(!wrong.status.success());
    ctl(&appliance, &["retention", "confirm", "--yes", plan["question"]["token"].as_str().unwrap()]);
    let stay: Vec<String> = [std::slice::from_ref(preserved), young].concat();
    assert_gone_once(&mut appliance, due, &stay, &remains);

    // One alone is not unusual: the plan says that it goes, and it does.
    let plan = ctl(&appliance, &["retention", "plan"]);
    assert_eq!((&plan["plan"]["due"], &plan["plan"]["goes_now"]), (&0.into(), &0.into()), "{plan:#}");
    let remains = Remains::of(&appliance, std::slice::from_ref(preserved));
    ctl(&appliance, &["recordings", "release", preserved]);
    assert_gone_once(&mut appliance, &ids[..3], young, &remains);
}

#[test]
fn what_is_due_goes_as_the_plan_says_with_keys_in_archives() {
    check_due_goes("file");
}

#[test]
fn what_is_due_goes_as_the_plan_says_with_keys_in_the_catalogue() {
    check_due_goes("catalogue");
}

#[test]
fn a_clock_that_jumped_deletes_nothing() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: a time namespace is made by root alone");
        return;
    }
    let mut appliance = Appliance::start(&settings("file", ""));
    let ids = calls(&appliance, 2);
    wait_until("a run by a clock that is believed", || {
        !ctl(&appliance, &["retention", "plan"])["last_run"]["at"].is_null()
    });
    appliance.stop();
    age(&appliance, &ids[..1], 5 * HOUR_MS);
    // The clock that cannot jump says that an hour more has passed than the wall clock does.
    appliance.spawn_by(&["unshare", "--time", "--boottime=3600"]);
    appliance.wait_ready();
    let asked = |appliance: &Appliance| ctl(appliance, &["retention", "plan"])["question"].clone();
    let question = wait_for("the question", || Some(asked(&appliance)).filter(Value::is_object));
    assert_eq!(question["kind"], "clock", "{question}");
    assert!(question["text"].as_str().unwrap().contains("behind"), "{question}");
    ctl(&appliance, &["retention", "run"]);
    // Some more runs.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(there(&appliance), set(&ids));
    // A clock that is put right needs nobody.
    let remains = Remains::of(&appliance, &ids[..1]);
    appliance.stop();
    appliance.launch();
    assert_gone_once(&mut appliance, &ids[..1], &ids[1..], &remains);
}

/// Steps at which the daemon is killed: before each of these system calls on the files, by whichever thread.
struct Steps {
    system_call: &'static str,
    files: fn(&Appliance, &[String]) -> Vec<PathBuf>,
    /// At least so many have to be met, or the test has lost its way to them.
    min: u32,
}

fn catalogue_files(appliance: &Appliance, _: &[String]) -> Vec<PathBuf> {
    ["catalogue.db", "catalogue.db-wal"].map(|name| appliance.data().join(name)).to_vec()
}

fn queue_files(appliance: &Appliance, _: &[String]) -> Vec<PathBuf> {
    files_below(&appliance.data().join("queue"))
}

/// The archives, and the folders by which they are reached.
fn stored_files(appliance: &Appliance, ids: &[String]) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| ids.iter().any(|id| path.ends_with(format!("{id}.cva")));
    let mut files: Vec<PathBuf> = archive_files(appliance).into_iter().filter(is_one).collect();
    let folders: BTreeSet<PathBuf> = files.iter().map(|file| file.parent().unwrap().to_owned()).collect();
    files.extend(folders);
    files
}

const STEPS: [Steps; 8] = [
    Steps { system_call: "pwrite64", files: catalogue_files, min: 20 },
    Steps { system_call: "fsync", files: catalogue_files, min: 2 },
    Steps { system_call: "ftruncate", files: catalogue_files, min: 1 },
    Steps { system_call: "fdatasync", files: queue_files, min: 1 },
    Steps { system_call: "openat", files: stored_files, min: 2 },
    Steps { system_call: "pwrite64", files: stored_files, min: 0 },
    Steps { system_call: "fsync", files: stored_files, min: 1 },
    Steps { system_call: "unlinkat", files: stored_files, min: 2 },
];

fn check_killed(keys: &str) {
    let mut appliance = Appliance::start(&settings(keys, ""));
    // One goes for each kind of step; one more is as old and preserved, and the rest is young.
    let ids = calls(&appliance, STEPS.len() as u32 + 2);
    let preserved = &ids[STEPS.len()];
    ctl(&appliance, &["recordings", "preserve", preserved]);
    appliance.stop();
    age(&appliance, std::slice::from_ref(preserved), 5 * HOUR_MS);
    let mut all = 0;
    for (at, steps) in STEPS.iter().enumerate() {
        let (due, stay) = (&ids[at..=at], &ids[at + 1..]);
        age(&appliance, due, 5 * HOUR_MS);
        let remains = Remains::of(&appliance, due);
        let files = (steps.files)(&appliance, due);
        let mut kills = 0;
        while is_killed_at(&mut appliance, (steps.system_call, kills + 1), &files, stay) {
            kills += 1;
        }
        assert!(kills >= steps.min, "{} of {files:?}: only {kills} kills", steps.system_call);
        all += kills;
        // The step may come when it stops.
        appliance.kill();
        appliance.launch();
        assert_gone_once(&mut appliance, &ids[..=at], stay, &remains);
        appliance.stop();
    }
    eprintln!("{all} kills");
}

/// Starts a daemon that is killed at that step; whether it was before the work was done.
fn is_killed_at(appliance: &mut Appliance, step: (&str, u32), files: &[PathBuf], stay: &[String]) -> bool {
    appliance.spawn_killed_at(step, files);
    wait_for("a kill, or the end of the work", || {
        if appliance.is_killed() {
            return Some(true);
        }
        let is_done = appliance.is_ready()
            && there(appliance) == set(stay)
            && appliance.jobs_left().is_empty()
            && archive_files(appliance).len() == stay.len();
        is_done.then_some(false)
    })
}

#[test]
fn a_daemon_that_is_killed_at_any_step_of_retention_deletes_once_with_keys_in_archives() {
    check_killed("file");
}

#[test]
fn a_daemon_that_is_killed_at_any_step_of_retention_deletes_once_with_keys_in_the_catalogue() {
    check_killed("catalogue");
}

//! Archives are moved to another store and back: whatever dies or fails meanwhile, each recording can be played all the while, is in one
//! store in the end and whole, and what is deleted is gone from both.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use rig::inspect::files_below;
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::share::Share;
use rig::sip::Client;
use rig::sound::{FRAME, find_exact, from_ulaw, packets, speech};
use rig::{Appliance, http, wait_until};
use serde_json::{Value, json};

const SETTINGS: &str = "[archive]\ncodec = \"as-received\"\n[store]\ntimeout = \"2s\"\n";

/// A third of a second.
const PACKETS: usize = 15;

fn voices(number: u32) -> [Vec<Vec<u8>>; 2] {
    [120.0, 220.0].map(|pitch| packets(&speech(u64::from(number) + pitch as u64, pitch, 8_000, PACKETS * FRAME)))
}

/// Makes the calls of these numbers at the same time; their recordings, once they are archived.
fn calls(appliance: &Appliance, numbers: impl Iterator<Item = u32>) -> Vec<(u32, Value)> {
    let sip = appliance.sip();
    let one = |number: u32| {
        let facts = Facts::incoming(number);
        let mut client = Client::udp(sip);
        let media = client.call(&webex(&facts, sip));
        let voices = voices(number);
        play_ulaw(&media, &[&voices[0], &voices[1]]);
        client.bye();
        (number, facts.call_id)
    };
    let made: Vec<(u32, String)> = thread::scope(|scope| {
        let calls: Vec<_> = numbers.map(|number| scope.spawn(move || one(number))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    made.into_iter().map(|(number, call_id)| (number, appliance.archived(&call_id))).collect()
}

fn id(recording: &Value) -> &str {
    recording["id"].as_str().unwrap()
}

/// Path of an archive in its store: the day on which it began, which is in every store the same.
fn path_of(recording: &Value) -> String {
    let day = recording["started_at"].as_str().unwrap()[..10].replace('-', "/");
    format!("{day}/{}.cva", id(recording))
}

/// That every packet of each call can be heard.
fn assert_heard(appliance: &Appliance, calls: &[(u32, Value)]) {
    for (number, recording) in calls {
        for (channel, voice) in appliance.wav(recording).channels.iter().zip(voices(*number)) {
            find_exact(channel, &from_ulaw(&voice.concat())).unwrap();
        }
    }
}

/// Names of the archives in a store, and of what else is there but what belongs to the store itself.
fn stored(store: &Path) -> BTreeSet<String> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let own = [".callvault-store", ".callvault-proof.tmp"];
    files_below(store).iter().map(name).filter(|name| !own.contains(&name.as_str())).collect()
}

fn names(calls: &[(u32, Value)]) -> BTreeSet<String> {
    calls.iter().map(|(_, recording)| format!("{}.cva", id(recording))).collect()
}

fn migrate(appliance: &Appliance, to: &Path, rate_bytes_per_s: u64) -> http::Response {
    let body = json!({"to": to, "rate_bytes_per_s": rate_bytes_per_s}).to_string();
    let token = appliance.token();
    http::ask_with(appliance.place.http(), ("POST", "/v1/store/migrate"), Some(&token), &body).unwrap()
}

fn status(appliance: &Appliance) -> Value {
    appliance.get("/v1/store")
}

/// Whether the store in use is that one, and nothing is left to be moved there.
fn is_moved(appliance: &Appliance, to: &Path) -> bool {
    let status = status(appliance);
    let stores = status["stores"].as_array().unwrap();
    let current = stores.iter().find(|store| store["current"] == true).unwrap();
    current["path"] == to.to_str().unwrap() && status["move"].is_null()
}

/// Steps at which the daemon is killed: before each of these system calls on the files.
struct Steps {
    system_call: &'static str,
    files: fn(&Appliance, &Move<'_>) -> Vec<PathBuf>,
    min: u32,
}

struct Move<'a> {
    calls: &'a [(u32, Value)],
    from: &'a Path,
    to: &'a Path,
}

fn catalogue_files(appliance: &Appliance, _: &Move<'_>) -> Vec<PathBuf> {
    ["catalogue.db", "catalogue.db-wal"].map(|name| appliance.data().join(name)).to_vec()
}

fn record_files(appliance: &Appliance, _: &Move<'_>) -> Vec<PathBuf> {
    ["stores.json", "stores.json.tmp"].map(|name| appliance.data().join(name)).to_vec()
}

/// The files that a store gets, under both of their names, and the folders by which they are reached.
fn below(store: &Path, calls: &[(u32, Value)]) -> Vec<PathBuf> {
    let mut files = vec![store.to_owned()];
    for (_, recording) in calls {
        let path = store.join(path_of(recording));
        let name = path.file_name().unwrap().to_str().unwrap();
        files.push(path.with_file_name(format!(".{name}.tmp")));
        files.extend(path.ancestors().take_while(|above| *above != store).map(Path::to_owned));
    }
    files.sort();
    files.dedup();
    files
}

fn target_files(_: &Appliance, one: &Move<'_>) -> Vec<PathBuf> {
    below(one.to, one.calls)
}

fn source_files(_: &Appliance, one: &Move<'_>) -> Vec<PathBuf> {
    below(one.from, one.calls)
}

const STEPS: [Steps; 8] = [
    Steps { system_call: "fsync", files: catalogue_files, min: 4 },
    Steps { system_call: "fsync", files: record_files, min: 1 },
    Steps { system_call: "rename", files: record_files, min: 1 },
    Steps { system_call: "openat", files: target_files, min: 2 },
    Steps { system_call: "pwrite64", files: target_files, min: 1 },
    Steps { system_call: "fsync", files: target_files, min: 2 },
    Steps { system_call: "renameat", files: target_files, min: 1 },
    Steps { system_call: "unlinkat", files: source_files, min: 2 },
];

#[test]
fn a_daemon_that_is_killed_at_any_step_of_a_move_brings_it_to_its_end() {
    let mut appliance = Appliance::start(SETTINGS);
    let calls = calls(&appliance, 1..=4);
    appliance.stop();
    let (local, other) = (appliance.data().join("store"), appliance.home().join("other"));
    let mut all = 0;
    for (at, steps) in STEPS.iter().enumerate() {
        // There and back again.
        let (from, to) = if at % 2 == 0 { (&local, &other) } else { (&other, &local) };
        let files = (steps.files)(&appliance, &Move { calls: &calls, from, to });
        let mut kills = 0;
        loop {
            appliance.spawn_killed_at((steps.system_call, kills + 1), &files);
            let (mut killed, mut ordered) = (false, false);
            wait_until("a kill, or the end of the move", || {
                killed = appliance.is_killed();
                if killed || !appliance.is_ready() {
                    return killed;
                }
                if !ordered {
                    // Whether it was understood before the daemon was killed is not known, and need not be.
                    let text = to.display().to_string();
                    ordered = appliance.ctl(&["store", "migrate", "--to", &text]).status.code() != Some(3);
                }
                is_moved_if_asked(&appliance, to)
            });
            if !killed {
                break;
            }
            kills += 1;
        }
        assert!(kills >= steps.min, "{} of {files:?}: only {kills} kills", steps.system_call);
        all += kills;
        appliance.kill();
        appliance.launch();
        wait_until("the end of the move", || is_moved(&appliance, to));
        assert_eq!((stored(from), stored(to)), (BTreeSet::new(), names(&calls)), "{}", steps.system_call);
        assert_heard(&appliance, &calls);
        appliance.assert_verifies();
        appliance.stop();
    }
    eprintln!("{all} kills");
}

/// [`is_moved`] of a daemon that may be killed before it answers.
fn is_moved_if_asked(appliance: &Appliance, to: &Path) -> bool {
    let answer = http::ask(appliance.place.http(), "GET", "/v1/store", Some(&appliance.token()));
    let Ok(answer) = answer else { return false };
    let Ok(status) = serde_json::from_slice::<Value>(&answer.body) else { return false };
    let stores = status["stores"].as_array().cloned().unwrap_or_default();
    stores.iter().any(|store| store["current"] == true && store["path"] == to.to_str().unwrap())
        && status["move"].is_null()
}

#[test]
fn while_it_is_moved_everything_can_be_played_and_deleted_and_new_calls_go_to_the_new_place() {
    let appliance = Appliance::start(SETTINGS);
    let mut before = calls(&appliance, 1..=6);
    let (local, other) = (appliance.data().join("store"), appliance.home().join("other"));
    let dry = appliance.ctl(&["--json", "store", "migrate", "--dry-run", "--to", other.to_str().unwrap()]);
    let plan: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!((&plan["plan"]["archives"], &plan["plan"]["fits"]), (&6.into(), &true.into()), "{plan}");
    assert!(!other.exists(), "nothing is made by that");

    // About a second each.
    assert_eq!(migrate(&appliance, &other, 40_000).status, 200);
    assert_eq!(status(&appliance)["move"]["rate_bytes_per_s"], 40_000);
    wait_until("the first is moved", || !stored(&other).is_empty());
    // One that was moved, and one that was not.
    let moved = status(&appliance)["move"]["left"].as_u64().unwrap();
    assert!(moved > 1, "it is throttled");
    let is_there = |store: &Path, recording: &Value| stored(store).contains(&format!("{}.cva", id(recording)));
    let first = before.iter().position(|(_, one)| !is_there(&local, one)).or_else(|| {
        wait_until("one is only there", || before.iter().any(|(_, one)| !is_there(&local, one)));
        before.iter().position(|(_, one)| !is_there(&local, one))
    });
    let (_, one) = before.remove(first.unwrap());
    let last = before.iter().position(|(_, one)| !is_there(&other, one)).unwrap();
    let (_, two) = before.remove(last);
    for gone in [&one, &two] {
        assert!(appliance.ctl(&["recordings", "delete", "--yes", id(gone)]).status.success());
    }
    let during = calls(&appliance, 11..=12);
    for (_, recording) in &during {
        assert_eq!(recording["archive"]["store"], "store-2", "{recording:#}");
    }
    let all = [before.clone(), during].concat();
    while !is_moved(&appliance, &other) {
        assert_heard(&appliance, &all);
    }
    assert_heard(&appliance, &all);
    wait_until("the deletions are brought to their end", || appliance.jobs_left().is_empty());
    assert_eq!((stored(&local), stored(&other)), (BTreeSet::new(), names(&all)));
    appliance.assert_verifies();
    // Each is asked for by name, and refused with a reason.
    let refused = |to: &str, why: &str| {
        let output = appliance.ctl(&["store", "migrate", "--to", to]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{to}: {said}");
    };
    refused(other.to_str().unwrap(), "every archive is in");
    refused("relative/folder", "whole path");
    refused(other.join("inner").to_str().unwrap(), "one in the other");
    refused(appliance.data().join("journal").to_str().unwrap(), "appliance's own");
    refused("/proc/no-store", "failed to");
    assert!(is_moved(&appliance, &other), "what is refused changes nothing");
    let audit =
        String::from_utf8(appliance.ctl(&["--json", "audit", "list", "--action", "change-store"]).stdout).unwrap();
    assert!(audit.contains("migrate") && audit.contains(other.to_str().unwrap()), "{audit}");
}

fn check_share(fault: &str, state: &str) {
    if !Share::can_be_had() {
        return;
    }
    let mut appliance = Appliance::prepare(SETTINGS);
    let share = Share::mount(appliance.home());
    appliance.launch();
    let mut all = calls(&appliance, 1..=5);
    let (local, other) = (appliance.data().join("store"), share.point().join("callvault"));
    assert_eq!(migrate(&appliance, &other, 40_000).status, 200);
    wait_until("the first is moved", || status(&appliance)["move"]["left"] == 4);
    share.set(fault);
    wait_until("the trouble in health", || {
        let health = appliance.ask("GET", "/health").json();
        let component = &health["components"]["store"];
        component["status"] == "degraded" && component["reason"].as_str().unwrap().starts_with(state)
    });
    // What is here still can be played, whatever happens there.
    let here = |one: &&(u32, Value)| local.join(path_of(&one.1)).exists();
    let untouched: Vec<(u32, Value)> = all.iter().filter(here).cloned().collect();
    assert!(untouched.len() >= 3);
    assert_heard(&appliance, &untouched);
    // Nor does a daemon that is started now lose its way.
    if fault == "ENOSPC" {
        appliance.stop();
        appliance.launch();
        assert_heard(&appliance, &untouched);
    }
    share.set("");
    wait_until("the end of the move", || is_moved(&appliance, &other));
    all.extend(calls(&appliance, 6..=6));
    assert_heard(&appliance, &all);
    assert_eq!((stored(&local), stored(&appliance.home().join("served/callvault"))), (BTreeSet::new(), names(&all)));
    appliance.assert_verifies();
    // And back to the disk, for good.
    assert_eq!(migrate(&appliance, &local, 0).status, 200);
    wait_until("the end of the move back", || is_moved(&appliance, &local));
    assert_eq!(stored(&local), names(&all));
    assert_heard(&appliance, &all);
    appliance.stop();
}

#[test]
fn a_share_that_is_full_makes_the_move_wait() {
    check_share("ENOSPC", "full");
}

#[test]
fn a_share_that_hangs_makes_the_move_wait() {
    check_share("hung", "hung");
}

#[test]
fn an_archive_that_is_not_what_is_on_record_stays_where_it_is() {
    let appliance = Appliance::start(SETTINGS);
    let calls = calls(&appliance, 1..=3);
    let (local, other) = (appliance.data().join("store"), appliance.home().join("other"));
    let damaged = local.join(path_of(&calls[1].1));
    let whole = fs::read(&damaged).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    assert_eq!(migrate(&appliance, &other, 0).status, 200);
    wait_until("the failure is told", || {
        let status = status(&appliance);
        let failed = status["move"]["failed"].as_array().cloned().unwrap_or_default();
        failed.len() == 1 && failed[0]["id"] == calls[1].1["id"] && status["move"]["left"] == 1
    });
    wait_until("health tells it", || {
        let health = appliance.ask("GET", "/health").json();
        health["components"]["store"]["reason"].as_str().is_some_and(|text| text.contains("could not be moved"))
    });
    assert_eq!(stored(&other), names(&[calls[0].clone(), calls[2].clone()]), "no copy of it is left");
    assert_eq!(fs::read(&damaged).unwrap(), bytes);
    // Mended, it follows as soon as somebody asks again.
    fs::write(&damaged, &whole).unwrap();
    assert_eq!(migrate(&appliance, &other, 0).status, 200);
    wait_until("the end of the move", || is_moved(&appliance, &other));
    assert_heard(&appliance, &calls);
}

#[test]
fn the_settings_are_obeyed_after_a_move_and_a_lost_catalogue_comes_back_from_the_new_store() {
    let forbidding = format!("{SETTINGS}[permissions]\ndelete = \"nobody-irreversibly\"\n");
    let mut appliance = Appliance::start(&forbidding);
    let first = calls(&appliance, 1..=2);
    let (local, other) = (appliance.data().join("store"), appliance.home().join("other"));
    assert_eq!(migrate(&appliance, &other, 0).status, 200);
    wait_until("the end of the move", || is_moved(&appliance, &other));
    wait_until("the new store knows that nobody deletes", || other.join(".callvault-never-delete").exists());
    let remark = status(&appliance)["remark"].as_str().unwrap().to_owned();
    assert!(remark.contains("set store.path"), "{remark}");

    // store.path names the old store still, which means nothing; nor does it when it names the new one.
    let with_path = |path: &Path| forbidding.replace("[store]\n", &format!("[store]\npath = {path:?}\n"));
    let restart = |appliance: &mut Appliance, settings: &str| {
        appliance.stop();
        appliance.configure(settings);
        appliance.launch();
    };
    let place_of_new = |appliance: &Appliance, number: u32, store: &Path| {
        let made = calls(appliance, number..=number);
        assert!(store.join(path_of(&made[0].1)).exists(), "{} goes to {}", number, store.display());
        made
    };
    restart(&mut appliance, &forbidding);
    let mut all = [first, place_of_new(&appliance, 3, &other)].concat();
    restart(&mut appliance, &with_path(&other));
    all.extend(place_of_new(&appliance, 4, &other));
    assert!(status(&appliance)["remark"].is_null());
    // The old one again: new archives go there, and nothing is moved by that.
    restart(&mut appliance, &with_path(&local));
    let back = place_of_new(&appliance, 5, &local);
    assert!(status(&appliance)["move"].is_null());
    assert_heard(&appliance, &[all.clone(), back.clone()].concat());
    restart(&mut appliance, &with_path(&other));
    assert_heard(&appliance, &[all.clone(), back.clone()].concat());

    // Of a lost catalogue each store brings back its own.
    for (store, known) in [(&other, all.clone()), (&local, [all, back].concat())] {
        appliance.stop();
        appliance.configure(&with_path(store));
        if store == &other {
            for name in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
                let _ = fs::remove_file(appliance.data().join(name));
            }
        }
        let done = appliance.ctl(&["--json", "recover"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        appliance.launch();
        assert_eq!(appliance.recordings().len(), known.len());
        assert_heard(&appliance, &known);
    }
}

#[test]
fn what_is_deleted_while_it_is_copied_is_gone_from_both_also_when_the_daemon_is_killed() {
    let mut appliance = Appliance::start(SETTINGS);
    let mut all = calls(&appliance, 1..=4);
    let (local, other) = (appliance.data().join("store"), appliance.home().join("other"));
    // Some seconds each, so that the first is found in the middle.
    assert_eq!(migrate(&appliance, &other, 8_000).status, 200);
    for kills in [true, false] {
        let part = || {
            let name = stored(&other).into_iter().find(|name| name.ends_with(".tmp"))?;
            all.iter().position(|(_, one)| name.contains(id(one)))
        };
        let (_, gone) = all.remove(rig::wait_for("a copy that is made", part));
        assert!(appliance.ctl(&["recordings", "delete", "--yes", id(&gone)]).status.success());
        if kills {
            appliance.kill();
            appliance.launch();
        }
        let is_anywhere =
            || [&local, &other].iter().any(|store| stored(store).iter().any(|name| name.contains(id(&gone))));
        wait_until("it is gone from both", || !is_anywhere());
    }
    assert_eq!(migrate(&appliance, &other, 0).status, 200);
    wait_until("the end of the move", || is_moved(&appliance, &other));
    assert_eq!((stored(&local), stored(&other)), (BTreeSet::new(), names(&all)));
    assert_heard(&appliance, &all);
    appliance.assert_verifies();
}

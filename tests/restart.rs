//! The daemon ends and another is started by a service manager that keeps its sockets: every call goes on in its recording, whether it was
//! killed or asked to end; and where it cannot go on, it ends in order and somebody is told.
//!
//! `CALLS` and `KILLS` say how many (20 and 4 unless set); `CALLVAULT_TEST_SEED` repeats a run's moments.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use rig::keeper::Keeper;
use rig::lasting::{Allowed, Call, Silence, check_track, talk};
use rig::place::MEDIA_PORT;
use rig::random::Chance;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::{Appliance, process, wait_for, wait_until};

const SETTINGS: &str = "[archive]\ncodec = \"as-received\"\n";

/// Sockets that an appliance of the rig listens on, UDP and TCP.
const LISTENERS: usize = 2;

/// More descriptors than an appliance of the rig has.
const ENOUGH: usize = 1_000;

/// How long a client waits for a BYE.
const BYE_WITHIN: Duration = Duration::from_secs(5);

fn number(name: &str, unless_set: u32) -> u32 {
    std::env::var(name).map_or(unless_set, |text| text.parse().unwrap())
}

/// An appliance whose manager has everything.
fn kept() -> Appliance {
    let appliance = Appliance::start_kept(SETTINGS, Keeper::keeping(ENOUGH));
    wait_until("everything is kept", || survives(&appliance));
    appliance
}

fn survives(appliance: &Appliance) -> bool {
    appliance.get("/v1/status")["calls_survive_restart"].as_bool().unwrap()
}

fn keeper(appliance: &Appliance) -> &Keeper {
    appliance.keeper.as_ref().unwrap()
}

/// The sockets that a process has open, as the kernel numbers them.
fn sockets(process: u32) -> BTreeSet<u64> {
    let names = process::open_files(process)
        .into_iter()
        .filter_map(|path| path.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
    names.collect()
}

/// Begins calls, lets `disturb` do its worst while all of them talk, ends them, and judges every packet of every track: at most
/// ten packets of 20 ms may be missing for each of `kills`.
fn check(kills: u32, mut disturb: impl FnMut(&mut Appliance, &mut [Call])) {
    let calls = number("CALLS", 20);
    let mut appliance = kept();
    let mut live: Vec<Call> = (0..calls).map(|number| Call::begin(&appliance, 22_000 + number)).collect();
    let media: Vec<Vec<SocketAddr>> = live.iter().map(|call| call.media.clone()).collect();
    let (over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| talk(&media, &over, &sent));
        let _silence = Silence(&over);
        thread::sleep(Duration::from_millis(1_500));
        disturb(&mut appliance, &mut live);
        thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
    });
    let sent = sent.load(Ordering::Relaxed);
    thread::sleep(Duration::from_millis(500));
    let ids: Vec<String> = live.iter().map(|call| call.facts.call_id.clone()).collect();
    for mut call in live {
        call.come_back();
        call.client.bye();
    }
    let mut lost = 0;
    for (call, id) in ids.iter().enumerate() {
        let recording = appliance.archived(id);
        for track in 0..2 {
            lost += check_track(&appliance, &recording, (call, track), sent, Allowed::by_kills(kills));
        }
        let flaws = recording["flaws"].as_array().unwrap();
        let codes: BTreeSet<&str> = flaws.iter().map(|flaw| flaw["code"].as_str().unwrap()).collect();
        assert!(codes.is_subset(&["recorder-restarted", "packets-lost"].into()), "{recording:#}");
    }
    println!("{lost} packets of {} are lost", u64::from(sent) * 2 * u64::from(calls));
    assert_eq!(appliance.recordings().len(), ids.len(), "one recording for each session");
    appliance.assert_verifies();
}

#[test]
fn every_call_goes_on_when_the_daemon_is_killed() {
    let kills = number("KILLS", 4);
    let seed = std::env::var("CALLVAULT_TEST_SEED").map_or(0xdae_2026, |text| text.parse().unwrap());
    println!("CALLVAULT_TEST_SEED={seed} KILLS={kills}");
    let mut chance = Chance(seed);
    check(kills, |appliance, live| {
        for round in 0..kills {
            thread::sleep(Duration::from_millis(chance.below(2_000)));
            let kept: BTreeSet<u64> = keeper(appliance).sockets().into_iter().collect();
            // The next daemon is started at once, while the recorder of this one may still be writing.
            let recorder = appliance.recorder();
            appliance.kill_alone();
            appliance.launch();
            assert!(!process::lives(recorder), "two recorders write at the same time");
            assert!(sockets(appliance.daemon()).is_superset(&kept), "the sockets are the same");
            assert!(sockets(appliance.recorder()).is_superset(&kept), "also the recorder's");
            assert!(survives(appliance));
            let call = &mut live[round as usize];
            call.come_back();
            let invite = webex(&call.facts, appliance.sip());
            assert_eq!(call.client.invite(&invite).status, 200, "a re-INVITE is answered after a kill");
        }
    });
}

#[test]
fn a_restart_loses_nothing() {
    check(0, |appliance, live| {
        for round in 0..3 {
            let kept: BTreeSet<u64> = keeper(appliance).sockets().into_iter().collect();
            appliance.stop();
            // Calls go on while nobody is there, and one says something meanwhile.
            let call = &mut live[2 * round];
            let invite = call.client.begin_invite(&webex(&call.facts, appliance.sip()));
            thread::sleep(Duration::from_millis(300));
            appliance.launch();
            assert!(sockets(appliance.recorder()).is_superset(&kept), "the sockets are the same");
            assert_eq!(call.client.finish_invite(&invite).status, 200);
        }
    });
}

#[test]
fn no_recorder_is_started_beside_one_that_is_left_over() {
    let mut appliance = kept();
    let call = Call::begin(&appliance, 22_900);
    let path = appliance.data().join("recorder.lock");
    assert!(process::open_files(appliance.recorder()).contains(&path), "as long as a recorder lives it has the lock");
    appliance.kill();
    // In the place of a recorder that does not end: to stop a real one is to have it killed when its daemon dies.
    let left_over = File::open(&path).unwrap();
    left_over.try_lock().unwrap();
    appliance.spawn();
    let daemon = appliance.daemon();
    wait_until("the daemon waits", || process::open_files(daemon).contains(&path));
    thread::sleep(Duration::from_millis(500));
    assert_eq!(process::children(daemon, "callvault-recorder"), Vec::<u32>::new(), "two recorders at the same time");
    drop(left_over);
    appliance.wait_ready();
    call.client.bye();
    appliance.archived(&call.facts.call_id);
}

/// A call that is to end by a BYE from the appliance; its voice has ended before.
fn call(appliance: &Appliance, number: u32) -> (Facts, Client, Vec<SocketAddr>) {
    let facts = Facts::incoming(number);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    let (over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    let tracks = [media.clone()];
    thread::scope(|scope| {
        scope.spawn(|| talk(&tracks, &over, &sent));
        thread::sleep(Duration::from_secs(1));
        over.store(true, Ordering::Relaxed);
    });
    (facts, client, media)
}

#[test]
fn a_stop_ends_calls_and_a_restart_does_not() {
    fn check(signals: &[Signal], ends: bool) {
        let mut appliance = kept();
        let (facts, mut client, _) = call(&appliance, 23_000);
        signals.iter().for_each(|signal| process::send(appliance.daemon(), *signal));
        assert_eq!(
            client.answer_request("BYE", if ends { BYE_WITHIN } else { Duration::from_secs(1) }).is_some(),
            ends
        );
        appliance.wait_ended();
        appliance.launch();
        if !ends {
            client.bye();
        }
        assert_eq!(appliance.archived(&facts.call_id)["verdict"], "ok");
    }
    check(&[Signal::SIGTERM], false);
    // What the packaged unit does before it stops the daemon for good.
    check(&[Signal::SIGUSR1, Signal::SIGTERM], true);
    check(&[Signal::SIGINT], true);
}

#[test]
fn a_store_that_keeps_nothing_or_too_little_is_not_relied_on() {
    for most in [0, 1, 3] {
        let mut appliance = Appliance::start_kept(SETTINGS, Keeper::keeping(most));
        let part = wait_for("health says so", || {
            let health = appliance.get("/v1/status")["health"].clone();
            Some(health["components"]["restart"].clone()).filter(|part| part["status"] == "degraded")
        });
        assert!(part["reason"].as_str().unwrap().contains("FileDescriptorStoreMax"), "{part}");
        assert!(!survives(&appliance));
        let (facts, mut client, _) = call(&appliance, 23_100);
        process::send(appliance.daemon(), Signal::SIGTERM);
        assert!(client.answer_request("BYE", BYE_WITHIN).is_some(), "with {most} kept");
        appliance.wait_ended();
        keeper(&appliance).forget();
        appliance.launch();
        assert_eq!(appliance.archived(&facts.call_id)["verdict"], "ok");
    }
}

#[test]
fn ports_that_are_not_configured_any_more_are_closed_and_other_calls_go_on() {
    let mut appliance = kept();
    let calls: Vec<_> = (0..8).map(|number| call(&appliance, 23_200 + number)).collect();
    // The ports of some of the calls are in the range that is left, those of the others are not.
    let mut ports: Vec<u16> =
        calls.iter().map(|(_, _, media)| media.iter().map(SocketAddr::port).max().unwrap()).collect();
    ports.sort_unstable();
    let last = ports[3] + 1;
    appliance.configure(&format!("{SETTINGS}[media]\nports = \"{MEDIA_PORT}-{last}\"\n"));
    appliance.stop();
    appliance.launch();
    wait_until("everything is kept", || survives(&appliance));
    let pairs = usize::from(last - MEDIA_PORT).div_ceil(2);
    assert_eq!(keeper(&appliance).sockets().len(), LISTENERS + 2 * pairs, "nothing is kept that is not configured");
    let mut went_on = 0;
    for (facts, mut client, media) in calls {
        let is_left = media.iter().all(|at| at.port() <= last);
        went_on += usize::from(is_left);
        let is_ended = client.answer_request("BYE", Duration::from_millis(if is_left { 200 } else { 5_000 })).is_some();
        assert_eq!(is_ended, !is_left, "{media:?}");
        if is_left {
            client.bye();
        }
        let recording = appliance.archived(&facts.call_id);
        assert_eq!(recording["verdict"], if is_left { "ok" } else { "degraded" }, "{recording:#}");
    }
    assert_eq!(went_on, 4);
    // And all of them again.
    appliance.configure(SETTINGS);
    appliance.stop();
    appliance.launch();
    wait_until("everything is kept", || keeper(&appliance).sockets().len() == LISTENERS + 400 && survives(&appliance));
    assert_eq!(keeper(&appliance).count("sockets-2"), 2, "many are kept in one descriptor, and those before are gone");
}

#[test]
fn checkpoints_of_another_version_or_under_another_key_are_refused_and_their_calls_end() {
    fn check(change: impl Fn(&Appliance), says: &str) {
        let mut appliance = kept();
        let (facts, ..) = call(&appliance, 23_300);
        appliance.stop();
        change(&appliance);
        appliance.launch();
        let recording = appliance.archived(&facts.call_id);
        assert_eq!(recording["verdict"], "degraded", "{recording:#}");
        assert!(appliance.log().contains(says), "the log says that it {says}");
        // It does not come again.
        let (facts, client, _) = call(&appliance, 23_301);
        client.bye();
        assert_eq!(appliance.archived(&facts.call_id)["verdict"], "ok");
        appliance.assert_verifies();
    }
    let session_of = |appliance: &Appliance| {
        let folder = std::fs::read_dir(appliance.runtime().join("calls")).unwrap();
        let files = folder.map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "session")).unwrap()
    };
    check(
        |appliance| {
            let path = session_of(appliance);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[6] += 1;
            std::fs::write(path, bytes).unwrap();
        },
        "of version 2, which this recorder does not know, so its client cannot be told",
    );
    // A key that is not one: the daemon makes another.
    check(
        |appliance| keeper(appliance).slip_in("key", File::open("/dev/null").unwrap().into()),
        "the key of a daemon that is gone",
    );
}

#[test]
fn what_is_handed_over_that_is_not_ours_does_not_stop_the_start() {
    let mut appliance = kept();
    let (facts, client, _) = call(&appliance, 23_400);
    appliance.stop();
    let kept = keeper(&appliance);
    kept.slip_in("web", std::net::TcpListener::bind("127.0.0.1:0").unwrap().into());
    kept.slip_in("file", File::open("/dev/null").unwrap().into());
    kept.slip_in("socket", std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into());
    appliance.launch();
    wait_until("everything is kept", || survives(&appliance));
    assert_eq!(keeper(&appliance).count("web") + keeper(&appliance).count("file"), 0, "they are let go of");
    client.bye();
    assert_eq!(appliance.archived(&facts.call_id)["verdict"], "ok", "the call went on");
}

//! The recorder dies under live calls, again and again, and every call goes on in its recording: what is lost is counted packet by packet,
//! by who sent it and by the appliance, and both come to the same.
//!
//! `CALLS` and `KILLS` say how many (20 and 5 unless set); `CALLVAULT_TEST_SEED` repeats a run's moments.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use rig::lasting::{Allowed, Call, LOST_PER_KILL_MAX, Silence, check_track, talk};
use rig::random::Chance;
use rig::shapes::webex;
use rig::{Appliance, process, wait_until};

const SETTINGS: &str = "[archive]\ncodec = \"as-received\"\n";

fn number(name: &str, unless_set: u32) -> u32 {
    std::env::var(name).map_or(unless_set, |text| text.parse().unwrap())
}

/// Kills the recorder, and sees that another comes.
fn kill(appliance: &Appliance) {
    let recorder = appliance.recorder();
    process::send(recorder, Signal::SIGKILL);
    wait_until("another recorder", || appliance.recorder() != recorder);
}

#[test]
fn every_call_goes_on_when_the_recorder_is_killed() {
    let (calls, kills) = (number("CALLS", 20), number("KILLS", 5));
    let seed = std::env::var("CALLVAULT_TEST_SEED").map_or(0x2e5e_2026, |text| text.parse().unwrap());
    println!("CALLVAULT_TEST_SEED={seed} CALLS={calls} KILLS={kills}");
    let mut chance = Chance(seed);
    let appliance = Appliance::start(SETTINGS);
    let mut live: Vec<Call> = (0..calls).map(|number| Call::begin(&appliance, 20_000 + number)).collect();
    let media: Vec<Vec<SocketAddr>> = live.iter().map(|call| call.media.clone()).collect();
    let (over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| talk(&media, &over, &sent));
        let _silence = Silence(&over);
        // Every track has been heard before the first kill: what comes before the first packet that is written has no number.
        thread::sleep(Duration::from_millis(1_500));
        for round in 0..kills {
            thread::sleep(Duration::from_millis(chance.below(2_000)));
            kill(&appliance);
            // One of them changes something while it is still coming back.
            let call = &mut live[round as usize % calls as usize];
            call.come_back();
            let invite = webex(&call.facts, appliance.sip());
            assert_eq!(call.client.invite(&invite).status, 200, "a re-INVITE is answered after a kill");
        }
        thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
    });
    let sent = sent.load(Ordering::Relaxed);
    // What was sent last is taken before the calls end.
    thread::sleep(Duration::from_millis(500));
    let ids: Vec<String> = live.iter().map(|call| call.facts.call_id.clone()).collect();
    for mut call in live {
        call.come_back();
        call.client.bye();
    }
    wait_until("all recordings", || appliance.recordings().len() >= ids.len());
    let mut lost = 0;
    for (call, id) in ids.iter().enumerate() {
        let recording = appliance.archived(id);
        let of_tracks: Vec<u64> = (0..2)
            .map(|track| check_track(&appliance, &recording, (call, track), sent, Allowed::by_kills(kills)))
            .collect();
        lost += of_tracks.iter().sum::<u64>();
        let codes: BTreeSet<&str> =
            recording["flaws"].as_array().unwrap().iter().map(|flaw| flaw["code"].as_str().unwrap()).collect();
        assert!(codes.contains("recorder-restarted"), "{recording:#}");
        assert!(codes.is_subset(&["recorder-restarted", "packets-lost"].into()), "{recording:#}");
    }
    println!(
        "{kills} kills under {calls} calls: {lost} packets of {} are lost, {:.1} ms a kill and track",
        u64::from(sent) * 2 * u64::from(calls),
        lost as f64 * 20.0 / f64::from(kills) / f64::from(2 * calls)
    );
    assert_eq!(appliance.recordings().len(), ids.len(), "one recording for each session");
    appliance.assert_verifies();
    let left: Vec<_> =
        std::fs::read_dir(appliance.runtime().join("calls")).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "checkpoints of calls that are over: {left:?}");
}

#[test]
fn a_bye_that_comes_while_no_recorder_is_there_is_answered_by_the_next() {
    let appliance = Appliance::start(SETTINGS);
    let call = Call::begin(&appliance, 21_000);
    let (over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    let media = [call.media.clone()];
    thread::scope(|scope| {
        scope.spawn(|| talk(&media, &over, &sent));
        thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
    });
    process::send(appliance.recorder(), Signal::SIGKILL);
    call.client.bye();
    let recording = appliance.archived(&call.facts.call_id);
    // What a kill at the very end takes has nothing behind it that would tell: the row counts what it has.
    for track in recording["tracks"].as_array().unwrap() {
        let kept = track["packets"].as_u64().unwrap();
        assert!(kept + LOST_PER_KILL_MAX as u64 >= u64::from(sent.load(Ordering::Relaxed)), "{recording:#}");
    }
    appliance.assert_verifies();
}

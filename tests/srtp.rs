//! Calls whose audio is SRTP, with keys from the session description; ffmpeg secures it, so nothing here is tested against itself.

#![allow(clippy::unwrap_used)]

mod rig;

use std::net::SocketAddr;
use std::process::Child;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use rig::inspect::archived_packets;
use rig::shapes::Facts;
use rig::sip::Client;
use rig::sound::{FRAME, find_exact, from_ulaw, packets, speech};
use rig::srtp::{SUITE, TAG, key, secured, send};
use rig::{Appliance, process};
use serde_json::Value;

const AS_RECEIVED: &str = "[archive]\ncodec = \"as-received\"\n";

/// Makes a call that offers some keys and uses others, and gives its end.
fn call(appliance: &Appliance, facts: &Facts, offered: &[String; 2], used: &[String; 2], voices: &[Vec<u8>; 2]) {
    let mut client = Client::udp(appliance.sip());
    let answer = client.invite(&secured(facts, appliance.sip(), offered));
    assert_eq!(answer.status, 200, "{}", answer.head);
    let lines: Vec<&str> = answer.body.lines().filter(|line| line.starts_with("a=crypto:")).collect();
    let begins = format!("a=crypto:{TAG} {SUITE} inline:");
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.starts_with(&begins)),
        "one a=crypto with our tag per line"
    );
    assert_eq!(answer.body.matches("RTP/SAVP ").count(), 2, "the profile is answered as it was offered");
    assert!(offered.iter().all(|key| !answer.body.contains(key.as_str())), "our keys are our own");
    let ports = answer.audio_ports().into_iter().map(|port| SocketAddr::new(appliance.sip().ip(), port));
    let senders: Vec<Child> =
        ports.zip(used).zip(voices).map(|((to, key), voice)| send(to, key, voice.clone())).collect();
    for mut sender in senders {
        assert!(sender.wait().unwrap().success(), "ffmpeg failed");
    }
    client.bye();
    let log = appliance.log();
    assert!(offered.iter().all(|key| !log.contains(key.as_str())), "a key is in the log");
}

fn voices(seed: u64) -> [Vec<u8>; 2] {
    [(seed, 120.0), (seed + 1, 200.0)].map(|(seed, pitch)| packets(&speech(seed, pitch, 8_000, 150 * FRAME)).concat())
}

fn codes(recording: &Value) -> Vec<&str> {
    recording["flaws"].as_array().unwrap().iter().map(|flaw| flaw["code"].as_str().unwrap()).collect()
}

#[test]
fn what_was_secured_is_recorded_to_the_sample() {
    let appliance = Appliance::start(AS_RECEIVED);
    let (facts, voices) = (Facts::incoming(41), voices(41));
    let keys = [key(1), key(2)];
    call(&appliance, &facts, &keys, &keys, &voices);
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    let wav = appliance.wav(&recording);
    for (channel, voice) in wav.channels.iter().zip(&voices) {
        find_exact(channel, &from_ulaw(voice)).unwrap();
    }
    appliance.assert_verifies();
}

#[test]
fn what_cannot_be_opened_is_not_recorded_and_told() {
    let appliance = Appliance::start(AS_RECEIVED);
    let (facts, voices) = (Facts::incoming(42), voices(42));
    let offered = [key(1), key(2)];
    // One line with a wrong key: the other party can be heard.
    call(&appliance, &facts, &offered, &[key(1), key(3)], &voices);
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "degraded", "{recording:#}");
    assert!(codes(&recording).contains(&"audio-undecipherable"), "{recording:#}");
    assert_eq!(recording["tracks"][1]["packets"], 0);
    let heard = from_ulaw(&voices[0]);
    let wav = appliance.wav(&recording);
    assert!(wav.channels.iter().any(|channel| find_exact(channel, &heard).is_ok()));
    // Both: nothing is left, least of all noise.
    let facts = Facts::incoming(43);
    call(&appliance, &facts, &offered, &[key(3), key(4)], &voices);
    let recording = rig::wait_for("the verdict", || {
        Some(appliance.recording(&facts.call_id)).filter(|recording| recording["verdict"].is_string())
    });
    assert_eq!(recording["verdict"], "no-media", "{recording:#}");
    assert!(codes(&recording).contains(&"audio-undecipherable"), "{recording:#}");
    for track in recording["tracks"].as_array().unwrap() {
        assert_eq!(track["packets"], 0);
    }
}

/// The rollover counters and the replay window go on with the call.
#[test]
fn a_secured_call_goes_on_when_the_recorder_is_killed() {
    let appliance = Appliance::start(AS_RECEIVED);
    let (facts, keys) = (Facts::incoming(44), [key(5), key(6)]);
    let voices = [speech(51, 110.0, 8_000, 350 * FRAME), speech(52, 190.0, 8_000, 350 * FRAME)];
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&secured(&facts, appliance.sip(), &keys));
    let sent: Vec<Vec<Vec<u8>>> = voices.iter().map(|voice| packets(voice)).collect();
    let senders: Vec<Child> =
        media.iter().zip(&keys).zip(&sent).map(|((to, key), sound)| send(*to, key, sound.concat())).collect();
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(1_700));
        let recorder = appliance.recorder();
        process::send(recorder, Signal::SIGKILL);
        rig::wait_until("another recorder", || appliance.recorder() != recorder);
    }
    senders.into_iter().for_each(|mut ffmpeg| assert!(ffmpeg.wait().unwrap().success()));
    thread::sleep(Duration::from_millis(500));
    client.bye();
    let recording = appliance.archived(&facts.call_id);
    for (track, sent) in recording["tracks"].as_array().unwrap().iter().zip(&sent) {
        let (kept, lost) = (track["packets"].as_u64().unwrap(), track["lost"].as_u64().unwrap());
        assert_eq!((kept + lost, track["duplicates"].as_u64()), (sent.len() as u64, Some(0)), "{recording:#}");
        assert!(lost <= 2 * 10, "{recording:#}");
        // What is there is what was said, in its order.
        let stored = archived_packets(&appliance, &recording, track["label"].as_str().unwrap());
        let mut rest = sent.iter();
        assert!(stored.iter().all(|(_, packet)| rest.any(|payload| *payload == packet.payload)), "{recording:#}");
        assert_eq!(stored.len() as u64, kept);
    }
    assert!(!codes(&recording).contains(&"audio-undecipherable"), "{recording:#}");
    appliance.assert_verifies();
}

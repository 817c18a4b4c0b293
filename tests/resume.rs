//! The recorder dies under live calls, again and again, and every call goes on in its recording: what is lost is counted packet by packet,
//! by who sent it and by the appliance, and both come to the same.
//!
//! `CALLS` and `KILLS` say how many (20 and 5 unless set); `CALLVAULT_TEST_SEED` repeats a run's moments.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rig::inspect::archived_packets;
use rig::random::Chance;
use rig::rtp::{PACKET, Source};
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::FRAME;
use rig::{Appliance, process, wait_until};
use serde_json::Value;

const SETTINGS: &str = "[archive]\ncodec = \"as-received\"\n";

/// Packets of 20 ms that one kill may cost a track: what gathers in a batch (`journal.batch_interval`).
const LOST_PER_KILL_MAX: usize = 10;

/// Ticks of a packet of 20 ms.
const PACKET_TICKS: u64 = 960;

fn number(name: &str, unless_set: u32) -> u32 {
    std::env::var(name).map_or(unless_set, |text| text.parse().unwrap())
}

/// A call that lives through it all.
struct Call {
    facts: Facts,
    client: Client,
    media: Vec<SocketAddr>,
    is_tcp: bool,
}

impl Call {
    /// Every other call is over TCP.
    fn begin(appliance: &Appliance, number: u32) -> Self {
        let facts = Facts::incoming(number);
        let is_tcp = number % 2 == 1;
        let mut client = if is_tcp { Client::tcp(appliance.sip()) } else { Client::udp(appliance.sip()) };
        let media = client.call(&webex(&facts, appliance.sip()));
        assert_eq!(media.len(), 2);
        Self { facts, client, media, is_tcp }
    }

    /// Where a connection has died, the client makes another.
    fn come_back(&mut self) {
        if self.is_tcp {
            self.client.reconnect();
        }
    }
}

/// The payload of a packet says which it is.
fn payload(call: usize, track: usize, number: u32) -> Vec<u8> {
    let mut bytes = vec![0x55; FRAME];
    bytes[..2].copy_from_slice(&u16::try_from(call).unwrap().to_be_bytes());
    bytes[2] = u8::try_from(track).unwrap();
    bytes[3..7].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Sends on all tracks of all calls until told to stop, and then says how many packets each has got.
fn talk(media: &[Vec<SocketAddr>], over: &AtomicBool, sent: &AtomicU32) {
    let mut lines = Vec::new();
    for (call, tracks) in media.iter().enumerate() {
        for (track, to) in tracks.iter().enumerate() {
            let socket = UdpSocket::bind((to.ip(), 0)).unwrap();
            socket.connect(to).unwrap();
            let ssrc = 0xc0de_0000 + u32::try_from(call * 2 + track).unwrap();
            lines.push((socket, Source::new(ssrc, 0, 160), call, track));
        }
    }
    let begun = Instant::now();
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        for (socket, source, call, track) in &mut lines {
            socket.send(&source.packet(&payload(*call, *track, number))).unwrap();
        }
        number += 1;
        sent.store(number, Ordering::Relaxed);
        thread::sleep((begun + PACKET * number).saturating_duration_since(Instant::now()));
    }
}

/// Kills the recorder, and sees that another comes.
fn kill(appliance: &Appliance) {
    let recorder = appliance.recorder();
    process::send(recorder, Signal::SIGKILL);
    wait_until("another recorder", || appliance.recorder() != recorder);
}

/// The stretches of numbers below `sent` that are not there.
fn missing(stored: &BTreeSet<u32>, sent: u32) -> Vec<usize> {
    let mut stretches = Vec::new();
    let mut length = 0;
    for number in 0..sent {
        if stored.contains(&number) {
            stretches.extend((length > 0).then_some(length));
            length = 0;
        } else {
            length += 1;
        }
    }
    stretches.extend((length > 0).then_some(length));
    stretches
}

/// What one track of a recording has come to: how many packets are missing.
fn check_track(appliance: &Appliance, recording: &Value, (call, track): (usize, usize), sent: u32, kills: u32) -> u64 {
    let row = &recording["tracks"][track];
    let (packets, lost) = (row["packets"].as_u64().unwrap(), row["lost"].as_u64().unwrap());
    let mut stored = BTreeSet::new();
    let mut offsets = BTreeSet::new();
    for (encoding, packet) in archived_packets(appliance, recording, row["label"].as_str().unwrap()) {
        assert_eq!(encoding, "PCMU");
        let number = u32::from_be_bytes(packet.payload[3..7].try_into().unwrap());
        assert_eq!(packet.payload, payload(call, track, number), "a packet of another track");
        assert!(stored.insert(number), "packet {number} is there twice");
        offsets.insert(packet.position as i128 - i128::from(number) * i128::from(PACKET_TICKS));
    }
    let stretches = missing(&stored, sent);
    let absent: usize = stretches.iter().sum();
    let about = format!("call {call}, track {track}: {sent} sent, {packets} kept, {lost} lost, missing {stretches:?}");
    assert_eq!(offsets.len(), 1, "every packet is where it belongs: {about}");
    assert_eq!((packets, lost), (stored.len() as u64, absent as u64), "counted as it is: {about}");
    assert_eq!(packets + lost, u64::from(sent), "{about}");
    // Two kills before anything was written between them leave one stretch.
    assert!(stretches.len() <= kills as usize, "nothing is lost but by a kill: {about}");
    assert!(absent <= LOST_PER_KILL_MAX * kills as usize, "{about}");
    lost
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
        let of_tracks: Vec<u64> =
            (0..2).map(|track| check_track(&appliance, &recording, (call, track), sent, kills)).collect();
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

//! Calls beside enemies: a thousand connections that say nothing more, ten thousand packets of garbage a second at every port.
//! The calls lose nothing, and new ones are taken.

#![allow(clippy::unwrap_used)]

mod rig;

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use rig::rtp::PACKET;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, find_exact, from_ulaw, packets, speech};
use rig::traffic::{garbage, half_open, traffic};
use rig::{Appliance, process, wait_until};
use serde_json::Value;

/// Calls that live, of two tracks each.
const CALLS: u32 = 50;
/// Their length in packets.
const PACKETS: usize = 650;
/// For so many packets the calls are alone: at their beginning, when nobody can know yet whose source is the right one.
const ALONE: u32 = 30;
/// Connections that stall.
const HALF_OPEN: usize = 1_000;
/// Connections that those try to keep who may not speak to the recorder: each is closed at once, and made again.
const REFUSED: usize = 100;
/// Garbage, in packets a second.
const GARBAGE_RATE: u32 = 10_000;
/// New calls that are made meanwhile.
const NEW_CALLS: u32 = 20;

/// The rig's 400 media sockets, the connections that `limits.connections_max` lets in, and what the recorder needs for itself.
const FILES_MAX: usize = 400 + 1_200 + 100;
/// What the calls themselves have to say, and some of what there is to say about enemies.
const LOG_BYTES_MAX: usize = 200_000;

/// Addresses in a network of 256, as many as are asked for.
fn addresses(network: [u8; 3], count: u8) -> Vec<Ipv4Addr> {
    let [a, b, c] = network;
    (1..=count).map(|last| Ipv4Addr::new(a, b, c, last)).collect()
}

fn numbers(track: &Value) -> [u64; 5] {
    ["packets", "lost", "duplicates", "late", "gaps_ms"].map(|name| track[name].as_u64().unwrap())
}

#[test]
fn calls_beside_garbage_and_stalled_connections_lose_nothing() {
    let appliance = Appliance::start(
        "[archive]\ncodec = \"as-received\"\n[sip]\nallowed_peers = [\"127.77.0.0/16\", \"127.0.0.1/32\"]\n\
         [limits]\nconnections_max = 1200\n",
    );
    let recorder = appliance.recorder();
    let voice = packets(&speech(3, 140.0, 8_000, PACKETS * FRAME));
    let mut media = Vec::new();
    let mut calls: Vec<(Facts, Client)> = Vec::new();
    for number in 0..CALLS {
        let facts = Facts::incoming(number);
        let connect = if number % 2 == 0 { Client::udp } else { Client::tcp };
        let mut client = connect(appliance.sip());
        media.extend(client.call(&webex(&facts, appliance.sip())));
        calls.push((facts, client));
    }
    let talk = traffic(media.clone(), voice.clone());
    thread::sleep(PACKET * ALONE);

    // Half of the enemies may speak to the recorder, as a client that went mad might; the others may not.
    let (inside, outside) = (addresses([127, 77, 200], 20), addresses([127, 66, 0], 20));
    let enemies = [inside.clone(), outside.clone()].concat();
    let stalled = half_open(inside, appliance.sip(), HALF_OPEN);
    let turned_away = half_open(outside, appliance.sip(), REFUSED);
    let noise = garbage(&enemies, appliance.sip(), media, GARBAGE_RATE);
    wait_until("the connections are there", || process::open_files(recorder).len() > 400 + HALF_OPEN);
    for number in 0..NEW_CALLS {
        let facts = Facts::incoming(1_000 + number);
        let connect = if number % 2 == 0 { Client::udp } else { Client::tcp };
        let mut client = connect(appliance.sip());
        client.call(&webex(&facts, appliance.sip()));
        client.bye();
        thread::sleep(PACKET);
    }
    // The enemies are gone before the calls end.
    wait_until("the calls are nearly over", || talk.done() >= PACKETS as u64 - u64::from(ALONE));
    let (sent, connected, refused) = (noise.stop(), stalled.stop(), turned_away.stop());
    assert_eq!(talk.wait(), PACKETS as u64);
    thread::sleep(Duration::from_millis(100));
    let mut ended = Vec::new();
    for (facts, client) in calls {
        client.bye();
        ended.push(facts);
    }

    let heard = from_ulaw(&voice.concat());
    for facts in ended {
        let recording = appliance.archived(&facts.call_id);
        assert_eq!(recording["verdict"], "ok", "{recording:#}");
        for track in recording["tracks"].as_array().unwrap() {
            assert_eq!(numbers(track), [PACKETS as u64, 0, 0, 0, 0], "{recording:#}");
        }
        for channel in &appliance.wav(&recording).channels {
            find_exact(channel, &heard).unwrap();
        }
    }
    assert_eq!(appliance.recorder(), recorder, "the recorder lived through it");
    let (open, log_bytes) = (process::open_files(recorder).len(), appliance.log().len());
    println!(
        "{sent} packets of garbage, {connected} connections and {refused} refused; {open} files open, {log_bytes} bytes logged"
    );
    assert!(open < FILES_MAX, "the recorder has {open} files open");
    assert!(log_bytes < LOG_BYTES_MAX, "enemies filled the log with {log_bytes} bytes");
}

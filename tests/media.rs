//! What the network does to packets: nothing slides, and the counts are what was done.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rig::Appliance;
use rig::inspect::archived_packets;
use rig::random::Chance;
use rig::rtp::{PACKET, Shot, Source, fire, play};
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, correlation, find_exact, from_ulaw, g722, packets, speech};
use serde_json::Value;

const AS_RECEIVED: &str = "[archive]\ncodec = \"as-received\"\n";

/// What is done to a stream, in packets of a hundred.
struct Trouble {
    seed: u64,
    lost: u64,
    reordered: u64,
    repeated: u64,
    sequence: u16,
    timestamp: u32,
    /// From this packet on another source sends.
    new_source_at: Option<usize>,
}

/// A packet in the order of sending: which source, its number in that source, and its place in the call.
#[derive(Clone, Copy)]
struct Sent {
    source: usize,
    number: usize,
    place: usize,
}

/// A stream with its trouble: what to send when, and what the recorder can know of it.
struct Stream {
    shots: Vec<Shot>,
    order: Vec<Sent>,
}

impl Trouble {
    fn plan(&self, from: usize, payloads: &[Vec<u8>]) -> Stream {
        let mut chance = Chance(self.seed);
        let change = self.new_source_at.unwrap_or(payloads.len());
        let mut source = Source::new(0xa000_0001, 0, 160).beginning_at(self.sequence, self.timestamp);
        let mut planned: Vec<(Duration, Sent, Vec<u8>)> = Vec::new();
        for (place, payload) in payloads.iter().enumerate() {
            if place == change {
                source = Source::new(0xb000_0002, 0, 160).beginning_at(chance.next() as u16, chance.next() as u32);
            }
            let bytes = source.packet(payload);
            let (of, number) = if place < change { (0, place) } else { (1, place - change) };
            let sent = Sent { source: of, number, place };
            // Where a stream begins, ends or changes nothing is lost: what is missing there nobody can know of.
            let at_edge = [0, change, payloads.len()].iter().any(|edge| place.abs_diff(*edge) < 4);
            if !at_edge && chance.percent(self.lost) {
                continue;
            }
            let held_up = if !at_edge && chance.percent(self.reordered) { 25 + chance.below(40) } else { 0 };
            let at = PACKET * u32::try_from(place).unwrap() + Duration::from_millis(held_up);
            if chance.percent(self.repeated) {
                planned.push((at + Duration::from_millis(chance.below(30)), sent, bytes.clone()));
            }
            planned.push((at, sent, bytes));
        }
        planned.sort_by_key(|(at, ..)| *at);
        let order = planned.iter().map(|(_, sent, _)| *sent).collect();
        let shots = planned.into_iter().map(|(at, _, bytes)| Shot { at, from, bytes }).collect();
        Stream { shots, order }
    }
}

impl Stream {
    /// Packets, lost, duplicates, late: counted from the order of sending.
    fn counts(&self) -> [u64; 4] {
        let mut seen: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let (mut duplicates, mut late) = (0, 0);
        for sent in &self.order {
            let numbers = seen.entry(sent.source).or_default();
            let highest = numbers.last().copied();
            match numbers.insert(sent.number) {
                false => duplicates += 1,
                true => late += u64::from(highest.is_some_and(|highest| sent.number < highest)),
            }
        }
        let span = |numbers: &BTreeSet<usize>| numbers.last().unwrap() - numbers.first().unwrap() + 1;
        let lost: usize = seen.values().map(|numbers| span(numbers) - numbers.len()).sum();
        let kept: usize = seen.values().map(BTreeSet::len).sum();
        [kept as u64, lost as u64, duplicates, late]
    }

    /// What is to be heard: what arrived in its place, and silence where nothing did.
    fn heard(&self, payloads: &[Vec<u8>]) -> Vec<i16> {
        let mut sound = vec![0; payloads.len() * FRAME];
        for Sent { place, .. } in &self.order {
            sound[place * FRAME..(place + 1) * FRAME].copy_from_slice(&from_ulaw(&payloads[*place]));
        }
        sound
    }
}

/// Makes a call and gives its recording when it is archived.
fn record(appliance: &Appliance, number: u32, send: impl FnOnce(&[SocketAddr])) -> Value {
    let facts = Facts::incoming(number);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    send(&media);
    client.bye();
    appliance.archived(&facts.call_id)
}

fn voice(seed: u64, packets_count: usize) -> Vec<Vec<u8>> {
    packets(&speech(seed, 130.0, 8_000, packets_count * FRAME))
}

/// The left channel gets the trouble, the right one none: both must be what they should, and aligned.
fn check(appliance: &Appliance, number: u32, count: usize, trouble: &Trouble) {
    let voices = [voice(u64::from(number), count), voice(u64::from(number) + 50, count)];
    let calm = Trouble { seed: 0, lost: 0, reordered: 0, repeated: 0, sequence: 9, timestamp: 9, new_source_at: None };
    let streams = [trouble.plan(0, &voices[0]), calm.plan(1, &voices[1])];
    let (expected, heard) = (streams.each_ref().map(Stream::counts), [0, 1].map(|n| streams[n].heard(&voices[n])));
    let recording = record(appliance, number, |media| fire(media, streams.into_iter().flat_map(|s| s.shots).collect()));

    let told =
        |n: usize| ["packets", "lost", "duplicates", "late"].map(|name| recording["tracks"][n][name].as_u64().unwrap());
    assert_eq!([told(0), told(1)], expected, "packets, lost, duplicates, late; seed {}: {recording:#}", trouble.seed);
    let gaps_ms = recording["tracks"][0]["gaps_ms"].as_u64().unwrap();
    assert_eq!(gaps_ms, 20 * expected[0][1], "every lost packet is 20 ms of audio");
    let wav = appliance.wav(&recording);
    let at = [0, 1].map(|n| {
        find_exact(&wav.channels[n], &heard[n])
            .unwrap_or_else(|error| panic!("channel {n}, seed {}: {error}", trouble.seed))
    });
    assert!(at[0].abs_diff(at[1]) <= FRAME, "the tracks have slid against each other: {at:?}");
    assert!(wav.samples() <= count * FRAME + FRAME, "{} samples", wav.samples());
}

#[test]
fn nothing_slides_and_the_counts_are_what_was_done() {
    let appliance = Appliance::start(AS_RECEIVED);
    let clean =
        Trouble { seed: 11, lost: 0, reordered: 0, repeated: 0, sequence: 1, timestamp: 1, new_source_at: None };
    // Wraps of both counters, some time into the call.
    check(&appliance, 1, 120, &Trouble { sequence: 0xffff - 40, timestamp: u32::MAX - 80 * 160, ..clean });
    check(&appliance, 2, 150, &Trouble { new_source_at: Some(70), ..clean });
    let everything = Trouble {
        seed: 12,
        lost: 5,
        reordered: 5,
        repeated: 2,
        sequence: 0xffff - 100,
        timestamp: u32::MAX - 200 * 160,
        new_source_at: Some(300),
    };
    check(&appliance, 3, 500, &everything);
    check(&appliance, 4, 300, &Trouble { seed: 13, lost: 20, reordered: 15, new_source_at: Some(130), ..everything });
    appliance.assert_verifies();
}

#[test]
fn a_lossy_call_says_so() {
    let appliance = Appliance::start(AS_RECEIVED);
    let voices = [voice(5, 150), voice(6, 150)];
    let lossy =
        Trouble { seed: 5, lost: 10, reordered: 0, repeated: 0, sequence: 5, timestamp: 5, new_source_at: None };
    let recording = record(&appliance, 5, |media| {
        let shots = [lossy.plan(0, &voices[0]), Trouble { lost: 0, ..lossy }.plan(1, &voices[1])];
        fire(media, shots.into_iter().flat_map(|s| s.shots).collect());
    });
    assert_eq!(recording["verdict"], "degraded");
    let codes: Vec<_> = recording["flaws"].as_array().unwrap().iter().map(|flaw| &flaw["code"]).collect();
    assert_eq!(codes, ["packets-lost"]);
}

/// Sends payloads of another codec on both tracks and gives the recording.
fn record_codec(appliance: &Appliance, number: u32, payload_type: u8, step: u32, tracks: &[Vec<Vec<u8>>; 2]) -> Value {
    let recording = record(appliance, number, |media| {
        let mut sources = [(0xc000_0001, 0), (0xc000_0002, 1)]
            .map(|(ssrc, n)| (Source::new(ssrc, payload_type, step), tracks[n].as_slice()));
        play(media, &mut sources);
    });
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    recording
}

/// That the archive has exactly these payloads.
fn check_kept(appliance: &Appliance, recording: &Value, encoding: &str, tracks: &[Vec<Vec<u8>>; 2]) {
    for (payloads, label) in tracks.iter().zip(["1", "2"]) {
        let archived = archived_packets(appliance, recording, label);
        assert!(archived.iter().all(|(codec, _)| codec.eq_ignore_ascii_case(encoding)));
        let archived: Vec<&[u8]> = archived.iter().map(|(_, packet)| packet.payload.as_slice()).collect();
        assert_eq!(archived, payloads.iter().map(Vec::as_slice).collect::<Vec<_>>(), "track {label}");
    }
}

/// That each channel is its own speaker. An encoder and a resampler delay a little: up to 10 ms are looked at.
fn check_voices(appliance: &Appliance, recording: &Value, rate: usize, voices: &[Vec<i16>; 2]) {
    let wav = appliance.wav(recording);
    assert_eq!((wav.rate, wav.channels.len()), (rate, 2));
    for (own, other) in [(0, 1), (1, 0)] {
        let lag_max = rate as isize / 100;
        let alike = [own, other].map(|n| correlation(&wav.channels[own], &voices[n], lag_max));
        assert!(alike[0] > 0.9 && alike[1] < 0.3, "channel {own}: own voice {:.3}, other {:.3}", alike[0], alike[1]);
    }
}

fn voices(rate: usize, packets_count: usize) -> [Vec<i16>; 2] {
    [(71, 125.0), (72, 205.0)].map(|(seed, pitch)| speech(seed, pitch, rate, rate / 50 * packets_count))
}

#[test]
fn opus_passes_through_bit_for_bit() {
    let appliance = Appliance::start("[archive]\ncodec = \"opus\"\n");
    let voices = voices(48_000, 150);
    let tracks = voices.each_ref().map(|voice| rig::sound::opus(voice));
    let recording = record_codec(&appliance, 21, 111, 960, &tracks);
    assert_eq!(recording["tracks"][0]["codec"], "opus");
    check_kept(&appliance, &recording, "opus", &tracks);
    // What is played is what a decoder of our own makes of the payloads that were sent.
    let wav = appliance.wav(&recording);
    assert_eq!(wav.rate, 48_000);
    for (channel, payloads) in wav.channels.iter().zip(&tracks) {
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
        let mut heard = vec![0; payloads.len() * 960];
        for (payload, frame) in payloads.iter().zip(heard.chunks_exact_mut(960)) {
            assert_eq!(decoder.decode(payload, frame, false).unwrap(), 960);
        }
        find_exact(channel, &heard).unwrap();
    }
}

#[test]
fn g722_is_archived_as_received_and_as_opus() {
    let voices = voices(16_000, 150);
    let tracks = voices.each_ref().map(|voice| g722(voice));
    let appliance = Appliance::start(AS_RECEIVED);
    // Its RTP clock says 8,000 and its audio is 16,000 (RFC 3551 section 4.5.2).
    let recording = record_codec(&appliance, 31, 9, 160, &tracks);
    check_kept(&appliance, &recording, "G722", &tracks);
    check_voices(&appliance, &recording, 16_000, &voices);
    drop(appliance);

    let appliance = Appliance::start("[archive]\ncodec = \"opus\"\n");
    let recording = record_codec(&appliance, 32, 9, 160, &tracks);
    assert_eq!(recording["tracks"][0]["codec"], "G722");
    check_voices(&appliance, &recording, 16_000, &voices);
}

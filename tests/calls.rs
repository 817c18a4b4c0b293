//! Calls of a client that is not ours: recorded sample by sample, found with the facts that were signalled.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::sound::{Wav, correlation, find_exact, from_ulaw, packets, speech};
use rig::{Appliance, sipp, wait_for, wait_until};
use serde_json::{Value, json};

/// Length of the calls in packets of 20 ms.
const PACKETS: usize = 175;

/// Where the opposite lies of what the recording is to be like.
const OWN_VOICE_MIN: f64 = 0.9;
const OTHER_VOICE_MAX: f64 = 0.3;

/// Samples by which an encoder may move the sound: 5 ms.
const LAG_MAX: isize = 40;

/// A call as the scenario signals it.
struct Call {
    scenario: &'static str,
    transport: &'static str,
    local_name: &'static str,
    remote_name: Option<&'static str>,
    direction: &'static str,
    labels: [&'static str; 2],
}

const CALLS: [Call; 4] = [webex("u1"), webex("t1"), rfc7865("u1"), rfc7865("t1")];

const fn webex(transport: &'static str) -> Call {
    Call {
        scenario: "webex.xml",
        transport,
        local_name: "Beatrice Ålander",
        // Webex says no name of the other party.
        remote_name: None,
        direction: "outgoing",
        labels: ["1", "2"],
    }
}

const fn rfc7865(transport: &'static str) -> Call {
    Call {
        scenario: "rfc7865.xml",
        transport,
        local_name: "Jörg Weißmüller",
        remote_name: Some("Łucja Wróbel"),
        // RFC 7865 does not say who called.
        direction: "unknown",
        labels: ["96", "97"],
    }
}

/// The voices of a call: the recorded user's and the other party's.
fn voices(number: u64) -> [Vec<i16>; 2] {
    [speech(2 * number, 120.0, 8_000, PACKETS * 160), speech(2 * number + 1, 210.0, 8_000, PACKETS * 160)]
}

/// Makes the call and gives its recording when it is archived.
fn place_call(appliance: &Appliance, call: &Call, number: u64, voices: &[Vec<i16>; 2]) -> Value {
    let (local_number, remote_number) = (format!("+3902445{number:04}"), format!("+4822113{number:04}"));
    let call_id = format!("callhalf-7700{number}:0");
    let words = [
        ("local_number", local_number.as_str()),
        ("local_name", call.local_name),
        ("remote_number", remote_number.as_str()),
        ("remote_name", call.remote_name.unwrap_or_default()),
        ("call_id", call_id.as_str()),
    ];
    let sent = voices.each_ref().map(|voice| packets(voice));
    let before = unix_s();
    sipp::call(appliance, call.scenario, call.transport, &words, [&sent[0], &sent[1]]);
    let recording = appliance.archived(&call_id);
    let after = unix_s();

    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    assert_eq!(recording["local_number"], local_number.as_str());
    assert_eq!(recording["local_name"], call.local_name);
    assert_eq!(recording["remote_number"], remote_number.as_str());
    assert_eq!(recording["remote_name"], json!(call.remote_name));
    assert_eq!(recording["direction"], call.direction);
    let (started, ended) = (seconds(&recording["started_at"]), seconds(&recording["ended_at"]));
    assert!(before <= started && started < ended && ended <= after, "{before} {started} {ended} {after}");
    let length_ms = recording["duration_ms"].as_f64().unwrap();
    assert!((length_ms / 1_000.0 - (ended - started)).abs() < 0.01, "{recording:#}");
    for (track, (label, speaker)) in recording["tracks"]
        .as_array()
        .unwrap()
        .iter()
        .zip(call.labels.iter().zip([Some(call.local_name), call.remote_name.or(Some(remote_number.as_str()))]))
    {
        assert_eq!((track["label"].as_str(), track["codec"].as_str()), (Some(*label), Some("PCMU")));
        assert_eq!(track["participant"], json!(speaker));
        let counts = ["packets", "lost", "duplicates", "late", "gaps_ms"].map(|name| track[name].as_u64().unwrap());
        assert_eq!(counts, [PACKETS as u64, 0, 0, 0, 0], "{recording:#}");
    }
    assert_eq!(recording["tracks"].as_array().unwrap().len(), 2);
    recording
}

fn unix_s() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn seconds(time: &Value) -> f64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond() as f64 / 1_000.0 + 0.001
}

fn check_exact(wav: &Wav, voices: &[Vec<i16>; 2], what: &str) {
    assert_eq!((wav.rate, wav.channels.len()), (8_000, 2), "{what}");
    for ((channel, voice), side) in wav.channels.iter().zip(voices).zip(["left", "right"]) {
        let heard = from_ulaw(&packets(voice).concat());
        assert!(channel.len().abs_diff(heard.len()) <= 160, "{what}, {side}: {} samples", channel.len());
        find_exact(channel, &heard).unwrap_or_else(|error| panic!("{what}, {side}: {error}"));
    }
}

fn check_alike(wav: &Wav, voices: &[Vec<i16>; 2], what: &str) {
    assert_eq!(wav.channels.len(), 2, "{what}");
    for (own, other) in [(0, 1), (1, 0)] {
        let channel = &wav.channels[own];
        let (own, other) = (correlation(channel, &voices[own], LAG_MAX), correlation(channel, &voices[other], LAG_MAX));
        assert!(own > OWN_VOICE_MIN && other < OTHER_VOICE_MAX, "{what}: own voice {own:.3}, other voice {other:.3}");
    }
}

fn every_call(settings: &str, check: fn(&Wav, &[Vec<i16>; 2], &str)) {
    let appliance = Appliance::start(settings);
    for (call, number) in CALLS.iter().zip(1..) {
        let voices = voices(number);
        let recording = place_call(&appliance, call, number, &voices);
        let what = format!("{} over {}", call.scenario, call.transport);
        check(&appliance.wav(&recording), &voices, &what);
    }
    appliance.assert_verifies();
    wait_until("everything that was owed is done", || appliance.jobs_left().is_empty());
}

#[test]
fn as_received_is_sample_exact_with_the_recorded_user_on_the_left() {
    every_call("[archive]\ncodec = \"as-received\"\n", check_exact);
}

#[test]
fn opus_keeps_each_speaker_on_his_side() {
    every_call("[archive]\ncodec = \"opus\"\n", check_alike);
}

#[test]
fn the_journal_plays_sample_exact_before_there_is_an_archive() {
    let appliance = Appliance::start("[queue]\nbackoff_min = \"1h\"\nbackoff_max = \"1d\"\n");
    rig::appliance::keep_from_archiving(&appliance);
    let voices = voices(9);
    let words = [
        ("local_number", "+390244500"),
        ("local_name", "N"),
        ("remote_number", "+482211300"),
        ("remote_name", ""),
        ("call_id", "callhalf-9:0"),
    ];
    let sent = voices.each_ref().map(|voice| packets(voice));
    sipp::call(&appliance, "webex.xml", "u1", &words, [&sent[0], &sent[1]]);
    let recording = wait_for("the archive that fails", || {
        Some(appliance.recording("callhalf-9:0")).filter(|recording| recording["archive"]["state"] == "failed")
    });
    check_exact(&appliance.wav(&recording), &voices, "from the journal");
}

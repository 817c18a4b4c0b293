//! Recordings that were made elsewhere, brought to the real daemon: whatever kills it on the way, one is there whole or not at all.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rig::http;
use rig::sound::{find_exact, speech};
use rig::{Appliance, wait_until};
use serde_json::{Value, json};

/// Samples a second.
const RATE: u32 = 8_000;

fn ask(appliance: &Appliance, target: &str, body: &Value) -> Option<(u16, Value)> {
    let address = appliance.place.http();
    let answer = http::ask_with(address, ("POST", target), Some(&appliance.token()), &body.to_string()).ok()?;
    Some((answer.status, answer.json()))
}

fn done(appliance: &Appliance, target: &str, body: &Value) -> Value {
    let (status, answer) = ask(appliance, target, body).unwrap();
    assert_eq!(status, 200, "{target}: {answer}");
    answer
}

/// Brings a recording up to its last step.
fn brought(appliance: &Appliance, voice: &[i16]) -> String {
    let wanted = json!({"started_at": "2026-03-01T09:00:00Z", "rate_hz": RATE, "channels": 1, "local_number": "7201", "note": "brought"});
    let id = done(appliance, "/v1/imports", &wanted)["id"].as_str().unwrap().to_owned();
    let mut at = 0;
    for piece in voice.chunks(16_000) {
        let pcm: Vec<u8> = piece.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let body = json!({"at_samples": at, "pcm": STANDARD.encode(&pcm)});
        at = done(appliance, &format!("/v1/imports/{id}/audio"), &body)["samples"].as_u64().unwrap();
    }
    assert_eq!(at, voice.len() as u64);
    id
}

/// Files in the journal's folder that have no name yet.
fn unnamed(appliance: &Appliance) -> usize {
    let folder = fs::read_dir(appliance.data().join("journal")).unwrap();
    folder.flatten().filter(|entry| entry.path().extension().is_some_and(|found| found == "tmp")).count()
}

/// What makes it durable and gives it its name.
const SYSTEM_CALLS: &str = "fsync,fdatasync,rename,renameat,renameat2";

/// The daemon is killed when one of its threads is about to make the `nth` of those while it finishes; whether the recording was there
/// afterwards, or nothing where it was not killed.
fn is_there_after(nth: u32) -> Option<bool> {
    let mut appliance = Appliance::start("");
    let voice = speech(5, 140.0, RATE as usize, 5 * RATE as usize + 77);
    let id = brought(&appliance, &voice);
    let samples = json!({"samples": voice.len()});
    let tracer = appliance.kill_at("", (SYSTEM_CALLS, nth), &[]);
    let answer = ask(&appliance, &format!("/v1/imports/{id}/finish"), &samples);
    if answer.is_some() {
        return None;
    }
    wait_until("the kill", || appliance.is_killed());
    drop(tracer);
    let has_name = unnamed(&appliance) == 0;
    appliance.launch();
    assert_eq!(unnamed(&appliance), 0, "{nth}: something is left");
    if has_name {
        wait_until("the recording", || !appliance.recordings().is_empty());
    } else {
        assert!(appliance.recordings().is_empty(), "{nth}: it was not there");
        // Whoever heard nothing brings it again.
        let id = brought(&appliance, &voice);
        done(&appliance, &format!("/v1/imports/{id}/finish"), &samples);
    }
    let ids: Vec<String> = appliance.recordings().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 1, "{nth}");
    let row = appliance.archived_by_id(&ids[0]);
    assert_eq!((&row["verdict"], &row["notes"][0]["text"]), (&json!("ok"), &json!("brought")), "{row:#}");
    assert_eq!(row["duration_ms"], voice.len() as u64 * 1_000 / u64::from(RATE));
    assert_eq!(appliance.wav(&row).channels[0].len(), voice.len());
    appliance.assert_verifies();
    Some(has_name)
}

#[test]
fn a_daemon_that_is_killed_while_it_takes_one_in_has_all_of_it_or_nothing() {
    let found: Vec<bool> = (1..20).map_while(is_there_after).collect();
    assert!(found.len() < 19, "it is killed for ever");
    println!("killed at {} steps: there was a recording after {found:?}", found.len());
    // Its file's sync, its name, its folder's sync at least.
    assert!(found.len() >= 3 && found.contains(&true) && found.contains(&false), "{found:?}");
    assert!(found.is_sorted(), "what was there is there: {found:?}");
}

#[test]
fn it_is_kept_as_it_came_where_archives_are() {
    let appliance = Appliance::start("[archive]\ncodec = \"as-received\"\n");
    let voice = speech(6, 190.0, RATE as usize, 3 * RATE as usize);
    let id = brought(&appliance, &voice);
    done(&appliance, &format!("/v1/imports/{id}/finish"), &json!({"samples": voice.len()}));
    let row = appliance.archived_by_id(&id);
    assert_eq!(find_exact(&appliance.wav(&row).channels[0], &voice), Ok(0));
}

//! What people do with recordings that are there: notes, tags and preserving, searches, and an export of many that goes on where it was
//! interrupted.

#![allow(clippy::unwrap_used)]

mod rig;

use std::{collections::BTreeSet, fs};

use rig::Appliance;
use rig::rtp::play_ulaw;
use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use serde_json::Value;

/// A short call, and its recording's id.
fn call(appliance: &Appliance, number: u32) -> String {
    let facts = Facts::incoming(number);
    let voices = [(71, 120.0), (72, 220.0)].map(|(seed, pitch)| packets(&speech(seed, pitch, 8_000, 25 * FRAME)));
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    play_ulaw(&media, &[&voices[0], &voices[1]]);
    client.bye();
    appliance.archived(&facts.call_id)["id"].as_str().unwrap().to_owned()
}

/// `callvaultctl --json`: its status and what it said.
fn ctl(appliance: &Appliance, arguments: &[&str]) -> (i32, Value) {
    let output = appliance.ctl(&[&["--json"], arguments].concat());
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn found(appliance: &Appliance, search: &[&str]) -> BTreeSet<String> {
    let (status, list) = ctl(appliance, &[&["recordings", "list"], search].concat());
    assert_eq!(status, 0, "{search:?}");
    list["recordings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_added_is_found_also_after_a_restart_and_goes_with_the_recording() {
    let mut appliance = Appliance::start("[archive]\ncodec = \"as-received\"\n[retention]\nrule = \"12-months\"\n");
    let (first, second) = (call(&appliance, 1), call(&appliance, 2));
    let done = |arguments: &[&str]| {
        let (status, answer) = ctl(&appliance, &[&["recordings"], arguments].concat());
        assert_eq!(status, 0, "{arguments:?}");
        answer
    };
    done(&["tag", "add", &first, "Complaint"]);
    done(&["preserve", &first]);
    let note = done(&["note", "add", &second, "Wants a Quotation", "--at-ms", "200"]);
    let note = note["notes"][0]["id"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let check = |search: &[&str], expected: &[&String]| {
            assert_eq!(found(&appliance, search), expected.iter().map(|id| (*id).clone()).collect(), "{search:?}");
        };
        check(&["--tag", "complaint"], &[&first]);
        check(&["--note", "quotation"], &[&second]);
        check(&["--preserved", "true"], &[&first]);
        check(&["--preserved", "false"], &[&second]);
        check(&["--duration-min-ms", "3600000"], &[]);
        check(&["--direction", "incoming"], &[&first, &second]);
        appliance.stop();
        appliance.launch();
    }
    let (status, _) = ctl(&appliance, &["recordings", "note", "delete", &second, &note]);
    assert_eq!(status, 0);
    assert!(found(&appliance, &["--note", "quotation"]).is_empty());
    ctl(&appliance, &["recordings", "delete", "--yes", &first]);
    assert!(found(&appliance, &["--tag", "complaint"]).is_empty());
    appliance.assert_verifies();
}

#[test]
fn where_everything_is_kept_nothing_is_preserved() {
    let appliance = Appliance::start("[archive]\ncodec = \"as-received\"\n");
    let id = call(&appliance, 1);
    let refused = appliance.ctl(&["recordings", "preserve", &id]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("keep-all") && said.contains("administrator"), "{said}");
    assert!(found(&appliance, &["--preserved", "true"]).is_empty());
    // What was preserved under another rule can be let go.
    assert!(appliance.ctl(&["recordings", "release", &id]).status.success());
}

#[test]
fn an_export_of_many_goes_on_where_it_was_interrupted() {
    let appliance = Appliance::start("[archive]\ncodec = \"as-received\"\n");
    let ids: Vec<String> = (1..=3).map(|number| call(&appliance, number)).collect();
    let folder = appliance.home().join("exported");
    let export = || {
        let folder = folder.display().to_string();
        let (status, said) = ctl(&appliance, &["recordings", "export", "--folder", &folder, "--direction", "incoming"]);
        assert_eq!(status, 0, "{said}");
        [&said["exported"], &said["there_already"], &said["failed"]].map(|number| number.as_u64().unwrap())
    };
    let files = || -> BTreeSet<String> {
        let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("wav")).collect()
    };
    assert_eq!(export(), [3, 0, 0]);
    let all = files();
    assert!(ids.iter().all(|id| all.iter().any(|name| name.contains(id.as_str()))), "{all:?}");
    // as it would be after a kill in the middle of a file
    let lost = all.first().unwrap();
    let whole = fs::read(folder.join(lost)).unwrap();
    fs::rename(folder.join(lost), folder.join(format!(".{lost}.part"))).unwrap();
    fs::write(folder.join(format!(".{lost}.part")), &whole[..100]).unwrap();
    assert_eq!(export(), [1, 2, 0]);
    assert_eq!((files(), fs::read(folder.join(lost)).unwrap()), (all, whole));
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let entries = manifest["recordings"].as_array().unwrap();
    assert_eq!(entries.len(), 3);
    // What a run before left is in it as well, each with the sum that any other program has of the file.
    for entry in entries {
        let file = folder.join(entry["file"].as_str().unwrap());
        let said = std::process::Command::new("sha256sum").arg(&file).output().unwrap().stdout;
        assert_eq!(String::from_utf8(said).unwrap().split(' ').next(), entry["sha256"].as_str(), "{entry}");
    }
}

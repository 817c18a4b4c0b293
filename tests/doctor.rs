//! `callvaultctl doctor` with the real programs: what it says of an appliance that is stopped, of one that runs, and of one that is ill.

#![allow(clippy::unwrap_used)]

mod rig;

use nix::sys::signal::Signal;
use rig::{Appliance, process, wait_for};
use serde_json::Value;

/// Everything that the doctor says, and its exit status.
fn examined(appliance: &Appliance) -> (i32, Value) {
    let output = appliance.ctl(&["doctor", "--json"]);
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap(), said)
}

/// What it says of a part that is not well.
fn wrong(diagnosis: &Value, part: &str) -> Option<String> {
    let findings = diagnosis["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["part"] == part && finding["state"] != "well")?;
    Some(found["text"].as_str().unwrap().to_owned())
}

#[test]
fn the_doctor_tells_a_stopped_appliance_from_one_that_runs_and_one_that_is_ill() {
    let mut appliance = Appliance::prepare("");
    let (status, diagnosis) = examined(&appliance);
    assert_eq!((status, &diagnosis["running"]), (1, &Value::Null));
    let said = wrong(&diagnosis, "service").unwrap();
    assert!(said.contains("no call is recorded"), "{said}");
    assert_eq!(wrong(&diagnosis, "ports"), None, "{diagnosis:#}");

    appliance.launch();
    let (status, diagnosis) = examined(&appliance);
    assert_eq!(status, 0, "{diagnosis:#}");
    assert!(diagnosis["running"].is_u64());
    for part in ["configuration", "service", "programs", "keys", "data", "store", "ports"] {
        assert_eq!(wrong(&diagnosis, part), None);
    }
    let shown = String::from_utf8(appliance.ctl(&["doctor"]).stdout).unwrap();
    assert!(shown.lines().next().unwrap().starts_with("STATE"), "{shown}");

    // A recorder that does nothing is killed after some seconds, and replaced; until then the doctor names it.
    process::send(appliance.recorder(), Signal::SIGSTOP);
    let said = wait_for("the doctor names the recorder", || {
        let (status, diagnosis) = examined(&appliance);
        wrong(&diagnosis, "recorder").filter(|_| status == 1)
    });
    assert!(said.contains("recorder"), "{said}");
}

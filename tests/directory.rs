//! Users: imported, changed while the appliance runs, and what follows for calls: owned, filtered, or nobody's.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::offer::Offer;
use rig::shapes::{Facts, webex_offering};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::speaker::Speaker;
use rig::{Appliance, wait_for};
use serde_json::{Value, json};

/// A whole call of the recorded user with that number; how it ended up.
fn call(appliance: &Appliance, number: u32, change: impl FnOnce(&mut Facts)) -> Value {
    let mut facts = Facts::incoming(number);
    change(&mut facts);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &Offer::two(appliance.place.ip).text()));
    let speaker = Speaker::start(&media);
    let said = packets(&speech(u64::from(number), 150.0, 8_000, 25 * FRAME));
    speaker.say_all(&[&said, &said]);
    let id = wait_for("the call in the list", || {
        let calls = appliance.get("/v1/calls")["calls"].as_array().unwrap().clone();
        let call = calls.into_iter().find(|call| call["local_number"] == facts.local_number.as_str())?;
        Some(call["id"].as_str().unwrap().to_owned())
    });
    drop(speaker);
    client.bye();
    wait_for("the row", || Some(appliance.ask("GET", &format!("/v1/recordings/{id}"))).filter(|r| r.status == 200))
        .json()
}

fn ctl(appliance: &Appliance, arguments: &[&str]) -> Value {
    let output = appliance.ctl(&[&["--json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn calls_are_their_users_or_not_kept_and_users_change_while_calls_come() {
    let appliance = Appliance::start("[archive]\ncodec = \"as-received\"\n[filters]\nblacklist = [\"+4930770!3\"]\n");
    let before = call(&appliance, 1, |_| {});
    assert_eq!((&before["verdict"], &before["owner"]), (&json!("ok"), &Value::Null), "nobody is known yet");
    let file = appliance.home().join("users.csv");
    let number = |n: u32| Facts::incoming(n).local_number;
    let text = format!(
        "\u{feff}webex_email;first_name;last_name;first_extension;group\r\nann@example.com;Ann;Lee;{};Sales\r\nbob@example.com;Bob;;{};\r\n",
        number(2),
        number(3)
    );
    std::fs::write(&file, text).unwrap();
    let done = ctl(&appliance, &["users", "import", file.to_str().unwrap()]);
    assert_eq!(done["added"].as_array().map(Vec::len), Some(2), "{done:#}");

    let owned = call(&appliance, 2, |_| {});
    let shown = ["verdict", "owner", "owner_name", "owner_group", "matched_by"].map(|name| owned[name].as_str());
    assert_eq!(shown, ["ok", "ann@example.com", "Ann Lee", "Sales", "number"].map(Some), "{owned:#}");
    let filtered = call(&appliance, 3, |_| {});
    let unknown = call(&appliance, 4, |_| {});
    for row in [&filtered, &unknown] {
        assert_eq!((&row["verdict"], &row["local_number"]), (&json!("discarded"), &Value::Null), "{row:#}");
    }
    let noted = ctl(&appliance, &["discards", "list"]);
    let noted: Vec<_> = noted["discards"].as_array().unwrap().iter().map(|one| (&one["rule"], &one["owner"])).collect();
    let expected = [(&json!("no-user"), &Value::Null), (&json!("blacklist"), &json!("bob@example.com"))];
    assert_eq!(noted, expected);

    // Known from the next call on, without anything being restarted.
    ctl(&appliance, &["users", "set", "eve@example.com", &format!("extension_alias={}", number(4))]);
    ctl(&appliance, &["users", "set", "ann@example.com", "recording_mode=never"]);
    let known = call(&appliance, 4, |facts| facts.call_id = "callhalf-again:0".into());
    assert_eq!((&known["verdict"], &known["owner"]), (&json!("ok"), &json!("eve@example.com")), "{known:#}");
    let never = call(&appliance, 2, |facts| facts.call_id = "callhalf-never:0".into());
    assert_eq!(never["verdict"], "discarded", "{never:#}");
    assert_eq!(ctl(&appliance, &["discards", "list", "--rule", "user-never"])["discards"][0]["id"], never["id"]);
    assert_eq!(ctl(&appliance, &["recordings", "show", owned["id"].as_str().unwrap()])["owner"], "ann@example.com");
}

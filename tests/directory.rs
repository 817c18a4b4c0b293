//! The directory of users, from a file to the owner of a recording: who is found, what is filtered, what belongs to nobody.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;

use rig::offer::Offer;
use rig::shapes::{Facts, webex_offering};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::speaker::Speaker;
use rig::{Appliance, wait_for, wait_until};
use serde_json::Value;

const SETTINGS: &str = "[archive]\ncodec = \"as-received\"\n[numbers]\ncountry_code = \"39\"\nnational_prefix = \"\"\n\
                        [filters]\nblacklist = [\"+4989!\"]\n";

/// A call with these numbers, half a second long.
fn call(appliance: &Appliance, number: u32, change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = Facts::incoming(number);
    change(&mut facts);
    let offer = Offer::two(appliance.place.ip);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &offer.text()));
    let said = packets(&speech(u64::from(number), 120.0, 8_000, 25 * FRAME));
    Speaker::start(&media).say_all(&[&said, &said]);
    client.bye();
    facts
}

fn discarded(appliance: &Appliance) -> Vec<Value> {
    let all = appliance.recordings();
    all.into_iter().filter(|recording| recording["verdict"] == "discarded").collect()
}

/// What the operator's command says, and whether it succeeded.
fn ctl(appliance: &Appliance, arguments: &[&str]) -> (bool, String) {
    let output = appliance.ctl(arguments);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn calls_belong_to_their_users_and_to_nobody_else() {
    let mut appliance = Appliance::start(SETTINGS);
    // As long as there is nobody, every call is kept, and belongs to nobody.
    let before = call(&appliance, 41_000, |_| ());
    let recording = appliance.archived(&before.call_id);
    assert_eq!((&recording["owner"], &recording["matched_by"]), (&Value::Null, &Value::Null), "{recording:#}");

    let [ann, bob] = [41_001, 41_002].map(|number| Facts::incoming(number).local_number);
    let file = appliance.home().join("users.csv");
    let text = format!(
        "webex_email;first_name;last_name;first_extension;group;recording_mode\n\
         ann@example.com;Ann;Lee;{ann};Sales;\nbob@example.com;Bob;Ray;{bob};;never\n"
    );
    fs::write(&file, &text).unwrap();
    let path = file.to_str().unwrap();
    let (is_done, said) = ctl(&appliance, &["users", "import", path, "--dry-run"]);
    assert!(is_done && said.contains("2 would be added"), "{said}");
    assert!(ctl(&appliance, &["users", "list"]).1.contains("there are no users"));
    let (is_done, said) = ctl(&appliance, &["users", "import", path]);
    assert!(is_done && said.contains("2 were added"), "{said}");

    let owned = call(&appliance, 41_001, |_| ());
    let recording = appliance.archived(&owned.call_id);
    let found = ["owner", "owner_name", "matched_by"].map(|field| recording[field].as_str().unwrap());
    assert_eq!(found, ["ann@example.com", "Ann Lee", "number"], "{recording:#}");
    assert!(discarded(&appliance).is_empty());

    // Never, black-listed, and of nobody: three rules, and nothing that could be heard.
    call(&appliance, 41_002, |_| ());
    call(&appliance, 41_001, |facts| {
        facts.remote_number = "+49891234567".into();
        facts.call_id.push_str("-b");
    });
    call(&appliance, 41_003, |_| ());
    let rows = wait_for("three that are discarded", || Some(discarded(&appliance)).filter(|rows| rows.len() == 3));
    let mut rules: Vec<&str> = Vec::new();
    for row in &rows {
        rules.push(row["flaws"][0]["text"].as_str().unwrap());
        let audio = appliance.ask("GET", &format!("/v1/recordings/{}/audio?format=wav", row["id"].as_str().unwrap()));
        assert_eq!(audio.status, 422, "{row:#}");
    }
    let noted = ctl(&appliance, &["discards", "list"]).1;
    for rule in ["user-never", "filter-blacklist", "unknown-user"] {
        assert!(rules.iter().any(|text| text.contains(rule)), "{rule}: {rules:?}");
        assert!(noted.contains(rule), "{rule}: {noted}");
    }

    // A user who is removed leaves the recordings, with the name; a catch-all has what nobody else has.
    assert!(ctl(&appliance, &["users", "remove", "ann@example.com"]).0);
    assert!(ctl(&appliance, &["users", "set", "all@example.com", "catch_all=yes"]).0);
    assert_eq!(appliance.archived(&owned.call_id)["owner_name"], "Ann Lee");
    appliance.stop();
    appliance.launch();
    let caught = call(&appliance, 41_004, |_| ());
    let recording = appliance.archived(&caught.call_id);
    let found = ["owner", "matched_by"].map(|field| recording[field].as_str().unwrap());
    assert_eq!(found, ["all@example.com", "catch-all"], "{recording:#}");
    appliance.assert_verifies();
}

#[test]
fn a_file_that_is_wrong_changes_nothing() {
    let appliance = Appliance::start("");
    let check = |name: &str, text: &str, arguments: &[&str], expected: &[&str]| {
        let file = appliance.home().join(name);
        fs::write(&file, text).unwrap();
        let (is_done, said) = ctl(&appliance, &[&["users", "import", file.to_str().unwrap()], arguments].concat());
        assert!(!is_done, "{said}");
        expected.iter().for_each(|part| assert!(said.contains(part), "{part}: {said}"));
    };
    check(
        "a.csv",
        "webex_email,pin\nann,1\nb@x,12345\nc@x,7\n",
        &[],
        &["line 2: webex_email must be", "line 4: pin must be"],
    );
    check("a.csv", "webex_email,grup\nann@x,1\n", &[], &["line 1", "did you mean group"]);
    check("a.toml", "[[user]]\nwebex_email = 'a@x'\nlevel = 'boss'\n", &[], &["line 1: level must be one of"]);
    check("a.xls", "x", &[], &[".csv or a .toml"]);
    assert_eq!(appliance.get("/v1/users")["users"].as_array().unwrap().len(), 0);

    let many: String = (0..8).map(|number| format!("u{number}@x\n")).collect();
    let file = appliance.home().join("all.csv");
    fs::write(&file, format!("webex_email\n{many}")).unwrap();
    assert!(ctl(&appliance, &["users", "import", file.to_str().unwrap()]).0);
    check("one.csv", "webex_email\nu0@x\n", &["--remove-missing"], &["7 of 8 users would be removed", "--confirm"]);
    let one = appliance.home().join("one.csv");
    let confirmed = ["users", "import", one.to_str().unwrap(), "--remove-missing", "--confirm"];
    assert!(ctl(&appliance, &confirmed).1.contains("7 removed"));
    wait_until("one is left", || appliance.get("/v1/users")["users"].as_array().unwrap().len() == 1);
    // What is secret is never shown.
    assert!(ctl(&appliance, &["users", "set", "u0@x", "pin=4711", "initial_password=geheim"]).0);
    let shown = ctl(&appliance, &["users", "show", "u0@x", "--json"]).1;
    assert!(!shown.contains("4711") && !shown.contains("geheim") && shown.contains("u0@x"), "{shown}");
}

#[test]
fn a_user_has_a_picture_that_nobody_reads_on_the_disk() {
    let mut appliance = Appliance::start("[directory]\npicture_max = \"2KiB\"\n");
    const ANN: &str = "ann@example.com";
    let done = |appliance: &Appliance, arguments: &[&str]| {
        let (ok, said) = ctl(appliance, &[&["users"], arguments].concat());
        assert!(ok, "{arguments:?}: {said}");
        said
    };
    let file = |name: &str, bytes: &[u8]| {
        let path = appliance.home().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let face: Vec<u8> = (0..1_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let png = [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), &face].concat();
    let (good, text, large) = (
        file("ann.png", &png),
        file("fake.png", b"<svg/>"),
        file("large.png", &[png.clone(), png.clone(), png.clone()].concat()),
    );
    let out = file("out.png", b"");

    let (ok, said) = ctl(&appliance, &["users", "set", ANN, "--picture", &good]);
    assert!(!ok && said.contains("there is no user"), "{said}");
    done(&appliance, &["set", ANN, "group=Sales", "--picture", &good]);
    for (wrong, why) in [(&text, "no PNG, JPEG or BMP"), (&large, "directory.picture_max allows 2 KiB")] {
        let (ok, said) = ctl(&appliance, &["users", "set", ANN, "--picture", wrong]);
        assert!(!ok && said.contains(why), "{said}");
    }
    for _ in 0..2 {
        let said = done(&appliance, &["show", ANN, "--picture", &out]);
        assert!(said.contains("image/png"), "{said}");
        assert_eq!(fs::read(&out).unwrap(), png, "as it was given, whatever was refused since");
        let has = |path: &std::path::PathBuf| fs::read(path).unwrap().windows(64).any(|run| run == &face[200..264]);
        assert!(!rig::inspect::files_below(&appliance.data()).iter().any(has), "it is sealed");
        appliance.stop();
        appliance.launch();
    }
    let none = |appliance: &Appliance| {
        let (ok, said) = ctl(appliance, &["users", "show", ANN, "--picture", &out]);
        assert!(!ok && said.contains("has no picture"), "{said}");
    };
    done(&appliance, &["set", ANN, "--no-picture"]);
    none(&appliance);
    // It goes with the user, and does not come back when the user does.
    done(&appliance, &["set", ANN, "--picture", &good]);
    done(&appliance, &["remove", ANN]);
    done(&appliance, &["set", ANN, "group=Sales"]);
    none(&appliance);
}

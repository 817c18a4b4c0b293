//! The portal in a real browser: every level of permission, two languages, light and dark, wide and narrow. `tests/portal/browser.mjs` is what
//! the people do; here are the appliance, its users and their calls.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rig::offer::Offer;
use rig::shapes::{Facts, webex_offering};
use rig::sip::Client;
use rig::sound::{FRAME, packets, speech};
use rig::speaker::Speaker;
use rig::tls::{Authority, GOOD};
use rig::{Appliance, wait_until};
use serde_json::json;

/// Levels differ in each of these, so that a button that is shown to the wrong people is seen.
const SETTINGS: &str = "[permissions]\ndownload = \"group-supervisors\"\ndelete = \"administrators\"\npreserve = \"users\"\n\
     [retention]\nrule = \"12-months\"\n";

const FIRST_PASSWORD: &str = "first-password-of-all";

/// Seconds of each call: long enough to be heard, sought in and left before the end.
const CALL_S: usize = 8;

/// The people: name, level, the number their calls are recorded by.
const PEOPLE: [(&str, &str, u32); 4] =
    [("ann", "administrator", 31), ("sue", "group-supervisor", 32), ("bob", "base", 33), ("rex", "record-only", 34)];

/// The portal's process; it ends with the test.
struct Portal {
    address: SocketAddr,
    process: Child,
}

impl Portal {
    fn start(appliance: &Appliance) -> Self {
        let home = appliance.home();
        let pair = Authority::new("portal").sign_for("localhost", GOOD);
        fs::write(home.join("portal.pem"), pair.chain).unwrap();
        fs::write(home.join("portal.key"), pair.key).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_callvault-portal"));
        command.args(["--listen", &address.to_string()]);
        command.arg("--certificate").arg(home.join("portal.pem")).arg("--key").arg(home.join("portal.key"));
        command.arg("--daemon").arg(socket(appliance));
        let log = File::create(home.join("portal.log")).unwrap();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        wait_until("the portal to listen", || TcpStream::connect(address).is_ok());
        Self { address, process }
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn socket(appliance: &Appliance) -> PathBuf {
    appliance.runtime().join("portal")
}

/// The `nth` call of that number's user; its recording, archived.
fn recorded(appliance: &Appliance, number: u32, nth: u32) {
    let other = Facts::incoming(number * 10 + nth);
    let facts = Facts { local_number: Facts::incoming(number).local_number, ..other };
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex_offering(&facts, &Offer::two(appliance.place.ip).text()));
    let speaker = Speaker::start(&media);
    let voice = |pitch| packets(&speech(u64::from(number + nth), pitch, 8_000, CALL_S * 50 * FRAME));
    speaker.say_all(&[&voice(120.0), &voice(210.0)]);
    drop(speaker);
    client.bye();
    appliance.archived(&facts.call_id);
}

/// What drives the browser, as its lock file has it, in a folder that stays for the next run.
fn modules() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("portal-browser");
    fs::create_dir_all(&place).unwrap();
    let is_there = |file: &str| {
        let (ours, there) = (Path::new("tests/portal").join(file), place.join(file));
        let ours = fs::read(ours).unwrap();
        let same = fs::read(&there).is_ok_and(|there| there == ours);
        fs::write(there, ours).unwrap();
        same
    };
    let is_same = ["package.json", "package-lock.json"].map(is_there).iter().all(|same| *same);
    if !is_same || !place.join("node_modules").exists() {
        let mut command = Command::new("npm");
        command.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&place);
        let status = command.stdout(Stdio::null()).status().expect("npm cannot be run (Debian: npm)");
        assert!(status.success(), "npm ci failed");
    }
    place
}

#[test]
fn people_of_every_level_find_and_hear_what_is_theirs_in_a_browser() {
    let mut appliance = Appliance::prepare("");
    appliance.configure(&format!("{SETTINGS}[portal]\nsocket = {:?}\nuser = \"root\"\n", socket(&appliance)));
    appliance.launch();
    let mut csv = "webex_email;first_extension;group;level;initial_password\n".to_owned();
    for (name, level, number) in PEOPLE {
        let number = Facts::incoming(number).local_number;
        csv += &format!("{name}@example.com;{number};Sales;{level};{FIRST_PASSWORD}\n");
    }
    let file = appliance.home().join("users.csv");
    fs::write(&file, csv).unwrap();
    let imported = appliance.ctl(&["users", "import", file.to_str().unwrap()]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    std::thread::scope(|scope| {
        for (number, nth) in PEOPLE.iter().flat_map(|(_, _, number)| [(*number, 1), (*number, 2)]) {
            let appliance = &appliance;
            scope.spawn(move || recorded(appliance, number, nth));
        }
    });
    // a live call of the administrator's
    let live = Facts::incoming(PEOPLE[0].2);
    let mut client = Client::udp(appliance.sip());
    client.call(&webex_offering(&live, &Offer::two(appliance.place.ip).text()));
    let portal = Portal::start(&appliance);
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("portal-shots");
    fs::create_dir_all(&shots).unwrap();
    let plan = json!({
        "url": format!("https://localhost:{}", portal.address.port()),
        "first_password": FIRST_PASSWORD,
        "shots": shots,
        "live": live.remote_number,
        "people": PEOPLE.map(|(name, level, number)| json!({
            "user": format!("{name}@example.com"), "level": level, "own": Facts::incoming(number).local_number,
            "remote": Facts::incoming(number * 10 + 1).remote_number,
        })),
    });
    let output = Command::new("node")
        .arg("tests/portal/browser.mjs")
        .arg(modules())
        .arg(plan.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("node cannot be run (Debian: nodejs, chromium)");
    client.bye();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let log = fs::read_to_string(appliance.home().join("portal.log")).unwrap();
    assert!(
        output.status.success(),
        "{said}\n{}\nthe portal's log:\n{log:.4000}",
        String::from_utf8_lossy(&output.stderr)
    );
    for (name, ..) in PEOPLE {
        assert!(!log.contains(name) && !appliance.log().contains(&format!("{name}@example")), "a name is in a log");
    }
}

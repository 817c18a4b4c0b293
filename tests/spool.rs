//! The journal's disk gets full under live calls: below the floor new ones are refused and those that live go on; without any space they
//! go on as well, for as long as memory lasts; and all is well by itself when there is room again.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rig::shapes::{Facts, webex};
use rig::sip::Client;
use rig::sound::{FRAME, from_ulaw, packets, speech};
use rig::speaker::Speaker;
use rig::{Appliance, wait_until};

/// Two seconds.
const PACKETS: usize = 100;

/// A disk of 64 MiB in memory, in the place of a folder. It goes when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, and a loud reason, where it cannot be had.
    fn mount(place: PathBuf) -> Option<Self> {
        fs::create_dir_all(&place).unwrap();
        let said = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "none"]).arg(&place).output().unwrap();
        if !said.status.success() {
            eprintln!("SKIPPED: a small disk cannot be mounted: {}", String::from_utf8_lossy(&said.stderr));
            return None;
        }
        Some(Self(place))
    }

    /// Fills it, all but so many bytes.
    fn fill(&self, but_bytes: u64) {
        let file = fs::File::create(self.filler()).unwrap();
        // The appliance takes some of it in between: then it is tried again with what there is.
        wait_until("the disk is filled", || {
            let about = nix::sys::statvfs::statvfs(&self.0).unwrap();
            let free = about.blocks_available() * about.fragment_size();
            nix::fcntl::posix_fallocate(&file, 0, (free - but_bytes).cast_signed()).is_ok()
        });
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-q", "-l"]).arg(&self.0).status();
    }
}

fn voice(number: u32, part: u32) -> Vec<Vec<u8>> {
    packets(&speech(u64::from(10 * number + part), 120.0 + f64::from(part) * 30.0, 8_000, PACKETS * FRAME))
}

/// The disk is filled but for so many bytes in the middle of a call, which says something before, meanwhile and afterwards.
fn check(but_bytes: u64) {
    let mut appliance = Appliance::prepare("[archive]\ncodec = \"as-received\"\n");
    let Some(disk) = SmallDisk::mount(appliance.data()) else { return };
    appliance.launch();
    let facts = Facts::incoming(1);
    let mut client = Client::udp(appliance.sip());
    let media = client.call(&webex(&facts, appliance.sip()));
    let speaker = Speaker::start(&media);
    let say = |part: u32| {
        let (left, right) = (voice(1, part), voice(1, part + 5));
        speaker.say_all(&[&left, &right]);
    };
    let asked = |appliance: &Appliance| Client::udp(appliance.sip()).options().map(|answer| answer.status);
    say(0);
    assert_eq!(asked(&appliance), Some(200));
    disk.fill(but_bytes);
    wait_until("the appliance says that it takes no calls", || asked(&appliance) == Some(503));
    say(1);
    let refused = Client::udp(appliance.sip()).invite(&webex(&Facts::incoming(2), appliance.sip()));
    assert_eq!(refused.status, 503, "{}", refused.head);
    assert!(refused.header("Retry-After").is_some(), "{}", refused.head);
    wait_until("health tells", || {
        let health = appliance.ask("GET", "/health");
        let spool = health.json()["components"]["spool"].clone();
        health.status == 503
            && spool["status"] == "failing"
            && spool["reason"].as_str().unwrap().contains("new calls are refused")
    });
    disk.empty();
    wait_until("calls are taken again", || asked(&appliance) == Some(200));
    say(2);
    drop(speaker);
    client.bye();
    let mut later = Client::udp(appliance.sip());
    later.call(&webex(&Facts::incoming(3), appliance.sip()));
    later.bye();
    let recording = appliance.archived(&facts.call_id);
    assert_eq!(recording["verdict"], "ok", "{recording:#}");
    let wav = appliance.wav(&recording);
    for (channel, first) in wav.channels.iter().zip([0, 5]) {
        for part in 0..3 {
            let said = from_ulaw(&voice(1, first + part).concat());
            assert!(channel.windows(said.len()).any(|heard| heard == said), "part {part} is not there as it was said");
        }
    }
    // A file that was sealed off for want of space ends in half a frame, which its successor has whole; no recording is touched by it.
    let (_, said) = appliance.verify();
    assert!(said["findings"].as_array().unwrap().iter().all(|found| found["recording"].is_null()), "{said:#}");
    wait_until("health is well again", || appliance.ask("GET", "/health").status == 200);
    // Before the disk: it could not be unmounted.
    drop(appliance);
}

#[test]
fn below_the_floor_new_calls_are_refused_and_those_that_live_go_on() {
    check(8 << 20);
}

#[test]
fn without_any_space_calls_that_live_go_on_too() {
    check(0);
}

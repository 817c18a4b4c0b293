//! A recorder that does not die and does not work: each of its parts is held still in turn, and then its disk; calls are recorded through it,
//! and health answers and says what it is. It needs root.

#![allow(clippy::unwrap_used)]
#![cfg(target_arch = "x86_64")]

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rig::injection::Held;
use rig::lasting::{Allowed, LOST_PER_KILL_MAX, through, through_losing};
use rig::{Appliance, process, wait_for, wait_until};

/// Packets of 20 ms in the time that a part may stand still, and until the next recorder is there: 5 s, and 3 more.
const LOST_WHEN_STUCK: usize = 400;

/// What a part of health says that is not well.
fn ails(appliance: &Appliance, part: &str) -> Option<String> {
    let health = appliance.ask("GET", "/health").json();
    let part = &health["components"][part];
    (part["status"] != "ok").then(|| part["reason"].as_str().unwrap_or_default().to_owned())
}

/// The recorder's thread of this name is held; health says this of these parts, and so many packets of a track are lost at most.
fn check(first: u32, thread: &str, parts: &[&str], says: &str, why: &str, lost_max: usize) {
    let appliance = Appliance::start("[archive]\ncodec = \"as-received\"\n");
    let daemon = appliance.daemon();
    let recorder = || process::children(daemon, "callvault-recorder").first().copied();
    let judged = through_losing(&appliance, 4, first, Allowed { stretches: 1, packets: lost_max }, |_| {
        let stuck = recorder().unwrap();
        let held = Held::thread(stuck, thread);
        for part in parts {
            wait_until("health names it", || ails(&appliance, part).is_some_and(|text| text.contains(says)));
        }
        held.until_killed();
        wait_until("another recorder", || appliance.is_ready() && recorder().is_some_and(|now| now != stuck));
    });
    println!("{thread} stands still: {judged}");
    assert!(appliance.log().contains(why), "the log says why it was killed: {}", appliance.log());
    appliance.assert_verifies();
}

#[test]
fn signalling_that_stands_still_is_named_and_costs_what_a_kill_does() {
    check(51_000, "callvault-recor", &["recorder"], "no sign of life", "its signalling", LOST_PER_KILL_MAX);
}

#[test]
fn a_sweep_that_stands_still_is_named_and_its_packets_wait_in_the_sockets() {
    check(51_100, "media", &["recorder"], "media sweep has not moved", "its media sweep", LOST_WHEN_STUCK);
}

#[test]
fn a_journal_that_stands_still_is_named_and_what_it_costs_is_told() {
    check(51_200, "journal", &["recorder", "journal"], "journal", "its journal", LOST_WHEN_STUCK);
}

/// A file system of its own, on a disk that stops answering when it is told to.
struct Disk(PathBuf);

impl Disk {
    /// Whether this machine can have one; says loudly why not.
    fn can_be_had() -> bool {
        let can = nix::unistd::geteuid().is_root() && fs::File::open("/dev/loop-control").is_ok();
        if !can {
            eprintln!("SKIPPED: a disk that hangs can be had by root alone, where there is /dev/loop-control");
        }
        can
    }

    fn mounted(image: &Path, point: &Path) -> Self {
        fs::File::create(image).unwrap().set_len(256 << 20).unwrap();
        fs::create_dir_all(point).unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        run("mount", &["-o", "loop", image.to_str().unwrap(), point.to_str().unwrap()]);
        Self(point.to_owned())
    }

    fn hang(&self) {
        run("fsfreeze", &["--freeze", self.0.to_str().unwrap()]);
    }

    fn answer(&self) {
        run("fsfreeze", &["--unfreeze", self.0.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nothing here may panic. Who waits for the disk can only end once it answers.
        let _ = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).stderr(Stdio::null()).status();
        let _ = Command::new("umount").args(["-q", "-l"]).arg(&self.0).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let said = Command::new(program).args(arguments).output().unwrap();
    assert!(said.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn a_disk_that_does_not_answer_for_a_while_costs_nothing() {
    if !Disk::can_be_had() {
        return;
    }
    let place = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut appliance = Appliance::prepare("[archive]\ncodec = \"as-received\"\n");
    let disk = Disk::mounted(&place.path().join("disk"), &appliance.data());
    appliance.launch();
    let judged = through(&appliance, 10, 52_000, 0, |_| {
        disk.hang();
        let said = wait_for("health names the journal", || {
            ails(&appliance, "journal").filter(|text| text.contains("the disk of data_dir does not answer"))
        });
        assert!(ails(&appliance, "recorder").is_some_and(|text| text.contains("journal has not moved")), "{said}");
        // Longer than a recorder may stand still that does not wait for a disk.
        thread::sleep(Duration::from_secs(8));
        assert!(ails(&appliance, "journal").is_some());
        disk.answer();
        wait_until("all is well", || ails(&appliance, "journal").is_none() && ails(&appliance, "recorder").is_none());
    });
    println!("a disk that does not answer for ten seconds: {judged}");
    assert_eq!(appliance.get("/v1/status")["recorder"]["restarts"], 0, "nobody was killed");
    appliance.assert_verifies();
    appliance.stop();
    drop(disk);
}

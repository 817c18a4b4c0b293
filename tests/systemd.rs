//! The same as `restart` under a real systemd, with the units that are packaged: `tests/systemd/machine` boots one. Run by `make torture`;
//! it needs root.
//!
//! `CALLS` and `KILLS` say how many (20 and 4 unless set); `CALLVAULT_TEST_SEED` repeats a run's moments.

#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rig::lasting::{Call, reinvite, through};
use rig::random::Chance;
use rig::{Appliance, process, wait_for, wait_until};

/// The runtime folder is the unit's.
const SETTINGS: &str = "runtime_dir = \"/run/callvault\"\n[archive]\ncodec = \"as-received\"\n";

const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/machine");

fn number(name: &str, unless_set: u32) -> u32 {
    std::env::var(name).map_or(unless_set, |text| text.parse().unwrap())
}

/// A booted systemd with an appliance; it goes when it is dropped.
struct Machine {
    appliance: Appliance,
    nspawn: Child,
}

impl Machine {
    fn boot() -> Self {
        assert!(Command::new(MACHINE).arg("build").status().unwrap().success(), "the machine's root is made");
        let appliance = Appliance::prepare(SETTINGS);
        let programs = Path::new(env!("CARGO_BIN_EXE_callvaultd")).parent().unwrap();
        let console = File::create(appliance.home().join("console.log")).unwrap();
        let nspawn = Command::new(MACHINE)
            .arg("boot")
            .args([appliance.home(), programs])
            .stdin(Stdio::null())
            .stderr(console.try_clone().unwrap())
            .stdout(console)
            .spawn()
            .unwrap();
        let machine = Self { appliance, nspawn };
        wait_until("systemd is up", || {
            let said = machine.run(&["systemctl", "is-system-running"]);
            said.starts_with("running") || said.starts_with("degraded")
        });
        machine.systemctl("start");
        wait_until("everything is kept", || {
            machine.appliance.get("/v1/status")["calls_survive_restart"].as_bool().unwrap()
        });
        machine
    }

    fn run(&self, command: &[&str]) -> String {
        let process = self.nspawn.id().to_string();
        let output = Command::new(MACHINE).args(["run", &process]).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    fn systemctl(&self, verb: &str) {
        let said = self.run(&["systemctl", verb, "callvaultd"]);
        assert_eq!(said, "", "systemctl {verb}: {}", self.run(&["systemctl", "status", "callvaultd"]));
    }

    fn property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", name, "callvaultd"]).trim().to_owned()
    }

    /// The daemon as this machine's kernel numbers it.
    fn daemon(&self) -> u32 {
        wait_for("the daemon", || {
            let leader = process::children(self.nspawn.id(), "systemd").first().copied()?;
            process::children(leader, "callvaultd").first().copied()
        })
    }

    /// The sockets that the recorder has.
    fn sockets(&self) -> BTreeSet<u64> {
        let recorder =
            wait_for("a recorder", || process::children(self.daemon(), "callvault-recorder").first().copied());
        let names = process::open_files(recorder).into_iter();
        names.filter_map(|path| path.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
    }
}

/// The number of a socket in a line of /proc/net/udp.
fn inode_of(line: &str) -> u64 {
    line.split_whitespace().nth(9).unwrap().parse().unwrap()
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.run(&["journalctl", "--no-pager", "-n", "100"]));
        }
        let _ = self.run(&["systemctl", "stop", "callvaultd"]);
        for leader in process::children(self.nspawn.id(), "systemd") {
            process::send(leader, Signal::SIGKILL);
        }
        let _ = self.nspawn.wait();
    }
}

#[test]
fn calls_go_on_under_systemd() {
    let (calls, kills) = (number("CALLS", 20), number("KILLS", 4));
    let seed = std::env::var("CALLVAULT_TEST_SEED").map_or(0x5d_2026, |text| text.parse().unwrap());
    println!("CALLVAULT_TEST_SEED={seed} CALLS={calls} KILLS={kills}");
    let mut chance = Chance(seed);
    let machine = Machine::boot();
    println!(
        "{} descriptors are kept by {}",
        machine.property("NFileDescriptorStore"),
        machine.run(&["systemctl", "--version"]).lines().next().unwrap()
    );
    // Connections come and go; what is bound to a UDP port stays.
    let bound: BTreeSet<u64> = fs::read_to_string("/proc/net/udp").unwrap().lines().skip(1).map(inode_of).collect();
    let first: BTreeSet<u64> = machine.sockets().intersection(&bound).copied().collect();
    assert!(first.len() > 400);
    let restarts = run(&machine, calls, 30_000, 0, |machine, live| {
        for round in 0..3 {
            machine.systemctl("restart");
            assert!(machine.sockets().is_superset(&first), "the sockets are the same");
            reinvite(&machine.appliance, &mut live[round]);
            thread::sleep(Duration::from_millis(chance.below(1_000)));
        }
    });
    println!("3 restarts: {restarts}");
    let reloads = run(&machine, calls, 31_000, 0, |machine, live| {
        for round in 0..3 {
            machine.systemctl("reload");
            reinvite(&machine.appliance, &mut live[round]);
            thread::sleep(Duration::from_millis(chance.below(1_000)));
        }
    });
    println!("3 reloads: {reloads}");
    let killed = run(&machine, calls, 32_000, kills, |machine, live| {
        for round in 0..kills {
            thread::sleep(Duration::from_millis(chance.below(2_000)));
            let daemon = machine.daemon();
            let begun = Instant::now();
            process::send(daemon, Signal::SIGKILL);
            wait_until("another daemon", || machine.appliance.is_ready() && machine.daemon() != daemon);
            println!("ready again after {} ms", begun.elapsed().as_millis());
            assert!(machine.sockets().is_superset(&first), "the sockets are the same");
            reinvite(&machine.appliance, &mut live[round as usize % calls as usize]);
        }
    });
    println!("{kills} kills of the daemon: {killed}");
    machine.appliance.assert_verifies();

    // A stop is the end of calls, and of everything that was kept.
    let mut call = Call::begin(&machine.appliance, 33_000);
    thread::scope(|scope| {
        scope.spawn(|| machine.systemctl("stop"));
        assert!(call.client.answer_request("BYE", Duration::from_secs(10)).is_some(), "a stop ends calls with a BYE");
    });
    assert_eq!(machine.property("NFileDescriptorStore"), "0");
    machine.systemctl("start");
    assert!(machine.sockets().is_disjoint(&first));
    // And the next restart is one again.
    let again = run(&machine, 2, 34_000, 0, |machine, _| machine.systemctl("restart"));
    println!("a restart after a stop: {again}");
}

/// Makes calls, does something under them, and judges every packet.
fn run(
    machine: &Machine,
    calls: u32,
    first: u32,
    kills: u32,
    mut disturb: impl FnMut(&Machine, &mut [Call]),
) -> String {
    through(&machine.appliance, calls, first, kills, |live| disturb(machine, live))
}

//! The packages in a booted systemd: installed, used, updated under live calls, removed and purged, the deb and the rpm alike. Run by
//! `make torture`; it needs root, and `callvault-manual` beside the programs (`cargo build -p callvault-manual`).
//! `PROGRAMS` says in which folder the programs are that are packed (otherwise those that cargo built for the test), `PACKAGES` in which
//! the packages of both versions are, where they were made before.
//!
//! What is not tested here: the resolvers of apt and dnf, and SELinux. The rpm is installed on a Debian, without its requirements.

#![allow(clippy::unwrap_used)]
#![cfg(target_arch = "x86_64")]

mod rig;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use rig::injection::{Argument, Held, Stopped};
use rig::lasting::{Allowed, reinvite, through, through_losing};
use rig::tls::{Authority, GOOD};
use rig::{Appliance, process, wait_for, wait_until};
use serde_json::Value;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/machine");

/// The version that is updated, and the one that it is updated to.
const VERSIONS: [&str; 2] = ["0.0.9", "0.1.0"];

/// Packets of 20 ms in the time that a journal may stand still, and until the next recorder is there: 5 s, and 3 more.
const LOST_WHEN_STUCK: usize = 400;

/// The two kinds of packages, and what is done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deb,
    Rpm,
}

impl Kind {
    /// Installs the package of this version, or updates to it.
    fn install(self, version: &str) -> String {
        match self {
            Self::Deb => format!("DEBIAN_FRONTEND=noninteractive dpkg -i /packages/callvault_{version}-1_*.deb"),
            Self::Rpm => format!("rpm -Uvh --nodeps /packages/callvault-{version}-1.*.rpm"),
        }
    }

    fn remove(self) -> &'static str {
        match self {
            Self::Deb => "DEBIAN_FRONTEND=noninteractive dpkg -r callvault",
            Self::Rpm => "rpm -e callvault",
        }
    }
}

/// The packages of both versions, made once from the programs that are tested.
fn packages() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        if let Some(made) = std::env::var_os("PACKAGES") {
            return made.into();
        }
        let built = Path::new(env!("CARGO_BIN_EXE_callvaultd")).parent().unwrap();
        let programs = std::env::var("PROGRAMS").map_or_else(|_| built.to_path_buf(), PathBuf::from);
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
        for version in VERSIONS {
            let mut build = Command::new(Path::new(ROOT).join("packaging/build"));
            build.arg("--no-build").env("VERSION", version).env("QUICK", "1").env("OUTPUT", &output);
            build.env("PROGRAMS", &programs).env("MANUAL", built.join("callvault-manual"));
            assert!(build.stdout(Stdio::null()).status().unwrap().success(), "the packages are made");
        }
        output
    })
}

/// A booted systemd with nothing of callvault; it goes when it is dropped.
struct Machine {
    nspawn: Child,
    root: TempDir,
}

impl Machine {
    fn boot(network: &str, options: &[String]) -> Self {
        let built = Command::new(MACHINE).arg("build-bare").output().unwrap();
        assert!(built.status.success(), "the machine's root is made: {}", String::from_utf8_lossy(&built.stderr));
        let fresh = String::from_utf8(built.stdout).unwrap();
        let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let copied = Command::new("cp").args(["-a", "--", &format!("{}/.", fresh.trim())]).arg(root.path()).status();
        assert!(copied.unwrap().success());
        let console = File::create(root.path().join("console.log")).unwrap();
        let nspawn = Command::new(MACHINE)
            .arg("boot-bare")
            .arg(root.path())
            .arg(network)
            .arg(format!("--bind-ro={}:/packages", packages().display()))
            .args(options)
            .stdin(Stdio::null())
            .stderr(console.try_clone().unwrap())
            .stdout(console)
            .spawn()
            .unwrap();
        let machine = Self { nspawn, root };
        wait_until("systemd is up", || {
            let (_, said) = machine.sh("systemctl is-system-running");
            said.starts_with("running") || said.starts_with("degraded")
        });
        machine
    }

    /// Runs a line of shell; whether it went well, and what it said.
    fn sh(&self, line: &str) -> (bool, String) {
        let process = self.nspawn.id().to_string();
        let run =
            Command::new(MACHINE).args(["run", &process, "sh", "-c", line]).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        (run.status.success(), said)
    }

    /// Runs a line of shell that must go well.
    fn must(&self, line: &str) -> String {
        let (ok, said) = self.sh(line);
        assert!(ok, "{line}: {said}");
        said
    }

    fn property(&self, name: &str) -> String {
        self.must(&format!("systemctl show --value --property {name} callvaultd")).trim().to_owned()
    }

    /// How long the last start took, as systemd has it.
    fn start_ms(&self) -> u64 {
        let us = |name: &str| self.property(name).parse::<u64>().unwrap();
        us("ActiveEnterTimestampMonotonic").saturating_sub(us("InactiveExitTimestampMonotonic")) / 1_000
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn recordings(&self) -> Vec<String> {
        let listed: Value = serde_json::from_str(&self.must("callvaultctl --json recordings list --all")).unwrap();
        let ids = listed["recordings"].as_array().unwrap().iter();
        ids.map(|recording| recording["id"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.sh("journalctl --no-pager -n 60; systemctl status --no-pager callvaultd").1);
        }
        let _ = self.sh("systemctl stop callvaultd");
        for leader in process::children(self.nspawn.id(), "systemd") {
            process::send(leader, Signal::SIGKILL);
        }
        let _ = self.nspawn.wait();
    }
}

/// Installs it and waits until it is used, which takes the time that is printed.
fn install(machine: &Machine, kind: Kind, version: &str) {
    let said = machine.must(&kind.install(version));
    wait_until("the service is active", || machine.sh("systemctl is-active --quiet callvaultd").0);
    println!("{kind:?} {version}: active {} ms after it was begun", machine.start_ms());
    assert!(!said.contains("did not start"), "{said}");
}

/// What the parts of the health are and say that are not well.
fn ailing(machine: &Machine) -> Vec<String> {
    let (_, said) = machine.sh("callvaultctl --json status");
    let status: Value = serde_json::from_str(&said).unwrap();
    let health = status.get("health").unwrap_or(&status);
    let parts = health["components"].as_object().unwrap().iter();
    parts.filter(|(_, part)| part["status"] != "ok").map(|(name, part)| format!("{name}: {part}")).collect()
}

/// One at a time: the sockets of both would be one user's, of which this machine may allow fewer than two appliances have.
static ALONE: Mutex<()> = Mutex::new(());

fn from_first_to_last(kind: Kind) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = Machine::boot("own", &[]);
    install(&machine, kind, VERSIONS[0]);
    // Health is looked at once a second.
    wait_until("with no settings at all everything is well", || ailing(&machine).is_empty());
    println!("{}", machine.must("callvaultctl selftest --seconds 3").lines().last().unwrap_or(""));
    assert_eq!(machine.recordings().len(), 1);
    // In tenths; more than that is an error.
    for unit in ["callvaultd", "callvault-portal"] {
        let said = machine.must(&format!("systemd-analyze security --no-pager --threshold=15 {unit}"));
        println!("{kind:?}: {}", said.lines().last().unwrap_or(""));
    }
    // What is promised. A machine that tests has other work too: the best of some starts.
    let starts = (0..3).map(|_| {
        machine.must("systemctl restart callvaultd");
        machine.start_ms()
    });
    let quickest = starts.min().unwrap();
    assert!(quickest <= 2_000, "active after {quickest} ms");
    println!("{kind:?}: a start with recordings takes {quickest} ms");
    wait_until("everything is well after it", || ailing(&machine).is_empty());
    from_inside(&machine);
    let recordings = machine.recordings();

    let before = machine.property("MainPID");
    machine.must("systemctl reload callvaultd");
    assert_eq!(machine.property("MainPID"), before, "a reload is no restart");
    assert_eq!(machine.property("ActiveState"), "active");

    // What is the administrator's stays the administrator's.
    fs::write(machine.at("etc/callvault/conf.d/site.toml"), "[log]\nlevel = \"debug\"\n").unwrap();
    machine.must("echo '# mine' >>/etc/callvault/callvault.toml");
    install(&machine, kind, VERSIONS[1]);
    assert_ne!(machine.property("MainPID"), before, "the new programs run");
    assert!(machine.must("cat /etc/callvault/callvault.toml").contains("# mine"));
    assert!(machine.must("callvaultctl config show").contains("debug"));
    assert_eq!(machine.recordings(), recordings);
    if kind == Kind::Deb {
        // Also one that he stopped.
        machine.must("systemctl disable --now callvaultd");
        machine.must("apt-get --version >/dev/null; dpkg-reconfigure -f noninteractive callvault");
        assert!(!machine.sh("systemctl is-enabled --quiet callvaultd").0, "what was switched off stays off");
        machine.must("systemctl enable --now callvaultd");
    }

    let said = machine.must(kind.remove());
    assert!(said.contains("/var/lib/callvault"), "it says where the recordings are: {said}");
    assert!(!machine.sh("pgrep -x callvaultd || pgrep callvault-rec").0, "nothing runs any more");
    assert!(machine.at("var/lib/callvault/keys/appliance.key").exists(), "the keys are there");
    assert!(!machine.at("usr/libexec/callvault").exists());
    install(&machine, kind, VERSIONS[1]);
    assert_eq!(machine.recordings(), recordings, "and is used again by the next installation");
    if kind == Kind::Deb {
        purge(&machine, kind);
    }
}

/// What an intruder would try from inside a process of the machine.
#[derive(Debug, Clone, Copy)]
enum Attempt {
    Read(&'static str),
    Write(&'static str),
    Run(&'static str),
    Socket(i32),
    Unshare,
    Trace,
}

fn attempt(stopped: &Stopped, what: Attempt) -> Result<u64, Errno> {
    use Argument::{Number, Path as Text};
    let number = |number: i32| Number(number.into());
    let open = |path: &str, flags: i32| {
        stopped.call(libc::SYS_openat, &[number(libc::AT_FDCWD), Text(Path::new(path)), number(flags), Number(0o600)])
    };
    match what {
        Attempt::Read(path) => open(path, libc::O_RDONLY),
        Attempt::Write(path) => open(path, libc::O_WRONLY | libc::O_CREAT),
        Attempt::Run(path) => stopped.call(libc::SYS_execve, &[Text(Path::new(path)), Number(0), Number(0)]),
        Attempt::Socket(family) => {
            stopped.call(libc::SYS_socket, &[number(family), number(libc::SOCK_DGRAM), Number(0)])
        }
        Attempt::Unshare => stopped.call(libc::SYS_unshare, &[number(libc::CLONE_NEWNS)]),
        // It is its own first descriptor's process that would be asked for, so that nothing is read.
        Attempt::Trace => {
            stopped.call(libc::SYS_ptrace, &[number(libc::PTRACE_SEIZE.cast_signed()), Number(1), Number(0), Number(0)])
        }
    }
}

/// What neither may: to write elsewhere, to look into homes, to run a shell, to take what passes on the wire, to change its surroundings.
const NOBODY: [(Attempt, Errno); 6] = [
    (Attempt::Read("/root"), Errno::EACCES),
    (Attempt::Run("/bin/sh"), Errno::EACCES),
    (Attempt::Run("/usr/bin/perl"), Errno::EACCES),
    (Attempt::Socket(libc::AF_PACKET), Errno::EAFNOSUPPORT),
    (Attempt::Unshare, Errno::EPERM),
    (Attempt::Trace, Errno::EPERM),
];

/// The daemon and the portal make an intruder's system calls, and are refused them; one that nothing confines is not.
fn from_inside(machine: &Machine) {
    let leader = process::children(machine.nspawn.id(), "systemd")[0];
    let child = |name: &str| wait_for(name, || process::children(leader, name).first().copied());
    let pair = Authority::new("portal").sign_for("localhost", GOOD);
    fs::create_dir_all(machine.at("etc/callvault/portal")).unwrap();
    for (name, pem) in [("certificate.pem", pair.chain), ("key.pem", pair.key)] {
        fs::write(machine.at("etc/callvault/portal").join(name), pem).unwrap();
    }
    machine.must("chown -R callvault-portal: /etc/callvault/portal && systemctl start callvault-portal");
    wait_until("the portal is on", || {
        machine.must("journalctl --no-pager -u callvault-portal").contains("is on https://")
    });
    let said = machine.must("journalctl --no-pager -u callvault-portal -u callvaultd");
    assert!(!said.contains("Landlock") && !said.contains("failed to give up"), "{said}");

    let daemon = [
        (Attempt::Write("/etc/callvault/new"), Errno::EROFS),
        (Attempt::Write("/usr/bin/new"), Errno::EROFS),
        (Attempt::Write("/var/lib/new"), Errno::EROFS),
    ];
    let portal = [
        (Attempt::Read("/var/lib/callvault/keys/appliance.key"), Errno::EACCES),
        (Attempt::Read("/etc/callvault/callvault.toml"), Errno::EACCES),
        (Attempt::Read("/etc/passwd"), Errno::EACCES),
        (Attempt::Write("/etc/callvault/portal/new"), Errno::EROFS),
        (Attempt::Write("/tmp/new"), Errno::EACCES),
        (Attempt::Write("/var/tmp/new"), Errno::EACCES),
    ];
    let check = |name: &str, of: u32, what: Attempt, error: Errno| {
        let answer = attempt(&Stopped::at(of), what);
        assert_eq!(answer, Err(error), "{name}: {what:?}");
        machine.must("nohup sleep 60 >/dev/null 2>&1 &");
        let free = child("sleep");
        let stopped = Stopped::at(free);
        let answer = attempt(&stopped, what);
        assert!(answer.is_ok(), "free: {what:?}: {answer:?}");
        stopped.end();
        wait_until("it is gone", || !process::lives(free));
    };
    for (what, error) in NOBODY.iter().chain(&daemon) {
        check("daemon", child("callvaultd"), *what, *error);
    }
    for (what, error) in &portal {
        check("portal", child("callvault-portal"), *what, *error);
    }
    for (what, error) in NOBODY {
        // It has given up running programs itself, before the unit is asked.
        let error = if matches!(what, Attempt::Run(_)) { Errno::EPERM } else { error };
        check("portal", child("callvault-portal"), what, error);
    }
    println!("{}", machine.must("callvaultctl selftest --seconds 3").lines().last().unwrap_or(""));
}

/// Recordings are deleted only when that is said.
fn purge(machine: &Machine, kind: Kind) {
    let said = machine.must("DEBIAN_FRONTEND=noninteractive dpkg -P callvault");
    assert!(said.contains("are kept in /var/lib/callvault"), "{said}");
    assert!(machine.at("var/lib/callvault/keys/appliance.key").exists());
    assert!(!machine.at("etc/callvault/callvault.toml").exists());
    install(machine, kind, VERSIONS[1]);
    assert_eq!(machine.recordings().len(), 2);
    machine.must("echo callvault callvault/delete-recordings boolean true | debconf-set-selections");
    let said = machine.must("DEBIAN_FRONTEND=noninteractive dpkg -P callvault");
    assert!(said.contains("is deleted"), "{said}");
    assert!(!machine.at("var/lib/callvault").exists());
}

#[test]
fn a_deb_is_installed_updated_removed_and_purged() {
    from_first_to_last(Kind::Deb);
}

#[test]
fn an_rpm_is_installed_updated_and_removed() {
    from_first_to_last(Kind::Rpm);
}

/// What the rig wants to be set, but for what the unit says.
fn settings(appliance: &Appliance) -> String {
    let text = fs::read_to_string(appliance.home().join("callvault.toml")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("data_dir") && !line.starts_with("runtime_dir"));
    lines.map(|line| format!("{line}\n")).collect::<String>() + "[archive]\ncodec = \"as-received\"\n"
}

fn calls() -> u32 {
    std::env::var("CALLS").map_or(10, |text| text.parse().unwrap())
}

/// A machine with this package, whose appliance the callers reach.
fn reachable(kind: Kind, version: &str) -> (Appliance, Machine) {
    let appliance = Appliance::prepare("");
    fs::create_dir_all(appliance.data()).unwrap();
    // The rig looks into the folder of the data, which is this one in the machine.
    let machine = Machine::boot("shared", &[format!("--bind={}:/var/lib/callvault", appliance.data().display())]);
    fs::create_dir_all(machine.at("etc/callvault/conf.d")).unwrap();
    fs::write(machine.at("etc/callvault/conf.d/rig.toml"), settings(&appliance)).unwrap();
    install(&machine, kind, version);
    wait_until("everything is kept", || appliance.get("/v1/status")["calls_survive_restart"].as_bool().unwrap());
    (appliance, machine)
}

fn an_update_keeps_calls(kind: Kind, first: u32) {
    let calls = calls();
    let (appliance, machine) = reachable(kind, VERSIONS[0]);
    let before = machine.property("MainPID");
    let judged = through(&appliance, calls, first, 0, |live| {
        machine.must(&kind.install(VERSIONS[1]));
        wait_until("the new one", || appliance.is_ready() && machine.property("MainPID") != before);
        reinvite(&appliance, &mut live[0]);
    });
    println!("{kind:?}: an update under calls: {judged}");
    let version = match kind {
        Kind::Deb => machine.must("dpkg-query -W -f '${Version}' callvault"),
        Kind::Rpm => machine.must("rpm -q callvault"),
    };
    assert!(version.contains(VERSIONS[1]), "{version}");
    appliance.assert_verifies();
}

#[test]
fn an_update_of_the_deb_keeps_calls() {
    an_update_keeps_calls(Kind::Deb, 40_000);
}

#[test]
fn an_update_of_the_rpm_keeps_calls() {
    an_update_keeps_calls(Kind::Rpm, 41_000);
}

#[test]
fn what_stands_still_is_started_again_and_calls_go_on() {
    let (appliance, machine) = reachable(Kind::Deb, VERSIONS[1]);
    let daemon = || {
        let leader = process::children(machine.nspawn.id(), "systemd")[0];
        process::children(leader, "callvaultd").first().copied()
    };
    let recorder = || process::children(daemon()?, "callvault-recorder").first().copied();
    let judged = through(&appliance, calls(), 42_000, 1, |_| {
        let stuck = recorder().unwrap();
        process::send(stuck, Signal::SIGSTOP);
        wait_until("health names the recorder", || {
            let health = appliance.ask("GET", "/health").json();
            let part = &health["components"]["recorder"];
            part["status"] == "failing" && part["reason"].as_str().unwrap().contains("no sign of life")
        });
        wait_until("another recorder", || appliance.is_ready() && recorder().is_some_and(|now| now != stuck));
    });
    println!("a recorder that stands still: {judged}");
    assert_eq!(machine.property("NRestarts"), "0", "its supervisor is the first line");
    let judged = through(&appliance, calls(), 43_000, 1, |_| {
        let stuck = daemon().unwrap();
        process::send(stuck, Signal::SIGSTOP);
        wait_until("another daemon", || daemon().is_some_and(|now| now != stuck) && appliance.is_ready());
    });
    println!("a daemon that stands still: {judged}");
    assert_eq!(machine.property("NRestarts"), "1");
    // One thread of it, so that another can still say what it is.
    let judged = through(&appliance, calls(), 44_000, 1, |_| {
        let stuck = daemon().unwrap();
        let held = Held::thread(stuck, "supervisor");
        wait_until("health names the supervisor", || {
            let part = &appliance.ask("GET", "/health").json()["components"]["watchdog"];
            part["reason"].as_str().is_some_and(|text| text.contains("the supervisor of the recorder"))
        });
        held.until_killed();
        wait_until("another daemon", || daemon().is_some_and(|now| now != stuck) && appliance.is_ready());
    });
    println!("a supervisor that stands still: {judged}");
    assert_eq!(machine.property("NRestarts"), "2");
    let judged =
        through_losing(&appliance, calls(), 45_000, Allowed { stretches: 1, packets: LOST_WHEN_STUCK }, |_| {
            let stuck = recorder().unwrap();
            let held = Held::thread(stuck, "journal");
            wait_until("health names the journal", || {
                let part = &appliance.ask("GET", "/health").json()["components"]["journal"];
                part["status"] == "failing"
                    && part["reason"].as_str().unwrap().contains("nothing is written to the journal")
            });
            held.until_killed();
            wait_until("another recorder", || appliance.is_ready() && recorder().is_some_and(|now| now != stuck));
        });
    println!("a journal that stands still: {judged}");
    assert_eq!(machine.property("NRestarts"), "2");
    assert!(machine.must("journalctl --no-pager -u callvaultd").contains("Watchdog timeout"));
    appliance.assert_verifies();
}

#[test]
fn the_manual_of_the_daemon_knows_its_options() {
    let help = Command::new(env!("CARGO_BIN_EXE_callvaultd")).arg("--help").output().unwrap();
    let page = fs::read_to_string(Path::new(ROOT).join("packaging/man/callvaultd.8")).unwrap().replace('\\', "");
    let help = String::from_utf8(help.stdout).unwrap();
    let options: Vec<&str> = help.split_whitespace().filter(|word| word.starts_with("--")).collect();
    assert!(options.len() > 4);
    for option in options {
        assert!(page.contains(option.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-')), "{option}");
    }
}

/// Linters of both kinds find nothing but what has a reason beside it.
#[test]
fn linters_find_nothing() {
    let newest = |ending: &str| {
        let found = fs::read_dir(packages()).unwrap().map(|entry| entry.unwrap().path());
        found.filter(|path| path.to_string_lossy().ends_with(ending)).collect::<Vec<_>>()
    };
    let lintian = Command::new("lintian").arg("--fail-on=error,warning").args(newest(".deb")).output().unwrap();
    assert!(lintian.status.success(), "{}", String::from_utf8_lossy(&lintian.stdout));
    let exceptions = Path::new(ROOT).join("packaging/rpm/rpmlint.toml");
    let rpmlint = Command::new("rpmlint").arg("-c").arg(exceptions).args(newest(".rpm")).output().unwrap();
    let said = String::from_utf8_lossy(&rpmlint.stdout);
    assert!(rpmlint.status.success() && said.contains(" 0 errors, 0 warnings"), "{said}");
}

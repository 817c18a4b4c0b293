//! What the processes that meet strangers' bytes cannot do, tried from inside: the test stops the live process and has it make the system
//! calls of an intruder (`rig/injection.rs`). A process that nothing confines makes the same calls, and they succeed. It needs root.

#![allow(clippy::unwrap_used)]
#![cfg(target_arch = "x86_64")]

mod rig;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use rig::injection::{Argument, Stopped};
use rig::tls::{Authority, GOOD};
use rig::{Appliance, process, wait_for, wait_until};
use tempfile::TempDir;

/// What an intruder would try. What it would take away or overwrite is made for it anew each time.
#[derive(Debug, Clone, Copy)]
enum Attempt {
    /// To read a file or a folder.
    Read(&'static str),
    /// To make a file beside the appliance's folders.
    Write,
    /// To make a folder there.
    MakeFolder,
    /// To remove a file there.
    Remove,
    /// To have a socket that could be connected to anywhere.
    Socket(i32),
    /// To read the memory of its parent, in which the keys are.
    Trace,
    /// To see other files by another view of the file system.
    Unshare,
    /// To start a program.
    Start,
}

/// From the appliance's folder, but for what begins with a slash.
const KEY: Attempt = Attempt::Read("data/keys/appliance.key");
const CATALOGUE: Attempt = Attempt::Read("data/catalogue.db");
const QUEUE: Attempt = Attempt::Read("data/queue");
const STORE: Attempt = Attempt::Read("data/store");
const SETTINGS: Attempt = Attempt::Read("callvault.toml");
const PASSWORDS: Attempt = Attempt::Read("/etc/passwd");

fn attempt(stopped: &Stopped, home: &Path, attempt: Attempt) -> Result<u64, Errno> {
    use Argument::{Number, Path as Text};
    let number = |number: i32| Number(number.into());
    let open = |path: &Path, flags: i32| {
        stopped.call(libc::SYS_openat, &[number(libc::AT_FDCWD), Text(path), number(flags), Number(0o600)])
    };
    let victim = home.join("tmp/victim");
    let _ = fs::remove_dir_all(home.join("tmp/new"));
    let _ = fs::remove_file(home.join("tmp/new"));
    fs::write(&victim, "there").unwrap();
    match attempt {
        Attempt::Read(path) => open(&home.join(path), libc::O_RDONLY),
        Attempt::Write => open(&home.join("tmp/new"), libc::O_WRONLY | libc::O_CREAT),
        Attempt::MakeFolder => stopped.call(libc::SYS_mkdir, &[Text(&home.join("tmp/new")), Number(0o700)]),
        Attempt::Remove => stopped.call(libc::SYS_unlink, &[Text(&victim)]),
        Attempt::Socket(family) => {
            stopped.call(libc::SYS_socket, &[number(family), number(libc::SOCK_STREAM), Number(0)])
        }
        Attempt::Trace => {
            let (ours, theirs) = (Argument::Bytes(&[0; 16]), Argument::Bytes(&[0; 16]));
            let parent = std::os::unix::process::parent_id();
            stopped.call(
                libc::SYS_process_vm_readv,
                &[Number(parent.into()), ours, Number(0), theirs, Number(0), Number(0)],
            )
        }
        Attempt::Unshare => stopped.call(libc::SYS_unshare, &[number(libc::CLONE_NEWNS)]),
        Attempt::Start => stopped.call(libc::SYS_execve, &[Text(Path::new("/bin/true")), Number(0), Number(0)]),
    }
}

/// One that waits and that nothing confines.
fn free<T>(run: impl FnOnce(u32) -> T) -> T {
    let mut sleeper = Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let of = sleeper.id();
    wait_for("it sleeps", || {
        fs::read_to_string(format!("/proc/{of}/syscall")).ok().filter(|call| call.starts_with("230 "))
    });
    let result = run(of);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    result
}

/// Each of these is refused to the process with this error, and not to one that is free.
fn check(name: &str, of: u32, home: &Path, refused: &[(Attempt, Errno)]) {
    for (what, error) in refused {
        let answer = attempt(&Stopped::at(of), home, *what);
        assert_eq!(answer, Err(*error), "{name}: {what:?}");
        let answer = free(|sleeper| {
            let stopped = Stopped::at(sleeper);
            let answer = attempt(&stopped, home, *what);
            // There is nothing to go back to.
            if matches!(what, Attempt::Start) {
                std::mem::forget(stopped);
            }
            answer
        });
        assert!(answer.is_ok(), "free: {what:?}: {answer:?}");
    }
}

fn child(daemon: u32, program: &str) -> u32 {
    wait_for(program, || process::children(daemon, program).first().copied())
}

/// The portal, with its certificate in a folder of its own; it ends with the test.
struct Portal(Child, PathBuf);

impl Portal {
    fn start(appliance: &Appliance) -> Self {
        let folder = appliance.home().join("portal");
        fs::create_dir(&folder).unwrap();
        let file = |name: &str| folder.join(name);
        Self::put_pair(&folder);
        let log = File::create(file("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_callvault-portal"));
        command.args(["--listen", "127.0.0.1:0"]).arg("--certificate").arg(file("pair.pem"));
        command.arg("--key").arg(file("pair.key")).arg("--daemon").arg(appliance.runtime().join("portal"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let portal = Self(process, folder);
        wait_until("the portal to listen", || portal.log().contains("is on https://"));
        assert!(!portal.log().contains("Landlock") && !portal.log().contains("failed to"), "{}", portal.log());
        portal
    }

    fn put_pair(folder: &Path) {
        let pair = Authority::new("portal").sign_for("localhost", GOOD);
        // As renewals do it: another file takes the place of the old one.
        for (name, pem) in [("pair.key", pair.key), ("pair.pem", pair.chain)] {
            fs::write(folder.join("new"), pem).unwrap();
            fs::rename(folder.join("new"), folder.join(name)).unwrap();
        }
    }

    /// What is read again when it changes is still read.
    fn takes_another_certificate(&self) {
        Self::put_pair(&self.1);
        wait_until("another certificate", || self.log().contains("another certificate is in use"));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.1.join("log")).unwrap()
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A call is recorded, archived and played.
fn records(appliance: &Appliance) {
    let output = appliance.ctl(&["selftest", "--seconds", "3"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn who_meets_strangers_reaches_neither_keys_nor_files_nor_programs() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: only root may have other processes make system calls");
        return;
    }
    let appliance = Appliance::start("");
    records(&appliance);
    let home: PathBuf = appliance.home().to_owned();
    let daemon = appliance.daemon();
    let recorder = appliance.recorder();
    check(
        "recorder",
        recorder,
        &home,
        &[
            (KEY, Errno::EACCES),
            (CATALOGUE, Errno::EACCES),
            (QUEUE, Errno::EACCES),
            (STORE, Errno::EACCES),
            (SETTINGS, Errno::EACCES),
            (PASSWORDS, Errno::EACCES),
            (Attempt::Write, Errno::EACCES),
            (Attempt::MakeFolder, Errno::EACCES),
            (Attempt::Remove, Errno::EACCES),
            (Attempt::Trace, Errno::EPERM),
            (Attempt::Unshare, Errno::EPERM),
            (Attempt::Start, Errno::EPERM),
        ],
    );
    let render = child(daemon, "callvault-render");
    check(
        "render",
        render,
        &home,
        &[
            (KEY, Errno::EACCES),
            (CATALOGUE, Errno::EACCES),
            (QUEUE, Errno::EACCES),
            (STORE, Errno::EACCES),
            (SETTINGS, Errno::EACCES),
            (PASSWORDS, Errno::EACCES),
            (Attempt::Write, Errno::EACCES),
            (Attempt::Socket(libc::AF_INET), Errno::EPERM),
            (Attempt::Socket(libc::AF_INET6), Errno::EPERM),
            (Attempt::Socket(libc::AF_UNIX), Errno::EPERM),
            (Attempt::MakeFolder, Errno::EPERM),
            (Attempt::Remove, Errno::EPERM),
            (Attempt::Trace, Errno::EPERM),
            (Attempt::Unshare, Errno::EPERM),
        ],
    );
    let portal = Portal::start(&appliance);
    check(
        "portal",
        portal.0.id(),
        &home,
        &[
            (KEY, Errno::EACCES),
            (CATALOGUE, Errno::EACCES),
            (QUEUE, Errno::EACCES),
            (STORE, Errno::EACCES),
            (SETTINGS, Errno::EACCES),
            (PASSWORDS, Errno::EACCES),
            (Attempt::Write, Errno::EACCES),
            (Attempt::MakeFolder, Errno::EACCES),
            (Attempt::Remove, Errno::EACCES),
            (Attempt::Trace, Errno::EPERM),
            (Attempt::Unshare, Errno::EPERM),
            (Attempt::Start, Errno::EPERM),
        ],
    );
    portal.takes_another_certificate();
    // All do their work as before.
    assert_eq!(child(daemon, "callvault-recorder"), recorder);
    records(&appliance);
    assert_eq!(child(daemon, "callvault-recorder"), recorder);
}

/// Where the kernel puts cores, for this test; what was there before comes back.
struct Cores {
    before: String,
    folder: TempDir,
}

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

impl Cores {
    /// None where nobody may say that, as in a container.
    fn take() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let before = fs::read_to_string(CORE_PATTERN).unwrap();
        fs::write(CORE_PATTERN, format!("{}/core.%p", folder.path().display())).ok()?;
        Some(Self { before, folder })
    }

    /// From here on a program takes them, which gets them whatever the usual limits are.
    fn go_to_a_pipe(&self) {
        let (taker, folder) = (self.folder.path().join("take"), self.folder.path().display());
        fs::write(&taker, format!("#!/bin/sh\ncat > {folder}/core.$1\n")).unwrap();
        fs::set_permissions(&taker, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(CORE_PATTERN, format!("|{} %p", taker.display())).unwrap();
    }

    /// Whether that process leaves a core when it crashes with this limit, as prlimit(1) says it; its own where there is none.
    fn come_from(&self, process: u32, limit: Option<&str>) -> bool {
        if let Some(limit) = limit {
            let (limit, pid) = (format!("--core={limit}:{limit}"), process.to_string());
            assert!(Command::new("prlimit").args([&limit, "--pid", &pid]).status().unwrap().success());
        }
        process::send(process, Signal::SIGABRT);
        wait_until("its end", || !process::lives(process));
        self.folder.path().join(format!("core.{process}")).exists()
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        let _ = fs::write(CORE_PATTERN, self.before.trim_end());
    }
}

#[test]
fn who_holds_keys_or_passwords_leaves_no_core() {
    let Some(cores) = Cores::take() else {
        println!("SKIPPED: nobody may set {CORE_PATTERN} here");
        return;
    };
    let sleeper = || Command::new("sleep").arg("60").spawn().unwrap();
    let mut free = sleeper();
    assert!(cores.come_from(free.id(), Some("unlimited")), "cores are left here at all");
    free.wait().unwrap();
    let appliance = Appliance::start("[archive]\ncodec = \"opus\"\n");
    let portal = Portal::start(&appliance);
    records(&appliance);
    let render = child(appliance.daemon(), "callvault-render");
    cores.go_to_a_pipe();
    let mut free = sleeper();
    assert!(cores.come_from(free.id(), Some("0")), "a pipe heeds no limit");
    free.wait().unwrap();
    assert!(!cores.come_from(child(appliance.daemon(), "callvault-recorder"), None), "the recorder");
    assert!(!cores.come_from(render, None), "the render process");
    assert!(!cores.come_from(portal.0.id(), Some("unlimited")), "the portal");
    assert!(!cores.come_from(appliance.daemon(), Some("unlimited")), "the daemon");
}

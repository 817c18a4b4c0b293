//! What the child may do: nothing but compute and use its three streams.
//!
//! Before the program starts, in the new process: no new privileges; a network namespace of its own with nothing in it, where the
//! system allows one; a filter that refuses sockets and whatever else it has no use for (`filter`); limits on memory, CPU time, open files; no file may grow and no core may be dumped. The environment is
//! empty, the working folder is the root, the error stream goes nowhere, and no other descriptor is passed on, also none that was
//! opened by others (systemd's, a job server's) to be inherited.

mod filter;
#[cfg(test)]
mod tests;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};

/// What one child may use. A child that meets a limit dies; the job then fails with a retryable error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space in bytes (RLIMIT_AS).
    pub memory_bytes_max: u64,
    /// CPU time in seconds over the child's whole life (RLIMIT_CPU).
    pub cpu_s_max: u64,
    /// Longest that the child may neither take a packet nor give output while the daemon waits for it. Time that the caller's own
    /// packet source or output sink takes does not count.
    pub stall_max: Duration,
    /// Longest that one job may take, the caller's source and sink included.
    pub job_max: Duration,
}

impl Default for Limits {
    /// 512 MiB where 20 are used; half an hour of CPU, in which a core encodes more than a week of audio; 30 s without a sign of life,
    /// where a second of audio takes milliseconds; six hours for a job, enough for a listener with a slow line.
    fn default() -> Self {
        Self {
            memory_bytes_max: 512 << 20,
            cpu_s_max: 30 * 60,
            stall_max: Duration::from_secs(30),
            job_max: Duration::from_secs(6 * 3_600),
        }
    }
}

/// Most open files: the three streams, the pipes to and from ffmpeg, and what the dynamic linker needs while it starts a program.
const OPEN_FILES_MAX: u64 = 16;

/// The command that starts `program` within `limits`.
pub(crate) fn command(program: &Path, limits: Limits) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe work is allowed. `enter` makes plain system
    // calls on values that were copied into it; it takes no lock and does not allocate.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || enter(limits).map_err(std::io::Error::from));
    }
    command
}

fn enter(limits: Limits) -> nix::Result<()> {
    prctl::set_no_new_privs()?;
    // A service manager sends it to every process of a service. This one ends when the daemon says so or is gone; before, a job that is
    // being done would fail for nothing.
    let mut masked = SigSet::empty();
    masked.add(Signal::SIGTERM);
    masked.thread_block()?;
    pass_on_no_descriptors()?;
    // Alone first: where we are allowed to, it keeps the owner's view of the file system, which exec needs. Without privilege a
    // user namespace has to come with it. Where neither is allowed (containers, hardened kernels) the child still has no reason
    // and no descriptor to use the network with, and the filter lets it have none.
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        let _ = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET);
    }
    for (resource, value) in [
        (Resource::RLIMIT_AS, limits.memory_bytes_max),
        (Resource::RLIMIT_CPU, limits.cpu_s_max),
        (Resource::RLIMIT_NOFILE, OPEN_FILES_MAX),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, value, value)?;
    }
    filter::enter()
}

/// Marks every descriptor above the three streams to be closed by exec.
fn pass_on_no_descriptors() -> nix::Result<()> {
    let first: libc::c_uint = 3;
    // SAFETY: close_range(2) takes three integers and touches no memory; with CLOSE_RANGE_CLOEXEC it only sets a flag, so nobody's
    // descriptor becomes invalid, and this process is about to exec.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    nix::errno::Errno::result(result).map(drop)
}

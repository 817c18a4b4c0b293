//! What the appliance's processes and sockets take, as the kernel tells it.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use super::rig::{Appliance, process};

/// The programs of an appliance. Those after the first are started by it.
pub(crate) const PROGRAMS: [&str; 3] = ["daemon", "recorder", "render"];

/// What one program's processes have taken.
#[derive(Clone, Copy, Default)]
pub(crate) struct Taken {
    pub(crate) cpu_ms: u64,
    /// Proportional set size: what processes share counts once.
    pub(crate) memory_kib: u64,
    /// What they have given to disks.
    pub(crate) written_bytes: u64,
}

impl Taken {
    fn of(process: u32) -> Self {
        Self {
            cpu_ms: process::cpu_ms(process),
            memory_kib: field(process, "smaps_rollup", "Pss:"),
            written_bytes: field(process, "io", "write_bytes:"),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            cpu_ms: self.cpu_ms + other.cpu_ms,
            memory_kib: self.memory_kib + other.memory_kib,
            written_bytes: self.written_bytes + other.written_bytes,
        }
    }
}

/// What all processes of an appliance have taken, in the order of [`PROGRAMS`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage(pub(crate) [Taken; 3]);

impl Usage {
    pub(crate) fn of(appliance: &Appliance) -> Self {
        let daemon = appliance.daemon();
        let mut renders = process::children(daemon, "callvault-render");
        // One that is being replaced may end meanwhile.
        renders.retain(|render| process::lives(*render));
        let renders = renders.into_iter().map(Taken::of).fold(Taken::default(), Taken::and);
        Self([Taken::of(daemon), Taken::of(appliance.recorder()), renders])
    }

    pub(crate) fn memory_kib(&self) -> u64 {
        self.0.iter().map(|taken| taken.memory_kib).sum()
    }

    /// CPU seconds that each program took since `before`. A render process that was replaced takes its time with it.
    pub(crate) fn cpu_s_since(&self, before: &Self) -> [f64; 3] {
        [0, 1, 2].map(|n| self.0[n].cpu_ms.saturating_sub(before.0[n].cpu_ms) as f64 / 1e3)
    }

    pub(crate) fn written_bytes_since(&self, before: &Self) -> u64 {
        (0..3).map(|n| self.0[n].written_bytes.saturating_sub(before.0[n].written_bytes)).sum()
    }
}

/// A number of a file of /proc. 0 for a process that has ended.
fn field(process: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()).map_or(0, |number| number.parse().unwrap())
}

/// What the UDP sockets of an address hold and have lost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sockets {
    /// The most bytes that wait in the buffer of any one.
    pub(crate) waiting_bytes_max: u64,
    /// Datagrams that the kernel had no room for.
    pub(crate) drops: u64,
}

impl Sockets {
    /// From proc_net(5): an address is a number in the machine's byte order, a port one as it is read.
    pub(crate) fn of(address: SocketAddr) -> Self {
        let IpAddr::V4(ip) = address.ip() else { panic!("{address} is not of the loopback network") };
        let wanted = format!("{:08X}:", u32::from_ne_bytes(ip.octets()));
        let mut sockets = Self::default();
        for line in fs::read_to_string("/proc/net/udp").unwrap().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[1].starts_with(&wanted) {
                let waiting = u64::from_str_radix(fields[4].split_once(':').unwrap().1, 16).unwrap();
                sockets.waiting_bytes_max = sockets.waiting_bytes_max.max(waiting);
                sockets.drops += fields.last().unwrap().parse::<u64>().unwrap();
            }
        }
        sockets
    }
}

/// Lets this process have as many descriptors as it may: a call over TCP or UDP has one.
pub(crate) fn take_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// What the figures depend on besides the program.
pub(crate) fn machine() -> String {
    let first = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.trim_start_matches([':', ' ', '\t']).to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let model = first("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let kernel = first("/proc/sys/kernel/osrelease", "").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!("{cores} cores, {model}, Linux {kernel}, load {load} before the run")
}

/// Version and, where there is one, commit.
pub(crate) fn version() -> String {
    let commit = std::process::Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    let commit = commit.ok().filter(|output| output.status.success());
    let commit = commit.map(|output| format!(" ({})", String::from_utf8_lossy(&output.stdout).trim()));
    format!("{}{}", env!("CARGO_PKG_VERSION"), commit.unwrap_or_default())
}

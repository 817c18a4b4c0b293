//! What the appliance's processes and sockets take, as the kernel tells it.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use super::rig::{Appliance, process};

/// The programs that the daemon starts.
const CHILDREN: [&str; 2] = ["callvault-recorder", "callvault-render"];

/// What all processes of an appliance have taken.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) daemon_cpu_ms: u64,
    pub(crate) recorder_cpu_ms: u64,
    /// Memory of all of them; what they share counts once.
    pub(crate) memory_kib: u64,
}

impl Usage {
    pub(crate) fn of(appliance: &Appliance) -> Self {
        let (daemon, recorder) = (appliance.daemon(), appliance.recorder());
        let children = CHILDREN.iter().flat_map(|program| process::children(daemon, program));
        Self {
            daemon_cpu_ms: process::cpu_ms(daemon),
            recorder_cpu_ms: process::cpu_ms(recorder),
            memory_kib: children.chain([daemon]).map(memory_kib).sum(),
        }
    }
}

/// The proportional set size. 0 for a process that has ended.
fn memory_kib(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
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

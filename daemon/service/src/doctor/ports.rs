//! The ports: those that are free, and those that the running daemon has.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt as _;

use callvault_config::{Config, HttpListen};

use super::{Finding, Patient};
use crate::fd_store::Brought;
use crate::sockets::{Sockets, SocketsError};
use crate::start::wanted_sockets;

const PART: &str = "ports";

/// The state of a listening socket in the kernel's tables.
const LISTENS: &str = "0A";

/// What is to be bound.
pub(super) fn ports(patient: &Patient) -> Vec<Finding> {
    match patient.running {
        Some(process) => beside(&patient.config, process),
        None => alone(&patient.config),
    }
}

/// Binds all of it, as a start would.
fn alone(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    match Sockets::open(&wanted_sockets(config), &mut Brought::default()) {
        Ok(sockets) if sockets.taken_pairs > 0 => {
            let text = format!(
                "{} pairs of ports in media.ports are taken by other programs, and passed over; `ss -lunp` shows by whom",
                sockets.taken_pairs
            );
            findings.push(Finding::warning(PART, text));
        }
        Ok(sockets) => {
            let (addresses, pairs) = (sockets.sip_addresses().len(), sockets.media.len() / 2);
            let text = format!("{addresses} SIP addresses and {pairs} pairs of media ports can be bound");
            findings.push(Finding::well(PART, text));
        }
        Err(error) => findings.push(taken(&error)),
    }
    findings.extend(control(config, &HashSet::new()));
    findings
}

fn taken(error: &SocketsError) -> Finding {
    Finding::problem(PART, format!("failed to {error}; `ss -lntup` shows who has it"))
}

/// The control endpoint, unless its port is one of these.
fn control(config: &Config, ours: &HashSet<u16>) -> Option<Finding> {
    let HttpListen::Tcp(address) = &config.http.listen else { return None };
    let error = TcpListener::bind(address).err().filter(|_| !ours.contains(&address.port()))?;
    let text = format!(
        "{address} (http.listen) cannot be bound: {error}; `ss -lntp` shows who has it, or name another address"
    );
    Some(Finding::problem(PART, text))
}

/// Binds what the running daemon does not have: what was configured since its start. A port that is its own at any address is taken to
/// be free by the time that it starts again.
fn beside(config: &Config, process: u32) -> Vec<Finding> {
    let table = |names: [&str; 2], state: Option<&str>| {
        let texts = names.map(|name| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default());
        texts.iter().flat_map(|text| entries(text, state)).collect::<Vec<_>>()
    };
    let holder = Holder::of(process);
    let of_holder = |entries: Vec<Entry>| -> HashSet<u16> {
        entries.iter().filter(|entry| holder.has(entry)).map(|entry| entry.port).collect()
    };
    let datagrams = of_holder(table(["udp", "udp6"], None));
    let connections = of_holder(table(["tcp", "tcp6"], Some(LISTENS)));
    let wanted = wanted_sockets(config);
    let mut findings = Vec::new();
    let mut sip = |address: &SocketAddr, transport, ours: &HashSet<u16>, bound: io::Result<()>| {
        if let Err(error) = bound
            && !ours.contains(&address.port())
        {
            findings.push(taken(&SocketsError::Sip { address: *address, transport, error }));
        }
    };
    for address in wanted.udp {
        sip(address, "udp", &datagrams, UdpSocket::bind(address).map(drop));
    }
    for (addresses, transport) in [(wanted.tcp, "tcp"), (wanted.tls, "tls")] {
        for address in addresses {
            sip(address, transport, &connections, TcpListener::bind(address).map(drop));
        }
    }
    findings.extend(control(config, &connections));
    let (first, last) = (*wanted.media_ports.start(), *wanted.media_ports.end());
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut is_free = |port| {
        let bound = UdpSocket::bind((wanted.media_address, port));
        bound.map_err(|error| failure = error).is_ok() || datagrams.contains(&port)
    };
    let mut evens = (first..last).filter(|port| port.is_multiple_of(2));
    if !evens.any(|even| is_free(even) && is_free(even + 1)) {
        let error = SocketsError::Media { address: wanted.media_address, first, last, error: failure };
        findings.push(taken(&error));
    }
    if findings.is_empty() {
        let text = format!("they are with callvaultd (process {process}), and what it does not have can be bound");
        findings.push(Finding::well(PART, text));
    }
    findings
}

/// A socket in the kernel's tables.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) port: u16,
    pub(super) user: u32,
    pub(super) inode: u64,
}

/// The sockets in a table such as /proc/net/tcp (proc_net(5)), of one state where one is named.
pub(super) fn entries(table: &str, state: Option<&str>) -> Vec<Entry> {
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(words.get(1)?.rsplit(':').next()?, 16).ok()?;
        let is_it = state.is_none_or(|state| words.get(3) == Some(&state));
        let entry = Entry { port, user: words.get(7)?.parse().ok()?, inode: words.get(9)?.parse().ok()? };
        is_it.then_some(entry)
    };
    table.lines().skip(1).filter_map(entry).collect()
}

/// Whose sockets are whose.
enum Holder {
    /// By what the process has open.
    Process(HashSet<u64>),
    /// By its user, where what it has open is not for us to see.
    User(u32),
    /// It is gone.
    Nobody,
}

impl Holder {
    fn of(process: u32) -> Self {
        let folder = format!("/proc/{process}");
        let inode = |entry: io::Result<fs::DirEntry>| {
            let target = fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        };
        match fs::read_dir(format!("{folder}/fd")) {
            Ok(open) => Self::Process(open.filter_map(inode).collect()),
            Err(_) => fs::metadata(folder).map_or(Self::Nobody, |about| Self::User(about.uid())),
        }
    }

    fn has(&self, entry: &Entry) -> bool {
        match self {
            Self::Process(inodes) => inodes.contains(&entry.inode),
            Self::User(user) => entry.user == *user,
            Self::Nobody => false,
        }
    }
}

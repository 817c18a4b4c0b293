//! What outlives the daemon: the sockets, and the key of the checkpoints, rest in the service manager's file-descriptor store
//! (systemd: `FileDescriptorStoreMax=`, sd_notify(3)), and come back as inherited descriptors at the next start (sd_listen_fds(3)).
//!
//! - Every socket is there, so that what arrives between two daemons waits in the kernel. They are stored many in one (`bundle.rs`), under
//!   one name, and recognised by what they are bound to, so neither their order nor their number means anything.
//! - The key is in a sealed memory file: it is in memory alone, and nobody can change or cut it.
//! - That the manager has them is not believed but seen. Its answer to a barrier says that it has read everything before; a pipe's end
//!   that was given to it last is still open only if it really keeps what it is given, since one that keeps nothing, or no more, closes it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use callvault_control::{CHECKPOINT_KEY_BYTES, CheckpointKey};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::sockopt::{AcceptConn, SockType as SockTypeOption};
use nix::sys::socket::{ControlMessage, MsgFlags, SockType, SockaddrStorage, getsockname, getsockopt, sendmsg};
use nix::unistd::pipe2;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::appliance::Appliance;
use crate::sockets::Sockets;

mod bundle;

use bundle::{BUNDLED_MAX, bundle, may_be_bundle, unbundle};

/// Names in the store: bundles of sockets (with a number after it: those that take the place of others are given before the others are
/// closed), the key, and the end of a pipe that says whether the store keeps things.
const SOCKETS: &str = "sockets";
const KEY: &str = "key";
const WATCH: &str = "watch";

/// First descriptor that is inherited from a service manager.
const FIRST_FD: RawFd = 3;

/// Most descriptors that are stored: bundles of all sockets that there can be (65,535 ports and some), the key and the pipe, twice,
/// since what is replaced goes after what takes its place. It is what `FileDescriptorStoreMax` says in the packaged unit.
pub(crate) const STORED_MAX: usize = 1_024;

/// How long the manager may take to take what it is sent.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Between two looks whether the store still keeps what it has.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// First bytes of the memory file that holds the key: what it is, and the version of its form.
const KEY_MAGIC: &[u8; 8] = b"CVKEY\0\0\x01";

/// The part of the appliance that notes are about.
pub(crate) const NOTE: &str = "fd-store";

/// What a socket is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Whether it listens for connections; otherwise it takes datagrams.
    pub(crate) listens: bool,
    /// Address as bound.
    pub(crate) ip: IpAddr,
    /// Port.
    pub(crate) port: u16,
}

impl Place {
    /// Where datagrams are taken.
    pub(crate) fn datagrams(at: SocketAddr) -> Self {
        Self { listens: false, ip: at.ip(), port: at.port() }
    }

    /// Where connections are taken.
    pub(crate) fn connections(at: SocketAddr) -> Self {
        Self { listens: true, ip: at.ip(), port: at.port() }
    }
}

/// What an earlier daemon left.
#[derive(Default)]
pub(crate) struct Brought {
    /// The sockets.
    pub(crate) sockets: HashMap<Place, OwnedFd>,
    /// The key of the checkpoints.
    pub(crate) key: Option<CheckpointKey>,
    /// Names under which anything came, but for the key and the pipe.
    names: BTreeSet<String>,
    /// Descriptors that are none of ours; they are closed.
    foreign: usize,
}

impl Brought {
    /// Takes what this process was given when it was started. To be called once, before anything else is opened.
    pub(crate) fn take() -> Self {
        Self::of(inherited())
    }

    fn of(descriptors: Vec<(String, OwnedFd)>) -> Self {
        let mut brought = Self::default();
        for (name, fd) in descriptors {
            if place_of(&fd).is_some() {
                brought.take_socket(fd);
            } else if may_be_bundle(&fd) {
                match unbundle(&fd) {
                    Some(fds) => fds.into_iter().for_each(|fd| brought.take_socket(fd)),
                    None => brought.foreign += 1,
                }
            } else if name == KEY && brought.key.is_none() {
                brought.key = read_key(fd);
                brought.foreign += usize::from(brought.key.is_none());
            } else if name != WATCH {
                brought.foreign += 1;
            }
            if name != KEY && name != WATCH {
                brought.names.insert(name);
            }
        }
        brought
    }

    fn take_socket(&mut self, fd: OwnedFd) {
        match place_of(&fd) {
            // One that came twice is the same: others took the place of what the store has had, and that was not closed yet.
            Some(place) => drop(self.sockets.insert(place, fd)),
            None => self.foreign += 1,
        }
    }

    /// Closes what `is_wanted` does not want, and says how many are not to be kept: these, and what is none of ours.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(Place, &OwnedFd) -> bool) -> usize {
        let before = self.sockets.len();
        self.sockets.retain(|place, fd| is_wanted(*place, fd));
        self.foreign + before - self.sockets.len()
    }

    /// The names under which anything came that is not cleared, but for the key and the pipe.
    pub(crate) fn into_names(self) -> BTreeSet<String> {
        self.names
    }
}

/// The descriptors that a service manager gave to this process, with their names.
#[allow(unsafe_code)]
fn inherited() -> Vec<(String, OwnedFd)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    // Those of a process before this one may still be in the environment.
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0);
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let is_open = |fd: &RawFd| Path::new(&format!("/proc/self/fd/{fd}")).symlink_metadata().is_ok();
    (FIRST_FD..FIRST_FD.saturating_add(count))
        .zip(names)
        .filter(|(fd, _)| is_open(fd))
        .filter_map(|(fd, name)| {
            // SAFETY: it is open, and by sd_listen_fds(3) it is this process's own: the manager opened it for it, named the process
            // in LISTEN_PID, and nothing here has opened anything yet or knows of it. It is taken once, since the caller is.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
            Some((name, fd))
        })
        .collect()
}

/// What a descriptor is bound to, if it is a socket of a kind that we have.
fn place_of(fd: &OwnedFd) -> Option<Place> {
    let listens = match getsockopt(fd, SockTypeOption).ok()? {
        SockType::Datagram => false,
        SockType::Stream if getsockopt(fd, AcceptConn).ok()? => true,
        _ => return None,
    };
    let address: SockaddrStorage = getsockname(fd.as_raw_fd()).ok()?;
    let at = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::new(IpAddr::V4(v4.ip()), v4.port()),
        (_, Some(v6)) => SocketAddr::new(IpAddr::V6(v6.ip()), v6.port()),
        _ => return None,
    };
    (at.port() != 0).then_some(Place { listens, ip: at.ip(), port: at.port() })
}

/// A file in memory that holds the key and can be neither changed nor cut.
fn seal_key(key: &CheckpointKey) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"callvault-checkpoint-key", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(fd);
    let mut bytes = Zeroizing::new(KEY_MAGIC.to_vec());
    bytes.extend_from_slice(key.expose());
    file.write_all(&bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(key_seals()))?;
    Ok(file.into())
}

fn key_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL
}

/// The key that is in such a file, if it is one.
fn read_key(fd: OwnedFd) -> Option<CheckpointKey> {
    let seals = fcntl(&fd, FcntlArg::F_GET_SEALS).ok()?;
    let file = File::from(fd);
    let length = KEY_MAGIC.len() + CHECKPOINT_KEY_BYTES;
    if SealFlag::from_bits_retain(seals) != key_seals() || file.metadata().ok()?.len() != length as u64 {
        return None;
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (magic, key) = bytes.split_first_chunk()?;
    (magic == KEY_MAGIC).then_some(CheckpointKey::from_bytes(key.try_into().ok()?))
}

/// Why the service manager does not keep what it is given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("tell the service manager (NOTIFY_SOCKET): {0}")]
    Send(#[from] io::Error),
    #[error(
        "hear from the service manager that it has what it was given: no answer within {} s; systemd 246 or newer is needed",
        ANSWER_WITHIN.as_secs()
    )]
    NoAnswer,
    #[error(
        "have {descriptors} descriptors kept by the service manager: it closes them; the unit needs FileDescriptorStoreMax={STORED_MAX}"
    )]
    NotKept { descriptors: usize },
    #[error("put {sockets} sockets together for the service manager: {source}; the unit needs a larger LimitNOFILE")]
    Bundle { sockets: usize, source: io::Error },
}

impl From<Errno> for StoreError {
    fn from(error: Errno) -> Self {
        Self::Send(error.into())
    }
}

/// The store of the service manager that started this process.
pub(crate) struct FdStore {
    messages: UnixDatagram,
}

impl FdStore {
    /// The store, where a service manager started this process.
    pub(crate) fn of_environment() -> Option<Self> {
        let address = std::env::var("NOTIFY_SOCKET").ok()?;
        match Self::at(&address) {
            Ok(store) => Some(store),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told anything: {error}");
                None
            }
        }
    }

    fn at(address: &str) -> io::Result<Self> {
        let address = match address.strip_prefix('@') {
            Some(name) => UnixAddress::from_abstract_name(name)?,
            None => UnixAddress::from_pathname(address)?,
        };
        let messages = UnixDatagram::unbound()?;
        messages.connect_addr(&address)?;
        messages.set_write_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self { messages })
    }

    fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> Result<(), StoreError> {
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let beside = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        loop {
            let text = [IoSlice::new(text.as_bytes())];
            match sendmsg::<()>(self.messages.as_raw_fd(), &text, beside, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives the store descriptors, all under one name, and waits until it has read that. What it has already it keeps once.
    /// `FDPOLL=0`: a bundle's other end is closed, which is no reason to drop it.
    fn add(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<(), StoreError> {
        for some in fds.chunks(BUNDLED_MAX) {
            self.send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), some)?;
            self.barrier()?;
        }
        Ok(())
    }

    /// Has the store close everything that has this name.
    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// Waits until the manager has read everything that it was sent.
    fn barrier(&self) -> Result<(), StoreError> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        self.send("BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        if is_hung_up(&ours, ANSWER_WITHIN)? { Ok(()) } else { Err(StoreError::NoAnswer) }
    }

    /// Has everything closed that came and whose names are these, so that addresses that are not wanted any more are free.
    pub(crate) fn clear(&self, brought: &mut Brought) -> Result<(), StoreError> {
        for name in std::mem::take(&mut brought.names) {
            self.remove(&name)?;
        }
        self.barrier()
    }
}

/// Whether nobody has the other end of a pipe any more, or lets go of it in this time.
fn is_hung_up(pipe: &OwnedFd, within: Duration) -> Result<bool, StoreError> {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
        match poll(&mut polled, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is to be kept, and what of it the store has already.
pub(crate) struct Keeping {
    /// The store.
    pub(crate) store: FdStore,
    /// The sockets.
    pub(crate) sockets: Arc<Sockets>,
    /// The key of the checkpoints.
    pub(crate) key: CheckpointKey,
    /// Names of what the store has that is not to stay; `None` where it has all sockets and nothing else.
    pub(crate) replaces: Option<BTreeSet<String>>,
    /// Whether the key came from the store.
    pub(crate) has_key: bool,
}

impl Keeping {
    /// Has everything kept, and says what is known of it, until the daemon stops.
    pub(crate) fn run(self, appliance: &Appliance, stays: &watch::Sender<bool>) {
        let mut kept = self.keep();
        if kept.is_ok() {
            tracing::info!("the service manager keeps the sockets: calls go on when this service is restarted");
        }
        let mut heard = 0;
        loop {
            kept = kept.and_then(|watched| match is_hung_up(&watched, Duration::ZERO) {
                Ok(false) => Ok(watched),
                Ok(true) => Err(StoreError::NotKept { descriptors: self.descriptors() }),
                Err(error) => Err(error),
            });
            stays.send_if_modified(|stays| std::mem::replace(stays, kept.is_ok()) != kept.is_ok());
            appliance.sockets_stay.store(kept.is_ok(), Ordering::Relaxed);
            match &kept {
                Ok(_) => appliance.notes.clear(NOTE),
                Err(error) => {
                    appliance.notes.set(NOTE, format!("failed to {error} (a restart of the service ends all calls)"));
                }
            }
            if appliance.stopping.load(Ordering::Relaxed) {
                return;
            }
            heard = appliance.stop_bell.wait(heard, LOOK_EVERY);
        }
    }

    fn descriptors(&self) -> usize {
        // With the key and the pipe.
        self.sockets.listed().len().div_ceil(BUNDLED_MAX) + 2
    }

    /// Gives the store what it has not. Returns the end of a pipe that hangs up when the store lets go.
    fn keep(&self) -> Result<OwnedFd, StoreError> {
        self.store.remove(WATCH)?;
        if let Some(replaced) = &self.replaces {
            let sockets: Vec<BorrowedFd<'_>> = self.sockets.listed().into_iter().map(|(_, fd)| fd).collect();
            let bundles: io::Result<Vec<OwnedFd>> = sockets.chunks(BUNDLED_MAX).map(bundle).collect();
            let bundles = bundles.map_err(|source| StoreError::Bundle { sockets: sockets.len(), source })?;
            let bundles: Vec<BorrowedFd<'_>> = bundles.iter().map(AsFd::as_fd).collect();
            let name = (1_u32..).map(|n| format!("{SOCKETS}-{n}")).find(|name| !replaced.contains(name));
            self.store.add(&name.unwrap_or_else(|| SOCKETS.to_owned()), &bundles)?;
            for name in replaced {
                self.store.remove(name)?;
            }
        }
        if !self.has_key {
            self.store.remove(KEY)?;
            self.store.add(KEY, &[seal_key(&self.key)?.as_fd()])?;
        }
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        self.store.add(WATCH, &[theirs.as_fd()])?;
        drop(theirs);
        if is_hung_up(&ours, Duration::ZERO)? {
            return Err(StoreError::NotKept { descriptors: self.descriptors() });
        }
        Ok(ours)
    }
}

#[cfg(test)]
mod tests;

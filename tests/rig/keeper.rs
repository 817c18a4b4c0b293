//! A service manager as small as can be: it keeps the descriptors that a daemon gives it (sd_notify(3)) and gives them to the next one
//! that it starts (sd_listen_fds(3)).

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::stat::fstat;

/// What is kept is numbered from here on in this process, beyond every number that a daemon is given.
const KEPT_FROM: RawFd = 1_000;

/// Descriptors in a message, at most: what the kernel passes at once.
const PER_MESSAGE_MAX: usize = 253;

#[derive(Default)]
struct State {
    kept: Vec<(String, OwnedFd)>,
    /// How many it keeps; the rest it closes.
    most: usize,
}

/// The service manager. What it keeps is closed when it is dropped.
pub struct Keeper {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Keeper {
    /// One that keeps no more than this many descriptors.
    pub fn keeping(most: usize) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let name = format!("callvault-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let state = Arc::new(Mutex::new(State { kept: Vec::new(), most }));
        let weak = Arc::downgrade(&state);
        thread::spawn(move || {
            loop {
                let (text, fds) = receive(socket.as_raw_fd(), MsgFlags::empty());
                let text = String::from_utf8(text).unwrap();
                let Some(state) = weak.upgrade() else { return };
                state.lock().unwrap().obey(&text, fds);
            }
        });
        Self { address: format!("@{name}"), state }
    }

    /// How many descriptors of this name are kept.
    pub fn count(&self, name: &str) -> usize {
        self.state.lock().unwrap().kept.iter().filter(|(of, _)| of == name).count()
    }

    /// The sockets that are kept, many in one, as the kernel numbers them.
    pub fn sockets(&self) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        let bundles = state.kept.iter().filter(|(name, _)| name.starts_with("sockets-"));
        let sockets = bundles.flat_map(|(_, bundle)| receive(bundle.as_raw_fd(), MsgFlags::MSG_PEEK).1);
        sockets.map(|fd| fstat(fd).unwrap().st_ino).collect()
    }

    /// Keeps this as well, or instead of what has this name.
    pub fn slip_in(&self, name: &str, fd: OwnedFd) {
        let mut state = self.state.lock().unwrap();
        state.kept.retain(|(of, _)| of != name);
        state.kept.push((name.to_owned(), high(&fd)));
    }

    /// Closes everything, as when the service is stopped for good.
    pub fn forget(&self) {
        self.state.lock().unwrap().kept.clear();
    }

    /// What starts a program as a service manager does, with everything that is kept. `arguments` go to a shell that becomes the program.
    #[allow(unsafe_code)]
    pub fn hand_over(&self, command: &mut Command) {
        let state = self.state.lock().unwrap();
        let fds: Vec<OwnedFd> = state.kept.iter().map(|(_, fd)| high(fd)).collect();
        let names: Vec<&str> = state.kept.iter().map(|(name, _)| name.as_str()).collect();
        command.env("NOTIFY_SOCKET", &self.address);
        if fds.is_empty() {
            return;
        }
        command.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        let place = move || {
            for (fd, number) in fds.iter().zip(3..) {
                // SAFETY: both are numbers; what had this one in the child is nothing that is used after this.
                if unsafe { nix::libc::dup2(fd.as_raw_fd(), number) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: dup2 is all that it calls.
        unsafe { command.pre_exec(place) };
    }
}

/// The same descriptor under a number that no daemon is given.
#[allow(unsafe_code)]
fn high(fd: &OwnedFd) -> OwnedFd {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(KEPT_FROM)).unwrap();
    // SAFETY: it was made just now and is nobody else's.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[allow(unsafe_code)]
fn receive(socket: RawFd, how: MsgFlags) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = [0; 4_096];
    let mut rights = cmsg_space!([RawFd; PER_MESSAGE_MAX]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | how;
    let message = recvmsg::<()>(socket, &mut slices, Some(&mut rights), flags).unwrap();
    let mut fds = Vec::new();
    for beside in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(received) = beside {
            // SAFETY: the kernel has opened them for us just now.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    (bytes[..length].to_vec(), fds)
}

impl State {
    fn obey(&mut self, text: &str, fds: Vec<OwnedFd>) {
        let lines: Vec<&str> = text.lines().collect();
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
        if lines.contains(&"FDSTOREREMOVE=1") {
            self.kept.retain(|(of, _)| of != name);
        }
        if lines.contains(&"FDSTORE=1") {
            assert!(lines.contains(&"FDPOLL=0"), "that nobody has its other end would close it");
            for fd in fds {
                let is_same = |kept: &OwnedFd| {
                    let (a, b) = (fstat(kept).unwrap(), fstat(&fd).unwrap());
                    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
                };
                if self.kept.len() < self.most && !self.kept.iter().any(|(_, kept)| is_same(kept)) {
                    self.kept.push((name.to_owned(), high(&fd)));
                }
            }
        }
        // A barrier ends with its descriptor, which is closed here.
    }
}

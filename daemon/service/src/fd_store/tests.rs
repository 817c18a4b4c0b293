#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use callvault_control::CheckpointKey;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::unistd::pipe2;

use super::{BUNDLED_MAX, Brought, KEY, KEY_MAGIC, Place, SOCKETS, WATCH};
use super::{bundle, is_hung_up, may_be_bundle, place_of, read_key, seal_key, unbundle};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn key() -> CheckpointKey {
    CheckpointKey::from_bytes([7; 32])
}

/// A memory file with this in it, sealed like this.
fn memory(bytes: &[u8], seals: SealFlag) -> OwnedFd {
    let mut file = File::from(memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap());
    file.write_all(bytes).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file.into()
}

#[test]
fn a_key_comes_back_and_what_is_no_key_does_not() {
    fn check(fd: OwnedFd, expected: Option<CheckpointKey>) {
        assert_eq!(read_key(fd), expected);
    }
    let all = super::key_seals();
    let whole = [KEY_MAGIC.as_slice(), &[7; 32]].concat();
    check(seal_key(&key()).unwrap(), Some(key()));
    check(memory(&whole, all), Some(key()));
    check(memory(&whole[..39], all), None);
    check(memory(&[&whole[..], &[0]].concat(), all), None);
    check(memory(&[b"CVKEY\0\0\x02".as_slice(), &[7; 32]].concat(), all), None);
    // Whoever has it could still change it.
    check(memory(&whole, SealFlag::empty()), None);
    check(memory(&whole, all & !SealFlag::F_SEAL_WRITE), None);
    check(File::open("/dev/zero").unwrap().into(), None);
    check(UdpSocket::bind(ANY).unwrap().into(), None);
}

#[test]
fn a_sealed_key_cannot_be_changed() {
    let mut file = File::from(seal_key(&key()).unwrap());
    assert!(file.write_all(b"x").is_err());
    assert!(file.set_len(0).is_err());
}

#[test]
fn sockets_are_known_by_what_they_are_bound_to() {
    fn check(fd: impl Into<OwnedFd>, expected: Option<Place>) {
        assert_eq!(place_of(&fd.into()), expected);
    }
    let datagrams = UdpSocket::bind(ANY).unwrap();
    let at = datagrams.local_addr().unwrap();
    check(datagrams, Some(Place::datagrams(at)));
    let six = UdpSocket::bind("[::1]:0").unwrap();
    let at = six.local_addr().unwrap();
    check(six, Some(Place::datagrams(at)));
    let listener = TcpListener::bind(ANY).unwrap();
    let at: SocketAddr = listener.local_addr().unwrap();
    check(TcpStream::connect(at).unwrap(), None);
    check(listener, Some(Place::connections(at)));
    check(UnixDatagram::unbound().unwrap(), None);
    check(File::open("/dev/null").unwrap(), None);
}

#[test]
fn what_was_brought_is_sorted_by_what_it_is_and_not_by_its_name() {
    let socket = UdpSocket::bind(ANY).unwrap();
    let twice = socket.try_clone().unwrap();
    let place = Place::datagrams(socket.local_addr().unwrap());
    let listener = TcpListener::bind(ANY).unwrap();
    let listens = Place::connections(listener.local_addr().unwrap());
    let (_, pipe) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let named = |name: &str, fd: OwnedFd| (name.to_owned(), fd);
    let mut brought = Brought::of(vec![
        named(SOCKETS, socket.into()),
        named("rtp", twice.into()),
        named("", listener.into()),
        named(WATCH, pipe),
        named(KEY, seal_key(&key()).unwrap()),
        named("file", File::open("/dev/null").unwrap().into()),
    ]);
    assert_eq!(brought.key, Some(key()));
    assert_eq!(brought.sockets.len(), 2);
    // The file; the socket that came twice is one.
    assert_eq!(brought.retain(|_, _| true), 1);
    assert_eq!(brought.retain(|at, _| at == listens), 2);
    assert!(!brought.sockets.contains_key(&place));
}

#[test]
fn a_pipe_hangs_up_when_nobody_has_its_other_end() {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).unwrap();
    assert!(!is_hung_up(&ours, Duration::ZERO).unwrap());
    let copy = theirs.try_clone().unwrap();
    drop(theirs);
    assert!(!is_hung_up(&ours, Duration::ZERO).unwrap());
    drop(copy);
    assert!(is_hung_up(&ours, Duration::from_secs(60)).unwrap());
}

#[test]
fn a_bundle_gives_copies_as_often_as_it_is_asked() {
    let sockets: Vec<UdpSocket> = (0..BUNDLED_MAX).map(|_| UdpSocket::bind(ANY).unwrap()).collect();
    let places: Vec<Place> = sockets.iter().map(|socket| Place::datagrams(socket.local_addr().unwrap())).collect();
    let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let kept = bundle(&fds).unwrap();
    drop(sockets);
    for round in 0..3 {
        let found: Vec<_> = unbundle(&kept).unwrap().iter().map(|fd| place_of(fd).unwrap()).collect();
        assert_eq!(found, places, "round {round}");
    }
    // What is sent while nobody has them is there for whoever comes next.
    let sender = UdpSocket::bind(ANY).unwrap();
    sender.send_to(b"waits", (places[7].ip, places[7].port)).unwrap();
    let mut brought = Brought::of(vec![(SOCKETS.to_owned(), kept)]);
    assert_eq!((brought.sockets.len(), brought.retain(|_, _| true)), (BUNDLED_MAX, 0));
    let socket = UdpSocket::from(brought.sockets.remove(&places[7]).unwrap());
    let mut bytes = [0; 10];
    assert_eq!(socket.recv(&mut bytes).unwrap(), 5);
}

#[test]
fn what_is_no_bundle_is_closed_and_cleared() {
    fn check(what: &str, fd: OwnedFd) {
        assert!(may_be_bundle(&fd) && unbundle(&fd).is_none(), "{what}");
        assert_eq!(Brought::of(vec![(SOCKETS.to_owned(), fd)]).retain(|_, _| true), 1, "{what}");
    }
    let pair = || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
    };
    let with = |bytes: &[u8]| {
        let (a, b) = pair();
        send(a.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
        b
    };
    check("nothing in it", pair().1);
    check("a message without descriptors", with(b"CVFDS\0\0\x01\x01"));
    check("another version", with(b"CVFDS\0\0\x02\0"));
    check("more than there is to say", with(b"CVFDS\0\0\x01\0\0"));
    check("nothing said", with(b""));
    assert!(bundle(&vec![pair().0.as_fd(); BUNDLED_MAX + 1]).is_err());
}

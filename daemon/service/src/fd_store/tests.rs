#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use callvault_control::CheckpointKey;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pipe2;

use super::{Brought, KEY, KEY_MAGIC, MEDIA, Place, SIP, WATCH, is_hung_up, place_of, read_key, seal_key};

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
        named(SIP, socket.into()),
        named(MEDIA, twice.into()),
        named("", listener.into()),
        named(WATCH, pipe),
        named(KEY, seal_key(&key()).unwrap()),
        named("file", File::open("/dev/null").unwrap().into()),
    ]);
    assert_eq!(brought.key, Some(key()));
    assert_eq!(brought.sockets.len(), 2);
    // The one that came twice, and the file.
    assert_eq!(brought.retain(|_, _| true), 2);
    assert_eq!(brought.retain(|at, _| at == listens), 3);
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

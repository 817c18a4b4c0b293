//! Many descriptors in one: they wait as rights (SCM_RIGHTS) in the queue of a Unix socket, and that socket is what is stored.
//!
//! systemd compares each descriptor that it is given with each that it has, so thousands of them cost its process seconds, in which it
//! starts and watches nothing else on the machine. Who wants them looks into the queue (MSG_PEEK) and so gets copies; the bundle stays as
//! it is, for whoever comes next.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::SockType as SockTypeOption;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, getsockopt, recvmsg,
    sendmsg, socketpair,
};

/// Descriptors in one bundle: what the kernel passes at once is 253.
pub(super) const BUNDLED_MAX: usize = 250;

/// The message beside them: what it is, and the version of its form. Its last byte is the number of descriptors, so that a bundle of which
/// some could not be taken out is noticed.
const MAGIC: &[u8; 8] = b"CVFDS\0\0\x01";

/// Makes one of at most [`BUNDLED_MAX`].
///
/// # Errors
/// What the kernel says; `ETOOMANYREFS` when more would wait in queues than this process may have open.
pub(super) fn bundle(fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let count = u8::try_from(fds.len()).ok().filter(|_| fds.len() <= BUNDLED_MAX).ok_or(Errno::EINVAL)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (filled, kept) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let message = [MAGIC.as_slice(), &[count]].concat();
    let rights = [ControlMessage::ScmRights(&raw)];
    sendmsg::<UnixAddr>(filled.as_raw_fd(), &[IoSlice::new(&message)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(kept)
}

/// Whether a descriptor may be a bundle: nothing else that is stored is such a socket.
pub(super) fn may_be_bundle(fd: &OwnedFd) -> bool {
    getsockopt(fd, SockTypeOption).is_ok_and(|kind| kind == SockType::SeqPacket)
}

/// Copies of what is in a bundle; `None` where it is none, or not all of it can be had.
pub(super) fn unbundle(bundle: &OwnedFd) -> Option<Vec<OwnedFd>> {
    let mut bytes = [0; MAGIC.len() + 2];
    let mut rights = cmsg_space!([RawFd; BUNDLED_MAX]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(bundle.as_raw_fd(), &mut slices, Some(&mut rights), flags).ok()?;
    let mut fds = Vec::new();
    for beside in message.cmsgs().ok()? {
        if let ControlMessageOwned::ScmRights(raw) = beside {
            fds.extend(raw.into_iter().map(own));
        }
    }
    let (length, is_cut) = (message.bytes, message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC));
    let (magic, count) = bytes.get(..length)?.split_at_checked(MAGIC.len())?;
    (!is_cut && magic == MAGIC && count == [u8::try_from(fds.len()).ok()?]).then_some(fds)
}

#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us (SCM_RIGHTS), and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

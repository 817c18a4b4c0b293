//! One end of the socket pair: messages out, messages in, descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

use crate::{MESSAGE_BYTES_MAX, SOCKETS_PER_MESSAGE_MAX, VERSION};

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The other process closed its end or died.
    #[error("talk to the other process: it closed the connection")]
    Closed,
    /// Nothing can be sent or received just now (non-blocking descriptor).
    #[error("talk to the other process: it is not ready")]
    WouldBlock,
    /// The other process speaks another version.
    #[error(
        "talk to the other process: it speaks version {theirs} of the control protocol, this one {VERSION}; both must come from the same package"
    )]
    Version {
        /// Version byte that came.
        theirs: u8,
    },
    /// A message that cannot be read.
    #[error("read a control message of {bytes} bytes: {why}")]
    Malformed {
        /// Its length.
        bytes: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A message over the limit.
    #[error("send a control message of {bytes} bytes: the limit is {MESSAGE_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The system call failed.
    #[error("use the control socket: {0}")]
    Io(#[from] io::Error),
}

/// One end of the connection between daemon and recorder. Whether calls block is the descriptor's affair.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// Makes a connected pair. Both ends close on exec; who hands one to a child clears that for the child.
    ///
    /// # Errors
    /// What `socketpair(2)` says.
    pub fn pair() -> Result<(Self, Self), ControlError> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(io::Error::from)?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Takes over a descriptor, which must be a `SOCK_SEQPACKET` Unix socket.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Another handle on the same end, so that one thread sends while another receives.
    ///
    /// # Errors
    /// What `dup(2)` says.
    pub fn try_clone(&self) -> Result<Self, ControlError> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// From now on calls on this end return [`ControlError::WouldBlock`] rather than wait.
    ///
    /// # Errors
    /// What `fcntl(2)` says.
    pub fn set_nonblocking(&self) -> Result<(), ControlError> {
        let flags = fcntl(&self.fd, FcntlArg::F_GETFL).map_err(io::Error::from)?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&self.fd, FcntlArg::F_SETFL(flags)).map_err(io::Error::from)?;
        Ok(())
    }

    /// Gives the descriptor away.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Sends one message with `sockets` beside it.
    ///
    /// # Errors
    /// [`ControlError::Closed`] when the other process is gone, [`ControlError::WouldBlock`] when the descriptor is
    /// non-blocking and the other process is behind, [`ControlError::TooLarge`] over [`MESSAGE_BYTES_MAX`].
    pub fn send<M: Serialize>(&self, message: &M, sockets: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        let bytes = encode(message)?;
        let raw: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let beside = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        loop {
            match sendmsg::<UnixAddr>(
                self.fd.as_raw_fd(),
                &[IoSlice::new(&bytes)],
                beside,
                MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(ControlError::WouldBlock),
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => {
                    return Err(ControlError::Closed);
                }
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
    }

    /// Receives one message and the sockets beside it.
    ///
    /// # Errors
    /// [`ControlError::Closed`] when the other process is gone, [`ControlError::WouldBlock`] when nothing is there,
    /// [`ControlError::Version`] and [`ControlError::Malformed`] for what cannot be read.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ControlError> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut rights = cmsg_space!([RawFd; SOCKETS_PER_MESSAGE_MAX]);
        let (length, sockets, cut) = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<UnixAddr>(self.fd.as_raw_fd(), &mut slices, Some(&mut rights), MsgFlags::MSG_CMSG_CLOEXEC) {
                Ok(message) => {
                    let mut sockets = Vec::new();
                    for beside in message.cmsgs().map_err(io::Error::from)? {
                        if let ControlMessageOwned::ScmRights(fds) = beside {
                            sockets.extend(fds.into_iter().map(own));
                        }
                    }
                    let cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                    break (message.bytes, sockets, cut);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(ControlError::WouldBlock),
                Err(Errno::ECONNRESET) => return Err(ControlError::Closed),
                Err(e) => return Err(io::Error::from(e).into()),
            }
        };
        if cut {
            return Err(ControlError::Malformed { bytes: length, why: "it or the sockets beside it were cut".into() });
        }
        let message = decode(bytes.get(..length).unwrap_or_default());
        bytes[..length].zeroize();
        Ok((message?, sockets))
    }
}

/// The bytes of a message, version byte first. They may hold a private key: they are wiped when they are dropped, and there is room for
/// all of them from the start, since growing would leave copies behind.
///
/// # Errors
/// [`ControlError::TooLarge`] over [`MESSAGE_BYTES_MAX`].
pub fn encode<M: Serialize>(message: &M) -> Result<Zeroizing<Vec<u8>>, ControlError> {
    let unencodable = |e: postcard::Error| ControlError::Malformed { bytes: 0, why: e.to_string() };
    let mut bytes = Vec::with_capacity(1 + postcard::experimental::serialized_size(message).map_err(unencodable)?);
    bytes.push(VERSION);
    let bytes = Zeroizing::new(postcard::to_extend(message, bytes).map_err(unencodable)?);
    match bytes.len() {
        length if length > MESSAGE_BYTES_MAX => Err(ControlError::TooLarge { bytes: length }),
        _ => Ok(bytes),
    }
}

/// The message in these bytes.
///
/// # Errors
/// [`ControlError::Closed`] where there are none, which is how a closed connection reads; [`ControlError::Version`] and
/// [`ControlError::Malformed`] for what is no message of this version.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, ControlError> {
    let Some((&version, body)) = bytes.split_first() else {
        return Err(ControlError::Closed);
    };
    if version != VERSION {
        return Err(ControlError::Version { theirs: version });
    }
    postcard::from_bytes(body).map_err(|e| ControlError::Malformed { bytes: bytes.len(), why: e.to_string() })
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us (SCM_RIGHTS), and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

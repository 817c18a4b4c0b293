//! Taking over the sockets and the settings from the daemon.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use callvault_control::{Channel, ControlError, SocketKind, Start, TlsIdentity, ToRecorder};

use crate::ports::PortPair;

/// What a recorder begins with.
pub(crate) struct Handover {
    /// Its settings.
    pub(crate) start: Box<Start>,
    /// SIP over UDP.
    pub(crate) udp: Vec<OwnedFd>,
    /// SIP over TCP.
    pub(crate) tcp: Vec<OwnedFd>,
    /// SIP over TLS.
    pub(crate) tls: Vec<OwnedFd>,
    /// What TLS is secured with, if there is something that can be used.
    pub(crate) certificates: Option<Box<TlsIdentity>>,
    /// Whether no new sessions are to be taken, from the first on.
    pub(crate) draining: bool,
    /// Media sockets in pairs.
    pub(crate) media: Vec<PortPair>,
}

/// Why there was no handover.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    #[error("{0}")]
    Control(#[from] ControlError),
    #[error(
        "use descriptor 0 as the control connection: {0}; callvault-recorder is started by callvaultd, not by hand"
    )]
    NotAChild(io::Error),
    #[error("take over the sockets: {0}")]
    Sockets(&'static str),
}

/// The control connection, which is descriptor 0.
pub(crate) fn control() -> Result<Channel, HandoverError> {
    use std::os::fd::AsFd;
    let fd = io::stdin().as_fd().try_clone_to_owned().map_err(HandoverError::NotAChild)?;
    let kind = nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::SockType);
    match kind {
        Ok(nix::sys::socket::SockType::SeqPacket) => Ok(Channel::from_fd(fd)),
        Ok(_) => Err(HandoverError::NotAChild(io::ErrorKind::InvalidInput.into())),
        Err(error) => Err(HandoverError::NotAChild(error.into())),
    }
}

/// Receives everything up to the `Start` message.
pub(crate) fn receive(channel: &Channel) -> Result<Handover, HandoverError> {
    let (mut udp, mut tcp, mut tls, mut certificates) = (Vec::new(), Vec::new(), Vec::new(), None);
    let mut media: HashMap<u16, OwnedFd> = HashMap::new();
    let mut draining = false;
    loop {
        match channel.receive::<ToRecorder>()? {
            (ToRecorder::Sockets(kinds), fds) => {
                if kinds.len() != fds.len() {
                    return Err(HandoverError::Sockets("their number is not what was announced"));
                }
                for (kind, fd) in kinds.into_iter().zip(fds) {
                    match kind {
                        SocketKind::SipUdp => udp.push(fd),
                        SocketKind::SipTcp => tcp.push(fd),
                        SocketKind::SipTls => tls.push(fd),
                        // For as long as the process lives: the kernel closes it behind everything that was opened before it.
                        SocketKind::Lock => std::mem::forget(fd),
                        SocketKind::Media { port } => {
                            media.insert(port, fd);
                        }
                    }
                }
            }
            (ToRecorder::Certificates(sent), _) => certificates = sent,
            (ToRecorder::Drain, _) => draining = true,
            (ToRecorder::Start(start), _) => {
                return Ok(Handover { start, udp, tcp, tls, certificates, draining, media: pairs(media) });
            }
            _ => return Err(HandoverError::Sockets("another message came before the settings")),
        }
    }
}

fn pairs(mut media: HashMap<u16, OwnedFd>) -> Vec<PortPair> {
    let mut even: Vec<u16> = media.keys().copied().filter(|p| p % 2 == 0).collect();
    even.sort_unstable();
    let mut pairs = Vec::with_capacity(even.len());
    for port in even {
        if let (Some(rtp), Some(rtcp)) = (media.remove(&port), media.remove(&port.saturating_add(1))) {
            pairs.push(PortPair { port, rtp, rtcp });
        }
    }
    pairs
}

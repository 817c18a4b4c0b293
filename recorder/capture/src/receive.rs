//! Receiving many datagrams with one system call (`recvmmsg`), each with its sender and the kernel's timestamp.
//!
//! This is the recorder's innermost loop. The buffers are made once and used again; nothing is allocated per packet.

#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::libc;

/// Longest datagram that is read whole: RTP never exceeds an Ethernet frame by design of every client, jumbo frames aside.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Datagrams per system call. A sweep every 20 to 40 ms finds one to four per socket; the rest is for catching up.
const BATCH: usize = 16;

/// Room for one timestamp control message, with slack.
const CONTROL_BYTES: usize = 64;

/// One received datagram.
pub(crate) struct Datagram<'a> {
    /// Its bytes.
    pub(crate) bytes: &'a mut [u8],
    /// Who sent it.
    pub(crate) from: SocketAddr,
    /// The kernel's receive timestamp, wall clock in nanoseconds, when the socket has them switched on.
    pub(crate) stamp_ns: Option<i64>,
    /// Whether it was longer than [`DATAGRAM_BYTES_MAX`] and is cut.
    pub(crate) cut: bool,
}

/// Buffers for `recvmmsg`.
pub(crate) struct Receiver {
    bytes: Vec<[u8; DATAGRAM_BYTES_MAX]>,
    controls: Vec<Control>,
    names: Vec<libc::sockaddr_storage>,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

impl Receiver {
    pub(crate) fn new() -> Self {
        // SAFETY: sockaddr_storage is plain data for which all zeroes is a valid value (AF_UNSPEC).
        let name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        Self {
            bytes: vec![[0; DATAGRAM_BYTES_MAX]; BATCH],
            controls: vec![Control([0; CONTROL_BYTES]); BATCH],
            names: vec![name; BATCH],
        }
    }

    /// Reads what waits at `socket`, without waiting, and gives each datagram to `each`. Returns how many there were.
    /// At most `most` are read, so that one flooded socket cannot keep the sweep from the others.
    ///
    /// # Errors
    /// What `recvmmsg(2)` says, other than that nothing is there.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        most: usize,
        mut each: impl FnMut(Datagram<'_>),
    ) -> io::Result<usize> {
        let mut total = 0;
        while total < most {
            let wanted = BATCH.min(most - total);
            let got = match self.receive_some(socket, wanted, &mut each) {
                // What came before is told; the error comes again or was an ICMP answer.
                Err(_) if total > 0 => break,
                got => got?,
            };
            total += got;
            if got < wanted {
                break;
            }
        }
        Ok(total)
    }

    fn receive_some(
        &mut self,
        socket: BorrowedFd<'_>,
        wanted: usize,
        each: &mut impl FnMut(Datagram<'_>),
    ) -> io::Result<usize> {
        #[cfg(feature = "simulation")]
        if let Some(got) = crate::simulated::receive(socket.as_raw_fd(), wanted, each) {
            return Ok(got);
        }
        let mut slices = [MaybeUninit::<libc::iovec>::uninit(); BATCH];
        let mut headers = [MaybeUninit::<libc::mmsghdr>::uninit(); BATCH];
        for i in 0..wanted {
            let slice = slices[i]
                .write(libc::iovec { iov_base: self.bytes[i].as_mut_ptr().cast(), iov_len: DATAGRAM_BYTES_MAX });
            // SAFETY: mmsghdr is plain data for which all zeroes is a valid value (no buffers).
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = ptr::from_mut(&mut self.names[i]).cast();
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = ptr::from_mut(slice);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
            headers[i].write(header);
        }
        let got = loop {
            // SAFETY: the first `wanted` headers are initialised and point to buffers of self and to `slices`, all of which
            // outlive the call and are not touched by anything else meanwhile; `wanted` is at most BATCH.
            let got = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr().cast(),
                    wanted as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                )
            };
            if got >= 0 {
                break got as usize;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(0),
                _ => return Err(error),
            }
        };
        for (i, header) in headers.iter().enumerate().take(got.min(wanted)) {
            // SAFETY: header i was initialised above and the kernel has filled it in.
            let header = unsafe { header.assume_init_ref() };
            let length = (header.msg_len as usize).min(DATAGRAM_BYTES_MAX);
            let Some(from) = address(&self.names[i]) else { continue };
            each(Datagram {
                bytes: &mut self.bytes[i][..length],
                from,
                stamp_ns: stamp(&header.msg_hdr),
                cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            });
        }
        Ok(got)
    }
}

/// The receive timestamp among the control messages (`SO_TIMESTAMPNS`).
fn stamp(header: &libc::msghdr) -> Option<i64> {
    // SAFETY: the header was filled in by the kernel, and its control buffer still lives; CMSG_FIRSTHDR and CMSG_NXTHDR
    // stay inside msg_controllen, which the kernel set to what it wrote.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it points to a whole cmsghdr inside the control buffer, which is aligned for it.
        let head = unsafe { &*message };
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_TIMESTAMPNS {
            // SAFETY: a message of this type carries one timespec; it may be unaligned, hence read_unaligned.
            let time: libc::timespec = unsafe { ptr::read_unaligned(libc::CMSG_DATA(message).cast()) };
            return Some(time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec));
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in, which is smaller and less aligned.
            let v4: &libc::sockaddr_in = unsafe { &*ptr::from_ref(name).cast() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the storage holds a sockaddr_in6, which is smaller and less aligned.
            let v6: &libc::sockaddr_in6 = unsafe { &*ptr::from_ref(name).cast() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip).to_canonical(), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};

    use super::{DATAGRAM_BYTES_MAX, Receiver};
    use crate::clock::wall_ns;

    fn check(bind: &str, count: usize, bytes: usize) {
        let to = UdpSocket::bind(bind).unwrap();
        setsockopt(&to, ReceiveTimestampns, &true).unwrap();
        let from = UdpSocket::bind(bind).unwrap();
        let before = wall_ns();
        for i in 0..count {
            from.send_to(&vec![i as u8; bytes], to.local_addr().unwrap()).unwrap();
        }
        let mut seen = Vec::new();
        let got = Receiver::new()
            .receive(to.as_fd(), 1_000, |d| {
                assert_eq!(d.from, from.local_addr().unwrap());
                assert_eq!(d.bytes.len(), bytes.min(DATAGRAM_BYTES_MAX));
                assert_eq!(d.cut, bytes > DATAGRAM_BYTES_MAX);
                let stamp = d.stamp_ns.unwrap();
                assert!(stamp >= before && stamp <= wall_ns());
                seen.push(d.bytes.first().copied());
            })
            .unwrap();
        assert_eq!(got, count);
        let expected: Vec<_> = (0..count).map(|i| (bytes > 0).then_some(i as u8)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn every_datagram_comes_whole_in_order_with_sender_and_time() {
        check("127.0.0.1:0", 0, 0);
        check("127.0.0.1:0", 1, 172);
        check("127.0.0.1:0", 16, 172);
        check("127.0.0.1:0", 50, 172);
        check("127.0.0.1:0", 3, 0);
        check("127.0.0.1:0", 2, 4_000);
        check("[::1]:0", 17, 60);
    }
}

//! Reports about a track: what its sender says of its clocks, and what we tell it (RFC 3550 section 6, RFC 7866 section 8.1).

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use callvault_journal::facts::SenderReportFacts;
use callvault_media::{OwnName, ReportSieve, Reporter, Rtcp, Track, clock_number};
use callvault_srtp::Protector;
use nix::sys::socket::{MsgFlags, SockaddrStorage, getsockname, sendto};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ports::PortPair;

/// Which of a track's two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Rtp,
    Rtcp,
}

/// Where and when a datagram came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at_ns: u64,
    /// Not before this; the same as `at_ns` where that is known.
    pub(super) earliest_ns: u64,
    pub(super) from: SocketAddr,
    pub(super) port: Port,
}

/// What the reports of all sessions have in common.
pub(super) struct Reports {
    /// Whether any are sent.
    enabled: bool,
    rng: StdRng,
}

impl Reports {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, rng: StdRng::from_rng(&mut rand::rng()) }
    }

    /// Our name in a session.
    pub(super) fn name(&mut self) -> OwnName {
        let mut random = [0; 12];
        self.rng.fill_bytes(&mut random);
        OwnName::new(random)
    }

    /// For a track that begins.
    pub(super) fn track(&mut self, now_ns: u64, name: OwnName, remote_ports: (u16, Option<u16>)) -> Reporting {
        Reporting {
            reporter: Reporter::new(now_ns, name, self.rng.next_u32(), self.rng.next_u32()),
            sieve: ReportSieve::default(),
            protector: None,
            remote_ports,
            heard: None,
        }
    }
}

/// The reports of one track.
pub(super) struct Reporting {
    reporter: Reporter,
    sieve: ReportSieve,
    /// What secures ours. It stays when the track is not secured for a while: an index must not be used twice with one key.
    protector: Option<Box<Protector>>,
    /// The client's ports for RTP and RTCP, as the signalling had them.
    remote_ports: (u16, Option<u16>),
    /// Where the sender's reports come from, and to which socket.
    heard: Option<(SocketAddr, Port)>,
}

impl Reporting {
    /// Our key from now on. One that is here already goes on where it was.
    pub(super) fn secure_with(&mut self, protector: Option<Box<Protector>>) {
        let Some(new) = protector else { return };
        if !self.protector.as_ref().is_some_and(|known| known.key().is(new.key())) {
            self.protector = Some(new);
        }
    }

    /// What secures ours, for the next recorder.
    pub(super) fn protector(&self) -> Option<&Protector> {
        self.protector.as_deref()
    }

    /// Another recording begins, whose sources are numbered anew and which has no report yet.
    pub(super) fn begin_anew(&mut self) {
        self.sieve = ReportSieve::default();
    }

    /// Takes note of a compound; `source` is the number of the source that its sender report is about, when that is followed. Gives the
    /// report if it is to be written.
    pub(super) fn hear(
        &mut self,
        arrival: &Arrival,
        rtcp: &Rtcp,
        source: Option<u8>,
        reception: &Track,
        datagram: &[u8],
    ) -> Option<SenderReportFacts> {
        // Who sends from elsewhere has nothing to do with the source: neither its clock nor where our reports go is his to say.
        let followed = reception.followed().filter(|followed| followed.from.ip() == arrival.from.ip())?;
        self.heard = Some((arrival.from, arrival.port));
        let report = rtcp.sender_report?;
        let source = source?;
        if report.ssrc == followed.ssrc {
            self.reporter.heard(&report, arrival.at_ns);
        }
        let clock_rate = reception.reception()?.clock_rate;
        if !self.sieve.keeps(arrival.at_ns, source, clock_rate, &report) {
            return None;
        }
        let named = rtcp.cname.as_ref().filter(|named| named.ssrc == report.ssrc);
        let name = named.and_then(|named| datagram.get(named.name.clone())).unwrap_or_default();
        Some(SenderReportFacts {
            track: 0,
            source,
            ntp: report.ntp,
            rtp_timestamp: report.rtp_timestamp,
            at_ns: arrival.at_ns,
            clock: clock_number(arrival.from.ip(), name),
        })
    }

    /// Sends a report to the source that is followed, when one is due. What cannot be sent at once is not sent: the next one says
    /// more.
    pub(super) fn send_if_due(
        &mut self,
        now_ns: u64,
        is_secured: bool,
        reception: &Track,
        pair: &PortPair,
        reports: &mut Reports,
    ) {
        if !reports.enabled || !self.reporter.is_due(now_ns) {
            return;
        }
        let (Some(followed), Some(received)) = (reception.followed(), reception.reception()) else { return };
        let mut bytes = self.reporter.report(now_ns, &received, reports.rng.next_u32());
        if is_secured {
            // Without a key of ours, or one that is used up, nothing is said.
            let Some(protector) = &mut self.protector else { return };
            if protector.protect_rtcp(&mut bytes).is_err() {
                return;
            }
        }
        let (to, port) = self.destination(followed.from);
        let socket = match port {
            Port::Rtp => pair.rtp.as_fd(),
            Port::Rtcp => pair.rtcp.as_fd(),
        };
        send(socket, to, &bytes);
    }

    /// Where reports go: to where the sender's own come from; before any came to the port that the signalling had, if the RTP port that it
    /// had is right; else to the port after RTP's (RFC 3550 section 11).
    fn destination(&self, source: SocketAddr) -> (SocketAddr, Port) {
        if let Some(heard) = self.heard.filter(|(from, _)| from.ip() == source.ip()) {
            return heard;
        }
        let told = self.remote_ports.1.filter(|port| self.remote_ports.0 == source.port() && *port != 0);
        let next = source.port().checked_add(1).unwrap_or(source.port());
        (SocketAddr::new(source.ip(), told.unwrap_or(next)), Port::Rtcp)
    }
}

/// Sends a datagram without waiting.
fn send(socket: BorrowedFd<'_>, to: SocketAddr, bytes: &[u8]) {
    // Addresses are kept as IPv4 where they are that, whatever the socket is.
    let is_v6 = getsockname::<SockaddrStorage>(socket.as_raw_fd()).is_ok_and(|own| own.as_sockaddr_in6().is_some());
    let to = match to.ip() {
        IpAddr::V4(v4) if is_v6 => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
        _ => to,
    };
    // Reports are lost on the way all the time; one that is lost here is no different.
    let _ = sendto(socket.as_raw_fd(), bytes, &SockaddrStorage::from(to), MsgFlags::MSG_DONTWAIT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_reports_go() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let check = |told: (u16, Option<u16>), heard: Option<(&str, Port)>, from: &str, to: &str, port: Port| {
            let mut reports = Reports::new(true);
            let name = reports.name();
            let mut reporting = reports.track(0, name, told);
            reporting.heard = heard.map(|(from, port)| (address(from), port));
            assert_eq!(reporting.destination(address(from)), (address(to), port), "{told:?} {heard:?}");
        };
        check((4_000, Some(4_001)), None, "192.0.2.1:4000", "192.0.2.1:4001", Port::Rtcp);
        check((4_000, Some(4_007)), None, "192.0.2.1:4000", "192.0.2.1:4007", Port::Rtcp);
        check((4_000, Some(0)), None, "192.0.2.1:4000", "192.0.2.1:4001", Port::Rtcp);
        check((4_000, None), None, "192.0.2.1:4000", "192.0.2.1:4001", Port::Rtcp);
        // Behind a translator of addresses, where the signalling's ports are not those outside.
        check((4_000, Some(4_007)), None, "192.0.2.1:5000", "192.0.2.1:5001", Port::Rtcp);
        check((4_000, None), Some(("192.0.2.1:6000", Port::Rtcp)), "192.0.2.1:5000", "192.0.2.1:6000", Port::Rtcp);
        check((4_000, None), Some(("192.0.2.1:5000", Port::Rtp)), "192.0.2.1:5000", "192.0.2.1:5000", Port::Rtp);
        // The source has moved since.
        check((4_000, None), Some(("192.0.2.9:6000", Port::Rtcp)), "192.0.2.1:5000", "192.0.2.1:5001", Port::Rtcp);
        check((0, None), None, "[2001:db8::1]:65535", "[2001:db8::1]:65535", Port::Rtcp);
    }
}

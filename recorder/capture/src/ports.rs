//! The pool of media port pairs: which are free, which are in use, which rest.
//!
//! A port that was in use rests before it is given again, and is drained first: what still arrives belongs to a call that
//! has ended, or that a recorder before this one took, and must not get into another recording. A port at which something
//! keeps arriving goes on resting.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::clock::ArrivalClock;
use crate::receive::Receiver;

/// How long a port rests: longer than a client needs to hear that its call has ended and to stop sending.
const REST_NS: u64 = 2_000_000_000;

/// How long nothing must have come to a port that has rested: many packets of any codec, and less than the rest, so that the last
/// words of an ordinary call do not double it.
const QUIET_NS: u64 = 500_000_000;

/// Datagrams drained from one socket at a time: more than a receive buffer of the usual size holds.
const DRAIN_MAX: usize = 8_192;

/// Pairs woken in one go: each costs two system calls, and an INVITE waits meanwhile. More than any session takes.
const WAKES_MAX: usize = 256;

/// Pairs looked at beyond those wanted, at whose ports somebody may still be sending, before an INVITE is told that there is none.
const BUSY_MAX: usize = 64;

/// A pair of sockets: RTP on the even port, RTCP on the next.
#[derive(Debug)]
pub(crate) struct PortPair {
    /// The even port.
    pub(crate) port: u16,
    /// RTP.
    pub(crate) rtp: OwnedFd,
    /// RTCP.
    pub(crate) rtcp: OwnedFd,
}

/// The pool.
pub(crate) struct PortPool {
    free: VecDeque<Arc<PortPair>>,
    resting: VecDeque<(u64, Arc<PortPair>)>,
    total: usize,
    receiver: Receiver,
}

impl PortPool {
    pub(crate) fn new(pairs: Vec<PortPair>) -> Self {
        Self {
            total: pairs.len(),
            free: pairs.into_iter().map(Arc::new).collect(),
            resting: VecDeque::new(),
            receiver: Receiver::new(),
        }
    }

    /// Pairs in the pool, whatever their state.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Pairs that could not be given now.
    pub(crate) fn used(&self) -> usize {
        self.total - self.free.len()
    }

    /// Takes `count` pairs, or none when there are not so many.
    pub(crate) fn take(&mut self, now_ns: u64, count: usize) -> Option<Vec<Arc<PortPair>>> {
        self.wake(now_ns);
        let mut taken = Vec::with_capacity(count);
        let mut busy = 0;
        while taken.len() < count {
            let next = if busy <= BUSY_MAX { self.free.pop_front() } else { None };
            let Some(pair) = next else {
                // Nothing was sent to these yet: they need no rest.
                self.free.extend(taken);
                return None;
            };
            if self.drain(&pair).is_some() {
                busy += 1;
                self.resting.push_back((now_ns + REST_NS, pair));
            } else {
                taken.push(pair);
            }
        }
        Some(taken)
    }

    /// Takes these very pairs with what waits in them, for a session that has them already; none when one of them is not free.
    pub(crate) fn claim(&mut self, ports: &[u16]) -> Option<Vec<Arc<PortPair>>> {
        let is_free = |port: &u16| self.free.iter().any(|pair| pair.port == *port);
        if !ports.iter().all(is_free) {
            return None;
        }
        let mut claimed = Vec::with_capacity(ports.len());
        for port in ports {
            if let Some(at) = self.free.iter().position(|pair| pair.port == *port) {
                claimed.extend(self.free.remove(at));
            }
        }
        Some(claimed)
    }

    /// Gives pairs back after use.
    pub(crate) fn give_back(&mut self, now_ns: u64, pairs: impl IntoIterator<Item = Arc<PortPair>>) {
        for pair in pairs {
            self.resting.push_back((now_ns + REST_NS, pair));
        }
    }

    fn wake(&mut self, now_ns: u64) {
        for _ in 0..WAKES_MAX {
            if self.resting.front().is_none_or(|(until, _)| *until > now_ns) {
                break;
            }
            let Some((_, pair)) = self.resting.pop_front() else { break };
            // What came while it rested is thrown away here. When the last of it has only just come, somebody is still sending: a look
            // at the empty socket a moment later would not show it.
            let last_ns = self.drain(&pair);
            if last_ns.is_some_and(|last_ns| last_ns.saturating_add(QUIET_NS) > now_ns) {
                self.resting.push_back((now_ns + REST_NS, pair));
            } else {
                self.free.push_back(pair);
            }
        }
    }

    /// Empties both sockets; says when the last of what was there had come, if anything was.
    fn drain(&mut self, pair: &PortPair) -> Option<u64> {
        let clock = ArrivalClock::read();
        let since = clock.emptied_at(0);
        let mut last_ns = None;
        for socket in [pair.rtp.as_fd(), pair.rtcp.as_fd()] {
            // An error here (an ICMP answer to a receiver report, say) is not a datagram.
            let _ = self.receiver.receive(socket, DRAIN_MAX, |datagram| {
                last_ns = last_ns.max(Some(clock.came(datagram.stamp_ns, &since).at_ns));
            });
        }
        last_ns
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::UdpSocket;

    use super::{PortPair, PortPool, REST_NS};

    fn pool(count: usize) -> PortPool {
        let pairs = (0..count).map(|_| {
            let rtp = UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = rtp.local_addr().unwrap().port();
            PortPair { port, rtp: rtp.into(), rtcp: UdpSocket::bind("127.0.0.1:0").unwrap().into() }
        });
        PortPool::new(pairs.collect())
    }

    #[test]
    fn all_or_none() {
        let mut pool = pool(3);
        assert!(pool.take(0, 4).is_none());
        assert_eq!(pool.take(0, 2).unwrap().len(), 2);
        assert!(pool.take(0, 2).is_none());
        assert_eq!(pool.take(0, 1).unwrap().len(), 1);
        assert_eq!(pool.used(), 3);
    }

    #[test]
    fn a_port_rests_before_it_is_given_again() {
        let mut pool = pool(1);
        let pair = pool.take(0, 1).unwrap();
        pool.give_back(10, pair);
        assert!(pool.take(10, 1).is_none());
        assert!(pool.take(10 + REST_NS - 1, 1).is_none());
        assert!(pool.take(10 + REST_NS, 1).is_some());
    }

    #[test]
    fn a_port_at_which_something_arrives_is_not_given() {
        let mut pool = pool(2);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let busy = pool.free[0].port;
        sender.send_to(b"left over", ("127.0.0.1", busy)).unwrap();
        let given = pool.take(0, 1).unwrap();
        assert_ne!(given[0].port, busy);
        // It keeps arriving until after the rest: the port rests again, then it falls silent and is given.
        assert!(pool.take(REST_NS - 1, 1).is_none());
        assert_eq!(pool.take(REST_NS, 1).unwrap()[0].port, busy);
    }
}

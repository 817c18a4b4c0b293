//! How fast a source may ask for things. Pure: time and addresses come in as arguments.
//!
//! Every limit is a bucket that is kept as one number, the moment at which it is full again: what may still be taken from it
//! follows from how far that moment lies ahead. A bucket that is full says nothing, so a table of sources is emptied of those.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use callvault_control::Start;
use callvault_sip::DialogId;

const SECOND_NS: u64 = 1_000_000_000;

/// What may come at once after a pause, in seconds of the rate: after an outage a client sends the calls that it held back.
const BURST_S: u32 = 2;

/// Sources remembered by one table. Clients are few; a table that is full of busy sources is a flood, which then shares one bucket.
const SOURCES_MAX: usize = 4_096;

/// How often a table that is full is searched for sources that need not be remembered: a search costs microseconds.
const SEARCH_NS: u64 = SECOND_NS;

/// So many a second, and so many at once after a pause.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// From one to the next; 0: no limit.
    interval_ns: u64,
    /// How far ahead a bucket's moment may lie for one more to be taken.
    ahead_ns_max: u64,
}

impl Rate {
    /// `per_second` of them, none when it is 0, and `burst` at once, at least one.
    pub(crate) const fn per_second(per_second: u32, burst: u32) -> Self {
        // A u32 fits into a u64, and the greatest rate has an interval of 0.2 ns, which is taken for 1.
        let interval_ns = match SECOND_NS.checked_div(per_second as u64) {
            None => 0,
            Some(0) => 1,
            Some(ns) => ns,
        };
        Self { interval_ns, ahead_ns_max: interval_ns.saturating_mul(burst.saturating_sub(1) as u64) }
    }

    /// Whether there is no limit.
    fn is_none(self) -> bool {
        self.interval_ns == 0
    }

    /// Whether a bucket that is full at this moment has one left.
    fn has(self, full_at: u64, now_ns: u64) -> bool {
        full_at.saturating_sub(now_ns) <= self.ahead_ns_max
    }

    /// The moment after one was taken.
    fn less_one(self, full_at: u64, now_ns: u64) -> u64 {
        full_at.max(now_ns).saturating_add(self.interval_ns)
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(self, full_at: &mut u64, now_ns: u64) -> bool {
        let has = self.has(*full_at, now_ns);
        if has {
            *full_at = self.less_one(*full_at, now_ns);
        }
        has
    }
}

/// A source as limits know it: an IPv4 address, or the network that an IPv6 address is in, because who has one address of it has
/// as many as they like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    /// The source that an address belongs to.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
            v4 => v4,
        })
    }
}

/// A rate for each source.
#[derive(Debug)]
pub(crate) struct PerSource<K = Source> {
    rate: Rate,
    full_at: HashMap<K, u64>,
    /// Of all sources for which there is no room.
    others_full_at: u64,
    searched_ns: u64,
}

impl<K: Copy + Eq + Hash> PerSource<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, full_at: HashMap::new(), others_full_at: 0, searched_ns: 0 }
    }

    /// Takes one, if this source has one left.
    pub(crate) fn take(&mut self, source: K, now_ns: u64) -> bool {
        self.rate.is_none() || self.rate.take(self.bucket(source, now_ns), now_ns)
    }

    fn bucket(&mut self, source: K, now_ns: u64) -> &mut u64 {
        if self.full_at.len() >= SOURCES_MAX && !self.full_at.contains_key(&source) {
            if now_ns.saturating_sub(self.searched_ns) >= SEARCH_NS {
                self.searched_ns = now_ns;
                self.full_at.retain(|_, full_at| *full_at > now_ns);
            }
            if self.full_at.len() >= SOURCES_MAX {
                return &mut self.others_full_at;
            }
        }
        self.full_at.entry(source).or_insert(0)
    }
}

/// Why a session is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMuch {
    /// New ones come too fast.
    Fast,
    /// The source has as many as it may have.
    Share,
}

/// Which new sessions are taken. What belongs to a dialog that is there never comes here.
#[derive(Debug)]
pub(crate) struct Admission {
    rate: Rate,
    full_at: u64,
    per_source: PerSource,
    /// Sessions of one source at the same time; 0: as many as it likes.
    share: u32,
    sessions: HashMap<Source, u32>,
    dialogs: BTreeMap<DialogId, Source>,
}

impl Admission {
    pub(crate) fn new(settings: &Start) -> Self {
        let rate = |per_second: u32| Rate::per_second(per_second, per_second.saturating_mul(BURST_S));
        Self {
            rate: rate(settings.invites_per_second),
            full_at: 0,
            per_source: PerSource::new(rate(settings.invites_per_peer_per_second)),
            share: settings.sessions_per_peer_max,
            sessions: HashMap::new(),
            dialogs: BTreeMap::new(),
        }
    }

    /// A new dialog is asked for. One that is refused takes nothing away from others.
    pub(crate) fn admit(&mut self, now_ns: u64, dialog: DialogId, peer: IpAddr) -> Result<(), TooMuch> {
        let source = Source::of(peer);
        if self.share > 0 && self.sessions.get(&source).is_some_and(|count| *count >= self.share) {
            return Err(TooMuch::Share);
        }
        let all = self.rate.is_none() || self.rate.has(self.full_at, now_ns);
        if !all || !self.per_source.take(source, now_ns) {
            return Err(TooMuch::Fast);
        }
        if !self.rate.is_none() {
            self.full_at = self.rate.less_one(self.full_at, now_ns);
        }
        self.resumed(dialog, peer);
        Ok(())
    }

    /// A dialog is there without having asked, and counts from now on.
    pub(crate) fn resumed(&mut self, dialog: DialogId, peer: IpAddr) {
        let source = Source::of(peer);
        if self.dialogs.insert(dialog, source).is_none() {
            *self.sessions.entry(source).or_insert(0) += 1;
        }
    }

    /// A dialog is over, whether it was taken or not.
    pub(crate) fn ended(&mut self, dialog: DialogId) {
        let Some(source) = self.dialogs.remove(&dialog) else { return };
        if let Some(count) = self.sessions.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sessions.remove(&source);
            }
        }
    }
}

/// Lets a line into the log now and then, and knows how often it was not.
#[derive(Debug)]
pub(crate) struct NowAndThen {
    rate: Rate,
    full_at: u64,
    left_out: u64,
}

impl NowAndThen {
    /// One in ten seconds or so, three at once.
    pub(crate) fn new() -> Self {
        Self { rate: Rate { interval_ns: 10 * SECOND_NS, ahead_ns_max: 20 * SECOND_NS }, full_at: 0, left_out: 0 }
    }

    /// Whether to say it now; then how often it was left unsaid before.
    pub(crate) fn due(&mut self, now_ns: u64) -> Option<u64> {
        if self.rate.take(&mut self.full_at, now_ns) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out = self.left_out.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests;

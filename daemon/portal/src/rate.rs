//! How often one address may ask: a bucket for each, which fills with time. Time comes in as an argument.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// A bucket: so many at once, and so many a second over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// At once.
    pub burst: f64,
    /// A second.
    pub per_s: f64,
}

/// Any request. A page with a list that is scrolled fast asks ten times a second; an office behind one address has many of them.
pub const REQUESTS: Rate = Rate { burst: 600.0, per_s: 100.0 };

/// Attempts to sign in. The daemon slows each user's attempts down by itself; this is for who tries many users.
pub const SIGN_INS: Rate = Rate { burst: 20.0, per_s: 0.5 };

/// Addresses that are remembered; beyond it those whose buckets are full are forgotten, and if none is, all.
pub const ADDRESSES_MAX: usize = 10_000;

/// The buckets of one kind.
#[derive(Debug)]
pub struct Buckets {
    rate: Rate,
    left: HashMap<IpAddr, (f64, Instant)>,
}

impl Buckets {
    /// Full ones.
    pub fn new(rate: Rate) -> Self {
        Self { rate, left: HashMap::new() }
    }

    /// Takes one out of the bucket of `from`, if there is one.
    pub fn take(&mut self, from: IpAddr, now: Instant) -> bool {
        if self.left.len() >= ADDRESSES_MAX && !self.left.contains_key(&whole(from)) {
            let rate = self.rate;
            self.left.retain(|_, (left, at)| refilled(rate, *left, now.saturating_duration_since(*at)) < rate.burst);
            if self.left.len() >= ADDRESSES_MAX {
                self.left.clear();
            }
        }
        let (left, at) = self.left.entry(whole(from)).or_insert((self.rate.burst, now));
        *left = refilled(self.rate, *left, now.saturating_duration_since(*at));
        *at = now;
        let is_there = *left >= 1.0;
        if is_there {
            *left -= 1.0;
        }
        is_there
    }
}

fn refilled(rate: Rate, left: f64, passed: Duration) -> f64 {
    passed.as_secs_f64().mul_add(rate.per_s, left).min(rate.burst)
}

/// Who has one IPv6 address has the 2^64 beside it.
fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_what_flows_in() {
        let start = Instant::now();
        let mut buckets = Buckets::new(Rate { burst: 3.0, per_s: 2.0 });
        let mut check = |from: &str, at_ms: u64, given: bool| {
            let found = buckets.take(from.parse().unwrap(), start + Duration::from_millis(at_ms));
            assert_eq!(found, given, "{from} at {at_ms} ms");
        };
        check("192.0.2.1", 0, true);
        check("192.0.2.1", 0, true);
        check("192.0.2.1", 0, true);
        check("192.0.2.1", 0, false);
        check("192.0.2.2", 0, true);
        check("192.0.2.1", 400, false);
        check("192.0.2.1", 500, true);
        check("192.0.2.1", 501, false);
        check("2001:db8::1", 0, true);
        check("2001:db8::2", 0, true);
        check("2001:db8::3", 0, true);
        check("2001:db8::4", 0, false);
        check("::ffff:192.0.2.2", 0, true);
        check("192.0.2.2", 0, true);
        check("192.0.2.2", 0, false);
    }

    #[test]
    fn no_more_addresses_are_remembered_than_there_is_room_for() {
        let now = Instant::now();
        let mut buckets = Buckets::new(SIGN_INS);
        for n in 0..u32::try_from(ADDRESSES_MAX + 10).unwrap() {
            buckets.take(IpAddr::V4(n.into()), now);
        }
        assert!(buckets.left.len() <= ADDRESSES_MAX);
    }
}

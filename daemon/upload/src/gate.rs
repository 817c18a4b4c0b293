//! When a sink may be asked at all: pauses that it asked for, pauses after trouble, and the rate that is set. Pure: times are
//! milliseconds of a clock that does not jump, given by the caller.

use crate::RETRY_AFTER_MS_MAX;

/// The first pause after trouble with a sink, in milliseconds; each further one in a row is twice as long.
pub const PAUSE_MS_MIN: u64 = 5_000;

/// The longest pause that nobody asked for, ten minutes in milliseconds: as long as a service is down, one recording tries that often.
pub const PAUSE_MS_MAX: u64 = 600_000;

/// A sink's gate.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Nothing is begun before.
    closed_until_ms: u64,
    /// Troubles in a row.
    troubles: u32,
    /// Milliseconds between two deliveries; 0: no limit.
    apart_ms: u64,
    /// When the next delivery may begin for the rate's sake.
    next_ms: u64,
}

impl Gate {
    /// A gate that lets so many deliveries a minute begin; 0: as many as there are.
    pub fn new(per_minute: u32) -> Self {
        Self { apart_ms: if per_minute == 0 { 0 } else { 60_000 / u64::from(per_minute) }, ..Self::default() }
    }

    /// How long nothing may begin, in milliseconds; 0: it may now.
    pub fn wait_ms(&self, now_ms: u64) -> u64 {
        self.closed_until_ms.max(self.next_ms).saturating_sub(now_ms)
    }

    /// A delivery begins.
    pub fn begins(&mut self, now_ms: u64) {
        self.next_ms = self.next_ms.max(now_ms).saturating_add(self.apart_ms);
    }

    /// The sink did something for us: whatever was wrong is over. (A pause that it asked for stays.)
    pub fn well(&mut self) {
        self.troubles = 0;
    }

    /// The sink is in trouble; `asked_ms` is how long it asked to be left alone. Gives the wait from now on. `random` is uniform over
    /// `u64`; of each pause of our own up to a fifth is left out by chance, so that several appliances do not return together.
    pub fn trouble(&mut self, now_ms: u64, asked_ms: Option<u64>, random: u64) -> u64 {
        let doubled = PAUSE_MS_MIN.checked_shl(self.troubles.min(16)).unwrap_or(PAUSE_MS_MAX).min(PAUSE_MS_MAX);
        self.troubles = self.troubles.saturating_add(1);
        // Asked to come back at once, it is left alone for the least time all the same.
        let pause = match asked_ms {
            Some(asked) => asked.clamp(1_000, RETRY_AFTER_MS_MAX),
            None => doubled - random % (doubled / 5),
        };
        self.closed_until_ms = self.closed_until_ms.max(now_ms.saturating_add(pause));
        self.closed_until_ms.saturating_sub(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_spaces_deliveries() {
        #[track_caller]
        fn check(per_minute: u32, expected: [u64; 3]) {
            let mut gate = Gate::new(per_minute);
            let waits = [1_000, 1_000, 31_500].map(|now| {
                let wait = gate.wait_ms(now);
                gate.begins(now);
                wait
            });
            assert_eq!(waits, expected, "{per_minute}");
        }
        check(0, [0, 0, 0]);
        check(2, [0, 30_000, 29_500]);
        check(60, [0, 1_000, 0]);
    }

    #[test]
    fn pauses_grow_to_their_most_and_begin_anew_when_all_is_well() {
        let mut gate = Gate::new(0);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let pause = gate.trouble(now, None, 0);
            assert_eq!(gate.wait_ms(now), pause);
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(pauses[..4], [5_000, 10_000, 20_000, 40_000]);
        assert_eq!(pauses[8..], [PAUSE_MS_MAX; 4]);
        gate.well();
        assert_eq!(gate.trouble(now, None, 0), PAUSE_MS_MIN);
    }

    #[test]
    fn what_the_sink_asks_for_is_obeyed_within_reason() {
        #[track_caller]
        fn check(asked: u64, expected: u64) {
            let mut gate = Gate::new(0);
            assert_eq!(gate.trouble(77, Some(asked), u64::MAX), expected);
            // what others find meanwhile does not shorten it
            gate.well();
            assert_eq!(gate.wait_ms(77), expected);
        }
        check(30_000, 30_000);
        check(0, 1_000);
        check(u64::MAX, RETRY_AFTER_MS_MAX);
    }

    #[test]
    fn chance_leaves_out_a_fifth_at_most() {
        for random in [0, 1, 7_777_777, u64::MAX] {
            let pause = Gate::new(0).trouble(0, None, random);
            assert!((PAUSE_MS_MIN * 4 / 5..=PAUSE_MS_MIN).contains(&pause), "{pause}");
        }
    }
}

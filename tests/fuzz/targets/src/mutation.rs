//! Changing inputs without chance: the same seed gives the same changes on every machine, so that a test that failed fails again.

/// Numbers that are at the edge of something.
const EDGES: [u8; 10] = [0, 1, 0x0a, 0x0d, 0x20, 0x3b, 0x7f, 0x80, 0xfe, 0xff];
/// Most changes to an input at once.
const CHANGES_MAX: u64 = 6;
/// Most bytes that one change takes out or puts in again.
const STRETCH_MAX: u64 = 64;

/// A sequence of changed inputs. Its numbers are those of SplitMix64.
#[derive(Debug, Clone)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// The sequence of this number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 where there is nothing below it.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end as u64).max(1)).unwrap_or(0)
    }

    /// A changed copy of one of the seeds; of an empty input where there is none.
    pub fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.seed_of(seeds).to_vec();
        for _ in 0..=self.next() % CHANGES_MAX {
            self.change(&mut bytes, seeds);
        }
        bytes
    }

    fn seed_of<'a>(&mut self, seeds: &'a [Vec<u8>]) -> &'a [u8] {
        let which = self.below(seeds.len());
        seeds.get(which).map_or(&[], Vec::as_slice)
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        let stretch = (1 + self.next() % STRETCH_MAX) as usize;
        let end = (at + stretch).min(bytes.len());
        let random = self.next().to_le_bytes();
        match self.next() % 10 {
            _ if bytes.is_empty() => bytes.extend(&random[..1 + self.below(8)]),
            0 => bytes[at] ^= 1 << (random[0] % 8),
            1 => bytes[at] = random[0],
            2 => bytes[at] = EDGES[self.below(EDGES.len())],
            3 => drop(bytes.splice(at..at, random[..1 + self.below(4)].iter().copied())),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let again = bytes[at..end].to_vec();
                let to = self.below(bytes.len());
                drop(bytes.splice(to..to, again));
            }
            6 => bytes.truncate(at),
            7 => {
                let other = self.seed_of(seeds);
                let from = self.below(other.len());
                let other = &other[from..(from + stretch).min(other.len())];
                drop(bytes.splice(at..at, other.iter().copied()));
            }
            8 => {
                let other = self.seed_of(seeds);
                let from = self.below(other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            _ => self.number(bytes, at),
        }
    }

    /// Puts another number where one begins at or behind `at`.
    fn number(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|ahead| at + ahead) else { return };
        let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let numbers = ["0", "1", "255", "65535", "65536", "2147483648", "4294967296", "18446744073709551616"];
        let number = numbers[self.below(numbers.len())];
        drop(bytes.splice(start..start + digits, number.bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_another_gives_others() {
        let seeds = [b"INVITE sip:192.0.2.1 SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n".to_vec(), Vec::new()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..200).map(|_| mutator.mutate(&seeds)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let changed = inputs(1).iter().filter(|input| !seeds.contains(input)).count();
        assert!(changed > 190, "{changed} of 200 inputs were changed");
        assert!(inputs(1).iter().any(|input| input.windows(5).any(|window| window == b"65535")));
        assert_eq!(Mutator::new(1).mutate(&[]).is_empty(), Mutator::new(1).mutate(&[]).is_empty());
    }
}

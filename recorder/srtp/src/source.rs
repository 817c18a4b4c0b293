//! Which packets of a source came already, and which index a sequence number means (RFC 3711 section 3.3.1, 3.3.2, appendix A).

use serde::{Deserialize, Serialize};

use crate::SrtpError;

/// Packets behind the newest of a source that are still told apart as new or repeated. RFC 3711 wants 64 at least; this is
/// as much as the reception behind it takes as late, ten seconds of packets of 20 ms.
pub const WINDOW_PACKETS: u64 = 512;

/// Sources that are kept apart under one key. A recorded stream has one, and another after each transfer or restart of its
/// sender. Only who holds the key can add one; when there is no room, the one silent for longest goes.
pub const SOURCES_MAX: usize = 32;

/// Packets of a source under one key: a rollover counter of 32 bits and a sequence number of 16.
pub(crate) const RTP_INDICES: u64 = 1 << 48;
/// RTCP packets under one key (RFC 3711 section 3.4).
pub(crate) const RTCP_INDICES: u64 = 1 << 31;

const WORDS: usize = WINDOW_PACKETS as usize / 64;

/// The newest index of a source, and which of those before it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    highest: u64,
    /// Bit `index % WINDOW_PACKETS` is set when that packet of the last [`WINDOW_PACKETS`] came.
    seen: [u64; WORDS],
}

impl Window {
    pub(crate) fn new(index: u64) -> Self {
        let mut window = Self { highest: index, seen: [0; WORDS] };
        window.mark(index);
        window
    }

    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether a packet of this index may be accepted.
    pub(crate) fn admits(&self, index: u64) -> Result<(), SrtpError> {
        match self.highest.checked_sub(index) {
            None => Ok(()),
            Some(behind) if behind >= WINDOW_PACKETS => Err(SrtpError::TooOld),
            Some(_) if self.is_marked(index) => Err(SrtpError::Replayed),
            Some(_) => Ok(()),
        }
    }

    /// Notes a packet that was admitted and is authentic.
    pub(crate) fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= WINDOW_PACKETS {
                self.seen = [0; WORDS];
            } else {
                (self.highest + 1..index).for_each(|skipped| self.unmark(skipped));
            }
            self.highest = index;
        }
        self.mark(index);
    }

    /// The index that a sequence number most likely has: the one nearest to the newest; none where that would be below zero
    /// or beyond what a key may secure.
    pub(crate) fn index_of(&self, sequence: u16) -> Option<u64> {
        let newest = self.highest as u16;
        let ahead = sequence.wrapping_sub(newest);
        let index = match ahead {
            0..=0x7fff => self.highest.checked_add(ahead.into()),
            _ => self.highest.checked_sub(newest.wrapping_sub(sequence).into()),
        };
        index.filter(|&index| index < RTP_INDICES)
    }

    fn place(index: u64) -> (usize, u64) {
        let bit = index % WINDOW_PACKETS;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn is_marked(&self, index: u64) -> bool {
        let (word, bit) = Self::place(index);
        self.seen[word] & bit != 0
    }

    fn mark(&mut self, index: u64) {
        let (word, bit) = Self::place(index);
        self.seen[word] |= bit;
    }

    fn unmark(&mut self, index: u64) {
        let (word, bit) = Self::place(index);
        self.seen[word] &= !bit;
    }
}

/// The sources of one protocol under one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sources {
    sources: Vec<Source>,
    /// Packets accepted so far, which tells who was silent for longest.
    accepted: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    ssrc: u32,
    heard_at: u64,
    window: Window,
}

impl Sources {
    pub(crate) fn window(&self, ssrc: u32) -> Option<&Window> {
        self.sources.iter().find(|source| source.ssrc == ssrc).map(|source| &source.window)
    }

    /// Packets accepted under the key.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Notes an authentic packet.
    pub(crate) fn accept(&mut self, ssrc: u32, index: u64) {
        self.accepted = self.accepted.saturating_add(1);
        let heard_at = self.accepted;
        if let Some(source) = self.sources.iter_mut().find(|source| source.ssrc == ssrc) {
            source.heard_at = heard_at;
            source.window.accept(index);
            return;
        }
        if self.sources.len() >= SOURCES_MAX {
            let silent = self.sources.iter().enumerate().min_by_key(|(_, source)| source.heard_at);
            if let Some((place, _)) = silent {
                self.sources.swap_remove(place);
            }
        }
        self.sources.push(Source { ssrc, heard_at, window: Window::new(index) });
    }

    /// Whether it can have come about here, for one that was stored.
    pub(crate) fn is_valid(&self, indices: u64) -> bool {
        self.sources.len() <= SOURCES_MAX && self.sources.iter().all(|source| source.window.highest < indices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_nearest_to_the_newest() {
        let check = |highest, sequence, index| assert_eq!(Window::new(highest).index_of(sequence), index);
        check(0, 0, Some(0));
        check(0, 1, Some(1));
        check(0, 0x7fff, Some(0x7fff));
        check(0, 0xffff, None);
        check(0xffff, 0, Some(0x1_0000));
        check(0xffff, 0xfffe, Some(0xfffe));
        check(0x1_0005, 0xfffa, Some(0xfffa));
        check(0x1_8000, 1, Some(0x1_0001));
        check(0x1_8002, 1, Some(0x2_0001));
        check(RTP_INDICES - 1, 0xffff, Some(RTP_INDICES - 1));
        check(RTP_INDICES - 1, 0, None);
        check(u64::MAX, 0, None);
    }

    #[test]
    fn the_window() {
        /// What becomes of the last of these, when all before it were accepted.
        fn check(before: &[u64], index: u64, expected: Result<(), SrtpError>) {
            let mut window = Window::new(before[0]);
            before.iter().for_each(|&index| window.accept(index));
            assert_eq!(window.admits(index), expected, "{before:?}, {index}");
        }
        check(&[0], 0, Err(SrtpError::Replayed));
        check(&[0], 1, Ok(()));
        check(&[0, 511], 0, Err(SrtpError::Replayed));
        check(&[1, 511], 0, Ok(()));
        check(&[1, 512], 0, Err(SrtpError::TooOld));
        check(&[0, 512], 0, Err(SrtpError::TooOld));
        check(&[0, 5, 3], 4, Ok(()));
        check(&[0, 5, 3], 3, Err(SrtpError::Replayed));
        check(&[0, 600, 599], 100, Ok(()));
        check(&[0, 600, 599], 88, Err(SrtpError::TooOld));
        check(&[0, 10_000], 9_999, Ok(()));
        check(&[7, 519, 520], 519, Err(SrtpError::Replayed));
    }

    #[test]
    fn the_source_silent_for_longest_makes_room() {
        let mut sources = Sources::default();
        (0..SOURCES_MAX as u32).for_each(|ssrc| sources.accept(ssrc, 1));
        sources.accept(0, 2);
        sources.accept(1_000, 1);
        assert!(sources.window(0).is_some() && sources.window(1_000).is_some());
        assert!(sources.window(1).is_none());
        assert!(sources.is_valid(3) && !sources.is_valid(2));
    }
}

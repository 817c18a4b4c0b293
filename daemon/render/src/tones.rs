//! Telephone events (RFC 4733): what of a track is to be made inaudible.
//!
//! Digits that somebody dials into a call (card numbers, codes) are in the recording twice: as events, and often as the tones
//! themselves, which whoever listens could take down. Events lie at the position at which they began and come in order of
//! position like everything, so when one comes, nothing that it masks has been given out yet: samples wait here for as long as an
//! event may reach back.

use std::collections::VecDeque;

use callvault_render_protocol::{Codec, CodecSpec, TICKS_PER_SECOND, TONE_MARGIN_TICKS, TONE_TICKS_MAX};

/// The highest event that is a digit (RFC 4733 section 3.2: 0 to 9, *, #, A to D). Others (a hook flash, a modem's answer) are
/// nothing that anybody could take down, and speech may lie beside them.
const DIGIT_MAX: u8 = 15;

/// Whether packets of this codec are telephone events.
pub(crate) fn is_event(spec: &CodecSpec) -> bool {
    matches!(&spec.codec, Codec::Other(name) if name.eq_ignore_ascii_case("telephone-event"))
}

/// The samples of one track on their way, and what of them is masked.
#[derive(Default)]
pub(crate) struct Masking {
    rate: u32,
    /// From where to where, at the output's rate; in order and apart from each other.
    masks: VecDeque<(i64, i64)>,
    /// Index of the first sample of each block, and the block; in order.
    held: VecDeque<(i64, Vec<i16>)>,
}

impl Masking {
    /// `rate` is that of the samples, in Hz.
    pub(crate) fn new(rate: u32) -> Self {
        Self { rate, ..Self::default() }
    }

    /// Takes an event's packet at `position` (ticks), whose payload is as in RFC 4733 section 2.3. What is no digit, or too short to be an
    /// event, masks nothing.
    pub(crate) fn event(&mut self, clock_rate: u32, position: i64, payload: &[u8]) {
        let &[0..=DIGIT_MAX, _, high, low, ..] = payload else { return };
        let units = u64::from(u16::from_be_bytes([high, low]));
        let ticks = (units * u64::from(TICKS_PER_SECOND)).div_ceil(u64::from(clock_rate.max(1))).min(TONE_TICKS_MAX);
        let margin = i64::try_from(TONE_MARGIN_TICKS).unwrap_or(0);
        let (from, to) = (position - margin, position + margin + i64::try_from(ticks).unwrap_or(0));
        let ticks_per_sample = i64::from(TICKS_PER_SECOND / self.rate);
        let (from, to) = (from.div_euclid(ticks_per_sample), to.div_euclid(ticks_per_sample) + 1);
        match self.masks.back_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => self.masks.push_back((from, to)),
        }
    }

    /// Takes the next samples; the first belongs at index `first`.
    pub(crate) fn hold(&mut self, first: i64, samples: &[i16]) {
        self.held.push_back((first, samples.to_vec()));
    }

    /// Gives out what belongs before index `to`: no event that begins there or later reaches it.
    pub(crate) fn release(&mut self, to: i64, mut place: impl FnMut(i64, &[i16])) {
        while let Some((first, samples)) = self.held.front_mut().filter(|(first, _)| *first < to) {
            let count = usize::try_from(to - *first).unwrap_or(0).min(samples.len());
            for (from, to) in &self.masks {
                let index = |at: i64| usize::try_from(at - *first).unwrap_or(0).min(count);
                samples[index(*from)..index(*to)].fill(0);
            }
            place(*first, &samples[..count]);
            samples.drain(..count);
            *first += i64::try_from(count).unwrap_or(0);
            if !samples.is_empty() {
                break;
            }
            self.held.pop_front();
        }
        while self.masks.front().is_some_and(|(_, end)| *end <= to) {
            self.masks.pop_front();
        }
    }
}

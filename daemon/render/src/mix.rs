//! The channels of a file on one timeline: samples come in at their places, go out in order, and what nobody placed is silence.

use crate::error::JobError;

/// Longest block that is given to an encoder at once, in seconds: what bounds memory in a long silence.
const BLOCK_S: usize = 1;

/// An encoder of a whole file, fed with all channels in step.
pub(crate) trait FileEncoder {
    /// What stands before the audio.
    fn begin(&mut self, file: &mut Vec<u8>) -> Result<(), JobError>;
    /// The next samples: one slice per channel, all of the same length.
    fn samples(&mut self, channels: &[Vec<i16>], file: &mut Vec<u8>) -> Result<(), JobError>;
    /// The end of the audio, and what stands after it.
    fn finish(&mut self, file: &mut Vec<u8>) -> Result<(), JobError>;
}

/// The timeline of a file's channels, from the first sample of the range to the last.
pub(crate) struct Mix {
    /// Sums, because several tracks may share a channel; one queue per channel, all from `at` on.
    channels: Vec<Vec<i32>>,
    block: Vec<Vec<i16>>,
    block_length: usize,
    at: i64,
    end: i64,
}

impl Mix {
    /// The samples with the indices `at..end`, at `rate` Hz.
    pub(crate) fn new(channels: u8, rate: u32, at: i64, end: i64) -> Self {
        let channels = usize::from(channels);
        let block_length = BLOCK_S * usize::try_from(rate).unwrap_or(1);
        Self {
            channels: vec![Vec::new(); channels],
            block: vec![Vec::new(); channels],
            block_length,
            at,
            end: end.max(at),
        }
    }

    /// Adds samples to a channel; the first belongs at index `first`. What lies outside of the range or in the part that is already
    /// given out is left away.
    pub(crate) fn place(&mut self, channel: u8, first: i64, samples: &[i16]) {
        let Some(queue) = self.channels.get_mut(usize::from(channel)) else { return };
        let early = index(self.at - first).min(samples.len());
        let samples = &samples[early..];
        let first = first.max(self.at);
        let samples = &samples[..index(self.end - first).min(samples.len())];
        let offset = index(first - self.at);
        if queue.len() < offset + samples.len() {
            queue.resize(offset + samples.len(), 0);
        }
        for (sum, sample) in queue[offset..].iter_mut().zip(samples) {
            *sum = sum.saturating_add(i32::from(*sample));
        }
    }

    /// Gives everything before `to` to the encoder: nothing more will be placed there.
    pub(crate) fn advance(
        &mut self,
        to: i64,
        encoder: &mut dyn FileEncoder,
        write: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        let to = to.min(self.end);
        let mut file = Vec::new();
        while self.at < to {
            let length = index(to - self.at).min(self.block_length);
            for (queue, block) in self.channels.iter_mut().zip(&mut self.block) {
                take(queue, length, block);
            }
            self.at += i64::try_from(length).unwrap_or(0);
            encoder.samples(&self.block, &mut file)?;
            write(&mut file)?;
        }
        Ok(())
    }
}

/// Moves the first `length` sums into `block`, limited to 16 bits and filled up with silence.
fn take(queue: &mut Vec<i32>, length: usize, block: &mut Vec<i16>) {
    let there = length.min(queue.len());
    block.clear();
    block.extend(queue.drain(..there).map(limit));
    block.resize(length, 0);
}

fn limit(sum: i32) -> i16 {
    i16::try_from(sum).unwrap_or(if sum < 0 { i16::MIN } else { i16::MAX })
}

fn index(value: i64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

//! One codec's decoder: payloads in, one channel of 16-bit samples out.

use callvault_render_protocol::{Codec, CodecSpec, OPUS_RATES, TICKS_PER_SECOND};

use crate::{g711, g722};

/// Longest hole across which a decoder keeps its memory, in ticks: 100 ms. The sender's has changed little meanwhile, so that the
/// packet after a loss sounds right sooner than from a fresh start.
const REMEMBERED_TICKS_MAX: u64 = 4_800;

/// Longest Opus packet, in ticks: 120 ms (RFC 6716 section 3.2.5).
const OPUS_PACKET_TICKS_MAX: usize = 5_760;

/// Largest step between one packet's end and the next one's start that still counts as following, in ticks: 1 ms. Positions that were
/// corrected for a drifting clock move by a sample now and then; that must be a sample more or less, not a hole.
pub(crate) const SLIP_TICKS_MAX: u64 = 48;

/// The smallest step in which libopus conceals, in ticks: 2.5 ms.
const CONCEALMENT_STEP_TICKS: u64 = 120;

/// What to do with the packets of one codec.
pub(crate) enum Plan {
    /// Decode them; the samples come at `rate` Hz.
    Decode {
        /// Hz, one of [`OPUS_RATES`].
        rate: u32,
    },
    /// They carry no speech: nothing is missing when they are silent.
    Silent,
    /// Nothing here can decode them, for the reason in the text.
    Undecodable(String),
}

impl Plan {
    /// Opus is decoded at `opus_rate` when that is given, which libopus does better than a resampler after it.
    pub(crate) fn new(spec: &CodecSpec, opus_rate: Option<u32>) -> Self {
        match &spec.codec {
            // Comfort noise (RFC 3389) stays silence: a recording holds what was said, and noise that is made here would be taken
            // for the line's.
            Codec::Other(name) if ["telephone-event", "CN"].iter().any(|silent| name.eq_ignore_ascii_case(silent)) => {
                Self::Silent
            }
            // What other programs can decode comes here as L16.
            Codec::Other(name) => Self::Undecodable(format!("there is no decoder for {name} here")),
            Codec::G722 if spec.channels > 1 => {
                Self::Undecodable("G722 with more than one channel cannot be decoded here".into())
            }
            codec => match (spec.audio_rate(), opus_rate) {
                (Some(_), Some(rate)) if *codec == Codec::Opus => Self::Decode { rate },
                (Some(rate), _) => Self::Decode { rate },
                (None, _) => Self::Undecodable(format!(
                    "{} with a clock of {} Hz cannot be decoded here",
                    codec.encoding(),
                    spec.clock_rate
                )),
            },
        }
    }

    /// The audio rate that this codec calls for, when it can be decoded.
    pub(crate) fn wanted_rate(spec: &CodecSpec) -> Option<u32> {
        match Self::new(spec, None) {
            Self::Decode { rate } => Some(rate),
            Self::Silent | Self::Undecodable(_) => None,
        }
    }
}

/// The decoder refused the payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// A decoder with its memory.
pub(crate) enum Decoder {
    G711 { table: &'static [i16; 256], channels: usize },
    G722(Box<g722::Decoder>),
    Opus { decoder: opus::Decoder, rate: u32 },
    L16 { channels: usize },
}

impl Decoder {
    /// A fresh decoder for a codec whose plan is [`Plan::Decode`] at `rate`.
    pub(crate) fn new(spec: &CodecSpec, rate: u32) -> Result<Self, String> {
        let channels = usize::from(spec.channels.max(1));
        match &spec.codec {
            Codec::Pcmu => Ok(Self::G711 { table: &g711::ULAW, channels }),
            Codec::Pcma => Ok(Self::G711 { table: &g711::ALAW, channels }),
            Codec::G722 => Ok(Self::G722(Box::new(g722::Decoder::new()))),
            Codec::Opus => {
                debug_assert!(OPUS_RATES.contains(&rate));
                // One channel: libopus mixes a stereo packet down by itself.
                let decoder = opus::Decoder::new(rate, opus::Channels::Mono).map_err(|error| error.to_string())?;
                Ok(Self::Opus { decoder, rate })
            }
            Codec::L16 => Ok(Self::L16 { channels }),
            Codec::Other(name) => Err(format!("there is no decoder for {name} here")),
        }
    }

    /// Decodes one payload into `samples`, which is cleared first.
    pub(crate) fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) -> Result<(), Refused> {
        samples.clear();
        match self {
            Self::G711 { table, channels: 1 } => samples.extend(payload.iter().map(|code| table[usize::from(*code)])),
            Self::G711 { table, channels } => {
                samples.extend(payload.chunks_exact(*channels).map(|frame| mean(table, frame)))
            }
            Self::G722(decoder) => decoder.decode(payload, samples),
            Self::L16 { .. } if payload.is_empty() => return Err(Refused),
            Self::L16 { channels } => samples.extend(payload.chunks_exact(2 * *channels).map(mean_of_16_bits)),
            Self::Opus { decoder, rate } => {
                // libopus would take an empty payload for a lost packet.
                if payload.is_empty() {
                    return Err(Refused);
                }
                samples.resize(at_rate(OPUS_PACKET_TICKS_MAX, *rate), 0);
                let length = decoder.decode(payload, samples, false).map_err(|_| Refused)?;
                samples.truncate(length);
            }
        }
        Ok(())
    }

    /// Takes the decoder across a hole of `ticks` in its packets.
    pub(crate) fn skip(&mut self, ticks: u64) {
        if ticks > REMEMBERED_TICKS_MAX {
            return self.reset();
        }
        // Opus is told to conceal the hole. What it makes up is not used, but it keeps step with the sender.
        let length = usize::try_from(ticks - ticks % CONCEALMENT_STEP_TICKS).unwrap_or(0);
        if let Self::Opus { decoder, rate } = self
            && length > 0
            && decoder.decode(&[], &mut vec![0; at_rate(length, *rate)], false).is_err()
        {
            self.reset();
        }
    }

    /// Takes the decoder across a hole of `ticks` before `payload` when that packet repeats the one that is missing (in-band error
    /// correction of Opus), which is written to `samples`. False, and nothing is written, otherwise.
    ///
    /// Only for a single packet: with more missing before it, the repetition builds on what the decoder does not know, and comes out
    /// less like what was said than silence is. And of a long hole, which may be a pause, nothing is to be repeated.
    pub(crate) fn recover(&mut self, ticks: u64, payload: &[u8], samples: &mut Vec<i16>) -> bool {
        let Self::Opus { decoder, rate } = self else { return false };
        let rate = *rate;
        let is_the_hole = |repeated: &u64| repeated.abs_diff(ticks) <= SLIP_TICKS_MAX;
        let Some(repeated) = repeated_ticks(payload).filter(is_the_hole) else { return false };
        samples.clear();
        samples.resize(at_rate(usize::try_from(repeated).unwrap_or(0), rate), 0);
        match decoder.decode(payload, samples, true) {
            Ok(length) => {
                samples.truncate(length);
                true
            }
            Err(_) => {
                self.reset();
                false
            }
        }
    }

    /// Forgets everything, for packets of an encoder that began anew or went on for long.
    pub(crate) fn reset(&mut self) {
        match self {
            Self::G711 { .. } | Self::L16 { .. } => {}
            Self::G722(decoder) => **decoder = g722::Decoder::new(),
            // Resetting a decoder that exists cannot fail; if it did, the old memory would do no harm.
            Self::Opus { decoder, .. } => drop(decoder.reset_state()),
        }
    }
}

/// How much of the time before it an Opus packet repeats, in ticks; none when it repeats nothing. That is one frame, and only where the
/// flag for it is set: a decoder that is asked for more makes something up.
///
/// RFC 6716 sections 3.1 (table of contents) and 4.2.4 (the flags of the first frame: one per 20 ms for activity, then one for
/// repetition, for each channel).
fn repeated_ticks(payload: &[u8]) -> Option<u64> {
    let (&toc, rest) = payload.split_first()?;
    let frame: u64 = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1_920, 2_880][usize::from(config & 3)],
        config @ 12..=15 => [480, 960][usize::from(config & 1)],
        // CELT repeats nothing.
        _ => return None,
    };
    let first = match toc & 3 {
        0 | 1 => rest,
        2 => rest.get(if *rest.first()? < 252 { 1 } else { 2 }..)?,
        // Lengths and padding stand between; nobody sends so what fits one frame.
        _ => return None,
    };
    let flags = *first.first()?;
    let activity = frame.div_ceil(960);
    let is_stereo = toc & 0x04 != 0;
    let is_set = |after: u64| flags.checked_shl(u32::try_from(after).unwrap_or(8)).is_some_and(|bits| bits & 0x80 != 0);
    (is_set(activity) || is_stereo && is_set(2 * activity + 1)).then_some(frame)
}

fn mean_of_16_bits(frame: &[u8]) -> i16 {
    let samples = frame.chunks_exact(2).map(|bytes| i64::from(i16::from_be_bytes([bytes[0], bytes[1]])));
    let (sum, count) = samples.fold((0, 0), |(sum, count), sample| (sum + sample, count + 1));
    i16::try_from(sum / count.max(1)).unwrap_or(0)
}

/// Samples at `rate` in a time of `ticks`.
fn at_rate(ticks: usize, rate: u32) -> usize {
    let rate = usize::try_from(rate).unwrap_or(0);
    ticks.saturating_mul(rate) / TICKS_PER_SECOND as usize
}

fn mean(table: &[i16; 256], frame: &[u8]) -> i16 {
    let sum: i64 = frame.iter().map(|code| i64::from(table[usize::from(*code)])).sum();
    let count = i64::try_from(frame.len()).unwrap_or(1).max(1);
    i16::try_from(sum / count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_plan(codec: Codec, clock_rate: u32, opus_rate: Option<u32>, expected: &str) {
        let plan = match Plan::new(&CodecSpec::new(codec, clock_rate), opus_rate) {
            Plan::Decode { rate } => rate.to_string(),
            Plan::Silent => "silent".into(),
            Plan::Undecodable(text) => text,
        };
        assert!(plan.contains(expected), "{plan}");
    }

    #[test]
    fn each_codec_has_its_plan() {
        check_plan(Codec::Pcmu, 8_000, Some(48_000), "8000");
        check_plan(Codec::G722, 8_000, None, "16000");
        check_plan(Codec::Opus, 48_000, None, "48000");
        check_plan(Codec::Opus, 48_000, Some(16_000), "16000");
        check_plan(Codec::Pcma, 11_025, None, "PCMA with a clock of 11025 Hz");
        check_plan(Codec::Other("G729".into()), 8_000, None, "no decoder for G729");
        check_plan(Codec::Other("Telephone-Event".into()), 8_000, None, "silent");
        check_plan(Codec::Other("CN".into()), 8_000, None, "silent");
    }

    #[test]
    fn two_channels_become_their_mean() {
        let spec = CodecSpec { channels: 2, ..CodecSpec::new(Codec::Pcmu, 8_000) };
        let mut samples = Vec::new();
        Decoder::new(&spec, 8_000).unwrap().decode(&[0x80, 0x00, 0x80, 0x80, 0x80], &mut samples).unwrap();
        assert_eq!(samples, [0, 32_124]);
    }

    proptest! {
        #[test]
        fn any_payload_is_decoded_or_refused(
            payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), prop::option::of(0_u64..20_000)), 1..12),
        ) {
            for (codec, clock_rate) in [(Codec::Pcmu, 8_000), (Codec::Pcma, 8_000), (Codec::G722, 8_000), (Codec::Opus, 48_000)] {
                let spec = CodecSpec::new(codec, clock_rate);
                let rate = spec.audio_rate().unwrap();
                let mut decoder = Decoder::new(&spec, rate).unwrap();
                let mut samples = Vec::new();
                for (payload, hole) in &payloads {
                    if let Some(ticks) = hole {
                        decoder.skip(*ticks);
                    }
                    if decoder.decode(payload, &mut samples).is_ok() {
                        match spec.codec {
                            Codec::G722 => prop_assert_eq!(samples.len(), 2 * payload.len()),
                            Codec::Opus => prop_assert!(samples.len() <= OPUS_PACKET_TICKS_MAX),
                            _ => prop_assert_eq!(samples.len(), payload.len()),
                        }
                    }
                }
            }
        }
    }
}

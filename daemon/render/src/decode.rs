//! One codec's decoder: payloads in, one channel of 16-bit samples out.

use callvault_render_protocol::{Codec, CodecSpec, OPUS_RATES, TICKS_PER_SECOND};

use crate::{g711, g722};

/// Longest hole across which a decoder keeps its memory, in ticks: 100 ms. The sender's has changed little meanwhile, so that the
/// packet after a loss sounds right sooner than from a fresh start.
const REMEMBERED_TICKS_MAX: u64 = 4_800;

/// Longest Opus packet, in ticks: 120 ms (RFC 6716 section 3.2.5).
const OPUS_PACKET_TICKS_MAX: usize = 5_760;

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
            // Later: tones masked, comfort noise made.
            Codec::Other(name) if ["telephone-event", "CN"].iter().any(|silent| name.eq_ignore_ascii_case(silent)) => {
                Self::Silent
            }
            // The place of further decoders in processes of their own: a job says which are there, and this asks for one by name.
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

    /// Forgets everything, for packets of an encoder that began anew or went on for long.
    pub(crate) fn reset(&mut self) {
        match self {
            Self::G711 { .. } => {}
            Self::G722(decoder) => **decoder = g722::Decoder::new(),
            // Resetting a decoder that exists cannot fail; if it did, the old memory would do no harm.
            Self::Opus { decoder, .. } => drop(decoder.reset_state()),
        }
    }
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

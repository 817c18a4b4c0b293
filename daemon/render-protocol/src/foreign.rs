//! Codecs that are decoded by ffmpeg, where it is installed.

use serde::{Deserialize, Serialize};

use crate::{Codec, CodecSpec};

/// A codec that ffmpeg decodes for the render process, which starts it within its own sandbox.
///
/// Only what has one channel and a rate that [`crate::OPUS_RATES`] has: all that telephony uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForeignCodec {
    /// G.723.1 at either rate.
    G723,
    /// G.726 (RFC 3551 section 4.5.4).
    G726 {
        /// Bits of a sample, 2 to 5.
        bits: u8,
        /// Whether the first sample is in the least significant bits, as in RFC 3551; otherwise as in ATM AAL2 (I.366.2).
        little_endian: bool,
    },
    /// G.729, also with annexes A and B.
    G729,
    /// GSM 06.10 full rate.
    Gsm,
    /// iLBC, RFC 3952.
    Ilbc {
        /// Length of a frame in milliseconds, 20 or 30.
        ms: u8,
    },
    /// AMR and AMR-WB, RFC 4867.
    Amr {
        /// Whether it is AMR-WB.
        wide: bool,
        /// Whether the parts of a payload are in whole bytes.
        octet_aligned: bool,
    },
}

impl ForeignCodec {
    /// The codec behind a description of the signalling; none when it is not one of these, or in a form that cannot be taken apart
    /// (AMR that is interleaved, sorted or with checksums).
    pub fn of(spec: &CodecSpec) -> Option<Self> {
        let Codec::Other(name) = &spec.codec else { return None };
        let fmtp = |key: &str| parameter(spec.fmtp.as_deref().unwrap_or_default(), key);
        let is_set = |key: &str| fmtp(key).is_some_and(|value| value != "0");
        let codec = match name.to_ascii_uppercase().as_str() {
            "G723" => Self::G723,
            "G726-16" => Self::G726 { bits: 2, little_endian: true },
            "G726-24" => Self::G726 { bits: 3, little_endian: true },
            "G726-32" => Self::G726 { bits: 4, little_endian: true },
            "G726-40" => Self::G726 { bits: 5, little_endian: true },
            "AAL2-G726-16" => Self::G726 { bits: 2, little_endian: false },
            "AAL2-G726-24" => Self::G726 { bits: 3, little_endian: false },
            "AAL2-G726-32" => Self::G726 { bits: 4, little_endian: false },
            "AAL2-G726-40" => Self::G726 { bits: 5, little_endian: false },
            "G729" => Self::G729,
            "GSM" => Self::Gsm,
            // 30 ms where nothing is said (RFC 3952 section 5).
            "ILBC" => Self::Ilbc { ms: if fmtp("mode") == Some("20") { 20 } else { 30 } },
            "AMR" | "AMR-WB" if ["crc", "robust-sorting", "interleaving"].into_iter().any(is_set) => return None,
            "AMR" => Self::Amr { wide: false, octet_aligned: is_set("octet-align") },
            "AMR-WB" => Self::Amr { wide: true, octet_aligned: is_set("octet-align") },
            _ => return None,
        };
        (spec.channels <= 1 && spec.clock_rate == codec.rate()).then_some(codec)
    }

    /// The rate of its audio in Hz, which is also that of its clock.
    pub fn rate(&self) -> u32 {
        if matches!(self, Self::Amr { wide: true, .. }) { 16_000 } else { 8_000 }
    }
}

/// The value of a parameter of `a=fmtp`, `key=value` between semicolons.
fn parameter<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case(key).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, clock_rate: u32, fmtp: &str, expected: Option<ForeignCodec>) {
        let spec = CodecSpec { fmtp: Some(fmtp.to_owned()), ..CodecSpec::new(Codec::from_encoding(name), clock_rate) };
        assert_eq!(ForeignCodec::of(&spec), expected, "{name}/{clock_rate} {fmtp}");
    }

    #[test]
    fn codecs_by_their_description() {
        let amr = |wide, octet_aligned| Some(ForeignCodec::Amr { wide, octet_aligned });
        check("g729", 8_000, "annexb=no", Some(ForeignCodec::G729));
        check("G729", 16_000, "", None);
        check("G726-40", 8_000, "", Some(ForeignCodec::G726 { bits: 5, little_endian: true }));
        check("AAL2-G726-16", 8_000, "", Some(ForeignCodec::G726 { bits: 2, little_endian: false }));
        check("GSM", 8_000, "", Some(ForeignCodec::Gsm));
        check("G723", 8_000, "bitrate=6.3", Some(ForeignCodec::G723));
        check("iLBC", 8_000, "mode=20", Some(ForeignCodec::Ilbc { ms: 20 }));
        check("iLBC", 8_000, "", Some(ForeignCodec::Ilbc { ms: 30 }));
        check("AMR", 8_000, "mode-set=7; octet-align=1", amr(false, true));
        check("AMR", 8_000, "octet-align=0", amr(false, false));
        check("AMR-WB", 16_000, "", amr(true, false));
        check("AMR-WB", 16_000, "octet-align=1; crc=1", None);
        check("AMR", 8_000, "interleaving=6", None);
        check("AMR-WB", 8_000, "", None);
        check("PCMU", 8_000, "", None);
        check("speex", 8_000, "", None);
    }
}

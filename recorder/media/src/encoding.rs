//! Encodings: their names in SDP, and how much audio a payload holds.

use serde::{Deserialize, Serialize};

/// What a payload type stands for (`a=rtpmap`, RFC 8866 section 6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadType {
    /// The payload type, 0 to 127.
    pub pt: u8,
    /// What it carries.
    pub encoding: Encoding,
    /// Units of its timestamps in a second; 8,000 for G.722 too (RFC 3551 section 4.5.2). Not 0.
    pub clock_rate: u32,
    /// Channels, 1 or 2; what `rtpmap` says for Opus is always 2.
    pub channels: u8,
}

impl PayloadType {
    /// The meaning of a payload type that needs no `rtpmap` (RFC 3551 section 6, the audio of telephony).
    pub fn assigned(pt: u8) -> Option<Self> {
        let encoding = match pt {
            0 => Encoding::Pcmu,
            8 => Encoding::Pcma,
            9 => Encoding::G722,
            13 => Encoding::ComfortNoise,
            18 => Encoding::G729,
            3 | 4 | 7 | 12 | 15 => Encoding::Other,
            _ => return None,
        };
        Some(Self { pt, encoding, clock_rate: 8_000, channels: 1 })
    }
}

/// The encodings whose packets tell how long they last, and two that last no time of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Encoding {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 64 kbit/s.
    G722,
    /// Opus (RFC 6716, RFC 7587).
    Opus,
    /// G.729, with annexes A and B.
    G729,
    /// Uncompressed 16-bit samples.
    L16,
    /// Comfort noise (RFC 3389).
    ComfortNoise,
    /// Dialled digits and tones (RFC 4733).
    TelephoneEvent,
    /// Any other; carried as received.
    Other,
}

impl Encoding {
    /// The encoding of that name in SDP, in upper or lower case.
    pub fn named(name: &str) -> Self {
        const NAMES: [(&str, Encoding); 8] = [
            ("PCMU", Encoding::Pcmu),
            ("PCMA", Encoding::Pcma),
            ("G722", Encoding::G722),
            ("opus", Encoding::Opus),
            ("G729", Encoding::G729),
            ("L16", Encoding::L16),
            ("CN", Encoding::ComfortNoise),
            ("telephone-event", Encoding::TelephoneEvent),
        ];
        let found = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(Self::Other, |&(_, encoding)| encoding)
    }
}

/// How much audio a payload holds, in units of `clock_rate`; 0 for telephone events, which lie over the audio. None where the
/// payload does not tell: comfort noise lasts until the next packet, other encodings are not known here, and broken payloads tell nothing.
///
/// Sources: RFC 3551 section 4.5 (G.711, G.722, G.729, L16), RFC 6716 section 3 (Opus).
pub fn payload_duration(encoding: Encoding, clock_rate: u32, channels: u8, payload: &[u8]) -> Option<u32> {
    let bytes = u64::try_from(payload.len()).ok()?;
    let (channels, clock_rate) = (u64::from(channels.max(1)), u64::from(clock_rate));
    let ticks = match encoding {
        Encoding::Pcmu | Encoding::Pcma => bytes / channels,
        Encoding::L16 => bytes / (2 * channels),
        // 64 kbit/s: eight bytes a millisecond, whatever the clock is said to be.
        Encoding::G722 => bytes * clock_rate / 8_000,
        Encoding::G729 => g729_frames(bytes)? * clock_rate / 100,
        Encoding::Opus => opus_duration_48k(payload)? * clock_rate / 48_000,
        Encoding::TelephoneEvent => 0,
        Encoding::ComfortNoise | Encoding::Other => return None,
    };
    u32::try_from(ticks).ok()
}

/// Frames of 10 ms: ten bytes each, and perhaps one of two bytes (silence description) at the end.
fn g729_frames(bytes: u64) -> Option<u64> {
    match (bytes / 10, bytes % 10) {
        (frames, 0) => Some(frames),
        (frames, 2) => Some(frames + 1),
        _ => None,
    }
}

/// Duration of an Opus packet in samples at 48 kHz from its first one or two bytes; none when it breaks a rule of RFC 6716 section 3.4
/// that shows there.
fn opus_duration_48k(payload: &[u8]) -> Option<u64> {
    /// 120 ms.
    const SAMPLES_MAX: u64 = 5_760;
    let &toc = payload.first()?;
    let config = toc >> 3;
    let frame: u64 = match config {
        // SILK: 10, 20, 40, 60 ms.
        0..=11 => [480, 960, 1_920, 2_880][usize::from(config & 3)],
        // Hybrid: 10, 20 ms.
        12..=15 => [480, 960][usize::from(config & 1)],
        // CELT: 2.5, 5, 10, 20 ms.
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u64::from(payload.get(1)? & 0x3f),
    };
    let samples = frame * frames;
    (1..=SAMPLES_MAX).contains(&samples).then_some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_sdp() {
        let check = |name, encoding| assert_eq!(Encoding::named(name), encoding, "{name}");
        check("PCMU", Encoding::Pcmu);
        check("pcma", Encoding::Pcma);
        check("G722", Encoding::G722);
        check("OPUS", Encoding::Opus);
        check("g729", Encoding::G729);
        check("l16", Encoding::L16);
        check("CN", Encoding::ComfortNoise);
        check("telephone-event", Encoding::TelephoneEvent);
        check("AMR-WB", Encoding::Other);
        check("", Encoding::Other);
    }

    #[test]
    fn assigned_payload_types() {
        let check = |pt, encoding: Option<Encoding>| {
            assert_eq!(
                PayloadType::assigned(pt).map(|found| (found.encoding, found.clock_rate)),
                encoding.map(|e| (e, 8_000))
            );
        };
        check(0, Some(Encoding::Pcmu));
        check(8, Some(Encoding::Pcma));
        check(9, Some(Encoding::G722));
        check(13, Some(Encoding::ComfortNoise));
        check(18, Some(Encoding::G729));
        check(3, Some(Encoding::Other));
        check(96, None);
        check(111, None);
    }

    #[test]
    fn durations_by_length() {
        let check = |encoding, clock_rate, channels, bytes, ticks| {
            assert_eq!(
                payload_duration(encoding, clock_rate, channels, &vec![0; bytes]),
                ticks,
                "{encoding:?} {bytes}"
            );
        };
        check(Encoding::Pcmu, 8_000, 1, 160, Some(160));
        check(Encoding::Pcmu, 8_000, 0, 160, Some(160));
        check(Encoding::Pcma, 16_000, 2, 160, Some(80));
        check(Encoding::Pcma, 8_000, 1, 0, Some(0));
        check(Encoding::G722, 8_000, 1, 160, Some(160));
        check(Encoding::G722, 16_000, 1, 160, Some(320));
        check(Encoding::L16, 44_100, 2, 1_764, Some(441));
        check(Encoding::G729, 8_000, 1, 20, Some(160));
        check(Encoding::G729, 8_000, 1, 2, Some(80));
        check(Encoding::G729, 8_000, 1, 22, Some(240));
        check(Encoding::G729, 8_000, 1, 15, None);
        check(Encoding::TelephoneEvent, 8_000, 1, 4, Some(0));
        check(Encoding::ComfortNoise, 8_000, 1, 1, None);
        check(Encoding::Other, 8_000, 1, 33, None);
    }

    #[test]
    fn durations_of_opus_by_its_first_bytes() {
        let check = |payload: &[u8], ticks| {
            assert_eq!(payload_duration(Encoding::Opus, 48_000, 2, payload), ticks, "{payload:02x?}");
        };
        let toc = |config: u8, code: u8| config << 3 | code;
        check(&[toc(0, 0)], Some(480));
        check(&[toc(1, 0)], Some(960));
        check(&[toc(6, 0)], Some(1_920));
        check(&[toc(11, 0)], Some(2_880));
        check(&[toc(12, 0)], Some(480));
        check(&[toc(15, 0)], Some(960));
        check(&[toc(16, 0)], Some(120));
        check(&[toc(21, 0)], Some(240));
        check(&[toc(26, 0)], Some(480));
        check(&[toc(31, 4)], Some(960));
        check(&[toc(31, 1), 0], Some(1_920));
        check(&[toc(31, 2), 0], Some(1_920));
        check(&[toc(31, 3), 6], Some(5_760));
        check(&[toc(31, 3), 0xc0 | 3], Some(2_880));
        check(&[toc(16, 3), 48], Some(5_760));
        check(&[toc(16, 3), 49], None);
        check(&[toc(3, 3), 3], None);
        check(&[toc(31, 3), 0], None);
        check(&[toc(31, 3)], None);
        check(&[], None);
        assert_eq!(payload_duration(Encoding::Opus, 16_000, 2, &[toc(31, 0)]), Some(320));
    }
}

//! Payload types and what they mean.

use serde::{Deserialize, Serialize};

/// Encoding name of a payload type that the offer leaves undescribed.
pub const UNKNOWN_ENCODING: &str = "unknown";

/// RTP clock rate of nearly every telephone codec, taken where an offer does not say.
const CLOCK_RATE_DEFAULT: u32 = 8000;

/// What an RTP payload type means on a media line (RFC 8866, `rtpmap` and `fmtp`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codec {
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// Encoding name as offered, or as registered for a static payload type; [`UNKNOWN_ENCODING`] when neither says.
    pub encoding: String,
    /// RTP clock rate in Hz. G.722 says 8000 although its audio is 16,000 (RFC 3551, section 4.5.2).
    pub clock_rate: u32,
    /// Channels, at least 1.
    pub channels: u8,
    /// Parameters as offered (`fmtp`), not interpreted.
    pub fmtp: Option<String>,
}

impl Codec {
    /// Whether the encoding has this name; names are compared without regard to case (RFC 4855, section 3).
    pub fn is(&self, encoding: &str) -> bool {
        self.encoding.eq_ignore_ascii_case(encoding)
    }

    /// The payload type with its registered meaning, or as unknown (RFC 3551, section 6).
    pub(crate) fn registered(payload_type: u8) -> Codec {
        let (encoding, clock_rate, channels) = match payload_type {
            0 => ("PCMU", 8000, 1),
            // Registered once as G721, the 32 kbit/s rate of G.726; telephony gateways still offer it without an rtpmap.
            2 => ("G726-32", 8000, 1),
            3 => ("GSM", 8000, 1),
            4 => ("G723", 8000, 1),
            5 => ("DVI4", 8000, 1),
            6 => ("DVI4", 16000, 1),
            7 => ("LPC", 8000, 1),
            8 => ("PCMA", 8000, 1),
            9 => ("G722", 8000, 1),
            10 => ("L16", 44100, 2),
            11 => ("L16", 44100, 1),
            12 => ("QCELP", 8000, 1),
            // 19 was comfort noise before 13 was; old gateways still say so.
            13 | 19 => ("CN", 8000, 1),
            14 => ("MPA", 90000, 1),
            15 => ("G728", 8000, 1),
            16 => ("DVI4", 11025, 1),
            17 => ("DVI4", 22050, 1),
            18 => ("G729", 8000, 1),
            _ => (UNKNOWN_ENCODING, CLOCK_RATE_DEFAULT, 1),
        };
        Codec { payload_type, encoding: encoding.to_owned(), clock_rate, channels, fmtp: None }
    }

    /// Takes over what an `rtpmap` value says after the payload type: `encoding[/clock[/channels]]`.
    pub(crate) fn describe(&mut self, rtpmap: &str) {
        let mut parts = rtpmap.trim().split('/').map(str::trim);
        let Some(encoding) = parts.next().filter(|name| !name.is_empty()) else {
            return;
        };
        self.encoding = encoding.to_owned();
        if let Some(clock_rate) = parts.next().and_then(|text| text.parse().ok())
            && clock_rate > 0
        {
            self.clock_rate = clock_rate;
        }
        self.channels = parts.next().and_then(|text| text.parse().ok()).unwrap_or(1).max(1);
    }

    /// The value of the `rtpmap` attribute that describes this codec; none for an unknown one.
    pub(crate) fn rtpmap(&self) -> Option<String> {
        if self.is(UNKNOWN_ENCODING) {
            return None;
        }
        let Codec { payload_type, encoding, clock_rate, channels, .. } = self;
        Some(match channels {
            1 => format!("{payload_type} {encoding}/{clock_rate}"),
            _ => format!("{payload_type} {encoding}/{clock_rate}/{channels}"),
        })
    }
}

//! The parts of a packet that are not encrypted.

use crate::SrtpError;

/// Length of the RTCP header up to and with the sender's SSRC, which is never encrypted (RFC 3711 section 3.4).
pub(crate) const RTCP_HEADER_BYTES: usize = 8;
/// Length of the fixed RTP header (RFC 3550 section 5.1).
const RTP_HEADER_BYTES: usize = 12;
/// RTCP packet types (RFC 5761 section 4).
const RTCP_TYPES: std::ops::RangeInclusive<u8> = 192..=223;

/// What a datagram is, by its first two bytes (RFC 7983 section 7, RFC 5761 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rtp,
    Rtcp,
    Other,
}

impl Kind {
    pub(crate) fn of(datagram: &[u8]) -> Self {
        match datagram {
            [128..=191, second, ..] if RTCP_TYPES.contains(second) => Self::Rtcp,
            [128..=191, ..] => Self::Rtp,
            _ => Self::Other,
        }
    }
}

/// What the header of an RTP packet says about its protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RtpHeader {
    /// Bytes up to the payload: contributing sources and extension are not encrypted (RFC 3711 section 3.1).
    pub(crate) bytes: usize,
    pub(crate) sequence: u16,
    pub(crate) ssrc: u32,
}

impl RtpHeader {
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, SrtpError> {
        let truncated = SrtpError::Truncated { bytes: packet.len() };
        let &[first, _, s1, s0, _, _, _, _, a, b, c, d, ..] = packet else { return Err(truncated) };
        let mut bytes = RTP_HEADER_BYTES + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            // Profile, then the length in words (RFC 3550 section 5.3.1).
            let Some(&[_, _, high, low]) = packet.get(bytes..bytes + 4) else { return Err(truncated) };
            bytes += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
        }
        if bytes > packet.len() {
            return Err(truncated);
        }
        Ok(Self { bytes, sequence: u16::from_be_bytes([s1, s0]), ssrc: u32::from_be_bytes([a, b, c, d]) })
    }
}

/// The SSRC of the sender of an RTCP compound.
pub(crate) fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpError> {
    match packet {
        &[_, _, _, _, a, b, c, d, ..] => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => Err(SrtpError::Truncated { bytes: packet.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(first: u8, rest: &[u8], bytes: Option<usize>) {
        let packet = [&[first, 0, 0xf1, 0x7b, 0, 0, 0, 2, 0x55, 1, 0xa0, 0xb2], rest].concat();
        let header = RtpHeader::parse(&packet);
        match bytes {
            Some(bytes) => assert_eq!(header, Ok(RtpHeader { bytes, sequence: 0xf17b, ssrc: 0x5501_a0b2 })),
            None => assert_eq!(header, Err(SrtpError::Truncated { bytes: packet.len() })),
        }
    }

    #[test]
    fn the_header_ends_behind_sources_and_extension() {
        check(0x80, b"", Some(12));
        check(0x80, b"audio", Some(12));
        check(0x82, b"csrccsrcaudio", Some(20));
        check(0x82, b"csrccsr", None);
        check(0x90, b"\xbe\xde\0\x01extnaudio", Some(20));
        check(0x90, b"\xbe\xde\0\x01ext", None);
        check(0x90, b"\xbe\xde\0", None);
        check(0x91, b"csrc\xbe\xde\0\0audio", Some(20));
        check(0x9f, b"", None);
        assert_eq!(RtpHeader::parse(&[0x80; 11]), Err(SrtpError::Truncated { bytes: 11 }));
    }
}

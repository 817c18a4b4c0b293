//! Telling apart what comes to a media port.

use std::ops::Range;

use rtp_rs::{RtpReader, RtpReaderError};

use crate::{MediaError, Rtcp};

/// The fixed header of an RTP packet (RFC 3550 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Marker: for audio, the first packet after silence.
    pub marker: bool,
    /// Sequence number as sent.
    pub sequence: u16,
    /// Timestamp in units of the payload type's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

/// What a datagram is, by its first two bytes (RFC 7983 section 7, RFC 5761 section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// An RTP packet.
    Rtp {
        /// Its fixed header.
        header: RtpHeader,
        /// Where in the datagram its payload is: behind contributing sources and extension, before padding.
        payload: Range<usize>,
    },
    /// An RTCP compound packet.
    Rtcp(Rtcp),
    /// STUN: a check of connectivity or a keep-alive.
    Stun,
    /// Anything else: DTLS, ZRTP, an empty datagram as keep-alive (RFC 6263 section 4.1).
    Other,
}

/// RTCP packet types; an RTP packet with marker and a payload type of 64 to 95 would look the same (RFC 5761 section 4).
const RTCP_TYPES: std::ops::RangeInclusive<u8> = 192..=223;

impl Datagram {
    /// Reads a datagram.
    ///
    /// # Errors
    /// [`MediaError`] when it says that it is RTP or RTCP but cannot be.
    pub fn parse(datagram: &[u8]) -> Result<Self, MediaError> {
        Self::parse_knowing(datagram, |_| false)
    }

    /// As [`Datagram::parse`], where `is_agreed` says which payload types RTP may have. With one of 64 to 95, which
    /// RFC 5761 warns of, a packet with marker is taken for RTCP only if its lengths add up as RTCP's do.
    pub(crate) fn parse_knowing(datagram: &[u8], is_agreed: impl Fn(u8) -> bool) -> Result<Self, MediaError> {
        let (&first, second) = match datagram {
            [] => return Ok(Self::Other),
            [first, rest @ ..] => (first, rest.first()),
        };
        match (first, second) {
            (0..=3, _) => Ok(Self::Stun),
            (128..=191, Some(second)) if RTCP_TYPES.contains(second) => {
                if is_agreed(second & 0x7f) && !Rtcp::adds_up(datagram) {
                    return rtp(datagram);
                }
                Ok(Self::Rtcp(Rtcp::parse(datagram)?))
            }
            (128..=191, _) => rtp(datagram),
            _ => Ok(Self::Other),
        }
    }
}

fn rtp(datagram: &[u8]) -> Result<Datagram, MediaError> {
    let bytes = datagram.len();
    let reader = RtpReader::new(datagram).map_err(|error| match error {
        RtpReaderError::PaddingLengthInvalid(_) => MediaError::RtpPadding { bytes },
        _ => MediaError::RtpTruncated { bytes },
    })?;
    let header = RtpHeader {
        payload_type: reader.payload_type(),
        marker: reader.mark(),
        sequence: u16::from(reader.sequence_number()),
        timestamp: reader.timestamp(),
        ssrc: reader.ssrc(),
    };
    let from = reader.payload_offset();
    Ok(Datagram::Rtp { header, payload: from..from + reader.payload().len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet with sequence 1, timestamp 2, SSRC 3 and the given beginning and rest.
    fn packet(first: u8, second: u8, rest: &[u8]) -> Vec<u8> {
        [&[first, second, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], rest].concat()
    }

    fn check(datagram: &[u8], payload: Result<&[u8], MediaError>) {
        match Datagram::parse(datagram) {
            Ok(Datagram::Rtp { payload: range, header }) => {
                assert_eq!(Ok(&datagram[range]), payload, "{datagram:02x?}");
                assert_eq!((header.sequence, header.timestamp, header.ssrc), (1, 2, 3));
            }
            Err(error) => assert_eq!(Err(error), payload, "{datagram:02x?}"),
            other => panic!("{datagram:02x?} is {other:?}"),
        }
    }

    #[test]
    fn the_payload_is_between_header_and_padding() {
        check(&packet(0x80, 0, b""), Ok(b""));
        check(&packet(0x80, 0, b"audio"), Ok(b"audio"));
        check(&packet(0x82, 0, b"csrccsrcaudio"), Ok(b"audio"));
        check(&packet(0x90, 0, b"\xbe\xde\0\x01extnaudio"), Ok(b"audio"));
        check(&packet(0x91, 0, b"csrc\xbe\xde\0\0audio"), Ok(b"audio"));
        check(&packet(0xa0, 0, b"audio\0\0\x03"), Ok(b"audio"));
        check(&packet(0xa0, 0, b"\0\0\x03"), Ok(b""));
    }

    #[test]
    fn lengths_that_cannot_be_are_errors() {
        check(&[0x80], Err(MediaError::RtpTruncated { bytes: 1 }));
        check(&packet(0x80, 0, b"")[..11], Err(MediaError::RtpTruncated { bytes: 11 }));
        check(&packet(0x82, 0, b"csrccsr"), Err(MediaError::RtpTruncated { bytes: 19 }));
        check(&packet(0x90, 0, b"\xbe\xde\0"), Err(MediaError::RtpTruncated { bytes: 15 }));
        check(&packet(0x90, 0, b"\xbe\xde\xff\xffextn"), Err(MediaError::RtpTruncated { bytes: 20 }));
        check(&packet(0xa0, 0, b""), Err(MediaError::RtpTruncated { bytes: 12 }));
        check(&packet(0xa0, 0, b"au\x04"), Err(MediaError::RtpPadding { bytes: 15 }));
        check(&packet(0xa0, 0, b"audio\0"), Err(MediaError::RtpPadding { bytes: 18 }));
    }

    #[test]
    fn header_fields() {
        let Ok(Datagram::Rtp { header, .. }) = Datagram::parse(&packet(0x80, 0x80 | 111, b"x")) else { panic!() };
        assert_eq!(header, RtpHeader { payload_type: 111, marker: true, sequence: 1, timestamp: 2, ssrc: 3 });
    }

    #[test]
    fn other_protocols_are_told_apart() {
        let check = |datagram: &[u8], expected| assert_eq!(Datagram::parse(datagram), Ok(expected), "{datagram:02x?}");
        check(&[], Datagram::Other);
        check(&[0, 1, 0, 0], Datagram::Stun);
        check(&[3], Datagram::Stun);
        check(&[22, 254, 255], Datagram::Other);
        check(&[127], Datagram::Other);
        check(&[192, 0, 0], Datagram::Other);
        check(&[0x80, 201, 0, 1, 0, 0, 0, 9], Datagram::Rtcp(Rtcp::default()));
    }

    #[test]
    fn an_agreed_payload_type_in_the_forbidden_range_is_not_taken_for_rtcp() {
        let check = |datagram: &[u8], agreed, rtp| {
            let read = Datagram::parse_knowing(datagram, |pt| pt == agreed);
            assert_eq!(matches!(read, Ok(Datagram::Rtp { .. })), rtp, "{datagram:02x?}");
        };
        check(&packet(0x80, 0x80 | 72, b"audio"), 72, true);
        check(&packet(0x80, 0x80 | 72, b"audio"), 0, false);
        check(&[0x80, 201, 0, 1, 0, 0, 0, 9], 73, false);
    }
}

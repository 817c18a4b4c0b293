//! Reading RTCP (RFC 3550 section 6).

use std::ops::Range;

use crate::MediaError;

/// Packets of a compound that are looked at. Real ones have two to four; the rest of a longer one is passed over.
pub const RTCP_BLOCKS_MAX: usize = 32;

const SENDER_REPORT: u8 = 200;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const SDES_END: u8 = 0;
const SDES_CNAME: u8 = 1;

/// What a sender says about its clocks (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// The source that it is about.
    pub ssrc: u32,
    /// Wall clock of the sender in NTP format: seconds since 1900 in the upper half, fractions of a second in the lower. 0 when it has none.
    pub ntp: u64,
    /// The same moment in RTP timestamp units.
    pub rtp_timestamp: u32,
    /// Packets sent so far, modulo 2^32.
    pub packets: u32,
    /// Payload bytes sent so far, modulo 2^32.
    pub bytes: u32,
}

/// Where the canonical name of a source is (RFC 3550 section 6.5.1). It may name a person, so it is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalName {
    /// The source that is named.
    pub ssrc: u32,
    /// Where in the datagram the name is, in UTF-8 if the sender keeps to the rules.
    pub name: Range<usize>,
}

/// What is of use in an RTCP compound: the first of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rtcp {
    /// A sender's clocks.
    pub sender_report: Option<SenderReport>,
    /// The source that leaves (BYE, RFC 3550 section 6.6).
    pub goodbye: Option<u32>,
    /// A source's name.
    pub cname: Option<CanonicalName>,
}

impl Rtcp {
    /// Reads a compound of at most [`RTCP_BLOCKS_MAX`] packets. What follows a packet that is cut short, or is none,
    /// is passed over; so is what is encrypted or unknown.
    ///
    /// # Errors
    /// [`MediaError::RtcpTruncated`] when there is not one whole packet.
    pub fn parse(datagram: &[u8]) -> Result<Self, MediaError> {
        let mut rtcp = Self::default();
        let mut at = 0;
        for number in 0..RTCP_BLOCKS_MAX {
            let Some(block) = Block::at(datagram, at) else {
                if number == 0 {
                    return Err(MediaError::RtcpTruncated { bytes: datagram.len() });
                }
                break;
            };
            rtcp.add(&block, at);
            at += block.bytes.len();
        }
        Ok(rtcp)
    }

    /// Whether the packets of the compound fill the datagram exactly.
    pub(crate) fn adds_up(datagram: &[u8]) -> bool {
        let mut at = 0;
        for _ in 0..RTCP_BLOCKS_MAX {
            let Some(block) = Block::at(datagram, at) else { return false };
            at += block.bytes.len();
            if at == datagram.len() {
                return true;
            }
        }
        false
    }

    fn add(&mut self, block: &Block<'_>, at: usize) {
        match block.kind {
            SENDER_REPORT if self.sender_report.is_none() => self.sender_report = block.sender_report(),
            GOODBYE if self.goodbye.is_none() && block.count > 0 => self.goodbye = u32_at(block.bytes, 4),
            SOURCE_DESCRIPTION if self.cname.is_none() => {
                self.cname = block
                    .cname()
                    .map(|found| CanonicalName { ssrc: found.ssrc, name: at + found.name.start..at + found.name.end });
            }
            _ => {}
        }
    }
}

/// One packet of a compound, whole, with its header.
struct Block<'a> {
    kind: u8,
    count: u8,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    fn at(datagram: &'a [u8], at: usize) -> Option<Self> {
        let rest = datagram.get(at..)?;
        let &[first, kind, high, low, ..] = rest else { return None };
        let words = usize::from(u16::from_be_bytes([high, low])) + 1;
        let bytes = rest.get(..words * 4)?;
        (first >> 6 == 2).then_some(Self { kind, count: first & 0x1f, bytes })
    }

    fn sender_report(&self) -> Option<SenderReport> {
        let (high, low) = (u32_at(self.bytes, 8)?, u32_at(self.bytes, 12)?);
        Some(SenderReport {
            ssrc: u32_at(self.bytes, 4)?,
            ntp: u64::from(high) << 32 | u64::from(low),
            rtp_timestamp: u32_at(self.bytes, 16)?,
            packets: u32_at(self.bytes, 20)?,
            bytes: u32_at(self.bytes, 24)?,
        })
    }

    /// The first canonical name, with its place in this block.
    fn cname(&self) -> Option<CanonicalName> {
        let mut at = 4;
        for _ in 0..self.count {
            let ssrc = u32_at(self.bytes, at)?;
            at += 4;
            loop {
                let kind = *self.bytes.get(at)?;
                if kind == SDES_END {
                    // A chunk ends with one to four zero bytes, at a multiple of four.
                    at = (at / 4 + 1) * 4;
                    break;
                }
                let name = at + 2..at + 2 + usize::from(*self.bytes.get(at + 1)?);
                if name.end > self.bytes.len() {
                    return None;
                }
                if kind == SDES_CNAME {
                    return Some(CanonicalName { ssrc, name });
                }
                at = name.end;
            }
        }
        None
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SR: [u8; 28] =
        [0x80, 200, 0, 6, 0, 0, 0, 7, 0xea, 1, 2, 3, 0x80, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 50, 0, 0, 0x1f, 0x40];
    const RR: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 9];
    const SDES: [u8; 24] = *b"\x82\xca\0\x05\0\0\0\x07\x02\x01N\0\0\0\0\x09\x01\x05a@b.c\0";
    const BYE: [u8; 8] = [0x81, 203, 0, 1, 0, 0, 0, 7];

    fn check(blocks: &[&[u8]], report: bool, goodbye: Option<u32>, cname: Option<(u32, &str)>) {
        let datagram = blocks.concat();
        let rtcp = Rtcp::parse(&datagram).unwrap();
        assert_eq!(rtcp.sender_report.is_some(), report, "{datagram:02x?}");
        assert_eq!(rtcp.goodbye, goodbye, "{datagram:02x?}");
        let found = rtcp.cname.map(|cname| (cname.ssrc, std::str::from_utf8(&datagram[cname.name]).unwrap()));
        assert_eq!(found, cname, "{datagram:02x?}");
    }

    #[test]
    fn compounds() {
        check(&[&RR], false, None, None);
        check(&[&SR], true, None, None);
        check(&[&SR, &SDES, &BYE], true, Some(7), Some((9, "a@b.c")));
        check(&[&RR, &SDES], false, None, Some((9, "a@b.c")));
        check(&[&[0x80, 203, 0, 0]], false, None, None);
        check(&[&[0x81, 203, 0, 0]], false, None, None);
        check(&[&[0x80, 200, 0, 1, 0, 0, 0, 9]], false, None, None);
        check(&[&SR, &BYE[..6]], true, None, None);
        check(&[&RR, b"\x81\xca\0\x01\0\0\0\x07"], false, None, None);
        check(&[&RR, b"\x81\xca\0\x02\0\0\0\x07\x01\xffab"], false, None, None);
    }

    #[test]
    fn a_sender_report_has_both_clocks() {
        let report = Rtcp::parse(&SR).unwrap().sender_report.unwrap();
        let expected =
            SenderReport { ssrc: 7, ntp: 0xea01_0203_8000_0000, rtp_timestamp: 4_096, packets: 50, bytes: 8_000 };
        assert_eq!(report, expected);
    }

    #[test]
    fn what_is_not_one_whole_packet_is_an_error() {
        let check =
            |bytes: &[u8]| assert_eq!(Rtcp::parse(bytes), Err(MediaError::RtcpTruncated { bytes: bytes.len() }));
        check(&[]);
        check(&[0x80, 200, 0]);
        check(&SR[..27]);
        check(&[0x40, 201, 0, 0]);
    }

    #[test]
    fn the_first_of_a_kind_counts_and_long_compounds_end() {
        let second = [0x81, 203, 0, 1, 0, 0, 0, 8];
        check(&[&BYE, &second], false, Some(7), None);
        let mut many = RR.repeat(RTCP_BLOCKS_MAX);
        many.extend(BYE);
        check(&[&many], false, None, None);
        assert!(!Rtcp::adds_up(&many));
        assert!(Rtcp::adds_up(&[&SR[..], &SDES, &BYE].concat()));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>, kind in 200_u8..204) {
            if let [first, second, ..] = &mut bytes[..] {
                (*first, *second) = (0x80 | (*first & 0x3f), kind);
            }
            if let Ok(Rtcp { cname: Some(cname), .. }) = Rtcp::parse(&bytes) {
                proptest::prop_assert!(bytes.get(cname.name).is_some());
            }
        }
    }
}

//! Receiver reports (RFC 3550 section 6.4.2, RFC 7866 section 8.1): what we tell a sender about how it is received; and which
//! of its own reports are worth keeping.

use std::net::IpAddr;

use crate::{Reception, SenderReport};

/// Mean time between two reports of a track: the minimum of RFC 3550 section 6.2. Each interval is half to one and a half of it, so that
/// those of many tracks do not come at once (section 6.3.1).
pub const REPORT_NS: u64 = 5_000_000_000;
/// A sender report is kept each so often: ten minutes' drift of a clock are told by twenty.
pub const KEPT_REPORT_NS: u64 = 30_000_000_000;

/// A clock that was set is worth a report at once, but not one after the other.
const KEPT_REPORT_NS_MIN: u64 = 5_000_000_000;
/// So much more or less than expected is a clock that was set, or a timestamp that began anew.
const JUMP_NS: u64 = 100_000_000;
const NS_PER_SECOND: u64 = 1_000_000_000;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const SDES_CNAME: u8 = 1;
const VERSION: u8 = 0x80;
/// Largest loss that the report's 24 bits hold (RFC 3550 appendix A.3).
const LOST_MAX: u64 = 0x7f_ffff;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Our canonical name in a session: 96 random bits in base 64 (RFC 7022 section 4.2), so that it says nothing of anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnName([u8; 16]);

impl OwnName {
    /// The name of a session; the bytes are to be random, and the same for all tracks of the session.
    pub fn new(random: [u8; 12]) -> Self {
        let mut name = [0; 16];
        for (four, three) in name.chunks_exact_mut(4).zip(random.chunks_exact(3)) {
            let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            for (place, byte) in four.iter_mut().enumerate() {
                *byte = BASE64[(bits >> (18 - 6 * place)) as usize & 0x3f];
            }
        }
        Self(name)
    }
}

/// Makes the reports of one track.
#[derive(Debug, Clone)]
pub struct Reporter {
    ssrc: u32,
    name: OwnName,
    due_ns: u64,
    /// The last sender report: of which SSRC, the middle of its NTP time, when it came.
    heard: Option<(u32, u32, u64)>,
    before: Option<Before>,
}

/// What was told last.
#[derive(Debug, Clone, Copy)]
struct Before {
    source: u8,
    ssrc: u32,
    expected: u64,
    lost: u64,
}

impl Reporter {
    /// Reports under a random SSRC. The first is due after half of the usual time.
    pub fn new(now_ns: u64, name: OwnName, random_ssrc: u32, random: u32) -> Self {
        let due_ns = now_ns.saturating_add(interval_ns(random) / 2);
        Self { ssrc: random_ssrc, name, due_ns, heard: None, before: None }
    }

    /// Notes a sender report, which the next report is to mention.
    pub fn heard(&mut self, report: &SenderReport, arrival_ns: u64) {
        self.heard = Some((report.ssrc, (report.ntp >> 16) as u32, arrival_ns));
    }

    /// Whether a report is to be sent.
    pub fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.due_ns
    }

    /// A report, as a compound with our name (RFC 3550 section 6.1). When the source that is followed sent nothing since the last one, the report
    /// is empty: it says that we are there.
    pub fn report(&mut self, now_ns: u64, reception: &Reception, random: u32) -> Vec<u8> {
        self.due_ns = now_ns.saturating_add(interval_ns(random));
        if self.ssrc == reception.ssrc {
            // Two with one SSRC cannot be told apart; ours is the one to change (RFC 3550 section 8.2).
            self.ssrc = self.ssrc.wrapping_add(random | 1);
        }
        let is_same = |before: &Before| (before.source, before.ssrc) == (reception.source, reception.ssrc);
        let before = self.before.filter(is_same);
        let (expected_before, lost_before) = before.map_or((0, 0), |before| (before.expected, before.lost));
        let expected = reception.expected.saturating_sub(expected_before);
        let lost = reception.lost.saturating_sub(lost_before);
        self.before = Some(Before {
            source: reception.source,
            ssrc: reception.ssrc,
            expected: reception.expected,
            lost: reception.lost,
        });
        let mut out = Vec::with_capacity(60);
        if expected > 0 {
            put_header(&mut out, 1, RECEIVER_REPORT, 7);
            put(&mut out, self.ssrc);
            self.put_block(&mut out, now_ns, reception, fraction(lost, expected));
        } else {
            put_header(&mut out, 0, RECEIVER_REPORT, 1);
            put(&mut out, self.ssrc);
        }
        self.put_name(&mut out);
        out
    }

    fn put_block(&self, out: &mut Vec<u8>, now_ns: u64, reception: &Reception, fraction: u8) {
        let heard = self.heard.filter(|(ssrc, ..)| *ssrc == reception.ssrc);
        let (last, since) =
            heard.map_or((0, 0), |(_, middle, at_ns)| (middle, in_65536ths(now_ns.saturating_sub(at_ns))));
        put(out, reception.ssrc);
        let lost = u32::try_from(reception.lost.min(LOST_MAX)).unwrap_or(0);
        put(out, u32::from(fraction) << 24 | lost);
        put(out, reception.highest);
        put(out, reception.jitter_ticks);
        put(out, last);
        put(out, since);
    }

    fn put_name(&self, out: &mut Vec<u8>) {
        put_header(out, 1, SOURCE_DESCRIPTION, 6);
        put(out, self.ssrc);
        out.extend([SDES_CNAME, self.name.0.len() as u8]);
        out.extend(self.name.0);
        // The end of the chunk, to a multiple of four.
        out.extend([0, 0]);
    }
}

/// `words` is the length in 32-bit words without the header's own.
fn put_header(out: &mut Vec<u8>, count: u8, kind: u8, words: u16) {
    out.extend([VERSION | count, kind]);
    out.extend(words.to_be_bytes());
}

fn put(out: &mut Vec<u8>, word: u32) {
    out.extend(word.to_be_bytes());
}

fn interval_ns(random: u32) -> u64 {
    REPORT_NS / 2 + (REPORT_NS >> 16) * (u64::from(random) >> 16)
}

/// Packets lost of 256 expected.
fn fraction(lost: u64, expected: u64) -> u8 {
    u8::try_from(lost.saturating_mul(256) / expected.max(1)).unwrap_or(u8::MAX)
}

fn in_65536ths(ns: u64) -> u32 {
    let whole = (ns / NS_PER_SECOND).saturating_mul(65_536);
    u32::try_from(whole.saturating_add((ns % NS_PER_SECOND) * 65_536 / NS_PER_SECOND)).unwrap_or(u32::MAX)
}

/// Which sender reports of a track are worth keeping: the first of a source, one about every 30 s, and one by which its clock
/// or its timestamps were set anew. More tell nothing more.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReportSieve {
    last: Option<(u8, SenderReport, u64)>,
}

impl ReportSieve {
    /// Whether to keep this report of a source whose timestamps count `clock_rate` a second. One without a wall clock never is.
    pub fn keeps(&mut self, arrival_ns: u64, source: u8, clock_rate: u32, report: &SenderReport) -> bool {
        let is_news = match &self.last {
            _ if report.ntp == 0 => false,
            None => true,
            Some((_, _, at_ns)) if arrival_ns.saturating_sub(*at_ns) < KEPT_REPORT_NS_MIN => false,
            Some((last, ..)) if *last != source => true,
            Some((_, _, at_ns)) if arrival_ns.saturating_sub(*at_ns) >= KEPT_REPORT_NS => true,
            Some((_, last, _)) => {
                let by_wall_ns = (u128::from(report.ntp.wrapping_sub(last.ntp)) * u128::from(NS_PER_SECOND)) >> 32;
                let ticks = report.rtp_timestamp.wrapping_sub(last.rtp_timestamp);
                let by_media_ns = u64::from(ticks) * NS_PER_SECOND / u64::from(clock_rate.max(1));
                by_wall_ns.abs_diff(by_media_ns.into()) > JUMP_NS.into()
            }
        };
        if is_news {
            self.last = Some((source, *report, arrival_ns));
        }
        is_news
    }
}

/// A number for the clock of a sender with this canonical name at this address; 0 for none, which is also what an empty name has.
///
/// Who uses the same name for all its streams says that they share a clock (RFC 3550 section 6.5.1). Names that everybody uses occur, so
/// the address counts too.
pub fn clock_number(from: IpAddr, name: &[u8]) -> u64 {
    // FNV-1a, 64 bits.
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    if name.is_empty() {
        return 0;
    }
    let octets = match from.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let hash = octets.iter().chain(name).fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    hash.max(1)
}

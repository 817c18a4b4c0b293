//! From RTP payloads of codecs that another program decodes to frames as that program reads them from a pipe.
//!
//! Each frame decodes to a number of samples that is known beforehand, so what comes back can be told apart again. Frames that are no
//! speech (silence descriptors, gaps that the sender tells of, frames marked as damaged) are silence and never shown to the decoder.
//!
//! Sources: RFC 3551 section 4.5 (G.723, G.726, G.729, GSM), RFC 3952 (iLBC), RFC 4867 (AMR, AMR-WB).

use callvault_render_protocol::{CodecSpec, ForeignCodec};

/// Longest packet, in seconds of audio: four times what any of these formats allows (240 ms).
const PACKET_S_MAX: usize = 1;

/// Bits of an AMR frame by its type: the eight modes, then silence (RFC 4867 section 3.6, 3GPP TS 26.101 table 1a).
const AMR_BITS: [usize; 9] = [95, 103, 118, 134, 148, 159, 204, 244, 39];

/// The same of AMR-WB: nine modes, then silence (3GPP TS 26.201 table 1a).
const AMR_WB_BITS: [usize; 10] = [132, 177, 253, 285, 317, 365, 397, 461, 477, 40];

/// A part of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// To be decoded: the bytes as the decoder's format has them, and the samples that come of them.
    Frame(Vec<u8>, usize),
    /// So many samples of silence.
    Silence(usize),
}

impl Piece {
    /// Samples.
    pub(crate) fn samples(&self) -> usize {
        match self {
            Self::Frame(_, samples) | Self::Silence(samples) => *samples,
        }
    }
}

/// What the format begins with.
pub(crate) fn header(codec: &ForeignCodec) -> &'static [u8] {
    match codec {
        ForeignCodec::Amr { wide: false, .. } => b"#!AMR\n",
        ForeignCodec::Amr { wide: true, .. } => b"#!AMR-WB\n",
        ForeignCodec::Ilbc { ms: 20 } => b"#!iLBC20\n",
        ForeignCodec::Ilbc { .. } => b"#!iLBC30\n",
        ForeignCodec::G723 | ForeignCodec::G726 { .. } | ForeignCodec::G729 | ForeignCodec::Gsm => b"",
    }
}

/// The parts of a payload in their order; none when it is not as its format wants it.
pub(crate) fn pieces(codec: &ForeignCodec, payload: &[u8]) -> Option<Vec<Piece>> {
    let pieces = match codec {
        ForeignCodec::G729 => g729(payload)?,
        ForeignCodec::G723 => g723(payload)?,
        ForeignCodec::G726 { bits, .. } => {
            let bits = usize::from(*bits);
            let all = payload.len() * 8;
            if !all.is_multiple_of(bits) {
                return None;
            }
            vec![Piece::Frame(payload.to_vec(), all / bits)]
        }
        ForeignCodec::Gsm => frames(payload, 33, 160)?,
        ForeignCodec::Ilbc { ms: 20 } => frames(payload, 38, 160)?,
        ForeignCodec::Ilbc { .. } => frames(payload, 50, 240)?,
        ForeignCodec::Amr { wide, octet_aligned } => amr(payload, *wide, *octet_aligned)?,
    };
    let samples: usize = pieces.iter().map(Piece::samples).sum();
    let samples_max = PACKET_S_MAX * usize::try_from(codec.rate()).unwrap_or(0);
    (1..=samples_max).contains(&samples).then_some(pieces)
}

/// The codec that a foreign one becomes when it is decoded.
pub(crate) fn decoded_spec(codec: &ForeignCodec) -> CodecSpec {
    CodecSpec::new(callvault_render_protocol::Codec::L16, codec.rate())
}

fn frames(payload: &[u8], bytes: usize, samples: usize) -> Option<Vec<Piece>> {
    let whole = payload.len().is_multiple_of(bytes);
    whole.then(|| payload.chunks_exact(bytes).map(|frame| Piece::Frame(frame.to_vec(), samples)).collect())
}

/// Frames of ten bytes, and perhaps a silence descriptor of two at the end (annex B).
fn g729(payload: &[u8]) -> Option<Vec<Piece>> {
    let (speech, rest) = payload.split_at(payload.len() - payload.len() % 10);
    let mut pieces = frames(speech, 10, 80)?;
    match rest.len() {
        0 => {}
        2 => pieces.push(Piece::Silence(80)),
        _ => return None,
    }
    Some(pieces)
}

/// Frames whose first two bits say how long they are: 24 or 20 bytes of speech, 4 or 1 of silence (annex A).
fn g723(mut payload: &[u8]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while let Some(first) = payload.first() {
        let length = [24, 20, 4, 1][usize::from(first & 3)];
        let (frame, rest) = payload.split_at_checked(length)?;
        pieces.push(if length >= 20 { Piece::Frame(frame.to_vec(), 240) } else { Piece::Silence(240) });
        payload = rest;
    }
    Some(pieces)
}

/// A mode request, a table of contents, then the frames; with every part in whole bytes or all bits one after the other.
fn amr(payload: &[u8], wide: bool, octet_aligned: bool) -> Option<Vec<Piece>> {
    let (bits_of, samples): (&[usize], _) = if wide { (&AMR_WB_BITS, 320) } else { (&AMR_BITS, 160) };
    let silence = bits_of.len() - 1;
    let mut bits = Bits { bytes: payload, at: 0 };
    bits.take(if octet_aligned { 8 } else { 4 })?;
    let mut contents = Vec::new();
    loop {
        let entry = bits.take(6)?;
        if octet_aligned {
            bits.take(2)?;
        }
        contents.push((usize::from(entry >> 1 & 0x0f), entry & 1 != 0));
        if entry & 0x20 == 0 {
            break;
        }
    }
    let mut pieces = Vec::new();
    for (kind, is_good) in contents {
        let length = match kind {
            15 => 0,
            14 if wide => 0,
            kind => *bits_of.get(kind)?,
        };
        let frame = bits.take_bytes(length)?;
        if octet_aligned {
            bits.align();
        }
        pieces.push(if kind < silence && is_good {
            #[expect(clippy::cast_possible_truncation, reason = "below 15")]
            let header = (kind as u8) << 3 | 0x04;
            Piece::Frame([vec![header], frame].concat(), samples)
        } else {
            Piece::Silence(samples)
        });
    }
    Some(pieces)
}

/// Bits from the most significant on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next up to eight bits.
    fn take(&mut self, count: usize) -> Option<u8> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | byte >> (7 - self.at % 8) & 1;
            self.at += 1;
        }
        Some(value)
    }

    /// The next bits in bytes, the last of them filled up with zeros.
    fn take_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count.div_ceil(8));
        for at in (0..count).step_by(8) {
            let here = (count - at).min(8);
            bytes.push(self.take(here)? << (8 - here));
        }
        Some(bytes)
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use callvault_render_protocol::Codec;
    use proptest::prelude::*;

    fn codec(name: &str, clock_rate: u32, fmtp: &str) -> Option<ForeignCodec> {
        let spec = CodecSpec::new(Codec::from_encoding(name), clock_rate);
        ForeignCodec::of(&CodecSpec { fmtp: Some(fmtp.to_owned()).filter(|text| !text.is_empty()), ..spec })
    }

    /// What a payload consists of: samples with a letter, f for frames and s for silence.
    #[track_caller]
    fn check(name: &str, fmtp: &str, payload: &[u8], expected: &str) {
        let rate = if name == "AMR-WB" { 16_000 } else { 8_000 };
        let pieces = pieces(&codec(name, rate, fmtp).unwrap(), payload);
        let text = pieces.map(|pieces| {
            let words = pieces.iter().map(|piece| match piece {
                Piece::Frame(bytes, samples) => format!("f{samples}:{}", bytes.len()),
                Piece::Silence(samples) => format!("s{samples}"),
            });
            words.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(text.as_deref().unwrap_or("refused"), expected, "{name} {fmtp} {payload:02x?}");
    }

    #[test]
    fn payloads_fall_into_frames() {
        check("G729", "", &[1; 20], "f80:10 f80:10");
        check("G729", "annexb=yes", &[1; 12], "f80:10 s80");
        check("G729", "", &[1; 2], "s80");
        check("G729", "", &[1; 15], "refused");
        check("G729", "", &[], "refused");
        check("G729", "", &[1; 1_010], "refused");
        check("G726-32", "", &[1; 80], "f160:80");
        check("AAL2-G726-24", "", &[1; 60], "f160:60");
        check("G726-40", "", &[1; 99], "refused");
        check("G726-16", "", &[1; 40], "f160:40");
        check("GSM", "", &[0xd1; 66], "f160:33 f160:33");
        check("GSM", "", &[0xd1; 65], "refused");
        check("iLBC", "mode=20", &[1; 38], "f160:38");
        check("iLBC", "mode=30", &[1; 100], "f240:50 f240:50");
        check("iLBC", "", &[1; 50], "f240:50");
        check("G723", "", &[[0; 24].as_slice(), &[1; 20], &[2; 4], &[3; 1]].concat(), "f240:24 f240:20 s240 s240");
        check("G723", "", &[0; 23], "refused");
    }

    #[test]
    fn amr_in_whole_bytes() {
        let aligned = "octet-align=1";
        // 12.2 kbit/s: 244 bits in 31 bytes.
        check("AMR", aligned, &[&[0xf0, 0x3c][..], &[1; 31]].concat(), "f160:32");
        check("AMR", aligned, &[&[0xf0, 0xbc, 0x3c][..], &[1; 62]].concat(), "f160:32 f160:32");
        check("AMR", aligned, &[&[0xf0, 0xbc, 0x44][..], &[1; 36]].concat(), "f160:32 s160");
        // Damaged, nothing to transmit, no such mode, cut off.
        check("AMR", aligned, &[&[0xf0, 0x38][..], &[1; 31]].concat(), "s160");
        check("AMR", aligned, &[0xf0, 0x7c], "s160");
        check("AMR", aligned, &[0xf0, 0x64], "refused");
        check("AMR", aligned, &[&[0xf0, 0x3c][..], &[1; 30]].concat(), "refused");
        check("AMR", aligned, &[0xf0, 0xfc, 0xfc], "refused");
        check("AMR", aligned, &[[0xf0].as_slice(), &[0xfc; 60], &[0x7c]].concat(), "refused");
        check("AMR-WB", aligned, &[&[0xf0, 0x44][..], &[1; 60]].concat(), "f320:61");
        check("AMR-WB", aligned, &[&[0xf0, 0x4c][..], &[1; 5]].concat(), "s320");
        check("AMR-WB", aligned, &[0xf0, 0x74], "s320");
    }

    /// The bits of a frame are the same in either form.
    #[test]
    fn amr_bit_by_bit_is_the_same_as_in_whole_bytes() {
        let frames: Vec<String> =
            (0..2).map(|n| (0..244).map(|at| if (at * 7 + n) % 3 == 0 { '1' } else { '0' }).collect()).collect();
        // Two entries: 1 0111 1 and 0 0111 1.
        let text = format!("1111{}{}{}{}", "101111", "001111", frames[0], frames[1]);
        let bytes = |text: &str| -> Vec<u8> {
            let bits: Vec<u8> = text.bytes().map(|bit| bit - b'0').collect();
            bits.chunks(8).map(|bits| (0..8).fold(0, |byte, n| byte << 1 | bits.get(n).copied().unwrap_or(0))).collect()
        };
        let efficient = pieces(&codec("AMR", 8_000, "").unwrap(), &bytes(&text)).unwrap();
        let aligned = [vec![0xf0, 0xbc, 0x3c], bytes(&frames[0]), bytes(&frames[1])].concat();
        assert_eq!(efficient, pieces(&codec("AMR", 8_000, "octet-align=1").unwrap(), &aligned).unwrap());
        assert_eq!(efficient[0], Piece::Frame([vec![0x3c], bytes(&frames[0])].concat(), 160));
    }

    proptest! {
        #[test]
        fn any_payload_is_taken_apart_or_refused(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            for (name, rate, fmtp) in [
                ("G729", 8_000, ""), ("G723", 8_000, ""), ("G726-24", 8_000, ""), ("GSM", 8_000, ""), ("iLBC", 8_000, "mode=20"),
                ("AMR", 8_000, ""), ("AMR", 8_000, "octet-align=1"), ("AMR-WB", 16_000, ""), ("AMR-WB", 16_000, "octet-align=1"),
            ] {
                let codec = codec(name, rate, fmtp).unwrap();
                if let Some(pieces) = pieces(&codec, &payload) {
                    prop_assert!(pieces.iter().map(Piece::samples).sum::<usize>() <= rate as usize);
                }
            }
        }
    }
}

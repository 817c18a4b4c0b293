//! G.711 by its definition (ITU-T G.711, 1988): segments and steps computed, not looked up, so that a mistake in a table
//! elsewhere is not repeated here.

/// Which of the two laws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Law {
    /// PCMU, payload type 0.
    #[serde(rename = "PCMU")]
    Mu,
    /// PCMA, payload type 8.
    #[serde(rename = "PCMA")]
    A,
}

impl Law {
    pub(crate) fn payload_type(self) -> u8 {
        match self {
            Self::Mu => 0,
            Self::A => 8,
        }
    }

    pub(crate) fn encode(self, sample: i16) -> u8 {
        match self {
            Self::Mu => encode_mu(sample),
            Self::A => encode_a(sample),
        }
    }

    pub(crate) fn decode(self, code: u8) -> i16 {
        match self {
            Self::Mu => decode_mu(code),
            Self::A => decode_a(code),
        }
    }

    /// What a perfect recording of the sample gives back.
    pub(crate) fn carried(self, sample: i16) -> i16 {
        self.decode(self.encode(sample))
    }
}

/// µ-law works on 14 bits; the bias of 33 steps makes every segment begin at a power of two.
const MU_BIAS: i32 = 33;

fn encode_mu(sample: i16) -> u8 {
    let linear = i32::from(sample) >> 2;
    let (sign, magnitude) = if linear < 0 { (0x80, -linear - 1) } else { (0, linear) };
    let biased = (magnitude + MU_BIAS).min(0x1fff);
    let segment = (biased.ilog2() - 5).min(7);
    let step = (biased >> (segment + 1)) & 0x0f;
    // All bits are inverted on the wire.
    !(sign | (segment as u8) << 4 | step as u8)
}

fn decode_mu(code: u8) -> i16 {
    let code = !code;
    let (segment, step) = (i32::from(code >> 4 & 7), i32::from(code & 0x0f));
    let magnitude = (((2 * step + MU_BIAS) << segment) - MU_BIAS) * 4;
    (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

fn encode_a(sample: i16) -> u8 {
    let linear = i32::from(sample) >> 3;
    // A-law's sign bit is set for positive values; negative ones have no zero.
    let (sign, magnitude) = if linear < 0 { (0, -linear - 1) } else { (0x80, linear) };
    let code = if magnitude < 32 {
        magnitude >> 1
    } else {
        let segment = magnitude.ilog2() as i32 - 4;
        segment << 4 | (magnitude >> segment & 0x0f)
    };
    // Every other bit is inverted on the wire.
    (sign | code as u8) ^ 0x55
}

fn decode_a(code: u8) -> i16 {
    let code = code ^ 0x55;
    let (segment, step) = (i32::from(code >> 4 & 7), i32::from(code & 0x0f));
    let magnitude = if segment == 0 { 2 * step + 1 } else { (2 * step + 33) << (segment - 1) };
    (if code & 0x80 == 0 { -magnitude } else { magnitude } * 8) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_recommendations_figures() {
        let check = |law: Law, code: u8, linear: i16| assert_eq!(law.decode(code), linear, "{law:?} {code:#04x}");
        // The ends and the middle of both laws in 16-bit steps.
        check(Law::Mu, 0xff, 0);
        check(Law::Mu, 0x7f, 0);
        check(Law::Mu, 0x80, 32124);
        check(Law::Mu, 0x00, -32124);
        check(Law::Mu, 0xfe, 8);
        check(Law::A, 0xd5, 8);
        check(Law::A, 0x55, -8);
        check(Law::A, 0xaa, 32256);
        check(Law::A, 0x2a, -32256);
    }

    #[test]
    fn every_code_survives_and_no_sample_moves_far() {
        for law in [Law::Mu, Law::A] {
            for code in 0..=255_u8 {
                let linear = law.decode(code);
                assert_eq!(law.carried(linear), linear, "{law:?} {code:#04x}");
            }
            for sample in i16::MIN..=i16::MAX {
                let error = (i32::from(law.carried(sample)) - i32::from(sample)).abs();
                // A step is a sixteenth of the segment's start; half of it is the most that rounding may cost, and
                // beyond the greatest code the value is held.
                let allowed = (i32::from(sample).abs() / 16).max(16).max(i32::from(sample).abs() - 32_124);
                assert!(error <= allowed, "{law:?} {sample}: {error}");
            }
        }
    }
}

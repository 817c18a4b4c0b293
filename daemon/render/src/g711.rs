//! ITU-T G.711 as 16-bit linear PCM, by table.
//!
//! The recommendation defines 14-bit (µ-law) and 13-bit (A-law) values; they are scaled to 16 bits by shifting, as everyone does, so
//! full scale is 32,124 and 32,256.

/// A-law, all 256 codes.
pub(crate) static ALAW: [i16; 256] = table(true);

/// µ-law, all 256 codes.
pub(crate) static ULAW: [i16; 256] = table(false);

const fn table(alaw: bool) -> [i16; 256] {
    let mut values = [0; 256];
    let mut code = 0;
    while code < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "counts to 255")]
        let byte = code as u8;
        values[code] = if alaw { alaw_value(byte) } else { ulaw_value(byte) };
        code += 1;
    }
    values
}

/// All bits are inverted on the line. The sign, three bits of segment, four of step; 33 is the bias that makes the segments double.
const fn ulaw_value(code: u8) -> i16 {
    let code = !code;
    let segment = (code >> 4) & 7;
    let step = (code & 0x0f) as i16;
    let magnitude = (((step << 1) + 33) << segment) - 33;
    let value = magnitude << 2;
    if code & 0x80 != 0 { -value } else { value }
}

/// Every other bit is inverted on the line. A set sign bit means positive; the first segment is linear, the others double.
const fn alaw_value(code: u8) -> i16 {
    let code = code ^ 0x55;
    let segment = (code >> 4) & 7;
    let step = ((code & 0x0f) as i16) << 1;
    let magnitude = if segment == 0 { step + 1 } else { (step + 33) << (segment - 1) };
    let value = magnitude << 3;
    if code & 0x80 != 0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(table: &[i16; 256], code: u8, value: i16) {
        assert_eq!(table[usize::from(code)], value, "code {code:#04x}");
    }

    #[test]
    fn values_are_those_of_the_recommendation() {
        check(&ULAW, 0xff, 0);
        check(&ULAW, 0x7f, 0);
        check(&ULAW, 0xfe, 8);
        check(&ULAW, 0x7e, -8);
        check(&ULAW, 0x80, 32_124);
        check(&ULAW, 0x00, -32_124);
        check(&ULAW, 0xef, 132);
        check(&ULAW, 0x8f, 16_764);
        check(&ALAW, 0xd5, 8);
        check(&ALAW, 0x55, -8);
        check(&ALAW, 0xaa, 32_256);
        check(&ALAW, 0x2a, -32_256);
        check(&ALAW, 0xc5, 264);
        check(&ALAW, 0x85, 4_224);
    }

    #[test]
    fn each_half_is_the_other_negated_and_rises_with_the_code() {
        for code in 0..128 {
            assert_eq!(ULAW[code], -ULAW[code + 128]);
            assert_eq!(ALAW[code], -ALAW[code + 128]);
        }
        let mut alaw: Vec<i16> = (0..128).map(|code| ALAW[(code ^ 0x55) | 0x80]).collect();
        assert!(alaw.is_sorted(), "A-law");
        alaw.dedup();
        assert_eq!(alaw.len(), 128, "A-law has no value twice");
        assert!((128..256).rev().map(|code| ULAW[code]).is_sorted(), "µ-law");
    }
}

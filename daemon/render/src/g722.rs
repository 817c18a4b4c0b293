//! ITU-T G.722 at 64 kbit/s: the decoder.
//!
//! Two sub-bands, each an adaptive differential code: the lower with 6 bits for a sample, the upper with 2; a pair of quadrature
//! mirror filters puts them together to 16 kHz. The blocks and their names are those of the recommendation (section 4), in its
//! fixed-point arithmetic, and so is the state to begin with: a decoder that begins otherwise is out of tune with every sender for a
//! fifth of a second.

/// Logarithmic scale factor multipliers of the lower band (W_L), by the two-bit-shorter code's rank.
const LOW_STEPS: [i32; 8] = [-60, -30, 58, 172, 334, 538, 1198, 3042];

/// Rank of the lower band's four-bit code in [`LOW_STEPS`].
const LOW_RANKS: [usize; 16] = [0, 7, 6, 5, 4, 3, 2, 1, 7, 6, 5, 4, 3, 2, 1, 0];

/// Scale factor multipliers of the upper band (W_H) by its two-bit code.
const HIGH_STEPS: [i32; 4] = [798, -214, 798, -214];

/// The antilogarithm's table (ILB): 2 to the power of n / 32, times 2048.
const ANTILOG: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896, 2960, 3025,
    3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

/// Quantizer output of the upper band (QM2).
const HIGH_LEVELS: [i32; 4] = [-7408, -1616, 7408, 1616];

/// Quantizer output of the lower band by four bits (QM4), for the predictor: all that a sender at any of the three rates has sent.
const LOW_LEVELS_4: [i32; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];

/// Quantizer output of the lower band by six bits (QM6), for the listener.
const LOW_LEVELS_6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360, -8576,
    -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688, -1360, -1040,
    -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456,
    4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];

/// One half of the symmetric quadrature mirror filter.
const MIRROR: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

/// The smallest scale factors, with which both bands begin.
const LOW_SCALE_MIN: i32 = 32;
const HIGH_SCALE_MIN: i32 = 8;

/// A decoder with its memory.
pub(crate) struct Decoder {
    low: Band,
    high: Band,
    /// The mirror filter's input, oldest first: sums and differences of the bands in turn.
    line: [i32; 24],
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { low: Band::new(LOW_SCALE_MIN), high: Band::new(HIGH_SCALE_MIN), line: [0; 24] }
    }

    /// Decodes a payload; two samples for each of its bytes are added to `samples`.
    pub(crate) fn decode(&mut self, payload: &[u8], samples: &mut Vec<i16>) {
        samples.extend(payload.iter().flat_map(|code| self.pair(*code)));
    }

    fn pair(&mut self, code: u8) -> [i16; 2] {
        let (low_code, high_code) = (usize::from(code & 0x3f), usize::from(code >> 6));

        let low = (self.low.s + self.low.scaled(LOW_LEVELS_6[low_code])).clamp(-16_384, 16_383);
        let low_difference = self.low.scaled(LOW_LEVELS_4[low_code >> 2]);
        self.low.rescale(LOW_STEPS[LOW_RANKS[low_code >> 2]], 18_432, 8);
        self.low.adapt(low_difference);

        let high_difference = self.high.scaled(HIGH_LEVELS[high_code]);
        let high = (self.high.s + high_difference).clamp(-16_384, 16_383);
        self.high.rescale(HIGH_STEPS[high_code], 22_528, 10);
        self.high.adapt(high_difference);

        self.join(low, high)
    }

    /// The receive mirror filter.
    fn join(&mut self, low: i32, high: i32) -> [i16; 2] {
        self.line.copy_within(2.., 0);
        self.line[22] = low + high;
        self.line[23] = low - high;
        let (mut even, mut odd) = (0, 0);
        for (pair, (forward, backward)) in self.line.chunks_exact(2).zip(MIRROR.iter().zip(MIRROR.iter().rev())) {
            odd += pair[0] * forward;
            even += pair[1] * backward;
        }
        [even, odd].map(|sum| to_i16(sum >> 11))
    }
}

/// One sub-band's adaptive predictor and quantizer scale. Index 0 of each history is the newest.
struct Band {
    /// The prediction.
    s: i32,
    /// The part of it that comes from the six zeros.
    sz: i32,
    /// Reconstructed signal and partly reconstructed signal, for the two poles.
    r: [i32; 2],
    p: [i32; 2],
    a: [i32; 2],
    /// Quantized differences, for the six zeros.
    d: [i32; 6],
    b: [i32; 6],
    /// Logarithm of the scale factor, and the factor.
    nb: i32,
    det: i32,
}

impl Band {
    fn new(det: i32) -> Self {
        Self { s: 0, sz: 0, r: [0; 2], p: [0; 2], a: [0; 2], d: [0; 6], b: [0; 6], nb: 0, det }
    }

    /// A quantizer level at the current scale.
    fn scaled(&self, level: i32) -> i32 {
        (self.det * level) >> 15
    }

    /// LOGSCL and SCALEL, or LOGSCH and SCALEH.
    fn rescale(&mut self, step: i32, log_max: i32, shift: i32) {
        self.nb = (((self.nb * 127) >> 7) + step).clamp(0, log_max);
        let fraction = ANTILOG[usize::try_from((self.nb >> 6) & 31).unwrap_or(0)];
        let shift = shift - (self.nb >> 11);
        self.det = if shift < 0 { fraction << -shift } else { fraction >> shift } << 2;
    }

    /// Block 4: takes the newest difference in and predicts the next sample.
    fn adapt(&mut self, d: i32) {
        let r = limit(self.s + d);
        let p = limit(self.sz + d);
        self.adapt_poles(p);
        self.adapt_zeros(d);
        self.r = [r, self.r[0]];
        self.p = [p, self.p[0]];
        self.d.copy_within(..5, 1);
        self.d[0] = d;
        let poles = self.a.iter().zip(&self.r).map(|(a, r)| (a * limit(r + r)) >> 15).sum();
        let zeros = self.b.iter().zip(&self.d).map(|(b, d)| (b * limit(d + d)) >> 15).sum();
        self.sz = limit(zeros);
        self.s = limit(limit(poles) + self.sz);
    }

    /// UPPOL2 and UPPOL1.
    fn adapt_poles(&mut self, p: i32) {
        let [same_1, same_2] = self.p.map(|earlier| (earlier < 0) == (p < 0));
        let a1 = limit(self.a[0] << 2);
        let towards = if same_1 { -a1 } else { a1 }.min(32_767) >> 7;
        let a2 = (towards + if same_2 { 128 } else { -128 } + ((self.a[1] * 32_512) >> 15)).clamp(-12_288, 12_288);
        let bound = limit(15_360 - a2);
        let a1 = limit(if same_1 { 192 } else { -192 } + ((self.a[0] * 32_640) >> 15)).clamp(-bound, bound);
        self.a = [a1, a2];
    }

    /// UPZERO.
    fn adapt_zeros(&mut self, d: i32) {
        let step = if d == 0 { 0 } else { 128 };
        for (b, earlier) in self.b.iter_mut().zip(&self.d) {
            let step = if (*earlier < 0) == (d < 0) { step } else { -step };
            *b = limit(step + ((*b * 32_640) >> 15));
        }
    }
}

fn limit(value: i32) -> i32 {
    i32::from(to_i16(value))
}

fn to_i16(value: i32) -> i16 {
    i16::try_from(value).unwrap_or(if value < 0 { i16::MIN } else { i16::MAX })
}

//! `exp2`, `log2` and powers of f32 as branch-free polynomials, which compilers turn into vector instructions.
//!
//! Range searches and the rounding regulariser take non-integer powers of every element; the standard library's
//! `powf` does one at a time.

/// `log2(x)` for finite `x > 0` (subnormal numbers count as the smallest normal one); absolute error below 2e-7.
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    // Mantissa in [sqrt(1/2), sqrt(2)), so that the logarithm of numbers near 1 keeps its relative precision.
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = (shifted as i32) >> 23;
    let mantissa = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23));
    // log2(m) = 2 / ln 2 * atanh(s), s = (m - 1) / (m + 1), |s| < 0.172
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let tail = s2 * (0.961_796_7 + s2 * (0.577_078 + s2 * (0.412_198_57 + s2 * 0.320_598_9)));
    exponent as f32 + (2.885_39 * s + s * tail)
}

/// `2^x` for a number, 0 below the normal range and the largest power of two above it; relative error below 2e-7.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits of the sum: a conversion without its checks.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.max(-126.0).min(127.0) + ROUND;
    let t = x.max(-126.0).min(127.0) - (shifted - ROUND);
    // Taylor series of 2^t on [-1/2, 1/2] to degree 7.
    let p = 1.525_273_4e-5f32;
    let p = p * t + 1.540_353e-4;
    let p = p * t + 1.333_355_8e-3;
    let p = p * t + 9.618_129e-3;
    let p = p * t + 5.550_411e-2;
    let p = p * t + 2.402_265e-1;
    let p = p * t + 6.931_472e-1;
    let p = p * t + 1.0;
    let scaled = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < -126.0 { 0.0 } else { scaled }
}

/// `x^p` for `x >= 0` and `p > 0`, NaN of NaN; relative error below `1e-6 * (1 + |p log2 x|)`.
#[inline(always)]
pub fn power(x: f32, p: f32) -> f32 {
    // Of what is not above 0, the product is 0 for 0 and NaN for NaN.
    if x > 0.0 { exp2(p * log2(x)) } else { x * 0.0 }
}

/// Logistic function `1 / (1 + e^-x)`, NaN of NaN.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let y = 1.0 / (1.0 + exp2(-std::f32::consts::LOG2_E * x));
    if x.is_nan() { x } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_stays_nan() {
        assert!(power(f32::NAN, 2.4).is_nan() && sigmoid(f32::NAN).is_nan());
        assert_eq!(power(0.0, 2.4).to_bits(), 0);
    }

    #[test]
    fn powers_match_the_standard_library() {
        for i in 1..200_000 {
            let x = i as f32 * 1e-4;
            for p in [0.4f32, 2.4, 7.3, 19.0] {
                let (exact, ours) = (f64::from(x).powf(f64::from(p)), f64::from(power(x, p)));
                let bound = 1e-6 * (1.0 + (f64::from(p) * f64::from(x).log2()).abs());
                if exact > 1e-37 {
                    assert!((ours / exact - 1.0).abs() < bound, "{x}^{p}: {ours} != {exact}");
                }
            }
        }
        assert_eq!(power(0.0, 2.4), 0.0);
        assert_eq!(power(1.0, 2.4), 1.0);
    }

    #[test]
    fn sigmoid_matches_the_standard_library_and_saturates() {
        for i in -2000..2000 {
            let x = f64::from(i) * 0.01;
            let exact = 1.0 / (1.0 + (-x).exp());
            assert!((f64::from(sigmoid(x as f32)) / exact - 1.0).abs() < 3e-6, "{x}");
        }
        assert_eq!((sigmoid(200.0), sigmoid(-200.0)), (1.0, 1.0 / (1.0 + 2f32.powi(127))));
    }
}

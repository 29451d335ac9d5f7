//! Elementary functions on vectors, each within 2 units in the last place unless stated otherwise.

use super::Simd;

/// `e^x` for results that are normal floats: 0 below -87.7, infinity above 88.37, NaN for NaN.
///
/// Cody and Waite's reduction `x = n ln 2 + r` with `|r| <= ln 2 / 2`, then the Taylor series of `e^r` to the 7th
/// power, whose remainder is below 0.1 units in the last place.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // Within these bounds n is in -127..=128, whose powers of two come out as 0 and infinity. NaN passes both.
    let x = s.min(s.splat(88.7), s.max(s.splat(-88.0), x));
    let (n, r) = reduce(s, x);
    let p = s.fma(expm1_tail(s, r), s.mul(r, r), s.add(r, s.splat(1.0)));
    s.mul(p, s.pow2(n))
}

/// `n` and `r` of `x = n ln 2 + r`.
#[inline(always)]
fn reduce<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    // ln 2 in two parts; the first has 9 significant bits, so that its product with n is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    (n, s.fma(n, s.splat(-LN2_LOW), r))
}

/// `(e^r - 1 - r) / r^2` for `|r| <= ln 2 / 2`: 1/2! + r/3! + ... + r^5/7!.
#[inline(always)]
fn expm1_tail<S: Simd>(s: S, r: S::V) -> S::V {
    let p = s.fma(s.splat(1.0 / 5040.0), r, s.splat(1.0 / 720.0));
    let p = s.fma(p, r, s.splat(1.0 / 120.0));
    let p = s.fma(p, r, s.splat(1.0 / 24.0));
    let p = s.fma(p, r, s.splat(1.0 / 6.0));
    s.fma(p, r, s.splat(0.5))
}

/// `tanh x`, as `E / (E + 2)` with `E = e^(2|x|) - 1`, which keeps the relative error small around zero.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let two = s.splat(2.0);
    // tanh 10 rounds to 1; NaN passes.
    let magnitude = s.min(s.splat(10.0), s.abs(x));
    let (n, r) = reduce(s, s.mul(two, magnitude));
    let expm1_r = s.fma(expm1_tail(s, r), s.mul(r, r), r);
    let power = s.pow2(n);
    let e = s.fma(power, expm1_r, s.sub(power, s.splat(1.0)));
    s.copysign(s.div(e, s.add(e, two)), x)
}

/// The standard normal distribution function `(1 + erf(x / sqrt 2)) / 2`.
///
/// The lower tail is `e^(-a^2/2) t R(t)` with `a = |x|`, `t = 1 / (1 + 0.3 a)`, where `R` interpolates the exact function at the
/// Chebyshev nodes of `a` in 0..=14 to a relative error of 5e-9; what remains is the rounding of `a^2/2`, a relative
/// error of `a^2/2` units in the last place of the tail.
#[inline(always)]
pub fn normal_cdf<S: Simd>(s: S, x: S::V) -> S::V {
    const R: [f32; 10] = [
        0.119_687_69,
        0.119_551_76,
        0.110_405_18,
        0.077_589_064,
        0.098_480_74,
        -0.083_742_55,
        0.196_940_68,
        -0.232_038_48,
        0.114_040_27,
        -0.020_914_36,
    ];
    let one = s.splat(1.0);
    let a = s.min(s.splat(15.0), s.abs(x));
    let t = s.div(one, s.fma(a, s.splat(0.3), one));
    let mut r = s.splat(R[9]);
    let mut i = 9;
    while i > 0 {
        i -= 1;
        r = s.fma(r, t, s.splat(R[i]));
    }
    let gauss = exp(s, s.mul(s.mul(a, a), s.splat(-0.5)));
    let tail = s.mul(s.mul(gauss, t), r);
    s.select_negative(x, tail, s.sub(one, tail))
}

/// The sum of the lanes, as a balanced tree.
#[inline(always)]
pub fn sum<S: Simd>(s: S, v: S::V) -> f32 {
    let mut a = [0.0; super::LANES];
    s.store(v, &mut a);
    let mut width = super::LANES / 2;
    while width > 0 {
        for i in 0..width {
            a[i] += a[i + width];
        }
        width /= 2;
    }
    a[0]
}

/// The largest lane, as a balanced tree. If some lanes are NaN, the result is NaN or the largest of some other lanes.
#[inline(always)]
pub fn largest<S: Simd>(s: S, v: S::V) -> f32 {
    let mut a = [0.0; super::LANES];
    s.store(v, &mut a);
    let mut width = super::LANES / 2;
    while width > 0 {
        for i in 0..width {
            a[i] = if a[i] > a[i + width] { a[i] } else { a[i + width] };
        }
        width /= 2;
    }
    a[0]
}

//! Element-wise arithmetic and row selection.

use rayon::prelude::*;

use super::parallel;
use super::simd::map::{Map, Unary};
use super::simd::{LANES, Simd, dispatch, math};

/// `x[i] += y[i]`.
pub fn add_assign(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    let share = share(x.len(), x.len() / 8);
    x.par_chunks_mut(share).zip(y.par_chunks(share)).for_each(|(x, y)| {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    });
}

/// `x[i] *= s`.
pub fn scale(x: &mut [f32], s: f32) {
    let share = share(x.len(), x.len() / 8);
    x.par_chunks_mut(share).for_each(|x| {
        for x in x {
            *x *= s;
        }
    });
}

/// Clamps `x[i]` to `±limit`, a positive number. NaN stays NaN.
pub fn clamp(x: &mut [f32], limit: f32) {
    let share = share(x.len(), x.len() / 8);
    x.par_chunks_mut(share).for_each(|x| {
        for x in x {
            *x = x.clamp(-limit, limit);
        }
    });
}

/// `x[i] = cap * tanh(x[i] / cap)`: softcaps every number to `±cap`.
pub fn softcap(x: &mut [f32], cap: f32) {
    let share = share(x.len(), x.len() / 2);
    x.par_chunks_mut(share).for_each(|x| dispatch(Map { x, f: SoftCap(cap) }));
}

/// `out[i] = x[rows[i]]`, rows of `d` numbers.
pub fn gather_rows(x: &[f32], d: usize, rows: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), rows.len() * d);
    for (out, &row) in out.chunks_exact_mut(d.max(1)).zip(rows) {
        out.copy_from_slice(&x[row as usize * d..][..d]);
    }
}

/// `out[rows[i]] += factors[i] * x[i]`, rows of `d` numbers, one after the other.
pub fn scatter_add_rows(x: &[f32], d: usize, rows: &[u32], factors: &[f32], out: &mut [f32]) {
    assert!(x.len() == rows.len() * d && factors.len() == rows.len(), "x is not [rows, d]");
    for ((x, &row), &factor) in x.chunks_exact(d.max(1)).zip(rows).zip(factors) {
        for (out, x) in out[row as usize * d..][..d].iter_mut().zip(x) {
            *out += factor * x;
        }
    }
}

/// The mean of the rows of `x[rows, d]`, summed in double precision; zeros where there are no rows. `out` is `[d]`.
pub fn mean_rows(x: &[f32], d: usize, out: &mut [f32]) {
    assert_eq!(out.len(), d);
    let mut sums = vec![0.0f64; d];
    for row in x.chunks_exact(d.max(1)) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += f64::from(x);
        }
    }
    let rows = (x.len() / d.max(1)).max(1) as f64;
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = (sum / rows) as f32;
    }
}

/// Number of floats in each task, for work of about `nanoseconds` on `len` floats.
fn share(len: usize, nanoseconds: usize) -> usize {
    len.div_ceil(parallel::tasks(nanoseconds)).next_multiple_of(LANES).max(LANES)
}

/// The function of [`softcap`].
#[derive(Clone, Copy)]
pub(super) struct SoftCap(pub f32);

impl Unary for SoftCap {
    #[inline(always)]
    fn call<S: Simd>(self, s: S, x: S::V) -> S::V {
        let cap = s.splat(self.0);
        s.mul(cap, math::tanh(s, s.div(x, cap)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_same_bits, numbers};
    use super::*;

    #[test]
    fn addition_and_scale_are_plain() {
        for n in [0, 1, 17, 200_003] {
            let (a, b) = (numbers(1, n), numbers(2, n));
            let mut sum = a.clone();
            add_assign(&mut sum, &b);
            let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            assert_same_bits(&sum, &expected);
            let mut scaled = a.clone();
            scale(&mut scaled, 0.3);
            let expected: Vec<f32> = a.iter().map(|a| a * 0.3).collect();
            assert_same_bits(&scaled, &expected);
        }
    }

    #[test]
    fn softcap_agrees_with_double_precision() {
        let x: Vec<f32> = (-4001..=4001).map(|i| i as f32 * 0.1).collect();
        for cap in [30.0f32, 50.0] {
            let mut y = x.clone();
            softcap(&mut y, cap);
            for (&x, &y) in x.iter().zip(&y) {
                let expected = f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh();
                assert!((f64::from(y) - expected).abs() <= 3e-7 * expected.abs(), "{x} gives {y}, not {expected}");
            }
        }
        let mut extremes = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        softcap(&mut extremes, 30.0);
        assert_eq!(extremes[..2], [30.0, -30.0]);
        assert!(extremes[2].is_nan());
    }

    #[test]
    fn clamped_numbers_keep_their_sign() {
        let mut x = [-3.0, -0.5, 0.25, 7.0, f32::INFINITY, f32::NAN];
        clamp(&mut x, 0.5);
        assert_eq!(x[..5], [-0.5, -0.5, 0.25, 0.5, 0.5]);
        assert!(x[5].is_nan());
    }

    #[test]
    fn scattered_rows_are_added_where_they_belong() {
        let mut out = [1.0; 6];
        scatter_add_rows(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, &[2, 0, 2], &[1.0, 10.0, 0.5], &mut out);
        assert_eq!(out, [31.0, 41.0, 1.0, 1.0, 4.5, 6.0]);
    }

    #[test]
    fn rows_are_gathered_in_the_order_asked() {
        let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut out = vec![0.0; 9];
        gather_rows(&x, 3, &[2, 0, 2], &mut out);
        assert_eq!(out, [6.0, 7.0, 8.0, 0.0, 1.0, 2.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn the_mean_is_summed_in_double_precision() {
        let mut out = [0.0; 2];
        mean_rows(&[1e8, 1.0, 1.0, 2.0, -1e8, 6.0], 2, &mut out);
        assert_eq!(out, [1.0 / 3.0, 3.0]);
        mean_rows(&[], 2, &mut out);
        assert_eq!(out, [0.0, 0.0]);
    }
}

//! Normalisation of rows: RMS norm and layer norm.

use rayon::prelude::*;

use super::parallel;
use super::simd::map::{load_partial, store_partial};
use super::simd::{LANES, Level, Op, Simd, math};

/// `x / sqrt(mean(x²) + eps) * gain` (Zhang and Sennrich, 2019).
#[derive(Clone, Debug)]
pub struct Rms {
    /// `[d]`. For families that store the gain minus one (Gemma), the one is already added.
    pub gain: Vec<f32>,
    pub eps: f32,
}

/// `(x - mean(x)) / sqrt(var(x) + eps) * gain + bias` (Ba et al., 2016), with the biased variance.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[d]`
    pub gain: Option<Vec<f32>>,
    /// `[d]`
    pub bias: Option<Vec<f32>>,
    pub eps: f32,
}

/// A norm over the last axis.
#[derive(Clone, Debug)]
pub enum Norm {
    Rms(Rms),
    Layer(LayerNorm),
}

impl Norm {
    /// Normalises the rows of `x[rows, d]` into `out[rows, d]`.
    ///
    /// `d` is the length of a row: for a norm over each head, `[tokens, heads, d_head]` is rows of `d_head`.
    pub fn forward(&self, x: &[f32], d: usize, out: &mut [f32]) {
        self.forward_at(Level::best(), x, d, out);
    }

    /// As [`Norm::forward`], and also writes the denominators `scale[rows]` (`sqrt(mean(x²) + eps)` or `sqrt(var(x) + eps)`)
    /// and the rows before gain and bias, `normalized[rows, d]`. `out` is the same, bit for bit.
    pub fn forward_tapped(&self, x: &[f32], d: usize, out: &mut [f32], scale: &mut [f32], normalized: &mut [f32]) {
        let level = Level::best();
        self.check(x, d, out);
        assert_eq!(normalized.len(), x.len());
        assert_eq!(scale.len() * d, x.len());
        let rows = parallel::rows_of_a_task(x.len() / d, x.len() / 3);
        out.par_chunks_mut(rows * d)
            .zip(normalized.par_chunks_mut(rows * d))
            .zip(scale.par_chunks_mut(rows))
            .zip(x.par_chunks(rows * d))
            .for_each(|(((out, normalized), scale), x)| {
                level.run(Rows { norm: self, d, x, out, tap: Some((scale, normalized)) });
            });
    }

    fn forward_at(&self, level: Level, x: &[f32], d: usize, out: &mut [f32]) {
        self.check(x, d, out);
        let rows = parallel::rows_of_a_task(x.len() / d, x.len() / 3);
        let parts = out.par_chunks_mut(rows * d).zip(x.par_chunks(rows * d));
        parts.for_each(|(out, x)| level.run(Rows { norm: self, d, x, out, tap: None }));
    }

    fn check(&self, x: &[f32], d: usize, out: &[f32]) {
        assert!(d > 0 && x.len().is_multiple_of(d), "x is not rows of {d}");
        assert_eq!(out.len(), x.len());
        let (gain, bias) = self.gain_and_bias();
        assert!(gain.is_none_or(|g| g.len() == d) && bias.is_none_or(|b| b.len() == d), "a norm of another width");
    }

    /// Applies gain and bias to one normalised row, `[d]` to `[d]`: the output of [`Norm::forward`], bit for bit.
    pub fn apply_gain(&self, normalized: &[f32], out: &mut [f32]) {
        out.copy_from_slice(normalized);
        let (gain, bias) = self.gain_and_bias();
        if let Some(gain) = gain {
            out.iter_mut().zip(gain).for_each(|(x, g)| *x *= g);
        }
        if let Some(bias) = bias {
            out.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
    }

    /// The gain, and the bias that is added after it.
    pub fn gain_and_bias(&self) -> (Option<&[f32]>, Option<&[f32]>) {
        match self {
            Self::Rms(rms) => (Some(&rms.gain), None),
            Self::Layer(layer) => (layer.gain.as_deref(), layer.bias.as_deref()),
        }
    }
}

/// Some rows, one after another.
struct Rows<'a> {
    norm: &'a Norm,
    d: usize,
    x: &'a [f32],
    out: &'a mut [f32],
    /// The denominators and the normalised rows.
    tap: Option<(&'a mut [f32], &'a mut [f32])>,
}

impl Op for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (gain, bias) = self.norm.gain_and_bias();
        let rows = self.x.chunks_exact(self.d).zip(self.out.chunks_exact_mut(self.d));
        for (i, (x, out)) in rows.enumerate() {
            let n = self.d as f64;
            let (mean, variance, eps) = match self.norm {
                Norm::Rms(rms) => (0.0, f64::from(sum_of_squares(s, x, 0.0)) / n, rms.eps),
                Norm::Layer(layer) => {
                    let mean = (f64::from(sum(s, x)) / n) as f32;
                    (mean, f64::from(sum_of_squares(s, x, mean)) / n, layer.eps)
                }
            };
            let denominator = (variance + f64::from(eps)).sqrt();
            let inverse = (1.0 / denominator) as f32;
            affine(s, x, Affine { mean, inverse, gain, bias }, out);
            if let Some((scale, normalized)) = &mut self.tap {
                scale[i] = denominator as f32;
                let normalized = &mut normalized[i * self.d..][..self.d];
                affine(s, x, Affine { mean, inverse, gain: None, bias: None }, normalized);
            }
        }
    }
}

#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut acc = [s.splat(0.0); 2];
    for (i, chunk) in chunks.iter().enumerate() {
        acc[i % 2] = s.add(acc[i % 2], s.load(chunk));
    }
    math::sum(s, s.add(s.add(acc[0], acc[1]), load_partial(s, tail)))
}

/// `Σ (x - mean)²`.
#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, x: &[f32], mean: f32) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let m = s.splat(mean);
    let mut acc = [s.splat(0.0); 2];
    for (i, chunk) in chunks.iter().enumerate() {
        let x = s.sub(s.load(chunk), m);
        acc[i % 2] = s.fma(x, x, acc[i % 2]);
    }
    let mut rest = [mean; LANES];
    rest[..tail.len()].copy_from_slice(tail);
    let x = s.sub(s.load(&rest), m);
    math::sum(s, s.fma(x, x, s.add(acc[0], acc[1])))
}

/// The function that is applied to every number of a row: `(x - mean) * inverse * gain + bias`.
#[derive(Clone, Copy)]
struct Affine<'a> {
    mean: f32,
    inverse: f32,
    gain: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
}

#[inline(always)]
fn affine<S: Simd>(s: S, x: &[f32], f: Affine, out: &mut [f32]) {
    let whole = x.len() / LANES * LANES;
    let mut at = 0;
    while at < x.len() {
        let part = at..x.len().min(at + LANES);
        let mut y = s.mul(s.sub(load(s, &x[part.clone()]), s.splat(f.mean)), s.splat(f.inverse));
        if let Some(gain) = f.gain {
            y = s.mul(y, load(s, &gain[part.clone()]));
        }
        if let Some(bias) = f.bias {
            y = s.add(y, load(s, &bias[part.clone()]));
        }
        match (&mut out[part]).try_into() {
            Ok(out) if at < whole => s.store(y, out),
            Ok(_) | Err(_) => store_partial(s, y, &mut out[at..]),
        }
        at += LANES;
    }
}

/// Loads sixteen floats; if there are fewer, the other lanes are zero.
#[inline(always)]
fn load<S: Simd>(s: S, x: &[f32]) -> S::V {
    match x.try_into() {
        Ok(x) => s.load(x),
        Err(_) => load_partial(s, x),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_same_bits, numbers};
    use super::*;

    fn norms(d: usize) -> Vec<Norm> {
        let (gain, bias) = (numbers(1, d), numbers(2, d));
        vec![
            Norm::Rms(Rms { gain: gain.clone(), eps: 1e-5 }),
            Norm::Layer(LayerNorm { gain: Some(gain.clone()), bias: Some(bias), eps: 1e-5 }),
            Norm::Layer(LayerNorm { gain: Some(gain), bias: None, eps: 1e-12 }),
            Norm::Layer(LayerNorm { gain: None, bias: None, eps: 1e-5 }),
        ]
    }

    /// Output, denominator and normalised row in double precision.
    fn reference(norm: &Norm, x: &[f32]) -> (Vec<f64>, f64, Vec<f64>) {
        let n = x.len() as f64;
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let (mean, eps) = match norm {
            Norm::Rms(rms) => (0.0, rms.eps),
            Norm::Layer(layer) => (x.iter().sum::<f64>() / n, layer.eps),
        };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let scale = (variance + f64::from(eps)).sqrt();
        let normalized: Vec<f64> = x.iter().map(|x| (x - mean) / scale).collect();
        let (gain, bias) = norm.gain_and_bias();
        let out = normalized
            .iter()
            .enumerate()
            .map(|(i, x)| x * gain.map_or(1.0, |g| f64::from(g[i])) + bias.map_or(0.0, |b| f64::from(b[i])));
        (out.collect(), scale, normalized)
    }

    #[test]
    fn norms_agree_with_double_precision() {
        for level in Level::available() {
            for d in [1, 7, 16, 48, 64, 100, 576, 1030] {
                for norm in norms(d) {
                    for (rows, offset) in [(1, 0.0), (3, 3.0), (65, 0.5)] {
                        let x: Vec<f32> = numbers(3, rows * d).iter().map(|x| x * 4.0 + offset).collect();
                        let mut out = vec![f32::NAN; rows * d];
                        norm.forward_at(level, &x, d, &mut out);
                        for (x, out) in x.chunks(d).zip(out.chunks(d)) {
                            // A row of one number has nothing left after its mean; the residue is of the order of eps.
                            let (expected, _, _) = reference(&norm, x);
                            if d > 1 {
                                assert_close(out, &expected, 3e-6);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn taps_change_nothing_and_agree_with_double_precision() {
        for d in [7, 64, 576] {
            for norm in norms(d) {
                let rows = 77;
                let x: Vec<f32> = numbers(4, rows * d).iter().map(|x| x * 4.0 + 0.5).collect();
                let (mut plain, mut out) = (vec![f32::NAN; rows * d], vec![f32::NAN; rows * d]);
                let (mut scale, mut normalized) = (vec![f32::NAN; rows], vec![f32::NAN; rows * d]);
                norm.forward(&x, d, &mut plain);
                norm.forward_tapped(&x, d, &mut out, &mut scale, &mut normalized);
                assert_same_bits(&out, &plain);
                for i in 0..rows {
                    let (_, expected_scale, expected) = reference(&norm, &x[i * d..][..d]);
                    assert_close(&scale[i..=i], &[expected_scale], 1e-6);
                    assert_close(&normalized[i * d..][..d], &expected, 3e-6);
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch() {
        for level in Level::available() {
            for d in [7, 64, 576] {
                for norm in norms(d) {
                    let x = numbers(5, 300 * d);
                    let mut all = vec![f32::NAN; 300 * d];
                    norm.forward_at(level, &x, d, &mut all);
                    for row in [0, 1, 150, 299] {
                        let mut alone = vec![f32::NAN; d];
                        norm.forward_at(level, &x[row * d..][..d], d, &mut alone);
                        assert_same_bits(&alone, &all[row * d..][..d]);
                    }
                }
            }
        }
    }
}

//! Activation functions, in place.

use rayon::prelude::*;

use super::parallel;
use super::simd::map::{Binary, Map, Unary, Zip};
use super::simd::{LANES, Level, Simd, math};

/// An activation function, as PyTorch (or transformers, where PyTorch has none) defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`
    Silu,
    /// `x Φ(x)`, with the error function
    Gelu,
    /// `x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))) / 2`: `gelu_new` and `gelu_pytorch_tanh`
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0)²`
    ReluSquared,
    /// `x / (1 + e^(-1.702 x))`
    QuickGelu,
}

impl Activation {
    /// `x[i] = act(x[i])`.
    pub fn apply(&self, x: &mut [f32]) {
        self.apply_at(Level::best(), x);
    }

    /// `gate[i] = act(gate[i]) * up[i]`.
    pub fn gate(&self, gate: &mut [f32], up: &[f32]) {
        self.gate_at(Level::best(), gate, up);
    }

    fn apply_at(self, level: Level, x: &mut [f32]) {
        match self {
            Self::Silu => each(level, x, Silu),
            Self::Gelu => each(level, x, Gelu),
            Self::GeluTanh => each(level, x, GeluTanh),
            Self::Relu => each(level, x, Relu),
            Self::ReluSquared => each(level, x, ReluSquared),
            Self::QuickGelu => each(level, x, QuickGelu),
        }
    }

    fn gate_at(self, level: Level, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        match self {
            Self::Silu => each_gated(level, gate, up, Silu),
            Self::Gelu => each_gated(level, gate, up, Gelu),
            Self::GeluTanh => each_gated(level, gate, up, GeluTanh),
            Self::Relu => each_gated(level, gate, up, Relu),
            Self::ReluSquared => each_gated(level, gate, up, ReluSquared),
            Self::QuickGelu => each_gated(level, gate, up, QuickGelu),
        }
    }
}

/// Number of floats in each task: a multiple of the SIMD lanes, so that only the last task has a partial vector.
fn share(len: usize) -> usize {
    // About half a nanosecond for each element.
    len.div_ceil(parallel::tasks(len / 2)).next_multiple_of(LANES).max(LANES)
}

fn each<F: Unary + Sync>(level: Level, x: &mut [f32], f: F) {
    let share = share(x.len());
    if share >= x.len() {
        level.run(Map { x, f });
    } else {
        x.par_chunks_mut(share).for_each(|x| level.run(Map { x, f }));
    }
}

fn each_gated<F: Unary + Sync>(level: Level, gate: &mut [f32], up: &[f32], f: F) {
    let share = share(gate.len());
    if share >= gate.len() {
        level.run(Zip { x: gate, y: up, f: Gated(f) });
    } else {
        let pairs = gate.par_chunks_mut(share).zip(up.par_chunks(share));
        pairs.for_each(|(x, y)| level.run(Zip { x, y, f: Gated(f) }));
    }
}

#[derive(Clone, Copy)]
struct Gated<F>(F);

impl<F: Unary> Binary for Gated<F> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V {
        s.mul(self.0.call(s, x), y)
    }
}

#[derive(Clone, Copy)]
struct Silu;

impl Unary for Silu {
    #[inline(always)]
    fn call<S: Simd>(self, s: S, x: S::V) -> S::V {
        let one = s.splat(1.0);
        s.div(x, s.add(one, math::exp(s, s.sub(s.splat(0.0), x))))
    }
}

#[derive(Clone, Copy)]
struct QuickGelu;

impl Unary for QuickGelu {
    #[inline(always)]
    fn call<S: Simd>(self, s: S, x: S::V) -> S::V {
        let one = s.splat(1.0);
        s.div(x, s.add(one, math::exp(s, s.mul(x, s.splat(-1.702)))))
    }
}

#[derive(Clone, Copy)]
struct Gelu;

impl Unary for Gelu {
    #[inline(always)]
    fn call<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.mul(x, math::normal_cdf(s, x))
    }
}

#[derive(Clone, Copy)]
struct GeluTanh;

impl Unary for GeluTanh {
    #[inline(always)]
    fn call<S: Simd>(self, s: S, x: S::V) -> S::V {
        // (1 + tanh u) / 2 = 1 / (1 + e^-2u), which does not cancel for negative u.
        const MINUS_TWO_ROOT: f32 = -1.595_769;
        let cubed = s.mul(s.mul(x, x), x);
        let u = s.fma(cubed, s.splat(0.044_715), x);
        let one = s.splat(1.0);
        s.div(x, s.add(one, math::exp(s, s.mul(u, s.splat(MINUS_TWO_ROOT)))))
    }
}

#[derive(Clone, Copy)]
struct Relu;

impl Unary for Relu {
    #[inline(always)]
    fn call<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.max(s.splat(0.0), x)
    }
}

#[derive(Clone, Copy)]
struct ReluSquared;

impl Unary for ReluSquared {
    #[inline(always)]
    fn call<S: Simd>(self, s: S, x: S::V) -> S::V {
        let y = s.max(s.splat(0.0), x);
        s.mul(y, y)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_same_bits, numbers};
    use super::*;

    const ALL: [Activation; 6] = [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::ReluSquared,
        Activation::QuickGelu,
    ];

    /// erf by its Maclaurin series, erfc by its continued fraction, both in double precision.
    fn normal_cdf(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        let tail = if z < 2.5 {
            let (mut term, mut sum) = (z, z);
            for n in 1..80 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            0.5 - sum / std::f64::consts::PI.sqrt()
        } else {
            let fraction = (1..60).rev().fold(z, |f, n| z + f64::from(n) / 2.0 / f);
            0.5 * (-z * z).exp() / (std::f64::consts::PI.sqrt() * fraction)
        };
        if x < 0.0 { tail } else { 1.0 - tail }
    }

    fn reference(act: Activation, x: f64) -> f64 {
        match act {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Gelu => x * normal_cdf(x),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
            }
            Activation::Relu => x.max(0.0),
            Activation::ReluSquared => x.max(0.0).powi(2),
            Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        }
    }

    #[test]
    fn functions_agree_with_double_precision() {
        // A grid of -30..30 and small magnitudes; an odd length, so that the ragged end is seen too.
        let mut grid: Vec<f32> = (-30_000..=30_000).map(|i| i as f32 * 1e-3).collect();
        grid.extend(
            (0..400)
                .flat_map(|i| [10f32.powf(-f32::from(i as u16) / 10.0), -(10f32.powf(-f32::from(i as u16) / 10.0))]),
        );
        for level in Level::available() {
            for act in ALL {
                let mut y = grid.clone();
                act.apply_at(level, &mut y);
                for (&x, &y) in grid.iter().zip(&y) {
                    let expected = reference(act, f64::from(x));
                    let error = (f64::from(y) - expected).abs();
                    // Relative, except in the vanishing tail, where 5e-2 |x| is the measure.
                    let bound = 4e-7 * expected.abs().max(5e-2 * f64::from(x.abs())).max(1e-37);
                    assert!(error <= bound, "{act:?} {level:?}: {x:e} gives {y:e}, not {expected:e}");
                }
            }
        }
    }

    #[test]
    fn gating_multiplies_the_activation() {
        for level in Level::available() {
            for act in ALL {
                for n in [1, 15, 16, 33, 100_001] {
                    let (gate, up) = (numbers(1, n), numbers(2, n));
                    let mut expected = gate.clone();
                    act.apply_at(level, &mut expected);
                    expected.iter_mut().zip(&up).for_each(|(x, y)| *x *= y);
                    let mut actual = gate;
                    act.gate_at(level, &mut actual, &up);
                    assert_same_bits(&actual, &expected);
                }
            }
        }
    }

    #[test]
    fn an_element_has_the_same_bits_anywhere() {
        let x = numbers(3, 50_003);
        for act in ALL {
            let mut whole = x.clone();
            act.apply(&mut whole);
            for range in [0..1, 17..40, 49_990..50_003] {
                let mut part = x[range.clone()].to_vec();
                act.apply(&mut part);
                assert_same_bits(&part, &whole[range]);
            }
        }
    }

    #[test]
    fn nan_and_infinities_pass_as_in_torch() {
        for level in Level::available() {
            for act in ALL {
                let mut x = [f32::NAN, f32::INFINITY, 1e30];
                act.apply_at(level, &mut x);
                assert!(x[0].is_nan(), "{act:?} hides a NaN");
                assert_eq!(x[1], f32::INFINITY, "{act:?}");
            }
        }
    }
}

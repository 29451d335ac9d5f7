//! Vectors of sixteen `f32` lanes, implemented for each instruction set, and the choice of one at run time.
//!
//! A [`Simd`] value is a proof that its instructions exist on this machine: it is made only by [`Level`]'s dispatch,
//! after detection. That is why its methods are safe. A kernel is an [`Op`], written once over any `Simd`, and
//! compiled once per instruction set; it must be `#[inline(always)]` all the way down and use no closures, which would
//! be compiled without the instruction set and called instead of inlined.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod map;
pub mod math;
mod portable;
pub mod tile;

use std::sync::OnceLock;

use tile::Tile;

/// Lanes of a vector, the same for every instruction set.
pub const LANES: usize = 16;

/// Sixteen floats in memory, aligned to a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [f32; LANES]);

impl Line {
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// The floats of `lines`, one after another.
pub fn as_floats_mut(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: `Line` is `repr(C)` around `[f32; 16]` and its size is 64 bytes, so there is no padding between lines.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
}

/// Arithmetic on vectors of sixteen lanes. All operations are IEEE single precision, rounded to nearest even.
pub trait Simd: Copy {
    type V: Copy;
    /// Number of vectors that a tile may accumulate in registers.
    const ACCUMULATORS: usize;
    /// Rows of a full tile.
    const TILE_ROWS: usize;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, from: &[f32; LANES]) -> Self::V;
    fn store(self, v: Self::V, to: &mut [f32; LANES]);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the instruction set can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger one; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// The magnitude of `a` with the sign of `sign`.
    fn copysign(self, a: Self::V, sign: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `2^n` for lanes that hold integers in `-126..=127`; 0 for -127 and infinity for 128.
    fn pow2(self, n: Self::V) -> Self::V;
    /// `a` where the sign bit of `x` is set, else `b`.
    fn select_negative(self, x: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Asks for the cache line at `p`; any address will do.
    fn prefetch(self, p: *const f32);
    /// Runs one tile of a matrix product, compiled for this instruction set.
    ///
    /// # Safety
    /// As for [`tile::run`].
    unsafe fn tile(self, rows: usize, panels: usize, tile: &Tile);
}

/// A kernel: code generic over the instruction set, to be run by [`Level::run`].
pub trait Op {
    type Output;
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// An instruction set that this machine is known to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Level {
    /// Every instruction set of this machine that the kernels know, best first.
    pub fn available() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::Avx512::detect().is_some() {
                levels.push(Self(Set::Avx512));
            }
            if avx2::Avx2::detect().is_some() {
                levels.push(Self(Set::Avx2));
            }
        }
        levels.push(Self(Set::Portable));
        levels
    }

    /// The best one, decided at the first call.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// Whether multiply-adds are fused. All such instruction sets give the same numbers.
    #[cfg(test)]
    pub fn is_fused(self) -> bool {
        self.0 != Set::Portable || portable::FUSED
    }

    /// Runs `op` compiled for this instruction set.
    pub fn run<O: Op>(self, op: O) -> O::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Level` of this set is made only after detection.
            Set::Avx512 => unsafe { avx512::run(op) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Level` of this set is made only after detection.
            Set::Avx2 => unsafe { avx2::run(op) },
            Set::Portable => op.run(portable::Portable),
        }
    }
}

/// Runs `op` compiled for the best instruction set.
pub fn dispatch<O: Op>(op: O) -> O::Output {
    Level::best().run(op)
}

#[cfg(test)]
mod tests {
    use super::map::{Map, Unary};
    use super::*;

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Tanh,
    }

    impl Unary for Function {
        #[inline(always)]
        fn call<S: Simd>(self, s: S, x: S::V) -> S::V {
            match self {
                Self::Exp => math::exp(s, x),
                Self::Tanh => math::tanh(s, x),
            }
        }
    }

    /// The largest error over the grid, in units in the last place of the exact value.
    fn worst(level: Level, f: Function, exact: fn(f64) -> f64, grid: &[f32]) -> f64 {
        let mut y = grid.to_vec();
        level.run(Map { x: &mut y, f });
        let errors = grid.iter().zip(&y).map(|(&x, &y)| {
            let exact = exact(f64::from(x));
            let ulp = (f64::from((exact as f32).abs().next_up()) - f64::from((exact as f32).abs())).max(1e-45);
            (f64::from(y) - exact).abs() / ulp
        });
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn exp_and_tanh_are_within_two_units_in_the_last_place() {
        let exp_grid: Vec<f32> = (0..1_756_001).map(|i| -87.3 + i as f32 * 1e-4).collect();
        let tanh_grid: Vec<f32> = (0..400_001).flat_map(|i| [i as f32 * 3e-5, -(i as f32) * 1e-6]).collect();
        for level in Level::available() {
            let exp = worst(level, Function::Exp, f64::exp, &exp_grid);
            assert!(exp <= 1.5, "exp on {level:?}: {exp} units");
            let tanh = worst(level, Function::Tanh, f64::tanh, &tanh_grid);
            assert!(tanh <= 2.5, "tanh on {level:?}: {tanh} units");
        }
    }

    #[test]
    fn exp_at_its_ends() {
        for level in Level::available() {
            let mut x = [f32::NEG_INFINITY, -200.0, -87.7, 0.0, 88.4, 1e30, f32::INFINITY, f32::NAN];
            level.run(Map { x: &mut x, f: Function::Exp });
            assert_eq!(x[..7], [0.0, 0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY]);
            assert!(x[7].is_nan());
        }
    }
}

//! Plain Rust that the compiler vectorises for the target's baseline (SSE2 on x86-64, NEON on aarch64).

use super::tile::{self, Tile};
use super::{LANES, Simd};

/// Needs nothing of the machine.
#[derive(Clone, Copy)]
pub struct Portable;

/// Whether the compilation target itself has a fused multiply-add; calling the C library for it would be far too slow.
pub const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Applies an expression to every lane.
macro_rules! lanes {
    (|$i:ident| $e:expr) => {{
        let mut out = [0.0f32; LANES];
        let mut $i = 0;
        while $i < LANES {
            out[$i] = $e;
            $i += 1;
        }
        out
    }};
}

impl Simd for Portable {
    type V = [f32; LANES];
    const ACCUMULATORS: usize = if FUSED { 6 } else { 3 };
    const TILE_ROWS: usize = if FUSED { 6 } else { 3 };

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        *from
    }
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        *to = v;
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        if FUSED { lanes!(|i| a[i].mul_add(b[i], c[i])) } else { lanes!(|i| a[i] * b[i] + c[i]) }
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        lanes!(|i| a[i].abs())
    }
    #[inline(always)]
    fn copysign(self, a: Self::V, sign: Self::V) -> Self::V {
        lanes!(|i| a[i].copysign(sign[i]))
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Adding and taking away 1.5 * 2^23 leaves the nearest integer for |a| < 2^22, which is all that the callers need.
        const MAGIC: f32 = 12_582_912.0;
        lanes!(|i| (a[i] + MAGIC) - MAGIC)
    }
    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        lanes!(|i| f32::from_bits(((n[i] as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn select_negative(self, x: Self::V, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if x[i].is_sign_negative() { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn prefetch(self, _: *const f32) {}
    #[inline(always)]
    unsafe fn tile(self, rows: usize, panels: usize, tile: &Tile) {
        // SAFETY: the caller's promise, passed on.
        unsafe { tile::run(self, rows, panels, tile) }
    }
}

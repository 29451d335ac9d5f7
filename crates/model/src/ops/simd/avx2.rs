//! AVX2 with FMA: a vector is two 256-bit registers.

use std::arch::x86_64::*;

use super::tile::{self, Tile};
use super::{LANES, Op, Simd};

/// Proof that AVX2 and FMA exist on this machine.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

/// # Safety
/// AVX2 and FMA must exist on this machine.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn run<O: Op>(op: O) -> O::Output {
    op.run(Avx2(()))
}

#[target_feature(enable = "avx2,fma")]
unsafe fn run_tile(s: Avx2, rows: usize, panels: usize, tile: &Tile) {
    // SAFETY: the caller's promise on `tile`, passed on.
    unsafe { tile::run(s, rows, panels, tile) }
}

/// Applies a 256-bit intrinsic to both halves.
macro_rules! halves {
    ($intrinsic:ident, $($v:expr),+) => {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { [$intrinsic($($v[0]),+), $intrinsic($($v[1]),+)] }
    };
}

impl Simd for Avx2 {
    type V = [__m256; 2];
    // 12 of the 16 registers; the rest hold a row of the panel and the broadcast.
    const ACCUMULATORS: usize = 6;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        let v = unsafe { _mm256_set1_ps(x) };
        [v, v]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        let p = from.as_ptr();
        // SAFETY: sixteen floats are readable at `p`, and `self` proves that the instructions exist.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        let p = to.as_mut_ptr();
        // SAFETY: sixteen floats are writable at `p`, and `self` proves that the instructions exist.
        unsafe {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        halves!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        let sign = self.splat(-0.0);
        halves!(_mm256_andnot_ps, sign, a)
    }
    #[inline(always)]
    fn copysign(self, a: Self::V, sign: Self::V) -> Self::V {
        let mask = self.splat(-0.0);
        let magnitude = self.abs(a);
        let sign = halves!(_mm256_and_ps, mask, sign);
        halves!(_mm256_or_ps, magnitude, sign)
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: `self` proves that the instructions exist.
        unsafe { [_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])] }
    }
    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        // 2^n is the float whose exponent field holds n + 127.
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias);
            let high = _mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias);
            [_mm256_castsi256_ps(_mm256_slli_epi32::<23>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<23>(high))]
        }
    }
    #[inline(always)]
    fn select_negative(self, x: Self::V, a: Self::V, b: Self::V) -> Self::V {
        halves!(_mm256_blendv_ps, b, a, x)
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a prefetch of any address has no effect but on caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn tile(self, rows: usize, panels: usize, tile: &Tile) {
        // SAFETY: `self` proves that the instructions exist; the caller's promise on `tile` is passed on.
        unsafe { run_tile(self, rows, panels, tile) }
    }
}

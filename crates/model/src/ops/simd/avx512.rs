//! AVX-512: a vector is one 512-bit register. Only the foundation subset is used.

use std::arch::x86_64::*;

use super::tile::{self, Tile};
use super::{LANES, Op, Simd};

/// Proof that AVX-512F exists on this machine.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    pub fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

/// # Safety
/// AVX-512F must exist on this machine.
#[target_feature(enable = "avx512f")]
pub unsafe fn run<O: Op>(op: O) -> O::Output {
    op.run(Avx512(()))
}

#[target_feature(enable = "avx512f")]
unsafe fn run_tile(s: Avx512, rows: usize, panels: usize, tile: &Tile) {
    // SAFETY: the caller's promise on `tile`, passed on.
    unsafe { tile::run(s, rows, panels, tile) }
}

impl Simd for Avx512 {
    type V = __m512;
    // 24 of the 32 registers; the rest hold rows of up to four panels and the broadcast.
    const ACCUMULATORS: usize = 24;
    const TILE_ROWS: usize = 12;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        // SAFETY: sixteen floats are readable, and `self` proves that the instructions exist.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        // SAFETY: sixteen floats are writable, and `self` proves that the instructions exist.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    fn copysign(self, a: Self::V, sign: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let mask = _mm512_set1_epi32(i32::MIN);
            let sign = _mm512_and_si512(_mm512_castps_si512(sign), mask);
            let magnitude = _mm512_andnot_si512(mask, _mm512_castps_si512(a));
            _mm512_castsi512_ps(_mm512_or_si512(magnitude, sign))
        }
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Scale 2^0, to nearest even, exceptions suppressed.
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn pow2(self, n: Self::V) -> Self::V {
        // 2^n is the float whose exponent field holds n + 127.
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
    }
    #[inline(always)]
    fn select_negative(self, x: Self::V, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let negative = _mm512_cmplt_epi32_mask(_mm512_castps_si512(x), _mm512_setzero_si512());
            _mm512_mask_blend_ps(negative, b, a)
        }
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

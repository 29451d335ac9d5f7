//! Vectors of sixteen `f32` lanes, and the choice of instruction set at run time.
//!
//! A [`Simd`] value is a proof that its instructions exist on this machine: [`Level`] makes one only after detection,
//! which is why its methods are safe. A kernel is an [`Op`], written once; it is compiled for each instruction set, if everything it
//! calls is `#[inline(always)]`.

use std::sync::OnceLock;

/// Simd of a vector.
pub(super) const LANES: usize = 16;

/// The arithmetic that the kernels need.
pub(super) trait Simd: Copy {
    type V: Copy;
    /// Rows and queries of the largest tile whose sums fit the registers.
    const TILE: (usize, usize);

    fn zero(self) -> Self::V;
    fn load(self, from: &[f32; LANES]) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the set can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn store(self, v: Self::V) -> [f32; LANES];
}

/// A kernel.
pub(super) trait Op {
    fn run<S: Simd>(self, simd: S);
}

/// An instruction set that this machine is known to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Level {
    /// Every set of this machine, best first.
    pub(super) fn available() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                levels.push(Self(Set::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self(Set::Avx2));
            }
        }
        levels.push(Self(Set::Portable));
        levels
    }

    /// The best one, decided at the first call.
    pub(super) fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    pub(super) fn run<O: Op>(self, op: O) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level of this set is made only after detection.
            Set::Avx512 => unsafe { x86::avx512(op) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level of this set is made only after detection.
            Set::Avx2 => unsafe { x86::avx2(op) },
            Set::Portable => op.run(Portable),
        }
    }
}

/// Plain Rust, vectorised for the target's baseline.
#[derive(Clone, Copy)]
struct Portable;

impl Simd for Portable {
    type V = [f32; LANES];
    const TILE: (usize, usize) = (1, 1);

    #[inline(always)]
    fn zero(self) -> Self::V {
        [0.0; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        *from
    }
    #[inline(always)]
    fn sub(self, mut a: Self::V, b: Self::V) -> Self::V {
        a.iter_mut().zip(b).for_each(|(a, b)| *a -= b);
        a
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, mut c: Self::V) -> Self::V {
        // the C library's fused multiply-add would be far too slow
        const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
        for ((a, b), c) in a.iter().zip(&b).zip(&mut c) {
            *c = if FUSED { a.mul_add(*b, *c) } else { a * b + *c };
        }
        c
    }
    #[inline(always)]
    fn store(self, v: Self::V) -> [f32; LANES] {
        v
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, Op, Simd};

    /// Proof that AVX-512F exists on this machine.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512(());

    /// Proof that AVX2 and FMA exist on this machine.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(());

    /// # Safety
    /// AVX-512F must exist on this machine.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512<O: Op>(op: O) {
        op.run(Avx512(()));
    }

    /// # Safety
    /// AVX2 and FMA must exist on this machine.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2<O: Op>(op: O) {
        op.run(Avx2(()));
    }

    impl Simd for Avx512 {
        type V = __m512;
        // 24 sums of the 32 registers
        const TILE: (usize, usize) = (4, 6);

        #[inline(always)]
        fn zero(self) -> Self::V {
            // SAFETY: `self` proves that the instructions exist.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::V {
            // SAFETY: sixteen floats are readable, and `self` proves that the instructions exist.
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }
        #[inline(always)]
        fn sub(self, a: Self::V, b: Self::V) -> Self::V {
            // SAFETY: `self` proves that the instructions exist.
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: `self` proves that the instructions exist.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn store(self, v: Self::V) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            // SAFETY: sixteen floats are writable, and `self` proves that the instructions exist.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) };
            out
        }
    }

    impl Simd for Avx2 {
        type V = [__m256; 2];
        // 12 of the 16 registers
        const TILE: (usize, usize) = (2, 3);

        #[inline(always)]
        fn zero(self) -> Self::V {
            // SAFETY: `self` proves that the instructions exist.
            unsafe { [_mm256_setzero_ps(), _mm256_setzero_ps()] }
        }
        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::V {
            let p = from.as_ptr();
            // SAFETY: sixteen floats are readable at `p`, and `self` proves that the instructions exist.
            unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
        }
        #[inline(always)]
        fn sub(self, a: Self::V, b: Self::V) -> Self::V {
            // SAFETY: `self` proves that the instructions exist.
            unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: `self` proves that the instructions exist.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }
        #[inline(always)]
        fn store(self, v: Self::V) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            let p = out.as_mut_ptr();
            // SAFETY: sixteen floats are writable at `p`, and `self` proves that the instructions exist.
            unsafe {
                _mm256_storeu_ps(p, v[0]);
                _mm256_storeu_ps(p.add(8), v[1]);
            }
            out
        }
    }
}

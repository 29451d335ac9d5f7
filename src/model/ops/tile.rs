//! The inner kernel of every matrix product: a few rows of A times a few panels of B.
//!
//! B comes as panels of 16 columns, each `[depth][16]`. An output element is one chain of fused multiply-adds over the
//! depth in ascending order, in a lane of its own, so its value depends neither on how many rows and panels share a tile nor
//! on the instruction set.

use super::simd::{LANES, Simd};

/// What a tile does with the numbers already in C.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// C = A·B
    Overwrite,
    /// C = C + A·B, the product summed on its own first (blocked summation)
    Add,
    /// C = C + A·B, each term added to C in turn: one chain, however it is cut into calls
    Continue,
}

/// A tile of a product. Strides are in floats.
#[derive(Clone, Copy)]
pub struct Tile {
    /// A: `rows` rows, `depth` consecutive floats each, `a_stride` apart.
    pub a: *const f32,
    pub a_stride: usize,
    /// B: panels of `[depth][16]`, `b_stride` apart.
    pub b: *const f32,
    pub b_stride: usize,
    pub depth: usize,
    /// C: `rows` rows of `panels * 16` consecutive floats, `c_stride` apart.
    pub c: *mut f32,
    pub c_stride: usize,
    pub into: Into,
    /// What to bring into the cache meanwhile: for each step of the depth, `ahead_step` floats from here on, in each of
    /// the panels (`b_stride` apart). Only a hint; any address will do.
    pub ahead: *const f32,
    pub ahead_step: usize,
}

/// How many panels the register file can take along with `rows` rows: 4, 2 or 1.
pub const fn widest<S: Simd>(rows: usize) -> usize {
    if rows * 4 <= S::ACCUMULATORS {
        4
    } else if rows * 2 <= S::ACCUMULATORS {
        2
    } else {
        1
    }
}

/// Runs a tile of `rows` rows (at most [`Simd::TILE_ROWS`]) and `panels` panels (1, 2 or 4, at most [`widest`]).
///
/// # Safety
/// All of A, B and C as described by `tile` must be readable, C writable and not aliased.
#[inline(always)]
pub unsafe fn run<S: Simd>(s: S, rows: usize, panels: usize, tile: &Tile) {
    debug_assert!(rows <= S::TILE_ROWS && panels <= widest::<S>(rows));
    macro_rules! by_rows {
        ($($m:literal)+) => {
            match rows {
                // SAFETY: the caller's promise, passed on.
                $($m if $m <= S::TILE_ROWS => unsafe { by_panels::<S, $m>(s, panels, tile) },)+
                _ => {}
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
}

#[inline(always)]
unsafe fn by_panels<S: Simd, const M: usize>(s: S, panels: usize, tile: &Tile) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        match panels {
            4 if widest::<S>(M) >= 4 => product::<S, M, 4>(s, tile),
            2 if widest::<S>(M) >= 2 => product::<S, M, 2>(s, tile),
            _ => product::<S, M, 1>(s, tile),
        }
    }
}

#[inline(always)]
unsafe fn product<S: Simd, const M: usize, const P: usize>(s: S, t: &Tile) {
    let mut acc = [[s.splat(0.0); P]; M];
    if t.into == Into::Continue {
        for (i, row) in acc.iter_mut().enumerate() {
            for (p, acc) in row.iter_mut().enumerate() {
                // SAFETY: row i, panel p of C is readable.
                *acc = s.load(unsafe { &*t.c.add(i * t.c_stride + p * LANES).cast() });
            }
        }
    }
    let (mut a, mut b, mut ahead) = (t.a, t.b, t.ahead);
    for _ in 0..t.depth {
        let mut weights = [s.splat(0.0); P];
        for (p, weights) in weights.iter_mut().enumerate() {
            // SAFETY: this row of panel p is readable.
            *weights = s.load(unsafe { &*b.add(p * t.b_stride).cast() });
            s.prefetch(ahead.wrapping_add(p * t.b_stride));
        }
        for (i, row) in acc.iter_mut().enumerate() {
            // SAFETY: this column of row i of A is readable.
            let x = s.splat(unsafe { *a.add(i * t.a_stride) });
            for (acc, &w) in row.iter_mut().zip(&weights) {
                *acc = s.fma(x, w, *acc);
            }
        }
        a = a.wrapping_add(1);
        b = b.wrapping_add(LANES);
        ahead = ahead.wrapping_add(t.ahead_step);
    }
    for (i, row) in acc.iter().enumerate() {
        for (p, &acc) in row.iter().enumerate() {
            // SAFETY: row i, panel p of C is writable, and nobody else's.
            let c: &mut [f32; LANES] = unsafe { &mut *t.c.add(i * t.c_stride + p * LANES).cast() };
            let v = if t.into == Into::Add { s.add(s.load(c), acc) } else { acc };
            s.store(v, c);
        }
    }
}

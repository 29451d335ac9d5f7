//! The inner kernel of every matrix product: a few rows of A times a few panels of B.
//!
//! B is packed in panels of 16 columns, each `[depth][16]`. An output element is one chain of fused multiply-adds over the
//! depth in ascending order, in its own SIMD lane, so its value depends neither on how many rows and panels share a tile nor
//! on the instruction set.

use super::{LANES, Simd};

/// What a tile does with the numbers already in C.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// C = A·B
    Overwrite,
    /// C = C + A·B, where the product is summed first (blocked summation)
    Add,
    /// C = C + A·B, where each term is added to C in turn: one chain, however it is divided into calls
    Continue,
}

/// The layout of the rows of A.
#[derive(Clone, Copy)]
pub enum Rows {
    /// Each row is `depth` consecutive floats; rows are this many floats apart.
    Apart(usize),
    /// `[depth][rows]`
    Packed,
}

/// A tile of a product. Strides are in floats.
#[derive(Clone, Copy)]
pub struct Tile {
    /// A: `rows` rows.
    pub a: *const f32,
    pub a_rows: Rows,
    /// B: panels of `[depth][16]`, `b_stride` apart.
    pub b: *const f32,
    pub b_stride: usize,
    pub depth: usize,
    /// C: `rows` rows of `panels * 16` consecutive floats, `c_stride` apart.
    pub c: *mut f32,
    pub c_stride: usize,
    pub into: Into,
    /// What to prefetch: for each step of the depth, the next `ahead_step` floats from here, at most 16, in each of the panels
    /// (`b_stride` apart). Only a hint; any address is allowed.
    pub ahead: *const f32,
    pub ahead_step: usize,
}

/// How many panels fit the registers together with `rows` rows: 4, 2 or 1.
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
        match (panels, tile.a_rows) {
            (4, Rows::Packed) if widest::<S>(M) >= 4 => product::<S, M, 4, true>(s, tile, 1),
            (4, Rows::Apart(stride)) if widest::<S>(M) >= 4 => product::<S, M, 4, false>(s, tile, stride),
            (2, Rows::Packed) if widest::<S>(M) >= 2 => product::<S, M, 2, true>(s, tile, 1),
            (2, Rows::Apart(stride)) if widest::<S>(M) >= 2 => product::<S, M, 2, false>(s, tile, stride),
            (_, Rows::Packed) => product::<S, M, 1, true>(s, tile, 1),
            (_, Rows::Apart(stride)) => product::<S, M, 1, false>(s, tile, stride),
        }
    }
}

/// Steps of the depth between two checks for the end.
const UNROLLED: usize = 4;

/// Where a step of the depth reads.
struct At {
    a: *const f32,
    /// Distance from a row of A to the next.
    stride: usize,
    b: *const f32,
    b_stride: usize,
}

impl At {
    /// Adds the products of one step of the depth, and moves on to the next.
    #[inline(always)]
    unsafe fn step<S: Simd, const M: usize, const P: usize, const PACKED: bool>(
        &mut self,
        s: S,
        acc: &mut [[S::V; P]; M],
    ) {
        let mut weights = [s.splat(0.0); P];
        for (p, weights) in weights.iter_mut().enumerate() {
            // SAFETY: this row of panel p is readable.
            *weights = s.load(unsafe { &*self.b.add(p * self.b_stride).cast() });
        }
        for (i, row) in acc.iter_mut().enumerate() {
            // SAFETY: this column of row i of A is readable.
            let x = s.splat(unsafe { *self.a.add(if PACKED { i } else { i * self.stride }) });
            for (acc, &w) in row.iter_mut().zip(&weights) {
                *acc = s.fma(x, w, *acc);
            }
        }
        self.a = self.a.wrapping_add(if PACKED { M } else { 1 });
        self.b = self.b.wrapping_add(LANES);
    }
}

#[inline(always)]
unsafe fn product<S: Simd, const M: usize, const P: usize, const PACKED: bool>(s: S, t: &Tile, stride: usize) {
    let mut acc = [[s.splat(0.0); P]; M];
    if t.into == Into::Continue {
        for (i, row) in acc.iter_mut().enumerate() {
            for (p, acc) in row.iter_mut().enumerate() {
                // SAFETY: row i, panel p of C is readable.
                *acc = s.load(unsafe { &*t.c.add(i * t.c_stride + p * LANES).cast() });
            }
        }
    }
    let mut at = At { a: t.a, stride, b: t.b, b_stride: t.b_stride };
    let mut ahead = t.ahead;
    // A prefetch takes a load slot, so issue one for each cache line, not one for each step.
    let each = t.ahead_step * UNROLLED > LANES;
    for _ in 0..t.depth / UNROLLED {
        for u in 0..UNROLLED {
            if u == 0 || each {
                for p in 0..P {
                    s.prefetch(ahead.wrapping_add(u * t.ahead_step + p * t.b_stride));
                }
            }
            // SAFETY: there are as many steps as the depth.
            unsafe { at.step::<S, M, P, PACKED>(s, &mut acc) };
        }
        ahead = ahead.wrapping_add(UNROLLED * t.ahead_step);
    }
    for _ in 0..t.depth % UNROLLED {
        // SAFETY: as above.
        unsafe { at.step::<S, M, P, PACKED>(s, &mut acc) };
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

//! Kernels that score tiles of rows times queries.
//!
//! Each sum is one chain of fused multiply-adds over the width, in ascending order, in sixteen SIMD lanes, which are added in a
//! fixed order at the end. This is the same for every shape of tile.

use super::simd::{LANES, Op, Simd};

/// Queries, each padded with zeros to a multiple of the vector length.
#[derive(Debug)]
pub(super) struct Padded {
    width: usize,
    /// Number of vectors per query.
    depth: usize,
    vectors: Vec<[f32; LANES]>,
}

impl Padded {
    pub(super) fn new(queries: &[Vec<f32>]) -> Self {
        let width = queries.first().map_or(0, Vec::len);
        let mut vectors = Vec::new();
        for query in queries {
            assert_eq!(query.len(), width, "queries differ in width");
            let (whole, rest) = query.as_chunks();
            vectors.extend_from_slice(whole);
            vectors.extend((!rest.is_empty()).then(|| padded(rest)));
        }
        Self { width, depth: width.div_ceil(LANES), vectors }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn len(&self) -> usize {
        self.vectors.len().checked_div(self.depth).unwrap_or(0)
    }

    #[inline(always)]
    fn query(&self, i: usize) -> &[[f32; LANES]] {
        &self.vectors[i * self.depth..][..self.depth]
    }
}

#[inline(always)]
fn padded(rest: &[f32]) -> [f32; LANES] {
    let mut vector = [0.0; LANES];
    vector[..rest.len()].copy_from_slice(rest);
    vector
}

/// Inner products, or squared distances, of `rows`, `[n, width]`, with every query: `out` is `[n, queries]`.
pub(super) struct Products<'a> {
    pub(super) rows: &'a [f32],
    pub(super) queries: &'a Padded,
    /// Whether to compute squared distances instead of products.
    pub(super) difference: bool,
    pub(super) out: &'a mut [f32],
}

impl Op for Products<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (n, queries) = (self.rows.len() / self.queries.width.max(1), self.queries.len());
        let (tile_rows, tile_queries) = S::TILE;
        let mut q = 0;
        while q < queries {
            let wide = match queries - q {
                left if left >= tile_queries => tile_queries,
                2.. => 2,
                _ => 1,
            };
            let mut r = 0;
            while r < n {
                let tall = if n - r >= tile_rows { tile_rows } else { 1 };
                match (tall, wide) {
                    (4, 6) => self.tile::<S, 4, 6>(simd, r, q),
                    (1, 6) => self.tile::<S, 1, 6>(simd, r, q),
                    (4, 2) => self.tile::<S, 4, 2>(simd, r, q),
                    (4, _) => self.tile::<S, 4, 1>(simd, r, q),
                    (2, 3) => self.tile::<S, 2, 3>(simd, r, q),
                    (1, 3) => self.tile::<S, 1, 3>(simd, r, q),
                    (2, 2) => self.tile::<S, 2, 2>(simd, r, q),
                    (1, 2) => self.tile::<S, 1, 2>(simd, r, q),
                    (2, _) => self.tile::<S, 2, 1>(simd, r, q),
                    _ => self.tile::<S, 1, 1>(simd, r, q),
                }
                r += tall;
            }
            q += wide;
        }
    }
}

impl Products<'_> {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const Q: usize>(&mut self, simd: S, row: usize, query: usize) {
        let sums = if self.difference {
            self.sums::<S, R, Q, true>(simd, row, query)
        } else {
            self.sums::<S, R, Q, false>(simd, row, query)
        };
        let stride = self.queries.len();
        for (r, sums) in sums.iter().enumerate() {
            for (q, sum) in sums.iter().enumerate() {
                self.out[(row + r) * stride + query + q] = total(simd.store(*sum));
            }
        }
    }

    #[inline(always)]
    fn sums<S: Simd, const R: usize, const Q: usize, const DIFFERENCE: bool>(
        &self,
        simd: S,
        row: usize,
        query: usize,
    ) -> [[S::V; Q]; R] {
        let width = self.queries.width;
        let mut rows: [(&[[f32; LANES]], &[f32]); R] = [(&[], &[]); R];
        let mut queries: [&[[f32; LANES]]; Q] = [&[]; Q];
        for (r, chunks) in rows.iter_mut().enumerate() {
            *chunks = self.rows[(row + r) * width..][..width].as_chunks();
        }
        for (q, vectors) in queries.iter_mut().enumerate() {
            *vectors = self.queries.query(query + q);
        }
        let mut sums = [[simd.zero(); Q]; R];
        let whole = width / LANES;
        // slices with the length of the loop need no bounds checks inside it
        let full = queries.map(|vectors| &vectors[..whole]);
        let heads = rows.map(|(vectors, _)| &vectors[..whole]);
        for d in 0..whole {
            let mut x = [simd.zero(); R];
            for (x, head) in x.iter_mut().zip(&heads) {
                *x = simd.load(&head[d]);
            }
            step::<S, R, Q, DIFFERENCE>(simd, &x, &full, d, &mut sums);
        }
        if !width.is_multiple_of(LANES) {
            let mut x = [simd.zero(); R];
            for (x, (_, rest)) in x.iter_mut().zip(&rows) {
                *x = simd.load(&padded(rest));
            }
            step::<S, R, Q, DIFFERENCE>(simd, &x, &queries, whole, &mut sums);
        }
        sums
    }
}

/// Adds the products of one vector of each row with one vector of each query.
#[inline(always)]
fn step<S: Simd, const R: usize, const Q: usize, const DIFFERENCE: bool>(
    simd: S,
    x: &[S::V; R],
    queries: &[&[[f32; LANES]]; Q],
    d: usize,
    sums: &mut [[S::V; Q]; R],
) {
    for (q, query) in queries.iter().enumerate() {
        let y = simd.load(&query[d]);
        for (x, sums) in x.iter().zip(sums.iter_mut()) {
            sums[q] = if DIFFERENCE {
                let difference = simd.sub(*x, y);
                simd.fma(difference, difference, sums[q])
            } else {
                simd.fma(*x, y, sums[q])
            };
        }
    }
}

/// Sums of squares of `rows`, `[n, width]`.
pub(super) struct Squares<'a> {
    pub(super) rows: &'a [f32],
    pub(super) width: usize,
    pub(super) out: &'a mut [f32],
}

impl Op for Squares<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (row, out) in self.rows.chunks_exact(self.width).zip(self.out) {
            let (whole, rest) = row.as_chunks();
            let mut sum = simd.zero();
            for x in whole {
                let x = simd.load(x);
                sum = simd.fma(x, x, sum);
            }
            if !rest.is_empty() {
                let x = simd.load(&padded(rest));
                sum = simd.fma(x, x, sum);
            }
            *out = total(simd.store(sum));
        }
    }
}

/// Adds the lanes pair by pair.
#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
    let mut sums = lanes;
    let mut n = LANES / 2;
    while n > 0 {
        for i in 0..n {
            sums[i] += sums[i + n];
        }
        n /= 2;
    }
    sums[0]
}
